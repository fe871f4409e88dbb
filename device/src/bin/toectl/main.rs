//! `toectl`: asks a running card.

mod ask;
mod capture;
mod faults;
mod tables;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use toe_command_line::Shell;
use toe_device::capture::filter::Instruction;
use toe_device::management::Version;

/// Ask a running toe-nic
#[derive(Parser)]
#[command(name = "toectl", version)]
struct Options {
    /// The socket that toe-nic was given as --management-socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Print JSON, as the card says it
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// Every pool: capacity, in use, high water, policy, refusals by reason
    Limits,
    /// Every counter
    Stat,
    /// What answers
    Version,
    /// Pools and counters for Prometheus (OpenMetrics text); `--json` is refused
    Metrics,
    /// Follow pools that fill and empty: a line of JSON for each event, from now on
    Events,
    /// What passes through the card, as pcapng: `toectl … capture | wireshark -k -i -`
    Capture(capture::Arguments),
    /// Faults on demand: what can strike, arm, disarm, and what struck
    Faults {
        #[command(subcommand)]
        what: faults::What,
    },
    /// Print completions for a shell
    Completions {
        /// Of which
        shell: Shell,
    },
    /// Print the man page, of the whole or of one subcommand
    Man {
        /// Of which
        command: Option<String>,
    },
}

fn main() -> ExitCode {
    let options: Options = toe_command_line::parse();
    match &options.command {
        Command::Completions { shell } => {
            return toe_command_line::finish("toectl", Ok(toe_command_line::completions::<Options>(*shell)));
        }
        Command::Man { command } => {
            return toe_command_line::finish("toectl", toe_command_line::man_page::<Options>(command.as_deref()));
        }
        Command::Metrics if options.json => {
            eprintln!("toectl: metrics are text for Prometheus: leave --json out, or ask for `stat` and `limits`");
            return ExitCode::from(2);
        }
        // What can strike is known without a card.
        Command::Faults { what: faults::What::List } => {
            return toe_command_line::finish("toectl", faults::list(options.json));
        }
        Command::Capture(_) if options.json => {
            eprintln!("toectl: captures are pcapng: leave --json out, or see what `tshark -T json` makes of it");
            return ExitCode::from(2);
        }
        _ => {}
    }
    let Some(socket) = &options.socket else {
        eprintln!("toectl: --socket PATH is needed, the one that toe-nic was given as --management-socket");
        return ExitCode::from(2);
    };
    let filter = match &options.command {
        Command::Capture(arguments) => match capture::compiled(arguments) {
            Ok(filter) => filter,
            Err(error) => {
                eprintln!("toectl: {error}");
                return ExitCode::from(2);
            }
        },
        _ => None,
    };
    let result = run(&options, socket, filter).map_err(|error| format!("{}: {error}", socket.display()));
    toe_command_line::finish("toectl", result)
}

fn run(options: &Options, socket: &std::path::Path, filter: Option<Vec<Instruction>>) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let ask = |path| runtime.block_on(ask::ask(socket, path));
    let json = options.json;
    Ok(match &options.command {
        Command::Limits => answer(ask("/limits")?, json, |limits: Vec<_>| tables::limits(&limits))?,
        Command::Stat => answer(ask("/stat")?, json, |stat| tables::stat(&stat))?,
        Command::Version => answer(ask("/version")?, json, |Version { name, version, channel, epoch }| {
            format!("{name} {version}, channel version {channel}, epoch {epoch:#010x}\n")
        })?,
        Command::Metrics => ask("/metrics")?,
        Command::Faults { what } => {
            answer(runtime.block_on(faults::ask(socket, what))?, json, |status| faults::text(what, &status))?
        }
        Command::Events => {
            runtime.block_on(follow(socket))?;
            String::new()
        }
        Command::Capture(arguments) => {
            runtime.block_on(capture::run(socket, arguments, filter))?;
            String::new()
        }
        // Answered before.
        Command::Completions { .. } | Command::Man { .. } => String::new(),
    })
}

/// Prints lines as they come, until who reads has gone or the card ends.
async fn follow(socket: &std::path::Path) -> Result<(), String> {
    let mut answer = ask::Answer::to(socket, hyper::Request::get("/events"), hyper::body::Bytes::new()).await?;
    while let Some(lines) = answer.next().await? {
        let mut out = std::io::stdout();
        match out.write_all(&lines).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(format!("standard output: {error}")),
        }
    }
    Ok(())
}

/// The answer as it is, or as text for people.
fn answer<T: serde::de::DeserializeOwned>(
    body: String,
    json: bool,
    text: impl Fn(T) -> String,
) -> Result<String, String> {
    if json {
        return Ok(body + "\n");
    }
    serde_json::from_str(&body).map(text).map_err(|error| format!("an answer that makes no sense: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}

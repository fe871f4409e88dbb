//! `toe`: what a person in the guest uses the card with.
//!
//! Exit status: 0 if all went well, 1 if not, 2 if the command line makes no sense.

mod hold;
mod nc;
mod run;
mod ss;
mod tables;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use toe_command_line::Shell;

/// How long a command's end waits for the card to take the last data.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// TCP connections on the card, and what the card says of itself.
///
/// The interface is the one of the route, or the one that TOE_INTERFACE names. TOE_LOG=debug tells more.
#[derive(Parser, Debug)]
#[command(name = "toe", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Carry bytes between a connection and stdin/stdout, as netcat does.
    Nc(nc::Arguments),
    /// Show every pool of the card: capacity, use, high water, refusals by reason, policy.
    Limits(tables::Arguments),
    /// Show every counter of the card.
    Stat(tables::Arguments),
    /// Run a program whose TCP connections the card carries where it can, and the kernel where it cannot.
    Run(run::Arguments),
    /// Show the connections of card and kernel in one table, as ss does.
    Ss(ss::Arguments),
    /// Open many connections to an echo server at the same time, carry bytes through each and compare them.
    Hold(hold::Arguments),
    /// Print completions for a shell.
    Completions {
        /// Of which.
        shell: Shell,
    },
    /// Print the man page, of the whole or of one subcommand.
    Man {
        /// Of which.
        command: Option<String>,
    },
}

fn main() -> ExitCode {
    let arguments: Arguments = toe_command_line::parse();
    let log = env_logger::Env::new().filter_or("TOE_LOG", "warn");
    env_logger::Builder::from_env(log).init();
    if let Command::Run(a) = &arguments.command {
        // Before anything starts a thread.
        return run::run(a);
    }
    if let Command::Ss(a) = &arguments.command
        && let Err(error) = a.wanted()
    {
        eprintln!("toe: {error}");
        return ExitCode::from(2);
    }
    let nothing = |()| String::new();
    let result = match &arguments.command {
        Command::Run(_) => Ok(String::new()),
        Command::Nc(a) => nc::run(a).map(nothing),
        Command::Limits(a) => tables::limits(a),
        Command::Stat(a) => tables::stat(a),
        Command::Ss(a) => ss::run(a),
        Command::Hold(a) => hold::run(a).map(nothing),
        Command::Completions { shell } => Ok(toe_command_line::completions::<Arguments>(*shell)),
        Command::Man { command } => toe_command_line::man_page::<Arguments>(command.as_deref()),
    };
    toe_guest::close_all(CLOSE_PATIENCE);
    toe_command_line::finish("toe", result)
}

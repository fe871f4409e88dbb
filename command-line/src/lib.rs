//! What `toe-nic`, `toectl` and `toe` have in common as commands.
//!
//! * Exit status 0 if all went well, 1 if not, 2 if the command line makes no sense.
//! * Whatever is wrong is told in one line on stderr, with what to do about it.
//! * Output into a pipe whose reader has gone is no error.
//! * Completions and man pages come from the definition of the command line itself.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Command, CommandFactory, Parser};
pub use clap_complete::Shell;

/// Reads the command line. One that makes no sense ends the process with status 2 and one line; `--help` and
/// `--version` end it, too.
pub fn parse<P: Parser>() -> P {
    P::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            eprintln!("{}", one_line(&error.to_string(), P::command().get_name()));
            std::process::exit(error.exit_code());
        }
        error.exit()
    })
}

/// What clap says over several lines in one, without the usage: the help has it.
fn one_line(error: &str, name: &str) -> String {
    let before_usage = error.split("\nUsage:").next().unwrap_or_default();
    let before_usage = before_usage.split("\nFor more information").next().unwrap_or_default();
    let words: Vec<_> = before_usage.split_whitespace().collect();
    let what = words.join(" ");
    format!("{name}: {} (`{name} --help` tells more)", what.strip_prefix("error: ").unwrap_or(&what))
}

/// Prints `text`, or one line on stderr about what went wrong.
pub fn finish(name: &str, result: Result<String, String>) -> ExitCode {
    let text = match result {
        Ok(text) => text,
        Err(error) => return fail(name, &error),
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(name, &format!("standard output: {error}")),
    }
}

/// One line on stderr, and status 1.
pub fn fail(name: &str, error: &str) -> ExitCode {
    eprintln!("{name}: {}", error.replace('\n', "; "));
    ExitCode::FAILURE
}

/// What a shell needs to complete this command's arguments.
pub fn completions<P: CommandFactory>(shell: Shell) -> String {
    let mut command = P::command();
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The man page (section 1) of the command, or of one of its subcommands.
///
/// # Errors
/// There is no such subcommand; one line.
pub fn man_page<P: CommandFactory>(subcommand: Option<&str>) -> Result<String, String> {
    let mut command = P::command();
    command.build();
    if let Some(name) = subcommand {
        let found = command.find_subcommand(name).cloned();
        command = found.ok_or_else(|| {
            let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
            format!("no subcommand `{name}`; there are: {}", names.join(", "))
        })?;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Columns two spaces apart, those in `right` flush right. Every row has as many cells as the first.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries things
    #[derive(Parser, Debug)]
    #[command(name = "try", version)]
    struct Options {
        /// How many
        #[arg(long)]
        count: u8,
        #[command(subcommand)]
        what: What,
    }

    #[derive(clap::Subcommand, Debug)]
    enum What {
        /// Looks
        Look {
            /// At what
            at: String,
        },
    }

    fn refused(arguments: &[&str]) -> String {
        let all = ["try"].iter().chain(arguments);
        one_line(&Options::try_parse_from(all).unwrap_err().to_string(), "try")
    }

    #[test]
    fn what_makes_no_sense_is_told_in_one_line() {
        for (arguments, expected) in [
            (
                &["--count", "x", "look", "a"][..],
                "try: invalid value 'x' for '--count <COUNT>': invalid digit found in string",
            ),
            (&["look", "a"], "try: the following required arguments were not provided: --count <COUNT>"),
            (&["--count", "1", "lok"], "try: unrecognized subcommand 'lok' tip: a similar subcommand exists: 'look'"),
        ] {
            assert_eq!(refused(arguments), format!("{expected} (`try --help` tells more)"));
        }
    }

    #[test]
    fn tables_are_aligned() {
        let rows = [["pool", "capacity"], ["connections", "8"], ["pages", "1024"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows, &[1]), "pool         capacity\nconnections         8\npages            1024\n");
        assert_eq!(table(&[], &[]), "");
    }

    #[test]
    fn completions_and_pages_know_the_arguments() {
        assert!(completions::<Options>(Shell::Bash).contains("--count"));
        assert!(man_page::<Options>(None).unwrap().contains("Tries things"));
        assert!(man_page::<Options>(Some("look")).unwrap().contains("At what"));
        assert_eq!(man_page::<Options>(Some("lok")).unwrap_err(), "no subcommand `lok`; there are: look, help");
    }
}

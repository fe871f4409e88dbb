//! `toe run`: a program with its connections on the card.
//!
//! The exit status is the program's; 127 if it is not there, 126 if it cannot be executed, 125 if `toe run` itself failed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use toe_guest::run::{self, Options, Policy};

/// What `toe run` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Which connections go to the card; all that can if there is no file.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write the counters there when the last process has ended, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// Runs it.
pub fn run(a: &Arguments) -> ExitCode {
    let run = || {
        let policy = a.policy.as_deref().map_or_else(|| Ok(Policy::default()), Policy::read)?;
        run::run(&Options { command: a.command.clone(), policy, report: a.report.clone() })
    };
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("toe run: {e}");
            ExitCode::from(125)
        }
    }
}

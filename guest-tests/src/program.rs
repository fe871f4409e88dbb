//! What the programs of this crate have in common: how they end.

use std::process::ExitCode;

use anyhow::Result;

use crate::Namespace;

/// From now on an interruption ends what this process has started in its namespaces, and then the process.
pub fn clean_up_when_interrupted() {
    let interrupted = || {
        if let Err(error) = Namespace::sweep_own() {
            eprintln!("{error:#}");
        }
        std::process::exit(130);
    };
    if let Err(error) = ctrlc::set_handler(interrupted) {
        eprintln!("an interruption will leave processes behind: {error}");
    }
}

/// Runs a program's work, and says in one line why it failed, if it did.
pub fn run(name: &str, work: impl FnOnce() -> Result<()>) -> ExitCode {
    clean_up_when_interrupted();
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

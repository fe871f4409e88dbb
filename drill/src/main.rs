//! `toe-drill`: plays scripts.
#![allow(missing_docs)]

mod commands;

fn main() -> std::process::ExitCode {
    commands::main()
}

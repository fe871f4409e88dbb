//! `toe-drill`: plays scripts, and votes. See the crate's README.

mod commands;

fn main() -> std::process::ExitCode {
    commands::main()
}

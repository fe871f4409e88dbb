//! Benchmarks of the card, each beside what one would have instead, in one run and in turns. `scripts/bench` builds and starts it.

#[cfg(feature = "lab")]
mod device;
mod firmware;
#[cfg(feature = "lab")]
mod guest;
mod measure;
#[cfg(feature = "lab")]
mod native;
mod report;
#[cfg(feature = "lab")]
mod turns;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How fast the card is, beside what one would have instead: a table, and `target/bench/NAME.json`
#[derive(Parser)]
#[command(name = "toe-bench")]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The firmware in this process, beside smoltcp on the same frames
    Firmware(firmware::Options),
    /// Frames through the vhost-user rings, beside DPDK's own backend
    #[cfg(feature = "lab")]
    Device(device::Options),
    /// A host process on the card, without a guest, beside the kernel's sockets over the same wire
    #[cfg(feature = "lab")]
    Native(native::Options),
    /// In one guest, the card beside the kernel: time under User-Mode Linux, instructions under QEMU
    #[cfg(feature = "lab")]
    Guest(guest::Options),
}

fn main() -> ExitCode {
    let options: Options = toe_command_line::parse();
    let result = match &options.what {
        What::Firmware(options) => firmware::run(options),
        #[cfg(feature = "lab")]
        What::Device(options) => device::run(options),
        #[cfg(feature = "lab")]
        What::Native(options) => native::run(options),
        #[cfg(feature = "lab")]
        What::Guest(options) => guest::run(options),
    };
    toe_command_line::finish("toe-bench", result.map_err(|error| format!("{error:#}")))
}

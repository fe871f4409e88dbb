//! `toe run` beside the kernel and the library in the same guest, under User-Mode Linux and QEMU, and what the calls cost
//! that it is told of. Prints tables as Markdown. `scripts/measure-run` builds and starts this.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use toe_guest_tests::{Kind, Lab, LabOptions, run};

/// Measures `toe run` beside the kernel and the library
#[derive(Parser)]
struct Arguments {
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// The best of so many
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Calls of each mechanism
    #[arg(long, default_value_t = 2000)]
    calls: u32,
    /// Only in guests whose name has this in it
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    toe_guest_tests::program::run("toe-run-rates", || work(&Arguments::parse()))
}

fn work(arguments: &Arguments) -> Result<()> {
    let mut tables = String::new();
    for (kind, name) in [(Kind::UserMode, "User-Mode Linux"), (Kind::Qemu, "QEMU")] {
        if !name.contains(&arguments.only) {
            continue;
        }
        let options = LabOptions { limit: Duration::from_secs(3600), verbose: true, ..LabOptions::new("rates", kind) };
        Lab::run(options, |lab| {
            let rates = run::measure(lab, arguments.seconds, arguments.rounds)?;
            let mechanisms = run::mechanisms(lab, arguments.calls)?;
            tables.push_str(&table(name, &rates, &mechanisms));
            Ok(())
        })?;
    }
    print!("{tables}");
    Ok(())
}

fn table(guest: &str, rates: &[run::Rates], mechanisms: &[(String, u64)]) -> String {
    let mut text = format!(
        "\n| {guest} | kernel | `toe run` | library | `toe run` / kernel | `toe run` / library |\n|---|---:|---:|---:|---:|---:|\n"
    );
    for rate in rates {
        let unit = run::RATES.iter().find(|(what, _)| *what == rate.what).map_or(rate.what, |(_, unit)| unit);
        let ratio = |of: u64| format!("{:.2}", rate.run as f64 / of.max(1) as f64);
        let row = [rate.kernel, rate.run, rate.library].map(|n| n.to_string()).join(" | ");
        text.push_str(&format!("| {unit} | {row} | {} | {} |\n", ratio(rate.kernel), ratio(rate.library)));
    }
    text.push_str(&format!("\n| {guest}: one call | µs |\n|---|---:|\n"));
    for (name, ns) in mechanisms {
        text.push_str(&format!("| {name} | {:.1} |\n", *ns as f64 / 1000.0));
    }
    text
}

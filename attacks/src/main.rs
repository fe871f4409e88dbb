//! The program: runs attacks, prints a report of each, and counts the verdicts. `scripts/attacks` builds and starts it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use toe_attacks::run::{Report, Scale, Table, judge, run};
use toe_attacks::{attacks, device, fuzz, report};

/// Known attacks on a TCP offload engine, each against a standard card, with figures and a verdict
#[derive(Parser)]
#[command(name = "toe-attacks")]
struct Options {
    /// Attacks to run; all of them if none is named. Or `fuzz-rings` or `fuzz-channel`: bad input by number
    names: Vec<String>,

    /// Name them and end
    #[arg(long)]
    list: bool,

    /// Of all chance: the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The full figures (a million SYNs a second for ten seconds, a thousand honest connections a second)
    #[arg(long)]
    full: bool,

    /// The first six over the real device, in network namespaces of its own; and the SYN flood against Linux
    #[arg(long)]
    device: bool,

    /// With --device: how long each flood lasts, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,

    /// With --device: SYNs per second
    #[arg(long, default_value_t = device::FLOOD_PER_S, value_parser = clap::value_parser!(u64).range(1000..=5_000_000))]
    rate: u64,

    /// Of a fuzzer: how many ring states or channel messages
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,

    /// Of a fuzzer: how many threads share them
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,

    /// Write the reports to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,

    /// Put the table of this run into this file, between its two marks
    #[arg(long)]
    write_docs: Option<PathBuf>,
}

fn main() -> ExitCode {
    match attack(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("toe-attacks: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all held.
fn attack(options: &Options) -> Result<bool> {
    match options.names.first().map(String::as_str) {
        Some("fuzz-rings") => return fuzzed(options, fuzz::rings::run),
        Some("fuzz-channel") => return fuzzed(options, fuzz::channel::run),
        _ => {}
    }
    if options.device {
        return over_the_device(options);
    }
    let all = attacks::all();
    if options.list {
        for attack in &all {
            println!("{:24} {}", attack.name, attack.sends);
        }
        return Ok(true);
    }
    if let Some(unknown) = options.names.iter().find(|name| all.iter().all(|a| a.name != **name)) {
        bail!("there is no attack `{unknown}`; --list names them");
    }
    if options.write_docs.is_some() && !options.names.is_empty() {
        bail!("--write-docs wants the figures of all attacks");
    }
    let scale = Scale { seed: options.seed, full: options.full };
    let mut reports: Vec<Report> = Vec::new();
    for table in [Table::Room, Table::Full] {
        let (benign, ..) = run(scale, table, None);
        for attack in all.iter().filter(|a| options.names.is_empty() || options.names.iter().any(|n| n == a.name)) {
            let judged = judge(scale, table, attack, &benign);
            print!("{}", report::text(attack, &judged));
            std::io::stdout().flush()?;
            reports.push(judged);
        }
    }
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&reports)?;
        std::fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &options.write_docs {
        let command = format!("scripts/attacks{} --seed {}", if options.full { " --full" } else { "" }, options.seed);
        report::write_table(path, &command, &all, &reports)?;
    }
    let held = reports.iter().filter(|r| r.verdict.holds()).count();
    println!("{held} held, {} failed", reports.len() - held);
    Ok(held == reports.len())
}

/// Runs a fuzzer.
fn fuzzed<T: std::fmt::Display + Send>(options: &Options, work: impl Fn(u64, u64) -> Result<T> + Sync) -> Result<bool> {
    let begun = std::time::Instant::now();
    for (n, found) in fuzz::sharded(options.threads, options.count, options.seed, work)?.into_iter().enumerate() {
        println!("seed {}: {found}", options.seed + n as u64);
    }
    let took = begun.elapsed();
    println!("{:.0} a second, for {:.0} s", options.count as f64 / took.as_secs_f64(), took.as_secs_f64());
    Ok(true)
}

/// Runs what runs over the device.
fn over_the_device(options: &Options) -> Result<bool> {
    let time = std::time::Duration::from_secs(options.seconds);
    let plan = device::Plan { time, per_s: options.rate, seed: options.seed };
    let all = device::run(&plan, |flooded| println!("{}", flooded.text()))?;
    let held = all.iter().filter(|f| f.held == Some(true)).count();
    let failed = all.iter().filter(|f| f.held == Some(false)).count();
    println!("{held} held, {failed} failed");
    Ok(failed == 0)
}

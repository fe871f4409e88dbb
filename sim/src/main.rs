//! `toe-sim`: runs seeds of the simulator, or one of them with every frame in words.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use toe_faults::Rules;
use toe_sim::{Ends, Order, named, nightly, range, replay, replay_string, single_faults};

/// The card's firmware in a world made from a seed.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Every seed is of this scenario, instead of one that it draws.
    #[arg(long)]
    scenario: Option<String>,
    /// What stands at the two ends.
    #[arg(long, value_enum, default_value = "drawn")]
    ends: Ends,
    /// Faults at every card, by the rules of this file.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Every single fault: at each site of each card, each passage, each action, in each of the twelve base scenarios
    /// (or the one asked for), under the seed --from.
    #[arg(long, visible_alias = "singles", conflicts_with = "faults")]
    single_faults: bool,
    /// Two or three faults in each seed, at passages of sites that it draws, in one of the base scenarios.
    #[arg(long, conflicts_with_all = ["faults", "single_faults"])]
    pairs: bool,
    /// Seeds of every scenario, every single fault, as many seeds of two or three; and no site may be dead.
    #[arg(long, conflicts_with_all = ["faults", "single_faults", "pairs", "scenario"])]
    nightly: bool,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Runs this seed alone and prints every frame; SEED:until=TIME stops printing at that virtual time (us, ms or s).
    #[arg(long, value_name = "SEED[:until=TIME]", value_parser = replayed)]
    replay: Option<(u64, u64)>,
    /// Runs the world of one of the fuzzer's strings and prints every frame.
    #[arg(long, value_name = "FILE")]
    string: Option<PathBuf>,
    /// Prints the scenarios.
    #[arg(long)]
    list: bool,
}

/// A seed, and a time in microseconds.
fn replayed(text: &str) -> Result<(u64, u64), String> {
    let (seed, until) = match text.split_once(':') {
        None => (text, None),
        Some((seed, rest)) => {
            let time = rest.strip_prefix("until=").ok_or_else(|| format!("`{rest}`: expected until=TIME"))?;
            (seed, Some(time))
        }
    };
    let seed = seed.parse().map_err(|_| format!("`{seed}` is no seed: a number from 0 to {}", u64::MAX))?;
    let until_us = match until {
        None => u64::MAX,
        Some(time) => {
            let units = [("us", 1), ("ms", 1_000), ("s", 1_000_000)];
            let parts = units.iter().find_map(|&(unit, scale)| Some((time.strip_suffix(unit)?, scale)));
            let us = parts.and_then(|(number, scale)| number.parse::<u64>().ok()?.checked_mul(scale));
            us.ok_or_else(|| format!("`{time}` is no time: a whole number of us, ms or s"))?
        }
    };
    Ok((seed, until_us))
}

/// The rules of a file.
fn rules(path: &Path) -> Result<Rules, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    toe_faults::read(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for (name, about) in toe_sim::list() {
            println!("{name:<20} {about}");
        }
        return ExitCode::SUCCESS;
    }
    if let Some(path) = &arguments.string {
        return match std::fs::read(path) {
            Ok(bytes) if replay_string(&bytes) => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("sim: {}: {error}", path.display());
                ExitCode::from(2)
            }
        };
    }
    let scenario = match arguments.scenario.as_deref().map(|name| (name, named(name))) {
        Some((name, None)) => {
            let names: Vec<_> = toe_sim::list().map(|(name, _)| name).collect();
            eprintln!("sim: `{name}`: no such scenario; there are {}", names.join(", "));
            return ExitCode::from(2);
        }
        Some((_, found)) => found,
        None => None,
    };
    let faults = match arguments.faults.as_deref().map(rules).transpose() {
        Ok(faults) => faults,
        Err(text) => {
            eprintln!("sim: {text}");
            return ExitCode::from(2);
        }
    };
    let (ends, drawn_faults) = if arguments.pairs { (Ends::Cards, 3) } else { (arguments.ends, 0) };
    let order = Order { scenario, ends, faults, drawn_faults, faults_last: false };
    let holds = match arguments.replay {
        Some((seed, until_us)) => replay(seed, until_us, &order),
        None if arguments.nightly => nightly(arguments.from, arguments.seeds, arguments.jobs.max(1)),
        None if arguments.single_faults => single_faults(arguments.from, &order, arguments.jobs.max(1)).1,
        None => range(arguments.from, arguments.seeds, &order, arguments.jobs.max(1)),
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

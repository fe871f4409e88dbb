//! `toe-sim`: runs seeds of the simulator, or one of them with every frame in words.

use std::process::ExitCode;

use clap::Parser;
use toe_sim::{Ends, Order, named, range, replay};

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
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Runs this seed alone and prints every frame; SEED:until=TIME stops printing at that virtual time (us, ms or s).
    #[arg(long, value_name = "SEED[:until=TIME]", value_parser = replayed)]
    replay: Option<(u64, u64)>,
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for (name, about) in toe_sim::list() {
            println!("{name:<20} {about}");
        }
        return ExitCode::SUCCESS;
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
    let order = Order { scenario, ends: arguments.ends };
    let holds = match arguments.replay {
        Some((seed, until_us)) => replay(seed, until_us, order),
        None => range(arguments.from, arguments.seeds, order, arguments.jobs.max(1)),
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use toe_drill::language::Family;
use toe_drill::runner::Settings;
use toe_drill::suite::{self, On, Trouble};

/// Scripts of system calls and packets against the card's firmware and against the Linux kernel.
#[derive(Parser)]
#[command(name = "toe-drill", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays scripts.
    Run(Run),
    /// Plays random cases on the firmware, on Linux and on smoltcp, and lists where they do not agree.
    Vote(Vote),
    /// Prints docs/differences.md.
    Differences {
        /// Where the scripts are.
        #[arg(long, default_value = "drill/scripts")]
        scripts: PathBuf,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Where {
    Firmware,
    Linux,
    Both,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Version {
    Ipv4,
    Ipv6,
    /// What the script is for.
    All,
}

#[derive(clap::Args)]
struct Run {
    /// Scripts.
    #[arg(required = true)]
    scripts: Vec<PathBuf>,
    /// Where they are played.
    #[arg(long, value_enum, default_value = "both")]
    on: Where,
    /// The packets' family.
    #[arg(long = "ip-version", alias = "ip_version", value_enum, default_value = "all")]
    ip_version: Version,
    /// How far off a time may be, in milliseconds (1 on the firmware, 10 on linux).
    #[arg(long)]
    tolerance_ms: Option<u64>,
    /// Further flags of the card, as in packetdrill/README.md.
    #[arg(long = "so-flags", alias = "so_flags", value_delimiter = ',')]
    flags: Vec<String>,
    /// Options must lie in the packet as the script says, padding included, and PSH only where it says so.
    #[arg(long)]
    exact: bool,
    /// Run the scripts' commands (in backticks) on linux. They run as whoever runs this.
    #[arg(long)]
    shell: bool,
    /// Show every packet and call.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(clap::Args)]
struct Vote {
    /// How many cases.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first one's seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// The packets' family.
    #[arg(long = "ip-version", alias = "ip_version", value_enum, default_value = "ipv4")]
    ip_version: Version,
}

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Run(run) => self::run(&run),
        Command::Vote(vote) => self::vote(&vote),
        Command::Differences { scripts } => toe_drill::differences::page(&scripts).map(|page| {
            print!("{page}");
            true
        }),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("{trouble}");
            ExitCode::from(2)
        }
    }
}

/// Whether all scripts did what is expected of them.
fn run(run: &Run) -> Result<bool, Trouble> {
    let mut good = true;
    for path in &run.scripts {
        let script = match suite::load(path) {
            Ok(script) => script,
            Err(trouble) => {
                println!("{trouble}");
                good = false;
                continue;
            }
        };
        for on in On::ALL {
            if run.on == Where::Firmware && on == On::Linux || run.on == Where::Linux && on == On::Firmware {
                continue;
            }
            for family in suite::families(&script) {
                if run.ip_version == Version::Ipv4 && family == Family::V6
                    || run.ip_version == Version::Ipv6 && family == Family::V4
                {
                    continue;
                }
                let settings = Settings {
                    tolerance_us: run.tolerance_ms.map(|ms| ms * 1000),
                    exact: run.exact,
                    shell: run.shell,
                    ..Settings::new(family)
                };
                let (result, notes) = suite::run(&script, on, settings, &run.flags)?;
                let expected = script.head.differs_on(on.name());
                let verdict = match (&result, expected) {
                    (Ok(()), None) => "passed",
                    (Ok(()), Some(_)) => "PASSED, though it is listed as different",
                    (Err(_), None) => "FAILED",
                    (Err(_), Some(_)) => "differs, as listed",
                };
                good &= result.is_ok() == expected.is_none();
                println!("{}: on {}, {}: {verdict}", script.file, on.name(), family.name());
                if run.verbose {
                    notes.iter().for_each(|note| println!("    {note}"));
                }
                if let (Err(failure), true) = (&result, expected.is_none() || run.verbose) {
                    println!("  {failure}");
                }
                if let (Some(reason), true) = (expected, run.verbose) {
                    println!("  listed: {reason}");
                }
            }
        }
    }
    Ok(good)
}

/// Whether every split was of a known kind.
fn vote(vote: &Vote) -> Result<bool, Trouble> {
    let families = match vote.ip_version {
        Version::Ipv4 => vec![Family::V4],
        Version::Ipv6 => vec![Family::V6],
        Version::All => vec![Family::V4, Family::V6],
    };
    let mut good = true;
    for family in families {
        let tally = toe_drill::vote::vote(vote.first..vote.first + vote.seeds, family)?;
        let (agreed, unsteady) = (tally.agreed, tally.unsteady);
        println!("{}: {} cases, {agreed} agreed, {unsteady} without a verdict", family.name(), vote.seeds);
        for (at, count) in &tally.known {
            let known = toe_drill::vote::KNOWN[*at];
            println!("  {count:6} known: {}: {} ({})", known.when, known.who, known.rule);
        }
        for ((alone, kind), (count, seed, case)) in &tally.unknown {
            println!("  {count:6} NOT KNOWN: alone: {}: {kind} (seed {seed})\n{case}", alone.name());
        }
        good &= tally.is_known();
    }
    Ok(good)
}

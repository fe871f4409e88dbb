//! In one guest, the card beside the kernel: the same programs by the kernel's sockets, under `toe run` and by the library, over the
//! same device, in turns.
//!
//! Under User-Mode Linux, which runs at the machine's own speed, time is measured. Under QEMU instructions are counted, by the
//! plugin of the crate `guest-instructions`: they are the guest's alone, and hardly depend on what else the machine does. The peer is
//! a process on the host's sockets at the other end of the wire. Beside them, for the kernel's sockets alone, the guest on QEMU's own
//! network with the TCP in QEMU (`-netdev user`) and in `passt`.

mod instructions;
mod speed;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use toe_guest_tests::LabOptions;

use crate::report;
use crate::turns::Turns;

/// How to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    #[command(flatten)]
    turns: Turns,

    /// Only this half
    #[arg(long)]
    half: Option<Half>,

    #[command(flatten)]
    channel: Channel,
}

/// What there is between guest and card.
#[derive(clap::Args, Clone, Copy, Debug)]
struct Channel {
    /// How long frames between guest and card may be
    #[arg(long, default_value = "long")]
    mtu: Mtu,

    /// Have the card take payload from the programs' huge pages and write it there (`toe-nic --shared-rings`; User-Mode Linux has no
    /// huge pages)
    #[arg(long)]
    shared_rings: bool,
}

impl Channel {
    fn name(self) -> String {
        format!("{}{}", self.mtu.name(), if self.shared_rings { ", shared rings" } else { "" })
    }

    fn apply(self, options: LabOptions) -> LabOptions {
        let options = self.mtu.apply(options);
        if self.shared_rings { options.shared_rings() } else { options }
    }
}

/// MTUs in the guest; the wire's is 1500. The kernel's sockets are measured with the same.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Mtu {
    /// 65,535 for the interface, 1500 for its routes
    Long,
    /// 1500 for both
    Wire,
}

impl Mtu {
    fn name(self) -> &'static str {
        match self {
            Self::Long => "MTU of the interface 65535, of the routes 1500",
            Self::Wire => "MTU 1500",
        }
    }

    fn apply(self, options: LabOptions) -> LabOptions {
        match self {
            Self::Long => options.long_frames(),
            Self::Wire => options,
        }
    }
}

/// What is measured where.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Half {
    /// Time, under User-Mode Linux
    Speed,
    /// Instructions, under QEMU
    Instructions,
}

/// What a load is, and how its figures read.
struct Load {
    name: &'static str,
    /// As `toe-calls` calls it.
    argument: &'static str,
    unit: Unit,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    Byte,
    Answer,
    Connection,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Byte => "byte",
            Self::Answer => "answer",
            Self::Connection => "connection",
        }
    }
}

const fn load(name: &'static str, argument: &'static str, unit: Unit) -> Load {
    Load { name, argument, unit }
}

/// What the marks are for.
const LOADS: [Load; 5] = [
    load("bulk out", "out", Unit::Byte),
    load("bulk in", "in", Unit::Byte),
    load("ask 64 B", "requests:64", Unit::Answer),
    load("connect, one by one", "connections:64:1", Unit::Connection),
    load("connect, 8 at a time", "connections:64:8", Unit::Connection),
];

/// Where the crossover is: longer messages, longer connections.
const LONGER: [Load; 5] = [
    load("ask 4 KiB", "requests:4096", Unit::Answer),
    load("ask 64 KiB", "requests:65536", Unit::Answer),
    load("connect, send 16 KiB", "connections:16384:1", Unit::Connection),
    load("connect, send 256 KiB", "connections:262144:1", Unit::Connection),
    load("connect, send 4 MiB", "connections:4194304:1", Unit::Connection),
];

/// Measures, prints the tables and writes `target/bench/guest.json`; what to print at the end.
///
/// # Errors
/// A guest does not come up, or a load fails.
pub fn run(options: &Options) -> Result<String> {
    let (rounds, seconds) = options.turns.rounds_and_seconds();
    let time = Duration::from_secs_f64(seconds);
    let wanted: Vec<&Load> = LOADS.iter().chain(&LONGER).filter(|load| options.turns.wants(load.name)).collect();
    let begun = Instant::now();
    let (mut tables, mut value) = (
        String::new(),
        json!({ "machine": report::machine(), "rounds": rounds, "seconds": seconds, "channel": options.channel.name() }),
    );
    if options.half != Some(Half::Instructions) {
        let (table, figures) = speed::measure(&options.turns, &wanted, rounds, time, options.channel)?;
        tables.push_str(&table);
        value["speed"] = figures;
    }
    if options.half != Some(Half::Speed) {
        ensure!(!wanted.is_empty(), "no load has such a name");
        let (table, figures) = instructions::measure(&wanted, rounds, time, options.channel)?;
        tables.push_str(&table);
        value["instructions"] = figures;
    }
    let path = report::write("guest", &value)?;
    Ok(format!("{tables}written to {} in {} s\n", path.display(), begun.elapsed().as_secs()))
}

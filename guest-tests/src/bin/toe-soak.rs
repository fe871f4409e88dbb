//! One card connection carries much data each way over a lossy wire, with the Linux kernel as the peer; then, as a measure,
//! a connection between two Linux kernels over the same loss. `scripts/soak` builds and starts it.
//!
//! The exit status is 0 only if every byte arrived as it was sent and the card counted nothing but what loss explains.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use toe_guest_tests::bytes::{Pattern, Sum};
use toe_guest_tests::cable::Cable;
use toe_guest_tests::net::PEER_V4;
use toe_guest_tests::rate::kernel_counter;
use toe_guest_tests::{Bench, BenchOptions, CardOptions, Namespace, peers};
use toe_impair::Spec;

/// Much data over one card connection on a lossy wire
#[derive(Parser)]
#[command(name = "toe-soak")]
struct Options {
    /// How much each way, in MiB
    #[arg(default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    mib: u64,

    /// How many of the frames are lost in each direction
    #[arg(default_value = "1%")]
    loss: String,

    /// Seed of what is lost
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The slowest that is waited for, in MiB/s.
const SLOWEST: u64 = 2;
/// More than this is not sent between the two kernels, in MiB.
const COMPARED_MAX: u64 = 256;

fn main() -> ExitCode {
    let options = Options::parse();
    toe_guest_tests::program::run("toe-soak", || run(&options))
}

fn run(options: &Options) -> Result<()> {
    let impair = format!("loss={}", options.loss);
    let spec: Spec = impair.parse().with_context(|| format!("a loss of {}", options.loss))?;
    let bytes = options.mib << 20;
    println!("{} MiB each way, {impair} in each direction, seed {}", options.mib, options.seed);
    over_the_card(options, &impair, bytes)?;
    between_kernels(options, spec, bytes.min(COMPARED_MAX << 20))
}

fn over_the_card(options: &Options, impair: &str, bytes: u64) -> Result<()> {
    let card = CardOptions { impair: Some(impair.to_owned()), impair_seed: options.seed, ..CardOptions::default() };
    let limit = Duration::from_secs(60 + 2 * options.mib / SLOWEST);
    let bench = Bench::start(&BenchOptions { card, limit, ..BenchOptions::default() })?;
    let peer = peers::take_turns(&bench.namespace, PEER_V4, 2, bytes)?;
    let stream = bench.connect(peer.address)?;
    let turns = take_turns(&stream, bytes)?;
    let info = stream.info()?;
    drop(stream);
    ensure!(peer.join()? == [Sum::of_pattern(1, bytes)], "the kernel received something else");
    turns.print("card to Linux", "Linux to card");
    println!("  SHA-256 equal on both sides, both ways");
    println!(
        "  card: {} of {} segments sent again, {} timeouts, round trip {} us (lowest {} us)",
        info.retransmits,
        info.segments_out,
        bench.counter("tcp-timeouts")?,
        info.rtt_us,
        info.rtt_min_us
    );
    println!("  Linux: {}", Kernel::of(&bench.namespace)?);
    println!("  the card's counters that are not zero:");
    for (name, value) in bench.counters()? {
        println!("    {name:<32}{value:>12}");
    }
    bench.finish(&["tcp-fast-recoveries", "tcp-out-of-order"])
}

fn between_kernels(options: &Options, spec: Spec, bytes: u64) -> Result<()> {
    let cable = Cable::new(spec, options.seed)?;
    let peer = peers::take_turns(&cable.peer, PEER_V4, 2, bytes)?;
    let stream = peers::connect(&cable.guest, peer.address)?;
    let turns = take_turns(&stream, bytes)?;
    drop(stream);
    ensure!(peer.join()? == [Sum::of_pattern(1, bytes)], "between two kernels something else arrived");
    turns.print("Linux to Linux", "Linux to Linux");
    println!("  first: {}; second: {}", Kernel::of(&cable.guest)?, Kernel::of(&cable.peer)?);
    cable.finish()
}

/// How long each direction took.
struct Turns {
    bytes: u64,
    out: Duration,
    back: Duration,
}

impl Turns {
    fn print(&self, out: &str, back: &str) {
        for (what, time) in [(out, self.out), (back, self.back)] {
            let mib = self.bytes >> 20;
            let seconds = time.as_secs_f64();
            println!("{what}: {mib} MiB in {seconds:.1} s, {:.1} MiB/s", mib as f64 / seconds);
        }
    }
}

/// Sends, and when the peer has all of that, receives as much.
fn take_turns<S>(stream: &S, bytes: u64) -> Result<Turns>
where
    for<'a> &'a S: Read + Write,
{
    let start = Instant::now();
    let (mut reader, mut writer) = (stream, stream);
    std::io::copy(&mut Pattern::new(1).take(bytes), &mut writer).context("sending")?;
    // The peer begins when it has everything.
    let mut first = [0];
    reader.read_exact(&mut first).context("waiting for the peer")?;
    let out = start.elapsed();
    let received = Sum::of(&mut (&first[..]).chain(reader)).context("receiving")?;
    if received != Sum::of_pattern(2, bytes) {
        bail!("received something else: {received}");
    }
    Ok(Turns { bytes, out, back: start.elapsed() - out })
}

/// What the kernel in a namespace has counted.
#[derive(Clone, Copy)]
struct Kernel {
    /// Segments sent again.
    retransmits: u64,
    /// Retransmission timeouts.
    timeouts: u64,
}

impl Kernel {
    fn of(namespace: &Namespace) -> Result<Self> {
        Ok(Self {
            retransmits: kernel_counter(namespace, "snmp", "Tcp: ", "RetransSegs")?,
            timeouts: kernel_counter(namespace, "netstat", "TcpExt: ", "TCPTimeouts")?,
        })
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} segments sent again, {} timeouts", self.retransmits, self.timeouts)
    }
}

//! The card's TCP beside Linux's over the same bad links: card to Linux, Linux to card, and Linux to Linux in turns, for
//! every round trip, loss and controller; then the card and Linux together in one bottleneck. Prints a table and
//! writes it. `scripts/throughput` builds and starts it.
//!
//! What bounds it: every measurement has a fixed time, and a cell has a fixed number of rounds, or three times as many. Cells run side
//! by side, because most of them leave the machine idle; the rate of the link keeps all of them below what it can do.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use toe_guest_tests::bottleneck::{Bottleneck, SINK_V4};
use toe_guest_tests::cable::Cable;
use toe_guest_tests::net::PEER_V4;
use toe_guest_tests::rate::{self, Flow};
use toe_guest_tests::{Bench, BenchOptions, CardOptions, Namespace};

/// The card's TCP beside Linux's over bad links
#[derive(Parser)]
#[command(name = "toe-throughput")]
struct Options {
    /// Fewer and shorter measurements
    #[arg(long)]
    quick: bool,

    /// How long each measurement takes, in seconds
    #[arg(long)]
    seconds: Option<u64>,

    /// Measurements of each kind in a cell; where Linux's own are far apart, up to three times as many
    #[arg(long)]
    rounds: Option<u64>,

    /// Cells that are measured side by side
    #[arg(long, default_value_t = 4)]
    jobs: usize,

    /// Only cells whose name has this in it, as `cubic 200ms 1%`; every word must be there
    #[arg(long, default_value = "")]
    only: String,

    /// Where the table goes as Markdown; only printed by default
    #[arg(long)]
    write: Option<PathBuf>,

    /// Prints the card's counters of every measurement
    #[arg(long)]
    counters: bool,
}

/// Of every link, in each direction.
const RATE: &str = "rate=100mbit,queue=8MB";
/// Of links for segments as long as the buffers.
const RATE_LONG: &str = "rate=1gbit,queue=8MB";
/// The bottleneck: 20 ms, and a queue of once that.
const BOTTLENECK: &str = "rate=50mbit,queue=125kB,delay=10ms";

/// Which way, and between whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    CardToLinux,
    LinuxToCard,
    LinuxToLinux,
}

const WAYS: [Way; 3] = [Way::CardToLinux, Way::LinuxToCard, Way::LinuxToLinux];

/// One line of the table.
#[derive(Clone, Debug)]
struct Cell {
    /// CUBIC or NewReno: Linux's name and the profile's.
    controller: (&'static str, &'static str),
    rtt_ms: u64,
    loss: &'static str,
    mtu: u32,
    /// Of both ends' buffers, in KiB, for segments as long as half of it and more; 0: as they come.
    buffer_kib: u64,
    /// Streams at once, so that few losses are enough of them.
    streams: usize,
}

impl Cell {
    /// BBR has no place in the table, because Linux's answers no loss, either; it is measured when it is asked for.
    fn of_bbr() -> Vec<Self> {
        let mut cells = Vec::new();
        for rtt_ms in [10, 50] {
            for loss in ["0%", "1%", "3%"] {
                let controller = ("bbr", "bbr");
                cells.push(Self { controller, rtt_ms, loss, mtu: 1500, buffer_kib: 0, streams: 1 });
            }
        }
        cells
    }

    fn all(quick: bool) -> Vec<Self> {
        let mut cells = Vec::new();
        for controller in [("cubic", "cubic"), ("reno", "new-reno")] {
            for rtt_ms in [1, 10, 50, 200] {
                for loss in ["0%", "0.1%", "1%", "3%"] {
                    if quick && !(matches!(rtt_ms, 10 | 50) && matches!(loss, "0%" | "1%")) {
                        continue;
                    }
                    let streams = match (rtt_ms, loss) {
                        (_, "0%") | (1, "0.1%") => 1,
                        (1, _) | (10, "0.1%") => 2,
                        (10, _) => 4,
                        _ => 8,
                    };
                    cells.push(Self { controller, rtt_ms, loss, mtu: 1500, buffer_kib: 0, streams });
                }
            }
        }
        for buffer_kib in [128, 64] {
            for rtt_ms in [1, 10] {
                let controller = ("cubic", "cubic");
                cells.push(Self { controller, rtt_ms, loss: "0%", mtu: 65_000, buffer_kib, streams: 1 });
            }
        }
        cells
    }

    fn name(&self) -> String {
        let long = if self.is_long() { format!(" MTU {} of {} KiB", self.mtu, self.buffer_kib) } else { String::new() };
        format!("{} {}ms {}{long}", self.controller.0, self.rtt_ms, self.loss)
    }

    /// How long a measurement of it takes: longer over a long path, which loses and grows seldom.
    fn time(&self, time: Duration) -> Duration {
        if self.rtt_ms >= 200 { time * 2 } else { time }
    }

    fn title(&self) -> &'static str {
        match self.controller.0 {
            "reno" => "NewReno",
            "cubic" => "CUBIC",
            _ => "BBR",
        }
    }

    fn is_long(&self) -> bool {
        self.buffer_kib > 0
    }

    fn spec(&self) -> String {
        let rate = if self.is_long() { RATE_LONG } else { RATE };
        format!("{rate},delay={}us,loss={}", self.rtt_ms * 500, self.loss)
    }

    /// The profile of the card: its controller, and small buffers for long segments.
    fn profile(&self) -> String {
        let pages = self.buffer_kib / 2;
        let limits = if self.is_long() {
            format!(
                "[limits]\npage_bytes = 2048\nconnection_send_pages = {pages}\nconnection_receive_pages = {pages}\n"
            )
        } else {
            String::new()
        };
        format!("{limits}[tcp]\ncongestion = \"{}\"\n", self.controller.1)
    }

    /// Gives a kernel the same buffers.
    fn tune(&self, namespace: &Namespace) -> Result<()> {
        if self.is_long() {
            let bytes = self.buffer_kib * 1024;
            for variable in ["tcp_rmem", "tcp_wmem"] {
                rate::set_kernel(namespace, variable, &format!("4096 {bytes} {bytes}"))?;
            }
        }
        Ok(())
    }
}

/// What came of one way in one round.
#[derive(Clone, Debug, Default)]
struct Measured {
    bytes: u64,
    /// Retransmission timeouts of the sender.
    timeouts: u64,
    /// Segments that it sent again.
    retransmits: u64,
}

fn main() -> ExitCode {
    // The cards must not outlive an interruption.
    let interrupted = || {
        if let Err(error) = Namespace::sweep_own() {
            eprintln!("{error:#}");
        }
        std::process::exit(130);
    };
    if let Err(error) = ctrlc::set_handler(interrupted) {
        eprintln!("an interruption will leave processes behind: {error}");
    }
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("toe-throughput: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let seconds = options.seconds.unwrap_or(if options.quick { 4 } else { 8 });
    let rounds = options.rounds.unwrap_or(if options.quick { 2 } else { 3 });
    let begun = Instant::now();
    let all = if options.only.starts_with("bbr") { Cell::of_bbr() } else { Cell::all(options.quick) };
    let cells: Vec<_> = all
        .into_iter()
        .filter(|cell| options.only.split_whitespace().all(|word| cell.name().split(' ').any(|part| part == word)))
        .collect();
    let lines = measure_all(&cells, options, Duration::from_secs(seconds), rounds)?;
    let fair = if options.only.is_empty() || options.only == "fair" {
        Some(fairness(Duration::from_secs(seconds * 3), rounds.min(3))?)
    } else {
        None
    };
    let minutes = begun.elapsed().as_secs().div_ceil(60);
    let table = table(&cells, &lines, fair.as_deref(), seconds, rounds, minutes);
    print!("{table}");
    if let Some(path) = &options.write {
        std::fs::write(path, table).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// What came of a cell.
#[derive(Clone, Debug, Default)]
struct Line {
    /// How often each way was measured.
    rounds: u64,
    /// The sums of all rounds, in the order of [`WAYS`].
    ways: [Measured; 3],
}

impl Line {
    /// Of each way, in Mbit/s.
    fn rates(&self, time: Duration) -> Vec<String> {
        self.ways.iter().map(|m| decimal(mbit_hundredths(m.bytes, time, self.rounds))).collect()
    }
}

/// A cell in which Linux's own figures are so far apart has [`AGAIN`] times the rounds: three do not tell what the mean is.
/// The card's figures have no say in it.
fn is_spread(linux: &[u64]) -> bool {
    let (least, most) = (linux.iter().min(), linux.iter().max());
    least.zip(most).is_some_and(|(least, most)| least * 5 < most * 4)
}

/// See [`is_spread`].
const AGAIN: u64 = 3;

/// All cells, several at a time.
fn measure_all(cells: &[Cell], options: &Options, time: Duration, rounds: u64) -> Result<Vec<Line>> {
    let next = AtomicUsize::new(0);
    let lines = Mutex::new(vec![None; cells.len()]);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.clamp(1, 16))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let time = cell.time(time);
                        let line = measure_cell(cell, options, time, rounds).with_context(|| cell.name())?;
                        eprintln!("{}", brief(cell, &line, time));
                        let at = cells.iter().position(|c| std::ptr::eq(c, cell)).unwrap_or_default();
                        lines.lock().unwrap_or_else(|e| e.into_inner())[at] = Some(line);
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    let lines = lines.into_inner().unwrap_or_else(|e| e.into_inner());
    lines.into_iter().collect::<Option<Vec<_>>>().context("a cell was not measured")
}

fn measure_cell(cell: &Cell, options: &Options, time: Duration, rounds: u64) -> Result<Line> {
    let mut line = Line::default();
    let mut linux = Vec::new();
    while line.rounds < rounds || is_spread(&linux) && line.rounds < rounds * AGAIN {
        let seed = 1 + line.rounds;
        for (way, sum) in WAYS.into_iter().zip(&mut line.ways) {
            let one = match way {
                Way::LinuxToLinux => between_kernels(cell, seed, time)?,
                _ => over_the_card(cell, options, way, seed, time)?,
            };
            sum.bytes += one.bytes;
            sum.timeouts += one.timeouts;
            sum.retransmits += one.retransmits;
            if way == Way::LinuxToLinux {
                linux.push(one.bytes);
            }
        }
        line.rounds += 1;
    }
    Ok(line)
}

fn start_card(profile: &str, impair: Option<String>, seed: u64, time: Duration, mtu: u32) -> Result<Bench> {
    let file = tempfile::Builder::new().prefix("toe-").suffix(".toml").tempfile()?;
    std::fs::write(file.path(), profile)?;
    let card =
        CardOptions { profile: file.path().display().to_string(), impair, impair_seed: seed, ..CardOptions::default() };
    let limit = Duration::from_secs(60) + time * 2;
    Bench::start(&BenchOptions { card, limit, mtu, ..BenchOptions::default() })
}

fn over_the_card(cell: &Cell, options: &Options, way: Way, seed: u64, time: Duration) -> Result<Measured> {
    let bench = start_card(&cell.profile(), Some(cell.spec()), seed, time, cell.mtu)?;
    cell.tune(&bench.namespace)?;
    let listener = rate::listen(&bench.namespace, PEER_V4)?;
    let mut flows = Vec::new();
    for _ in 0..cell.streams {
        let card = rate::of_card(bench.connect(listener.local_addr()?)?)?;
        let kernel = rate::accept(&listener)?;
        rate::control(&kernel, cell.controller.0)?;
        flows.push(match way {
            Way::CardToLinux => Flow { from: Box::new(card), to: Box::new(kernel) },
            _ => Flow { from: Box::new(kernel), to: Box::new(card) },
        });
    }
    let bytes = rate::push_through(flows, time)?.iter().sum();
    if options.counters {
        let counters: Vec<_> = bench.counters()?.iter().map(|(name, n)| format!("{name} {n}")).collect();
        eprintln!("{} {way:?}: {}", cell.name(), counters.join(", "));
    }
    let (timeouts, retransmits) = match way {
        Way::CardToLinux => (bench.counter("tcp-timeouts")?, bench.counter("tcp-retransmits")?),
        _ => kernel_losses(&bench.namespace)?,
    };
    Ok(Measured { bytes, timeouts, retransmits })
}

fn between_kernels(cell: &Cell, seed: u64, time: Duration) -> Result<Measured> {
    let cable = Cable::with_mtu(cell.spec().parse()?, seed, cell.mtu)?;
    cell.tune(&cable.peer)?;
    cell.tune(&cable.guest)?;
    let listener = rate::listen(&cable.peer, PEER_V4)?;
    let mut flows = Vec::new();
    for _ in 0..cell.streams {
        let from = rate::connect(&cable.guest, listener.local_addr()?)?;
        rate::control(&from, cell.controller.0)?;
        flows.push(Flow { from: Box::new(from), to: Box::new(rate::accept(&listener)?) });
    }
    let bytes = rate::push_through(flows, time)?.iter().sum();
    let (timeouts, retransmits) = kernel_losses(&cable.guest)?;
    cable.finish()?;
    Ok(Measured { bytes, timeouts, retransmits })
}

fn kernel_losses(namespace: &Namespace) -> Result<(u64, u64)> {
    Ok((
        rate::kernel_counter(namespace, "netstat", "TcpExt: ", "TCPTimeouts")?,
        rate::kernel_counter(namespace, "snmp", "Tcp: ", "RetransSegs")?,
    ))
}

/// One stream of the card and one of Linux, both CUBIC, in one bottleneck; bytes of each, by round.
fn fairness(time: Duration, rounds: u64) -> Result<Vec<[u64; 2]>> {
    let mut all = Vec::new();
    for round in 0..rounds {
        let bench = start_card("[tcp]\ncongestion = \"cubic\"\n", None, 1, time, 1500)?;
        let bottleneck = Bottleneck::new(&bench.namespace, BOTTLENECK.parse()?, 1 + round, 1500)?;
        let mut flows = Vec::new();
        let listener = rate::listen(&bottleneck.sink, SINK_V4)?;
        let card = rate::of_card(bench.connect(listener.local_addr()?)?)?;
        flows.push(Flow { from: Box::new(card), to: Box::new(rate::accept(&listener)?) });
        let kernel = rate::connect(&bench.namespace, listener.local_addr()?)?;
        rate::control(&kernel, "cubic")?;
        flows.push(Flow { from: Box::new(kernel), to: Box::new(rate::accept(&listener)?) });
        let bytes = rate::push_through(flows, time)?;
        eprintln!("bottleneck: card {} Linux {}", bytes[0], bytes[1]);
        all.push([bytes[0], bytes[1]]);
    }
    Ok(all)
}

/// Megabits per second in hundredths.
fn mbit_hundredths(bytes: u64, time: Duration, rounds: u64) -> u64 {
    bytes * 8 * 100 / (time.as_millis() as u64 * rounds).max(1) / 1000
}

fn decimal(hundredths: u64) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn ratio(bytes: u64, base: u64) -> String {
    decimal((bytes * 100 + base / 2).checked_div(base).unwrap_or(0))
}

fn brief(cell: &Cell, line: &Line, time: Duration) -> String {
    let [a, b, c] = &line.ways;
    let rates = line.rates(time);
    format!(
        "{:<24} {} Mbit/s: {} {} (timeouts {} {} {}; again {} {} {})",
        cell.name(),
        rates.join(" "),
        ratio(a.bytes, c.bytes),
        ratio(b.bytes, c.bytes),
        a.timeouts,
        b.timeouts,
        c.timeouts,
        a.retransmits,
        b.retransmits,
        c.retransmits
    )
}

fn table(cells: &[Cell], lines: &[Line], fair: Option<&[[u64; 2]]>, seconds: u64, rounds: u64, minutes: u64) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "# Throughput beside Linux\n\n    scripts/throughput\n\n\
         Written by that command, which took {minutes} minutes. Each figure is the mean of {rounds} measurements of {seconds} s (over 200 ms \
         twice as long; where the least and the most\nof Linux to Linux were more than a fifth apart, up to {AGAIN} times as many), card to Linux, \
         Linux to card and\nLinux to Linux in turns: the bytes that the receiving program has read in that time, slow \
         start included, in Mbit/s. All go over the\nsame impairment in the same process: `{RATE}`, half the \
         round trip and the whole loss in each direction, acknowledgements included.\nThe rate keeps the machine out of \
         it: without one it would be its processors that are compared. Where losses are few, several streams\nrun at once \
         and the figure is their sum. The ratio is to Linux to Linux. Timeouts are of the sender, over all rounds.\n\n"
    );
    let _ = write!(
        text,
        "| controller | round trip | loss | streams | rounds | card to Linux | Linux to card | Linux to Linux | \
         ratio out | ratio in | timeouts |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n"
    );
    let time = Duration::from_secs(seconds);
    let row = |text: &mut String, cell: &Cell, line: &Line, first: &str| {
        let [a, b, c] = &line.ways;
        let time = cell.time(time);
        let rates = line.rates(time);
        let _ = writeln!(
            text,
            "| {first} | {} ms | {} | {} | {} | {} | {} | {} | {}, {}, {} |",
            cell.rtt_ms,
            cell.loss,
            cell.streams,
            line.rounds,
            rates.join(" | "),
            ratio(a.bytes, c.bytes),
            ratio(b.bytes, c.bytes),
            a.timeouts,
            b.timeouts,
            c.timeouts
        );
    };
    for (cell, line) in cells.iter().zip(lines).filter(|(cell, _)| !cell.is_long()) {
        row(&mut text, cell, line, cell.title());
    }
    let _ = write!(
        text,
        "\n## Segments of half the buffer and more\n\nA link of 1 Gbit/s whose MTU of 65,000 bytes makes a segment \
         half of the buffers at both ends, or all of them.\nOf Linux's, a part is for its bookkeeping.\n\n\
         | buffers | round trip | loss | streams | rounds | card to Linux | Linux to card | Linux to Linux | ratio out | ratio in | \
         timeouts |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n"
    );
    for (cell, line) in cells.iter().zip(lines).filter(|(cell, _)| cell.is_long()) {
        row(&mut text, cell, line, &format!("{} KiB", cell.buffer_kib));
    }
    if let Some(fair) = fair {
        let _ = write!(
            text,
            "\n## One bottleneck\n\nOne stream of the card and one of Linux, both CUBIC, from the same place through \
             `{BOTTLENECK}` to a second Linux, for {} s.\n\n\
             | card | Linux | Jain's index |\n|---:|---:|---:|\n",
            seconds * 3
        );
        for both in fair {
            let time = Duration::from_secs(seconds * 3);
            let [card, linux] = both.map(|bytes| decimal(mbit_hundredths(bytes, time, 1)));
            let index = rate::fairness_thousandths(both);
            let _ = writeln!(text, "| {card} | {linux} | {}.{:03} |", index / 1000, index % 1000);
        }
    }
    text
}

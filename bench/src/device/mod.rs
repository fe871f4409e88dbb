//! Frames through the vhost-user rings: the card beside DPDK's own vhost backend, in turns, with DPDK's virtio-user as the
//! guest of both.
//!
//! Three ways: *echo* (every frame comes back), *sink* (frames go in and are gone) and *source* (frames come out). The card does
//! each with all that it does for a frame of a guest: classified by the firmware, through the receive FIFO, counted. Its
//! wire is `loop`, `none` or `source:BYTES`. One queue pair of 1,024 descriptors, mergeable buffers, memory in 4 KiB pages;
//! the frontend forwards on processor 1, the backend on processor 0.

mod alone;
mod testpmd;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testpmd::{Port, Shape, Testpmd};

use crate::measure::Figure;
use crate::report;
use crate::turns::Turns;

/// The longest frame that a buffer of DPDK's holds with what it puts in front.
const LONGEST: usize = 65_280;
/// Frames of the measurements without a second processor.
const FRAMES_ALONE: u64 = 1 << 18;
/// The processor of the backend.
const BACKEND: usize = 0;

/// How to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    #[command(flatten)]
    turns: Turns,

    /// What the card is told besides, as `--poll-us 50`
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    card: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Echo,
    Sink,
    Source,
}

impl Way {
    const ALL: [Self; 3] = [Self::Echo, Self::Sink, Self::Source];

    fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Sink => "sink",
            Self::Source => "source",
        }
    }

    /// What the frontend does, and what DPDK's backend does.
    fn modes(self) -> (&'static str, &'static str) {
        match self {
            Self::Echo => ("io", "io"),
            Self::Sink => ("txonly", "rxonly"),
            Self::Source => ("rxonly", "txonly"),
        }
    }

    fn wire(self, frame_bytes: usize) -> String {
        match self {
            Self::Echo => "loop".to_owned(),
            Self::Sink => "none".to_owned(),
            Self::Source => format!("source:{frame_bytes}"),
        }
    }

    /// Frames that the frontend has seen go the whole way.
    fn frames(self, port: Port) -> u64 {
        match self {
            Self::Sink => port.sent,
            Self::Echo | Self::Source => port.received,
        }
    }
}

/// What came of one measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    frames_per_s: f64,
    /// Of the backend's processor, in nanoseconds per frame.
    backend_ns: f64,
}

/// A backend that runs; ended when dropped.
enum Backend {
    Card(Child),
    Dpdk(Testpmd),
}

impl Backend {
    fn pid(&self) -> u32 {
        match self {
            Self::Card(process) => process.id(),
            Self::Dpdk(testpmd) => testpmd.pid(),
        }
    }

    /// Nanoseconds of processor time that its process has used.
    fn processor_ns(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let (_, fields) = text.rsplit_once(')').context("/proc/PID/stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.sum::<std::result::Result<u64, _>>()?;
        // Linux counts them in hundredths of a second on every machine that this is for.
        Ok(ticks * 10_000_000)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Self::Card(process) = self {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Measures, prints the table and writes `target/bench/device.json`; what to print at the end.
///
/// # Errors
/// DPDK or the card do not start, or a frame does not go through.
pub fn run(options: &Options) -> Result<String> {
    ensure!(std::thread::available_parallelism()?.get() >= 2, "two processors are needed: one for each side");
    let (rounds, time) = options.turns.rounds_and_seconds();
    let time = Duration::from_secs_f64(time);
    let mut rows = vec![report::row([
        "frames",
        "card",
        "DPDK",
        "card / DPDK",
        "card's processor",
        "DPDK's processor",
        "rings alone",
        "two copies",
    ])];
    let mut figures = Vec::new();
    for frame_bytes in [64, 1514, LONGEST] {
        for way in Way::ALL {
            let name = format!("{} {frame_bytes} B", way.name());
            if !options.turns.wants(&name) {
                continue;
            }
            let (mut card, mut dpdk, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..rounds {
                let one =
                    measure(way, frame_bytes, time, true, &options.card).with_context(|| format!("card, {name}"))?;
                let other = measure(way, frame_bytes, time, false, "").with_context(|| format!("DPDK, {name}"))?;
                ratios.push(one.frames_per_s / other.frames_per_s.max(1.0));
                card.push(one);
                dpdk.push(other);
            }
            let alone = alone::measure(frame_bytes, if frame_bytes > 2000 { FRAMES_ALONE / 16 } else { FRAMES_ALONE })?;
            let rate = |all: &[Measured]| Figure::of(all.iter().map(|m| m.frames_per_s / 1e6).collect());
            let cost = |all: &[Measured]| Figure::of(all.iter().map(|m| m.backend_ns).collect());
            let (card_rate, dpdk_rate, ratio) = (rate(&card), rate(&dpdk), Figure::of(ratios));
            let (card_cost, dpdk_cost) = (cost(&card), cost(&dpdk));
            eprintln!("{name}: {:.2} of DPDK's", ratio.median);
            rows.push(report::row([
                name.clone(),
                format!("{} M/s", card_rate.cell(2)),
                format!("{} M/s", dpdk_rate.cell(2)),
                ratio.cell(2),
                format!("{:.0} ns", card_cost.median),
                format!("{:.0} ns", dpdk_cost.median),
                format!("{:.0} ns", alone.0),
                format!("{:.0} ns", alone.1),
            ]));
            let gbit = |rate: &Figure| rate.median * 1e6 * frame_bytes as f64 * 8.0 / 1e9;
            figures.push(json!({
                "way": way.name(),
                "frame_bytes": frame_bytes,
                "card_million_frames_per_s": card_rate.json(),
                "dpdk_million_frames_per_s": dpdk_rate.json(),
                "card_gbit_per_s": gbit(&card_rate),
                "dpdk_gbit_per_s": gbit(&dpdk_rate),
                "ratio": ratio.json(),
                "card_processor_ns_per_frame": card_cost.json(),
                "dpdk_processor_ns_per_frame": dpdk_cost.json(),
                "rings_alone_ns_per_frame": alone.0,
                "two_copies_ns_per_frame": alone.1,
            }));
        }
    }
    let value = json!({
        "machine": report::machine(),
        "rounds": rounds,
        "seconds": time.as_secs_f64(),
        "card": options.card,
        "figures": figures,
    });
    let path = report::write("device", &value)?;
    let title =
        format!("Frames through the vhost-user rings: median (lowest to highest) of {rounds} rounds of {time:?}");
    Ok(format!("{}\nwritten to {}\n", report::table(&title, &rows), path.display()))
}

fn measure(way: Way, frame_bytes: usize, time: Duration, of_card: bool, extra: &str) -> Result<Measured> {
    let directory = tempfile::Builder::new().prefix("toe-bench-").tempdir()?;
    let socket = directory.path().join("nic.sock");
    let (front, back) = way.modes();
    let mut backend = if of_card {
        Backend::Card(card(&socket, &way.wire(frame_bytes), extra, &directory.path().join("card.log"))?)
    } else {
        let device = format!("net_vhost0,iface={},queues=1", socket.display());
        let shape = Shape { device: &device, frame_bytes, mode: back, processor: BACKEND };
        Backend::Dpdk(Testpmd::start(&shape, &directory.path().join("back.log"))?)
    };
    wait_for_socket(&socket)?;
    let device = format!("net_virtio_user0,path={},queues=1,queue_size=1024,mrg_rxbuf=1", socket.display());
    let shape = Shape { device: &device, frame_bytes, mode: front, processor: 1 - BACKEND };
    let mut frontend = Testpmd::start(&shape, &directory.path().join("front.log"))?;
    if let Backend::Dpdk(testpmd) = &mut backend {
        testpmd.command("start")?;
    }
    frontend.command(if way == Way::Echo { "start tx_first 32" } else { "start" })?;
    // Pages are touched for the first time, caches fill.
    std::thread::sleep(Duration::from_millis(200));
    let used = backend.processor_ns()?;
    let (before, begun) = (way.frames(frontend.port()?), Instant::now());
    std::thread::sleep(time);
    let (after, elapsed) = (way.frames(frontend.port()?), begun.elapsed());
    let used = backend.processor_ns()?.saturating_sub(used);
    let frames = after.saturating_sub(before);
    ensure!(frames > 0, "no frame went through in {elapsed:?}: {}", tail(directory.path()));
    Ok(Measured { frames_per_s: frames as f64 / elapsed.as_secs_f64(), backend_ns: used as f64 / frames as f64 })
}

/// What the logs end with.
fn tail(directory: &Path) -> String {
    let last = |name: &str| {
        let text = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        text.lines().last().map(|line| format!("{name}: {line}"))
    };
    ["card.log", "back.log", "front.log"].into_iter().filter_map(last).collect::<Vec<_>>().join("; ")
}

/// The card's program, built beside this one.
fn card(socket: &Path, wire: &str, extra: &str, log: &Path) -> Result<Child> {
    let this = std::env::current_exe()?;
    let program: PathBuf = this.with_file_name("toe-nic");
    ensure!(program.exists(), "{} is not there: `scripts/bench` builds it", program.display());
    Command::new("taskset")
        .args(["-c", &BACKEND.to_string()])
        .arg(program)
        .arg("--socket-path")
        .arg(socket)
        .args(["--wire", wire, "--queue-pairs", "1"])
        .args(extra.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(log)?)
        .spawn()
        .context("the card (and taskset of util-linux)")
}

fn wait_for_socket(socket: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !socket.exists() {
        ensure!(Instant::now() < end, "no backend listens on {}", socket.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

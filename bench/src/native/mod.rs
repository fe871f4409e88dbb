//! A process of the host on the card, without a guest, against the Linux kernel over a TAP; and the same program on kernel sockets
//! over the same wire. In turns, in one run.
//!
//! *The card*: this process is the vhost-user frontend of `toe-nic --wire tap:…`; its program uses `toe-guest`. *The kernel*:
//! the program uses the sockets of a second namespace, and a thread carries frames between the two TAPs. The peers are the same threads on the
//! kernel's sockets in the first namespace.
//!
//! Processor time is of threads and processes, as the kernel accounts it. Of the card: the program's threads and the library's
//! (*application*), and the card's process. Of the kernel: the program's threads, and the thread that carries: what
//! arrives at a TAP is processed by the kernel's TCP in the thread that writes it there. So *application* holds less than all that
//! the kernel's TCP does for the program, and *rest* holds some of it; of the card, *rest* holds the peer's TCP, too.

mod load;
mod processor;
mod stream;
mod wire;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use load::{Bulk, Counted};
use serde_json::{Value, json};
use stream::Near;
use toe_guest_tests::{Bench, BenchOptions, CardOptions};
use wire::Cable;

use crate::measure::Figure;
use crate::report;
use crate::turns::Turns;

/// Of the wire, in bytes.
const MTU: u32 = 1500;

/// How to measure.
#[derive(clap::Args, Debug)]
pub struct Options {
    #[command(flatten)]
    turns: Turns,

    /// How long the card polls after the last frame, in microseconds
    #[arg(long, default_value_t = 0)]
    poll_us: u64,

    /// Have the card take payload from the program's memory and write it there (`toe-nic --shared-rings`)
    #[arg(long)]
    shared_rings: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Load {
    Bulk(Bulk),
    Ask(usize),
    Connect,
}

impl Load {
    const ALL: [Self; 6] =
        [Self::Bulk(Bulk::Out), Self::Bulk(Bulk::In), Self::Ask(1), Self::Ask(32), Self::Ask(1000), Self::Connect];

    fn name(self) -> String {
        match self {
            Self::Bulk(Bulk::Out) => "bulk out".to_owned(),
            Self::Bulk(Bulk::In) => "bulk in".to_owned(),
            Self::Ask(connections) => format!("ask {connections}"),
            Self::Connect => "connect".to_owned(),
        }
    }

    /// What is counted, and how many of them a figure of processor time is for.
    fn unit(self) -> (&'static str, f64) {
        match self {
            Self::Bulk(_) => ("KiB", 1024.0),
            Self::Ask(_) => ("answer", 1.0),
            Self::Connect => ("connection", 1.0),
        }
    }

    /// A count per second as a table has it.
    fn rate(self, per_s: &Figure) -> String {
        match self {
            Self::Bulk(_) => {
                let gbit = |x: f64| x * 8.0 / 1e9;
                let figure = Figure { median: gbit(per_s.median), low: gbit(per_s.low), high: gbit(per_s.high) };
                format!("{} Gbit/s", figure.cell(2))
            }
            _ => format!("{} /s", per_s.cell(0)),
        }
    }

    fn run(
        self,
        near: &Near<'_>,
        peer: &toe_guest_tests::Namespace,
        time: Duration,
        middle: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Counted> {
        match self {
            Self::Bulk(way) => load::bulk(near, peer, way, time, middle),
            Self::Ask(connections) => load::ask(near, peer, connections, time, middle),
            Self::Connect => load::connect(near, peer, time, middle),
        }
    }
}

/// What came of one measurement.
#[derive(Clone, Debug)]
struct Measured {
    per_s: f64,
    /// Nanoseconds of the application's side, of the rest, and of the peer's threads, for each unit.
    application_ns: f64,
    rest_ns: f64,
    peer_ns: f64,
    /// The middle, 99 of 100, and 9,999 of 10,000, in microseconds.
    latencies_us: Option<[f64; 3]>,
}

/// Who uses the processor on either side.
struct Users<'a> {
    application: &'a [&'a str],
    /// Threads of this process, or another process.
    rest: Rest,
}

enum Rest {
    Threads(&'static str),
    Process(u32),
}

impl Users<'_> {
    fn look(&self) -> Result<[u64; 3]> {
        let this = std::process::id();
        let rest = match self.rest {
            Rest::Threads(name) => processor::of_threads(this, &[name])?,
            Rest::Process(pid) => processor::of_threads(pid, &[""])?,
        };
        Ok([processor::of_threads(this, self.application)?, rest, processor::of_threads(this, &["peer"])?])
    }
}

fn measure(
    load: Load,
    near: &Near<'_>,
    peer: &toe_guest_tests::Namespace,
    users: &Users<'_>,
    time: Duration,
) -> Result<Measured> {
    let mut looks = Vec::new();
    let counted = load.run(near, peer, time, &mut || {
        looks.push(users.look()?);
        Ok(())
    })?;
    let (_, per) = load.unit();
    let units = counted.count as f64 / per;
    let used = |n: usize| looks[1][n].saturating_sub(looks[0][n]) as f64 / units;
    let at = |share: f64| {
        let last = counted.latencies.len() - 1;
        f64::from(counted.latencies[(last as f64 * share) as usize]) / 1000.0
    };
    Ok(Measured {
        per_s: counted.count as f64 / counted.elapsed.as_secs_f64(),
        application_ns: used(0),
        rest_ns: used(1),
        peer_ns: used(2),
        latencies_us: (!counted.latencies.is_empty()).then(|| [at(0.5), at(0.99), at(0.9999)]),
    })
}

fn on_card(load: Load, options: &Options, time: Duration) -> Result<Measured> {
    let card = CardOptions {
        queue_pairs: 1,
        poll_us: options.poll_us,
        shared_rings: options.shared_rings,
        ..CardOptions::default()
    };
    let mut bench = Bench::start(&BenchOptions {
        card,
        limit: time * 4 + Duration::from_secs(120),
        mtu: MTU,
        ..BenchOptions::default()
    })?;
    let pid = bench.card().pid();
    let users = Users { application: &["app", "toe-context"], rest: Rest::Process(pid) };
    measure(load, &Near::Card(&bench), &bench.namespace, &users, time)
}

fn on_kernel(load: Load, time: Duration) -> Result<Measured> {
    let cable = Cable::new(MTU)?;
    let users = Users { application: &["app"], rest: Rest::Threads(wire::THREAD) };
    measure(load, &Near::Kernel(&cable.near), &cable.peer, &users, time)
}

/// Measures, prints the tables and writes `target/bench/native.json`; what to print at the end.
///
/// # Errors
/// The lab cannot be made, or a stream breaks.
pub fn run(options: &Options) -> Result<String> {
    let (rounds, time) = options.turns.rounds_and_seconds();
    let time = Duration::from_secs_f64(time);
    let mut rates = vec![report::row(["load", "card", "kernel", "card / kernel"])];
    let mut costs = vec![report::row([
        "processor time for each",
        "",
        "card: application",
        "card's process",
        "kernel: application",
        "wire",
        "application, card / kernel",
        "all, card / kernel",
    ])];
    let mut waits = vec![report::row(["answers", "", "50 %", "99 %", "99.99 %"])];
    let mut figures = Vec::new();
    let begun = Instant::now();
    for load in Load::ALL {
        let name = load.name();
        if !options.turns.wants(&name) {
            continue;
        }
        let (mut card, mut kernel) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            card.push(on_card(load, options, time).with_context(|| format!("card, {name}"))?);
            kernel.push(on_kernel(load, time).with_context(|| format!("kernel, {name}"))?);
        }
        let both = |f: &dyn Fn(&Measured) -> f64| [&card, &kernel].map(|all| Figure::of(all.iter().map(f).collect()));
        let pairs = |f: &dyn Fn(&Measured) -> f64| {
            Figure::of(card.iter().zip(&kernel).map(|(a, b)| f(a) / f(b).max(1e-9)).collect())
        };
        let [card_rate, kernel_rate] = both(&|m| m.per_s);
        let ratio = pairs(&|m| m.per_s);
        let all = |m: &Measured| m.application_ns + m.rest_ns + m.peer_ns;
        let [application, kernels] = both(&|m| m.application_ns);
        let [rest, wires] = both(&|m| m.rest_ns);
        let (application_ratio, all_ratio) = (pairs(&|m| m.application_ns), pairs(&all));
        rates.push(report::row([name.clone(), load.rate(&card_rate), load.rate(&kernel_rate), ratio.cell(2)]));
        costs.push(report::row([
            name.clone(),
            load.unit().0.to_owned(),
            format!("{:.0} ns", application.median),
            format!("{:.0} ns", rest.median),
            format!("{:.0} ns", kernels.median),
            format!("{:.0} ns", wires.median),
            application_ratio.cell(2),
            all_ratio.cell(2),
        ]));
        let mut latencies = Value::Null;
        if card[0].latencies_us.is_some() {
            let of = |all: &[Measured]| {
                [0, 1, 2].map(|n| Figure::of(all.iter().map(|m| m.latencies_us.map_or(0.0, |l| l[n])).collect()))
            };
            let (card, kernel) = (of(&card), of(&kernel));
            for (who, three) in [("card", &card), ("kernel", &kernel)] {
                let cells = three.iter().map(|figure| format!("{} us", figure.cell(1)));
                waits.push(report::row([name.clone(), who.to_owned()].into_iter().chain(cells)));
            }
            let json = |three: &[Figure; 3]| json!({ "p50_us": three[0].json(), "p99_us": three[1].json(), "p9999_us": three[2].json() });
            latencies = json!({ "card": json(&card), "kernel": json(&kernel) });
        }
        eprintln!(
            "{name}: {:.2} of the kernel's rate, {:.2} of the application's processor time",
            ratio.median, application_ratio.median
        );
        figures.push(json!({
            "load": name,
            "unit": load.unit().0,
            "card_per_s": card_rate.json(),
            "kernel_per_s": kernel_rate.json(),
            "ratio": ratio.json(),
            "card_application_ns": application.json(),
            "card_process_ns": rest.json(),
            "kernel_application_ns": kernels.json(),
            "kernel_wire_ns": wires.json(),
            "application_ratio": application_ratio.json(),
            "all_ratio": all_ratio.json(),
            "latencies": latencies,
        }));
    }
    let value = json!({
        "machine": report::machine(),
        "rounds": rounds,
        "seconds": time.as_secs_f64(),
        "mtu": MTU,
        "poll_us": options.poll_us,
        "shared_rings": options.shared_rings,
        "figures": figures,
    });
    let path = report::write("native", &value)?;
    let of = format!("median (lowest to highest) of {rounds} rounds of {time:?}");
    let rates = report::table(&format!("A host process on the card and on the kernel: {of}"), &rates);
    let costs = report::table("Processor time", &costs);
    let waits = report::table("How long answers take", &waits);
    let took = begun.elapsed().as_secs();
    Ok(format!("{rates}\n{costs}\n{waits}\nwritten to {} in {took} s\n", path.display()))
}

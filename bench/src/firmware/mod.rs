//! The firmware in this process, beside smoltcp: both are given the same segments of the same peer (but for what each says of
//! its own sequence numbers), in turns, for several rounds.

mod card;
mod connections;
mod cores;
mod frames;
mod instructions;
mod peer;
mod segments;
mod smol;
mod stack;

use anyhow::Result;
use serde_json::{Value, json};

use crate::measure::Figure;
use crate::report::{machine, row, table, write};
use connections::AT_ONCE;
use segments::{Doing, MSS_TEXT, SIZES, Size};

/// Numbers of idle connections, and of those that data is spread over.
const LEVELS: [usize; 5] = [0, 1000, 10_000, 100_000, 1_000_000];

/// With so many idle ones smoltcp is measured; to open more would take it hours.
const SMOL_MAX: usize = 10_000;

#[derive(clap::Args)]
pub struct Options {
    /// Rounds of which the median is taken
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// A tenth of the work, and no more than 100,000 connections
    #[arg(long)]
    quick: bool,

    /// One part only
    #[arg(long)]
    only: Option<Part>,

    /// Count instructions with callgrind instead of nanoseconds
    #[arg(long)]
    instructions: bool,

    /// For callgrind: does this, so often, and ends
    #[arg(long, hide = true, requires = "times")]
    case: Option<String>,

    /// See `case`
    #[arg(long, hide = true)]
    times: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What a segment costs
    Segments,
    /// How fast connections come and go, with others idle
    Connections,
    /// How throughput falls with the number of connections
    Throughput,
    /// What two firmwares do on two cores
    Cores,
}

/// Runs it; the tables.
pub fn run(options: &Options) -> Result<String> {
    if let (Some(case), Some(times)) = (&options.case, options.times) {
        instructions::case(case, times)?;
        return Ok(String::new());
    }
    if options.instructions {
        return instructions::run();
    }
    let wants = |part| options.only.is_none_or(|only| only == part);
    let mut text = format!("{}, clock {:.0} ns (taken off)\n\n", machine(), crate::measure::clock_ns());
    let mut file = json!({ "machine": machine(), "rounds": options.rounds });
    let mut add = |name: &str, (part, value): (String, Value)| {
        text += &part;
        file[name] = value;
    };
    if wants(Part::Segments) {
        add("segments", segments_part(options));
    }
    if wants(Part::Connections) {
        add("connections", connections_part(options));
    }
    if wants(Part::Throughput) {
        add("throughput", throughput_part(options));
    }
    if wants(Part::Cores) {
        add("cores", cores_part(options));
    }
    let path = write("firmware", &file)?;
    Ok(text + &format!("{}\n", path.display()))
}

impl Options {
    fn rounds<T>(&self, round: impl FnMut(u32) -> T) -> Vec<T> {
        (0..self.rounds).map(round).collect()
    }

    fn scaled(&self, count: usize) -> usize {
        if self.quick { count / 10 } else { count }
    }
}

fn segments_part(options: &Options) -> (String, Value) {
    let mut rows = vec![row(["ns per segment", "card", "smoltcp", "ratio", "card, program", "smoltcp, program"])];
    let mut values = Vec::new();
    let cases = SIZES.iter().flat_map(|size| Doing::ALL.map(|doing| (doing, *size, false)));
    let trusted = SIZES[1..].iter().map(|size| (Doing::Receive, *size, true));
    for (doing, size, is_trusted) in cases.chain(trusted) {
        let [card, smol, card_program, smol_program] = segment_costs(options, doing, size, is_trusted);
        let name = format!("{} {}{}", doing.name(), size.name, if is_trusted { ", checksum known" } else { "" });
        let program = |figure: &Figure| if doing == Doing::Receive { figure.cell(0) } else { "–".into() };
        rows.push(row([
            name.clone(),
            card.cell(0),
            smol.cell(0),
            format!("{:.2}", card.median / smol.median),
            program(&card_program),
            program(&smol_program),
        ]));
        values.push(json!({
            "name": name, "text_bytes": size.text_bytes,
            "card_ns": card.json(), "smoltcp_ns": smol.json(), "ratio": card.median / smol.median,
            "card_program_ns": card_program.json(), "smoltcp_program_ns": smol_program.json(),
        }));
    }
    (table("What a segment costs", &rows), values.into())
}

fn segment_costs(options: &Options, doing: Doing, size: Size, is_trusted: bool) -> [Figure; 4] {
    let mut card = segments::card(size, is_trusted);
    let mut smol = segments::smol(size, is_trusted);
    let segments = options.scaled(if size.text_bytes > MSS_TEXT { 5_000 } else { 100_000 });
    let rounds = options.rounds(|_| (card.round(doing, segments), smol.round(doing, segments)));
    let figure = |of: fn(&(segments::Cost, segments::Cost)) -> f64| Figure::of(rounds.iter().map(of).collect());
    [figure(|r| r.0.segment), figure(|r| r.1.segment), figure(|r| r.0.program), figure(|r| r.1.program)]
}

fn levels(options: &Options) -> impl Iterator<Item = usize> {
    let most = if options.quick { 100_000 } else { 1_000_000 };
    LEVELS.into_iter().filter(move |level| *level <= most)
}

fn connections_part(options: &Options) -> (String, Value) {
    let most = levels(options).last().unwrap_or(0);
    let before = resident_bytes();
    let mut card = connections::card(most);
    let booted = resident_bytes();
    // smoltcp looks at every socket for every segment: each of its ways has as few as it can.
    let mut smol = [1, AT_ONCE].map(|at_once| (at_once, connections::smol(SMOL_MAX, at_once)));
    let mut rows = vec![row([
        "idle connections",
        "card, 64 at once",
        "card, one by one",
        "smoltcp, 64 at once",
        "smoltcp, one by one",
    ])];
    let mut values = Vec::new();
    let thousands = |figure: &Figure| Figure {
        median: figure.median / 1000.0,
        low: figure.low / 1000.0,
        high: figure.high / 1000.0,
    };
    for idle in levels(options) {
        card.fill(idle);
        let with_smol = idle <= SMOL_MAX;
        let mut rates = [const { Vec::new() }; 4];
        if with_smol {
            smol.iter_mut().for_each(|(at_once, smol)| smol.fill_smol(idle, *at_once));
        }
        // The first are not counted: what they use was not touched before.
        card.rate(AT_ONCE * 10, AT_ONCE);
        for _ in 0..options.rounds {
            rates[0].push(card.rate(options.scaled(64_000), AT_ONCE));
            rates[1].push(card.rate(options.scaled(20_000), 1));
            if with_smol {
                let count = options.scaled(20_000_000 / (idle + 1000));
                rates[2].push(smol[1].1.rate(count, AT_ONCE));
                rates[3].push(smol[0].1.rate(count, 1));
            }
        }
        let figures = rates.map(|rates| (!rates.is_empty()).then(|| Figure::of(rates)));
        let mut cells = vec![idle.to_string()];
        cells.extend(figures.iter().map(|f| f.as_ref().map_or("–".into(), |f| thousands(f).cell(0))));
        rows.push(cells);
        let json = |f: &Option<Figure>| f.as_ref().map_or(Value::Null, Figure::json);
        values.push(json!({
            "idle": idle, "card_per_s": json(&figures[0]), "card_one_by_one_per_s": json(&figures[1]),
            "smoltcp_per_s": json(&figures[2]), "smoltcp_one_by_one_per_s": json(&figures[3]),
        }));
    }
    let opened = resident_bytes();
    let mut text = table("Thousands of connections per second (open, 64 bytes each way, close)", &rows);
    let boot_bytes = (booted - before) / (most + 2 * AT_ONCE) as f64;
    let open_bytes = (opened - booted) / most as f64;
    text +=
        &format!("Resident memory per place: {boot_bytes:.0} bytes at boot, {open_bytes:.0} more once it was used\n\n");
    let bytes = toe_firmware::Firmware::connection_bytes();
    text += &format!(
        "Of it: block {} bytes, timers {}, queues {}, table {}; the rest is records, page tables and listing of pages\n\n",
        bytes.block, bytes.timers, bytes.links, bytes.tuple
    );
    let memory = json!({ "block_bytes": bytes.block, "timer_bytes": bytes.timers, "link_bytes": bytes.links,
        "tuple_bytes": bytes.tuple, "resident_at_boot_bytes": boot_bytes, "resident_when_used_bytes": open_bytes });
    (text, json!({ "rates": values, "memory": memory }))
}

fn throughput_part(options: &Options) -> (String, Value) {
    let most = levels(options).last().unwrap_or(0);
    let mut card = connections::card(most);
    let mut rows = vec![row(["connections", "ns per segment", "Gbit/s"])];
    let mut values = Vec::new();
    for connections in levels(options) {
        let connections = connections.max(1);
        card.fill(connections);
        card.spread(2 * connections.max(1000));
        let count = options.scaled(200_000).max(connections / 4);
        let figure = Figure::of(options.rounds(|_| card.spread(count)));
        let gigabits = |ns: f64| MSS_TEXT as f64 * 8.0 / ns;
        rows.push(row([connections.to_string(), figure.cell(0), format!("{:.1}", gigabits(figure.median))]));
        values.push(json!({
            "connections": connections, "ns": figure.json(), "gbit_per_s": gigabits(figure.median),
        }));
    }
    (table("Full segments in order, one for each connection in turn, and read by its program", &rows), values.into())
}

fn cores_part(options: &Options) -> (String, Value) {
    let mut rows = vec![row(["thousands per second", "one core", "two cores", "ratio"])];
    let mut values = Vec::new();
    for (name, load, count) in cores::LOADS {
        let count = options.scaled(count);
        let rounds = options.rounds(|_| [1, 2].map(|cores| cores::rate(load, count, cores) / 1000.0));
        let [one, two] = [0, 1].map(|i| Figure::of(rounds.iter().map(|round| round[i]).collect()));
        let ratio = Figure::of(rounds.iter().map(|round| round[1] / round[0]).collect());
        rows.push(row([name.to_owned(), one.cell(0), two.cell(0), ratio.cell(2)]));
        values.push(json!({ "name": name, "one_per_ms": one.json(), "two_per_ms": two.json(), "ratio": ratio.json() }));
    }
    (table("Two firmwares on two cores, each with its peer, beside one", &rows), values.into())
}

/// What this process has in memory.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}

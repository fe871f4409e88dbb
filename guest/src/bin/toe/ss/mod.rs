//! `toe ss`: the connections of card and kernel in one table, in the format of `ss -t`.
//!
//! The kernel's come from netlink, as ss has them; the card's from the card (SOCKETS), which knows the process of each by
//! what that has said of itself (PROCESS). A line about a connection of the card ends with `toe:card`. Everything else is as
//! ss has it, so that who reads its columns, or has scripts that do, can go on.

mod filter;
mod print;
mod processes;

use std::net::SocketAddr;

use toe_guest::{KernelInfo, KernelSocket, SocketEntry, kernel_sockets};

use crate::tables;
use filter::Filter;

/// What it is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Listeners only.
    #[arg(short, long)]
    listening: bool,
    /// All states.
    #[arg(short, long, conflicts_with = "listening")]
    all: bool,
    /// Ports as numbers, not as names of services.
    #[arg(short, long)]
    numeric: bool,
    /// Whose they are.
    #[arg(short, long)]
    processes: bool,
    /// How they do: controller, round trips, windows, bytes, retransmissions.
    #[arg(short, long)]
    info: bool,
    /// Their timers.
    #[arg(short, long)]
    options: bool,
    /// TCP only, as always here.
    #[arg(short, long)]
    tcp: bool,
    /// IPv4 only.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only.
    #[arg(short = '6', long)]
    ipv6: bool,
    /// No line of titles.
    #[arg(short = 'H', long)]
    no_header: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The interface whose card is asked; the first that has one by default.
    #[arg(long)]
    interface: Option<String>,
    /// Which, as ss has it: `state established`, `sport = :80`, `dst 192.0.2.0/24`, joined by `and`, `or`, `not`.
    #[arg(trailing_var_arg = true, value_name = "FILTER")]
    filter: Vec<String>,
}

/// Who carries a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Carrier {
    Card,
    Kernel,
}

/// A process that has a connection; the descriptor is known of the kernel's only.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Owner {
    name: String,
    pid: u32,
    descriptor: Option<u32>,
}

/// A line of the table.
#[derive(Clone, Debug)]
struct Row {
    carrier: Carrier,
    state: u8,
    receive_queue: u64,
    send_queue: u64,
    local: SocketAddr,
    remote: SocketAddr,
    owners: Vec<Owner>,
    /// What it is for (see `socket_timer`), milliseconds, and how often in a row it was due.
    timer: (u8, u32, u8),
    /// What a card's and a kernel's connection both say; amounts of segments in segments.
    info: Option<KernelInfo>,
}

impl Arguments {
    /// Which lines are wanted.
    ///
    /// # Errors
    /// One line about what makes no sense.
    pub fn wanted(&self) -> Result<Filter, String> {
        Filter::parse(&self.filter.join(" "), self.all, self.listening)
    }
}

/// Runs it.
///
/// # Errors
/// What a person should be told.
pub fn run(a: &Arguments) -> Result<String, String> {
    let filter = a.wanted()?;
    let card = match tables::context_on(a.interface.as_deref()) {
        Ok(context) => context.sockets().map_err(|e| format!("cannot ask for the card's connections: {e}"))?,
        Err(reason) => {
            // The kernel's are worth a look all the same.
            eprintln!("toe: {reason}; these are the kernel's connections alone");
            Vec::new()
        }
    };
    let kernel = kernel_sockets().map_err(|e| format!("cannot ask the kernel for its sockets: {e}"))?;
    let mut rows: Vec<_> = card.iter().map(of_card).chain(kernel.iter().map(|s| (of_kernel(s), s.inode))).collect();
    rows.retain(|(row, _)| {
        let is_v4 = row.local.ip().to_canonical().is_ipv4();
        (!a.ipv4 || is_v4) && (!a.ipv6 || !is_v4) && filter.wants(row)
    });
    if a.processes || a.json {
        let owners = processes::owners();
        for (row, inode) in &mut rows {
            row.owners.extend(owners.get(inode).into_iter().flatten().cloned());
        }
    }
    let rows: Vec<_> = rows.into_iter().map(|(row, _)| row).collect();
    Ok(if a.json { print::json(&rows) } else { print::table(&rows, a) })
}

/// A line of the card, and no inode.
fn of_card(s: &SocketEntry) -> (Row, u32) {
    let i = &s.info;
    let is_connection = s.controller != 0;
    let mss = i.send_mss.max(1);
    let segments = |bytes: u32| bytes.div_ceil(mss);
    let info = is_connection.then(|| KernelInfo {
        controller: controller(s.controller).to_owned(),
        backoff: u8::try_from(i.backoff).unwrap_or(u8::MAX),
        options: i.options,
        window_scales: (i.window_scales & 0xf, i.window_scales >> 4),
        rto_us: i.rto_us,
        send_mss: i.send_mss,
        unacked: segments(i.in_flight),
        sacked: segments(i.sacked),
        lost: segments(i.lost),
        rtt_us: i.rtt_us,
        rtt_variation_us: i.rtt_variation_us,
        slow_start_threshold: i.slow_start_threshold / mss,
        congestion_window: i.congestion_window / mss,
        total_retrans: u32::try_from(i.retransmits).unwrap_or(u32::MAX),
        bytes_acked: i.bytes_acknowledged,
        bytes_received: i.bytes_received,
        segments_out: u32::try_from(i.segments_out).unwrap_or(u32::MAX),
        segments_in: u32::try_from(i.segments_in).unwrap_or(u32::MAX),
        not_sent: u32::try_from(i.not_sent).unwrap_or(u32::MAX),
        min_rtt_us: i.rtt_min_us,
        bytes_sent: i.bytes_sent,
        ..KernelInfo::default()
    });
    // A name is what a process says: it must not move a terminal's cursor.
    let name = String::from_utf8_lossy(s.name()).replace(|c: char| c.is_control() || c == '"', "?");
    let owners = (s.pid != 0).then_some(Owner { name, pid: s.pid, descriptor: None });
    let row = Row {
        carrier: Carrier::Card,
        state: i.tcp_state,
        receive_queue: s.receive_queue,
        send_queue: s.send_queue,
        local: i.local.into(),
        remote: i.remote.into(),
        owners: owners.into_iter().collect(),
        timer: (s.timer, s.timer_ms, s.timer_repeats),
        info,
    };
    (row, 0)
}

fn of_kernel(s: &KernelSocket) -> Row {
    Row {
        carrier: Carrier::Kernel,
        state: s.state,
        receive_queue: s.receive_queue.into(),
        send_queue: s.send_queue.into(),
        local: s.local,
        remote: s.remote,
        owners: Vec::new(),
        timer: (s.timer, s.timer_ms, s.timer_repeats),
        info: s.info.clone(),
    }
}

/// The controllers by the numbers of option `CONGESTION`, with Linux's names.
fn controller(number: u8) -> &'static str {
    match number {
        1 => "reno",
        2 => "cubic",
        3 => "dctcp",
        4 => "bbr",
        _ => "unknown",
    }
}

//! The card at work, told step by step and summed up in a table. `scripts/demo` prepares and starts it.
//!
//! Two boots: a card with the default profile carries three transfers while the guest's kernel uses the same NIC and
//! address; a card with the `tiny` profile is asked for more connections than it has. The exit status is 0 only if
//! every line of the table is good.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use toe_guest_tests::bytes::Sum;
use toe_guest_tests::net::{GUEST_V4, PEER_V4};
use toe_guest_tests::peers::{HttpForever, Httpd};
use toe_guest_tests::{Job, Kind, Lab, LabOptions, scenarios};

const BYTES: u64 = 64 << 20;

/// How long the guest's background commands may take to end when they are told to.
const END: Duration = Duration::from_secs(60);

/// A line of the table.
struct Row {
    what: &'static str,
    carrier: &'static str,
    outcome: Result<String>,
    time: Duration,
}

fn main() -> ExitCode {
    toe_guest_tests::program::clean_up_when_interrupted();
    let start = Instant::now();
    let mut rows = Vec::new();
    let end = default_card(&mut rows).and_then(|()| tiny_card(&mut rows));
    table(&rows, start.elapsed());
    if let Err(error) = &end {
        eprintln!("the demo ended early: {error:#}");
    }
    let good = end.is_ok() && rows.iter().all(|row| row.outcome.is_ok());
    println!("{}", if good { "All of it worked." } else { "NOT all of it worked." });
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn default_card(rows: &mut Vec<Row>) -> Result<()> {
    say("starting the card with profile `default`, and booting Debian's kernel in QEMU on it");
    let options = LabOptions { verbose: true, ..LabOptions::new("demo", Kind::Qemu) };
    let mut lab = Lab::boot(options)?;
    let httpd = Httpd::start(&lab.namespace, PEER_V4, 4, BYTES)?;
    let meanwhile = Meanwhile::start(&lab)?;

    let exact = |bytes: u64| format!("{} MiB, SHA-256 equal", bytes >> 20);
    say("sending 64 MiB to a server over a card connection");
    try_row(rows, "64 MiB sent to a server", "card", || {
        scenarios::card_send(&lab, PEER_V4, BYTES).map(|()| exact(BYTES))
    });
    say("fetching 64 MiB from an HTTP server (busybox httpd) over a card connection");
    try_row(rows, "64 MiB fetched from an HTTP server", "card", || {
        let file = Sum::of_pattern(4, BYTES);
        scenarios::card_fetch_from(&lab, httpd.address, "/file", &file).map(|()| exact(BYTES))
    });
    say("accepting 64 MiB, and sending as much back, on a card listener");
    try_row(rows, "64 MiB accepted on a listener (and 64 back)", "card", || {
        scenarios::card_accept(&lab, GUEST_V4, BYTES).map(|()| exact(BYTES))
    });
    say("ending what the guest's kernel did meanwhile");
    let time = lab.elapsed();
    let (fetched, pinged) = meanwhile.end(&lab);
    rows.push(Row {
        what: "meanwhile: 1 MiB after the other by wget",
        carrier: "guest kernel",
        outcome: fetched,
        time,
    });
    rows.push(Row { what: "meanwhile: ping", carrier: "guest kernel", outcome: pinged, time });
    say("the card's limits, as a program in the guest reads them (toe limits)");
    println!("{}", lab.guest()?.check("toe limits")?.trim_end());
    ensure!(lab.card()?.is_running(), "the card ended");
    lab.finish()
}

fn tiny_card(rows: &mut Vec<Row>) -> Result<()> {
    say("starting a card with profile `tiny` (8 connections), and booting the guest again");
    let options = LabOptions { verbose: true, ..LabOptions::new("demo-tiny", Kind::Qemu) }.profile("tiny");
    let mut lab = Lab::boot(options)?;
    say("opening 20 connections that all carry data at once");
    try_row(rows, "20 connections on a card with 8", "card, then kernel", || {
        let held = scenarios::fall_back(&mut lab)?;
        Ok(format!("{} + {}, all bytes exact", held.on_card, held.on_kernel))
    });
    lab.finish()
}

/// What the guest's kernel does on the same NIC and address while the card is busy.
struct Meanwhile {
    ping: Job,
    fetch: Job,
    server: HttpForever,
}

impl Meanwhile {
    fn start(lab: &Lab) -> Result<Self> {
        let server = HttpForever::start(&lab.namespace, PEER_V4)?;
        let url = format!("http://{}/12/{}", server.address, 1 << 20);
        let guest = lab.guest()?;
        // One fetch at least, and as many as fit until the card is done.
        let fetch = guest.start(&format!(
            "while :; do wget -q -O - {url} | toe-peer sum || exit 1; [ -e /tmp/done ] && exit 0; sleep 0.5; done"
        ))?;
        let ping = guest.start(&format!(
            "while :; do ping -c 1 -W 5 {PEER_V4} >/dev/null && echo yes || echo no; [ -e /tmp/done ] && exit 0; sleep 0.5; done"
        ))?;
        Ok(Self { ping, fetch, server })
    }

    fn end(self, lab: &Lab) -> (Result<String>, Result<String>) {
        let Self { ping, fetch, server } = self;
        let lines = |job: Job| -> Result<Vec<String>> {
            lab.guest()?.check("touch /tmp/done")?;
            let output = lab.guest()?.wait(job, END)?;
            ensure!(output.status == 0, "{}", output.text.trim());
            Ok(output.text.lines().map(str::to_owned).collect())
        };
        let fetched = lines(fetch).context("wget in the guest").and_then(|sums| {
            let expected = Sum::of_pattern(12, 1 << 20).to_string();
            let wrong = sums.iter().filter(|sum| **sum != expected).count();
            ensure!(wrong == 0, "{wrong} of {} files were not what was served", sums.len());
            Ok(format!("{} MiB, SHA-256 equal", sums.len()))
        });
        let pinged = lines(ping).context("ping in the guest").and_then(|answers| {
            let lost = answers.iter().filter(|answer| *answer != "yes").count();
            ensure!(lost == 0, "{lost} of {} got no answer", answers.len());
            Ok(format!("{} of {} answered", answers.len(), answers.len()))
        });
        drop(server);
        (fetched, pinged)
    }
}

fn try_row(rows: &mut Vec<Row>, what: &'static str, carrier: &'static str, work: impl FnOnce() -> Result<String>) {
    let start = Instant::now();
    let outcome = work();
    if let Err(error) = &outcome {
        println!("FAILED: {error:#}");
    }
    rows.push(Row { what, carrier, outcome, time: start.elapsed() });
}

fn say(text: &str) {
    println!("-- {text}");
    // Progress that waits in a buffer is none.
    let _ = std::io::stdout().flush();
}

fn table(rows: &[Row], time: Duration) {
    println!("\n{:<45} {:<18} {:<30} {:>8}", "what", "carried by", "outcome", "time");
    println!("{}", "-".repeat(104));
    for Row { what, carrier, outcome, time } in rows {
        let outcome = match outcome {
            Ok(text) => text.clone(),
            Err(error) => format!("FAILED: {}", format!("{error:#}").lines().next().unwrap_or_default()),
        };
        println!("{what:<45} {carrier:<18} {outcome:<30} {:>6.1} s", time.as_secs_f64());
    }
    println!("{}", "-".repeat(104));
    println!("in all {:.0} s\n", time.as_secs_f64());
}

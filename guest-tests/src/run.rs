//! `toe run` in a guest: socket calls one by one, beside the kernel's; programs and supervisors that are killed.
//!
//! The guest's side, and the peer's, is `toe-calls`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::host::wait_for;
use crate::net::{GUEST_V4, PEER_V4, PEER_V6};
use crate::{Lab, Programs};

/// Where the peer listens.
pub const PORT: u16 = 4242;

/// How long all rows may take.
const TABLE: Duration = Duration::from_secs(240);
/// The lease of a context, and some.
const LEASE: Duration = Duration::from_secs(30);

/// The other end of the wire; ended when dropped.
#[derive(Debug)]
pub struct Peer(Child);

impl Peer {
    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// If it does not.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut command = lab.namespace.command(&Programs::get()?.toe_calls);
        let mut child = command.arg("peer").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("the peer has no output")?;
        let peer = Self(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        ensure!(line == "listening\n", "the peer does not listen: {line}");
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One row of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// What was called.
    pub name: String,
    /// What came of it in the kernel.
    pub kernel: String,
    /// What came of it under `toe run`.
    pub card: String,
}

impl Row {
    /// Whether both are the same.
    pub fn is_equal(&self) -> bool {
        self.kernel == self.card
    }
}

/// Runs every row twice. Under `toe run` the connections must have been the card's.
///
/// # Errors
/// If a run does not come to its end, or the kernel carried what it should not.
pub fn calls(lab: &Lab) -> Result<Vec<Row>> {
    let _peer = Peer::start(lab)?;
    let guest = lab.guest()?;
    let what = format!("toe-calls {PEER_V4}:{PORT} [{PEER_V6}]:{PORT} {GUEST_V4}");
    let kernel = guest.check_for(&what, TABLE)?;
    let card = guest.check_for(&format!("toe run --report /tmp/calls.json -- {what}"), TABLE)?;
    let report: serde_json::Value = serde_json::from_str(&guest.check("cat /tmp/calls.json")?)?;
    lab.step(&format!("socket calls under toe run: {report}"));
    let reasons = report["kernel"].as_object().context("no reasons")?;
    ensure!(reasons.keys().all(|reason| reason == "local-address"), "the kernel carried some: {report}");
    ensure!(report["card_connected"].as_u64() > Some(80), "few connections on the card: {report}");
    ensure!(report["card_accepted"].as_u64() >= Some(10), "few accepted on the card: {report}");
    let parse = |text: &str| -> Vec<(String, String)> {
        let rows = text.lines().filter_map(|line| line.split_once('\t'));
        rows.map(|(name, result)| (name.to_owned(), result.to_owned())).collect()
    };
    let (kernel, card) = (parse(&kernel), parse(&card));
    ensure!(kernel.len() == card.len(), "{} rows in the kernel, {} on the card", kernel.len(), card.len());
    let rows = kernel.into_iter().zip(card);
    Ok(rows.map(|((name, kernel), (_, card))| Row { name, kernel, card }).collect())
}

/// Exit statuses, the policy, a `toe run` under another, a program without the capability.
///
/// # Errors
/// If one is not as it should be.
pub fn commands(lab: &Lab) -> Result<()> {
    let _peer = Peer::start(lab)?;
    let guest = lab.guest()?;
    let to = format!("{PEER_V4}:{PORT}");
    for (command, status, says) in [
        ("toe run -- sh -c 'exit 7'", 7, ""),
        ("toe run -- sh -c 'kill -9 $$'", 137, ""),
        ("toe run -- /no/such", 127, "cannot run /no/such: No such file"),
        ("toe run -- /etc", 126, "cannot run /etc: Permission denied"),
        ("toe run --policy /no/such -- true", 125, "cannot read /no/such"),
        (
            "printf 'default = \"card\"\\nno sense\\n' >/tmp/bad.toml; toe run --policy /tmp/bad.toml -- true",
            125,
            "/tmp/bad.toml:2: ",
        ),
        ("toe run -- toe run -- true", 125, "under another `toe run`"),
    ] {
        let output = guest.run(command)?;
        ensure!(output.status == status && output.text.contains(says), "{command}: {output:?}");
    }
    let rule = "[[rule]]\\ncarry = \"kernel\"\\nport = 4242\\nprogram = \"toe-c*\"\\n";
    let report = "--report /tmp/policy.json --policy /tmp/policy.toml";
    let text = guest.check(&format!("printf '{rule}' >/tmp/policy.toml; toe run {report} -- toe-calls many {to} 3"))?;
    ensure!(text.trim() == "3", "{text}");
    let report: serde_json::Value = serde_json::from_str(&guest.check("cat /tmp/policy.json")?)?;
    ensure!(report["kernel"]["policy-rule-1"] == 3 && report["card_connected"] == 0, "{report}");
    lab.step("statuses, errors and the policy are as they should be");
    Ok(())
}

/// What a person sees of it: `toe ss` has the card's and the kernel's connections in one table, and the card's are those
/// under `toe run`.
///
/// # Errors
/// If one is missing, or is said to be the other's.
pub fn tables(lab: &Lab) -> Result<()> {
    let _peer = Peer::start(lab)?;
    let guest = lab.guest()?;
    let hold = format!("(printf E; sleep 30) | nc {PEER_V4} {PORT}");
    let on_kernel = guest.start(&hold)?;
    let on_card = guest.start(&format!("toe run -- sh -c '{hold}'"))?;
    let both = wait_for("one connection of the kernel and one of the card", TABLE, || {
        let text = guest.check(&format!("toe ss -tinpH state established dport = :{PORT}"))?;
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("ESTAB")).map(str::to_owned).collect();
        let of_card = |line: &&String| line.ends_with("toe:card");
        Ok((lines.iter().filter(of_card).count() == 1 && lines.len() == 2).then_some(text))
    })?;
    // The kernel's line names the program, the card's who holds it there; both say how the connection does.
    ensure!(both.contains("\"nc\"") && both.contains("\"toe\""), "{both}");
    ensure!(both.matches("cwnd:").count() == 2, "{both}");
    lab.step(&format!("toe ss:\n{}", both.trim_end()));
    guest.check("killall nc sleep")?;
    for job in [on_kernel, on_card] {
        // Its status is that of a program that was killed.
        guest.wait(job, TABLE)?;
    }
    Ok(())
}

/// More connections at once than the card has: all work, and the kernel's are counted with their reason, which
/// `toe stat` shows while the program runs.
///
/// # Errors
/// If one does not work, or none was the card's, or none the kernel's.
pub fn full_card(lab: &Lab) -> Result<()> {
    const COUNT: usize = 100;
    let _peer = Peer::start(lab)?;
    let guest = lab.guest()?;
    let many = format!("toe-calls many {PEER_V4}:{PORT} {COUNT}");
    // The counters are published now and then: the program stays until they show what they must.
    let seen = "toe stat | tee /tmp/stat | grep run-.*-kernel-.*-full";
    let stay = format!("for i in $(seq 100); do {seen} && exit 0; sleep 0.1; done; cat /tmp/stat; exit 1");
    let text = guest.check_for(&format!("toe run --report /tmp/full.json -- sh -c '{many}; {stay}'"), TABLE)?;
    let (works, shown) = text.trim().split_once('\n').context("no counters")?;
    ensure!(works == COUNT.to_string(), "{works} of {COUNT} work");
    lab.step(&format!("toe stat: {shown}"));
    let report: serde_json::Value = serde_json::from_str(&guest.check("cat /tmp/full.json")?)?;
    let on_card = report["card_connected"].as_u64().unwrap_or(0);
    let reasons = report["kernel"].as_object().context("no reasons")?;
    let in_kernel: u64 = reasons.values().filter_map(serde_json::Value::as_u64).sum();
    ensure!(on_card > 0 && in_kernel > 0 && on_card + in_kernel == COUNT as u64, "{report}");
    ensure!(reasons.keys().all(|reason| reason.ends_with("-full")), "{report}");
    lab.step(&format!("{COUNT} at once: {on_card} on the card, {in_kernel} in the kernel: {reasons:?}"));
    Ok(())
}

/// So many kills are one command in the guest.
const KILLS_PART: u32 = 25;

/// Kills programs and supervisors at random moments under load; then nothing of them is on the card.
///
/// # Errors
/// If one hangs, or something stays.
pub fn kills(lab: &mut Lab, rounds: u32, seed: u64) -> Result<()> {
    let _peer = Peer::start(lab)?;
    let mut sum = [0u32; 4];
    for done in (0..rounds).step_by(KILLS_PART as usize) {
        let part = KILLS_PART.min(rounds - done);
        let limit = Duration::from_secs(60) + part * Duration::from_secs(10);
        let seed = seed + u64::from(done);
        let text = lab.guest()?.check_for(&format!("toe-calls kills toe {PEER_V4}:{PORT} {part} {seed}"), limit)?;
        let last = text.trim().lines().last().unwrap_or_default();
        let numbers = last.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u32>().ok());
        let numbers: [u32; 4] = numbers.collect::<Vec<_>>().try_into().map_err(|_| anyhow!("no numbers in {text}"))?;
        sum.iter_mut().zip(numbers).for_each(|(sum, n)| *sum += n);
        let [programs, supervisors, hangs, missed] = sum;
        lab.step(&format!(
            "killed {programs} programs and {supervisors} supervisors; {hangs} hung; {missed} ended before"
        ));
    }
    let card = lab.card()?;
    let left = || -> Result<Vec<String>> {
        let limits = card.limits()?;
        let rows = limits.as_array().context("limits are no list")?;
        let in_use = |name: &str| {
            let row = rows.iter().find(|r| r["name"] == name);
            row.and_then(|r| r["in_use"].as_u64()).map(|n| format!("{name}: {n}"))
        };
        let all = ["contexts", "connections", "listeners", "half-open", "send-pages", "receive-pages"];
        all.iter().map(|name| in_use(name).with_context(|| format!("no pool {name} in {limits}"))).collect()
    };
    wait_for("the card to be empty", LEASE, || {
        let left = left()?;
        Ok(left.iter().all(|text| text.ends_with(": 0")).then_some(()))
    })
    .with_context(|| format!("{:?}", left().unwrap_or_default()))?;
    lab.step("nothing is left on the card");
    Ok(())
}

/// A rate of the kernel, of `toe run` and of the library, in the same guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// What `toe-calls` calls it.
    pub what: &'static str,
    /// Per second: connections, bytes, or exchanges of a byte.
    pub kernel: u64,
    /// Under `toe run`.
    pub run: u64,
    /// By the library itself.
    pub library: u64,
}

/// What is measured, and in what units.
pub const RATES: [(&str, &str); 4] = [
    ("connections", "connections opened and closed per second, one after the other"),
    ("exchanges", "bytes there and back per second, one after the other"),
    ("sent", "bytes sent per second by one connection"),
    ("received", "bytes received per second by one connection"),
];

/// The best of so many rounds of `seconds` each, in turns.
///
/// # Errors
/// If one cannot be measured.
pub fn measure(lab: &Lab, seconds: u32, rounds: u32) -> Result<Vec<Rates>> {
    let _peer = Peer::start(lab)?;
    let guest = lab.guest()?;
    let to = format!("{PEER_V4}:{PORT}");
    let number = |command: &str| -> Result<u64> {
        let text = guest.check_for(command, Duration::from_secs(u64::from(seconds) * 8 + 60))?;
        text.trim().lines().last().and_then(|line| line.trim().parse().ok()).with_context(|| text.clone())
    };
    let mut all = Vec::new();
    for (what, _) in RATES {
        let mut best = [0; 3];
        for _ in 0..rounds {
            for (best, way) in best.iter_mut().zip(["toe-calls", "toe run -- toe-calls", "toe-calls library"]) {
                *best = (*best).max(number(&format!("{way} {what} {to} {seconds}"))?);
            }
        }
        let [kernel, run, library] = best;
        lab.step(&format!("{what}: kernel {kernel}, toe run {run}, library {library}"));
        all.push(Rates { what, kernel, run, library });
    }
    Ok(all)
}

/// What it costs to know of a call, in nanoseconds, by the way that it is known; `calls` of each are made.
///
/// # Errors
/// If one cannot be measured.
pub fn mechanisms(lab: &Lab, calls: u32) -> Result<Vec<(String, u64)>> {
    let text = lab.guest()?.check_for(&format!("toe-calls mechanisms {calls}"), TABLE)?;
    let row = |line: &str| line.split_once('\t').and_then(|(name, ns)| Some((name.to_owned(), ns.parse().ok()?)));
    text.lines().map(|line| row(line).with_context(|| line.to_owned())).collect()
}

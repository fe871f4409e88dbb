//! One attack from beginning to end, the same run without it beside it, and the verdict.
//!
//! | from | what |
//! |---|---|
//! | boot | 64 established connections begin to move data, half of them in each direction; with a *full* table, idle connections of honest clients take the rest |
//! | 1.5 s later | the attack begins, and with it honest clients that connect to the guest, and the guest to honest servers |
//! | its end | the bulk falls silent; two seconds in which what is under way may end |
//! | the rest | what timers have to give back is given back, and the pools are looked at |
//!
//! What is the attack's doing is the difference to a run of the same length, table and seed in which nobody attacks.

use std::collections::BTreeMap;

use serde::Serialize;
use toe_firmware::Profile;

use crate::lab::{Attacker, ESTABLISHED, Lab, Pool, ROUND_TRIP_US, START_US, standard_card};
use crate::program::Role;
use crate::steps::Steps;

/// A segment may cost no more steps than this, and no more than four times what 99 of 100 cost without the attack.
pub const STEPS_MAX: u64 = 64;
/// A call of the timers may take as much before it begins with its last timer, and what a timeout of a connection takes that looks
/// at all of its segments in flight.
pub const TIMER_STEPS_MAX: u64 = STEPS_MAX + 512;
/// A handshake may take a round trip and this, in microseconds, in 99 of 100 cases.
pub const HANDSHAKE_SLACK_US: u64 = 5_000;
/// Established connections keep this share of their throughput, in percent.
pub const THROUGHPUT_PERCENT: u64 = 99;

const WARM_UP_US: u64 = 1_500_000;
const ENDING_US: u64 = 2_000_000;

/// Whether connections are to be had on the card.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// There are 64, and room for 960.
    Room,
    /// All 1,024 are in use by honest clients.
    Full,
}

/// How long and how much.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Scale {
    /// Of all chance.
    pub seed: u64,
    /// The figures, and not a tenth of them.
    pub full: bool,
}

impl Scale {
    /// How long an attack lasts, in microseconds.
    pub fn attack_us(self) -> u64 {
        if self.full { 10_000_000 } else { 1_500_000 }
    }

    /// Honest connections per second.
    pub fn clients_per_s(self) -> u64 {
        if self.full { 1000 } else { 200 }
    }

    /// `ordinary`, or the full figure.
    pub fn pick(self, ordinary: u64, full: u64) -> u64 {
        if self.full { full } else { ordinary }
    }
}

/// What an attack is told before it begins.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How much.
    pub scale: Scale,
    /// The table.
    pub table: Table,
    /// When it begins and ends, in microseconds.
    pub begin_us: u64,
    /// See `begin_us`.
    pub end_us: u64,
}

/// An attack: what the program says of it, and how it is made.
#[derive(Clone, Copy)]
pub struct Attack {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is sent.
    pub sends: &'static str,
    /// What must hold beside what must always hold.
    pub rule: &'static str,
    /// How long its traces may take to go, in seconds.
    pub rest_s: u64,
    /// What it needs to be otherwise on the card.
    pub profile: fn(&mut Profile),
    /// The attacker.
    pub make: fn(&Plan, &mut Lab) -> Box<dyn Hostile>,
}

/// An attacker that can be judged.
pub trait Hostile: Attacker {
    /// It goes home: it lets go of what it holds, if it can.
    fn leave(&mut self, lab: &mut Lab) {
        let _ = lab;
    }
    /// The rules of its own.
    fn judge(&self, lab: &Lab, benign: &Run, verdict: &mut Verdict);
    /// Connections of the 64 that it need not spare: none.
    fn memory_only(&self) -> bool {
        false
    }
}

/// Rules and what became of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Each rule with its figures, and whether it held.
    pub rules: Vec<(String, bool)>,
}

impl Verdict {
    /// A rule.
    pub fn rule(&mut self, holds: bool, text: impl Into<String>) {
        self.rules.push((text.into(), holds));
    }

    /// Whether all held.
    pub fn holds(&self) -> bool {
        self.rules.iter().all(|(_, holds)| *holds)
    }
}

/// What was measured in one run, with an attacker or without.
#[derive(Clone, Debug)]
pub struct Run {
    /// Bytes that each of the 64 moved while the attack lasted.
    pub moved: Vec<u64>,
    /// Honest connections to the guest: asked for, completed, of these by the kernel.
    pub clients: (usize, usize, usize),
    /// Those of the guest: asked for, completed.
    pub outbound: (usize, usize),
    /// Handshakes of honest clients, in microseconds, sorted.
    pub handshakes_us: Vec<u64>,
    /// Established and idle connections that broke.
    pub broken: usize,
    /// Bytes that were not what was sent.
    pub wrong_bytes: u64,
    /// Steps per segment from the wire, from the attack's begin on.
    pub steps: Steps,
    /// Steps per call of the timers.
    pub timer_steps: Steps,
    /// The pools before the attack, and when everything has come to rest.
    pub pools: [BTreeMap<String, Pool>; 2],
    /// The card's counters that moved.
    pub counters: BTreeMap<String, u64>,
}

impl Run {
    /// What 99 of 100 handshakes took at most, in microseconds.
    pub fn handshake_p99_us(&self) -> u64 {
        let n = self.handshakes_us.len();
        self.handshakes_us.get((n - n / 100).saturating_sub(1)).copied().unwrap_or(0)
    }

    fn total(&self) -> u64 {
        self.moved.iter().sum()
    }
}

/// A run with an attack, and what the program prints of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The attack's name.
    pub attack: String,
    /// The table.
    pub table: Table,
    /// Frames and bytes that were sent, how many per second, and how many of them went on to the guest's kernel.
    pub sent: [u64; 4],
    /// Frames and bytes of the card's answers to the attacker.
    pub answered: (u64, u64),
    /// Honest connections to the guest: asked for, completed, of these by the kernel.
    pub clients: (usize, usize, usize),
    /// Of the guest: asked for, completed.
    pub outbound: (usize, usize),
    /// Handshakes, 99 of 100, in microseconds; and without the attack.
    pub handshake_p99_us: [u64; 2],
    /// Throughput of the 64 in percent of the run without, and of the slowest of them.
    pub throughput_percent: [f64; 2],
    /// Steps per segment: mean, p99, max; and p99 without the attack.
    pub steps: (f64, u64, u64, u64),
    /// The pools before and after: in use; and the most while it lasted.
    pub pools: BTreeMap<String, [u64; 3]>,
    /// The verdict.
    pub verdict: Verdict,
}

/// Runs once.
pub fn run(scale: Scale, table: Table, attack: Option<&Attack>) -> (Run, Lab, Option<Box<dyn Hostile>>) {
    let mut profile = standard_card();
    if let Some(attack) = attack {
        (attack.profile)(&mut profile);
    }
    let mut lab = Lab::new(&profile, scale.seed);
    // Spread over a round trip: nobody opens a thousand connections in one microsecond.
    let bulk: Vec<usize> = (0..ESTABLISHED)
        .map(|i| {
            let until_us = lab.now_us + ROUND_TRIP_US / ESTABLISHED as u64;
            lab.run(until_us, None);
            lab.bulk(i % 2 == 0)
        })
        .collect();
    let idle_count = match table {
        Table::Room => 0,
        Table::Full => profile.limits.connections as usize - ESTABLISHED,
    };
    let mut idle = Vec::new();
    for _ in 0..idle_count {
        let until_us = lab.now_us + 500;
        lab.run(until_us, None);
        idle.push(lab.idle());
    }
    let begin_us = START_US + WARM_UP_US;
    let end_us = begin_us + scale.attack_us();
    lab.run(begin_us, None);
    let plan = Plan { scale, table, begin_us, end_us };
    let mut hostile = attack.map(|a| (a.make)(&plan, &mut lab));
    let before = lab.card.pools();
    (lab.steps, lab.timer_steps) = (Steps::default(), Steps::default());
    let moved_before = moved(&lab, &bulk);
    let mut clients = Vec::new();
    let mut outbound = Vec::new();
    let gap_us = 1_000_000 / scale.clients_per_s();
    while lab.now_us < end_us {
        clients.push(lab.client());
        if clients.len() % 10 == 0 {
            outbound.push(lab.outbound());
        }
        let until_us = lab.now_us + gap_us;
        match &mut hostile {
            Some(hostile) => lab.run(until_us, Some(as_attacker(hostile))),
            None => lab.run(until_us, None),
        }
    }
    let moved_after = moved(&lab, &bulk);
    for stack in [&mut lab.card, &mut lab.world, &mut lab.kernel] {
        stack.program.is_quiet = true;
    }
    let until_us = lab.now_us + ENDING_US;
    if let Some(hostile) = &mut hostile {
        lab.run(until_us, Some(&mut Listening(hostile.as_mut())));
        hostile.leave(&mut lab);
    } else {
        lab.run(until_us, None);
    }
    let steps = lab.steps.clone();
    let rest_us = attack.map_or(130, |a| a.rest_s) * 1_000_000;
    let until_us = lab.now_us + rest_us;
    lab.run(until_us, None);
    let world = &lab.world.program;
    let done = |at: &usize| world.conns[*at].answered_us.is_some();
    let by_kernel = lab.kernel.program.conns.iter().filter(|c| c.role == Role::Echo && c.received > 0).count();
    let mut handshakes_us: Vec<u64> =
        clients.iter().filter_map(|at| Some(world.conns[*at].open_us? - world.conns[*at].began_us)).collect();
    handshakes_us.sort_unstable();
    let guests = &lab.card.program;
    let broken = bulk.iter().chain(&idle).filter(|at| world.conns[**at].broken.is_some()).count();
    let measured = Run {
        moved: moved_after.iter().zip(&moved_before).map(|(a, b)| a - b).collect(),
        clients: (clients.len(), clients.iter().filter(|at| done(at)).count(), by_kernel),
        outbound: (outbound.len(), outbound.iter().filter(|at| lab.is_answered(**at)).count()),
        handshakes_us,
        broken,
        wrong_bytes: world.wrong_bytes + guests.wrong_bytes + lab.kernel.program.wrong_bytes,
        steps,
        timer_steps: lab.timer_steps.clone(),
        pools: [before, lab.card.pools()],
        counters: lab.card.firmware.counters().filter(|c| c.value > 0).map(|c| (c.name.to_owned(), c.value)).collect(),
    };
    (measured, lab, hostile)
}

fn as_attacker(hostile: &mut Box<dyn Hostile>) -> &mut dyn Attacker {
    hostile.as_mut()
}

/// An attacker that has done its part, and still hears what it is sent.
struct Listening<'a>(&'a mut dyn Hostile);

impl Attacker for Listening<'_> {
    fn next_us(&self) -> u64 {
        u64::MAX
    }
    fn act(&mut self, _: &mut Lab) {}
    fn hear(&mut self, lab: &mut Lab, tcp: &crate::frames::Tcp<'_>) {
        self.0.hear(lab, tcp);
    }
}

/// Bytes that each bulk connection has brought to its reader.
fn moved(lab: &Lab, bulk: &[usize]) -> Vec<u64> {
    let world = &lab.world.program.conns;
    let at_card: BTreeMap<_, _> = lab.card.program.conns.iter().map(|c| (c.ends.1, c.received)).collect();
    let bytes = |at: &usize| match world[*at].role {
        Role::Sink => world[*at].received,
        _ => at_card.get(&world[*at].ends.0).copied().unwrap_or(0),
    };
    bulk.iter().map(bytes).collect()
}

/// Runs an attack and judges it by `benign`, the run without.
pub fn judge(scale: Scale, table: Table, attack: &Attack, benign: &Run) -> Report {
    let (run, lab, hostile) = run(scale, table, Some(attack));
    let mut verdict = Verdict::default();
    let v = &mut verdict;
    let (asked, completed, by_kernel) = run.clients;
    v.rule(
        completed == asked,
        format!("{completed} of {asked} honest connections complete ({by_kernel} by the kernel)"),
    );
    let (out, out_completed) = run.outbound;
    v.rule(out_completed == out, format!("{out_completed} of {out} of the guest's own complete"));
    let p99 = run.handshake_p99_us();
    let allowed = ROUND_TRIP_US + HANDSHAKE_SLACK_US;
    v.rule(p99 <= allowed, format!("handshakes (99 of 100) take {:.1} ms, at most {:.1}", ms(p99), ms(allowed)));
    v.rule(run.broken == 0, format!("{} honest connections broke", run.broken));
    v.rule(run.wrong_bytes == 0, format!("{} wrong bytes", run.wrong_bytes));
    let percent = |a: u64, b: u64| 100.0 * a as f64 / b.max(1) as f64;
    let throughput = percent(run.total(), benign.total());
    let slowest = run.moved.iter().min().copied().unwrap_or(0);
    let slowest_benign = benign.moved.iter().min().copied().unwrap_or(0);
    let is_fast = run.total() * 100 >= benign.total() * THROUGHPUT_PERCENT;
    let memory_only = hostile.as_ref().is_some_and(|h| h.memory_only());
    if !memory_only {
        v.rule(is_fast, format!("established connections keep {throughput:.1} % of their throughput, at least 99"));
    }
    let half = slowest * 2 >= slowest_benign && slowest > 0;
    v.rule(half, format!("the slowest of them moved {slowest} bytes ({slowest_benign} without), at least half"));
    let limit = STEPS_MAX.min(4 * benign.steps.p99());
    let steps = (run.steps.mean(), run.steps.p99(), run.steps.max(), benign.steps.p99());
    v.rule(
        steps.2 <= limit,
        format!("a segment takes {} steps at most, allowed {limit} (64, or 4 times {})", steps.2, steps.3),
    );
    // The end of a context is no timer's work, and one that runs out has such an end.
    if lab.card.counter("channel-lease-expired") == 0 {
        let most = run.timer_steps.max();
        let text = format!("a call of the timers takes {most} steps at most, allowed {TIMER_STEPS_MAX}");
        v.rule(most <= TIMER_STEPS_MAX, text);
    }
    let mut pools = BTreeMap::new();
    for (name, after) in &run.pools[1] {
        let before = run.pools[0].get(name).map_or(0, |p| p.in_use);
        pools.insert(name.clone(), [before, after.in_use, after.high_water]);
        let benign_after = benign.pools[1].get(name).map_or(0, |p| p.in_use);
        let is_structural = ["connections", "half-open", "time-wait", "contexts", "listeners"].contains(&name.as_str());
        if is_structural {
            v.rule(after.in_use == benign_after, format!("{name}: {before} before, {} after", after.in_use));
        } else if after.in_use > benign_after.max(before) {
            v.rule(
                false,
                format!("{name}: {before} before, {} after, {benign_after} after the same run without", after.in_use),
            );
        }
        if after.high_water > after.capacity {
            v.rule(false, format!("{name}: {} in use of {}", after.high_water, after.capacity));
        }
    }
    v.rule(accounts_are_right(&lab), "every frame is accounted for");
    if let Some(hostile) = &hostile {
        hostile.judge(&lab, benign, v);
    }
    let per_s = lab.sent * 1_000_000 / scale.attack_us();
    Report {
        attack: attack.name.to_owned(),
        table,
        sent: [lab.sent, lab.sent_bytes, per_s, lab.passed_on],
        answered: lab.answered,
        clients: run.clients,
        outbound: run.outbound,
        handshake_p99_us: [p99, benign.handshake_p99_us()],
        throughput_percent: [throughput, percent(slowest, slowest_benign)],
        steps,
        pools,
        verdict,
    }
}

/// Milliseconds.
pub fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// Frames received = taken + passed on + dropped by reason, at both sides.
fn accounts_are_right(lab: &Lab) -> bool {
    ["wire", "guest"].iter().all(|side| {
        let dropped: u64 = lab
            .card
            .firmware
            .counters()
            .filter(|c| c.name.starts_with(&format!("{side}-drop-")))
            .map(|c| c.value)
            .sum();
        let count = |what: &str| lab.card.counter(&format!("{side}-{what}"));
        count("in") == count("taken") + count("passed") + dropped
    })
}

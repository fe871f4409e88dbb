//! Faults at single passages: every one there is, one in a run, and several drawn from a seed.
//!
//! A run without faults counts how often something passes each site of each card. Then each of these passages is struck
//! with each action in a run of its own, which must hold as any other: one frame that is lost, repeated, late or damaged, one
//! wake of a timer that is lost, late or doubled, is no reason for a connection to break that would not have broken otherwise.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use toe_faults::{Action, ActionKind, Rules, Site};
use toe_firmware::fault::By;
use toe_impair::Random;

use crate::chance::Seed;
use crate::run::{Counts, Order, Violation, judged, passages, remember_panics};
use crate::scenes::{ALL, BASE, Ends, Named};

/// So long is late.
const DELAY_US: u64 = 5_000;
/// Headers and not much more.
const TRUNCATED_BYTES: u32 = 60;
/// The seeds that are looked at for the shortest run.
const CANDIDATES: u64 = 16;
/// A processor hangs for so long, or a link is down.
const HANG_US: u64 = 50_000;
/// So far a clock jumps.
const JUMP_US: u64 = 5_000_000;
/// Of more passages of a site than that in a run, one in so many is struck.
const PASSAGES_MAX: u64 = 600;
/// So many violations are told.
const TOLD_MAX: usize = 20;
/// Faults that are drawn strike one of the first 2^9 passages, the earlier the likelier.
const DRAWN_PASSAGES_LOG2: u64 = 10;

/// A fault at one passage of a site of a card.
#[derive(Clone, Copy, Debug)]
pub struct Strike {
    pub card: usize,
    pub site: Site,
    pub nth: u64,
    pub action: Action,
}

/// Rules for all of them.
pub fn rules(strikes: &[Strike]) -> Rules {
    let single = |s: &Strike| Rules::single(s.site, s.nth, ["a", "b"][s.card], s.action).as_slice().to_vec();
    Rules::new(strikes.iter().flat_map(single).collect())
}

/// One fault in a run.
#[derive(Clone, Copy)]
struct Single {
    scenario: &'static Named,
    seed: u64,
    strike: Strike,
}

/// The sites between the card and its world.
pub const AROUND: [Site; 6] =
    [Site::WireRx, Site::WireTx, Site::ChannelRx, Site::ChannelTx, Site::TimerWake, Site::WireLink];

/// Whether the simulator has that site: the firmware's own, and those around it. Rings and guest memory are the device's.
pub fn is_here(site: Site) -> bool {
    site.by() == By::Firmware || AROUND.contains(&site)
}

/// What is done at a site by an action of that kind; `None`: what ends only when the card is reset, for there is no watchdog here.
pub fn action(kind: ActionKind) -> Option<Action> {
    Some(match kind {
        ActionKind::Drop => Action::Drop,
        ActionKind::Duplicate => Action::Duplicate,
        ActionKind::Delay => Action::Delay(DELAY_US),
        ActionKind::FlipBit => Action::FlipBit(0),
        ActionKind::Truncate => Action::Truncate(TRUNCATED_BYTES),
        ActionKind::Reorder => Action::Reorder(2),
        ActionKind::Corrupt => Action::Corrupt(None),
        ActionKind::Error => Action::Error,
        ActionKind::Hang => Action::Hang(HANG_US),
        ActionKind::Slow => Action::Slow { times: 8, lasting_us: HANG_US },
        ActionKind::Leak => Action::Leak,
        ActionKind::Early => Action::Early,
        ActionKind::Jump => Action::Jump(JUMP_US),
        ActionKind::Crash | ActionKind::CrashKept => return None,
    })
}

/// The actions of a site; a link that is dropped stays down, and is no single fault.
pub fn actions(site: Site) -> impl Iterator<Item = Action> {
    let all = site.actions().iter().copied().filter_map(action);
    all.filter(move |&action| site != Site::WireLink || action != Action::Drop)
}

/// Two to `most` faults of a seed, at any sites.
pub fn drawn_strikes(seed: Seed, most: u64) -> Vec<Strike> {
    let mut random = seed.stream("strikes");
    let one = |random: &mut Random| {
        let sites: Vec<_> = Site::ALL.into_iter().filter(|&site| is_here(site)).collect();
        let site = sites[random.below(sites.len() as u64) as usize];
        let actions: Vec<_> = actions(site).collect();
        let action = match actions[random.below(actions.len() as u64) as usize] {
            Action::Delay(_) => Action::Delay(1 << random.below(21)),
            Action::Truncate(_) => Action::Truncate(random.between(1, 120) as u32),
            other => other,
        };
        let most = 1 << random.below(DRAWN_PASSAGES_LOG2);
        Strike { card: random.below(2) as usize, site, nth: random.between(1, most), action }
    };
    (0..random.between(2, most)).map(|_| one(&mut random)).collect()
}

fn order(scenario: &'static Named, faults: Rules) -> Order {
    Order { scenario: Some(scenario), ends: Ends::Cards, faults: Some(faults), drawn_faults: 0, faults_last: true }
}

/// All faults of a scenario, under the seed of the first few from `from` on under which the least passes the sites.
fn singles(scenario: &'static Named, from: u64) -> Vec<Single> {
    let counted = (from..from + CANDIDATES).map(|seed| (seed, passages(seed, &order(scenario, Rules::none()))));
    let shortest = counted.min_by_key(|(_, counts)| counts.iter().flatten().sum::<u64>());
    let Some((seed, counts)) = shortest else { return Vec::new() };
    let mut all = Vec::new();
    for (card, counts) in counts.iter().enumerate() {
        for (site, &count) in Site::ALL.into_iter().zip(counts).filter(|(site, _)| is_here(*site)) {
            for action in actions(site) {
                // At what is passed at every call, one in so many that no site has more than the busiest frame has.
                let step = count.div_ceil(PASSAGES_MAX).max(1) as usize;
                let strike = |nth| Strike { card, site, nth, action };
                all.extend((1..=count).step_by(step).map(|nth| Single { scenario, seed, strike: strike(nth) }));
            }
        }
    }
    all
}

/// Runs every single fault on `jobs` threads and prints what came out; the faults that struck by site, and whether everything
/// held.
pub fn single_faults(from: u64, asked: &Order, jobs: u64) -> (Counts, bool) {
    remember_panics();
    let scenarios: Vec<_> = match asked.scenario {
        Some(one) => vec![one],
        None => ALL[..BASE].iter().collect(),
    };
    let (mut sum, mut runs, mut failed) = (Counts::default(), 0, 0);
    for scenario in scenarios {
        let all = singles(scenario, from);
        let (counts, violations) = run(&all, jobs);
        sum.add(counts);
        let seed = all.first().map_or(from, |s| s.seed);
        println!("{}: seed {seed}, {} faults, {} violations", scenario.name, all.len(), violations.len());
        for (single, violation) in violations.iter().take(TOLD_MAX) {
            let Strike { card, site, nth, action } = single.strike;
            let card = ["a", "b"][card];
            println!("    card {card}, {} {nth}, {action:?}: {}", site.name(), violation.text);
        }
        runs += all.len();
        failed += violations.len();
    }
    println!("{runs} single faults, {failed} violations");
    (sum, failed == 0)
}

/// Runs every `step`th single fault of all base scenarios; how many there were, and what did not hold.
#[cfg(test)]
pub fn sample(step: usize) -> (usize, Vec<Violation>) {
    let all: Vec<_> = ALL[..BASE].iter().flat_map(|scenario| singles(scenario, 0)).step_by(step).collect();
    let violations = run(&all, 1).1.into_iter().map(|(_, violation)| violation).collect();
    (all.len(), violations)
}

fn run(all: &[Single], jobs: u64) -> (Counts, Vec<(Single, Violation)>) {
    let next = AtomicUsize::new(0);
    let work = || {
        let (mut counts, mut violations) = (Counts::default(), Vec::new());
        while let Some(&single) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Single { scenario, seed, strike } = single;
            match judged(seed, &order(scenario, rules(&[strike]))) {
                Ok(one) => counts.add(one),
                Err(violation) => violations.push((single, violation)),
            }
        }
        (counts, violations)
    };
    let (mut counts, mut violations) = (Counts::default(), Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        for (c, v) in threads.into_iter().filter_map(|t| t.join().ok()) {
            counts.add(c);
            violations.extend(v);
        }
    });
    (counts, violations)
}

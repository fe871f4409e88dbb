//! Every single fault: each base scenario, each card, each site, each passage, each action, one at a time.
//!
//! A run without faults counts the passages. Then each of them is struck in a run of its own, which must hold as any
//! other: one frame that is lost, repeated, late or damaged, one wake of a timer that is lost, late or doubled, is no reason for a
//! connection to break that would not have broken otherwise.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use toe_faults::{Action, ActionKind, Rules, Site};

use crate::run::{Order, Violation, judged, passages, remember_panics};
use crate::scenes::{ALL, Ends, Named};

/// The base scenarios.
const BASE: usize = 12;
/// So long is late.
const DELAY_US: u64 = 5_000;
/// Headers and not much more.
const TRUNCATED_BYTES: u32 = 60;
/// The seeds that are looked at for the shortest run.
const CANDIDATES: u64 = 16;
/// So many violations are told.
const TOLD_MAX: usize = 20;

/// One fault.
#[derive(Clone, Copy)]
struct Single {
    scenario: &'static Named,
    seed: u64,
    card: usize,
    site: Site,
    nth: u64,
    action: Action,
}

/// The sites between the card and its world.
pub const SITES: [Site; 5] = [Site::WireRx, Site::WireTx, Site::ChannelRx, Site::ChannelTx, Site::TimerWake];

fn action(kind: ActionKind) -> Option<Action> {
    Some(match kind {
        ActionKind::Drop => Action::Drop,
        ActionKind::Duplicate => Action::Duplicate,
        ActionKind::Delay => Action::Delay(DELAY_US),
        ActionKind::FlipBit => Action::FlipBit(0),
        ActionKind::Truncate => Action::Truncate(TRUNCATED_BYTES),
        _ => return None,
    })
}

fn order(scenario: &'static Named, faults: Rules) -> Order {
    Order { scenario: Some(scenario), ends: Ends::Cards, faults: Some(faults) }
}

/// All faults of a scenario, under the seed of the first few from `from` on under which the least passes the sites.
fn singles(scenario: &'static Named, from: u64) -> Vec<Single> {
    let counted = (from..from + CANDIDATES).map(|seed| (seed, passages(seed, &order(scenario, Rules::none()), SITES)));
    let shortest = counted.min_by_key(|(_, counts)| counts.iter().flatten().sum::<u64>());
    let Some((seed, counts)) = shortest else { return Vec::new() };
    let mut all = Vec::new();
    for (card, counts) in counts.iter().enumerate() {
        for (site, &count) in SITES.into_iter().zip(counts) {
            for action in site.actions().iter().copied().filter_map(action) {
                all.extend((1..=count).map(|nth| Single { scenario, seed, card, site, nth, action }));
            }
        }
    }
    all
}

/// Runs every single fault on `jobs` threads and prints what came out; whether everything held.
pub fn single_faults(from: u64, asked: &Order, jobs: u64) -> bool {
    remember_panics();
    let scenarios: Vec<_> = match asked.scenario {
        Some(one) => vec![one],
        None => ALL[..BASE].iter().collect(),
    };
    let (mut runs, mut failed) = (0, 0);
    for scenario in scenarios {
        let all = singles(scenario, from);
        let violations = run(&all, jobs);
        let seed = all.first().map_or(from, |s| s.seed);
        println!("{}: seed {seed}, {} faults, {} violations", scenario.name, all.len(), violations.len());
        for (single, violation) in violations.iter().take(TOLD_MAX) {
            let Single { card, site, nth, action, .. } = single;
            let card = ["a", "b"][*card];
            println!("    card {card}, {} {nth}, {action:?}: {}", site.name(), violation.text);
        }
        runs += all.len();
        failed += violations.len();
    }
    println!("{runs} single faults, {failed} violations");
    failed == 0
}

/// Runs every `step`th single fault of all base scenarios; how many there were, and what did not hold.
#[cfg(test)]
pub fn sample(step: usize) -> (usize, Vec<Violation>) {
    let all: Vec<_> = ALL[..BASE].iter().flat_map(|scenario| singles(scenario, 0)).step_by(step).collect();
    let violations = run(&all, 1).into_iter().map(|(_, violation)| violation).collect();
    (all.len(), violations)
}

fn run(all: &[Single], jobs: u64) -> Vec<(Single, Violation)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut violations = Vec::new();
        while let Some(&single) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Single { scenario, seed, card, site, nth, action } = single;
            let rules = Rules::single(site, nth, ["a", "b"][card], action);
            if let Err(violation) = judged(seed, &order(scenario, rules)) {
                violations.push((single, violation));
            }
        }
        violations
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|t| t.join().ok()).flatten().collect()
    })
}

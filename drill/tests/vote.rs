//! The three stacks on a few random cases: they agree, or differ in a way that is listed.

use toe_drill::language::Family;
use toe_drill::suite::Trouble;
use toe_drill::vote::vote;

/// The same ones every time; `toe-drill vote` takes as many as it is told.
const SEEDS: std::ops::Range<u64> = 0..150;
/// Less would mean that the cases say little.
const AGREED_MIN: u64 = 40;

fn poll(family: Family) {
    let tally = match vote(SEEDS, family) {
        Ok(tally) => tally,
        Err(Trouble::Unavailable(reason)) => {
            println!("skipped: {reason}");
            return;
        }
        Err(trouble) => panic!("{trouble}"),
    };
    let unknown: Vec<String> = tally
        .unknown
        .iter()
        .map(|((alone, kind), (_, seed, case))| format!("{}: {kind} (seed {seed})\n{case}", alone.name()))
        .collect();
    assert!(tally.is_known(), "\n{}", unknown.join("\n"));
    assert!(tally.agreed >= AGREED_MIN, "only {} of {} agreed", tally.agreed, SEEDS.end);
    assert!(!tally.known.is_empty());
}

#[test]
fn votes_over_ipv4_find_nothing_that_is_not_listed() {
    poll(Family::V4);
}

#[test]
fn votes_over_ipv6_find_nothing_that_is_not_listed() {
    poll(Family::V6);
}

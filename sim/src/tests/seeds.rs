//! Runs a test under many seeds and says how to replay the one that failed.

use crate::transcript::narrate;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many failing seeds are looked for before giving up.
const FAILURES_MAX: usize = 5;

/// Runs `test` under the seeds from 0 to `ordinary - 1`, or those that `TOE_SEEDS` or `TOE_SEED` ask for. `name` is the
/// test's full name, for the command that replays a seed.
pub fn for_seeds(name: &str, ordinary: u64, test: impl Fn(u64)) {
    for_one_seed_in(1, name, ordinary, test);
}

/// The same for a test that takes `part` times as long as others: of the seeds that `TOE_SEEDS` asks for, it runs one in
/// `part`.
pub fn for_one_seed_in(part: u64, name: &str, ordinary: u64, test: impl Fn(u64)) {
    let number = |key: &str| {
        std::env::var(key).ok().map(|v| v.parse::<u64>().unwrap_or_else(|_| panic!("{key}={v}: expected a number")))
    };
    if let Some(seed) = number("TOE_SEED") {
        narrate(Some(u64::MAX));
        return test(seed);
    }
    let count = number("TOE_SEEDS").map_or(ordinary, |n| n.div_ceil(part));
    let mut failed = Vec::new();
    for seed in 0..count {
        if catch_unwind(AssertUnwindSafe(|| test(seed))).is_err() {
            println!(
                "seed {seed} failed; to replay it: TOE_SEED={seed} cargo test -p toe-sim --lib tests::{name} -- \
                 --exact --nocapture"
            );
            failed.push(seed);
            if failed.len() == FAILURES_MAX {
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{name}: seeds {failed:?} of {count} failed; each is replayed by the command above");
}

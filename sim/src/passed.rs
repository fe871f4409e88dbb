//! What passes the sites of the first card of a world, frame by frame: so that another card can be given the same.

use std::cell::RefCell;

use toe_faults::{Record, Rules, Site};

use crate::chance::Seed;
use crate::run::{Faults, hold};
use crate::scenes::{Draw, Ends, Named};

thread_local! {
    static PASSED: RefCell<Option<Vec<(Site, Vec<u8>)>>> = const { RefCell::new(None) };
}

/// The card whose frames are kept.
const CARD: &str = "a";

/// A frame passes a site of a card, armed or not.
#[inline]
pub fn note(card: &str, site: Site, frame: &[u8]) {
    if card == CARD {
        PASSED.with_borrow_mut(|passed| passed.iter_mut().for_each(|p| p.push((site, frame.to_vec()))));
    }
}

/// What a run with faults came to, at its first card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passed {
    /// The seed of the faults.
    pub faults_seed: u64,
    /// Every frame that passed a site, in order.
    pub frames: Vec<(Site, Vec<u8>)>,
    /// The last strikes, in order.
    pub records: Vec<Record>,
}

/// Runs one seed of a scenario between two cards with faults by these rules. Panics where something does not hold.
pub fn passed(seed: u64, scenario: &'static Named, rules: &Rules) -> Passed {
    let seed = Seed(seed);
    let faults_seed = seed.stream("faults").bits();
    let scene = (scenario.build)(&Draw { seed, ends: Ends::Cards });
    PASSED.set(Some(Vec::new()));
    let faults = Faults { rules: rules.clone(), seed: faults_seed, last: true };
    let mut world = hold(scene, Some(&faults)).1;
    let frames = PASSED.take().unwrap_or_default();
    let records = world.try_card(0).and_then(|card| card.counted_faults(|f| f.records().copied().collect()));
    Passed { faults_seed, frames, records: records.unwrap_or_default() }
}

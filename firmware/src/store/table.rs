//! A keyed hash table of fixed size: from a hash to whatever a 32-bit value names.
//!
//! Open addressing, linear probing, and on removal the entries behind move up, so there are no tombstones and the
//! cost does not grow with age. The table holds at most half of its places. It keeps the full hash beside each
//! value and asks the caller only about equal ones; that the hash is keyed and secret is what bounds the probes.

use super::gauge::Gauge;
use crate::work::Steps;

/// The table.
#[derive(Debug)]
pub struct Table {
    places: Box<[Place]>,
    mask: usize,
    /// What is published.
    pub gauge: Gauge,
    /// A step for every place looked at.
    pub steps: Steps,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u32,
    value: u32,
}

const EMPTY: u32 = u32::MAX;

impl Table {
    /// A table for as many values as the gauge's capacity.
    pub fn new(gauge: Gauge) -> Self {
        let places = (gauge.capacity() as usize * 2).next_power_of_two().max(2);
        Self {
            places: vec![Place { hash: 0, value: EMPTY }; places].into(),
            mask: places - 1,
            gauge,
            steps: Steps::default(),
        }
    }

    /// Puts a value in; it must not be there, nor be `u32::MAX`, and there must be room.
    pub fn insert(&mut self, hash: u64, value: u32) {
        debug_assert!(value != EMPTY);
        let taken = self.gauge.take(1);
        debug_assert!(taken);
        let hash = hash as u32;
        let mut at = hash as usize & self.mask;
        self.steps.one();
        while self.places[at].value != EMPTY {
            self.steps.one();
            at = (at + 1) & self.mask;
        }
        self.places[at] = Place { hash, value };
    }

    /// The first value under `hash` for which `is` holds.
    pub fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = hash as u32;
        let mut at = hash as usize & self.mask;
        loop {
            self.steps.one();
            let place = self.places[at];
            if place.value == EMPTY {
                return None;
            }
            if place.hash == hash && is(place.value) {
                return Some(place.value);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Takes a value out; it must be there under that hash.
    pub fn remove(&mut self, hash: u64, value: u32) {
        let mut at = hash as usize & self.mask;
        while self.places[at].value != value {
            self.steps.one();
            if self.places[at].value == EMPTY {
                debug_assert!(false, "removed what is not there");
                return;
            }
            at = (at + 1) & self.mask;
        }
        let mut hole = at;
        loop {
            self.steps.one();
            at = (at + 1) & self.mask;
            let place = self.places[at];
            if place.value == EMPTY {
                break;
            }
            let home = place.hash as usize & self.mask;
            // It may move into the hole if the hole is not before its home.
            if at.wrapping_sub(home) & self.mask >= at.wrapping_sub(hole) & self.mask {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole].value = EMPTY;
        self.gauge.give(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Against a map, with hashes that collide on purpose.
        #[test]
        fn it_is_a_map(operations in proptest::collection::vec((0u32..40, any::<bool>()), 0..400)) {
            let hash = |v: u32| u64::from(v % 7);
            let mut table = Table::new(Gauge::new("t", "deny", 40));
            let mut map = HashMap::new();
            for (v, insert) in operations {
                if insert && !map.contains_key(&v) {
                    table.insert(hash(v), v);
                    map.insert(v, ());
                } else if !insert && map.remove(&v).is_some() {
                    table.remove(hash(v), v);
                }
                for v in 0..40 {
                    prop_assert_eq!(table.find(hash(v), |x| x == v).is_some(), map.contains_key(&v));
                }
            }
        }
    }
}

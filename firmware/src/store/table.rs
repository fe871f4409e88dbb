//! A keyed hash table of fixed size: from a hash to whatever a 32-bit value names.
//!
//! Its places stand in buckets of [`BUCKET`], and a value lies in one of the two buckets that its hash names, the emptier one
//! when it came. So whatever is asked of the table, at most two buckets are looked at: the bound does not rest on the key being
//! secret. What the key is for: nobody can choose 4-tuples that meet in two buckets. At half
//! of its places in use, which is the most that the table holds, a bucket of chance has four values and seven at most (seen in
//! 10^5 draws); who knows the key can fill two, and then whatever is for these two is refused. The table keeps half of the
//! hash beside each value and asks the caller only about equal ones.

use super::gauge::Gauge;
use crate::work::Steps;

/// The table.
#[derive(Debug)]
pub struct Table {
    buckets: Box<[Bucket]>,
    used: u64,
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

/// Places of a bucket: a cache line of them.
const BUCKET: usize = 8;

/// Those in use stand before the empty ones.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([Place; BUCKET]);

impl Table {
    /// Bytes of one place.
    pub const PLACE_BYTES: usize = size_of::<Place>();

    /// A table for as many values as the gauge's capacity.
    pub fn new(gauge: Gauge) -> Self {
        let places = (gauge.capacity() as usize * 2).next_power_of_two().max(2 * BUCKET);
        let bucket = Bucket([Place { hash: 0, value: EMPTY }; BUCKET]);
        Self { buckets: vec![bucket; places / BUCKET].into(), used: 0, gauge, steps: Steps::default() }
    }

    /// The two buckets of a hash.
    fn buckets(&self, hash: u64) -> [usize; 2] {
        let mask = self.buckets.len() - 1;
        let (first, second) = (hash as usize & mask, (hash >> 32) as usize & mask);
        // Two there are, whatever the hash.
        [first, if second == first { first ^ 1 } else { second }]
    }

    /// How many places of a bucket are in use; each is a step, and one for their end.
    fn used_of(&self, bucket: usize) -> usize {
        let used = self.buckets[bucket].0.iter().take_while(|place| place.value != EMPTY).count();
        self.steps.add((used + 1).min(BUCKET) as u64);
        used
    }

    /// Where a value of that hash would go.
    fn place_for(&self, hash: u64) -> Option<(usize, usize)> {
        let [a, b] = self.buckets(hash).map(|bucket| (self.used_of(bucket), bucket));
        let (used, bucket) = if b.0 < a.0 { b } else { a };
        (used < BUCKET).then_some((bucket, used))
    }

    /// Whether a value of that hash finds a place.
    pub fn has_place(&self, hash: u64) -> bool {
        self.place_for(hash).is_some()
    }

    /// Puts a value in; it must not be there, nor be `u32::MAX`. `false`, with nothing done, if both buckets are full.
    #[must_use]
    pub fn insert(&mut self, hash: u64, value: u32) -> bool {
        debug_assert!(value != EMPTY);
        let Some((bucket, at)) = self.place_for(hash) else { return false };
        self.gauge.claim(1);
        self.buckets[bucket].0[at] = Place { hash: hash as u32, value };
        self.used += 1;
        true
    }

    /// The first value under `hash` for which `is` holds.
    pub fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut looks = 0;
        for bucket in self.buckets(hash) {
            for place in &self.buckets[bucket].0 {
                looks += 1;
                if place.value == EMPTY {
                    break;
                }
                if place.hash == hash as u32 && is(place.value) {
                    self.steps.add(looks);
                    return Some(place.value);
                }
            }
        }
        self.steps.add(looks);
        None
    }

    /// Takes a value out; it must be there under that hash.
    pub fn remove(&mut self, hash: u64, value: u32) {
        let of_value = |bucket: usize| {
            let at = self.buckets[bucket].0.iter().position(|place| place.value == value)?;
            Some((bucket, at))
        };
        let Some((bucket, at)) = self.buckets(hash).into_iter().find_map(of_value) else {
            debug_assert!(false, "removed what is not there");
            return;
        };
        self.empty(bucket, at);
    }

    fn empty(&mut self, bucket: usize, at: usize) {
        // The last one fills the hole.
        let last = self.used_of(bucket) - 1;
        let places = &mut self.buckets[bucket].0;
        places[at] = places[last];
        places[last].value = EMPTY;
        self.used -= 1;
        self.gauge.give_back(1);
    }

    /// How many places there are, in use or not.
    pub fn places(&self) -> u64 {
        (self.buckets.len() * BUCKET) as u64
    }

    /// How many are in use, by what it does itself and not by its gauge.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Half of the hash and the value that stand at a place.
    pub fn at(&self, place: u32) -> Option<(u32, u32)> {
        let Place { hash, value } = self.buckets[place as usize / BUCKET].0[place as usize % BUCKET];
        (value != EMPTY).then_some((hash, value))
    }

    /// Takes out what stands at a place.
    pub fn remove_at(&mut self, place: u32) {
        let at = place as usize;
        self.empty(at / BUCKET, at % BUCKET);
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
            let hash = |v: u32| u64::from(v % 7) << 32 | u64::from(v % 5);
            let mut table = Table::new(Gauge::new("t", "deny", 40));
            let mut map = HashMap::new();
            for (v, insert) in operations {
                if insert && !map.contains_key(&v) {
                    prop_assert_eq!(table.has_place(hash(v)), table.insert(hash(v), v));
                    if table.find(hash(v), |x| x == v).is_some() {
                        map.insert(v, ());
                    }
                } else if !insert && map.remove(&v).is_some() {
                    table.remove(hash(v), v);
                }
                for v in 0..40 {
                    prop_assert_eq!(table.find(hash(v), |x| x == v).is_some(), map.contains_key(&v));
                }
            }
        }
    }

    #[test]
    fn who_knows_the_key_fills_two_buckets_and_costs_no_more_than_two() {
        let mut table = Table::new(Gauge::new("t", "deny", 1000));
        let taken = (0..100).filter(|v| table.insert(5 << 32 | 3, *v)).count();
        assert_eq!(taken, 2 * BUCKET);
        let before = table.steps.count();
        assert_eq!(table.find(5 << 32 | 3, |v| v == 99), None);
        assert_eq!(table.steps.count() - before, 2 * BUCKET as u64);
        // Who shares one of the two has the other.
        assert!(table.insert(9 << 32 | 3, 200));
        table.remove(5 << 32 | 3, 0);
        assert!(table.insert(5 << 32 | 3, 0));
    }

    #[test]
    fn chance_fills_the_table() {
        let key = crate::chance::Key::new([3; 16]);
        let mut table = Table::new(Gauge::new("t", "deny", 4096));
        for v in 0..4096 {
            assert!(table.insert(key.hash(&[v.into()]), v), "{v}");
        }
        // And again and again, each time another.
        for v in 4096..50_000u32 {
            table.remove(key.hash(&[u64::from(v - 4096)]), v - 4096);
            assert!(table.insert(key.hash(&[v.into()]), v), "{v}");
        }
    }
}

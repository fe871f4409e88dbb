//! Tables by numbers that this library has chosen itself, or the card has: nobody else could choose them so that they collide, so
//! that a hash need not withstand that. Every message and every call looks several things up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table by such numbers.
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// Spreads a number over the word: the table uses its lowest and its highest bits.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

/// 2^64 by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, n: u64) {
        let product = (self.0 ^ n).wrapping_mul(FACTOR);
        // A card's ids differ in either half.
        self.0 = product ^ product >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn numbers_in_a_row_in_either_half_are_spread() {
        let hasher = BuildHasherDefault::<Spread>::default();
        for shift in [0, 32] {
            let hashes: Vec<u64> = (1..=1024u64).map(|n| hasher.hash_one(n << shift)).collect();
            let low: HashSet<_> = hashes.iter().map(|hash| hash & 1023).collect();
            let high: HashSet<_> = hashes.iter().map(|hash| hash >> 57).collect();
            // By chance 1 - 1/e of the places would be taken.
            assert!(low.len() > 600 && high.len() > 100, "{shift}: {} {}", low.len(), high.len());
        }
    }
}

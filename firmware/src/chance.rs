//! Chance: SipHash-2-4 (Aumasson and Bernstein, 2012) as keyed hash, as pseudo-random function and as generator; and with fewer
//! rounds (SipHash-1-3) where only the places in a table follow from it, which nobody outside ever sees.
//!
//! Everything unpredictable on the card comes from one seed handed in at boot: the key of the connection table (so
//! that nobody can collide its buckets), the secret of initial sequence numbers (RFC 6528), timestamp offsets.

use crate::seq::Seq;

/// A 128-bit key, and the functions under it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    k0: u64,
    k1: u64,
}

impl Key {
    /// The key in bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        let half = |at: usize| {
            let mut b = [0; 8];
            b.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(b)
        };
        Self { k0: half(0), k1: half(8) }
    }

    /// The hash of some words. The number of words is part of what is hashed.
    pub fn hash(&self, words: &[u64]) -> u64 {
        self.sip::<2, 4>(words)
    }

    /// The same with half of the rounds, for tables: whoever wants to fill a bucket must know the key, and learns nothing of it
    /// from a place in a table.
    pub fn place(&self, words: &[u64]) -> u64 {
        self.sip::<1, 3>(words)
    }

    #[inline]
    fn sip<const WORD: usize, const END: usize>(&self, words: &[u64]) -> u64 {
        let mut s = State {
            v0: self.k0 ^ 0x736f_6d65_7073_6575,
            v1: self.k1 ^ 0x646f_7261_6e64_6f6d,
            v2: self.k0 ^ 0x6c79_6765_6e65_7261,
            v3: self.k1 ^ 0x7465_6462_7974_6573,
        };
        for &word in words {
            s.absorb::<WORD>(word);
        }
        s.absorb::<WORD>((words.len() as u64 * 8) << 56);
        s.v2 ^= 0xff;
        for _ in 0..END {
            s.round();
        }
        s.v0 ^ s.v1 ^ s.v2 ^ s.v3
    }
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    fn absorb<const ROUNDS: usize>(&mut self, word: u64) {
        self.v3 ^= word;
        for _ in 0..ROUNDS {
            self.round();
        }
        self.v0 ^= word;
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }
}

/// The keys that the firmware draws from its seed, one for each use.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Of the connection table.
    pub table: Key,
    /// Of initial sequence numbers.
    pub sequence: Key,
    /// Of timestamp offsets.
    pub timestamp: Key,
    /// Of Fast Open cookies.
    pub cookie: Key,
    /// Of SYN cookies.
    pub syn_cookie: Key,
}

impl Keys {
    /// What keys are that were never drawn.
    pub const ZERO: Self = {
        let zero = Key { k0: 0, k1: 0 };
        Self { table: zero, sequence: zero, timestamp: zero, cookie: zero, syn_cookie: zero }
    };

    /// Expands the seed.
    pub fn new(seed: [u8; 32]) -> Self {
        let mut halves = [[0; 16]; 2];
        halves[0].copy_from_slice(&seed[..16]);
        halves[1].copy_from_slice(&seed[16..]);
        let [a, b] = halves.map(Key::new);
        let draw = |purpose: u64| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(a.hash(&[purpose, 0]) ^ b.hash(&[purpose, 1])).to_le_bytes());
            bytes[8..].copy_from_slice(&(a.hash(&[purpose, 2]) ^ b.hash(&[purpose, 3])).to_le_bytes());
            Key::new(bytes)
        };
        Self { table: draw(1), sequence: draw(2), timestamp: draw(3), cookie: draw(4), syn_cookie: draw(5) }
    }
}

impl Keys {
    /// The initial sequence number between these ends when the clock says that: the words of the 4-tuple under the key, and the
    /// clock (RFC 6528, section 3).
    pub fn sequence_number(&self, tuple: &[u64], clock: u32) -> Seq {
        Seq(clock.wrapping_add(self.sequence.hash(tuple) as u32))
    }

    /// All of them.
    pub fn each(&self) -> [Key; 5] {
        let Self { table, sequence, timestamp, cookie, syn_cookie } = *self;
        [table, sequence, timestamp, cookie, syn_cookie]
    }

    /// One of them becomes zero.
    #[cfg(test)]
    pub fn zero(&mut self, which: usize) {
        let Self { table, sequence, timestamp, cookie, syn_cookie } = self;
        *[table, sequence, timestamp, cookie, syn_cookie][which] = Key::new([0; 16]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_siphash_2_4() {
        // Of the reference vectors (key 00..0f, input 00 01 02 …) those of whole words.
        let mut key = [0; 16];
        key.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8);
        let key = Key::new(key);
        assert_eq!(key.hash(&[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(key.hash(&[0x0706_0504_0302_0100]), 0x93f5_f579_9a93_2462);
        // SipHash-1-3, as the standard library of Rust has it (and its test of it).
        assert_eq!(key.place(&[]), 0xabac_0158_050f_c4dc);
    }

    #[test]
    fn every_bit_of_the_seed_matters() {
        let base = Keys::new([0; 32]);
        for bit in 0..256 {
            let mut seed = [0u8; 32];
            seed[bit / 8] ^= 1 << (bit % 8);
            let other = Keys::new(seed);
            assert_ne!(base.table.hash(&[1]), other.table.hash(&[1]));
            assert_ne!(base.sequence.hash(&[1]), other.sequence.hash(&[1]));
        }
        assert_ne!(base.table.hash(&[1]), base.sequence.hash(&[1]));
    }
}

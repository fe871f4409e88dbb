//! A hash over everything that happened, to prove that a seed replays; with every line printed if somebody looks at one.

use std::cell::Cell;

use crate::frames::describe;

thread_local! {
    /// Until when every line is printed, in microseconds of virtual time.
    static NARRATED_UNTIL_US: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread prints what happens before `until_us`; `None`: nothing.
pub fn narrate(until_us: Option<u64>) {
    NARRATED_UNTIL_US.with(|n| n.set(until_us));
}

/// Bytes of a frame that are hashed: all headers, and with them the checksum over the rest.
const HASHED_BYTES: usize = 96;

/// A hash over times, places and frames.
#[derive(Debug)]
pub struct Transcript {
    name: &'static str,
    hash: u64,
    until_us: u64,
}

impl Transcript {
    /// `name` stands in front of every printed line.
    pub fn new(name: &'static str) -> Self {
        let until_us = NARRATED_UNTIL_US.with(Cell::get).unwrap_or(0);
        Self { name, hash: 0xcbf2_9ce4_8422_2325, until_us }
    }

    /// A frame passed `place` at `now_us`.
    pub fn frame(&mut self, now_us: u64, place: &str, frame: &[u8]) {
        self.word(now_us);
        self.word(frame.len() as u64);
        self.bytes(&frame[..frame.len().min(HASHED_BYTES)]);
        if now_us < self.until_us {
            println!("{:>12} us  {} {place}: {}", now_us, self.name, describe(frame));
        }
    }

    /// A number was said.
    pub fn number(&mut self, number: u64) {
        self.word(number);
    }

    /// Something was said of what is not a frame.
    pub fn note(&mut self, now_us: u64, text: &str) {
        self.word(now_us);
        self.bytes(text.as_bytes());
        if now_us < self.until_us {
            println!("{:>12} us  {} {text}", now_us, self.name);
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn word(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    /// Two words in a step, whose product has the bits of both.
    fn bytes(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<16>();
        for chunk in chunks {
            self.two_words(*chunk);
        }
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        self.two_words(last);
    }

    fn two_words(&mut self, bytes: [u8; 16]) {
        let words = u128::from_le_bytes(bytes);
        let (low, high) = (words as u64 ^ self.hash, (words >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15);
        let product = u128::from(low) * u128::from(high);
        // A factor of zero must not lose the other: the hash itself stays.
        self.hash = self.hash.rotate_left(29) ^ product as u64 ^ (product >> 64) as u64;
    }
}

//! A hash over everything that happened, to prove that a seed replays; with every line printed if asked for.

use std::cell::Cell;

use crate::frames::describe;

thread_local! {
    static VERBOSE: Cell<bool> = const { Cell::new(false) };
}

/// Whether transcripts of this thread are printed.
pub fn set_verbose(verbose: bool) {
    VERBOSE.with(|v| v.set(verbose));
}

/// FNV-1a over times, places and frames.
#[derive(Debug)]
pub struct Transcript {
    name: &'static str,
    hash: u64,
}

impl Transcript {
    /// `name` stands in front of every printed line.
    pub fn new(name: &'static str) -> Self {
        Self { name, hash: 0xcbf2_9ce4_8422_2325 }
    }

    /// A frame passed `place` at `now_us`.
    pub fn frame(&mut self, now_us: u64, place: &str, frame: &[u8]) {
        self.add(&now_us.to_le_bytes());
        self.add(place.as_bytes());
        self.add(&(frame.len() as u64).to_le_bytes());
        self.add(frame);
        if VERBOSE.with(Cell::get) {
            println!("{:>12} us  {} {place}: {}", now_us, self.name, describe(frame));
        }
    }

    /// Something was said of what is not a frame.
    pub fn note(&mut self, now_us: u64, text: &str) {
        self.add(&now_us.to_le_bytes());
        self.add(text.as_bytes());
        if VERBOSE.with(Cell::get) {
            println!("{:>12} us  {} {text}", now_us, self.name);
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

//! Streams whose every byte follows from its offset, so that no copy needs to be kept to make one or to check one.
//!
//! A stream is a window that moves along one table of random bytes, which repeats after a prime number of them: to
//! write from it is to copy, to check against it is to compare. A stream that is off by any distance below the
//! period, or by a power of two, or that is another (it begins elsewhere in the table), is found out within a few bytes.

use std::sync::OnceLock;

use toe_impair::Random;

/// A prime.
const PERIOD: u64 = 32_749;
/// The most bytes that are made or checked at once: a channel frame holds no more.
const PIECE_BYTES_MAX: usize = 65_536;

/// A stream of bytes without end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pattern {
    phase: u64,
}

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Box<[u8]>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut bytes = vec![0; PERIOD as usize];
        Random::new(0x7ab1e).fill(&mut bytes);
        bytes.iter().copied().cycle().take(PERIOD as usize + PIECE_BYTES_MAX).collect()
    })
}

impl Pattern {
    pub fn new(seed: u64) -> Self {
        Self { phase: Random::new(seed).below(PERIOD) }
    }

    /// `bytes` bytes of the stream from `offset` on; no more than 65,536.
    pub fn piece(self, offset: u64, bytes: usize) -> &'static [u8] {
        let at = ((self.phase + offset % PERIOD) % PERIOD) as usize;
        &table()[at..at + bytes]
    }

    /// Writes the stream from `offset` on into `bytes`.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        bytes.copy_from_slice(self.piece(offset, bytes.len()));
    }

    /// How many of `bytes`, which stand at `offset`, are not the stream's.
    pub fn differences(self, offset: u64, bytes: &[u8]) -> usize {
        bytes.iter().zip(self.piece(offset, bytes.len())).filter(|(a, b)| a != b).count()
    }

    /// The offset of the first of `bytes`, which stand at `offset`, that is not the stream's.
    pub fn first_difference(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let expected = self.piece(offset, bytes.len());
        if bytes == expected {
            return None;
        }
        let at = bytes.iter().zip(expected).position(|(a, b)| a != b)?;
        Some(offset + at as u64)
    }
}

//! Streams whose every byte follows from its offset, so that no copy needs to be kept to check one.

use toe_impair::Random;

/// A stream of bytes without end.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The eight bytes of block `block`.
    fn block(self, block: u64) -> [u8; 8] {
        Random::new(self.seed.wrapping_add(block.wrapping_mul(0xd129_0cb3_66b7_12c5))).bits().to_le_bytes()
    }

    /// Writes the stream from `offset` on into `bytes`.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        let mut block = self.block(offset / 8);
        for (at, byte) in (offset..).zip(bytes) {
            if at % 8 == 0 {
                block = self.block(at / 8);
            }
            *byte = block[(at % 8) as usize];
        }
    }

    /// The offset of the first of `bytes`, which stand at `offset`, that is not the stream's.
    pub fn first_difference(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut expected = vec![0; bytes.len()];
        self.fill(offset, &mut expected);
        let at = bytes.iter().zip(&expected).position(|(a, b)| a != b)?;
        Some(offset + at as u64)
    }
}

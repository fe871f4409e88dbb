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
        let first = ((8 - offset % 8) % 8).min(bytes.len() as u64) as usize;
        let (head, rest) = bytes.split_at_mut(first);
        let within = (offset % 8) as usize;
        head.copy_from_slice(&self.block(offset / 8)[within..within + first]);
        for (block, chunk) in (offset.div_ceil(8)..).zip(rest.chunks_mut(8)) {
            chunk.copy_from_slice(&self.block(block)[..chunk.len()]);
        }
    }

    /// The offset of the first of `bytes`, which stand at `offset`, that is not the stream's.
    pub fn first_difference(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut expected = vec![0; bytes.len()];
        self.fill(offset, &mut expected);
        if bytes == expected {
            return None;
        }
        let at = bytes.iter().zip(&expected).position(|(a, b)| a != b)?;
        Some(offset + at as u64)
    }
}

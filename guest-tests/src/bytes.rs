//! Bytes that both ends can make without having them from each other, and their SHA-256.

use std::io::{Read, Result, Write};

use sha2::{Digest, Sha256};

/// An endless stream of bytes that only its seed decides (SplitMix64, eight bytes a step).
#[derive(Clone, Debug)]
pub struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    /// The stream of that seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, word: [0; 8], used: 8 }
    }

    /// The next number of the stream.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero if that is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next_u64() % (bound.max(1) as u64)) as usize
    }
}

impl Read for Pattern {
    fn read(&mut self, mut buffer: &mut [u8]) -> Result<usize> {
        let length = buffer.len();
        while !buffer.is_empty() {
            if self.used == self.word.len() {
                self.word = self.next_u64().to_le_bytes();
                self.used = 0;
            }
            let n = buffer.len().min(self.word.len() - self.used);
            buffer[..n].copy_from_slice(&self.word[self.used..self.used + n]);
            self.used += n;
            buffer = &mut buffer[n..];
        }
        Ok(length)
    }
}

/// Length and SHA-256 of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sum {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, in lower-case hexadecimal.
    pub sha256: String,
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.bytes, self.sha256)
    }
}

impl Sum {
    /// Of everything that `reader` gives until its end.
    ///
    /// # Errors
    /// The reader's.
    pub fn of(reader: &mut impl Read) -> Result<Self> {
        let mut summer = Summer::default();
        std::io::copy(reader, &mut summer)?;
        Ok(summer.finish())
    }

    /// Of the first `bytes` of a [`Pattern`].
    pub fn of_pattern(seed: u64, bytes: u64) -> Self {
        let mut summer = Summer::default();
        let copied = std::io::copy(&mut Pattern::new(seed).take(bytes), &mut summer);
        debug_assert_eq!(copied.ok(), Some(bytes));
        summer.finish()
    }

    /// Finds `BYTES SHA256`, as this type prints itself, at the end of a program's output.
    pub fn parse(text: &str) -> Option<Self> {
        let (bytes, sha256) = text.trim().lines().last()?.trim().split_once(' ')?;
        Some(Self { bytes: bytes.parse().ok()?, sha256: sha256.to_owned() })
    }
}

/// Sums up what is written to it.
#[derive(Default)]
pub struct Summer {
    hash: Sha256,
    bytes: u64,
}

impl Summer {
    /// The sum of all that was written.
    pub fn finish(self) -> Sum {
        let sha256 = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Sum { bytes: self.bytes, sha256 }
    }
}

impl Write for Summer {
    fn write(&mut self, buffer: &[u8]) -> Result<usize> {
        self.hash.update(buffer);
        self.bytes += buffer.len() as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_that_of_the_standard_and_reads_what_it_prints() {
        let sum = Sum::of(&mut &b"abc"[..]).unwrap();
        assert_eq!(sum.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Sum::parse(&format!("something else\n{sum}\n")), Some(sum));
        assert_eq!(Sum::parse("nothing"), None);
    }

    #[test]
    fn a_pattern_does_not_depend_on_how_it_is_read() {
        let mut whole = vec![0; 1000];
        Pattern::new(7).read_exact(&mut whole).unwrap();
        let mut pattern = Pattern::new(7);
        let mut pieces = vec![0; 1000];
        for piece in pieces.chunks_mut(37) {
            pattern.read_exact(piece).unwrap();
        }
        assert_eq!(whole, pieces);
        assert_eq!(Sum::of_pattern(7, 1000), Sum::of(&mut &whole[..]).unwrap());
        assert_ne!(Sum::of_pattern(8, 1000), Sum::of_pattern(7, 1000));
    }
}

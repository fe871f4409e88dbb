//! Tags on payload: a CRC32C (Castagnoli's polynomial, RFC 3385) over each [`BLOCK`] bytes of a page.
//!
//! A tag is made when bytes are stored and looked at before they are handed on, to the guest or to the wire. So a byte
//! that changes while it lies on the card is never handed on: a CRC of 32 bits finds any error in no more than 32 bits in a row, and others
//! but for one in 2^32. Where a block is stored into in part, what it held is looked at first; if that is damaged, its tag is
//! made to say so, and the damage is not lost.
//!
//! A page begins with zeros, for which the tags are right as they are when memory is fresh: so tags cost no memory before pages
//! are used, but for the four bytes of each block.
//!
//! The function is table-driven, eight bytes at a time, after Kounavis and Berry (2005); its tables are computed when this is
//! compiled.

use std::ops::Range;

/// Bytes that have a tag in common. Divides every page.
pub const BLOCK: usize = 256;

const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// CRC32C of some bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let [a, b, c, d, e, f, g, h] = *word;
        let low = u32::from_le_bytes([a, b, c, d]) ^ crc;
        let [i, j, k, l] = low.to_le_bytes().map(usize::from);
        crc = TABLES[7][i]
            ^ TABLES[6][j]
            ^ TABLES[5][k]
            ^ TABLES[4][l]
            ^ TABLES[3][usize::from(e)]
            ^ TABLES[2][usize::from(f)]
            ^ TABLES[1][usize::from(g)]
            ^ TABLES[0][usize::from(h)];
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize];
    }
    !crc
}

/// The tags of all pages of a pool, if it has any.
#[derive(Debug)]
pub struct Tags {
    /// Each as its difference from that of a block of zeros.
    of_blocks: Box<[u32]>,
    zeros: u32,
}

impl Tags {
    /// For so many bytes of pages; none of them if it is not wanted.
    pub fn new(bytes: usize, wanted: bool) -> Self {
        let blocks = if wanted { bytes / BLOCK } else { 0 };
        Self { of_blocks: vec![0; blocks].into(), zeros: crc32c(&[0; BLOCK]) }
    }

    /// Whether there are any.
    pub fn are_kept(&self) -> bool {
        !self.of_blocks.is_empty()
    }

    /// A page begins anew.
    pub fn clear(&mut self, bytes: &mut [u8], page: Range<usize>) {
        if self.are_kept() {
            bytes[page.clone()].fill(0);
            self.of_blocks[page.start / BLOCK..page.end / BLOCK].fill(0);
        }
    }

    /// Whether every block that has some of these bytes is as it was stored.
    pub fn are_right(&self, bytes: &[u8], range: Range<usize>) -> bool {
        if !self.are_kept() {
            return true;
        }
        blocks(&range).all(|block| self.of_blocks[block] == self.tag(bytes, block))
    }

    /// Stores bytes that lie within one page.
    pub fn store(&mut self, bytes: &mut [u8], at: usize, new: &[u8]) {
        let range = at..at + new.len();
        if !self.are_kept() {
            return bytes[range].copy_from_slice(new);
        }
        let (first, last) = (at / BLOCK, (range.end - 1) / BLOCK);
        let is_whole = |block: usize| range.start <= block * BLOCK && (block + 1) * BLOCK <= range.end;
        let was_right = |tags: &Self, block: usize| is_whole(block) || tags.of_blocks[block] == tags.tag(bytes, block);
        let (first_right, last_right) = (was_right(self, first), was_right(self, last));
        bytes[range.clone()].copy_from_slice(new);
        for block in blocks(&range) {
            let tag = self.tag(bytes, block);
            let right = (block != first || first_right) && (block != last || last_right);
            self.of_blocks[block] = if right { tag } else { !tag };
        }
    }

    fn tag(&self, bytes: &[u8], block: usize) -> u32 {
        crc32c(&bytes[block * BLOCK..(block + 1) * BLOCK]) ^ self.zeros
    }
}

fn blocks(range: &Range<usize>) -> Range<usize> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_function_is_crc32c() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let ascending: [u8; 32] = std::array::from_fn(|i| i as u8);
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    proptest! {
        /// Whatever is stored and wherever a bit flips: what has it is known, and nothing else.
        #[test]
        fn every_flipped_bit_is_found(
            writes in proptest::collection::vec((0usize..2000, 1usize..600, any::<u8>()), 1..12),
            bit in 0usize..2048 * 8,
            later in (0usize..2000, 1usize..600),
        ) {
            let mut bytes = vec![0; 2048];
            let mut tags = Tags::new(2048, true);
            tags.clear(&mut bytes, 0..2048);
            for (at, length, value) in writes {
                let end = (at + length).min(2048);
                tags.store(&mut bytes, at, &vec![value; end - at]);
            }
            prop_assert!(tags.are_right(&bytes, 0..2048));
            bytes[bit / 8] ^= 1 << (bit % 8);
            let block = bit / 8 / BLOCK * BLOCK;
            prop_assert!(!tags.are_right(&bytes, bit / 8..bit / 8 + 1));
            prop_assert!(tags.are_right(&bytes, 0..block) && tags.are_right(&bytes, block + BLOCK..2048));
            // What is stored over it heals it if it covers the block, and does not hide it else.
            let (at, end) = (later.0, (later.0 + later.1).min(2048));
            tags.store(&mut bytes, at, &vec![1; end - at]);
            let covers = at <= block && block + BLOCK <= end;
            prop_assert_eq!(tags.are_right(&bytes, 0..2048), covers);
        }
    }

    #[test]
    fn without_tags_bytes_are_only_stored() {
        let mut bytes = vec![7; 512];
        let mut tags = Tags::new(512, false);
        tags.clear(&mut bytes, 0..512);
        tags.store(&mut bytes, 10, &[1, 2]);
        assert_eq!((bytes[9], bytes[10], bytes[12]), (7, 1, 7));
        bytes[10] ^= 1;
        assert!(tags.are_right(&bytes, 0..512));
    }
}

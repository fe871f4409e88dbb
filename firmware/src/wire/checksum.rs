//! The Internet checksum (RFC 1071).
//!
//! Its sum does not depend on the order of bytes but for a swap at the end (RFC 1071, section 2 (B)), nor on how wide the words
//! are that are added. So text is added as words of 64 bits in the processor's own order, many side by side, and without a look
//! at carries: beside the sum of the words, which wraps, goes the sum of their upper halves, which does not; that of the lower
//! halves is what the one has more than the other, modulo 2^64, and does not wrap either. Both are additions and a
//! shift, which compilers do several at a time.

use std::net::IpAddr;

/// A sum in the making: one's complement, not yet folded.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even offset.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let mut halves = if blocks.is_empty() { Halves::default() } else { sum_of_blocks(blocks) };
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            halves.add(*word);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            halves.add(last);
        }
        self.halves(halves)
    }

    /// Adds the twenty bytes of a header without options.
    #[must_use]
    pub fn header(self, header: &[u8; 20]) -> Self {
        let mut halves = Halves::default();
        let (words, rest) = header.as_chunks::<8>();
        for word in words {
            halves.add(*word);
        }
        if let &[a, b, c, d] = rest {
            halves.add([a, b, c, d, 0, 0, 0, 0]);
        }
        self.halves(halves)
    }

    fn halves(self, halves: Halves) -> Self {
        self.word(fold(halves.sum()).swap_bytes().into())
    }

    /// Adds a number of which every 16 bits are a word.
    fn word(self, word: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(word);
        Self(sum + u64::from(carry))
    }

    /// Adds the pseudo-header of a TCP segment (RFC 9293, 3.1).
    #[must_use]
    pub fn pseudo_header(self, source: IpAddr, destination: IpAddr, tcp_bytes: usize) -> Self {
        self.pseudo_header_of(super::ip::PROTOCOL_TCP, source, destination, tcp_bytes)
    }

    /// Adds the pseudo-header of any protocol's packet (RFC 8200, 8.1, for IPv6).
    #[must_use]
    pub fn pseudo_header_of(self, protocol: u8, source: IpAddr, destination: IpAddr, bytes: usize) -> Self {
        let addresses = match (source, destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => self.word(u64::from(s.to_bits()) + u64::from(d.to_bits())),
            (s, d) => {
                let v6 = |a| match a {
                    IpAddr::V4(a) => std::net::Ipv4Addr::to_ipv6_mapped(&a).octets(),
                    IpAddr::V6(a) => a.octets(),
                };
                self.bytes(&v6(s)).bytes(&v6(d))
            }
        };
        addresses.word(u64::from(protocol) + bytes as u64)
    }

    /// The checksum field that makes what was summed right.
    pub fn finish(self) -> u16 {
        !fold(self.0)
    }

    /// Whether what was summed, checksum field included, is right.
    pub fn is_right(self) -> bool {
        self.finish() == 0
    }
}

/// The one's complement sum of the four words in one.
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// Bytes of a block of text.
const BLOCK: usize = 64;

/// Sums of 64-bit words: of the words, modulo 2^64, and of their upper halves.
#[derive(Clone, Copy, Default, Debug)]
struct Halves {
    words: u64,
    upper: u64,
}

impl Halves {
    fn add(&mut self, word: [u8; 8]) {
        let word = u64::from_le_bytes(word);
        self.words = self.words.wrapping_add(word);
        self.upper += word >> 32;
    }

    /// The sum of all lower and upper halves: no more words than a packet has can let it wrap.
    fn sum(self) -> u64 {
        self.words.wrapping_sub(self.upper << 32).wrapping_add(self.upper)
    }
}

/// Each of a block's eight words has sums of its own.
fn sum_of_blocks(blocks: &[[u8; BLOCK]]) -> Halves {
    let (mut words, mut upper) = ([0u64; BLOCK / 8], [0u64; BLOCK / 8]);
    for block in blocks {
        let (of_block, _) = block.as_chunks::<8>();
        for ((words, upper), word) in words.iter_mut().zip(&mut upper).zip(of_block) {
            let word = u64::from_le_bytes(*word);
            *words = words.wrapping_add(word);
            *upper += word >> 32;
        }
    }
    let words = words.into_iter().fold(0, u64::wrapping_add);
    Halves { words, upper: upper.into_iter().sum() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, section 1, to the letter.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_rfcs_example() {
        // RFC 1071, section 3.
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn the_longest_packet_of_ones_and_every_header_is_summed() {
        for (byte, length) in [(0xff, 65_535), (0xff, 65_534), (0xfe, 65_535), (0x01, 4096)] {
            let bytes = vec![byte; length];
            assert_eq!(Sum::default().bytes(&bytes).finish(), slow(&bytes), "{byte} {length}");
        }
        for bit in 0..160 {
            let mut header = [0x5a; 20];
            header[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Sum::default().header(&header).finish(), slow(&header), "{bit}");
        }
    }

    proptest! {
        #[test]
        fn fast_is_slow(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::default().bytes(&bytes).finish(), slow(&bytes));
        }

        #[test]
        fn a_sum_goes_on_where_another_ended(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
            let (first, second) = bytes.split_at((at & !1).min(bytes.len() & !1));
            prop_assert_eq!(Sum::default().bytes(first).bytes(second).finish(), slow(&bytes));
        }

        #[test]
        fn one_wrong_bit_is_seen(mut bytes in proptest::collection::vec(any::<u8>(), 2..100), bit: usize) {
            let sum = slow(&bytes);
            bytes.resize(bytes.len().next_multiple_of(2), 0);
            bytes.extend(sum.to_be_bytes());
            prop_assert!(Sum::default().bytes(&bytes).is_right());
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!Sum::default().bytes(&bytes).is_right());
        }
    }
}

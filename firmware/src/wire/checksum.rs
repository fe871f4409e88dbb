//! The Internet checksum (RFC 1071).
//!
//! Its sum does not depend on the order of bytes but for a swap at the end (RFC 1071, section 2 (B)), nor on how wide the words
//! are that are added. So text is added in four sums of 64-bit words side by side, in the processor's own order, whose carries
//! are kept in an upper half of their own: no addition waits for the one before it.

use std::net::IpAddr;

/// A sum in the making: one's complement, not yet folded.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even offset.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut sums = [0u128; 4];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (sum, word) in sums.iter_mut().zip(words) {
                *sum += u128::from(u64::from_le_bytes(*word));
            }
        }
        let (words, rest) = rest.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum += u128::from(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            sums[3] += u128::from(u64::from_le_bytes(last));
        }
        let [a, b, c, d] = sums;
        let sum = a + b + c + d;
        let swapped = u64::from(fold((sum >> 64) as u64 + u64::from(fold(sum as u64))).swap_bytes());
        self.word(swapped)
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

    proptest! {
        #[test]
        fn fast_is_slow(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Sum::default().bytes(&bytes).finish(), slow(&bytes));
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

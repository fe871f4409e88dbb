//! The Internet checksum (RFC 1071), eight bytes at a time.

use std::net::IpAddr;

/// A sum in the making: one's complement, not yet folded.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even offset.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut sum = self.0;
        let mut add = |word: u64| {
            let (s, carry) = sum.overflowing_add(word);
            sum = s + u64::from(carry);
        };
        let mut words = bytes.chunks_exact(8);
        for w in &mut words {
            add(u64::from_be_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            add(u64::from_be_bytes(last));
        }
        Self(sum)
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
            (IpAddr::V4(s), IpAddr::V4(d)) => self.bytes(&s.octets()).bytes(&d.octets()),
            (s, d) => {
                let v6 = |a| match a {
                    IpAddr::V4(a) => std::net::Ipv4Addr::to_ipv6_mapped(&a).octets(),
                    IpAddr::V6(a) => a.octets(),
                };
                self.bytes(&v6(s)).bytes(&v6(d))
            }
        };
        addresses.bytes(&[0, protocol]).bytes(&(bytes as u32).to_be_bytes())
    }

    /// The checksum field that makes what was summed right.
    pub fn finish(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    /// Whether what was summed, checksum field included, is right.
    pub fn is_right(self) -> bool {
        self.finish() == 0
    }
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

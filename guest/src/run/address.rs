//! Socket addresses as a program writes and reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use toe_abi::Endpoint;

const IPV4_BYTES: usize = 16;
const IPV6_BYTES: usize = 28;
/// The shortest `sockaddr_in6` that the kernel takes: without the scope.
const IPV6_BYTES_MIN: usize = 24;

/// What a `struct sockaddr` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// AF_UNSPEC: the connection is to be dissolved.
    Unspecified,
    /// Anything else; the kernel has an error for it.
    Other,
}

impl Address {
    /// From its bytes.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| [bytes[at], bytes[at + 1]];
        if bytes.len() < 2 {
            return Self::Other;
        }
        match i32::from(u16::from_ne_bytes(word(0))) {
            libc::AF_UNSPEC => Self::Unspecified,
            libc::AF_INET if bytes.len() >= IPV4_BYTES => {
                let ip = Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]);
                Self::Ip(SocketAddr::new(ip.into(), u16::from_be_bytes(word(2))))
            }
            libc::AF_INET6 if bytes.len() >= IPV6_BYTES_MIN => {
                let mut octets = [0; 16];
                octets.copy_from_slice(&bytes[8..24]);
                Self::Ip(SocketAddr::new(Ipv6Addr::from(octets).into(), u16::from_be_bytes(word(2))))
            }
            _ => Self::Other,
        }
    }
}

/// The bytes of an address for a socket of this family: an IPv4 address on an IPv6 socket is mapped.
pub(super) fn bytes(endpoint: Endpoint, is_ipv6: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(IPV6_BYTES);
    let family = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    out.extend((family as u16).to_ne_bytes());
    out.extend(endpoint.port.to_be_bytes());
    match (endpoint.ip, is_ipv6) {
        (IpAddr::V4(ip), false) => out.extend(ip.octets()),
        (IpAddr::V6(ip), false) => out.extend(ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED).octets()),
        (ip, true) => {
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            out.extend([0; 4]);
            out.extend(ip.octets());
        }
    }
    out.resize(if is_ipv6 { IPV6_BYTES } else { IPV4_BYTES }, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_went() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let written = bytes(address.into(), address.is_ipv6());
            assert_eq!(Address::parse(&written), Address::Ip(address));
        }
        let v4: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(Address::parse(&bytes(v4.into(), true)), Address::Ip(mapped));
    }

    #[test]
    fn short_and_foreign_addresses_are_the_kernels() {
        let whole = bytes("192.0.2.1:80".parse::<SocketAddr>().unwrap().into(), false);
        for n in 0..whole.len() {
            assert_eq!(Address::parse(&whole[..n]), Address::Other, "{n} bytes");
        }
        assert_eq!(Address::parse(&[1, 0, b'/', 0]), Address::Other);
        assert_eq!(Address::parse(&[0, 0]), Address::Unspecified);
        let v6 = bytes("[2001:db8::1]:1".parse::<SocketAddr>().unwrap().into(), true);
        assert_eq!(Address::parse(&v6[..23]), Address::Other);
        assert_ne!(Address::parse(&v6[..24]), Address::Other);
    }
}

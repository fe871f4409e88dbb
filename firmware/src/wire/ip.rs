//! IPv4 and IPv6 headers, as far as a TCP endpoint behind somebody else's IP layer needs them.
//!
//! The guest's kernel is the host's IP layer; the card only has to know which packets are segments of its own. So
//! [`find_tcp`] answers one question: is there a whole TCP segment in this packet, and where?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;

/// IP's protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;

/// IP's protocol number of ICMP for IPv4.
pub const PROTOCOL_ICMP: u8 = 1;

/// IP's protocol number of ICMP for IPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// EtherType of IPv4.
pub const ETHERTYPE_V4: u16 = 0x0800;

/// EtherType of IPv6.
pub const ETHERTYPE_V6: u16 = 0x86dd;

/// Bytes of an IPv4 header without options.
pub const V4_HEADER_BYTES: usize = 20;

/// Bytes of an IPv6 header without extensions.
pub const V6_HEADER_BYTES: usize = 40;

/// Extension headers that are skipped before a packet is left to the guest's kernel.
const EXTENSION_HEADERS_MAX: usize = 8;

/// The congestion bits of the type-of-service or traffic-class octet (RFC 3168, section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ecn(pub u8);

impl Ecn {
    /// ECT(0): the transport knows ECN.
    pub const CAPABLE: Self = Self(0b10);
    /// CE: congestion experienced.
    pub const MARKED: Self = Self(0b11);
}

/// Where a TCP segment lies in a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Located<'a> {
    /// From whom.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// TCP header and text: exactly what IP's length says.
    pub tcp: &'a [u8],
    /// Whether this is the first fragment of a longer packet: `tcp` is then not whole.
    pub fragment: bool,
    /// Congestion bits.
    pub ecn: Ecn,
}

/// Why there is no segment in a packet that the card could own: the guest's kernel is to judge it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// Not IP, or not TCP.
    Other,
    /// Lengths, version or header checksum make no sense.
    Malformed,
    /// Not the first fragment: it shows no ports.
    Fragment,
    /// Behind an extension header that is unknown or not to be passed over, or behind too many.
    Extension,
}

/// Finds the TCP segment in the packet behind an Ethernet header.
///
/// # Errors
/// See [`Foreign`].
pub fn find_tcp(ethertype: u16, packet: &[u8]) -> Result<Located<'_>, Foreign> {
    match ethertype {
        ETHERTYPE_V4 => find_v4(packet, PROTOCOL_TCP),
        ETHERTYPE_V6 => find_v6(packet, PROTOCOL_TCP),
        _ => Err(Foreign::Other),
    }
}

/// Finds the ICMP message (of the packet's own family) in the packet behind an Ethernet header: source, destination
/// and message. `None`: there is none, or not the whole of it.
pub fn find_icmp(ethertype: u16, packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let found = match ethertype {
        ETHERTYPE_V4 => find_v4(packet, PROTOCOL_ICMP),
        ETHERTYPE_V6 => find_v6(packet, PROTOCOL_ICMPV6),
        _ => return None,
    };
    found.ok().filter(|f| !f.fragment).map(|f| (f.source, f.destination, f.tcp))
}

fn find_v4(packet: &[u8], protocol: u8) -> Result<Located<'_>, Foreign> {
    if packet.len() < V4_HEADER_BYTES || packet[0] >> 4 != 4 {
        return Err(Foreign::Malformed);
    }
    let header_bytes = usize::from(packet[0] & 0xf) * 4;
    let total = usize::from(be16(packet, 2));
    // Beyond the total length there is Ethernet padding. A super-frame of just 64 KiB may say zero, as Linux's
    // "big TCP" does; the guest did not ask for those.
    if header_bytes < V4_HEADER_BYTES || total < header_bytes || total > packet.len() {
        return Err(Foreign::Malformed);
    }
    let fragment_field = be16(packet, 6);
    if packet[9] != protocol {
        return Err(Foreign::Other);
    }
    let sum = match packet.first_chunk() {
        Some(header) if header_bytes == V4_HEADER_BYTES => Sum::default().header(header),
        _ => Sum::default().bytes(&packet[..header_bytes]),
    };
    if !sum.is_right() {
        return Err(Foreign::Malformed);
    }
    if fragment_field & 0x1fff != 0 {
        return Err(Foreign::Fragment);
    }
    Ok(Located {
        source: v4(packet, 12),
        destination: v4(packet, 16),
        //= docs/specs/rfc9293.txt#section-3.9.2
        //# When received options are passed up to TCP from the IP layer, a TCP implementation MUST ignore options
        //# that it does not understand (MUST-50).
        tcp: &packet[header_bytes..total],
        fragment: fragment_field & 0x2000 != 0,
        ecn: Ecn(packet[1] & 3),
    })
}

fn find_v6(packet: &[u8], protocol: u8) -> Result<Located<'_>, Foreign> {
    if packet.len() < V6_HEADER_BYTES || packet[0] >> 4 != 6 {
        return Err(Foreign::Malformed);
    }
    let mut rest = packet[V6_HEADER_BYTES..].get(..usize::from(be16(packet, 4))).ok_or(Foreign::Malformed)?;
    let mut next = packet[6];
    let mut fragment = false;
    for _ in 0..EXTENSION_HEADERS_MAX {
        let skip = match next {
            p if p == protocol => {
                return Ok(Located {
                    source: v6(packet, 8),
                    destination: v6(packet, 24),
                    tcp: rest,
                    fragment,
                    ecn: Ecn(packet[1] >> 4 & 3),
                });
            }
            // Hop-by-hop and destination options (RFC 8200, 4.3 and 4.6).
            0 | 60 => extension_bytes(rest)?,
            // A routing header that has been used up (4.4).
            43 if *rest.get(3).ok_or(Foreign::Malformed)? == 0 => extension_bytes(rest)?,
            // A fragment header (4.5): only the first fragment shows its ports; one that is also the last is whole.
            44 => {
                let field = be16(rest.get(..8).ok_or(Foreign::Malformed)?, 2);
                if field & 0xfff8 != 0 {
                    return Err(Foreign::Fragment);
                }
                fragment |= field & 1 != 0;
                8
            }
            _ if is_extension(next) => return Err(Foreign::Extension),
            _ => return Err(Foreign::Other),
        };
        next = *rest.first().ok_or(Foreign::Malformed)?;
        rest = rest.get(skip..).ok_or(Foreign::Malformed)?;
    }
    Err(Foreign::Extension)
}

/// The length of an extension header by its own account (RFC 8200, 4.2), in bytes.
fn extension_bytes(rest: &[u8]) -> Result<usize, Foreign> {
    rest.get(1).map(|units| (usize::from(*units) + 1) * 8).ok_or(Foreign::Malformed)
}

/// Whether a next-header value is an extension header (IANA's list) that may stand in front of a segment.
fn is_extension(next: u8) -> bool {
    matches!(next, 43 | 50 | 51 | 135 | 139 | 140 | 253 | 254)
}

/// Whether an address can be one end of a connection on the wire: not unspecified, multicast, the limited broadcast, or
/// loopback (RFC 9293, 3.9.1.1 and 3.9.2.3; RFC 1122, 3.2.1.3). Subnet broadcasts only the guest's kernel knows.
pub fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => !(a.is_unspecified() || a.is_multicast() || a.is_broadcast() || a.is_loopback()),
        IpAddr::V6(a) => !(a.is_unspecified() || a.is_multicast() || a.is_loopback()),
    }
}

/// What the card puts into an IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// From whom.
    pub source: IpAddr,
    /// To whom, of the same family.
    pub destination: IpAddr,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// Type of service or traffic class, congestion bits included.
    pub traffic_class: u8,
}

impl Header {
    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        match self.source {
            IpAddr::V4(_) => V4_HEADER_BYTES,
            IpAddr::V6(_) => V6_HEADER_BYTES,
        }
    }

    /// The EtherType of its family.
    pub fn ethertype(&self) -> u16 {
        match self.source {
            IpAddr::V4(_) => ETHERTYPE_V4,
            IpAddr::V6(_) => ETHERTYPE_V6,
        }
    }

    /// Writes it in front of `payload_bytes` of TCP; `b` begins where the header does.
    pub fn write(&self, b: &mut [u8], payload_bytes: usize) {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                b[0] = 0x45;
                b[1] = self.traffic_class;
                b[2..4].copy_from_slice(&((V4_HEADER_BYTES + payload_bytes) as u16).to_be_bytes());
                // Never fragmented, so the identification says nothing (RFC 6864, 4.1).
                //= docs/specs/rfc9293.txt#section-3.8.1
                //# RFC 1122 allows that if a retransmitted packet is identical to the original packet (which
                //# implies not only that the data boundaries have not changed, but also that none of the headers
                //# have changed), then the same IPv4 Identification field MAY be used (see Section 3.2.1.5 of RFC
                //# 1122) (MAY-4).
                b[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
                b[8..12].copy_from_slice(&[self.hop_limit, PROTOCOL_TCP, 0, 0]);
                b[12..16].copy_from_slice(&source.octets());
                b[16..20].copy_from_slice(&destination.octets());
                let sum = b.first_chunk().map_or(0, |header| Sum::default().header(header).finish());
                b[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                b[0] = 0x60 | self.traffic_class >> 4;
                b[1] = self.traffic_class << 4;
                b[2..4].fill(0);
                b[4..6].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
                b[6..8].copy_from_slice(&[PROTOCOL_TCP, self.hop_limit]);
                b[8..24].copy_from_slice(&source.octets());
                b[24..40].copy_from_slice(&destination.octets());
            }
            // A 4-tuple of mixed families is refused when it is made.
            _ => {}
        }
    }
}

pub(super) fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

pub(super) fn v4(b: &[u8], at: usize) -> IpAddr {
    Ipv4Addr::new(b[at], b[at + 1], b[at + 2], b[at + 3]).into()
}

pub(super) fn v6(b: &[u8], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&b[at..at + 16]);
    Ipv6Addr::from(octets).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(source: &str, destination: &str) -> Header {
        Header {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            hop_limit: 64,
            traffic_class: 0xba,
        }
    }

    fn packet(h: &Header, tcp: &[u8]) -> Vec<u8> {
        let mut b = vec![0; h.bytes() + tcp.len()];
        h.write(&mut b, tcp.len());
        b[h.bytes()..].copy_from_slice(tcp);
        b
    }

    #[test]
    fn what_is_written_is_found() {
        for h in [header("192.0.2.1", "192.0.2.2"), header("2001:db8::1", "2001:db8::2")] {
            let mut p = packet(&h, b"segment");
            // Ethernet padding is not TCP's.
            p.extend([0; 5]);
            let found = find_tcp(h.ethertype(), &p).unwrap();
            assert_eq!(
                found,
                Located { source: h.source, destination: h.destination, tcp: b"segment", fragment: false, ecn: Ecn(2) }
            );
        }
    }

    //= docs/specs/rfc9293.txt#section-3.9.2
    //= type=test
    //# When received options are passed up to TCP from the IP layer, a TCP implementation MUST ignore options that
    //# it does not understand (MUST-50).
    #[test]
    fn options_and_extension_headers_are_skipped() {
        let h = header("192.0.2.1", "192.0.2.2");
        let mut p = packet(&h, b"\x01\x01\x01\x00segment");
        p[0] = 0x46;
        p[10..12].fill(0);
        let sum = Sum::default().bytes(&p[..24]).finish();
        p[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(find_tcp(ETHERTYPE_V4, &p).unwrap().tcp, b"segment");

        let h = header("2001:db8::1", "2001:db8::2");
        let extensions = [60, 0, 1, 4, 0, 0, 0, 0, 43, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 0, 9, 9, 9, 9];
        let mut p = packet(&h, &[&extensions[..], b"segment"].concat());
        p[6] = 0;
        assert_eq!(find_tcp(ETHERTYPE_V6, &p).unwrap().tcp, b"segment");
        // A routing header with a way still to go is not for this host.
        p[40 + 16 + 3] = 1;
        assert_eq!(find_tcp(ETHERTYPE_V6, &p), Err(Foreign::Extension));
    }

    #[test]
    fn the_first_fragment_is_marked_and_later_ones_are_not_found() {
        let h = header("192.0.2.1", "192.0.2.2");
        let with = |field: [u8; 2]| {
            let mut p = packet(&h, b"segment");
            p[6..8].copy_from_slice(&field);
            p[10..12].fill(0);
            let sum = Sum::default().bytes(&p[..20]).finish();
            p[10..12].copy_from_slice(&sum.to_be_bytes());
            p
        };
        assert!(find_tcp(ETHERTYPE_V4, &with([0x20, 0])).unwrap().fragment);
        assert_eq!(find_tcp(ETHERTYPE_V4, &with([0x20, 1])), Err(Foreign::Fragment));

        let h = header("2001:db8::1", "2001:db8::2");
        let with = |field: [u8; 2]| {
            let mut p = packet(&h, &[&[6, 0, field[0], field[1], 1, 2, 3, 4], &b"segment"[..]].concat());
            p[6] = 44;
            p
        };
        assert!(find_tcp(ETHERTYPE_V6, &with([0, 1])).unwrap().fragment);
        assert!(!find_tcp(ETHERTYPE_V6, &with([0, 0])).unwrap().fragment);
        assert_eq!(find_tcp(ETHERTYPE_V6, &with([0, 8])), Err(Foreign::Fragment));
    }

    #[test]
    fn a_wrong_header_is_left_to_the_guest() {
        let h = header("192.0.2.1", "192.0.2.2");
        let good = packet(&h, b"segment");
        for (at, value) in [(0, 0x55), (0, 0x44), (3, 19), (3, 100), (10, 0)] {
            let mut p = good.clone();
            p[at] = value;
            assert_eq!(find_tcp(ETHERTYPE_V4, &p), Err(Foreign::Malformed), "byte {at} as {value:#x}");
        }
        for length in 0..27 {
            assert_eq!(find_tcp(ETHERTYPE_V4, &good[..length]), Err(Foreign::Malformed));
        }
        let mut udp = good.clone();
        udp[9] = 17;
        assert_eq!(find_tcp(ETHERTYPE_V4, &udp), Err(Foreign::Other));
        assert_eq!(find_tcp(0x0806, &good), Err(Foreign::Other));
    }

    #[test]
    fn addresses_that_cannot_be_an_end_of_a_connection() {
        for text in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "239.1.2.3", "127.0.0.1", "::", "ff02::1", "::1"] {
            assert!(!is_unicast(text.parse().unwrap()), "{text}");
        }
        for text in ["192.0.2.1", "2001:db8::1", "fe80::1"] {
            assert!(is_unicast(text.parse().unwrap()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_packet_is_read(mut p in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
            if let Some(first) = p.first_mut() {
                *first = if v6 { 0x60 } else { 0x40 | *first & 0xf };
            }
            if v6 && p.len() > 6 {
                p[4] = 0;
                p[6] = [0, 6, 43, 44, 60][usize::from(p[6]) % 5];
            }
            if let Ok(found) = find_tcp(if v6 { ETHERTYPE_V6 } else { ETHERTYPE_V4 }, &p) {
                prop_assert!(found.tcp.len() <= p.len());
            }
        }
    }
}

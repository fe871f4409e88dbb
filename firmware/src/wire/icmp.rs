//! ICMP errors (RFC 792; 4443), as far as they are about a segment of ours.
//!
//! An error quotes the packet that caused it: its IP header and at least the first eight octets behind that, which for
//! TCP are the ports and the sequence number. [`find`] reads no more than that. Everything else in ICMP, queries among
//! it, is the guest's kernel's.
//!
//! Which error means what follows RFC 9293, 3.9.2.2, and for the codes that it does not name RFC 1122, 3.2.2.1, and
//! RFC 5461, 2: what may pass is soft.

use std::net::IpAddr;

use toe_abi::Reason;

use super::checksum::Sum;
use super::ip::{self, ETHERTYPE_V4, PROTOCOL_ICMPV6, PROTOCOL_TCP, V4_HEADER_BYTES, V6_HEADER_BYTES};
use crate::seq::Seq;

/// Octets before the quoted packet.
const ICMP_HEADER_BYTES: usize = 8;

/// Octets of the quoted segment that every router must quote.
const QUOTED_BYTES: usize = 8;

/// What an error means to TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Source quench: to be discarded in silence (MUST-55).
    SourceQuench,
    /// It may pass (MUST-56: the connection goes on).
    Soft(Reason),
    /// It will hardly pass (SHLD-26).
    Hard(Reason),
    /// The packet did not fit into a link of this MTU; zero if the router did not say (RFC 1191, section 4).
    TooBig {
        /// In bytes.
        mtu: u32,
    },
}

/// An error about a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// What it means.
    pub kind: Kind,
    /// Of the quoted packet: from whom.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// From which port.
    pub source_port: u16,
    /// To which.
    pub destination_port: u16,
    /// SEG.SEQ.
    pub seq: Seq,
    /// How long the packet was, in bytes, IP header included.
    pub packet_bytes: u32,
}

/// Finds the error in the packet behind an Ethernet header. `None`: it is none, or none about a TCP segment that the
/// packet's receiver has sent, or it is damaged; the guest's kernel is to judge it.
pub fn find(ethertype: u16, packet: &[u8]) -> Option<IcmpError> {
    let (from, to, message) = ip::find_icmp(ethertype, packet)?;
    let v4 = ethertype == ETHERTYPE_V4;
    let sum =
        if v4 { Sum::default() } else { Sum::default().pseudo_header_of(PROTOCOL_ICMPV6, from, to, message.len()) };
    if message.len() < ICMP_HEADER_BYTES || !sum.bytes(message).is_right() {
        return None;
    }
    let (header, quoted) = message.split_at(ICMP_HEADER_BYTES);
    let kind = if v4 { kind_v4(header) } else { kind_v6(header) }?;
    let error = if v4 { quoted_v4(kind, quoted) } else { quoted_v6(kind, quoted) }?;
    // Only its sender can have been told.
    (error.source == to).then_some(error)
}

/// RFC 792, and RFC 1191 for the MTU.
fn kind_v4(header: &[u8]) -> Option<Kind> {
    Some(match (header[0], header[1]) {
        (3, 0 | 6 | 11) => Kind::Soft(Reason::NetworkUnreachable),
        (3, 1 | 7 | 8 | 12) => Kind::Soft(Reason::HostUnreachable),
        (3, 2) => Kind::Hard(Reason::ProtocolUnreachable),
        (3, 3) => Kind::Hard(Reason::PortUnreachable),
        (3, 4) => Kind::TooBig { mtu: ip::be16(header, 6).into() },
        (3, 5) => Kind::Soft(Reason::SourceRoute),
        (3, _) => Kind::Soft(Reason::Prohibited),
        (4, _) => Kind::SourceQuench,
        (11, _) => Kind::Soft(Reason::TimeExceeded),
        (12, _) => Kind::Soft(Reason::ParameterProblem),
        _ => return None,
    })
}

/// RFC 4443.
fn kind_v6(header: &[u8]) -> Option<Kind> {
    Some(match (header[0], header[1]) {
        (1, 0) => Kind::Soft(Reason::NetworkUnreachable),
        (1, 1 | 5) => Kind::Soft(Reason::Prohibited),
        (1, 4) => Kind::Hard(Reason::PortUnreachable),
        (1, _) => Kind::Soft(Reason::HostUnreachable),
        (2, _) => Kind::TooBig { mtu: u32::from_be_bytes([header[4], header[5], header[6], header[7]]) },
        (3, _) => Kind::Soft(Reason::TimeExceeded),
        (4, _) => Kind::Soft(Reason::ParameterProblem),
        _ => return None,
    })
}

fn quoted_v4(kind: Kind, b: &[u8]) -> Option<IcmpError> {
    if b.len() < V4_HEADER_BYTES || b[0] >> 4 != 4 {
        return None;
    }
    let header_bytes = usize::from(b[0] & 0xf) * 4;
    let later_fragment = ip::be16(b, 6) & 0x1fff != 0;
    if header_bytes < V4_HEADER_BYTES || b[9] != PROTOCOL_TCP || later_fragment {
        return None;
    }
    let (source, destination) = (ip::v4(b, 12), ip::v4(b, 16));
    segment(kind, source, destination, ip::be16(b, 2).into(), b.get(header_bytes..)?)
}

/// The card sends no extension headers, so none are skipped.
fn quoted_v6(kind: Kind, b: &[u8]) -> Option<IcmpError> {
    if b.len() < V6_HEADER_BYTES || b[0] >> 4 != 6 || b[6] != PROTOCOL_TCP {
        return None;
    }
    let packet_bytes = V6_HEADER_BYTES as u32 + u32::from(ip::be16(b, 4));
    segment(kind, ip::v6(b, 8), ip::v6(b, 24), packet_bytes, &b[V6_HEADER_BYTES..])
}

fn segment(kind: Kind, source: IpAddr, destination: IpAddr, packet_bytes: u32, tcp: &[u8]) -> Option<IcmpError> {
    let b = tcp.first_chunk::<QUOTED_BYTES>()?;
    Some(IcmpError {
        kind,
        source,
        destination,
        source_port: ip::be16(b, 0),
        destination_port: ip::be16(b, 2),
        seq: Seq(u32::from_be_bytes([b[4], b[5], b[6], b[7]])),
        packet_bytes,
    })
}

/// An error about `packet`, which `to` had sent, as a router at `from` would send it; from the IP header on.
#[cfg(test)]
pub fn about(packet: &[u8], from: IpAddr, to: IpAddr, header: [u8; ICMP_HEADER_BYTES]) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(200)];
    let mut message = [&header[..], quoted].concat();
    message[2..4].fill(0);
    let v4 = from.is_ipv4();
    let sum =
        if v4 { Sum::default() } else { Sum::default().pseudo_header_of(PROTOCOL_ICMPV6, from, to, message.len()) };
    let sum = sum.bytes(&message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let ip = ip::Header { source: from, destination: to, hop_limit: 60, traffic_class: 0 };
    let mut b = vec![0; ip.bytes()];
    ip.write(&mut b, message.len());
    if v4 {
        b[9] = ip::PROTOCOL_ICMP;
        b[10..12].fill(0);
        let sum = Sum::default().bytes(&b).finish();
        b[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        b[6] = PROTOCOL_ICMPV6;
    }
    b.extend(message);
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::ETHERTYPE_V6;
    use proptest::prelude::*;

    fn packet(source: &str, destination: &str) -> (IpAddr, Vec<u8>) {
        let source = source.parse().unwrap();
        let header = ip::Header { source, destination: destination.parse().unwrap(), hop_limit: 64, traffic_class: 0 };
        let mut b = vec![0; header.bytes()];
        header.write(&mut b, 1000);
        b.extend([0x9c, 0x40, 0, 80, 1, 2, 3, 4]);
        (source, b)
    }

    #[test]
    fn the_quoted_segment_is_found() {
        for (ethertype, router, us, peer) in [
            (ETHERTYPE_V4, "192.0.2.77", "192.0.2.2", "192.0.2.1"),
            (ETHERTYPE_V6, "2001:db8::77", "2001:db8::2", "2001:db8::1"),
        ] {
            let (source, quoted) = packet(us, peer);
            let header = if ethertype == ETHERTYPE_V4 { [3, 4, 0, 0, 0, 0, 2, 3] } else { [2, 0, 0, 0, 0, 0, 2, 3] };
            let b = about(&quoted, router.parse().unwrap(), source, header);
            let error = find(ethertype, &b).unwrap();
            assert_eq!((error.source, error.destination), (source, peer.parse().unwrap()));
            assert_eq!((error.source_port, error.destination_port, error.seq), (40_000, 80, Seq(0x0102_0304)));
            assert_eq!(
                (error.kind, error.packet_bytes as usize),
                (Kind::TooBig { mtu: 0x203 }, quoted.len() - 8 + 1000)
            );
            // Damaged, too short for the sequence number, about somebody else's packet, or about another protocol's.
            let at = b.len() - 1;
            let mut damaged = b.clone();
            damaged[at] ^= 1;
            assert_eq!(find(ethertype, &damaged), None);
            let short = about(&quoted[..quoted.len() - 1], router.parse().unwrap(), source, header);
            assert_eq!(find(ethertype, &short), None);
            let other = about(&quoted, router.parse().unwrap(), peer.parse().unwrap(), header);
            assert_eq!(find(ethertype, &other), None);
            let mut udp = quoted.clone();
            udp[if ethertype == ETHERTYPE_V4 { 9 } else { 6 }] = 17;
            assert_eq!(find(ethertype, &about(&udp, router.parse().unwrap(), source, header)), None);
        }
    }

    #[test]
    fn errors_by_type_and_code() {
        let of = |header: [u8; 2], v4: bool| {
            let header = [header[0], header[1], 0, 0, 0, 0, 5, 0xdc];
            if v4 { kind_v4(&header) } else { kind_v6(&header) }
        };
        // RFC 9293, 3.9.2.2.
        for code in [0, 1, 5] {
            assert!(matches!(of([3, code], true), Some(Kind::Soft(_))), "{code}");
        }
        for (kind, code) in [(11, 0), (11, 1), (12, 0)] {
            assert!(matches!(of([kind, code], true), Some(Kind::Soft(_))), "{kind}");
        }
        for code in [2, 3] {
            assert!(matches!(of([3, code], true), Some(Kind::Hard(_))), "{code}");
        }
        assert_eq!(of([3, 4], true), Some(Kind::TooBig { mtu: 1500 }));
        assert_eq!(of([4, 0], true), Some(Kind::SourceQuench));
        for (kind, code) in [(1, 0), (1, 3), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2)] {
            assert!(matches!(of([kind, code], false), Some(Kind::Soft(_))), "{kind} {code}");
        }
        assert!(matches!(of([1, 4], false), Some(Kind::Hard(_))));
        for (query, v4) in [(0, true), (5, true), (8, true), (128, false), (134, false), (135, false)] {
            assert_eq!(of([query, 0], v4), None);
        }
    }

    proptest! {
        #[test]
        fn any_message_is_read(b in proptest::collection::vec(any::<u8>(), 0..80), v6: bool, too_big: bool) {
            let (from, to) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
            let (kind, code) = match (v6, too_big) { (true, true) => (2, 0), (true, false) => (1, 0), (_, big) => (3, 4 * u8::from(big)) };
            let packet = about(&b, from.parse().unwrap(), to.parse().unwrap(), [kind, code, 0, 0, 0, 0, 0, 0]);
            find(if v6 { ETHERTYPE_V6 } else { ETHERTYPE_V4 }, &packet);
        }
    }
}

//! What a host does with a segment that is for no connection: the states CLOSED and LISTEN.
//!
//! The card takes what belongs to its connections, and SYNs for its listeners; all else is for the stack behind it. Where
//! there is none ([`crate::Station`], a script that plays against the firmware alone), a peer would wait for ever for a
//! port that nobody has, so that this stands in for it: a TCP segment for which there is no connection is answered with a
//! reset (RFC 9293, 3.5.2, group 1, and 3.10.7.1). At the port of a listener the rules of LISTEN hold instead (group 2, and
//! 3.10.7.2): what acknowledges something is reset, and all else dropped; a SYN is there only because the card had no room
//! for it, and its sender shall ask again. What has a wrong checksum, is fragmented or has extension headers, is
//! dropped, as a kernel without a socket would not look at it further for lack of a port.
//!
//! It keeps nothing: one segment in, at most one reset out, and a reset is never answered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::checksum;

const TCP: u8 = 6;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const TCP_HEADER_BYTES: usize = 20;

/// The reset that answers `packet` (IP header first), if one does. `listens`: whether there is a listener at an address
/// and port.
pub fn answer(packet: &[u8], listens: impl FnOnce(IpAddr, u16) -> bool) -> Option<Vec<u8>> {
    let (source, destination, tcp) = locate(packet)?;
    if tcp.len() < TCP_HEADER_BYTES
        || checksum::with_pseudo_header(source, destination, TCP, tcp) != 0
        || is_group(source)
        || is_group(destination)
    {
        return None;
    }
    let header_bytes = usize::from(tcp[12] >> 4) * 4;
    let text_bytes = tcp.len().checked_sub(header_bytes.max(TCP_HEADER_BYTES))?;
    let flags = tcp[13];
    let port = u16::from_be_bytes([tcp[2], tcp[3]]);
    if flags & RST != 0 || (flags & ACK == 0 && listens(destination, port)) {
        return None;
    }
    let length = text_bytes as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let mut reset = [0; TCP_HEADER_BYTES];
    reset[..2].copy_from_slice(&tcp[2..4]);
    reset[2..4].copy_from_slice(&tcp[..2]);
    if flags & ACK != 0 {
        reset[4..8].copy_from_slice(&tcp[8..12]);
        reset[13] = RST;
    } else {
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        reset[8..12].copy_from_slice(&sequence.wrapping_add(length).to_be_bytes());
        reset[13] = RST | ACK;
    }
    reset[12] = ((TCP_HEADER_BYTES / 4) << 4) as u8;
    let sum = checksum::with_pseudo_header(destination, source, TCP, &reset);
    reset[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut answer = ip_header(destination, source);
    answer.extend(reset);
    Some(answer)
}

/// Source, destination and length of the text of a TCP segment (IP header first).
pub fn ends(packet: &[u8]) -> Option<(SocketAddr, SocketAddr, u32)> {
    let (source, destination, tcp) = locate(packet)?;
    let port = |at: usize| tcp.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let text_bytes = tcp.len().checked_sub(usize::from(tcp.get(12)? >> 4) * 4)? as u32;
    Some((SocketAddr::new(source, port(0)?), SocketAddr::new(destination, port(2)?), text_bytes))
}

/// Addresses and TCP segment of a whole, unfragmented packet.
fn locate(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let half = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_HEADER_BYTES && packet[9] == TCP && half(6) & 0x3fff == 0 => {
            let header = packet.get(..usize::from(packet[0] & 15) * 4).filter(|h| h.len() >= IPV4_HEADER_BYTES)?;
            if checksum::of(header) != 0 {
                return None;
            }
            let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
            Some((address(12).into(), address(16).into(), packet.get(header.len()..half(2))?))
        }
        6 if packet.len() >= IPV6_HEADER_BYTES && packet[6] == TCP => {
            let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).map(Ipv6Addr::from).ok();
            let tcp = packet.get(IPV6_HEADER_BYTES..IPV6_HEADER_BYTES + half(4))?;
            Some((address(8)?.into(), address(24)?.into(), tcp))
        }
        _ => None,
    }
}

fn is_group(ip: IpAddr) -> bool {
    ip.is_multicast() || ip.is_unspecified() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn ip_header(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (IPV4_HEADER_BYTES + TCP_HEADER_BYTES) as u8;
            let mut h = vec![0x45, 0, 0, total, 0, 0, 0x40, 0, 64, TCP, 0, 0];
            h.extend(source.octets());
            h.extend(destination.octets());
            let sum = checksum::of(&h);
            h[10..12].copy_from_slice(&sum.to_be_bytes());
            h
        }
        (source, destination) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let mut h = vec![0x60, 0, 0, 0, 0, TCP_HEADER_BYTES as u8, TCP, 64];
            h.extend(octets(source));
            h.extend(octets(destination));
            h
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(v6: bool, flags: u8, text: usize) -> Vec<u8> {
        let (a, b): (IpAddr, IpAddr) = if v6 {
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap())
        } else {
            ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap())
        };
        let mut tcp = vec![0x12, 0x34, 0, 80, 0, 0, 0, 100, 0, 0, 0, 200, 0x50, flags, 1, 0, 0, 0, 0, 0];
        tcp.resize(20 + text, 7);
        let sum = checksum::with_pseudo_header(a, b, TCP, &tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut packet = ip_header(a, b);
        if v6 {
            packet[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
        } else {
            packet[2..4].copy_from_slice(&((20 + tcp.len()) as u16).to_be_bytes());
            packet[10..12].fill(0);
            let sum = checksum::of(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        packet.extend(tcp);
        packet
    }

    #[test]
    fn a_reset_takes_its_numbers_from_the_segment() {
        for v6 in [false, true] {
            let at = if v6 { 40 } else { 20 };
            let reset = answer(&segment(v6, ACK, 5), |_, _| false).unwrap();
            assert_eq!((&reset[at..at + 4], reset[at + 13]), (&[0, 80, 0x12, 0x34][..], RST));
            assert_eq!(reset[at + 4..at + 12], [0, 0, 0, 200, 0, 0, 0, 0]);
            let reset = answer(&segment(v6, SYN | FIN, 5), |_, _| false).unwrap();
            assert_eq!(reset[at + 13], RST | ACK);
            assert_eq!(reset[at + 4..at + 12], [0, 0, 0, 0, 0, 0, 0, 107]);
            let (source, destination, tcp) = locate(&reset).unwrap();
            assert_eq!(checksum::with_pseudo_header(source, destination, TCP, tcp), 0);
        }
    }

    #[test]
    fn a_listener_resets_only_what_acknowledges() {
        for (flags, answered) in
            [(ACK, true), (SYN | ACK, true), (FIN | ACK, true), (FIN, false), (SYN | FIN, false), (0, false)]
        {
            assert_eq!(answer(&segment(false, flags, 3), |_, port| port == 80).is_some(), answered, "{flags:#x}");
            assert!(answer(&segment(false, flags, 3), |_, port| port == 81).is_some());
        }
    }

    #[test]
    fn resets_and_broken_packets_are_not_answered() {
        assert_eq!(answer(&segment(false, RST | ACK, 0), |_, _| false), None);
        for v6 in [false, true] {
            let good = segment(v6, ACK, 3);
            for short in 0..good.len() {
                assert_eq!(answer(&good[..short], |_, _| false), None, "{short}");
            }
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                // Version 6 has no checksum over its own header: traffic class, flow label and hop limit do not matter.
                let unprotected = v6 && matches!(at, 1..=3 | 7);
                assert!(unprotected || answer(&bad, |_, _| false).is_none(), "{at}");
            }
        }
    }
}

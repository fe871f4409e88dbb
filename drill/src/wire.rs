//! Packets as bytes: IPv4 and IPv6, TCP with any options, ICMP errors.
//!
//! Numbers are those of the wire; `flow` turns a script's into them and back. What is built need not make sense: a script
//! may say any flags, any option and any number.

use std::net::{IpAddr, SocketAddr};

use toe_guest::checksum;

use crate::language::{Ecn, Flags, IcmpKind, Segment, Span, TcpOption};

const TCP: u8 = 6;
const ICMP_V4: u8 = 1;
const ICMP_V6: u8 = 58;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const TCP_HEADER_BYTES: usize = 20;
/// The most bytes of options that a header holds.
pub const OPTIONS_BYTES_MAX: usize = 40;
/// As much of a packet as an ICMP message quotes: the IP header without options and 8 bytes are the least (RFC 792).
const QUOTE_BYTES_MAX: usize = 512;

/// A segment that was read from a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// Where it came from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Its header; everything is said in it.
    pub segment: Segment,
    /// Its text.
    pub text: Vec<u8>,
}

/// A packet that carries `segment` and `text`; nothing if the options are too long.
pub fn build(source: SocketAddr, destination: SocketAddr, segment: &Segment, text: &[u8]) -> Option<Vec<u8>> {
    let mut options = Vec::new();
    for option in segment.options.iter().flatten() {
        put_option(&mut options, option);
    }
    options.resize(options.len().next_multiple_of(4), 0);
    if options.len() > OPTIONS_BYTES_MAX {
        return None;
    }
    let mut tcp = Vec::with_capacity(TCP_HEADER_BYTES + options.len() + text.len());
    tcp.extend(source.port().to_be_bytes());
    tcp.extend(destination.port().to_be_bytes());
    tcp.extend(segment.sequence.to_be_bytes());
    tcp.extend(segment.acknowledgement.unwrap_or(0).to_be_bytes());
    tcp.push((((TCP_HEADER_BYTES + options.len()) / 4) as u8) << 4);
    tcp.push(segment.flags.0 as u8);
    tcp.extend(segment.window.unwrap_or(u16::MAX).to_be_bytes());
    tcp.extend([0, 0]);
    tcp.extend(segment.urgent.unwrap_or(0).to_be_bytes());
    tcp.extend(options);
    tcp.extend(text);
    let sum = checksum::with_pseudo_header(source.ip(), destination.ip(), TCP, &tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    Some(ip(source.ip(), destination.ip(), TCP, segment.ecn, &tcp))
}

fn put_option(bytes: &mut Vec<u8>, option: &TcpOption) {
    match option {
        TcpOption::End => bytes.push(0),
        TcpOption::Nop => bytes.push(1),
        TcpOption::Mss(mss) => {
            bytes.extend([2, 4]);
            bytes.extend(mss.unwrap_or(0).to_be_bytes());
        }
        TcpOption::WindowScale(shift) => bytes.extend([3, 3, shift.unwrap_or(0)]),
        TcpOption::SackPermitted => bytes.extend([4, 2]),
        TcpOption::Sack(spans) => {
            bytes.extend([5, (2 + spans.len() * 8) as u8]);
            for span in spans {
                bytes.extend(span.from.to_be_bytes());
                bytes.extend(span.to.to_be_bytes());
            }
        }
        TcpOption::Timestamps { value, echo } => {
            bytes.extend([8, 10]);
            bytes.extend(value.unwrap_or(0).to_be_bytes());
            bytes.extend(echo.unwrap_or(0).to_be_bytes());
        }
        TcpOption::FastOpen(cookie) => {
            let cookie = cookie.as_deref().unwrap_or_default();
            bytes.extend([34, (2 + cookie.len()) as u8]);
            bytes.extend(cookie);
        }
        TcpOption::Other(kind, data) => {
            bytes.extend([*kind, (2 + data.len()) as u8]);
            bytes.extend(data);
        }
    }
}

/// The TCP segment of a packet that the stack sent; nothing if it is none, or is damaged.
pub fn read(packet: &[u8]) -> Option<Read> {
    let half = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let (source, destination, ecn, tcp): (IpAddr, IpAddr, u8, &[u8]) = match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_HEADER_BYTES && packet[9] == TCP => {
            let address = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).map(IpAddr::from).ok();
            let header = usize::from(packet[0] & 15) * 4;
            (address(12)?, address(16)?, packet[1] & 3, packet.get(header..usize::from(half(2)?))?)
        }
        6 if packet.len() >= IPV6_HEADER_BYTES && packet[6] == TCP => {
            let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).map(IpAddr::from).ok();
            let end = IPV6_HEADER_BYTES + usize::from(half(4)?);
            (address(8)?, address(24)?, packet[1] >> 4 & 3, packet.get(IPV6_HEADER_BYTES..end)?)
        }
        _ => return None,
    };
    if tcp.len() < TCP_HEADER_BYTES || checksum::with_pseudo_header(source, destination, TCP, tcp) != 0 {
        return None;
    }
    let half = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let header = usize::from(tcp[12] >> 4) * 4;
    let options = read_options(tcp.get(TCP_HEADER_BYTES..header)?)?;
    let flags = Flags(tcp[13].into());
    let text = tcp[header..].to_vec();
    let segment = Segment {
        ecn: Some(match ecn {
            0 => Ecn::NotEct,
            1 => Ecn::Ect1,
            2 => Ecn::Ect0,
            _ => Ecn::Ce,
        }),
        flags,
        sequence: word(4),
        length: text.len() as u32,
        acknowledgement: flags.has(Flags::ACK).then(|| word(8)),
        window: Some(half(14)),
        urgent: flags.has(Flags::URG).then(|| half(18)),
        options: Some(options),
    };
    let (source, destination) = (SocketAddr::new(source, half(0)), SocketAddr::new(destination, half(2)));
    Some(Read { source, destination, segment, text })
}

fn read_options(mut bytes: &[u8]) -> Option<Vec<TcpOption>> {
    let mut options = Vec::new();
    while let Some(kind) = bytes.first() {
        match kind {
            0 => {
                options.push(TcpOption::End);
                break;
            }
            1 => {
                options.push(TcpOption::Nop);
                bytes = &bytes[1..];
                continue;
            }
            _ => {}
        }
        let length = usize::from(*bytes.get(1)?);
        let data = bytes.get(2..length)?;
        let word = |at: usize| Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?));
        options.push(match (kind, data.len()) {
            (2, 2) => TcpOption::Mss(Some(u16::from_be_bytes([data[0], data[1]]))),
            (3, 1) => TcpOption::WindowScale(Some(data[0])),
            (4, 0) => TcpOption::SackPermitted,
            (5, n) if n % 8 == 0 => {
                let span = |at: usize| Some(Span { from: word(at)?, to: word(at + 4)? });
                TcpOption::Sack((0..n).step_by(8).map(span).collect::<Option<_>>()?)
            }
            (8, 8) => TcpOption::Timestamps { value: word(0), echo: word(4) },
            (34, _) => TcpOption::FastOpen(Some(data.to_vec())),
            _ => TcpOption::Other(*kind, data.to_vec()),
        });
        bytes = &bytes[length..];
    }
    Some(options)
}

/// An ICMP message from `router` about `packet`, which the stack sent; nothing if the family has no such message.
pub fn icmp(router: IpAddr, kind: IcmpKind, mtu: u32, packet: &[u8]) -> Option<Vec<u8>> {
    let about = if packet.first()? >> 4 == 4 {
        IpAddr::from(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?)
    };
    let (protocol, (code_type, code)) = match about {
        IpAddr::V4(_) => (ICMP_V4, kind.v4?),
        IpAddr::V6(_) => (ICMP_V6, kind.v6?),
    };
    let mut message = vec![code_type, code, 0, 0];
    // ICMP has 16 bits for the MTU (RFC 1191), ICMPv6 32.
    message.extend(mtu.to_be_bytes());
    message.extend(&packet[..packet.len().min(QUOTE_BYTES_MAX)]);
    let sum = match about {
        IpAddr::V4(_) => checksum::of(&message),
        IpAddr::V6(_) => checksum::with_pseudo_header(router, about, ICMP_V6, &message),
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(ip(router, about, protocol, None, &message))
}

fn ip(source: IpAddr, destination: IpAddr, protocol: u8, ecn: Option<Ecn>, payload: &[u8]) -> Vec<u8> {
    let ecn = match ecn {
        None | Some(Ecn::NotEct) => 0,
        Some(Ecn::Ect1) => 1,
        Some(Ecn::Ect0) => 2,
        Some(Ecn::Ce) => 3,
    };
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (IPV4_HEADER_BYTES + payload.len()) as u16;
            let mut header = vec![0x45, ecn, (total >> 8) as u8, total as u8, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = checksum::of(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (source, destination) => {
            let length = payload.len() as u16;
            let mut header = vec![0x60, ecn << 4, 0, 0, (length >> 8) as u8, length as u8, protocol, 64];
            header.extend(octets_v6(source));
            header.extend(octets_v6(destination));
            header
        }
    };
    packet.extend(payload);
    packet
}

fn octets_v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::{Packet, What, parse};

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        let (a, b) = if v6 { ("[2001:db8::1]:80", "[2001:db8::2]:90") } else { ("192.0.2.1:80", "192.0.2.2:90") };
        (a.parse().unwrap(), b.parse().unwrap())
    }

    #[test]
    fn what_is_built_is_read_back() {
        for v6 in [false, true] {
            let (a, b) = ends(v6);
            for text in [
                "[ce] FSRP.UEW 4294967295:9(10) ack 7 win 5 urg 3",
                "[noecn] - 5:5(0) win 0",
                "[ect1] S. 0:0(0) ack 1 win 9 <mss 1460,sackOK,TS val 1 ecr 2,nop,wscale 7>",
                "[ect0] . 0:1(1) ack 1 win 9 <nop,nop,sack 1:2 3:4 5:6,kind 254 01>",
            ] {
                let script = parse("t", &format!("0 < {text}")).unwrap();
                let What::In(Packet::Tcp(segment)) = &script.events[0].what else { panic!() };
                let content: Vec<u8> = (0..segment.length as u8).collect();
                let packet = build(a, b, segment, &content).unwrap();
                let back = read(&packet).unwrap();
                let mut options = back.segment.options.clone().unwrap();
                options.retain(|option| *option != TcpOption::End);
                let back = Read { segment: Segment { options: Some(options), ..back.segment }, ..back };
                assert_eq!(back, Read { source: a, destination: b, segment: segment.clone(), text: content });
                for at in 0..packet.len() {
                    let mut bad = packet.clone();
                    bad[at] ^= 0x11;
                    let _ = read(&bad);
                    let _ = read(&packet[..at]);
                }
            }
        }
    }

    #[test]
    fn too_many_options_do_not_fit() {
        let (a, b) = ends(false);
        let script =
            parse("t", "0 < S 0:0(0) <TS val 1 ecr 1,TS val 1 ecr 1,TS val 1 ecr 1,TS val 1 ecr 1,nop>").unwrap();
        let What::In(Packet::Tcp(segment)) = &script.events[0].what else { panic!() };
        assert_eq!(build(a, b, segment, &[]), None);
    }

    #[test]
    fn icmp_quotes_the_packet_and_its_checksum_is_right() {
        let kind = IcmpKind::ALL.into_iter().find(|kind| kind.words == "unreachable port_unreachable").unwrap();
        for v6 in [false, true] {
            let (a, b) = ends(v6);
            let script = parse("t", "0 < . 0:0(0) ack 1").unwrap();
            let What::In(Packet::Tcp(segment)) = &script.events[0].what else { panic!() };
            let packet = build(a, b, segment, &[]).unwrap();
            let message = icmp(b.ip(), kind, 0, &packet).unwrap();
            let header = if v6 { IPV6_HEADER_BYTES } else { IPV4_HEADER_BYTES };
            assert_eq!(message[header + 8..], packet);
            let payload = &message[header..];
            let right =
                if v6 { checksum::with_pseudo_header(b.ip(), a.ip(), ICMP_V6, payload) } else { checksum::of(payload) };
            assert_eq!((payload[0], right), (if v6 { 1 } else { 3 }, 0));
        }
    }
}

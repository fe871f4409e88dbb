//! TCP segments in Ethernet frames, read and written by code of the simulator's own (so not by the code under test), and
//! any frame in one line of text.

use std::fmt::Write;
use std::net::IpAddr;

use toe_abi::{Message, Parsed};

pub const ETHERNET_HEADER_BYTES: usize = 14;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;
pub const ECE: u8 = 64;
pub const CWR: u8 = 128;

const TCP: u8 = 6;

/// A TCP segment in its IP packet, borrowed from a frame.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub options: &'a [u8],
    pub payload: &'a [u8],
    pub traffic_class: u8,
    pub hop_limit: u8,
    ip_header: &'a [u8],
    tcp: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Finds the TCP segment in a frame; `None` if there is none or its lengths are impossible.
pub fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let packet = frame.get(ETHERNET_HEADER_BYTES..)?;
    let (source, destination, header_bytes, end, traffic_class, hop_limit): (IpAddr, IpAddr, _, _, _, _);
    match frame[12..14] {
        [0x08, 0x00] => {
            let header = packet.get(..20)?;
            header_bytes = usize::from(header[0] & 15) * 4;
            end = usize::from(u16_at(header, 2));
            // Neither a fragment nor something else.
            if header[0] >> 4 != 4 || header_bytes < 20 || header[9] != TCP || u16_at(header, 6) & 0x3fff != 0 {
                return None;
            }
            source = <[u8; 4]>::try_from(&header[12..16]).ok()?.into();
            destination = <[u8; 4]>::try_from(&header[16..20]).ok()?.into();
            (traffic_class, hop_limit) = (header[1], header[8]);
        }
        [0x86, 0xdd] => {
            let header = packet.get(..40)?;
            header_bytes = 40;
            end = 40 + usize::from(u16_at(header, 4));
            if header[0] >> 4 != 6 || header[6] != TCP {
                return None;
            }
            source = <[u8; 16]>::try_from(&header[8..24]).ok()?.into();
            destination = <[u8; 16]>::try_from(&header[24..40]).ok()?.into();
            (traffic_class, hop_limit) = (header[0] << 4 | header[1] >> 4, header[7]);
        }
        _ => return None,
    }
    let tcp = packet.get(header_bytes..end)?;
    let fixed = tcp.get(..20)?;
    let data_at = usize::from(fixed[12] >> 4) * 4;
    if data_at < 20 || data_at > tcp.len() {
        return None;
    }
    Some(Segment {
        source,
        destination,
        source_port: u16_at(fixed, 0),
        destination_port: u16_at(fixed, 2),
        seq: u32_at(fixed, 4),
        ack: u32_at(fixed, 8),
        flags: fixed[13],
        window: u16_at(fixed, 14),
        urgent: u16_at(fixed, 18),
        options: &tcp[20..data_at],
        payload: &tcp[data_at..],
        traffic_class,
        hop_limit,
        ip_header: &packet[..header_bytes],
        tcp,
    })
}

/// The sum of the 16-bit words of `bytes` (RFC 1071), not yet folded, in the machine's byte order.
fn sum(bytes: &[u8]) -> u64 {
    let chunks = bytes.chunks_exact(4);
    let rest = chunks.remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let words: u64 = chunks.map(|c| u64::from(u32::from_ne_bytes([c[0], c[1], c[2], c[3]]))).sum();
    words + u64::from(u32::from_ne_bytes(last))
}

/// Folded to 16 bits, in network order.
fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u16).to_be()
}

fn pseudo_header(source: &IpAddr, destination: &IpAddr, tcp_bytes: usize) -> u64 {
    let address = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => sum(&ip.octets()),
        IpAddr::V6(ip) => sum(&ip.octets()),
    };
    let tail = [0, TCP, (tcp_bytes >> 8) as u8, tcp_bytes as u8];
    address(source) + address(destination) + sum(&tail)
}

impl Segment<'_> {
    /// Whether one of the flags is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers that it takes.
    pub fn length(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    /// Whether all checksums are right.
    pub fn checksums_right(&self) -> bool {
        let header_right = self.source.is_ipv6() || fold(sum(self.ip_header)) == 0xffff;
        let sum = pseudo_header(&self.source, &self.destination, self.tcp.len()) + sum(self.tcp);
        header_right && fold(sum) == 0xffff
    }
}

/// What the options of a segment say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub mss: Option<u16>,
    pub scale: Option<u8>,
    pub sack_permitted: bool,
    pub timestamps: Option<(u32, u32)>,
    pub sack: [(u32, u32); 4],
    pub sacks: usize,
}

/// Reads options; `None` if they cannot be read to their end.
pub fn options(bytes: &[u8]) -> Option<Options> {
    let mut found = Options::default();
    read_options(bytes, &mut found).then_some(found)
}

/// The options in front of whatever cannot be read.
pub fn first_options(bytes: &[u8]) -> Options {
    let mut found = Options::default();
    let _ = read_options(bytes, &mut found);
    found
}

fn read_options(mut rest: &[u8], found: &mut Options) -> bool {
    while let Some(&kind) = rest.first() {
        if kind == 0 {
            // End of list: what follows is zero.
            return rest.iter().all(|&b| b == 0);
        }
        if kind == 1 {
            rest = &rest[1..];
            continue;
        }
        let length = rest.get(1).map_or(0, |&n| usize::from(n));
        let Some(option) = rest.get(..length).filter(|o| o.len() >= 2) else { return false };
        match (kind, length) {
            (2, 4) => found.mss = Some(u16_at(option, 2)),
            (3, 3) => found.scale = Some(option[2]),
            (4, 2) => found.sack_permitted = true,
            (5, 10 | 18 | 26 | 34) if found.sacks == 0 => {
                for block in option[2..].chunks_exact(8) {
                    found.sack[found.sacks] = (u32_at(block, 0), u32_at(block, 4));
                    found.sacks += 1;
                }
            }
            (8, 10) => found.timestamps = Some((u32_at(option, 2), u32_at(option, 6))),
            (2 | 3 | 4 | 5 | 8, _) => return false,
            _ => (),
        }
        rest = &rest[length..];
    }
    true
}

/// A segment to be made.
#[derive(Clone, Copy, Debug)]
pub struct Make<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    /// A multiple of four bytes.
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

impl Make<'_> {
    /// The frame, with all checksums right. `macs`: destination, then source.
    pub fn frame(&self, macs: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.write(macs, &mut frame);
        frame
    }

    /// The same, into `frame`, whatever that held.
    pub fn write(&self, macs: &[u8], frame: &mut Vec<u8>) {
        frame.clear();
        frame.extend_from_slice(&macs[..12]);
        let tcp_bytes = 20 + self.options.len() + self.payload.len();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = ((20 + tcp_bytes) as u16).to_be_bytes();
                frame.extend_from_slice(&[0x08, 0x00, 0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, TCP, 0, 0]);
                frame.extend_from_slice(&source.octets());
                frame.extend_from_slice(&destination.octets());
                let checksum = !fold(sum(&frame[14..34]));
                frame[24..26].copy_from_slice(&checksum.to_be_bytes());
            }
            (source, destination) => {
                let octets = |ip: IpAddr| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                let bytes = (tcp_bytes as u16).to_be_bytes();
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, bytes[0], bytes[1], TCP, 64]);
                frame.extend_from_slice(&octets(source));
                frame.extend_from_slice(&octets(destination));
            }
        }
        let at = frame.len();
        frame.extend_from_slice(&self.source_port.to_be_bytes());
        frame.extend_from_slice(&self.destination_port.to_be_bytes());
        frame.extend_from_slice(&self.seq.to_be_bytes());
        frame.extend_from_slice(&self.ack.to_be_bytes());
        frame.extend_from_slice(&[((20 + self.options.len()) as u8 / 4) << 4, self.flags]);
        frame.extend_from_slice(&self.window.to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(&self.urgent.to_be_bytes());
        frame.extend_from_slice(self.options);
        frame.extend_from_slice(self.payload);
        let checksum = !fold(pseudo_header(&self.source, &self.destination, tcp_bytes) + sum(&frame[at..]));
        frame[at + 16..at + 18].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Makes lengths and checksums of a frame with an intact segment right again after its end or its flags have changed.
pub fn seal(frame: &mut [u8], flags: u8) {
    let total = frame.len() - ETHERNET_HEADER_BYTES;
    let (header_bytes, pseudo) = if frame[12] == 0x08 {
        let header_bytes = usize::from(frame[14] & 15) * 4;
        frame[16..18].copy_from_slice(&(total as u16).to_be_bytes());
        frame[24..26].fill(0);
        let checksum = !fold(sum(&frame[14..14 + header_bytes]));
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        (header_bytes, sum(&frame[26..34]))
    } else {
        frame[18..20].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        (40, sum(&frame[22..54]))
    };
    let tcp_bytes = total - header_bytes;
    let at = ETHERNET_HEADER_BYTES + header_bytes;
    frame[at + 13] = flags;
    frame[at + 16..at + 18].fill(0);
    let pseudo = pseudo + sum(&[0, TCP, (tcp_bytes >> 8) as u8, tcp_bytes as u8]);
    let checksum = !fold(pseudo + sum(&frame[at..]));
    frame[at + 16..at + 18].copy_from_slice(&checksum.to_be_bytes());
}

/// What a router says of a packet that does not fit into `mtu`: ICMP's "fragmentation needed" (RFC 1191), or
/// ICMPv6's "packet too big" (RFC 8201). `None` if it is no IP packet.
pub fn too_big(frame: &[u8], mtu: u32) -> Option<Vec<u8>> {
    let packet = frame.get(ETHERNET_HEADER_BYTES..)?;
    let mut out = [&frame[6..12], &frame[..6], &frame[12..14]].concat();
    match frame[12..14] {
        [0x08, 0x00] => {
            let quote = &packet[..packet.len().min(548)];
            let total = ((28 + quote.len()) as u16).to_be_bytes();
            out.extend_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 1, 0, 0]);
            // The router is the far end's network; who it is matters to nobody.
            out.extend_from_slice(&[198, 51, 100, 1]);
            out.extend_from_slice(&packet[12..16]);
            let checksum = !fold(sum(&out[14..34]));
            out[24..26].copy_from_slice(&checksum.to_be_bytes());
            let [.., a, b] = mtu.to_be_bytes();
            out.extend_from_slice(&[3, 4, 0, 0, 0, 0, a, b]);
            out.extend_from_slice(quote);
            let checksum = !fold(sum(&out[34..]));
            out[36..38].copy_from_slice(&checksum.to_be_bytes());
        }
        [0x86, 0xdd] => {
            let quote = &packet[..packet.len().min(1_200)];
            let bytes = ((8 + quote.len()) as u16).to_be_bytes();
            out.extend_from_slice(&[0x60, 0, 0, 0, bytes[0], bytes[1], 58, 64]);
            out.extend_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            out.extend_from_slice(&packet[8..24]);
            out.extend_from_slice(&[2, 0, 0, 0]);
            out.extend_from_slice(&mtu.to_be_bytes());
            out.extend_from_slice(quote);
            let pseudo = sum(&out[22..54]) + sum(&[0, 58, bytes[0], bytes[1]]);
            let checksum = !fold(pseudo + sum(&out[54..]));
            out[56..58].copy_from_slice(&checksum.to_be_bytes());
        }
        _ => return None,
    }
    Some(out)
}

/// A frame in one line.
pub fn describe(frame: &[u8]) -> String {
    if let Ok(parsed) = Parsed::new(frame) {
        let mut line = format!("channel {} B", frame.len());
        for message in parsed.messages {
            let _ = match message {
                Ok(Message::Send(m, data)) => write!(line, " | {m:?} + {}", data.len()),
                Ok(Message::Received(m, data)) => write!(line, " | {m:?} + {}", data.len()),
                Ok(m) => write!(line, " | {m:?}"),
                Err(e) => write!(line, " | {e}"),
            };
        }
        return line;
    }
    let Some(s) = segment(frame) else {
        return format!("{} B, no TCP segment: {:02x?}", frame.len(), &frame[..frame.len().min(64)]);
    };
    let letters = [(SYN, 'S'), (FIN, 'F'), (RST, 'R'), (PSH, 'P'), (ACK, '.'), (URG, 'U'), (ECE, 'E'), (CWR, 'W')];
    let flags: String = letters.iter().filter(|(flag, _)| s.has(*flag)).map(|(_, c)| *c).collect();
    let (from, to) = (s.source_port, s.destination_port);
    let mut line = format!("{from}->{to} [{flags}] {}:{}", s.seq, s.seq.wrapping_add(s.length()));
    if s.has(ACK) {
        let _ = write!(line, " ack {}", s.ack);
    }
    let _ = write!(line, " win {} + {}", s.window, s.payload.len());
    match options(s.options) {
        None => line.push_str(" BAD OPTIONS"),
        Some(o) => {
            let _ = o.mss.map(|v| write!(line, " mss {v}"));
            let _ = o.scale.map(|v| write!(line, " ws {v}"));
            if o.sack_permitted {
                line.push_str(" sackOK");
            }
            let _ = o.timestamps.map(|(v, e)| write!(line, " ts {v} {e}"));
            for (a, b) in &o.sack[..o.sacks] {
                let _ = write!(line, " sack {a}:{b}");
            }
        }
    }
    match s.traffic_class & 3 {
        3 => line.push_str(" CE"),
        0 => (),
        _ => line.push_str(" ECT"),
    }
    if !s.checksums_right() {
        line.push_str(" BAD CHECKSUM");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{EthernetFrame, Icmpv6Packet, Ipv4Packet, Ipv6Packet, TcpPacket};

    fn make<'a>(source: &str, destination: &str, options: &'a [u8], payload: &'a [u8]) -> Make<'a> {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Make {
            source,
            destination,
            source_port: 1,
            destination_port: 2,
            seq: u32::MAX,
            ack: 7,
            flags: ACK | PSH,
            window: 99,
            urgent: 0,
            options,
            payload,
        }
    }

    /// What is made here, smoltcp finds right; and a bit turned over anywhere is noticed here.
    #[test]
    fn checksums_agree_with_another_reader() {
        let ends = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")];
        for (source, destination) in ends {
            for length in [0, 1, 2, 3, 4, 5, 1459] {
                let payload: Vec<u8> = (0..length).map(|i| (i * 7) as u8 | 0x81).collect();
                let mut frame = make(source, destination, &[1, 1, 1, 1], &payload).frame(&[2; 12]);
                let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
                let (ip, tcp): (_, &[u8]) = if source.contains(':') {
                    let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
                    ((ip.src_addr().into(), ip.dst_addr().into()), ip.payload())
                } else {
                    let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
                    assert!(ip.verify_checksum());
                    ((ip.src_addr().into(), ip.dst_addr().into()), ip.payload())
                };
                assert!(TcpPacket::new_checked(tcp).unwrap().verify_checksum(&ip.0, &ip.1));
                let s = segment(&frame).unwrap();
                assert!(s.checksums_right());
                assert_eq!((s.seq, s.ack, s.payload), (u32::MAX, 7, &payload[..]));
                let at = frame.len() - 1 - length / 2;
                frame[at] ^= 4;
                assert!(segment(&frame).is_none_or(|s| !s.checksums_right()));
            }
        }
    }

    #[test]
    fn options_are_read_or_refused() {
        let all = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7];
        let expected = Options {
            mss: Some(1460),
            scale: Some(7),
            sack_permitted: true,
            timestamps: Some((1, 2)),
            ..Default::default()
        };
        assert_eq!(options(&all), Some(expected));
        let sack = options(&[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9]).unwrap();
        assert_eq!((sack.sacks, sack.sack[0]), (1, (1, 9)));
        for bad in [&[2, 3, 1, 1][..], &[8, 0, 0, 0], &[3, 9, 1, 1], &[2]] {
            assert_eq!(options(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_a_router_says_can_be_read() {
        let payload = [3; 1400];
        let frame = make("2001:db8::1", "2001:db8::2", &[], &payload).frame(&[2; 12]);
        let report = too_big(&frame, 1280).unwrap();
        let ip = Ipv6Packet::new_checked(&report[14..]).unwrap();
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
        assert_eq!(icmp.pkt_too_big_mtu(), 1280);
        let frame = make("192.0.2.1", "192.0.2.2", &[], &payload).frame(&[2; 12]);
        let report = too_big(&frame, 600).unwrap();
        let ip = Ipv4Packet::new_checked(&report[14..]).unwrap();
        assert!(ip.verify_checksum());
        let icmp = ip.payload();
        assert_eq!((&icmp[..2], &icmp[4..8], fold(sum(icmp))), (&[3, 4][..], &[0, 0, 2, 88][..], 0xffff));
    }
}

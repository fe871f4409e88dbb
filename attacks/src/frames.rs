//! TCP segments as frames: what an attacker writes and what it reads of the answers.
//!
//! It is a reader and a writer of its own, so that an attack can say what no stack would (any flags, any option bytes, any
//! checksum), and fast, because a flood is ten million of them.

use std::net::{IpAddr, SocketAddr};

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;

/// Control bits.
pub mod flag {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Synchronize.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECN-Echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// The Ethernet address of the card's guest.
pub const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The Ethernet address of the router, behind which everybody else is.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A segment, with its ends.
#[derive(Clone, Debug)]
pub struct Tcp<'a> {
    /// Where it comes from.
    pub from: SocketAddr,
    /// Where it goes.
    pub to: SocketAddr,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    /// Control bits, see [`flag`].
    pub flags: u8,
    /// The window field.
    pub window: u16,
    /// Option bytes as they stand; padded to four with end-of-list.
    pub options: &'a [u8],
    /// The text.
    pub text: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// A segment without options or text, window 65,535.
    pub fn new(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32) -> Self {
        Self { from, to, seq, ack, flags, window: 65_535, options: &[], text: &[] }
    }

    /// With these options.
    pub fn options(self, options: &'a [u8]) -> Self {
        Self { options, ..self }
    }

    /// With this text.
    pub fn text(self, text: &'a [u8]) -> Self {
        Self { text, ..self }
    }

    /// With this window field.
    pub fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    /// The sequence numbers that it takes.
    pub fn length(&self) -> u32 {
        self.text.len() as u32 + u32::from(self.flags & flag::SYN != 0) + u32::from(self.flags & flag::FIN != 0)
    }

    /// Writes the frame, router to guest, into `buffer`; all checksums are right.
    pub fn write(&self, buffer: &mut Vec<u8>) {
        let padding = self.options.len().next_multiple_of(4) - self.options.len();
        let header_bytes = 20 + self.options.len() + padding;
        let tcp_bytes = header_bytes + self.text.len();
        buffer.clear();
        buffer.extend_from_slice(&GUEST_MAC);
        buffer.extend_from_slice(&ROUTER_MAC);
        let mut sum;
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                buffer.extend_from_slice(&[8, 0, 0x45, 0]);
                buffer.extend_from_slice(&((20 + tcp_bytes) as u16).to_be_bytes());
                buffer.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
                buffer.extend_from_slice(&from.octets());
                buffer.extend_from_slice(&to.octets());
                let check = fold(add(0, &buffer[ETHERNET_BYTES..]));
                buffer[ETHERNET_BYTES + 10..][..2].copy_from_slice(&check.to_be_bytes());
                sum = add(6 + tcp_bytes as u64, &buffer[ETHERNET_BYTES + 12..]);
            }
            (from, to) => {
                let octets = |ip: IpAddr| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                buffer.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                buffer.extend_from_slice(&(tcp_bytes as u16).to_be_bytes());
                buffer.extend_from_slice(&[6, 64]);
                buffer.extend_from_slice(&octets(from));
                buffer.extend_from_slice(&octets(to));
                sum = add(6 + tcp_bytes as u64, &buffer[ETHERNET_BYTES + 8..]);
            }
        }
        let at = buffer.len();
        buffer.extend_from_slice(&self.from.port().to_be_bytes());
        buffer.extend_from_slice(&self.to.port().to_be_bytes());
        buffer.extend_from_slice(&self.seq.to_be_bytes());
        buffer.extend_from_slice(&self.ack.to_be_bytes());
        buffer.extend_from_slice(&[(header_bytes as u8 / 4) << 4, self.flags]);
        buffer.extend_from_slice(&self.window.to_be_bytes());
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(self.options);
        buffer.extend_from_slice(&[0; 3][..padding]);
        buffer.extend_from_slice(self.text);
        sum = add(sum, &buffer[at..]);
        let check = fold(sum);
        buffer[at + 16..at + 18].copy_from_slice(&check.to_be_bytes());
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut buffer = Vec::new();
        self.write(&mut buffer);
        buffer
    }

    /// Reads a frame that a stack sent; `None` if it is no whole TCP segment.
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET_BYTES..)?;
        let (from, to, tcp) = match frame[12..14] {
            [8, 0] if packet.len() >= 40 && packet[9] == 6 => {
                let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                let header = usize::from(packet[0] & 15) * 4;
                let octets = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap_or_default();
                (IpAddr::from(octets(12)), IpAddr::from(octets(16)), packet.get(header..total)?)
            }
            [0x86, 0xdd] if packet.len() >= 60 && packet[6] == 6 => {
                let total = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
                let octets = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap_or_default();
                (IpAddr::from(octets(8)), IpAddr::from(octets(24)), packet.get(40..total)?)
            }
            _ => return None,
        };
        let fixed: &[u8; 20] = tcp.first_chunk()?;
        let offset = usize::from(fixed[12] >> 4) * 4;
        let be16 = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let be32 = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        Some(Self {
            from: SocketAddr::new(from, be16(0)),
            to: SocketAddr::new(to, be16(2)),
            seq: be32(4),
            ack: be32(8),
            flags: fixed[13],
            window: be16(14),
            options: tcp.get(20..offset)?,
            text: tcp.get(offset..)?,
        })
    }

    /// TSval of the timestamps option.
    pub fn timestamp(&self) -> Option<u32> {
        let mut rest = self.options;
        while let [kind, tail @ ..] = rest {
            match (kind, tail) {
                (0, _) => return None,
                (1, _) => rest = tail,
                (8, [10, a, b, c, d, ..]) => return Some(u32::from_be_bytes([*a, *b, *c, *d])),
                (_, [length, ..]) if *length >= 2 => rest = rest.get(usize::from(*length)..)?,
                _ => return None,
            }
        }
        None
    }

    /// Whether any of the bits is set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// The destination address of an IP frame.
pub fn destination(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [8, 0] => Some(IpAddr::from(<[u8; 4]>::try_from(frame.get(30..34)?).ok()?)),
        [0x86, 0xdd] => Some(IpAddr::from(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?)),
        _ => None,
    }
}

/// An IPv4 packet of any protocol in a frame, router to guest, with a right header checksum.
pub fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&GUEST_MAC[..], &ROUTER_MAC, &[8, 0, 0x45, 0]].concat();
    frame.extend_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 7]);
    frame.extend_from_slice(&fragment.to_be_bytes());
    frame.extend_from_slice(&[64, protocol, 0, 0]);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&to);
    let check = fold(add(0, &frame[ETHERNET_BYTES..]));
    frame[ETHERNET_BYTES + 10..][..2].copy_from_slice(&check.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The Internet checksum of some bytes.
pub fn checksum(bytes: &[u8]) -> u16 {
    fold(add(0, bytes))
}

fn add(mut sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_be_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(last))
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_and_sums_to_zero() {
        for ip in ["192.0.2.1", "2001:db8::1"] {
            let from = SocketAddr::new(ip.parse().unwrap(), 1000);
            let options = [8, 10, 0, 0, 1, 2, 0, 0, 0, 0];
            let tcp = Tcp::new(from, from, flag::SYN, 5, 6).options(&options).text(b"abc");
            let frame = tcp.frame();
            let read = Tcp::read(&frame).unwrap();
            assert_eq!((read.seq, read.ack, read.text, read.timestamp()), (5, 6, &b"abc"[..], Some(258)), "{ip}");
            assert_eq!((read.from, read.length()), (from, 4));
            let (addresses, tcp_at) = if from.is_ipv4() { (26, 34) } else { (22, 54) };
            let tcp_bytes = (frame.len() - tcp_at) as u64;
            assert_eq!(fold(add(6 + tcp_bytes, &frame[addresses..])), 0, "{ip}");
        }
    }
}

//! IP and TCP as bytes, written anew: a mistake that the firmware and its test shared would not be seen.

use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// A segment and whence and whither it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub mss: Option<u16>,
    pub data: Vec<u8>,
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | c.get(1).map_or(0, |b| u32::from(*b)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn tcp_sum(from: IpAddr, to: IpAddr, tcp: &[u8]) -> u16 {
    let length = (tcp.len() as u32).to_be_bytes();
    sum(&[&octets(from)[..], &octets(to), &length, &[0, 0, 0, 6], tcp].concat())
}

impl Segment {
    /// How many sequence numbers it takes.
    pub fn length(&self) -> u32 {
        self.data.len() as u32 + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0)
    }

    pub fn to_packet(&self) -> Vec<u8> {
        let options = self.mss.map_or(Vec::new(), |mss| [&[2, 4][..], &mss.to_be_bytes()].concat());
        let mut tcp = Vec::new();
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.extend([(((20 + options.len()) / 4) << 4) as u8, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(&self.data);
        let checksum = tcp_sum(self.from.ip(), self.to.ip(), &tcp);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = if self.from.is_ipv4() {
            let total = (20 + tcp.len() as u16).to_be_bytes();
            let mut h = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
            h.extend(octets(self.from.ip()));
            h.extend(octets(self.to.ip()));
            let checksum = sum(&h);
            h[10..12].copy_from_slice(&checksum.to_be_bytes());
            h
        } else {
            let length = (tcp.len() as u16).to_be_bytes();
            let mut h = vec![0x60, 0, 0, 0, length[0], length[1], 6, 64];
            h.extend(octets(self.from.ip()));
            h.extend(octets(self.to.ip()));
            h
        };
        packet.extend(tcp);
        packet
    }

    /// Reads a packet of the stack under test, which must be right in every checksum and length.
    pub fn of_packet(packet: &[u8]) -> Self {
        let half = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = if packet[0] >> 4 == 4 {
            assert_eq!((usize::from(half(2)), packet[0] & 15, packet[9]), (packet.len(), 5, 6));
            assert_eq!(sum(&packet[..20]), 0, "IPv4 checksum");
            let ip = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap();
            (ip(12).into(), ip(16).into(), &packet[20..])
        } else {
            assert_eq!((usize::from(half(4)), packet[0] >> 4, packet[6]), (packet.len() - 40, 6, 6));
            let ip = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap();
            (ip(8).into(), ip(24).into(), &packet[40..])
        };
        assert_eq!(tcp_sum(from, to, tcp), 0, "TCP checksum");
        let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let header = usize::from(tcp[12] >> 4) * 4;
        let mut options = &tcp[20..header];
        let mut mss = None;
        while let [kind, rest @ ..] = options {
            match (kind, rest) {
                (0, _) => break,
                (1, _) => options = rest,
                (2, [4, a, b, ..]) => {
                    mss = Some(u16::from_be_bytes([*a, *b]));
                    options = &options[4..];
                }
                (_, [length, ..]) => options = &options[usize::from(*length)..],
                _ => panic!("an option without a length"),
            }
        }
        Self {
            from: SocketAddr::new(from, port(0)),
            to: SocketAddr::new(to, port(2)),
            flags: tcp[13],
            seq: word(4),
            ack: word(8),
            window: port(14),
            mss,
            data: tcp[header..].to_vec(),
        }
    }
}

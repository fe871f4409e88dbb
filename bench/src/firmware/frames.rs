//! The peer's side of the wire: frames are made and read here, outside of what is measured.

use std::net::Ipv4Addr;

/// Where the stack's own end is.
pub const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Its port.
pub const LOCAL_PORT: u16 = 80;
pub const LOCAL_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Bytes before the IP header.
pub const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
/// Bytes of the timestamps option, padded.
const TIMESTAMP_BYTES: usize = 12;
/// Headers of every segment but a SYN.
pub const HEADER_BYTES: usize = ETHERNET_BYTES + IP_BYTES + TCP_BYTES + TIMESTAMP_BYTES;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// The shift of the peer's own window field.
const PEER_SHIFT: u8 = 10;
/// Ports of one address of the peer.
const PORTS: usize = 60_000;

/// Frames one after the other in one piece of memory.
pub struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Room for the longest frame.
pub const FRAME_BYTES_MAX: usize = 65_549;

impl Frames {
    pub fn new(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes], ends: Vec::with_capacity(4096) }
    }

    pub fn clear(&mut self) {
        self.ends.clear();
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn end(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Whether one more of any length has room.
    pub fn has_room(&self) -> bool {
        self.bytes.len() - self.end() >= FRAME_BYTES_MAX
    }

    /// Where the next one goes; [`Self::push`] says how long it has become.
    pub fn room(&mut self) -> &mut [u8] {
        let at = self.end();
        &mut self.bytes[at..]
    }

    pub fn push(&mut self, length: usize) {
        self.ends.push(self.end() + length);
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|i| &self.bytes[if i == 0 { 0 } else { self.ends[i - 1] }..self.ends[i]])
    }
}

/// One connection of the peer.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    number: usize,
    /// The next octet that the peer sends.
    pub seq: u32,
    /// The next octet that it expects.
    pub ack: u32,
    /// Behind the last octet that the stack lets in.
    pub edge: u32,
    shift: u8,
    echo: u32,
}

impl Flow {
    /// The peer's connection of that number, at rest.
    pub fn new(number: usize) -> Self {
        let seq = 0xffff_0000_u32.wrapping_add((number as u32).wrapping_mul(7919));
        Self { number, seq, ack: 0, edge: seq, shift: 0, echo: 0 }
    }

    /// The same again: its sequence numbers lie beyond those of the life before.
    pub fn later(number: usize, now_us: u64) -> Self {
        let flow = Self::new(number);
        let seq = flow.seq.wrapping_add(now_us as u32);
        Self { seq, edge: seq, ..flow }
    }

    /// Where it comes from.
    pub fn ends(&self) -> (Ipv4Addr, u16) {
        (Ipv4Addr::new(198, 51, 100, 1 + (self.number / PORTS) as u8), 1024 + (self.number % PORTS) as u16)
    }

    /// The number of the connection between these ends.
    pub fn number(address: Ipv4Addr, port: u16) -> usize {
        usize::from(address.octets()[3] - 1) * PORTS + usize::from(port) - 1024
    }

    /// How many octets the stack lets in now.
    pub fn room(&self) -> usize {
        self.edge.wrapping_sub(self.seq) as usize
    }

    /// Appends a segment with `text_bytes` of text to `frames`, and counts it as sent. A SYN announces `mss`.
    pub fn send(&mut self, frames: &mut Frames, flags: u8, text_bytes: usize, mss: u16, now_us: u64) {
        let is_syn = flags & SYN != 0;
        let option_bytes = if is_syn { 20 } else { TIMESTAMP_BYTES };
        let tcp_bytes = TCP_BYTES + option_bytes + text_bytes;
        let length = ETHERNET_BYTES + IP_BYTES + tcp_bytes;
        let (address, port) = self.ends();
        let b = &mut frames.room()[..length];
        b[..6].copy_from_slice(&LOCAL_MAC);
        b[6..12].copy_from_slice(&PEER_MAC);
        b[12..14].copy_from_slice(&[8, 0]);
        let ip = &mut b[ETHERNET_BYTES..];
        ip[0] = 0x45;
        ip[1] = 0;
        ip[2..4].copy_from_slice(&((IP_BYTES + tcp_bytes) as u16).to_be_bytes());
        ip[4..12].copy_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip[12..16].copy_from_slice(&address.octets());
        ip[16..20].copy_from_slice(&LOCAL.octets());
        let sum = finish(add(0, &ip[..IP_BYTES]));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let tcp = &mut ip[IP_BYTES..];
        tcp[0..2].copy_from_slice(&port.to_be_bytes());
        tcp[2..4].copy_from_slice(&LOCAL_PORT.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        tcp[12] = ((TCP_BYTES + option_bytes) as u8 / 4) << 4;
        tcp[13] = flags;
        tcp[14..20].copy_from_slice(&[0xff, 0xff, 0, 0, 0, 0]);
        let value = (now_us / 1000) as u32;
        let options = &mut tcp[TCP_BYTES..];
        if is_syn {
            let [high, low] = mss.to_be_bytes();
            options[..4].copy_from_slice(&[2, 4, high, low]);
            options[4..8].copy_from_slice(&[4, 2, 8, 10]);
            options[16..20].copy_from_slice(&[1, 3, 3, PEER_SHIFT]);
        } else {
            options[..4].copy_from_slice(&[1, 1, 8, 10]);
        }
        let at = if is_syn { 8 } else { 4 };
        options[at..at + 4].copy_from_slice(&value.to_be_bytes());
        options[at + 4..at + 8].copy_from_slice(&self.echo.to_be_bytes());
        options[option_bytes..].fill(self.seq as u8);
        let pseudo = add(add(0, &address.octets()), &LOCAL.octets()) + 6 + tcp_bytes as u64;
        let sum = finish(add(pseudo, tcp));
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        frames.push(length);
        self.seq = self.seq.wrapping_add(text_bytes as u32 + u32::from(flags & (SYN | FIN) != 0));
    }

    /// Takes a segment of the stack's. How many octets of text were new in it.
    pub fn take(&mut self, segment: &Segment) -> usize {
        let before = self.ack;
        if segment.flags & SYN != 0 {
            self.ack = segment.seq.wrapping_add(1);
            self.shift = segment.shift;
            self.edge = segment.ack.wrapping_add(segment.window.into());
        } else {
            let end = segment.seq.wrapping_add(segment.text_bytes as u32 + u32::from(segment.flags & FIN != 0));
            if end.wrapping_sub(self.ack) as i32 > 0 {
                assert_eq!(segment.seq, self.ack, "a stack over a perfect wire sends in order");
                self.ack = end;
            }
            self.edge = segment.ack.wrapping_add(u32::from(segment.window) << self.shift);
        }
        self.echo = segment.timestamp;
        if segment.flags & SYN != 0 { 0 } else { self.ack.wrapping_sub(before) as usize }
    }
}

fn add(sum: u64, bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    sum + pairs.sum::<u64>()
}

fn finish(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// What the peer reads of a segment of the stack's.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Of which connection it is.
    pub flow: usize,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub text_bytes: usize,
    shift: u8,
    timestamp: u32,
}

impl Segment {
    /// Reads an IPv4 packet.
    pub fn read(ip: &[u8]) -> Self {
        let be16 = |b: &[u8], at: usize| u16::from_be_bytes([b[at], b[at + 1]]);
        let be32 = |b: &[u8], at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let total = usize::from(be16(ip, 2));
        let tcp = &ip[IP_BYTES..total];
        let offset = usize::from(tcp[12] >> 4) * 4;
        let mut options = &tcp[TCP_BYTES..offset];
        let (mut shift, mut timestamp) = (0, 0);
        while let [kind, rest @ ..] = options {
            match kind {
                0 => break,
                1 => options = rest,
                _ => {
                    match kind {
                        3 => shift = options[2],
                        8 => timestamp = be32(options, 2),
                        _ => (),
                    }
                    options = &options[usize::from(options[1])..];
                }
            }
        }
        let address = Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]);
        Self {
            flow: Flow::number(address, be16(tcp, 2)),
            seq: be32(tcp, 4),
            ack: be32(tcp, 8),
            flags: tcp[13],
            window: be16(tcp, 14),
            text_bytes: tcp.len() - offset,
            shift,
            timestamp,
        }
    }
}

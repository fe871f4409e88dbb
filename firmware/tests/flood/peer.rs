//! Segments of peers, as bytes: written and read without the code under test.

use std::net::Ipv4Addr;

use crate::guest::GUEST_MAC;

/// The card's end.
pub const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 2), 80);

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// What a segment says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said {
    pub remote: u32,
    pub port: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// The window shift.
    pub shift: u8,
    /// TSval and TSecr.
    pub stamps: Option<(u32, u32)>,
    pub text_bytes: usize,
}

/// A frame to the card; the TCP checksum is left to `Checksum::Trusted`.
pub fn frame(said: &Said, into: &mut Vec<u8>) {
    into.clear();
    into.extend(GUEST_MAC.0);
    into.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    let syn = said.flags & SYN != 0;
    let mut options: Vec<u8> = Vec::new();
    if syn {
        options.extend([2, 4, 5, 0xb4]);
    }
    if let Some((value, echo)) = said.stamps {
        options.extend(if syn { [4, 2, 8, 10] } else { [1, 1, 8, 10] });
        options.extend(value.to_be_bytes());
        options.extend(echo.to_be_bytes());
    }
    if syn {
        options.extend([1, 3, 3, 7]);
    }
    let total = 20 + 20 + options.len() + said.text_bytes;
    let at = into.len();
    into.extend([0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    into.extend(said.remote.to_be_bytes());
    into.extend(LOCAL.0.octets());
    let sum: u32 = into[at..].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    into[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    into.extend(said.port.to_be_bytes());
    into.extend(LOCAL.1.to_be_bytes());
    into.extend(said.seq.to_be_bytes());
    into.extend(said.ack.to_be_bytes());
    into.extend([(((20 + options.len()) / 4) << 4) as u8, said.flags]);
    into.extend(said.window.to_be_bytes());
    into.extend([0; 4]);
    into.extend(options);
    into.resize(at + total, 7);
}

/// Reads a frame of the card.
pub fn read(frame: &[u8]) -> Said {
    let be16 = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let be32 = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let tcp = 34;
    let header = usize::from(frame[tcp + 12] >> 4) * 4;
    let (mut stamps, mut shift) = (None, 0);
    let mut at = tcp + 20;
    while at < tcp + header {
        match frame[at] {
            0 => break,
            1 => at += 1,
            kind => {
                if kind == 3 {
                    shift = frame[at + 2];
                }
                if kind == 8 {
                    stamps = Some((be32(at + 2), be32(at + 6)));
                }
                at += usize::from(frame[at + 1]);
            }
        }
    }
    Said {
        remote: be32(30),
        port: be16(tcp + 2),
        seq: be32(tcp + 4),
        ack: be32(tcp + 8),
        flags: frame[tcp + 13],
        window: be16(tcp + 14),
        shift,
        stamps,
        text_bytes: usize::from(be16(16)) - 20 - header,
    }
}

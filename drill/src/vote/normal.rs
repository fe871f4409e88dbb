//! The peer of a case, and what it hears, made comparable.

use std::fmt;
use std::net::SocketAddr;

use super::grammar::{Acknowledgement, Sequence, Shot};
use crate::language::{Flags, Segment, TcpOption};
use crate::wire::{self, Read};

/// The peer's initial number: its text wraps soon.
const PEER_ISS: u32 = u32::MAX - 200;
/// What the peer offers in its SYN.
const MSS: u16 = 1000;
const WINDOW: u16 = 20_000;
const FLAGS_COMPARED: u16 = Flags::SYN | Flags::FIN | Flags::RST | Flags::ACK;

/// A segment of a stack's, as far as it is compared. Numbers count from each side's SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    flags: u16,
    sequence: i64,
    length: u32,
    ack: Option<i64>,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: String =
            Flags::LETTERS.iter().enumerate().filter(|(b, _)| self.flags >> b & 1 != 0).map(|(_, l)| l).collect();
        write!(f, "> {letters} {}({})", self.sequence, self.length)?;
        self.ack.map_or(Ok(()), |ack| write!(f, " ack {ack}"))
    }
}

impl Said {
    fn is_bare(&self) -> bool {
        self.flags == Flags::ACK && self.length == 0
    }

    fn end(&self) -> i64 {
        self.sequence + i64::from(self.length) + i64::from(self.flags & (Flags::SYN | Flags::FIN) != 0)
    }
}

/// The peer.
pub struct Peer {
    here: SocketAddr,
    there: SocketAddr,
    /// The stack's initial number.
    iss: Option<u32>,
    /// The stack's next number as far as it was seen, counted from its SYN.
    next: i64,
    /// The right edge of the window, as a number of the peer's own on the wire.
    edge: Option<u32>,
    /// The last acknowledgement that was heard.
    acked: Option<i64>,
}

impl Peer {
    /// The peer at `there` of a stack at `here`.
    pub fn new(here: SocketAddr, there: SocketAddr) -> Self {
        Self { here, there, iss: None, next: 0, edge: None, acked: None }
    }

    /// A segment as a packet.
    pub fn packet(&self, shot: &Shot) -> Vec<u8> {
        let sequence = match shot.sequence {
            Sequence::At(n) => PEER_ISS.wrapping_add(n as u32),
            Sequence::Edge(n) => self.edge.unwrap_or(PEER_ISS).wrapping_add(n as u32),
        };
        let acknowledgement = match shot.acknowledgement {
            Acknowledgement::None => None,
            Acknowledgement::Next(n) => {
                Some(self.iss.unwrap_or(1_000_000).wrapping_add(self.next as u32).wrapping_add(n as u32))
            }
        };
        let ack = if acknowledgement.is_some() { Flags::ACK } else { 0 };
        let options = if shot.flags & Flags::SYN != 0 { vec![TcpOption::Mss(Some(MSS))] } else { Vec::new() };
        let segment = Segment {
            ecn: None,
            flags: Flags(shot.flags | ack),
            sequence,
            length: shot.length,
            acknowledgement,
            window: Some(WINDOW),
            urgent: None,
            options: Some(options),
        };
        // A SYN's options fit, and nothing else has any.
        wire::build(self.there, self.here, &segment, &vec![9; shot.length as usize]).unwrap_or_default()
    }

    /// What the stack has said that the others can have said, too.
    pub fn hear(&mut self, heard: Vec<Read>) -> Vec<Said> {
        let mut said: Vec<Said> = Vec::new();
        for read in heard {
            if read.source != self.here || read.destination != self.there {
                continue;
            }
            if let Some(now) = self.one(&read.segment) {
                put(&mut said, now);
            }
        }
        said
    }

    fn one(&mut self, segment: &Segment) -> Option<Said> {
        let flags = segment.flags.0 & FLAGS_COMPARED;
        if flags & Flags::SYN != 0 && self.iss != Some(segment.sequence) {
            self.iss = Some(segment.sequence);
            self.next = 0;
        }
        let sequence = i64::from(segment.sequence.wrapping_sub(self.iss.unwrap_or(0)) as i32);
        let ack = segment.acknowledgement.map(|ack| i64::from(ack.wrapping_sub(PEER_ISS) as i32));
        let now = Said { flags, sequence, length: segment.length, ack };
        if flags & Flags::RST != 0 {
            // A reset says its number, and with or without ACK the same; where there was no number to take, it is zero on
            // the wire, and what it acknowledges counts (RFC 9293, 3.10.7.1).
            let unnumbered = segment.sequence == 0;
            let ack = ack.filter(|_| unnumbered);
            return Some(Said { flags: Flags::RST, ack, sequence: if unnumbered { 0 } else { sequence }, ..now });
        }
        let news = ack != self.acked;
        self.acked = ack;
        if let (Some(ack), Some(window)) = (segment.acknowledgement, segment.window) {
            // Nobody offers a window scale, so that it is what it says.
            self.edge = Some(ack.wrapping_add(window.into()));
        }
        if now.end() > self.next {
            self.next = now.end();
        } else if now.end() > now.sequence {
            // It was sent before: a timer, or the answer to something that came again. What it acknowledges may be new.
            return news.then_some(Said { flags: Flags::ACK, sequence: self.next, length: 0, ack });
        }
        Some(now)
    }
}

/// Adds a segment: text is joined, and acknowledgements that say nothing more than a neighbour are left out.
fn put(said: &mut Vec<Said>, now: Said) {
    let Some(last) = said.last_mut() else {
        said.push(now);
        return;
    };
    let last_is_bare = last.is_bare();
    if last_is_bare && *last == now {
        return;
    }
    let follows = last.end() == now.sequence
        && now.flags & (Flags::SYN | Flags::RST) == 0
        && last.flags & (Flags::SYN | Flags::FIN | Flags::RST) == 0;
    if now.is_bare() && last.end() == now.sequence && last.flags & Flags::RST == 0 {
        last.ack = now.ack;
    } else if follows {
        *last = Said { sequence: last.sequence, length: last.length + now.length, ..now };
    } else {
        said.push(now);
    }
}

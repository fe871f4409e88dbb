//! One connection between a script's numbers and the wire's.
//!
//! A script counts each side's sequence numbers from where it likes. What the script's own side (the peer) says goes onto the wire as it
//! is, shifted by a constant; what the stack says is shifted so that its SYN has the number that the script gives it. The
//! stack's timestamps are its own affair: a value that a script names stands for whatever was seen under that name.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::language::{Flags, Segment, Span, TcpOption};

/// A byte of text that stands at this place in its stream.
pub fn octet(position: u64) -> u8 {
    (position % 251) as u8
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The stack's end; the port is unknown until an active open's SYN has been seen.
    pub local: SocketAddr,
    /// The script's end.
    pub remote: SocketAddr,
    /// What is added to the peer's numbers.
    remote_shift: u32,
    /// What is added to the stack's numbers; nothing before its first SYN.
    local_shift: Option<u32>,
    /// A SYN of the stack's may begin a new life with other numbers.
    renewable: bool,
    /// The peer's SYN, in the script's numbers: its text begins after it.
    peer_start: Option<u32>,
    /// A further SYN of the peer's: the stack may take it for a new life's, and says so with a SYN of its own.
    peer_restart: Option<u32>,
    /// The stack's SYN, in the script's numbers.
    own_start: Option<u32>,
    /// The stack's timestamps, by the names that the script gives them.
    timestamps: BTreeMap<u32, u32>,
}

impl Flow {
    /// A connection that has not begun.
    pub fn new(local: SocketAddr, remote: SocketAddr, remote_shift: u32) -> Self {
        Self {
            local,
            remote,
            remote_shift,
            local_shift: None,
            renewable: true,
            peer_start: None,
            peer_restart: None,
            own_start: None,
            timestamps: BTreeMap::new(),
        }
    }

    /// An inbound segment of a script as it goes onto the wire, with its text.
    pub fn inbound(&mut self, said: &Segment) -> (Segment, Vec<u8>) {
        if said.flags.has(Flags::SYN) {
            if self.peer_start.is_none() {
                self.peer_start = Some(said.sequence);
            } else {
                self.peer_restart = Some(said.sequence);
            }
            self.renewable = true;
        }
        let start = self.peer_start.map_or(0, |start| start.wrapping_add(1));
        let first = said.sequence.wrapping_add(u32::from(said.flags.has(Flags::SYN)));
        let position = u64::from(first.wrapping_sub(start));
        let text = (0..u64::from(said.length)).map(|i| octet(position + i)).collect();
        let shift = self.local_shift.unwrap_or(0);
        let options = said.options.as_ref().map(|list| list.iter().map(|o| self.inbound_option(o, shift)).collect());
        let segment = Segment {
            sequence: said.sequence.wrapping_add(self.remote_shift),
            acknowledgement: said.acknowledgement.map(|ack| ack.wrapping_add(shift)),
            options,
            ..said.clone()
        };
        (segment, text)
    }

    fn inbound_option(&self, option: &TcpOption, shift: u32) -> TcpOption {
        match option {
            TcpOption::Sack(spans) => TcpOption::Sack(shifted(spans, shift)),
            TcpOption::Timestamps { value, echo } => {
                let echo = echo.map(|echo| self.timestamps.get(&echo).copied().unwrap_or(echo));
                TcpOption::Timestamps { value: *value, echo }
            }
            other => other.clone(),
        }
    }

    /// A segment of the stack's in the script's numbers. `like` is the one that the script expects: its SYN names the
    /// stack's numbers, its timestamps are the names of the stack's.
    pub fn outbound(&mut self, sent: &Segment, like: &Segment) -> Segment {
        if sent.flags.has(Flags::SYN) && like.flags.has(Flags::SYN) {
            self.peer_start = self.peer_restart.take().or(self.peer_start);
            let same = self.local_shift.is_some_and(|shift| sent.sequence.wrapping_sub(shift) == like.sequence);
            if !same && (self.renewable || self.local_shift.is_none()) {
                self.local_shift = Some(sent.sequence.wrapping_sub(like.sequence));
                self.own_start = Some(like.sequence);
                self.renewable = false;
            }
        }
        let mut segment = self.named(sent);
        let named = like.options.iter().flatten().find_map(|o| match o {
            TcpOption::Timestamps { value, .. } => *value,
            _ => None,
        });
        for option in segment.options.iter_mut().flatten() {
            if let (TcpOption::Timestamps { value: Some(value), .. }, Some(name)) = (option, named) {
                self.timestamps.insert(name, *value);
                *value = name;
            }
        }
        segment
    }

    /// A segment of the stack's in the script's numbers, as far as they are known.
    pub fn named(&self, sent: &Segment) -> Segment {
        let shift = self.local_shift.unwrap_or(0);
        let options = sent.options.as_ref().map(|list| {
            let option = |o: &TcpOption| match o {
                TcpOption::Sack(spans) => TcpOption::Sack(shifted(spans, self.remote_shift.wrapping_neg())),
                other => other.clone(),
            };
            list.iter().map(option).collect()
        });
        Segment {
            sequence: sent.sequence.wrapping_sub(shift),
            acknowledgement: sent.acknowledgement.map(|ack| ack.wrapping_sub(self.remote_shift)),
            options,
            ..sent.clone()
        }
    }

    /// The first byte of the stack's text that is not what the program wrote, by its place in the stream.
    pub fn strange_byte(&self, named: &Segment, text: &[u8]) -> Option<u64> {
        let start = self.own_start?.wrapping_add(1);
        let first = named.sequence.wrapping_add(u32::from(named.flags.has(Flags::SYN)));
        let position = u64::from(first.wrapping_sub(start));
        text.iter().zip(position..).find(|(byte, position)| **byte != octet(*position)).map(|(_, position)| position)
    }

    /// A sequence number of the stack's, as on the wire.
    pub fn own_number(&self, number: u32) -> u32 {
        number.wrapping_add(self.local_shift.unwrap_or(0))
    }
}

fn shifted(spans: &[Span], shift: u32) -> Vec<Span> {
    spans.iter().map(|s| Span { from: s.from.wrapping_add(shift), to: s.to.wrapping_add(shift) }).collect()
}

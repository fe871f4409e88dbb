//! A peer that means harm: it completes handshakes, so that it is somebody, and then says what no honest TCP says.
//!
//! Its text is that of its stream, wherever it puts it (again, overlapping, far ahead, beyond the window), so that what the
//! card hands to its guest can still be compared. Everything else is made up: acknowledgements of what was never sent,
//! windows that open, shrink and close, timestamps that jump, SACK blocks about nothing, flags that contradict
//! each other, resets and SYNs near the window. When the bad time is over it answers everything with a RST.

use std::collections::VecDeque;
use std::net::IpAddr;

use toe_abi::Mac;
use toe_impair::Random;

use crate::end::{End, Flow, Pair, Read, Status, Streams};
use crate::frames::{ACK, CWR, ECE, FIN, Make, PSH, RST, SYN, Segment, URG, options, segment};
use crate::transcript::Transcript;

/// It says no more than that before its time is over.
const FRAMES_MAX: u64 = 4_000;

/// It speaks unasked so often, on average.
const PAUSE_US: u64 = 30_000;

/// One connection, as it sees it.
#[derive(Debug)]
struct Peer {
    pair: Pair,
    streams: Streams,
    iss: u32,
    /// Its own next number, and the card's.
    next: u32,
    expected: Option<u32>,
    timestamp: Option<u32>,
    has_sack: bool,
}

/// The peer.
pub struct Adversary {
    macs: [u8; 12],
    random: Random,
    peers: Vec<Peer>,
    /// Connections that the card will open.
    wanted: Vec<(Pair, Streams)>,
    out: VecDeque<Vec<u8>>,
    spoken: u64,
    next_us: u64,
    is_over: bool,
    transcript: Transcript,
}

/// A segment between these ends that says nothing.
fn bare(pair: &Pair) -> Make<'static> {
    Make {
        source: pair.local.ip(),
        destination: pair.remote.ip(),
        source_port: pair.local.port(),
        destination_port: pair.remote.port(),
        seq: 0,
        ack: 0,
        flags: 0,
        window: 0,
        urgent: 0,
        options: &[],
        payload: &[],
    }
}

impl Adversary {
    pub fn new(name: &'static str, mac: Mac, card: Mac, random: Random) -> Self {
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&card.0);
        macs[6..].copy_from_slice(&mac.0);
        Self {
            macs,
            random,
            peers: Vec::new(),
            wanted: Vec::new(),
            out: VecDeque::new(),
            spoken: 0,
            next_us: PAUSE_US,
            is_over: false,
            transcript: Transcript::new(name),
        }
    }

    /// From now on it only says that it knows nothing.
    pub fn mend(&mut self) {
        self.is_over = true;
        self.out.clear();
    }

    fn push(&mut self, segment: Make<'_>) {
        let urgent = if segment.flags & URG != 0 { self.random.bits() as u16 } else { 0 };
        self.spoken += 1;
        self.out.push_back(Make { urgent, ..segment }.frame(&self.macs));
    }

    fn reset(&mut self, s: &Segment<'_>) {
        if s.has(RST) {
            return;
        }
        let pair = Pair { local: (s.destination, s.destination_port).into(), remote: (s.source, s.source_port).into() };
        let (seq, ack, flags) =
            if s.has(ACK) { (s.ack, 0, RST) } else { (0, s.seq.wrapping_add(s.length()), RST | ACK) };
        self.push(Make { seq, ack, flags, ..bare(&pair) });
    }

    /// Its SYN, or the answer to one.
    fn say_syn(&mut self, i: usize) {
        let (mss, scale) = ((self.random.bits() as u16 | 1).to_be_bytes(), self.random.below(16) as u8);
        let mut said = vec![2, 4, mss[0], mss[1]];
        if self.random.one_in(2) {
            said.extend([1, 3, 3, scale]);
        }
        let peer = &mut self.peers[i];
        if peer.has_sack {
            said.extend([1, 1, 4, 2]);
        }
        if let Some(t) = peer.timestamp {
            said.extend([1, 1, 8, 10]);
            said.extend(t.to_be_bytes());
            said.extend([0; 4]);
        }
        let (pair, iss, expected) = (peer.pair, peer.iss, peer.expected);
        peer.next = iss.wrapping_add(1);
        let flags = SYN | if expected.is_some() { ACK } else { 0 };
        let window = self.random.bits() as u16;
        let ack = expected.unwrap_or(0);
        self.push(Make { seq: iss, ack, flags, window, options: &said, ..bare(&pair) });
    }

    fn begin(&mut self, pair: Pair, streams: Streams, syn: Option<&Segment<'_>>) {
        let agreed = syn.and_then(|s| options(s.options));
        let timestamp = self.random.one_in(2).then(|| self.random.bits() as u32);
        let peer = Peer {
            pair,
            streams,
            iss: self.random.bits() as u32,
            next: 0,
            expected: syn.map(|s| s.seq.wrapping_add(1)),
            timestamp: timestamp.filter(|_| agreed.is_none_or(|o| o.timestamps.is_some())),
            has_sack: self.random.one_in(2) && agreed.is_none_or(|o| o.sack_permitted),
        };
        self.peers.push(peer);
        self.say_syn(self.peers.len() - 1);
    }

    /// Says something to the card about connection `i`.
    fn speak(&mut self, i: usize) {
        if self.spoken >= FRAMES_MAX {
            return;
        }
        let random = &mut self.random;
        let peer = &mut self.peers[i];
        let expected = peer.expected.unwrap_or_else(|| random.bits() as u32);
        let near = |random: &mut Random, number: u32| {
            let most = [3, 2_000, 70_000, 1 << 20][random.below(4) as usize];
            number.wrapping_add(random.below(most) as u32).wrapping_sub(random.below(most) as u32)
        };
        let mut said = Vec::new();
        if let Some(t) = &mut peer.timestamp {
            let step = match random.below(20) {
                0 => near(random, 0),
                1 => random.bits() as u32,
                _ => random.below(3) as u32,
            };
            *t = t.wrapping_add(step);
            if !random.one_in(30) {
                said.extend([1, 1, 8, 10]);
                said.extend(t.to_be_bytes());
                said.extend((random.bits() as u32).to_be_bytes());
            }
        }
        if peer.has_sack && random.one_in(3) {
            let blocks = random.between(1, 3) as u8;
            said.extend([1, 1, 5, 2 + 8 * blocks]);
            for _ in 0..blocks {
                let left = near(random, expected);
                said.extend(left.to_be_bytes());
                said.extend(left.wrapping_add(random.below(5_000) as u32).to_be_bytes());
            }
        }
        if random.one_in(40) {
            said.truncate(20);
            let mut noise = [0; 8];
            random.fill(&mut noise);
            said.extend(noise);
        }
        let ack = match random.below(8) {
            0 => near(random, expected),
            1 => random.bits() as u32,
            _ => expected,
        };
        let window = match random.below(6) {
            0 => 0,
            1 => random.below(10) as u16,
            2 => random.below(2_000) as u16,
            _ => random.bits() as u16,
        };
        let flags = match random.below(60) {
            0 => ACK | FIN,
            1 => RST,
            2 => SYN,
            3 => ACK | SYN,
            4 => random.bits() as u8,
            5 => 0,
            6 => ACK | RST,
            7..=12 => ACK | ECE,
            13..=15 => ACK | CWR | PSH,
            _ => ACK,
        };
        // Where its text goes, and the text that belongs there.
        let at = match random.below(6) {
            0 => near(random, peer.next),
            1 => peer.iss.wrapping_add(1 + random.below(3_000) as u32),
            _ => peer.next,
        };
        let at = match flags & (RST | SYN | FIN) {
            // It may begin anew where a reset has ended what was; its stream begins where it always did.
            with_syn if with_syn & SYN != 0 => peer.iss,
            0 => at,
            _ if random.one_in(4) => peer.next,
            _ => at,
        };
        let offset = at.wrapping_sub(peer.iss).wrapping_sub(1);
        let bytes = if offset < 1 << 24 { random.below(3) * random.below(700) } else { 0 } as usize;
        let payload = peer.streams.out.piece(offset.into(), bytes);
        if at == peer.next {
            peer.next = at.wrapping_add(bytes as u32);
        }
        let pair = peer.pair;
        // Behind a SYN the text would stand one place further on.
        let payload = if flags & SYN == 0 { payload } else { &[] };
        self.push(Make { seq: at, ack, flags, window, options: &said, payload, ..bare(&pair) });
    }
}

impl End for Adversary {
    fn handle_frame(&mut self, now_us: u64, frame: &mut Vec<u8>) {
        let Some(s) = segment(frame) else { return };
        if !s.checksums_right() {
            return;
        }
        if self.is_over {
            self.reset(&s);
            return;
        }
        self.next_us = self.next_us.min(now_us + self.random.below(2 * PAUSE_US));
        let here = (s.destination, s.destination_port).into();
        let there = (s.source, s.source_port).into();
        let at = self.peers.iter().position(|p| p.pair.local == here && p.pair.remote == there);
        let Some(i) = at else {
            let wanted = self.wanted.iter().find(|(p, _)| p.local == here && p.remote == there);
            match wanted.copied() {
                Some((pair, streams)) if s.has(SYN) => self.begin(pair, streams, Some(&s)),
                _ => self.reset(&s),
            }
            return;
        };
        if s.has(RST) && self.random.one_in(2) {
            self.peers.swap_remove(i);
            return;
        }
        let peer = &mut self.peers[i];
        if s.has(SYN) {
            peer.expected = Some(s.seq.wrapping_add(1));
            if !s.has(ACK) && self.spoken < FRAMES_MAX {
                self.say_syn(i);
                return;
            }
        } else if peer.expected == Some(s.seq) && !self.random.one_in(10) {
            // What it does not take comes again.
            peer.expected = Some(s.seq.wrapping_add(s.length()));
        }
        for _ in 0..[0, 1, 1, 1, 2, 5][self.random.below(6) as usize] {
            self.speak(i);
        }
    }

    fn handle_timeout(&mut self, now_us: u64) -> bool {
        if self.is_over || now_us < self.next_us {
            return false;
        }
        self.next_us = now_us + 1 + self.random.exponential(PAUSE_US);
        if self.spoken >= FRAMES_MAX {
            self.next_us = u64::MAX;
        } else if !self.peers.is_empty() {
            let i = self.random.below(self.peers.len() as u64) as usize;
            self.speak(i);
        }
        true
    }

    fn next_us(&mut self) -> Option<u64> {
        (!self.is_over).then_some(self.next_us)
    }

    fn poll_frame(&mut self, now_us: u64, frame: &mut Vec<u8>) -> bool {
        let Some(next) = self.out.pop_front() else { return false };
        frame.extend_from_slice(&next);
        self.transcript.frame(now_us, "> wire", frame);
        true
    }

    fn transcript(&self) -> u64 {
        self.transcript.hash()
    }

    fn connect(&mut self, _: u64, _: Flow, pair: Pair, streams: Streams) {
        self.begin(pair, streams, None);
    }

    fn accept(&mut self, _: u64, _: Flow, pair: Pair, _: Option<IpAddr>, streams: Streams) {
        self.wanted.push((pair, streams));
    }

    fn status(&mut self, _: Flow) -> Status {
        Status::Broken("no program here")
    }

    fn write(&mut self, _: Flow, _: u64) -> u64 {
        0
    }

    fn read(&mut self, _: Flow, _: u64) -> Read {
        Read::Wait
    }

    fn shutdown(&mut self, _: Flow) {}

    fn all_acknowledged(&mut self, _: Flow) -> bool {
        true
    }

    fn abort(&mut self, _: Flow) {}

    fn release(&mut self, _: Flow) {}

    fn all_released(&self) -> bool {
        true
    }
}

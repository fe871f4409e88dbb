//! What one segment costs: received in order, sent and acknowledged, and both in turns.

use super::card::Card;
use super::frames::{ACK, FRAME_BYTES_MAX, HEADER_BYTES, PSH};
use super::peer::Pair;
use super::smol::Smol;
use super::stack::{Ask, Stack};
use crate::measure::Stopwatch;
use toe_firmware::{Checksum, Limits, Profile};

/// How long the segments are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    pub name: &'static str,
    /// Octets of text.
    pub text_bytes: usize,
    mtu: u32,
    /// The peer's MSS.
    mss: u16,
}

/// The text of a full segment beside the timestamps option, on Ethernet.
pub const MSS_TEXT: usize = 1448;

/// 64 octets, a full segment of Ethernet, and as many of those as are merged at most.
pub const SIZES: [Size; 3] = [
    Size { name: "64 B", text_bytes: 64, mtu: 1500, mss: 1460 },
    Size { name: "MSS", text_bytes: MSS_TEXT, mtu: 1500, mss: 1460 },
    Size { name: "64 KiB", text_bytes: 45 * MSS_TEXT, mtu: 65_535, mss: 45 * MSS_TEXT as u16 + 12 },
];

/// What is done with segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    /// They come in order: parsed, checked, kept and acknowledged. What the program takes is measured by itself.
    Receive,
    /// The program's data goes out and is acknowledged, from its write to the room that it has again.
    Send,
    /// A segment comes, the program reads it and answers with as much; each counts.
    Mixed,
}

impl Doing {
    pub const ALL: [Self; 3] = [Self::Receive, Self::Send, Self::Mixed];

    pub fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Mixed => "mixed",
        }
    }
}

/// What the peer has between two looks at the stack, in octets: less than any window.
const TURN_BYTES: usize = 1 << 20;

/// Segments in a turn.
const TURN: usize = 32;

/// A stack with one connection.
pub struct Case<S> {
    pair: Pair<S>,
    size: Size,
}

/// What a round took, in nanoseconds per segment.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// In the stack.
    pub segment: f64,
    /// For what the program takes, if that was measured by itself.
    pub program: f64,
}

/// The card.
pub fn card(size: Size, is_trusted: bool) -> Case<Card> {
    let profile = Profile {
        limits: Limits { connections: 64, half_open: 64, time_wait: 64, transmit_records: 8192, ..Limits::default() },
        ..Profile::default()
    };
    let checksum = if is_trusted { Checksum::Trusted } else { Checksum::Unverified };
    Case::new(Card::new(&profile, size.mtu, checksum, 1), size)
}

/// smoltcp.
pub fn smol(size: Size, is_trusted: bool) -> Case<Smol> {
    Case::new(Smol::new(size.mtu as usize, is_trusted, 1, 4 << 20, 1), size)
}

impl<S: Stack> Case<S> {
    fn new(stack: S, size: Size) -> Self {
        let bytes = 2 * TURN * (size.text_bytes + HEADER_BYTES) + 2 * TURN_BYTES + FRAME_BYTES_MAX;
        let mut pair = Pair::new(stack, size.mss, 1, bytes);
        pair.open_all(0..1);
        let mut case = Self { pair, size };
        // The windows grow to what they will be.
        for doing in [Doing::Receive, Doing::Send] {
            case.round(doing, 2000);
        }
        case
    }

    pub fn name(&self) -> &'static str {
        self.pair.stack.name()
    }

    /// At least so many segments.
    pub fn round(&mut self, doing: Doing, segments: usize) -> Cost {
        let mut watches = [Stopwatch::default(); 2];
        let mut done = 0;
        while done < segments {
            done += match doing {
                Doing::Receive => self.receive(&mut watches),
                Doing::Send => self.send(&mut watches[0]),
                Doing::Mixed => self.mixed(&mut watches[0]),
            };
            self.pair.pass(20);
        }
        let [segment, program] = watches.map(|watch| watch.ns() / done as f64);
        Cost { segment, program }
    }

    fn receive(&mut self, [stack, program]: &mut [Stopwatch; 2]) -> usize {
        let bytes = self.size.text_bytes;
        let count = TURN.min(self.pair.flows[0].room() / bytes).min(TURN_BYTES / bytes);
        if count == 0 {
            // An acknowledgement waits for its time.
            self.pair.pass(20_000);
            self.pair.send(std::iter::empty(), ACK, 0, stack);
            assert!(self.pair.flows[0].room() >= bytes, "{}: the window opens", self.name());
            return 0;
        }
        self.pair.send(std::iter::repeat_n(0, count), ACK | PSH, bytes, stack);
        assert_eq!(self.pair.read(program).0, count * bytes, "all of it was taken");
        count
    }

    fn send(&mut self, watch: &mut Stopwatch) -> usize {
        let bytes = self.size.text_bytes;
        let count = TURN.min(TURN_BYTES / bytes);
        let mut sent = 0;
        if bytes < MSS_TEXT {
            // Each by itself, or they would go as one.
            for _ in 0..count {
                sent += self.pair.ask(&[Ask::Write(0, bytes)], watch);
            }
        } else {
            sent += self.pair.ask(&vec![Ask::Write(0, bytes); count], watch);
        }
        // What the window lets out is acknowledged, with a segment for every two, until all has gone.
        let mut acknowledged = 0;
        while acknowledged < count {
            assert!(sent > acknowledged * bytes, "{}: something goes", self.name());
            let segments = (sent / bytes - acknowledged).div_ceil(2);
            acknowledged = sent / bytes;
            self.pair.pass(20);
            sent += self.pair.send(std::iter::repeat_n(0, segments.max(1)), ACK, 0, watch);
            sent += self.pair.read(watch).1;
        }
        count
    }

    fn mixed(&mut self, watch: &mut Stopwatch) -> usize {
        let bytes = self.size.text_bytes;
        let mut sent = self.pair.send(std::iter::once(0), ACK | PSH, bytes, watch);
        let (taken, more) = self.pair.read(watch);
        assert_eq!(taken, bytes, "it was taken");
        sent += more;
        sent += self.pair.ask(&[Ask::Write(0, bytes)], watch);
        assert_eq!(sent, bytes, "the answer has gone");
        2
    }
}

//! What a host does to the frames and timers of a card without meaning any harm: it calls late, it takes no more
//! frames than its rings hold, and it merges segments that come in a row (GRO; a TAP with virtio headers does the same).

use toe_impair::Random;

use crate::frames::{ACK, CWR, FIN, PSH, RST, SYN, Segment, URG, seal, segment};

/// The longest packet that merging makes.
const MERGED_BYTES_MAX: usize = 65_535;

/// A host's habits.
#[derive(Clone, Debug)]
pub struct Host {
    /// How late it calls the card for its timers.
    pub late_us: u64,
    /// How many frames its wire takes in [`SLOT_US`].
    pub frames_per_slot: u64,
    /// Whether it merges segments.
    pub merges: bool,
}

/// See [`Host::frames_per_slot`].
pub const SLOT_US: u64 = 50;

impl Host {
    /// One that is never late and takes everything as it comes.
    pub const IDEAL: Self = Self { late_us: 0, frames_per_slot: u64::MAX, merges: false };

    pub fn drawn(random: &mut Random) -> Self {
        Self {
            late_us: [0, 0, 200, 5_000][random.below(4) as usize],
            frames_per_slot: [u64::MAX, u64::MAX, 10, 1][random.below(4) as usize],
            merges: random.one_in(2),
        }
    }
}

/// The wire's side of a host's rings: counts what was taken in the present slot.
#[derive(Debug, Default)]
pub struct Slots {
    slot: u64,
    taken: u64,
    /// Whether a frame may be waiting for the next slot.
    is_waiting: bool,
}

impl Slots {
    /// Whether a frame can be taken at `now_us`.
    pub fn has_room(&mut self, now_us: u64, host: &Host) -> bool {
        let slot = now_us / SLOT_US;
        if slot != self.slot {
            (self.slot, self.taken) = (slot, 0);
        }
        self.is_waiting = self.taken >= host.frames_per_slot;
        !self.is_waiting
    }

    pub fn take(&mut self) {
        self.taken += 1;
    }

    /// When there is room again for what waits.
    pub fn next_us(&self) -> Option<u64> {
        self.is_waiting.then_some((self.slot + 1) * SLOT_US)
    }
}

fn can_merge(s: &Segment<'_>) -> bool {
    s.has(ACK) && !s.has(SYN | RST | URG | CWR) && !s.payload.is_empty() && s.checksums_right()
}

/// Segments in a row that become one. Lengths and checksums are made right once, when it is handed on.
#[derive(Debug, Default)]
pub struct Merger {
    /// The first segment, and the text of those behind it; empty if there is none.
    frame: Vec<u8>,
    /// How long the first was.
    first_bytes: usize,
    /// What the next must begin with; `None` if nothing may be appended.
    next_seq: Option<u32>,
    /// The flags of all of them.
    flags: u8,
}

impl Merger {
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// Begins with a frame, whose buffer it changes for an empty one; there must be none.
    pub fn begin(&mut self, frame: &mut Vec<u8>) {
        debug_assert!(self.is_empty(), "a frame is kept already");
        std::mem::swap(&mut self.frame, frame);
        self.first_bytes = self.frame.len();
        let first = segment(&self.frame).filter(can_merge).filter(|s| !s.has(PSH | FIN));
        self.next_seq = first.map(|s| s.seq.wrapping_add(s.payload.len() as u32));
        self.flags = first.map_or(0, |s| s.flags);
    }

    /// Appends a frame to what is kept; `false`, with nothing changed, if they do not belong together. Linux's conditions: the
    /// same connection, it begins where the last one ends, the same acknowledgement, options and marks, and what is kept
    /// neither pushes nor ends the stream.
    pub fn append(&mut self, next: &[u8]) -> bool {
        let Some(next_seq) = self.next_seq else { return false };
        let Some(b) = segment(next).filter(|b| b.seq == next_seq).filter(can_merge) else { return false };
        let Some(a) = segment(&self.frame[..self.first_bytes]) else { return false };
        let ends = |s: &Segment<'_>| (s.source, s.destination, s.source_port, s.destination_port);
        let rest = |s: &Segment<'_>| (s.ack, s.window, s.flags & !(PSH | FIN), s.traffic_class, s.hop_limit);
        let alike = ends(&a) == ends(&b) && rest(&a) == rest(&b) && a.options == b.options;
        if !alike || self.frame.len() + b.payload.len() > MERGED_BYTES_MAX {
            return false;
        }
        self.flags |= b.flags;
        self.next_seq = (!b.has(PSH | FIN)).then(|| next_seq.wrapping_add(b.payload.len() as u32));
        self.frame.extend_from_slice(b.payload);
        true
    }

    /// What is kept, as one frame, which the caller gives back to [`Self::give_back`]; empty if there is none.
    pub fn take(&mut self) -> Vec<u8> {
        if self.frame.len() > self.first_bytes {
            seal(&mut self.frame, self.flags);
        }
        (self.next_seq, self.first_bytes) = (None, 0);
        std::mem::take(&mut self.frame)
    }

    /// Takes the buffer for the next.
    pub fn give_back(&mut self, mut frame: Vec<u8>) {
        frame.clear();
        self.frame = frame;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Make;

    fn frame(seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let make = Make {
            source: [192, 0, 2, 1].into(),
            destination: [192, 0, 2, 2].into(),
            source_port: 1,
            destination_port: 2,
            seq,
            ack: 9,
            flags: ACK | flags,
            window: 100,
            urgent: 0,
            options: &[],
            payload,
        };
        make.frame(&[2; 12])
    }

    #[test]
    fn segments_in_a_row_become_one_and_others_do_not() {
        let first = frame(u32::MAX - 2, 0, b"abc");
        let mut merger = Merger::default();
        merger.begin(&mut first.clone());
        assert!(!merger.append(&frame(1, 0, b"d")), "a gap");
        assert!(!merger.append(&frame(0, 0, b"")), "no text");
        let mut damaged = frame(0, 0, b"d");
        damaged[54] ^= 1;
        assert!(!merger.append(&damaged), "a wrong checksum");
        assert!(merger.append(&frame(0, 0, b"defg")) && merger.append(&frame(4, FIN, b"h")));
        assert!(!merger.append(&frame(5, 0, b"i")), "behind a FIN");
        let one = merger.take();
        let s = segment(&one).unwrap();
        assert!(s.checksums_right() && s.has(FIN));
        assert_eq!((s.seq, s.payload), (u32::MAX - 2, &b"abcdefgh"[..]));
        merger.give_back(one);
        assert!(merger.is_empty());
        merger.begin(&mut frame(0, PSH, b"a"));
        assert!(!merger.append(&frame(1, 0, b"b")), "behind a push");
        assert_eq!(merger.take(), frame(0, PSH, b"a"), "one alone stays as it is");
    }
}

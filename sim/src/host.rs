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

/// Appends `next` to `first`; `false`, with nothing changed, if they do not belong together. Linux's conditions: the same
/// connection, `next` begins where `first` ends, the same acknowledgement, options and marks, and `first` neither pushes
/// nor ends the stream.
pub fn merge(first: &mut Vec<u8>, next: &[u8]) -> bool {
    let (Some(a), Some(b)) = (segment(first).filter(can_merge), segment(next).filter(can_merge)) else {
        return false;
    };
    let ends = |s: &Segment<'_>| (s.source, s.destination, s.source_port, s.destination_port);
    let rest = |s: &Segment<'_>| (s.ack, s.window, s.flags & !(PSH | FIN), s.traffic_class, s.hop_limit);
    let alike = ends(&a) == ends(&b) && rest(&a) == rest(&b) && a.options == b.options;
    let follows = b.seq == a.seq.wrapping_add(a.payload.len() as u32);
    let fits = first.len() + b.payload.len() <= MERGED_BYTES_MAX;
    if !alike || !follows || a.has(PSH | FIN) || !fits {
        return false;
    }
    let flags = a.flags | b.flags;
    first.extend_from_slice(b.payload);
    seal(first, flags);
    true
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
        let merged = |first: &[u8], next: &[u8]| {
            let mut one = first.to_vec();
            merge(&mut one, next).then_some(one)
        };
        let one = merged(&first, &frame(0, FIN, b"defg")).unwrap();
        let s = segment(&one).unwrap();
        assert!(s.checksums_right() && s.has(FIN));
        assert_eq!((s.seq, s.payload), (u32::MAX - 2, &b"abcdefg"[..]));
        assert_eq!(merged(&first, &frame(1, 0, b"d")), None, "a gap");
        assert_eq!(merged(&one, &frame(5, 0, b"h")), None, "behind a FIN");
        assert_eq!(merged(&first, &frame(0, 0, b"")), None, "no text");
    }
}

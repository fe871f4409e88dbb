//! What a host does to the frames and timers of a card without meaning any harm: it calls late, it takes no more
//! frames than its rings hold, and it merges segments that come in a row (GRO; a TAP with virtio headers does the same).

use smoltcp::wire::TcpRepr;

use crate::frames::{Segment, build, segment};
use toe_impair::Random;

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
    let t = &s.tcp;
    s.checksums_right && t.ack() && !t.syn() && !t.rst() && !t.urg() && !t.payload().is_empty()
}

/// `first` and `next` as one frame; `None` if they do not belong together. Linux's conditions: the same connection,
/// `next` begins where `first` ends, the same acknowledgement and options, and `first` neither pushes nor ends the stream.
pub fn merged(first: &[u8], next: &[u8]) -> Option<Vec<u8>> {
    let (a, b) = (segment(first).filter(can_merge)?, segment(next).filter(can_merge)?);
    let repr = |s: &Segment<'_>| {
        let (source, destination) = (s.source.into(), s.destination.into());
        TcpRepr::parse(&s.tcp, &source, &destination, &Default::default()).ok().map(|r| TcpRepr { payload: &[], ..r })
    };
    let (head, tail) = (repr(&a)?, repr(&b)?);
    let follows = b.tcp.seq_number() == a.tcp.seq_number() + a.tcp.payload().len();
    let alike = TcpRepr { control: tail.control, seq_number: tail.seq_number, ..head } == tail;
    let goes_on = !a.tcp.psh() && !a.tcp.fin();
    let fits = first.len() + b.tcp.payload().len() <= MERGED_BYTES_MAX;
    if (a.source, a.destination) != (b.source, b.destination) || !(follows && alike && goes_on && fits) {
        return None;
    }
    let payload = [a.tcp.payload(), b.tcp.payload()].concat();
    Some(build(&first[..12], a.source, a.destination, &TcpRepr { control: tail.control, payload: &payload, ..head }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{TcpControl, TcpSeqNumber};

    fn frame(seq: i32, control: TcpControl, payload: &[u8]) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: 1,
            dst_port: 2,
            control,
            seq_number: TcpSeqNumber(seq),
            ack_number: Some(TcpSeqNumber(9)),
            window_len: 100,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        build(&[2; 12], [192, 0, 2, 1].into(), [192, 0, 2, 2].into(), &tcp)
    }

    #[test]
    fn segments_in_a_row_become_one_and_others_do_not() {
        let first = frame(i32::MAX - 2, TcpControl::None, b"abc");
        let one = merged(&first, &frame(i32::MIN, TcpControl::Fin, b"defg")).unwrap();
        let s = segment(&one).unwrap();
        assert!(s.checksums_right && s.tcp.fin());
        assert_eq!((s.tcp.seq_number(), s.tcp.payload()), (TcpSeqNumber(i32::MAX - 2), &b"abcdefg"[..]));
        assert_eq!(merged(&first, &frame(i32::MIN + 1, TcpControl::None, b"d")), None, "a gap");
        assert_eq!(merged(&one, &frame(i32::MIN + 5, TcpControl::None, b"h")), None, "behind a FIN");
        assert_eq!(merged(&first, &frame(i32::MIN, TcpControl::None, b"")), None, "no text");
    }
}

//! Frames that faults hold back, on their way in or out, until their time has come or others have overtaken them.

use toe_firmware::{Duration, Instant};

use crate::packet::Packet;

/// The most frames that are held at once. Of one more the fault is that it is lost.
pub const HELD_FRAMES_MAX: usize = 256;

/// A frame that is to be overtaken waits no longer than that for those that are to overtake it.
pub const OVERTAKING_PATIENCE: Duration = Duration::from_ms(20);

/// Where a frame goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// From the wire to firmware and guest.
    FromWire,
    /// To the wire: of the guest, or of the firmware.
    ToWire {
        /// Of the firmware.
        is_firmwares: bool,
    },
    /// From a transmit ring to firmware or wire.
    FromGuest,
    /// To the receive ring of that pair.
    ToGuest(usize),
    /// The firmware's, to the guest.
    Channel,
}

#[derive(Debug)]
struct Frame {
    due: Instant,
    /// How many have still to pass the gate before it.
    behind: u32,
    gate: Gate,
    packet: Packet,
}

/// The frames that are held, in the order in which they came, and room for others.
#[derive(Default, Debug)]
pub struct Held {
    frames: Vec<Frame>,
    spare: Vec<Packet>,
}

impl Held {
    /// Holds a copy of a frame until `due`. Whether there was a place.
    pub fn push(&mut self, gate: Gate, due: Instant, packet: &Packet) -> bool {
        self.hold(gate, due, 0, packet)
    }

    /// Holds a copy of a frame until `behind` others have passed its gate. Whether there was a place.
    pub fn push_behind(&mut self, gate: Gate, now: Instant, behind: u32, packet: &Packet) -> bool {
        self.hold(gate, now + OVERTAKING_PATIENCE, behind, packet)
    }

    fn hold(&mut self, gate: Gate, due: Instant, behind: u32, packet: &Packet) -> bool {
        if self.frames.len() == HELD_FRAMES_MAX {
            return false;
        }
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.copy_from(packet);
        self.frames.push(Frame { due, behind, gate, packet: copy });
        true
    }

    /// A frame has passed a gate: those that it was to overtake are a place further on.
    pub fn passed(&mut self, gate: Gate, now: Instant) {
        let is_there = |other: &Gate| std::mem::discriminant(other) == std::mem::discriminant(&gate);
        for frame in self.frames.iter_mut().filter(|frame| frame.behind > 0 && is_there(&frame.gate)) {
            frame.behind -= 1;
            if frame.behind == 0 {
                frame.due = now;
            }
        }
    }

    /// The first frame whose time has come and whose gate `is_open`.
    pub fn pop(&mut self, now: Instant, is_open: impl Fn(Gate) -> bool) -> Option<(Gate, Packet)> {
        let at = self.frames.iter().position(|frame| frame.due <= now && is_open(frame.gate))?;
        let frame = self.frames.remove(at);
        Some((frame.gate, frame.packet))
    }

    /// Takes back what a frame lay in.
    pub fn give_back(&mut self, packet: Packet) {
        self.spare.push(packet);
    }

    /// When the first is due.
    pub fn next(&self) -> Option<Instant> {
        self.frames.iter().map(|frame| frame.due).min()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// All of them are due.
    pub fn release_all(&mut self) {
        self.frames.iter_mut().for_each(|frame| frame.due = Instant::from_us(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_us(us)
    }

    fn frame(tag: u8) -> Packet {
        Packet::from_frame(&[tag; 60])
    }

    #[test]
    fn what_is_delayed_comes_in_its_time_and_through_open_gates_only() {
        let mut held = Held::default();
        assert!(held.push(Gate::FromWire, at(20), &frame(1)));
        assert!(held.push(Gate::FromGuest, at(10), &frame(2)));
        assert_eq!(held.next(), Some(at(10)));
        assert!(held.pop(at(9), |_| true).is_none());
        assert!(held.pop(at(10), |gate| gate == Gate::FromWire).is_none());
        let (gate, packet) = held.pop(at(30), |_| true).unwrap();
        assert_eq!((gate, packet.frame()), (Gate::FromWire, &[1; 60][..]));
        held.give_back(packet);
        assert_eq!(held.pop(at(30), |_| true).unwrap().0, Gate::FromGuest);
        assert!(held.is_empty());
    }

    #[test]
    fn what_is_overtaken_waits_for_those_behind_it_or_for_its_patience() {
        let mut held = Held::default();
        assert!(held.push_behind(Gate::FromWire, at(0), 2, &frame(1)));
        held.passed(Gate::FromWire, at(1));
        held.passed(Gate::FromGuest, at(1));
        assert!(held.pop(at(1), |_| true).is_none());
        held.passed(Gate::FromWire, at(2));
        assert!(held.pop(at(2), |_| true).is_some());
        assert!(held.push_behind(Gate::FromWire, at(2), 2, &frame(1)));
        assert!(held.pop(at(2) + OVERTAKING_PATIENCE, |_| true).is_some());
    }

    #[test]
    fn at_the_limit_the_next_finds_no_place() {
        let mut held = Held::default();
        for _ in 0..HELD_FRAMES_MAX {
            assert!(held.push(Gate::FromWire, at(5), &frame(1)));
        }
        assert!(!held.push(Gate::FromWire, at(5), &frame(1)));
        held.release_all();
        assert_eq!((held.next(), held.len()), (Some(at(0)), HELD_FRAMES_MAX));
    }
}

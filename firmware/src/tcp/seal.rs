//! A seal on a connection's block.
//!
//! After everything that may change a block its fields are folded into one word, and before the next use they are folded
//! again and compared. A field that has changed in between was changed by nobody: by a bit that flipped, or by a bug that
//! wrote somewhere else. Such a block is not to be used any more, because what follows from it could be a wrong byte (a
//! RCV.NXT that is one too high leaves an octet in the stream that never came) or a segment to somebody else.
//!
//! The fold is the exclusive or of all fields, each turned by its own number of bits. So a change of any one field is found
//! for certain; changes of several cancel each other out with a chance of 2^-64. Made in two halves that do not wait for each
//! other, each field costs a turn of what was folded so far and an exclusive or. It is no signature: nobody on the card means harm.
//!
//! Sealed is what numbers, bounds and destinations follow from. What only costs time when it is wrong is not: the figures for
//! INFO, and what congestion control remembers beside its two windows.

use std::net::IpAddr;

use crate::tcp::tcb::{Tcb, Tuple};

impl Tcb {
    /// The seal that the block has as it is.
    pub fn seal_now(&self) -> u64 {
        let (s, r, g) = (&self.send, &self.receive, &self.guest);
        let agreed = self.agreed;
        let bits = u32::from(s.fin)
            | u32::from(agreed.timestamps) << 1
            | u32::from(agreed.sack) << 2
            | u32::from(agreed.window_scale) << 3
            | u32::from(agreed.ecn) << 4
            | u32::from(self.in_table) << 5
            | u32::from(s.shift) << 8
            | u32::from(r.shift) << 16
            | (self.state as u32) << 24;
        let Tuple { local, remote } = &self.tuple;
        // What needs a decision stands before the rest, which is one straight line then.
        let ends = [address(&local.ip), address(&remote.ip)];
        let context = g.context.map_or(u32::MAX, |slot| slot);
        let smoothed = self.rtt.smoothed().map_or(u64::MAX, |rtt| rtt.as_us());
        let first = Fold::default()
            .and(s.iss.raw())
            .and(s.una.raw())
            .and(s.nxt.raw())
            .and(s.max.raw())
            .and(s.end.raw())
            .and(pair(s.window, s.mss))
            .and(s.wl1.raw())
            .and(s.wl2.raw())
            .and(s.stream.start().raw())
            .and(s.stream.limit().raw())
            .and(s.stream.skew())
            .and(r.irs.raw())
            .and(r.nxt.raw())
            .and(r.edge.raw())
            .and(r.last_ack_sent.raw());
        let second = Fold::default()
            .and(r.stream.start().raw())
            .and(r.stream.limit().raw())
            .and(r.stream.skew())
            .and(g.delivered.raw())
            .and(g.furthest.raw())
            .and(g.limit.raw())
            .and(g.rings.send.value())
            .and(g.rings.receive.value())
            .and(g.rings.generation.into())
            .and(pair(self.recovery.window.congestion, self.recovery.window.threshold))
            .and(pair(r.timestamp, self.timestamp_offset))
            .and(pair(bits, self.mtu))
            .and(pair(self.rtt.backoff() << 8 | self.rtt.doubled(), context))
            .and(smoothed)
            .and(pair(s.stream.table(), r.stream.table()))
            .and(ends[0])
            .and(ends[1])
            .and(pair(local.port.into(), remote.port.into()));
        // No two fields are turned alike: those of the first half by 0 to 14 times the turn, the others by 15 to 32 times.
        first.0 ^ second.0.rotate_left(15 * TURN % 64)
    }
}

/// The fields of the fold that a predicted segment ([`crate::tcp::prediction`]) may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moving([u64; MOVING.len()]);

/// Their places in the fold: the peer's window, SND.WL1, SND.WL2, RCV.NXT, TS.Recent.
const MOVING: [u32; 5] = [5, 6, 7, 12, 25];

/// By how much the field at a place is turned.
const fn turn_of(place: u32) -> u32 {
    (if place < 15 { 14 - place } else { 47 - place }) * TURN % 64
}

impl Tcb {
    /// What a predicted segment may change, as it is.
    #[inline]
    pub fn moving(&self) -> Moving {
        let (s, r) = (&self.send, &self.receive);
        Moving([pair(s.window, s.mss), s.wl1.raw(), s.wl2.raw(), r.nxt.raw(), pair(r.timestamp, self.timestamp_offset)])
    }

    /// Seals again a block of which nothing but that has changed since its seal was looked at: whatever else has changed, nobody
    /// has done it, and that still shows.
    #[inline]
    pub fn seal_again(&mut self, before: &Moving) {
        let after = self.moving();
        for ((place, before), after) in MOVING.iter().zip(&before.0).zip(&after.0) {
            self.seal ^= (before ^ after).rotate_left(turn_of(*place));
        }
    }
}

#[inline]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Each field is turned by so many bits more than the one behind it. A number that has no factor in common with 64.
const TURN: u32 = 13;

#[derive(Clone, Copy, Default)]
struct Fold(u64);

impl Fold {
    #[inline(always)]
    fn and(self, field: u64) -> Self {
        Self(self.0.rotate_left(TURN) ^ field)
    }
}

#[inline]
fn address(ip: &IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            bits as u64 ^ ((bits >> 64) as u64).rotate_left(1)
        }
    }
}

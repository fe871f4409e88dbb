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
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
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
        let Tuple { local, remote } = self.tuple;
        let first = fold([
            s.iss.raw(),
            s.una.raw(),
            s.nxt.raw(),
            s.max.raw(),
            s.end.raw(),
            pair(s.window, s.mss),
            s.wl1.raw(),
            s.wl2.raw(),
            s.stream.start().raw(),
            s.stream.limit().raw(),
            s.stream.skew(),
            r.irs.raw(),
            r.nxt.raw(),
            r.edge.raw(),
            r.last_ack_sent.raw(),
        ]);
        let second = fold([
            r.stream.start().raw(),
            r.stream.limit().raw(),
            r.stream.skew(),
            g.delivered.raw(),
            g.furthest.raw(),
            g.limit.raw(),
            pair(self.recovery.window.congestion, self.recovery.window.threshold),
            pair(r.timestamp, self.timestamp_offset),
            pair(bits, self.mtu),
            pair(self.rtt.backoff() << 8 | self.rtt.doubled(), g.context.map_or(u32::MAX, |slot| slot)),
            self.rtt.smoothed().map_or(u64::MAX, |rtt| rtt.as_us()),
            pair(s.stream.table(), r.stream.table()),
            address(local.ip),
            address(remote.ip),
            pair(local.port.into(), remote.port.into()),
        ]);
        // No two fields are turned alike: the fields of one half by 0 to 14 times the turn, those of the other by 15 to 29 times.
        first ^ second.rotate_left(15 * TURN % 64)
    }
}

/// Each field is turned by so many bits more than the next. A number that has no factor in common with 64.
const TURN: u32 = 13;

fn fold<const N: usize>(words: [u64; N]) -> u64 {
    words.into_iter().fold(0, |seal: u64, word| seal.rotate_left(TURN) ^ word)
}

fn address(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            bits as u64 ^ ((bits >> 64) as u64).rotate_left(1)
        }
    }
}

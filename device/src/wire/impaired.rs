//! A bad wire: another wire with a [`Link`] in each direction, for tests and demonstrations.
//!
//! A link damages and loses frames as they are on a cable. So frames carry complete checksums and are no longer than
//! the MTU here: the card offers its guest no offloads, and asks none of the wire within.
//!
//! Frames in a link lie in memory of their own, as many as the wire's rate and delay put under way.

use std::os::fd::BorrowedFd;

use toe_firmware::Instant;
use toe_impair::{Link, Spec};

use super::{Sent, Wire};
use crate::net::Offloads;
use crate::packet::Packet;

/// The most frames taken from the wire within at one look.
const BATCH: usize = 256;

/// A wire with a link in each direction.
pub struct Impaired {
    inner: Box<dyn Wire>,
    outward: Link,
    inward: Link,
    /// A frame that has arrived at the wire within, which is full.
    held: Option<Packet>,
    scratch: Packet,
    /// The wire within may have more than was taken at one look.
    unread: bool,
    /// Frames that the wire within did not take, and frames too long to be any.
    refused: u64,
    too_long: u64,
}

impl Impaired {
    /// `inner`, with what `spec` says in each direction and all chance from `seed`.
    pub fn new(mut inner: Box<dyn Wire>, spec: Spec, seed: u64) -> Self {
        inner.set_offloads(Offloads::default());
        let [outward, inward] = [seed, seed.wrapping_add(1)].map(|seed| Link::new(spec, seed));
        Self { inner, outward, inward, held: None, scratch: Packet::default(), unread: false, refused: 0, too_long: 0 }
    }
}

impl Wire for Impaired {
    fn send(&mut self, now: Instant, packet: &mut Packet) -> Sent {
        if self.held.is_some() {
            return Sent::Full;
        }
        self.outward.push(now.as_us(), packet.frame().to_vec());
        self.advance(now);
        Sent::Done
    }

    fn receive(&mut self, now: Instant, packet: &mut Packet) -> bool {
        self.unread = true;
        for _ in 0..BATCH {
            if !self.inner.receive(now, &mut self.scratch) {
                self.unread = false;
                break;
            }
            if self.scratch.is_too_long() {
                self.too_long += 1;
            } else {
                self.inward.push(now.as_us(), self.scratch.frame().to_vec());
            }
        }
        let Some(frame) = self.inward.pop(now.as_us()) else { return false };
        packet.frame_room()[..frame.len()].copy_from_slice(&frame);
        packet.set_frame_bytes(frame.len());
        true
    }

    fn advance(&mut self, now: Instant) {
        loop {
            let next = || self.outward.pop(now.as_us()).map(|frame| Packet::from_frame(&frame));
            let Some(mut packet) = self.held.take().or_else(next) else { return };
            match self.inner.send(now, &mut packet) {
                Sent::Done => {}
                Sent::Down | Sent::Refused => self.refused += 1,
                Sent::Full => {
                    self.held = Some(packet);
                    return;
                }
            }
        }
    }

    fn carries_offloads(&self) -> bool {
        false
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        self.inner.events()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.unread {
            return Some(Instant::from_us(0));
        }
        // What is held waits for the wire within, which will say when.
        let outward = self.outward.next_us().filter(|_| self.held.is_none());
        [outward, self.inward.next_us()].into_iter().flatten().min().map(Instant::from_us)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let (out, back) = (self.outward.statistics(), self.inward.statistics());
        vec![
            ("impair-to-wire-offered", out.offered),
            ("impair-to-wire-lost", out.lost),
            ("impair-to-wire-duplicated", out.duplicated),
            ("impair-to-wire-corrupted", out.corrupted),
            ("impair-to-wire-queue-dropped", out.queue_dropped),
            ("impair-to-wire-delivered", out.delivered),
            ("impair-to-wire-reordered", out.reordered),
            ("impair-to-wire-refused", self.refused),
            ("impair-from-wire-too-long", self.too_long),
            ("impair-from-wire-offered", back.offered),
            ("impair-from-wire-lost", back.lost),
            ("impair-from-wire-duplicated", back.duplicated),
            ("impair-from-wire-corrupted", back.corrupted),
            ("impair-from-wire-queue-dropped", back.queue_dropped),
            ("impair-from-wire-delivered", back.delivered),
            ("impair-from-wire-reordered", back.reordered),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::Loopback;
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_us(us)
    }

    #[test]
    fn a_delay_is_kept_both_ways_and_the_wire_says_when() {
        let spec = "delay=10ms".parse().unwrap();
        let mut wire = Impaired::new(Box::new(Loopback::default()), spec, 1);
        let mut packet = Packet::from_frame(&[3; 60]);
        assert_eq!(wire.send(at(0), &mut packet), Sent::Done);
        assert!(!wire.receive(at(9_999), &mut packet));
        assert_eq!(wire.poll_timeout(), Some(at(10_000)));
        wire.advance(at(10_000));
        assert!(!wire.receive(at(10_000), &mut packet));
        assert_eq!(wire.poll_timeout(), Some(at(20_000)));
        assert!(wire.receive(at(20_000), &mut packet));
        assert_eq!(packet.frame(), [3; 60]);
        assert_eq!(wire.poll_timeout(), None);
    }

    #[test]
    fn what_is_lost_is_counted_and_a_full_wire_within_holds_the_rest() {
        let mut wire = Impaired::new(Box::new(Loopback::default()), "loss=25%".parse().unwrap(), 7);
        let mut sent = 0;
        while wire.send(at(0), &mut Packet::from_frame(&[1; 60])) == Sent::Done {
            sent += 1;
            assert!(sent < 1000, "the loop within has room for 256");
        }
        let mut received = 0;
        let mut packet = Packet::default();
        while wire.receive(at(0), &mut packet) {
            received += 1;
            wire.advance(at(0));
        }
        let count = |name| wire.counters().into_iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(count("impair-to-wire-offered"), sent);
        assert!(count("impair-to-wire-lost") > 0);
        assert_eq!(sent - count("impair-to-wire-lost") - count("impair-from-wire-lost"), received);
    }
}

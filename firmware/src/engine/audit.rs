//! A look at everything at once, for whoever doubts it: what must be so between two calls, however the card got there.
//!
//! Nothing of the card's work rests on this. It costs a pass over every connection, so it is for tests and for a
//! watchdog, not for the fast path.

use crate::engine::Firmware;
use crate::store::slab::Slot;
use crate::tcp::tcb::State;
use crate::tcp::timeout::{self, Kind};

/// Something that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contradiction {
    /// What it is.
    pub what: &'static str,
    /// The place of the connection.
    pub place: u32,
}

impl Firmware {
    /// Looks at every connection. To be called between two calls, when [`Firmware::poll_wire`] has nothing to give.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn audit(&self) -> Result<(), Contradiction> {
        for place in 0..self.connections.capacity() {
            let what = if self.connections.in_use(place) { self.doubt(place) } else { self.leftover(place) };
            if let Some(what) = what {
                return Err(Contradiction { what, place });
            }
        }
        Ok(())
    }

    /// What cannot be of a connection.
    fn doubt(&self, place: Slot) -> Option<&'static str> {
        let t = &self.connections[place];
        if self.wire_links.is_queued(place) {
            // It has its turn before it, and is settled then.
            return None;
        }
        let armed = |kind| self.wheel.is_armed(self.timers.connection(place, kind));
        if Kind::ALL.iter().any(|&kind| armed(kind) != timeout::deadline(t, kind).is_some()) {
            return Some("a timer that does not follow from the block");
        }
        let is_open = !matches!(t.state, State::Closed | State::TimeWait);
        if is_open && t.send.una < t.send.max && !armed(Kind::Retransmit) {
            return Some("octets unacknowledged, and no timer for them");
        }
        let is_told = t.state.is_synchronized() && t.send.una == t.send.max && t.send.nxt < t.send.end;
        if is_told && !armed(Kind::Retransmit) && !armed(Kind::Pace) {
            return Some("octets to send, and nothing that would send them");
        }
        None
    }

    /// What cannot be of a place that is free.
    fn leftover(&self, place: Slot) -> Option<&'static str> {
        let armed = Kind::ALL.iter().any(|&kind| self.wheel.is_armed(self.timers.connection(place, kind)));
        armed.then_some("a timer of a connection that is no more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use toe_abi::flags;

    #[test]
    fn a_timer_that_is_lost_is_noticed_and_so_is_one_that_is_left() {
        let mut b = Bench::new();
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        b.expect("A 1:1 ack 1");
        b.send(500);
        b.expect("PA 1:501");
        assert_eq!(b.firmware.audit(), Ok(()));
        let place = b.connection as u32;
        let timer = b.firmware.timers.connection(place, Kind::Retransmit);
        b.firmware.wheel.disarm(timer);
        let what = "a timer that does not follow from the block";
        assert_eq!(b.firmware.audit(), Err(Contradiction { what, place }));
        let free = b.firmware.timers.connection(place + 1, Kind::Linger);
        b.firmware.wheel.arm(timer, b.now);
        b.firmware.wheel.arm(free, b.now);
        let what = "a timer of a connection that is no more";
        assert_eq!(b.firmware.audit(), Err(Contradiction { what, place: place + 1 }));
    }
}

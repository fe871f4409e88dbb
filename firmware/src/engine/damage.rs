//! What is done with a connection that was found damaged.
//!
//! Its block says what it should not be believed, so as little as possible is believed of it: nothing is sent in its name, and
//! what it holds is given back by what the pools know of it, not by its own bounds. The guest is told ABORTED with the
//! reason. The peer is not: a reset with numbers of a damaged block would be a guess. The 4-tuple is the card's no longer, so
//! the peer's next segment goes to the guest's kernel, which answers it with a reset.

use toe_abi::{
    Abort, Filled, Message, Noticed, Reason, ReceiveCredit, Release, Send, SetOption, Shutdown, Urgent, state,
};

use crate::engine::{Finding, Firmware, Owner};
use crate::store::slab::Slot;
use crate::tcp::tcb::State;
use crate::time::Instant;

impl Firmware {
    /// Whether a connection can be used. One that cannot is broken off here.
    #[inline]
    pub(super) fn is_sound(&mut self, slot: Slot, now: Instant) -> bool {
        if !self.seals || !self.connections.in_use(slot) {
            return true;
        }
        let t = &self.connections[slot];
        if t.seal == t.seal_now() {
            return true;
        }
        self.condemn(slot, Finding::StateDamaged, Reason::StateDamaged, now);
        false
    }

    /// Everything that changes a block ends with this.
    #[inline]
    pub(super) fn seal(&mut self, slot: Slot) {
        if self.seals {
            let t = &mut self.connections[slot];
            t.seal = t.seal_now();
        }
    }

    /// The connection that a message of the guest is about is looked at before the message is dealt with.
    pub(super) fn check_named(&mut self, message: &Message<'_>, now: Instant) {
        let id = match *message {
            Message::Send(Send { connection, .. }, _)
            | Message::Filled(Filled { connection, .. })
            | Message::ReceiveCredit(ReceiveCredit { connection, .. })
            | Message::Shutdown(Shutdown { connection, .. })
            | Message::Urgent(Urgent { connection, .. })
            | Message::Noticed(Noticed { connection, .. })
            | Message::Abort(Abort { connection })
            | Message::Release(Release { connection })
            | Message::SetOption(SetOption { object: connection, .. }) => connection,
            _ => return,
        };
        if let Some(slot) = self.connections.find(id) {
            self.is_sound(slot, now);
        }
    }

    /// Breaks a connection off of which something is damaged.
    #[cold]
    pub(super) fn condemn(&mut self, slot: Slot, finding: Finding, reason: Reason, now: Instant) {
        self.found(finding, slot);
        let t = &mut self.connections[slot];
        let tuple = t.tuple;
        // Under a damaged 4-tuple it is not found; what it leaves in the table is found by who sweeps that.
        if t.in_table && self.owner(&tuple) == Some(Owner::Connection(slot)) {
            self.disown(&tuple, Owner::Connection(slot));
        }
        let contexts = &self.contexts;
        let t = &mut self.connections[slot];
        t.guest.context = t.guest.context.filter(|owner| *owner < contexts.capacity() && contexts.in_use(*owner));
        t.in_table = false;
        t.reset_due = false;
        t.state = State::Closed;
        t.scrap(slot, &mut self.store);
        // Where the peer's stream ends, a damaged block cannot say: who has not heard it must not take it for an end.
        t.guest.bits &= !state::PEER_CLOSED;
        t.guest.told &= !state::PEER_CLOSED;
        t.end(reason);
        self.settle(slot, now);
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::Finding;
    use crate::seq::Position;
    use crate::tcp::tcb::{State, Tcb};
    use crate::testing::Bench;
    use toe_abi::{Reason, flags, state};

    /// One change each of what a block has.
    const CHANGES: [fn(&mut Tcb); 20] = [
        |t| t.state = State::CloseWait,
        |t| t.send.iss = t.send.iss + 1,
        |t| t.send.una = t.send.una + 1,
        |t| t.send.nxt = t.send.nxt + (1 << 40),
        |t| t.send.max = t.send.max + 1000,
        |t| t.send.end = t.send.end + 1,
        |t| t.send.window ^= 1 << 31,
        |t| t.send.wl1 = Position::default(),
        |t| t.send.wl2 = t.send.wl2 + 7,
        |t| t.send.shift ^= 8,
        |t| t.send.mss = 0,
        |t| t.recovery.window.congestion = 0,
        |t| t.recovery.window.threshold ^= 1,
        |t| t.receive.irs = t.receive.irs + 1,
        |t| t.receive.nxt = t.receive.nxt + 1,
        |t| t.receive.edge = t.receive.edge + (1 << 50),
        |t| t.receive.shift ^= 1,
        |t| t.receive.timestamp ^= 1 << 31,
        |t| t.receive.last_ack_sent = t.receive.last_ack_sent + 1,
        |t| t.tuple.remote.port ^= 1,
    ];

    /// With data in flight, data in order that the guest has not taken, and data beyond a gap.
    fn busy() -> Bench {
        let mut b = Bench::new();
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        b.expect("A 1:1 ack 1");
        b.send(500);
        b.expect("PA 1:501");
        b.reading = false;
        b.peer("PA 1:101 ack 1");
        b.peer("PA 201:301 ack 1");
        b.drain();
        b
    }

    /// Whoever touches it first: the peer, the guest, or a timer. The connection is broken off, nothing is sent in its name, the
    /// guest is told, and all that it held comes back.
    #[test]
    fn a_change_by_nobody_is_found_at_the_next_use() {
        for (n, change) in CHANGES.iter().enumerate() {
            for touch in 0..3 {
                let mut b = busy();
                let slot = b.connection as u32;
                let resets = b.count("tcp-resets-out");
                change(&mut b.firmware.connections[slot]);
                match touch {
                    0 => {
                        let frame = b.frame("PA 101:201 ack 501");
                        let _ = b.deliver(&frame);
                        if b.bits & state::ABORTED == 0 {
                            // Under a damaged 4-tuple the peer does not find it: its own timer does.
                            b.wait_ms(60_000);
                        }
                    }
                    1 => b.send(10),
                    _ => b.wait_ms(60_000),
                }
                assert_eq!(
                    (b.bits & state::ABORTED, b.reason),
                    (state::ABORTED, Reason::StateDamaged as u32),
                    "{n} {touch}"
                );
                assert_eq!(b.count(Finding::StateDamaged.name()), 1, "{n} {touch}");
                assert_eq!((b.next(), b.count("tcp-resets-out")), (None, resets), "{n} {touch}");
                assert!(b.received.is_empty());
                b.release();
                for pool in ["connections", "send-pages", "receive-pages", "transmit-records", "out-of-order-ranges"] {
                    assert_eq!(b.in_use(pool), 0, "{n} {touch}: {pool}");
                }
                assert_eq!(b.firmware.audit(), Ok(()), "{n} {touch}");
            }
        }
    }

    /// A guest that has not heard of the FIN must not take what is left of the stream for all of it.
    #[test]
    fn a_damaged_connection_does_not_say_that_the_peer_has_closed() {
        let mut b = busy();
        let slot = b.connection as u32;
        for text in ["PA 101:201 ack 501", "FA 301 ack 501"] {
            let frame = b.frame(text);
            let _ = b.firmware.handle_wire(b.now, &frame, crate::engine::Checksum::Unverified);
        }
        assert_ne!(b.firmware.connections[slot].guest.bits & state::PEER_CLOSED, 0);
        b.firmware.connections[slot].send.window ^= 1;
        b.send(10);
        assert_eq!(b.bits & (state::ABORTED | state::PEER_CLOSED), state::ABORTED);
    }

    #[test]
    fn the_peers_next_segment_goes_to_who_answers_it_with_a_reset() {
        let mut b = busy();
        let slot = b.connection as u32;
        b.firmware.connections[slot].receive.nxt = Position::default();
        let frame = b.frame("PA 101:201 ack 501");
        assert_eq!(b.deliver(&frame), crate::engine::Verdict::PassOn);
    }

    #[test]
    fn a_profile_can_do_without() {
        let mut b = Bench::with(|p| p.recovery.seals = false);
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        let slot = b.connection as u32;
        b.firmware.connections[slot].send.wl2 = Position::default();
        b.peer("PA 1:11 ack 1");
        b.received(10);
        assert_eq!(b.count(Finding::StateDamaged.name()), 0);
    }

    fn tagged() -> Bench {
        let mut b = Bench::with(|p| p.recovery.payload_tags = true);
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        b.expect("A 1:1 ack 1");
        b
    }

    /// The checksum was right when it came. What lies on the card until the guest takes it is guarded by its tag.
    #[test]
    fn a_received_byte_that_is_damaged_on_the_card_is_not_handed_on() {
        let mut b = tagged();
        b.reading = false;
        b.peer("PA 101:1101 ack 1");
        let slot = b.connection as u32;
        let t = &b.firmware.connections[slot];
        b.firmware.store.receive.flip(&t.receive.stream, t.receive.irs + 601);
        b.reading = true;
        b.peer("PA 1:101 ack 1");
        assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::DataDamaged as u32));
        assert!(b.received.len() <= 100, "{} octets", b.received.len());
        assert_eq!(b.count(Finding::DataDamaged.name()), 1);
        b.release();
        assert_eq!((b.in_use("connections"), b.in_use("receive-pages")), (0, 0));
    }

    /// The checksum of a segment is computed when it is sent, also the second time: it would make damage look right.
    #[test]
    fn a_byte_that_is_damaged_before_it_is_sent_again_is_not_sent() {
        let mut b = tagged();
        b.send(1000);
        b.expect("PA 1:1001");
        let slot = b.connection as u32;
        let t = &b.firmware.connections[slot];
        b.firmware.store.send.flip(&t.send.stream, t.send.iss + 700);
        b.wait_ms(10_000);
        assert_eq!(b.next(), None);
        assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::DataDamaged as u32));
        assert_eq!(b.count(Finding::DataDamaged.name()), 1);
    }

    #[test]
    fn tags_see_nothing_where_nothing_is_damaged() {
        let mut b = tagged();
        for n in 0..40u32 {
            b.send(1300);
            b.peer(&format!("PA {}:{} ack {}", 1 + 700 * n, 701 + 700 * n, 1 + 1300 * n));
            b.drain();
        }
        assert_eq!((b.received.len(), b.count(Finding::DataDamaged.name()), b.bits & state::ABORTED), (28_000, 0, 0));
    }
}

//! What a connection wants after a segment that was predicted ([`crate::tcp::prediction`]): the part of [`Firmware::settle`]
//! that can find something.
//!
//! Nothing is in flight, nothing waits to be sent, nothing lies beyond a gap, and the state is as it was. So of its timers only two
//! can have changed, and it needs a turn on the wire only for an acknowledgement that is due now: whatever else it may want
//! to say, it has had or still has its turn for. What is on its way to the guest is what it was; and who stands among those with
//! data for their contexts need not be put there again. The seal was made with what changed.

use crate::engine::Firmware;
use crate::store::slab::Slot;
use crate::tcp::receive::AckNeed;
use crate::tcp::timeout::{self, Kind};
use crate::time::Instant;

impl Firmware {
    pub(super) fn settle_predicted(&mut self, slot: Slot, now: Instant) {
        self.note_progress(slot, now);
        let t = &self.connections[slot];
        debug_assert!(!self.seals || t.seal == t.seal_now());
        for kind in [Kind::DelayedAck, Kind::KeepAlive] {
            let timer = self.timers.connection(slot, kind);
            match timeout::deadline(t, kind) {
                Some(at) => self.wheel.arm(timer, at),
                None => self.wheel.disarm(timer),
            }
        }
        if t.receive.ack == AckNeed::Now {
            self.wire_queue.push(&mut self.wire_links, slot);
        }
        if !self.data_links.is_queued(slot) {
            self.queue_news(slot);
        }
    }
}

#[cfg(test)]
use crate::tcp::tcb::{Store, Tcb};

#[cfg(test)]
impl Firmware {
    /// Segments may go the short way, or all go the long one.
    pub(crate) fn set_predicts(&mut self, predicts: bool) {
        self.store.predicts = predicts;
    }

    /// How many went the short way.
    pub(crate) fn predicted(&self) -> u64 {
        self.counters().find(|counter| counter.name == "tcp-predicted").map_or(0, |counter| counter.value)
    }

    /// A connection's block, and the memory that connections share.
    pub(crate) fn block(&mut self, connection: u64) -> (&mut Tcb, &mut Store) {
        (&mut self.connections[connection as u32], &mut self.store)
    }

    /// All that is known of a connection, and of the card but for how often it has predicted.
    pub(crate) fn all_of(&self, connection: u64) -> String {
        let place = connection as u32;
        let t = &self.connections[place];
        let counters: Vec<_> = self.counters().filter(|c| c.name != "tcp-predicted" && c.value > 0).collect();
        let pools: Vec<_> = self.limits().map(|entry| (entry.in_use, entry.high_water)).collect();
        let timers = Kind::ALL.map(|kind| self.wheel.is_armed(self.timers.connection(place, kind)));
        format!("{t:?} {counters:?} {pools:?} {timers:?} {:?}", self.audit())
    }
}

#[cfg(test)]
mod tests {
    use crate::tcp::tcb::Tcb;
    use crate::testing::Bench;
    use toe_abi::flags;

    /// Of the fields that may move a change is sealed, and none of any other.
    #[test]
    fn a_block_is_sealed_again_with_what_may_move_and_with_nothing_else() {
        let mut b = Bench::established_with(flags::NODELAY, "mss 1000");
        let t = &mut b.firmware.connections[b.connection as u32];
        let moves: [fn(&mut Tcb); 5] = [
            |t| t.send.window ^= 1 << 31,
            |t| t.send.wl1 = t.send.wl1 + 77,
            |t| t.send.wl2 = t.send.wl2 + 5,
            |t| t.receive.nxt = t.receive.nxt + 1448,
            |t| t.receive.timestamp ^= 1,
        ];
        for (n, change) in moves.iter().enumerate() {
            let before = t.moving();
            change(t);
            assert_ne!(t.seal, t.seal_now(), "{n}");
            t.seal_again(&before);
            assert_eq!(t.seal, t.seal_now(), "{n}");
        }
        let others: [fn(&mut Tcb); 2] = [|t| t.send.una = t.send.una + 1, |t| t.receive.edge = t.receive.edge + 1];
        for (n, change) in others.iter().enumerate() {
            let before = t.moving();
            (moves[3])(t);
            change(t);
            t.seal_again(&before);
            assert_ne!(t.seal, t.seal_now(), "{n}");
            t.seal = t.seal_now();
        }
    }
}

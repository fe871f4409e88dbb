//! What a connection wants after a segment that was predicted ([`crate::tcp::prediction`]): the part of [`Firmware::settle`]
//! that can find something.
//!
//! Nothing is in flight, nothing waits to be sent, and the state is as it was. So of its timers only two can have changed, and it
//! needs a turn on the wire only for an acknowledgement that is due now: whatever else it may want to say, it has had or
//! still has its turn for.

use crate::engine::Firmware;
use crate::store::slab::Slot;
use crate::tcp::receive::AckNeed;
use crate::tcp::timeout::{self, Kind};
use crate::time::Instant;

impl Firmware {
    pub(super) fn settle_predicted(&mut self, slot: Slot, now: Instant) {
        self.account(slot);
        self.connections[slot].receive.count_ranges(&mut self.store.ranges);
        self.note_progress(slot, now);
        let t = &self.connections[slot];
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
        self.queue_news(slot);
        self.seal(slot);
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

//! Segments come in trains: the connection that the last one was for is looked at before the table of 4-tuples.
//!
//! A block that is in the table says so itself ([`Tcb::in_table`](crate::tcp::tcb::Tcb)), and the table has a 4-tuple once. So if the
//! block of the last segment's connection has the 4-tuple, and is in the table, the table would say no other: neither the keyed
//! hash nor a bucket is needed. That look costs a step.

use crate::engine::{Firmware, Owner};
use crate::tcp::tcb::Tuple;

impl Firmware {
    /// Whose a segment from the wire is.
    #[inline]
    pub(super) fn owner_at_wire(&mut self, tuple: &Tuple) -> Option<Owner> {
        let t = &self.connections[self.recent];
        if t.tuple == *tuple && t.in_table && self.connections.in_use(self.recent) {
            self.store.steps.one();
            return Some(Owner::Connection(self.recent));
        }
        let owner = self.owner(tuple);
        if let Some(Owner::Connection(slot)) = owner {
            self.recent = slot;
        }
        owner
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::Verdict;
    use crate::testing::Bench;
    use toe_abi::flags;

    /// The connection is found by its block; when it has given its place to another, or to nobody, by the table alone.
    #[test]
    fn the_last_connection_is_found_without_the_table_as_long_as_it_is_there() {
        let mut b = Bench::established_with(flags::NODELAY, "mss 1000");
        let slot = b.connection as u32;
        b.peer("PA 1:101 ack 1");
        assert_eq!(b.firmware.recent, slot);
        let looks = |b: &mut Bench, segment: &str| {
            let frame = b.frame(segment);
            let before = b.firmware.tuples.steps.count();
            let verdict = b.deliver(&frame);
            (b.firmware.tuples.steps.count() - before, verdict)
        };
        assert_eq!(looks(&mut b, "PA 101:201 ack 1"), (0, Verdict::Taken));
        let t = &b.firmware.connections[slot];
        assert_eq!(t.receive.nxt.since(t.receive.irs), 201);
        // Nobody is there any more.
        b.peer("RA 201 ack 1");
        b.release();
        let (steps, verdict) = looks(&mut b, "PA 201:301 ack 1");
        assert!(steps > 0);
        assert_eq!(verdict, Verdict::PassOn);
    }
}

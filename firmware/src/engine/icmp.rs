//! ICMP errors from the wire. Those that quote a 4-tuple of the card are the card's; all others are the guest's kernel's.

use toe_abi::Endpoint;

use crate::counters::Counter;
use crate::engine::{Firmware, Owner, Verdict};
use crate::tcp::icmp;
use crate::tcp::tcb::Tuple;
use crate::time::Instant;
use crate::wire::icmp::IcmpError;

impl Firmware {
    /// MUST-54: an error goes to the connection whose segment caused it.
    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //# TCP implementations MUST act on an ICMP error message passed up from the IP layer, directing it to the
    //# connection that created the error (MUST-54).
    pub(super) fn icmp_error(&mut self, error: &IcmpError, now: Instant) -> Verdict {
        let tuple = Tuple {
            local: Endpoint::new(error.source, error.source_port),
            remote: Endpoint::new(error.destination, error.destination_port),
        };
        let Some(owner) = self.owner(&tuple) else {
            return self.pass_from_wire();
        };
        self.store.counters.add(Counter::IcmpIn);
        match owner {
            Owner::Connection(slot) => {
                if !self.is_sound(slot, now) {
                    return self.pass_from_wire();
                }
                icmp::error_arrives(&mut self.connections[slot], &mut self.store, error, now);
                self.settle(slot, now);
            }
            // A SYN-ACK is sent again or given up, an entry in TIME-WAIT ends by its own clock: whatever the error says.
            Owner::HalfOpen(_) | Owner::TimeWait(_) => self.store.counters.add(Counter::IcmpNoConnection),
        }
        self.take_from_wire()
    }
}

//! Who is let in when a pool is full.
//!
//! A SYN for a listener takes a half-open entry, and it is let in only while a connection is free and the listener's
//! backlog has a place for it and for those before it, because a handshake that could not be completed would leave the
//! peer with half a connection. What is done when one of them is missing, the pool's policy says, or the listener's own.

use crate::engine::Firmware;
use crate::engine::listener::Listener;
use crate::pool::Pool;
use crate::profile::Refusal;
use crate::store::slab::Slot;

impl Firmware {
    /// The pool that has no place for what a SYN for this listener begins, if there is one.
    pub(super) fn full_for_syn(&self, listener: &Listener) -> Option<Pool> {
        if listener.waiting() + u64::from(listener.half_open) >= listener.backlog.into() {
            Some(Pool::Backlog)
        } else if self.connections.gauge.free() == 0 {
            Some(Pool::Connections)
        } else if self.half_open.gauge.free() == 0 {
            Some(Pool::HalfOpen)
        } else {
            None
        }
    }

    /// Counts a SYN that found `pool` full; what is to be done with it.
    pub(super) fn refuse_syn(&mut self, listener: Slot, pool: Pool) -> Refusal {
        let gauge = match pool {
            Pool::Backlog => &mut self.backlog_gauge,
            Pool::Connections => &mut self.connections.gauge,
            Pool::Tuples => &mut self.tuples.gauge,
            _ => &mut self.half_open.gauge,
        };
        gauge.refuse(pool.reason());
        self.listeners[listener].policy.unwrap_or(self.policy.of(pool))
    }
}

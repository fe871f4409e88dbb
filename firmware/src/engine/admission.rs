//! Who is let in when a pool is full.
//!
//! A SYN for a listener takes a half-open entry and a place in the listener's backlog, and it is let in only while a
//! connection is free, because a handshake that could not be completed would leave the peer with half a connection.
//! What is done when one of them is missing, the pool's policy says, or the listener's own.

use crate::engine::Firmware;
use crate::pool::Pool;
use crate::profile::Refusal;
use crate::store::slab::Slot;

impl Firmware {
    /// Whether a SYN for this listener may have a half-open entry; if not, what is to be done with it.
    pub(super) fn admit_syn(&mut self, listener: Slot) -> Result<(), Refusal> {
        let l = &self.listeners[listener];
        let own = l.policy;
        let (pool, gauge) = if l.waiting() + u64::from(l.half_open) >= l.backlog.into() {
            (Pool::Backlog, &mut self.backlog_gauge)
        } else if self.connections.gauge.free() == 0 {
            (Pool::Connections, &mut self.connections.gauge)
        } else if self.half_open.gauge.free() == 0 {
            (Pool::HalfOpen, &mut self.half_open.gauge)
        } else {
            return Ok(());
        };
        gauge.refuse(pool.reason());
        Err(own.unwrap_or(self.policy.of(pool)))
    }
}

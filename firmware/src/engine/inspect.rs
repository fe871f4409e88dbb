//! For tests: what a connection is, seen from outside of TCP.

use crate::engine::Firmware;
use crate::seq::Position;
use crate::tcp::tcb::State;
use crate::time::{Duration, Instant};

/// All of a connection that a segment can change and that matters afterwards: what is missing is counters, the budget of
/// challenges and an acknowledgement that is owed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    state: State,
    /// ISS, SND.UNA, SND.NXT, the furthest octet sent, the end of the queue, SND.WL1, SND.WL2.
    send: [Position; 7],
    /// SND.WND, its maximum, the congestion window.
    windows: [u32; 3],
    /// IRS, RCV.NXT, the right edge.
    receive: [Position; 3],
    fin: Option<Position>,
    has_gap: bool,
    timestamp: u32,
    bits: u32,
    timers: [Instant; 3],
    backoff: u32,
    rto: Duration,
    keep_alives: u32,
}

impl Firmware {
    /// A connection's snapshot; `None` if there is no such connection.
    pub(crate) fn snapshot(&self, id: u64) -> Option<Snapshot> {
        let t = &self.connections[self.connections.find(id)?];
        Some(Snapshot {
            state: t.state,
            send: [t.send.iss, t.send.una, t.send.nxt, t.send.max, t.send.end, t.send.wl1, t.send.wl2],
            windows: [t.send.window, t.send.window_max, t.recovery.window.congestion],
            receive: [t.receive.irs, t.receive.nxt, t.receive.edge],
            fin: t.receive.fin,
            has_gap: t.receive.has_gap(),
            timestamp: t.receive.timestamp,
            bits: t.guest.bits,
            timers: [t.timer_from, t.progress_at, t.heard_at],
            backoff: t.rtt.backoff(),
            rto: t.rtt.rto(),
            keep_alives: t.keep_alives,
        })
    }

    /// Window of the peer, window for the peer, and what is in flight, in octets: what a guess can hit.
    pub(crate) fn targets(&self, id: u64) -> Option<[u64; 3]> {
        let t = &self.connections[self.connections.find(id)?];
        Some([t.send.window_max.into(), t.receive.window(), t.send.max.since(t.send.una)])
    }

    /// The id of the listener at that place.
    pub(crate) fn listener_id(&self, slot: crate::store::slab::Slot) -> u64 {
        self.listeners.id(slot)
    }
}

//! SYN cookies: which SYN is answered with one, and what becomes of the ACK that brings it back. The cookie itself is in
//! [`crate::tcp::syn_cookie`].

use crate::counters::Counter;
use crate::engine::listener::{Handshake, Listener};
use crate::engine::{Firmware, Owner, Verdict};
use crate::pool::Pool;
use crate::profile::SynCookies;
use crate::store::slab::Slot;
use crate::tcp::half_open::Opening;
use crate::tcp::syn_cookie;
use crate::tcp::tcb::{Agreed, Tuple, default_mss};
use crate::time::Instant;
use crate::wire::frame::Ethernet;
use crate::wire::segment::{Flags, Segment};
use toe_abi::Reason;

impl Firmware {
    /// Whether a SYN gets a cookie instead of a half-open entry. Never when the connection could not begin now anyway: a
    /// peer that believes itself connected is worse off than one that tries again.
    pub(super) fn answers_with_cookie(&self, listener: &Listener, full: Option<Pool>) -> bool {
        let barred = full == Some(Pool::Connections) || self.connections.gauge.free() == 0;
        let has_place = listener.waiting() < listener.backlog.into() && !barred;
        has_place
            && match self.store.config.syn_cookies {
                SynCookies::Off => false,
                SynCookies::WhenFull => full.is_some(),
                SynCookies::Always => true,
            }
    }

    /// Answers a SYN with a cookie.
    pub(super) fn send_cookie(
        &mut self,
        slot: Slot,
        ethernet: &Ethernet,
        tuple: Tuple,
        segment: &Segment<'_>,
        before: Option<Slot>,
        now: Instant,
    ) -> Verdict {
        let mut opening = self.opening_of(slot, ethernet, tuple, segment);
        let mss = opening.peer_mss.unwrap_or(default_mss(tuple.local.ip));
        opening.iss = syn_cookie::iss(self.keys(), &tuple, opening.irs, mss, now);
        if let Some(before) = before
            && self.time_wait[before].next_iss(opening.iss) != opening.iss
        {
            // Its numbers would begin within those of the connection before: the next epoch's will not.
            self.half_open.gauge.refuse(Reason::TimeWait);
            return self.drop_from_wire(Counter::WireDropRefused);
        }
        let value = if opening.agreed.timestamps {
            syn_cookie::stamp(opening.timestamp_value(now), &opening.agreed, opening.peer_shift)
        } else {
            // There is no place to keep what else was offered.
            opening.agreed = Agreed::default();
            0
        };
        self.listeners[slot].cookies_until = now + syn_cookie::LIFE;
        self.store.counters.add(Counter::TcpSynCookiesSent);
        self.send_segment(opening.syn_ack_at(&self.store.config, value));
        self.take_from_wire()
    }

    /// A segment for a listener that is no SYN: the echo of a cookie? `None` if it is not, and nothing was done.
    pub(super) fn cookie_ack(
        &mut self,
        slot: Slot,
        ethernet: &Ethernet,
        tuple: &Tuple,
        segment: &Segment<'_>,
        now: Instant,
    ) -> Option<Verdict> {
        let listener = &self.listeners[slot];
        let ack = segment.flags.has(Flags::ACK) && !segment.flags.has_any(Flags::SYN | Flags::RST);
        if now >= listener.cookies_until || !ack {
            return None;
        }
        let Some(opening) = self.read_cookie(slot, ethernet, tuple, segment, now) else {
            self.store.counters.add(Counter::TcpSynCookiesWrong);
            return None;
        };
        let crowded = self.owner(tuple).is_none() && !self.has_place(tuple);
        if crowded {
            self.tuples.gauge.refuse(Reason::Connections);
            self.store.counters.add(Counter::TcpSynCookiesRefused);
            return Some(self.drop_from_wire(Counter::WireDropRefused));
        }
        let Some(connection) = self.establish(slot, &opening, Handshake::Complete(None), now) else {
            // Dropped whatever the policy says: the guest knows nothing of it and would reset it. The peer's next segment
            // tries again, for as long as the cookie is good.
            self.store.counters.add(Counter::TcpSynCookiesRefused);
            return Some(self.drop_from_wire(Counter::WireDropRefused));
        };
        self.store.counters.add(Counter::TcpSynCookiesTaken);
        if let Some(Owner::TimeWait(before)) = self.owner(tuple) {
            self.store.counters.add(Counter::TcpTimeWaitReused);
            self.forget_time_wait(before);
        } else {
            self.store.counters.add(Counter::TcpSegmentsIn);
        }
        self.own(tuple, Owner::Connection(connection));
        self.at_connection(connection, segment, now);
        Some(self.take_from_wire())
    }

    /// What a cookie says, if it is right.
    fn read_cookie(
        &self,
        slot: Slot,
        ethernet: &Ethernet,
        tuple: &Tuple,
        segment: &Segment<'_>,
        now: Instant,
    ) -> Option<Opening> {
        let mut opening = self.opening_of(slot, ethernet, *tuple, segment);
        (opening.iss, opening.irs) = (segment.ack + u32::MAX, segment.seq + u32::MAX);
        opening.peer_mss = Some(syn_cookie::read(self.keys(), tuple, opening.irs, opening.iss, now)?);
        (opening.agreed, opening.peer_shift) = match segment.options.timestamps {
            Some(t) => syn_cookie::read_stamp(t.echo, opening.timestamp_value(now))?,
            None => (Agreed::default(), 0),
        };
        Some(opening)
    }
}

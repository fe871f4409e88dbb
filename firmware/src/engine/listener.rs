//! Listeners: who wants connections to which local end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toe_abi::{Endpoint, Reason};

use crate::counters::Counter;
use crate::engine::{Firmware, Owner, Verdict};
use crate::profile::Refusal;
use crate::seq::Position;
use crate::store::slab::Slot;
use crate::tcp::ecn::{self, EcnPolicy};
use crate::tcp::fast_open;
use crate::tcp::half_open::HalfOpen;
use crate::tcp::tcb::{Agreed, CHALLENGES, Guest, Link, State, Tuple, address_words};
use crate::time::Instant;
use crate::wire::frame::Ethernet;
use crate::wire::ip;
use crate::wire::options::Cookie;
use crate::wire::segment::Segment;

/// A listener.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// The context that opened it.
    pub context: Slot,
    /// The cookie of its LISTEN.
    pub cookie: u64,
    /// Address and port; the address may be unspecified.
    pub local: Endpoint,
    /// The most connections announced and not taken, half-open ones included.
    pub backlog: u32,
    /// What becomes of a SYN for which there is no room, if not what the card says.
    pub policy: Option<Refusal>,
    /// Of its connections: Nagle's algorithm is off.
    pub nodelay: bool,
    /// Of its connections: the first offset that the guest cannot take.
    pub receive_limit: u64,
    /// The MTU of the guest's interface.
    pub mtu: u32,
    /// Connections handed over since it was opened.
    pub accepted: u64,
    /// Of these, taken by the program.
    pub taken: u64,
    /// Half-open entries that it has now.
    pub half_open: u32,
    /// Its connections may begin with Fast Open.
    pub fast_open: bool,
    /// Those of them whose handshakes are not complete.
    pub fast_open_pending: u32,
    /// Those that were reset before that, and until when they count.
    pub fast_open_reset: u32,
    /// See `fast_open_reset`.
    pub fast_open_reset_until: Instant,
}

impl Listener {
    /// One at rest.
    pub fn vacant() -> Self {
        Self {
            context: 0,
            cookie: 0,
            local: Endpoint::new([0, 0, 0, 0].into(), 0),
            backlog: 0,
            policy: None,
            nodelay: false,
            receive_limit: 0,
            mtu: 0,
            accepted: 0,
            taken: 0,
            half_open: 0,
            fast_open: false,
            fast_open_pending: 0,
            fast_open_reset: 0,
            fast_open_reset_until: Instant::default(),
        }
    }

    pub(super) fn waiting(&self) -> u64 {
        self.accepted - self.taken
    }
}

/// The address that stands for all of a family.
pub(super) fn any_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

impl Firmware {
    fn local_hash(&self, local: &Endpoint) -> u64 {
        let [a, b] = address_words(local.ip);
        self.keys.table.hash(&[a, b, local.port.into()])
    }

    /// The listener with exactly this local end.
    pub(super) fn listener_at(&self, local: &Endpoint) -> Option<Slot> {
        self.local_ends.find(self.local_hash(local), |slot| self.listeners[slot].local == *local)
    }

    pub(super) fn add_listener(&mut self, slot: Slot) {
        let hash = self.local_hash(&self.listeners[slot].local);
        self.local_ends.insert(hash, slot);
    }

    /// Closes a listener; its half-open entries go with it.
    pub(super) fn close_listener(&mut self, slot: Slot) {
        let hash = self.local_hash(&self.listeners[slot].local);
        self.local_ends.remove(hash, slot);
        if self.listeners[slot].half_open > 0 {
            for entry in 0..self.half_open.capacity() {
                self.store.steps.one();
                if self.half_open.in_use(entry) && self.half_open[entry].listener == slot {
                    self.forget_half_open(entry);
                }
            }
        }
        self.backlog_gauge.give(self.listeners[slot].waiting());
        self.listeners.give(slot);
    }

    /// The listener that a SYN to `local` is for: the one of that address, else one of any address whose context has
    /// named the address as the guest's.
    //= docs/specs/rfc9293.txt#section-3.9.1.1
    //# The optional "local IP address" parameter MUST be supported to allow the specification of the local IP
    //# address (MUST-43).
    pub(super) fn listener_for(&self, local: &Endpoint) -> Option<Slot> {
        if let Some(slot) = self.listener_at(local) {
            return Some(slot);
        }
        let slot = self.listener_at(&Endpoint::new(any_of(local.ip), local.port))?;
        self.contexts[self.listeners[slot].context].has_address(local.ip).then_some(slot)
    }

    /// A SYN for a listener (RFC 9293, 3.10.7.2), perhaps one that finds its 4-tuple in TIME-WAIT (3.6.1, MAY-2).
    pub(super) fn listen_syn(
        &mut self,
        slot: Slot,
        ethernet: &Ethernet,
        tuple: Tuple,
        segment: &Segment<'_>,
        before: Option<Slot>,
        now: Instant,
    ) -> Verdict {
        let listener = self.listeners[slot];
        // The kernel drops these, and counts them as a NIC's user expects.
        //= docs/specs/rfc9293.txt#section-3.9.2.3
        //# A TCP implementation MUST silently discard an incoming SYN segment that is addressed to a broadcast or
        //# multicast address [(MUST-57)].
        //= docs/specs/rfc9293.txt#section-3.9.2.3
        //# An incoming SYN with an invalid source address MUST be ignored either by TCP or by the IP layer
        //# [(MUST-63)]
        if !ip::is_unicast(tuple.local.ip)
            || !ip::is_unicast(tuple.remote.ip)
            || ethernet.source.is_group()
            || tuple.remote.port == 0
        {
            self.store.counters.add(Counter::WirePassedAddress);
            return self.pass_from_wire();
        }
        if tuple.local.ip == tuple.remote.ip {
            self.store.counters.add(Counter::WirePassedLand);
            return self.pass_from_wire();
        }
        if let Err(policy) = self.admit_syn(slot) {
            return match policy {
                Refusal::Fallback => {
                    if let Some(before) = before {
                        // The kernel has the 4-tuple from now on.
                        self.forget_time_wait(before);
                    }
                    self.pass_from_wire()
                }
                Refusal::Deny | Refusal::Evict => self.drop_from_wire(Counter::WireDropRefused),
            };
        }
        let (cookie, fast) = self.fast_open_asked(slot, &tuple, segment, now);
        let Some(id) = self.half_open.take() else {
            return self.drop_from_wire(Counter::WireDropRefused);
        };
        let options = &segment.options;
        let mut iss = self.initial_sequence_number(&tuple, now);
        let mut time_wait = 0;
        if let Some(before) = before {
            iss = self.time_wait[before].next_iss(iss);
            time_wait = self.time_wait.id(before);
            self.park_time_wait(before);
        }
        let timestamp_offset = self.keys.timestamp.hash(&tuple.words()) as u32;
        self.half_open[id.slot] = HalfOpen {
            tuple,
            link: Link { local: ethernet.destination, remote: ethernet.source },
            listener: slot,
            iss,
            irs: segment.seq,
            agreed: Agreed {
                timestamps: options.timestamps.is_some(),
                sack: options.sack_permitted,
                window_scale: options.window_scale.is_some(),
                ecn: self.store.config.settings.ecn != EcnPolicy::Off && ecn::is_setup_syn(segment.flags),
            },
            peer_mss: options.mss,
            peer_shift: options.window_scale.unwrap_or(0),
            timestamp: options.timestamps.map_or(0, |t| t.value),
            timestamp_offset,
            window: self.store.config.receive_bytes_max.min(self.store.receive.available()).min(65_535) as u16,
            mtu: listener.mtu,
            time_wait,
            cookie,
            transmissions: 0,
            challenges_left: CHALLENGES,
            sent_at: now,
        };
        self.listeners[slot].half_open += 1;
        let taken = self.backlog_gauge.take(1);
        debug_assert!(taken, "each listener's part is its own");
        self.own(&tuple, Owner::HalfOpen(id.slot));
        if fast && let Some(connection) = self.establish(id.slot, Some(segment), now) {
            self.settle(connection, now);
            return self.take_from_wire();
        }
        self.send_syn_ack(id.slot, now);
        self.take_from_wire()
    }

    /// What a SYN wants of Fast Open (RFC 7413, 4.2): a cookie for the SYN-ACK, and whether its text is taken at once.
    fn fast_open_asked(
        &mut self,
        slot: Slot,
        tuple: &Tuple,
        segment: &Segment<'_>,
        now: Instant,
    ) -> (Option<Cookie>, bool) {
        let (Some(pending_max), Some(asked)) = (self.store.config.fast_open, segment.options.fast_open) else {
            return (None, false);
        };
        let listener = &mut self.listeners[slot];
        if !listener.fast_open {
            return (None, false);
        }
        let key = &self.keys.cookie;
        let cookie = fast_open::cookie(key, tuple, now);
        if asked.is_request() {
            return (cookie, false);
        }
        if !fast_open::is_valid(key, tuple, &asked, now) {
            self.store.counters.add(Counter::TcpFastOpenCookieWrong);
            return (cookie, false);
        }
        if listener.fast_open_reset_until <= now {
            listener.fast_open_reset = 0;
        }
        let news = cookie.filter(|c| *c != asked);
        // Those of a listener that is closed live on, and its successor's count with them.
        if listener.fast_open_pending + listener.fast_open_reset >= pending_max || self.fast_open_gauge.free() == 0 {
            self.store.counters.add(Counter::TcpFastOpenPendingFull);
            self.fast_open_gauge.refuse(Reason::FastOpenPending);
            return (news, false);
        }
        (news, true)
    }

    /// The handshake of a connection that began with Fast Open is complete, or over.
    pub(super) fn fast_open_is_over(&mut self, slot: Slot, now: Instant) {
        let t = &mut self.connections[slot];
        t.fast_open.counted = false;
        self.fast_open_gauge.give(1);
        // Reset by the peer, or by whoever pretends to be it.
        let reset = t.state == State::Closed && t.guest.reason == Reason::Refused;
        if let Some(listener) = self.listeners.find(t.guest.listener) {
            let listener = &mut self.listeners[listener];
            listener.fast_open_pending -= 1;
            if reset {
                listener.fast_open_reset += 1;
                listener.fast_open_reset_until = now + fast_open::RESET_COUNTS_FOR;
            }
        }
    }

    /// A handshake is complete: the entry becomes a connection of the listener's context. `None` if none is free: the
    /// entry stays, and the peer's next segment tries again.
    ///
    /// With Fast Open that is at once, and `syn` brings text.
    pub(super) fn establish(&mut self, slot: Slot, syn: Option<&Segment<'_>>, now: Instant) -> Option<Slot> {
        let entry = self.half_open[slot];
        let Some(id) = self.connections.take() else {
            self.connections.gauge.refuse(Reason::Connections);
            self.store.counters.add(Counter::TcpHandshakeRefused);
            return None;
        };
        let listener_slot = entry.listener;
        self.forget_half_open(slot);
        if let Some(before) = self.time_wait.find(entry.time_wait) {
            self.store.counters.add(Counter::TcpTimeWaitReused);
            self.forget_time_wait(before);
        }
        let listener_id = self.listeners.id(listener_slot);
        let listener = &mut self.listeners[listener_slot];
        listener.accepted += 1;
        let taken = self.backlog_gauge.take(1);
        debug_assert!(taken, "what the half-open entry had");
        let t = &mut self.connections[id.slot];
        t.guest = Guest::new(Some(listener.context), 0, listener_id);
        let limit = Position::initial(entry.irs) + 1 + listener.receive_limit.min(u64::MAX / 2);
        match syn {
            None => entry.establish(t, &mut self.store, listener.nodelay, now),
            Some(syn) => {
                entry.open(t, &mut self.store, listener.nodelay, now);
                t.fast_open_begins(&mut self.store, syn, entry.cookie);
                listener.fast_open_pending += 1;
                let taken = self.fast_open_gauge.take(1);
                debug_assert!(taken, "asked for before");
            }
        }
        t.guest.bits |= toe_abi::state::ACCEPTED;
        t.guest.limit = limit;
        t.in_table = true;
        self.contexts[listener.context].connections += 1;
        self.store.counters.add(Counter::TcpPassiveOpens);
        self.own(&entry.tuple, Owner::Connection(id.slot));
        Some(id.slot)
    }
}

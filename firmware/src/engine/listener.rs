//! Listeners: who wants connections to which local end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toe_abi::{Endpoint, Reason};

use crate::counters::Counter;
use crate::engine::admission::Metered;
use crate::engine::{Firmware, Owner, Verdict};
use crate::pool::Pool;
use crate::profile::Refusal;
use crate::seq::{Position, Seq};
use crate::store::queue::Queue;
use crate::store::slab::Slot;
use crate::tcp::ecn::{self, EcnPolicy};
use crate::tcp::fast_open;
use crate::tcp::half_open::{Derived, HalfOpen, Opening, clock, is_mapped};
use crate::tcp::tcb::{Agreed, Guest, Link, State, Tuple, address_words};
use crate::time::{Duration, Instant};
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
    /// Of its connections: the guest can wait for what no program sleeps for.
    pub patient: bool,
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
    /// These.
    pub entries: Queue,
    /// Its connections may begin with Fast Open.
    pub fast_open: bool,
    /// Those of them whose handshakes are not complete.
    pub fast_open_pending: u32,
    /// Those that were reset before that, and until when they count.
    pub fast_open_reset: u32,
    /// See `fast_open_reset`.
    pub fast_open_reset_until: Instant,
    /// Until when an ACK may be the echo of a SYN cookie.
    pub cookies_until: Instant,
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
            patient: false,
            receive_limit: 0,
            mtu: 0,
            accepted: 0,
            taken: 0,
            half_open: 0,
            entries: Queue::EMPTY,
            fast_open: false,
            fast_open_pending: 0,
            fast_open_reset: 0,
            fast_open_reset_until: Instant::default(),
            cookies_until: Instant::default(),
        }
    }

    /// Connections handed over and not taken.
    pub fn waiting(&self) -> u64 {
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
        self.keys.table.place(&[a, b, local.port.into()])
    }

    /// The listener with exactly this local end.
    pub(super) fn listener_at(&self, local: &Endpoint) -> Option<Slot> {
        self.local_ends.find(self.local_hash(local), |slot| self.listeners[slot].local == *local)
    }

    /// Whether there is a place for a listener at that end: always, unless somebody knows the card's key.
    pub(super) fn has_place_to_listen(&self, local: &Endpoint) -> bool {
        self.local_ends.has_place(self.local_hash(local))
    }

    pub(super) fn add_listener(&mut self, slot: Slot) {
        let hash = self.local_hash(&self.listeners[slot].local);
        let inserted = self.local_ends.insert(hash, slot);
        debug_assert!(inserted, "a listener without a place");
    }

    /// Closes a listener; its half-open entries go with it.
    pub(super) fn close_listener(&mut self, slot: Slot, now: Instant) {
        let hash = self.local_hash(&self.listeners[slot].local);
        self.local_ends.remove(hash, slot);
        while let Some(entry) = self.listeners[slot].entries.first() {
            self.store.steps.one();
            self.forget_half_open(entry, now);
        }
        self.backlog_gauge.give_back(self.listeners[slot].waiting());
        self.discharge(self.listeners[slot].context, Metered::Listeners);
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
        if is_mapped(tuple.local.ip) || is_mapped(tuple.remote.ip) {
            self.store.counters.add(Counter::WirePassedAddress);
            return self.pass_from_wire();
        }
        // Who finds its 4-tuple in TIME-WAIT has a place.
        let crowded = before.is_none() && !self.has_place(&tuple);
        let full =
            if crowded { Some((Pool::Tuples, Pool::Tuples.reason())) } else { self.full_for_syn(&listener, now) };
        // A cookie would come back to find no place either.
        if !crowded && self.answers_with_cookie(&listener, full.map(|(pool, _)| pool)) {
            return self.send_cookie(slot, ethernet, tuple, segment, before, now);
        }
        if let Some((pool, reason)) = full
            && let Some(policy) = self.refuse_syn(&listener, pool, reason, now)
        {
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
        let mut opening = self.opening_of(slot, ethernet, tuple, segment);
        opening.cookie = cookie;
        opening.iss = self.initial_sequence_number(&tuple, clock(now));
        if let Some(before) = before {
            opening.iss = self.time_wait[before].next_iss(opening.iss);
        }
        if fast && let Some(connection) = self.establish(slot, &opening, Handshake::FastOpen(segment), now) {
            if let Some(before) = before {
                self.store.counters.add(Counter::TcpTimeWaitReused);
                self.forget_time_wait(before);
            }
            self.own(&tuple, Owner::Connection(connection));
            self.settle(connection, now);
            return self.take_from_wire();
        }
        let Some(id) = self.half_open.take() else {
            return self.drop_from_wire(Counter::WireDropRefused);
        };
        if let Some(before) = before {
            self.park_time_wait(before);
        }
        self.half_open[id.slot] = HalfOpen::new(&opening, slot, before, now);
        let entries = &mut self.listeners[slot];
        entries.half_open += 1;
        entries.entries.push(&mut self.entry_links, id.slot);
        self.charge(listener.context, Metered::HalfOpen);
        self.orders.half_open_began(id.slot);
        self.own(&tuple, Owner::HalfOpen(id.slot));
        self.send_first_syn_ack(id.slot, &opening, now);
        self.take_from_wire()
    }

    /// What a SYN says, without what is chosen for the answer.
    pub(super) fn opening_of(&self, slot: Slot, ethernet: &Ethernet, tuple: Tuple, segment: &Segment<'_>) -> Opening {
        let listener = &self.listeners[slot];
        let options = &segment.options;
        Opening {
            tuple,
            link: Link { local: self.contexts[listener.context].mac, remote: ethernet.source },
            iss: Seq(0),
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
            timestamp_offset: self.timestamp_offset(&tuple),
            window: self.syn_window(),
            mtu: listener.mtu,
            cookie: None,
            transmissions: 1,
        }
    }

    /// The window of a SYN-ACK: what pages could be had for now.
    pub(super) fn syn_window(&self) -> u16 {
        self.store.config.receive_bytes_max.min(self.store.receive.available()).min(65_535) as u16
    }

    /// What is added to the clock in the timestamps of a 4-tuple.
    pub(super) fn timestamp_offset(&self, tuple: &Tuple) -> u32 {
        self.keys.timestamp.hash(&tuple.words()) as u32
    }

    /// The ends of a half-open entry.
    pub(super) fn half_open_tuple(&self, slot: Slot) -> Tuple {
        let entry = &self.half_open[slot];
        entry.tuple(self.listeners[entry.listener()].local.port)
    }

    /// A half-open entry with all that follows from it.
    pub(super) fn opening(&self, slot: Slot, now: Instant) -> Opening {
        let entry = &self.half_open[slot];
        let listener = &self.listeners[entry.listener()];
        let tuple = entry.tuple(listener.local.port);
        let mut iss = self.initial_sequence_number(&tuple, entry.clock());
        if let Some(before) = entry.time_wait() {
            iss = self.time_wait[before].next_iss(iss);
        }
        let cookie = if entry.tells_cookie() { fast_open::cookie(&self.keys().cookie, &tuple, now) } else { None };
        let derived = Derived {
            iss,
            timestamp_offset: self.timestamp_offset(&tuple),
            local_mac: self.contexts[listener.context].mac,
            mtu: listener.mtu,
            cookie,
        };
        entry.opening(tuple, derived)
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
        let key = self.keys().cookie;
        let listener = &mut self.listeners[slot];
        if !listener.fast_open {
            return (None, false);
        }
        let cookie = fast_open::cookie(&key, tuple, now);
        if asked.is_request() {
            return (cookie, false);
        }
        if !fast_open::is_valid(&key, tuple, &asked, now) {
            self.store.counters.add(Counter::TcpFastOpenCookieWrong);
            return (cookie, false);
        }
        if listener.fast_open_reset_until <= now {
            listener.fast_open_reset = 0;
        }
        let news = cookie.filter(|c| *c != asked);
        // Those of a listener that is closed live on, and its successor's count with them.
        if listener.fast_open_pending + listener.fast_open_reset >= pending_max
            || self.fast_open_gauge.free() == 0
            || !self.fast_open_gauge.admits()
        {
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
        self.fast_open_gauge.give_back(1);
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

    /// The handshake of a half-open entry is complete: it becomes a connection. `None` if none is free: the entry stays, and
    /// the peer's next segment tries again.
    pub(super) fn complete(&mut self, slot: Slot, opening: &Opening, now: Instant) -> Option<Slot> {
        let entry = self.half_open[slot];
        let took = (entry.retries() == 0).then(|| entry.age(now));
        let connection = self.establish(entry.listener(), opening, Handshake::Complete(took), now)?;
        if let Some(before) = self.free_half_open(slot) {
            self.store.counters.add(Counter::TcpTimeWaitReused);
            self.forget_time_wait(before);
        }
        self.own(&opening.tuple, Owner::Connection(connection));
        Some(connection)
    }

    /// A listener's connection begins; `None` if none is free. That it has the 4-tuple is for the caller to say.
    pub(super) fn establish(
        &mut self,
        listener_slot: Slot,
        opening: &Opening,
        handshake: Handshake<'_, '_>,
        now: Instant,
    ) -> Option<Slot> {
        // Handshakes that cookies complete may take the places that half-open entries counted on.
        let listener = self.listeners[listener_slot];
        if listener.waiting() >= listener.backlog.into() {
            self.backlog_gauge.refuse(Reason::Backlog);
            self.store.counters.add(Counter::TcpHandshakeRefused);
            return None;
        }
        let Ok(id) = self.take_connection(listener.context, listener.policy, now) else {
            self.store.counters.add(Counter::TcpHandshakeRefused);
            return None;
        };
        let listener_id = self.listeners.id(listener_slot);
        let listener = &mut self.listeners[listener_slot];
        listener.accepted += 1;
        self.backlog_gauge.claim(1);
        let t = &mut self.connections[id.slot];
        t.guest = Guest::new(Some(listener.context), 0, listener_id);
        t.guest.patient = listener.patient;
        let limit = Position::initial(opening.irs) + 1 + listener.receive_limit.min(u64::MAX / 2);
        match handshake {
            Handshake::Complete(took) => opening.establish(t, &mut self.store, listener.nodelay, took, now),
            Handshake::FastOpen(syn) => {
                opening.open(t, &mut self.store, listener.nodelay, now);
                t.fast_open_begins(&mut self.store, syn, opening.cookie);
                listener.fast_open_pending += 1;
                self.fast_open_gauge.claim(1);
            }
        }
        t.guest.bits |= toe_abi::state::ACCEPTED;
        t.guest.limit = limit;
        t.in_table = true;
        self.contexts[listener.context].connections += 1;
        self.store.counters.add(Counter::TcpPassiveOpens);
        Some(id.slot)
    }
}

/// How far a handshake is when its connection begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Handshake<'a, 'b> {
    /// Complete; how long it took, if that is known.
    Complete(Option<Duration>),
    /// Begun by a SYN with text that may be taken (RFC 7413).
    FastOpen(&'a Segment<'b>),
}

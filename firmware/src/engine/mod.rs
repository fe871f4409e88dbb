//! The firmware as a whole: what belongs to whom, and in which order things happen.
//!
//! A frame's way from the wire is one line of calls: find the segment, look the 4-tuple up, check, process, and then
//! [`Firmware::settle`] looks at what the connection wants (timers, its turn on the wire, a word to the guest, an end).
//! The same `settle` follows a message from the guest and a timer. Nothing is sent from within: `poll_wire` and
//! `poll_guest` ask whoever has something to say, one frame at a time, in turn.

mod admission;
mod announce;
mod audit;
mod budget;
mod bytes;
mod context;
mod damage;
mod events;
mod evict;
#[cfg(test)]
mod fault_tests;
mod faults;
mod finding;
mod halt;
mod held;
mod icmp;
#[cfg(test)]
pub(crate) mod inspect;
mod listener;
mod patience;
mod perception;
mod predicted;
mod pressure;
mod recent;
mod requests;
mod rings;
mod scrub;
mod self_test;
#[cfg(test)]
mod sharing;
mod sockets;
mod struck;
mod syn_cookie;
mod timers;
#[cfg(test)]
mod truth;
#[cfg(test)]
mod two_pages;
mod wire;
mod work;

use std::net::IpAddr;

use toe_abi::{Endpoint, Reason};

use crate::chance::Keys;
use crate::counters::{Counter, Counters};
use crate::fault::{Faults, Site};
use crate::pool::Pool;
use crate::profile::{Policy, Profile, ProfileError, RECORDS_RESERVED, Refusal};
use crate::store::gauge::{Bell, Gauge};
use crate::store::pages::{AccountPlan, Pages, Stream};
use crate::store::queue::{Links, Queue, Ring};
use crate::store::slab::{Slab, Slot};
use crate::store::table::Table;
use crate::store::wheel::Wheel;
use crate::tcp::fast_open::Cookies;
use crate::tcp::half_open::HalfOpen;
use crate::tcp::output;
use crate::tcp::receive::Receiver;
use crate::tcp::records::Records;
use crate::tcp::send::Sender;
use crate::tcp::tcb::{Config, State, Store, Tcb, Tuple};
use crate::tcp::time_wait::TimeWait;
use crate::tcp::timeout::{self, Kind};
use crate::time::Instant;
use crate::wire::frame::Headers;
use crate::work::Steps;
use admission::{Competition, Holdings, Metered};
use announce::Announcement;
pub use audit::Contradiction;
pub use budget::Lane;
use budget::Processor;
pub use bytes::ConnectionBytes;
use context::Context;
use events::Reply;
use evict::Orders;
pub use faults::Way;
pub use finding::Finding;
pub use halt::Halt;
use held::Held;
use listener::Listener;
use patience::Patience;
use perception::Perception;
pub use pressure::Event;
use pressure::Pressure;
pub use rings::HostMemory;
use scrub::Scrubber;
pub use self_test::SelfTestError;
use timers::Timers;
use toe_abi::{LimitEntry, StatEntry};
pub use work::{Call, Work};

/// What is known of a frame's TCP checksum when it is handed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// Nothing: the firmware checks it.
    Unverified,
    /// It need not be checked: virtio's NEEDS_CSUM (only partly filled in, never left the host) or DATA_VALID.
    Trusted,
}

/// What the device is to do with a frame that it handed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// Hand it on untouched: from the wire to the guest, from the guest to the wire.
    PassOn,
    /// The firmware took it (or dropped and counted it).
    Taken,
    /// From the wire only: the card's processor is busy. The caller keeps it, behind all others of its lane, and hands the oldest
    /// of the lane that [`Firmware::next_waiting`] names in again with [`Firmware::handle_waiting`] when
    /// [`Firmware::poll_timeout`] says.
    Wait(Lane),
}

/// Who has a 4-tuple; as a number in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Connection(Slot),
    HalfOpen(Slot),
    TimeWait(Slot),
}

impl Owner {
    fn to_u32(self) -> u32 {
        match self {
            Self::Connection(slot) => slot,
            Self::HalfOpen(slot) => 1 << 30 | slot,
            Self::TimeWait(slot) => 2 << 30 | slot,
        }
    }

    fn from_u32(value: u32) -> Self {
        let slot = value & ((1 << 30) - 1);
        match value >> 30 {
            0 => Self::Connection(slot),
            1 => Self::HalfOpen(slot),
            _ => Self::TimeWait(slot),
        }
    }
}

/// The firmware of one card.
#[derive(Debug)]
pub struct Firmware {
    epoch: u32,
    keys: Keys,
    policy: Policy,
    store: Store,
    contexts: Slab<Context>,
    listeners: Slab<Listener>,
    connections: Slab<Tcb>,
    half_open: Slab<HalfOpen>,
    time_wait: Slab<TimeWait>,
    /// TIME-WAIT entries, the oldest first.
    time_wait_order: Queue,
    time_wait_links: Links,
    /// 4-tuples to owners.
    tuples: Table,
    /// Local ends to listeners.
    local_ends: Table,
    /// The connection that the last segment from the wire was for.
    recent: Slot,
    wheel: Wheel,
    timers: Timers,
    /// Fast Open cookies of servers.
    cookies: Cookies,
    /// Addresses of all contexts.
    addresses_gauge: Gauge,
    /// What waits in the backlogs of all listeners, and the most of one.
    backlog_gauge: Gauge,
    backlog_max: u32,
    /// Connections of listeners that are open by Fast Open alone.
    fast_open_gauge: Gauge,
    /// Who competes for connections, listeners and half-open entries.
    competition: [Competition; 3],
    /// Of each context, all connections that count for it.
    member_links: Links,
    /// Of each listener, its half-open entries.
    entry_links: Links,
    /// Who gives way when a pool is full.
    orders: Orders,
    /// Whether anybody gives way to those who want pages.
    evicts_send: bool,
    evicts_receive: bool,
    /// Who is to be told of pools that are nearly full.
    pressure: Pressure,
    /// Connections that may have something to send.
    wire_queue: Queue,
    wire_links: Links,
    /// Segments that no block sends: answers for half-open and TIME-WAIT entries, and to what has no owner any more.
    segments: Ring<Headers>,
    segments_gauge: Gauge,
    /// Answers to the guests.
    replies: Ring<Reply>,
    replies_gauge: Gauge,
    /// Contexts with connections that have news.
    guest_queue: Queue,
    guest_links: Links,
    /// Contexts with connections that have news which can wait, and answers that can.
    patience: Patience,
    /// Of each context's connections, those with words for it.
    news_links: Links,
    /// The same, with received data.
    data_links: Links,
    work: Work,
    processor: Processor,
    perception: Perception,
    held: Held,
    /// What it was booted with.
    profile: Box<Profile>,
    announcement: Announcement,
    /// How it has stopped, if it has.
    halted: Option<Halt>,
    /// Calls that were answered.
    beats: u64,
    /// Blocks are sealed.
    seals: bool,
    scrubber: Scrubber,
    /// The driver's memory, if the card reaches it.
    host: Option<Box<dyn HostMemory>>,
}

impl Firmware {
    /// Boots a card. `seed` is the source of all chance (keys, ISNs); `epoch` tells this boot from others.
    ///
    /// # Errors
    /// A profile out of its ranges.
    pub fn new(profile: &Profile, seed: [u8; 32], epoch: u32, now: Instant) -> Result<Self, ProfileError> {
        profile.validate()?;
        let limits = &profile.limits;
        let policy = &profile.policy;
        let bell = Bell::default();
        let faults = Faults::default();
        let gauge = |pool: Pool| {
            let gauge = Gauge::new(pool.name(), policy.of(pool).as_str(), pool.capacity(profile));
            let gauge = gauge.watched(pool.each(profile), &bell, pool as u32);
            gauge.tapped(faults.tap(Site::alloc(pool), Site::free(pool)))
        };
        let page_bytes = u64::from(limits.page_bytes);
        // A stream that begins within a page has one page less than its table.
        let whole = |pages: u32| u64::from(pages - 1) * page_bytes;
        let config =
            Config::new(&profile.tcp, whole(limits.connection_send_pages), whole(limits.connection_receive_pages));
        let quota = &profile.quota;
        let connections = if quota.connections == 0 { limits.connections } else { quota.connections };
        let account = |name, pages| AccountPlan {
            count: limits.contexts,
            name,
            pages,
            connections,
            tags: profile.recovery.payload_tags,
        };
        let send = Pages::new(
            (gauge(Pool::SendPages), Pool::SendPages.reason()),
            limits.send_pages,
            limits.page_bytes,
            limits.connections,
            limits.connection_send_pages,
            account("own-send-pages", quota.send_pages),
        );
        let receive = Pages::new(
            (gauge(Pool::ReceivePages), Pool::ReceivePages.reason()),
            limits.receive_pages,
            limits.page_bytes,
            limits.connections,
            limits.connection_receive_pages,
            account("own-receive-pages", quota.receive_pages),
        );
        let records = Records::new(gauge(Pool::TransmitRecords), limits.transmit_records, limits.connections);
        debug_assert!(limits.transmit_records >= limits.connections * RECORDS_RESERVED);
        let store = Store {
            send,
            receive,
            records,
            ranges: gauge(Pool::OutOfOrderRanges),
            counters: Counters::new(),
            config,
            steps: Steps::default(),
            predicts: true,
            faults: faults.clone(),
        };
        let tcb = |slot| {
            let sender = Sender::new(Stream::new(slot));
            let receiver = Receiver::new(Stream::new(slot), limits.out_of_order_ranges);
            Tcb::vacant(sender, receiver, &config)
        };
        let nowhere = Endpoint::new([0, 0, 0, 0].into(), 0);
        let no_tuple = Tuple { local: nowhere, remote: nowhere };
        let timers = Timers::new(limits);
        debug_assert!(u64::from(timers.count()) == Pool::Timers.capacity(profile));
        Ok(Self {
            epoch,
            keys: Keys::new(seed),
            policy: policy.clone(),
            store,
            contexts: Slab::new(gauge(Pool::Contexts), limits.contexts, |_| {
                Context::vacant(limits.context_addresses, Holdings::new(limits, &profile.quota))
            }),
            listeners: Slab::new(gauge(Pool::Listeners), limits.listeners, |_| Listener::vacant()),
            connections: Slab::new(gauge(Pool::Connections), limits.connections, tcb),
            half_open: Slab::new(gauge(Pool::HalfOpen), limits.half_open, |_| HalfOpen::vacant()),
            time_wait: Slab::new(gauge(Pool::TimeWait), limits.time_wait, |_| {
                TimeWait::vacant(no_tuple, &config.settings)
            }),
            time_wait_order: Queue::EMPTY,
            time_wait_links: Links::new(limits.time_wait),
            tuples: Table::new(gauge(Pool::Tuples)),
            local_ends: Table::new(Gauge::new("local-ends", "deny", limits.listeners.into())),
            recent: 0,
            wheel: Wheel::new(gauge(Pool::Timers), now),
            timers,
            cookies: Cookies::new(gauge(Pool::FastOpenServers)),
            addresses_gauge: gauge(Pool::ContextAddresses),
            backlog_gauge: gauge(Pool::Backlog),
            backlog_max: limits.backlog,
            fast_open_gauge: gauge(Pool::FastOpenPending),
            competition: [Competition::default(); 3],
            member_links: Links::new(limits.connections),
            entry_links: Links::new(limits.half_open),
            orders: Orders::new(limits.connections, limits.half_open),
            evicts_send: policy.send_pages == Refusal::Evict,
            evicts_receive: policy.receive_pages == Refusal::Evict,
            pressure: Pressure::new(gauge(Pool::Events), limits.events, bell.clone()),
            wire_queue: Queue::EMPTY,
            wire_links: Links::new(limits.connections),
            segments: Ring::new(limits.segments),
            segments_gauge: gauge(Pool::Segments),
            replies: Ring::new(limits.replies),
            replies_gauge: gauge(Pool::Replies),
            guest_queue: Queue::EMPTY,
            patience: Patience::new(limits.contexts),
            guest_links: Links::new(limits.contexts),
            news_links: Links::new(limits.connections),
            data_links: Links::new(limits.connections),
            work: Work::default(),
            processor: Processor::new(limits.work_units_per_us, [gauge(Pool::ConnectionFifo), gauge(Pool::WireFifo)]),
            perception: Perception::PLAIN,
            held: Held::new(),
            profile: Box::new(profile.clone()),
            announcement: Announcement::default(),
            halted: None,
            beats: 0,
            seals: profile.recovery.seals,
            scrubber: Scrubber::default(),
            host: None,
        })
    }

    /// Which boot this is.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Every pool, in the order of [`Pool::ALL`]: capacity, use, high water, refusals.
    pub fn limits(&self) -> impl Iterator<Item = LimitEntry<'static>> + '_ {
        Pool::ALL.iter().map(|pool| self.gauge(*pool).entry())
    }

    fn gauge(&self, pool: Pool) -> &Gauge {
        match pool {
            Pool::Contexts => &self.contexts.gauge,
            Pool::ContextAddresses => &self.addresses_gauge,
            Pool::Connections => &self.connections.gauge,
            Pool::Listeners => &self.listeners.gauge,
            Pool::Backlog => &self.backlog_gauge,
            Pool::HalfOpen => &self.half_open.gauge,
            Pool::TimeWait => &self.time_wait.gauge,
            Pool::SendPages => &self.store.send.gauge,
            Pool::ReceivePages => &self.store.receive.gauge,
            Pool::TransmitRecords => &self.store.records.gauge,
            Pool::OutOfOrderRanges => &self.store.ranges,
            Pool::Tuples => &self.tuples.gauge,
            Pool::Timers => &self.wheel.gauge,
            Pool::Segments => &self.segments_gauge,
            Pool::Replies => &self.replies_gauge,
            Pool::Events => &self.pressure.gauge,
            Pool::FastOpenServers => &self.cookies.gauge,
            Pool::FastOpenPending => &self.fast_open_gauge,
            Pool::WireFifo => &self.processor.waiting[Lane::Others as usize],
            Pool::ConnectionFifo => &self.processor.waiting[Lane::Connections as usize],
        }
    }

    fn gauge_and_faults(&mut self, pool: Pool) -> (&mut Gauge, &Faults) {
        let gauge = match pool {
            Pool::Contexts => &mut self.contexts.gauge,
            Pool::ContextAddresses => &mut self.addresses_gauge,
            Pool::Connections => &mut self.connections.gauge,
            Pool::Listeners => &mut self.listeners.gauge,
            Pool::Backlog => &mut self.backlog_gauge,
            Pool::HalfOpen => &mut self.half_open.gauge,
            Pool::TimeWait => &mut self.time_wait.gauge,
            Pool::SendPages => &mut self.store.send.gauge,
            Pool::ReceivePages => &mut self.store.receive.gauge,
            Pool::TransmitRecords => &mut self.store.records.gauge,
            Pool::OutOfOrderRanges => &mut self.store.ranges,
            Pool::Tuples => &mut self.tuples.gauge,
            Pool::Timers => &mut self.wheel.gauge,
            Pool::Segments => &mut self.segments_gauge,
            Pool::Replies => &mut self.replies_gauge,
            Pool::Events => &mut self.pressure.gauge,
            Pool::FastOpenServers => &mut self.cookies.gauge,
            Pool::FastOpenPending => &mut self.fast_open_gauge,
            Pool::WireFifo => &mut self.processor.waiting[Lane::Others as usize],
            Pool::ConnectionFifo => &mut self.processor.waiting[Lane::Connections as usize],
        };
        (gauge, &self.store.faults)
    }

    /// Every counter.
    pub fn counters(&self) -> impl Iterator<Item = StatEntry<'static>> + '_ {
        self.store.counters.iter()
    }

    /// The name of every counter, and what it counts.
    pub fn counter_texts() -> impl Iterator<Item = (&'static str, &'static str)> {
        Counters::texts()
    }

    /// The hash of a 4-tuple under this card's key, which nobody can know: for tests of what the card does if somebody does.
    pub fn tuple_hash(&self, local: Endpoint, remote: Endpoint) -> u64 {
        self.tuple_place(&Tuple { local, remote })
    }

    /// What a 4-tuple's place in the table follows from. Two words are all that there is of an IPv4 one; how many there are is
    /// part of the hash.
    fn tuple_place(&self, tuple: &Tuple) -> u64 {
        let ports = u64::from(tuple.local.port) << 16 | u64::from(tuple.remote.port);
        match (tuple.local.ip, tuple.remote.ip) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                self.keys.table.place(&[u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits()), ports])
            }
            _ => self.keys.table.place(&tuple.words()),
        }
    }

    fn owner(&self, tuple: &Tuple) -> Option<Owner> {
        let hash = self.tuple_place(tuple);
        self.tuples
            .find(hash, |value| {
                *tuple
                    == match Owner::from_u32(value) {
                        Owner::Connection(slot) => self.connections[slot].tuple,
                        Owner::HalfOpen(slot) => self.half_open_tuple(slot),
                        Owner::TimeWait(slot) => self.time_wait[slot].tuple,
                    }
            })
            .map(Owner::from_u32)
    }

    /// Gives the 4-tuple to an owner. There must be a place: see [`Self::has_place`]. Who had it until now leaves one.
    fn own(&mut self, tuple: &Tuple, owner: Owner) {
        let owned = self.tuples.insert(self.tuple_place(tuple), owner.to_u32());
        debug_assert!(owned, "a 4-tuple without a place");
    }

    /// Whether the table has a place for a 4-tuple that nobody has: always, unless somebody knows the card's key.
    fn has_place(&mut self, tuple: &Tuple) -> bool {
        self.tuples.gauge.admits() && self.tuples.has_place(self.tuple_place(tuple))
    }

    fn disown(&mut self, tuple: &Tuple, owner: Owner) {
        self.tuples.remove(self.tuple_place(tuple), owner.to_u32());
    }

    /// Looks at what a connection wants after something happened to it.
    fn settle(&mut self, slot: Slot, now: Instant) {
        if self.connections[slot].state == State::TimeWait {
            self.enter_time_wait(slot, now);
        }
        self.account(slot);
        let t = &mut self.connections[slot];
        t.receive.count_ranges(&mut self.store.ranges);
        self.note_progress(slot, now);
        let t = &mut self.connections[slot];
        if let Some(learned) = t.fast_open.take_learned() {
            self.cookies.learn(&t.tuple, learned, now);
        }
        if t.fast_open.counted && t.state != State::SynReceived {
            self.fast_open_is_over(slot, now);
        }
        let t = &mut self.connections[slot];
        if t.state == State::Closed && t.in_table && !t.may_be_asked_for() {
            t.in_table = false;
            let tuple = t.tuple;
            self.disown(&tuple, Owner::Connection(slot));
        }
        let t = &mut self.connections[slot];
        if t.is_over() {
            // It may still stand in a queue; whoever takes it from there finds nothing to do, or its successor's turn.
            t.free(&mut self.store);
            self.discharge_connection(slot);
            self.forget_progress(slot);
            for kind in Kind::ALL {
                self.disarm_timer(self.timers.connection(slot, kind));
            }
            self.connections.give(slot);
            return;
        }
        self.set_timers(slot);
        if output::wants_a_turn(&mut self.connections[slot]) {
            self.wire_queue.push(&mut self.wire_links, slot);
        }
        self.queue_news(slot);
        self.put_off(slot, now);
        self.seal(slot);
    }

    /// Its timers follow from its block.
    fn set_timers(&mut self, slot: Slot) {
        if self.perceives_oddly() {
            self.arm_oddly(slot);
        } else {
            let deadlines = timeout::deadlines(&self.connections[slot]);
            self.wheel.set(self.timers.connection(slot, Kind::ALL[0]), &deadlines);
        }
    }

    /// Moves a connection's end on the wire to a TIME-WAIT entry. If none is free, the oldest gives way.
    fn enter_time_wait(&mut self, slot: Slot, now: Instant) {
        let t = &mut self.connections[slot];
        let entry = TimeWait::of(t);
        let acknowledge = t.receive.ack == crate::tcp::receive::AckNeed::Now;
        t.state = State::Closed;
        t.quiet();
        t.in_table = false;
        self.store.counters.add(Counter::TcpClosed);
        self.disown(&entry.tuple, Owner::Connection(slot));
        if acknowledge {
            self.send_segment(entry.acknowledgement(now));
        }
        if !self.time_wait.admits() || self.time_wait.gauge.free() == 0 {
            self.time_wait.gauge.refuse(Reason::TimeWait);
            let Some(oldest) = self.time_wait_order.first() else { return };
            self.store.counters.add(Counter::TcpTimeWaitEvicted);
            self.forget_time_wait(oldest);
        }
        if let Some(id) = self.time_wait.take() {
            self.time_wait[id.slot] = entry;
            self.own(&entry.tuple, Owner::TimeWait(id.slot));
            self.time_wait_order.push(&mut self.time_wait_links, id.slot);
            //= docs/specs/rfc9293.txt#section-3.6.1
            //# When a connection is closed actively, it MUST linger in the TIME-WAIT state for a time 2xMSL
            //# (Maximum Segment Lifetime) (MUST-13).
            self.arm_timer(self.timers.time_wait(id.slot), now + self.store.config.time_wait);
        }
    }

    fn forget_time_wait(&mut self, slot: Slot) {
        let TimeWait { tuple, parked, .. } = self.time_wait[slot];
        if !parked {
            self.disown(&tuple, Owner::TimeWait(slot));
        }
        self.time_wait_order.remove(&mut self.time_wait_links, slot);
        self.disarm_timer(self.timers.time_wait(slot));
        self.time_wait.give(slot);
    }

    /// A new SYN may take the 4-tuple over. Until its handshake is complete the entry stays, without the 4-tuple.
    fn park_time_wait(&mut self, slot: Slot) {
        let entry = &mut self.time_wait[slot];
        entry.parked = true;
        let tuple = entry.tuple;
        self.disown(&tuple, Owner::TimeWait(slot));
        // It neither runs out nor gives way meanwhile: the half-open entry knows its place.
        self.time_wait_order.remove(&mut self.time_wait_links, slot);
        self.disarm_timer(self.timers.time_wait(slot));
    }

    /// The SYN was an old duplicate: back to TIME-WAIT, whose time begins anew (RFC 9293, 3.6.1, MAY-2, condition 2).
    fn unpark_time_wait(&mut self, slot: Slot, now: Instant) {
        let entry = &mut self.time_wait[slot];
        entry.parked = false;
        let tuple = entry.tuple;
        self.own(&tuple, Owner::TimeWait(slot));
        self.time_wait_order.push(&mut self.time_wait_links, slot);
        self.arm_timer(self.timers.time_wait(slot), now + self.store.config.time_wait);
    }

    /// Frees an entry; gives the TIME-WAIT entry that it would have taken over, still parked.
    fn free_half_open(&mut self, slot: Slot) -> Option<Slot> {
        let tuple = self.half_open_tuple(slot);
        let entry = self.half_open[slot];
        self.disown(&tuple, Owner::HalfOpen(slot));
        let listener = &mut self.listeners[entry.listener()];
        listener.half_open -= 1;
        listener.entries.remove(&mut self.entry_links, slot);
        self.discharge(self.listeners[entry.listener()].context, Metered::HalfOpen);
        self.orders.half_open_ended(slot);
        self.disarm_timer(self.timers.half_open(slot));
        self.half_open.give(slot);
        entry.time_wait()
    }

    /// An entry comes to nothing.
    fn forget_half_open(&mut self, slot: Slot, now: Instant) {
        if let Some(before) = self.free_half_open(slot) {
            self.unpark_time_wait(before, now);
        }
    }

    /// Queues a segment that no block sends.
    fn send_segment(&mut self, headers: Headers) {
        if self.segments_gauge.admits() && self.segments.push(headers) {
            let taken = self.segments_gauge.take(1);
            debug_assert!(taken);
        } else {
            self.segments_gauge.refuse(Reason::Segments);
        }
    }
}

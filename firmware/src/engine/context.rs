//! Contexts: a guest process each, with its key, its lease and what it can hold.

use std::net::{IpAddr, Ipv4Addr};

use toe_abi::{Mac, PROCESS_NAME_BYTES_MAX, Reason};

use crate::counters::Counter;
use crate::engine::Firmware;
use crate::engine::admission::Holdings;
use crate::store::queue::Queue;
use crate::store::slab::Slot;
use crate::time::{Duration, Instant};

/// The process behind a context, as it says itself (PROCESS).
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// Its number in the guest; zero if it has not said it.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its name.
    pub name: [u8; PROCESS_NAME_BYTES_MAX],
    /// How much of that is in use.
    pub name_bytes: u8,
}

impl Process {
    /// One that has said nothing of itself.
    pub const UNKNOWN: Self = Self { pid: 0, uid: 0, name: [0; PROCESS_NAME_BYTES_MAX], name_bytes: 0 };

    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name[..usize::from(self.name_bytes)]
    }
}

/// A context.
#[derive(Debug)]
pub struct Context {
    /// Chosen by the guest at random.
    pub key: u128,
    /// Where its frames come from: the guest's own address on the card.
    pub mac: Mac,
    /// The longest channel frame that it takes.
    pub frame_bytes_max: usize,
    /// The most RECEIVED bytes that may be on their way to it.
    pub receive_bytes_max: u64,
    /// How many are.
    pub outstanding: u64,
    /// How long it may be silent.
    pub lease: Duration,
    /// When it was last heard of.
    pub heard_at: Instant,
    /// Whose it is.
    pub process: Process,
    /// Connections that it owns.
    pub connections: u32,
    /// Listeners that it owns.
    pub listeners: u32,
    /// Of its connections, those with words for it: everything but received data.
    pub news: Queue,
    /// Some of these words cannot wait.
    pub hurry: bool,
    /// Of its connections, those with received data for it. They wait here, untouched, while it can hold no more.
    pub data: Queue,
    /// Its parts of what each context has a part of.
    pub holds: Holdings,
    /// All connections that count for it: those that it owns, and those that its programs have left.
    pub members: Queue,
    /// Pools whose level has changed since it was told of them: a bit for each.
    pub pressure: u64,
    addresses: Box<[IpAddr]>,
    address_count: usize,
}

impl Context {
    /// One at rest, with room for `addresses` addresses.
    pub fn vacant(addresses: u32, holds: Holdings) -> Self {
        Self {
            key: 0,
            mac: Mac::default(),
            frame_bytes_max: 0,
            receive_bytes_max: 0,
            outstanding: 0,
            lease: Duration::ZERO,
            heard_at: Instant::default(),
            process: Process::UNKNOWN,
            connections: 0,
            listeners: 0,
            news: Queue::EMPTY,
            hurry: false,
            data: Queue::EMPTY,
            pressure: 0,
            holds,
            members: Queue::EMPTY,
            addresses: vec![IpAddr::from(Ipv4Addr::UNSPECIFIED); addresses as usize].into(),
            address_count: 0,
        }
    }

    /// Begins a life; what HELLO says is set by the caller.
    pub fn open(&mut self, key: u128) {
        self.key = key;
        self.outstanding = 0;
        self.process = Process::UNKNOWN;
        self.connections = 0;
        self.listeners = 0;
        self.news = Queue::EMPTY;
        self.hurry = false;
        self.data = Queue::EMPTY;
        self.pressure = 0;
        self.holds.begin();
        self.members = Queue::EMPTY;
        self.address_count = 0;
    }

    /// How many more bytes of received data may be on their way to it.
    pub fn credit(&self) -> u64 {
        self.receive_bytes_max.saturating_sub(self.outstanding)
    }

    /// Whether a frame could be written for it now.
    pub fn has_news(&self) -> bool {
        self.pressure != 0 || (self.hurry && !self.news.is_empty()) || (!self.data.is_empty() && self.credit() > 0)
    }

    /// Whether the guest has named the address as its own.
    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.addresses[..self.address_count].contains(&ip)
    }

    /// How many addresses it has named.
    pub fn address_count(&self) -> u64 {
        self.address_count as u64
    }

    /// Replaces the guest's addresses; `false`, with nothing changed, if they are too many.
    #[must_use]
    pub fn set_addresses(&mut self, addresses: impl ExactSizeIterator<Item = IpAddr>) -> bool {
        if addresses.len() > self.addresses.len() {
            return false;
        }
        self.address_count = addresses.len();
        for (place, address) in self.addresses.iter_mut().zip(addresses) {
            *place = address;
        }
        true
    }
}

impl Firmware {
    /// The context of that key.
    pub(super) fn context_of(&self, key: u128) -> Option<Slot> {
        let is = |slot: &Slot| self.one_step(self.contexts.in_use(*slot)) && self.contexts[*slot].key == key;
        (0..self.contexts.capacity()).find(is)
    }

    /// PROCESS: whose the context is. A longer name is cut.
    pub(super) fn process(&mut self, slot: Slot, m: toe_abi::Process, name: &[u8]) {
        let mut process = Process { pid: m.pid, uid: m.uid, ..Process::UNKNOWN };
        let bytes = name.len().min(PROCESS_NAME_BYTES_MAX);
        process.name[..bytes].copy_from_slice(&name[..bytes]);
        process.name_bytes = bytes as u8;
        self.contexts[slot].process = process;
    }

    /// A sign of life.
    pub(super) fn heard(&mut self, slot: Slot, now: Instant) {
        self.contexts[slot].heard_at = now;
    }

    pub(super) fn arm_lease(&mut self, slot: Slot) {
        let context = &self.contexts[slot];
        let at = context.heard_at + context.lease;
        self.arm_timer(self.timers.context(slot), at);
    }

    /// The lease may have run out: only the last sign of life knows.
    pub(super) fn lease_timeout(&mut self, slot: Slot, now: Instant) {
        let context = &self.contexts[slot];
        if context.heard_at + context.lease > now {
            self.arm_lease(slot);
            return;
        }
        self.store.counters.add(Counter::ChannelLeaseExpired);
        self.close_context(slot, Reason::LeaseExpired, now);
    }

    /// Ends a context: its connections are aborted, its listeners closed, its memory comes back.
    pub(super) fn close_context(&mut self, slot: Slot, reason: Reason, now: Instant) {
        self.disarm_timer(self.timers.context(slot));
        self.addresses_gauge.give_back(self.contexts[slot].address_count());
        // Listeners first, so that nothing new arrives.
        for listener in 0..self.listeners.capacity() {
            self.store.steps.one();
            if self.contexts[slot].listeners == 0 {
                break;
            }
            if self.listeners.in_use(listener)
                && self.listeners[listener].context == slot
                && self.listener_at(&self.listeners[listener].local) == Some(listener)
            {
                self.contexts[slot].listeners -= 1;
                self.close_listener(listener, now);
            }
        }
        while let Some(connection) = self.contexts[slot].members.first() {
            self.store.steps.one();
            self.is_sound(connection, now);
            // What its programs have left before is closed in order, at nobody's expense.
            self.discharge_connection(connection);
            if self.connections[connection].guest.context == Some(slot) {
                self.connections[connection].call_abort(&mut self.store, reason);
                self.leave(connection, now);
            }
        }
        // A connection leaves the queue of data with its context; in that of words its successor may stand.
        while let Some(connection) = self.contexts[slot].news.pop(&mut self.news_links) {
            self.store.steps.one();
            self.queue_news(connection);
        }
        self.contexts.give(slot);
    }

    /// The guest has no more to do with a connection.
    pub(super) fn leave(&mut self, slot: Slot, now: Instant) {
        let t = &mut self.connections[slot];
        if let Some(owner) = t.guest.context {
            let context = &mut self.contexts[owner];
            context.connections -= 1;
            context.outstanding -= std::mem::take(&mut t.guest.outstanding);
            // A queue that waits for credit may wait for long: the place must not be found in it by its next owner.
            context.data.remove(&mut self.data_links, slot);
            if context.has_news() {
                self.guest_queue.push(&mut self.guest_links, owner);
            }
        }
        t.call_release(&mut self.store, now);
        self.settle(slot, now);
    }

    /// Puts a connection into its context's queues if it has something to tell.
    pub(super) fn queue_news(&mut self, slot: Slot) {
        let t = &self.connections[slot];
        let Some(owner) = t.guest.context else { return };
        let context = &mut self.contexts[owner];
        if t.has_words() {
            context.news.push(&mut self.news_links, slot);
            context.hurry |= t.has_urgent_words();
        }
        if t.deliverable() > 0 {
            context.data.push(&mut self.data_links, slot);
        }
        if context.has_news() {
            self.guest_queue.push(&mut self.guest_links, owner);
        }
    }

    /// Keeps a context's count of what is on its way right, after something happened to one of its connections.
    pub(super) fn account(&mut self, slot: Slot) {
        let t = &mut self.connections[slot];
        if let Some(owner) = t.guest.context {
            let outstanding = t.outstanding();
            let context = &mut self.contexts[owner];
            context.outstanding = context.outstanding - t.guest.outstanding + outstanding;
            let credit_grew = outstanding < std::mem::replace(&mut t.guest.outstanding, outstanding);
            // Room in the context's credit lets others speak.
            if credit_grew && context.has_news() {
                self.guest_queue.push(&mut self.guest_links, owner);
            }
        }
    }
}

//! Who gives way when a pool is full and its policy is `evict`.
//!
//! In this order, each where it holds what is wanted:
//!
//! 1. *TIME-WAIT*: the oldest entry. It holds nothing but its own place, so it gives way to another of its kind
//!    (`enter_time_wait`).
//! 2. *Half-open*: the oldest entry, for a place in the SYN cache. The peer will be told that there is nobody when it
//!    comes back.
//! 3. *Out-of-order data of the greediest*: for receive pages. Connections with data beyond a gap stand in classes by how far
//!    that reaches, each twice as far as the one below; from the highest class the one that is longest in it loses what lies
//!    beyond its gap, and the pages of its window with it, if another waits that has fewer. Its peer sends that again: a loss
//!    like any other.
//! 4. *Connections that make no progress*: for a connection's place, and for pages. Nothing new was acknowledged by the peer,
//!    received in order or taken by the guest for the profile's `tcp.stalled_ms` (to a second). The one that has been so
//!    for longest is reset, and its guest told (`evicted`).
//!
//! Never data that was acknowledged and is in order: a connection that holds some for its guest is passed over. And never a
//! connection that progresses. If nobody may be evicted the request is denied.
//!
//! Nothing is searched for: connections stand in a list in the order of their last progress, to which they move at most once
//! a second each, and what stands at its head and may not be evicted leaves it until it progresses again. Only where pages
//! are wanted up to [`LOOKS`] connections are passed over that hold none but their reserve.

use toe_abi::{Message, Reason};

use crate::counters::Counter;
use crate::engine::Firmware;
use crate::engine::events::{Body, Reply};
use crate::store::queue::{Links, Queue};
use crate::store::slab::Slot;
use crate::tcp::tcb::State;
use crate::time::{Duration, Instant};
use crate::wire::options::Options;
use crate::wire::segment::{self, Flags};

/// How many connections are looked at for one that may be evicted.
const LOOKS: u32 = 32;

/// How often a connection moves in the order of progress at most.
const GRAIN: Duration = Duration::from_s(1);

/// How long nobody is looked for after nobody was found.
const PAUSE: Duration = Duration::from_ms(100);

/// Classes of reach beyond a gap: powers of two of bytes.
const CLASSES: usize = 33;

/// What is to be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// A connection's place.
    Place,
    /// A page of data to send.
    SendPage,
    /// A page of received data.
    ReceivePage,
}

/// The orders in which there are victims.
#[derive(Debug)]
pub struct Orders {
    /// Connections by their last progress, the oldest first.
    progress: Queue,
    progress_links: Links,
    /// Half-open entries, the oldest first.
    half_open: Queue,
    half_open_links: Links,
    /// Connections with data beyond a gap, by class.
    gaps: [Queue; CLASSES],
    gap_links: Links,
    occupied: u64,
    /// Not before this is looked for somebody again.
    pause_until: Instant,
}

impl Orders {
    /// For so many connections and half-open entries.
    pub fn new(connections: u32, half_open: u32) -> Self {
        Self {
            progress: Queue::EMPTY,
            progress_links: Links::new(connections),
            half_open: Queue::EMPTY,
            half_open_links: Links::new(half_open),
            gaps: [Queue::EMPTY; CLASSES],
            gap_links: Links::new(connections),
            occupied: 0,
            pause_until: Instant::default(),
        }
    }

    /// A half-open entry begins.
    pub fn half_open_began(&mut self, slot: Slot) {
        self.half_open.push(&mut self.half_open_links, slot);
    }

    /// A half-open entry is over.
    pub fn half_open_ended(&mut self, slot: Slot) {
        self.half_open.remove(&mut self.half_open_links, slot);
    }

    fn classify(&mut self, slot: Slot, before: u8, after: u8) {
        if before == after {
            return;
        }
        if before > 0 {
            let queue = &mut self.gaps[usize::from(before)];
            queue.remove(&mut self.gap_links, slot);
            if queue.is_empty() {
                self.occupied &= !(1 << before);
            }
        }
        if after > 0 {
            self.gaps[usize::from(after)].push(&mut self.gap_links, slot);
            self.occupied |= 1 << after;
        }
    }

    fn greediest(&self) -> Option<Slot> {
        let class = 63_u32.checked_sub(self.occupied.leading_zeros())?;
        self.gaps[class as usize].first()
    }
}

/// The class of a reach in bytes; zero for none.
fn class(reach: u64) -> u8 {
    ((u64::BITS - reach.leading_zeros()) as u8).min(CLASSES as u8 - 1)
}

impl Firmware {
    /// Keeps a connection's place in the orders right, after something happened to it.
    pub(super) fn note_progress(&mut self, slot: Slot, now: Instant) {
        let t = &mut self.connections[slot];
        let orders = &mut self.orders;
        let reach = class(t.receive.reach_beyond_gap());
        orders.classify(slot, std::mem::replace(&mut t.order.class, reach), reach);
        let mark = t.progress_mark();
        if mark == t.order.mark {
            return;
        }
        t.order.mark = mark;
        let stands = orders.progress_links.is_queued(slot);
        if !stands || now.since(t.order.moved_at) >= GRAIN {
            t.order.moved_at = now;
            orders.progress.remove(&mut orders.progress_links, slot);
            orders.progress.push(&mut orders.progress_links, slot);
        }
    }

    /// A connection leaves the orders with its life.
    pub(super) fn forget_progress(&mut self, slot: Slot) {
        let orders = &mut self.orders;
        let order = std::mem::take(&mut self.connections[slot].order);
        orders.classify(slot, order.class, 0);
        orders.progress.remove(&mut orders.progress_links, slot);
    }

    /// The oldest half-open entry gives way; `false` if there is none.
    pub(super) fn evict_half_open(&mut self, now: Instant) -> bool {
        let Some(oldest) = self.orders.half_open.first() else { return false };
        self.store.counters.add(Counter::EvictedHalfOpen);
        self.forget_half_open(oldest, now);
        true
    }

    /// A connection that makes no progress gives its place; `false` if there is none.
    pub(super) fn evict_stalled(&mut self, now: Instant) -> bool {
        let Some(slot) = self.stalled(Wanted::Place, now) else { return false };
        self.evict(slot, now);
        true
    }

    /// Somebody gives pages back for those who wait for some; `false` if nobody may be asked to.
    pub(super) fn make_room(&mut self, wanted: Wanted, now: Instant) -> bool {
        if wanted == Wanted::ReceivePage && self.prune_greediest(now) {
            return true;
        }
        if now < self.orders.pause_until {
            return false;
        }
        let Some(slot) = self.stalled(wanted, now) else {
            self.orders.pause_until = now + PAUSE;
            return false;
        };
        self.evict(slot, now);
        true
    }

    /// Of the connection that holds most beyond a gap, that is dropped, if another waits that has fewer pages.
    fn prune_greediest(&mut self, now: Instant) -> bool {
        let Some(slot) = self.orders.greediest() else { return false };
        if !self.is_sound(slot, now) {
            return true;
        }
        let pages = &mut self.store.receive;
        let Some(waiting) = pages.first_waiting(slot) else { return false };
        let waiting = self.connections[waiting].receive.stream.shared(pages);
        let t = &mut self.connections[slot];
        if t.receive.stream.shared(pages) <= waiting {
            return false;
        }
        let freed = t.receive.prune(pages);
        self.store.counters.add(Counter::EvictedOutOfOrder);
        t.receive.count_ranges(&mut self.store.ranges);
        let before = std::mem::take(&mut t.order.class);
        self.orders.classify(slot, before, 0);
        self.seal(slot);
        freed > 0
    }

    /// The connection that has made no progress for longest, holds what is wanted and may be evicted.
    fn stalled(&mut self, wanted: Wanted, now: Instant) -> Option<Slot> {
        let room_for_news = self.replies_gauge.free() > 0;
        let mut at = self.orders.progress.first();
        for _ in 0..LOOKS {
            let slot = at?;
            self.store.steps.one();
            let t = &self.connections[slot];
            if now.since(t.order.moved_at) < self.store.config.stalled + GRAIN {
                return None;
            }
            at = self.orders.progress.behind(&self.orders.progress_links, slot);
            if t.receive.stream.is_open() && t.unread() > 0 {
                self.orders.progress.remove(&mut self.orders.progress_links, slot);
                continue;
            }
            let has_it = match wanted {
                Wanted::Place => true,
                Wanted::SendPage => t.send.stream.shared(&self.store.send) > 0,
                Wanted::ReceivePage => t.receive.stream.shared(&self.store.receive) > 0,
            };
            // A guest is told at once, or its connection stays.
            if has_it && (t.guest.context.is_none() || room_for_news) {
                return Some(slot);
            }
        }
        None
    }

    /// Resets a connection, tells its guest, and frees its place. What the guest says of it from here on is answered as for
    /// any id that is not known.
    fn evict(&mut self, slot: Slot, now: Instant) {
        if !self.is_sound(slot, now) {
            return;
        }
        self.store.counters.add(Counter::EvictedStalled);
        let id = self.connections.id(slot);
        let t = &mut self.connections[slot];
        if t.state != State::Closed {
            t.abort(&mut self.store, Reason::Evicted);
        }
        if std::mem::take(&mut t.reset_due) {
            let tcp = segment::Header {
                source_port: t.tuple.local.port,
                destination_port: t.tuple.remote.port,
                seq: t.send.nxt.seq(),
                ack: t.receive.nxt.seq(),
                flags: Flags::RST | Flags::ACK,
                window: 0,
                urgent: None,
                options: Options::default(),
            };
            let headers = t.tuple.headers(t.link, &t.settings, tcp);
            self.store.counters.add(Counter::TcpResetsOut);
            self.send_segment(headers);
        }
        let t = &self.connections[slot];
        let Some(context) = t.guest.context else { return self.settle(slot, now) };
        let c = &self.contexts[context];
        let bits = t.guest.bits | toe_abi::state::ABORTED;
        let fin_offset = t.receive.fin.map_or(0, |fin| t.receive_offset(fin));
        let state = toe_abi::State { connection: id, bits, reason: Reason::Evicted as u32, fin_offset };
        let (mac, key, context) = (c.mac, c.key, self.contexts.id(context));
        self.queue_reply(Reply { mac, key, context, body: Body::Message(Message::State(state)) });
        self.leave(slot, now);
    }

    /// Pages have come back, or are to: those who wait for some get them, in turn. Whether there may be more to do at once.
    ///
    /// A connection that has made no progress for long and has room as it is leaves the queue: it will ask again when it
    /// moves.
    pub(super) fn feed(&mut self, now: Instant) -> bool {
        if self.evicts_receive && self.store.receive.is_starved() {
            self.make_room(Wanted::ReceivePage, now);
        }
        if self.evicts_send && self.store.send.is_starved() {
            self.make_room(Wanted::SendPage, now);
        }
        let idle_from = self.store.config.stalled + GRAIN;
        for _ in 0..FEEDS {
            let (receiver, sender) = (self.store.receive.next_hungry(), self.store.send.next_hungry());
            if let Some(slot) = receiver {
                self.store.steps.one();
                if !self.is_sound(slot, now) {
                    continue;
                }
                let t = &mut self.connections[slot];
                let idle = now.since(t.order.moved_at) >= idle_from && t.receive.window() > 0;
                if t.state != State::Closed && !idle && t.receive.fed(&mut self.store.receive) {
                    self.wire_queue.push(&mut self.wire_links, slot);
                }
                self.seal(slot);
            }
            if let Some(slot) = sender {
                self.store.steps.one();
                if !self.is_sound(slot, now) {
                    continue;
                }
                let t = &mut self.connections[slot];
                let idle = now.since(t.order.moved_at) >= idle_from && t.send.end < t.send.stream.limit();
                if t.state != State::Closed && !idle {
                    t.send.extend(&mut self.store.send, t.recovery.window.congestion);
                    self.queue_news(slot);
                }
                self.seal(slot);
            }
            if receiver.is_none() && sender.is_none() {
                return false;
            }
        }
        true
    }
}

/// How many of each kind are fed at a time.
const FEEDS: u32 = 4;

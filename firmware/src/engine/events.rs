//! Frames to the guest: answers, and the news of connections.
//!
//! Answers wait in a ring. News do not: what a connection has to tell is read from its block when it is its turn, so
//! that any number of changes costs one message and nothing is ever lost for want of room. Contexts take turns, and
//! in each its connections.

use toe_abi::{
    Accepted, CARD_MAC, EntryWriter, InfoResult, LimitsResult, Mac, Message, Reason, Received, SendCredit, StatResult,
    Writer, state,
};

use crate::counters::{Counter, Counters};
use crate::engine::admission::OWN_ENTRIES;
use crate::engine::{Call, Finding, Firmware};
use crate::pool::Pool;
use crate::store::slab::Slot;
use crate::tcp::recovery::Phase;
use crate::tcp::tcb::Tcb;
use crate::time::{Duration, Instant};

/// An answer that waits.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// To whom.
    pub mac: Mac,
    /// The key of the frame that is answered.
    pub key: u128,
    /// The context in the header.
    pub context: u64,
    /// What it says.
    pub body: Body,
}

/// An answer: as it is, or to be read when it is sent.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// As it is.
    Message(Message<'static>),
    /// INFO_RESULT.
    Info { cookie: u64, slot: Slot, connection: u64 },
    /// LIMITS_RESULT.
    Limits { cookie: u64, first: u32 },
    /// STAT_RESULT.
    Stat { cookie: u64, first: u32 },
    /// SOCKETS_RESULT.
    Sockets { cookie: u64, after: u64 },
}

/// How many connections one frame may speak of: bounds the work of a call.
const CONNECTIONS_PER_FRAME: u32 = 64;

impl Firmware {
    /// The next channel frame for the guest into `buffer` (65,549 bytes); its length. To be called until `None`, or
    /// as long as the guest has receive buffers.
    pub fn poll_guest(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let now = self.perceive(now)?;
        self.answer_bell();
        let length = self.say_announcement(now, buffer);
        let length = length.or_else(|| self.frame_of_answers(now, buffer)).or_else(|| self.frame_of_news(now, buffer));
        if length.is_some() {
            self.store.counters.add(Counter::GuestOut);
        }
        self.worked(Call::PollGuest, length.is_some(), now);
        length
    }

    /// A frame with the first answer, those behind it for the same context, and its news.
    fn frame_of_answers(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        if self.patience.answers_wait() {
            return None;
        }
        let &Reply { mac, key, context, .. } = self.replies.first()?;
        let slot = self.contexts.find(context);
        let frame_max = slot.map_or(FRAME_UNKNOWN, |slot| self.contexts[slot].frame_bytes_max);
        let room = frame_max.min(buffer.len());
        let mut w = Writer::new(&mut buffer[..room], CARD_MAC, mac, context, self.epoch, key)?;
        let fit = self.answers(&mut w, (mac, key, context), now);
        if fit
            && let Some(slot) = slot
            && (self.contexts[slot].mac, self.contexts[slot].key) == (mac, key)
            && self.contexts[slot].has_news()
        {
            self.guest_queue.remove(&mut self.guest_links, slot);
            self.news(&mut w, slot, now);
        }
        if w.is_empty() {
            // It would not fit into any frame: every message does, by the least frame size.
            debug_assert!(false, "an answer larger than the least frame");
            self.replies.pop();
            self.replies_gauge.give_back(1);
        }
        Some(w.finish())
    }

    /// Writes the answers at the head of the ring that are for this context; `false` if there was no room for all of them.
    fn answers(&mut self, w: &mut Writer<'_>, to: (Mac, u128, u64), now: Instant) -> bool {
        while let Some(&reply) = self.replies.first() {
            self.store.steps.one();
            if (reply.mac, reply.key, reply.context) != to {
                return true;
            }
            if !self.answer(w, reply.context, &reply.body, now) {
                return false;
            }
            self.replies.pop();
            self.replies_gauge.give_back(1);
        }
        true
    }

    fn answer(&self, w: &mut Writer<'_>, context: u64, body: &Body, now: Instant) -> bool {
        match *body {
            Body::Message(message) => w.push(&message),
            Body::Info { cookie, slot, connection } => {
                if self.connections.find(connection) != Some(slot) {
                    return true;
                }
                w.push(&Message::InfoResult(info(&self.connections[slot], cookie, connection)))
            }
            Body::Limits { cookie, first } => {
                let context = self.contexts.find(context);
                let own = if context.is_some() { OWN_ENTRIES } else { 0 };
                let total = (Pool::ALL.len() + own) as u32;
                let m = LimitsResult { cookie, first, total };
                entries(w, &Message::LimitsResult(m, &[]), |e| {
                    let all = self.limits().chain(context.into_iter().flat_map(|slot| self.limits_of(slot)));
                    all.skip(first as usize).map(|entry| self.one_step(entry)).all(|entry| e.limit(&entry));
                })
            }
            Body::Sockets { cookie, after } => self.sockets(w, cookie, after, now),
            Body::Stat { cookie, first } => {
                let m = StatResult { cookie, first, total: Counters::count() as u32 };
                entries(w, &Message::StatResult(m, &[]), |e| {
                    self.store.counters.iter().skip(first as usize).all(|entry| e.stat(&self.one_step(entry)));
                })
            }
        }
    }

    /// A frame with news of the connections of the first context in the queue that may be told, and the answers for it that waited.
    fn frame_of_news(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        while let Some(slot) = self.guest_queue.pop(&mut self.guest_links) {
            self.store.steps.one();
            if !self.contexts.in_use(slot) {
                continue;
            }
            let context = &self.contexts[slot];
            let room = context.frame_bytes_max.min(buffer.len());
            let id = self.contexts.id(slot);
            let (mac, key) = (context.mac, context.key);
            let mut w = Writer::new(&mut buffer[..room], CARD_MAC, mac, id, self.epoch, key)?;
            if self.answers(&mut w, (mac, key, id), now) {
                self.news(&mut w, slot, now);
            } else {
                self.guest_queue.push(&mut self.guest_links, slot);
            }
            if w.is_empty() {
                // What stood in the queues had nothing to tell any more.
                continue;
            }
            return Some(w.finish());
        }
        None
    }

    /// Writes the news of a context's connections, as much as there is room for.
    fn news(&mut self, w: &mut Writer<'_>, slot: Slot, now: Instant) {
        let mut told = 0;
        let mut fit = self.tell_pressure(w, slot);
        // Words first: they are short, and no credit holds them back.
        while fit && told < CONNECTIONS_PER_FRAME {
            let Some(connection) = self.contexts[slot].news.pop(&mut self.news_links) else {
                self.contexts[slot].hurry = false;
                break;
            };
            self.store.steps.one();
            told += 1;
            if self.connections[connection].guest.context != Some(slot) {
                // The place was given to another context's connection meanwhile.
                self.queue_news(connection);
                continue;
            }
            self.is_sound(connection, now);
            fit = self.tell(w, connection, now);
            let again = self.connections[connection].repeatable();
            if fit && again > 0 {
                fit = self.deliver(w, connection, again, now);
            }
            self.settle(connection, now);
        }
        while fit && told < CONNECTIONS_PER_FRAME && self.contexts[slot].credit() > 0 {
            let Some(connection) = self.contexts[slot].data.pop(&mut self.data_links) else { break };
            self.store.steps.one();
            told += 1;
            self.is_sound(connection, now);
            fit = self.deliver(w, connection, self.contexts[slot].credit(), now);
            self.settle(connection, now);
        }
        if self.contexts[slot].has_news() {
            self.guest_queue.push(&mut self.guest_links, slot);
        }
    }

    /// Writes what a connection has to tell beside data; `false` if there was no room for all of it.
    fn tell(&mut self, w: &mut Writer<'_>, slot: Slot, now: Instant) -> bool {
        let id = self.connections.id(slot);
        let t = &mut self.connections[slot];
        if t.untold() & state::ACCEPTED != 0 {
            let message = Accepted {
                listener: t.guest.listener,
                connection: id,
                local: t.tuple.local,
                remote: t.tuple.remote,
                send_limit: t.send_offset(t.send.stream.limit()),
            };
            if !w.push(&Message::Accepted(message)) {
                return false;
            }
            t.guest.told |= state::ACCEPTED;
            t.guest.limit_told = t.send.stream.limit();
        }
        if t.untold() != 0 {
            let message = toe_abi::State {
                connection: id,
                bits: t.guest.bits,
                reason: t.guest.reason as u32,
                fin_offset: t.receive.fin.map_or(0, |fin| t.receive_offset(fin)),
            };
            if !w.push(&Message::State(message)) {
                t.await_guest(now);
                return false;
            }
            t.guest.told = t.guest.bits;
        }
        if t.guest.notice.is_due() {
            if !w.push(&Message::Notice(t.notice(id))) {
                t.await_guest(now);
                return false;
            }
            t.guest.notice.told();
        }
        let limit = t.send.stream.limit();
        if t.guest.credit_due || t.guest.credit_later || limit > t.guest.limit_told {
            let message = SendCredit {
                connection: id,
                held: t.send_offset(t.send.end),
                limit: t.send_offset(limit),
                acknowledged: t.send_offset(t.send.una.min(t.send.end)),
            };
            if !w.push(&Message::SendCredit(message)) {
                t.await_guest(now);
                return false;
            }
            (t.guest.credit_due, t.guest.credit_later) = (false, false);
            (t.guest.held_told, t.guest.limit_told) = (t.send.end, limit);
        }
        t.await_guest(now);
        true
    }

    /// Writes up to `credit` bytes of a connection's received data; `false` if there was no room for all of it.
    fn deliver(&mut self, w: &mut Writer<'_>, slot: Slot, credit: u64, now: Instant) -> bool {
        if let Some(all) = self.store_in_ring(w, slot, credit, now) {
            return all;
        }
        let connection = self.connections.id(slot);
        let t = &mut self.connections[slot];
        let message = Message::Received(Received { connection, offset: t.receive_offset(t.guest.delivered) }, &[]);
        let wanted = t.deliverable().min(credit);
        let bytes = wanted.min(w.room(&message) as u64);
        if bytes > 0 && !t.receive.stream.is_whole(&self.store.receive, t.guest.delivered, bytes) {
            self.condemn(slot, Finding::DataDamaged, Reason::DataDamaged, now);
            return true;
        }
        if bytes > 0 {
            let at = t.guest.delivered;
            let written = w.push_with(&message, bytes as usize, |room| {
                t.receive.stream.read(&self.store.receive, at, room);
            });
            debug_assert!(written);
            t.guest.delivered = at + bytes;
            t.guest.furthest = t.guest.furthest.max(t.guest.delivered);
        }
        t.await_guest(now);
        bytes == wanted
    }
}

/// The frame size towards whom no context says it.
const FRAME_UNKNOWN: usize = 512;

/// Writes a message whose tail is entries, as many as fit.
fn entries(w: &mut Writer<'_>, message: &Message<'_>, write: impl FnOnce(&mut EntryWriter<'_>)) -> bool {
    let room = w.room(message);
    // Entries are multiples of eight bytes; what they do not fill is cut off again.
    w.push_entries(message, room, write)
}

pub(super) fn info(t: &Tcb, cookie: u64, connection: u64) -> InfoResult {
    let us = |d: Option<Duration>| d.map_or(0, |d| u32::try_from(d.as_us()).unwrap_or(u32::MAX));
    let bytes = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let agreed = t.agreed;
    InfoResult {
        cookie,
        connection,
        local: t.tuple.local,
        remote: t.tuple.remote,
        tcp_state: t.state.linux(),
        congestion_state: match t.recovery.phase {
            Phase::Open if t.recovery.sacked() > 0 => 1,
            Phase::Open => 0,
            Phase::Fast => 3,
            Phase::Loss => 4,
        },
        options: u8::from(agreed.timestamps)
            | u8::from(agreed.sack) << 1
            | u8::from(agreed.window_scale) << 2
            | u8::from(agreed.ecn) << 3,
        window_scales: t.receive.shift << 4 | t.send.shift,
        send_mss: t.send.mss,
        rto_us: us(Some(t.rtt.rto())),
        rtt_us: us(t.rtt.smoothed()),
        rtt_variation_us: us(Some(t.rtt.variation())),
        rtt_min_us: us(t.rtt.min()),
        congestion_window: t.recovery.window.congestion,
        slow_start_threshold: t.recovery.window.threshold,
        send_window: t.send.window,
        receive_window: bytes(t.receive.window()),
        in_flight: bytes(t.send.in_flight()),
        sacked: bytes(t.recovery.sacked()),
        lost: bytes(t.recovery.lost()),
        backoff: t.rtt.backoff(),
        retransmits: t.figures.retransmits,
        bytes_acknowledged: t.send_offset(t.send.una.min(t.send.end)),
        bytes_received: if t.receive.stream.is_open() { t.receive_offset(t.receive.data_end()) } else { 0 },
        bytes_sent: t.figures.bytes_sent,
        not_sent: t.send.end.since(t.send.nxt),
        segments_in: t.figures.segments_in,
        segments_out: t.figures.segments_out,
    }
}

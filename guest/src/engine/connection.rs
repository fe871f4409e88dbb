//! One connection as the guest sees it: two streams of bytes with absolute offsets, and the bits of its state.
//!
//! *Sending*: bytes that the program wrote are kept from the offset `held` on until the card says that it has them.
//! They go out up to the card's limit. If `held` does not move for a while, everything from `held` on goes out
//! again; if there is nothing to send again but the card gives no credit, an empty SEND asks for it.
//!
//! *Receiving*: bytes are taken in order only, up to the limit that was told to the card. Whatever the card says
//! of the connection, a RECEIVE_CREDIT answers it, because that is what stops the card from repeating it. Mostly it can wait for
//! something else to say ([`super::patience`]).
//!
//! *Urgent data* is a mark in the stream, told beside it: ours ahead of the data, the peer's by NOTICE, which is answered
//! even if it says nothing new.
//!
//! *Bounds*: each stream holds at most the bytes of its buffer (see [`Buffers`]).

use std::time::{Duration, Instant};

use toe_abi::{
    Abort, Connect, ConnectResult, Endpoint, Filled, Message, Notice, Noticed, Reason, ReceiveCredit, Received,
    Release, Send, SendCredit, Shutdown, State, Urgent, Writer, option, state,
};

use super::buffer::Buffer;
use super::patience;
use super::repeat::{Repeat, earliest};
use crate::transport::{RING_BYTES, RingPlace};

/// Bytes that one connection may hold in the library.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffers {
    /// Written by the program and not yet held by the card.
    pub send_bytes: usize,
    /// Held by the library and not yet read by the program.
    pub receive_bytes: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { send_bytes: 256 * 1024, receive_bytes: 256 * 1024 }
    }
}

/// The first interval of everything that is repeated, and the longest.
pub(crate) const REPEAT_FIRST: Duration = Duration::from_millis(50);
pub(crate) const REPEAT_MAX: Duration = Duration::from_secs(1);

/// A window that was opened again is told at most so often without an answer; the sign of life tells it from then on.
const REOPENED_REPEATS_MAX: u32 = 16;

/// Why a connection is of no more use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The card said so, with this reason (a [`Reason`] as `u32`, because a newer card may know more).
    Aborted(u32),
    /// The card was restarted, or took the context's life for over; everything from before is gone.
    CardRestarted,
    /// The card does not answer any more.
    CardSilent,
}

/// What became of the CONNECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opening {
    /// No answer yet.
    Asked,
    /// The card took it; see the state bits.
    Taken,
    /// The card refused.
    Refused { reason: u32, action: toe_abi::Action },
}

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// The stream ended in order.
    End,
    /// Nothing yet.
    Nothing,
    /// The connection is broken.
    Broken(Broken),
}

/// What a write came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Write {
    /// So many bytes were taken.
    Bytes(usize),
    /// No room.
    Full,
    /// The program has shut this direction down.
    ShutDown,
    /// The connection is broken.
    Broken(Broken),
}

#[derive(Debug)]
struct Outgoing {
    /// Bytes from `held` on.
    bytes: Buffer,
    held: u64,
    /// The next offset to go out.
    next: u64,
    /// The highest offset that ever went out.
    sent: u64,
    limit: u64,
    acknowledged: u64,
    /// The card is to be asked what it holds and how much it takes.
    probe: bool,
    /// It was asked for the sake of room, and what it holds has not grown since.
    asked: bool,
    /// Runs while an answer to a SEND, or credit, is waited for.
    repeat: Repeat,
    /// The bytes before this offset are urgent; zero if none ever were.
    urgent: u64,
    /// Runs until the card knows that.
    urgent_repeat: Repeat,
    owes_urgent: bool,
    /// The card takes the bytes from the ring.
    by_ring: bool,
    /// A ring was looked for.
    ring_tried: bool,
}

impl Outgoing {
    fn end(&self) -> u64 {
        self.held + self.bytes.len() as u64
    }

    /// Whether all that the card is not known to hold can stand before the RELEASE, in its frame.
    fn can_go_with_release(&self) -> bool {
        let urgent = self.owes_urgent || self.urgent_repeat.is_running();
        self.bytes.is_empty() || (self.bytes.len() <= LAST_DATA_BYTES && self.end() <= self.limit && !urgent)
    }
}

#[derive(Debug)]
struct Incoming {
    /// Bytes that the program has not read; they end at `next`.
    bytes: Buffer,
    next: u64,
    /// The limit that was told last.
    told: u64,
    /// What was said last to be held.
    held_told: u64,
    /// The end of the stream, once known.
    fin: Option<u64>,
    /// The program wants no more.
    shut: bool,
    /// Runs after a window of zero was opened, until data arrives: nobody else would repeat that.
    reopened: Repeat,
    /// A ring was looked for.
    ring_tried: bool,
}

/// A connection; see the module.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The card's id, once known.
    pub(crate) id: Option<u64>,
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    pub(crate) opening: Opening,
    connect: Option<(Connect, Repeat)>,
    bits: u32,
    broken: Option<Broken>,
    outgoing: Outgoing,
    incoming: Incoming,
    buffers: Buffers,
    owes_credit: bool,
    /// And that cannot wait.
    credit_hurries: bool,
    /// The last NOTICE, and whether it is to be answered.
    notice: Option<Notice>,
    owes_noticed: bool,
    owes_connect: bool,
    shutdown: Option<Repeat>,
    owes_shutdown: bool,
    /// The program has let go of it.
    closing: bool,
    /// Received data was left unread: it ends with a RST.
    abort: bool,
    release: Option<Repeat>,
    owes_release: bool,
    /// Nothing is left to say; to be forgotten.
    pub(crate) finished: bool,
    /// For the engine: whether it waits for its turn to send, and which timer is set for it.
    pub(crate) queued: bool,
    /// The same for what can wait.
    pub(crate) waits: bool,
    pub(crate) timer: Option<Instant>,
}

impl Connection {
    fn new(local: Endpoint, remote: Endpoint, buffers: Buffers) -> Self {
        let repeat = Repeat::new(REPEAT_FIRST, REPEAT_MAX);
        Self {
            id: None,
            local,
            remote,
            opening: Opening::Asked,
            connect: None,
            bits: 0,
            broken: None,
            outgoing: Outgoing {
                bytes: Buffer::new(),
                held: 0,
                next: 0,
                sent: 0,
                limit: 0,
                acknowledged: 0,
                probe: false,
                asked: false,
                repeat: repeat.clone(),
                urgent: 0,
                urgent_repeat: repeat.clone(),
                owes_urgent: false,
                by_ring: false,
                ring_tried: false,
            },
            incoming: Incoming {
                bytes: Buffer::new(),
                next: 0,
                told: buffers.receive_bytes as u64,
                held_told: 0,
                fin: None,
                shut: false,
                reopened: repeat,
                ring_tried: false,
            },
            buffers,
            owes_credit: false,
            credit_hurries: false,
            notice: None,
            owes_noticed: false,
            owes_connect: false,
            shutdown: None,
            owes_shutdown: false,
            closing: false,
            abort: false,
            release: None,
            owes_release: false,
            finished: false,
            queued: false,
            waits: false,
            timer: None,
        }
    }

    /// Answers what the card says, before anything else.
    fn answer_at_once(&mut self) {
        (self.owes_credit, self.credit_hurries) = (true, true);
    }

    /// An active open; `connect.receive_limit` is set here.
    pub(crate) fn active(now: Instant, mut connect: Connect, buffers: Buffers) -> Self {
        let mut c = Self::new(connect.local, connect.remote, buffers);
        connect.receive_limit = c.incoming.told;
        let mut repeat = Repeat::new(REPEAT_FIRST, REPEAT_MAX);
        repeat.start(now);
        c.connect = Some((connect, repeat));
        c.owes_connect = true;
        c
    }

    /// The child of a listener.
    pub(crate) fn passive(accepted: &toe_abi::Accepted, buffers: Buffers) -> Self {
        let mut c = Self::new(accepted.local, accepted.remote, buffers);
        c.id = Some(accepted.connection);
        c.opening = Opening::Taken;
        c.bits = state::ACCEPTED | state::ESTABLISHED;
        c.outgoing.limit = accepted.send_limit;
        c.answer_at_once();
        c
    }

    /// One that the card has and nobody here: to be rejected at once. Who it was between does not matter any more.
    pub(crate) fn stray(id: u64, buffers: Buffers) -> Self {
        let nowhere = Endpoint::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
        let mut c = Self::new(nowhere, nowhere, buffers);
        c.id = Some(id);
        c.opening = Opening::Taken;
        c
    }

    pub(crate) fn has(&self, bit: u32) -> bool {
        self.bits & bit != 0
    }

    pub(crate) fn broken(&self) -> Option<Broken> {
        self.broken
    }

    pub(crate) fn cookie(&self) -> Option<u64> {
        self.connect.as_ref().map(|(connect, _)| connect.cookie)
    }

    /// How often CONNECT was repeated without an answer so far.
    pub(crate) fn connect_repeats(&self) -> u32 {
        self.connect.as_ref().map_or(0, |(_, repeat)| repeat.fired())
    }

    /// Whether a read would not have to wait.
    pub(crate) fn readable(&self) -> bool {
        self.broken.is_some() || !self.incoming.bytes.is_empty() || self.at_end()
    }

    /// Whether a write would not have to wait.
    pub(crate) fn writable(&self) -> bool {
        self.broken.is_some() || self.shutdown.is_some() || self.send_room() > 0
    }

    /// So many bytes a write would take now.
    pub(crate) fn send_room(&self) -> usize {
        self.buffers.send_bytes.saturating_sub(self.outgoing.bytes.len())
    }

    fn at_end(&self) -> bool {
        self.incoming.shut || self.incoming.fin == Some(self.incoming.next)
    }

    // ---- the program's side ----

    pub(crate) fn write(&mut self, now: Instant, bytes: &[u8]) -> Write {
        if let Some(broken) = self.broken {
            return Write::Broken(broken);
        }
        if self.shutdown.is_some() {
            return Write::ShutDown;
        }
        let n = bytes.len().min(self.send_room());
        if n == 0 && !bytes.is_empty() {
            return Write::Full;
        }
        let out = &mut self.outgoing;
        out.bytes.extend(&bytes[..n]);
        let will_be_unheld = out.limit.min(out.end()) > out.held;
        if out.bytes.len() * 2 >= self.buffers.send_bytes && will_be_unheld && !out.asked {
            // Room will be wanted soon, and the card may be in no hurry to say what it holds. What only waits for credit needs no
            // question: of that the card speaks by itself.
            (out.probe, out.asked) = (true, true);
        }
        self.watch_sending(now);
        Write::Bytes(n)
    }

    /// The same, and the peer is told that all up to the last of these bytes is urgent.
    pub(crate) fn write_urgent(&mut self, now: Instant, bytes: &[u8]) -> Write {
        let written = self.write(now, bytes);
        if let Write::Bytes(n) = written
            && n > 0
        {
            let out = &mut self.outgoing;
            out.urgent = out.end();
            out.owes_urgent = true;
            out.urgent_repeat.start(now);
        }
        written
    }

    /// How many bytes the program has yet to read until it is past the peer's urgent data; zero if there is none.
    pub(crate) fn urgent_left(&self) -> u64 {
        let mark = self.notice.map_or(0, |n| n.urgent_received);
        mark.saturating_sub(self.incoming.next - self.incoming.bytes.len() as u64)
    }

    /// The last NOTICE.
    pub(crate) fn last_notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    pub(crate) fn read(&mut self, now: Instant, buffer: &mut [u8], peek: bool) -> Read {
        let n = buffer.len().min(self.incoming.bytes.len());
        if n > 0 || buffer.is_empty() {
            self.incoming.bytes.copy_out(0, &mut buffer[..n]);
            if !peek {
                self.incoming.bytes.drop_front(n);
                self.update_window(now);
            }
            return Read::Bytes(n);
        }
        // An orderly end that was reached before the connection broke is still an orderly end.
        match self.broken {
            _ if self.at_end() => Read::End,
            Some(broken) => Read::Broken(broken),
            None => Read::Nothing,
        }
    }

    pub(crate) fn shutdown_write(&mut self, now: Instant) {
        if self.shutdown.is_none() {
            let mut repeat = Repeat::new(REPEAT_FIRST, REPEAT_MAX);
            repeat.start(now);
            self.shutdown = Some(repeat);
            self.owes_shutdown = true;
        }
    }

    pub(crate) fn shutdown_read(&mut self) {
        self.incoming.shut = true;
    }

    /// The program lets go of it: what is queued still goes to the card, then RELEASE.
    pub(crate) fn close(&mut self, now: Instant) {
        self.closing = true;
        if !self.incoming.bytes.is_empty() {
            self.abort = true;
        }
        self.incoming.bytes.clear();
        self.incoming.reopened.stop();
        self.advance_closing(now);
    }

    /// Nobody will ever have it: ends with a RST, as the kernel ends what waits on a listener that is closed.
    pub(crate) fn reject(&mut self, now: Instant) {
        self.abort = true;
        self.close(now);
    }

    /// Whether the program has let go of it.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    fn advance_closing(&mut self, now: Instant) {
        if !self.closing || self.release.is_some() {
            return;
        }
        if self.opening == Opening::Asked {
            // The CONNECT is repeated until its answer names the id that RELEASE needs.
            return;
        }
        let Some(_) = self.id else {
            self.finished = true;
            return;
        };
        if self.broken.is_none() && !self.abort && !self.outgoing.can_go_with_release() {
            // What is left must be held before.
            if !self.outgoing.asked {
                (self.outgoing.probe, self.outgoing.asked) = (true, true);
            }
            return;
        }
        let mut repeat = Repeat::new(REPEAT_FIRST, REPEAT_MAX);
        repeat.start(now);
        self.release = Some(repeat);
        self.owes_release = true;
        self.outgoing.repeat.stop();
        self.outgoing.urgent_repeat.stop();
        self.outgoing.owes_urgent = false;
        if let Some(repeat) = &mut self.shutdown {
            repeat.stop();
        }
    }

    // ---- the card's side ----

    pub(crate) fn connect_result(&mut self, now: Instant, m: &ConnectResult) {
        if self.opening != Opening::Asked {
            return;
        }
        self.connect = None;
        self.owes_connect = false;
        if m.reason == Reason::None as u32 {
            self.opening = Opening::Taken;
            self.id = Some(m.connection);
            self.outgoing.limit = self.outgoing.limit.max(m.send_limit);
            self.watch_sending(now);
        } else {
            self.opening = Opening::Refused { reason: m.reason, action: toe_abi::Action::from_u32(m.action) };
        }
        self.advance_closing(now);
    }

    /// A repeated ACCEPTED.
    pub(crate) fn accepted_again(&mut self) {
        self.answer_at_once();
    }

    pub(crate) fn state(&mut self, now: Instant, m: &State) {
        self.owes_credit = true;
        // Of one that comes again the answer was lost.
        self.credit_hurries |= m.bits & !self.bits & !state::ABORTED == 0;
        self.bits |= m.bits;
        if m.bits & state::PEER_CLOSED != 0 && self.incoming.fin.is_none() && m.fin_offset >= self.incoming.next {
            self.incoming.fin = Some(m.fin_offset);
        }
        if self.has(state::SHUTDOWN)
            && let Some(repeat) = &mut self.shutdown
        {
            repeat.stop();
            self.owes_shutdown = false;
        }
        if self.has(state::ABORTED) {
            self.break_off(now, Broken::Aborted(m.reason));
        }
    }

    /// Whether it advises to look for another next hop.
    pub(crate) fn notice(&mut self, now: Instant, m: &Notice) -> bool {
        self.owes_noticed = true;
        let known = self.notice.as_ref();
        if known.is_some_and(|n| n.serial >= m.serial) {
            return false;
        }
        let advised = m.path_advice > known.map_or(0, |n| n.path_advice);
        self.notice = Some(*m);
        let out = &mut self.outgoing;
        if m.urgent_sent >= out.urgent {
            out.urgent_repeat.stop();
            out.owes_urgent = false;
        } else if out.urgent_repeat.is_running() {
            // What crossed this has time to arrive.
            out.urgent_repeat.start(now);
        }
        advised
    }

    /// It is over; what was received in order can still be read.
    pub(crate) fn break_off(&mut self, now: Instant, why: Broken) {
        self.broken.get_or_insert(why);
        self.outgoing.bytes.clear();
        self.outgoing.repeat.stop();
        self.outgoing.urgent_repeat.stop();
        self.outgoing.owes_urgent = false;
        self.incoming.reopened.stop();
        if let Some(repeat) = &mut self.shutdown {
            repeat.stop();
        }
        self.owes_shutdown = false;
        if why == Broken::CardRestarted || why == Broken::CardSilent {
            self.id = None;
            self.opening = Opening::Taken;
            self.connect = None;
            self.owes_connect = false;
            (self.owes_credit, self.credit_hurries) = (false, false);
            self.owes_noticed = false;
            self.release = None;
            self.owes_release = false;
        }
        self.advance_closing(now);
    }

    /// `false`: it says what cannot be.
    pub(crate) fn send_credit(&mut self, now: Instant, m: &SendCredit) -> bool {
        let out = &mut self.outgoing;
        if self.broken.is_some() {
            return true;
        }
        if m.held > out.sent {
            return false;
        }
        let progress = m.held > out.held || m.limit > out.limit;
        if m.held > out.held {
            let n = usize::try_from(m.held - out.held).unwrap_or(usize::MAX).min(out.bytes.len());
            out.bytes.drop_front(n);
            out.held = m.held;
            out.asked = false;
            out.next = out.next.max(m.held);
        }
        out.limit = out.limit.max(m.limit);
        out.acknowledged = out.acknowledged.max(m.acknowledged);
        if progress {
            out.repeat.stop();
            if let Some(repeat) = &mut self.shutdown
                && repeat.is_running()
            {
                // It went out, or will, behind the data; only from then on can it have been lost.
                repeat.start(now);
            }
        }
        self.watch_sending(now);
        self.advance_closing(now);
        true
    }

    /// The timer of the sending side runs exactly while something is unheld or waits for credit.
    fn watch_sending(&mut self, now: Instant) {
        let out = &mut self.outgoing;
        if self.id.is_none() || out.bytes.is_empty() {
            out.repeat.stop();
        } else {
            out.repeat.start_if_stopped(now);
        }
    }

    /// Takes received data in order. Gives how many bytes were dropped because they were ahead of their turn or
    /// beyond the limit.
    pub(crate) fn received(&mut self, offset: u64, data: &[u8]) -> usize {
        if self.closing {
            // Not held, so that the card resets the connection as RFC 9293, 3.6.1 wants it.
            return 0;
        }
        self.owes_credit = true;
        let inc = &mut self.incoming;
        inc.reopened.stop();
        if offset != inc.next {
            self.credit_hurries = true;
        }
        if offset > inc.next {
            return data.len();
        }
        let known = usize::try_from(inc.next - offset).unwrap_or(usize::MAX).min(data.len());
        let new = &data[known..];
        let end = inc.fin.map_or(inc.told, |fin| fin.min(inc.told));
        let room = usize::try_from(end.saturating_sub(inc.next)).unwrap_or(usize::MAX);
        let take = new.len().min(room);
        inc.bytes.extend(&new[..take]);
        inc.next += take as u64;
        self.credit_hurries |= take < new.len();
        new.len() - take
    }

    /// Whether the card can have put data into our ring as far as `end`: no further than we have told it that it may.
    pub(crate) fn may_have_stored(&self, end: u64) -> bool {
        end <= self.incoming.told
    }

    /// The card has put received data into our ring, from `offset` to `end`. As [`Connection::received`].
    pub(crate) fn stored(&mut self, offset: u64, end: u64) -> usize {
        if self.closing {
            return 0;
        }
        self.owes_credit = true;
        let inc = &mut self.incoming;
        inc.reopened.stop();
        let told = usize::try_from(end.saturating_sub(offset.max(inc.next))).unwrap_or(usize::MAX);
        self.credit_hurries |= offset != inc.next;
        if offset > inc.next || !inc.bytes.is_ring() {
            return told;
        }
        let bound = inc.fin.map_or(inc.told, |fin| fin.min(inc.told));
        let take = usize::try_from(end.min(bound).saturating_sub(inc.next)).unwrap_or(0);
        inc.bytes.found(take);
        inc.next += take as u64;
        self.credit_hurries |= take < told;
        told - take
    }

    // ---- rings ----

    /// The option that names a ring for the direction that has moved enough to be worth one, if it has none yet.
    pub(crate) fn wanted_ring(&self) -> Option<u32> {
        if self.id.is_none() || self.broken.is_some() || self.closing {
            return None;
        }
        let (out, inc) = (&self.outgoing, &self.incoming);
        if !out.ring_tried && out.end() >= RING_FROM_BYTES {
            return Some(option::SEND_RING);
        }
        (!inc.ring_tried && inc.next >= RING_FROM_BYTES).then_some(option::RECEIVE_RING)
    }

    /// Here is one, if there is one. What the card is to be told.
    pub(crate) fn use_ring(&mut self, which: u32, ring: Option<RingPlace>) -> Option<u64> {
        let (tried, bytes, size) = if which == option::SEND_RING {
            (&mut self.outgoing.ring_tried, &mut self.outgoing.bytes, self.buffers.send_bytes)
        } else {
            (&mut self.incoming.ring_tried, &mut self.incoming.bytes, self.buffers.receive_bytes)
        };
        *tried = true;
        let ring = ring?;
        if size as u64 > RING_BYTES {
            ring.give_back();
            return None;
        }
        Some(bytes.move_into(ring))
    }

    /// The card takes bytes from the send ring.
    pub(crate) fn send_ring_named(&mut self) {
        self.outgoing.by_ring = self.outgoing.bytes.is_ring();
    }

    /// It does not, or not any more: they go in frames, from the first that it does not hold.
    pub(crate) fn send_ring_lost(&mut self) {
        let out = &mut self.outgoing;
        if std::mem::take(&mut out.by_ring) {
            out.next = out.held;
        }
    }

    /// It is over, and will not be used again. A card that has merely not answered may still look into its rings: they are lost.
    pub(crate) fn give_rings_back(&mut self) {
        if self.broken != Some(Broken::CardSilent) {
            self.outgoing.bytes.give_ring_back();
            self.incoming.bytes.give_ring_back();
        }
    }

    /// After a read: tells the card of new room when it is worth a message.
    fn update_window(&mut self, now: Instant) {
        let gain = self.limit_now() - self.incoming.told;
        if gain < (self.buffers.receive_bytes as u64 / 2).max(1) {
            return;
        }
        self.answer_at_once();
        // With room left, data that is on its way would bring the news again. With none, the card waits for us.
        if self.incoming.told == self.incoming.next && self.broken.is_none() && self.incoming.fin.is_none() {
            self.incoming.reopened.start(now);
        }
    }

    /// In frames the limit goes on by whole ones, of so many bytes of data: what is over would come as a frame of its own. But if not even one
    /// more is left it is as far as it can be.
    fn limit_to_tell(&self, frame_bytes: u64) -> u64 {
        let (limit, inc) = (self.limit_now(), &self.incoming);
        let more = limit - inc.told;
        if inc.bytes.is_ring() || frame_bytes == 0 {
            limit
        } else if more >= frame_bytes {
            limit - more % frame_bytes
        } else if inc.told >= inc.next + frame_bytes {
            inc.told
        } else {
            limit
        }
    }

    fn limit_now(&self) -> u64 {
        let inc = &self.incoming;
        (inc.next - inc.bytes.len() as u64 + self.buffers.receive_bytes as u64).max(inc.told)
    }

    pub(crate) fn released(&mut self) {
        self.finished = self.closing;
    }

    // ---- time and output ----

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, repeat)) = &mut self.connect
            && repeat.expired(now)
        {
            self.owes_connect = true;
        }
        let out = &mut self.outgoing;
        if out.repeat.expired(now) {
            if out.sent > out.held {
                out.next = out.held;
                self.owes_shutdown |= self.shutdown.as_ref().is_some_and(Repeat::is_running);
            }
            if out.next >= out.limit.min(out.end()) {
                out.probe = true;
            }
        }
        out.owes_urgent |= out.urgent_repeat.expired(now);
        if self.incoming.reopened.expired(now) {
            self.answer_at_once();
            if self.incoming.reopened.fired() >= REOPENED_REPEATS_MAX {
                self.incoming.reopened.stop();
            }
        }
        if let Some(repeat) = &mut self.shutdown
            && repeat.expired(now)
        {
            self.owes_shutdown = true;
        }
        if let Some(repeat) = &mut self.release
            && repeat.expired(now)
        {
            self.owes_release = true;
            // What it stood behind may be lost as well.
            self.owes_credit = !self.abort;
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let connect = self.connect.as_ref().and_then(|(_, repeat)| repeat.due());
        let shutdown = self.shutdown.as_ref().and_then(Repeat::due);
        let release = self.release.as_ref().and_then(Repeat::due);
        let urgent = self.outgoing.urgent_repeat.due();
        [connect, urgent, self.outgoing.repeat.due(), self.incoming.reopened.due(), shutdown, release]
            .into_iter()
            .fold(None, earliest)
    }

    /// RELEASE is said, and nothing more can be: the card does not know the id any more. (What the card had said before it
    /// heard of that would else be answered.)
    pub(crate) fn has_left(&self) -> bool {
        self.release.is_some() && !self.owes_release
    }

    /// Whether [`Connection::emit`] has something to say.
    pub(crate) fn wants_to_speak(&self) -> bool {
        if self.id.is_none() {
            return self.owes_connect;
        }
        let out = &self.outgoing;
        if self.has_left() {
            return false;
        }
        self.credit_hurries
            || self.owes_noticed
            || out.owes_urgent
            || (self.owes_shutdown && out.next == out.end())
            || self.owes_release
            || out.probe
            || (self.release.is_none() && out.next < out.limit.min(out.end()))
    }

    /// Whether it has something to say that can wait.
    pub(crate) fn has_patience(&self) -> bool {
        self.owes_credit && !self.credit_hurries && self.id.is_some() && !self.has_left()
    }

    /// Whether what can wait is worth a frame before everybody sleeps.
    pub(crate) fn presses(&self) -> bool {
        self.has_patience() && self.incoming.next - self.incoming.held_told >= patience::HELD_UNTOLD_MAX
    }

    /// What can wait has waited long enough.
    pub(crate) fn lose_patience(&mut self) {
        self.credit_hurries |= self.owes_credit;
    }

    /// Writes what there is to say; `false` if the frame is full and something is left.
    pub(crate) fn emit(&mut self, w: &mut Writer<'_>) -> bool {
        if let Some((connect, _)) = &self.connect
            && self.owes_connect
        {
            if !w.push(&Message::Connect(*connect)) {
                return false;
            }
            self.owes_connect = false;
        }
        let Some(connection) = self.id else {
            return true;
        };
        if self.has_left() {
            return true;
        }
        if self.owes_release {
            return self.emit_release(connection, w);
        }
        if !self.emit_credit(w) {
            return false;
        }
        if self.owes_noticed
            && let Some(notice) = &self.notice
        {
            if !w.push(&Message::Noticed(Noticed { connection, serial: notice.serial })) {
                return false;
            }
            self.owes_noticed = false;
        }
        // Ahead of the data, so that the segments that carry it can say so.
        if self.outgoing.owes_urgent {
            if !w.push(&Message::Urgent(Urgent { connection, offset: self.outgoing.urgent })) {
                return false;
            }
            self.outgoing.owes_urgent = false;
        }
        if !self.emit_data(connection, w) {
            return false;
        }
        // Behind the data: before, the card could do nothing with it.
        if self.owes_shutdown && self.outgoing.next == self.outgoing.end() {
            let shutdown = Shutdown { connection, offset: self.outgoing.end() };
            if !w.push(&Message::Shutdown(shutdown)) {
                return false;
            }
            self.owes_shutdown = false;
        }
        true
    }

    /// The last words, together or not at all: after the RELEASE the card does not know the id any more, and without what stands
    /// before it data would be lost, or the connection reset.
    fn emit_release(&mut self, connection: u64, w: &mut Writer<'_>) -> bool {
        let out = &self.outgoing;
        let data = if self.abort || self.broken.is_some() { 0 } else { out.bytes.len() };
        let release = Message::Release(Release { connection });
        if w.room(&release) < LAST_WORDS_BYTES + data {
            return false;
        }
        let mut fits = self.emit_credit(w);
        let out = &self.outgoing;
        if data > 0 {
            let send = Message::Send(Send { connection, offset: out.held }, &[]);
            fits &= w.push_with(&send, data, |room| out.bytes.copy_out(0, room));
        }
        if self.abort {
            fits &= w.push(&Message::Abort(Abort { connection }));
        }
        fits &= w.push(&release);
        debug_assert!(fits, "room was asked for");
        self.outgoing.sent = self.outgoing.sent.max(self.outgoing.held + data as u64);
        self.owes_release = false;
        true
    }

    /// Writes what there is to answer; `false` if the frame is full.
    pub(crate) fn emit_credit(&mut self, w: &mut Writer<'_>) -> bool {
        let Some(connection) = self.id.filter(|_| self.owes_credit) else {
            return true;
        };
        let received = Message::Received(Received { connection, offset: 0 }, &[]);
        let limit = if self.closing { self.incoming.told } else { self.limit_to_tell(w.room_alone(&received) as u64) };
        let credit = ReceiveCredit { connection, held: self.incoming.next, limit, seen: self.bits };
        if !w.push(&Message::ReceiveCredit(credit)) {
            return false;
        }
        (self.incoming.told, self.incoming.held_told) = (limit, self.incoming.next);
        (self.owes_credit, self.credit_hurries) = (false, false);
        true
    }

    fn emit_data(&mut self, connection: u64, w: &mut Writer<'_>) -> bool {
        let out = &mut self.outgoing;
        while out.next < out.limit.min(out.end()) {
            if out.by_ring {
                let end = out.limit.min(out.end());
                if !w.push(&Message::Filled(Filled { connection, end })) {
                    return false;
                }
                out.next = end;
                out.sent = out.sent.max(end);
                break;
            }
            let message = Message::Send(Send { connection, offset: out.next }, &[]);
            let ready = usize::try_from(out.limit.min(out.end()) - out.next).unwrap_or(usize::MAX);
            let n = ready.min(w.room(&message));
            if n < ready.min(SLIVER_BYTES) && !w.is_empty() {
                return false;
            }
            let from = (out.next - out.held) as usize;
            if n == 0 || !w.push_with(&message, n, |room| out.bytes.copy_out(from, room)) {
                return false;
            }
            out.next += n as u64;
            out.sent = out.sent.max(out.next);
        }
        if out.probe {
            if !w.push(&Message::Send(Send { connection, offset: out.next }, &[])) {
                return false;
            }
            out.probe = false;
        }
        true
    }
}

/// A direction that has moved so many bytes gets a ring: short connections are not worth the words.
const RING_FROM_BYTES: u64 = 64 * 1024;

/// Less data than this is not squeezed into the rest of a frame if there is more to send.
const SLIVER_BYTES: usize = 512;

/// Bytes of all messages that may stand before a RELEASE in its frame, data aside: RECEIVE_CREDIT, SEND with padding, ABORT.
const LAST_WORDS_BYTES: usize = 40 + 32 + 16;
/// Data that the card is not known to hold goes with the RELEASE if it is no more than this; it fits into the least frame.
const LAST_DATA_BYTES: usize = 256;

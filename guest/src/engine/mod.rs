//! The guest's end of the channel, without I/O: frames and the time go in, frames and changes come out.
//!
//! An [`Engine`] is one context on the card. It says HELLO until the card answers, keeps the lease alive, and holds
//! the connections, listeners and open questions of the context. What the card says is applied at once; what there is
//! to say is gathered by [`Engine::poll_transmit`], several messages to a frame, one object after the other.
//!
//! *When the card was restarted.* FIRMWARE_EVENT is only a hint, because a late one could arrive at any time: it
//! makes the engine say HELLO again (and so does the word of a boot that the firmware gives to all contexts, under no
//! key), and CAPS with another context or epoch is the proof. Then every connection is
//! broken, every listener is opened anew, and every CONNECT that had no answer yet goes to the new context.
//! A card that is not heard of for a whole lease, in spite of HELLOs, is taken for gone.
//!
//! *Bounds.* As many connections as the card grants; per connection the bytes of [`Buffers`]; the ids of the last
//! [`FORGOTTEN_MAX`] released connections, so that a late ACCEPTED does not raise the dead.

mod buffer;
mod connection;
#[cfg(test)]
mod frames;
mod listener;
pub(crate) mod map;
mod messages;
#[cfg(test)]
pub(crate) mod mock_card;
mod patience;
mod pressure;
mod repeat;
mod request;
mod stray;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use toe_abi::{
    Addresses, Bye, CARD_MAC, Caps, Connect, Endpoint, Hello, Mac, Message, Parsed, Reason, ResourceEvent, VERSION,
    Writer, feature, flags, option,
};

pub(crate) use connection::Connection;
pub use connection::{Broken, Buffers};
pub(crate) use connection::{Opening, Read, Write};
use listener::Listener;
pub(crate) use listener::{ListenWish, ListenerState};
use map::Map;
use repeat::{Repeat, earliest};
use request::Request;
pub use request::{LimitRow, StatRow};
pub(crate) use request::{Question, Reply};

use crate::transport::RingMemory;

/// So many ids of released connections are remembered.
const FORGOTTEN_MAX: usize = 4096;
/// The first repetition of HELLO, and the longest interval.
const HELLO_FIRST: Duration = Duration::from_millis(20);
const HELLO_MAX: Duration = Duration::from_secs(1);
/// How long the card is asked to take an option that nobody waits for.
const OPTION_PATIENCE: Duration = Duration::from_secs(2);
/// No smaller frame size makes sense: every message without data must fit.
const FRAME_BYTES_MIN: u32 = 512;

/// How a context is to be.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) key: u128,
    pub(crate) mac: Mac,
    /// The longest frame that the transport carries, Ethernet header included.
    pub(crate) frame_bytes_max: usize,
    /// The most bytes of received data that the transport can have on their way to us.
    pub(crate) receive_bytes_max: u64,
    pub(crate) lease: Duration,
    pub(crate) buffers: Buffers,
    /// What the card is told of the process.
    pub(crate) process: Option<Process>,
}

/// A process, for who looks at the card's connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) name: String,
}

impl Process {
    /// This one, as the kernel names it.
    pub(crate) fn this() -> Self {
        let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let name = name.trim_end().to_owned();
        Self { pid: std::process::id(), uid: rustix::process::getuid().as_raw(), name }
    }
}

/// Names a connection within its engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct ConnectionKey(u64);

/// Names a listener within its engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct ListenerKey(u64);

/// Names a question within its engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct QuestionKey(u64);

/// Something that a program may wait for has happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Change {
    /// CAPS arrived, or HELLO was refused.
    Context,
    Connection(ConnectionKey),
    /// The card has had no answer from a connection's peer for long: perhaps its next hop is another now.
    PathAdvice(ConnectionKey),
    /// The engine has forgotten a connection: nothing of it is left on the channel.
    Forgotten(ConnectionKey),
    Listener(ListenerKey),
    Question(QuestionKey),
}

/// Whoever can have something to say, or a timer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Speaker {
    Connection(ConnectionKey),
    Listener(ListenerKey),
    Question(QuestionKey),
}

/// What was counted on the guest's side of the channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChannelCounters {
    /// Frames that were not this context's: another key, another context or epoch, or no channel frame at all.
    pub frames_not_ours: u64,
    /// Messages that could not be read.
    pub messages_malformed: u64,
    /// Messages about objects that do not exist here (late ones, mostly).
    pub messages_unknown_object: u64,
    /// Messages that say what cannot be, such as credit for bytes that were never sent.
    pub messages_impossible: u64,
    /// ERROR messages from the card.
    pub errors: u64,
    /// Times that the card said that a pool is nearly full, full, or well below again.
    pub resource_events: u64,
    /// Received bytes dropped because they were ahead of their turn or beyond the limit.
    pub bytes_out_of_order: u64,
    /// How often the context was lost and everything with it.
    pub contexts_lost: u64,
    /// Connections and listeners of the card that were nobody's here (a late CONNECT or LISTEN made them) and were let go of.
    pub strays: u64,
    /// Rings that the card was told of, for one direction of a connection each.
    pub rings_used: u64,
    /// Times that there was no ring to be had, or the connection's buffer is longer than one: its bytes went on in frames.
    pub rings_wanting: u64,
}

/// What CAPS said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Open {
    context: u64,
    epoch: u32,
    lease: Duration,
    frame_bytes_max: usize,
    /// It reaches our rings.
    shares: bool,
}

/// One context; see the module.
#[derive(Debug)]
pub(crate) struct Engine {
    config: Config,
    open: Option<Open>,
    /// Runs while CAPS is waited for.
    hello: Repeat,
    owes_hello: bool,
    hello_since: Instant,
    /// The reason, and whether the kernel may not be used instead.
    hello_refused: Option<(u32, bool)>,
    owes_bye: bool,
    ended: bool,
    /// When the card last showed that it knows this context.
    heard: Instant,
    /// When the next sign of life is due.
    keepalive: Option<Instant>,
    owes_keepalive: bool,
    addresses: Vec<IpAddr>,
    owes_addresses: bool,
    owes_process: bool,
    connections: Map<ConnectionKey, Connection>,
    connections_by_id: Map<u64, ConnectionKey>,
    connections_by_cookie: Map<u64, ConnectionKey>,
    forgotten: VecDeque<u64>,
    forgotten_set: HashSet<u64>,
    listeners: Map<ListenerKey, Listener>,
    questions: Map<QuestionKey, Request>,
    next_key: u64,
    timers: BTreeSet<(Instant, Speaker)>,
    speakers: VecDeque<Speaker>,
    patience: patience::Patience,
    changes: Vec<Change>,
    counters: ChannelCounters,
    pressure: pressure::Pressure,
    suspects: stray::Suspects,
    rings: Option<RingMemory>,
}

impl Engine {
    /// A context that is about to say HELLO.
    pub(crate) fn new(now: Instant, config: Config) -> Self {
        let mut hello = Repeat::new(HELLO_FIRST, HELLO_MAX);
        hello.start(now);
        Self {
            config,
            open: None,
            hello,
            owes_hello: true,
            hello_since: now,
            hello_refused: None,
            owes_bye: false,
            ended: false,
            heard: now,
            keepalive: None,
            owes_keepalive: false,
            addresses: Vec::new(),
            owes_addresses: false,
            owes_process: false,
            connections: Map::default(),
            connections_by_id: Map::default(),
            connections_by_cookie: Map::default(),
            forgotten: VecDeque::new(),
            forgotten_set: HashSet::new(),
            listeners: Map::default(),
            questions: Map::default(),
            next_key: 1,
            timers: BTreeSet::new(),
            speakers: VecDeque::new(),
            patience: patience::Patience::default(),
            changes: Vec::new(),
            counters: ChannelCounters::default(),
            pressure: pressure::Pressure::default(),
            suspects: stray::Suspects::default(),
            rings: None,
        }
    }

    /// Memory that the card reaches, if it says that it does.
    pub(crate) fn share(&mut self, rings: Option<RingMemory>) {
        self.rings = rings;
    }

    /// Gives a connection the ring that it is worth by now, and tells the card.
    fn offer_ring(&mut self, now: Instant, key: ConnectionKey) {
        let Some(rings) = self.rings.as_ref().filter(|_| self.open.is_some_and(|open| open.shares)) else { return };
        let Some(which) = self.connections.get(&key).and_then(Connection::wanted_ring) else { return };
        let value = self.connections.get_mut(&key).and_then(|c| c.use_ring(which, rings.take()));
        match value {
            Some(value) => {
                self.counters.rings_used += 1;
                self.set_option(now, key, which, value);
            }
            None => self.counters.rings_wanting += 1,
        }
    }

    /// Whether the card knows this context.
    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Why the card refused HELLO, if it did, and whether its operator wants the program to be told.
    pub(crate) fn hello_refused(&self) -> Option<(u32, bool)> {
        self.hello_refused
    }

    /// Since when HELLO has had no answer, if the context is not open.
    pub(crate) fn unanswered_since(&self) -> Option<Instant> {
        self.open.is_none().then_some(self.hello_since)
    }

    pub(crate) fn counters(&self) -> ChannelCounters {
        self.counters
    }

    /// What the card said of its pools since this was last asked.
    pub(crate) fn take_resource_events(&mut self) -> Vec<ResourceEvent> {
        self.pressure.take()
    }

    fn new_key(&mut self) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        key
    }

    // ---- connections: the program's side ----

    /// Opens a connection. The cookie is the key.
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        (local, remote): (Endpoint, Endpoint),
        next_hop: Mac,
        mtu: u32,
        flags: u32,
    ) -> ConnectionKey {
        let cookie = self.new_key();
        let key = ConnectionKey(cookie);
        let flags = flags | flags::PATIENT;
        let connect = Connect { cookie, local, remote, next_hop, flags, mtu, receive_limit: 0 };
        self.connections.insert(key, Connection::active(now, connect, self.config.buffers));
        self.connections_by_cookie.insert(cookie, key);
        self.settle_connection(key);
        key
    }

    pub(crate) fn connection(&self, key: ConnectionKey) -> Option<&Connection> {
        self.connections.get(&key)
    }

    /// Does something to a connection, if it still exists, and whatever follows from that.
    fn with<R>(&mut self, key: ConnectionKey, f: impl FnOnce(&mut Connection) -> R) -> Option<R> {
        let result = self.connections.get_mut(&key).map(f);
        self.settle_connection(key);
        result
    }

    /// Takes bytes to send. A connection that is not there any more was broken off.
    pub(crate) fn write(&mut self, now: Instant, key: ConnectionKey, bytes: &[u8]) -> Write {
        let written = self.with(key, |c| c.write(now, bytes)).unwrap_or(Write::Broken(Broken::CardRestarted));
        self.offer_ring(now, key);
        written
    }

    /// The same, and marks what was taken as urgent.
    pub(crate) fn write_urgent(&mut self, now: Instant, key: ConnectionKey, bytes: &[u8]) -> Write {
        self.with(key, |c| c.write_urgent(now, bytes)).unwrap_or(Write::Broken(Broken::CardRestarted))
    }

    pub(crate) fn read(&mut self, now: Instant, key: ConnectionKey, buffer: &mut [u8], peek: bool) -> Read {
        self.with(key, |c| c.read(now, buffer, peek)).unwrap_or(Read::Broken(Broken::CardRestarted))
    }

    pub(crate) fn shutdown_write(&mut self, now: Instant, key: ConnectionKey) {
        self.with(key, |c| c.shutdown_write(now));
        self.changes.push(Change::Connection(key));
    }

    pub(crate) fn shutdown_read(&mut self, key: ConnectionKey) {
        self.with(key, Connection::shutdown_read);
        self.changes.push(Change::Connection(key));
    }

    /// The program will not use the connection again; [`Change::Forgotten`] follows when the card has let go too.
    pub(crate) fn close(&mut self, now: Instant, key: ConnectionKey) {
        self.with(key, |c| c.close(now));
    }

    /// The same, with a RST for the peer.
    pub(crate) fn abort(&mut self, now: Instant, key: ConnectionKey) {
        self.with(key, |c| c.reject(now));
    }

    /// Whether connections are still being closed.
    pub(crate) fn is_closing_any(&self) -> bool {
        self.connections.values().any(Connection::is_closing)
    }

    // ---- listeners: the program's side ----

    /// Opens a listener.
    pub(crate) fn listen(
        &mut self,
        now: Instant,
        local: Endpoint,
        wish: ListenWish,
        mtu: u32,
        addresses: Vec<IpAddr>,
    ) -> ListenerKey {
        self.addresses = addresses;
        self.owes_addresses = true;
        let cookie = self.new_key();
        let key = ListenerKey(cookie);
        let receive_limit = self.config.buffers.receive_bytes as u64;
        self.listeners.insert(key, Listener::new(now, cookie, local, wish, mtu, receive_limit));
        self.settle_listener(key);
        key
    }

    pub(crate) fn listener(&self, key: ListenerKey) -> Option<&Listener> {
        self.listeners.get(&key)
    }

    /// The next connection that the card announced.
    pub(crate) fn accept(&mut self, key: ListenerKey) -> Option<ConnectionKey> {
        let taken = self.listeners.get_mut(&key)?.take()?;
        self.settle_listener(key);
        self.changes.push(Change::Listener(key));
        Some(taken)
    }

    /// Closes a listener; connections that nobody accepted are closed with it.
    pub(crate) fn unlisten(&mut self, now: Instant, key: ListenerKey) {
        let Some(listener) = self.listeners.get_mut(&key) else {
            return;
        };
        for connection in listener.close(now) {
            self.with(connection, |c| c.reject(now));
        }
        self.settle_listener(key);
    }

    /// Whether any listener wants to know of address changes.
    pub(crate) fn wants_addresses(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// The guest's own addresses, as they are now.
    pub(crate) fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        if addresses != self.addresses {
            self.addresses = addresses;
            self.owes_addresses = true;
        }
    }

    // ---- questions ----

    /// Asks the card; the answer comes with [`Change::Question`], at the latest after `patience`.
    pub(crate) fn ask(&mut self, now: Instant, question: Question, patience: Duration) -> QuestionKey {
        self.begin_question(now, question, patience, false)
    }

    fn begin_question(&mut self, now: Instant, question: Question, patience: Duration, patient: bool) -> QuestionKey {
        let cookie = self.new_key();
        let key = QuestionKey(cookie);
        let mut request = Request::new(now, cookie, question, patience);
        request.patient = patient;
        let object = match question {
            Question::Option { connection, .. } | Question::Info { connection } => {
                self.connections.get(&connection).and_then(|c| c.id)
            }
            Question::Limits { .. } | Question::Stat { .. } | Question::Sockets { .. } => Some(0),
        };
        match object {
            Some(object) => request.object = object,
            None => {
                request.fail(Reason::UnknownObject as u32);
                self.changes.push(Change::Question(key));
            }
        }
        self.questions.insert(key, request);
        self.settle_question(key);
        key
    }

    /// Frames of this connection go to another station from now on. The card confirms it, and nobody waits for that.
    pub(crate) fn set_next_hop(&mut self, now: Instant, connection: ConnectionKey, station: Mac) {
        let [a, b, c, d, e, f] = station.0;
        let value = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        self.set_option(now, connection, option::NEXT_HOP, value);
    }

    /// Sets an option of `toe_abi::option`. The card confirms it, and nobody waits for that.
    pub(crate) fn set_option(&mut self, now: Instant, connection: ConnectionKey, option: u32, value: u64) {
        // One that was set before must not be repeated behind this.
        let before = |q: &Request| q.detached && q.sets(connection, option);
        let before: Vec<_> = self.questions.iter().filter(|(_, q)| before(q)).map(|(key, _)| *key).collect();
        for key in before {
            self.forget_question(key);
        }
        let question = Question::Option { connection, option, set: Some(value) };
        // The one that goes by it from the next data on is not told before that.
        let key = self.begin_question(now, question, OPTION_PATIENCE, option == option::NODELAY);
        self.begin_to_wait(now);
        if let Some(question) = self.questions.get_mut(&key) {
            question.detached = true;
        }
        self.settle_question(key);
    }

    /// The answer, once; the question is then forgotten.
    pub(crate) fn take_reply(&mut self, key: QuestionKey) -> Option<Reply> {
        let reply = self.questions.get_mut(&key)?.reply.take()?;
        self.forget_question(key);
        Some(reply)
    }

    fn forget_question(&mut self, key: QuestionKey) {
        if let Some(question) = self.questions.remove(&key)
            && let Some(timer) = question.timer
        {
            self.timers.remove(&(timer, Speaker::Question(key)));
        }
    }

    /// Ends the context: everything that is left is aborted by the card.
    pub(crate) fn bye(&mut self) {
        self.owes_bye = self.open.is_some();
        self.ended = true;
        self.hello.stop();
        self.keepalive = None;
    }

    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    // ---- bookkeeping: after every touch of an object ----

    fn settle_connection(&mut self, key: ConnectionKey) {
        let Some(c) = self.connections.get_mut(&key) else {
            return;
        };
        let speaker = Speaker::Connection(key);
        if c.wants_to_speak() && !c.queued {
            c.queued = true;
            self.speakers.push_back(speaker);
        }
        self.patience.presses |= c.presses();
        if c.has_patience() && !c.waits {
            c.waits = true;
            self.patience.speakers.push_back(speaker);
        }
        let due = if c.finished { None } else { c.poll_timeout() };
        set_timer(&mut self.timers, speaker, &mut c.timer, due);
        if !c.finished {
            return;
        }
        let (id, cookie) = (c.id, c.cookie());
        c.give_rings_back();
        self.connections.remove(&key);
        if let Some(cookie) = cookie {
            self.connections_by_cookie.remove(&cookie);
        }
        if let Some(id) = id {
            self.connections_by_id.remove(&id);
            self.forget(id);
        }
        self.changes.push(Change::Forgotten(key));
    }

    fn forget(&mut self, id: u64) {
        if self.forgotten_set.insert(id) {
            self.forgotten.push_back(id);
            if self.forgotten.len() > FORGOTTEN_MAX
                && let Some(oldest) = self.forgotten.pop_front()
            {
                self.forgotten_set.remove(&oldest);
            }
        }
    }

    fn settle_listener(&mut self, key: ListenerKey) {
        let Some(l) = self.listeners.get_mut(&key) else {
            return;
        };
        let speaker = Speaker::Listener(key);
        if l.wants_to_speak() && !l.queued {
            l.queued = true;
            self.speakers.push_back(speaker);
        }
        let due = if l.finished { None } else { l.poll_timeout() };
        set_timer(&mut self.timers, speaker, &mut l.timer, due);
        if l.finished {
            self.listeners.remove(&key);
        }
    }

    fn settle_question(&mut self, key: QuestionKey) {
        let Some(q) = self.questions.get_mut(&key) else {
            return;
        };
        let speaker = Speaker::Question(key);
        if q.wants_to_speak() && !q.queued {
            q.queued = true;
            let queue = if q.patient { &mut self.patience.speakers } else { &mut self.speakers };
            queue.push_back(speaker);
        }
        let due = q.poll_timeout();
        set_timer(&mut self.timers, speaker, &mut q.timer, due);
        if q.detached && q.reply.is_some() {
            self.questions.remove(&key);
        }
    }

    // ---- the card's side ----

    /// Takes a frame. `false`: it is not this context's.
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: &[u8]) -> bool {
        let Ok(parsed) = Parsed::new(frame) else {
            self.counters.frames_not_ours += 1;
            return false;
        };
        if parsed.header.key == EVERYBODY && !self.ended {
            self.handle_announcement(now, &parsed);
            return true;
        }
        if parsed.header.key != self.config.key || self.ended {
            self.counters.frames_not_ours += 1;
            return false;
        }
        for message in parsed.messages {
            let ours = self.open.is_some_and(|o| o.context == parsed.header.context && o.epoch == parsed.header.epoch);
            if ours {
                self.heard = now;
            }
            match message {
                Err(_) => self.counters.messages_malformed += 1,
                Ok(Message::Caps(caps)) => self.handle_caps(now, &caps),
                Ok(Message::FirmwareEvent(_)) => self.say_hello(now),
                Ok(Message::Error(e)) if !ours && self.hello.is_running() && e.kind == HELLO_KIND => {
                    self.counters.errors += 1;
                    self.hello_refused = Some((e.reason, e.denied != 0));
                    if self.open.take().is_some() {
                        // A context that still existed would have been confirmed.
                        self.keepalive = None;
                        self.lose(now, Broken::CardRestarted);
                    }
                    self.changes.push(Change::Context);
                }
                Ok(message) if ours => self.handle_message(now, &message),
                Ok(_) => self.counters.frames_not_ours += 1,
            }
        }
        self.begin_to_wait(now);
        true
    }

    /// The firmware tells all contexts of its boot. Of one that is known there is nothing to learn.
    fn handle_announcement(&mut self, now: Instant, parsed: &Parsed<'_>) {
        for message in parsed.messages.clone() {
            if let Ok(Message::FirmwareEvent(event)) = message
                && self.open.is_some_and(|open| open.epoch != event.epoch)
            {
                self.say_hello(now);
            }
        }
    }

    fn say_hello(&mut self, now: Instant) {
        if !self.hello.is_running() {
            self.hello.start(now);
            self.hello_since = now;
            self.owes_hello = true;
        }
    }

    fn handle_caps(&mut self, now: Instant, caps: &Caps) {
        if !self.hello.is_running() {
            return;
        }
        if caps.version != VERSION || caps.context == 0 || caps.frame_bytes_max < FRAME_BYTES_MIN {
            self.counters.messages_impossible += 1;
            return;
        }
        let open = Open {
            context: caps.context,
            epoch: caps.epoch,
            lease: Duration::from_millis(u64::from(caps.lease_ms.max(30))),
            frame_bytes_max: self.config.frame_bytes_max.min(caps.frame_bytes_max as usize),
            shares: caps.features & feature::SHARED_RINGS != 0,
        };
        if let Some(before) = self.open
            && (before.context, before.epoch) != (open.context, open.epoch)
        {
            self.lose(now, Broken::CardRestarted);
        }
        self.open = Some(open);
        self.hello.stop();
        self.owes_hello = false;
        self.hello_refused = None;
        self.owes_process = true;
        self.heard = now;
        self.keepalive = Some(now + open.lease / 3);
        self.changes.push(Change::Context);
    }

    /// Everything that the card held for us is gone.
    fn lose(&mut self, now: Instant, why: Broken) {
        self.counters.contexts_lost += 1;
        log::warn!("the context on the card is lost ({why}); its connections are broken");
        self.connections_by_id.clear();
        self.suspects.clear();
        // A card that has booted begins its ids anew: what was released under one of them says nothing of who has it now.
        self.forgotten.clear();
        self.forgotten_set.clear();
        let keys: Vec<_> = self.connections.keys().copied().collect();
        for key in keys {
            // A CONNECT without an answer is none of the old context's; it goes to the new one.
            if self.connections.get(&key).is_some_and(|c| c.opening != Opening::Asked) {
                self.with(key, |c| c.break_off(now, why));
                self.changes.push(Change::Connection(key));
            }
        }
        let keys: Vec<_> = self.listeners.keys().copied().collect();
        for key in keys {
            let orphans = self.listeners.get_mut(&key).map(|l| l.reopen(now)).unwrap_or_default();
            for orphan in orphans {
                self.close(now, orphan);
            }
            self.settle_listener(key);
            self.changes.push(Change::Listener(key));
        }
        self.owes_addresses = !self.listeners.is_empty();
        let keys: Vec<_> = self.questions.keys().copied().collect();
        for key in keys {
            if let Some(q) = self.questions.get_mut(&key)
                && q.object != 0
            {
                q.fail(Reason::UnknownContext as u32);
                self.changes.push(Change::Question(key));
            }
            self.settle_question(key);
        }
    }

    // ---- time and output ----

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.hello.expired(now) {
            self.owes_hello = true;
        }
        if let Some(open) = self.open
            && self.keepalive.is_some_and(|due| due <= now)
        {
            self.handle_keepalive(now, open);
        }
        self.run_out_of_patience(now);
        while let Some(&(due, speaker)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            match speaker {
                Speaker::Connection(key) => {
                    self.with(key, |c| {
                        c.timer = None;
                        c.handle_timeout(now);
                    });
                    // Somebody may be waiting to give up.
                    if self.connections.get(&key).is_some_and(|c| c.opening == Opening::Asked) {
                        self.changes.push(Change::Connection(key));
                    }
                }
                Speaker::Listener(key) => {
                    if let Some(l) = self.listeners.get_mut(&key) {
                        l.timer = None;
                        l.handle_timeout(now);
                    }
                    self.settle_listener(key);
                }
                Speaker::Question(key) => {
                    if let Some(q) = self.questions.get_mut(&key) {
                        q.timer = None;
                        if q.handle_timeout(now) {
                            self.changes.push(Change::Question(key));
                        }
                    }
                    self.settle_question(key);
                }
            }
        }
    }

    fn handle_keepalive(&mut self, now: Instant, open: Open) {
        if now >= self.heard + open.lease {
            self.open = None;
            self.keepalive = None;
            self.lose(now, Broken::CardSilent);
            self.say_hello(now);
            return;
        }
        if now >= self.heard + open.lease / 3 {
            self.say_hello(now);
        }
        self.keepalive = Some(now + open.lease / 3);
        self.owes_keepalive = true;
        self.owes_process = true;
        self.owes_addresses |= !self.listeners.is_empty();
        let keys: Vec<_> = self.listeners.keys().copied().collect();
        for key in keys {
            if let Some(l) = self.listeners.get_mut(&key) {
                l.tell_taken();
            }
            self.settle_listener(key);
        }
    }

    /// When [`Engine::handle_timeout`] wants to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let first = self.timers.first().map(|(due, _)| *due);
        earliest(earliest(self.hello.due(), self.keepalive), earliest(first, self.patience.due()))
    }

    /// The next frame to send, into `buffer`; its length. To be called until `None`.
    pub(crate) fn poll_transmit(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.owes_hello {
            self.owes_hello = false;
            return self.emit_hello(buffer);
        }
        let open = self.open?;
        let room = open.frame_bytes_max.min(buffer.len());
        let mut w =
            Writer::new(&mut buffer[..room], self.config.mac, CARD_MAC, open.context, open.epoch, self.config.key)?;
        if self.owes_bye {
            self.owes_bye = false;
            return w.push(&Message::Bye(Bye { reserved: 0 })).then(|| w.finish());
        }
        if self.ended {
            return None;
        }
        if self.owes_addresses {
            self.owes_addresses = false;
            let message = Message::Addresses(Addresses { cookie: 0 }, &[]);
            let n = self.addresses.len().min(w.room(&message) / 16);
            let addresses = &self.addresses[..n];
            let written = w.push_with(&message, n * 16, |tail| {
                for (place, address) in tail.chunks_exact_mut(16).zip(addresses) {
                    let v6 = match address {
                        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                        IpAddr::V6(v6) => *v6,
                    };
                    place.copy_from_slice(&v6.octets());
                }
            });
            debug_assert!(written, "an empty frame has room for it");
        }
        if std::mem::take(&mut self.owes_process)
            && let Some(process) = &self.config.process
        {
            let message = toe_abi::Process { pid: process.pid, uid: process.uid };
            // Without room it is said with the next sign of life: it is for tables alone.
            let _ = w.push(&Message::Process(message, process.name.as_bytes()));
        }
        while let Some(speaker) = self.speakers.pop_front() {
            if !self.speak(speaker, &mut w) {
                // Others first, so that one with much to send does not keep the rest waiting.
                self.speakers.push_back(speaker);
                break;
            }
        }
        if !w.is_empty() || self.owes_keepalive {
            self.take_along(&mut w);
        }
        if w.is_empty() && !self.owes_keepalive {
            return None;
        }
        self.owes_keepalive = false;
        Some(w.finish())
    }

    /// Writes what an object has to say; `false` if the frame is full and something is left.
    fn speak(&mut self, speaker: Speaker, w: &mut Writer<'_>) -> bool {
        match speaker {
            Speaker::Connection(key) => self.connections.get_mut(&key).is_none_or(|c| {
                let complete = c.emit(w);
                c.queued = !complete;
                complete
            }),
            Speaker::Listener(key) => self.listeners.get_mut(&key).is_none_or(|l| {
                let complete = l.emit(w);
                l.queued = !complete;
                complete
            }),
            Speaker::Question(key) => self.questions.get_mut(&key).is_none_or(|q| {
                let complete = q.emit(w);
                q.queued = !complete;
                complete
            }),
        }
    }

    fn emit_hello(&self, buffer: &mut [u8]) -> Option<usize> {
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            lease_ms: u32::try_from(self.config.lease.as_millis()).unwrap_or(u32::MAX),
            frame_bytes_max: u32::try_from(self.config.frame_bytes_max).unwrap_or(u32::MAX),
            reserved: 0,
            receive_bytes_max: self.config.receive_bytes_max,
        };
        let mut w = Writer::new(buffer, self.config.mac, CARD_MAC, 0, 0, self.config.key)?;
        w.push(&Message::Hello(hello)).then(|| w.finish())
    }
}

/// The key of what the card says to all contexts.
const EVERYBODY: u128 = 0;
/// HELLO's type, which an ERROR about it names.
const HELLO_KIND: u16 = 0x0101;

/// Moves an object's timer.
fn set_timer(
    timers: &mut BTreeSet<(Instant, Speaker)>,
    speaker: Speaker,
    set: &mut Option<Instant>,
    due: Option<Instant>,
) {
    if *set != due {
        if let Some(old) = set.take() {
            timers.remove(&(old, speaker));
        }
        if let Some(due) = due {
            timers.insert((due, speaker));
        }
        *set = due;
    }
}

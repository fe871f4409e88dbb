//! A model of the guest's driver: the channel's rules, in virtual time, over a channel that may lose, repeat and
//! reorder frames.
//!
//! Everything that the card has not confirmed is said again by one timer per connection and one per listener, from
//! [`Settings::resend_us`] doubling up to [`RESEND_US_MAX`]; every word of the card about a connection sets its timer
//! back. Every connection keeps its timer as long as it lives, because a raised receive limit is never confirmed.
//!
//! Its programs' streams are patterns: what they have written is a length, made into bytes where a SEND is written, and
//! what they receive is compared where a RECEIVED is read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use toe_abi::{
    Abort, Accepted, Addresses, Bye, CARD_MAC, Caps, Connect, Endpoint, FRAME_BYTES_MAX, Hello, Listen, Mac, Message,
    Notice, Noticed, Parsed, Reason, ReceiveCredit, Release, Send, SendCredit, SetOption, Shutdown, State, Taken,
    Writer, flags, state,
};
use toe_impair::Random;

use crate::end::{Flow, Pair, Read, Status, Streams};
use crate::pattern::Pattern;

const RESEND_US_MAX: u64 = 1_000_000;

/// Connections that were accepted have no cookie of a CONNECT; their requests are known by their id and this.
const ACCEPTED_COOKIE: u64 = 1 << 63;

/// Signs of life that must all be lost before the card gives the guest up.
const SIGNS_PER_LEASE: u64 = 10;

/// What is fixed for a guest.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mac: Mac,
    /// Where the other end is.
    pub next_hop: Mac,
    pub key: u128,
    pub addresses: Vec<IpAddr>,
    pub mtu: u32,
    pub lease_ms: u32,
    /// The longest channel frame that the guest takes.
    pub frame_bytes_max: u32,
    /// The most received bytes on their way to the guest.
    pub receive_bytes_max: u64,
    /// How far ahead of what its program has read a connection can receive.
    pub window_bytes: u64,
    /// How much a connection keeps of what its program has written.
    pub write_buffer_bytes: u64,
    /// How long the card may be silent before everything is said again.
    pub resend_us: u64,
    /// Whether Nagle's algorithm is off.
    pub nodelay: bool,
    /// Whether each message goes in a frame of its own.
    pub one_message_per_frame: bool,
    /// Whether some SENDs are shorter than they need be.
    pub short_sends: bool,
    /// What every connection is set to: options and their values.
    pub options: Vec<(u32, u64)>,
}

impl Settings {
    /// The flags of CONNECT or LISTEN. Every other one can wait for what no program sleeps for.
    fn wishes(&self, cookie: u64) -> u32 {
        let patient = if cookie % 2 == 1 { flags::PATIENT } else { 0 };
        if self.nodelay { flags::NODELAY | patient } else { patient }
    }
}

/// A message that waits for a frame.
enum Out {
    Fixed(Message<'static>),
    /// So many bytes of a stream.
    Send(Send, Streams, u32),
    Addresses(Vec<u8>),
}

/// One connection, from the program's wish to RELEASED.
struct Conn {
    flow: Flow,
    pair: Pair,
    streams: Streams,
    cookie: u64,
    /// Whether there is something to say.
    is_dirty: bool,
    /// Which of [`Settings::options`] are set, a bit each.
    options_set: u64,
    id: Option<u64>,
    refused: Option<(Reason, u32)>,
    bits: u32,
    reason: u32,
    fin_offset: Option<u64>,
    /// Behind the last byte that its program has written.
    written: u64,
    held: u64,
    /// The next offset to be sent.
    next: u64,
    /// Behind the furthest byte ever sent.
    sent: u64,
    limit: u64,
    shutdown: bool,
    said_shutdown: bool,
    abort: bool,
    release: bool,
    said_release: bool,
    released: bool,
    /// Behind the last byte that arrived in order.
    received: u64,
    read: u64,
    owes_credit: bool,
    /// `held` when the timer last ran: whether the card has taken anything since.
    held_before: u64,
    resend_at_us: u64,
    backoff_us: u64,
}

impl Conn {
    fn is_aborted(&self) -> bool {
        self.bits & state::ABORTED != 0
    }
}

struct Listener {
    cookie: u64,
    local: Endpoint,
    id: Option<u64>,
    taken: u64,
    /// Connections announced and not yet asked for by a program.
    waiting: VecDeque<Accepted>,
    resend_at_us: u64,
    backoff_us: u64,
}

enum Context {
    None,
    Open { id: u64, epoch: u32, frame_bytes_max: usize },
}

/// The driver.
pub struct Guest {
    settings: Settings,
    random: Random,
    context: Context,
    hello_at_us: u64,
    alive_at_us: u64,
    conns: Vec<Conn>,
    listeners: Vec<Listener>,
    /// Flows that wait for a listener's connection from their remote end.
    wanted: Vec<(Flow, Pair, Streams)>,
    /// Every connection id ever announced or given.
    known: BTreeSet<u64>,
    /// Of these, connections that nobody asked for.
    disowned: BTreeSet<u64>,
    /// Of ids that are not known, the last cookie that had been given out when the card first named them.
    suspects: BTreeMap<u64, u64>,
    pending: VecDeque<Out>,
    next_cookie: u64,
    /// Flows that ended with the driver that had them, and the keys of such drivers.
    gone: BTreeSet<Flow>,
    old_keys: Vec<u128>,
    /// How long the next driver takes to start, if this one says BYE and ends.
    leaves_for_us: Option<u64>,
    /// Where frames are written.
    buffer: Vec<u8>,
    /// Whether what arrives may be other than what was sent.
    pub expects_wrong_bytes: bool,
    /// Whether a stream may begin with its second byte, and those that did.
    pub may_begin_late: bool,
    late: BTreeSet<Flow>,
    /// ERROR messages: reason, message type.
    pub errors: Vec<(Reason, u16)>,
    /// FIRMWARE_EVENT messages.
    pub firmware_events: u64,
    /// A fault may refuse its listeners: it asks again.
    pub may_be_refused: bool,
}

impl Guest {
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            random: Random::new(seed),
            context: Context::None,
            hello_at_us: 0,
            alive_at_us: 0,
            conns: Vec::new(),
            listeners: Vec::new(),
            wanted: Vec::new(),
            known: BTreeSet::new(),
            disowned: BTreeSet::new(),
            suspects: BTreeMap::new(),
            pending: VecDeque::new(),
            next_cookie: 1,
            gone: BTreeSet::new(),
            old_keys: Vec::new(),
            leaves_for_us: None,
            buffer: vec![0; FRAME_BYTES_MAX],
            expects_wrong_bytes: false,
            may_begin_late: false,
            late: BTreeSet::new(),
            errors: Vec::new(),
            firmware_events: 0,
            may_be_refused: false,
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the stream of a flow began with its second byte.
    pub fn began_late(&self, flow: Flow) -> bool {
        self.late.contains(&flow)
    }

    // What programs do.

    pub fn connect(&mut self, now_us: u64, flow: Flow, pair: Pair, streams: Streams) {
        let cookie = self.cookie();
        self.conns.push(Conn::new(flow, pair, streams, cookie, now_us));
    }

    /// The driver ends and another starts `pause_us` later, which knows nothing of it. With `says_bye` it takes its leave;
    /// without, the card has to find out.
    pub fn reset(&mut self, now_us: u64, pause_us: u64, says_bye: bool) {
        if says_bye && matches!(self.context, Context::Open { .. }) {
            self.pending.clear();
            self.pending.push_back(Out::Fixed(Message::Bye(Bye { reserved: 0 })));
            self.leaves_for_us = Some(pause_us);
        } else {
            self.begin_anew(now_us, pause_us);
        }
    }

    fn begin_anew(&mut self, now_us: u64, pause_us: u64) {
        self.old_keys.push(self.settings.key);
        self.settings.key = u128::from(self.random.bits()) << 32 | u128::from(self.random.bits() >> 32);
        self.context = Context::None;
        self.disowned.clear();
        self.suspects.clear();
        self.hello_at_us = now_us + pause_us;
        self.pending.clear();
        self.leaves_for_us = None;
        self.gone.extend(self.conns.drain(..).map(|c| c.flow).chain(self.wanted.drain(..).map(|w| w.0)));
        // Its programs listen as they did.
        for i in 0..self.listeners.len() {
            let cookie = self.cookie();
            let listener = &mut self.listeners[i];
            (listener.cookie, listener.id, listener.taken) = (cookie, None, 0);
            listener.waiting.clear();
            (listener.resend_at_us, listener.backoff_us) = (now_us, self.settings.resend_us);
        }
    }

    /// Waits for the connection from `pair.remote`; opens a listener for `local` unless there is one.
    pub fn accept(&mut self, now_us: u64, flow: Flow, pair: Pair, local: IpAddr, streams: Streams) {
        self.wanted.push((flow, pair, streams));
        let local = Endpoint::new(local, pair.local.port());
        if self.listeners.iter().any(|l| l.local == local) {
            return;
        }
        let cookie = self.cookie();
        let backoff_us = self.settings.resend_us;
        self.listeners.push(Listener {
            cookie,
            local,
            id: None,
            taken: 0,
            waiting: VecDeque::new(),
            resend_at_us: now_us,
            backoff_us,
        });
    }

    pub fn status(&self, flow: Flow) -> Status {
        let Some(conn) = self.conns.iter().find(|c| c.flow == flow) else {
            return if self.gone.contains(&flow) { Status::Broken("its driver is gone") } else { Status::Opening };
        };
        if let Some((reason, _)) = conn.refused {
            return Status::Broken(reason.as_str());
        }
        if conn.is_aborted() {
            return Status::Broken(Reason::from_u32(conn.reason).map_or("unknown", Reason::as_str));
        }
        if conn.bits & (state::ESTABLISHED | state::ACCEPTED) != 0 { Status::Open } else { Status::Opening }
    }

    pub fn write(&mut self, flow: Flow, most: u64) -> u64 {
        let room = self.settings.write_buffer_bytes;
        let conn = self.conn(flow);
        assert!(!conn.shutdown, "flow {flow}: written after shutdown");
        let n = most.min(room.saturating_sub(conn.written - conn.held));
        conn.written += n;
        conn.is_dirty |= n > 0;
        n
    }

    pub fn read(&mut self, flow: Flow, most: u64) -> Read {
        let conn = self.conn(flow);
        let n = most.min(conn.received - conn.read);
        if n == 0 {
            return if conn.fin_offset == Some(conn.read) { Read::End } else { Read::Wait };
        }
        conn.read += n;
        conn.owes_credit = true;
        conn.is_dirty = true;
        Read::Bytes(n)
    }

    pub fn shutdown(&mut self, flow: Flow) {
        let conn = self.conn(flow);
        conn.shutdown = true;
        conn.is_dirty = true;
    }

    pub fn all_acknowledged(&self, flow: Flow) -> bool {
        self.conns.iter().any(|c| c.flow == flow && c.bits & state::ALL_ACKNOWLEDGED != 0)
    }

    pub fn abort(&mut self, flow: Flow) {
        if let Some(conn) = self.conns.iter_mut().find(|c| c.flow == flow) {
            conn.abort = true;
            conn.is_dirty = true;
            let message = conn.id.map(|connection| Out::Fixed(Message::Abort(Abort { connection })));
            self.pending.extend(message);
        } else {
            self.wanted.retain(|(f, ..)| *f != flow);
        }
    }

    pub fn release(&mut self, flow: Flow) {
        let Some(conn) = self.conns.iter_mut().find(|c| c.flow == flow) else {
            return;
        };
        conn.release = true;
        conn.is_dirty = true;
        if conn.refused.is_some() {
            self.conns.retain(|c| c.flow != flow);
            return;
        }
        // What it wrote must be with the card before the card is told to forget the guest.
        conn.resend_at_us = 0;
    }

    pub fn all_released(&self) -> bool {
        self.wanted.is_empty() && self.conns.iter().all(|c| c.released)
    }

    // Frames and time.

    pub fn handle_frame(&mut self, now_us: u64, frame: &[u8]) {
        let parsed = Parsed::new(frame).expect("the card's frames are well-formed");
        if self.old_keys.contains(&parsed.header.key) {
            // For a driver that is no more.
            return;
        }
        assert_eq!(parsed.header.key, self.settings.key, "a frame of another context");
        assert_eq!(parsed.destination, self.settings.mac);
        assert!(frame.len() <= self.settings.frame_bytes_max as usize, "{} bytes in a channel frame", frame.len());
        for message in parsed.messages {
            self.handle_message(now_us, message.expect("the card's messages are well-formed"));
        }
    }

    fn handle_message(&mut self, now_us: u64, message: Message<'_>) {
        match message {
            Message::Caps(m) => self.handle_caps(now_us, &m),
            Message::ConnectResult(m) => {
                let resend_us = self.settings.resend_us;
                // A repeated CONNECT may be taken after it was refused: its program has been told, and wants it no more.
                let waits = |c: &&mut Conn| c.cookie == m.cookie && c.id.is_none() && c.refused.is_none();
                let Some(conn) = self.conns.iter_mut().find(waits) else {
                    self.disown(m.connection);
                    return;
                };
                conn.heard(now_us, resend_us);
                let reason = Reason::from_u32(m.reason).expect("a reason that the guest knows");
                if reason == Reason::None {
                    assert!(self.known.insert(m.connection), "id {:#x} was given before", m.connection);
                    conn.id = Some(m.connection);
                    conn.limit = m.send_limit;
                } else {
                    conn.refused = Some((reason, m.action));
                    conn.released |= conn.release;
                    self.conns.retain(|c| !c.released);
                }
            }
            Message::ListenResult(m) => {
                let resend_us = self.settings.resend_us;
                if let Some(listener) = self.listeners.iter_mut().find(|l| l.cookie == m.cookie && l.id.is_none()) {
                    if m.reason != Reason::None as u32 {
                        // Until the card has noticed that the driver before this one is gone.
                        assert!(!self.old_keys.is_empty() || self.may_be_refused, "the listener was refused");
                        return;
                    }
                    listener.id = Some(m.listener);
                    listener.resend_at_us = now_us + resend_us;
                    listener.backoff_us = resend_us;
                }
            }
            Message::Accepted(m) => self.handle_accepted(now_us, &m),
            Message::Received(m, data) => self.handle_received(now_us, m.connection, m.offset, data),
            Message::SendCredit(m) => self.handle_send_credit(now_us, &m),
            Message::State(m) => self.handle_state(now_us, &m),
            Message::Released(m) => {
                self.disowned.remove(&m.connection);
                if let Some(conn) = self.conns.iter_mut().find(|c| c.id == Some(m.connection)) {
                    assert!(conn.release, "RELEASED was not asked for");
                    conn.released = true;
                }
                self.conns.retain(|c| !c.released);
            }
            Message::OptionResult(m) => {
                assert_eq!(m.reason, Reason::None as u32, "option {} was refused", m.option);
                let at = self.settings.options.iter().position(|(o, _)| *o == m.option).expect("it was set");
                if let Some(conn) = self.conns.iter_mut().find(|c| c.cookie == m.cookie) {
                    conn.options_set |= 1 << at;
                }
            }
            Message::Error(m) => {
                let reason = Reason::from_u32(m.reason).expect("a reason that the guest knows");
                self.errors.push((reason, m.kind));
            }
            Message::Notice(Notice { connection, serial, .. }) => {
                self.pending.push_back(Out::Fixed(Message::Noticed(Noticed { connection, serial })));
            }
            Message::FirmwareEvent(_) => {
                self.firmware_events += 1;
                // What the card no longer knows is gone.
                self.begin_anew(now_us, 0);
            }
            // A small card has small pools.
            Message::ResourceEvent(_) => {}
            other => panic!("the card said {other:?}, which was not asked for"),
        }
    }

    fn handle_caps(&mut self, now_us: u64, caps: &Caps) {
        let frame_bytes_max = caps.frame_bytes_max as usize;
        if let Context::Open { id, epoch, .. } = self.context {
            assert_eq!((id, epoch), (caps.context, caps.epoch), "a repeated HELLO gave another context");
        }
        assert_ne!(caps.context, 0);
        self.context = Context::Open { id: caps.context, epoch: caps.epoch, frame_bytes_max };
        self.alive_at_us = now_us + u64::from(caps.lease_ms) * 1000 / SIGNS_PER_LEASE;
    }

    fn handle_accepted(&mut self, now_us: u64, m: &Accepted) {
        if !self.known.insert(m.connection) {
            // Said again: the answer to the first was lost, or the connection is over.
            let known = self.conns.iter_mut().find(|c| c.id == Some(m.connection) && !c.released);
            if let Some(conn) = known {
                (conn.owes_credit, conn.is_dirty) = (true, true);
            }
            return;
        }
        let Some(listener) = self.listeners.iter_mut().find(|l| l.id == Some(m.listener)) else {
            // The answer to LISTEN was lost or is late. It comes again, and so does this.
            assert!(self.listeners.iter().any(|l| l.id.is_none()), "the listener whose connection it is");
            self.known.remove(&m.connection);
            return;
        };
        listener.waiting.push_back(*m);
        // At once: its first data may stand in the same frame.
        self.match_accepted(now_us);
    }

    fn handle_received(&mut self, now_us: u64, connection: u64, offset: u64, data: &[u8]) {
        let (window_bytes, resend_us) = (self.settings.window_bytes, self.settings.resend_us);
        let Some(conn) = self.conns.iter_mut().find(|c| c.id == Some(connection) && !c.released) else {
            return;
        };
        conn.heard(now_us, resend_us);
        let end = offset + data.len() as u64;
        let limit = conn.read + window_bytes;
        assert!(end <= limit, "flow {}: received up to {end}, beyond the limit {limit}", conn.flow);
        assert!(conn.fin_offset.is_none_or(|fin| end <= fin), "flow {}: data beyond the FIN", conn.flow);
        // What leaves a gap will come again in order.
        // Nobody expects anything of a connection whose program is gone.
        let inward = conn.streams.inward;
        if self.may_begin_late && conn.received == 0 && offset == 0 {
            // What comes first says whether it is late, though bits of it may be turned over.
            let [whole, late] = [0, 1].map(|at| inward.differences(at, data));
            if late < whole {
                self.late.insert(conn.flow);
            }
        }
        let offset_sent = offset + u64::from(self.late.contains(&conn.flow));
        let wrong = inward.first_difference(offset_sent, data);
        if let Some(at) = wrong.filter(|_| conn.flow != Flow::MAX && !self.expects_wrong_bytes) {
            panic!("flow {}: byte {at} is not the one that was sent", conn.flow);
        }
        if offset <= conn.received && end > conn.received {
            conn.received = end;
        }
        (conn.owes_credit, conn.is_dirty) = (true, true);
    }

    fn handle_send_credit(&mut self, now_us: u64, m: &SendCredit) {
        let resend_us = self.settings.resend_us;
        let Some(conn) = self.conns.iter_mut().find(|c| c.id == Some(m.connection) && !c.released) else {
            return;
        };
        let flow = conn.flow;
        assert!(m.acknowledged <= m.held, "flow {flow}: acknowledged before it was held: {m:?}");
        assert!(m.held <= m.limit, "flow {flow}: the limit is behind what is held: {m:?}");
        assert!(m.held <= conn.sent, "flow {flow}: the card holds what was never sent: {m:?}");
        if m.held > conn.held {
            conn.held = m.held;
            conn.is_dirty = true;
            conn.heard(now_us, resend_us);
        }
        conn.next = conn.next.max(conn.held);
        if m.limit > conn.limit {
            conn.limit = m.limit;
            conn.is_dirty = true;
            conn.heard(now_us, resend_us);
        }
    }

    /// A CONNECT that was said again came so late that the connection was over and forgotten, and has made another, which
    /// nobody wants.
    fn disown(&mut self, connection: u64) {
        if connection != 0 && self.known.insert(connection) {
            self.disowned.insert(connection);
            self.pending.push_back(Out::Fixed(Message::Abort(Abort { connection })));
            self.pending.push_back(Out::Fixed(Message::Release(Release { connection })));
        }
    }

    fn handle_state(&mut self, now_us: u64, m: &State) {
        if !self.known.contains(&m.connection) && m.bits & state::ACCEPTED == 0 {
            // The answer to its CONNECT was lost and is not said again: it is nobody's when every CONNECT is answered.
            let last = *self.suspects.entry(m.connection).or_insert(self.next_cookie);
            let waits = |c: &Conn| c.id.is_none() && c.refused.is_none() && c.cookie <= last;
            if !self.conns.iter().any(waits) {
                self.disown(m.connection);
            }
        }
        if self.disowned.contains(&m.connection) {
            // The card has not heard that nobody wants it.
            self.pending.push_back(Out::Fixed(Message::Release(Release { connection: m.connection })));
        }
        let resend_us = self.settings.resend_us;
        let Some(conn) = self.conns.iter_mut().find(|c| c.id == Some(m.connection) && !c.released) else {
            return;
        };
        conn.heard(now_us, resend_us);
        if m.bits & state::PEER_CLOSED != 0 {
            assert!(conn.fin_offset.is_none_or(|fin| fin == m.fin_offset), "flow {}: the FIN moved", conn.flow);
            assert!(conn.received <= m.fin_offset, "flow {}: a FIN before data", conn.flow);
            conn.fin_offset = Some(m.fin_offset);
        }
        if m.bits & state::ALL_ACKNOWLEDGED != 0 {
            assert!(conn.shutdown, "flow {}: a FIN was acknowledged that was never sent", conn.flow);
        }
        if m.bits & state::ABORTED != 0 {
            conn.reason = m.reason;
        }
        conn.bits |= m.bits;
        (conn.owes_credit, conn.is_dirty) = (true, true);
    }

    /// When something must be said again.
    pub fn next_us(&self) -> u64 {
        match self.context {
            Context::None => self.hello_at_us,
            Context::Open { .. } => {
                let conns = self.conns.iter().filter(|c| !c.released && c.refused.is_none()).map(|c| c.resend_at_us);
                let listeners = self.listeners.iter().map(|l| l.resend_at_us);
                conns.chain(listeners).min().unwrap_or(u64::MAX).min(self.alive_at_us)
            }
        }
    }

    /// Says what is due at `now_us`, and what changed since.
    pub fn handle_timeout(&mut self, now_us: u64) {
        let Context::Open { frame_bytes_max, .. } = self.context else {
            if now_us >= self.hello_at_us {
                self.hello_at_us = now_us + self.settings.resend_us;
                self.pending.push_back(Out::Fixed(Message::Hello(self.hello())));
            }
            return;
        };
        for listener in &mut self.listeners {
            if now_us >= listener.resend_at_us {
                listener.resend_at_us = now_us + listener.backoff_us;
                listener.backoff_us = (2 * listener.backoff_us).min(RESEND_US_MAX);
                listener.say(&self.settings, &mut self.pending);
            }
        }
        self.match_accepted(now_us);
        for i in 0..self.conns.len() {
            let conn = &self.conns[i];
            if conn.is_dirty || now_us >= conn.resend_at_us {
                self.serve(now_us, i, frame_bytes_max);
            }
        }
    }

    /// Gives connections that were announced to the programs that wait for them.
    fn match_accepted(&mut self, now_us: u64) {
        for listener in &mut self.listeners {
            let before = listener.taken;
            while let Some(m) = listener.waiting.pop_front() {
                let remote = m.remote.into();
                let at = self.wanted.iter().position(|(_, p, _)| p.remote == remote && p.local.port() == m.local.port);
                let Some(at) = at else {
                    // Its program has gone: it is taken and broken.
                    let nothing = Streams { out: Pattern::new(0), inward: Pattern::new(0) };
                    let mut conn = Conn::accepted(Flow::MAX, nothing, &m, now_us);
                    (conn.abort, conn.release) = (true, true);
                    self.conns.push(conn);
                    listener.taken += 1;
                    continue;
                };
                let (flow, pair, streams) = self.wanted.swap_remove(at);
                assert_eq!(pair.local, m.local.into(), "flow {flow}: the wrong local address");
                let cookie = ACCEPTED_COOKIE | m.connection;
                self.conns.push(Conn { cookie, ..Conn::accepted(flow, streams, &m, now_us) });
                listener.taken += 1;
            }
            if listener.taken > before
                && let Some(id) = listener.id
            {
                self.pending.push_back(Out::Fixed(Message::Taken(Taken { listener: id, taken: listener.taken })));
            }
        }
    }

    /// Says what one connection has to say at `now_us`.
    fn serve(&mut self, now_us: u64, i: usize, frame_bytes_max: usize) {
        let conn = &mut self.conns[i];
        if conn.released || conn.refused.is_some() {
            return;
        }
        conn.is_dirty = false;
        let again = now_us >= conn.resend_at_us;
        if again {
            conn.resend_at_us = now_us + conn.backoff_us;
            conn.backoff_us = (2 * conn.backoff_us).min(RESEND_US_MAX);
        }
        let Some(connection) = conn.id else {
            if again {
                let (local, remote) = (conn.pair.local.into(), conn.pair.remote.into());
                self.pending.push_back(Out::Fixed(Message::Connect(Connect {
                    cookie: conn.cookie,
                    local,
                    remote,
                    next_hop: self.settings.next_hop,
                    flags: self.settings.wishes(conn.cookie),
                    mtu: self.settings.mtu,
                    receive_limit: self.settings.window_bytes,
                })));
            }
            return;
        };
        if again {
            if conn.held == conn.held_before {
                conn.next = conn.held;
            }
            conn.held_before = conn.held;
        }
        let most = conn.written.min(conn.limit);
        if conn.options_set.count_ones() < self.settings.options.len() as u32 && (again || conn.next == 0) {
            for (i, &(option, value)) in self.settings.options.iter().enumerate() {
                if conn.options_set & 1 << i == 0 && !conn.is_aborted() && !conn.release {
                    let message = SetOption { cookie: conn.cookie, object: connection, value, option };
                    self.pending.push_back(Out::Fixed(Message::SetOption(message)));
                }
            }
        }
        if conn.is_aborted() || conn.abort {
            // Nothing of the stream matters any more.
        } else if conn.next < most {
            // The headers of the frame and the message take 78 bytes, padding up to 7 more at either end.
            let fits = frame_bytes_max.min(self.settings.frame_bytes_max as usize) as u64 - 92;
            while conn.next < most {
                let short = self.settings.short_sends && self.random.one_in(4);
                let fits = if short { self.random.between(1, fits) } else { fits };
                let bytes = fits.min(most - conn.next);
                let send = Send { connection, offset: conn.next };
                self.pending.push_back(Out::Send(send, conn.streams, bytes as u32));
                conn.next += bytes;
                conn.sent = conn.sent.max(conn.next);
            }
        } else if again && conn.written > conn.limit {
            self.pending.push_back(Out::Send(Send { connection, offset: conn.next }, conn.streams, 0));
        }
        if conn.owes_credit || again {
            conn.owes_credit = false;
            self.pending.push_back(Out::Fixed(Message::ReceiveCredit(ReceiveCredit {
                connection,
                held: conn.received,
                limit: conn.read + self.settings.window_bytes,
                seen: conn.bits,
            })));
        }
        let all_said = conn.shutdown && conn.next == conn.written;
        if all_said && (again || !conn.said_shutdown) && conn.bits & state::SHUTDOWN == 0 && !conn.is_aborted() {
            conn.said_shutdown = true;
            self.pending.push_back(Out::Fixed(Message::Shutdown(Shutdown { connection, offset: conn.written })));
        }
        if again && conn.abort && !conn.is_aborted() {
            self.pending.push_back(Out::Fixed(Message::Abort(Abort { connection })));
        }
        // What is not with the card would be lost, an ABORT that a RELEASE overtakes among it.
        let over = state::SHUTDOWN | state::PEER_CLOSED | state::ALL_ACKNOWLEDGED;
        let may_release = conn.is_aborted()
            || conn.bits & over == over
            || (!conn.abort && conn.held == conn.written && conn.bits & state::SHUTDOWN != 0);
        if conn.release && may_release && (again || !conn.said_release) {
            if !conn.said_release {
                // The answer has its time, whatever was said before.
                conn.backoff_us = self.settings.resend_us;
                conn.resend_at_us = now_us + conn.backoff_us;
            }
            conn.said_release = true;
            self.pending.push_back(Out::Fixed(Message::Release(Release { connection })));
        }
    }

    /// The next frame for the card, until the next call.
    pub fn poll_frame(&mut self, now_us: u64) -> Option<&[u8]> {
        let is_open = matches!(self.context, Context::Open { .. });
        // Any frame is a sign of life.
        let owes_sign = is_open && now_us >= self.alive_at_us;
        if self.pending.is_empty() && !owes_sign {
            return None;
        }
        let (id, epoch, most) = match self.context {
            Context::None => (0, 0, FRAME_BYTES_MAX),
            Context::Open { id, epoch, frame_bytes_max } => (id, epoch, frame_bytes_max),
        };
        let most = most.min(self.settings.frame_bytes_max as usize);
        let (mac, key) = (self.settings.mac, self.settings.key);
        let mut writer = Writer::new(&mut self.buffer[..most], mac, CARD_MAC, id, epoch, key)?;
        while let Some(out) = self.pending.front() {
            let fitted = match out {
                Out::Fixed(message) => writer.push(message),
                Out::Send(send, streams, bytes) => {
                    let fill = |tail: &mut [u8]| streams.out.fill(send.offset, tail);
                    writer.push_with(&Message::Send(*send, &[]), *bytes as usize, fill)
                }
                Out::Addresses(data) => writer.push(&Message::Addresses(Addresses { cookie: 0 }, data)),
            };
            if !fitted {
                assert!(!writer.is_empty(), "a message that fits into no frame");
                break;
            }
            let was_addresses = matches!(self.pending.pop_front(), Some(Out::Addresses(_)));
            // ADDRESSES has no answer: it shares its fate with the LISTEN behind it.
            if self.settings.one_message_per_frame && !was_addresses {
                break;
            }
        }
        self.alive_at_us = now_us + u64::from(self.settings.lease_ms) * 1000 / SIGNS_PER_LEASE;
        let length = writer.finish();
        if let Some(pause_us) = self.leaves_for_us {
            self.begin_anew(now_us, pause_us);
        }
        Some(&self.buffer[..length])
    }

    fn hello(&self) -> Hello {
        Hello {
            version_min: toe_abi::VERSION,
            version_max: toe_abi::VERSION,
            lease_ms: self.settings.lease_ms,
            frame_bytes_max: self.settings.frame_bytes_max,
            reserved: 0,
            receive_bytes_max: self.settings.receive_bytes_max,
        }
    }

    fn cookie(&mut self) -> u64 {
        self.next_cookie += 1;
        self.next_cookie
    }

    fn conn(&mut self, flow: Flow) -> &mut Conn {
        self.conns.iter_mut().find(|c| c.flow == flow).expect("a flow that was opened")
    }
}

impl Conn {
    fn new(flow: Flow, pair: Pair, streams: Streams, cookie: u64, now_us: u64) -> Self {
        Self {
            flow,
            pair,
            streams,
            cookie,
            is_dirty: true,
            options_set: 0,
            id: None,
            refused: None,
            bits: 0,
            reason: 0,
            fin_offset: None,
            written: 0,
            held: 0,
            next: 0,
            sent: 0,
            limit: 0,
            shutdown: false,
            said_shutdown: false,
            abort: false,
            release: false,
            said_release: false,
            released: false,
            received: 0,
            read: 0,
            owes_credit: false,
            held_before: 0,
            resend_at_us: now_us,
            backoff_us: 50_000,
        }
    }

    fn accepted(flow: Flow, streams: Streams, m: &Accepted, now_us: u64) -> Self {
        let pair = Pair { local: m.local.into(), remote: m.remote.into() };
        let mut conn = Self::new(flow, pair, streams, 0, now_us);
        conn.id = Some(m.connection);
        conn.limit = m.send_limit;
        conn.bits = state::ACCEPTED;
        conn
    }

    /// The card has said something of it.
    fn heard(&mut self, now_us: u64, resend_us: u64) {
        self.backoff_us = resend_us;
        self.resend_at_us = self.resend_at_us.min(now_us + resend_us);
    }
}

impl Listener {
    /// LISTEN as long as there is no answer, TAKEN from then on.
    fn say(&self, settings: &Settings, pending: &mut VecDeque<Out>) {
        if let Some(listener) = self.id {
            pending.push_back(Out::Fixed(Message::Taken(Taken { listener, taken: self.taken })));
            return;
        }
        let octets = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => Ipv6Addr::octets(ip),
        };
        pending.push_back(Out::Addresses(settings.addresses.iter().flat_map(octets).collect()));
        pending.push_back(Out::Fixed(Message::Listen(Listen {
            cookie: self.cookie,
            local: self.local,
            backlog: 128,
            flags: settings.wishes(self.cookie),
            receive_limit: settings.window_bytes,
            mtu: settings.mtu,
            policy: 0,
        })));
    }
}

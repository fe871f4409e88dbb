//! An honest program in the guest of a card: it opens a context, listens, accepts, connects, moves data and checks every
//! byte of it. One program plays all honest parts, by the port that a connection is for.
//!
//! The channel between it and the card loses nothing here, so it repeats nothing; what it holds of a stream is two numbers,
//! because every byte of every stream is a function of its position.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use toe_abi::{
    Abort, Action, Addresses, CARD_MAC, Connect, FRAME_BYTES_MAX, Hello, Listen, Mac, Message, Parsed, ReceiveCredit,
    Release, Send, Shutdown, Taken, Writer, state,
};

use crate::frames::{GUEST_MAC, ROUTER_MAC};

/// What a service does with its connections; see [`port`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Sends back what comes, and closes after the peer.
    Echo,
    /// Takes what comes.
    Sink,
    /// Sends without end.
    Source,
    /// Answers the first bytes with as many and closes first.
    Brief,
    /// Does nothing, and closes after the peer.
    Idle,
    /// Sends [`REQUEST_BYTES`], expects them back, closes.
    Client,
}

/// The ports of the services.
pub mod port {
    /// [`super::Role::Echo`].
    pub const ECHO: u16 = 80;
    /// [`super::Role::Sink`].
    pub const SINK: u16 = 81;
    /// [`super::Role::Source`].
    pub const SOURCE: u16 = 82;
    /// [`super::Role::Brief`].
    pub const BRIEF: u16 = 83;
    /// [`super::Role::Idle`].
    pub const IDLE: u16 = 84;
}

/// All services.
pub const SERVICES: [(u16, Role); 5] = [
    (port::ECHO, Role::Echo),
    (port::SINK, Role::Sink),
    (port::SOURCE, Role::Source),
    (port::BRIEF, Role::Brief),
    (port::IDLE, Role::Idle),
];

/// Bytes of a client's request, and of the answer.
pub const REQUEST_BYTES: u64 = 64;

/// The context's lease, the longest that a card grants.
const LEASE_MS: u32 = 600_000;
/// When a sign of life is due.
const SIGN_US: u64 = 100_000_000;
/// What a source offers to an honest peer, in bytes per second; to others, whatever they take.
pub const SOURCE_BYTES_PER_S: u64 = 140_000;
/// How often it does.
const SOURCE_TICK_US: u64 = 10_000;
/// No limit on what is received: the program takes everything at once.
const LIMIT: u64 = 1 << 40;

/// A connection as the program sees it.
#[derive(Clone, Debug)]
pub struct Conn {
    /// What it is for.
    pub role: Role,
    /// This end and the other.
    pub ends: (SocketAddr, SocketAddr),
    /// The card's id; zero until there is one.
    pub id: u64,
    /// When it was asked for, or accepted.
    pub began_us: u64,
    /// When it was established.
    pub open_us: Option<u64>,
    /// When the whole answer was there (of a client).
    pub answered_us: Option<u64>,
    /// Bytes received, all of them checked.
    pub received: u64,
    /// When the last of them came.
    pub received_us: u64,
    /// Bytes that the card has taken.
    pub sent: u64,
    /// Why it is broken or was refused.
    pub broken: Option<u32>,
    limit: u64,
    bits: u32,
    shut: bool,
    released: bool,
}

/// See the module's text.
#[derive(Debug)]
pub struct Program {
    key: u128,
    addresses: Vec<IpAddr>,
    /// Whose bytes are checked; all others send what they like.
    honest: Vec<IpAddr>,
    context: Option<(u64, u32)>,
    /// Sources fall silent.
    pub is_quiet: bool,
    /// Connections that the card wants the kernel to open, since this was last looked at.
    pub fell_back: Vec<usize>,
    /// Every connection that there ever was, the oldest first.
    pub conns: Vec<Conn>,
    by_id: BTreeMap<u64, usize>,
    listeners: BTreeMap<u64, (Role, u64)>,
    cookies: BTreeMap<u64, usize>,
    roles: BTreeMap<u64, Role>,
    said_us: u64,
    /// Sources to honest peers, and when they go on.
    sources: Vec<usize>,
    source_us: u64,
    messages: VecDeque<Said>,
    touched: Vec<usize>,
    next_cookie: u64,
    stream: Vec<u8>,
    /// Bytes that were not what they had to be.
    pub wrong_bytes: u64,
    /// ERROR messages of the card.
    pub errors: u64,
}

#[derive(Debug)]
enum Said {
    Fixed(Message<'static>),
    Addresses,
    Send { connection: u64, offset: u64, bytes: u64, flow: u64 },
}

/// The length of the repeating stream: a prime, so that no offset of a page or a segment repeats it.
const STREAM_BYTES: u64 = 65_521;

impl Program {
    /// A program with the key of its context and its addresses; what comes from `honest` ones is checked.
    pub fn new(key: u128, addresses: Vec<IpAddr>, honest: Vec<IpAddr>) -> Self {
        let mut bytes = vec![0; STREAM_BYTES as usize];
        // The same everywhere: both ends know what the other sends.
        toe_impair::Random::new(0x7073).fill(&mut bytes);
        let stream = [&bytes[..], &bytes[..]].concat();
        Self {
            key,
            addresses,
            honest,
            context: None,
            is_quiet: false,
            fell_back: Vec::new(),
            conns: Vec::new(),
            by_id: BTreeMap::new(),
            listeners: BTreeMap::new(),
            cookies: BTreeMap::new(),
            roles: BTreeMap::new(),
            said_us: 0,
            sources: Vec::new(),
            source_us: u64::MAX,
            messages: VecDeque::new(),
            touched: Vec::new(),
            next_cookie: 1,
            stream,
            wrong_bytes: 0,
            errors: 0,
        }
    }

    /// Says HELLO.
    pub fn hello(&mut self) {
        self.messages.push_back(Said::Fixed(Message::Hello(Hello {
            version_min: 1,
            version_max: 1,
            lease_ms: LEASE_MS,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            reserved: 0,
            receive_bytes_max: LIMIT,
        })));
    }

    /// Opens all services with that backlog each.
    pub fn serve(&mut self, backlog: u32) {
        self.messages.push_back(Said::Addresses);
        for (port, role) in SERVICES {
            for any in ["0.0.0.0", "::"] {
                let Ok(any) = any.parse::<IpAddr>() else { continue };
                if !self.addresses.iter().any(|a| a.is_ipv4() == any.is_ipv4()) {
                    continue;
                }
                let cookie = self.cookie();
                self.roles.insert(cookie, role);
                self.messages.push_back(Said::Fixed(Message::Listen(Listen {
                    cookie,
                    local: SocketAddr::new(any, port).into(),
                    backlog,
                    flags: 0,
                    receive_limit: LIMIT,
                    mtu: 1500,
                    policy: 0,
                })));
            }
        }
    }

    /// Opens a connection; its place among [`Self::conns`].
    pub fn connect(&mut self, now_us: u64, local: SocketAddr, remote: SocketAddr, role: Role) -> usize {
        let cookie = self.cookie();
        let at = self.conns.len();
        self.conns.push(Conn {
            role,
            ends: (local, remote),
            id: 0,
            began_us: now_us,
            open_us: None,
            answered_us: None,
            received: 0,
            received_us: now_us,
            sent: 0,
            broken: None,
            limit: 0,
            bits: 0,
            shut: false,
            released: false,
        });
        self.cookies.insert(cookie, at);
        self.messages.push_back(Said::Fixed(Message::Connect(Connect {
            cookie,
            local: local.into(),
            remote: remote.into(),
            next_hop: Mac(ROUTER_MAC),
            flags: 0,
            mtu: 1500,
            receive_limit: LIMIT,
        })));
        at
    }

    /// Breaks a connection and lets go of it.
    pub fn abort(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        if conn.id != 0 && !conn.released {
            conn.released = true;
            let connection = conn.id;
            self.messages.push_back(Said::Fixed(Message::Abort(Abort { connection })));
            self.messages.push_back(Said::Fixed(Message::Release(Release { connection })));
        }
    }

    fn cookie(&mut self) -> u64 {
        self.next_cookie += 1;
        self.next_cookie
    }

    /// When a sign of life is due, or a source goes on.
    pub fn next_us(&self) -> u64 {
        let source_us = if self.is_quiet { u64::MAX } else { self.source_us };
        (self.said_us + SIGN_US).min(source_us)
    }

    /// Lets sources go on, if it is time.
    fn feed(&mut self, now_us: u64) {
        if now_us >= self.source_us {
            self.source_us = now_us + SOURCE_TICK_US;
            for at in self.sources.clone() {
                self.settle(now_us, at);
            }
        }
    }

    /// Takes a frame of the card; `false` if it is for another process.
    pub fn hear(&mut self, now_us: u64, frame: &[u8]) -> bool {
        let Ok(parsed) = Parsed::new(frame) else { return false };
        if parsed.header.key != self.key {
            return false;
        }
        for message in parsed.messages.flatten() {
            self.take(now_us, &message);
        }
        for at in std::mem::take(&mut self.touched) {
            self.settle(now_us, at);
        }
        true
    }

    fn take(&mut self, now_us: u64, message: &Message<'_>) {
        match *message {
            Message::Caps(m) => self.context = Some((m.context, m.epoch)),
            Message::ListenResult(m) => {
                if let Some(role) = self.roles.get(&m.cookie) {
                    self.listeners.insert(m.listener, (*role, 0));
                }
            }
            Message::ConnectResult(m) => {
                let Some(at) = self.cookies.remove(&m.cookie) else { return };
                let conn = &mut self.conns[at];
                if m.reason == 0 {
                    (conn.id, conn.limit) = (m.connection, m.send_limit);
                    self.by_id.insert(m.connection, at);
                } else {
                    conn.broken = Some(m.reason);
                    if m.action == Action::Fallback as u32 {
                        self.fell_back.push(at);
                    }
                }
            }
            Message::Accepted(m) => {
                if self.by_id.contains_key(&m.connection) {
                    return;
                }
                let Some((role, taken)) = self.listeners.get_mut(&m.listener) else { return };
                *taken += 1;
                let (role, taken) = (*role, Taken { listener: m.listener, taken: *taken });
                self.messages.push_back(Said::Fixed(Message::Taken(taken)));
                let at = self.conns.len();
                self.conns.push(Conn {
                    role,
                    ends: (m.local.into(), m.remote.into()),
                    id: m.connection,
                    began_us: now_us,
                    open_us: Some(now_us),
                    answered_us: None,
                    received: 0,
                    received_us: now_us,
                    sent: 0,
                    broken: None,
                    limit: m.send_limit,
                    bits: state::ACCEPTED,
                    shut: false,
                    released: false,
                });
                self.by_id.insert(m.connection, at);
                self.touched.push(at);
            }
            Message::Received(m, data) => {
                let Some(&at) = self.by_id.get(&m.connection) else { return };
                let flow = self.flow(at);
                let conn = &mut self.conns[at];
                let is_honest = self.honest.contains(&conn.ends.1.ip());
                let end = m.offset + data.len() as u64;
                if m.offset <= conn.received && end > conn.received {
                    let fresh = &data[(conn.received - m.offset) as usize..];
                    let from = ((conn.received + flow) % STREAM_BYTES) as usize;
                    if is_honest && self.stream[from..from + fresh.len()] != *fresh {
                        self.wrong_bytes += fresh.len() as u64;
                    }
                    conn.received = end;
                    conn.received_us = now_us;
                    if conn.role == Role::Client && end >= REQUEST_BYTES {
                        conn.answered_us.get_or_insert(now_us);
                    }
                }
                self.touched.push(at);
            }
            Message::SendCredit(m) => {
                let Some(&at) = self.by_id.get(&m.connection) else { return };
                let conn = &mut self.conns[at];
                conn.limit = conn.limit.max(m.limit);
                self.touched.push(at);
            }
            Message::State(m) => {
                let Some(&at) = self.by_id.get(&m.connection) else { return };
                let conn = &mut self.conns[at];
                conn.bits |= m.bits;
                if conn.bits & state::ESTABLISHED != 0 {
                    conn.open_us.get_or_insert(now_us);
                }
                if conn.bits & state::ABORTED != 0 {
                    conn.broken.get_or_insert(m.reason);
                }
                self.touched.push(at);
            }
            Message::Released(m) => {
                if let Some(at) = self.by_id.remove(&m.connection) {
                    self.conns[at].released = true;
                }
            }
            Message::Error(_) => self.errors += 1,
            _ => {}
        }
    }

    /// Which stream a connection receives and sends: both ends know it by the client's port.
    fn flow(&self, at: usize) -> u64 {
        let (local, remote) = self.conns[at].ends;
        u64::from(local.port()) * 31 + u64::from(remote.port()) * 31
    }

    /// Says what follows for a connection from what was heard.
    fn settle(&mut self, now_us: u64, at: usize) {
        let flow = self.flow(at);
        let conn = &mut self.conns[at];
        let connection = conn.id;
        if conn.released {
            return;
        }
        let credit = ReceiveCredit { connection, held: conn.received, limit: LIMIT, seen: conn.bits };
        self.messages.push_back(Said::Fixed(Message::ReceiveCredit(credit)));
        let aborted = conn.bits & state::ABORTED != 0;
        let wants = match conn.role {
            Role::Echo => conn.received,
            Role::Sink | Role::Idle => 0,
            Role::Source if self.is_quiet => conn.sent,
            Role::Source if self.honest.contains(&conn.ends.1.ip()) => {
                if conn.open_us.is_some() && !self.sources.contains(&at) {
                    self.sources.push(at);
                    self.source_us = self.source_us.min(now_us + SOURCE_TICK_US);
                }
                (now_us - conn.began_us) * SOURCE_BYTES_PER_S / 1_000_000
            }
            Role::Source => u64::MAX,
            Role::Brief => conn.received.min(REQUEST_BYTES),
            Role::Client => REQUEST_BYTES,
        };
        let end = wants.min(conn.limit);
        if !aborted && !conn.shut && end > conn.sent {
            let bytes = end - conn.sent;
            self.messages.push_back(Said::Send { connection, offset: conn.sent, bytes, flow });
            conn.sent = end;
        }
        let closes = match conn.role {
            Role::Client => conn.answered_us.is_some(),
            Role::Brief => conn.received >= REQUEST_BYTES && conn.sent >= REQUEST_BYTES,
            Role::Echo | Role::Sink | Role::Idle => conn.bits & state::PEER_CLOSED != 0 && conn.sent >= wants,
            Role::Source => conn.bits & state::PEER_CLOSED != 0,
        };
        if closes && !conn.shut && !aborted {
            conn.shut = true;
            let offset = conn.sent;
            self.messages.push_back(Said::Fixed(Message::Shutdown(Shutdown { connection, offset })));
        }
        // A client waits for the end of the stream; a service lets go as soon as the card has all of its own.
        let done = match conn.role {
            Role::Client => conn.bits & state::PEER_CLOSED != 0 && conn.bits & state::SHUTDOWN != 0,
            _ => conn.bits & state::SHUTDOWN != 0,
        };
        if aborted || done {
            conn.released = true;
            self.messages.push_back(Said::Fixed(Message::Release(Release { connection })));
        }
    }

    /// The next frame for the card; `None` if there is nothing to say.
    pub fn speak(&mut self, now_us: u64, buffer: &mut [u8]) -> Option<usize> {
        if !self.is_quiet {
            self.feed(now_us);
        }
        if self.messages.is_empty() && now_us < self.said_us + SIGN_US {
            return None;
        }
        self.said_us = now_us;
        let is_hello = matches!(self.messages.front(), Some(Said::Fixed(Message::Hello(_))));
        let (context, epoch) = self.context.filter(|_| !is_hello).unwrap_or((0, 0));
        let mut writer = Writer::new(buffer, Mac(GUEST_MAC), CARD_MAC, context, epoch, self.key)?;
        while let Some(said) = self.messages.front_mut() {
            match said {
                Said::Fixed(message) => {
                    if !writer.push(message) {
                        break;
                    }
                }
                Said::Addresses => {
                    let octets: Vec<u8> = self.addresses.iter().flat_map(|ip| mapped(*ip)).collect();
                    if !writer.push(&Message::Addresses(Addresses { cookie: 1 }, &octets)) {
                        break;
                    }
                }
                Said::Send { connection, offset, bytes, flow } => {
                    let send = Message::Send(Send { connection: *connection, offset: *offset }, &[]);
                    let room = writer.room(&send) as u64;
                    let n = room.min(*bytes).min(32_768);
                    if n == 0 {
                        break;
                    }
                    let from = ((*offset + *flow) % STREAM_BYTES) as usize;
                    let piece = &self.stream[from..from + n as usize];
                    let send = Message::Send(Send { connection: *connection, offset: *offset }, piece);
                    if !writer.push(&send) {
                        break;
                    }
                    if n < *bytes {
                        (*offset, *bytes) = (*offset + n, *bytes - n);
                        continue;
                    }
                }
            }
            self.messages.pop_front();
            if is_hello {
                break;
            }
        }
        Some(writer.finish())
    }
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

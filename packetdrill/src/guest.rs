//! The guest's side of the channel, and the clock.
//!
//! Guest and card lie in one process: a message is answered before the call returns, none is lost, and nothing is ever
//! repeated but by the card. What a real driver buffers is therefore left on the card. Data to send is handed over
//! only as far as the card's credit goes, and received data is fetched only when the program reads it: until then it counts
//! against the receive window, as in a kernel's socket.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use toe_abi::{
    Abort, Addresses, CARD_MAC, Connect, ConnectResult, ETHERNET_HEADER_BYTES, Endpoint, FRAME_BYTES_MAX, Hello, Info,
    InfoResult, Listen, ListenResult, Mac, Message, Noticed, OptionResult, Parsed, Reason, ReceiveCredit, Release,
    Send, SetOption, Shutdown, Taken, Unlisten, Writer, state,
};
use toe_firmware::{Checksum, Duration, Firmware, Instant, ProfileError, Verdict};
use toe_guest::closed;

use crate::dialect::Dialect;
use crate::errno::{self, Errno};
use crate::flags::{Closed, Flags};
use crate::observed::Observed;

/// The stack's own Ethernet address and that of everybody else: no script ever sees them.
const GUEST_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const KEY: u128 = 0x0050_4143_4b45_5444_5249_4c4c;
const EPOCH: u32 = 1;
/// The longest that a card grants, and how often the guest is heard of at least.
const LEASE_MS: u32 = 600_000;
const SIGN_OF_LIFE: Duration = Duration::from_s(200);
/// When the clock begins: late enough that nothing underflows, early enough to be read.
const BEGINNING: Instant = Instant::from_us(1_000_000_000);
/// Data in one SEND: a frame takes 64 KiB with its headers.
const SEND_BYTES: usize = 60_000;

/// A packet of the card, IP header first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// When it was sent.
    pub at: Instant,
}

/// A connection of the card, as far as the guest knows it.
#[derive(Debug)]
pub struct Connection {
    /// This end.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    bits: u32,
    reason: u32,
    fin_offset: u64,
    /// Where our stream ends so far, what of it the peer has, and the first offset that the card cannot take.
    sent: u64,
    acknowledged: u64,
    send_limit: u64,
    /// The program has read everything before this offset.
    read: u64,
    /// What was fetched from there on and not read: the program only peeked.
    fetched: VecDeque<u8>,
    receive_limit: u64,
    /// The program has more to send than there is room for.
    waiting: bool,
    /// What TCP_INFO has beside the card's figures.
    pub observed: Observed,
}

impl Connection {
    fn new(local: Endpoint, remote: Endpoint, bits: u32, send_limit: u64, now: Instant) -> Self {
        Self {
            local,
            remote,
            bits,
            reason: 0,
            fin_offset: 0,
            sent: 0,
            acknowledged: 0,
            send_limit,
            read: 0,
            fetched: VecDeque::new(),
            receive_limit: 0,
            waiting: false,
            observed: Observed::new(now),
        }
    }

    /// Whether the handshake is complete.
    pub fn is_established(&self) -> bool {
        self.bits & (state::ESTABLISHED | state::ACCEPTED) != 0
    }

    /// Whether the peer's FIN has arrived.
    pub fn is_peer_closed(&self) -> bool {
        self.bits & state::PEER_CLOSED != 0
    }

    /// Whether the connection broke.
    pub fn is_aborted(&self) -> bool {
        self.bits & state::ABORTED != 0
    }

    /// Whether the program has read everything that the peer ever sent.
    pub fn is_at_end(&self) -> bool {
        self.is_peer_closed() && self.read >= self.fin_offset
    }

    /// Why it broke, as an errno; zero if it did not, or the program broke it.
    pub fn ending(&self) -> i32 {
        if !self.is_aborted() {
            return 0;
        }
        Reason::from_u32(self.reason).map_or(libc::EIO, errno::of_ending)
    }

    /// The bits of `toe_abi::state`.
    pub fn bits(&self) -> u32 {
        self.bits
    }
}

/// A listener's connections that nobody has accepted.
#[derive(Debug, Default)]
struct Listener {
    local: Option<Endpoint>,
    waiting: VecDeque<u64>,
    announced: u64,
    taken: u64,
}

#[derive(Debug)]
enum Answer {
    Connect(ConnectResult),
    Listen(ListenResult),
    Option(OptionResult),
    Info(Box<InfoResult>),
    Refused(u32),
}

/// The guest, with its card.
#[derive(Debug)]
pub struct Guest {
    firmware: Firmware,
    now: Instant,
    heard_at: Instant,
    closed: Closed,
    dialect: Dialect,
    context: u64,
    cookie: u64,
    connections: HashMap<u64, Connection>,
    listeners: HashMap<u64, Listener>,
    answers: HashMap<u64, Answer>,
    packets: VecDeque<Packet>,
    /// To be set on the connection that CONNECT opens, before anything of it goes to the wire.
    options: Vec<(u32, u64)>,
    /// A frame for the card, and one from it.
    outbox: Vec<u8>,
    inbox: Vec<u8>,
}

impl Guest {
    /// Boots a card and opens a context on it.
    ///
    /// # Errors
    /// A profile that the card refuses.
    pub fn new(flags: &Flags) -> Result<Self, ProfileError> {
        let firmware = Firmware::new(&flags.profile, flags.seed, EPOCH, BEGINNING)?;
        let mut guest = Self {
            firmware,
            now: BEGINNING,
            heard_at: BEGINNING,
            closed: flags.closed,
            dialect: flags.dialect,
            context: 0,
            cookie: 0,
            connections: HashMap::new(),
            listeners: HashMap::new(),
            answers: HashMap::new(),
            packets: VecDeque::new(),
            options: Vec::new(),
            outbox: vec![0; FRAME_BYTES_MAX],
            inbox: vec![0; FRAME_BYTES_MAX],
        };
        guest.tell(&Message::Hello(Hello {
            version_min: toe_abi::VERSION,
            version_max: toe_abi::VERSION,
            lease_ms: LEASE_MS,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            reserved: 0,
            receive_bytes_max: u64::MAX / 4,
        }));
        guest.addresses(&[flags.local_v4.into(), flags.local_v6.into()]);
        Ok(guest)
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// When the card next does something by itself.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.firmware.poll_timeout()
    }

    /// How far the clock may go at most in one step without the context's lease running out.
    pub fn step_max(&self) -> Instant {
        self.now + SIGN_OF_LIFE
    }

    /// Moves the clock to `at`, which must not lie behind it; whether a timer of the card was due.
    pub fn move_to(&mut self, at: Instant) -> bool {
        self.now = self.now.max(at);
        if self.now.since(self.heard_at) >= SIGN_OF_LIFE {
            self.submit(None);
        }
        let due = self.firmware.poll_timeout().is_some_and(|deadline| deadline <= self.now);
        if due {
            self.firmware.handle_timeout(self.now);
            self.pump();
            self.observe();
        }
        due
    }

    /// A packet arrives, IP header first.
    ///
    /// # Errors
    /// `EINVAL` if it is neither IPv4 nor IPv6, `EMSGSIZE` if no frame can hold it.
    pub fn packet_in(&mut self, packet: &[u8]) -> Result<(), Errno> {
        let ethertype: [u8; 2] = match packet.first().map(|b| b >> 4) {
            Some(4) => [0x08, 0x00],
            Some(6) => [0x86, 0xdd],
            _ => return Err(Errno(libc::EINVAL)),
        };
        if packet.len() > FRAME_BYTES_MAX - ETHERNET_HEADER_BYTES {
            return Err(Errno(libc::EMSGSIZE));
        }
        let frame = [&GUEST_MAC.0[..], &PEER_MAC.0[..], &ethertype[..], packet].concat();
        let verdict = self.firmware.handle_wire(self.now, &frame, Checksum::Unverified);
        if verdict == Verdict::PassOn && self.closed == Closed::Reset {
            let at = self.now;
            let listens = |ip: IpAddr, port| {
                let here = |local: Endpoint| {
                    let any = local.ip.is_unspecified() && local.ip.is_ipv4() == ip.is_ipv4();
                    local.port == port && (local.ip == ip || any)
                };
                self.listeners.values().filter_map(|listener| listener.local).any(here)
            };
            self.packets.extend(closed::answer(packet, listens).map(|bytes| Packet { bytes, at }));
        }
        self.pump();
        if let Some((source, destination, text_bytes)) = closed::ends(packet) {
            let now = self.now;
            if let Some(c) = self.connection_between(destination.into(), source.into()) {
                c.observed.arrived(text_bytes, now);
            }
        }
        self.observe();
        Ok(())
    }

    fn connection_between(&mut self, local: Endpoint, remote: Endpoint) -> Option<&mut Connection> {
        self.connections.values_mut().find(|c| c.local == local && c.remote == remote)
    }

    /// Looks at every connection's figures after something may have changed them.
    fn observe(&mut self) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.observe_one(id);
        }
    }

    /// The same for one connection; its figures.
    pub fn observe_one(&mut self, id: u64) -> Option<InfoResult> {
        let info = self.info(id)?;
        let now = self.now;
        if let Some(c) = self.connections.get_mut(&id) {
            c.observed.look(&info, c.waiting, now);
        }
        Some(info)
    }

    /// The next packet that the card has sent.
    pub fn packet_out(&mut self) -> Option<Packet> {
        self.packets.pop_front()
    }

    /// A connection, by its id.
    pub fn connection(&self, id: u64) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// Names the addresses for which a listener on any address answers.
    pub fn addresses(&mut self, addresses: &[IpAddr]) {
        let tail: Vec<u8> = addresses
            .iter()
            .flat_map(|ip| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            })
            .collect();
        let cookie = self.next_cookie();
        self.tell(&Message::Addresses(Addresses { cookie }, &tail));
    }

    /// Opens a connection with these options (of `toe_abi::option`), which hold for its SYN, too; its id.
    ///
    /// # Errors
    /// Why the card refuses.
    pub fn connect(
        &mut self,
        local: Endpoint,
        remote: Endpoint,
        mtu: u32,
        flags: u32,
        options: &[(u32, u64)],
    ) -> Result<u64, Errno> {
        let cookie = self.next_cookie();
        self.options = options.to_vec();
        let request = Connect { cookie, local, remote, next_hop: PEER_MAC, flags, mtu, receive_limit: 0 };
        // The card may tell of the connection in the same breath.
        match self.ask(cookie, &Message::Connect(request))? {
            Answer::Connect(answer) => {
                refusal(answer.reason)?;
                let connection = Connection::new(local, remote, 0, answer.send_limit, self.now);
                self.connections.insert(answer.connection, connection);
                Ok(answer.connection)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Opens a listener; its id.
    ///
    /// # Errors
    /// Why the card refuses.
    pub fn listen(&mut self, local: Endpoint, backlog: u32, mtu: u32, flags: u32) -> Result<u64, Errno> {
        let cookie = self.next_cookie();
        let request = Listen { cookie, local, backlog, flags, receive_limit: 0, mtu, policy: 0 };
        match self.ask(cookie, &Message::Listen(request))? {
            Answer::Listen(answer) => {
                refusal(answer.reason)?;
                self.listeners.insert(answer.listener, Listener { local: Some(local), ..Listener::default() });
                Ok(answer.listener)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Closes a listener; connections that nobody accepted are reset.
    pub fn unlisten(&mut self, id: u64) {
        self.tell(&Message::Unlisten(Unlisten { listener: id }));
        let waiting = self.listeners.remove(&id).map(|listener| listener.waiting).unwrap_or_default();
        for connection in waiting {
            self.abort(connection);
            self.release(connection);
        }
    }

    /// How many connections a listener has announced, ever, and how many of them wait.
    pub fn waiting(&self, id: u64) -> (u64, usize) {
        self.listeners.get(&id).map_or((0, 0), |listener| (listener.announced, listener.waiting.len()))
    }

    /// Takes a listener's first connection.
    pub fn accept(&mut self, id: u64) -> Option<u64> {
        let listener = self.listeners.get_mut(&id)?;
        let connection = listener.waiting.pop_front()?;
        listener.taken += 1;
        let taken = listener.taken;
        self.tell(&Message::Taken(Taken { listener: id, taken }));
        Some(connection)
    }

    /// Sends as much as the card takes, and at most until `queue_max` bytes are not acknowledged; how much that was.
    pub fn send(&mut self, id: u64, data: &[u8], queue_max: u64) -> usize {
        let room = self.send_room(id, queue_max).min(data.len() as u64) as usize;
        let Some(mut offset) = self.connections.get(&id).map(|c| c.sent) else { return 0 };
        // All of it first, then the wire: a segment must not end where a message does.
        for piece in data[..room].chunks(SEND_BYTES) {
            self.submit(Some(&Message::Send(Send { connection: id, offset }, piece)));
            offset += piece.len() as u64;
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.sent = offset;
            connection.waiting = room < data.len();
        }
        self.pump();
        self.observe_one(id);
        room
    }

    /// How many bytes `send` would take.
    pub fn send_room(&mut self, id: u64, queue_max: u64) -> u64 {
        let offset = self.connections.get(&id).map_or(0, |c| c.sent);
        // An empty SEND asks for the credit.
        self.tell(&Message::Send(Send { connection: id, offset }, &[]));
        let Some(c) = self.connections.get(&id) else { return 0 };
        let by_card = c.send_limit.saturating_sub(c.sent);
        by_card.min(queue_max.saturating_sub(c.sent - c.acknowledged))
    }

    /// How many bytes were sent and are not acknowledged, or wait to be sent.
    pub fn unacknowledged(&mut self, id: u64) -> u64 {
        let sent = self.connections.get(&id).map_or(0, |c| c.sent);
        self.info(id).map_or(0, |info| sent.saturating_sub(info.bytes_acknowledged))
    }

    /// How many bytes `receive` would give.
    pub fn readable(&mut self, id: u64) -> u64 {
        let Some(c) = self.connections.get(&id) else { return 0 };
        let (read, fetched) = (c.read, c.fetched.len() as u64);
        if c.is_aborted() {
            return fetched;
        }
        self.info(id).map_or(fetched, |info| info.bytes_received.saturating_sub(read))
    }

    /// Up to `max` bytes of what was received; they are gone from the card unless the program only peeks.
    pub fn receive(&mut self, id: u64, max: usize, peek: bool) -> Vec<u8> {
        let wanted = self.readable(id).min(max as u64);
        let Some(c) = self.connections.get_mut(&id) else { return Vec::new() };
        if (c.fetched.len() as u64) < wanted {
            c.receive_limit = c.receive_limit.max(c.read + wanted);
            self.credit(id);
        }
        let Some(c) = self.connections.get_mut(&id) else { return Vec::new() };
        let bytes = c.fetched.len().min(wanted as usize);
        if peek {
            return c.fetched.range(..bytes).copied().collect();
        }
        let data: Vec<u8> = c.fetched.drain(..bytes).collect();
        c.read += bytes as u64;
        self.credit(id);
        data
    }

    /// No more data will be sent.
    pub fn shutdown(&mut self, id: u64) {
        let offset = self.connections.get(&id).map_or(0, |c| c.sent);
        self.tell(&Message::Shutdown(Shutdown { connection: id, offset }));
    }

    /// Ends a connection with a RST.
    pub fn abort(&mut self, id: u64) {
        self.tell(&Message::Abort(Abort { connection: id }));
    }

    /// The program has closed its socket.
    pub fn release(&mut self, id: u64) {
        self.connections.remove(&id);
        self.tell(&Message::Release(Release { connection: id }));
    }

    /// Sets an option of a connection.
    ///
    /// # Errors
    /// Why the card refuses.
    pub fn set_option(&mut self, id: u64, option: u32, value: u64) -> Result<(), Errno> {
        let cookie = self.next_cookie();
        match self.ask(cookie, &Message::SetOption(SetOption { cookie, object: id, value, option }))? {
            Answer::Option(answer) => refusal(answer.reason),
            other => Err(unexpected(&other)),
        }
    }

    /// What the card knows of a connection.
    pub fn info(&mut self, id: u64) -> Option<InfoResult> {
        let cookie = self.next_cookie();
        match self.ask(cookie, &Message::Info(Info { cookie, connection: id })) {
            Ok(Answer::Info(info)) => Some(*info),
            _ => None,
        }
    }

    fn credit(&mut self, id: u64) {
        let Some(c) = self.connections.get(&id) else { return };
        let (held, limit, seen) = (c.read, c.receive_limit, c.bits);
        self.tell(&Message::ReceiveCredit(ReceiveCredit { connection: id, held, limit, seen }));
    }

    fn next_cookie(&mut self) -> u64 {
        self.cookie += 1;
        self.cookie
    }

    fn ask(&mut self, cookie: u64, message: &Message<'_>) -> Result<Answer, Errno> {
        self.tell(message);
        match self.answers.remove(&cookie) {
            Some(Answer::Refused(reason)) => refusal(reason).and(Err(Errno(libc::EIO))),
            Some(answer) => Ok(answer),
            None => Err(Errno(libc::EIO)),
        }
    }

    fn tell(&mut self, message: &Message<'_>) {
        self.submit(Some(message));
        self.pump();
    }

    /// Hands the card a frame with one message, or none: a sign of life.
    fn submit(&mut self, message: Option<&Message<'_>>) {
        self.heard_at = self.now;
        let epoch = if self.context == 0 { 0 } else { EPOCH };
        let Some(mut writer) = Writer::new(&mut self.outbox, GUEST_MAC, CARD_MAC, self.context, epoch, KEY) else {
            return;
        };
        let written = message.is_none_or(|message| writer.push(message));
        debug_assert!(written, "a message larger than a frame");
        let length = writer.finish();
        let verdict = self.firmware.handle_guest(self.now, &self.outbox[..length]);
        debug_assert_eq!(verdict, Verdict::Taken);
    }

    /// Fetches what the card has to say, to the guest and to the wire, until it has no more.
    fn pump(&mut self) {
        let mut buffer = std::mem::take(&mut self.inbox);
        loop {
            let mut quiet = true;
            while let Some(length) = self.firmware.poll_guest(self.now, &mut buffer) {
                quiet = false;
                let Ok(frame) = Parsed::new(&buffer[..length]) else { continue };
                if self.context == 0 {
                    self.context = frame.header.context;
                }
                let told: Vec<u64> = frame.messages.filter_map(|m| self.hear(&m.ok()?)).collect();
                for connection in told {
                    let Some(c) = self.connections.get(&connection) else { continue };
                    let (held, limit, seen) = (c.read, c.receive_limit, c.bits);
                    self.submit(Some(&Message::ReceiveCredit(ReceiveCredit { connection, held, limit, seen })));
                }
            }
            while let Some(length) = self.firmware.poll_wire(self.now, &mut buffer) {
                quiet = false;
                let mut bytes = buffer[ETHERNET_HEADER_BYTES..length].to_vec();
                self.dialect.speak(&mut bytes);
                if let Some((source, destination, text_bytes)) = closed::ends(&bytes) {
                    let now = self.now;
                    if let Some(c) = self.connection_between(source.into(), destination.into()) {
                        c.observed.sent(text_bytes, now);
                    }
                }
                self.packets.push_back(Packet { bytes, at: self.now });
            }
            if quiet {
                break;
            }
        }
        self.inbox = buffer;
    }

    /// Takes a message of the card; the connection whose news is to be confirmed.
    fn hear(&mut self, message: &Message<'_>) -> Option<u64> {
        match *message {
            Message::ConnectResult(m) => {
                self.answers.insert(m.cookie, Answer::Connect(m));
                for (option, value) in std::mem::take(&mut self.options) {
                    let cookie = self.next_cookie();
                    let object = m.connection;
                    // The card takes whatever `for_card` says; its answer is not waited for.
                    self.submit(Some(&Message::SetOption(SetOption { cookie, object, value, option })));
                }
            }
            Message::ListenResult(m) => {
                self.answers.insert(m.cookie, Answer::Listen(m));
            }
            Message::OptionResult(m) => {
                self.answers.insert(m.cookie, Answer::Option(m));
            }
            Message::InfoResult(m) => {
                self.answers.insert(m.cookie, Answer::Info(Box::new(m)));
            }
            Message::Error(m) if m.cookie != 0 => {
                self.answers.insert(m.cookie, Answer::Refused(m.reason));
            }
            Message::Accepted(m) => {
                let listener = self.listeners.get_mut(&m.listener)?;
                if let Entry::Vacant(place) = self.connections.entry(m.connection) {
                    place.insert(Connection::new(m.local, m.remote, state::ACCEPTED, m.send_limit, self.now));
                    listener.waiting.push_back(m.connection);
                    listener.announced += 1;
                }
                return Some(m.connection);
            }
            Message::State(m) => {
                let c = self.connections.get_mut(&m.connection)?;
                c.bits |= m.bits;
                c.reason = m.reason;
                c.fin_offset = m.fin_offset;
                return Some(m.connection);
            }
            Message::SendCredit(m) => {
                let c = self.connections.get_mut(&m.connection)?;
                c.send_limit = c.send_limit.max(m.limit);
                c.acknowledged = c.acknowledged.max(m.acknowledged);
            }
            // Nobody asks for it; but the card repeats it until it is seen.
            Message::Notice(m) => {
                self.submit(Some(&Message::Noticed(Noticed { connection: m.connection, serial: m.serial })));
            }
            Message::Received(m, data) => {
                let c = self.connections.get_mut(&m.connection)?;
                let have = c.read + c.fetched.len() as u64;
                // What was peeked at comes again from time to time.
                let known = have.checked_sub(m.offset)? as usize;
                c.fetched.extend(data.get(known..).unwrap_or_default());
            }
            _ => {}
        }
        None
    }
}

fn refusal(reason: u32) -> Result<(), Errno> {
    match Reason::from_u32(reason) {
        Some(Reason::None) => Ok(()),
        Some(reason) => Err(errno::of_refusal(reason)),
        None => Err(Errno(libc::EIO)),
    }
}

fn unexpected(answer: &Answer) -> Errno {
    debug_assert!(false, "an answer to another question: {answer:?}");
    Errno(libc::EIO)
}

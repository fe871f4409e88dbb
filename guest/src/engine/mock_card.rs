//! A small model of the card's side of the channel, for tests: connections go to an echo, to another connection of
//! the same card (if somebody listens), or are refused. It keeps to the written interface and nothing more, and
//! it checks that the guest does, too.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use toe_abi::*;

/// Connections to this port are echoed, and closed when the guest has closed.
pub(crate) const ECHO_PORT: u16 = 7;
/// Connections to this port never get anywhere.
pub(crate) const SILENT_PORT: u16 = 9;
const RESEND: Duration = Duration::from_millis(30);
const SEND_BYTES: u64 = 6_000;

#[derive(Debug)]
struct Link {
    context: u64,
    listener: Option<u64>,
    local: Endpoint,
    remote: Endpoint,
    cookie: u64,
    /// The connection at the other end on the same card; `None`: an echo.
    other: Option<u64>,
    /// From the guest, not yet passed on; ends at `taken`.
    incoming: VecDeque<u8>,
    taken: u64,
    shutdown: Option<u64>,
    /// For the guest, from `held` on.
    outgoing: VecDeque<u8>,
    held: u64,
    sent: u64,
    limit: u64,
    fin: Option<u64>,
    bits: u32,
    seen: u32,
    reason: u32,
    owes_credit: bool,
    owes_state: bool,
    resend_at: Instant,
    released: bool,
    options: BTreeMap<u32, u64>,
    flags: u32,
    notice: Notice,
    noticed: u64,
    owes_notice: bool,
}

impl Link {
    fn change(&mut self, change: impl FnOnce(&mut Notice)) {
        change(&mut self.notice);
        self.notice.serial += 1;
        self.owes_notice = true;
    }
}

#[derive(Debug)]
struct MockListener {
    context: u64,
    local: Endpoint,
    cookie: u64,
    receive_limit: u64,
    backlog: u32,
    announced: u64,
    taken: u64,
}

/// The model; see the module.
#[derive(Debug)]
pub(crate) struct MockCard {
    epoch: u32,
    next_id: u64,
    pub(crate) capacity: usize,
    pub(crate) action: Action,
    pub(crate) frame_bytes_max: u32,
    contexts: HashMap<u128, (u64, Mac, u64)>,
    links: BTreeMap<u64, Link>,
    listeners: BTreeMap<u64, MockListener>,
    frames: VecDeque<Vec<u8>>,
    /// Breaches of the interface by the guest.
    pub(crate) complaints: Vec<String>,
}

impl MockCard {
    pub(crate) fn new() -> Self {
        Self {
            epoch: 1,
            next_id: 100,
            capacity: 1_000,
            action: Action::Fallback,
            frame_bytes_max: 1_514,
            contexts: HashMap::new(),
            links: BTreeMap::new(),
            listeners: BTreeMap::new(),
            frames: VecDeque::new(),
            complaints: Vec::new(),
        }
    }

    /// Forgets everything, as a card that boots does.
    pub(crate) fn restart(&mut self) {
        self.epoch += 1;
        self.next_id = 100;
        self.contexts.clear();
        self.links.clear();
        self.listeners.clear();
        self.frames.clear();
    }

    /// Tells everybody which boot this is.
    pub(crate) fn announce(&mut self) {
        let event = FirmwareEvent { epoch: self.epoch, reason: Reason::Booted as u32 };
        self.say(0, 0, &Message::FirmwareEvent(event));
    }

    /// Breaks every connection off with a reason.
    pub(crate) fn abort_all(&mut self, reason: Reason) {
        for link in self.links.values_mut() {
            link.bits |= state::ABORTED;
            link.reason = reason as u32;
            link.owes_state = true;
        }
    }

    /// Whether every NOTICE was answered.
    pub(crate) fn has_been_noticed(&self) -> bool {
        self.links.values().all(|l| l.noticed == l.notice.serial)
    }

    /// Tells every connection that its peer is silent.
    pub(crate) fn advise_all(&mut self) {
        self.links.values_mut().for_each(|l| l.change(|n| n.path_advice += 1));
    }

    /// The flags of some connection's CONNECT.
    pub(crate) fn flags_of(&self, connection_index: usize) -> Option<u32> {
        self.links.values().nth(connection_index).map(|l| l.flags)
    }

    /// What an option of some connection was set to.
    pub(crate) fn option_of(&self, connection_index: usize, option: u32) -> Option<u64> {
        self.links.values().nth(connection_index)?.options.get(&option).copied()
    }

    pub(crate) fn connections(&self) -> usize {
        self.links.values().filter(|l| !l.released).count()
    }

    pub(crate) fn listeners(&self) -> usize {
        self.listeners.len()
    }

    pub(crate) fn addresses_of(&self, connection_index: usize) -> Option<(Endpoint, Endpoint)> {
        self.links.values().nth(connection_index).map(|l| (l.local, l.remote))
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn say(&mut self, key: u128, context: u64, message: &Message<'_>) {
        let mac = self.contexts.get(&key).map_or(Mac::default(), |c| c.1);
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let mut w = Writer::new(&mut buffer, CARD_MAC, mac, context, self.epoch, key).unwrap();
        assert!(w.push(message));
        let length = w.finish();
        assert!(length <= self.frame_bytes_max as usize);
        buffer.truncate(length);
        self.frames.push_back(buffer);
    }

    pub(crate) fn handle_frame(&mut self, now: Instant, frame: &[u8]) {
        let Ok(parsed) = Parsed::new(frame) else {
            return;
        };
        let key = parsed.header.key;
        if frame.len() > self.frame_bytes_max as usize || parsed.destination != CARD_MAC {
            self.complaints.push(format!("a frame of {} bytes to {}", frame.len(), parsed.destination));
        }
        for message in parsed.messages.clone() {
            if let Ok(Message::Hello(h)) = message {
                let id = self.id();
                let entry = self.contexts.entry(key).or_insert((id, parsed.source, h.receive_bytes_max));
                let context = entry.0;
                let caps = Caps {
                    version: VERSION,
                    reserved: 0,
                    epoch: self.epoch,
                    context,
                    lease_ms: h.lease_ms,
                    frame_bytes_max: self.frame_bytes_max,
                    features: 0,
                    send_bytes_max: SEND_BYTES,
                    receive_bytes_max: 1 << 20,
                };
                self.say(key, context, &Message::Caps(caps));
                return;
            }
        }
        let known = self.contexts.get(&key).copied();
        let context = parsed.header.context;
        if known.is_none_or(|k| k.0 != context) || parsed.header.epoch != self.epoch {
            let event = FirmwareEvent { epoch: self.epoch, reason: Reason::UnknownContext as u32 };
            self.say(key, context, &Message::FirmwareEvent(event));
            return;
        }
        for message in parsed.messages {
            match message {
                Ok(message) => self.handle_message(now, key, context, &message),
                Err(e) => self.complaints.push(e.to_string()),
            }
        }
        self.pump();
        self.transmit(now);
    }

    fn link(&mut self, context: u64, id: u64) -> Option<&mut Link> {
        self.links.get_mut(&id).filter(|l| l.context == context && !l.released)
    }

    fn unknown(&mut self, key: u128, context: u64, object: u64, kind: u16) {
        let e = Error { cookie: 0, object, reason: Reason::UnknownObject as u32, kind, denied: 0 };
        self.say(key, context, &Message::Error(e));
    }

    fn handle_message(&mut self, now: Instant, key: u128, context: u64, message: &Message<'_>) {
        match *message {
            Message::Connect(m) => {
                let found = self
                    .links
                    .iter()
                    .find(|(_, l)| l.context == context && l.listener.is_none() && l.cookie == m.cookie);
                let result = match found.map(|(id, _)| *id) {
                    Some(id) => Ok(id),
                    None if self.connections() >= self.capacity => Err(Reason::Connections),
                    None => Ok(self.open(now, context, &m)),
                };
                let (connection, reason) = match result {
                    Ok(id) => (id, Reason::None),
                    Err(reason) => (0, reason),
                };
                let result = ConnectResult {
                    cookie: m.cookie,
                    connection,
                    send_limit: SEND_BYTES,
                    reason: reason as u32,
                    action: self.action as u32,
                };
                self.say(key, context, &Message::ConnectResult(result));
            }
            Message::Listen(m) => {
                let found = self.listeners.iter().find(|(_, l)| l.context == context && l.cookie == m.cookie);
                let id = match found.map(|(id, _)| *id) {
                    Some(id) => id,
                    None => {
                        let id = self.id();
                        let listener = MockListener {
                            context,
                            local: m.local,
                            cookie: m.cookie,
                            receive_limit: m.receive_limit,
                            backlog: m.backlog,
                            announced: 0,
                            taken: 0,
                        };
                        self.listeners.insert(id, listener);
                        id
                    }
                };
                let result = ListenResult { cookie: m.cookie, listener: id, reason: 0, action: 0 };
                self.say(key, context, &Message::ListenResult(result));
            }
            Message::Unlisten(m) => {
                self.listeners.remove(&m.listener);
                self.say(key, context, &Message::Unlistened(Unlistened { listener: m.listener }));
            }
            Message::Taken(m) => {
                if let Some(l) = self.listeners.get_mut(&m.listener) {
                    l.taken = l.taken.max(m.taken);
                    if l.taken > l.announced {
                        self.complaints.push("more taken than announced".into());
                    }
                }
            }
            Message::Send(m, data) => match self.link(context, m.connection) {
                None => self.unknown(key, context, m.connection, 0x0120),
                Some(l) => {
                    l.owes_credit = true;
                    let limit = l.taken - l.incoming.len() as u64 + SEND_BYTES;
                    if m.offset + data.len() as u64 > limit {
                        self.complaints.push("SEND beyond the credit".into());
                    } else if m.offset <= l.taken {
                        let known = ((l.taken - m.offset) as usize).min(data.len());
                        l.incoming.extend(&data[known..]);
                        l.taken += (data.len() - known) as u64;
                    }
                }
            },
            Message::ReceiveCredit(m) => match self.link(context, m.connection) {
                None => self.unknown(key, context, m.connection, 0x0121),
                Some(l) => {
                    if m.held > l.sent || m.seen & !l.bits != 0 {
                        self.complaints.push("RECEIVE_CREDIT says what cannot be".into());
                        return;
                    }
                    l.seen |= m.seen;
                    l.limit = l.limit.max(m.limit);
                    if m.held > l.held {
                        l.outgoing.drain(..(m.held - l.held) as usize);
                        l.held = m.held;
                    }
                }
            },
            Message::Shutdown(m) => match self.link(context, m.connection) {
                None => self.unknown(key, context, m.connection, 0x0122),
                Some(l) => {
                    if m.offset > l.taken {
                        // Behind a gap: it will be repeated.
                        return;
                    }
                    let before = l.shutdown.replace(m.offset);
                    l.bits |= state::SHUTDOWN;
                    l.owes_state = true;
                    if before.is_some_and(|s| s != m.offset) {
                        self.complaints.push("another end of stream".into());
                    }
                }
            },
            Message::Abort(m) => {
                if let Some(l) = self.link(context, m.connection) {
                    l.bits |= state::ABORTED;
                    l.reason = Reason::AbortedByGuest as u32;
                    l.owes_state = true;
                }
            }
            Message::Release(m) => {
                if let Some(l) = self.link(context, m.connection) {
                    l.released = true;
                    let taken = l.taken;
                    l.shutdown.get_or_insert(taken);
                }
                self.say(key, context, &Message::Released(Released { connection: m.connection }));
            }
            Message::Urgent(m) => {
                let Some(l) = self.link(context, m.connection) else {
                    return self.unknown(key, context, m.connection, 0x0125);
                };
                l.change(|n| n.urgent_sent = n.urgent_sent.max(m.offset));
                let other = l.other.unwrap_or(m.connection);
                if let Some(l) = self.links.get_mut(&other) {
                    l.change(|n| n.urgent_received = n.urgent_received.max(m.offset));
                }
            }
            Message::Noticed(m) => match self.link(context, m.connection) {
                None => self.unknown(key, context, m.connection, 0x0126),
                Some(l) if m.serial > l.notice.serial => self.complaints.push("NOTICED says what cannot be".into()),
                Some(l) => l.noticed = l.noticed.max(m.serial),
            },
            Message::SetOption(m) => {
                if let Some(l) = self.link(context, m.object) {
                    l.options.insert(m.option, m.value);
                }
                let result = OptionResult { cookie: m.cookie, value: m.value, option: m.option, reason: 0 };
                self.say(key, context, &Message::OptionResult(result));
            }
            Message::GetOption(m) => {
                let value = self.link(context, m.object).and_then(|l| l.options.get(&m.option).copied()).unwrap_or(0);
                let result = OptionResult { cookie: m.cookie, value, option: m.option, reason: 0 };
                self.say(key, context, &Message::OptionResult(result));
            }
            Message::Stat(m) => {
                // Two counters to a page, five in all.
                let mut tail = [0; 200];
                let mut w = EntryWriter::new(&mut tail);
                for i in (m.first..5).take(2) {
                    assert!(w.stat(&StatEntry { name: "frames-of-a-kind", value: u64::from(i) }));
                }
                let used = w.finish();
                let result = StatResult { cookie: m.cookie, first: m.first, total: 5 };
                self.say(key, context, &Message::StatResult(result, &tail[..used]));
            }
            Message::Bye(_) => {
                self.contexts.remove(&key);
                self.links.retain(|_, l| l.context != context);
                self.listeners.retain(|_, l| l.context != context);
            }
            _ => {}
        }
    }

    fn new_link(&mut self, now: Instant, context: u64, local: Endpoint, remote: Endpoint, limit: u64) -> (u64, Link) {
        let link = Link {
            context,
            listener: None,
            local,
            remote,
            cookie: 0,
            other: None,
            incoming: VecDeque::new(),
            taken: 0,
            shutdown: None,
            outgoing: VecDeque::new(),
            held: 0,
            sent: 0,
            limit,
            fin: None,
            bits: 0,
            seen: 0,
            reason: 0,
            owes_credit: false,
            owes_state: false,
            resend_at: now + RESEND,
            released: false,
            options: BTreeMap::new(),
            flags: 0,
            notice: Notice {
                connection: 0,
                serial: 0,
                urgent_received: 0,
                urgent_sent: 0,
                network_errors: 0,
                network_error: 0,
                path_advice: 0,
                path_mtu: 0,
            },
            noticed: 0,
            owes_notice: false,
        };
        (self.id(), link)
    }

    fn open(&mut self, now: Instant, context: u64, m: &Connect) -> u64 {
        let (id, mut link) = self.new_link(now, context, m.local, m.remote, m.receive_limit);
        link.cookie = m.cookie;
        link.options.insert(option::NODELAY, u64::from(m.flags & flags::NODELAY != 0));
        link.options.insert(option::NEXT_HOP, 0);
        link.flags = m.flags;
        let listener = self
            .listeners
            .iter_mut()
            .find(|(_, l)| l.local.port == m.remote.port && l.announced.saturating_sub(l.taken) < u64::from(l.backlog));
        if m.remote.port == ECHO_PORT {
            link.bits = state::ESTABLISHED;
            link.owes_state = true;
        } else if let Some((listener_id, l)) = listener {
            l.announced += 1;
            let (listener_id, other_context, limit) = (*listener_id, l.context, l.receive_limit);
            let (other, mut child) = self.new_link(now, other_context, m.remote, m.local, limit);
            child.listener = Some(listener_id);
            child.bits = state::ACCEPTED | state::ESTABLISHED;
            child.owes_state = true;
            child.other = Some(id);
            self.links.insert(other, child);
            link.bits = state::ESTABLISHED;
            link.owes_state = true;
            link.other = Some(other);
        } else if m.remote.port != SILENT_PORT {
            link.bits = state::ABORTED;
            link.reason = Reason::Refused as u32;
            link.owes_state = true;
        }
        self.links.insert(id, link);
        id
    }

    /// Moves bytes from what came in to where they go.
    fn pump(&mut self) {
        let ids: Vec<_> = self.links.keys().copied().collect();
        for id in ids {
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            let at = link.other.unwrap_or(id);
            let bytes: Vec<u8> = link.incoming.drain(..).collect();
            let ended = link.shutdown == Some(link.taken);
            let gone = link.released && ended;
            link.owes_credit |= !bytes.is_empty();
            let Some(target) = self.links.get_mut(&at) else {
                continue;
            };
            let room = 4_000usize.saturating_sub(target.outgoing.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            target.outgoing.extend(now);
            let later = later.to_vec();
            if ended && later.is_empty() && target.fin.is_none() && target.bits & state::ESTABLISHED != 0 {
                let end = target.held + target.outgoing.len() as u64;
                target.fin = Some(end);
                target.bits |= state::PEER_CLOSED;
                target.owes_state = true;
            }
            if later.is_empty() && gone {
                self.links.remove(&id);
            } else if let Some(link) = self.links.get_mut(&id) {
                link.incoming.extend(later);
            }
        }
    }

    fn transmit(&mut self, now: Instant) {
        let keys: HashMap<u64, u128> = self.contexts.iter().map(|(key, c)| (c.0, *key)).collect();
        let mut said = Vec::new();
        for (&connection, l) in self.links.iter_mut().filter(|(_, l)| !l.released) {
            if now >= l.resend_at {
                l.owes_state |= l.bits & !l.seen != 0;
                l.owes_notice |= l.notice.serial > l.noticed;
                l.sent = l.held;
                l.resend_at = now + RESEND;
            }
            if std::mem::take(&mut l.owes_state) {
                if let Some(listener) = l.listener
                    && l.seen & state::ACCEPTED == 0
                {
                    let (local, remote) = (l.local, l.remote);
                    let accepted = Accepted { listener, connection, local, remote, send_limit: SEND_BYTES };
                    said.push((l.context, Message::Accepted(accepted), Vec::new()));
                }
                let fin_offset = l.fin.unwrap_or(0);
                let state = State { connection, bits: l.bits, reason: l.reason, fin_offset };
                said.push((l.context, Message::State(state), Vec::new()));
            }
            if (l.listener.is_none() || l.seen & state::ACCEPTED != 0) && std::mem::take(&mut l.owes_notice) {
                said.push((l.context, Message::Notice(Notice { connection, ..l.notice }), Vec::new()));
            }
            if std::mem::take(&mut l.owes_credit) {
                let limit = l.taken - l.incoming.len() as u64 + SEND_BYTES;
                let credit = SendCredit { connection, held: l.taken, limit, acknowledged: l.taken };
                said.push((l.context, Message::SendCredit(credit), Vec::new()));
            }
            let known = l.listener.is_none() || l.seen & state::ACCEPTED != 0;
            let end = (l.held + l.outgoing.len() as u64).min(l.limit);
            while known && l.sent < end && l.bits & state::ABORTED == 0 {
                let n = (end - l.sent).min(1_000) as usize;
                let from = (l.sent - l.held) as usize;
                let data: Vec<u8> = l.outgoing.range(from..from + n).copied().collect();
                let received = Received { connection, offset: l.sent };
                said.push((l.context, Message::Received(received, &[]), data));
                l.sent += n as u64;
            }
        }
        for (context, message, data) in said {
            let key = keys[&context];
            match message {
                Message::Received(m, _) => self.say(key, context, &Message::Received(m, &data)),
                message => self.say(key, context, &message),
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.pump();
        self.transmit(now);
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }
}

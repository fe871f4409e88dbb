//! Frames from the guest: the channel's requests, each hostile until it was read.
//!
//! A request either gets its own answer or, if it is refused without one, an ERROR. Answers wait in a ring of fixed
//! size; one that finds no place is dropped and counted, and the guest asks again.

use std::net::IpAddr;

use toe_abi::{
    Action, Addresses, Caps, Connect, ConnectResult, ETHERTYPE, Error, FRAME_BYTES_MAX, FirmwareEvent, FrameError,
    FrameHeader, GetOption, Hello, Listen, ListenResult, Mac, Message, Noticed, OptionResult, ParseError, Parsed,
    Reason, ReceiveCredit, Released, Send, SetOption, Shutdown, Taken, Unlistened, Urgent, VERSION, feature, flags,
    listen_policy, option,
};

use crate::counters::Counter;
use crate::engine::events::{Body, Reply};
use crate::engine::listener::Listener;
use crate::engine::{Call, Firmware, Owner, Verdict};
use crate::profile::Refusal;
use crate::seq::Position;
use crate::store::slab::Slot;
use crate::tcp::calls::Sent;
use crate::tcp::ecn::EcnPolicy;
use crate::tcp::fast_open::FastOpen;
use crate::tcp::half_open::clock;
use crate::tcp::tcb::{Due, Guest, Link, Tuple};
use crate::time::{Duration, Instant};
use crate::wire::frame::Ethernet;
use crate::wire::ip;

/// The shortest frame that a guest may be able to take: every message without a tail fits.
const FRAME_BYTES_MIN: usize = 512;

/// The lease that a guest can have, in milliseconds.
const LEASE_MS: std::ops::RangeInclusive<u32> = 1000..=600_000;

/// Whose frame is being read.
#[derive(Clone, Copy)]
pub(super) struct From {
    mac: Mac,
    key: u128,
    context: u64,
}

impl Firmware {
    /// Takes a frame from the guest, Ethernet header first.
    pub fn handle_guest(&mut self, now: Instant, frame: &[u8]) -> Verdict {
        let Some(now) = self.perceive(now) else { return self.halted_at_guest() };
        let verdict = self.guest_frame(now, frame);
        self.worked(Call::HandleGuest, true, now);
        verdict
    }

    fn guest_frame(&mut self, now: Instant, frame: &[u8]) -> Verdict {
        self.store.counters.add(Counter::GuestIn);
        let Some((ethernet, _)) = Ethernet::split(frame) else {
            self.store.counters.add(Counter::GuestDropRunt);
            return Verdict::Taken;
        };
        if ethernet.ethertype != ETHERTYPE {
            self.store.counters.add(Counter::GuestPassed);
            return Verdict::PassOn;
        }
        match Parsed::new(frame) {
            Ok(parsed) => self.channel_frame(&parsed, now),
            Err(FrameError::Version(_)) => self.store.counters.add(Counter::GuestDropVersion),
            Err(FrameError::Length) => self.store.counters.add(Counter::GuestDropLength),
            Err(FrameError::Truncated | FrameError::NotChannel) => {
                self.store.counters.add(Counter::GuestDropTruncated);
            }
        }
        Verdict::Taken
    }

    fn channel_frame(&mut self, parsed: &Parsed<'_>, now: Instant) {
        let FrameHeader { context, epoch, key, .. } = parsed.header;
        let from = From { mac: parsed.source, key, context };
        if context == 0 {
            self.store.counters.add(Counter::GuestTaken);
            self.first_contact(parsed, from, now);
            return;
        }
        let (counter, reason) = if epoch != self.epoch {
            (Counter::GuestDropEpoch, Reason::StaleEpoch)
        } else {
            match self.contexts.find(context) {
                Some(slot) if self.contexts[slot].key == key => {
                    self.store.counters.add(Counter::GuestTaken);
                    self.heard(slot, now);
                    self.messages(slot, from, parsed, now);
                    return;
                }
                _ => (Counter::GuestDropContext, Reason::UnknownContext),
            }
        };
        self.store.counters.add(counter);
        let epoch = self.epoch;
        self.reply(from, Message::FirmwareEvent(FirmwareEvent { epoch, reason: reason as u32 }));
    }

    /// A frame that names no context: only HELLO makes sense.
    fn first_contact(&mut self, parsed: &Parsed<'_>, from: From, now: Instant) {
        for message in parsed.messages.clone() {
            self.store.steps.one();
            match message {
                Ok(Message::Hello(hello)) => {
                    self.store.counters.add(Counter::ChannelMessages);
                    self.hello(from, &hello, now);
                }
                Ok(other) => {
                    self.store.counters.add(Counter::ChannelWrongState);
                    self.error(from, other.kind(), 0, 0, Reason::UnknownContext);
                }
                Err(e) => self.unreadable(from, e),
            }
        }
    }

    fn messages(&mut self, context: Slot, from: From, parsed: &Parsed<'_>, now: Instant) {
        for message in parsed.messages.clone() {
            self.store.steps.one();
            match message {
                Ok(message) => {
                    self.store.counters.add(Counter::ChannelMessages);
                    if let Message::Bye(_) = message {
                        self.close_context(context, Reason::AbortedByGuest, now);
                        return;
                    }
                    self.message(context, from, message, now);
                }
                Err(e) => self.unreadable(from, e),
            }
        }
    }

    fn unreadable(&mut self, from: From, e: ParseError) {
        let reason = match e {
            ParseError::Unknown { .. } => {
                self.store.counters.add(Counter::ChannelUnknownMessage);
                Reason::UnknownMessage
            }
            ParseError::Length { .. } | ParseError::Short { .. } | ParseError::Value { .. } => {
                self.store.counters.add(Counter::ChannelMalformed);
                Reason::Malformed
            }
        };
        self.error(from, e.kind(), 0, 0, reason);
    }

    fn message(&mut self, context: Slot, from: From, message: Message<'_>, now: Instant) {
        let kind = message.kind();
        self.check_named(&message, now);
        match message {
            Message::Hello(m) => self.hello(from, &m, now),
            Message::Addresses(m, tail) => self.addresses(context, from, kind, &m, tail),
            Message::Process(m, name) => self.process(context, m, name),
            Message::Connect(m) => self.connect(context, from, &m, now),
            Message::Listen(m) => self.listen(context, from, &m, now),
            Message::Unlisten(m) => {
                if let Some(slot) = self.listener_of(context, m.listener) {
                    self.contexts[context].listeners -= 1;
                    self.close_listener(slot, now);
                }
                self.reply(from, Message::Unlistened(Unlistened { listener: m.listener }));
            }
            Message::Taken(Taken { listener, taken }) => match self.listener_of(context, listener) {
                Some(slot) if taken <= self.listeners[slot].accepted => {
                    let listener = &mut self.listeners[slot];
                    self.backlog_gauge.give_back(taken.saturating_sub(listener.taken));
                    listener.taken = listener.taken.max(taken);
                }
                Some(_) => {
                    self.store.counters.add(Counter::ChannelOffset);
                    self.error(from, kind, 0, listener, Reason::Offset);
                }
                None => self.unknown(from, kind, 0, listener),
            },
            Message::Send(Send { connection, offset }, data) => {
                let Some(slot) = self.connection_of(context, connection) else {
                    return self.unknown(from, kind, 0, connection);
                };
                self.send(slot, from, kind, connection, offset, data, now);
            }
            Message::Filled(m) => {
                let Some(slot) = self.connection_of(context, m.connection) else {
                    return self.unknown(from, kind, 0, m.connection);
                };
                self.filled(slot, from, kind, &m, now);
            }
            Message::ReceiveCredit(ReceiveCredit { connection, held, limit, seen }) => {
                let Some(slot) = self.connection_of(context, connection) else {
                    return self.unknown(from, kind, 0, connection);
                };
                let t = &mut self.connections[slot];
                let result = t.call_receive_credit(&mut self.store, held, limit, seen, now);
                self.settle(slot, now);
                self.refused(from, kind, connection, result);
            }
            Message::Shutdown(Shutdown { connection, offset }) => {
                let Some(slot) = self.connection_of(context, connection) else {
                    return self.unknown(from, kind, 0, connection);
                };
                let t = &mut self.connections[slot];
                let result = t.call_shutdown(offset, now);
                // Told again even if it was told before: the guest has asked again.
                t.guest.told &= !toe_abi::state::SHUTDOWN;
                self.settle(slot, now);
                self.refused(from, kind, connection, result);
            }
            Message::Urgent(Urgent { connection, offset }) => {
                let Some(slot) = self.connection_of(context, connection) else {
                    return self.unknown(from, kind, 0, connection);
                };
                let result = self.connections[slot].call_urgent(offset);
                self.settle(slot, now);
                self.refused(from, kind, connection, result);
            }
            Message::Noticed(Noticed { connection, serial }) => {
                let Some(slot) = self.connection_of(context, connection) else {
                    return self.unknown(from, kind, 0, connection);
                };
                self.connections[slot].call_noticed(serial, now);
                self.settle(slot, now);
            }
            Message::Abort(m) => match self.connection_of(context, m.connection) {
                Some(slot) => {
                    self.connections[slot].call_abort(&mut self.store, Reason::AbortedByGuest);
                    self.settle(slot, now);
                }
                None => self.unknown(from, kind, 0, m.connection),
            },
            Message::Release(m) => {
                let released = Message::Released(Released { connection: m.connection });
                match self.connection_of(context, m.connection) {
                    Some(slot) if self.connections[slot].guest.patient => {
                        self.leave(slot, now);
                        self.reply_later(from, released, now);
                    }
                    Some(slot) => {
                        self.leave(slot, now);
                        self.reply(from, released);
                    }
                    None => self.reply(from, released),
                }
            }
            Message::SetOption(m) => self.set_option(context, from, &m, now),
            Message::GetOption(m) => self.get_option(context, from, &m),
            Message::Info(m) => match self.connection_of(context, m.connection) {
                Some(slot) => {
                    let cookie = m.cookie;
                    self.push_reply(from, Body::Info { cookie, slot, connection: m.connection });
                }
                None => self.unknown(from, kind, m.cookie, m.connection),
            },
            Message::Limits(m) => self.push_reply(from, Body::Limits { cookie: m.cookie, first: m.first }),
            Message::Stat(m) => self.push_reply(from, Body::Stat { cookie: m.cookie, first: m.first }),
            Message::Sockets(m) => self.push_reply(from, Body::Sockets { cookie: m.cookie, after: m.after }),
            Message::Bye(_)
            | Message::Caps(_)
            | Message::ConnectResult(_)
            | Message::ListenResult(_)
            | Message::Unlistened(_)
            | Message::Accepted(_)
            | Message::SendCredit(_)
            | Message::State(_)
            | Message::Notice(_)
            | Message::Stored(_)
            | Message::Released(_)
            | Message::OptionResult(_)
            | Message::InfoResult(_)
            | Message::Error(_)
            | Message::FirmwareEvent(_)
            | Message::ResourceEvent(_)
            | Message::Received(..)
            | Message::LimitsResult(..)
            | Message::StatResult(..)
            | Message::SocketsResult(..) => {
                self.store.counters.add(Counter::ChannelUnknownMessage);
                self.error(from, kind, 0, 0, Reason::UnknownMessage);
            }
        }
    }

    fn hello(&mut self, from: From, m: &Hello, now: Instant) {
        if !(m.version_min..=m.version_max).contains(&VERSION) {
            return self.error(from, Message::Hello(*m).kind(), 0, 0, Reason::Version);
        }
        let slot = match self.context_of(from.key) {
            Some(slot) => slot,
            None => match self.take_context() {
                Some(id) => {
                    self.contexts[id.slot].open(from.key);
                    self.store.send.begin_account(id.slot);
                    self.store.receive.begin_account(id.slot);
                    id.slot
                }
                None => {
                    self.contexts.gauge.refuse(Reason::Contexts);
                    let (kind, reason) = (Message::Hello(*m).kind(), Reason::Contexts as u32);
                    let denied = u16::from(self.policy.contexts == Refusal::Deny);
                    return self.reply(from, Message::Error(Error { cookie: 0, object: 0, reason, kind, denied }));
                }
            },
        };
        let context = &mut self.contexts[slot];
        let lease_ms = m.lease_ms.clamp(*LEASE_MS.start(), *LEASE_MS.end());
        context.mac = from.mac;
        context.frame_bytes_max = (m.frame_bytes_max as usize).clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX);
        context.receive_bytes_max = m.receive_bytes_max.max(1);
        context.lease = Duration::from_ms(lease_ms.into());
        context.heard_at = now;
        let caps = Caps {
            version: VERSION,
            reserved: 0,
            epoch: self.epoch,
            context: self.contexts.id(slot),
            lease_ms,
            frame_bytes_max: self.contexts[slot].frame_bytes_max as u32,
            features: if self.host.is_some() { feature::SHARED_RINGS } else { 0 },
            send_bytes_max: self.store.config.send_bytes_max,
            receive_bytes_max: self.store.config.receive_bytes_max,
        };
        self.arm_lease(slot);
        if self.contexts[slot].has_news() {
            // It may have raised what it can hold.
            self.guest_queue.push(&mut self.guest_links, slot);
        }
        let from = From { context: caps.context, ..from };
        self.reply(from, Message::Caps(caps));
    }

    fn addresses(&mut self, context: Slot, from: From, kind: u16, m: &Addresses, tail: &[u8]) {
        self.store.steps.add(tail.len() as u64 / 16);
        let addresses = tail.chunks_exact(16).map(|b| {
            let mut octets = [0; 16];
            octets.copy_from_slice(b);
            IpAddr::from(octets).to_canonical()
        });
        let before = self.contexts[context].address_count();
        let fewer = addresses.len() as u64 <= before;
        if (fewer || self.addresses_gauge.admits()) && self.contexts[context].set_addresses(addresses) {
            self.addresses_gauge.give_back(before);
            self.addresses_gauge.claim(self.contexts[context].address_count());
        } else {
            self.addresses_gauge.refuse(Reason::Addresses);
            self.error(from, kind, m.cookie, 0, Reason::Addresses);
        }
    }

    fn connect(&mut self, context: Slot, from: From, m: &Connect, now: Instant) {
        let result = self.open(context, m, now);
        let refused = |reason: Reason, action: Action| ConnectResult {
            cookie: m.cookie,
            connection: 0,
            send_limit: 0,
            reason: reason as u32,
            action: action as u32,
        };
        let result = match result {
            Ok(slot) => {
                let t = &self.connections[slot];
                ConnectResult {
                    connection: self.connections.id(slot),
                    send_limit: t.send_offset(t.send.stream.limit()),
                    ..refused(Reason::None, Action::Deny)
                }
            }
            Err(reason @ (Reason::Connections | Reason::Quota | Reason::FairShare)) => {
                refused(reason, action(self.policy.connections))
            }
            Err(reason) => refused(reason, Action::Deny),
        };
        // With Fast Open the SYN waits for the first data, and that for this answer.
        let patient = m.flags & (flags::PATIENT | flags::FAST_OPEN) == flags::PATIENT;
        if patient && result.reason == Reason::None as u32 {
            self.reply_later(from, Message::ConnectResult(result), now);
        } else {
            self.reply(from, Message::ConnectResult(result));
        }
    }

    /// OPEN, active (RFC 9293, 3.10.1).
    fn open(&mut self, context: Slot, m: &Connect, now: Instant) -> Result<Slot, Reason> {
        let tuple = Tuple { local: m.local, remote: m.remote };
        // MUST-46, and what no frame could be written for.
        //= docs/specs/rfc9293.txt#section-3.9.1.1
        //# A TCP implementation MUST reject as an error a local OPEN call for an invalid remote IP address (e.g., a
        //# broadcast or multicast address) (MUST-46).
        if !ip::is_unicast(m.local.ip)
            || !ip::is_unicast(m.remote.ip)
            || m.local.ip.is_ipv4() != m.remote.ip.is_ipv4()
            || m.local.port == 0
            || m.remote.port == 0
            || m.local == m.remote
        {
            return Err(Reason::AddressInvalid);
        }
        if m.next_hop.is_group() || m.next_hop == Mac::default() {
            return Err(Reason::NextHopInvalid);
        }
        let mut iss = Position::initial(self.initial_sequence_number(&tuple, clock(now)));
        let before = match self.owner(&tuple) {
            Some(Owner::Connection(slot)) => {
                let guest = &self.connections[slot].guest;
                let again = guest.context == Some(context) && guest.listener == 0 && guest.cookie == m.cookie;
                return if again { Ok(slot) } else { Err(Reason::AddressInUse) };
            }
            Some(Owner::HalfOpen(_)) => return Err(Reason::AddressInUse),
            // The kernel that chose the port does not know of our TIME-WAIT. A sequence number beyond the old ones makes
            // it safe (RFC 9293, 3.4.3).
            Some(Owner::TimeWait(slot)) => Some(slot),
            None if self.has_place(&tuple) => None,
            None => {
                self.tuples.gauge.refuse(Reason::Connections);
                return Err(Reason::Connections);
            }
        };
        let id = self.take_connection(context, None, now)?;
        if let Some(slot) = before {
            //= docs/specs/rfc9293.txt#section-3.6.1
            //# However, it MAY accept a new SYN from the remote TCP endpoint to reopen the connection directly
            //# from TIME-WAIT state (MAY-2), if it: (1) assigns its initial sequence number for the new
            //# connection to be larger than the largest sequence number it used on the previous connection
            //# incarnation, and (2) returns to TIME-WAIT state if the SYN turns out to be an old duplicate.
            iss = Position::initial(self.time_wait[slot].next_iss(iss.seq()));
            self.store.counters.add(Counter::TcpTimeWaitReused);
            self.forget_time_wait(slot);
        }
        let link = Link { local: self.contexts[context].mac, remote: m.next_hop };
        let t = &mut self.connections[id.slot];
        t.begin(tuple, link, m.mtu, &self.store, now);
        t.guest = Guest::new(Some(context), m.cookie, 0);
        t.guest.patient = m.flags & flags::PATIENT != 0;
        t.guest.limit = Position::default() + m.receive_limit.min(u64::MAX / 2);
        t.timestamp_offset = self.keys.timestamp.hash(&tuple.words()) as u32;
        if m.flags & flags::FAST_OPEN != 0 && self.store.config.fast_open.is_some() {
            t.fast_open = FastOpen::active(self.cookies.client(&tuple, now), now);
        }
        let mss = t.receive_mss();
        if m.flags & flags::ECN != 0 {
            t.settings.ecn = EcnPolicy::On;
        }
        let nodelay = m.flags & flags::NODELAY != 0;
        t.send.open(&mut self.store.send, iss, mss, self.store.config.send_bytes_max, nodelay);
        t.send.records.open(&mut self.store.records);
        t.guest.limit_told = t.send.stream.limit();
        t.due = Due::Syn;
        t.in_table = true;
        self.contexts[context].connections += 1;
        self.store.counters.add(Counter::TcpActiveOpens);
        self.own(&tuple, Owner::Connection(id.slot));
        self.settle(id.slot, now);
        Ok(id.slot)
    }

    fn listen(&mut self, context: Slot, from: From, m: &Listen, now: Instant) {
        let result = self.open_listener(context, m, now);
        let refused = |reason: Reason, action: Action| ListenResult {
            cookie: m.cookie,
            listener: 0,
            reason: reason as u32,
            action: action as u32,
        };
        let result = match result {
            Ok(listener) => ListenResult { listener, ..refused(Reason::None, Action::Deny) },
            Err(reason @ (Reason::Listeners | Reason::Quota | Reason::FairShare)) => {
                refused(reason, action(self.policy.listeners))
            }
            Err(reason) => refused(reason, Action::Deny),
        };
        self.reply(from, Message::ListenResult(result));
    }

    /// OPEN, passive (RFC 9293, 3.10.1).
    //= docs/specs/rfc9293.txt#section-3.9.1.1
    //# A TCP implementation that supports multiple concurrent connections MUST provide an OPEN call that will
    //# functionally allow an application to LISTEN on a port while a connection block with the same local port is
    //# in SYN-SENT or SYN-RECEIVED state (MUST-42).
    //= docs/specs/rfc9293.txt#section-3.9.1.1
    //# The optional "local IP address" parameter MUST be supported to allow the specification of the local IP
    //# address (MUST-43).
    fn open_listener(&mut self, context: Slot, m: &Listen, now: Instant) -> Result<u64, Reason> {
        if m.local.port == 0 || !(m.local.ip.is_unspecified() || ip::is_unicast(m.local.ip)) {
            return Err(Reason::AddressInvalid);
        }
        //= docs/specs/rfc9293.txt#section-3.9.1.1
        //# Every passive OPEN call either creates a new connection record in LISTEN state, or it returns an error;
        //# it MUST NOT affect any previously created connection record (MUST-41).
        if let Some(slot) = self.listener_at(&m.local) {
            let listener = &self.listeners[slot];
            let again = listener.context == context && listener.cookie == m.cookie;
            return if again { Ok(self.listeners.id(slot)) } else { Err(Reason::AddressInUse) };
        }
        if !self.has_place_to_listen(&m.local) {
            self.listeners.gauge.refuse(Reason::Listeners);
            return Err(Reason::Listeners);
        }
        let id = self.take_listener(context, now)?;
        self.listeners[id.slot] = Listener {
            context,
            cookie: m.cookie,
            local: m.local,
            backlog: m.backlog.min(self.backlog_max),
            policy: own_policy(m.policy),
            nodelay: m.flags & flags::NODELAY != 0,
            fast_open: m.flags & flags::FAST_OPEN != 0,
            patient: m.flags & flags::PATIENT != 0,
            receive_limit: m.receive_limit,
            mtu: m.mtu,
            ..Listener::vacant()
        };
        self.contexts[context].listeners += 1;
        self.add_listener(id.slot);
        Ok(id.to_u64())
    }

    #[allow(clippy::too_many_arguments)]
    fn send(&mut self, slot: Slot, from: From, kind: u16, id: u64, offset: u64, data: &[u8], now: Instant) {
        let result = self.connections[slot].call_send(&mut self.store, offset, data, now);
        self.settle(slot, now);
        let (counter, reason) = match result {
            Sent::Taken => return,
            // Nobody's fault: the credit that follows says where to go on.
            Sent::Repeated => return self.store.counters.add(Counter::ChannelRepeated),
            Sent::Gap => return self.store.counters.add(Counter::ChannelGap),
            Sent::Over => return self.store.counters.add(Counter::ChannelWrongState),
            Sent::BeyondCredit => (Counter::ChannelBeyondCredit, Reason::BeyondCredit),
            Sent::AfterShutdown => (Counter::ChannelWrongState, Reason::WrongState),
        };
        self.store.counters.add(counter);
        self.error(from, kind, 0, id, reason);
    }

    fn set_option(&mut self, context: Slot, from: From, m: &SetOption, now: Instant) {
        let Some(slot) = self.connection_of(context, m.object) else {
            return self.unknown(from, Message::SetOption(*m).kind(), m.cookie, m.object);
        };
        let result = match m.option {
            option::SEND_RING | option::RECEIVE_RING => self.name_ring(slot, m.option, m.value),
            other => self.connections[slot].set_option(other, m.value, now),
        };
        self.settle(slot, now);
        // Of this one it knows the answer.
        if self.connections[slot].guest.patient && m.option == option::NODELAY && result.is_ok() {
            let SetOption { cookie, value, option, .. } = *m;
            let result = OptionResult { cookie, value, option, reason: Reason::None as u32 };
            return self.reply_later(from, Message::OptionResult(result), now);
        }
        self.option_result(from, slot, m.cookie, m.option, result);
    }

    fn get_option(&mut self, context: Slot, from: From, m: &GetOption) {
        match self.connection_of(context, m.object) {
            Some(slot) => self.option_result(from, slot, m.cookie, m.option, Ok(())),
            None => self.unknown(from, Message::GetOption(*m).kind(), m.cookie, m.object),
        }
    }

    fn option_result(&mut self, from: From, slot: Slot, cookie: u64, option: u32, set: Result<(), Reason>) {
        let rings = self.connections[slot].guest.rings;
        let value = match option {
            option::SEND_RING => self.host.as_ref().map(|_| rings.send.value()),
            option::RECEIVE_RING => self.host.as_ref().map(|_| rings.receive.value()),
            other => self.connections[slot].option(other),
        };
        let (value, reason) = match value {
            Some(value) => (value, set.err().unwrap_or(Reason::None)),
            None => (0, Reason::OptionUnknown),
        };
        self.reply(from, Message::OptionResult(OptionResult { cookie, value, option, reason: reason as u32 }));
    }

    /// The connection of that id, if it is the context's.
    fn connection_of(&self, context: Slot, id: u64) -> Option<Slot> {
        self.connections.find(id).filter(|slot| self.connections[*slot].guest.context == Some(context))
    }

    fn listener_of(&self, context: Slot, id: u64) -> Option<Slot> {
        self.listeners.find(id).filter(|slot| self.listeners[*slot].context == context)
    }

    fn refused(&mut self, from: From, kind: u16, id: u64, result: Result<(), Reason>) {
        if let Err(reason) = result {
            self.store.counters.add(Counter::ChannelOffset);
            self.error(from, kind, 0, id, reason);
        }
    }

    fn unknown(&mut self, from: From, kind: u16, cookie: u64, object: u64) {
        self.store.counters.add(Counter::ChannelUnknownObject);
        self.error(from, kind, cookie, object, Reason::UnknownObject);
    }

    pub(super) fn error(&mut self, from: From, kind: u16, cookie: u64, object: u64, reason: Reason) {
        self.reply(from, Message::Error(Error { cookie, object, reason: reason as u32, kind, denied: 0 }));
    }

    fn reply(&mut self, from: From, message: Message<'static>) {
        self.push_reply(from, Body::Message(message));
    }

    fn reply_later(&mut self, from: From, message: Message<'static>, now: Instant) {
        let From { mac, key, context } = from;
        self.queue_reply_for_later(Reply { mac, key, context, body: Body::Message(message) }, now);
    }

    fn push_reply(&mut self, from: From, body: Body) {
        let From { mac, key, context } = from;
        self.queue_reply(Reply { mac, key, context, body });
    }

    pub(super) fn queue_reply(&mut self, reply: Reply) {
        self.patience.answer_at_once();
        self.add_reply(reply);
    }

    pub(super) fn add_reply(&mut self, reply: Reply) {
        if self.replies_gauge.admits() && self.replies.push(reply) {
            let taken = self.replies_gauge.take(1);
            debug_assert!(taken);
        } else {
            self.replies_gauge.refuse(Reason::Replies);
            self.store.counters.add(Counter::ChannelRepliesFull);
        }
    }
}

/// What LISTEN says of SYNs for which there is no room; `None`: what the card says.
fn own_policy(said: u32) -> Option<Refusal> {
    match said {
        listen_policy::DENY => Some(Refusal::Deny),
        listen_policy::FALLBACK => Some(Refusal::Fallback),
        listen_policy::EVICT => Some(Refusal::Evict),
        _ => None,
    }
}

fn action(policy: Refusal) -> Action {
    match policy {
        Refusal::Deny | Refusal::Evict => Action::Deny,
        Refusal::Fallback => Action::Fallback,
    }
}

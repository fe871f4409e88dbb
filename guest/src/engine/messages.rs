//! What the card says within an open context, message by message.
//!
//! Every message is about an object that this engine knows (by the card's id, or by the cookie of a request), or it is
//! counted and dropped: late ones are ordinary. If it shows that the card has something that is nobody's here, the card is
//! told to let go of it ([`super::stray`]).

use std::time::Instant;

use toe_abi::{Accepted, Message, Reason, option};

use super::connection::{Broken, Connection};
use super::listener::ListenerState;
use super::request::{self, Reply, Request};
use super::{Change, ConnectionKey, Engine, ListenerKey, QuestionKey};

impl Engine {
    pub(super) fn handle_message(&mut self, now: Instant, message: &Message<'_>) {
        match message {
            Message::ConnectResult(m) => {
                let Some(key) = self.connections_by_cookie.remove(&m.cookie) else {
                    return self.late_connect_result(now, m);
                };
                self.suspects.acquit(m.connection);
                if m.reason == Reason::None as u32 {
                    self.connections_by_id.insert(m.connection, key);
                }
                self.with(key, |c| c.connect_result(now, m));
                self.changes.push(Change::Connection(key));
            }
            Message::ListenResult(m) => {
                let key = ListenerKey(m.cookie);
                let Some(listener) = self.listeners.get_mut(&key) else {
                    return self.late_listen_result(now, m);
                };
                listener.listen_result(m);
                self.settle_listener(key);
                self.changes.push(Change::Listener(key));
            }
            Message::Unlistened(m) => match self.listener_by_id(m.listener) {
                Some(key) => {
                    if let Some(l) = self.listeners.get_mut(&key) {
                        l.unlistened();
                    }
                    self.settle_listener(key);
                }
                None => self.unknown(),
            },
            Message::Accepted(m) => self.handle_accepted(now, m),
            Message::Received(m, data) => {
                self.patience.bytes += data.len() as u64;
                self.for_connection(m.connection, |c| c.received(m.offset, data));
                if let Some(key) = self.connections_by_id.get(&m.connection).copied() {
                    self.offer_ring(now, key);
                }
            }
            Message::Stored(m) => {
                let mut stored = Some(0);
                self.for_connection(m.connection, |c| {
                    stored = c.may_have_stored(m.end).then(|| m.end.saturating_sub(m.offset));
                    if stored.is_some() { c.stored(m.offset, m.end) } else { 0 }
                });
                match stored {
                    Some(bytes) => self.patience.bytes += bytes,
                    None => self.counters.messages_impossible += 1,
                }
            }
            Message::SendCredit(m) => {
                let mut possible = true;
                self.for_connection(m.connection, |c| {
                    possible = c.send_credit(now, m);
                    0
                });
                self.counters.messages_impossible += u64::from(!possible);
            }
            Message::State(m) if !self.connections_by_id.contains_key(&m.connection) => self.state_of_nobody(now, m),
            Message::State(m) => self.for_connection(m.connection, |c| {
                c.state(now, m);
                0
            }),
            Message::Notice(m) => {
                let mut advised = false;
                self.for_connection(m.connection, |c| {
                    advised = c.notice(now, m);
                    0
                });
                if advised && let Some(key) = self.connections_by_id.get(&m.connection) {
                    self.changes.push(Change::PathAdvice(*key));
                }
            }
            Message::Released(m) => match self.connections_by_id.get(&m.connection).copied() {
                Some(key) => {
                    self.with(key, Connection::released);
                }
                None => self.unknown(),
            },
            Message::OptionResult(m) => {
                if m.option == option::SEND_RING
                    && m.reason == Reason::None as u32
                    && let Some(key) = self.questions.get(&QuestionKey(m.cookie)).and_then(Request::option_of)
                {
                    self.with(key, Connection::send_ring_named);
                }
                self.answer(m.cookie, |_| Reply::Option { reason: m.reason, value: m.value });
            }
            Message::InfoResult(m) => self.answer(m.cookie, |_| Reply::Info(Box::new(*m))),
            Message::LimitsResult(m, tail) => self.answer(m.cookie, |_| request::limits_reply(m, tail)),
            Message::StatResult(m, tail) => self.answer(m.cookie, |_| request::stat_reply(m, tail)),
            Message::ResourceEvent(m) => {
                log::debug!("the card's pool {} is at level {}: {} of {}", m.pool, m.level, m.in_use, m.capacity);
                self.counters.resource_events += 1;
                self.pressure.note(*m);
                self.changes.push(Change::Context);
            }
            Message::SocketsResult(m, tail) => self.answer(m.cookie, |_| request::sockets_reply(m, tail)),
            Message::Error(m) => self.handle_error(now, m),
            // What only a guest says.
            _ => self.counters.messages_impossible += 1,
        }
    }

    pub(super) fn unknown(&mut self) {
        self.counters.messages_unknown_object += 1;
    }

    pub(super) fn listener_by_id(&self, id: u64) -> Option<ListenerKey> {
        // There are few listeners in a process.
        self.listeners.iter().find(|(_, l)| l.id == Some(id)).map(|(key, _)| *key)
    }

    /// Does something to the connection with that id; `f` gives how many bytes were dropped.
    fn for_connection(&mut self, id: u64, f: impl FnOnce(&mut Connection) -> usize) {
        let Some(key) = self.connections_by_id.get(&id).copied() else {
            return self.unknown();
        };
        let dropped = self.with(key, f).unwrap_or(0);
        self.counters.bytes_out_of_order += dropped as u64;
        self.changes.push(Change::Connection(key));
    }

    fn handle_accepted(&mut self, now: Instant, m: &Accepted) {
        if let Some(key) = self.connections_by_id.get(&m.connection).copied() {
            self.with(key, Connection::accepted_again);
            return;
        }
        if self.forgotten_set.contains(&m.connection) {
            return self.unknown();
        }
        let listener = self.listener_by_id(m.listener);
        if listener.is_none() {
            if self.listeners.values().any(|l| l.state == ListenerState::Asked) {
                // It may be that one's, whose answer is still to come. The card announces it again.
                return self.unknown();
            }
            self.let_go_of_listener(now, m.listener);
        }
        let key = ConnectionKey(self.new_key());
        self.connections.insert(key, Connection::passive(m, self.config.buffers));
        self.connections_by_id.insert(m.connection, key);
        let wanted = listener.and_then(|l| self.listeners.get_mut(&l)).is_some_and(|l| l.announce(key));
        if !wanted {
            // It crossed our UNLISTEN. The card keeps it until somebody lets go of it.
            self.with(key, |c| c.reject(now));
        }
        self.settle_connection(key);
        self.changes.extend(listener.map(Change::Listener));
    }

    fn answer(&mut self, cookie: u64, reply: impl FnOnce(&Request) -> Reply) {
        let key = QuestionKey(cookie);
        match self.questions.get_mut(&key) {
            Some(question) if question.reply.is_none() => {
                let reply = reply(question);
                question.answer(reply);
                self.settle_question(key);
                self.changes.push(Change::Question(key));
            }
            _ => self.unknown(),
        }
    }

    fn handle_error(&mut self, now: Instant, m: &toe_abi::Error) {
        self.counters.errors += 1;
        let reason = Reason::from_u32(m.reason);
        log::debug!("the card refused message {:#06x}: {reason:?}", m.kind);
        if m.cookie != 0 && self.questions.contains_key(&QuestionKey(m.cookie)) {
            return self.answer(m.cookie, |_| Reply::Failed(m.reason));
        }
        if let Some(key) = self.connections_by_cookie.remove(&m.cookie) {
            let refusal =
                toe_abi::ConnectResult { cookie: m.cookie, connection: 0, send_limit: 0, reason: m.reason, action: 1 };
            self.with(key, |c| c.connect_result(now, &refusal));
            self.changes.push(Change::Connection(key));
            return;
        }
        if m.kind == FILLED_KIND
            && reason != Some(Reason::UnknownObject)
            && let Some(key) = self.connections_by_id.get(&m.object).copied()
        {
            self.with(key, Connection::send_ring_lost);
            return;
        }
        // An object that the card does not know any more: whoever waits for it must hear of that.
        if reason == Some(Reason::UnknownObject)
            && let Some(key) = self.connections_by_id.get(&m.object).copied()
        {
            self.with(key, |c| {
                c.break_off(now, Broken::Aborted(m.reason));
                c.released();
            });
            self.changes.push(Change::Connection(key));
        }
    }
}

/// FILLED's type, which an ERROR about it names.
const FILLED_KIND: u16 = 0x0127;

//! What the card has and nobody here asked for, or nobody any more.
//!
//! A CONNECT is repeated until it is answered, and the channel may keep one of its copies until the connection has come, gone
//! and been released. The card takes that copy for a new wish, because nothing of the old one is left on it, and has a
//! connection then that is nobody's: it would stay as long as the context does, and hold its 4-tuple. The same can befall a
//! LISTEN. So whatever the card says of such a thing is answered by letting go of it: ABORT and RELEASE, or UNLISTEN, repeated
//! until they are confirmed. Both are harmless for an id that the card does not know any more.
//!
//! *Which id is nobody's?* One in the answer to a cookie that nothing waits for. That answer can be lost; the card does not
//! repeat it, but it repeats STATE. An id there that is not known belongs to a CONNECT whose answer is still to come, or to
//! nobody: it is nobody's as soon as every CONNECT that was waiting when it was first named has been answered. A child of a
//! listener is left to ACCEPTED, which is repeated likewise.
//!
//! *Bounds.* [`SUSPECTS_MAX`] ids are remembered; of further ones the card speaks again.

use std::collections::HashMap;
use std::time::Instant;

use toe_abi::{ConnectResult, ListenResult, Reason, State, state};

use super::connection::Connection;
use super::listener::Listener;
use super::{ConnectionKey, Engine, ListenerKey};

/// So many ids that may be nobody's are remembered.
const SUSPECTS_MAX: usize = 64;

/// Ids that may be nobody's, each with the first cookie that was not given out when it was first named.
#[derive(Debug, Default)]
pub(super) struct Suspects(HashMap<u64, u64>);

impl Suspects {
    /// The card that named them has forgotten all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// It is somebody's.
    pub(super) fn acquit(&mut self, id: u64) {
        self.0.remove(&id);
    }

    /// When it was first named: now, if there is no room to remember it.
    fn first_named(&mut self, id: u64, now: u64) -> u64 {
        match self.0.get(&id) {
            Some(first) => *first,
            None => {
                if self.0.len() < SUSPECTS_MAX {
                    self.0.insert(id, now);
                }
                now
            }
        }
    }
}

impl Engine {
    /// The answer to a CONNECT that nothing waits for.
    pub(super) fn late_connect_result(&mut self, now: Instant, m: &ConnectResult) {
        self.unknown();
        if m.reason == Reason::None as u32 {
            self.let_go(now, m.connection);
        }
    }

    /// News of a connection that is not known.
    pub(super) fn state_of_nobody(&mut self, now: Instant, m: &State) {
        self.unknown();
        if m.bits & state::ACCEPTED != 0 {
            return;
        }
        let first = self.suspects.first_named(m.connection, self.next_key);
        if self.connections_by_cookie.keys().all(|cookie| *cookie >= first) {
            self.let_go(now, m.connection);
        }
    }

    /// The answer to a LISTEN that nothing waits for.
    pub(super) fn late_listen_result(&mut self, now: Instant, m: &ListenResult) {
        self.unknown();
        if m.reason == Reason::None as u32 {
            self.let_go_of_listener(now, m.listener);
        }
    }

    /// Resets and releases a connection of the card's, unless it is known here or was released.
    fn let_go(&mut self, now: Instant, id: u64) {
        self.suspects.acquit(id);
        if id == 0 || self.connections_by_id.contains_key(&id) || self.forgotten_set.contains(&id) {
            return;
        }
        self.counters.strays += 1;
        let key = ConnectionKey(self.new_key());
        self.connections.insert(key, Connection::stray(id, self.config.buffers));
        self.connections_by_id.insert(id, key);
        self.with(key, |c| c.reject(now));
    }

    /// Closes a listener of the card's, unless it is known here.
    pub(super) fn let_go_of_listener(&mut self, now: Instant, id: u64) {
        if id == 0 || self.listener_by_id(id).is_some() {
            return;
        }
        self.counters.strays += 1;
        let key = ListenerKey(self.new_key());
        self.listeners.insert(key, Listener::stray(now, id));
        self.settle_listener(key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use toe_abi::{Message, state};

    use super::super::mock_card::{ECHO_PORT, SILENT_PORT};
    use super::super::tests::Bench;
    use super::super::{ListenerState, Opening};

    #[test]
    fn a_connect_that_comes_after_its_release_leaves_nothing_on_the_card() {
        for answer_is_lost in [false, true] {
            let mut b = Bench::new(31, 0);
            let key = b.established(ECHO_PORT);
            let late = b.sent(|m| matches!(m, Message::Connect(_)));
            b.engine.close(b.now, key);
            b.until("released", |b| b.engine.connection(key).is_none());
            assert_eq!(b.card.connections(), 0);
            b.card.handle_frame(b.now, &late);
            assert_eq!(b.card.connections(), 1, "the card takes it for a new one");
            if answer_is_lost {
                while b.card.poll_transmit().is_some() {}
            }
            let since = b.now;
            b.until("nothing is left", |b| b.card.connections() == 0);
            assert!(b.now <= since + Duration::from_millis(100), "{:?}", b.now - since);
            b.until("nor here", |b| !b.engine.is_closing_any());
            assert_eq!(b.engine.counters().strays, 1);
        }
    }

    #[test]
    fn a_connection_whose_answer_is_still_to_come_is_not_taken_for_a_stray() {
        let mut b = Bench::new(32, 0);
        let waiting = b.connect(SILENT_PORT);
        b.until("answered", |b| b.engine.connection(waiting).is_some_and(|c| c.opening != Opening::Asked));
        // The first answer is lost, and what the card says of the connection is not.
        let key = b.connect(ECHO_PORT);
        b.lose_next(|m| matches!(m, Message::ConnectResult(_)));
        b.until("established", |b| b.engine.connection(key).is_some_and(|c| c.has(state::ESTABLISHED)));
        assert!(b.engine.connection(key).is_some_and(|c| c.broken().is_none()));
        assert_eq!((b.engine.counters().strays, b.card.connections()), (0, 2));
        assert!(b.engine.counters().messages_unknown_object > 0, "its state came first");
    }

    #[test]
    fn a_listen_that_comes_after_its_unlisten_leaves_nothing_on_the_card() {
        for answer_is_lost in [false, true] {
            let mut b = Bench::new(33, 0);
            let listener = b.listen(80, 4);
            b.until("listening", |b| b.engine.listener(listener).is_some_and(|l| l.state == ListenerState::Open));
            let late = b.sent(|m| matches!(m, Message::Listen(_)));
            b.engine.unlisten(b.now, listener);
            b.until("closed", |b| b.engine.listener(listener).is_none());
            b.card.handle_frame(b.now, &late);
            assert_eq!(b.card.listeners(), 1, "the card takes it for a new one");
            if answer_is_lost {
                while b.card.poll_transmit().is_some() {}
                // It shows itself with the first connection.
                b.connect(80);
            }
            b.until("nothing is left", |b| b.card.listeners() == 0);
            b.until("nor here", |b| b.engine.listeners.is_empty());
            assert_eq!(b.engine.counters().strays, 1);
        }
    }

    #[test]
    fn a_child_that_is_announced_before_the_answer_to_listen_is_not_reset() {
        let mut b = Bench::new(34, 0);
        let listener = b.listen(80, 4);
        b.lose_next(|m| matches!(m, Message::ListenResult(_)));
        b.until("the card listens", |b| b.card.listeners() == 1);
        let client = b.connect(80);
        b.until("accepted", |b| b.engine.accept(listener).is_some());
        assert!(b.engine.connection(client).is_some_and(|c| c.broken().is_none()));
        assert_eq!((b.engine.counters().strays, b.card.connections()), (0, 2));
    }
}

//! One listener of the card as the guest sees it.
//!
//! LISTEN is repeated until it is answered, UNLISTEN likewise. Connections that the card announced wait here until the
//! program accepts them; how many it has accepted is told as a count since the listener was opened, so that a
//! lost TAKEN is made good by the next. The card announces no more than `backlog` that were not taken.

use std::collections::VecDeque;
use std::time::Instant;

use toe_abi::{Action, Endpoint, Listen, ListenResult, Message, Reason, Taken, Unlisten, Writer, flags};

use super::ConnectionKey;
use super::connection::{REPEAT_FIRST, REPEAT_MAX};
use super::repeat::{Repeat, earliest};

/// What became of the LISTEN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ListenerState {
    /// No answer yet.
    Asked,
    /// The card listens.
    Open,
    /// The card does not.
    Refused { reason: u32, action: Action },
}

/// A listener; see the module.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) id: Option<u64>,
    pub(crate) state: ListenerState,
    listen: Listen,
    asking: Repeat,
    owes_listen: bool,
    announced: VecDeque<ConnectionKey>,
    taken: u64,
    owes_taken: bool,
    closing: Option<Repeat>,
    owes_unlisten: bool,
    pub(crate) finished: bool,
    pub(crate) queued: bool,
    pub(crate) timer: Option<Instant>,
}

/// What the program asks of a listener; see LISTEN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListenWish {
    pub(crate) backlog: u32,
    pub(crate) flags: u32,
    /// See `toe_abi::listen_policy`.
    pub(crate) policy: u32,
}

impl Listener {
    pub(crate) fn new(
        now: Instant,
        cookie: u64,
        local: Endpoint,
        wish: ListenWish,
        mtu: u32,
        receive_limit: u64,
    ) -> Self {
        let ListenWish { backlog, flags, policy } = wish;
        let mut asking = Repeat::new(REPEAT_FIRST, REPEAT_MAX);
        asking.start(now);
        Self {
            id: None,
            state: ListenerState::Asked,
            listen: Listen { cookie, local, backlog, flags: flags | flags::PATIENT, receive_limit, mtu, policy },
            asking,
            owes_listen: true,
            announced: VecDeque::new(),
            taken: 0,
            owes_taken: false,
            closing: None,
            owes_unlisten: false,
            finished: false,
            queued: false,
            timer: None,
        }
    }

    /// One that the card has and nobody here: on its way out.
    pub(crate) fn stray(now: Instant, id: u64) -> Self {
        let nowhere = Endpoint::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
        let wish = ListenWish { backlog: 0, flags: 0, policy: toe_abi::listen_policy::OF_CARD };
        let mut l = Self::new(now, 0, nowhere, wish, 0, 0);
        l.id = Some(id);
        l.state = ListenerState::Open;
        l.asking.stop();
        l.owes_listen = false;
        l.close(now);
        l
    }

    /// A connection was announced; `false` if the listener is being closed and nobody will accept it.
    pub(crate) fn announce(&mut self, key: ConnectionKey) -> bool {
        if self.closing.is_some() {
            return false;
        }
        self.announced.push_back(key);
        true
    }

    /// Whether a connection waits to be accepted.
    pub(crate) fn has_announced(&self) -> bool {
        !self.announced.is_empty()
    }

    pub(crate) fn take(&mut self) -> Option<ConnectionKey> {
        let key = self.announced.pop_front()?;
        self.taken += 1;
        self.owes_taken = true;
        Some(key)
    }

    /// Says TAKEN again, in case the last was lost.
    pub(crate) fn tell_taken(&mut self) {
        self.owes_taken = self.taken > 0 && self.id.is_some();
    }

    pub(crate) fn listen_result(&mut self, m: &ListenResult) {
        if !self.asking.is_running() {
            return;
        }
        self.asking.stop();
        self.owes_listen = false;
        if m.reason == Reason::None as u32 {
            self.id = Some(m.listener);
            self.state = ListenerState::Open;
            self.owes_unlisten = self.closing.is_some();
        } else {
            self.state = ListenerState::Refused { reason: m.reason, action: Action::from_u32(m.action) };
            self.finished = self.closing.is_some();
        }
    }

    /// The context was lost: opens it anew in the next. Gives the connections that were announced and not accepted.
    pub(crate) fn reopen(&mut self, now: Instant) -> Vec<ConnectionKey> {
        self.id = None;
        self.taken = 0;
        self.owes_taken = false;
        if self.closing.is_some() {
            self.finished = true;
        } else {
            self.state = ListenerState::Asked;
            self.asking.start(now);
            self.owes_listen = true;
        }
        self.announced.drain(..).collect()
    }

    /// Closes it. Gives the connections that were announced and not accepted.
    pub(crate) fn close(&mut self, now: Instant) -> Vec<ConnectionKey> {
        let mut repeat = Repeat::new(REPEAT_FIRST, REPEAT_MAX);
        repeat.start(now);
        self.closing = Some(repeat);
        self.owes_unlisten = true;
        self.finished = matches!(self.state, ListenerState::Refused { .. });
        self.announced.drain(..).collect()
    }

    pub(crate) fn unlistened(&mut self) {
        self.finished = self.closing.is_some();
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.owes_listen |= self.asking.expired(now);
        if let Some(repeat) = &mut self.closing
            && repeat.expired(now)
        {
            self.owes_unlisten = true;
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.asking.due(), self.closing.as_ref().and_then(Repeat::due))
    }

    pub(crate) fn wants_to_speak(&self) -> bool {
        self.owes_listen || (self.id.is_some() && (self.owes_taken || self.owes_unlisten))
    }

    /// Writes what there is to say; `false` if the frame is full.
    pub(crate) fn emit(&mut self, w: &mut Writer<'_>) -> bool {
        if self.owes_listen {
            if !w.push(&Message::Listen(self.listen)) {
                return false;
            }
            self.owes_listen = false;
        }
        let Some(listener) = self.id else {
            return true;
        };
        if self.owes_taken {
            if !w.push(&Message::Taken(Taken { listener, taken: self.taken })) {
                return false;
            }
            self.owes_taken = false;
        }
        if self.owes_unlisten {
            if !w.push(&Message::Unlisten(Unlisten { listener })) {
                return false;
            }
            self.owes_unlisten = false;
        }
        true
    }
}

//! Questions to the card that are answered once: options, INFO, LIMITS, STAT, SOCKETS.
//!
//! A question is repeated until its answer is there or its patience is at an end. Setting an option twice is
//! the same as once, so that this holds for it, too.

use std::time::{Duration, Instant};

use toe_abi::{
    GetOption, Info, InfoResult, Limits, LimitsResult, Message, SetOption, SocketEntry, Sockets, SocketsResult, Stat,
    StatResult, Writer, limit_entries, socket_entries, stat_entries,
};

use super::ConnectionKey;
use super::connection::{REPEAT_FIRST, REPEAT_MAX};
use super::repeat::{Repeat, earliest};

/// What can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Question {
    /// Sets (`Some`) or asks for an option of `toe_abi::option`.
    Option { connection: ConnectionKey, option: u32, set: Option<u64> },
    /// The connection's state.
    Info { connection: ConnectionKey },
    /// The pools from an index on.
    Limits { first: u32 },
    /// The counters from an index on.
    Stat { first: u32 },
    /// What has an address, from where the last answer ended.
    Sockets { after: u64 },
}

/// A pool of the card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitRow {
    /// The pool's name.
    pub name: String,
    /// What happens when it is full: `deny`, `fallback` or `evict`.
    pub policy: String,
    /// How many there are.
    pub capacity: u64,
    /// How many are in use.
    pub in_use: u64,
    /// The most that were ever in use at once.
    pub high_water: u64,
    /// How often the pool refused, by the reason's name. Reasons that never occurred are listed with zero.
    pub refusals: Vec<(String, u64)>,
}

/// A counter of the card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatRow {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: u64,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    Option {
        reason: u32,
        value: u64,
    },
    Info(Box<InfoResult>),
    Limits {
        first: u32,
        total: u32,
        rows: Vec<LimitRow>,
    },
    Stat {
        first: u32,
        total: u32,
        rows: Vec<StatRow>,
    },
    Sockets {
        next: u64,
        rows: Vec<SocketEntry>,
    },
    /// The card refused the question.
    Failed(u32),
    /// Nobody answered.
    Unanswered,
}

/// A question that waits for its answer, or for whoever asked to fetch it.
#[derive(Debug)]
pub(crate) struct Request {
    cookie: u64,
    question: Question,
    /// The card's id of the connection in question; zero if none.
    pub(crate) object: u64,
    repeat: Repeat,
    give_up: Instant,
    owes: bool,
    pub(crate) reply: Option<Reply>,
    /// Nobody waits for the answer.
    pub(crate) detached: bool,
    /// It can wait for something else to say.
    pub(crate) patient: bool,
    pub(crate) queued: bool,
    pub(crate) timer: Option<Instant>,
}

impl Request {
    /// Whether it sets that option.
    pub(crate) fn sets(&self, of: ConnectionKey, which: u32) -> bool {
        matches!(self.question, Question::Option { connection, option, set: Some(_) } if (connection, option) == (of, which))
    }

    /// The connection whose option it sets or asks for.
    pub(crate) fn option_of(&self) -> Option<ConnectionKey> {
        match self.question {
            Question::Option { connection, .. } => Some(connection),
            _ => None,
        }
    }

    pub(crate) fn new(now: Instant, cookie: u64, question: Question, patience: Duration) -> Self {
        let mut repeat = Repeat::new(REPEAT_FIRST, REPEAT_MAX);
        repeat.start(now);
        Self {
            cookie,
            question,
            object: 0,
            repeat,
            give_up: now + patience,
            owes: true,
            reply: None,
            detached: false,
            patient: false,
            queued: false,
            timer: None,
        }
    }

    pub(crate) fn answer(&mut self, reply: Reply) {
        self.reply = Some(reply);
        self.repeat.stop();
        self.owes = false;
    }

    pub(crate) fn fail(&mut self, reason: u32) {
        self.answer(Reply::Failed(reason));
    }

    /// Whether patience has come to its end.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.reply.is_some() {
            return false;
        }
        if now >= self.give_up {
            self.answer(Reply::Unanswered);
            return true;
        }
        self.owes |= self.repeat.expired(now);
        false
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.reply.is_none().then(|| earliest(self.repeat.due(), Some(self.give_up))).flatten()
    }

    pub(crate) fn wants_to_speak(&self) -> bool {
        self.owes
    }

    /// Writes the question; `false` if the frame is full.
    pub(crate) fn emit(&mut self, w: &mut Writer<'_>) -> bool {
        if !self.owes {
            return true;
        }
        let (cookie, object) = (self.cookie, self.object);
        let message = match self.question {
            Question::Option { option, set: Some(value), .. } => {
                Message::SetOption(SetOption { cookie, object, value, option })
            }
            Question::Option { option, set: None, .. } => Message::GetOption(GetOption { cookie, object, option }),
            Question::Info { .. } => Message::Info(Info { cookie, connection: object }),
            Question::Limits { first } => Message::Limits(Limits { cookie, first }),
            Question::Stat { first } => Message::Stat(Stat { cookie, first }),
            Question::Sockets { after } => Message::Sockets(Sockets { cookie, after }),
        };
        self.owes = !w.push(&message);
        self.patient &= self.owes;
        !self.owes
    }
}

pub(crate) fn limits_reply(m: &LimitsResult, tail: &[u8]) -> Reply {
    let rows = limit_entries(tail)
        .map(|e| LimitRow {
            name: e.name.to_owned(),
            policy: e.policy.to_owned(),
            capacity: e.capacity,
            in_use: e.in_use,
            high_water: e.high_water,
            refusals: e
                .refusals
                .into_iter()
                .filter(|(reason, _)| *reason != 0)
                .map(|(reason, count)| (crate::error::reason_name(reason), count))
                .collect(),
        })
        .collect();
    Reply::Limits { first: m.first, total: m.total, rows }
}

pub(crate) fn stat_reply(m: &StatResult, tail: &[u8]) -> Reply {
    let rows = stat_entries(tail).map(|e| StatRow { name: e.name.to_owned(), value: e.value }).collect();
    Reply::Stat { first: m.first, total: m.total, rows }
}

pub(crate) fn sockets_reply(m: &SocketsResult, tail: &[u8]) -> Reply {
    Reply::Sockets { next: m.next, rows: socket_entries(tail).collect() }
}

//! The supervisor: one thread that answers the calls of its programs and moves their bytes.
//!
//! It waits for four things at once: calls (the notification's descriptor), the card, whose frames it takes itself ([`Driver`]), what
//! its workers have found out (told by a [`Watch`], as is what the frames changed), and its ends of the ways to the programs. Whatever may wait for somebody else (a
//! neighbour's address, the card's answer to a question) is done by workers, so that no program waits for another's call.
//!
//! Sockets are known by their cookie, which the kernel gives to a socket once and never again; so a socket that was
//! duplicated, inherited or sent is still the same, and a number that was used again is not.
//!
//! *The connections are never held by a descriptor of the program's socket*, or nobody could close it. While a call waits
//! it is held; otherwise the other end of the way, and sock_diag, tell what became of it.

mod accept;
mod calls;
mod connect;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use toe_abi::Endpoint;

use super::counters::Counters;
use super::descriptor;
use super::diag::{Diag, Held};
use super::leg::Meeting;
use super::line::{CHUNK_BYTES, Leg, Line, Turn};
use super::notify::{Answered, Call, Listener};
use super::policy::{Direction, Policy, Subject};
use super::target::{self, Process, Targets};
use super::workers::{Finding, Workers};
use crate::context::{Context, Driver, Told, Watch};
use crate::fallback::FallbackReason;
use crate::route::Kernel;
use crate::surroundings::Surroundings;

const NOTIFICATIONS: u64 = 0;
const WATCH: u64 = 1;
/// Told by the watch: a worker has found something out.
pub(super) const FINDINGS: u64 = 2;
const FIRST_TOKEN: u64 = 16;

/// How often calls that wait are looked after, and connections that break.
const SHORT_ROUND: Duration = Duration::from_millis(50);
/// How often it is looked whether sockets without a word are still there.
const LONG_ROUND: Duration = Duration::from_secs(1);
/// So often what was done is looked at for what it brought about, before anything else is waited for.
const ROUNDS_MAX: usize = 8;
/// So many sockets whose connection is over are remembered, for programs that ask for their names.
const ENDED_MAX: usize = 4096;
/// How long connections have, after the last program, to get rid of their data.
const FAREWELL: Duration = Duration::from_secs(5);
/// What arrived before a connection broke waits so long for its program.
const BREAKING_MAX: Duration = Duration::from_secs(5);

/// What is known of a program's socket.
#[derive(Clone, Debug)]
enum Known {
    /// A connection of the card, or one that is to be.
    Connection(u64),
    /// A listener that the card has, too.
    Listener(u64),
    /// Its connection is over; the errno that it has not been told.
    Ended { local: Endpoint, error: Option<i32> },
    /// Not for the card, for this reason.
    Unsuitable(&'static str),
}

/// Which sockets may have options that matter to the card. Who sets one is told of ([`super::filter`]); what is not in here has them as they
/// are from the start.
#[derive(Debug)]
enum Options {
    SetBy(HashSet<u64>),
    /// Of too many, or of sockets that are older than the filter: all are asked.
    Unknown,
}

/// So many sockets with options are remembered one by one.
const WITH_OPTIONS_MAX: usize = 65_536;

impl Options {
    fn set_by(&mut self, cookie: u64) {
        if let Self::SetBy(cookies) = self {
            cookies.insert(cookie);
            if cookies.len() > WITH_OPTIONS_MAX {
                *self = Self::Unknown;
            }
        }
    }

    fn may_be_set(&self, cookie: u64) -> bool {
        match self {
            Self::SetBy(cookies) => cookies.contains(&cookie),
            Self::Unknown => true,
        }
    }
}

/// A call whose answer must wait, and the program's socket.
#[derive(Debug)]
struct Waiting {
    call: Call,
    socket: OwnedFd,
}

#[derive(Debug)]
struct Connection {
    line: Line,
    cookie: Option<u64>,
    phase: Phase,
}

/// What a connection is doing.
#[derive(Debug)]
enum Phase {
    /// The card was asked; the program waits for its `connect`.
    Asked { opening: connect::Opening, waiting: Waiting },
    /// The card's handshake; the program's socket waits at the meeting.
    Handshake { opening: connect::Opening, waiting: Option<Waiting>, program: SocketAddr },
    /// The leg's handshake; `failure` is the errno if there is no connection to be had.
    Joining { leg: Leg, waiting: Option<Waiting>, failure: Option<i32> },
    /// Bytes.
    Open { leg: Leg },
    /// It broke, and what arrived is not with the program yet.
    Breaking { leg: Leg, since: Instant },
}

/// See the module.
pub(super) struct Supervisor {
    notify: Listener,
    epoll: OwnedFd,
    watch: Arc<Watch>,
    /// The contexts that are in use.
    drivers: Vec<Driver>,
    surroundings: Arc<Kernel>,
    workers: Workers,
    targets: Targets,
    meeting: Meeting,
    diag: Diag,
    policy: Policy,
    default_congestion: Option<String>,
    /// The network namespace that the card's interface and the ways to programs are in.
    namespace: io::Result<u64>,
    counters: Counters,
    connections: HashMap<u64, Connection>,
    listeners: HashMap<u64, accept::CardListener>,
    /// Calls of `connect` that wait for a worker.
    routing: HashMap<u64, connect::Routing>,
    /// Calls of `listen` that wait for a worker.
    opening_listeners: HashMap<u64, accept::OpeningListener>,
    /// Calls of `getsockopt` that wait for a worker.
    asking: HashMap<u64, calls::Asking>,
    /// Calls of `accept` that wait for a connection.
    accepting: HashMap<u64, accept::Accepting>,
    sockets: HashMap<u64, Known>,
    options: Options,
    ended: VecDeque<u64>,
    /// Connections in the queue of a listener, by the address that they come from.
    arriving: HashMap<SocketAddr, u64>,
    runnable: VecDeque<u64>,
    next_token: u64,
    scratch: Vec<u8>,
    /// When it last came back from waiting.
    now: Instant,
    /// The programs are all gone.
    over: bool,
}

impl Supervisor {
    /// `inherits`: the program may have TCP sockets from before.
    pub(super) fn new(notify: Listener, surroundings: Arc<Kernel>, policy: Policy, inherits: bool) -> io::Result<Self> {
        let watch = Arc::new(Watch::new()?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let add =
            |fd: BorrowedFd<'_>, token| epoll::add(&epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN);
        add(notify.as_fd(), NOTIFICATIONS)?;
        add(watch.as_fd(), WATCH)?;
        let default = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").ok();
        let default_congestion = default.map(|name| name.trim().to_owned());
        let meeting = Meeting::new()?;
        let namespace = descriptor::namespace(meeting.as_fd());
        // A controller that the card does not have is an option that every socket has.
        let is_beyond = default_congestion.as_ref().is_some_and(|name| descriptor::controller(name).is_none());
        Ok(Self {
            notify,
            epoll,
            workers: Workers::new(watch.clone())?,
            watch,
            drivers: Vec::new(),
            surroundings,
            targets: Targets::default(),
            meeting,
            diag: Diag::new()?,
            policy,
            default_congestion,
            namespace,
            counters: Counters::default(),
            connections: HashMap::new(),
            listeners: HashMap::new(),
            routing: HashMap::new(),
            opening_listeners: HashMap::new(),
            asking: HashMap::new(),
            accepting: HashMap::new(),
            sockets: HashMap::new(),
            options: if inherits || is_beyond { Options::Unknown } else { Options::SetBy(HashSet::new()) },
            ended: VecDeque::new(),
            arriving: HashMap::new(),
            runnable: VecDeque::new(),
            next_token: FIRST_TOKEN,
            scratch: vec![0; CHUNK_BYTES],
            now: Instant::now(),
            over: false,
        })
    }

    /// What it has done so far.
    pub(super) fn report(&self) -> serde_json::Value {
        self.counters.json(self.connections.len())
    }

    /// What wakes it, from another thread.
    pub(super) fn waker(&self) -> impl Fn() + Send + 'static {
        let watch = self.watch.clone();
        move || watch.tell(FINDINGS)
    }

    /// Whether every program under the filter is gone.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// When it last came back from waiting.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Works until `enough` says so, which is asked at least every [`LONG_ROUND`].
    ///
    /// # Errors
    /// If it cannot wait.
    pub(super) fn run(&mut self, mut enough: impl FnMut(&Self) -> bool) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        let (mut short_due, mut long_due) = (self.now, self.now);
        while !enough(self) {
            let timeout = self.rest()?;
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            self.now = Instant::now();
            let told = |token| events.iter().any(|e: &epoll::Event| e.data.u64() == token);
            for driver in &mut self.drivers {
                driver.woken(told(driver.token(Told::Word)));
                driver.turn(told(driver.token(Told::Frames)), self.now);
            }
            for event in events.drain(..) {
                let flags = event.flags;
                self.handle_event(event.data.u64(), flags);
            }
            // What that changed on the card's side changes more, seldom more than once.
            for _ in 0..ROUNDS_MAX {
                self.take_news();
                for _ in 0..self.runnable.len() {
                    if let Some(token) = self.runnable.pop_front() {
                        self.progress(token);
                    }
                }
                if self.is_at_rest() {
                    break;
                }
            }
            if self.now >= short_due {
                short_due = self.now + SHORT_ROUND;
                self.short_round(self.now);
            }
            if self.now >= long_due {
                long_due = self.now + LONG_ROUND;
                self.long_round();
            }
        }
        Ok(())
    }

    /// Whether there is nothing to do before something happens. If so, the watch rings when it does.
    fn is_at_rest(&self) -> bool {
        self.runnable.is_empty() && self.watch.rest()
    }

    /// How long it may be waited now.
    fn rest(&mut self) -> io::Result<Timespec> {
        let mut wait = Duration::ZERO;
        if self.is_at_rest() {
            wait = if self.is_anybody_looked_after() { SHORT_ROUND } else { LONG_ROUND };
            for driver in &mut self.drivers {
                let due = driver.rest(self.epoll.as_fd(), self.now)?;
                wait = wait.min(due.saturating_duration_since(self.now));
            }
        }
        Ok(Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?)
    }

    /// A context is in use from here on: its frames are taken by this thread.
    fn drive(&mut self, context: &Context) {
        if self.drivers.iter().any(|d| d.drives(context)) {
            return;
        }
        let tokens = (self.new_token(), self.new_token());
        match Driver::new(context, self.epoll.as_fd(), tokens) {
            Ok(driver) => self.drivers.extend(driver),
            // Its own thread goes on.
            Err(e) => log::warn!("the card's frames take the longer way: {e}"),
        }
    }

    /// Closes the listeners, and gives what is left time to reach the card.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) fn farewell(&mut self) -> io::Result<()> {
        self.listeners.clear();
        let deadline = Instant::now() + FAREWELL;
        self.run(|s| s.connections.is_empty() || Instant::now() > deadline)
    }

    fn new_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn is_anybody_looked_after(&self) -> bool {
        !self.accepting.is_empty()
            || self.connections.values().any(|c| match &c.phase {
                Phase::Asked { .. } | Phase::Breaking { .. } => true,
                Phase::Handshake { waiting, .. } | Phase::Joining { waiting, .. } => waiting.is_some(),
                Phase::Open { .. } => false,
            })
    }

    fn handle_event(&mut self, token: u64, flags: epoll::EventFlags) {
        match token {
            NOTIFICATIONS => {
                if flags.contains(epoll::EventFlags::IN) {
                    match self.notify.receive() {
                        Ok(Some(call)) => self.handle_call(&call),
                        Ok(None) => {}
                        Err(e) => log::error!("cannot receive a call: {e}"),
                    }
                } else if flags.contains(epoll::EventFlags::HUP) {
                    self.over = true;
                    // It would say so for ever. An error: it is out already.
                    let _ = epoll::delete(&self.epoll, self.notify.as_fd());
                }
            }
            // It is asked in any case.
            WATCH => {}
            token if self.accepting.contains_key(&token) => self.retry_accept(token),
            token => {
                let has = |any: epoll::EventFlags| flags.intersects(any);
                let gone = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
                if let Some(connection) = self.connections.get_mut(&token) {
                    match &mut connection.phase {
                        Phase::Open { leg } | Phase::Breaking { leg, .. } => leg.polled(flags),
                        Phase::Joining { leg, .. } if has(epoll::EventFlags::OUT | gone) => {
                            leg.polled(flags);
                            self.joined(token);
                            return;
                        }
                        _ => {}
                    }
                    self.progress(token);
                }
            }
        }
    }

    /// Deals with what the watch was told.
    fn take_news(&mut self) {
        for token in self.watch.take() {
            match token {
                FINDINGS => {
                    for (token, finding) in self.workers.take() {
                        self.handle_finding(token, finding);
                    }
                }
                token if self.listeners.contains_key(&token) => self.take_announced(token),
                token => self.progress(token),
            }
        }
    }

    fn handle_finding(&mut self, token: u64, finding: Finding) {
        match finding {
            Finding::Route(route) => self.routed(token, route),
            Finding::Listening(result) => self.listening(token, result),
            Finding::Answer(answer) => self.answered(token, answer),
        }
    }

    /// Goes on with a connection as far as it goes.
    fn progress(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        match &mut connection.phase {
            Phase::Asked { .. } => self.progress_asked(token),
            Phase::Handshake { .. } => self.progress_handshake(token),
            Phase::Joining { .. } => {}
            Phase::Open { leg } | Phase::Breaking { leg, .. } => {
                match connection.line.turn(leg, &mut self.scratch, &self.diag, &mut self.counters, self.now) {
                    Turn::Idle => {}
                    Turn::More => self.runnable.push_back(token),
                    Turn::Over => self.remove(token),
                    Turn::Breaking => {
                        if let Some(Connection { phase, line, cookie }) = self.connections.remove(&token) {
                            let phase = match phase {
                                Phase::Open { leg } => Phase::Breaking { leg, since: self.now },
                                other => other,
                            };
                            self.connections.insert(token, Connection { line, cookie, phase });
                        }
                    }
                }
            }
        }
    }

    /// A connection is over, whatever its program still has.
    fn remove(&mut self, token: u64) {
        let Some(connection) = self.connections.remove(&token) else {
            return;
        };
        self.arriving.retain(|_, t| *t != token);
        if let Some(cookie) = connection.cookie {
            self.end_socket(cookie, connection.line.local, None);
        }
    }

    fn end_socket(&mut self, cookie: u64, local: Endpoint, error: Option<i32>) {
        self.sockets.insert(cookie, Known::Ended { local, error });
        self.ended.push_back(cookie);
        if self.ended.len() > ENDED_MAX
            && let Some(oldest) = self.ended.pop_front()
            && matches!(self.sockets.get(&oldest), Some(Known::Ended { .. }))
        {
            self.sockets.remove(&oldest);
        }
    }

    fn watch_leg(&self, leg: &Leg, token: u64) -> io::Result<()> {
        use epoll::EventFlags as E;
        let flags = E::IN | E::OUT | E::PRI | E::RDHUP | E::ET;
        Ok(epoll::add(&self.epoll, leg.socket.as_fd(), epoll::EventData::new_u64(token), flags)?)
    }

    /// Calls that nobody waits for any more, and connections that break.
    fn short_round(&mut self, now: Instant) {
        let valid = |call: &Call| self.notify.is_valid(call.id);
        let gone: Vec<_> = self.accepting.iter().filter(|(_, a)| !valid(a.call())).map(|(token, _)| *token).collect();
        for token in gone {
            self.counters.calls_gone += 1;
            if let Some(accepting) = self.accepting.remove(&token) {
                self.watch_no_more(&accepting);
            }
        }
        self.accept_returned();
        self.accept_timeouts(now);
        let mut to_do = Vec::new();
        for (token, connection) in &mut self.connections {
            match &mut connection.phase {
                Phase::Asked { .. } => to_do.push(*token),
                Phase::Handshake { waiting, .. } | Phase::Joining { waiting, .. } => {
                    if waiting.as_ref().is_some_and(|w| !self.notify.is_valid(w.call.id)) {
                        // A signal; the connection goes on, as the kernel's would.
                        self.counters.calls_gone += 1;
                        *waiting = None;
                    }
                }
                Phase::Breaking { since, .. } if now > *since + BREAKING_MAX => {
                    connection.line.abort(now);
                    to_do.push(*token);
                }
                Phase::Breaking { .. } => to_do.push(*token),
                Phase::Open { .. } => {}
            }
        }
        for token in to_do {
            self.progress(token);
        }
        self.connect_timeouts(now);
    }

    /// Sockets that may have gone without a word.
    fn long_round(&mut self) {
        let mut orphans = Vec::new();
        for (token, connection) in &mut self.connections {
            match &mut connection.phase {
                Phase::Handshake { waiting: None, program, .. } => {
                    let meeting = self.meeting.address(program.is_ipv6());
                    if meeting.is_some_and(|meeting| self.diag.connection(*program, meeting) == Held::No) {
                        orphans.push(*token);
                    }
                }
                Phase::Open { leg } if leg.is_half_closed() => {
                    connection.line.program_ended(leg, &self.diag, self.now);
                }
                _ => {}
            }
        }
        for token in orphans {
            self.counters.orphans += 1;
            self.remove(token);
        }
        self.look_after_listeners();
        let half_closed = |c: &Connection| matches!(&c.phase, Phase::Open { leg } if leg.is_half_closed());
        let tokens: Vec<_> = self.connections.iter().filter(|(_, c)| half_closed(c)).map(|(t, _)| *t).collect();
        tokens.into_iter().for_each(|token| self.progress(token));
    }

    // ---- the program ----

    /// The process of a call, and what its first argument, a descriptor, is. If that cannot be had the kernel answers
    /// the call.
    fn caller(&mut self, call: &Call) -> Option<(std::rc::Rc<Process>, OwnedFd)> {
        for _ in 0..2 {
            let Ok(process) = self.targets.process(call.thread) else { break };
            match process.descriptor(call.int(0)) {
                Ok(fd) => return Some((process, fd)),
                Err(e) => match e.raw_os_error() {
                    // The process that the thread was known by is gone.
                    Some(libc::ESRCH) => self.targets.forget(call.thread),
                    Some(libc::EPERM) => {
                        self.counters.kernel("not-permitted");
                        break;
                    }
                    _ => break,
                },
            }
        }
        self.proceed(call);
        None
    }

    fn note(&mut self, answered: Answered) -> bool {
        if answered == Answered::Gone {
            self.counters.calls_gone += 1;
        }
        answered == Answered::Yes
    }

    fn proceed(&mut self, call: &Call) -> bool {
        let answered = self.notify.proceed(call.id);
        self.note(answered)
    }

    fn fail(&mut self, call: &Call, errno: i32) -> bool {
        let answered = self.notify.fail(call.id, errno);
        self.note(answered)
    }

    fn give(&mut self, call: &Call, value: i64) -> bool {
        let answered = self.notify.give(call.id, value);
        self.note(answered)
    }

    /// Reads the program's memory, once. If that cannot be, the call has its answer.
    fn read(&mut self, call: &Call, address: u64, bytes: usize) -> Option<Vec<u8>> {
        let mut into = vec![0; bytes];
        match target::read(call.thread, address, &mut into) {
            // Only now is it known that the thread was the one that called.
            Ok(()) if self.notify.is_valid(call.id) => Some(into),
            Ok(()) => {
                self.counters.calls_gone += 1;
                None
            }
            Err(errno) => {
                self.fail(call, if errno == libc::EPERM { libc::EFAULT } else { errno });
                None
            }
        }
    }

    /// Writes as much of `bytes` as the program has room for, and says how many there are, as getsockname(2) does.
    /// The errno if that cannot be.
    fn write_sized(&mut self, call: &Call, at: u64, length_at: u64, bytes: &[u8]) -> Result<(), i32> {
        let mut length = [0; 4];
        target::read(call.thread, length_at, &mut length)?;
        let room = usize::try_from(i32::from_ne_bytes(length)).map_err(|_| libc::EINVAL)?;
        if !self.notify.is_valid(call.id) {
            return Err(libc::EINTR);
        }
        target::write(call.thread, at, &bytes[..room.min(bytes.len())])?;
        target::write(call.thread, length_at, &(bytes.len() as u32).to_ne_bytes())
    }

    /// Whether what a call asks for may be the card's. If not, the reason is counted.
    fn is_for_card(&mut self, fd: BorrowedFd<'_>, cookie: u64, subject: &Subject) -> bool {
        let address = subject.address;
        // A listener on no address in particular is reached from everywhere; nobody but this machine is reached there.
        let is_local = address.is_loopback() || (address.is_unspecified() && subject.direction == Direction::Connect);
        let known = match self.sockets.get(&cookie) {
            Some(Known::Unsuitable(reason)) => Some(*reason),
            _ => None,
        };
        let reason = if let Some(reason) = known {
            reason.to_owned()
        } else if is_local {
            FallbackReason::Local.to_string()
        } else if self.is_elsewhere(fd) {
            "other-namespace".to_owned()
        } else if let Some(reason) = self.policy.refuses(subject) {
            reason
        } else if self.options.may_be_set(cookie)
            && let Some(reason) = descriptor::unsuitable(fd)
        {
            reason.to_owned()
        } else {
            return true;
        };
        self.counters.kernel(&reason);
        false
    }

    /// Whether the socket is of another network namespace: neither the card's interface nor the supervisor can be reached there.
    fn is_elsewhere(&self, fd: BorrowedFd<'_>) -> bool {
        match (&self.namespace, descriptor::namespace(fd)) {
            (Ok(ours), Ok(its)) => *ours != its,
            // A kernel that does not say.
            _ => false,
        }
    }

    fn surroundings(&self) -> Arc<dyn Surroundings> {
        self.surroundings.clone()
    }
}

//! A context at work: one engine, one transport, one background thread.
//!
//! A program's thread that has something to send sends it itself, and one that waits receives frames itself, if nobody
//! else does: [`crate::turn`] has who looks. Otherwise it waits on the condition variable of its connection; a program that
//! polls uses the descriptor of [`crate::readiness`], which is made when it is first asked for. All of it happens under one
//! lock per context, held for the time of a copy or a system call that does not wait.
//!
//! A thread that waits for other things as well can do the background thread's work itself ([`Driver`]).
//!
//! *Closing.* The last handle of a context waits for [`LINGER`] that connections which were dropped get rid of their
//! data, says BYE and ends the thread.

mod driver;
mod waker;

use std::io::{self, ErrorKind, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use toe_abi::{Action, Endpoint, FRAME_BYTES_MAX, InfoResult, Mac, ResourceEvent, SocketEntry};

use crate::engine::map::Map;
use crate::engine::{
    Buffers, Change, ChannelCounters, Config, Connection, ConnectionKey, Engine, LimitRow, ListenWish, ListenerKey,
    ListenerState, Process, Question, Reply, StatRow,
};
use crate::error::CardError;
use crate::fallback::FallbackReason;
use crate::readiness::Readiness;
use crate::surroundings::Reservation;
use crate::transport::Transport;
use crate::turn::{Sleeper, Turn, Waiting};

pub(crate) use driver::{Driver, Told};
pub(crate) use waker::{Waker, Watch};

/// How long HELLO is repeated before a card is taken for absent.
pub(crate) const HELLO_PATIENCE: Duration = Duration::from_secs(2);
/// How long a dropped stream, and a dropped context, wait for data to reach the card.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// How long the answer to a question is waited for.
const QUESTION_PATIENCE: Duration = Duration::from_secs(2);
/// How often the guest's addresses are looked at while something listens.
const ADDRESSES_INTERVAL: Duration = Duration::from_secs(1);
/// The lease that is asked for.
const LEASE: Duration = Duration::from_secs(10);
/// Frames taken from the transport before what they ask for is answered.
const BATCH: usize = 32;
/// Frames handed to the transport at once.
const SEND_BATCH: usize = 16;
/// Far more pages of LIMITS or STAT than any card has.
const PAGES_MAX: u32 = 1_000;

/// What a context needs to know of the world beside the card.
pub trait Neighbourhood: Send + Sync + std::fmt::Debug {
    /// Our own unicast addresses on the context's interface.
    fn addresses(&self) -> Vec<IpAddr>;

    /// The least MTU that routes by the context's interface have of their own, in bytes, for a listener at `local`; `None` if
    /// none has one.
    fn route_mtu(&self, local: IpAddr) -> Option<u32> {
        let _ = local;
        None
    }

    /// A frame arrived that is not of this context.
    fn foreign_frame(&self, frame: &[u8]);

    /// A peer has been silent for long, and perhaps its next hop is gone: asks for it anew, and gives the one that is
    /// known now, if any is. Does not wait for the answer; it is called again while the silence lasts.
    fn renew_next_hop(&self, remote: IpAddr) -> Option<Mac>;
}

pub(crate) struct Core {
    pub(crate) engine: Engine,
    wakers: Map<ConnectionKey, Arc<Waker>>,
    listener_wakers: Map<ListenerKey, Arc<Waker>>,
    reservations: Map<ConnectionKey, Reservation>,
    outbox: Outbox,
    /// Until when whoever looks sleeps; `None` while nobody does.
    sleeps_until: Option<Instant>,
    /// The sleep was cut short, and the descriptor that did it is yet to be emptied.
    woken: bool,
    pub(crate) turn: Turn,
    /// Connections whose next hop is to be renewed.
    advised: Vec<ConnectionKey>,
    frames_lost: u64,
    pub(crate) stop: bool,
}

/// Frames on their way to the transport, each in a place of its own.
struct Outbox {
    bytes: Vec<u8>,
    place_bytes: usize,
    /// Of the frames; those before `next` are sent.
    lengths: Vec<usize>,
    next: usize,
}

impl Outbox {
    fn new(frame_bytes_max: usize) -> Self {
        let place_bytes = frame_bytes_max.min(FRAME_BYTES_MAX);
        Self { bytes: vec![0; SEND_BATCH * place_bytes], place_bytes, lengths: Vec::new(), next: 0 }
    }

    fn is_empty(&self) -> bool {
        self.next == self.lengths.len()
    }

    /// Takes what the engine has to say, when all was sent.
    fn fill(&mut self, engine: &mut Engine) {
        self.lengths.clear();
        self.next = 0;
        for place in self.bytes.chunks_exact_mut(self.place_bytes) {
            let Some(bytes) = engine.poll_transmit(place) else { break };
            self.lengths.push(bytes);
        }
    }

    fn send(&self, transport: &dyn Transport) -> io::Result<usize> {
        let places = self.bytes.chunks_exact(self.place_bytes).zip(&self.lengths).skip(self.next);
        let mut frames = [IoSlice::new(&[]); SEND_BATCH];
        let mut count = 0;
        for (frame, (place, bytes)) in frames.iter_mut().zip(places) {
            *frame = IoSlice::new(&place[..*bytes]);
            count += 1;
        }
        transport.send_many(&frames[..count])
    }
}

/// What the thread that does a context's work has for itself.
#[derive(Debug)]
struct Round {
    addresses_due: Instant,
}

impl Round {
    fn new() -> Self {
        Self { addresses_due: Instant::now() }
    }
}

pub(crate) struct Inner {
    core: Mutex<Core>,
    /// CAPS, answers, and connections that are forgotten.
    pub(crate) general: Condvar,
    /// The background thread, while others look.
    pub(crate) background: Condvar,
    /// A [`Driver`] waits until nobody looks.
    pub(crate) aside: Condvar,
    /// Frames that were received; of whoever looks.
    inbox: Mutex<Vec<Vec<u8>>>,
    /// The last batch was full: there may be more.
    more: AtomicBool,
    transport: Arc<dyn Transport>,
    neighbourhood: Arc<dyn Neighbourhood>,
    wake: OwnedFd,
}

struct Handle {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

/// A context on a card. Clones are the same context; see the module for what happens when the last one goes.
#[derive(Clone)]
pub struct Context {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("transport", &self.handle.inner.transport).finish_non_exhaustive()
    }
}

/// A random key for a context, from the operating system.
///
/// # Errors
/// If the operating system has no random numbers.
pub fn random_key() -> io::Result<u128> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u128::from_le_bytes(bytes))
}

impl Context {
    /// Opens a context over `transport` and waits until the card has answered. `key` is the one that the transport
    /// filters on, if it does.
    ///
    /// # Errors
    /// [`FallbackReason::NoCard`] if nobody answers within two seconds, the card's reason if it refuses, and
    /// [`FallbackReason::System`] if there is no thread to be had.
    pub fn open(
        transport: Arc<dyn Transport>,
        key: u128,
        buffers: Buffers,
        neighbourhood: Arc<dyn Neighbourhood>,
    ) -> Result<Self, FallbackReason> {
        let context = Self::begin(transport, key, buffers, neighbourhood)?;
        context.ready(HELLO_PATIENCE)?;
        Ok(context)
    }

    /// The same without the wait: the card is asked.
    pub(crate) fn begin(
        transport: Arc<dyn Transport>,
        key: u128,
        buffers: Buffers,
        neighbourhood: Arc<dyn Neighbourhood>,
    ) -> Result<Self, FallbackReason> {
        let config = Config {
            key,
            mac: transport.mac(),
            frame_bytes_max: transport.frame_bytes_max(),
            receive_bytes_max: transport.receive_bytes_max(),
            lease: LEASE,
            buffers,
            process: Some(Process::this()),
        };
        let mut engine = Engine::new(Instant::now(), config);
        engine.share(transport.rings());
        let core = Core {
            engine,
            wakers: Map::default(),
            listener_wakers: Map::default(),
            reservations: Map::default(),
            outbox: Outbox::new(transport.frame_bytes_max()),
            sleeps_until: None,
            woken: false,
            turn: Turn::default(),
            advised: Vec::new(),
            frames_lost: 0,
            stop: false,
        };
        let system = |what: &str, e: io::Error| {
            log::error!("{what}: {e}");
            FallbackReason::System
        };
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let wake = rustix::event::eventfd(0, flags).map_err(|e| system("cannot make an eventfd", e.into()))?;
        let inner = Arc::new(Inner {
            core: Mutex::new(core),
            general: Condvar::new(),
            background: Condvar::new(),
            aside: Condvar::new(),
            inbox: Mutex::new(vec![vec![0; FRAME_BYTES_MAX]; BATCH]),
            more: AtomicBool::new(false),
            transport,
            neighbourhood,
            wake,
        });
        let thread = std::thread::Builder::new()
            .name("toe-context".into())
            .spawn({
                let inner = inner.clone();
                move || inner.run()
            })
            .map_err(|e| system("cannot start the background thread", e))?;
        Ok(Self { handle: Arc::new(Handle { inner, thread: Some(thread) }) })
    }

    /// Waits until the card knows the context, but no longer than `patience` since that was last so.
    pub(crate) fn ready(&self, patience: Duration) -> Result<(), FallbackReason> {
        let mut waiting = Waiting::new(&self.handle.inner, Sleeper::General);
        loop {
            let engine = &waiting.core().engine;
            if let Some((reason, denied)) = engine.hello_refused() {
                return Err(if denied { FallbackReason::Denied(reason) } else { FallbackReason::Card(reason) });
            }
            let Some(since) = engine.unanswered_since() else {
                return Ok(());
            };
            if !waiting.pause(Some(since + patience)) {
                return Err(FallbackReason::NoCard);
            }
        }
    }

    /// The MTU of the interface, in bytes.
    pub fn mtu(&self) -> u32 {
        self.handle.inner.transport.mtu()
    }

    /// What was counted on this side of the channel.
    pub fn counters(&self) -> ChannelCounters {
        self.handle.inner.lock().engine.counters()
    }

    /// What the card has said of its pools since this was last asked: that one is nearly full, full, or well below again.
    /// Each was said once, and may have been lost on its way: [`Context::limits`] has what is true.
    pub fn resource_events(&self) -> Vec<ResourceEvent> {
        self.handle.inner.lock().engine.take_resource_events()
    }

    /// Frames that the transport could not send.
    pub fn frames_lost(&self) -> u64 {
        self.handle.inner.lock().frames_lost
    }

    /// Every pool of the card.
    ///
    /// # Errors
    /// [`CardError`]: the card does not answer, or refuses.
    pub fn limits(&self) -> io::Result<Vec<LimitRow>> {
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let first = all.len() as u32;
            match self.ask(Question::Limits { first })? {
                Reply::Limits { first: f, total, rows } if f == first && !rows.is_empty() => {
                    all.extend(rows);
                    if all.len() as u32 >= total {
                        return Ok(all);
                    }
                }
                Reply::Limits { total: 0, .. } => return Ok(all),
                _ => break,
            }
        }
        Err(io::Error::new(ErrorKind::InvalidData, "the card's list of limits makes no sense"))
    }

    /// Every counter of the card.
    ///
    /// # Errors
    /// As [`Context::limits`].
    pub fn stat(&self) -> io::Result<Vec<StatRow>> {
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let first = all.len() as u32;
            match self.ask(Question::Stat { first })? {
                Reply::Stat { first: f, total, rows } if f == first && !rows.is_empty() => {
                    all.extend(rows);
                    if all.len() as u32 >= total {
                        return Ok(all);
                    }
                }
                Reply::Stat { total: 0, .. } => return Ok(all),
                _ => break,
            }
        }
        Err(io::Error::new(ErrorKind::InvalidData, "the card's list of counters makes no sense"))
    }

    /// Everything on the card that has an address: listeners, connections, half-open and TIME-WAIT entries of all
    /// processes of this guest.
    ///
    /// # Errors
    /// As [`Context::limits`].
    pub fn sockets(&self) -> io::Result<Vec<SocketEntry>> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            match self.ask(Question::Sockets { after })? {
                // It only goes on: a card that says otherwise would be asked for ever.
                Reply::Sockets { next, rows } if next == 0 || next > after => {
                    all.extend(rows);
                    if next == 0 {
                        return Ok(all);
                    }
                    after = next;
                }
                _ => break,
            }
        }
        Err(io::Error::new(ErrorKind::InvalidData, "the card's list of connections makes no sense"))
    }

    /// Waits until every stream that was dropped has handed its data to the card, at most for `patience`; whether
    /// that came to pass. A process that drops non-blocking streams calls this before it ends.
    pub fn drain(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut waiting = Waiting::new(&self.handle.inner, Sleeper::General);
        while waiting.core().engine.is_closing_any() {
            if !waiting.pause(Some(deadline)) {
                return false;
            }
        }
        true
    }

    pub(crate) fn info(&self, connection: ConnectionKey) -> io::Result<InfoResult> {
        match self.ask(Question::Info { connection })? {
            Reply::Info(info) => Ok(*info),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "the card answered another question")),
        }
    }

    /// Sets (`Some`) or asks for an option of `toe_abi::option`; the value that holds now.
    pub(crate) fn option(&self, connection: ConnectionKey, option: u32, set: Option<u64>) -> io::Result<u64> {
        match self.ask(Question::Option { connection, option, set })? {
            Reply::Option { reason: 0, value } => Ok(value),
            Reply::Option { reason, .. } => Err(CardError::Refused(reason).into()),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "the card answered another question")),
        }
    }

    fn ask(&self, question: Question) -> io::Result<Reply> {
        let mut waiting = Waiting::new(&self.handle.inner, Sleeper::General);
        let key = waiting.core().engine.ask(Instant::now(), question, QUESTION_PATIENCE);
        waiting.settle();
        loop {
            match waiting.core().engine.take_reply(key) {
                Some(Reply::Unanswered) => return Err(CardError::Unanswered.into()),
                Some(Reply::Failed(reason)) => return Err(CardError::Refused(reason).into()),
                Some(reply) => return Ok(reply),
                None => waiting.pause(None),
            };
        }
    }

    /// Opens a connection; the reservation of its port is kept until the card has let go of it.
    pub(crate) fn connect(
        &self,
        ends: (Endpoint, Endpoint),
        next_hop: Mac,
        mtu: u32,
        flags: u32,
        reservation: Reservation,
    ) -> (ConnectionKey, Arc<Waker>) {
        let inner = &self.handle.inner;
        let mut core = inner.lock();
        let key = core.engine.connect(Instant::now(), ends, next_hop, mtu, flags);
        let waker = Arc::new(Waker::default());
        core.wakers.insert(key, waker.clone());
        core.reservations.insert(key, reservation);
        inner.settle(&mut core);
        (key, waker)
    }

    /// The program does not wait for connections, but is told of them: its threads do not look.
    pub(crate) fn keep_turn(&self) {
        let inner = &self.handle.inner;
        inner.lock().turn.keep(&inner.background);
    }

    /// Takes the reservation of a connection's port back.
    pub(crate) fn take_reservation(&self, key: ConnectionKey) -> Option<Reservation> {
        self.handle.inner.lock().reservations.remove(&key)
    }

    pub(crate) fn listen(&self, local: Endpoint, wish: ListenWish) -> (ListenerKey, Arc<Waker>) {
        let inner = &self.handle.inner;
        let addresses = inner.neighbourhood.addresses();
        // Where the peers will be nobody knows yet.
        let mtu = inner.neighbourhood.route_mtu(local.ip).unwrap_or(u32::MAX).min(inner.transport.mtu());
        let mut core = inner.lock();
        core.turn.keep(&inner.background);
        let key = core.engine.listen(Instant::now(), local, wish, mtu, addresses);
        let waker = Arc::new(Waker::default());
        core.listener_wakers.insert(key, waker.clone());
        inner.settle(&mut core);
        (key, waker)
    }

    /// Waits for the card's answer to a LISTEN; why it does not listen, and what to do then.
    pub(crate) fn listening(&self, key: ListenerKey) -> Result<(), (FallbackReason, Action)> {
        let deadline = Instant::now() + QUESTION_PATIENCE;
        let mut waiting = Waiting::new(&self.handle.inner, Sleeper::General);
        loop {
            match waiting.core().engine.listener(key).map(|l| l.state) {
                Some(ListenerState::Open) => return Ok(()),
                Some(ListenerState::Refused { reason, action }) => return Err((FallbackReason::Card(reason), action)),
                Some(ListenerState::Asked) | None => {}
            }
            if !waiting.pause(Some(deadline)) {
                return Err((FallbackReason::CardSilent, Action::Fallback));
            }
        }
    }

    pub(crate) fn unlisten(&self, key: ListenerKey) {
        self.act(|core| {
            core.engine.unlisten(Instant::now(), key);
            core.listener_wakers.remove(&key);
        });
    }

    /// The next connection that the card announced.
    pub(crate) fn accept(&self, key: ListenerKey) -> Option<(ConnectionKey, Arc<Waker>, Endpoint, Endpoint)> {
        self.act(|core| {
            let connection = core.engine.accept(key)?;
            let (local, remote) = core.engine.connection(connection).map(|c| (c.local, c.remote))?;
            let waker = Arc::new(Waker::default());
            core.wakers.insert(connection, waker.clone());
            Some((connection, waker, local, remote))
        })
    }

    /// Looks at a connection without doing anything.
    pub(crate) fn look<R>(&self, key: ConnectionKey, f: impl FnOnce(&Connection) -> R) -> Option<R> {
        self.handle.inner.lock().engine.connection(key).map(f)
    }

    /// Does something and whatever follows from it, without waiting.
    pub(crate) fn act<R>(&self, f: impl FnOnce(&mut Core) -> R) -> R {
        let inner = &self.handle.inner;
        let mut core = inner.lock();
        let result = f(&mut core);
        inner.settle(&mut core);
        result
    }

    /// Repeats `f` whenever something changes for the connection, until it gives a result; `None` if `deadline` comes first.
    pub(crate) fn wait_for<R>(
        &self,
        key: ConnectionKey,
        waker: &Waker,
        deadline: Option<Instant>,
        mut f: impl FnMut(&mut Engine, Instant) -> Option<R>,
    ) -> Option<R> {
        let mut waiting = Waiting::new(&self.handle.inner, Sleeper::Connection(key, waker));
        loop {
            let core = waiting.core();
            let result = f(&mut core.engine, Instant::now());
            waiting.settle();
            show_connection(&waiting.core().engine, key, waker);
            if result.is_some() || !waiting.pause(deadline) {
                return result;
            }
        }
    }

    /// The descriptor to poll for a connection.
    pub(crate) fn readiness<'a>(
        &self,
        waker: &'a Waker,
        show: impl FnOnce(&Engine) -> (bool, bool),
    ) -> io::Result<&'a Readiness> {
        let mut core = self.handle.inner.lock();
        if let Some(readiness) = waker.readiness.get() {
            return Ok(readiness);
        }
        core.turn.keep(&self.handle.inner.background);
        let readiness = Readiness::new()?;
        let (readable, writable) = show(&core.engine);
        readiness.show(readable, writable);
        Ok(waker.readiness.get_or_init(|| readiness))
    }
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic elsewhere leaves no half-made state that could do harm: every change is made by one call.
        self.core.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Sends what there is to say, tells whoever waits, and sees that whoever looks wakes in time.
    pub(crate) fn settle(&self, core: &mut Core) {
        self.transmit(core);
        let mut wake = false;
        for change in core.engine.take_changes() {
            wake |= core.turn.concerns_looker(&change);
            match change {
                Change::Context | Change::Question(_) => self.tell_others(core),
                Change::Connection(key) => {
                    if let Some(waker) = core.wakers.get(&key) {
                        waker.wake();
                        show_connection(&core.engine, key, waker);
                    }
                }
                Change::PathAdvice(key) => core.advised.push(key),
                Change::Listener(key) => {
                    self.tell_others(core);
                    if let Some(waker) = core.listener_wakers.get(&key) {
                        waker.tell();
                    }
                    if let Some(readiness) = core.listener_wakers.get(&key).and_then(|w| w.readiness()) {
                        readiness.show(core.engine.listener(key).is_some_and(|l| l.has_announced()), false);
                    }
                }
                Change::Forgotten(key) => {
                    core.reservations.remove(&key);
                    if let Some(waker) = core.wakers.remove(&key) {
                        waker.wake();
                    }
                    self.tell_others(core);
                }
            }
        }
        if let Some(until) = core.sleeps_until
            && (wake
                || !core.outbox.is_empty()
                || core.stop
                || core.engine.poll_timeout().is_some_and(|due| due < until))
        {
            core.sleeps_until = None;
            self.ring(core);
        }
    }

    /// Wakes whoever does the context's work.
    pub(crate) fn ring(&self, core: &mut Core) {
        core.woken = true;
        // A full counter wakes just as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Wakes who waits for anything but a connection.
    fn tell_others(&self, core: &Core) {
        if core.turn.others > 0 {
            self.general.notify_all();
        }
    }

    fn transmit(&self, core: &mut Core) {
        loop {
            if core.outbox.is_empty() {
                core.outbox.fill(&mut core.engine);
                if core.outbox.is_empty() {
                    return;
                }
            }
            match core.outbox.send(&*self.transport) {
                Ok(sent) => core.outbox.next += sent,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) => {
                    // The channel repeats it; a link that is down for a while does no harm.
                    log::debug!("a frame for the card is lost: {e}");
                    core.frames_lost += 1;
                    core.outbox.next += 1;
                }
            }
        }
    }

    /// The background thread.
    fn run(&self) {
        let mut round = Round::new();
        while self.take_turn() {
            // This thread does not read, and what it has received may not be read soon.
            self.lock().engine.about_to_sleep();
            if self.catch_up(&mut round, Instant::now()) {
                return;
            }
            let wants_addresses = self.lock().engine.wants_addresses();
            self.look(wants_addresses.then_some(round.addresses_due));
        }
        let mut core = self.lock();
        core.engine.bye();
        self.settle(&mut core);
    }

    /// Does what is due, sends what there is to say, sleeps until there are frames, at most until `deadline`, and applies them. If
    /// some are known to be there, or to look costs nothing, it looks first. Of whoever has the turn.
    pub(crate) fn look(&self, deadline: Option<Instant>) {
        if (self.more.load(Ordering::Relaxed) || self.transport.looks_for_free()) && self.receive() > 0 {
            return;
        }
        let now = Instant::now();
        let (timeout, room) = {
            let mut core = self.lock();
            core.engine.handle_timeout(now);
            core.engine.about_to_sleep();
            self.settle(&mut core);
            if core.stop {
                return;
            }
            if !core.advised.is_empty() {
                drop(core);
                return self.follow_advice(now);
            }
            let due = core.engine.poll_timeout().unwrap_or(now + Duration::from_secs(60));
            let due = deadline.map_or(due, |deadline| deadline.min(due));
            core.sleeps_until = Some(due);
            (due.saturating_duration_since(now), !core.outbox.is_empty())
        };
        if let Err(e) = self.transport.wait(room, self.wake.as_fd(), Some(timeout)) {
            log::error!("cannot wait for the card: {e}");
            std::thread::sleep(Duration::from_millis(100).min(timeout));
        }
        let mut core = self.lock();
        core.sleeps_until = None;
        if std::mem::take(&mut core.woken) {
            // Empty is as good as emptied.
            let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        }
        drop(core);
        self.receive();
    }

    /// Does what is due after frames were received; whether the context has ended.
    fn catch_up(&self, round: &mut Round, now: Instant) -> bool {
        let mut addresses = None;
        if round.addresses_due <= now {
            round.addresses_due = now + ADDRESSES_INTERVAL;
            if self.lock().engine.wants_addresses() {
                addresses = Some(self.neighbourhood.addresses());
            }
        }
        self.follow_advice(now);
        let mut core = self.lock();
        if let Some(addresses) = addresses {
            core.engine.set_addresses(addresses);
        }
        core.engine.handle_timeout(now);
        if core.stop {
            core.engine.bye();
        }
        self.settle(&mut core);
        core.stop
    }

    /// Says what is not to wait for a sleep. From here on others ring if something is due before the time that this gives; and whether there are frames that
    /// wait for room.
    fn sleep_until(&self, round: &Round, now: Instant) -> (Instant, bool) {
        let mut core = self.lock();
        core.engine.about_to_sleep();
        self.settle(&mut core);
        let mut due = core.engine.poll_timeout().unwrap_or(now + Duration::from_secs(60));
        if core.engine.wants_addresses() {
            due = due.min(round.addresses_due);
        }
        if core.stop {
            due = now;
        }
        core.sleeps_until = Some(due);
        (due, !core.outbox.is_empty())
    }

    /// The sleep is over; `rung`: perhaps somebody rang.
    fn awake(&self, rung: bool) {
        let mut core = self.lock();
        core.sleeps_until = None;
        if rung {
            core.woken = false;
            // Empty is as good as emptied.
            let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        }
    }

    /// Renews the next hops of connections whose peers are silent.
    fn follow_advice(&self, now: Instant) {
        let advised = {
            let mut core = self.lock();
            let keys = std::mem::take(&mut core.advised);
            let remote = |key: &ConnectionKey| Some((*key, core.engine.connection(*key)?.remote.ip));
            keys.iter().filter_map(remote).collect::<Vec<_>>()
        };
        for (key, remote) in advised {
            // The kernel is asked without the lock.
            if let Some(next_hop) = self.neighbourhood.renew_next_hop(remote) {
                let mut core = self.lock();
                core.engine.set_next_hop(now, key, next_hop);
                self.settle(&mut core);
            }
        }
    }

    /// Takes a batch of frames; how many there were.
    fn receive(&self) -> usize {
        let mut inbox = self.inbox.lock().unwrap_or_else(|e| e.into_inner());
        let mut lengths = [0; BATCH];
        let received = match self.transport.receive_many(&mut inbox, &mut lengths) {
            Ok(received) => {
                self.more.store(received == BATCH, Ordering::Relaxed);
                received
            }
            Err(e) => {
                self.more.store(false, Ordering::Relaxed);
                if e.kind() != ErrorKind::WouldBlock {
                    log::debug!("no frame from the card: {e}");
                }
                return 0;
            }
        };
        let mut foreign = Vec::new();
        let now = Instant::now();
        let mut core = self.lock();
        for (frame, bytes) in inbox.iter().zip(lengths).take(received) {
            if !core.engine.handle_frame(now, &frame[..bytes]) {
                foreign.push(&frame[..bytes]);
            }
        }
        drop(core);
        foreign.into_iter().for_each(|frame| self.neighbourhood.foreign_frame(frame));
        received
    }

    /// Wakes one who sleeps.
    pub(crate) fn call(&self, core: &Core, sleeper: ConnectionKey) {
        if let Some(waker) = core.wakers.get(&sleeper) {
            waker.condvar.notify_one();
        }
    }
}

/// Brings the descriptor of a connection up to date.
fn show_connection(engine: &Engine, key: ConnectionKey, waker: &Waker) {
    if let Some(readiness) = waker.readiness() {
        let (readable, writable) = connection_readiness(engine, key);
        readiness.show(readable, writable);
    }
}

/// Whether a read, and a write, would not have to wait.
pub(crate) fn connection_readiness(engine: &Engine, key: ConnectionKey) -> (bool, bool) {
    engine.connection(key).map_or((true, true), |c| (c.readable(), c.writable()))
}

impl Drop for Handle {
    fn drop(&mut self) {
        let context = &self.inner;
        let deadline = Instant::now() + LINGER;
        let mut waiting = Waiting::new(context, Sleeper::General);
        while waiting.core().engine.is_closing_any() && waiting.pause(Some(deadline)) {}
        waiting.core().stop = true;
        waiting.settle();
        drop(waiting);
        context.background.notify_one();
        // The thread may be anywhere between its look at `stop` and its sleep.
        let _ = rustix::io::write(&context.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! The card as a whole: the data path, its clock, and the threads that run it.
//!
//! Whoever knows that something happened runs the data path: the worker that a frontend's kick woke
//! ([`Card::kicked`]), and the card's own thread ([`Card::run`]) for the wire, the timers and whatever a worker did
//! not finish. One lock orders them; it is handed over between rounds, so that nobody waits for longer than one.
//!
//! With `--poll-us N` the card's own thread goes on looking for so long after the last frame, and drivers need not kick
//! meanwhile. Then it gives way: it asks to be told, looks once more, and sleeps.
//!
//! The card outlives its frontends. Each connection has a number, and what a worker of an earlier connection still
//! says is not heard.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use toe_abi::Reason;
use toe_firmware::Instant;
use toe_firmware::fault::Rules;
use vhost_user_backend::VringMutex;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::capture::{CaptureError, Request, Watch};
use crate::datapath::{DataPath, Guest};
use crate::events::Notice;
use crate::fault::status::Status;
use crate::management::Limit;
use crate::net::Features;

/// The most rounds that a worker makes before the card's own thread takes over, so that it hears the frontend again.
const WORKER_ROUNDS: usize = 16;
/// A timeout that is no further away is waited for awake: to set the timer, sleep and wake takes as long.
const NEAR: toe_firmware::Duration = toe_firmware::Duration::from_us(10);

/// Names one connection of a frontend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection(u64);

/// Asks threads to end: a flag, and a descriptor that stays readable once it is set.
#[derive(Debug)]
pub struct Stop {
    flag: AtomicBool,
    event: OwnedFd,
}

impl Stop {
    /// Not yet.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { flag: AtomicBool::new(false), event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// From now on.
    pub fn stop(&self) {
        self.flag.store(true, Ordering::Release);
        signal(&self.event);
    }

    /// Whether it was asked for.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// An event counter cannot be so full that a write fails before somebody reads it.
fn signal(event: &OwnedFd) {
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

fn consume(event: &OwnedFd) {
    let _ = rustix::io::read(event, &mut [0; 8]);
}

#[derive(Debug)]
struct Inner {
    path: DataPath,
    connection: Connection,
    /// When the timer goes off, if it is set.
    armed: Option<Instant>,
}

/// A card.
#[derive(Debug)]
pub struct Card {
    inner: Mutex<Inner>,
    start: std::time::Instant,
    wake: OwnedFd,
    timer: OwnedFd,
    /// How long it polls after the last frame; not at all if zero.
    poll: Duration,
}

impl Card {
    /// A card that runs `path`. Its clock, which began to count at `start`, is the one that the firmware was booted by.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new(path: DataPath, start: std::time::Instant) -> io::Result<Self> {
        Ok(Self {
            inner: Mutex::new(Inner { path, connection: Connection(0), armed: None }),
            start,
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            timer: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?,
            poll: Duration::ZERO,
        })
    }

    /// It looks for more for so long after the last frame before it sleeps.
    #[must_use]
    pub fn polling(self, poll: Duration) -> Self {
        Self { poll, ..self }
    }

    fn now(&self) -> Instant {
        Instant::from_us(self.start.elapsed().as_micros() as u64)
    }

    /// A frontend has come. Its guest has no rings yet.
    pub fn connect(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> Connection {
        let mut inner = self.inner.lock();
        inner.connection.0 += 1;
        inner.path.set_guest(Some(Guest { memory, vrings: Vec::new(), features: Features::default() }));
        inner.connection
    }

    /// The frontend has gone.
    pub fn disconnect(&self, connection: Connection) {
        let mut inner = self.inner.lock();
        if inner.connection == connection {
            inner.path.set_guest(None);
        }
    }

    /// The frontend has told its memory anew.
    pub fn memory_replaced(&self, connection: Connection) {
        let mut inner = self.inner.lock();
        if inner.connection == connection {
            inner.path.memory_replaced();
        }
    }

    /// The guest's driver has agreed to `features`.
    pub fn negotiated(&self, connection: Connection, features: Features) {
        let mut inner = self.inner.lock();
        if inner.connection != connection {
            return;
        }
        if let Some(guest) = inner.path.guest_mut() {
            guest.features = features;
            inner.path.set_offloads(features.guest_offloads());
        }
    }

    /// A ring was started or kicked; its number, and all of them.
    pub fn kicked(&self, connection: Connection, ring: usize, vrings: &[VringMutex]) {
        let mut inner = self.inner.lock();
        if inner.connection != connection {
            return;
        }
        if let Some(guest) = inner.path.guest_mut()
            && guest.vrings.is_empty()
        {
            guest.vrings = vrings.to_vec();
        }
        if !inner.path.kick(ring, self.now()) {
            return self.set_timer(&mut inner);
        }
        for _ in 0..WORKER_ROUNDS {
            if !inner.path.round(self.now()) {
                if self.poll > Duration::ZERO {
                    // Where there was something, more may come soon: the card's own thread looks.
                    break;
                }
                return self.set_timer(&mut inner);
            }
            MutexGuard::bump(&mut inner);
            if inner.connection != connection {
                return;
            }
        }
        signal(&self.wake);
    }

    /// Runs the card until `stop`.
    ///
    /// # Errors
    /// The system has no descriptor left, or waiting fails.
    pub fn run(&self, stop: &Stop) -> io::Result<()> {
        const WAKE: u64 = 0;
        const TIMER: u64 = 1;
        const WIRE: u64 = 2;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let add = |fd: &dyn AsFd, data, flags| epoll::add(&poll, fd.as_fd(), epoll::EventData::new_u64(data), flags);
        // Of these three only that they happened counts: what there is to do, a round sees.
        add(&stop, WAKE, epoll::EventFlags::IN)?;
        add(&self.wake, WAKE, epoll::EventFlags::IN)?;
        add(&self.timer, TIMER, epoll::EventFlags::IN)?;
        if let Some(wire) = self.inner.lock().path.wire().events() {
            // Told once for each change: the wire is left alone on purpose while there is no room for its frames.
            add(&wire, WIRE, epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET)?;
        }
        let mut events = Vec::with_capacity(8);
        while !stop.is_set() {
            let mut inner = self.inner.lock();
            self.rounds(&mut inner, stop);
            self.set_timer(&mut inner);
            drop(inner);
            events.clear();
            match epoll::wait(&poll, spare_capacity(&mut events), None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            for event in &events {
                match event.data.u64() {
                    WAKE => consume(&self.wake),
                    TIMER => {
                        consume(&self.timer);
                        self.inner.lock().armed = None;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Makes rounds until nothing moves, and has not for as long as the card polls.
    fn rounds(&self, inner: &mut MutexGuard<'_, Inner>, stop: &Stop) {
        let mut seen = inner.path.activity();
        let mut quiet_since = std::time::Instant::now();
        let mut polls = self.poll > Duration::ZERO;
        inner.path.set_polled(polls);
        while !stop.is_set() {
            let now = self.now();
            let more = inner.path.round(now);
            if !more && !polls && inner.path.poll_timeout().is_none_or(|due| due > now + NEAR) {
                return;
            }
            if polls && !more && quiet_since.elapsed() >= self.poll {
                // Once more with everybody asked to say when there is something.
                polls = false;
                inner.path.set_polled(false);
            }
            let activity = inner.path.activity();
            if std::mem::replace(&mut seen, activity) != activity {
                quiet_since = std::time::Instant::now();
                polls = self.poll > Duration::ZERO;
                inner.path.set_polled(polls);
            }
            MutexGuard::bump(inner);
            std::hint::spin_loop();
        }
        inner.path.set_polled(false);
    }

    /// Sets the timer for the data path's next timeout. One that is set too early stays: it costs one needless round.
    fn set_timer(&self, inner: &mut Inner) {
        let Some(due) = inner.path.poll_timeout() else { return };
        if inner.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        // Zero would switch it off.
        let wait = Duration::from_micros(due.since(self.now()).as_us().max(1));
        let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value }) {
            Ok(_) => inner.armed = Some(due),
            Err(error) => log::error!("the timer could not be set to {wait:?}: {error}"),
        }
    }

    /// The firmware's epoch: another value means another boot.
    pub fn epoch(&self) -> u32 {
        self.inner.lock().path.firmware().epoch()
    }

    /// Every pool of firmware and device.
    pub fn limits(&self) -> Vec<Limit> {
        Self::limits_of(&self.inner.lock())
    }

    /// Every counter of device and firmware.
    pub fn stat(&self) -> BTreeMap<&'static str, u64> {
        Self::stat_of(&self.inner.lock())
    }

    /// Lets somebody see what passes.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn capture(&self, request: Request) -> Result<Watch, CaptureError> {
        self.inner.lock().path.capture(request)
    }

    /// Ends all captures: who watches gets what waits, and then the end.
    pub fn end_captures(&self) {
        self.inner.lock().path.end_captures();
    }

    /// Arms faults, instead of those that were.
    pub fn arm(&self, rules: Rules, seed: u64) {
        self.inner.lock().path.arm(rules, seed, self.now());
        signal(&self.wake);
    }

    /// Disarms all faults; what was armed until now, and what it has done.
    pub fn disarm(&self) -> Status {
        let mut inner = self.inner.lock();
        let status = inner.path.fault_status();
        inner.path.disarm();
        signal(&self.wake);
        status
    }

    /// The faults that are armed, and what they have done.
    pub fn faults(&self) -> Status {
        self.inner.lock().path.fault_status()
    }

    /// Lets somebody hear of pools that fill; `None` if too many do.
    pub fn follow(&self) -> Option<tokio::sync::mpsc::Receiver<Notice>> {
        self.inner.lock().path.follow()
    }

    /// Pools and counters at the same moment.
    pub fn snapshot(&self) -> (Vec<Limit>, BTreeMap<&'static str, u64>) {
        let inner = self.inner.lock();
        (Self::limits_of(&inner), Self::stat_of(&inner))
    }

    fn limits_of(inner: &Inner) -> Vec<Limit> {
        let name = |reason| Reason::from_u32(reason).map_or_else(|| format!("reason-{reason}"), |r| r.to_string());
        let mut limits: Vec<_> = inner
            .path
            .firmware()
            .limits()
            .map(|limit| Limit {
                name: limit.name.to_owned(),
                capacity: limit.capacity,
                in_use: limit.in_use,
                high_water: limit.high_water,
                policy: limit.policy.to_owned(),
                refusals: limit
                    .refusals
                    .into_iter()
                    .filter(|(reason, _)| *reason != Reason::None as u32)
                    .map(|(reason, count)| (name(reason), count))
                    .collect(),
            })
            .collect();
        let fifo = inner.path.fifo();
        limits.push(Limit {
            name: "receive-fifo".to_owned(),
            capacity: fifo.capacity() as u64,
            in_use: fifo.queued() as u64,
            high_water: fifo.high_water() as u64,
            // Nothing is refused: the wire's own queue holds the frames.
            policy: "wait".to_owned(),
            refusals: BTreeMap::from([("receive-fifo-full".to_owned(), inner.path.counters().receive_fifo_full)]),
        });
        limits
    }

    fn stat_of(inner: &Inner) -> BTreeMap<&'static str, u64> {
        inner.path.all_counters().map(|entry| (entry.name, entry.value)).collect()
    }
}

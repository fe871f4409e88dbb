//! Virtual time, and calls that block in it.
//!
//! One lock holds everything. A call that has to wait becomes a *sleeper*: it sleeps on a condition variable (packetdrill
//! looks at the thread's state to see that it blocks) until the world's generation has changed, and tries again. Whoever
//! moves the clock first lets things *settle*: every sleeper has tried the present generation, and whoever thereby
//! returned has called again. packetdrill's thread asks for the time right after a blocking call returned, so that this
//! is when the call's end was noted; only then may time go on.
//!
//! What bounds it in real time: [`SETTLE_MAX`] for a caller that never calls again; [`IDLE_MAX`], after which a sleeper
//! with a deadline moves the clock itself, because nobody else does (packetdrill waits, in real time, for a
//! blocking call to end before it begins another); and the flag `idle_s`, after which one without a deadline gives up,
//! so that a script that waits on its only thread for what that thread should do fails and does not hang.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::Duration as RealDuration;

use toe_firmware::{Duration, Instant};

use crate::address::{Family, Given};
use crate::errno::{Attempt, Errno};
use crate::events::{Epoll, Event};
use crate::flags::Flags;
use crate::guest::{Guest, Packet};
use crate::pipes;
use crate::sockets::Sockets;

/// How far the clock creeps whenever it is read.
const CREEP: Duration = Duration::from_us(2);

/// How long the clock waits for a caller whose blocking call has returned, in real time.
const SETTLE_MAX: RealDuration = RealDuration::from_secs(1);

/// After how much real time without any call a sleeper moves the clock to its deadline itself.
const IDLE_MAX: RealDuration = RealDuration::from_millis(500);

/// The same for each further step of such a sleeper.
const IDLE_NEXT: RealDuration = RealDuration::from_millis(1);

/// Whether a call may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// It may not.
    None,
    /// For so long.
    For(Duration),
    /// For ever.
    Unbounded,
}

impl Patience {
    /// As `poll` and `epoll_wait` say it: in milliseconds, negative for ever.
    pub fn of_ms(ms: i32) -> Self {
        match u64::try_from(ms) {
            Ok(0) => Self::None,
            Ok(ms) => Self::For(Duration::from_ms(ms)),
            Err(_) => Self::Unbounded,
        }
    }

    fn of(limit: Option<Duration>) -> Self {
        limit.map_or(Self::Unbounded, Self::For)
    }
}

#[derive(Debug)]
struct Sleeper {
    deadline: Option<Instant>,
    /// The generation that it has tried.
    tried: u64,
}

#[derive(Debug)]
struct World {
    sockets: Sockets,
    horizon: Duration,
    idle: RealDuration,
    /// Changes whenever something has happened that may end a wait.
    generation: u64,
    sleepers: BTreeMap<u64, Sleeper>,
    next_ticket: u64,
    /// Threads whose blocking call has returned and that have not called since.
    returning: Vec<ThreadId>,
    /// Counts calls, so that it can be seen that there are none.
    calls: u64,
}

/// One instance of the interface.
#[derive(Debug)]
pub struct Adapter {
    world: Mutex<World>,
    changed: Condvar,
}

type Guard<'a> = MutexGuard<'a, World>;

/// What a panic while the lock was held leaves behind is not to be used.
fn broken<T>(_: T) -> Errno {
    Errno(libc::EIO)
}

impl Adapter {
    /// Boots a card and all around it.
    ///
    /// # Errors
    /// A profile that the card refuses.
    pub fn new(flags: &Flags) -> Result<Self, toe_firmware::ProfileError> {
        let guest = Guest::new(flags)?;
        let world = World {
            sockets: Sockets::new(guest, flags),
            horizon: flags.horizon,
            idle: flags.idle,
            generation: 0,
            sleepers: BTreeMap::new(),
            next_ticket: 0,
            returning: Vec::new(),
            calls: 0,
        };
        Ok(Self { world: Mutex::new(world), changed: Condvar::new() })
    }

    /// Every call begins here: its thread has seen whatever its last one gave.
    fn enter(&self) -> Result<Guard<'_>, Errno> {
        let mut w = self.world.lock().map_err(broken)?;
        w.calls += 1;
        let me = std::thread::current().id();
        if w.returning.contains(&me) {
            w.returning.retain(|thread| *thread != me);
            self.changed.notify_all();
        }
        Ok(w)
    }

    /// Something has happened: sleepers are to try again.
    fn touch(&self, w: &mut World) {
        w.generation += 1;
        self.changed.notify_all();
    }

    /// Does something that takes no time.
    pub fn with<T>(&self, act: impl FnOnce(&mut Sockets) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut w = self.enter()?;
        let result = act(&mut w.sockets);
        self.touch(&mut w);
        result
    }

    /// Tries until it succeeds, fails, or patience ends (`None`).
    fn wait<T>(&self, patience: Patience, mut attempt: impl FnMut(&mut Sockets) -> Attempt<T>) -> Attempt<T> {
        let mut w = self.enter()?;
        let first = attempt(&mut w.sockets);
        self.touch(&mut w);
        if !matches!(first, Ok(None)) || patience == Patience::None {
            return first;
        }
        let now = w.sockets.guest.now();
        let deadline = match patience {
            Patience::For(limit) => Some(now + limit),
            Patience::None | Patience::Unbounded => None,
        };
        let ticket = w.next_ticket;
        w.next_ticket += 1;
        let tried = w.generation;
        w.sleepers.insert(ticket, Sleeper { deadline, tried });
        let mut quiet = RealDuration::ZERO;
        let result = loop {
            let calls = w.calls;
            // Once it is known that nobody moves the clock, there is no more to wait for than a sign to the contrary.
            let nap = if deadline.is_some() && !quiet.is_zero() { IDLE_NEXT } else { IDLE_MAX };
            let (guard, real) = self.changed.wait_timeout(w, nap).map_err(broken)?;
            w = guard;
            if w.calls != calls {
                quiet = RealDuration::ZERO;
            } else if real.timed_out() {
                quiet += nap;
                match deadline {
                    Some(deadline) => w = self.step(w, deadline),
                    None if quiet >= w.idle => break Err(Errno(libc::EDEADLK)),
                    None => {}
                }
            }
            let generation = w.generation;
            let Some(sleeper) = w.sleepers.get_mut(&ticket) else { break Err(Errno(libc::EIO)) };
            if sleeper.tried == generation {
                continue;
            }
            sleeper.tried = generation;
            match attempt(&mut w.sockets) {
                Ok(None) if deadline.is_some_and(|at| at <= w.sockets.guest.now()) => break Ok(None),
                Ok(None) => self.changed.notify_all(),
                done => break done,
            }
        };
        w.sleepers.remove(&ticket);
        w.returning.push(std::thread::current().id());
        self.touch(&mut w);
        result
    }

    /// Waits until no sleeper has anything to try and no caller is on its way back.
    fn settle<'a>(&'a self, mut w: Guard<'a>) -> Result<Guard<'a>, Errno> {
        let began = std::time::Instant::now();
        while w.sleepers.values().any(|sleeper| sleeper.tried != w.generation) || !w.returning.is_empty() {
            let Some(left) = SETTLE_MAX.checked_sub(began.elapsed()) else {
                // A caller that asks for nothing after its call returned cannot be waited for.
                w.returning.clear();
                break;
            };
            self.changed.notify_all();
            w = self.changed.wait_timeout(w, left).map_err(broken)?.0;
        }
        Ok(w)
    }

    /// The next moment at which something happens by itself, if there is one: never the present one.
    fn next_event(w: &World) -> Option<Instant> {
        let deadlines = w.sockets.guest.next_deadline().into_iter().chain(w.sockets.next_deadline());
        let next = deadlines.chain(w.sleepers.values().filter_map(|sleeper| sleeper.deadline)).min()?;
        Some(next.max(w.sockets.guest.now() + Duration::from_us(1)))
    }

    /// Moves the clock by one step towards `target`.
    fn step<'a>(&'a self, mut w: Guard<'a>, target: Instant) -> Guard<'a> {
        let next = Self::next_event(&w).unwrap_or(target).min(target).min(w.sockets.guest.step_max());
        self.move_to(&mut w, next);
        w
    }

    fn move_to(&self, w: &mut World, at: Instant) {
        let due = w.sockets.guest.move_to(at) | w.sockets.release_due();
        if due || w.sleepers.values().any(|sleeper| sleeper.deadline.is_some_and(|deadline| deadline <= at)) {
            self.touch(w);
        }
    }

    /// `usleep`: time passes.
    ///
    /// # Errors
    /// `EIO` after a panic.
    pub fn sleep(&self, duration: Duration) -> Result<(), Errno> {
        let mut w = self.settle(self.enter()?)?;
        let target = w.sockets.guest.now() + duration;
        while w.sockets.guest.now() < target {
            w = self.settle(self.step(w, target))?;
        }
        Ok(())
    }

    /// `gettimeofday`: the time, which creeps.
    ///
    /// # Errors
    /// `EIO` after a panic.
    pub fn now(&self) -> Result<Instant, Errno> {
        let mut w = self.enter()?;
        let at = w.sockets.guest.now() + CREEP;
        self.move_to(&mut w, at);
        Ok(at)
    }

    /// `netdev_send`: a packet arrives.
    ///
    /// # Errors
    /// As [`Guest::packet_in`].
    pub fn packet_in(&self, packet: &[u8]) -> Result<(), Errno> {
        let mut w = self.enter()?;
        w.sockets.guest.packet_in(packet)?;
        self.touch(&mut w);
        self.settle(w).map(drop)
    }

    /// `netdev_receive`: the next packet, for which time passes as far as is needed; `None` if there will be none.
    ///
    /// # Errors
    /// `EIO` after a panic.
    pub fn packet_out(&self) -> Result<Option<Packet>, Errno> {
        let mut w = self.enter()?;
        let horizon = w.sockets.guest.now() + w.horizon;
        loop {
            if let Some(packet) = w.sockets.guest.packet_out() {
                return Ok(Some(packet));
            }
            w = self.settle(w)?;
            if let Some(packet) = w.sockets.guest.packet_out() {
                return Ok(Some(packet));
            }
            match Self::next_event(&w) {
                Some(next) if next <= horizon => w = self.step(w, next),
                _ => return Ok(None),
            }
        }
    }

    /// `socket`.
    ///
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn socket(&self, family: Family, nonblocking: bool) -> Result<RawFd, Errno> {
        let fd = pipes::placeholder()?;
        self.with(|s| {
            s.open(fd, family, nonblocking);
            Ok(fd)
        })
    }

    /// `accept`.
    ///
    /// # Errors
    /// `EAGAIN`, or as [`Sockets::accept`].
    pub fn accept(&self, fd: RawFd) -> Result<(RawFd, SocketAddr, Family), Errno> {
        let patience = self.patience(fd, 0, |s| s.receive_timeout)?;
        self.wait(patience, |s| s.accept(fd, pipes::placeholder))?.ok_or(Errno(libc::EAGAIN))
    }

    /// `connect`.
    ///
    /// # Errors
    /// `EINPROGRESS`, or as [`Sockets::connect`] and [`Sockets::connected`].
    pub fn connect(&self, fd: RawFd, to: Given) -> Result<(), Errno> {
        self.with(|s| s.connect(fd, to))?;
        let patience = self.patience(fd, 0, |s| s.send_timeout)?;
        self.wait(patience, |s| s.connected(fd))?.ok_or(Errno(libc::EINPROGRESS))
    }

    /// All of `recv` and its kin, on a socket.
    ///
    /// # Errors
    /// `EAGAIN`, or as [`Sockets::receive`].
    pub fn receive(&self, fd: RawFd, max: usize, flags: i32) -> Result<Vec<u8>, Errno> {
        if flags & libc::MSG_OOB != 0 {
            return Err(Errno(libc::EINVAL));
        }
        let known = libc::MSG_DONTWAIT
            | libc::MSG_PEEK
            | libc::MSG_WAITALL
            | libc::MSG_TRUNC
            | libc::MSG_NOSIGNAL
            | libc::MSG_CMSG_CLOEXEC;
        if flags & !known != 0 {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let peek = flags & libc::MSG_PEEK != 0;
        let all = flags & libc::MSG_WAITALL != 0 && !peek;
        let patience = self.patience(fd, flags, |s| s.receive_timeout)?;
        let mut data = Vec::new();
        let mut failed = None;
        let end = self.wait(patience, |s| {
            loop {
                let more = match s.receive(fd, max - data.len(), peek) {
                    Ok(Some(more)) => more,
                    Ok(None) => return Ok(None),
                    Err(e) => {
                        failed = Some(e);
                        return Ok(Some(()));
                    }
                };
                let over = more.is_empty();
                data.extend(more);
                if over || !all || data.len() == max {
                    return Ok(Some(()));
                }
            }
        })?;
        match (data.is_empty(), failed, end) {
            (true, Some(e), _) => Err(e),
            (true, None, None) => Err(Errno(libc::EAGAIN)),
            _ => Ok(data),
        }
    }

    /// All of `send` and its kin, on a socket. A blocking call returns when everything is handed over.
    ///
    /// # Errors
    /// `EAGAIN`, or as [`Sockets::send`].
    pub fn send(&self, fd: RawFd, data: &[u8], flags: i32) -> Result<usize, Errno> {
        let known = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_EOR | libc::MSG_MORE | libc::MSG_ZEROCOPY;
        if flags & !known != 0 {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let patience = self.patience(fd, flags, |s| s.send_timeout)?;
        let mut sent = 0;
        let mut failed = None;
        let more = flags & libc::MSG_MORE != 0;
        let end = self.wait(patience, |s| match s.send(fd, &data[sent..], more) {
            Ok(None) => Ok(None),
            Ok(Some(n)) => {
                sent += n;
                Ok((sent == data.len()).then_some(()))
            }
            Err(e) => {
                failed = Some(e);
                Ok(Some(()))
            }
        })?;
        match (sent, failed, end) {
            (0, Some(e), _) => Err(e),
            (0, None, None) => Err(Errno(libc::EAGAIN)),
            _ => Ok(sent),
        }
    }

    /// `poll`.
    ///
    /// # Errors
    /// The kernel's, of descriptors that are not ours.
    pub fn poll(&self, fds: &mut [libc::pollfd], timeout_ms: i32) -> Result<i32, Errno> {
        Ok(self.wait(Patience::of_ms(timeout_ms), |s| s.poll(fds))?.unwrap_or(0))
    }

    /// `epoll_create`.
    ///
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn epoll_create(&self) -> Result<RawFd, Errno> {
        let fd = pipes::placeholder()?;
        self.with(|s| {
            s.epolls.insert(fd, Epoll::default());
            Ok(fd)
        })
    }

    /// `epoll_wait`.
    ///
    /// # Errors
    /// As [`Sockets::epoll_events`].
    pub fn epoll_wait(&self, epfd: RawFd, max: i32, timeout_ms: i32) -> Result<Vec<Event>, Errno> {
        Ok(self.wait(Patience::of_ms(timeout_ms), |s| s.epoll_events(epfd, max))?.unwrap_or_default())
    }

    /// `splice`.
    ///
    /// # Errors
    /// As [`Sockets::splice`].
    pub fn splice(&self, from: RawFd, to: RawFd, max: usize, nonblocking: bool) -> Result<usize, Errno> {
        let flags = if nonblocking { libc::MSG_DONTWAIT } else { 0 };
        let fd = match (self.owns(from)?, self.owns(to)?) {
            (true, _) => from,
            (false, true) => to,
            (false, false) => return Err(Errno(libc::EINVAL)),
        };
        let patience = self.patience(fd, flags, |s| s.receive_timeout)?;
        self.wait(patience, |s| s.splice(from, to, max))?.ok_or(Errno(libc::EAGAIN))
    }

    /// Whether a descriptor is ours.
    ///
    /// # Errors
    /// `EIO` after a panic.
    pub fn owns(&self, fd: RawFd) -> Result<bool, Errno> {
        Ok(self.world.lock().map_err(broken)?.sockets.owns(fd))
    }

    fn patience(
        &self,
        fd: RawFd,
        flags: i32,
        limit: impl FnOnce(&crate::sockets::Settings) -> Option<Duration>,
    ) -> Result<Patience, Errno> {
        let w = self.world.lock().map_err(broken)?;
        let socket = w.sockets.socket(fd)?;
        let never = socket.nonblocking || flags & libc::MSG_DONTWAIT != 0;
        Ok(if never { Patience::None } else { Patience::of(limit(&socket.set)) })
    }
}

//! `listen` and `accept`.
//!
//! The program's socket listens in the kernel as it always did, and the card listens at the same address. What the card
//! accepts comes to the program through its own socket's queue, by a connection over the loopback interface, so that
//! everything that waits for that socket (poll, a blocked `accept`, several processes) is told by the kernel. What the card hands
//! on to the kernel comes through the same queue.
//!
//! `accept` itself is done here, because the address that it gives must be the peer's.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, epoll};
use rustix::net::SocketFlags;
use socket2::SockRef;
use toe_abi::{Action, Endpoint, listen_policy};

use super::super::address;
use super::super::descriptor::{self, cookie};
use super::super::diag::Held;
use super::super::leg;
use super::super::line::{Leg, Line};
use super::super::notify::{Answered, Call};
use super::super::policy::{Direction, Subject};
use super::super::workers::{Finding, Listening};
use super::{Connection, Known, Phase, Supervisor};
use crate::engine::ListenWish;
use crate::fallback::FallbackReason;

/// A listener that the card has, too; the card's are closed when it is dropped.
#[derive(Debug)]
pub(super) struct CardListener {
    on_card: Listening,
    local: SocketAddr,
    /// The program's sockets: more than one with SO_REUSEPORT.
    cookies: HashSet<u64>,
    /// Accepted for a call that was interrupted.
    returned: VecDeque<(OwnedFd, SocketAddr)>,
}

impl Drop for CardListener {
    fn drop(&mut self) {
        for (key, _) in &self.on_card.keys {
            self.on_card.context.unlisten(*key);
        }
    }
}

/// A call of `listen` that waits for the card.
#[derive(Debug)]
pub(super) struct OpeningListener {
    call: Call,
    socket: OwnedFd,
    local: SocketAddr,
    cookie: u64,
}

/// A call of `accept` that waits.
#[derive(Debug)]
pub(super) struct Accepting {
    call: Call,
    socket: OwnedFd,
    listener: u64,
    deadline: Option<Instant>,
}

impl Accepting {
    pub(super) fn call(&self) -> &Call {
        &self.call
    }
}

impl Supervisor {
    pub(super) fn listen(&mut self, call: &Call) {
        let Some((process, socket)) = self.caller(call) else { return };
        let fd = socket.as_fd();
        let (Some(is_ipv6), Ok(cookie)) = (descriptor::tcp_family(fd), cookie(fd)) else {
            self.proceed(call);
            return;
        };
        match self.sockets.get(&cookie) {
            // The backlog changes, or the kernel refuses.
            Some(Known::Listener(_) | Known::Connection(_)) => {
                self.proceed(call);
                return;
            }
            Some(Known::Unsuitable(_) | Known::Ended { .. }) | None => {}
        }
        let Some(local) = bound(fd, is_ipv6) else {
            self.proceed(call);
            return;
        };
        let ip = local.ip().to_canonical();
        let subject = Subject { process: process.id, direction: Direction::Listen, address: ip, port: local.port() };
        if !self.is_for_card(fd, cookie, &subject) {
            self.proceed(call);
            return;
        }
        if let Some((token, listener)) = self.listeners.iter_mut().find(|(_, l)| l.local == local) {
            // SO_REUSEPORT: another queue of the same address; the kernel chooses.
            listener.cookies.insert(cookie);
            self.sockets.insert(cookie, Known::Listener(*token));
            self.proceed(call);
            return;
        }
        let is_v6only = is_ipv6 && descriptor::int(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY).is_ok_and(|v| v != 0);
        let mut addresses = vec![ip];
        if matches!(local.ip(), IpAddr::V6(v6) if v6.is_unspecified()) && !is_v6only {
            addresses.push(Ipv4Addr::UNSPECIFIED.into());
        }
        // The kernel's own bound; zero means one.
        let backlog = call.arguments[1] as i32;
        let backlog = if backlog < 0 { 4096 } else { backlog.clamp(1, 4096) as u32 };
        let token = self.new_token();
        let surroundings = self.surroundings();
        self.opening_listeners.insert(token, OpeningListener { call: *call, socket, local, cookie });
        self.workers.ask(token, move || {
            let listen = || {
                let interface = surroundings.interface_of(addresses[0]).map_err(|reason| (reason, Action::Fallback))?;
                let context = surroundings.context(interface).map_err(|reason| (reason, Action::Fallback))?;
                let wish = || ListenWish { backlog, flags: 0, policy: listen_policy::OF_CARD };
                let listen = |ip: &IpAddr| context.listen(Endpoint::new(*ip, local.port()), wish());
                let keys: Vec<_> = addresses.iter().map(listen).collect();
                for (key, _) in &keys {
                    if let Err(refused) = context.listening(*key) {
                        keys.iter().for_each(|(key, _)| context.unlisten(*key));
                        return Err(refused);
                    }
                }
                Ok(Listening { context, keys })
            };
            Finding::Listening(listen().map_err(|(reason, action)| (reason, action == Action::Deny)))
        });
    }

    pub(super) fn listening(&mut self, token: u64, result: Result<Listening, (FallbackReason, bool)>) {
        let Some(OpeningListener { call, local, cookie, socket }) = self.opening_listeners.remove(&token) else {
            return;
        };
        match result {
            Ok(on_card) => {
                self.drive(&on_card.context);
                // Before the kernel listens: no connection shall find the kernel because it came between the two.
                for (_, waker) in &on_card.keys {
                    waker.watch(&self.watch, token);
                }
                self.counters.listeners += 1;
                let cookies = HashSet::from([cookie]);
                self.listeners.insert(token, CardListener { on_card, local, cookies, returned: VecDeque::new() });
                self.sockets.insert(cookie, Known::Listener(token));
                // Not by the program's own call: the kernel may refuse it, and then the card must not listen either.
                match rustix::net::listen(&socket, call.int(1)) {
                    Ok(()) => {
                        self.give(&call, 0);
                    }
                    Err(e) => {
                        self.forget_listener(token);
                        self.fail(&call, e.raw_os_error());
                    }
                }
            }
            Err((reason, denied)) => {
                self.counters.kernel(&reason.to_string());
                if denied {
                    self.fail(&call, libc::EADDRINUSE);
                } else {
                    self.proceed(&call);
                }
            }
        }
    }

    fn forget_listener(&mut self, token: u64) {
        if let Some(listener) = self.listeners.remove(&token) {
            for cookie in &listener.cookies {
                self.sockets.remove(cookie);
            }
        }
    }

    /// Closes the card's listeners whose program's sockets are gone.
    pub(super) fn look_after_listeners(&mut self) {
        let gone = |l: &CardListener| self.diag.listener(l.local) == Held::No;
        let gone: Vec<_> = self.listeners.iter().filter(|(_, l)| gone(l)).map(|(token, _)| *token).collect();
        gone.into_iter().for_each(|token| self.forget_listener(token));
    }

    /// The card has connections for a listener: they queue at the program's.
    pub(super) fn take_announced(&mut self, token: u64) {
        let Some(listener) = self.listeners.get(&token) else { return };
        let (context, local) = (listener.on_card.context.clone(), listener.local);
        let keys: Vec<_> = listener.on_card.keys.iter().map(|(key, waker)| (*key, waker.clone())).collect();
        for (key, waker) in keys {
            waker.heard();
            while let Some((connection, waker, here, there)) = context.accept(key) {
                let line = Line::new(context.clone(), (connection, waker), (here, there));
                if let Err(e) = self.queue(line, local) {
                    log::warn!("a connection from {there} cannot be handed to the program: {e}");
                    self.counters.orphans += 1;
                }
            }
        }
    }

    fn queue(&mut self, line: Line, listener: SocketAddr) -> io::Result<()> {
        let at = leg::reached_at(listener, line.remote.ip);
        let socket = leg::queue(at)?;
        let from = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let leg = Leg::new(socket, at, from);
        let token = self.new_token();
        self.watch_leg(&leg, token)?;
        self.arriving.insert(from, token);
        line.waker.watch(&self.watch, token);
        let phase = Phase::Joining { leg, waiting: None, failure: None };
        self.connections.insert(token, Connection { line, cookie: None, phase });
        Ok(())
    }

    pub(super) fn accept(&mut self, call: &Call) {
        let Some((_, socket)) = self.caller(call) else { return };
        let fd = socket.as_fd();
        let Some(Known::Listener(listener)) = cookie(fd).ok().and_then(|c| self.sockets.get(&c).cloned()) else {
            self.proceed(call);
            return;
        };
        let flags = if call.number == libc::SYS_accept4 as i32 { call.int(3) } else { 0 };
        if flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) != 0 {
            self.fail(call, libc::EINVAL);
            return;
        }
        if self.try_accept(call, fd, listener) {
            return;
        }
        if descriptor::is_nonblocking(fd) {
            self.fail(call, libc::EAGAIN);
            return;
        }
        let patience = SockRef::from(&fd).read_timeout().ok().flatten();
        let deadline = patience.map(|p| Instant::now() + p);
        let token = self.new_token();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        match epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags) {
            Ok(()) => {
                self.accepting.insert(token, Accepting { call: *call, socket, listener, deadline });
            }
            Err(e) => {
                self.fail(call, e.raw_os_error());
            }
        }
    }

    /// A call that waits: is there something now?
    pub(super) fn retry_accept(&mut self, token: u64) {
        let Some(accepting) = self.accepting.remove(&token) else { return };
        if !self.notify.is_valid(accepting.call.id) {
            self.counters.calls_gone += 1;
            self.watch_no_more(&accepting);
            return;
        }
        if self.try_accept(&accepting.call, accepting.socket.as_fd(), accepting.listener) {
            self.watch_no_more(&accepting);
            return;
        }
        // Another call had it.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        match epoll::modify(&self.epoll, accepting.socket.as_fd(), epoll::EventData::new_u64(token), flags) {
            Ok(()) => {
                self.accepting.insert(token, accepting);
            }
            Err(e) => {
                self.watch_no_more(&accepting);
                self.fail(&accepting.call, e.raw_os_error());
            }
        }
    }

    /// A call that waited is over. Its program has the socket as well, so that closing this descriptor alone would leave the
    /// epoll's entry, and the next call that is given the same number would find it there.
    pub(super) fn watch_no_more(&self, accepting: &Accepting) {
        if let Err(e) = epoll::delete(&self.epoll, accepting.socket.as_fd()) {
            log::debug!("a listening socket was not watched: {e}");
        }
    }

    /// Calls that wait beside a connection that came back from another: its listener does not say that it is there.
    pub(super) fn accept_returned(&mut self) {
        let has_one = |a: &Accepting| self.listeners.get(&a.listener).is_some_and(|l| !l.returned.is_empty());
        let tokens: Vec<_> = self.accepting.iter().filter(|(_, a)| has_one(a)).map(|(token, _)| *token).collect();
        tokens.into_iter().for_each(|token| self.retry_accept(token));
    }

    /// Calls whose socket has SO_RCVTIMEO.
    pub(super) fn accept_timeouts(&mut self, now: Instant) {
        let late = |a: &Accepting| a.deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<_> = self.accepting.iter().filter(|(_, a)| late(a)).map(|(token, _)| *token).collect();
        for token in late {
            if let Some(accepting) = self.accepting.remove(&token) {
                self.watch_no_more(&accepting);
                self.fail(&accepting.call, libc::EAGAIN);
            }
        }
    }

    /// Answers the call if that can be done now.
    fn try_accept(&mut self, call: &Call, fd: BorrowedFd<'_>, listener: u64) -> bool {
        let returned = self.listeners.get_mut(&listener).and_then(|l| l.returned.pop_front());
        let (accepted, from) = match returned {
            Some(returned) => returned,
            None => {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
                match crate::transport::poll(&mut fds, Some(Duration::ZERO)) {
                    Ok(_) if !fds[0].revents().is_empty() => {}
                    _ => return false,
                }
                let nonblocking = call.number == libc::SYS_accept4 as i32 && call.int(3) & libc::SOCK_NONBLOCK != 0;
                let flags = if nonblocking { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
                // All that accept from it ask here, one after the other: what polls readable is still there.
                match rustix::net::acceptfrom_with(fd, flags | SocketFlags::CLOEXEC) {
                    Ok((accepted, from)) => {
                        let from = from.and_then(|a| SocketAddr::try_from(a).ok());
                        (accepted, from.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)))
                    }
                    Err(rustix::io::Errno::AGAIN) => return false,
                    Err(e) => {
                        self.fail(call, e.raw_os_error());
                        return true;
                    }
                }
            }
        };
        let canonical = SocketAddr::new(from.ip().to_canonical(), from.port());
        let token = self.arriving.get(&canonical).copied();
        let remote = token.and_then(|t| self.connections.get(&t)).map_or(Endpoint::from(canonical), |c| c.line.remote);
        let [at, length_at] = [call.arguments[1], call.arguments[2]];
        if at != 0 {
            let bytes = address::bytes(remote, from.is_ipv6());
            if let Err(errno) = self.write_sized(call, at, length_at, &bytes) {
                if errno == libc::EINTR {
                    self.take_back(listener, accepted, from);
                    self.counters.calls_gone += 1;
                } else {
                    // The kernel, too, loses the connection then.
                    self.fail(call, errno);
                }
                return true;
            }
        }
        let close_on_exec = call.number == libc::SYS_accept4 as i32 && call.int(3) & libc::SOCK_CLOEXEC != 0;
        match self.notify.give_descriptor(call.id, accepted.as_fd(), close_on_exec) {
            Ok(Answered::Yes) => self.accepted(token, &accepted, canonical, listener),
            Ok(Answered::Gone) => {
                self.counters.calls_gone += 1;
                self.take_back(listener, accepted, from);
            }
            Err(e) => {
                self.take_back(listener, accepted, from);
                self.fail(call, e.raw_os_error().unwrap_or(libc::EMFILE));
            }
        }
        true
    }

    fn take_back(&mut self, listener: u64, accepted: OwnedFd, from: SocketAddr) {
        if let Some(listener) = self.listeners.get_mut(&listener) {
            listener.returned.push_back((accepted, from));
        }
    }

    /// The program has it.
    fn accepted(&mut self, token: Option<u64>, socket: &OwnedFd, from: SocketAddr, listener: u64) {
        self.arriving.remove(&from);
        let connection = token.and_then(|t| Some((t, self.connections.get_mut(&t)?)));
        let Some((token, connection)) = connection else {
            if token.is_none() {
                let reason = if from.ip().is_loopback() { FallbackReason::Local } else { FallbackReason::PassedOn };
                self.counters.kernel(&reason.to_string());
            }
            return;
        };
        self.counters.accepted += 1;
        // It has its listener's options.
        let inherited =
            self.listeners.get(&listener).is_some_and(|l| l.cookies.iter().any(|c| self.options.may_be_set(*c)));
        if inherited {
            descriptor::forward_all(socket.as_fd(), &connection.line, self.default_congestion.as_deref());
        }
        if let Ok(cookie) = cookie(socket.as_fd()) {
            connection.cookie = Some(cookie);
            if inherited {
                self.options.set_by(cookie);
            }
            self.sockets.insert(cookie, Known::Connection(token));
        }
    }
}

/// Where the socket is bound to; bound now if it was not, as the kernel's `listen` would.
fn bound(fd: BorrowedFd<'_>, is_ipv6: bool) -> Option<SocketAddr> {
    let socket = SockRef::from(&fd);
    let local = || socket.local_addr().ok()?.as_socket();
    let address = local()?;
    if address.port() != 0 {
        return Some(address);
    }
    let any: SocketAddr = if is_ipv6 { ([0; 16], 0).into() } else { ([0; 4], 0).into() };
    socket.bind(&any.into()).ok()?;
    local()
}

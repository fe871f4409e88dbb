//! `connect`: from the call to the bytes.
//!
//! 1. What is not for the card (another family, loopback, an option, the policy) the kernel does, as if nobody had asked.
//! 2. The way is known, or a worker finds it; a port is reserved; the card is asked. Whatever it refuses the kernel does: the program's
//!    socket is untouched so far.
//! 3. The card has taken it: the program's socket goes to the meeting, into SYN-SENT. A non-blocking call is told
//!    EINPROGRESS.
//! 4. The handshake is over: the supervisor meets the socket, which is established with that. A call that still waits
//!    is now the kernel's to finish.
//! 5. There is no connection: the socket is met and reset at once; the errno is told by the call that waits or when the
//!    program asks for SO_ERROR. But if it was the card that went away, the kernel connects the same socket instead.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use rustix::event::epoll;
use socket2::{SockAddr, SockRef};
use toe_abi::{Action, Endpoint, Reason, flags, state};

use super::super::address::Address;
use super::super::descriptor::{self, cookie};
use super::super::line::{Leg, Line};
use super::super::notify::Call;
use super::super::policy::{Direction, Subject};
use super::super::target::Process;
use super::super::workers::{Finding, Way};
use super::{Connection, Known, Phase, Supervisor, Waiting};
use crate::context::Context;
use crate::engine::{self, Broken};
use crate::fallback::FallbackReason;
use crate::surroundings::{Reservation, Route, Surroundings};

/// A CONNECT repeated so often without an answer means that the card is not there any more.
const CONNECT_REPEATS_MAX: u32 = 5;
/// So many ports are tried when the card still uses them for the same peer.
const PORTS_TRIED_MAX: u32 = 8;
const ADDRESS_BYTES_MAX: i32 = 128;

/// An active open, from the call on.
#[derive(Debug)]
pub(super) struct Opening {
    process: Rc<Process>,
    /// The descriptor's number in the call.
    number: i32,
    cookie: u64,
    is_ipv6: bool,
    remote: SocketAddr,
    /// What the program had bound it to; zeros if nothing.
    bound: SocketAddr,
    nonblocking: bool,
    ports_tried: u32,
    /// When a blocking call gives up (SO_SNDTIMEO).
    deadline: Option<Instant>,
}

/// A call that waits for a worker.
#[derive(Debug)]
pub(super) struct Routing {
    opening: Opening,
    waiting: Waiting,
}

impl Supervisor {
    pub(super) fn connect(&mut self, call: &Call) {
        let Some((process, socket)) = self.caller(call) else { return };
        let fd = socket.as_fd();
        let Some(is_ipv6) = descriptor::tcp_family(fd) else {
            self.proceed(call);
            return;
        };
        let length = call.int(2);
        let (true, Ok(cookie)) = ((0..=ADDRESS_BYTES_MAX).contains(&length), cookie(fd)) else {
            self.proceed(call);
            return;
        };
        let Some(bytes) = self.read(call, call.arguments[1], length as usize) else { return };
        let address = Address::parse(&bytes);
        match self.sockets.get(&cookie).cloned() {
            Some(Known::Connection(token)) => {
                if address == Address::Unspecified {
                    self.forget_name(token);
                    self.sockets.remove(&cookie);
                }
                self.connect_again(call, token, socket);
                return;
            }
            Some(Known::Ended { error: Some(errno), .. }) => {
                self.sockets.remove(&cookie);
                descriptor::disconnect(fd);
                self.fail(call, errno);
                return;
            }
            Some(Known::Ended { .. }) => {
                self.sockets.remove(&cookie);
                if address != Address::Unspecified && !is_established(fd) {
                    descriptor::disconnect(fd);
                }
            }
            Some(Known::Listener(_) | Known::Unsuitable(_)) | None => {}
        }
        let Address::Ip(remote) = address else {
            self.proceed(call);
            return;
        };
        // A socket of IPv4 takes no address of IPv6, and so on: the kernel has the errors. A socket that listens or is
        // connected likewise.
        if remote.is_ipv6() != is_ipv6 || remote.port() == 0 || !is_fresh(fd) {
            self.proceed(call);
            return;
        }
        let ip = remote.ip().to_canonical();
        let subject = Subject { process: process.id, direction: Direction::Connect, address: ip, port: remote.port() };
        if !self.is_for_card(fd, cookie, &subject) {
            self.proceed(call);
            return;
        }
        let nonblocking = descriptor::is_nonblocking(fd);
        let sock = SockRef::from(&socket);
        let bound = sock.local_addr().ok().and_then(|a| a.as_socket());
        let bound = bound.unwrap_or_else(|| SocketAddr::new(unspecified(is_ipv6), 0));
        let patience = if nonblocking { None } else { sock.write_timeout().ok().flatten() };
        let deadline = patience.map(|p| Instant::now() + p);
        let opening = Opening {
            process,
            number: call.int(0),
            cookie,
            is_ipv6,
            remote,
            bound,
            nonblocking,
            ports_tried: 0,
            deadline,
        };
        self.find_way(Routing { opening, waiting: Waiting { call: *call, socket } });
    }

    /// A program connects a socket once more that is on its way or connected: the kernel knows what to say.
    fn connect_again(&mut self, call: &Call, token: u64, socket: OwnedFd) {
        if let Some(Connection { phase: Phase::Handshake { waiting, .. } | Phase::Joining { waiting, .. }, .. }) =
            self.connections.get_mut(&token)
            && waiting.is_none()
            && !descriptor::is_nonblocking(socket.as_fd())
        {
            // A call that a signal had interrupted.
            *waiting = Some(Waiting { call: *call, socket });
            return;
        }
        self.proceed(call);
    }

    fn find_way(&mut self, routing: Routing) {
        let token = self.new_token();
        let surroundings = self.surroundings();
        let (remote, bound) = (routing.opening.remote.ip().to_canonical(), routing.opening.bound);
        if let Some((route, context)) = surroundings.known_way(remote) {
            self.go(token, routing, way(&*surroundings, context, route, bound));
            return;
        }
        self.routing.insert(token, routing);
        self.workers.ask(token, move || {
            let find = || {
                let route = surroundings.route(remote)?;
                let context = surroundings.context(route.interface)?;
                way(&*surroundings, context, route, bound)
            };
            Finding::Route(find())
        });
    }

    pub(super) fn routed(&mut self, token: u64, way: Result<Way, FallbackReason>) {
        let Some(routing) = self.routing.remove(&token) else { return };
        if self.notify.is_valid(routing.waiting.call.id) {
            self.go(token, routing, way);
        } else {
            self.counters.calls_gone += 1;
        }
    }

    /// The way is found: the card is asked.
    fn go(&mut self, token: u64, Routing { opening, waiting }: Routing, way: Result<Way, FallbackReason>) {
        let Way { context, route, reservation } = match way {
            Ok(way) => way,
            Err(reason) => {
                self.counters.kernel(&reason.to_string());
                self.proceed(&waiting.call);
                return;
            }
        };
        let bound = opening.bound.ip();
        let ip = if bound.is_unspecified() { route.local } else { bound.to_canonical() };
        let (local, remote) = (Endpoint::new(ip, reservation.port), Endpoint::from(opening.remote));
        let fd = waiting.socket.as_fd();
        let nodelay = self.options.may_be_set(opening.cookie)
            && descriptor::int(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY).is_ok_and(|v| v != 0);
        let connect_flags = if nodelay { flags::NODELAY } else { 0 };
        if opening.bound.port() != 0 {
            self.hear_out((local, remote));
        }
        context.keep_turn();
        self.drive(&context);
        let key = context.connect((local, remote), route.next_hop, route.mtu, connect_flags, reservation);
        key.1.watch(&self.watch, token);
        let line = Line::new(context, key, (local, remote));
        let cookie = opening.cookie;
        self.sockets.insert(cookie, Known::Connection(token));
        let connection = Connection { line, cookie: Some(cookie), phase: Phase::Asked { opening, waiting } };
        self.connections.insert(token, connection);
    }

    /// A program that has just reset a connection may use its port anew at once. That it has is known to its socket's other end, which may
    /// not have been told yet.
    fn hear_out(&mut self, ends: (Endpoint, Endpoint)) {
        let before =
            self.connections.iter().find(|(_, c)| (c.line.local, c.line.remote) == ends).map(|(token, _)| *token);
        if let Some(token) = before {
            self.handle_event(token, epoll::EventFlags::IN);
        }
    }

    /// The card was asked: what does it say?
    pub(super) fn progress_asked(&mut self, token: u64) {
        let Some(connection) = self.connections.get(&token) else { return };
        connection.line.waker.heard();
        let look = connection.line.context.look(connection.line.key, |c| (c.opening, c.connect_repeats()));
        match look {
            Some((engine::Opening::Asked, repeats)) if repeats < CONNECT_REPEATS_MAX => {}
            Some((engine::Opening::Taken, _)) => self.go_to_meeting(token),
            Some((engine::Opening::Refused { reason, action }, _)) => {
                let Some((line, mut opening, waiting)) = self.take_asked(token) else { return };
                if reason == Reason::AddressInUse as u32 {
                    opening.ports_tried += 1;
                    if opening.bound.port() != 0 || opening.ports_tried > PORTS_TRIED_MAX {
                        self.counters.failed("address-in-use");
                        self.fail(&waiting.call, libc::EADDRNOTAVAIL);
                        return;
                    }
                    // The port is held until another is found, or the kernel might choose it again.
                    let _held = line.context.take_reservation(line.key);
                    self.find_way(Routing { opening, waiting });
                } else if action == Action::Fallback {
                    self.counters.kernel(&FallbackReason::Card(reason).to_string());
                    self.proceed(&waiting.call);
                } else {
                    self.counters.failed(&FallbackReason::Card(reason).to_string());
                    self.fail(&waiting.call, libc::ENOBUFS);
                }
            }
            Some((engine::Opening::Asked, _)) | None => {
                if let Some((_line, _, waiting)) = self.take_asked(token) {
                    self.counters.kernel(&FallbackReason::CardSilent.to_string());
                    self.proceed(&waiting.call);
                }
            }
        }
    }

    /// Ends what was asked of the card; the socket is as it was before the call.
    fn take_asked(&mut self, token: u64) -> Option<(Line, Opening, Waiting)> {
        let connection = self.connections.remove(&token)?;
        if let Some(cookie) = connection.cookie {
            self.sockets.remove(&cookie);
        }
        match connection.phase {
            Phase::Asked { opening, waiting } => Some((connection.line, opening, waiting)),
            _ => None,
        }
    }

    /// The card has taken it: the program's socket waits from here on.
    fn go_to_meeting(&mut self, token: u64) {
        let Some((line, opening, waiting)) = self.take_asked(token) else { return };
        let fd = waiting.socket.as_fd();
        // An IPv6 socket that goes to an IPv4 address meets there, too: it may be bound to one.
        let is_ipv6 = line.remote.ip.is_ipv6();
        let program = self.meeting.address(is_ipv6).and_then(|at| {
            let at = if opening.is_ipv6 { mapped(at) } else { at };
            to_syn_sent(fd, &at.into()).then(|| local_address(fd)).flatten()
        });
        let Some(program) = program else {
            self.counters.kernel("no-loopback");
            self.proceed(&waiting.call);
            return;
        };
        if self.options.may_be_set(opening.cookie) {
            descriptor::forward_all(fd, &line, self.default_congestion.as_deref());
        }
        let waiting = if opening.nonblocking {
            self.fail(&waiting.call, libc::EINPROGRESS);
            None
        } else {
            Some(waiting)
        };
        let cookie = opening.cookie;
        self.sockets.insert(cookie, Known::Connection(token));
        let phase = Phase::Handshake { opening, waiting, program };
        self.connections.insert(token, Connection { line, cookie: Some(cookie), phase });
        self.progress_handshake(token);
    }

    /// The card's handshake: is it over?
    pub(super) fn progress_handshake(&mut self, token: u64) {
        let Some(connection) = self.connections.get(&token) else { return };
        connection.line.waker.heard();
        let look = connection.line.context.look(connection.line.key, |c| (c.broken(), c.has(state::ESTABLISHED)));
        match look {
            Some((None, false)) => {}
            Some((None, true)) => {
                self.counters.connected += 1;
                self.meet(token, None);
            }
            Some((Some(Broken::Aborted(reason)), _)) => {
                self.counters.failed(&FallbackReason::Card(reason).to_string());
                self.meet(token, Some(errno(reason)));
            }
            Some((Some(Broken::CardRestarted), _)) | None => self.fall_back(token, "card-restarted"),
            Some((Some(Broken::CardSilent), _)) => self.fall_back(token, "card-silent"),
        }
    }

    /// Establishes the program's socket.
    fn meet(&mut self, token: u64, failure: Option<i32>) {
        let Some(Connection { line, cookie, phase }) = self.connections.remove(&token) else { return };
        let Phase::Handshake { waiting, program, .. } = phase else { return };
        if let (Some(errno), Some(waiting)) = (failure, &waiting) {
            if let Some(cookie) = cookie {
                self.sockets.remove(&cookie);
            }
            descriptor::disconnect(waiting.socket.as_fd());
            self.fail(&waiting.call, errno);
            return;
        }
        if let (Some(_), Some(cookie)) = (failure, cookie) {
            self.end_socket(cookie, line.local, failure);
        }
        let leg = self.meeting.meet(program).map(|(socket, own)| Leg::new(socket, program, own));
        let leg = match leg.and_then(|leg| self.watch_leg(&leg, token).map(|()| leg)) {
            Ok(leg) => leg,
            Err(e) => {
                log::error!("a program's socket cannot be met: {e}");
                if let Some(waiting) = waiting {
                    self.fail(&waiting.call, libc::ENOBUFS);
                }
                return;
            }
        };
        let phase = Phase::Joining { leg, waiting, failure };
        self.connections.insert(token, Connection { line, cookie, phase });
    }

    /// The leg's handshake is over, one way or the other.
    pub(super) fn joined(&mut self, token: u64) {
        let Some(Connection { mut line, cookie, phase }) = self.connections.remove(&token) else { return };
        let Phase::Joining { leg, waiting, failure } = phase else { return };
        let error = leg.socket.take_error();
        if failure.is_some() {
            // Letting go resets it; the card has nothing any more.
            return;
        }
        if let Ok(None) = error {
            if let Some(waiting) = waiting {
                // The kernel sees that it is connected, and says so.
                self.proceed(&waiting.call);
            }
            self.connections.insert(token, Connection { line, cookie, phase: Phase::Open { leg } });
            self.progress(token);
            return;
        }
        // Nobody is there any more: closed meanwhile, or a listener that is gone.
        self.counters.orphans += 1;
        line.abort(self.now);
        self.arriving.retain(|_, t| *t != token);
        if let Some(cookie) = cookie {
            self.sockets.remove(&cookie);
        }
        self.look_after_listeners();
    }

    /// The card went away before the handshake's end: the kernel connects the same socket.
    fn fall_back(&mut self, token: u64, reason: &str) {
        let Some(Connection { line, cookie, phase }) = self.connections.remove(&token) else { return };
        let Phase::Handshake { opening, waiting, .. } = phase else { return };
        let name = cookie.unwrap_or_default();
        self.sockets.remove(&name);
        self.counters.kernel(reason);
        if let Some(waiting) = waiting {
            descriptor::disconnect(waiting.socket.as_fd());
            self.proceed(&waiting.call);
            return;
        }
        let socket = opening.process.descriptor(opening.number).ok();
        match socket.filter(|s| self::cookie(s.as_fd()).ok() == Some(name)) {
            Some(socket) => {
                descriptor::disconnect(socket.as_fd());
                let connected = SockRef::from(&socket).connect(&SockAddr::from(opening.remote));
                log::debug!("the kernel connects to {}: {connected:?}", opening.remote);
            }
            // It is at another number now, or in another process: it cannot be reached.
            None => self.end_socket(name, line.local, Some(libc::ECONNRESET)),
        }
    }

    /// Blocking calls whose socket has SO_SNDTIMEO.
    pub(super) fn connect_timeouts(&mut self, now: Instant) {
        let mut late = Vec::new();
        for connection in self.connections.values_mut() {
            if let Phase::Handshake { opening, waiting, .. } = &mut connection.phase
                && opening.deadline.is_some_and(|deadline| deadline <= now)
            {
                late.extend(waiting.take());
            }
        }
        for waiting in late {
            self.fail(&waiting.call, libc::EINPROGRESS);
        }
    }

    fn forget_name(&mut self, token: u64) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.cookie = None;
        }
    }
}

/// The way with a port, for a socket that is bound there.
fn way(by: &dyn Surroundings, context: Context, route: Route, bound: SocketAddr) -> Result<Way, FallbackReason> {
    let local = if bound.ip().is_unspecified() { route.local } else { bound.ip().to_canonical() };
    let reservation = if bound.port() == 0 {
        by.reserve(SocketAddr::new(local, 0)).map_err(|e| {
            log::warn!("no port: {e}");
            FallbackReason::System
        })?
    } else {
        // The program's own socket holds it.
        Reservation::own(bound.port(), Box::new(()))
    };
    Ok(Way { context, route, reservation })
}

fn unspecified(is_ipv6: bool) -> IpAddr {
    if is_ipv6 { std::net::Ipv6Addr::UNSPECIFIED.into() } else { std::net::Ipv4Addr::UNSPECIFIED.into() }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn local_address(fd: BorrowedFd<'_>) -> Option<SocketAddr> {
    let address = SockRef::from(&fd).local_addr().ok()?.as_socket()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Neither connected nor listening.
fn is_fresh(fd: BorrowedFd<'_>) -> bool {
    state_of(fd) == Some(TCP_CLOSE)
}

fn is_established(fd: BorrowedFd<'_>) -> bool {
    state_of(fd) != Some(TCP_CLOSE)
}

const TCP_CLOSE: u8 = 7;

/// The socket's state as the kernel has it.
fn state_of(fd: BorrowedFd<'_>) -> Option<u8> {
    // The state is the first byte of `tcp_info`.
    let word = descriptor::int(fd, libc::IPPROTO_TCP, libc::TCP_INFO).ok()?;
    Some(word.to_ne_bytes()[0])
}

/// Connects it to where nobody answers; whether it waits there.
fn to_syn_sent(fd: BorrowedFd<'_>, at: &SockAddr) -> bool {
    let connected = descriptor::without_waiting(fd, || SockRef::from(&fd).connect(at));
    matches!(connected, Ok(Err(e)) if e.raw_os_error() == Some(libc::EINPROGRESS))
}

/// What a program sees of an ending before the handshake's end.
fn errno(reason: u32) -> i32 {
    match Reason::from_u32(reason) {
        Some(Reason::Refused | Reason::Reset) => libc::ECONNREFUSED,
        Some(Reason::TimedOut) => libc::ETIMEDOUT,
        Some(Reason::NetworkUnreachable) => libc::ENETUNREACH,
        Some(Reason::PortUnreachable) => libc::ECONNREFUSED,
        Some(Reason::ProtocolUnreachable) => libc::ENOPROTOOPT,
        _ => libc::EHOSTUNREACH,
    }
}

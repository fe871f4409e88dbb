//! A TCP stream with std::net's shape, carried by the card or by the kernel.
//!
//! *Opening.* The way to the peer is looked up, a port is reserved, the card is asked. If it refuses and its operator
//! wants a fallback, the kernel's socket that holds the port is connected instead. A port that the card still uses for
//! the same peer (TIME-WAIT) is given back and another is tried.
//!
//! *Errors* have the kinds that std::net's have; the inner error is a [`CardError`]. An error of the connection is
//! told to every read and write from then on, not only to the first: a second thread must not take it for an orderly
//! end. [`TcpStream::take_error`] gives it once, as in std.
//!
//! *Closing.* Dropping the last handle closes both directions in order. Bytes that were written still go out: the drop
//! waits until the card has them or they are on their way to it with the last word, at most for a second (not at all if the stream
//! is non-blocking), and the context's thread goes on after that. A process that ends earlier than its context's thread is done loses them:
//! see [`crate::close_all`]. If received bytes were left unread, the connection is reset, as the kernel does it.

mod settings;
mod urgent;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use toe_abi::{Action, Endpoint, InfoResult, Reason, option, state};

pub use settings::PathState;

use crate::context::{Context, LINGER, Waker, connection_readiness};
use crate::engine::{self, Broken, ConnectionKey, Opening};
use crate::error::CardError;
use crate::fallback::{FallbackReason, Offload};
use crate::options::Options;
use crate::surroundings::Reservation;

/// So many ports are tried when the card still uses them for the same peer.
const PORTS_TRIED_MAX: usize = 8;
/// A CONNECT repeated so often without an answer (about 1.5 s) means that the card is not there any more.
const CONNECT_REPEATS_MAX: u32 = 5;

/// A TCP stream; see the module.
#[derive(Debug)]
pub struct TcpStream {
    carrier: Carrier,
}

#[derive(Debug)]
enum Carrier {
    Card(Arc<CardStream>),
    Kernel(std::net::TcpStream, FallbackReason),
}

#[derive(Debug)]
struct CardStream {
    context: Context,
    key: ConnectionKey,
    waker: Arc<Waker>,
    local: Endpoint,
    remote: Endpoint,
    nonblocking: AtomicBool,
    read_timeout: Mutex<Option<Duration>>,
    write_timeout: Mutex<Option<Duration>>,
    error_taken: AtomicBool,
    /// What [`TcpStream::set_nodelay`] set last, or [`NODELAY_UNKNOWN`].
    nodelay: AtomicU8,
}

/// It was never set on this stream, so that only the card knows.
const NODELAY_UNKNOWN: u8 = u8::MAX;

/// Why there is no card connection.
enum NotOnCard {
    Fallback(FallbackReason, Option<Reservation>),
    Failed(io::Error),
}

impl From<FallbackReason> for NotOnCard {
    fn from(reason: FallbackReason) -> Self {
        match reason {
            FallbackReason::Denied(reason) => Self::Failed(CardError::Refused(reason).into()),
            reason => Self::Fallback(reason, None),
        }
    }
}

impl TcpStream {
    /// Opens a connection to the first of the addresses that can be reached.
    ///
    /// # Errors
    /// As [`std::net::TcpStream::connect`], and [`CardError`].
    pub fn connect<A: ToSocketAddrs>(addresses: A) -> io::Result<Self> {
        Options::new().connect(addresses)
    }

    /// Opens a connection within `timeout`.
    ///
    /// # Errors
    /// As [`std::net::TcpStream::connect_timeout`], and [`CardError`].
    pub fn connect_timeout(address: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        Options::new().connect_timeout(address, timeout)
    }

    /// Opens a connection, on the card if that can be.
    pub(crate) fn open(options: &Options, remote: SocketAddr, timeout: Option<Duration>) -> io::Result<Self> {
        Self::open_with(options, remote, timeout, &[])
    }

    /// The same, and sends these bytes as its first.
    pub(crate) fn open_with(
        options: &Options,
        remote: SocketAddr,
        timeout: Option<Duration>,
        first: &[u8],
    ) -> io::Result<Self> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a timeout of zero: give at least one nanosecond"));
        }
        let deadline = timeout.map(|t| Instant::now() + t);
        match CardStream::open(options, remote, deadline, first) {
            Ok((stream, written)) => {
                let mut stream = Self { carrier: Carrier::Card(Arc::new(stream)) };
                stream.write_all(&first[written..])?;
                Ok(stream)
            }
            Err(NotOnCard::Failed(e)) => Err(e),
            Err(NotOnCard::Fallback(reason, reservation)) => {
                log::debug!("{remote} goes through the kernel: {reason}");
                let mut stream = kernel_connect(options, remote, deadline, reason, reservation)?;
                stream.write_all(first)?;
                Ok(stream)
            }
        }
    }

    /// A connection that the card announced.
    pub(crate) fn accepted(
        context: Context,
        key: ConnectionKey,
        waker: Arc<Waker>,
        local: Endpoint,
        remote: Endpoint,
    ) -> Self {
        let stream = CardStream::new(context, key, waker, local, remote);
        Self { carrier: Carrier::Card(Arc::new(stream)) }
    }

    /// A connection that the kernel carries.
    pub(crate) fn of_kernel(stream: std::net::TcpStream, reason: FallbackReason) -> Self {
        urgent::keep_in_line(&stream);
        Self { carrier: Carrier::Kernel(stream, reason) }
    }

    /// Who carries it, and why not the card.
    pub fn offload(&self) -> Offload {
        match &self.carrier {
            Carrier::Card(_) => Offload::Card,
            Carrier::Kernel(_, reason) => Offload::Kernel(*reason),
        }
    }

    /// The state of a card connection: the fields of Linux's `tcp_info`.
    ///
    /// # Errors
    /// `Unsupported` for a connection of the kernel (`ss -ti` shows it), [`CardError`].
    pub fn info(&self) -> io::Result<InfoResult> {
        match &self.carrier {
            Carrier::Card(c) => c.context.info(c.key),
            Carrier::Kernel(..) => {
                Err(io::Error::new(ErrorKind::Unsupported, "a connection of the kernel: `ss -ti` shows its state"))
            }
        }
    }

    /// The address of this end.
    ///
    /// # Errors
    /// As in std; none for a card connection.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.carrier {
            Carrier::Card(c) => Ok(c.local.into()),
            Carrier::Kernel(s, _) => s.local_addr(),
        }
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// As in std; none for a card connection.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.carrier {
            Carrier::Card(c) => Ok(c.remote.into()),
            Carrier::Kernel(s, _) => s.peer_addr(),
        }
    }

    /// Closes one direction or both. Bytes written before go out first.
    ///
    /// # Errors
    /// `NotConnected` if the connection is broken.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(c) => c.shutdown(how),
            Carrier::Kernel(s, _) => s.shutdown(how),
        }
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// As in std; none for a card connection.
    pub fn try_clone(&self) -> io::Result<Self> {
        let carrier = match &self.carrier {
            Carrier::Card(c) => Carrier::Card(c.clone()),
            Carrier::Kernel(s, reason) => Carrier::Kernel(s.try_clone()?, *reason),
        };
        Ok(Self { carrier })
    }

    /// Switches Nagle's algorithm off (or on again).
    ///
    /// # Errors
    /// As in std, and [`CardError`].
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(c) => {
                // The card says yes to either, and goes by it from the next byte on: nothing to wait for.
                c.nodelay.store(u8::from(nodelay), Ordering::Relaxed);
                c.context.act(|core| core.engine.set_option(Instant::now(), c.key, option::NODELAY, nodelay.into()));
                Ok(())
            }
            Carrier::Kernel(s, _) => s.set_nodelay(nodelay),
        }
    }

    /// Whether Nagle's algorithm is off.
    ///
    /// # Errors
    /// As in std, and [`CardError`].
    pub fn nodelay(&self) -> io::Result<bool> {
        match &self.carrier {
            Carrier::Card(c) => match c.nodelay.load(Ordering::Relaxed) {
                NODELAY_UNKNOWN => c.context.option(c.key, option::NODELAY, None).map(|on| on != 0),
                known => Ok(known != 0),
            },
            Carrier::Kernel(s, _) => s.nodelay(),
        }
    }

    /// How long a read waits; `None`: for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(c) => set_timeout(&c.read_timeout, timeout),
            Carrier::Kernel(s, _) => s.set_read_timeout(timeout),
        }
    }

    /// How long a write waits; `None`: for ever.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(c) => set_timeout(&c.write_timeout, timeout),
            Carrier::Kernel(s, _) => s.set_write_timeout(timeout),
        }
    }

    /// See [`TcpStream::set_read_timeout`].
    ///
    /// # Errors
    /// As in std; none for a card connection.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        match &self.carrier {
            Carrier::Card(c) => Ok(timeout(&c.read_timeout)),
            Carrier::Kernel(s, _) => s.read_timeout(),
        }
    }

    /// See [`TcpStream::set_write_timeout`].
    ///
    /// # Errors
    /// As in std; none for a card connection.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        match &self.carrier {
            Carrier::Card(c) => Ok(timeout(&c.write_timeout)),
            Carrier::Kernel(s, _) => s.write_timeout(),
        }
    }

    /// Makes reads and writes answer `WouldBlock` instead of waiting. The descriptor that [`AsFd`] gives tells when
    /// they would not.
    ///
    /// # Errors
    /// As in std; none for a card connection.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(c) => {
                c.nonblocking.store(nonblocking, Ordering::Relaxed);
                Ok(())
            }
            Carrier::Kernel(s, _) => s.set_nonblocking(nonblocking),
        }
    }

    /// Reads without taking.
    ///
    /// # Errors
    /// As [`Read::read`].
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.carrier {
            Carrier::Card(c) => c.read(buffer, true),
            Carrier::Kernel(s, _) => s.peek(buffer),
        }
    }

    /// The error that broke the connection, the first time that this is asked.
    ///
    /// # Errors
    /// As in std; none for a card connection.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match &self.carrier {
            Carrier::Card(c) => {
                let broken = c.context.act(|core| core.engine.connection(c.key).and_then(|c| c.broken()));
                Ok(broken
                    .filter(|_| !c.error_taken.swap(true, Ordering::Relaxed))
                    .map(|broken| CardError::Broken(broken).into()))
            }
            Carrier::Kernel(s, _) => s.take_error(),
        }
    }

    /// Makes the descriptor to poll, so that `as_fd` cannot fail.
    pub(crate) fn prepare_readiness(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.carrier {
            Carrier::Card(c) => {
                let readiness = c.context.readiness(&c.waker, |engine| connection_readiness(engine, c.key))?;
                Ok(readiness.as_fd())
            }
            Carrier::Kernel(s, _) => Ok(s.as_fd()),
        }
    }
}

fn timeout(cell: &Mutex<Option<Duration>>) -> Option<Duration> {
    *cell.lock().unwrap_or_else(|e| e.into_inner())
}

fn set_timeout(cell: &Mutex<Option<Duration>>, timeout: Option<Duration>) -> io::Result<()> {
    if timeout == Some(Duration::ZERO) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "a timeout of zero: give None to wait for ever"));
    }
    *cell.lock().unwrap_or_else(|e| e.into_inner()) = timeout;
    Ok(())
}

fn kernel_connect(
    options: &Options,
    remote: SocketAddr,
    deadline: Option<Instant>,
    reason: FallbackReason,
    reservation: Option<Reservation>,
) -> io::Result<TcpStream> {
    let socket = match reservation {
        Some(reservation) => reservation.into_kernel(),
        None => {
            let socket = options.surroundings().fallback_socket(remote)?;
            if let (Some(socket), Some(local)) = (&socket, options.local) {
                socket.bind(&SocketAddr::new(local, 0).into())?;
            }
            socket
        }
    };
    let Some(socket) = socket else {
        let text = format!("{reason}, and there is no kernel here to fall back to");
        let kind = match reason {
            FallbackReason::Card(reason) => io::Error::from(CardError::Refused(reason)).kind(),
            FallbackReason::NoNeighbour | FallbackReason::NoRoute => ErrorKind::HostUnreachable,
            _ => ErrorKind::Unsupported,
        };
        return Err(io::Error::new(kind, text));
    };
    match deadline {
        None => socket.connect(&remote.into())?,
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            socket.connect_timeout(&remote.into(), left)?;
        }
    }
    if options.nodelay {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(TcpStream::of_kernel(socket.into(), reason))
}

impl CardStream {
    fn new(context: Context, key: ConnectionKey, waker: Arc<Waker>, local: Endpoint, remote: Endpoint) -> Self {
        Self {
            context,
            key,
            waker,
            local,
            remote,
            nonblocking: AtomicBool::new(false),
            read_timeout: Mutex::new(None),
            write_timeout: Mutex::new(None),
            error_taken: AtomicBool::new(false),
            nodelay: AtomicU8::new(NODELAY_UNKNOWN),
        }
    }

    /// Opens it; gives how many of the first bytes the library has taken.
    fn open(
        options: &Options,
        remote: SocketAddr,
        deadline: Option<Instant>,
        first: &[u8],
    ) -> Result<(Self, usize), NotOnCard> {
        let surroundings = options.surroundings();
        let remote = Endpoint::from(remote);
        let route = surroundings.route(remote.ip)?;
        let context = surroundings.context(route.interface)?;
        let address = options.local.unwrap_or(route.local);
        let flags = options.flags();
        let mut in_use = Vec::new();
        for _ in 0..PORTS_TRIED_MAX {
            let reservation = surroundings.reserve(SocketAddr::new(address, 0)).map_err(NotOnCard::Failed)?;
            let local = Endpoint::new(address, reservation.port);
            let ends = (local, remote);
            let (key, waker) = context.connect(ends, route.next_hop, route.mtu, flags, reservation);
            // From here on its drop closes the connection.
            let stream = Self::new(context.clone(), key, waker, local, remote);
            match stream.wait_for_answer(deadline)? {
                Opening::Refused { reason, .. } if reason == Reason::AddressInUse as u32 => {
                    // Held until another is found, or the kernel might choose it again.
                    in_use.extend(context.take_reservation(key));
                }
                Opening::Refused { reason, action } => {
                    let reservation = context.take_reservation(key);
                    return Err(match action {
                        Action::Fallback => NotOnCard::Fallback(FallbackReason::Card(reason), reservation),
                        Action::Deny => NotOnCard::Failed(CardError::Refused(reason).into()),
                    });
                }
                Opening::Asked | Opening::Taken => {
                    // Before the peer is waited for: the SYN may carry it.
                    let written = stream.context.act(|core| core.engine.write(Instant::now(), stream.key, first));
                    stream.wait_for_peer(deadline).map_err(NotOnCard::Failed)?;
                    let written = if let engine::Write::Bytes(n) = written { n } else { 0 };
                    return Ok((stream, written));
                }
            }
        }
        Err(NotOnCard::Failed(CardError::Refused(Reason::AddressInUse as u32).into()))
    }

    /// Until the card has taken or refused the CONNECT.
    fn wait_for_answer(&self, deadline: Option<Instant>) -> Result<Opening, NotOnCard> {
        let answer = self.context.wait_for(self.key, &self.waker, deadline, |engine, _| {
            let c = engine.connection(self.key)?;
            match c.opening {
                Opening::Asked if c.connect_repeats() >= CONNECT_REPEATS_MAX => Some(None),
                Opening::Asked => None,
                answer => Some(Some(answer)),
            }
        });
        match answer {
            Some(Some(answer)) => Ok(answer),
            // The port stays with the card's connection, should there be one after all.
            Some(None) => Err(FallbackReason::CardSilent.into()),
            None => Err(NotOnCard::Failed(ErrorKind::TimedOut.into())),
        }
    }

    /// Until the handshake is complete, or the connection has failed.
    fn wait_for_peer(&self, deadline: Option<Instant>) -> io::Result<()> {
        let outcome = self.context.wait_for(self.key, &self.waker, deadline, |engine, _| {
            let Some(c) = engine.connection(self.key) else {
                return Some(Err(Broken::CardRestarted));
            };
            match c.broken() {
                Some(broken) => Some(Err(broken)),
                None => c.has(state::ESTABLISHED).then_some(Ok(())),
            }
        });
        match outcome {
            Some(outcome) => outcome.map_err(|broken| CardError::Broken(broken).into()),
            None => Err(io::Error::new(ErrorKind::TimedOut, "connection timed out")),
        }
    }

    /// When an operation that may take `timeout` gives up: in the past if it must not wait at all.
    fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        // The clock may be a system call.
        if self.nonblocking.load(Ordering::Relaxed) {
            return Some(Instant::now());
        }
        timeout.map(|t| Instant::now() + t)
    }

    fn read(&self, buffer: &mut [u8], peek: bool) -> io::Result<usize> {
        let deadline = self.deadline(timeout(&self.read_timeout));
        let result = self.context.wait_for(self.key, &self.waker, deadline, |engine, now| {
            match engine.read(now, self.key, buffer, peek) {
                engine::Read::Nothing => None,
                other => Some(other),
            }
        });
        match result {
            Some(engine::Read::Bytes(n)) => Ok(n),
            Some(engine::Read::End) => Ok(0),
            Some(engine::Read::Broken(broken)) => Err(CardError::Broken(broken).into()),
            Some(engine::Read::Nothing) | None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn write(&self, bytes: &[u8], urgent: bool) -> io::Result<usize> {
        let deadline = self.deadline(timeout(&self.write_timeout));
        let result = self.context.wait_for(self.key, &self.waker, deadline, |engine, now| {
            let written =
                if urgent { engine.write_urgent(now, self.key, bytes) } else { engine.write(now, self.key, bytes) };
            match written {
                engine::Write::Full => None,
                other => Some(other),
            }
        });
        match result {
            Some(engine::Write::Bytes(n)) => Ok(n),
            Some(engine::Write::ShutDown) => {
                Err(io::Error::new(ErrorKind::BrokenPipe, "this direction of the connection was shut down"))
            }
            Some(engine::Write::Broken(broken)) => Err(CardError::Broken(broken).into()),
            Some(engine::Write::Full) | None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.context.act(|core| {
            let broken = core.engine.connection(self.key).is_none_or(|c| c.broken().is_some());
            if broken {
                return Err(io::Error::new(ErrorKind::NotConnected, "the connection is broken"));
            }
            if how != Shutdown::Write {
                core.engine.shutdown_read(self.key);
            }
            if how != Shutdown::Read {
                core.engine.shutdown_write(Instant::now(), self.key);
            }
            Ok(())
        })
    }
}

impl Drop for CardStream {
    fn drop(&mut self) {
        let deadline = self.deadline(Some(LINGER));
        self.context.act(|core| core.engine.close(Instant::now(), self.key));
        // Only an established connection has data that would be worth waiting for, and only until the card has it.
        let key = self.key;
        let gone = self.context.wait_for(key, &self.waker, deadline, |engine, _| {
            engine.connection(key).is_none_or(|c| !c.has(state::ESTABLISHED) || c.has_left()).then_some(())
        });
        if gone.is_none() {
            log::debug!("the card has not all data of the connection to {} yet", self.remote);
        }
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.carrier {
            Carrier::Card(c) => c.read(buffer, false),
            Carrier::Kernel(s, _) => (&mut &*s).read(buffer),
        }
    }
}

impl Write for &TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.carrier {
            Carrier::Card(c) => c.write(bytes, false),
            Carrier::Kernel(s, _) => (&mut &*s).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for TcpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Something to poll: for a kernel connection its socket; for a card connection a descriptor that is readable when a
/// read would not wait, and writable when a write would not. It is made at the first call.
///
/// # Panics
/// If the process has no descriptor left at the first call.
impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.prepare_readiness() {
            Ok(fd) => fd,
            Err(e) => panic!("cannot make the descriptor to poll a connection with: {e}"),
        }
    }
}

/// See [`AsFd`].
impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

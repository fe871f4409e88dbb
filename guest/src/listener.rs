//! A TCP listener with std::net's shape, on the card and in the kernel at the same time.
//!
//! The kernel always listens on the port, too: so that nobody else gets it, and so that a connection that the card
//! hands on (its pools are full and the policy says so) still finds somebody. [`TcpListener::accept`] returns whichever
//! has one first; [`TcpStream::offload`] tells which it was.
//!
//! An unspecified IPv6 address listens on both families, as the kernel's does, with two listeners on the card.
//! A listener lives on the card of one interface: the one that has its address, or for an unspecified address the
//! chosen (or first) interface that has a card.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, epoll};
use toe_abi::{Action, Endpoint};

use crate::context::{Context, Waker};
use crate::engine::{ListenerKey, ListenerState};
use crate::error::CardError;
use crate::fallback::{FallbackReason, Offload};
use crate::options::Options;
use crate::stream::TcpStream;
use crate::transport::poll;

/// A TCP listener; see the module.
#[derive(Debug)]
pub struct TcpListener {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    local: SocketAddr,
    /// Listening and non-blocking; absent where there is no kernel.
    kernel: Option<std::net::TcpListener>,
    /// What holds the port where there is no kernel.
    _reservation: Option<crate::surroundings::Reservation>,
    card: Result<OnCard, FallbackReason>,
    /// An epoll of the above.
    poll: OwnedFd,
    nonblocking: AtomicBool,
}

#[derive(Debug)]
struct OnCard {
    context: Context,
    listeners: Vec<(ListenerKey, Arc<Waker>)>,
}

impl TcpListener {
    /// Listens on the first of the addresses that can be bound. Port 0 chooses one.
    ///
    /// # Errors
    /// As [`std::net::TcpListener::bind`]. That the card does not listen is an error only if its operator denies the
    /// fallback; see [`TcpListener::offload`].
    pub fn bind<A: ToSocketAddrs>(addresses: A) -> io::Result<Self> {
        Options::new().bind(addresses)
    }

    pub(crate) fn open(options: &Options, address: SocketAddr) -> io::Result<Self> {
        let surroundings = options.surroundings();
        let reservation = surroundings.reserve_listener(address)?;
        let mut local = address;
        local.set_port(reservation.port);
        let card = match on_card(options, local) {
            Ok(card) => Ok(card),
            Err((FallbackReason::Card(reason), Action::Deny)) => return Err(CardError::Refused(reason).into()),
            Err((reason, _)) => Err(reason),
        };
        if let Err(reason) = &card {
            log::debug!("{local} is listened on by the kernel alone: {reason}");
        }
        let (kernel, reservation) = match reservation.into_parts() {
            (Some(socket), _) => {
                // After the card, so that no connection finds the kernel because it came between the two.
                socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
                socket.set_nonblocking(true)?;
                (Some(std::net::TcpListener::from(socket)), None)
            }
            (None, own) => (None, own),
        };
        if kernel.is_none()
            && let Err(reason) = &card
        {
            return Err(io::Error::other(format!("{reason}, and there is no kernel here to fall back to")));
        }
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watch = |fd: BorrowedFd<'_>| epoll::add(&poll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN);
        if let Some(kernel) = &kernel {
            watch(kernel.as_fd())?;
        }
        if let Ok(card) = &card {
            for (key, waker) in &card.listeners {
                let readiness = card
                    .context
                    .readiness(waker, |engine| (engine.listener(*key).is_some_and(|l| l.has_announced()), false))?;
                watch(readiness.as_fd())?;
            }
        }
        let shared =
            Shared { local, kernel, _reservation: reservation, card, poll, nonblocking: AtomicBool::new(false) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether the card listens, or why the kernel does alone. The card may refuse later (after it was restarted).
    pub fn offload(&self) -> Offload {
        match &self.shared.card {
            Err(reason) => Offload::Kernel(*reason),
            Ok(card) => {
                let refused = card.context.act(|core| {
                    card.listeners.iter().find_map(|(key, _)| match core.engine.listener(*key).map(|l| l.state) {
                        Some(ListenerState::Refused { reason, .. }) => Some(reason),
                        _ => None,
                    })
                });
                refused.map_or(Offload::Card, |reason| Offload::Kernel(FallbackReason::Card(reason)))
            }
        }
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// None; the type is std's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.shared.local)
    }

    /// The next connection, from the card or from the kernel.
    ///
    /// # Errors
    /// As [`std::net::TcpListener::accept`].
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let shared = &self.shared;
        loop {
            if let Ok(card) = &shared.card {
                for (key, _) in &card.listeners {
                    if let Some((connection, waker, local, remote)) = card.context.accept(*key) {
                        let stream = TcpStream::accepted(card.context.clone(), connection, waker, local, remote);
                        return Ok((stream, remote.into()));
                    }
                }
            }
            if let Some(kernel) = &shared.kernel {
                match kernel.accept() {
                    Ok((stream, remote)) => {
                        stream.set_nonblocking(false)?;
                        let reason = match self.offload() {
                            Offload::Card => FallbackReason::PassedOn,
                            Offload::Kernel(reason) => reason,
                        };
                        return Ok((TcpStream::of_kernel(stream, reason), remote));
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
            if shared.nonblocking.load(Ordering::Relaxed) {
                return Err(ErrorKind::WouldBlock.into());
            }
            poll(&mut [PollFd::new(&shared.poll, PollFlags::IN)], None)?;
        }
    }

    /// The connections, one after the other, for ever.
    pub fn incoming(&self) -> impl Iterator<Item = io::Result<TcpStream>> + '_ {
        std::iter::repeat_with(|| self.accept().map(|(stream, _)| stream))
    }

    /// Makes `accept` answer `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// None; the type is std's.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.nonblocking.store(nonblocking, Ordering::Relaxed);
        Ok(())
    }

    /// Another handle of the same listener.
    ///
    /// # Errors
    /// None; the type is std's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { shared: self.shared.clone() })
    }

    /// The error that is pending on the kernel's socket.
    ///
    /// # Errors
    /// As [`std::net::TcpListener::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.shared.kernel.as_ref().map_or(Ok(None), std::net::TcpListener::take_error)
    }
}

/// Listens on the card.
fn on_card(options: &Options, local: SocketAddr) -> Result<OnCard, (FallbackReason, Action)> {
    let surroundings = options.surroundings();
    let context = surroundings.interface_of(local.ip()).and_then(|interface| surroundings.context(interface)).map_err(
        |reason| match reason {
            FallbackReason::Denied(reason) => (FallbackReason::Card(reason), Action::Deny),
            other => (other, Action::Fallback),
        },
    )?;
    let mut addresses = vec![local.ip().to_canonical()];
    if matches!(local.ip(), IpAddr::V6(v6) if v6.is_unspecified()) {
        addresses.push(Ipv4Addr::UNSPECIFIED.into());
    }
    let mut on_card = OnCard { context: context.clone(), listeners: Vec::new() };
    for address in addresses {
        on_card.listeners.push(context.listen(Endpoint::new(address, local.port()), options.wish()));
    }
    for (key, _) in &on_card.listeners {
        on_card.context.listening(*key)?;
    }
    Ok(on_card)
}

impl Drop for OnCard {
    fn drop(&mut self) {
        for (key, _) in &self.listeners {
            self.context.unlisten(*key);
        }
    }
}

/// Something to poll: readable when `accept` would not wait.
impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.poll.as_fd()
    }
}

/// See [`AsFd`].
impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

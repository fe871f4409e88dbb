//! How connections and listeners are opened.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use toe_abi::{flags, listen_policy};

use crate::engine::ListenWish;
use crate::listener::TcpListener;
use crate::route::Kernel;
use crate::stream::TcpStream;
use crate::surroundings::Surroundings;

/// What std's listeners have, too.
const BACKLOG: u32 = 128;

/// How connections and listeners are opened. By default through the interface that the route says (or
/// `TOE_INTERFACE`), over one context per interface that the whole process shares.
#[derive(Clone, Debug)]
pub struct Options {
    surroundings: Arc<dyn Surroundings>,
    pub(crate) nodelay: bool,
    pub(crate) fast_open: bool,
    pub(crate) local: Option<IpAddr>,
    pub(crate) backlog: u32,
    when_full: WhenFull,
}

/// What the card does with a connection to a listener for which it has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenFull {
    /// What its operator has chosen.
    #[default]
    AsTheCardSays,
    /// The SYN is dropped; the peer tries again.
    Deny,
    /// The kernel's listener gets it.
    Fallback,
    /// Another connection that makes no progress gives way, where the card has a way to choose one.
    Evict,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// The default: in a guest, with its kernel.
    pub fn new() -> Self {
        Self::with(Kernel::shared())
    }

    /// Only the card behind this interface, in a context of its own; everything else goes through the kernel.
    pub fn interface(name: &str) -> Self {
        Self::with(Arc::new(Kernel::on_interface(name)))
    }

    /// In other surroundings, such as a [`crate::Station`].
    pub fn with(surroundings: Arc<dyn Surroundings>) -> Self {
        Self {
            surroundings,
            nodelay: false,
            fast_open: false,
            local: None,
            backlog: BACKLOG,
            when_full: WhenFull::default(),
        }
    }

    /// Nagle's algorithm is off from the start.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Fast Open (RFC 7413), where the card's operator allows it: [`Options::connect_with`] puts the first bytes into
    /// the SYN once the server's cookie is known, and a listener takes such SYNs. A request may then arrive
    /// twice; the program must be able to bear that. The kernel's connections do without.
    #[must_use]
    pub fn fast_open(mut self, fast_open: bool) -> Self {
        self.fast_open = fast_open;
        self
    }

    /// The address of this end of connections that are opened; by default the one that the route says (RFC 9293, 3.9.1.1).
    #[must_use]
    pub fn local_address(mut self, local: IpAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// The flags of CONNECT and LISTEN.
    pub(crate) fn flags(&self) -> u32 {
        (if self.nodelay { flags::NODELAY } else { 0 }) | (if self.fast_open { flags::FAST_OPEN } else { 0 })
    }

    /// How many connections may wait to be accepted; 128 by default.
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// What the card does with a connection to a listener for which it has no room; by default what its operator has
    /// chosen.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// What LISTEN asks for.
    pub(crate) fn wish(&self) -> ListenWish {
        let policy = match self.when_full {
            WhenFull::AsTheCardSays => listen_policy::OF_CARD,
            WhenFull::Deny => listen_policy::DENY,
            WhenFull::Fallback => listen_policy::FALLBACK,
            WhenFull::Evict => listen_policy::EVICT,
        };
        ListenWish { backlog: self.backlog, flags: self.flags(), policy }
    }

    pub(crate) fn surroundings(&self) -> &dyn Surroundings {
        &*self.surroundings
    }

    /// Opens a connection to the first of the addresses that can be reached.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub fn connect<A: ToSocketAddrs>(&self, addresses: A) -> io::Result<TcpStream> {
        first_that_works(addresses, |address| TcpStream::open(self, address, None))
    }

    /// Opens a connection to the first of the addresses that can be reached, and sends these bytes as its first: with
    /// [`Options::fast_open`] perhaps in the SYN.
    ///
    /// # Errors
    /// As [`TcpStream::connect`], and as [`std::io::Write::write_all`].
    pub fn connect_with<A: ToSocketAddrs>(&self, addresses: A, first: &[u8]) -> io::Result<TcpStream> {
        first_that_works(addresses, |address| TcpStream::open_with(self, address, None, first))
    }

    /// Opens a connection within `timeout`.
    ///
    /// # Errors
    /// As [`TcpStream::connect_timeout`].
    pub fn connect_timeout(&self, address: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        TcpStream::open(self, *address, Some(timeout))
    }

    /// Listens on the first of the addresses that can be bound.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn bind<A: ToSocketAddrs>(&self, addresses: A) -> io::Result<TcpListener> {
        first_that_works(addresses, |address| TcpListener::open(self, address))
    }
}

fn first_that_works<A: ToSocketAddrs, T>(
    addresses: A,
    mut f: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for address in addresses.to_socket_addrs()? {
        match f(address) {
            Ok(t) => return Ok(t),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the name has no address")))
}

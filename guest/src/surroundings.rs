//! What a connection needs beside the card: a route, a port, and perhaps a kernel to fall back to.
//!
//! In a guest that is the guest's kernel ([`crate::Kernel`]), which owns addresses, routes and neighbours. A process
//! that speaks to the card without a guest plays that part itself ([`crate::Station`]).

use std::any::Any;
use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::Socket;
use toe_abi::Mac;

use crate::context::Context;
use crate::fallback::FallbackReason;

/// How frames get to a remote address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The index of the interface they leave by.
    pub interface: u32,
    /// The source address.
    pub local: IpAddr,
    /// The Ethernet address of the next hop.
    pub next_hop: Mac,
    /// The MTU of the route, in bytes.
    pub mtu: u32,
}

/// A port that nobody else on this machine gets as long as this lives.
#[derive(Debug)]
pub struct Reservation {
    /// The port.
    pub port: u16,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// Bound.
    Kernel(Socket),
    /// Whatever frees the port when it is dropped.
    Own(#[allow(dead_code, reason = "held for its drop")] Box<dyn Any + Send + Sync>),
}

impl Reservation {
    /// Of a socket of the kernel.
    ///
    /// # Errors
    /// If the socket is not bound to an IP address.
    pub fn kernel(socket: Socket) -> io::Result<Self> {
        let address = socket.local_addr()?.as_socket();
        let port = address.ok_or_else(|| io::Error::other("the reserving socket is not bound"))?.port();
        Ok(Self { port, held: Held::Kernel(socket) })
    }

    /// Of a port that `guard` frees when it is dropped.
    pub fn own(port: u16, guard: Box<dyn Any + Send + Sync>) -> Self {
        Self { port, held: Held::Own(guard) }
    }

    /// The kernel's socket, if that is what holds the port; the reservation itself otherwise.
    pub(crate) fn into_parts(self) -> (Option<Socket>, Option<Self>) {
        match self.held {
            Held::Kernel(socket) => (Some(socket), None),
            Held::Own(_) => (None, Some(self)),
        }
    }

    /// The kernel's socket, if that is what holds the port.
    pub fn into_kernel(self) -> Option<Socket> {
        match self.held {
            Held::Kernel(socket) => Some(socket),
            Held::Own(_) => None,
        }
    }
}

/// See the module.
pub trait Surroundings: Send + Sync + std::fmt::Debug {
    /// The way to `remote`. May take up to about a second, while the next hop is asked for its address.
    ///
    /// # Errors
    /// Why the card cannot be used for it.
    fn route(&self, remote: IpAddr) -> Result<Route, FallbackReason>;

    /// The way to `remote` and the context there, if both are known: nobody is asked, and nobody waits.
    fn known_way(&self, remote: IpAddr) -> Option<(Route, Context)> {
        let _ = remote;
        None
    }

    /// The interfaces on which a listener at `local` can be reached and that may have a card.
    ///
    /// # Errors
    /// Why there is none.
    fn interface_of(&self, local: IpAddr) -> Result<u32, FallbackReason>;

    /// The context on the card behind an interface; opened if need be.
    ///
    /// # Errors
    /// Why there is none.
    fn context(&self, interface: u32) -> Result<Context, FallbackReason>;

    /// Holds a port for an active open; port 0 chooses one.
    ///
    /// # Errors
    /// What the kernel says, such as that no port is left.
    fn reserve(&self, local: SocketAddr) -> io::Result<Reservation>;

    /// Holds a port for a listener; with a kernel, its socket is bound and does not listen yet.
    ///
    /// # Errors
    /// What the kernel says, such as that the port is in use.
    fn reserve_listener(&self, local: SocketAddr) -> io::Result<Reservation>;

    /// A socket of the kernel to fall back to when none is reserved; `None` if there is no kernel.
    ///
    /// # Errors
    /// What the kernel says.
    fn fallback_socket(&self, remote: SocketAddr) -> io::Result<Option<Socket>>;
}

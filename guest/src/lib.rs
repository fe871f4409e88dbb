//! TCP sockets for programs in a guest, carried by the card where it can and by the kernel where it cannot.
//!
//! [`TcpStream`] and [`TcpListener`] have std::net's shape and errors. Each connection says who carries it:
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use toe_guest::{Offload, TcpStream};
//!
//! let mut stream = TcpStream::connect("192.0.2.1:80")?;
//! match stream.offload() {
//!     Offload::Card => println!("on the card"),
//!     Offload::Kernel(reason) => println!("in the kernel: {reason}"),
//! }
//! stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
//! let mut answer = Vec::new();
//! stream.read_to_end(&mut answer)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The way of a byte: the program writes into the connection's buffer ([`Buffers`]), the engine puts it into channel
//! frames as far as the card's credit goes, the transport carries them to the card. A program in a guest needs
//! CAP_NET_RAW for that (without, everything goes through the kernel); a process on the host can speak to the card
//! directly, see [`VhostUser`] and [`Station`]. `docs/interface.md` describes the channel.

pub mod checksum;
pub mod closed;
mod context;
mod engine;
mod error;
mod fallback;
mod listener;
mod netlink;
mod options;
mod readiness;
mod route;
pub mod run;
mod sock_diag;
mod station;
mod stream;
mod surroundings;
#[cfg(feature = "tokio")]
pub mod tokio;
mod transport;
mod turn;
mod ways;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use context::{Context, Neighbourhood, random_key};
pub use engine::{Broken, Buffers, ChannelCounters, LimitRow, StatRow};
pub use error::CardError;
pub use fallback::{FallbackReason, Offload};
pub use listener::TcpListener;
pub use options::{Options, WhenFull};
pub use route::{INTERFACE_VARIABLE, Kernel};
pub use sock_diag::{KernelInfo, KernelSocket, kernel_sockets};
pub use station::{Station, StationConfig};
pub use stream::{PathState, TcpStream};
pub use surroundings::{Reservation, Route, Surroundings};
pub use toe_abi::{InfoResult, ResourceEvent, SocketEntry, socket_timer};
pub use transport::{PacketTransport, Transport, VhostUser, VhostUserError};

/// Ends the process's shared contexts in order: waits up to `patience` until the data of dropped streams is with the
/// card, then says BYE, which gives the card its memory back at once (without it, when the lease runs out).
/// Streams that are still open keep their context. To be called before a process ends.
pub fn close_all(patience: Duration) {
    Kernel::shared().close(patience);
}

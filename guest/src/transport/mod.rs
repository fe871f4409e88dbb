//! How frames get between this process and the card.
//!
//! A [`Transport`] carries whole Ethernet frames, the channel's and (where there is no kernel on this side) others.
//! It may lose frames; the channel makes good for that. It does not interpret them.

mod packet;
mod ring;
mod vhost_user;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use toe_abi::Mac;

pub use packet::PacketTransport;
#[cfg(test)]
pub(crate) use packet::link_address;
pub use vhost_user::{VhostUser, VhostUserError};

/// Carries frames; see the module. All methods may be called from any thread; `receive` and `wait` only from one
/// at a time.
pub trait Transport: Send + Sync + std::fmt::Debug {
    /// Our Ethernet address.
    fn mac(&self) -> Mac;

    /// The MTU of the interface, in bytes.
    fn mtu(&self) -> u32;

    /// The longest channel frame that can be sent and received, in bytes, Ethernet header included.
    fn frame_bytes_max(&self) -> usize;

    /// How many bytes of frames can wait here to be received before one is lost.
    fn receive_bytes_max(&self) -> u64;

    /// Sends a frame, without waiting.
    ///
    /// # Errors
    /// `WouldBlock`: no room now, [`Transport::wait`] tells when there is. Anything else: the frame is lost.
    fn send(&self, frame: &[u8]) -> io::Result<()>;

    /// Receives a frame into `buffer`, without waiting; its length.
    ///
    /// # Errors
    /// `WouldBlock`: there is none. Anything else: there may be one later.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Waits until a frame can be received, or sent (if `room` is wanted), or `wake` can be read, or `timeout` has
    /// passed. May return early.
    ///
    /// # Errors
    /// What the operating system says of waiting; none that goes away by itself.
    fn wait(&self, room: bool, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()>;
}

/// Waits for any of `fds`, for at most `timeout`. A signal ends the wait early.
pub(crate) fn poll(fds: &mut [rustix::event::PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|t| rustix::event::Timespec {
        tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: t.subsec_nanos().into(),
    });
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

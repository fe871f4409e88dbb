//! How frames get between this process and the card.
//!
//! A [`Transport`] carries whole Ethernet frames, the channel's and (where there is no kernel on this side) others.
//! It may lose frames; the channel makes good for that. It does not interpret them.

mod huge_pages;
mod packet;
mod ring;
mod ring_memory;
mod vhost_user;

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use toe_abi::Mac;

pub use packet::PacketTransport;
#[cfg(test)]
pub(crate) use packet::link_address;
pub use ring_memory::RingMemory;
pub(crate) use ring_memory::{RING_BYTES, RingPlace};
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

    /// Sends frames in their order, without waiting; how many were sent. One at least, if there is no error.
    ///
    /// # Errors
    /// Those of [`Transport::send`], about the first of them.
    fn send_many(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        for (sent, frame) in frames.iter().enumerate() {
            match self.send(frame) {
                Ok(()) => {}
                Err(e) if sent == 0 => return Err(e),
                // It comes again when this frame is the first.
                Err(_) => return Ok(sent),
            }
        }
        Ok(frames.len())
    }

    /// Receives a frame into `buffer`, without waiting; its length.
    ///
    /// # Errors
    /// `WouldBlock`: there is none. Anything else: there may be one later.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Receives frames into `buffers`, and their lengths into `lengths`, without waiting; how many. Less than there is room for
    /// means that no more were there.
    ///
    /// # Errors
    /// Those of [`Transport::receive`], if there was none.
    fn receive_many(&self, buffers: &mut [Vec<u8>], lengths: &mut [usize]) -> io::Result<usize> {
        for (received, (buffer, length)) in buffers.iter_mut().zip(lengths.iter_mut()).enumerate() {
            match self.receive(buffer) {
                Ok(n) => *length = n,
                Err(e) if received == 0 => return Err(e),
                Err(_) => return Ok(received),
            }
        }
        Ok(buffers.len())
    }

    /// Whether [`Transport::receive_many`] without a frame costs next to nothing: no system call.
    fn looks_for_free(&self) -> bool {
        false
    }

    /// Waits until a frame can be received, or sent (if `room` is wanted), or `wake` can be read, or `timeout` has
    /// passed. May return early.
    ///
    /// # Errors
    /// What the operating system says of waiting; none that goes away by itself.
    fn wait(&self, room: bool, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()>;

    /// The descriptor that is readable (and writable) when [`Transport::wait`] would return for a frame (and for room), for who
    /// waits for other things as well. `None` if there is no such.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Memory of this process that the card reaches, too, if it says that it reaches any; `None` if there is no such.
    fn rings(&self) -> Option<RingMemory> {
        None
    }
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

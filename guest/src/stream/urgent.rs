//! Urgent data (RFC 9293, 3.8.5; 6093): a mark in the stream that the other end learns of at once.
//!
//! Urgent bytes are ordinary bytes, in their place in the stream, whoever carries the connection: sockets of the kernel
//! are set to SO_OOBINLINE.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{Carrier, TcpStream};
use crate::engine::Broken;
use crate::error::CardError;

pub(super) fn keep_in_line(stream: &std::net::TcpStream) {
    if let Err(e) = SockRef::from(stream).set_out_of_band_inline(true) {
        log::warn!("urgent data of the kernel's connection will not be in its place: {e}");
    }
}

impl TcpStream {
    /// Sends bytes as urgent data: the peer learns at once that everything up to the last of them is urgent. As with
    /// a write, not all of them may be taken; the rest is to be sent as urgent, too.
    ///
    /// # Errors
    /// As [`std::io::Write::write`].
    pub fn send_urgent(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.carrier {
            Carrier::Card(c) => c.write(bytes, true),
            Carrier::Kernel(s, _) => SockRef::from(s).send_out_of_band(bytes),
        }
    }

    /// How many bytes are to be read until the end of the peer's urgent data; zero if none is pending. They may be yet
    /// to come.
    ///
    /// # Errors
    /// `Unsupported` for a connection of the kernel, which does not say.
    pub fn urgent(&self) -> io::Result<u64> {
        match &self.carrier {
            Carrier::Card(c) => Ok(c.context.act(|core| core.engine.connection(c.key).map_or(0, |c| c.urgent_left()))),
            Carrier::Kernel(..) => Err(unsupported()),
        }
    }

    /// Waits until urgent data is pending; gives what [`TcpStream::urgent`] then gives.
    ///
    /// # Errors
    /// `WouldBlock` if there was none within `timeout`, [`CardError`] if the connection broke, and as
    /// [`TcpStream::urgent`].
    pub fn wait_urgent(&self, timeout: Option<Duration>) -> io::Result<u64> {
        let Carrier::Card(c) = &self.carrier else {
            return Err(unsupported());
        };
        let deadline = timeout.map(|t| Instant::now() + t);
        let outcome = c.context.wait_for(c.key, &c.waker, deadline, |engine, _| {
            let Some(connection) = engine.connection(c.key) else {
                return Some(Err(Broken::CardRestarted));
            };
            match (connection.urgent_left(), connection.broken()) {
                (0, Some(broken)) => Some(Err(broken)),
                (0, None) => None,
                (left, _) => Some(Ok(left)),
            }
        });
        outcome.ok_or(ErrorKind::WouldBlock)?.map_err(|broken| CardError::Broken(broken).into())
    }
}

fn unsupported() -> io::Error {
    io::Error::new(ErrorKind::Unsupported, "a connection of the kernel, which does not say where urgent data ends")
}

//! One stream, whoever carries it, so that one program does the same on both.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::Result;
use toe_guest_tests::{Bench, Namespace};

/// How often who waits for a stream looks whether it is over.
const LOOK: Duration = Duration::from_millis(200);

/// A stream of the card or of the kernel.
#[derive(Debug)]
pub enum Stream {
    /// The card's.
    Card(toe_guest::TcpStream),
    /// The kernel's.
    Kernel(std::net::TcpStream),
}

impl Stream {
    /// Whether it waits, and if so, never for long without looking up.
    pub fn patient(self, waits: bool) -> io::Result<Self> {
        match &self {
            Self::Card(stream) => {
                stream.set_nonblocking(!waits)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LOOK))?;
                stream.set_write_timeout(Some(LOOK))?;
            }
            Self::Kernel(stream) => {
                stream.set_nonblocking(!waits)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LOOK))?;
                stream.set_write_timeout(Some(LOOK))?;
            }
        }
        Ok(self)
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Card(stream) => (&mut &*stream).read(buffer),
            Stream::Kernel(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Card(stream) => (&mut &*stream).write(bytes),
            Stream::Kernel(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Card(stream) => stream.as_fd(),
            Self::Kernel(stream) => stream.as_fd(),
        }
    }
}

/// Where streams are opened.
pub enum Near<'a> {
    /// By this process on the card.
    Card(&'a Bench),
    /// By the kernel in a namespace.
    Kernel(&'a Namespace),
}

impl Near<'_> {
    /// Does `work` where sockets that it makes are on this side.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self {
            Self::Card(_) => work(),
            Self::Kernel(namespace) => namespace.enter(work),
        }
    }

    /// Opens a stream; for the kernel's, the thread is inside.
    pub fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        Ok(match self {
            Self::Card(bench) => Stream::Card(bench.options().connect(to)?),
            Self::Kernel(_) => Stream::Kernel(std::net::TcpStream::connect(to)?),
        })
    }
}

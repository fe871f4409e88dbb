//! The same streams and listeners for Tokio: `AsyncRead` and `AsyncWrite` over card and kernel alike.
//!
//! They wait on the descriptor that a stream of this library shows its readiness with, so that no thread waits for them.
//! Two things do take a thread of Tokio's pool for blocking work: opening a connection, since the way to the peer is looked
//! up and the card asked, and opening a listener. A connection whose opening is given up (its future dropped) is still
//! opened, and then closed.
//!
//! Dropping a stream does not wait: what was written goes out in the background, see [`crate::close_all`].

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::unix::AsyncFd;
use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::task::spawn_blocking;

use crate::Options;

/// A TCP stream, as [`crate::TcpStream`].
#[derive(Debug)]
pub struct TcpStream {
    inner: AsyncFd<crate::TcpStream>,
}

impl TcpStream {
    /// Opens a connection to the first of the addresses that can be reached.
    ///
    /// # Errors
    /// As [`crate::TcpStream::connect`].
    pub async fn connect<A: ToSocketAddrs + Send + 'static>(addresses: A) -> io::Result<Self> {
        Self::connect_with(Options::new(), addresses).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Options::connect`].
    pub async fn connect_with<A: ToSocketAddrs + Send + 'static>(options: Options, addresses: A) -> io::Result<Self> {
        Self::from_std(blocking(move || options.connect(addresses)).await?)
    }

    /// Takes a stream of this library, which becomes non-blocking. To be called in a runtime.
    ///
    /// # Errors
    /// No descriptor is left, or the runtime cannot watch it.
    ///
    /// # Panics
    /// Outside of a runtime that does I/O.
    pub fn from_std(stream: crate::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.prepare_readiness()?;
        // SAFETY: a stream's descriptor is made once, is the stream's own, and is closed with it: of the kernel's socket
        // and of the readiness of a card connection alike.
        let inner = unsafe { AsyncFd::register(stream) }?;
        Ok(Self { inner })
    }

    /// The stream within, for what it can be asked and set.
    pub fn get_ref(&self) -> &crate::TcpStream {
        self.inner.get_ref()
    }

    /// Gives the stream back, still non-blocking.
    pub fn into_std(self) -> crate::TcpStream {
        self.inner.into_inner()
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.inner.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            match guard.try_io(|inner| inner.get_ref().read(room)) {
                Ok(Ok(bytes)) => {
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                // It was readable a moment ago.
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.inner.poll_write_ready(context))?;
            if let Ok(result) = guard.try_io(|inner| inner.get_ref().write(bytes)) {
                return Poll::Ready(result);
            }
        }
    }

    /// Nothing is held back here.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes our half, behind what was written.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_ref().shutdown(Shutdown::Write))
    }
}

/// A TCP listener, as [`crate::TcpListener`].
#[derive(Debug)]
pub struct TcpListener {
    inner: AsyncFd<crate::TcpListener>,
}

impl TcpListener {
    /// Listens on the first of the addresses that can be bound.
    ///
    /// # Errors
    /// As [`crate::TcpListener::bind`].
    pub async fn bind<A: ToSocketAddrs + Send + 'static>(addresses: A) -> io::Result<Self> {
        Self::bind_with(Options::new(), addresses).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Options::bind`].
    pub async fn bind_with<A: ToSocketAddrs + Send + 'static>(options: Options, addresses: A) -> io::Result<Self> {
        Self::from_std(blocking(move || options.bind(addresses)).await?)
    }

    /// Takes a listener of this library, which becomes non-blocking. To be called in a runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    ///
    /// # Panics
    /// Outside of a runtime that does I/O.
    pub fn from_std(listener: crate::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // SAFETY: a listener's descriptor is made with it, is its own, and is closed with it.
        let inner = unsafe { AsyncFd::register(listener) }?;
        Ok(Self { inner })
    }

    /// The listener within, for what it can be asked.
    pub fn get_ref(&self) -> &crate::TcpListener {
        self.inner.get_ref()
    }

    /// The next connection, from the card or from the kernel.
    ///
    /// # Errors
    /// As [`crate::TcpListener::accept`].
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let mut guard = self.inner.readable().await?;
            if let Ok(result) = guard.try_io(|inner| inner.get_ref().accept()) {
                let (stream, remote) = result?;
                return Ok((TcpStream::from_std(stream)?, remote));
            }
        }
    }
}

/// Does something that waits where that harms nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

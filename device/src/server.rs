//! Frontends: they come, are served one at a time, and go; the card stays.
//!
//! A daemon of `vhost-user-backend` serves one connection, so each gets its own, behind a [`relay`]. A second
//! frontend waits in the socket's queue until the first has gone.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketType, sockopt};
use vhost::vhost_user::Listener;
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::tempdir::TempDir;

use crate::backend::Backend;
use crate::card::{Card, Stop};
use crate::net::Features;
use crate::relay;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens there.
    #[error("{0} is in use: another process listens on it; stop that one or name another path")]
    InUse(PathBuf),
    /// Something else than a socket is there.
    #[error("{0} exists and is no socket: remove it or name another path")]
    NoSocket(PathBuf),
    /// Anything else.
    #[error("socket {0}: {1}; is the directory there, and writable for you?")]
    Bind(PathBuf, io::Error),
    /// `--fd` with something else.
    #[error("--fd {0} is no open Unix stream socket: {1}")]
    Descriptor(RawFd, io::Error),
}

/// Listens on `path`. A socket file that nobody listens on any more is replaced.
///
/// # Errors
/// See [`SocketError`].
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    bind_as(path, |path| UnixListener::bind(path))
}

/// The same, for a socket that only its owner may open, from the first moment on: its file has mode 0600.
///
/// # Errors
/// See [`SocketError`].
pub fn bind_private(path: &Path) -> Result<UnixListener, SocketError> {
    bind_as(path, |path| {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, rustix::net::SocketFlags::CLOEXEC, None)?;
        // The file gets the mode of the socket that is bound to it.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, 128)?;
        Ok(socket.into())
    })
}

fn bind_as(path: &Path, bind: impl Fn(&Path) -> io::Result<UnixListener>) -> Result<UnixListener, SocketError> {
    match bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        other => return other.map_err(|error| SocketError::Bind(path.to_owned(), error)),
    }
    let other = |error| SocketError::Bind(path.to_owned(), error);
    if !std::fs::symlink_metadata(path).map_err(other)?.file_type().is_socket() {
        return Err(SocketError::NoSocket(path.to_owned()));
    }
    // A process that was killed a moment ago may still be about to close its socket.
    let patience = Instant::now() + Duration::from_secs(1);
    loop {
        match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            _ if Instant::now() < patience => std::thread::sleep(Duration::from_millis(50)),
            _ => return Err(SocketError::InUse(path.to_owned())),
        }
    }
    std::fs::remove_file(path).map_err(other)?;
    bind(path).map_err(other)
}

/// Where frontends come from.
#[derive(Debug)]
pub enum Source {
    /// Any number of them, one after the other.
    Listener(UnixListener),
    /// Only one, which is there already.
    Connected(UnixStream),
}

impl Source {
    /// What the descriptor that was inherited is: a listening or a connected socket.
    ///
    /// # Errors
    /// It is neither, or not open.
    pub fn from_inherited(fd: RawFd) -> Result<Self, SocketError> {
        let bad = |error: io::Error| SocketError::Descriptor(fd, error);
        // SAFETY: F_GETFD looks whether the number is open, and does nothing to what is behind it.
        if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            return Err(bad(io::Error::from_raw_os_error(libc::EBADF)));
        }
        // SAFETY: it is open, as was just seen, and by QEMU's convention for `--fd` it was handed over to this process
        // for this purpose; the caller calls this once, before it opens anything itself.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let domain = sockopt::socket_domain(&fd).map_err(|e| bad(e.into()))?;
        let kind = sockopt::socket_type(&fd).map_err(|e| bad(e.into()))?;
        if domain != AddressFamily::UNIX || kind != SocketType::STREAM {
            return Err(bad(io::Error::from_raw_os_error(libc::EPROTOTYPE)));
        }
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(|e| bad(e.into()))?;
        Ok(if sockopt::socket_acceptconn(&fd).map_err(|e| bad(e.into()))? {
            Self::Listener(fd.into())
        } else {
            Self::Connected(fd.into())
        })
    }
}

/// What a frontend is offered.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Features.
    pub features: Features,
    /// Pairs of rings.
    pub queue_pairs: u16,
}

/// Serves frontends until `stop`, or until the only one has gone.
///
/// # Errors
/// Waiting for a frontend fails. What goes wrong with one of them is logged, and the next one is waited for.
pub fn serve(source: Source, card: &Arc<Card>, offer: Offer, stop: &Stop) -> io::Result<()> {
    let listener = match source {
        Source::Connected(frontend) => {
            log_end(connection(&frontend, card, offer, stop));
            return Ok(());
        }
        Source::Listener(listener) => listener,
    };
    listener.set_nonblocking(true)?;
    while !stop.is_set() {
        let mut fds = [PollFd::new(&listener, PollFlags::IN), PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        match listener.accept() {
            Ok((frontend, _)) => {
                frontend.set_nonblocking(false)?;
                log_end(connection(&frontend, card, offer, stop));
            }
            // Gone before it was accepted.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn log_end(result: Result<(), Box<dyn std::error::Error>>) {
    match result {
        Ok(()) => log::info!("the frontend has gone"),
        Err(error) => log::warn!("the connection to the frontend ended: {error}"),
    }
}

fn connection(
    frontend: &UnixStream,
    card: &Arc<Card>,
    offer: Offer,
    stop: &Stop,
) -> Result<(), Box<dyn std::error::Error>> {
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let id = card.connect(memory.clone());
    log::info!("a frontend has come");
    let result = daemon(frontend, card, offer, stop, id, memory);
    card.disconnect(id);
    result
}

fn daemon(
    frontend: &UnixStream,
    card: &Arc<Card>,
    offer: Offer,
    stop: &Stop,
    id: crate::card::Connection,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
) -> Result<(), Box<dyn std::error::Error>> {
    let backend = Arc::new(Backend::new(card.clone(), id, offer.features, offer.queue_pairs)?);
    let mut daemon =
        VhostUserDaemon::new("toe-vhost-user".to_owned(), backend, memory).map_err(|error| error.to_string())?;
    let relay_end = start(&mut daemon)?;
    let relayed = relay::run(frontend, &relay_end, stop);
    // The guest's rings are let go before its memory is.
    card.disconnect(id);
    drop(relay_end);
    // A daemon that is hung up on calls that an error; the one to tell of is that it hung up first.
    let waited = daemon.wait();
    relayed?;
    match waited {
        Err(vhost_user_backend::Error::HandleRequest(vhost::vhost_user::Error::Disconnected)) => Ok(()),
        other => other.map_err(|error| error.to_string().into()),
    }
}

/// Starts the daemon on one end of a connection; gives the other.
///
/// The daemon only takes a listener. So one is made, in a directory that nobody else can enter, for just as long as it
/// takes to connect to it.
fn start(daemon: &mut VhostUserDaemon<Arc<Backend>>) -> Result<UnixStream, Box<dyn std::error::Error>> {
    let directory = TempDir::new().map_err(|error| {
        format!("no private directory could be made in {}: {error}; set TMPDIR", std::env::temp_dir().display())
    })?;
    let path = directory.as_path().join("daemon.sock");
    let listener = UnixListener::bind(&path)?;
    let relay_end = UnixStream::connect(&path)?;
    daemon.start(&mut Listener::from(listener)).map_err(|error| error.to_string())?;
    Ok(relay_end)
}

/// A socket file that is removed with its owner.
#[derive(Debug)]
pub struct SocketFile(pub PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            log::debug!("{} could not be removed: {error}", self.0.display());
        }
    }
}

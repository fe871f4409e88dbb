//! Descriptors that are not sockets: pipes, and moving data between them and a socket.

use std::os::fd::RawFd;

use crate::errno::{Attempt, Errno};
use crate::sockets::Sockets;

/// A descriptor of the kernel's that stands for one of ours: it is open, a program can close it, and nothing else.
///
/// # Errors
/// The kernel's.
pub fn placeholder() -> Result<RawFd, Errno> {
    // SAFETY: no memory is handed over.
    match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } {
        -1 => Err(Errno::last()),
        fd => Ok(fd),
    }
}

/// Closes a descriptor of the kernel's.
///
/// # Errors
/// The kernel's.
pub fn close(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: the caller was told to close this descriptor, or has made it; no Rust object owns it.
    if unsafe { libc::close(fd) } == 0 { Ok(()) } else { Err(Errno::last()) }
}

/// `read` of the kernel's.
///
/// # Errors
/// The kernel's.
pub fn read(fd: RawFd, max: usize) -> Result<Vec<u8>, Errno> {
    let mut data = vec![0u8; max];
    // SAFETY: `data` has `max` bytes, all ours.
    let n = unsafe { libc::read(fd, data.as_mut_ptr().cast(), max) };
    data.truncate(usize::try_from(n).map_err(|_| Errno::last())?);
    Ok(data)
}

/// `write` of the kernel's.
///
/// # Errors
/// The kernel's.
pub fn write(fd: RawFd, data: &[u8]) -> Result<usize, Errno> {
    // SAFETY: `data` is readable for its whole length.
    let n = unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) };
    usize::try_from(n).map_err(|_| Errno::last())
}

fn filled(pipe: RawFd) -> Result<usize, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    if unsafe { libc::ioctl(pipe, libc::FIONREAD, &raw mut bytes) } != 0 {
        return Err(Errno::last());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

fn capacity(pipe: RawFd) -> Result<usize, Errno> {
    // SAFETY: no memory is handed over.
    let bytes = unsafe { libc::fcntl(pipe, libc::F_GETPIPE_SZ) };
    usize::try_from(bytes).map_err(|_| Errno(libc::EINVAL))
}

impl Sockets {
    /// `splice` between a socket and a pipe; nothing is lost if one takes less than the other has. The pipe is never
    /// waited for.
    ///
    /// # Errors
    /// `EINVAL` if not exactly one of them is a socket of ours, `EAGAIN` if the pipe is full or empty, or the socket's.
    pub fn splice(&mut self, from: RawFd, to: RawFd, max: usize) -> Attempt<usize> {
        match (self.get(from).is_some(), self.get(to).is_some()) {
            (true, false) => {
                // Part of a page of the pipe may be in use without being full.
                let free = capacity(to)?.saturating_sub(filled(to)?.next_multiple_of(4096));
                if free == 0 {
                    return Err(Errno(libc::EAGAIN));
                }
                let Some(data) = self.receive(from, max.min(free), false)? else { return Ok(None) };
                if data.is_empty() { Ok(Some(0)) } else { write(to, &data).map(Some) }
            }
            (false, true) => {
                let waiting = filled(from)?.min(max);
                if waiting == 0 {
                    return Err(Errno(libc::EAGAIN));
                }
                // The error, or that there is no connection yet, comes before the pipe is emptied.
                let Some(0) = self.send(to, &[], false)? else { return Ok(None) };
                let room = self.send_room(to).min(waiting as u64) as usize;
                if room == 0 {
                    return Ok(None);
                }
                let data = read(from, room)?;
                self.send(to, &data, false)
            }
            _ => Err(Errno(libc::EINVAL)),
        }
    }
}

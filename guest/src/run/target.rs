//! The program under supervision: its memory and its descriptors.
//!
//! Everything that is read is read once and then belongs to the supervisor. The thread that made a call may die
//! meanwhile, and its id come to name another; so whoever uses what was read asks first whether the call still waits
//! ([`super::notify::Listener::is_valid`]).

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// So many threads' processes are remembered.
const THREADS_MAX: usize = 4096;

/// Processes by their threads.
#[derive(Debug, Default)]
pub(super) struct Targets {
    by_thread: HashMap<u32, Rc<Process>>,
}

/// A process of the program.
#[derive(Debug)]
pub(super) struct Process {
    /// Its id.
    pub(super) id: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// A descriptor for what its descriptor `fd` is.
    ///
    /// # Errors
    /// EBADF if it has none, EPERM if this process must not look into it.
    pub(super) fn descriptor(&self, fd: i32) -> io::Result<OwnedFd> {
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(pidfd_getfd(&self.pidfd, fd, PidfdGetfdFlags::empty())?)
    }
}

impl Targets {
    /// The process of a thread.
    ///
    /// # Errors
    /// If it is gone.
    pub(super) fn process(&mut self, thread: u32) -> io::Result<Rc<Process>> {
        // The first thread of a process has its id, which a pidfd names for good: if another has it by now, the
        // descriptor cannot be had.
        if let Some(process) = self.by_thread.get(&thread)
            && (thread == process.id || Path::new(&format!("/proc/{}/task/{thread}", process.id)).exists())
        {
            return Ok(process.clone());
        }
        let status = std::fs::read_to_string(format!("/proc/{thread}/status"))?;
        let id = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        let id: u32 = id.ok_or_else(gone)?;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let process = Rc::new(Process { id, pidfd: pidfd_open(pid, PidfdFlags::empty())? });
        if self.by_thread.len() >= THREADS_MAX {
            self.by_thread.clear();
        }
        self.by_thread.insert(thread, process.clone());
        Ok(process)
    }

    /// Forgets what was known of a thread: its process answered as another than it was.
    pub(super) fn forget(&mut self, thread: u32) {
        self.by_thread.remove(&thread);
    }
}

/// The name of a process's program, as `ps` shows it; empty if it is gone.
pub(super) fn name(process: u32) -> String {
    let exe = std::fs::read_link(format!("/proc/{process}/exe")).ok();
    let of_exe = exe.as_deref().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    of_exe.unwrap_or_default()
}

/// The effective user of a process.
pub(super) fn user(process: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn vector(address: *mut libc::c_void, length: usize) -> libc::iovec {
    libc::iovec { iov_base: address, iov_len: length }
}

fn whole(moved: isize, length: usize) -> Result<(), i32> {
    match usize::try_from(moved) {
        Ok(n) if n == length => Ok(()),
        Ok(_) => Err(libc::EFAULT),
        Err(_) => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EFAULT)),
    }
}

/// Reads the memory of a thread.
///
/// # Errors
/// The errno: EFAULT if not all of it is there.
pub(super) fn read(thread: u32, address: u64, into: &mut [u8]) -> Result<(), i32> {
    if into.is_empty() {
        return Ok(());
    }
    let local = vector(into.as_mut_ptr().cast(), into.len());
    let remote = vector(address as *mut libc::c_void, into.len());
    // SAFETY: `local` is `into`; the kernel checks `remote`, which is not ours.
    let moved = unsafe { libc::process_vm_readv(thread.cast_signed(), &local, 1, &remote, 1, 0) };
    whole(moved, into.len())
}

/// Writes the memory of a thread.
///
/// # Errors
/// The errno: EFAULT if not all of it can be written.
pub(super) fn write(thread: u32, address: u64, bytes: &[u8]) -> Result<(), i32> {
    if bytes.is_empty() {
        return Ok(());
    }
    let local = vector(bytes.as_ptr().cast_mut().cast(), bytes.len());
    let remote = vector(address as *mut libc::c_void, bytes.len());
    // SAFETY: the kernel only reads `local`, which is `bytes`; it checks `remote`, which is not ours.
    let moved = unsafe { libc::process_vm_writev(thread.cast_signed(), &local, 1, &remote, 1, 0) };
    whole(moved, bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_and_written_as_a_whole_or_not_at_all() {
        // SAFETY: it takes nothing.
        let thread = unsafe { libc::gettid() }.cast_unsigned();
        let mut place = [1u8, 2, 3, 4];
        let mut copy = [0; 4];
        let address = place.as_mut_ptr() as u64;
        read(thread, address, &mut copy).unwrap();
        assert_eq!(copy, [1, 2, 3, 4]);
        write(thread, address, &[9, 8]).unwrap();
        assert_eq!(place, [9, 8, 3, 4]);
        assert_eq!(read(thread, 8, &mut copy), Err(libc::EFAULT));
        assert_eq!(write(thread, u64::MAX - 1, &copy), Err(libc::EFAULT));
    }

    #[test]
    fn the_process_of_a_thread_is_found_and_gives_its_descriptors() {
        let mut targets = Targets::default();
        // SAFETY: it takes nothing.
        let thread = unsafe { libc::gettid() }.cast_unsigned();
        let process = targets.process(thread).unwrap();
        assert_eq!(process.id, std::process::id());
        assert_eq!(process.descriptor(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        let pair = std::os::unix::net::UnixStream::pair().unwrap();
        let same = process.descriptor(std::os::fd::AsRawFd::as_raw_fd(&pair.0)).unwrap();
        rustix::io::write(&same, b"x").unwrap();
        let mut byte = [0];
        rustix::io::read(&pair.1, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}

//! The kernel's side of it: installing the filter, receiving what it tells, answering. See seccomp_unotify(2).
//!
//! A notification ends when it is answered, when the calling thread dies, or when a signal interrupts the call; the kernel
//! then does not know its id any more. So every answer may come too late, and whoever did something for the
//! call must be able to bear that: [`Answered::Gone`].

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_int, c_ulong};

const SECCOMP_SET_MODE_FILTER: c_ulong = 1;
const FLAG_NEW_LISTENER: c_ulong = 8;
const RECEIVE: c_ulong = 0xc050_2100;
const SEND: c_ulong = 0xc018_2101;
const ID_VALID: c_ulong = 0x4008_2102;
const ADD_FD: c_ulong = 0x4018_2103;
const RESPONSE_CONTINUE: u32 = 1;
const ADD_FD_SEND: u32 = 2;

/// A call that waits for an answer: `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Call {
    /// Names it.
    pub(super) id: u64,
    /// The thread that makes it.
    pub(super) thread: u32,
    flags: u32,
    /// The system call's number.
    pub(super) number: i32,
    architecture: u32,
    instruction: u64,
    /// Its arguments. Pointers are the program's.
    pub(super) arguments: [u64; 6],
}

impl Call {
    /// An argument that is an `int`.
    pub(super) fn int(&self, index: usize) -> i32 {
        self.arguments[index] as i32
    }
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    wanted: u32,
    new_flags: u32,
}

/// What became of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answered {
    /// The call has returned with it.
    Yes,
    /// The call is not there any more.
    Gone,
}

/// Installs the filter for this thread and all that it starts; the descriptor of its listener.
///
/// Makes two system calls and nothing else, so that it may be called between fork and exec.
///
/// # Errors
/// EBUSY if this process is under another listener already, EINVAL or ENOSYS if the kernel cannot do it.
pub(super) fn install(program: &[libc::sock_filter]) -> io::Result<c_int> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` points to `len` instructions, which the kernel copies.
    let set = || unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, FLAG_NEW_LISTENER, &program) };
    let mut fd = set();
    if fd < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EACCES) {
        // Without CAP_SYS_ADMIN the kernel wants the promise that no program gains rights by being executed.
        // SAFETY: it takes no pointers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        fd = set();
    }
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd as c_int) }
}

/// The calls that were received and not answered, in memory that two processes share: whoever takes over from a dead
/// supervisor finds them there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unanswered(&'static Shared);

#[derive(Debug)]
#[repr(C)]
struct Shared {
    /// The last call that was received; zero if none was.
    last: AtomicU64,
    /// The ids of calls; zero in a free place.
    places: [AtomicU64; UNANSWERED_MAX],
}

/// So many calls can wait at once; of more, some would wait for ever if the supervisor died.
const UNANSWERED_MAX: usize = 4096;
/// The kernel numbers calls one after the other: one that was received in the moment of the supervisor's death has one of
/// so many next numbers.
const NEXT: u64 = 16;

impl Unanswered {
    /// Shared with all processes that are forked from here on; never unmapped.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn new() -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let bytes = size_of::<Shared>();
        // SAFETY: a new mapping touches no other.
        let pages = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if pages == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the pages are zeros, aligned, large enough, and there until the process ends.
        Ok(Self(unsafe { &*pages.cast::<Shared>() }))
    }

    fn place(self, id: u64, holds: u64) -> Option<&'static AtomicU64> {
        let start = id as usize % UNANSWERED_MAX;
        let (before, from) = self.0.places.split_at(start);
        from.iter().chain(before).find(|place| place.load(Ordering::SeqCst) == holds)
    }

    fn add(self, id: u64) {
        self.0.last.store(id, Ordering::SeqCst);
        if let Some(place) = self.place(id, 0) {
            place.store(id, Ordering::SeqCst);
        }
    }

    fn remove(self, id: u64) {
        if let Some(place) = self.place(id, id) {
            place.store(0, Ordering::SeqCst);
        }
    }
}

/// Where the notifications come from.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    unanswered: Unanswered,
}

impl Listener {
    pub(super) fn new(fd: OwnedFd, unanswered: Unanswered) -> Self {
        Self { fd, unanswered }
    }

    /// Has the kernel execute every call that another process has received and not answered. `false` if that process had not
    /// noted any: whether it has received a first one, and which, nobody knows.
    pub(super) fn proceed_all(&self) -> bool {
        let Shared { last, places } = self.unanswered.0;
        let ids = places.iter().map(|place| place.load(Ordering::SeqCst));
        let last = last.load(Ordering::SeqCst);
        if last == 0 {
            return false;
        }
        for id in ids.filter(|id| *id != 0).chain((1..=NEXT).map(|next| last.wrapping_add(next))) {
            // Most are gone, or never were.
            self.proceed(id);
        }
        true
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }

    fn ioctl<T>(&self, request: c_ulong, argument: &mut T) -> io::Result<i64> {
        // SAFETY: every request is used with the struct whose size it encodes.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), request, argument as *mut T) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i64::from(result)) }
    }

    /// The next call; waits for it. `None` if it was interrupted before it could be read.
    ///
    /// # Errors
    /// If the descriptor is no listener.
    pub(super) fn receive(&self) -> io::Result<Option<Call>> {
        let mut call = Call::default();
        match self.ioctl(RECEIVE, &mut call) {
            Ok(_) => {
                self.unanswered.add(call.id);
                Ok(Some(call))
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether the call still waits.
    pub(super) fn is_valid(&self, id: u64) -> bool {
        let mut asked = id;
        let is_valid = self.ioctl(ID_VALID, &mut asked).is_ok();
        if !is_valid {
            self.unanswered.remove(id);
        }
        is_valid
    }

    fn send(&self, id: u64, value: i64, error: i32, flags: u32) -> Answered {
        let sent = self.ioctl(SEND, &mut Response { id, value, error, flags });
        self.unanswered.remove(id);
        if sent.is_ok() { Answered::Yes } else { Answered::Gone }
    }

    /// The call returns this.
    pub(super) fn give(&self, id: u64, value: i64) -> Answered {
        self.send(id, value, 0, 0)
    }

    /// The call fails.
    pub(super) fn fail(&self, id: u64, errno: i32) -> Answered {
        self.send(id, 0, -errno, 0)
    }

    /// The kernel executes the call as if nobody had asked. It reads its arguments anew, so this is only for
    /// calls that may do whatever the kernel alone would let them do.
    pub(super) fn proceed(&self, id: u64) -> Answered {
        self.send(id, 0, 0, RESPONSE_CONTINUE)
    }

    /// The call returns a new descriptor of the program, for what `fd` is here.
    ///
    /// # Errors
    /// If the program can have no more (EMFILE); the call then still waits.
    pub(super) fn give_descriptor(&self, id: u64, fd: BorrowedFd<'_>, close_on_exec: bool) -> io::Result<Answered> {
        let new_flags = if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
        let mut add = AddFd { id, flags: ADD_FD_SEND, source: fd.as_raw_fd() as u32, wanted: 0, new_flags };
        match self.ioctl(ADD_FD, &mut add) {
            Ok(_) => {
                self.unanswered.remove(id);
                Ok(Answered::Yes)
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                self.unanswered.remove(id);
                Ok(Answered::Gone)
            }
            Err(e) => Err(e),
        }
    }
}

/// Of a descriptor that came by [`install`].
///
/// # Safety
/// Nobody else owns it.
pub(super) unsafe fn own(fd: c_int) -> OwnedFd {
    // SAFETY: as above.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_kept_until_they_are_answered() {
        let calls = Unanswered::new().unwrap();
        let there =
            || calls.0.places.iter().map(|p| p.load(Ordering::SeqCst)).filter(|id| *id != 0).collect::<Vec<_>>();
        let same_place = 7 + UNANSWERED_MAX as u64;
        for id in [7, same_place, 8] {
            calls.add(id);
        }
        assert_eq!(there(), [7, same_place, 8]);
        calls.remove(7);
        calls.remove(9);
        assert_eq!(there(), [same_place, 8]);
        for id in 0..2 * UNANSWERED_MAX as u64 {
            calls.add(100 + id);
        }
        assert_eq!(there().len(), UNANSWERED_MAX, "what has no place is not kept");
    }
}

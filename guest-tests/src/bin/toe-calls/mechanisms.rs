//! What it costs to know of a program's call: by a library that is put before the C library's (LD_PRELOAD), or by
//! seccomp's notification. The call is `getsockname`; what is measured is one call's time, by whoever makes it.
//!
//! A library that has its answer at hand needs no one else. One that does not (a connection is to be opened, by the one
//! context that all processes of a program share) must ask a supervisor, and give it the socket: a message over a Unix
//! socket with the descriptor, and an answer. The notification does that for every call.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

const ADDRESS_BYTES: usize = 16;

/// Linux's numbers of linux/seccomp.h.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;

#[repr(C)]
#[derive(Default)]
struct Call {
    id: u64,
    thread: u32,
    flags: u32,
    number: i32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// Prints nanoseconds per call of each way.
pub fn measure(calls: u32) -> ExitCode {
    match all(calls) {
        Ok(rows) => {
            rows.iter().for_each(|(name, ns)| println!("{name}\t{ns}"));
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("toe-calls mechanisms: {e}");
            ExitCode::FAILURE
        }
    }
}

fn all(calls: u32) -> io::Result<Vec<(&'static str, u64)>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    Ok(vec![
        ("the kernel's call alone", each(calls, || name(&socket))?),
        ("a library before it, with the answer at hand", at_hand(calls, &socket)?),
        ("a library before it, that asks a supervisor", asked(calls, &socket)?),
        ("seccomp: the supervisor lets the kernel do it", notified(calls, &socket, false)?),
        ("seccomp: the supervisor looks at the socket and answers", notified(calls, &socket, true)?),
    ])
}

fn each(calls: u32, mut call: impl FnMut() -> io::Result<()>) -> io::Result<u64> {
    let start = Instant::now();
    for _ in 0..calls {
        call()?;
    }
    Ok(start.elapsed().as_nanos() as u64 / u64::from(calls.max(1)))
}

fn name(socket: &impl AsRawFd) -> io::Result<()> {
    let (mut address, mut length) = ([0u8; ADDRESS_BYTES], ADDRESS_BYTES as libc::socklen_t);
    // SAFETY: `address` has `length` bytes.
    let n = unsafe { libc::getsockname(socket.as_raw_fd(), address.as_mut_ptr().cast(), &mut length) };
    if n == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn at_hand(calls: u32, socket: &TcpStream) -> io::Result<u64> {
    let known = Mutex::new(HashMap::from([(socket.as_raw_fd(), [7u8; ADDRESS_BYTES])]));
    let mut address = [0; ADDRESS_BYTES];
    each(calls, || {
        let known = known.lock().map_err(|_| io::ErrorKind::Other)?;
        address = *known.get(&std::hint::black_box(socket.as_raw_fd())).ok_or(io::ErrorKind::NotFound)?;
        std::hint::black_box(&mut address);
        Ok(())
    })
}

/// A child that does this and ends; waited for when dropped.
struct Child(libc::pid_t);

impl Child {
    fn start(work: impl FnOnce() -> io::Result<()>) -> io::Result<Self> {
        // SAFETY: there is one thread here, and the child ends without coming back.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let failed = work().is_err();
                // SAFETY: it ends this process.
                unsafe { libc::_exit(failed.into()) }
            }
            child => Ok(Self(child)),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: it is ours; a null pointer wants no status.
        unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

fn give(to: &UnixStream, fd: &impl AsFd) -> io::Result<()> {
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(to, &[io::IoSlice::new(b"?")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn take(from: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(from, &mut [io::IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    Ok(ancillary.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

fn asked(calls: u32, socket: &TcpStream) -> io::Result<u64> {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    let child = Child::start(|| {
        while let Some(fd) = take(&theirs)? {
            rustix::net::sockopt::socket_cookie(&fd)?;
            theirs.write_all(&[7; ADDRESS_BYTES])?;
        }
        Ok(())
    })?;
    let mut answer = [0; ADDRESS_BYTES];
    let ns = each(calls, || {
        give(&ours, socket)?;
        ours.read_exact(&mut answer)
    });
    // Its own copy of this end keeps the child from seeing an end: it is told by a message without a descriptor.
    ours.write_all(b".")?;
    drop(child);
    ns
}

/// Told: `getsockname`, and nothing else.
fn install() -> io::Result<OwnedFd> {
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(0x20, 0, 0, 0),
        step(0x15, libc::SYS_getsockname as u32, 0, 1),
        step(0x06, 0x7fc0_0000, 0, 0),
        step(0x06, 0x7fff_0000, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points to as many instructions as it says; the kernel copies them.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, 1, 8, &program) };
    // SAFETY: it is new, and nobody else's.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }) }
}

fn notified(calls: u32, socket: &TcpStream, answer: bool) -> io::Result<u64> {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    let child = Child::start(|| {
        give(&theirs, &install()?)?;
        let ns = each(calls, || name(socket))?;
        theirs.write_all(&ns.to_ne_bytes())
    })?;
    let listener = take(&ours)?.ok_or(io::ErrorKind::NotFound)?;
    let process = rustix::process::Pid::from_raw(child.0).ok_or(io::ErrorKind::NotFound)?;
    let process = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())?;
    for _ in 0..calls {
        let mut call = Call::default();
        control(&listener, RECEIVE, &mut call)?;
        let mut reply = Answer { id: call.id, value: 0, error: 0, flags: u32::from(!answer) };
        if answer {
            let flags = rustix::process::PidfdGetfdFlags::empty();
            let fd = rustix::process::pidfd_getfd(&process, call.arguments[0] as i32, flags)?;
            rustix::net::sockopt::socket_cookie(&fd)?;
            let mut length = [0; 4];
            copy(&call, call.arguments[2], &mut length, false)?;
            control(&listener, ID_VALID, &mut call.id)?;
            copy(&call, call.arguments[1], &mut [7; ADDRESS_BYTES], true)?;
            copy(&call, call.arguments[2], &mut length, true)?;
        }
        control(&listener, SEND, &mut reply)?;
    }
    let mut ns = [0; 8];
    ours.read_exact(&mut ns)?;
    Ok(u64::from_ne_bytes(ns))
}

fn control<T>(listener: &OwnedFd, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: every request is used with the struct whose size it encodes.
    let n = unsafe { libc::ioctl(listener.as_raw_fd(), request as _, std::ptr::from_mut(argument)) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// From the caller's memory, or to it.
fn copy(call: &Call, address: u64, bytes: &mut [u8], to: bool) -> io::Result<()> {
    let here = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let there = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    let thread = call.thread as i32;
    // SAFETY: `here` is `bytes`; the kernel checks `there`, which is not ours.
    let n = unsafe {
        if to {
            libc::process_vm_writev(thread, &here, 1, &there, 1, 0)
        } else {
            libc::process_vm_readv(thread, &here, 1, &there, 1, 0)
        }
    };
    if n == bytes.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

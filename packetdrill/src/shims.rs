//! The functions behind the table: C's pointers in, C's results out.
//!
//! Each does three things and no more: it turns pointers and lengths into slices, calls the adapter, and gives −1 with
//! `errno` for an error. A panic ends there too (as `EIO`): it must not run into packetdrill's frames.
//! Descriptors that are not ours, such as those of a pipe, go to the kernel.

use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use libc::{
    epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t, timeval, timezone,
    useconds_t,
};
use toe_firmware::Duration;

use crate::adapter::Adapter;
use crate::address::{self, Family};
use crate::errno::Errno;
use crate::events::Event;
use crate::flags::Flags;
use crate::interface::Interface;
use crate::{pipes, preload};

/// The most parts of a vector (`UIO_MAXIOV`).
const PARTS_MAX: usize = 1024;

/// A result as C has it.
pub fn give<T: From<i8>>(result: Result<T, Errno>) -> T {
    result.unwrap_or_else(|Errno(errno)| {
        // SAFETY: the C library's own place for this thread's error number.
        unsafe { *libc::__errno_location() = errno };
        T::from(-1)
    })
}

/// Runs one function of the table.
///
/// # Safety
/// `userdata` is null or what [`packetdrill_interface_init`] put into the table, and not freed.
unsafe fn run<T: From<i8>>(userdata: *mut c_void, act: impl FnOnce(&Adapter) -> Result<T, Errno>) -> T {
    // SAFETY: it is an `Adapter` that lives until `free`, and only shared references are ever made of it.
    let Some(adapter) = (unsafe { userdata.cast::<Adapter>().as_ref() }) else {
        // The flags made no sense; it was said why.
        return give(Err(Errno(libc::EINVAL)));
    };
    give(catch_unwind(AssertUnwindSafe(|| act(adapter))).unwrap_or(Err(Errno(libc::EIO))))
}

/// # Safety
/// `pointer` is readable for `length` bytes as long as `'a`, or null.
unsafe fn bytes<'a>(pointer: *const c_void, length: usize) -> Result<&'a [u8], Errno> {
    if length == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), length) })
}

/// Copies `data` to `target`, which has room for it.
///
/// # Safety
/// `target` is writable for `data.len()` bytes, or null.
unsafe fn put(target: *mut c_void, data: &[u8]) -> Result<(), Errno> {
    if data.is_empty() {
        return Ok(());
    }
    if target.is_null() {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: the caller's promise; C's buffer and our vector do not overlap.
    unsafe { target.cast::<u8>().copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    Ok(())
}

/// The parts of a vector.
///
/// # Safety
/// `parts` has `count` entries, readable as long as `'a`, or is null.
unsafe fn parts<'a>(parts: *const iovec, count: usize) -> Result<&'a [iovec], Errno> {
    if count > PARTS_MAX {
        return Err(Errno(libc::EINVAL));
    }
    if count == 0 {
        return Ok(&[]);
    }
    if parts.is_null() {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(parts, count) })
}

/// # Safety
/// Every part is readable.
unsafe fn gather(parts: &[iovec]) -> Result<Vec<u8>, Errno> {
    let mut data = Vec::new();
    for part in parts {
        // SAFETY: the caller's promise.
        data.extend(unsafe { bytes(part.iov_base, part.iov_len) }?);
    }
    Ok(data)
}

fn room(parts: &[iovec]) -> usize {
    parts.iter().map(|part| part.iov_len).fold(0, usize::saturating_add)
}

/// # Safety
/// Every part is writable.
unsafe fn scatter(parts: &[iovec], mut data: &[u8]) -> Result<(), Errno> {
    for part in parts {
        let (now, later) = data.split_at(part.iov_len.min(data.len()));
        // SAFETY: the caller's promise; `now` is no longer than the part.
        unsafe { put(part.iov_base, now) }?;
        data = later;
    }
    Ok(())
}

/// Puts what a call returns by pointer and length: as much as fits, and how long it really is.
///
/// # Safety
/// `target` is writable for `*length` bytes; both may be null.
unsafe fn put_sized(target: *mut c_void, length: *mut socklen_t, data: &[u8]) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    let Some(length) = (unsafe { length.as_mut() }) else { return Ok(()) };
    if target.is_null() {
        return Ok(());
    }
    // SAFETY: no more than there is room for.
    unsafe { put(target, &data[..data.len().min(*length as usize)]) }?;
    *length = data.len() as socklen_t;
    Ok(())
}

fn count(n: usize) -> ssize_t {
    n as ssize_t
}

unsafe extern "C" fn free(userdata: *mut c_void) {
    if !userdata.is_null() {
        // Descriptors stay open: the program has closed its own by now, and their numbers may be another's.
        // SAFETY: it came from `Arc::into_raw` and is not used again.
        let adapter = unsafe { Arc::from_raw(userdata.cast::<Adapter>()) };
        // Nothing to tell anyone if dropping it panics.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(adapter)));
    }
}

unsafe extern "C" fn socket(userdata: *mut c_void, domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let act = |a: &Adapter| {
        let family = match domain {
            libc::AF_INET => Family::V4,
            libc::AF_INET6 => Family::V6,
            _ => return Err(Errno(libc::EAFNOSUPPORT)),
        };
        if kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != libc::SOCK_STREAM {
            return Err(Errno(libc::ESOCKTNOSUPPORT));
        }
        if protocol != 0 && protocol != libc::IPPROTO_TCP {
            return Err(Errno(libc::EPROTONOSUPPORT));
        }
        a.socket(family, kind & libc::SOCK_NONBLOCK != 0)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

/// # Safety
/// `address` is readable for `length` bytes.
unsafe fn given(a: &Adapter, fd: c_int, address: *const sockaddr, length: socklen_t) -> Result<address::Given, Errno> {
    let family = a.with(|s| Ok(s.socket(fd)?.family))?;
    // SAFETY: the caller's promise.
    address::read(unsafe { bytes(address.cast(), length as usize) }?, family)
}

unsafe extern "C" fn bind(userdata: *mut c_void, fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    let act = |a: &Adapter| {
        // SAFETY: as of bind(2).
        let address = unsafe { given(a, fd, address, length) }?;
        a.with(|s| s.bind(fd, address)).map(|()| 0)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn listen(userdata: *mut c_void, fd: c_int, backlog: c_int) -> c_int {
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, |a| a.with(|s| s.listen(fd, backlog)).map(|()| 0)) }
}

unsafe extern "C" fn accept(userdata: *mut c_void, fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int {
    let act = |a: &Adapter| {
        let (child, peer, family) = a.accept(fd)?;
        // SAFETY: as of accept(2).
        unsafe { put_sized(address.cast(), length, &address::write(peer, family)) }?;
        Ok(child)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn connect(userdata: *mut c_void, fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int {
    let act = |a: &Adapter| {
        // SAFETY: as of connect(2).
        let address = unsafe { given(a, fd, address, length) }?;
        a.connect(fd, address).map(|()| 0)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

/// What every reading call does: into parts, with flags. `only_sockets`: the call makes no sense on anything else.
///
/// # Safety
/// Every part is writable.
unsafe fn receive(a: &Adapter, fd: c_int, parts: &[iovec], flags: c_int, only_sockets: bool) -> Result<ssize_t, Errno> {
    // Nothing is taken from a stream that cannot be put anywhere.
    if parts.iter().any(|part| part.iov_base.is_null() && part.iov_len > 0) {
        return Err(Errno(libc::EFAULT));
    }
    let max = room(parts);
    let data = if a.owns(fd)? {
        a.receive(fd, max, flags)?
    } else if only_sockets {
        return Err(Errno(libc::EBADF));
    } else {
        pipes::read(fd, max)?
    };
    // TCP: what is truncated is thrown away, not counted.
    if flags & libc::MSG_TRUNC == 0 {
        // SAFETY: the caller's promise.
        unsafe { scatter(parts, &data) }?;
    }
    Ok(count(data.len()))
}

unsafe extern "C" fn read(userdata: *mut c_void, fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
    let part = iovec { iov_base: buffer, iov_len: length };
    // SAFETY: as of read(2); packetdrill's promise.
    unsafe { run(userdata, |a| receive(a, fd, &[part], 0, false)) }
}

unsafe extern "C" fn readv(userdata: *mut c_void, fd: c_int, vector: *const iovec, n: c_int) -> ssize_t {
    let act = |a: &Adapter| {
        let n = usize::try_from(n).map_err(|_| Errno(libc::EINVAL))?;
        // SAFETY: as of readv(2).
        unsafe { receive(a, fd, parts(vector, n)?, 0, false) }
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn recv(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    let part = iovec { iov_base: buffer, iov_len: length };
    // SAFETY: as of recv(2); packetdrill's promise.
    unsafe { run(userdata, |a| receive(a, fd, &[part], flags, true)) }
}

unsafe extern "C" fn recvfrom(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    _source: *mut sockaddr,
    source_length: *mut socklen_t,
) -> ssize_t {
    let part = iovec { iov_base: buffer, iov_len: length };
    let act = |a: &Adapter| {
        // SAFETY: as of recvfrom(2).
        let n = unsafe { receive(a, fd, &[part], flags, true) }?;
        // A stream has no source to tell, as in Linux.
        // SAFETY: the same.
        if let Some(length) = unsafe { source_length.as_mut() } {
            *length = 0;
        }
        Ok(n)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn recvmsg(userdata: *mut c_void, fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let act = |a: &Adapter| {
        // SAFETY: as of recvmsg(2).
        let message = unsafe { message.as_mut() }.ok_or(Errno(libc::EFAULT))?;
        // SAFETY: the same.
        let n = unsafe { receive(a, fd, parts(message.msg_iov, message.msg_iovlen)?, flags, true) }?;
        message.msg_namelen = 0;
        let queued = a.with(|s| s.told_queued(fd))?;
        // SAFETY: the same.
        message.msg_controllen = unsafe { put_queued(message, queued) };
        message.msg_flags = 0;
        Ok(n)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

/// Puts `TCP_CM_INQ` into a message's room for control data, if it is wanted and fits; how long it is.
///
/// # Safety
/// The control buffer is writable for its length.
unsafe fn put_queued(message: &msghdr, queued: Option<i32>) -> usize {
    // SAFETY: arithmetic only.
    let (space, length) = unsafe { (libc::CMSG_SPACE(4) as usize, libc::CMSG_LEN(4) as usize) };
    let Some(queued) = queued.filter(|_| message.msg_controllen >= space) else { return 0 };
    let mut control = length.to_ne_bytes().to_vec();
    control.extend(libc::IPPROTO_TCP.to_ne_bytes());
    control.extend(crate::options::TCP_INQ.to_ne_bytes());
    control.extend(queued.to_ne_bytes());
    control.resize(space, 0);
    // SAFETY: the caller's promise, and there is room.
    unsafe { put(message.msg_control, &control) }.map_or(0, |()| space)
}

fn transmit(a: &Adapter, fd: c_int, data: &[u8], flags: c_int, only_sockets: bool) -> Result<ssize_t, Errno> {
    if a.owns(fd)? {
        a.send(fd, data, flags).map(count)
    } else if only_sockets {
        Err(Errno(libc::EBADF))
    } else {
        pipes::write(fd, data).map(count)
    }
}

unsafe extern "C" fn write(userdata: *mut c_void, fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: as of write(2); packetdrill's promise.
    unsafe { run(userdata, |a| transmit(a, fd, bytes(buffer, length)?, 0, false)) }
}

unsafe extern "C" fn writev(userdata: *mut c_void, fd: c_int, vector: *const iovec, n: c_int) -> ssize_t {
    let act = |a: &Adapter| {
        let n = usize::try_from(n).map_err(|_| Errno(libc::EINVAL))?;
        // SAFETY: as of writev(2).
        let data = unsafe { gather(parts(vector, n)?) }?;
        transmit(a, fd, &data, 0, false)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn send(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: as of send(2); packetdrill's promise.
    unsafe { run(userdata, |a| transmit(a, fd, bytes(buffer, length)?, flags, true)) }
}

unsafe extern "C" fn sendto(
    userdata: *mut c_void,
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    _target: *const sockaddr,
    _target_length: socklen_t,
) -> ssize_t {
    // A stream goes where it is connected to, whatever else is said.
    // SAFETY: as of sendto(2); packetdrill's promise.
    unsafe { run(userdata, |a| transmit(a, fd, bytes(buffer, length)?, flags, true)) }
}

unsafe extern "C" fn sendmsg(userdata: *mut c_void, fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let act = |a: &Adapter| {
        // SAFETY: as of sendmsg(2).
        let message = unsafe { message.as_ref() }.ok_or(Errno(libc::EFAULT))?;
        // SAFETY: the same.
        let data = unsafe { gather(parts(message.msg_iov, message.msg_iovlen)?) }?;
        transmit(a, fd, &data, flags, true)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn fcntl(userdata: *mut c_void, fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    let act = |a: &Adapter| {
        let socket = a.with(|s| Ok(s.get(fd).is_some()))?;
        match command {
            libc::F_GETFL if socket => {
                a.with(|s| Ok(libc::O_RDWR | if s.socket(fd)?.nonblocking { libc::O_NONBLOCK } else { 0 }))
            }
            libc::F_SETFL if socket => a.with(|s| {
                s.socket_mut(fd)?.nonblocking = argument as c_int & libc::O_NONBLOCK != 0;
                Ok(0)
            }),
            // The close-on-exec flag is the descriptor's, whatever stands behind it.
            // SAFETY: as of fcntl(2): the argument is the caller's.
            _ => match unsafe { libc::fcntl(fd, command, argument) } {
                -1 => Err(Errno::last()),
                n => Ok(n),
            },
        }
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn ioctl(userdata: *mut c_void, fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let act = |a: &Adapter| {
        if !a.owns(fd)? {
            // SAFETY: as of ioctl(2): the argument is the caller's.
            return match unsafe { libc::ioctl(fd, request, argument) } {
                -1 => Err(Errno::last()),
                n => Ok(n),
            };
        }
        if request == libc::FIONBIO {
            // SAFETY: FIONBIO reads an int.
            let on = unsafe { argument.cast::<c_int>().as_ref() }.ok_or(Errno(libc::EFAULT))?;
            return a.with(|s| {
                s.socket_mut(fd)?.nonblocking = *on != 0;
                Ok(0)
            });
        }
        let n = a.with(|s| s.question(fd, request))?;
        // SAFETY: all of them write an int.
        let target = unsafe { argument.cast::<c_int>().as_mut() }.ok_or(Errno(libc::EFAULT))?;
        *target = n;
        Ok(0)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn close(userdata: *mut c_void, fd: c_int) -> c_int {
    let act = |a: &Adapter| {
        a.with(|s| Ok(s.close(fd)))?;
        pipes::close(fd).map(|()| 0)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn shutdown(userdata: *mut c_void, fd: c_int, how: c_int) -> c_int {
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, |a| a.with(|s| s.shutdown(fd, how)).map(|()| 0)) }
}

/// # Safety
/// `value` is writable for `*length` bytes.
pub unsafe fn read_option(
    a: &Adapter,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> Result<c_int, Errno> {
    // SAFETY: the caller's promise.
    let length = unsafe { length.as_mut() }.ok_or(Errno(libc::EFAULT))?;
    let data = a.with(|s| s.get_option(fd, level, name))?;
    let fits = data.len().min(*length as usize);
    // SAFETY: the same; no more than fits.
    unsafe { put(value, &data[..fits]) }?;
    *length = fits as socklen_t;
    Ok(0)
}

unsafe extern "C" fn getsockopt(
    userdata: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: as of getsockopt(2); packetdrill's promise.
    unsafe { run(userdata, |a| read_option(a, fd, level, name, value, length)) }
}

unsafe extern "C" fn setsockopt(
    userdata: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    let act = |a: &Adapter| {
        // SAFETY: as of setsockopt(2).
        let value = unsafe { bytes(value, length as usize) }?;
        a.with(|s| s.set_option(fd, level, name, value)).map(|()| 0)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn poll(userdata: *mut c_void, fds: *mut pollfd, n: nfds_t, timeout_ms: c_int) -> c_int {
    let act = |a: &Adapter| {
        if n == 0 {
            return a.poll(&mut [], timeout_ms);
        }
        if fds.is_null() {
            return Err(Errno(libc::EFAULT));
        }
        // SAFETY: as of poll(2).
        a.poll(unsafe { std::slice::from_raw_parts_mut(fds, n as usize) }, timeout_ms)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn netdev_send(userdata: *mut c_void, packet: *const c_void, length: size_t) -> c_int {
    // SAFETY: `packet` is readable for `length` bytes; packetdrill's promise.
    unsafe { run(userdata, |a| a.packet_in(bytes(packet, length)?).map(|()| 0)) }
}

unsafe extern "C" fn netdev_receive(
    userdata: *mut c_void,
    buffer: *mut c_void,
    length: *mut size_t,
    time_us: *mut c_longlong,
) -> c_int {
    // packetdrill calls again for ever after an error, and ends after an empty packet. So no error is given.
    let none = || {
        // SAFETY: `length` is writable, or null.
        if let Some(length) = unsafe { length.as_mut() } {
            *length = 0;
        }
        0
    };
    let act = |a: &Adapter| {
        let Some(packet) = a.packet_out()? else { return Ok(none()) };
        // SAFETY: both are writable, or null.
        let (Some(length), Some(time_us)) = (unsafe { length.as_mut() }, unsafe { time_us.as_mut() }) else {
            return Err(Errno(libc::EFAULT));
        };
        if packet.bytes.len() > *length {
            return Err(Errno(libc::EMSGSIZE));
        }
        // SAFETY: `buffer` is writable for `*length` bytes.
        unsafe { put(buffer, &packet.bytes) }?;
        *length = packet.bytes.len();
        *time_us = packet.at.as_us() as c_longlong;
        Ok(0)
    };
    // SAFETY: packetdrill's promise.
    match unsafe { run(userdata, act) } {
        0 => 0,
        _ => none(),
    }
}

unsafe extern "C" fn usleep(userdata: *mut c_void, us: useconds_t) -> c_int {
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, |a| a.sleep(Duration::from_us(us.into())).map(|()| 0)) }
}

unsafe extern "C" fn gettimeofday(userdata: *mut c_void, time: *mut timeval, _zone: *mut timezone) -> c_int {
    let act = |a: &Adapter| {
        let us = a.now()?.as_us();
        // SAFETY: `time` is writable, or null.
        if let Some(time) = unsafe { time.as_mut() } {
            *time = timeval { tv_sec: (us / 1_000_000) as _, tv_usec: (us % 1_000_000) as _ };
        }
        Ok(0)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn epoll_create(userdata: *mut c_void, size: c_int) -> c_int {
    let act = |a: &Adapter| if size > 0 { a.epoll_create() } else { Err(Errno(libc::EINVAL)) };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn epoll_ctl(
    userdata: *mut c_void,
    epfd: c_int,
    op: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    let event = if event.is_null() {
        None
    } else {
        // SAFETY: not null, so it is an event by epoll_ctl(2); the struct may be packed.
        let epoll_event { events, u64: data } = unsafe { event.read_unaligned() };
        Some(Event { events, data })
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, |a| a.with(|s| s.epoll_control(epfd, op, fd, event)).map(|()| 0)) }
}

unsafe extern "C" fn epoll_wait(
    userdata: *mut c_void,
    epfd: c_int,
    events: *mut epoll_event,
    max: c_int,
    timeout_ms: c_int,
) -> c_int {
    let act = |a: &Adapter| {
        if events.is_null() {
            return Err(Errno(libc::EFAULT));
        }
        let found = a.epoll_wait(epfd, max, timeout_ms)?;
        for (i, event) in found.iter().enumerate() {
            let event = epoll_event { events: event.events, u64: event.data };
            // SAFETY: there is room for `max` of them, by epoll_wait(2), and no more were found.
            unsafe { events.add(i).write_unaligned(event) };
        }
        Ok(found.len() as c_int)
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn pipe(userdata: *mut c_void, fds: *mut c_int) -> c_int {
    let act = |_: &Adapter| {
        if fds.is_null() {
            return Err(Errno(libc::EFAULT));
        }
        // SAFETY: room for two, by pipe(2).
        if unsafe { libc::pipe(fds) } == 0 { Ok(0) } else { Err(Errno::last()) }
    };
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, act) }
}

unsafe extern "C" fn splice(
    userdata: *mut c_void,
    from: c_int,
    _from_offset: *mut loff_t,
    to: c_int,
    _to_offset: *mut loff_t,
    length: size_t,
    flags: c_uint,
) -> c_int {
    // Neither a socket nor a pipe has an offset; packetdrill hands over pointers all the same.
    let nonblocking = flags & libc::SPLICE_F_NONBLOCK != 0;
    // SAFETY: packetdrill's promise.
    unsafe { run(userdata, |a| a.splice(from, to, length, nonblocking).map(|n| n as c_int)) }
}

/// What packetdrill looks up in the shared object: fills its table.
///
/// Flags that make no sense (see the README) are named on standard error; then every function of the table fails with
/// `EINVAL`, at which packetdrill ends.
///
/// # Safety
/// `flags` is null or a C string; `interface` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, interface: *mut Interface) {
    if interface.is_null() {
        return;
    }
    let booted = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: a C string, by the caller's promise.
        let text = if flags.is_null() { c"" } else { unsafe { CStr::from_ptr(flags) } };
        let flags = Flags::parse(&text.to_string_lossy()).map_err(|e| e.to_string())?;
        Adapter::new(&flags).map_err(|e| e.to_string())
    }));
    let userdata = match booted.unwrap_or_else(|_| Err("the card did not boot".to_owned())) {
        Ok(adapter) => {
            let adapter = Arc::new(adapter);
            preload::register(&adapter);
            Arc::into_raw(adapter).cast_mut().cast()
        }
        Err(message) => {
            eprintln!("toe-packetdrill: {message}");
            std::ptr::null_mut()
        }
    };
    let table = Interface {
        userdata,
        free,
        socket,
        bind,
        listen,
        accept,
        connect,
        read,
        readv,
        recv,
        recvfrom,
        recvmsg,
        write,
        writev,
        send,
        sendto,
        sendmsg,
        fcntl,
        ioctl,
        close,
        shutdown,
        getsockopt,
        setsockopt,
        poll,
        netdev_send,
        netdev_receive,
        usleep,
        gettimeofday,
        epoll_create,
        epoll_ctl,
        epoll_wait,
        pipe,
        splice,
    };
    // SAFETY: writable, by the caller's promise.
    unsafe { interface.write(table) };
}

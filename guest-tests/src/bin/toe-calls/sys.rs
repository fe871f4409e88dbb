//! System calls with their results as text, and sockets that close themselves.

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr};

use libc::{c_int, c_void, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

/// A descriptor; closed when dropped.
pub struct Fd(pub c_int);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: it takes no pointers.
        unsafe { libc::close(self.0) };
    }
}

/// A return value, with the errno's name if it is -1.
pub fn r(value: isize) -> String {
    if value >= 0 { value.to_string() } else { errno() }
}

/// The name of errno.
pub fn errno() -> String {
    let e = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    name_of(e)
}

/// The name of an error.
pub fn name_of(e: c_int) -> String {
    let names = [
        (0, "0"),
        (libc::EFAULT, "EFAULT"),
        (libc::EINVAL, "EINVAL"),
        (libc::EBADF, "EBADF"),
        (libc::ENOTSOCK, "ENOTSOCK"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::EPIPE, "EPIPE"),
        (libc::EINTR, "EINTR"),
        (libc::ECONNREFUSED, "ECONNREFUSED"),
        (libc::ECONNRESET, "ECONNRESET"),
        (libc::EINPROGRESS, "EINPROGRESS"),
        (libc::EALREADY, "EALREADY"),
        (libc::EISCONN, "EISCONN"),
        (libc::ENOTCONN, "ENOTCONN"),
        (libc::EADDRINUSE, "EADDRINUSE"),
        (libc::EADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (libc::EAFNOSUPPORT, "EAFNOSUPPORT"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::ENOPROTOOPT, "ENOPROTOOPT"),
        (libc::ENOENT, "ENOENT"),
        (libc::ECONNABORTED, "ECONNABORTED"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
        (libc::EHOSTUNREACH, "EHOSTUNREACH"),
        (libc::EDOM, "EDOM"),
        (libc::EMFILE, "EMFILE"),
        (libc::EPERM, "EPERM"),
    ];
    names.iter().find(|(n, _)| *n == e).map_or_else(|| format!("errno {e}"), |(_, name)| (*name).to_owned())
}

/// A socket.
pub fn socket(domain: c_int, kind: c_int) -> Fd {
    // SAFETY: it takes no pointers.
    Fd(unsafe { libc::socket(domain, kind, 0) })
}

/// A TCP socket over IPv4.
pub fn tcp() -> Fd {
    socket(libc::AF_INET, libc::SOCK_STREAM)
}

/// A non-blocking one.
pub fn tcp_nonblocking() -> Fd {
    socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK)
}

/// A TCP socket over IPv6.
pub fn tcp6() -> Fd {
    socket(libc::AF_INET6, libc::SOCK_STREAM)
}

/// An address as the kernel has it, and its length.
pub fn raw(a: SocketAddr) -> (sockaddr_storage, socklen_t) {
    // SAFETY: zeros are a sockaddr_storage.
    let mut s: sockaddr_storage = unsafe { zeroed() };
    let length = match a {
        SocketAddr::V4(a) => {
            let p = (&raw mut s).cast::<sockaddr_in>();
            // SAFETY: a sockaddr_storage has room for it.
            unsafe {
                (*p).sin_family = libc::AF_INET as u16;
                (*p).sin_port = a.port().to_be();
                (*p).sin_addr.s_addr = u32::from_ne_bytes(a.ip().octets());
            }
            size_of::<sockaddr_in>()
        }
        SocketAddr::V6(a) => {
            let p = (&raw mut s).cast::<sockaddr_in6>();
            // SAFETY: a sockaddr_storage has room for it.
            unsafe {
                (*p).sin6_family = libc::AF_INET6 as u16;
                (*p).sin6_port = a.port().to_be();
                (*p).sin6_addr.s6_addr = a.ip().octets();
            }
            size_of::<sockaddr_in6>()
        }
    };
    (s, length as socklen_t)
}

/// An address from the kernel.
pub fn address(s: &sockaddr_storage) -> Option<SocketAddr> {
    let p = &raw const *s;
    match c_int::from(s.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what it is.
            let a = unsafe { *p.cast::<sockaddr_in>() };
            let ip: IpAddr = a.sin_addr.s_addr.to_ne_bytes().into();
            Some(SocketAddr::new(ip, u16::from_be(a.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says what it is.
            let a = unsafe { *p.cast::<sockaddr_in6>() };
            let ip: IpAddr = a.sin6_addr.s6_addr.into();
            Some(SocketAddr::new(ip, u16::from_be(a.sin6_port)))
        }
        _ => None,
    }
}

/// `connect`.
pub fn connect(fd: &Fd, a: SocketAddr) -> String {
    let (s, length) = raw(a);
    // SAFETY: `s` has `length` bytes.
    r(unsafe { libc::connect(fd.0, (&raw const s).cast::<sockaddr>(), length) } as isize)
}

/// `connect` to whatever bytes these are.
pub fn connect_raw(fd: &Fd, at: *const c_void, length: u32) -> String {
    // SAFETY: the kernel checks it; that is what is tested.
    r(unsafe { libc::connect(fd.0, at.cast(), length) } as isize)
}

/// `bind`.
pub fn bind(fd: &Fd, a: SocketAddr) -> String {
    let (s, length) = raw(a);
    // SAFETY: `s` has `length` bytes.
    r(unsafe { libc::bind(fd.0, (&raw const s).cast::<sockaddr>(), length) } as isize)
}

/// `getsockname`, or `getpeername`.
pub fn name(fd: &Fd, peer: bool) -> Result<SocketAddr, String> {
    // SAFETY: zeros are a sockaddr_storage.
    let mut s: sockaddr_storage = unsafe { zeroed() };
    let mut length = size_of::<sockaddr_storage>() as socklen_t;
    let at = (&raw mut s).cast::<sockaddr>();
    // SAFETY: `s` has `length` bytes.
    let result = unsafe {
        if peer { libc::getpeername(fd.0, at, &mut length) } else { libc::getsockname(fd.0, at, &mut length) }
    };
    if result < 0 { Err(errno()) } else { address(&s).ok_or_else(|| format!("family {}", s.ss_family)) }
}

/// The IP of a name, or the error.
pub fn ip(name: Result<SocketAddr, String>) -> String {
    name.map_or_else(|e| e, |a| a.ip().to_string())
}

/// `send`.
pub fn send(fd: &Fd, bytes: &[u8], flags: c_int) -> String {
    // SAFETY: the pointer and length are those of `bytes`.
    r(unsafe { libc::send(fd.0, bytes.as_ptr().cast(), bytes.len(), flags | libc::MSG_NOSIGNAL) })
}

/// `recv`: the bytes as text, or the error.
pub fn recv(fd: &Fd, most: usize, flags: c_int) -> String {
    let mut buffer = vec![0u8; most];
    // SAFETY: the pointer and length are those of `buffer`.
    let n = unsafe { libc::recv(fd.0, buffer.as_mut_ptr().cast(), most, flags) };
    if n < 0 { errno() } else { format!("{:?}", String::from_utf8_lossy(&buffer[..(n as usize).min(most)])) }
}

/// Reads until the end; the bytes as text.
pub fn rest(fd: &Fd) -> String {
    let mut all = Vec::new();
    let mut buffer = [0u8; 65536];
    loop {
        // SAFETY: the pointer and length are those of `buffer`.
        let n = unsafe { libc::recv(fd.0, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if n < 0 {
            return format!("{:?} {}", String::from_utf8_lossy(&all), errno());
        }
        if n == 0 {
            return format!("{:?}", String::from_utf8_lossy(&all));
        }
        all.extend_from_slice(&buffer[..n as usize]);
    }
}

/// Sets an option that is an int.
pub fn set(fd: &Fd, level: c_int, name: c_int, value: c_int) -> String {
    set_raw(fd, level, name, (&raw const value).cast(), 4)
}

/// Sets an option to whatever bytes these are.
pub fn set_raw(fd: &Fd, level: c_int, name: c_int, at: *const c_void, length: u32) -> String {
    // SAFETY: the kernel checks it; that is what is tested.
    r(unsafe { libc::setsockopt(fd.0, level, name, at, length) } as isize)
}

/// Asks for an option that is an int.
pub fn get(fd: &Fd, level: c_int, name: c_int) -> String {
    let mut value: c_int = 0;
    let mut length: socklen_t = 4;
    // SAFETY: `value` has `length` bytes.
    let result = unsafe { libc::getsockopt(fd.0, level, name, (&raw mut value).cast(), &mut length) };
    if result < 0 { errno() } else { format!("{value}") }
}

/// Asks for an option that is bytes: they, or the error.
pub fn get_bytes(fd: &Fd, level: c_int, name: c_int, most: u32) -> Result<Vec<u8>, String> {
    let mut value = vec![0u8; most as usize];
    let mut length: socklen_t = most;
    // SAFETY: `value` has `length` bytes.
    let result = unsafe { libc::getsockopt(fd.0, level, name, value.as_mut_ptr().cast(), &mut length) };
    if result < 0 {
        return Err(errno());
    }
    value.truncate(length as usize);
    Ok(value)
}

/// SO_ERROR by name.
pub fn so_error(fd: &Fd) -> String {
    get(fd, libc::SOL_SOCKET, libc::SO_ERROR).parse().map_or_else(|_| errno(), name_of)
}

/// Polls for `events` for at most two seconds; the names of what came.
pub fn poll(fd: &Fd, events: i16, ms: c_int) -> String {
    let mut p = libc::pollfd { fd: fd.0, events, revents: 0 };
    // SAFETY: one pollfd.
    let n = unsafe { libc::poll(&mut p, 1, ms) };
    if n < 0 {
        return errno();
    }
    events_of(p.revents)
}

/// The names of poll's events.
pub fn events_of(events: i16) -> String {
    let names = [
        (libc::POLLIN, "IN"),
        (libc::POLLPRI, "PRI"),
        (libc::POLLOUT, "OUT"),
        (libc::POLLERR, "ERR"),
        (libc::POLLHUP, "HUP"),
        (libc::POLLRDHUP, "RDHUP"),
    ];
    let there: Vec<_> = names.iter().filter(|(bit, _)| events & bit != 0).map(|(_, name)| *name).collect();
    if there.is_empty() { "nothing".into() } else { there.join("|") }
}

/// `shutdown`.
pub fn shutdown(fd: &Fd, how: c_int) -> String {
    // SAFETY: it takes no pointers.
    r(unsafe { libc::shutdown(fd.0, how) } as isize)
}

/// `listen`.
pub fn listen(fd: &Fd, backlog: c_int) -> String {
    // SAFETY: it takes no pointers.
    r(unsafe { libc::listen(fd.0, backlog) } as isize)
}

/// `accept4`: the new socket and the address that it gave.
pub fn accept(fd: &Fd, flags: c_int) -> Result<(Fd, SocketAddr), String> {
    // SAFETY: zeros are a sockaddr_storage.
    let mut s: sockaddr_storage = unsafe { zeroed() };
    let mut length = size_of::<sockaddr_storage>() as socklen_t;
    // SAFETY: `s` has `length` bytes.
    let new = unsafe { libc::accept4(fd.0, (&raw mut s).cast(), &mut length, flags) };
    if new < 0 {
        return Err(errno());
    }
    address(&s).map(|a| (Fd(new), a)).ok_or_else(|| "no address".into())
}

/// The error of something that may be one.
pub fn error_of<T>(result: Result<T, String>) -> String {
    result.err().unwrap_or_else(|| "none".into())
}

/// `fcntl` without an argument.
pub fn fcntl(fd: &Fd, what: c_int) -> c_int {
    // SAFETY: it takes no pointers.
    unsafe { libc::fcntl(fd.0, what) }
}

//! What a program's descriptor is, and its options: asked for by the kernel's own numbers, because what is compared and
//! passed on are the kernel's words.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, socklen_t};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use toe_abi::option;

use super::line::Line;

/// An option that is an `int`.
pub(super) fn int(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value = MaybeUninit::<c_int>::zeroed();
    let mut length = size_of::<c_int>() as socklen_t;
    // SAFETY: `value` has room for `length` bytes, and any bytes are an int.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut length) };
    // SAFETY: it was zero from the start.
    if result == 0 { Ok(unsafe { value.assume_init() }) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option to these bytes.
pub(super) fn set(fd: BorrowedFd<'_>, level: c_int, name: c_int, bytes: &[u8]) -> io::Result<()> {
    let length = bytes.len() as socklen_t;
    // SAFETY: `bytes` has `length` bytes.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, bytes.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A name that names this socket and no other, ever.
pub(super) fn cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::net::sockopt::socket_cookie(fd)?)
}

/// SO_NETNS_COOKIE (Linux 5.14, as old as what gives programs their accepted connections).
const NAMESPACE: c_int = 71;

/// A name of the network namespace that the socket was made in, which names no other, ever.
pub(super) fn namespace(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut value = 0u64;
    let mut length = size_of::<u64>() as socklen_t;
    let at = (&raw mut value).cast();
    // SAFETY: `value` has room for `length` bytes.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, NAMESPACE, at, &mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Whether it is a TCP socket; if so, whether an IPv6 one.
pub(super) fn tcp_family(fd: BorrowedFd<'_>) -> Option<bool> {
    // The protocol first: of what is no TCP, most is told apart by that alone.
    let is = |name, value| int(fd, libc::SOL_SOCKET, name).ok() == Some(value);
    if !is(libc::SO_PROTOCOL, libc::IPPROTO_TCP) || !is(libc::SO_TYPE, libc::SOCK_STREAM) {
        return None;
    }
    match int(fd, libc::SOL_SOCKET, libc::SO_DOMAIN) {
        Ok(libc::AF_INET) => Some(false),
        Ok(libc::AF_INET6) => Some(true),
        _ => None,
    }
}

/// Whether its calls do not wait.
pub(super) fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
}

/// Does something with it while its calls do not wait. The program could see that; a socket that is about to be
/// connected has nobody who looks.
pub(super) fn without_waiting<R>(fd: BorrowedFd<'_>, f: impl FnOnce() -> R) -> io::Result<R> {
    let flags = fcntl_getfl(fd)?;
    if flags.contains(OFlags::NONBLOCK) {
        return Ok(f());
    }
    fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
    let result = f();
    fcntl_setfl(fd, flags)?;
    Ok(result)
}

/// Dissolves what connection it has.
pub(super) fn disconnect(fd: BorrowedFd<'_>) {
    // SAFETY: a sockaddr of zeros has the family AF_UNSPEC.
    let address: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: `address` is one of that size. An error leaves the socket as it is, and is seen at its next use.
    unsafe { libc::connect(fd.as_raw_fd(), &address, size_of::<libc::sockaddr>() as socklen_t) };
    // What that did is none of the program's errors.
    let _ = int(fd, libc::SOL_SOCKET, libc::SO_ERROR);
}

/// Whether a program that is executed from here would inherit a TCP socket.
pub(super) fn inherits_tcp() -> bool {
    let numbers = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<c_int>().ok()).any(|number| {
        // SAFETY: a descriptor that is not open any more is only an error, and this one is used for nothing else.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let stays = rustix::io::fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(rustix::io::FdFlags::CLOEXEC));
        stays && tcp_family(fd).is_some()
    })
}

/// Why a socket with its options is not for the card, if so.
pub(super) fn unsuitable(fd: BorrowedFd<'_>) -> Option<&'static str> {
    let is_set = |level, name| int(fd, level, name).is_ok_and(|v| v != 0);
    let mut name = [0u8; 16];
    let mut length = name.len() as socklen_t;
    // SAFETY: `name` has `length` bytes.
    let bound = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_mut_ptr().cast(), &mut length)
    };
    if bound == 0 && length > 0 && name[0] != 0 {
        return Some("option-bind-to-device");
    }
    if is_set(libc::SOL_SOCKET, libc::SO_MARK) {
        return Some("option-mark");
    }
    if is_set(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT) {
        return Some("option-fast-open");
    }
    if is_set(libc::IPPROTO_TCP, libc::TCP_REPAIR) {
        return Some("option-repair");
    }
    if is_set(libc::IPPROTO_IP, libc::IP_TRANSPARENT) {
        return Some("option-transparent");
    }
    match congestion(fd) {
        Some(name) if controller(&name).is_none() => Some("option-congestion"),
        _ => None,
    }
}

/// The name of the socket's congestion controller.
pub(super) fn congestion(fd: BorrowedFd<'_>) -> Option<String> {
    let mut name = [0u8; 16];
    let mut length = name.len() as socklen_t;
    // SAFETY: `name` has `length` bytes.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_mut_ptr().cast(), &mut length)
    };
    let name = name.split(|b| *b == 0).next().unwrap_or_default();
    (result == 0).then(|| String::from_utf8_lossy(name).into_owned())
}

/// The card's number of a controller by the kernel's name.
pub(super) fn controller(name: &str) -> Option<u64> {
    let name = if name == "reno" { "new-reno" } else { name };
    option::CONTROLLERS.iter().find(|(_, n)| *n == name).map(|(value, _)| *value)
}

/// Options whose values a card connection has from its socket, by level and name; what the card's is, and the value that
/// it has anyway.
pub(super) const FORWARDED: &[(c_int, c_int)] = &[
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
];

/// Tells the card an option as the socket has it now. `only_news`: not if the card has that value from the start.
pub(super) fn forward(fd: BorrowedFd<'_>, line: &Line, (level, name): (c_int, c_int), only_news: bool) {
    let Ok(value) = int(fd, level, name) else { return };
    let tell = |option: u32, value: u64, default: u64| {
        if !only_news || value != default {
            line.set(option, value);
        }
    };
    let is_ipv6 = line.remote.ip.is_ipv6();
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => {
            let seconds = |name| u64::from(int(fd, libc::IPPROTO_TCP, name).unwrap_or(1).unsigned_abs());
            if value == 0 {
                tell(option::KEEP_ALIVE_IDLE_MS, 0, 0);
            } else {
                tell(option::KEEP_ALIVE_INTERVAL_MS, seconds(libc::TCP_KEEPINTVL) * 1000, 75_000);
                tell(option::KEEP_ALIVE_PROBES, seconds(libc::TCP_KEEPCNT).clamp(2, 255), 9);
                line.set(option::KEEP_ALIVE_IDLE_MS, (seconds(libc::TCP_KEEPIDLE) * 1000).min(86_400_000));
            }
        }
        (libc::IPPROTO_TCP, libc::TCP_NODELAY) => tell(option::NODELAY, u64::from(value != 0), 0),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => {
            tell(option::USER_TIMEOUT_MS, u64::from(value.unsigned_abs()).min(86_400_000), 0);
        }
        (libc::IPPROTO_IP, libc::IP_TOS) if !is_ipv6 => tell(option::TRAFFIC_CLASS, (value & 0xfc) as u64, 0),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if is_ipv6 => tell(option::TRAFFIC_CLASS, (value & 0xfc) as u64, 0),
        (libc::IPPROTO_IP, libc::IP_TTL) if !is_ipv6 => tell(option::HOP_LIMIT, value.clamp(1, 255) as u64, 64),
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) if is_ipv6 => {
            tell(option::HOP_LIMIT, value.clamp(1, 255) as u64, 64);
        }
        _ => {}
    }
}

/// Tells the card every option that differs from what it has from the start.
pub(super) fn forward_all(fd: BorrowedFd<'_>, line: &Line, default_congestion: Option<&str>) {
    let others = if line.remote.ip.is_ipv6() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    for at in FORWARDED.iter().filter(|(level, _)| *level != others) {
        forward(fd, line, *at, true);
    }
    if let Some(name) = congestion(fd)
        && Some(&*name) != default_congestion
        && let Some(value) = controller(&name)
    {
        line.set(option::CONGESTION, value);
    }
}

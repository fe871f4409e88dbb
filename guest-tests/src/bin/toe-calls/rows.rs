//! The rows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};

use crate::Env;
use crate::sys::*;

/// A row's name and what does it.
pub type Row = (&'static str, fn(&Env) -> String);

const WAIT_MS: i32 = 3000;
const BAD: *const libc::c_void = 16 as *const libc::c_void;

/// A connection to the peer, which does then what this byte says.
fn to(e: &Env, what: u8) -> Fd {
    let fd = tcp();
    let connected = connect(&fd, e.v4);
    assert_eq!(connected, "0", "the peer is there");
    assert_eq!(send(&fd, &[what], 0), "1");
    fd
}

/// What the peer saw of the last connection with `F`.
fn outcome(e: &Env) -> String {
    rest(&to(e, b'Q'))
}

fn refused(e: &Env) -> SocketAddr {
    SocketAddr::new(e.v4.ip(), 9)
}

fn any_v4(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

fn port_of(fd: &Fd) -> u16 {
    name(fd, false).map_or(0, |a| a.port())
}

/// A listener, and its port.
fn listener(own: SocketAddr, nonblocking: bool) -> (Fd, u16) {
    let domain = if own.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let fd = socket(domain, libc::SOCK_STREAM | if nonblocking { libc::SOCK_NONBLOCK } else { 0 });
    assert_eq!(bind(&fd, own), "0");
    assert_eq!(listen(&fd, 16), "0");
    let port = port_of(&fd);
    (fd, port)
}

/// Has the peer connect to that port after a moment: it says "ping", reads four bytes, and closes.
fn call_back(e: &Env, over_v6: bool, port: u16) -> Fd {
    let fd = if over_v6 { tcp6() } else { tcp() };
    assert_eq!(connect(&fd, if over_v6 { e.v6 } else { e.v4 }), "0");
    let [high, low] = port.to_be_bytes();
    assert_eq!(send(&fd, &[b'L', high, low], 0), "3");
    fd
}

fn wait_until(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    false
}

fn accepted(e: &Env, own: SocketAddr, over_v6: bool, f: impl FnOnce(&Fd, SocketAddr, u16) -> String) -> String {
    let (l, port) = listener(own, false);
    let control = call_back(e, over_v6, port);
    match accept(&l, 0) {
        Ok((fd, from)) => {
            // What is left unread would make a reset of the end, perhaps before the peer has read the answer.
            let ping = recv(&fd, 4, libc::MSG_WAITALL);
            let result = format!("{ping} {}", f(&fd, from, port));
            drop(fd);
            format!("{result}; peer {}", rest(&control))
        }
        Err(e) => e,
    }
}

fn echo(fd: &Fd) -> String {
    format!("{} {}", send(fd, b"echo", 0), recv(fd, 4, libc::MSG_WAITALL))
}

fn epoll_before(e: &Env, flags: i32) -> String {
    let fd = tcp_nonblocking();
    // SAFETY: it takes no pointers.
    let ep = Fd(unsafe { libc::epoll_create1(0) });
    let interest = flags | libc::EPOLLIN | libc::EPOLLOUT;
    let mut event = libc::epoll_event { events: interest as u32, u64: 7 };
    // The registration is older than the connection.
    // SAFETY: `event` is one.
    assert_eq!(unsafe { libc::epoll_ctl(ep.0, libc::EPOLL_CTL_ADD, fd.0, &mut event) }, 0);
    let mut seen = Vec::new();
    let mut wait = |ms| {
        let mut out = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event.
        let n = unsafe { libc::epoll_wait(ep.0, &mut out, 1, ms) };
        let events = out.events;
        seen.push(if n == 1 { events_of(events as i16) } else { "nothing".to_owned() });
    };
    wait(0);
    let connected = connect(&fd, e.v4);
    // What it was before the connection must not be left in a queue.
    let mut p = libc::pollfd { fd: fd.0, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&mut p, 1, WAIT_MS) };
    wait(WAIT_MS);
    wait(0);
    send(&fd, b"Ex", 0);
    let mut p = libc::pollfd { fd: fd.0, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&mut p, 1, WAIT_MS) };
    wait(WAIT_MS);
    wait(0);
    format!("{connected}; {}", seen.join(", "))
}

fn set_get(fd: &Fd, level: i32, option: i32, value: i32) -> String {
    let before = get(fd, level, option);
    format!("{before} {} {}", set(fd, level, option, value), get(fd, level, option))
}

/// Of a fresh socket, and of a connected one.
fn set_get_both(e: &Env, level: i32, option: i32, value: i32) -> String {
    let fresh = tcp();
    let connected = to(e, b'E');
    let first = set_get(&fresh, level, option, value);
    format!("{first}; {}; {}", set_get(&connected, level, option, value), echo(&connected))
}

fn set_get_v6(e: &Env, option: i32, value: i32) -> String {
    let fd = tcp6();
    let first = set_get(&fd, IPPROTO_IPV6, option, value);
    let connected = connect(&fd, e.v6);
    send(&fd, b"E", 0);
    format!("{first}; {connected} {}; {}", set_get(&fd, IPPROTO_IPV6, option, value + 4), echo(&fd))
}

fn text(bytes: Result<Vec<u8>, String>) -> String {
    bytes.map_or_else(|e| e, |b| String::from_utf8_lossy(b.split(|c| *c == 0).next().unwrap_or(&[])).into_owned())
}

extern "C" fn nothing(_: i32) {}

/// Interrupts this thread's calls after 200 ms, without restart.
fn alarm() {
    // SAFETY: zeros are a sigaction, and the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGALRM, &action, null_mut());
        let timer = libc::itimerval {
            it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
            it_value: libc::timeval { tv_sec: 0, tv_usec: 200_000 },
        };
        libc::setitimer(libc::ITIMER_REAL, &timer, null_mut());
    }
}

fn linger(fd: &Fd, on: i32, seconds: i32) -> String {
    let value = libc::linger { l_onoff: on, l_linger: seconds };
    set_raw(fd, SOL_SOCKET, libc::SO_LINGER, (&raw const value).cast(), 8)
}

fn receive_timeout(fd: &Fd, ms: i64) -> String {
    let value = libc::timeval { tv_sec: 0, tv_usec: ms * 1000 };
    set_raw(fd, SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const value).cast(), 16)
}

/// All of them.
pub const ROWS: &[Row] = &[
    ("connect: blocking, then an echo", |e| {
        let fd = tcp();
        format!("{} {} {}", connect(&fd, e.v4), send(&fd, b"E", 0), echo(&fd))
    }),
    ("connect: blocking, refused", |e| connect(&tcp(), refused(e))),
    ("connect: blocking, refused, and again to who listens", |e| {
        let fd = tcp();
        format!("{} {}", connect(&fd, refused(e)), connect(&fd, e.v4))
    }),
    ("connect: non-blocking, poll, SO_ERROR", |e| {
        let fd = tcp_nonblocking();
        format!("{} {} {}", connect(&fd, e.v4), poll(&fd, libc::POLLOUT, WAIT_MS), so_error(&fd))
    }),
    ("connect: non-blocking, refused: poll, SO_ERROR twice", |e| {
        let fd = tcp_nonblocking();
        let c = connect(&fd, refused(e));
        wait_until(|| poll(&fd, libc::POLLOUT, 0).contains("ERR"));
        let p = poll(&fd, libc::POLLIN | libc::POLLOUT, WAIT_MS);
        format!("{c} {p} {} {}", so_error(&fd), so_error(&fd))
    }),
    ("connect: non-blocking, refused: connect again twice", |e| {
        let fd = tcp_nonblocking();
        let c = connect(&fd, refused(e));
        wait_until(|| poll(&fd, libc::POLLOUT, 0).contains("ERR"));
        let again = connect(&fd, e.v4);
        format!("{c} {again} {}", connect(&fd, e.v4))
    }),
    ("connect: twice, blocking", |e| {
        let fd = to(e, b'E');
        connect(&fd, e.v4)
    }),
    ("connect: three times, non-blocking", |e| {
        let fd = tcp_nonblocking();
        let c = connect(&fd, e.v4);
        poll(&fd, libc::POLLOUT, WAIT_MS);
        format!("{c} {} {}", connect(&fd, e.v4), connect(&fd, e.v4))
    }),
    ("connect: a bad pointer", |_| connect_raw(&tcp(), BAD, 16)),
    ("connect: too short", |e| {
        let (s, _) = raw(e.v4);
        connect_raw(&tcp(), (&raw const s).cast(), 8)
    }),
    ("connect: a negative length", |e| {
        let (s, _) = raw(e.v4);
        connect_raw(&tcp(), (&raw const s).cast(), u32::MAX)
    }),
    ("connect: an address of another family", |_| {
        let (mut s, n) = raw(any_v4(1));
        s.ss_family = libc::AF_UNIX as u16;
        connect_raw(&tcp(), (&raw const s).cast(), n)
    }),
    ("connect: an IPv6 address on an IPv4 socket", |e| connect(&tcp(), e.v6)),
    ("connect: a descriptor that is none", |e| connect(&std::mem::ManuallyDrop::new(Fd(-1)), e.v4)),
    ("connect: a descriptor that is no socket", |e| {
        // SAFETY: a constant path.
        connect(&Fd(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) }), e.v4)
    }),
    ("connect: AF_UNSPEC ends the connection", |e| {
        let fd = to(e, b'E');
        let unspecified = [0u8; 16];
        let c = connect_raw(&fd, unspecified.as_ptr().cast(), 16);
        format!("{c} {}", ip(name(&fd, true)))
    }),
    ("connect: after AF_UNSPEC once more", |e| {
        let fd = to(e, b'E');
        let unspecified = [0u8; 16];
        connect_raw(&fd, unspecified.as_ptr().cast(), 16);
        format!("{} {} {}", connect(&fd, e.v4), send(&fd, b"E", 0), echo(&fd))
    }),
    ("connect: to a closed port of the loopback", |_| connect(&tcp(), SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9))),
    ("connect: a socket that listens", |e| connect(&listener(any_v4(0), false).0, e.v4)),
    ("connect: IPv6, names and an echo", |e| {
        let fd = tcp6();
        let c = connect(&fd, e.v6);
        send(&fd, b"E", 0);
        format!("{c} {} {} {}", ip(name(&fd, false)), ip(name(&fd, true)), echo(&fd))
    }),
    ("connect: IPv4 on an IPv6 socket, names and an echo", |e| {
        let IpAddr::V4(v4) = e.v4.ip() else { return "no IPv4".into() };
        let fd = tcp6();
        let c = connect(&fd, SocketAddr::new(v4.to_ipv6_mapped().into(), e.v4.port()));
        send(&fd, b"E", 0);
        format!("{c} {} {} {}", ip(name(&fd, false)), ip(name(&fd, true)), echo(&fd))
    }),
    ("bind: an address and port 0, then connect: both stay", |e| {
        let fd = tcp();
        let b = bind(&fd, SocketAddr::new(e.own_v4, 0));
        let before = name(&fd, false);
        let c = connect(&fd, e.v4);
        send(&fd, b"E", 0);
        format!("{b} {c} same={} {}", before == name(&fd, false), echo(&fd))
    }),
    ("bind: a port, then connect: the peer sees it", |e| {
        let fd = tcp();
        let b = bind(&fd, any_v4(43210));
        let c = connect(&fd, e.v4);
        send(&fd, b"P", 0);
        linger(&fd, 1, 0);
        format!("{b} {c} {}", recv(&fd, 5, libc::MSG_WAITALL))
    }),
    ("bind: what is in use", |_| {
        let (_l, port) = listener(any_v4(0), false);
        bind(&tcp(), any_v4(port))
    }),
    ("bind: an address that is not ours", |_| bind(&tcp(), SocketAddr::new(Ipv4Addr::new(198, 51, 100, 1).into(), 0))),
    ("bind: twice", |_| {
        let fd = tcp();
        format!("{} {}", bind(&fd, any_v4(0)), bind(&fd, any_v4(0)))
    }),
    ("getsockname: a fresh socket", |_| format!("{:?}", name(&tcp(), false))),
    ("getsockname: connected", |e| ip(name(&to(e, b'E'), false))),
    ("getsockname: connected, port is not zero", |e| format!("{}", port_of(&to(e, b'E')) != 0)),
    ("getsockname: the peer sees the same port", |e| {
        let fd = to(e, b'P');
        let seen = recv(&fd, 5, libc::MSG_WAITALL);
        format!("{}", seen == format!("\"{:05}\"", port_of(&fd)))
    }),
    ("getpeername: a fresh socket", |_| ip(name(&tcp(), true))),
    ("getpeername: connected", |e| format!("{}", name(&to(e, b'E'), true) == Ok(e.v4))),
    ("getpeername: after the peer's reset", |e| {
        let fd = to(e, b'R');
        poll(&fd, libc::POLLIN, WAIT_MS);
        let received = recv(&fd, 1, 0);
        format!("{received} {}", ip(name(&fd, true)))
    }),
    ("getpeername: less room than the address", |e| {
        let fd = to(e, b'E');
        let mut buffer = [0xffu8; 16];
        let mut length: libc::socklen_t = 4;
        // SAFETY: `buffer` has more than `length` bytes.
        let result = unsafe { libc::getpeername(fd.0, buffer.as_mut_ptr().cast(), &mut length) };
        format!("{result} {length} {} {}", buffer[0], buffer[4])
    }),
    ("getpeername: bad pointers", |e| {
        let fd = to(e, b'E');
        let mut length: libc::socklen_t = 16;
        // SAFETY: the kernel checks it; that is what is tested.
        let first = unsafe { libc::getpeername(fd.0, BAD.cast_mut().cast(), &mut length) };
        let first = r(first as isize);
        let mut buffer = [0u8; 16];
        // SAFETY: as above.
        let second = unsafe { libc::getpeername(fd.0, buffer.as_mut_ptr().cast(), BAD.cast_mut().cast()) };
        format!("{first} {}", r(second as isize))
    }),
    ("getpeername: a negative length", |e| {
        let fd = to(e, b'E');
        let mut buffer = [0u8; 16];
        let mut length = libc::socklen_t::MAX;
        // SAFETY: the kernel checks it; that is what is tested.
        r(unsafe { libc::getpeername(fd.0, buffer.as_mut_ptr().cast(), &mut length) } as isize)
    }),
    ("recv: MSG_PEEK", |e| {
        let fd = to(e, b'E');
        send(&fd, b"abc", 0);
        format!("{} {}", recv(&fd, 3, libc::MSG_PEEK | libc::MSG_WAITALL), recv(&fd, 3, libc::MSG_WAITALL))
    }),
    ("recv: MSG_DONTWAIT without data", |e| recv(&to(e, b'E'), 1, libc::MSG_DONTWAIT)),
    ("recv: MSG_WAITALL", |e| {
        let fd = to(e, b'E');
        send(&fd, b"12345", 0);
        send(&fd, b"67890", 0);
        recv(&fd, 10, libc::MSG_WAITALL)
    }),
    ("recv: MSG_TRUNC drops", |e| {
        let fd = to(e, b'E');
        send(&fd, b"12345", 0);
        recv(&fd, 5, libc::MSG_PEEK | libc::MSG_WAITALL);
        // SAFETY: with MSG_TRUNC nothing is written.
        let n = unsafe { libc::recv(fd.0, null_mut(), 3, libc::MSG_TRUNC) };
        format!("{n} {}", recv(&fd, 5, 0))
    }),
    ("recv: SO_RCVTIMEO", |e| {
        let fd = to(e, b'E');
        format!("{} {}", receive_timeout(&fd, 50), recv(&fd, 1, 0))
    }),
    ("recv: interrupted", |e| {
        let fd = to(e, b'E');
        alarm();
        recv(&fd, 1, 0)
    }),
    ("recv: a fresh socket", |_| recv(&tcp(), 1, 0)),
    ("send: a fresh socket", |_| send(&tcp(), b"x", 0)),
    ("recv: FIONREAD", |e| {
        let fd = to(e, b'E');
        send(&fd, b"abc", 0);
        recv(&fd, 3, libc::MSG_PEEK | libc::MSG_WAITALL);
        let mut n = 0;
        // SAFETY: FIONREAD writes an int.
        unsafe { libc::ioctl(fd.0, libc::FIONREAD, &mut n) };
        n.to_string()
    }),
    ("readv and writev", |e| {
        let fd = to(e, b'E');
        let v = |b: &[u8]| libc::iovec { iov_base: b.as_ptr().cast_mut().cast(), iov_len: b.len() };
        // SAFETY: two buffers that live as long as the call.
        let n = unsafe { libc::writev(fd.0, [v(b"ab"), v(b"cd")].as_ptr(), 2) };
        format!("{n} {}", recv(&fd, 4, libc::MSG_WAITALL))
    }),
    ("sendfile", |e| {
        let fd = to(e, b'N');
        // SAFETY: constant paths, and no offset.
        let n = unsafe {
            let file = Fd(libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY));
            libc::sendfile(fd.0, file.0, null_mut(), 100_000)
        };
        format!("{n} {} {}", shutdown(&fd, libc::SHUT_WR), rest(&fd))
    }),
    ("splice", |e| {
        let fd = to(e, b'E');
        let mut ends = [0; 2];
        // SAFETY: two ints; no offsets.
        let n = unsafe {
            libc::pipe(ends.as_mut_ptr());
            libc::write(ends[1], b"spliced".as_ptr().cast(), 7);
            libc::splice(ends[0], null_mut(), fd.0, null_mut(), 7, 0)
        };
        let _ends = ends.map(Fd);
        format!("{n} {}", recv(&fd, 7, libc::MSG_WAITALL))
    }),
    ("a megabyte, all of it arrives", |e| {
        let fd = to(e, b'N');
        let bytes = vec![b'x'; 1 << 20];
        let mut sent = 0;
        while sent < bytes.len() {
            // SAFETY: the rest of `bytes`.
            let n = unsafe { libc::send(fd.0, bytes[sent..].as_ptr().cast(), bytes.len() - sent, 0) };
            if n <= 0 {
                return errno();
            }
            sent += n as usize;
        }
        format!("{} {}", shutdown(&fd, libc::SHUT_WR), rest(&fd))
    }),
    ("send: a peer that does not read: EAGAIN in the end, and not writable", |e| {
        let fd = to(e, b'S');
        let bytes = vec![0u8; 1 << 16];
        let full = wait_until(|| {
            // SAFETY: the pointer and length are those of `bytes`.
            let n = unsafe { libc::send(fd.0, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
            n < 0 && poll(&fd, libc::POLLOUT, 100) == "nothing"
        });
        format!("{full} {}", send(&fd, b"x", libc::MSG_DONTWAIT))
    }),
    ("shutdown: the sending half; the peer counts and answers", |e| {
        let fd = to(e, b'N');
        send(&fd, b"12345", 0);
        format!("{} {} {}", shutdown(&fd, libc::SHUT_WR), send(&fd, b"x", 0), rest(&fd))
    }),
    ("shutdown: the receiving half", |e| {
        let fd = to(e, b'E');
        format!("{} {} {}", shutdown(&fd, libc::SHUT_RD), recv(&fd, 1, 0), poll(&fd, libc::POLLIN, WAIT_MS))
    }),
    ("shutdown: both", |e| {
        let fd = to(e, b'E');
        let s = shutdown(&fd, libc::SHUT_RDWR);
        format!("{s} {} {}", recv(&fd, 1, 0), send(&fd, b"x", 0))
    }),
    ("shutdown: a fresh socket", |_| shutdown(&tcp(), libc::SHUT_WR)),
    ("shutdown: twice", |e| {
        let fd = to(e, b'S');
        format!("{} {}", shutdown(&fd, libc::SHUT_WR), shutdown(&fd, libc::SHUT_WR))
    }),
    ("the peer closes: data, then the end, poll", |e| {
        let fd = to(e, b'C');
        wait_until(|| poll(&fd, libc::POLLRDHUP, 0).contains("RDHUP"));
        let p = poll(&fd, libc::POLLIN | libc::POLLRDHUP, WAIT_MS);
        format!("{p} {} {}", recv(&fd, 6, libc::MSG_WAITALL), recv(&fd, 1, 0))
    }),
    ("the peer closes: sending still works", |e| {
        let fd = to(e, b'C');
        rest(&fd);
        send(&fd, b"more", 0)
    }),
    ("the peer resets: poll, recv, send", |e| {
        let fd = to(e, b'R');
        wait_until(|| poll(&fd, libc::POLLIN, 0).contains("ERR"));
        let p = poll(&fd, libc::POLLIN | libc::POLLOUT, WAIT_MS);
        format!("{p} {} {} {}", recv(&fd, 1, 0), recv(&fd, 1, 0), send(&fd, b"x", 0))
    }),
    ("the peer resets: SO_ERROR", |e| {
        let fd = to(e, b'R');
        wait_until(|| poll(&fd, libc::POLLIN, 0).contains("ERR"));
        format!("{} {}", so_error(&fd), so_error(&fd))
    }),
    ("close: the peer sees the end", |e| {
        let fd = to(e, b'F');
        recv(&fd, 1, 0);
        drop(fd);
        outcome(e)
    }),
    ("close: SO_LINGER 0: the peer sees a reset", |e| {
        let fd = to(e, b'F');
        poll(&fd, libc::POLLIN, WAIT_MS);
        recv(&fd, 1, 0);
        let l = linger(&fd, 1, 0);
        drop(fd);
        format!("{l} {}", outcome(e))
    }),
    ("close: SO_LINGER 5 with data: it arrives", |e| {
        let fd = to(e, b'F');
        recv(&fd, 1, 0);
        let l = linger(&fd, 1, 5);
        send(&fd, b"abc", 0);
        drop(fd);
        format!("{l} {}", outcome(e))
    }),
    ("close: with data that was not read: the peer sees a reset", |e| {
        let fd = to(e, b'F');
        poll(&fd, libc::POLLIN, WAIT_MS);
        drop(fd);
        outcome(e)
    }),
    ("send: MSG_OOB, the peer sees it", |e| {
        let fd = to(e, b'U');
        send(&fd, b"ab", 0);
        let sent = send(&fd, b"c", libc::MSG_OOB);
        send(&fd, b"d", 0);
        shutdown(&fd, libc::SHUT_WR);
        format!("{sent} {}", rest(&fd))
    }),
    ("recv: MSG_OOB", |e| {
        let fd = to(e, b'O');
        wait_until(|| poll(&fd, libc::POLLPRI, 0).contains("PRI"));
        let urgent = recv(&fd, 1, libc::MSG_OOB);
        wait_until(|| poll(&fd, libc::POLLRDHUP, 0).contains("RDHUP"));
        format!("{urgent} {} {} {}", recv(&fd, 9, 0), recv(&fd, 9, 0), recv(&fd, 9, 0))
    }),
    ("recv: SO_OOBINLINE and SIOCATMARK", |e| {
        let fd = tcp();
        set(&fd, SOL_SOCKET, libc::SO_OOBINLINE, 1);
        connect(&fd, e.v4);
        send(&fd, b"O", 0);
        wait_until(|| poll(&fd, libc::POLLRDHUP, 0).contains("RDHUP"));
        let at_mark = || {
            let mut at = 0;
            // SAFETY: SIOCATMARK writes an int.
            unsafe { libc::ioctl(fd.0, 0x8905, &mut at) };
            at
        };
        let first = at_mark();
        let a = recv(&fd, 9, 0);
        format!("{first} {a} {} {}", at_mark(), recv(&fd, 9, 0))
    }),
    ("dup: the copy works when the first is closed", |e| {
        let fd = to(e, b'E');
        // SAFETY: it takes no pointers.
        let copy = Fd(unsafe { libc::dup(fd.0) });
        drop(fd);
        format!("{} {}", echo(&copy), ip(name(&copy, true)))
    }),
    ("fork: the child writes, the parent reads", |e| {
        let fd = to(e, b'E');
        // SAFETY: the child calls what a signal handler could, and ends.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::send(fd.0, b"kid".as_ptr().cast(), 3, 0);
                libc::_exit(0);
            }
            libc::waitpid(child, null_mut(), 0);
        }
        recv(&fd, 3, libc::MSG_WAITALL)
    }),
    ("SCM_RIGHTS: the received descriptor works", |e| {
        use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
        let fd = to(e, b'E');
        let Ok((a, b)) = std::os::unix::net::UnixStream::pair() else { return errno() };
        // SAFETY: it is open while it is borrowed.
        let fds = [unsafe { BorrowedFd::borrow_raw(fd.0) }];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = rustix::net::SendAncillaryBuffer::new(&mut space);
        ancillary.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
        let iov = [std::io::IoSlice::new(b"x")];
        if rustix::net::sendmsg(a.as_fd(), &iov, &mut ancillary, rustix::net::SendFlags::empty()).is_err() {
            return errno();
        }
        drop(fd);
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut iov = [std::io::IoSliceMut::new(&mut byte)];
        if rustix::net::recvmsg(b.as_fd(), &mut iov, &mut ancillary, rustix::net::RecvFlags::empty()).is_err() {
            return errno();
        }
        let received = ancillary.drain().find_map(|m| match m {
            rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let Some(received) = received else { return "no descriptor".into() };
        let received = Fd(received.into_raw_fd());
        format!("{} {}", echo(&received), ip(name(&received, true)))
    }),
    ("epoll: level-triggered, registered before connect", |e| epoll_before(e, 0)),
    ("epoll: edge-triggered, registered before connect", |e| epoll_before(e, libc::EPOLLET)),
    ("select: readable", |e| {
        let fd = to(e, b'E');
        send(&fd, b"x", 0);
        // SAFETY: a set of zeros is empty; the descriptor is small.
        unsafe {
            let mut set: libc::fd_set = std::mem::zeroed();
            libc::FD_SET(fd.0, &mut set);
            let mut timeout = libc::timeval { tv_sec: 3, tv_usec: 0 };
            let n = libc::select(fd.0 + 1, &mut set, null_mut(), null_mut(), &mut timeout);
            format!("{n} {}", libc::FD_ISSET(fd.0, &set))
        }
    }),
    ("exec: close-on-exec is kept", |e| {
        let fd = socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC);
        connect(&fd, e.v4);
        fcntl(&fd, libc::F_GETFD).to_string()
    }),
    ("TCP_NODELAY", |e| set_get_both(e, IPPROTO_TCP, libc::TCP_NODELAY, 1)),
    ("TCP_CORK", |e| {
        let fd = to(e, b'N');
        let s = set_get(&fd, IPPROTO_TCP, libc::TCP_CORK, 1);
        send(&fd, b"ab", 0);
        shutdown(&fd, libc::SHUT_WR);
        format!("{s} {}", rest(&fd))
    }),
    ("TCP_QUICKACK", |e| set(&to(e, b'E'), IPPROTO_TCP, libc::TCP_QUICKACK, 0)),
    ("SO_KEEPALIVE", |e| set_get_both(e, SOL_SOCKET, libc::SO_KEEPALIVE, 1)),
    ("TCP_KEEPIDLE", |e| set_get_both(e, IPPROTO_TCP, libc::TCP_KEEPIDLE, 30)),
    ("TCP_KEEPINTVL", |e| set_get_both(e, IPPROTO_TCP, libc::TCP_KEEPINTVL, 5)),
    ("TCP_KEEPCNT", |e| set_get_both(e, IPPROTO_TCP, libc::TCP_KEEPCNT, 3)),
    ("TCP_KEEPIDLE: out of range", |e| set_get_both(e, IPPROTO_TCP, libc::TCP_KEEPIDLE, 0)),
    ("TCP_USER_TIMEOUT", |e| set_get_both(e, IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 12_345)),
    ("TCP_CONGESTION: cubic", |e| {
        let fd = to(e, b'E');
        let s = set_raw(&fd, IPPROTO_TCP, libc::TCP_CONGESTION, c"cubic".as_ptr().cast(), 5);
        format!("{s} {} {}", text(get_bytes(&fd, IPPROTO_TCP, libc::TCP_CONGESTION, 16)), echo(&fd))
    }),
    ("TCP_CONGESTION: reno before connect", |e| {
        let fd = tcp();
        let s = set_raw(&fd, IPPROTO_TCP, libc::TCP_CONGESTION, c"reno".as_ptr().cast(), 4);
        connect(&fd, e.v4);
        format!("{s} {}", text(get_bytes(&fd, IPPROTO_TCP, libc::TCP_CONGESTION, 16)))
    }),
    ("TCP_CONGESTION: unknown", |e| {
        let fd = to(e, b'E');
        set_raw(&fd, IPPROTO_TCP, libc::TCP_CONGESTION, c"nonesuch".as_ptr().cast(), 8)
    }),
    ("TCP_MAXSEG: connected", |e| get(&to(e, b'E'), IPPROTO_TCP, libc::TCP_MAXSEG)),
    ("TCP_INFO: state, and options", |e| {
        let info = get_bytes(&to(e, b'E'), IPPROTO_TCP, libc::TCP_INFO, 104);
        info.map_or_else(|e| e, |i| format!("{} bytes, state {}, options {}", i.len(), i[0], i[5]))
    }),
    ("TCP_INFO: little room", |e| {
        let info = get_bytes(&to(e, b'E'), IPPROTO_TCP, libc::TCP_INFO, 1);
        info.map_or_else(|e| e, |i| format!("{i:?}"))
    }),
    ("TCP_INFO: the peer has closed", |e| {
        let fd = to(e, b'C');
        rest(&fd);
        let info = get_bytes(&fd, IPPROTO_TCP, libc::TCP_INFO, 1);
        info.map_or_else(|e| e, |i| format!("{i:?}"))
    }),
    ("SO_RCVBUF", |e| set_get_both(e, SOL_SOCKET, libc::SO_RCVBUF, 50_000).split(' ').skip(1).take(2).collect()),
    ("SO_SNDBUF", |e| set_get_both(e, SOL_SOCKET, libc::SO_SNDBUF, 50_000).split(' ').skip(1).take(2).collect()),
    ("SO_REUSEADDR", |e| set_get_both(e, SOL_SOCKET, libc::SO_REUSEADDR, 1)),
    ("SO_LINGER: read back", |e| {
        let fd = to(e, b'E');
        let l = linger(&fd, 1, 7);
        format!("{l} {:?}", get_bytes(&fd, SOL_SOCKET, libc::SO_LINGER, 8))
    }),
    ("SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN", |e| {
        let fd = to(e, b'E');
        let all = [libc::SO_TYPE, libc::SO_DOMAIN, libc::SO_PROTOCOL, libc::SO_ACCEPTCONN];
        all.map(|o| get(&fd, SOL_SOCKET, o)).join(" ")
    }),
    ("IP_TOS", |e| set_get_both(e, IPPROTO_IP, libc::IP_TOS, 0x28)),
    ("IP_TTL", |e| set_get_both(e, IPPROTO_IP, libc::IP_TTL, 33)),
    ("IP_TTL: out of range", |e| set_get_both(e, IPPROTO_IP, libc::IP_TTL, 256)),
    ("IPV6_TCLASS", |e| set_get_v6(e, libc::IPV6_TCLASS, 0x28)),
    ("IPV6_UNICAST_HOPS", |e| set_get_v6(e, libc::IPV6_UNICAST_HOPS, 33)),
    ("setsockopt: a bad pointer", |e| set_raw(&to(e, b'E'), IPPROTO_TCP, libc::TCP_NODELAY, BAD, 4)),
    ("setsockopt: too short", |e| {
        let value = 1;
        set_raw(&to(e, b'E'), IPPROTO_TCP, libc::TCP_NODELAY, (&raw const value).cast(), 2)
    }),
    ("setsockopt: an option that is none", |e| set(&to(e, b'E'), IPPROTO_TCP, 9999, 1)),
    ("getsockopt: bad pointers", |e| {
        let fd = to(e, b'E');
        let mut length: libc::socklen_t = 4;
        // SAFETY: the kernel checks it; that is what is tested.
        let n = unsafe { libc::getsockopt(fd.0, SOL_SOCKET, libc::SO_ERROR, BAD.cast_mut(), &mut length) };
        let first = r(n as isize);
        // SAFETY: as above.
        let n = unsafe { libc::getsockopt(fd.0, IPPROTO_TCP, libc::TCP_INFO, BAD.cast_mut(), &mut length) };
        format!("{first} {}", r(n as isize))
    }),
    ("listen: unbound", |_| {
        let fd = tcp();
        format!("{} {}", listen(&fd, 1), port_of(&fd) != 0)
    }),
    ("listen: twice", |_| {
        let (l, _) = listener(any_v4(0), false);
        listen(&l, 5)
    }),
    ("listen: a connected socket", |e| listen(&to(e, b'E'), 5)),
    ("listen: SO_ACCEPTCONN, SO_ERROR", |_| {
        let (l, _) = listener(any_v4(0), false);
        format!("{} {}", get(&l, SOL_SOCKET, libc::SO_ACCEPTCONN), so_error(&l))
    }),
    ("listen: two with SO_REUSEPORT", |_| {
        let (a, b) = (tcp(), tcp());
        for fd in [&a, &b] {
            set(fd, SOL_SOCKET, libc::SO_REUSEPORT, 1);
        }
        let first = format!("{} {}", bind(&a, any_v4(0)), listen(&a, 5));
        format!("{first} {} {}", bind(&b, any_v4(port_of(&a))), listen(&b, 5))
    }),
    ("accept: nobody there, non-blocking", |_| error_of(accept(&listener(any_v4(0), true).0, 0))),
    ("accept: nobody there, SO_RCVTIMEO", |_| {
        let (l, _) = listener(any_v4(0), false);
        format!("{} {}", receive_timeout(&l, 50), error_of(accept(&l, 0)))
    }),
    ("accept: nobody there, interrupted", |_| {
        let (l, _) = listener(any_v4(0), false);
        alarm();
        error_of(accept(&l, 0))
    }),
    ("accept: waits for the peer; its address; an exchange", |e| {
        accepted(e, any_v4(0), false, |fd, from, _| format!("{} {}", from.ip(), send(fd, b"pong", 0)))
    }),
    ("accept: names of both ends", |e| {
        accepted(e, any_v4(0), false, |fd, from, port| {
            let same = name(fd, true) == Ok(from);
            let own = name(fd, false);
            send(fd, b"pong", 0);
            format!("{same} {} {}", ip(own.clone()), own.is_ok_and(|a| a.port() == port))
        })
    }),
    ("accept: a listener on one address", |e| {
        accepted(e, SocketAddr::new(e.own_v4, 0), false, |fd, from, _| {
            format!("{} {} {}", from.ip(), ip(name(fd, false)), send(fd, b"pong", 0))
        })
    }),
    ("accept: IPv6", |e| {
        accepted(e, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0), true, |fd, from, _| {
            format!("{} {} {}", from.ip(), ip(name(fd, false)), send(fd, b"pong", 0))
        })
    }),
    ("accept: IPv4 on an IPv6 listener", |e| {
        accepted(e, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0), false, |fd, from, _| {
            format!("{} {} {}", from.ip(), ip(name(fd, false)), send(fd, b"pong", 0))
        })
    }),
    ("accept: IPV6_V6ONLY refuses IPv4", |e| {
        let fd = tcp6();
        let s = set(&fd, IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
        bind(&fd, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0));
        listen(&fd, 5);
        let control = call_back(e, false, port_of(&fd));
        format!("{s} {}", rest(&control))
    }),
    ("accept: poll says when", |e| {
        let (l, port) = listener(any_v4(0), true);
        let control = call_back(e, false, port);
        let p = poll(&l, libc::POLLIN, WAIT_MS);
        let a = accept(&l, 0).map(|(fd, _)| (recv(&fd, 4, libc::MSG_WAITALL), send(&fd, b"pong", 0)));
        format!("{p} {a:?} {}", rest(&control))
    }),
    ("accept4: flags", |e| {
        let (l, port) = listener(any_v4(0), false);
        let _control = call_back(e, false, port);
        let accepted = accept(&l, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        accepted.map_or_else(
            |e| e,
            |(fd, _)| {
                let nonblocking = fcntl(&fd, libc::F_GETFL) & libc::O_NONBLOCK != 0;
                format!("{nonblocking} {}", fcntl(&fd, libc::F_GETFD))
            },
        )
    }),
    ("accept4: flags that are none", |_| error_of(accept(&listener(any_v4(0), false).0, 1))),
    ("accept: without an address", |e| {
        let (l, port) = listener(any_v4(0), false);
        let control = call_back(e, false, port);
        // SAFETY: no pointers are given.
        let fd = Fd(unsafe { libc::accept(l.0, null_mut(), null_mut()) });
        let (ping, sent) = (recv(&fd, 4, libc::MSG_WAITALL), send(&fd, b"pong", 0));
        drop(fd);
        format!("{ping} {sent} {}", rest(&control))
    }),
    ("accept: a bad pointer", |e| {
        let (l, port) = listener(any_v4(0), false);
        let _control = call_back(e, false, port);
        let mut length: libc::socklen_t = 16;
        // SAFETY: the kernel checks it; that is what is tested.
        r(unsafe { libc::accept(l.0, BAD.cast_mut().cast(), &mut length) } as isize)
    }),
    ("accept: a socket that does not listen", |_| error_of(accept(&tcp(), 0))),
    ("accept: no descriptor left", |e| {
        let (l, port) = listener(any_v4(0), false);
        let _control = call_back(e, false, port);
        poll(&l, libc::POLLIN, WAIT_MS);
        // SAFETY: two structs on the stack.
        unsafe {
            let mut before: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut before);
            let none = libc::rlimit { rlim_cur: 3, rlim_max: before.rlim_max };
            libc::setrlimit(libc::RLIMIT_NOFILE, &none);
            let first = error_of(accept(&l, 0));
            libc::setrlimit(libc::RLIMIT_NOFILE, &before);
            format!("{first}, then {}", error_of(accept(&l, 0)))
        }
    }),
    ("accept: inherits TCP_NODELAY and SO_KEEPALIVE", |e| {
        let l = tcp();
        set(&l, IPPROTO_TCP, libc::TCP_NODELAY, 1);
        set(&l, SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        bind(&l, any_v4(0));
        listen(&l, 5);
        let _control = call_back(e, false, port_of(&l));
        accept(&l, 0).map_or_else(
            |e| e,
            |(fd, _)| {
                let keep = get(&fd, SOL_SOCKET, libc::SO_KEEPALIVE);
                format!("{} {keep}", get(&fd, IPPROTO_TCP, libc::TCP_NODELAY))
            },
        )
    }),
    ("accept: the peer is gone before", |e| {
        let (l, port) = listener(any_v4(0), false);
        let fd = tcp();
        connect(&fd, e.v4);
        let [high, low] = port.to_be_bytes();
        send(&fd, &[b'G', high, low], 0);
        let said = rest(&fd);
        let a = accept(&l, 0);
        format!("{said} {}", a.map_or_else(|e| e, |(fd, from)| format!("{} {}", from.ip(), rest(&fd))))
    }),
    ("accept: after shutdown of the listener", |_| {
        let (l, _) = listener(any_v4(0), false);
        format!("{} {}", shutdown(&l, libc::SHUT_RD), error_of(accept(&l, 0)))
    }),
    ("a listener that is closed refuses", |e| {
        let (l, port) = listener(any_v4(0), false);
        drop(l);
        std::thread::sleep(Duration::from_millis(1500));
        rest(&call_back(e, false, port))
    }),
    ("UDP: connect, names, an echo is none of ours", |e| {
        let fd = socket(libc::AF_INET, libc::SOCK_DGRAM);
        format!("{} {} {}", connect(&fd, e.v4), ip(name(&fd, true)), send(&fd, b"x", 0))
    }),
    ("Unix sockets: a pair", |_| {
        let mut ends = [0; 2];
        // SAFETY: two ints.
        let n = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) };
        let [a, b] = ends.map(Fd);
        format!("{n} {} {}", send(&a, b"x", 0), recv(&b, 1, 0))
    }),
    ("loopback: connect, accept, names", |_| {
        let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let (l, port) = listener(own, false);
        let fd = tcp();
        let c = connect(&fd, SocketAddr::new(own.ip(), port));
        let a = accept(&l, 0);
        format!("{c} {} {}", a.map_or_else(|e| e, |(_, from)| from.ip().to_string()), ip(name(&fd, true)))
    }),
    ("null pointers in names", |e| {
        let fd = to(e, b'E');
        // SAFETY: the kernel checks it; that is what is tested.
        let n = unsafe { libc::getsockname(fd.0, null::<libc::sockaddr>().cast_mut(), null_mut()) };
        r(n as isize)
    }),
];

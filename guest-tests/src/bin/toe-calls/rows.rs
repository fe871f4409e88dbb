//! The rows, and what several of them need.

mod accepting;
mod connecting;
mod data;
mod options;

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
pub fn all() -> impl Iterator<Item = &'static Row> {
    [connecting::ROWS, data::ROWS, options::ROWS, accepting::ROWS].into_iter().flatten()
}

//! `connect`, `bind` and names.

use super::*;

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
];

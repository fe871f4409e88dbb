//! `listen` and `accept`, and what is none of the card's.

use super::*;

pub const ROWS: &[Row] = &[
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
    ("accept: nobody there, SO_RCVTIMEO, four times", |_| {
        let (l, _) = listener(any_v4(0), false);
        let first = receive_timeout(&l, 10);
        format!("{first} {:?}", [(); 4].map(|()| error_of(accept(&l, 0))))
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

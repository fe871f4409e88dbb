//! Options, before and after a connection.

use super::*;

pub const ROWS: &[Row] = &[
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
];

//! System calls that do not block, and what packets they make and take.

mod script;

use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, SOL_SOCKET};
use script::{Peer, Stack, accepted, limited, octets};

const TCP: i32 = libc::IPPROTO_TCP;

#[test]
fn a_connection_is_accepted_used_and_closed() {
    for v6 in [false, true] {
        limited(move || {
            let (stack, listener, fd, mut peer) = accepted("", v6);
            peer.send("PA 1:11 ack 1");
            assert_eq!(stack.ioctl(fd, libc::FIONREAD), Ok(10));
            assert_eq!(stack.read(fd, 100), Ok(octets(1, 11)));
            // The acknowledgement is delayed, by the profile's 40 ms.
            let before = stack.now();
            let at = peer.expect("A 1:1 ack 11");
            assert!((39_000..=41_000).contains(&(at - before)), "{}", at - before);
            assert_eq!(stack.write(fd, &octets(1, 501)), Ok(500));
            peer.expect("PA 1:501 ack 11");
            assert_eq!(stack.ioctl(fd, libc::TIOCOUTQ), Ok(500));
            peer.send("A 11:11 ack 501");
            assert_eq!(stack.ioctl(fd, libc::TIOCOUTQ), Ok(0));
            assert_eq!(stack.close(fd), Ok(0));
            peer.expect("FA 501:501 ack 11");
            peer.send("A 11:11 ack 502");
            peer.send("FA 11:11 ack 502");
            peer.expect("A 502:502 ack 12");
            assert_eq!(stack.close(listener), Ok(0));
            assert_eq!(stack.recv(fd, 1, Some(0)), Err(libc::EBADF));
            assert!(stack.sniff().is_none());
            stack.free();
        });
    }
}

#[test]
fn the_peer_closes_first() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("", false);
        peer.send("FPA 1:11 ack 1");
        peer.expect("A 1:1 ack 12");
        assert_eq!(stack.poll(fd, POLLIN | POLLRDHUP, 0), Ok(POLLIN | POLLRDHUP));
        assert_eq!(stack.read(fd, 5), Ok(octets(1, 6)));
        assert_eq!(stack.read(fd, 100), Ok(octets(6, 11)));
        assert_eq!(stack.read(fd, 100), Ok(vec![]));
        assert_eq!(stack.write(fd, &octets(1, 3)), Ok(2));
        peer.expect("PA 1:3 ack 12");
        assert_eq!(stack.shutdown(fd, libc::SHUT_WR), Ok(0));
        peer.expect("FA 3:3 ack 12");
        assert_eq!(stack.write(fd, b"x"), Err(libc::EPIPE));
        assert_eq!(stack.poll(fd, POLLIN | POLLOUT, 0), Ok(POLLIN | POLLOUT | POLLHUP));
    });
}

#[test]
fn a_reset_is_told_once() {
    limited(|| {
        let (stack, _, fd, peer) = accepted("", false);
        assert_eq!(stack.recv(fd, 10, Some(libc::MSG_DONTWAIT)), Err(libc::EAGAIN));
        peer.send("RA 1:1 ack 1");
        assert_eq!(stack.poll(fd, POLLIN, 0), Ok(POLLIN | POLLERR | POLLHUP));
        assert_eq!(stack.read(fd, 10), Err(libc::ECONNRESET));
        assert_eq!(stack.read(fd, 10), Ok(vec![]));
        assert_eq!(stack.write(fd, b"x"), Err(libc::EPIPE));
        let (stack, _, fd, peer) = accepted("", false);
        peer.send("RA 1:1 ack 1");
        assert_eq!(stack.get(fd, SOL_SOCKET, libc::SO_ERROR), Ok(libc::ECONNRESET.into()));
        assert_eq!(stack.get(fd, SOL_SOCKET, libc::SO_ERROR), Ok(0));
    });
}

#[test]
fn a_reset_after_the_peers_end_is_a_reset() {
    limited(|| {
        let (stack, _, fd, peer) = accepted("", false);
        peer.send("FA 1:1 ack 1");
        peer.send("RA 2:2 ack 1");
        assert_eq!(stack.get(fd, SOL_SOCKET, libc::SO_ERROR), Ok(libc::ECONNRESET.into()));
    });
}

#[test]
fn both_ends_connect_at_once() {
    limited(|| {
        let stack = Stack::new("");
        let fd = stack.socket(false, libc::SOCK_NONBLOCK);
        let mut peer = Peer::new(stack, "192.0.2.1:80", "192.168.0.1:0");
        assert_eq!(stack.connect(fd, peer.here), Err(libc::EINPROGRESS));
        peer.expect("S 0:0");
        peer.send("S 0:0");
        peer.expect("SA 0:0 ack 1");
        peer.send("A 1:1 ack 1");
        assert_eq!(stack.poll(fd, POLLOUT, 0), Ok(POLLOUT));
        assert_eq!(stack.connect(fd, peer.here), Ok(0));
    });
}

#[test]
fn connect_without_waiting() {
    for v6 in [false, true] {
        limited(move || {
            let stack = Stack::new("local=192.0.2.9,local=2001:db8::9");
            let fd = stack.socket(v6, libc::SOCK_NONBLOCK);
            assert_eq!(stack.fcntl(fd, libc::F_GETFL, 0), Ok((libc::O_RDWR | libc::O_NONBLOCK).into()));
            let here = if v6 { "[2001:db8::1]:80" } else { "192.0.2.1:80" };
            let there = if v6 { "[2001:db8::9]:0" } else { "192.0.2.9:0" };
            let mut peer = Peer::new(stack, here, there);
            let (own, to) = (peer.there.ip(), peer.here);
            assert_eq!(stack.poll(fd, POLLOUT, 0), Ok(POLLOUT | POLLHUP));
            assert_eq!(stack.connect(fd, to), Err(libc::EINPROGRESS));
            assert_eq!(stack.connect(fd, to), Err(libc::EALREADY));
            assert_eq!(stack.poll(fd, POLLIN | POLLOUT, 0), Ok(0));
            peer.expect(if v6 { "S 0:0 mss 1440" } else { "S 0:0 mss 1460" });
            assert_eq!(peer.there.ip(), own);
            stack.sleep_ms(30);
            peer.send("SA 0:0 ack 1 mss 1000");
            peer.expect("A 1:1 ack 1");
            assert_eq!(stack.poll(fd, POLLIN | POLLOUT, 0), Ok(POLLOUT));
            assert_eq!(stack.get(fd, SOL_SOCKET, libc::SO_ERROR), Ok(0));
            assert_eq!(stack.connect(fd, to), Ok(0));
            assert_eq!(stack.connect(fd, to), Err(libc::EISCONN));
        });
    }
}

#[test]
fn connect_refused() {
    limited(|| {
        let stack = Stack::new("");
        let fd = stack.socket(false, libc::SOCK_NONBLOCK);
        let mut peer = Peer::new(stack, "192.0.2.1:80", "192.168.0.1:0");
        assert_eq!(stack.connect(fd, peer.here), Err(libc::EINPROGRESS));
        peer.expect("S 0:0");
        peer.send("RA 0:0 ack 1");
        assert_eq!(stack.poll(fd, POLLOUT, 0), Ok(POLLOUT | POLLERR | POLLHUP));
        assert_eq!(stack.get(fd, SOL_SOCKET, libc::SO_ERROR), Ok(libc::ECONNREFUSED.into()));
        // A socket whose attempt has failed can try again.
        assert_eq!(stack.connect(fd, peer.here), Err(libc::EINPROGRESS));
        let mut again = Peer::new(stack, "192.0.2.1:80", "192.168.0.1:0");
        again.expect("S 0:0");
    });
}

#[test]
fn an_ipv4_peer_of_an_ipv6_socket() {
    limited(|| {
        let stack = Stack::new("");
        let listener = stack.socket(true, 0);
        stack.bind(listener, "[::]:80".parse().unwrap()).unwrap();
        stack.listen(listener, 5).unwrap();
        let mut peer = Peer::new(stack, "192.0.2.1:4000", "192.168.0.1:80");
        peer.send("S 0:0");
        peer.expect("SA 0:0 ack 1");
        peer.send("A 1:1 ack 1");
        let (_, from) = stack.accept(listener).unwrap();
        assert_eq!(from, "[::ffff:192.0.2.1]:4000".parse().unwrap());
        let only = stack.socket(true, 0);
        assert_eq!(stack.set(only, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &[1]), Ok(0));
        stack.bind(only, "[::]:81".parse().unwrap()).unwrap();
        stack.listen(only, 5).unwrap();
        let mut refused = Peer::new(stack, "192.0.2.1:4001", "192.168.0.1:81");
        refused.send("S 0:0");
        refused.expect("RA 0:0 ack 1");
    });
}

#[test]
fn data_is_lost_at_close_only_with_a_reset() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("", false);
        stack.set(fd, SOL_SOCKET, libc::SO_LINGER, &[1, 0]).unwrap();
        stack.close(fd).unwrap();
        peer.expect("RA 1:1");
        let (stack, _, fd, mut peer) = accepted("", false);
        peer.send("PA 1:11 ack 1");
        assert_eq!(stack.read(fd, 9).map(|data| data.len()), Ok(9));
        stack.close(fd).unwrap();
        peer.expect("RA 1:1");
    });
}

#[test]
fn what_is_not_read_fills_the_window() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("limits.connection_receive_pages=2", false);
        for n in 0..4 {
            peer.send(&format!("PA {}:{} ack 1", n * 1000 + 1, n * 1000 + 1001));
        }
        peer.send("A 4001:4096 ack 1");
        while stack.sniff().is_some() {}
        assert_eq!(stack.ioctl(fd, libc::FIONREAD), Ok(4095));
        peer.send("A 4096:4098 ack 1");
        peer.expect("A 1:1 win 0");
        assert_eq!(stack.recv(fd, 10, Some(libc::MSG_PEEK)), Ok(octets(1, 11)));
        assert!(stack.read(fd, 4000).is_ok_and(|data| data == octets(1, 4001)));
        // Room for a segment again: the peer is told at once.
        let before = stack.now();
        let (update, at) = stack.sniff().unwrap();
        assert!(update.window >= 1000 && at <= before, "{update:?}");
    });
}

#[test]
fn vectors_and_messages() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("", false);
        let sent = octets(1, 31);
        let mut parts = [(&sent[..10]), &[], &sent[10..]]
            .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        // SAFETY: the parts point to `sent`, which outlives the call.
        assert_eq!(unsafe { (stack.table.writev)(stack.table.userdata, fd, parts.as_ptr(), 3) }, 30);
        peer.expect("PA 1:31");
        peer.send("PA 1:31 ack 31");
        let mut got = [0u8; 40];
        let (a, b) = got.split_at_mut(7);
        parts = [a, &mut [], b]
            .map(|part: &mut [u8]| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
        // SAFETY: zero is a valid value for all of its fields.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), 3);
        message.msg_flags = -1;
        // SAFETY: the parts point to `got`, which outlives the call.
        assert_eq!(unsafe { (stack.table.recvmsg)(stack.table.userdata, fd, &raw mut message, 0) }, 30);
        assert_eq!(message.msg_flags, 0);
        assert_eq!(got[..30], octets(1, 31));
        assert_eq!(stack.recv(fd, 1, Some(libc::MSG_OOB)), Err(libc::EINVAL));
        assert_eq!(stack.send(fd, b"x", libc::MSG_OOB), Err(libc::EOPNOTSUPP));
        assert_eq!(stack.recv(fd, 1, Some(libc::MSG_DONTWAIT)), Err(libc::EAGAIN));
    });
}

#[test]
fn options() {
    limited(|| {
        let (stack, listener, fd, mut peer) = accepted("cc=new-reno", false);
        assert_eq!(stack.get(fd, SOL_SOCKET, libc::SO_REUSEADDR), Ok(1), "inherited");
        assert_eq!(stack.get(listener, SOL_SOCKET, libc::SO_ACCEPTCONN), Ok(1));
        assert_eq!(stack.get(fd, TCP, libc::TCP_MAXSEG), Ok(1000));
        // What neither the card nor the adapter has.
        assert_eq!(stack.set(fd, SOL_SOCKET, libc::SO_BROADCAST, &[1]), Err(libc::ENOPROTOOPT));
        assert_eq!(stack.get(fd, TCP, libc::TCP_FASTOPEN), Err(libc::ENOPROTOOPT));
        let name = |bytes: [u8; 4]| i32::from_ne_bytes(bytes);
        assert_eq!(stack.set(fd, TCP, libc::TCP_CONGESTION, &[name(*b"reno"), 0]), Ok(0));
        assert_eq!(stack.set(fd, TCP, libc::TCP_CONGESTION, &[name(*b"cubi"), name(*b"c\0\0\0")]), Ok(0));
        assert_eq!(stack.set(fd, TCP, libc::TCP_CONGESTION, &[name(*b"vega"), name(*b"s\0\0\0")]), Err(libc::ENOENT));
        // Nagle: the second small segment waits for the first to be acknowledged, or for TCP_NODELAY.
        stack.write(fd, &octets(1, 11)).unwrap();
        stack.write(fd, &octets(11, 21)).unwrap();
        peer.expect("PA 1:11");
        assert_eq!(stack.get(fd, TCP, libc::TCP_NODELAY), Ok(0));
        let before = stack.now();
        stack.set(fd, TCP, libc::TCP_NODELAY, &[1]).unwrap();
        assert!(peer.expect("PA 11:21") <= before);
        let stack = Stack::new("mtu=1400");
        let fd = stack.socket(false, libc::SOCK_NONBLOCK);
        assert_eq!(stack.set(fd, TCP, libc::TCP_MAXSEG, &[500]), Ok(0));
        let mut peer = Peer::new(stack, "192.0.2.1:80", "192.168.0.1:0");
        assert_eq!(stack.connect(fd, peer.here), Err(libc::EINPROGRESS));
        peer.expect("S 0:0 mss 500");
    });
}

#[test]
fn epoll() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("", false);
        let epfd = stack.epoll_create();
        let (add, modify, delete) = (libc::EPOLL_CTL_ADD, libc::EPOLL_CTL_MOD, libc::EPOLL_CTL_DEL);
        assert_eq!(stack.epoll_ctl(epfd, modify, fd, libc::EPOLLIN, 7), Err(libc::ENOENT));
        assert_eq!(stack.epoll_ctl(epfd, add, fd, libc::EPOLLIN, 7), Ok(0));
        assert_eq!(stack.epoll_ctl(epfd, add, fd, libc::EPOLLIN, 7), Err(libc::EEXIST));
        assert_eq!(stack.epoll_wait(epfd, 0), Ok(vec![]));
        peer.send("PA 1:11 ack 1");
        for _ in 0..2 {
            assert_eq!(stack.epoll_wait(epfd, 0), Ok(vec![(libc::EPOLLIN, 7)]), "level");
        }
        stack.epoll_ctl(epfd, modify, fd, libc::EPOLLIN | libc::EPOLLET, 8).unwrap();
        assert_eq!(stack.epoll_wait(epfd, 0), Ok(vec![(libc::EPOLLIN, 8)]));
        assert_eq!(stack.epoll_wait(epfd, 0), Ok(vec![]), "no new edge");
        peer.send("PA 11:21 ack 1");
        assert_eq!(stack.epoll_wait(epfd, 0), Ok(vec![(libc::EPOLLIN, 8)]), "edge");
        stack.epoll_ctl(epfd, modify, fd, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLONESHOT, 9).unwrap();
        assert_eq!(stack.epoll_wait(epfd, 0), Ok(vec![(libc::EPOLLIN | libc::EPOLLOUT, 9)]));
        assert_eq!(stack.epoll_wait(epfd, 0), Ok(vec![]), "one shot");
        stack.epoll_ctl(epfd, modify, fd, libc::EPOLLOUT, 9).unwrap();
        peer.send("RA 21:21 ack 1");
        let all = libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP;
        assert_eq!(stack.epoll_wait(epfd, 0), Ok(vec![(all, 9)]));
        assert_eq!(stack.epoll_ctl(epfd, delete, fd, 0, 0), Ok(0));
        assert_eq!(stack.epoll_wait(epfd, 0), Ok(vec![]));
        assert_eq!(stack.epoll_wait(fd, 0), Err(libc::EINVAL));
        peer.expect("A 1:1 ack 21");
    });
}

#[test]
fn pipes_and_splice() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("", false);
        let mut ends = [-1; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { (stack.table.pipe)(stack.table.userdata, ends.as_mut_ptr()) }, 0);
        let splice = |from: i32, to: i32, n: usize| {
            let flags = libc::SPLICE_F_NONBLOCK;
            let none = std::ptr::null_mut();
            // SAFETY: no offsets.
            let n = unsafe { (stack.table.splice)(stack.table.userdata, from, none, to, none, n, flags) };
            if n < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(n) }
        };
        assert_eq!(splice(fd, ends[1], 100), Err(libc::EAGAIN));
        peer.send("PA 1:31 ack 1");
        assert_eq!(splice(fd, ends[1], 20), Ok(20));
        assert_eq!(stack.read(ends[0], 5), Ok(octets(1, 6)));
        assert_eq!(stack.write(ends[1], b"!"), Ok(1));
        assert_eq!(stack.read(ends[0], 15), Ok(octets(6, 21)));
        assert_eq!(stack.read(ends[0], 15), Ok(b"!".to_vec()));
        assert_eq!(splice(ends[0], fd, 100), Err(libc::EAGAIN));
        stack.write(ends[1], &octets(1, 41)).unwrap();
        assert_eq!(splice(ends[0], fd, 100), Ok(40));
        peer.expect("PA 1:41");
        assert_eq!(splice(ends[0], ends[1], 1), Err(libc::EINVAL));
        stack.close(ends[0]).unwrap();
        stack.close(ends[1]).unwrap();
    });
}

#[test]
fn a_closed_port_answers_with_a_reset() {
    for v6 in [false, true] {
        limited(move || {
            let (here, there) = if v6 {
                ("[2001:db8::1]:4000", "[fd3d:fa7b:d17d::1]:81")
            } else {
                ("192.0.2.1:4000", "192.168.0.1:81")
            };
            let stack = Stack::new("");
            let mut peer = Peer::new(stack, here, there);
            peer.send("S 0:0");
            peer.expect("RA 0:0 ack 1");
            let silent = Stack::new("closed=drop");
            Peer::new(silent, here, there).send("S 0:0");
            assert!(silent.sniff().is_none());
        });
    }
}

#[test]
fn flags_that_make_no_sense_fail_every_call() {
    let stack = Stack::new("mtu=1");
    // SAFETY: no pointers.
    let fd = unsafe { (stack.table.socket)(stack.table.userdata, libc::AF_INET, libc::SOCK_STREAM, 0) };
    assert_eq!((fd, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EINVAL)));
    assert!(stack.sniff().is_none());
    stack.free();
}

#[test]
fn descriptors_are_real_and_addresses_are_kept_apart() {
    limited(|| {
        let stack = Stack::new("");
        let (a, b) = (stack.socket(false, 0), stack.socket(false, 0));
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::fcntl(a, libc::F_GETFD) }, libc::FD_CLOEXEC);
        let port = "192.168.0.1:80".parse().unwrap();
        assert_eq!(stack.bind(a, port), Ok(0));
        assert_eq!(stack.bind(a, port), Err(libc::EINVAL));
        assert_eq!(stack.bind(b, port), Err(libc::EADDRINUSE));
        assert_eq!(stack.bind(b, "[::1]:80".parse().unwrap()), Err(libc::EAFNOSUPPORT));
        assert_eq!(stack.close(a), Ok(0));
        assert_eq!(stack.bind(b, port), Ok(0));
        assert_eq!(stack.bind(12_345, port), Err(libc::EBADF));
        assert_eq!(stack.read(b, 1), Err(libc::ENOTCONN));
        assert_eq!(stack.write(b, b"x"), Err(libc::EPIPE));
        assert_eq!(stack.accept(b).map(|_| ()), Err(libc::EINVAL));
    });
}

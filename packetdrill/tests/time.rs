//! Virtual time: timers, and calls that block in it.

mod script;

use libc::{POLLIN, POLLOUT, SOL_SOCKET};
use script::{Peer, Stack, accepted, limited, octets};

/// How exact a moment is: the clock creeps when it is read, and the card's timers have ticks of 128 µs.
const EXACT_US: u64 = 300;

#[track_caller]
fn at(moment: u64, expected: u64) {
    assert!(moment.abs_diff(expected) <= EXACT_US, "at {moment}, expected {expected}: {}", moment.abs_diff(expected));
}

#[test]
fn time_passes_only_when_asked() {
    limited(|| {
        let stack = Stack::new("");
        let began = stack.now();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = stack.now();
        assert!(now > began && now - began < 10, "it creeps, and no more");
        stack.sleep_ms(5000);
        at(stack.now(), began + 5_000_000);
        // Nothing is under way: there is no next packet.
        assert!(stack.sniff().is_none());
    });
}

#[test]
fn a_listener_waits_for_its_connection() {
    limited(|| {
        let stack = Stack::new("");
        let listener = stack.socket(false, 0);
        stack.bind(listener, "192.168.0.1:80".parse().unwrap()).unwrap();
        stack.listen(listener, 1).unwrap();
        let began = stack.now();
        let accept = stack.blocking(move |s| s.accept(listener));
        let mut peer = Peer::new(stack, "192.0.2.1:4000", "192.168.0.1:80");
        stack.sleep_ms(100);
        peer.send("S 0:0");
        peer.expect("SA 0:0 ack 1");
        stack.sleep_ms(100);
        assert!(accept.is_blocked());
        peer.send("A 1:1 ack 1");
        let (result, returned) = accept.end();
        assert_eq!(result.unwrap().1, peer.here);
        at(returned, began + 200_000);
    });
}

#[test]
fn connect_waits_for_the_handshake() {
    limited(|| {
        let stack = Stack::new("");
        let fd = stack.socket(false, 0);
        let mut peer = Peer::new(stack, "192.0.2.1:80", "192.168.0.1:0");
        let (began, to) = (stack.now(), peer.here);
        let connect = stack.blocking(move |s| s.connect(fd, to));
        at(peer.expect("S 0:0"), began);
        // The SYN is lost: again after one second (RFC 6298), then two.
        at(peer.expect("S 0:0"), began + 1_000_000);
        at(peer.expect("S 0:0"), began + 3_000_000);
        stack.sleep_ms(40);
        peer.send("SA 0:0 ack 1");
        let (result, returned) = connect.end();
        assert_eq!(result, Ok(0));
        at(returned, began + 3_040_000);
        peer.expect("A 1:1 ack 1");
    });
}

#[test]
fn connect_gives_up() {
    limited(|| {
        let stack = Stack::new("tcp.give_up_syn_ms=10000");
        let fd = stack.socket(false, 0);
        let peer = Peer::new(stack, "192.0.2.1:80", "192.168.0.1:0");
        let (began, to) = (stack.now(), peer.here);
        let connect = stack.blocking(move |s| s.connect(fd, to));
        while stack.sniff().is_some() {}
        let (result, returned) = connect.end();
        assert_eq!(result, Err(libc::ETIMEDOUT));
        assert!(returned - began >= 10_000_000, "{}", returned - began);
    });
}

#[test]
fn read_waits_for_data_or_the_end() {
    limited(|| {
        let (stack, _, fd, peer) = accepted("", false);
        let began = stack.now();
        let read = stack.blocking(move |s| s.read(fd, 100));
        stack.sleep_ms(50);
        assert!(read.is_blocked());
        peer.send("PA 1:11 ack 1");
        // The clock does not move before the reader has noted when it returned.
        stack.sleep_ms(1000);
        let (data, returned) = read.end();
        assert_eq!(data, Ok(octets(1, 11)));
        at(returned, began + 50_000);
        let read = stack.blocking(move |s| s.recv(fd, 20, Some(libc::MSG_WAITALL)));
        peer.send("PA 11:21 ack 1");
        stack.sleep_ms(10);
        assert!(read.is_blocked());
        peer.send("PA 21:41 ack 1");
        assert_eq!(read.end().0, Ok(octets(11, 31)));
        assert_eq!(stack.read(fd, 100), Ok(octets(31, 41)));
        let read = stack.blocking(move |s| s.read(fd, 100));
        peer.send("FA 41:41 ack 1");
        assert_eq!(read.end().0, Ok(vec![]));
    });
}

#[test]
fn a_reset_wakes_a_reader() {
    limited(|| {
        let (stack, _, fd, peer) = accepted("", false);
        let read = stack.blocking(move |s| s.read(fd, 100));
        stack.sleep_ms(50);
        peer.send("RA 1:1 ack 1");
        assert_eq!(read.end().0, Err(libc::ECONNRESET));
    });
}

#[test]
fn write_waits_for_room() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("", false);
        stack.set(fd, SOL_SOCKET, libc::SO_SNDBUF, &[2500]).unwrap();
        assert_eq!(stack.get(fd, SOL_SOCKET, libc::SO_SNDBUF), Ok(5000));
        let began = stack.now();
        let write = stack.blocking(move |s| s.write(fd, &octets(1, 8001)));
        for n in 0..5 {
            peer.expect(&format!("{} {}:{}", if n == 4 { "PA" } else { "A" }, n * 1000 + 1, n * 1000 + 1001));
        }
        stack.sleep_ms(100);
        assert!(write.is_blocked());
        peer.send("A 1:1 ack 2001");
        stack.sleep_ms(100);
        assert!(write.is_blocked());
        peer.send("A 1:1 ack 5001");
        let (result, returned) = write.end();
        assert_eq!(result, Ok(8000));
        at(returned, began + 200_000);
        // Without waiting, only as much as there is room for.
        assert_eq!(stack.send(fd, &octets(8001, 12_001), libc::MSG_DONTWAIT), Ok(2000));
        assert_eq!(stack.send(fd, &octets(10_001, 12_001), libc::MSG_DONTWAIT), Err(libc::EAGAIN));
        assert_eq!(stack.poll(fd, POLLOUT, 0), Ok(0));
    });
}

#[test]
fn lost_data_is_sent_again_when_it_is_time() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("tcp.rto_min_ms=300", false);
        let rto = stack.rto_us(fd);
        assert!((300_000..400_000).contains(&rto), "{rto}");
        stack.write(fd, &octets(1, 101)).unwrap();
        let first = peer.expect("PA 1:101");
        let second = peer.expect("PA 1:101");
        let third = peer.expect("PA 1:101");
        at(second, first + rto);
        at(third, second + 2 * rto);
        // Nothing else happens once the peer has it.
        stack.sleep_ms(100);
        peer.send("A 1:1 ack 101");
        assert!(stack.sniff().is_none());
    });
}

#[test]
fn packets_keep_the_time_at_which_they_were_sent() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("tcp.rto_min_ms=300", false);
        let rto = stack.rto_us(fd);
        stack.write(fd, &octets(1, 101)).unwrap();
        let began = stack.now();
        stack.sleep_ms(4000);
        at(peer.expect("PA 1:101"), began);
        at(peer.expect("PA 1:101"), began + rto);
        at(peer.expect("PA 1:101"), began + 3 * rto);
        at(peer.expect("PA 1:101"), began + 7 * rto);
        at(stack.now(), began + 4_000_000);
    });
}

#[test]
fn poll_and_epoll_wait_in_virtual_time() {
    limited(|| {
        let (stack, _, fd, peer) = accepted("", false);
        let epfd = stack.epoll_create();
        stack.epoll_ctl(epfd, libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, 1).unwrap();
        let began = stack.now();
        let poll = stack.blocking(move |s| s.poll(fd, POLLIN, 200));
        stack.sleep_ms(1000);
        let (result, returned) = poll.end();
        assert_eq!(result, Ok(0));
        at(returned, began + 200_000);
        let began = stack.now();
        let wait = stack.blocking(move |s| s.epoll_wait(epfd, -1));
        stack.sleep_ms(300);
        peer.send("PA 1:11 ack 1");
        let (result, returned) = wait.end();
        assert_eq!(result, Ok(vec![(libc::EPOLLIN, 1)]));
        at(returned, began + 300_000);
    });
}

#[test]
fn a_time_limit_of_a_socket() {
    limited(|| {
        let (stack, _, fd, _peer) = accepted("", false);
        // 1.5 s as a `struct timeval`.
        stack.set(fd, SOL_SOCKET, libc::SO_RCVTIMEO, &[1, 0, 500_000, 0]).unwrap();
        let began = stack.now();
        let read = stack.blocking(move |s| s.read(fd, 1));
        stack.sleep_ms(5000);
        let (result, returned) = read.end();
        assert_eq!(result, Err(libc::EAGAIN));
        at(returned, began + 1_500_000);
    });
}

#[test]
fn a_call_that_nobody_moves_the_clock_for_moves_it_itself() {
    limited(|| {
        let (stack, _, fd, _peer) = accepted("", false);
        let began = stack.now();
        assert_eq!(stack.poll(fd, POLLIN, 30_000), Ok(0));
        at(stack.now(), began + 30_000_000);
    });
}

#[test]
fn a_call_that_nobody_can_end_fails() {
    limited(|| {
        let (stack, _, fd, _peer) = accepted("idle_s=1", false);
        assert_eq!(stack.read(fd, 1), Err(libc::EDEADLK));
    });
}

#[test]
fn long_silence_keeps_the_connection() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("", false);
        // Beyond any lease of the channel.
        for _ in 0..3 {
            stack.sleep_ms(4_000_000);
        }
        stack.write(fd, &octets(1, 11)).unwrap();
        peer.expect("PA 1:11");
    });
}

#[test]
fn the_same_flags_give_the_same_packets() {
    limited(|| {
        let iss = |flags: &str| {
            let stack = Stack::new(flags);
            let fd = stack.socket(false, libc::SOCK_NONBLOCK);
            stack.connect(fd, "192.0.2.1:80".parse().unwrap()).unwrap_err();
            stack.sniff().unwrap().0.seq
        };
        assert_eq!(iss("seed=1"), iss("seed=1"));
        assert_ne!(iss("seed=1"), iss("seed=2"));
    });
}

//! Options that a program sets, and what they do to the packets.

mod script;

use libc::{IPPROTO_IP, IPPROTO_TCP as TCP, SOL_SOCKET};
use script::{Peer, Stack, accepted, limited, octets};

/// `TCP_INQ` and `TCP_NOTSENT_LOWAT`.
const INQ: i32 = 36;

fn near(at: u64, expected: u64) {
    assert!(at.abs_diff(expected) < 1000, "at {at}, expected {expected}");
}

#[test]
fn keep_alives_go_after_the_silence_that_was_asked_for() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("", false);
        stack.set(fd, TCP, libc::TCP_KEEPIDLE, &[10]).unwrap();
        stack.set(fd, TCP, libc::TCP_KEEPINTVL, &[3]).unwrap();
        stack.set(fd, TCP, libc::TCP_KEEPCNT, &[2]).unwrap();
        assert_eq!(stack.set(fd, TCP, libc::TCP_KEEPCNT, &[0]), Err(libc::EINVAL));
        let began = stack.now();
        stack.set(fd, SOL_SOCKET, libc::SO_KEEPALIVE, &[1]).unwrap();
        assert_eq!(stack.get(fd, TCP, libc::TCP_KEEPIDLE), Ok(10));
        near(peer.expect("A 0:0 ack 1"), began + 10_000_000);
        near(peer.expect("A 0:0 ack 1"), began + 13_000_000);
        peer.expect("RA 1:1");
        assert_eq!(stack.get(fd, SOL_SOCKET, libc::SO_ERROR), Ok(libc::ETIMEDOUT.into()));
        // Set before there is a connection, and taken back.
        let (stack, _, fd, _) = accepted("", false);
        stack.set(fd, SOL_SOCKET, libc::SO_KEEPALIVE, &[1]).unwrap();
        stack.set(fd, SOL_SOCKET, libc::SO_KEEPALIVE, &[0]).unwrap();
        assert!(stack.sniff().is_none());
    });
}

#[test]
fn the_user_timeout_of_a_listener_is_its_connections() {
    limited(|| {
        let stack = Stack::new("");
        let listener = stack.socket(false, 0);
        stack.set(listener, TCP, libc::TCP_USER_TIMEOUT, &[3000]).unwrap();
        stack.bind(listener, "192.168.0.1:80".parse().unwrap()).unwrap();
        stack.listen(listener, 1).unwrap();
        let mut peer = Peer::new(stack, "192.0.2.1:4000", "192.168.0.1:80");
        peer.send("S 0:0 mss 1000");
        peer.expect("SA 0:0 ack 1");
        peer.send("A 1:1 ack 1");
        let (fd, _) = stack.accept(listener).unwrap();
        assert_eq!(stack.get(fd, TCP, libc::TCP_USER_TIMEOUT), Ok(3000));
        let began = stack.now();
        stack.write(fd, &octets(1, 11)).unwrap();
        let mut last = 0;
        while let Some((segment, at)) = stack.sniff() {
            last = at;
            assert!(segment.data.len() == 10 || segment.flags & script::packet::RST != 0);
        }
        assert!((3_000_000..6_000_000).contains(&(last - began)), "{}", last - began);
        assert_eq!(stack.get(fd, SOL_SOCKET, libc::SO_ERROR), Ok(libc::ETIMEDOUT.into()));
    });
}

#[test]
fn time_to_live_and_type_of_service_are_in_the_first_packet() {
    limited(|| {
        let stack = Stack::new("");
        let fd = stack.socket(false, libc::SOCK_NONBLOCK);
        stack.set(fd, IPPROTO_IP, libc::IP_TTL, &[7]).unwrap();
        stack.set(fd, IPPROTO_IP, libc::IP_TOS, &[0x2b]).unwrap();
        assert_eq!(stack.set(fd, IPPROTO_IP, libc::IP_TTL, &[0]), Err(libc::EINVAL));
        let mut peer = Peer::new(stack, "192.0.2.1:80", "192.168.0.1:0");
        assert_eq!(stack.connect(fd, peer.here), Err(libc::EINPROGRESS));
        let raw = stack.sniff_raw().unwrap();
        assert_eq!((raw[8], raw[1]), (7, 0x28), "without ECN's bits");
        stack.set(fd, IPPROTO_IP, libc::IP_TOS, &[0]).unwrap();
        stack.sleep_ms(1);
        let _ = peer.expect("S 0:0");
        assert_eq!(stack.get(fd, IPPROTO_IP, libc::IP_TOS), Ok(0));
    });
}

#[test]
fn a_cork_holds_what_fills_no_segment() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("", false);
        stack.set(fd, TCP, libc::TCP_CORK, &[1]).unwrap();
        assert_eq!(stack.write(fd, &octets(1, 41)), Ok(40));
        assert_eq!(stack.write(fd, &octets(41, 2041)), Ok(2000));
        peer.expect("A 1:1001");
        peer.expect("PA 1001:2001");
        stack.sleep_ms(10);
        let before = stack.now();
        stack.set(fd, TCP, libc::TCP_CORK, &[0]).unwrap();
        peer.send("A 1:1 ack 2001");
        near(peer.expect("PA 2001:2041"), before);
        peer.send("A 1:1 ack 2041");
        // A hint about one call, the same; after a retransmission timeout it goes in any case.
        let began = stack.now();
        assert_eq!(stack.send(fd, &octets(2041, 2051), libc::MSG_MORE), Ok(10));
        let held = peer.expect("PA 2041:2051") - began;
        assert!((200_000..400_000).contains(&held), "{held}");
        peer.send("A 1:1 ack 2051");
        assert_eq!(stack.send(fd, &octets(2051, 2061), libc::MSG_MORE), Ok(10));
        assert_eq!(stack.write(fd, &octets(2061, 2071)), Ok(10));
        peer.expect("PA 2051:2071");
        peer.send("A 1:1 ack 2071");
        // What is held when the program leaves is sent.
        assert_eq!(stack.send(fd, &octets(2071, 2081), libc::MSG_MORE), Ok(10));
        stack.close(fd).unwrap();
        peer.expect("PA 2071:2081");
        peer.expect("FA 2081:2081");
    });
}

#[test]
fn a_message_says_how_much_is_left() {
    limited(|| {
        let (stack, _, fd, mut peer) = accepted("", false);
        stack.set(fd, TCP, INQ, &[1]).unwrap();
        peer.send("FPA 1:31 ack 1");
        peer.expect("A 1:1 ack 32");
        for (wanted, queued) in [(10, 20), (20, 1)] {
            let mut data = [0u8; 64];
            let mut control = [0u8; 64];
            let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: wanted };
            // SAFETY: all zeros are an empty message.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = control.len();
            // SAFETY: the message and what it points to live through the call.
            let n = unsafe { (stack.table.recvmsg)(stack.table.userdata, fd, &raw mut message, 0) };
            assert_eq!((n, message.msg_controllen), (wanted as isize, 24));
            let int = |at: usize| i32::from_ne_bytes(control[at..at + 4].try_into().unwrap());
            assert_eq!((control[0], int(8), int(12), int(16)), (20, TCP, INQ, queued));
        }
    });
}

#[test]
fn a_listener_takes_another_segment_size() {
    limited(|| {
        let (stack, listener, _, _) = accepted("", false);
        stack.set(listener, TCP, libc::TCP_MAXSEG, &[1100]).unwrap();
        assert_eq!(stack.get(listener, TCP, libc::TCP_MAXSEG), Ok(1100));
        let mut peer = Peer::new(stack, "192.0.2.1:4001", "192.168.0.1:80");
        peer.send("S 0:0 mss 1300");
        peer.expect("SA 0:0 ack 1 mss 1100");
    });
}

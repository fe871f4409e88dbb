//! Opening: initial sequence numbers, listeners beside connections, what a program is told.

use toe_abi::{Endpoint, Listen, Message, Reason, flags, state};

use crate::engine::Verdict;
use crate::seq::Seq;
use crate::testing::Bench;
use crate::time::Duration;
use crate::wire::frame::Ethernet;
use crate::wire::ip;
use crate::wire::segment::Segment;

/// The number and the source port of a SYN.
fn syn(frame: &[u8]) -> Seq {
    let (ethernet, packet) = Ethernet::split(frame).unwrap();
    Segment::parse(ip::find_tcp(ethernet.ethertype, packet).unwrap().tcp, &crate::work::Steps::default()).unwrap().seq
}

/// The initial sequence number of a connection that the bench opens now, and is refused.
fn initial(b: &mut Bench) -> Seq {
    b.another();
    b.connect(0);
    let iss = syn(&b.next_frame().unwrap());
    b.peer("RA 0 ack 1");
    assert_eq!(b.reason, Reason::Refused as u32);
    b.release();
    iss
}

//= docs/specs/rfc9293.txt#section-3.4.1
//= type=test
//# A TCP implementation MUST use the above type of "clock" for clock-driven selection of initial sequence numbers
//# (MUST-8)
//= docs/specs/rfc6528.txt#section-3
//= type=test
//# ISN = M + F(localip, localport, remoteip, remoteport, secretkey)
#[test]
fn initial_numbers_follow_a_clock_of_four_microseconds() {
    let mut b = Bench::new();
    let first = initial(&mut b);
    b.now = b.now + Duration::from_ms(1);
    assert_eq!(initial(&mut b).distance(first), 250);
    b.now = b.now + Duration::from_s(3600);
    let wanted = (3_600_001_000u64 / 4) as u32;
    assert_eq!(initial(&mut b), first + wanted);
}

//= docs/specs/rfc9293.txt#section-3.4.1
//= type=test
//# SHOULD generate its initial sequence numbers with the expression: ISN = M + F(localip, localport, remoteip,
//# remoteport, secretkey) where M is the 4 microsecond timer, and F() is a pseudorandom function (PRF) of the
//# connection's identifying parameters ("localip, localport, remoteip, remoteport") and a secret key ("secretkey")
//# (SHLD-1).
#[test]
fn initial_numbers_of_different_ends_have_nothing_to_do_with_each_other() {
    let mut b = Bench::new();
    let at = |b: &mut Bench, port| {
        b.local.port = port;
        initial(b).0
    };
    let numbers: Vec<_> = (40_000..40_064).map(|port| at(&mut b, port)).collect();
    // Close to none of the others, neither directly nor in their differences.
    let mut steps: Vec<_> = numbers.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
    steps.sort_unstable();
    steps.dedup();
    assert_eq!(steps.len(), 63);
    let set = |bit: u32| numbers.iter().filter(|n| *n >> bit & 1 == 1).count();
    assert!((0..32).all(|bit| (12..=52).contains(&set(bit))), "a bit that hardly changes");
}

//= docs/specs/rfc9293.txt#section-3.4.1
//= type=test
//# F() MUST NOT be computable from the outside (MUST-9), or an attacker could still guess at sequence numbers from
//# the ISN used for some other connection.
#[test]
fn initial_numbers_depend_on_a_key_that_the_wire_does_not_show() {
    let first = initial(&mut Bench::new());
    let mut seen = vec![first];
    for seed in 8..24 {
        let number = initial(&mut Bench::with_seed([seed; 32], |_| ()));
        assert!(seen.iter().all(|other| number.distance(*other).unsigned_abs() > 1000), "{number:?} of {seen:?}");
        seen.push(number);
    }
}

//= docs/specs/rfc9293.txt#section-3.5
//= type=test
//# Note that a TCP implementation MUST keep track of whether a connection has reached SYN-RECEIVED state as the
//# result of a passive OPEN or an active OPEN (MUST-11).
#[test]
fn an_active_open_that_was_crossed_and_reset_is_refused_and_a_passive_one_is_as_if_it_had_not_been() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    b.peer("S 0 <mss 1000>");
    b.expect("SA 0:0 ack 1");
    b.peer("R 1");
    assert_eq!((b.bits, b.reason), (state::ABORTED, Reason::Refused as u32));

    let mut b = Bench::new();
    b.listen();
    b.peer("S 0");
    b.expect("SA 0 ack 1");
    b.peer("R 1");
    assert_eq!((b.bits, b.in_use("half-open"), b.in_use("listeners")), (0, 0, 1));
    b.peer("S 0");
    b.expect("SA 0 ack 1");
}

fn listen(b: &mut Bench, cookie: u64, local: Endpoint) {
    b.tell(&Message::Listen(Listen {
        cookie,
        local,
        backlog: 4,
        flags: 0,
        receive_limit: 1 << 40,
        mtu: 1500,
        policy: 0,
    }));
}

//= docs/specs/rfc9293.txt#section-3.9.1.1
//= type=test
//# Every passive OPEN call either creates a new connection record in LISTEN state, or it returns an error; it MUST
//# NOT affect any previously created connection record (MUST-41).
#[test]
fn a_passive_open_leaves_earlier_ones_alone() {
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0");
    b.expect("SA 0 ack 1");
    b.peer("A 1 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED | state::ACCEPTED);
    // The same local end again: an error.
    let local = b.local;
    listen(&mut b, 9, local);
    assert!(b.messages.pop().unwrap().contains(&format!("reason: {}", Reason::AddressInUse as u32)));
    // Another: a listener of its own.
    listen(&mut b, 10, Endpoint::new(local.ip, local.port + 1));
    assert_eq!((b.in_use("listeners"), b.in_use("connections"), b.messages.len()), (2, 1, 0));
    b.peer("PA 1:11 ack 1");
    b.received(10);
    b.remote.port += 1;
    b.another();
    b.peer("S 0");
    b.expect("SA 0 ack 1");
}

//= docs/specs/rfc9293.txt#section-3.9.1.1
//= type=test
//# A TCP implementation that supports multiple concurrent connections MUST provide an OPEN call that will
//# functionally allow an application to LISTEN on a port while a connection block with the same local port is in
//# SYN-SENT or SYN-RECEIVED state (MUST-42).
#[test]
fn a_port_can_be_listened_on_while_connections_of_it_are_being_opened() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    let peer = b.remote;
    b.remote.port += 1;
    b.another();
    b.connect(0);
    b.expect("S 0");
    b.peer("S 0");
    b.expect("SA 0 ack 1");
    // One connection in SYN-SENT, one in SYN-RECEIVED.
    b.listen();
    b.remote.port += 1;
    b.another();
    b.peer("S 0");
    b.expect("SA 0 ack 1");
    b.peer("A 1 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED | state::ACCEPTED);
    assert_eq!((b.in_use("connections"), b.in_use("listeners")), (3, 1));
    assert_ne!(b.remote, peer);
}

//= docs/specs/rfc9293.txt#section-3.9.1.1
//= type=test
//# The optional "local IP address" parameter MUST be supported to allow the specification of the local IP address
//# (MUST-43).
#[test]
fn the_local_address_of_an_open_is_the_one_that_the_program_names() {
    let mut b = Bench::new();
    let named = b.local;
    listen(&mut b, 3, named);
    // The same port of another address of the guest is not the card's.
    b.local.ip = "192.0.2.77".parse().unwrap();
    b.peer_passes("S 0");
    b.local = named;
    b.peer("S 0");
    b.expect("SA 0");

    let mut b = Bench::new();
    b.local.ip = "192.0.2.99".parse().unwrap();
    b.connect(0);
    assert_eq!(b.next_frame().unwrap()[26..30], [192, 0, 2, 99]);
}

//= docs/specs/rfc9293.txt#section-3.9.1.1
//= type=test
//# At all other times, a previous segment has either been sent or received on this connection, and TCP
//# implementations MUST use the same local address that was used in those previous segments (MUST-45).
#[test]
fn every_segment_of_a_connection_comes_from_one_address() {
    let mut b = Bench::new();
    b.local.ip = "192.0.2.99".parse().unwrap();
    b.connect(flags::NODELAY);
    let mut frames = Vec::new();
    let mut collect = |b: &mut Bench| frames.extend(std::iter::from_fn(|| b.next_frame()));
    collect(&mut b);
    b.peer("SA 0 ack 1 <mss 1000>");
    b.send(10);
    collect(&mut b);
    b.wait_ms(300);
    b.peer("A 1 ack 11");
    b.peer("PA 1:11 ack 11");
    b.wait_ms(100);
    b.peer("S 1");
    b.shutdown();
    collect(&mut b);
    b.peer("FA 11 ack 12");
    collect(&mut b);
    b.release();
    b.peer("FA 11 ack 12");
    collect(&mut b);
    // SYN, ACK, data, data again, ACK, challenge, FIN, ACK, and the ACK of TIME-WAIT.
    assert_eq!(frames.len(), 9);
    assert!(frames.iter().all(|f| f[26..30] == [192, 0, 2, 99] && f[34..36] == 40_000u16.to_be_bytes()));
}

#[test]
fn segments_before_the_end_of_a_handshake_with_a_wrong_ack_reset() {
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0");
    b.expect("SA 0 ack 1");
    b.peer("A 1 ack 2");
    b.expect("R 2:2");
    b.peer("A 1 ack 0");
    b.expect("R 0:0");
    assert_eq!((b.bits, b.in_use("half-open")), (0, 1));
    let frame = b.frame("A 1 ack 1");
    assert_eq!(b.deliver(&frame), Verdict::Taken);
    assert_eq!(b.bits, state::ESTABLISHED | state::ACCEPTED);
}

//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# If the connection was initiated with a passive OPEN, then return this connection to the LISTEN state and return.
#[test]
fn another_syn_in_the_window_ends_a_passive_handshake() {
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0");
    b.expect("SA 0 ack 1");
    b.peer("S 100");
    b.nothing();
    assert_eq!((b.in_use("half-open"), b.in_use("listeners")), (0, 1));
    b.another();
    b.peer("S 100");
    b.expect("SA 0 ack 101");
}

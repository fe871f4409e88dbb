//! Closing and resetting.

use toe_abi::{Reason, flags, state};

use crate::testing::Bench;

//= docs/specs/rfc9293.txt#section-3.5.3
//= type=test
//# TCP implementations SHOULD allow a received RST segment to include data (SHLD-2).
#[test]
fn a_reset_may_carry_text() {
    let mut b = Bench::established();
    b.peer("RA 1:41 ack 1");
    b.received(0);
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::Reset as u32));
    b.nothing();

    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    b.peer("RA 1:5 ack 1");
    assert_eq!((b.bits, b.reason), (state::ABORTED, Reason::Refused as u32));
}

//= docs/specs/rfc9293.txt#section-3.6
//= type=test
//# If the local TCP connection is closed by the remote side due to a FIN or RST received from the remote side, then
//# the local application MUST be informed whether it closed normally or was aborted (MUST-12).
#[test]
fn a_program_learns_whether_its_peer_closed_or_aborted() {
    let mut b = Bench::established();
    b.peer("FA 1 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED | state::PEER_CLOSED);
    b.peer("R 2 ack 1");
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::Reset as u32));

    let mut b = Bench::established();
    b.peer("R 1");
    assert_eq!((b.bits & state::PEER_CLOSED, b.bits & state::ABORTED), (0, state::ABORTED));
}

//= docs/specs/rfc9293.txt#section-3.4
//= type=test
//# A TCP receiver MUST process the RST and URG fields of all incoming segments, even when the receive window is
//# zero (MUST-66).
#[test]
fn a_reset_is_heard_while_the_window_is_closed() {
    let mut b = Bench::established();
    b.reading = false;
    let (mut at, mut window) = (1, 1);
    while window > 0 {
        b.peer(&format!("A {at}:{} ack 1", at + 1000));
        while let Some(s) = b.next() {
            let mut words = s.split(' ').skip_while(|w| *w != "ack").skip(1).step_by(2);
            let mut number = || words.next().unwrap().parse::<u32>().unwrap();
            (at, window) = (number(), number());
        }
        assert!(at < 4_000_000);
    }
    b.peer(&format!("R {}", at + 1));
    assert_eq!(b.bits & state::ABORTED, 0, "beside the one number");
    b.peer(&format!("R {at}"));
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::Reset as u32));
}

/// A connection of a listener, with timestamps, that ended in TIME-WAIT.
fn time_wait() -> Bench {
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0 <mss 1000, ts 5000 0>");
    b.expect("SA 0");
    b.peer("A 1 ack 1 <ts 5001 1>");
    b.shutdown();
    b.expect("FA 1");
    b.peer("FA 1 ack 2 <ts 5002 1>");
    b.expect("A 2:2 ack 2");
    b.release();
    assert_eq!(b.in_use("time-wait"), 1);
    b
}

//= docs/specs/rfc9293.txt#section-3.6.1
//= type=test
//# This algorithm for reducing TIME-WAIT is a Best Current Practice that SHOULD be implemented since Timestamp
//# Options are commonly used, and using them to reduce TIME-WAIT provides benefits for busy Internet servers
//# (SHLD-4).
#[test]
fn a_larger_timestamp_ends_time_wait_early() {
    // RFC 6191, section 2: with a larger timestamp the sequence number does not matter.
    let mut b = time_wait();
    b.another();
    b.peer("S 0 <mss 1000, ts 5003 0>");
    assert!(b.next().unwrap().starts_with("SA"));
    // The entry stays until it is certain that the SYN was not an old duplicate (RFC 9293, 3.6.1, MAY-2).
    assert_eq!((b.in_use("time-wait"), b.in_use("half-open")), (1, 1));
}

//= docs/specs/rfc9293.txt#section-3.6.1
//= type=test
//# This algorithm for reducing TIME-WAIT is a Best Current Practice that SHOULD be implemented since Timestamp
//# Options are commonly used, and using them to reduce TIME-WAIT provides benefits for busy Internet servers
//# (SHLD-4).
#[test]
fn an_old_timestamp_does_not_end_time_wait() {
    let mut b = time_wait();
    b.peer("S 70000 <mss 1000, ts 5001 0>");
    b.expect("A 2:2 ack 2");
    assert_eq!((b.in_use("time-wait"), b.in_use("half-open")), (1, 0));
    // The same timestamp, and a sequence number beyond the old ones.
    b.another();
    b.peer("S 70000 <mss 1000, ts 5002 0>");
    assert!(b.next().unwrap().starts_with("SA"));
}

#[test]
fn a_new_connection_out_of_time_wait_begins_beyond_the_old_numbers() {
    let mut b = Bench::new();
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 <mss 1000>");
    b.expect("A 1:1");
    b.send(100);
    b.expect("PA 1:101");
    b.shutdown();
    b.expect("FA 101");
    b.peer("FA 1 ack 102");
    b.expect("A 102:102 ack 2");
    b.release();
    assert_eq!(b.in_use("time-wait"), 1);
    b.connect(0);
    let syn = b.next().unwrap();
    let number: u32 = syn.strip_prefix("S ").unwrap().split(':').next().unwrap().parse().unwrap();
    assert!((103..1 << 31).contains(&number), "{syn}");
}

#[test]
fn a_fin_by_itself_does_not_wait_for_the_congestion_window() {
    let mut b = Bench::established();
    b.send(10_000);
    for at in 0..10 {
        b.expect(&format!("{} {}:{}", if at < 9 { "A" } else { "PA" }, 1 + at * 1000, 1001 + at * 1000));
    }
    b.shutdown();
    b.expect("FA 10001:10001");
}

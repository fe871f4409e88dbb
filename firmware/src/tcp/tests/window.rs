//! The peer's window: large, shrinking, closed.

use toe_abi::{Reason, flags, state};

use crate::engine::{Checksum, Verdict};
use crate::tcp::tcb::Due;
use crate::testing::Bench;

//= docs/specs/rfc9293.txt#section-3.1
//= type=test
//# The window size MUST be treated as an unsigned number, or else large window sizes will appear like negative
//# windows and TCP will not work (MUST-1).
#[test]
fn a_window_is_unsigned() {
    // As a signed number of 16 bits, this window is negative.
    let mut b = Bench::established();
    b.peer("A 1 ack 1 win 65535");
    b.send(5000);
    (0..4).for_each(|i| b.expect(&format!("A {}", i * 1000 + 1)));
    b.expect("PA 4001:5001");
}

/// 3000 octets are out, the first thousand of them acknowledged, and the window has shrunk.
fn shrunk_to(window: u32) -> Bench {
    let mut b = Bench::established();
    b.peer("A 1 ack 1 win 5000");
    b.send(3000);
    b.expect("A 1:1001");
    b.expect("A 1001:2001");
    b.expect("PA 2001:3001");
    b.wait_ms(10);
    b.peer(&format!("A 1 ack 1001 win {window}"));
    b
}

//= docs/specs/rfc9293.txt#section-3.8.6
//= type=test
//# If this happens, the sender SHOULD NOT send new data (SHLD-15)
//= docs/specs/rfc9293.txt#section-3.8.6
//= type=test
//# SHOULD retransmit normally the old unacknowledged data between SND.UNA and SND.UNA+SND.WND (SHLD-16).
//= docs/specs/rfc9293.txt#section-3.8.6
//= type=test
//# However, a sending TCP peer MUST be robust against window shrinking, which may cause the "usable window" (see
//# Section 3.8.6.2.1) to become negative (MUST-34).
#[test]
fn a_window_that_shrinks_lets_old_data_be_sent_again_and_no_new() {
    let mut b = shrunk_to(1000);
    b.send(1000);
    b.nothing();
    // What is within the window is sent again; what is beyond it is not.
    b.wait_for_segment();
    b.expect("A 1001:2001");
    b.nothing();
    b.peer("A 1 ack 2001 win 1000");
    b.wait_for_segment();
    b.expect("A 2001:3001");
    b.nothing();
    b.peer("A 1 ack 3001 win 1000");
    b.expect("PA 3001:4001");
}

//= docs/specs/rfc9293.txt#section-3.8.6
//= type=test
//# If the window shrinks to zero, the TCP implementation MUST probe it in the standard way (described below)
//# (MUST-35).
#[test]
fn a_window_that_shrinks_to_nothing_is_probed_with_what_is_out() {
    let mut b = shrunk_to(0);
    b.send(1000);
    let mut waits = Vec::new();
    for _ in 0..3 {
        waits.push(b.wait_for_segment());
        b.expect("A 1001:2001");
        b.nothing();
        b.peer("A 1 ack 1001 win 0");
    }
    assert!(waits.windows(2).all(|w| w[1] >= 2 * w[0] - 1), "{waits:?}");
    b.peer("A 1 ack 2001 win 9000");
    b.wait_ms(1000);
    let ends: Vec<_> = std::iter::from_fn(|| b.next()).collect();
    assert!(ends.iter().any(|s| s.contains(" 2001:3001")) && ends.iter().any(|s| s.contains(" 3001:4001")), "{ends:?}");
}

//= docs/specs/rfc9293.txt#section-3.8.6
//= type=test
//# SHOULD NOT time out the connection if data beyond the right window edge is not acknowledged (SHLD-17).
#[test]
fn a_peer_that_answers_is_not_given_up_for_data_beyond_its_window() {
    let mut b = Bench::with(|p| p.tcp.give_up_ms = 5_000);
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 5000 <mss 1000>");
    b.expect("A 1:1");
    b.send(3000);
    (0..3).for_each(|_| assert!(b.next().is_some()));
    // All of it lies to the right of the edge now.
    b.peer("A 1 ack 1 win 0");
    let from = b.now;
    while b.now.since(from).as_ms() < 100_000 {
        b.wait_for_segment();
        while b.next().is_some() {}
        b.wait_ms(10);
        b.peer("A 1 ack 1 win 0");
    }
    assert_eq!(b.bits, state::ESTABLISHED);
    // One that says nothing is, at the second timeout after its last word at the latest; they are a minute apart now.
    b.wait_ms(2 * 60_000);
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::TimedOut as u32));
}

//= docs/specs/rfc9293.txt#section-3.8.6.1
//= type=test
//# The transmitting host SHOULD send the first zero-window probe when a zero window has existed for the
//# retransmission timeout period (SHLD-29)
//= docs/specs/rfc9293.txt#section-3.8.6.1
//= type=test
//# SHOULD increase exponentially the interval between successive probes (SHLD-30).
#[test]
fn the_first_probe_of_a_closed_window_comes_after_the_retransmission_timeout() {
    let mut b = Bench::established();
    b.peer("A 1 ack 1 win 0");
    b.wait_ms(10_000);
    b.nothing();
    b.send(500);
    let waits: Vec<_> = (0..5)
        .map(|_| {
            let wait = b.wait_for_segment();
            b.expect("A 1:2");
            b.peer("A 1 ack 1 win 0");
            wait
        })
        .collect();
    assert_eq!(waits, [210, 420, 840, 1680, 3360]);
}

//= docs/specs/rfc9293.txt#section-3.8.6
//= type=test
//# SHOULD retransmit normally the old unacknowledged data between SND.UNA and SND.UNA+SND.WND (SHLD-16).
//= docs/specs/rfc9293.txt#section-3.8.6
//= type=test
//# However, a sending TCP peer MUST be robust against window shrinking, which may cause the "usable window" (see
//# Section 3.8.6.2.1) to become negative (MUST-34).
#[test]
fn what_is_lost_beyond_a_window_that_shrank_waits_for_the_window() {
    let mut b = Bench::established_sack();
    b.peer("A 1 ack 1 win 20000");
    b.send(8000);
    while b.next().is_some() {}
    b.wait_ms(10);
    // Three segments are lost, the congestion window has room for them, and the peer's window for one.
    b.peer("A 1 ack 1001 win 1000 <sack 4001:8001>");
    b.wait_ms(5);
    b.expect("A 1001:2001");
    b.nothing();
    b.peer("A 1 ack 2001 win 1000 <sack 4001:8001>");
    b.wait_ms(5);
    b.expect("A 2001:3001");
    b.nothing();
    b.peer("A 1 ack 3001 win 9000 <sack 4001:8001>");
    b.expect("A 3001:4001");
}

/// RFC 9293, 3.10.7.4, fifth check: what SND.WL1 and SND.WL2 are for.
#[test]
fn a_window_of_an_older_segment_is_not_believed() {
    let mut b = Bench::established();
    // The later segment says that there is little room; the earlier one, that comes after it, said that there was more.
    b.peer("PA 101:201 ack 1 win 1000");
    b.peer("PA 1:101 ack 1 win 50000");
    while b.next().is_some() {}
    b.send(3000);
    b.expect("A 1:1001 ack 201");
    b.nothing();
}

/// The field is in network byte order, and what it says is the room that is left.
#[test]
fn the_window_is_said_as_it_is() {
    let mut b = Bench::established();
    b.reading = false;
    b.peer("PA 1:1001 ack 1");
    b.peer("PA 1001:2001 ack 1");
    // The first buffer is a whole number of segments, and 66,000.
    b.expect("A 1:1 ack 2001 win 64000");
}

/// A tail probe is due, and before it has its turn everything is acknowledged, with a window that is not worth a segment: the
/// probe is not needed any more, and a timer must wait in its place.
#[test]
fn a_probe_that_an_acknowledgement_overtakes_leaves_a_timer_behind() {
    let mut b = Bench::established_sack();
    b.peer("A 1 ack 1 win 2000");
    b.send(2500);
    b.expect("A 1:1001");
    b.expect("PA 1001:2001");
    b.nothing();
    let connection = b.connection;
    while b.firmware.block(connection).0.due == Due::None {
        b.now = b.firmware.poll_timeout().expect("the probe's timer");
        b.firmware.handle_timeout(b.now);
    }
    let overtaking = b.frame("A 1 ack 2001 win 300");
    assert_eq!(b.firmware.handle_wire(b.now, &overtaking, Checksum::Unverified), Verdict::Taken);
    b.nothing();
    assert_eq!(b.firmware.audit(), Ok(()));
    b.wait_for_segment();
    b.expect("A 2001:2301");
}

//! Data (RFC 9293, 3.7 and 3.8).

use toe_abi::{Reason, flags, state};

use crate::testing::Bench;

//= docs/specs/rfc9293.txt#section-3.9.1.2
//= type=test
//# MUST set the PSH bit in the last buffered segment (i.e., when there is no more queued data to be sent)
//# (MUST-61).
//= docs/specs/rfc9293.txt#section-3.9.1.2
//= type=test
//# However, a TCP implementation SHOULD send a maximum-sized segment whenever possible (SHLD-28) to improve
//# performance (see Section 3.8.6.2.1).
//= docs/specs/rfc9293.txt#section-3.7.1
//= type=test
//# TCP endpoints MUST implement both sending and receiving the MSS Option (MUST-14).
#[test]
fn a_stream_is_cut_into_segments_of_the_peers_mss() {
    let mut b = Bench::established();
    b.send(2500);
    b.expect("A 1:1001 ack 1");
    b.expect("A 1001:2001");
    b.expect("PA 2001:2501");
    b.nothing();
    b.peer("A 1 ack 2501");
    b.nothing();
}

//= docs/specs/rfc9293.txt#section-3.9.1.2
//= type=test
//# When an application issues a series of SEND calls without setting the PUSH flag, the TCP implementation MAY
//# aggregate the data internally without sending it (MAY-16).
//= docs/specs/rfc9293.txt#section-3.9.1.2
//= type=test
//# The transmitter SHOULD collapse successive bits when it packetizes data, to send the largest possible segment
//# (SHLD-27).
//= docs/specs/rfc9293.txt#section-3.7.4
//= type=test
//# A TCP implementation SHOULD implement the Nagle algorithm to coalesce short segments (SHLD-7).
#[test]
fn nagle_holds_a_small_segment_until_what_is_out_is_acknowledged() {
    let mut b = Bench::established_with(0, "mss 1000");
    b.send(10);
    b.expect("PA 1:11");
    b.send(10);
    b.nothing();
    b.send(10);
    b.nothing();
    b.peer("A 1 ack 11");
    b.expect("PA 11:31");
    b.send(2000);
    b.expect("A 31:1031");
    b.expect("PA 1031:2031");
    b.nothing();
}

//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# In general, the processing of received segments MUST be implemented to aggregate ACK segments whenever possible
//# (MUST-58).
//= docs/specs/rfc9293.txt#section-3.8.6.3
//= type=test
//# A TCP endpoint SHOULD implement a delayed ACK (SHLD-18)
//= docs/specs/rfc9293.txt#section-3.8.6.3
//= type=test
//# An ACK SHOULD be generated for at least every second full-sized segment or 2*RMSS bytes of new data (where RMSS
//# is the MSS specified by the TCP endpoint receiving the segments to be acknowledged, or the default value if not
//# specified) (SHLD-19).
#[test]
fn acknowledgements_are_delayed_but_not_for_two_segments() {
    let mut b = Bench::established();
    b.peer("A 1:1001 ack 1");
    b.nothing();
    assert_eq!(b.wait_for_segment(), 40);
    b.expect("A 1:1 ack 1001");
    b.peer("A 1001:2001 ack 1");
    b.nothing();
    b.peer("A 2001:3001 ack 1");
    b.expect("A 1:1 ack 3001");
    b.received(3000);
}

#[test]
fn an_acknowledgement_rides_on_data() {
    let mut b = Bench::established();
    b.peer("PA 1:101 ack 1");
    b.nothing();
    b.send(50);
    b.expect("PA 1:51 ack 101");
    b.wait_ms(100);
    b.nothing();
}

//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# Segments with higher beginning sequence numbers SHOULD be held for later processing (SHLD-31).
//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# A TCP implementation MAY send an ACK segment acknowledging RCV.NXT when a valid segment arrives that is in the
//# window but not at the left window edge (MAY-13).
#[test]
fn data_out_of_order_is_kept_and_reported() {
    let mut b = Bench::established_sack();
    b.peer("A 1001:2001 ack 1");
    b.expect("A 1:1 ack 1 <sack 1001:2001>");
    b.peer("A 3001:4001 ack 1");
    b.expect("A 1:1 ack 1 <sack 3001:4001 1001:2001>");
    b.received(0);
    b.peer("A 1:1001 ack 1");
    b.expect("A 1:1 ack 2001 <sack 3001:4001>");
    b.peer("A 2001:3001 ack 1");
    b.expect("A 1:1 ack 4001");
    b.received(4000);
}

//= docs/specs/rfc9293.txt#section-3.8.6.1
//= type=test
//# Probing of zero (offered) windows MUST be supported (MUST-36).
//= docs/specs/rfc9293.txt#section-3.8.6.1
//= type=test
//# As long as the receiving TCP peer continues to send acknowledgments in response to the probe segments, the
//# sending TCP peer MUST allow the connection to stay open (MUST-37).
#[test]
fn a_closed_window_is_probed_with_one_octet_at_doubling_intervals() {
    let mut b = Bench::established();
    b.peer("A 1 ack 1 win 0");
    b.send(500);
    b.nothing();
    let first = b.wait_for_segment();
    b.expect("A 1:2");
    b.peer("A 1 ack 1 win 0");
    let second = b.wait_for_segment();
    b.expect("A 1:2");
    let third = b.wait_for_segment();
    b.expect("A 1:2");
    assert!(second >= 2 * first - 1 && third >= 2 * second - 1, "{first} {second} {third}");
    // For as long as it takes (MUST-37).
    for _ in 0..100 {
        b.peer("A 1 ack 1 win 0");
        b.wait_for_segment();
        b.expect("A 1:2");
    }
    b.peer("A 1 ack 1 win 1000");
    b.expect("PA 1:501");
}

#[test]
fn a_window_probe_that_was_taken_is_not_sent_again() {
    let mut b = Bench::established();
    b.peer("A 1 ack 1 win 0");
    b.send(500);
    b.wait_for_segment();
    b.expect("A 1:2");
    b.peer("A 1 ack 2 win 1000");
    b.expect("PA 2:501");
}

#[test]
fn a_peer_that_does_not_answer_window_probes_is_given_up() {
    let mut b = Bench::with(|p| p.tcp.give_up_ms = 60_000);
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 0 <mss 1000>");
    b.expect("A 1:1");
    b.send(1);
    b.wait_ms(200_000);
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::TimedOut as u32));
}

//= docs/specs/rfc9293.txt#section-3.8.6.2.1
//= type=test
//# A TCP implementation MUST include a SWS avoidance algorithm in the sender (MUST-38).
#[test]
fn small_windows_are_not_filled_with_small_segments() {
    let mut b = Bench::established();
    b.peer("A 1 ack 1 win 300");
    b.send(5000);
    b.nothing();
    // Until the override timeout.
    b.wait_for_segment();
    b.expect("A 1:301");
    b.peer("A 1 ack 301 win 2000");
    b.expect("A 301:1301");
    b.expect("PA 1301:2301");
    b.nothing();
}

//= docs/specs/rfc9293.txt#section-3.8.6.2.1
//= type=test
//# A TCP implementation MUST include a SWS avoidance algorithm in the sender (MUST-38).
#[test]
fn half_of_the_largest_window_is_worth_a_segment() {
    let mut b = Bench::new();
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 600 <mss 1000>");
    b.expect("A 1:1");
    b.send(5000);
    b.expect("A 1:601");
    b.peer("A 1 ack 601 win 300");
    b.expect("A 601:901");
    b.peer("A 1 ack 901 win 299");
    b.nothing();
}

/// RFC 7323, 2.2: "The window field in a segment where the SYN bit is set (i.e., a <SYN> or <SYN,ACK>) MUST NOT be scaled."
#[test]
fn the_window_of_a_syn_ack_is_not_scaled() {
    let mut b = Bench::new();
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 2000 <mss 1000, ws 7>");
    b.expect("A 1:1");
    b.send(5000);
    b.expect("A 1:1001");
    b.expect("PA 1001:2001");
    b.nothing();
    b.peer("A 1 ack 2001 win 24");
    b.expect("A 2001:3001");
    b.expect("A 3001:4001");
    b.expect("PA 4001:5001");
}

#[test]
fn a_segment_is_no_longer_than_half_the_largest_window() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 2000 <mss 1460>");
    b.expect("A 1:1");
    b.send(5000);
    b.expect("A 1:1001");
    b.expect("PA 1001:2001");
    b.nothing();
    // What was sent before stays as it is; what is cut now may be longer.
    b.peer("A 1 ack 2001 win 2600");
    b.expect("A 2001:3301");
    b.expect("PA 3301:4601");
}

//= docs/specs/rfc9293.txt#section-3.8.6.1
//= type=test
//# A TCP implementation MAY keep its offered receive window closed indefinitely (MAY-8).
#[test]
fn a_guest_that_does_not_read_closes_the_window_and_nothing_beyond_it_is_taken() {
    let mut b = Bench::established();
    b.reading = false;
    let mut at = 1;
    let mut closed = false;
    while !closed {
        b.peer(&format!("A {at}:{} ack 1", at + 1000));
        at += 1000;
        while let Some(s) = b.next() {
            closed = s.contains("win 0 ") || s.ends_with("win 0");
        }
        assert!(at < 4_000_000);
    }
    b.peer(&format!("A {at}:{} ack 1", at + 1000));
    b.expect("A 1:1 win 0");
    b.reading = true;
    b.wait_ms(2000);
    let reopened = std::iter::from_fn(|| b.next()).any(|s| !s.contains("win 0"));
    assert!(reopened);
}

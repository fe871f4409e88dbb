//! SEGMENT ARRIVES (RFC 9293, 3.10.7.4, with RFC 5961 and 7323).

use toe_abi::{Reason, flags, state};

use crate::testing::Bench;

//= docs/specs/rfc5961.txt#section-3.2
//= type=test
//# If the RST bit is set and the sequence number exactly matches the next expected sequence number (RCV.NXT), then
//# TCP MUST reset the connection.
#[test]
fn a_reset_counts_only_at_the_very_next_number() {
    let mut b = Bench::established();
    b.peer("R 100");
    b.expect("A 1:1 ack 1");
    b.peer("R 200000");
    b.nothing();
    assert_eq!(b.bits, state::ESTABLISHED);
    b.peer("R 1");
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::Reset as u32));
    b.nothing();
}

//= docs/specs/rfc5961.txt#section-4.2
//= type=test
//# If the SYN bit is set, irrespective of the sequence number, TCP MUST send an ACK (also referred to as challenge
//# ACK) to the remote peer:
#[test]
fn a_syn_within_a_connection_is_challenged() {
    let mut b = Bench::established();
    for text in ["S 1", "S 500", "SA 0 ack 1", "S 300000"] {
        b.peer(text);
        b.expect("A 1:1 ack 1");
    }
    assert_eq!(b.bits, state::ESTABLISHED);
}

//= docs/specs/rfc5961.txt#section-7
//= type=test
//# in any 5 second window, no more than 10 challenge ACKs should be sent.
#[test]
fn challenges_are_limited_for_each_connection() {
    let mut b = Bench::established();
    for _ in 0..100 {
        b.peer("R 100");
    }
    assert_eq!(std::iter::from_fn(|| b.next()).count(), 10);
    assert_eq!(b.count("tcp-challenge-limited"), 90);
    b.wait_ms(5000);
    b.peer("R 100");
    b.expect("A 1:1");
}

//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# RFC 5961 [9], Section 5 describes a potential blind data injection attack, and mitigation that implementations
//# MAY choose to include (MAY-12).
//= docs/specs/rfc5961.txt#section-5.2
//= type=test
//# The ACK value is considered acceptable only if it is in the range of ((SND.UNA - MAX.SND.WND) <= SEG.ACK <=
//# SND.NXT).
#[test]
fn an_ack_of_what_was_never_sent_or_long_ago_is_answered_and_not_believed() {
    let mut b = Bench::established();
    b.send(10);
    b.expect("PA 1:11");
    b.peer("A 1:11 ack 12");
    b.expect("A 11:11 ack 1");
    b.received(0);
    b.peer("A 1:11 ack 11");
    b.received(10);
    b.send(10);
    b.expect("PA 11:21");
    b.peer(&format!("A 11:21 ack {}", 11u32.wrapping_sub(70_000)));
    b.expect("A 21:21 ack 11");
    b.received(10);
}

//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# if the ACK bit is off, drop the segment and return
#[test]
fn an_ack_from_before_the_connection_is_of_what_was_never_sent() {
    // Within the peer's largest window of SND.UNA, and all the same of no octet that ever was.
    for ack in [0, 1u32.wrapping_sub(500)] {
        let mut b = Bench::established();
        b.peer(&format!("A 1:11 ack {ack}"));
        b.expect("A 1:1 ack 1");
        b.received(0);
        assert_eq!(b.count("tcp-ack-unsent"), 1);
        b.peer("A 1:11 ack 1");
        b.received(10);
    }
}

#[test]
fn a_segment_without_ack_is_dropped() {
    let mut b = Bench::established();
    b.peer("P 1:11");
    b.received(0);
    b.nothing();
    assert_eq!(b.count("tcp-no-ack"), 1);
}

//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# If an incoming segment is not acceptable, an acknowledgment should be sent in reply (unless the RST bit is set,
//# if so drop the segment and return):
#[test]
fn what_is_outside_the_window_is_acknowledged_and_dropped() {
    let mut b = Bench::established();
    b.peer("A 1:11 ack 1");
    b.wait_ms(100);
    b.expect("A 1:1 ack 11");
    b.peer("A 1:11 ack 1");
    b.expect("A 1:1 ack 11");
    b.peer("A 100001:100011 ack 1");
    b.expect("A 1:1 ack 11");
    b.received(10);
    assert_eq!(b.count("tcp-out-of-window"), 2);
}

#[test]
fn a_peer_that_has_filled_the_window_is_heard_while_a_segment_of_it_is_missing() {
    let mut b = Bench::established();
    b.send(100);
    b.expect("PA 1:101");
    // All of 1:66001 is under way (66 segments of 1000) and its first segment lost: the peer's next octet is the first
    // beyond the window.
    b.peer("A 66001 ack 101");
    assert_eq!(b.count("tcp-out-of-window"), 0);
    b.wait_ms(2000);
    b.nothing();
    b.peer("A 66002 ack 101");
    assert_eq!(b.count("tcp-out-of-window"), 1);
}

#[test]
fn a_reset_at_the_right_edge_is_outside_of_the_window() {
    // RFC 5961, 3.2: beyond RCV.NXT + RCV.WND - 1 it is dropped without an answer, within it is challenged.
    let mut b = Bench::established();
    b.peer("R 66001");
    b.nothing();
    assert_eq!(b.count("tcp-out-of-window"), 1);
    b.peer("R 66000");
    b.expect("A 1:1 ack 1 win 65535");
    b.peer("F 1 ack 1");
    b.peer("FA 1 ack 1");
    b.expect("A 1:1 ack 2 win 65535");
    b.peer("R 66001");
    b.expect("A 1:1 ack 2");
    b.peer("R 66002");
    b.nothing();
    assert_eq!(b.bits, state::ESTABLISHED | state::PEER_CLOSED);
    b.peer("R 2");
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::Reset as u32));
}

#[test]
fn text_of_a_syn_that_crosses_ours_waits_for_the_handshake() {
    // RFC 9293, 3.10.7.3, fourth: it is queued until ESTABLISHED.
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    b.peer("S 0:3 <mss 1000, sackOK>");
    b.expect("SA 0:0 ack 1 <mss 1460, sackOK>");
    b.received(0);
    b.peer("R 5000");
    b.expect("A 1:1 ack 1 <>");
    b.peer("A 4 ack 1");
    b.received(3);
    b.wait_ms(100);
    b.expect("A 1:1 ack 4");
    b.peer("PA 4:14 ack 1");
    b.received(13);
}

#[test]
fn text_of_a_syn_ack_is_taken() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    b.peer("SA 0:3 ack 1");
    b.expect("A 1:1 ack 4");
    b.received(3);
}

#[test]
fn a_syn_with_a_fin_opens_nothing() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    b.peer("SF 0:3");
    b.nothing();
    assert_eq!((b.bits, b.count("tcp-syn-fin")), (0, 1));
    b.peer("SA 0 ack 1");
    b.expect("A 1:1 ack 1");
}

#[test]
fn fins_that_cross_are_acknowledged_bare_or_with_ours_again() {
    for repeat in [false, true] {
        let mut b = Bench::with(|p| p.tcp.repeat_fin = repeat);
        b.connect(0);
        b.expect("S 0");
        b.peer("SA 0 ack 1");
        b.expect("A 1:1 ack 1");
        b.shutdown();
        b.expect("FA 1:1 ack 1");
        b.peer("FA 1 ack 1");
        b.expect(if repeat { "FA 1:1 ack 2" } else { "A 2:2 ack 2" });
        b.nothing();
        b.peer("S 2");
        b.expect("A 2:2 ack 2");
        b.peer("A 2 ack 2");
        assert_eq!(b.in_use("time-wait"), 1);
        b.nothing();
    }
}

//= docs/specs/rfc7323.txt#section-5.3
//= type=test
//# If there is a Timestamps option in the arriving segment, SEG.TSval < TS.Recent, TS.Recent is valid (see later
//# discussion), and if the RST bit is not set, then treat the arriving segment as not acceptable:
#[test]
fn an_old_timestamp_is_dropped_and_a_reset_is_not() {
    let mut b = Bench::established_with(flags::NODELAY, "mss 1000, ts 5000 1");
    b.peer("A 1:11 ack 1 <ts 5010 1>");
    b.received(10);
    b.wait_ms(100);
    let ack = b.next().unwrap();
    assert!(ack.contains(" 5010>"), "{ack}");
    b.peer("A 11:21 ack 1 <ts 5009 1>");
    b.received(10);
    b.expect("A 1:1 ack 11");
    assert_eq!(b.count("tcp-paws"), 1);
    b.peer("R 11 <ts 1 1>");
    assert_ne!(b.bits & state::ABORTED, 0);
}

//= docs/specs/rfc7323.txt#section-5.3
//= type=test
//# If an arriving segment satisfies SEG.TSval >= TS.Recent and SEG.SEQ <= Last.ACK.sent (see Section 4.3), then
//# record its timestamp in TS.Recent.
#[test]
fn the_timestamp_echoed_is_of_the_earliest_segment_not_acknowledged() {
    // RFC 7323, 4.3.
    let mut b = Bench::established_with(flags::NODELAY, "mss 1000, ts 5000 1");
    b.peer("A 1:11 ack 1 <ts 5010 1>");
    b.peer("A 11:21 ack 1 <ts 5020 1>");
    b.wait_ms(100);
    let ack = b.next().unwrap();
    assert!(ack.contains(" 5010>"), "{ack}");
}

//= docs/specs/rfc9293.txt#section-3.1
//= type=test
//# the receiver MUST check it (MUST-3).
#[test]
fn a_checksum_that_is_wrong_is_counted_and_nothing_else() {
    let mut b = Bench::established();
    let mut frame = b.frame("PA 1:11 ack 1");
    let last = frame.len() - 1;
    frame[last] ^= 1;
    let verdict = b.firmware.handle_wire(b.now, &frame, crate::Checksum::Unverified);
    assert_eq!(verdict, crate::Verdict::Taken);
    assert_eq!(b.count("wire-drop-checksum"), 1);
    b.wait_ms(100);
    b.nothing();
    b.received(0);
}

/// RFC 7323, 5.5: a timestamp says nothing any more when its clock may have gone around half.
#[test]
fn a_timestamp_is_old_for_twenty_four_days() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let mut b = Bench::established_with(flags::NODELAY, "mss 1000, ts 1000 0");
    b.wait_ms(24 * DAY_MS - 1);
    b.peer("PA 1:11 ack 1 <ts 999 0>");
    assert_eq!(b.count("tcp-paws"), 1);
    b.received(0);
    b.wait_ms(1);
    b.peer("PA 1:11 ack 1 <ts 999 0>");
    assert_eq!(b.count("tcp-paws"), 1);
    b.received(10);
}

#[test]
fn what_lies_beyond_a_closed_window_is_not_heard() {
    let mut b = Bench::established();
    b.reading = false;
    for i in 0..66 {
        b.peer(&format!("A {}:{} ack 1", 1000 * i + 1, 1000 * i + 1001));
    }
    b.send(10);
    while b.next().is_some() {}
    let info = b.info();
    assert_eq!((info.receive_window, info.in_flight), (0, 10));
    b.peer("PA 66051:66061 ack 11");
    assert_eq!(b.info().in_flight, 10);
    // At its edge the ACK counts, and the text does not.
    b.peer("PA 66001:66011 ack 11");
    assert_eq!(b.info().in_flight, 0);
    b.reading = true;
    b.wait_ms(10_000);
    b.received(66_000);
}

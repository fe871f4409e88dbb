//! Closing (RFC 9293, 3.6).

use toe_abi::{Reason, state};

use crate::testing::Bench;

//= docs/specs/rfc9293.txt#section-3.6.1
//= type=test
//# When a connection is closed actively, it MUST linger in the TIME-WAIT state for a time 2xMSL (Maximum Segment
//# Lifetime) (MUST-13).
//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# The only thing that can arrive in this state is a retransmission of the remote FIN. Acknowledge it, and restart
//# the 2 MSL timeout.
#[test]
fn a_close_from_this_side_goes_through_fin_wait_to_time_wait() {
    // RFC 9293, 3.6, figure 12.
    let mut b = Bench::established();
    b.shutdown();
    b.expect("FA 1:1 ack 1");
    b.peer("A 1 ack 2");
    assert_ne!(b.bits & state::ALL_ACKNOWLEDGED, 0);
    b.peer("PA 1:11 ack 2");
    b.wait_ms(50);
    b.expect("A 2:2 ack 11");
    b.received(10);
    b.peer("FA 11 ack 2");
    b.expect("A 2:2 ack 12");
    assert_ne!(b.bits & state::PEER_CLOSED, 0);
    assert_eq!(b.in_use("time-wait"), 1);
    b.peer("FA 11 ack 2");
    b.expect("A 2:2 ack 12");
    b.release();
    assert_eq!((b.in_use("connections"), b.in_use("time-wait")), (0, 1));
    b.wait_ms(59_000);
    assert_eq!(b.in_use("time-wait"), 1);
    b.wait_ms(2_000);
    assert_eq!(b.in_use("time-wait"), 0);
}

//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# If the FIN bit is set, signal the user "connection closing" and return any pending RECEIVEs with same message,
//# advance RCV.NXT over the FIN, and send an acknowledgment for the FIN.
#[test]
fn a_close_from_the_other_side_goes_through_close_wait() {
    let mut b = Bench::established();
    b.peer("FA 1 ack 1");
    b.expect("A 1:1 ack 2");
    assert_ne!(b.bits & state::PEER_CLOSED, 0);
    b.send(10);
    b.expect("PA 1:11 ack 2");
    b.shutdown();
    b.expect("FA 11:11 ack 2");
    b.peer("A 2 ack 12");
    assert_ne!(b.bits & state::ALL_ACKNOWLEDGED, 0);
    b.release();
    assert_eq!((b.in_use("connections"), b.in_use("time-wait")), (0, 0));
    assert_eq!((b.in_use("send-pages"), b.in_use("receive-pages"), b.in_use("transmit-records")), (0, 0, 0));
}

#[test]
fn fins_that_cross_close_both_ways() {
    // RFC 9293, 3.6, figure 13.
    let mut b = Bench::established();
    b.shutdown();
    b.expect("FA 1:1 ack 1");
    b.peer("FA 1 ack 1");
    b.expect("A 2:2 ack 2");
    b.peer("A 2 ack 2");
    assert_eq!(b.in_use("time-wait"), 1);
}

#[test]
fn a_fin_waits_for_the_data_before_it_and_rides_on_the_last() {
    let mut b = Bench::established();
    b.send(1500);
    b.expect("A 1:1001");
    b.expect("PA 1001:1501");
    b.send(500);
    b.expect("PA 1501:2001");
    b.peer("A 1 ack 2001 win 700");
    b.send(1000);
    b.shutdown();
    // 700 of 1000 are more than nothing but not worth a segment yet.
    b.nothing();
    b.peer("A 1 ack 2001 win 5000");
    b.expect("FPA 2001:3001");
    b.wait_for_segment();
    b.expect("FPA 2001:3001");
    b.peer("A 1 ack 3002");
    assert_ne!(b.bits & state::ALL_ACKNOWLEDGED, 0);
}

//= docs/specs/rfc9293.txt#section-3.6.1
//= type=test
//# If such a host issues a CLOSE call while received data is still pending in the TCP connection, or if new data is
//# received after CLOSE is called, its TCP implementation SHOULD send a RST to show that data was lost (SHLD-3).
#[test]
fn a_release_with_unread_data_resets() {
    // RFC 9293, 3.6.1, SHLD-3.
    let mut b = Bench::established();
    b.reading = false;
    b.peer("PA 1:11 ack 1");
    b.release();
    b.expect("RA 1:1");
    assert_eq!(b.in_use("connections"), 0);
}

//= docs/specs/rfc9293.txt#section-3.6.1
//= type=test
//# If such a host issues a CLOSE call while received data is still pending in the TCP connection, or if new data is
//# received after CLOSE is called, its TCP implementation SHOULD send a RST to show that data was lost (SHLD-3).
//= docs/specs/rfc9293.txt#section-3.6.1
//= type=test
//# A host MAY implement a "half-duplex" TCP close sequence, so that an application that has called CLOSE cannot
//# continue to read data from the connection (MAY-1).
#[test]
fn data_for_a_program_that_has_left_resets() {
    let mut b = Bench::established();
    b.release();
    b.expect("FA 1:1 ack 1");
    b.peer("A 1 ack 2");
    b.peer("PA 1:11 ack 2");
    b.expect("R 2:2");
    assert_eq!((b.in_use("connections"), b.count("tcp-data-after-close")), (0, 1));
}

#[test]
fn that_reset_has_the_number_that_the_peer_expects() {
    // It has not our FIN: a reset behind that would only be challenged.
    let mut b = Bench::established();
    b.release();
    b.expect("FA 1:1 ack 1");
    b.peer("PA 1:11 ack 1");
    b.expect("R 1:1");
    assert_eq!(b.in_use("connections"), 0);
}

#[test]
fn an_abandoned_fin_wait_2_ends() {
    let mut b = Bench::established();
    b.release();
    b.expect("FA 1:1");
    b.peer("A 1 ack 2");
    b.wait_ms(59_000);
    assert_eq!(b.in_use("connections"), 1);
    b.wait_ms(2_000);
    assert_eq!(b.in_use("connections"), 0);
}

#[test]
fn a_program_that_is_still_there_may_wait_in_fin_wait_2_for_ever() {
    let mut b = Bench::established();
    b.shutdown();
    b.expect("FA 1:1");
    b.peer("A 1 ack 2");
    b.wait_ms(3_600_000);
    assert_eq!(b.in_use("connections"), 1);
    b.peer("PA 1:11 ack 2");
    b.received(10);
    // From when it leaves, the time runs.
    b.release();
    b.wait_ms(59_999);
    assert_eq!(b.in_use("connections"), 1);
    b.wait_ms(2);
    assert_eq!(b.in_use("connections"), 0);
}

#[test]
fn an_abort_sends_a_reset() {
    let mut b = Bench::established();
    b.send(100);
    b.expect("PA 1:101");
    b.abort();
    b.expect("RA 101:101 ack 1");
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::AbortedByGuest as u32));
}

//= docs/specs/rfc9293.txt#section-3.6.1
//= type=test
//# However, it MAY accept a new SYN from the remote TCP endpoint to reopen the connection directly from TIME-WAIT
//# state (MAY-2), if it: (1) assigns its initial sequence number for the new connection to be larger than the
//# largest sequence number it used on the previous connection incarnation, and (2) returns to TIME-WAIT state if
//# the SYN turns out to be an old duplicate.
#[test]
fn a_new_syn_may_take_over_a_time_wait() {
    // MAY-2.
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0 <mss 1000>");
    b.expect("SA 0");
    b.peer("A 1 ack 1");
    b.shutdown();
    b.expect("FA 1");
    b.peer("FA 1 ack 2");
    b.expect("A 2:2 ack 2");
    b.release();
    assert_eq!((b.in_use("time-wait"), b.in_use("connections")), (1, 0));
    b.peer("S 1");
    b.expect("A 2:2 ack 2");
    // Condition 2: if the SYN turns out to be an old duplicate, TIME-WAIT goes on.
    b.peer("S 100");
    let (seq, _) = b.next_syn_ack();
    b.peer("R 101");
    assert_eq!((b.in_use("time-wait"), b.in_use("half-open")), (1, 0));
    b.peer("FA 1 ack 2");
    b.expect("A 2:2 ack 2");
    b.peer("S 100");
    let (again, _) = b.next_syn_ack();
    // Condition 1: numbers beyond all that was used.
    assert!(seq > 2 && again > 2, "{seq} {again}");
    assert_eq!((b.in_use("time-wait"), b.in_use("half-open"), b.count("tcp-time-wait-reused")), (1, 1, 0));
    b.peer(&format!("A 101 ack {}", again + 1));
    assert_eq!((b.in_use("time-wait"), b.in_use("half-open"), b.in_use("connections")), (0, 0, 1));
    assert_eq!(b.count("tcp-time-wait-reused"), 1);
}

/// A listener's connection that ended in TIME-WAIT, the peer's FIN at 1.
fn in_time_wait(options: &str) -> Bench {
    let mut b = Bench::new();
    b.listen();
    b.peer(&format!("S 0 <mss 1000, {options}>"));
    b.expect("SA 0");
    b.peer(&format!("A 1 ack 1 <{options}>"));
    b.shutdown();
    b.expect("FA 1");
    b.peer(&format!("FA 1 ack 2 <{options}>"));
    b.expect("A 2:2 ack 2");
    b.release();
    assert_eq!((b.in_use("time-wait"), b.in_use("connections")), (1, 0));
    b
}

#[test]
fn timestamps_decide_whether_a_syn_takes_a_time_wait_over() {
    // RFC 6191, section 2, in its order. Sequence numbers below 2 are old.
    for (before, syn, accepted) in [
        ("ts 5000 1", "S 0 <ts 5001 0>", true),
        ("ts 5000 1", "S 0 <ts 5000 0>", false),
        ("ts 5000 1", "S 3 <ts 5000 0>", true),
        ("ts 5000 1", "S 3 <ts 4999 0>", false),
        ("ts 5000 1", "S 3", true),
        ("ts 5000 1", "S 0", false),
        ("", "S 0 <ts 1 0>", true),
        ("", "S 3", true),
        ("", "S 0", false),
    ] {
        let mut b = in_time_wait(before);
        b.peer(syn);
        let answer = b.next().unwrap();
        assert_eq!(answer.starts_with("SA"), accepted, "{before} {syn}: {answer}");
        assert_eq!(b.in_use("half-open"), u64::from(accepted));
    }
}

#[test]
fn a_time_wait_stays_while_a_syn_for_it_is_answered_and_begins_anew_if_that_comes_to_nothing() {
    let mut b = in_time_wait("");
    b.wait_ms(59_990);
    b.peer("S 100");
    b.next_syn_ack();
    b.wait_ms(20);
    assert_eq!((b.in_use("time-wait"), b.in_use("half-open")), (1, 1));
    b.peer("R 101");
    assert_eq!((b.in_use("time-wait"), b.in_use("half-open")), (1, 0));
    b.wait_ms(59_000);
    assert_eq!(b.in_use("time-wait"), 1);
    b.wait_ms(1_100);
    assert_eq!(b.in_use("time-wait"), 0);
    b.peer_passes("A 101 ack 1");
}

//! What is a duplicate acknowledgement (RFC 5681, section 2), and what is only like one.

use crate::testing::Bench;

/// Six segments in flight, of which the first is acknowledged.
fn in_flight() -> Bench {
    let mut b = Bench::established();
    b.send(6000);
    while b.next().is_some() {}
    b.peer("A 1 ack 1001");
    b
}

#[test]
fn the_third_that_says_nothing_else_resends() {
    let mut b = in_flight();
    (0..2).for_each(|_| b.peer("A 1 ack 1001"));
    b.nothing();
    b.peer("A 1 ack 1001");
    b.expect("A 1001:2001");
}

/// "(b) the incoming acknowledgment carries no data".
#[test]
fn a_segment_with_text_is_none() {
    let mut b = in_flight();
    for n in 0..5 {
        b.peer(&format!("PA {}:{} ack 1001", 1 + 1000 * n, 1001 + 1000 * n));
    }
    // Every second full-sized segment is acknowledged, and nothing sent again.
    b.expect("A 6001:6001 ack 2001");
    b.expect("A 6001:6001 ack 4001");
    b.nothing();
}

/// "(e) the advertised window in the incoming acknowledgment equals the advertised window in the last incoming
/// acknowledgment".
#[test]
fn a_segment_that_moves_the_window_is_none() {
    let mut b = in_flight();
    (0..5).for_each(|n| b.peer(&format!("A 1 ack 1001 win {}", 50_000 + n)));
    b.nothing();
    // Those that say the same window again are.
    (0..3).for_each(|_| b.peer("A 1 ack 1001 win 50004"));
    b.expect("A 1001:2001");
}

/// "(d) the acknowledgment number is equal to the greatest acknowledgment received".
#[test]
fn an_older_acknowledgement_is_none() {
    let mut b = in_flight();
    (0..5).for_each(|_| b.peer("A 1 ack 1"));
    b.nothing();
}

/// "(a) the receiver of the ACK has outstanding data".
#[test]
fn while_nothing_is_outstanding_there_are_none() {
    let mut b = in_flight();
    b.peer("A 1 ack 6001");
    (0..2).for_each(|_| b.peer("A 1 ack 6001"));
    b.send(5000);
    while b.next().is_some() {}
    (0..2).for_each(|_| b.peer("A 1 ack 6001"));
    b.nothing();
    b.peer("A 1 ack 6001");
    b.expect("A 6001:7001");
}

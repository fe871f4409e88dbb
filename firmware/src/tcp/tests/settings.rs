//! What a program may set (RFC 9293, 3.8.3, 3.8.4, 3.9.1 and 3.9.2).

use toe_abi::{Reason, option, state};

use crate::testing::Bench;

//= docs/specs/rfc9293.txt#section-3.8.4
//= type=test
//# Implementers MAY include "keep-alives" in their TCP implementations (MAY-5), although this practice is not
//# universally accepted.
//= docs/specs/rfc9293.txt#section-3.8.4
//= type=test
//# If keep-alives are included, the application MUST be able to turn them on or off for each TCP connection
//# (MUST-24)
//= docs/specs/rfc9293.txt#section-3.8.4
//= type=test
//# they MUST default to off (MUST-25).
//= docs/specs/rfc9293.txt#section-3.8.4
//= type=test
//# This interval MUST be configurable (MUST-27)
//= docs/specs/rfc9293.txt#section-3.8.4
//= type=test
//# MUST default to no less than two hours (MUST-28).
//= docs/specs/rfc9293.txt#section-3.8.4
//= type=test
//# Consequently, if a keep-alive mechanism is implemented it MUST NOT interpret failure to respond to any specific
//# probe as a dead connection (MUST-29).
//= docs/specs/rfc9293.txt#section-3.8.4
//= type=test
//# An implementation SHOULD send a keep-alive segment with no data (SHLD-12)
#[test]
fn keep_alives_are_off_until_asked_for_and_give_up_only_after_several() {
    let mut b = Bench::established();
    b.wait_ms(8 * 3_600_000);
    b.nothing();
    assert_eq!(b.set(option::KEEP_ALIVE_IDLE_MS, 10_000), (Reason::None as u32, 10_000));
    b.set(option::KEEP_ALIVE_INTERVAL_MS, 2_000);
    assert_eq!(b.get(option::KEEP_ALIVE_INTERVAL_MS), (Reason::None as u32, 2_000));
    b.set(option::KEEP_ALIVE_PROBES, 3);
    assert_eq!(b.wait_for_segment(), 10_000);
    b.expect("A 0:0 ack 1");
    b.peer("A 1 ack 1");
    b.wait_ms(5_000);
    b.peer("PA 1:11 ack 1");
    b.wait_ms(9_000);
    b.expect("A 1:1 ack 11");
    b.nothing();
    for (wait, number) in [(1_000, 0), (2_000, 0), (2_000, 0)] {
        assert_eq!(b.wait_for_segment(), wait);
        b.expect(&format!("A {number}:{number} ack 11"));
    }
    b.wait_ms(2_000);
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::TimedOut as u32));
}

//= docs/specs/rfc9293.txt#section-3.8.4
//= type=test
//# Keep-alive packets MUST only be sent when no sent data is outstanding, and no data or acknowledgment packets
//# have been received for the connection within an interval (MUST-26).
#[test]
fn keep_alives_wait_while_data_is_out() {
    let mut b = Bench::established();
    b.set(option::KEEP_ALIVE_IDLE_MS, 100);
    b.send(10);
    b.expect("PA 1:11");
    assert_eq!(b.wait_for_segment(), 210);
    b.expect("PA 1:11");
    assert_eq!(b.count("tcp-keep-alives"), 0);
}

/// What the peer says, so many times, and how often it is answered.
fn answers(b: &mut Bench, text: &str, times: u32, every_ms: u64) -> usize {
    let mut answers = 0;
    for _ in 0..times {
        b.wait_ms(every_ms);
        b.peer(text);
        answers +=
            std::iter::from_fn(|| b.next()).inspect(|answer| assert!(answer.starts_with("A 1:1 "), "{answer}")).count();
    }
    answers
}

//= docs/specs/rfc9293.txt#section-3.8.4
//= type=test
//# Keep-alive packets MUST only be sent when no sent data is outstanding, and no data or acknowledgment packets
//# have been received for the connection within an interval (MUST-26).
#[test]
fn a_peer_that_keeps_alive_is_answered_as_often_as_it_asks_and_was_heard() {
    let mut b = Bench::established();
    b.set(option::KEEP_ALIVE_IDLE_MS, 10_000);
    for (text, every_ms) in [("A 0 ack 1", 50), ("A 0:1 ack 1", 50), ("A 0 ack 1", 1)] {
        assert_eq!(answers(&mut b, text, 200, every_ms), 200, "{text} every {every_ms} ms");
    }
    assert_eq!((b.count("tcp-challenge-acks"), b.count("tcp-keep-alives")), (0, 0));
    assert_eq!(b.wait_for_segment(), 10_000);
    b.expect("A 0:0 ack 1");
}

#[test]
fn keep_alives_at_once_or_by_somebody_who_guesses_have_the_budget_of_challenges() {
    for (text, heard) in [("A 0 ack 1", true), ("A 0 ack 2", false), ("S 0", false), ("A 100000 ack 1", false)] {
        let mut b = Bench::established();
        b.set(option::KEEP_ALIVE_IDLE_MS, 10_000);
        b.wait_ms(4_000);
        let first = u32::from(heard);
        assert_eq!(answers(&mut b, text, 100, 0), 10 + first as usize, "{text}");
        let counts = (b.count("tcp-challenge-acks"), b.count("tcp-challenge-limited"));
        assert_eq!(counts, (10, u64::from(90 - first)), "{text}");
        assert_eq!(b.wait_for_segment(), if heard { 10_000 } else { 6_000 }, "{text}");
    }
}

//= docs/specs/rfc9293.txt#section-3.8.3
//= type=test
//# (d) An application MUST (MUST-21) be able to set the value for R2 for a particular connection.
#[test]
fn the_program_sets_r2() {
    let mut b = Bench::established();
    b.set(option::USER_TIMEOUT_MS, 3_000);
    b.send(10);
    b.wait_ms(2_900);
    assert_eq!(b.bits & state::ABORTED, 0);
    b.wait_ms(5_000);
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::TimedOut as u32));
}

//= docs/specs/rfc9293.txt#section-3.9.2
//= type=test
//# The TTL value used to send TCP segments MUST be configurable (MUST-49).
//= docs/specs/rfc9293.txt#section-3.9.1.9
//= type=test
//# The application layer MUST be able to specify the Differentiated Services field for segments that are sent on a
//# connection (MUST-48).
//= docs/specs/rfc9293.txt#section-3.9.1.9
//= type=test
//# It is not required, but the application SHOULD be able to change the Differentiated Services field during the
//# connection lifetime (SHLD-21).
//= docs/specs/rfc9293.txt#section-3.9.1.9
//= type=test
//# TCP implementations SHOULD pass the current Differentiated Services field value without change to the IP layer,
//# when it sends segments on the connection (SHLD-22).
#[test]
fn the_program_sets_hop_limit_and_traffic_class_and_they_can_change() {
    let mut b = Bench::established();
    b.set(option::HOP_LIMIT, 9);
    b.set(option::TRAFFIC_CLASS, 0xb8);
    b.send(1);
    let frame = b.next_frame().unwrap();
    assert_eq!((frame[14 + 8], frame[14 + 1]), (9, 0xb8));
    b.set(option::TRAFFIC_CLASS, 0x20);
    b.peer("A 1 ack 2");
    b.send(1);
    assert_eq!(b.next_frame().unwrap()[14 + 1], 0x20);
}

#[test]
fn what_cannot_be_set_is_refused_and_changes_nothing() {
    let mut b = Bench::established();
    for (option, value, holds) in [
        (option::NODELAY, 2, 1),
        (option::KEEP_ALIVE_PROBES, 1, 9),
        (option::HOP_LIMIT, 0, 64),
        (option::HOP_LIMIT, 256, 64),
        (option::TRAFFIC_CLASS, 1, 0),
        (option::CONGESTION, 0, 2),
        (option::CONGESTION, 5, 2),
        (option::USER_TIMEOUT_MS, u64::MAX, 0),
        (option::NEXT_HOP, 0, 0x0100_0000_0002),
        (option::NEXT_HOP, 1, 0x0100_0000_0002),
    ] {
        assert_eq!(b.set(option, value), (Reason::OptionValue as u32, holds), "option {option}");
    }
    assert_eq!(b.set(999, 0), (Reason::OptionUnknown as u32, 0));
    assert_eq!(b.set(option::CONGESTION, 1), (Reason::None as u32, 1));
}

#[test]
fn from_r1_on_the_guest_is_told_to_look_for_another_way() {
    // RFC 9293, 3.8.3: MUST-20, SHLD-9, SHLD-10 (three retransmissions at least).
    let mut b = Bench::established();
    b.send(10);
    b.expect("PA 1:11");
    for _ in 0..2 {
        b.wait_for_segment();
        b.expect("PA 1:11");
    }
    assert_eq!((b.notice.path_advice, b.count("tcp-path-advice")), (0, 0));
    for n in 1..4 {
        b.wait_for_segment();
        b.expect("PA 1:11");
        assert_eq!(b.notice.path_advice, n);
    }
    // The guest has found one.
    let elsewhere = [2, 0, 0, 0, 0, 9];
    b.set(option::NEXT_HOP, 0x0900_0000_0002);
    b.wait_for_segment();
    assert_eq!(b.next_frame().unwrap()[..6], elsewhere);
    b.peer("A 1 ack 11");
    let advice = b.notice.path_advice;
    b.set(option::NEXT_HOP, 0x0100_0000_0002);
    b.send(10);
    b.expect("PA 11:21");
    b.wait_for_segment();
    b.expect("PA 11:21");
    assert_eq!(b.notice.path_advice, advice, "it counts from anew");
}

#[test]
fn r1_counts_for_a_syn_too() {
    // MUST-22.
    let mut b = Bench::new();
    b.connect(0);
    for _ in 0..3 {
        b.wait_for_segment();
        b.expect("S 0");
    }
    assert_eq!(b.notice.path_advice, 0);
    b.wait_for_segment();
    assert_eq!(b.notice.path_advice, 1);
}

#[test]
fn each_4_tuple_has_a_timestamp_clock_of_its_own_that_goes_on_in_its_next_incarnation() {
    // RFC 7323, 7.1, and RFC 6191, 3.
    let value = |b: &mut Bench| {
        let text = b.next().unwrap();
        let ts = text.split_once("ts ").unwrap_or_else(|| panic!("{text}")).1;
        ts.split(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let mut b = Bench::new();
    b.connect(0);
    let first = value(&mut b);
    b.peer("RA 0 ack 1");
    b.release();
    b.wait_ms(5000);
    b.another();
    b.connect(0);
    assert_eq!(value(&mut b).wrapping_sub(first), 5000);
    b.another_port(true);
    b.connect(0);
    let other = value(&mut b);
    assert!(other.wrapping_sub(first).wrapping_sub(5000) > 1_000_000, "{first} {other}");
}

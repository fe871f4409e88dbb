//! What is acknowledged, when, and what an acknowledgement is believed of.

use toe_abi::{Reason, flags, option, state};

use crate::engine::{Checksum, Verdict};
use crate::testing::Bench;

//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# For example, if the TCP endpoint is processing a series of queued segments, it MUST process them all before
//# sending any ACK segments (MUST-59).
#[test]
fn segments_that_arrive_together_get_one_acknowledgement() {
    let mut b = Bench::established();
    let frames: Vec<_> = (0..7).map(|i| b.frame(&format!("A {}:{} ack 1", i * 1000 + 1, i * 1000 + 1001))).collect();
    for frame in &frames {
        assert_eq!(b.firmware.handle_wire(b.now, frame, Checksum::Unverified), Verdict::Taken);
    }
    b.credit(0);
    b.expect("A 1:1 ack 7001");
    b.wait_ms(500);
    b.nothing();
}

//= docs/specs/rfc9293.txt#section-3.8.6.3
//= type=test
//# in particular, the delay MUST be less than 0.5 seconds (MUST-40).
#[test]
fn an_acknowledgement_is_never_delayed_by_half_a_second() {
    let mut b = Bench::with(|p| p.tcp.delayed_ack_ms = 499);
    b.connect(0);
    b.expect("S 0");
    b.peer("SA 0 ack 1 <mss 1000>");
    b.expect("A 1:1");
    b.peer("PA 1:2 ack 1");
    assert!(b.wait_for_segment() < 500);
    b.expect("A 1:1 ack 2");
}

//= docs/specs/rfc9293.txt#section-3.8.1
//= type=test
//# The RTO MUST be computed according to the algorithm in [10], including Karn's algorithm for taking RTT samples
//# (MUST-18).
#[test]
fn a_round_trip_is_not_measured_by_what_was_sent_again() {
    let mut b = Bench::established();
    b.send(10);
    b.expect("PA 1:11");
    assert_eq!(b.wait_for_segment(), 210);
    b.expect("PA 1:11");
    b.wait_ms(150);
    b.peer("A 1 ack 11");
    // 150 or 360 ms would make the timeout longer; what counts is the 10 ms of the handshake, and that it was doubled: that
    // stays until something is measured again (RFC 6298, section 5).
    b.send(10);
    b.expect("PA 11:21");
    assert_eq!(b.wait_for_segment(), 420);
    b.expect("PA 11:21");
    b.peer("A 1 ack 21");
    b.send(10);
    b.expect("PA 21:31");
    b.wait_ms(10);
    b.peer("A 1 ack 31");
    b.send(10);
    b.expect("PA 31:41");
    assert_eq!(b.wait_for_segment(), 210);
}

//= docs/specs/rfc9293.txt#section-3.8.1
//= type=test
//# RFC 1122 allows that if a retransmitted packet is identical to the original packet (which implies not only that
//# the data boundaries have not changed, but also that none of the headers have changed), then the same IPv4
//# Identification field MAY be used (see Section 3.2.1.5 of RFC 1122) (MAY-4).
#[test]
fn what_is_sent_again_has_the_identification_that_it_had() {
    let mut b = Bench::established();
    b.send(10);
    let first = b.next_frame().unwrap();
    b.wait_for_segment();
    assert_eq!(b.next_frame().unwrap(), first, "the packet is the same in every bit");
    assert_eq!(first[18..20], [0, 0]);
}

//= docs/specs/rfc9293.txt#section-3.7.4
//= type=test
//# A TCP implementation SHOULD implement the Nagle algorithm to coalesce short segments (SHLD-7).
//= docs/specs/rfc9293.txt#section-3.7.4
//= type=test
//# However, there MUST be a way for an application to disable the Nagle algorithm on an individual connection
//# (MUST-17).
#[test]
fn nagles_algorithm_is_on_until_the_program_turns_it_off() {
    let mut b = Bench::established_with(0, "mss 1000");
    b.send(10);
    b.expect("PA 1:11");
    b.send(10);
    b.nothing();
    assert_eq!(b.set(option::NODELAY, 1), (Reason::None as u32, 1));
    b.expect("PA 11:21");
    b.send(10);
    b.expect("PA 21:31");
    b.set(option::NODELAY, 0);
    b.send(10);
    b.nothing();
    b.peer("A 1 ack 31");
    b.expect("PA 31:41");
}

//= docs/specs/rfc9293.txt#section-3.9.1.2
//= type=test
//# If PUSH flags are not implemented, then the sending TCP peer: (1) MUST NOT buffer data indefinitely (MUST-60)
#[test]
fn small_data_leaves_without_a_push_of_the_program_and_is_pushed() {
    // Nagle's algorithm holds it no longer than an acknowledgement takes to come, be it after a timeout.
    let mut b = Bench::established_with(0, "mss 1000");
    b.send(1);
    b.expect("PA 1:2");
    b.send(1);
    b.nothing();
    b.wait_for_segment();
    b.expect("A 1:2");
    b.peer("A 1 ack 2");
    b.expect("PA 2:3");
    // A window too small for it holds it no longer than the override timeout.
    b.peer("A 1 ack 3 win 5");
    b.send(20);
    b.wait_for_segment();
    b.expect("A 3:8");
}

//= docs/specs/rfc9293.txt#section-3.8.3
//= type=test
//# The value of R2 SHOULD correspond to at least 100 seconds (SHLD-11).
#[test]
fn r2_is_at_least_a_hundred_seconds_unless_somebody_asks_for_less() {
    let mut b = Bench::established();
    b.send(10);
    b.wait_ms(101_000);
    assert_eq!(b.bits, state::ESTABLISHED);
}

/// A connection in each synchronized state: its name, itself, and the next octet of the peer.
fn in_every_state() -> Vec<(&'static str, Bench, u32)> {
    let established = Bench::established;
    let fin_wait_1 = || {
        let mut b = established();
        b.shutdown();
        b.expect("FA 1:1");
        b
    };
    let fin_wait_2 = || {
        let mut b = fin_wait_1();
        b.peer("A 1 ack 2");
        b
    };
    let close_wait = || {
        let mut b = established();
        b.peer("FA 1 ack 1");
        b.expect("A 1:1 ack 2");
        b
    };
    let closing = || {
        let mut b = fin_wait_1();
        b.peer("FA 1 ack 1");
        b.expect("A 2:2 ack 2");
        b
    };
    let last_ack = || {
        let mut b = close_wait();
        b.shutdown();
        b.expect("FA 1:1 ack 2");
        b
    };
    let time_wait = || {
        let mut b = fin_wait_2();
        b.peer("FA 1 ack 2");
        b.expect("A 2:2 ack 2");
        b
    };
    vec![
        ("ESTABLISHED", established(), 1),
        ("FIN-WAIT-1", fin_wait_1(), 1),
        ("FIN-WAIT-2", fin_wait_2(), 1),
        ("CLOSE-WAIT", close_wait(), 2),
        ("CLOSING", closing(), 2),
        ("LAST-ACK", last_ack(), 2),
        ("TIME-WAIT", time_wait(), 2),
    ]
}

//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# the ACK acks something not yet sent (SEG.ACK > SND.NXT), then send an ACK, drop the segment, and return.
#[test]
fn octets_that_were_never_sent_cannot_be_acknowledged_in_any_state() {
    for (state, mut b, next) in in_every_state() {
        let before = (b.bits, b.in_use("connections"), b.in_use("time-wait"), b.in_use("transmit-records"));
        let sent = if matches!(state, "ESTABLISHED" | "CLOSE-WAIT") { 1 } else { 2 };
        for (beyond, text) in [(1, 0), (2, 10), (1000, 0), (70_000, 10), (1 << 30, 0), (0x7fff_ffff - sent, 10)] {
            b.peer(&format!("A {next}:{} ack {} win 7", next + text, sent + beyond));
            b.received(0);
            while let Some(answer) = b.next() {
                assert!(answer.starts_with("A ") && answer.contains(&format!(" ack {next} ")), "{state}: {answer}");
            }
        }
        let after = (b.bits, b.in_use("connections"), b.in_use("time-wait"), b.in_use("transmit-records"));
        assert_eq!(after, before, "{state}");
    }
}

//= docs/specs/rfc9293.txt#section-3.10.7.3
//= type=test
//# If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless the RST bit is set, if so drop the segment and
//# return)
#[test]
fn octets_that_were_never_sent_cannot_be_acknowledged_before_a_handshake_is_complete() {
    // SYN-SENT.
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    for ack in [0, 2, 1000, 0x7fff_ffff] {
        b.peer(&format!("SA 0 ack {ack}"));
        b.expect(&format!("R {ack}"));
    }
    assert_eq!(b.bits, 0);
    // SYN-RECEIVED after SYN-SENT.
    b.peer("S 0");
    b.expect("SA 0 ack 1");
    for ack in [0, 2, 1000, 0x7fff_ffff] {
        b.peer(&format!("A 1 ack {ack}"));
        b.expect(&format!("R {ack}"));
    }
    assert_eq!(b.bits, 0);
    b.peer("A 1 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED);
}

#[test]
fn a_window_of_an_acknowledgement_that_is_not_believed_is_not_believed() {
    let mut b = Bench::established_with(flags::NODELAY, "mss 1000");
    b.peer("A 1 ack 1 win 3000");
    b.peer("A 1 ack 2 win 0");
    b.expect("A 1:1 ack 1");
    b.send(3000);
    b.expect("A 1:1001");
}

#[test]
fn the_first_segments_are_acknowledged_at_once() {
    // RFC 5681, 4.2, lets every segment be acknowledged; the peer's slow start lives on it.
    let mut b = Bench::with(|p| p.tcp.quick_acks = 2);
    b.listen();
    b.peer("S 0 <mss 1000>");
    b.expect("SA 0");
    b.peer("A 1:101 ack 1");
    b.expect("A 1:1 ack 101");
    b.peer("A 101:201 ack 1");
    b.expect("A 1:1 ack 201");
    b.peer("A 201:301 ack 1");
    b.nothing();
    b.wait_ms(100);
    b.expect("A 1:1 ack 301");
}

#[test]
fn the_end_of_a_burst_is_pushed_and_a_lone_segment_is_not() {
    let mut b = Bench::established();
    b.send(15_000);
    for at in 0..9 {
        b.expect(&format!("A {}:{}", 1 + at * 1000, 1001 + at * 1000));
    }
    b.expect("PA 9001:10001");
    b.nothing();
    // MUST-61: and the last of what is queued in any case.
    b.peer("A 1 ack 10001");
    for at in 10..14 {
        b.expect(&format!("A {}:{}", 1 + at * 1000, 1001 + at * 1000));
    }
    b.expect("PA 14001:15001");
}

#[test]
fn all_acknowledgements_of_a_flight_that_filled_the_window_let_it_grow() {
    // RFC 7661's concern is a window that was not used: this one was, whatever is in flight by the last of them.
    let mut b = Bench::established();
    b.send(10_000);
    for at in 0..10 {
        b.expect(&format!("{} {}:{}", if at < 9 { "A" } else { "PA" }, 1 + at * 1000, 1001 + at * 1000));
    }
    for ack in [2001, 4001, 6001, 8001, 10_001] {
        b.peer(&format!("A 1 ack {ack}"));
    }
    b.send(30_000);
    for at in 10..30 {
        b.expect(&format!("{} {}:{}", if at < 29 { "A" } else { "PA" }, 1 + at * 1000, 1001 + at * 1000));
    }
    b.nothing();
}

#[test]
fn part_of_a_segment_is_not_selectively_acknowledged() {
    let mut b = Bench::established_sack();
    b.send(4000);
    for at in 0..4 {
        b.expect(&format!("{} {}:{}", if at < 3 { "A" } else { "PA" }, 1 + at * 1000, 1001 + at * 1000));
    }
    b.peer("A 1 ack 1 <sack 4000:4001>");
    b.wait_ms(5);
    b.nothing();
    // RFC 8985, 7.2 and 7.3: the tail is probed, and the timeout follows the probe.
    let first = b.wait_for_segment();
    b.expect("PA 3001:4001");
    assert!(first < 30, "{first}");
    b.wait_for_segment();
    b.expect("A 1:1001");
}

#[test]
fn a_tail_probe_takes_the_place_of_an_earlier_timeout() {
    // One segment alone: 2 SRTT and the worst delayed acknowledgement are longer than the timeout.
    let mut b = Bench::established_sack();
    b.send(100);
    b.expect("PA 1:101");
    let first = b.wait_for_segment();
    b.expect("PA 1:101");
    assert_eq!((b.count("tcp-tail-probes"), b.count("tcp-timeouts")), (1, 0));
    let second = b.wait_for_segment();
    b.expect("PA 1:101");
    assert_eq!((b.count("tcp-tail-probes"), b.count("tcp-timeouts")), (1, 1));
    assert!(first.abs_diff(second) <= 1, "{first} {second}: not backed off yet");
}

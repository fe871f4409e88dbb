//! Timers and loss (RFC 6298, 5681, 6582, 8985).

use toe_abi::{Reason, state};

use crate::testing::Bench;

#[test]
fn a_lost_segment_is_sent_again_after_the_timeout_and_backs_off() {
    let mut b = Bench::established();
    b.wait_ms(100);
    b.send(100);
    b.expect("PA 1:101");
    // One measurement of 10 ms, and the floor of 200 ms.
    assert_eq!(b.wait_for_segment(), 210);
    b.expect("PA 1:101");
    assert_eq!(b.wait_for_segment(), 420);
    b.expect("PA 1:101");
    assert_eq!(b.wait_for_segment(), 840);
    b.expect("PA 1:101");
    b.peer("A 1 ack 101");
    b.wait_ms(10_000);
    b.nothing();
}

#[test]
fn three_duplicate_acknowledgements_resend_at_once() {
    let mut b = Bench::established();
    b.send(6000);
    (0..6).for_each(|i| b.expect(&format!("{} {}:", if i == 5 { "PA" } else { "A" }, i * 1000 + 1).replace(':', "")));
    b.peer("A 1 ack 1001");
    b.peer("A 1 ack 1001");
    b.peer("A 1 ack 1001");
    b.nothing();
    b.peer("A 1 ack 1001");
    b.expect("A 1001:2001");
    b.nothing();
    // A partial acknowledgement (RFC 6582): the next hole at once.
    b.peer("A 1 ack 3001");
    b.expect("A 3001:4001");
    b.peer("A 1 ack 6001");
    b.wait_ms(5000);
    b.nothing();
    assert_eq!((b.count("tcp-fast-recoveries"), b.count("tcp-timeouts")), (1, 0));
}

#[test]
fn with_sack_only_what_is_missing_is_sent_again() {
    let mut b = Bench::established_sack();
    b.wait_ms(10);
    b.send(8000);
    while b.next().is_some() {}
    b.wait_ms(10);
    b.peer("A 1 ack 1001 <sack 2001:3001>");
    b.peer("A 1 ack 1001 <sack 2001:4001>");
    b.peer("A 1 ack 1001 <sack 2001:4001 5001:6001>");
    b.expect("A 1001:2001");
    b.peer("A 1 ack 1001 <sack 2001:4001 5001:8001>");
    b.expect("A 4001:5001");
    b.peer("A 1 ack 8001");
    b.wait_ms(5000);
    b.nothing();
    assert_eq!((b.count("tcp-retransmits"), b.count("tcp-timeouts")), (2, 0));
}

#[test]
fn a_silent_tail_is_probed() {
    let mut b = Bench::established_sack();
    b.wait_ms(10);
    b.send(3000);
    (0..3).for_each(|_| assert!(b.next().is_some()));
    let wait = b.wait_for_segment();
    assert!(wait < 100, "{wait} ms is a timeout, not a probe");
    b.expect("PA 2001:3001");
    b.wait_ms(10);
    b.peer("A 1 ack 1 <sack 2001:3001>");
    // What the probe's answer shows is sent again; RACK's reordering window may have to pass.
    b.wait_ms(20);
    b.expect("A 1:1001");
    assert_eq!((b.count("tcp-tail-probes"), b.count("tcp-timeouts")), (1, 0));
}

#[test]
fn a_peer_that_forgets_what_it_reported_gets_it_again() {
    // RFC 2018, section 8: after a timeout SACK is not believed if the first octet was among it.
    let mut b = Bench::established_sack();
    b.send(3000);
    while b.next().is_some() {}
    b.peer("A 1 ack 1 <sack 1001:2001>");
    b.peer("A 1 ack 1001 <sack 1001:2001>");
    b.wait_ms(60_000);
    let again: Vec<_> = std::iter::from_fn(|| b.next()).collect();
    assert!(again.iter().any(|s| s.contains(" 1001:2001")), "{again:?}");
}

//= docs/specs/rfc9293.txt#section-3.8.3
//= type=test
//= feature=R2
//# The following procedure MUST be used to handle excessive retransmissions of data segments (MUST-20)
#[test]
fn a_connection_is_given_up_after_r2() {
    let mut b = Bench::with(|p| p.tcp.give_up_ms = 100_000);
    b.connect(0);
    b.expect("S 0");
    b.peer("SA 0 ack 1");
    b.expect("A 1:1");
    b.send(10);
    b.wait_ms(90_000);
    assert_eq!(b.bits, state::ESTABLISHED);
    b.wait_ms(90_000);
    assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::TimedOut as u32));
    assert!(std::iter::from_fn(|| b.next()).last().unwrap().starts_with('R'));
}

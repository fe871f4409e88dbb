//! Explicit congestion notification (RFC 3168) and DCTCP (RFC 8257).

use toe_abi::{flags, option};

use crate::profile::CongestionControl;
use crate::tcp::ecn::EcnPolicy;
use crate::testing::Bench;

/// A card of that policy with a connection that it opened: MSS 1000, SACK; the peer's SYN-ACK has those flags.
fn opened(ecn: EcnPolicy, syn: &str, syn_ack: &str) -> Bench {
    let mut b = Bench::with(|p| p.tcp.ecn = ecn);
    b.connect(flags::NODELAY);
    b.expect(&format!("{syn} 0"));
    b.wait_ms(10);
    b.peer(&format!("{syn_ack} 0 ack 1 win 60000 <mss 1000, sackOK>"));
    b.expect("A 1:1 ack 1");
    b.wait_ms(10);
    b
}

fn with_ecn() -> Bench {
    opened(EcnPolicy::On, "SEW", "SAE")
}

// Who agrees to it (6.1.1).

#[test]
fn a_syn_asks_only_if_the_policy_says_so() {
    for (policy, syn) in [(EcnPolicy::Off, "S"), (EcnPolicy::WhenAsked, "S"), (EcnPolicy::On, "SEW")] {
        let mut b = Bench::with(|p| p.tcp.ecn = policy);
        b.connect(0);
        b.expect(&format!("{syn} 0"));
        // "A host that receives no reply to an ECN-setup SYN ... MAY resend the SYN with CWR and ECE cleared".
        b.wait_for_segment();
        b.expect("S 0");
    }
    let mut b = Bench::new();
    b.connect(flags::ECN);
    b.expect("SEW 0");
}

#[test]
fn a_connection_uses_it_only_if_the_syn_ack_agrees() {
    // "ECN-setup SYN-ACK packet": ECE without CWR. A peer that echoes both has only copied reserved bits.
    for (syn_ack, agreed) in [("SAE", true), ("SA", false), ("SAEW", false)] {
        let mut b = opened(EcnPolicy::On, "SEW", syn_ack);
        b.send(1000);
        b.expect(if agreed { "PA ect 1:1001" } else { "PA 1:1001" });
    }
    let mut b = opened(EcnPolicy::WhenAsked, "S", "SAE");
    b.send(1000);
    b.expect("PA 1:1001");
}

/// The peer may never see the SYN-ACK that answers its SYN: its own may be first, and agrees to nothing.
#[test]
fn syns_that_cross_agree_only_if_both_ask() {
    for (policy, syn, agreed) in [(EcnPolicy::On, "SEW", true), (EcnPolicy::WhenAsked, "S", false)] {
        let mut b = Bench::with(|p| p.tcp.ecn = policy);
        b.connect(flags::NODELAY);
        b.expect(&format!("{syn} 0"));
        b.peer("SEW 0 win 60000 <mss 1000>");
        b.expect(if agreed { "SAE 0 ack 1" } else { "SA 0 ack 1" });
        b.peer("A 1 ack 1 win 60000");
        b.send(1000);
        b.expect(if agreed { "PA ect 1:1001" } else { "PA 1:1001" });
    }
}

/// A peer that repeats its SYN asks no more, and its SYN-ACK may agree to nothing.
#[test]
fn syns_that_cross_agree_on_nothing_if_a_later_one_does_not_ask() {
    for (later, agreed) in [("SAE 0 ack 1", true), ("SA 0 ack 1", false), ("S 0", false), ("SEW 0", true)] {
        let mut b = Bench::with(|p| p.tcp.ecn = EcnPolicy::On);
        b.connect(flags::NODELAY);
        b.expect("SEW 0");
        b.peer("SEW 0 win 60000 <mss 1000>");
        b.expect("SAE 0 ack 1");
        b.peer(&format!("{later} win 60000 <mss 1000>"));
        b.drain();
        b.peer("A 1 ack 1 win 60000");
        b.send(1000);
        b.expect(if agreed { "PA ect 1:1001" } else { "PA 1:1001" });
    }
}

//= docs/specs/rfc9293.txt#section-3.8.2
//= type=test
//# A TCP endpoint SHOULD implement ECN as described in RFC 3168 (SHLD-8).
#[test]
fn a_syn_that_asks_is_agreed_to_unless_the_policy_is_off() {
    for (policy, syn, syn_ack) in [
        (EcnPolicy::Off, "SEW", "SA"),
        (EcnPolicy::WhenAsked, "SEW", "SAE"),
        (EcnPolicy::On, "SEW", "SAE"),
        (EcnPolicy::On, "S", "SA"),
        (EcnPolicy::On, "SE", "SA"),
    ] {
        let mut b = Bench::with(|p| p.tcp.ecn = policy);
        b.listen();
        b.peer(&format!("{syn} 0 win 60000 <mss 1000>"));
        b.expect(&format!("{syn_ack} 0 ack 1"));
        b.peer("A 1 ack 1");
        b.send(1000);
        b.expect(if syn_ack == "SAE" { "PA ect 1:1001" } else { "PA 1:1001" });
    }
}

#[test]
fn a_syn_that_comes_again_without_asking_asks_no_more() {
    let mut b = Bench::new();
    b.listen();
    b.peer("SEW 0 win 60000 <mss 1000>");
    b.expect("SAE 0 ack 1");
    b.peer("S 0 win 60000 <mss 1000>");
    b.expect("SA 0 ack 1");
}

/// Text that was sent before carries no ECT (6.1.5), and a window probe none either (6.1.6): an octet that has probed a closed
/// window was sent, and goes again without it when the window opens, if nothing new goes with it.
#[test]
fn an_octet_that_has_probed_a_closed_window_goes_again_unmarked() {
    for (queued, probe, later) in [(1, "PA 1001:1002", "PA 1001:1002"), (2, "A 1001:1002", "PA ect 1001:1003")] {
        let mut b = with_ecn();
        b.send(1000);
        b.expect("PA ect 1:1001");
        b.peer("A 1 ack 1001 win 0");
        b.send(queued);
        b.wait_for_segment();
        b.expect(probe);
        b.peer("A 1 ack 1001 win 0");
        b.wait_ms(1);
        b.peer("A 1 ack 1001 win 60000");
        b.expect(later);
    }
}

// The receiver (6.1.3).

//= docs/specs/rfc9293.txt#section-3.8.2
//= type=test
//# A TCP endpoint SHOULD implement ECN as described in RFC 3168 (SHLD-8).
#[test]
fn a_mark_is_echoed_in_every_acknowledgement_until_cwr() {
    let mut b = with_ecn();
    b.marks = true;
    b.peer("A 1:1001 ack 1");
    b.expect("AE 1:1 ack 1001");
    b.marks = false;
    b.peer("A 1001:2001 ack 1");
    b.peer("A 2001:3001 ack 1");
    b.expect("AE 1:1 ack 3001");
    // Data says it, too.
    b.send(100);
    b.expect("PAE ect 1:101");
    b.peer("AW 3001:4001 ack 101");
    b.peer("A 4001:5001 ack 101");
    b.expect("A 101:101 ack 5001");
    assert_eq!(b.count("tcp-marks-in"), 1);
}

#[test]
fn marks_mean_nothing_where_ecn_was_not_agreed_on() {
    let mut b = Bench::established_sack();
    b.marks = true;
    b.peer("A 1:1001 ack 1");
    b.peer("A 1001:2001 ack 1");
    b.expect("A 1:1 ack 2001");
    b.send(1000);
    b.expect("PA 1:1001");
    b.peer("AE 2001 ack 1001");
    assert_eq!((b.count("tcp-marks-in"), b.count("tcp-marks-answered")), (0, 0));
}

#[test]
fn a_mark_outside_of_the_window_is_not_echoed() {
    // 6.1.5: "the receiver should ignore the CE codepoint of packets out of window" (a blind attacker's, or old ones).
    let mut b = with_ecn();
    b.peer("A 1:1001 ack 1");
    b.peer("A 1001:2001 ack 1");
    b.expect("A 1:1 ack 2001");
    b.marks = true;
    b.peer("A 1:1001 ack 1");
    b.expect("A 1:1 ack 2001");
}

// The sender (6.1.2, 6.1.4 to 6.1.6).

//= docs/specs/rfc9293.txt#section-3.8.2
//= type=test
//# A TCP endpoint SHOULD implement ECN as described in RFC 3168 (SHLD-8).
#[test]
fn an_echo_reduces_the_window_once_per_window_and_the_peer_is_told() {
    let mut b = with_ecn();
    b.send(40_000);
    (0..10).for_each(|_| assert!(b.next().is_some()));
    b.nothing();
    b.wait_ms(10);
    b.peer("AE 1 ack 1001");
    b.peer("AE 1 ack 2001");
    b.peer("AE 1 ack 3001");
    b.nothing();
    assert_eq!(b.count("tcp-marks-answered"), 1);
    // CUBIC: seven of ten are left, so the fourth acknowledgement lets one out.
    b.peer("A 1 ack 4001");
    b.expect("AW ect 10001:11001");
    b.peer("A 1 ack 5001");
    b.expect("A ect 11001:12001");
    while b.next().is_some() {}
    // What was sent after the reduction is answered again.
    b.peer("A 1 ack 10001");
    while b.next().is_some() {}
    b.peer("AE 1 ack 11001");
    assert_eq!(b.count("tcp-marks-answered"), 2);
}

#[test]
fn a_retransmission_is_not_ecn_capable_and_the_next_new_data_has_cwr() {
    let mut b = with_ecn();
    b.send(20_000);
    (0..10).for_each(|_| assert!(b.next().is_some()));
    b.wait_ms(10);
    b.peer("A 1 ack 1 <sack 1001:5001>");
    b.expect("A 1:1001");
    b.peer("A 1 ack 10001");
    b.expect("AW ect 10001:11001");
    b.expect("A ect 11001:12001");
}

#[test]
fn bare_acknowledgements_and_window_probes_are_not_ecn_capable() {
    let mut b = with_ecn();
    b.peer("A 1:1001 ack 1 win 0");
    b.peer("A 1001:2001 ack 1 win 0");
    b.expect("A 1:1 ack 2001");
    b.send(1000);
    b.nothing();
    b.wait_for_segment();
    b.expect("A 1:2");
}

// DCTCP.

/// RFC 3168, 6.1.4: what carries no data is not retransmitted for a mark, and so not capable of one.
#[test]
fn a_fin_alone_is_not_ecn_capable_and_one_with_text_is() {
    let mut b = with_ecn();
    b.shutdown();
    b.expect("FA 1:1");
    let mut b = with_ecn();
    b.peer("A 1 ack 1 win 0");
    b.send(10);
    b.shutdown();
    b.peer("A 1 ack 1 win 1000");
    b.expect("FPA ect 1:11");
}

fn with_dctcp() -> Bench {
    let mut b = Bench::with(|p| p.tcp.congestion = CongestionControl::Dctcp);
    b.connect(flags::NODELAY);
    b.expect("SEW 0");
    b.wait_ms(10);
    b.peer("SAE 0 ack 1 win 60000 <mss 1000, sackOK>");
    b.expect("A 1:1 ack 1");
    b.wait_ms(10);
    b
}

/// RFC 8257, 3.2.
#[test]
fn dctcp_echoes_just_what_it_sees() {
    let mut b = with_dctcp();
    b.peer("A 1:1001 ack 1");
    b.peer("A 1001:2001 ack 1");
    b.expect("A 1:1 ack 2001");
    b.marks = true;
    b.peer("A 2001:3001 ack 1");
    b.expect("AE 1:1 ack 3001");
    b.peer("A 3001:4001 ack 1");
    b.peer("A 4001:5001 ack 1");
    b.expect("AE 1:1 ack 5001");
    b.marks = false;
    b.peer("A 5001:6001 ack 1");
    b.expect("A 1:1 ack 6001");
}

/// RFC 8257, 3.3: few marks cost little.
#[test]
fn dctcp_reduces_by_what_was_marked() {
    let mut b = with_dctcp();
    b.peer("A 1 ack 1 win 60000");
    let mut una = 1;
    // Alpha begins at one and falls by a sixteenth with every window without marks.
    for _ in 0..60 {
        b.send(10_000);
        while b.next().is_some() {}
        b.wait_ms(10);
        una += 10_000;
        b.peer(&format!("A 1 ack {una}"));
    }
    b.send(10_000);
    while b.next().is_some() {}
    b.peer(&format!("AE 1 ack {}", una + 1000));
    assert_eq!(b.count("tcp-marks-answered"), 1);
    una += 10_000;
    b.peer(&format!("A 1 ack {una}"));
    b.send(50_000);
    let sent = std::iter::from_fn(|| b.next()).count();
    assert!(sent > 9, "{sent} segments: half of the window is gone");
}

#[test]
fn controllers_are_chosen_by_number_and_an_unknown_one_is_refused() {
    let mut b = Bench::established();
    for value in [1, 2, 3, 4] {
        assert_eq!(b.set(option::CONGESTION, value), (0, value));
    }
    assert_ne!(b.set(option::CONGESTION, 77).0, 0);
}

//! SYNs that cross (RFC 9293, 3.5, figure 7): what each of the peer's two segments means.

use toe_abi::{flags, state};

use crate::tcp::ecn::EcnPolicy;
use crate::testing::Bench;

//= docs/specs/rfc9293.txt#section-3.5
//= type=test
//# A TCP implementation MUST support simultaneous open attempts (MUST-10).
#[test]
fn the_window_of_the_syn_ack_that_crosses_is_not_scaled() {
    // RFC 7323, 2.2: "The window field in a segment where the SYN bit is set [...] MUST NOT be scaled."
    let mut b = Bench::new();
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("S 0 win 3000 <mss 1000, ws 4>");
    b.expect("SA 0:0 ack 1 <ws 6>");
    b.peer("SA 0 ack 1 win 2000 <mss 1000, ws 4>");
    assert_eq!((b.bits, b.info().send_window), (state::ESTABLISHED, 2000));
    b.peer("A 1 ack 1 win 2000");
    assert_eq!(b.info().send_window, 32_000);
}

#[test]
fn an_urgent_pointer_of_a_syn_ack_counts_from_the_syn() {
    let mut b = Bench::new();
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("S 0 <mss 1000>");
    b.expect("SA 0:0 ack 1");
    b.peer("USA 0 ack 1 urg 11");
    assert_eq!(b.notice.urgent_received, 10);
}

/// RFC 3168, 6.1.1: both must ask, by the SYN that the other one sees.
#[test]
fn syns_that_cross_do_not_agree_on_ecn_if_one_does_not_ask() {
    for (policy, ours, theirs) in [
        (EcnPolicy::On, "SEW", "S"),
        (EcnPolicy::On, "SEW", "SE"),
        (EcnPolicy::WhenAsked, "S", "SEW"),
        (EcnPolicy::Off, "S", "SEW"),
    ] {
        let mut b = Bench::with(|p| p.tcp.ecn = policy);
        b.connect(0);
        b.expect(&format!("{ours} 0"));
        b.peer(&format!("{theirs} 0 <mss 1000>"));
        b.expect("SA 0:0 ack 1");
    }
    // Our second SYN does not ask any more, and nobody knows which one the peer has seen.
    let mut b = Bench::with(|p| p.tcp.ecn = EcnPolicy::On);
    b.connect(0);
    b.expect("SEW 0");
    b.wait_for_segment();
    b.expect("S 0");
    b.peer("SEW 0 <mss 1000>");
    b.expect("SA 0:0 ack 1");
}

#[test]
fn a_syn_ack_of_another_syn_is_not_the_one_that_crossed() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    b.peer("S 0 <mss 1000>");
    b.expect("SA 0:0 ack 1");
    // Another number: it stands outside of the window, and is answered with what is expected.
    b.peer("SA 70000 ack 1");
    b.expect("A 1:1 ack 1");
    assert_eq!((b.bits, b.count("tcp-out-of-window")), (0, 1));
    b.peer("SAR 0 ack 1");
    assert_eq!(b.bits, 0);
    b.peer("SA 0 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED);
}

//! Opening (RFC 9293, 3.5).

use toe_abi::{Reason, state};

use crate::testing::Bench;

//= docs/specs/rfc9293.txt#section-3.7.1
//= type=test
//= feature=IPv4
//# TCP implementations SHOULD send an MSS Option in every SYN segment when its receive MSS differs from the default
//# 536 for IPv4 or 1220 for IPv6 (SHLD-5)
//= docs/specs/rfc9293.txt#section-3.7.1
//= type=test
//# TCP endpoints MUST implement both sending and receiving the MSS Option (MUST-14).
//= docs/specs/rfc9293.txt#section-3.7.1
//= type=test
//# The MSS value to be sent in an MSS Option must be less than or equal to: MMS_R - 20 where MMS_R is the maximum
//# size for a transport-layer message that can be received (and reassembled at the IP layer) (MUST-67).
#[test]
fn an_active_open() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0:0 win 65535 <mss 1460, sackOK, ws 6>");
    b.peer("SA 0 ack 1 win 1000 <mss 900>");
    b.expect("A 1:1 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED);
    b.nothing();
}

//= docs/specs/rfc9293.txt#section-3.7.1
//= type=test
//= feature=IPv4
//# If an MSS Option is not received at connection setup, TCP implementations MUST assume a default send MSS of 536
//# (576 - 40) for IPv4 or 1220 (1280 - 60) for IPv6 (MUST-15).
#[test]
fn a_passive_open_without_options() {
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0 win 1000");
    b.expect("SA 0:0 ack 1 win 65535 <mss 1460>");
    b.peer("A 1 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED | state::ACCEPTED);
    b.send(1000);
    b.expect("A 1:537");
    b.nothing();
}

#[test]
fn a_passive_open_takes_the_options_that_are_offered() {
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0 win 1000 <mss 1200, sackOK, ws 3, ts 77 0>");
    let syn_ack = b.next().unwrap();
    assert!(syn_ack.contains("mss 1460, ws 6, sackOK, ts ") && syn_ack.contains(" 77>"), "{syn_ack}");
    b.peer("A 1 ack 1 win 500 <ts 78 0>");
    b.send(4000);
    // 1200 less twelve of timestamps; the window is 500 * 8.
    b.expect("A 1:1189");
    b.expect("A 1189:2377");
    b.expect("PA 2377:3565");
    b.nothing();
}

#[test]
fn data_with_the_last_segment_of_the_handshake_is_taken() {
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0 <mss 1000>");
    b.expect("SA 0");
    b.peer("PA 1:101 ack 1");
    b.received(100);
}

//= docs/specs/rfc9293.txt#section-3.5
//= type=test
//# A TCP implementation MUST support simultaneous open attempts (MUST-10).
#[test]
fn syns_that_cross_open_one_connection() {
    // RFC 9293, 3.5, figure 7.
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    b.peer("S 0 <mss 1000>");
    b.expect("SA 0:0 ack 1 <mss 1460>");
    b.peer("SA 0 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED);
    b.peer("PA 1:11 ack 1");
    b.received(10);
}

#[test]
fn an_old_duplicate_syn_is_recovered_from() {
    // RFC 9293, 3.5, figure 8: the reset returns a listener to LISTEN.
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0");
    b.expect("SA 0 ack 1");
    b.peer("R 1");
    b.nothing();
    assert_eq!((b.in_use("half-open"), b.count("tcp-half-open-reset")), (0, 1));
}

//= docs/specs/rfc9293.txt#section-3.10.7.3
//= type=test
//# If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless the RST bit is set, if so drop the segment and
//# return)
#[test]
fn an_ack_of_what_was_never_sent_resets_in_syn_sent_and_changes_nothing() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    b.peer("SA 0 ack 2");
    b.expect("R 2:2");
    b.peer("RA 0 ack 2");
    b.peer("SA 0 ack 1");
    b.expect("A 1:1 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED);
}

#[test]
fn a_refused_connection() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    b.peer("R 0");
    assert_eq!(b.bits, 0, "a reset without ACK is nobody's");
    b.peer("RA 0 ack 1");
    assert_eq!((b.bits, b.reason), (state::ABORTED, Reason::Refused as u32));
    b.nothing();
    b.release();
    assert_eq!(b.in_use("connections"), 0);
}

//= docs/specs/rfc9293.txt#section-3.8.3
//= type=test
//# SYN retransmissions MUST be handled in the general way just described for data retransmissions, including
//# notification of the application layer.
//= docs/specs/rfc9293.txt#section-3.8.3
//= type=test
//# In particular, R2 for a SYN segment MUST be set large enough to provide retransmission of the segment for at
//# least 3 minutes (MUST-23).
#[test]
fn a_syn_is_sent_again_at_doubling_intervals_and_given_up() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    let mut waits = Vec::new();
    while b.bits == 0 {
        b.wait_ms(100);
        if let Some(again) = b.next() {
            assert!(again.starts_with("S 0:0"), "{again}");
            waits.push(b.now.as_us() / 100_000 % 10_000);
        }
    }
    assert_eq!((b.bits, b.reason), (state::ABORTED, Reason::TimedOut as u32));
    let gaps: Vec<_> = waits.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(gaps, [20, 40, 80, 160, 320, 600], "tenths of a second");
    assert!(b.now.as_us() >= 1_180_000_000, "MUST-23: no earlier than three minutes");
}

#[test]
fn a_syn_ack_is_sent_again_and_given_up() {
    let mut b = Bench::with(|p| p.tcp.syn_ack_retries = 2);
    b.listen();
    b.peer("S 0");
    b.expect("SA 0");
    assert_eq!(b.wait_for_segment(), 1000);
    b.expect("SA 0");
    assert_eq!(b.wait_for_segment(), 2000);
    b.expect("SA 0");
    b.wait_ms(10_000);
    b.nothing();
    assert_eq!((b.in_use("half-open"), b.count("tcp-half-open-timed-out")), (0, 1));
}

#[test]
fn what_is_not_the_cards_is_passed_on() {
    let mut b = Bench::new();
    b.peer_passes("S 0");
    b.peer_passes("A 1 ack 1");
    b.listen();
    b.peer_passes("SA 0 ack 1");
    b.peer_passes("R 0");
    b.peer_passes("A 1 ack 1");
    assert_eq!(b.count("wire-passed"), 5);
}

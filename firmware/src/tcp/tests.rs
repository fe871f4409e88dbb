//! One connection against a scripted peer: what RFC 9293 and its companions ask, in the RFCs' order.

use toe_abi::{Reason, flags, option, state};

use crate::testing::Bench;

mod acknowledging;
mod addresses;
mod bad_input;
mod blind;
mod channel;
mod closing;
mod ecn;
mod failures;
mod opening;
mod options;
mod segments;
mod spurious;
mod syn_cache;
mod time_wait;
mod window;

// Opening (RFC 9293, 3.5).

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

// Data (RFC 9293, 3.7 and 3.8).

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

// Timers and loss (RFC 6298, 5681, 6582, 8985).

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

// Closing (RFC 9293, 3.6).

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
fn a_time_wait_that_ends_while_a_syn_is_answered_does_not_come_back() {
    let mut b = in_time_wait("");
    b.wait_ms(59_990);
    b.peer("S 100");
    b.next_syn_ack();
    b.wait_ms(20);
    assert_eq!((b.in_use("time-wait"), b.in_use("half-open")), (0, 1));
    b.peer("R 101");
    assert_eq!((b.in_use("time-wait"), b.in_use("half-open")), (0, 0));
    b.peer_passes("A 101 ack 1");
}

// SEGMENT ARRIVES (RFC 9293, 3.10.7.4, with RFC 5961 and 7323).

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

// What a program may set (RFC 9293, 3.8.3, 3.8.4, 3.9.1 and 3.9.2).

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

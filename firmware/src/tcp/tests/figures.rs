//! What INFO says of a connection: each figure against a script in which it is known.

use toe_abi::flags;

use crate::testing::Bench;

#[test]
fn segments_and_octets_are_counted_in_both_directions() {
    let mut b = Bench::established();
    let info = b.info();
    // SYN and ACK; SYN-ACK.
    assert_eq!((info.segments_out, info.segments_in, info.bytes_sent, info.retransmits), (2, 1, 0, 0));
    b.send(2500);
    (0..3).for_each(|_| assert!(b.next().is_some()));
    let info = b.info();
    assert_eq!((info.segments_out, info.segments_in, info.bytes_sent), (5, 1, 2500));
    assert_eq!((info.in_flight, info.bytes_acknowledged, info.not_sent), (2500, 0, 0));
    b.peer("A 1 ack 1001");
    b.peer("PA 1:11 ack 1001");
    let info = b.info();
    assert_eq!((info.segments_in, info.bytes_received, info.bytes_acknowledged), (3, 10, 1000));
    // The timeout sends one segment of the two again, and counts it as sent.
    b.wait_for_segment();
    b.expect("A 2501:2501 ack 11");
    b.wait_for_segment();
    b.expect("A 1001:2001");
    let info = b.info();
    assert_eq!((info.retransmits, info.bytes_sent, info.backoff), (1, 3500, 1));
    assert_eq!(info.segments_out, 7);
}

#[test]
fn a_syn_that_is_sent_again_counts_as_a_retransmission() {
    let mut b = Bench::new();
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.wait_for_segment();
    b.expect("S 0");
    b.wait_for_segment();
    b.expect("S 0");
    b.peer("SA 0 ack 1 <mss 1000>");
    b.expect("A 1:1");
    let info = b.info();
    assert_eq!((info.retransmits, info.segments_out, b.count("tcp-retransmits")), (2, 4, 2));
}

/// RFC 9293, 3.10.7.4, and RFC 7323, 2.3: what was agreed on, and how windows are scaled.
#[test]
fn the_agreement_of_both_syns_is_told() {
    let mut b = Bench::established_with(flags::NODELAY, "mss 1000, sackOK, ws 15, ts 7 0");
    let info = b.info();
    // A shift above fourteen counts as fourteen (RFC 7323, 2.3); twelve bytes of each segment are timestamps.
    assert_eq!((info.options, info.window_scales & 15, info.send_mss), (0b0111, 14, 988));
    assert_eq!((info.rtt_us, info.rtt_min_us, info.rto_us, info.send_window), (10_000, 10_000, 210_000, 60_000));
    let mut b = Bench::established();
    let info = b.info();
    assert_eq!((info.options, info.window_scales, info.send_mss), (0, 0, 1000));
}

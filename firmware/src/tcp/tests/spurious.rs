//! Octets that came twice (RFC 2883), and losses that were none (RFC 3522, 3708, 4015, 5682); what else decides when
//! something is sent again.

use toe_abi::flags;

use crate::testing::Bench;

/// Sends `segments` of 1000 octets, of which nothing has come back yet.
fn in_flight(segments: u64) -> Bench {
    let mut b = Bench::established_sack();
    b.wait_ms(10);
    b.send(segments * 1000);
    (0..segments).for_each(|_| assert!(b.next().is_some()));
    b
}

/// The value of the timestamps option of the card's next segment.
fn sent_timestamp(b: &mut Bench) -> u32 {
    let segment = b.next().unwrap();
    let (_, options) = segment.split_once("ts ").unwrap();
    options.split(' ').next().unwrap().parse().unwrap()
}

// RFC 2883, section 4.

#[test]
fn a_segment_below_the_window_is_reported_as_received_twice() {
    let mut b = Bench::established_sack();
    b.peer("A 1:1001 ack 1");
    b.peer("A 1001:2001 ack 1");
    b.expect("A 1:1 ack 2001");
    b.peer("A 1:1001 ack 1");
    b.expect("A 1:1 ack 2001 <sack 1:1001>");
    // "Each duplicate contiguous sequence of data received is reported in at most one D-SACK block": once.
    b.peer("A 1001:2001 ack 1");
    b.expect("A 1:1 ack 2001 <sack 1001:2001>");
    assert_eq!(b.count("tcp-dsacks-out"), 2);
}

#[test]
fn what_a_repeated_syn_brings_is_not_reported_by_numbers_that_are_none() {
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0 <mss 1000, sackOK>");
    b.expect("SA 0 ack 1");
    b.peer("PA 1:11 ack 1");
    b.wait_for_segment();
    b.expect("A 1:1 ack 11");
    b.peer("S 0:5");
    let challenge = b.next().unwrap();
    assert!(challenge.starts_with("A 1:1 ack 11") && !challenge.contains("sack"), "{challenge}");
}

#[test]
fn of_a_segment_that_overlaps_only_the_old_part_is_reported() {
    let mut b = Bench::established_sack();
    b.peer("A 1:1001 ack 1");
    b.peer("A 1:2001 ack 1");
    b.expect("A 1:1 ack 2001 <sack 1:1001>");
}

#[test]
fn a_duplicate_beyond_a_gap_comes_before_the_block_that_holds_it() {
    let mut b = Bench::established_sack();
    b.peer("A 1001:3001 ack 1");
    b.expect("A 1:1 ack 1 <sack 1001:3001>");
    b.peer("A 2001:3001 ack 1");
    b.expect("A 1:1 ack 1 <sack 2001:3001 1001:3001>");
    b.peer("A 3001:4001 ack 1");
    let next = b.next().unwrap();
    assert!(next.contains("<sack 1001:4001>"), "{next}");
}

#[test]
fn without_sack_nothing_is_reported() {
    let mut b = Bench::established();
    b.peer("A 1:1001 ack 1");
    b.peer("A 1:1001 ack 1");
    let next = b.next().unwrap();
    assert!(!next.contains("sack"), "{next}");
    assert_eq!(b.count("tcp-dsacks-out"), 0);
}

// What a sender does with it.

#[test]
fn a_fast_retransmission_that_was_reported_as_a_duplicate_is_undone() {
    let mut b = in_flight(10);
    b.wait_ms(10);
    b.peer("A 1 ack 1 <sack 1001:4001>");
    b.expect("A 1:1001");
    b.peer("A 1 ack 4001");
    assert_eq!((b.count("tcp-fast-recoveries"), b.count("tcp-undos")), (1, 0));
    b.peer("A 1 ack 4001 <sack 1:1001>");
    assert_eq!((b.count("tcp-dsacks-in"), b.count("tcp-undos")), (1, 1));
    // The window is ten segments again: six are in flight.
    b.send(10_000);
    let sent = std::iter::from_fn(|| b.next()).count();
    assert!(sent >= 4, "{sent}");
}

#[test]
fn a_needed_retransmission_keeps_the_window_small() {
    let mut b = in_flight(10);
    b.wait_ms(10);
    b.peer("A 1 ack 1 <sack 1001:4001>");
    b.expect("A 1:1001");
    b.peer("A 1 ack 4001");
    b.peer("A 1 ack 10001");
    b.send(20_000);
    let sent = std::iter::from_fn(|| b.next()).count();
    assert_eq!((sent, b.count("tcp-undos")), (7, 0), "0.7 of ten segments");
}

#[test]
fn a_timestamp_from_before_the_retransmission_undoes_it() {
    let mut b = Bench::established_with(flags::NODELAY, "mss 1012, sackOK, ts 5 0");
    b.wait_ms(10);
    b.send(10_000);
    let original = sent_timestamp(&mut b);
    (1..10).for_each(|_| assert!(b.next().is_some()));
    b.timestamps = Some(original);
    b.wait_ms(10);
    b.peer("A 1 ack 1 <sack 1001:4001>");
    let again = sent_timestamp(&mut b);
    assert!(again > original);
    // The first segment arrives late: its own timestamp is echoed.
    b.peer("A 1 ack 4001");
    assert_eq!(b.count("tcp-undos"), 1);
}

#[test]
fn a_timestamp_of_the_retransmission_undoes_nothing() {
    let mut b = Bench::established_with(flags::NODELAY, "mss 1012, sackOK, ts 5 0");
    b.wait_ms(10);
    b.send(10_000);
    let original = sent_timestamp(&mut b);
    (1..10).for_each(|_| assert!(b.next().is_some()));
    b.timestamps = Some(original);
    b.wait_ms(10);
    b.peer("A 1 ack 1 <sack 1001:4001>");
    b.timestamps = Some(sent_timestamp(&mut b));
    b.peer("A 1 ack 4001");
    assert_eq!(b.count("tcp-undos"), 0);
}

/// RFC 5682, 3.1.
#[test]
fn a_timeout_is_undone_when_what_was_sent_once_is_acknowledged_after_it() {
    let mut b = in_flight(5);
    b.send(5000);
    (0..5).for_each(|_| assert!(b.next().is_some()));
    // A window's worth is out, and more is queued.
    b.send(10_000);
    b.wait_for_segment();
    assert_eq!(b.count("tcp-tail-probes"), 1);
    b.next();
    b.wait_for_segment();
    b.expect("A 1:1001");
    b.nothing();
    assert_eq!(b.count("tcp-timeouts"), 1);
    // Step 2b: the first acknowledgement brings out new data, and nothing old.
    b.peer("A 1 ack 1001");
    let new: Vec<_> = std::iter::from_fn(|| b.next()).collect();
    assert_eq!(new.len(), 2, "{new:?}");
    assert!(
        new.iter().all(|s| s.split(':').next().unwrap().rsplit(' ').next().unwrap().parse::<u32>().unwrap() > 10_000)
    );
    // Step 3b: what was never sent again is acknowledged.
    b.peer("A 1 ack 2001");
    assert_eq!((b.count("tcp-spurious-timeouts"), b.count("tcp-undos")), (1, 1));
    b.peer("A 1 ack 10001");
    let again = std::iter::from_fn(|| b.next()).filter(|s| s.contains(" 2001:") || s.contains(" 3001:")).count();
    assert_eq!((again, b.count("tcp-retransmits")), (0, 1));
}

#[test]
fn after_a_timeout_for_a_loss_the_rest_is_sent_again() {
    let mut b = in_flight(10);
    b.send(10_000);
    b.wait_for_segment();
    b.next();
    b.wait_for_segment();
    b.expect("A 1:1001");
    b.peer("A 1 ack 1001");
    assert_eq!(std::iter::from_fn(|| b.next()).count(), 2);
    // Step 3a: a duplicate acknowledgement.
    b.peer("A 1 ack 1001 <sack 11001:12001>");
    b.expect("A 1001:2001");
    assert_eq!(b.count("tcp-spurious-timeouts"), 0);
}

#[test]
fn silence_in_recovery_is_probed_before_the_timeout() {
    let mut b = in_flight(10);
    b.wait_ms(10);
    b.peer("A 1 ack 1 <sack 1001:4001>");
    b.expect("A 1:1001");
    while b.next().is_some() {}
    let wait = b.wait_for_segment();
    assert!(wait < 100, "{wait} ms");
    assert_eq!((b.count("tcp-tail-probes"), b.count("tcp-timeouts")), (1, 0));
}

/// RFC 8985, 6.2, step 4: "the RACK reordering window is [widened] for every round trip with DSACKs".
#[test]
fn reported_duplicates_widen_the_reordering_window() {
    let mut b = in_flight(10);
    let wait_for_loss = |b: &mut Bench, una: u32| {
        // The first segment is overtaken: reordering was seen before, so RACK waits.
        b.wait_ms(10);
        b.peer(&format!("A 1 ack {una} <sack {}:{}>", una + 1000, una + 2000));
        let wait = b.wait_for_segment();
        while b.next().is_some() {}
        wait
    };
    // Reordering is seen: a segment sent once arrives after a later one.
    b.wait_ms(10);
    b.peer("A 1 ack 1 <sack 1001:2001>");
    b.peer("A 1 ack 2001");
    let narrow = wait_for_loss(&mut b, 2001);
    b.peer("A 1 ack 10001 <sack 2001:3001>");
    b.wait_ms(10);
    b.send(10_000);
    while b.next().is_some() {}
    let wide = wait_for_loss(&mut b, 10_001);
    assert!(wide > narrow, "{wide} ms after {narrow} ms");
}

// RFC 5681, 4.1.

#[test]
fn after_an_idle_time_the_window_begins_again() {
    let mut b = in_flight(10);
    b.wait_ms(10);
    b.peer("A 1 ack 10001");
    b.send(20_000);
    assert_eq!(std::iter::from_fn(|| b.next()).count(), 18, "one acknowledgement is worth eight segments at most");
    b.wait_ms(10);
    b.peer("A 1 ack 28001");
    assert_eq!(std::iter::from_fn(|| b.next()).count(), 2);
    b.peer("A 1 ack 30001");
    b.wait_ms(100);
    b.send(1000);
    b.peer("A 1 ack 31001");
    while b.next().is_some() {}
    assert_eq!(b.count("tcp-idle-restarts"), 0, "shorter than a timeout");
    b.wait_ms(1000);
    b.send(30_000);
    assert_eq!(std::iter::from_fn(|| b.next()).count(), 10, "the initial window");
    assert_eq!(b.count("tcp-idle-restarts"), 1);
}

/// RFC 3042: "the TCP sender SHOULD transmit new data" on the first two duplicate acknowledgements.
#[test]
fn the_first_two_duplicates_bring_out_new_data() {
    for sack in [true, false] {
        let mut b = if sack { Bench::established_sack() } else { Bench::established() };
        b.wait_ms(10);
        b.send(20_000);
        (0..10).for_each(|_| assert!(b.next().is_some()));
        b.nothing();
        b.wait_ms(10);
        b.peer(if sack { "A 1 ack 1 <sack 1001:2001>" } else { "A 1 ack 1" });
        b.expect("A 10001:11001");
        b.peer(if sack { "A 1 ack 1 <sack 1001:3001>" } else { "A 1 ack 1" });
        b.expect("A 11001:12001");
        b.nothing();
    }
}

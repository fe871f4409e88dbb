//! Where each of the rules begins and ends, to the byte.

use toe_abi::flags;

use super::*;
use crate::seq::Seq;
use crate::testing::Bench;

fn at(ms: u64) -> Instant {
    Instant::from_us(ms * 1000)
}

fn seq(n: u64) -> Position {
    Position::initial(Seq(0)) + n
}

fn path(limit: u32) -> PathMtu {
    PathMtu::new("192.0.2.2".parse().unwrap(), limit)
}

/// A report about a packet of so many bytes.
fn about(packet_bytes: u32) -> IcmpError {
    let ip = IpAddr::from([192, 0, 2, 2]);
    let kind = crate::wire::icmp::Kind::TooBig { mtu: 0 };
    IcmpError { kind, source: ip, destination: ip, source_port: 1, destination_port: 2, seq: Seq(0), packet_bytes }
}

#[test]
fn a_plateau_lies_below_the_packet() {
    // RFC 1191, 5: "the next lower plateau".
    for (packet, plateau) in [(1500, 1492), (1493, 1492), (1492, 1006), (1006, 552)] {
        assert_eq!(path(1500).reported(&about(packet), 0, seq(1)), Verdict::Believe(plateau), "{packet}");
    }
    assert_eq!(path(60_000).reported(&about(60_000), 0, seq(1)), Verdict::Believe(32_000));
    assert_eq!(path(1500).reported(&about(500), 0, seq(1)), Verdict::Believe(552), "and not below the minimum");
}

#[test]
fn a_claim_must_be_below_the_packet_and_below_what_is_sent() {
    assert_eq!(path(1500).reported(&about(1400), 1400, seq(1)), Verdict::Nonsense);
    assert_eq!(path(1500).reported(&about(1400), 1399, seq(1)), Verdict::Believe(1399));
    assert_eq!(path(1400).reported(&about(1500), 1400, seq(1)), Verdict::Known);
    assert_eq!(path(1400).reported(&about(1500), 1399, seq(1)), Verdict::Believe(1399));
    assert_eq!(path(1500).reported(&about(1500), 551, seq(1)), Verdict::Believe(552));
    assert_eq!(path(500).reported(&about(500), 400, seq(1)), Verdict::Known, "the interface is below the minimum");
}

#[test]
fn a_claim_below_what_was_acknowledged_waits() {
    let mut p = PathMtu { acknowledged: 1400, ..path(1500) };
    assert_eq!(p.reported(&about(1500), 1400, seq(1)), Verdict::Believe(1400));
    assert!(p.claim.is_none());
    assert_eq!(p.reported(&about(1500), 1399, seq(7)), Verdict::Wait);
    assert_eq!(p.claim.map(|c| (c.mtu, c.seq)), Some((1399, seq(7))));
}

#[test]
fn a_report_about_a_probe_ends_it_and_another_does_not() {
    let probe = Some(Probe { bytes: 1400, start: seq(5), end: seq(1365) });
    let mut p = PathMtu { current: 1000, probe, ..path(1500) };
    assert_eq!(p.reported(&about(1400), 1200, seq(5)), Verdict::ProbeFailed(1200));
    assert_eq!(p.reported(&about(1400), 1200, seq(6)), Verdict::Known);
    // A packet that is larger than the probe was none of ours.
    assert_eq!(p.reported(&about(1500), 1400, seq(5)), Verdict::Known);
    assert_eq!(p.reported(&about(1500), 1399, seq(5)), Verdict::ProbeFailed(1399));
    assert_eq!(p.reported(&about(1400), 1000, seq(5)), Verdict::ProbeFailed(1000));
}

#[test]
fn a_smaller_path_forgets_what_was_known_of_larger_ones() {
    let sent = Some(Sent { bytes: 1500, end: seq(9) });
    let probe = Some(Probe { bytes: 1400, start: seq(5), end: seq(1365) });
    let claim = Some(Claim { mtu: 700, seq: seq(5) });
    let mut p = PathMtu { failed: 1301, acknowledged: 1250, sent, probe, claim, timeouts: 2, ..path(1500) };
    p.lower(1200, 1201, at(600));
    assert_eq!((p.current(), p.acknowledged, p.timeouts), (1200, 1200, 0));
    assert!(p.sent.is_none() && p.probe.is_none() && p.claim.is_none());
    assert_eq!(p.probe_size(at(599)), None);
    assert_eq!(p.probe_size(at(600)), Some(1500), "all there is, from the beginning");
    let mut p = PathMtu { acknowledged: 700, ..path(1500) };
    p.lower(1200, 1400, at(0));
    assert_eq!((p.acknowledged, p.probe_size(at(0))), (700, Some(1399)));
}

#[test]
fn no_probe_goes_beside_another_nor_into_silence_nor_above_the_limit() {
    let ready = PathMtu { current: 1000, probe_at: Some(at(5)), failed: 1401, ..path(1500) };
    assert_eq!({ ready }.probe_size(at(4)), None);
    assert_eq!({ ready }.probe_size(at(5)), Some(1200));
    assert_eq!(PathMtu { probe_at: None, ..ready }.probe_size(at(5)), None);
    assert_eq!(PathMtu { timeouts: 1, ..ready }.probe_size(at(5)), None);
    let probe = Some(Probe { bytes: 1200, start: seq(1), end: seq(1161) });
    assert_eq!(PathMtu { probe, ..ready }.probe_size(at(5)), None);
    let mut full = PathMtu { current: 1500, ..ready };
    assert_eq!((full.probe_size(at(5)), full.probe_at), (None, None));
    // The first of a search tries all there is; a search that has ended begins with the limit.
    assert_eq!(PathMtu { whole: true, ..ready }.probe_size(at(5)), Some(1400));
    assert_eq!(PathMtu { whole: true, failed: 1002, ..ready }.probe_size(at(5)), Some(1001));
    assert_eq!(PathMtu { whole: true, failed: 1001, ..ready }.probe_size(at(5)), Some(1500));
}

#[test]
fn a_search_halves_what_is_left_until_sixteen_bytes_are_and_rests() {
    let mut p = PathMtu { current: 1000, whole: true, failed: 1501, probe_at: Some(at(0)), ..path(1500) };
    p.probe_failed(1500, at(10));
    assert_eq!((p.failed, p.whole, p.probe_at), (1500, false, Some(at(1010))));
    assert_eq!(p.probe_size(at(1010)), Some(1250));
    p.probe_passed(1250, at(1020));
    assert_eq!((p.current(), p.acknowledged, p.probe_at), (1250, 1250, Some(at(1020))));
    p.probe_failed(1300, at(1020));
    assert_eq!(p.failed, 1300);
    p.probe_failed(1400, at(1020));
    assert_eq!(p.failed, 1300, "the smallest that did not pass counts");
    // 17 bytes are left, then 16.
    p.probe_failed(1267, at(2020));
    assert_eq!((p.failed, p.probe_at), (1267, Some(at(3020))));
    p.probe_passed(1251, at(3030));
    assert_eq!((p.failed, p.whole, p.probe_at), (1501, true, Some(at(603_030))));
    p.probe_passed(1500, at(700_000));
    assert_eq!(p.probe_at, None);
}

// What is sent, acknowledged and lost.

fn full_size() -> Bench {
    Bench::established_with(flags::NODELAY, "mss 1460, sackOK")
}

#[test]
fn the_largest_packet_of_those_acknowledged_together_stands_for_them() {
    for sizes in [[1460, 500], [500, 1460]] {
        let mut b = full_size();
        for bytes in sizes {
            b.send(bytes);
            assert!(b.next().is_some());
        }
        b.peer("A 1 ack 1961");
        b.send(1460);
        let sent = b.next_frame().unwrap();
        b.too_big(1400, &sent);
        b.nothing();
        assert_eq!((b.count("icmp-too-big-waits"), b.notice.path_mtu), (1, 0), "{sizes:?}");
    }
}

#[test]
fn a_packet_is_known_to_pass_as_soon_as_it_is_acknowledged_itself() {
    let mut b = full_size();
    b.send(2920);
    b.expect("A 1:1461");
    let second = b.next_frame().unwrap();
    b.peer("A 1 ack 1461");
    b.too_big(1400, &second);
    b.nothing();
    assert_eq!(b.count("icmp-too-big-waits"), 1);
}

#[test]
fn a_claim_is_refuted_by_what_it_quotes_and_not_by_what_comes_before() {
    let mut b = full_size();
    b.send(1460);
    b.expect("PA 1:1461");
    b.peer("A 1 ack 1461");
    b.send(2920);
    b.expect("A 1461:2921");
    let second = b.next_frame().unwrap();
    b.too_big(1400, &second);
    b.peer("A 1 ack 2921");
    assert_eq!((b.count("icmp-too-big-waits"), b.count("icmp-too-big-refuted")), (1, 0));
    b.peer("A 1 ack 2922");
    assert_eq!(b.count("icmp-too-big-refuted"), 1);
}

#[test]
fn a_dead_peer_makes_two_black_holes_and_no_more() {
    let mut b = full_size();
    b.send(1460);
    let mut seen = Vec::new();
    for _ in 0..10 {
        b.wait_for_segment();
        while b.next().is_some() {}
        if seen.last() != Some(&b.notice.path_mtu) {
            seen.push(b.notice.path_mtu);
        }
    }
    assert_eq!((seen, b.count("tcp-black-holes")), (vec![0, BASE_V4, PATH_MTU_MIN_V4], 2));
}

#[test]
fn a_segment_that_the_smaller_path_would_take_makes_no_black_hole() {
    for (text, holes) in [(1024, 0), (1025, 1)] {
        let mut b = full_size();
        b.send(text);
        // A probe of the tail and four timeouts.
        b.wait_ms(5_000);
        assert_eq!((b.count("tcp-timeouts"), b.count("tcp-black-holes")), (4, holes), "{text}");
    }
}

/// A connection that sends packets of 1000 bytes and may try larger ones.
fn lowered() -> Bench {
    let mut b = full_size();
    b.send(1460);
    let sent = b.next_frame().unwrap();
    b.too_big(1000, &sent);
    while b.next().is_some() {}
    b.peer("A 1 ack 1461");
    // A window for more than is tried below.
    for _ in 0..4 {
        b.send(9600);
        while b.next().is_some() {}
        b.peer(&format!("A 1 ack {}", b.sent() + 1));
        while b.next().is_some() {}
        b.peer(&format!("A 1 ack {}", b.sent() + 1));
    }
    assert_eq!(b.count("tcp-mtu-probes"), 0);
    b.wait_ms(600_000);
    b
}

#[test]
fn a_probe_goes_with_three_full_segments_behind_it() {
    for (bytes, first) in [(1460 + 3 * 960 - 1, 960), (1460 + 3 * 960, 1460)] {
        let mut b = lowered();
        b.send(bytes);
        let (from, to) = b.next_text().unwrap();
        assert_eq!(to - from, first);
    }
    // The peer's window must take them, too.
    for (window, first) in [(1460 + 3 * 960 - 1, 960), (1460 + 3 * 960, 1460)] {
        let mut b = lowered();
        let end = b.sent() + 1;
        b.peer(&format!("A 1 ack {end} win {window}"));
        b.send(9000);
        let (from, to) = b.next_text().unwrap();
        assert_eq!(to - from, first);
    }
}

#[test]
fn no_probe_goes_while_something_is_missing() {
    let mut b = lowered();
    let start = b.sent() as u32 + 1;
    b.send(1920);
    while b.next().is_some() {}
    b.peer(&format!("A 1 ack {start} <sack {}:{}>", start + 960, start + 1920));
    b.send(9000);
    while let Some((from, to)) = b.next_text() {
        assert!(to - from <= 960);
    }
    assert_eq!(b.count("tcp-mtu-probes"), 0);
}

#[test]
fn after_a_routers_answer_the_next_probe_has_the_size_that_it_names() {
    let mut b = lowered();
    b.send(8_000);
    let probe = b.next_frame().unwrap();
    while b.next().is_some() {}
    b.too_big(1200, &probe);
    while b.next().is_some() {}
    b.peer(&format!("A 1 ack {}", b.sent() + 1));
    b.wait_ms(1_000);
    b.send(8_000);
    let (from, to) = b.next_text().unwrap();
    assert_eq!(to - from, 1160);
}

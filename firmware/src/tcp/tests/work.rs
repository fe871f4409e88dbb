//! What a segment may cost at most, whatever a peer thinks of (`docs/work.md`).

use toe_abi::flags;
use toe_impair::Random;

use crate::engine::Call;
use crate::profile::CongestionControl;
use crate::testing::Bench;

/// The bound on the steps of a segment.
const SEGMENT_MAX: u64 = 64;

fn most(b: &Bench) -> [u64; 2] {
    [Call::HandleWire, Call::PollWire].map(|call| b.firmware.work().most(call))
}

#[track_caller]
fn bounded(b: &Bench, what: &str) {
    let [from, to] = most(b);
    println!("{what}: {from} steps from the wire, {to} to it");
    assert!(from <= SEGMENT_MAX && to <= SEGMENT_MAX, "{what}: {from} and {to} steps");
}

/// A connection with so many segments of 100 octets in flight, and SACK. Gives how many octets those are.
fn flight(segments: u32) -> (Bench, u32) {
    let mut b = Bench::with(|p| {
        p.tcp.initial_window_segments = 64;
        p.tcp.congestion = CongestionControl::NewReno;
        p.limits.transmit_records = 131_072;
    });
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.now = b.now + crate::time::Duration::from_ms(10);
    b.peer("SA 0 ack 1 win 60000 <mss 100, sackOK, ws 14>");
    while b.next().is_some() {}
    // Slow start, an acknowledgement for every segment.
    let (mut una, mut nxt, mut sent) = (1, 1, 0);
    for _ in 0..2 * segments {
        if sent + 1 - nxt < 20_000 {
            b.send(10_000);
            sent += 10_000;
        }
        while let Some((_, end)) = b.next_text() {
            nxt = nxt.max(end);
        }
        if nxt - una >= segments * 100 {
            b.firmware.forget_most_work();
            return (b, una);
        }
        b.now = b.now + crate::time::Duration::from_us(100);
        una += 100;
        b.peer(&format!("A 1 ack {una} win 60000"));
    }
    panic!("{} octets in flight", nxt - una);
}

#[test]
fn sack_blocks_anywhere_in_thousands_of_segments() {
    let (mut b, una) = flight(1500);
    let mut random = Random::new(1);
    let mut any = || una + 100 * random.below(1500) as u32;
    for _ in 0..400 {
        let blocks: Vec<_> = (0..4)
            .map(|_| {
                let left = any();
                format!("{left}:{}", left + 100)
            })
            .collect();
        b.peer(&format!("A 1 ack {una} win 60000 <sack {}>", blocks.join(" ")));
        while b.next_frame().is_some() {}
    }
    assert!(b.info().sacked > 0);
    bounded(&b, "single segments");
    // Each again, from the other end, and over everything.
    for n in (0..1500u32).rev().step_by(7) {
        let left = una + 100 * n;
        b.peer(&format!("A 1 ack {una} win 60000 <sack {left}:{} {}:{}>", left + 100, una + 100, una + 100 * 1500));
        while b.next_frame().is_some() {}
    }
    bounded(&b, "from the end, and all at once");
}

#[test]
fn a_hole_that_is_found_late_is_repaired_all_the_same() {
    // Two hundred segments are lost in a row: the blocks behind them are reached step by step, and then all is well.
    let (mut b, una) = flight(1000);
    let hole = una + 100 * 200;
    for n in 0..200u32 {
        b.peer(&format!("A 1 ack {una} win 60000 <sack {hole}:{}>", hole + 100 * (n + 1)));
        while b.next_frame().is_some() {}
    }
    bounded(&b, "a late hole");
    let info = b.info();
    assert!(info.sacked >= 100 * 150, "{}", info.sacked);
    assert!(info.retransmits > 0);
}

#[test]
fn an_acknowledgement_of_thousands_costs_what_one_of_one_does() {
    let (mut b, una) = flight(1500);
    b.firmware.forget_most_work();
    b.peer(&format!("A 1 ack {} win 60000", una + 100 * 1500));
    bounded(&b, "an acknowledgement of fifteen hundred segments");
}

#[test]
fn ranges_of_single_octets_out_of_order() {
    let mut b = Bench::with(|p| p.limits.out_of_order_ranges = 256);
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000, sackOK>");
    while b.next().is_some() {}
    b.firmware.forget_most_work();
    let mut random = Random::new(2);
    for _ in 0..2000 {
        let at = 3 + 2 * random.below(30_000);
        b.peer(&format!("A {at}:{} ack 1", at + 1));
        while b.next_frame().is_some() {}
    }
    bounded(&b, "single octets");
    // One that joins them all.
    for at in (1..60_001).step_by(900) {
        b.peer(&format!("A {at}:{} ack 1", at + 900));
        while b.next_frame().is_some() {}
    }
    bounded(&b, "and all joined");
}

#[test]
fn options_without_end() {
    let mut b = Bench::established_sack();
    b.firmware.forget_most_work();
    let base = b.frame("A 1 ack 1");
    for option in [&[1u8][..], &[4, 2], &[253, 2], &[1, 4, 2, 1], &[5, 10, 0, 0, 0, 1, 0, 0, 0, 2]] {
        let mut frame = base[..54].to_vec();
        let mut options: Vec<u8> = option.iter().copied().cycle().take(40 / option.len() * option.len()).collect();
        options.resize(40, 1);
        frame.extend(&options);
        frame[46] = 15 << 4;
        frame[16..18].copy_from_slice(&80u16.to_be_bytes());
        crate::testing::repair_header(&mut frame);
        crate::testing::repair(&mut frame);
        let _ = b.deliver(&frame);
        while b.next_frame().is_some() {}
    }
    bounded(&b, "options");
}

#[test]
fn whatever_is_sent_to_a_listener() {
    for half_open in [0, 4] {
        let mut b = Bench::with(|p| p.limits.half_open = half_open);
        b.listen();
        b.firmware.forget_most_work();
        for _ in 0..200 {
            for text in ["S 0 <mss 1000, sackOK, ws 3, ts 1 0>", "A 77 ack 99", "R 5", "FA 3 ack 4", "SA 0 ack 1"] {
                let frame = b.frame(text);
                let _ = b.deliver(&frame);
                while b.next_frame().is_some() {}
            }
            b.another_port(false);
        }
        bounded(&b, "a listener");
    }
}

/// RACK passes by what was sent later than the youngest delivered. Of what left in one moment that could be a whole window.
#[test]
fn what_left_in_one_moment_is_passed_by_in_few_steps() {
    let cost = |segments: u32| {
        let mut b = Bench::with(|p| p.tcp.initial_window_segments = segments);
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.now = b.now + crate::time::Duration::from_ms(10);
        b.peer("SA 0 ack 1 win 60000 <mss 100, sackOK>");
        b.expect("A 1:1");
        b.send(u64::from(segments) * 100);
        let sent = std::iter::from_fn(|| b.next()).count();
        assert_eq!(sent as u32, segments, "at once");
        b.firmware.forget_most_work();
        b.peer("A 1 ack 101");
        most(&b)[0]
    };
    assert_eq!(cost(64), cost(16));
    assert!(cost(16) > cost(2));
}

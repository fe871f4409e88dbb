//! Trains of segments: what leaves a wire that cuts them is what a wire that does not would have been given.

use proptest::prelude::*;
use toe_abi::flags;

use crate::profile::CongestionControl;
use crate::testing::Bench;
use crate::wire::offload::Offload;

/// Trains from the first segment on.
const AT_ONCE: Offload = Offload { plain_bytes: 0, ..Offload::ALL };

fn bench(congestion: CongestionControl, v6: bool, wire: Offload) -> Bench {
    let mut b = Bench::with(|p| p.tcp.congestion = congestion);
    if v6 {
        b.local.ip = "2001:db8::2".parse().unwrap();
        b.remote.ip = "2001:db8::1".parse().unwrap();
    }
    b.wire = wire;
    b.connect(flags::NODELAY);
    assert!(b.next().is_some());
    b.wait_ms(10);
    b.peer("SA 0 ack 1 win 60000 <mss 1000, sackOK, ws 4>");
    assert!(b.next().is_some());
    b
}

#[test]
fn ten_segments_are_one_frame() {
    for (v6, count) in [(false, 10), (true, 10)] {
        let mut b = bench(CongestionControl::Cubic, v6, AT_ONCE);
        let before = b.frames;
        b.send(12_500);
        assert_eq!(b.frames - before, 1, "the initial window, at once");
        for n in 0..count - 1 {
            b.expect(&format!("A {}:{} ack 1", 1 + 1000 * n, 1001 + 1000 * n));
        }
        b.expect("PA 9001:10001 ack 1");
        b.nothing();
        assert_eq!(b.info().bytes_sent, 10_000);
        assert_eq!(b.info().segments_out, 12, "the SYN, its end of the handshake, and ten more");
        b.wait_ms(10);
        b.peer("A 1 ack 10001");
        b.expect("A 10001:11001");
        b.expect("A 11001:12001");
        b.expect("PA 12001:12501");
        assert_eq!(b.frames - before, 2);
    }
}

/// The length in an IPv4 header has 16 bits; whatever options there are, a train is within that.
#[test]
fn a_train_is_within_the_longest_packet() {
    assert_eq!(crate::tcp::train::TEXT_BYTES_MAX, 65_535 - 40 - 20 - 40);
}

#[test]
fn the_end_of_a_stream_goes_with_its_last_segment() {
    let mut b = bench(CongestionControl::Cubic, false, AT_ONCE);
    b.send(5_000);
    (0..5).for_each(|_| assert!(b.next().is_some()));
    // What is to come is held until there is room for all of it.
    b.peer("A 1 ack 5001 win 0");
    b.send(2_500);
    b.shutdown();
    let before = b.frames;
    b.peer("A 1 ack 5001 win 4000");
    b.expect("A 5001:6001");
    b.expect("A 6001:7001");
    b.expect("FPA 7001:7501");
    b.nothing();
    assert_eq!(b.frames - before, 1);
}

/// An end for which the last segment has no room goes alone, as it does where nothing is cut.
#[test]
fn an_end_without_text_goes_alone() {
    let sent = |wire: Offload| {
        let mut b = bench(CongestionControl::Cubic, false, wire);
        b.send(5_000);
        (0..5).for_each(|_| assert!(b.next().is_some()));
        b.peer("A 1 ack 5001 win 0");
        b.send(3_000);
        b.shutdown();
        b.peer("A 1 ack 5001 win 4000");
        std::iter::from_fn(|| b.next()).collect::<Vec<_>>()
    };
    let [cut, plain] = [AT_ONCE, Offload::default()].map(sent);
    assert_eq!(cut, plain);
    assert!(plain.len() >= 3, "{plain:?}");
}

#[test]
fn a_train_is_no_longer_than_the_wire_allows_and_a_loss_is_one_segment() {
    let mut b = bench(CongestionControl::Cubic, false, Offload { train_bytes: 3_000, plain_bytes: 0 });
    let before = b.frames;
    b.send(10_000);
    assert_eq!(b.frames - before, 4, "three, three, three and one");
    (0..10).for_each(|_| assert!(b.next().is_some()));
    b.wait_ms(10);
    for end in [5001, 6001, 7001] {
        b.peer(&format!("A 1 ack 3001 <sack 4001:{end}>"));
    }
    b.expect("A 3001:4001");
    b.nothing();
}

#[test]
fn what_says_that_the_window_was_reduced_goes_alone() {
    let ecn = |wire| {
        let mut b = Bench::with(|p| p.tcp.ecn = crate::tcp::ecn::EcnPolicy::On);
        b.wire = wire;
        b.connect(flags::NODELAY);
        assert!(b.next().is_some());
        b.wait_ms(10);
        b.peer("SAE 0 ack 1 win 60000 <mss 1000, sackOK>");
        assert!(b.next().is_some());
        b.send(30_000);
        (0..10).for_each(|_| b.next().map(drop).unwrap());
        b.wait_ms(10);
        let before = b.frames;
        b.peer("AE 1 ack 10001");
        let sent: Vec<_> = std::iter::from_fn(|| b.next()).collect();
        (b.frames - before, sent)
    };
    let (frames, sent) = ecn(AT_ONCE);
    assert_eq!(sent, ecn(Offload::default()).1);
    assert!(sent[0].contains('W') && sent[1..].iter().all(|s| !s.contains('W')), "{sent:?}");
    assert_eq!(frames, 2, "{sent:?}");
}

/// Something that happens to a connection.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Send(u64),
    /// Of what was sent and not acknowledged, so many parts of 8 are, with this window and a mark or none.
    Ack(u32, u32, bool),
    /// From the first octet that is not acknowledged so many are missing, and as many behind them are there.
    Gap(u32),
    Wait(u64),
    Data(u32),
    End,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (1u64..60_000).prop_map(Happens::Send),
        6 => (0u32..=8, prop_oneof![Just(60_000u32), 0u32..60_000], proptest::bool::weighted(0.1))
            .prop_map(|(part, window, mark)| Happens::Ack(part, window, mark)),
        2 => (1u32..4_000).prop_map(Happens::Gap),
        4 => (1u64..400).prop_map(Happens::Wait),
        1 => (1u32..2_000).prop_map(Happens::Data),
        1 => Just(Happens::End),
    ]
}

/// What a peer knows of the connection.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    acknowledged: u32,
    seen: u32,
    sent: u32,
    ended: bool,
}

/// Lets it happen; what left the wire.
fn step(b: &mut Bench, peer: &mut Peer, what: Happens) -> Vec<String> {
    let at = peer.sent + 1;
    match what {
        Happens::Send(bytes) if !peer.ended => b.send(bytes),
        Happens::Send(_) => {}
        Happens::Ack(part, window, mark) => {
            peer.acknowledged += (peer.seen - peer.acknowledged) / 8 * part;
            let flags = if mark { "AE" } else { "A" };
            b.peer(&format!("{flags} {at} ack {} win {window}", 1 + peer.acknowledged));
        }
        Happens::Gap(bytes) => {
            let first = 1 + peer.acknowledged;
            if first + 2 * bytes <= peer.seen {
                b.peer(&format!("A {at} ack {first} <sack {}:{}>", first + bytes, first + 2 * bytes));
            }
        }
        Happens::Wait(ms) => b.wait_ms(ms),
        Happens::Data(bytes) => {
            b.peer(&format!("PA {at}:{} ack {}", at + bytes, 1 + peer.acknowledged));
            peer.sent += bytes;
        }
        Happens::End => {
            if !std::mem::replace(&mut peer.ended, true) {
                b.shutdown();
            }
        }
    }
    let first = b.first();
    let mut left = Vec::new();
    while let Some(frame) = b.next_frame() {
        peer.seen = peer.seen.max(crate::testing::text_of(&frame, first).1.saturating_sub(1));
        left.push(frame.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    left
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_wire_that_cuts_sends_the_same_frames(
        script in proptest::collection::vec(happens(), 1..60),
        congestion in prop_oneof![Just(CongestionControl::Cubic), Just(CongestionControl::Bbr), Just(CongestionControl::NewReno)],
        v6: bool,
        train_bytes in prop_oneof![Just(Offload::ALL.train_bytes), 1_000usize..20_000],
    ) {
        let mut plain = bench(congestion, v6, Offload::default());
        let mut cut = bench(congestion, v6, Offload { train_bytes, plain_bytes: 0 });
        let (mut peer, mut same) = (Peer::default(), Peer::default());
        for what in script {
            let expected = step(&mut plain, &mut peer, what);
            let found = step(&mut cut, &mut same, what);
            prop_assert_eq!(found.len(), expected.len(), "{:?}", what);
            for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
                prop_assert_eq!(found, expected, "frame {} after {:?}", n, what);
            }
        }
        prop_assert!(cut.frames <= plain.frames);
        prop_assert_eq!(cut.count("tcp-segments-out"), plain.count("tcp-segments-out"));
    }
}

#[test]
fn a_short_exchange_goes_in_segments() {
    let mut b = bench(CongestionControl::Cubic, false, Offload::ALL);
    let before = b.frames;
    b.send(3_000);
    assert_eq!(b.frames - before, 3);
    for n in 0..66 {
        while b.next().is_some() {}
        b.peer(&format!("A 1 ack {}", 3001 + 1000 * n));
        b.send(1_000);
    }
    while b.next().is_some() {}
    b.peer("A 1 ack 69001");
    let before = b.frames;
    b.send(5_000);
    assert_eq!(b.frames - before, 1, "after 64 KiB trains begin");
}

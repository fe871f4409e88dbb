//! BBR's window and pace on a whole connection.

use toe_abi::flags;

use crate::profile::CongestionControl;
use crate::testing::Bench;

fn with(congestion: CongestionControl) -> Bench {
    let mut b = Bench::with(|p| p.tcp.congestion = congestion);
    b.connect(flags::NODELAY);
    assert!(b.next().is_some());
    b.wait_ms(10);
    b.peer("SA 0 ack 1 win 60000 <mss 1000, sackOK>");
    assert!(b.next().is_some());
    b
}

/// Ten segments go and come back after 10 ms; how many of the next go at once, and how many within 9 ms.
fn second_flight(b: &mut Bench) -> (usize, usize) {
    b.send(40_000);
    assert_eq!(std::iter::from_fn(|| b.next()).count(), 10);
    b.wait_ms(10);
    b.peer("A 1 ack 10001");
    let at_once = std::iter::from_fn(|| b.next()).count();
    b.wait_ms(9);
    (at_once, at_once + std::iter::from_fn(|| b.next()).count())
}

#[test]
fn a_paced_window_goes_out_in_pieces_and_the_others_at_once() {
    let (at_once, later) = second_flight(&mut with(CongestionControl::Cubic));
    assert_eq!((at_once, later), (18, 18));
    let (at_once, later) = second_flight(&mut with(CongestionControl::Bbr));
    // 2.89 times ten segments in 10 ms: a millisecond's worth ahead of its time.
    assert!((3..=5).contains(&at_once), "{at_once}");
    assert!(later >= 18, "{later}");
}

/// Behind the last octet of a segment as the bench describes it.
fn end(segment: &str) -> u32 {
    segment.split(' ').find_map(|word| word.split_once(':')).unwrap().1.parse().unwrap()
}

#[test]
fn a_loss_does_not_halve_the_window_of_bbr() {
    for (congestion, keeps) in [(CongestionControl::Bbr, true), (CongestionControl::Cubic, false)] {
        let mut b = with(congestion);
        let mut una = 1;
        let mut flight = |b: &mut Bench, lost: bool| {
            b.send(20_000);
            // The time of pacing, and then a round trip.
            b.wait_ms(50);
            let sent = std::iter::from_fn(|| b.next()).map(|s| end(&s)).max().unwrap() - una;
            if lost {
                b.peer(&format!("A 1 ack {una} <sack {}:{}>", una + 1000, una + sent));
                b.wait_ms(30);
                while b.next().is_some() {}
            }
            una += sent;
            b.peer(&format!("A 1 ack {una}"));
            while b.next().is_some() {}
        };
        (0..10).for_each(|_| flight(&mut b, false));
        let before = b.info().congestion_window;
        flight(&mut b, true);
        assert_eq!(b.count("tcp-fast-recoveries"), 1);
        let after = b.info().congestion_window;
        // The model moves a little with every sample; CUBIC keeps seven tenths.
        assert_eq!(after * 4 > before * 3, keeps, "{congestion:?}: {before}, then {after}");
    }
}

#[test]
fn a_connection_that_ends_leaves_no_pace_behind() {
    let mut b = with(CongestionControl::Bbr);
    b.send(40_000);
    b.wait_ms(10);
    b.peer("A 1 ack 10001");
    b.abort();
    b.wait_ms(10);
    let sent: Vec<_> = std::iter::from_fn(|| b.next()).collect();
    assert!(sent.last().unwrap().starts_with('R'), "{sent:?}");
}

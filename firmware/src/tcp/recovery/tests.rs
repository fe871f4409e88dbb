//! Recovery by itself: a flight of segments of 1000 octets, acknowledgements as they are, and what each makes of the counts
//! and of the window. Octet 1 is the first; the path's round trip is 100 ms.

use super::*;
use crate::store::gauge::Gauge;
use crate::store::pages::Stream;

const MSS: u32 = 1000;

fn at(n: u64) -> Position {
    Position::initial(Seq(0)) + n
}

struct Path {
    sender: Sender,
    records: Records,
    rtt: RttEstimator,
    counters: Counters,
    r: Recovery,
    now: Instant,
}

impl Path {
    /// With that many segments in flight, all sent at once and 100 ms ago.
    fn new(controller: CongestionControl, window: u32, segments: u64) -> Self {
        let mut records = Records::new(Gauge::new("records", "deny", 64), 64, 1);
        let mut sender = Sender::new(Stream::new(0));
        (sender.iss, sender.una, sender.nxt, sender.end) = (at(0), at(1), at(1), at(1_000_000));
        (sender.mss, sender.window) = (MSS, 1_000_000);
        sender.records.open(&mut records);
        let mut rtt = RttEstimator::new(Duration::from_ms(200), Duration::from_s(60));
        let now = Instant::from_us(1_000_000);
        rtt.measured(now, Duration::from_ms(100));
        let r = Recovery::new(controller, at(0), window);
        let mut path = Self { sender, records, rtt, counters: Counters::new(), r, now };
        path.send(segments);
        path.wait_ms(100);
        path
    }

    fn reno(window: u32, segments: u64) -> Self {
        Self::new(CongestionControl::NewReno, window, segments)
    }

    fn wait_ms(&mut self, ms: u64) {
        self.now = self.now + Duration::from_ms(ms);
    }

    fn around(&mut self) -> (&mut Recovery, Around<'_>) {
        let Self { sender, records, rtt, counters, r, .. } = self;
        (r, Around { sender, records, rtt, counters })
    }

    fn send(&mut self, segments: u64) {
        for _ in 0..segments {
            let (start, end) = (self.sender.nxt, self.sender.nxt + u64::from(MSS));
            let stamp = self.r.stamp(&self.sender, self.now);
            assert!(self.sender.records.push(&mut self.records, start, end, stamp, self.now));
            self.sender.nxt = end;
            self.r.sent(MSS.into(), self.now);
        }
    }

    /// Sends the first lost segment again; its first octet.
    fn again(&mut self) -> Option<u64> {
        let slot = self.sender.records.first_lost()?;
        self.r.retransmitted(&mut self.sender, &mut self.records, slot, self.now, 0);
        Some(self.records.get(slot).start.since(at(0)))
    }

    fn hear(&mut self, ack: u64, sack: Option<&[(u64, u64)]>, dsack: Option<(u64, u64)>, duplicate: bool) {
        let blocks: Option<Vec<_>> = sack.map(|b| b.iter().map(|(l, r)| (at(*l).seq(), at(*r).seq())).collect());
        let dsack = dsack.map(|(l, r)| (at(l), at(r)));
        let ack = Ack { ack: at(ack), sack: blocks.as_deref(), dsack, echoes: false, echo: None, duplicate };
        let now = self.now;
        let (r, mut around) = self.around();
        r.acknowledged(&mut around, &ack, now);
    }

    /// An acknowledgement with these SACK blocks.
    fn sack(&mut self, ack: u64, blocks: &[(u64, u64)]) {
        self.hear(ack, Some(blocks), None, false);
    }

    /// An acknowledgement of a peer without SACK that goes on.
    fn ack(&mut self, ack: u64) {
        self.hear(ack, None, None, false);
    }

    /// One that does not.
    fn duplicate(&mut self) {
        let una = self.sender.una.since(at(0));
        self.hear(una, None, None, true);
    }

    fn time_out(&mut self) {
        let (r, mut around) = self.around();
        r.timed_out(&mut around);
    }

    fn window(&self) -> (u32, u32) {
        (self.r.window.congestion, self.r.window.threshold)
    }

    /// Selectively acknowledged, and deemed lost.
    fn counts(&self) -> (u64, u64) {
        (self.r.sacked(), self.r.lost())
    }
}

// What is delivered, and what is lost.

#[test]
fn a_block_counts_only_within_what_is_in_flight() {
    let mut p = Path::reno(20_000, 6);
    p.sack(1001, &[]);
    for block in [(1, 3001), (2001, 7001), (3001, 3001), (4001, 2001), (2002, 3001), (2001, 3000)] {
        p.sack(1001, &[block]);
        assert_eq!(p.counts(), (0, 0), "{block:?}");
    }
    p.sack(1001, &[(2001, 3001)]);
    assert_eq!(p.counts(), (1000, 0));
    p.sack(1001, &[(1001, 2001), (2001, 3001), (5001, 6001)]);
    assert_eq!(p.r.sacked(), 3000, "each counts once");
}

#[test]
fn what_arrives_after_all_is_neither_lost_nor_counted_twice() {
    let mut p = Path::reno(20_000, 8);
    p.sack(1, &[(2001, 5001)]);
    assert_eq!((p.counts(), p.r.phase), ((3000, 2000), Phase::Fast));
    assert_eq!(p.r.in_network(&p.sender), 3000);
    p.sack(1, &[(1001, 5001)]);
    assert_eq!(p.counts(), (4000, 1000));
    p.sack(3001, &[(3001, 5001)]);
    assert_eq!(p.counts(), (2000, 0));
    p.sack(5001, &[]);
    assert_eq!((p.counts(), p.r.in_network(&p.sender)), ((0, 0), 3000));
}

#[test]
fn part_of_a_lost_segment_may_be_acknowledged() {
    let mut p = Path::reno(20_000, 8);
    p.sack(1, &[(2001, 5001)]);
    p.sack(401, &[(2001, 5001)]);
    assert_eq!(p.counts(), (3000, 1600));
    assert_eq!(p.again(), Some(401));
    assert_eq!(p.counts(), (3000, 1000));
}

// Without SACK (RFC 5681, 3.2; RFC 6582).

#[test]
fn a_duplicate_stands_for_a_segment_and_one_at_least_is_missing() {
    let mut p = Path::reno(20_000, 3);
    let mut seen = Vec::new();
    for _ in 0..4 {
        p.duplicate();
        seen.push(p.counts());
    }
    assert_eq!(seen, [(1000, 0), (2000, 0), (2000, 1000), (2000, 1000)]);
    assert_eq!((p.r.in_network(&p.sender), p.again()), (0, Some(1)));
    assert_eq!(p.r.in_network(&p.sender), 1000);
}

#[test]
fn duplicates_of_what_was_sent_before_a_timeout_resend_nothing() {
    // RFC 6582, 3.2, step 2: "if the Cumulative ACK field covers more than recover".
    let mut p = Path::reno(20_000, 3);
    p.time_out();
    while p.again().is_some() {}
    p.ack(3001);
    assert_eq!((p.r.phase, p.counts()), (Phase::Open, (0, 0)));
    p.send(6);
    (0..3).for_each(|_| p.duplicate());
    assert_eq!((p.r.phase, p.r.lost()), (Phase::Open, 0));
    p.ack(4001);
    (0..2).for_each(|_| p.duplicate());
    assert_eq!(p.r.phase, Phase::Open);
    p.duplicate();
    assert_eq!((p.r.phase, p.r.lost()), (Phase::Fast, 1000));
}

#[test]
fn a_full_acknowledgement_ends_recovery_at_the_threshold_and_a_partial_one_resends() {
    let mut p = Path::reno(20_000, 6);
    (0..3).for_each(|_| p.duplicate());
    assert_eq!((p.r.phase, p.r.lost(), p.again()), (Phase::Fast, 1000, Some(1)));
    // Part of what was sent again: it is on its way.
    p.ack(501);
    assert_eq!(p.r.lost(), 0);
    // The next hole, and part of it: once.
    p.ack(1001);
    assert_eq!(p.r.lost(), 1000);
    p.ack(1501);
    assert_eq!((p.r.lost(), p.again()), (500, Some(1501)));
    p.send(3);
    p.ack(6001);
    assert_eq!((p.r.phase, p.r.lost(), p.window()), (Phase::Open, 0, (10_000, 10_000)));
}

// A tail that was probed (RFC 8985, 7.4.2).

fn probed(retransmission: bool) -> Path {
    let mut p = Path::reno(20_000, 4);
    p.r.probe_sent(at(3001), retransmission);
    p
}

#[test]
fn a_probe_with_new_data_is_over_when_it_is_acknowledged() {
    let mut p = probed(false);
    p.sack(2001, &[]);
    assert!(p.r.probe.is_some());
    p.sack(3001, &[]);
    assert!(p.r.probe.is_none());
    assert_eq!(p.window().1, u32::MAX);
}

#[test]
fn a_probe_that_repeated_something_was_needless_if_it_is_acknowledged_twice() {
    let mut p = probed(true);
    p.sack(2001, &[]);
    p.sack(3001, &[]);
    assert!(p.r.probe.is_some(), "it may have been the original or the probe");
    p.hear(3001, Some(&[(3001, 4001)]), None, true);
    assert!(p.r.probe.is_some());
    p.hear(3001, Some(&[]), None, true);
    assert!(p.r.probe.is_none());

    let mut p2 = probed(true);
    p2.hear(3001, Some(&[]), Some((2001, 3001)), false);
    assert!(p2.r.probe.is_none());
    assert_eq!((p.window().1, p2.window().1), (u32::MAX, u32::MAX));
}

#[test]
fn a_probe_that_repaired_a_loss_halves_the_window() {
    let mut p = probed(true);
    p.sack(4001, &[]);
    assert_eq!((p.r.probe.is_none(), p.window()), (true, (10_000, 10_000)));
    // But not once more in a recovery.
    let mut p = probed(true);
    p.time_out();
    p.r.probe_sent(at(3001), true);
    p.sack(4001, &[]);
    assert_eq!(p.window().1, 10_000);
    // And not that of a controller that sees to it itself.
    let mut p = Path::new(CongestionControl::Bbr, 20_000, 4);
    p.r.probe_sent(at(3001), true);
    p.sack(4001, &[]);
    assert_eq!(p.window(), (20_000, u32::MAX));
}

#[test]
fn in_recovery_whatever_is_delivered_ends_a_probe() {
    let mut p = Path::reno(20_000, 8);
    p.sack(1, &[(2001, 5001)]);
    p.r.probe_sent(at(8001), true);
    p.sack(1, &[(2001, 5001)]);
    assert!(p.r.probe.is_some());
    p.sack(1, &[(2001, 6001)]);
    assert!(p.r.probe.is_none());
}

#[test]
fn silence_counts_in_recovery_from_when_the_peer_was_last_heard() {
    let mut p = Path::reno(20_000, 4);
    let ms = |ms: u64| Instant::from_us(ms * 1000);
    assert_eq!(p.r.probe_from(ms(900), ms(2000)), ms(1000), "from the last transmission");
    assert_eq!(p.r.probe_from(ms(1300), ms(2000)), ms(1300), "or from the timer");
    p.r.phase = Phase::Fast;
    assert_eq!(p.r.probe_from(ms(1300), ms(2000)), ms(2000));
    assert_eq!(p.r.probe_from(ms(1300), ms(800)), ms(1300));
}

#[test]
fn a_tail_is_probed_after_two_round_trips_and_what_a_peer_may_wait() {
    let timeout = |p: &Path| p.r.probe_timeout(&p.sender, &p.rtt).map(|d| d.as_ms());
    assert_eq!((timeout(&Path::reno(20_000, 1)), timeout(&Path::reno(20_000, 2))), (Some(400), Some(202)));
    assert_eq!(timeout(&Path::reno(20_000, 0)), None);
    let mut p = Path::reno(20_000, 2);
    p.r.probe_sent(at(2001), true);
    assert_eq!(timeout(&p), None, "one at a time");
    p.r.probe = None;
    p.time_out();
    assert_eq!(timeout(&p), None);
}

// Proportional rate reduction (RFC 6937, 3.1).

/// Twenty segments, of which the second to the fourth have arrived and the first has not.
fn reduced(controller: CongestionControl) -> Path {
    let mut p = Path::new(controller, 20_000, 20);
    p.sack(1, &[(1001, 2001)]);
    p.sack(1, &[(1001, 3001)]);
    p.sack(1, &[(1001, 4001)]);
    assert_eq!((p.r.phase, p.counts()), (Phase::Fast, (3000, 1000)));
    p
}

#[test]
fn above_the_threshold_what_goes_is_in_proportion_to_what_arrives() {
    let mut p = reduced(CongestionControl::NewReno);
    // "sndcnt = CEIL(prr_delivered * ssthresh / RecoverFS) - prr_out", and never less than the first retransmission.
    assert_eq!((p.window(), p.r.in_network(&p.sender)), ((17_000, 10_000), 16_000));
    assert_eq!(p.again(), Some(1));
    p.sack(1, &[(1001, 5001)]);
    assert_eq!(p.window(), (16_000, 10_000), "half of 2000, which are out already");
    p.sack(1, &[(1001, 7001)]);
    assert_eq!(p.window(), (15_000, 10_000), "half of 4000 less 1000, beside 14,000");
    // At the threshold the proportion is no more asked; below it, the window is the threshold.
    p.sack(1, &[(1001, 11_001)]);
    assert_eq!((p.window(), p.r.in_network(&p.sender)), ((10_000, 10_000), 10_000));
    p.sack(1, &[(1001, 12_001)]);
    assert_eq!((p.window(), p.r.in_network(&p.sender)), ((10_000, 10_000), 9_000));
}

#[test]
fn below_the_threshold_what_goes_is_what_arrives_and_one_more_where_that_is_safe() {
    let mut p = Path::reno(20_000, 20);
    for end in [18_001, 19_001, 20_001] {
        p.sack(1, &[(17_001, end)]);
    }
    assert_eq!((p.counts(), p.window()), ((3000, 17_000), (1000, 10_000)));
    assert_eq!(p.again(), Some(1));
    // A duplicate: conservation.
    p.sack(1, &[(16_001, 20_001)]);
    assert_eq!((p.window().0, p.r.in_network(&p.sender)), (2000, 1000));
    assert_eq!(p.again(), Some(1001));
    // The acknowledgement goes on and nothing more is lost: slow start.
    p.wait_ms(100);
    p.sack(1001, &[(16_001, 20_001)]);
    assert_eq!((p.window().0, p.r.in_network(&p.sender)), (3000, 1000));
}

#[test]
fn while_more_is_found_lost_what_goes_is_what_arrives() {
    let mut p = reduced(CongestionControl::NewReno);
    assert_eq!(p.again(), Some(1));
    p.wait_ms(100);
    // What was sent again has arrived before all that was sent before it.
    p.sack(4001, &[]);
    assert_eq!((p.counts(), p.window()), ((0, 16_000), (1000, 10_000)));
}

#[test]
fn the_end_of_the_reordering_window_reduces_the_window_like_an_acknowledgement() {
    for (controller, window) in [(CongestionControl::NewReno, 1000), (CongestionControl::Bbr, 10_000)] {
        let mut p = Path::new(controller, 10_000, 10);
        p.sack(1, &[(9001, 10_001)]);
        // A quarter of the round trip later.
        assert_eq!((p.counts(), p.r.reorder_at), ((1000, 0), Some(p.now + Duration::from_ms(25))));
        p.wait_ms(25);
        let now = p.now;
        let (r, mut around) = p.around();
        r.reorder_timeout(&mut around, now);
        assert_eq!((p.r.phase, p.counts(), p.window().0), (Phase::Fast, (1000, 9000), window));
    }
}

#[test]
fn a_controller_that_rules_is_told_what_each_acknowledgement_shows_lost() {
    let mut p = reduced(CongestionControl::Bbr);
    assert_eq!(p.window().0, 17_000);
    p.sack(1, &[(1001, 4001), (6001, 7001)]);
    assert_eq!((p.counts(), p.window().0), ((4000, 3000), 15_000), "less the 2000 that are new");
    // The window that it names stands at the end of recovery, too.
    p.sack(20_001, &[]);
    assert_eq!((p.r.phase, p.window().0 > 20_000), (Phase::Open, true));
}

// The window while nothing is lost.

#[test]
fn a_window_that_is_not_used_does_not_grow() {
    // In slow start it is used if half of it was in flight, as it will be full in the next round.
    for (segments, window) in [(5, 10_000), (6, 11_000)] {
        let mut p = Path::reno(10_000, segments);
        p.sack(1001, &[]);
        assert_eq!(p.window().0, window);
    }
    // In congestion avoidance, if no further segment would have gone.
    for (segments, window) in [(2, 3000), (3, 4000)] {
        let mut p = Path::reno(3000, segments);
        p.r.window.threshold = 3000;
        p.sack(segments * 1000 + 1, &[]);
        assert_eq!(p.window().0, window);
    }
    // Each round trip by itself: what was in flight once says nothing of later.
    let mut p = Path::reno(10_000, 6);
    p.sack(6001, &[]);
    assert_eq!(p.window().0, 16_000);
    for round in 1..4 {
        p.send(2);
        p.wait_ms(100);
        p.sack(6001 + round * 2000, &[]);
    }
    assert_eq!(p.window().0, 16_000);
}

#[test]
fn a_duplicate_does_not_move_the_window() {
    // RFC 5681, 3.2, step 1.
    let mut p = Path::reno(10_000, 10);
    p.sack(1, &[(1001, 2001)]);
    assert_eq!(p.window().0, 10_000);
    // What was selectively acknowledged has its say when the hole is filled, and once.
    p.sack(2001, &[]);
    assert_eq!(p.window().0, 11_000);
}

// Timeouts.

#[test]
fn a_timeout_halves_the_threshold_once_and_leaves_one_segment() {
    let mut p = Path::reno(10_000, 10);
    p.sack(1, &[(1001, 2001)]);
    p.time_out();
    assert_eq!((p.r.phase, p.counts(), p.window()), (Phase::Loss, (1000, 9000), (1000, 5000)));
    assert_eq!((p.r.frto, p.r.undo.unwrap().window.congestion), (Frto::Retransmitted, 10_000));
    p.time_out();
    assert_eq!((p.window(), p.r.undo.unwrap().window.congestion), ((1000, 5000), 10_000));
    assert_eq!((p.r.frto, p.counts()), (Frto::Off, (1000, 9000)));
    // In slow start from there to the threshold; at the end of it the window is what it has become.
    while p.again().is_some() {}
    p.sack(10_001, &[]);
    assert_eq!((p.r.phase, p.window()), (Phase::Open, (3000, 5000)));
    // The next one is another, with a window of its own to come back to.
    p.send(3);
    p.time_out();
    assert_eq!((p.window(), p.r.undo.unwrap().window.congestion), ((1000, 2000), 3000));
}

#[test]
fn a_timeout_in_recovery_comes_back_to_the_window_before_that() {
    let mut p = reduced(CongestionControl::NewReno);
    p.time_out();
    assert_eq!((p.window(), p.r.undo.unwrap().window.congestion), ((1000, 8500), 20_000));
}

#[test]
fn a_peer_that_reports_the_first_octet_and_waits_for_it_has_forgotten() {
    // RFC 2018, section 8.
    let mut p = Path::reno(10_000, 5);
    p.sack(1, &[(1, 2001), (3001, 4001)]);
    p.time_out();
    assert_eq!(p.counts(), (0, 5000));
}

#[test]
fn a_selective_acknowledgement_of_what_was_sent_once_shows_a_timeout_as_spurious() {
    // RFC 5682, 3.1, step 3b, and appendix A.
    let mut p = Path::reno(10_000, 5);
    p.time_out();
    assert_eq!(p.again(), Some(1));
    p.sack(1001, &[]);
    assert!(p.r.holds_retransmissions());
    p.sack(1001, &[(2001, 3001)]);
    assert_eq!((p.r.phase, p.counts()), (Phase::Open, (1000, 0)));
    assert_eq!(p.window(), (10_000, u32::MAX));
}

#[test]
fn after_silence_the_window_begins_again_and_three_quarters_are_remembered() {
    // RFC 5681, 4.1; RFC 2861, 2.
    let mut p = Path::reno(40_000, 0);
    p.r.window.threshold = 5000;
    assert!(p.r.restart_after_idle(10_000));
    assert_eq!(p.window(), (10_000, 30_000));
    assert!(!p.r.restart_after_idle(10_000));
    p.r.window = Window { congestion: 12_000, threshold: 20_000 };
    assert!(p.r.restart_after_idle(10_000));
    assert_eq!(p.window(), (10_000, 20_000));
    let mut p = Path::new(CongestionControl::Bbr, 40_000, 0);
    assert!(!p.r.restart_after_idle(10_000));
    // Silent is who has sent nothing for more than a timeout, and waits for nothing.
    let p = Path::reno(40_000, 0);
    let idle = |p: &Path, ms: u64| p.r.has_been_idle(&p.sender, &p.rtt, Instant::from_us(ms * 1000));
    assert_eq!(p.rtt.rto().as_ms(), 300);
    assert!(!idle(&p, 300) && idle(&p, 301) && !idle(&Path::reno(40_000, 1), 9000));
}

#[test]
fn another_controller_takes_over_at_once() {
    let mut p = Path::new(CongestionControl::Cubic, 20_000, 20);
    p.r.set_controller(CongestionControl::NewReno);
    p.time_out();
    assert_eq!(p.window().1, 10_000, "half, and not seven tenths");
}

// The reordering window (RFC 8985, 6.2).

/// A flight of which one segment beyond the first has arrived: when the first is deemed lost, in milliseconds from then.
fn reordering_window(change: impl FnOnce(&mut Path)) -> Option<u64> {
    let mut p = Path::reno(20_000, 8);
    change(&mut p);
    p.sack(1, &[(1001, 2001)]);
    p.r.reorder_at.map(|at| at.since(p.now).as_ms())
}

#[test]
fn the_reordering_window_is_a_quarter_of_the_lowest_round_trip_for_each_duplicate_and_one_more() {
    assert_eq!(reordering_window(|_| ()), Some(25));
    let widened = |times: u64| {
        reordering_window(|p| {
            for n in 0..times {
                p.r.widened.duplicates(&p.sender);
                // Once in a round trip.
                p.r.widened.duplicates(&p.sender);
                (p.sender.una, p.sender.nxt) = (p.sender.nxt, p.sender.nxt + (n + 1));
            }
            (p.sender.una, p.sender.nxt) = (at(1), at(8001));
        })
    };
    assert_eq!((widened(1), widened(2), widened(3)), (Some(50), Some(75), Some(100)));
    assert_eq!(widened(9), Some(100), "at most the smoothed round trip");
}

#[test]
fn a_wider_window_lasts_for_sixteen_recoveries() {
    let after = |recoveries: u32| {
        reordering_window(|p| {
            p.r.widened.duplicates(&p.sender);
            (0..recoveries).for_each(|_| p.r.widened.recovered());
        })
    };
    assert_eq!((after(15), after(16), after(17)), (Some(50), Some(25), Some(25)));
}

#[test]
fn there_is_no_reordering_window_in_recovery_nor_behind_three_segments_unless_reordering_was_seen() {
    let lost = |reordering: bool, fast: bool, end: u64| {
        let mut p = Path::reno(20_000, 8);
        p.sack(1, &[(1001, 2001)]);
        p.r.rack.as_mut().unwrap().reordering = reordering;
        if fast {
            (p.r.phase, p.r.until) = (Phase::Fast, at(8001));
        }
        p.sack(1, &[(1001, end)]);
        p.r.lost()
    };
    assert_eq!((lost(false, false, 3001), lost(false, false, 4001)), (0, 1000));
    assert_eq!((lost(false, true, 3001), lost(true, true, 3001), lost(true, false, 4001)), (1000, 0, 0));
}

#[test]
fn an_original_that_arrives_below_what_was_delivered_is_reordering() {
    let mut p = Path::reno(20_000, 4);
    p.sack(1, &[(2001, 3001)]);
    assert!(!p.r.rack.unwrap().reordering);
    p.sack(1, &[(2001, 4001)]);
    assert!(!p.r.rack.unwrap().reordering);
    p.sack(1, &[(1001, 4001)]);
    assert!(p.r.rack.unwrap().reordering);
    // What was sent again says nothing of order.
    let mut p = Path::reno(20_000, 8);
    p.sack(1, &[(2001, 5001)]);
    assert_eq!(p.again(), Some(1));
    p.wait_ms(100);
    p.sack(1001, &[(2001, 5001)]);
    assert!(!p.r.rack.unwrap().reordering);
}

#[test]
fn an_acknowledgement_sooner_than_any_round_trip_is_not_of_what_was_sent_again() {
    let mut p = Path::reno(20_000, 8);
    p.sack(1, &[(2001, 5001)]);
    let before = p.r.rack.unwrap().sent_at;
    assert_eq!((p.again(), p.again()), (Some(1), Some(1001)));
    p.wait_ms(99);
    p.sack(1001, &[(2001, 5001)]);
    assert_eq!(p.r.rack.unwrap().sent_at, before);
    p.wait_ms(1);
    p.sack(5001, &[]);
    let rack = p.r.rack.unwrap();
    assert_eq!((rack.sent_at.since(before).as_ms(), rack.rtt.as_ms(), rack.end), (100, 100, at(2001)));
}

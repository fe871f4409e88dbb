//! Slow start, and when to leave it: HyStart++ (RFC 9406).
//!
//! The first slow start of a connection has no threshold, and would end with as many losses as there is room in the
//! path's queue. HyStart++ looks at the lowest round trip of each round: when it grows, a queue is filling. Then the
//! window grows at a quarter of the pace (conservative slow start); if the round trip goes back within five rounds, it was
//! jitter, and slow start goes on; else it ends.
//!
//! Later slow starts (after a timeout) have a threshold and need no such look. Nor does NewReno look: after an early end it
//! would gain a segment per round trip, and over a long path it would be minutes behind (`docs/throughput.md` was
//! measured both ways).

use crate::seq::Position;
use crate::tcp::congestion::{Acked, Window};
use crate::time::Duration;

/// RFC 9406, 4.3: the least and the most by which a round trip must grow, and the part of it.
const THRESHOLD_MIN: Duration = Duration::from_ms(4);
const THRESHOLD_MAX: Duration = Duration::from_ms(16);
const DIVISOR: u64 = 8;
/// Samples that make a round's lowest round trip worth something.
const SAMPLES: u32 = 8;
/// How much slower conservative slow start is, and how many rounds it takes.
const CONSERVATIVE_DIVISOR: u32 = 4;
const CONSERVATIVE_ROUNDS: u32 = 5;
/// L: segments that one acknowledgement may add, without pacing.
const SEGMENTS_MAX: u32 = 8;
/// RFC 3465, 2.1: the same where a threshold is known.
const SEGMENTS_MAX_LATER: u32 = 2;

/// The slow start of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlowStart {
    /// Whether round trips are looked at.
    looks: bool,
    /// Where the present round ends; `None` before the first acknowledgement.
    round_end: Option<Position>,
    /// The lowest round trip of the round before.
    last: Option<Duration>,
    /// The lowest of this round.
    current: Option<Duration>,
    samples: u32,
    conservative: Option<Conservative>,
}

#[derive(Clone, Copy, Debug)]
struct Conservative {
    /// The round trip with which it began.
    baseline: Duration,
    /// Rounds that are left.
    rounds: u32,
}

impl SlowStart {
    /// One that looks at round trips.
    pub fn looking() -> Self {
        Self { looks: true, ..Self::default() }
    }

    /// RFC 5681, 3.1, by what was acknowledged (RFC 3465).
    pub fn acked(&mut self, window: &mut Window, ack: &Acked) {
        if window.threshold != u32::MAX {
            let grown = window.congestion.saturating_add(ack.bytes.min(SEGMENTS_MAX_LATER * ack.mss));
            window.congestion = grown.min(window.threshold.max(ack.mss));
            return;
        }
        if self.looks {
            self.round(window, ack);
        }
        let bytes = ack.bytes.min(SEGMENTS_MAX * ack.mss);
        let divisor = if self.conservative.is_some() { CONSERVATIVE_DIVISOR } else { 1 };
        window.congestion = window.congestion.saturating_add(bytes / divisor);
        if self.looks && window.threshold == u32::MAX {
            self.look(ack);
        }
    }

    /// 4.2: "Each round, one can observe the minimum RTT"; a round ends when what was in flight at its beginning is
    /// acknowledged.
    fn round(&mut self, window: &mut Window, ack: &Acked) {
        if self.round_end.is_some_and(|end| ack.una <= end) {
            return;
        }
        self.round_end = Some(ack.nxt);
        (self.last, self.current, self.samples) = (self.current, None, 0);
        if let Some(conservative) = &mut self.conservative {
            conservative.rounds -= 1;
            if conservative.rounds == 0 {
                self.conservative = None;
                window.threshold = window.congestion;
            }
        }
    }

    fn look(&mut self, ack: &Acked) {
        let Some(sample) = ack.sample else { return };
        let current = self.current.map_or(sample, |current| current.min(sample));
        self.current = Some(current);
        self.samples += 1;
        if self.samples < SAMPLES {
            return;
        }
        match (self.conservative, self.last) {
            (Some(conservative), _) if current < conservative.baseline => self.conservative = None,
            (None, Some(last)) => {
                let part = Duration::from_us(last.as_us() / DIVISOR);
                if current >= last + part.max(THRESHOLD_MIN).min(THRESHOLD_MAX) {
                    self.conservative = Some(Conservative { baseline: current, rounds: CONSERVATIVE_ROUNDS });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::Seq;
    use crate::time::Instant;

    const MSS: u32 = 1000;

    /// One round of a path with that round trip in milliseconds: every segment acknowledged by itself.
    fn round(s: &mut SlowStart, w: &mut Window, una: &mut Position, rtt_ms: u64) {
        for _ in 0..w.congestion / MSS {
            if !w.in_slow_start() {
                return;
            }
            // What an acknowledgement lets out is sent at once.
            let nxt = *una + u64::from(w.congestion);
            *una = *una + u64::from(MSS);
            let rtt = Duration::from_ms(rtt_ms);
            let ack = Acked { now: Instant::default(), bytes: MSS, mss: MSS, rtt, sample: Some(rtt), una: *una, nxt };
            s.acked(w, &ack);
        }
    }

    fn start() -> (SlowStart, Window, Position) {
        let window = Window { congestion: 10 * MSS, threshold: u32::MAX };
        (SlowStart::looking(), window, Position::initial(Seq(0)))
    }

    #[test]
    fn a_steady_round_trip_doubles_the_window_every_round() {
        let (mut s, mut w, mut una) = start();
        for n in 1..8 {
            round(&mut s, &mut w, &mut una, 20);
            assert_eq!(w.congestion, (10 << n) * MSS);
        }
    }

    #[test]
    fn a_growing_round_trip_slows_it_down_and_ends_it_after_five_rounds() {
        let (mut s, mut w, mut una) = start();
        round(&mut s, &mut w, &mut una, 20);
        round(&mut s, &mut w, &mut una, 20);
        let before = w.congestion;
        round(&mut s, &mut w, &mut una, 25);
        assert!(w.congestion < 2 * before, "from the eighth sample on by a quarter: {}", w.congestion);
        let mut rounds = 1;
        while w.in_slow_start() {
            let before = w.congestion;
            round(&mut s, &mut w, &mut una, 25);
            assert!(w.congestion <= before * 5 / 4 + MSS);
            rounds += 1;
            assert!(rounds < 10);
        }
        assert_eq!(rounds, 6, "the one in which it was seen ends with it, and five more begin");
    }

    #[test]
    fn jitter_does_not_end_it() {
        let (mut s, mut w, mut una) = start();
        round(&mut s, &mut w, &mut una, 20);
        round(&mut s, &mut w, &mut una, 25);
        for _ in 0..6 {
            round(&mut s, &mut w, &mut una, 20);
        }
        assert!(w.in_slow_start() && w.congestion > 600 * MSS, "{}", w.congestion);
    }

    #[test]
    fn less_than_four_milliseconds_are_nothing() {
        let (mut s, mut w, mut una) = start();
        round(&mut s, &mut w, &mut una, 1);
        for n in 1..6 {
            round(&mut s, &mut w, &mut una, 1 + 3 * (n % 2));
        }
        assert_eq!(w.congestion, (10 << 6) * MSS);
    }

    #[test]
    fn a_known_threshold_is_not_passed() {
        let (mut s, _, mut una) = start();
        let mut w = Window { congestion: MSS, threshold: 5 * MSS };
        (0..4).for_each(|_| round(&mut s, &mut w, &mut una, 20));
        assert_eq!(w.congestion, 5 * MSS);
    }

    fn acked(s: &mut SlowStart, w: &mut Window, bytes: u32, sample_us: u64) {
        let (rtt, una) = (Duration::from_us(sample_us), Position::initial(Seq(5)));
        let ack = Acked { now: Instant::default(), bytes, mss: MSS, rtt, sample: Some(rtt), una, nxt: una + 9 };
        s.acked(w, &ack);
    }

    #[test]
    fn one_acknowledgement_adds_eight_segments_at_most_and_two_where_a_threshold_is_known() {
        // RFC 9406, 4.3 (L), and RFC 3465, 2.1.
        for (threshold, bytes, window) in [
            (u32::MAX, 7999, 17_999),
            (u32::MAX, 9000, 18_000),
            (50_000, 1999, 11_999),
            (50_000, 9000, 12_000),
            (11_500, 9000, 11_500),
        ] {
            let mut w = Window { congestion: 10_000, threshold };
            acked(&mut SlowStart::default(), &mut w, bytes, 1000);
            assert_eq!(w.congestion, window);
        }
        let mut w = Window { congestion: 100, threshold: 500 };
        acked(&mut SlowStart::default(), &mut w, 5000, 1000);
        assert_eq!(w.congestion, MSS, "a threshold below a segment");
    }

    /// In the middle of a round, with so many samples.
    fn looking(last_us: u64, samples: u32) -> SlowStart {
        let round_end = Some(Position::initial(Seq(100)));
        SlowStart { round_end, last: Some(Duration::from_us(last_us)), samples, ..SlowStart::looking() }
    }

    #[test]
    fn a_round_trip_has_grown_by_an_eighth_and_by_four_to_sixteen_milliseconds() {
        // 4.3: RttThresh = clamp(MIN_RTT_THRESH, lastRoundMinRTT / 8, MAX_RTT_THRESH).
        for (last, grown) in [(20_000, 24_000), (40_000, 45_000), (80_000, 90_000), (200_000, 216_000)] {
            for (sample, samples, slows) in [(grown, 7, true), (grown - 1, 7, false), (grown, 6, false)] {
                let (mut s, mut w) = (looking(last, samples), Window { congestion: 10_000, threshold: u32::MAX });
                acked(&mut s, &mut w, 1000, sample);
                let began = s.conservative.map(|c| (c.baseline.as_us(), c.rounds));
                assert_eq!(began, slows.then_some((grown, 5)), "{last} {sample} {samples}");
                assert_eq!(w.congestion, 11_000);
                acked(&mut s, &mut w, 1000, sample);
                assert_eq!(w.congestion, if slows { 11_250 } else { 12_000 }, "a quarter from then on");
            }
        }
    }

    #[test]
    fn the_lowest_of_a_round_counts_and_a_lower_one_takes_the_slowness_back() {
        let (mut s, mut w) = (looking(40_000, 6), Window { congestion: 10_000, threshold: u32::MAX });
        acked(&mut s, &mut w, 1000, 44_000);
        acked(&mut s, &mut w, 1000, 90_000);
        assert!(s.conservative.is_none());
        s.conservative = Some(Conservative { baseline: Duration::from_us(44_000), rounds: 3 });
        acked(&mut s, &mut w, 1000, 44_000);
        assert!(s.conservative.is_some());
        acked(&mut s, &mut w, 1000, 43_999);
        assert!(s.conservative.is_none());
    }

    #[test]
    fn a_round_ends_beyond_what_was_in_flight_at_its_beginning() {
        let at = |n: u32| Position::initial(Seq(n));
        let (mut s, mut w) = (looking(40_000, 9), Window { congestion: 10_000, threshold: u32::MAX });
        s.current = Some(Duration::from_us(41_000));
        s.conservative = Some(Conservative { baseline: Duration::from_us(1), rounds: 2 });
        let mut heard = |s: &mut SlowStart, una: u32| {
            let rtt = Duration::from_ms(50);
            let ack = Acked {
                now: Instant::default(),
                bytes: 0,
                mss: MSS,
                rtt,
                sample: None,
                una: at(una),
                nxt: at(una + 50),
            };
            s.acked(&mut w, &ack);
            (s.last.map(Duration::as_us), s.samples, s.conservative.map(|c| c.rounds), w.threshold)
        };
        assert_eq!(heard(&mut s, 100), (Some(40_000), 9, Some(2), u32::MAX));
        assert_eq!(heard(&mut s, 101), (Some(41_000), 0, Some(1), u32::MAX));
        assert_eq!(s.round_end, Some(at(151)));
        assert_eq!(heard(&mut s, 152), (None, 0, None, 10_000));
    }
}

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
}

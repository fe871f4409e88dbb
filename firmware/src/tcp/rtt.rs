//! Round-trip times and the retransmission timeout (RFC 6298), in whole microseconds.

use crate::time::{Duration, Instant};

/// RFC 6298, rule 2.1: the timeout before anything was measured.
const RTO_INITIAL: Duration = Duration::from_s(1);

/// How long a lowest round trip counts before newer ones replace it.
const MIN_WINDOW: Duration = Duration::from_s(30);

/// The estimator of one connection.
#[derive(Clone, Copy, Debug)]
pub struct RttEstimator {
    /// Smoothed round trip; `None` before the first measurement.
    smoothed: Option<Duration>,
    variation: Duration,
    min: Duration,
    min_at: Instant,
    rto_floor: Duration,
    rto_max: Duration,
    /// The timeout before anything was measured.
    rto_initial: Duration,
    /// Timeouts since the last measurement: how often the timeout is doubled (rule 5.5).
    doubled: u32,
    /// Timeouts in a row without progress.
    backoff: u32,
}

impl RttEstimator {
    /// Nothing measured yet. `rto_floor` is the least that is added to the smoothed round trip.
    pub fn new(rto_floor: Duration, rto_max: Duration) -> Self {
        Self {
            smoothed: None,
            variation: Duration::ZERO,
            min: Duration::from_us(u64::MAX),
            min_at: Instant::default(),
            rto_floor,
            rto_max,
            rto_initial: RTO_INITIAL,
            doubled: 0,
            backoff: 0,
        }
    }

    /// Takes a measurement of a segment that was sent once (Karn's algorithm is the caller's).
    ///
    /// Only a measurement takes the doubling back (RFC 6298, section 5): what was repeated and then acknowledged says nothing of
    /// how long a round trip takes, and on a path longer than the timeout everything would be repeated again.
    pub fn measured(&mut self, now: Instant, rtt: Duration) {
        self.doubled = 0;
        if rtt <= self.min || now.since(self.min_at) > MIN_WINDOW {
            (self.min, self.min_at) = (rtt, now);
        }
        let r = rtt.as_us();
        match self.smoothed {
            // Rule 2.2.
            None => {
                self.smoothed = Some(rtt);
                self.variation = Duration::from_us(r / 2);
            }
            // Rule 2.3: RTTVAR <- 3/4 RTTVAR + 1/4 |SRTT - R'|, then SRTT <- 7/8 SRTT + 1/8 R'.
            Some(smoothed) => {
                let s = smoothed.as_us();
                self.variation = Duration::from_us((3 * self.variation.as_us() + s.abs_diff(r)) / 4);
                self.smoothed = Some(Duration::from_us((7 * s + r) / 8));
            }
        }
    }

    /// The timeout, backed off.
    ///
    /// The variation counts for no less than the floor: a peer that delays its acknowledgements must not look lost.
    /// So the timeout is above the floor in all cases, which is where rule 2.4 puts its minimum.
    pub fn rto(&self) -> Duration {
        let base = match self.smoothed {
            None => self.rto_initial,
            Some(s) => s + Duration::from_us(4 * self.variation.as_us()).max(self.rto_floor),
        };
        base.backed_off(self.doubled, self.rto_max)
    }

    /// A timeout happened: the next is twice as long (rule 5.5).
    //= docs/specs/rfc6298.txt#section-5
    //# (5.5) The host MUST set RTO <- RTO * 2 ("back off the timer").
    //= docs/specs/rfc9293.txt#section-3.8.2
    //# A TCP endpoint MUST implement the basic congestion control algorithms slow start, congestion avoidance, and
    //# exponential backoff of RTO to avoid creating congestion collapse conditions (MUST-19).
    pub fn back_off(&mut self) {
        self.doubled = (self.doubled + 1).min(31);
        self.backoff = (self.backoff + 1).min(31);
    }

    /// New data was acknowledged.
    pub fn progress(&mut self) {
        self.backoff = 0;
    }

    /// Timeouts in a row.
    pub fn backoff(&self) -> u32 {
        self.backoff
    }

    /// How often the timeout is doubled.
    pub fn doubled(&self) -> u32 {
        self.doubled
    }

    /// The smoothed round trip, if one was measured.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// A fault sets the smoothed round trip.
    pub fn corrupt_smoothed(&mut self, smoothed: Duration) {
        self.smoothed = self.smoothed.map(|_| smoothed);
    }

    /// A fault sets how often the timeout has been doubled.
    pub fn corrupt_doubled(&mut self, doubled: u32) {
        self.doubled = doubled % 32;
    }

    /// Its variation.
    pub fn variation(&self) -> Duration {
        self.variation
    }

    /// The lowest round trip of late, if one was measured.
    pub fn min(&self) -> Option<Duration> {
        self.smoothed.map(|_| self.min)
    }

    /// Rule 5.7: once a SYN was lost, the timeout for data begins at three seconds.
    pub fn syn_was_lost(&mut self) {
        self.doubled = 0;
        self.backoff = 0;
        self.rto_initial = Duration::from_s(3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimator() -> RttEstimator {
        RttEstimator::new(Duration::from_ms(200), Duration::from_s(60))
    }

    //= docs/specs/rfc9293.txt#section-3.8.2
    //= type=test
    //# A TCP endpoint MUST implement the basic congestion control algorithms slow start, congestion avoidance, and
    //# exponential backoff of RTO to avoid creating congestion collapse conditions (MUST-19).
    //= docs/specs/rfc6298.txt#section-5
    //= type=test
    //# (5.5) The host MUST set RTO <- RTO * 2 ("back off the timer").
    #[test]
    fn before_any_measurement_one_second_doubling_to_the_maximum() {
        let mut e = estimator();
        let mut seen = Vec::new();
        for _ in 0..8 {
            seen.push(e.rto().as_ms());
            e.back_off();
        }
        assert_eq!(seen, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        e.progress();
        assert_eq!((e.backoff(), e.rto().as_ms()), (0, 60_000));
        e.measured(Instant::default(), Duration::from_ms(100));
        assert_eq!(e.rto().as_ms(), 300);
    }

    #[test]
    fn the_rfcs_formulas() {
        let mut e = estimator();
        e.measured(Instant::default(), Duration::from_ms(800));
        assert_eq!((e.smoothed().unwrap().as_ms(), e.variation().as_ms(), e.rto().as_ms()), (800, 400, 2400));
        e.measured(Instant::default(), Duration::from_ms(400));
        assert_eq!((e.smoothed().unwrap().as_ms(), e.variation().as_ms(), e.rto().as_ms()), (750, 400, 2350));
    }

    #[test]
    fn after_a_lost_syn_the_timeout_begins_at_three_seconds_until_something_is_measured() {
        let mut e = estimator();
        e.back_off();
        e.syn_was_lost();
        assert_eq!(e.rto().as_ms(), 3000);
        e.measured(Instant::default(), Duration::from_ms(10));
        assert_eq!(e.rto().as_ms(), 210);
    }

    #[test]
    fn a_steady_path_keeps_the_floor() {
        let mut e = estimator();
        for _ in 0..100 {
            e.measured(Instant::default(), Duration::from_ms(10));
        }
        assert_eq!(e.rto().as_ms(), 210);
        assert_eq!(e.min().unwrap().as_ms(), 10);
    }

    #[test]
    fn a_lowest_round_trip_counts_for_half_a_minute_after_it_was_last_seen() {
        let at = |s: u64| Instant::from_us(s * 1_000_000);
        let mut e = estimator();
        e.measured(at(0), Duration::from_ms(10));
        e.measured(at(20), Duration::from_ms(10));
        e.measured(at(50), Duration::from_ms(50));
        assert_eq!(e.min().unwrap().as_ms(), 10, "seen thirty seconds ago, and no longer");
        e.measured(at(51), Duration::from_ms(60));
        assert_eq!(e.min().unwrap().as_ms(), 60);
        e.measured(at(52), Duration::from_ms(50));
        assert_eq!(e.min().unwrap().as_ms(), 50);
    }

    #[test]
    fn the_lowest_round_trip_is_of_late() {
        let mut e = estimator();
        e.measured(Instant::from_us(0), Duration::from_ms(10));
        e.measured(Instant::from_us(29_000_000), Duration::from_ms(50));
        assert_eq!(e.min().unwrap().as_ms(), 10);
        e.measured(Instant::from_us(31_000_000), Duration::from_ms(50));
        assert_eq!(e.min().unwrap().as_ms(), 50);
    }
}

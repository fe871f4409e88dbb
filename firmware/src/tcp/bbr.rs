//! BBR, version 1 (draft-cardwell-iccrg-bbr-congestion-control-00): the window and the pace follow a model of the path, its
//! highest delivery rate and its lowest round trip, and not its losses.
//!
//! * *Startup* doubles the rate every round until it has not grown by a quarter for three rounds; *drain* lets the queue
//!   go that this has made.
//! * *Probing bandwidth*: eight phases of a round trip each, one a quarter faster than the measured rate, one a
//!   quarter slower, six at it.
//! * *Probing the round trip*: when the lowest is ten seconds old, four segments in flight for 200 ms.
//!
//! A loss is answered only by not sending more than is delivered for a round; so beside others at a shallow queue it is
//! unfair, which is why it is never the default. Everything is in bytes, microseconds and 256ths.

use crate::seq::Position;
use crate::tcp::congestion::{Acked, Controller, Seen, Window};
use crate::time::{Duration, Instant};

/// 2 / ln 2, and its inverse, in 256ths.
const HIGH_GAIN: u64 = 739;
const DRAIN_GAIN: u64 = 88;
/// cwnd_gain, in 256ths.
const WINDOW_GAIN: u64 = 512;
const UNIT: u64 = 256;
/// The pacing gains of the eight phases.
const CYCLE: [u64; 8] = [320, 192, UNIT, UNIT, UNIT, UNIT, UNIT, UNIT];
/// Rounds in one half of the filter of the delivery rate.
const FILTER_ROUNDS: u32 = 5;
/// How long a lowest round trip counts.
const MIN_RTT_LIFE: Duration = Duration::from_s(10);
const PROBE_RTT: Duration = Duration::from_ms(200);
/// The smallest window, in segments.
const SEGMENTS_MIN: u64 = 4;
/// The pace is a hundredth below the rate, so that no queue stays.
const PACE_PERCENT: u64 = 99;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Startup,
    Drain,
    ProbeBandwidth { phase: usize, since: Instant },
    ProbeRtt { until: Option<Instant> },
}

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Bbr {
    mode: Mode,
    /// The highest delivery rate of this half of the filter and of the one before, in bytes per second.
    rates: [u64; 2],
    filter_round: u32,
    round: u32,
    /// A round ends when something is delivered that was sent after so much was.
    round_end: u64,
    /// Startup's rate three rounds ago, and how many rounds it has not grown.
    full_rate: u64,
    full_rounds: u32,
    min_rtt: Option<Duration>,
    min_rtt_at: Instant,
    /// The window before a recovery or before probing the round trip.
    prior_window: u32,
    recovering: bool,
    /// For this round of a recovery no more is sent than is delivered.
    conserving: bool,
    pace: Option<u64>,
}

impl Default for Bbr {
    fn default() -> Self {
        Self {
            mode: Mode::Startup,
            rates: [0; 2],
            filter_round: 0,
            round: 0,
            round_end: 0,
            full_rate: 0,
            full_rounds: 0,
            min_rtt: None,
            min_rtt_at: Instant::default(),
            prior_window: 0,
            recovering: false,
            conserving: false,
            pace: None,
        }
    }
}

impl Bbr {
    fn rate(&self) -> u64 {
        self.rates[0].max(self.rates[1])
    }

    fn is_full(&self) -> bool {
        self.full_rounds >= 3
    }

    /// The bandwidth-delay product times a gain, in bytes; `None` before there is one.
    fn product(&self, gain: u64) -> Option<u64> {
        let min_rtt = self.min_rtt?;
        let bytes = u128::from(self.rate()) * u128::from(min_rtt.as_us()) * u128::from(gain) / (1_000_000 * 256);
        (self.rate() > 0).then(|| u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// Whether a round begins with this acknowledgement.
    fn take_rate(&mut self, seen: &Seen) -> bool {
        let Some(sample) = seen.rate else { return false };
        let begins = sample.delivered_before >= self.round_end;
        if begins {
            self.round += 1;
            self.round_end = seen.delivered_total;
        }
        // What the program limits says nothing of the path, unless it is more than was known; nor does it age that.
        if !sample.is_limited || sample.bytes_per_s >= self.rate() {
            if self.round - self.filter_round >= FILTER_ROUNDS {
                self.filter_round = self.round;
                self.rates = [0, self.rates[0]];
            }
            self.rates[0] = self.rates[0].max(sample.bytes_per_s);
        }
        if begins && !self.is_full() && !sample.is_limited {
            if self.rate() >= self.full_rate + self.full_rate / 4 {
                (self.full_rate, self.full_rounds) = (self.rate(), 0);
            } else {
                self.full_rounds += 1;
            }
        }
        begins
    }

    fn move_on(&mut self, window: &Window, seen: &Seen) {
        let now = seen.now;
        if self.mode == Mode::Startup && self.is_full() {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && self.product(UNIT).is_some_and(|p| seen.in_network <= p) {
            self.mode = Mode::ProbeBandwidth { phase: 2, since: now };
        }
        if let Mode::ProbeBandwidth { phase, since } = self.mode {
            let long = now.since(since) > self.min_rtt.unwrap_or_default();
            let filled = |gain| self.product(gain).is_some_and(|p| seen.in_network >= p);
            let over = match CYCLE[phase] {
                320 => long && (seen.lost > 0 || filled(320)),
                192 => long || !filled(UNIT),
                _ => long,
            };
            if over {
                self.mode = Mode::ProbeBandwidth { phase: (phase + 1) % CYCLE.len(), since: now };
            }
        }
        self.probe_rtt(window, seen);
    }

    fn probe_rtt(&mut self, window: &Window, seen: &Seen) {
        let now = seen.now;
        let expired = self.min_rtt.is_some() && now.since(self.min_rtt_at) > MIN_RTT_LIFE;
        if let Some(sample) = seen.sample
            && (self.min_rtt.is_none_or(|min| sample <= min) || expired)
        {
            (self.min_rtt, self.min_rtt_at) = (Some(sample), now);
        }
        if expired && !matches!(self.mode, Mode::ProbeRtt { .. }) {
            self.prior_window = self.prior_window.max(window.congestion);
            self.mode = Mode::ProbeRtt { until: None };
        }
        if let Mode::ProbeRtt { until } = self.mode {
            match until {
                None if seen.in_network <= SEGMENTS_MIN * u64::from(seen.mss) => {
                    self.mode = Mode::ProbeRtt { until: Some(now + PROBE_RTT) };
                }
                Some(until) if now >= until => {
                    self.min_rtt_at = now;
                    self.mode =
                        if self.is_full() { Mode::ProbeBandwidth { phase: 2, since: now } } else { Mode::Startup };
                }
                _ => {}
            }
        }
    }

    fn pacing_gain(&self) -> u64 {
        match self.mode {
            Mode::Startup => HIGH_GAIN,
            Mode::Drain => DRAIN_GAIN,
            Mode::ProbeBandwidth { phase, .. } => CYCLE[phase],
            Mode::ProbeRtt { .. } => UNIT,
        }
    }

    fn set_pace(&mut self, window: &Window, seen: &Seen) {
        let rate = if self.rate() > 0 {
            self.rate()
        } else {
            // Nothing is measured yet: the window in a round trip.
            let rtt = self.min_rtt.unwrap_or(Duration::from_ms(1)).as_us().max(1);
            u64::from(window.congestion) * 1_000_000 / rtt
        };
        let pace = rate.saturating_mul(self.pacing_gain()) / UNIT * PACE_PERCENT / 100;
        if self.is_full() || self.pace.is_none_or(|before| pace > before) {
            self.pace = Some(pace.max(u64::from(seen.mss)));
        }
    }

    fn set_window(&mut self, window: &mut Window, seen: &Seen, begins: bool) {
        let mss = u64::from(seen.mss);
        let mut congestion = u64::from(window.congestion);
        if seen.lost > 0 {
            congestion = congestion.saturating_sub(seen.lost).max(mss);
        }
        if seen.is_recovering && !self.recovering {
            self.conserving = true;
            // The first round of a recovery ends when something sent in it is delivered.
            self.round_end = seen.delivered_total;
            congestion = seen.in_network + seen.delivered.max(mss);
        } else if !seen.is_recovering && self.recovering {
            congestion = congestion.max(self.prior_window.into());
            (self.conserving, self.prior_window) = (false, 0);
        } else if begins {
            self.conserving = false;
        }
        self.recovering = seen.is_recovering;
        if self.conserving {
            congestion = congestion.max(seen.in_network + seen.delivered);
        } else {
            let gain = if self.mode == Mode::Startup || self.mode == Mode::Drain { HIGH_GAIN } else { WINDOW_GAIN };
            match self.product(gain) {
                Some(product) if self.is_full() => congestion = (congestion + seen.delivered).min(product + 3 * mss),
                Some(product) if congestion >= product + 3 * mss => {}
                _ => congestion += seen.delivered,
            }
        }
        congestion = congestion.max(SEGMENTS_MIN * mss);
        if let Mode::ProbeRtt { .. } = self.mode {
            congestion = congestion.min(SEGMENTS_MIN * mss);
        } else if !seen.is_recovering && self.prior_window > 0 {
            congestion = congestion.max(self.prior_window.into());
            self.prior_window = 0;
        }
        window.congestion = u32::try_from(congestion).unwrap_or(u32::MAX);
    }
}

impl Controller for Bbr {
    fn acked(&mut self, _window: &mut Window, _ack: &Acked) {}

    /// The window before is kept; the threshold says nothing.
    fn lost(&mut self, window: &Window, _mss: u32) -> u32 {
        self.prior_window = self.prior_window.max(window.congestion);
        window.threshold
    }

    fn restarted(&mut self) {}

    fn echoed(&mut self, _bytes: u64, _is_marked: bool, _una: Position, _nxt: Position) {}

    fn rules(&self) -> bool {
        true
    }

    fn seen(&mut self, window: &mut Window, seen: &Seen) {
        let begins = self.take_rate(seen);
        self.move_on(window, seen);
        self.set_pace(window, seen);
        self.set_window(window, seen, begins);
    }

    fn pace(&self) -> Option<u64> {
        self.pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::delivery::RateSample;

    const MSS: u32 = 1000;

    /// A path of 40 ms, and a connection with something to send.
    struct Path {
        now_ms: u64,
        rtt_ms: u64,
        delivered: u64,
        window: Window,
    }

    impl Path {
        fn new() -> Self {
            Self { now_ms: 0, rtt_ms: 40, delivered: 0, window: Window { congestion: 10 * MSS, threshold: u32::MAX } }
        }

        /// Round trips at `rate` bytes per second, with `lost` bytes of each.
        fn rounds(&mut self, c: &mut Bbr, rate: u64, rounds: u32, lost: u64) {
            for _ in 0..rounds {
                let before = self.delivered;
                // What the window and, over a round trip, the pace let out.
                let window = u64::from(self.window.congestion).min(c.pace.map_or(u64::MAX, |pace| pace * 40 / 1000));
                let product = rate * self.rtt_ms / 1000;
                // What does not fit waits in a queue, which makes the round trip longer.
                let rtt_ms = self.rtt_ms * window.max(product) / product;
                self.now_ms += rtt_ms;
                self.delivered += window;
                let bytes_per_s = window * 1000 / rtt_ms;
                let seen = Seen {
                    now: Instant::from_us(self.now_ms * 1000),
                    mss: MSS,
                    delivered: window,
                    delivered_total: self.delivered,
                    lost,
                    in_network: window,
                    is_recovering: false,
                    rate: Some(RateSample { bytes_per_s, delivered_before: before, is_limited: false }),
                    sample: Some(Duration::from_ms(rtt_ms)),
                };
                c.seen(&mut self.window, &seen);
            }
        }
    }

    #[test]
    fn startup_finds_the_rate_and_leaves_a_queue_that_is_drained() {
        let (mut c, mut p) = (Bbr::default(), Path::new());
        p.rounds(&mut c, 1_000_000, 12, 0);
        assert!(c.is_full() && c.mode != Mode::Startup, "{:?}", c.mode);
        assert!((950_000..=1_050_000).contains(&c.rate()), "{}", c.rate());
        p.rounds(&mut c, 1_000_000, 12, 0);
        assert!(matches!(c.mode, Mode::ProbeBandwidth { .. }), "{:?}", c.mode);
        // Twice the product of 40,000 bytes, and three segments; the rate is a little too high by rounding.
        assert!(p.window.congestion <= 86_000, "{}", p.window.congestion);
    }

    #[test]
    fn before_anything_is_measured_the_pace_is_the_window_in_a_round_trip() {
        let mut c = Bbr::default();
        let mut window = Window { congestion: 10 * MSS, threshold: u32::MAX };
        let seen = Seen {
            now: Instant::from_us(10_000),
            mss: MSS,
            delivered: 0,
            delivered_total: 0,
            lost: 0,
            in_network: 10_000,
            is_recovering: false,
            rate: None,
            sample: Some(Duration::from_ms(10)),
        };
        c.seen(&mut window, &seen);
        assert_eq!((window.congestion, c.pace()), (10 * MSS, Some(1_000_000 * HIGH_GAIN / UNIT * PACE_PERCENT / 100)));
    }

    #[test]
    fn a_recovery_begins_with_what_is_delivered_and_ends_with_the_window_from_before() {
        let (mut c, mut p) = (Bbr::default(), Path::new());
        p.rounds(&mut c, 1_000_000, 24, 0);
        let before = p.window.congestion;
        let (now_ms, delivered) = (p.now_ms, p.delivered);
        let seen = |is_recovering, lost| Seen {
            now: Instant::from_us(now_ms * 1000),
            mss: MSS,
            delivered: 2000,
            delivered_total: delivered,
            lost,
            in_network: 20_000,
            is_recovering,
            rate: None,
            sample: None,
        };
        c.lost(&p.window, MSS);
        c.seen(&mut p.window, &seen(true, 5000));
        assert_eq!(p.window.congestion, 22_000);
        // Within its first round no more is sent than is delivered.
        c.seen(&mut p.window, &seen(true, 0));
        assert!(p.window.congestion <= 22_000, "{}", p.window.congestion);
        c.seen(&mut p.window, &seen(false, 0));
        assert!(p.window.congestion >= before, "{} of {before}", p.window.congestion);
    }

    #[test]
    fn loss_alone_changes_neither_rate_nor_window_for_long() {
        let (mut c, mut p) = (Bbr::default(), Path::new());
        p.rounds(&mut c, 1_000_000, 24, 0);
        let before = p.window.congestion;
        p.rounds(&mut c, 1_000_000, 8, 3000);
        assert!(p.window.congestion >= before - 3000, "{} of {before}", p.window.congestion);
        assert!(c.pace().unwrap() >= 700_000);
    }

    #[test]
    fn a_faster_path_is_found_and_a_slower_one_is_followed() {
        let (mut c, mut p) = (Bbr::default(), Path::new());
        p.rounds(&mut c, 1_000_000, 24, 0);
        p.rounds(&mut c, 1_250_000, 30, 0);
        assert!(c.rate() > 1_200_000, "{}", c.rate());
        p.rounds(&mut c, 500_000, 30, 0);
        assert!(c.rate() < 550_000, "the filter forgets: {}", c.rate());
    }

    #[test]
    fn the_round_trip_is_measured_anew_after_ten_seconds() {
        let (mut c, mut p) = (Bbr::default(), Path::new());
        let mut smallest = u32::MAX;
        p.rounds(&mut c, 1_000_000, 24, 0);
        // Somebody else's queue, or a longer way.
        p.rtt_ms = 45;
        for _ in 0..400 {
            p.rounds(&mut c, 1_000_000, 1, 0);
            if c.is_full() {
                smallest = smallest.min(p.window.congestion);
            }
        }
        assert_eq!(smallest, 4 * MSS);
        assert!(p.window.congestion > 4 * MSS, "and it comes back");
    }
}

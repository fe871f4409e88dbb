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
        let least = if self.is_full() { None } else { self.pace };
        self.pace = Some(pace.max(u64::from(seen.mss)).max(least.unwrap_or(0)));
    }

    fn set_window(&mut self, window: &mut Window, seen: &Seen, begins: bool) {
        let mss = u64::from(seen.mss);
        let mut congestion = u64::from(window.congestion).saturating_sub(seen.lost).max(mss);
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
        } else if !seen.is_recovering {
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

    fn at_us(us: u64) -> Instant {
        Instant::from_us(us)
    }

    /// An acknowledgement at time zero of which nothing else is known.
    fn quiet() -> Seen {
        Seen {
            now: at_us(0),
            mss: MSS,
            delivered: 0,
            delivered_total: 0,
            lost: 0,
            in_network: 45_000,
            is_recovering: false,
            rate: None,
            sample: None,
        }
    }

    fn rate(bytes_per_s: u64, delivered_before: u64) -> Option<RateSample> {
        Some(RateSample { bytes_per_s, delivered_before, is_limited: false })
    }

    /// A million bytes per second over 40 ms: a product of 40,000 bytes.
    fn known(mode: Mode) -> Bbr {
        Bbr {
            mode,
            rates: [1_000_000, 0],
            full_rate: 1_000_000,
            full_rounds: 3,
            min_rtt: Some(Duration::from_ms(40)),
            ..Bbr::default()
        }
    }

    fn probing(phase: usize) -> Mode {
        Mode::ProbeBandwidth { phase, since: at_us(0) }
    }

    fn window(congestion: u32) -> Window {
        Window { congestion, threshold: u32::MAX }
    }

    /// Rounds of one acknowledgement each, all of that rate.
    fn rated(c: &mut Bbr, rounds: u32, bytes_per_s: u64, is_limited: bool) {
        for _ in 0..rounds {
            let delivered_before = c.round_end;
            let rate = Some(RateSample { bytes_per_s, delivered_before, is_limited });
            assert!(c.take_rate(&Seen { delivered_total: delivered_before + 1000, rate, ..quiet() }));
        }
    }

    #[test]
    fn a_round_ends_when_something_is_delivered_that_was_sent_in_it() {
        // 4.1.1.3 of the draft: packet.delivered >= BBR.next_round_delivered.
        let mut c = Bbr::default();
        assert!(c.take_rate(&Seen { delivered_total: 10_000, rate: rate(1000, 0), ..quiet() }));
        assert!(!c.take_rate(&Seen { delivered_total: 15_000, rate: rate(1000, 9_999), ..quiet() }));
        assert!(!c.take_rate(&Seen { delivered_total: 18_000, ..quiet() }), "without a sample nothing is known");
        assert_eq!((c.round, c.round_end), (1, 10_000));
        assert!(c.take_rate(&Seen { delivered_total: 20_000, rate: rate(1000, 10_000), ..quiet() }));
        assert_eq!((c.round, c.round_end), (2, 20_000));
    }

    #[test]
    fn a_rate_counts_for_ten_rounds_at_most() {
        let mut c = Bbr::default();
        rated(&mut c, 1, 100_000, false);
        rated(&mut c, 8, 50_000, false);
        assert_eq!(c.rate(), 100_000);
        rated(&mut c, 1, 50_000, false);
        assert_eq!(c.rate(), 50_000);
    }

    #[test]
    fn what_the_program_limits_counts_only_if_it_is_more() {
        // 4.1.1.4: "if (rs.delivery_rate >= BBR.BtlBw || ! rs.is_app_limited)".
        let mut c = Bbr::default();
        rated(&mut c, 4, 100_000, false);
        rated(&mut c, 50, 99_999, true);
        assert_eq!((c.rate(), c.filter_round), (100_000, 0), "it does not even age what is known");
        rated(&mut c, 1, 100_000, true);
        assert_eq!((c.rates, c.filter_round), ([100_000, 100_000], 55));
        rated(&mut c, 1, 100_001, true);
        assert_eq!(c.rate(), 100_001);
    }

    #[test]
    fn startup_is_over_after_three_rounds_with_less_than_a_quarter_more() {
        // 4.3.2.2: BBRCheckFullPipe.
        let mut c = Bbr::default();
        rated(&mut c, 1, 100_000, false);
        rated(&mut c, 2, 124_999, false);
        assert_eq!((c.full_rate, c.full_rounds), (100_000, 2));
        rated(&mut c, 1, 125_000, false);
        assert_eq!((c.full_rate, c.full_rounds), (125_000, 0));
        rated(&mut c, 2, 125_000, false);
        assert!(!c.is_full());
        // Neither a second sample of a round nor a round that the program limits is a witness.
        c.take_rate(&Seen { rate: rate(125_000, 0), ..quiet() });
        rated(&mut c, 5, 100_000, true);
        assert!(!c.is_full());
        rated(&mut c, 1, 125_000, false);
        assert!(c.is_full());
        rated(&mut c, 1, 500_000, false);
        assert!(c.is_full(), "once and for all");
    }

    #[test]
    fn the_queue_of_startup_is_drained_to_the_product() {
        let mut c = known(Mode::Startup);
        c.full_rounds = 2;
        c.move_on(&window(10_000), &quiet());
        assert_eq!(c.mode, Mode::Startup);
        c.full_rounds = 3;
        c.move_on(&window(10_000), &Seen { in_network: 40_001, ..quiet() });
        assert_eq!(c.mode, Mode::Drain);
        let now = at_us(77);
        c.move_on(&window(10_000), &Seen { now, in_network: 40_000, ..quiet() });
        assert_eq!(c.mode, Mode::ProbeBandwidth { phase: 2, since: now });
        // Without a model there is no product.
        let mut c = Bbr { mode: Mode::Drain, ..Bbr::default() };
        c.move_on(&window(10_000), &Seen { in_network: 0, ..quiet() });
        assert_eq!(c.mode, Mode::Drain);
        assert_eq!((c.product(UNIT), known(Mode::Drain).product(UNIT)), (None, Some(40_000)));
        c.min_rtt = Some(Duration::from_ms(1));
        assert_eq!(c.product(UNIT), None);
    }

    #[test]
    fn each_phase_lasts_a_round_trip_and_the_first_two_look_at_what_is_in_flight() {
        // 4.3.4.3: BBRIsNextCyclePhase.
        let after = |phase: usize, us: u64, in_network: u64, lost: u64| {
            let mut c = known(probing(phase));
            c.move_on(&window(10_000), &Seen { now: at_us(us), in_network, lost, ..quiet() });
            match c.mode {
                Mode::ProbeBandwidth { phase, since } => (phase, since.as_us()),
                other => panic!("{other:?}"),
            }
        };
        for phase in 2..8 {
            assert_eq!(after(phase, 40_000, 45_000, 1), (phase, 0));
            assert_eq!(after(phase, 40_001, 45_000, 0), ((phase + 1) % 8, 40_001));
        }
        // A quarter more: until that is in flight, or too much.
        assert_eq!(after(0, 40_001, 49_999, 0), (0, 0));
        assert_eq!(after(0, 40_001, 50_000, 0), (1, 40_001));
        assert_eq!(after(0, 40_001, 10_000, 1), (1, 40_001));
        assert_eq!(after(0, 40_000, 50_000, 1), (0, 0));
        // A quarter less: until the queue is gone.
        assert_eq!(after(1, 40_000, 40_000, 0), (1, 0));
        assert_eq!(after(1, 10, 39_999, 0), (2, 10));
        assert_eq!(after(1, 40_001, 45_000, 0), (2, 40_001));
    }

    #[test]
    fn the_lowest_round_trip_is_kept_for_ten_seconds_from_when_it_was_last_seen() {
        let mut c = known(probing(2));
        let see = |c: &mut Bbr, us: u64, sample_ms: u64| {
            let sample = Some(Duration::from_ms(sample_ms));
            c.probe_rtt(&window(60_000), &Seen { now: at_us(us), sample, ..quiet() });
            (c.min_rtt.unwrap().as_ms(), c.min_rtt_at.as_us())
        };
        assert_eq!(see(&mut c, 1_000_000, 41), (40, 0));
        assert_eq!(see(&mut c, 1_000_000, 40), (40, 1_000_000));
        assert_eq!(see(&mut c, 2_000_000, 39), (39, 2_000_000));
        assert_eq!(see(&mut c, 12_000_000, 50), (39, 2_000_000));
        assert_eq!(c.mode, probing(2));
        assert_eq!(see(&mut c, 12_000_001, 50), (50, 12_000_001));
        assert_eq!((c.mode, c.prior_window), (Mode::ProbeRtt { until: None }, 60_000));
    }

    #[test]
    fn a_round_trip_is_probed_for_200_ms_with_four_segments_in_flight() {
        for (full_rounds, next) in [(3, true), (2, false)] {
            let mut c = Bbr { full_rounds, prior_window: 70_000, ..known(probing(2)) };
            let mut see = |us: u64, in_network: u64| {
                let now = at_us(us);
                c.probe_rtt(&window(60_000), &Seen { now, in_network, ..quiet() });
                c
            };
            assert_eq!(see(10_000_001, 4001).mode, Mode::ProbeRtt { until: None });
            let until = Some(at_us(10_700_000));
            let began = see(10_500_000, 4000);
            assert_eq!((began.mode, began.prior_window), (Mode::ProbeRtt { until }, 70_000));
            assert_eq!(see(10_699_999, 4000).mode, Mode::ProbeRtt { until }, "nothing measured, but under way");
            let end = see(10_700_000, 4000);
            let since = at_us(10_700_000);
            assert_eq!(end.mode, if next { Mode::ProbeBandwidth { phase: 2, since } } else { Mode::Startup });
            assert_eq!(end.min_rtt_at, since);
        }
    }

    #[test]
    fn the_pace_is_the_rate_by_the_gain_less_a_hundredth() {
        let pace = |mut c: Bbr| {
            c.set_pace(&window(10_000), &quiet());
            c.pace().unwrap()
        };
        assert_eq!(pace(known(Mode::Startup)), 1_000_000 * 739 / 256 * 99 / 100);
        assert_eq!(pace(known(Mode::Drain)), 1_000_000 * 88 / 256 * 99 / 100);
        assert_eq!(pace(known(probing(0))), 1_237_500);
        assert_eq!(pace(known(probing(1))), 742_500);
        assert_eq!(pace(known(probing(2))), 990_000);
        assert_eq!(pace(known(Mode::ProbeRtt { until: None })), 990_000);
        // Before anything is measured the window goes in a millisecond.
        assert_eq!(pace(Bbr::default()), 10_000_000 * 739 / 256 * 99 / 100);
        // Until startup is over it only rises.
        let before = Some(2_000_000);
        assert_eq!(pace(Bbr { pace: before, full_rounds: 2, ..known(probing(2)) }), 2_000_000);
        assert_eq!(pace(Bbr { pace: before, full_rounds: 3, ..known(probing(2)) }), 990_000);
        assert_eq!(pace(Bbr { pace: Some(980_000), full_rounds: 2, ..known(probing(2)) }), 990_000);
        // And never is it less than a segment in a second.
        assert_eq!(pace(Bbr { rates: [10, 0], ..known(probing(2)) }), u64::from(MSS));
    }

    /// The window that follows one.
    fn next_window(c: &mut Bbr, congestion: u32, seen: &Seen, begins: bool) -> u32 {
        let mut window = window(congestion);
        c.set_window(&mut window, seen, begins);
        window.congestion
    }

    #[test]
    fn the_window_grows_by_what_is_delivered_up_to_twice_the_product() {
        // 4.2.3.4: BBRSetCwnd.
        let seen = Seen { delivered: 2000, ..quiet() };
        let next = |mut c: Bbr, congestion: u32| next_window(&mut c, congestion, &seen, false);
        assert_eq!(next(known(probing(2)), 60_000), 62_000);
        assert_eq!(next(known(probing(2)), 82_000), 83_000);
        assert_eq!(next(known(probing(2)), 200_000), 83_000);
        // In startup and drain the product counts 2/ln(2) times: 115,468.
        let startup = |mode| Bbr { full_rounds: 0, ..known(mode) };
        assert_eq!(next(startup(Mode::Startup), 118_467), 120_467);
        assert_eq!(next(startup(Mode::Startup), 118_468), 118_468);
        assert_eq!(next(known(Mode::Drain), 118_468), 118_468);
        assert_eq!(next(startup(probing(2)), 83_000), 83_000);
        assert_eq!(next(startup(probing(2)), 82_999), 84_999);
        assert_eq!(next(Bbr::default(), 1_000_000), 1_002_000, "without a model there is no product");
        // Four segments at least.
        assert_eq!(next(known(probing(2)), 1_000), 4_000);
        assert_eq!(next(known(Mode::ProbeRtt { until: None }), 60_000), 4_000);
    }

    #[test]
    fn the_window_from_before_a_probe_of_the_round_trip_comes_back_behind_it() {
        let seen = quiet();
        let mut c = Bbr { prior_window: 70_000, ..known(Mode::ProbeRtt { until: None }) };
        assert_eq!(next_window(&mut c, 60_000, &seen, false), 4_000);
        assert_eq!(c.prior_window, 70_000);
        c.mode = probing(2);
        assert_eq!(next_window(&mut c, 4_000, &seen, false), 70_000);
        assert_eq!(c.prior_window, 0);
        assert_eq!(next_window(&mut c, 4_000, &seen, false), 4_000);
    }

    #[test]
    fn a_loss_takes_what_is_lost_and_a_recovery_conserves_for_a_round() {
        let lose = |congestion, lost, delivered| {
            next_window(&mut known(probing(2)), congestion, &Seen { lost, delivered, ..quiet() }, false)
        };
        assert_eq!((lose(60_000, 5_000, 2_000), lose(3_000, 5_000, 6_000)), (57_000, 7_000));

        let mut c = known(probing(2));
        assert_eq!(c.lost(&Window { congestion: 60_000, threshold: 7 }, MSS), 7);
        c.lost(&window(50_000), MSS);
        let recovering = Seen { is_recovering: true, delivered_total: 123, in_network: 20_000, ..quiet() };
        assert_eq!(next_window(&mut c, 60_000, &recovering, true), 21_000, "at least a segment may go");
        assert_eq!((c.round_end, c.conserving), (123, true));
        // What is delivered may go, and the window does not fall.
        assert_eq!(next_window(&mut c, 21_000, &Seen { delivered: 3_000, ..recovering }, false), 23_000);
        assert_eq!(next_window(&mut c, 30_000, &Seen { delivered: 3_000, ..recovering }, false), 30_000);
        // From the next round on it grows as ever; what was before is kept until the end.
        assert_eq!(next_window(&mut c, 30_000, &Seen { delivered: 3_000, ..recovering }, true), 33_000);
        assert_eq!(next_window(&mut c, 33_000, &Seen { delivered: 3_000, ..recovering }, false), 36_000);
        assert_eq!(c.prior_window, 60_000);
        assert_eq!(next_window(&mut c, 36_000, &quiet(), false), 60_000);
        assert_eq!((c.prior_window, c.conserving, c.recovering), (0, false, false));
    }
}

//! CUBIC (RFC 8312 and its successor): the window follows a cubic function of the time since the last reduction, so that it is
//! soon back where loss was found, stays there for a while, and then looks for more. Where that is slower than
//! what Reno would have, it follows Reno. Fixed point; bytes and milliseconds.

use crate::tcp::congestion::{Acked, Controller, Window};
use crate::tcp::hystart::SlowStart;
use crate::time::Instant;

/// CUBIC (RFC 8312, with the corrections of its successor to the Reno-friendly region).
#[derive(Clone, Copy, Debug)]
pub struct Cubic {
    slow_start: SlowStart,
    /// W_max: the window before the last reduction, in bytes; less by fast convergence.
    window_max: u32,
    /// cwnd_prior: the window before the last reduction, in bytes.
    prior: u32,
    epoch: Option<Epoch>,
}

/// One period of congestion avoidance.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// K: milliseconds until the window is back at `origin`.
    k_ms: u64,
    /// The plateau of the curve, in bytes.
    origin: u32,
    /// W_est: what Reno would have, in bytes, times 2^10.
    reno: u64,
    /// What is due to the window below one MSS, in bytes times the window.
    due: u64,
}

/// beta_cubic = 0.7, in 1024ths.
const BETA: u64 = 717;

impl Default for Cubic {
    fn default() -> Self {
        Self { slow_start: SlowStart::looking(), window_max: 0, prior: 0, epoch: None }
    }
}

impl Cubic {
    /// W_cubic(t) = C (t - K)^3 + W_max with C = 0.4 segments/s^3 (RFC 8312, equation 1), in bytes.
    fn target(epoch: &Epoch, t_ms: u64, mss: u32) -> u64 {
        let d = u128::from(t_ms.abs_diff(epoch.k_ms));
        let change = u64::try_from(d * d * d * 4 * u128::from(mss) / 10_000_000_000).unwrap_or(u64::MAX);
        if t_ms >= epoch.k_ms {
            u64::from(epoch.origin).saturating_add(change)
        } else {
            u64::from(epoch.origin).saturating_sub(change)
        }
    }
}

//= docs/specs/rfc9293.txt#section-3.8.2
//# An endpoint MAY implement such alternative algorithms provided that the algorithms are conformant with the TCP
//# specifications from the IETF Standards Track as described in RFC 2914, RFC 5033 [7], and RFC 8961 [15] (MAY-18).
impl Controller for Cubic {
    fn acked(&mut self, window: &mut Window, ack: &Acked) {
        if window.in_slow_start() {
            self.slow_start.acked(window, ack);
            return;
        }
        let congestion = window.congestion;
        let mss = ack.mss;
        let epoch = self.epoch.get_or_insert_with(|| {
            let origin = self.window_max.max(congestion);
            // K = cbrt((W_max - cwnd) / C) (equation 2): cbrt(segments * 2.5) s = cbrt(segments * 2.5e9) ms.
            let k_ms = cube_root(u128::from(origin - congestion) * 2_500_000_000 / u128::from(mss));
            Epoch { start: ack.now, k_ms, origin, reno: u64::from(congestion) << 10, due: 0 }
        });
        // The Reno-friendly region: alpha = 3 (1 - beta) / (1 + beta) segments per window, and 1 once the window before the
        // reduction is reached again.
        let alpha = if epoch.reno >> 10 >= u64::from(self.prior.max(epoch.origin)) { 1024 } else { 542 };
        epoch.reno += alpha * u64::from(ack.bytes) * u64::from(mss) / u64::from(congestion.max(1));
        let reno = epoch.reno >> 10;

        let t_ms = ack.now.since(epoch.start).as_ms();
        let (here, ahead) = (Self::target(epoch, t_ms, mss), Self::target(epoch, t_ms + ack.rtt.as_ms(), mss));
        if here < reno {
            window.congestion = u32::try_from(reno).unwrap_or(u32::MAX).max(congestion);
            return;
        }
        // By (target - cwnd) / cwnd for each byte acknowledged; the target at most half again (equation 5.1 of the
        // successor bounds it so).
        let target = ahead.clamp(u64::from(congestion), u64::from(congestion) * 3 / 2);
        epoch.due += (target - u64::from(congestion)) * u64::from(ack.bytes);
        let grow = epoch.due / u64::from(congestion.max(1));
        epoch.due -= grow * u64::from(congestion.max(1));
        window.congestion = congestion.saturating_add(u32::try_from(grow).unwrap_or(u32::MAX));
    }

    fn lost(&mut self, window: &Window, mss: u32) -> u32 {
        let congestion = window.congestion;
        // Fast convergence (RFC 8312, 4.6): another flow wants room if the old plateau was not reached again.
        self.window_max = if congestion < self.window_max {
            (u64::from(congestion) * (1024 + BETA) / 2048) as u32
        } else {
            congestion
        };
        self.prior = congestion;
        self.epoch = None;
        ((u64::from(congestion) * BETA / 1024) as u32).max(2 * mss)
    }

    fn restarted(&mut self) {
        self.epoch = None;
    }
}

/// The integer cube root.
fn cube_root(n: u128) -> u64 {
    let mut root = 0u64;
    for bit in (0..42).rev() {
        let with = root | 1 << bit;
        if u128::from(with) * u128::from(with) * u128::from(with) <= n {
            root = with;
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::congestion::tests::{MSS, rounds};

    //= docs/specs/rfc9293.txt#section-3.8.2
    //= type=test
    //# An endpoint MAY implement such alternative algorithms provided that the algorithms are conformant with the
    //# TCP specifications from the IETF Standards Track as described in RFC 2914, RFC 5033 [7], and RFC 8961 [15]
    //# (MAY-18).
    #[test]
    fn cubic_is_back_at_its_plateau_after_k_and_then_probes() {
        let mut c = Cubic::default();
        let mut w = Window { congestion: 1000 * MSS, threshold: 1000 * MSS };
        let threshold = c.lost(&w, MSS);
        assert_eq!(threshold, 700_195);
        w = Window { congestion: threshold, threshold };
        // K = cbrt(300 / 0.4) = 9.08 s.
        let seen = rounds(&mut c, &mut w, 0, 140);
        assert!(seen[44] > 930_000 && seen[44] < 975_000, "concave at first: {}", seen[44]);
        assert!(seen[90].abs_diff(1_000_000) < 5_000, "{}", seen[90]);
        assert!(seen[100].abs_diff(1_000_000) < 5_000, "flat around the plateau: {}", seen[100]);
        assert!(seen[139] > 1_030_000, "convex after: {}", seen[139]);
        assert!(seen.is_sorted());
    }

    #[test]
    fn cubic_is_not_slower_than_reno_on_a_short_path() {
        let mut c = Cubic::default();
        let mut w = Window { congestion: 20 * MSS, threshold: 20 * MSS };
        let threshold = c.lost(&w, MSS);
        w = Window { congestion: threshold, threshold };
        let before = w.congestion;
        let seen = rounds(&mut c, &mut w, 0, 10);
        // 0.53 segments a round.
        assert!(seen[9] >= before + 5 * MSS, "{seen:?}");
    }

    #[test]
    fn fast_convergence_lowers_the_plateau() {
        let mut c = Cubic::default();
        c.lost(&Window { congestion: 100 * MSS, threshold: 0 }, MSS);
        c.lost(&Window { congestion: 80 * MSS, threshold: 0 }, MSS);
        assert_eq!(c.window_max, 80 * MSS * (1024 + 717) / 2048);
    }

    #[test]
    fn cube_roots() {
        for n in [0u64, 1, 7, 8, 26, 27, 999_999_999, 1_000_000_000, 4_398_046_511_103] {
            let cube = u128::from(n) * u128::from(n) * u128::from(n);
            assert_eq!(cube_root(cube), n);
            assert_eq!(cube_root(cube.saturating_sub(1)), n.saturating_sub(1));
        }
    }

    fn ack(bytes: u32, rtt_ms: u64) -> Acked {
        Acked {
            now: Instant::from_us(0),
            bytes,
            mss: MSS,
            rtt: crate::time::Duration::from_ms(rtt_ms),
            sample: None,
            una: crate::seq::Position::default(),
            nxt: crate::seq::Position::default(),
        }
    }

    fn epoch(k_ms: u64, origin: u32, reno: u32) -> Epoch {
        Epoch { start: Instant::from_us(0), k_ms, origin, reno: u64::from(reno) << 10, due: 0 }
    }

    /// Outside of slow start.
    fn avoiding(congestion: u32) -> Window {
        Window { congestion, threshold: congestion }
    }

    #[test]
    fn the_curve_is_four_tenths_of_a_segment_by_the_cube_of_the_seconds_from_k() {
        // RFC 8312, equation 1.
        let at = |t_ms| Cubic::target(&epoch(9000, 1_000_000, 0), t_ms, MSS);
        assert_eq!(
            (at(0), at(8000), at(9000), at(10_000), at(19_000)),
            (708_400, 999_600, 1_000_000, 1_000_400, 1_400_000)
        );
        assert_eq!(Cubic::target(&epoch(100_000, 5000, 0), 0, MSS), 0, "and never below nothing");
    }

    #[test]
    fn an_epoch_begins_with_the_window_and_k_follows_from_what_is_missing() {
        // Equation 2: K = cbrt(299.805 segments / 0.4) s.
        let mut c = Cubic { window_max: 1_000_000, ..Cubic::default() };
        let mut w = avoiding(700_195);
        c.acked(&mut w, &ack(1000, 100));
        let began = c.epoch.unwrap();
        assert_eq!((began.k_ms, began.origin), (9083, 1_000_000));
        c.restarted();
        assert!(c.epoch.is_none());
        // Above the old plateau there is nothing to go back to.
        w = avoiding(1_200_000);
        c.acked(&mut w, &ack(1000, 100));
        assert_eq!(c.epoch.map(|e| (e.k_ms, e.origin)), Some((0, 1_200_000)));
    }

    #[test]
    fn each_octet_acknowledged_adds_its_part_of_the_way_to_the_target() {
        let mut c = Cubic { epoch: Some(epoch(10_000, 1_000_000, 0)), ..Cubic::default() };
        let mut w = avoiding(600_000);
        // In a second the curve is at 708,400: 1000 / 600,000 of the way are 180.67 octets.
        c.acked(&mut w, &ack(1000, 1000));
        assert_eq!((w.congestion, c.epoch.unwrap().due), (600_180, 400_000));
        c.acked(&mut w, &ack(1000, 1000));
        assert_eq!((w.congestion, c.epoch.unwrap().due), (600_360, 587_600));
        // The target is at most half again and never below the window.
        for (origin, grown) in [(10_000_000, 600_500), (500_000, 600_000)] {
            let mut c = Cubic { epoch: Some(epoch(0, origin, 0)), ..Cubic::default() };
            let mut w = avoiding(600_000);
            c.acked(&mut w, &ack(1000, 0));
            assert_eq!(w.congestion, grown);
        }
    }

    #[test]
    fn where_reno_would_have_more_that_counts() {
        // RFC 8312, 4.2: 0.53 segments per window, and one from the old window on.
        for (prior, reno) in [(0, 10_100), (10_001, 10_052)] {
            let mut c = Cubic { prior, window_max: 10_000, ..Cubic::default() };
            let mut w = avoiding(10_000);
            c.acked(&mut w, &ack(1000, 0));
            assert_eq!(w.congestion, reno);
        }
        for (congestion, window) in [(600_000, 650_001), (700_000, 700_000)] {
            let mut c = Cubic { epoch: Some(epoch(0, 600_000, 650_000)), ..Cubic::default() };
            let mut w = avoiding(congestion);
            c.acked(&mut w, &ack(1000, 0));
            assert_eq!(w.congestion, window, "it does not shrink for that");
        }
    }

    #[test]
    fn a_loss_leaves_seven_tenths_and_two_segments_at_least() {
        let mut c = Cubic { epoch: Some(epoch(0, 1, 0)), ..Cubic::default() };
        assert_eq!(c.lost(&avoiding(100_000), MSS), 70_019);
        assert_eq!((c.window_max, c.prior, c.epoch.is_none()), (100_000, 100_000, true));
        assert_eq!(c.lost(&avoiding(100_000), MSS), 70_019);
        assert_eq!(c.window_max, 100_000, "the plateau was reached again");
        assert_eq!(c.lost(&avoiding(2000), MSS), 2000);
    }
}

//! Pacing: segments go out at a rate, not in bursts, if the controller names one.
//!
//! Each segment moves the time of the next by what it takes at that rate. A card is woken no more often than once in
//! [`QUANTUM`]: as much as goes in that time goes at once. Nothing is saved up in a silence.

use crate::time::{Duration, Instant};

/// What may go ahead of its time.
pub const QUANTUM: Duration = Duration::from_ms(1);

/// The pace of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pacing {
    /// When the next segment's time comes.
    next: Instant,
    /// When to look again: what was sent last has used up its time and more.
    pub wake_at: Option<Instant>,
}

impl Pacing {
    /// Whether a segment may go now; if not, when to ask again stands in `wake_at`.
    pub fn allows(&self, pace: Option<u64>, now: Instant) -> bool {
        pace.is_none() || self.next <= now + QUANTUM
    }

    /// A segment of so many bytes has gone.
    pub fn sent(&mut self, pace: Option<u64>, bytes: u64, now: Instant) {
        if let Some(pace) = pace {
            let takes = Duration::from_us(bytes.saturating_mul(1_000_000) / pace.max(1));
            self.next = self.next.max(now) + takes;
            self.wake_at = (self.next > now + QUANTUM).then_some(self.next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_over_time() {
        let mut p = Pacing::default();
        let pace = Some(1_000_000);
        let mut sent = 0;
        // Asked every 100 us for 100 ms.
        for us in (0..100_000).step_by(100) {
            let now = Instant::from_us(1_000_000 + us);
            while p.allows(pace, now) {
                p.sent(pace, 1000, now);
                sent += 1;
            }
            assert!(p.wake_at.is_some_and(|at| at > now));
        }
        assert!((100..=103).contains(&sent), "a segment each millisecond, and what goes ahead: {sent}");
    }

    #[test]
    fn silence_saves_nothing_up_and_no_pace_is_no_limit() {
        let mut p = Pacing::default();
        let now = Instant::from_us(50_000_000);
        let burst = (0..).take_while(|_| p.allows(Some(1000), now).then(|| p.sent(Some(1000), 1000, now)).is_some());
        assert_eq!(burst.count(), 1);
        assert!((0..1000).all(|_| p.allows(None, now)));
    }

    #[test]
    fn a_segment_may_go_a_millisecond_ahead_and_not_more() {
        let at = |us: u64| Instant::from_us(5_000_000 + us);
        let mut p = Pacing::default();
        // A thousand octets at a million per second: a millisecond each.
        p.sent(Some(1_000_000), 1000, at(0));
        assert_eq!((p.next, p.wake_at), (at(1000), None), "the next one may go at once");
        assert!(p.allows(Some(1_000_000), at(0)));
        p.sent(Some(1_000_000), 1, at(0));
        assert_eq!((p.next, p.wake_at), (at(1001), Some(at(1001))));
        assert!(!p.allows(Some(1_000_000), at(0)) && p.allows(Some(1_000_000), at(1)));
        // Without a pace nothing moves.
        p.sent(None, 1_000_000, at(0));
        assert_eq!(p.next, at(1001));
        p.sent(Some(2_000_000), 1000, at(9000));
        assert_eq!((p.next, p.wake_at), (at(9500), None));
    }
}

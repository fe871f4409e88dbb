//! Saying it again: the only cure the channel needs for a lost frame.
//!
//! Whatever waits for an answer is repeated, each time after twice as long, until the answer is there or whoever
//! started it gives up. Repeating is harmless, because every message of the channel is idempotent.

use std::time::{Duration, Instant};

/// When something is to be said again.
#[derive(Clone, Debug)]
pub(crate) struct Repeat {
    due: Option<Instant>,
    interval: Duration,
    first: Duration,
    max: Duration,
    fired: u32,
}

impl Repeat {
    /// Not running. The first repetition comes after `first`, later ones after twice as long each, at most `max`.
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { due: None, interval: first, first, max, fired: 0 }
    }

    /// From now on, with the first interval.
    pub(crate) fn start(&mut self, now: Instant) {
        self.interval = self.first;
        self.due = Some(now + self.first);
        self.fired = 0;
    }

    /// From now on, unless it runs already.
    pub(crate) fn start_if_stopped(&mut self, now: Instant) {
        if self.due.is_none() {
            self.start(now);
        }
    }

    /// The answer is there.
    pub(crate) fn stop(&mut self) {
        self.due = None;
    }

    /// Whether an answer is waited for.
    pub(crate) fn is_running(&self) -> bool {
        self.due.is_some()
    }

    /// When [`Repeat::expired`] is next true.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// How often it was said again since the start.
    pub(crate) fn fired(&self) -> u32 {
        self.fired
    }

    /// Whether it is time to say it again; if so, the next time is set.
    pub(crate) fn expired(&mut self, now: Instant) -> bool {
        match self.due {
            Some(due) if due <= now => {
                self.interval = (self.interval * 2).min(self.max);
                self.due = Some(now + self.interval);
                self.fired += 1;
                true
            }
            _ => false,
        }
    }
}

/// The earlier of two times, of which either may be "never".
pub(crate) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_up_to_the_greatest() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut repeat = Repeat::new(ms(50), ms(120));
        assert!(!repeat.expired(start + ms(1_000)), "it does not run");
        repeat.start(start);
        let mut times = Vec::new();
        for t in 0..500 {
            if repeat.expired(start + ms(t)) {
                times.push(t);
            }
        }
        assert_eq!(times, [50, 150, 270, 390]);
        assert_eq!(repeat.fired(), 4);
        repeat.stop();
        assert_eq!((repeat.due(), repeat.is_running()), (None, false));
    }
}

//! What the firmware perceives of time, and whether it runs at all: where faults of the clock and of the processor strike.
//!
//! Every call on the firmware goes through [`Firmware::perceive`]. While nothing is armed, and no clock is bent, that is one
//! branch. A bent clock never goes back: what it has gained or lost it keeps when the fault is over, and when all faults
//! are disarmed.
//!
//! A processor that *hangs* for ever, or *crashes*, has halted ([`Firmware::halt`]), and only a reset helps. One that hangs
//! for a time does nothing until then, and frames that come meanwhile are lost. A *slow* one takes as many times the
//! steps for everything; one without a limit (`limits.work_units_per_us` of zero) is then one of [`USUAL_STEPS_PER_US`].
//! As ever it is never behind by more than `DEBT_US_MAX`: slower than that nothing gets.

use crate::engine::{Firmware, Halt};
use crate::fault::{Action, FOR_EVER, Site};
use crate::time::{Duration, Instant};

/// The speed of a processor that is made slower and had no limit before: so many steps in a microsecond.
pub const USUAL_STEPS_PER_US: u64 = 20;

/// How the clock runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Rate {
    /// As the host's.
    #[default]
    Usual,
    /// Not at all.
    Stopped,
    /// So many times slower.
    Slower(u64),
}

/// The clock: a line from a point on.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    /// The host's time there, in microseconds.
    host_us: u64,
    /// What the firmware saw there.
    seen_us: u64,
    rate: Rate,
    /// When it runs as usual again, by the host's time.
    until_us: u64,
}

impl Clock {
    fn seen(&self, host_us: u64) -> u64 {
        let gone = host_us.saturating_sub(self.host_us);
        let gone = match self.rate {
            Rate::Usual => gone,
            Rate::Stopped => 0,
            Rate::Slower(times) => gone / times.max(1),
        };
        self.seen_us.saturating_add(gone)
    }

    /// Begins a line at the host's time, with that rate.
    fn turn(&mut self, host_us: u64, rate: Rate, until_us: u64) {
        *self = Self { host_us, seen_us: self.seen(host_us), rate, until_us };
    }

    /// What it says at the host's time.
    fn read(&mut self, host_us: u64) -> u64 {
        if self.rate != Rate::Usual && host_us >= self.until_us {
            self.turn(self.until_us, Rate::Usual, FOR_EVER);
        }
        self.seen(host_us)
    }

    /// What it would say at the host's time.
    fn says(&self, host_us: u64) -> u64 {
        let mut clock = *self;
        clock.read(host_us)
    }

    /// When it will say that, by the host's time; `None` if never. Perhaps before: then it is asked again.
    fn when(&self, seen_us: u64) -> Option<u64> {
        let ahead = seen_us.saturating_sub(self.seen_us);
        let host_us = match self.rate {
            Rate::Usual => self.host_us.saturating_add(ahead),
            Rate::Stopped => self.until_us,
            Rate::Slower(times) => self.host_us.saturating_add(ahead.saturating_mul(times)).min(self.until_us),
        };
        (host_us != FOR_EVER).then_some(host_us)
    }
}

/// What is not as usual.
#[derive(Clone, Copy, Debug)]
pub struct Perception {
    /// Everything is.
    is_plain: bool,
    is_bent: bool,
    clock: Clock,
    /// The processor does nothing until then.
    still_until_us: u64,
    slow_until_us: u64,
    /// The last of the host's times that was seen.
    last_us: u64,
}

impl Perception {
    /// Everything as usual.
    pub const PLAIN: Self = Self {
        is_plain: true,
        is_bent: false,
        clock: Clock { host_us: 0, seen_us: 0, rate: Rate::Usual, until_us: 0 },
        still_until_us: 0,
        slow_until_us: 0,
        last_us: 0,
    };

    /// Faults are armed.
    pub fn armed(&mut self) {
        self.is_plain = false;
    }

    /// They are disarmed: what was to last until then is over.
    pub fn disarmed(&mut self) {
        if self.clock.rate != Rate::Usual {
            self.clock.turn(self.last_us, Rate::Usual, FOR_EVER);
        }
        (self.still_until_us, self.slow_until_us) = (0, 0);
        self.is_plain = !self.is_bent;
    }
}

impl Firmware {
    /// What the firmware takes the host's time for; `None` if it does nothing now.
    #[inline]
    pub(super) fn perceive(&mut self, now: Instant) -> Option<Instant> {
        if self.perception.is_plain { Some(now) } else { self.perceive_oddly(now) }
    }

    /// Whether faults are armed, or something is not as usual.
    #[inline]
    pub(super) fn perceives_oddly(&self) -> bool {
        !self.perception.is_plain
    }

    #[cold]
    #[inline(never)]
    fn perceive_oddly(&mut self, now: Instant) -> Option<Instant> {
        let host_us = now.as_us();
        self.perception.last_us = host_us;
        if self.halted().is_some() || host_us < self.perception.still_until_us {
            return None;
        }
        if self.perception.slow_until_us != 0 && host_us >= self.perception.slow_until_us {
            self.perception.slow_until_us = 0;
            self.processor.slow_down(1);
        }
        self.store.faults.begin(host_us);
        let until = |us: u64| host_us.saturating_add(us);
        match self.store.faults.strike(Site::Processor) {
            Some(Action::Hang(FOR_EVER)) => self.halt(Halt::Hang),
            Some(Action::Hang(us)) => self.perception.still_until_us = until(us),
            Some(Action::Crash) => self.halt(Halt::Crash),
            Some(Action::CrashKept) => self.halt(Halt::CrashKept),
            Some(Action::Slow { times, lasting_us }) => {
                self.perception.slow_until_us = until(lasting_us);
                self.processor.slow_down(times);
            }
            _ => {}
        }
        if self.halted().is_some() || host_us < self.perception.still_until_us {
            return None;
        }
        let perception = &mut self.perception;
        let clock = &mut perception.clock;
        if let Some(action) = self.store.faults.strike(Site::Clock) {
            clock.read(host_us);
            match action {
                Action::Hang(us) => clock.turn(host_us, Rate::Stopped, until(us)),
                Action::Slow { times, lasting_us } => {
                    clock.turn(host_us, Rate::Slower(times.into()), until(lasting_us));
                }
                Action::Jump(us) => {
                    clock.turn(host_us, Rate::Usual, FOR_EVER);
                    clock.seen_us = clock.seen_us.saturating_add(us);
                }
                _ => {}
            }
            perception.is_bent = true;
        }
        Some(Instant::from_us(clock.read(host_us)))
    }

    /// What the firmware's clock says at the host's time, for questions: nothing strikes.
    #[inline]
    pub(super) fn by_the_firmwares_clock(&self, now: Instant) -> Instant {
        if self.perception.is_plain { now } else { Instant::from_us(self.perception.clock.says(now.as_us())) }
    }

    /// The host's time for one of the firmware's, at which it wants to be called; `None` if that is never.
    #[inline]
    pub(super) fn by_the_hosts_clock(&self, at: Instant) -> Option<Instant> {
        if self.perception.is_plain { Some(at) } else { self.by_a_bent_clock(at) }
    }

    #[cold]
    fn by_a_bent_clock(&self, at: Instant) -> Option<Instant> {
        if self.halted().is_some() {
            return None;
        }
        let host_us = self.perception.clock.when(at.as_us())?.max(self.perception.still_until_us);
        Some(Instant::default() + Duration::from_us(host_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_jumps_stops_and_slows_and_never_goes_back() {
        let mut clock = Clock::default();
        assert_eq!((clock.read(100), clock.when(150)), (100, Some(150)));
        clock.turn(100, Rate::Usual, FOR_EVER);
        clock.seen_us += 1_000;
        assert_eq!((clock.read(110), clock.when(1_150)), (1_110, Some(150)));
        clock.turn(200, Rate::Stopped, 300);
        assert_eq!((clock.read(250), clock.when(2_000)), (1_200, Some(300)));
        assert_eq!((clock.read(310), clock.when(1_250)), (1_210, Some(350)));
        clock.turn(400, Rate::Slower(10), FOR_EVER);
        assert_eq!((clock.read(500), clock.when(1_320)), (1_310, Some(600)));
        clock.turn(500, Rate::Stopped, FOR_EVER);
        assert_eq!((clock.read(9_999), clock.when(1_320)), (1_310, None));
    }
}

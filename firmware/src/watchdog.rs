//! What watches a firmware from outside.
//!
//! A [`Watchdog`] is part of the hardware, not of the firmware: it shares nothing with it but the line on which the firmware's
//! heart beats. At every look ([`LOOK`] apart, if the profile says nothing else) it gives the firmware a call that costs next to nothing and sees whether it was answered. So it
//! counts calls without an answer, not time without a sign: a machine that is slow, or asleep for a while, is not taken
//! for a firmware that hangs. After [`MISSES`] of them in a row the firmware is stopped for good, 75 ms after
//! it stopped by itself at the latest.
//!
//! Once in [`TEST`] it has a firmware that answers try itself ([`Firmware::self_test`]): a key that a flipped bit or a wild pointer has
//! changed to nothing gives sequence numbers that anybody can predict, and nothing else would show it. One that fails is stopped and
//! booted anew, with other keys.
//!
//! What is done then depends on what is known of the tables ([`Halt`]): a firmware that has crashed between two calls is
//! started over them, any other is booted anew. Tables that let it crash twice within [`TRUST`] are not trusted any more.

use crate::engine::{Firmware, Halt};
use crate::time::{Duration, Instant};

/// Between two looks of a watchdog that nobody has set otherwise.
pub const LOOK: Duration = Duration::from_ms(25);

/// Calls in a row without an answer that are enough.
pub const MISSES: u32 = 3;

/// A firmware that crashes again so soon after it was started over its tables is started without them.
pub const TRUST: Duration = Duration::from_s(10);

/// Between two self-tests of a firmware that answers: each takes some microseconds.
pub const TEST: Duration = Duration::from_s(1);

/// What is to be done with a firmware that has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cure {
    /// [`Firmware::reset`].
    Reset,
    /// [`Firmware::restart`].
    Restart,
}

/// Watches one firmware.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    every: Duration,
    due: Instant,
    test_due: Instant,
    missed: u32,
    restarted_at: Option<Instant>,
}

impl Watchdog {
    /// One that looks so often, for the first time right away.
    pub fn new(now: Instant, every: Duration) -> Self {
        Self { every, due: now, test_due: now + TEST, missed: 0, restarted_at: None }
    }

    /// When it wants to look next.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Looks, if it is time; what is to be done, if something is.
    pub fn look(&mut self, now: Instant, firmware: &mut Firmware) -> Option<Cure> {
        if now < self.due {
            return None;
        }
        self.due = now + self.every;
        let before = firmware.heartbeat();
        firmware.beat(now);
        if firmware.heartbeat() != before {
            self.missed = 0;
            return self.test(now, firmware);
        }
        self.missed += 1;
        if self.missed < MISSES {
            return None;
        }
        self.missed = 0;
        let is_kept = firmware.halted() == Some(Halt::CrashKept);
        let again = self.restarted_at.is_some_and(|at| now.since(at) < TRUST);
        if is_kept && !again {
            self.restarted_at = Some(now);
            return Some(Cure::Restart);
        }
        self.restarted_at = None;
        Some(Cure::Reset)
    }

    /// Has a firmware that answers try itself, if it is time.
    fn test(&mut self, now: Instant, firmware: &mut Firmware) -> Option<Cure> {
        if now < self.test_due {
            return None;
        }
        self.test_due = now + TEST;
        if firmware.self_test().is_ok() {
            return None;
        }
        firmware.halt(Halt::SelfTest);
        Some(Cure::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    /// Looks until something is to be done, and says what, and after how long.
    fn watch(b: &mut Bench, dog: &mut Watchdog) -> (Cure, u64) {
        let from = b.now;
        for _ in 0..100 {
            b.now = dog.due().max(b.now);
            if let Some(cure) = dog.look(b.now, &mut b.firmware) {
                return (cure, b.now.since(from).as_ms());
            }
        }
        panic!("nothing was noticed");
    }

    #[test]
    fn a_firmware_that_answers_is_left_alone_even_if_nothing_happens() {
        let mut b = Bench::new();
        let mut dog = Watchdog::new(b.now, LOOK);
        for _ in 0..1000 {
            b.now = dog.due();
            assert_eq!(dog.look(b.now, &mut b.firmware), None);
        }
    }

    #[test]
    fn time_that_nobody_had_is_not_held_against_it() {
        let mut b = Bench::new();
        let mut dog = Watchdog::new(b.now, LOOK);
        assert_eq!(dog.look(b.now, &mut b.firmware), None);
        b.now = b.now + Duration::from_s(60);
        assert_eq!(dog.look(b.now, &mut b.firmware), None);
        b.firmware.halt(Halt::Hang);
        b.now = b.now + Duration::from_s(60);
        assert_eq!(dog.look(b.now, &mut b.firmware), None, "one look without an answer");
    }

    #[test]
    fn whatever_stops_is_noticed_within_75_ms() {
        for (halt, cure) in [(Halt::Hang, Cure::Reset), (Halt::Crash, Cure::Reset), (Halt::CrashKept, Cure::Restart)] {
            for after_us in [0, 1, 12_000, 24_999] {
                let mut b = Bench::new();
                let mut dog = Watchdog::new(b.now, LOOK);
                assert_eq!(dog.look(b.now, &mut b.firmware), None);
                b.now = b.now + Duration::from_us(after_us);
                b.firmware.halt(halt);
                let (seen, ms) = watch(&mut b, &mut dog);
                assert_eq!(seen, cure, "{halt:?}");
                assert!(ms <= 75, "{halt:?} after {after_us} us: {ms} ms");
            }
        }
    }

    #[test]
    fn tables_that_let_it_crash_again_are_not_trusted() {
        let mut b = Bench::new();
        let mut dog = Watchdog::new(b.now, LOOK);
        b.firmware.halt(Halt::CrashKept);
        assert_eq!(watch(&mut b, &mut dog).0, Cure::Restart);
        b.firmware.restart(b.now);
        b.firmware.halt(Halt::CrashKept);
        assert_eq!(watch(&mut b, &mut dog).0, Cure::Reset);
        b.firmware.reset([9; 32], 2, b.now).unwrap();
        b.firmware.halt(Halt::CrashKept);
        assert_eq!(watch(&mut b, &mut dog).0, Cure::Restart, "that was another boot");
        b.firmware.restart(b.now);
        b.now = b.now + TRUST;
        b.firmware.halt(Halt::CrashKept);
        assert_eq!(watch(&mut b, &mut dog).0, Cure::Restart, "that was long ago");
    }
}

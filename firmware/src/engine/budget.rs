//! The card's processor: so many steps in a microsecond (`limits.work_units_per_us`), and no more.
//!
//! It is one processor that does one thing after another. Every call takes as long as its steps take; what comes while it
//! is busy waits. A frame from the wire that comes then is left with the caller ([`Verdict::Wait`]), which keeps such frames
//! in their order and hands in the oldest again ([`Firmware::handle_waiting`]) when [`Firmware::poll_timeout`] says. How many
//! may wait is `limits.wire_fifo_frames`; the next is dropped and counted (`wire-drop-fifo-full`). A frame that waits is not
//! counted as received until it is taken, passed on or dropped.
//!
//! What the guest sends, what timers do and what is sent costs time, too, and is not refused: the guest's rings are its own
//! queue. Of what the processor owes for these no more than [`DEBT_US_MAX`] is kept, so that a guest that asks for more than
//! it can do does not shut the wire out.
//!
//! Without a limit (zero) a processor is as fast as the machine, and nothing ever waits here. All of it is integers.

use toe_abi::Reason;

use crate::counters::Counter;
use crate::engine::perception::USUAL_STEPS_PER_US;
use crate::engine::{Checksum, Firmware, Verdict};
use crate::store::gauge::Gauge;
use crate::time::Instant;

/// The most microseconds of work that the processor can be behind.
pub const DEBT_US_MAX: u64 = 1000;

/// The processor.
#[derive(Debug)]
pub struct Processor {
    /// Steps in a microsecond; zero if there is no limit.
    steps_per_us: u64,
    /// The same as the profile has it.
    usual_steps_per_us: u64,
    /// Everything takes so many times its steps.
    slower: u64,
    /// When all of its work is done, in steps since time began.
    free_at: u64,
    /// Frames that wait for it.
    pub waiting: Gauge,
}

impl Processor {
    /// One of that speed, for which as many frames may wait as the gauge says.
    pub fn new(steps_per_us: u32, waiting: Gauge) -> Self {
        let steps_per_us = steps_per_us.into();
        Self { steps_per_us, usual_steps_per_us: steps_per_us, slower: 1, free_at: 0, waiting }
    }

    /// It is so many times slower from here on; one is as usual.
    pub fn slow_down(&mut self, times: u32) {
        self.slower = times.max(1).into();
        let usual = self.usual_steps_per_us;
        let speed = if usual == 0 && times > 1 { USUAL_STEPS_PER_US } else { usual };
        if speed != self.steps_per_us {
            (self.steps_per_us, self.free_at) = (speed, 0);
        }
    }

    /// Whether it is done before this microsecond ends.
    fn has_time(&self, now: Instant) -> bool {
        self.steps_per_us == 0 || self.free_at < (now.as_us() + 1).saturating_mul(self.steps_per_us)
    }

    /// It has done so many steps.
    pub fn work(&mut self, now: Instant, steps: u64) {
        let now = now.as_us().saturating_mul(self.steps_per_us);
        let most = now.saturating_add(DEBT_US_MAX * self.steps_per_us);
        self.free_at = self.free_at.max(now).saturating_add(steps.saturating_mul(self.slower)).min(most);
    }

    /// When the next frame that waits can be taken; `None` if none waits.
    pub fn next(&self) -> Option<Instant> {
        (self.waits() && self.steps_per_us > 0).then(|| Instant::from_us(self.free_at / self.steps_per_us))
    }

    fn waits(&self) -> bool {
        self.waiting.in_use() > self.waiting.lost()
    }
}

impl Firmware {
    /// A frame from the wire that has just come: whether the processor takes it now. If not, what becomes of it.
    pub(super) fn admit_frame(&mut self, now: Instant) -> Result<(), Verdict> {
        if !self.processor.waits() && self.processor.has_time(now) {
            return Ok(());
        }
        if self.processor.waiting.admits() && self.processor.waiting.take(1) {
            return Err(Verdict::Wait);
        }
        self.processor.waiting.refuse(Reason::ProcessorBusy);
        self.store.counters.add(Counter::WireIn);
        self.store.counters.add(Counter::WireDropFifoFull);
        Err(Verdict::Taken)
    }

    /// Takes the oldest frame for which [`Firmware::handle_wire`] or this said [`Verdict::Wait`].
    pub fn handle_waiting(&mut self, now: Instant, frame: &[u8], checksum: Checksum) -> Verdict {
        let Some(now) = self.perceive(now) else {
            self.processor.waiting.give_back(1);
            return self.halted_at_wire();
        };
        if !self.processor.has_time(now) {
            return Verdict::Wait;
        }
        debug_assert!(self.processor.waits(), "no frame waits");
        self.processor.waiting.give_back(1);
        self.take_frame(now, frame, checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use crate::time::Duration;

    fn at(us: u64) -> Instant {
        Instant::from_us(us)
    }

    #[test]
    fn a_processor_does_one_thing_after_another() {
        let mut p = Processor::new(10, Gauge::new("wire-fifo", "deny", 2));
        assert!(p.has_time(at(5)));
        p.work(at(5), 9);
        assert!(p.has_time(at(5)), "a step is left in this microsecond");
        p.work(at(5), 26);
        // 35 steps are three microseconds and a half.
        assert!(!p.has_time(at(5)) && !p.has_time(at(7)) && p.has_time(at(8)));
        assert_eq!(p.next(), None);
        assert!(p.waiting.take(1));
        assert_eq!(p.next(), Some(at(8)));
        // Time that was not used is gone.
        p.work(at(100), 10);
        assert!(!p.has_time(at(100)) && p.has_time(at(101)));
        // Debts are bounded.
        p.work(at(200), 1_000_000);
        assert!(!p.has_time(at(200 + DEBT_US_MAX - 1)) && p.has_time(at(200 + DEBT_US_MAX)));
        let mut unlimited = Processor::new(0, Gauge::new("wire-fifo", "deny", 2));
        unlimited.work(at(1), u64::MAX);
        assert!(unlimited.has_time(at(0)));
    }

    /// A listener on a card with a slow processor: a SYN takes it some microseconds.
    fn slow() -> (Bench, Vec<Vec<u8>>) {
        let mut b = Bench::with(|p| {
            p.limits.work_units_per_us = 1;
            p.limits.wire_fifo_frames = 3;
        });
        b.listen();
        // The bench's guest has just said something.
        b.now = b.now + Duration::from_ms(1);
        let frames = (0..6).map(|_| {
            b.another_port(false);
            b.frame("S 0 <mss 1000>")
        });
        let frames = frames.collect();
        (b, frames)
    }

    #[test]
    fn what_comes_while_it_is_busy_waits_and_then_is_dropped() {
        let (mut b, frames) = slow();
        let now = b.now;
        let verdicts: Vec<_> = frames.iter().map(|f| b.firmware.handle_wire(now, f, Checksum::Unverified)).collect();
        use Verdict::{Taken, Wait};
        assert_eq!(verdicts, [Taken, Wait, Wait, Wait, Taken, Taken]);
        assert_eq!((b.in_use("wire-fifo"), b.count("wire-drop-fifo-full"), b.in_use("half-open")), (3, 2, 1));
        // Those that wait are not accounted for yet.
        assert_eq!((b.count("wire-in"), b.accounted()), (3, 3));
        assert_eq!(b.firmware.handle_waiting(now, &frames[1], Checksum::Unverified), Wait);
        let mut taken = 0;
        let mut last = now;
        for frame in &frames[1..4] {
            let due = b.firmware.poll_timeout().unwrap();
            assert!(due > last, "{due:?}");
            last = due;
            assert_eq!(b.firmware.handle_waiting(due, frame, Checksum::Unverified), Taken);
            taken += 1;
        }
        assert_eq!((taken, b.in_use("wire-fifo"), b.in_use("half-open")), (3, 0, 4));
        assert_eq!((b.count("wire-in"), b.accounted()), (6, 6));
    }

    #[test]
    fn a_frame_does_not_overtake_those_that_wait() {
        let (mut b, frames) = slow();
        let now = b.now;
        let _ = b.firmware.handle_wire(now, &frames[0], Checksum::Unverified);
        assert_eq!(b.firmware.handle_wire(now, &frames[1], Checksum::Unverified), Verdict::Wait);
        let later = now + Duration::from_ms(5);
        assert_eq!(b.firmware.handle_wire(later, &frames[2], Checksum::Unverified), Verdict::Wait);
        for frame in &frames[1..3] {
            let due = b.firmware.poll_timeout().unwrap().max(later);
            assert_eq!(b.firmware.handle_waiting(due, frame, Checksum::Unverified), Verdict::Taken);
        }
        assert_eq!(b.in_use("wire-fifo"), 0);
    }

    #[test]
    fn timers_and_the_guest_take_time_too() {
        let (mut b, frames) = slow();
        // A message of the guest: it is served, and the wire waits for it.
        b.addresses(&[b.local.ip; 4]);
        assert_eq!(b.firmware.handle_wire(b.now, &frames[0], Checksum::Unverified), Verdict::Wait);
        let due = b.firmware.poll_timeout().unwrap();
        assert_eq!(b.firmware.handle_waiting(due, &frames[0], Checksum::Unverified), Verdict::Taken);
        // The SYN-ACK's timer.
        let due = due + Duration::from_ms(1001);
        b.firmware.handle_timeout(due);
        assert_eq!(b.firmware.handle_wire(due, &frames[1], Checksum::Unverified), Verdict::Wait);
    }
}

//! What each call on the firmware has cost, in steps ([`crate::work`]).

use crate::engine::Firmware;
use crate::fault::{Action, Site};
use crate::time::Instant;

/// The calls whose work is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Call {
    /// [`Firmware::handle_wire`].
    HandleWire,
    /// [`Firmware::handle_guest`].
    HandleGuest,
    /// [`Firmware::handle_timeout`].
    HandleTimeout,
    /// [`Firmware::poll_wire`].
    PollWire,
    /// [`Firmware::poll_guest`].
    PollGuest,
    /// The scrubber's part of [`Firmware::handle_timeout`] and [`Firmware::beat`].
    Scrub,
}

impl Call {
    const COUNT: usize = 6;
}

/// The work of a card since boot, in steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// All steps.
    pub total: u64,
    /// Those of the last call.
    pub last: u64,
    /// The most that one call of each kind took.
    most: [u64; Call::COUNT],
}

impl Work {
    /// The most that one call of that kind took, in steps.
    pub fn most(&self, call: Call) -> u64 {
        self.most[call as usize]
    }
}

impl Firmware {
    /// What it has cost so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Begins the maxima anew: what was before does not count in [`Work::most`].
    pub fn forget_most_work(&mut self) {
        self.work.most = [0; Call::COUNT];
    }

    /// Steps so far, those of the call under way included.
    pub(super) fn steps(&self) -> u64 {
        self.tuples.steps.count()
            + self.local_ends.steps.count()
            + self.wheel.steps.count()
            + self.cookies.steps.count()
            + self.store.steps.count()
            + self.store.send.steps.count()
            + self.store.receive.steps.count()
            + self.store.records.steps.count()
    }

    /// A step for what is looked at in a loop.
    pub(super) fn one_step<T>(&self, looked_at: T) -> T {
        self.store.steps.one();
        looked_at
    }

    /// A call is over: it costs a step for itself, if it did something, and those that were taken.
    pub(super) fn worked(&mut self, call: Call, did: bool, now: Instant) {
        self.beats += 1;
        self.store.steps.add(did.into());
        let total = self.steps();
        self.work.last = total - self.work.total;
        self.work.total = total;
        let most = &mut self.work.most[call as usize];
        *most = (*most).max(self.work.last);
        self.processor.work(now, self.work.last);
        if let Some(Action::Corrupt(Some(value))) = self.store.faults.strike(Site::Counters) {
            self.store.counters.corrupt(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;

    fn transfer() -> Bench {
        let mut b = Bench::established();
        b.firmware.forget_most_work();
        for n in 0..20u32 {
            b.send(1000);
            b.peer(&format!("A 1 ack {}", 1001 + 1000 * n));
            b.peer(&format!("PA {}:{} ack {}", 1 + 100 * n, 101 + 100 * n, 1001 + 1000 * n));
        }
        b
    }

    #[test]
    fn every_call_costs_something_and_the_same_calls_the_same() {
        let (a, b) = (transfer().firmware.work(), transfer().firmware.work());
        assert_eq!(a, b);
        for call in [Call::HandleWire, Call::HandleGuest, Call::PollWire, Call::PollGuest] {
            assert!((1..=64).contains(&a.most(call)), "{call:?}: {}", a.most(call));
        }
        assert!(a.total > 100);
    }

    #[test]
    fn maxima_can_begin_anew() {
        let mut b = transfer();
        b.firmware.forget_most_work();
        assert_eq!(b.firmware.work().most(Call::HandleWire), 0);
        b.peer("A 2001 ack 20001");
        assert_eq!(b.firmware.work().most(Call::HandleWire), b.firmware.work().most(Call::HandleWire).clamp(2, 20));
    }
}

//! The timers of all objects, numbered, and what happens when one fires.

use crate::counters::Counter;
use crate::engine::{Call, Firmware};
use crate::fault::Site;
use crate::profile::Limits;
use crate::store::slab::Slot;
use crate::store::wheel::{Timer, Turn};
use crate::tcp::half_open::{Opening, SYN_ACK_TIMEOUT};
use crate::tcp::timeout::{self, Kind};
use crate::time::Instant;

/// Which numbers are whose.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    half_open: Timer,
    time_wait: Timer,
    contexts: Timer,
    count: Timer,
}

const KINDS: u32 = Kind::ALL.len() as u32;

enum Whose {
    Connection(Slot, Kind),
    HalfOpen(Slot),
    TimeWait(Slot),
    Context(Slot),
}

impl Timers {
    /// One for each object and purpose.
    pub fn new(limits: &Limits) -> Self {
        let half_open = limits.connections * KINDS;
        let time_wait = half_open + limits.half_open;
        let contexts = time_wait + limits.time_wait;
        Self { half_open, time_wait, contexts, count: contexts + limits.contexts }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// A connection's.
    pub fn connection(&self, slot: Slot, kind: Kind) -> Timer {
        slot * KINDS + kind as u32
    }

    /// A half-open entry's.
    pub fn half_open(&self, slot: Slot) -> Timer {
        self.half_open + slot
    }

    /// A TIME-WAIT entry's.
    pub fn time_wait(&self, slot: Slot) -> Timer {
        self.time_wait + slot
    }

    /// A context's lease.
    pub fn context(&self, slot: Slot) -> Timer {
        self.contexts + slot
    }

    /// The site of a timer.
    pub fn site(&self, timer: Timer) -> Site {
        match self.whose(timer) {
            Whose::Connection(_, kind) => Site::timer(kind),
            Whose::HalfOpen(_) => Site::TimerHalfOpen,
            Whose::TimeWait(_) => Site::TimerTimeWait,
            Whose::Context(_) => Site::TimerLease,
        }
    }

    fn whose(&self, timer: Timer) -> Whose {
        if timer < self.half_open {
            Whose::Connection(timer / KINDS, Kind::ALL[(timer % KINDS) as usize])
        } else if timer < self.time_wait {
            Whose::HalfOpen(timer - self.half_open)
        } else if timer < self.contexts {
            Whose::TimeWait(timer - self.time_wait)
        } else {
            Whose::Context(timer - self.contexts)
        }
    }
}

/// A call begins with another timer while it has taken fewer steps than this: so it takes no more than this and what one timer
/// takes.
pub const TIMER_STEPS: u64 = 64;

impl Firmware {
    /// When `handle_timeout` wants to be called next. May change with every other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = [self.wheel.next(), self.processor.next(), self.announcement.due(), self.patience.due()];
        let next = own.into_iter().flatten().min();
        next.and_then(|at| self.by_the_hosts_clock(at))
    }

    /// Does what is due at `now`, as much of it as [`TIMER_STEPS`] allow; the rest is due at once ([`Self::poll_timeout`]).
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(now) = self.perceive(now) else { return };
        if self.scrub(now) {
            self.worked(Call::Scrub, false, now);
        }
        self.run_out_of_patience(now);
        self.run_timers(now);
        self.worked(Call::HandleTimeout, false, now);
    }

    fn run_timers(&mut self, now: Instant) {
        let begun = self.steps();
        while self.steps() - begun < TIMER_STEPS {
            let timer = match self.wheel.turn(now) {
                Turn::Due(timer) => timer,
                Turn::Falls => continue,
                Turn::Rest => return,
            };
            match self.timers.whose(timer) {
                Whose::Connection(slot, kind) => {
                    if !self.is_sound(slot, now) {
                        continue;
                    }
                    let (mut times, mut seen) = (1, now);
                    if self.perceives_oddly() {
                        self.about_connection(slot);
                        let deadline = timeout::deadline(&self.connections[slot], kind);
                        (times, seen) = self.run_held(timer, deadline, now);
                    }
                    for _ in 0..times {
                        timeout::fired(&mut self.connections[slot], &mut self.store, kind, seen);
                    }
                    self.settle(slot, now);
                }
                Whose::HalfOpen(slot) => {
                    let (times, _) = self.run_held(timer, None, now);
                    for _ in 0..times {
                        if self.half_open.in_use(slot) {
                            self.half_open_timeout(slot, now);
                        }
                    }
                }
                Whose::TimeWait(slot) => {
                    self.run_held(timer, None, now);
                    self.forget_time_wait(slot);
                }
                Whose::Context(slot) => {
                    let (times, _) = self.run_held(timer, None, now);
                    for _ in 0..times {
                        if self.contexts.in_use(slot) {
                            self.lease_timeout(slot, now);
                        }
                    }
                }
            }
        }
    }

    fn half_open_timeout(&mut self, slot: Slot, now: Instant) {
        if self.half_open[slot].retries() >= self.store.config.syn_ack_retries {
            self.store.counters.add(Counter::TcpHalfOpenTimedOut);
            self.forget_half_open(slot, now);
        } else {
            self.store.counters.add(Counter::TcpRetransmits);
            self.half_open[slot].send_again();
            self.send_syn_ack(slot, now);
        }
    }

    /// Sends a SYN-ACK for the first time: `opening` is what the entry was just made of, so that nothing need be derived again.
    pub(super) fn send_first_syn_ack(&mut self, slot: Slot, opening: &Opening, now: Instant) {
        debug_assert!(
            self.store.faults.is_armed()
                || opening.syn_ack(&self.store.config, now) == self.opening(slot, now).syn_ack(&self.store.config, now)
        );
        let headers = opening.syn_ack(&self.store.config, now);
        self.arm_timer(self.timers.half_open(slot), now + SYN_ACK_TIMEOUT);
        self.send_segment(headers);
    }

    /// Sends a SYN-ACK again, and waits twice as long as the last time.
    pub(super) fn send_syn_ack(&mut self, slot: Slot, now: Instant) {
        let wait = SYN_ACK_TIMEOUT.backed_off(self.half_open[slot].retries(), self.store.config.rto_max);
        let headers = self.opening(slot, now).syn_ack(&self.store.config, now);
        self.arm_timer(self.timers.half_open(slot), now + wait);
        self.send_segment(headers);
    }
}

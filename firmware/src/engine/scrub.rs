//! The scrubber: goes over the card's tables, a few places at a time, for what is lost, left or damaged there.
//!
//! Nothing of a frame's way rests on it. It is for what should not happen: a place that somebody took and nobody has, a page
//! that stands nowhere, a timer that did not start and would be waited for for ever, a place in the table of 4-tuples whose
//! owner is gone, a pool whose gauge says something else than what it is made of. What is found is put right where that is
//! possible, and always counted and told ([`Finding`]).
//!
//! It looks at [`crate::profile::Recovery::scrub_steps`] places in a call of [`Firmware::handle_timeout`] or [`Firmware::beat`], and no more often than every
//! [`REST`]; each look is a step ([`crate::work`]). With a watchdog, that calls every 25 ms if nobody else does, a pass over a card of the default
//! profile takes [`Firmware::scrub_pass`].
//!
//! What each thing is measured by is something that the thing itself does not keep: a page by where it stands, a timer by what
//! follows from the block, an entry by whether the table leads to it, a gauge by what its pool is made of.

use crate::counters::Counter;
use crate::engine::{Finding, Firmware, Owner};
use crate::pool::Pool;
use crate::store::slab::Slot;
use crate::tcp::half_open::SYN_ACK_TIMEOUT;
use crate::tcp::timeout::{self, Kind};
use crate::time::{Duration, Instant};

/// The least time between two calls that scrub.
pub const REST: Duration = Duration::from_ms(10);

/// A timer that is set so much later than the block says is stuck.
const LATE: Duration = Duration::from_s(1);

/// Pages, records and places of the table of 4-tuples, of which each is a word or two, are looked at so many at a time.
const GROUP: u64 = 8;

/// Where the scrubber stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scrubber {
    at: u64,
    due: Instant,
    passes: u64,
}

impl Firmware {
    /// How often the scrubber has been through all tables.
    pub fn scrubbed(&self) -> u64 {
        self.scrubber.passes
    }

    /// How long a pass takes at most if [`Firmware::handle_timeout`] is called at least every `every`; `None` if there is no
    /// scrubber.
    pub fn scrub_pass(&self, every: Duration) -> Option<Duration> {
        let steps = u64::from(self.profile.recovery.scrub_steps);
        let calls = self.scrub_places().iter().sum::<u64>().checked_div(steps)? + 1;
        Some(Duration::from_us(calls * every.as_us().max(REST.as_us())))
    }

    /// How many looks at each kind there are, in the order in which they are looked at.
    fn scrub_places(&self) -> [u64; 10] {
        [
            self.connections.capacity().into(),
            self.half_open.capacity().into(),
            self.time_wait.capacity().into(),
            self.contexts.capacity().into(),
            self.listeners.capacity().into(),
            self.store.send.count().div_ceil(GROUP),
            self.store.receive.count().div_ceil(GROUP),
            self.store.records.count().div_ceil(GROUP),
            self.tuples.places().div_ceil(GROUP),
            Pool::ALL.len() as u64 + 1,
        ]
    }

    /// Looks at the next places, if it is time; whether it was.
    pub(super) fn scrub(&mut self, now: Instant) -> bool {
        if now < self.scrubber.due || self.profile.recovery.scrub_steps == 0 {
            return false;
        }
        self.scrubber.due = now + REST;
        for _ in 0..self.profile.recovery.scrub_steps {
            self.store.steps.one();
            let mut at = self.scrubber.at;
            let places = self.scrub_places();
            let kind = places.iter().position(|count| match at.checked_sub(*count) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            });
            let Some(kind) = kind else {
                self.scrubber.at = 0;
                self.scrubber.passes += 1;
                break;
            };
            self.scrubber.at += 1;
            self.look(kind, at as u32, now);
        }
        true
    }

    fn look(&mut self, kind: usize, place: u32, now: Instant) {
        match kind {
            0 => self.look_at_connection(place, now),
            1 => self.look_at_half_open(place, now),
            2 => self.look_at_time_wait(place, now),
            3 => self.look_at_context(place, now),
            4 => self.look_at_listener(place),
            5 => self.look_at_group(place, self.store.send.count(), |f, page| {
                f.store.send.recover(page).then_some(Finding::PageLost)
            }),
            6 => self.look_at_group(place, self.store.receive.count(), |f, page| {
                f.store.receive.recover(page).then_some(Finding::PageLost)
            }),
            7 => self.look_at_group(place, self.store.records.count(), |f, record| {
                f.store.records.recover(record).then_some(Finding::RecordLost)
            }),
            8 => self.look_at_group(place, self.tuples.places(), Self::look_at_tuple),
            _ => match Pool::ALL.get(place as usize) {
                Some(pool) => self.look_at_pool(*pool),
                None => self.look_at_counters(),
            },
        }
    }

    fn look_at_group(&mut self, group: u32, count: u64, look: impl Fn(&mut Self, u32) -> Option<Finding>) {
        let first = u64::from(group) * GROUP;
        for place in first..count.min(first + GROUP) {
            if let Some(finding) = look(self, place as u32) {
                self.found(finding, place as u32);
            }
        }
    }

    fn look_at_connection(&mut self, slot: Slot, now: Instant) {
        if !self.connections.in_use(slot) {
            let timers = Kind::ALL.map(|kind| self.timers.connection(slot, kind));
            if timers.iter().any(|timer| self.wheel.is_armed(*timer)) {
                timers.iter().for_each(|timer| self.wheel.disarm(*timer));
                self.found(Finding::TimerLeft, slot);
            }
            return;
        }
        let t = &self.connections[slot];
        if t.is_over() && !t.send.stream.is_open() {
            self.found(Finding::PlaceLost, slot);
            return self.settle(slot, now);
        }
        if !self.is_sound(slot, now) {
            return;
        }
        let t = &self.connections[slot];
        if self.wire_links.is_queued(slot) {
            // It has its turn before it, and is settled then.
            return;
        }
        let is_wrong =
            |kind| match (self.wheel.deadline(self.timers.connection(slot, kind)), timeout::deadline(t, kind)) {
                (Some(set), Some(due)) => set.since(due) > LATE,
                (set, due) => set.is_some() != due.is_some(),
            };
        if Kind::ALL.into_iter().any(is_wrong) {
            self.found(Finding::TimerLost, slot);
            // Whatever keeps them: they are stopped, and begin anew.
            for kind in Kind::ALL {
                self.disarm_timer(self.timers.connection(slot, kind));
            }
            self.settle(slot, now);
        }
    }

    fn look_at_half_open(&mut self, slot: Slot, now: Instant) {
        if !self.half_open.in_use(slot) {
            return;
        }
        let tuple = self.half_open_tuple(slot);
        let is_owned = self.owner(&tuple) == Some(Owner::HalfOpen(slot));
        let timer = self.timers.half_open(slot);
        match (self.wheel.is_armed(timer), is_owned) {
            (true, true) => {}
            (false, true) => {
                self.found(Finding::TimerLost, slot);
                let wait = SYN_ACK_TIMEOUT.backed_off(self.half_open[slot].retries(), self.store.config.rto_max);
                self.disarm_timer(timer);
                self.arm_timer(timer, now + wait);
            }
            // Under its 4-tuple nobody would find it: it ends by its own timer.
            (true, false) => {}
            (false, false) => {
                self.found(Finding::PlaceLost, slot);
                self.half_open.give(slot);
            }
        }
    }

    fn look_at_time_wait(&mut self, slot: Slot, now: Instant) {
        if !self.time_wait.in_use(slot) || self.time_wait[slot].parked {
            return;
        }
        let tuple = self.time_wait[slot].tuple;
        let is_owned = self.owner(&tuple) == Some(Owner::TimeWait(slot));
        let timer = self.timers.time_wait(slot);
        match (self.wheel.is_armed(timer), is_owned) {
            (true, _) => {}
            (false, true) => {
                self.found(Finding::TimerLost, slot);
                self.disarm_timer(timer);
                self.arm_timer(timer, now + self.store.config.time_wait);
            }
            (false, false) => {
                self.found(Finding::PlaceLost, slot);
                self.time_wait.give(slot);
            }
        }
    }

    fn look_at_context(&mut self, slot: Slot, now: Instant) {
        if !self.contexts.in_use(slot) || self.wheel.is_armed(self.timers.context(slot)) {
            return;
        }
        let context = &self.contexts[slot];
        if context.heard_at + context.lease > now || context.connections > 0 || context.listeners > 0 {
            self.found(Finding::TimerLost, slot);
            self.disarm_timer(self.timers.context(slot));
            self.arm_lease(slot);
        } else {
            self.found(Finding::PlaceLost, slot);
            self.contexts.give(slot);
        }
    }

    fn look_at_listener(&mut self, slot: Slot) {
        if self.listeners.in_use(slot) && self.listener_at(&self.listeners[slot].local) != Some(slot) {
            self.found(Finding::PlaceLost, slot);
            self.listeners.give(slot);
        }
    }

    fn look_at_tuple(&mut self, place: u32) -> Option<Finding> {
        let (hash, value) = self.tuples.at(place)?;
        let owner = Owner::from_u32(value);
        let tuple = match owner {
            Owner::Connection(slot) if slot < self.connections.capacity() && self.connections.in_use(slot) => {
                self.connections[slot].in_table.then_some(self.connections[slot].tuple)
            }
            Owner::HalfOpen(slot) if slot < self.half_open.capacity() && self.half_open.in_use(slot) => {
                Some(self.half_open_tuple(slot))
            }
            Owner::TimeWait(slot) if slot < self.time_wait.capacity() && self.time_wait.in_use(slot) => {
                (!self.time_wait[slot].parked).then_some(self.time_wait[slot].tuple)
            }
            _ => None,
        };
        let is_left = tuple.is_none_or(|tuple| self.tuple_place(&tuple) as u32 != hash);
        if is_left {
            self.tuples.remove_at(place);
        }
        is_left.then_some(Finding::TupleLeft)
    }

    /// What a pool is made of, counted by what is not its gauge; `None` where that would take more than a look.
    fn made_of(&self, pool: Pool) -> Option<u64> {
        Some(match pool {
            Pool::Contexts => self.contexts.used(),
            Pool::Connections => self.connections.used(),
            Pool::Listeners => self.listeners.used(),
            Pool::HalfOpen => self.half_open.used(),
            Pool::TimeWait => self.time_wait.used(),
            Pool::SendPages => self.store.send.promised(),
            Pool::ReceivePages => self.store.receive.promised(),
            Pool::TransmitRecords => self.store.records.promised(),
            Pool::Tuples => self.tuples.used(),
            Pool::Timers => self.wheel.armed(),
            Pool::Segments => self.segments.len() as u64,
            Pool::Replies => self.replies.len() as u64,
            Pool::Events => self.pressure.len() as u64,
            Pool::ContextAddresses => {
                let used = (0..self.contexts.capacity()).filter(|slot| self.one_step(self.contexts.in_use(*slot)));
                used.map(|slot| self.contexts[slot].address_count()).sum()
            }
            Pool::Backlog => {
                let used = (0..self.listeners.capacity()).filter(|slot| self.one_step(self.listeners.in_use(*slot)));
                used.map(|slot| self.listeners[slot].waiting()).sum()
            }
            Pool::OutOfOrderRanges
            | Pool::FastOpenServers
            | Pool::FastOpenPending
            | Pool::WireFifo
            | Pool::ConnectionFifo => return None,
        })
    }

    fn look_at_pool(&mut self, pool: Pool) {
        let Some(count) = self.made_of(pool) else { return };
        if self.gauge(pool).in_use() == count {
            return;
        }
        self.found(Finding::PoolMiscounted, pool as u32);
        // What that has told of levels is told again.
        let count = self.made_of(pool).unwrap_or(count);
        match pool {
            Pool::SendPages => self.store.send.recount(),
            Pool::ReceivePages => self.store.receive.recount(),
            Pool::TransmitRecords => self.store.records.recount(),
            _ => {}
        }
        self.gauge_and_faults(pool).0.correct(count);
    }

    /// The balances that always hold (see `counters`).
    fn look_at_counters(&mut self) {
        for (total, name) in [(Counter::WireIn, "wire"), (Counter::GuestIn, "guest")] {
            let sum = self.store.counters.accounted(name);
            if self.store.counters.get(total) != sum {
                self.store.counters.set(total, sum);
                self.found(Finding::CountersDamaged, total as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests;

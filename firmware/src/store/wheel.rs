//! A hierarchical timer wheel (Varghese and Lauck, 1987): arming and disarming cost the same whatever is pending.
//!
//! Timers are numbered at boot, one entry each. Seven levels of 64 slots; a slot of level `n` is 64^n ticks wide, so
//! the wheel reaches 2^42 ticks, or 18 years. A timer waits in the slot of the highest level at which its
//! deadline's tick differs from the present one and falls to a lower level when time reaches that slot; it expires
//! in the order of ticks, never early. Each level has a word of which slots are occupied.
//!
//! Most timers never expire: what they wait for happens, and they are put off or disarmed. Neither touches their neighbours in
//! the slot: the entry notes it and stays where it is, and when time reaches the slot, it goes where it belongs by then, or out.
//! So the wheel may ask to be called for nothing, once for each time that a timer was left like that.

use super::gauge::Gauge;
use crate::time::{Duration, Instant};
use crate::work::Steps;

const LEVELS: usize = 7;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Microseconds in a tick, as a power of two.
const TICK_BITS: u32 = 7;

/// A timer's number.
pub type Timer = u32;

const NONE: Timer = Timer::MAX;
const UNARMED: u16 = u16::MAX;
/// Timers whose time has come and that were not popped yet.
const DUE: u16 = (LEVELS * SLOTS) as u16;

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: Instant,
    next: Timer,
    previous: Timer,
    list: u16,
    /// Disarmed, and left in its slot until time gets there.
    is_off: bool,
}

/// How many timers fall in one turn at most.
const FALLS: u32 = 16;

/// What a turn of the wheel came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// A timer is due.
    Due(Timer),
    /// Timers fell to a lower level; there may be more to do.
    Falls,
    /// Nothing is due.
    Rest,
}

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    entries: Box<[Entry]>,
    heads: [Timer; LEVELS * SLOTS + 1],
    occupied: [u64; LEVELS],
    /// The tick up to which time has been dealt with.
    tick: u64,
    armed: u64,
    /// What is published: the timers that are armed.
    pub gauge: Gauge,
    /// A step for every timer that falls to a lower level or expires.
    pub steps: Steps,
}

fn tick_of(deadline: Instant) -> u64 {
    // Upwards, so that nothing expires early.
    deadline.as_us().div_ceil(1 << TICK_BITS)
}

impl Wheel {
    /// Bytes of one timer's entry.
    pub const ENTRY_BYTES: usize = size_of::<Entry>();

    /// For timers below the gauge's capacity, from `now` on.
    pub fn new(gauge: Gauge, now: Instant) -> Self {
        let entry = Entry { deadline: Instant::default(), next: NONE, previous: NONE, list: UNARMED, is_off: false };
        Self {
            entries: vec![entry; gauge.capacity() as usize].into(),
            heads: [NONE; LEVELS * SLOTS + 1],
            occupied: [0; LEVELS],
            tick: now.as_us() >> TICK_BITS,
            armed: 0,
            gauge,
            steps: Steps::default(),
        }
    }

    /// Arms a timer, or moves it.
    pub fn arm(&mut self, timer: Timer, deadline: Instant) {
        let entry = &mut self.entries[timer as usize];
        if entry.list == UNARMED || entry.is_off {
            if !self.gauge.admits() {
                return;
            }
            self.armed += 1;
            self.gauge.claim(1);
        }
        entry.is_off = false;
        if entry.list != UNARMED {
            if entry.list != DUE && deadline >= entry.deadline || entry.deadline == deadline {
                // Put off: it waits where it is until time gets there.
                entry.deadline = deadline;
                return;
            }
            self.unlink(timer);
        }
        self.entries[timer as usize].deadline = deadline;
        self.place(timer);
    }

    /// Arms or disarms timers with numbers in a row, from `first` on. Most of them are as they were.
    #[inline]
    pub fn set<const N: usize>(&mut self, first: Timer, deadlines: &[Option<Instant>; N]) {
        for (timer, deadline) in (first..).zip(deadlines) {
            let entry = &self.entries[timer as usize];
            let is_armed = entry.list != UNARMED && !entry.is_off;
            match *deadline {
                Some(at) if is_armed && entry.deadline == at => {}
                Some(at) => self.arm(timer, at),
                None if is_armed => self.disarm(timer),
                None => {}
            }
        }
    }

    /// Whether a timer is armed.
    pub fn is_armed(&self, timer: Timer) -> bool {
        let entry = &self.entries[timer as usize];
        entry.list != UNARMED && !entry.is_off
    }

    /// Disarms a timer, if it is armed.
    pub fn disarm(&mut self, timer: Timer) {
        if !self.is_armed(timer) {
            return;
        }
        self.armed -= 1;
        self.gauge.give_back(1);
        if self.entries[timer as usize].list == DUE {
            self.unlink(timer);
        } else {
            self.entries[timer as usize].is_off = true;
        }
    }

    /// When a timer goes off, if it is armed.
    pub fn deadline(&self, timer: Timer) -> Option<Instant> {
        self.is_armed(timer).then(|| self.entries[timer as usize].deadline)
    }

    /// How many are armed, by what it does itself and not by its gauge.
    pub fn armed(&self) -> u64 {
        self.armed
    }

    /// Goes on by a few steps: a timer whose deadline is not after `now`, disarmed, or some that fall to a lower level. To be
    /// called until [`Turn::Rest`]; who stops before that has the rest left, and [`Self::next`] says so.
    pub fn turn(&mut self, now: Instant) -> Turn {
        let now = now.as_us() >> TICK_BITS;
        let due = self.heads[DUE as usize];
        if due != NONE {
            self.steps.one();
            self.unlink(due);
            self.armed -= 1;
            self.gauge.give_back(1);
            return Turn::Due(due);
        }
        let Some((tick, level, slot)) = self.next_slot() else { return Turn::Rest };
        if tick > now {
            // Nothing is between here and there.
            self.tick = self.tick.max(now);
            return Turn::Rest;
        }
        self.tick = tick;
        let list = level * SLOTS + slot;
        for _ in 0..FALLS {
            let timer = self.heads[list];
            if timer == NONE {
                break;
            }
            self.steps.one();
            let is_off = std::mem::take(&mut self.entries[timer as usize].is_off);
            self.unlink(timer);
            if !is_off {
                self.place(timer);
            }
        }
        Turn::Falls
    }

    /// The next timer whose deadline is not after `now`, disarmed; call again until `None`.
    #[cfg(test)]
    pub fn pop(&mut self, now: Instant) -> Option<Timer> {
        loop {
            match self.turn(now) {
                Turn::Due(timer) => return Some(timer),
                Turn::Falls => {}
                Turn::Rest => return None,
            }
        }
    }

    /// When to call [`Self::turn`] next: not after the first deadline's tick, perhaps before, and perhaps for nothing.
    pub fn next(&self) -> Option<Instant> {
        if self.heads[DUE as usize] != NONE {
            return Some(Instant::default() + Duration::from_us(self.tick << TICK_BITS));
        }
        let (tick, ..) = self.next_slot()?;
        Some(Instant::from_us(tick << TICK_BITS))
    }

    /// The occupied slot that time reaches first: the tick at which it begins (or now, if time stands in it).
    fn next_slot(&self) -> Option<(u64, usize, usize)> {
        let mut first: Option<(u64, usize, usize)> = None;
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = SLOT_BITS * level as u32;
            let here = (self.tick >> shift) as usize & (SLOTS - 1);
            // Slots are used from the one after `here` on; what is behind `here` belongs to the next round.
            let ahead = self.occupied[level].rotate_right(here as u32);
            let distance = ahead.trailing_zeros() as u64;
            let tick = ((self.tick >> shift) + distance) << shift;
            let tick = tick.max(self.tick);
            let slot = (here + distance as usize) & (SLOTS - 1);
            // On equal ticks the higher level goes first: its timers may belong before.
            if first.is_none_or(|(t, ..)| tick <= t) {
                first = Some((tick, level, slot));
            }
        }
        first
    }

    fn place(&mut self, timer: Timer) {
        // A round of the highest level less one slot: a clamped deadline must not land in the slot in which time stands.
        let reach = ((SLOTS as u64) - 1) << (SLOT_BITS * (LEVELS as u32 - 1));
        let tick = tick_of(self.entries[timer as usize].deadline).min(self.tick + reach);
        let list = if tick <= self.tick {
            DUE as usize
        } else {
            // The level of the highest bit in which the deadline differs; clamped deadlines may be one round on.
            let level = ((63 - (tick ^ self.tick).leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
            let slot = (tick >> (SLOT_BITS * level)) as usize & (SLOTS - 1);
            self.occupied[level as usize] |= 1 << slot;
            level as usize * SLOTS + slot
        };
        let head = self.heads[list];
        if head != NONE {
            self.entries[head as usize].previous = timer;
        }
        let entry = &mut self.entries[timer as usize];
        entry.next = head;
        entry.previous = NONE;
        entry.list = list as u16;
        self.heads[list] = timer;
    }

    fn unlink(&mut self, timer: Timer) {
        let Entry { next, previous, list, .. } = self.entries[timer as usize];
        let list = list as usize;
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[list] = next;
            if next == NONE && list < DUE as usize {
                self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
            }
        }
        self.entries[timer as usize].list = UNARMED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(us: u64) -> Instant {
        Instant::from_us(us)
    }

    fn wheel(count: u64, now: u64) -> Wheel {
        Wheel::new(Gauge::new("timers", "deny", count), at(now))
    }

    #[test]
    fn a_timer_expires_once_not_early_and_within_a_tick() {
        for deadline in [0, 1, 127, 128, 129, 8191, 8192, 8193, 1 << 20, 3_600_000_000, 1 << 45] {
            let mut w = wheel(1, 0);
            w.arm(0, at(deadline));
            let mut wakes = 0;
            let expired = loop {
                let next = w.next().unwrap();
                wakes += 1;
                if let Some(0) = w.pop(next) {
                    break next;
                }
            };
            assert!(expired >= at(deadline) && expired.since(at(deadline)).as_us() < 128, "{deadline}: {expired:?}");
            assert!(wakes <= LEVELS, "{deadline}: {wakes} wakes");
            assert_eq!((w.pop(at(u64::MAX)), w.next()), (None, None));
        }
    }

    #[test]
    fn beyond_the_reach_of_the_wheel_a_timer_waits_for_its_time() {
        let start = 5_000_000;
        for deadline in [1 << 49, (1 << 49) + start - 1, (1 << 49) + start, 1 << 50, 1 << 53] {
            let mut w = wheel(1, start);
            w.arm(0, at(deadline));
            assert_eq!(w.pop(at(start + 1_000_000)), None, "{deadline}");
            assert_eq!(w.pop(at(deadline - 128)), None, "{deadline}");
            assert_eq!(w.pop(at(deadline + 128)), Some(0), "{deadline}");
        }
    }

    #[test]
    fn what_is_disarmed_does_not_expire_and_what_is_moved_expires_once() {
        let mut w = wheel(3, 0);
        w.arm(0, at(1000));
        w.arm(1, at(1000));
        w.arm(2, at(1000));
        w.disarm(1);
        w.arm(2, at(5000));
        assert_eq!(w.pop(at(2000)), Some(0));
        assert_eq!(w.pop(at(2000)), None);
        assert_eq!(w.pop(at(6000)), Some(2));
        assert_eq!(w.next(), None);
    }

    #[test]
    fn timers_set_in_a_row_are_those_that_are_set_one_by_one() {
        let (mut row, mut single) = (wheel(6, 0), wheel(6, 0));
        for round in 0..400u64 {
            let deadlines: [Option<Instant>; 4] =
                std::array::from_fn(|i| (round * 7 % (i as u64 + 3) > 1).then(|| at((round / 3 * 1000) << i)));
            row.set(1, &deadlines);
            for (timer, deadline) in (1..).zip(deadlines) {
                match deadline {
                    Some(at) => single.arm(timer, at),
                    None => single.disarm(timer),
                }
            }
            let all = |w: &Wheel| (0..6).map(|timer| w.deadline(timer)).collect::<Vec<_>>();
            assert_eq!(all(&row), all(&single), "{round}");
            assert_eq!(all(&row)[1..5], deadlines);
            assert_eq!((row.gauge.in_use(), row.next()), (single.gauge.in_use(), single.next()));
            let now = at(round * 300);
            assert_eq!(row.pop(now), single.pop(now));
        }
    }

    /// However many timers are due or fall, a turn takes no more than its few steps, and what is left is due at once.
    #[test]
    fn a_turn_is_bounded_and_leaves_the_rest_for_the_next() {
        let mut w = wheel(1000, 0);
        // In one slot of the second level, which time reaches at tick 64.
        (0..1000).for_each(|timer| w.arm(timer, at((64 << 7) + u64::from(timer % 2) * 128)));
        let now = at(66 << 7);
        let (mut due, mut turns) = (0, 0);
        loop {
            let before = w.steps.count();
            match w.turn(now) {
                Turn::Due(_) => due += 1,
                Turn::Falls => {}
                Turn::Rest => break,
            }
            assert!(w.steps.count() - before <= u64::from(FALLS));
            assert!(due == 1000 || w.next().is_some_and(|at| at <= now));
            turns += 1;
        }
        assert_eq!((due, w.next()), (1000, None));
        assert!(turns >= 1000 + 1000 / FALLS, "{turns}");
    }

    proptest! {
        /// Against a plain list: the same timers, by the same ticks.
        #[test]
        fn it_is_a_list_of_deadlines(
            start in 0u64..1 << 40,
            steps in proptest::collection::vec(
                (0u32..8, 0u64..1 << 34, 0u64..1 << 33, any::<bool>(), 0u32..12),
                1..60,
            ),
        ) {
            let mut now = start;
            let mut w = wheel(8, now);
            let mut list: [Option<u64>; 8] = [None; 8];
            for (timer, delay, advance, short, off) in steps {
                let scale = if short { 12 } else { 0 };
                let deadline = now + (delay >> scale);
                w.arm(timer, at(deadline));
                list[timer as usize] = Some(deadline);
                if off < 8 {
                    w.disarm(off);
                    list[off as usize] = None;
                }
                now += advance >> scale;
                if let Some(first) = list.iter().flatten().min().copied() {
                    prop_assert!(w.next().is_some_and(|next| next <= at(first.max(now) + 128)));
                }
                let mut expired: Vec<_> = std::iter::from_fn(|| w.pop(at(now))).collect();
                expired.sort_unstable();
                let due: Vec<_> = (0..8u32)
                    .filter(|t| list[*t as usize].is_some_and(|d| d.div_ceil(128) <= now / 128))
                    .collect();
                prop_assert_eq!(&expired, &due);
                due.iter().for_each(|t| list[*t as usize] = None);
                prop_assert_eq!(w.gauge.in_use(), list.iter().flatten().count() as u64);
            }
        }
    }
}

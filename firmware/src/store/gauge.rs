//! What is published of a pool: capacity, use, high-water mark, refusals by reason, and how near it is to being full.
//!
//! The level rises with use, at three quarters and when nothing is left, and falls only when less than five eighths are in
//! use: so a pool that goes up and down at its edge is told of once. A gauge whose level has changed rings its [`Bell`],
//! and the engine, which looks at the bell alone, then tells whom it concerns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fault::{Action, Faults, Tap};
use toe_abi::{LIMIT_REASONS_MAX, LimitEntry, Reason, level};

/// How near a pool is to being full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Nothing to warn of.
    Normal,
    /// Three quarters are, or were not long ago, in use.
    High,
    /// All of it.
    Full,
}

impl Level {
    /// As RESOURCE_EVENT has it.
    pub fn to_u32(self) -> u32 {
        match self {
            Self::Normal => level::NORMAL,
            Self::High => level::HIGH,
            Self::Full => level::FULL,
        }
    }

    /// `normal`, `high` or `full`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::High => "high",
            Self::Full => "full",
        }
    }
}

/// One word for all gauges of a card: a bit for each whose level has changed. (Atomic because the gauges share it, not
/// because anything here runs at the same time.)
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<AtomicU64>);

impl Bell {
    fn ring(&self, bit: u32) {
        self.0.fetch_or(1 << bit, Ordering::Relaxed);
    }

    /// Whose levels have changed since this was last asked.
    pub fn answer(&self) -> u64 {
        if self.0.load(Ordering::Relaxed) == 0 { 0 } else { self.0.swap(0, Ordering::Relaxed) }
    }
}

/// The bookkeeping of one pool.
#[derive(Debug)]
pub struct Gauge {
    name: &'static str,
    policy: &'static str,
    capacity: u64,
    each: u32,
    in_use: u64,
    high_water: u64,
    level: Level,
    bell: Option<(Bell, u32)>,
    /// Whether a fault is armed where one is taken or given back.
    is_tapped: bool,
    tap: Option<Tap>,
    /// Of those in use, so many are nobody's: a fault has lost them.
    lost: u64,
    refusals: [(Reason, u64); LIMIT_REASONS_MAX],
}

impl Gauge {
    /// A pool of that name and capacity; what it does when full is `policy`.
    pub fn new(name: &'static str, policy: &'static str, capacity: u64) -> Self {
        Self {
            name,
            policy,
            capacity,
            each: 0,
            in_use: 0,
            high_water: 0,
            level: Level::Normal,
            bell: None,
            is_tapped: false,
            tap: None,
            lost: 0,
            refusals: [(Reason::None, 0); LIMIT_REASONS_MAX],
        }
    }

    /// The same, of which a holder can have `each`, and which rings `bell`'s bit of that number.
    pub fn watched(self, each: u32, bell: &Bell, bit: u32) -> Self {
        Self { each, bell: Some((bell.clone(), bit)), ..self }
    }

    /// The same, with sites for faults where one is taken and where it is given back.
    pub fn tapped(self, tap: Tap) -> Self {
        Self { tap: Some(tap), ..self }
    }

    /// Arms its sites, as far as they are among the armed.
    pub fn arm(&mut self, faults: &Faults) {
        self.is_tapped = self.tap.as_mut().is_some_and(|tap| tap.arm(faults));
    }

    /// One is about to be taken; what a fault does to that: refuse it, or lose one more.
    #[inline]
    pub fn fault_of_taking(&self) -> Option<Action> {
        if self.is_tapped { self.tap.as_ref()?.taken() } else { None }
    }

    /// Whether a fault lets one that is about to be given back be lost.
    #[inline]
    pub fn loses(&self) -> bool {
        self.is_tapped && self.tap.as_ref().is_some_and(|tap| tap.given().is_some())
    }

    /// Whether one may be taken, as far as faults have a say in it: they may refuse it, or have lost what was left.
    /// Whether there is one otherwise, whoever takes it knows.
    #[inline]
    #[must_use]
    pub fn admits(&mut self) -> bool {
        (!self.is_tapped && self.lost == 0) || self.admits_by_fault()
    }

    #[cold]
    fn admits_by_fault(&mut self) -> bool {
        match self.fault_of_taking() {
            Some(Action::Error) => return false,
            Some(_) => self.lose(),
            None => {}
        }
        self.lost == 0 || self.free() > 0
    }

    /// One that is free is lost, if there is one.
    pub fn lose(&mut self) {
        let taken = self.take(1);
        self.lost += u64::from(taken);
    }

    /// One that is in use is nobody's from here on.
    pub fn abandon(&mut self) {
        self.lost += 1;
    }

    /// One that was lost is found again.
    pub fn find(&mut self) {
        if self.lost > 0 {
            self.lost -= 1;
            self.give(1);
        }
    }

    /// How many are lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes `n` that are the taker's own part; what a fault has lost of it gives way.
    pub fn claim(&mut self, n: u64) {
        while n > self.free() && self.lost > 0 {
            self.find();
        }
        let taken = self.take(n);
        debug_assert!(taken, "{}: each has a part of its own", self.name);
    }

    /// Gives `n` back, of which a fault may lose one. Of pools that are nothing but a count.
    pub fn give_back(&mut self, n: u64) {
        if n > 0 && self.loses() {
            self.abandon();
            self.give(n - 1);
        } else {
            self.give(n);
        }
    }

    /// Takes `n`; `false`, with nothing taken, if that is more than are free.
    #[must_use]
    pub fn take(&mut self, n: u64) -> bool {
        if n > self.free() {
            return false;
        }
        self.in_use += n;
        self.high_water = self.high_water.max(self.in_use);
        let level = match self.in_use {
            _ if n == 0 => self.level,
            all if all == self.capacity => Level::Full,
            some if some * 4 >= self.capacity * 3 && self.level == Level::Normal => Level::High,
            _ => self.level,
        };
        self.turn(level);
        true
    }

    /// Gives `n` back.
    pub fn give(&mut self, n: u64) {
        debug_assert!(n <= self.in_use);
        self.in_use = self.in_use.saturating_sub(n);
        if self.level != Level::Normal && self.in_use * 8 < self.capacity * 5 {
            self.turn(Level::Normal);
        }
    }

    fn turn(&mut self, level: Level) {
        if level != self.level {
            self.level = level;
            if let Some((bell, bit)) = &self.bell {
                bell.ring(*bit);
            }
        }
    }

    /// Says from now on that so many are in use: somebody has counted.
    pub fn correct(&mut self, in_use: u64) {
        // What a fault had lost is found, or was not lost.
        self.lost = 0;
        let in_use = in_use.min(self.capacity);
        let more = in_use.saturating_sub(self.in_use);
        self.give(self.in_use.saturating_sub(in_use));
        let taken = self.take(more);
        debug_assert!(taken, "no more than there are");
    }

    /// Begins anew for another owner, with nothing in use.
    pub fn begin(&mut self) {
        debug_assert!(self.in_use == 0);
        self.high_water = 0;
        self.refusals = [(Reason::None, 0); LIMIT_REASONS_MAX];
    }

    /// How many are free.
    pub fn free(&self) -> u64 {
        self.capacity - self.in_use
    }

    /// How many are in use.
    pub fn in_use(&self) -> u64 {
        self.in_use
    }

    /// How many there are.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How near it is to being full.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Counts a refusal. A reason beyond the [`LIMIT_REASONS_MAX`] first is counted with the last.
    pub fn refuse(&mut self, reason: Reason) {
        let slot = self.refusals.iter().position(|(r, n)| *r == reason || *n == 0).unwrap_or(LIMIT_REASONS_MAX - 1);
        let (r, n) = &mut self.refusals[slot];
        if *n == 0 {
            *r = reason;
        }
        *n += 1;
    }

    /// As it is published.
    pub fn entry(&self) -> LimitEntry<'static> {
        LimitEntry {
            name: self.name,
            policy: self.policy,
            capacity: self.capacity,
            in_use: self.in_use,
            high_water: self.high_water,
            refusals: self.refusals.map(|(reason, n)| (reason as u32, n)),
            each: self.each,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_succeeds_and_the_next_is_refused() {
        let mut g = Gauge::new("things", "deny", 3);
        assert!((0..3).all(|_| g.take(1)));
        assert!(!g.take(1));
        g.refuse(Reason::Connections);
        g.give(2);
        assert!(!g.take(3));
        g.refuse(Reason::Connections);
        g.refuse(Reason::SendMemory);
        assert!(g.take(2));
        let e = g.entry();
        assert_eq!((e.capacity, e.in_use, e.high_water), (3, 3, 3));
        assert_eq!(e.refusals[..3], [(Reason::Connections as u32, 2), (Reason::SendMemory as u32, 1), (0, 0)]);
    }

    /// Up at 75 % and at 100 %, down below five eighths, and nothing between.
    #[test]
    fn the_bell_rings_at_each_new_level_and_not_for_what_goes_up_and_down() {
        let bell = Bell::default();
        let mut g = Gauge::new("things", "deny", 100).watched(0, &bell, 5);
        let rung = |g: &Gauge| (bell.answer() == 1 << 5).then(|| g.level());
        assert!(g.take(74));
        assert_eq!(rung(&g), None);
        assert!(g.take(1));
        assert_eq!(rung(&g), Some(Level::High));
        for _ in 0..50 {
            g.give(10);
            assert!(g.take(10));
        }
        assert_eq!(rung(&g), None);
        assert!(g.take(25));
        assert_eq!(rung(&g), Some(Level::Full));
        for _ in 0..50 {
            g.give(37);
            assert!(g.take(37));
        }
        assert_eq!(rung(&g), None);
        g.give(38);
        assert_eq!(rung(&g), Some(Level::Normal));
        assert!(g.take(38));
        assert_eq!(rung(&g), Some(Level::Full));
    }

    #[test]
    fn a_pool_of_one_is_full_or_normal_and_one_of_none_is_neither() {
        let mut one = Gauge::new("things", "deny", 1);
        assert!(one.take(1));
        assert_eq!(one.level(), Level::Full);
        one.give(1);
        assert_eq!(one.level(), Level::Normal);
        let mut none = Gauge::new("things", "deny", 0);
        assert!(none.take(0) && !none.take(1));
        assert_eq!(none.level(), Level::Normal);
    }
}

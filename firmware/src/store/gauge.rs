//! What is published of a pool: capacity, use, high-water mark, refusals by reason.

use toe_abi::{LIMIT_REASONS_MAX, LimitEntry, Reason};

/// The bookkeeping of one pool.
#[derive(Debug)]
pub struct Gauge {
    name: &'static str,
    policy: &'static str,
    capacity: u64,
    in_use: u64,
    high_water: u64,
    refusals: [(Reason, u64); LIMIT_REASONS_MAX],
}

impl Gauge {
    /// A pool of that name and capacity; what it does when full is `policy`.
    pub fn new(name: &'static str, policy: &'static str, capacity: u64) -> Self {
        Self { name, policy, capacity, in_use: 0, high_water: 0, refusals: [(Reason::None, 0); LIMIT_REASONS_MAX] }
    }

    /// Takes `n`; `false`, with nothing taken, if that is more than are free.
    #[must_use]
    pub fn take(&mut self, n: u64) -> bool {
        if n > self.free() {
            return false;
        }
        self.in_use += n;
        self.high_water = self.high_water.max(self.in_use);
        true
    }

    /// Gives `n` back.
    pub fn give(&mut self, n: u64) {
        debug_assert!(n <= self.in_use);
        self.in_use = self.in_use.saturating_sub(n);
    }

    /// How many there are.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// How many are free.
    pub fn free(&self) -> u64 {
        self.capacity - self.in_use
    }

    /// How many are in use.
    #[cfg(test)]
    pub fn in_use(&self) -> u64 {
        self.in_use
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
}

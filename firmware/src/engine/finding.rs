//! What the firmware finds wrong with itself, and says.
//!
//! Each finding has a counter of the same name, and an event with the place for the card's host. That nothing of it goes
//! unsaid is the point: a card that repairs itself in silence hides that it is about to fail.

use crate::counters::Counter;
use crate::engine::{Event, Firmware};

/// Something damaged, lost or left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// A connection whose block does not pass its check: it is broken off.
    StateDamaged,
}

impl Finding {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::StateDamaged];

    /// The name of its counter.
    pub fn name(self) -> &'static str {
        self.counter().name()
    }

    fn counter(self) -> Counter {
        match self {
            Self::StateDamaged => Counter::FoundStateDamaged,
        }
    }
}

impl Firmware {
    /// Counts it, and tells the card's host.
    pub(super) fn found(&mut self, finding: Finding, place: u32) {
        self.store.counters.add(finding.counter());
        self.tell_host(Event::Finding { finding, place });
    }
}

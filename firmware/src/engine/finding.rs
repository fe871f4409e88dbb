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
    /// Payload that is not as it was stored: its connection is broken off.
    DataDamaged,
    /// A page that stands nowhere: it is given back.
    PageLost,
    /// A record of a segment in flight that stands in no list: it is given back.
    RecordLost,
    /// A connection, entry, context or listener that nobody has: it is given back.
    PlaceLost,
    /// A place in the table of 4-tuples that leads to nobody: it is given back.
    TupleLeft,
    /// A timer that should run and does not, or is set far too late: it is set anew.
    TimerLost,
    /// A timer of a connection that is no more: it is stopped.
    TimerLeft,
    /// A pool whose gauge does not say what it is made of: it is corrected.
    PoolMiscounted,
    /// Counters that do not balance: their sum is corrected.
    CountersDamaged,
}

impl Finding {
    /// The name of its counter.
    pub fn name(self) -> &'static str {
        self.counter().name()
    }

    fn counter(self) -> Counter {
        match self {
            Self::StateDamaged => Counter::FoundStateDamaged,
            Self::DataDamaged => Counter::FoundDataDamaged,
            Self::PageLost => Counter::FoundPageLost,
            Self::RecordLost => Counter::FoundRecordLost,
            Self::PlaceLost => Counter::FoundPlaceLost,
            Self::TupleLeft => Counter::FoundTupleLeft,
            Self::TimerLost => Counter::FoundTimerLost,
            Self::TimerLeft => Counter::FoundTimerLeft,
            Self::PoolMiscounted => Counter::FoundPoolMiscounted,
            Self::CountersDamaged => Counter::FoundCountersDamaged,
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

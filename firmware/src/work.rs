//! Work: what the card does is counted in steps, not timed.
//!
//! A step is one pass through a loop whose number of passes depends on what has arrived or on what the card holds: an
//! option read, a block of a SACK, a place of a hash table looked at, a record of a segment in flight walked over, a page
//! of payload touched, a range of out-of-order data looked at, a timer moved or run, a turn in a queue, a message of a
//! channel frame. A frame taken or given is a step. Loops of a fixed number of passes (the six timers of a connection,
//! the levels of the wheel, the rounds of the hash) are part of the step around them, and bytes that are summed or copied
//! are not steps: the pages that they lie in are.
//!
//! What is built up once and taken down once is paid for when it is built: a record of a segment in flight pays for its
//! release with each transmission. So an acknowledgement of a thousand segments costs no more than one of one, and the sum
//! over all calls is the work that was done. The rules, and the bounds that follow, stand in `docs/work.md`.
//!
//! The count does not depend on the machine: the same inputs cost the same steps.

use std::cell::Cell;

/// A count of steps. Each part of the card's memory has one of its own; [`crate::Firmware::steps`] is their sum.
#[derive(Debug, Default)]
pub struct Steps(Cell<u64>);

impl Steps {
    /// One step.
    pub fn one(&self) {
        self.add(1);
    }

    /// So many steps.
    pub fn add(&self, steps: u64) {
        self.0.set(self.0.get().wrapping_add(steps));
    }

    /// All so far.
    pub fn count(&self) -> u64 {
        self.0.get()
    }
}

//! What a place for a connection costs in memory, payload aside.
//!
//! All of it is there from boot on. The block is what the card knows of a connection; a segment that is predicted reads and writes a part
//! of it, one of the timers, and its 4-tuple's bucket in the table.

use crate::engine::Firmware;
use crate::store::queue::Links;
use crate::store::table::Table;
use crate::store::wheel::Wheel;
use crate::tcp::tcb::Tcb;
use crate::tcp::timeout::Kind;

/// Bytes of one connection's place, by what they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionBytes {
    /// The block.
    pub block: usize,
    /// Entries of the timer wheel, one for each purpose.
    pub timers: usize,
    /// Places in the six queues of the engine that it can stand in.
    pub links: usize,
    /// Two places of the table of 4-tuples, which is half full at most.
    pub tuple: usize,
}

impl ConnectionBytes {
    /// All of them.
    pub fn sum(&self) -> usize {
        self.block + self.timers + self.links + self.tuple
    }
}

impl Firmware {
    /// What one connection's place costs, on every card.
    pub fn connection_bytes() -> ConnectionBytes {
        ConnectionBytes {
            block: size_of::<Tcb>(),
            timers: Kind::ALL.len() * Wheel::ENTRY_BYTES,
            links: 6 * Links::ENTRY_BYTES,
            tuple: 2 * Table::PLACE_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_costs_no_more_than_it_did() {
        let bytes = Firmware::connection_bytes();
        assert!(bytes.timers <= 144 && bytes.links == 48 && bytes.tuple == 16, "{bytes:?}");
        assert!(bytes.block <= 2048, "{bytes:?}");
    }
}

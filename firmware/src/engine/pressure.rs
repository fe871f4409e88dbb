//! Who is told that a pool is nearly full: the card's host by [`Firmware::poll_event`], and every context by RESOURCE_EVENT.
//!
//! A gauge whose level has changed rings the card's bell; here it is answered, before the next frame for a guest is
//! written. For the host an event waits in a ring of fixed size (pool `events`; one that finds no place is dropped and
//! counted). For a context one bit for each pool waits, and what the message says is read from the gauge when it is
//! written: so nothing is ever too much, and a level that is over by then is told as it is.

use toe_abi::{Message, ResourceEvent, Writer};

use crate::engine::{Finding, Firmware};
use crate::pool::Pool;
use crate::store::gauge::{Bell, Gauge, Level};
use crate::store::queue::Ring;
use crate::store::slab::Slot;

/// Something that the card's host may want to log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A pool's use has passed three quarters of its capacity, or all of it, or is well below again.
    Pool {
        /// Which.
        pool: Pool,
        /// What it is now.
        level: Level,
        /// How many are in use.
        in_use: u64,
        /// How many there are.
        capacity: u64,
    },
    /// Something was found damaged, lost or left, and was dealt with.
    Finding {
        /// What.
        finding: Finding,
        /// Where, as a place of the table that it is in.
        place: u32,
    },
}

/// The bell and the ring.
#[derive(Debug)]
pub struct Pressure {
    bell: Bell,
    events: Ring<Event>,
    /// Of the ring; what is published.
    pub gauge: Gauge,
}

impl Pressure {
    /// With room for so many events.
    pub fn new(gauge: Gauge, events: u32, bell: Bell) -> Self {
        Self { bell, events: Ring::new(events), gauge }
    }

    /// Appends an event, or counts that there was no place for it.
    pub(super) fn push(&mut self, event: Event) {
        if self.gauge.admits() && self.events.push(event) {
            let taken = self.gauge.take(1);
            debug_assert!(taken);
        } else {
            self.gauge.refuse(Pool::Events.reason());
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Takes the first.
    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop()?;
        self.gauge.give_back(1);
        Some(event)
    }
}

impl Firmware {
    /// The next event for the card's host; to be called until `None` whenever anything was handed to the firmware.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.answer_bell();
        self.pressure.pop()
    }

    /// Notes for all whom it concerns which levels have changed.
    pub(super) fn answer_bell(&mut self) {
        let changed = self.pressure.bell.answer();
        if changed == 0 {
            return;
        }
        for pool in Pool::ALL.iter().filter(|pool| changed & 1 << **pool as u32 != 0) {
            let gauge = self.gauge(*pool);
            let (level, in_use, capacity) = (gauge.level(), gauge.in_use(), gauge.capacity());
            self.tell_host(Event::Pool { pool: *pool, level, in_use, capacity });
        }
        for slot in 0..self.contexts.capacity() {
            if self.contexts.in_use(slot) {
                self.contexts[slot].pressure |= changed;
                self.guest_queue.push(&mut self.guest_links, slot);
            }
        }
    }

    /// Writes a context's RESOURCE_EVENTs; `false` if there was no room for all of them.
    pub(super) fn tell_pressure(&mut self, w: &mut Writer<'_>, context: Slot) -> bool {
        if self.contexts[context].pressure == 0 {
            return true;
        }
        for pool in Pool::ALL {
            let bit = 1 << *pool as u32;
            if self.contexts[context].pressure & bit == 0 {
                continue;
            }
            let gauge = self.gauge(*pool);
            let message = ResourceEvent {
                pool: *pool as u32,
                level: gauge.level().to_u32(),
                in_use: gauge.in_use(),
                capacity: gauge.capacity(),
            };
            if !w.push(&Message::ResourceEvent(message)) {
                return false;
            }
            self.contexts[context].pressure &= !bit;
        }
        true
    }
}

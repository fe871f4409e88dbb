//! A pool of equal objects: fixed places, ids with a generation, a free list.

use std::ops::{Index, IndexMut};

use super::gauge::Gauge;
use crate::fault::Action;

/// An object's place in its slab.
pub type Slot = u32;

/// An id that is never used twice: place and generation. On the channel a `u64`, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Id {
    /// The place.
    pub slot: Slot,
    generation: u32,
}

impl Id {
    /// As it stands on the channel.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// What the guest says is an id.
    pub fn from_u64(id: u64) -> Self {
        Self { slot: id as u32, generation: (id >> 32) as u32 }
    }
}

#[derive(Debug)]
struct Place<T> {
    /// Odd while in use, so that an id from before is never right and zero is no id.
    generation: u32,
    next_free: Slot,
    value: T,
}

/// The pool.
#[derive(Debug)]
pub struct Slab<T> {
    places: Box<[Place<T>]>,
    free: Slot,
    used: u64,
    /// What is published.
    pub gauge: Gauge,
}

const END: Slot = Slot::MAX;

impl<T> Slab<T> {
    /// `capacity` places, each with what `vacant` makes. Objects are reset in place, so what they own stays.
    pub fn new(gauge: Gauge, capacity: u32, mut vacant: impl FnMut(Slot) -> T) -> Self {
        let place = |slot: Slot| Place {
            generation: 0,
            next_free: if slot + 1 < capacity { slot + 1 } else { END },
            value: vacant(slot),
        };
        let places = (0..capacity).map(place).collect();
        Self { places, free: if capacity == 0 { END } else { 0 }, used: 0, gauge }
    }

    /// Takes a free place; what stands in it is what was last there. `None` if there is none.
    pub fn take(&mut self) -> Option<Id> {
        let slot = self.free;
        let place = self.places.get_mut(slot as usize)?;
        self.free = place.next_free;
        place.generation = place.generation.wrapping_add(1);
        self.used += 1;
        let taken = self.gauge.take(1);
        debug_assert!(taken);
        Some(Id { slot, generation: place.generation })
    }

    /// Gives a place back. Must be in use.
    pub fn give(&mut self, slot: Slot) {
        let place = &mut self.places[slot as usize];
        debug_assert!(place.generation % 2 == 1);
        if self.gauge.loses() {
            // It stays in use, and nobody has it.
            self.gauge.abandon();
            return;
        }
        place.generation = place.generation.wrapping_add(1);
        place.next_free = self.free;
        self.free = slot;
        self.used -= 1;
        self.gauge.give(1);
    }

    /// A fault loses a free place: it is in use, and nobody has it.
    fn lose(&mut self) {
        if self.take().is_some() {
            self.gauge.abandon();
        }
    }

    /// Whether one may be taken, as far as faults have a say in it: they may refuse it, or lose one more.
    pub fn admits(&mut self) -> bool {
        match self.gauge.fault_of_taking() {
            Some(Action::Error) => return false,
            Some(_) => self.lose(),
            None => {}
        }
        true
    }

    /// The place of an id from outside; `None` if it is not in use under that id.
    pub fn find(&self, id: u64) -> Option<Slot> {
        let id = Id::from_u64(id);
        let place = self.places.get(id.slot as usize)?;
        (place.generation == id.generation && id.generation % 2 == 1).then_some(id.slot)
    }

    /// The id of a place in use.
    pub fn id(&self, slot: Slot) -> u64 {
        Id { slot, generation: self.places[slot as usize].generation }.to_u64()
    }

    /// Whether a place is in use.
    pub fn in_use(&self, slot: Slot) -> bool {
        self.places[slot as usize].generation % 2 == 1
    }

    /// How many are in use, by what it does itself and not by its gauge.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// How many places there are.
    pub fn capacity(&self) -> u32 {
        self.places.len() as u32
    }
}

impl<T> Index<Slot> for Slab<T> {
    type Output = T;
    fn index(&self, slot: Slot) -> &T {
        &self.places[slot as usize].value
    }
}

impl<T> IndexMut<Slot> for Slab<T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.places[slot as usize].value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_good_for_one_life() {
        let mut slab = Slab::new(Gauge::new("x", "deny", 2), 2, |_| 0u8);
        let a = slab.take().unwrap();
        let b = slab.take().unwrap();
        assert!(slab.take().is_none());
        assert_eq!(slab.find(a.to_u64()), Some(a.slot));
        slab.give(a.slot);
        assert_eq!(slab.find(a.to_u64()), None);
        let c = slab.take().unwrap();
        assert_eq!(c.slot, a.slot);
        assert_eq!(slab.find(a.to_u64()), None);
        assert_eq!(slab.find(c.to_u64()), Some(c.slot));
        assert_eq!(slab.id(b.slot), b.to_u64());
        assert_eq!(slab.find(0), None);
        assert_eq!(slab.find(u64::MAX), None);
        assert_eq!(slab.gauge.in_use(), 2);
    }
}

//! Queues of slots without allocation: two links per slot, each slot at most once in its queue. Every operation takes the
//! same few steps, whatever the queue holds.

use super::slab::Slot;

const NONE: Slot = Slot::MAX;
const LAST: Slot = Slot::MAX - 1;

/// The links of all queues over one slab. A slot is in at most one queue of a set of links.
#[derive(Debug)]
pub struct Links {
    next: Box<[Slot]>,
    previous: Box<[Slot]>,
}

impl Links {
    /// Bytes of one object's links.
    pub const ENTRY_BYTES: usize = 2 * size_of::<Slot>();

    /// For slots below `capacity`.
    pub fn new(capacity: u32) -> Self {
        Self { next: vec![NONE; capacity as usize].into(), previous: vec![NONE; capacity as usize].into() }
    }

    /// Whether a slot is in a queue.
    pub fn is_queued(&self, slot: Slot) -> bool {
        self.next[slot as usize] != NONE
    }
}

/// First in, first out.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    head: Slot,
    tail: Slot,
}

impl Queue {
    /// An empty queue.
    pub const EMPTY: Self = Self { head: NONE, tail: NONE };

    /// Appends a slot; if it is in a queue already, it stays where it is.
    pub fn push(&mut self, links: &mut Links, slot: Slot) {
        if links.next[slot as usize] != NONE {
            return;
        }
        links.next[slot as usize] = LAST;
        links.previous[slot as usize] = if self.head == NONE { NONE } else { self.tail };
        if self.head == NONE {
            self.head = slot;
        } else {
            links.next[self.tail as usize] = slot;
        }
        self.tail = slot;
    }

    /// Takes the first.
    pub fn pop(&mut self, links: &mut Links) -> Option<Slot> {
        let slot = self.head;
        let link = links.next.get_mut(slot as usize)?;
        self.head = if *link == LAST { NONE } else { *link };
        *link = NONE;
        if self.head != NONE {
            links.previous[self.head as usize] = NONE;
        }
        Some(slot)
    }

    /// The one behind a slot that is in it.
    pub fn behind(&self, links: &Links, slot: Slot) -> Option<Slot> {
        let next = links.next[slot as usize];
        (next != LAST && next != NONE).then_some(next)
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// The first, which stays.
    pub fn first(&self) -> Option<Slot> {
        (self.head != NONE).then_some(self.head)
    }

    /// Takes a slot out, wherever it stands. If it is in a queue of these links at all, it must be this one.
    pub fn remove(&mut self, links: &mut Links, slot: Slot) {
        let after = links.next[slot as usize];
        if after == NONE {
            return;
        }
        let before = links.previous[slot as usize];
        links.next[slot as usize] = NONE;
        if before == NONE {
            debug_assert!(self.head == slot);
            self.head = if after == LAST { NONE } else { after };
        } else {
            links.next[before as usize] = after;
        }
        if after == LAST {
            debug_assert!(self.tail == slot);
            self.tail = before;
        } else {
            links.previous[after as usize] = before;
        }
    }
}

/// A ring of values with a fixed capacity.
#[derive(Debug)]
pub struct Ring<T> {
    places: Box<[Option<T>]>,
    first: usize,
    len: usize,
}

impl<T> Ring<T> {
    /// Room for `capacity` values.
    pub fn new(capacity: u32) -> Self {
        Self { places: (0..capacity).map(|_| None).collect(), first: 0, len: 0 }
    }

    /// Appends; `false` if it is full.
    #[must_use]
    pub fn push(&mut self, value: T) -> bool {
        if self.len == self.places.len() {
            return false;
        }
        let at = (self.first + self.len) % self.places.len();
        self.places[at] = Some(value);
        self.len += 1;
        true
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        let value = self.places[self.first].take();
        self.first = (self.first + 1) % self.places.len();
        self.len -= 1;
        value
    }

    /// The first, which stays.
    pub fn first(&self) -> Option<&T> {
        if self.len == 0 { None } else { self.places[self.first].as_ref() }
    }

    /// How many values are in it.
    pub fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_leave_in_the_order_they_came_and_once() {
        let mut links = Links::new(4);
        let mut q = Queue::EMPTY;
        for s in [2, 0, 2, 3] {
            q.push(&mut links, s);
        }
        assert_eq!(q.pop(&mut links), Some(2));
        q.push(&mut links, 2);
        assert!(links.is_queued(2) && !links.is_queued(1));
        assert_eq!(std::iter::from_fn(|| q.pop(&mut links)).collect::<Vec<_>>(), [0, 3, 2]);
        assert!(q.is_empty());
    }

    #[test]
    fn a_slot_can_be_taken_from_anywhere() {
        for out in 0..4 {
            let mut links = Links::new(5);
            let mut q = Queue::EMPTY;
            (0..4).for_each(|s| q.push(&mut links, s));
            q.remove(&mut links, out);
            q.remove(&mut links, out);
            q.push(&mut links, 4);
            let expected: Vec<_> = (0..5).filter(|s| *s != out).collect();
            assert_eq!(std::iter::from_fn(|| q.pop(&mut links)).collect::<Vec<_>>(), expected);
        }
        let mut links = Links::new(1);
        let mut q = Queue::EMPTY;
        q.push(&mut links, 0);
        q.remove(&mut links, 0);
        assert!(q.is_empty());
        q.push(&mut links, 0);
        assert_eq!(q.first(), Some(0));
    }

    #[test]
    fn a_ring_keeps_its_capacity() {
        let mut r = Ring::new(2);
        assert!(r.push(1) && r.push(2) && !r.push(3));
        assert_eq!((r.pop(), r.push(4), r.first(), r.len()), (Some(1), true, Some(&2), 2));
        assert_eq!((r.pop(), r.pop(), r.pop()), (Some(2), Some(4), None));
    }
}

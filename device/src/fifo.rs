//! The receive FIFO: frames between the wire and the guest's receive rings.
//!
//! One queue of frames for each queue pair, in all of them as many as the profile's `limits.receive_fifo_frames`, and the
//! memory of all frames. The wire is read straight into a free frame; what the firmware does not take waits in a queue until
//! its ring has buffers. With all places taken the card stops reading the wire, and the wire's own queue holds the rest.
//! Frames that wait for the firmware's processor have places of their own (`spare`), which that queue does not get.
//!
//! A frame's memory is allocated when it is first used and kept; the last one freed is the next one used.
//! So memory follows the high-water mark.

use std::collections::VecDeque;

use crate::packet::Packet;

/// The pool of frames and the queues.
#[derive(Debug)]
pub struct Fifo {
    free: Vec<Packet>,
    queues: Vec<VecDeque<Packet>>,
    capacity: usize,
    spare: usize,
    made: usize,
    queued: usize,
    high_water: usize,
}

impl Fifo {
    /// `capacity` places in `pairs` queues, and memory for as many frames and `spare` others.
    pub fn new(capacity: usize, spare: usize, pairs: usize) -> Self {
        Self {
            free: Vec::new(),
            queues: (0..pairs).map(|_| VecDeque::new()).collect(),
            capacity,
            spare,
            made: 0,
            queued: 0,
            high_water: 0,
        }
    }

    /// A free frame, while a queue has a place for it. It comes back by [`release`](Self::release) or [`push`](Self::push).
    pub fn take(&mut self) -> Option<Packet> {
        if self.is_full() {
            return None;
        }
        self.free.pop().or_else(|| {
            (self.made < self.capacity + self.spare).then(|| {
                self.made += 1;
                Packet::default()
            })
        })
    }

    /// Gives a frame back.
    pub fn release(&mut self, packet: Packet) {
        self.free.push(packet);
    }

    /// Puts a frame at the end of a pair's queue.
    pub fn push(&mut self, pair: usize, packet: Packet) {
        self.queues[pair].push_back(packet);
        self.queued += 1;
        self.high_water = self.high_water.max(self.queued);
    }

    /// The first frame of a pair's queue.
    pub fn front(&self, pair: usize) -> Option<&Packet> {
        self.queues[pair].front()
    }

    /// The same, to be changed.
    pub fn front_mut(&mut self, pair: usize) -> Option<&mut Packet> {
        self.queues[pair].front_mut()
    }

    /// Puts a frame at the head of a pair's queue.
    pub fn push_front(&mut self, pair: usize, packet: Packet) {
        self.queues[pair].push_front(packet);
        self.queued += 1;
        self.high_water = self.high_water.max(self.queued);
    }

    /// Takes the first frame of a pair's queue.
    pub fn pop(&mut self, pair: usize) -> Option<Packet> {
        let packet = self.queues[pair].pop_front()?;
        self.queued -= 1;
        Some(packet)
    }

    /// Frames in the queues.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// The most frames that were ever in the queues.
    pub fn high_water(&self) -> usize {
        self.high_water
    }

    /// Whether no queue has a place.
    pub fn is_full(&self) -> bool {
        self.queued == self.capacity
    }

    /// The most frames that there can be in the queues.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_capacity_n_the_nth_succeeds_and_the_next_does_not() {
        let mut fifo = Fifo::new(3, 0, 2);
        for i in 0..3 {
            let packet = fifo.take().unwrap();
            fifo.push(i % 2, packet);
        }
        assert!(fifo.take().is_none());
        assert_eq!((fifo.queued(), fifo.high_water()), (3, 3));
        let packet = fifo.pop(1).unwrap();
        assert!(fifo.pop(1).is_none());
        fifo.release(packet);
        assert!(fifo.take().is_some());
        assert!(fifo.take().is_none());
        assert_eq!((fifo.queued(), fifo.high_water()), (2, 3));
    }
}

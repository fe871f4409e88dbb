//! Memory for the payload of connections that the card reads and writes itself.
//!
//! It lies in the memory file of the descriptor rings, behind them, and is cut into rings of [`RING_BYTES`]: one for a direction of a
//! connection. A ring that was named to the card is given back only when the card is known to use it no more; a [`RingPlace`] that is
//! merely dropped is lost for good, because another connection's bytes must never be where a card that comes to late still looks.
//!
//! *Bounds.* [`RING_COUNT`] rings. Who finds none goes on in frames. Pages are taken from the operating system when they are first used.

use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// The length of a ring, a power of two: the buffer of a connection with default settings.
pub(crate) const RING_BYTES: u64 = 256 * 1024;
/// How many there are.
const RING_COUNT: u64 = 128;

/// Rings of one transport; clones share them.
#[derive(Clone, Debug)]
pub struct RingMemory {
    memory: Arc<GuestMemoryMmap>,
    /// Addresses of those that nobody has.
    free: Arc<Mutex<Vec<u64>>>,
}

/// One ring.
#[derive(Debug)]
pub(crate) struct RingPlace {
    of: RingMemory,
    address: u64,
}

impl RingMemory {
    /// What all of it takes.
    pub(crate) const BYTES: u64 = RING_BYTES * RING_COUNT;

    /// From that address of the memory on, a multiple of 4,096.
    pub(crate) fn new(memory: Arc<GuestMemoryMmap>, start: u64) -> Self {
        let free = (0..RING_COUNT).rev().map(|n| start + n * RING_BYTES).collect();
        Self { memory, free: Arc::new(Mutex::new(free)) }
    }

    pub(crate) fn take(&self) -> Option<RingPlace> {
        let address = self.free.lock().unwrap_or_else(|e| e.into_inner()).pop()?;
        Some(RingPlace { of: self.clone(), address })
    }
}

impl RingPlace {
    /// As the options SEND_RING and RECEIVE_RING say it.
    pub(crate) fn value(&self) -> u64 {
        self.address | u64::from(RING_BYTES.trailing_zeros())
    }

    /// The card uses it no more.
    pub(crate) fn give_back(self) {
        self.of.free.lock().unwrap_or_else(|e| e.into_inner()).push(self.address);
    }

    /// Stores bytes of the stream from `offset` on; at most a ring's length of them.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let (at, until_end) = self.place(offset);
        let (first, second) = bytes.split_at(bytes.len().min(until_end));
        let written = self.of.memory.write_slice(first, at);
        let written = written.and_then(|()| self.of.memory.write_slice(second, GuestAddress(self.address)));
        debug_assert!(written.is_ok(), "a ring lies in mapped memory");
    }

    /// Copies bytes of the stream out, from `offset` on; at most a ring's length of them.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        let (at, until_end) = self.place(offset);
        let (first, second) = into.split_at_mut(into.len().min(until_end));
        let read = self.of.memory.read_slice(first, at);
        let read = read.and_then(|()| self.of.memory.read_slice(second, GuestAddress(self.address)));
        debug_assert!(read.is_ok(), "a ring lies in mapped memory");
    }

    /// Where an offset lies, and how many bytes from there on lie behind one another.
    fn place(&self, offset: u64) -> (GuestAddress, usize) {
        let within = offset & (RING_BYTES - 1);
        (GuestAddress(self.address + within), (RING_BYTES - within) as usize)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Rings at address 0x1000 of some memory, and that memory.
    pub(crate) fn rings() -> (RingMemory, Arc<GuestMemoryMmap>) {
        let range = (GuestAddress(0x1000), RingMemory::BYTES as usize);
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[range]).unwrap());
        (RingMemory::new(memory.clone(), 0x1000), memory)
    }

    #[test]
    fn what_is_written_across_the_end_is_read_again() {
        let (rings, _) = rings();
        let (before, ring, behind) = (rings.take().unwrap(), rings.take().unwrap(), rings.take().unwrap());
        let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        let mut read = vec![0; bytes.len()];
        ring.write(7 * RING_BYTES - 30_000, &bytes);
        ring.read(7 * RING_BYTES - 30_000, &mut read);
        assert_eq!(read, bytes);
        for neighbour in [before, behind] {
            let mut all = vec![1; RING_BYTES as usize];
            neighbour.read(0, &mut all);
            assert!(all.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_ring_comes_back_only_when_it_is_given_back() {
        let (rings, _) = rings();
        let mut all: Vec<_> = std::iter::from_fn(|| rings.take()).collect();
        assert_eq!(all.len() as u64, RING_COUNT);
        let ring = all.pop().unwrap();
        let value = ring.value();
        drop(all);
        assert!(rings.take().is_none());
        ring.give_back();
        assert_eq!(rings.take().map(|ring| ring.value()), Some(value));
    }
}

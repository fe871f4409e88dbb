//! Memory for the payload of connections that the card reads and writes itself.
//!
//! It is cut into rings of [`RING_BYTES`], one for a direction of a connection, and comes from either of two places: behind the
//! descriptor rings in their own memory file, for a process that is the card's frontend itself; or huge pages of the guest's kernel, taken one
//! by one when they are needed ([`super::huge_pages`]). A ring that was named to the card is given back only when the card is known to use it no more; a
//! [`RingPlace`] that is merely dropped is lost for good, because another connection's bytes must never be where a card that comes too late
//! still looks.
//!
//! *Bounds.* [`RING_COUNT`] rings. Who finds none goes on in frames. Pages are taken from the operating system when they are first used.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::huge_pages::{AGAIN_AFTER, HugePage, Use};

/// The length of a ring, a power of two: the buffer of a connection with default settings.
pub(crate) const RING_BYTES: u64 = 256 * 1024;
/// How many there are.
const RING_COUNT: u64 = 128;

/// Rings of one transport; clones share them.
#[derive(Clone, Debug)]
pub struct RingMemory(Arc<Mutex<Pool>>);

#[derive(Debug)]
struct Pool {
    /// Rings that nobody has, by their addresses.
    free: Vec<(Arc<Part>, u64)>,
    /// How many more there may be, of huge pages.
    growth: u64,
    /// No huge page was found, and none is looked for before.
    again_at: Option<Instant>,
}

/// A piece of memory that holds rings.
#[derive(Debug)]
enum Part {
    Mapped(Arc<GuestMemoryMmap>),
    Huge {
        page: HugePage,
        /// Rings that the card may know.
        lent: AtomicU32,
    },
}

impl Part {
    fn memory(&self) -> &GuestMemoryMmap {
        match self {
            Self::Mapped(memory) => memory,
            Self::Huge { page, .. } => &page.memory,
        }
    }

    /// One more is lent. The pool is locked.
    fn lend(&self) {
        if let Self::Huge { page, lent } = self
            && lent.fetch_add(1, Ordering::Relaxed) == 0
        {
            page.mark(Use::Lent);
        }
    }

    /// One less. The pool is locked.
    fn take_back(&self) {
        if let Self::Huge { page, lent } = self
            && lent.fetch_sub(1, Ordering::Relaxed) == 1
        {
            page.mark(Use::Own);
        }
    }
}

/// One ring.
#[derive(Debug)]
pub(crate) struct RingPlace {
    of: RingMemory,
    part: Arc<Part>,
    address: u64,
}

impl RingMemory {
    /// What all of it takes.
    pub(crate) const BYTES: u64 = RING_BYTES * RING_COUNT;

    /// From that address of the memory on, a multiple of 4,096.
    pub(crate) fn new(memory: Arc<GuestMemoryMmap>, start: u64) -> Self {
        let part = Arc::new(Part::Mapped(memory));
        let free = (0..RING_COUNT).rev().map(|n| (part.clone(), start + n * RING_BYTES)).collect();
        Self(Arc::new(Mutex::new(Pool { free, growth: 0, again_at: None })))
    }

    /// In huge pages, which are taken when they are needed.
    pub(crate) fn of_huge_pages() -> Self {
        Self(Arc::new(Mutex::new(Pool { free: Vec::new(), growth: RING_COUNT, again_at: None })))
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn take(&self) -> Option<RingPlace> {
        let mut pool = self.pool();
        if pool.free.is_empty() {
            pool.grow(Instant::now());
        }
        let (part, address) = pool.free.pop()?;
        part.lend();
        Some(RingPlace { of: self.clone(), part, address })
    }
}

impl Pool {
    /// Another huge page, if there is one.
    fn grow(&mut self, now: Instant) {
        if self.growth == 0 || self.again_at.is_some_and(|at| now < at) {
            return;
        }
        match HugePage::take() {
            Ok(page) => {
                let (start, rings) = (page.address, (page.bytes / RING_BYTES).min(self.growth));
                let part = Arc::new(Part::Huge { page, lent: AtomicU32::new(0) });
                self.free.extend((0..rings).rev().map(|n| (part.clone(), start + n * RING_BYTES)));
                self.growth -= rings;
                log::debug!("{rings} rings in a huge page at {start:#x}");
            }
            Err(e) => {
                log::debug!("no huge page for rings, payload goes in frames: {e}");
                self.again_at = Some(now + AGAIN_AFTER);
            }
        }
    }
}

impl RingPlace {
    /// As the options SEND_RING and RECEIVE_RING say it.
    pub(crate) fn value(&self) -> u64 {
        self.address | u64::from(RING_BYTES.trailing_zeros())
    }

    /// The card uses it no more.
    pub(crate) fn give_back(self) {
        let mut pool = self.of.pool();
        self.part.take_back();
        pool.free.push((self.part, self.address));
    }

    /// Stores bytes of the stream from `offset` on; at most a ring's length of them.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let (at, until_end) = self.place(offset);
        let (first, second) = bytes.split_at(bytes.len().min(until_end));
        let memory = self.part.memory();
        let written = memory.write_slice(first, at);
        let written = written.and_then(|()| memory.write_slice(second, GuestAddress(self.address)));
        debug_assert!(written.is_ok(), "a ring lies in mapped memory");
    }

    /// Copies bytes of the stream out, from `offset` on; at most a ring's length of them.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        let (at, until_end) = self.place(offset);
        let (first, second) = into.split_at_mut(into.len().min(until_end));
        let memory = self.part.memory();
        let read = memory.read_slice(first, at);
        let read = read.and_then(|()| memory.read_slice(second, GuestAddress(self.address)));
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

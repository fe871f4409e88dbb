//! Rings of descriptors that no driver would make, in a guest memory with nothing around it.
//!
//! The memory is two pieces with a hole between them, and each lies between pages that cannot be touched: an access outside
//! of it ends the process. A state is what a few stores of a driver make of the one before: descriptors with addresses at the
//! edges, lengths of nothing and of everything, links in circles, indirect tables, indices ahead of themselves; and now and then
//! all of it is noise. After a ring to send has been read, nothing may have changed but its used ring.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use toe_device::counters::Counters;
use toe_device::net::Features;
use toe_device::packet::Packet;
use toe_device::ring::{Delivery, Ring, RingError, Scratch, Transmitted};
use toe_impair::Random;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

const PAGE: usize = 4096;
/// Guest addresses and pages of the two pieces.
const PIECES: [(u64, usize); 2] = [(0x1_0000, 2), (0x1_4000, 1)];
/// States between two that are noise altogether.
const NOISE_EVERY: u64 = 512;

/// What came of the states.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Found {
    /// States looked at.
    pub states: u64,
    /// Rings that could not be opened.
    pub not_opened: u64,
    /// Packets read from them.
    pub packets: u64,
    /// Chains that made no sense.
    pub malformed: u64,
    /// Packets put into them.
    pub delivered: u64,
    /// Packets for which there was no room.
    pub no_room: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, not_opened, packets, malformed, delivered, no_room } = self;
        write!(f, "{states} states: {not_opened} not opened, {packets} packets read, {malformed} chains refused, ")?;
        write!(f, "{delivered} packets delivered, {no_room} without room")
    }
}

/// A piece of memory with a page on either side that cannot be touched.
fn guarded(pages: usize) -> Result<MmapRegion<()>> {
    let bytes = (pages + 2) * PAGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
    let all = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
    ensure!(all != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    let inside = all.wrapping_byte_add(PAGE).cast::<u8>();
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the pages lie in the mapping that was just made and that nobody else knows.
    let changed = unsafe { libc::mprotect(inside.cast(), pages * PAGE, access) };
    ensure!(changed == 0, "mprotect: {}", std::io::Error::last_os_error());
    // SAFETY: the range is mapped with these rights and stays so until the process ends: it is never unmapped, and a
    // region of this kind does not unmap it either.
    unsafe { MmapRegion::build_raw(inside, pages * PAGE, access, flags) }.context("a region of guarded memory")
}

/// The fuzzer of one thread.
struct Rings {
    random: Random,
    memory: GuestMemoryMmap<()>,
    /// What the memory holds, as far as the driver knows.
    shadow: Vec<u8>,
    queue: Queue,
    /// Guest addresses of the three parts.
    parts: [u64; 3],
    size: u16,
    event_idx: bool,
    packet: Packet,
    scratch: Scratch,
    counters: Counters,
    found: Found,
}

const MEMORY_BYTES: usize = (PIECES[0].1 + PIECES[1].1) * PAGE;

impl Rings {
    fn new(seed: u64) -> Result<Self> {
        let region = |(at, pages): (u64, usize)| {
            GuestRegionMmap::new(guarded(pages)?, GuestAddress(at)).context("a region at a guest address")
        };
        let regions = PIECES.into_iter().map(region).collect::<Result<Vec<_>>>()?;
        let memory = GuestMemoryMmap::from_regions(regions).context("guest memory of two regions")?;
        Ok(Self {
            random: Random::new(seed),
            memory,
            shadow: vec![0; MEMORY_BYTES],
            queue: Queue::new(256).context("a queue")?,
            parts: [0; 3],
            size: 1,
            event_idx: false,
            packet: Packet::default(),
            scratch: Scratch::default(),
            counters: Counters::default(),
            found: Found::default(),
        })
    }

    /// Where an offset into the shadow lies in the guest.
    fn address(offset: usize) -> u64 {
        let first = PIECES[0].1 * PAGE;
        if offset < first { PIECES[0].0 + offset as u64 } else { PIECES[1].0 + (offset - first) as u64 }
    }

    /// The offset of a guest address, if it is in memory.
    fn offset(address: u64) -> Option<usize> {
        let [(a, a_pages), (b, b_pages)] = PIECES;
        let inside = |at: u64, pages: usize| address.checked_sub(at).filter(|o| *o < (pages * PAGE) as u64);
        let first = inside(a, a_pages).map(|o| o as usize);
        first.or_else(|| inside(b, b_pages).map(|o| o as usize + a_pages * PAGE))
    }

    /// The driver stores bytes; what lies outside of memory it cannot.
    fn store(&mut self, address: u64, bytes: &[u8]) {
        let (Some(offset), Some(_)) = (Self::offset(address), Self::offset(address + bytes.len() as u64 - 1)) else {
            return;
        };
        if Self::address(offset) == address && offset + bytes.len() <= MEMORY_BYTES {
            self.shadow[offset..offset + bytes.len()].copy_from_slice(bytes);
            // In bounds, as was looked at.
            let _ = self.memory.write_slice(bytes, GuestAddress(address));
        }
    }

    /// An address that is likely to hurt.
    fn any_address(&mut self) -> u64 {
        let (at, pages) = PIECES[self.random.below(2) as usize];
        let end = at + (pages * PAGE) as u64;
        match self.random.below(16) {
            0 => end - self.random.below(32),
            1 => at.wrapping_sub(self.random.below(32)),
            2 => self.random.bits(),
            3 => u64::MAX - self.random.below(64),
            _ => at + self.random.below((pages * PAGE) as u64),
        }
    }

    fn any_length(&mut self) -> u32 {
        match self.random.below(16) {
            0 => 0,
            1 => self.random.bits() as u32,
            2 => u32::MAX - self.random.below(16) as u32,
            3 => 4096,
            4 => 16 * (1 + self.random.below(8) as u32),
            _ => self.random.below(200) as u32,
        }
    }

    /// The driver writes a descriptor, in the table or somewhere that may become one.
    fn write_descriptor(&mut self, writable: bool) {
        let table = if self.random.one_in(4) { self.any_address() & !15 } else { self.parts[0] };
        let slot = self.random.below(u64::from(self.size) + 1);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.any_address().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.any_length().to_le_bytes());
        // NEXT, WRITE, INDIRECT: mostly what fits the ring.
        let write = if writable != self.random.one_in(16) { 2 } else { 0 };
        let flags = match self.random.below(8) {
            0 => self.random.bits() as u16,
            1 => 4,
            2 | 3 => 1 | write,
            _ => write,
        };
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&(self.random.below(u64::from(self.size) + 2) as u16).to_le_bytes());
        if table.checked_add(16 * slot + 16).is_some() {
            self.store(table + 16 * slot, &bytes);
        }
    }

    fn noise(&mut self) {
        let mut bytes = vec![0; MEMORY_BYTES];
        self.random.fill(&mut bytes);
        let mut at = 0;
        for (address, pages) in PIECES {
            let n = pages * PAGE;
            self.store(address, &bytes[at..at + n]);
            at += n;
        }
        self.size = 1 << self.random.below(6);
        self.event_idx = self.random.one_in(2);
        let aligned = [16, 2, 4];
        self.parts = aligned.map(|alignment| self.any_address() & !(alignment - 1));
        if !self.random.one_in(8) {
            // Where a driver would put them: one behind the other.
            let base = PIECES[0].0 + 16 * self.random.below(64);
            self.parts = [base, base + 0x400, base + 0x800];
        }
        let [descriptors, avail, used] = self.parts.map(GuestAddress);
        let _ = self.queue.try_set_desc_table_address(descriptors);
        let _ = self.queue.try_set_avail_ring_address(avail);
        let _ = self.queue.try_set_used_ring_address(used);
        self.queue.set_size(self.size);
        self.queue.set_event_idx(self.event_idx);
        self.queue.set_ready(true);
        self.queue.set_next_avail(self.random.bits() as u16);
        self.queue.set_next_used(self.random.bits() as u16);
    }

    /// The next state.
    fn mutate(&mut self, writable: bool) {
        if self.found.states.is_multiple_of(NOISE_EVERY) {
            self.noise();
        }
        (0..1 + self.random.below(4)).for_each(|_| self.write_descriptor(writable));
        let avail = self.queue.avail_ring();
        let next = self.queue.next_avail();
        let ahead = match self.random.below(16) {
            0 => self.random.bits() as u16,
            1 => self.size + 1,
            _ => 1 + self.random.below(u64::from(self.size)) as u16,
        };
        for n in 0..ahead.min(4) {
            let slot = u64::from(next.wrapping_add(n) & (self.size - 1));
            let head = if self.random.one_in(16) { self.random.bits() } else { self.random.below(self.size.into()) };
            self.store(avail.wrapping_add(4 + 2 * slot), &(head as u16).to_le_bytes());
        }
        self.store(avail.wrapping_add(2), &next.wrapping_add(ahead).to_le_bytes());
        if self.random.one_in(8) {
            let event = self.random.bits() as u16;
            self.store(avail, &event.to_le_bytes());
        }
    }

    /// The card looks at it.
    fn look(&mut self, writable: bool) -> Result<()> {
        let features =
            Features([1 << 32 | 1 << 28 | 1 << 15, 1 << 32 | 1 << 28, 1 << 32, 0][self.random.below(4) as usize]);
        let mut ring = match Ring::open(&self.memory, &self.queue, features) {
            Ok(ring) => ring,
            Err(RingError::Address | RingError::Index) => {
                self.found.not_opened += 1;
                // A driver that is told to begin anew.
                if self.random.one_in(2) {
                    self.queue.set_next_avail(self.random.bits() as u16);
                }
                return Ok(());
            }
        };
        if writable {
            let bytes = [60, 200, 1514, 3000][self.random.below(4) as usize];
            self.packet.set_frame_bytes(bytes);
            match ring.receive(&self.packet, &mut self.scratch, &mut self.counters) {
                Delivery::Done => self.found.delivered += 1,
                Delivery::NoBuffers | Delivery::BufferTooSmall | Delivery::RingTooSmall => self.found.no_room += 1,
            }
        } else {
            for _ in 0..4 {
                match ring.transmit(&mut self.packet) {
                    Transmitted::Packet => self.found.packets += 1,
                    Transmitted::Malformed(_) => self.found.malformed += 1,
                    Transmitted::Nothing => break,
                }
            }
        }
        if self.random.one_in(2) {
            let _ = ring.arm();
        } else {
            ring.disarm();
        }
        let _ = ring.close(&mut self.queue);
        self.check(writable)
    }

    /// Takes over what the card wrote; after a ring to send, that is the used ring and nothing else.
    fn check(&mut self, writable: bool) -> Result<()> {
        let used_bytes = 4 + 8 * usize::from(self.size) + 2;
        let used = Self::offset(self.queue.used_ring()).unwrap_or(0);
        let used = used..(used + used_bytes).min(MEMORY_BYTES);
        let mut now = [0; MEMORY_BYTES];
        let mut at = 0;
        for (address, pages) in PIECES {
            let n = pages * PAGE;
            self.memory.read_slice(&mut now[at..at + n], GuestAddress(address)).context("reading guest memory")?;
            at += n;
        }
        let is_spared = now[..used.start] == self.shadow[..used.start] && now[used.end..] == self.shadow[used.end..];
        if !writable && !is_spared {
            bail!("state {}: a ring to send was read, and memory outside its used ring changed", self.found.states);
        }
        self.shadow.copy_from_slice(&now);
        Ok(())
    }
}

/// Looks at `count` states.
///
/// # Errors
/// Memory changed that the card has no business with. What it touches outside of memory ends the process.
pub fn run(seed: u64, count: u64) -> Result<Found> {
    let mut rings = Rings::new(seed)?;
    for _ in 0..count {
        let writable = rings.random.one_in(2);
        rings.mutate(writable);
        rings.look(writable)?;
        rings.found.states += 1;
    }
    // What the counters say is what was found.
    ensure!(rings.found.states == count, "states were lost");
    Ok(rings.found)
}

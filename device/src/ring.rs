//! A split virtqueue, the device's side of it (Virtual I/O Device 1.2, section 2.7).
//!
//! A [`Ring`] is one batch of work on one queue: it is opened, some chains are taken and used, and it is closed. So
//! what costs is paid once per batch: the memory guard (the caller's), the addresses of the three parts, one look at
//! the available index, one release store of the used index, one fence, one look at whether the driver wants an
//! interrupt. Nothing is allocated per chain.
//!
//! Everything in guest memory is hostile and may change between two looks. Hence: every value is read once and
//! checked before use; every buffer is resolved through the guest's memory map, which checks its bounds; a chain has
//! at most as many descriptors as its ring, whatever its links say; nothing is taken by reference, all is copied
//! out or in. A chain that makes no sense is handed back with length zero and counted ([`Malformed`]); only a head
//! beyond the table cannot be handed back, since it names no chain.
//!
//! Most of the time goes into waiting for what the other processor has just written. So descriptors and buffers that are
//! next but a few are asked for ahead of their turn ([`Ring::look_ahead`]); what stands there is looked at again when it
//! is theirs.
//!
//! There is no `unsafe` here: it is all in [`window`], which checks every access.

mod shared;
mod window;

use std::cell::Cell;
use std::num::Wrapping;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU16, Ordering, fence};

pub use shared::SharedMemory;
use toe_abi::ETHERNET_HEADER_BYTES;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use window::Window;

use crate::counters::Counters;
use crate::net::Features;
use crate::packet::{HEADER_BYTES, PACKET_BYTES_MAX, Packet};

const DESCRIPTOR_BYTES: usize = 16;
const AVAIL_HEADER_BYTES: usize = 4;
const USED_HEADER_BYTES: usize = 4;
const USED_ELEMENT_BYTES: usize = 8;
const INDEX_AT: usize = 2;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;
/// A descriptor's flags (virtio 1.2, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// How many chains ahead of their turn descriptors are asked for, and buffers.
const DESCRIPTORS_AHEAD: u16 = 16;
const BUFFERS_AHEAD: u16 = 8;
/// The most of a buffer that is asked for ahead, in bytes: what follows the processor finds by itself.
const AHEAD_BYTES: usize = 128;
const CACHE_LINE_BYTES: usize = 64;

/// Why a chain of descriptors makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// The available ring names a descriptor beyond the table.
    BadHead,
    /// A descriptor's `next` leads beyond its table.
    BadNext,
    /// More descriptors than the ring has: a loop.
    Loop,
    /// A buffer outside the guest's memory.
    BadAddress,
    /// A buffer of no bytes.
    EmptyBuffer,
    /// A buffer to be written in a chain to send, or one to be read in a chain to receive into.
    WrongDirection,
    /// An indirect table that is nested, chained, no whole number of descriptors, or not agreed upon.
    BadIndirect,
    /// More bytes than a frame can have.
    TooLong,
    /// Fewer bytes than the headers.
    TooShort,
}

impl Malformed {
    /// Counts a chain to send that was dropped for this.
    pub fn count_guest_frame(self, counters: &mut Counters) {
        *match self {
            Self::BadHead => &mut counters.guest_frame_bad_head,
            Self::BadNext => &mut counters.guest_frame_bad_next,
            Self::Loop => &mut counters.guest_frame_loop,
            Self::BadAddress => &mut counters.guest_frame_bad_address,
            Self::EmptyBuffer => &mut counters.guest_frame_empty_buffer,
            Self::WrongDirection => &mut counters.guest_frame_wrong_direction,
            Self::BadIndirect => &mut counters.guest_frame_bad_indirect,
            Self::TooLong => &mut counters.guest_frame_too_long,
            Self::TooShort => &mut counters.guest_frame_too_short,
        } += 1;
    }

    /// Counts a receive buffer that was handed back for this. There is none that is too long.
    fn count_receive_buffer(self, counters: &mut Counters) {
        *match self {
            Self::BadHead => &mut counters.receive_buffer_bad_head,
            Self::BadNext => &mut counters.receive_buffer_bad_next,
            Self::Loop => &mut counters.receive_buffer_loop,
            Self::BadAddress => &mut counters.receive_buffer_bad_address,
            Self::EmptyBuffer => &mut counters.receive_buffer_empty,
            Self::WrongDirection => &mut counters.receive_buffer_wrong_direction,
            Self::BadIndirect => &mut counters.receive_buffer_bad_indirect,
            Self::TooLong | Self::TooShort => &mut counters.receive_buffer_too_short,
        } += 1;
    }
}

/// Why a ring cannot be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RingError {
    /// A part of it lies outside the guest's memory or is misaligned.
    Address,
    /// The available index is more than the ring's size ahead.
    Index,
}

/// What a transmit ring had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Transmitted {
    /// A packet.
    Packet,
    /// A chain that made no sense.
    Malformed(Malformed),
    /// Nothing.
    Nothing,
}

/// What became of a packet for a receive ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Delivery {
    /// It is in the ring.
    Done,
    /// The ring has not enough buffers; nothing was consumed.
    NoBuffers,
    /// The next buffer is too small, and merging was not agreed upon; nothing was consumed.
    BufferTooSmall,
    /// The ring is full of buffers and they are too small all together; nothing was consumed.
    RingTooSmall,
}

/// Chains that one packet goes into: the head of each and the bytes written. Kept between packets for its memory.
#[derive(Default, Debug)]
pub struct Scratch {
    chains: Vec<(u16, u32)>,
}

/// The guest's memory as a batch sees it: the region of the last access is remembered, since the next is mostly in it.
#[derive(Debug)]
struct Map<'m> {
    memory: &'m GuestMemoryMmap,
    last: Cell<Option<(u64, Window<'m>)>>,
}

impl<'m> Map<'m> {
    /// So many bytes from a guest address on, if they lie in one region.
    fn window(&self, address: u64, bytes: usize) -> Option<Window<'m>> {
        if let Some((start, region)) = self.last.get()
            && let Some(offset) = address.checked_sub(start)
            && let Some(part) = usize::try_from(offset).ok().and_then(|offset| region.part(offset, bytes))
        {
            return Some(part);
        }
        let region = self.memory.find_region(GuestAddress(address))?;
        let start = region.start_addr().0;
        let whole = Window::new(region.as_volatile_slice().ok()?);
        self.last.set(Some((start, whole)));
        whole.part(usize::try_from(address - start).ok()?, bytes)
    }
}

/// A batch of work on one queue.
#[derive(Debug)]
pub struct Ring<'m> {
    memory: Map<'m>,
    descriptors: Window<'m>,
    avail: Window<'m>,
    used: Window<'m>,
    /// The index fields of the two.
    avail_index: &'m AtomicU16,
    used_index: &'m AtomicU16,
    size: u16,
    features: Features,
    event_idx: bool,
    /// The available index as last read.
    seen: Wrapping<u16>,
    next_avail: Wrapping<u16>,
    next_used: Wrapping<u16>,
    /// The used index as the driver knows it.
    published: Wrapping<u16>,
    /// How far descriptors, and buffers, were asked for.
    fetched: Wrapping<u16>,
    resolved: Wrapping<u16>,
    mishap: Option<Mishap>,
}

/// What is to go wrong with a ring, once ([`crate::fault`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mishap {
    /// The next frame to the guest is written into the buffers of the chain behind its own, if there is one.
    Astray,
    /// The used index is not written. The driver sees what was used when it is written next.
    IndexLate,
    /// The chain that was used last is named by an id that no descriptor has.
    WrongId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToDevice,
    ToGuest,
}

impl<'m> Ring<'m> {
    /// Opens `queue`, whose driver agreed to `features`.
    ///
    /// # Errors
    /// See [`RingError`]. The queue is not changed.
    pub fn open(memory: &'m GuestMemoryMmap, queue: &Queue, features: Features) -> Result<Self, RingError> {
        let size = queue.size();
        let entries = usize::from(size);
        let memory = Map { memory, last: Cell::new(None) };
        let part = |address: u64, bytes: usize| memory.window(address, bytes).ok_or(RingError::Address);
        let descriptors = part(queue.desc_table(), DESCRIPTOR_BYTES * entries)?;
        // The two bytes behind each ring are used_event and avail_event; without EVENT_IDX they need not exist.
        let event_bytes = if queue.event_idx_enabled() { 2 } else { 0 };
        let avail = part(queue.avail_ring(), AVAIL_HEADER_BYTES + 2 * entries + event_bytes)?;
        let used = part(queue.used_ring(), USED_HEADER_BYTES + USED_ELEMENT_BYTES * entries + event_bytes)?;
        let used_index = used.word(INDEX_AT).ok_or(RingError::Address)?;
        let avail_index = avail.word(INDEX_AT).ok_or(RingError::Address)?;
        let seen = Wrapping(u16::from_le(avail_index.load(Ordering::Acquire)));
        let next_avail = Wrapping(queue.next_avail());
        if (seen - next_avail).0 > size {
            return Err(RingError::Index);
        }
        let next_used = Wrapping(queue.next_used());
        Ok(Self {
            memory,
            descriptors,
            avail,
            used,
            avail_index,
            used_index,
            size,
            features,
            event_idx: queue.event_idx_enabled(),
            seen,
            next_avail,
            next_used,
            published: next_used,
            fetched: next_avail,
            resolved: next_avail,
            mishap: None,
        })
    }

    /// Something is to go wrong with it.
    pub fn befall(&mut self, mishap: Mishap) {
        self.mishap = Some(mishap);
    }

    /// Whether chains were used that the driver was not told of.
    pub fn has_used(&self) -> bool {
        self.next_used != self.published
    }

    /// The available index as it was read when the ring was opened.
    pub fn seen(&self) -> u16 {
        self.seen.0
    }

    /// Writes the used index again if the driver knows another: a write may have been lost.
    pub fn republish(&self) {
        if self.used_index.load(Ordering::Relaxed) != self.next_used.0.to_le() {
            self.used_index.store(self.next_used.0.to_le(), Ordering::Release);
        }
    }

    /// Where the driver asked to be interrupted, if that is behind what was used; `None` without EVENT_IDX, too.
    pub fn wish_passed(&self) -> Option<u16> {
        // Behind the index, which the driver looks at after it has asked.
        fence(Ordering::SeqCst);
        let wish = self.event_idx.then(|| self.wish())?;
        ((self.next_used - Wrapping(wish) - Wrapping(1)).0 < self.size).then_some(wish)
    }

    /// The used index at which the driver wants an interrupt (EVENT_IDX).
    fn wish(&self) -> u16 {
        self.load_avail(AVAIL_HEADER_BYTES + 2 * usize::from(self.size))
    }

    /// Copies the chain behind the one that was taken into `packet`, if there is one that makes sense; leaves it there.
    pub fn transmit_astray(&self, packet: &mut Packet) {
        if self.available() > 0 {
            // What makes no sense leaves the packet as long as it was, with some other bytes.
            let _ = self.gather(self.head(self.next_avail), packet);
        }
    }

    /// The chain whose buffers are written for the one at `cursor`.
    fn target(&mut self, cursor: Wrapping<u16>, head: u16) -> u16 {
        if self.mishap == Some(Mishap::Astray) {
            self.mishap = None;
            let behind = cursor + Wrapping(1);
            if behind != self.seen {
                return self.head(behind);
            }
        }
        head
    }

    /// Chains that can still be taken.
    pub fn available(&self) -> u16 {
        (self.seen - self.next_avail).0
    }

    /// Takes the next chain of a transmit ring and copies it into `packet`.
    pub fn transmit(&mut self, packet: &mut Packet) -> Transmitted {
        if self.available() == 0 {
            return Transmitted::Nothing;
        }
        self.look_ahead(Direction::ToDevice);
        let head = self.head(self.next_avail);
        self.next_avail += 1;
        if head >= self.size {
            return Transmitted::Malformed(Malformed::BadHead);
        }
        let outcome = self.gather(head, packet);
        self.give_back(head, 0);
        match outcome {
            Ok(()) => Transmitted::Packet,
            Err(malformed) => Transmitted::Malformed(malformed),
        }
    }

    /// Puts `packet` into the next chains of a receive ring. Chains that make no sense are handed back and counted.
    pub fn receive(&mut self, packet: &Packet, scratch: &mut Scratch, counters: &mut Counters) -> Delivery {
        let header_bytes = self.features.header_bytes();
        let header = packet.header().with_buffers(1);
        let parts = [&header.0[..header_bytes], packet.frame()];
        let bytes = parts[0].len() + parts[1].len();
        scratch.chains.clear();
        self.look_ahead(Direction::ToGuest);
        let mut cursor = self.next_avail;
        let mut written = 0;
        while written < bytes {
            if cursor == self.seen {
                let all = (cursor - self.next_avail).0 == self.size;
                return if all { Delivery::RingTooSmall } else { Delivery::NoBuffers };
            }
            let head = self.head(cursor);
            let target = self.target(cursor, head);
            cursor += 1;
            match self.scatter(target, parts, written) {
                Ok(n) if written + n < bytes && !self.features.mergeable() => return Delivery::BufferTooSmall,
                Ok(n) => {
                    scratch.chains.push((head, n as u32));
                    written += n;
                }
                Err(malformed) => {
                    // Handed back with all before it, so that chains stay in order; the packet starts anew behind.
                    malformed.count_receive_buffer(counters);
                    scratch.chains.drain(..).for_each(|(head, _)| self.give_back(head, 0));
                    if head < self.size {
                        self.give_back(head, 0);
                    }
                    self.next_avail = cursor;
                    written = 0;
                }
            }
        }
        if let [(first, _), _, ..] = scratch.chains[..] {
            // Known only now. That the walk may find another chain this time harms nobody but who changed it.
            let count = (scratch.chains.len() as u16).to_le_bytes();
            let _ = self.scatter_at(first, HEADER_BYTES - count.len(), &count);
        }
        scratch.chains.drain(..).for_each(|(head, bytes)| self.give_back(head, bytes));
        self.next_avail = cursor;
        Delivery::Done
    }

    /// Asks the driver to notify when it makes another chain available. Whether it did so since the ring was opened:
    /// then no notification will come for that, and the caller has to look again.
    ///
    /// It compares with what was seen, not with what was taken: chains that were left because they are too few must
    /// not keep the caller busy.
    #[must_use]
    pub fn arm(&mut self) -> bool {
        if self.event_idx {
            self.store_used(USED_HEADER_BYTES + USED_ELEMENT_BYTES * usize::from(self.size), self.seen.0);
        } else {
            self.store_used(0, 0);
        }
        // The driver writes its index and then looks whether to notify: we the other way round.
        fence(Ordering::SeqCst);
        u16::from_le(self.avail_index.load(Ordering::Acquire)) != self.seen.0
    }

    /// Says that no notifications are needed: the ring will be looked at anyway. With EVENT_IDX there is nothing to say.
    pub fn disarm(&mut self) {
        // Said once: a store takes the line from the driver, which looks at it.
        if !self.event_idx && self.used.word(0).is_some_and(|word| word.load(Ordering::Relaxed) != NO_NOTIFY.to_le()) {
            self.store_used(0, NO_NOTIFY);
        }
    }

    /// Makes visible what was used and writes the positions back to `queue`. Whether the driver wants an interrupt.
    #[must_use]
    pub fn close(self, queue: &mut Queue) -> bool {
        queue.set_next_avail(self.next_avail.0);
        queue.set_next_used(self.next_used.0);
        let used = self.next_used - self.published;
        if used.0 == 0 {
            return false;
        }
        match self.mishap {
            None | Some(Mishap::Astray) => {}
            Some(Mishap::IndexLate) => return false,
            Some(Mishap::WrongId) => self.write_used(self.next_used - Wrapping(1), self.size, 0),
        }
        self.used_index.store(self.next_used.0.to_le(), Ordering::Release);
        // The index first, then the look at what the driver asks for.
        fence(Ordering::SeqCst);
        if self.event_idx {
            (self.next_used - Wrapping(self.wish()) - Wrapping(1)) < used
        } else {
            self.load_avail(0) & NO_INTERRUPT == 0
        }
    }

    /// A word of the available ring. It is inside and aligned, as was seen when the ring was opened.
    fn load_avail(&self, at: usize) -> u16 {
        self.avail.word(at).map_or(0, |word| u16::from_le(word.load(Ordering::Relaxed)))
    }

    /// The same of the used ring.
    fn store_used(&mut self, at: usize, value: u16) {
        if let Some(word) = self.used.word(at) {
            word.store(value.to_le(), Ordering::Relaxed);
        }
    }

    /// The head at that position of the available ring. It was written before the index that was read.
    fn head(&self, position: Wrapping<u16>) -> u16 {
        let slot = usize::from(position.0 & (self.size - 1));
        self.load_avail(AVAIL_HEADER_BYTES + 2 * slot)
    }

    fn give_back(&mut self, head: u16, bytes: u32) {
        self.write_used(self.next_used, head, bytes);
        self.next_used += 1;
    }

    fn write_used(&self, position: Wrapping<u16>, head: u16, bytes: u32) {
        let slot = usize::from(position.0 & (self.size - 1));
        let element = u64::from(head) | u64::from(bytes) << 32;
        let stored = self.used.store(USED_HEADER_BYTES + USED_ELEMENT_BYTES * slot, element);
        debug_assert!(stored, "inside, as was seen when the ring was opened");
    }

    /// Has the processor fetch the descriptors and buffers of chains whose turn comes soon.
    fn look_ahead(&mut self, direction: Direction) {
        let ahead = |position: Wrapping<u16>, next: Wrapping<u16>| (position - next).0;
        if ahead(self.fetched, self.next_avail) > self.size {
            self.fetched = self.next_avail;
        }
        while self.fetched != self.seen && ahead(self.fetched, self.next_avail) < DESCRIPTORS_AHEAD {
            self.descriptors.soon_read(usize::from(self.head(self.fetched)) * DESCRIPTOR_BYTES);
            self.fetched += 1;
        }
        if ahead(self.resolved, self.next_avail) > self.size {
            self.resolved = self.next_avail;
        }
        while self.resolved != self.fetched && ahead(self.resolved, self.next_avail) < BUFFERS_AHEAD {
            let head = self.head(self.resolved);
            self.resolved += 1;
            let Some([address, rest]) = self.descriptors.pair(head.into()) else { continue };
            let bytes = (rest as u32 as usize).min(AHEAD_BYTES);
            let Some(buffer) = self.memory.window(address, bytes) else { continue };
            for line in (0..bytes).step_by(CACHE_LINE_BYTES) {
                match direction {
                    Direction::ToDevice => buffer.soon_read(line),
                    Direction::ToGuest => buffer.soon_written(line),
                }
            }
        }
    }

    /// Copies the chain at `head` into `packet`.
    fn gather(&self, head: u16, packet: &mut Packet) -> Result<(), Malformed> {
        // A shorter header is filled up at its end.
        let missing = HEADER_BYTES - self.features.header_bytes();
        let room = packet.room();
        let mut at = missing;
        self.walk(head, Direction::ToDevice, |slice| {
            let end = at + slice.len();
            if end > PACKET_BYTES_MAX {
                return Err(Malformed::TooLong);
            }
            slice.copy_out(&mut room[at..end]);
            at = end;
            Ok(ControlFlow::Continue(()))
        })?;
        if at < HEADER_BYTES + ETHERNET_HEADER_BYTES {
            return Err(Malformed::TooShort);
        }
        if missing > 0 {
            room.copy_within(missing..HEADER_BYTES, 0);
            room[HEADER_BYTES - missing..HEADER_BYTES].fill(0);
        }
        packet.set_bytes(at);
        Ok(())
    }

    /// Copies what stands in `parts` from `skip` on into the chain at `head`, as much as it holds. How much that was.
    fn scatter(&self, head: u16, parts: [&[u8]; 2], skip: usize) -> Result<usize, Malformed> {
        let total = parts[0].len() + parts[1].len();
        let mut at = skip;
        self.walk(head, Direction::ToGuest, |slice| {
            let mut slice = slice;
            if at < parts[0].len() {
                let n = (parts[0].len() - at).min(slice.len());
                slice.copy_in(&parts[0][at..at + n]);
                at += n;
                slice = slice.part(n, slice.len() - n).ok_or(Malformed::BadAddress)?;
            }
            if at >= parts[0].len() {
                let from = at - parts[0].len();
                let n = (parts[1].len() - from).min(slice.len());
                slice.copy_in(&parts[1][from..from + n]);
                at += n;
            }
            Ok(if at == total { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if skip == 0 && at < parts[0].len() {
            return Err(Malformed::TooShort);
        }
        Ok(at - skip)
    }

    /// Copies `bytes` to the offset `to` of the chain at `head`.
    fn scatter_at(&self, head: u16, to: usize, bytes: &[u8]) -> Result<(), Malformed> {
        let (mut skip, mut at) = (to, 0);
        self.walk(head, Direction::ToGuest, |slice| {
            let from = skip.min(slice.len());
            skip -= from;
            let n = (slice.len() - from).min(bytes.len() - at);
            slice.part(from, n).ok_or(Malformed::BadAddress)?.copy_in(&bytes[at..at + n]);
            at += n;
            Ok(if at == bytes.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    /// Visits the buffers of the chain at `head` in their order, until `visit` breaks off.
    fn walk(
        &self,
        head: u16,
        direction: Direction,
        mut visit: impl FnMut(Window<'m>) -> Result<ControlFlow<()>, Malformed>,
    ) -> Result<(), Malformed> {
        let mut table = self.descriptors;
        let mut at = head;
        let mut indirect = false;
        let mut beyond = Malformed::BadHead;
        for _ in 0..=self.size {
            // The only error is that `at` lies beyond the table.
            let [address, rest] = table.pair(at.into()).ok_or(beyond)?;
            beyond = Malformed::BadNext;
            let (bytes, flags, next) = (rest as u32 as usize, (rest >> 32) as u16, (rest >> 48) as u16);
            if flags & INDIRECT != 0 {
                let whole = bytes > 0 && bytes.is_multiple_of(DESCRIPTOR_BYTES);
                if indirect || !self.features.indirect() || flags & NEXT != 0 || !whole {
                    return Err(Malformed::BadIndirect);
                }
                table = self.memory.window(address, bytes).ok_or(Malformed::BadAddress)?;
                indirect = true;
                at = 0;
                continue;
            }
            if (flags & WRITE != 0) != (direction == Direction::ToGuest) {
                return Err(Malformed::WrongDirection);
            }
            if bytes == 0 {
                return Err(Malformed::EmptyBuffer);
            }
            if let Some(window) = self.memory.window(address, bytes) {
                if visit(window)?.is_break() {
                    return Ok(());
                }
            } else {
                // Not in one piece, but perhaps in two regions that touch.
                for slice in self.memory.memory.get_slices(GuestAddress(address), bytes) {
                    if visit(Window::new(slice.map_err(|_| Malformed::BadAddress)?))?.is_break() {
                        return Ok(());
                    }
                }
            }
            if flags & NEXT == 0 {
                return Ok(());
            }
            at = next;
        }
        Err(Malformed::Loop)
    }
}

#[cfg(test)]
mod tests;

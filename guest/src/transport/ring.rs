//! A split virtqueue, driver's side (virtio 1.2, 2.7).
//!
//! Every descriptor owns one buffer of a fixed place and size, for ever; a chain is a single descriptor. So the
//! descriptor table is written once (but for a length when sending), and what the device says can be checked against a
//! bit per descriptor. All access is through [`GuestMemoryMmap`], which checks every address.
//!
//! The other side is not trusted with more than its own frames: an id out of range, one that the device does not
//! hold, or a length beyond the buffer is [`RingError`], after which the queue is dead.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

const DESCRIPTOR_BYTES: u64 = 16;
const USED_ELEMENT_BYTES: u64 = 8;
const WRITE_BY_DEVICE: u16 = 2;
const NO_NOTIFY: u16 = 1;

/// Where a ring and its buffers lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) size: u16,
    pub(crate) buffer_bytes: u32,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) buffers: u64,
    /// Where it ends.
    pub(crate) end: u64,
}

impl Layout {
    /// From `start` on: `size` (a power of two) buffers of `buffer_bytes`.
    pub(crate) fn new(start: u64, size: u16, buffer_bytes: u32) -> Self {
        let entries = u64::from(size);
        let descriptors = start.next_multiple_of(4096);
        let available = descriptors + DESCRIPTOR_BYTES * entries;
        let used = (available + 6 + 2 * entries).next_multiple_of(64);
        let buffers = (used + 6 + USED_ELEMENT_BYTES * entries).next_multiple_of(4096);
        let end = buffers + entries * u64::from(buffer_bytes);
        Self { size, buffer_bytes, descriptors, available, used, buffers, end }
    }
}

/// What the device must not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    #[error("the device used buffer {0}, which it does not hold")]
    NotHeld(u32),
    #[error("the device says that it wrote {written} bytes into a buffer of {room}")]
    TooLong { written: u32, room: u32 },
    #[error("the device's used index ran ahead of what it was given")]
    RanAhead,
    #[error("the ring's memory: {0}")]
    Memory(#[from] GuestMemoryError),
}

/// A buffer that the device has used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Used {
    pub(crate) head: u16,
    /// Bytes that the device wrote.
    pub(crate) bytes: u32,
}

/// The driver's side of a split virtqueue; see the module.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: Arc<GuestMemoryMmap>,
    layout: Layout,
    event_idx: bool,
    /// Which heads the device holds.
    held: Vec<bool>,
    next_available: u16,
    /// The available index up to which the device was told, for the event index's arithmetic.
    notified: u16,
    next_used: u16,
}

impl Ring {
    /// An empty ring in zeroed memory.
    pub(crate) fn new(
        memory: Arc<GuestMemoryMmap>,
        layout: Layout,
        event_idx: bool,
        for_device_to_write: bool,
    ) -> Result<Self, RingError> {
        let ring = Self {
            memory,
            layout,
            event_idx,
            held: vec![false; usize::from(layout.size)],
            next_available: 0,
            notified: 0,
            next_used: 0,
        };
        let flags = if for_device_to_write { WRITE_BY_DEVICE } else { 0 };
        for head in 0..layout.size {
            let at = GuestAddress(layout.descriptors + DESCRIPTOR_BYTES * u64::from(head));
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&ring.buffer(head).0.to_le_bytes());
            descriptor[8..12].copy_from_slice(&layout.buffer_bytes.to_le_bytes());
            descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
            ring.memory.write_slice(&descriptor, at)?;
        }
        Ok(ring)
    }

    /// Where the buffer of a descriptor lies.
    pub(crate) fn buffer(&self, head: u16) -> GuestAddress {
        GuestAddress(self.layout.buffers + u64::from(head) * u64::from(self.layout.buffer_bytes))
    }

    /// A descriptor that the device does not hold: always the first, so that few buffers are used again and again while
    /// the processor's caches still have them.
    pub(crate) fn free(&self) -> Option<u16> {
        self.held.iter().position(|held| !held).map(|head| head as u16)
    }

    /// Sets how many bytes of a descriptor's buffer count.
    pub(crate) fn set_length(&self, head: u16, bytes: u32) -> Result<(), RingError> {
        let at = GuestAddress(self.layout.descriptors + DESCRIPTOR_BYTES * u64::from(head) + 8);
        self.memory.write_slice(&bytes.to_le_bytes(), at)?;
        Ok(())
    }

    /// Gives a free descriptor to the device.
    pub(crate) fn give(&mut self, head: u16) -> Result<(), RingError> {
        let slot = u64::from(self.next_available % self.layout.size);
        self.memory.store(head.to_le(), GuestAddress(self.layout.available + 4 + 2 * slot), Ordering::Relaxed)?;
        self.next_available = self.next_available.wrapping_add(1);
        self.held[usize::from(head)] = true;
        // Release: the device that sees the index sees the descriptor and the buffer.
        let index = GuestAddress(self.layout.available + 2);
        self.memory.store(self.next_available.to_le(), index, Ordering::Release)?;
        Ok(())
    }

    /// Whether the device wants to be told of what was given since this was last asked.
    pub(crate) fn must_notify(&mut self) -> Result<bool, RingError> {
        // The index must be out before the device's wish is read, or both may miss each other.
        fence(Ordering::SeqCst);
        let (new, old) = (self.next_available, self.notified);
        self.notified = new;
        if !self.event_idx {
            let flags: u16 = self.memory.load(GuestAddress(self.layout.used), Ordering::Relaxed)?;
            return Ok(new != old && u16::from_le(flags) & NO_NOTIFY == 0);
        }
        let at = self.layout.used + 4 + USED_ELEMENT_BYTES * u64::from(self.layout.size);
        let event = u16::from_le(self.memory.load(GuestAddress(at), Ordering::Relaxed)?);
        Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }

    fn used_index(&self) -> Result<u16, RingError> {
        // Acquire: whoever sees the index sees what the device wrote before.
        Ok(u16::from_le(self.memory.load(GuestAddress(self.layout.used + 2), Ordering::Acquire)?))
    }

    /// How many buffers the device has used and [`Ring::take`] has not given yet.
    pub(crate) fn waiting(&self) -> Result<u16, RingError> {
        let waiting = self.used_index()?.wrapping_sub(self.next_used);
        if waiting > self.layout.size { Err(RingError::RanAhead) } else { Ok(waiting) }
    }

    /// The next buffer that the device has used.
    pub(crate) fn take(&mut self) -> Result<Option<Used>, RingError> {
        if self.waiting()? == 0 {
            return Ok(None);
        }
        let slot = u64::from(self.next_used % self.layout.size);
        let mut element = [0; 8];
        self.memory.read_slice(&mut element, GuestAddress(self.layout.used + 4 + USED_ELEMENT_BYTES * slot))?;
        let (id, bytes) = element.split_at(4);
        let id = u32::from_le_bytes([id[0], id[1], id[2], id[3]]);
        let bytes = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let head = u16::try_from(id).ok().filter(|head| self.held.get(usize::from(*head)) == Some(&true));
        let head = head.ok_or(RingError::NotHeld(id))?;
        if bytes > self.layout.buffer_bytes {
            return Err(RingError::TooLong { written: bytes, room: self.layout.buffer_bytes });
        }
        self.held[usize::from(head)] = false;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(Some(Used { head, bytes }))
    }

    /// Asks for an interrupt at the next used buffer; `false` if there is one already, so that waiting for the
    /// interrupt would be in vain.
    pub(crate) fn arm(&self) -> Result<bool, RingError> {
        if self.event_idx {
            let at = self.layout.available + 4 + 2 * u64::from(self.layout.size);
            self.memory.store(self.next_used.to_le(), GuestAddress(at), Ordering::Relaxed)?;
            fence(Ordering::SeqCst);
        }
        Ok(self.waiting()? == 0)
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;

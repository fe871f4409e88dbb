//! Frames that the kernel puts into memory which it shares with the card: a packet socket's receive ring.
//!
//! The memory is [`SLOTS`] slots of [`SLOT_BYTES`]. Each begins with a status word, which says whose it is: the kernel fills
//! those that are its own, in order, and hands each over by one store; the card reads the first that it was handed and gives it
//! back by one store. So a frame costs the card no call of the kernel, and its copy is made by who sends it. When no slot
//! is free the kernel drops what comes and counts it.
//!
//! A frame that does not fit into a slot (merged segments, a large MTU) waits whole in the socket's own queue, if there is room, and
//! its slot says so in its place: whoever comes to that slot receives it from the socket.
//!
//! The layout is version 2 of Linux' `packet(7)`: the status word and lengths of `struct tpacket2_hdr`, and in front of the frame
//! the short virtio-net header. Nothing of it is believed that would lead out of its slot.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::interface::{SHORT_HEADER_BYTES, set};

/// Bytes of a slot: a frame of an MTU of 1500 and what stands in front of it.
const SLOT_BYTES: usize = 2048;
/// Slots of the ring: frames that may wait for the card.
const SLOTS: usize = 8192;
/// Bytes that the kernel takes in one piece for slots.
const BLOCK_BYTES: usize = 64 << 10;

/// The ring of one socket.
#[derive(Debug)]
pub(super) struct PacketRing {
    memory: NonNull<u8>,
    /// The first slot that was not given back.
    first: usize,
}

// SAFETY: the memory is the ring's own mapping, which any thread may access.
unsafe impl Send for PacketRing {}

impl PacketRing {
    /// Makes the ring of a packet socket that sees no frames yet.
    ///
    /// # Errors
    /// With the step that failed and what the kernel says.
    pub(super) fn new(socket: BorrowedFd<'_>) -> Result<Self, (&'static str, io::Error)> {
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &version).map_err(|e| ("PACKET_VERSION", e))?;
        // Whatever does not fit into a slot is kept whole beside it.
        set(&socket, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &1).map_err(|e| ("PACKET_COPY_THRESH", e))?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_BYTES as _,
            tp_block_nr: (SLOTS * SLOT_BYTES / BLOCK_BYTES) as _,
            tp_frame_size: SLOT_BYTES as _,
            tp_frame_nr: SLOTS as _,
        };
        set(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request).map_err(|e| ("PACKET_RX_RING", e))?;
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), SLOTS * SLOT_BYTES, access, flags, socket.as_raw_fd(), 0) };
        if memory == libc::MAP_FAILED {
            return Err(("mapping the receive ring", io::Error::last_os_error()));
        }
        let memory =
            NonNull::new(memory.cast()).ok_or_else(|| ("mapping the receive ring", io::ErrorKind::Other.into()))?;
        Ok(Self { memory, first: 0 })
    }

    /// The first frame that waits, if one does.
    pub(super) fn first(&self) -> Option<Slot<'_>> {
        // SAFETY: `first` is below SLOTS, so the whole slot lies in the mapping, which lives as long as `self`. The status word is at
        // its beginning and aligned (slots are), and is accessed by atomic operations alone, here as in the kernel.
        let (slot, status) = unsafe {
            let slot = self.memory.add(self.first * SLOT_BYTES);
            (slot, AtomicU32::from_ptr(slot.cast().as_ptr()).load(Ordering::Acquire))
        };
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: as above; a slot that was handed over is not written to by the kernel until it is given back, for which `self` must
        // be borrowed mutably, so that no reference from here is left.
        let bytes = unsafe { std::slice::from_raw_parts(slot.as_ptr(), SLOT_BYTES) };
        Some(Slot { status, bytes })
    }

    /// Gives the slot that was the [`first`](Self::first) back to the kernel.
    pub(super) fn give_back(&mut self) {
        // SAFETY: as in `first`; no reference to the slot is left, since `self` is borrowed mutably.
        unsafe {
            let slot = self.memory.add(self.first * SLOT_BYTES);
            AtomicU32::from_ptr(slot.cast().as_ptr()).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
        self.first = (self.first + 1) % SLOTS;
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; nothing refers to it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), SLOTS * SLOT_BYTES) };
    }
}

/// A slot that the kernel has handed over.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    status: u32,
    bytes: &'a [u8],
}

/// What a slot holds.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Held<'a> {
    /// The short virtio-net header and the frame behind it.
    Whole(&'a [u8]),
    /// Only its place: the frame is the next of the socket's own queue.
    Apart,
    /// The beginning of a frame for the rest of which there was no room.
    Cut,
}

impl<'a> Slot<'a> {
    /// Whether the kernel took a VLAN tag off the frame.
    pub(super) fn had_tag(&self) -> bool {
        self.status & libc::TP_STATUS_VLAN_VALID != 0
    }

    /// What it holds.
    pub(super) fn held(&self) -> Held<'a> {
        use std::mem::offset_of;
        if self.status & libc::TP_STATUS_COPY != 0 {
            return Held::Apart;
        }
        let word = |at: usize| self.bytes[at..at + 4].try_into().map_or(0, u32::from_ne_bytes) as usize;
        let half = |at: usize| self.bytes[at..at + 2].try_into().map_or(0, u16::from_ne_bytes) as usize;
        let (all, here) =
            (word(offset_of!(libc::tpacket2_hdr, tp_len)), word(offset_of!(libc::tpacket2_hdr, tp_snaplen)));
        let frame = half(offset_of!(libc::tpacket2_hdr, tp_mac));
        match frame.checked_sub(SHORT_HEADER_BYTES).and_then(|from| self.bytes.get(from..frame + here)) {
            Some(bytes) if all == here => Held::Whole(bytes),
            _ => Held::Cut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(status: u32, all: u32, here: u32, frame: u16) -> Vec<u8> {
        let mut bytes = vec![0; SLOT_BYTES];
        bytes[..4].copy_from_slice(&status.to_ne_bytes());
        bytes[4..8].copy_from_slice(&all.to_ne_bytes());
        bytes[8..12].copy_from_slice(&here.to_ne_bytes());
        bytes[12..14].copy_from_slice(&frame.to_ne_bytes());
        bytes
    }

    #[test]
    fn what_a_slot_says_leads_nowhere_else() {
        let held = |all, here, frame| match (Slot { status: 1, bytes: &slot(1, all, here, frame) }).held() {
            Held::Whole(bytes) => Some(bytes.len()),
            Held::Apart => panic!("apart"),
            Held::Cut => None,
        };
        assert_eq!(held(60, 60, 82), Some(70));
        assert_eq!(held(1_966, 1_966, 82), Some(1_976), "to the slot's end");
        assert_eq!(held(1_967, 1_967, 82), None, "beyond it");
        assert_eq!(held(3_000, 1_966, 82), None, "cut");
        assert_eq!(held(0, 0, 10), Some(10));
        for (all, here, frame) in [(60, 60, 9), (60, 60, u16::MAX), (u32::MAX, u32::MAX, 82), (u32::MAX, u32::MAX, 0)] {
            assert_eq!(held(all, here, frame), None, "{all} {here} {frame}");
        }
    }

    #[test]
    fn the_status_tells_what_is_apart_and_what_was_tagged() {
        let bytes = slot(0, 9_000, 1_966, 82);
        let apart = Slot { status: libc::TP_STATUS_USER | libc::TP_STATUS_COPY, bytes: &bytes };
        assert_eq!((apart.held(), apart.had_tag()), (Held::Apart, false));
        let tagged = Slot { status: libc::TP_STATUS_USER | libc::TP_STATUS_VLAN_VALID, bytes: &bytes };
        assert!(tagged.had_tag());
    }
}

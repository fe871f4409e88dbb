//! The driver's side of a split virtqueue, for tests: it writes what it is told, right or wrong.
#![allow(dead_code)]

use std::sync::atomic::{AtomicU16, Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory};

/// A descriptor's flags.
pub mod flag {
    pub const NEXT: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const INDIRECT: u16 = 4;
}

/// One descriptor: address, bytes, flags, next.
pub type Descriptor = (u64, u32, u16, u16);

#[derive(Clone, Debug)]
pub struct DriverQueue {
    pub memory: GuestMemoryMmap,
    pub size: u16,
    pub descriptors: u64,
    pub avail: u64,
    pub used: u64,
    pub event_idx: bool,
    pub next_avail: u16,
    pub next_used: u16,
}

impl DriverQueue {
    /// A queue whose three parts lie one after the other from `base` (16-byte aligned) on.
    pub fn new(memory: &GuestMemoryMmap, base: u64, size: u16, event_idx: bool) -> Self {
        let descriptors = base;
        let avail = descriptors + 16 * u64::from(size);
        let used = (avail + 6 + 2 * u64::from(size)).next_multiple_of(4);
        Self { memory: memory.clone(), size, descriptors, avail, used, event_idx, next_avail: 0, next_used: 0 }
    }

    /// Where the memory behind it begins.
    pub fn end(&self) -> u64 {
        (self.used + 6 + 8 * u64::from(self.size)).next_multiple_of(4096)
    }

    pub fn write_descriptor(&self, table: u64, index: u16, (address, bytes, flags, next): Descriptor) {
        let words = [address, u64::from(bytes) | u64::from(flags) << 32 | u64::from(next) << 48];
        for (i, word) in words.into_iter().enumerate() {
            let at = table + 16 * u64::from(index) + 8 * i as u64;
            self.memory.write_obj(word.to_le(), GuestAddress(at)).unwrap();
        }
    }

    /// Writes a chain into the descriptors from `head` on, linked in their order.
    pub fn write_chain(&self, head: u16, buffers: &[(u64, u32)], flags: u16) {
        for (i, (address, bytes)) in buffers.iter().enumerate() {
            let at = head + i as u16;
            let next = if i + 1 < buffers.len() { flag::NEXT } else { 0 };
            self.write_descriptor(self.descriptors, at, (*address, *bytes, flags | next, at + 1));
        }
    }

    fn word<T>(&self, at: u64, use_it: impl FnOnce(&AtomicU16) -> T) -> T {
        let slice = self.memory.get_slice(GuestAddress(at), 2).unwrap();
        use_it(slice.get_atomic_ref::<AtomicU16>(0).unwrap())
    }

    pub fn load(&self, at: u64) -> u16 {
        self.word(at, |word| u16::from_le(word.load(Ordering::Acquire)))
    }

    pub fn store(&self, at: u64, value: u16) {
        self.word(at, |word| word.store(value.to_le(), Ordering::Release));
    }

    /// Makes a chain available. Whether the device wants to be kicked for it.
    pub fn offer(&mut self, head: u16) -> bool {
        self.store(self.avail + 4 + 2 * u64::from(self.next_avail % self.size), head);
        self.next_avail = self.next_avail.wrapping_add(1);
        self.store(self.avail + 2, self.next_avail);
        fence(Ordering::SeqCst);
        if self.event_idx { self.avail_event() == self.next_avail.wrapping_sub(1) } else { self.used_flags() & 1 == 0 }
    }

    /// The next chain that the device has used: head and bytes written.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.load(self.used + 2) == self.next_used {
            return None;
        }
        let at = self.used + 4 + 8 * u64::from(self.next_used % self.size);
        self.next_used = self.next_used.wrapping_add(1);
        let element = u64::from_le(self.memory.read_obj(GuestAddress(at)).unwrap());
        Some((element as u32, (element >> 32) as u32))
    }

    pub fn used_flags(&self) -> u16 {
        self.load(self.used)
    }

    pub fn avail_event(&self) -> u16 {
        self.load(self.used + 4 + 8 * u64::from(self.size))
    }

    /// Asks for an interrupt once the device has used the chain at that position (EVENT_IDX).
    pub fn set_used_event(&self, position: u16) {
        self.store(self.avail + 4 + 2 * u64::from(self.size), position);
    }

    /// Asks for no interrupts (without EVENT_IDX).
    pub fn set_no_interrupt(&self, no: bool) {
        self.store(self.avail, u16::from(no));
    }

    pub fn read(&self, at: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.memory.read_slice(&mut data, GuestAddress(at)).unwrap();
        data
    }

    pub fn write(&self, at: u64, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(at)).unwrap();
    }
}

//! The frontend's memory, as the firmware reaches it for the rings that programs name.
//!
//! Addresses are those of the memory map that the frontend gave for the descriptor rings, and every access is translated
//! through the map of that moment and checked ([`super::window`]): nothing that was resolved is kept. When a frontend comes or goes, or
//! replaces its map, the generation is another, and the firmware forgets what was named before: a ring of one frontend's memory
//! must not become a place in the next one's.

use std::sync::Arc;

use parking_lot::Mutex;
use toe_firmware::HostMemory;
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend, GuestMemoryMmap};

use super::window::Window;

/// A handle of it. Clones are the same memory.
#[derive(Clone, Default)]
pub struct SharedMemory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    memory: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
    generation: u32,
}

impl std::fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedMemory").field(&self.0.lock().generation).finish()
    }
}

impl SharedMemory {
    /// Another frontend's from now on, or nobody's.
    pub fn replace(&self, memory: Option<GuestMemoryAtomic<GuestMemoryMmap>>) {
        let mut state = self.0.lock();
        state.memory = memory;
        state.generation = state.generation.wrapping_add(1);
    }

    /// The frontend's map is another.
    pub fn remap(&self) {
        let mut state = self.0.lock();
        state.generation = state.generation.wrapping_add(1);
    }

    /// Calls `visit` for windows that are together all of it, in order; `false` if a part of it is nowhere, or `visit` says so.
    fn walk(&self, address: u64, bytes: usize, mut visit: impl FnMut(Window<'_>) -> bool) -> bool {
        let state = self.0.lock();
        let Some(memory) = &state.memory else { return false };
        let memory = memory.memory();
        let mut seen = 0;
        for slice in memory.get_slices(GuestAddress(address), bytes) {
            let Ok(slice) = slice else { return false };
            let window = Window::new(slice);
            seen += window.len();
            if !visit(window) {
                return false;
            }
        }
        seen == bytes
    }
}

impl HostMemory for SharedMemory {
    fn generation(&self) -> u32 {
        self.0.lock().generation
    }

    fn holds(&self, address: u64, bytes: u64) -> bool {
        usize::try_from(bytes).is_ok_and(|bytes| self.walk(address, bytes, |_| true))
    }

    fn read(&self, address: u64, mut into: &mut [u8]) -> bool {
        let bytes = into.len();
        self.walk(address, bytes, |window| {
            let Some((now, later)) = std::mem::take(&mut into).split_at_mut_checked(window.len()) else { return false };
            into = later;
            window.copy_out(now) == now.len()
        })
    }

    fn write(&self, address: u64, mut bytes: &[u8]) -> bool {
        // Nothing is written if not all of it can be.
        self.holds(address, bytes.len() as u64)
            && self.walk(address, bytes.len(), |window| {
                let Some((now, later)) = bytes.split_at_checked(window.len()) else { return false };
                bytes = later;
                window.copy_in(now) == now.len()
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLE: std::ops::Range<u64> = 0x3000..0x5000;

    /// Two regions that touch, a hole, and one more: 0x1000 to 0x3000 and 0x5000 to 0x6000.
    fn memory() -> (SharedMemory, GuestMemoryAtomic<GuestMemoryMmap>) {
        let ranges = [(0x1000, 0x1000), (0x2000, 0x1000), (0x5000, 0x1000)];
        let ranges = ranges.map(|(at, bytes)| (GuestAddress(at), bytes));
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let shared = SharedMemory::default();
        shared.replace(Some(memory.clone()));
        (shared, memory)
    }

    fn is_there(address: u64, bytes: u64) -> bool {
        let Some(end) = address.checked_add(bytes) else { return false };
        bytes == 0 || (address >= 0x1000 && end <= HOLE.start) || (address >= HOLE.end && end <= 0x6000)
    }

    #[test]
    fn what_is_written_is_read_across_regions() {
        let (shared, _memory) = memory();
        let bytes: Vec<u8> = (0..200).collect();
        assert!(shared.write(0x1fc0, &bytes));
        let mut read = [0; 200];
        assert!(shared.read(0x1fc0, &mut read));
        assert_eq!(read[..], bytes[..]);
    }

    #[test]
    fn another_memory_is_another_generation() {
        let (shared, memory) = memory();
        let mut before = shared.generation();
        shared.remap();
        assert_ne!(shared.generation(), std::mem::replace(&mut before, shared.generation()));
        memory.lock().unwrap().replace(GuestMemoryMmap::from_ranges(&[(GuestAddress(0x9000), 0x1000)]).unwrap());
        assert!(!shared.holds(0x1000, 1) && shared.holds(0x9000, 0x1000));
        shared.replace(None);
        assert_ne!(shared.generation(), before);
        assert!(!shared.holds(0x9000, 1) && !shared.read(0x9000, &mut [0]) && !shared.write(0x9000, &[0]));
    }

    proptest! {
        /// Nothing but what the map has is reached, and what cannot be written whole is not written at all.
        #[test]
        fn no_address_reaches_beyond_the_map(
            address in prop_oneof![0u64..0x7000, any::<u64>(), (u64::MAX - 300)..=u64::MAX],
            bytes in 1usize..0x2800,
        ) {
            let (shared, _memory) = memory();
            let expected = is_there(address, bytes as u64);
            prop_assert_eq!(shared.holds(address, bytes as u64), expected);
            prop_assert_eq!(shared.write(address, &vec![7; bytes]), expected);
            prop_assert_eq!(shared.read(address, &mut vec![0; bytes]), expected);
            let mut all = vec![0; 0x2000];
            prop_assert!(shared.read(0x1000, &mut all));
            let written = all.iter().filter(|byte| **byte == 7).count();
            prop_assert_eq!(written, if expected && address < HOLE.start { bytes } else { 0 });
        }
    }
}

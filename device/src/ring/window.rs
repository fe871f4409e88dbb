//! A window into guest memory: an address resolved once, and accesses through it.
//!
//! This is the one place of the rings with `unsafe` in it. What it offers is safe for every caller and every guest:
//!
//! * A [`Window`] is made from a `VolatileSlice` alone, which vm-memory gives only for memory that is mapped, and lives no
//!   longer than that slice, hence no longer than the memory guard of its batch.
//! * Every access says where it goes and how long it is, and is checked against the window's length before it is made.
//! * The guest may write to the memory at any time. So no reference to it is ever given but to atomics; a value is read by
//!   one access and not again; bytes are copied out or in.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use vm_memory::VolatileSlice;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'m> {
    at: *mut u8,
    bytes: usize,
    memory: PhantomData<VolatileSlice<'m>>,
}

impl<'m> Window<'m> {
    /// All of a slice.
    pub(super) fn new(slice: VolatileSlice<'m>) -> Self {
        Self { at: slice.ptr_guard_mut().as_ptr(), bytes: slice.len(), memory: PhantomData }
    }

    /// Its length, in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Where `bytes` bytes from `offset` on lie, if all of them are inside.
    fn inside(&self, offset: usize, bytes: usize) -> Option<*mut u8> {
        let end = offset.checked_add(bytes)?;
        // SAFETY: `offset` is at most the length of the slice that `at` is the beginning of, which is one mapping.
        (end <= self.bytes).then(|| unsafe { self.at.add(offset) })
    }

    /// A part of it.
    pub(super) fn part(&self, offset: usize, bytes: usize) -> Option<Self> {
        Some(Self { at: self.inside(offset, bytes)?, bytes, memory: PhantomData })
    }

    /// The 16-bit word at `offset`; `None` outside or misaligned.
    pub(super) fn word(&self, offset: usize) -> Option<&'m AtomicU16> {
        let at = self.inside(offset, size_of::<u16>())?.cast::<AtomicU16>();
        // SAFETY: two bytes inside the slice, aligned, mapped for 'm; every bit pattern is a value, and an atomic may be
        // written to by others, of this process or not.
        at.is_aligned().then(|| unsafe { &*at })
    }

    /// The 64-bit word at `offset`; `None` outside or misaligned.
    fn long(&self, offset: usize) -> Option<&'m AtomicU64> {
        let at = self.inside(offset, size_of::<u64>())?.cast::<AtomicU64>();
        // SAFETY: as in `word`, eight bytes.
        at.is_aligned().then(|| unsafe { &*at })
    }

    /// The `nth` pair of little-endian 64-bit words, each byte of it read once; `None` outside.
    pub(super) fn pair(&self, nth: usize) -> Option<[u64; 2]> {
        let offset = nth.checked_mul(2 * size_of::<u64>())?;
        let at = self.inside(offset, 2 * size_of::<u64>())?;
        if let (Some(low), Some(high)) = (self.long(offset), self.long(offset + size_of::<u64>())) {
            return Some([low, high].map(|word| u64::from_le(word.load(Ordering::Relaxed))));
        }
        // Indirect tables may lie anywhere.
        let mut bytes = [0; 16];
        for (n, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: sixteen bytes from `at` on are inside; a byte is always aligned.
            *byte = unsafe { ptr::read_volatile(at.add(n)) };
        }
        let (low, high) = bytes.split_at(8);
        let word = |b: &[u8]| b.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Some([word(low), word(high)])
    }

    /// Stores a little-endian 64-bit word, in one piece if it is aligned; `false` outside.
    #[must_use]
    pub(super) fn store(&self, offset: usize, value: u64) -> bool {
        if let Some(word) = self.long(offset) {
            word.store(value.to_le(), Ordering::Relaxed);
            return true;
        }
        self.part(offset, size_of::<u64>()).map(|part| part.copy_in(&value.to_le_bytes())).is_some()
    }

    /// Copies from its beginning into `to`, as much as both have; how much that was, in bytes.
    pub(super) fn copy_out(&self, to: &mut [u8]) -> usize {
        let bytes = self.bytes.min(to.len());
        // SAFETY: so many bytes are inside both. They do not overlap: `to` is exclusively borrowed memory of this process,
        // and no reference is ever made to guest memory but to its atomics. The guest may change what is copied while it is
        // copied; whatever bytes come of that are bytes, and nobody looks at the source again.
        unsafe { ptr::copy_nonoverlapping(self.at, to.as_mut_ptr(), bytes) };
        bytes
    }

    /// Copies from `from` to its beginning, as much as both have; how much that was, in bytes.
    pub(super) fn copy_in(&self, from: &[u8]) -> usize {
        let bytes = self.bytes.min(from.len());
        // SAFETY: as in `copy_out`, the other way.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), self.at, bytes) };
        bytes
    }

    /// Has the processor fetch what stands at `offset`, because it will be read soon. It changes nothing.
    pub(super) fn soon_read(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(at) = self.inside(offset, 1) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch accesses nothing as far as the program can tell, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast_const().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }

    /// The same, because it will be written to soon.
    pub(super) fn soon_written(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(at) = self.inside(offset, 1) {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: as in `soon_read`.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast_const().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over<R>(bytes: &mut [u8], look: impl FnOnce(Window<'_>) -> R) -> R {
        look(Window::new(VolatileSlice::from(bytes)))
    }

    #[test]
    fn nothing_outside_is_reached() {
        let mut memory = [7u8; 64];
        over(&mut memory[8..40], |w| {
            assert_eq!(w.len(), 32);
            for (offset, bytes) in [(33, 0), (32, 1), (0, 33), (31, 2), (usize::MAX, 1), (1, usize::MAX)] {
                assert!(w.part(offset, bytes).is_none(), "{offset} {bytes}");
            }
            assert!(w.part(32, 0).is_some_and(|part| part.len() == 0));
            assert!(w.word(31).is_none() && w.word(32).is_none() && w.word(usize::MAX).is_none());
            assert!(w.pair(1).is_some() && w.pair(2).is_none() && w.pair(usize::MAX).is_none());
            assert!(!w.store(25, 0) && !w.store(usize::MAX - 3, 0));
            for offset in [0, 31, 32, usize::MAX] {
                w.soon_read(offset);
                w.soon_written(offset);
            }
            assert_eq!(w.copy_in(&[1; 100]), 32);
            let mut all = [0; 100];
            assert_eq!(w.copy_out(&mut all), 32);
            assert_eq!((all[31], all[32]), (1, 0));
            assert_eq!(w.part(30, 2).map(|part| part.copy_in(&[2, 3, 4])), Some(2));
        });
        assert_eq!((&memory[..8], &memory[8..38], &memory[38..40]), (&[7; 8][..], &[1; 30][..], &[2, 3][..]));
        assert_eq!(memory[40..], [7; 24]);
    }

    #[test]
    fn words_are_little_endian_wherever_they_lie() {
        let mut memory = [0u8; 64];
        let start = memory.as_ptr().align_offset(8);
        for shift in 0..8 {
            let bytes: Vec<u8> = (0..16).collect();
            let place = &mut memory[start + shift..start + shift + 32];
            place[..16].copy_from_slice(&bytes);
            over(place, |w| {
                assert_eq!(w.pair(0), Some([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]));
                assert!(w.store(16, 0x0102_0304_0506_0708));
                let mut stored = [0; 8];
                assert_eq!(w.part(16, 8).map(|part| part.copy_out(&mut stored)), Some(8));
                assert_eq!(stored, [8, 7, 6, 5, 4, 3, 2, 1]);
                assert_eq!(w.word(2).is_some(), shift % 2 == 0);
                if let Some(word) = w.word(2) {
                    assert_eq!(u16::from_le(word.load(Ordering::Relaxed)), 0x0302);
                }
            });
        }
    }
}

//! A driver's memory that cannot be relied upon: every so many accesses it is another, and now and then it is not there.

use std::sync::Mutex;

use toe_firmware::HostMemory;

/// Its length, in bytes, from address zero on.
const BYTES: usize = 256 * 1024;
/// So many looks, and it is another; so many accesses, and one fails.
const LOOKS: u32 = 997;
const ACCESSES: u32 = 61;

/// See the module.
#[derive(Debug)]
pub struct Fickle(Mutex<State>);

#[derive(Debug)]
struct State {
    bytes: Box<[u8]>,
    looks: u32,
    accesses: u32,
}

impl Default for Fickle {
    fn default() -> Self {
        Self(Mutex::new(State { bytes: vec![0x5a; BYTES].into(), looks: 0, accesses: 0 }))
    }
}

impl Fickle {
    fn access(&self, address: u64, bytes: usize, f: impl FnOnce(&mut [u8])) -> bool {
        let mut state = self.0.lock().unwrap_or_else(|e| e.into_inner());
        state.accesses += 1;
        if state.accesses.is_multiple_of(ACCESSES) {
            return false;
        }
        let Ok(start) = usize::try_from(address) else { return false };
        let Some(range) = start.checked_add(bytes).and_then(|end| state.bytes.get_mut(start..end)) else {
            return false;
        };
        f(range);
        true
    }
}

impl HostMemory for Fickle {
    fn generation(&self) -> u32 {
        let mut state = self.0.lock().unwrap_or_else(|e| e.into_inner());
        state.looks += 1;
        state.looks / LOOKS
    }

    fn holds(&self, address: u64, bytes: u64) -> bool {
        address.checked_add(bytes).is_some_and(|end| end <= BYTES as u64)
    }

    fn read(&self, address: u64, into: &mut [u8]) -> bool {
        self.access(address, into.len(), |bytes| into.copy_from_slice(bytes))
    }

    fn write(&self, address: u64, bytes: &[u8]) -> bool {
        self.access(address, bytes.len(), |room| room.copy_from_slice(bytes))
    }
}

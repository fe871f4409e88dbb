//! `getsockopt` for a program that asks the C library instead of the interface.
//!
//! packetdrill reads TCP_INFO for its `%{ … }%` blocks with the C library's own `getsockopt` on the descriptor that it
//! was given, which to the kernel is an eventfd. With this shared object in `LD_PRELOAD` that call arrives here; the
//! loader gives `--so_filename` the same object again, so that both know the same sockets. What is not ours goes to the kernel.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Weak};

use libc::socklen_t;

use crate::adapter::Adapter;
use crate::errno::Errno;
use crate::shims;

static ADAPTERS: Mutex<Vec<Weak<Adapter>>> = Mutex::new(Vec::new());

/// Makes an adapter's descriptors known.
pub fn register(adapter: &Arc<Adapter>) {
    if let Ok(mut adapters) = ADAPTERS.lock() {
        adapters.retain(|known| known.strong_count() > 0);
        adapters.push(Arc::downgrade(adapter));
    }
}

fn owner(fd: c_int) -> Option<Arc<Adapter>> {
    let adapters = ADAPTERS.lock().ok()?;
    // The latest first: an earlier one may have had the same descriptor.
    adapters.iter().rev().filter_map(Weak::upgrade).find(|adapter| adapter.owns(fd) == Ok(true))
}

/// `getsockopt(2)`, for our descriptors and for all others.
///
/// # Safety
/// As of the C library's: `value` is writable for `*length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    let found = catch_unwind(AssertUnwindSafe(|| owner(fd))).unwrap_or(None);
    let Some(adapter) = found else {
        // SAFETY: the very call that the caller made, with its own arguments.
        return unsafe { libc::syscall(libc::SYS_getsockopt, fd, level, name, value, length) } as c_int;
    };
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller promises as much.
        unsafe { shims::read_option(&adapter, fd, level, name, value, length) }
    }));
    shims::give(result.unwrap_or(Err(Errno(libc::EIO))))
}

//! The card's firmware in virtual time, through packetdrill's table of functions.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;

use toe_packetdrill::interface::Interface;

use super::{Sent, Stage};
use crate::sockets::Sockets;

/// One tick of the firmware's timers is 128 µs, and the clock creeps while it is read.
const TOLERANCE_US: u64 = 1_000;
/// The longest packet.
const PACKET_BYTES_MAX: usize = 65_536;

/// A card of its own.
pub struct Firmware {
    table: Interface,
}

// SAFETY: the interface is made for packetdrill's two threads; see `Sockets`.
unsafe impl Send for Firmware {}
// SAFETY: the same.
unsafe impl Sync for Firmware {}

impl Firmware {
    /// Boots a card with these flags (packetdrill/README.md) beside the addresses.
    ///
    /// # Errors
    /// The flags make no sense; why is said on standard error.
    pub fn new(flags: &[String]) -> io::Result<Self> {
        let mut all = String::from("local=192.0.2.1,local=2001:db8::1,idle_s=2,tcp.repeat_fin=false");
        for flag in flags {
            all.push(',');
            all.push_str(flag);
        }
        let all = CString::new(all)?;
        let mut table = MaybeUninit::uninit();
        // SAFETY: a C string, and room for a table, which it fills.
        let table = unsafe {
            toe_packetdrill::packetdrill_interface_init(all.as_ptr(), table.as_mut_ptr());
            table.assume_init()
        };
        if table.userdata.is_null() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the card does not take these flags"));
        }
        Ok(Self { table })
    }
}

impl Drop for Firmware {
    fn drop(&mut self) {
        // SAFETY: the last call.
        unsafe { (self.table.free)(self.table.userdata) }
    }
}

impl Stage for Firmware {
    fn name(&self) -> &'static str {
        "firmware"
    }

    fn tolerance_us(&self) -> u64 {
        TOLERANCE_US
    }

    fn now_us(&self) -> u64 {
        let mut tv = libc::timeval { tv_sec: 0, tv_usec: 0 };
        // SAFETY: `tv` lives through the call.
        unsafe { (self.table.gettimeofday)(self.table.userdata, &raw mut tv, std::ptr::null_mut()) };
        tv.tv_sec as u64 * 1_000_000 + tv.tv_usec as u64
    }

    fn sleep_until(&self, us: u64) {
        let mut left = us.saturating_sub(self.now_us());
        while left > 0 {
            let step = left.min(1_000_000_000);
            // SAFETY: takes a number.
            unsafe { (self.table.usleep)(self.table.userdata, step as libc::useconds_t) };
            left -= step;
        }
    }

    fn inject(&self, packet: &[u8]) -> io::Result<()> {
        // SAFETY: `packet` lives through the call.
        match unsafe { (self.table.netdev_send)(self.table.userdata, packet.as_ptr().cast(), packet.len()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn sniff(&self, _until_us: u64) -> Option<Sent> {
        let mut bytes = vec![0u8; PACKET_BYTES_MAX];
        let mut length = bytes.len();
        let mut at = -1;
        // SAFETY: the buffer has room for `length` bytes, and all three live through the call.
        unsafe {
            let buffer = bytes.as_mut_ptr().cast();
            (self.table.netdev_receive)(self.table.userdata, buffer, &raw mut length, &raw mut at)
        };
        bytes.truncate(length);
        (length > 0).then_some(Sent { at_us: at as u64, bytes })
    }

    fn sockets(&self) -> Sockets {
        Sockets::Table(self.table)
    }

    fn shell(&self, _command: &str) -> Option<io::Result<()>> {
        None
    }
}

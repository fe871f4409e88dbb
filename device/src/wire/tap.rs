//! A TAP device of the host as the wire.
//!
//! Every frame has a virtio-net header of twelve bytes in front (IFF_VNET_HDR), so that checksum and segmentation
//! offloads pass between guest and host kernel. What the kernel may hand in besides plain frames follows what the
//! guest agreed to (TUNSETOFFLOAD). What the firmware sends comes as trains of segments with partial checksums: the kernel
//! hands them to its own TCP as they are, or cuts them where they leave the machine.
//!
//! An existing TAP is attached to; otherwise one is made, which is gone when the card is. Addresses, routes and "up"
//! are the operator's. The kernel's queue in front of the TAP (`txqueuelen`) holds what the card does not read.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use toe_firmware::{Instant, Offload};

use super::{Sent, Wire};
use crate::net::Offloads;
use crate::packet::{HEADER_BYTES, Packet};

const DEVICE: &str = "/dev/net/tun";

/// Why there is no TAP.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel has no TAP driver, or the container does not show it.
    #[error(
        "{DEVICE} is missing: load the driver with `modprobe tun`, or give the container `--device {DEVICE}`, \
         or use another --wire"
    )]
    NoDriver,
    /// Not allowed.
    #[error("no permission to attach to TAP `{0}`: run as root, with CAP_NET_ADMIN, or as the TAP's owner")]
    Permission(String),
    /// Somebody has it.
    #[error("TAP `{0}` is in use by another process: stop that one or name another TAP")]
    Busy(String),
    /// It is there and something else.
    #[error("`{0}` is not a TAP with one queue: make it with `ip tuntap add {0} mode tap`, or name another")]
    Unsuitable(String),
    /// Anything else, with the step that failed.
    #[error("TAP `{name}`: {step}: {source}")]
    Other {
        /// The TAP's name.
        name: String,
        /// What was tried.
        step: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

/// A TAP.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
}

impl Tap {
    /// Attaches to the TAP of that name, or makes it.
    ///
    /// # Errors
    /// See [`TapError`].
    pub fn open(name: &str) -> Result<Self, TapError> {
        let other = |step, source| TapError::Other { name: name.to_owned(), step, source };
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE).map_err(|error| {
                match error.kind() {
                    ErrorKind::NotFound => TapError::NoDriver,
                    ErrorKind::PermissionDenied => TapError::Permission(name.to_owned()),
                    _ if error.raw_os_error() == Some(libc::ENODEV) => TapError::NoDriver,
                    _ => other("opening /dev/net/tun", error),
                }
            })?;
        // SAFETY: `ifreq` is plain old data, for which zeros are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays zero: the name ends there.
        for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: TUNSETIFF reads and writes an `ifreq`, which `request` is, and keeps no pointer to it.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) }).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EPERM) => TapError::Permission(name.to_owned()),
                Some(libc::EBUSY) => TapError::Busy(name.to_owned()),
                Some(libc::EINVAL) => TapError::Unsuitable(name.to_owned()),
                _ => other("TUNSETIFF", error),
            }
        })?;
        let header_bytes = HEADER_BYTES as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads an int through the pointer and keeps none.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const header_bytes) })
            .map_err(|error| other("TUNSETVNETHDRSZ", error))?;
        let mut tap = Self { file, name: name.to_owned() };
        tap.set_offloads(Offloads::default());
        Ok(tap)
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Wire for Tap {
    fn send(&mut self, _now: Instant, packet: &mut Packet) -> Sent {
        loop {
            return match self.file.write(packet.bytes()) {
                Ok(_) => Sent::Done,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Full,
                Err(error) if error.raw_os_error() == Some(libc::EIO) => Sent::Down,
                Err(error) => {
                    log::debug!("TAP {}: a frame of {} bytes was refused: {error}", self.name, packet.frame().len());
                    Sent::Refused
                }
            };
        }
    }

    fn receive(&mut self, _now: Instant, packet: &mut Packet) -> bool {
        loop {
            return match self.file.read(packet.room()) {
                Ok(bytes) if bytes >= HEADER_BYTES => {
                    packet.set_bytes(bytes);
                    true
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Nothing there, or the TAP is gone or down: what may come later is told by an event.
                _ => false,
            };
        }
    }

    fn set_offloads(&mut self, offloads: Offloads) {
        let Offloads { checksum, tso4, tso6, ecn } = offloads;
        let mut flags = 0;
        for (on, flag) in [
            (checksum, libc::TUN_F_CSUM),
            (checksum && tso4, libc::TUN_F_TSO4),
            (checksum && tso6, libc::TUN_F_TSO6),
            (checksum && ecn && (tso4 || tso6), libc::TUN_F_TSO_ECN),
        ] {
            if on {
                flags |= flag;
            }
        }
        let flags = libc::c_ulong::from(flags);
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD as _, flags) };
        if let Err(error) = check(result) {
            // Nothing is lost: frames that the guest did not agree to are dropped and counted.
            log::warn!("TAP {}: TUNSETOFFLOAD({flags:#x}): {error}", self.name);
        }
    }

    fn offload(&self) -> Offload {
        Offload::ALL
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

//! The card's firmware.

#![forbid(unsafe_code)]

mod chance;
mod counters;
mod profile;
mod seq;
mod store;
mod time;
mod wire;

pub use profile::{CongestionControl, Limits, Policy, Profile, ProfileError, Refusal, Tcp};
pub use time::{Duration, Instant};
use toe_abi::{LimitEntry, StatEntry};

/// What is known of a frame's TCP checksum when it is handed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// Nothing: the firmware checks it.
    Unverified,
    /// It need not be checked: virtio's NEEDS_CSUM (only partly filled in, never left the host) or DATA_VALID.
    Trusted,
}

/// What the device is to do with a frame that it handed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// Hand it on untouched: from the wire to the guest, from the guest to the wire.
    PassOn,
    /// The firmware took it (or dropped and counted it).
    Taken,
}

/// The firmware of one card.
#[derive(Debug)]
pub struct Firmware {}

impl Firmware {
    /// Boots a card. `seed` is the source of all chance (keys, ISNs); `epoch` tells this boot from others.
    ///
    /// # Errors
    /// A profile out of its ranges.
    pub fn new(profile: &Profile, seed: [u8; 32], epoch: u32, now: Instant) -> Result<Self, ProfileError> {
        let _ = (seed, epoch, now);
        profile.validate()?;
        Ok(Self {})
    }

    /// Takes a frame from the wire, Ethernet header first. It may be longer than an MTU (merged segments).
    pub fn handle_wire(&mut self, now: Instant, frame: &[u8], checksum: Checksum) -> Verdict {
        let _ = (now, frame, checksum);
        Verdict::PassOn
    }

    /// Takes a frame from the guest, Ethernet header first.
    pub fn handle_guest(&mut self, now: Instant, frame: &[u8]) -> Verdict {
        let _ = (now, frame);
        Verdict::PassOn
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When `handle_timeout` wants to be called next. May change with every other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next frame for the wire, with its checksums complete, into `buffer`, which must have room for a whole
    /// frame (65,549 bytes); its length. To be called until `None`, or as long as the wire takes frames.
    pub fn poll_wire(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let _ = (now, buffer);
        None
    }

    /// The next channel frame for the guest into `buffer` (65,549 bytes); its length. To be called until `None`, or
    /// as long as the guest has receive buffers.
    pub fn poll_guest(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        let _ = (now, buffer);
        None
    }

    /// Every pool: capacity, use, high water, refusals.
    pub fn limits(&self) -> impl Iterator<Item = LimitEntry<'static>> + '_ {
        std::iter::empty()
    }

    /// Every counter.
    pub fn counters(&self) -> impl Iterator<Item = StatEntry<'static>> + '_ {
        std::iter::empty()
    }
}

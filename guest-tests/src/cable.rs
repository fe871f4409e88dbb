//! A bad cable between two kernels: what the card's wire is to the card, so that the two can be compared.
//!
//! Each end is a TAP in a namespace of its own; a thread carries frames from one to the other through the very
//! impairment that `toe-nic --impair` puts on its wire. As there, kernels hand in plain frames only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use toe_device::net::Offloads;
use toe_device::packet::Packet;
use toe_device::wire::{Impaired, Sent, Tap, Wire};
use toe_impair::Spec;

use crate::Namespace;
use crate::net::{GUEST_MAC, GUEST_V4, GUEST_V6, TAP};

/// Frames carried one way before the other has its turn.
const BATCH: usize = 64;

/// See the module's text. It ends when dropped.
pub struct Cable {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
    /// Where [`crate::net::PEER_V4`] is.
    pub peer: Namespace,
    /// Where [`crate::net::GUEST_V4`] is.
    pub guest: Namespace,
}

impl Cable {
    /// Lays one.
    ///
    /// # Errors
    /// If `ip` fails or a TAP cannot be opened.
    pub fn new(spec: Spec, seed: u64) -> Result<Self> {
        let (peer, guest) = (Namespace::new()?, Namespace::new()?);
        for namespace in [&peer, &guest] {
            namespace.add_tap(1500)?;
        }
        guest.ip(&["address", "flush", "dev", TAP])?;
        guest.ip(&["link", "set", TAP, "address", GUEST_MAC])?;
        guest.ip(&["address", "add", &format!("{GUEST_V4}/24"), "dev", TAP])?;
        guest.ip(&["address", "add", &format!("{GUEST_V6}/64"), "dev", TAP, "nodad"])?;
        let near = Impaired::new(Box::new(peer.enter(|| Ok(Tap::open(TAP)?))?), spec, seed);
        let mut far = guest.enter(|| Ok(Tap::open(TAP)?))?;
        far.set_offloads(Offloads::default());
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || carry(near, far, &told));
        Ok(Self { stop, thread: Some(thread), peer, guest })
    }

    /// Ends it.
    ///
    /// # Errors
    /// What went wrong on the cable.
    pub fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().map(JoinHandle::join);
        thread.unwrap_or(Ok(Ok(()))).map_err(|_| anyhow!("the cable panicked"))?
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn carry(mut near: Impaired, mut far: Tap, stop: &AtomicBool) -> Result<()> {
    let start = Instant::now();
    let mut packet = Packet::default();
    while !stop.load(Ordering::Relaxed) {
        let now = toe_firmware::Instant::from_us(start.elapsed().as_micros() as u64);
        near.advance(now);
        let mut carried = false;
        for _ in 0..BATCH {
            if !near.receive(now, &mut packet) {
                break;
            }
            carried = true;
            ensure!(far.send(now, &mut packet) == Sent::Done, "the far TAP did not take a frame");
        }
        for _ in 0..BATCH {
            if !far.receive(now, &mut packet) {
                break;
            }
            carried = true;
            ensure!(near.send(now, &mut packet) == Sent::Done, "the near TAP did not take a frame");
        }
        if !carried {
            let ends = [near.events(), far.events()];
            let mut ends: Vec<_> =
                ends.iter().flatten().map(|end| PollFd::from_borrowed_fd(*end, PollFlags::IN)).collect();
            // Often enough for what is delayed, and to be told to stop.
            poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }))?;
        }
    }
    Ok(())
}

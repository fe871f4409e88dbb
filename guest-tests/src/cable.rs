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

/// The longest that the cable sleeps, in microseconds.
const PATIENCE_US: u64 = 10_000;

/// What carries frames between two TAPs. It ends when dropped.
pub struct Carrier {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Carrier {
    /// Between TAPs, each given by its namespace and name.
    ///
    /// # Errors
    /// If a TAP cannot be opened.
    pub fn between(near: (&Namespace, &str), far: (&Namespace, &str), spec: Spec, seed: u64) -> Result<Self> {
        let near = Impaired::new(Box::new(near.0.enter(|| Ok(Tap::open(near.1)?))?), spec, seed);
        let mut far = far.0.enter(|| Ok(Tap::open(far.1)?))?;
        far.set_offloads(Offloads::default());
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || carry(near, far, &told));
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// What went wrong on the way.
    pub fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().map(JoinHandle::join);
        thread.unwrap_or(Ok(Ok(()))).map_err(|_| anyhow!("the cable panicked"))?
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// See the module's text. It ends when dropped.
pub struct Cable {
    carrier: Carrier,
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
        Self::with_mtu(spec, seed, 1500)
    }

    /// Lays one between interfaces of that MTU, in bytes.
    ///
    /// # Errors
    /// If `ip` fails or a TAP cannot be opened.
    pub fn with_mtu(spec: Spec, seed: u64, mtu: u32) -> Result<Self> {
        let (peer, guest) = (Namespace::new()?, Namespace::new()?);
        for namespace in [&peer, &guest] {
            namespace.add_tap(mtu)?;
        }
        guest.ip(&["address", "flush", "dev", TAP])?;
        guest.ip(&["link", "set", TAP, "address", GUEST_MAC])?;
        guest.ip(&["address", "add", &format!("{GUEST_V4}/24"), "dev", TAP])?;
        guest.ip(&["address", "add", &format!("{GUEST_V6}/64"), "dev", TAP, "nodad"])?;
        let carrier = Carrier::between((&peer, TAP), (&guest, TAP), spec, seed)?;
        Ok(Self { carrier, peer, guest })
    }

    /// Ends it.
    ///
    /// # Errors
    /// What went wrong on the cable.
    pub fn finish(self) -> Result<()> {
        self.carrier.finish()
    }
}

fn carry(mut near: Impaired, mut far: Tap, stop: &AtomicBool) -> Result<()> {
    let start = Instant::now();
    let clock = || toe_firmware::Instant::from_us(start.elapsed().as_micros() as u64);
    let mut packet = Packet::default();
    while !stop.load(Ordering::Relaxed) {
        let now = clock();
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
            // Until the next frame has arrived, and often enough to be told to stop.
            let due = near.poll_timeout().map_or(PATIENCE_US, |at| at.since(clock()).as_us().min(PATIENCE_US));
            poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: due as i64 * 1000 }))?;
        }
    }
    Ok(())
}

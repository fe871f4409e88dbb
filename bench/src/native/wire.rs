//! The wire between two kernels: two TAPs in namespaces of their own, and a thread that carries frames from one to the other.
//!
//! It is what the card's wire is to the card: the same TAPs with the same offloads, so that frames of up to 64 KiB with partial
//! checksums cross it whole. The thread does nothing but carry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use toe_device::net::Offloads;
use toe_device::packet::Packet;
use toe_device::wire::{Tap, Wire};
use toe_firmware::Instant;
use toe_guest_tests::Namespace;
use toe_guest_tests::net::{GUEST_MAC, GUEST_V4, TAP};

/// The name of the thread.
pub const THREAD: &str = "wire";
/// Frames carried one way before the other has its turn.
const BATCH: usize = 64;
/// How long it sleeps at most without looking whether it is over, in nanoseconds.
const PATIENCE_NS: i64 = 10_000_000;

/// See the module's text.
pub struct Cable {
    stop: Arc<AtomicBool>,
    carrier: Option<JoinHandle<()>>,
    /// Where the peer is.
    pub peer: Namespace,
    /// Where the application is.
    pub near: Namespace,
}

impl Cable {
    /// Lays one.
    ///
    /// # Errors
    /// `ip` fails or a TAP cannot be opened.
    pub fn new(mtu: u32) -> Result<Self> {
        let (peer, near) = (Namespace::new()?, Namespace::new()?);
        for namespace in [&peer, &near] {
            namespace.add_tap(mtu)?;
        }
        near.ip(&["address", "flush", "dev", TAP])?;
        near.ip(&["link", "set", TAP, "address", GUEST_MAC])?;
        near.ip(&["address", "add", &format!("{GUEST_V4}/24"), "dev", TAP])?;
        let open = |namespace: &Namespace| -> Result<Tap> {
            let mut tap = namespace.enter(|| Ok(Tap::open(TAP)?))?;
            tap.set_offloads(Offloads { checksum: true, tso4: true, tso6: true, ecn: true });
            Ok(tap)
        };
        let (far, here) = (open(&peer)?, open(&near)?);
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let carrier = std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || carry(here, far, &told))?;
        Ok(Self { stop, carrier: Some(carrier), peer, near })
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.carrier.take().map(JoinHandle::join);
    }
}

fn carry(mut near: Tap, mut far: Tap, stop: &AtomicBool) {
    // A TAP has no clock.
    let now = Instant::from_us(0);
    let mut packet = Packet::default();
    while !stop.load(Ordering::Relaxed) {
        let mut carried = false;
        for way in 0..2 {
            let (from, to) = if way == 0 { (&mut near, &mut far) } else { (&mut far, &mut near) };
            for _ in 0..BATCH {
                if !from.receive(now, &mut packet) {
                    break;
                }
                carried = true;
                // What a TAP refuses is lost, as on any wire.
                let _ = to.send(now, &mut packet);
            }
        }
        if !carried {
            let ends = [near.events(), far.events()];
            let mut ends: Vec<_> =
                ends.iter().flatten().map(|end| PollFd::from_borrowed_fd(*end, PollFlags::IN)).collect();
            let _ = poll(&mut ends, Some(&Timespec { tv_sec: 0, tv_nsec: PATIENCE_NS }));
        }
    }
}

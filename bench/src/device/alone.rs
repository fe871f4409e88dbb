//! The limits: the card's rings without anything around them, and a copy of the same bytes.
//!
//! One thread plays driver and device in turns, so that nothing waits for another processor's memory; only the device's part
//! is measured. A frame is read from a transmit ring and written into a receive ring: what the card does of an echo, without
//! firmware, wire and FIFO.

use anyhow::{Context, Result, ensure};
use toe_device::counters::Counters;
use toe_device::net::Features;
use toe_device::packet::{HEADER_BYTES, Packet};
use toe_device::ring::{Delivery, Ring, Scratch, Transmitted};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::measure::Stopwatch;

/// VERSION_1 and MRG_RXBUF.
const FEATURES: Features = Features(1 << 32 | 1 << 15);
const QUEUE_SIZE: u16 = 256;
const BATCH: u16 = 32;
const MEMORY_BYTES: usize = 64 << 20;
/// The device may write (virtio 1.2, 2.7.5).
const WRITE: u16 = 2;

/// One ring, driver's side.
struct Driver {
    queue: Queue,
    next: u16,
}

impl Driver {
    /// A ring at `base` whose buffers, each of `bytes`, lie from `buffers` on.
    fn new(memory: &GuestMemoryMmap, base: u64, buffers: u64, bytes: usize, flags: u16) -> Result<Self> {
        let mut queue = Queue::new(QUEUE_SIZE).context("a queue")?;
        let (avail, used) = (base + 0x2000, base + 0x4000);
        queue.set_size(QUEUE_SIZE);
        queue.try_set_desc_table_address(GuestAddress(base)).context("descriptors")?;
        queue.try_set_avail_ring_address(GuestAddress(avail)).context("available ring")?;
        queue.try_set_used_ring_address(GuestAddress(used)).context("used ring")?;
        queue.set_ready(true);
        for n in 0..u64::from(QUEUE_SIZE) {
            let address = buffers + n * bytes.next_multiple_of(64) as u64;
            let rest = bytes as u64 | u64::from(flags) << 32;
            memory.write_obj(address.to_le(), GuestAddress(base + 16 * n))?;
            memory.write_obj(rest.to_le(), GuestAddress(base + 16 * n + 8))?;
            memory.write_obj((n as u16).to_le(), GuestAddress(avail + 4 + 2 * n))?;
        }
        Ok(Self { queue, next: 0 })
    }

    /// Makes a batch available.
    fn offer(&mut self, memory: &GuestMemoryMmap) -> Result<()> {
        self.next = self.next.wrapping_add(BATCH);
        Ok(memory.write_obj(self.next.to_le(), GuestAddress(self.queue.avail_ring() + 2))?)
    }
}

/// Nanoseconds of a frame of `bytes` through both rings, and of two copies of as many bytes.
///
/// # Errors
/// The rings refuse it.
pub fn measure(bytes: usize, frames: u64) -> Result<(f64, f64)> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).context("guest memory")?;
    let packet_bytes = bytes + HEADER_BYTES;
    let mut transmit = Driver::new(&memory, 0x1_0000, 0x10_0000, packet_bytes, 0)?;
    let mut receive = Driver::new(&memory, 0x2_0000, (MEMORY_BYTES / 2) as u64, packet_bytes, WRITE)?;
    let (mut packet, mut scratch, mut counters) = (Packet::default(), Scratch::default(), Counters::default());
    let mut rings = Stopwatch::default();
    let mut done = 0;
    while done < frames {
        transmit.offer(&memory)?;
        receive.offer(&memory)?;
        let moved = rings.time(|| -> Result<u64> {
            let mut moved = 0;
            let (mut from, mut to) = (
                Ring::open(&memory, &transmit.queue, FEATURES).map_err(|e| anyhow::anyhow!("{e:?}"))?,
                Ring::open(&memory, &receive.queue, FEATURES).map_err(|e| anyhow::anyhow!("{e:?}"))?,
            );
            while from.transmit(&mut packet) == Transmitted::Packet {
                if to.receive(&packet, &mut scratch, &mut counters) != Delivery::Done {
                    break;
                }
                moved += 1;
            }
            let _ = from.close(&mut transmit.queue);
            let _ = to.close(&mut receive.queue);
            Ok(moved)
        })?;
        ensure!(moved == u64::from(BATCH), "{moved} of {BATCH} frames went through");
        done += moved;
    }
    let (from, mut to) = (vec![1u8; packet_bytes], vec![0u8; packet_bytes]);
    let mut between = vec![0u8; packet_bytes];
    let mut copies = Stopwatch::default();
    for _ in 0..frames / u64::from(BATCH) {
        copies.time(|| {
            for _ in 0..BATCH {
                between.copy_from_slice(std::hint::black_box(&from));
                to.copy_from_slice(std::hint::black_box(&between));
                std::hint::black_box(&mut to);
            }
        });
    }
    Ok((rings.ns() / done as f64, copies.ns() / (frames / u64::from(BATCH) * u64::from(BATCH)) as f64))
}

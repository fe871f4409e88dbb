//! A guest without a guest: a frontend and driver in this process.
#![allow(dead_code, missing_docs)]

pub mod queue;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use queue::{DriverQueue, flag};
use rustix::fs::{MemfdFlags, memfd_create};
use toe_device::wire::WireSpec;
use toe_device::{Config, Device, FrontendSocket};
use toe_firmware::Profile;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(20);

pub const INDIRECT: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;
pub const PROTOCOL: u64 = 1 << 30;
pub const VERSION_1: u64 = 1 << 32;
pub const MERGEABLE: u64 = 1 << 15;
pub const OFFLOADS: u64 = 0x2783;

const MEMORY_BYTES: usize = 256 << 20;
/// Room for one frame and its header.
const TRANSMIT_BYTES: u64 = 68 << 10;

/// A path in the system's directory for temporary files that no other test has.
pub fn fresh_path(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("toe-{}-{n}-{name}", std::process::id()))
}

/// Waits until `condition` gives something.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A card on a wire of its own.
pub fn card(wire: WireSpec, queue_pairs: u16, profile: Profile) -> (Device, PathBuf) {
    polling_card(wire, queue_pairs, profile, Duration::ZERO)
}

/// The same, that looks for more for so long after the last frame.
pub fn polling_card(wire: WireSpec, queue_pairs: u16, profile: Profile, poll: Duration) -> (Device, PathBuf) {
    let path = fresh_path("nic.sock");
    let config = Config {
        frontend: FrontendSocket::Path(path.clone()),
        wire,
        impair: None,
        profile,
        queue_pairs,
        management_socket: None,
        metrics: None,
        capture: None,
        faults: None,
        seed: Some([7; 32]),
        poll,
        shared_rings: false,
    };
    (Device::start(config, |_| ()).unwrap(), path)
}

pub struct Ring {
    pub queue: DriverQueue,
    pub kick: EventFd,
    pub call: EventFd,
    /// Where the buffer of descriptor `i` begins: `buffers + i * buffer_bytes`.
    pub buffers: u64,
    pub buffer_bytes: u64,
}

/// A driver with its memory.
pub struct Nic {
    pub frontend: Frontend,
    pub features: u64,
    pub rings: Vec<Ring>,
    pub memory: GuestMemoryMmap,
    file: File,
}

/// How a driver goes about it.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Of what is on offer, what it agrees to.
    pub features: u64,
    pub pairs: usize,
    pub size: u16,
    /// Bytes of one receive buffer.
    pub receive_bytes: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { features: u64::MAX, pairs: 1, size: 64, receive_bytes: 1536 }
    }
}

impl Nic {
    pub fn connect(path: &Path, shape: Shape) -> Self {
        // The file is there a little before somebody listens.
        let stream = eventually("a listener", || UnixStream::connect(path).ok());
        Self::over(Frontend::from_stream(stream, 64), shape)
    }

    pub fn over(mut frontend: Frontend, shape: Shape) -> Self {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(MEMORY_BYTES as u64).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let memory = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), MEMORY_BYTES, Some(offset))]).unwrap();
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap() & shape.features;
        if features & PROTOCOL != 0 {
            let protocol = frontend.get_protocol_features().unwrap();
            frontend.set_protocol_features(protocol & VhostUserProtocolFeatures::MQ).unwrap();
        }
        frontend.set_features(features).unwrap();
        let mut nic = Self { frontend, features, rings: Vec::new(), memory, file };
        nic.set_memory();
        let mut base = 0x1000;
        for index in 0..2 * shape.pairs {
            let queue = DriverQueue::new(&nic.memory, base, shape.size, features & EVENT_IDX != 0);
            let buffers = queue.end();
            let buffer_bytes = if index % 2 == 0 { u64::from(shape.receive_bytes) } else { TRANSMIT_BYTES };
            base = (buffers + buffer_bytes * u64::from(shape.size)).next_multiple_of(4096);
            assert!(base < MEMORY_BYTES as u64);
            let [kick, call] = [(); 2].map(|()| EventFd::new(libc::EFD_NONBLOCK).unwrap());
            nic.rings.push(Ring { queue, kick, call, buffers, buffer_bytes });
            nic.start(index, 0);
        }
        for pair in 0..shape.pairs {
            (0..shape.size).for_each(|head| nic.offer_buffer(pair, head));
        }
        nic
    }

    fn host_address(&self) -> u64 {
        self.memory.get_host_address(GuestAddress(0)).unwrap() as u64
    }

    pub fn set_memory(&mut self) {
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY_BYTES as u64,
            userspace_addr: self.host_address(),
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        };
        self.frontend.set_mem_table(&[region]).unwrap();
    }

    /// Starts a ring at that position.
    pub fn start(&mut self, index: usize, base: u16) {
        let (host, ring) = (self.host_address(), &self.rings[index]);
        let queue = &ring.queue;
        let address = |at| host + at;
        self.frontend.set_vring_num(index, queue.size).unwrap();
        self.frontend.set_vring_base(index, base).unwrap();
        let config = VringConfigData {
            queue_max_size: queue.size,
            queue_size: queue.size,
            flags: 0,
            desc_table_addr: address(queue.descriptors),
            used_ring_addr: address(queue.used),
            avail_ring_addr: address(queue.avail),
            log_addr: None,
        };
        self.frontend.set_vring_addr(index, &config).unwrap();
        self.frontend.set_vring_call(index, &ring.call).unwrap();
        self.frontend.set_vring_kick(index, &ring.kick).unwrap();
        if self.features & PROTOCOL != 0 {
            self.frontend.set_vring_enable(index, true).unwrap();
        }
    }

    /// Stops a ring; where it stood.
    pub fn stop(&mut self, index: usize) -> u16 {
        self.frontend.get_vring_base(index).unwrap() as u16
    }

    pub fn header_bytes(&self) -> usize {
        if self.features & (VERSION_1 | MERGEABLE) != 0 { 12 } else { 10 }
    }

    fn offer_buffer(&mut self, pair: usize, head: u16) {
        let ring = &mut self.rings[2 * pair];
        let buffer = (ring.buffers + ring.buffer_bytes * u64::from(head), ring.buffer_bytes as u32);
        ring.queue.write_chain(head, &[buffer], flag::WRITE);
        if ring.queue.offer(head) {
            ring.kick.write(1).unwrap();
        }
    }

    /// Waits for a free slot and sends a frame behind a header. `indirect`: in a table of two descriptors.
    pub fn send(&mut self, pair: usize, header: [u8; 12], frame: &[u8], indirect: bool) {
        let header_bytes = self.header_bytes();
        let ring = &mut self.rings[2 * pair + 1];
        let queue = &mut ring.queue;
        let sent = queue.next_avail;
        eventually("a free transmit slot", || {
            while queue.take_used().is_some() {}
            (sent.wrapping_sub(queue.next_used) < queue.size).then_some(())
        });
        let head = sent % queue.size;
        let buffer = ring.buffers + ring.buffer_bytes * u64::from(head);
        // The table lies before the frame in the slot.
        let (table, at) = (buffer, buffer + 64);
        queue.write(at, &header[..header_bytes]);
        queue.write(at + header_bytes as u64, frame);
        if indirect {
            let second = (at + header_bytes as u64, frame.len() as u32, 0, 0);
            queue.write_descriptor(table, 0, (at, header_bytes as u32, flag::NEXT, 1));
            queue.write_descriptor(table, 1, second);
            queue.write_descriptor(queue.descriptors, head, (table, 32, flag::INDIRECT, 0));
        } else {
            queue.write_chain(head, &[(at, (header_bytes + frame.len()) as u32)], 0);
        }
        if queue.offer(head) {
            ring.kick.write(1).unwrap();
        }
    }

    /// The next frame received by that pair, with its header; its buffers are offered again. The card's word of its boot,
    /// which it gives to everybody a few times, is passed over.
    pub fn receive(&mut self, pair: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        loop {
            let (header, frame) = self.receive_any(pair)?;
            if !frame.starts_with(&[0xff; 6]) || frame.get(12..14) != Some(&toe_abi::ETHERTYPE.to_be_bytes()) {
                return Some((header, frame));
            }
        }
    }

    fn receive_any(&mut self, pair: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let header_bytes = self.header_bytes();
        let (mut data, mut heads, mut wanted) = (Vec::new(), Vec::new(), 1);
        while heads.len() < wanted {
            let ring = &mut self.rings[2 * pair];
            // Those of one frame become visible together.
            let Some((head, bytes)) = ring.queue.take_used() else {
                assert!(heads.is_empty(), "{} buffers of {wanted}", heads.len());
                return None;
            };
            data.extend(ring.queue.read(ring.buffers + ring.buffer_bytes * u64::from(head), bytes as usize));
            if heads.is_empty() && header_bytes == 12 {
                wanted = usize::from(u16::from_le_bytes([data[10], data[11]]));
            }
            heads.push(head as u16);
        }
        heads.into_iter().for_each(|head| self.offer_buffer(pair, head));
        let frame = data.split_off(header_bytes);
        Some((data, frame))
    }

    /// Waits for a frame on that pair.
    pub fn expect(&mut self, pair: usize) -> Vec<u8> {
        eventually("a frame", || self.receive(pair)).1
    }
}

/// The stations of a host and a guest whose addresses are 192.0.2.1 and 192.0.2.2.
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A UDP datagram from 192.0.2.2 to port 7 of 192.0.2.1, without UDP checksum.
pub fn datagram(payload: &[u8]) -> Vec<u8> {
    let total = (28 + payload.len()) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    let mut frame = [&HOST_MAC[..], &GUEST_MAC, &[8, 0], &ip].concat();
    frame.extend([0, 9, 0, 7]);
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

//! The way to the card without a guest: this process is itself the vhost-user frontend of `toe-nic`.
//!
//! The vhost crate speaks the control plane; the rings ([`super::ring`]) lie in a memory file that the backend maps.
//! One queue pair, mergeable receive buffers, event index if the backend has it. Merged segments and partial checksums are
//! accepted if the backend has them: so the card's wire need not cut what is for the card. The few frames that are for
//! this side get their checksums completed here. There is no reconnecting: when the backend goes, frames are lost, and
//! the context above notices within its lease.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use toe_abi::{ETHERNET_HEADER_BYTES, ETHERTYPE, FRAME_BYTES_MAX, Mac};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_MRG_RXBUF,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::ring::{Layout, Ring, RingError};
use super::ring_memory::RingMemory;
use super::{Transport, poll};
use crate::checksum;

/// `virtio_net_hdr` with `num_buffers`, as VERSION_1 has it.
const NET_HEADER_BYTES: usize = 12;
const NEEDS_CSUM: u8 = 1;
const CSUM_START_AT: usize = 6;
const CSUM_OFFSET_AT: usize = 8;
const NUM_BUFFERS_AT: usize = 10;
const RECEIVE_SIZE: u16 = 1024;
const RECEIVE_BUFFER_BYTES: u32 = 4096;
const SEND_SIZE: u16 = 128;
const RECEIVE_QUEUE: usize = 0;
const SEND_QUEUE: usize = 1;
/// Anywhere but zero, so that a null address is none.
const GUEST_BASE: u64 = 0x10_0000;

/// Why there is no frontend.
#[derive(Debug, thiserror::Error)]
pub enum VhostUserError {
    /// Nobody listens there, or it may not be used.
    #[error("cannot connect to the vhost-user socket {path}: {source}; is toe-nic running with that --socket-path?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        source: vhost::vhost_user::Error,
    },
    /// A step of the control plane failed.
    #[error("vhost-user: {step}: {source}")]
    Step {
        /// Which.
        step: &'static str,
        /// Why.
        source: vhost::Error,
    },
    /// The backend cannot do what is needed.
    #[error("the vhost-user backend does not offer {0}")]
    Feature(&'static str),
    /// No shared memory, or no eventfd.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// An MTU that Ethernet or the channel cannot have.
    #[error("an MTU of {0}: give 1280 to 65535")]
    Mtu(u32),
}

/// A vhost-user frontend; see the module.
pub struct VhostUser {
    mac: Mac,
    mtu: u32,
    memory: Arc<GuestMemoryMmap>,
    rings: RingMemory,
    receive: Mutex<Queue>,
    send: Mutex<Queue>,
    /// Its end closes the connection.
    _frontend: Frontend,
}

struct Queue {
    ring: Ring,
    kick: EventFd,
    call: Arc<EventFd>,
    /// The other side broke the rules; nothing more is believed.
    dead: bool,
}

impl std::fmt::Debug for VhostUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VhostUser").field("mac", &self.mac).field("mtu", &self.mtu).finish_non_exhaustive()
    }
}

fn step(step: &'static str) -> impl Fn(vhost::Error) -> VhostUserError {
    move |source| VhostUserError::Step { step, source }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> VhostUserError {
    move |source| VhostUserError::System { what, source }
}

fn ring_failed(e: RingError) -> VhostUserError {
    VhostUserError::System { what: "set the rings up", source: io::Error::other(e.to_string()) }
}

impl VhostUser {
    /// Connects to the backend that listens at `path`, as a NIC with this MAC and MTU.
    ///
    /// # Errors
    /// [`VhostUserError`].
    pub fn connect(path: &Path, mac: Mac, mtu: u32) -> Result<Self, VhostUserError> {
        if !(1280..=65_535).contains(&mtu) {
            return Err(VhostUserError::Mtu(mtu));
        }
        let connect = |e| match e {
            vhost::Error::VhostUserProtocol(source) => VhostUserError::Connect { path: path.to_owned(), source },
            source => VhostUserError::Step { step: "connect", source },
        };
        let mut frontend = Frontend::connect(path, 2).map_err(connect)?;

        let version_1 = 1u64 << VIRTIO_F_VERSION_1;
        let mergeable = 1u64 << VIRTIO_NET_F_MRG_RXBUF;
        let event_idx = 1u64 << VIRTIO_RING_F_EVENT_IDX;
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        let offered = frontend.get_features().map_err(step("GET_FEATURES"))?;
        for (bit, name) in [(version_1, "VERSION_1"), (mergeable, "MRG_RXBUF"), (protocol, "PROTOCOL_FEATURES")] {
            if offered & bit == 0 {
                return Err(VhostUserError::Feature(name));
            }
        }
        let offloads =
            [VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN];
        let offloads = offloads.iter().fold(0, |all, bit| all | 1u64 << bit);
        let features = version_1 | mergeable | protocol | (offered & (event_idx | offloads));
        let event_idx = features & event_idx != 0;

        let receive = Layout::new(GUEST_BASE, RECEIVE_SIZE, RECEIVE_BUFFER_BYTES);
        let send_bytes = (FRAME_BYTES_MAX + NET_HEADER_BYTES).next_multiple_of(4096) as u32;
        let send = Layout::new(receive.end, SEND_SIZE, send_bytes);
        let rings_at = send.end.next_multiple_of(4096);
        let memory = Arc::new(shared_memory(rings_at - GUEST_BASE + RingMemory::BYTES)?);
        let queue = |layout, for_device| -> Result<Queue, VhostUserError> {
            let ring = Ring::new(memory.clone(), layout, event_idx, for_device).map_err(ring_failed)?;
            let event = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(system("make an eventfd"));
            Ok(Queue { ring, kick: event()?, call: Arc::new(event()?), dead: false })
        };
        let (mut receive_queue, send_queue) = (queue(receive, true)?, queue(send, false)?);
        for head in 0..RECEIVE_SIZE {
            receive_queue.ring.give(head).map_err(ring_failed)?;
        }

        frontend.set_owner().map_err(step("SET_OWNER"))?;
        let offered = frontend.get_protocol_features().map_err(step("GET_PROTOCOL_FEATURES"))?;
        let acknowledge = offered & VhostUserProtocolFeatures::REPLY_ACK;
        frontend.set_protocol_features(acknowledge).map_err(step("SET_PROTOCOL_FEATURES"))?;
        if !acknowledge.is_empty() {
            // So that a refused step is an error here, and not a closed socket later.
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        frontend.set_features(features).map_err(step("SET_FEATURES"))?;
        let region = memory.iter().next().ok_or(VhostUserError::Feature("memory"))?;
        let table = VhostUserMemoryRegionInfo::from_guest_region(region).map_err(step("SET_MEM_TABLE"))?;
        frontend.set_mem_table(&[table]).map_err(step("SET_MEM_TABLE"))?;
        // Ring addresses are told as addresses of this process.
        let address = |guest: u64| table.userspace_addr + (guest - GUEST_BASE);
        for (index, layout, queue) in [(RECEIVE_QUEUE, &receive, &receive_queue), (SEND_QUEUE, &send, &send_queue)] {
            let config = VringConfigData {
                queue_max_size: layout.size,
                queue_size: layout.size,
                flags: 0,
                desc_table_addr: address(layout.descriptors),
                used_ring_addr: address(layout.used),
                avail_ring_addr: address(layout.available),
                log_addr: None,
            };
            frontend.set_vring_num(index, layout.size).map_err(step("SET_VRING_NUM"))?;
            frontend.set_vring_addr(index, &config).map_err(step("SET_VRING_ADDR"))?;
            frontend.set_vring_base(index, 0).map_err(step("SET_VRING_BASE"))?;
            frontend.set_vring_call(index, &queue.call).map_err(step("SET_VRING_CALL"))?;
            frontend.set_vring_kick(index, &queue.kick).map_err(step("SET_VRING_KICK"))?;
        }
        for index in [RECEIVE_QUEUE, SEND_QUEUE] {
            frontend.set_vring_enable(index, true).map_err(step("SET_VRING_ENABLE"))?;
        }
        // The receive buffers were given before the backend looked.
        receive_queue.kick.write(1).map_err(system("kick the receive queue"))?;
        let (receive, send) = (Mutex::new(receive_queue), Mutex::new(send_queue));
        let rings = RingMemory::new(memory.clone(), rings_at);
        Ok(Self { mac, mtu, memory, rings, receive, send, _frontend: frontend })
    }

    fn send_frame(&self, queue: &mut Queue, frame: &[u8]) -> Result<bool, RingError> {
        while queue.ring.take()?.is_some() {}
        let Some(head) = queue.ring.free() else {
            return Ok(false);
        };
        let at = queue.ring.buffer(head);
        self.memory.write_slice(&[0; NET_HEADER_BYTES], at)?;
        self.memory.write_slice(frame, GuestAddress(at.0 + NET_HEADER_BYTES as u64))?;
        queue.ring.set_length(head, (NET_HEADER_BYTES + frame.len()) as u32)?;
        queue.ring.give(head)?;
        queue.tell()?;
        Ok(true)
    }

    /// The next frame; its length, or `Some(0)` if it was none.
    fn receive_frame(&self, queue: &mut Queue, buffer: &mut [u8]) -> Result<Option<usize>, RingError> {
        let Some(first) = queue.ring.take()? else {
            return Ok(None);
        };
        let mut header = [0; NET_HEADER_BYTES];
        self.memory.read_slice(&mut header, queue.ring.buffer(first.head))?;
        let field = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let count = field(NUM_BUFFERS_AT).max(1);
        let mut length = 0;
        let mut whole = (first.bytes as usize) >= NET_HEADER_BYTES;
        let mut used = first;
        let mut skip = NET_HEADER_BYTES;
        for i in 0..count {
            if i > 0 {
                // A frame's buffers are published together.
                match queue.ring.take()? {
                    Some(next) => (used, skip) = (next, 0),
                    None => {
                        whole = false;
                        break;
                    }
                }
            }
            let n = (used.bytes as usize).saturating_sub(skip);
            match buffer.get_mut(length..length + n) {
                Some(room) if whole => {
                    let from = GuestAddress(queue.ring.buffer(used.head).0 + skip as u64);
                    self.memory.read_slice(room, from)?;
                    length += n;
                }
                _ => whole = false,
            }
            queue.ring.give(used.head)?;
        }
        queue.tell()?;
        if !whole {
            return Ok(Some(0));
        }
        if header[0] & NEEDS_CSUM != 0 {
            checksum::complete(&mut buffer[..length], field(CSUM_START_AT).into(), field(CSUM_OFFSET_AT).into());
        }
        Ok(Some(length))
    }
}

impl Queue {
    fn tell(&mut self) -> Result<(), RingError> {
        if self.ring.must_notify()? {
            // A full counter wakes just as well.
            let _ = self.kick.write(1);
        }
        Ok(())
    }

    /// Runs `f`, and no more if it fails.
    fn guarded<R>(&mut self, f: impl FnOnce(&mut Self) -> Result<R, RingError>) -> io::Result<R> {
        if self.dead {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "the queue is dead: the backend broke virtio's rules"));
        }
        f(self).map_err(|e| {
            log::error!("the vhost-user backend broke virtio's rules: {e}");
            self.dead = true;
            io::Error::other(e.to_string())
        })
    }
}

fn shared_memory(bytes: u64) -> Result<GuestMemoryMmap, VhostUserError> {
    let file = rustix::fs::memfd_create("toe-rings", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| system("make shared memory")(e.into()))?;
    let file = File::from(file);
    file.set_len(bytes).map_err(system("size the shared memory"))?;
    let size = usize::try_from(bytes).map_err(|e| system("size the shared memory")(io::Error::other(e)))?;
    let range = (GuestAddress(GUEST_BASE), size, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([range]).map_err(|e| system("map shared memory")(io::Error::other(e)))
}

fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor stays open as long as `event` lives, and the result does not outlive the borrow of it.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(|e| e.into_inner())
}

impl Transport for VhostUser {
    fn mac(&self) -> Mac {
        self.mac
    }

    fn mtu(&self) -> u32 {
        self.mtu
    }

    fn frame_bytes_max(&self) -> usize {
        // A channel frame goes from memory to memory: the wire's MTU is nothing to it.
        FRAME_BYTES_MAX
    }

    fn receive_bytes_max(&self) -> u64 {
        // A short frame takes a whole buffer.
        u64::from(RECEIVE_SIZE) * u64::from(RECEIVE_BUFFER_BYTES) / 4
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let is_channel = frame.get(12..14) == Some(&ETHERTYPE.to_be_bytes());
        let most = if is_channel { FRAME_BYTES_MAX } else { self.mtu as usize + ETHERNET_HEADER_BYTES };
        if frame.len() > most {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the frame is longer than the MTU allows"));
        }
        let sent = lock(&self.send).guarded(|queue| self.send_frame(queue, frame))?;
        if sent { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let received = lock(&self.receive).guarded(|queue| self.receive_frame(queue, buffer))?;
        received.ok_or_else(|| ErrorKind::WouldBlock.into())
    }

    fn rings(&self) -> Option<RingMemory> {
        Some(self.rings.clone())
    }

    fn looks_for_free(&self) -> bool {
        true
    }

    fn wait(&self, room: bool, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
        let arm = |queue: &Mutex<Queue>| -> io::Result<Option<Arc<EventFd>>> {
            let mut queue = lock(queue);
            // A dead queue has nothing to wait for, and must not keep us awake.
            let armed = queue.dead || queue.guarded(|queue| queue.ring.arm())?;
            Ok(armed.then(|| queue.call.clone()))
        };
        let Some(receive) = arm(&self.receive)? else {
            return Ok(());
        };
        let send = if room { arm(&self.send)? } else { None };
        if room && send.is_none() {
            return Ok(());
        }
        let wanted = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let last = send.as_ref().unwrap_or(&receive);
        let mut fds = [wanted(wake), wanted(borrow(&receive)), wanted(borrow(last))];
        let count = if send.is_some() { 3 } else { 2 };
        poll(&mut fds[..count], timeout)?;
        for (fd, call) in fds[1..count].iter().zip([&receive, last]) {
            if fd.revents().contains(PollFlags::IN) {
                // Empty is as good as emptied.
                let _ = call.read();
            }
        }
        Ok(())
    }
}

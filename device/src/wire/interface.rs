//! A network interface of the host as the wire: a physical one, an end of a virtual pair, anything that carries Ethernet.
//!
//! A packet socket sees every frame that comes in there, whoever it is for (the interface is promiscuous while the card is
//! plugged in), and sends the guest's and the firmware's. The host's own stack is not in between and not shut out: what the host
//! sends on the same interface goes out and is not shown to the guest, and what comes in the host sees, too. So the
//! interface is best left without addresses; the guest's Ethernet address is then nobody else's.
//!
//! The way through a TAP is a call of the kernel for each frame. Here the kernel puts frames into memory that it shares with the card
//! (`packet_ring.rs`), and up to [`BATCH`] are sent with one call at the end of a round ([`Wire::flush`]). As many
//! frames as the ring has slots wait for the card, and of those that are longer than a slot up to [`RECEIVE_BYTES`]; what
//! comes beyond that the kernel drops (`interface-dropped`) or cuts (`interface-cut`).
//!
//! As on a TAP a virtio-net header stands in front of each frame, so that checksum and segmentation offloads pass both ways. What
//! cannot be told to an interface is which of them the guest takes: a checksum that is not finished is finished here
//! for a guest that takes none, but merged segments for such a guest are dropped behind the firmware
//! (`wire-frame-offload-not-negotiated`); switch merging off on the interface then. Frames with a VLAN tag are dropped
//! and counted: the kernel has taken the tag off them, and they are not for who sees no tag.

use std::cell::Cell;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use toe_firmware::{Instant, Offload};

use super::packet_ring::{Held, PacketRing};
use super::{Sent, Wire};
use crate::fault::damage::complete;
use crate::net::Offloads;
use crate::packet::{HEADER_BYTES, Packet};

/// Frames that one call of the kernel sends at most.
const BATCH: usize = 64;
/// Bytes of the header that a packet socket knows: the virtio-net header without `num_buffers`.
pub(super) const SHORT_HEADER_BYTES: usize = HEADER_BYTES - 2;
/// What may wait in the kernel beside the ring, in bytes as the kernel counts.
const RECEIVE_BYTES: libc::c_int = 16 << 20;
/// What may wait in the kernel for the interface, in bytes as the kernel counts.
const SEND_BYTES: libc::c_int = 4 << 20;

/// Why an interface cannot be the wire.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// Not allowed.
    #[error("no permission to open a packet socket on `{0}`: run as root or with CAP_NET_RAW")]
    Permission(String),
    /// There is none.
    #[error("there is no interface `{0}`: `ip link` names those that there are")]
    Missing(String),
    /// It carries something else.
    #[error("`{0}` carries no Ethernet frames: name another interface")]
    NoEthernet(String),
    /// Anything else, with the step that failed.
    #[error("interface `{name}`: {step}: {source}")]
    Other {
        /// The interface's name.
        name: String,
        /// What was tried.
        step: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

/// An interface of the host.
#[derive(Debug)]
pub struct Interface {
    socket: OwnedFd,
    name: String,
    ring: PacketRing,
    /// Frames that go with the next call, the first `queued` of them.
    outgoing: Vec<Packet>,
    queued: usize,
    offloads: Offloads,
    counted: Counted,
    /// What the kernel dropped for want of room: it forgets that when it says so.
    dropped: Cell<u64>,
}

/// See [`Wire::counters`].
#[derive(Clone, Copy, Default, Debug)]
struct Counted {
    tagged: u64,
    cut: u64,
    refused: u64,
    down: u64,
}

impl Interface {
    /// Plugs the card into the interface of that name.
    ///
    /// # Errors
    /// See [`InterfaceError`].
    pub fn open(name: &str) -> Result<Self, InterfaceError> {
        let other = |step, source| InterfaceError::Other { name: name.to_owned(), step, source };
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // No protocol yet: it sees nothing until it is bound.
        // SAFETY: creates a socket, and touches no memory of ours.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        check(fd).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => InterfaceError::Permission(name.to_owned()),
            _ => other("a packet socket", error),
        })?;
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let missing = || InterfaceError::Missing(name.to_owned());
        let c_name = CString::new(name).map_err(|_| missing())?;
        // SAFETY: the name ends with a zero and lives as long as the call.
        let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) } as libc::c_int;
        if index == 0 {
            return Err(missing());
        }
        let on: libc::c_int = 1;
        let packet = |option| set(&socket, libc::SOL_PACKET, option, &on);
        packet(libc::PACKET_VNET_HDR).map_err(|error| other("PACKET_VNET_HDR", error))?;
        packet(libc::PACKET_IGNORE_OUTGOING).map_err(|error| other("PACKET_IGNORE_OUTGOING", error))?;
        for (force, plain, bytes) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BYTES),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BYTES),
        ] {
            // Beyond the system's limit only with CAP_NET_ADMIN; within it otherwise.
            set(&socket, libc::SOL_SOCKET, force, &bytes)
                .or_else(|_| set(&socket, libc::SOL_SOCKET, plain, &bytes))
                .map_err(|error| other("room in the kernel", error))?;
        }
        let ring = PacketRing::new(socket.as_fd()).map_err(|(step, error)| other(step, error))?;
        // SAFETY: all zeros is a value of this plain structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index;
        let mut bytes = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: reads the structure above.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), bytes) }).map_err(|error| other("bind", error))?;
        // SAFETY: writes at most so many bytes to the structure above.
        check(unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut bytes) })
            .map_err(|error| other("getsockname", error))?;
        if address.sll_hatype != libc::ARPHRD_ETHER {
            return Err(InterfaceError::NoEthernet(name.to_owned()));
        }
        // The guest's Ethernet address is not the interface's.
        let everything = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_PROMISC as _,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &everything)
            .map_err(|error| other("PACKET_MR_PROMISC", error))?;
        Ok(Self {
            socket,
            name: name.to_owned(),
            ring,
            outgoing: (0..BATCH).map(|_| Packet::default()).collect(),
            queued: 0,
            offloads: Offloads::default(),
            counted: Counted::default(),
            dropped: Cell::new(0),
        })
    }

    /// Receives the frame for which the ring had only a place. Whether there was one.
    fn receive_apart(&self, packet: &mut Packet) -> bool {
        let (header, rest) = packet.room().split_at_mut(SHORT_HEADER_BYTES);
        let (buffers, frame) = rest.split_at_mut(HEADER_BYTES - SHORT_HEADER_BYTES);
        buffers.fill(0);
        let mut parts = [header, frame].map(|p| libc::iovec { iov_base: p.as_mut_ptr().cast(), iov_len: p.len() });
        // SAFETY: all zeros is a value of this plain structure.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len();
        let bytes = loop {
            // SAFETY: the message, its parts and the packet outlive the call, which writes within the lengths given.
            let got = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
            match usize::try_from(got) {
                Ok(bytes) => break bytes + HEADER_BYTES - SHORT_HEADER_BYTES,
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        };
        if bytes >= HEADER_BYTES {
            packet.set_bytes(bytes);
        }
        bytes >= HEADER_BYTES
    }

    /// Hands the queued frames from `from` on to the kernel. How many it took, at least one.
    fn hand_over(&self, from: usize) -> io::Result<usize> {
        // SAFETY: all zeros is a value of these plain structures.
        let (mut parts, mut messages): ([[libc::iovec; 2]; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let queued = &self.outgoing[from..self.queued];
        for ((packet, parts), message) in queued.iter().zip(&mut parts).zip(&mut messages) {
            *parts = [&packet.bytes()[..SHORT_HEADER_BYTES], packet.frame()]
                .map(|p| libc::iovec { iov_base: p.as_ptr().cast_mut().cast(), iov_len: p.len() });
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = parts.len();
        }
        // SAFETY: messages, their parts and the packets outlive the call, which writes to the messages' lengths alone.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                queued.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        check(sent).map(|()| sent as usize)
    }

    /// What the kernel has dropped for want of room so far.
    fn dropped(&self) -> u64 {
        // SAFETY: all zeros is a value of this plain structure.
        let mut statistics: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut bytes = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: writes at most so many bytes to the structure above.
        let got = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut bytes,
            )
        };
        if got == 0 {
            self.dropped.set(self.dropped.get() + u64::from(statistics.tp_drops));
        }
        self.dropped.get()
    }
}

pub(super) fn set<T>(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: reads so many bytes of `value` and keeps no pointer.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), bytes) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Wire for Interface {
    fn send(&mut self, now: Instant, packet: &mut Packet) -> Sent {
        if self.queued == BATCH {
            self.flush(now);
            if self.queued == BATCH {
                return Sent::Full;
            }
        }
        std::mem::swap(packet, &mut self.outgoing[self.queued]);
        self.queued += 1;
        Sent::Done
    }

    fn flush(&mut self, _now: Instant) {
        let mut from = 0;
        while from < self.queued {
            match self.hand_over(from) {
                Ok(sent) => from += sent,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => break,
                    Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => {
                        self.counted.down += 1;
                        from += 1;
                    }
                    _ => {
                        log::debug!("interface {}: a frame was refused: {error}", self.name);
                        self.counted.refused += 1;
                        from += 1;
                    }
                },
            }
        }
        self.outgoing[..self.queued].rotate_left(from);
        self.queued -= from;
    }

    fn receive(&mut self, _now: Instant, packet: &mut Packet) -> bool {
        while let Some(slot) = self.ring.first() {
            let tagged = slot.had_tag();
            let got = match slot.held() {
                Held::Whole(bytes) => {
                    let (header, frame) = bytes.split_at(SHORT_HEADER_BYTES);
                    let room = packet.room();
                    room[..SHORT_HEADER_BYTES].copy_from_slice(header);
                    room[SHORT_HEADER_BYTES..HEADER_BYTES].fill(0);
                    room[HEADER_BYTES..HEADER_BYTES + frame.len()].copy_from_slice(frame);
                    packet.set_bytes(HEADER_BYTES + frame.len());
                    true
                }
                Held::Apart => self.receive_apart(packet),
                Held::Cut => false,
            };
            self.ring.give_back();
            if !got {
                self.counted.cut += 1;
            } else if tagged {
                self.counted.tagged += 1;
            } else {
                if !self.offloads.checksum && packet.header().unfinished_checksum().is_some() {
                    // One that cannot be completed stays as it is, and whoever looks at it decides.
                    complete(packet);
                }
                return true;
            }
        }
        false
    }

    fn set_offloads(&mut self, offloads: Offloads) {
        self.offloads = offloads;
    }

    fn offload(&self) -> Offload {
        Offload::ALL
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let Counted { tagged, cut, refused, down } = self.counted;
        vec![
            ("interface-dropped", self.dropped()),
            ("interface-tagged", tagged),
            ("interface-cut", cut),
            ("interface-refused", refused),
            ("interface-down", down),
        ]
    }
}

//! The way to the card from within a guest: an AF_PACKET socket on the interface.
//!
//! Needs CAP_NET_RAW and nothing else. A classic BPF filter lets through only channel frames with this context's
//! key, and those with none, which the firmware says to all when it has booted: so several processes can share the interface
//! and none is woken for another's. The kernel's copy of our own frames is switched off with PACKET_IGNORE_OUTGOING
//! (Linux 4.20). Several frames go in one call (sendmmsg(2), recvmmsg(2)): where a call is dear, it costs more than the
//! frame. One that goes alone goes past the interface's queueing discipline (PACKET_QDISC_BYPASS, Linux 3.14) by a socket of its
//! own; that has no queue, so that a frame for which the driver has no room takes the ordinary way. The channel does not mind
//! that they overtake each other.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use toe_abi::{ETHERNET_HEADER_BYTES, ETHERTYPE, FRAME_BYTES_MAX, Mac};

use super::{RingMemory, Transport, poll};

/// What is asked of the kernel for the receive buffer; without CAP_NET_ADMIN `net.core.rmem_max` cuts it down.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// The kernel counts its own overhead, so that a buffer holds less data than its size; at worst (frames of the common
/// MTU in pages of their own) about a quarter.
const RECEIVE_BUFFER_OVERHEAD: usize = 4;

/// So many frames go in one call.
const CALL_FRAMES: usize = 32;

const NO_HEADER: libc::mmsghdr = libc::mmsghdr {
    // SAFETY: zeros are a message without anything.
    msg_hdr: unsafe { std::mem::zeroed() },
    msg_len: 0,
};

/// Where the key lies in a frame: behind version, reserved, bytes, context, epoch and reserved.
const KEY_OFFSET: u32 = ETHERNET_HEADER_BYTES as u32 + 24;

/// An AF_PACKET socket; see the module.
#[derive(Debug)]
pub struct PacketTransport {
    socket: Socket,
    /// Past the queueing discipline; receives nothing.
    direct: Option<Socket>,
    mac: Mac,
    mtu: u32,
    receive_bytes_max: u64,
    rings: RingMemory,
}

impl PacketTransport {
    /// A socket on the interface with that index, MAC and MTU, that receives the frames with that key.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW, and whatever else the kernel says.
    pub fn open(interface: u32, mac: Mac, mtu: u32, key: u128) -> io::Result<Self> {
        // Protocol 0: nothing is received before the filter is in place.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&key_filter(key))?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        let bytes = RECEIVE_BUFFER_BYTES as libc::c_int;
        if set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        }
        let receive_bytes_max = (socket.recv_buffer_size()? / RECEIVE_BUFFER_OVERHEAD) as u64;
        socket.bind(&link_address(interface)?)?;
        let direct = direct(interface)
            .inspect_err(|e| log::debug!("every frame takes the way through the queueing discipline: {e}"))
            .ok();
        Ok(Self { socket, direct, mac, mtu, receive_bytes_max, rings: RingMemory::of_huge_pages() })
    }
}

/// A socket that sends past the interface's queueing discipline, and receives nothing.
fn direct(interface: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
    socket.bind(&address(interface, 0)?)?;
    Ok(socket)
}

impl Transport for PacketTransport {
    fn mac(&self) -> Mac {
        self.mac
    }

    fn mtu(&self) -> u32 {
        self.mtu
    }

    fn frame_bytes_max(&self) -> usize {
        (self.mtu as usize + ETHERNET_HEADER_BYTES).min(FRAME_BYTES_MAX)
    }

    fn receive_bytes_max(&self) -> u64 {
        self.receive_bytes_max
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        // What the driver has no room for is not queued there, and lost.
        if let Some(direct) = &self.direct
            && direct.send(frame).is_ok()
        {
            return Ok(());
        }
        self.socket.send(frame).map(drop)
    }

    fn send_many(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [frame] = frames {
            return self.send(frame).map(|()| 1);
        }
        let mut headers = [NO_HEADER; CALL_FRAMES];
        let frames = &frames[..frames.len().min(CALL_FRAMES)];
        for (header, frame) in headers.iter_mut().zip(frames) {
            // An IoSlice is an iovec (std::io says so), which sendmmsg only reads.
            header.msg_hdr.msg_iov = std::ptr::from_ref(frame).cast_mut().cast();
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = frames.len() as libc::c_uint;
        // SAFETY: each of the first `count` headers names one iovec of `frames`, which outlives the call.
        let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut &self.socket, buffer)
    }

    fn receive_many(&self, buffers: &mut [Vec<u8>], lengths: &mut [usize]) -> io::Result<usize> {
        let mut headers = [NO_HEADER; CALL_FRAMES];
        let mut places = [const { libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 } }; CALL_FRAMES];
        let count = buffers.len().min(CALL_FRAMES).min(lengths.len());
        for ((header, place), buffer) in headers.iter_mut().zip(&mut places).zip(&mut buffers[..count]) {
            *place = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            header.msg_hdr.msg_iov = place;
            header.msg_hdr.msg_iovlen = 1;
        }
        let fd = self.socket.as_raw_fd();
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: each of the first `count` headers names one iovec, which names a buffer of that many bytes; all outlive
        // the call.
        let got = unsafe {
            libc::recvmmsg(fd, headers.as_mut_ptr(), count as libc::c_uint, flags as _, std::ptr::null_mut())
        };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        for (length, header) in lengths.iter_mut().zip(&headers[..got]) {
            *length = header.msg_len as usize;
        }
        Ok(got)
    }

    fn wait(&self, room: bool, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
        let events = if room { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds =
            [PollFd::from_borrowed_fd(self.socket.as_fd(), events), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        poll(&mut fds, timeout)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn rings(&self) -> Option<RingMemory> {
        Some(self.rings.clone())
    }
}

/// Accepts frames of the channel's EtherType that carry the key, or none.
fn key_filter(key: u128) -> Vec<SockFilter> {
    // The opcodes' parts fit in 16 bits each.
    let load_half = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    let load_word = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump_if_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut program = Vec::new();
    // If all of the tests hold, the frame is taken; else the program goes on behind that.
    let mut take_if = |tests: &[(u16, u32, u32)]| {
        for (i, (load, offset, value)) in tests.iter().enumerate() {
            let behind = 2 * (tests.len() - i - 1) + 1;
            program.push(SockFilter::new(*load, 0, 0, *offset));
            program.push(SockFilter::new(jump_if_equal, 0, behind as u8, *value));
        }
        program.push(SockFilter::new(give, 0, 0, u32::MAX));
    };
    for key in [key, 0] {
        let mut tests = vec![(load_half, 12, u32::from(ETHERTYPE))];
        for (i, word) in key.to_le_bytes().chunks_exact(4).enumerate() {
            // The filter loads big-endian.
            let word = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
            tests.push((load_word, KEY_OFFSET + 4 * i as u32, word));
        }
        take_if(&tests);
    }
    program.push(SockFilter::new(give, 0, 0, 0));
    program
}

/// An interface and the channel's EtherType, for `bind`.
pub(crate) fn link_address(interface: u32) -> io::Result<SockAddr> {
    address(interface, ETHERTYPE)
}

/// The same for frames of another EtherType; zero for none.
fn address(interface: u32, ethertype: u16) -> io::Result<SockAddr> {
    let index = libc::c_int::try_from(interface)
        .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "interface index out of range"))?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain data, no larger than the storage, and every bit pattern of it is valid.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index;
    // SAFETY: the storage holds a sockaddr_ll whose family says so, and the length is that of one.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) })
}

fn set_option(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` lives; the kernel reads `bytes` bytes of `value`, which is
    // that long and outlives the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

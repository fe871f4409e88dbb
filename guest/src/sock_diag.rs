//! The kernel's TCP sockets, as `ss` sees them: netlink's `NETLINK_SOCK_DIAG` (sock_diag(7), `linux/inet_diag.h`).
//!
//! No privilege is needed; the kernel shows the sockets of the caller's network namespace. Messages are read by the offsets
//! of the kernel's header, which only ever grows at its end: what an older kernel does not say is zero.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::netlink::ask_protocol;

pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub(crate) const REQUEST_BYTES: usize = 56;
const RESPONSE_BYTES: usize = 72;
/// Attributes of an answer; in a request, one bit for each, beginning with 1.
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_CONG: u16 = 4;

/// A TCP socket of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KernelSocket {
    /// Linux's number of its state.
    pub state: u8,
    /// This end.
    pub local: SocketAddr,
    /// The other; unspecified for a listener.
    pub remote: SocketAddr,
    /// Bytes that the program did not read; of a listener, connections that it did not accept.
    pub receive_queue: u32,
    /// Bytes that are not acknowledged; of a listener, its backlog.
    pub send_queue: u32,
    /// As `toe_abi::socket_timer` has it.
    pub timer: u8,
    /// How often in a row it was due before.
    pub timer_repeats: u8,
    /// Until it is due, in milliseconds.
    pub timer_ms: u32,
    /// Whose it is.
    pub uid: u32,
    /// What `/proc/PID/fd` calls it; zero if no process has it.
    pub inode: u32,
    /// What else the kernel says of it; none of a TIME-WAIT entry.
    pub info: Option<KernelInfo>,
}

/// The part of Linux's `tcp_info` that a table of connections shows. Amounts of segments are in segments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "they are the kernel's, of linux/tcp.h")]
pub struct KernelInfo {
    /// The congestion controller.
    pub controller: String,
    pub backoff: u8,
    pub options: u8,
    /// The shifts of the peer's window and of ours.
    pub window_scales: (u8, u8),
    pub rto_us: u32,
    pub ato_us: u32,
    pub send_mss: u32,
    pub receive_mss: u32,
    pub unacked: u32,
    pub sacked: u32,
    pub lost: u32,
    pub retrans: u32,
    pub path_mtu: u32,
    pub rtt_us: u32,
    pub rtt_variation_us: u32,
    pub slow_start_threshold: u32,
    pub congestion_window: u32,
    pub advertised_mss: u32,
    pub total_retrans: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub segments_out: u32,
    pub segments_in: u32,
    pub not_sent: u32,
    pub min_rtt_us: u32,
    pub bytes_sent: u64,
}

/// Every TCP socket of the kernel in this network namespace.
///
/// # Errors
/// What netlink says.
pub fn kernel_sockets() -> io::Result<Vec<KernelSocket>> {
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let answers = ask_protocol(NETLINK_SOCK_DIAG, Message::request(family as u8), true)?;
        all.extend(answers.iter().filter_map(|answer| socket(&answer.0)));
    }
    Ok(all)
}

/// A request or an answer, as bytes.
#[derive(Debug)]
struct Message(Vec<u8>);

impl Message {
    /// For every socket of a family, with both attributes.
    fn request(family: u8) -> Self {
        let mut bytes = every(family);
        bytes[2] = 1 << (INET_DIAG_INFO - 1) | 1 << (INET_DIAG_CONG - 1);
        Self(bytes.to_vec())
    }
}

/// `inet_diag_req_v2`: TCP, all states.
fn every(family: u8) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    bytes[0] = family;
    bytes[1] = libc::IPPROTO_TCP as u8;
    bytes[4..8].fill(0xff);
    bytes
}

/// `inet_diag_req_v2` for one socket, seen from `local`; a listener has no `remote`.
pub(crate) fn request_for(local: SocketAddr, remote: Option<SocketAddr>) -> [u8; REQUEST_BYTES] {
    let mut bytes = every(if local.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET } as u8);
    for (address, port_at, ip_at) in [(Some(local), 8, 12), (remote, 10, 28)] {
        let Some(address) = address else { continue };
        bytes[port_at..port_at + 2].copy_from_slice(&address.port().to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => bytes[ip_at..ip_at + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes[ip_at..ip_at + 16].copy_from_slice(&ip.octets()),
        }
    }
    // No cookie.
    bytes[48..].fill(0xff);
    bytes
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..self.0.len()].copy_from_slice(&self.0);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self(payload.to_vec()))
    }
}

/// The bytes at an offset; zeros where the kernel says nothing.
fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..offset + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(at(bytes, offset))
}

/// `inet_diag_msg` and its attributes; `None` if it is shorter than that or of another family.
pub(crate) fn socket(bytes: &[u8]) -> Option<KernelSocket> {
    if bytes.len() < RESPONSE_BYTES {
        return None;
    }
    let address = |offset| -> Option<IpAddr> {
        match i32::from(bytes[0]) {
            libc::AF_INET => Some(Ipv4Addr::from(at::<4>(bytes, offset)).into()),
            libc::AF_INET6 => Some(Ipv6Addr::from(at::<16>(bytes, offset)).into()),
            _ => None,
        }
    };
    let port = |offset| u16::from_be_bytes(at(bytes, offset));
    Some(KernelSocket {
        state: bytes[1],
        timer: bytes[2],
        timer_repeats: bytes[3],
        local: SocketAddr::new(address(8)?, port(4)),
        remote: SocketAddr::new(address(24)?, port(6)),
        timer_ms: u32_at(bytes, 52),
        receive_queue: u32_at(bytes, 56),
        send_queue: u32_at(bytes, 60),
        uid: u32_at(bytes, 64),
        inode: u32_at(bytes, 68),
        info: info(&bytes[RESPONSE_BYTES..]),
    })
}

fn info(mut attributes: &[u8]) -> Option<KernelInfo> {
    let (mut info, mut controller) = (None, String::new());
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(at(attributes, 0)));
        let kind = u16::from_ne_bytes(at(attributes, 2));
        let Some(value) = attributes.get(4..length) else { break };
        match kind {
            INET_DIAG_INFO => info = Some(tcp_info(value)),
            INET_DIAG_CONG => controller = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    info.map(|info| KernelInfo { controller, ..info })
}

/// `struct tcp_info` of linux/tcp.h.
fn tcp_info(b: &[u8]) -> KernelInfo {
    let [backoff, options, scales] = at(b, 4);
    KernelInfo {
        controller: String::new(),
        backoff,
        options,
        // Bit fields: the peer's shift is the low half.
        window_scales: (scales & 0xf, scales >> 4),
        rto_us: u32_at(b, 8),
        ato_us: u32_at(b, 12),
        send_mss: u32_at(b, 16),
        receive_mss: u32_at(b, 20),
        unacked: u32_at(b, 24),
        sacked: u32_at(b, 28),
        lost: u32_at(b, 32),
        retrans: u32_at(b, 36),
        path_mtu: u32_at(b, 60),
        rtt_us: u32_at(b, 68),
        rtt_variation_us: u32_at(b, 72),
        slow_start_threshold: u32_at(b, 76),
        congestion_window: u32_at(b, 80),
        advertised_mss: u32_at(b, 84),
        total_retrans: u32_at(b, 100),
        bytes_acked: u64_at(b, 120),
        bytes_received: u64_at(b, 128),
        segments_out: u32_at(b, 136),
        segments_in: u32_at(b, 140),
        not_sent: u32_at(b, 144),
        min_rtt_us: u32_at(b, 148),
        bytes_sent: u64_at(b, 200),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernels_own_sockets_are_found_with_what_they_did() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(ip).unwrap();
            let here = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(here).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(b"hello").unwrap();
            server.read_exact(&mut [0; 3]).unwrap();
            let all = kernel_sockets().unwrap();
            let find = |local, remote: Option<SocketAddr>| {
                let is = |s: &&KernelSocket| s.local == local && remote.is_none_or(|r| s.remote == r);
                all.iter().find(is).unwrap_or_else(|| panic!("{local} is not there"))
            };
            let client_address = client.local_addr().unwrap();
            let listening = all.iter().find(|s| s.local == here && s.state == 10).unwrap();
            assert_eq!((listening.remote.port(), listening.receive_queue), (0, 0));
            let ours = find(client_address, Some(here));
            let info = ours.info.as_ref().unwrap();
            assert_eq!((ours.state, info.bytes_acked, info.bytes_sent), (1, 6, 5), "the SYN counts as acknowledged");
            assert!(info.congestion_window > 0 && info.rtt_us > 0 && !info.controller.is_empty(), "{info:?}");
            let theirs = find(here, Some(client_address));
            assert_eq!((theirs.receive_queue, theirs.info.as_ref().unwrap().bytes_received), (2, 5));
            // SAFETY: it only reads the number of the user.
            assert_eq!(theirs.uid, unsafe { libc::getuid() });
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut bytes = vec![0; 400];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (i * 7) as u8;
        }
        bytes[0] = libc::AF_INET6 as u8;
        for length in 0..bytes.len() {
            socket(&bytes[..length]);
            bytes[72] = length as u8;
        }
    }
}

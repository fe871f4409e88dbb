//! What the kernel says of a program's socket that the supervisor has no descriptor for: is it still there, and does
//! anybody still hold it?
//!
//! Asked by sock_diag(7), one socket at a time. A kernel without it (the modules `inet_diag` and `tcp_diag`)
//! is taken to not know.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;
const REQUEST_BYTES: usize = HEADER_BYTES + 56;
/// Offsets in `struct inet_diag_msg`, behind the header.
const STATE: usize = HEADER_BYTES + 1;
const INODE: usize = HEADER_BYTES + 68;
const LISTEN: u8 = 10;

/// What is known of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// A program has it.
    Yes,
    /// It is closed, or was never there.
    No,
    /// The kernel does not say.
    Unknown,
}

/// The question's way to the kernel.
#[derive(Debug)]
pub(super) struct Diag {
    socket: Socket,
}

impl Diag {
    pub(super) fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddress::new(0, 0))?;
        // The kernel answers within the send; this is for one that does not.
        socket2::SockRef::from(&socket).set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(Self { socket })
    }

    /// The connection between these addresses, as seen from the first.
    pub(super) fn connection(&self, local: SocketAddr, remote: SocketAddr) -> Held {
        self.ask(local, Some(remote), |state| state != LISTEN)
    }

    /// The listener there.
    pub(super) fn listener(&self, local: SocketAddr) -> Held {
        self.ask(local, None, |state| state == LISTEN)
    }

    fn ask(&self, local: SocketAddr, remote: Option<SocketAddr>, expected: impl Fn(u8) -> bool) -> Held {
        let request = request(local, remote);
        let answer = self.socket.send(&request, 0).and_then(|_| self.socket.recv_from_full());
        let Ok((answer, _)) = answer else {
            return Held::Unknown;
        };
        if answer.len() < HEADER_BYTES + 4 {
            return Held::Unknown;
        }
        if u16::from_ne_bytes([answer[4], answer[5]]) == NLMSG_ERROR {
            let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
            // ENOENT is also what a kernel without tcp_diag says; `works` tells them apart.
            return if error == -libc::ENOENT && self.works() { Held::No } else { Held::Unknown };
        }
        if answer.len() < INODE + 4 || !expected(answer[STATE]) {
            return Held::No;
        }
        if answer[INODE..INODE + 4] == [0; 4] { Held::No } else { Held::Yes }
    }

    /// Whether the kernel can answer at all: it finds a listener that is there for sure.
    fn works(&self) -> bool {
        use std::sync::OnceLock;
        static WORKS: OnceLock<bool> = OnceLock::new();
        *WORKS.get_or_init(|| {
            let Ok(listener) = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)) else { return false };
            let Ok(local) = listener.local_addr() else { return false };
            let sent = self.socket.send(&request(local, None), 0).and_then(|_| self.socket.recv_from_full());
            sent.is_ok_and(|(answer, _)| answer.len() > 6 && u16::from_ne_bytes([answer[4], answer[5]]) != NLMSG_ERROR)
        })
    }
}

/// `struct inet_diag_req_v2` behind its header.
fn request(local: SocketAddr, remote: Option<SocketAddr>) -> Vec<u8> {
    let is_ipv6 = local.is_ipv6();
    let mut out = Vec::with_capacity(REQUEST_BYTES);
    out.extend((REQUEST_BYTES as u32).to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend(NLM_F_REQUEST.to_ne_bytes());
    out.extend([0; 8]);
    out.push(if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8);
    out.push(libc::IPPROTO_TCP as u8);
    out.extend([0; 2]);
    out.extend(u32::MAX.to_ne_bytes());
    out.extend(local.port().to_be_bytes());
    out.extend(remote.map_or(0, |r| r.port()).to_be_bytes());
    let mut ip = |ip: Option<IpAddr>| {
        let start = out.len();
        match ip {
            Some(IpAddr::V4(ip)) => out.extend(ip.octets()),
            Some(IpAddr::V6(ip)) => out.extend(ip.octets()),
            None => {}
        }
        out.resize(start + 16, 0);
    };
    ip(Some(local.ip()));
    ip(remote.map(|r| r.ip()));
    out.extend([0; 4]);
    // No cookie.
    out.extend([0xff; 8]);
    out
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn sockets_are_held_until_they_are_closed() {
        let diag = Diag::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        if diag.listener(at) == Held::Unknown {
            println!("this kernel has no tcp_diag");
            return;
        }
        assert_eq!(diag.listener(at), Held::Yes);
        let client = TcpStream::connect(at).unwrap();
        let own = client.local_addr().unwrap();
        let server = listener.accept().unwrap().0;
        assert_eq!(diag.connection(own, at), Held::Yes);
        assert_eq!(diag.connection(at, own), Held::Yes);
        // Half closed is not gone.
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(diag.connection(own, at), Held::Yes);
        drop(client);
        assert_eq!(diag.connection(own, at), Held::No);
        drop((server, listener));
        assert_eq!(diag.listener(at), Held::No);
    }
}

//! What the kernel says of a program's socket that the supervisor has no descriptor for: is it still there, and does
//! anybody still hold it?
//!
//! Asked by sock_diag(7), one socket at a time. A kernel without it (the modules `inet_diag` and `tcp_diag`)
//! is taken to not know.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_SOCK_DIAG};

use crate::sock_diag::{self, SOCK_DIAG_BY_FAMILY};

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;
const LISTEN: u8 = 10;
/// More than an answer without attributes has.
const ANSWER_BYTES: usize = 1024;

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

    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.socket.send(request, 0)?;
        let mut answer = Vec::with_capacity(ANSWER_BYTES);
        self.socket.recv(&mut answer, 0)?;
        Ok(answer)
    }

    fn ask(&self, local: SocketAddr, remote: Option<SocketAddr>, expected: impl Fn(u8) -> bool) -> Held {
        let request = request(local, remote);
        let Ok(answer) = self.exchange(&request) else {
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
        match sock_diag::socket(&answer[HEADER_BYTES..]) {
            Some(socket) if expected(socket.state) && socket.inode != 0 => Held::Yes,
            _ => Held::No,
        }
    }

    /// Whether the kernel can answer at all: it finds a listener that is there for sure.
    fn works(&self) -> bool {
        use std::sync::OnceLock;
        static WORKS: OnceLock<bool> = OnceLock::new();
        *WORKS.get_or_init(|| {
            let Ok(listener) = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)) else { return false };
            let Ok(local) = listener.local_addr() else { return false };
            self.exchange(&request(local, None))
                .is_ok_and(|answer| answer.len() > 6 && u16::from_ne_bytes([answer[4], answer[5]]) != NLMSG_ERROR)
        })
    }
}

/// The question of one socket, with netlink's header.
fn request(local: SocketAddr, remote: Option<SocketAddr>) -> Vec<u8> {
    let question = sock_diag::request_for(local, remote);
    let mut out = Vec::with_capacity(HEADER_BYTES + question.len());
    out.extend(((HEADER_BYTES + question.len()) as u32).to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend(NLM_F_REQUEST.to_ne_bytes());
    out.extend([0; 8]);
    out.extend(question);
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

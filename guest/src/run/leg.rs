//! The way between a program and its supervisor: a TCP connection on the loopback interface, whose one end is the
//! program's own socket.
//!
//! The program never gets another socket than the one that it made, so everything that it has done to it (epoll, dup, fork,
//! options) stays true. What the kernel says of that socket (readable, writable, end, reset, urgent) is true as well,
//! because a TCP is at the other end of it.
//!
//! *An active open.* The program's socket must be in SYN-SENT until the card's handshake is over, neither writable nor
//! hung up, and established at once then. It is connected to a [`Meeting`], whose listener drops every SYN by a
//! socket filter. When the card is ready, a second socket at the listener's address connects to the program's: both
//! ends are in SYN-SENT then, the SYNs cross, and the connection is there (RFC 9293, 3.5, figure 7). If there is none to be
//! had, the same is done and the connection reset at once.
//!
//! *A passive open.* A socket connects to the program's listener, whose queue it then waits in.
//!
//! Every end of the supervisor has SO_LINGER 0: if it dies, or lets go, the program sees a RST; an orderly
//! end is a shutdown.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Bytes that the kernel holds for the supervisor; what lies in between costs memory and hides the peer's pace.
const BUFFER_BYTES: usize = 256 * 1024;

/// Returns "drop the packet".
const DROP_ALL: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// Where sockets of programs wait in SYN-SENT; see the module.
#[derive(Debug)]
pub(super) struct Meeting {
    ipv4: Place,
    /// Absent if the loopback interface has no IPv6.
    ipv6: Option<Place>,
}

#[derive(Debug)]
struct Place {
    listener: Socket,
    address: SocketAddr,
}

fn at(address: SocketAddr) -> io::Result<Socket> {
    let socket = new(address.is_ipv6())?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

impl Place {
    fn new(ip: IpAddr) -> io::Result<Self> {
        let listener = at(SocketAddr::new(ip, 0))?;
        listener.attach_filter(&[DROP_ALL])?;
        listener.listen(1)?;
        let address = listener.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address"))?;
        Ok(Self { listener, address })
    }
}

impl Meeting {
    pub(super) fn new() -> io::Result<Self> {
        let ipv6 = Place::new(Ipv6Addr::LOCALHOST.into());
        Ok(Self { ipv4: Place::new(Ipv4Addr::LOCALHOST.into())?, ipv6: ipv6.ok() })
    }

    /// A socket that it has.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.ipv4.listener.as_fd()
    }

    /// Where a program's socket is to be connected.
    pub(super) fn address(&self, is_ipv6: bool) -> Option<SocketAddr> {
        if is_ipv6 { self.ipv6.as_ref().map(|p| p.address) } else { Some(self.ipv4.address) }
    }

    /// Meets the program's socket at this address, which waits in SYN-SENT: writable when that is done.
    pub(super) fn meet(&self, program: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        let place = self.address(program.is_ipv6()).ok_or_else(|| io::Error::other("no IPv6 on the loopback"))?;
        let socket = at(place)?;
        connect(&socket, program)?;
        Ok((socket, place))
    }
}

/// Queues for a program's listener: writable when it waits there.
pub(super) fn queue(listener: SocketAddr) -> io::Result<Socket> {
    let socket = new(listener.is_ipv6())?;
    connect(&socket, listener)?;
    Ok(socket)
}

/// The address at which a listener is reached over the loopback interface by a peer of that family.
pub(super) fn reached_at(listener: SocketAddr, remote: IpAddr) -> SocketAddr {
    let ip = match (listener.ip().to_canonical(), remote) {
        (ip, _) if !ip.is_unspecified() => ip,
        (_, IpAddr::V4(_)) => Ipv4Addr::LOCALHOST.into(),
        (_, IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listener.port())
}

fn new(is_ipv6: bool) -> io::Result<Socket> {
    let domain = if is_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_out_of_band_inline(true)?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn connect(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    match socket.connect(&to.into()) {
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags};

    use super::*;

    fn events(socket: &Socket, patience: Duration) -> PollFlags {
        let mut fds = [PollFd::new(socket, PollFlags::IN | PollFlags::OUT)];
        crate::transport::poll(&mut fds, Some(patience)).unwrap();
        fds[0].revents()
    }

    fn waiting(place: SocketAddr) -> (Socket, SocketAddr) {
        let program = Socket::new(Domain::for_address(place), Type::STREAM, None).unwrap();
        program.set_nonblocking(true).unwrap();
        let e = program.connect(&place.into()).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EINPROGRESS));
        let own = program.local_addr().unwrap().as_socket().unwrap();
        (program, own)
    }

    #[test]
    fn a_socket_waits_and_is_met_at_once() {
        let meeting = Meeting::new().unwrap();
        for place in [meeting.address(false), meeting.address(true)].into_iter().flatten() {
            let (program, own) = waiting(place);
            assert_eq!(events(&program, Duration::from_millis(20)), PollFlags::empty());
            let (leg, _) = meeting.meet(own).unwrap();
            assert_eq!(events(&program, Duration::from_millis(900)), PollFlags::OUT, "before the SYN is sent again");
            assert_eq!(events(&leg, Duration::from_millis(900)), PollFlags::OUT);
            assert_eq!(program.send(b"abc").unwrap(), 3);
            assert_eq!(program.peer_addr().unwrap().as_socket(), Some(place));
        }
    }

    #[test]
    fn letting_go_is_a_reset() {
        let meeting = Meeting::new().unwrap();
        let (program, own) = waiting(meeting.address(false).unwrap());
        let (leg, _) = meeting.meet(own).unwrap();
        assert!(events(&leg, Duration::from_millis(900)).contains(PollFlags::OUT));
        drop(leg);
        assert!(events(&program, Duration::from_millis(900)).contains(PollFlags::ERR));
        assert_eq!(program.take_error().unwrap().unwrap().raw_os_error(), Some(libc::ECONNRESET));
    }

    #[test]
    fn a_program_that_is_gone_is_not_met() {
        let meeting = Meeting::new().unwrap();
        let (program, own) = waiting(meeting.address(false).unwrap());
        drop(program);
        let (leg, _) = meeting.meet(own).unwrap();
        assert!(events(&leg, Duration::from_millis(900)).contains(PollFlags::ERR));
    }
}

//! The system calls, of the kernel or of the firmware's table: one set of methods for both.
//!
//! Pointers end here: above are slices and numbers, and a result is a number or an error's number.

use std::net::{IpAddr, SocketAddr};

use libc::{c_int, socklen_t};
use toe_packetdrill::interface::Interface;

use crate::language::Outcome;

/// Who is called.
#[derive(Clone, Copy)]
#[allow(clippy::large_enum_variant)] // There is one for each run.
pub enum Sockets {
    /// The kernel, in the namespace of the calling thread.
    Kernel,
    /// The card, through the table that packetdrill would use.
    Table(Interface),
}

// SAFETY: the table is made to be called from several threads; the pointer in it is only handed back to it.
unsafe impl Send for Sockets {}
// SAFETY: the same.
unsafe impl Sync for Sockets {}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kernel => "Kernel",
            Self::Table(_) => "Table",
        })
    }
}

fn outcome(value: i64) -> Outcome {
    if value < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(value) }
}

macro_rules! call {
    ($self:ident, $name:ident ( $($argument:expr),* )) => {{
        // SAFETY: every pointer among the arguments is to something that lives through the call, with the length that is
        // said; the table's functions take what the system calls of the same name take.
        outcome(unsafe {
            match $self {
                Self::Kernel => libc::$name($($argument),*) as i64,
                Self::Table(table) => {
                    let result = (table.$name)(table.userdata, $($argument),*);
                    result as i64
                }
            }
        })
    }};
}

/// The bytes of a `sockaddr_in` or `sockaddr_in6`.
fn to_sockaddr(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    match address {
        SocketAddr::V4(a) => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend(a.port().to_be_bytes());
            bytes.extend(a.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(a) => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend(a.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(a.ip().octets());
            bytes.extend(a.scope_id().to_ne_bytes());
        }
    }
    bytes
}

fn of_sockaddr(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    let ip: IpAddr = match i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])) {
        libc::AF_INET => <[u8; 4]>::try_from(bytes.get(4..8)?).ok()?.into(),
        libc::AF_INET6 => <[u8; 16]>::try_from(bytes.get(8..24)?).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// An event of `epoll_wait`: what can be done, and what was to be told with it.
pub type Event = (u32, u64);

#[allow(missing_docs)] // Each is the system call of its name.
impl Sockets {
    pub fn socket(&self, domain: c_int, kind: c_int, protocol: c_int) -> Outcome {
        call!(self, socket(domain, kind, protocol))
    }

    pub fn bind(&self, fd: c_int, address: SocketAddr) -> Outcome {
        let bytes = to_sockaddr(address);
        call!(self, bind(fd, bytes.as_ptr().cast(), bytes.len() as socklen_t))
    }

    pub fn listen(&self, fd: c_int, backlog: c_int) -> Outcome {
        call!(self, listen(fd, backlog))
    }

    pub fn accept(&self, fd: c_int) -> (Outcome, Option<SocketAddr>) {
        let mut bytes = [0u8; 128];
        let mut length = bytes.len() as socklen_t;
        let outcome = call!(self, accept(fd, bytes.as_mut_ptr().cast(), &raw mut length));
        (outcome, of_sockaddr(&bytes[..bytes.len().min(length as usize)]))
    }

    pub fn connect(&self, fd: c_int, address: SocketAddr) -> Outcome {
        let bytes = to_sockaddr(address);
        call!(self, connect(fd, bytes.as_ptr().cast(), bytes.len() as socklen_t))
    }

    /// `recv`, or `read` without flags.
    pub fn receive(&self, fd: c_int, max: usize, flags: Option<c_int>) -> (Outcome, Vec<u8>) {
        let mut data = vec![0u8; max];
        let outcome: Outcome = match flags {
            Some(flags) => call!(self, recv(fd, data.as_mut_ptr().cast(), max, flags)),
            None => call!(self, read(fd, data.as_mut_ptr().cast(), max)),
        };
        // MSG_TRUNC may say more than there was room for.
        data.truncate(outcome.map_or(0, |n: i64| n as usize));
        (outcome, data)
    }

    /// `send`, or `write` without flags.
    pub fn send(&self, fd: c_int, data: &[u8], flags: Option<c_int>) -> Outcome {
        match flags {
            Some(flags) => call!(self, send(fd, data.as_ptr().cast(), data.len(), flags)),
            None => call!(self, write(fd, data.as_ptr().cast(), data.len())),
        }
    }

    pub fn close(&self, fd: c_int) -> Outcome {
        call!(self, close(fd))
    }

    pub fn shutdown(&self, fd: c_int, how: c_int) -> Outcome {
        call!(self, shutdown(fd, how))
    }

    pub fn fcntl(&self, fd: c_int, command: c_int, argument: c_int) -> Outcome {
        call!(self, fcntl(fd, command, argument as libc::c_ulong))
    }

    /// An `ioctl` on an int, which it may read and write.
    pub fn ioctl(&self, fd: c_int, request: libc::c_ulong, value: c_int) -> (Outcome, c_int) {
        let mut value = value;
        let outcome = call!(self, ioctl(fd, request, (&raw mut value).cast::<libc::c_void>()));
        (outcome, value)
    }

    pub fn set_option(&self, fd: c_int, level: c_int, name: c_int, value: &[u8]) -> Outcome {
        call!(self, setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as socklen_t))
    }

    pub fn get_option(&self, fd: c_int, level: c_int, name: c_int, room: usize) -> (Outcome, Vec<u8>) {
        let mut value = vec![0u8; room];
        let mut length = room as socklen_t;
        let outcome = call!(self, getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut length));
        value.truncate(length as usize);
        (outcome, value)
    }

    pub fn poll(&self, fds: &mut [libc::pollfd], timeout_ms: c_int) -> Outcome {
        call!(self, poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms))
    }

    pub fn epoll_create(&self, size: c_int) -> Outcome {
        call!(self, epoll_create(size))
    }

    pub fn epoll_control(&self, epfd: c_int, op: c_int, fd: c_int, (events, data): Event) -> Outcome {
        let mut event = libc::epoll_event { events, u64: data };
        call!(self, epoll_ctl(epfd, op, fd, &raw mut event))
    }

    pub fn epoll_wait(&self, epfd: c_int, max: c_int, timeout_ms: c_int) -> (Outcome, Vec<Event>) {
        const MAX: usize = 64;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MAX];
        let outcome = call!(self, epoll_wait(epfd, events.as_mut_ptr(), max.min(MAX as c_int), timeout_ms));
        let found = outcome.map_or(0, |n: i64| n as usize);
        (outcome, events[..found].iter().map(|e| (e.events, e.u64)).collect())
    }
}

//! `poll` and `epoll`: what can be done with a descriptor without waiting.
//!
//! The conditions are those of Linux's `tcp_poll`. An epoll instance looks at its descriptors when it is asked, not when
//! something happens to them. So edge-triggered interest sees an edge if, since it was last told, more data,
//! connections or news of the connection's end have come (input), or the descriptor was seen unready in between (output).

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use crate::errno::{Attempt, Errno};
use crate::sockets::{Role, Sockets};

/// The bits are the same in `poll` and `epoll`.
pub const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const ERR: u32 = libc::EPOLLERR as u32;
const HUP: u32 = libc::EPOLLHUP as u32;
const RDHUP: u32 = libc::EPOLLRDHUP as u32;
const RDNORM: u32 = libc::EPOLLRDNORM as u32;
const WRNORM: u32 = libc::EPOLLWRNORM as u32;
/// Reported without being asked for.
const ALWAYS: u32 = ERR | HUP;
const EDGE: u32 = libc::EPOLLET as u32;
const ONE_SHOT: u32 = libc::EPOLLONESHOT as u32;

/// What an epoll instance was asked about one descriptor.
#[derive(Clone, Copy, Debug)]
struct Interest {
    events: u32,
    data: u64,
    /// What was last reported, and what had been received by then.
    told: u32,
    input: (u64, u32),
}

/// An epoll instance.
#[derive(Clone, Debug, Default)]
pub struct Epoll {
    interests: BTreeMap<RawFd, Interest>,
}

impl Epoll {
    /// The descriptor is closed.
    pub fn forget(&mut self, fd: RawFd) {
        self.interests.remove(&fd);
    }
}

/// An event that `epoll_wait` reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What can be done.
    pub events: u32,
    /// What the program wants to be told with it.
    pub data: u64,
}

impl Sockets {
    /// What can be done with a socket; `None` if it is not ours.
    pub fn readiness(&mut self, fd: RawFd) -> Option<u32> {
        let socket = self.get(fd)?.clone();
        let id = match &socket.role {
            // Linux: a stream without a connection is one that has ended.
            Role::Idle => return Some(OUT | WRNORM | HUP),
            Role::Listener(ids) => {
                let waiting = ids.iter().any(|id| self.guest.waiting(*id).1 > 0);
                return Some(if waiting { IN | RDNORM } else { 0 });
            }
            Role::Stream(id) => *id,
        };
        let Some(c) = self.guest.connection(id) else { return Some(ERR | HUP) };
        let (established, aborted, peer_closed) = (c.is_established(), c.is_aborted(), c.is_peer_closed());
        let read_over = peer_closed || aborted || socket.read_shut;
        let write_over = socket.write_shut || aborted;
        let mut ready = 0;
        if read_over {
            ready |= IN | RDNORM | RDHUP;
        }
        if read_over && write_over {
            ready |= HUP;
        }
        if established || aborted {
            if self.guest.readable(id) > 0 {
                ready |= IN | RDNORM;
            }
            if write_over || self.send_room(fd) > 0 {
                ready |= OUT | WRNORM;
            }
        }
        if self.error(fd).is_ok_and(|error| error != 0) {
            ready |= ERR;
        }
        Some(ready)
    }

    /// The same for any descriptor: what is not ours is the kernel's to say.
    fn readiness_of_any(&mut self, fd: RawFd) -> Result<u32, Errno> {
        match self.readiness(fd) {
            Some(ready) => Ok(ready),
            None => native(fd),
        }
    }

    /// `poll`: sets every `revents`; how many are not zero, or "not yet".
    ///
    /// # Errors
    /// The kernel's, of descriptors that are not ours.
    pub fn poll(&mut self, fds: &mut [libc::pollfd]) -> Attempt<i32> {
        let mut ready = 0;
        for entry in fds.iter_mut().filter(|entry| entry.fd >= 0) {
            let wanted = entry.events as u16 as u32 | ALWAYS | libc::POLLNVAL as u32;
            entry.revents = (self.readiness_of_any(entry.fd)? & wanted) as u16 as i16;
            ready += i32::from(entry.revents != 0);
        }
        Ok((ready > 0).then_some(ready))
    }

    /// `epoll_ctl`.
    ///
    /// # Errors
    /// As Linux: `EBADF`, `EINVAL`, `EEXIST`, `ENOENT`.
    pub fn epoll_control(&mut self, epfd: RawFd, op: i32, fd: RawFd, event: Option<Event>) -> Result<(), Errno> {
        if self.epolls.contains_key(&fd) || (self.get(epfd).is_some()) {
            return Err(Errno(libc::EINVAL));
        }
        if self.readiness_of_any(fd)? & libc::POLLNVAL as u32 != 0 {
            return Err(Errno(libc::EBADF));
        }
        let epoll = self.epolls.get_mut(&epfd).ok_or(Errno(libc::EBADF))?;
        let interest = |event: Event| Interest { events: event.events, data: event.data, told: 0, input: (0, 0) };
        let known = epoll.interests.contains_key(&fd);
        match op {
            libc::EPOLL_CTL_ADD if known => Err(Errno(libc::EEXIST)),
            libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL if !known => Err(Errno(libc::ENOENT)),
            libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD => {
                epoll.interests.insert(fd, interest(event.ok_or(Errno(libc::EFAULT))?));
                Ok(())
            }
            libc::EPOLL_CTL_DEL => {
                epoll.interests.remove(&fd);
                Ok(())
            }
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    /// `epoll_wait`: up to `max` events, or "not yet".
    ///
    /// # Errors
    /// `EBADF` or `EINVAL` if it is no epoll instance, `EINVAL` if `max` is not positive.
    pub fn epoll_events(&mut self, epfd: RawFd, max: i32) -> Attempt<Vec<Event>> {
        if self.get(epfd).is_some() || max <= 0 {
            return Err(Errno(libc::EINVAL));
        }
        let mut interests = self.epolls.get(&epfd).ok_or(Errno(libc::EBADF))?.interests.clone();
        let mut events = Vec::new();
        for (fd, interest) in &mut interests {
            if events.len() == max as usize {
                break;
            }
            let wanted = interest.events & !(EDGE | ONE_SHOT);
            // After its one shot, or with nothing asked for, a descriptor is at rest.
            if wanted == 0 {
                continue;
            }
            let ready = self.readiness_of_any(*fd)? & (wanted | ALWAYS);
            let input = self.input(*fd);
            let new_input = input != interest.input;
            let edge = ready & !interest.told != 0 || new_input && ready != 0;
            if ready == 0 || interest.events & EDGE != 0 && !edge {
                interest.told = ready;
                continue;
            }
            (interest.told, interest.input) = (ready, input);
            if interest.events & ONE_SHOT != 0 {
                interest.events &= EDGE | ONE_SHOT;
            }
            events.push(Event { events: ready, data: interest.data });
        }
        if let Some(epoll) = self.epolls.get_mut(&epfd) {
            epoll.interests = interests;
        }
        Ok((!events.is_empty()).then_some(events))
    }

    /// What has come in so far: bytes or connections, and the bits of the connection's state.
    fn input(&mut self, fd: RawFd) -> (u64, u32) {
        match self.get(fd).map(|socket| socket.role.clone()) {
            Some(Role::Listener(ids)) => (ids.iter().map(|id| self.guest.waiting(*id).0).sum(), 0),
            Some(Role::Stream(id)) => {
                let bits = self.guest.connection(id).map_or(0, |c| c.bits());
                (self.guest.info(id).map_or(0, |info| info.bytes_received), bits)
            }
            _ => (0, 0),
        }
    }
}

/// What the kernel says of a descriptor of its own.
fn native(fd: RawFd) -> Result<u32, Errno> {
    let mut entry = libc::pollfd { fd, events: (IN | OUT | RDHUP) as i16, revents: 0 };
    // SAFETY: `entry` is one `pollfd`, alive and ours alone for the whole call.
    if unsafe { libc::poll(&raw mut entry, 1, 0) } < 0 {
        return Err(Errno::last());
    }
    Ok(u32::from(entry.revents as u16))
}

//! Ways to peers that the kernel has told, kept until it says something else.
//!
//! Who opens many connections to the same peers would otherwise ask for the route, the interface and the neighbour every
//! time. The kernel announces every change of those (rtnetlink(7)): a way that an announcement may be about is
//! forgotten before it is used again, and everything is if announcements were lost. What is not announced (a path's
//! MTU that the kernel has learned) is at most [`FRESH_FOR`] old.
//!
//! *Bounds.* [`WAYS_MAX`] ways; with one more all are forgotten. Announcements wait in the socket's buffer, and losing
//! them is only the loss of what is kept.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{self, Neighbour};
use crate::surroundings::Route;

/// So many peers' ways are kept.
const WAYS_MAX: usize = 4096;
/// How old a way may be.
const FRESH_FOR: Duration = Duration::from_secs(10);
/// What one announcement may be long; of a longer one the rest is not needed.
const ANNOUNCEMENT_BYTES: usize = 16 * 1024;
/// So many announcements are read one by one; when more wait, everything is forgotten.
const ANNOUNCEMENTS_MAX: usize = 64;

/// The kernel's groups of announcements (`RTNLGRP_*` of linux/rtnetlink.h): interfaces, neighbours, and addresses, routes
/// and rules of IPv4 and IPv6.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];

#[derive(Clone, Copy, Debug)]
struct Way {
    route: Route,
    hop: IpAddr,
    since: Instant,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ways {
    announcements: Socket,
    known: HashMap<IpAddr, Way>,
    /// How often something was announced; see [`Ways::add`].
    changes: u64,
    buffer: Vec<u8>,
}

impl Ways {
    /// Begins to listen to what the kernel announces.
    ///
    /// # Errors
    /// If it does not let us listen: then nothing can be kept.
    pub(crate) fn new() -> io::Result<Self> {
        let mut announcements = Socket::new(NETLINK_ROUTE)?;
        announcements.bind_auto()?;
        announcements.set_non_blocking(true)?;
        for group in GROUPS {
            announcements.add_membership(group)?;
        }
        Ok(Self { announcements, known: HashMap::new(), changes: 0, buffer: Vec::with_capacity(ANNOUNCEMENT_BYTES) })
    }

    /// The way to a peer, if it is known and still true.
    pub(crate) fn get(&mut self, remote: IpAddr, now: Instant) -> Option<Route> {
        self.hear();
        let way = self.known.get(&remote)?;
        if now.duration_since(way.since) >= FRESH_FOR {
            self.known.remove(&remote);
            return None;
        }
        Some(way.route)
    }

    /// To be taken before the kernel is asked, and given to [`Ways::add`].
    pub(crate) fn changes(&mut self) -> u64 {
        self.hear();
        self.changes
    }

    /// Keeps a way by `hop` that the kernel told after `changes`, unless something was announced since.
    pub(crate) fn add(&mut self, remote: IpAddr, hop: IpAddr, route: Route, changes: u64, now: Instant) {
        self.hear();
        if self.changes != changes {
            return;
        }
        if self.known.len() >= WAYS_MAX {
            self.known.clear();
        }
        self.known.insert(remote, Way { route, hop, since: now });
    }

    fn forget_all(&mut self) {
        self.changes += 1;
        self.known.clear();
    }

    /// Takes in what was announced.
    fn hear(&mut self) {
        for _ in 0..ANNOUNCEMENTS_MAX {
            self.buffer.clear();
            match self.announcements.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => self.heard(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // Some were lost.
                Err(_) => self.forget_all(),
            }
        }
        // More than is worth reading; the rest is read the next time.
        self.forget_all();
    }

    fn heard(&mut self) {
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.buffer).map(|m| m.payload) {
            Ok(NetlinkPayload::InnerMessage(message)) => match netlink::announced_neighbour(&message) {
                Some(neighbour) => self.neighbour_changed(&neighbour),
                None => self.forget_all(),
            },
            _ => self.forget_all(),
        }
    }

    /// Neighbours are announced whenever the kernel looks whether they are still there; mostly nothing is new.
    fn neighbour_changed(&mut self, neighbour: &Neighbour) {
        let is_other = |way: &Way| {
            way.route.interface == neighbour.interface
                && way.hop == neighbour.address
                && neighbour.mac != Some(way.route.next_hop)
        };
        self.changes += 1;
        self.known.retain(|_, way| !is_other(way));
    }
}

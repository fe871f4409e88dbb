//! The guest's kernel as surroundings: its routes, its neighbours, its ports, its TCP to fall back to.
//!
//! The kernel owns addresses, routes and neighbours; it is asked at an active open, unless what it said before still
//! holds ([`Ways`]). If it does not know the next hop's Ethernet address, an empty datagram to that hop's discard port
//! makes it find out.
//!
//! There is one context per interface. An interface whose card did not answer is not asked again for
//! [`ABSENT_FOR`], so that programs on machines without a card do not wait two seconds at every connect.
//! Unless an interface was chosen by name, only those with the driver virtio_net are asked: no other NIC
//! shall see frames that make no sense to its network.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use toe_abi::Mac;

use crate::context::{Context, HELLO_PATIENCE, Neighbourhood, random_key};
use crate::engine::Buffers;
use crate::fallback::FallbackReason;
use crate::netlink::{self, Link, RouteKind};
use crate::surroundings::{Reservation, Route, Surroundings};
use crate::transport::PacketTransport;
use crate::ways::Ways;

/// The environment variable that chooses the interface.
pub const INTERFACE_VARIABLE: &str = "TOE_INTERFACE";

const ABSENT_FOR: Duration = Duration::from_secs(10);
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(1);
const NEIGHBOUR_INTERVAL: Duration = Duration::from_millis(10);
const DISCARD_PORT: u16 = 9;
const DRIVER: &str = "virtio_net";

/// See the module.
#[derive(Debug)]
pub struct Kernel {
    chosen: Option<String>,
    cards: Mutex<HashMap<u32, Card>>,
    /// How long a card's first word is waited for, in milliseconds.
    patience_ms: AtomicU64,
    /// Made at the first use; absent if the kernel does not tell of changes.
    ways: OnceLock<Option<Mutex<Ways>>>,
}

#[derive(Debug)]
enum Card {
    Present(Context),
    Absent { reason: FallbackReason, since: Instant },
}

#[derive(Debug)]
struct Interface {
    index: u32,
}

impl Neighbourhood for Interface {
    fn addresses(&self) -> Vec<IpAddr> {
        match netlink::addresses() {
            Ok(addresses) => {
                let ours = addresses.into_iter().filter(|(index, _)| *index == self.index);
                ours.map(|(_, ip)| ip).collect()
            }
            Err(e) => {
                log::warn!("cannot list the addresses of interface {}: {e}", self.index);
                Vec::new()
            }
        }
    }

    fn route_mtu(&self, local: IpAddr) -> Option<u32> {
        // A listener at :: is reached by IPv4, too.
        let v4 = Ipv4Addr::UNSPECIFIED.into();
        let families = if local.is_ipv6() && local.is_unspecified() { vec![v4, local] } else { vec![local] };
        let least = |family| netlink::least_route_mtu(self.index, family);
        let mtus: io::Result<Vec<_>> = families.into_iter().map(least).collect();
        match mtus {
            Ok(mtus) => mtus.into_iter().flatten().min(),
            Err(e) => {
                log::warn!("cannot list the routes by interface {}: {e}", self.index);
                None
            }
        }
    }

    fn foreign_frame(&self, _frame: &[u8]) {
        // The kernel has its own copy of everything that is for it.
    }

    fn renew_next_hop(&self, remote: IpAddr) -> Option<Mac> {
        let known = || {
            let route = netlink::route(remote)?;
            let hop = route.gateway.unwrap_or(remote);
            // A packet makes the kernel doubt a neighbour that it has not heard of for a while, and ask for it.
            provoke(self.index, hop)?;
            if route.interface == self.index { netlink::neighbour(self.index, hop) } else { Ok(None) }
        };
        known().unwrap_or_else(|e| {
            log::debug!("cannot renew the next hop to {remote}: {e}");
            None
        })
    }
}

impl Kernel {
    /// The one that the whole process shares; its interface may be chosen by `TOE_INTERFACE`.
    pub fn shared() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Kernel>> = OnceLock::new();
        let new = || {
            let chosen = std::env::var(INTERFACE_VARIABLE).ok().filter(|name| !name.is_empty());
            Arc::new(Self::new(chosen))
        };
        SHARED.get_or_init(new).clone()
    }

    /// One that uses only the card behind this interface.
    pub fn on_interface(name: &str) -> Self {
        Self::new(Some(name.to_owned()))
    }

    fn new(chosen: Option<String>) -> Self {
        let patience_ms = AtomicU64::new(HELLO_PATIENCE.as_millis() as u64);
        Self { chosen, cards: Mutex::default(), patience_ms, ways: OnceLock::new() }
    }

    /// Waits so long for a card's first word from here on: for whoever would rather wait than do without the card.
    pub(crate) fn be_patient(&self, patience: Duration) {
        self.patience_ms.store(patience.as_millis() as u64, Ordering::Relaxed);
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms.load(Ordering::Relaxed))
    }

    /// What is known of ways, if anything can be.
    fn ways(&self) -> Option<MutexGuard<'_, Ways>> {
        let new = || Ways::new().inspect_err(|e| log::debug!("every way is asked for anew: {e}")).ok().map(Mutex::new);
        Some(self.ways.get_or_init(new).as_ref()?.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// The interfaces that may have a card, those that are up first.
    pub fn candidates(&self) -> io::Result<Vec<String>> {
        Ok(self.candidate_links()?.into_iter().map(|l| l.name).collect())
    }

    fn candidate_links(&self) -> io::Result<Vec<Link>> {
        let mut links: Vec<_> = netlink::links()?.into_iter().filter(|l| self.is_candidate(l)).collect();
        links.sort_by_key(|l| (!l.is_up, l.index));
        Ok(links)
    }

    fn is_candidate(&self, link: &Link) -> bool {
        match &self.chosen {
            Some(name) => link.name == *name,
            None => link.is_ethernet && may_have_card(&link.name),
        }
    }

    /// The context on the card of the first interface that has one.
    ///
    /// # Errors
    /// Why there is none; [`FallbackReason::OtherInterface`] if no interface comes into question.
    pub fn any_context(&self) -> Result<Context, FallbackReason> {
        let links = self.candidate_links().map_err(system)?;
        let mut reason = FallbackReason::OtherInterface;
        for link in links {
            match self.context(link.index) {
                Ok(context) => return Ok(context),
                Err(e) => reason = e,
            }
        }
        Err(reason)
    }

    fn open(&self, interface: u32) -> Result<Context, FallbackReason> {
        let link = netlink::link(interface).map_err(system)?;
        if !self.is_candidate(&link) {
            return Err(FallbackReason::OtherInterface);
        }
        let key = random_key().map_err(system)?;
        let transport = PacketTransport::open(interface, link.mac, link.mtu, key).map_err(|e| match e.kind() {
            ErrorKind::PermissionDenied => FallbackReason::NotPermitted,
            _ => system(e),
        })?;
        let neighbourhood = Arc::new(Interface { index: interface });
        let context = Context::begin(Arc::new(transport), key, Buffers::default(), neighbourhood)?;
        context.ready(self.patience())?;
        Ok(context)
    }

    /// Ends every context: waits up to `patience` for dropped streams to get rid of their data, then says BYE.
    pub fn close(&self, patience: Duration) {
        let cards = std::mem::take(&mut *self.cards.lock().unwrap_or_else(|e| e.into_inner()));
        let deadline = Instant::now() + patience;
        for card in cards.into_values() {
            if let Card::Present(context) = card
                && !context.drain(deadline.saturating_duration_since(Instant::now()))
            {
                log::warn!("not all data of closed connections has reached the card");
            }
        }
    }
}

fn system(e: io::Error) -> FallbackReason {
    log::warn!("cannot ask for a card: {e}");
    FallbackReason::System
}

fn may_have_card(name: &str) -> bool {
    let class = Path::new("/sys/class/net");
    if !class.exists() {
        // Without sysfs nobody can tell.
        return true;
    }
    let driver = std::fs::read_link(class.join(name).join("device/driver"));
    driver.is_ok_and(|d| d.file_name().is_some_and(|n| n == DRIVER))
}

/// Addresses that the card does not deal with, or that a channel message cannot say.
fn is_ordinary(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unicast_link_local(),
    }
}

fn next_hop(interface: u32, ip: IpAddr) -> Result<Mac, FallbackReason> {
    let deadline = Instant::now() + NEIGHBOUR_PATIENCE;
    let mut asked = false;
    loop {
        if let Some(mac) = netlink::neighbour(interface, ip).map_err(system)? {
            return Ok(mac);
        }
        if !asked {
            asked = true;
            if let Err(e) = provoke(interface, ip) {
                log::debug!("cannot make the kernel ask for {ip}: {e}");
            }
        } else if Instant::now() >= deadline {
            return Err(FallbackReason::NoNeighbour);
        } else {
            std::thread::sleep(NEIGHBOUR_INTERVAL);
        }
    }
}

/// Makes the kernel find out a neighbour's Ethernet address.
fn provoke(interface: u32, ip: IpAddr) -> io::Result<()> {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    let to: SocketAddr = match ip {
        IpAddr::V4(_) => (ip, DISCARD_PORT).into(),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, DISCARD_PORT, 0, interface).into(),
    };
    socket.connect(to)?;
    socket.send(&[]).map(drop)
}

fn tcp_socket(like: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(like), Type::STREAM, Some(Protocol::TCP))
}

impl Surroundings for Kernel {
    fn route(&self, remote: IpAddr) -> Result<Route, FallbackReason> {
        if remote.is_loopback() || remote.is_unspecified() {
            return Err(FallbackReason::Local);
        }
        if !is_ordinary(remote) {
            return Err(FallbackReason::AddressKind);
        }
        if let Some(route) = self.ways().and_then(|mut ways| ways.get(remote, Instant::now())) {
            self.context(route.interface)?;
            return Ok(route);
        }
        let changes = self.ways().map(|mut ways| ways.changes());
        let route = netlink::route(remote).map_err(|e| {
            log::debug!("no route to {remote}: {e}");
            FallbackReason::NoRoute
        })?;
        match route.kind {
            RouteKind::Unicast => {}
            RouteKind::Local => return Err(FallbackReason::Local),
            RouteKind::Other => return Err(FallbackReason::AddressKind),
        }
        let link = netlink::link(route.interface).map_err(system)?;
        if !self.is_candidate(&link) {
            return Err(FallbackReason::OtherInterface);
        }
        // Before the next hop: where there is no card, nobody shall wait for one.
        self.context(route.interface)?;
        //= docs/specs/rfc9293.txt#section-3.9.1.1
        //# If an application on a multihomed host does not specify the local IP address when actively opening a TCP
        //# connection, then the TCP implementation MUST ask the IP layer to select a local IP address before
        //# sending the (first) SYN (MUST-44).
        let local = route.source.ok_or(FallbackReason::NoRoute)?;
        let hop = route.gateway.unwrap_or(remote);
        let next_hop = next_hop(route.interface, hop)?;
        let mtu = route.mtu.unwrap_or(link.mtu).min(link.mtu);
        let route = Route { interface: route.interface, local, next_hop, mtu };
        if let (Some(changes), Some(mut ways)) = (changes, self.ways()) {
            ways.add(remote, hop, route, changes, Instant::now());
        }
        Ok(route)
    }

    fn known_way(&self, remote: IpAddr) -> Option<(Route, Context)> {
        let route = self.ways()?.get(remote, Instant::now())?;
        // Whoever holds it may be waiting for a card's first word.
        let context = match self.cards.try_lock().ok()?.get(&route.interface) {
            Some(Card::Present(context)) => context.clone(),
            _ => return None,
        };
        context.ready(Duration::ZERO).ok()?;
        Some((route, context))
    }

    fn interface_of(&self, local: IpAddr) -> Result<u32, FallbackReason> {
        if local.is_loopback() {
            return Err(FallbackReason::Local);
        }
        let links = self.candidate_links().map_err(system)?;
        if local.is_unspecified() {
            let mut reason = FallbackReason::OtherInterface;
            for link in links {
                match self.context(link.index) {
                    Ok(_) => return Ok(link.index),
                    Err(e) => reason = e,
                }
            }
            return Err(reason);
        }
        let addresses = netlink::addresses().map_err(system)?;
        let owner = addresses.into_iter().find(|(index, ip)| *ip == local && links.iter().any(|l| l.index == *index));
        owner.map(|(index, _)| index).ok_or(FallbackReason::OtherInterface)
    }

    fn context(&self, interface: u32) -> Result<Context, FallbackReason> {
        let mut cards = self.cards.lock().unwrap_or_else(|e| e.into_inner());
        match cards.get(&interface) {
            Some(Card::Present(context)) => {
                let context = context.clone();
                drop(cards);
                context.ready(self.patience())?;
                return Ok(context);
            }
            Some(Card::Absent { reason, since }) if since.elapsed() < ABSENT_FOR => return Err(*reason),
            _ => {}
        }
        let opened = self.open(interface);
        let card = match &opened {
            Ok(context) => Card::Present(context.clone()),
            Err(reason) => Card::Absent { reason: *reason, since: Instant::now() },
        };
        cards.insert(interface, card);
        opened
    }

    fn reserve(&self, local: SocketAddr) -> io::Result<Reservation> {
        let socket = tcp_socket(local)?;
        socket.bind(&local.into())?;
        Reservation::kernel(socket)
    }

    fn reserve_listener(&self, local: SocketAddr) -> io::Result<Reservation> {
        let socket = tcp_socket(local)?;
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
        Reservation::kernel(socket)
    }

    fn fallback_socket(&self, remote: SocketAddr) -> io::Result<Option<Socket>> {
        tcp_socket(remote).map(Some)
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;

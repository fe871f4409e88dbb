//! Surroundings without a guest: a process on the host that speaks to the card as its vhost-user frontend.
//!
//! There is no kernel on this side of the card, so that a [`Station`] plays its part, as small as it can be: it has
//! addresses, answers ARP and neighbour solicitations for them, resolves next hops, and hands out ports. It has no
//! TCP of its own, so that nothing falls back: what the card refuses, fails, and a segment that is for no connection is
//! reset ([`closed`]). Only a SYN to a port that is listened on is dropped instead: the card had no room for it, and its
//! peer shall ask again. It answers nothing else; frames that it does not understand are dropped and counted.
//!
//! *Bounds.* At most [`NEIGHBOURS_MAX`] neighbours are remembered, each for [`NEIGHBOUR_AGE_MAX`]; only answers to our
//! own questions, and who asks for us, are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use socket2::Socket;
use toe_abi::Mac;

use crate::checksum;
use crate::closed;
use crate::context::{Context, Neighbourhood};
use crate::engine::Buffers;
use crate::fallback::FallbackReason;
use crate::surroundings::{Reservation, Route, Surroundings};
use crate::transport::Transport;

const NEIGHBOURS_MAX: usize = 256;
const NEIGHBOUR_AGE_MAX: Duration = Duration::from_secs(60);
const RESOLVE_INTERVAL: Duration = Duration::from_millis(200);
const RESOLVE_TRIES: u32 = 5;
/// Ports for active opens; the lower half is left to services.
const PORTS: std::ops::RangeInclusive<u16> = 32_768..=65_535;
/// The only interface there is.
const INTERFACE: u32 = 1;

/// What a station is.
#[derive(Clone, Debug)]
pub struct StationConfig {
    /// Our addresses with the lengths of their prefixes in bits.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Where IPv4 packets go that are for no prefix of ours.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Bytes that one connection may hold in the library.
    pub buffers: Buffers,
}

/// A station on the network; see the module.
#[derive(Debug)]
pub struct Station {
    neighbours: Arc<Neighbours>,
    context: Context,
}

#[derive(Debug)]
struct Neighbours {
    transport: Arc<dyn Transport>,
    config: StationConfig,
    table: Mutex<HashMap<IpAddr, (Mac, Instant)>>,
    learned: Condvar,
    /// Ports in use.
    ports: Arc<Mutex<HashMap<u16, Use>>>,
    dropped: AtomicU64,
}

/// What a port is in use for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Connection,
    Listener,
}

#[derive(Debug)]
struct PortGuard {
    port: u16,
    ports: Arc<Mutex<HashMap<u16, Use>>>,
}

impl Drop for PortGuard {
    fn drop(&mut self) {
        self.ports.lock().unwrap_or_else(|e| e.into_inner()).remove(&self.port);
    }
}

impl Station {
    /// A station that reaches its network and the card through `transport`.
    ///
    /// # Errors
    /// As [`Context::open`].
    pub fn new(transport: Arc<dyn Transport>, key: u128, config: StationConfig) -> Result<Arc<Self>, FallbackReason> {
        let buffers = config.buffers;
        let neighbours = Arc::new(Neighbours {
            transport: transport.clone(),
            config,
            table: Mutex::default(),
            learned: Condvar::new(),
            ports: Arc::default(),
            dropped: AtomicU64::new(0),
        });
        let context = Context::open(transport, key, buffers, neighbours.clone())?;
        Ok(Arc::new(Self { neighbours, context }))
    }

    /// Its context on the card.
    pub fn card(&self) -> &Context {
        &self.context
    }

    /// Frames that were neither the channel's nor understood.
    pub fn frames_dropped(&self) -> u64 {
        self.neighbours.dropped.load(Ordering::Relaxed)
    }

    fn take_port(&self, wanted: u16, purpose: Use) -> io::Result<Reservation> {
        let mut ports = self.neighbours.ports.lock().unwrap_or_else(|e| e.into_inner());
        let port = if wanted != 0 { wanted } else { free_port(&ports)? };
        match ports.entry(port) {
            Entry::Occupied(_) => return Err(ErrorKind::AddrInUse.into()),
            Entry::Vacant(free) => free.insert(purpose),
        };
        Ok(Reservation::own(port, Box::new(PortGuard { port, ports: self.neighbours.ports.clone() })))
    }
}

/// A port for an active open: the first free one behind a random one.
//= docs/specs/rfc6056.txt#section-3.3.1
//# next_ephemeral = min_ephemeral + (random() % num_ephemeral);
fn free_port(used: &HashMap<u16, Use>) -> io::Result<u16> {
    let mut random = [0; 2];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    port_from(u16::from_le_bytes(random), used)
}

fn port_from(random: u16, used: &HashMap<u16, Use>) -> io::Result<u16> {
    let count = PORTS.end() - PORTS.start() + 1;
    // No port is more likely than another.
    const _: () = assert!((1 << 16) % (*PORTS.end() as u32 - *PORTS.start() as u32 + 1) == 0);
    let start = random % count;
    let free = (0..count).map(|i| PORTS.start() + (start + i) % count).find(|p| !used.contains_key(p));
    free.ok_or_else(|| io::Error::new(ErrorKind::AddrNotAvailable, "every port is in use"))
}

impl Surroundings for Station {
    fn route(&self, remote: IpAddr) -> Result<Route, FallbackReason> {
        let n = &self.neighbours;
        let (local, hop) = n.config.way_to(remote)?;
        let next_hop = n.resolve(local, hop)?;
        Ok(Route { interface: INTERFACE, local, next_hop, mtu: n.transport.mtu() })
    }

    fn interface_of(&self, local: IpAddr) -> Result<u32, FallbackReason> {
        let ours = local.is_unspecified() || self.neighbours.config.addresses.iter().any(|(ip, _)| *ip == local);
        if ours { Ok(INTERFACE) } else { Err(FallbackReason::OtherInterface) }
    }

    fn context(&self, _interface: u32) -> Result<Context, FallbackReason> {
        self.context.ready(crate::context::HELLO_PATIENCE)?;
        Ok(self.context.clone())
    }

    fn reserve(&self, local: SocketAddr) -> io::Result<Reservation> {
        self.take_port(local.port(), Use::Connection)
    }

    fn reserve_listener(&self, local: SocketAddr) -> io::Result<Reservation> {
        self.take_port(local.port(), Use::Listener)
    }

    fn fallback_socket(&self, _remote: SocketAddr) -> io::Result<Option<Socket>> {
        Ok(None)
    }
}

impl StationConfig {
    /// The source address and the next hop for a destination.
    //= docs/specs/rfc9293.txt#section-3.9.1.1
    //# If an application on a multihomed host does not specify the local IP address when actively opening a TCP
    //# connection, then the TCP implementation MUST ask the IP layer to select a local IP address before sending
    //# the (first) SYN (MUST-44).
    fn way_to(&self, remote: IpAddr) -> Result<(IpAddr, IpAddr), FallbackReason> {
        if self.addresses.iter().any(|(ip, _)| *ip == remote) {
            return Err(FallbackReason::Local);
        }
        let family = |ip: IpAddr| ip.is_ipv4() == remote.is_ipv4();
        let on_link = |(ip, prefix): &(IpAddr, u8)| family(*ip) && share_prefix(*ip, remote, *prefix);
        if let Some((local, _)) = self.addresses.iter().find(|a| on_link(a)) {
            return Ok((*local, remote));
        }
        let gateway = match remote {
            IpAddr::V4(_) => self.gateway_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.gateway_v6.map(IpAddr::V6),
        };
        let local = self.addresses.iter().map(|(ip, _)| *ip).find(|ip| family(*ip));
        local.zip(gateway).ok_or(FallbackReason::NoRoute)
    }
}

fn share_prefix(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let differing = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        _ => return false,
    };
    differing >= u32::from(bits)
}

impl Neighbourhood for Neighbours {
    fn addresses(&self) -> Vec<IpAddr> {
        self.config.addresses.iter().map(|(ip, _)| *ip).collect()
    }

    fn foreign_frame(&self, frame: &[u8]) {
        let understood = match frame.get(12..14) {
            Some([0x08, 0x06]) => self.handle_arp(frame),
            Some([0x08, 0x00]) => self.handle_tcp(frame),
            Some([0x86, 0xdd]) => self.handle_ipv6(frame).or_else(|| self.handle_tcp(frame)),
            _ => None,
        };
        if understood.is_none() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn renew_next_hop(&self, remote: IpAddr) -> Option<Mac> {
        let (local, hop) = self.config.way_to(remote).ok()?;
        self.send(&self.question(local, hop)?);
        let table = self.table.lock().unwrap_or_else(|e| e.into_inner());
        table.get(&hop).map(|(mac, _)| *mac)
    }
}

impl Neighbours {
    fn question(&self, local: IpAddr, hop: IpAddr) -> Option<Vec<u8>> {
        match (local, hop) {
            (IpAddr::V4(local), IpAddr::V4(hop)) => Some(arp(ARP_REQUEST, (self.mac(), local), (BROADCAST, hop))),
            (IpAddr::V6(local), IpAddr::V6(hop)) => Some(solicitation(self.mac(), local, hop)),
            _ => None,
        }
    }

    fn is_ours(&self, ip: IpAddr) -> bool {
        self.config.addresses.iter().any(|(ours, _)| *ours == ip)
    }

    fn learn(&self, ip: IpAddr, mac: Mac) {
        if mac.is_group() || ip.is_unspecified() || ip.is_multicast() || self.is_ours(ip) {
            return;
        }
        let mut table = self.table.lock().unwrap_or_else(|e| e.into_inner());
        if table.len() >= NEIGHBOURS_MAX && !table.contains_key(&ip) {
            let oldest = table.iter().min_by_key(|(_, (_, since))| *since).map(|(ip, _)| *ip);
            oldest.and_then(|ip| table.remove(&ip));
        }
        table.insert(ip, (mac, Instant::now()));
        self.learned.notify_all();
    }

    /// The Ethernet address of a neighbour; asks for it if need be.
    fn resolve(&self, local: IpAddr, hop: IpAddr) -> Result<Mac, FallbackReason> {
        let mut table = self.table.lock().unwrap_or_else(|e| e.into_inner());
        for _ in 0..RESOLVE_TRIES {
            let known = |table: &HashMap<IpAddr, (Mac, Instant)>| {
                table.get(&hop).filter(|(_, since)| since.elapsed() < NEIGHBOUR_AGE_MAX).map(|(mac, _)| *mac)
            };
            if let Some(mac) = known(&table) {
                return Ok(mac);
            }
            drop(table);
            let question = self.question(local, hop).ok_or(FallbackReason::NoRoute)?;
            self.send(&question);
            table = self.table.lock().unwrap_or_else(|e| e.into_inner());
            let deadline = Instant::now() + RESOLVE_INTERVAL;
            while known(&table).is_none() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                table = self.learned.wait_timeout(table, left).unwrap_or_else(|e| e.into_inner()).0;
            }
            if let Some(mac) = known(&table) {
                return Ok(mac);
            }
        }
        Err(FallbackReason::NoNeighbour)
    }

    fn mac(&self) -> Mac {
        self.transport.mac()
    }

    fn send(&self, frame: &[u8]) {
        if let Err(e) = self.transport.send(frame) {
            // Whoever asked asks again.
            log::debug!("a frame of the station is lost: {e}");
        }
    }

    fn handle_arp(&self, frame: &[u8]) -> Option<()> {
        let body = frame.get(14..42)?;
        // Ethernet and IPv4, with their lengths.
        if body[..6] != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        let operation = u16::from_be_bytes([body[6], body[7]]);
        let sender = mac_at(body, 8)?;
        let sender_ip = Ipv4Addr::from(<[u8; 4]>::try_from(&body[14..18]).ok()?);
        let target_ip = Ipv4Addr::from(<[u8; 4]>::try_from(&body[24..28]).ok()?);
        if !self.is_ours(target_ip.into()) {
            return Some(());
        }
        self.learn(sender_ip.into(), sender);
        if operation == ARP_REQUEST {
            self.send(&arp(ARP_REPLY, (self.mac(), target_ip), (sender, sender_ip)));
        }
        Some(())
    }

    /// Resets what is for no connection.
    fn handle_tcp(&self, frame: &[u8]) -> Option<()> {
        let (to, from) = (mac_at(frame, 0)?, mac_at(frame, 6)?);
        let packet = &frame[14..];
        let (_, destination, _) = closed::ends(packet)?;
        if to != self.mac() || !self.is_ours(destination.ip()) {
            return None;
        }
        let listens = |_, port| self.ports.lock().unwrap_or_else(|e| e.into_inner()).get(&port) == Some(&Use::Listener);
        let reset = closed::answer(packet, listens)?;
        let mut answer = Vec::with_capacity(ETHERNET_BYTES + reset.len());
        answer.extend(from.0);
        answer.extend(to.0);
        answer.extend(&frame[12..14]);
        answer.extend(reset);
        self.send(&answer);
        Some(())
    }

    /// Neighbour discovery (RFC 4861).
    fn handle_ipv6(&self, frame: &[u8]) -> Option<()> {
        let ip = frame.get(14..)?;
        let payload = usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]));
        // ICMPv6, from the same link (7.1.1).
        if ip[0] >> 4 != 6 || *ip.get(6)? != ICMPV6 || *ip.get(7)? != 255 {
            return None;
        }
        let source = ipv6_at(ip, 8)?;
        let destination = ipv6_at(ip, 24)?;
        let icmp = ip.get(40..40 + payload)?;
        if icmp.len() < 24 || icmp_checksum(source, destination, icmp) != 0 || icmp[1] != 0 {
            return None;
        }
        let target = ipv6_at(icmp, 8)?;
        let mut options = &icmp[24..];
        let mut mac = None;
        while options.len() >= 8 {
            let length = usize::from(options[1]) * 8;
            let option = options.get(..length).filter(|o| !o.is_empty())?;
            if option[0] == SOURCE_ADDRESS || option[0] == TARGET_ADDRESS {
                mac = mac_at(option, 2);
            }
            options = &options[length..];
        }
        match icmp[0] {
            SOLICITATION if self.is_ours(target.into()) => {
                let to = mac.or_else(|| mac_at(frame, 6))?;
                // From the unspecified address somebody checks for duplicates (7.2.4).
                let to_ip = if source.is_unspecified() { ALL_NODES } else { source };
                let to = if source.is_unspecified() { multicast_mac(ALL_NODES) } else { to };
                if !source.is_unspecified() {
                    self.learn(source.into(), to);
                }
                let flags = if source.is_unspecified() { 0x20 } else { 0x60 };
                let option = (TARGET_ADDRESS, self.mac());
                self.send(&discovery((self.mac(), target), (to, to_ip), (ADVERTISEMENT, flags), target, option));
                Some(())
            }
            SOLICITATION => Some(()),
            ADVERTISEMENT => {
                if self.is_ours(destination.into()) {
                    self.learn(target.into(), mac.or_else(|| mac_at(frame, 6))?);
                }
                Some(())
            }
            _ => None,
        }
    }
}

const ETHERNET_BYTES: usize = 14;
const BROADCAST: Mac = Mac([0xff; 6]);
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    <[u8; 6]>::try_from(bytes.get(at..at + 6)?).ok().map(Mac)
}

fn ipv6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok().map(Ipv6Addr::from)
}

fn arp(operation: u16, from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend(to.0.0);
    frame.extend(from.0.0);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(from.0.0);
    frame.extend(from.1.octets());
    frame.extend(if to.0 == BROADCAST { [0; 6] } else { to.0.0 });
    frame.extend(to.1.octets());
    frame.resize(60, 0);
    frame
}

fn multicast_mac(ip: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = ip.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

fn solicitation(mac: Mac, local: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    discovery((mac, local), (multicast_mac(group), group), (SOLICITATION, 0), target, (SOURCE_ADDRESS, mac))
}

fn discovery(
    from: (Mac, Ipv6Addr),
    to: (Mac, Ipv6Addr),
    (kind, flags): (u8, u8),
    target: Ipv6Addr,
    option: (u8, Mac),
) -> Vec<u8> {
    let mut icmp = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([option.0, 1]);
    icmp.extend(option.1.0);
    let checksum = icmp_checksum(from.1, to.1, &icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = Vec::with_capacity(54 + icmp.len());
    frame.extend(to.0.0);
    frame.extend(from.0.0);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((icmp.len() as u16).to_be_bytes());
    frame.extend([ICMPV6, 255]);
    frame.extend(from.1.octets());
    frame.extend(to.1.octets());
    frame.extend(icmp);
    frame
}

/// Over the pseudo-header and the message (RFC 4443, 2.3); zero if the message holds its right checksum.
fn icmp_checksum(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> u16 {
    checksum::with_pseudo_header(source.into(), destination.into(), ICMPV6, icmp)
}

#[cfg(test)]
#[path = "station_tests.rs"]
mod tests;

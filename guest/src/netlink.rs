//! Questions to the guest's kernel: interfaces, addresses, routes, neighbours.
//!
//! One socket per question; the answers are small. Nothing is changed, so that no privilege is needed.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use toe_abi::Mac;

/// An interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    pub(crate) is_ethernet: bool,
    pub(crate) is_up: bool,
}

/// What the kernel's routing says of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KernelRoute {
    pub(crate) kind: RouteKind,
    pub(crate) interface: u32,
    pub(crate) source: Option<IpAddr>,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) mtu: Option<u32>,
}

/// The kinds of a route that make a difference here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RouteKind {
    Unicast,
    Local,
    Other,
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn ask(message: RouteNetlinkMessage, dump: bool) -> io::Result<Vec<RouteNetlinkMessage>> {
    ask_protocol(NETLINK_ROUTE, message, dump)
}

/// Asks, and gives every message of the answer.
pub(crate) fn ask_protocol<M: NetlinkSerializable + NetlinkDeserializable>(
    protocol: isize,
    message: M,
    dump: bool,
) -> io::Result<Vec<M>> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = if dump { NLM_F_REQUEST | NLM_F_DUMP } else { NLM_F_REQUEST };
    header.sequence_number = 1;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest)
                .map_err(|e| io::Error::new(ErrorKind::InvalidData, format!("netlink: {e}")))?;
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(1)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                NetlinkPayload::Done(_) => return Ok(answers),
                _ => {}
            }
        }
        if !dump {
            return Ok(answers);
        }
    }
}

/// Every interface.
pub(crate) fn links() -> io::Result<Vec<Link>> {
    let answers = ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), true)?;
    Ok(answers.iter().filter_map(link_of).collect())
}

/// One interface.
pub(crate) fn link(index: u32) -> io::Result<Link> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let answers = ask(RouteNetlinkMessage::GetLink(message), false)?;
    answers.iter().find_map(link_of).ok_or_else(|| io::Error::from(ErrorKind::NotFound))
}

fn link_of(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(m) = message else {
        return None;
    };
    let mut link = Link {
        index: m.header.index,
        name: String::new(),
        mac: Mac::default(),
        mtu: 0,
        is_ethernet: m.header.link_layer_type == LinkLayerType::Ether,
        is_up: m.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &m.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = mac_of(bytes).unwrap_or_default(),
            _ => {}
        }
    }
    Some(link)
}

fn mac_of(bytes: &[u8]) -> Option<Mac> {
    <[u8; 6]>::try_from(bytes).ok().map(Mac)
}

/// Every address with the index of its interface.
pub(crate) fn addresses() -> io::Result<Vec<(u32, IpAddr)>> {
    let answers = ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), true)?;
    Ok(answers
        .iter()
        .filter_map(|message| {
            let RouteNetlinkMessage::NewAddress(m) = message else {
                return None;
            };
            // On a point-to-point link "address" is the other end's and "local" ours.
            let local = m.attributes.iter().find_map(|a| match a {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let address = m.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            Some((m.header.index, local.or(address)?))
        })
        .collect())
}

/// The kernel's route to a destination; `Err` with `NetworkUnreachable` if there is none.
pub(crate) fn route(destination: IpAddr) -> io::Result<KernelRoute> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination);
    message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(destination)));
    let answers = ask(RouteNetlinkMessage::GetRoute(message), false)?;
    let found = answers.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewRoute(m) => Some(m),
        _ => None,
    });
    let m = found.ok_or_else(|| io::Error::from(ErrorKind::NetworkUnreachable))?;
    let kind = match m.header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        _ => RouteKind::Other,
    };
    let mut route = KernelRoute { kind, interface: 0, source: None, gateway: None, mtu: None };
    for attribute in &m.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.interface = *index,
            RouteAttribute::PrefSource(address) => route.source = ip_of(address),
            RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
            RouteAttribute::Via(RouteVia::Inet(ip)) => route.gateway = Some((*ip).into()),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => route.gateway = Some((*ip).into()),
            RouteAttribute::Metrics(metrics) => route.mtu = mtu_of(metrics),
            _ => {}
        }
    }
    Ok(route)
}

fn mtu_of(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|m| match m {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    })
}

/// The least MTU that the routes by an interface have of their own, among those of the family of `like`; `None` if none has one.
pub(crate) fn least_route_mtu(interface: u32, like: IpAddr) -> io::Result<Option<u32>> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(like);
    let answers = ask(RouteNetlinkMessage::GetRoute(message), true)?;
    let mtu = |message: &RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewRoute(m) = message else {
            return None;
        };
        let is_here = m.attributes.iter().any(|a| matches!(a, RouteAttribute::Oif(index) if *index == interface));
        let metrics = m.attributes.iter().find_map(|a| match a {
            RouteAttribute::Metrics(metrics) => Some(metrics),
            _ => None,
        });
        mtu_of(metrics.filter(|_| is_here && m.header.kind == RouteType::Unicast)?)
    };
    Ok(answers.iter().filter_map(mtu).min())
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// The Ethernet address of a neighbour, if the kernel knows it.
pub(crate) fn neighbour(interface: u32, ip: IpAddr) -> io::Result<Option<Mac>> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = interface;
    let destination = match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    let answers = match ask(RouteNetlinkMessage::GetNeighbour(message), false) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        answers => answers?,
    };
    Ok(answers.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewNeighbour(m) if is_usable(m.header.state) => mac_of_neighbour(m),
        _ => None,
    }))
}

/// What was said of a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Neighbour {
    pub(crate) interface: u32,
    pub(crate) address: IpAddr,
    /// Its Ethernet address; none if the kernel would have to ask for it.
    pub(crate) mac: Option<Mac>,
}

/// The neighbour that an announcement of the kernel is about, if it is about one.
pub(crate) fn announced_neighbour(message: &RouteNetlinkMessage) -> Option<Neighbour> {
    let (m, is_there) = match message {
        RouteNetlinkMessage::NewNeighbour(m) => (m, is_usable(m.header.state)),
        RouteNetlinkMessage::DelNeighbour(m) => (m, false),
        _ => return None,
    };
    let address = m.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some((*ip).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some((*ip).into()),
        _ => None,
    })?;
    let mac = if is_there { mac_of_neighbour(m) } else { None };
    Some(Neighbour { interface: m.header.ifindex, address, mac })
}

fn mac_of_neighbour(m: &NeighbourMessage) -> Option<Mac> {
    m.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac_of(bytes),
        _ => None,
    })
}

/// Whether the kernel itself would send to a neighbour in this state without asking first.
fn is_usable(state: NeighbourState) -> bool {
    use NeighbourState::{Delay, Permanent, Probe, Reachable, Stale};
    matches!(state, Reachable | Stale | Delay | Probe | Permanent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_its_loopback() {
        let links = links().unwrap();
        let lo = links.iter().find(|l| l.name == "lo").expect("every machine has one");
        assert!(!lo.is_ethernet && lo.mtu >= 1280);
        assert_eq!(link(lo.index).unwrap(), *lo);
        let localhost: IpAddr = [127, 0, 0, 1].into();
        let route = route(localhost).unwrap();
        assert_eq!((route.kind, route.interface), (RouteKind::Local, lo.index));
        assert!(addresses().unwrap().contains(&(lo.index, localhost)));
        assert_eq!(neighbour(lo.index, [127, 0, 0, 9].into()).unwrap(), None);
    }
}

//! What is scanned: an echo service on the card, or one on the Linux kernel.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Result, anyhow};
use toe_abi::Mac;
use toe_impair::Spec;

use super::Probe;
use crate::cable::Cable;
use crate::net::{GUEST_MAC, GUEST_V4, GUEST_V6, TAP};
use crate::{Bench, BenchOptions, Namespace};

/// The scanner's own Ethernet address and addresses, which nobody else on the wire has.
const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);
const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9));
/// Nobody listens there.
const CLOSED: u16 = 9;

/// See the module's text.
pub struct Target {
    kind: Kind,
    ports: Vec<(IpAddr, u16)>,
}

enum Kind {
    Card(Box<Bench>),
    Linux(Cable),
}

impl Target {
    /// An echo service on the card, without a guest.
    ///
    /// # Errors
    /// If the card does not come up.
    pub fn card() -> Result<Self> {
        let bench = Bench::start(&BenchOptions::default())?;
        let mut ports = Vec::new();
        for ip in [GUEST_V4, GUEST_V6] {
            let listener = bench.listen(ip)?;
            ports.push((ip, listener.local_addr()?.port()));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(stream) = stream else { return };
                    std::thread::spawn(move || echo(stream));
                }
            });
        }
        Ok(Self { kind: Kind::Card(Box::new(bench)), ports })
    }

    /// An echo service on the Linux kernel.
    ///
    /// # Errors
    /// If the network namespaces cannot be made.
    pub fn linux() -> Result<Self> {
        let cable = Cable::new(Spec::default(), 0)?;
        let mac = MAC.0.map(|b| format!("{b:02x}")).join(":");
        let mut ports = Vec::new();
        for (ip, scanner) in [(GUEST_V4, V4), (GUEST_V6, V6)] {
            // The scanner does not speak ARP.
            cable.guest.ip(&["neighbour", "add", &scanner.to_string(), "lladdr", &mac, "dev", TAP])?;
            let listener = cable.guest.enter(|| Ok(TcpListener::bind(SocketAddr::new(ip, 0))?))?;
            ports.push((ip, listener.local_addr()?.port()));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(stream) = stream else { return };
                    std::thread::spawn(move || echo(stream));
                }
            });
        }
        Ok(Self { kind: Kind::Linux(cable), ports })
    }

    /// The addresses where it is to be scanned.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ports.iter().map(|(ip, _)| *ip).collect()
    }

    /// A scanner of the service at that address.
    ///
    /// # Errors
    /// If it cannot be put on the wire.
    pub fn probe(&self, ip: IpAddr) -> Result<Probe> {
        let local = if ip.is_ipv4() { V4 } else { V6 };
        let port = self.ports.iter().find(|(i, _)| *i == ip).map_or(0, |(_, port)| *port);
        self.namespace().enter(|| Probe::new(TAP, (MAC, local), (target_mac()?, ip), (port, CLOSED)))
    }

    /// Where the scanner is.
    fn namespace(&self) -> &Namespace {
        match &self.kind {
            Kind::Card(bench) => &bench.namespace,
            Kind::Linux(cable) => &cable.peer,
        }
    }
}

/// Where the target's stack is.
fn target_mac() -> Result<Mac> {
    let bytes: Vec<u8> = GUEST_MAC.split(':').map(|b| u8::from_str_radix(b, 16)).collect::<Result<_, _>>()?;
    Ok(Mac(bytes.try_into().map_err(|_| anyhow!("{GUEST_MAC} is no Ethernet address"))?))
}

/// Until the stream ends, in either sense.
fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0; 4_096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

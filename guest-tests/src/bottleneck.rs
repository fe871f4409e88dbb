//! One bottleneck for the card and a kernel: both send to a second kernel through the same link of finite rate and
//! finite queue.
//!
//! The namespace of the card's TAP has a bridge, of which the card's TAP is one port and a cable's end the other; the
//! kernel of that namespace sends from the bridge's own address. Whatever either sends leaves through the cable.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use toe_impair::Spec;

use crate::net::TAP;
use crate::{Namespace, cable};

/// The kernel beside the card.
pub const RIVAL_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
/// The receiver of both.
pub const SINK_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 4));
/// The rival's Ethernet address.
const RIVAL_MAC: &str = "52:54:00:00:00:03";
/// The receiver's.
const SINK_MAC: &str = "52:54:00:00:00:04";
/// The cable's end in the card's namespace.
const FAR_TAP: &str = "tap1";
const BRIDGE: &str = "br0";

/// See the module's text. It ends when dropped.
pub struct Bottleneck {
    /// Where [`SINK_V4`] is.
    pub sink: Namespace,
    _cable: cable::Carrier,
}

impl Bottleneck {
    /// Lays one to the namespace of a card's TAP, of the common MTU in bytes.
    ///
    /// # Errors
    /// If `ip` fails or a TAP cannot be opened.
    pub fn new(card: &Namespace, spec: Spec, seed: u64, mtu: u32) -> Result<Self> {
        let sink = Namespace::new()?;
        sink.add_tap(mtu)?;
        sink.ip(&["address", "flush", "dev", TAP])?;
        sink.ip(&["link", "set", TAP, "address", SINK_MAC])?;
        sink.ip(&["address", "add", &format!("{SINK_V4}/24"), "dev", TAP])?;
        card.ip(&["address", "flush", "dev", TAP])?;
        card.ip(&["tuntap", "add", "dev", FAR_TAP, "mode", "tap"])?;
        card.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        card.ip(&["link", "set", BRIDGE, "address", RIVAL_MAC])?;
        for port in [TAP, FAR_TAP] {
            card.ip(&["link", "set", port, "mtu", &mtu.to_string(), "master", BRIDGE, "up"])?;
        }
        card.ip(&["link", "set", BRIDGE, "up"])?;
        card.ip(&["address", "add", &format!("{RIVAL_V4}/24"), "dev", BRIDGE])?;
        let cable = cable::Carrier::between((&sink, TAP), (card, FAR_TAP), spec, seed)?;
        Ok(Self { sink, _cable: cable })
    }
}

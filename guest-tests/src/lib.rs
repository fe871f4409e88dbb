//! Booting real guests on the card, and what must hold when they use it.
//!
//! A [`Lab`] is everything of one test: a network namespace of its own with the card's wire in it
//! ([`Namespace`]), the card's process ([`Card`]), and a guest ([`Guest`]): Debian's unmodified cloud kernel in
//! stock QEMU, or User-Mode Linux. The wire's far end is the host kernel's TCP in that namespace, where the
//! [`peers`] live. The guest is driven through a shell on a console of its own ([`console`]).
//!
//! A [`Bench`] has no guest: the test's own process is the card's frontend, by the guest library's vhost-user transport.
//! It starts within a fraction of a second, and it is no slower than the machine.
//!
//! What bounds it: every wait has a time limit and ends with the condition, not with the clock; every process is
//! ended by the id it was started with when its owner is dropped, also in a panic; nothing is installed and
//! nothing outside the namespace and the `target` and `.cache` directories is changed. One lab runs at a time
//! ([`Lab::boot`] takes a lock), because two guests emulated on two cores only wait for each other.
//!
//! It needs root (namespaces, TAPs), `/dev/net/tun`, and the packages that `scripts/test` installs; what is missing is
//! named, with its package, in one line.

mod accelerator;
pub mod bench;
pub mod bottleneck;
pub mod bytes;
pub mod cable;
mod card;
pub mod console;
pub mod exhaustion;
pub mod faults;
pub mod fuzz;
mod guest;
pub mod host;
mod initramfs;
mod kernel;
mod lab;
pub mod loads;
mod machine;
mod namespace;
pub mod outage;
mod passt;
pub mod peers;
pub mod program;
pub mod rate;
pub mod run;
pub mod scan;
pub mod scenarios;

pub use bench::{Bench, BenchOptions};
pub use card::{Card, CardOptions};
pub use guest::{Guest, Job};
pub use host::Programs;
pub use initramfs::Initramfs;
pub use kernel::Kernel;
pub use lab::{Lab, LabOptions, Nic};
pub use machine::Kind;
pub use namespace::Namespace;

/// Addresses of the one network that a lab has.
pub mod net {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    /// The far end of the wire, IPv4.
    pub const PEER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    /// The far end of the wire, IPv6.
    pub const PEER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
    /// The guest, IPv4. Kernel and card share it.
    pub const GUEST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    /// The guest, IPv6. Kernel and card share it.
    pub const GUEST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));
    /// The guest's Ethernet address.
    pub const GUEST_MAC: &str = "52:54:00:12:34:56";
    /// The TAP's Ethernet address: fixed, so that a card that was started again has the same neighbour.
    pub const PEER_MAC: &str = "52:54:00:00:00:01";
    /// The wire in the namespace.
    pub const TAP: &str = "tap0";
}

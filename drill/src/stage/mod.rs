//! Where a script is played: a stack, its time, its sockets and the wire in front of it.

mod firmware;
mod linux;

use std::io;
use std::net::IpAddr;

pub use firmware::Firmware;
pub use linux::{Linux, Unavailable, in_namespace};

use crate::language::Family;
use crate::sockets::Sockets;

/// A packet that the stack sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sent {
    /// When, in microseconds of the stage's time.
    pub at_us: u64,
    /// IP header first.
    pub bytes: Vec<u8>,
}

/// What a script needs of a stack and its surroundings.
pub trait Stage: Send + Sync {
    /// Its name, as in a script's `# differs:` line.
    fn name(&self) -> &'static str;
    /// How far off a time may be, in microseconds, if nobody says otherwise.
    fn tolerance_us(&self) -> u64;
    /// Its time, in microseconds.
    fn now_us(&self) -> u64;
    /// Lets time pass.
    fn sleep_until(&self, us: u64);
    /// Hands a packet (IP header first) to the stack.
    ///
    /// # Errors
    /// The stage's own.
    fn inject(&self, packet: &[u8]) -> io::Result<()>;
    /// The next packet that the stack sends; nothing if there is none until then. It may be a later one if it is known already.
    fn sniff(&self, until_us: u64) -> Option<Sent>;
    /// The stack's system calls.
    fn sockets(&self) -> Sockets;
    /// A command of the script's, if the stage has a shell; nothing if it has none.
    fn shell(&self, command: &str) -> Option<io::Result<()>>;
}

/// The stack's address.
pub fn local(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, 1]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    }
}

/// The address on the other side of the wire.
pub fn remote(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([192, 0, 2, 2]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2]),
    }
}

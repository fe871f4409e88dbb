//! What the card's other side is plugged into.
//!
//! A wire takes and gives whole frames, each with a virtio-net header, and says "full" or "empty" instead of
//! waiting. What makes it ready again is told by a file descriptor ([`Wire::events`]) or a time
//! ([`Wire::poll_timeout`]).

mod impaired;
mod interface;
mod loopback;
mod none;
mod packet_ring;
mod source;
mod tap;

use std::os::fd::BorrowedFd;
use std::str::FromStr;

pub use impaired::Impaired;
pub use interface::{Interface, InterfaceError};
pub use loopback::Loopback;
pub use none::NoWire;
pub use source::Source;
pub use tap::{Tap, TapError};
use toe_firmware::{Instant, Offload};

use crate::net::Offloads;
use crate::packet::Packet;

/// What became of a packet that was to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Sent {
    /// The wire has it.
    Done,
    /// The wire has no room now; the packet is as it was.
    Full,
    /// Dropped: the wire is down.
    Down,
    /// Dropped: the wire will never take that packet.
    Refused,
}

/// A wire.
pub trait Wire: Send {
    /// Sends `packet`, whose contents mean nothing afterwards unless it is [`Sent::Full`].
    fn send(&mut self, now: Instant, packet: &mut Packet) -> Sent;

    /// Receives into `packet`; `false` if there is nothing. The packet may be longer or shorter than a frame can be.
    fn receive(&mut self, now: Instant, packet: &mut Packet) -> bool;

    /// Says what the receiver of [`receive`](Self::receive)'s packets takes besides plain frames.
    fn set_offloads(&mut self, _offloads: Offloads) {}

    /// Whether virtio-net headers that ask for something can pass at all.
    fn carries_offloads(&self) -> bool {
        true
    }

    /// What it does to the firmware's frames itself.
    fn offload(&self) -> Offload {
        Offload::default()
    }

    /// What becomes readable when there may be packets, and writable when there may be room; none if the wire
    /// changes only by what the card does to it, or with time.
    fn events(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Sends what [`send`](Self::send) has put together until now. Called at the end of every round.
    fn flush(&mut self, _now: Instant) {}

    /// Does what is due at `now`. Called before everything else at that time.
    fn advance(&mut self, _now: Instant) {}

    /// When there will be something due, or a packet to receive, without anybody touching the wire.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What the wire counts itself.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// A wire as it stands on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WireSpec {
    /// `tap:NAME`.
    Tap(String),
    /// `interface:NAME`: one that the host has.
    Interface(String),
    /// `loop`: what is sent comes back.
    Loop,
    /// `none`: nothing is plugged in; what is sent is gone.
    None,
    /// `source:BYTES`: the same frame of that length comes for ever; what is sent is gone.
    Source(usize),
}

/// Why there is no wire.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The TAP.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The interface.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
}

/// Whether an interface can have that name.
fn is_name(name: &str) -> bool {
    (1..=15).contains(&name.len()) && !name.contains(['/', ' ', '%', ':'])
}

impl FromStr for WireSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "loop" => Ok(Self::Loop),
            None if text == "none" => Ok(Self::None),
            Some(("tap", name)) if is_name(name) => Ok(Self::Tap(name.to_owned())),
            Some(("interface", name)) if is_name(name) => Ok(Self::Interface(name.to_owned())),
            Some(("tap" | "interface", _)) => {
                Err("an interface's name has 1 to 15 bytes, without `/`, `%`, `:` and spaces".to_owned())
            }
            Some(("source", bytes)) => match bytes.parse() {
                Ok(bytes) if Source::SIZES.contains(&bytes) => Ok(Self::Source(bytes)),
                _ => Err(format!("a frame of a source has {} to {} bytes", Source::SIZES.start(), Source::SIZES.end())),
            },
            _ => Err("a wire is `tap:NAME`, `interface:NAME`, `loop`, `none` or `source:BYTES`".to_owned()),
        }
    }
}

impl std::fmt::Display for WireSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tap(name) => write!(f, "tap:{name}"),
            Self::Interface(name) => write!(f, "interface:{name}"),
            Self::Loop => f.write_str("loop"),
            Self::None => f.write_str("none"),
            Self::Source(bytes) => write!(f, "source:{bytes}"),
        }
    }
}

impl WireSpec {
    /// Plugs it in.
    ///
    /// # Errors
    /// A TAP or an interface that cannot be had.
    pub fn open(&self) -> Result<Box<dyn Wire>, WireError> {
        Ok(match self {
            Self::Tap(name) => Box::new(Tap::open(name)?),
            Self::Interface(name) => Box::new(Interface::open(name)?),
            Self::Loop => Box::new(Loopback::default()),
            Self::None => Box::new(NoWire),
            Self::Source(bytes) => Box::new(Source::new(*bytes)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_is_read_as_it_is_written() {
        for text in ["tap:toe0", "interface:eth0", "loop", "none", "source:60"] {
            assert_eq!(text.parse::<WireSpec>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "tap",
            "tap:",
            "tap:0123456789abcdef",
            "tap:a/b",
            "interface",
            "interface:",
            "interface:0123456789abcdef",
            "eth0",
            "loop:1",
            "source",
            "source:13",
            "source:65550",
        ] {
            text.parse::<WireSpec>().unwrap_err();
        }
    }
}

//! The words that pass between a guest and the card.
//!
//! A guest talks to the card in Ethernet frames of EtherType [`ETHERTYPE`]. Behind the Ethernet header
//! stands one [`FrameHeader`] and then any number of [`Message`]s, each padded to eight bytes, everything
//! little-endian. `docs/interface.md` is the same in prose, complete enough to write a driver from.
//!
//! What makes the channel safe to lose, repeat and reorder frames on:
//!
//! * positions in a stream are absolute 64-bit offsets, never deltas ([`Send`], [`Received`]);
//! * what an object *is* is told as a set of bits that only ever grows ([`state`]), repeated until acknowledged;
//! * requests carry a cookie and are idempotent; ids carry a generation, frames the card's epoch.
//!
//! This crate parses and writes these words and knows nothing of who uses them. Parsing is total: any bytes
//! give a message or a [`ParseError`], never a panic.

#![forbid(unsafe_code)]

mod codec;
mod entry;
mod frame;
mod message;
mod reason;

#[cfg(test)]
mod tests;

pub use codec::{Endpoint, Mac};
pub use entry::{
    EntryWriter, LIMIT_REASONS_MAX, LimitEntry, SocketEntry, StatEntry, limit_entries, socket_entries, socket_timer,
    stat_entries,
};
pub use frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, Messages, ParseError, Parsed, Writer};
pub use message::*;
pub use reason::{Action, Reason};

/// The EtherType of the channel: IEEE 802 "local experimental Ethertype 1". Such a frame never reaches the wire.
pub const ETHERTYPE: u16 = 0x88b5;

/// The version of the channel that this crate writes.
pub const VERSION: u16 = 1;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_HEADER_BYTES: usize = 14;

/// The longest channel frame, Ethernet header included: the largest MTU and its header.
pub const FRAME_BYTES_MAX: usize = 65_535 + ETHERNET_HEADER_BYTES;

/// Where a guest sends its channel frames: a locally administered unicast address that names no station.
pub const CARD_MAC: Mac = Mac([0x02, 0x54, 0x4f, 0x45, 0x88, 0xb5]);

//! A channel frame: Ethernet header, [`FrameHeader`], messages.
//!
//! The frame header says whom the messages are of (context and key) and which boot of the firmware they speak
//! to (epoch). Its `bytes` counts the messages alone, so that the padding of short Ethernet frames is harmless.
//! A frame without messages is a sign of life and nothing else.

use crate::codec::{Layout, layout, padded};
use crate::message::{MESSAGE_HEADER_BYTES, Message};
use crate::{ETHERNET_HEADER_BYTES, ETHERTYPE, Mac, VERSION};

layout! {
    /// What stands in front of the messages of a frame.
    FrameHeader {
        /// [`VERSION`] of whoever wrote the frame.
        version: u16,
        /// Zero; ignored by the reader.
        reserved: u16,
        /// Bytes of all messages, each with its padding.
        bytes: u32,
        /// The context the frame belongs to; zero while the guest does not know it (in a frame with a HELLO).
        context: u64,
        /// The firmware's epoch as CAPS told it; zero in a frame with a HELLO.
        epoch: u32,
        /// Zero; ignored by the reader.
        reserved_2: u32,
        /// The context's key, chosen by the guest at random. In both directions, so that a guest can filter on it.
        key: u128,
    }
}

/// Bytes of a [`FrameHeader`].
pub const FRAME_HEADER_BYTES: usize = <FrameHeader as Layout>::BYTES;

const ALL_HEADERS_BYTES: usize = ETHERNET_HEADER_BYTES + FRAME_HEADER_BYTES;

/// Why a frame is no channel frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// Shorter than its headers.
    Truncated,
    /// Of another EtherType.
    NotChannel,
    /// Of another version of the channel.
    Version(u16),
    /// `bytes` is larger than the frame.
    Length,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => write!(f, "shorter than its headers"),
            Self::NotChannel => write!(f, "not of EtherType {ETHERTYPE:#06x}"),
            Self::Version(v) => write!(f, "of channel version {v}, this end speaks {VERSION}"),
            Self::Length => write!(f, "length field beyond the frame's end"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Why a message could not be read. The messages behind it are lost with it only if its length is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// Length below a message's header or beyond the frame; reading stops.
    Length {
        /// The type, as far as it could be read.
        kind: u16,
    },
    /// Shorter than a message of its type is; the next can be read.
    Short {
        /// The message's type.
        kind: u16,
    },
    /// Of no known type; the next can be read.
    Unknown {
        /// The message's type.
        kind: u16,
    },
    /// A field has no possible value; the next can be read.
    Value {
        /// The message's type.
        kind: u16,
    },
}

impl ParseError {
    /// The type of the message that could not be read.
    pub fn kind(self) -> u16 {
        match self {
            Self::Length { kind } | Self::Short { kind } | Self::Unknown { kind } | Self::Value { kind } => kind,
        }
    }
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length { kind } => write!(f, "message {kind:#06x}: impossible length"),
            Self::Short { kind } => write!(f, "message {kind:#06x}: shorter than its fields"),
            Self::Unknown { kind } => write!(f, "message {kind:#06x}: no such type"),
            Self::Value { kind } => write!(f, "message {kind:#06x}: impossible value"),
        }
    }
}

impl std::error::Error for ParseError {}

/// A frame whose headers were read.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    /// The Ethernet source address.
    pub source: Mac,
    /// The Ethernet destination address.
    pub destination: Mac,
    /// The header.
    pub header: FrameHeader,
    /// What follows it.
    pub messages: Messages<'a>,
}

impl<'a> Parsed<'a> {
    /// Reads the headers of `frame`, which begins with its Ethernet header.
    ///
    /// # Errors
    /// Whatever makes the whole frame unreadable, see [`FrameError`].
    pub fn new(frame: &'a [u8]) -> Result<Self, FrameError> {
        if frame.len() < ETHERNET_HEADER_BYTES {
            return Err(FrameError::Truncated);
        }
        if frame[12..14] != ETHERTYPE.to_be_bytes() {
            return Err(FrameError::NotChannel);
        }
        if frame.len() < ALL_HEADERS_BYTES {
            return Err(FrameError::Truncated);
        }
        let mac = |at: usize| {
            let mut bytes = [0; 6];
            bytes.copy_from_slice(&frame[at..at + 6]);
            Mac(bytes)
        };
        let header = FrameHeader::get(&frame[ETHERNET_HEADER_BYTES..]);
        if header.version != VERSION {
            return Err(FrameError::Version(header.version));
        }
        let rest = &frame[ALL_HEADERS_BYTES..];
        let bytes = usize::try_from(header.bytes).map_err(|_| FrameError::Length)?;
        let rest = rest.get(..bytes).ok_or(FrameError::Length)?;
        Ok(Self { source: mac(6), destination: mac(0), header, messages: Messages { rest } })
    }
}

/// The messages of a frame, one after the other.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        if rest.len() < MESSAGE_HEADER_BYTES {
            return Some(Err(ParseError::Length { kind: 0 }));
        }
        let kind = u16::from_le_bytes([rest[0], rest[1]]);
        let length = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        if length < MESSAGE_HEADER_BYTES || length > rest.len() {
            return Some(Err(ParseError::Length { kind }));
        }
        // The last message's padding may be cut off.
        self.rest = &rest[padded(length).min(rest.len())..];
        Some(Message::parse(kind, &rest[MESSAGE_HEADER_BYTES..length]))
    }
}

/// Writes one frame into a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    used: usize,
    header: FrameHeader,
}

impl<'a> Writer<'a> {
    /// A frame without messages from `source` to `destination`; `None` if `buffer` is too small for the headers.
    /// The buffer's length bounds the frame.
    pub fn new(
        buffer: &'a mut [u8],
        source: Mac,
        destination: Mac,
        context: u64,
        epoch: u32,
        key: u128,
    ) -> Option<Self> {
        if buffer.len() < ALL_HEADERS_BYTES {
            return None;
        }
        buffer[..6].copy_from_slice(&destination.0);
        buffer[6..12].copy_from_slice(&source.0);
        buffer[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        let header = FrameHeader { version: VERSION, reserved: 0, bytes: 0, context, epoch, reserved_2: 0, key };
        Some(Self { buffer, used: ALL_HEADERS_BYTES, header })
    }

    /// Appends a message; `false`, with nothing written, if it does not fit.
    #[must_use]
    pub fn push(&mut self, message: &Message<'_>) -> bool {
        self.push_with(message, 0, |_| ())
    }

    /// Appends a message followed by `tail_bytes` of a tail that `fill` writes in place; `false`, with nothing
    /// written and `fill` not called, if it does not fit. For [`Message::Send`] and [`Message::Received`], whose
    /// data then need not be copied into a message first.
    #[must_use]
    pub fn push_with(&mut self, message: &Message<'_>, tail_bytes: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let fixed = message.bytes();
        let length = fixed + tail_bytes;
        let end = self.used + padded(length);
        if end > self.buffer.len() {
            return false;
        }
        let room = &mut self.buffer[self.used..end];
        room[..fixed].fill(0);
        room[length..].fill(0);
        message.put(&mut room[..fixed], length);
        fill(&mut room[fixed..length]);
        self.used = end;
        true
    }

    /// Appends a message whose tail is entries, as many as `fill` finds room for in `room` bytes; `false`, with nothing
    /// written, if not even the fixed part fits.
    #[must_use]
    pub fn push_entries(
        &mut self,
        message: &Message<'_>,
        room: usize,
        fill: impl FnOnce(&mut crate::EntryWriter<'_>),
    ) -> bool {
        let fixed = message.bytes();
        let end = self.used + fixed + room;
        if end > self.buffer.len() {
            return false;
        }
        let area = &mut self.buffer[self.used..end];
        let mut entries = crate::EntryWriter::new(&mut area[fixed..]);
        fill(&mut entries);
        let length = fixed + entries.finish();
        area[..fixed].fill(0);
        message.put(&mut area[..fixed], length);
        self.used += padded(length);
        true
    }

    /// The most data bytes that a message with a tail and `fixed_bytes` of fixed part could still carry.
    pub fn room(&self, message: &Message<'_>) -> usize {
        // Whole eights, so that the padding fits as well.
        ((self.buffer.len() - self.used) & !7).saturating_sub(message.bytes())
    }

    /// The same of a frame as long as this one that carries nothing else.
    pub fn room_alone(&self, message: &Message<'_>) -> usize {
        ((self.buffer.len() - ALL_HEADERS_BYTES) & !7).saturating_sub(message.bytes())
    }

    /// Whether no message was written yet.
    pub fn is_empty(&self) -> bool {
        self.used == ALL_HEADERS_BYTES
    }

    /// Completes the header; gives the frame's length.
    pub fn finish(mut self) -> usize {
        self.header.bytes = (self.used - ALL_HEADERS_BYTES) as u32;
        self.buffer[ETHERNET_HEADER_BYTES..ALL_HEADERS_BYTES].fill(0);
        self.header.put(&mut self.buffer[ETHERNET_HEADER_BYTES..]);
        self.used
    }
}

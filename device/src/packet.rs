//! One frame on its way through the card, with the header that virtio-net and the TAP put in front of it.
//!
//! A packet owns room for the longest frame there is, so that it can be filled again and again without an
//! allocation. Header and frame lie next to each other, as rings and TAP want them.

use toe_abi::FRAME_BYTES_MAX;

use crate::net::Header;

/// Bytes of the virtio-net header in front of each frame (with `num_buffers`).
pub const HEADER_BYTES: usize = 12;

/// The most bytes of a packet: the header and the longest frame.
pub const PACKET_BYTES_MAX: usize = HEADER_BYTES + FRAME_BYTES_MAX;

/// A little more than the longest packet, so that reading one that is too long shows.
const CAPACITY: usize = PACKET_BYTES_MAX.next_multiple_of(64);

/// Room for one frame and its header.
#[derive(Clone)]
pub struct Packet {
    buffer: Box<[u8]>,
    bytes: usize,
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packet").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Default for Packet {
    fn default() -> Self {
        Self { buffer: vec![0; CAPACITY].into_boxed_slice(), bytes: HEADER_BYTES }
    }
}

impl Packet {
    /// The virtio-net header.
    pub fn header(&self) -> Header {
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&self.buffer[..HEADER_BYTES]);
        Header(header)
    }

    /// Replaces the header.
    pub fn set_header(&mut self, header: Header) {
        self.buffer[..HEADER_BYTES].copy_from_slice(&header.0);
    }

    /// The frame, Ethernet header first.
    pub fn frame(&self) -> &[u8] {
        &self.buffer[HEADER_BYTES..self.bytes]
    }

    /// The frame, to be changed.
    pub fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[HEADER_BYTES..self.bytes]
    }

    /// Becomes what another is.
    pub fn copy_from(&mut self, other: &Self) {
        self.buffer[..other.bytes].copy_from_slice(other.bytes());
        self.bytes = other.bytes;
    }

    /// Header and frame.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.bytes]
    }

    /// Whether the frame is longer than a frame can be.
    pub fn is_too_long(&self) -> bool {
        self.bytes > PACKET_BYTES_MAX
    }

    /// Everything, to write header and frame into; [`set_bytes`](Self::set_bytes) follows.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Says how much of [`room`](Self::room) was filled. At least a header.
    pub fn set_bytes(&mut self, bytes: usize) {
        assert!((HEADER_BYTES..=CAPACITY).contains(&bytes), "a packet of {bytes} bytes");
        self.bytes = bytes;
    }

    /// Room for the longest frame; [`set_frame_bytes`](Self::set_frame_bytes) follows.
    pub fn frame_room(&mut self) -> &mut [u8] {
        &mut self.buffer[HEADER_BYTES..PACKET_BYTES_MAX]
    }

    /// Says how long the frame in [`frame_room`](Self::frame_room) is. Its header asks for nothing.
    pub fn set_frame_bytes(&mut self, bytes: usize) {
        self.buffer[..HEADER_BYTES].fill(0);
        self.set_bytes(HEADER_BYTES + bytes);
    }

    /// A packet with that frame and a header that asks for nothing.
    ///
    /// # Panics
    /// If the frame is longer than [`FRAME_BYTES_MAX`].
    pub fn from_frame(frame: &[u8]) -> Self {
        let mut packet = Self::default();
        packet.frame_room()[..frame.len()].copy_from_slice(frame);
        packet.set_frame_bytes(frame.len());
        packet
    }
}

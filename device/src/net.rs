//! virtio-net: the features that the card offers, what a driver made of them, and the header of each frame
//! (Virtual I/O Device 1.2, section 5.1).
//!
//! A driver without VERSION_1 (a legacy one) is served as well. Without MRG_RXBUF its header has ten bytes instead
//! of twelve; [`Features::header_bytes`] is the one place that knows.

use toe_firmware::{Checksum, Rest};
use vhost::vhost_user::VhostUserVirtioFeatures;
use virtio_bindings::bindings::virtio_config::{VIRTIO_F_ANY_LAYOUT, VIRTIO_F_VERSION_1};
use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::packet::HEADER_BYTES;

/// The largest MTU, in bytes; what the configuration space says.
pub const MTU_MAX: u16 = 65_535;

/// Bytes of the configuration space that can be read: `struct virtio_net_config` and zeros.
const CONFIG_BYTES: usize = 64;

/// A set of virtio features.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Features(pub u64);

impl Features {
    /// What the card offers with `queue_pairs` pairs over a wire that carries offload headers or does not.
    ///
    /// MQ is offered only with more than one pair: a driver that knows no control queue (User-Mode Linux's, whose
    /// frontend has none) refuses a device that has MQ without one.
    pub fn offered(queue_pairs: u16, offloads: bool) -> Self {
        let mut bits = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        let mut add = |all: &[u32]| all.iter().for_each(|bit| bits |= 1 << bit);
        add(&[VIRTIO_F_VERSION_1, VIRTIO_F_ANY_LAYOUT, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC]);
        add(&[VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU]);
        if queue_pairs > 1 {
            add(&[VIRTIO_NET_F_MQ]);
        }
        if offloads {
            add(&[VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_ECN]);
            add(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN]);
        }
        Self(bits)
    }

    fn has(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }

    /// Whether buffers may be merged to hold a frame.
    pub fn mergeable(self) -> bool {
        self.has(VIRTIO_NET_F_MRG_RXBUF)
    }

    /// Whether a descriptor may refer to a table of descriptors.
    pub fn indirect(self) -> bool {
        self.has(VIRTIO_RING_F_INDIRECT_DESC)
    }

    /// Bytes of the header in front of each frame in a ring.
    pub fn header_bytes(self) -> usize {
        if self.has(VIRTIO_F_VERSION_1) || self.mergeable() { HEADER_BYTES } else { HEADER_BYTES - 2 }
    }

    /// What the guest takes besides plain frames.
    pub fn guest_offloads(self) -> Offloads {
        let checksum = self.has(VIRTIO_NET_F_GUEST_CSUM);
        Offloads {
            checksum,
            tso4: checksum && self.has(VIRTIO_NET_F_GUEST_TSO4),
            tso6: checksum && self.has(VIRTIO_NET_F_GUEST_TSO6),
            ecn: checksum && self.has(VIRTIO_NET_F_GUEST_ECN),
        }
    }
}

/// What a receiver takes besides plain, complete frames.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Offloads {
    /// Frames whose TCP or UDP checksum is not filled in.
    pub checksum: bool,
    /// Merged TCP segments over IPv4.
    pub tso4: bool,
    /// Merged TCP segments over IPv6.
    pub tso6: bool,
    /// Merged TCP segments with ECN's CWR.
    pub ecn: bool,
}

/// A `struct virtio_net_hdr_v1`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Header(pub [u8; HEADER_BYTES]);

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;
/// Where the checksum stands in a TCP header.
const CHECKSUM_AT: u16 = 16;

impl Header {
    /// What it says of the checksum.
    pub fn checksum(self) -> Checksum {
        if self.0[0] & (NEEDS_CSUM | DATA_VALID) != 0 { Checksum::Trusted } else { Checksum::Unverified }
    }

    /// Where the checksum begins that is not finished, and how far behind that it stands, in bytes; `None` if it is
    /// finished.
    pub fn unfinished_checksum(self) -> Option<(usize, usize)> {
        let word = |at: usize| usize::from(u16::from_le_bytes([self.0[at], self.0[at + 1]]));
        (self.0[0] & NEEDS_CSUM != 0).then(|| (word(6), word(8)))
    }

    /// Whether the frame is several segments merged.
    pub fn is_merged(self) -> bool {
        self.0[1] & !GSO_ECN != GSO_NONE
    }

    /// The header as a receiver that takes `offloads` may see it; `None` if it may not see that frame at all.
    pub fn for_receiver(mut self, offloads: Offloads) -> Option<Self> {
        if !offloads.checksum {
            if self.0[0] & NEEDS_CSUM != 0 {
                return None;
            }
            self.0[0] = 0;
        }
        let taken = match self.0[1] & !GSO_ECN {
            GSO_NONE => true,
            GSO_TCPV4 => offloads.tso4,
            GSO_TCPV6 => offloads.tso6,
            _ => false,
        };
        (taken && (self.0[1] & GSO_ECN == 0 || offloads.ecn)).then_some(self)
    }

    /// What tells a wire to cut a frame of the firmware, and to complete its checksums.
    pub fn for_wire(rest: Rest) -> Self {
        let Rest { tcp_at, text_at, v6, segment_bytes } = rest;
        let mut header = [0; HEADER_BYTES];
        header[0] = NEEDS_CSUM;
        header[1] = if v6 { GSO_TCPV6 } else { GSO_TCPV4 };
        for (at, field) in [(2, text_at), (4, segment_bytes), (6, tcp_at), (8, CHECKSUM_AT)] {
            header[at..at + 2].copy_from_slice(&field.to_le_bytes());
        }
        Self(header)
    }

    /// With `num_buffers`, the last field.
    pub fn with_buffers(mut self, buffers: u16) -> Self {
        self.0[HEADER_BYTES - 2..].copy_from_slice(&buffers.to_le_bytes());
        self
    }
}

/// The configuration space from `offset` on, `bytes` long; empty if that is not inside.
///
/// There is no MAC in it: who makes the device (QEMU's command line, the guest's kernel) chooses it.
pub fn config(queue_pairs: u16, offset: u32, bytes: u32) -> Vec<u8> {
    let mut space = [0; CONFIG_BYTES];
    space[8..10].copy_from_slice(&queue_pairs.to_le_bytes());
    space[10..12].copy_from_slice(&MTU_MAX.to_le_bytes());
    let (offset, bytes) = (offset as usize, bytes as usize);
    offset.checked_add(bytes).and_then(|end| space.get(offset..end)).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offloads = Offloads { checksum: true, tso4: true, tso6: true, ecn: true };

    fn header(flags: u8, gso: u8) -> Header {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&[flags, gso]);
        Header(bytes)
    }

    #[test]
    fn a_header_has_ten_bytes_only_for_a_legacy_driver_without_merging() {
        let f = |bits: &[u32]| Features(bits.iter().map(|b| 1 << b).sum());
        assert_eq!(f(&[]).header_bytes(), 10);
        assert_eq!(f(&[VIRTIO_NET_F_MRG_RXBUF]).header_bytes(), 12);
        assert_eq!(f(&[VIRTIO_F_VERSION_1]).header_bytes(), 12);
    }

    #[test]
    fn mq_is_offered_with_several_pairs_and_offloads_with_a_wire_that_has_them() {
        assert!(!Features::offered(1, true).has(VIRTIO_NET_F_MQ));
        assert!(Features::offered(2, true).has(VIRTIO_NET_F_MQ));
        assert!(!Features::offered(2, false).has(VIRTIO_NET_F_CSUM));
        assert_eq!(Features::offered(2, true).guest_offloads(), ALL);
    }

    #[test]
    fn a_receiver_sees_only_what_it_agreed_to() {
        let none = Offloads::default();
        assert_eq!(header(NEEDS_CSUM, 0).for_receiver(none), None);
        assert_eq!(header(DATA_VALID, 0).for_receiver(none), Some(header(0, 0)));
        assert_eq!(header(NEEDS_CSUM, GSO_TCPV4).for_receiver(ALL), Some(header(NEEDS_CSUM, GSO_TCPV4)));
        assert_eq!(header(NEEDS_CSUM, GSO_TCPV6).for_receiver(Offloads { tso6: false, ..ALL }), None);
        assert_eq!(header(NEEDS_CSUM, GSO_TCPV4 | GSO_ECN).for_receiver(Offloads { ecn: false, ..ALL }), None);
        assert_eq!(header(NEEDS_CSUM, 3).for_receiver(ALL), None, "UFO is not offered");
    }

    #[test]
    fn a_wire_is_told_where_the_checksum_stands_and_how_to_cut() {
        // struct virtio_net_hdr_v1 (virtio 1.2, 5.1.6): flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
        let rest = Rest { tcp_at: 34, text_at: 66, v6: false, segment_bytes: 1448 };
        let whole = Header::for_wire(rest);
        assert_eq!(whole.0, [NEEDS_CSUM, GSO_TCPV4, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
        assert_eq!(Header::for_wire(Rest { v6: true, ..rest }).0[1], GSO_TCPV6);
        assert_eq!(whole.for_receiver(ALL), Some(whole));
    }

    #[test]
    fn the_checksum_is_trusted_if_the_header_says_so() {
        assert_eq!(header(0, 0).checksum(), Checksum::Unverified);
        assert_eq!(header(NEEDS_CSUM, 0).checksum(), Checksum::Trusted);
        assert_eq!(header(DATA_VALID, 0).checksum(), Checksum::Trusted);
    }

    #[test]
    fn the_configuration_space_can_be_read_byte_by_byte() {
        let whole = config(4, 0, 64);
        assert_eq!(&whole[..12], [0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0xff, 0xff]);
        for (i, byte) in whole.iter().enumerate() {
            assert_eq!(config(4, i as u32, 1), [*byte]);
        }
        assert_eq!(config(4, 60, 5), [0u8; 0]);
        assert_eq!(config(4, u32::MAX, u32::MAX), [0u8; 0]);
    }
}

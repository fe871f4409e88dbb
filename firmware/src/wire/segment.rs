//! TCP segments (RFC 9293, 3.1).

use std::net::IpAddr;

use super::checksum::Sum;
use super::options::{OPTION_BYTES_MAX, Options};
use crate::seq::Seq;
use crate::work::Steps;

/// Bytes of a TCP header without options.
pub const TCP_HEADER_BYTES: usize = 20;

/// The control bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Self = Self(0x10);
    /// ECN-Echo (RFC 3168, 6.1).
    pub const ECE: Self = Self(0x40);
    /// Congestion Window Reduced (RFC 3168, 6.1).
    pub const CWR: Self = Self(0x80);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x20);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether at least one bit of `other` is set.
    pub fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why bytes are no segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Shorter than a header.
    Truncated,
    /// The data offset is below five or beyond the segment's end.
    DataOffset,
}

/// A segment; its text is not copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK; means nothing without ACK.
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND, unscaled.
    pub window: u16,
    /// SEG.UP as it stands: octets from SEG.SEQ to the end of the urgent data; means nothing without URG.
    pub urgent: u16,
    /// Options.
    pub options: Options,
    /// Whether the options were read to their end: no length among them was illegal.
    pub options_legal: bool,
    /// The text.
    pub text: &'a [u8],
    /// Its packet was marked: congestion experienced. Whoever has the packet says so.
    pub marked: bool,
}

impl<'a> Segment<'a> {
    /// Reads a segment; its checksum is looked at by [`checksum_is_right`].
    ///
    /// # Errors
    /// See [`Malformed`].
    #[inline(always)]
    pub fn parse(b: &'a [u8], steps: &Steps) -> Result<Self, Malformed> {
        let fixed = b.first_chunk::<TCP_HEADER_BYTES>().ok_or(Malformed::Truncated)?;
        let offset = usize::from(fixed[12] >> 4) * 4;
        if offset < TCP_HEADER_BYTES || offset > b.len() {
            return Err(Malformed::DataOffset);
        }
        let (options, options_legal) = Options::parse(&b[TCP_HEADER_BYTES..offset], steps);
        let be16 = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let be32 = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        Ok(Self {
            source_port: be16(0),
            destination_port: be16(2),
            seq: Seq(be32(4)),
            ack: Seq(be32(8)),
            flags: Flags(fixed[13]),
            window: be16(14),
            urgent: be16(18),
            options,
            options_legal,
            text: &b[offset..],
            marked: false,
        })
    }

    /// SEG.LEN: the octets of sequence space it takes, SYN and FIN counted.
    pub fn sequence_length(&self) -> u32 {
        self.text.len() as u32 + u32::from(self.flags.has(Flags::SYN)) + u32::from(self.flags.has(Flags::FIN))
    }
}

/// The two ports of what may be a segment, without looking at the rest.
pub fn ports(b: &[u8]) -> Option<(u16, u16)> {
    let b = b.first_chunk::<4>()?;
    Some((u16::from_be_bytes([b[0], b[1]]), u16::from_be_bytes([b[2], b[3]])))
}

/// Whether the checksum of a segment is right (MUST-3).
//= docs/specs/rfc9293.txt#section-3.1
//# the receiver MUST check it (MUST-3).
pub fn checksum_is_right(source: IpAddr, destination: IpAddr, tcp: &[u8]) -> bool {
    Sum::default().pseudo_header(source, destination, tcp.len()).bytes(tcp).is_right()
}

/// Who completes the checksum of a segment to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completes {
    /// The card.
    Card,
    /// The wire: the field has the sum of the pseudo-header, to which the wire adds the rest.
    Wire,
}

/// The header of a segment to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK.
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND, scaled.
    pub window: u16,
    /// The urgent pointer, relative to `seq`; `None` without URG. Adds that flag.
    pub urgent: Option<u16>,
    /// Options.
    pub options: Options,
}

impl Header {
    /// Writes it in front of `text_bytes` of text that `fill` writes, with its checksum (MUST-2), if `completes` has not left
    /// that to the wire. Gives the segment's length. `b` must have room for 60 bytes and the text.
    pub fn write(
        &self,
        b: &mut [u8],
        source: IpAddr,
        destination: IpAddr,
        text_bytes: usize,
        completes: Completes,
        fill: impl FnOnce(&mut [u8]),
    ) -> usize {
        let mut options = [0; OPTION_BYTES_MAX];
        let option_bytes = self.options.write(&mut options);
        let offset = TCP_HEADER_BYTES + option_bytes;
        let length = offset + text_bytes;
        let b = &mut b[..length];
        b[0..2].copy_from_slice(&self.source_port.to_be_bytes());
        b[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        b[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        b[8..12].copy_from_slice(&self.ack.0.to_be_bytes());
        b[12] = (offset as u8 / 4) << 4;
        b[13] = self.flags.0 | if self.urgent.is_some() { Flags::URG.0 } else { 0 };
        b[14..16].copy_from_slice(&self.window.to_be_bytes());
        b[16..18].fill(0);
        b[18..20].copy_from_slice(&self.urgent.unwrap_or(0).to_be_bytes());
        b[TCP_HEADER_BYTES..offset].copy_from_slice(&options[..option_bytes]);
        fill(&mut b[offset..]);
        //= docs/specs/rfc9293.txt#section-3.1
        //# The sender MUST generate it (MUST-2)
        let pseudo = Sum::default().pseudo_header(source, destination, length);
        let sum = match completes {
            Completes::Card => pseudo.bytes(b).finish(),
            Completes::Wire => !pseudo.finish(),
        };
        b[16..18].copy_from_slice(&sum.to_be_bytes());
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            source_port: 1,
            destination_port: 2,
            seq: Seq(3),
            ack: Seq(4),
            flags: Flags::ACK | Flags::PSH,
            window: 5,
            urgent: Some(7),
            options: Options { mss: Some(6), ..Options::default() },
        }
    }

    //= docs/specs/rfc9293.txt#section-3.1
    //= type=test
    //# The sender MUST generate it (MUST-2)
    //= docs/specs/rfc9293.txt#section-3.1
    //= type=test
    //# the receiver MUST check it (MUST-3).
    #[test]
    fn what_is_written_is_read() {
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut buffer = [0xff; 100];
        let n = header().write(&mut buffer, a, b, 3, Completes::Card, |t| t.copy_from_slice(b"abc"));
        let tcp = &mut buffer[..n];
        assert!(checksum_is_right(a, b, tcp));
        let s = Segment::parse(tcp, &Steps::default()).unwrap();
        assert_eq!((s.source_port, s.destination_port, s.seq, s.ack, s.window), (1, 2, Seq(3), Seq(4), 5));
        assert_eq!((s.flags, s.urgent, s.options.mss, s.text), (Flags(0x38), 7, Some(6), &b"abc"[..]));
        assert_eq!(s.sequence_length(), 3);
        tcp[20] ^= 1;
        assert!(!checksum_is_right(a, b, tcp));
    }

    #[test]
    fn a_wire_completes_the_checksum_from_what_the_field_has() {
        for (a, b) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            let mut buffer = [0xff; 100];
            let n = header().write(&mut buffer, a, b, 3, Completes::Wire, |t| t.copy_from_slice(b"abc"));
            let tcp = &mut buffer[..n];
            assert!(!checksum_is_right(a, b, tcp));
            // virtio, 5.1.6.2: the sum of all from the header on, the field included, goes into the field.
            let sum = Sum::default().bytes(tcp).finish();
            tcp[16..18].copy_from_slice(&sum.to_be_bytes());
            assert!(checksum_is_right(a, b, tcp));
        }
    }

    #[test]
    fn lengths_that_cannot_be() {
        let mut b = [0; 24];
        assert_eq!(Segment::parse(&b[..19], &Steps::default()), Err(Malformed::Truncated));
        for offset in 0..5 {
            b[12] = offset << 4;
            assert_eq!(Segment::parse(&b, &Steps::default()), Err(Malformed::DataOffset));
        }
        b[12] = 7 << 4;
        assert_eq!(Segment::parse(&b, &Steps::default()), Err(Malformed::DataOffset));
        b[12] = 6 << 4;
        assert!(Segment::parse(&b, &Steps::default()).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(b in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(s) = Segment::parse(&b, &Steps::default()) {
                prop_assert!(s.text.len() + TCP_HEADER_BYTES <= b.len());
            }
        }
    }
}

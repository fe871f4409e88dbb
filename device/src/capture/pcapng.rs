//! What is seen, as pcapng: one section, the card's points as its interfaces, an enhanced packet block for each frame.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};

use crate::capture::{Direction, Point, Seen};

/// Times are in units of ten to the power of minus this, in seconds.
const NANOSECONDS: u8 = 9;

/// Makes blocks of frames.
pub struct Encoder {
    writer: PcapNgWriter<Vec<u8>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// With the headers of a capture in which frames are cut after `snaplen` bytes.
    ///
    /// # Errors
    /// None that is known: the text goes into memory.
    pub fn new(snaplen: usize) -> Result<Self, PcapError> {
        let application = concat!("toe-nic ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(application.into())],
            ..Default::default()
        };
        let mut writer = PcapNgWriter::with_section_header(Vec::new(), section)?;
        for point in Point::ALL {
            let description = match point {
                Point::Wire => "what the card is plugged into",
                Point::Guest => "what the guest's kernel sends and gets",
                Point::Channel => "what the guest's programs and the card say to each other",
            };
            writer.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: u32::try_from(snaplen).unwrap_or(u32::MAX),
                options: vec![
                    InterfaceDescriptionOption::IfName(point.as_str().into()),
                    InterfaceDescriptionOption::IfDescription(description.into()),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            })?;
        }
        Ok(Self { writer })
    }

    /// One more frame.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn add(&mut self, seen: &Seen) -> Result<(), PcapError> {
        // The two lowest bits of epb_flags: 1 inbound, 2 outbound.
        let direction = match seen.direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        let mut options = vec![EnhancedPacketOption::Flags(direction)];
        options.extend(seen.comment.as_deref().map(|text| EnhancedPacketOption::Comment(text.into())));
        if seen.lost > 0 {
            options.push(EnhancedPacketOption::DropCount(seen.lost));
        }
        let point = Point::ALL.iter().position(|point| *point == seen.point).unwrap_or_default();
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id: point as u32,
            timestamp: seen.time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO),
            original_len: seen.frame_bytes as u32,
            data: Cow::Borrowed(&seen.data),
            options,
        })?;
        Ok(())
    }

    /// How much is written and was not taken yet.
    pub fn bytes(&self) -> usize {
        self.writer.get_ref().len()
    }

    /// What is written and was not taken yet: whole blocks.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }
}

/// Cuts a stream of pcapng into whole blocks: a capture that ends at any moment still ends with one.
#[derive(Default, Debug)]
pub struct Blocks {
    rest: Vec<u8>,
    packets: u64,
}

/// The type of enhanced packet blocks.
const ENHANCED_PACKET: u32 = 6;

impl Blocks {
    /// What is whole with this part of the stream. It is as long as blocks are: an [`Encoder`] writes in this byte order.
    ///
    /// # Errors
    /// A block shorter than its own header: this is no pcapng.
    pub fn whole(&mut self, part: &[u8]) -> Result<Vec<u8>, PcapError> {
        self.rest.extend_from_slice(part);
        let mut end = 0;
        while let Some(header) = self.rest[end..].first_chunk::<8>() {
            let [kind, bytes] =
                [0, 4].map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
            if bytes < 12 {
                return Err(PcapError::InvalidField("a block of fewer than 12 bytes"));
            }
            let Some(next) = end.checked_add(bytes as usize).filter(|next| *next <= self.rest.len()) else { break };
            self.packets += u64::from(kind == ENHANCED_PACKET);
            end = next;
        }
        let rest = self.rest.split_off(end);
        Ok(std::mem::replace(&mut self.rest, rest))
    }

    /// How many packets there were in whole blocks.
    pub fn packets(&self) -> u64 {
        self.packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::{Block, PcapNgReader};

    #[test]
    fn what_is_written_reads_back_with_names_directions_and_reasons() {
        let time = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789);
        let mut encoder = Encoder::new(64).unwrap();
        let seen = Seen {
            point: Point::Channel,
            direction: Direction::Out,
            time,
            frame_bytes: 100,
            data: (0..61).collect(),
            comment: Some("dropped: wire-drop-checksum".to_owned()),
            lost: 7,
        };
        encoder.add(&seen).unwrap();
        let bytes = encoder.take();
        assert!(encoder.take().is_empty());
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let mut names = Vec::new();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            match block.unwrap().into_owned() {
                Block::InterfaceDescription(interface) => {
                    assert_eq!((interface.linktype, interface.snaplen), (DataLink::ETHERNET, 64));
                    names.extend(interface.options.into_iter().filter_map(|option| match option {
                        InterfaceDescriptionOption::IfName(name) => Some(name.into_owned()),
                        _ => None,
                    }));
                }
                Block::EnhancedPacket(packet) => packets.push(packet),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(names, ["wire", "guest", "channel"]);
        let [packet] = &packets[..] else { panic!("{packets:?}") };
        assert_eq!((packet.interface_id, packet.original_len, &packet.data[..]), (2, 100, &seen.data[..]));
        assert_eq!(packet.timestamp, time.duration_since(UNIX_EPOCH).unwrap());
        assert_eq!(
            packet.options,
            [
                EnhancedPacketOption::Flags(2),
                EnhancedPacketOption::Comment("dropped: wire-drop-checksum".into()),
                EnhancedPacketOption::DropCount(7),
            ]
        );
    }

    #[test]
    fn a_stream_that_comes_in_any_pieces_is_cut_into_whole_blocks() {
        let mut encoder = Encoder::new(64).unwrap();
        for bytes in 0..20 {
            let (time, data) = (UNIX_EPOCH, vec![1; bytes]);
            let (point, direction) = (Point::Wire, Direction::In);
            encoder.add(&Seen { point, direction, time, frame_bytes: 20, data, comment: None, lost: 0 }).unwrap();
        }
        let stream = encoder.take();
        for piece in [1, 7, 12, 4096] {
            let mut blocks = Blocks::default();
            let mut whole = Vec::new();
            for part in stream.chunks(piece) {
                whole.extend(blocks.whole(part).unwrap());
                // Whatever comes now, this is a capture.
                let mut reader = PcapNgReader::new(&whole[..]);
                while let Some(block) = reader.as_mut().ok().and_then(|reader| reader.next_block()) {
                    block.unwrap();
                }
            }
            assert_eq!((whole.len(), blocks.packets()), (stream.len(), 20));
        }
        Blocks::default().whole(b"HTTP/1.1").unwrap();
        assert!(Blocks::default().whole(&[0; 8]).is_err());
    }
}

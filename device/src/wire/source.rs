//! A plug that gives the same frame for ever: for measuring the way to the guest.
//!
//! There is always another one. Without a guest they are read and dropped as fast as the card can; so it is for measuring and
//! nothing else.

use std::ops::RangeInclusive;

use toe_abi::{ETHERNET_HEADER_BYTES, FRAME_BYTES_MAX};
use toe_firmware::Instant;

use super::{Sent, Wire};
use crate::packet::Packet;

/// The same frame for ever.
#[derive(Debug)]
pub struct Source {
    frame: Vec<u8>,
}

impl Source {
    /// How long its frame can be, in bytes.
    pub const SIZES: RangeInclusive<usize> = ETHERNET_HEADER_BYTES..=FRAME_BYTES_MAX;

    /// A frame of that many bytes, within [`Self::SIZES`]: with a private EtherType, between two stations that nobody is.
    pub fn new(bytes: usize) -> Self {
        let header = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb6];
        let mut frame = vec![0; bytes.clamp(*Self::SIZES.start(), *Self::SIZES.end())];
        frame[..ETHERNET_HEADER_BYTES].copy_from_slice(&header);
        Self { frame }
    }
}

impl Wire for Source {
    fn send(&mut self, _now: Instant, _packet: &mut Packet) -> Sent {
        Sent::Done
    }

    fn receive(&mut self, _now: Instant, packet: &mut Packet) -> bool {
        packet.frame_room()[..self.frame.len()].copy_from_slice(&self.frame);
        packet.set_frame_bytes(self.frame.len());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_another_one() {
        let (mut wire, mut packet) = (Source::new(1514), Packet::default());
        for _ in 0..3 {
            assert!(wire.receive(Instant::from_us(0), &mut packet));
            assert_eq!((packet.frame().len(), &packet.frame()[12..14]), (1514, &[0x88, 0xb6][..]));
            packet = Packet::from_frame(&[0xff; 60]);
        }
    }
}

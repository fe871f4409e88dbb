//! Damage to a frame, on a cable and in a copy.
//!
//! On a cable a frame is complete. So the checksum that the guest or the host has left unfinished is finished before a
//! bit is turned over or an end is cut off, or the damage would not show; and a frame of merged segments is lost: each of
//! its segments would be, and nothing here cuts it up.

use crate::net::Header;
use crate::packet::{HEADER_BYTES, Packet};

/// Memory is written by so many bytes at a time: what tears a copy leaves every other of them as it was.
pub const LINE_BYTES: usize = 64;

const ETHERNET_HEADER_BYTES: usize = toe_abi::ETHERNET_HEADER_BYTES;

/// Finishes the checksum that is left unfinished, and the frame's header asks for nothing any more. `false` if it cannot be done,
/// and the frame is as it was.
pub fn complete(packet: &mut Packet) -> bool {
    if packet.header().is_merged() {
        return false;
    }
    if let Some((start, at)) = packet.header().unfinished_checksum() {
        let frame = packet.frame_mut();
        let Some(covered) = frame.get(start..).filter(|_| start + at + 2 <= frame.len()) else { return false };
        let sum = !ones_complement(covered);
        // A sum of zero is written as its other form: UDP has no checksum with that one.
        let sum = if sum == 0 { u16::MAX } else { sum };
        frame[start + at..start + at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    packet.set_header(Header::default());
    true
}

/// RFC 1071's sum of 16-bit words.
fn ones_complement(bytes: &[u8]) -> u16 {
    let sum: u64 = bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | u64::from(c.get(1).copied().unwrap_or(0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// Turns a bit over behind the Ethernet header, on the cable. Whether there is a frame left.
pub fn flip(packet: &mut Packet, which: u64) -> bool {
    if !complete(packet) {
        return false;
    }
    flip_any(packet, which);
    true
}

/// Turns a bit over behind the Ethernet header.
pub fn flip_any(packet: &mut Packet, which: u64) {
    let payload = packet.frame_mut().get_mut(ETHERNET_HEADER_BYTES..).unwrap_or_default();
    if !payload.is_empty() {
        let bit = which % (payload.len() as u64 * 8);
        payload[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

/// Cuts a frame off after so many bytes, on the cable. Whether there is a frame left.
pub fn cut(packet: &mut Packet, bytes: u32) -> bool {
    if !complete(packet) {
        return false;
    }
    let bytes = packet.frame().len().min(bytes as usize);
    packet.set_bytes(HEADER_BYTES + bytes);
    bytes >= ETHERNET_HEADER_BYTES
}

/// Only so many bytes were copied; the frame is as long as it was.
pub fn short(packet: &mut Packet, bytes: u32) {
    packet.frame_mut().get_mut(bytes as usize..).unwrap_or_default().fill(0);
}

/// Every other line was not copied, of those behind the first.
pub fn torn(packet: &mut Packet) {
    packet.frame_mut().chunks_mut(LINE_BYTES).skip(1).step_by(2).for_each(|line| line.fill(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP frame over IPv4 whose checksum is left to the NIC, as Linux hands it over.
    fn unfinished(merged: bool) -> Packet {
        let mut frame = vec![0; 14];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame.extend([0x45, 0, 0, 34, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend([0x10, 0, 0x20, 0, 0, 14, 0, 0]);
        frame.extend(*b"six ok");
        let pseudo = ones_complement(&[192, 0, 2, 1, 192, 0, 2, 2, 0, 17, 0, 14]);
        frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
        let mut packet = Packet::from_frame(&frame);
        packet.set_header(Header([1, u8::from(merged), 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]));
        packet
    }

    /// What the receiver of a UDP datagram sums up to, zero if all is right.
    fn residue(packet: &Packet) -> u16 {
        let mut all = vec![192, 0, 2, 1, 192, 0, 2, 2, 0, 17, 0, 14];
        all.extend(&packet.frame()[34..]);
        !ones_complement(&all)
    }

    #[test]
    fn on_a_cable_a_checksum_is_finished_before_a_bit_turns_so_that_it_shows() {
        let mut packet = unfinished(false);
        assert!(complete(&mut packet));
        assert_eq!((residue(&packet), packet.header()), (0, Header::default()));
        for which in [34 * 8 - 14 * 8, 200, 209] {
            let mut packet = unfinished(false);
            assert!(flip(&mut packet, which));
            assert_ne!(residue(&packet), 0, "bit {which}");
        }
        assert!(!flip(&mut unfinished(true), 3), "merged segments are lost");
        let mut nonsense = unfinished(false);
        nonsense.set_header(Header([1, 0, 0, 0, 0, 0, 0xff, 0xff, 6, 0, 0, 0]));
        assert!(!flip(&mut nonsense, 3));
    }

    #[test]
    fn a_cut_ends_it_and_a_short_copy_does_not() {
        let mut packet = Packet::from_frame(&[7; 200]);
        assert!(cut(&mut packet, 60));
        assert_eq!(packet.frame(), [7; 60]);
        assert!(!cut(&mut packet, 13));
        let mut packet = Packet::from_frame(&[7; 200]);
        short(&mut packet, 150);
        assert_eq!((&packet.frame()[..150], &packet.frame()[150..]), (&[7; 150][..], &[0; 50][..]));
        short(&mut packet, 9000);
        let mut packet = Packet::from_frame(&[7; 200]);
        torn(&mut packet);
        let lines = [&[7; 64][..], &[0; 64], &[7; 64], &[0; 8]].concat();
        assert_eq!(packet.frame(), lines);
    }
}

//! The options of a SYN in the order that a script expects.
//!
//! RFC 9293 leaves the order of options and their padding to the sender, but packetdrill compares them byte by byte. The
//! card has Linux's habit. For scripts that were written on another system the options of outgoing SYNs are put into that
//! system's order here; nothing else about the segment changes.

use toe_guest::checksum;

/// Whose habit it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// `mss, sackOK, TS, nop, wscale`, padded with no-operations in front: the card's own.
    Linux,
    /// `mss, nop, wscale, sackOK, TS`, padded with no-operations in front and ends of the list behind.
    FreeBsd,
}

const SYN: u8 = 2;
const TCP: u8 = 6;
const TCP_HEADER_BYTES: usize = 20;

/// The kinds in the order of FreeBSD, and at which offset modulo 4 each begins; for window scale it is modulo 2.
const FREE_BSD: [(u8, usize, usize); 4] = [(2, 4, 0), (3, 2, 1), (4, 2, 0), (8, 4, 2)];

impl Dialect {
    /// Puts a packet's options (IP header first) into this order, if it is a SYN.
    pub fn speak(self, packet: &mut [u8]) {
        let at = match packet.first().map(|b| b >> 4) {
            Some(4) if packet.get(9) == Some(&TCP) => usize::from(packet[0] & 15) * 4,
            Some(6) if packet.get(6) == Some(&TCP) => 40,
            _ => return,
        };
        let Some(tcp) = packet.get_mut(at..).filter(|tcp| tcp.len() >= TCP_HEADER_BYTES) else { return };
        let end = usize::from(tcp[12] >> 4) * 4;
        if self == Self::Linux || tcp[13] & SYN == 0 {
            return;
        }
        let Some(options) = tcp.get_mut(TCP_HEADER_BYTES..end) else { return };
        // Both orders take the same room, so that no length changes.
        if let Some(other) = free_bsd(options).filter(|other| other.len() == options.len()) {
            let removed = checksum::of(options);
            options.copy_from_slice(&other);
            let added = !checksum::of(options);
            let old = !u16::from_be_bytes([tcp[16], tcp[17]]);
            // RFC 1624: HC' = ~(~HC + ~m + m').
            let new = checksum::of(&[old, removed, added].map(u16::to_be_bytes).concat());
            tcp[16..18].copy_from_slice(&new.to_be_bytes());
        }
    }
}

fn free_bsd(options: &[u8]) -> Option<Vec<u8>> {
    let mut known: Vec<&[u8]> = Vec::new();
    let mut rest = options;
    while let Some(&kind) = rest.first() {
        match kind {
            0 => break,
            1 => rest = &rest[1..],
            _ => {
                let length = usize::from(*rest.get(1)?).max(2);
                known.push(rest.get(..length)?);
                rest = &rest[length..];
            }
        }
    }
    let mut out = Vec::new();
    for (kind, modulus, place) in FREE_BSD {
        for option in known.iter().filter(|option| option[0] == kind) {
            while out.len() % modulus != place {
                out.push(1);
            }
            out.extend_from_slice(option);
        }
    }
    if known.iter().any(|option| FREE_BSD.iter().all(|(kind, ..)| option[0] != *kind)) {
        return None;
    }
    out.resize(out.len().next_multiple_of(4), 0);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: [u8; 4] = [2, 4, 5, 0xb4];
    const TS: [u8; 10] = [8, 10, 0, 0, 0, 9, 0, 0, 0, 7];

    #[test]
    fn free_bsds_order_and_padding() {
        let all = [&MSS[..], &[4, 2], &TS, &[1, 3, 3, 6]].concat();
        assert_eq!(free_bsd(&all).unwrap(), [&MSS[..], &[1, 3, 3, 6, 4, 2], &TS].concat());
        let sack = [&MSS[..], &[1, 1, 4, 2]].concat();
        assert_eq!(free_bsd(&sack).unwrap(), [&MSS[..], &[4, 2, 0, 0]].concat());
        let scale = [&MSS[..], &[1, 3, 3, 6]].concat();
        assert_eq!(free_bsd(&scale).unwrap(), scale);
        let stamps = [&MSS[..], &[1, 1], &TS, &[1, 3, 3, 6]].concat();
        assert_eq!(free_bsd(&stamps).unwrap(), [&MSS[..], &[1, 3, 3, 6, 1, 1], &TS].concat());
    }

    #[test]
    fn an_option_that_is_not_known_leaves_all_as_it_is() {
        let other = [&MSS[..], &[34, 2, 1, 1]].concat();
        assert_eq!(free_bsd(&other), None);
        for short in 1..other.len() {
            free_bsd(&other[..short]);
        }
    }

    #[test]
    fn the_checksum_stays_right() {
        let mut packet = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, TCP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
        let mut tcp = vec![1, 2, 3, 4, 9, 9, 9, 9, 0, 0, 0, 0, 0xa0, SYN, 255, 255, 0, 0, 0, 0];
        tcp.extend([&MSS[..], &[4, 2], &TS, &[1, 3, 3, 6]].concat());
        let right = checksum::of(&tcp);
        tcp[16..18].copy_from_slice(&right.to_be_bytes());
        packet.extend(&tcp);
        let before = packet.clone();
        Dialect::Linux.speak(&mut packet);
        assert_eq!(packet, before);
        Dialect::FreeBsd.speak(&mut packet);
        assert_ne!(packet, before);
        assert_eq!(checksum::of(&packet[20..]), 0);
    }
}

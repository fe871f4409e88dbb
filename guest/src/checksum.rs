//! The Internet checksum (RFC 1071), for whoever builds or judges packets on this side of the card.
//!
//! The firmware has its own; a test that judges its packets by this one does not ask the judged.

use std::net::IpAddr;

/// Over some bytes: zero if they hold their right checksum, else the one to put in where they hold zero.
pub fn of(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// The same over the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1) and the payload of a packet.
pub fn with_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => sum(&v4.octets()),
        IpAddr::V6(v6) => sum(&v6.octets()),
    };
    !fold(address(source) + address(destination) + u64::from(protocol) + payload.len() as u64 + sum(payload))
}

/// Completes a frame's partial checksum as virtio 1.2, 5.1.6.2, has it: the sum of everything from `start` on goes into the
/// field `offset` bytes behind that. Fields that lie outside of the frame are left alone: who says so gets what it deserves.
pub fn complete(frame: &mut [u8], start: usize, offset: usize) {
    let Some(summed) = frame.get_mut(start..) else { return };
    let sum = of(summed);
    if let Some(field) = summed.get_mut(offset..offset + 2) {
        // A sum of zero would say of UDP that there is none (RFC 768).
        field.copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|c| u64::from(u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        // Section 3: the sum is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(&bytes), !0xddf2);
        let [a, b] = of(&bytes).to_be_bytes();
        assert_eq!(of(&[&bytes[..], &[a, b]].concat()), 0);
        // An odd octet stands in the high half of its word.
        assert_eq!(of(&[0x12, 0x34, 0x56]), of(&[0x12, 0x34, 0x56, 0x00]));
    }

    #[test]
    fn a_partial_checksum_is_completed_in_its_place() {
        let (source, destination) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut whole = vec![9, 8, 7, 6, 0, 0, 5, 4, 3];
        let sum = with_pseudo_header(source, destination, 6, &whole);
        whole[4..6].copy_from_slice(&sum.to_be_bytes());
        // What the kernel leaves in the field: the sum of the pseudo-header.
        let mut frame = [&[1; 34][..], &whole].concat();
        let partial = !with_pseudo_header(source, destination, 6, &[]) + whole.len() as u16;
        frame[38..40].copy_from_slice(&partial.to_be_bytes());
        complete(&mut frame, 34, 4);
        assert_eq!(frame[34..], whole);
        for (start, offset) in [(43, 0), (44, 0), (34, 8), (usize::from(u16::MAX), usize::from(u16::MAX))] {
            let mut same = frame.clone();
            complete(&mut same, start, offset);
            assert_eq!(same, frame);
        }
    }

    #[test]
    fn the_pseudo_header_counts() {
        let ends = |a: &str, b: &str| (a.parse().unwrap(), b.parse().unwrap());
        for (source, destination) in [ends("192.0.2.1", "192.0.2.2"), ends("2001:db8::1", "2001:db8::2")] {
            let mut payload = vec![1, 2, 3, 4, 0, 0];
            let sum = with_pseudo_header(source, destination, 6, &payload);
            payload[4..].copy_from_slice(&sum.to_be_bytes());
            assert_eq!(with_pseudo_header(source, destination, 6, &payload), 0);
            assert_ne!(with_pseudo_header(source, destination, 17, &payload), 0);
            assert_ne!(with_pseudo_header(source, source, 6, &payload), 0);
        }
    }
}

//! Which queue pair a frame from the wire belongs to: frames of one flow stay in one queue, and in order.
//!
//! The hash is keyed at random, so that nobody outside can aim all flows at one queue. It covers the addresses and,
//! for TCP and UDP, the ports; of a fragment only the addresses, since only the first has ports.

use std::hash::{BuildHasher, RandomState};

/// A keyed hash over flows.
#[derive(Default, Debug)]
pub struct FlowHash(RandomState);

const VLAN: [u16; 2] = [0x8100, 0x88a8];
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

impl FlowHash {
    /// The hash of the flow that the frame (Ethernet header first) belongs to. All frames that are not IP have the same.
    pub fn of(&self, frame: &[u8]) -> u64 {
        let (addresses, ports) = flow(frame).unwrap_or_default();
        self.0.hash_one((addresses, ports))
    }
}

fn flow(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let ethertype = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let mut at = 12;
    // Two tags at most; behind more nobody looks.
    for _ in 0..2 {
        if VLAN.contains(&ethertype(at)?) {
            at += 4;
        }
    }
    let kind = ethertype(at)?;
    let packet = &frame[at + 2..];
    let (addresses, protocol, payload) = match kind {
        IPV4 => {
            let fragment = packet.get(6)? & 0x3f != 0 || *packet.get(7)? != 0;
            let header_bytes = usize::from(packet[0] & 0xf) * 4;
            let protocol = if fragment { 0 } else { *packet.get(9)? };
            (packet.get(12..20)?, protocol, packet.get(header_bytes..))
        }
        IPV6 => (packet.get(8..40)?, packet[6], packet.get(40..)),
        _ => return None,
    };
    let ports = match protocol {
        TCP | UDP => payload.and_then(|p| p.get(..4)),
        _ => None,
    };
    Some((addresses, ports.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(ports: [u8; 4], fragment: [u8; 2], tags: usize) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for _ in 0..tags {
            frame.extend([0x81, 0, 0, 1]);
        }
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0]);
        frame.extend(fragment);
        frame.extend([64, TCP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend(ports);
        frame
    }

    #[test]
    fn a_flow_is_addresses_and_ports() {
        assert_eq!(
            flow(&ipv4([1, 2, 3, 4], [0x40, 0], 0)),
            Some((&[192, 0, 2, 1, 192, 0, 2, 2][..], &[1, 2, 3, 4][..]))
        );
        assert_eq!(flow(&ipv4([1, 2, 3, 4], [0, 0], 2)).unwrap().1, [1, 2, 3, 4], "behind two tags");
        assert_eq!(flow(&ipv4([1, 2, 3, 4], [0x20, 0], 0)).unwrap().1, [0u8; 0], "a first fragment");
        assert_eq!(flow(&ipv4([1, 2, 3, 4], [0, 9], 0)).unwrap().1, [0u8; 0], "a later fragment");
        let mut v6 = vec![2; 12];
        v6.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, UDP, 64]);
        v6.extend(0..32);
        v6.extend([9, 8, 7, 6]);
        let (addresses, ports) = flow(&v6).unwrap();
        assert_eq!((addresses[0], addresses[31], ports), (0, 31, &[9, 8, 7, 6][..]));
        assert_eq!(flow(&[0x88; 60]), None);
    }

    #[test]
    fn one_flow_has_one_hash_and_many_flows_have_many() {
        let hash = FlowHash::default();
        let of = |port: u8| hash.of(&ipv4([port, 0, 0, 80], [0, 0], 0));
        assert_eq!(of(1), of(1));
        let mut low_bits: Vec<_> = (0..64).map(|port| of(port) % 4).collect();
        low_bits.sort_unstable();
        low_bits.dedup();
        assert_eq!(low_bits, [0, 1, 2, 3]);
    }

    proptest::proptest! {
        #[test]
        fn any_frame_has_a_hash(mut frame in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80), v6: bool) {
            if frame.len() >= 14 {
                frame[12..14].copy_from_slice(&if v6 { IPV6 } else { IPV4 }.to_be_bytes());
            }
            FlowHash::default().of(&frame);
        }
    }
}

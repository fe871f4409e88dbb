//! The guest's own TCP, as far as the card's peers notice it: whatever the card passes on and nobody waits for is
//! answered with a RST (RFC 9293, 3.10.7.1).

use crate::frames::{ACK, Make, RST, Segment};

/// The answer to a segment that the card passed on in `frame`; `None` if it is a RST itself or damaged.
pub fn answer(frame: &[u8], s: &Segment<'_>) -> Option<Vec<u8>> {
    if s.has(RST) || !s.checksums_right() {
        return None;
    }
    let (seq, ack, flags) = if s.has(ACK) { (s.ack, 0, RST) } else { (0, s.seq.wrapping_add(s.length()), RST | ACK) };
    let reset = Make {
        source: s.destination,
        destination: s.source,
        source_port: s.destination_port,
        destination_port: s.source_port,
        seq,
        ack,
        flags,
        window: 0,
        urgent: 0,
        options: &[],
        payload: &[],
    };
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&frame[6..12]);
    macs[6..].copy_from_slice(&frame[..6]);
    Some(reset.frame(&macs))
}

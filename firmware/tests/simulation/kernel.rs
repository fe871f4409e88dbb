//! The guest's own TCP, as far as the card's peers notice it: whatever the card passes on and nobody waits for is
//! answered with a RST (RFC 9293, 3.10.7.1).

use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};

use crate::frames::{build, segment};

/// The answer to a frame that the card passed on; `None` if it is no intact TCP segment, or a RST.
pub fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let s = segment(frame)?;
    let t = &s.tcp;
    if !s.checksums_right || t.rst() {
        return None;
    }
    let (seq_number, ack_number) =
        if t.ack() { (t.ack_number(), None) } else { (TcpSeqNumber(0), Some(t.seq_number() + t.segment_len())) };
    let reset = TcpRepr {
        src_port: t.dst_port(),
        dst_port: t.src_port(),
        control: TcpControl::Rst,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let macs = [&frame[6..12], &frame[..6]].concat();
    Some(build(&macs, s.destination, s.source, &reset))
}

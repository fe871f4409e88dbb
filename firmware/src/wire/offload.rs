//! What a wire does to frames itself, and what it has to know for that: it cuts trains of segments ([`crate::tcp::train`]),
//! and completes the checksums of what it has cut.

/// What a wire takes besides plain, complete frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// The most text of a frame that it cuts into segments, in bytes; zero if it cuts none.
    pub train_bytes: usize,
    /// How much of a connection the peer must have acknowledged before trains begin, in bytes. A short exchange gains nothing from
    /// them, and who listens in on the wire sees segments as they are.
    pub plain_bytes: u64,
}

impl Offload {
    /// As far as frames can be long, once 64 KiB have gone in segments.
    pub const ALL: Self = Self { train_bytes: crate::tcp::train::TEXT_BYTES_MAX, plain_bytes: 65_536 };
}

/// A frame for a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// Its length, in bytes.
    pub bytes: usize,
    /// What the wire has to do.
    pub rest: Option<Rest>,
}

impl Made {
    /// A frame of that length that is complete.
    pub fn complete(bytes: usize) -> Self {
        Self { bytes, rest: None }
    }
}

/// What is left to a wire that is to cut a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rest {
    /// Where the TCP header begins, in bytes from the frame's beginning. The checksum field has the sum of the pseudo-header.
    pub tcp_at: u16,
    /// Where the text begins.
    pub text_at: u16,
    /// The network layer is IPv6.
    pub v6: bool,
    /// The text of each segment but the last, in bytes.
    pub segment_bytes: u16,
}

/// What a wire makes of a frame: for tests.
#[cfg(test)]
pub fn finish(frame: &[u8], rest: Option<Rest>) -> Vec<Vec<u8>> {
    use super::checksum::Sum;
    use super::segment::Flags;

    let Some(Rest { tcp_at, text_at, v6, segment_bytes }) = rest else { return vec![frame.to_vec()] };
    let (tcp_at, text_at) = (usize::from(tcp_at), usize::from(text_at));
    let (headers, text) = frame.split_at(text_at);
    let unit = usize::from(segment_bytes);
    let mut frames: Vec<_> = text
        .chunks(unit)
        .enumerate()
        .map(|(n, piece)| {
            let mut frame = [headers, piece].concat();
            let seq = u32::from_be_bytes(frame[tcp_at + 4..tcp_at + 8].try_into().unwrap());
            frame[tcp_at + 4..tcp_at + 8].copy_from_slice(&seq.wrapping_add((n * unit) as u32).to_be_bytes());
            if (n + 1) * unit < text.len() {
                frame[tcp_at + 13] &= !(Flags::FIN | Flags::PSH).0;
            }
            frame
        })
        .collect();
    for frame in &mut frames {
        let tcp_bytes = frame.len() - tcp_at;
        let (source, destination) = if v6 {
            frame[18..20].copy_from_slice(&(tcp_bytes as u16).to_be_bytes());
            (super::ip::v6(frame, 22), super::ip::v6(frame, 38))
        } else {
            let packet_bytes = (frame.len() - 14) as u16;
            frame[16..18].copy_from_slice(&packet_bytes.to_be_bytes());
            frame[24..26].fill(0);
            let sum = Sum::default().bytes(&frame[14..34]).finish();
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            (super::ip::v4(frame, 26), super::ip::v4(frame, 30))
        };
        frame[tcp_at + 16..tcp_at + 18].fill(0);
        let sum = Sum::default().pseudo_header(source, destination, tcp_bytes).bytes(&frame[tcp_at..]).finish();
        frame[tcp_at + 16..tcp_at + 18].copy_from_slice(&sum.to_be_bytes());
    }
    frames
}

//! Whole frames of the wire: Ethernet, IP and TCP written in one go.

use toe_abi::{ETHERNET_HEADER_BYTES, Mac};

use super::ip;
use super::segment::{self, Completes};

/// The Ethernet header in front of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// What follows.
    pub ethertype: u16,
}

impl Ethernet {
    /// Reads it; gives it and what follows. `None` if the frame is shorter.
    pub fn split(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (h, rest) = frame.split_first_chunk::<ETHERNET_HEADER_BYTES>()?;
        let header = Self {
            destination: Mac([h[0], h[1], h[2], h[3], h[4], h[5]]),
            source: Mac([h[6], h[7], h[8], h[9], h[10], h[11]]),
            ethertype: u16::from_be_bytes([h[12], h[13]]),
        };
        Some((header, rest))
    }
}

/// Everything that a segment says besides its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers {
    /// Ethernet source.
    pub source: Mac,
    /// Ethernet destination.
    pub destination: Mac,
    /// IP.
    pub ip: ip::Header,
    /// TCP.
    pub tcp: segment::Header,
}

impl Headers {
    /// Where the TCP header begins, in bytes from the frame's beginning.
    pub fn tcp_at(&self) -> usize {
        ETHERNET_HEADER_BYTES + self.ip.bytes()
    }

    /// Writes the frame, its `text_bytes` of text by `fill`; gives its length. `buffer` must have room for it.
    pub fn write(&self, buffer: &mut [u8], text_bytes: usize, fill: impl FnOnce(&mut [u8])) -> usize {
        self.write_for(buffer, text_bytes, Completes::Card, fill)
    }

    /// The same, for a wire that completes the checksum or does not.
    pub fn write_for(
        &self,
        buffer: &mut [u8],
        text_bytes: usize,
        completes: Completes,
        fill: impl FnOnce(&mut [u8]),
    ) -> usize {
        let ip_at = ETHERNET_HEADER_BYTES;
        let tcp_at = self.tcp_at();
        let (source, destination) = (self.ip.source, self.ip.destination);
        let tcp_bytes = self.tcp.write(&mut buffer[tcp_at..], source, destination, text_bytes, completes, fill);
        self.ip.write(&mut buffer[ip_at..tcp_at], tcp_bytes);
        buffer[..6].copy_from_slice(&self.destination.0);
        buffer[6..12].copy_from_slice(&self.source.0);
        buffer[12..14].copy_from_slice(&self.ip.ethertype().to_be_bytes());
        tcp_at + tcp_bytes
    }
}

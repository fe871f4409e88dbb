//! What stands in a frame of the wire: Ethernet, IPv4 and IPv6, TCP.
//!
//! Reading is total and gives views or plain values; nothing is copied. Writing goes straight into the frame's buffer.

pub mod checksum;
pub mod frame;
pub mod icmp;
pub mod ip;
pub mod offload;
pub mod options;
pub mod segment;

#[cfg(test)]
mod tests;

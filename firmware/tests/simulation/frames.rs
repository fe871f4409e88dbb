//! TCP segments in Ethernet frames, read and written with smoltcp's `wire` (so not with the code under test), and any
//! frame in one line of text.

use std::fmt::Write;
use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, TcpOption, TcpPacket, TcpRepr};
use toe_abi::{Message, Parsed};

const ETHERNET_HEADER_BYTES: usize = 14;

/// A TCP segment in its IP packet, borrowed from a frame.
pub struct Segment<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub tcp: TcpPacket<&'a [u8]>,
    /// Whether all checksums are right.
    pub checksums_right: bool,
}

/// Finds the TCP segment in a frame; `None` if there is none or its lengths are impossible.
pub fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let packet = frame.get(ETHERNET_HEADER_BYTES..)?;
    let (source, destination, payload, header_right) = match frame[12..14] {
        [0x08, 0x00] => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            let is_whole = !ip.more_frags() && ip.frag_offset() == 0;
            (ip.version() == 4 && ip.next_header() == IpProtocol::Tcp && is_whole).then_some(())?;
            let payload = &packet[usize::from(ip.header_len())..usize::from(ip.total_len())];
            (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()), payload, ip.verify_checksum())
        }
        [0x86, 0xdd] => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            (ip.version() == 6 && ip.next_header() == IpProtocol::Tcp).then_some(())?;
            let payload = &packet[ip.header_len()..ip.header_len() + usize::from(ip.payload_len())];
            (IpAddress::Ipv6(ip.src_addr()), IpAddress::Ipv6(ip.dst_addr()), payload, true)
        }
        _ => return None,
    };
    let tcp = TcpPacket::new_checked(payload).ok()?;
    let checksums_right = header_right && tcp.verify_checksum(&source, &destination);
    Some(Segment { source: source.into(), destination: destination.into(), tcp, checksums_right })
}

/// Puts a segment into a frame with all checksums right. `macs`: destination, then source.
pub fn build(macs: &[u8], source: IpAddr, destination: IpAddr, tcp: &TcpRepr<'_>) -> Vec<u8> {
    let all = ChecksumCapabilities::default();
    let (from, to) = (source.into(), destination.into());
    let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let mut frame = vec![0; ETHERNET_HEADER_BYTES + ip.buffer_len()];
    frame[..12].copy_from_slice(macs);
    frame[12..14].copy_from_slice(if source.is_ipv4() { &[0x08, 0x00] } else { &[0x86, 0xdd] });
    ip.emit(&mut frame[ETHERNET_HEADER_BYTES..], &all);
    let mut packet = TcpPacket::new_unchecked(&mut frame[ETHERNET_HEADER_BYTES + ip.header_len()..]);
    tcp.emit(&mut packet, &from, &to, &all);
    frame
}

/// A frame in one line.
pub fn describe(frame: &[u8]) -> String {
    if let Ok(parsed) = Parsed::new(frame) {
        let mut line = format!("channel {} B", frame.len());
        for message in parsed.messages {
            let _ = match message {
                Ok(Message::Send(m, data)) => write!(line, " | {m:?} + {}", data.len()),
                Ok(Message::Received(m, data)) => write!(line, " | {m:?} + {}", data.len()),
                Ok(m) => write!(line, " | {m:?}"),
                Err(e) => write!(line, " | {e}"),
            };
        }
        return line;
    }
    let Some(s) = segment(frame) else {
        return format!("{} B, no TCP segment: {:02x?}", frame.len(), &frame[..frame.len().min(64)]);
    };
    let t = &s.tcp;
    let flags = [(t.syn(), 'S'), (t.fin(), 'F'), (t.rst(), 'R'), (t.psh(), 'P'), (t.ack(), 'A'), (t.urg(), 'U')];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, c)| *c).collect();
    let mut line = format!("{}->{} [{flags}] seq {}", t.src_port(), t.dst_port(), t.seq_number().0 as u32);
    if t.ack() {
        let _ = write!(line, " ack {}", t.ack_number().0 as u32);
    }
    let _ = write!(line, " win {} + {}", t.window_len(), t.payload().len());
    let mut options = t.options();
    while let Ok((rest, option)) = TcpOption::parse(options) {
        match option {
            TcpOption::EndOfList => break,
            TcpOption::NoOperation => (),
            TcpOption::SackRange(ranges) => {
                let _ = write!(line, " sack {:?}", ranges.iter().flatten().collect::<Vec<_>>());
            }
            option => {
                let _ = write!(line, " {option:?}");
            }
        }
        options = rest;
        if options.is_empty() {
            break;
        }
    }
    if !s.checksums_right {
        line.push_str(" BAD CHECKSUM");
    }
    line
}

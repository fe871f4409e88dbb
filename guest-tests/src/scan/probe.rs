//! Segments made by hand, and what comes back.

use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use toe_abi::Mac;
use toe_guest::checksum;

use super::{PATIENCE, SILENCE};

/// Flags of the TCP header.
pub mod flag {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Synchronise.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// Acknowledgement.
    pub const ACK: u8 = 16;
    /// Urgent.
    pub const URG: u8 = 32;
}

const TCP: u8 = 6;
const ETHERNET_BYTES: usize = 14;
const TCP_BYTES: usize = 20;

/// A segment, as it is sent or came.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// See [`flag`].
    pub flags: u8,
    /// The four bits behind the data offset, of which the last belongs to nobody since RFC 8311.
    pub reserved: u8,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options as bytes, a multiple of four.
    pub options: Vec<u8>,
    /// Payload.
    pub text: Vec<u8>,
    /// Data offset in words, if it is not to be the true one.
    pub offset: Option<u8>,
}

impl Segment {
    /// What it takes of the sequence space.
    pub fn length(&self) -> u32 {
        self.text.len() as u32 + u32::from(self.flags & flag::SYN != 0) + u32::from(self.flags & flag::FIN != 0)
    }

    /// The value of an option in it.
    pub fn option(&self, kind: u8) -> Option<&[u8]> {
        let mut rest = &self.options[..];
        loop {
            match rest {
                [0, ..] | [] => return None,
                [1, tail @ ..] => rest = tail,
                [k, length, ..] => {
                    let option = rest.get(..usize::from(*length)).filter(|o| o.len() >= 2)?;
                    if *k == kind {
                        return Some(&option[2..]);
                    }
                    rest = &rest[option.len()..];
                }
                [_] => return None,
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TCP_BYTES + self.options.len() + self.text.len());
        bytes.extend(self.source.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgement.to_be_bytes());
        let offset = self.offset.unwrap_or(((TCP_BYTES + self.options.len()) / 4) as u8);
        bytes.extend([offset << 4 | self.reserved, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(&self.options);
        bytes.extend(&self.text);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let header = bytes.get(..TCP_BYTES)?;
        let options = bytes.get(TCP_BYTES..usize::from(header[12] >> 4) * 4)?;
        Some(Self {
            source: half(0),
            destination: half(2),
            sequence: word(4),
            acknowledgement: word(8),
            flags: header[13],
            reserved: header[12] & 15,
            window: half(14),
            urgent: half(18),
            options: options.to_vec(),
            text: bytes[TCP_BYTES + options.len()..].to_vec(),
            offset: None,
        })
    }
}

/// What is done to a segment's checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// It is right.
    Right,
    /// It is wrong by one.
    Wrong,
    /// The field is zero, which is not what it should be.
    Zero,
}

/// A host that scans.
pub struct Probe {
    socket: Socket,
    local: (Mac, IpAddr),
    remote: (Mac, IpAddr),
    /// Where the echo service is.
    pub port: u16,
    /// Where nothing is.
    pub closed_port: u16,
    next_port: u16,
}

impl Probe {
    /// A host on an interface, to be made within the network namespace where that is.
    ///
    /// # Errors
    /// If the kernel gives no packet socket.
    pub fn new(interface: &str, local: (Mac, IpAddr), remote: (Mac, IpAddr), ports: (u16, u16)) -> Result<Self> {
        let index = rustix::net::netdevice::name_to_index(
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?,
            interface,
        )?;
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).context("a packet socket")?;
        socket.bind(&link_address(index)?)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, local, remote, port: ports.0, closed_port: ports.1, next_port: 20_000 })
    }

    /// A port that no connection of this scan has had.
    pub fn fresh_port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    /// A SYN from a port of ours.
    pub fn syn(&self, source: u16, options: &[u8]) -> Segment {
        Segment {
            source,
            destination: self.port,
            sequence: 0x1000_0000u32.wrapping_mul(u32::from(source)),
            flags: flag::SYN,
            window: 65_535,
            options: options.to_vec(),
            ..Segment::default()
        }
    }

    /// Bytes of IP and TCP header in a packet without options.
    pub fn header_bytes(&self) -> u16 {
        if self.local.1.is_ipv4() { 40 } else { 60 }
    }

    /// What a peer that names no maximum segment size can take (RFC 9293, 3.7.1).
    pub fn default_mss(&self) -> usize {
        if self.local.1.is_ipv4() { 536 } else { 1220 }
    }

    /// Sends a segment.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&self, segment: &Segment, checksum: Checksum) -> Result<()> {
        let mut tcp = segment.bytes();
        let right = checksum::with_pseudo_header(self.local.1, self.remote.1, TCP, &tcp);
        let sum = match checksum {
            Checksum::Right => right,
            Checksum::Wrong => right.wrapping_add(1),
            Checksum::Zero => 0,
        };
        ensure!(checksum != Checksum::Zero || right != 0, "a segment whose checksum is zero");
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut frame = [self.remote.0.0, self.local.0.0].concat();
        match (self.local.1, self.remote.1) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                frame.extend([0x08, 0x00]);
                let mut header = vec![0x45, 0];
                header.extend(((20 + tcp.len()) as u16).to_be_bytes());
                header.extend([0, 0, 0x40, 0, 64, TCP, 0, 0]);
                header.extend(local.octets());
                header.extend(remote.octets());
                let sum = checksum::of(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((tcp.len() as u16).to_be_bytes());
                frame.extend([TCP, 64]);
                frame.extend(local.octets());
                frame.extend(remote.octets());
            }
            _ => bail!("a probe with two families"),
        }
        frame.extend(tcp);
        self.socket.send(&frame).map(drop).context("sending a probe")
    }

    /// The next segment for that port of ours, if one comes in time.
    ///
    /// # Errors
    /// The socket's; a segment with a wrong checksum or with bits set that nobody has defined.
    pub fn receive(&mut self, port: u16, patience: Duration) -> Result<Option<Segment>> {
        let end = Instant::now() + patience;
        let mut frame = vec![0; 65_536];
        loop {
            match self.socket.read(&mut frame) {
                Ok(n) => {
                    if let Some(segment) = self.understand(&frame[..n])?.filter(|s| s.destination == port) {
                        return Ok(Some(segment));
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
                    let readable = PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN);
                    poll(&mut [readable], Some(&timeout))?;
                }
                Err(e) => return Err(e).context("receiving"),
            }
        }
    }

    /// A segment from the target to us.
    fn understand(&self, frame: &[u8]) -> Result<Option<Segment>> {
        let Some(packet) = frame.get(ETHERNET_BYTES..) else { return Ok(None) };
        let half = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
        let (from, to, tcp) = match packet.first().map(|b| b >> 4) {
            Some(4) if packet.len() >= 20 && packet[9] == TCP => {
                let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap_or_default());
                (ip(12), ip(16), packet.get(usize::from(packet[0] & 15) * 4..half(2)))
            }
            Some(6) if packet.len() >= 40 && packet[6] == TCP => {
                let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap_or_default());
                (ip(8), ip(24), packet.get(40..40 + half(4)))
            }
            _ => return Ok(None),
        };
        if (from, to) != (self.remote.1, self.local.1) {
            return Ok(None);
        }
        let tcp = tcp.ok_or_else(|| anyhow!("a packet shorter than its header says"))?;
        ensure!(checksum::with_pseudo_header(from, to, TCP, tcp) == 0, "the answer's checksum is wrong");
        let segment = Segment::parse(tcp).ok_or_else(|| anyhow!("a segment shorter than its data offset says"))?;
        ensure!(segment.reserved & 0b1110 == 0, "reserved bits are set in the answer: {segment:?}");
        Ok(Some(segment))
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// If the handshake does not go as it must.
    pub fn open(&mut self, options: &[u8]) -> Result<Dialogue<'_>> {
        let port = self.fresh_port();
        let syn = self.syn(port, options);
        let sequence = syn.sequence;
        self.send(&syn, Checksum::Right)?;
        let answer = self.receive(port, PATIENCE)?.context("no answer to a SYN")?;
        ensure!(answer.flags & 0x3f == flag::SYN | flag::ACK, "the answer to a SYN is {answer:?}");
        ensure!(answer.acknowledgement == sequence.wrapping_add(1), "the SYN-ACK acknowledges another: {answer:?}");
        let dialogue = Dialogue {
            snd_nxt: sequence.wrapping_add(1),
            rcv_nxt: answer.sequence.wrapping_add(1),
            syn_ack: answer,
            port,
            probe: self,
        };
        let ack = dialogue.segment(flag::ACK, &[]);
        dialogue.send(&ack)?;
        Ok(dialogue)
    }
}

/// A connection of the scan.
pub struct Dialogue<'a> {
    probe: &'a mut Probe,
    port: u16,
    /// The next octet that we send.
    pub snd_nxt: u32,
    /// The next that is expected.
    pub rcv_nxt: u32,
    /// What the target answered the SYN with.
    pub syn_ack: Segment,
}

impl Dialogue<'_> {
    /// The next segment of ours; what it carries does not count as sent.
    pub fn segment(&self, flags: u8, text: &[u8]) -> Segment {
        Segment {
            source: self.port,
            destination: self.probe.port,
            sequence: self.snd_nxt,
            acknowledgement: if flags & flag::ACK != 0 { self.rcv_nxt } else { 0 },
            flags,
            window: 65_535,
            text: text.to_vec(),
            ..Segment::default()
        }
    }

    /// Sends a segment.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&self, segment: &Segment) -> Result<()> {
        self.probe.send(segment, Checksum::Right)
    }

    /// Sends a segment with another checksum.
    ///
    /// # Errors
    /// The socket's.
    pub fn send_with(&self, segment: &Segment, checksum: Checksum) -> Result<()> {
        self.probe.send(segment, checksum)
    }

    /// The next segment of this connection.
    ///
    /// # Errors
    /// The socket's, or what is wrong with it in itself.
    pub fn receive(&mut self, patience: Duration) -> Result<Option<Segment>> {
        self.probe.receive(self.port, patience)
    }

    /// Nothing comes.
    ///
    /// # Errors
    /// If something does.
    pub fn expect_silence(&mut self, after: &str) -> Result<()> {
        match self.receive(SILENCE)? {
            None => Ok(()),
            Some(segment) => bail!("{after} was answered: {segment:?}"),
        }
    }

    /// A bare acknowledgement of what we have sent comes, and of nothing more.
    ///
    /// # Errors
    /// If it does not.
    pub fn expect_ack(&mut self, after: &str) -> Result<()> {
        let segment = self.receive(PATIENCE)?.with_context(|| format!("{after} was not answered"))?;
        let is_ack = segment.flags & (flag::ACK | flag::RST | flag::SYN) == flag::ACK;
        ensure!(is_ack && segment.acknowledgement == self.snd_nxt, "{after} was answered by {segment:?}");
        Ok(())
    }

    /// Sends data, with a segment that carries it, and takes the echo's first `echoed` bytes and all acknowledgements.
    ///
    /// # Errors
    /// If the data is not acknowledged or no echo of that length comes.
    pub fn say(&mut self, segment: &Segment, echoed: usize) -> Result<Vec<Segment>> {
        self.send(segment)?;
        self.snd_nxt = self.snd_nxt.wrapping_add(segment.length());
        self.hear(echoed)
    }

    /// Takes echoes until all of ours is acknowledged and that many bytes came; acknowledges them.
    ///
    /// # Errors
    /// If it does not come.
    pub fn hear(&mut self, mut echoed: usize) -> Result<Vec<Segment>> {
        let mut heard = Vec::new();
        let mut acknowledged = false;
        while !acknowledged || echoed > 0 {
            let missing =
                if acknowledged { format!("{echoed} bytes of the echo") } else { "an acknowledgement".into() };
            let segment = self.receive(PATIENCE)?.with_context(|| format!("{missing} did not come"))?;
            ensure!(segment.flags & flag::RST == 0, "the connection was reset");
            acknowledged |= segment.acknowledgement == self.snd_nxt;
            if segment.sequence == self.rcv_nxt && !segment.text.is_empty() {
                self.rcv_nxt = self.rcv_nxt.wrapping_add(segment.text.len() as u32);
                echoed = echoed.saturating_sub(segment.text.len());
                let ack = self.segment(flag::ACK, &[]);
                self.send(&ack)?;
            }
            heard.push(segment);
        }
        Ok(heard)
    }

    /// The connection still carries data.
    ///
    /// # Errors
    /// If it does not.
    pub fn expect_alive(&mut self, after: &str) -> Result<()> {
        let segment = self.segment(flag::ACK | flag::PSH, b"alive?");
        self.say(&segment, 6).map(drop).with_context(|| format!("after {after} the connection does not work"))
    }
}

impl Drop for Dialogue<'_> {
    fn drop(&mut self) {
        // The target need not wait for us.
        let reset = self.segment(flag::RST, &[]);
        let _ = self.send(&reset);
    }
}

/// An interface, for `bind`.
fn link_address(interface: u32) -> Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is plain data, no larger than the storage, and every bit pattern of it is valid.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = libc::c_int::try_from(interface)?;
    // SAFETY: the storage holds a sockaddr_ll whose family says so, and the length is that of one.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) })
}

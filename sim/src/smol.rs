//! smoltcp as an end: another stack, by other people.
//!
//! It runs without Ethernet, so that it needs no ARP; the header is taken off and put on here.
//!
//! One of its faults would stop every other scenario and is kept from happening ([`SmolEnd::would_kill_timer`]): in
//! 0.14, the third duplicate ACK while nothing but its FIN is unacknowledged starts a fast retransmission for which
//! there is no data; its retransmission timer is off from then on, and the FIN is never sent again.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::IpAddr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{CongestionControl, RecvError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};
use toe_abi::Mac;
use toe_impair::Random;

use crate::end::{End, Flow, Pair, Read, Status, Streams};
use crate::frames::{ACK, FIN, RST, SYN, segment};
use crate::transcript::Transcript;

thread_local! {
    /// smoltcp asks a plain function for the value of the timestamp option.
    static TIMESTAMP: Cell<u32> = const { Cell::new(0) };
}

fn timestamp() -> u32 {
    TIMESTAMP.with(Cell::get)
}

/// The most bytes that are made or compared at once.
const WRITE_BYTES_MAX: u64 = 65_536;

/// What is fixed for such an end.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mac: Mac,
    pub next_hop: Mac,
    pub addresses: Vec<IpAddr>,
    pub mtu: usize,
    pub receive_buffer_bytes: usize,
    pub send_buffer_bytes: usize,
    pub nagle: bool,
    pub timestamps: bool,
    pub ack_delay_ms: Option<u64>,
    pub cubic: bool,
}

/// The wire as smoltcp sees it: IP packets. Buffers go round, so that packets need no allocation.
struct Packets {
    mtu: usize,
    inward: VecDeque<Vec<u8>>,
    /// Packets that smoltcp has read.
    read: Vec<Vec<u8>>,
    outward: VecDeque<Vec<u8>>,
    /// Packets that are on the wire.
    sent: Vec<Vec<u8>>,
}

struct Receive<'a>(Vec<u8>, &'a mut Vec<Vec<u8>>);
struct Transmit<'a>(&'a mut VecDeque<Vec<u8>>, &'a mut Vec<Vec<u8>>);

impl smoltcp::phy::RxToken for Receive<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.0);
        self.1.push(self.0);
        result
    }
}

impl smoltcp::phy::TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = self.1.pop().unwrap_or_default();
        packet.resize(length, 0);
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Packets {
    type RxToken<'a> = Receive<'a>;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Receive<'_>, Transmit<'_>)> {
        let packet = self.inward.pop_front()?;
        Some((Receive(packet, &mut self.read), Transmit(&mut self.outward, &mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        Some(Transmit(&mut self.outward, &mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Sock {
    flow: Flow,
    handle: SocketHandle,
    streams: Streams,
    /// Bytes written and read.
    written: u64,
    read: u64,
    is_passive: bool,
    /// It left CLOSED or LISTEN once.
    was_open: bool,
    has_shut: bool,
    is_released: bool,
    /// The acknowledgement number of the last segment that was handed to it.
    last_ack: Option<u32>,
    /// The number behind the FIN that it sent.
    fin_end: Option<u32>,
}

/// smoltcp with its sockets.
pub struct SmolEnd {
    settings: Settings,
    interface: Interface,
    packets: Packets,
    sockets: SocketSet<'static>,
    socks: Vec<Sock>,
    transcript: Transcript,
    now_us: u64,
}

fn at(now_us: u64) -> Instant {
    Instant::from_micros(now_us as i64)
}

impl SmolEnd {
    pub fn new(name: &'static str, settings: Settings, seed: u64) -> Self {
        let mut packets = Packets {
            mtu: settings.mtu,
            inward: VecDeque::new(),
            read: Vec::new(),
            outward: VecDeque::new(),
            sent: Vec::new(),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = Random::new(seed).bits();
        let mut interface = Interface::new(config, &mut packets, at(0));
        interface.update_ip_addrs(|addresses| {
            for ip in &settings.addresses {
                let prefix = if ip.is_ipv4() { 24 } else { 64 };
                addresses.push(IpCidr::new((*ip).into(), prefix)).expect("room for a few addresses");
            }
        });
        Self {
            settings,
            interface,
            packets,
            sockets: SocketSet::new(Vec::new()),
            socks: Vec::new(),
            transcript: Transcript::new(name),
            now_us: 0,
        }
    }

    fn add_socket(&mut self, flow: Flow, is_passive: bool, streams: Streams) -> SocketHandle {
        let s = &self.settings;
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; s.receive_buffer_bytes]),
            SocketBuffer::new(vec![0; s.send_buffer_bytes]),
        );
        socket.set_nagle_enabled(s.nagle);
        socket.set_ack_delay(s.ack_delay_ms.map(Duration::from_millis));
        socket.set_tsval_generator(s.timestamps.then_some(timestamp as fn() -> u32));
        socket.set_congestion_control(if s.cubic { CongestionControl::Cubic } else { CongestionControl::None });
        let handle = self.sockets.add(socket);
        self.socks.push(Sock {
            flow,
            handle,
            streams,
            written: 0,
            read: 0,
            is_passive,
            was_open: false,
            has_shut: false,
            is_released: false,
            last_ack: None,
            fin_end: None,
        });
        handle
    }

    fn find(&mut self, flow: Flow) -> (&mut Sock, &mut Socket<'static>) {
        let sock = self.socks.iter_mut().find(|s| s.flow == flow).expect("a flow that was opened");
        let socket = self.sockets.get_mut(sock.handle);
        (sock, socket)
    }

    /// The socket between two ends, its own first.
    fn between(&mut self, to: (IpAddr, u16), from: (IpAddr, u16)) -> Option<&mut Sock> {
        let is_this = |socket: &Socket<'_>| {
            let ends = [(socket.local_endpoint(), to), (socket.remote_endpoint(), from)];
            ends.into_iter().all(|(end, (ip, port))| end.is_some_and(|e| IpAddr::from(e.addr) == ip && e.port == port))
        };
        self.socks.iter_mut().find(|k| is_this(self.sockets.get(k.handle)))
    }

    /// It sends a frame: where its stream ends, if the frame says so.
    fn note_fin(&mut self, frame: &[u8]) {
        let Some(s) = segment(frame).filter(|s| s.has(FIN)) else { return };
        if let Some(sock) = self.between((s.source, s.source_port), (s.destination, s.destination_port)) {
            sock.fin_end = Some(s.seq.wrapping_add(s.length()));
        }
    }

    /// Whether a frame is an ACK that says nothing new, for a socket that has nothing but its FIN unacknowledged. To
    /// keep it back loses nothing: a FIN needs no window. One that acknowledges the FIN is never kept back, however often it came: the
    /// first may have stood in a segment that smoltcp did not take.
    fn would_kill_timer(&mut self, frame: &[u8]) -> bool {
        let Some(s) = segment(frame).filter(|s| s.has(ACK)) else {
            return false;
        };
        let Some(sock) = self.between((s.destination, s.destination_port), (s.source, s.source_port)) else {
            return false;
        };
        let is_pure = !s.has(SYN | FIN | RST) && s.payload.is_empty();
        let says_nothing = is_pure && sock.last_ack == Some(s.ack) && sock.fin_end != Some(s.ack);
        if !says_nothing && !s.checksums_right() {
            return false;
        }
        sock.last_ack = Some(s.ack);
        let handle = sock.handle;
        let socket = self.sockets.get::<Socket<'_>>(handle);
        let only_fin = matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck);
        says_nothing && only_fin && socket.send_queue() == 0
    }

    fn poll(&mut self, now_us: u64) {
        self.now_us = now_us;
        TIMESTAMP.with(|t| t.set((now_us / 1000) as u32));
        self.interface.poll(at(now_us), &mut self.packets, &mut self.sockets);
    }
}

impl End for SmolEnd {
    fn handle_frame(&mut self, now_us: u64, frame: &mut Vec<u8>) {
        if frame.len() < 14 || !matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd]) {
            // A stranger's.
            return;
        }
        if self.would_kill_timer(frame) {
            self.transcript.note(now_us, "kept from smoltcp: a repeated ACK while its FIN is unacknowledged");
            return;
        }
        let mut packet = self.packets.read.pop().unwrap_or_default();
        packet.clear();
        packet.extend_from_slice(&frame[14..]);
        self.packets.inward.push_back(packet);
        self.poll(now_us);
    }

    fn handle_timeout(&mut self, now_us: u64) -> bool {
        self.poll(now_us);
        false
    }

    fn next_us(&mut self) -> Option<u64> {
        let next = self.interface.poll_at(at(self.now_us), &self.sockets)?;
        // It says "now" also where another poll would change nothing.
        u64::try_from(next.total_micros()).ok().filter(|&next_us| next_us > self.now_us)
    }

    fn poll_frame(&mut self, now_us: u64, frame: &mut Vec<u8>) -> bool {
        if self.packets.outward.is_empty() {
            self.poll(now_us);
        }
        let Some(packet) = self.packets.outward.pop_front() else { return false };
        frame.extend_from_slice(&self.settings.next_hop.0);
        frame.extend_from_slice(&self.settings.mac.0);
        frame.extend_from_slice(if packet[0] >> 4 == 4 { &[0x08, 0x00] } else { &[0x86, 0xdd] });
        frame.extend_from_slice(&packet);
        self.packets.sent.push(packet);
        self.note_fin(frame);
        self.transcript.frame(now_us, "> wire", frame);
        true
    }

    fn transcript(&self) -> u64 {
        self.transcript.hash()
    }

    fn connect(&mut self, _: u64, flow: Flow, pair: Pair, streams: Streams) {
        let handle = self.add_socket(flow, false, streams);
        let socket = self.sockets.get_mut::<Socket>(handle);
        socket.connect(self.interface.context(), pair.remote, pair.local).expect("a fresh socket connects");
    }

    fn accept(&mut self, _: u64, flow: Flow, pair: Pair, any: Option<IpAddr>, streams: Streams) {
        // smoltcp's sockets take whoever comes first; with several flows, each has a port of its own.
        let handle = self.add_socket(flow, true, streams);
        let addr = any.is_none().then(|| pair.local.ip().into());
        let endpoint = IpListenEndpoint { addr, port: pair.local.port() };
        self.sockets.get_mut::<Socket>(handle).listen(endpoint).expect("a fresh socket listens");
    }

    fn status(&mut self, flow: Flow) -> Status {
        let (sock, socket) = self.find(flow);
        match socket.state() {
            State::SynSent | State::SynReceived | State::Listen => {
                sock.was_open |= !sock.is_passive;
                return Status::Opening;
            }
            State::Closed if sock.is_passive && !sock.was_open => return Status::Opening,
            State::Closed => (),
            _ => {
                sock.was_open = true;
                return Status::Open;
            }
        }
        // CLOSED is the end of an orderly close, too: only the streams tell.
        let all_sent = sock.has_shut && socket.send_queue() == 0;
        match socket.peek(1) {
            Ok(data) if !data.is_empty() => Status::Open,
            Err(RecvError::Finished) if all_sent => Status::Open,
            _ => Status::Broken("smoltcp's socket is closed"),
        }
    }

    fn write(&mut self, flow: Flow, most: u64) -> u64 {
        let (sock, socket) = self.find(flow);
        if !socket.may_send() {
            return 0;
        }
        let (out, at) = (sock.streams.out, sock.written);
        let fill = |room: &mut [u8]| {
            let n = room.len().min(most.min(WRITE_BYTES_MAX) as usize);
            out.fill(at, &mut room[..n]);
            (n, n as u64)
        };
        let n = socket.send(fill).expect("may_send was asked");
        sock.written += n;
        n
    }

    fn read(&mut self, flow: Flow, most: u64) -> Read {
        let (sock, socket) = self.find(flow);
        let (inward, at) = (sock.streams.inward, sock.read);
        let check = |data: &mut [u8]| {
            let n = data.len().min(most.min(WRITE_BYTES_MAX) as usize);
            if let Some(at) = inward.first_difference(at, &data[..n]) {
                panic!("flow {flow}: byte {at} is not the one that was sent");
            }
            (n, n as u64)
        };
        match socket.recv(check) {
            Ok(0) | Err(RecvError::InvalidState) => Read::Wait,
            Ok(n) => {
                sock.read += n;
                Read::Bytes(n)
            }
            Err(RecvError::Finished) => Read::End,
        }
    }

    fn shutdown(&mut self, flow: Flow) {
        let (sock, socket) = self.find(flow);
        sock.has_shut = true;
        socket.close();
    }

    fn all_acknowledged(&mut self, flow: Flow) -> bool {
        let (_, socket) = self.find(flow);
        matches!(socket.state(), State::FinWait2 | State::TimeWait | State::Closed)
    }

    fn abort(&mut self, flow: Flow) {
        let (_, socket) = self.find(flow);
        socket.abort();
    }

    fn release(&mut self, flow: Flow) {
        self.find(flow).0.is_released = true;
    }

    fn all_released(&self) -> bool {
        self.socks.iter().all(|s| s.is_released)
    }
}

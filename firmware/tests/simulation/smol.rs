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
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint, TcpSeqNumber};
use toe_abi::Mac;
use toe_impair::Random;

use crate::end::{End, Flow, Pair, Read, Status};
use crate::frames::segment;
use crate::transcript::Transcript;

thread_local! {
    /// smoltcp asks a plain function for the value of the timestamp option.
    static TIMESTAMP: Cell<u32> = const { Cell::new(0) };
}

fn timestamp() -> u32 {
    TIMESTAMP.with(Cell::get)
}

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

/// The wire as smoltcp sees it: IP packets.
struct Packets {
    mtu: usize,
    inward: VecDeque<Vec<u8>>,
    outward: VecDeque<Vec<u8>>,
}

struct Receive(Vec<u8>);
struct Transmit<'a>(&'a mut VecDeque<Vec<u8>>);

impl smoltcp::phy::RxToken for Receive {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl smoltcp::phy::TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Packets {
    type RxToken<'a> = Receive;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Receive, Transmit<'_>)> {
        let packet = self.inward.pop_front()?;
        Some((Receive(packet), Transmit(&mut self.outward)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        Some(Transmit(&mut self.outward))
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
    is_passive: bool,
    /// It left CLOSED or LISTEN once.
    was_open: bool,
    has_shut: bool,
    is_released: bool,
    /// The acknowledgement number of the last segment that it received.
    last_ack: Option<TcpSeqNumber>,
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
        let mut packets = Packets { mtu: settings.mtu, inward: VecDeque::new(), outward: VecDeque::new() };
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

    fn add_socket(&mut self, flow: Flow, is_passive: bool) -> SocketHandle {
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
        let sock =
            Sock { flow, handle, is_passive, was_open: false, has_shut: false, is_released: false, last_ack: None };
        self.socks.push(sock);
        handle
    }

    fn find(&mut self, flow: Flow) -> (&mut Sock, &mut Socket<'static>) {
        let sock = self.socks.iter_mut().find(|s| s.flow == flow).expect("a flow that was opened");
        let socket = self.sockets.get_mut(sock.handle);
        (sock, socket)
    }

    /// Whether a frame is an ACK that says nothing new, for a socket that has nothing but its FIN unacknowledged. To
    /// keep it back loses nothing: a FIN needs no window.
    fn would_kill_timer(&mut self, frame: &[u8]) -> bool {
        let Some(s) = segment(frame).filter(|s| s.checksums_right) else {
            return false;
        };
        let t = &s.tcp;
        let (to, from) = ((s.destination, t.dst_port()), (s.source, t.src_port()));
        let is_this = |socket: &Socket<'_>| {
            let ends = [(socket.local_endpoint(), to), (socket.remote_endpoint(), from)];
            ends.into_iter().all(|(end, (ip, port))| end.is_some_and(|e| IpAddr::from(e.addr) == ip && e.port == port))
        };
        let Some(sock) = self.socks.iter_mut().find(|k| is_this(self.sockets.get(k.handle))) else {
            return false;
        };
        let is_pure = t.ack() && !t.syn() && !t.fin() && !t.rst() && t.payload().is_empty();
        let ack = t.ack().then(|| t.ack_number());
        let says_nothing = is_pure && sock.last_ack == ack;
        sock.last_ack = ack;
        let socket = self.sockets.get::<Socket<'_>>(sock.handle);
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
    fn handle_frame(&mut self, now_us: u64, frame: Vec<u8>) {
        assert_eq!(frame[..6], self.settings.mac.0, "destination of an Ethernet frame");
        assert!(matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd]), "EtherType {:02x?}", &frame[12..14]);
        if self.would_kill_timer(&frame) {
            self.transcript.note(now_us, "kept from smoltcp: a repeated ACK while its FIN is unacknowledged");
            return;
        }
        self.packets.inward.push_back(frame[14..].to_vec());
        self.poll(now_us);
    }

    fn handle_timeout(&mut self, now_us: u64) {
        self.poll(now_us);
    }

    fn next_us(&mut self) -> Option<u64> {
        let next = self.interface.poll_at(at(self.now_us), &self.sockets)?;
        // It says "now" also where another poll would change nothing.
        u64::try_from(next.total_micros()).ok().filter(|&next_us| next_us > self.now_us)
    }

    fn poll_frame(&mut self, now_us: u64) -> Option<Vec<u8>> {
        if self.packets.outward.is_empty() {
            self.poll(now_us);
        }
        let packet = self.packets.outward.pop_front()?;
        let ethertype = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        let mac = &self.settings;
        let frame = [&mac.next_hop.0[..], &mac.mac.0[..], &ethertype[..], &packet[..]].concat();
        self.transcript.frame(now_us, "> wire", &frame);
        Some(frame)
    }

    fn transcript(&self) -> u64 {
        self.transcript.hash()
    }

    fn connect(&mut self, _: u64, flow: Flow, pair: Pair) {
        let handle = self.add_socket(flow, false);
        let socket = self.sockets.get_mut::<Socket>(handle);
        socket.connect(self.interface.context(), pair.remote, pair.local).expect("a fresh socket connects");
    }

    fn accept(&mut self, _: u64, flow: Flow, pair: Pair, any: Option<IpAddr>) {
        // smoltcp's sockets take whoever comes first; with several flows, each has a port of its own.
        let handle = self.add_socket(flow, true);
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
            _ => Status::Broken("smoltcp's socket is closed".into()),
        }
    }

    fn write(&mut self, flow: Flow, bytes: &[u8]) -> usize {
        let (_, socket) = self.find(flow);
        if socket.may_send() { socket.send_slice(bytes).expect("may_send was asked") } else { 0 }
    }

    fn read(&mut self, flow: Flow, bytes: &mut [u8]) -> Read {
        let (_, socket) = self.find(flow);
        match socket.recv_slice(bytes) {
            Ok(0) | Err(RecvError::InvalidState) => Read::Wait,
            Ok(n) => Read::Bytes(n),
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

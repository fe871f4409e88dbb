//! smoltcp with a program of its own: another stack without I/O, and the nearest that there is to the firmware's task.
//!
//! It runs without Ethernet, which is less work than the card has with the same frames.

use std::cell::Cell;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::frames::{ETHERNET_BYTES, Flow, Frames, LOCAL, LOCAL_PORT};
use super::stack::{Ask, Stack};
use crate::measure::Stopwatch;

thread_local! {
    static TIMESTAMP: Cell<u32> = const { Cell::new(1) };
}

fn timestamp() -> u32 {
    TIMESTAMP.with(Cell::get)
}

/// The frames of one turn, and where what is sent goes.
struct Wire<'w, 'f> {
    inward: Option<&'w mut dyn Iterator<Item = &'f [u8]>>,
    outward: &'w mut Frames,
    mtu: usize,
    is_trusted: bool,
}

struct Receive<'a>(&'a [u8]);
struct Transmit<'a>(&'a mut Frames);

impl smoltcp::phy::RxToken for Receive<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl smoltcp::phy::TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let result = f(&mut self.0.room()[..length]);
        self.0.push(length);
        result
    }
}

impl Device for Wire<'_, '_> {
    type RxToken<'a>
        = Receive<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Transmit<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Receive<'_>, Transmit<'_>)> {
        let frame = self.inward.as_mut()?.next()?;
        Some((Receive(&frame[ETHERNET_BYTES..]), Transmit(self.outward)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        self.outward.has_room().then_some(Transmit(self.outward))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        if self.is_trusted {
            capabilities.checksum.tcp = Checksum::Tx;
        }
        capabilities
    }
}

/// smoltcp.
pub struct Smol {
    interface: Interface,
    sockets: SocketSet<'static>,
    mtu: usize,
    is_trusted: bool,
    /// Sockets that listen, or have a connection that is in use.
    busy: Vec<SocketHandle>,
    /// Sockets with a connection that is only there.
    idle: usize,
    /// By the peer's number.
    handles: Vec<Option<SocketHandle>>,
    buffer: Vec<u8>,
    data: Vec<u8>,
    buffer_bytes: usize,
}

impl Smol {
    /// With `sockets` sockets that listen, each with so much buffer in each direction.
    pub fn new(mtu: usize, is_trusted: bool, sockets: usize, buffer_bytes: usize, flows: usize) -> Self {
        let mut nothing = Frames::new(0);
        let mut wire = Wire { inward: None, outward: &mut nothing, mtu, is_trusted };
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // A prefix of no bits: every address is on the link.
            addresses.push(IpCidr::new(IpAddress::Ipv4(LOCAL), 0)).expect("room for an address");
        });
        let mut smol = Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            mtu,
            is_trusted,
            busy: Vec::new(),
            idle: 0,
            handles: vec![None; flows],
            buffer: vec![0; 1 << 16],
            data: vec![b'x'; 1 << 20],
            buffer_bytes,
        };
        smol.add(sockets);
        smol
    }

    /// More sockets that listen.
    pub fn add(&mut self, sockets: usize) {
        for _ in 0..sockets {
            let buffer = || SocketBuffer::new(vec![0; self.buffer_bytes]);
            let mut socket = Socket::new(buffer(), buffer());
            socket.set_nagle_enabled(false);
            socket.set_tsval_generator(Some(timestamp));
            socket.listen(LOCAL_PORT).expect("a fresh socket listens");
            self.busy.push(self.sockets.add(socket));
        }
    }

    /// The connections that there are now are only there from here on.
    pub fn rest(&mut self) {
        let is_open = |handle: &SocketHandle| self.sockets.get::<Socket<'_>>(*handle).state() == State::Established;
        let (open, rest): (Vec<_>, Vec<_>) = self.busy.iter().partition(|handle| is_open(handle));
        self.idle += open.len();
        self.busy = rest;
    }

    fn poll(&mut self, now_us: u64, frames: Option<&Frames>, out: &mut Frames, watch: &mut Stopwatch) {
        TIMESTAMP.with(|t| t.set(1 + (now_us / 1000) as u32));
        let (interface, sockets) = (&mut self.interface, &mut self.sockets);
        let mut iter = frames.map(Frames::iter);
        let inward = iter.as_mut().map(|iter| iter as &mut dyn Iterator<Item = &[u8]>);
        let mut wire = Wire { inward, outward: out, mtu: self.mtu, is_trusted: self.is_trusted };
        watch.time(|| {
            interface.poll(Instant::from_micros(now_us as i64), &mut wire, sockets);
        });
    }
}

impl Stack for Smol {
    fn name(&self) -> &'static str {
        "smoltcp"
    }

    fn header_bytes(&self) -> usize {
        0
    }

    fn exchange(&mut self, now_us: u64, frames: &Frames, out: &mut Frames, watch: &mut Stopwatch) {
        self.poll(now_us, Some(frames), out, watch);
    }

    fn read(&mut self, now_us: u64, out: &mut Frames, watch: &mut Stopwatch) -> usize {
        let mut bytes = 0;
        let (sockets, buffer) = (&mut self.sockets, &mut self.buffer);
        for handle in &self.busy {
            let socket = sockets.get_mut::<Socket<'_>>(*handle);
            match socket.state() {
                // Who listens again costs nothing here.
                State::Closed => socket.listen(LOCAL_PORT).expect("a closed socket listens"),
                State::Listen => {}
                _ => {
                    if let Some(remote) = socket.remote_endpoint() {
                        let IpAddress::Ipv4(address) = remote.addr else { panic!("an IPv4 address") };
                        self.handles[Flow::number(address, remote.port)] = Some(*handle);
                    }
                    if socket.can_recv() {
                        watch.time(|| {
                            while let Ok(n @ 1..) = socket.recv_slice(buffer) {
                                bytes += n;
                            }
                        });
                    }
                }
            }
        }
        if bytes > 0 {
            self.poll(now_us, None, out, watch);
        }
        bytes
    }

    fn ask(&mut self, now_us: u64, asks: &[Ask], out: &mut Frames, watch: &mut Stopwatch) {
        for ask in asks {
            let (Ask::Write(flow, _) | Ask::Close(flow)) = *ask;
            let socket = self.sockets.get_mut::<Socket<'_>>(self.handles[flow].expect("an open connection"));
            let data = &self.data;
            watch.time(|| match *ask {
                Ask::Write(_, bytes) => {
                    let taken = socket.send_slice(&data[..bytes]).expect("an open connection");
                    assert_eq!(taken, bytes, "the buffer has room");
                }
                Ask::Close(_) => socket.close(),
            });
        }
        self.poll(now_us, None, out, watch);
    }

    fn connections(&self) -> usize {
        let is_open = |handle: &&SocketHandle| {
            !matches!(self.sockets.get::<Socket<'_>>(**handle).state(), State::Listen | State::Closed)
        };
        self.idle + self.busy.iter().filter(is_open).count()
    }
}

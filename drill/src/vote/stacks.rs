//! The three that vote, behind one trait: the firmware and the kernel through their stages, and smoltcp.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};

use super::grammar::Act;
use crate::language::{Family, Flags, Segment};
use crate::sockets::Sockets;
use crate::stage::{Stage, local};
use crate::wire::{self, Read};

const MTU: usize = 1500;
const BUFFER_BYTES: usize = 65_535;
/// The peer's port of the segment that marks the end of what the firmware had to say.
const MARK_PORT: u16 = 9;
/// A port where nobody listens.
const CLOSED_PORT: u16 = 1;

/// What a call gave, as far as all three can say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gave {
    /// So many bytes.
    Bytes(u32),
    /// Nothing yet.
    Wait,
    /// The end of the stream.
    End,
    /// Done.
    Done,
    /// An error.
    Error,
    /// There is no connection yet whose call it could be.
    Absent,
}

/// A stack that votes.
pub trait Stack {
    /// Listens at `here` or connects from it to `there`.
    fn open(&mut self, passive: bool, here: SocketAddr, there: SocketAddr);
    /// A packet arrives.
    fn inject(&mut self, packet: &[u8]);
    /// What was sent since, after a while in which what is delayed comes, too.
    fn hear(&mut self) -> Vec<Read>;
    /// The program calls.
    fn act(&mut self, act: Act) -> Gave;
    /// The connection's state; nothing if the program has closed it or it was never there.
    fn state(&mut self) -> Option<&'static str>;
    /// The end of the case.
    fn end(&mut self);
}

/// The names of the states, by Linux's numbers, as RFC 9293 has them.
const STATES: [&str; 13] = [
    "CLOSED",
    "ESTABLISHED",
    "SYN-SENT",
    "SYN-RECEIVED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSED",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
    "SYN-RECEIVED",
];

/// A stage that votes.
pub struct Staged {
    stage: Arc<dyn Stage>,
    sockets: Sockets,
    /// How long it is listened after each step, in microseconds.
    wait_us: u64,
    /// Whether the stage's time is real, so that nothing marks the end of what it says but silence.
    real: bool,
    here: Option<SocketAddr>,
    listener: Option<i32>,
    connection: Option<i32>,
}

impl Staged {
    /// A stage in virtual time.
    pub fn simulated(stage: Arc<dyn Stage>, wait_us: u64) -> Self {
        let sockets = stage.sockets();
        Self { stage, sockets, wait_us, real: false, here: None, listener: None, connection: None }
    }

    /// A stage in real time.
    pub fn real(stage: Arc<dyn Stage>, wait_us: u64) -> Self {
        Self { real: true, ..Self::simulated(stage, wait_us) }
    }

    fn ready(&mut self) {
        if let (Some(listener), None) = (self.listener, self.connection)
            && let (Ok(fd), _) = self.sockets.accept(listener)
        {
            let fd = fd as i32;
            let _ = self.sockets.fcntl(fd, libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK);
            let _ = self.sockets.set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32.to_ne_bytes());
            self.connection = Some(fd);
        }
        if let (Some(fd), true) = (self.connection, self.real) {
            // What is only delayed is no difference. The card's delay is short by its profile.
            let _ = self.sockets.set_option(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, &1i32.to_ne_bytes());
        }
    }

    fn mark(&self) -> Option<Vec<u8>> {
        let family = if self.here?.is_ipv4() { Family::V4 } else { Family::V6 };
        let from = SocketAddr::new(crate::stage::remote(family), MARK_PORT);
        let to = SocketAddr::new(local(family), CLOSED_PORT);
        let segment = Segment {
            ecn: None,
            flags: Flags(Flags::ACK),
            sequence: 0,
            length: 0,
            acknowledgement: Some(0),
            window: None,
            urgent: None,
            options: Some(Vec::new()),
        };
        wire::build(from, to, &segment, &[])
    }
}

impl Stack for Staged {
    fn open(&mut self, passive: bool, here: SocketAddr, there: SocketAddr) {
        self.here = Some(here);
        let domain = if here.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let Ok(fd) = self.sockets.socket(domain, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, libc::IPPROTO_TCP) else {
            return;
        };
        let fd = fd as i32;
        let _ = self.sockets.set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32.to_ne_bytes());
        let _ = self.sockets.set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1i32.to_ne_bytes());
        let _ = self.sockets.bind(fd, here);
        if passive {
            let _ = self.sockets.listen(fd, 4);
            self.listener = Some(fd);
        } else {
            let _ = self.sockets.connect(fd, there);
            self.connection = Some(fd);
        }
    }

    fn inject(&mut self, packet: &[u8]) {
        self.ready();
        // A packet that the stage does not take shows as one that is not answered.
        let _ = self.stage.inject(packet);
    }

    fn hear(&mut self) -> Vec<Read> {
        let until = self.stage.now_us() + self.wait_us;
        let mut heard = Vec::new();
        if self.real {
            while let Some(sent) = self.stage.sniff(until) {
                heard.extend(wire::read(&sent.bytes));
            }
        } else {
            self.stage.sleep_until(until);
            if let Some(mark) = self.mark() {
                let _ = self.stage.inject(&mark);
                while let Some(sent) = self.stage.sniff(u64::MAX) {
                    match wire::read(&sent.bytes) {
                        Some(read) if read.destination.port() == MARK_PORT => break,
                        read => heard.extend(read),
                    }
                }
            }
        }
        self.ready();
        heard
    }

    fn act(&mut self, act: Act) -> Gave {
        self.ready();
        let Some(fd) = self.connection else { return Gave::Absent };
        let nothing = |outcome| match outcome {
            Ok(_) => Gave::Done,
            Err(_) => Gave::Error,
        };
        match act {
            Act::Write(n) => match self.sockets.send(fd, &vec![7; n as usize], Some(libc::MSG_NOSIGNAL)) {
                Ok(n) => Gave::Bytes(n as u32),
                Err(libc::EAGAIN) => Gave::Wait,
                Err(_) => Gave::Error,
            },
            Act::Read => match self.sockets.receive(fd, BUFFER_BYTES, Some(libc::MSG_DONTWAIT)).0 {
                Ok(0) => Gave::End,
                Ok(n) => Gave::Bytes(n as u32),
                Err(libc::EAGAIN) => Gave::Wait,
                Err(_) => Gave::Error,
            },
            Act::Shutdown => nothing(self.sockets.shutdown(fd, libc::SHUT_WR)),
            Act::Close => {
                let gave = nothing(self.sockets.close(fd));
                self.connection = None;
                // Nobody is to be accepted in its place.
                if let Some(listener) = self.listener.take() {
                    let _ = self.sockets.close(listener);
                }
                gave
            }
        }
    }

    fn state(&mut self) -> Option<&'static str> {
        let (outcome, info) = self.sockets.get_option(self.connection?, libc::IPPROTO_TCP, libc::TCP_INFO, 240);
        outcome.ok()?;
        STATES.get(usize::from(*info.first()?)).copied()
    }

    fn end(&mut self) {
        for fd in self.connection.take().into_iter().chain(self.listener.take()) {
            let _ =
                self.sockets.set_option(fd, libc::SOL_SOCKET, libc::SO_LINGER, &[1i32.to_ne_bytes(), [0; 4]].concat());
            let _ = self.sockets.close(fd);
        }
    }
}

/// The wire as smoltcp sees it.
#[derive(Default)]
struct Packets {
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
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// smoltcp with one socket.
pub struct Smol {
    interface: Interface,
    packets: Packets,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    now_us: u64,
    wait_us: u64,
    passive: bool,
    /// The program has taken the connection.
    accepted: bool,
    shut: bool,
    released: bool,
}

impl Smol {
    /// A fresh one.
    pub fn new(family: Family, seed: u64, wait_us: u64) -> Self {
        let mut packets = Packets::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut packets, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let prefix = if family == Family::V4 { 24 } else { 64 };
            // There is room for more than one.
            let _ = addresses.push(IpCidr::new(local(family).into(), prefix));
        });
        let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self {
            interface,
            packets,
            sockets,
            handle,
            now_us: 0,
            wait_us,
            passive: false,
            accepted: false,
            shut: false,
            released: false,
        }
    }

    fn poll(&mut self) {
        self.interface.poll(Instant::from_micros(self.now_us as i64), &mut self.packets, &mut self.sockets);
        let state = self.sockets.get::<Socket>(self.handle).state();
        self.accepted |= !matches!(state, State::Closed | State::Listen | State::SynSent | State::SynReceived);
    }
}

impl Stack for Smol {
    fn open(&mut self, passive: bool, here: SocketAddr, there: SocketAddr) {
        self.passive = passive;
        let socket = self.sockets.get_mut::<Socket>(self.handle);
        if passive {
            let _ = socket.listen(IpListenEndpoint { addr: Some(here.ip().into()), port: here.port() });
        } else {
            let _ = socket.connect(self.interface.context(), there, here);
        }
        self.poll();
    }

    fn inject(&mut self, packet: &[u8]) {
        self.packets.inward.push_back(packet.to_vec());
        self.poll();
    }

    fn hear(&mut self) -> Vec<Read> {
        let until = self.now_us + self.wait_us;
        while self.now_us < until {
            self.poll();
            let next = self.interface.poll_at(Instant::from_micros(self.now_us as i64), &self.sockets);
            let next = next.map_or(until, |at| at.total_micros() as u64);
            self.now_us = next.clamp(self.now_us + 1, until);
        }
        self.poll();
        self.packets.outward.drain(..).filter_map(|packet| wire::read(&packet)).collect()
    }

    fn act(&mut self, act: Act) -> Gave {
        if self.passive && !self.accepted {
            return Gave::Absent;
        }
        let socket = self.sockets.get_mut::<Socket>(self.handle);
        let gave = match act {
            Act::Write(n) => match socket.send_slice(&vec![7; n as usize]) {
                Ok(n) => Gave::Bytes(n as u32),
                Err(_) => Gave::Error,
            },
            Act::Read => match socket.recv_slice(&mut vec![0; BUFFER_BYTES]) {
                Ok(0) => Gave::Wait,
                Ok(n) => Gave::Bytes(n as u32),
                Err(RecvError::Finished) => Gave::End,
                Err(RecvError::InvalidState) if !self.accepted => Gave::Wait,
                Err(RecvError::InvalidState) => Gave::Error,
            },
            Act::Shutdown => {
                let open = socket.state() != State::Closed;
                socket.close();
                self.shut = true;
                if open { Gave::Done } else { Gave::Error }
            }
            Act::Close => {
                socket.close();
                self.released = true;
                Gave::Done
            }
        };
        self.poll();
        gave
    }

    fn state(&mut self) -> Option<&'static str> {
        if self.released || self.passive && !self.accepted {
            return None;
        }
        Some(match self.sockets.get::<Socket>(self.handle).state() {
            State::Closed => "CLOSED",
            State::Listen => "LISTEN",
            State::SynSent => "SYN-SENT",
            State::SynReceived => "SYN-RECEIVED",
            State::Established => "ESTABLISHED",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
        })
    }

    fn end(&mut self) {}
}

//! The first six attacks over the real device, beside Linux on the same machine in the same run.
//!
//! The card is `toe-nic` with the standard profile, its wire one end of a pair of virtual Ethernet devices in a namespace of this
//! program's own, and for comparison a TAP. This process is its guest (a [`toe_guest::Station`] with an echo service) and the
//! attacker: a packet socket at the wire's other side sends at a steady rate from 198.51.100.0/24, while clients of the namespace's kernel connect. Linux takes the same flood over another such
//! pair, with SYN cookies and without.
//!
//! The sender is to cost as little as it can, because it shares a machine with the card: its frames are made before the flood
//! begins and go out again and again ([`FRAMES`] of them, so that a 4-tuple comes back when nobody remembers it), past the
//! queueing disciplines and many to a call. What the card's process used of a processor is printed with each flood: so much of
//! one that the machine's other work does not count.
//!
//! Each lasts a given time and ends by itself; the namespaces go with it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use toe_guest_tests::net::{GUEST_MAC, GUEST_V4, PEER_MAC, PEER_V4, TAP};
use toe_guest_tests::{Bench, BenchOptions, CardOptions, CardWire, Namespace, host, rate};
use toe_impair::Random;

use crate::attacks::syn_options;
use crate::frames::{Tcp, flag};
use crate::lab::standard_card;
use crate::program::REQUEST_BYTES;
use crate::puppets::SYN_OPTIONS;

/// Frames that must get through, per second.
pub const FLOOD_PER_S: u64 = 350_000;
/// Frames handed to the kernel at once.
const BATCH: usize = 64;
/// Frames that a flood consists of, again and again.
const FRAMES: usize = 1 << 16;
/// Frames that the TAP holds for the card: what comes while it does not run.
const QUEUE: &str = "4096";
/// Honest clients at a time.
const CLIENTS: usize = 8;
/// How long one of them waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections of the attacker's of `segment-smack`.
const OWN: u16 = 16;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long each flood lasts.
    pub time: Duration,
    /// Frames per second of the SYN flood; the others send a tenth.
    pub per_s: u64,
    /// Of all chance.
    pub seed: u64,
}

/// What came of one flood.
#[derive(Clone, Debug)]
pub struct Flooded {
    /// The attack, and against whom.
    pub name: String,
    /// Frames sent, and those of them that reached the other side, per second.
    pub sent_per_s: u64,
    /// See `sent_per_s`.
    pub arrived_per_s: u64,
    /// Honest clients: asked, completed.
    pub clients: (usize, usize),
    /// What 99 of 100 of their handshakes took at most.
    pub handshake_p99: Duration,
    /// What the card's process used of a processor for each frame that reached it.
    pub each: Option<Duration>,
    /// Whether it held; `None` where it is only to compare with.
    pub held: Option<bool>,
}

impl Flooded {
    /// One line.
    pub fn text(&self) -> String {
        let mut s = String::new();
        let verdict = self.held.map_or("for comparison", |held| if held { "held" } else { "FAILED" });
        let (asked, completed) = self.clients;
        // Writing to a string does not fail.
        let _ = write!(
            s,
            "{:32} {:>8}/s sent, {:>8}/s arrived; {completed} of {asked} honest connections, handshake {:.1} ms (99 of 100): {verdict}",
            self.name,
            self.sent_per_s,
            self.arrived_per_s,
            self.handshake_p99.as_secs_f64() * 1000.0
        );
        if let Some(each) = self.each.filter(|each| !each.is_zero()) {
            let a_core = 1.0 / each.as_secs_f64();
            let _ = write!(s, "; {:.2} us of a processor each, {a_core:.0}/s on one core", each.as_secs_f64() * 1e6);
        }
        s
    }
}

/// A raw socket on an interface.
struct Sender {
    socket: OwnedFd,
    sent: u64,
}

impl Sender {
    /// To be called inside the namespace.
    fn on(interface: &str) -> Result<Self> {
        // SAFETY: creates a socket, and touches no memory of ours.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        ensure!(fd >= 0, "a packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: the name ends with a zero and lives as long as the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        ensure!(index > 0, "no interface {interface}");
        let bypass: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: reads four bytes of a local variable.
        let set = unsafe {
            libc::setsockopt(fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, (&raw const bypass).cast(), size)
        };
        ensure!(set == 0, "PACKET_QDISC_BYPASS: {}", std::io::Error::last_os_error());
        // SAFETY: all zeros is a value of this plain structure.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index as i32;
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: reads the structure above.
        let bound = unsafe { libc::bind(fd, (&raw const address).cast(), size) };
        ensure!(bound == 0, "binding to {interface}: {}", std::io::Error::last_os_error());
        Ok(Self { socket, sent: 0 })
    }

    /// Sends the next `count` of them, at most as many as there are up to their end; what the interface has no room for is not
    /// sent.
    fn send(&mut self, made: &mut Made, count: usize) -> Result<()> {
        let messages = made.next(count);
        // SAFETY: the messages, their parts and the frames belong to `made`, which outlives the call, and it writes only to the
        // messages' lengths.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, libc::MSG_DONTWAIT)
        };
        match std::io::Error::last_os_error() {
            _ if sent >= 0 => self.sent += sent as u64,
            error if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {}
            error => return Err(error).context("sending frames"),
        }
        Ok(())
    }
}

/// Frames that are made, and what the kernel is to be told of them.
struct Made {
    messages: Vec<libc::mmsghdr>,
    at: usize,
    // What the messages point to: neither changes its place.
    _parts: Vec<libc::iovec>,
    _frames: Vec<Vec<u8>>,
}

impl Made {
    fn new(mut frames: Vec<Vec<u8>>) -> Self {
        let part = |f: &mut Vec<u8>| libc::iovec { iov_base: f.as_mut_ptr().cast(), iov_len: f.len() };
        let mut parts: Vec<_> = frames.iter_mut().map(part).collect();
        let message = |part: &mut libc::iovec| {
            // SAFETY: all zeros is a value of this plain structure.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        };
        Self { messages: parts.iter_mut().map(message).collect(), at: 0, _parts: parts, _frames: frames }
    }

    fn next(&mut self, count: usize) -> &mut [libc::mmsghdr] {
        let from = self.at;
        let end = (from + count).min(self.messages.len());
        self.at = if end == self.messages.len() { 0 } else { end };
        &mut self.messages[from..end]
    }
}

/// An attacker's source of frames.
struct Frames {
    kind: Kind,
    random: Random,
    service: SocketAddr,
    stations: [u8; 12],
    options: Vec<u8>,
    /// Numbers of its own connections: end, sequence number, acknowledgement.
    own: Vec<(SocketAddr, u32, u32)>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Syn,
    SynWithOptions,
    Forgery,
    Nobody(u8),
    Collisions,
    Smack,
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes = text.split(':').map(|b| u8::from_str_radix(b, 16)).collect::<Result<Vec<_>, _>>()?;
    bytes.try_into().ok().context("an Ethernet address of six bytes")
}

impl Frames {
    fn end(&mut self) -> SocketAddr {
        let host = self.random.between(1, 254) as u8;
        let port = self.random.between(1024, 65_535) as u16;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, host)), port)
    }

    fn made(&mut self) -> Vec<u8> {
        let mut frame = Vec::new();
        self.next(&mut frame);
        frame
    }

    fn next(&mut self, frame: &mut Vec<u8>) {
        let from = self.end();
        let (seq, ack) = (self.random.bits() as u32, self.random.bits() as u32);
        let to = self.service;
        match self.kind {
            Kind::Syn => Tcp::new(from, to, flag::SYN, seq, 0).write(frame),
            Kind::SynWithOptions => {
                syn_options(&mut self.random, &mut self.options);
                Tcp::new(from, to, flag::SYN, seq, 0).options(&self.options).write(frame);
            }
            Kind::Forgery if self.random.one_in(10) => Tcp::new(from, to, flag::SYN, seq, 0).write(frame),
            Kind::Forgery => Tcp::new(from, to, flag::ACK, seq, ack).write(frame),
            Kind::Nobody(flags) => Tcp::new(from, to, flags, seq, ack).write(frame),
            Kind::Collisions => {
                // Ports that differ in their high bits alone, from one address: what a simple hash would put together.
                let port = (self.random.below(63) as u16 + 1) << 10;
                let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), port);
                Tcp::new(from, to, flag::SYN, seq, 0).write(frame);
            }
            Kind::Smack => {
                let (from, seq, ack) = self.own[self.random.below(self.own.len() as u64) as usize];
                let seq = seq.wrapping_add(2 + 2 * self.random.below(30_000) as u32);
                Tcp::new(from, to, flag::ACK, seq, ack).text(b"x").write(frame);
            }
        }
        frame[..12].copy_from_slice(&self.stations);
    }
}

/// Sends at a steady rate until `stop`; how many frames were sent, and how long it took.
fn flood(sender: &mut Sender, made: &mut Made, per_s: u64, time: Duration) -> Result<Duration> {
    let start = Instant::now();
    let mut asked = 0;
    while start.elapsed() < time {
        let due = (start.elapsed().as_micros() as u64 * per_s / 1_000_000).saturating_sub(asked);
        if due < BATCH as u64 {
            std::thread::sleep(Duration::from_micros(50));
            continue;
        }
        // What could not be sent in time is not sent at once later.
        asked += due;
        for _ in 0..due.min(4096) / BATCH as u64 {
            sender.send(made, BATCH)?;
        }
    }
    Ok(start.elapsed())
}

/// Honest clients, one after the other in a few threads, until `stop`: how many, how many completed, handshakes.
fn clients(namespace: &Namespace, service: SocketAddr, stop: &AtomicBool) -> Result<(usize, Vec<Duration>)> {
    let one = || -> Result<Duration> {
        let begun = Instant::now();
        let mut stream = TcpStream::connect_timeout(&service, PATIENCE)?;
        let took = begun.elapsed();
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = [0x5a; REQUEST_BYTES as usize];
        stream.write_all(&request)?;
        let mut answer = [0; REQUEST_BYTES as usize];
        stream.read_exact(&mut answer)?;
        ensure!(answer == request, "another answer");
        Ok(took)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    namespace.enter(|| {
                        let (mut asked, mut done) = (0, Vec::new());
                        while !stop.load(Ordering::Relaxed) {
                            asked += 1;
                            done.extend(one().ok());
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        Ok((asked, done))
                    })
                })
            })
            .collect();
        let mut all = (0, Vec::new());
        for thread in threads {
            let (asked, done) = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            all.0 += asked;
            all.1.extend(done);
        }
        Ok(all)
    })
}

fn p99(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    let n = durations.len();
    durations.get((n - n / 100).saturating_sub(1)).copied().unwrap_or_default()
}

/// One flood with honest clients beside it. `arrived` tells how many frames the other side has had.
fn one(
    name: &str,
    namespace: &Namespace,
    interface: &str,
    mut frames: Frames,
    (per_s, time): (u64, Duration),
    arrived: impl Fn() -> Result<u64>,
    card: Option<u32>,
) -> Result<Flooded> {
    let stop = AtomicBool::new(false);
    let mut sender = namespace.enter(|| Sender::on(interface))?;
    let mut made = Made::new((0..FRAMES).map(|_| frames.made()).collect());
    let used = || card.map_or(Ok(Duration::ZERO), processor_time);
    let (before, used_before) = (arrived()?, used()?);
    let service = frames.service;
    let (took, after, used, (asked, done)) = std::thread::scope(|scope| {
        let honest = scope.spawn(|| clients(namespace, service, &stop));
        let took = flood(&mut sender, &mut made, per_s, time);
        let (after, used) = (arrived(), used());
        stop.store(true, Ordering::Relaxed);
        let honest = honest.join().map_err(|_| anyhow::anyhow!("the clients panicked"))??;
        anyhow::Ok((took?, after?, used? - used_before, honest))
    })?;
    let per_s = |n: u64| (n as f64 / took.as_secs_f64()) as u64;
    Ok(Flooded {
        name: name.to_owned(),
        sent_per_s: per_s(sender.sent),
        arrived_per_s: per_s(after - before),
        clients: (asked, done.len()),
        handshake_p99: p99(done),
        each: card.map(|_| used / u32::try_from(after - before).unwrap_or(u32::MAX).max(1)),
        held: None,
    })
}

/// What a process has used of processors so far, in its own code and in the kernel.
fn processor_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, behind_name) = stat.rsplit_once(')').context("a name in brackets in /proc/PID/stat")?;
    // utime and stime are the 14th and 15th field; the third is the first behind the name.
    let ticks: u64 = behind_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
    // SAFETY: asks for a number.
    let per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(Duration::from_secs_f64(ticks as f64 / per_s.max(1) as f64))
}

/// An echo service for as long as the listener lives.
fn echo(mut stream: impl Read + Write) {
    let mut request = [0; REQUEST_BYTES as usize];
    // A client that goes away ends it.
    let _ = stream.read_exact(&mut request).and_then(|()| stream.write_all(&request));
    let _ = stream.read(&mut request);
}

/// All of it, each result given to `tell` as it comes.
///
/// # Errors
/// If the card, the namespaces or the sockets fail. A flood that does not hold is no error.
pub fn run(plan: &Plan, mut tell: impl FnMut(&Flooded)) -> Result<Vec<Flooded>> {
    let mut all = on_card(plan, CardWire::Interface, &mut tell)?;
    all.extend(on_card(plan, CardWire::Tap, &mut tell)?);
    for (cookies, name) in [("1", "syn-flood, Linux with cookies"), ("0", "syn-flood, Linux without cookies")] {
        let flooded = on_linux(plan, cookies, name)?;
        tell(&flooded);
        all.push(flooded);
    }
    Ok(all)
}

fn on_card(plan: &Plan, wire: CardWire, tell: &mut impl FnMut(&Flooded)) -> Result<Vec<Flooded>> {
    let directory = tempfile::Builder::new().prefix("toe-").tempdir()?;
    let profile = directory.path().join("standard.toml");
    std::fs::write(&profile, toml::to_string(&standard_card())?)?;
    let card = CardOptions { profile: profile.display().to_string(), wire, ..CardOptions::default() };
    let limit = plan.time * 20 + Duration::from_secs(120);
    let bench = Bench::start(&BenchOptions { card, limit, ..BenchOptions::default() })?;
    let named = match wire {
        CardWire::Tap => {
            bench.namespace.ip(&["link", "set", TAP, "txqueuelen", QUEUE])?;
            "card on a TAP"
        }
        CardWire::Interface => "card",
    };
    let listener = bench.listen(GUEST_V4)?;
    let service = SocketAddr::new(GUEST_V4, listener.local_addr()?.port());
    let accepting = listener.try_clone()?;
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let server = std::thread::spawn(move || {
        while let Ok((stream, _)) = accepting.accept() {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            std::thread::spawn(move || echo(stream));
        }
    });
    let mut all = Vec::new();
    let kinds = [
        ("syn-flood", Kind::Syn, plan.per_s),
        ("syn-flood-options", Kind::SynWithOptions, plan.per_s / 2),
        ("cookie-forgery", Kind::Forgery, plan.per_s / 10),
        ("ack-flood", Kind::Nobody(flag::ACK), plan.per_s / 10),
        ("rst-flood", Kind::Nobody(flag::RST), plan.per_s / 10),
        ("fin-flood", Kind::Nobody(flag::FIN | flag::ACK), plan.per_s / 10),
        ("collisions", Kind::Collisions, plan.per_s / 10),
        ("segment-smack", Kind::Smack, plan.per_s / 10),
    ];
    for (name, kind, per_s) in kinds {
        let mut frames = Frames {
            kind,
            random: Random::new(plan.seed),
            service,
            stations: [mac(GUEST_MAC)?, mac(PEER_MAC)?].concat().try_into().unwrap_or_default(),
            options: Vec::new(),
            own: Vec::new(),
        };
        if kind == Kind::Smack {
            frames.own = shake_hands(&bench.namespace, &frames)?;
            ensure!(!frames.own.is_empty(), "no connection of the attacker's");
        }
        let wire_in = || bench.counter("wire-in");
        let rate = (per_s, plan.time);
        let card = Some(bench.card_pid());
        let mut flooded = one(&format!("{name}, {named}"), &bench.namespace, TAP, frames, rate, wire_in, card)?;
        let (asked, completed) = flooded.clients;
        let enough = kind != Kind::Syn || flooded.arrived_per_s >= FLOOD_PER_S * 98 / 100;
        flooded.held = Some(completed == asked && enough);
        tell(&flooded);
        all.push(flooded);
    }
    stop.store(true, Ordering::Relaxed);
    // Whoever accepts is told by a last connection.
    let _ = bench.namespace.enter(|| Ok(TcpStream::connect_timeout(&service, PATIENCE)?));
    server.join().map_err(|_| anyhow::anyhow!("the echo service panicked"))?;
    Ok(all)
}

/// Handshakes of the attacker's own connections, by a packet socket: the kernel knows nothing of them.
fn shake_hands(namespace: &Namespace, frames: &Frames) -> Result<Vec<(SocketAddr, u32, u32)>> {
    namespace.enter(|| {
        let mut sender = Sender::on(TAP)?;
        let mut socket = listening(&sender)?;
        let mut own = Vec::new();
        for n in 0..OWN {
            let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 200)), 20_000 + n);
            let mut say = |flags, seq, ack, options: &[u8]| -> Result<()> {
                let mut frame = Tcp::new(from, frames.service, flags, seq, ack).options(options).frame();
                frame[..12].copy_from_slice(&frames.stations);
                sender.send(&mut Made::new(vec![frame]), 1)
            };
            say(flag::SYN, 1000, 0, &SYN_OPTIONS)?;
            let answer = host::wait_for("a SYN-ACK", PATIENCE, || {
                let mut buffer = [0; 2048];
                while let Ok(length) = socket.read(&mut buffer) {
                    if let Some(tcp) = Tcp::read(&buffer[..length])
                        && tcp.to == from
                        && tcp.has(flag::SYN)
                    {
                        return Ok(Some(tcp.seq));
                    }
                }
                Ok(None)
            })?;
            say(flag::ACK, 1001, answer.wrapping_add(1), &[])?;
            own.push((from, 1001, answer.wrapping_add(1)));
        }
        Ok(own)
    })
}

/// Another packet socket on the same interface, to read from without waiting.
fn listening(sender: &Sender) -> Result<std::fs::File> {
    let fd = sender.socket.as_raw_fd();
    // SAFETY: all zeros is a value of this plain structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: writes at most `size` bytes to the structure above.
    let got = unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut size) };
    ensure!(got == 0, "the sender's interface: {}", std::io::Error::last_os_error());
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: creates a socket, and touches no memory of ours.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    ensure!(fd >= 0, "a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: reads the structure above.
    let bound = unsafe { libc::bind(fd, (&raw const address).cast(), size) };
    ensure!(bound == 0, "binding: {}", std::io::Error::last_os_error());
    Ok(std::fs::File::from(socket))
}

/// The SYN flood against the kernel of this machine.
fn on_linux(plan: &Plan, cookies: &str, name: &str) -> Result<Flooded> {
    const WIRE: &str = "wire0";
    let (peer, guest) = (Namespace::new()?, Namespace::new()?);
    let far = ["link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", guest.name()];
    peer.ip(&far)?;
    for (namespace, address, mac) in [(&peer, PEER_V4, PEER_MAC), (&guest, GUEST_V4, GUEST_MAC)] {
        namespace.ip(&["link", "set", WIRE, "address", mac, "up"])?;
        namespace.ip(&["address", "add", &format!("{address}/24"), "dev", WIRE])?;
    }
    // What the kernel sends to the flood's addresses goes back over the wire, as the card's answers do.
    guest.ip(&["route", "add", "198.51.100.0/24", "via", &PEER_V4.to_string()])?;
    rate::set_kernel(&guest, "tcp_syncookies", cookies)?;
    rate::set_kernel(&guest, "tcp_max_syn_backlog", "1024")?;
    let listener: TcpListener = guest.enter(|| Ok(TcpListener::bind((GUEST_V4, 0))?))?;
    let service = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let stop = AtomicBool::new(false);
    let frames = Frames {
        kind: Kind::Syn,
        random: Random::new(plan.seed),
        service,
        stations: [mac(GUEST_MAC)?, mac(PEER_MAC)?].concat().try_into().unwrap_or_default(),
        options: Vec::new(),
        own: Vec::new(),
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let _ = stream.set_nonblocking(false);
                        let _ = stream.set_read_timeout(Some(PATIENCE));
                        std::thread::spawn(move || echo(stream));
                    }
                    Err(_) => std::thread::sleep(Duration::from_micros(500)),
                }
            }
        });
        let arrived = || rate::kernel_counter(&guest, "snmp", "Tcp: ", "InSegs");
        let flooded = one(name, &peer, WIRE, frames, (plan.per_s, plan.time), arrived, None);
        stop.store(true, Ordering::Relaxed);
        flooded
    })
}

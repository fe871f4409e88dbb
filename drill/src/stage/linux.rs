//! The Linux kernel in a network namespace of its own, with a TUN interface in front of it, in real time.
//!
//! A namespace belongs to a thread: what runs in [`in_namespace`] runs on one that has its own, and so do the threads that
//! it starts. With the thread and the last descriptor the namespace is gone. Nothing of the machine's own network is
//! touched. It takes root and `/dev/net/tun`; where they are missing, [`Unavailable`] says so.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Sent, Stage, local};
use crate::language::Family;
use crate::sockets::Sockets;

const TOLERANCE_US: u64 = 10_000;
const PACKET_BYTES_MAX: usize = 65_536;
/// How often the reader looks whether it is to end.
const READER_LOOKS_MS: i32 = 20;
/// How long an address may take until it can be used.
const USABLE_MAX: Duration = Duration::from_secs(5);
const NAME: &[u8] = b"drill0";
const PREFIX_V4: [u8; 4] = [255, 255, 255, 0];
const PREFIX_V6: u32 = 64;

/// What makes a run depend on an earlier one, or puts packets of other protocols on the wire.
const SYSCTLS: [&str; 7] = [
    "net.ipv4.tcp_no_metrics_save=1",
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv6.conf.default.router_solicitations=0",
    "net.ipv6.conf.default.addr_gen_mode=1",
    "net.ipv4.tcp_timestamps=1",
];

/// Why there is no such stage here.
#[derive(Debug, thiserror::Error)]
#[error("no network namespace with a TUN here: {step}: {source}")]
pub struct Unavailable {
    step: String,
    source: io::Error,
}

trait Step<T> {
    fn step(self, step: &str) -> Result<T, Unavailable>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: &str) -> Result<T, Unavailable> {
        self.map_err(|source| Unavailable { step: step.to_owned(), source })
    }
}

/// Of the threads that play against the kernel.
const NICENESS: libc::c_int = -10;

/// Runs something on a thread with a new namespace.
///
/// # Errors
/// There can be none here.
pub fn in_namespace<T: Send>(run: impl FnOnce() -> Result<T, Unavailable> + Send) -> Result<T, Unavailable> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: takes a flag; only this thread is moved.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).step("unshare")?;
            hurry();
            run()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Asks that this thread, and those that it starts, run before others: they mostly sleep, and the kernel's timers do not wait
/// for them on a busy machine. Where that is not granted, times are less exact. Not a real-time priority: two threads of
/// that which wait for a third would keep a machine with two processors to themselves.
fn hurry() {
    // SAFETY: takes numbers; zero is the calling thread.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[derive(Debug, Default)]
struct Heard {
    queue: Mutex<VecDeque<Sent>>,
    news: Condvar,
    over: AtomicBool,
}

/// The kernel of the calling thread's namespace.
#[derive(Debug)]
pub struct Linux {
    tun: File,
    began: Instant,
    heard: Arc<Heard>,
    reader: Option<JoinHandle<()>>,
}

impl Linux {
    /// Sets up the namespace of the calling thread, which must be a fresh one ([`in_namespace`]).
    ///
    /// # Errors
    /// A step that the kernel refuses.
    pub fn new(sysctls: &[String], mtu: u32) -> Result<Self, Unavailable> {
        for setting in SYSCTLS.iter().copied().chain(sysctls.iter().map(String::as_str)) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            let path = format!("/proc/sys/{}", name.trim().replace('.', "/"));
            std::fs::write(&path, value.trim()).step(setting)?;
        }
        let tun = File::options().read(true).write(true).open("/dev/net/tun").step("/dev/net/tun")?;
        let mut request = Request::new(NAME);
        request.put(&((libc::IFF_TUN | libc::IFF_NO_PI) as u16).to_ne_bytes());
        request.ask(tun.as_raw_fd(), libc::TUNSETIFF as _).step("TUNSETIFF")?;
        for family in [libc::AF_INET, libc::AF_INET6] {
            // SAFETY: takes numbers.
            let fd = check(unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }).step("socket")?;
            // SAFETY: a new descriptor that nobody else has.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            configure(&socket, family, mtu)?;
        }
        usable()?;
        let heard = Arc::new(Heard::default());
        let began = Instant::now();
        let reader = {
            let heard = Arc::clone(&heard);
            let tun = tun.try_clone().step("dup")?;
            std::thread::spawn(move || listen(tun, &heard, began))
        };
        Ok(Self { tun, began, heard, reader: Some(reader) })
    }
}

/// A `struct ifreq`: a name, and a union.
struct Request {
    bytes: [u8; 40],
}

impl Request {
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; 40];
        bytes[..name.len()].copy_from_slice(name);
        Self { bytes }
    }

    fn put(&mut self, value: &[u8]) {
        self.bytes[16..16 + value.len()].copy_from_slice(value);
    }

    fn ask(&mut self, fd: libc::c_int, request: libc::Ioctl) -> io::Result<()> {
        // SAFETY: the requests used here read and write a `struct ifreq`, which is no longer than this.
        check(unsafe { libc::ioctl(fd, request, self.bytes.as_mut_ptr()) }).map(drop)
    }
}

fn configure(socket: &OwnedFd, family: libc::c_int, mtu: u32) -> Result<(), Unavailable> {
    let fd = socket.as_raw_fd();
    let v4 = |ip: [u8; 4]| {
        let mut bytes = [0u8; 16];
        bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        bytes[4..8].copy_from_slice(&ip);
        bytes
    };
    if family == libc::AF_INET {
        let mut request = Request::new(NAME);
        request.put(&mtu.to_ne_bytes());
        request.ask(fd, libc::SIOCSIFMTU as _).step("SIOCSIFMTU")?;
        for name in [b"lo".as_slice(), NAME] {
            let mut request = Request::new(name);
            request.put(&((libc::IFF_UP | libc::IFF_RUNNING) as u16).to_ne_bytes());
            request.ask(fd, libc::SIOCSIFFLAGS as _).step("SIOCSIFFLAGS")?;
        }
        let IpAddr::V4(ip) = local(Family::V4) else { return Ok(()) };
        let mut request = Request::new(NAME);
        request.put(&v4(ip.octets()));
        request.ask(fd, libc::SIOCSIFADDR as _).step("SIOCSIFADDR")?;
        let mut request = Request::new(NAME);
        request.put(&v4(PREFIX_V4));
        return request.ask(fd, libc::SIOCSIFNETMASK as _).step("SIOCSIFNETMASK");
    }
    let mut request = Request::new(NAME);
    request.ask(fd, libc::SIOCGIFINDEX as _).step("SIOCGIFINDEX")?;
    // A `struct in6_ifreq`: address, prefix length, interface.
    let IpAddr::V6(ip) = local(Family::V6) else { return Ok(()) };
    let mut bytes = [0u8; 24];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..20].copy_from_slice(&PREFIX_V6.to_ne_bytes());
    bytes[20..].copy_from_slice(&request.bytes[16..20]);
    // SAFETY: for an IPv6 socket SIOCSIFADDR reads a `struct in6_ifreq`.
    check(unsafe { libc::ioctl(fd, libc::SIOCSIFADDR as _, bytes.as_ptr()) }).step("SIOCSIFADDR (IPv6)").map(drop)
}

/// Waits until the IPv6 address is no longer tentative: even without duplicate address detection that takes a moment.
fn usable() -> Result<(), Unavailable> {
    let began = Instant::now();
    loop {
        match std::net::UdpSocket::bind((local(Family::V6), 0)) {
            Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable && began.elapsed() < USABLE_MAX => {
                std::thread::sleep(Duration::from_millis(1));
            }
            bound => return bound.map(drop).step("the IPv6 address"),
        }
    }
}

/// Notes what the kernel sends, and when.
fn listen(mut tun: File, heard: &Heard, began: Instant) {
    let mut buffer = vec![0u8; PACKET_BYTES_MAX];
    while !heard.over.load(Ordering::Relaxed) {
        let mut entry = libc::pollfd { fd: tun.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `entry` lives through the call.
        if unsafe { libc::poll(&raw mut entry, 1, READER_LOOKS_MS) } <= 0 {
            continue;
        }
        let Ok(length) = tun.read(&mut buffer) else { return };
        let at_us = began.elapsed().as_micros() as u64;
        if let Ok(mut queue) = heard.queue.lock() {
            queue.push_back(Sent { at_us, bytes: buffer[..length].to_vec() });
            heard.news.notify_all();
        }
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        self.heard.over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Stage for Linux {
    fn name(&self) -> &'static str {
        "linux"
    }

    fn tolerance_us(&self) -> u64 {
        TOLERANCE_US
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn sleep_until(&self, us: u64) {
        std::thread::sleep(Duration::from_micros(us.saturating_sub(self.now_us())));
    }

    fn inject(&self, packet: &[u8]) -> io::Result<()> {
        (&self.tun).write_all(packet)
    }

    fn sniff(&self, until_us: u64) -> Option<Sent> {
        let mut queue = self.heard.queue.lock().ok()?;
        loop {
            if let Some(sent) = queue.pop_front() {
                return Some(sent);
            }
            let left = until_us.checked_sub(self.now_us()).filter(|left| *left > 0)?;
            queue = self.heard.news.wait_timeout(queue, Duration::from_micros(left)).ok()?.0;
        }
    }

    fn sockets(&self) -> Sockets {
        Sockets::Kernel
    }

    fn shell(&self, command: &str) -> Option<io::Result<()>> {
        let status = std::process::Command::new("sh").arg("-c").arg(command).status();
        Some(status.and_then(|status| {
            if status.success() { Ok(()) } else { Err(io::Error::other(format!("the command ended with {status}"))) }
        }))
    }
}

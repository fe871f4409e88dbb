//! A small packetdrill: it knows the table of functions and nothing else of the adapter.
//!
//! What it takes over from packetdrill is how it calls: blocking calls on a second thread, which asks for the time as soon
//! as its call returns; the first thread goes on when that one sleeps; the first asks for the time, sleeps,
//! injects packets, and takes the next packet wherever in time it lies.

#![allow(dead_code)] // Each test program uses a part.

pub mod packet;

use std::ffi::{CString, c_void};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libc::{c_int, socklen_t};
use toe_packetdrill::interface::Interface;

use packet::{ACK, FIN, PSH, RST, SYN, Segment};

/// The peer's initial sequence number: close to wrapping.
const PEER_ISS: u32 = u32::MAX - 5;

/// Ends a test that hangs.
pub fn limited(test: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match wait.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
        _ => worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// A call's result, as C has it.
pub type Outcome = Result<i64, i32>;

fn outcome(value: impl Into<i64>) -> Outcome {
    let value = value.into();
    if value < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(value) }
}

#[derive(Clone, Copy)]
pub struct Stack {
    pub table: Interface,
}

// SAFETY: the interface is made for packetdrill's two threads.
unsafe impl Send for Stack {}
// SAFETY: the same.
unsafe impl Sync for Stack {}

pub type Init = unsafe extern "C" fn(*const std::ffi::c_char, *mut Interface);

/// A blocking call that is under way.
pub struct Blocked<T> {
    thread: JoinHandle<(T, u64)>,
}

impl<T> Blocked<T> {
    /// Whether it has not returned.
    pub fn is_blocked(&self) -> bool {
        !self.thread.is_finished()
    }

    /// What it gave, and at which virtual time it returned.
    pub fn end(self) -> (T, u64) {
        self.thread.join().unwrap()
    }
}

macro_rules! call {
    ($self:ident . $name:ident ( $($argument:expr),* )) => {
        // SAFETY: every pointer among the arguments is to something that lives through the call.
        outcome(unsafe { ($self.table.$name)($self.table.userdata, $($argument),*) } as i64)
    };
}

impl Stack {
    pub fn with(init: Init, flags: &str) -> Self {
        let flags = CString::new(flags).unwrap();
        let mut table = MaybeUninit::uninit();
        // SAFETY: a C string and room for a table, which it fills.
        let table = unsafe {
            init(flags.as_ptr(), table.as_mut_ptr());
            table.assume_init()
        };
        Self { table }
    }

    pub fn new(flags: &str) -> Self {
        Self::with(toe_packetdrill::packetdrill_interface_init, flags)
    }

    pub fn free(self) {
        // SAFETY: the last call.
        unsafe { (self.table.free)(self.table.userdata) }
    }

    /// Virtual time, in microseconds.
    pub fn now(&self) -> u64 {
        let mut tv = libc::timeval { tv_sec: 0, tv_usec: 0 };
        call!(self.gettimeofday(&raw mut tv, std::ptr::null_mut())).unwrap();
        tv.tv_sec as u64 * 1_000_000 + tv.tv_usec as u64
    }

    pub fn sleep_ms(&self, ms: u32) {
        call!(self.usleep(ms * 1000)).unwrap();
    }

    pub fn socket(&self, v6: bool, flags: c_int) -> c_int {
        let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        call!(self.socket(domain, libc::SOCK_STREAM | flags, libc::IPPROTO_TCP)).unwrap() as c_int
    }

    pub fn bind(&self, fd: c_int, address: SocketAddr) -> Outcome {
        let (bytes, length) = sockaddr(address);
        call!(self.bind(fd, bytes.as_ptr().cast(), length))
    }

    pub fn listen(&self, fd: c_int, backlog: c_int) -> Outcome {
        call!(self.listen(fd, backlog))
    }

    pub fn connect(&self, fd: c_int, address: SocketAddr) -> Outcome {
        let (bytes, length) = sockaddr(address);
        call!(self.connect(fd, bytes.as_ptr().cast(), length))
    }

    pub fn accept(&self, fd: c_int) -> Result<(c_int, SocketAddr), i32> {
        let mut bytes = [0u8; 128];
        let mut length = bytes.len() as socklen_t;
        let child = call!(self.accept(fd, bytes.as_mut_ptr().cast(), &raw mut length))? as c_int;
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        let ip: IpAddr = if length == 16 {
            <[u8; 4]>::try_from(&bytes[4..8]).unwrap().into()
        } else {
            assert_eq!(length, 28);
            <[u8; 16]>::try_from(&bytes[8..24]).unwrap().into()
        };
        Ok((child, SocketAddr::new(ip, port)))
    }

    pub fn read(&self, fd: c_int, max: usize) -> Result<Vec<u8>, i32> {
        self.recv(fd, max, None)
    }

    /// `recv`, or `read` without flags.
    pub fn recv(&self, fd: c_int, max: usize, flags: Option<c_int>) -> Result<Vec<u8>, i32> {
        let mut data = vec![0u8; max];
        let buffer: *mut c_void = data.as_mut_ptr().cast();
        let n = match flags {
            Some(flags) => call!(self.recv(fd, buffer, max, flags)),
            None => call!(self.read(fd, buffer, max)),
        }?;
        data.truncate(n as usize);
        Ok(data)
    }

    pub fn write(&self, fd: c_int, data: &[u8]) -> Outcome {
        call!(self.write(fd, data.as_ptr().cast(), data.len()))
    }

    pub fn send(&self, fd: c_int, data: &[u8], flags: c_int) -> Outcome {
        call!(self.send(fd, data.as_ptr().cast(), data.len(), flags))
    }

    pub fn close(&self, fd: c_int) -> Outcome {
        call!(self.close(fd))
    }

    pub fn shutdown(&self, fd: c_int, how: c_int) -> Outcome {
        call!(self.shutdown(fd, how))
    }

    pub fn fcntl(&self, fd: c_int, command: c_int, argument: c_int) -> Outcome {
        call!(self.fcntl(fd, command, argument as libc::c_ulong))
    }

    pub fn ioctl(&self, fd: c_int, request: libc::c_ulong) -> Outcome {
        let mut n: c_int = -1;
        call!(self.ioctl(fd, request, (&raw mut n).cast()))?;
        Ok(n.into())
    }

    pub fn set(&self, fd: c_int, level: c_int, name: c_int, value: &[c_int]) -> Outcome {
        call!(self.setsockopt(fd, level, name, value.as_ptr().cast(), size_of_val(value) as socklen_t))
    }

    pub fn get(&self, fd: c_int, level: c_int, name: c_int) -> Outcome {
        let mut value: c_int = -1;
        let mut length = 4;
        call!(self.getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length))?;
        assert_eq!(length, 4);
        Ok(value.into())
    }

    /// The retransmission timeout, by TCP_INFO.
    pub fn rto_us(&self, fd: c_int) -> u64 {
        let mut head = [0u32; 3];
        let mut length = size_of_val(&head) as socklen_t;
        call!(self.getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, head.as_mut_ptr().cast(), &raw mut length))
            .unwrap();
        head[2].into()
    }

    /// `poll` on one descriptor; what can be done.
    pub fn poll(&self, fd: c_int, events: i16, timeout_ms: c_int) -> Result<i16, i32> {
        let mut entry = libc::pollfd { fd, events, revents: 0 };
        let n = call!(self.poll(&raw mut entry, 1, timeout_ms))?;
        assert_eq!(n, i64::from(entry.revents != 0));
        Ok(entry.revents)
    }

    pub fn epoll_create(&self) -> c_int {
        call!(self.epoll_create(1)).unwrap() as c_int
    }

    pub fn epoll_ctl(&self, epfd: c_int, op: c_int, fd: c_int, events: c_int, data: u64) -> Outcome {
        let mut event = libc::epoll_event { events: events as u32, u64: data };
        call!(self.epoll_ctl(epfd, op, fd, &raw mut event))
    }

    pub fn epoll_wait(&self, epfd: c_int, timeout_ms: c_int) -> Result<Vec<(c_int, u64)>, i32> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
        let n = call!(self.epoll_wait(epfd, events.as_mut_ptr(), 8, timeout_ms))?;
        Ok(events[..n as usize].iter().map(|e| (e.events as c_int, e.u64)).collect())
    }

    /// Starts a call on a second thread, and goes on when that sleeps or is done.
    pub fn blocking<T: Send + 'static>(&self, call: impl FnOnce(&Stack) -> T + Send + 'static) -> Blocked<T> {
        let stack = *self;
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: takes nothing.
            tell.send(unsafe { libc::gettid() }).unwrap();
            let value = call(&stack);
            (value, stack.now())
        });
        let tid = told.recv().unwrap();
        let began = Instant::now();
        while !thread.is_finished() {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
            if stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S")) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "a blocking call neither sleeps nor returns");
            std::thread::yield_now();
        }
        Blocked { thread }
    }

    pub fn inject(&self, packet: &[u8]) {
        call!(self.netdev_send(packet.as_ptr().cast(), packet.len())).unwrap();
    }

    /// The next packet and when it was sent.
    pub fn sniff(&self) -> Option<(Segment, u64)> {
        self.sniff_at().map(|(packet, at)| (Segment::of_packet(&packet), at))
    }

    /// The next packet as it is.
    pub fn sniff_raw(&self) -> Option<Vec<u8>> {
        self.sniff_at().map(|(packet, _)| packet)
    }

    fn sniff_at(&self) -> Option<(Vec<u8>, u64)> {
        let mut buffer = [0u8; 65_536];
        let mut length = buffer.len();
        let mut at = -1;
        call!(self.netdev_receive(buffer.as_mut_ptr().cast(), &raw mut length, &raw mut at)).unwrap();
        (length > 0).then(|| (buffer[..length].to_vec(), at as u64))
    }
}

fn sockaddr(address: SocketAddr) -> (Vec<u8>, socklen_t) {
    let mut bytes = Vec::new();
    match address {
        SocketAddr::V4(a) => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend(a.port().to_be_bytes());
            bytes.extend(a.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(a) => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend(a.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(a.ip().octets());
            bytes.extend([0; 4]);
        }
    }
    let length = bytes.len() as socklen_t;
    (bytes, length)
}

/// The other end of one connection. Numbers in its texts count from each side's SYN.
pub struct Peer {
    pub stack: Stack,
    pub here: SocketAddr,
    pub there: SocketAddr,
    iss: Option<u32>,
}

impl Peer {
    /// A peer at `here` of the stack's end `there`.
    pub fn new(stack: Stack, here: &str, there: &str) -> Self {
        Self { stack, here: here.parse().unwrap(), there: there.parse().unwrap(), iss: None }
    }

    /// Sends a segment such as `SA 0:0 ack 1 win 1000 mss 1460`; its octets count up from their sequence number.
    pub fn send(&self, text: &str) {
        let said = Said::of(text);
        let segment = Segment {
            from: self.here,
            to: self.there,
            flags: said.flags,
            seq: PEER_ISS.wrapping_add(said.seq.unwrap_or(0)),
            ack: said.ack.map_or(0, |ack| self.iss.unwrap_or(0).wrapping_add(ack)),
            window: said.window.unwrap_or(60_000),
            mss: said.mss,
            data: (said.seq.unwrap_or(0)..said.end.unwrap_or(0)).map(octet).collect(),
        };
        self.stack.inject(&segment.to_packet());
    }

    /// The next packet is this one, in all that is said; when it was sent.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> u64 {
        let Some((segment, at)) = self.stack.sniff() else { panic!("expected {text}, and nothing was sent") };
        let said = Said::of(text);
        assert_eq!(segment.to, self.here, "{text}");
        if self.iss.is_none() {
            self.iss = Some(segment.seq);
            self.there = segment.from;
        }
        assert_eq!(segment.from, self.there, "{text}");
        let seq = segment.seq.wrapping_sub(self.iss.unwrap());
        let found = Said {
            flags: segment.flags,
            seq: said.seq.map(|_| seq),
            end: said.end.map(|_| seq.wrapping_add(segment.data.len() as u32)),
            ack: said.ack.map(|_| segment.ack.wrapping_sub(PEER_ISS)),
            window: said.window.map(|_| segment.window),
            mss: said.mss.and(segment.mss),
        };
        assert_eq!(found, said, "expected {text}");
        assert!(segment.data.iter().enumerate().all(|(i, b)| *b == octet(seq + i as u32)), "{text}: other octets");
        at
    }
}

/// The octet with that sequence number, in either direction.
pub fn octet(number: u32) -> u8 {
    (number % 251) as u8
}

/// The octets with these sequence numbers.
pub fn octets(from: u32, to: u32) -> Vec<u8> {
    (from..to).map(octet).collect()
}

#[derive(PartialEq, Eq, Debug, Default)]
struct Said {
    flags: u8,
    seq: Option<u32>,
    end: Option<u32>,
    ack: Option<u32>,
    window: Option<u16>,
    mss: Option<u16>,
}

impl Said {
    fn of(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let mut said = Self::default();
        for flag in words.next().unwrap().chars() {
            said.flags |= match flag {
                'F' => FIN,
                'S' => SYN,
                'R' => RST,
                'P' => PSH,
                'A' => ACK,
                other => panic!("no flag {other}"),
            };
        }
        while let Some(word) = words.next() {
            if let Some((seq, end)) = word.split_once(':') {
                (said.seq, said.end) = (Some(seq.parse().unwrap()), Some(end.parse().unwrap()));
                continue;
            }
            let value: u32 = words.next().unwrap().parse().unwrap();
            match word {
                "ack" => said.ack = Some(value),
                "win" => said.window = Some(value as u16),
                "mss" => said.mss = Some(value as u16),
                other => panic!("no field {other}"),
            }
        }
        said
    }
}

/// A connection that the stack accepted: its descriptor, the listener's, and the peer. No segment is acknowledged at once
/// because the connection is young.
pub fn accepted(flags: &str, v6: bool) -> (Stack, c_int, c_int, Peer) {
    let stack = Stack::new(&format!("tcp.quick_acks=0 {flags}"));
    let listener = stack.socket(v6, 0);
    let (here, there) =
        if v6 { ("[2001:db8::1]:4000", "[fd3d:fa7b:d17d::1]:80") } else { ("192.0.2.1:4000", "192.168.0.1:80") };
    stack.set(listener, libc::SOL_SOCKET, libc::SO_REUSEADDR, &[1]).unwrap();
    stack.bind(listener, there.parse().unwrap()).unwrap();
    stack.listen(listener, 1).unwrap();
    let mut peer = Peer::new(stack, here, there);
    peer.send("S 0:0 mss 1000");
    peer.expect("SA 0:0 ack 1");
    stack.sleep_ms(10);
    peer.send("A 1:1 ack 1");
    let (fd, from) = stack.accept(listener).unwrap();
    assert_eq!(from, peer.here);
    (stack, listener, fd, peer)
}

//! What a program does on a connection, measured from the inside: bulk each way, questions and answers, short connections; and
//! the longest frames past all of TCP. The same code for the kernel's sockets, which `toe run` may put on the card, and the library's.
//!
//! Around what is measured stand two marks: instructions that do nothing on any processor, and that the plugin of
//! `scripts/bench guest` knows when QEMU translates them. What comes before the first is warming up: slow start, pages that are
//! touched for the first time, the channel to the card.

use std::io::{self, Error, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use toe_abi::Mac;
use toe_guest::{PacketTransport, Transport};

use crate::rates::Stream;

/// Bytes that are written or read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// How long is warmed up.
const WARM: Duration = Duration::from_millis(500);
/// Bytes of an answer to a connection's question.
const ANSWER_BYTES: usize = 64;
/// IEEE 802's EtherType for experiments: nobody listens.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Frames in one call.
const BATCH: usize = 16;
/// Bytes of an Ethernet header.
const HEADER_BYTES: usize = 14;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// Sends; bytes are counted.
    Out,
    /// Receives; bytes are counted.
    In,
    /// Questions of so many bytes, each answered with as many, one after the other on one connection.
    Requests(usize),
    /// Connections with a question of so many bytes, an answer of 64, and the peer's close; so many at a time.
    Connections {
        /// Of the question.
        bytes: usize,
        /// At a time.
        at_once: usize,
    },
    /// Nothing at all: what the guest itself costs.
    Idle,
}

impl Load {
    /// From `out`, `in`, `idle`, `requests:BYTES`, `connections:BYTES:AT-ONCE`.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(':').collect();
        Some(match words[..] {
            ["out"] => Self::Out,
            ["in"] => Self::In,
            ["idle"] => Self::Idle,
            ["requests", bytes] => Self::Requests(bytes.parse().ok().filter(|bytes| *bytes > 0)?),
            ["connections", bytes, at_once] => {
                let bytes = bytes.parse().ok().filter(|bytes| *bytes >= 5)?;
                Self::Connections { bytes, at_once: at_once.parse().ok().filter(|n| *n > 0)? }
            }
            _ => return None,
        })
    }
}

/// Does it for so long, and says in one line: how many, in how many nanoseconds, and of those that take a time of their own, the
/// middle and 99 of 100 in nanoseconds.
pub fn measure<S: Stream>(load: Load, peer: SocketAddr, time: Duration) -> io::Result<String> {
    let mut meter = Meter { begun: Instant::now(), marked: None, time, count: 0, each_ns: Vec::new() };
    match load {
        Load::Out => {
            let mut s = S::open(peer)?;
            s.write_all(b"N")?;
            let bytes = vec![0x5a; PIECE_BYTES];
            while meter.goes_on() {
                s.write_all(&bytes)?;
                meter.add(bytes.len() as u64);
            }
        }
        Load::In => {
            let mut s = S::open(peer)?;
            s.write_all(b"B")?;
            let mut bytes = vec![0; PIECE_BYTES];
            while meter.goes_on() {
                let n = s.read(&mut bytes)?;
                if n == 0 {
                    return Err(Error::other("the peer ended"));
                }
                meter.add(n as u64);
            }
        }
        Load::Requests(bytes) => {
            let mut s = S::open(peer)?;
            s.write_all(b"E")?;
            let (question, mut answer) = (vec![1; bytes], vec![0; bytes]);
            while meter.goes_on() {
                let since = Instant::now();
                s.write_all(&question)?;
                s.read_exact(&mut answer)?;
                meter.add_one(since);
            }
        }
        Load::Connections { bytes, at_once: 1 } => {
            while meter.goes_on() {
                let since = Instant::now();
                connection::<S>(peer, bytes)?;
                meter.add_one(since);
            }
        }
        Load::Connections { bytes, at_once } => {
            let shared = Mutex::new(&mut meter);
            let lock = || shared.lock().map_err(|_| Error::other("a thread panicked"));
            let one_after_another = || -> io::Result<()> {
                while lock()?.goes_on() {
                    let since = Instant::now();
                    connection::<S>(peer, bytes)?;
                    lock()?.add_one(since);
                }
                Ok(())
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(one_after_another)).collect();
                threads.into_iter().try_for_each(|t| t.join().map_err(|_| Error::other("a thread panicked"))?)
            })?;
        }
        Load::Idle => {
            while meter.goes_on() {
                std::thread::sleep(time.max(WARM));
                meter.add(1);
            }
        }
    }
    meter.finish()
}

/// One connection from its beginning to its end.
fn connection<S: Stream>(peer: SocketAddr, bytes: usize) -> io::Result<()> {
    let mut s = S::open(peer)?;
    let mut question = vec![1; bytes];
    question[0] = b'A';
    question[1..5].copy_from_slice(&(bytes as u32 - 5).to_be_bytes());
    s.write_all(&question)?;
    let mut answer = [0; ANSWER_BYTES + 1];
    let mut have = 0;
    loop {
        match s.read(&mut answer[have..])? {
            0 if have == ANSWER_BYTES => return Ok(()),
            0 => return Err(Error::other(format!("an answer of {have} bytes"))),
            n => have += n,
        }
    }
}

/// Sends frames as long as the interface of that name lets them be, from one thread, to nobody on the wire; the line of [`measure`],
/// with bytes counted.
pub fn frames(interface: &str, time: Duration) -> io::Result<String> {
    let class = format!("/sys/class/net/{interface}");
    let read = |name: &str| Ok::<_, Error>(std::fs::read_to_string(format!("{class}/{name}"))?.trim().to_owned());
    let number = |name: &str| read(name)?.parse::<u32>().map_err(Error::other);
    let mtu = number("mtu")?;
    let mut mac = [0; 6];
    for (byte, text) in mac.iter_mut().zip(read("address")?.split(':')) {
        *byte = u8::from_str_radix(text, 16).map_err(Error::other)?;
    }
    let mut frame = vec![0x5a; mtu as usize + HEADER_BYTES];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x77]);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    let transport = PacketTransport::open(number("ifindex")?, Mac(mac), mtu, 1)?;
    let batch = [IoSlice::new(&frame); BATCH];
    let mut meter = Meter { begun: Instant::now(), marked: None, time, count: 0, each_ns: Vec::new() };
    while meter.goes_on() {
        match transport.send_many(&batch) {
            Ok(frames) => meter.add((frames * frame.len()) as u64),
            // The socket's or the interface's queue is full: what is in it goes on its way meanwhile.
            Err(error) if error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS) => {
                std::thread::yield_now();
            }
            Err(error) => return Err(error),
        }
    }
    meter.finish()
}

/// Time, marks and counts.
struct Meter {
    begun: Instant,
    /// When the first mark was set.
    marked: Option<Instant>,
    time: Duration,
    count: u64,
    each_ns: Vec<u64>,
}

impl Meter {
    /// Whether it is to go on; sets the first mark when it is warm.
    fn goes_on(&mut self) -> bool {
        match self.marked {
            None => {
                if self.begun.elapsed() >= WARM {
                    self.marked = Some(Instant::now());
                    mark_begin();
                }
                true
            }
            Some(marked) => marked.elapsed() < self.time,
        }
    }

    fn add(&mut self, n: u64) {
        if self.marked.is_some() {
            self.count += n;
        }
    }

    fn add_one(&mut self, since: Instant) {
        if self.marked.is_some() {
            self.count += 1;
            self.each_ns.push(since.elapsed().as_nanos() as u64);
        }
    }

    fn finish(mut self) -> io::Result<String> {
        mark_end();
        let ns =
            self.marked.map(|marked| marked.elapsed().as_nanos()).ok_or_else(|| Error::other("nothing measured"))?;
        self.each_ns.sort_unstable();
        let at = |percent: usize| self.each_ns.get(self.each_ns.len() * percent / 100).copied().unwrap_or(0);
        Ok(format!("{} {ns} {} {}", self.count, at(50), at(99)))
    }
}

/// `nopl 0x544f4531(%rax,%rax,1)`: from here on is counted. `guest-instructions/src/mark.rs` knows it by these bytes.
#[cfg(target_arch = "x86_64")]
fn mark_begin() {
    // SAFETY: a nop whose operand is not accessed.
    unsafe { std::arch::asm!(".byte 0x0f, 0x1f, 0x84, 0x00, 0x31, 0x45, 0x4f, 0x54") };
}

/// `nopl 0x544f4530(%rax,%rax,1)`: up to here is counted.
#[cfg(target_arch = "x86_64")]
fn mark_end() {
    // SAFETY: as above.
    unsafe { std::arch::asm!(".byte 0x0f, 0x1f, 0x84, 0x00, 0x30, 0x45, 0x4f, 0x54") };
}

#[cfg(not(target_arch = "x86_64"))]
fn mark_begin() {}

#[cfg(not(target_arch = "x86_64"))]
fn mark_end() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_known_by_their_names() {
        assert_eq!(Load::parse("out"), Some(Load::Out));
        assert_eq!(Load::parse("requests:64"), Some(Load::Requests(64)));
        assert_eq!(Load::parse("connections:64:8"), Some(Load::Connections { bytes: 64, at_once: 8 }));
        for bad in ["", "requests", "requests:0", "connections:4:1", "connections:64:0", "connections:64", "out:1"] {
            assert_eq!(Load::parse(bad), None, "{bad}");
        }
    }
}

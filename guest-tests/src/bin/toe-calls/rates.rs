//! How fast connections and bytes are, by the kernel's sockets (which `toe run` may put on the card) and by the
//! library's.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes that are written or read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A connection of either kind.
pub trait Stream: Read + Write + Sized {
    /// Opens one.
    fn open(peer: SocketAddr) -> io::Result<Self>;
    /// Ends what is sent.
    fn end(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn open(peer: SocketAddr) -> io::Result<Self> {
        Self::connect(peer)
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for toe_guest::TcpStream {
    fn open(peer: SocketAddr) -> io::Result<Self> {
        let stream = Self::connect(peer)?;
        // The kernel's rate would say nothing of the card.
        if stream.offload().is_card() { Ok(stream) } else { Err(io::Error::other(stream.offload().to_string())) }
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

fn per_second(n: u64, start: Instant) -> u64 {
    (n as f64 / start.elapsed().as_secs_f64()) as u64
}

/// Opens and closes connections one after the other for so long; how many a second.
pub fn connections<S: Stream>(peer: SocketAddr, time: Duration) -> io::Result<u64> {
    let start = Instant::now();
    let mut n = 0;
    while start.elapsed() < time {
        drop(S::open(peer)?);
        n += 1;
    }
    Ok(per_second(n, start))
}

/// Sends for so long to who counts; how many bytes a second arrived.
pub fn sent<S: Stream>(peer: SocketAddr, time: Duration) -> io::Result<u64> {
    let mut s = S::open(peer)?;
    let start = Instant::now();
    s.write_all(b"N")?;
    let bytes = vec![0; PIECE_BYTES];
    while start.elapsed() < time {
        s.write_all(&bytes)?;
    }
    s.end()?;
    let mut text = String::new();
    s.read_to_string(&mut text)?;
    let arrived = text.parse().map_err(|_| io::Error::other(format!("the peer counted {text:?}")))?;
    Ok(per_second(arrived, start))
}

/// Reads for so long from who sends without end; how many bytes a second arrived.
pub fn received<S: Stream>(peer: SocketAddr, time: Duration) -> io::Result<u64> {
    let mut s = S::open(peer)?;
    let start = Instant::now();
    s.write_all(b"B")?;
    let mut bytes = vec![0; PIECE_BYTES];
    let mut arrived = 0;
    while start.elapsed() < time {
        arrived += s.read(&mut bytes)? as u64;
    }
    Ok(per_second(arrived, start))
}

/// One byte there and back, again and again for so long; how often a second.
pub fn exchanges<S: Stream>(peer: SocketAddr, time: Duration) -> io::Result<u64> {
    let mut s = S::open(peer)?;
    s.write_all(b"E")?;
    let start = Instant::now();
    let mut n = 0;
    while start.elapsed() < time {
        s.write_all(b"x")?;
        s.read_exact(&mut [0])?;
        n += 1;
    }
    Ok(per_second(n, start))
}

/// Holds so many connections at once, then has each give back bytes of its own; how many did.
pub fn many(peer: SocketAddr, count: usize) -> usize {
    let open = |number: usize| -> std::io::Result<(usize, TcpStream)> {
        let mut s = TcpStream::connect(peer)?;
        s.write_all(b"E")?;
        Ok((number, s))
    };
    let mut all: Vec<_> = (0..count).filter_map(|number| open(number).ok()).collect();
    let talk = |number: usize, s: &mut TcpStream| -> std::io::Result<bool> {
        let said = number.to_be_bytes();
        s.write_all(&said)?;
        let mut back = [0; 8];
        s.read_exact(&mut back)?;
        Ok(back == said)
    };
    all.iter_mut().filter_map(|(number, s)| talk(*number, s).ok()).filter(|same| *same).count()
}

//! The loads: a program that sends or takes as much as goes, that asks and waits for answers over some connections, and that
//! opens a connection for every question. The same code for the card's streams and the kernel's.
//!
//! What the program does runs in threads named `app…`, its peers in threads named `peer…`; all of them run for the whole of a
//! measurement, so that their processor time can be read in the middle of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use toe_guest_tests::Namespace;

use super::stream::{Near, Stream};

/// Bytes of a question and of an answer.
pub const MESSAGE_BYTES: usize = 64;
/// Bytes of a piece of bulk.
const PIECE_BYTES: usize = 256 * 1024;
/// What the first part of a measurement does not count: slow start, pages touched for the first time.
const WARM: Duration = Duration::from_millis(300);
/// Threads that open connections at the same time.
const OPENERS: usize = 8;
/// How long the events of many connections are waited for before looking up, in nanoseconds.
const LOOK_NS: i64 = 100_000_000;
/// Events fetched at once.
const EVENTS: usize = 64;

/// What one measurement counted.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Bytes, answers or connections.
    pub count: u64,
    /// In so much time.
    pub elapsed: Duration,
    /// Of each question, how long its answer took, in nanoseconds, in order of length.
    pub latencies: Vec<u32>,
}

/// Runs while the measurement does.
struct Flags {
    stop: AtomicBool,
    counts: AtomicBool,
    count: AtomicU64,
}

impl Flags {
    fn new() -> Self {
        Self { stop: AtomicBool::new(false), counts: AtomicBool::new(false), count: AtomicU64::new(0) }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_counting(&self) -> bool {
        self.counts.load(Ordering::Relaxed)
    }

    fn add(&self, n: u64) {
        self.count.fetch_add(n, Ordering::Relaxed);
    }
}

fn spawn<'s, 'e, T: Send + 's>(
    scope: &'s Scope<'s, 'e>,
    name: &str,
    work: impl FnOnce() -> T + Send + 's,
) -> Result<ScopedJoinHandle<'s, T>> {
    Ok(Builder::new().name(name.to_owned()).spawn_scoped(scope, work)?)
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread of the load panicked"))?
}

/// Which way bulk goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bulk {
    /// From the program to its peer.
    Out,
    /// To the program.
    In,
}

/// As many bytes as go through one stream in `time`. `middle` is called when counting begins and when it ends.
///
/// # Errors
/// A stream breaks, or `middle`'s.
pub fn bulk(
    near: &Near<'_>,
    peer: &Namespace,
    to: Bulk,
    time: Duration,
    middle: &mut dyn FnMut() -> Result<()>,
) -> Result<Counted> {
    let listener = listen(peer, 1)?;
    let address = listener[0].local_addr()?;
    let here = near.inside(|| Ok(near.connect(address)?.patient(true)?))?;
    let there = Stream::Kernel(listener[0].accept()?.0).patient(true)?;
    let flags = Flags::new();
    std::thread::scope(|scope| {
        let (sender, receiver) = match to {
            Bulk::Out => (("app-send", here), ("peer-take", there)),
            Bulk::In => (("peer-send", there), ("app-take", here)),
        };
        let flags = &flags;
        let sending = spawn(scope, sender.0, move || send_all(&sender.1, flags))?;
        let taking = spawn(scope, receiver.0, move || take_all(&receiver.1, flags))?;
        let counted = count(flags, time, middle);
        flags.stop.store(true, Ordering::Relaxed);
        join(sending).context("sending")?;
        join(taking).context("taking")?;
        counted
    })
}

/// Counts for `time` after the warm-up; `middle` at both ends of it.
fn count(flags: &Flags, time: Duration, middle: &mut dyn FnMut() -> Result<()>) -> Result<Counted> {
    std::thread::sleep(WARM);
    middle()?;
    flags.counts.store(true, Ordering::Relaxed);
    let (before, begun) = (flags.count.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(time);
    let (count, elapsed) = (flags.count.load(Ordering::Relaxed) - before, begun.elapsed());
    flags.counts.store(false, Ordering::Relaxed);
    middle()?;
    ensure!(count > 0, "nothing went through in {elapsed:?}");
    Ok(Counted { count, elapsed, latencies: Vec::new() })
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn send_all(mut stream: &Stream, flags: &Flags) -> Result<()> {
    let piece = vec![0x5a; PIECE_BYTES];
    while !flags.is_over() {
        match stream.write(&piece) {
            Ok(_) => {}
            Err(error) if waits(&error) => {}
            Err(_) if flags.is_over() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn take_all(mut stream: &Stream, flags: &Flags) -> Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    while !flags.is_over() {
        match stream.read(&mut piece) {
            // The sender may have seen first that it is over.
            Ok(0) if flags.is_over() => {}
            Ok(0) => return Err(anyhow!("the stream ended before its time")),
            Ok(n) => flags.add(n as u64),
            Err(error) if waits(&error) => {}
            Err(_) if flags.is_over() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn listen(peer: &Namespace, count: usize) -> Result<Vec<TcpListener>> {
    peer.enter(|| (0..count).map(|_| Ok(TcpListener::bind((toe_guest_tests::net::PEER_V4, 0))?)).collect())
}

/// Questions and answers over `connections`, each with one question under way, from one thread of the program.
///
/// # Errors
/// A stream breaks, or `middle`'s.
pub fn ask(
    near: &Near<'_>,
    peer: &Namespace,
    connections: usize,
    time: Duration,
    middle: &mut dyn FnMut() -> Result<()>,
) -> Result<Counted> {
    let listener = listen(peer, 1)?.remove(0);
    let address = listener.local_addr()?;
    let flags = Flags::new();
    std::thread::scope(|scope| {
        let flags = &flags;
        let answering = spawn(scope, "peer-answer", move || answer(&listener, connections, flags))?;
        let one = connections == 1;
        let streams = near
            .inside(|| (0..connections).map(|_| Ok(near.connect(address)?.patient(one)?)).collect::<Result<Vec<_>>>());
        let streams = match streams {
            Ok(streams) => streams,
            Err(error) => {
                flags.stop.store(true, Ordering::Relaxed);
                return Err(error.context("opening the connections"));
            }
        };
        let asking =
            spawn(
                scope,
                "app-ask",
                move || {
                    if one { ask_and_wait(&streams[0], flags) } else { ask_many(&streams, flags) }
                },
            )?;
        let counted = count(flags, time, middle);
        flags.stop.store(true, Ordering::Relaxed);
        let mut latencies = join(asking).context("asking")?;
        join(answering).context("answering")?;
        latencies.sort_unstable();
        Ok(Counted { latencies, ..counted? })
    })
}

fn note(latencies: &mut Vec<u32>, since: Instant, flags: &Flags) {
    flags.add(1);
    if flags.is_counting() {
        latencies.push(u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
}

/// One connection, by reads that wait.
fn ask_and_wait(mut stream: &Stream, flags: &Flags) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    let mut buffer = [0; MESSAGE_BYTES];
    while !flags.is_over() {
        let asked = Instant::now();
        stream.write_all(&[1; MESSAGE_BYTES])?;
        let mut have = 0;
        while have < MESSAGE_BYTES && !flags.is_over() {
            match stream.read(&mut buffer[have..]) {
                Ok(0) if flags.is_over() => break,
                Ok(0) => return Err(anyhow!("the stream ended before its time")),
                Ok(n) => have += n,
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if have == MESSAGE_BYTES {
            note(&mut latencies, asked, flags);
        }
    }
    Ok(latencies)
}

/// Many connections, by events.
fn ask_many(streams: &[Stream], flags: &Flags) -> Result<Vec<u32>> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut asked = Vec::new();
    let mut have = vec![0; streams.len()];
    for (n, mut stream) in streams.iter().enumerate() {
        epoll::add(&poll, stream.as_fd(), epoll::EventData::new_u64(n as u64), epoll::EventFlags::IN)?;
        asked.push(Instant::now());
        stream.write_all(&[1; MESSAGE_BYTES])?;
    }
    let mut latencies = Vec::new();
    let mut events = Vec::with_capacity(EVENTS);
    let mut buffer = [0; MESSAGE_BYTES];
    while !flags.is_over() {
        for n in wait(&poll, &mut events)? {
            let mut stream = &streams[n];
            match stream.read(&mut buffer[have[n]..]) {
                // The peer may have seen first that it is over.
                Ok(0) if flags.is_over() => return Ok(latencies),
                Ok(0) => return Err(anyhow!("the stream ended before its time")),
                Ok(bytes) => have[n] += bytes,
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error.into()),
            }
            if have[n] == MESSAGE_BYTES {
                have[n] = 0;
                note(&mut latencies, asked[n], flags);
                asked[n] = Instant::now();
                stream.write_all(&[1; MESSAGE_BYTES])?;
            }
        }
    }
    Ok(latencies)
}

/// Whoever has something to read.
fn wait(poll: &impl AsFd, events: &mut Vec<epoll::Event>) -> Result<Vec<usize>> {
    events.clear();
    let look = rustix::event::Timespec { tv_sec: 0, tv_nsec: LOOK_NS };
    match epoll::wait(poll, spare_capacity(events), Some(&look)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(events.iter().map(|event| event.data.u64() as usize).collect())
}

/// The peer: accepts so many connections and sends back what comes.
fn answer(listener: &TcpListener, connections: usize, flags: &Flags) -> Result<()> {
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let at = |n: usize| epoll::EventData::new_u64(n as u64);
    epoll::add(&poll, listener, at(connections), epoll::EventFlags::IN)?;
    let mut streams = Vec::with_capacity(connections);
    let mut events = Vec::with_capacity(EVENTS);
    let mut buffer = [0; 4096];
    while !flags.is_over() {
        for n in wait(&poll, &mut events)? {
            if n == connections {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll::add(&poll, &stream, at(streams.len()), epoll::EventFlags::IN)?;
                    streams.push(stream);
                }
                continue;
            }
            let mut stream = &streams[n];
            match stream.read(&mut buffer) {
                Ok(0) => epoll::delete(&poll, stream)?,
                Ok(bytes) => stream.write_all(&buffer[..bytes])?,
                Err(error) if waits(&error) => {}
                Err(_) if flags.is_over() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// A connection for every question: open, ask, read the answer and the end, close. The peer closes first.
///
/// # Errors
/// A connection fails, or `middle`'s.
pub fn connect(
    near: &Near<'_>,
    peer: &Namespace,
    time: Duration,
    middle: &mut dyn FnMut() -> Result<()>,
) -> Result<Counted> {
    let listeners = listen(peer, OPENERS)?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    let flags = Flags::new();
    std::thread::scope(|scope| {
        let flags = &flags;
        let mut peers = Vec::new();
        for listener in listeners {
            peers.push(spawn(scope, "peer-serve", move || serve(&listener, flags))?);
        }
        let mut openers = Vec::new();
        for address in addresses {
            // A thread made by another has its name, also inside a namespace.
            openers.push(spawn(scope, "app-open", move || near.inside(|| open(near, address, flags)))?);
        }
        let counted = count(flags, time, middle);
        flags.stop.store(true, Ordering::Relaxed);
        let mut latencies = Vec::new();
        for opener in openers {
            latencies.extend(join(opener).context("opening")?);
        }
        for peer in peers {
            join(peer).context("serving")?;
        }
        latencies.sort_unstable();
        Ok(Counted { latencies, ..counted? })
    })
}

/// Opens one connection after another; how long each lasted.
fn open(near: &Near<'_>, to: SocketAddr, flags: &Flags) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    let mut buffer = [0; 2 * MESSAGE_BYTES];
    while !flags.is_over() {
        let begun = Instant::now();
        let stream = near.connect(to).context("connecting")?;
        let mut stream = &stream.patient(true)?;
        stream.write_all(&[1; MESSAGE_BYTES])?;
        let mut have = 0;
        loop {
            match stream.read(&mut buffer[have..]) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(error) if waits(&error) && !flags.is_over() => {}
                Err(_) if flags.is_over() => return Ok(latencies),
                Err(error) => return Err(error).context("reading the answer"),
            }
        }
        ensure!(have == MESSAGE_BYTES, "an answer of {have} bytes");
        note(&mut latencies, begun, flags);
    }
    Ok(latencies)
}

/// The peer of one of them: accepts, reads a question, answers, closes.
fn serve(listener: &TcpListener, flags: &Flags) -> Result<()> {
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, listener, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    let mut events = Vec::with_capacity(EVENTS);
    let mut buffer = [0; MESSAGE_BYTES];
    while !flags.is_over() {
        wait(&poll, &mut events)?;
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            // One that was given up at the end of the measurement is none.
            if stream.read_exact(&mut buffer).is_ok() {
                let _ = stream.write_all(&buffer);
            }
        }
    }
    Ok(())
}

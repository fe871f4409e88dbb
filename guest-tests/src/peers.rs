//! Who the guest talks to: plain servers and clients on the host kernel's TCP, inside the lab's namespace.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use tempfile::TempDir;

use crate::Namespace;
use crate::bytes::{Pattern, Sum, Summer};

/// How long a peer waits for the next byte, or for a connection, before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer at work on a thread of its own.
pub struct Peer<T> {
    thread: JoinHandle<Result<T>>,
    /// Where it listens, or what it is connected from.
    pub address: SocketAddr,
}

impl<T: Send + 'static> Peer<T> {
    fn start(address: SocketAddr, work: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        Self { thread: std::thread::spawn(work), address }
    }

    /// Waits until it is done (it gives up by itself when nothing happens for a minute).
    ///
    /// # Errors
    /// What went wrong for it.
    pub fn join(self) -> Result<T> {
        self.thread.join().map_err(|_| anyhow!("a peer panicked"))?
    }

    /// Whether it is done.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Takes `connections` connections, one after the other or at once, and sums up what each brings until its end.
/// Its own side is closed only then.
///
/// # Errors
/// If it cannot listen.
pub fn sink(namespace: &Namespace, ip: IpAddr, connections: usize) -> Result<Peer<Vec<Sum>>> {
    serve(namespace, ip, connections, |mut stream| Ok(Sum::of(&mut stream)?))
}

/// Gives each of `connections` connections the first `bytes` of the pattern `seed` and closes it.
///
/// # Errors
/// If it cannot listen.
pub fn source(namespace: &Namespace, ip: IpAddr, connections: usize, seed: u64, bytes: u64) -> Result<Peer<Vec<Sum>>> {
    serve(namespace, ip, connections, move |mut stream| {
        std::io::copy(&mut Pattern::new(seed).take(bytes), &mut stream)?;
        stream.shutdown(Shutdown::Write)?;
        Ok(Sum::of(&mut stream)?)
    })
}

/// Gives one connection a pattern, 16 KiB every 5 ms, until `stop` is set; then closes it. What it gave.
///
/// # Errors
/// If it cannot listen.
pub fn paced_source(namespace: &Namespace, ip: IpAddr, seed: u64, stop: Arc<AtomicBool>) -> Result<Peer<Vec<Sum>>> {
    serve(namespace, ip, 1, move |mut stream| {
        let mut pattern = Pattern::new(seed);
        let mut sum = Summer::default();
        let mut piece = [0; 16_384];
        while !stop.load(Ordering::Relaxed) {
            pattern.read_exact(&mut piece)?;
            stream.write_all(&piece)?;
            sum.write_all(&piece)?;
            std::thread::sleep(Duration::from_millis(5));
        }
        stream.shutdown(Shutdown::Write)?;
        Sum::of(&mut stream)?;
        Ok(sum.finish())
    })
}

/// Gives each of `connections` connections the first `bytes` of the pattern `seed`, and sums up what it brings
/// meanwhile.
///
/// # Errors
/// If it cannot listen.
pub fn exchange(
    namespace: &Namespace,
    ip: IpAddr,
    connections: usize,
    seed: u64,
    bytes: u64,
) -> Result<Peer<Vec<Sum>>> {
    serve(namespace, ip, connections, move |stream| send_and_sum(stream, seed, bytes))
}

/// Reads the first `bytes` of one connection, and then gives it as many of the pattern `seed`. What it read.
///
/// # Errors
/// If it cannot listen.
pub fn take_turns(namespace: &Namespace, ip: IpAddr, seed: u64, bytes: u64) -> Result<Peer<Vec<Sum>>> {
    serve(namespace, ip, 1, move |mut stream| {
        let sum = Sum::of(&mut (&mut stream).take(bytes))?;
        std::io::copy(&mut Pattern::new(seed).take(bytes), &mut stream)?;
        stream.shutdown(Shutdown::Write)?;
        std::io::copy(&mut stream, &mut std::io::sink())?;
        Ok(sum)
    })
}

/// Takes one connection, reads `bytes` of it and closes it while more is unread: the kernel resets it then.
///
/// # Errors
/// If it cannot listen.
pub fn reset_after(namespace: &Namespace, ip: IpAddr, bytes: u64) -> Result<Peer<Vec<()>>> {
    serve(namespace, ip, 1, move |mut stream| {
        std::io::copy(&mut (&mut stream).take(bytes), &mut std::io::sink())?;
        // Waits until there is something to leave unread.
        stream.peek(&mut [0])?;
        Ok(())
    })
}

/// Sends back, on each of `connections` connections, what it brings, and closes it at its end.
///
/// # Errors
/// If it cannot listen.
pub fn echo(namespace: &Namespace, ip: IpAddr, connections: usize) -> Result<Peer<Vec<Sum>>> {
    serve(namespace, ip, connections, |mut stream| {
        let mut sum = Summer::default();
        let mut buffer = vec![0; 65_536];
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            sum.write_all(&buffer[..n])?;
            stream.write_all(&buffer[..n])?;
        }
        stream.shutdown(Shutdown::Write)?;
        Ok(sum.finish())
    })
}

/// Reads each of `connections` connections to its end and only then answers, with length and SHA-256 of what it
/// brought: an answer that comes proves that the other side's half-close arrived and that the rest stayed open.
///
/// # Errors
/// If it cannot listen.
pub fn answer_at_end(namespace: &Namespace, ip: IpAddr, connections: usize) -> Result<Peer<Vec<Sum>>> {
    serve(namespace, ip, connections, |mut stream| {
        let sum = Sum::of(&mut stream)?;
        writeln!(stream, "{sum}")?;
        Ok(sum)
    })
}

/// Answers `GET /SEED/BYTES` of HTTP/1.0 and 1.1 with that much of that pattern, for `connections` connections.
///
/// # Errors
/// If it cannot listen.
pub fn http(namespace: &Namespace, ip: IpAddr, connections: usize) -> Result<Peer<Vec<()>>> {
    serve(namespace, ip, connections, answer_http)
}

/// Answers like [`http`], one connection after the other, until it is dropped.
pub struct HttpForever {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl HttpForever {
    /// Starts one.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(namespace: &Namespace, ip: IpAddr) -> Result<Self> {
        let listener = namespace.enter(|| Ok(TcpListener::bind((ip, 0))?))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                // What goes wrong is the client's to notice.
                let _ = stream.set_nonblocking(false).map_err(Into::into).and_then(|()| answer_http(patient(stream)?));
            }
        });
        Ok(Self { stop, thread: Some(thread), address })
    }
}

impl Drop for HttpForever {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; and if it did, the client noticed.
            let _ = thread.join();
        }
    }
}

fn answer_http(mut stream: TcpStream) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().context("no request")??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.strip_prefix("GET /").and_then(|rest| rest.split(' ').next());
    let numbers = path.and_then(|path| path.split_once('/'));
    let numbers = numbers.and_then(|(seed, bytes)| Some((seed.parse().ok()?, bytes.parse().ok()?)));
    let Some((seed, bytes)) = numbers else {
        stream.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        bail!("a request that this server does not know: {request}");
    };
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n")?;
    std::io::copy(&mut Pattern::new(seed).take(bytes), &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    // A client that has read everything may close with a reset.
    match Sum::of(&mut stream) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(()),
    }
}

fn serve<T: Send + 'static>(
    namespace: &Namespace,
    ip: IpAddr,
    connections: usize,
    work: impl Fn(TcpStream) -> Result<T> + Send + Sync + 'static,
) -> Result<Peer<Vec<T>>> {
    let listener = namespace.enter(|| Ok(TcpListener::bind((ip, 0))?))?;
    let address = listener.local_addr()?;
    Ok(Peer::start(address, move || {
        std::thread::scope(|scope| {
            let work = &work;
            let mut threads = Vec::new();
            for _ in 0..connections {
                let stream = accept(&listener)?;
                threads.push(scope.spawn(move || work(stream)));
            }
            let results = threads.into_iter().map(|t| t.join().map_err(|_| anyhow!("a peer panicked"))?);
            results.collect()
        })
    }))
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return patient(stream);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e).context("no connection came"),
        }
    }
}

fn patient(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Connects to the guest from the namespace; a refusal is tried again for 10 s, as the listener may not be up yet.
///
/// # Errors
/// If it cannot be reached.
pub fn connect(namespace: &Namespace, to: SocketAddr) -> Result<TcpStream> {
    let stream = namespace.enter(|| {
        crate::host::wait_for("a listener in the guest", Duration::from_secs(10), || {
            match TcpStream::connect_timeout(&to, Duration::from_secs(10)) {
                Ok(stream) => Ok(Some(stream)),
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(None),
                Err(e) => Err(e).with_context(|| format!("connecting to {to}")),
            }
        })
    })?;
    patient(stream)
}

/// Connects to the guest, sends the first `bytes` of the pattern `seed`, half-closes, and sums up what comes back.
///
/// # Errors
/// If it cannot be reached. Later trouble comes with [`Peer::join`].
pub fn client(namespace: &Namespace, to: SocketAddr, seed: u64, bytes: u64) -> Result<Peer<Sum>> {
    let stream = connect(namespace, to)?;
    Ok(Peer::start(stream.local_addr()?, move || send_and_sum(stream, seed, bytes)))
}

fn send_and_sum(mut stream: TcpStream, seed: u64, bytes: u64) -> Result<Sum> {
    let mut reader = stream.try_clone()?;
    std::thread::scope(|scope| {
        let received = scope.spawn(move || Sum::of(&mut reader));
        std::io::copy(&mut Pattern::new(seed).take(bytes), &mut stream)?;
        stream.shutdown(Shutdown::Write)?;
        Ok(received.join().map_err(|_| anyhow!("a peer panicked"))??)
    })
}

/// Debian's busybox httpd with one file; killed when dropped.
pub struct Httpd {
    process: Child,
    _directory: TempDir,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Httpd {
    /// Serves the first `bytes` of the pattern `seed` as `/file`.
    ///
    /// # Errors
    /// If busybox is missing or does not listen within 10 s.
    pub fn start(namespace: &Namespace, ip: IpAddr, seed: u64, bytes: u64) -> Result<Self> {
        let address = SocketAddr::new(ip, 80);
        let directory = tempfile::tempdir()?;
        let mut file = File::create(directory.path().join("file"))?;
        std::io::copy(&mut Pattern::new(seed).take(bytes), &mut file)?;
        let mut command = namespace.command(crate::host::tool("busybox", "busybox-static")?);
        command.args(["httpd", "-f", "-p", &address.to_string(), "-h"]).arg(directory.path());
        let process = command.stdin(Stdio::null()).spawn().context("busybox httpd")?;
        let server = Self { process, _directory: directory, address };
        let tried = || namespace.enter(|| Ok(TcpStream::connect(address).ok()));
        crate::host::wait_for("busybox httpd", Duration::from_secs(10), tried)?;
        Ok(server)
    }
}

impl Drop for Httpd {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

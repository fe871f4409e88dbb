//! `toe nc`: bytes between a connection and stdin/stdout.
//!
//! The end of stdin closes our half; the command ends when both halves are closed, or when the connection breaks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use toe_guest::{TcpListener, TcpStream};

const CHUNK_BYTES: usize = 64 * 1024;

/// What `toe nc` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Listen, accept one connection, then listen no more.
    #[arg(short, long)]
    listen: bool,
    /// IPv4 only.
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only.
    #[arg(short = '6')]
    ipv6: bool,
    /// Say on stderr who carries the connection, and how it ended.
    #[arg(short, long)]
    verbose: bool,
    /// Give up connecting, and give up an idle connection, after so many seconds.
    #[arg(short = 'w', long = "timeout", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// The host to connect to, or the address to listen on, and the port. With -l the host may be left out.
    #[arg(value_names = ["HOST", "PORT"], num_args = 1..=2, required = true)]
    target: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// What a person should be told.
pub fn run(a: &Arguments) -> Result<(), String> {
    let timeout = a.timeout.map(Duration::from_secs);
    let (host, port) = match &a.target[..] {
        [port] if a.listen => (None, port),
        [host, port] => (Some(host.as_str()), port),
        _ => return Err("give a host and a port, or -l and a port".to_owned()),
    };
    let port: u16 = port.parse().map_err(|_| format!("{port:?} is no port: give a number from 0 to 65535"))?;
    let addresses = addresses(a, host, port)?;
    let stream = if a.listen { accept(a, &addresses)? } else { connect(a, &addresses, timeout)? };
    let result = carry(&stream, timeout);
    if a.verbose {
        match &result {
            Ok((sent, received)) => eprintln!("closed: {sent} bytes sent, {received} received"),
            Err(e) => eprintln!("broken: {e}"),
        }
    }
    result.map(drop).map_err(|e| e.to_string())
}

fn addresses(a: &Arguments, host: Option<&str>, port: u16) -> Result<Vec<SocketAddr>, String> {
    let host = host.unwrap_or(if a.ipv4 { "0.0.0.0" } else { "::" });
    let all = (host, port).to_socket_addrs().map_err(|e| format!("cannot find the address of {host}: {e}"))?;
    let wanted = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(_) => !a.ipv6,
        IpAddr::V6(_) => !a.ipv4,
    };
    let wanted: Vec<_> = all.filter(wanted).collect();
    if wanted.is_empty() { Err(format!("{host} has no address of the wanted family")) } else { Ok(wanted) }
}

fn connect(a: &Arguments, addresses: &[SocketAddr], timeout: Option<Duration>) -> Result<TcpStream, String> {
    let mut last = String::new();
    for address in addresses {
        let result = match timeout {
            Some(timeout) => TcpStream::connect_timeout(address, timeout),
            None => TcpStream::connect(address),
        };
        match result {
            Ok(stream) => {
                if a.verbose {
                    eprintln!("connected to {address} ({})", stream.offload());
                }
                return Ok(stream);
            }
            Err(e) => last = format!("cannot connect to {address}: {e}"),
        }
    }
    Err(last)
}

fn accept(a: &Arguments, addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let listener = TcpListener::bind(addresses).map_err(|e| format!("cannot listen on {}: {e}", addresses[0]))?;
    if a.verbose {
        let local = listener.local_addr().map_err(|e| e.to_string())?;
        eprintln!("listening on {local} ({})", listener.offload());
    }
    let (stream, remote) = listener.accept().map_err(|e| format!("cannot accept: {e}"))?;
    if a.verbose {
        eprintln!("connected from {remote} ({})", stream.offload());
    }
    Ok(stream)
}

/// Carries both directions to their ends; how many bytes went each way.
fn carry(stream: &TcpStream, timeout: Option<Duration>) -> io::Result<(u64, u64)> {
    let sender = stream.try_clone()?;
    let activity = Mutex::new(Instant::now());
    let touch = || *activity.lock().unwrap_or_else(|e| e.into_inner()) = Instant::now();
    let idle = || activity.lock().unwrap_or_else(|e| e.into_inner()).elapsed();
    stream.set_read_timeout(timeout)?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0;
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let n = io::stdin().read(&mut buffer)?;
                if n == 0 {
                    break;
                }
                (&sender).write_all(&buffer[..n])?;
                touch();
                sent += n as u64;
            }
            match sender.shutdown(Shutdown::Write) {
                // Whoever reads is told why.
                Err(e) if e.kind() == ErrorKind::NotConnected => {}
                other => other?,
            }
            io::Result::Ok(sent)
        });
        let received = receive(stream, timeout, touch, idle);
        let received = match received {
            Ok(received) => received,
            Err(e) => {
                // The other thread may wait for stdin for ever: nothing but the end of the process ends that.
                if !sending.is_finished() {
                    eprintln!("toe: {e}");
                    std::process::exit(1);
                }
                return Err(e);
            }
        };
        match sending.join() {
            Ok(sent) => Ok((sent?, received)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn receive(
    stream: &TcpStream,
    timeout: Option<Duration>,
    touch: impl Fn(),
    idle: impl Fn() -> Duration,
) -> io::Result<u64> {
    let mut received = 0;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut reader = stream;
    let mut out = io::stdout();
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                out.write_all(&buffer[..n])?;
                out.flush()?;
                touch();
                received += n as u64;
            }
            // Idle means both directions.
            Err(e) if is_timeout(&e) && timeout.is_some_and(|t| idle() < t) => {}
            Err(e) if is_timeout(&e) => return Err(io::Error::new(ErrorKind::TimedOut, "idle for too long")),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(received)
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && e.get_ref().is_none()
}

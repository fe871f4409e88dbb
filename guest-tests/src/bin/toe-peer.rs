//! The tests' helper inside the guest.

use std::fs::File;
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Parser, Subcommand};
use toe_abi::Mac;
use toe_guest::{PacketTransport, Transport};
use toe_guest_tests::bytes::{Pattern, Sum};
use toe_guest_tests::fuzz::Fuzzer;

/// The tests' helper inside the guest.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes that many bytes of that pattern to standard output.
    Gen {
        /// The pattern.
        seed: u64,
        /// How many bytes.
        bytes: u64,
        /// 16 KiB every 5 ms, and only until that file exists.
        #[arg(long)]
        until: Option<PathBuf>,
    },
    /// Sends that many bytes of that pattern over a connection of the kernel's, in pieces of 64 KiB.
    Send {
        /// The server's address.
        ip: IpAddr,
        /// The server's port.
        port: u16,
        /// The pattern.
        seed: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// Reads standard input to its end; prints its length and SHA-256.
    Sum {
        /// Leaves out an HTTP answer's head, which must say that all is well.
        #[arg(long)]
        http: bool,
    },
    /// Holds idle connections of the kernel's until each is broken; fails if one ends in order. Makes that file when it has them.
    Hold {
        /// The file; with `.listening` behind its name when others may connect.
        file: PathBuf,
        /// How many.
        count: usize,
        /// Opens them to there.
        #[arg(long, conflicts_with = "at")]
        to: Option<SocketAddr>,
        /// Accepts them at that port.
        #[arg(long, required_unless_present = "to")]
        at: Option<u16>,
        /// Sends a datagram there when the last is broken.
        #[arg(long)]
        tell: SocketAddr,
    },
    /// Listens at that port with the kernel's sockets, and ends.
    Listen {
        /// The port.
        port: u16,
    },
    /// Sends one byte with the card's Fast Open to that server, twice, and waits for its end each time.
    FastOpen {
        /// The server.
        to: SocketAddr,
    },
    /// Accepts so many connections with the card's Fast Open, and answers a request on each with its length.
    FastOpenServer {
        /// The port.
        port: u16,
        /// How many.
        count: usize,
    },
    /// Sends malformed channel frames to the card; prints what it sent and got.
    Fuzz {
        /// The card's interface.
        interface: String,
        /// How many.
        #[arg(long)]
        frames: u64,
        /// Decides every byte.
        #[arg(long)]
        seed: u64,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Gen { seed, bytes, until } => {
            let mut output = std::io::stdout().lock();
            let mut pattern = Pattern::new(seed).take(bytes);
            if let Some(until) = until {
                while pattern.limit() > 0 && !until.exists() {
                    std::io::copy(&mut (&mut pattern).take(16_384), &mut output)?;
                    std::thread::sleep(Duration::from_millis(5));
                }
            } else {
                std::io::copy(&mut pattern, &mut output)?;
            }
            output.flush()?;
        }
        Command::Send { ip, port, seed, bytes } => {
            let mut stream =
                TcpStream::connect((ip, port)).with_context(|| format!("connecting to {ip} port {port}"))?;
            let mut pattern = Pattern::new(seed).take(bytes);
            let mut piece = vec![0; 65_536];
            loop {
                let n = pattern.read(&mut piece)?;
                if n == 0 {
                    break;
                }
                stream.write_all(&piece[..n])?;
            }
        }
        Command::Sum { http } => {
            let mut input = std::io::stdin().lock();
            if http {
                skip_head(&mut input)?;
            }
            println!("{}", Sum::of(&mut input)?);
        }
        Command::Hold { file, count, to, at, tell } => {
            hold(&file, count, to, at)?;
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.send_to(b"told", tell)?;
        }
        Command::Listen { port } => drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?),
        Command::FastOpen { to } => {
            for _ in 0..2 {
                let options = toe_guest::Options::new().fast_open(true);
                let mut stream = options.connect_with(to, b"GET /file HTTP/1.0\r\n\r\n")?;
                println!("{}", Sum::of(&mut stream)?);
            }
        }
        Command::FastOpenServer { port, count } => {
            let listener = toe_guest::Options::new().fast_open(true).bind((Ipv4Addr::UNSPECIFIED, port))?;
            for _ in 0..count {
                let (mut stream, _) = listener.accept()?;
                let mut request = [0; 1024];
                let bytes = stream.read(&mut request)?;
                write!(stream, "HTTP/1.0 200 OK\r\n\r\n{bytes}\n")?;
            }
        }
        Command::Fuzz { interface, frames, seed } => fuzz(&interface, frames, seed)?,
    }
    Ok(())
}

/// Waits on idle connections until each is broken.
fn hold(file: &Path, count: usize, to: Option<SocketAddr>, at: Option<u16>) -> Result<()> {
    let streams = match (to, at) {
        (Some(to), _) => (0..count).map(|_| TcpStream::connect(to)).collect::<Result<Vec<_>, _>>()?,
        (None, port) => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.unwrap_or(0)))?;
            let mut listening = file.as_os_str().to_owned();
            listening.push(".listening");
            File::create(listening)?;
            (0..count).map(|_| Ok(listener.accept()?.0)).collect::<Result<Vec<_>, std::io::Error>>()?
        }
    };
    File::create(file)?;
    std::thread::scope(|scope| {
        let told = streams.into_iter().map(|mut stream| scope.spawn(move || stream.read(&mut [0; 64])));
        for told in told.collect::<Vec<_>>() {
            match told.join().map_err(|_| anyhow!("a reader panicked"))? {
                Ok(bytes) => bail!("{bytes} bytes came, and no error"),
                Err(e) => println!("{e}"),
            }
        }
        Ok(())
    })
}

/// Reads an HTTP answer up to its body.
fn skip_head(input: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    ensure!(line.split(' ').nth(1) == Some("200"), "the server said: {}", line.trim());
    while !line.trim().is_empty() {
        line.clear();
        let n = input.read_line(&mut line).context("the head of the answer")?;
        ensure!(n > 0, "the answer ended within its head");
    }
    Ok(())
}

/// How long the card may take to give the fuzzer its context.
const CONTEXT_LIMIT: Duration = Duration::from_secs(30);

fn fuzz(interface: &str, frames: u64, seed: u64) -> Result<()> {
    let attribute = |name: &str| {
        let path = format!("/sys/class/net/{interface}/{name}");
        std::fs::read_to_string(&path).map(|text| text.trim().to_owned()).context(path)
    };
    let octets: Vec<u8> =
        attribute("address")?.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>()?;
    let mac = Mac(octets.try_into().map_err(|_| anyhow!("{interface} is no Ethernet interface"))?);
    let mtu = attribute("mtu")?.parse()?;
    let mut fuzzer = Fuzzer::new(seed, mac, mtu as usize + toe_abi::ETHERNET_HEADER_BYTES);
    let transport = PacketTransport::open(attribute("ifindex")?.parse()?, mac, mtu, fuzzer.key())?;
    let mut buffer = vec![0; transport.frame_bytes_max()];
    let mut answers = 0;

    let start = Instant::now();
    while !fuzzer.has_context() {
        ensure!(start.elapsed() < CONTEXT_LIMIT, "the card gives no context");
        let length = fuzzer.hello(&mut buffer);
        send(&transport, &buffer[..length])?;
        std::thread::sleep(Duration::from_millis(100));
        answers += learn(&transport, &mut fuzzer, &mut buffer);
    }
    let start = Instant::now();
    for i in 0..frames {
        let length = fuzzer.next_frame(&mut buffer);
        send(&transport, &buffer[..length])?;
        if i % 64 == 0 {
            answers += learn(&transport, &mut fuzzer, &mut buffer);
        }
    }
    let time = start.elapsed().as_secs_f64();
    let length = fuzzer.bye(&mut buffer);
    send(&transport, &buffer[..length])?;
    println!("{frames} frames of seed {seed} in {time:.1} s ({:.0}/s), {answers} answers", frames as f64 / time);
    Ok(())
}

/// Sends a frame, however long the interface has no room for it.
fn send(transport: &PacketTransport, frame: &[u8]) -> Result<()> {
    let start = Instant::now();
    loop {
        match transport.send(frame) {
            Ok(()) => return Ok(()),
            // ENOBUFS: the interface's queue is full.
            Err(e) if e.kind() == ErrorKind::WouldBlock || e.raw_os_error() == Some(105) => {
                ensure!(start.elapsed() < CONTEXT_LIMIT, "the card takes no frames");
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(e) => return Err(e).context("sending a frame"),
        }
    }
}

/// Takes what the card has answered.
fn learn(transport: &PacketTransport, fuzzer: &mut Fuzzer, buffer: &mut [u8]) -> u64 {
    let mut answers = 0;
    while let Ok(length) = transport.receive(buffer) {
        fuzzer.learn(&buffer[..length]);
        answers += 1;
    }
    answers
}

//! `toe hold`: many connections to an echo server at once, bytes through each, and who carried them.
//!
//! All connections are opened before the first byte goes out and closed after the last came back, so that as many are
//! open at the same time as were asked for. Each carries bytes of its own (a function of its number), so that an
//! echo on the wrong connection does not go unseen.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use serde_json::json;
use toe_guest::{Offload, TcpStream};

/// So much is on its way on one connection before it is read back: less than any buffer, so that nobody gets stuck.
const CHUNK_BYTES: u64 = 4 * 1024;
const THREADS_MAX: usize = 16;

/// What `toe hold` is told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// An echo server.
    host: String,
    /// Its port.
    port: u16,
    /// How many connections.
    #[arg(short = 'n', long = "connections", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// How many bytes through each.
    #[arg(short, long, default_value_t = 10_000)]
    bytes: u64,
    /// Give up connecting, reading and writing after so many seconds.
    #[arg(short = 'w', long = "timeout", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What became of one connection.
struct Held {
    number: u64,
    result: Result<TcpStream, String>,
}

/// Runs it.
///
/// # Errors
/// What a person should be told.
pub fn run(a: &Arguments) -> Result<(), String> {
    let target = (a.host.as_str(), a.port);
    let address = target.to_socket_addrs().map_err(|e| format!("cannot find the address of {}: {e}", a.host))?.next();
    let address = address.ok_or_else(|| format!("{} has no address", a.host))?;
    let timeout = Duration::from_secs(a.timeout);

    let mut parts: Vec<Vec<Held>> = Vec::new();
    parts.resize_with(THREADS_MAX.min(a.connections as usize), Vec::new);
    let count = parts.len() as u64;
    for number in 0..u64::from(a.connections) {
        parts[(number % count) as usize].push(Held { number, result: Err(String::new()) });
    }
    each(&mut parts, |held| held.result = open(address, timeout));
    let opened = parts.iter().flatten().filter(|h| h.result.is_ok()).count();
    if !a.json {
        eprintln!("{opened} of {} connections are open at the same time", a.connections);
    }
    each(&mut parts, |held| {
        if let Ok(stream) = &held.result
            && let Err(e) = echo(stream, held.number, a.bytes)
        {
            held.result = Err(e);
        }
    });

    let mut carriers: BTreeMap<String, u64> = BTreeMap::new();
    let mut failures: BTreeMap<String, u64> = BTreeMap::new();
    let mut on_card = 0u64;
    for held in parts.iter().flatten() {
        match &held.result {
            Ok(stream) => {
                on_card += u64::from(stream.offload().is_card());
                if let Offload::Kernel(reason) = stream.offload() {
                    *carriers.entry(reason.to_string()).or_default() += 1;
                }
            }
            Err(e) => *failures.entry(e.clone()).or_default() += 1,
        }
    }
    let (in_kernel, failed) = (carriers.values().sum::<u64>(), failures.values().sum::<u64>());
    if a.json {
        println!(
            "{}",
            json!({
                "connections": a.connections, "held_at_once": opened, "bytes_each": a.bytes, "card": on_card,
                "kernel": in_kernel, "kernel_by_reason": carriers, "failed": failed, "failures": failures,
            })
        );
    } else {
        println!("{on_card:>6} on the card");
        println!("{in_kernel:>6} in the kernel");
        for (reason, count) in &carriers {
            println!("{count:>12} {reason}");
        }
        println!("{failed:>6} failed");
        for (reason, count) in &failures {
            println!("{count:>12} {reason}");
        }
    }
    // All at once, not one after the other: each may linger.
    each(&mut parts, |held| held.result = Err(String::new()));
    if failed == 0 { Ok(()) } else { Err(format!("{failed} of {} connections failed", a.connections)) }
}

/// Does something to every connection, each part in a thread of its own.
fn each(parts: &mut [Vec<Held>], f: impl Fn(&mut Held) + Sync) {
    std::thread::scope(|scope| {
        for part in parts {
            scope.spawn(|| part.iter_mut().for_each(&f));
        }
    });
}

fn open(address: SocketAddr, timeout: Duration) -> Result<TcpStream, String> {
    let stream = TcpStream::connect_timeout(&address, timeout).map_err(|e| format!("connect: {e}"))?;
    stream.set_read_timeout(Some(timeout)).map_err(|e| e.to_string())?;
    stream.set_write_timeout(Some(timeout)).map_err(|e| e.to_string())?;
    Ok(stream)
}

fn echo(mut stream: &TcpStream, number: u64, bytes: u64) -> Result<(), String> {
    let mut at = 0;
    while at < bytes {
        let n = CHUNK_BYTES.min(bytes - at);
        let sent: Vec<u8> = (at..at + n).map(|i| byte(number, i)).collect();
        stream.write_all(&sent).map_err(|e| format!("write: {e}"))?;
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).map_err(|e| format!("read: {e}"))?;
        if sent != received {
            return Err("the echo differs from what was sent".to_owned());
        }
        at += n;
    }
    Ok(())
}

/// The byte at a position of a connection's stream: a multiplicative hash of both.
fn byte(number: u64, at: u64) -> u8 {
    let x = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x >> 56) as u8
}

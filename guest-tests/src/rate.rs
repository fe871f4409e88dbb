//! How fast streams are: as many bytes as go through within a time, and the links to compare the card with two kernels.
//!
//! Only rates are of interest here; that the bytes are right is what the soak and the scenarios look at.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::Namespace;

/// How often a thread that waits for a stream looks whether it is over.
const LOOK: Duration = Duration::from_millis(200);
/// How long an end of a stream may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// One stream's two ends.
pub struct Flow {
    /// Where bytes go in.
    pub from: Box<dyn Write + Send>,
    /// Where they come out.
    pub to: Box<dyn Read + Send>,
}

/// Pushes bytes through all flows at once for `time`; the bytes that came out of each.
///
/// # Errors
/// If a stream breaks.
pub fn push_through(flows: Vec<Flow>, time: Duration) -> Result<Vec<u64>> {
    let stop = AtomicBool::new(false);
    let counts: Vec<_> = flows.iter().map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (Flow { mut from, mut to }, count) in flows.into_iter().zip(&counts) {
            let stop = &stop;
            threads.push(scope.spawn(move || {
                let piece = vec![0x5a; 65_536];
                again_until(stop, || from.write(&piece)).context("sending")
            }));
            threads.push(scope.spawn(move || {
                let mut piece = vec![0; 65_536];
                again_until(stop, || {
                    let n = to.read(&mut piece)?;
                    count.fetch_add(n as u64, Ordering::Relaxed);
                    Ok(n)
                })
                .context("receiving")
            }));
        }
        std::thread::sleep(time);
        let seen = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a thread of a stream panicked"))??;
        }
        Ok(seen)
    })
}

fn again_until(stop: &AtomicBool, mut step: impl FnMut() -> std::io::Result<usize>) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match step() {
            Ok(0) => return Err(anyhow!("the stream ended before its time")),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) if stop.load(Ordering::Relaxed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A listener of the kernel in a namespace.
///
/// # Errors
/// If it cannot listen.
pub fn listen(namespace: &Namespace, ip: IpAddr) -> Result<TcpListener> {
    namespace.enter(|| Ok(TcpListener::bind((ip, 0))?))
}

/// The next connection of a kernel's listener.
///
/// # Errors
/// If none comes.
pub fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return of_kernel(stream);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(e).context("no connection came"),
        }
    }
}

/// A connection of the kernel in a namespace.
///
/// # Errors
/// If it cannot be made.
pub fn connect(namespace: &Namespace, to: SocketAddr) -> Result<TcpStream> {
    of_kernel(namespace.enter(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))?)
}

fn of_kernel(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    Ok(stream)
}

/// Gives a stream of the card the time limits that [`push_through`] needs.
///
/// # Errors
/// The library's.
pub fn of_card(stream: toe_guest::TcpStream) -> Result<toe_guest::TcpStream> {
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    Ok(stream)
}

/// Has the kernel use a congestion controller for a stream, by Linux's name of it.
///
/// # Errors
/// If it does not have it.
pub fn control(stream: &TcpStream, controller: &str) -> Result<()> {
    rustix::net::sockopt::set_tcp_congestion(stream, controller).with_context(|| format!("controller {controller}"))
}

/// Sets a variable of the kernel's TCP in a namespace, as `tcp_rmem`.
///
/// # Errors
/// If there is no such variable, or it cannot be this.
pub fn set_kernel(namespace: &Namespace, variable: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv4/{variable}");
    namespace.enter(|| std::fs::write(&path, value).with_context(|| format!("{path} as {value}")))
}

/// A counter of the kernel's TCP in a namespace: of `snmp` those of the table `Tcp: `, of `netstat` those of `TcpExt: `.
///
/// # Errors
/// If there is no such counter.
pub fn kernel_counter(namespace: &Namespace, file: &str, table: &str, counter: &str) -> Result<u64> {
    let path = format!("/proc/thread-self/net/{file}");
    let text = namespace.enter(|| Ok(std::fs::read_to_string(&path)?))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(table));
    let (names, values) = lines.next().zip(lines.next()).with_context(|| format!("no {table} in {path}"))?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == counter).with_context(|| format!("no {counter} in {path}"))?;
    Ok(value.parse()?)
}

/// Jain's index of fairness in thousandths: 1000 if all have the same, 1000 / n if one has everything.
pub fn fairness_thousandths(rates: &[u64]) -> u64 {
    let sum: u128 = rates.iter().map(|r| u128::from(*r)).sum();
    let squares: u128 = rates.iter().map(|r| u128::from(*r) * u128::from(*r)).sum();
    (sum * sum * 1000).checked_div(squares * rates.len() as u128).unwrap_or(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_is_between_one_share_and_all() {
        assert_eq!(fairness_thousandths(&[5, 5]), 1000);
        assert_eq!(fairness_thousandths(&[7, 0]), 500);
        assert_eq!(fairness_thousandths(&[2, 1]), 900);
        assert_eq!(fairness_thousandths(&[]), 0);
    }
}

//! How long an outage lasts, for whoever uses a guest's services all the while, and for whoever holds a connection.
//!
//! [`Clients`] ask nginx in the guest for a small file, a new connection every [`EVERY`], whatever became of the ones before. What
//! worked tells how long a request takes in this guest when nothing is wrong; the first that begins after a fault and works
//! ends the outage. [`Held`] are idle connections of programs under `toe run`, opened by them and accepted by them.
//!
//! A guest may be emulated, on a machine that does other things, too. So what is measured may be longer than what the card
//! promises by as much as the guest took for the same thing before the fault, and no more.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::host::wait_for;
use crate::net::{GUEST_V4, PEER_V4};
use crate::{Job, Lab, peers};

/// How often a client begins.
const EVERY: Duration = Duration::from_millis(250);
/// So many may wait for their answers at once: more would keep a guest that is slow from everything else.
const WAITING_MAX: usize = 14;
/// How long one waits for its connection, and for each byte: longer than an outage may be, so that one that began before the
/// fault does not count as working after it.
const PATIENCE: Duration = Duration::from_secs(3);
/// So many requests are made before the fault.
const BEFORE: usize = 10;
/// An outage that is longer than this fails whatever the guest's pace.
const OUTAGE_MAX: Duration = Duration::from_secs(60);
/// So many connections are held each way.
const HELD: usize = 4;
const HELD_PORT: u16 = 7100;

/// One request.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    began: Instant,
    /// When it had the whole answer; `None` if it never had.
    worked: Option<Instant>,
}

/// Requests that go on until they are measured; see the module.
#[derive(Debug)]
pub struct Clients {
    stop: Arc<AtomicBool>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What clients saw.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// From the fault until the first request had its answer that began after it.
    pub over_after: Duration,
    /// The longest that a request took before the fault.
    pub usual: Duration,
}

impl Clients {
    /// Starts them, and waits until some have worked. `path` is a small file of the guest's nginx.
    ///
    /// # Errors
    /// If none works.
    pub fn start(lab: &Lab, path: &'static str) -> Result<Self> {
        let (stop, attempts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, all) = (Arc::clone(&stop), Arc::clone(&attempts));
        let waiting = Arc::new(AtomicUsize::new(0));
        let thread = lab.namespace.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if waiting.load(Ordering::Relaxed) == WAITING_MAX {
                    std::thread::sleep(EVERY);
                    continue;
                }
                waiting.fetch_add(1, Ordering::Relaxed);
                let (all, waiting) = (Arc::clone(&all), Arc::clone(&waiting));
                // Of the namespace, too: a thread is where the one is that starts it.
                std::thread::spawn(move || {
                    let began = Instant::now();
                    let worked = request(path).is_ok().then(Instant::now);
                    all.lock().unwrap_or_else(PoisonError::into_inner).push(Attempt { began, worked });
                    waiting.fetch_sub(1, Ordering::Relaxed);
                });
                std::thread::sleep(EVERY);
            }
            Ok(())
        })?;
        let clients = Self { stop, attempts, thread: Some(thread) };
        wait_for("requests that work", OUTAGE_MAX, || Ok((clients.working(|_| true).len() >= BEFORE).then_some(())))?;
        Ok(clients)
    }

    fn working(&self, which: impl Fn(&Attempt) -> bool) -> Vec<(Instant, Instant)> {
        let all = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|a| which(a)).filter_map(|a| Some((a.began, a.worked?))).collect()
    }

    /// Waits until a request works that began after `fault`, and ends them all.
    ///
    /// # Errors
    /// If none does within a minute.
    pub fn outage(mut self, fault: Instant) -> Result<Outage> {
        let over = wait_for("a request that works after the fault", OUTAGE_MAX, || {
            Ok(self.working(|a| a.began >= fault).into_iter().map(|(_, end)| end).min())
        })?;
        let before = self.working(|a| a.worked.is_some_and(|end| end <= fault));
        let usual = before.into_iter().map(|(began, end)| end - began).max().context("no request before the fault")?;
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the clients panicked"))??;
        }
        Ok(Outage { over_after: over - fault, usual })
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Outage {
    /// It is over within `promised`, beside the guest's own pace and that of the clients.
    ///
    /// # Errors
    /// If it is not.
    pub fn is_within(&self, promised: Duration) -> Result<()> {
        let Self { over_after, usual } = *self;
        ensure!(
            over_after <= promised + usual + EVERY,
            "new connections worked after {over_after:.1?}; promised are {promised:.1?}, and a request takes {usual:.1?}"
        );
        Ok(())
    }
}

/// One request, over a connection of its own.
fn request(path: &str) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(GUEST_V4, 80), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// How many connections the card has.
fn connections(lab: &mut Lab) -> Result<i64> {
    let limits = lab.card()?.limits()?;
    let pool = limits.as_array().into_iter().flatten().find(|pool| pool["name"] == "connections");
    pool.and_then(|pool| pool["in_use"].as_i64()).with_context(|| format!("no connections in {limits}"))
}

/// Idle connections of programs in the guest; see the module.
pub struct Held {
    jobs: [Job; 2],
    /// When the last word came that all of one were told.
    told: JoinHandle<Result<Instant>>,
    _opened: peers::Peer<Vec<crate::bytes::Sum>>,
    _accepted: Vec<TcpStream>,
}

impl Held {
    /// Opens them, and sees that they are the card's: in a guest that is slow enough the card can seem not to be there, and the
    /// kernel carries them. Then others are opened.
    ///
    /// # Errors
    /// If one cannot be opened, or the kernel carries them each time.
    pub fn start(lab: &mut Lab) -> Result<Self> {
        for _ in 0..3 {
            let before = connections(lab)?;
            let held = Self::open(lab)?;
            let on_card = connections(lab)? - before;
            if on_card >= 2 * HELD as i64 {
                return Ok(held);
            }
            lab.step(&format!("{on_card} of {} held connections are the card's: others", 2 * HELD));
            lab.guest()?.check("killall toe-peer")?;
        }
        Err(anyhow!("the kernel carries what is to be held"))
    }

    fn open(lab: &Lab) -> Result<Self> {
        let guest = lab.guest()?;
        guest.check("rm -f /tmp/held.*")?;
        let opened = peers::sink(&lab.namespace, PEER_V4, HELD)?;
        let port = opened.address.port();
        let words = lab.namespace.enter(|| Ok(UdpSocket::bind((PEER_V4, 0))?))?;
        words.set_read_timeout(Some(OUTAGE_MAX * 3))?;
        let tell = words.local_addr()?;
        let told = std::thread::spawn(move || {
            for _ in 0..2 {
                words.recv(&mut [0; 16]).context("no word of the held connections")?;
            }
            Ok(Instant::now())
        });
        let active = guest
            .start(&format!("toe run -- toe-peer hold /tmp/held.active {HELD} --to {PEER_V4}:{port} --tell {tell} 2>/tmp/held.active.err"))?;
        let passive = guest.start(&format!(
            "toe run -- toe-peer hold /tmp/held.passive {HELD} --at {HELD_PORT} --tell {tell} 2>/tmp/held.passive.err"
        ))?;
        let explained = |error: anyhow::Error| {
            let said =
                guest.run("ls /tmp/held.*; cat /tmp/held.*.err").map_or_else(|e| e.to_string(), |output| output.text);
            error.context(said).context(crate::faults::what_is_left(guest))
        };
        let there = |file: &str| -> Result<()> {
            let is_there = || Ok((guest.run(&format!("test -e {file}"))?.status == 0).then_some(()));
            wait_for(file, OUTAGE_MAX, is_there).map_err(explained)
        };
        there("/tmp/held.passive.listening")?;
        let to = SocketAddr::new(GUEST_V4, HELD_PORT);
        let accepted = (0..HELD).map(|_| peers::connect(&lab.namespace, to)).collect::<Result<Vec<_>>>();
        let accepted = accepted.map_err(explained)?;
        there("/tmp/held.active")?;
        there("/tmp/held.passive")?;
        Ok(Self { jobs: [active, passive], told, _opened: opened, _accepted: accepted })
    }

    /// Waits until each has been told that its connection is broken: how long after `fault` the last was, by when word of that came
    /// out of the guest.
    ///
    /// # Errors
    /// If one is not told within `promised` and the guest's pace (`usual`: how long a request takes), or is told that the stream
    /// ended in order.
    pub fn told(self, lab: &Lab, fault: Instant, promised: Duration, usual: Duration) -> Result<Duration> {
        let guest = lab.guest()?;
        for job in self.jobs {
            let output = guest.wait(job, OUTAGE_MAX)?;
            ensure!(output.status == 0, "a held connection: {}", output.text);
        }
        let last = self.told.join().map_err(|_| anyhow!("a thread panicked"))??;
        let after = last.saturating_duration_since(fault);
        ensure!(
            after <= promised + usual,
            "held connections were told after {after:.2?}; promised are {promised:.2?}, and a request takes {usual:.2?}"
        );
        Ok(after)
    }
}

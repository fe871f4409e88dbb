//! A card without a guest: this process is its frontend, the kernel in a namespace is the peer.
//!
//! The wire is the namespace's TAP, as in a lab. On the other side the guest library speaks vhost-user to the card
//! itself, in the part of a whole station with the guest's addresses ([`Station`]); there is no kernel on that side,
//! so that nothing can fall back: what the card does not carry, fails.
//!
//! What bounds it: streams are made with time limits for every read and write, and a watchdog ends the card when the
//! limit of the whole is over, so that whoever still waits is told.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;
use toe_abi::Mac;
use toe_guest::{
    Buffers, ChannelCounters, Options, Station, StationConfig, TcpListener, TcpStream, VhostUser, random_key,
};

use crate::bytes::{Pattern, Sum};
use crate::guest::tail;
use crate::host;
use crate::net::{GUEST_V4, GUEST_V6};
use crate::{Card, CardOptions, CardWire, Namespace};

/// How long a stream waits for the next byte.
const PATIENCE: Duration = Duration::from_secs(60);
/// The station's Ethernet address: [`crate::net::GUEST_MAC`].
const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// What a bench is made of.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The card.
    pub card: CardOptions,
    /// Bytes that a connection may hold in the library.
    pub buffers: Buffers,
    /// How long all of it may take.
    pub limit: Duration,
    /// Of the wire and the station, in bytes.
    pub mtu: u32,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self { card: CardOptions::default(), buffers: Buffers::default(), limit: Duration::from_secs(120), mtu: 1500 }
    }
}

/// See the module's text.
pub struct Bench {
    options: Options,
    // Before the card, so that it can say BYE to it.
    station: Arc<Station>,
    card: Card,
    _watchdog: Watchdog,
    /// Where the peers live.
    pub namespace: Namespace,
    directory: TempDir,
}

impl Bench {
    /// Makes the namespace, starts the card and connects to it.
    ///
    /// # Errors
    /// If something is missing on the host, or does not come up.
    pub fn start(options: &BenchOptions) -> Result<Self> {
        host::check()?;
        let namespace = Namespace::new()?;
        match options.card.wire {
            CardWire::Tap => namespace.add_tap(options.mtu)?,
            CardWire::Interface => namespace.add_pair(options.mtu)?,
        }
        let directory = tempfile::Builder::new().prefix("toe-").tempdir()?;
        let card = Card::start(&namespace, &options.card, directory.path())?;
        let watchdog = Watchdog::start(namespace.name(), options.limit);
        let transport = VhostUser::connect(&card.socket(), MAC, options.mtu)?;
        let config = StationConfig {
            addresses: vec![(GUEST_V4, 24), (GUEST_V6, 64)],
            gateway_v4: None,
            gateway_v6: None,
            buffers: options.buffers,
        };
        let station = Station::new(Arc::new(transport), random_key()?, config)
            .map_err(|reason| anyhow!("no context on the card: {reason}: {}", log(directory.path())))?;
        let options = Options::with(station.clone());
        Ok(Self { options, station, card, _watchdog: watchdog, namespace, directory })
    }

    /// The card's process.
    pub fn card(&mut self) -> &mut Card {
        &mut self.card
    }

    /// This side of the wire.
    pub fn station(&self) -> &Station {
        &self.station
    }

    /// How this side opens connections and listeners.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Opens a connection, with time limits for what is done with it.
    ///
    /// # Errors
    /// The library's; without wrapping, so that kind and reason can be looked at.
    pub fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        patient(self.options.connect(to)?)
    }

    /// Listens on a port of the card's choice.
    ///
    /// # Errors
    /// The library's.
    pub fn listen(&self, ip: IpAddr) -> io::Result<TcpListener> {
        self.options.bind((ip, 0))
    }

    /// Accepts a connection, with time limits for what is done with it.
    ///
    /// # Errors
    /// The library's.
    pub fn accept(&self, listener: &TcpListener) -> Result<TcpStream> {
        let (stream, _) = listener.accept()?;
        Ok(patient(stream)?)
    }

    /// Capacity, use, high water and refusals of a pool, when the operator's and the program's view of it agree. It
    /// waits for that, because asking takes place in the pools, too, and connections end in their own time.
    ///
    /// # Errors
    /// If they never agree or there is no such pool.
    pub fn pool(&self, name: &str) -> Result<Pool> {
        host::wait_for("toectl and library to say the same", Duration::from_secs(10), || {
            let json = self.card.limits()?;
            let rows = json.as_array().context("toectl limits printed no list")?;
            let row = rows.iter().find(|row| row["name"] == name).with_context(|| format!("no pool {name}"))?;
            let number = |what: &str| row[what].as_u64().with_context(|| format!("no {what} of {name}"));
            let refusals = row["refusals"].as_object().context("no refusals")?;
            let operator = Pool {
                capacity: number("capacity")?,
                in_use: number("in_use")?,
                high_water: number("high_water")?,
                refusals: refusals
                    .iter()
                    .map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or(u64::MAX)))
                    .filter(|(_, count)| *count > 0)
                    .collect(),
            };
            let rows = self.station.card().limits()?;
            let row = rows.into_iter().find(|row| row.name == name).with_context(|| format!("no pool {name}"))?;
            let mut refusals: Vec<_> = row.refusals.into_iter().filter(|(_, count)| *count > 0).collect();
            refusals.sort();
            let program = Pool { capacity: row.capacity, in_use: row.in_use, high_water: row.high_water, refusals };
            Ok((operator == program).then_some(program))
        })
    }

    /// The card's counters that are not zero, as name and value.
    ///
    /// # Errors
    /// If the card does not answer.
    pub fn counters(&self) -> Result<Vec<(String, u64)>> {
        let stat = self.card.stat()?;
        let stat = stat.as_object().context("toectl stat printed no object")?;
        let values = stat.iter().map(|(name, value)| (name.clone(), value.as_u64().unwrap_or(u64::MAX)));
        Ok(values.filter(|(_, value)| *value > 0).collect())
    }

    /// The number of the card's process.
    pub fn card_pid(&self) -> u32 {
        self.card.pid()
    }

    /// A counter of the card.
    ///
    /// # Errors
    /// If the card does not answer or has no such counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        self.card.stat()?[name].as_u64().with_context(|| format!("no counter {name}"))
    }

    /// Checks at the end that the card still runs, that it accounts for every frame, that every connection and its
    /// memory came back, and that nothing was dropped, refused or reset but what `expected` names.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn finish(mut self, expected: &[&str]) -> Result<()> {
        ensure!(self.card.is_running(), "toe-nic ended: {}", log(self.directory.path()));
        for pool in ["connections", "half-open", "send-pages", "receive-pages", "transmit-records"] {
            host::wait_for(&format!("pool {pool} to be empty"), Duration::from_secs(10), || {
                Ok((self.pool(pool)?.in_use == 0).then_some(()))
            })?;
        }
        let stat = self.card.stat()?;
        let stat = stat.as_object().context("toectl stat printed no object")?;
        let value = |name: &str| stat.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
        for side in ["wire", "guest"] {
            let dropped: u64 =
                stat.keys().filter(|name| name.starts_with(&format!("{side}-drop-"))).map(|name| value(name)).sum();
            let [all, taken, passed] = ["in", "taken", "passed"].map(|what| value(&format!("{side}-{what}")));
            ensure!(
                all == taken + passed + dropped,
                "{side}: {all} in, {taken} taken, {passed} passed, {dropped} lost"
            );
        }
        let surprises: Vec<_> = stat
            .keys()
            .filter(|name| !is_of_an_ordinary_life(name) && !expected.contains(&name.as_str()) && value(name) > 0)
            .map(|name| format!("{name} {}", value(name)))
            .collect();
        ensure!(surprises.is_empty(), "the card counted what was not to be: {}", surprises.join(", "));
        // What is not the context's is the station's: ARP and its like.
        let counters = ChannelCounters { frames_not_ours: 0, rings_used: 0, ..self.station.card().counters() };
        // That a small pool fills is what it is small for.
        let nothing = ChannelCounters { resource_events: counters.resource_events, ..ChannelCounters::default() };
        ensure!(counters == nothing, "the library counted {counters:?}");
        Ok(())
    }
}

/// A pool as operator and program both see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// How many there are.
    pub capacity: u64,
    /// How many are in use.
    pub in_use: u64,
    /// The most that were ever in use at once.
    pub high_water: u64,
    /// How often it refused, by reason; only what is not zero.
    pub refusals: Vec<(String, u64)>,
}

/// Sends the first `bytes` of the pattern `seed`, half-closes, and sums up what comes meanwhile until its end.
///
/// # Errors
/// The stream's.
pub fn exchange(stream: &TcpStream, seed: u64, bytes: u64) -> Result<Sum> {
    std::thread::scope(|scope| {
        let received = scope.spawn(|| Sum::of(&mut &*stream));
        send(stream, seed, bytes)?;
        stream.shutdown(Shutdown::Write)?;
        received.join().map_err(|_| anyhow!("the reader panicked"))?.context("reading from the card")
    })
}

/// Sends the first `bytes` of the pattern `seed`.
///
/// # Errors
/// The stream's.
pub fn send(mut stream: &TcpStream, seed: u64, bytes: u64) -> Result<()> {
    let mut pattern = Pattern::new(seed).take(bytes);
    let mut piece = vec![0; 65_536];
    loop {
        let n = pattern.read(&mut piece)?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&piece[..n]).context("writing to the card")?;
    }
}

fn patient(stream: TcpStream) -> io::Result<TcpStream> {
    if !stream.offload().is_card() {
        return Err(io::Error::other("a station's stream that is not on the card"));
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Counters that any connection may move on a wire that loses nothing.
fn is_of_an_ordinary_life(counter: &str) -> bool {
    const NAMES: &[&str] = &[
        "wire-in",
        "wire-taken",
        "wire-passed",
        // ARP and neighbour solicitations.
        "wire-passed-group",
        "wire-out",
        "guest-in",
        "guest-taken",
        "guest-passed",
        "guest-out",
        "channel-messages",
        "tcp-active-opens",
        "tcp-passive-opens",
        "tcp-established",
        "tcp-closed",
        "tcp-segments-in",
        "tcp-segments-out",
        "interrupts",
        "frontends-connected",
        // What the kernel says of itself on the TAP before the station is there.
        "no-guest",
        // The wire is not read for a while: back-pressure, no loss.
        "receive-fifo-full",
        // The short way of ordinary segments.
        "tcp-predicted",
        // A look at the rings that came before the other side's word.
        "kicks-missed",
        "interrupts-repeated",
    ];
    // Timers of both ends fire early when the machine lets somebody wait: what they send again is no loss.
    const LATE: &[&str] = &[
        "tcp-retransmits",
        "tcp-timeouts",
        "tcp-tail-probes",
        "tcp-window-probes",
        "tcp-duplicate",
        "tcp-dsacks-in",
        "tcp-dsacks-out",
        "tcp-undos",
        "tcp-spurious-timeouts",
        "tcp-idle-restarts",
        "tcp-out-of-window",
        "tcp-challenge-acks",
        "channel-resent",
        "channel-repeated",
        // Data sent again that arrives when the connection is over.
        "channel-wrong-state",
    ];
    const FAMILIES: &[&str] = &["frames-", "bytes-", "firmware-frames-to-", "impair-"];
    NAMES.contains(&counter) || LATE.contains(&counter) || FAMILIES.iter().any(|family| counter.starts_with(family))
}

fn log(directory: &Path) -> String {
    tail(&directory.join("card.log"), 3)
}

/// Ends what runs in a namespace when a time limit is over; dropped in time, it does nothing.
struct Watchdog {
    _done: Sender<()>,
    _thread: JoinHandle<()>,
}

impl Watchdog {
    fn start(namespace: &str, limit: Duration) -> Self {
        let namespace = namespace.to_owned();
        let (done, is_done) = channel();
        let thread = std::thread::spawn(move || {
            if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("the card is ended after {} s: whoever waits for it will fail now", limit.as_secs());
                if let Err(error) = Namespace::end_processes_of(&namespace) {
                    eprintln!("{error:#}");
                }
            }
        });
        Self { _done: done, _thread: thread }
    }
}

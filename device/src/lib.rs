//! The card's hardware: a virtio-net device over vhost-user, the wire behind it, and the firmware between them.
//!
//! [`Device::start`] starts a card as the binary `toe-nic` does; dropping the [`Device`] ends it. The parts, from the
//! guest to the wire: [`server`] and [`relay`] take the frontend's messages, [`backend`] answers them, [`ring`] is a
//! virtqueue, [`datapath`] the way of a frame, [`card`] the threads and the clock, [`wire`] what the card is plugged
//! into. [`watchdog`] starts a firmware that has stopped. [`management`] answers the operator.

pub mod backend;
pub mod capture;
pub mod card;
pub mod counters;
pub mod datapath;
pub mod events;
pub mod fault;
pub mod fifo;
pub mod flow;
pub mod management;
pub mod metrics;
pub mod net;
pub mod options;
pub mod packet;
pub mod profile_text;
pub mod relay;
pub mod ring;
pub mod server;
pub mod vigil;
pub mod watchdog;
pub mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use toe_firmware::fault::Rules;
use toe_firmware::{Duration, Firmware, Instant, Lane, Profile, ProfileError, SelfTestError};
use toe_impair::Spec;

use crate::capture::Request;
use crate::capture::writer::{self, CaptureFailure};
use crate::card::{Card, Stop};
use crate::datapath::{DataPath, FifoFrames};
use crate::net::Features;
use crate::server::{Offer, SocketError, SocketFile, Source};
use crate::watchdog::{Boots, Guard};
use crate::wire::{Impaired, WireError, WireSpec};

/// How long the end of a card waits for what its capture still has to write.
const CAPTURE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// What a card is made of.
#[derive(Debug)]
pub struct Config {
    /// Where the frontend comes from.
    pub frontend: FrontendSocket,
    /// What the card is plugged into.
    pub wire: WireSpec,
    /// What is wrong with that, in each direction, and the seed of it.
    pub impair: Option<(Spec, u64)>,
    /// Its limits and defaults.
    pub profile: Profile,
    /// Pairs of rings on offer, 1 to 32.
    pub queue_pairs: u16,
    /// Where the operator may ask.
    pub management_socket: Option<PathBuf>,
    /// Where Prometheus may ask over TCP.
    pub metrics: Option<SocketAddr>,
    /// Where what passes is written to from the beginning, and what of it.
    pub capture: Option<(PathBuf, Request)>,
    /// Faults that are armed from the beginning, and the seed of their chance.
    pub faults: Option<(Rules, u64)>,
    /// The seed of everything random in the firmware; from the system if there is none.
    pub seed: Option<[u8; 32]>,
    /// How long the card looks for more after the last frame before it sleeps.
    pub poll: std::time::Duration,
    /// The firmware may reach the frontend's memory, where a program asks for that.
    pub shared_rings: bool,
}

/// Where a frontend comes from.
#[derive(Debug)]
pub enum FrontendSocket {
    /// A path to listen on.
    Path(PathBuf),
    /// A descriptor that this process inherited.
    Inherited(std::os::fd::RawFd),
}

/// Why a card did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The firmware.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
    /// The wire.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The address for Prometheus.
    #[error("--metrics {0}: {1}; is another process there?")]
    Metrics(SocketAddr, io::Error),
    /// The capture.
    #[error("--capture {0}: {1}")]
    Capture(PathBuf, CaptureFailure),
    /// The system.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

/// A card that runs.
#[derive(Debug)]
pub struct Device {
    card: Arc<Card>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    doors: management::Doors,
    capture: Option<JoinHandle<io::Result<()>>>,
    /// Removed at the end.
    _files: Vec<SocketFile>,
}

impl Device {
    /// Starts a card: its sockets are there when this returns. `ended` is called when it ends of its own accord, that
    /// is when the only frontend of an inherited connection has gone, or with what broke.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left behind then.
    pub fn start(config: Config, ended: impl FnOnce(io::Result<()>) + Send + 'static) -> Result<Self, Error> {
        let Config {
            frontend,
            wire,
            impair,
            profile,
            queue_pairs,
            management_socket,
            metrics,
            capture,
            faults,
            seed,
            poll,
            shared_rings,
        } = config;
        let system = |step| move |error: io::Error| Error::System(step, error);
        let mut files = Vec::new();
        // The inherited descriptor before anything is opened: its number may be free otherwise.
        let source = match frontend {
            FrontendSocket::Inherited(fd) => Source::from_inherited(fd)?,
            FrontendSocket::Path(path) => {
                let listener = server::bind(&path)?;
                files.push(SocketFile(path));
                Source::Listener(listener)
            }
        };
        let management = match management_socket {
            Some(path) => {
                let listener = server::bind_private(&path)?;
                files.push(SocketFile(path));
                Some(listener)
            }
            None => None,
        };
        let metrics = match metrics {
            Some(address) => Some(TcpListener::bind(address).map_err(|error| Error::Metrics(address, error))?),
            None => None,
        };
        let mut wire = wire.open()?;
        if let Some((spec, seed)) = impair {
            wire = Box::new(Impaired::new(wire, spec, seed));
        }
        let mut boots = Boots::new(seed);
        let (seed, epoch) = boots.next(0).map_err(system("random numbers from the system"))?;
        let start = std::time::Instant::now();
        let mut firmware = Firmware::new(&profile, seed, epoch, Instant::from_us(0))?;
        firmware.self_test()?;
        // Another card may have been here before, and its guest waits for word.
        firmware.announce(Instant::from_us(0));
        let features = Features::offered(queue_pairs, wire.carries_offloads());
        let limits = &profile.limits;
        let fifo = FifoFrames {
            receive: limits.receive_fifo_frames as usize,
            wire: Lane::COUNT * limits.wire_fifo_frames as usize,
        };
        let mut path = DataPath::new(firmware, wire, fifo, usize::from(queue_pairs));
        if profile.recovery.watchdog_ms > 0 {
            let every = Duration::from_ms(profile.recovery.watchdog_ms.into());
            path.guard(Guard::new(every, boots));
        }
        if shared_rings {
            path.share_memory();
        }
        if let Some((rules, seed)) = faults {
            path.arm(rules, seed, Instant::from_us(0));
        }
        let capture = match capture {
            Some((file, request)) => {
                let failed = |error: CaptureFailure| Error::Capture(file.clone(), error);
                let write = writer::open(&file, request.snaplen).map_err(failed)?;
                Some((write, path.capture(request).map_err(|error| failed(error.into()))?))
            }
            None => None,
        };
        let doors = management::Doors { management, metrics, log: path.follow() };
        let card = Card::new(path, start).map_err(system("event descriptors"))?;
        let card = Arc::new(card.polling(poll));
        let stop = Arc::new(Stop::new().map_err(system("event descriptors"))?);
        let mut device =
            Self { card: card.clone(), stop: stop.clone(), threads: Vec::new(), capture: None, doors, _files: files };
        let spawn = |name: &str, work: Box<dyn FnOnce() -> io::Result<()> + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(system("starting a thread"))
        };
        let (run_card, run_stop) = (card.clone(), stop.clone());
        device.threads.push(spawn("toe-card", Box::new(move || run_card.run(&run_stop)))?);
        if let Some((write, watch)) = capture {
            // It ends when the card does, which has the other end of what is watched: nobody waits for it.
            device.capture = Some(spawn("toe-capture", Box::new(move || write.run(watch)))?);
        }
        let serve = move || {
            let result = server::serve(source, &card, Offer { features, queue_pairs }, &stop);
            ended(result);
            Ok(())
        };
        device.threads.push(spawn("toe-frontend", Box::new(serve))?);
        Ok(device)
    }

    /// The card.
    pub fn card(&self) -> &Arc<Card> {
        &self.card
    }

    /// The firmware's epoch.
    pub fn epoch(&self) -> u32 {
        self.card.epoch()
    }

    /// Answers the operator for as long as it is polled. To be called once, inside a Tokio runtime.
    ///
    /// # Errors
    /// A socket fails.
    pub async fn manage(&mut self) -> io::Result<()> {
        management::serve(std::mem::take(&mut self.doors), self.card.clone()).await
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop.stop();
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::error!("the card stopped: {error}"),
                Err(_) => log::error!("a thread of the card panicked"),
            }
        }
        self.card.end_captures();
        if let Some(writer) = self.capture.take() {
            // A pipe that nobody reads must not keep the card.
            let end = std::time::Instant::now() + CAPTURE_PATIENCE;
            while !writer.is_finished() && std::time::Instant::now() < end {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            if writer.is_finished()
                && let Ok(Err(error)) = writer.join()
            {
                log::error!("the capture ended: {error}");
            }
        }
    }
}

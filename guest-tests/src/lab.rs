//! Everything of one test: namespace, card, guest, and a log of its steps with their times.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use crate::guest::tail;
use crate::machine::{Count, Kind, MachineOptions, Netdev};
use crate::passt::Passt;
use crate::{Card, CardOptions, Guest, Initramfs, Namespace, Programs, host};

/// What the guest's network card is.
#[derive(Clone, Debug)]
pub enum Nic {
    /// The card.
    Card(CardOptions),
    /// QEMU's own virtio-net on the same wire: what fails with this, too, is not the card's fault.
    QemuOwn,
    /// QEMU's own virtio-net, with the TCP in QEMU: `-netdev user`.
    QemuUser,
    /// QEMU's own virtio-net, with the TCP in `passt`.
    Passt,
    /// None: does the machine boot at all?
    None,
}

/// What a guest needs for rings that the card reaches: pages of 2 MiB.
const HUGE_PAGES: &str =
    "mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages && sysctl -qw vm.nr_hugepages=16";

/// How a lab is set up.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Its name: that of its directory of logs.
    pub name: String,
    /// What the guest runs on.
    pub kind: Kind,
    /// Its network card.
    pub nic: Nic,
    /// MTU of the guest's interface, in bytes.
    pub guest_mtu: u32,
    /// MTU of the guest's routes, in bytes, if they are to have one of their own: see [`LabOptions::long_frames`].
    pub route_mtu: Option<u32>,
    /// MTU of the TAP, in bytes; the kernel allows 65,521.
    pub wire_mtu: u32,
    /// Whether steps are printed as they happen.
    pub verbose: bool,
    /// When a test that still runs is ended, from its boot on.
    pub limit: Duration,
    /// Whether Debian's sshd, nginx and curl are in the guest.
    pub services: bool,
    /// Count the guest's instructions with this plugin; see [`crate::loads`].
    pub plugin: Option<PathBuf>,
}

impl LabOptions {
    /// A guest on the default card, MTU 1500 throughout.
    pub fn new(name: &str, kind: Kind) -> Self {
        let queue_pairs = if kind == Kind::Qemu { 2 } else { 1 };
        let nic = Nic::Card(CardOptions { queue_pairs, ..CardOptions::default() });
        Self {
            name: name.into(),
            kind,
            nic,
            guest_mtu: 1500,
            route_mtu: None,
            wire_mtu: 1500,
            verbose: false,
            limit: Duration::from_secs(300),
            services: false,
            plugin: None,
        }
    }

    /// The same with frames between guest and card as long as they can be; what goes to the wire is as long as before.
    #[must_use]
    pub fn long_frames(self) -> Self {
        Self { guest_mtu: 65_535, route_mtu: Some(self.wire_mtu), ..self }
    }

    /// The same with a card that takes payload from the memory of programs and puts it there; the guest, in QEMU, has huge pages for it.
    #[must_use]
    pub fn shared_rings(mut self) -> Self {
        if let Nic::Card(card) = &mut self.nic {
            card.shared_rings = true;
        }
        self
    }

    /// The same with that profile on the card.
    #[must_use]
    pub fn profile(mut self, name: &str) -> Self {
        if let Nic::Card(card) = &mut self.nic {
            card.profile = name.into();
        }
        self
    }
}

/// See the module's text.
pub struct Lab {
    // Dropped in this order: the guest before its card, the card before its wire.
    guest: Option<Guest>,
    card: Option<Card>,
    passt: Option<Passt>,
    /// Where the wire ends.
    pub namespace: Namespace,
    options: LabOptions,
    initramfs: PathBuf,
    logs: PathBuf,
    sockets: TempDir,
    steps: Mutex<File>,
    start: Instant,
    finished: bool,
    _turn: File,
}

impl Lab {
    /// Boots a lab, does `work` in it, and checks that all its parts survived.
    ///
    /// # Errors
    /// Whatever fails first.
    pub fn run(options: LabOptions, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let limit = options.limit;
        let mut lab = Self::boot(options)?;
        let namespace = lab.namespace.name().to_owned();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("the test is ended after {} s: whatever it waits for will fail now", limit.as_secs());
                Namespace::end_processes_of(&namespace)
            } else {
                Ok(())
            }
        });
        let result = work(&mut lab).and_then(|()| lab.finish());
        drop(done);
        let watched = watchdog.join().map_err(|_| anyhow!("the watchdog panicked"))?;
        result.and(watched)
    }

    /// Waits for its turn, starts the card and boots the guest.
    ///
    /// # Errors
    /// If something is missing on the host, or does not come up.
    pub fn boot(options: LabOptions) -> Result<Self> {
        host::check()?;
        let programs = Programs::get()?;
        let logs = host::target().join("guest-logs").join(&options.name);
        if logs.exists() {
            std::fs::remove_dir_all(&logs).with_context(|| format!("cannot empty {}", logs.display()))?;
        }
        std::fs::create_dir_all(&logs)?;
        let turn = File::create(host::target().join("guest-logs/.one-at-a-time"))?;
        turn.lock().context("waiting for the other guest tests")?;
        Namespace::sweep()?;

        let start = Instant::now();
        let mut initramfs = Initramfs::new(&options.kind.kernel()?, Some(programs))?;
        if options.services {
            initramfs.add_services()?;
        }
        let initramfs = initramfs.write()?;
        let mut lab = Self {
            guest: None,
            card: None,
            passt: None,
            namespace: Namespace::new()?,
            initramfs,
            // Elsewhere: a socket's path must be shorter than 108 bytes.
            sockets: tempfile::Builder::new().prefix("toe-").tempdir()?,
            steps: Mutex::new(File::create(logs.join("steps.log"))?),
            logs,
            start,
            finished: false,
            options,
            _turn: turn,
        };
        lab.namespace.add_tap(lab.options.wire_mtu)?;
        if matches!(lab.options.nic, Nic::Card(_)) {
            lab.start_card()?;
        }
        lab.start_guest()?;
        Ok(lab)
    }

    /// Starts the card (again).
    ///
    /// # Errors
    /// If it does not come up, or this lab has none.
    pub fn start_card(&mut self) -> Result<()> {
        let Nic::Card(options) = &self.options.nic else { return Err(anyhow!("this lab has no card")) };
        let directory = self.sockets.path();
        let log = directory.join("card.log");
        if !log.exists() {
            // Logs stay; sockets go.
            let kept = self.logs.join("card.log");
            File::create(&kept)?;
            std::os::unix::fs::symlink(kept, log)?;
        }
        self.card = Some(Card::start(&self.namespace, options, directory)?);
        self.step("the card is up");
        Ok(())
    }

    /// Boots the guest (again; one that runs is killed first).
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_guest(&mut self) -> Result<()> {
        self.guest = None;
        let (netdev, queue_pairs) = match &self.options.nic {
            Nic::QemuOwn => (Netdev::Tap, 1),
            Nic::QemuUser => (Netdev::User, 1),
            Nic::Passt => {
                let passt = Passt::start(&self.namespace, self.sockets.path(), &self.logs)?;
                let socket = passt.socket();
                self.passt = Some(passt);
                (Netdev::Passt(socket), 1)
            }
            Nic::None => (Netdev::None, 1),
            Nic::Card(options) => {
                let card = self.card.as_ref().context("the card is not started")?;
                (Netdev::VhostUser(card.socket()), options.queue_pairs)
            }
        };
        let options = MachineOptions {
            kind: self.options.kind,
            initramfs: self.initramfs.clone(),
            netdev,
            mtu: self.options.guest_mtu,
            route_mtu: self.options.route_mtu,
            queue_pairs,
            count: self.options.plugin.clone().map(|plugin| Count { plugin, marks: self.marks() }),
        };
        let boot = || Guest::boot(&self.namespace, &options, &self.logs, self.sockets.path());
        let guest = match boot() {
            Ok(guest) => guest,
            // Translated, a guest's kernel now and then stands still before it has said a word (one boot of 26 when it was
            // seen). What is tested comes after the boot, so it gets a second chance, and the log says so.
            Err(error) => {
                self.step(&format!("the guest did not come up ({}); once more", error.root_cause()));
                boot()?
            }
        };
        self.step(&format!("the guest is up after {:.1} s", guest.boot_time().as_secs_f64()));
        if matches!(&self.options.nic, Nic::Card(card) if card.shared_rings) && self.options.kind == Kind::Qemu {
            guest.check(HUGE_PAGES)?;
        }
        self.guest = Some(guest);
        Ok(())
    }

    /// Ends the guest as a power failure would.
    pub fn kill_guest(&mut self) {
        self.guest = None;
        self.step("the guest is gone");
    }

    /// The guest.
    ///
    /// # Errors
    /// If it was killed and not started again.
    pub fn guest(&self) -> Result<&Guest> {
        self.guest.as_ref().context("there is no guest")
    }

    /// The card.
    ///
    /// # Errors
    /// If this lab has none.
    pub fn card(&mut self) -> Result<&mut Card> {
        self.card.as_mut().context("there is no card")
    }

    /// Notes that something was done, with the time since the lab began.
    pub fn step(&self, text: &str) {
        let line = format!("[{:6.1} s] {text}", self.start.elapsed().as_secs_f64());
        if self.options.verbose {
            println!("{line}");
        } else {
            eprintln!("{line}");
        }
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not fail the test.
        let _ = writeln!(steps, "{line}");
    }

    /// How long the lab has run.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether the guest's instructions are counted.
    pub(crate) fn is_counting(&self) -> bool {
        self.options.plugin.is_some()
    }

    /// Where the plugin notes marks and counts.
    pub(crate) fn marks(&self) -> PathBuf {
        self.logs.join("marks")
    }

    /// Where its logs are.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Checks at the end of a test that nobody died unnoticed.
    ///
    /// # Errors
    /// If card or guest ended.
    pub fn finish(mut self) -> Result<()> {
        if let Some(card) = &mut self.card {
            ensure!(card.is_running(), "toe-nic ended: {}", tail(&self.logs.join("card.log"), 3));
        }
        ensure!(self.guest()?.is_running(), "the guest ended");
        self.step("done");
        self.finished = true;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.finished {
            for name in ["steps.log", "card.log", "machine.log", "kernel.log", "console.log"] {
                let text = tail(&self.logs.join(name), 30);
                if !text.is_empty() {
                    eprintln!("---- {name} of {} (its end)\n{text}", self.options.name);
                }
            }
        }
    }
}

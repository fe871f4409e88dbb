//! The card's process: `toe-nic` in the lab's namespace, with its management socket.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::guest::tail;
use crate::host::{run, wait_for};
use crate::net::{FAR_END, TAP};
use crate::{Namespace, Programs};

/// How to start a card.
#[derive(Clone, Debug)]
pub struct CardOptions {
    /// `--profile`: the name of a built-in one, or a file.
    pub profile: String,
    /// `--queue-pairs`.
    pub queue_pairs: u16,
    /// `--impair`: what is wrong with the wire, in each direction; nothing if there is none.
    pub impair: Option<String>,
    /// `--impair-seed`.
    pub impair_seed: u64,
    /// `--poll-us`.
    pub poll_us: u64,
    /// `--shared-rings`.
    pub shared_rings: bool,
    /// The kind of `--wire`.
    pub wire: CardWire,
}

/// What the card is plugged into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CardWire {
    /// The namespace's TAP.
    Tap,
    /// The far end of a pair of virtual Ethernet devices ([`Namespace::add_pair`]).
    Interface,
}

impl Default for CardOptions {
    fn default() -> Self {
        Self {
            profile: "default".into(),
            queue_pairs: 2,
            impair: None,
            impair_seed: 1,
            poll_us: 0,
            shared_rings: false,
            wire: CardWire::Tap,
        }
    }
}

/// A running card; killed when dropped.
pub struct Card {
    process: Child,
    programs: &'static Programs,
    directory: PathBuf,
}

impl Card {
    /// Starts one and waits until a frontend can come. `directory` gets its sockets and log.
    ///
    /// # Errors
    /// If it ends or does not listen within 10 s; with the last line of its log.
    pub fn start(namespace: &Namespace, options: &CardOptions, directory: &Path) -> Result<Self> {
        let programs = Programs::get()?;
        let log = File::options().create(true).append(true).open(directory.join("card.log"))?;
        let mut command = namespace.command(&programs.toe_nic);
        command.arg("--socket-path").arg(socket(directory));
        command.arg("--management-socket").arg(management(directory));
        let wire = match options.wire {
            CardWire::Tap => format!("tap:{TAP}"),
            CardWire::Interface => format!("interface:{FAR_END}"),
        };
        command.args(["--wire", &wire, "--profile", &options.profile]);
        command.args(["--queue-pairs", &options.queue_pairs.to_string()]);
        command.args(["--poll-us", &options.poll_us.to_string()]);
        if options.shared_rings {
            command.arg("--shared-rings");
        }
        if let Some(impair) = &options.impair {
            command.args(["--impair", impair, "--impair-seed", &options.impair_seed.to_string()]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let mut card = Self { process, programs, directory: directory.to_path_buf() };
        wait_for("the card to listen", Duration::from_secs(10), || {
            if let Some(status) = card.process.try_wait()? {
                bail!("toe-nic ended ({status}): {}", tail(&directory.join("card.log"), 1));
            }
            Ok((socket(directory).exists() && card.stat().is_ok()).then_some(()))
        })?;
        Ok(card)
    }

    /// Where a frontend connects.
    pub fn socket(&self) -> PathBuf {
        socket(&self.directory)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Ends it with SIGKILL: it has no chance to say goodbye.
    ///
    /// # Errors
    /// If it had ended before.
    pub fn kill(&mut self) -> Result<()> {
        ensure!(self.is_running(), "toe-nic ended by itself: {}", tail(&self.directory.join("card.log"), 3));
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Every pool, as `toectl limits --json` prints them.
    ///
    /// # Errors
    /// If the management socket does not answer with JSON.
    pub fn limits(&self) -> Result<Value> {
        self.toectl("limits")
    }

    /// Every counter, as `toectl stat --json` prints them.
    ///
    /// # Errors
    /// If the management socket does not answer with JSON.
    pub fn stat(&self) -> Result<Value> {
        self.toectl("stat")
    }

    /// Arms the rules of that text, as `toectl faults arm` does with a file.
    ///
    /// # Errors
    /// If the card refuses them.
    pub fn arm(&self, rules: &str, seed: u64) -> Result<Value> {
        let file = self.directory.join("rules.toml");
        std::fs::write(&file, rules)?;
        self.ask(&["faults".as_ref(), "arm".as_ref(), file.as_ref(), "--seed".as_ref(), seed.to_string().as_ref()])
    }

    /// Disarms all faults; what they did.
    ///
    /// # Errors
    /// If the management socket does not answer with JSON.
    pub fn disarm(&self) -> Result<Value> {
        self.ask(&["faults".as_ref(), "disarm".as_ref()])
    }

    /// What is armed and what it has done.
    ///
    /// # Errors
    /// If the management socket does not answer with JSON.
    pub fn faults(&self) -> Result<Value> {
        self.ask(&["faults".as_ref(), "status".as_ref()])
    }

    fn toectl(&self, question: &str) -> Result<Value> {
        self.ask(&[question.as_ref()])
    }

    fn ask(&self, question: &[&OsStr]) -> Result<Value> {
        let socket = management(&self.directory);
        let arguments = [&["--socket".as_ref(), socket.as_os_str()], question, &["--json".as_ref()]].concat();
        Ok(serde_json::from_str(&run(&self.programs.toectl, arguments)?)?)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("nic.sock")
}

fn management(directory: &Path) -> PathBuf {
    directory.join("management.sock")
}

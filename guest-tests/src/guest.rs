//! A guest that runs, and what is asked of it.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Namespace;
use crate::console::{Console, Output};
use crate::machine::{Kind, Machine, MachineOptions};

/// A booted guest. Its methods may be called from several threads; its console answers one at a time.
pub struct Guest {
    kind: Kind,
    inner: Mutex<(Machine, Console)>,
    jobs: AtomicU32,
    boot_time: Duration,
}

/// A command that runs in the guest's background.
#[derive(Clone, Copy, Debug)]
pub struct Job(u32);

/// How long a command may take if nothing else is said.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

impl Guest {
    /// Boots one; `logs` gets its logs, `sockets` its sockets.
    ///
    /// # Errors
    /// If something is missing on the host, or the guest does not come up; with the end of its kernel's log.
    pub fn boot(namespace: &Namespace, options: &MachineOptions, logs: &Path, sockets: &Path) -> Result<Self> {
        let start = Instant::now();
        let (machine, mut console) = Machine::start(namespace, options, logs, sockets)?;
        if let Err(error) = console.wait_ready(options.kind.boot_limit()) {
            let ends = ["machine.log", "kernel.log"].map(|name| tail(&logs.join(name), 5));
            return Err(error.context(ends.join("\n")));
        }
        let inner = Mutex::new((machine, console));
        Ok(Self { kind: options.kind, inner, jobs: AtomicU32::new(0), boot_time: start.elapsed() })
    }

    fn lock(&self) -> MutexGuard<'_, (Machine, Console)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it runs on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// From the machine's start to its shell.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Whether its machine still runs.
    pub fn is_running(&self) -> bool {
        self.lock().0.is_running()
    }

    /// Runs a command in its shell, for at most a minute.
    ///
    /// # Errors
    /// If it does not end, or the guest does. Its own failure is in the output.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_for(command, COMMAND_LIMIT)
    }

    /// Runs a command in its shell, for at most `limit`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_for(&self, command: &str, limit: Duration) -> Result<Output> {
        // A pipe's failure is that of any of its commands.
        self.lock().1.run(&format!("set -o pipefail; {command}"), limit)
    }

    /// Runs a command that is to succeed, for at most a minute; its output.
    ///
    /// # Errors
    /// As [`Self::run`], and if its status is not zero.
    pub fn check(&self, command: &str) -> Result<String> {
        self.check_for(command, COMMAND_LIMIT)
    }

    /// Runs a command that is to succeed, for at most `limit`; its output.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_for(&self, command: &str, limit: Duration) -> Result<String> {
        let Output { status, text } = self.run_for(command, limit)?;
        ensure!(status == 0, "in the guest: {command}: status {status}: {}", text.trim());
        Ok(text)
    }

    /// Starts a command in the background.
    ///
    /// # Errors
    /// If the guest does not answer.
    pub fn start(&self, command: &str) -> Result<Job> {
        let job = Job(self.jobs.fetch_add(1, Ordering::Relaxed));
        let path = job.path();
        let status = format!("echo $? >{path}.new; mv {path}.new {path}.status");
        self.check(&format!("( ({command}\n) >{path}.out 2>{path}.err; {status}) &"))?;
        Ok(job)
    }

    /// Waits for a background command: its status and standard output. What it wrote on standard error is appended
    /// if it failed.
    ///
    /// # Errors
    /// When `limit` is over or the guest does not answer.
    pub fn wait(&self, job: Job, limit: Duration) -> Result<Output> {
        let path = job.path();
        let status = crate::host::wait_for("a background command in the guest", limit, || {
            let output = self.run(&format!("cat {path}.status 2>/dev/null"))?;
            Ok(output.text.trim().parse().ok())
        });
        let errors = if matches!(status, Ok(0)) { String::new() } else { format!("{path}.err") };
        let text = self.check(&format!("cat {path}.out {errors}"))?;
        let status = status.map_err(|e| e.context(format!("it wrote: {}", text.trim())))?;
        Ok(Output { status, text })
    }

    /// Takes the cable out of its network card, or puts it in again. QEMU only.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn set_link(&self, is_up: bool) -> Result<()> {
        self.lock().0.set_link(is_up)
    }

    /// Resets the guest as its reset button would, and waits until it is up again. QEMU only.
    ///
    /// # Errors
    /// If QEMU refuses, or the guest does not come up.
    pub fn reset(&self) -> Result<()> {
        let (machine, console) = &mut *self.lock();
        machine.reset()?;
        console.wait_ready(self.kind.boot_limit())
    }
}

impl Job {
    /// Its files in the guest begin so.
    fn path(self) -> String {
        format!("/tmp/job.{}", self.0)
    }
}

/// The last lines of a file; nothing if there is none.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let all: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

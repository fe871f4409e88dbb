//! A network namespace of a lab's own.
//!
//! Its name is unique to process and lab, and it is deleted when dropped. The wire's addresses are put on the TAP
//! by [`Namespace::add_tap`]. Sockets of the host side are made by [`Namespace::enter`]: a socket belongs to the namespace it was made in, so that a peer needs no process of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow};
use rustix::fd::AsFd;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::host::run;
use crate::net::{PEER_MAC, PEER_V4, PEER_V6, TAP};

/// See the module's text.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one, with its loopback up.
    ///
    /// # Errors
    /// If `ip netns` fails.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("toe-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run("ip", ["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Ends what a killed run left behind: namespaces named after a process that is gone, with all that runs in them.
    ///
    /// # Errors
    /// If `ip netns` fails.
    pub fn sweep() -> Result<()> {
        for line in run("ip", ["netns", "list"])?.lines() {
            let name = line.split_whitespace().next().unwrap_or_default();
            let owner = name.strip_prefix("toe-").and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|id| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists()) {
                // Dropped at once, and deleted with that.
                let namespace = Self { name: name.to_owned() };
                Self::end_processes_of(&namespace.name)?;
            }
        }
        Ok(())
    }

    /// Ends what runs in all namespaces of this process, and deletes them. For a program that is interrupted.
    ///
    /// # Errors
    /// If `ip netns` fails.
    pub fn sweep_own() -> Result<()> {
        let prefix = format!("toe-{}-", std::process::id());
        for line in run("ip", ["netns", "list"])?.lines() {
            let name = line.split_whitespace().next().unwrap_or_default();
            if name.starts_with(&prefix) {
                // Dropped at once, and deleted with that.
                let namespace = Self { name: name.to_owned() };
                Self::end_processes_of(&namespace.name)?;
            }
        }
        Ok(())
    }

    /// Ends every process in the namespace of that name, but this one, whose threads may be inside.
    ///
    /// # Errors
    /// If `ip netns` fails.
    pub fn end_processes_of(name: &str) -> Result<()> {
        for id in run("ip", ["netns", "pids", name])?.lines() {
            if let Some(pid) = id.trim().parse().ok().and_then(Pid::from_raw)
                && pid != rustix::process::getpid()
            {
                // It may have ended in between.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        Ok(())
    }

    /// Its name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it.
    ///
    /// # Errors
    /// If it fails.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        run("ip", ["-n", &self.name].iter().chain(arguments))
    }

    /// A command that will run in it. `ip netns exec` replaces itself, so that the child's id is the program's own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `work` on a thread inside; sockets that it makes stay inside.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or `work`'s.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let handle = File::open(format!("/run/netns/{}", self.name)).context("network namespace")?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("entering the network namespace")?;
                work()
            });
            thread.join().map_err(|_| anyhow!("a thread in the network namespace panicked"))?
        })
    }

    /// Starts a thread inside; sockets that it makes, and threads that it starts, stay inside.
    ///
    /// # Errors
    /// If there is no such namespace any more.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<std::thread::JoinHandle<Result<T>>> {
        let handle = File::open(format!("/run/netns/{}", self.name)).context("network namespace")?;
        Ok(std::thread::spawn(move || {
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
                .context("entering the network namespace")?;
            work()
        }))
    }

    /// Makes the wire: a TAP with its addresses. It stays when the card that is attached to it goes.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn add_tap(&self, mtu: u32) -> Result<()> {
        self.ip(&["tuntap", "add", "dev", TAP, "mode", "tap"])?;
        self.ip(&["link", "set", TAP, "address", PEER_MAC])?;
        self.ip(&["link", "set", TAP, "mtu", &mtu.to_string(), "up"])?;
        self.ip(&["address", "add", &format!("{PEER_V4}/24"), "dev", TAP])?;
        self.ip(&["address", "add", &format!("{PEER_V6}/64"), "dev", TAP, "nodad"]).map(drop)
    }

    /// Frames and bytes that the TAP took from the card and gave to it, as the kernel counts them.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn traffic(&self) -> Result<Traffic> {
        let text = self.ip(&["-s", "-j", "link", "show", TAP])?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let number = |way: &str, what: &str| json[0]["stats64"][way][what].as_u64().unwrap_or(0);
        Ok(Traffic {
            from_card_frames: number("rx", "packets"),
            from_card_bytes: number("rx", "bytes"),
            to_card_frames: number("tx", "packets"),
            to_card_bytes: number("tx", "bytes"),
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(e) = run("ip", ["netns", "delete", &self.name]) {
            eprintln!("network namespace {} stays: {e:#}", self.name);
        }
    }
}

/// What passed the TAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Frames from the card.
    pub from_card_frames: u64,
    /// Their bytes.
    pub from_card_bytes: u64,
    /// Frames to the card.
    pub to_card_frames: u64,
    /// Their bytes.
    pub to_card_bytes: u64,
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            from_card_frames: self.from_card_frames - before.from_card_frames,
            from_card_bytes: self.from_card_bytes - before.from_card_bytes,
            to_card_frames: self.to_card_frames - before.to_card_frames,
            to_card_bytes: self.to_card_bytes - before.to_card_bytes,
        }
    }
}

//! `passt`: a guest's TCP ended in a process of the host, which uses the host's sockets instead. What the card is measured beside.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Namespace;
use crate::host::{tool, wait_for};
use crate::net::{GUEST_V4, PEER_V4, TAP};

/// A running one; ended when dropped.
pub struct Passt {
    process: Child,
    socket: PathBuf,
}

impl Passt {
    /// Starts it in the lab's namespace: the guest's gateway stands for the namespace's loopback.
    ///
    /// # Errors
    /// If it is not installed, or does not listen within 10 s.
    pub fn start(namespace: &Namespace, directory: &Path, logs: &Path) -> Result<Self> {
        // Its own process gives up root, and then makes its socket; what a sandboxed process may reach is not ours.
        let place = tempfile::Builder::new().prefix("toe-passt-").tempdir_in(directory)?;
        let socket = place.keep().join("passt.sock");
        let log = File::create(logs.join("passt.log"))?;
        let mut command = namespace.command(tool("passt", "passt")?);
        command.args(["--foreground", "--runas", "0", "--socket"]).arg(&socket);
        command.args(["--address", &GUEST_V4.to_string(), "--netmask", "24", "--gateway", &PEER_V4.to_string()]);
        command.args(["--ipv4-only", "--interface", TAP, "--mtu", "65520"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        wait_for("passt to listen", Duration::from_secs(10), || {
            if let Some(status) = process.try_wait()? {
                let said = std::fs::read_to_string(logs.join("passt.log")).unwrap_or_default();
                bail!("passt ended ({status}): {}", said.trim());
            }
            Ok(socket.exists().then_some(()))
        })?;
        Ok(Self { process, socket })
    }

    /// Where QEMU connects.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

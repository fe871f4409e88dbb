//! What the host must have, and where things of this workspace lie.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// The workspace's directory.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where the downloaded kernel is kept; ignored by git.
pub fn cache() -> PathBuf {
    root().join(".cache")
}

/// Where what is built goes.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The path of a program.
///
/// # Errors
/// One line that names the Debian package to install.
pub fn tool(name: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| anyhow!("no `{name}` on this machine: apt-get install {package}"))
}

/// Checks what every lab needs before anything is started.
///
/// # Errors
/// One line that says what is missing and how to come by it.
pub fn check() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "guest tests make network namespaces and TAPs: run them as root (or with sudo)"
    );
    ensure!(
        Path::new("/dev/net/tun").exists(),
        "no /dev/net/tun: modprobe tun, or give the container --device /dev/net/tun"
    );
    tool("ip", "iproute2")?;
    tool("busybox", "busybox-static")?;
    Ok(())
}

/// Runs a command to its end.
///
/// # Errors
/// If it cannot be started or fails; with the command and the last line of what it wrote on standard error.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("{command:?} failed ({}): {}", output.status, text.lines().last().unwrap_or("it said nothing"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until `condition` gives something, looking every 20 ms.
///
/// # Errors
/// When `limit` is over: "gave up waiting for `what`".
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "gave up waiting for {what} after {} s", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The workspace's programs that a lab runs, built as this crate is: a test's with overflow checks and debug
/// assertions, which a hostile guest must not be able to reach; the demo's, which is a release, without.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The card.
    pub toe_nic: PathBuf,
    /// Asks the card's management socket.
    pub toectl: PathBuf,
    /// The guest's program.
    pub toe: PathBuf,
    /// The guest's helper for tests.
    pub toe_peer: PathBuf,
    /// Socket calls one by one, for `toe run`.
    pub toe_calls: PathBuf,
}

impl Programs {
    /// Builds them, or finds them built. Once per process.
    ///
    /// # Errors
    /// If the build fails; cargo has then said why on standard error.
    pub fn get() -> Result<&'static Self> {
        static PROGRAMS: OnceLock<std::result::Result<Programs, String>> = OnceLock::new();
        let programs = PROGRAMS.get_or_init(|| Self::build().map_err(|e| format!("{e:#}")));
        programs.as_ref().map_err(|e| anyhow!("{e}"))
    }

    fn build() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(root()).args(["build", "--bins", "--message-format=json-render-diagnostics"]);
        command.args(["-p", "toe-device", "-p", "toe-guest", "-p", "toe-guest-tests"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let output = command.stderr(std::process::Stdio::inherit()).output().context("cannot start cargo")?;
        ensure!(output.status.success(), "cargo build of the card and the guest's programs failed");
        let built: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
            .collect();
        let find = |name: &str| {
            let found = built.iter().find(|path| path.file_name() == Some(OsStr::new(name)));
            found.cloned().ok_or_else(|| anyhow!("the build made no `{name}`"))
        };
        Ok(Self {
            toe_nic: find("toe-nic")?,
            toectl: find("toectl")?,
            toe: find("toe")?,
            toe_peer: find("toe-peer")?,
            toe_calls: find("toe-calls")?,
        })
    }
}

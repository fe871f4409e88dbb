//! DPDK's testpmd as a frontend (virtio-user) and as a backend (net_vhost), driven through its prompt.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long one of its answers may take, and its start, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one port has received and sent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Port {
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
}

/// A testpmd that runs; ended when dropped.
pub struct Testpmd {
    process: Child,
    prompt: ChildStdin,
    said: Arc<Mutex<String>>,
    /// How much of what it said was looked at.
    heard: usize,
}

/// How a testpmd is to be.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Its device, as `--vdev` has it.
    pub device: &'a str,
    /// Bytes of a frame.
    pub frame_bytes: usize,
    /// `--forward-mode`.
    pub mode: &'a str,
    /// The processor that forwards; the other one serves the prompt.
    pub processor: usize,
}

impl Testpmd {
    /// Starts one and waits for its prompt.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(shape: &Shape<'_>, log: &Path) -> Result<Self> {
        let Shape { device, frame_bytes, mode, processor } = *shape;
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let prefix = format!("toe{}-{}", std::process::id(), COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        // A long frame lies in one buffer, so that the rings are compared and not lists of buffers.
        let (buffers, buffer_bytes) = if frame_bytes > 2000 { (4096, frame_bytes + 128) } else { (16_384, 2176) };
        // By lines: to a pipe it would keep its figures back until there are enough of them.
        let mut process = Command::new("stdbuf")
            .args([
                "-oL",
                "dpdk-testpmd",
                "-l",
                "0,1",
                "--main-lcore",
                &(1 - processor).to_string(),
                "--no-huge",
                "-m",
                "768",
                "--no-pci",
            ])
            .args(["--file-prefix", &prefix, "--vdev", device, "--", "-i", "--nb-cores=1"])
            .arg(format!("--forward-mode={mode}"))
            .arg(format!("--txpkts={frame_bytes}"))
            .arg(format!("--mbuf-size={buffer_bytes}"))
            .arg(format!("--total-num-mbufs={buffers}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .spawn()
            .context("stdbuf (of coreutils) and dpdk-testpmd (of dpdk-dev)")?;
        let prompt = process.stdin.take().context("a pipe to testpmd")?;
        let mut output = process.stdout.take().context("a pipe from testpmd")?;
        let said = Arc::new(Mutex::new(String::new()));
        std::thread::spawn({
            let said = said.clone();
            move || {
                let mut piece = [0; 4096];
                while let Ok(n @ 1..) = output.read(&mut piece) {
                    said.lock().unwrap_or_else(|e| e.into_inner()).push_str(&String::from_utf8_lossy(&piece[..n]));
                }
            }
        });
        let mut testpmd = Self { process, prompt, said, heard: 0 };
        testpmd.hear("testpmd> ").with_context(|| format!("testpmd with {device}; see {}", log.display()))?;
        Ok(testpmd)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until it has said something new that ends with `text`; what it said.
    fn hear(&mut self, text: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            {
                let said = self.said.lock().unwrap_or_else(|e| e.into_inner());
                if let Some(at) = said[self.heard..].find(text) {
                    let new = said[self.heard..self.heard + at].to_owned();
                    self.heard += at + text.len();
                    return Ok(new);
                }
                if let Some(status) = self.process.try_wait()? {
                    bail!("testpmd ended ({status}): {}", said.lines().last().unwrap_or_default());
                }
            }
            ensure!(Instant::now() < end, "testpmd did not say `{text}` within {} s", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Gives a command; what it said to that.
    ///
    /// # Errors
    /// It has ended, or does not come back to its prompt.
    pub fn command(&mut self, text: &str) -> Result<String> {
        writeln!(self.prompt, "{text}").context("testpmd's prompt")?;
        self.hear("testpmd> ")
    }

    /// What its port has received and sent.
    ///
    /// # Errors
    /// As [`Self::command`], or an answer without figures.
    pub fn port(&mut self) -> Result<Port> {
        writeln!(self.prompt, "show port stats 0").context("testpmd's prompt")?;
        // The prompt comes more than once; this only in the answer.
        let answer = self.hear("TX-bytes:")?;
        let number = |name: &str| {
            let (_, rest) = answer.rsplit_once(name)?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let port = number("RX-packets:").zip(number("TX-packets:"));
        let (received, sent) = port.with_context(|| format!("no figures in testpmd's answer: {answer}"))?;
        Ok(Port { received, sent })
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // In order first: a frontend that is killed leaves its backend to find out.
        let _ = writeln!(self.prompt, "quit");
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

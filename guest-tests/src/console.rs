//! A shell on a guest's console, driven line by line.
//!
//! The console carries nothing but the shell (the kernel's log has another), byte for byte. Each command runs in
//! a shell of its own, so that not even a syntax error ends the one that listens, and is followed by a line with a
//! number that was never used before and its exit status; everything in front of that line is its output.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// What the guest's init writes when its shell listens.
pub const READY: &str = "TOE-GUEST-READY\n";

/// What a command left behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Exit status.
    pub status: i32,
    /// Standard output and standard error, as they came.
    pub text: String,
}

/// See the module's text.
pub struct Console {
    to_guest: Box<dyn Write + Send>,
    from_guest: Arc<Received>,
    commands: u64,
}

#[derive(Default)]
struct Received {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

impl Received {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console {
    /// Of a guest that is written to and read from so; everything read is also written to `log`.
    pub fn new(
        to_guest: impl Write + Send + 'static,
        mut from_guest: impl Read + Send + 'static,
        mut log: File,
    ) -> Self {
        let received = Arc::new(Received::default());
        let reader = Arc::clone(&received);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let n = from_guest.read(&mut buffer).unwrap_or(0);
                let mut state = reader.lock();
                state.bytes.extend_from_slice(&buffer[..n]);
                state.ended |= n == 0;
                reader.more.notify_all();
                if n == 0 || log.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
        });
        Self { to_guest: Box::new(to_guest), from_guest: received, commands: 0 }
    }

    /// Waits until the guest's shell listens. After a reset of the guest, call it again.
    ///
    /// # Errors
    /// When `limit` is over or the guest ends.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        self.read_until(READY, limit).context("booting the guest").map(drop)
    }

    /// Runs a command to its end. It reads nothing, and its two outputs come together.
    ///
    /// # Errors
    /// When `limit` is over or the guest ends. The command's own failure is in the output.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<Output> {
        self.commands += 1;
        let token = format!("@toe-{}@", self.commands);
        let quoted = command.replace('\'', r"'\''");
        // The token is written in two parts, so that an echo of this line would not pass for the end.
        let line =
            format!("sh -c '{quoted}' </dev/null 2>&1; printf '\\n%s%s %d\\n' '@toe-' '{}@' $?\n", self.commands);
        ensure!(line.len() < 4000, "a command of {} bytes is more than a console takes", line.len());
        self.to_guest.write_all(line.as_bytes()).and_then(|()| self.to_guest.flush()).context("the guest is gone")?;
        let text =
            self.read_until(&format!("\n{token} "), limit).with_context(|| format!("in the guest: {command}"))?;
        let status = self.read_until("\n", Duration::from_secs(10))?;
        Ok(Output { status: status.trim().parse().context("the command's status")?, text })
    }

    /// What came before `end`, which is taken out with it.
    fn read_until(&mut self, end: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let mut state = self.from_guest.lock();
        let mut searched = 0;
        loop {
            let found = state.bytes[searched..].windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let rest = state.bytes.split_off(searched + at + end.len());
                let mut before = std::mem::replace(&mut state.bytes, rest);
                before.truncate(searched + at);
                return Ok(String::from_utf8_lossy(&before).into_owned());
            }
            searched = (state.bytes.len() + 1).saturating_sub(end.len()).min(state.bytes.len());
            if state.ended {
                bail!("the guest ended");
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                let tail = &state.bytes[state.bytes.len().saturating_sub(400)..];
                bail!("no answer within {} s; so far: {:?}", limit.as_secs(), String::from_utf8_lossy(tail));
            };
            state = self.from_guest.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn shell() -> Console {
        let mut child = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        std::thread::spawn(move || child.wait());
        Console::new(stdin, stdout, tempfile::tempfile().unwrap())
    }

    #[test]
    fn a_command_gives_its_output_and_status() {
        let mut console = shell();
        let limit = Duration::from_secs(10);
        let run = |console: &mut Console, command: &str| console.run(command, limit).unwrap();
        assert_eq!(run(&mut console, "echo a; echo 'b c' >&2; exit 3"), Output { status: 3, text: "a\nb c\n".into() });
        assert_eq!(run(&mut console, "printf x"), Output { status: 0, text: "x".into() });
        assert_ne!(run(&mut console, "if then").status, 0, "a syntax error does not end the console");
        assert_eq!(run(&mut console, "cat"), Output { status: 0, text: String::new() });
    }

    #[test]
    fn a_command_without_end_is_given_up_and_a_dead_guest_is_noticed() {
        let mut console = shell();
        let error = console.run("sleep 2", Duration::from_millis(50)).unwrap_err();
        assert!(format!("{error:#}").contains("no answer within"), "{error:#}");
        let mut console = shell();
        console.to_guest.write_all(b"exit\n").unwrap();
        assert!(console.wait_ready(Duration::from_secs(10)).is_err());
    }
}

//! Loads in a guest, by the kernel's sockets, by `toe run` and by the library: what `scripts/bench guest` measures.
//!
//! The guest's side is `toe-calls load-of`. It sets a mark where what it counts begins and one where it ends; under QEMU with the
//! plugin of the crate `guest-instructions` each appends a line to a file, with the instructions that the guest's processor has executed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Lab;
use crate::net::PEER_V4;
use crate::run::PORT;

/// Who carries the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The guest's kernel, over the same device.
    Kernel,
    /// The card, below an unchanged program.
    Run,
    /// The card, by the library.
    Library,
}

impl Way {
    /// All, as they take turns.
    pub const ALL: [Self; 3] = [Self::Kernel, Self::Run, Self::Library];

    /// As tables have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Run => "toe run",
            Self::Library => "library",
        }
    }
}

/// What one load came to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Measured {
    /// Bytes, answers or connections.
    pub count: u64,
    /// In so much time.
    pub time: Duration,
    /// How long the middle one took, and 99 of 100 at most; zero where none has a time of its own.
    pub each: [Duration; 2],
    /// If they are counted.
    pub instructions: Option<Instructions>,
}

/// Executed by the guest's processor between the marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instructions {
    /// In the lower half of addresses: programs.
    pub user: u64,
    /// In the upper half: the kernel.
    pub kernel: u64,
}

/// Does one load for so long.
///
/// # Errors
/// If the guest's program fails.
pub fn measure(lab: &Lab, way: Way, load: &str, time: Duration) -> Result<Measured> {
    let program = match way {
        Way::Kernel => "toe-calls load-of",
        // Its report shows that the connections were the card's.
        Way::Run => "toe run --report /tmp/load.json -- toe-calls load-of",
        Way::Library => "toe-calls library load-of",
    };
    let measured = of_command(lab, &format!("{program} {load} {PEER_V4}:{PORT} {}", time.as_secs_f64()), time)?;
    if way == Way::Run && load != "idle" {
        let report: serde_json::Value = serde_json::from_str(&lab.guest()?.check("cat /tmp/load.json")?)?;
        let in_kernel = report["kernel"].as_object().is_none_or(|reasons| !reasons.is_empty());
        ensure!(report["card_connected"].as_u64() > Some(0) && !in_kernel, "the kernel carried some: {report}");
    }
    Ok(measured)
}

/// The longest frames from the guest to the wire, past all of TCP; bytes are counted, those that arrived on the host.
///
/// # Errors
/// If the guest's program fails.
pub fn frames(lab: &Lab, time: Duration) -> Result<Measured> {
    let before = lab.namespace.traffic()?;
    let measured = of_command(lab, &format!("toe-calls frames eth0 {}", time.as_secs_f64()), time)?;
    let arrived = lab.namespace.traffic()?.from_card_bytes - before.from_card_bytes;
    // More arrived, since warming up counts there; fewer would mean that some were dropped on the way.
    ensure!(arrived >= measured.count, "{arrived} bytes arrived of {} that were sent", measured.count);
    Ok(measured)
}

fn of_command(lab: &Lab, command: &str, time: Duration) -> Result<Measured> {
    let seen = marks(lab).len();
    let text = lab.guest()?.check_for(command, time * 8 + Duration::from_secs(90))?;
    let numbers = |line: &str| line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>();
    let last = text.trim().lines().last().unwrap_or_default();
    let Ok(&[count, ns, middle, most]) = numbers(last).as_deref() else {
        anyhow::bail!("{command}: no figures in {text:?}");
    };
    ensure!(count > 0, "{command}: nothing went through");
    let instructions = if lab.is_counting() {
        let marks = marks(lab);
        let [begin, end] = marks.get(seen..).unwrap_or_default() else {
            anyhow::bail!("{command}: {} marks instead of two", marks.len() - seen);
        };
        Some(between(begin, end).with_context(|| format!("{command}: marks {begin:?} and {end:?}"))?)
    } else {
        None
    };
    Ok(Measured { count, time: Duration::from_nanos(ns), each: [middle, most].map(Duration::from_nanos), instructions })
}

fn marks(lab: &Lab) -> Vec<String> {
    let text = std::fs::read_to_string(lab.marks()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The difference of two lines `MARK USER KERNEL`, the first of mark 1, the second of mark 0.
fn between(begin: &str, end: &str) -> Option<Instructions> {
    let parse = |line: &str, mark: &str| -> Option<[u64; 2]> {
        let (user, kernel) = line.strip_prefix(mark)?.trim().split_once(' ')?;
        Some([user.parse().ok()?, kernel.parse().ok()?])
    };
    let ([user, kernel], [user_end, kernel_end]) = (parse(begin, "1")?, parse(end, "0")?);
    Some(Instructions { user: user_end.checked_sub(user)?, kernel: kernel_end.checked_sub(kernel)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_those_between_the_marks() {
        assert_eq!(between("1 10 20", "0 15 120"), Some(Instructions { user: 5, kernel: 100 }));
        for (begin, end) in [("0 1 2", "1 1 2"), ("1 2 2", "0 1 2"), ("1 1", "0 1 2"), ("", "")] {
            assert_eq!(between(begin, end), None, "{begin} {end}");
        }
    }
}

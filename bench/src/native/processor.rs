//! Processor time by who used it: threads of this process by the beginning of their names, and other processes whole.

use std::path::Path;

use anyhow::{Context, Result};

/// Nanoseconds that the threads of a process have run whose names begin so; the kernel's share included.
///
/// # Errors
/// The kernel does not say (`/proc/PID/task/TID/schedstat`).
pub fn of_threads(pid: u32, prefixes: &[&str]) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // A thread may end while it is looked at.
        let Ok(name) = std::fs::read_to_string(task.join("comm")) else { continue };
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            sum += ran(&task)?;
        }
    }
    Ok(sum)
}

fn ran(task: &Path) -> Result<u64> {
    let Ok(text) = std::fs::read_to_string(task.join("schedstat")) else { return Ok(0) };
    let first = text.split_whitespace().next().context("schedstat of a thread")?;
    Ok(first.parse()?)
}

//! Bad input by the hundred million, at the two doors of a hostile guest: the rings of descriptors, and the channel.
//!
//! Both are split over threads, each with a seed of its own that follows from the first, and both count what came of their
//! input, so that a fuzzer that never gets past the first check shows.

pub mod channel;
mod memory;
pub mod rings;

use std::fmt::Display;

use anyhow::{Result, anyhow};

/// Runs `work` in so many threads, each with its part of `count` and a seed, and prints what each has found.
///
/// # Errors
/// A thread that panicked: the seed is in the message.
pub fn sharded<T: Display + Send>(
    threads: u64,
    count: u64,
    seed: u64,
    work: impl Fn(u64, u64) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|n| {
                let part = count / threads + u64::from(n < count % threads);
                let work = &work;
                (seed + n, scope.spawn(move || work(seed + n, part)))
            })
            .collect();
        handles
            .into_iter()
            .map(|(seed, handle)| handle.join().map_err(|_| anyhow!("the thread with seed {seed} panicked"))?)
            .collect()
    })
}

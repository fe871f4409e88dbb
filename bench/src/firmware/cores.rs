//! What several firmwares do side by side, each with its peer in a thread of its own: nothing is shared but what the processor's cores
//! share. It bounds what a card of several could do.

use std::sync::Barrier;
use std::thread;

use super::connections;
use super::segments::{self, Doing, SIZES};

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// Segments of one connection, in this way, of the size at that place of [`SIZES`].
    Segments(Doing, usize),
    /// Full segments, each for another of so many connections.
    Spread(usize),
    /// Connections that come and go, with so many idle.
    Connections(usize),
}

/// All of them, with their names and how much of each is a round.
pub const LOADS: [(&str, Load, usize); 5] = [
    ("segments received, MSS", Load::Segments(Doing::Receive, 1), 400_000),
    ("segments sent, MSS", Load::Segments(Doing::Send, 1), 200_000),
    ("segments of dialogues, 64 B", Load::Segments(Doing::Mixed, 0), 200_000),
    ("segments received, over 10,000 connections", Load::Spread(10_000), 200_000),
    ("connections, 10,000 idle", Load::Connections(10_000), 32_000),
];

/// How much of that `cores` firmwares do in a second, all together.
pub fn rate(load: Load, count: usize, cores: usize) -> f64 {
    let together = Barrier::new(cores);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(|| alone(load, count, &together))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).sum()
    })
}

/// One of them, which begins when all do.
fn alone(load: Load, count: usize, together: &Barrier) -> f64 {
    match load {
        Load::Segments(doing, size) => {
            let mut card = segments::card(SIZES[size], false);
            together.wait();
            1e9 / card.round(doing, count).segment
        }
        Load::Spread(idle) => {
            let mut card = connections::card(idle);
            card.fill(idle);
            card.spread(2 * idle);
            together.wait();
            1e9 / card.spread(count)
        }
        Load::Connections(idle) => {
            let mut card = connections::card(idle);
            card.fill(idle);
            card.rate(10 * connections::AT_ONCE, connections::AT_ONCE);
            together.wait();
            card.rate(count, connections::AT_ONCE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_runs_on_two() {
        for (name, load, _) in LOADS {
            let small = match load {
                Load::Spread(_) => Load::Spread(100),
                Load::Connections(_) => Load::Connections(100),
                other => other,
            };
            assert!(rate(small, 200, 2) > 0.0, "{name}");
        }
    }
}

//! Connections by the million: how fast they come and go, what idle ones cost, and how throughput falls with their number.

use toe_firmware::{Checksum, Limits, Profile, Tcp};

use super::card::Card;
use super::frames::{ACK, FRAME_BYTES_MAX, HEADER_BYTES, PSH};
use super::peer::Pair;
use super::segments::MSS_TEXT;
use super::smol::Smol;
use super::stack::Stack;
use crate::measure::Stopwatch;

/// Octets each way of a connection that comes and goes.
pub const WORDS: usize = 64;

/// The most that come and go at once.
pub const AT_ONCE: usize = 64;

/// A card with room for `connections`, of which each has what is its own and little more.
pub fn profile(connections: usize) -> Profile {
    let connections = (connections + 2 * AT_ONCE) as u32;
    let defaults = Limits::default();
    Profile {
        limits: Limits {
            connections,
            contexts: 1,
            half_open: 4096,
            time_wait: 64,
            page_bytes: 2048,
            // Two of each are every connection's own.
            send_pages: 2 * connections + 4096,
            receive_pages: 2 * connections + 4096,
            connection_send_pages: 32,
            connection_receive_pages: 32,
            transmit_records: 4 * connections + 4096,
            out_of_order_ranges: 4,
            ..defaults
        },
        tcp: Tcp::default(),
        ..Profile::default()
    }
}

/// A stack of which some connections are idle while others come and go.
pub struct Many<S> {
    pair: Pair<S>,
    open: usize,
    /// The next of those that are used in turn.
    turn: usize,
}

/// The card, with room for so many idle ones.
pub fn card(connections: usize) -> Many<Card> {
    let flows = connections + AT_ONCE;
    Many::new(Card::new(&profile(connections), 1500, Checksum::Unverified, flows), flows)
}

/// smoltcp, with room for so many idle ones, and for `at_once` that come and go.
pub fn smol(connections: usize, at_once: usize) -> Many<Smol> {
    let flows = connections + AT_ONCE;
    Many::new(Smol::new(1500, false, at_once, 4096, flows), flows)
}

impl Many<Smol> {
    /// Opens idle connections up to that number.
    pub fn fill_smol(&mut self, idle: usize, at_once: usize) {
        while self.open < idle {
            let more = (idle - self.open).min(AT_ONCE);
            self.pair.stack.add(more.saturating_sub(at_once));
            self.fill(self.open + more);
            self.pair.stack.rest();
            self.pair.stack.add(at_once.min(more));
        }
    }
}

impl<S: Stack> Many<S> {
    fn new(stack: S, flows: usize) -> Self {
        let bytes = 2 * AT_ONCE * (MSS_TEXT + HEADER_BYTES) + FRAME_BYTES_MAX;
        Self { pair: Pair::new(stack, 1460, flows, bytes), open: 0, turn: 0 }
    }

    /// Opens connections up to that number, which stay.
    pub fn fill(&mut self, connections: usize) {
        self.pair.open_all(self.open..connections);
        self.open = connections;
        assert_eq!(self.pair.stack.connections(), connections, "all are open");
    }

    /// At least so many connections come and go, `at_once` at a time: how many of them the stack does in a second.
    pub fn rate(&mut self, count: usize, at_once: usize) -> f64 {
        let mut watch = Stopwatch::default();
        let mut done = 0;
        let first = self.pair.flows.len() - AT_ONCE;
        while done < count {
            self.pair.whole(first..first + at_once, WORDS, &mut watch);
            done += at_once;
        }
        assert_eq!(self.pair.stack.connections(), self.open, "all that came have gone");
        done as f64 * 1e9 / watch.ns()
    }

    /// `segments` full segments arrive, each for another of the connections that are open, and their programs take them:
    /// nanoseconds for each.
    pub fn spread(&mut self, segments: usize) -> f64 {
        let mut watch = Stopwatch::default();
        let mut done = 0;
        while done < segments {
            let count = AT_ONCE.min(self.open);
            // From one to the next by a stride that shares no divisor with their number: no order that a processor foresees.
            let stride = stride(self.open);
            let (turn, open) = (self.turn, self.open);
            let flows = (0..count).map(|i| (turn + i * stride) % open);
            self.turn = (turn + count * stride) % open;
            self.pair.send(flows, ACK | PSH, MSS_TEXT, &mut watch);
            assert_eq!(self.pair.read(&mut watch).0, count * MSS_TEXT, "all was taken");
            self.pair.pass(20);
            done += count;
        }
        watch.ns() / done as f64
    }
}

/// About five eighths of `n`, with no divisor in common.
fn stride(n: usize) -> usize {
    let common = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (n * 5 / 8 + 1..).find(|s| common(*s, n) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stride_visits_all() {
        for n in [1, 2, 10, 1000, 1 << 10] {
            let mut seen = vec![false; n];
            (0..n).for_each(|i| seen[i * stride(n) % n] = true);
            assert!(seen.iter().all(|seen| *seen), "{n}");
        }
    }

    #[test]
    fn connections_come_and_go_on_both_stacks() {
        let mut card = card(100);
        card.fill(100);
        assert!(card.rate(128, 64) > 0.0 && card.rate(3, 1) > 0.0 && card.spread(300) > 0.0);
        let mut smol = smol(100, 2);
        smol.fill_smol(100, 2);
        assert!(smol.rate(4, 1) > 0.0 && smol.rate(4, 2) > 0.0);
    }
}

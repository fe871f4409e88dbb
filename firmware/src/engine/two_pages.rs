//! What a connection moves that has nothing but its own two pages: about two pages in a round trip, in either direction.
//!
//! Two cards over a path of 10 ms, one of which has the reserves of its connections and nothing to share. Its pages are shorter
//! than two segments, so that the rules for silly windows and delayed acknowledgements, which think of buffers of many segments,
//! are met where they do harm: a peer sends nothing into a window that has no room for a segment, and acknowledges a single one
//! late.

use std::collections::VecDeque;

use toe_abi::Mac;

use crate::profile::Profile;
use crate::testing::Bench;
use crate::time::Duration;

/// One way, in microseconds.
const WAY_US: u64 = 5_000;
const PAGE: u32 = 1024;

/// Frames on their way: when they arrive, and they themselves.
type Path = VecDeque<(crate::time::Instant, Vec<u8>)>;

/// The card with two pages, and the other.
struct Pair {
    ends: [Bench; 2],
    /// To each of them.
    paths: [Path; 2],
}

impl Pair {
    /// Connected: the one with two pages opens.
    fn new() -> Self {
        let cramped = Bench::with(|p| {
            *p = Profile { tcp: p.tcp.clone(), ..Profile::default() };
            let l = &mut p.limits;
            (l.connections, l.half_open, l.time_wait, l.page_bytes) = (2, 2, 2, PAGE);
            (l.send_pages, l.receive_pages, l.transmit_records) = (4, 4, 64);
        });
        let mut roomy = Bench::new();
        (roomy.local, roomy.remote) = (cramped.remote, cramped.local);
        roomy.listen();
        let mut pair = Self { ends: [cramped, roomy], paths: Default::default() };
        pair.ends[0].connect(0);
        pair.run(50);
        assert!(pair.ends.iter().all(|b| b.bits & toe_abi::state::ABORTED == 0 && b.connection != 0));
        pair
    }

    /// What each has sent goes on its way.
    fn carry(&mut self) {
        for from in [0, 1] {
            let at = self.ends[from].now + Duration::from_us(WAY_US);
            while let Some(mut frame) = self.ends[from].next_frame() {
                // The benches have the same two stations: to each it is the peer that speaks.
                let (to, source): ([u8; 6], [u8; 6]) =
                    (frame[6..12].try_into().unwrap(), frame[..6].try_into().unwrap());
                frame[..6].copy_from_slice(&Mac(to).0);
                frame[6..12].copy_from_slice(&Mac(source).0);
                self.paths[1 - from].push_back((at, frame));
            }
        }
    }

    /// Milliseconds pass.
    fn run(&mut self, ms: u64) {
        let end = self.ends[0].now + Duration::from_ms(ms);
        loop {
            self.carry();
            let due = self.ends.iter().filter_map(|b| b.firmware.poll_timeout());
            let arrives = self.paths.iter().filter_map(|path| path.front().map(|(at, _)| *at));
            let now = self.ends[0].now;
            let next = due.chain(arrives).min().unwrap_or(end).max(now);
            if next > end {
                self.ends.iter_mut().for_each(|b| b.now = end);
                return;
            }
            for to in [0, 1] {
                let b = &mut self.ends[to];
                b.now = next;
                b.wait_ms(0);
                while let Some((at, _)) = self.paths[to].front()
                    && *at <= next
                {
                    let (_, frame) = self.paths[to].pop_front().unwrap();
                    let _ = b.deliver(&frame);
                }
            }
        }
    }

    /// One end sends as fast as it gets credit, for a second; octets that the other has received meanwhile.
    fn moved(&mut self, from: usize) -> u64 {
        let before = self.ends[1 - from].received.len() as u64;
        for _ in 0..1000 {
            let b = &mut self.ends[from];
            let t = &b.firmware.connections[b.firmware.connections.find(b.connection).unwrap()];
            let room = t.send_offset(t.send.stream.limit()) - b.sent();
            if room > 0 {
                b.send(room.min(16_384));
            }
            self.run(1);
        }
        let received = &self.ends[1 - from];
        received.received(received.received.len());
        received.received.len() as u64 - before
    }
}

/// Two pages in each of a hundred round trips, and at least nine tenths of them.
const ENOUGH: u64 = 100 * 2 * PAGE as u64 * 9 / 10;

#[test]
fn two_pages_to_send_from_move_two_pages_in_a_round_trip() {
    let mut pair = Pair::new();
    let moved = pair.moved(0);
    println!("sent from two pages: {moved} octets in 100 round trips");
    assert!(moved >= ENOUGH, "{moved}");
    assert_eq!(pair.ends[0].count("tcp-timeouts"), 0);
}

#[test]
fn two_pages_to_receive_into_move_two_pages_in_a_round_trip() {
    let mut pair = Pair::new();
    let moved = pair.moved(1);
    println!("received into two pages: {moved} octets in 100 round trips");
    assert!(moved >= ENOUGH, "{moved}");
    assert_eq!(pair.ends[1].count("tcp-timeouts"), 0);
}

/// The peer has seen a larger window before, and sends only whole segments: one of them in a round trip is what it can have.
#[test]
fn a_peer_that_has_seen_a_large_window_sends_a_segment_in_a_round_trip() {
    let mut pair = Pair::new();
    let other = &mut pair.ends[1].firmware;
    other.connections[0].send.window_max = 65_535;
    let moved = pair.moved(1);
    println!("the same, and the peer avoids silly windows: {moved} octets in 100 round trips");
    assert!(moved >= 100 * 1448 * 9 / 10, "{moved}");
}

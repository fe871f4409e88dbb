//! The peer of a stack: it opens connections, sends what is to be received and acknowledges what is sent, over a perfect wire.

use super::frames::{ACK, FIN, Flow, Frames, PSH, SYN, Segment};
use super::stack::{Ask, Stack};
use crate::measure::Stopwatch;

/// A stack, its peer, and the time between them.
pub struct Pair<S> {
    pub stack: S,
    /// The peer's connections by their numbers.
    pub flows: Vec<Flow>,
    mss: u16,
    now_us: u64,
    inward: Frames,
    outward: Frames,
}

/// A round trip, in microseconds.
const RTT_US: u64 = 100;

/// Connections that are opened at once where it does not matter.
const AT_ONCE: usize = 64;

impl<S: Stack> Pair<S> {
    /// A peer with an MSS of `mss` and room for connections below `flows`; `bytes` of frames in one turn.
    pub fn new(stack: S, mss: u16, flows: usize, bytes: usize) -> Self {
        let flows = (0..flows).map(Flow::new).collect();
        Self { stack, flows, mss, now_us: 1_000_000, inward: Frames::new(bytes), outward: Frames::new(bytes) }
    }

    /// Time goes on.
    pub fn pass(&mut self, us: u64) {
        self.now_us += us;
    }

    /// The peer takes what the stack has sent; how many octets of text.
    fn take(&mut self) -> usize {
        let mut bytes = 0;
        for frame in self.outward.iter() {
            let segment = Segment::read(&frame[self.stack.header_bytes()..]);
            bytes += self.flows[segment.flow].take(&segment);
        }
        self.outward.clear();
        bytes
    }

    /// Every one of `flows` sends a segment; what the stack answers is taken. How many octets of text that brought.
    pub fn send(
        &mut self,
        flows: impl Iterator<Item = usize>,
        flags: u8,
        text_bytes: usize,
        watch: &mut Stopwatch,
    ) -> usize {
        self.inward.clear();
        for flow in flows {
            self.flows[flow].send(&mut self.inward, flags, text_bytes, self.mss, self.now_us);
        }
        self.stack.exchange(self.now_us, &self.inward, &mut self.outward, watch);
        self.take()
    }

    /// The stack's program takes what there is: how many bytes, and how many octets of text the stack has sent because of it.
    pub fn read(&mut self, watch: &mut Stopwatch) -> (usize, usize) {
        let bytes = self.stack.read(self.now_us, &mut self.outward, watch);
        (bytes, self.take())
    }

    /// The stack's program asks; how many octets of text the stack has sent for it.
    pub fn ask(&mut self, asks: &[Ask], watch: &mut Stopwatch) -> usize {
        self.stack.ask(self.now_us, asks, &mut self.outward, watch);
        self.take()
    }

    /// Opens connections, all at once.
    pub fn open(&mut self, flows: std::ops::Range<usize>, watch: &mut Stopwatch) {
        for flow in flows.clone() {
            self.flows[flow] = Flow::later(flow, self.now_us);
        }
        self.send(flows.clone(), SYN, 0, watch);
        self.pass(RTT_US);
        self.send(flows, ACK, 0, watch);
        self.read(watch);
    }

    /// Opens many that stay; what that takes is nobody's.
    pub fn open_all(&mut self, flows: std::ops::Range<usize>) {
        let mut watch = Stopwatch::default();
        for first in flows.clone().step_by(AT_ONCE) {
            self.open(first..(first + AT_ONCE).min(flows.end), &mut watch);
        }
    }

    /// Whole connections, all at once: open, `bytes` each way, and closed by the peer first.
    pub fn whole(&mut self, flows: std::ops::Range<usize>, bytes: usize, watch: &mut Stopwatch) {
        let asks = |ask: fn(usize, usize) -> Ask| flows.clone().map(|flow| ask(flow, bytes)).collect::<Vec<_>>();
        let count = flows.len();
        self.open(flows.clone(), watch);
        self.send(flows.clone(), ACK | PSH, bytes, watch);
        assert_eq!(self.read(watch).0, count * bytes, "the request has come");
        assert_eq!(self.ask(&asks(Ask::Write), watch), count * bytes, "the answer has gone");
        self.pass(RTT_US);
        self.send(flows.clone(), ACK | FIN, 0, watch);
        self.read(watch);
        self.ask(&asks(|flow, _| Ask::Close(flow)), watch);
        self.pass(RTT_US);
        self.send(flows, ACK, 0, watch);
        self.read(watch);
    }
}

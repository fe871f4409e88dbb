//! The receiving half of a connection: what is accepted, what is kept, when it is acknowledged.
//!
//! Text within the window is stored where it belongs, in order or not; which parts beyond `nxt` are there is kept in
//! a bounded list of ranges. The advertised edge is always backed by granted pages, so what the peer was allowed to
//! send can be kept; only a range too many is refused, and the peer sends that again.

use crate::seq::Position;
use crate::store::gauge::Gauge;
use crate::store::pages::{Pages, Stream};
use crate::tcp::ecn::Echo;
use crate::tcp::ranges::{Noted, Ranges};
use crate::tcp::urgent::ReceiveMark;
use crate::time::{Duration, Instant};
use crate::wire::options::{SACK_BLOCKS_MAX, SackBlocks};
use crate::work::Steps;

/// Whether and how urgently the peer is to be acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckNeed {
    /// Nothing to say.
    None,
    /// May wait until this moment for something to ride on (RFC 9293, 3.8.6.3).
    Delayed(Instant),
    /// At the next opportunity.
    Now,
}

/// What became of a segment's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// `nxt` went on.
    InOrder,
    /// Kept beyond a gap.
    OutOfOrder,
    /// All of it was there already, or is outside of the window.
    Duplicate,
    /// Beyond a gap, and there is no range left to note it.
    NoRange,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver {
    /// IRS: the peer's SYN.
    pub irs: Position,
    /// RCV.NXT.
    pub nxt: Position,
    /// RCV.NXT + RCV.WND at its furthest: never goes back.
    pub edge: Position,
    /// The shift of our window field.
    pub shift: u8,
    /// The data.
    pub stream: Stream,
    /// Where the peer's FIN stands, once seen; perhaps beyond a gap.
    pub fin: Option<Position>,
    /// RCV.UP.
    pub urgent: ReceiveMark,
    /// Acknowledgement owed.
    pub ack: AckNeed,
    /// Acknowledgements that waited found something to ride on, the last time.
    pub dialogue: bool,
    /// How many segments are still to be acknowledged at once, because the peer has just begun and opens its window by what
    /// is acknowledged.
    pub quick_acks: u32,
    /// Last.ACK.sent of RFC 7323.
    pub last_ack_sent: Position,
    /// TS.Recent, and when it was taken.
    pub timestamp: u32,
    /// When `timestamp` was taken.
    pub timestamp_at: Instant,
    /// The largest text seen, at most what we announced: what a "full-sized segment" is.
    pub segment_bytes: u32,
    /// The most buffer this connection may have, in bytes.
    pub buffer_max: u64,
    /// The buffer that is offered now, in bytes.
    buffer: u64,
    /// When the round began in which the peer filled the buffer once.
    round_began: Instant,
    /// Where it ends.
    round_end: Position,
    ranges: Ranges,
    /// Of these, in the gauge.
    ranges_counted: u64,
    /// Marks to be echoed (RFC 3168).
    pub echo: Echo,
    /// Octets of the segment last received that were there already: to be reported once (RFC 2883).
    pub twice: Option<(Position, Position)>,
}

/// The buffer that every connection begins with, in bytes, before it is rounded up to whole segments: the most that a
/// window field can say without a shift. What is beyond that is room all the same, and the edge lies behind it.
const BUFFER_FIRST: u64 = 65_536;

impl Receiver {
    /// A receiver at rest, with room for `ranges` ranges.
    pub fn new(stream: Stream, ranges: u32) -> Self {
        Self {
            irs: Position::default(),
            nxt: Position::default(),
            edge: Position::default(),
            shift: 0,
            stream,
            fin: None,
            urgent: ReceiveMark::default(),
            ack: AckNeed::None,
            dialogue: true,
            quick_acks: 0,
            last_ack_sent: Position::default(),
            timestamp: 0,
            timestamp_at: Instant::default(),
            segment_bytes: 0,
            buffer_max: 0,
            buffer: 0,
            round_began: Instant::default(),
            round_end: Position::default(),
            ranges: Ranges::new(ranges),
            ranges_counted: 0,
            twice: None,
            echo: Echo::default(),
        }
    }

    /// The shift with which a window of `bytes` can be said (RFC 7323, 2.2).
    pub fn shift_for(bytes: u64) -> u8 {
        (0..14).find(|s| bytes >> s <= 65_535).unwrap_or(14)
    }

    /// Begins a life: the peer's SYN stood at `irs`.
    ///
    /// `segment`: the largest segment of the peer's, in bytes. The first buffer holds a whole number of them.
    pub fn open(&mut self, pages: &mut Pages, irs: Position, shift: u8, segment: u32, buffer_max: u64, now: Instant) {
        let nxt = irs + 1;
        self.stream.open(pages, nxt);
        self.irs = irs;
        self.nxt = nxt;
        self.edge = nxt;
        self.shift = shift;
        self.fin = None;
        self.urgent = ReceiveMark::default();
        self.ack = AckNeed::None;
        self.dialogue = true;
        self.last_ack_sent = nxt;
        self.timestamp = 0;
        self.timestamp_at = now;
        self.segment_bytes = 0;
        let first = BUFFER_FIRST.next_multiple_of(u64::from(segment.max(1)));
        self.buffer_max = buffer_max.min(first.max(65_535 << shift));
        self.buffer = first.min(self.buffer_max);
        self.round_began = now;
        self.round_end = nxt + self.buffer / 2;
        self.ranges.clear();
        self.twice = None;
        self.echo = Echo::default();
    }

    /// RCV.WND, in bytes.
    pub fn window(&self) -> u64 {
        self.edge.since(self.nxt)
    }

    /// Whether everything that will ever come has come.
    pub fn is_finished(&self) -> bool {
        self.fin.is_some_and(|fin| self.nxt > fin)
    }

    /// Behind the last octet of data in order; a FIN does not count.
    pub fn data_end(&self) -> Position {
        match self.fin {
            Some(fin) => self.nxt.min(fin),
            None => self.nxt,
        }
    }

    /// The test of RFC 9293, 3.10.7.4, first check, table 6, with one departure: a segment without text may stand at
    /// the window's right edge, too. A peer that has filled the window sends its bare ACKs from there (its SND.NXT).
    /// While something in that window is lost, they would all go unheard, and what they acknowledge be sent again.
    pub fn is_acceptable(&self, seq: Position, length: u64) -> bool {
        let (nxt, edge) = (self.nxt, self.edge);
        let inside = |p: Position| nxt <= p && p < edge;
        //= docs/specs/rfc9293.txt#section-3.4
        //# A TCP receiver MUST process the RST and URG fields of all incoming segments, even when the receive
        //# window is zero (MUST-66).
        match length {
            // While the window is closed, its edge is RCV.NXT, and nothing is inside.
            0 => inside(seq) || seq == edge,
            n => inside(seq) || inside(seq + (n - 1)),
        }
    }

    /// Whether a segment outside the window can be the peer's: text that was sent before and is sent again lies within the
    /// widest window that it was ever offered, and what it sends too early begins no farther beyond the edge.
    pub fn may_be_late_or_early(&self, seq: Position, length: u64) -> bool {
        seq + length + self.buffer_max >= self.nxt && seq <= self.edge + self.buffer_max
    }

    /// Takes the text of an acceptable segment.
    pub fn text(&mut self, pages: &mut Pages, seq: Position, text: &[u8]) -> Arrival {
        self.note_twice(seq, seq + text.len() as u64, &pages.steps);
        let start = seq.max(self.nxt);
        let mut end = (seq + text.len() as u64).min(self.edge);
        if let Some(fin) = self.fin {
            end = end.min(fin);
        }
        if end <= start {
            return Arrival::Duplicate;
        }
        // Pages that were taken back ([`Self::prune`]): to the peer it is as if this was lost on the way.
        end = end.min(self.stream.limit());
        if end <= start {
            return Arrival::NoRange;
        }
        let text = &text[start.since(seq) as usize..end.since(seq) as usize];
        if start == self.nxt {
            self.stream.write(pages, start, text);
            self.nxt = end;
            self.join();
            Arrival::InOrder
        } else {
            match self.ranges.note(start, end, &pages.steps) {
                Noted::New => {
                    self.stream.write(pages, start, text);
                    Arrival::OutOfOrder
                }
                Noted::Known => Arrival::Duplicate,
                Noted::NoPlace => Arrival::NoRange,
            }
        }
    }

    /// Takes text that stands at `nxt`, ends within the window and the pages granted, and fills no gap.
    pub fn next_text(&mut self, pages: &mut Pages, text: &[u8]) {
        self.stream.write(pages, self.nxt, text);
        self.nxt = self.nxt + text.len() as u64;
    }

    /// Keeps the text of a SYN until the handshake is complete: behind `nxt`, which does not go on yet.
    pub fn hold(&mut self, pages: &mut Pages, text: &[u8]) {
        self.edge = self.next_edge(pages);
        let end = (self.nxt + text.len() as u64).min(self.edge);
        if end > self.nxt && self.ranges.note(self.nxt, end, &pages.steps) != Noted::NoPlace {
            self.stream.write(pages, self.nxt, &text[..end.since(self.nxt) as usize]);
            self.segment_bytes = text.len() as u32;
        }
    }

    /// The handshake is complete: what was held counts now. Whether there was something.
    pub fn take_held(&mut self) -> bool {
        let before = self.nxt;
        self.join();
        self.nxt > before
    }

    /// Takes a FIN at `position`; `nxt` goes over it when it is reached. A second one elsewhere is not believed.
    pub fn finish(&mut self, position: Position) {
        let beyond = self.ranges.end().is_some_and(|end| end > position);
        if self.fin.is_none() && position >= self.nxt && !beyond {
            self.fin = Some(position);
        }
        if self.fin == Some(self.nxt) {
            self.nxt = self.nxt + 1;
            // A FIN takes a number and no room: what the peer was offered stays.
            self.edge = self.edge + 1;
        }
    }

    /// RFC 2883, section 4: notes "the first contiguous sequence" of a segment's octets that were received before.
    pub fn note_twice(&mut self, start: Position, end: Position, steps: &Steps) {
        let before = (start < self.nxt && start < end).then(|| (start, self.nxt.min(end)));
        self.twice = before.or_else(|| self.ranges.overlap(start, end, steps)).or(self.twice);
    }

    /// Moves `nxt` over the ranges that it has reached.
    fn join(&mut self) {
        self.nxt = self.ranges.join(self.nxt);
    }

    /// Brings the gauge of all ranges up to date with this connection's part of it.
    pub fn count_ranges(&mut self, gauge: &mut Gauge) {
        let now = self.ranges.len();
        if self.ranges_counted != now {
            gauge.give_back(self.ranges_counted);
            gauge.claim(now);
            self.ranges_counted = now;
        }
    }

    /// At the end of a life: forgets what lies beyond gaps, and gives the pages back.
    pub fn close(&mut self, pages: &mut Pages, ranges: &mut Gauge) {
        self.ranges.clear();
        self.count_ranges(ranges);
        self.stream.close(pages);
    }

    /// The same for one whose numbers are not to be believed. `table` is its own.
    pub fn scrap(&mut self, table: u32, pages: &mut Pages, ranges: &mut Gauge) {
        self.ranges.clear();
        self.count_ranges(ranges);
        self.stream = pages.scrap(table);
        let zero = Position::default();
        (self.irs, self.nxt, self.edge, self.last_ack_sent, self.round_end) = (zero, zero, zero, zero, zero);
        (self.fin, self.twice) = (None, None);
    }

    /// Forgets all that lies beyond a gap and takes back the pages behind what is in order, but for the reserve. The peer
    /// keeps what is not acknowledged (RFC 2018, section 8), and the window that it was given stays: what comes into it
    /// and finds no page is dropped as if it was lost. How many pages were freed.
    pub fn prune(&mut self, pages: &mut Pages) -> u64 {
        let before = self.stream.shared(pages);
        self.ranges.clear();
        self.twice = None;
        self.stream.withdraw(pages, self.nxt);
        before - self.stream.shared(pages)
    }

    /// How far data beyond a gap reaches, in octets from what is in order: what it keeps pages for.
    pub fn reach_beyond_gap(&self) -> u64 {
        self.ranges.end().map_or(0, |end| end.since(self.nxt))
    }

    /// The window may open now that there are pages again; whether the peer is to be told. (One that was not told that
    /// its window is closed asks by itself.)
    pub fn fed(&mut self, pages: &mut Pages) -> bool {
        let before = self.window();
        let opens = !self.is_finished() && self.next_edge(pages).since(self.nxt) > before;
        if opens {
            self.ack = AckNeed::Now;
        }
        opens
    }

    /// Whether data lies beyond a gap.
    pub fn has_gap(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// The blocks to report: what came twice (RFC 2883, section 4), and (RFC 2018, section 4) the range of the segment
    /// last received first, then by age.
    //= docs/specs/rfc2018.txt#section-4
    //# The first SACK block (i.e., the one immediately following the kind and length fields in the option) MUST
    //# specify the contiguous block of data containing the segment which triggered this ACK, unless that segment
    //# advanced the Acknowledgment Number field in the header.
    pub fn sack_blocks(&self, steps: &Steps) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        if let Some((start, end)) = self.twice {
            blocks.push(start.seq(), end.seq());
        }
        // What a SYN brought lies at `nxt` until the handshake is complete, and behind no gap.
        for range in self.ranges.by_age().filter(|r| r.start > self.nxt).take(SACK_BLOCKS_MAX) {
            steps.one();
            blocks.push(range.start.seq(), range.end.seq());
        }
        blocks
    }

    /// Owes an acknowledgement for a segment in order: at once for the first ones and for every second full-sized segment
    /// (SHLD-19), else within `delay`.
    //= docs/specs/rfc9293.txt#section-3.10.7.4
    //# In general, the processing of received segments MUST be implemented to aggregate ACK segments whenever
    //# possible (MUST-58).
    //= docs/specs/rfc9293.txt#section-3.8.6.3
    //# A TCP endpoint SHOULD implement a delayed ACK (SHLD-18)
    //= docs/specs/rfc9293.txt#section-3.8.6.3
    //# An ACK SHOULD be generated for at least every second full-sized segment or 2*RMSS bytes of new data (where
    //# RMSS is the MSS specified by the TCP endpoint receiving the segments to be acknowledged, or the default
    //# value if not specified) (SHLD-19).
    pub fn owe_ack(&mut self, now: Instant, delay: Duration) {
        let owed = self.nxt.since(self.last_ack_sent);
        self.ack = match self.ack {
            AckNeed::Now => AckNeed::Now,
            _ if self.quick_acks > 0 => {
                self.quick_acks -= 1;
                AckNeed::Now
            }
            _ if owed >= 2 * u64::from(self.segment_bytes.max(1)) => AckNeed::Now,
            AckNeed::Delayed(at) => AckNeed::Delayed(at),
            AckNeed::None => AckNeed::Delayed(now + delay),
        };
    }

    /// The edge that could be advertised now: the free part of the buffer, as far as pages can be had.
    ///
    /// Receiver's side of silly window avoidance (RFC 9293, 3.8.6.2.2): the edge moves by the smaller of a segment
    /// and half the buffer, or not at all. When the pool is exhausted a page is a step, too: the pages that each
    /// connection always has must be of use to it even if its peer's segments are larger.
    fn next_edge(&mut self, pages: &mut Pages) -> Position {
        let start = self.stream.start();
        //= docs/specs/rfc9293.txt#section-3.8.6
        //# A TCP receiver SHOULD NOT shrink the window, i.e., move the right window edge to the left (SHLD-14).
        let wanted = (start + self.buffer).max(self.edge);
        //= docs/specs/rfc9293.txt#section-3.8.6.1
        //# A TCP implementation MAY keep its offered receive window closed indefinitely (MAY-8).
        let granted = self.stream.grant(pages, wanted);
        //= docs/specs/rfc9293.txt#section-3.8.6.2.2
        //# A TCP implementation MUST include a SWS avoidance algorithm in the receiver (MUST-39).
        let step = self.worth(pages, u64::from(self.segment_bytes.max(536)), granted < wanted);
        if granted.since(self.edge) >= step || self.frees(granted) { granted } else { self.edge }
    }

    /// Whether a window up to there lets in a segment where the present one lets in none: a peer that avoids silly windows
    /// sends nothing into less.
    fn frees(&self, edge: Position) -> bool {
        let segment = u64::from(self.segment_bytes.max(536));
        self.window() < segment && edge.since(self.nxt) >= segment
    }

    /// What is worth a word about the window: this much or half the buffer; with the pool exhausted, a page.
    fn worth(&self, pages: &Pages, bytes: u64, short: bool) -> u64 {
        let worth = bytes.min(self.buffer / 2);
        if short { worth.min(pages.page_bytes()) } else { worth }
    }

    /// The window field for a segment that is about to be sent; moves the edge.
    pub fn advertise(&mut self, pages: &mut Pages) -> u16 {
        self.edge = self.next_edge(pages);
        (self.window() >> self.shift).min(65_535) as u16
    }

    /// Data was taken by the guest up to `position`: its pages go back, and if that opens the window by two segments
    /// or half the buffer, and at least doubles it, the peer is told. A peer that has room left to send into learns of
    /// the rest from the acknowledgement of what it sends.
    pub fn taken(&mut self, pages: &mut Pages, position: Position) {
        self.stream.release_before(pages, position);
        if position >= self.nxt && self.ranges.is_empty() {
            self.stream.align(pages);
        }
        let before = self.window();
        let edge = self.next_edge(pages);
        let after = edge.since(self.nxt);
        let short = edge < self.stream.start() + self.buffer;
        let worth = self.worth(pages, 2 * u64::from(self.segment_bytes.max(536)), short);
        // A peer whose next segment did not fit into what was left waits for this, and no segment of its own brings it on.
        let owed = matches!(self.ack, AckNeed::Delayed(_));
        let opens = (after - before >= worth && after >= 2 * before) || (owed && self.frees(edge));
        if !self.is_finished() && (opens || (before == 0 && after > 0)) {
            self.ack = AckNeed::Now;
        }
    }

    /// Grows the buffer if the peer filled half of it within two round trips: the window is, or will be with the next
    /// doubling of a slow start, the limit, and not the path.
    pub fn grow(&mut self, now: Instant, rtt: Option<Duration>) {
        if self.nxt < self.round_end {
            return;
        }
        let took = now.since(self.round_began);
        if rtt.is_none_or(|rtt| took <= rtt + rtt) {
            self.buffer = (self.buffer * 2).min(self.buffer_max);
        }
        self.round_began = now;
        self.round_end = self.nxt + self.buffer / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::Seq;
    use crate::store::pages::AccountPlan;
    use proptest::prelude::*;

    fn start() -> Position {
        Position::initial(Seq(u32::MAX - 100))
    }

    /// Pages for two connections.
    fn pool(count: u32) -> Pages {
        let plan = AccountPlan { count: 1, name: "own", pages: 0, connections: 2, tags: false };
        Pages::new((Gauge::new("p", "deny", count.into()), toe_abi::Reason::ReceiveMemory), count, 512, 2, 64, plan)
    }

    fn receiver(ranges: u32) -> (Pages, Receiver) {
        let mut pages = pool(64);
        let mut r = Receiver::new(Stream::new(0), ranges);
        r.open(&mut pages, start().back(1), 0, 1460, 16_384, Instant::default());
        r.advertise(&mut pages);
        (pages, r)
    }

    #[test]
    fn the_four_cases_of_acceptability() {
        let (_, mut r) = receiver(4);
        let n = r.nxt;
        assert_eq!(r.window(), 16_384);
        assert!(r.is_acceptable(n, 0) && r.is_acceptable(n + 16_383, 0));
        assert!(r.is_acceptable(n + 16_384, 0), "a bare ACK of a peer that has filled the window");
        assert!(!r.is_acceptable(n + 16_385, 0) && !r.is_acceptable(n.back(1), 0));
        assert!(r.is_acceptable(n.back(5), 6) && !r.is_acceptable(n.back(5), 5));
        assert!(r.is_acceptable(n + 16_383, 9) && !r.is_acceptable(n + 16_384, 9));
        r.edge = n;
        assert!(r.is_acceptable(n, 0) && !r.is_acceptable(n + 1, 0) && !r.is_acceptable(n.back(1), 0));
        assert!(!r.is_acceptable(n, 1));
    }

    //= docs/specs/rfc2018.txt#section-4
    //= type=test
    //# The first SACK block (i.e., the one immediately following the kind and length fields in the option) MUST
    //# specify the contiguous block of data containing the segment which triggered this ACK, unless that segment
    //# advanced the Acknowledgment Number field in the header.
    #[test]
    fn sack_blocks_are_the_youngest_first() {
        let (mut pages, mut r) = receiver(8);
        let n = r.nxt;
        for at in [100, 300, 500, 700, 900] {
            assert_eq!(r.text(&mut pages, n + at, &[1; 50]), Arrival::OutOfOrder);
        }
        assert_eq!(r.text(&mut pages, n + 350, &[1; 50]), Arrival::OutOfOrder);
        let blocks: Vec<_> = r
            .sack_blocks(&Steps::default())
            .as_slice()
            .iter()
            .map(|(a, b)| (a.distance(n.seq()), b.distance(n.seq())))
            .collect();
        assert_eq!(blocks, [(300, 400), (900, 950), (700, 750), (500, 550)]);
        assert_eq!(r.text(&mut pages, n + 310, &[1; 20]), Arrival::Duplicate);
    }

    #[test]
    fn a_range_too_many_is_refused() {
        let (mut pages, mut r) = receiver(2);
        let n = r.nxt;
        assert_eq!(r.text(&mut pages, n + 10, &[1]), Arrival::OutOfOrder);
        assert_eq!(r.text(&mut pages, n + 20, &[1]), Arrival::OutOfOrder);
        assert_eq!(r.text(&mut pages, n + 30, &[1]), Arrival::NoRange);
        assert_eq!(r.text(&mut pages, n + 11, &[1]), Arrival::OutOfOrder, "one that touches another needs none");
        assert_eq!(r.text(&mut pages, n, &[1; 10]), Arrival::InOrder);
        assert_eq!(r.nxt, n + 12);
    }

    #[test]
    fn a_fin_beyond_a_gap_waits_and_nothing_comes_after_it() {
        let (mut pages, mut r) = receiver(4);
        let n = r.nxt;
        r.text(&mut pages, n + 5, b"world");
        r.finish(n + 10);
        assert!(!r.is_finished());
        assert_eq!(r.text(&mut pages, n + 10, b"!"), Arrival::Duplicate);
        r.text(&mut pages, n, b"hello");
        r.finish(n + 10);
        assert!(r.is_finished());
        assert_eq!((r.nxt, r.data_end()), (n + 11, n + 10));
    }

    #[test]
    fn every_second_full_segment_is_acknowledged_at_once() {
        let (mut pages, mut r) = receiver(4);
        let n = r.nxt;
        r.segment_bytes = 100;
        r.text(&mut pages, n, &[0; 100]);
        let (now, delay) = (Instant::from_us(5), Duration::from_ms(40));
        r.owe_ack(now, delay);
        assert_eq!(r.ack, AckNeed::Delayed(now + delay));
        r.text(&mut pages, n + 100, &[0; 100]);
        r.owe_ack(now, delay);
        assert_eq!(r.ack, AckNeed::Now);
    }

    //= docs/specs/rfc9293.txt#section-3.8.6
    //= type=test
    //# A TCP receiver SHOULD NOT shrink the window, i.e., move the right window edge to the left (SHLD-14).
    //= docs/specs/rfc9293.txt#section-3.8.6.2.2
    //= type=test
    //# A TCP implementation MUST include a SWS avoidance algorithm in the receiver (MUST-39).
    #[test]
    fn the_window_closes_without_shrinking_and_opens_in_steps() {
        let (mut pages, mut r) = receiver(4);
        let n = r.nxt;
        r.segment_bytes = 1000;
        let mut at = n;
        while r.window() > 0 {
            let length = r.window().min(1000);
            r.text(&mut pages, at, &vec![9; length as usize]);
            at = at + length;
            let edge = r.edge;
            r.advertise(&mut pages);
            assert!(r.edge >= edge);
        }
        assert_eq!(r.nxt, n + 16_384);
        r.taken(&mut pages, n + 999);
        assert_eq!((r.ack, r.advertise(&mut pages)), (AckNeed::None, 0), "less than a segment is not offered");
        r.taken(&mut pages, n + 4000);
        assert_eq!(r.ack, AckNeed::Now);
        assert!(r.advertise(&mut pages) >= 3000);
    }

    #[test]
    fn on_an_exhausted_pool_a_drained_connection_still_has_a_window() {
        // Two connections with two pages of 512 bytes each, and no more.
        let mut pages = pool(4);
        let mut r = Receiver::new(Stream::new(0), 4);
        r.open(&mut pages, start().back(1), 0, 1460, 32_768, Instant::default());
        r.segment_bytes = 9_000;
        r.advertise(&mut pages);
        for _ in 0..20 {
            let window = r.window();
            assert!(window >= 512, "{window}");
            let at = r.nxt;
            r.text(&mut pages, at, &vec![3; window as usize]);
            r.advertise(&mut pages);
            let all = r.nxt;
            r.taken(&mut pages, all);
            assert_eq!(r.ack, AckNeed::Now);
            r.advertise(&mut pages);
        }
    }

    proptest! {
        /// Whatever order and overlap the pieces come in, the stream is the bytes.
        #[test]
        fn pieces_make_the_whole(pieces in proptest::collection::vec((0usize..2000, 1usize..300), 1..60)) {
            let (mut pages, mut r) = receiver(3);
            let n = r.nxt;
            let whole: Vec<u8> = (0..2300).map(|i| (i * 7 % 251) as u8).collect();
            let mut pieces = pieces;
            pieces.extend((0..2300 / 100).map(|i| (i * 100, 100)));
            for (at, length) in pieces {
                r.text(&mut pages, n + at as u64, &whole[at..at + length]);
                r.twice = None;
                let blocks = r.sack_blocks(&Steps::default());
                for (left, right) in blocks.as_slice() {
                    prop_assert!(left.near(r.nxt) > r.nxt && right.near(r.nxt) > left.near(r.nxt));
                }
            }
            prop_assert_eq!(r.nxt.since(n), 2300);
            prop_assert!(!r.has_gap());
            let mut out = vec![0; 2300];
            r.stream.read(&pages, n, &mut out);
            prop_assert_eq!(out, whole);
        }
    }

    /// Opened with a shift and room for a million octets.
    fn scaled(shift: u8) -> Receiver {
        let mut pages = pool(64);
        let mut r = Receiver::new(Stream::new(0), 4);
        r.open(&mut pages, start(), shift, 1460, 1_000_000, Instant::default());
        r
    }

    #[test]
    fn the_buffer_begins_with_whole_segments_and_is_at_most_what_the_window_can_say() {
        let sizes = |shift| (scaled(shift).buffer, scaled(shift).buffer_max);
        assert_eq!((sizes(0), sizes(2), sizes(4)), ((65_700, 65_700), (65_700, 262_140), (65_700, 1_000_000)));
        let r = scaled(2);
        assert_eq!(r.round_end, r.nxt + 32_850);
        assert_eq!(
            (Receiver::shift_for(65_535), Receiver::shift_for(65_536), Receiver::shift_for(1 << 40)),
            (0, 1, 14)
        );
    }

    #[test]
    fn the_buffer_doubles_if_half_of_it_came_within_two_round_trips() {
        let ms = |ms: u64| Instant::from_us(ms * 1000);
        let grown = |octets: u64, now_ms: u64, rtt_ms: Option<u64>| {
            let mut r = scaled(4);
            r.nxt = r.nxt + octets;
            let nxt = r.nxt;
            r.grow(ms(now_ms), rtt_ms.map(Duration::from_ms));
            (r.buffer, r.round_began, r.round_end.since(nxt))
        };
        assert_eq!(grown(32_849, 5, Some(10)), (65_700, ms(0), 1));
        assert_eq!(grown(32_850, 20, Some(10)), (131_400, ms(20), 65_700));
        assert_eq!(grown(32_850, 21, Some(10)), (65_700, ms(21), 32_850), "slower, and a new round");
        assert_eq!(grown(32_850, 9000, None), (131_400, ms(9000), 65_700), "nothing is known of the path");
        let mut r = scaled(2);
        for _ in 0..3 {
            r.nxt = r.round_end;
            r.grow(ms(0), None);
        }
        assert_eq!(r.buffer, 262_140);
    }

    /// That many octets have come, in segments of 1000, and the program has none.
    fn filled(octets: u64, segment: u32) -> (Pages, Receiver) {
        let (mut pages, mut r) = receiver(4);
        let n = r.nxt;
        assert_eq!(r.text(&mut pages, n, &vec![0; octets as usize]), Arrival::InOrder);
        r.segment_bytes = segment;
        assert_eq!(u64::from(r.advertise(&mut pages)), 16_384 - octets);
        (pages, r)
    }

    #[test]
    fn the_peer_is_told_of_two_segments_or_half_the_buffer_that_double_its_window() {
        for (octets, segment, taken, told) in [
            // 4000 are left: the window doubles with 4000 more.
            (12_384, 1000, 3999, false),
            (12_384, 1000, 4000, true),
            // 1000 are left: two segments.
            (15_384, 1000, 1999, false),
            (15_384, 1000, 2000, true),
            // Half of the buffer, with large segments.
            (15_384, 9000, 8191, false),
            (15_384, 9000, 8192, true),
            // A closed window opens with one segment.
            (16_384, 1000, 999, false),
            (16_384, 1000, 1000, true),
        ] {
            let (mut pages, mut r) = filled(octets, segment);
            let until = start() + taken;
            r.taken(&mut pages, until);
            assert_eq!(r.ack == AckNeed::Now, told, "{octets} {segment} {taken}");
        }
        // And not behind a FIN.
        let (mut pages, mut r) = filled(16_384, 1000);
        let end = r.nxt;
        r.finish(end);
        r.taken(&mut pages, end);
        assert_eq!(r.ack, AckNeed::None);
    }

    #[test]
    fn the_edge_moves_by_a_segment_or_half_the_buffer() {
        for (segment, step) in [(1000, 1000), (100, 536), (9000, 8192)] {
            let (mut pages, mut r) = filled(16_384, segment);
            let n = start();
            r.taken(&mut pages, n + (step - 1));
            assert_eq!(r.advertise(&mut pages), 0);
            r.taken(&mut pages, n + step);
            assert_eq!(u64::from(r.advertise(&mut pages)), step);
        }
        let (mut pages, mut r) = receiver(4);
        r.shift = 3;
        assert_eq!(r.advertise(&mut pages), 16_384 / 8);
    }

    #[test]
    fn two_segments_less_an_octet_may_wait_and_a_wait_is_not_prolonged() {
        for (octets, now) in [(199, false), (200, true)] {
            let (mut pages, mut r) = receiver(4);
            let n = r.nxt;
            r.segment_bytes = 100;
            r.text(&mut pages, n, &vec![0; octets]);
            r.owe_ack(Instant::from_us(7), Duration::from_ms(40));
            assert_eq!(r.ack == AckNeed::Now, now);
            r.owe_ack(Instant::from_us(9), Duration::from_ms(40));
            assert_eq!(r.ack, if now { AckNeed::Now } else { AckNeed::Delayed(Instant::from_us(40_007)) });
        }
    }

    #[test]
    fn text_of_a_syn_is_held_and_counts_with_the_handshake() {
        let (mut pages, mut r) = receiver(4);
        let n = r.nxt;
        r.hold(&mut pages, &[]);
        assert!(!r.has_gap() && !r.take_held());
        r.hold(&mut pages, &[1; 100]);
        assert_eq!((r.nxt, r.segment_bytes, r.sack_blocks(&pages.steps).as_slice().len()), (n, 100, 0));
        assert!(r.take_held());
        assert_eq!((r.nxt, r.has_gap(), r.take_held()), (n + 100, false, false));
        // As much as there is room for.
        let (mut pages, mut r) = receiver(4);
        r.hold(&mut pages, &vec![1; 20_000]);
        assert!(r.take_held());
        assert_eq!(r.nxt, n + 16_384);
    }

    #[test]
    fn a_fin_is_believed_once_and_only_behind_all_that_came() {
        let (mut pages, mut r) = receiver(4);
        let n = r.nxt;
        r.text(&mut pages, n, &[1; 5]);
        r.text(&mut pages, n + 10, &[1; 5]);
        for position in [n + 4, n + 5, n + 14] {
            r.finish(position);
            assert_eq!(r.fin, None);
        }
        r.finish(n + 15);
        r.finish(n + 20);
        assert_eq!((r.fin, r.nxt, r.is_finished()), (Some(n + 15), n + 5, false));
        let edge = r.edge;
        r.text(&mut pages, n + 5, &[1; 5]);
        assert!(!r.is_finished(), "all before it, and not the FIN itself");
        r.finish(n + 20);
        assert_eq!((r.nxt, r.is_finished(), r.edge), (n + 16, true, edge + 1));
    }
}

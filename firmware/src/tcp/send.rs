//! The sending half of a connection: what is queued, what is sent, what the peer allows.

use crate::seq::Position;
use crate::store::pages::{Pages, Stream};
use crate::tcp::records::RecordList;
use crate::tcp::urgent::SendMark;

/// The sending half.
#[derive(Debug)]
pub struct Sender {
    /// ISS: our SYN.
    pub iss: Position,
    /// SND.UNA.
    pub una: Position,
    /// SND.NXT.
    pub nxt: Position,
    /// Behind the furthest octet ever sent: a window probe goes beyond `nxt`.
    pub max: Position,
    /// Behind the last octet that the program has given.
    pub end: Position,
    /// The program will give no more: a FIN stands at `end`.
    pub fin: bool,
    /// SND.WND, in bytes.
    //= docs/specs/rfc9293.txt#section-3.1
    //# It is RECOMMENDED that implementations will reserve 32-bit fields for the send and receive window sizes in
    //# the connection record and do all window computations with 32 bits (REC-1).
    pub window: u32,
    /// The largest window the peer ever offered.
    pub window_max: u32,
    /// SND.WL1.
    pub wl1: Position,
    /// SND.WL2.
    pub wl2: Position,
    /// The shift of the peer's window field.
    pub shift: u8,
    /// The largest text of a segment without options beyond those of every segment.
    pub mss: u32,
    /// Nagle's algorithm is off.
    pub nodelay: bool,
    /// Segments of new data sent since something last happened that could let some be sent.
    pub burst: u32,
    /// SND.UP.
    pub urgent: SendMark,
    /// The data from `una` to `end`.
    pub stream: Stream,
    /// The segments in flight.
    pub records: RecordList,
    /// The most buffer this connection may have, in bytes.
    pub buffer_max: u64,
}

/// The buffer that every connection begins with, in bytes.
const BUFFER_FIRST: u64 = 65_536;

impl Sender {
    /// A sender at rest.
    pub fn new(stream: Stream) -> Self {
        let zero = Position::default();
        Self {
            iss: zero,
            una: zero,
            nxt: zero,
            max: zero,
            end: zero,
            fin: false,
            window: 0,
            window_max: 0,
            wl1: zero,
            wl2: zero,
            shift: 0,
            mss: 0,
            nodelay: false,
            burst: 0,
            urgent: SendMark::default(),
            stream,
            records: RecordList::CLOSED,
            buffer_max: 0,
        }
    }

    /// Begins a life: our SYN stands at `iss` and is yet to be sent.
    pub fn open(&mut self, pages: &mut Pages, iss: Position, mss: u32, buffer_max: u64, nodelay: bool) {
        let Self {
            iss: my_iss,
            una,
            nxt,
            max,
            end,
            fin,
            window,
            window_max,
            wl1,
            wl2,
            shift,
            mss: my_mss,
            nodelay: my_nodelay,
            burst,
            urgent,
            stream,
            records: _,
            buffer_max: my_buffer_max,
        } = self;
        (*my_iss, *una, *nxt, *max, *end) = (iss, iss, iss, iss, iss + 1);
        (*fin, *window, *window_max, *shift) = (false, 0, 0, 0);
        *urgent = SendMark::default();
        (*wl1, *wl2, *burst) = (Position::default(), iss, 0);
        (*my_mss, *my_nodelay, *my_buffer_max) = (mss, nodelay, buffer_max);
        stream.open(pages, iss + 1);
        self.extend(pages, 0);
    }

    /// Gives its pages back, and is at rest. `table` is its own.
    pub fn scrap(&mut self, table: u32, pages: &mut Pages) {
        let records = self.records;
        *self = Self { records, ..Self::new(pages.scrap(table)) };
    }

    /// Behind the last octet there is to send, the FIN included.
    pub fn last(&self) -> Position {
        self.end + u64::from(self.fin)
    }

    /// Sent and not acknowledged, in octets.
    pub fn in_flight(&self) -> u64 {
        self.nxt.since(self.una)
    }

    /// The first octet that the peer does not allow yet.
    pub fn edge(&self) -> Position {
        self.una + u64::from(self.window)
    }

    /// What the pool grants, in bytes, if that is not enough for the two segments for which a peer answers at once.
    pub fn cramped(&self) -> Option<u64> {
        let granted = self.stream.limit().since(self.stream.start());
        (granted < 2 * u64::from(self.mss)).then_some(granted)
    }

    /// Takes the window of an acceptable segment (RFC 9293, 3.10.7.4, fifth check): only from a newer segment than the
    /// last that was believed.
    pub fn update_window(&mut self, seq: Position, ack: Position, field: u16) {
        if self.wl1 < seq || (self.wl1 == seq && self.wl2 <= ack) {
            //= docs/specs/rfc9293.txt#section-3.1
            //# The window size MUST be treated as an unsigned number, or else large window sizes will appear like
            //# negative windows and TCP will not work (MUST-1).
            self.window = u32::from(field) << self.shift;
            self.window_max = self.window_max.max(self.window);
            self.wl1 = seq;
            self.wl2 = ack;
        }
    }

    /// Extends the credit of the guest: twice what may be in flight, so that the next round is there when this one is
    /// acknowledged.
    pub fn extend(&mut self, pages: &mut Pages, congestion_window: u32) {
        let buffer = (2 * u64::from(congestion_window)).clamp(BUFFER_FIRST.min(self.buffer_max), self.buffer_max);
        let start = self.stream.start();
        self.stream.grant(pages, start + buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::Seq;
    use crate::store::gauge::Gauge;
    use crate::store::pages::AccountPlan;

    fn pool(count: u32) -> Pages {
        let plan = AccountPlan { count: 1, name: "own", pages: 0, connections: 1, tags: false };
        let gauge = Gauge::new("p", "deny", count.into());
        Pages::new((gauge, toe_abi::Reason::SendMemory), count, 512, 1, count, plan)
    }

    //= docs/specs/rfc9293.txt#section-3.1
    //= type=test
    //# It is RECOMMENDED that implementations will reserve 32-bit fields for the send and receive window sizes in
    //# the connection record and do all window computations with 32 bits (REC-1).
    #[test]
    fn the_largest_window_is_a_gigabyte_and_lies_ahead() {
        let mut pages = pool(8);
        let mut s = Sender::new(Stream::new(0));
        s.open(&mut pages, Position::initial(Seq(u32::MAX)), 1000, 4096, false);
        s.shift = 14;
        s.update_window(Position::initial(Seq(7)), s.una, 65_535);
        assert_eq!((s.window, s.window_max), (65_535 << 14, 65_535 << 14));
        assert_eq!(s.edge().since(s.una), 65_535 << 14);
    }

    #[test]
    fn a_window_from_an_older_segment_is_not_believed() {
        let mut pages = pool(8);
        let mut s = Sender::new(Stream::new(0));
        s.open(&mut pages, Position::initial(Seq(0)), 1000, 4096, false);
        let at = |n: u64| Position::initial(Seq(500)) + n;
        s.shift = 2;
        s.update_window(at(10), s.una, 100);
        assert_eq!(s.window, 400);
        s.update_window(at(9), s.una, 50);
        assert_eq!(s.window, 400);
        s.update_window(at(10), s.una, 30);
        assert_eq!((s.window, s.window_max), (120, 400));
        s.update_window(at(10), s.una.back(1), 60);
        assert_eq!(s.window, 120);
    }

    #[test]
    fn a_fin_takes_a_number_behind_the_last_octet() {
        let mut s = Sender::new(Stream::new(0));
        s.end = s.iss + 11;
        assert_eq!(s.last(), s.iss + 11);
        s.fin = true;
        assert_eq!(s.last(), s.iss + 12);
        (s.una, s.nxt, s.window) = (s.iss + 3, s.iss + 10, 500);
        assert_eq!((s.in_flight(), s.edge()), (7, s.iss + 503));
    }

    #[test]
    fn a_window_of_the_same_segment_needs_an_acknowledgement_that_is_not_older() {
        // RFC 9293, 3.10.7.4: SND.WL1 < SEG.SEQ or (SND.WL1 = SEG.SEQ and SND.WL2 =< SEG.ACK).
        let mut s = Sender::new(Stream::new(0));
        let at = |n: u64| Position::initial(Seq(500)) + n;
        let mut take = |seq: u64, ack: u64, field: u16| {
            s.update_window(at(seq), at(ack), field);
            (s.window, s.wl1.since(at(0)), s.wl2.since(at(0)))
        };
        assert_eq!(take(20, 30, 100), (100, 20, 30));
        assert_eq!(take(20, 29, 200), (100, 20, 30));
        assert_eq!(take(19, 40, 200), (100, 20, 30));
        assert_eq!(take(20, 30, 300), (300, 20, 30));
        assert_eq!(take(20, 31, 400), (400, 20, 31));
        assert_eq!(take(21, 8, 500), (500, 21, 8));
    }

    #[test]
    fn the_guests_credit_is_twice_the_window_within_what_a_connection_may_have() {
        let mut pages = pool(1024);
        let mut s = Sender::new(Stream::new(0));
        s.open(&mut pages, Position::initial(Seq(0)), 1000, 200_000, false);
        let credit = |s: &Sender| s.stream.limit().since(s.iss + 1);
        let rounded = |bytes: u64| bytes..bytes + 512;
        assert!(rounded(65_536).contains(&credit(&s)), "{}", credit(&s));
        s.extend(&mut pages, 40_000);
        assert!(rounded(80_000).contains(&credit(&s)), "{}", credit(&s));
        s.extend(&mut pages, 400_000);
        assert!(rounded(200_000).contains(&credit(&s)), "{}", credit(&s));
    }
}

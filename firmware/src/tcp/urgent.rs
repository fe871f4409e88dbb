//! Urgent data (RFC 9293, 3.8.5; 6093): a mark in each direction's stream, and nothing else.
//!
//! The urgent pointer points to the octet *following* the urgent data (MUST-62), as RFC 6093 wants it and as Linux and
//! all others have always sent it. Urgent octets are ordinary octets of the stream: they are delivered in order, with
//! all others (what sockets call SO_OOBINLINE, and the only way that RFC 6093, section 6, leaves to new programs).
//! What TCP adds is that the program hears of the mark as soon as it is known, however far ahead of the data it is and
//! whether or not the window lets that data in.
//!
//! *Sending*: as long as SND.UP lies ahead of a segment's first octet, the segment says so. A mark more than 65,535
//! octets ahead is said as 65,535: the peer is in urgent mode at once, and each further segment moves the mark on until
//! it stands where it belongs. A program in urgent mode is not held back by Nagle's algorithm, and if a closed
//! window lets nothing out, a bare acknowledgement carries the mark (MUST-66 makes the peer look at it).
//!
//! *Receiving*: RCV.UP only grows. A mark that lies before what the program has already is of no use and is ignored.

use crate::seq::Position;

/// The mark of the stream that we send.
//= docs/specs/rfc9293.txt#section-3.8.5
//# However, TCP implementations MUST still include support for the urgent mechanism (MUST-30).
#[derive(Clone, Copy, Debug, Default)]
pub struct SendMark {
    /// SND.UP.
    up: Position,
    /// The peer was not told yet.
    due: bool,
}

impl SendMark {
    /// Moves SND.UP; `false` if it does not go forward.
    pub fn advance(&mut self, up: Position) -> bool {
        if up <= self.up {
            return false;
        }
        *self = Self { up, due: true };
        true
    }

    /// SND.UP.
    pub fn position(&self) -> Position {
        self.up
    }

    /// Whether a segment that begins here is ahead of the mark.
    pub fn is_ahead_of(&self, position: Position) -> bool {
        self.up > position
    }

    /// Whether a segment should go for the mark's sake, be it without text; `nxt` is where it would begin.
    pub fn is_due(&self, nxt: Position) -> bool {
        self.due && self.up > nxt
    }

    /// The pointer of a segment that begins here and is sent now; `None`: no URG.
    //= docs/specs/rfc9293.txt#section-3.8.5
    //# The urgent pointer MUST point to the sequence number of the octet following the urgent data (MUST-62).
    //= docs/specs/rfc9293.txt#section-3.8.5
    //# A TCP implementation MUST support a sequence of urgent data of any length (MUST-31) [19].
    pub fn say(&mut self, start: Position) -> Option<u16> {
        let ahead = self.up.since(start);
        (ahead > 0).then(|| {
            self.due = false;
            u16::try_from(ahead).unwrap_or(u16::MAX)
        })
    }
}

/// The mark of the stream that we receive.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiveMark(Option<Position>);

impl ReceiveMark {
    /// Takes a segment's mark; whether it is news for a program that has everything before `held`.
    pub fn take(&mut self, up: Position, held: Position) -> bool {
        let news = up > held && self.0.is_none_or(|before| up > before);
        if news {
            self.0 = Some(up);
        }
        news
    }

    /// RCV.UP, if there ever was one.
    pub fn position(&self) -> Option<Position> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use toe_abi::{Reason, Urgent};

    use super::*;
    use crate::seq::Seq;
    use crate::testing::Bench;

    impl Bench {
        fn urgent(&mut self, offset: u64) {
            self.tell(&toe_abi::Message::Urgent(Urgent { connection: self.connection, offset }));
        }
    }

    #[test]
    fn a_mark_never_goes_back() {
        let at = |n: u64| Position::initial(Seq(u32::MAX)) + n;
        let mut mark = SendMark::default();
        assert!(mark.advance(at(70_000)));
        assert!(!mark.advance(at(69_999)) && !mark.advance(at(70_000)));
        assert_eq!((mark.say(at(0)), mark.say(at(69_000)), mark.say(at(70_000))), (Some(65_535), Some(1_000), None));
        let mut mark = ReceiveMark::default();
        assert!(mark.take(at(10), at(0)));
        assert!(!mark.take(at(10), at(0)) && !mark.take(at(9), at(0)) && mark.take(at(11), at(10)));
        assert!(!mark.take(at(12), at(12)), "the program has all of it");
        assert_eq!(mark.position(), Some(at(11)));
    }

    //= docs/specs/rfc9293.txt#section-3.8.5
    //= type=test
    //# However, TCP implementations MUST still include support for the urgent mechanism (MUST-30).
    //= docs/specs/rfc9293.txt#section-3.8.5
    //= type=test
    //# The urgent pointer MUST point to the sequence number of the octet following the urgent data (MUST-62).
    #[test]
    fn the_pointer_points_to_the_octet_behind_the_urgent_data() {
        // MUST-30, MUST-62.
        let mut b = Bench::established();
        b.send(2500);
        b.expect("A 1:1001");
        b.expect("A 1001:2001");
        b.expect("PA 2001:2501");
        b.send(10);
        b.expect("PA 2501:2511");
        b.send(1);
        b.urgent(2512);
        // Octet 2512 of the sequence space is yet to come; what is out is not sent again for that.
        b.expect("PA 2511:2512");
        b.expect("UA 2512:2512 urg 1");
        b.send(1);
        b.expect("UPA 2512:2513 urg 1");
        b.wait_for_segment();
        b.expect("UA 1:1001 urg 2512");
        b.peer("A 1 ack 2513");
        b.send(1);
        b.expect("PA 2513:2514");
    }

    //= docs/specs/rfc9293.txt#section-3.8.5
    //= type=test
    //# A TCP implementation MUST support a sequence of urgent data of any length (MUST-31) [19].
    #[test]
    fn urgent_data_of_any_length_is_announced_at_once_and_marked_exactly_in_the_end() {
        // MUST-31.
        let mut b = Bench::established();
        b.urgent(100_000);
        b.expect("UA 1:1 urg 65535");
        b.send(60_000);
        let mut last = None;
        let mut acked = 1;
        while acked < 100_001 {
            let mut end = acked;
            while let Some(text) = b.next() {
                let (seq, rest) = text.split_once(' ').unwrap().1.split_once(':').unwrap();
                let seq: u32 = seq.parse().unwrap();
                end = rest.split_once(' ').unwrap().0.parse().unwrap();
                let pointer = (100_001 - seq).min(65_535);
                assert!(text.starts_with('U') && text.contains(&format!(" urg {pointer}")), "{text}");
                last = Some(text);
            }
            acked = end;
            b.peer(&format!("A 1 ack {acked}"));
            if acked == 60_001 {
                b.send(40_000);
            }
        }
        assert!(last.unwrap().contains("99001:100001"));
        b.nothing();
        b.send(10);
        b.expect("PA 100001:100011");
    }

    #[test]
    fn a_closed_window_does_not_hold_the_mark_back() {
        let mut b = Bench::established();
        b.peer("A 1 ack 1 win 0");
        b.send(500);
        b.nothing();
        b.urgent(500);
        b.expect("UA 1:1 urg 500");
        b.nothing();
        b.wait_for_segment();
        b.expect("UA 1:2 urg 500");
    }

    #[test]
    fn nagle_does_not_hold_urgent_data_back() {
        let mut b = Bench::established_with(0, "mss 1000");
        b.send(10);
        b.expect("PA 1:11");
        b.send(10);
        b.nothing();
        b.urgent(20);
        b.expect("UPA 11:21 urg 10");
    }

    #[test]
    fn the_guest_learns_what_the_card_knows_and_nonsense_is_refused() {
        let mut b = Bench::established();
        b.send(10);
        b.urgent(10);
        assert_eq!(b.notice.urgent_sent, 10);
        b.notice.urgent_sent = 0;
        // Asked again: the answer may have been lost.
        b.urgent(10);
        assert_eq!(b.notice.urgent_sent, 10);
        b.urgent(u64::MAX);
        b.shutdown();
        b.urgent(11);
        assert_eq!(b.messages.len(), 2, "{:?}", b.messages);
        let reason = format!("reason: {}", Reason::Offset as u32);
        assert!(b.messages.iter().all(|m| m.contains(&reason)), "{:?}", b.messages);
        assert_eq!(b.notice.urgent_sent, 10);
    }

    //= docs/specs/rfc9293.txt#section-3.8.5
    //= type=test
    //# A TCP implementation MUST (MUST-32) inform the application layer asynchronously whenever it receives an
    //# urgent pointer and there was previously no pending urgent data, or whenever the urgent pointer advances in
    //# the data stream.
    //= docs/specs/rfc9293.txt#section-3.8.5
    //= type=test
    //# The TCP implementation MUST (MUST-33) provide a way for the application to learn how much urgent data
    //# remains to be read from the connection, or at least to determine whether more urgent data remains to be read
    //# [19].
    #[test]
    fn the_program_is_told_of_urgent_data_at_once_and_of_every_advance() {
        // MUST-32, MUST-33: the data itself is far from here.
        let mut b = Bench::established();
        b.reading = false;
        b.peer("UPA 1:11 ack 1 urg 2000");
        assert_eq!(b.notice.urgent_received, 2000);
        let serial = b.notice.serial;
        b.peer("UPA 11:21 ack 1 urg 1990");
        b.peer("PA 21:31 ack 1");
        b.peer("UA 31 ack 1 urg 100");
        assert_eq!((b.notice.urgent_received, b.notice.serial), (2000, serial), "the same mark, none, an earlier one");
        b.peer("UPA 31:41 ack 1 urg 3000");
        assert_eq!((b.notice.urgent_received, b.notice.serial), (3030, serial + 1));
    }

    #[test]
    fn urgent_octets_stay_in_their_place() {
        let mut b = Bench::established();
        b.peer("UPA 1:11 ack 1 urg 5");
        b.received(10);
        assert_eq!(b.notice.urgent_received, 5);
        // What the program has is not news any more.
        b.peer("UPA 11:21 ack 1 urg 0");
        b.received(20);
        assert_eq!(b.notice.urgent_received, 5);
    }

    //= docs/specs/rfc9293.txt#section-3.4
    //= type=test
    //# A TCP receiver MUST process the RST and URG fields of all incoming segments, even when the receive window is
    //# zero (MUST-66).
    #[test]
    fn the_mark_is_looked_at_while_the_window_is_closed() {
        // MUST-66.
        let mut b = Bench::with(|p| p.limits.connection_receive_pages = 2);
        b.connect(0);
        b.expect("S 0");
        b.peer("SA 0 ack 1 <mss 1000>");
        b.expect("A 1:1");
        b.reading = false;
        b.peer("A 1:4001 ack 1");
        let mut window_closed = false;
        for at in [4001, 4097] {
            b.wait_ms(50);
            while let Some(s) = b.next() {
                window_closed = s.ends_with("win 0");
            }
            b.peer(&format!("A {at}:4097 ack 1"));
        }
        b.wait_ms(50);
        while let Some(s) = b.next() {
            window_closed |= s.ends_with("win 0");
        }
        assert!(window_closed);
        b.peer("UA 4097 ack 1 urg 1");
        assert_eq!(b.notice.urgent_received, 4097);
    }

    #[test]
    fn a_guest_that_does_not_hear_is_told_again_but_not_for_ever() {
        let mut b = Bench::established();
        b.deaf = true;
        b.peer("UA 1 ack 1 urg 5");
        b.wait_ms(60_000);
        let told = b.notices;
        assert!((2..20).contains(&told), "{told}");
        b.wait_ms(60_000);
        assert_eq!(b.notices, told);
        b.deaf = false;
        b.peer("UA 1 ack 1 urg 6");
        assert_eq!((b.notices, b.notice.urgent_received), (told + 1, 6));
        b.wait_ms(60_000);
        assert_eq!(b.notices, told + 1);
    }
}

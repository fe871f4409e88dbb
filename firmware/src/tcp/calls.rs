//! What the program asks of its connection (RFC 9293, 3.10.2 to 3.10.6), and what the connection tells it.
//!
//! The guest speaks in offsets: byte 0 is the first of each direction's stream. Here they become positions.

use toe_abi::{Reason, state};

use crate::seq::Position;
use crate::tcp::arrives;
use crate::tcp::tcb::{Guest, State, Store, Tcb};
use crate::time::{Duration, Instant};

/// What became of a SEND.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// New bytes were taken, or none were offered.
    Taken,
    /// All of it was there before.
    Repeated,
    /// It lies behind a gap: something before it was lost on the channel.
    Gap,
    /// It goes beyond the credit.
    BeyondCredit,
    /// The connection is over; STATE says so, and may have crossed this on the way.
    Over,
    /// The stream has ended.
    AfterShutdown,
}

/// Tells the guest again after this long without an answer; doubled each time up to 2^5 times.
const REPEAT_AFTER: Duration = Duration::from_ms(50);
const REPEAT_AFTER_MAX: Duration = Duration::from_ms(1600);

impl Tcb {
    fn send_position(&self, offset: u64) -> Position {
        self.send.iss + 1 + offset
    }

    /// The offset of a position in the sent stream.
    pub fn send_offset(&self, position: Position) -> u64 {
        position.since(self.send.iss + 1)
    }

    /// The offset of a position in the received stream.
    pub fn receive_offset(&self, position: Position) -> u64 {
        position.since(self.receive.irs + 1)
    }

    /// SEND. The guest gets a SEND_CREDIT whatever becomes of it.
    pub fn call_send(&mut self, store: &mut Store, offset: u64, data: &[u8], now: Instant) -> Sent {
        let sent = self.take_sent(store, offset, data, now);
        if sent == Sent::Taken && !data.is_empty() && self.credit_can_wait() {
            self.guest.credit_later = true;
        } else {
            self.guest.credit_due = true;
        }
        sent
    }

    /// Whether the guest can go on for a while without hearing that the card holds what it sent: it said so, and has more than half
    /// of its credit left. Without data it asks, and whatever was not taken shows that it does not know something.
    fn credit_can_wait(&self) -> bool {
        let Guest { patient, held_told, limit_told, .. } = self.guest;
        let known = held_told.max(self.send.iss + 1);
        patient && self.send.end.since(known) * 2 < limit_told.since(known)
    }

    fn take_sent(&mut self, store: &mut Store, offset: u64, data: &[u8], now: Instant) -> Sent {
        if data.is_empty() {
            return Sent::Taken;
        }
        if self.state == State::Closed {
            return Sent::Over;
        }
        let start = self.send_position(offset);
        let end = start + data.len() as u64;
        if end > self.send.stream.limit() {
            return Sent::BeyondCredit;
        }
        if start > self.send.end {
            return Sent::Gap;
        }
        if end <= self.send.end {
            return Sent::Repeated;
        }
        if self.send.fin {
            return Sent::AfterShutdown;
        }
        let new = &data[self.send.end.since(start) as usize..];
        if self.send.last() == self.send.nxt && self.send.in_flight() == 0 {
            // A window probe waits from here on, if the window should be closed.
            self.timer_from = now;
            self.progress_at = now;
        }
        self.send.stream.write(&mut store.send, self.send.end, new);
        self.send.end = end;
        self.send.burst = 0;
        Sent::Taken
    }

    /// CLOSE of the sending side. `Err`: the end contradicts what is known.
    pub fn call_shutdown(&mut self, offset: u64, now: Instant) -> Result<(), Reason> {
        let end = self.send_position(offset);
        if self.send.fin {
            return if end == self.send.end { Ok(()) } else { Err(Reason::Offset) };
        }
        if self.state == State::Closed {
            self.guest.bits |= state::SHUTDOWN;
            return Ok(());
        }
        if end != self.send.end {
            // Behind a gap: the guest sends the data, and this, again.
            return if end > self.send.end { Ok(()) } else { Err(Reason::Offset) };
        }
        self.finish_sending(now);
        Ok(())
    }

    /// URGENT: SND.UP moves to `offset`, be the data before it here or yet to come. `Err`: beyond the end of the stream.
    pub fn call_urgent(&mut self, offset: u64) -> Result<(), Reason> {
        let up = self.send_position(offset.min(u64::MAX / 2));
        if offset > u64::MAX / 2 || (self.send.fin && up > self.send.end) {
            return Err(Reason::Offset);
        }
        if self.state != State::Closed && self.send.urgent.advance(up) {
            self.guest.notice.changed();
        }
        self.guest.notice.asked();
        Ok(())
    }

    /// NOTICED.
    pub fn call_noticed(&mut self, serial: u64, now: Instant) {
        self.guest.notice.seen(serial);
        self.await_guest(now);
    }

    fn finish_sending(&mut self, now: Instant) {
        if self.send.last() == self.send.nxt && self.send.in_flight() == 0 {
            self.timer_from = now;
            self.progress_at = now;
        }
        self.send.fin = true;
        self.guest.bits |= state::SHUTDOWN;
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            // The FIN waits for the handshake (RFC 9293, 3.10.4).
            other => other,
        };
    }

    /// RECEIVE_CREDIT. `Err`: an offset that cannot be.
    pub fn call_receive_credit(
        &mut self,
        store: &mut Store,
        held: u64,
        limit: u64,
        seen: u32,
        now: Instant,
    ) -> Result<(), Reason> {
        let seen = seen & self.guest.bits;
        let news = seen & !self.guest.seen != 0;
        self.guest.seen |= seen;
        let mut progress = news;
        if !self.receive.stream.is_open() {
            // The peer's SYN has not come: positions are not known yet, `take_syn` turns this offset into one.
            self.guest.limit = self.guest.limit.max(Position::default() + limit.min(u64::MAX / 2));
        } else {
            // It may answer what was sent before the last repetition.
            if held > self.receive_offset(self.guest.furthest) {
                return Err(Reason::Offset);
            }
            let start = self.receive.irs + 1;
            let held = start + held;
            self.guest.delivered = self.guest.delivered.max(held);
            self.guest.limit = self.guest.limit.max(start + limit.min(u64::MAX / 2));
            if held > self.receive.stream.start() {
                self.receive.taken(&mut store.receive, held);
                progress = true;
            }
        }
        if progress {
            self.guest.repeats = 0;
            self.guest.repeat_at = None;
        }
        self.await_guest(now);
        Ok(())
    }

    /// ABORT.
    pub fn call_abort(&mut self, store: &mut Store, reason: Reason) {
        if self.state != State::Closed {
            self.abort(store, reason);
        }
    }

    /// RELEASE: nobody will ask for this connection again.
    //= docs/specs/rfc9293.txt#section-3.6.1
    //# A host MAY implement a "half-duplex" TCP close sequence, so that an application that has called CLOSE cannot
    //# continue to read data from the connection (MAY-1).
    pub fn call_release(&mut self, store: &mut Store, now: Instant) {
        self.guest.context = None;
        self.guest.repeat_at = None;
        match self.state {
            State::Closed => {}
            State::SynSent => self.abort(store, Reason::AbortedByGuest),
            // RFC 2525, 2.17; RFC 9293, 3.6.1: the peer is told that data was not read.
            //= docs/specs/rfc9293.txt#section-3.6.1
            //# If such a host issues a CLOSE call while received data is still pending in the TCP connection, or if
            //# new data is received after CLOSE is called, its TCP implementation SHOULD send a RST to show that
            //# data was lost (SHLD-3).
            _ if self.unread() > 0 || self.receive.has_gap() => self.abort(store, Reason::AbortedByGuest),
            _ => {
                if !self.send.fin {
                    self.finish_sending(now);
                }
                arrives::linger(self, store, now);
            }
        }
    }

    /// Whether there is something to tell the guest for which it needs no room, unlike for new data.
    pub fn has_words(&self) -> bool {
        self.guest.credit_later || self.has_urgent_words()
    }

    /// The same, and it cannot wait.
    pub fn has_urgent_words(&self) -> bool {
        self.untold() != 0
            || self.guest.notice.is_due()
            || self.guest.credit_due
            || self.limit_is_news()
            || self.repeatable() > 0
    }

    /// Octets that were sent to the guest and are to be sent again.
    pub fn repeatable(&self) -> u64 {
        self.guest.furthest.since(self.guest.delivered).min(self.deliverable())
    }

    /// The bits that the guest was not told.
    pub fn untold(&self) -> u32 {
        self.guest.bits & !self.guest.told & !self.guest.seen
    }

    /// The guest's credit has grown by enough to be worth a message: a quarter of all that it can have. One who has none left
    /// loses nothing by that: the other three quarters are still in the card.
    fn limit_is_news(&self) -> bool {
        let limit = self.send.stream.limit();
        let grown = limit.since(self.guest.limit_told);
        grown > 0 && grown * 4 >= limit.since(self.send.stream.start())
    }

    /// Octets that can be sent to the guest now.
    pub fn deliverable(&self) -> u64 {
        if self.guest.bits & state::ABORTED != 0 || !self.receive.stream.is_open() {
            return 0;
        }
        self.receive.data_end().min(self.guest.limit).since(self.guest.delivered)
    }

    /// Something was told: it is told again if the guest does not say that it has it.
    pub fn await_guest(&mut self, now: Instant) {
        let unanswered = self.guest.bits & self.guest.told & !self.guest.seen != 0
            || self.guest.delivered > self.receive.stream.start() && self.guest.bits & state::ABORTED == 0;
        let unanswered = unanswered || self.guest.notice.is_unanswered();
        if !unanswered || self.guest.context.is_none() {
            self.guest.repeat_at = None;
        } else if self.guest.repeat_at.is_none() {
            self.guest.repeat_at = Some(now + REPEAT_AFTER.backed_off(self.guest.repeats, REPEAT_AFTER_MAX));
        }
    }

    /// Takes everything as untold that the guest has not confirmed.
    pub fn tell_again(&mut self) {
        self.guest.repeats = (self.guest.repeats + 1).min(31);
        self.guest.repeat_at = None;
        self.guest.told = 0;
        self.guest.notice.tell_again();
        self.guest.delivered = self.receive.stream.start();
    }
}

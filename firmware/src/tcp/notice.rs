//! NOTICE: what the program should know of its connection beside the bits of its state.
//!
//! All of it is told as it is now: the urgent marks, the ICMP errors that were believed, how often the path seemed dead,
//! the path's MTU. So any number of changes costs one message, and a lost one costs nothing but time. A serial number
//! says which state the guest has seen. Nobody needs a notice, so that a guest that does not answer is told again
//! [`REPEATS_MAX`] times and then left in peace until something changes.

use toe_abi::{Notice as Message, Reason};

use crate::seq::Position;
use crate::tcp::tcb::Tcb;

/// A notice is repeated so often without an answer.
const REPEATS_MAX: u32 = 8;

/// What was told and seen, and those contents that have no other place.
#[derive(Clone, Copy, Debug)]
pub struct Notice {
    serial: u64,
    told: u64,
    seen: u64,
    repeats: u32,
    /// ICMP errors that were believed.
    pub network_errors: u32,
    /// The last of them.
    pub network_error: Reason,
    /// Timeouts at or beyond R1.
    pub path_advice: u32,
}

impl Notice {
    /// Of a new connection.
    pub const NONE: Self = Self {
        serial: 0,
        told: 0,
        seen: 0,
        repeats: 0,
        network_errors: 0,
        network_error: Reason::None,
        path_advice: 0,
    };

    /// Something changed.
    pub fn changed(&mut self) {
        self.serial += 1;
        self.repeats = 0;
    }

    /// An ICMP error was believed.
    pub fn network_error(&mut self, reason: Reason) {
        self.network_errors = self.network_errors.saturating_add(1);
        self.network_error = reason;
        self.changed();
    }

    /// A timeout at or beyond R1.
    pub fn advise(&mut self) {
        self.path_advice = self.path_advice.saturating_add(1);
        self.changed();
    }

    /// The guest has asked: it is told, be it again.
    pub fn asked(&mut self) {
        self.told = self.seen.min(self.serial.saturating_sub(1));
    }

    /// Whether there is something to tell.
    pub fn is_due(&self) -> bool {
        self.serial > self.told
    }

    /// It was told.
    pub fn told(&mut self) {
        self.told = self.serial;
    }

    /// NOTICED.
    pub fn seen(&mut self, serial: u64) {
        self.seen = self.seen.max(serial.min(self.serial));
    }

    /// Whether an answer is waited for.
    pub fn is_unanswered(&self) -> bool {
        self.told > self.seen && self.repeats < REPEATS_MAX
    }

    /// No answer came in time.
    pub fn tell_again(&mut self) {
        if self.is_unanswered() {
            self.repeats += 1;
            self.told = self.seen;
        }
    }
}

impl Tcb {
    /// The message, as things are now.
    pub fn notice(&self, connection: u64) -> Message {
        let notice = &self.guest.notice;
        let sent = self.send.urgent.position();
        Message {
            connection,
            serial: notice.serial,
            //= docs/specs/rfc9293.txt#section-3.8.5
            //# The TCP implementation MUST (MUST-33) provide a way for the application to learn how much urgent
            //# data remains to be read from the connection, or at least to determine whether more urgent data
            //# remains to be read [19].
            urgent_received: self.receive.urgent.position().map_or(0, |up| self.receive_offset(up)),
            urgent_sent: if sent == Position::default() { 0 } else { self.send_offset(sent) },
            network_errors: notice.network_errors,
            network_error: notice.network_error as u32,
            path_advice: notice.path_advice,
            path_mtu: self.path.current(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_repeated_eight_times_and_then_waits_for_a_change() {
        let mut n = Notice::NONE;
        assert!(!n.is_due() && !n.is_unanswered());
        n.changed();
        for _ in 0..REPEATS_MAX {
            assert!(n.is_due());
            n.told();
            assert!(!n.is_due() && n.is_unanswered());
            n.tell_again();
        }
        assert!(n.is_due());
        n.told();
        n.tell_again();
        assert!(!n.is_due() && !n.is_unanswered());
        n.changed();
        n.told();
        assert!(n.is_unanswered());
    }

    #[test]
    fn an_answer_counts_for_what_it_names_and_no_more_than_there_is() {
        let mut n = Notice::NONE;
        n.network_error(Reason::HostUnreachable);
        n.advise();
        assert_eq!((n.serial, n.network_errors, n.path_advice), (2, 1, 1));
        n.told();
        n.seen(1);
        assert!(n.is_unanswered());
        n.seen(9);
        assert_eq!((n.seen, n.is_unanswered()), (2, false));
        n.seen(1);
        assert_eq!(n.seen, 2);
        // Asked for, the last one is told again, and only that.
        n.asked();
        assert_eq!((n.told, n.is_due()), (1, true));
        n.told();
        n.tell_again();
        assert!(!n.is_due());
    }
}

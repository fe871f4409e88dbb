//! Loss that was none: how it is found out that a retransmission was not needed, and how its price is given back.
//!
//! When a reduction of the window begins, what was before it is kept ([`Undo`]). Three signs say that it was for
//! nothing:
//!
//! * *Eifel* (RFC 3522): an acknowledgement that makes progress and echoes a timestamp from before the first
//!   retransmission. The original has arrived.
//! * *DSACK* (RFC 2883, used as RFC 3708 has it): the peer has reported as many octets twice as were sent again.
//! * *F-RTO* (RFC 5682): after a timeout only the first segment goes again, then new data; if what is acknowledged next
//!   was sent but once, the timeout was too early.
//!
//! The response (RFC 4015): window and threshold as they were, and what was deemed lost is in flight again. An undo is
//! possible until the next reduction, and once.

use crate::seq::{Position, Seq};
use crate::tcp::congestion::{AnyController, Window};

/// What was before a reduction of the window.
#[derive(Clone, Copy, Debug)]
pub struct Undo {
    /// The window.
    pub window: Window,
    /// The controller.
    pub controller: AnyController,
    /// SND.UNA: retransmissions before it were for an earlier reduction.
    since: Position,
    /// Octets sent again and not reported as duplicates; `None` before the first.
    unneeded: Option<u64>,
    /// TSval of the first retransmission.
    stamp: Option<u32>,
}

impl Undo {
    /// At the beginning of a reduction.
    pub fn new(window: Window, controller: AnyController, una: Position) -> Self {
        Self { window, controller, since: una, unneeded: None, stamp: None }
    }

    /// Octets are sent again, with that TSval.
    pub fn retransmitted(&mut self, bytes: u64, timestamp: u32) {
        self.unneeded = Some(self.unneeded.unwrap_or(0) + bytes);
        self.stamp.get_or_insert(timestamp);
    }

    /// The peer reports octets that came twice; whether all that was sent again is reported now.
    pub fn reported(&mut self, left: Position, right: Position) -> bool {
        let Some(unneeded) = &mut self.unneeded else { return false };
        if left < self.since {
            return false;
        }
        *unneeded = unneeded.saturating_sub(right.since(left));
        *unneeded == 0
    }

    /// RFC 3522, step 5: "If the value of the Timestamp Echo Reply field of the acceptable ACK's Timestamps option is
    /// smaller than the value of the variable RetransmitTS", the original is acknowledged.
    pub fn is_before_retransmission(&self, echo: u32) -> bool {
        self.stamp.is_some_and(|stamp| (echo.wrapping_sub(stamp) as i32) < 0)
    }
}

/// Where F-RTO stands (RFC 5682, 3.1, steps 1 to 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frto {
    /// Not in use.
    Off,
    /// The first segment was sent again after a timeout.
    Retransmitted,
    /// That was acknowledged, and new data goes out instead of more of the old.
    NewData,
}

/// What an acknowledgement says to F-RTO.
#[derive(Clone, Copy, Debug)]
pub struct FrtoAck {
    /// SND.UNA went on.
    pub progress: bool,
    /// Everything that was in flight at the timeout is acknowledged.
    pub is_complete: bool,
    /// Something in flight at the timeout and sent but once is newly acknowledged, selectively or not.
    pub original: bool,
    /// It is a duplicate, or selectively acknowledges.
    pub duplicate: bool,
    /// There is a segment of new data that the peer would take.
    pub can_send_new: bool,
}

impl Frto {
    /// Steps 2 and 3; whether the timeout was spurious.
    pub fn acknowledged(&mut self, ack: &FrtoAck) -> bool {
        match self {
            Self::Off => false,
            Self::Retransmitted => {
                if ack.progress {
                    // 2b: "transmit up to two new (previously unsent) segments".
                    *self = if !ack.is_complete && ack.can_send_new { Self::NewData } else { Self::Off };
                } else if ack.duplicate {
                    // 2a: a duplicate acknowledgement.
                    *self = Self::Off;
                }
                false
            }
            Self::NewData => {
                // 3b: "the acknowledgment advances the window or acknowledges data that was not retransmitted"; 3a: else
                // the loss was real.
                let spurious = ack.original;
                if spurious || ack.progress || ack.duplicate {
                    *self = Self::Off;
                }
                spurious
            }
        }
    }
}

/// The block of a SACK option that reports duplicates, if there is one (RFC 2883, section 4): the first, if it lies below
/// the acknowledgement or within the second.
pub fn dsack(blocks: &[(Seq, Seq)], ack: Position) -> Option<(Position, Position)> {
    let at = |(left, right): (Seq, Seq)| (left.near(ack), right.near(ack));
    let (left, right) = at(*blocks.first()?);
    let below = right <= ack;
    let within = blocks.get(1).is_some_and(|second| {
        let (start, end) = at(*second);
        start <= left && right <= end
    });
    (left < right && (below || within)).then_some((left, right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::CongestionControl;

    fn at(n: u64) -> Position {
        Position::initial(Seq(u32::MAX - 50)) + n
    }

    fn undo() -> Undo {
        let window = Window { congestion: 1, threshold: 1 };
        Undo::new(window, AnyController::new(CongestionControl::NewReno), at(100))
    }

    #[test]
    fn a_recovery_was_needless_when_all_that_was_sent_again_has_come_twice() {
        // RFC 3708, section 3.
        let mut u = undo();
        assert!(!u.reported(at(100), at(200)), "nothing was sent again");
        u.retransmitted(1000, 7);
        u.retransmitted(500, 8);
        assert!(!u.reported(at(99), at(1599)), "of an earlier recovery");
        assert!(!u.reported(at(100), at(1100)));
        assert!(!u.reported(at(1100), at(1599)));
        assert!(u.reported(at(1599), at(1600)));
        u.retransmitted(10, 9);
        assert!(u.reported(at(100), at(5000)), "more than enough");
    }

    #[test]
    fn an_echo_from_before_the_first_retransmission_is_of_the_original() {
        // RFC 3522, section 3.2, step 5.
        let mut u = undo();
        assert!(!u.is_before_retransmission(0));
        u.retransmitted(1, 5);
        u.retransmitted(1, 900);
        assert!(u.is_before_retransmission(4) && !u.is_before_retransmission(5) && !u.is_before_retransmission(6));
        assert!(u.is_before_retransmission(u32::MAX), "by the shorter way round");
    }

    #[test]
    fn f_rto_goes_by_the_two_acknowledgements_after_a_timeout() {
        // RFC 5682, 3.1.
        let nothing =
            FrtoAck { progress: false, is_complete: false, original: false, duplicate: false, can_send_new: true };
        let progress = FrtoAck { progress: true, ..nothing };
        let after = |from: Frto, ack: FrtoAck| {
            let mut frto = from;
            (frto.acknowledged(&ack), frto)
        };
        // Step 2.
        use Frto::{NewData, Off, Retransmitted};
        assert_eq!(after(Retransmitted, progress), (false, NewData));
        assert_eq!(after(Retransmitted, FrtoAck { is_complete: true, ..progress }), (false, Off));
        assert_eq!(after(Retransmitted, FrtoAck { can_send_new: false, ..progress }), (false, Off));
        assert_eq!(after(Retransmitted, FrtoAck { duplicate: true, ..nothing }), (false, Off));
        assert_eq!(after(Retransmitted, FrtoAck { original: true, ..nothing }), (false, Retransmitted));
        // Step 3.
        assert_eq!(after(NewData, FrtoAck { original: true, ..nothing }), (true, Off));
        assert_eq!(after(NewData, FrtoAck { original: true, ..progress }), (true, Off));
        assert_eq!(after(NewData, progress), (false, Off));
        assert_eq!(after(NewData, FrtoAck { duplicate: true, ..nothing }), (false, Off));
        assert_eq!(after(NewData, nothing), (false, NewData));
        assert_eq!(after(Off, FrtoAck { original: true, ..progress }), (false, Off));
    }

    #[test]
    fn the_first_block_reports_a_duplicate_below_the_acknowledgement_or_within_the_second() {
        // RFC 2883, section 4.
        let found = |blocks: &[(u64, u64)]| {
            let blocks: Vec<_> = blocks.iter().map(|(l, r)| (at(*l).seq(), at(*r).seq())).collect();
            dsack(&blocks, at(100)).map(|(l, r)| (l.since(at(0)), r.since(at(0))))
        };
        assert_eq!(found(&[]), None);
        assert_eq!((found(&[(50, 100)]), found(&[(50, 101)])), (Some((50, 100)), None));
        assert_eq!((found(&[(50, 50)]), found(&[(60, 50)])), (None, None));
        assert_eq!(found(&[(200, 300), (200, 300)]), Some((200, 300)));
        assert_eq!(found(&[(210, 290), (200, 300)]), Some((210, 290)));
        assert_eq!((found(&[(199, 290), (200, 300)]), found(&[(210, 301), (200, 300)])), (None, None));
        assert_eq!(found(&[(250, 250), (200, 300)]), None);
    }
}

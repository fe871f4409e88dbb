//! The user timeout option (RFC 5482): both ends tell how long they would wait for an acknowledgement.
//!
//! Off until the program switches it on for its connection (the RFC's ENABLED); until then what the peer says is
//! ignored. From then on the card says the program's value once, on an acknowledgement of its own, so that no
//! segment of data has to make room for it, and uses
//!
//! `USER_TIMEOUT = min(U_LIMIT, max(ADV_UTO, REMOTE_UTO, L_LIMIT))`
//!
//! unless the program has set a user timeout itself, which nobody's option overrides (CHANGEABLE is false then).

use crate::time::Duration;

/// L_LIMIT (RFC 5482, 3.1: at least 100 seconds).
pub const LOWER_LIMIT: Duration = Duration::from_s(100);

/// U_LIMIT.
pub const UPPER_LIMIT: Duration = Duration::from_s(86_400);

/// Set: the number counts minutes, else seconds.
const MINUTES: u16 = 1 << 15;

/// The option's state of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UserTimeout {
    /// ADV_UTO; `None`: not enabled.
    advertised: Option<Duration>,
    /// REMOTE_UTO.
    remote: Option<Duration>,
    due: bool,
}

impl UserTimeout {
    /// The program switches it on with a value to advertise, or off.
    pub fn advertise(&mut self, value: Option<Duration>) {
        *self =
            Self { advertised: value, remote: if value.is_some() { self.remote } else { None }, due: value.is_some() };
    }

    /// ADV_UTO.
    pub fn advertised(&self) -> Option<Duration> {
        self.advertised
    }

    /// REMOTE_UTO.
    pub fn remote(&self) -> Option<Duration> {
        self.remote
    }

    /// What the peer's option says, if this one is enabled. Zero is reserved and ignored (3.4).
    pub fn heard(&mut self, field: u16) {
        let number = u64::from(field & !MINUTES);
        if self.advertised.is_some() && number > 0 {
            self.remote = Some(Duration::from_s(if field & MINUTES != 0 { number * 60 } else { number }));
        }
    }

    /// Whether the peer is to be told.
    pub fn is_due(&self) -> bool {
        self.due
    }

    /// The option's field for a segment that is sent now.
    pub fn say(&mut self) -> Option<u16> {
        let value = self.advertised.filter(|_| std::mem::take(&mut self.due))?;
        let s = value.as_us().div_ceil(1_000_000).max(1);
        let field = if s < MINUTES.into() { s as u16 } else { MINUTES | s.div_ceil(60).min(0x7fff) as u16 };
        Some(field)
    }

    /// The timeout that holds, if the option has any say: never less than the present retransmission timeout.
    pub fn adopted(&self, rto: Duration) -> Option<Duration> {
        let advertised = self.advertised?;
        Some(advertised.max(self.remote.unwrap_or_default()).max(LOWER_LIMIT).max(rto).min(UPPER_LIMIT))
    }
}

#[cfg(test)]
mod tests {
    use toe_abi::{Reason, option, state};

    use super::*;
    use crate::testing::Bench;

    #[test]
    fn seconds_and_minutes() {
        let said = |s: u64| {
            let mut u = UserTimeout::default();
            u.advertise(Some(Duration::from_s(s)));
            u.say()
        };
        assert_eq!((said(1), said(32_767)), (Some(1), Some(32_767)));
        assert_eq!((said(32_768), said(86_400)), (Some(MINUTES | 547), Some(MINUTES | 1440)));
        let mut u = UserTimeout::default();
        u.heard(50);
        assert_eq!(u.remote(), None, "not enabled");
        u.advertise(Some(Duration::from_s(120)));
        u.heard(0);
        u.heard(MINUTES);
        assert_eq!(u.remote(), None, "reserved");
        let rto = Duration::from_s(1);
        assert_eq!(u.adopted(rto), Some(Duration::from_s(120)));
        u.heard(MINUTES | 5);
        assert_eq!(u.adopted(rto), Some(Duration::from_s(300)));
        u.heard(MINUTES | 0x7fff);
        assert_eq!(u.adopted(rto), Some(UPPER_LIMIT));
        u.advertise(Some(Duration::from_s(3)));
        u.heard(5);
        assert_eq!((u.adopted(rto), u.adopted(UPPER_LIMIT)), (Some(LOWER_LIMIT), Some(UPPER_LIMIT)));
    }

    #[test]
    fn it_is_off_until_asked_for() {
        let mut b = Bench::established();
        b.peer("PA 1:11 ack 1 <uto 200>");
        assert_eq!(b.set(option::ADVERTISE_USER_TIMEOUT_MS, 0), (Reason::None as u32, 0));
        assert_eq!(b.get(option::PEER_USER_TIMEOUT_MS), (Reason::None as u32, 0));
        b.wait_ms(100);
        assert!(!b.next().unwrap().contains("uto"));
    }

    #[test]
    fn the_larger_of_both_holds() {
        let mut b = Bench::established();
        b.set(option::ADVERTISE_USER_TIMEOUT_MS, 150_000);
        b.expect("A 1:1 ack 1 <uto 150>");
        b.nothing();
        b.peer("PA 1:11 ack 1 <uto 200>");
        assert_eq!(b.get(option::PEER_USER_TIMEOUT_MS), (Reason::None as u32, 200_000));
        b.send(10);
        b.wait_ms(195_000);
        assert_eq!(b.bits & state::ABORTED, 0);
        b.wait_ms(70_000);
        assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::TimedOut as u32));
    }

    #[test]
    fn the_programs_own_timeout_is_not_overridden() {
        let mut b = Bench::established();
        b.set(option::ADVERTISE_USER_TIMEOUT_MS, 150_000);
        b.set(option::USER_TIMEOUT_MS, 3_000);
        b.peer("PA 1:11 ack 1 <uto 200>");
        b.send(10);
        b.wait_ms(10_000);
        assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::TimedOut as u32));
    }

    #[test]
    fn what_the_peer_says_cannot_be_set() {
        let mut b = Bench::established();
        assert_eq!(b.set(option::PEER_USER_TIMEOUT_MS, 1), (Reason::OptionValue as u32, 0));
    }
}

//! Explicit congestion notification (RFC 3168): the receiver's side, and who asks for it.
//!
//! Both SYNs agree on it (6.1.1). Then new data carries ECT(0); retransmissions, bare acknowledgements, window probes and
//! SYNs do not (6.1.4 to 6.1.6). A router marks instead of dropping; the receiver echoes the mark in every
//! acknowledgement until the sender says that it has reduced its window (6.1.3), and the sender reduces it once per
//! window of data (6.1.2, in `recovery`). With DCTCP the receiver echoes just what it sees (RFC 8257, 3.2).
//!
//! The card cuts its own segments, so CWR stands on one of them alone. Of what a wire has merged, marks are alike: the
//! kernel merges no segments that differ in them.

use crate::wire::segment::Flags;

/// Whether connections use ECN, as Linux's `tcp_ecn` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EcnPolicy {
    /// Never.
    Off,
    /// Our SYNs ask for it, and a peer's that asks gets it.
    On,
    /// A peer's SYN that asks gets it.
    #[default]
    WhenAsked,
}

/// Whether a SYN asks for ECN: an "ECN-setup SYN packet" (RFC 3168, 6.1.1).
//= docs/specs/rfc9293.txt#section-3.8.2
//# A TCP endpoint SHOULD implement ECN as described in RFC 3168 (SHLD-8).
pub fn is_setup_syn(flags: Flags) -> bool {
    flags.has(Flags::ECE | Flags::CWR)
}

/// Whether a SYN-ACK agrees to ECN: an "ECN-setup SYN-ACK packet".
pub fn is_setup_syn_ack(flags: Flags) -> bool {
    flags.has(Flags::ECE) && !flags.has(Flags::CWR)
}

/// The receiver's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Echo {
    /// Acknowledgements carry ECE.
    pub is_on: bool,
}

impl Echo {
    /// A segment with text has arrived in the window; whether it is to be acknowledged at once.
    //= docs/specs/rfc9293.txt#section-3.8.2
    //# A TCP endpoint SHOULD implement ECN as described in RFC 3168 (SHLD-8).
    pub fn arrived(&mut self, flags: Flags, marked: bool, exact: bool) -> bool {
        let before = self.is_on;
        if exact {
            // RFC 8257, 3.2, 1 to 3.
            self.is_on = marked;
            return self.is_on != before;
        }
        // RFC 3168, 6.1.3, and erratum 3639: CWR first, which was sent before this mark was made.
        if flags.has(Flags::CWR) {
            self.is_on = false;
        }
        self.is_on |= marked;
        marked && !before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_echoed_until_the_sender_has_reduced() {
        let mut e = Echo::default();
        assert!(!e.arrived(Flags::ACK, false, false));
        assert!(e.arrived(Flags::ACK, true, false), "the sender should know soon");
        assert!(!e.arrived(Flags::ACK, false, false) && e.is_on);
        e.arrived(Flags::ACK | Flags::CWR, false, false);
        assert!(!e.is_on);
        e.arrived(Flags::ACK, true, false);
        e.arrived(Flags::ACK | Flags::CWR, true, false);
        assert!(e.is_on, "CWR is processed first");
    }

    #[test]
    fn dctcp_echoes_what_it_sees_and_acknowledges_every_change() {
        let mut e = Echo::default();
        let seen: Vec<_> = [false, true, true, false, false]
            .into_iter()
            .map(|marked| (e.arrived(Flags::ACK, marked, true), e.is_on))
            .collect();
        assert_eq!(seen, [(false, false), (true, true), (false, true), (true, false), (false, false)]);
    }
}

//! ICMP errors about a connection (RFC 9293, 3.9.2.2), and how much of them is believed (RFC 5927).
//!
//! An error counts only if the segment that it quotes is in flight: SND.UNA =< SEG.SEQ < SND.NXT (RFC 5927, 4.1). Then
//!
//! | error | what is done |
//! |---|---|
//! | source quench | nothing (MUST-55) |
//! | soft | the program is told (SHLD-25); nothing else, in any state (MUST-56) |
//! | hard, before the connection is synchronized | it is over (SHLD-26) |
//! | hard, after that | the program is told; the connection is over if it then makes no progress until R1 |
//! | packet too big | see `path_mtu` |
//!
//! The fourth line is between RFC 9293, whose SHLD-26 wants the connection aborted, and RFC 5927, 5.2, which
//! wants the error taken as soft because it may be forged. A host that cannot be reached does not answer; so
//! the error needs the silence of [`R1_TIMEOUTS`](super::timeout::R1_TIMEOUTS) timeouts as its witness. A forger who has
//! guessed everything else cannot make a peer fall silent.

use toe_abi::Reason;

use crate::counters::Counter;
use crate::seq::Position;
use crate::tcp::tcb::{State, Store, Tcb};
use crate::time::Instant;
use crate::wire::icmp::{IcmpError, Kind};

/// An ICMP error quotes a segment of this connection.
pub fn error_arrives(t: &mut Tcb, store: &mut Store, error: &IcmpError, now: Instant) {
    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //# TCP implementations MUST silently discard any received ICMP Source Quench messages (MUST-55).
    if error.kind == Kind::SourceQuench {
        store.counters.add(Counter::IcmpSourceQuench);
        return;
    }
    let seq = error.seq.near(t.send.una);
    let over = matches!(t.state, State::Closed | State::TimeWait);
    if over || seq < t.send.una || seq >= t.send.max {
        store.counters.add(Counter::IcmpNotInFlight);
        return;
    }
    match error.kind {
        Kind::SourceQuench => {}
        //= docs/specs/rfc9293.txt#section-3.9.2.2
        //# Since these Unreachable messages indicate soft error conditions, a TCP implementation MUST NOT abort the
        //# connection (MUST-56)
        //= docs/specs/rfc9293.txt#section-3.9.2.2
        //# it SHOULD make the information available to the application (SHLD-25).
        Kind::Soft(reason) => {
            store.counters.add(Counter::IcmpSoft);
            report(t, reason);
        }
        //= docs/specs/rfc9293.txt#section-3.9.2.2
        //# These are hard error conditions, so TCP implementations SHOULD abort the connection (SHLD-26).
        Kind::Hard(reason) => {
            store.counters.add(Counter::IcmpHard);
            report(t, reason);
            if t.state.is_synchronized() {
                t.unreachable_at = Some(t.send.una);
            } else {
                store.counters.add(Counter::IcmpAborted);
                t.end(Reason::Unreachable);
            }
        }
        Kind::TooBig { mtu } => t.packet_too_big(store, error, mtu, seq, now),
    }
}

//= docs/specs/rfc9293.txt#section-3.9.1.8
//# There MUST be a mechanism for reporting soft TCP error conditions to the application (MUST-47).
//= docs/specs/rfc9293.txt#section-3.9.1.8
//# an application program that does not want to receive such ERROR_REPORT calls SHOULD be able to effectively
//# disable these calls (SHLD-20).
fn report(t: &mut Tcb, reason: Reason) {
    if t.settings.report_errors {
        t.guest.notice.network_error(reason);
    }
}

/// Whether silence since a hard error has lasted long enough to believe it; asked at timeouts from R1 on.
pub fn is_confirmed(unreachable_at: Option<Position>, una: Position) -> bool {
    unreachable_at == Some(una)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toe_abi::{option, state};

    use super::*;
    use crate::engine::Verdict;
    use crate::testing::Bench;

    const NETWORK: [u8; 8] = [3, 0, 0, 0, 0, 0, 0, 0];
    const PORT: [u8; 8] = [3, 3, 0, 0, 0, 0, 0, 0];

    /// A connection with one segment in flight, and that segment.
    fn in_flight() -> (Bench, Vec<u8>) {
        let mut b = Bench::established();
        b.send(1000);
        let frame = b.next_frame().unwrap();
        (b, frame)
    }

    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //= type=test
    //# TCP implementations MUST act on an ICMP error message passed up from the IP layer, directing it to the
    //# connection that created the error (MUST-54).
    //= docs/specs/rfc9293.txt#section-3.9.1.8
    //= type=test
    //# There MUST be a mechanism for reporting soft TCP error conditions to the application (MUST-47).
    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //= type=test
    //# it SHOULD make the information available to the application (SHLD-25).
    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //= type=test
    //= feature=unreachable
    //# Since these Unreachable messages indicate soft error conditions, a TCP implementation MUST NOT abort the
    //# connection (MUST-56)
    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //= type=test
    //= feature=time-exceeded
    //# Since these Unreachable messages indicate soft error conditions, a TCP implementation MUST NOT abort the
    //# connection (MUST-56)
    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //= type=test
    //= feature=parameter-problem
    //# Since these Unreachable messages indicate soft error conditions, a TCP implementation MUST NOT abort the
    //# connection (MUST-56)
    #[test]
    fn soft_errors_are_told_and_end_nothing() {
        // MUST-54, MUST-56, SHLD-25.
        let (mut b, frame) = in_flight();
        let soft = [
            ([3, 0], Reason::NetworkUnreachable),
            ([3, 1], Reason::HostUnreachable),
            ([3, 5], Reason::SourceRoute),
            ([11, 0], Reason::TimeExceeded),
            ([11, 1], Reason::TimeExceeded),
            ([12, 0], Reason::ParameterProblem),
        ];
        for (i, ([kind, code], reason)) in soft.into_iter().enumerate() {
            b.icmp([kind, code, 0, 0, 0, 0, 0, 0], &frame);
            assert_eq!((b.notice.network_error, b.notice.network_errors), (reason as u32, i as u32 + 1));
        }
        assert_eq!((b.bits, b.count("icmp-soft"), b.count("icmp-in")), (state::ESTABLISHED, 6, 6));
        b.peer("A 1 ack 1001");
        b.nothing();
    }

    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //= type=test
    //= feature=unreachable
    //# Since these Unreachable messages indicate soft error conditions, a TCP implementation MUST NOT abort the
    //# connection (MUST-56)
    #[test]
    fn soft_errors_do_not_end_an_opening_connection_either() {
        let mut b = Bench::new();
        b.connect(0);
        let syn = b.next_frame().unwrap();
        b.icmp(NETWORK, &syn);
        assert_eq!((b.bits, b.notice.network_error), (0, Reason::NetworkUnreachable as u32));
        b.peer("SA 0 ack 1");
        b.expect("A 1:1");
    }

    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //= type=test
    //# These are hard error conditions, so TCP implementations SHOULD abort the connection (SHLD-26).
    #[test]
    fn a_hard_error_ends_an_opening_connection() {
        // SHLD-26.
        for code in [2, 3] {
            let mut b = Bench::new();
            b.connect(0);
            let syn = b.next_frame().unwrap();
            b.icmp([3, code, 0, 0, 0, 0, 0, 0], &syn);
            assert_eq!((b.bits, b.reason), (state::ABORTED, Reason::Unreachable as u32));
            b.wait_ms(10_000);
            b.nothing();
        }
    }

    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //= type=test
    //# These are hard error conditions, so TCP implementations SHOULD abort the connection (SHLD-26).
    #[test]
    fn a_hard_error_ends_an_open_connection_only_if_the_peer_is_silent_until_r1() {
        let (mut b, frame) = in_flight();
        b.icmp(PORT, &frame);
        assert_eq!((b.bits, b.notice.network_error), (state::ESTABLISHED, Reason::PortUnreachable as u32));
        // 210 ms, 420 ms, and the third timeout at 840 ms.
        b.wait_ms(640);
        b.expect("PA 1:1001");
        b.expect("PA 1:1001");
        assert_eq!(b.bits, state::ESTABLISHED);
        b.wait_ms(840);
        b.nothing();
        assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::Unreachable as u32));
        assert_eq!(b.count("icmp-aborted"), 1);
    }

    #[test]
    fn a_hard_error_is_forgotten_with_the_next_acknowledgement() {
        let (mut b, frame) = in_flight();
        b.icmp(PORT, &frame);
        b.peer("A 1 ack 1001");
        b.send(10);
        b.wait_ms(10_000);
        assert_eq!((b.bits, b.count("icmp-aborted")), (state::ESTABLISHED, 0));
        assert!(b.count("tcp-path-advice") > 0);
    }

    //= docs/specs/rfc9293.txt#section-3.9.2.2
    //= type=test
    //# TCP implementations MUST silently discard any received ICMP Source Quench messages (MUST-55).
    #[test]
    fn a_source_quench_is_discarded_in_silence() {
        // MUST-55.
        let (mut b, frame) = in_flight();
        let notices = b.notices;
        b.icmp([4, 0, 0, 0, 0, 0, 0, 0], &frame);
        assert_eq!((b.notices, b.count("icmp-source-quench"), b.bits), (notices, 1, state::ESTABLISHED));
        b.nothing();
        b.peer("A 1 ack 1001");
        b.send(3000);
        (0..3).for_each(|_| assert!(b.next().is_some()));
    }

    #[test]
    fn what_is_not_in_flight_is_not_believed() {
        // RFC 5927, 4.1.
        let (mut b, frame) = in_flight();
        b.peer("A 1 ack 1001");
        b.icmp(PORT, &frame);
        b.send(10);
        b.icmp(PORT, &frame);
        let sent = b.next_frame().unwrap();
        let mut later = sent.clone();
        later[14 + 20 + 7] = later[14 + 20 + 7].wrapping_add(10);
        b.icmp(PORT, &later);
        assert_eq!((b.count("icmp-not-in-flight"), b.count("icmp-hard"), b.notice.network_errors), (3, 0, 0));
        b.icmp(PORT, &sent);
        assert_eq!((b.count("icmp-hard"), b.notice.network_errors), (1, 1));
    }

    #[test]
    fn errors_about_others_are_the_kernels() {
        let (mut b, mut frame) = in_flight();
        frame[14 + 20 + 1] ^= 1;
        assert_eq!(b.icmp_verdict(PORT, &frame), Verdict::PassOn);
        frame[14 + 20 + 1] ^= 1;
        // An echo request is no error.
        assert_eq!(b.icmp_verdict([8, 0, 0, 0, 0, 0, 0, 0], &frame), Verdict::PassOn);
        assert_eq!(b.count("icmp-in"), 0);
    }

    #[test]
    fn errors_about_a_syn_ack_or_a_finished_connection_do_nothing() {
        let mut b = Bench::new();
        b.listen();
        b.peer("S 0 <mss 1000>");
        let syn_ack = b.next_frame().unwrap();
        b.icmp(PORT, &syn_ack);
        b.peer("A 1 ack 1");
        b.shutdown();
        let fin = b.next_frame().unwrap();
        b.peer("FA 1 ack 2");
        b.icmp(PORT, &fin);
        assert_eq!((b.count("icmp-no-connection"), b.in_use("time-wait"), b.reason), (2, 1, 0));
    }

    //= docs/specs/rfc9293.txt#section-3.9.1.8
    //= type=test
    //# an application program that does not want to receive such ERROR_REPORT calls SHOULD be able to effectively
    //# disable these calls (SHLD-20).
    #[test]
    fn the_program_can_do_without_reports() {
        // SHLD-20.
        let (mut b, frame) = in_flight();
        b.set(option::REPORT_ERRORS, 0);
        b.icmp(NETWORK, &frame);
        assert_eq!((b.notice.network_errors, b.count("icmp-soft")), (0, 1));
    }

    #[test]
    fn icmpv6_is_heard() {
        let mut b = Bench::over_ipv6();
        b.connect(0);
        let syn = b.next_frame().unwrap();
        b.icmp([1, 0, 0, 0, 0, 0, 0, 0], &syn);
        assert_eq!((b.bits, b.notice.network_error), (0, Reason::NetworkUnreachable as u32));
        b.icmp([1, 4, 0, 0, 0, 0, 0, 0], &syn);
        assert_eq!((b.bits, b.reason), (state::ABORTED, Reason::Unreachable as u32));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whoever can see everything but cannot stop the peer's acknowledgements: whatever errors he sends, the connection
        /// lives, its segments are no smaller than the minimum, and all of it arrives.
        #[test]
        fn no_storm_of_errors_stops_a_connection_that_makes_progress(
            errors in proptest::collection::vec((0u8..16, 0u8..16, any::<u16>(), any::<u8>()), 1..40),
        ) {
            let mut b = Bench::established_with(toe_abi::flags::NODELAY, "mss 1460, sackOK");
            let mut acked = 1;
            for (kind, code, mtu, which) in errors {
                b.send(4000);
                let [m0, m1] = mtu.to_be_bytes();
                let mut frames = Vec::new();
                while let Some(frame) = b.next_frame() {
                    frames.push(frame);
                }
                if let Some(about) = frames.get(usize::from(which) % frames.len().max(1)) {
                    // What is no error of TCP's is the kernel's.
                    let _ = b.icmp_verdict([kind, code, 0, 0, 0, 0, m0, m1], about);
                }
                for frame in frames {
                    let (from, to) = crate::testing::text_of(&frame, b.first());
                    prop_assert!(to - from <= 1460);
                    acked = acked.max(to);
                }
                b.peer(&format!("A 1 ack {acked}"));
                while let Some((_, to)) = b.next_text() {
                    acked = acked.max(to);
                }
                b.peer(&format!("A 1 ack {acked}"));
            }
            for _ in 0..1000 {
                let Some((_, to)) = b.next_text() else { break };
                acked = acked.max(to);
                b.peer(&format!("A 1 ack {acked}"));
            }
            prop_assert_eq!(b.bits, state::ESTABLISHED);
            prop_assert_eq!(u64::from(acked), b.sent() + 1);
            prop_assert!(b.info().send_mss >= crate::tcp::path_mtu::PATH_MTU_MIN_V4 - 40);
        }
    }
}

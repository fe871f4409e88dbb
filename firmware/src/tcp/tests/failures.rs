//! Connections that fail: R1 and R2 (RFC 9293, 3.8.3).

use toe_abi::{Reason, state};

use crate::testing::Bench;

//= docs/specs/rfc9293.txt#section-3.8.3
//= type=test
//= feature=R1
//# The following procedure MUST be used to handle excessive retransmissions of data segments (MUST-20)
//= docs/specs/rfc9293.txt#section-3.8.3
//= type=test
//# (e) TCP implementations SHOULD inform the application of the delivery problem (unless such information has been
//# disabled by the application; see the "Asynchronous Reports" section (Section 3.9.1.8)), when R1 is reached and
//# before R2 (SHLD-9).
//= docs/specs/rfc9293.txt#section-3.8.3
//= type=test
//# The value of R1 SHOULD correspond to at least 3 retransmissions, at the current RTO (SHLD-10).
#[test]
fn from_the_third_retransmission_on_the_guest_is_advised_of_a_dead_path_long_before_r2() {
    let mut b = Bench::established();
    b.send(10);
    b.expect("PA 1:11");
    for (retransmission, advice) in [(1, 0), (2, 0), (3, 1), (4, 2), (5, 3)] {
        b.wait_for_segment();
        b.expect("PA 1:11");
        assert_eq!(b.notice.path_advice, advice, "retransmission {retransmission}");
    }
    assert_eq!(b.bits, state::ESTABLISHED);
    // A peer that is heard again is no news.
    b.peer("A 1 ack 11");
    b.send(10);
    b.expect("PA 11:21");
    b.wait_for_segment();
    b.expect("PA 11:21");
    assert_eq!(b.notice.path_advice, 3);
}

//= docs/specs/rfc9293.txt#section-3.8.3
//= type=test
//# SYN retransmissions MUST be handled in the general way just described for data retransmissions, including
//# notification of the application layer.
#[test]
fn the_same_holds_for_a_syn() {
    let mut b = Bench::new();
    b.connect(0);
    b.expect("S 0");
    let mut retransmissions = 0;
    while b.bits == 0 {
        b.wait_ms(1000);
        while b.next().is_some() {
            retransmissions += 1;
        }
        assert_eq!(b.notice.path_advice > 0, retransmissions >= 3, "{retransmissions}");
    }
    assert_eq!((b.bits, b.reason), (state::ABORTED, Reason::TimedOut as u32));
}

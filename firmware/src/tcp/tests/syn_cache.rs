//! A connection between a listener's SYN-ACK and the end of its handshake (RFC 9293, 3.10.7.4, for SYN-RECEIVED).

use toe_abi::{Endpoint, Mac, state};

use crate::seq::Seq;
use crate::tcp::half_open::{Derived, HalfOpen, Opening};
use crate::tcp::tcb::{Agreed, CHALLENGES, Link, Tuple};
use crate::testing::Bench;
use crate::time::Instant;
use crate::wire::options::Cookie;

/// A listener that has answered a SYN with these options.
fn answered(options: &str) -> Bench {
    let mut b = Bench::new();
    b.listen();
    b.peer(&format!("S 0 win 1000 <{options}>"));
    assert!(b.next().unwrap().starts_with("SA 0:0 ack 1 win 65535"));
    assert_eq!(b.in_use("half-open"), 1);
    b
}

/// The handshake can still be ended.
#[track_caller]
fn goes_on(mut b: Bench, last: &str) {
    b.nothing();
    b.peer(last);
    assert_eq!(b.bits, state::ESTABLISHED | state::ACCEPTED);
    assert_eq!(b.in_use("half-open"), 0);
}

#[test]
fn a_reset_at_the_next_number_returns_to_listen_and_only_that() {
    let mut b = answered("mss 1000");
    b.peer("R 0");
    b.nothing();
    b.peer("R 65536");
    b.nothing();
    // In the window: RFC 5961, 3.2.
    for inside in ["R 2", "R 65535"] {
        b.peer(inside);
        b.expect("A 1:1 ack 1 win 65535");
        b.nothing();
    }
    assert_eq!(b.in_use("half-open"), 1);
    b.peer("R 1");
    b.nothing();
    assert_eq!(b.in_use("half-open"), 0);
    // The listener is as before.
    b.peer("S 0 win 1000");
    b.expect("SA 0:0 ack 1");
}

#[test]
fn a_syn_that_is_repeated_is_answered_again_and_any_other_begins_anew() {
    let mut b = answered("mss 1000");
    b.peer("S 0 win 1000 <mss 1000>");
    b.expect("SA 0:0 ack 1");
    goes_on(b, "A 1 ack 1");

    let mut b = answered("mss 1000");
    b.peer("S 100 win 1000");
    b.nothing();
    assert_eq!(b.in_use("half-open"), 0);

    // With an ACK it is no repetition.
    let mut b = answered("mss 1000");
    b.peer("SA 0 ack 1 win 1000");
    b.expect("A 1:1 ack 1");
    goes_on(b, "A 1 ack 1");
}

#[test]
fn what_is_outside_of_the_window_is_acknowledged_and_opens_nothing() {
    let mut b = answered("mss 1000");
    for outside in ["A 0 ack 1", "PA 0:1 ack 1", "A 65536 ack 1", "PA 65536:65600 ack 1"] {
        b.peer(outside);
        b.expect("A 1:1 ack 1 win 65535");
        b.nothing();
    }
    goes_on(b, "A 1 ack 1");
}

#[test]
fn a_segment_that_begins_before_the_window_and_ends_in_it_opens() {
    let mut b = answered("mss 1000");
    b.peer("PA 0:3 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED | state::ACCEPTED);
}

#[test]
fn a_segment_ahead_of_the_next_opens_and_is_kept() {
    let mut b = answered("mss 1000");
    b.peer("PA 4:10 ack 1");
    assert_eq!(b.bits, state::ESTABLISHED | state::ACCEPTED);
    b.received(0);
    b.peer("PA 1:4 ack 1");
    b.received(9);
}

#[test]
fn a_segment_without_ack_is_ignored() {
    let mut b = answered("mss 1000");
    b.peer("P 1:5");
    goes_on(b, "A 1 ack 1");
}

#[test]
fn an_ack_of_anything_but_the_syn_is_reset() {
    for ack in [0, 2] {
        let mut b = answered("mss 1000");
        b.peer(&format!("A 1 ack {ack}"));
        b.expect(&format!("R {ack}:{ack}"));
        goes_on(b, "A 1 ack 1");
    }
}

#[test]
fn an_old_timestamp_is_challenged_with_our_own_and_a_reset_needs_none() {
    let mut b = answered("mss 1000, ts 100 0, ws 3");
    b.peer("A 1 ack 1 <ts 99 0>");
    // Not a SYN: its window is scaled (RFC 7323, 2.2).
    let challenge = b.next().unwrap();
    assert!(challenge.starts_with("A 1:1 ack 1 win 1023 <ts "), "{challenge}");
    assert!(challenge.ends_with(" 100>"), "{challenge}");
    goes_on(b, "A 1 ack 1 <ts 100 0>");

    let mut b = answered("mss 1000, ts 100 0");
    b.peer("R 1 <ts 99 0>");
    b.nothing();
    assert_eq!(b.in_use("half-open"), 0);
}

#[test]
fn without_timestamps_agreed_one_says_nothing() {
    let b = answered("mss 1000");
    goes_on(b, "A 1 ack 1 <ts 4000000000 0>");
}

#[test]
fn the_peers_window_is_scaled_as_its_syn_said_and_by_no_more_than_fourteen() {
    for (scale, window) in [(2, 4), (15, 1 << 14)] {
        let mut b = answered(&format!("mss 1000, ws {scale}"));
        b.peer("A 1 ack 1 win 1");
        assert_eq!(b.info().send_window, window);
    }
}

#[test]
fn the_round_trip_of_a_syn_ack_counts_only_if_it_was_sent_once() {
    let mut b = answered("mss 1000");
    b.wait_ms(30);
    b.peer("A 1 ack 1 win 1000");
    assert_eq!(b.info().rtt_us, 30_000);

    let mut b = answered("mss 1000");
    assert_eq!(b.wait_for_segment(), 1000);
    b.expect("SA 0:0 ack 1");
    b.wait_ms(30);
    b.peer("A 1 ack 1 win 1000");
    // RFC 6298, 5.7, and Karn's rule.
    assert_eq!(b.info().rtt_us, 0);
}

/// An entry keeps the flags, the size and the shift of a SYN in few bits: each comes out as it went in.
#[test]
fn an_entry_says_what_it_was_made_of() {
    let tuple = Tuple {
        local: Endpoint::new("2001:db8::2".parse().unwrap(), 80),
        remote: Endpoint::new("2001:db8::1".parse().unwrap(), 4711),
    };
    let now = Instant::from_us((1 << 40) + 4 * 77 + 3);
    for bits in 0..32 {
        let is = |bit: u32| bits & 1 << bit != 0;
        for (peer_shift, peer_mss) in [(0, None), (7, Some(1460)), (14, Some(1))] {
            let opening = Opening {
                tuple,
                link: Link { local: Mac([2, 0, 0, 0, 0, 1]), remote: Mac([2, 0, 0, 0, 0, 2]) },
                iss: Seq(5),
                irs: Seq(u32::MAX),
                agreed: Agreed { timestamps: is(0), sack: is(1), ecn: is(2), window_scale: is(3) },
                peer_mss,
                peer_shift: if is(3) { peer_shift } else { 0 },
                timestamp: 99,
                timestamp_offset: 1 << 31,
                window: 65_535,
                mtu: 1500,
                cookie: is(4).then(|| Cookie::new(&[1; 8]).unwrap()),
                transmissions: 1,
            };
            let derived = Derived {
                iss: opening.iss,
                timestamp_offset: opening.timestamp_offset,
                local_mac: opening.link.local,
                mtu: opening.mtu,
                cookie: opening.cookie,
            };
            let mut entry = HalfOpen::new(&opening, 3, None, now);
            assert_eq!((entry.tells_cookie(), entry.clock()), (is(4), (1u64 << 38) as u32 + 77));
            assert_eq!((entry.listener(), entry.time_wait(), entry.tuple(80)), (3, None, tuple));
            assert_eq!(entry.opening(tuple, derived), opening, "{bits:05b}");
            // What changes of it changes nothing else.
            entry.send_again();
            assert!((0..CHALLENGES).all(|_| entry.may_challenge()) && !entry.may_challenge());
            let again = Opening { transmissions: 2, cookie: None, ..opening };
            assert_eq!(entry.opening(tuple, derived), again, "{bits:05b}");
            entry.without_ecn();
            let agreed = Agreed { ecn: false, ..again.agreed };
            assert_eq!(entry.opening(tuple, derived), Opening { agreed, ..again }, "{bits:05b}");
            assert_eq!(HalfOpen::new(&opening, 3, Some(0), now).time_wait(), Some(0));
        }
    }
}

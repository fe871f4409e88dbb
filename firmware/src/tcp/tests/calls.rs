//! What the program asks of its connection: at the edges of what it may ask, and in which order a connection's waits end.

use toe_abi::{Reason, state};

use crate::tcp::calls::Sent;
use crate::tcp::tcb::{State, Tcb};
use crate::tcp::timeout::{Kind, deadline};
use crate::testing::Bench;
use crate::time::Duration;

fn block(b: &mut Bench) -> &mut Tcb {
    b.firmware.block(b.connection).0
}

/// 500 octets are on their way.
fn sending() -> Bench {
    let mut b = Bench::established();
    b.send(500);
    b.expect("PA 1:501");
    b
}

#[test]
fn urgent_data_may_end_where_the_stream_does() {
    let mut b = sending();
    b.shutdown();
    assert_eq!(block(&mut b).call_urgent(500), Ok(()));
    assert_eq!(block(&mut b).call_urgent(501), Err(Reason::Offset));
    // While the stream goes on, it may be yet to come.
    let mut b = sending();
    assert_eq!(block(&mut b).call_urgent(501), Ok(()));
    assert_eq!(block(&mut b).call_urgent(u64::MAX / 2), Ok(()));
    assert_eq!(block(&mut b).call_urgent(u64::MAX / 2 + 1), Err(Reason::Offset));
}

#[test]
fn a_stream_ends_once_and_not_before_what_was_given() {
    let mut b = sending();
    let now = b.now;
    assert_eq!(block(&mut b).call_shutdown(499, now), Err(Reason::Offset));
    assert_eq!((block(&mut b).call_shutdown(501, now), block(&mut b).send.fin), (Ok(()), false), "behind a gap");
    assert_eq!((block(&mut b).call_shutdown(u64::MAX, now), block(&mut b).send.fin), (Ok(()), false));
    assert_eq!((block(&mut b).call_shutdown(500, now), block(&mut b).send.fin), (Ok(()), true));
    for (offset, said) in [(499, Err(Reason::Offset)), (500, Ok(())), (501, Err(Reason::Offset))] {
        assert_eq!(block(&mut b).call_shutdown(offset, now), said, "{offset}");
    }
}

#[test]
fn no_offset_is_too_large_to_be_refused() {
    let mut b = sending();
    let now = b.now;
    for offset in [1 << 40, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX] {
        let (t, store) = b.firmware.block(b.connection);
        assert_eq!(t.call_send(store, offset, &[1, 2], now), Sent::BeyondCredit, "{offset}");
        assert_eq!(t.send.end, t.send.nxt);
    }
}

/// A segment that may be lost by reordering is looked at before the timeout, and not at all if the timeout comes first.
#[test]
fn of_two_waits_the_first_ends_first() {
    let mut b = sending();
    let t = block(&mut b);
    let timeout = t.timer_from + t.rtt.rto();
    assert_eq!(deadline(t, Kind::Retransmit), Some(timeout));
    let early = t.timer_from + Duration::from_ms(3);
    for (reorder_at, expected) in [(early, early), (timeout + Duration::from_ms(1), timeout)] {
        t.recovery.reorder_at = Some(reorder_at);
        assert_eq!(deadline(t, Kind::Retransmit), Some(expected));
    }
}

/// The numbers of `enum tcp_state` in Linux's `tcp_states.h`.
#[test]
fn states_have_the_numbers_that_programs_know() {
    let known = [
        (State::Established, 1),
        (State::SynSent, 2),
        (State::SynReceived, 3),
        (State::FinWait1, 4),
        (State::FinWait2, 5),
        (State::TimeWait, 6),
        (State::Closed, 7),
        (State::CloseWait, 8),
        (State::LastAck, 9),
        (State::Closing, 11),
    ];
    assert_eq!(known.map(|(state, _)| state), {
        let mut all = State::ALL;
        all.sort_by_key(|state| known.iter().position(|(known, _)| known == state));
        all
    });
    for (state, number) in known {
        assert_eq!(state.linux(), number, "{state:?}");
    }
}

/// Only one that broke before its program has heard of it, and which a CONNECT of its program has made.
#[test]
fn a_broken_connection_may_be_asked_for_until_its_program_knows() {
    let mut b = Bench::established();
    let t = block(&mut b);
    assert!(!t.may_be_asked_for(), "it is not broken");
    t.guest.bits |= state::ABORTED;
    t.guest.seen = state::ESTABLISHED;
    assert!(t.may_be_asked_for());
    t.guest.seen |= state::ABORTED;
    assert!(!t.may_be_asked_for(), "the program knows");
    t.guest.seen = 0;
    t.guest.listener = 7;
    assert!(!t.may_be_asked_for(), "a listener's was not asked for");
    t.guest.listener = 0;
    assert!(t.may_be_asked_for());
    t.guest.context = None;
    assert!(!t.may_be_asked_for(), "it is nobody's");
}

/// What was reset is over: that its program leaves unread data behind resets nothing any more.
#[test]
fn who_leaves_a_broken_connection_breaks_nothing() {
    let mut b = Bench::established();
    b.reading = false;
    b.peer("PA 1:101 ack 1");
    b.peer("R 101");
    assert_eq!(b.bits & state::ABORTED, state::ABORTED);
    let before = b.count("tcp-aborted");
    b.release();
    assert_eq!((b.count("tcp-aborted"), b.in_use("connections")), (before, 0));
    b.drain();
    b.nothing();
}

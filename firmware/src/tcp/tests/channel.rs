//! The program's calls, at the edges of what they may say: offsets, limits, and words that are repeated.

use toe_abi::{Message, Reason, ReceiveCredit, Send, Shutdown, flags, state};

use crate::testing::{Bench, octet};

fn send_at(b: &mut Bench, offset: u64, n: u64) {
    let data: Vec<_> = (offset..offset.saturating_add(n)).map(octet).collect();
    let message = Send { connection: b.connection, offset };
    b.tell(&Message::Send(message, &data));
}

#[test]
fn data_beyond_the_credit_is_refused_however_far_beyond() {
    let mut b = Bench::established();
    for offset in [1 << 40, u64::MAX / 2 + 1, u64::MAX - 3] {
        send_at(&mut b, offset, 3);
        b.refused(Reason::BeyondCredit);
    }
    assert_eq!(b.count("channel-beyond-credit"), 3);
    b.nothing();
    b.send(10);
    b.expect("PA 1:11");
}

#[test]
fn data_behind_a_gap_or_said_before_is_nobodys_fault() {
    let mut b = Bench::established();
    send_at(&mut b, 1, 9);
    assert_eq!((b.count("channel-gap"), b.messages.len()), (1, 0));
    b.send(10);
    b.expect("PA 1:11");
    send_at(&mut b, 0, 10);
    assert_eq!((b.count("channel-repeated"), b.messages.len()), (1, 0));
    // Half of it is new.
    send_at(&mut b, 5, 10);
    b.expect("PA 11:16");
    b.nothing();
}

#[test]
fn the_end_may_be_repeated_and_not_moved() {
    let mut b = Bench::established();
    b.send(10);
    b.expect("PA 1:11");
    let end = |b: &mut Bench, offset| {
        let connection = b.connection;
        b.tell(&Message::Shutdown(Shutdown { connection, offset }));
    };
    // Before what was sent: it cannot be. Behind it: the data is still on its way.
    end(&mut b, 9);
    b.refused(Reason::Offset);
    end(&mut b, 11);
    assert_eq!(b.messages.len(), 0);
    b.nothing();
    end(&mut b, 10);
    b.expect("FA 11:11");
    assert_eq!(b.bits, state::ESTABLISHED | state::SHUTDOWN);
    end(&mut b, 10);
    assert_eq!(b.messages.len(), 0);
    for other in [9, 11] {
        end(&mut b, other);
        b.refused(Reason::Offset);
    }
    send_at(&mut b, 10, 1);
    b.refused(Reason::WrongState);
    b.nothing();
}

#[test]
fn the_end_of_a_connection_that_is_over_is_no_error() {
    let mut b = Bench::established();
    b.peer("R 1");
    assert_eq!(b.bits & state::ABORTED, state::ABORTED);
    b.shutdown();
    assert_eq!((b.bits & state::SHUTDOWN, b.messages.len()), (state::SHUTDOWN, 0));
    b.send(3);
    assert_eq!((b.messages.len(), b.count("channel-wrong-state")), (0, 1));
    b.nothing();
}

#[test]
fn what_was_received_cannot_be_more_than_was_sent() {
    let mut b = Bench::established();
    b.peer("PA 1:11 ack 1");
    b.received(10);
    let held = |b: &mut Bench, held| {
        let connection = b.connection;
        b.tell(&Message::ReceiveCredit(ReceiveCredit { connection, held, limit: 1 << 40, seen: 0 }));
    };
    held(&mut b, 11);
    b.refused(Reason::Offset);
    held(&mut b, 10);
    // Older than what is known: late, and harmless.
    held(&mut b, 4);
    assert_eq!(b.messages.len(), 0);
    b.peer("PA 11:21 ack 1");
    b.received(20);
}

#[test]
fn a_program_that_is_silent_is_told_again_ever_more_rarely_and_one_that_answers_is_not() {
    let mut b = Bench::established();
    b.reading = false;
    b.peer("PA 1:11 ack 1");
    let mut told = Vec::new();
    let from = b.now;
    while told.len() < 4 {
        let before = b.count("channel-resent");
        b.wait_ms(10);
        while b.next().is_some() {}
        if b.count("channel-resent") > before {
            told.push(b.now.since(from).as_ms());
        }
        assert!(b.now.since(from).as_ms() < 60_000, "{told:?}");
    }
    let waits: Vec<_> = told.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(waits.windows(2).all(|w| w[1] >= 2 * w[0] - 20), "{waits:?}");
    b.reading = true;
    b.wait_ms(60_000);
    b.received(10);
    let before = b.count("channel-resent");
    b.wait_ms(60_000);
    assert_eq!(b.count("channel-resent"), before);
}

#[test]
fn a_connection_that_its_program_left_after_it_was_over_is_free_at_once() {
    let mut b = Bench::established();
    b.peer("R 1");
    assert_eq!(b.in_use("connections"), 1);
    b.release();
    assert_eq!(b.in_use("connections"), 0);
    b.nothing();
}

#[test]
fn a_connection_that_its_program_leaves_before_it_is_open_is_given_up() {
    let mut b = Bench::new();
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.release();
    b.wait_ms(10_000);
    b.nothing();
    assert_eq!(b.in_use("connections"), 0);
}

//! What one segment may hold: text, blocks and a FIN beside each other, and the window around them.

use crate::testing::Bench;

#[test]
fn blocks_take_their_room_from_the_text() {
    // RFC 9293, 3.7.1: the options count (MUST-16). A block takes 8 bytes, the option itself 4.
    for (blocks, text) in [(1, 988), (2, 980), (3, 972)] {
        let mut b = Bench::established_sack();
        for i in 0..blocks {
            b.peer(&format!("A {}:{} ack 1", 100 * i + 50, 100 * i + 60));
        }
        while b.next().is_some() {}
        b.send(2000);
        b.expect(&format!("A 1:{}", text + 1));
    }
}

#[test]
fn blocks_for_which_there_is_no_room_follow_in_an_acknowledgement() {
    let mut b = Bench::established_sack();
    b.send(1000);
    b.expect("PA 1:1001");
    b.peer("A 50:60 ack 1");
    b.expect("A 1001:1001 ack 1 <sack 50:60>");
    b.peer("A 70:80 ack 1");
    b.expect("A 1001:1001 ack 1 <sack 70:80 50:60>");
    // What is sent again makes room for them: a probe of the tail, and after it all of it by the timeout.
    b.wait_for_segment();
    b.expect("A 1:981 ack 1 <sack 70:80 50:60>");
    b.wait_for_segment();
    b.expect("A 1:981 ack 1 <sack 70:80 50:60>");
    b.expect("PA 981:1001 ack 1 <sack 70:80 50:60>");
    b.peer("A 90:100 ack 1001 win 60000");
    b.expect("A 1001:1001 ack 1 <sack 90:100 70:80 50:60>");
    b.send(988);
    b.expect("A 1001:1973 ack 1 <sack 90:100 70:80 50:60>");
    b.expect("PA 1973:1989 ack 1 <sack 90:100 70:80 50:60>");
}

#[test]
fn data_is_sent_again_without_the_fin_that_went_alone() {
    let mut b = Bench::established();
    b.send(500);
    b.expect("PA 1:501");
    b.shutdown();
    b.expect("FA 501:501");
    b.wait_for_segment();
    b.expect("PA 1:501");
}

#[test]
fn a_fin_needs_room_in_the_window_like_an_octet() {
    for (window, first) in [(1000, "PA 1:1001"), (1001, "FPA 1:1001")] {
        let mut b = Bench::established();
        b.peer("A 1 ack 1 win 0");
        b.send(1000);
        b.shutdown();
        b.nothing();
        b.peer(&format!("A 1 ack 1 win {window}"));
        b.expect(first);
        b.nothing();
    }
}

#[test]
fn a_gap_behind_a_program_that_leaves_resets() {
    // RFC 2525, 2.17: what came out of order was not read either.
    let mut b = Bench::established();
    b.peer("PA 5:10 ack 1");
    b.expect("A 1:1 ack 1");
    b.release();
    b.expect("RA 1:1");
    assert_eq!(b.in_use("connections"), 0);
}

#[test]
fn a_segment_is_no_longer_than_half_a_window_that_is_worth_halving() {
    // Both ends would else wait for each other: one for room, one for a second segment.
    for (window, first) in [(1071, 1000), (1072, 536), (1074, 537)] {
        let mut b = Bench::new();
        b.connect(toe_abi::flags::NODELAY);
        b.expect("S 0");
        b.peer(&format!("SA 0 ack 1 win {window} <mss 1000>"));
        b.expect("A 1:1");
        b.send(5000);
        b.expect(&format!("A 1:{}", first + 1));
    }
}

#[test]
fn a_fin_rides_on_the_last_segment_and_makes_none_longer() {
    let mut b = Bench::established();
    b.peer("A 1 ack 1 win 0");
    b.send(2500);
    b.shutdown();
    b.peer("A 1 ack 1 win 9000");
    b.expect("A 1:1001");
    b.expect("A 1001:2001");
    b.expect("FPA 2001:2501");
    b.nothing();
}

#[test]
fn the_congestion_window_holds_the_last_octet_back_and_a_fin_alone_passes() {
    for shut in [false, true] {
        let mut b = Bench::established();
        b.send(10_001);
        if shut {
            b.shutdown();
        }
        for at in 0..9 {
            b.expect(&format!("A {}:{}", 1 + at * 1000, 1001 + at * 1000));
        }
        b.expect("PA 9001:10001");
        b.nothing();
        b.peer("A 1 ack 1001");
        b.expect(if shut { "FPA 10001:10002" } else { "PA 10001:10002" });
    }
}

#[test]
fn the_timeout_runs_from_when_a_window_that_opens_lets_the_data_go() {
    let mut b = Bench::established();
    b.peer("A 1 ack 1 win 0");
    b.send(500);
    b.wait_ms(100);
    b.nothing();
    b.peer("A 1 ack 1 win 1000");
    b.expect("PA 1:501");
    assert_eq!(b.wait_for_segment(), 210);
    b.expect("PA 1:501");
}

#[test]
fn the_timeout_begins_anew_when_the_first_segment_is_sent_again() {
    let mut b = Bench::established();
    b.send(6000);
    while b.next().is_some() {}
    b.wait_ms(10);
    b.peer("A 1 ack 1001");
    b.wait_ms(100);
    (0..3).for_each(|_| b.peer("A 1 ack 1001"));
    b.expect("A 1001:2001");
    assert_eq!(b.wait_for_segment(), 210);
}

#[test]
fn the_window_begins_again_after_silence_only_when_something_goes() {
    let mut b = Bench::established();
    b.send(10_000);
    while b.next().is_some() {}
    b.peer("A 1 ack 10001");
    assert_eq!(b.info().congestion_window, 18_000);
    b.wait_ms(5_000);
    // The peer's turn, and a window that lets nothing in.
    b.peer("PA 1:11 ack 10001");
    b.peer("A 11 ack 10001 win 0");
    b.send(100);
    assert_eq!((b.info().congestion_window, b.count("tcp-idle-restarts")), (18_000, 0));
    b.peer("A 11 ack 10001 win 60000");
    assert_eq!((b.info().congestion_window, b.count("tcp-idle-restarts")), (10_000, 1));
    b.expect("PA 10001:10101 ack 11");
}

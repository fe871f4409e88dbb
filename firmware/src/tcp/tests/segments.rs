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
    // What is sent again makes room for them.
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

//! TIME-WAIT (RFC 9293, 3.6.1 and 3.10.7.4): what it answers, and what ends it.

use toe_abi::flags;

use crate::testing::Bench;

/// A connection that the card opened and closed first, with these options in the peer's SYN-ACK.
fn time_wait(options: &str) -> Bench {
    let mut b = Bench::established_with(flags::NODELAY, options);
    b.shutdown();
    b.expect("FA 1:1");
    let timestamps = if options.contains("ts") { "<ts 5001 1>" } else { "" };
    b.peer(&format!("FA 1 ack 2 {timestamps}"));
    b.expect("A 2:2 ack 2");
    b.release();
    assert_eq!((b.in_use("time-wait"), b.in_use("connections")), (1, 0));
    b
}

#[test]
fn only_the_very_next_number_resets_it() {
    let mut b = time_wait("mss 1000");
    for text in ["R 1", "R 3", "RA 60000 ack 2", "R 100000"] {
        b.peer(text);
        b.nothing();
        assert_eq!(b.in_use("time-wait"), 1, "{text}");
    }
    b.peer("R 2");
    b.nothing();
    assert_eq!(b.in_use("time-wait"), 0);
}

#[test]
fn an_acknowledgement_that_says_nothing_new_is_not_answered() {
    let mut b = time_wait("mss 1000");
    b.peer("A 2 ack 2");
    b.nothing();
    b.peer("A 3 ack 2");
    b.expect("A 2:2 ack 2");
    b.peer("A 2:3 ack 2");
    b.expect("A 2:2 ack 2");
}

#[test]
fn the_fin_again_begins_the_time_anew_and_nothing_else_does() {
    let mut b = time_wait("mss 1000");
    b.wait_ms(50_000);
    b.peer("FA 1 ack 2");
    b.expect("A 2:2 ack 2");
    b.wait_ms(50_000);
    assert_eq!(b.in_use("time-wait"), 1);
    // A FIN elsewhere, text, a SYN that is not newer.
    for text in ["FA 2 ack 2", "FA 0 ack 2", "A 1:2 ack 2", "SA 5 ack 2"] {
        b.peer(text);
        b.expect("A 2:2 ack 2");
    }
    b.wait_ms(10_500);
    assert_eq!(b.in_use("time-wait"), 0);
}

#[test]
fn its_acknowledgement_is_the_connections_last_in_all_that_it_says() {
    let mut b = time_wait("mss 1000, ts 5000 1, ws 3");
    b.wait_ms(1_000);
    let before = b.now.as_us() / 1000;
    b.peer("FA 1 ack 2 <ts 5001 1>");
    let answer = b.next().unwrap();
    assert!(answer.starts_with("A 2:2 ack 2 win ") && answer.ends_with(" 5001>"), "{answer}");
    let number = |text: &str| text.rsplit_once(' ').unwrap().0.rsplit_once(' ').unwrap().1.parse::<u32>().unwrap();
    // Its clock goes on by milliseconds.
    b.wait_ms(250);
    b.peer("FA 1 ack 2 <ts 5001 1>");
    let later = b.next().unwrap();
    assert_eq!(number(&later).wrapping_sub(number(&answer)), 250);
    assert_ne!(u64::from(number(&answer)), before & 0xffff_ffff, "the offset of the connection is in it");
    // The window is scaled: 64 KiB and more, in units of 32 octets.
    let window: u32 = answer.split("win ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((1000..=65_535).contains(&window), "{answer}");
}

#[test]
fn a_syn_is_newer_beyond_the_last_number_and_not_at_it() {
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0 <mss 1000>");
    b.expect("SA 0");
    b.peer("A 1 ack 1");
    b.shutdown();
    b.expect("FA 1");
    b.peer("FA 1 ack 2");
    b.expect("A 2:2 ack 2");
    b.release();
    for text in ["S 2", "S 1", "SA 100 ack 2"] {
        b.peer(text);
        b.expect("A 2:2 ack 2");
        assert_eq!((b.in_use("time-wait"), b.in_use("half-open")), (1, 0), "{text}");
    }
    b.another();
    b.peer("S 3");
    b.expect("SA 0 ack 4");
    assert_eq!(b.in_use("half-open"), 1);
}

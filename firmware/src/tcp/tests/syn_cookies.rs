//! SYN cookies as a peer sees them (RFC 4987, 3.6).

use toe_abi::{Listen, Message, state};

use crate::profile::{Refusal, SynCookies};
use crate::store::slab::Slot;
use crate::tcp::syn_cookie::{EPOCH_US, LIFE};
use crate::testing::Bench;

/// A card with that many half-open entries.
fn card(half_open: u32, cookies: SynCookies) -> Bench {
    let mut b = Bench::with(|p| {
        p.limits.half_open = half_open;
        p.tcp.syn_cookies = cookies;
    });
    b.listen();
    b
}

/// The SYN-ACK of a cookie for a SYN with these options.
fn answer(b: &mut Bench, options: &str) -> String {
    b.peer(&format!("S 0 win 1000 <{options}>"));
    let answer = b.next().unwrap();
    assert!(answer.starts_with("SA 0:0 ack 1 win 65535"), "{answer}");
    answer
}

/// Our TSval in a SYN-ACK.
fn stamp(answer: &str) -> u32 {
    answer.split_once("ts ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_cookie_takes_no_memory_until_its_echo_comes() {
    let mut b = card(0, SynCookies::WhenFull);
    for _ in 0..100 {
        answer(&mut b, "mss 1000");
        b.another_port(false);
    }
    assert_eq!((b.in_use("half-open"), b.in_use("connections"), b.count("tcp-syn-cookies-sent")), (0, 0, 100));
    answer(&mut b, "mss 1460");
    b.peer("A 1 ack 1 win 500");
    assert_eq!(b.bits, state::ESTABLISHED | state::ACCEPTED);
    assert_eq!((b.in_use("connections"), b.count("tcp-syn-cookies-taken")), (1, 1));
    assert_eq!((b.info().send_mss, b.info().send_window), (1460, 500));
    // It is an ordinary connection.
    b.peer("PA 1:101 ack 1 win 500");
    b.received(100);
    b.send(10);
    assert!(b.next().is_some());
}

#[test]
fn with_timestamps_everything_that_was_offered_is_kept() {
    for (options, said) in [
        ("mss 1400, sackOK, ws 7", 0b0111),
        ("mss 1400, ws 0", 0b0101),
        ("mss 1400, ws 14", 0b0101),
        ("mss 1400, sackOK", 0b0011),
        ("mss 1400", 0b0001),
    ] {
        let mut b = card(0, SynCookies::WhenFull);
        b.wait_ms(12_345);
        let answer = answer(&mut b, &format!("{options}, ts 500 0"));
        assert_eq!(answer.contains("sackOK"), said & 2 != 0, "{answer}");
        assert_eq!(answer.contains("ws "), said & 4 != 0, "{answer}");
        let ours = stamp(&answer);
        b.wait_ms(30);
        b.peer(&format!("A 1 ack 1 win 3 <ts 530 {ours}>"));
        let info = b.info();
        assert_eq!(info.options, said, "{options}");
        let shift: u8 = options.split_once("ws ").map_or(0, |(_, s)| s.parse().unwrap());
        assert_eq!((info.window_scales & 15, info.send_window), (shift, 3 << shift), "{options}");
        assert_eq!(info.send_mss, 1380 - 12);
        // Its clock goes on: what it says next is not before what it said.
        b.send(1);
        let next = stamp(&b.next().unwrap());
        assert!((30..=30 + 127).contains(&next.wrapping_sub(ours)), "{next} {ours}");
    }
}

#[test]
fn with_ecn_the_mark_can_be_echoed() {
    let mut b = card(0, SynCookies::Always);
    b.peer("SEW 0 win 1000 <mss 1000, ts 1 0>");
    let answer = b.next().unwrap();
    assert!(answer.starts_with("SAE 0:0 ack 1"), "{answer}");
    b.peer(&format!("A 1 ack 1 win 500 <ts 2 {}>", stamp(&answer)));
    assert_eq!(b.info().options, 0b1001);
    // Without timestamps there is no place for it.
    let mut b = card(0, SynCookies::Always);
    b.peer("SEW 0 win 1000 <mss 1000, sackOK, ws 7>");
    let answer = b.next().unwrap();
    assert!(answer.starts_with("SA 0:0 ack 1") && !answer.contains("sackOK") && !answer.contains("ws "), "{answer}");
    b.peer("A 1 ack 1 win 500");
    assert_eq!((b.info().options, b.info().send_window), (0, 500));
}

#[test]
fn the_first_segment_may_bring_data_and_the_end() {
    let mut b = card(0, SynCookies::WhenFull);
    answer(&mut b, "mss 1000");
    b.peer("FPA 1:51 ack 1 win 500");
    b.received(50);
    assert_eq!(b.bits & (state::ESTABLISHED | state::PEER_CLOSED), state::ESTABLISHED | state::PEER_CLOSED);
}

#[test]
fn what_is_no_echo_goes_to_the_guest() {
    let mut b = card(0, SynCookies::WhenFull);
    answer(&mut b, "mss 1000");
    for wrong in ["A 1 ack 20", "A 2 ack 1", "A 1 ack 100000", "FA 1 ack 4294967290", "PA 2:10 ack 1"] {
        b.peer_passes(wrong);
    }
    assert_eq!((b.count("tcp-syn-cookies-wrong"), b.in_use("connections")), (5, 0));
    // Neither a reset nor a segment without ACK could be one.
    b.peer_passes("RA 1 ack 1");
    b.peer_passes("P 1:2");
    b.peer_passes("SA 0 ack 1");
    assert_eq!(b.count("tcp-syn-cookies-wrong"), 5);
    // A timestamp that we cannot have sent.
    let mut b = card(0, SynCookies::WhenFull);
    let ours = stamp(&answer(&mut b, "mss 1000, ts 1 0"));
    b.peer_passes(&format!("A 1 ack 1 <ts 2 {}>", ours.wrapping_add(1000)));
    b.peer_passes(&format!("A 1 ack 1 <ts 2 {}>", ours.wrapping_sub(1_000_000)));
    b.peer(&format!("A 1 ack 1 <ts 2 {ours}>"));
    assert_eq!(b.in_use("connections"), 1);
}

#[test]
fn an_echo_is_looked_at_only_while_there_may_be_one() {
    let mut b = card(1, SynCookies::WhenFull);
    b.peer_passes("A 1 ack 1");
    assert_eq!(b.count("tcp-syn-cookies-wrong"), 0, "no cookie was ever sent");
    answer(&mut b, "mss 1000");
    assert_eq!((b.in_use("half-open"), b.count("tcp-syn-cookies-sent")), (1, 0));
    b.another_port(false);
    answer(&mut b, "mss 1000");
    assert_eq!(b.count("tcp-syn-cookies-sent"), 1);
    b.wait_ms(LIFE.as_ms() + 1);
    while b.next().is_some() {}
    b.peer_passes("A 1 ack 1");
    assert_eq!(b.count("tcp-syn-cookies-wrong"), 0);
}

#[test]
fn an_old_echo_is_not_taken() {
    let mut b = card(0, SynCookies::WhenFull);
    answer(&mut b, "mss 1000");
    b.wait_ms(2 * EPOCH_US / 1000);
    // Another cookie keeps the listener looking.
    b.remote.port += 1;
    b.peer("S 0");
    b.next();
    b.remote.port -= 1;
    b.peer_passes("A 1 ack 1");
    assert_eq!((b.count("tcp-syn-cookies-wrong"), b.in_use("connections")), (1, 0));
}

#[test]
fn when_they_are_used_is_the_operators_choice() {
    // A full backlog share, too: the bench's backlog is 4.
    for (cookies, half_open, entries, sent) in [
        (SynCookies::Off, 16, 4, 0),
        (SynCookies::WhenFull, 16, 4, 6),
        (SynCookies::WhenFull, 2, 2, 8),
        (SynCookies::Always, 16, 0, 10),
    ] {
        let mut b = Bench::with(|p| {
            p.limits.half_open = half_open;
            p.tcp.syn_cookies = cookies;
            (p.policy.backlog, p.policy.half_open) = (Refusal::Deny, Refusal::Deny);
        });
        b.listen();
        for _ in 0..10 {
            b.peer("S 0 <mss 1000>");
            b.another_port(false);
        }
        assert_eq!((b.in_use("half-open"), b.count("tcp-syn-cookies-sent")), (entries, sent), "{cookies:?}");
        assert_eq!(b.count("wire-drop-refused"), 10 - entries - sent);
        assert_eq!(b.count("tcp-segments-out"), entries + sent);
        assert_eq!(b.count("tcp-resets-out"), 0);
    }
}

#[test]
fn a_full_table_or_backlog_gets_no_cookie_and_takes_none() {
    // The only connection there is comes to be between SYN-ACK and ACK.
    let mut b = Bench::with(|p| {
        (p.limits.half_open, p.limits.connections) = (0, 1);
        p.policy.connections = Refusal::Deny;
    });
    b.listen();
    answer(&mut b, "mss 1000");
    let late = b.frame("A 1 ack 1");
    b.another_port(false);
    answer(&mut b, "mss 1000");
    b.peer("A 1 ack 1");
    assert_eq!(b.in_use("connections"), 1);
    let _ = b.deliver(&late);
    b.nothing();
    assert_eq!((b.count("tcp-syn-cookies-refused"), b.count("wire-drop-refused")), (1, 1));
    b.another_port(false);
    b.peer("S 0 <mss 1000>");
    b.nothing();
    assert_eq!((b.count("tcp-syn-cookies-sent"), b.count("wire-drop-refused")), (2, 2));
    // A backlog that the program does not take from.
    let mut b = card(0, SynCookies::WhenFull);
    let mut late = Vec::new();
    for _ in 0..5 {
        answer(&mut b, "mss 1000");
        late.push(b.frame("A 1 ack 1"));
        b.another_port(false);
    }
    for frame in &late {
        let _ = b.deliver(frame);
    }
    assert_eq!((b.in_use("connections"), b.count("tcp-syn-cookies-refused")), (4, 1));
    // Room again: the peer's next segment opens.
    let message = Message::Taken(toe_abi::Taken { listener: listener(&b), taken: 1 });
    b.tell(&message);
    let _ = b.deliver(&late[4]);
    assert_eq!(b.in_use("connections"), 5);
}

/// The id of the bench's listener.
fn listener(b: &Bench) -> u64 {
    b.firmware.listener_id(0 as Slot)
}

#[test]
fn a_cookie_may_follow_a_time_wait() {
    let mut b = card(0, SynCookies::Always);
    answer(&mut b, "mss 1000");
    b.peer("A 1 ack 1");
    b.shutdown();
    b.expect("FA 1:1 ack 1");
    b.peer("FA 1 ack 2");
    b.expect("A 2:2 ack 2");
    assert_eq!((b.in_use("time-wait"), b.in_use("connections")), (1, 1));
    b.release();
    // In the same epoch the new number may lie before the old ones: then there is no answer, as if the SYN were lost.
    // In the next one there is, and the entry waits for the echo.
    b.another();
    b.wait_ms(50_000);
    let mut answered = false;
    for _ in 0..3 {
        b.peer("S 100 <mss 1000>");
        answered = b.next().is_some_and(|a| a.starts_with("SA 0:0 ack 101"));
        if answered {
            break;
        }
        b.wait_ms(9_000);
    }
    assert!(answered && b.in_use("time-wait") == 1);
    b.peer("PA 101:111 ack 1");
    assert_eq!((b.in_use("time-wait"), b.in_use("connections"), b.count("tcp-time-wait-reused")), (0, 1, 1));
    assert_eq!(b.accounted(), b.count("wire-in"));
}

#[test]
fn another_listener_is_not_concerned() {
    let mut b = card(0, SynCookies::WhenFull);
    answer(&mut b, "mss 1000");
    let mut other = b.local;
    other.port += 1;
    b.tell(&Message::Listen(Listen {
        cookie: 9,
        local: other,
        backlog: 4,
        flags: 0,
        receive_limit: 1 << 40,
        mtu: b.mtu,
        policy: 0,
    }));
    let of_first = b.local;
    b.local = other;
    b.peer_passes("A 1 ack 1");
    assert_eq!(b.count("tcp-syn-cookies-wrong"), 0);
    b.local = of_first;
    b.peer("A 1 ack 1");
    assert_eq!(b.in_use("connections"), 1);
}

#[test]
fn it_works_over_ipv6() {
    let mut b = Bench::over_ipv6();
    b.listen();
    for _ in 0..5 {
        b.another_port(false);
        answer(&mut b, "mss 1440, sackOK, ts 1 0, ws 2");
    }
    assert_eq!(b.count("tcp-syn-cookies-sent"), 1);
    b.peer("A 1 ack 1 win 10");
    assert_eq!(b.info().send_mss, 1440);
}

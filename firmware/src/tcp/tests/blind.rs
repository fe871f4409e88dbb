//! Attackers who do not see the connection (RFC 5961, 5927): they know both ends and guess the rest.
//!
//! Of all that such a segment can say, what must not happen is that it changes the connection: its state, what was sent,
//! received and acknowledged, either window, its timers. What may happen is a challenge, within the budget.
//!
//! *What chance says.* With windows of W octets and F octets in flight, a random segment is believed with a probability
//! of 2^-32 if it is a RST (the very next number), never if it is a SYN, (W / 2^32) * (W + F) / 2^32 if it carries data
//! (RFC 5961, 5.2: the ACK may be as old as the largest window), and (W / 2^32) * (F + 1) / 2^32 if it is an ACK that
//! says something new of the window. The test prints the sum.

use crate::engine::Checksum;
use crate::testing::{Bench, repair};

/// How many segments; `TOE_BLIND_SEGMENTS=1000000` is the long run.
const SEGMENTS: u64 = 70_000;

/// After so many the connection is made anew, with other initial numbers: its timers stand still meanwhile.
const SEGMENTS_PER_CONNECTION: u64 = 5_000;

struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const RST: u8 = 0x04;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A random segment on the right 4-tuple: the kinds of the issue in equal parts.
fn blind(random: &mut Random, frame: &mut Vec<u8>, kind: u64) {
    let (flags, text) = match kind {
        0 => ([RST, RST | ACK][(random.next() & 1) as usize], 0),
        1 => ([SYN, SYN | ACK][(random.next() & 1) as usize], 0),
        2 => {
            ([ACK, ACK | 0x08, ACK | 0x01, ACK | 0x20][(random.next() & 3) as usize], 1 + random.next() as usize % 1400)
        }
        _ => (ACK, 0),
    };
    let numbers = random.next().to_be_bytes();
    frame.resize(54 + text, 0xaa);
    frame[16..18].copy_from_slice(&(40 + text as u16).to_be_bytes());
    frame[38..46].copy_from_slice(&numbers);
    frame[46] = 0x50;
    frame[47] = flags;
    frame[48..50].copy_from_slice(&(random.next() as u16).to_be_bytes());
    frame[52..54].copy_from_slice(&(random.next() as u16).to_be_bytes());
    crate::testing::repair_header(frame);
    repair(frame);
}

/// The connections of every synchronized state, with data on its way where the state allows it.
fn connections(seed: u64) -> Vec<(&'static str, Bench)> {
    let seed: [u8; 32] = std::array::from_fn(|i| (seed >> (8 * (i % 8))) as u8);
    let established = || {
        let mut b = Bench::with_seed(seed, |_| ());
        b.connect(toe_abi::flags::NODELAY);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 65535 <mss 1000>");
        b.expect("A 1:1");
        b.peer("PA 1:101 ack 1");
        b.peer("A 2001:3001 ack 1");
        b.expect("A 1:1 ack 101");
        b.send(3000);
        while b.next().is_some() {}
        b
    };
    let drain = |b: &mut Bench| while b.next().is_some() {};
    let closed_by_us = || {
        let mut b = established();
        b.peer("A 101:2001 ack 3001");
        b.shutdown();
        drain(&mut b);
        b
    };
    let closed_by_peer = || {
        let mut b = established();
        b.peer("A 101:2001 ack 1");
        b.peer("FA 3001 ack 1");
        drain(&mut b);
        b
    };
    let mut all =
        vec![("ESTABLISHED", established()), ("FIN-WAIT-1", closed_by_us()), ("CLOSE-WAIT", closed_by_peer())];
    let mut fin_wait_2 = closed_by_us();
    fin_wait_2.peer("A 3001 ack 3002");
    all.push(("FIN-WAIT-2", fin_wait_2));
    let mut closing = closed_by_us();
    closing.peer("FA 3001 ack 3001");
    drain(&mut closing);
    all.push(("CLOSING", closing));
    let mut last_ack = closed_by_peer();
    last_ack.shutdown();
    drain(&mut last_ack);
    all.push(("LAST-ACK", last_ack));
    let mut time_wait = closed_by_us();
    time_wait.peer("FA 3001 ack 3002");
    drain(&mut time_wait);
    all.push(("TIME-WAIT", time_wait));
    all
}

//= docs/specs/rfc5961.txt#section-3.2
//= type=test
//# If the RST bit is set and the sequence number does not exactly match the next expected sequence value, yet is
//# within the current receive window (RCV.NXT < SEG.SEQ < RCV.NXT+RCV.WND), TCP MUST send an acknowledgment
//# (challenge ACK):
//= docs/specs/rfc5961.txt#section-4.2
//= type=test
//# If the SYN bit is set, irrespective of the sequence number, TCP MUST send an ACK (also referred to as challenge
//# ACK) to the remote peer:
//= docs/specs/rfc5961.txt#section-5.2
//= type=test
//# The ACK value is considered acceptable only if it is in the range of ((SND.UNA - MAX.SND.WND) <= SEG.ACK <=
//# SND.NXT).
#[test]
fn random_segments_change_no_connection_in_any_synchronized_state() {
    let segments = std::env::var("TOE_BLIND_SEGMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEGMENTS);
    let mut random = Random(5961);
    let (mut sent, mut changed, mut answers, mut expected) = (0, 0, 0, 0.0);
    for seed in 0.. {
        for (state, mut b) in connections(seed) {
            let bench = &b;
            let look = |b: &Bench| (b.firmware.snapshot(b.connection), b.in_use("connections"), b.in_use("time-wait"));
            let before = look(bench);
            let [window_max, window, flight] = b.firmware.targets(b.connection).unwrap();
            let mut frame = b.frame("A 1 ack 1");
            let count = SEGMENTS_PER_CONNECTION.min(segments - sent);
            for i in 0..count {
                blind(&mut random, &mut frame, i % 4);
                if i % 8 == 0 {
                    // With the answers that this brings about.
                    let _ = b.deliver(&frame);
                } else {
                    let _ = b.firmware.handle_wire(b.now, &frame, Checksum::Unverified);
                }
                if look(&b) != before {
                    changed += 1;
                    println!("{state}, seed {seed}: changed by flags {:#x}\n{before:?}\n{:?}", frame[47], look(&b));
                    break;
                }
            }
            b.credit(0);
            answers += std::iter::from_fn(|| b.next_frame()).count() as u64;
            assert!(look(&b) == before, "{state}: the answers changed it");
            sent += count;
            let two32 = f64::from(1u32 << 31) * 2.0;
            let data = (window as f64 + 1400.0) * (window_max + flight) as f64;
            let ack = (window as f64 + 1.0) * (flight as f64 + 1.0);
            expected += count as f64 / 4.0 * (1.0 / two32 + (data + ack) / two32 / two32);
        }
        if sent >= segments {
            break;
        }
    }
    println!("{sent} blind segments changed {changed} connections; {expected:.6} by chance; {answers} answers");
    assert_eq!((sent, changed), (segments, 0));
}

#[test]
fn silence_is_not_broken_by_what_is_not_believed() {
    // A keep-alive is due after the peer's silence; a stranger's guesses are not the peer.
    let mut b = Bench::established();
    b.set(toe_abi::option::KEEP_ALIVE_IDLE_MS, 10_000);
    for text in ["R 100", "S 1", "A 200000 ack 1", "A 1 ack 500", "P 1:11"] {
        b.wait_ms(1_000);
        b.peer(text);
        while b.next().is_some() {}
    }
    assert_eq!(b.wait_for_segment(), 5_000);
    b.expect("A 0:0 ack 1");
}

//= docs/specs/rfc9293.txt#section-3.10.7.4
//= type=test
//# The only thing that can arrive in this state is a retransmission of the remote FIN. Acknowledge it, and restart
//# the 2 MSL timeout.
#[test]
fn a_peers_last_fin_is_answered_however_much_was_guessed_before() {
    let mut b = Bench::established();
    b.shutdown();
    b.expect("FA 1:1");
    b.peer("FA 1 ack 2");
    b.expect("A 2:2 ack 2");
    for i in 0..100 {
        b.peer(&format!("A {}:{} ack 2", 1000 + i, 1100 + i));
    }
    assert_eq!(std::iter::from_fn(|| b.next()).count(), 16);
    b.peer("FA 1 ack 2");
    b.expect("A 2:2 ack 2");
}

#[test]
fn a_half_open_entry_has_a_budget_of_challenges_too() {
    let mut b = Bench::new();
    b.listen();
    b.peer("S 0");
    b.expect("SA 0 ack 1");
    for _ in 0..100 {
        b.peer("A 100000 ack 1");
    }
    assert_eq!(std::iter::from_fn(|| b.next()).count(), 10);
    assert_eq!((b.count("tcp-challenge-acks"), b.count("tcp-challenge-limited")), (10, 90));
    b.peer("A 1 ack 1");
    assert_ne!(b.bits & toe_abi::state::ESTABLISHED, 0);
}

/// Two ends of one connection whose numbers have nothing to do with each other.
fn desynchronised(texts: [&str; 2]) -> [Bench; 2] {
    let mut a = Bench::established();
    let mut b = Bench::with_seed([99; 32], |_| ());
    (b.local, b.remote) = (a.remote, a.local);
    b.connect(toe_abi::flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000>");
    b.expect("A 1:1");
    let mut both = [std::mem::replace(&mut a, Bench::new()), b];
    for (bench, text) in both.iter_mut().zip(texts) {
        if !text.is_empty() {
            bench.peer(text);
        }
    }
    both
}

/// Carries frames between both ends for so many milliseconds; how many there were.
fn exchange([a, b]: &mut [Bench; 2], ms: u64) -> u64 {
    let mut carried = 0;
    for _ in 0..ms {
        loop {
            let before = carried;
            while let Some(frame) = a.next_frame() {
                carried += 1;
                let _ = b.deliver(&frame);
            }
            while let Some(frame) = b.next_frame() {
                carried += 1;
                let _ = a.deliver(&frame);
            }
            if carried == before {
                break;
            }
            assert!(carried < 100_000, "a loop that does not end");
        }
        a.wait_ms(1);
        b.wait_ms(1);
    }
    carried
}

//= docs/specs/rfc5961.txt#section-7
//= type=test
//# An implementation SHOULD include an ACK throttling mechanism to be conservative.
#[test]
fn two_ends_that_have_lost_each_other_do_not_acknowledge_for_ever() {
    // A bare ACK that the other cannot accept: each answer would beget the next.
    let mut both = desynchronised(["", ""]);
    both[0].peer("A 200000 ack 1");
    let at_once = exchange(&mut both, 1);
    assert!((2..=20).contains(&at_once), "{at_once}");
    // With nobody to begin anew there is nothing more.
    assert_eq!(exchange(&mut both, 60_000), 0);
}

#[test]
fn data_between_two_ends_that_have_lost_each_other_costs_no_more_than_its_retransmissions() {
    let mut both = desynchronised(["", ""]);
    both[0].send(100);
    // One budget of each end in five seconds, and for every retransmission an answer.
    let first = exchange(&mut both, 5_000);
    assert!((2..=50).contains(&first), "{first}");
    let minute = exchange(&mut both, 60_000);
    assert!(minute <= 12 * 20 + 30, "{minute} segments in a minute");
    assert_eq!(both[1].received.len(), 0);
    // It ends as any connection does whose peer acknowledges nothing.
    exchange(&mut both, 0);
    both[0].set(toe_abi::option::USER_TIMEOUT_MS, 1);
    exchange(&mut both, 120_000);
    assert_ne!(both[0].bits & toe_abi::state::ABORTED, 0);
}

/// How many frames the card sends for `n` segments of that text.
fn answers(b: &mut Bench, n: u32, text: impl Fn(u32) -> String) -> u32 {
    let mut count = 0;
    for i in 0..n {
        b.peer(&text(i));
        while b.next_frame().is_some() {
            count += 1;
        }
    }
    count
}

#[test]
fn a_guess_outside_the_window_makes_no_traffic() {
    let far = 1 << 30;
    let mut b = Bench::established();
    assert_eq!(answers(&mut b, 100, |i| format!("S {}", far + 1000 * i)), 10, "SYNs");
    b.wait_ms(5000);
    assert_eq!(answers(&mut b, 100, |i| format!("PA {0}:{1} ack 1", far + 1000 * i, far + 1000 * i + 10)), 10, "text");
}

#[test]
fn text_that_the_peer_may_send_again_is_always_acknowledged() {
    let mut b = Bench::established();
    b.peer("PA 1:101 ack 1");
    while b.next_frame().is_some() {}
    assert_eq!(answers(&mut b, 100, |_| "PA 1:101 ack 1".into()), 100, "old");
    let edge = b.firmware.targets(b.connection).unwrap()[1] as u32 + 101;
    assert_eq!(answers(&mut b, 100, |_| format!("PA {edge}:{} ack 1", edge + 1)), 100, "beyond the edge");
}

//! What an attacker would like to predict: initial sequence numbers, timestamps and cookies, as they stand in SYN-ACKs.
//!
//! Uniform over 4-tuples (a chi-squared test of each of the four bytes, and of all 16 high bits, at p > 0.01, under fixed
//! seeds), and monotonic for each of them.

use toe_abi::Endpoint;
use toe_firmware::{Checksum, Firmware, Instant, SynCookies, Verdict};
use toe_impair::Random;

use crate::guest::Guest;
use crate::peer::{LOCAL, RST, SYN, Said, frame, read};
use crate::{is_long, standard_card};

struct Card {
    firmware: Firmware,
    _guest: Guest,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

impl Card {
    fn new(cookies: SynCookies, seed: u8) -> Self {
        let mut profile = standard_card();
        profile.tcp.syn_cookies = cookies;
        let mut firmware = Firmware::new(&profile, [seed; 32], 1, Instant::from_us(0)).unwrap();
        let local = Endpoint::new(LOCAL.0.into(), LOCAL.1);
        let guest = Guest::new(&mut firmware, Instant::from_us(0), local, 1024);
        Self { firmware, _guest: guest, buffer: Vec::new(), out: vec![0; 65_549] }
    }

    /// The SYN-ACK to a SYN of that peer; nothing of it is left.
    fn draw(&mut self, now_us: u64, remote: u32, port: u16, seq: u32) -> Said {
        let now = Instant::from_us(now_us);
        let syn = Said { remote, port, seq, flags: SYN, stamps: Some((1, 0)), ..Said::default() };
        frame(&syn, &mut self.buffer);
        assert_eq!(self.firmware.handle_wire(now, &self.buffer, Checksum::Trusted), Verdict::Taken);
        let length = self.firmware.poll_wire(now, &mut self.out).expect("a SYN-ACK");
        let answer = read(&self.out[..length]);
        // A cookie has no entry that a reset could end; then it is the guest's.
        let reset = Said { seq: seq.wrapping_add(1), flags: RST, stamps: None, ..syn };
        frame(&reset, &mut self.buffer);
        let _ = self.firmware.handle_wire(now, &self.buffer, Checksum::Trusted);
        answer
    }
}

/// How many standard deviations a chi-squared statistic lies above what it is expected to be (Wilson and Hilferty, 1931), for
/// equally likely bins.
fn deviation(bins: &[u64]) -> f64 {
    let expected = bins.iter().sum::<u64>() as f64 / bins.len() as f64;
    let statistic: f64 = bins.iter().map(|n| (*n as f64 - expected).powi(2) / expected).sum();
    let freedom = (bins.len() - 1) as f64;
    let variance = 2.0 / (9.0 * freedom);
    ((statistic / freedom).cbrt() - (1.0 - variance)) / variance.sqrt()
}

/// The deviation that a uniform series exceeds with a probability of 0.01.
const P_0_01: f64 = 2.326;

fn is_uniform(what: &str, series: &[u32]) {
    let mut tests: Vec<(String, Vec<u64>)> = Vec::new();
    for byte in 0..4 {
        let mut bins = vec![0; 256];
        series.iter().for_each(|n| bins[usize::from(n.to_be_bytes()[byte])] += 1);
        tests.push((format!("byte {byte}"), bins));
    }
    let bits = if series.len() >= 1_000_000 { 16 } else { 12 };
    let mut bins = vec![0; 1 << bits];
    series.iter().for_each(|n| bins[(n >> (32 - bits)) as usize] += 1);
    tests.push((format!("high {bits} bits"), bins));
    // What follows from a number says nothing about the next.
    let mut bins = vec![0; 256];
    series.windows(2).for_each(|w| bins[(w[1].wrapping_sub(w[0]) >> 24) as usize] += 1);
    tests.push(("high byte of differences".into(), bins));
    for (name, bins) in tests {
        let z = deviation(&bins);
        println!("{what}, {name}: {} draws, {z:+.2} standard deviations", series.len());
        assert!(z < P_0_01, "{what}, {name}: {z}");
    }
}

/// Numbers and stamps of SYN-ACKs to peers at random, all at one moment.
fn series(cookies: SynCookies, seed: u8) -> (Vec<u32>, Vec<u32>) {
    let draws = if is_long() { 1_000_000 } else { 100_000 };
    let mut card = Card::new(cookies, seed);
    let mut random = Random::new(seed.into());
    let one = |_| {
        let bits = random.bits();
        let said = card.draw(1_000_000, 0x0100_0000 + (bits as u32 % 0x6000_0000), (bits >> 32) as u16 | 1, 7);
        (said.seq, said.stamps.expect("timestamps").0)
    };
    (0..draws).map(one).unzip()
}

#[test]
fn numbers_and_timestamps_are_uniform_over_peers() {
    let (numbers, stamps) = series(SynCookies::Off, 1);
    is_uniform("ISN", &numbers);
    is_uniform("timestamp", &stamps);
}

#[test]
fn neighbours_have_nothing_in_common() {
    // The ports of one peer, one after the other: what an attacker can draw for himself.
    let mut card = Card::new(SynCookies::Off, 2);
    let draws = if is_long() { 1_000_000u32 } else { 100_000 };
    let one = |n: u32| card.draw(1_000_000, 0x0102_0000 + n / 60_000, 1024 + (n % 60_000) as u16, 7);
    let (numbers, stamps): (Vec<_>, Vec<_>) = (0..draws).map(one).map(|s| (s.seq, s.stamps.unwrap().0)).unzip();
    is_uniform("ISN of neighbours", &numbers);
    is_uniform("timestamp of neighbours", &stamps);
}

#[test]
fn cookies_are_uniform_over_peers_and_over_a_peers_numbers() {
    let (numbers, _) = series(SynCookies::Always, 3);
    is_uniform("cookie", &numbers);
    // Of one 4-tuple, the low 24 bits: shifted up to be looked at.
    let mut card = Card::new(SynCookies::Always, 4);
    let draws = if is_long() { 1_000_000u32 } else { 100_000 };
    let low: Vec<_> = (0..draws).map(|n| card.draw(1_000_000, 0x0102_0304, 77, n).seq).collect();
    let first = low[0] & 0xff00_0000;
    // Their high byte is the epoch's and the carry of the sum: one of two.
    assert!(low.iter().all(|n| (n & 0xff00_0000).wrapping_sub(first).wrapping_add(0x0100_0000) <= 0x0200_0000));
    let mut bins = vec![0; 4096];
    low.iter().for_each(|n| bins[(n >> 12 & 0xfff) as usize] += 1);
    let z = deviation(&bins);
    println!("cookies of one 4-tuple: {draws} draws, {z:+.2} standard deviations");
    assert!(z < P_0_01, "{z}");
}

#[test]
fn of_one_peer_they_go_up() {
    // For 36 hours of clock, which wraps every 4.8 hours: always by what has passed.
    let mut card = Card::new(SynCookies::Off, 5);
    let mut random = Random::new(5);
    let mut now_us = 1_000_000;
    let mut last = card.draw(now_us, 0x0102_0304, 77, 7);
    for _ in 0..20_000 {
        let passed_us = random.below(13_000_000);
        now_us += passed_us;
        let next = card.draw(now_us, 0x0102_0304, 77, 7);
        let (number, stamp) = (next.seq.wrapping_sub(last.seq), next.stamps.unwrap().0 - last.stamps.unwrap().0);
        assert!(u64::from(number).abs_diff(passed_us / 4) <= 1, "{number} in {passed_us} us");
        assert!(u64::from(stamp).abs_diff(passed_us / 1000) <= 1, "{stamp} in {passed_us} us");
        last = next;
    }
    // Cookies: from epoch to epoch (67.1 s) they go up; the stamp never lies ahead of the clock, and at most 127 ms behind.
    let mut card = Card::new(SynCookies::Always, 5);
    let mut plain = Card::new(SynCookies::Off, 5);
    let mut now_us = 1_000_000;
    let mut last = card.draw(now_us, 0x0102_0304, 77, 7).seq;
    for n in 0..2_000 {
        now_us += 67_108_864 + random.below(60_000_000);
        let next = card.draw(now_us, 0x0102_0304, 77, n);
        assert!(next.seq.wrapping_sub(last) as i32 > 0);
        last = next.seq;
        let clock = plain.draw(now_us, 0x0102_0304, 77, n).stamps.unwrap().0;
        assert!(clock.wrapping_sub(next.stamps.unwrap().0) <= 127);
    }
}

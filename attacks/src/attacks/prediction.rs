//! Numbers that an attacker would like to know before it sees them: initial sequence numbers and timestamps.
//!
//! It draws as many as it can, from connections of its own and at known times, and looks for anything that is not chance:
//! the frequency of each byte, and of the bytes of the difference between one number and the next (chi-square, 256 classes).
//! Of one 4-tuple the numbers must go up all the same, with the clock (RFC 6528, RFC 7323). Ports are not the card's to
//! choose: the guest's kernel does.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use toe_impair::Random;

use super::{REST_S, Ticker, any_end, service, standard};
use crate::frames::{Tcp, flag};
use crate::lab::{Attacker, Lab};
use crate::program::port;
use crate::puppets::own_end;
use crate::run::{Attack, Hostile, Run, Verdict};

pub const ATTACKS: &[Attack] = &[Attack {
    name: "prediction",
    sends: "SYNs from many ends, and from 64 again and again, for the numbers in the answers",
    rule: "sequence numbers and timestamps pass tests of uniformity (p above 0.01, over all tests), and go up for each 4-tuple",
    rest_s: REST_S,
    profile: standard,
    make: |plan, _| {
        Box::new(Prediction {
            ticker: Ticker::new(plan, plan.scale.pick(30_000, 100_000)),
            random: Random::new(plan.scale.seed ^ 0x9d),
            isns: Vec::new(),
            stamps: Vec::new(),
            last: BTreeMap::new(),
            pairs: 0,
            backwards: 0,
        })
    },
}];

/// Ends that ask again and again.
const REPEATED: u64 = 64;

struct Prediction {
    ticker: Ticker,
    random: Random,
    isns: Vec<u32>,
    stamps: Vec<u32>,
    /// Of each of the repeated ends: the last numbers, and when.
    last: BTreeMap<SocketAddr, (u32, u32, u64)>,
    pairs: u64,
    backwards: u64,
}

impl Attacker for Prediction {
    fn next_us(&self) -> u64 {
        self.ticker.next_us
    }

    fn act(&mut self, lab: &mut Lab) {
        for n in 0..self.ticker.due(lab.now_us) {
            let from = match n {
                0 => own_end(self.random.below(REPEATED) as u32),
                _ => any_end(&mut self.random),
            };
            let options = [8, 10, 0, 0, 0, 1, 0, 0, 0, 0];
            lab.send(&Tcp::new(from, service(port::ECHO), flag::SYN, 1, 0).options(&options));
        }
    }

    fn hear(&mut self, lab: &mut Lab, tcp: &Tcp<'_>) {
        if !tcp.has(flag::SYN) {
            return;
        }
        let stamp = tcp.timestamp().unwrap_or(0);
        if own_end(0).ip() == tcp.to.ip() {
            if let Some((isn, before, at_us)) = self.last.insert(tcp.to, (tcp.seq, stamp, lab.now_us)) {
                self.pairs += 1;
                // Half the space forward is forward; not at all within a step of the clock.
                let late = lab.now_us - at_us >= 1000;
                let isn_back = tcp.seq.wrapping_sub(isn) as i32 <= 0;
                let stamp_back = (stamp.wrapping_sub(before) as i32) < 0;
                self.backwards += u64::from(late && (isn_back || stamp_back));
            }
        } else {
            self.isns.push(tcp.seq);
            self.stamps.push(stamp);
        }
        // It is given back, for the next one.
        lab.send(&Tcp::new(tcp.to, tcp.from, flag::RST, 2, 0));
    }
}

impl Hostile for Prediction {
    fn judge(&self, _: &Lab, _: &Run, verdict: &mut Verdict) {
        let differences: Vec<u32> = self.isns.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
        let mut worst = 1.0;
        let mut tests = 0;
        for (values, bytes) in [(&self.isns, 4), (&differences, 4), (&self.stamps, 4)] {
            for byte in 0..bytes {
                tests += 1;
                worst = f64::min(worst, uniformity(values.iter().map(|v| v.to_be_bytes()[byte])));
            }
        }
        // Of so many tests one falls below p with a probability of about as many times p.
        let p = (worst * f64::from(tests)).min(1.0);
        let draws = self.isns.len();
        verdict.rule(draws > 1000 && p > 0.01, format!("{draws} draws, {tests} tests, p {p:.3}"));
        let (pairs, backwards) = (self.pairs, self.backwards);
        verdict.rule(pairs > 0 && backwards == 0, format!("{backwards} of {pairs} numbers of a 4-tuple went back"));
    }
}

/// The probability of a chi-square as large or larger, for 256 classes of equal frequency.
fn uniformity(bytes: impl Iterator<Item = u8>) -> f64 {
    let mut counts = [0u64; 256];
    bytes.for_each(|b| counts[usize::from(b)] += 1);
    let expected = counts.iter().sum::<u64>() as f64 / 256.0;
    let chi_square: f64 = counts.iter().map(|n| (*n as f64 - expected).powi(2) / expected).sum();
    // Wilson and Hilferty (1931): the cube root is nearly normal.
    let k = 255.0;
    let z = ((chi_square / k).cbrt() - (1.0 - 2.0 / (9.0 * k))) / (2.0 / (9.0 * k)).sqrt();
    upper_tail(z)
}

/// How probable a normal deviate beyond `z` is (Abramowitz and Stegun, 26.2.17; wrong by less than 10^-7).
fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let factors = [0.319_381_53, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let polynomial = factors.iter().rev().fold(0.0, |sum, f| (sum + f) * t);
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_knows_chance_from_order() {
        let mut random = Random::new(3);
        assert!(uniformity((0..100_000).map(|_| random.bits() as u8)) > 0.01);
        assert!(uniformity((0..100_000).map(|_| random.bits() as u8 & 0xfe)) < 1e-9);
        assert!((upper_tail(1.96) - 0.025).abs() < 1e-4);
        assert!((upper_tail(-1.0) - 0.8413).abs() < 1e-4);
    }
}

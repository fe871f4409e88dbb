//! Against SYN cookies: numbers that are guessed, and numbers that were good once.

use toe_impair::Random;

use super::{REST_S, Ticker, any_end, service, standard, strangers};
use crate::frames::{Tcp, flag};
use crate::lab::{Attacker, Lab};
use crate::program::port;
use crate::puppets::own_end;
use crate::run::{Attack, Hostile, Run, Verdict};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "cookie-forgery",
        sends: "SYNs that keep the card at cookies, and ACKs with random numbers from random addresses",
        rule: "no more are accepted than a strength of 28 bits predicts",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| {
            Box::new(Forgery {
                ticker: Ticker::new(plan, plan.scale.pick(200_000, 1_100_000)),
                random: Random::new(plan.scale.seed ^ 0xc0),
                forged: 0,
            })
        },
    },
    Attack {
        name: "cookie-replay",
        sends: "an ACK that completed a handshake, again: from other ports and addresses, and after a cookie's life",
        rule: "none of these is accepted",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| {
            Box::new(Replay {
                ticker: Ticker::new(plan, plan.scale.pick(50_000, 200_000)),
                random: Random::new(plan.scale.seed ^ 0xc1),
                asked: 0,
                good: Vec::new(),
                replayed: 0,
                late: 0,
                accepted_before: 0,
                accepted: 0,
            })
        },
    },
];

/// Of all numbers that an ACK can have, one in 2^28 is a good cookie.
const STRENGTH_BITS: u32 = 28;

struct Forgery {
    ticker: Ticker,
    random: Random,
    forged: u64,
}

impl Attacker for Forgery {
    fn next_us(&self) -> u64 {
        self.ticker.next_us
    }

    fn act(&mut self, lab: &mut Lab) {
        for n in 0..self.ticker.due(lab.now_us) {
            let from = any_end(&mut self.random);
            let (seq, ack) = (self.random.bits() as u32, self.random.bits() as u32);
            if n % 10 == 0 {
                lab.send(&Tcp::new(from, service(port::ECHO), flag::SYN, seq, 0));
            } else {
                self.forged += 1;
                lab.send(&Tcp::new(from, service(port::ECHO), flag::ACK, seq, ack));
            }
        }
    }
}

impl Hostile for Forgery {
    fn judge(&self, lab: &Lab, _: &Run, verdict: &mut Verdict) {
        let accepted = strangers(lab).count() as f64;
        let expected = self.forged as f64 / f64::from(1u32 << STRENGTH_BITS);
        // Poisson: three deviations more than expected, and no less than one.
        let most = (expected + 3.0 * expected.sqrt()).max(1.0);
        let forged = self.forged;
        verdict.rule(accepted <= most, format!("{accepted} of {forged} forged ACKs accepted, {expected:.3} expected"));
    }
}

struct Replay {
    ticker: Ticker,
    random: Random,
    asked: u32,
    /// The ACKs that completed handshakes: from, seq, ack.
    good: Vec<(std::net::SocketAddr, u32, u32)>,
    replayed: u64,
    late: u64,
    accepted_before: usize,
    accepted: usize,
}

impl Attacker for Replay {
    fn next_us(&self) -> u64 {
        self.ticker.next_us
    }

    fn act(&mut self, lab: &mut Lab) {
        for n in 0..self.ticker.due(lab.now_us) {
            let from = any_end(&mut self.random);
            if n % 5 > 0 || self.good.is_empty() {
                let seq = self.random.bits() as u32;
                lab.send(&Tcp::new(from, service(port::ECHO), flag::SYN, seq, 0));
                continue;
            }
            let (own, seq, ack) = self.good[self.random.below(self.good.len() as u64) as usize];
            let mut stranger = own;
            match self.random.below(3) {
                0 => stranger.set_port(own.port() ^ 1 << self.random.below(10) | 1 << 15),
                1 => stranger.set_ip(from.ip()),
                _ => stranger = from,
            }
            if stranger != own {
                self.replayed += 1;
                lab.send(&Tcp::new(stranger, service(port::ECHO), flag::ACK, seq, ack));
            }
        }
        if self.asked < 20 && lab.now_us > self.ticker.begin_us + 100_000 {
            // Honest enough to get a number; the flood has the half-open entries by now.
            lab.send(&Tcp::new(own_end(self.asked), service(port::ECHO), flag::SYN, 1000, 0));
            self.asked += 1;
        }
    }

    fn hear(&mut self, lab: &mut Lab, tcp: &Tcp<'_>) {
        let is_own = (0..self.asked).any(|n| own_end(n) == tcp.to);
        if is_own && tcp.has(flag::SYN) {
            let (seq, ack) = (tcp.ack, tcp.seq.wrapping_add(1));
            self.good.push((tcp.to, seq, ack));
            lab.send(&Tcp::new(tcp.to, tcp.from, flag::ACK, seq, ack));
            // And gone again, so that its 4-tuple is free for the replay.
            lab.send(&Tcp::new(tcp.to, tcp.from, flag::RST, seq, ack));
        }
    }
}

impl Hostile for Replay {
    fn leave(&mut self, lab: &mut Lab) {
        self.accepted_before = strangers(lab).count();
        // Longer than two epochs of a cookie; another SYN or two keep the card at reading cookies.
        let until_us = lab.now_us + 300_000_000;
        lab.run(until_us, None);
        for _ in 0..3000 {
            let from = any_end(&mut self.random);
            lab.send(&Tcp::new(from, service(port::ECHO), flag::SYN, 1, 0));
        }
        for (own, seq, ack) in &self.good {
            self.late += 1;
            lab.send(&Tcp::new(*own, service(port::ECHO), flag::ACK, *seq, *ack));
        }
        let until_us = lab.now_us + 1_000_000;
        lab.run(until_us, None);
        self.accepted = strangers(lab).count();
    }

    fn judge(&self, lab: &Lab, _: &Run, verdict: &mut Verdict) {
        let own = strangers(lab).filter(|c| (0..self.asked).any(|n| own_end(n) == c.ends.1)).count();
        let others = strangers(lab).count() - own;
        let (replayed, late, accepted) = (self.replayed, self.late, self.accepted - self.accepted_before);
        verdict.rule(others == 0, format!("{others} of {replayed} replays from elsewhere accepted"));
        verdict.rule(accepted == 0, format!("{accepted} of {late} replays after 300 s accepted"));
    }
}

//! 4-tuples that are chosen to meet in one place of the card's table.

use std::net::SocketAddr;

use toe_abi::Endpoint;
use toe_impair::Random;

use super::{REST_S, Ticker, anybody, service, standard};
use crate::frames::{Tcp, flag};
use crate::lab::{Attacker, Lab};
use crate::program::port;
use crate::run::{Attack, Hostile, Plan, Run, Verdict};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "collisions",
        sends: "SYNs from 4-tuples that collide under a key of the attacker's guess",
        rule: "the work per segment does not grow",
        rest_s: REST_S,
        profile: standard,
        make: |plan, lab| make(plan, lab, false),
    },
    Attack {
        name: "collisions-known-key",
        sends: "SYNs from 4-tuples that collide under the card's own key, which somebody has told the attacker",
        rule: "the work per segment is bounded all the same",
        rest_s: REST_S,
        profile: standard,
        make: |plan, lab| make(plan, lab, true),
    },
];

/// Bits of the hash that are equal: of any table up to 65,536 places it is one in 16 neighbouring ones.
const BITS: u64 = 0xfff0;

struct Collisions {
    ticker: Ticker,
    ends: Vec<SocketAddr>,
    at: usize,
}

fn make(plan: &Plan, lab: &mut Lab, known: bool) -> Box<dyn Hostile> {
    let mut random = Random::new(plan.scale.seed ^ 0xc0111);
    let guess = random.bits();
    let to = service(port::ECHO);
    let mut ends = Vec::new();
    let wanted = plan.scale.pick(600, 2000) as usize;
    while ends.len() < wanted {
        let from = SocketAddr::new(anybody(&mut random), random.between(1024, 65_535) as u16);
        let hash = if known {
            lab.card.firmware.tuple_hash(Endpoint::from(to), Endpoint::from(from))
        } else {
            mixed(guess, from)
        };
        if hash & BITS == 0 {
            ends.push(from);
        }
    }
    Box::new(Collisions { ticker: Ticker::new(plan, plan.scale.pick(20_000, 50_000)), ends, at: 0 })
}

/// What an attacker would compute who does not know which function it is, nor its key.
fn mixed(key: u64, from: SocketAddr) -> u64 {
    let ip = match from.ip() {
        std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()),
        std::net::IpAddr::V6(ip) => ip.to_bits() as u64,
    };
    Random::new(key ^ ip << 16 ^ u64::from(from.port())).bits()
}

impl Attacker for Collisions {
    fn next_us(&self) -> u64 {
        self.ticker.next_us
    }

    fn act(&mut self, lab: &mut Lab) {
        for _ in 0..self.ticker.due(lab.now_us) {
            let from = self.ends[self.at % self.ends.len()];
            // Twice around: the second time they are there, or were refused.
            let flags = if self.at / self.ends.len() % 4 == 3 { flag::ACK } else { flag::SYN };
            self.at += 1;
            lab.send(&Tcp::new(from, service(port::ECHO), flags, 7, 7));
        }
    }
}

impl Hostile for Collisions {
    fn judge(&self, lab: &Lab, benign: &Run, verdict: &mut Verdict) {
        let (mean, before) = (lab.steps.mean(), benign.steps.mean());
        verdict.rule(lab.steps.max() <= 64, format!("{mean:.1} steps on average, {before:.1} without"));
    }
}

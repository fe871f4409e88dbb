//! Attacks on the card as a sender: acknowledgements that lie, so that it sends more than it should, in smaller pieces
//! than it should, or works more for it than it should.
//!
//! The attacker downloads. It answers a round trip of its own late ([`ROUND_TRIP_US`]), and beside each connection that
//! lies there is one that does not: what lying brings is the ratio of the two.

use std::collections::BTreeMap;

use toe_impair::Random;

use super::{REST_S, Ticker, standard, strangers};
use crate::frames::{Tcp, flag};
use crate::lab::{Attacker, Lab};
use crate::program::port;
use crate::puppets::{Puppets, SYN_OPTIONS, own_end};
use crate::run::{Attack, Hostile, Plan, Run, Verdict};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "ack-division",
        sends: "twenty acknowledgements for each segment, each of a part of it",
        rule: "no more is sent in six round trips than to a peer that acknowledges whole segments",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::Division),
    },
    Attack {
        name: "duplicate-acks",
        sends: "twenty more acknowledgements of the same number for each segment",
        rule: "no more is sent in six round trips than without them",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::Duplicates),
    },
    Attack {
        name: "optimistic-acks",
        sends: "acknowledgements of ten segments more than have come",
        rule: "no more is sent in six round trips than without them",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::Optimistic),
    },
    Attack {
        name: "low-mss",
        sends: "SYNs with an MSS of one octet, and a download",
        rule: "segments have 64 octets of text or more, however small the MSS",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::LowMss),
    },
    Attack {
        name: "sack-storm",
        sends: "acknowledgements that never move, each with three blocks of one octet somewhere in flight",
        rule: "the work per segment is bounded",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::SackStorm),
    },
    Attack {
        name: "sack-reneging",
        sends: "blocks for all that is in flight, and then acknowledgements without them",
        rule: "what was reneged on is sent again",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::Reneging),
    },
];

/// Of the attacker's path.
const ROUND_TRIP_US: u64 = 20_000;
/// After the handshake, what is measured: this many round trips.
const ROUNDS: u64 = 6;
/// Connections that lie; as many do not.
const PAIRS: usize = 8;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Division,
    Duplicates,
    Optimistic,
    LowMss,
    SackStorm,
    Reneging,
}

struct Senders {
    kind: Kind,
    puppets: Puppets,
    random: Random,
    ticker: Ticker,
    /// Answers under way: when, whose, and the number that is acknowledged.
    late: BTreeMap<(u64, u64), (usize, u32)>,
    count: u64,
    measured_until_us: u64,
    /// Bytes in time: of each puppet.
    bytes: Vec<u64>,
    /// The number behind the furthest octet seen, and the first of all.
    furthest: Vec<u32>,
    first: Vec<u32>,
    first_again: u64,
}

fn make(plan: &Plan, kind: Kind) -> Box<dyn Hostile> {
    Box::new(Senders {
        kind,
        puppets: Puppets::default(),
        random: Random::new(plan.scale.seed ^ 0x5e),
        ticker: Ticker::new(plan, plan.scale.pick(20_000, 50_000)),
        late: BTreeMap::new(),
        count: 0,
        measured_until_us: plan.begin_us + ROUND_TRIP_US * ROUNDS + ROUND_TRIP_US / 2,
        bytes: vec![0; 2 * PAIRS],
        furthest: vec![0; 2 * PAIRS],
        first: vec![0; 2 * PAIRS],
        first_again: 0,
    })
}

impl Senders {
    fn lies(&self, at: usize) -> bool {
        at.is_multiple_of(2)
    }

    fn answer(&mut self, lab: &mut Lab, at: usize, ack: u32) {
        let mut tcp = self.puppets.all[at].segment(flag::ACK);
        tcp.ack = ack;
        if !self.lies(at) {
            lab.send(&tcp);
            return;
        }
        match self.kind {
            Kind::Division => {
                for part in (0..20u32).rev() {
                    tcp.ack = ack.wrapping_sub(part * 70);
                    lab.send(&tcp);
                }
            }
            Kind::Duplicates => (0..21).for_each(|_| lab.send(&tcp)),
            Kind::Optimistic => {
                lab.send(&tcp);
                tcp.ack = ack.wrapping_add(14_600);
                lab.send(&tcp);
            }
            Kind::LowMss => lab.send(&tcp),
            // These do not answer what comes, they speak on their own.
            Kind::SackStorm | Kind::Reneging => {}
        }
    }

    /// A turn of those that speak on their own.
    fn speak(&mut self, lab: &mut Lab, at: usize, late: bool) {
        let (first, furthest) = (self.first[at], self.furthest[at]);
        let flight = furthest.wrapping_sub(first);
        if flight < 10 {
            return;
        }
        let mut tcp = self.puppets.all[at].segment(flag::ACK);
        tcp.ack = first;
        let mut options = vec![];
        match self.kind {
            Kind::SackStorm => {
                options.extend([1, 1, 5, 26]);
                for _ in 0..3 {
                    let start = first.wrapping_add(1 + self.random.below(u64::from(flight - 2)) as u32);
                    options.extend(start.to_be_bytes());
                    options.extend(start.wrapping_add(1).to_be_bytes());
                }
            }
            Kind::Reneging if !late => {
                options.extend([1, 1, 5, 10]);
                options.extend(first.wrapping_add(1).to_be_bytes());
                options.extend(furthest.to_be_bytes());
            }
            _ => {}
        }
        lab.send(&tcp.options(&options));
    }
}

impl Attacker for Senders {
    fn next_us(&self) -> u64 {
        self.late.first_key_value().map_or(u64::MAX, |((at, _), _)| *at).min(self.ticker.next_us)
    }

    fn act(&mut self, lab: &mut Lab) {
        while self.puppets.all.len() < 2 * PAIRS {
            let at = self.puppets.all.len();
            let mut options = SYN_OPTIONS;
            if self.kind == Kind::LowMss {
                options[2..4].copy_from_slice(&[0, 1]);
            }
            self.puppets.open(lab, own_end(at as u32), port::SOURCE, &options);
        }
        while let Some(entry) = self.late.first_entry() {
            if entry.key().0 > lab.now_us {
                break;
            }
            let (at, ack) = entry.remove();
            self.answer(lab, at, ack);
        }
        if self.ticker.next_us <= lab.now_us {
            let due = self.ticker.due(lab.now_us);
            if matches!(self.kind, Kind::SackStorm | Kind::Reneging) {
                let late = lab.now_us > (self.ticker.begin_us + self.ticker.end_us) / 2;
                for _ in 0..due {
                    let at = 2 * self.random.below(PAIRS as u64) as usize;
                    self.speak(lab, at, late);
                }
            }
        }
    }

    fn hear(&mut self, lab: &mut Lab, tcp: &Tcp<'_>) {
        let Some(at) = self.puppets.hear(lab, tcp) else { return };
        if tcp.has(flag::SYN) {
            (self.first[at], self.furthest[at]) = (tcp.seq.wrapping_add(1), tcp.seq.wrapping_add(1));
        }
        if tcp.text.is_empty() {
            return;
        }
        if lab.now_us <= self.measured_until_us {
            self.bytes[at] += tcp.text.len() as u64;
        }
        let end = tcp.seq.wrapping_add(tcp.length());
        if (end.wrapping_sub(self.furthest[at]) as i32) > 0 {
            self.furthest[at] = end;
        } else if tcp.seq == self.first[at] {
            self.first_again += 1;
        }
        self.count += 1;
        self.late.insert((lab.now_us + ROUND_TRIP_US, self.count), (at, self.puppets.all[at].ack));
    }
}

impl Hostile for Senders {
    fn leave(&mut self, lab: &mut Lab) {
        self.puppets.reset_all(lab);
    }

    fn judge(&self, lab: &Lab, _: &Run, verdict: &mut Verdict) {
        let sum = |lies: bool| (0..self.bytes.len()).filter(|at| self.lies(*at) == lies).map(|at| self.bytes[at]).sum();
        let (lied, honest): (u64, u64) = (sum(true), sum(false));
        if strangers(lab).count() == 0 {
            return verdict.rule(true, "the attacker had no connection on a full card");
        }
        match self.kind {
            Kind::Division | Kind::Duplicates | Kind::Optimistic => {
                let fair = honest > 0 && lied * 10 <= honest * 11;
                verdict.rule(fair, format!("{lied} bytes in {ROUNDS} round trips, {honest} without the lie"));
            }
            Kind::LowMss => {
                let all = &self.puppets.all;
                let (bytes, segments) = all.iter().fold((0, 0), |(b, s), p| (b + p.text_bytes, s + p.segments));
                let per_segment = bytes / segments.max(1);
                // Handshakes and probes have less.
                verdict.rule(per_segment >= 60, format!("{per_segment} bytes of text per segment"));
            }
            Kind::SackStorm => verdict.rule(lab.steps.max() <= 64, format!("{} steps", lab.steps.max())),
            Kind::Reneging => {
                verdict
                    .rule(self.first_again > 0, format!("what was reneged on came again {} times", self.first_again));
            }
        }
    }
}

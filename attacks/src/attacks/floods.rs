//! Floods by senders that do not wait for an answer: SYNs, plain and with everything a SYN can say, and segments of
//! connections that there are not.

use toe_impair::Random;

use super::{REST_S, Ticker, any_end, service, standard};
use crate::frames::{Tcp, flag};
use crate::lab::{Attacker, Lab};
use crate::program::port;
use crate::run::{Attack, Hostile, Plan, Run, Table, Verdict};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "syn-flood",
        sends: "SYNs to a listener from random addresses, answered to nobody",
        rule: "no SYN is reset",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| flood(plan, Kind::Syn),
    },
    Attack {
        name: "syn-flood-options",
        sends: "the same with MSS, window scale, SACK, timestamps and ECN, of random values",
        rule: "no SYN is reset",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| flood(plan, Kind::SynWithOptions),
    },
    Attack {
        name: "ack-flood",
        sends: "ACKs to a listener's port, from connections that there are not",
        rule: "each goes to the guest's kernel, the card answers none",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| flood(plan, Kind::None(flag::ACK)),
    },
    Attack {
        name: "rst-flood",
        sends: "the same with RSTs",
        rule: "each goes to the guest's kernel, the card answers none",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| flood(plan, Kind::None(flag::RST)),
    },
    Attack {
        name: "fin-flood",
        sends: "the same with FINs",
        rule: "each goes to the guest's kernel, the card answers none",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| flood(plan, Kind::None(flag::FIN | flag::ACK)),
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Syn,
    SynWithOptions,
    None(u8),
}

struct Flood {
    kind: Kind,
    ticker: Ticker,
    random: Random,
    resets: u64,
    table: Table,
}

fn flood(plan: &Plan, kind: Kind) -> Box<dyn Hostile> {
    let ticker = Ticker::new(plan, plan.scale.pick(100_000, 1_000_000));
    Box::new(Flood { kind, ticker, random: Random::new(plan.scale.seed ^ 0xf1), resets: 0, table: plan.table })
}

/// Every option that a SYN can have, with random values: at most 40 bytes.
pub fn syn_options(random: &mut Random, options: &mut Vec<u8>) {
    options.clear();
    if !random.one_in(4) {
        let [a, b] = (random.bits() as u16).to_be_bytes();
        options.extend([2, 4, a, b]);
    }
    if !random.one_in(4) {
        options.extend([3, 3, random.bits() as u8]);
    }
    if !random.one_in(4) {
        options.extend([4, 2]);
    }
    if !random.one_in(4) {
        options.extend([8, 10]);
        options.extend(random.bits().to_be_bytes());
    }
    if random.one_in(4) {
        options.extend([34, 2]);
    }
}

impl Attacker for Flood {
    fn next_us(&self) -> u64 {
        self.ticker.next_us
    }

    fn act(&mut self, lab: &mut Lab) {
        let random = &mut self.random;
        let mut options = Vec::new();
        for _ in 0..self.ticker.due(lab.now_us) {
            let from = any_end(random);
            let (seq, ack) = (random.bits() as u32, random.bits() as u32);
            let tcp = match self.kind {
                Kind::Syn => Tcp::new(from, service(port::ECHO), flag::SYN, seq, 0),
                Kind::SynWithOptions => {
                    syn_options(random, &mut options);
                    let ecn = if random.one_in(2) { flag::ECE | flag::CWR } else { 0 };
                    Tcp::new(from, service(port::ECHO), flag::SYN | ecn, seq, 0).options(&options)
                }
                Kind::None(flags) => Tcp::new(from, service(port::ECHO), flags, seq, ack),
            };
            lab.send(&tcp);
        }
    }

    fn hear(&mut self, _: &mut Lab, tcp: &Tcp<'_>) {
        self.resets += u64::from(tcp.has(flag::RST));
    }
}

impl Hostile for Flood {
    fn judge(&self, lab: &Lab, _: &Run, verdict: &mut Verdict) {
        match self.kind {
            Kind::Syn | Kind::SynWithOptions => {
                verdict.rule(self.resets == 0, format!("{} SYNs were reset", self.resets));
                if self.table == Table::Room {
                    let by_kernel = lab.kernel.counter("tcp-passive-opens");
                    verdict.rule(by_kernel == 0, format!("{by_kernel} honest connections were left to the kernel"));
                }
            }
            Kind::None(_) => {
                let all = lab.passed_on == lab.sent && lab.answered.0 == 0;
                let (passed, sent, answers) = (lab.passed_on, lab.sent, lab.answered.0);
                verdict.rule(all, format!("{passed} of {sent} went to the kernel, the card answered {answers}"));
            }
        }
    }
}

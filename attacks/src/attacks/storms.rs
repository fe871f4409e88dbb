//! Answers as a weapon: two ends that answer each other without end, answers that tell what nobody should know, and
//! acknowledgements of what was never sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use toe_impair::Random;

use super::{REST_S, Ticker, established, standard, strangers};
use crate::frames::{Tcp, flag};
use crate::lab::{Attacker, Lab};
use crate::program::port;
use crate::puppets::{Puppets, SYN_OPTIONS, Stage, own_end};
use crate::run::{Attack, Hostile, Plan, Run, Verdict};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "challenge-side-channel",
        sends: "twenty resets in the window to each of two own connections, to the second while established ones are challenged",
        rule: "both get the same number of challenges: the budget of one connection says nothing of another",
        rest_s: REST_S,
        profile: standard,
        make: |plan, lab| make(plan, lab, Kind::SideChannel),
    },
    Attack {
        name: "ghost-acks",
        sends: "text whose acknowledgement lies before the SYN, or beyond what was sent, on young connections",
        rule: "none of the text is taken",
        rest_s: REST_S,
        profile: standard,
        make: |plan, lab| make(plan, lab, Kind::Ghosts),
    },
    Attack {
        name: "ack-storm",
        sends: "for each segment of the card a bare ACK that is out of its window, as a peer that has lost count would",
        rule: "at most ten answers in five seconds for each connection",
        rest_s: REST_S,
        profile: standard,
        make: |plan, lab| make(plan, lab, Kind::Storm),
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    SideChannel,
    Ghosts,
    Storm,
}

/// A round trip of the attacker's, in microseconds.
const ROUND_TRIP_US: u64 = 1_000;
/// What comes within this time of a reset is the answer to it, in microseconds; what comes later is something else that the card
/// has to say, of its window.
const ANSWER_US: u64 = 100;

struct Storms {
    kind: Kind,
    puppets: Puppets,
    random: Random,
    ticker: Ticker,
    victims: Vec<(SocketAddr, SocketAddr)>,
    wanted: usize,
    answers: Vec<u64>,
    late: BTreeMap<(u64, u64), usize>,
    count: u64,
    stage: u32,
    seconds: u64,
    /// When the last reset went out.
    reset_us: u64,
}

fn make(plan: &Plan, lab: &mut Lab, kind: Kind) -> Box<dyn Hostile> {
    let wanted = match kind {
        Kind::SideChannel => 2,
        Kind::Ghosts => 200,
        Kind::Storm => 16,
    };
    Box::new(Storms {
        kind,
        puppets: Puppets::default(),
        random: Random::new(plan.scale.seed ^ 0x57),
        ticker: Ticker::new(plan, plan.scale.pick(20_000, 50_000)),
        victims: established(lab),
        wanted,
        answers: vec![0; wanted],
        late: BTreeMap::new(),
        count: 0,
        stage: 0,
        reset_us: 0,
        seconds: plan.scale.attack_us() / 1_000_000,
    })
}

impl Storms {
    fn side_channel(&mut self, lab: &mut Lab) {
        let since_ms = (lab.now_us - self.ticker.begin_us) / 1000;
        // 20 resets to the first after 100 ms, one each millisecond; to the second after 200 ms.
        let own = match since_ms {
            100..120 => 0,
            200..220 => 1,
            _ => return,
        };
        if u64::from(self.stage) == since_ms {
            return;
        }
        self.stage = since_ms as u32;
        if own == 1 {
            for _ in 0..50 {
                let (from, to) = self.victims[self.random.below(self.victims.len() as u64) as usize];
                lab.send(&Tcp::new(from, to, flag::SYN, self.random.bits() as u32, 0));
            }
        }
        let mut reset = self.puppets.all[own].segment(flag::RST);
        reset.seq = reset.seq.wrapping_add(1000);
        self.reset_us = lab.now_us;
        lab.send(&reset);
    }
}

impl Attacker for Storms {
    fn next_us(&self) -> u64 {
        self.late.first_key_value().map_or(u64::MAX, |((at, _), _)| *at).min(self.ticker.next_us)
    }

    fn act(&mut self, lab: &mut Lab) {
        while self.puppets.all.len() < self.wanted {
            let at = self.puppets.all.len();
            self.puppets.open(lab, own_end(at as u32), port::SINK, &SYN_OPTIONS);
        }
        while let Some(entry) = self.late.first_entry() {
            if entry.key().0 > lab.now_us {
                break;
            }
            let at = entry.remove();
            let mut tcp = self.puppets.all[at].segment(flag::ACK);
            tcp.seq = tcp.seq.wrapping_sub(1_000_000);
            lab.send(&tcp);
        }
        if self.ticker.next_us > lab.now_us {
            return;
        }
        let due = self.ticker.due(lab.now_us);
        match self.kind {
            Kind::SideChannel => self.side_channel(lab),
            Kind::Ghosts => {
                for _ in 0..due {
                    let at = self.random.below(self.wanted as u64) as usize;
                    let puppet = &self.puppets.all[at];
                    if puppet.stage != Stage::Open {
                        continue;
                    }
                    let mut tcp = puppet.segment(flag::ACK | flag::PSH).text(b"ghost");
                    let far = 1 + self.random.below(60_000) as u32;
                    // `ack` is behind the card's SYN: the SYN itself and all before it was never data.
                    tcp.ack = if self.random.one_in(2) { tcp.ack.wrapping_sub(far) } else { tcp.ack.wrapping_add(far) };
                    lab.send(&tcp);
                }
            }
            Kind::Storm => {
                if self.stage == 0 && lab.now_us > self.ticker.begin_us + 50_000 {
                    self.stage = 1;
                    // One stray segment each begins it.
                    self.late.extend((0..self.wanted).map(|at| ((lab.now_us, at as u64), at)));
                }
            }
        }
    }

    fn hear(&mut self, lab: &mut Lab, tcp: &Tcp<'_>) {
        let Some(at) = self.puppets.hear(lab, tcp) else { return };
        if tcp.has(flag::SYN) || (self.kind == Kind::SideChannel && lab.now_us > self.reset_us + ANSWER_US) {
            return;
        }
        self.answers[at] += 1;
        if self.kind == Kind::Storm {
            self.count += 1;
            self.late.insert((lab.now_us + ROUND_TRIP_US, 1000 + self.count), at);
        }
    }
}

impl Hostile for Storms {
    fn leave(&mut self, lab: &mut Lab) {
        self.puppets.reset_all(lab);
    }

    fn judge(&self, lab: &Lab, _: &Run, verdict: &mut Verdict) {
        match self.kind {
            Kind::SideChannel => {
                let [a, b] = [self.answers[0], self.answers[1]];
                verdict.rule(a == b && a > 0, format!("{a} challenges alone, {b} while others were challenged"));
            }
            Kind::Ghosts => {
                let taken: u64 = strangers(lab).map(|c| c.received).sum();
                let open = strangers(lab).count();
                verdict.rule(taken == 0, format!("{taken} bytes taken on {open} connections"));
            }
            Kind::Storm => {
                let most = self.answers.iter().max().copied().unwrap_or(0);
                let allowed = 10 * (1 + self.seconds.div_ceil(5)) + 2;
                verdict.rule(most <= allowed, format!("{most} answers on one connection, at most {allowed}"));
                verdict.rule(most > 0, "the storm began");
            }
        }
    }
}

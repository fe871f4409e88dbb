//! Attacks on the card's memory by connections of the attacker's own: what is received and cannot be handed on, what is to
//! be sent and cannot go, and connections that only stand there.

use toe_impair::Random;

use super::floods;
use super::{REST_S, Ticker, any_end, service, standard, strangers};
use crate::frames::{Tcp, flag};
use crate::lab::{Attacker, Lab};
use crate::program::port;
use crate::puppets::{Puppets, SYN_OPTIONS, Stage, own_end};
use crate::run::{Attack, Hostile, Plan, Run, Table, Verdict};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "segment-smack",
        sends: "segments of one byte out of order, each apart from all others, on 64 connections of the attacker's",
        rule: "no more ranges than the profile allows are kept",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::Smack),
    },
    Attack {
        name: "sockstress",
        sends: "a closed window after the handshake, on as many connections as there are, to a service that sends",
        rule: "the established keep moving",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::ZeroWindow),
    },
    Attack {
        name: "slow-readers",
        sends: "the same with a window that opens by one segment a second",
        rule: "the established keep moving",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::SlowReader),
    },
    Attack {
        name: "idle-hoarding",
        sends: "handshakes and nothing else, until no connection is left on the card",
        rule: "the established keep moving",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::Idle),
    },
    Attack {
        name: "window-bait",
        sends: "all of the window that the card offers but its first byte, on as many connections as there are",
        rule: "the established keep moving",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::WindowBait),
    },
    Attack {
        name: "pool-deadlock",
        sends: "closed windows, baits, half-open entries and records of segments, all pools at zero at once",
        rule: "every established connection moves at least what its own pages allow",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::Deadlock),
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Smack,
    ZeroWindow,
    SlowReader,
    Idle,
    WindowBait,
    Deadlock,
}

struct Memory {
    kind: Kind,
    puppets: Puppets,
    ticker: Ticker,
    random: Random,
    wanted: usize,
    at: usize,
    /// The scaled window that the card offered to each.
    offered: Vec<u32>,
    table: Table,
}

fn make(plan: &Plan, kind: Kind) -> Box<dyn Hostile> {
    let wanted = if kind == Kind::Smack { 64 } else { 1200 };
    Box::new(Memory {
        kind,
        puppets: Puppets::default(),
        ticker: Ticker::new(plan, plan.scale.pick(20_000, 100_000)),
        random: Random::new(plan.scale.seed ^ 0x3e),
        wanted,
        at: 0,
        offered: Vec::new(),
        table: plan.table,
    })
}

impl Memory {
    /// The service of the next connection.
    fn port(&self, at: usize) -> u16 {
        match self.kind {
            Kind::Smack | Kind::WindowBait => port::SINK,
            Kind::ZeroWindow | Kind::SlowReader => port::SOURCE,
            Kind::Idle => port::IDLE,
            Kind::Deadlock => [port::SINK, port::SOURCE][at % 2],
        }
    }

    /// What a connection does when it has its turn.
    fn annoy(&mut self, lab: &mut Lab, at: usize) {
        let p = &self.puppets.all[at];
        if p.stage != Stage::Open {
            return;
        }
        let offered = self.offered.get(at).copied().unwrap_or(65_535).max(4);
        match self.kind {
            Kind::Smack => {
                let mut tcp = p.segment(flag::ACK).text(b"x");
                // Every other byte, so that no two ranges touch.
                tcp.seq = p.seq.wrapping_add(2 + 2 * self.random.below(u64::from(offered.min(60_000) / 2 - 2)) as u32);
                lab.send(&tcp);
            }
            Kind::Deadlock if p.service.port() == port::SINK => self.bait(lab, at, offered),
            Kind::WindowBait => self.bait(lab, at, offered),
            Kind::ZeroWindow | Kind::Deadlock => {
                self.puppets.all[at].window = 0;
                self.puppets.acknowledge(lab, at);
            }
            Kind::SlowReader => {
                // 128 bytes times the scale of 7, once a second or so: the window moves on with what was read.
                self.puppets.all[at].window = 12;
                self.puppets.acknowledge(lab, at);
            }
            Kind::Idle => {}
        }
    }

    fn bait(&mut self, lab: &mut Lab, at: usize, offered: u32) {
        let p = &self.puppets.all[at];
        let text = [0x55; 1400];
        let mut from = 1;
        while from < offered {
            let n = 1400.min(offered - from);
            let mut tcp = p.segment(flag::ACK).text(&text[..n as usize]);
            tcp.seq = p.seq.wrapping_add(from);
            lab.send(&tcp);
            from += n;
        }
    }
}

impl Attacker for Memory {
    fn next_us(&self) -> u64 {
        self.ticker.next_us
    }

    fn act(&mut self, lab: &mut Lab) {
        let mut due = self.ticker.due(lab.now_us);
        while due > 0 && self.puppets.all.len() < self.wanted {
            let at = self.puppets.all.len();
            let port = self.port(at);
            self.puppets.open(lab, own_end(at as u32), port, &SYN_OPTIONS);
            due = due.saturating_sub(4);
        }
        if self.kind == Kind::Deadlock {
            // A tenth of it keeps the half-open entries in use.
            for _ in 0..due / 10 {
                let mut options = Vec::new();
                floods::syn_options(&mut self.random, &mut options);
                let from = any_end(&mut self.random);
                let seq = self.random.bits() as u32;
                lab.send(&Tcp::new(from, service(port::ECHO), flag::SYN, seq, 0).options(&options));
            }
        }
        let turns = match self.kind {
            Kind::Smack => due,
            // A bait is a burst.
            Kind::WindowBait | Kind::Deadlock => due.min(1),
            _ => due.min(2),
        };
        for _ in 0..turns {
            if self.puppets.all.is_empty() {
                return;
            }
            self.at = (self.at + 1) % self.puppets.all.len();
            self.annoy(lab, self.at);
        }
    }

    fn hear(&mut self, lab: &mut Lab, tcp: &Tcp<'_>) {
        let Some(at) = self.puppets.hear(lab, tcp) else { return };
        if self.offered.len() <= at {
            self.offered.resize(at + 1, 0);
        }
        // The window of a SYN is not scaled; that of the others is, by the card's shift for 256 pages of 1,024 bytes.
        let shift = if tcp.has(flag::SYN) { 0 } else { 2 };
        self.offered[at] = u32::from(tcp.window) << shift;
        if tcp.has(flag::SYN) && matches!(self.kind, Kind::ZeroWindow | Kind::Deadlock) {
            self.puppets.all[at].window = 0;
            self.puppets.acknowledge(lab, at);
        } else if tcp.has(flag::SYN) && self.kind == Kind::SlowReader {
            self.puppets.all[at].window = 12;
            self.puppets.acknowledge(lab, at);
        } else if !tcp.text.is_empty() && self.kind == Kind::ZeroWindow {
            // A probe: heard, and no room.
            self.puppets.acknowledge(lab, at);
        }
    }
}

impl Hostile for Memory {
    fn leave(&mut self, lab: &mut Lab) {
        self.puppets.reset_all(lab);
    }

    fn memory_only(&self) -> bool {
        self.kind == Kind::Deadlock
    }

    fn judge(&self, lab: &Lab, _: &Run, verdict: &mut Verdict) {
        let on_card = strangers(lab).count();
        match self.table {
            Table::Room => {
                verdict.rule(on_card > 0, format!("{on_card} connections of the attacker's were on the card"))
            }
            Table::Full => {
                verdict.rule(on_card == 0, format!("{on_card} connections of the attacker's on a full card"))
            }
        }
    }
}

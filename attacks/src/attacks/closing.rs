//! Connections that never end, ends that pile up, and timers that are all due at once.

use std::net::SocketAddr;

use super::{REST_S, Ticker, standard, strangers};
use crate::frames::{Tcp, flag};
use crate::lab::{Attacker, GUEST, Lab};
use crate::program::{REQUEST_BYTES, Role, port};
use crate::puppets::{Puppets, SYN_OPTIONS, own_end};
use crate::run::{Attack, Hostile, Plan, Run, TIMER_STEPS_MAX, Table, Verdict};

/// Longer than data goes unacknowledged (R2 of the standard card).
const R2_REST_S: u64 = 1_100;

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "stuck-last-ack",
        sends: "handshakes and FINs; the card's own FIN is never acknowledged",
        rule: "all of them are given up",
        rest_s: R2_REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::LastAck),
    },
    Attack {
        name: "stuck-fin-wait-2",
        sends: "requests; the card closes first, its FIN is acknowledged, and nothing comes after that",
        rule: "all of them are given up",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::FinWait2),
    },
    Attack {
        name: "stuck-closing",
        sends: "the same, with a FIN that crosses the card's, which is never acknowledged",
        rule: "all of them are given up",
        rest_s: R2_REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::Closing),
    },
    Attack {
        name: "time-wait-exhaustion",
        sends: "short connections that the card closes first, many more than there are TIME-WAIT entries",
        rule: "the oldest entries give way",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::TimeWait),
    },
    Attack {
        name: "port-exhaustion",
        sends: "nothing unasked: a server of the attacker's that the guest connects to, again and again, from few ports",
        rule: "the guest's other connections find a port and a place",
        rest_s: REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::Ports),
    },
    Attack {
        name: "timers-in-one-slot",
        sends: "one request on each of 900 connections within a millisecond, whose answers are never acknowledged",
        rule: "a call of the timers takes 64 steps and those of one timer at most, however many are due",
        rest_s: R2_REST_S,
        profile: standard,
        make: |plan, _| make(plan, Kind::OneSlot),
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    LastAck,
    FinWait2,
    Closing,
    TimeWait,
    Ports,
    OneSlot,
}

struct Ends {
    kind: Kind,
    puppets: Puppets,
    ticker: Ticker,
    asked: bool,
    opened: u64,
    table: Table,
    timers: Option<u64>,
}

fn make(plan: &Plan, kind: Kind) -> Box<dyn Hostile> {
    let per_s = match kind {
        Kind::TimeWait | Kind::Ports => plan.scale.pick(2_000, 2_000),
        _ => 1_000,
    };
    Box::new(Ends {
        kind,
        puppets: Puppets::default(),
        ticker: Ticker::new(plan, per_s),
        asked: false,
        opened: 0,
        table: plan.table,
        timers: None,
    })
}

/// Connections of one port of the guest to the attacker's server.
const FEW_PORTS: u64 = 500;

impl Attacker for Ends {
    fn next_us(&self) -> u64 {
        self.ticker.next_us
    }

    fn act(&mut self, lab: &mut Lab) {
        let due = self.ticker.due(lab.now_us);
        for _ in 0..due {
            self.opened += 1;
            match self.kind {
                Kind::Ports => {
                    let local = SocketAddr::new(GUEST, 2_000 + (self.opened % FEW_PORTS) as u16);
                    lab.card.program.connect(lab.now_us, local, own_end(0), Role::Client);
                }
                Kind::OneSlot if self.puppets.all.len() >= 900 => {}
                _ => {
                    let at = self.puppets.all.len();
                    let port =
                        if matches!(self.kind, Kind::LastAck | Kind::OneSlot) { port::ECHO } else { port::BRIEF };
                    self.puppets.open(lab, own_end(at as u32), port, &SYN_OPTIONS);
                }
            }
        }
        if self.kind == Kind::OneSlot && !self.asked && self.puppets.open_count() >= 900 {
            self.asked = true;
            (0..900).for_each(|at| self.puppets.say(lab, at, &[1; REQUEST_BYTES as usize]));
        }
    }

    fn hear(&mut self, lab: &mut Lab, tcp: &Tcp<'_>) {
        if self.kind == Kind::Ports {
            return serve(lab, tcp);
        }
        let Some(at) = self.puppets.hear(lab, tcp) else { return };
        if tcp.has(flag::RST) {
            return;
        }
        match self.kind {
            Kind::LastAck if tcp.has(flag::SYN) => {
                let fin = self.puppets.all[at].segment(flag::FIN | flag::ACK);
                lab.send(&fin);
            }
            Kind::FinWait2 | Kind::Closing | Kind::TimeWait if tcp.has(flag::SYN) => {
                self.puppets.say(lab, at, &[1; REQUEST_BYTES as usize]);
            }
            Kind::FinWait2 if tcp.has(flag::FIN) => self.puppets.acknowledge(lab, at),
            Kind::Closing if tcp.has(flag::FIN) => {
                let mut fin = self.puppets.all[at].segment(flag::FIN | flag::ACK);
                fin.ack = fin.ack.wrapping_sub(1);
                lab.send(&fin);
            }
            Kind::TimeWait if tcp.has(flag::FIN) => {
                let fin = self.puppets.all[at].segment(flag::FIN | flag::ACK);
                lab.send(&fin);
            }
            _ => {}
        }
    }
}

/// The attacker's server, without memory: whatever comes, it says what follows.
fn serve(lab: &mut Lab, tcp: &Tcp<'_>) {
    let ack = tcp.seq.wrapping_add(tcp.length());
    let (me, peer) = (tcp.to, tcp.from);
    if tcp.has(flag::RST) {
    } else if tcp.has(flag::SYN) {
        lab.send(&Tcp::new(me, peer, flag::SYN | flag::ACK, 5000, ack));
    } else if tcp.has(flag::FIN) {
        lab.send(&Tcp::new(me, peer, flag::FIN | flag::ACK, tcp.ack, ack));
    } else if !tcp.text.is_empty() {
        lab.send(&Tcp::new(me, peer, flag::ACK, tcp.ack, ack).text(&[7; REQUEST_BYTES as usize]));
    }
}

impl Hostile for Ends {
    fn leave(&mut self, lab: &mut Lab) {
        self.timers = Some(lab.timer_steps.max());
    }

    fn judge(&self, lab: &Lab, _: &Run, verdict: &mut Verdict) {
        let pools = lab.card.pools();
        let time_wait = pools["time-wait"];
        match self.kind {
            Kind::LastAck | Kind::FinWait2 | Kind::Closing => {
                let on_card = strangers(lab).count();
                let is_there = (on_card > 0) == (self.table == Table::Room);
                verdict.rule(is_there, format!("{on_card} connections of the attacker's were on the card"));
            }
            Kind::TimeWait => {
                let evicted = lab.card.counter("tcp-time-wait-evicted");
                let (most, capacity) = (time_wait.high_water, time_wait.capacity);
                let is_met = most == capacity && evicted > 0 || self.table == Table::Full;
                verdict.rule(is_met, format!("{most} of {capacity} TIME-WAIT entries in use, {evicted} gave way"));
            }
            Kind::Ports => {
                let conns = lab.card.program.conns.iter().filter(|c| c.ends.1 == own_end(0));
                let (all, answered) = conns.fold((0, 0), |(n, a), c| (n + 1, a + u64::from(c.answered_us.is_some())));
                verdict.rule(
                    answered > 0 || self.table == Table::Full,
                    format!("{answered} of {all} to the attacker were answered"),
                );
            }
            Kind::OneSlot => {
                let (most, opened) = (self.timers.unwrap_or(0), strangers(lab).count() as u64);
                verdict.rule(most <= TIMER_STEPS_MAX, format!("{most} steps in one call for {opened} timers"));
            }
        }
    }
}

//! The attacks, each with what it sends and the rules of its own.

mod blind;
mod closing;
mod collisions;
mod cookies;
mod floods;
mod guest;
mod malformed;
mod memory;
mod prediction;
mod senders;
mod storms;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toe_firmware::Profile;
use toe_impair::Random;

pub use floods::syn_options;

use crate::lab::{BULK, CLIENTS, GUEST, Lab};
use crate::program::Conn;
use crate::run::{Attack, Plan};

/// All of them, in the order of the documentation.
pub fn all() -> Vec<Attack> {
    [
        floods::ATTACKS,
        cookies::ATTACKS,
        collisions::ATTACKS,
        memory::ATTACKS,
        senders::ATTACKS,
        malformed::ATTACKS,
        blind::ATTACKS,
        storms::ATTACKS,
        prediction::ATTACKS,
        closing::ATTACKS,
        guest::ATTACKS,
    ]
    .concat()
}

/// The card as it is.
fn standard(_: &mut Profile) {}

/// The rest of most: longer than half-open entries, TIME-WAIT and FIN-WAIT-2 live.
const REST_S: u64 = 130;

/// How often an attacker acts.
const TICK_US: u64 = 100;

/// So many a second, from the attack's begin to its end.
#[derive(Clone, Debug)]
struct Ticker {
    next_us: u64,
    begin_us: u64,
    end_us: u64,
    per_s: u64,
    sent: u64,
}

impl Ticker {
    fn new(plan: &Plan, per_s: u64) -> Self {
        Self { next_us: plan.begin_us, begin_us: plan.begin_us, end_us: plan.end_us, per_s, sent: 0 }
    }

    /// How many are due now; moves on.
    fn due(&mut self, now_us: u64) -> u64 {
        self.next_us = if now_us + TICK_US > self.end_us { u64::MAX } else { now_us + TICK_US };
        let all = (now_us + TICK_US - self.begin_us) * self.per_s / 1_000_000;
        let due = all.saturating_sub(self.sent);
        self.sent += due;
        due
    }
}

/// A unicast address of nobody in the laboratory.
fn anybody(random: &mut Random) -> IpAddr {
    loop {
        let [a, b, c, d] = (random.bits() as u32).to_be_bytes();
        let ours = [a, b, c] == [192, 0, 2] || [a, b, c] == [198, 51, 100];
        if (1..224).contains(&a) && a != 127 && !ours {
            return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        }
    }
}

/// An end of nobody in the laboratory.
fn any_end(random: &mut Random) -> SocketAddr {
    let ip = anybody(random);
    SocketAddr::new(ip, random.between(1024, 65_535) as u16)
}

fn service(port: u16) -> SocketAddr {
    SocketAddr::new(GUEST, port)
}

/// Connections of the guest's program that are the attacker's.
fn strangers(lab: &Lab) -> impl Iterator<Item = &Conn> {
    lab.card.program.conns.iter().filter(|c| ![BULK, CLIENTS].contains(&c.ends.1.ip()))
}

/// The ends of the established connections as their client sees them: local, remote.
fn established(lab: &Lab) -> Vec<(SocketAddr, SocketAddr)> {
    lab.world.program.conns.iter().map(|c| c.ends).filter(|(local, _)| local.ip() == BULK).collect()
}

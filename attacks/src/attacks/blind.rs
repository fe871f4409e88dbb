//! Blind attacks on the established connections: the attacker knows both their ends, and guesses the numbers.

use std::net::SocketAddr;

use toe_impair::Random;

use super::{REST_S, Ticker, established, standard};
use crate::frames::{Tcp, checksum, flag, ipv4};
use crate::lab::{Attacker, Lab};
use crate::run::{Attack, Hostile, Plan, Run, Verdict};

pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "blind-rst",
        sends: "RSTs with random numbers, in the name of the established connections' peers",
        rule: "none of them is reset",
        rest_s: REST_S,
        profile: standard,
        make: |plan, lab| make(plan, lab, Kind::Reset),
    },
    Attack {
        name: "blind-syn",
        sends: "the same with SYNs",
        rule: "at most ten challenges in five seconds for each connection",
        rest_s: REST_S,
        profile: standard,
        make: |plan, lab| make(plan, lab, Kind::Syn),
    },
    Attack {
        name: "blind-data",
        sends: "the same with text and random acknowledgements",
        rule: "not a byte of it reaches the program",
        rest_s: REST_S,
        profile: standard,
        make: |plan, lab| make(plan, lab, Kind::Data),
    },
    Attack {
        name: "forged-icmp",
        sends: "ICMP errors of every kind that quote the established connections with random numbers",
        rule: "none is believed: no MTU lowered, nothing aborted",
        rest_s: REST_S,
        profile: standard,
        make: |plan, lab| make(plan, lab, Kind::Icmp),
    },
    Attack {
        name: "fragments",
        sends: "fragments of segments of the established connections: tiny, overlapping, last ones without a first",
        rule: "none is taken",
        rest_s: REST_S,
        profile: standard,
        make: |plan, lab| make(plan, lab, Kind::Fragments),
    },
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Reset,
    Syn,
    Data,
    Icmp,
    Fragments,
}

struct Blind {
    kind: Kind,
    ticker: Ticker,
    random: Random,
    victims: Vec<(SocketAddr, SocketAddr)>,
    challenges: u64,
    seconds: u64,
}

fn make(plan: &Plan, lab: &mut Lab, kind: Kind) -> Box<dyn Hostile> {
    Box::new(Blind {
        kind,
        ticker: Ticker::new(plan, plan.scale.pick(50_000, 100_000)),
        random: Random::new(plan.scale.seed ^ 0xb1),
        victims: established(lab),
        challenges: lab.card.counter("tcp-challenge-acks"),
        seconds: (plan.end_us - plan.begin_us) / 1_000_000,
    })
}

impl Attacker for Blind {
    fn next_us(&self) -> u64 {
        self.ticker.next_us
    }

    fn act(&mut self, lab: &mut Lab) {
        for _ in 0..self.ticker.due(lab.now_us) {
            let random = &mut self.random;
            let (from, to) = self.victims[random.below(self.victims.len() as u64) as usize];
            let (seq, ack) = (random.bits() as u32, random.bits() as u32);
            let text = [0xee; 200];
            match self.kind {
                Kind::Reset => lab.send(&Tcp::new(from, to, flag::RST, seq, ack)),
                Kind::Syn => lab.send(&Tcp::new(from, to, flag::SYN, seq, ack)),
                Kind::Data => {
                    let n = random.between(1, 200) as usize;
                    lab.send(&Tcp::new(from, to, flag::ACK | flag::PSH, seq, ack).text(&text[..n]))
                }
                Kind::Icmp => lab.inject(&icmp(random, from, to, seq)),
                Kind::Fragments => lab.inject(&fragment(random, from, to)),
            };
        }
    }
}

fn octets(end: SocketAddr) -> [u8; 4] {
    match end.ip() {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(_) => [0; 4],
    }
}

/// An error about a segment that the card is said to have sent.
fn icmp(random: &mut Random, from: SocketAddr, to: SocketAddr, seq: u32) -> Vec<u8> {
    let kinds = [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (4, 0), (11, 0), (12, 0)];
    let (kind, code) = kinds[random.below(kinds.len() as u64) as usize];
    let mtu: u16 = [0, 68, 296, 552, 1280, 1499][random.below(6) as usize];
    let [a, b] = mtu.to_be_bytes();
    let quoted = Tcp::new(to, from, flag::ACK, seq, 0).text(&[0; 8]).frame();
    let mut message = vec![kind, code, 0, 0, 0, 0, a, b];
    message.extend_from_slice(&quoted[14..14 + 28]);
    let check = checksum(&message);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    ipv4([198, 51, 100, 99], octets(to), 1, 0, &message)
}

fn fragment(random: &mut Random, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let more = 0x2000;
    let whole = Tcp::new(from, to, flag::ACK, random.bits() as u32, 0).text(&[0xdd; 64]).frame();
    let segment = &whole[34..];
    let (offset, piece) = match random.below(4) {
        // The ports and nothing more; as much as shows a header; all but the ports; the tail alone.
        0 => (more, &segment[..8]),
        1 => (more, &segment[..32]),
        2 => (1 | more, &segment[8..]),
        _ => (random.between(1, 0x1fff) as u16, &segment[32..]),
    };
    ipv4(octets(from), octets(to), 6, offset, piece)
}

impl Hostile for Blind {
    fn judge(&self, lab: &Lab, _: &Run, verdict: &mut Verdict) {
        let count = |name: &str| lab.card.counter(name);
        match self.kind {
            Kind::Reset => verdict.rule(count("tcp-resets") == 0, format!("{} were reset", count("tcp-resets"))),
            Kind::Syn => {
                let challenges = count("tcp-challenge-acks") - self.challenges;
                // Ten at the begin, and ten in each five seconds.
                let allowed = self.victims.len() as u64 * 10 * (1 + self.seconds.div_ceil(5));
                verdict.rule(challenges <= allowed, format!("{challenges} challenges, at most {allowed}"));
            }
            Kind::Data => {
                let strange = lab.card.program.wrong_bytes;
                verdict.rule(strange == 0, format!("{strange} bytes of it reached the program"));
            }
            Kind::Icmp => {
                let believed = ["icmp-soft", "icmp-hard", "icmp-too-big", "icmp-aborted", "tcp-path-mtu-lowered"];
                let believed: u64 = believed.iter().map(|name| count(name)).sum();
                let seen = count("icmp-in");
                verdict.rule(believed == 0, format!("{believed} of {seen} believed"));
                verdict.rule(seen > 0, "the card looked at them");
            }
            Kind::Fragments => {
                let (dropped, passed) = (count("wire-drop-fragment"), count("wire-passed-fragment"));
                let all = dropped + passed == lab.sent;
                verdict.rule(all, format!("{dropped} dropped, {passed} left to the kernel, of {}", lab.sent));
            }
        }
    }
}

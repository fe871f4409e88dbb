//! Headers that no stack writes: segments of the established connections, and of none, with bits turned over, fields that
//! contradict each other and ends cut off. The checksums are made right again half of the time, so that what is behind
//! them is reached; the sequence numbers are then far away, so that nothing could be right by chance.

use std::net::SocketAddr;

use toe_impair::Random;

use super::floods::syn_options;
use super::{REST_S, Ticker, any_end, established, service, standard};
use crate::frames::{ETHERNET_BYTES, Tcp, flag};
use crate::lab::{Attacker, Lab};
use crate::program::port;
use crate::run::{Attack, Hostile, Run, Verdict};

pub const ATTACKS: &[Attack] = &[Attack {
    name: "malformed-headers",
    sends: "segments with wrong lengths, offsets, versions, options and flags, and noise",
    rule: "nothing panics, each is accounted for, what is dropped has a reason",
    rest_s: REST_S,
    profile: standard,
    make: |plan, lab| {
        Box::new(Malformed {
            ticker: Ticker::new(plan, plan.scale.pick(50_000, 100_000)),
            random: Random::new(plan.scale.seed ^ 0x3a1),
            victims: established(lab),
        })
    },
}];

struct Malformed {
    ticker: Ticker,
    random: Random,
    victims: Vec<(SocketAddr, SocketAddr)>,
}

impl Malformed {
    fn frame(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let (mut from, to) = self.victims[random.below(self.victims.len() as u64) as usize];
        let mut options = Vec::new();
        syn_options(random, &mut options);
        if random.one_in(2) {
            // Option bytes of any kind and length.
            random.fill(&mut options);
        }
        let to = if random.one_in(3) {
            from = any_end(random);
            service(port::ECHO)
        } else {
            to
        };
        let mut text = [0; 64];
        random.fill(&mut text);
        let mut tcp = Tcp::new(from, to, random.bits() as u8, random.bits() as u32, random.bits() as u32);
        if from.ip() == crate::lab::BULK && tcp.flags & flag::ACK != 0 {
            // Whole and in the window by chance it would be an attack of another kind.
            tcp.flags &= !flag::RST;
        }
        let n = random.below(64) as usize;
        let mut frame = tcp.options(&options).text(&text[..n]).frame();
        match random.below(6) {
            // Lengths, version, header length, protocol: anything in the IP header but the addresses.
            0 => {
                let at = ETHERNET_BYTES + random.below(12) as usize;
                frame[at] ^= 1 << random.below(8);
            }
            // The data offset.
            1 => frame[ETHERNET_BYTES + 32] = random.bits() as u8,
            2 => frame.truncate(random.below(frame.len() as u64) as usize),
            3 => {
                let noise = random.below(100) as usize;
                frame.extend(std::iter::repeat_n(0xa5, noise));
            }
            4 => {
                let at = random.between(12, frame.len() as u64 - 1) as usize;
                frame[at] = random.bits() as u8;
            }
            // As it is: contradicting flags and options behind right checksums.
            _ => {}
        }
        frame
    }
}

impl Attacker for Malformed {
    fn next_us(&self) -> u64 {
        self.ticker.next_us
    }

    fn act(&mut self, lab: &mut Lab) {
        for _ in 0..self.ticker.due(lab.now_us) {
            let frame = self.frame();
            lab.inject(&frame);
        }
    }
}

impl Hostile for Malformed {
    fn judge(&self, lab: &Lab, _: &Run, verdict: &mut Verdict) {
        let reasons = ["wire-drop-runt", "wire-drop-malformed", "wire-drop-data-offset", "wire-drop-checksum"];
        let counts = reasons.map(|name| lab.card.counter(name));
        let text = reasons.iter().zip(counts).map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ");
        verdict.rule(counts[0] > 0 && counts[2] > 0 && counts[3] > 0, text);
    }
}

//! The attacker's own connections: as little TCP as gets a handshake done, and none of its manners.
//!
//! A puppet keeps two numbers, what it would send next and what it expects next. It answers a SYN-ACK, and after that it
//! does what its attack says.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::frames::{Tcp, flag};
use crate::lab::{GUEST, Lab};

/// MSS 1460, SACK permitted, no operation, window scale 7.
pub const SYN_OPTIONS: [u8; 12] = [2, 4, 5, 180, 1, 3, 3, 7, 1, 1, 4, 2];

/// An end that the attacker owns.
pub fn own_end(n: u32) -> SocketAddr {
    let ip = Ipv4Addr::new(198, 51, 100, 64 + (n / 50_000) as u8);
    SocketAddr::new(IpAddr::V4(ip), 10_000 + (n % 50_000) as u16)
}

/// Where a puppet stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The SYN is out.
    Asked,
    /// The handshake is done.
    Open,
    /// The card reset it.
    Reset,
}

/// A connection of the attacker.
#[derive(Clone, Debug)]
pub struct Puppet {
    /// Its end.
    pub end: SocketAddr,
    /// The service at the card.
    pub service: SocketAddr,
    /// Its next sequence number.
    pub seq: u32,
    /// What it expects next.
    pub ack: u32,
    /// The window field of what it sends.
    pub window: u16,
    /// Where it stands.
    pub stage: Stage,
    /// Bytes of text that came, again or not.
    pub text_bytes: u64,
    /// The card's FIN came.
    pub fin: bool,
    /// Segments of the card.
    pub segments: u64,
}

impl Puppet {
    /// A segment of it, at its place.
    pub fn segment<'a>(&self, flags: u8) -> Tcp<'a> {
        Tcp::new(self.end, self.service, flags, self.seq, self.ack).window(self.window)
    }
}

/// The attacker's connections.
#[derive(Clone, Debug, Default)]
pub struct Puppets {
    /// All of them, in the order of their beginning.
    pub all: Vec<Puppet>,
    by_end: BTreeMap<(SocketAddr, u16), usize>,
}

impl Puppets {
    /// A SYN from `end` to that port; its place.
    pub fn open(&mut self, lab: &mut Lab, end: SocketAddr, port: u16, options: &[u8]) -> usize {
        let seq = 0x1000_0000u32.wrapping_mul(self.all.len() as u32).wrapping_add(77);
        self.open_at(lab, end, port, options, seq, 65_535)
    }

    /// The same with that sequence number, and that window from the SYN on.
    pub fn open_at(
        &mut self,
        lab: &mut Lab,
        end: SocketAddr,
        port: u16,
        options: &[u8],
        seq: u32,
        window: u16,
    ) -> usize {
        let service = SocketAddr::new(GUEST, port);
        let puppet = Puppet {
            end,
            service,
            seq: seq.wrapping_add(1),
            ack: 0,
            window,
            stage: Stage::Asked,
            text_bytes: 0,
            fin: false,
            segments: 0,
        };
        let at = self.all.len();
        self.all.push(puppet);
        self.by_end.insert((end, port), at);
        let syn = Tcp::new(end, service, flag::SYN, seq, 0).window(window).options(options);
        lab.send(&syn);
        at
    }

    /// Says the SYN again, of those that were not answered.
    pub fn ask_again(&mut self, lab: &mut Lab, at: usize, options: &[u8]) {
        let p = &self.all[at];
        let syn = Tcp::new(p.end, p.service, flag::SYN, p.seq.wrapping_sub(1), 0).window(p.window).options(options);
        lab.send(&syn);
    }

    /// Takes a segment of the card; whose it is. A SYN-ACK is answered.
    pub fn hear(&mut self, lab: &mut Lab, tcp: &Tcp<'_>) -> Option<usize> {
        let at = *self.by_end.get(&(tcp.to, tcp.from.port()))?;
        let puppet = &mut self.all[at];
        puppet.segments += 1;
        if tcp.has(flag::RST) {
            puppet.stage = Stage::Reset;
        } else if tcp.has(flag::SYN) {
            if puppet.stage == Stage::Asked {
                puppet.stage = Stage::Open;
                puppet.ack = tcp.seq.wrapping_add(1);
            }
            let answer = puppet.segment(flag::ACK);
            lab.send(&answer);
        } else {
            puppet.text_bytes += tcp.text.len() as u64;
            if tcp.seq == puppet.ack {
                puppet.ack = puppet.ack.wrapping_add(tcp.length());
                puppet.fin |= tcp.has(flag::FIN);
            }
        }
        Some(at)
    }

    /// Sends text of a puppet, and moves on.
    pub fn say(&mut self, lab: &mut Lab, at: usize, text: &[u8]) {
        let puppet = &mut self.all[at];
        let tcp = puppet.segment(flag::ACK | flag::PSH);
        puppet.seq = puppet.seq.wrapping_add(text.len() as u32);
        lab.send(&tcp.text(text));
    }

    /// Acknowledges what has come.
    pub fn acknowledge(&mut self, lab: &mut Lab, at: usize) {
        let tcp = self.all[at].segment(flag::ACK);
        lab.send(&tcp);
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.all.iter().filter(|p| p.stage == Stage::Open).count()
    }

    /// Resets all that are open: the attacker goes home, and not in one microsecond.
    pub fn reset_all(&mut self, lab: &mut Lab) {
        for puppet in &mut self.all {
            if puppet.stage == Stage::Open {
                puppet.stage = Stage::Reset;
                lab.send(&puppet.segment(flag::RST));
                let until_us = lab.now_us + 20;
                lab.run(until_us, None);
            }
        }
    }
}

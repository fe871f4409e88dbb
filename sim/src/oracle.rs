//! What must hold of every segment that a card puts on the wire, whatever happened to it before: the rules of RFC 9293
//! and of its extensions, as an onlooker can check them who sees what the card was handed and what it sends.
//!
//! The onlooker knows what *arrived* and not what the card made of it, so it takes the view that allows the most: an
//! acknowledgement is right if all that it covers has arrived at some time, data is within the window if any segment
//! that arrived has offered as much. A window counts from the first segment after the SYN: what a SYN offers, the card has not set
//! aside yet. Positions count from each side's SYN, which is 0. What is known of a connection begins with
//! its SYN and is dropped with the next SYN on the same ports that the card sends or answers.
//!
//! Checksums are computed, and streams compared, by code that shares nothing with the firmware.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;

use crate::end::Pair;
use crate::frames::{
    ACK, CWR, ECE, ETHERNET_HEADER_BYTES, FIN, Options, RST, SYN, Segment, URG, describe, first_options, options,
    segment,
};
use crate::guest::Settings;
use crate::pattern::Pattern;

/// Answers to SYNs, and numbers acknowledged lately: so many are kept.
const KEPT: usize = 16;

/// SYNs that arrived: so many are kept. More than can wait for the processor of a simulated card, whose queue holds 64 frames: strangers
/// may send on ports of which the card has not seen the first SYN yet.
const SYNS_KEPT: usize = 128;

/// The least text that the card puts into a segment, however little the peer says it takes.
const MSS_MIN: usize = 64;

/// Positions from `base` on, in order and apart from each other.
#[derive(Debug, Default)]
struct Ranges {
    ranges: Vec<(u64, u64)>,
}

impl Ranges {
    fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // Nearly always it extends the last.
        let first = self.ranges.iter().rposition(|r| r.1 < start).map_or(0, |i| i + 1);
        let (mut start, mut end, mut last) = (start, end, first);
        while let Some(r) = self.ranges.get(last).filter(|r| r.0 <= end) {
            (start, end) = (start.min(r.0), end.max(r.1));
            last += 1;
        }
        if last == first + 1 {
            self.ranges[first] = (start, end);
        } else {
            self.ranges.splice(first..last, [(start, end)]);
        }
    }

    fn contains(&self, start: u64, end: u64) -> bool {
        self.ranges.iter().any(|r| r.0 <= start && end <= r.1)
    }

    /// Behind the last position up to which nothing is missing.
    fn whole(&self) -> u64 {
        self.ranges.first().filter(|r| r.0 == 0).map_or(0, |r| r.1)
    }
}

/// A SYN that arrived.
#[derive(Clone, Copy, Debug)]
struct Syn {
    seq: u32,
    length: u32,
    flags: u8,
    window: u16,
    options: Options,
}

/// What arrived of the peer's numbers.
#[derive(Clone, Copy, Debug)]
struct Heard {
    seq: u32,
    length: u32,
    flags: u8,
    timestamp: Option<u32>,
}

/// One connection of the card.
#[derive(Debug, Default)]
struct Track {
    /// What the card said in its SYN.
    iss: u32,
    mine: Options,
    my_flags: u8,
    /// Whether any of its SYNs has asked for ECN or agreed to it.
    said_ecn: bool,
    /// Behind the last position ever sent.
    sent: u64,
    fin: Option<u64>,
    is_reset: bool,
    acked: u64,
    edge: u64,
    timestamp: Option<u32>,
    /// What the peer said in its SYN, once the card knows it.
    peer: Option<Syn>,
    /// Whether that SYN, or one like it before, asked for ECN.
    was_asked: bool,
    /// What arrived before the card has shown that it knows a SYN: that may wait for its processor, and these behind it.
    early: Vec<Heard>,
    arrived: Ranges,
    /// Whether anything in its place has arrived that acknowledges the card's SYN.
    is_answered: bool,
    /// What arrived has acknowledged, and the largest window it offered.
    una: u64,
    window: u64,
    /// The first and the latest timestamp that arrived.
    timestamps: Option<(u32, u32)>,
    out: Option<Pattern>,
}

#[derive(Debug, Default)]
struct Seen {
    track: Option<Track>,
    /// SYN-ACKs before the last, none of which went further yet: with cookies each has a number of its own, and the peer may
    /// answer any.
    others: Vec<Track>,
    syns: Vec<Syn>,
    acks: Vec<u32>,
}

/// A hash that is quick; who could choose keys that collide is the simulator itself.
#[derive(Debug, Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn folded(ip: &IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u32::from(*ip).into(),
        IpAddr::V6(ip) => u128::from(*ip) as u64 ^ (u128::from(*ip) >> 64) as u64,
    }
}

/// A connection as one word: ports, and the remote address (the local one is the card's).
fn key(remote: &IpAddr, local_port: u16, remote_port: u16) -> u64 {
    folded(remote).rotate_left(32) ^ u64::from(local_port) << 16 ^ u64::from(remote_port)
}

/// The onlooker at one card.
#[derive(Debug)]
pub struct Oracle {
    seen: HashMap<u64, Seen, BuildHasherDefault<Quick>>,
    streams: HashMap<u64, Pattern, BuildHasherDefault<Quick>>,
    /// Whether what arrives may be damaged.
    pub verifies: bool,
    /// Whether the peer is honest; one who lies can make some rules mean nothing.
    pub peer_is_honest: bool,
    /// Whether the peer may have acknowledged one less than the card's SYN, which opens a connection if that was a cookie.
    pub may_begin_early: bool,
    /// Whether all connections are those of the honest process.
    pub guest_is_honest: bool,
    /// Segments checked.
    pub checked: u64,
}

/// `number` as a position near `near`; `base` is 0.
fn position(number: u32, base: u32, near: u64) -> i64 {
    let offset = number.wrapping_sub(base.wrapping_add(near as u32)) as i32;
    near as i64 + i64::from(offset)
}

macro_rules! must {
    ($holds:expr, $frame:expr, $($text:tt)+) => {
        if !$holds {
            panic!("{}: {}", format_args!($($text)+), describe($frame));
        }
    };
}

impl Oracle {
    pub fn new(verifies: bool, peer_is_honest: bool) -> Self {
        Self {
            seen: HashMap::default(),
            streams: HashMap::default(),
            verifies,
            peer_is_honest,
            may_begin_early: false,
            guest_is_honest: true,
            checked: 0,
        }
    }

    /// The card's end of `pair` will send this stream.
    pub fn expect(&mut self, pair: &Pair, out: Pattern) {
        self.streams.insert(key(&pair.remote.ip(), pair.local.port(), pair.remote.port()), out);
    }

    /// A frame is handed to the card.
    pub fn arrives(&mut self, frame: &[u8]) {
        let Some(s) = segment(frame) else { return };
        if self.verifies && !s.checksums_right() {
            return;
        }
        let options = first_options(s.options);
        let seen = self.seen.entry(key(&s.source, s.destination_port, s.source_port)).or_default();
        if s.has(ACK) {
            if seen.acks.len() == KEPT {
                seen.acks.remove(0);
            }
            if !seen.acks.contains(&s.ack) {
                seen.acks.push(s.ack);
            }
        }
        if s.has(SYN) && !s.has(RST) {
            let syn = Syn { seq: s.seq, length: s.length(), flags: s.flags, window: s.window, options };
            if seen.syns.len() == SYNS_KEPT {
                seen.syns.remove(0);
            }
            seen.syns.push(syn);
            // The answer to the card's own SYN counts from now on.
            if let Some(track) = &mut seen.track
                && track.peer.is_none()
                && s.has(ACK)
                && s.ack == track.iss.wrapping_add(1)
            {
                track.adopt(syn, &seen.syns);
            }
        }
        for track in seen.track.iter_mut().chain(&mut seen.others) {
            track.hears(&s, &options);
        }
    }

    /// The card, whose guest is set up by `settings`, sends `frame`.
    pub fn sent(&mut self, frame: &[u8], settings: &Settings) {
        self.checked += 1;
        let s = segment(frame);
        must!(s.is_some(), frame, "not a whole TCP segment");
        let Some(s) = s else { return };
        must!(s.checksums_right(), frame, "a wrong checksum");
        must!(s.hop_limit > 0, frame, "a hop limit of zero");
        if self.guest_is_honest {
            must!(settings.addresses.contains(&s.source), frame, "sent from {}", s.source);
            must!(frame[..6] == settings.next_hop.0, frame, "the wrong destination station");
            must!(frame[6..12] == settings.mac.0, frame, "the wrong source station");
            must!(frame.len() <= settings.mtu as usize + ETHERNET_HEADER_BYTES, frame, "longer than the MTU");
        }
        let contradicts = (s.flags & (SYN | FIN | RST)).count_ones() > 1;
        must!(!contradicts, frame, "flags that contradict each other");
        must!(s.has(SYN | RST | ACK), frame, "none of SYN, RST and ACK");
        must!(s.has(URG) || s.urgent == 0, frame, "an urgent pointer without URG");
        let o = options(s.options);
        must!(o.is_some(), frame, "options that cannot be read");
        let Some(o) = o else { return };
        let key = key(&s.destination, s.source_port, s.destination_port);
        let seen = self.seen.entry(key).or_default();
        if s.has(RST) {
            must!(s.payload.is_empty(), frame, "a RST with text");
            must!(seen.may_reset(&s) || !self.peer_is_honest, frame, "a RST that no peer would accept");
            if let Some(track) = &mut seen.track
                && !self.peer_is_honest
            {
                // A cookie can open again what a liar has let end.
                track.is_reset = false;
            }
            return;
        }
        if s.has(SYN) {
            let out = self.streams.get(&key).copied();
            seen.syn(&s, o, frame, out, self.peer_is_honest);
            return;
        }
        must!(o.mss.is_none() && o.scale.is_none() && !o.sack_permitted, frame, "an option of SYNs elsewhere");
        must!(s.has(ACK), frame, "no ACK");
        must!(seen.track.is_some(), frame, "a segment before any SYN");
        let goes_on = |t: &Track| (0..=t.sent as i64).contains(&position(s.seq, t.iss, t.sent));
        if !seen.track.as_ref().is_some_and(goes_on)
            && let Some(other) = seen.others.iter().position(goes_on)
        {
            let other = seen.others.swap_remove(other);
            seen.others.extend(seen.track.replace(other));
        }
        if !seen.others.is_empty() && s.length() > 0 && self.peer_is_honest {
            seen.others.clear();
        }
        let Some(track) = &mut seen.track else { return };
        if self.may_begin_early {
            track.begin_early(&s);
        }
        // Answers to the card's SYN may be lost between the wire and its processor, until the peer has given up and begins
        // anew: which of them it has taken is seen by what it acknowledges first.
        let is_answered = |syn: &Syn| syn.flags & ACK != 0 && s.ack.wrapping_sub(syn.seq) == syn.length;
        if track.acked == 0
            && track.peer.is_some_and(|peer| peer.flags & ACK != 0 && !is_answered(&peer))
            && let Some(&syn) = seen.syns.iter().rev().find(|&syn| is_answered(syn))
        {
            track.adopt(syn, &[]);
        }
        // Of several SYNs that strangers have sent on these ports, only the card knows whose it has taken.
        let is_forged = !self.peer_is_honest && seen.syns.len() > 1;
        track.check_sent(&s, frame, is_forged);
        if !is_forged {
            track.check_answers(&s, &o, frame, self.peer_is_honest);
        }
        track.check_marks(&s, frame, is_forged);
    }
}

impl Seen {
    /// RFC 9293, 3.5.2 and 3.10.7: the number is one that the peer has acknowledged, or one that the card would use next.
    fn may_reset(&mut self, s: &Segment<'_>) -> bool {
        if s.has(ACK) && s.seq == 0 {
            return true;
        }
        if let Some(track) = &mut self.track {
            let at = position(s.seq, track.iss, track.sent);
            if (0..=track.sent as i64).contains(&at) {
                // From a connection that was open it is the last word; one without ACK answers a segment that was nobody's, and an
                // answer of TIME-WAIT may still be on its way out, or the connection open by a cookie that another segment has.
                track.is_reset = s.has(ACK) && track.una > 0 && track.peer.is_some() && at == track.sent as i64;
                return true;
            }
        }
        self.acks.contains(&s.seq)
    }

    fn syn(&mut self, s: &Segment<'_>, o: Options, frame: &[u8], out: Option<Pattern>, peer_is_honest: bool) {
        must!(o.mss.is_some_and(|m| m > 0), frame, "a SYN without an MSS");
        must!(o.scale.is_none_or(|n| n <= 14), frame, "a window scale above 14");
        must!(o.sacks == 0, frame, "SACK blocks in a SYN");
        let is_again = self.track.as_ref().is_some_and(|t| t.iss == s.seq);
        if !is_again {
            // A connection in TIME-WAIT stands beside the answer that may follow it until that is acknowledged: if the peer
            // takes its SYN back, it is there as before.
            let is_answer = |t: &Track| (t.sent == 1 && t.peer.is_some() || t.fin.is_some()) && s.has(ACK);
            // Where strangers forge SYNs, an answer to one stands beside what goes on all the while.
            let other = self.track.take().filter(|t| is_answer(t) || !peer_is_honest);
            if self.others.len() == KEPT {
                self.others.remove(0);
            }
            self.others.extend(other);
            // An answer to another SYN may have stood between two to the same.
            let said_ecn = self.others.iter().any(|t| t.iss == s.seq && t.said_ecn);
            let track = Track { iss: s.seq, mine: o, my_flags: s.flags, said_ecn, sent: 1, out, ..Track::default() };
            self.track = Some(track);
        }
        let Some(track) = &mut self.track else { return };
        track.timestamp = o.timestamps.map(|(value, _)| value);
        track.said_ecn |= s.has(ECE);
        if s.has(ACK) {
            let answered = self.syns.iter().rev().find(|syn| {
                syn.seq.wrapping_add(1) == s.ack || {
                    let ahead = s.ack.wrapping_sub(syn.seq);
                    ahead >= 1 && ahead <= syn.length
                }
            });
            let is_known = answered.is_some() || !peer_is_honest;
            must!(is_known, frame, "the answer to a SYN that never arrived");
            if let (Some(&syn), None) = (answered, track.peer) {
                track.adopt(syn, &self.syns);
            }
            if !peer_is_honest && self.syns.len() > 1 {
                // Whose SYN the card has taken, it alone knows.
                return;
            }
            must!(o.scale.is_none() || track.peer_has(|p| p.scale.is_some()), frame, "a window scale unasked");
            must!(o.timestamps.is_none() || track.peer_has(|p| p.timestamps.is_some()), frame, "timestamps unasked");
            must!(!o.sack_permitted || track.peer_has(|p| p.sack_permitted), frame, "SACK unasked");
        }
        // Fast Open's text, if any.
        track.text(s, 1, frame);
        track.sent = track.sent.max(1 + s.payload.len() as u64);
    }
}

impl Track {
    fn peer_has(&self, what: impl FnOnce(&Options) -> bool) -> bool {
        self.peer.as_ref().is_some_and(|p| what(&p.options))
    }

    /// The card knows the peer's SYN, and it may be from an earlier one, with a timestamp of its own, that it does.
    fn adopt(&mut self, syn: Syn, all: &[Syn]) {
        // A SYN may have come before, with an earlier timestamp: that is the one which the card knows.
        let mut same = all.iter().filter(|s| s.seq == syn.seq);
        let before = same.clone().next().and_then(|first| first.options.timestamps);
        self.was_asked = same.any(|s| s.flags & (ECE | CWR) == ECE | CWR);
        self.arrived = Ranges::default();
        self.arrived.insert(0, syn.length.into());
        self.timestamps = syn.options.timestamps.map(|(value, _)| (before.map_or(value, |b| b.0), value));
        self.window = self.window.max(syn.window.into());
        self.peer = Some(syn);
        for i in 0..self.early.len() {
            self.receives(syn.seq, self.early[i]);
        }
    }

    /// A segment that arrived acknowledges, and offers a window.
    fn acknowledged(&mut self, s: &Segment<'_>) {
        if !s.has(ACK) {
            return;
        }
        let at = position(s.ack, self.iss, self.una);
        if at < 0 || at as u64 > self.sent {
            return;
        }
        self.una = self.una.max(at as u64);
        let both = self.mine.scale.is_some() && self.peer_has(|p| p.scale.is_some());
        let scale = if both && !s.has(SYN) { self.peer.and_then(|p| p.options.scale).unwrap_or(0).min(14) } else { 0 };
        self.window = self.window.max(u64::from(s.window) << scale);
    }

    /// A segment arrives.
    fn hears(&mut self, s: &Segment<'_>, options: &Options) {
        self.acknowledged(s);
        let timestamp = options.timestamps.map(|(value, _)| value);
        let heard = Heard { seq: s.seq, length: s.length(), flags: s.flags, timestamp };
        match self.peer {
            Some(peer) => self.receives(peer.seq, heard),
            None if self.early.len() < KEPT => self.early.push(heard),
            None => {}
        }
    }

    /// A segment arrives, or has arrived, of a peer whose SYN was `irs`.
    fn receives(&mut self, irs: u32, heard: Heard) {
        let start = position(heard.seq, irs, self.arrived.whole());
        self.is_answered |= start >= 1 && self.una > 0 && heard.flags & (SYN | RST) == 0;
        if start >= 0 {
            self.arrived.insert(start as u64, start as u64 + u64::from(heard.length));
        }
        if let Some(value) = heard.timestamp {
            self.timestamps = match self.timestamps {
                Some((first, last)) if value.wrapping_sub(last) as i32 > 0 => Some((first, value)),
                None => Some((value, value)),
                other => other,
            };
        }
    }

    fn has_ecn(&self) -> bool {
        let asked = |flags: u8| flags & (ECE | CWR) == ECE | CWR;
        let agreed = |flags: u8| flags & (ECE | CWR) == ECE;
        self.peer.is_some_and(|p| {
            let simultaneous = asked(self.my_flags) && asked(p.flags);
            // That it has agreed says that it knows a SYN that asked, though a later one, which did not, may be still to come.
            simultaneous || (asked(self.my_flags) && agreed(p.flags)) || (agreed(self.my_flags) && self.was_asked)
        })
    }

    /// The first that it sends behind a SYN-ACK that was a cookie: an acknowledgement of one less was another cookie, and its
    /// stream begins one earlier.
    fn begin_early(&mut self, s: &Segment<'_>) {
        let is_first = self.sent == 1 && self.my_flags & ACK != 0 && position(s.seq, self.iss, self.sent) == 0;
        // The octet of a keep-alive stands there, too; but only if one that is right was acknowledged.
        let is_stream = s.length() > 1 || s.has(FIN) || self.una == 0 && s.length() > 0;
        let begins_so = self.out.is_some_and(|out| out.first_difference(0, s.payload).is_none());
        if is_first && is_stream && begins_so {
            self.iss = self.iss.wrapping_sub(1);
        }
    }

    /// The text of a segment, at `at`, is the stream's.
    fn text(&self, s: &Segment<'_>, at: u64, frame: &[u8]) {
        if let Some(out) = self.out
            && at >= 1
        {
            let wrong = out.first_difference(at - 1, s.payload);
            must!(wrong.is_none(), frame, "byte {} is not the stream's", wrong.unwrap_or(0));
        }
    }

    /// What it sends: RFC 9293, 3.4 and 3.8.
    fn check_sent(&mut self, s: &Segment<'_>, frame: &[u8], is_forged: bool) {
        must!(!self.is_reset, frame, "more after a RST");
        must!(self.peer.is_some(), frame, "a segment before the peer's SYN");
        let Some(peer) = self.peer else { return };

        let at = position(s.seq, self.iss, self.sent);
        must!(at >= 0 && at as u64 <= self.sent, frame, "it leaves a gap: at {at}, sent before {}", self.sent);
        let at = at as u64;
        let text_end = at + s.payload.len() as u64;
        let end = text_end + u64::from(s.has(FIN));
        // By the rule of 3.10.7.4 an older segment moves SND.UNA and leaves SND.WND as it was, so that both together may
        // lie beyond what any one segment has offered.
        let limit = self.una.max(1) + self.window;
        let is_probe = s.payload.len() == 1 && text_end <= limit + 1;
        let fits = s.payload.is_empty() || text_end <= limit || is_probe || is_forged;
        must!(fits, frame, "text up to {text_end}, the peer's window ends at {limit}");
        let mss = peer.options.mss.map_or(if s.source.is_ipv4() { 536 } else { 1220 }, usize::from);
        let most = mss.max(MSS_MIN + 12);
        let fits = s.payload.len() + s.options.len() <= most;
        must!(fits || is_forged, frame, "beyond the peer's MSS of {mss}");
        if let Some(fin) = self.fin {
            must!(end <= fin + 1, frame, "beyond its FIN at {fin}");
            must!(!s.has(FIN) || text_end == fin, frame, "its FIN was at {fin}");
        } else if s.has(FIN) {
            must!(text_end >= self.sent, frame, "a FIN before text that was sent");
            self.fin = Some(text_end);
        }
        // A keep-alive's octet is garbage.
        if at + 1 != self.una || s.payload.len() != 1 {
            self.text(s, at, frame);
        }
    }

    /// What it acknowledges, in every way.
    fn check_answers(&mut self, s: &Segment<'_>, o: &Options, frame: &[u8], peer_is_honest: bool) {
        let Some(peer) = self.peer else { return };
        let whole = self.arrived.whole();
        let acked = position(s.ack, peer.seq, self.acked);
        must!(acked >= self.acked as i64, frame, "its ACK goes back: {acked} after {}", self.acked);
        must!(acked as u64 <= whole, frame, "it acknowledges {acked}, only {whole} arrived");
        self.acked = acked as u64;
        let both = self.mine.scale.is_some() && peer.options.scale.is_some();
        let scale = if both { self.mine.scale.unwrap_or(0) } else { 0 };
        let edge = self.acked + (u64::from(s.window) << scale);
        // What a shift cannot say is no step back (RFC 7323, 2.4).
        let slack = (1 << scale) - 1;
        // What is offered before the connection is open is not set aside: an ACK that refuses what is not in its place repeats what the
        // SYN-ACK has offered. That it is open is seen by what arrived; among liars, who may have sent that and made others take what
        // was offered, by what the card sends or acknowledges.
        let is_first = self.acked <= 1 && !peer_is_honest;
        let is_open = self.acked > 1 || self.sent > 1 || s.length() > 0;
        let is_half_open = self.my_flags & ACK != 0 && (!self.is_answered || is_first) && !is_open;
        must!(is_first || edge + slack >= self.edge, frame, "its window shrinks: {edge} after {}", self.edge);
        self.edge = match (is_half_open, is_first) {
            (true, _) => 0,
            (false, true) => edge,
            (false, false) => self.edge.max(edge),
        };

        // RFC 7323.
        let has_timestamps = self.mine.timestamps.is_some() && peer.options.timestamps.is_some();
        must!(o.timestamps.is_some() == has_timestamps, frame, "timestamps: agreed on: {has_timestamps}");
        if let Some((value, echo)) = o.timestamps {
            let goes_back = self.timestamp.is_some_and(|t| (value.wrapping_sub(t) as i32) < 0);
            must!(!goes_back, frame, "its timestamp goes back");
            self.timestamp = Some(value);
            let heard = self.timestamps.is_some_and(|(first, last)| {
                echo.wrapping_sub(first) as i32 >= 0 && last.wrapping_sub(echo) as i32 >= 0
            });
            must!(heard || !peer_is_honest, frame, "it echoes a timestamp that never arrived");
        }

        // RFC 2018 and 2883.
        must!(o.sacks == 0 || (self.mine.sack_permitted && peer.options.sack_permitted), frame, "SACK not agreed on");
        for (i, &(left, right)) in o.sack[..o.sacks].iter().enumerate() {
            let (start, end) = (position(left, peer.seq, self.acked), position(right, peer.seq, self.acked));
            must!(0 <= start && start < end, frame, "SACK block {i} is empty or none");
            must!(self.arrived.contains(start as u64, end as u64), frame, "SACK block {i} did not arrive");
            // Only the first may report what came twice.
            must!(i == 0 || start as u64 > self.acked, frame, "SACK block {i} lies before the ACK");
        }
    }

    /// RFC 3168, 6.1.1 and 6.1.5; then the segment counts as sent.
    fn check_marks(&mut self, s: &Segment<'_>, frame: &[u8], is_forged: bool) {
        // Of several SYNs the card may have agreed to one that another has hidden from the onlooker: then it has said so.
        let has_ecn = self.has_ecn() || is_forged && self.said_ecn;
        let end = (position(s.seq, self.iss, self.sent) + i64::from(s.length())) as u64;
        let is_new = end > self.sent;
        let ecn = s.traffic_class & 3;
        must!(ecn != 3, frame, "the sender itself marks congestion");
        must!(ecn == 0 || has_ecn, frame, "ECN not agreed on");
        must!(ecn == 0 || (is_new && !s.payload.is_empty()), frame, "ECT on what is no new text");
        must!(!s.has(ECE | CWR) || has_ecn, frame, "ECE or CWR not agreed on");
        self.sent = self.sent.max(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_where_they_meet() {
        let mut ranges = Ranges::default();
        for (start, end) in [(0, 1), (5, 7), (9, 12), (7, 7), (20, 21), (6, 10)] {
            ranges.insert(start, end);
        }
        assert_eq!((ranges.ranges.clone(), ranges.whole()), (vec![(0, 1), (5, 12), (20, 21)], 1));
        ranges.insert(1, 30);
        assert_eq!((ranges.ranges.clone(), ranges.whole()), (vec![(0, 30)], 30));
        assert!(ranges.contains(3, 30) && !ranges.contains(3, 31));
    }
}

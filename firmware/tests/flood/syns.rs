//! SYN floods.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use toe_abi::Endpoint;
use toe_firmware::{Call, Checksum, Firmware, Instant, Lane, Profile, Refusal, SynCookies, Verdict};
use toe_impair::Random;

use crate::guest::Guest;
use crate::peer::{ACK, FIN, LOCAL, PSH, RST, SYN, Said, frame, read};
use crate::tallies::{count, in_use, is_balanced, percentile};
use crate::{is_long, standard_card};

/// One way, in microseconds.
const WAY_US: u64 = 5_000;
const RTT_US: u64 = 2 * WAY_US;

/// Established connections that upload.
const UPLOADS: u32 = 64;
/// The most that each has in flight, in bytes, and what it sends at once.
const WINDOW: u32 = 14_480;
const SEGMENT: u32 = 1448;

/// Addresses of honest clients and of uploads; floods come from all others.
const HONEST: u32 = 0xc633_6400;
const UPLOAD: u32 = 0xcb00_7100;

/// What a run is to be.
struct Run {
    profile: Profile,
    /// SYNs in a second, and with timestamps, SACK and window scaling or without.
    syns_per_s: u64,
    with_options: bool,
    duration_us: u64,
    honest: u32,
}

/// What came of it.
#[derive(Debug)]
struct Result {
    completed: u32,
    handshake_us: Vec<u64>,
    /// Uploaded in the time of the flood.
    bytes: u64,
    resets: u64,
    dropped: u64,
    cookies: u64,
    most_steps: u64,
}

struct Upload {
    una: u32,
    nxt: u32,
    ack: u32,
    stamp: u32,
    edge: u32,
    shift: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Honest {
    Asked { since_us: u64 },
    Open,
    Closing,
}

struct World {
    firmware: Firmware,
    guest: Guest,
    now_us: u64,
    /// Segments on their way to the card, and from it to a peer that listens.
    to_card: BinaryHeap<Reverse<(u64, u64)>>,
    segments: HashMap<u64, Said>,
    to_peers: VecDeque<(u64, Said)>,
    /// Frames that wait for the card's processor, in each lane.
    busy: [VecDeque<Vec<u8>>; Lane::COUNT],
    serial: u64,
    buffer: Vec<u8>,
    out: Vec<u8>,
    uploads: Vec<Upload>,
    is_uploading: bool,
    honest: Vec<Honest>,
    handshake_us: Vec<u64>,
    resets: u64,
}

impl World {
    fn now(&self) -> Instant {
        Instant::from_us(self.now_us)
    }

    fn send_at(&mut self, at_us: u64, said: Said) {
        self.serial += 1;
        self.to_card.push(Reverse((at_us, self.serial)));
        self.segments.insert(self.serial, said);
    }

    fn arrive(&mut self, said: &Said) {
        frame(said, &mut self.buffer);
        let now = self.now();
        if let Verdict::Wait(lane) = self.firmware.handle_wire(now, &self.buffer, Checksum::Trusted) {
            self.busy[lane as usize].push_back(self.buffer.clone());
        }
    }

    /// The card has its turn.
    fn card(&mut self) {
        let now = self.now();
        if self.firmware.poll_timeout().is_some_and(|due| due <= now) {
            self.firmware.handle_timeout(now);
            while let Some(lane) = self.firmware.next_waiting(now) {
                let (lane, frame) = lane.oldest(&mut self.busy).expect("it waits");
                let _ = self.firmware.handle_waiting(now, lane, &frame, Checksum::Trusted);
            }
        }
        self.guest.serve(&mut self.firmware, now);
        while let Some(length) = self.firmware.poll_wire(now, &mut self.out) {
            let said = read(&self.out[..length]);
            self.resets += u64::from(said.flags & RST != 0);
            if said.remote & 0xffff_ff00 == UPLOAD || said.remote & 0xffff_ff00 == HONEST {
                self.to_peers.push_back((self.now_us + WAY_US, said));
            }
        }
    }

    /// The stamp of a peer.
    fn stamp(&self) -> u32 {
        (self.now_us / 1000) as u32
    }

    fn hear(&mut self, said: &Said) {
        if said.flags & RST != 0 {
            return;
        }
        let echo = said.stamps.map_or(0, |s| s.0);
        let number = ((said.remote & 0xff) << 16) | (u32::from(said.port) - 1000);
        let base = Said { remote: said.remote, port: said.port, window: 60_000, ..Said::default() };
        let mine = self.stamp();
        let at_us = self.now_us + WAY_US;
        if said.remote & 0xffff_ff00 == UPLOAD {
            let u = &mut self.uploads[number as usize];
            u.stamp = echo;
            if said.flags & SYN != 0 {
                (u.ack, u.una, u.nxt, u.shift) = (said.seq.wrapping_add(1), 1, 1, said.shift);
                u.edge = 1 + u32::from(said.window);
            } else {
                u.una = if said.ack.wrapping_sub(u.una) as i32 > 0 { said.ack } else { u.una };
                u.edge = said.ack.wrapping_add(u32::from(said.window) << u.shift);
            }
            let first = said.flags & SYN != 0;
            let ack = u.ack;
            if first {
                let stamps = Some((mine, echo));
                self.send_at(at_us, Said { seq: 1, ack, flags: ACK, stamps, ..base });
            }
            self.upload(number as usize);
            return;
        }
        let state = self.honest[number as usize];
        let stamps = Some((mine, echo));
        if said.flags & SYN != 0 {
            let Honest::Asked { since_us } = state else { return };
            self.handshake_us.push(self.now_us - since_us);
            self.honest[number as usize] = Honest::Open;
            let ack = said.seq.wrapping_add(1);
            self.send_at(at_us, Said { seq: 1, ack, flags: ACK, stamps, ..base });
            // A request, and the end.
            self.send_at(at_us + 1, Said { seq: 1, ack, flags: ACK | PSH | FIN, stamps, text_bytes: 100, ..base });
        } else if said.flags & FIN != 0 {
            self.honest[number as usize] = Honest::Closing;
            let ack = said.seq.wrapping_add(1);
            self.send_at(at_us, Said { seq: 102, ack, flags: ACK, stamps, ..base });
        }
    }

    fn upload(&mut self, n: usize) {
        loop {
            let stamp = self.stamp();
            let u = &mut self.uploads[n];
            let room = u.edge.wrapping_sub(u.nxt) as i32;
            if !self.is_uploading || u.nxt.wrapping_sub(u.una) + SEGMENT > WINDOW || room < SEGMENT as i32 {
                return;
            }
            let said = Said {
                remote: UPLOAD,
                port: 1000 + n as u16,
                seq: u.nxt,
                ack: u.ack,
                flags: ACK | PSH,
                window: 60_000,
                stamps: Some((stamp, u.stamp)),
                text_bytes: SEGMENT as usize,
                ..Said::default()
            };
            u.nxt = u.nxt.wrapping_add(SEGMENT);
            let at_us = self.now_us + WAY_US;
            self.send_at(at_us, said);
        }
    }

    fn syn(&self, remote: u32, port: u16, seq: u32, with_options: bool) -> Said {
        let stamps = with_options.then(|| (self.stamp(), 0));
        Said { remote, port, seq, flags: SYN, window: 64_000, stamps, ..Said::default() }
    }

    /// What arrives now.
    fn arrivals(&mut self) {
        while let Some(Reverse((at_us, serial))) = self.to_card.peek().copied()
            && at_us <= self.now_us
        {
            self.to_card.pop();
            let said = self.segments.remove(&serial).expect("on its way");
            self.arrive(&said);
        }
        while let Some((at_us, said)) = self.to_peers.front().copied()
            && at_us <= self.now_us
        {
            self.to_peers.pop_front();
            self.hear(&said);
        }
    }

    /// When something happens next, a flood apart.
    fn next_us(&self) -> u64 {
        let arrives = self.to_card.peek().map(|Reverse((at_us, _))| *at_us);
        let heard = self.to_peers.front().map(|(at_us, _)| *at_us);
        let card = self.firmware.poll_timeout().map(Instant::as_us);
        [arrives, heard, card].into_iter().flatten().min().unwrap_or(u64::MAX).max(self.now_us + 1)
    }

    /// Without a flood.
    fn wait_until(&mut self, end_us: u64) {
        while self.next_us() < end_us {
            self.now_us = self.next_us();
            self.arrivals();
            self.card();
        }
        self.now_us = end_us;
    }
}

fn run(run: &Run) -> Result {
    let firmware = Firmware::new(&run.profile, [9; 32], 1, Instant::from_us(0)).unwrap();
    let mut w = World {
        firmware,
        guest: Guest::default(),
        now_us: 0,
        to_card: BinaryHeap::new(),
        segments: HashMap::new(),
        to_peers: VecDeque::new(),
        busy: Default::default(),
        serial: 0,
        buffer: Vec::new(),
        out: vec![0; 65_549],
        uploads: Vec::new(),
        is_uploading: true,
        honest: Vec::new(),
        handshake_us: Vec::new(),
        resets: 0,
    };
    let now = w.now();
    w.guest = Guest::new(&mut w.firmware, now, Endpoint::new(LOCAL.0.into(), LOCAL.1), 512);
    for n in 0..UPLOADS {
        w.uploads.push(Upload { una: 0, nxt: 0, ack: 0, stamp: 0, edge: 0, shift: 0 });
        let syn = w.syn(UPLOAD, 1000 + n as u16, 0, true);
        w.send_at(u64::from(n) * 200 + WAY_US, syn);
    }
    w.wait_until(1_000_000);
    assert_eq!(w.guest.accepted.len(), UPLOADS as usize);
    w.guest.accepted.clear();
    let before = in_use(&w.firmware);
    let bytes_before = w.guest.bytes;
    w.firmware.forget_most_work();

    let begin_us = w.now_us;
    let end_us = begin_us + run.duration_us;
    let mut random = Random::new(5);
    let (mut sent, mut asked) = (0, 0u32);
    while w.now_us < end_us {
        let passed_us = w.now_us - begin_us;
        // Honest clients come evenly, and each but the last millisecond's has time to end.
        while asked < run.honest && u64::from(asked) * run.duration_us / u64::from(run.honest) <= passed_us {
            let (remote, port) = (HONEST | asked >> 16, 1000 + (asked & 0xffff) as u16);
            let syn = w.syn(remote, port, 0, true);
            w.honest.push(Honest::Asked { since_us: w.now_us });
            let at_us = w.now_us + WAY_US;
            w.send_at(at_us, syn);
            asked += 1;
        }
        w.arrivals();
        while sent * 1_000_000 < (passed_us + 1) * run.syns_per_s {
            let bits = random.bits();
            // Anyone but 198.51.100.0/24 and 203.0.113.0/24, and no multicast.
            let remote = 0x0100_0000 + (bits as u32 % 0x6000_0000);
            let syn = w.syn(remote, (bits >> 32) as u16 | 1, (bits >> 48) as u32, run.with_options);
            w.arrive(&syn);
            sent += 1;
        }
        w.card();
        w.now_us = if run.syns_per_s > 0 { w.now_us + 1 } else { w.next_us().min(w.now_us + 100) };
    }
    let bytes = w.guest.bytes - bytes_before;
    w.wait_until(end_us + 20 * RTT_US);
    let completed = w.guest.accepted.iter().filter(|e| e.port >= 1000).count();
    let honest_bytes = u64::from(run.honest) * 100;
    let cookies = count(&w.firmware, "tcp-syn-cookies-sent");
    let dropped = count(&w.firmware, "wire-drop-fifo-full");
    let most_steps = w.firmware.work().most(Call::HandleWire).max(w.firmware.work().most(Call::PollWire));
    let resets = w.resets;
    let honest: std::collections::HashSet<_> = (0..run.honest)
        .map(|n| (std::net::Ipv4Addr::from(HONEST | n >> 16), 1000 + (n & 0xffff) as u16))
        .map(|(ip, port)| Endpoint::new(ip.into(), port))
        .collect();
    let completed_honest = w.guest.accepted.iter().filter(|e| honest.contains(e)).count();
    assert_eq!(completed, completed_honest, "nobody else got a connection");
    // The flood's half-open entries run out.
    w.is_uploading = false;
    w.wait_until(end_us + 130_000_000);
    let after = in_use(&w.firmware);
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        // Uploads under way hold pages, wait with acknowledgements, and their frames for the processor; now there are none.
        let is_of_uploads = name.contains("pages") || name.contains("fifo") || *name == "timers";
        // Nobody takes the events of pools that filled.
        let same = after == before || (is_of_uploads && after < before) || *name == "events";
        assert!(same, "{name}: {before} before the flood, {after} after it");
    }
    assert!(is_balanced(&w.firmware));
    Result {
        completed: completed_honest as u32,
        handshake_us: w.handshake_us,
        bytes: bytes.saturating_sub(honest_bytes),
        resets,
        dropped,
        cookies,
        most_steps,
    }
}

/// The same with and without the flood.
fn show(name: &str, units_per_us: u32, with_options: bool) {
    let duration_us = if is_long() { 10_000_000 } else { 100_000 };
    let honest = if is_long() { 10_000 } else { 100 };
    let mut profile = standard_card();
    profile.limits.work_units_per_us = units_per_us;
    let of = |syns_per_s| Run { profile: profile.clone(), syns_per_s, with_options, duration_us, honest };
    let calm = run(&of(0));
    let mut flood = run(&of(1_000_000));
    let p99 = percentile(&mut flood.handshake_us, 99);
    println!(
        "{name}: {} SYNs, {} cookies, {} frames dropped, {} resets; {} of {honest} honest connections, handshakes' 99th \
         percentile {p99} us of {RTT_US} us round trip; uploads {} bytes, without flood {} ({} per mille); most {} steps",
        duration_us,
        flood.cookies,
        flood.dropped,
        flood.resets,
        flood.completed,
        flood.bytes,
        calm.bytes,
        flood.bytes * 1000 / calm.bytes,
        flood.most_steps,
    );
    assert_eq!((calm.completed, flood.completed), (honest, honest));
    assert!(p99 <= RTT_US + 5_000, "{p99} us");
    assert!(flood.bytes * 100 >= calm.bytes * 99, "{} of {} bytes", flood.bytes, calm.bytes);
    assert_eq!((flood.resets, flood.dropped), (0, 0));
    assert!(flood.cookies > duration_us * 9 / 10);
    assert!(flood.most_steps <= 64);
}

#[test]
fn a_syn_flood_costs_honest_clients_and_established_connections_nothing() {
    show("SYN flood", 0, false);
}

#[test]
fn nor_does_one_with_options() {
    show("SYN flood with options", 0, true);
}

#[test]
fn nor_on_a_card_whose_processor_is_finite() {
    show("SYN flood, 32 steps per us", 32, true);
}

/// A flood of several times what the processor can look at: whoever comes new has little luck, and what is established does not
/// notice.
#[test]
fn a_flood_beyond_the_processor_costs_established_connections_nothing() {
    let duration_us = if is_long() { 10_000_000 } else { 100_000 };
    let mut profile = standard_card();
    profile.limits.work_units_per_us = 4;
    let of = |syns_per_s| Run { profile: profile.clone(), syns_per_s, with_options: true, duration_us, honest: 0 };
    let (calm, flood) = (run(&of(0)), run(&of(1_000_000)));
    println!(
        "SYN flood, 4 steps per us: {duration_us} SYNs, {} dropped; uploads {} bytes, without flood {} ({} per mille)",
        flood.dropped,
        flood.bytes,
        calm.bytes,
        flood.bytes * 1000 / calm.bytes
    );
    assert!(flood.dropped > duration_us / 2, "the flood is more than the processor can look at");
    assert!(flood.bytes * 100 >= calm.bytes * 99, "{} of {} bytes", flood.bytes, calm.bytes);
    assert_eq!(flood.resets, 0);
}

#[test]
fn without_cookies_the_same_flood_leaves_nothing_to_others() {
    // The test that the flood is one.
    let mut profile = standard_card();
    profile.tcp.syn_cookies = SynCookies::Off;
    (profile.policy.half_open, profile.policy.backlog) = (Refusal::Deny, Refusal::Deny);
    let flood = run(&Run { profile, syns_per_s: 1_000_000, with_options: false, duration_us: 50_000, honest: 50 });
    assert!(flood.completed < 10, "{flood:?}");
}

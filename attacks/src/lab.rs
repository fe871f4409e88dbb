//! The laboratory: a card under attack, and the honest around it, in virtual time.
//!
//! Four stand around one router: the *card* (the firmware, and a program in its guest), the guest's own *kernel* (what the
//! card passes on reaches it), the *world* (everybody honest: a second firmware with programs that connect, send, receive
//! and check every byte), and the attacker, who can send the card any frame at any time and sees what the card sends to
//! any address that is not the world's. Nobody reads a clock: an hour here is a moment, and the same seed gives the same run.
//!
//! The world has two addresses. What is sent in bulk goes over a bottleneck ([`BULK_BITS_PER_S`] in each direction) that
//! 64 connections, each with [`crate::program::SOURCE_BYTES_PER_S`] to send, fill to 94 %: what is late is late for good, and
//! answers that an attacker makes the card send there displace data. New connections come from the other address, which has no
//! bottleneck. The attacker's frames share neither with them: what honest ones lose, they lose on the card.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toe_abi::FRAME_BYTES_MAX;
use toe_firmware::{Checksum, Firmware, Instant, Lane, Limits, Policy, Profile, Refusal, Verdict};
use toe_impair::{Link, Random, Rate, Spec};

use crate::frames::{Tcp, destination};
use crate::program::{Program, Role, port};
use crate::steps::Steps;

/// The guest, on the card and in its kernel.
pub const GUEST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
/// The world's end of the bulk connections.
pub const BULK: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// Where new connections come from, and go to.
pub const CLIENTS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));

/// Of the bottleneck, in each direction.
pub const BULK_BITS_PER_S: u64 = 40_000_000;
/// A round trip to the world, queues apart, in microseconds.
pub const ROUND_TRIP_US: u64 = 10_000;
/// Established connections that move data, half of them in each direction.
pub const ESTABLISHED: usize = 64;

/// What the standard card's processor does in a microsecond: one segment of those that cost the most.
const WORK_UNITS_PER_US: u32 = 64;

/// The standard card: 1,024 of everything, 8 MiB of payload memory.
pub fn standard_card() -> Profile {
    Profile {
        limits: Limits {
            contexts: 8,
            connections: 1024,
            half_open: 1024,
            time_wait: 1024,
            page_bytes: 1024,
            send_pages: 4096,
            receive_pages: 4096,
            connection_send_pages: 256,
            connection_receive_pages: 256,
            transmit_records: 8192,
            work_units_per_us: WORK_UNITS_PER_US,
            ..Limits::default()
        },
        ..Profile::default()
    }
}

/// What the world and the kernel run on: room enough for anything. Full, they drop.
fn roomy(connections: u32) -> Profile {
    Profile {
        limits: Limits {
            connections,
            half_open: 16_384,
            time_wait: 32_768,
            page_bytes: 1024,
            send_pages: connections * 2 + 16_384,
            receive_pages: connections * 2 + 16_384,
            connection_send_pages: 256,
            connection_receive_pages: 256,
            transmit_records: connections * 4 + 8192,
            ..Limits::default()
        },
        policy: Policy { connections: Refusal::Deny, half_open: Refusal::Deny, ..Policy::default() },
        ..Profile::default()
    }
}

/// A firmware and the program in its guest.
#[derive(Debug)]
pub struct Stack {
    /// The firmware.
    pub firmware: Firmware,
    /// The program.
    pub program: Program,
    /// Channel frames for other processes of the guest.
    pub unheard: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Stack {
    fn new(profile: &Profile, seed: u64, program: Program) -> Self {
        let mut bytes = [0; 32];
        Random::new(seed).fill(&mut bytes);
        // A profile of this crate is valid; if not, every attack fails at once and says so.
        let firmware = Firmware::new(profile, bytes, 1, Instant::from_us(START_US)).expect("a valid profile");
        Self { firmware, program, unheard: Vec::new(), buffer: vec![0; FRAME_BYTES_MAX] }
    }

    /// Carries frames between program and firmware until both are silent.
    fn talk(&mut self, now_us: u64) -> bool {
        let now = Instant::from_us(now_us);
        let mut moved = false;
        loop {
            let mut quiet = true;
            while let Some(length) = self.program.speak(now_us, &mut self.buffer) {
                quiet = false;
                let verdict = self.firmware.handle_guest(now, &self.buffer[..length]);
                debug_assert!(verdict == Verdict::Taken, "a channel frame would reach the wire");
            }
            while let Some(length) = self.firmware.poll_guest(now, &mut self.buffer) {
                quiet = false;
                if !self.program.hear(now_us, &self.buffer[..length]) {
                    self.unheard.push(self.buffer[..length].to_vec());
                }
            }
            if quiet {
                return moved;
            }
            moved = true;
        }
    }

    /// Pools by name: capacity, in use, high water, refusals.
    pub fn pools(&self) -> BTreeMap<String, Pool> {
        let pool = |l: toe_abi::LimitEntry<'_>| Pool {
            capacity: l.capacity,
            in_use: l.in_use,
            high_water: l.high_water,
            refused: l.refusals.iter().map(|(_, n)| *n).sum(),
        };
        self.firmware.limits().map(|l| (l.name.to_owned(), pool(l))).collect()
    }

    /// A counter; zero if there is none of that name.
    pub fn counter(&self, name: &str) -> u64 {
        self.firmware.counters().find(|c| c.name == name).map_or(0, |c| c.value)
    }
}

/// A pool, as LIMITS tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Pool {
    /// How many there are.
    pub capacity: u64,
    /// How many are in use.
    pub in_use: u64,
    /// The most that were ever.
    pub high_water: u64,
    /// Refusals for any reason.
    pub refused: u64,
}

/// When the card boots: not at zero, so that the clock of the sequence numbers has gone a while.
pub const START_US: u64 = 1_000_000_000;

/// Who sent the card a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    Honest,
    Attackers,
}

/// Which way a frame goes.
#[derive(Clone, Copy)]
enum Way {
    Bulk,
    Clients,
}

/// See the module's text.
#[derive(Debug)]
pub struct Lab {
    /// The time, in microseconds.
    pub now_us: u64,
    /// The card.
    pub card: Stack,
    /// The guest's kernel.
    pub kernel: Stack,
    /// Everybody honest.
    pub world: Stack,
    to_card: [Link; 2],
    to_world: [Link; 2],
    /// What the card sent to the attacker's addresses and nobody has read yet.
    pub inbox: Vec<Vec<u8>>,
    /// Frames that wait for the card's processor in each lane, the oldest first.
    busy: [VecDeque<(Vec<u8>, Whose)>; Lane::COUNT],
    /// What the card said to processes of the guest that are not the honest one.
    pub to_other_guests: Vec<Vec<u8>>,
    /// Frames that the attacker sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that the card sent to the attacker's addresses, and their bytes.
    pub answered: (u64, u64),
    /// Of the attacker's frames, those that the card passed on.
    pub passed_on: u64,
    /// Steps of the firmware for each segment from the wire.
    pub steps: Steps,
    /// The same for each call of its timers.
    pub timer_steps: Steps,
    /// Connections that the card refused and the kernel opened: places among the guest's, and among the kernel's.
    pub carried: BTreeMap<usize, usize>,
    buffer: Vec<u8>,
    next_port: u16,
}

impl Lab {
    /// A card with that profile, its guest, its kernel and the world, all at rest.
    pub fn new(profile: &Profile, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let world_addresses = vec![BULK, CLIENTS];
        let mut card =
            Stack::new(profile, random.bits(), Program::new(1 << 64 | 1, vec![GUEST], world_addresses.clone()));
        let mut kernel =
            Stack::new(&roomy(32_768), random.bits(), Program::new(1 << 64 | 2, vec![GUEST], world_addresses.clone()));
        let mut world =
            Stack::new(&roomy(16_384), random.bits(), Program::new(1 << 64 | 3, world_addresses, vec![GUEST]));
        for stack in [&mut card, &mut kernel, &mut world] {
            stack.program.hello();
            stack.talk(START_US);
            stack.program.serve(16_384);
            stack.talk(START_US);
        }
        let delay_us = ROUND_TRIP_US / 2;
        let rate = Some(Rate { bits_per_s: BULK_BITS_PER_S, queue_bytes: 250_000 });
        let mut link = |rate| Link::new(Spec { delay_us, rate, ..Spec::default() }, random.bits());
        Self {
            now_us: START_US,
            card,
            kernel,
            world,
            to_card: [link(rate), link(None)],
            to_world: [link(rate), link(None)],
            inbox: Vec::new(),
            busy: Default::default(),
            to_other_guests: Vec::new(),
            sent: 0,
            sent_bytes: 0,
            answered: (0, 0),
            passed_on: 0,
            steps: Steps::default(),
            timer_steps: Steps::default(),
            carried: BTreeMap::new(),
            buffer: vec![0; FRAME_BYTES_MAX],
            next_port: 10_000,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_us(self.now_us)
    }

    /// A frame reaches the card from the wire.
    fn at_card(&mut self, frame: &[u8], whose: Whose) {
        let verdict = self.card.firmware.handle_wire(self.now(), frame, Checksum::Unverified);
        if let Verdict::Wait(lane) = verdict {
            self.busy[lane as usize].push_back((frame.to_vec(), whose));
        } else {
            self.dealt_with(frame, whose, verdict);
        }
    }

    /// The card has made up its mind about a frame from the wire.
    fn dealt_with(&mut self, frame: &[u8], whose: Whose, verdict: Verdict) {
        self.steps.note(self.card.firmware.work().last);
        if verdict == Verdict::PassOn {
            self.passed_on += u64::from(whose == Whose::Attackers);
            // The kernel is a firmware, too: what it does not know it would pass on, to nobody.
            let _ = self.kernel.firmware.handle_wire(self.now(), frame, Checksum::Unverified);
        }
    }

    /// Frames that waited for the card's processor, as many as it has time for.
    fn hand_in_busy(&mut self) -> bool {
        let mut moved = false;
        while let Some(lane) = self.card.firmware.next_waiting(self.now()) {
            let Some((lane, (frame, whose))) = lane.oldest(&mut self.busy) else { break };
            let verdict = self.card.firmware.handle_waiting(self.now(), lane, &frame, Checksum::Unverified);
            self.dealt_with(&frame, whose, verdict);
            moved = true;
        }
        moved
    }

    /// The attacker sends the card a frame.
    pub fn inject(&mut self, frame: &[u8]) {
        self.sent += 1;
        self.sent_bytes += frame.len() as u64;
        self.at_card(frame, Whose::Attackers);
        self.fetch_from_card();
    }

    /// The attacker sends a segment.
    pub fn send(&mut self, tcp: &Tcp<'_>) {
        let mut frame = std::mem::take(&mut self.buffer);
        tcp.write(&mut frame);
        self.inject(&frame);
        self.buffer = frame;
    }

    /// Another process of the guest sends a frame.
    pub fn say(&mut self, frame: &[u8]) {
        self.sent += 1;
        self.sent_bytes += frame.len() as u64;
        if self.card.firmware.handle_guest(self.now(), frame) == Verdict::PassOn {
            self.leave(frame);
        }
        self.card.talk(self.now_us);
        self.to_other_guests.append(&mut self.card.unheard);
        self.fetch_from_card();
    }

    /// A frame of the guest's own network: to the world, or to the attacker.
    fn leave(&mut self, frame: &[u8]) {
        match destination(frame) {
            Some(BULK) => self.to_world[Way::Bulk as usize].push(self.now_us, frame.to_vec()),
            Some(CLIENTS) => self.to_world[Way::Clients as usize].push(self.now_us, frame.to_vec()),
            _ => {
                self.answered.0 += 1;
                self.answered.1 += frame.len() as u64;
                self.inbox.push(frame.to_vec());
            }
        }
    }

    fn fetch_from_card(&mut self) -> bool {
        let mut frame = vec![];
        let mut moved = false;
        let mut buffer = std::mem::take(&mut self.card.buffer);
        while let Some(length) = self.card.firmware.poll_wire(self.now(), &mut buffer) {
            moved = true;
            frame.clear();
            frame.extend_from_slice(&buffer[..length]);
            self.leave(&frame);
        }
        self.card.buffer = buffer;
        moved
    }

    /// One frame in each direction and everything due: whether anything moved.
    fn step(&mut self) -> bool {
        let now_us = self.now_us;
        let now = self.now();
        let mut moved = self.hand_in_busy();
        while self.card.firmware.poll_event().is_some() {}
        for way in [Way::Bulk, Way::Clients] {
            while let Some(frame) = self.to_card[way as usize].pop(now_us) {
                self.at_card(&frame, Whose::Honest);
                moved = true;
            }
            while let Some(frame) = self.to_world[way as usize].pop(now_us) {
                let _ = self.world.firmware.handle_wire(now, &frame, Checksum::Unverified);
                moved = true;
            }
        }
        if self.card.firmware.poll_timeout().is_some_and(|at| at <= now) {
            self.card.firmware.handle_timeout(now);
            self.timer_steps.note(self.card.firmware.work().last);
            moved = true;
        }
        for stack in [&mut self.kernel, &mut self.world] {
            if stack.firmware.poll_timeout().is_some_and(|at| at <= now) {
                stack.firmware.handle_timeout(now);
                moved = true;
            }
        }
        moved |= self.card.talk(now_us);
        self.to_other_guests.append(&mut self.card.unheard);
        for at in std::mem::take(&mut self.card.program.fell_back) {
            let conn = &self.card.program.conns[at];
            let (local, remote) = conn.ends;
            let role = conn.role;
            let carried = self.kernel.program.connect(now_us, local, remote, role);
            self.carried.insert(at, carried);
        }
        moved |= self.kernel.talk(now_us) | self.world.talk(now_us);
        moved |= self.fetch_from_card();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(FRAME_BYTES_MAX, 0);
        while let Some(length) = self.kernel.firmware.poll_wire(now, &mut buffer) {
            moved = true;
            if self.card.firmware.handle_guest(now, &buffer[..length]) == Verdict::PassOn {
                self.leave(&buffer[..length]);
            }
        }
        while let Some(length) = self.world.firmware.poll_wire(now, &mut buffer) {
            moved = true;
            let frame = &buffer[..length];
            let from = Tcp::read(frame).map(|t| t.from.ip());
            let way = if from == Some(BULK) { Way::Bulk } else { Way::Clients };
            self.to_card[way as usize].push(now_us, frame.to_vec());
        }
        self.buffer = buffer;
        moved
    }

    fn next_us(&mut self) -> u64 {
        let links = self.to_card.iter().chain(&self.to_world).filter_map(Link::next_us).min();
        let stacks = [&mut self.card, &mut self.kernel, &mut self.world];
        let stacks = stacks.into_iter().flat_map(|s| {
            [s.firmware.poll_timeout().map(Instant::as_us), Some(s.program.next_us())].into_iter().flatten()
        });
        stacks.chain(links).min().unwrap_or(u64::MAX)
    }

    /// Runs until `until_us`, with an attacker or without.
    pub fn run(&mut self, until_us: u64, mut attacker: Option<&mut dyn Attacker>) {
        loop {
            loop {
                let mut moved = self.step();
                if let Some(attacker) = attacker.as_deref_mut() {
                    for frame in std::mem::take(&mut self.inbox) {
                        moved = true;
                        if let Some(tcp) = Tcp::read(&frame) {
                            attacker.hear(self, &tcp);
                        }
                    }
                    if attacker.next_us() <= self.now_us {
                        moved = true;
                        attacker.act(self);
                    }
                } else {
                    self.inbox.clear();
                }
                if !moved {
                    break;
                }
            }
            let mut next_us = self.next_us().max(self.now_us + 1);
            if let Some(attacker) = attacker.as_deref_mut() {
                next_us = next_us.min(attacker.next_us());
            }
            if next_us > until_us {
                self.now_us = until_us;
                return;
            }
            self.now_us = next_us;
        }
    }

    /// A new honest connection to the guest's echo service; its place among the world's.
    pub fn client(&mut self) -> usize {
        let local = SocketAddr::new(CLIENTS, self.port());
        self.world.program.connect(self.now_us, local, SocketAddr::new(GUEST, port::ECHO), Role::Client)
    }

    /// A new connection of the guest to the world's echo service; its place among the guest's.
    ///
    /// If the card asks for it, the kernel opens it: see [`Self::carried`].
    pub fn outbound(&mut self) -> usize {
        let local = SocketAddr::new(GUEST, self.port());
        self.card.program.connect(self.now_us, local, SocketAddr::new(CLIENTS, port::ECHO), Role::Client)
    }

    /// A bulk connection; its place among the world's.
    pub fn bulk(&mut self, to_card: bool) -> usize {
        let local = SocketAddr::new(BULK, self.port());
        let (port, role) = if to_card { (port::SINK, Role::Source) } else { (port::SOURCE, Role::Sink) };
        self.world.program.connect(self.now_us, local, SocketAddr::new(GUEST, port), role)
    }

    /// An idle connection of an honest client.
    pub fn idle(&mut self) -> usize {
        let local = SocketAddr::new(CLIENTS, self.port());
        self.world.program.connect(self.now_us, local, SocketAddr::new(GUEST, port::IDLE), Role::Idle)
    }

    fn port(&mut self) -> u16 {
        self.next_port = if self.next_port == u16::MAX { 10_000 } else { self.next_port + 1 };
        self.next_port
    }
}

/// Who attacks: it acts when it wants to, and reads what the card sends to it.
pub trait Attacker {
    /// When it acts next, in microseconds; `u64::MAX`: only when it hears something.
    fn next_us(&self) -> u64;
    /// It is that time. It must move its next time on.
    fn act(&mut self, lab: &mut Lab);
    /// The card sent this to one of its addresses.
    fn hear(&mut self, lab: &mut Lab, tcp: &Tcp<'_>) {
        let _ = (lab, tcp);
    }
}

impl Lab {
    /// Whether a connection of the guest has got its answer, on the card or by the kernel.
    pub fn is_answered(&self, outbound: usize) -> bool {
        let by_kernel = self.carried.get(&outbound).map(|at| &self.kernel.program.conns[*at]);
        by_kernel.unwrap_or(&self.card.program.conns[outbound]).answered_us.is_some()
    }
}

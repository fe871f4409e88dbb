//! The card as an end: the firmware, the guest's driver, and a channel between them that may be bad, too.
//!
//! Everything that the firmware promises of every single frame is checked here: what it sends on the wire has right
//! addresses, lengths and checksums; what it sends on the channel stays within what the guest said it can hold.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use toe_abi::{FRAME_BYTES_MAX, Message, Parsed, Reason, state};
use toe_firmware::{Checksum, Firmware, Instant, Profile, Verdict};
use toe_impair::{Link, Random, Spec};

use crate::end::{End, Flow, Pair, Read, Status};
use crate::frames::segment;
use crate::guest::{Guest, Settings};
use crate::host::{Host, Slots, merged};
use crate::hostile::Intruder;
use crate::kernel;
use crate::scenario::Kind;
use crate::transcript::Transcript;
use crate::work::Costs;

const ETHERNET_HEADER_BYTES: usize = 14;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call to a firmware.
pub fn is_inside_firmware() -> bool {
    // An allocation while the thread ends is none of the firmware's.
    INSIDE.try_with(Cell::get).unwrap_or(false)
}

/// Runs `call` as if it were one to a firmware.
pub fn marked_as_inside<R>(call: impl FnOnce() -> R) -> R {
    INSIDE.with(|i| i.set(true));
    let result = call();
    INSIDE.with(|i| i.set(false));
    result
}

/// Frames handed in at one side, and those of them that were passed on.
#[derive(Clone, Copy, Default)]
struct Handed {
    frames: u64,
    passed: u64,
}

impl Handed {
    fn count(&mut self, verdict: Verdict) {
        if verdict == Verdict::Wait {
            return;
        }
        self.frames += 1;
        self.passed += u64::from(verdict == Verdict::PassOn);
    }
}

/// The firmware, every call of it marked for [`is_inside_firmware`] and every frame counted.
pub struct Boxed {
    firmware: Firmware,
    buffer: Vec<u8>,
    from_wire: Handed,
    from_guest: Handed,
    to_wire: u64,
    to_guest: u64,
    /// What frames from the wire and to it have cost.
    costs: [Costs; 2],
}

impl Boxed {
    pub fn new(profile: &Profile, seed: u64, epoch: u32, now_us: u64) -> Self {
        let mut bytes = [0; 32];
        Random::new(seed).fill(&mut bytes);
        let firmware = Firmware::new(profile, bytes, epoch, Instant::from_us(now_us)).expect("a valid profile");
        let (from_wire, from_guest) = (Handed::default(), Handed::default());
        Self {
            firmware,
            buffer: vec![0; FRAME_BYTES_MAX],
            from_wire,
            from_guest,
            to_wire: 0,
            to_guest: 0,
            costs: Default::default(),
        }
    }

    fn inside<R>(&mut self, call: impl FnOnce(&mut Firmware, &mut [u8]) -> R) -> R {
        marked_as_inside(|| call(&mut self.firmware, &mut self.buffer))
    }

    pub fn handle_wire(&mut self, now_us: u64, frame: &[u8]) -> Verdict {
        let verdict = self.inside(|f, _| f.handle_wire(Instant::from_us(now_us), frame, Checksum::Unverified));
        self.from_wire.count(verdict);
        self.costs[0].add(self.firmware.work().last);
        verdict
    }

    /// Hands in the oldest frame that waits for the processor.
    pub fn handle_waiting(&mut self, now_us: u64, frame: &[u8]) -> Verdict {
        let verdict = self.inside(|f, _| f.handle_waiting(Instant::from_us(now_us), frame, Checksum::Unverified));
        self.from_wire.count(verdict);
        self.costs[0].add(self.firmware.work().last);
        verdict
    }

    pub fn handle_guest(&mut self, now_us: u64, frame: &[u8]) -> Verdict {
        let verdict = self.inside(|f, _| f.handle_guest(Instant::from_us(now_us), frame));
        self.from_guest.count(verdict);
        verdict
    }

    pub fn handle_timeout(&mut self, now_us: u64) {
        self.inside(|f, _| f.handle_timeout(Instant::from_us(now_us)));
    }

    pub fn next_us(&mut self) -> Option<u64> {
        self.inside(|f, _| f.poll_timeout()).map(Instant::as_us)
    }

    pub fn poll_wire(&mut self, now_us: u64) -> Option<Vec<u8>> {
        let length = self.inside(|f, b| f.poll_wire(Instant::from_us(now_us), b))?;
        self.to_wire += 1;
        self.costs[1].add(self.firmware.work().last);
        Some(self.buffer[..length].to_vec())
    }

    pub fn poll_guest(&mut self, now_us: u64) -> Option<Vec<u8>> {
        let length = self.inside(|f, b| f.poll_guest(Instant::from_us(now_us), b))?;
        self.to_guest += 1;
        Some(self.buffer[..length].to_vec())
    }

    /// What frames from the wire and to it have cost, in steps.
    pub fn costs(&self) -> &[Costs; 2] {
        &self.costs
    }

    /// Frames received = taken + passed on + dropped by reason, at both sides, and as many as were handed in.
    pub fn check_accounts(&self) {
        let counters: BTreeMap<_, _> = self.firmware.counters().map(|c| (c.name, c.value)).collect();
        for (side, handed, sent) in [("wire", self.from_wire, self.to_wire), ("guest", self.from_guest, self.to_guest)]
        {
            let count = |what: &str| counters[format!("{side}-{what}").as_str()];
            let prefix = format!("{side}-drop-");
            let dropped: u64 = counters.iter().filter(|(n, _)| n.starts_with(&prefix)).map(|(_, v)| v).sum();
            assert_eq!(count("in"), handed.frames, "{side}: frames handed in");
            assert_eq!(count("passed"), handed.passed, "{side}: frames passed on");
            assert_eq!(count("taken") + count("passed") + dropped, count("in"), "{side}: {counters:?}");
            assert_eq!(count("out"), sent, "{side}: frames sent");
        }
    }

    /// The most of a pool that were in use at once.
    pub fn high_water(&self, pool: &str) -> u64 {
        self.firmware.limits().find(|l| l.name == pool).map_or(0, |l| l.high_water)
    }

    /// How many of each pool are in use.
    pub fn in_use(&self) -> BTreeMap<String, u64> {
        self.firmware.limits().map(|l| (l.name.to_owned(), l.in_use)).collect()
    }
}

/// What the card may have on its way to the guest, from what passed the channel.
#[derive(Default)]
struct Ledger {
    /// Per connection: the highest offset sent to the guest, what the guest said it has, and its limit.
    streams: BTreeMap<u64, (u64, u64, Option<u64>)>,
}

impl Ledger {
    /// The card was handed `frame`.
    fn told(&mut self, frame: &[u8], window_bytes: u64) {
        let Ok(parsed) = Parsed::new(frame) else { return };
        for message in parsed.messages.flatten() {
            match message {
                Message::ReceiveCredit(m) => {
                    let (_, held, limit) = self.streams.entry(m.connection).or_insert((0, 0, None));
                    *held = (*held).max(m.held);
                    *limit = Some(limit.unwrap_or(window_bytes).max(m.limit));
                }
                Message::Release(m) => drop(self.streams.remove(&m.connection)),
                Message::Abort(m) => drop(self.streams.remove(&m.connection)),
                _ => (),
            }
        }
    }

    /// The card sent `frame`.
    fn said(&mut self, frame: &[u8], settings: &Settings) {
        let parsed = Parsed::new(frame).expect("the card's frames are well-formed");
        for message in parsed.messages.flatten() {
            match message {
                Message::Received(m, data) => {
                    let (sent, held, limit) = self.streams.entry(m.connection).or_insert((0, 0, None));
                    let end = m.offset + data.len() as u64;
                    let limit = limit.unwrap_or(settings.window_bytes);
                    assert!(!data.is_empty(), "a RECEIVED without data");
                    assert!(end <= limit, "RECEIVED up to {end}, the guest's limit is {limit}");
                    assert!(m.offset >= *held, "RECEIVED at {}, the guest has all before {held}", m.offset);
                    *sent = (*sent).max(end);
                }
                Message::State(m) if m.bits & state::ABORTED != 0 => drop(self.streams.remove(&m.connection)),
                _ => (),
            }
        }
        let outstanding: u64 = self.streams.values().map(|(sent, held, _)| sent.saturating_sub(*held)).sum();
        let most = settings.receive_bytes_max;
        assert!(outstanding <= most, "{outstanding} bytes on their way to the guest, it can take {most}");
    }
}

/// How bad the channel is and how the guest takes from it.
#[derive(Clone, Debug)]
pub struct Channel {
    pub to_guest: Spec,
    pub to_card: Spec,
    /// Receive buffers of the guest: frames that can be on their way to it.
    pub guest_buffers: u64,
}

/// The card and its guest.
pub struct CardEnd {
    card: Boxed,
    host: Host,
    slots: Slots,
    /// A frame from the wire that the next may be merged with.
    unmerged: Option<Vec<u8>>,
    /// Frames that wait for the card's processor.
    busy: VecDeque<Vec<u8>>,
    guest: Guest,
    to_guest: Link,
    to_card: Link,
    guest_buffers: u64,
    /// Frames of the guest's kernel that the card let through to the wire.
    passed_to_wire: VecDeque<Vec<u8>>,
    ledger: Ledger,
    transcript: Transcript,
    /// Frames that the card passed on to the guest's kernel.
    pub passed_to_guest: u64,
    /// Another, hostile process in the guest.
    pub intruder: Option<Intruder>,
}

impl CardEnd {
    pub fn new(name: &'static str, profile: &Profile, settings: Settings, channel: &Channel, seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            card: Boxed::new(profile, random.bits(), 1, 0),
            host: Host::IDEAL,
            slots: Slots::default(),
            unmerged: None,
            busy: VecDeque::new(),
            guest: Guest::new(settings, random.bits()),
            to_guest: Link::new(channel.to_guest, random.bits()),
            to_card: Link::new(channel.to_card, random.bits()),
            guest_buffers: channel.guest_buffers,
            passed_to_wire: VecDeque::new(),
            ledger: Ledger::default(),
            transcript: Transcript::new(name),
            passed_to_guest: 0,
            intruder: None,
        }
    }

    /// Puts it into a host with such habits.
    pub fn with_host(self, host: Host) -> Self {
        Self { host, ..self }
    }

    pub fn card(&mut self) -> &mut Boxed {
        &mut self.card
    }

    pub fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    /// A frame reaches the card.
    fn hand_in(&mut self, now_us: u64, frame: &[u8]) {
        let verdict = self.card.handle_wire(now_us, frame);
        if verdict == Verdict::Wait {
            return self.busy.push_back(frame.to_vec());
        }
        self.handed_in(now_us, frame, verdict);
    }

    fn handed_in(&mut self, now_us: u64, frame: &[u8], verdict: Verdict) {
        match verdict {
            Verdict::Taken | Verdict::Wait => (),
            Verdict::PassOn => {
                self.passed_to_guest += 1;
                if let Some(answer) = kernel::answer(frame) {
                    let verdict = self.card.handle_guest(now_us, &answer);
                    assert_eq!(verdict, Verdict::PassOn, "an ordinary frame of the guest was kept");
                    self.passed_to_wire.push_back(answer);
                }
            }
        }
    }

    /// Moves frames over the channel until nothing moves at `now_us`.
    fn move_channel(&mut self, now_us: u64) {
        loop {
            let mut moved = false;
            self.guest.handle_timeout(now_us);
            while let Some(frame) = self.guest.poll_frame(now_us) {
                self.to_card.push(now_us, frame);
                moved = true;
            }
            while let Some(frame) = self.to_card.pop(now_us) {
                self.transcript.frame(now_us, "guest > card", &frame);
                self.ledger.told(&frame, self.guest.settings().window_bytes);
                self.let_in_the_intruder(now_us, &frame);
                let verdict = self.card.handle_guest(now_us, &frame);
                assert_eq!(verdict, Verdict::Taken, "a channel frame would reach the wire");
                moved = true;
            }
            while self.under_way_to_guest() < self.guest_buffers {
                let Some(frame) = self.card.poll_guest(now_us) else { break };
                self.transcript.frame(now_us, "card > guest", &frame);
                moved = true;
                if let Some(intruder) = &mut self.intruder
                    && intruder.hears(&frame)
                {
                    continue;
                }
                self.ledger.said(&frame, self.guest.settings());
                self.to_guest.push(now_us, frame);
            }
            while let Some(frame) = self.to_guest.pop(now_us) {
                self.guest.handle_frame(now_us, &frame);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    /// Hands the card whatever the intruder makes up after it saw `frame` of the honest process.
    fn let_in_the_intruder(&mut self, now_us: u64, frame: &[u8]) {
        let Some(intruder) = &mut self.intruder else { return };
        for hostile in intruder.frames(now_us, frame) {
            self.transcript.frame(now_us, "intruder > card", &hostile);
            let verdict = self.card.handle_guest(now_us, &hostile);
            assert_eq!(verdict, Verdict::Taken, "a channel frame would reach the wire");
        }
    }

    fn under_way_to_guest(&self) -> u64 {
        let s = self.to_guest.statistics();
        s.offered + s.duplicated - s.lost - s.queue_dropped - s.delivered
    }

    /// What must hold when every program has let go and time has passed: nothing is left, nobody complained.
    pub fn check_rest(&mut self, kind: &Kind) {
        self.card.check_accounts();
        let in_use = self.card.in_use();
        for pool in ["connections", "half-open", "time-wait", "send-pages", "receive-pages", "transmit-records"] {
            let left = in_use.get(pool).unwrap_or_else(|| panic!("no pool `{pool}` among {in_use:?}"));
            assert_eq!(*left, 0, "{pool} are left: {in_use:?}");
        }
        assert_eq!(self.guest.firmware_events, 0, "the context was lost");
        for (reason, kind_of_message) in &self.guest.errors {
            // What comes late, or twice, may speak of a connection that is over.
            let may_be_late = kind.bad_channel && *reason == Reason::UnknownObject;
            assert!(may_be_late, "ERROR {reason} for a message of type {kind_of_message:#06x}");
        }
    }

    /// What must hold of every frame that the card itself made for the wire.
    fn check(&self, frame: &[u8]) {
        let settings = self.guest.settings();
        let s = segment(frame).expect("the card sends nothing but whole TCP segments");
        assert!(s.checksums_right, "a wrong checksum on the wire");
        if self.intruder.is_some() {
            // It names addresses as it likes.
            return;
        }
        assert!(settings.addresses.contains(&s.source), "sent from {}", s.source);
        assert_eq!(frame[..6], settings.next_hop.0, "destination of the Ethernet frame");
        assert_eq!(frame[6..12], settings.mac.0, "source of the Ethernet frame");
        let most = settings.mtu as usize + ETHERNET_HEADER_BYTES;
        assert!(frame.len() <= most, "{} bytes on the wire, the MTU allows {most}", frame.len());
    }
}

impl End for CardEnd {
    fn handle_frame(&mut self, now_us: u64, frame: Vec<u8>) {
        if let Some(first) = self.unmerged.take() {
            if let Some(one) = merged(&first, &frame) {
                self.unmerged = Some(one);
                return;
            }
            self.hand_in(now_us, &first);
        }
        if self.host.merges {
            // Until the host has seen all that came at this moment.
            self.unmerged = Some(frame);
        } else {
            self.hand_in(now_us, &frame);
        }
    }

    fn handle_timeout(&mut self, now_us: u64) {
        if let Some(frame) = self.unmerged.take() {
            self.hand_in(now_us, &frame);
        }
        if self.card.next_us().is_some_and(|due_us| due_us + self.host.late_us <= now_us) {
            self.card.handle_timeout(now_us);
        }
        while let Some(frame) = self.busy.pop_front() {
            let verdict = self.card.handle_waiting(now_us, &frame);
            if verdict == Verdict::Wait {
                self.busy.push_front(frame);
                break;
            }
            self.handed_in(now_us, &frame, verdict);
        }
        self.move_channel(now_us);
    }

    fn next_us(&mut self) -> Option<u64> {
        let links = [self.to_guest.next_us(), self.to_card.next_us()];
        let card_us = self.card.next_us().map(|due_us| due_us + self.host.late_us);
        links.into_iter().chain([card_us, Some(self.guest.next_us()), self.slots.next_us()]).flatten().min()
    }

    fn poll_frame(&mut self, now_us: u64) -> Option<Vec<u8>> {
        if !self.slots.has_room(now_us, &self.host) {
            return None;
        }
        let frame = self.passed_to_wire.pop_front().or_else(|| {
            let frame = self.card.poll_wire(now_us)?;
            self.check(&frame);
            Some(frame)
        })?;
        self.slots.take();
        self.transcript.frame(now_us, "> wire", &frame);
        Some(frame)
    }

    fn transcript(&self) -> u64 {
        self.transcript.hash()
    }

    fn connect(&mut self, now_us: u64, flow: Flow, pair: Pair) {
        self.guest.connect(now_us, flow, pair);
    }

    fn accept(&mut self, now_us: u64, flow: Flow, pair: Pair, any: Option<IpAddr>) {
        self.guest.accept(now_us, flow, pair, any.unwrap_or(pair.local.ip()));
    }

    fn status(&mut self, flow: Flow) -> Status {
        self.guest.status(flow)
    }

    fn write(&mut self, flow: Flow, bytes: &[u8]) -> usize {
        self.guest.write(flow, bytes)
    }

    fn read(&mut self, flow: Flow, bytes: &mut [u8]) -> Read {
        self.guest.read(flow, bytes)
    }

    fn shutdown(&mut self, flow: Flow) {
        self.guest.shutdown(flow);
    }

    fn all_acknowledged(&mut self, flow: Flow) -> bool {
        self.guest.all_acknowledged(flow)
    }

    fn abort(&mut self, flow: Flow) {
        self.guest.abort(flow);
    }

    fn release(&mut self, flow: Flow) {
        self.guest.release(flow);
    }

    fn all_released(&self) -> bool {
        self.guest.all_released()
    }
}

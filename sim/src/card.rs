//! The card as an end: the firmware, the guest's driver, and a channel between them that may be bad, too.
//!
//! What the card sends on the channel is checked here: it stays within what the guest said it can hold. What it sends on the
//! wire, [`crate::oracle`] checks.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use toe_abi::{FRAME_BYTES_MAX, Message, Parsed, Reason, state};
use toe_faults::{Action, Injector, Rules, Site};
use toe_firmware::{Call, Checksum, Contradiction, Firmware, Instant, Lane, Profile, Verdict, Way};
use toe_impair::{Link, Random, Spec};

use crate::costs::Costs;
use crate::end::{End, Flow, Pair, Read, Status, Streams};
use crate::excuse::Excuse;
use crate::frames::segment;
use crate::guest::{Guest, Settings};
use crate::host::{Host, Merger, Slots};
use crate::intruder::Intruder;
use crate::kernel;
use crate::passed;
use crate::transcript::Transcript;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a call to a firmware.
#[cfg(test)]
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

/// The calls whose steps are bounded, and the bounds: four times and more what six thousand seeds came to at most (276,
/// 336, 161, 158 and 235). They are for cards as small as the simulator's: a context with 64 connections ends in one call.
const CALLS: [Call; 5] = [Call::HandleWire, Call::HandleGuest, Call::HandleTimeout, Call::PollWire, Call::PollGuest];
const STEPS_MAX: [u64; 5] = [1_500, 1_500, 1_000, 1_000, 1_000];

/// Frames handed in at one side, and those of them that were passed on.
#[derive(Clone, Copy, Default)]
struct Handed {
    frames: u64,
    passed: u64,
}

impl Handed {
    fn count(&mut self, verdict: Verdict) {
        if matches!(verdict, Verdict::Wait(_)) {
            // It is counted when it is taken.
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
    said: Said,
    /// Whether it answered the guest's last frame with anything but silence: a firmware that stands still hears nothing.
    has_heard: bool,
}

/// What a firmware has said since it was last told anything, so that it need not be asked again.
#[derive(Default)]
struct Said {
    /// When it had nothing for the guest, and when nothing for the wire.
    nothing_for_guest: Option<u64>,
    nothing_for_wire: Option<u64>,
    /// When it wants to be called.
    next_us: Option<Option<u64>>,
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
            said: Said::default(),
            has_heard: false,
        }
    }

    fn inside<R>(&mut self, call: impl FnOnce(&mut Firmware, &mut [u8]) -> R) -> R {
        self.said = Said::default();
        marked_as_inside(|| call(&mut self.firmware, &mut self.buffer))
    }

    pub fn handle_wire(&mut self, now_us: u64, frame: &[u8]) -> Verdict {
        let verdict = self.inside(|f, _| f.handle_wire(Instant::from_us(now_us), frame, Checksum::Unverified));
        self.from_wire.count(verdict);
        if !matches!(verdict, Verdict::Wait(_)) {
            // Else nothing was done yet, and the last work was another call's.
            self.costs[0].add(self.firmware.work().last);
        }
        verdict
    }

    /// The lane whose oldest frame is to be handed in.
    pub fn next_waiting(&self, now_us: u64) -> Option<Lane> {
        self.firmware.next_waiting(Instant::from_us(now_us))
    }

    /// Hands in the oldest frame of a lane that waits for the processor.
    pub fn handle_waiting(&mut self, now_us: u64, lane: Lane, frame: &[u8]) -> Verdict {
        let now = Instant::from_us(now_us);
        let verdict = self.inside(|f, _| f.handle_waiting(now, lane, frame, Checksum::Unverified));
        self.from_wire.count(verdict);
        if !matches!(verdict, Verdict::Wait(_)) {
            // Else nothing was done yet, and the last work was another call's.
            self.costs[0].add(self.firmware.work().last);
        }
        verdict
    }

    /// What frames from the wire and to it have cost, in steps.
    #[cfg(test)]
    pub fn costs(&self) -> &[Costs; 2] {
        &self.costs
    }

    pub fn handle_guest(&mut self, now_us: u64, frame: &[u8]) -> Verdict {
        let beats = self.firmware.heartbeat();
        let verdict = self.inside(|f, _| f.handle_guest(Instant::from_us(now_us), frame));
        self.has_heard = self.firmware.heartbeat() != beats;
        self.from_guest.count(verdict);
        verdict
    }

    pub fn handle_timeout(&mut self, now_us: u64) {
        let now = Instant::from_us(now_us);
        self.inside(|f, _| {
            // A call does a bounded part of what is due. One that does nothing leaves what is due to others: a frame that waits for
            // the processor is for who hands it in.
            for _ in 0..TIMER_CALLS_MAX {
                f.handle_timeout(now);
                if f.work().last == 0 || f.poll_timeout().is_none_or(|at| at > now) {
                    break;
                }
            }
        });
    }

    pub fn next_us(&mut self) -> Option<u64> {
        if let Some(next_us) = self.said.next_us {
            return next_us;
        }
        let next_us = marked_as_inside(|| self.firmware.poll_timeout()).map(Instant::as_us);
        self.said.next_us = Some(next_us);
        next_us
    }

    /// Whether it had nothing for the wire at this moment, and nothing has happened to it since.
    pub fn has_nothing_for_wire(&self, now_us: u64) -> bool {
        self.said.nothing_for_wire == Some(now_us)
    }

    /// The next frame for the wire, until the next call.
    pub fn poll_wire(&mut self, now_us: u64) -> Option<&[u8]> {
        let Some(length) = self.inside(|f, b| f.poll_wire(Instant::from_us(now_us), b)) else {
            self.said.nothing_for_wire = Some(now_us);
            return None;
        };
        self.to_wire += 1;
        self.costs[1].add(self.firmware.work().last);
        Some(&self.buffer[..length])
    }

    /// The next channel frame for the guest, until the next call.
    pub fn poll_guest(&mut self, now_us: u64) -> Option<&[u8]> {
        if self.said.nothing_for_guest == Some(now_us) {
            return None;
        }
        let nothing_for_wire = self.said.nothing_for_wire;
        let Some(length) = self.inside(|f, b| f.poll_guest(Instant::from_us(now_us), b)) else {
            self.said.nothing_for_guest = Some(now_us);
            self.said.nothing_for_wire = nothing_for_wire;
            return None;
        };
        self.to_guest += 1;
        Some(&self.buffer[..length])
    }

    /// The most steps that any one call took, by kind.
    pub fn most_steps(&self) -> [u64; 5] {
        let work = self.firmware.work();
        CALLS.map(|call| work.most(call))
    }

    /// Nothing about the card's connections is in contradiction, when it has nothing to send.
    pub fn audit(&self, now_us: u64) {
        if let Err(Contradiction { what, place }) = self.firmware.audit() {
            panic!("at {now_us} us, connection at place {place}: {what}");
        }
    }

    /// Frames received = taken + passed on + dropped by reason, at both sides, and as many as were handed in.
    pub fn check_accounts(&self) {
        let sides = [("wire-", self.from_wire, self.to_wire), ("guest-", self.from_guest, self.to_guest)];
        for (prefix, handed, sent) in sides {
            let (mut came, mut passed, mut taken, mut dropped, mut out) = (0, 0, 0, 0, 0);
            for counter in self.firmware.counters() {
                match counter.name.strip_prefix(prefix) {
                    Some("in") => came = counter.value,
                    Some("passed") => passed = counter.value,
                    Some("taken") => taken = counter.value,
                    Some("out") => out = counter.value,
                    Some(rest) if rest.starts_with("drop-") => dropped += counter.value,
                    _ => (),
                }
            }
            assert_eq!(came, handed.frames, "{prefix}in: frames handed in");
            assert_eq!(passed, handed.passed, "{prefix}passed: frames passed on");
            assert_eq!(taken + passed + dropped, came, "{prefix}: taken {taken}, passed {passed}, dropped {dropped}");
            assert_eq!(out, sent, "{prefix}out: frames sent");
        }
    }

    /// The names of the counters that are not zero.
    #[cfg(test)]
    pub fn counted(&self) -> Vec<&'static str> {
        self.firmware.counters().filter(|c| c.value > 0).map(|c| c.name).collect()
    }

    /// The most of a pool that were in use at once.
    #[cfg(test)]
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
    entries: Vec<Entry>,
    /// Over all connections: sent to the guest and not yet held by it.
    outstanding: u64,
}

/// One connection in the ledger.
struct Entry {
    connection: u64,
    /// The highest offset sent to the guest.
    sent: u64,
    /// What the guest said it has.
    held: u64,
    limit: Option<u64>,
}

impl Ledger {
    fn entry(&mut self, connection: u64) -> &mut Entry {
        let at = self.entries.iter().position(|e| e.connection == connection).unwrap_or_else(|| {
            self.entries.push(Entry { connection, sent: 0, held: 0, limit: None });
            self.entries.len() - 1
        });
        &mut self.entries[at]
    }

    fn forget(&mut self, connection: u64) {
        if let Some(at) = self.entries.iter().position(|e| e.connection == connection) {
            let entry = self.entries.swap_remove(at);
            self.outstanding -= entry.sent.saturating_sub(entry.held);
        }
    }

    /// The card was handed `frame`.
    fn told(&mut self, frame: &[u8], window_bytes: u64) {
        let Ok(parsed) = Parsed::new(frame) else { return };
        for message in parsed.messages.flatten() {
            match message {
                Message::ReceiveCredit(m) => {
                    let entry = self.entry(m.connection);
                    let before = entry.sent.saturating_sub(entry.held);
                    entry.held = entry.held.max(m.held);
                    entry.limit = Some(entry.limit.unwrap_or(window_bytes).max(m.limit));
                    let after = entry.sent.saturating_sub(entry.held);
                    self.outstanding -= before - after;
                }
                Message::Release(m) => self.forget(m.connection),
                Message::Abort(m) => self.forget(m.connection),
                Message::Bye(_) => *self = Self::default(),
                _ => (),
            }
        }
    }

    /// The card sent `frame`.
    fn said(&mut self, frame: &[u8], settings: &Settings) {
        let parsed = Parsed::new(frame).expect("the card's frames are well-formed");
        if parsed.header.key != settings.key {
            // To a driver that is no more.
            return;
        }
        for message in parsed.messages.flatten() {
            match message {
                Message::Received(m, data) => {
                    let entry = self.entry(m.connection);
                    let end = m.offset + data.len() as u64;
                    let limit = entry.limit.unwrap_or(settings.window_bytes);
                    assert!(!data.is_empty(), "a RECEIVED without data");
                    assert!(end <= limit, "RECEIVED up to {end}, the guest's limit is {limit}");
                    assert!(
                        m.offset >= entry.held,
                        "RECEIVED at {}, the guest has all before {}",
                        m.offset,
                        entry.held
                    );
                    let before = entry.sent.saturating_sub(entry.held);
                    entry.sent = entry.sent.max(end);
                    let after = entry.sent.saturating_sub(entry.held);
                    self.outstanding += after - before;
                }
                Message::State(m) if m.bits & state::ABORTED != 0 => self.forget(m.connection),
                _ => (),
            }
        }
        let (outstanding, most) = (self.outstanding, settings.receive_bytes_max);
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
    /// Frames from the wire that the next may be merged with, if there are any.
    unmerged: Merger,
    /// Frames that wait for the card's processor.
    busy: [VecDeque<Vec<u8>>; Lane::COUNT],
    guest: Guest,
    /// The channel's two directions; none where it is perfect, and frames pass without a copy.
    channel: Option<[Link; 2]>,
    guest_buffers: u64,
    /// Frames of the guest's kernel that the card let through to the wire.
    passed_to_wire: VecDeque<Vec<u8>>,
    ledger: Ledger,
    transcript: Transcript,
    /// Frames that the card passed on to the guest's kernel.
    pub passed_to_guest: u64,
    name: &'static str,
    /// Whether faults are armed.
    is_armed: bool,
    /// What they may break.
    excuse: Excuse,
    /// The faults that were armed in the bad time.
    struck_before_mended: Option<Box<Injector>>,
    link_down_until_us: u64,
    /// Channel frames that a fault holds back: until when, to the card or not, and the frame.
    held: Vec<(u64, bool, Vec<u8>)>,
    /// The host does not look at the card's timers before then.
    deaf_until_us: u64,
    /// How often the card had nothing more to send.
    stills: u64,
    /// Another, hostile process in the guest.
    pub intruder: Option<Intruder>,
}

/// One in so many times that the card has nothing to send, everything on it is looked at.
const AUDIT_EVERY: u64 = 16;

/// So many calls are made for the timers of one moment at most.
const TIMER_CALLS_MAX: usize = 1_000;

/// When a host looks again whose wake was lost.
const LOST_WAKE_US: u64 = 1_000_000;

const TO_GUEST: usize = 0;
const TO_CARD: usize = 1;

impl CardEnd {
    pub fn new(name: &'static str, profile: &Profile, settings: Settings, channel: &Channel, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let is_perfect = channel.to_guest == Spec::default() && channel.to_card == Spec::default();
        let links = [channel.to_guest, channel.to_card].map(|spec| Link::new(spec, random.bits()));
        Self {
            card: Boxed::new(profile, random.bits(), 1, 0),
            host: Host::IDEAL,
            slots: Slots::default(),
            unmerged: Merger::default(),
            busy: Default::default(),
            guest: Guest::new(settings, random.bits()),
            channel: (!is_perfect).then_some(links),
            guest_buffers: channel.guest_buffers,
            passed_to_wire: VecDeque::new(),
            ledger: Ledger::default(),
            transcript: Transcript::new(name),
            passed_to_guest: 0,
            name,
            is_armed: false,
            excuse: Excuse::default(),
            struck_before_mended: None,
            link_down_until_us: 0,
            held: Vec::new(),
            deaf_until_us: 0,
            stills: 0,
            intruder: None,
        }
    }

    /// Puts it into a host with such habits.
    pub fn with_host(self, host: Host) -> Self {
        Self { host, ..self }
    }

    #[cfg(test)]
    pub fn card(&mut self) -> &mut Boxed {
        &mut self.card
    }

    #[cfg(test)]
    pub fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    pub fn settings(&self) -> &Settings {
        self.guest.settings()
    }

    /// The guest's driver ends, and another starts `pause_us` later.
    pub fn reset_driver(&mut self, now_us: u64, pause_us: u64, says_bye: bool) {
        self.transcript.note(now_us, if says_bye { "the driver leaves" } else { "the driver vanishes" });
        self.guest.reset(now_us, pause_us, says_bye);
        self.ledger = Ledger::default();
    }

    /// Arms faults; what they may break. Those of the channel strike where it is perfect otherwise.
    pub fn arm(&mut self, rules: Rules, seed: u64) -> Excuse {
        self.is_armed = true;
        self.excuse = Excuse::of(&rules, self.name);
        self.guest.may_be_refused = self.excuse.refuses.contains(&Reason::Listeners);
        self.guest.may_begin_late = self.excuse.begins_late;
        self.card.firmware.arm(rules.of_card(self.name), seed, Instant::default());
        self.excuse.clone()
    }

    /// From now on wrong bytes are expected.
    pub fn expect_wrong_bytes(&mut self) {
        self.guest.expects_wrong_bytes = true;
    }

    /// What armed faults may break.
    pub fn excuse(&self) -> &Excuse {
        &self.excuse
    }

    /// How many of the first bytes of a flow, of which `sent` were sent and `read` were read, its program cannot have read by
    /// its excuse.
    pub fn late_bytes(&self, flow: Flow, sent: u64, read: u64) -> u64 {
        // Of a single byte nothing is left by which it could be seen.
        let none_left = self.excuse.begins_late && (sent, read) == (1, 0);
        u64::from(none_left || self.guest.began_late(flow))
    }

    /// Whether its link is down when a frame would pass it.
    pub fn link_is_down(&mut self, now_us: u64, frame: &[u8]) -> bool {
        if !self.is_armed {
            return false;
        }
        match self.strike(Site::WireLink, now_us, frame) {
            Some(Action::Drop) => self.link_down_until_us = u64::MAX,
            Some(Action::Hang(us)) => self.link_down_until_us = self.link_down_until_us.max(now_us.saturating_add(us)),
            _ => (),
        }
        now_us < self.link_down_until_us
    }

    /// What was counted of faults, armed or not any more.
    pub fn counted_faults<R>(&self, look: impl FnOnce(&Injector) -> R) -> Option<R> {
        match &self.struck_before_mended {
            Some(injector) => Some(look(injector)),
            None => self.card.firmware.faults().map(|armed| look(&armed)),
        }
    }

    /// A frame passes a site; what is to be done to it, if anything.
    pub fn strike(&mut self, site: Site, now_us: u64, frame: &[u8]) -> Option<Action> {
        passed::note(self.name, site, frame);
        let way = if site == Site::WireTx { Way::Out } else { Way::In };
        let action = self.card.firmware.fault_at_frame(site, Instant::from_us(now_us), frame, way)?;
        self.transcript.note(now_us, &format!("fault at {}: {action:?}", site.name()));
        Some(action)
    }

    /// From now on the channel does what a channel should, the intruder keeps still, and no fault strikes but those that last.
    pub fn mend(&mut self, faults_last: bool) {
        if !faults_last {
            self.struck_before_mended = self.card.firmware.disarm();
            self.is_armed = false;
        }
        self.link_down_until_us = 0;
        if let Some(intruder) = &mut self.intruder {
            intruder.frames_each = 0;
        }
        for link in self.channel.iter_mut().flatten() {
            link.set_spec(Spec { delay_us: link.spec().delay_us, ..Spec::default() });
        }
    }

    fn hand_in_unmerged(&mut self, now_us: u64) {
        if !self.unmerged.is_empty() {
            let frame = self.unmerged.take();
            self.hand_in(now_us, &frame);
            self.unmerged.give_back(frame);
        }
    }

    /// A frame reaches the card.
    fn hand_in(&mut self, now_us: u64, frame: &[u8]) {
        match self.card.handle_wire(now_us, frame) {
            Verdict::Taken => {}
            Verdict::Wait(lane) => self.busy[lane as usize].push_back(frame.to_vec()),
            Verdict::PassOn => self.passed_on(now_us, frame),
        }
    }

    /// Hands in again what waits for the card's processor.
    fn hand_in_waiting(&mut self, now_us: u64) {
        while let Some(lane) = self.card.next_waiting(now_us) {
            let Some((lane, frame)) = lane.oldest(&mut self.busy) else { return };
            match self.card.handle_waiting(now_us, lane, &frame) {
                Verdict::Taken => {}
                Verdict::Wait(lane) => return self.busy[lane as usize].push_front(frame),
                Verdict::PassOn => self.passed_on(now_us, &frame),
            }
        }
    }

    /// The guest's kernel gets a frame.
    fn passed_on(&mut self, now_us: u64, frame: &[u8]) {
        self.passed_to_guest += 1;
        let Some(s) = segment(frame) else { return };
        // A host answers to nobody's but its own, and reads no frame that is for another station.
        let settings = self.guest.settings();
        if !settings.addresses.contains(&s.destination) || frame[..6] != settings.mac.0 {
            return;
        }
        if let Some(answer) = kernel::answer(frame, &s) {
            let verdict = self.card.handle_guest(now_us, &answer);
            if verdict == Verdict::PassOn {
                self.passed_to_wire.push_back(answer);
            } else {
                assert!(!self.card.has_heard, "an ordinary frame of the guest was kept");
            }
        }
    }

    /// Moves frames over the channel until nothing moves at `now_us`; whether anything did.
    fn move_channel(&mut self, now_us: u64) -> bool {
        let mut ever = false;
        loop {
            self.guest.handle_timeout(now_us);
            let moved = if self.channel.is_some() { self.move_by_links(now_us) } else { self.move_at_once(now_us) };
            if !moved {
                return ever;
            }
            ever = true;
        }
    }

    fn move_at_once(&mut self, now_us: u64) -> bool {
        let mut moved = false;
        moved |= self.let_go(now_us);
        if self.is_armed {
            while let Some(frame) = self.guest.poll_frame(now_us).map(<[u8]>::to_vec) {
                self.pass_faults(now_us, frame, true);
                moved = true;
            }
        }
        let window_bytes = self.guest.settings().window_bytes;
        while let Some(frame) = self.guest.poll_frame(now_us) {
            self.transcript.frame(now_us, "guest > card", frame);
            let verdict = self.card.handle_guest(now_us, frame);
            assert_eq!(verdict, Verdict::Taken, "a channel frame would reach the wire");
            if self.card.has_heard {
                self.ledger.told(frame, window_bytes);
            }
            moved = true;
            if self.intruder.is_some() {
                let frame = frame.to_vec();
                self.let_in_the_intruder(now_us, &frame);
            }
        }
        self.hear_at_once(now_us) | moved
    }

    /// Takes what the card has to say to the guest, without a link between them; whether there was anything.
    fn hear_at_once(&mut self, now_us: u64) -> bool {
        let mut moved = false;
        if self.is_armed {
            while let Some(frame) = self.card.poll_guest(now_us).map(<[u8]>::to_vec) {
                self.pass_faults(now_us, frame, false);
                moved = true;
            }
        }
        while let Some(frame) = self.card.poll_guest(now_us) {
            self.transcript.frame(now_us, "card > guest", frame);
            moved = true;
            if let Some(intruder) = &mut self.intruder
                && intruder.hears(frame)
            {
                continue;
            }
            self.ledger.said(frame, self.guest.settings());
            self.guest.handle_frame(now_us, frame);
        }
        moved
    }

    /// A channel frame passes the sites where faults may strike.
    fn pass_faults(&mut self, now_us: u64, frame: Vec<u8>, to_card: bool) {
        let site = if to_card { Site::ChannelRx } else { Site::ChannelTx };
        if !to_card && self.intruder.as_mut().is_some_and(|i| i.hears(&frame)) {
            return;
        }
        if !to_card {
            // Said is said, whatever becomes of it.
            self.transcript.frame(now_us, "card > guest", &frame);
            self.ledger.said(&frame, self.guest.settings());
        }
        match self.strike(site, now_us, &frame) {
            Some(Action::Drop) => (),
            Some(Action::Delay(us)) => self.held.push((now_us + us, to_card, frame)),
            Some(Action::Duplicate) => {
                self.pass_on(now_us, &frame, to_card);
                self.pass_on(now_us, &frame, to_card);
            }
            _ => self.pass_on(now_us, &frame, to_card),
        }
    }

    fn hand_to_card(&mut self, now_us: u64, frame: &[u8]) {
        self.let_in_the_intruder(now_us, frame);
        let verdict = self.card.handle_guest(now_us, frame);
        assert_eq!(verdict, Verdict::Taken, "a channel frame would reach the wire");
        if self.card.has_heard {
            self.ledger.told(frame, self.guest.settings().window_bytes);
        }
    }

    fn pass_on(&mut self, now_us: u64, frame: &[u8], to_card: bool) {
        if !to_card {
            self.guest.handle_frame(now_us, frame);
            return;
        }
        self.transcript.frame(now_us, "guest > card", frame);
        self.hand_to_card(now_us, frame);
    }

    /// Passes on what was held back long enough; whether there was anything.
    fn let_go(&mut self, now_us: u64) -> bool {
        let mut any = false;
        while let Some(at) = self.held.iter().position(|h| h.0 <= now_us) {
            let (_, to_card, frame) = self.held.remove(at);
            self.pass_on(now_us, &frame, to_card);
            any = true;
        }
        any
    }

    /// Hands in what the host has merged, and lets the card's timers run that are due.
    fn run_timers(&mut self, now_us: u64) {
        self.hand_in_unmerged(now_us);
        if now_us < self.deaf_until_us || self.card.next_us().is_none_or(|due_us| due_us + self.host.late_us > now_us) {
            return;
        }
        match self.strike(Site::TimerWake, now_us, &[]) {
            Some(Action::Drop) => self.deaf_until_us = now_us + LOST_WAKE_US,
            Some(Action::Delay(us)) => self.deaf_until_us = now_us + us,
            strike => {
                self.card.handle_timeout(now_us);
                if strike == Some(Action::Duplicate) {
                    self.card.handle_timeout(now_us);
                }
                self.hand_in_waiting(now_us);
            }
        }
    }

    fn move_by_links(&mut self, now_us: u64) -> bool {
        let mut moved = false;
        let Some(links) = &mut self.channel else { return false };
        while let Some(frame) = self.guest.poll_frame(now_us) {
            let mut buffer = links[TO_CARD].buffer();
            buffer.extend_from_slice(frame);
            links[TO_CARD].push(now_us, buffer);
            moved = true;
        }
        while let Some(frame) = self.channel.as_mut().and_then(|l| l[TO_CARD].pop(now_us)) {
            self.transcript.frame(now_us, "guest > card", &frame);
            self.hand_to_card(now_us, &frame);
            self.recycle(TO_CARD, frame);
            moved = true;
        }
        while self.under_way_to_guest() < self.guest_buffers {
            let Some(frame) = self.card.poll_guest(now_us) else { break };
            self.transcript.frame(now_us, "card > guest", frame);
            moved = true;
            if let Some(intruder) = &mut self.intruder
                && intruder.hears(frame)
            {
                continue;
            }
            self.ledger.said(frame, self.guest.settings());
            if let Some(links) = &mut self.channel {
                let mut buffer = links[TO_GUEST].buffer();
                buffer.extend_from_slice(frame);
                links[TO_GUEST].push(now_us, buffer);
            }
        }
        while let Some(frame) = self.channel.as_mut().and_then(|l| l[TO_GUEST].pop(now_us)) {
            self.guest.handle_frame(now_us, &frame);
            self.recycle(TO_GUEST, frame);
            moved = true;
        }
        moved
    }

    fn recycle(&mut self, link: usize, frame: Vec<u8>) {
        if let Some(links) = &mut self.channel {
            links[link].give_back(frame);
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
        let Some(links) = &self.channel else { return 0 };
        let s = links[TO_GUEST].statistics();
        s.offered + s.duplicated - s.lost - s.queue_dropped - s.delivered
    }

    /// Whether a connection is left on the card.
    pub fn has_connections(&self) -> bool {
        self.card.in_use()["connections"] > 0
    }

    /// What must hold when every program has let go and time has passed: nothing is left, nobody complained. `may_be_late`:
    /// what comes late, or twice, may speak of a connection that is over.
    pub fn check_rest(&mut self, may_be_late: bool) {
        if !self.excuse.miscounts {
            self.card.check_accounts();
        }
        for ((call, steps), most) in CALLS.iter().zip(self.card.most_steps()).zip(STEPS_MAX) {
            assert!(steps <= most, "{call:?} took {steps} steps, the bound is {most}");
        }
        let in_use = self.card.in_use();
        for pool in ["contexts", "context-addresses", "listeners", "timers", "fast-open-servers"] {
            assert!(in_use.contains_key(pool), "no pool `{pool}` among {in_use:?}");
        }
        for (pool, &left) in &in_use {
            // The driver is still there, and has its listeners; what a server's cookie was is kept for the next connection.
            let is_kept = match pool.as_str() {
                "contexts" | "context-addresses" | "listeners" | "fast-open-servers" | "events" => true,
                // One for each driver's lease.
                "timers" => {
                    let is_leaked = self.excuse.leaks.iter().any(|leak| leak == "timers");
                    left <= in_use["contexts"] + u64::from(is_leaked)
                }
                name => left <= self.excuse.leaks.iter().filter(|leak| *leak == name).count() as u64,
            };
            assert!(left == 0 || is_kept, "{pool} are left: {in_use:?}");
        }
        assert!(self.guest.firmware_events == 0 || self.excuse.loses_context, "the context was lost");
        for (reason, kind_of_message) in &self.guest.errors {
            let is_excused = may_be_late && *reason == Reason::UnknownObject || self.excuse.refuses.contains(reason);
            assert!(is_excused, "ERROR {reason} for a message of type {kind_of_message:#06x}");
        }
    }
}

impl End for CardEnd {
    fn handle_frame(&mut self, now_us: u64, frame: &mut Vec<u8>) {
        if !self.host.merges {
            self.hand_in(now_us, frame);
            return;
        }
        if !self.unmerged.append(frame) {
            self.hand_in_unmerged(now_us);
            // Until the host has seen all that came at this moment.
            self.unmerged.begin(frame);
        }
    }

    fn hear(&mut self, now_us: u64) {
        self.run_timers(now_us);
        if self.channel.is_none() {
            self.hear_at_once(now_us);
        }
    }

    fn handle_timeout(&mut self, now_us: u64) -> bool {
        self.run_timers(now_us);
        self.move_channel(now_us)
    }

    fn next_us(&mut self) -> Option<u64> {
        let links = self.channel.iter().flatten().filter_map(Link::next_us).min();
        let card_us = self.card.next_us().map(|due_us| (due_us + self.host.late_us).max(self.deaf_until_us));
        let held_us = self.held.iter().map(|h| h.0).min();
        [links, held_us, card_us, Some(self.guest.next_us()), self.slots.next_us()].into_iter().flatten().min()
    }

    fn poll_frame(&mut self, now_us: u64, frame: &mut Vec<u8>) -> bool {
        if !self.slots.has_room(now_us, &self.host) {
            return false;
        }
        if let Some(passed) = self.passed_to_wire.pop_front() {
            frame.extend_from_slice(&passed);
        } else if self.card.has_nothing_for_wire(now_us) {
            return false;
        } else if let Some(made) = self.card.poll_wire(now_us) {
            frame.extend_from_slice(made);
        } else {
            self.stills += 1;
            if self.stills.is_multiple_of(AUDIT_EVERY) && !self.excuse.sends_anything && !self.excuse.odd_timers {
                self.card.audit(now_us);
            }
            return false;
        }
        self.slots.take();
        self.transcript.frame(now_us, "> wire", frame);
        true
    }

    fn transcript(&self) -> u64 {
        self.transcript.hash()
    }

    fn connect(&mut self, now_us: u64, flow: Flow, pair: Pair, streams: Streams) {
        self.guest.connect(now_us, flow, pair, streams);
    }

    fn accept(&mut self, now_us: u64, flow: Flow, pair: Pair, any: Option<IpAddr>, streams: Streams) {
        self.guest.accept(now_us, flow, pair, any.unwrap_or(pair.local.ip()), streams);
    }

    fn status(&mut self, flow: Flow) -> Status {
        self.guest.status(flow)
    }

    fn write(&mut self, flow: Flow, most: u64) -> u64 {
        self.guest.write(flow, most)
    }

    fn read(&mut self, flow: Flow, most: u64) -> Read {
        self.guest.read(flow, most)
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

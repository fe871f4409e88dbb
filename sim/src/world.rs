//! Two ends, two links, one time.
//!
//! Time stands while anything moves: frames that have arrived are handed over, due timers run, programs run, what
//! the ends send is put on the links. Then it jumps to the next moment at which something is due: an arrival, an end's
//! timer, a program's, or a line of the script (connections to open, links that change, drivers that go). Only the ends that something
//! happens to are looked at.

use std::net::IpAddr;

use toe_faults::{Action as Fault, Rules, Site};
use toe_firmware::fault::SITES;
use toe_impair::{Link, Random, Spec, turn_a_bit};

use crate::adversary::Adversary;
use crate::app::{App, Outcome};
use crate::card::CardEnd;
use crate::end::{End, Flow, Pair, Status, Streams};
use crate::excuse::Excuse;
use crate::frames::too_big;
use crate::oracle::Oracle;
use crate::pattern::Pattern;
use crate::smol::SmolEnd;
use crate::transcript::Transcript;

/// How long a program waits whose connection a fault may have broken.
const PATIENCE_US: u64 = 120_000_000;
/// What is overtaken comes so much later at the latest.
const OVERTAKEN_US: u64 = 1_000_000;

/// As long, at least, a card repeats a SYN-ACK that is not acknowledged.
const SYN_ACKS_US: u64 = 60_000_000;

/// More rounds than that at one moment are an endless loop: a program that writes single bytes fills a card's memory for one
/// connection, 65,536 bytes, in as many rounds, and may read as many.
const ROUNDS_MAX: u32 = 150_000;

/// When a flow is opened, by whom, and what runs over it.
#[derive(Clone, Debug)]
pub struct Opening {
    /// When the other end begins to wait for it.
    pub accept_us: u64,
    pub at_us: u64,
    /// The end that connects, 0 or 1.
    pub active: usize,
    /// Both ends connect, to each other.
    pub is_simultaneous: bool,
    /// As the connecting end sees it.
    pub pair: Pair,
    /// The unspecified address on which the other end listens, instead of its own.
    pub any: Option<IpAddr>,
}

/// What happens at a time that is known from the start.
#[derive(Clone, Debug)]
pub enum Action {
    /// An end begins to wait for a flow.
    Accept(Flow),
    /// A flow is opened.
    Open(Flow),
    /// The link from that end does something else from now on.
    Link(usize, Spec),
    /// The driver of the card at that end ends, and another begins so many microseconds later; whether it says BYE.
    ResetDriver(usize, u64, bool),
    /// The bad time is over: links delay and do nothing else, channels and peers are good.
    Mend,
}

/// A frame that an end put on the wire.
#[cfg(test)]
pub struct Sighting {
    pub from: usize,
    pub frame: Vec<u8>,
}

/// Makes up frames, given the time, the end at which they arrive, and the frame that arrives there next.
pub type Strangers = Box<dyn FnMut(u64, usize, &[u8]) -> Vec<Vec<u8>>>;

/// An end of any kind.
pub enum Node {
    Card(Box<CardEnd>),
    Smol(Box<SmolEnd>),
    Adversary(Box<Adversary>),
}

impl Node {
    fn end(&mut self) -> &mut dyn End {
        match self {
            Self::Card(end) => &mut **end,
            Self::Smol(end) => &mut **end,
            Self::Adversary(end) => &mut **end,
        }
    }
}

/// The whole simulation.
pub struct World {
    ends: [Node; 2],
    links: [Link; 2],
    /// When each end wants to be looked at.
    due_us: [u64; 2],
    /// The last first.
    script: Vec<(u64, Action)>,
    /// Lines of the script that open flows.
    to_open: usize,
    openings: Vec<Opening>,
    apps: Vec<[App; 2]>,
    /// Of each end, the flows whose programs run.
    live: [Vec<Flow>; 2],
    now_us: u64,
    transcript: Transcript,
    oracles: [Option<Oracle>; 2],
    /// Frames that a fault holds back.
    held: Vec<Held>,
    /// Whether armed faults strike in the good time, too.
    faults_last: bool,
    /// Strangers on the wire: what else arrives at an end (0 or 1) before a frame does.
    pub strangers: Option<Strangers>,
    /// Every frame put on the wire, if a test wants to look at them.
    #[cfg(test)]
    pub sightings: Option<Vec<Sighting>>,
    /// Frames put on the wire by both ends.
    pub segments: u64,
}

/// A frame that a fault holds back.
struct Held {
    until_us: u64,
    /// The end that sent it.
    from: usize,
    was_on_link: bool,
    /// How many frames have yet to overtake it; zero: none need to.
    overtakers: u32,
    frame: Vec<u8>,
}

/// What becomes of a frame that a fault strikes: what passes, and how much later, in microseconds.
fn struck(strike: Fault, mut frame: Vec<u8>) -> Vec<(u64, Vec<u8>)> {
    match strike {
        Fault::Drop => Vec::new(),
        Fault::Duplicate => vec![(0, frame.clone()), (0, frame)],
        Fault::Delay(us) => vec![(us.max(1), frame)],
        Fault::Reorder(_) => vec![(OVERTAKEN_US, frame)],
        Fault::Truncate(bytes) => {
            frame.truncate(bytes as usize);
            vec![(0, frame)]
        }
        Fault::FlipBit(drawn) => {
            turn_a_bit(&mut frame, &mut Random::new(drawn));
            vec![(0, frame)]
        }
        _ => vec![(0, frame)],
    }
}

impl World {
    /// `specs[0]` is what happens to frames from `a` to `b`.
    pub fn new(a: Node, b: Node, specs: [Spec; 2], seeds: [u64; 2]) -> Self {
        let links = [Link::new(specs[0], seeds[0]), Link::new(specs[1], seeds[1])];
        let ends = [a, b];
        let is_honest = !ends.iter().any(|e| matches!(e, Node::Adversary(_)));
        let oracles = [0, 1].map(|i| {
            let verifies = specs[1 - i].corrupt.as_ppm() > 0 || !is_honest;
            matches!(ends[i], Node::Card(_)).then(|| Oracle::new(verifies, is_honest))
        });
        Self {
            ends,
            links,
            due_us: [0; 2],
            script: Vec::new(),
            to_open: 0,
            openings: Vec::new(),
            apps: Vec::new(),
            live: [Vec::new(), Vec::new()],
            now_us: 0,
            transcript: Transcript::new("world"),
            oracles,
            held: Vec::new(),
            faults_last: false,
            strangers: None,
            #[cfg(test)]
            sightings: None,
            segments: 0,
        }
    }

    /// Adds a line to the script.
    pub fn at(&mut self, at_us: u64, action: Action) {
        self.to_open += usize::from(matches!(action, Action::Open(_)));
        let place = self.script.partition_point(|(other_us, _)| *other_us > at_us);
        self.script.insert(place, (at_us, action));
    }

    /// Adds a connection and its two programs, that of `a` first.
    pub fn add(&mut self, opening: Opening, apps: [App; 2]) {
        let flow = self.apps.len();
        let streams = streams(&opening);
        let pairs = if opening.active == 0 {
            [opening.pair, opening.pair.reversed()]
        } else {
            [opening.pair.reversed(), opening.pair]
        };
        for (oracle, (pair, out)) in self.oracles.iter_mut().zip(pairs.iter().zip([streams.out, streams.inward])) {
            if let Some(oracle) = oracle {
                oracle.expect(pair, out);
            }
        }
        if !opening.is_simultaneous {
            self.at(opening.accept_us, Action::Accept(flow));
        }
        self.at(opening.at_us, Action::Open(flow));
        self.openings.push(opening);
        self.apps.push(apps);
    }

    #[cfg(test)]
    /// Forgets all flows, which have ended, so that their numbers can be used again.
    pub fn forget_flows(&mut self) {
        assert!(self.to_open == 0 && self.live.iter().all(Vec::is_empty));
        self.apps.clear();
        self.openings.clear();
    }

    /// Lets strangers in, who forge what they like.
    pub fn let_in(&mut self, strangers: Strangers) {
        self.strangers = Some(strangers);
        for oracle in self.oracles.iter_mut().flatten() {
            oracle.verifies = true;
            oracle.peer_is_honest = false;
        }
    }

    /// The card at an end.
    pub fn card(&mut self, i: usize) -> &mut CardEnd {
        self.try_card(i).expect("there is a card")
    }

    /// The card at an end, if there is one.
    pub fn try_card(&mut self, i: usize) -> Option<&mut CardEnd> {
        match &mut self.ends[i] {
            Node::Card(end) => Some(end),
            _ => None,
        }
    }

    /// Any end.
    pub fn end(&mut self, i: usize) -> &mut dyn End {
        self.ends[i].end()
    }

    pub fn oracle(&mut self, i: usize) -> Option<&mut Oracle> {
        self.oracles[i].as_mut()
    }

    /// Arms faults at every card: all chance from `seed`. Frames may then be damaged anywhere. `lasts`: beyond the bad time,
    /// too. What may break by them; connections, that is, whose programs then do not wait for ever.
    pub fn arm(&mut self, rules: &Rules, seed: u64, lasts: bool) -> [Excuse; 2] {
        self.faults_last = lasts;
        let excuses = [0, 1].map(|i| {
            let Some(card) = self.try_card(i) else { return Excuse::default() };
            let excuse = card.arm(rules.clone(), seed.wrapping_add(i as u64));
            if let Some(oracle) = self.oracle(i) {
                oracle.verifies = true;
            }
            if excuse.sends_anything {
                self.oracles[i] = None;
                if let Some(oracle) = self.oracle(1 - i) {
                    oracle.peer_is_honest = false;
                    oracle.may_begin_early = excuse.begins_late;
                }
            }
            excuse
        });
        for i in [0, 1] {
            if excuses.iter().any(|excuse| excuse.wrong_bytes)
                && let Some(card) = self.try_card(i)
            {
                card.expect_wrong_bytes();
            }
        }
        if excuses.iter().any(|excuse| excuse.breaks) {
            self.apps.iter_mut().flatten().for_each(|app| app.be_patient(PATIENCE_US));
        }
        excuses
    }

    /// Faults that struck at either card, by site.
    pub fn strikes(&mut self) -> [u64; SITES] {
        let mut strikes = [0; SITES];
        for i in [0, 1] {
            let Some(card) = self.try_card(i) else { continue };
            let counted = card.counted_faults(|injector| Site::ALL.map(|site| injector.strikes(site)));
            strikes.iter_mut().zip(counted.unwrap_or([0; SITES])).for_each(|(sum, n)| *sum += n);
        }
        strikes
    }

    /// Every frame that was put on a link came out or is counted as lost, and none is left.
    pub fn check_links(&self) {
        for link in &self.links {
            let s = link.statistics();
            let gone = s.too_long + s.lost + s.queue_dropped + s.delivered;
            assert_eq!(s.offered + s.duplicated, gone, "frames of a link: {s:?}");
        }
    }

    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The outcomes of a flow, that of `a` first; `None` while it runs.
    pub fn outcomes(&self, flow: Flow) -> [Option<&Outcome>; 2] {
        [0, 1].map(|i| self.apps[flow][i].outcome.as_ref())
    }

    /// The two programs of a flow.
    pub fn apps(&self, flow: Flow) -> &[App; 2] {
        &self.apps[flow]
    }

    /// How many flows there are.
    pub fn flows(&self) -> usize {
        self.apps.len()
    }

    /// A hash of every frame at every place with its time, and of the outcomes.
    pub fn transcript(&self) -> u64 {
        let mut all = Transcript::new("world");
        for end in &self.ends {
            all.number(match end {
                Node::Card(end) => end.transcript(),
                Node::Smol(end) => end.transcript(),
                Node::Adversary(end) => end.transcript(),
            });
        }
        all.number(self.transcript.hash());
        for apps in &self.apps {
            for app in apps {
                all.number(app.read);
                all.number(app.outcome.as_ref().map_or(0, |o| 1 + u64::from(*o == Outcome::Clean)));
            }
        }
        all.hash()
    }

    /// Runs until every program is done and both stacks know; whether that was before `deadline_us`.
    pub fn run(&mut self, deadline_us: u64) -> bool {
        loop {
            self.stand_still();
            let is_done = self.to_open == 0 && self.live.iter().all(Vec::is_empty);
            if is_done && self.ends.iter_mut().all(|e| e.end().all_released()) {
                return true;
            }
            match self.next_us() {
                next_us if next_us <= deadline_us => self.now_us = next_us,
                _ => return false,
            }
        }
    }

    /// Lets `us` microseconds pass.
    pub fn wait(&mut self, us: u64) {
        let until_us = self.now_us + us;
        loop {
            self.stand_still();
            match self.next_us() {
                next_us if next_us <= until_us => self.now_us = next_us,
                _ => break,
            }
        }
        self.now_us = until_us;
    }

    fn next_us(&self) -> u64 {
        let links = self.links.iter().filter_map(Link::next_us).min().unwrap_or(u64::MAX);
        let script = self.script.last().map_or(u64::MAX, |line| line.0);
        let held = self.held.iter().map(|held| held.until_us).min().unwrap_or(u64::MAX);
        let next_us = links.min(script).min(held).min(self.due_us[0]).min(self.due_us[1]);
        assert!(next_us > self.now_us, "at {next_us} us something is due and running it changes nothing");
        next_us
    }

    /// Does everything that can be done at this moment.
    fn stand_still(&mut self) {
        let now_us = self.now_us;
        let mut is_touched = [false; 2];
        for _ in 0..ROUNDS_MAX {
            // A card does only so much in a call of its timers: the rest is due at once.
            for (is_touched, due_us) in is_touched.iter_mut().zip(self.due_us) {
                *is_touched |= due_us <= now_us;
            }
            while self.script.last().is_some_and(|line| line.0 <= now_us) {
                if let Some((_, action)) = self.script.pop() {
                    self.act(action);
                    is_touched = [true; 2];
                }
            }
            while let Some(at) = self.held.iter().position(|held| held.until_us <= now_us) {
                let Held { from, was_on_link, mut frame, .. } = self.held.remove(at);
                if was_on_link {
                    self.ends[1 - from].end().handle_frame(now_us, &mut frame);
                    is_touched[1 - from] = true;
                } else {
                    self.links[from].push(now_us, frame);
                }
            }
            for (i, is_touched) in is_touched.iter_mut().rev().enumerate() {
                *is_touched |= self.deliver(i);
            }
            if is_touched == [false; 2] {
                return;
            }
            for (i, is_touched) in is_touched.iter_mut().enumerate() {
                if std::mem::take(is_touched) {
                    self.serve(i);
                }
            }
        }
        panic!("at {now_us} us things move for ever");
    }

    /// Hands over what has arrived from end `i`; whether there was anything.
    fn deliver(&mut self, i: usize) -> bool {
        let now_us = self.now_us;
        let mut any = false;
        while let Some(mut frame) = self.links[i].pop(now_us) {
            any = true;
            if let Some(strangers) = &mut self.strangers {
                for mut other in strangers(now_us, 1 - i, &frame) {
                    if let Some(oracle) = &mut self.oracles[1 - i] {
                        oracle.arrives(&other);
                    }
                    self.ends[1 - i].end().handle_frame(now_us, &mut other);
                }
            }
            self.transcript.number(now_us);
            if self.link_is_down(1 - i, &frame) {
                continue;
            }
            if let Some(oracle) = &mut self.oracles[1 - i] {
                oracle.arrives(&frame);
            }
            self.overtake(i, true);
            if let Some(strike) = self.strike(1 - i, Site::WireRx, &frame) {
                for (us, mut frame) in struck(strike, frame) {
                    if us > 0 {
                        self.hold_back(us, i, true, strike, frame);
                    } else {
                        self.ends[1 - i].end().handle_frame(now_us, &mut frame);
                    }
                }
                continue;
            }
            self.ends[1 - i].end().handle_frame(now_us, &mut frame);
            self.links[i].give_back(frame);
        }
        any
    }

    /// A frame passes a site of the card at an end; what is to be done to it, if anything.
    fn strike(&mut self, i: usize, site: Site, frame: &[u8]) -> Option<Fault> {
        let now_us = self.now_us;
        self.try_card(i)?.strike(site, now_us, frame)
    }

    /// Whether the link of the card at an end is down when a frame would pass it.
    fn link_is_down(&mut self, i: usize, frame: &[u8]) -> bool {
        let now_us = self.now_us;
        self.try_card(i).is_some_and(|card| card.link_is_down(now_us, frame))
    }

    fn hold_back(&mut self, us: u64, from: usize, was_on_link: bool, strike: Fault, frame: Vec<u8>) {
        let overtakers = if let Fault::Reorder(n) = strike { n } else { 0 };
        self.held.push(Held { until_us: self.now_us + us, from, was_on_link, overtakers, frame });
    }

    /// A frame passes where others may be held back to be overtaken.
    fn overtake(&mut self, from: usize, was_on_link: bool) {
        for held in self.held.iter_mut().filter(|held| (held.from, held.was_on_link) == (from, was_on_link)) {
            if held.overtakers > 0 {
                held.overtakers -= 1;
                if held.overtakers == 0 {
                    held.until_us = self.now_us;
                }
            }
        }
    }

    /// Runs an end, its programs and what they send until nothing moves there.
    fn serve(&mut self, i: usize) {
        let now_us = self.now_us;
        let mut broke = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let end = self.ends[i].end();
            end.hear(now_us);
            let mut stepped = false;
            // Programs first: what they write may go out with what the stack has to say anyway.
            let apps = &mut self.apps;
            let transcript = &mut self.transcript;
            self.live[i].retain(|&flow| {
                let app = &mut apps[flow][i];
                stepped |= app.step(now_us, end);
                if let Some(outcome) = &app.outcome {
                    transcript.note(
                        now_us,
                        if *outcome == Outcome::Clean { "a program is done" } else { "a program's connection broke" },
                    );
                    if *outcome != Outcome::Clean {
                        broke.push(flow);
                    }
                }
                app.outcome.is_none()
            });
            let mut moved = end.handle_timeout(now_us);
            let mut sent = false;
            loop {
                let mut frame = self.links[i].buffer();
                if !self.ends[i].end().poll_frame(now_us, &mut frame) {
                    self.links[i].give_back(frame);
                    break;
                }
                sent = true;
                self.send(i, frame);
            }
            if sent {
                moved |= self.ends[i].end().handle_timeout(now_us);
            }
            if !stepped && !moved {
                let apps = self.live[i].iter().filter_map(|&flow| self.apps[flow][i].next_us(now_us)).min();
                let end = self.ends[i].end().next_us();
                self.due_us[i] = end.unwrap_or(u64::MAX).min(apps.unwrap_or(u64::MAX));
                broke.into_iter().for_each(|flow| self.expect_nobody(flow, 1 - i));
                return;
            }
        }
        panic!("at {now_us} us end {i} moves for ever");
    }

    /// The other end's connection broke. If this one's has not come by now it may never come: a card that gives up what is half
    /// open just when the other takes its SYN-ACK tells its program nothing.
    fn expect_nobody(&mut self, flow: Flow, i: usize) {
        if self.apps[flow][i].outcome.is_none() && self.ends[i].end().status(flow) == Status::Opening {
            self.apps[flow][i].wait_for_nobody(self.now_us, PATIENCE_US);
            self.due_us[i] = self.due_us[i].min(self.now_us + PATIENCE_US);
        }
    }

    fn send(&mut self, i: usize, frame: Vec<u8>) {
        self.segments += 1;
        if let (Some(oracle), Node::Card(card)) = (&mut self.oracles[i], &self.ends[i]) {
            oracle.sent(&frame, card.settings());
        }
        #[cfg(test)]
        if let Some(sightings) = &mut self.sightings {
            sightings.push(Sighting { from: i, frame: frame.clone() });
        }
        let now_us = self.now_us;
        if self.link_is_down(i, &frame) {
            return;
        }
        self.overtake(i, false);
        match self.strike(i, Site::WireTx, &frame) {
            None => self.links[i].push(now_us, frame),
            Some(strike) => {
                for (us, frame) in struck(strike, frame) {
                    if us > 0 {
                        self.hold_back(us, i, false, strike, frame);
                    } else {
                        self.links[i].push(now_us, frame);
                    }
                }
            }
        }
        let mtu = self.links[i].spec().mtu;
        if let (Some(mtu), Some(frame)) = (mtu, self.links[i].take_too_long())
            && let Some(report) = too_big(&frame, mtu)
        {
            self.links[1 - i].push(self.now_us, report);
        }
    }

    fn act(&mut self, action: Action) {
        let now_us = self.now_us;
        match action {
            Action::Accept(flow) => {
                let opening = self.openings[flow].clone();
                let i = 1 - opening.active;
                let streams = if i == 0 { streams(&opening) } else { streams(&opening).reversed() };
                self.end(i).accept(now_us, flow, opening.pair.reversed(), opening.any, streams);
            }
            Action::Open(flow) => {
                self.to_open -= 1;
                let opening = self.openings[flow].clone();
                let both = [(opening.active, opening.pair), (1 - opening.active, opening.pair.reversed())];
                for (i, pair) in both.into_iter().take(1 + usize::from(opening.is_simultaneous)) {
                    let streams = if i == 0 { streams(&opening) } else { streams(&opening).reversed() };
                    self.end(i).connect(now_us, flow, pair, streams);
                }
                for i in [0, 1] {
                    if self.apps[flow][i].outcome.is_none() {
                        self.live[i].push(flow);
                    }
                }
            }
            Action::Link(i, spec) => {
                self.transcript.note(now_us, "a link changes");
                if let Some(oracle) = &mut self.oracles[1 - i] {
                    oracle.verifies |= spec.corrupt.as_ppm() > 0;
                }
                self.links[i].set_spec(spec);
            }
            Action::ResetDriver(i, pause_us, says_bye) => {
                self.card(i).reset_driver(now_us, pause_us, says_bye);
            }
            Action::Mend => {
                self.transcript.note(now_us, "the bad time is over");
                for link in &mut self.links {
                    link.set_spec(Spec { delay_us: link.spec().delay_us, ..Spec::default() });
                }
                for i in [0, 1] {
                    match &mut self.ends[i] {
                        Node::Card(card) => card.mend(self.faults_last),
                        Node::Adversary(adversary) => adversary.mend(),
                        Node::Smol(_) => (),
                    }
                }
                self.strangers = None;
            }
        }
    }
}

/// What `a` sends and expects over a flow: of the same 4-tuple always the same.
fn streams(opening: &Opening) -> Streams {
    let ports = u64::from(opening.pair.local.port()) << 17 | u64::from(opening.pair.remote.port()) << 1;
    Streams { out: Pattern::new(ports), inward: Pattern::new(ports | 1) }
}

/// Checks the property that always holds, for a flow that has ended at both ends: a program that saw the other
/// close in order has read exactly what that one wrote (each byte was compared when it was read); `both_clean`: and
/// neither was told that it broke.
pub fn check_flow(world: &World, flow: Flow, both_clean: bool) {
    let apps = world.apps(flow);
    // A SYN-ACK is given up after a minute, and then its card knows nothing of the connection that the other may just have.
    let opened_us = world.openings[flow].at_us;
    let given_up = apps.iter().any(|app| app.given_up_us().is_some_and(|us| us >= opened_us + SYN_ACKS_US));
    for (i, app) in apps.iter().enumerate() {
        let peer = &apps[1 - i];
        if app.is_absent() || peer.is_absent() {
            continue;
        }
        let outcome = app.outcome.as_ref().expect("the flow has ended");
        // What the card at this end may do to the length of what is read there.
        let card = match &world.ends[i] {
            Node::Card(card) => Some(card),
            _ => None,
        };
        let is_odd = card.is_some_and(|card| card.excuse().wrong_lengths);
        let late = card.map_or(0, |card| card.late_bytes(flow, peer.written, app.read));
        assert!(is_odd || app.read <= peer.written, "flow {flow}, end {i} read more than was written");
        match outcome {
            Outcome::Clean => {
                let sent = if peer.gave_up { peer.written } else { peer.plan().out_bytes };
                let read = app.read + late;
                assert!(is_odd || read == sent, "flow {flow}, end {i} saw an orderly close: read {read}, sent {sent}");
                assert_eq!(app.written, app.plan().out_bytes, "flow {flow}, end {i} ended before all was written");
            }
            Outcome::Broken(reason) => {
                // The last ACK was lost until the other's TIME-WAIT was over: nothing is missing at either end.
                let was_last_ack = peer.outcome == Some(Outcome::Clean) && app.has_all(peer);
                assert!(!both_clean || was_last_ack || given_up, "flow {flow}, end {i} broke: {reason}");
            }
        }
    }
}

//! Two ends, two links, one time.
//!
//! Time stands while anything moves: frames that have arrived are handed over, due timers run, programs run, what
//! the ends send is put on the links. Then it jumps to the next moment at which something is due.

use toe_impair::{Link, Spec};

use crate::app::{App, Outcome};
use crate::end::{End, Flow, Pair};
use crate::transcript::Transcript;
use std::net::IpAddr;

/// More rounds than that at one moment are an endless loop.
const ROUNDS_MAX: u32 = 50_000;

/// When a flow is opened, by whom, and what runs over it.
pub struct Opening {
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

/// A frame that an end put on the wire.
pub struct Sighting {
    pub from: usize,
    pub frame: Vec<u8>,
}

/// Makes up frames, given the time, the end at which they arrive, and the frame that arrives there next.
pub type Strangers = Box<dyn FnMut(u64, usize, &[u8]) -> Vec<Vec<u8>>>;

/// The whole simulation. The two ends are of different types so that a test can look into each.
pub struct World<A, B> {
    pub a: A,
    pub b: B,
    links: [Link; 2],
    openings: Vec<(Flow, Opening)>,
    apps: Vec<[App; 2]>,
    now_us: u64,
    transcript: Transcript,
    /// Strangers on the wire: what else arrives at an end (0 or 1) before a frame does.
    pub strangers: Option<Strangers>,
    /// Every frame put on the wire, if a test wants to look at them.
    pub sightings: Option<Vec<Sighting>>,
}

impl<A: End, B: End> World<A, B> {
    /// `specs[0]` is what happens to frames from `a` to `b`.
    pub fn new(a: A, b: B, specs: [Spec; 2], seeds: [u64; 2]) -> Self {
        let links = [Link::new(specs[0], seeds[0]), Link::new(specs[1], seeds[1])];
        Self {
            a,
            b,
            links,
            openings: Vec::new(),
            apps: Vec::new(),
            now_us: 0,
            transcript: Transcript::new("world"),
            strangers: None,
            sightings: None,
        }
    }

    /// Adds a connection and its two programs, that of `a` first.
    pub fn add(&mut self, opening: Opening, apps: [App; 2]) {
        let flow = self.apps.len();
        // A listener is there from the start.
        if !opening.is_simultaneous {
            let (now_us, pair, any) = (self.now_us, opening.pair.reversed(), opening.any);
            self.end(1 - opening.active).accept(now_us, flow, pair, any);
        }
        self.openings.push((flow, opening));
        self.apps.push(apps);
    }

    /// Forgets all flows, which have ended, so that their numbers can be used again.
    pub fn forget_flows(&mut self) {
        assert!(self.openings.is_empty());
        self.apps.clear();
    }

    fn end(&mut self, i: usize) -> &mut dyn End {
        if i == 0 { &mut self.a } else { &mut self.b }
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
        for part in [self.a.transcript(), self.b.transcript(), self.transcript.hash()] {
            all.note(part, "");
        }
        for apps in &self.apps {
            for app in apps {
                all.note(app.read, &format!("{:?}", app.outcome));
            }
        }
        all.hash()
    }

    /// Runs until every program is done and both stacks know; whether that was before `deadline_us`.
    pub fn run(&mut self, deadline_us: u64) -> bool {
        loop {
            self.stand_still();
            let is_done = self.openings.is_empty() && self.apps.iter().flatten().all(|a| a.outcome.is_some());
            if is_done && self.a.all_released() && self.b.all_released() {
                return true;
            }
            match self.next_us() {
                Some(next_us) if next_us <= deadline_us => self.now_us = next_us,
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
                Some(next_us) if next_us <= until_us => self.now_us = next_us,
                _ => break,
            }
        }
        self.now_us = until_us;
    }

    fn next_us(&mut self) -> Option<u64> {
        let now_us = self.now_us;
        let timers = [self.a.next_us(), self.b.next_us()];
        for timer_us in timers.into_iter().flatten() {
            assert!(timer_us > now_us, "at {now_us} us a timer of {timer_us} us is due and running it changes nothing");
        }
        let links = self.links.iter().map(Link::next_us);
        let openings = self.openings.iter().map(|(_, o)| Some(o.at_us));
        let apps = self.apps.iter().flatten().map(|a| a.next_us(now_us));
        let all = timers.into_iter().chain(links).chain(openings).chain(apps).flatten();
        all.filter(|&next_us| next_us > now_us).min()
    }

    /// Does everything that can be done at this moment.
    fn stand_still(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if !self.round() {
                return;
            }
        }
        panic!("at {} us things move for ever", self.now_us);
    }

    fn round(&mut self) -> bool {
        let now_us = self.now_us;
        let mut moved = self.open();
        for i in [0, 1] {
            while let Some(frame) = self.links[i].pop(now_us) {
                for other in self.strangers.iter_mut().flat_map(|s| s(now_us, 1 - i, &frame)).collect::<Vec<_>>() {
                    self.end(1 - i).handle_frame(now_us, other);
                }
                self.end(1 - i).handle_frame(now_us, frame);
                moved = true;
            }
        }
        for i in [0, 1] {
            self.end(i).handle_timeout(now_us);
            // Programs first: what they write may go out with what the stack has to say anyway.
            for flow in 0..self.apps.len() {
                if self.openings.iter().any(|(f, _)| *f == flow) {
                    continue;
                }
                let end: &mut dyn End = if i == 0 { &mut self.a } else { &mut self.b };
                let app = &mut self.apps[flow][i];
                moved |= app.step(now_us, end);
            }
            self.end(i).handle_timeout(now_us);
            while let Some(frame) = self.end(i).poll_frame(now_us) {
                self.transcript.frame(now_us, if i == 0 { "a > b" } else { "b > a" }, &frame[..0]);
                if let Some(sightings) = &mut self.sightings {
                    sightings.push(Sighting { from: i, frame: frame.clone() });
                }
                self.links[i].push(now_us, frame);
                moved = true;
            }
        }
        moved
    }

    fn open(&mut self) -> bool {
        let now_us = self.now_us;
        let mut moved = false;
        while let Some(at) = self.openings.iter().position(|(_, o)| o.at_us <= now_us) {
            let (flow, opening) = self.openings.swap_remove(at);
            self.end(opening.active).connect(now_us, flow, opening.pair);
            if opening.is_simultaneous {
                self.end(1 - opening.active).connect(now_us, flow, opening.pair.reversed());
            }
            moved = true;
        }
        moved
    }
}

/// Checks the property that always holds, for a flow that has ended at both ends: a program that saw the other
/// close in order has read exactly what that one wrote (each byte was compared when it was read); `both_clean`: and
/// neither was told that it broke.
pub fn check_flow<A: End, B: End>(world: &World<A, B>, flow: Flow, both_clean: bool) {
    let apps = world.apps(flow);
    for (i, app) in apps.iter().enumerate() {
        let peer = &apps[1 - i];
        let outcome = app.outcome.as_ref().expect("the flow has ended");
        assert!(app.read <= peer.written, "flow {flow}, end {i} read more than was written");
        match outcome {
            Outcome::Clean => {
                let sent = peer.plan().out_bytes;
                assert_eq!(app.read, sent, "flow {flow}, end {i} saw an orderly close before all was read");
                assert_eq!(app.written, app.plan().out_bytes, "flow {flow}, end {i} ended before all was written");
            }
            Outcome::Broken(reason) => {
                // The last ACK was lost until the other's TIME-WAIT was over: nothing is missing at either end.
                let was_last_ack = peer.outcome == Some(Outcome::Clean) && app.has_all(peer);
                assert!(!both_clean || was_last_ack, "flow {flow}, end {i} broke: {reason}");
            }
        }
    }
}

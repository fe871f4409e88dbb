//! Random cases on three stacks, which vote: the firmware, Linux, smoltcp.
//!
//! A case is a list of steps (`grammar`). After each step it is listened for a while, long enough for what is merely
//! delayed, and what was sent is made comparable: numbers count from each side's SYN, PSH and windows are left out, text is joined,
//! what was sent before is dropped, and so is an acknowledgement that says nothing that its neighbours do not say. The
//! first step at which not all three say the same is a *split*; its kind is the state, the segment or call in words, and who
//! stands alone. Kinds that are known, with the RFC that decides, are in `known`; any other is shrunk, printed and counted
//! as a failure, whoever stands alone in it.

mod grammar;
mod known;
mod normal;
mod stacks;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub use grammar::{Act, Case, generate};
pub use known::{KNOWN, Known};

use crate::language::{Family, Flags};
use crate::stage::{Firmware, Linux, Stage, Unavailable, in_namespace, local, remote};
use crate::suite::Trouble;
use grammar::{Acknowledgement, Sequence, Shot, Step};
use normal::{Peer, Said};
use stacks::{Gave, Smol, Stack, Staged};

/// How long it is listened after each step in virtual time, in microseconds: longer than the card's delayed acknowledgement.
const WAIT_SIMULATED_US: u64 = 20_000;
/// The same for Linux, whose acknowledgements are asked to be quick.
const WAIT_REAL_US: u64 = 20_000;
/// The same when its vote is looked at again, lest a busy machine be taken for a difference: longer than the 40 ms for which a FIN
/// can wait for its acknowledgement all the same, and short beside the timeout of 200 ms.
const WAIT_PATIENT_US: u64 = 75_000;
/// How often a case is voted on again before it counts as unsteady.
const ATTEMPTS: usize = 5;
/// Threads with a namespace each: they mostly wait.
const WORKERS: usize = 24;
/// The peer's port.
const PEER_PORT: u16 = 40_000;
/// The stack's port of the first case in a namespace.
const FIRST_PORT: u16 = 10_000;

/// What a stack has said to a step.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Answer {
    said: Vec<Said>,
    gave: Option<Gave>,
}

/// A case as one stack played it.
#[derive(Clone, Debug)]
struct Record {
    /// The state before each step.
    before: Vec<Option<&'static str>>,
    answers: Vec<Answer>,
    end: Option<&'static str>,
}

fn play(stack: &mut dyn Stack, case: &Case, here: SocketAddr, there: SocketAddr) -> Record {
    let mut peer = Peer::new(here, there);
    stack.open(case.passive, here, there);
    // An active open's SYN is no answer to anything.
    peer.hear(stack.hear());
    let mut record = Record { before: Vec::new(), answers: Vec::new(), end: None };
    for step in &case.steps {
        record.before.push(stack.state());
        let gave = match step {
            Step::Shot(shot) => {
                let packet = peer.packet(shot);
                stack.inject(&packet);
                None
            }
            Step::Act(act) => Some(stack.act(*act)),
        };
        record.answers.push(Answer { said: peer.hear(stack.hear()), gave });
    }
    // Nobody waits for the end of TIME-WAIT; and Linux keeps it apart from the socket.
    record.end = stack.state().map(|state| if state == "TIME-WAIT" { "CLOSED" } else { state });
    stack.end();
    record
}

/// Who stood alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Alone {
    /// The card.
    Firmware,
    /// The kernel.
    Linux,
    /// smoltcp.
    Smoltcp,
    /// All three differ.
    All,
    /// The card and the kernel differ, and smoltcp has no vote: it went another way before.
    Pair,
}

impl Alone {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Linux => "linux",
            Self::Smoltcp => "smoltcp",
            Self::All => "all three",
            Self::Pair => "firmware or linux",
        }
    }

    fn of<T: PartialEq>([firmware, linux, smol]: [&T; 3], smol_votes: bool) -> Option<Self> {
        if !smol_votes {
            return (firmware != linux).then_some(Self::Pair);
        }
        match (firmware == linux, linux == smol, firmware == smol) {
            (true, true, _) => None,
            (true, false, _) => Some(Self::Smoltcp),
            (false, true, _) => Some(Self::Firmware),
            (false, false, true) => Some(Self::Linux),
            (false, false, false) => Some(Self::All),
        }
    }
}

/// A step at which the three do not agree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Split {
    /// The step; the number of steps if it is the final state.
    pub at: usize,
    /// Who stood alone.
    pub alone: Alone,
    /// State, and segment or call.
    pub kind: String,
    /// What each said: firmware, Linux, smoltcp.
    pub words: [String; 3],
}

/// The first step at which smoltcp leaves the other two, if they agree there, and the first at which those differ.
fn compare(case: &Case, records: &[Record; 3]) -> Vec<Split> {
    let mut splits = Vec::new();
    let mut smol_votes = true;
    for at in 0..=case.steps.len() {
        let (alone, words) = match case.steps.get(at) {
            Some(_) => {
                let answers = [&records[0].answers[at], &records[1].answers[at], &records[2].answers[at]];
                (Alone::of(answers, smol_votes), answers.map(answer_text))
            }
            None => {
                let ends = [&records[0].end, &records[1].end, &records[2].end];
                (Alone::of(ends, smol_votes), ends.map(|end| end.unwrap_or("none").to_owned()))
            }
        };
        let Some(alone) = alone else { continue };
        let state = |at: usize| records[0].before[at].or(records[1].before[at]).unwrap_or("none");
        let kind = match case.steps.get(at) {
            Some(step) => format!("{}: {}", state(at), step_text(step)),
            None if at == 0 => "nothing was done".to_owned(),
            None => format!("{}: final state after {}", state(at - 1), step_text(&case.steps[at - 1])),
        };
        splits.push(Split { at, alone, kind, words });
        if alone != Alone::Smoltcp {
            break;
        }
        smol_votes = false;
    }
    splits
}

fn answer_text(answer: &Answer) -> String {
    let gave = answer.gave.map(|gave| match gave {
        Gave::Bytes(n) => format!("{n} bytes"),
        Gave::Wait => "wait".to_owned(),
        Gave::End => "end".to_owned(),
        Gave::Done => "done".to_owned(),
        Gave::Error => "error".to_owned(),
        Gave::Absent => "absent".to_owned(),
    });
    let words: Vec<String> = gave.into_iter().chain(answer.said.iter().map(Said::to_string)).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join("; ") }
}

/// A step in words, without its numbers: what a kind of split is named after.
fn step_text(step: &Step) -> String {
    match step {
        Step::Act(Act::Write(_)) => "write".to_owned(),
        Step::Act(Act::Read) => "read".to_owned(),
        Step::Act(Act::Shutdown) => "shutdown".to_owned(),
        Step::Act(Act::Close) => "close".to_owned(),
        Step::Shot(shot) => {
            let mut words = Vec::new();
            for (flag, name) in [
                (Flags::SYN, "SYN"),
                (Flags::FIN, "FIN"),
                (Flags::RST, "RST"),
                (Flags::PSH, "PSH"),
                (Flags::URG, "URG"),
            ] {
                if shot.flags & flag != 0 {
                    words.push(name);
                }
            }
            if shot.length > 0 {
                words.push("text");
            }
            words.push(match shot.distance {
                0 => "next",
                -1 => "just before",
                d if d < 0 => "before",
                1..=30_000 => "in the window",
                d if (59_000..60_000).contains(&d) => "at the last byte of the window",
                d if (60_000..61_000).contains(&d) => "just beyond the window",
                _ => "beyond the window",
            });
            words.push(match shot.acknowledgement {
                Acknowledgement::None => "without ACK",
                Acknowledgement::Next(0) => "",
                Acknowledgement::Next(n) if n > 0 => "ACK of nothing sent",
                Acknowledgement::Next(-70_000) => "ancient ACK",
                Acknowledgement::Next(_) => "old ACK",
            });
            words.retain(|word| !word.is_empty());
            words.join(" ")
        }
    }
}

/// A case as a script with what each stack said.
pub fn case_text(case: &Case, words: Option<&Split>) -> String {
    let mut text = String::new();
    let way = if case.passive { "the stack listens" } else { "the stack connects" };
    // Writing into a string cannot fail.
    let _ =
        writeln!(text, "    # {way}; numbers count from the peer's SYN, acknowledgements from the stack's next number");
    for (at, step) in case.steps.iter().enumerate() {
        let _ = match step {
            Step::Act(act) => writeln!(text, "    +.02 {act:?}"),
            Step::Shot(Shot { flags, sequence, length, acknowledgement, .. }) => {
                let sequence = match sequence {
                    Sequence::At(n) => format!("{n}"),
                    Sequence::Edge(n) => format!("edge{n:+}"),
                };
                let ack = match acknowledgement {
                    Acknowledgement::None => String::new(),
                    Acknowledgement::Next(n) => format!(" ack next{n:+}"),
                };
                let dot = if ack.is_empty() { "" } else { "." };
                let letters: String = Flags::LETTERS
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| flags >> bit & 1 != 0)
                    .map(|(_, l)| l)
                    .collect();
                let flags =
                    if letters.is_empty() && dot.is_empty() { "-".to_owned() } else { format!("{letters}{dot}") };
                writeln!(text, "    +.02 < {flags} {sequence}({length}){ack}")
            }
        };
        if let Some(split) = words.filter(|split| split.at == at) {
            for (name, said) in ["firmware", "linux", "smoltcp"].iter().zip(&split.words) {
                let _ = writeln!(text, "         # {name}: {said}");
            }
        }
    }
    if let Some(split) = words.filter(|split| split.at == case.steps.len()) {
        let _ = writeln!(text, "         # final states: {}", split.words.join(", "));
    }
    text
}

/// One voter's namespace and how far its ports have come.
struct Booth {
    linux: Arc<dyn Stage>,
    port: u16,
    family: Family,
}

impl Booth {
    fn new(family: Family) -> Result<Self, Unavailable> {
        // A limit of its own on what is out of window would make the second answer of a case depend on the first.
        let settings =
            ["net.ipv4.tcp_invalid_ratelimit=0".to_owned(), "net.ipv4.tcp_challenge_ack_limit=1000000".to_owned()];
        let linux = Linux::new(&settings, 1500)?;
        Ok(Self { linux: Arc::new(linux), port: FIRST_PORT, family })
    }

    fn linux(&mut self, case: &Case, wait_us: u64) -> Record {
        self.port = if self.port >= 60_000 { FIRST_PORT } else { self.port + 1 };
        let mut stack = Staged::real(Arc::clone(&self.linux), wait_us);
        play(&mut stack, case, SocketAddr::new(local(self.family), self.port), self.there())
    }

    fn there(&self) -> SocketAddr {
        SocketAddr::new(remote(self.family), PEER_PORT)
    }

    fn others(&self, case: &Case) -> Result<[Record; 2], Trouble> {
        let here = SocketAddr::new(local(self.family), FIRST_PORT);
        let card =
            Firmware::new(&["tcp.delayed_ack_ms=5".to_owned()]).map_err(|e| Trouble::Io("the card".to_owned(), e))?;
        let mut card = Staged::simulated(Arc::new(card), WAIT_SIMULATED_US);
        let mut smol = Smol::new(self.family, 1, WAIT_SIMULATED_US);
        Ok([play(&mut card, case, here, self.there()), play(&mut smol, case, here, self.there())])
    }

    /// All three on a case.
    fn vote(&mut self, case: &Case, wait_us: u64) -> Result<Vec<Split>, Trouble> {
        let [card, smol] = self.others(case)?;
        Ok(compare(case, &[card, self.linux(case, wait_us), smol]))
    }

    /// What comes of a case for certain. A busy machine can keep the kernel from answering in time: what the kernel is alone in, or against
    /// the card, must be the same twice in a row, with patience; else there is no verdict.
    fn settled(&mut self, case: &Case) -> Result<Option<Vec<Split>>, Trouble> {
        let steady = |splits: &[Split]| splits.iter().all(|split| split.alone == Alone::Smoltcp);
        let mut before = self.vote(case, WAIT_REAL_US)?;
        for _ in 0..ATTEMPTS {
            if steady(&before) {
                return Ok(Some(before));
            }
            let now = self.vote(case, WAIT_PATIENT_US)?;
            if now == before {
                return Ok(Some(now));
            }
            before = now;
        }
        Ok(None)
    }

    /// A case with as few steps as still split in the same way.
    fn shrink(&mut self, mut case: Case, mut split: Split) -> Result<(Case, Split), Trouble> {
        'again: loop {
            for smaller in grammar::smaller(&case) {
                let found = self.settled(&smaller)?.unwrap_or_default();
                if let Some(found) = found.into_iter().find(|s| s.alone == split.alone && s.kind == split.kind) {
                    (case, split) = (smaller, found);
                    continue 'again;
                }
            }
            return Ok((case, split));
        }
    }
}

/// What came of a vote.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Cases on which all three agreed to the end.
    pub agreed: u64,
    /// Cases on which Linux did not say the same twice: the machine was busy.
    pub unsteady: u64,
    /// Splits of a known kind, by their place in [`KNOWN`], and how often.
    pub known: BTreeMap<usize, u64>,
    /// Other splits: kind, who stood alone, how often, and the shortest case found.
    pub unknown: BTreeMap<(Alone, String), (u64, u64, String)>,
}

impl Tally {
    /// Whether every split was of a known kind.
    pub fn is_known(&self) -> bool {
        self.unknown.is_empty()
    }
}

/// Votes on the cases of `seeds`.
///
/// # Errors
/// There is no Linux stage here, or the card does not boot.
pub fn vote(seeds: std::ops::Range<u64>, family: Family) -> Result<Tally, Trouble> {
    let next = AtomicU64::new(seeds.start);
    let tally = Mutex::new(Tally::default());
    let trouble = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min((seeds.end - seeds.start).max(1) as usize) {
            scope.spawn(|| {
                let worked = in_namespace(|| {
                    let mut booth = Booth::new(family)?;
                    Ok(booth.work(&next, seeds.end, &tally))
                });
                if let Err(e) = worked.map_err(Trouble::from).and_then(|result| result) {
                    *trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(e);
                }
            });
        }
    });
    match trouble.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(trouble) => Err(trouble),
        None => Ok(tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)),
    }
}

impl Booth {
    fn work(&mut self, next: &AtomicU64, end: u64, tally: &Mutex<Tally>) -> Result<(), Trouble> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(());
            }
            let case = generate(seed);
            let Some(splits) = self.settled(&case)? else {
                tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner).unsteady += 1;
                continue;
            };
            if splits.is_empty() {
                tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner).agreed += 1;
            }
            for split in splits {
                self.note(seed, &case, split, tally)?;
            }
        }
    }

    fn note(&mut self, seed: u64, case: &Case, split: Split, tally: &Mutex<Tally>) -> Result<(), Trouble> {
        let lock = || tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(at) = known::find(&split) {
            *lock().known.entry(at).or_default() += 1;
            return Ok(());
        }
        let key = (split.alone, split.kind.clone());
        let first = {
            let mut tally = lock();
            let entry = tally.unknown.entry(key.clone()).or_insert((0, seed, String::new()));
            entry.0 += 1;
            entry.0 == 1
        };
        if first {
            let (case, split) = self.shrink(case.clone(), split)?;
            if let Some(entry) = lock().unknown.get_mut(&key) {
                entry.2 = case_text(&case, Some(&split));
            }
        }
        Ok(())
    }
}

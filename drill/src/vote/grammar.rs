//! Random cases: what a peer and a program may do to a connection, mostly in an order that makes sense.
//!
//! The grammar follows the connection with a small model (has the handshake begun, is it over, who has closed), from
//! which follows what may come next: the next step of an orderly life, most of the time, or a segment that is wrong in
//! one respect. A segment's numbers are said relative to something (the peer's next number, the edge of the
//! window, the stack's next number), so that the same case means the same to stacks with other windows and initial numbers.

use crate::language::Flags;

/// A small generator (splitmix64): the same numbers for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize]
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A sequence number of the peer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sequence {
    /// Counted from the peer's SYN.
    At(i64),
    /// Counted from the right edge of the window that the stack has last said.
    Edge(i64),
}

/// An acknowledgement number of the peer's, counted from the stack's next number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acknowledgement {
    /// No ACK bit.
    None,
    /// That many after the next number.
    Next(i64),
}

/// A segment of the peer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shot {
    /// Its flags, without ACK.
    pub flags: u16,
    /// Its number.
    pub sequence: Sequence,
    /// Where that lies for the model: its distance from the number that is next.
    pub distance: i64,
    /// Bytes of text.
    pub length: u32,
    /// What it acknowledges.
    pub acknowledgement: Acknowledgement,
}

/// What the program does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Writes so many bytes.
    Write(u32),
    /// Reads all that is there.
    Read,
    /// Closes its direction.
    Shutdown,
    /// Closes.
    Close,
}

/// One step of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The peer sends.
    Shot(Shot),
    /// The program calls.
    Act(Act),
}

/// A case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// Whether the stack listens; else it connects.
    pub passive: bool,
    /// What happens.
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing was sent by the peer.
    Before,
    /// The peer's SYN is out.
    Opening,
    /// Both have the other's SYN.
    Open,
}

struct Model {
    passive: bool,
    phase: Phase,
    /// The peer's next number, counted from its SYN.
    next: i64,
    peer_closed: bool,
    closed: bool,
    released: bool,
}

/// Steps of a case at most.
const STEPS_MAX: u64 = 10;
/// Bytes of a peer's segment at most.
const TEXT_MAX: u64 = 500;

/// The case of a seed.
pub fn generate(seed: u64) -> Case {
    let mut dice = Dice::new(seed);
    let passive = !dice.one_in(3);
    let mut model =
        Model { passive, phase: Phase::Before, next: 0, peer_closed: false, closed: false, released: false };
    let steps = 3 + dice.below(STEPS_MAX - 2);
    let steps = (0..steps).map(|_| step(&mut dice, &mut model)).collect();
    Case { passive, steps }
}

fn step(dice: &mut Dice, model: &mut Model) -> Step {
    match model.phase {
        Phase::Before => before(dice, model),
        Phase::Opening => opening(dice, model),
        Phase::Open => open(dice, model),
    }
}

fn shot(flags: u16, model: &Model, distance: i64, length: u32, acknowledgement: Acknowledgement) -> Step {
    let sequence = Sequence::At(model.next + distance);
    Step::Shot(Shot { flags, sequence, distance, length, acknowledgement })
}

/// The connection's first segment: a SYN to a listener, or the answer to the stack's.
fn before(dice: &mut Dice, model: &mut Model) -> Step {
    use Acknowledgement::{Next, None};
    if dice.one_in(4) {
        let flags = dice.pick(&[0, 0, Flags::RST, Flags::FIN, Flags::SYN | Flags::RST]);
        let acknowledgement = dice.pick(&[None, Next(0), Next(1), Next(-1)]);
        let length = dice.pick(&[0, 0, 10]);
        return shot(flags, model, 0, length, acknowledgement);
    }
    if model.passive {
        model.phase = Phase::Opening;
        let it = shot(Flags::SYN, model, 0, 0, None);
        model.next = 1;
        return it;
    }
    match dice.below(6) {
        // A simultaneous open.
        0 => {
            model.phase = Phase::Opening;
            let it = shot(Flags::SYN, model, 0, 0, None);
            model.next = 1;
            it
        }
        1 => shot(Flags::SYN, model, 0, 0, Next(dice.pick(&[1, -1]))),
        2 => shot(Flags::RST, model, 0, 0, Next(dice.pick(&[0, 1, -1]))),
        _ => {
            model.phase = Phase::Open;
            let it = shot(Flags::SYN, model, 0, 0, Next(0));
            model.next = 1;
            it
        }
    }
}

/// The peer's SYN is out, and answered.
fn opening(dice: &mut Dice, model: &mut Model) -> Step {
    use Acknowledgement::{Next, None};
    if dice.one_in(3) {
        let acknowledgement = dice.pick(&[Next(1), Next(-1), None, Next(0)]);
        return match dice.below(5) {
            0 => shot(Flags::SYN, model, -1, 0, None),
            1 => shot(Flags::SYN, model, dice.pick(&[0, 100]), 0, dice.pick(&[None, Next(0)])),
            2 => shot(Flags::RST, model, dice.pick(&[0, 1, -1, 1000]), 0, dice.pick(&[None, Next(0)])),
            3 => shot(0, model, dice.pick(&[0, 100, -1]), 10, acknowledgement),
            _ => shot(dice.pick(&[0, Flags::FIN]), model, dice.pick(&[0, 70_000]), 0, acknowledgement),
        };
    }
    model.phase = Phase::Open;
    if dice.one_in(4) {
        let length = 1 + dice.below(TEXT_MAX) as u32;
        let it = shot(0, model, 0, length, Next(0));
        model.next += i64::from(length);
        return it;
    }
    shot(0, model, 0, 0, Next(0))
}

/// The connection stands, or is being closed.
fn open(dice: &mut Dice, model: &mut Model) -> Step {
    use Acknowledgement::Next;
    if !model.released && dice.one_in(3) {
        return Step::Act(act(dice, model));
    }
    let length = 1 + dice.below(TEXT_MAX) as u32;
    match dice.below(16) {
        // Text in order, and the FIN.
        0..=4 if !model.peer_closed => {
            let fin = if dice.one_in(4) { Flags::FIN } else { 0 };
            let it = shot(fin, model, 0, length, Next(0));
            model.next += i64::from(length) + i64::from(fin != 0);
            model.peer_closed |= fin != 0;
            it
        }
        5 | 6 if !model.peer_closed => {
            let it = shot(Flags::FIN, model, 0, 0, Next(0));
            model.next += 1;
            model.peer_closed = true;
            it
        }
        7 => shot(0, model, 0, 0, Next(dice.pick(&[0, 0, 1, 1000, -1, -70_000]))),
        8 => {
            // Text elsewhere: old, with a gap, and beyond; with a good or a bad acknowledgement.
            let distance = dice.pick(&[-1, -10, -500, 1, 100, 70_000, -70_000]);
            shot(dice.pick(&[0, 0, Flags::FIN]), model, distance, length, Next(dice.pick(&[0, 0, 0, 1, -70_000])))
        }
        9 => edge(dice, 0, length),
        10 => shot(Flags::RST, model, dice.pick(&[0, 0, 1, -1, 1000, 70_000, -70_000]), 0, ack(dice)),
        11 => edge(dice, Flags::RST, 0),
        12 => shot(Flags::SYN, model, dice.pick(&[0, -1, 1000, 70_000, -70_000]), 0, ack(dice)),
        13 => shot(0, model, dice.pick(&[0, 0, -1, 1, 70_000]), 0, ack(dice)),
        14 => {
            shot(dice.pick(&[0, Flags::FIN, Flags::PSH, Flags::SYN | Flags::FIN, Flags::URG]), model, 0, 0, ack(dice))
        }
        _ => shot(0, model, 0, 0, Next(0)),
    }
}

fn ack(dice: &mut Dice) -> Acknowledgement {
    dice.pick(&[
        Acknowledgement::None,
        Acknowledgement::Next(0),
        Acknowledgement::Next(0),
        Acknowledgement::Next(1),
        Acknowledgement::Next(-70_000),
    ])
}

/// At the right edge of the window: its last byte, and the first beyond.
fn edge(dice: &mut Dice, flags: u16, length: u32) -> Step {
    let from = dice.pick(&[-1, 0, 1, -10]);
    let (sequence, acknowledgement) = (Sequence::Edge(from), Acknowledgement::Next(0));
    // For the model it is as far away as can be said without knowing the window.
    Step::Shot(Shot { flags, sequence, distance: 60_000 + from, length, acknowledgement })
}

fn act(dice: &mut Dice, model: &mut Model) -> Act {
    match dice.below(6) {
        0 | 1 if !model.closed => Act::Write(1 + dice.below(TEXT_MAX) as u32),
        2 | 3 => Act::Read,
        4 if !model.closed => {
            model.closed = true;
            Act::Shutdown
        }
        5 => {
            model.closed = true;
            model.released = true;
            Act::Close
        }
        _ => Act::Read,
    }
}

/// All cases with one step less.
pub fn smaller(case: &Case) -> Vec<Case> {
    let without = |left_out: usize| {
        let steps = case.steps.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, step)| *step).collect();
        Case { passive: case.passive, steps }
    };
    (0..case.steps.len()).rev().map(without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_case() {
        assert_eq!(generate(7), generate(7));
        assert!((0..50).any(|seed| generate(seed) != generate(seed + 1)));
    }

    #[test]
    fn everything_is_generated() {
        let all: Vec<Step> = (0..3000).flat_map(|seed| generate(seed).steps).collect();
        for flag in [0, Flags::FIN, Flags::SYN, Flags::RST] {
            assert!(all.iter().any(|s| matches!(s, Step::Shot(shot) if shot.flags == flag)), "{flag}");
        }
        for act in [Act::Read, Act::Shutdown, Act::Close] {
            assert!(all.contains(&Step::Act(act)));
        }
        assert!(all.iter().any(|s| matches!(s, Step::Shot(shot) if shot.sequence == Sequence::Edge(0))));
    }

    #[test]
    fn after_close_the_program_is_silent() {
        for seed in 0..3000 {
            let steps = generate(seed).steps;
            let closed = steps.iter().position(|step| *step == Step::Act(Act::Close));
            let after = closed.map_or(&[][..], |at| &steps[at + 1..]);
            assert!(after.iter().all(|step| matches!(step, Step::Shot(_))), "{seed}");
        }
    }
}

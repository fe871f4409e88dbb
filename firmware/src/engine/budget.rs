//! The card's processor: so many steps in a microsecond (`limits.work_units_per_us`), and no more.
//!
//! It is one processor that does one thing after another. Every call takes as long as its steps take; what comes while it
//! is busy waits. A frame from the wire that comes then is left with the caller ([`Verdict::Wait`]), which keeps such frames
//! in their order and hands in the oldest again ([`Firmware::handle_waiting`]) when [`Firmware::poll_timeout`] says. A frame
//! that waits is not counted as received until it is taken, passed on or dropped.
//!
//! They wait in two lanes: segments of the card's connections, and everything else ([`Lane`]), so that a flood that is more than
//! the processor can look at crowds out its own kind alone. Of four frames that are taken while both wait, three are connections'.
//! In each lane `limits.wire_fifo_frames` may wait; the next is dropped and counted (`wire-drop-fifo-full`). Which lane a
//! frame belongs to is seen by the FIFO, as it comes in: one look for its 4-tuple in the table, of at most sixteen places, which
//! costs the processor nothing.
//!
//! What the guest sends, what timers do and what is sent costs time, too, and is not refused: the guest's rings are its own
//! queue. Of what the processor owes for these no more than [`DEBT_US_MAX`] is kept, so that a guest that asks for more than
//! it can do does not shut the wire out.
//!
//! Who calls late, because it does many frames in one look at its clock, takes no time from the processor: frames that waited are
//! done from when it was free, and not from when they are handed in, up to [`DEBT_US_MAX`] ago.
//!
//! Without a limit (zero) a processor is as fast as the machine, and nothing ever waits here. All of it is integers.

use std::collections::VecDeque;

use toe_abi::{Endpoint, Reason};

use crate::counters::Counter;
use crate::engine::perception::USUAL_STEPS_PER_US;
use crate::engine::{Checksum, Firmware, Owner, Verdict};
use crate::store::gauge::Gauge;
use crate::tcp::tcb::Tuple;
use crate::time::Instant;
use crate::wire::frame::Ethernet;
use crate::wire::{ip, segment};

/// The most microseconds of work that the processor can be behind, and the most that its caller can be late.
pub const DEBT_US_MAX: u64 = 1000;

/// Where a frame waits for the processor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(usize)]
pub enum Lane {
    /// A segment of a connection of the card.
    Connections,
    /// Anything else: SYNs and the rest of handshakes, what is in TIME-WAIT, what is the guest's.
    Others,
}

impl Lane {
    /// How many there are: a caller keeps a queue for each, by `lane as usize`.
    pub const COUNT: usize = 2;

    /// The oldest frame of this lane and, should the caller have none, of the other; and whose it was.
    pub fn oldest<T>(self, queues: &mut [VecDeque<T>; Self::COUNT]) -> Option<(Self, T)> {
        let other = if self == Self::Connections { Self::Others } else { Self::Connections };
        [self, other].into_iter().find_map(|lane| Some((lane, queues[lane as usize].pop_front()?)))
    }
}

/// Of so many frames that are taken while both lanes wait, one is of the others.
const TURNS: u32 = 4;

/// The processor.
#[derive(Debug)]
pub struct Processor {
    /// Steps in a microsecond; zero if there is no limit.
    steps_per_us: u64,
    /// The same as the profile has it.
    usual_steps_per_us: u64,
    /// Everything takes so many times its steps.
    slower: u64,
    /// When all of its work is done, in steps since time began.
    free_at: u64,
    /// Frames that wait for it, in each lane.
    pub waiting: [Gauge; Lane::COUNT],
    /// Connections' frames taken since one of the others was.
    turn: u32,
    /// What it does now has waited for it.
    has_waited: bool,
}

impl Processor {
    /// One of that speed, for which as many frames may wait as the gauges say.
    pub fn new(steps_per_us: u32, waiting: [Gauge; Lane::COUNT]) -> Self {
        let steps_per_us = steps_per_us.into();
        Self {
            steps_per_us,
            usual_steps_per_us: steps_per_us,
            slower: 1,
            free_at: 0,
            waiting,
            turn: 0,
            has_waited: false,
        }
    }

    /// It is so many times slower from here on; one is as usual.
    pub fn slow_down(&mut self, times: u32) {
        self.slower = times.max(1).into();
        let usual = self.usual_steps_per_us;
        let speed = if usual == 0 && times > 1 { USUAL_STEPS_PER_US } else { usual };
        if speed != self.steps_per_us {
            (self.steps_per_us, self.free_at) = (speed, 0);
        }
    }

    /// Whether it is done before this microsecond ends.
    fn has_time(&self, now: Instant) -> bool {
        self.steps_per_us == 0 || self.free_at < (now.as_us() + 1).saturating_mul(self.steps_per_us)
    }

    /// It has done so many steps.
    pub fn work(&mut self, now: Instant, steps: u64) {
        if self.steps_per_us == 0 {
            return;
        }
        let now = now.as_us().saturating_mul(self.steps_per_us);
        let bound = DEBT_US_MAX * self.steps_per_us;
        let most = now.saturating_add(bound);
        let begin = if std::mem::take(&mut self.has_waited) { now.saturating_sub(bound) } else { now };
        self.free_at = self.free_at.max(begin).saturating_add(steps.saturating_mul(self.slower)).min(most);
    }

    /// When the next frame that waits can be taken; `None` if none waits.
    pub fn next(&self) -> Option<Instant> {
        (self.waits() && self.steps_per_us > 0).then(|| Instant::from_us(self.free_at / self.steps_per_us))
    }

    fn waits(&self) -> bool {
        self.has_waiting(Lane::Connections) || self.has_waiting(Lane::Others)
    }

    fn has_waiting(&self, lane: Lane) -> bool {
        let waiting = &self.waiting[lane as usize];
        waiting.in_use() > waiting.lost()
    }

    /// Whose turn it is, if anybody waits.
    fn next_lane(&self) -> Option<Lane> {
        match [Lane::Connections, Lane::Others].map(|lane| self.has_waiting(lane)) {
            [true, true] if self.turn + 1 < TURNS => Some(Lane::Connections),
            [_, true] => Some(Lane::Others),
            [true, false] => Some(Lane::Connections),
            [false, false] => None,
        }
    }

    /// One that waited there is taken.
    fn take(&mut self, lane: Lane) {
        self.waiting[lane as usize].give_back(1);
        self.turn = if lane == Lane::Connections && self.has_waiting(Lane::Others) { self.turn + 1 } else { 0 };
        self.has_waited = true;
    }
}

impl Firmware {
    /// A frame from the wire that has just come: whether the processor takes it now. If not, what becomes of it.
    pub(super) fn admit_frame(&mut self, now: Instant, frame: &[u8]) -> Result<(), Verdict> {
        if !self.processor.waits() && self.processor.has_time(now) {
            return Ok(());
        }
        let lane = self.lane_of(frame);
        let waiting = &mut self.processor.waiting[lane as usize];
        if waiting.admits() && waiting.take(1) {
            return Err(Verdict::Wait(lane));
        }
        waiting.refuse(Reason::ProcessorBusy);
        self.store.counters.add(Counter::WireIn);
        self.store.counters.add(Counter::WireDropFifoFull);
        Err(Verdict::Taken)
    }

    /// Where a frame would wait.
    fn lane_of(&mut self, frame: &[u8]) -> Lane {
        let tuple = Ethernet::split(frame).and_then(|(ethernet, packet)| {
            let located = ip::find_tcp(ethernet.ethertype, packet).ok()?;
            let (source, destination) = segment::ports(located.tcp)?;
            Some(Tuple {
                local: Endpoint::new(located.destination, destination),
                remote: Endpoint::new(located.source, source),
            })
        });
        let owner = tuple.and_then(|tuple| self.owner(&tuple));
        // The FIFO's work, and not the processor's.
        self.work.total = self.steps();
        if matches!(owner, Some(Owner::Connection(_))) { Lane::Connections } else { Lane::Others }
    }

    /// The lane whose oldest frame ([`Lane::oldest`]) is to be handed in now with [`Self::handle_waiting`]; `None` if none waits
    /// or the processor is busy.
    pub fn next_waiting(&self, now: Instant) -> Option<Lane> {
        let lane = self.processor.next_lane()?;
        (self.halted.is_some() || self.processor.has_time(self.by_the_firmwares_clock(now))).then_some(lane)
    }

    /// Takes the oldest frame of a lane for which [`Firmware::handle_wire`] or this said [`Verdict::Wait`].
    pub fn handle_waiting(&mut self, now: Instant, lane: Lane, frame: &[u8], checksum: Checksum) -> Verdict {
        let Some(now) = self.perceive(now) else {
            self.processor.take(lane);
            self.processor.has_waited = false;
            return self.halted_at_wire();
        };
        if !self.processor.has_time(now) {
            return Verdict::Wait(lane);
        }
        debug_assert!(self.processor.has_waiting(lane), "no frame waits");
        self.processor.take(lane);
        self.take_frame(now, frame, checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use crate::time::Duration;

    fn gauges() -> [Gauge; Lane::COUNT] {
        ["connection-fifo", "wire-fifo"].map(|name| Gauge::new(name, "deny", 2))
    }

    fn at(us: u64) -> Instant {
        Instant::from_us(us)
    }

    #[test]
    fn a_processor_does_one_thing_after_another() {
        let mut p = Processor::new(10, gauges());
        assert!(p.has_time(at(5)));
        p.work(at(5), 9);
        assert!(p.has_time(at(5)), "a step is left in this microsecond");
        p.work(at(5), 26);
        // 35 steps are three microseconds and a half.
        assert!(!p.has_time(at(5)) && !p.has_time(at(7)) && p.has_time(at(8)));
        assert_eq!(p.next(), None);
        assert!(p.waiting[1].take(1));
        assert_eq!(p.next(), Some(at(8)));
        // Time that was not used is gone.
        p.work(at(100), 10);
        assert!(!p.has_time(at(100)) && p.has_time(at(101)));
        // Debts are bounded.
        p.work(at(200), 1_000_000);
        assert!(!p.has_time(at(200 + DEBT_US_MAX - 1)) && p.has_time(at(200 + DEBT_US_MAX)));
        let mut unlimited = Processor::new(0, gauges());
        unlimited.work(at(1), u64::MAX);
        assert!(unlimited.has_time(at(0)));
    }

    /// A listener on a card with a slow processor: a SYN takes it some microseconds.
    fn slow() -> (Bench, Vec<Vec<u8>>) {
        let mut b = Bench::with(|p| {
            p.limits.work_units_per_us = 1;
            p.limits.wire_fifo_frames = 3;
        });
        b.listen();
        // The bench's guest has just said something.
        b.now = b.now + Duration::from_ms(1);
        let frames = (0..6).map(|_| {
            b.another_port(false);
            b.frame("S 0 <mss 1000>")
        });
        let frames = frames.collect();
        (b, frames)
    }

    #[test]
    fn what_comes_while_it_is_busy_waits_and_then_is_dropped() {
        let (mut b, frames) = slow();
        let now = b.now;
        let verdicts: Vec<_> = frames.iter().map(|f| b.firmware.handle_wire(now, f, Checksum::Unverified)).collect();
        use Verdict::Taken;
        const WAIT: Verdict = Verdict::Wait(Lane::Others);
        assert_eq!(verdicts, [Taken, WAIT, WAIT, WAIT, Taken, Taken]);
        assert_eq!((b.in_use("wire-fifo"), b.count("wire-drop-fifo-full"), b.in_use("half-open")), (3, 2, 1));
        // Those that wait are not accounted for yet.
        assert_eq!((b.count("wire-in"), b.accounted()), (3, 3));
        assert_eq!(b.firmware.handle_waiting(now, Lane::Others, &frames[1], Checksum::Unverified), WAIT);
        assert_eq!(b.firmware.next_waiting(now), None);
        let mut taken = 0;
        let mut last = now;
        for frame in &frames[1..4] {
            let due = b.firmware.poll_timeout().unwrap();
            assert!(due > last, "{due:?}");
            last = due;
            assert_eq!(b.firmware.handle_waiting(due, Lane::Others, frame, Checksum::Unverified), Taken);
            taken += 1;
        }
        assert_eq!((taken, b.in_use("wire-fifo"), b.in_use("half-open")), (3, 0, 4));
        assert_eq!((b.count("wire-in"), b.accounted()), (6, 6));
    }

    #[test]
    fn a_caller_that_is_late_takes_no_time_from_the_processor() {
        let (mut b, frames) = slow();
        let now = b.now;
        let _ = b.firmware.handle_wire(now, &frames[0], Checksum::Unverified);
        for frame in &frames[1..4] {
            assert_eq!(b.firmware.handle_wire(now, frame, Checksum::Unverified), Verdict::Wait(Lane::Others));
        }
        // Long enough for one more and a little of the next.
        let first_us = b.firmware.poll_timeout().unwrap().since(now).as_us();
        let late = now + Duration::from_us(first_us * 5 / 2);
        assert_eq!(b.firmware.handle_waiting(late, Lane::Others, &frames[1], Checksum::Unverified), Verdict::Taken);
        assert_eq!(b.firmware.handle_waiting(late, Lane::Others, &frames[2], Checksum::Unverified), Verdict::Taken);
        let third = b.firmware.handle_waiting(late, Lane::Others, &frames[3], Checksum::Unverified);
        assert_eq!(third, Verdict::Wait(Lane::Others), "it has no more time than has passed");
        let due = b.firmware.poll_timeout().unwrap();
        assert!(due > late && due.since(now).as_us() <= first_us * 3 + 3, "{due:?}");
    }

    #[test]
    fn a_caller_that_is_very_late_has_a_millisecond_of_it_back() {
        let mut p = Processor::new(10, gauges());
        p.work(at(0), 10);
        assert!(p.waiting[1].take(1));
        p.take(Lane::Others);
        p.work(at(50_000), 5_000);
        assert!(p.has_time(at(50_000)), "500 of 1,000 microseconds");
        p.has_waited = true;
        p.work(at(50_000), 5_020);
        assert!(!p.has_time(at(50_001)) && p.has_time(at(50_002)));
        // What comes when nobody waits begins when it comes.
        p.work(at(60_000), 20);
        assert!(!p.has_time(at(60_001)) && p.has_time(at(60_002)));
    }

    #[test]
    fn a_frame_does_not_overtake_those_that_wait() {
        let (mut b, frames) = slow();
        let now = b.now;
        let _ = b.firmware.handle_wire(now, &frames[0], Checksum::Unverified);
        assert_eq!(b.firmware.handle_wire(now, &frames[1], Checksum::Unverified), Verdict::Wait(Lane::Others));
        let later = now + Duration::from_ms(5);
        assert_eq!(b.firmware.handle_wire(later, &frames[2], Checksum::Unverified), Verdict::Wait(Lane::Others));
        for frame in &frames[1..3] {
            let due = b.firmware.poll_timeout().unwrap().max(later);
            assert_eq!(b.firmware.handle_waiting(due, Lane::Others, frame, Checksum::Unverified), Verdict::Taken);
        }
        assert_eq!(b.in_use("wire-fifo"), 0);
    }

    #[test]
    fn timers_and_the_guest_take_time_too() {
        let (mut b, frames) = slow();
        // A message of the guest: it is served, and the wire waits for it.
        b.addresses(&[b.local.ip; 4]);
        assert_eq!(b.firmware.handle_wire(b.now, &frames[0], Checksum::Unverified), Verdict::Wait(Lane::Others));
        let due = b.firmware.poll_timeout().unwrap();
        assert_eq!(b.firmware.handle_waiting(due, Lane::Others, &frames[0], Checksum::Unverified), Verdict::Taken);
        // The SYN-ACK's timer.
        let due = due + Duration::from_ms(1001);
        b.firmware.handle_timeout(due);
        assert_eq!(b.firmware.handle_wire(due, &frames[1], Checksum::Unverified), Verdict::Wait(Lane::Others));
    }

    /// Beyond its budget SYNs fill their lane and are dropped; a connection's segments do not notice, and three of four that are
    /// taken are theirs.
    #[test]
    fn connections_go_before_the_others_and_not_alone() {
        let mut b = Bench::with(|p| {
            p.limits.work_units_per_us = 1;
            p.limits.wire_fifo_frames = 6;
        });
        // Until the processor has done what the bench's guest has said.
        let rest = |b: &mut Bench| b.now = b.now + Duration::from_ms(2);
        b.connect(0);
        b.expect("S 0");
        rest(&mut b);
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        b.expect("A 1:1 ack 1");
        rest(&mut b);
        let segments: Vec<_> =
            (0..6u32).map(|n| b.frame(&format!("PA {}:{} ack 1", 1 + n * 10, 11 + n * 10))).collect();
        let connection = b.which();
        b.local.port = 80;
        b.listen();
        rest(&mut b);
        let syns: Vec<_> = (0..9)
            .map(|_| {
                b.another_port(false);
                b.frame("S 0 <mss 1000>")
            })
            .collect();
        let mut lanes: [std::collections::VecDeque<Vec<u8>>; Lane::COUNT] = Default::default();
        let mut wait = |b: &mut Bench, frame: &Vec<u8>| {
            let verdict = b.firmware.handle_wire(b.now, frame, Checksum::Unverified);
            if let Verdict::Wait(lane) = verdict {
                lanes[lane as usize].push_back(frame.clone());
            }
        };
        syns.iter().for_each(|frame| wait(&mut b, frame));
        assert_eq!((b.in_use("wire-fifo"), b.count("wire-drop-fifo-full")), (6, 2));
        segments.iter().for_each(|frame| wait(&mut b, frame));
        assert_eq!((b.in_use("connection-fifo"), b.count("wire-drop-fifo-full")), (6, 2));
        let mut order = String::new();
        while b.in_use("wire-fifo") + b.in_use("connection-fifo") > 0 {
            b.now = b.now.max(b.firmware.poll_timeout().unwrap());
            let Some(lane) = b.firmware.next_waiting(b.now) else { continue };
            let frame = lanes[lane as usize].pop_front().unwrap();
            assert_eq!(b.firmware.handle_waiting(b.now, lane, &frame, Checksum::Unverified), Verdict::Taken);
            order.push(if lane == Lane::Connections { 'c' } else { 's' });
        }
        assert_eq!(order, "cccscccsssss");
        b.resume(connection);
        b.wait_ms(10);
        b.received(60);
    }
}

//! Timers that faults hold: that never begin to run, run for ever, too long or too short, or run out twice.
//!
//! A site is passed when a timer begins to run, not when it is moved. What a rule does to it there holds until it has run
//! out, or is not wanted any more.

use crate::engine::Firmware;
use crate::fault::{Action, FOR_EVER, Site};
use crate::store::slab::Slot;
use crate::store::wheel::Timer;
use crate::tcp::timeout::{self, Kind};
use crate::time::{Duration, Instant};

/// So many are held at most; a rule that strikes another has no effect.
const HELD_MAX: usize = 64;

/// Beyond the end of every connection, and within the wheel's reach: fifty days.
const NEVER: Duration = Duration::from_s(50 * 24 * 3600);

/// How a timer is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hold {
    /// It does not run though it should.
    Lost,
    /// It runs and never runs out.
    Stuck,
    /// It runs out so much later.
    Late(Duration),
    /// It runs out at once.
    Early,
    /// It runs out twice.
    Twice,
}

/// The timers that are held.
#[derive(Debug)]
pub struct Held {
    timers: Box<[Option<(Timer, Hold)>]>,
    count: usize,
}

impl Held {
    /// None.
    pub fn new() -> Self {
        Self { timers: vec![None; HELD_MAX].into(), count: 0 }
    }

    /// Whether there are any.
    pub fn is_any(&self) -> bool {
        self.count > 0
    }

    fn find(&self, timer: Timer) -> Option<Hold> {
        self.timers.iter().flatten().find(|(t, _)| *t == timer).map(|(_, hold)| *hold)
    }

    fn add(&mut self, timer: Timer, hold: Hold) {
        if let Some(place) = self.timers.iter_mut().find(|place| place.is_none()) {
            *place = Some((timer, hold));
            self.count += 1;
        }
    }

    fn let_go(&mut self, timer: Timer) -> Option<Hold> {
        let place = self.timers.iter_mut().find(|place| place.is_some_and(|(t, _)| t == timer))?;
        self.count -= 1;
        place.take().map(|(_, hold)| hold)
    }

    /// All of them are let go.
    pub fn clear(&mut self) {
        self.timers.fill(None);
        self.count = 0;
    }

    /// All of them.
    pub fn timers(&self) -> impl Iterator<Item = Timer> + '_ {
        self.timers.iter().flatten().map(|(timer, _)| *timer)
    }
}

/// How often a timer that has run out is run, and what time it believes it to be.
pub(super) type Run = (u32, Instant);

impl Firmware {
    /// Runs a timer until `at`, from now on or still.
    pub(super) fn arm_timer(&mut self, timer: Timer, at: Instant) {
        if self.store.faults.has_any(Site::TIMERS) || self.held.is_any() {
            self.arm_by_fault(timer, at);
        } else {
            self.wheel.arm(timer, at);
        }
    }

    /// The timer is not wanted.
    pub(super) fn disarm_timer(&mut self, timer: Timer) {
        if self.held.is_any() {
            self.held.let_go(timer);
        }
        self.wheel.disarm(timer);
    }

    /// Runs a connection's timers until they are due.
    #[cold]
    #[inline(never)]
    pub(super) fn arm_oddly(&mut self, slot: Slot) {
        for kind in Kind::ALL {
            let timer = self.timers.connection(slot, kind);
            match timeout::deadline(&self.connections[slot], kind) {
                Some(at) => self.arm_timer(timer, at),
                None => self.disarm_timer(timer),
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn arm_by_fault(&mut self, timer: Timer, at: Instant) {
        let hold = match self.held.find(timer) {
            Some(hold) => Some(hold),
            None if self.wheel.is_armed(timer) => None,
            None => {
                let hold = self.store.faults.strike(self.timers.site(timer)).and_then(|action| match action {
                    Action::Drop => Some(Hold::Lost),
                    Action::Hang(FOR_EVER) => Some(Hold::Stuck),
                    Action::Hang(us) | Action::Delay(us) => Some(Hold::Late(Duration::from_us(us).min(NEVER))),
                    Action::Early => Some(Hold::Early),
                    Action::Duplicate => Some(Hold::Twice),
                    _ => None,
                });
                if let Some(hold) = hold {
                    self.held.add(timer, hold);
                }
                hold
            }
        };
        match hold {
            None | Some(Hold::Twice) => self.wheel.arm(timer, at),
            Some(Hold::Lost) => {}
            Some(Hold::Stuck) => self.wheel.arm(timer, at + NEVER),
            Some(Hold::Late(late)) => self.wheel.arm(timer, at + late),
            Some(Hold::Early) => self.wheel.arm(timer, Instant::default()),
        }
    }

    /// A timer that was to run out at `deadline` has run out.
    #[cold]
    #[inline(never)]
    pub(super) fn run_held(&mut self, timer: Timer, deadline: Option<Instant>, now: Instant) -> Run {
        match self.held.let_go(timer) {
            Some(Hold::Early) => (1, deadline.map_or(now, |at| at.max(now))),
            Some(Hold::Twice) => (2, now),
            _ => (1, now),
        }
    }
}

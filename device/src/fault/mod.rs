//! Faults of the card's hardware: what the device does where a rule strikes.
//!
//! The rules, what they count and their chance are the firmware's ([`toe_firmware::Injector`]), so that one list has all
//! the card's strikes; the data path asks it at the device's sites ([`crate::datapath`]) and does here what it says. With
//! nothing armed there is nothing here: no frame is held, and a passage costs one look at a bit.
//!
//! | site | what the device does |
//! |---|---|
//! | `wire.rx.frame`, `wire.tx.frame` | as a cable: loses, repeats, delays, reorders, damages, cuts ([`damage`]) |
//! | `wire.link` | loses what passes while it is down, both ways |
//! | `channel.rx.frame`, `channel.tx.frame` | loses, repeats, delays |
//! | `dma.tx.read`, `dma.rx.write` | the same in the copy from and to guest memory, and `truncate`: what lies behind is missing (zeros); `error`: every other [`damage::LINE_BYTES`] are missing; `corrupt`: the buffers of the next chain of the same ring are used instead, never anything else of the guest's memory |
//! | `virtio.kick.*` | does not hear the doorbell, hears it later, or twice |
//! | `virtio.call.*` | does not interrupt, interrupts later, twice, or so many times ([`STORM_GAP`] apart) |
//! | `virtio.used.index` | of a receive ring. `drop`: it is not written, which a driver survives; `error`: the last id is that of no buffer, after which it has to be reset |
//! | `timer.wake` | does not look at the firmware's timers, looks later, or twice |
//!
//! What is delayed lies in a [`held::Held`] of at most [`held::HELD_FRAMES_MAX`] frames; one more is lost and counted. Lost
//! doorbells and interrupts are found again by [`crate::vigil`], faults or not.

pub mod damage;
pub mod held;
pub mod status;

use toe_firmware::{Duration, Instant};

use held::Held;

/// How far apart the interrupts of a storm are.
pub const STORM_GAP: Duration = Duration::from_us(50);

/// The most interrupts of one storm.
pub const STORM_MAX: u64 = 10_000;

/// The most interrupts and storms that wait at once; what comes then is not delayed.
pub const CALLS_MAX: usize = 64;

/// How long the device does not look at the firmware's timers after a wake was lost.
pub const LOST_WAKE: Duration = Duration::from_ms(1_000);

/// Interrupts that are still to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Call {
    due: Instant,
    ring: usize,
    left: u64,
}

/// What faults have left to be done.
#[derive(Default, Debug)]
pub struct Faults {
    /// Whether rules are armed, and the seed of their chance.
    pub armed: Option<u64>,
    /// Frames.
    pub held: Held,
    calls: Vec<Call>,
    /// Until when the link is down.
    link_down_until: Option<Instant>,
    /// Until when nobody looks at the firmware's timers.
    asleep_until: Option<Instant>,
    /// A doorbell that is heard late.
    kick_due: Option<Instant>,
    /// Pairs, by their bits, whose first frame was asked about and waits for buffers.
    pub asked: u128,
    /// The channel frame that waits goes astray.
    pub channel_astray: bool,
    /// What was due found no room.
    not_before: Option<Instant>,
}

impl Faults {
    /// When something is to be done.
    pub fn next(&self) -> Option<Instant> {
        let calls = self.calls.iter().map(|call| call.due).min();
        let held = self.held.next().map(|due| self.not_before.map_or(due, |at| due.max(at)));
        [calls, held, self.kick_due].into_iter().flatten().min()
    }

    /// Some of what was due at `now` has to wait.
    pub fn wait(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// A doorbell is to be heard at that time.
    pub fn kick_at(&mut self, due: Instant) {
        self.kick_due = Some(self.kick_due.map_or(due, |other| other.min(due)));
    }

    /// A ring's interrupts, so many, from `due` on. Whether there was a place for them.
    pub fn call_at(&mut self, due: Instant, ring: usize, times: u64) -> bool {
        let has_place = self.calls.len() < CALLS_MAX;
        if has_place && times > 0 {
            self.calls.push(Call { due, ring, left: times.min(STORM_MAX) });
        }
        has_place
    }

    /// The rings that are to be interrupted at `now`, one after the other.
    pub fn next_call(&mut self, now: Instant) -> Option<usize> {
        let at = self.calls.iter().position(|call| call.due <= now)?;
        let call = &mut self.calls[at];
        let ring = call.ring;
        call.left -= 1;
        call.due = now + STORM_GAP;
        if call.left == 0 {
            self.calls.swap_remove(at);
        }
        Some(ring)
    }

    /// The link is down until then.
    pub fn link_down(&mut self, until: Instant) {
        self.link_down_until = Some(self.link_down_until.map_or(until, |other| other.max(until)));
    }

    /// Whether the link is down.
    pub fn is_link_down(&mut self, now: Instant) -> bool {
        self.link_down_until = self.link_down_until.filter(|until| now < *until);
        self.link_down_until.is_some()
    }

    /// Nobody looks at the firmware's timers until then.
    pub fn sleep(&mut self, until: Instant) {
        self.asleep_until = Some(until);
    }

    /// When the firmware's timers are looked at that are due at that time.
    pub fn awake(&self, due: Instant) -> Instant {
        self.asleep_until.map_or(due, |until| due.max(until))
    }

    /// Time has come to `now`.
    pub fn begin(&mut self, now: Instant) {
        self.kick_due = self.kick_due.filter(|due| *due > now);
        self.asleep_until = self.asleep_until.filter(|until| *until > now);
        self.not_before = self.not_before.filter(|until| *until > now);
    }

    /// No fault is armed any more: the link is up, and what is held goes on its way.
    pub fn disarm(&mut self) {
        self.armed = None;
        self.held.release_all();
        self.calls.clear();
        (self.link_down_until, self.asleep_until) = (None, None);
        self.channel_astray = false;
    }

    /// The guest has gone.
    pub fn forget_guest(&mut self) {
        self.calls.clear();
        self.asked = 0;
        self.channel_astray = false;
    }
}

/// So many microseconds from `now` on.
pub fn later(now: Instant, us: u64) -> Instant {
    Instant::from_us(now.as_us().saturating_add(us))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_us(us)
    }

    #[test]
    fn a_storm_is_spread_and_bounded() {
        let mut faults = Faults::default();
        assert!(faults.call_at(at(10), 3, 3));
        assert_eq!(faults.next_call(at(9)), None);
        assert_eq!(faults.next(), Some(at(10)));
        for now in [10, 60, 110] {
            assert_eq!(faults.next_call(at(now)), Some(3));
            assert_eq!(faults.next_call(at(now)), None);
        }
        assert_eq!(faults.next(), None);
        for _ in 0..CALLS_MAX {
            assert!(faults.call_at(at(10), 0, u64::MAX));
        }
        assert!(!faults.call_at(at(10), 0, 1));
        assert_eq!(faults.calls[0].left, STORM_MAX);
    }

    #[test]
    fn a_link_comes_up_again_and_sleep_ends() {
        let mut faults = Faults::default();
        faults.link_down(at(100));
        assert!(faults.is_link_down(at(99)) && !faults.is_link_down(at(100)));
        faults.sleep(at(50));
        assert_eq!(faults.awake(at(20)), at(50));
        faults.begin(at(50));
        assert_eq!(faults.awake(at(20)), at(20));
        faults.link_down(later(at(1), u64::MAX));
        assert!(faults.is_link_down(at(1 << 60)));
        faults.disarm();
        assert!(!faults.is_link_down(at(0)));
    }
}

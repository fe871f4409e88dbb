//! A look at the guest's rings every [`LOOK_EVERY`], for doorbells and interrupts that were lost.
//!
//! A ring that has nothing for the card is armed: the driver rings when there is more, once. If that doorbell is lost, ring
//! and driver would wait for each other for ever. So the look has the data path go through all rings, as a kick would have. If it
//! finds chains in an armed ring, then or whenever it comes by, and no kick is heard within [`KICK_GRACE`] either,
//! that is counted (`kicks-missed`).
//!
//! With EVENT_IDX a driver asks for one interrupt at one position and gets no other. If what it asked for has passed, an
//! interrupt was sent since, and its wish still stands a whole look later, it has not heard: it is interrupted again, after
//! one look, two, four …, [`REPEATS_MAX`] times at most, so that a driver that does not care is left in peace
//! (`interrupts-repeated`). Without EVENT_IDX the next frame interrupts anyway, and nothing tells a driver that has not heard
//! from one that has nothing to say: nothing is repeated there.

use toe_firmware::{Duration, Instant};

/// How often rings are looked at.
pub const LOOK_EVERY: Duration = Duration::from_ms(50);

/// A kick that comes so soon after what it announces was found was only late.
pub const KICK_GRACE: Duration = Duration::from_ms(10);

/// How often at most an interrupt is repeated: over 50 × (1 + 2 + … + 32) ms, about three seconds.
pub const REPEATS_MAX: u32 = 6;

/// What is known of one ring.
#[derive(Clone, Copy, Default, Debug)]
struct Watch {
    /// The available index for which the driver was asked to ring.
    armed_at: Option<u16>,
    /// Something was found that no kick had announced.
    unannounced: Option<Instant>,
    /// An interrupt was sent since the driver was last seen to have had them all.
    was_called: bool,
    /// The wish of the driver that had passed at the last look.
    wish: Option<u16>,
    repeats: u32,
    /// Looks until the next repetition.
    wait: u32,
}

/// What a look came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Seen {
    /// A kick was lost.
    pub kick_missed: bool,
    /// The driver is to be interrupted again.
    pub call_again: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Vigil {
    rings: Vec<Watch>,
    next: Instant,
}

impl Vigil {
    /// For so many rings.
    pub fn new(rings: usize) -> Self {
        Self { rings: vec![Watch::default(); rings], next: Instant::from_us(0) }
    }

    /// When the next look is.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Whether it is time for a look; the next is then [`LOOK_EVERY`] later.
    pub fn is_time(&mut self, now: Instant) -> bool {
        let is_time = now >= self.next;
        if is_time {
            self.next = now + LOOK_EVERY;
        }
        is_time
    }

    /// A ring is the driver's to announce from that available index on, or is looked at anyway.
    pub fn armed(&mut self, ring: usize, at: Option<u16>) {
        self.rings[ring].armed_at = at;
    }

    /// A ring is gone through: its available index.
    pub fn found(&mut self, ring: usize, now: Instant, available: u16) {
        let watch = &mut self.rings[ring];
        if watch.armed_at.take_if(|at| *at != available).is_some() {
            watch.unannounced.get_or_insert(now);
        }
    }

    /// A ring's kick was heard.
    pub fn kicked(&mut self, ring: usize, now: Instant) {
        if let Some(watch) = self.rings.get_mut(ring) {
            watch.armed_at = None;
            watch.unannounced = watch.unannounced.filter(|found| now.since(*found) > KICK_GRACE);
        }
    }

    /// A ring's driver was interrupted.
    pub fn called(&mut self, ring: usize) {
        self.rings[ring].was_called = true;
    }

    /// A ring has begun anew.
    pub fn forget(&mut self, ring: usize) {
        self.rings[ring] = Watch::default();
    }

    /// A look at a ring: its available index, and the driver's wish if that has passed.
    pub fn look(&mut self, ring: usize, now: Instant, available: u16, wish_passed: Option<u16>) -> Seen {
        self.found(ring, now, available);
        let watch = &mut self.rings[ring];
        let kick_missed = watch.unannounced.take_if(|since| now.since(*since) > KICK_GRACE).is_some();
        let mut call_again = false;
        match wish_passed {
            Some(wish) if watch.was_called && watch.wish == Some(wish) => {
                watch.wait = watch.wait.saturating_sub(1);
                if watch.wait == 0 && watch.repeats < REPEATS_MAX {
                    watch.wait = 1 << watch.repeats;
                    watch.repeats += 1;
                    call_again = true;
                }
            }
            _ => {
                watch.was_called &= wish_passed.is_some();
                (watch.wish, watch.repeats, watch.wait) = (wish_passed, 0, 0);
            }
        }
        Seen { kick_missed, call_again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_us(ms * 1_000)
    }

    const NOTHING: Seen = Seen { kick_missed: false, call_again: false };

    #[test]
    fn a_kick_that_never_came_is_counted_and_one_that_was_late_is_not() {
        let mut vigil = Vigil::new(2);
        vigil.armed(0, Some(3));
        vigil.kicked(0, at(10));
        vigil.found(0, at(10), 4);
        assert_eq!(vigil.look(0, at(40), 4, None), NOTHING, "it was announced");
        assert!(vigil.is_time(at(0)) && !vigil.is_time(at(49)) && vigil.is_time(at(50)));
        vigil.armed(1, Some(7));
        assert_eq!(vigil.look(1, at(50), 7, None), NOTHING);
        assert_eq!(vigil.look(1, at(100), 8, None), NOTHING, "not sure yet");
        vigil.armed(1, Some(8));
        assert_eq!(vigil.look(1, at(150), 8, None), Seen { kick_missed: true, ..NOTHING });
        assert_eq!(vigil.look(1, at(200), 9, None), NOTHING);
        vigil.kicked(1, at(201));
        vigil.armed(1, Some(9));
        assert_eq!(vigil.look(1, at(250), 9, None), NOTHING);
        vigil.found(1, at(260), 10);
        assert_eq!(vigil.look(1, at(300), 10, None), Seen { kick_missed: true, ..NOTHING }, "found by the way");
        vigil.armed(1, None);
        assert_eq!(vigil.look(1, at(350), 20, None), NOTHING, "it is looked at anyway");
        assert_eq!(vigil.look(1, at(400), 20, None), NOTHING);
    }

    #[test]
    fn a_wish_that_stands_is_called_again_at_longer_and_longer_intervals() {
        let mut vigil = Vigil::new(1);
        vigil.called(0);
        let again: Vec<u64> = (0..200).filter(|n| vigil.look(0, at(50 * n), 0, Some(5)).call_again).collect();
        assert_eq!(again, [1, 2, 4, 8, 16, 32]);
    }

    #[test]
    fn a_driver_that_has_heard_or_was_never_called_is_left_in_peace() {
        let mut vigil = Vigil::new(1);
        for n in 0..5 {
            assert_eq!(vigil.look(0, at(50 * n), 0, Some(5)), NOTHING, "never called");
        }
        vigil.called(0);
        assert_eq!(vigil.look(0, at(300), 0, Some(6)), NOTHING);
        assert_eq!(vigil.look(0, at(350), 0, None), NOTHING, "it has heard");
        assert_eq!(vigil.look(0, at(400), 0, Some(7)), NOTHING);
        assert_eq!(vigil.look(0, at(450), 0, Some(7)), NOTHING, "and was not called since");
    }
}

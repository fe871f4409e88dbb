//! What happens on the card (pools that fill and empty, a firmware that had stopped, damage that was found), told to who follows: the log of `toe-nic`, and any number of [`FOLLOWERS_MAX`] operators.
//!
//! The firmware tells of its pools itself (its ring is emptied after each round of the data path); the device's own
//! pools are watched here by the same rule ([`Watermark`]). Who follows has a queue of bounded length; one who reads too
//! slowly misses events, and the next one says how many. Nobody waits.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use toe_firmware::{Cure, Event, Halt, Level};
use tokio::sync::mpsc;

use crate::watchdog::Cured;

/// The most who may follow.
pub const FOLLOWERS_MAX: usize = 8;

/// The most events that wait for one of them.
const QUEUE_EVENTS: usize = 256;

/// Something has happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// When, in microseconds since 1970.
    pub time_us: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// How many events before this one were missed, because who follows reads too slowly.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

/// What has happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum What {
    /// A pool's use has passed three quarters of its capacity, or all of it, or is below five eighths again.
    Pool {
        /// The pool's name.
        pool: String,
        /// `high`, `full`, or `normal` again.
        level: String,
        /// How many were in use.
        in_use: u64,
        /// How many there are.
        capacity: u64,
    },
    /// The firmware had stopped, and the watchdog has started it.
    Firmware {
        /// How it was started: `reset` (without its state) or `restart` (over its tables).
        firmware: String,
        /// How it had stopped: `hang`, `crash`, `crash-kept`, or `unknown`.
        cause: String,
        /// Its epoch from now on.
        epoch: u32,
    },
    /// The firmware has found something damaged or lost, and has dealt with it.
    Finding {
        /// What: the name of the counter that counts it.
        finding: String,
        /// Where, as a place of the table that it is in.
        place: u32,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.what {
            What::Pool { pool, level, in_use, capacity } if level == Level::Normal.as_str() => {
                write!(f, "pool {pool} has room again: {in_use} of {capacity} in use")
            }
            What::Pool { pool, level, in_use, capacity } => {
                write!(f, "pool {pool} is {level}: {in_use} of {capacity} in use")
            }
            What::Firmware { firmware, cause, epoch } => {
                write!(f, "the firmware did not answer any more ({cause}): {firmware}, epoch {epoch:#010x}")
            }
            What::Finding { finding, place } => {
                write!(f, "the firmware has found and dealt with {finding}, place {place}")
            }
        }
    }
}

/// What is told in one line each as JSON.
impl Notice {
    /// How serious it is for a log.
    pub fn log_level(&self) -> log::Level {
        match &self.what {
            What::Pool { level, .. } if level == Level::Normal.as_str() => log::Level::Info,
            What::Pool { .. } => log::Level::Warn,
            What::Firmware { .. } | What::Finding { .. } => log::Level::Error,
        }
    }

    /// With the line's end.
    pub fn json_line(&self) -> String {
        // A struct of names and numbers can always be written.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// All who follow.
#[derive(Debug, Default)]
pub struct Events {
    followers: Vec<(mpsc::Sender<Notice>, u64)>,
}

impl Events {
    /// One more, who hears of what happens from now on; `None` if there are [`FOLLOWERS_MAX`] already.
    pub fn follow(&mut self) -> Option<mpsc::Receiver<Notice>> {
        self.followers.retain(|(sender, _)| !sender.is_closed());
        if self.followers.len() == FOLLOWERS_MAX {
            return None;
        }
        let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
        self.followers.push((sender, 0));
        Some(receiver)
    }

    /// The firmware tells.
    pub fn firmware(&mut self, event: Event) {
        match event {
            Event::Pool { pool, level, in_use, capacity } => self.pool(pool.name(), level, in_use, capacity),
            Event::Finding { finding, place } => {
                self.tell(|| What::Finding { finding: finding.name().to_owned(), place });
            }
        }
    }

    /// The watchdog has started the firmware.
    pub fn cured(&mut self, Cured { halt, cure }: Cured, epoch: u32) {
        let firmware = match cure {
            Cure::Reset => "reset",
            Cure::Restart => "restart",
        };
        let cause = halt.map_or("unknown", Halt::as_str);
        self.tell(|| What::Firmware { firmware: firmware.to_owned(), cause: cause.to_owned(), epoch });
    }

    /// A pool's level is another.
    pub fn pool(&mut self, name: &str, level: Level, in_use: u64, capacity: u64) {
        let level = level.as_str().to_owned();
        self.tell(|| What::Pool { pool: name.to_owned(), level, in_use, capacity });
    }

    fn tell(&mut self, what: impl FnOnce() -> What) {
        if self.followers.is_empty() {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let notice = Notice { time_us: u64::try_from(now.as_micros()).unwrap_or(u64::MAX), what: what(), missed: 0 };
        self.followers.retain_mut(|(sender, missed)| {
            match sender.try_send(Notice { missed: *missed, ..notice.clone() }) {
                Ok(()) => *missed = 0,
                Err(mpsc::error::TrySendError::Full(_)) => *missed += 1,
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            }
            true
        });
    }
}

/// The level of a pool of the device, by the firmware's rule: it rises at three quarters and when nothing is left, and
/// falls when less than five eighths are in use.
#[derive(Debug)]
pub struct Watermark {
    level: Level,
}

impl Default for Watermark {
    fn default() -> Self {
        Self { level: Level::Normal }
    }
}

impl Watermark {
    /// The level, if it is another now.
    pub fn look(&mut self, in_use: u64, capacity: u64) -> Option<Level> {
        let level = match self.level {
            _ if in_use >= capacity => Level::Full,
            Level::Normal if in_use * 4 >= capacity * 3 => Level::High,
            Level::High | Level::Full if in_use * 8 < capacity * 5 => Level::Normal,
            same => same,
        };
        (std::mem::replace(&mut self.level, level) != level).then_some(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_rises_at_once_and_falls_late() {
        let mut watermark = Watermark::default();
        let mut seen = Vec::new();
        for in_use in [0, 11, 12, 11, 10, 12, 15, 16, 15, 10, 9, 12, 16] {
            seen.extend(watermark.look(in_use, 16).map(|level| (in_use, level)));
        }
        let expected = [(12, Level::High), (16, Level::Full), (9, Level::Normal), (12, Level::High), (16, Level::Full)];
        assert_eq!(seen, expected);
        assert_eq!(Watermark::default().look(1, 1), Some(Level::Full));
    }

    #[test]
    fn who_reads_too_slowly_is_told_how_much_was_missed() {
        let mut events = Events::default();
        let mut receiver = events.follow().unwrap();
        for in_use in 0..QUEUE_EVENTS as u64 + 3 {
            events.pool("things", Level::High, in_use, 1000);
        }
        let in_use = |notice: &Notice| match notice.what {
            What::Pool { in_use, .. } => in_use,
            _ => unreachable!("nothing but pools"),
        };
        for n in 0..QUEUE_EVENTS as u64 {
            let notice = receiver.try_recv().unwrap();
            assert_eq!((in_use(&notice), notice.missed), (n, 0));
        }
        events.pool("things", Level::Full, 1000, 1000);
        let notice = receiver.try_recv().unwrap();
        assert_eq!((in_use(&notice), notice.missed), (1000, 3));
        assert!(notice.json_line().ends_with("\"level\":\"full\",\"in_use\":1000,\"capacity\":1000,\"missed\":3}\n"));
        assert_eq!(notice.to_string(), "pool things is full: 1000 of 1000 in use");
    }

    #[test]
    fn what_the_watchdog_does_is_told() {
        let mut events = Events::default();
        let mut receiver = events.follow().unwrap();
        events.cured(Cured { halt: Some(Halt::Hang), cure: Cure::Reset }, 0x1234);
        let notice = receiver.try_recv().unwrap();
        assert_eq!(notice.to_string(), "the firmware did not answer any more (hang): reset, epoch 0x00001234");
        assert_eq!(notice.log_level(), log::Level::Error);
        let line = notice.json_line();
        assert!(line.ends_with("\"firmware\":\"reset\",\"cause\":\"hang\",\"epoch\":4660}\n"), "{line}");
        assert_eq!(serde_json::from_str::<Notice>(&line).unwrap(), notice);
    }

    #[test]
    fn only_so_many_may_follow_and_who_has_gone_is_forgotten() {
        let mut events = Events::default();
        let mut receivers: Vec<_> = (0..FOLLOWERS_MAX).map(|_| events.follow().unwrap()).collect();
        assert!(events.follow().is_none());
        receivers.pop();
        events.follow().unwrap();
    }
}

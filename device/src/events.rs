//! Pools that fill and empty, told to who follows: the log of `toe-nic`, and any number of [`FOLLOWERS_MAX`] operators.
//!
//! The firmware tells of its pools itself (its ring is emptied after each round of the data path); the device's own
//! pools are watched here by the same rule ([`Watermark`]). Who follows has a queue of bounded length; one who reads too
//! slowly misses events, and the next one says how many. Nobody waits.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use toe_firmware::{Event, Level};
use tokio::sync::mpsc;

/// The most who may follow.
pub const FOLLOWERS_MAX: usize = 8;

/// The most events that wait for one of them.
const QUEUE_EVENTS: usize = 256;

/// A pool's use has passed three quarters of its capacity, or all of it, or is below five eighths again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// When, in microseconds since 1970.
    pub time_us: u64,
    /// The pool's name.
    pub pool: String,
    /// `high`, `full`, or `normal` again.
    pub level: String,
    /// How many were in use.
    pub in_use: u64,
    /// How many there are.
    pub capacity: u64,
    /// How many events before this one were missed, because who follows reads too slowly.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pool, level, in_use, capacity, .. } = self;
        match level.as_str() {
            "normal" => write!(f, "pool {pool} has room again: {in_use} of {capacity} in use"),
            _ => write!(f, "pool {pool} is {level}: {in_use} of {capacity} in use"),
        }
    }
}

/// What is told in one line each as JSON.
impl Notice {
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
        }
    }

    /// A pool's level is another.
    pub fn pool(&mut self, name: &str, level: Level, in_use: u64, capacity: u64) {
        if self.followers.is_empty() {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let notice = Notice {
            time_us: u64::try_from(now.as_micros()).unwrap_or(u64::MAX),
            pool: name.to_owned(),
            level: level.as_str().to_owned(),
            in_use,
            capacity,
            missed: 0,
        };
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
        for in_use in 0..QUEUE_EVENTS as u64 {
            let notice = receiver.try_recv().unwrap();
            assert_eq!((notice.in_use, notice.missed), (in_use, 0));
        }
        events.pool("things", Level::Full, 1000, 1000);
        let notice = receiver.try_recv().unwrap();
        assert_eq!((notice.in_use, notice.missed), (1000, 3));
        assert!(notice.json_line().ends_with("\"level\":\"full\",\"in_use\":1000,\"capacity\":1000,\"missed\":3}\n"));
        assert_eq!(notice.to_string(), "pool things is full: 1000 of 1000 in use");
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

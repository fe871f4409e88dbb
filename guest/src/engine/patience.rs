//! What can wait for something else to say: a frame of its own costs the guest's kernel, and the card, more than what it says.
//!
//! RECEIVE_CREDIT answers data and news so that the card forgets them and does not say them again, which it does after 50 ms. It
//! leaves with the next frame, whatever that is made for, and by itself [`PATIENCE`] after the first that waits. So does an option
//! that nobody waits for. The card does likewise where it was asked to (`flags::PATIENT`).
//!
//! What is said at once: that data came again, ahead of its turn or beyond the limit, that a limit has grown by enough, everything that
//! waits when the card has an eighth of what may be on its way to us unanswered, and that a connection of a listener is known, because the card
//! sends it nothing before. What is said before everybody sleeps ([`Engine::about_to_sleep`]): that
//! [`HELD_UNTOLD_MAX`] bytes of a connection are held that the card still keeps. A program that reads on meanwhile makes room,
//! and both are one message.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use toe_abi::Writer;

use super::{Engine, Speaker};

/// The longest that anything waits.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);
/// So many bytes of a connection are worth a frame: they are memory of the card, and its window towards the peer.
pub(super) const HELD_UNTOLD_MAX: u64 = 1024;

/// Who waits; see the module.
#[derive(Debug, Default)]
pub(super) struct Patience {
    pub(super) speakers: VecDeque<Speaker>,
    due: Option<Instant>,
    /// Some of them are not to wait for a sleep.
    pub(super) presses: bool,
    /// Received since the last frame that had room for all who waited.
    pub(super) bytes: u64,
}

impl Patience {
    /// When [`Engine::run_out_of_patience`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl Engine {
    /// After frames were taken: what can wait has so long.
    pub(super) fn begin_to_wait(&mut self, now: Instant) {
        if self.patience.speakers.is_empty() {
            return;
        }
        self.patience.due.get_or_insert(now + PATIENCE);
        if self.patience.bytes >= self.config.receive_bytes_max / 8 {
            self.stop_waiting();
        }
    }

    /// What has waited long enough is said.
    pub(super) fn run_out_of_patience(&mut self, now: Instant) {
        if self.patience.due.is_some_and(|due| due <= now) {
            self.stop_waiting();
        }
    }

    /// Nobody will look at the card, nor read, for a while.
    pub(crate) fn about_to_sleep(&mut self) {
        if std::mem::take(&mut self.patience.presses) {
            self.stop_waiting();
        }
    }

    fn stop_waiting(&mut self) {
        (self.patience.due, self.patience.bytes, self.patience.presses) = (None, 0, false);
        for speaker in std::mem::take(&mut self.patience.speakers) {
            match speaker {
                Speaker::Connection(key) => {
                    if let Some(c) = self.connections.get_mut(&key) {
                        c.waits = false;
                        c.lose_patience();
                    }
                    self.settle_connection(key);
                }
                Speaker::Listener(_) | Speaker::Question(_) => self.speakers.push_back(speaker),
            }
        }
    }

    /// Writes into a frame that leaves anyway what has waited for one.
    pub(super) fn take_along(&mut self, w: &mut Writer<'_>) {
        while let Some(speaker) = self.patience.speakers.pop_front() {
            // What a connection has to say beside that stands in the other queue.
            if !self.take_one_along(speaker, w) {
                self.patience.speakers.push_front(speaker);
                return;
            }
        }
        (self.patience.due, self.patience.bytes, self.patience.presses) = (None, 0, false);
    }

    fn take_one_along(&mut self, speaker: Speaker, w: &mut Writer<'_>) -> bool {
        if let Speaker::Connection(key) = speaker {
            return self.connections.get_mut(&key).is_none_or(|c| {
                let complete = !c.has_patience() || c.emit_credit(w);
                c.waits = !complete;
                complete
            });
        }
        self.speak(speaker, w)
    }
}

//! What can wait: news and answers that no program sleeps for.
//!
//! A frame to the guest wakes its driver, and that costs more than what most frames say. Where the driver has said that it can wait
//! (`flags::PATIENT` of CONNECT and LISTEN), these leave with the next frame for their context, whatever that is made for, and by
//! themselves after [`PATIENCE`]:
//!
//! * SEND_CREDIT, while the guest has more than half of its credit left. A SEND without data asks for it, and what was not taken
//!   is told at once.
//! * CONNECT_RESULT with an id: the handshake that follows mostly brings the next news. With Fast Open it is what the first data
//!   waits for, and does not wait.
//! * RELEASED, and the yes to NODELAY, which the guest knows beforehand.
//!
//! *Bounds.* One deadline for all of them, begun by the first, so that none waits longer; a driver repeats itself after 50 ms.
//! The ring of answers is half empty for those that cannot wait: beyond that none waits.

use crate::engine::Firmware;
use crate::engine::events::Reply;
use crate::engine::timers::TIMER_STEPS;
use crate::store::queue::{Links, Queue};
use crate::store::slab::Slot;
use crate::time::{Duration, Instant};

/// The longest that anything waits. A driver begins to repeat itself after 50 ms.
pub const PATIENCE: Duration = Duration::from_ms(20);

/// What waits; see the module.
#[derive(Debug)]
pub(super) struct Patience {
    /// When it has waited long enough.
    due: Option<Instant>,
    /// Contexts with words that wait.
    contexts: Queue,
    links: Links,
    /// All answers in the ring can wait.
    answers_wait: bool,
}

impl Patience {
    /// Nothing waits, for any of so many contexts.
    pub(super) fn new(contexts: u32) -> Self {
        Self { due: None, contexts: Queue::EMPTY, links: Links::new(contexts), answers_wait: false }
    }

    /// When [`Firmware::run_out_of_patience`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether no answer has to go now.
    pub(super) fn answers_wait(&self) -> bool {
        self.answers_wait
    }

    /// An answer that is about to be queued cannot wait: those before it go with it.
    pub(super) fn answer_at_once(&mut self) {
        self.answers_wait = false;
    }

    fn begin(&mut self, now: Instant) {
        self.due.get_or_insert(now + PATIENCE);
    }

    /// Nothing waits any more.
    pub(super) fn forget(&mut self) {
        while self.contexts.pop(&mut self.links).is_some() {}
        (self.due, self.answers_wait) = (None, false);
    }
}

impl Firmware {
    /// Sees that what a connection has to say leaves in time if it can wait.
    pub(super) fn put_off(&mut self, slot: Slot, now: Instant) {
        let guest = &self.connections[slot].guest;
        if guest.credit_later
            && let Some(owner) = guest.context
            && !self.contexts[owner].hurry
        {
            self.patience.contexts.push(&mut self.patience.links, owner);
            self.patience.begin(now);
        }
    }

    /// Queues an answer that can wait.
    pub(super) fn queue_reply_for_later(&mut self, reply: Reply, now: Instant) {
        if self.replies.len() == 0 {
            self.patience.answers_wait = true;
        }
        self.add_reply(reply);
        if self.replies_gauge.in_use() * 2 > self.replies_gauge.capacity() {
            self.patience.answers_wait = false;
        }
        self.patience.begin(now);
    }

    /// What has waited long enough waits no longer.
    pub(super) fn run_out_of_patience(&mut self, now: Instant) {
        if self.patience.due.is_none_or(|due| due > now) {
            return;
        }
        self.patience.answers_wait = false;
        for _ in 0..TIMER_STEPS {
            let Some(context) = self.patience.contexts.pop(&mut self.patience.links) else {
                self.patience.due = None;
                return;
            };
            self.store.steps.one();
            let waits = self.contexts.in_use(context) && !self.contexts[context].news.is_empty();
            if waits {
                self.contexts[context].hurry = true;
                self.guest_queue.push(&mut self.guest_links, context);
            }
        }
    }
}

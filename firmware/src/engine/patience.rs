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

#[cfg(test)]
mod tests {
    use toe_abi::{Message, Send, flags, option, state};

    use super::*;
    use crate::testing::Bench;

    const PATIENT: u32 = flags::NODELAY | flags::PATIENT;

    /// Frames to the guest since it was last asked.
    struct Frames(u64);

    impl Frames {
        fn of(b: &Bench) -> Self {
            Self(b.count("guest-out"))
        }

        fn since(&mut self, b: &Bench) -> u64 {
            let before = std::mem::replace(&mut self.0, b.count("guest-out"));
            self.0 - before
        }
    }

    #[test]
    fn the_answer_to_connect_comes_with_the_end_of_the_handshake_or_in_time() {
        let mut b = Bench::new();
        let mut frames = Frames::of(&b);
        b.connect(PATIENT);
        b.expect("S 0");
        assert_eq!((frames.since(&b), b.connection), (0, 0));
        b.now = b.now + Duration::from_ms(1);
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        b.expect("A 1:1 ack 1");
        assert!(b.connection != 0 && b.bits == state::ESTABLISHED);
        assert_eq!(frames.since(&b), 1);

        b.wait_ms(100);
        b.another_port(true);
        b.connection = 0;
        b.connect(PATIENT);
        b.expect("S 0");
        b.wait_ms(PATIENCE.as_us() / 1000 - 1);
        assert_eq!(b.connection, 0);
        b.wait_ms(1);
        assert!(b.connection != 0, "it does not wait longer");
        assert_eq!(frames.since(&b), 1);
        // Nobody can wait for these: Fast Open's data waits for it, and a refusal is news.
        for (wishes, port) in [(PATIENT | flags::FAST_OPEN, 0), (PATIENT, 1)] {
            b.another_port(true);
            if port == 1 {
                b.remote.port = 0;
            }
            b.connect(wishes);
            assert_eq!(frames.since(&b), 1);
        }
    }

    #[test]
    fn credit_waits_while_half_of_it_is_left() {
        let mut b = Bench::established_with(PATIENT, "mss 1000");
        let mut frames = Frames::of(&b);
        b.send(64);
        b.send(64);
        assert_eq!(frames.since(&b), 0);
        // It goes with what else there is to say.
        b.peer("PA 1:65 ack 129");
        assert_eq!(frames.since(&b), 1);
        b.wait_ms(100);
        assert_eq!(frames.since(&b), 0);
        b.send(64);
        b.wait_ms(PATIENCE.as_us() / 1000);
        assert_eq!(frames.since(&b), 1);
        // It is asked for.
        b.send(64);
        let ask = Message::Send(Send { connection: b.connection, offset: b.sent() }, &[]);
        b.tell(&ask);
        assert_eq!(frames.since(&b), 1);
        // What came again shows that something was lost.
        let again = Message::Send(Send { connection: b.connection, offset: 0 }, &[0; 64]);
        b.tell(&again);
        assert_eq!(frames.since(&b), 1);
        // Half of it is used up.
        let t = &b.firmware.connections[b.connection as u32];
        let left = t.send.stream.limit().since(t.send.end);
        b.send(left / 2 - 64);
        assert_eq!(frames.since(&b), 0);
        b.send(128);
        assert_eq!(frames.since(&b), 1);
    }

    #[test]
    fn a_release_is_confirmed_in_time_and_not_every_answer_waits() {
        let mut b = Bench::established_with(PATIENT, "mss 1000");
        let mut frames = Frames::of(&b);
        b.set(option::NODELAY, 0);
        assert_eq!(frames.since(&b), 0, "it knows the answer");
        b.set(option::HOP_LIMIT, 9);
        assert_eq!(frames.since(&b), 1, "both");
        b.release();
        assert_eq!(frames.since(&b), 0);
        b.wait_ms(PATIENCE.as_us() / 1000);
        assert_eq!(frames.since(&b), 1);
        // Nothing waits for nothing.
        assert_eq!(b.firmware.patience.due(), None);
    }

    #[test]
    fn who_is_not_patient_hears_at_once() {
        let mut b = Bench::established();
        let mut frames = Frames::of(&b);
        b.send(64);
        b.set(option::NODELAY, 0);
        b.release();
        assert_eq!(frames.since(&b), 3);
    }
}

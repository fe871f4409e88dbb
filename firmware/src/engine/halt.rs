//! The firmware stops, and is started again: without its state, or over its tables.
//!
//! A firmware that has stopped ([`Firmware::halt`]: it hangs, or it has crashed) does nothing whatever it is handed. Frames
//! from either side are dropped and counted, nothing is sent, no timer fires, and its heartbeat
//! ([`Firmware::heartbeat`]) stands still. It cannot help itself: whoever watches it from outside ([`crate::Watchdog`])
//! notices, and does one of two things.
//!
//! * [`Firmware::reset`] boots it anew, without state: another epoch, other keys, other initial sequence numbers, no
//!   connection, no context. Whoever had some is told ([`crate::engine::announce`]). Counters and armed faults stay: they lie
//!   where a reset does not reach, so that the operator sees what led to it.
//! * [`Firmware::restart`] starts it over its tables: epoch, keys, contexts and connections are those from before. What is
//!   not in the tables is lost (segments of no connection, answers to guests, turns, timers), and all of it comes again: a
//!   peer and a guest repeat what was not answered, and turns and timers follow from the blocks. Connections whose block
//!   does not pass its check ([`crate::tcp::seal`]) are aborted, the others go on with no byte lost.
//!
//! A reset allocates, as a boot does; a restart goes over all tables once. Neither is part of a frame's way.

use crate::counters::Counter;
use crate::engine::{Call, Firmware, Verdict};
use crate::profile::ProfileError;
use crate::store::queue::{Links, Queue};
use crate::store::wheel::Timer;
use crate::tcp::half_open::SYN_ACK_TIMEOUT;
use crate::time::Instant;

/// How the firmware has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Halt {
    /// It does not come back from what it does. What its tables are worth, nobody knows.
    Hang,
    /// It has crashed, and its tables are lost.
    Crash,
    /// It has crashed between two calls: its tables are as the last call left them.
    CrashKept,
    /// It failed its self-test while it ran ([`Firmware::self_test`]): what it says by its keys is worth nothing.
    SelfTest,
}

impl Halt {
    /// `hang`, `crash`, `crash-kept` or `self-test`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hang => "hang",
            Self::Crash => "crash",
            Self::CrashKept => "crash-kept",
            Self::SelfTest => "self-test",
        }
    }
}

impl Firmware {
    /// It stops here. From now on nothing but [`Firmware::reset`] and [`Firmware::restart`] has any effect.
    pub fn halt(&mut self, how: Halt) {
        self.halted.get_or_insert(how);
        self.perception.armed();
    }

    /// How it has stopped, if it has.
    pub fn halted(&self) -> Option<Halt> {
        self.halted
    }

    /// A number that moves with every call that is answered, and with no other.
    pub fn heartbeat(&self) -> u64 {
        self.beats
    }

    /// The call by which a [`crate::Watchdog`] sees whether it answers. It runs no timer; what it does in it is to go over its
    /// tables ([`crate::engine::scrub`]).
    pub fn beat(&mut self, now: Instant) {
        if self.halted.is_some() {
            return;
        }
        self.scrub(now);
        // Whether there was anything to look at or not: this is its heartbeat.
        self.worked(Call::Scrub, false, now);
    }

    /// Boots it anew, without state. `seed` and `epoch` are as in [`Firmware::new`], and must be others than before.
    ///
    /// # Errors
    /// None with the profile that it was booted with before.
    pub fn reset(&mut self, seed: [u8; 32], epoch: u32, now: Instant) -> Result<(), ProfileError> {
        let mut fresh = Self::new(&self.profile, seed, epoch, now)?;
        if let Some(injector) = self.disarm() {
            fresh.arm_again(injector);
        }
        std::mem::swap(&mut fresh.store.counters, &mut self.store.counters);
        fresh.beats = self.beats;
        fresh.host = self.host.take();
        *self = fresh;
        self.store.counters.add(Counter::FirmwareResets);
        self.announce(now);
        Ok(())
    }

    /// Starts it over its tables.
    pub fn restart(&mut self, now: Instant) {
        self.halted = None;
        self.held.clear();
        if !self.store.faults.is_armed() {
            self.perception.disarmed();
        }
        self.store.counters.add(Counter::FirmwareRestarts);
        self.forget_what_is_not_in_the_tables();
        for slot in 0..self.contexts.capacity() {
            if self.contexts.in_use(slot) {
                // Nobody could be heard: every lease begins anew.
                self.heard(slot, now);
                self.arm_lease(slot);
                self.guest_queue.push(&mut self.guest_links, slot);
            }
        }
        for slot in 0..self.half_open.capacity() {
            if self.half_open.in_use(slot) {
                let wait = SYN_ACK_TIMEOUT.backed_off(self.half_open[slot].retries(), self.store.config.rto_max);
                self.wheel.arm(self.timers.half_open(slot), now + wait);
            }
        }
        for slot in 0..self.time_wait.capacity() {
            if self.time_wait.in_use(slot) && !self.time_wait[slot].parked {
                self.wheel.arm(self.timers.time_wait(slot), now + self.store.config.time_wait);
            }
        }
        for slot in 0..self.connections.capacity() {
            if self.connections.in_use(slot) && self.is_sound(slot, now) {
                self.settle(slot, now);
            }
        }
    }

    /// Segments of no connection, answers, turns and timers.
    fn forget_what_is_not_in_the_tables(&mut self) {
        while self.segments.pop().is_some() {
            self.segments_gauge.give(1);
        }
        while self.replies.pop().is_some() {
            self.replies_gauge.give(1);
        }
        (0..self.timers.count()).for_each(|timer: Timer| self.wheel.disarm(timer));
        while self.wire_queue.pop(&mut self.wire_links).is_some() {}
        while self.guest_queue.pop(&mut self.guest_links).is_some() {}
        self.patience.forget();
        for context in 0..self.contexts.capacity() {
            let take = |queue: &mut Queue, links: &mut Links| while queue.pop(links).is_some() {};
            take(&mut self.contexts[context].news, &mut self.news_links);
            take(&mut self.contexts[context].data, &mut self.data_links);
        }
    }

    /// A frame from the wire that nobody takes.
    pub(super) fn halted_at_wire(&mut self) -> Verdict {
        self.store.counters.add(Counter::WireIn);
        self.drop_from_wire(Counter::WireDropHalted)
    }

    /// A frame from the guest that nobody takes.
    pub(super) fn halted_at_guest(&mut self) -> Verdict {
        self.store.counters.add(Counter::GuestIn);
        self.store.counters.add(Counter::GuestDropHalted);
        Verdict::Taken
    }
}

#[cfg(test)]
mod tests {
    use toe_abi::{flags, state};

    use super::*;
    use crate::engine::Checksum;
    use crate::testing::{Bench, octet};
    use crate::time::Duration;

    const HALTS: [Halt; 3] = [Halt::Hang, Halt::Crash, Halt::CrashKept];

    #[test]
    fn a_firmware_that_has_stopped_does_nothing_and_every_frame_is_accounted_for() {
        for halt in HALTS {
            let mut b = Bench::established();
            b.send(100);
            let beats = b.firmware.heartbeat();
            b.firmware.halt(halt);
            let frame = b.frame("PA 1:101 ack 1");
            let before = (b.count("wire-in"), b.count("guest-in"));
            assert_eq!(b.firmware.handle_wire(b.now, &frame, Checksum::Unverified), Verdict::Taken);
            assert_eq!(b.firmware.handle_guest(b.now, &frame), Verdict::Taken);
            b.now = b.now + Duration::from_s(3600);
            b.firmware.handle_timeout(b.now);
            let mut buffer = vec![0; toe_abi::FRAME_BYTES_MAX];
            assert_eq!(b.firmware.poll_wire(b.now, &mut buffer), None);
            assert_eq!(b.firmware.poll_guest(b.now, &mut buffer), None);
            assert_eq!((b.firmware.poll_timeout(), b.firmware.heartbeat()), (None, beats));
            assert_eq!((b.count("wire-in"), b.count("guest-in")), (before.0 + 1, before.1 + 1));
            assert_eq!((b.count("wire-drop-halted"), b.count("guest-drop-halted")), (1, 1));
            assert_eq!(b.accounted(), b.count("wire-in"));
        }
    }

    #[test]
    fn a_connection_goes_on_over_its_tables_with_no_byte_lost() {
        let mut b = Bench::established();
        // Data in flight, data received beyond a gap, data that the guest has not been sent: all of it in the tables.
        b.send(3000);
        b.expect("A 1:1001");
        b.reading = false;
        b.peer("PA 1:101 ack 1001");
        b.peer("PA 201:301 ack 1001");
        let id = b.connection;
        b.firmware.halt(Halt::CrashKept);
        b.now = b.now + Duration::from_ms(75);
        b.firmware.restart(b.now);
        assert_eq!(b.firmware.audit(), Ok(()));
        assert_eq!((b.firmware.halted(), b.firmware.epoch(), b.count("firmware-restarts")), (None, 1, 1));
        b.reading = true;
        b.wait_ms(1000);
        while b.next().is_some() {}
        b.peer("PA 101:201 ack 1001");
        b.received(300);
        // What was sent comes again by its timers and is taken off as ever.
        b.peer("A 301 ack 3001");
        b.drain();
        b.send(10);
        b.expect("PA 3001:3011 ack 301");
        assert_eq!((b.connection, b.bits & state::ABORTED), (id, 0));
        assert_eq!(b.received, (0..300).map(octet).collect::<Vec<_>>());
    }

    #[test]
    fn half_open_entries_and_time_wait_go_on_too() {
        let mut b = Bench::new();
        b.listen();
        b.peer("S 0 win 1000 <mss 1000>");
        b.expect("SA 0");
        b.firmware.halt(Halt::CrashKept);
        b.firmware.restart(b.now);
        // Nobody repeats the SYN: the entry's own timer does it.
        b.wait_ms(1001);
        b.expect("SA 0 ack 1");
        b.peer("A 1 ack 1 win 1000");
        assert_eq!(b.in_use("connections"), 1);
        let mut b = Bench::established();
        b.shutdown();
        b.expect("FA 1:1");
        b.peer("FA 1 ack 2");
        b.release();
        assert_eq!(b.in_use("time-wait"), 1);
        b.firmware.halt(Halt::CrashKept);
        b.firmware.restart(b.now);
        b.wait_ms(59_000);
        assert_eq!(b.in_use("time-wait"), 1);
        b.wait_ms(2_000);
        assert_eq!(b.in_use("time-wait"), 0);
    }

    #[test]
    fn nothing_is_left_after_a_reset_and_the_keys_are_new() {
        for halt in HALTS {
            let mut b = Bench::established();
            let (local, remote) = (b.local, b.remote);
            b.send(500);
            let before = b.firmware.tuple_hash(local, remote);
            let sent = b.count("tcp-segments-out");
            b.firmware.halt(halt);
            b.firmware.reset([8; 32], 2, b.now).unwrap();
            assert_eq!((b.firmware.halted(), b.firmware.epoch(), b.count("firmware-resets")), (None, 2, 1));
            assert_ne!(b.firmware.tuple_hash(local, remote), before);
            assert!(b.firmware.limits().all(|limit| limit.in_use == 0));
            assert_eq!(b.count("tcp-segments-out"), sent, "what was counted before is known after it");
        }
    }

    /// RFC 9293, 3.4.3: what was on its way from before must not be taken for something of now. The numbers of the new
    /// connection are of new keys, so nothing of the old one is acceptable to it.
    #[test]
    fn no_old_duplicate_is_taken_after_a_reset() {
        let mut b = Bench::new();
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        b.expect("A 1:1 ack 1");
        let old: Vec<_> = ["PA 1:101 ack 1", "A 1 ack 1", "FA 101 ack 1", "R 1", "RA 1 ack 1", "SA 0 ack 1"]
            .map(|text| b.frame(text))
            .into();
        b.firmware.halt(Halt::Hang);
        b.firmware.reset([8; 32], 2, b.now).unwrap();
        let take = |b: &mut Bench, frame: &[u8]| b.firmware.handle_wire(b.now, frame, Checksum::Unverified);
        for frame in &old {
            assert_eq!(take(&mut b, frame), Verdict::PassOn, "nobody here has that connection");
        }
        // The same ends again: first while the card waits for the peer, then when it is open.
        b.reborn(2);
        b.connect(flags::NODELAY);
        b.expect("S 0");
        for frame in &old {
            assert_eq!(take(&mut b, frame), Verdict::Taken);
            b.drain();
            assert_eq!(b.bits & (state::ESTABLISHED | state::ABORTED), 0);
        }
        // The peer has begun anew as well: its numbers have gone on.
        b.peer_iss = b.peer_iss.wrapping_add(1_000_000);
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        assert_eq!(b.bits & state::ESTABLISHED, state::ESTABLISHED);
        for frame in &old {
            assert_eq!(take(&mut b, frame), Verdict::Taken);
            b.drain();
        }
        assert_eq!((b.bits & (state::ABORTED | state::PEER_CLOSED), b.received.len()), (0, 0));
        b.peer("PA 1:11 ack 1");
        b.received(10);
    }
}

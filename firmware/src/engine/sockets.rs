//! Everything on the card that has an address, for a table of connections as `ss` prints it: listeners, connections,
//! half-open and TIME-WAIT entries, of all contexts.
//!
//! An answer looks at [`PLACES_MAX`] places at most, whatever it finds there, and names the place to go on from; so a
//! question costs the same on an empty card and on a full one. What opens or closes between two answers may be missing
//! or listed, as in any table that is read while it changes.

use toe_abi::{Endpoint, InfoResult, Message, SocketEntry, SocketsResult, Writer, socket_timer};

use crate::engine::Firmware;
use crate::engine::context::Process;
use crate::engine::events::info;
use crate::store::slab::Slot;
use crate::tcp::timeout::{Kind, deadline, is_probing_window};
use crate::time::Instant;

/// The most places that one answer looks at.
const PLACES_MAX: u64 = 64;

/// Linux's numbers of the states that are no connection's.
const SYN_RECEIVED: u8 = 3;
const TIME_WAIT: u8 = 6;
const LISTEN: u8 = 10;

/// A place: which slab, and where in it.
#[derive(Clone, Copy, Debug)]
enum Place {
    Listener(Slot),
    Connection(Slot),
    HalfOpen(Slot),
    TimeWait(Slot),
}

impl Firmware {
    /// Writes SOCKETS_RESULT; `false` if the frame has no room for any of it.
    pub(super) fn sockets(&self, w: &mut Writer<'_>, cookie: u64, after: u64, now: Instant) -> bool {
        let message = |next| Message::SocketsResult(SocketsResult { cookie, next }, &[]);
        let room = w.room(&message(0));
        let mut found = [None; PLACES_MAX as usize];
        let (mut next, mut bytes) = (after, 0);
        for slot in &mut found {
            let Some((place, in_use)) = self.place(next) else {
                next = 0;
                break;
            };
            self.store.steps.one();
            if in_use {
                bytes += SocketEntry::bytes(self.process_of(place).name());
                if bytes > room {
                    break;
                }
                *slot = Some(place);
            }
            next += 1;
        }
        if next == after && after < self.places() {
            return false;
        }
        let next = if next < self.places() { next } else { 0 };
        w.push_entries(&message(next), room, |entries| {
            let places = found.into_iter().flatten();
            places.map(|place| self.entry(place, now)).all(|entry| entries.socket(&entry));
        })
    }

    fn places(&self) -> u64 {
        let slabs = [self.listeners.capacity(), self.connections.capacity(), self.half_open.capacity()];
        slabs.into_iter().chain([self.time_wait.capacity()]).map(u64::from).sum()
    }

    /// The place of that number, and whether something is there.
    fn place(&self, number: u64) -> Option<(Place, bool)> {
        let mut slot = Slot::try_from(number).ok()?;
        for (capacity, kind) in [
            (self.listeners.capacity(), Place::Listener as fn(Slot) -> Place),
            (self.connections.capacity(), Place::Connection),
            (self.half_open.capacity(), Place::HalfOpen),
            (self.time_wait.capacity(), Place::TimeWait),
        ] {
            if slot < capacity {
                let in_use = match kind(slot) {
                    Place::Listener(slot) => self.listeners.in_use(slot),
                    Place::Connection(slot) => self.connections.in_use(slot),
                    Place::HalfOpen(slot) => self.half_open.in_use(slot),
                    Place::TimeWait(slot) => self.time_wait.in_use(slot),
                };
                return Some((kind(slot), in_use));
            }
            slot -= capacity;
        }
        None
    }

    fn process_of(&self, place: Place) -> Process {
        let context = match place {
            Place::Listener(slot) => Some(self.listeners[slot].context),
            Place::Connection(slot) => self.connections[slot].guest.context,
            Place::HalfOpen(slot) => Some(self.listeners[self.half_open[slot].listener()].context),
            Place::TimeWait(_) => None,
        };
        context.map_or(Process::UNKNOWN, |slot| self.contexts[slot].process)
    }

    fn entry(&self, place: Place, now: Instant) -> SocketEntry {
        let process = self.process_of(place);
        let mut entry = SocketEntry {
            info: InfoResult::default(),
            receive_queue: 0,
            send_queue: 0,
            timer_ms: 0,
            timer: socket_timer::NONE,
            timer_repeats: 0,
            controller: 0,
            pid: process.pid,
            uid: process.uid,
            name: process.name,
            name_bytes: process.name_bytes,
        };
        let mut ends = |local: Endpoint, remote: Endpoint, state: u8, id: u64| {
            entry.info = InfoResult { local, remote, tcp_state: state, connection: id, ..entry.info };
        };
        match place {
            Place::Listener(slot) => {
                let listener = &self.listeners[slot];
                let any = Endpoint::new(crate::engine::listener::any_of(listener.local.ip), 0);
                ends(listener.local, any, LISTEN, self.listeners.id(slot));
                entry.receive_queue = listener.accepted - listener.taken;
                entry.send_queue = listener.backlog.into();
            }
            Place::HalfOpen(slot) => {
                let tuple = self.half_open_tuple(slot);
                ends(tuple.local, tuple.remote, SYN_RECEIVED, self.half_open.id(slot));
            }
            Place::TimeWait(slot) => {
                let tuple = self.time_wait[slot].tuple;
                ends(tuple.local, tuple.remote, TIME_WAIT, self.time_wait.id(slot));
                entry.timer = socket_timer::TIME_WAIT;
            }
            Place::Connection(slot) => {
                let t = &self.connections[slot];
                entry.info = info(t, 0, self.connections.id(slot));
                if t.receive.stream.is_open() {
                    entry.receive_queue = t.receive.data_end().since(t.receive.stream.start());
                }
                entry.send_queue = t.send.end.since(t.send.una.min(t.send.end));
                entry.controller = t.settings.congestion as u8 + 1;
                let timer = |kind| deadline(t, kind);
                let running = match (timer(Kind::Retransmit), timer(Kind::KeepAlive)) {
                    (Some(at), _) if is_probing_window(t) => Some((socket_timer::PROBE, at, t.rtt.backoff())),
                    (Some(at), _) => Some((socket_timer::RETRANSMIT, at, t.rtt.backoff())),
                    (None, Some(at)) => Some((socket_timer::KEEP_ALIVE, at, t.keep_alives)),
                    (None, None) => None,
                };
                if let Some((kind, at, repeats)) = running {
                    entry.timer = kind;
                    entry.timer_ms = u32::try_from(at.since(now).as_us() / 1000).unwrap_or(u32::MAX);
                    entry.timer_repeats = u8::try_from(repeats).unwrap_or(u8::MAX);
                }
            }
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bench;
    use crate::time::Duration;

    /// Everything, however many answers that takes.
    fn all(bench: &mut Bench) -> Vec<SocketEntry> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let (next, entries) = bench.sockets(after);
            all.extend(entries);
            if next == 0 {
                return all;
            }
            assert!(next > after && next - after <= PLACES_MAX);
            after = next;
        }
    }

    #[test]
    fn a_connection_is_told_with_its_process_and_its_queues() {
        let mut bench = Bench::established();
        bench.tell(&Message::Process(toe_abi::Process { pid: 77, uid: 5 }, b"a name longer than sixteen bytes"));
        bench.send(500);
        bench.expect("PA 1:501 ack 1");
        bench.peer("PA 1:101 ack 1 win 60000");
        let entries = all(&mut bench);
        let [entry] = entries[..] else { panic!("{entries:?}") };
        assert_eq!((entry.info.tcp_state, entry.info.connection), (1, bench.connection));
        assert_eq!((entry.pid, entry.uid, entry.name()), (77, 5, &b"a name longer th"[..]));
        assert_eq!((entry.send_queue, entry.controller), (500, 2));
        assert_eq!(entry.timer, socket_timer::RETRANSMIT);
        assert!(entry.timer_ms > 0 && entry.timer_ms <= 1000, "{entry:?}");
        let info = bench.info();
        assert_eq!(InfoResult { cookie: 0, ..info }, entry.info);
        // Without an owner it is still there, and nobody's.
        bench.release();
        let entries = all(&mut bench);
        assert_eq!((entries[0].pid, entries[0].name()), (0, &b""[..]));
    }

    #[test]
    fn the_program_that_does_not_read_shows_in_the_queue() {
        let mut bench = Bench::established();
        bench.reading = false;
        bench.peer("PA 1:101 ack 1 win 60000");
        assert_eq!(all(&mut bench)[0].receive_queue, 100);
        bench.reading = true;
        bench.wait_ms(100);
        assert_eq!(all(&mut bench)[0].receive_queue, 0);
    }

    #[test]
    fn listeners_half_open_and_time_wait_entries_are_told() {
        let mut bench = Bench::new();
        bench.listen();
        bench.peer("S 0 win 60000 <mss 1000>");
        let entries = all(&mut bench);
        let states: Vec<_> =
            entries.iter().map(|entry| (entry.info.tcp_state, entry.receive_queue, entry.send_queue)).collect();
        assert_eq!(states, [(LISTEN, 0, 4), (SYN_RECEIVED, 0, 0)]);
        assert_eq!(entries[0].info.local, entries[1].info.local);
        assert_eq!(entries[0].info.remote.port, 0);

        let mut bench = Bench::established();
        bench.shutdown();
        bench.expect("FA 1:1 ack 1");
        bench.peer("FA 1:1 ack 2 win 60000");
        bench.expect("A 2:2 ack 2");
        bench.release();
        bench.now = bench.now + Duration::from_ms(1);
        let entries = all(&mut bench);
        assert_eq!(
            entries.iter().map(|entry| (entry.info.tcp_state, entry.timer)).collect::<Vec<_>>(),
            [(TIME_WAIT, socket_timer::TIME_WAIT)]
        );
    }

    #[test]
    fn a_question_costs_the_same_wherever_it_begins() {
        let mut bench = Bench::established();
        let places = bench.firmware.places();
        for after in [0, 1, PLACES_MAX, places - 1, places, u64::from(u32::MAX), u64::MAX] {
            let before = bench.firmware.steps();
            let (next, _) = bench.sockets(after);
            assert!(bench.firmware.steps() - before <= PLACES_MAX + 16, "{after}");
            assert!(next == 0 || next > after);
        }
    }
}

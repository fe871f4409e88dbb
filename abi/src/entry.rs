//! What the tails of LIMITS_RESULT, SOCKETS_RESULT and STAT_RESULT hold: one entry after another, each a multiple of
//! eight bytes, with names behind its fixed part.
//!
//! A writer stops at the first entry that has no room; a reader ends at the first that makes no sense.

use crate::codec::{Field, Layout, layout};
use crate::message::{InfoResult, PROCESS_NAME_BYTES_MAX};

/// One pool, as it stands in the tail of LIMITS_RESULT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitEntry<'a> {
    /// The pool's name.
    pub name: &'a str,
    /// The policy's name: `deny`, `fallback` or `evict`.
    pub policy: &'a str,
    /// How many there are.
    pub capacity: u64,
    /// How many are in use.
    pub in_use: u64,
    /// The most that were ever in use at once.
    pub high_water: u64,
    /// How often the pool refused, by reason (a pool has at most [`LIMIT_REASONS_MAX`]; the rest of the places hold
    /// [`Reason::None`](crate::Reason::None)).
    pub refusals: [(u32, u64); LIMIT_REASONS_MAX],
    /// The most that one of those who share the pool can hold; zero if nothing but the capacity bounds it.
    pub each: u32,
}

/// The most reasons for which a pool can refuse.
pub const LIMIT_REASONS_MAX: usize = 4;

/// What the timer of a [`SocketEntry`] is, by Linux's numbers (`idiag_timer`).
pub mod socket_timer {
    /// None runs.
    pub const NONE: u8 = 0;
    /// For a retransmission or a tail probe.
    pub const RETRANSMIT: u8 = 1;
    /// For a keep-alive.
    pub const KEEP_ALIVE: u8 = 2;
    /// For the end of TIME-WAIT.
    pub const TIME_WAIT: u8 = 3;
    /// For a probe of a window that is shut.
    pub const PROBE: u8 = 4;
}

/// One listener, connection, half-open or TIME-WAIT entry, as it stands in the tail of SOCKETS_RESULT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketEntry {
    /// Id, ends and state (10 is LISTEN); of a connection all of it, otherwise zero. `cookie` is zero.
    pub info: InfoResult,
    /// Bytes received that the program's side does not hold yet; of a listener, connections that wait to be taken.
    pub receive_queue: u64,
    /// Bytes taken that are not acknowledged; of a listener, its backlog.
    pub send_queue: u64,
    /// Until the timer is due, in milliseconds; zero for one whose time is not told.
    pub timer_ms: u32,
    /// See [`socket_timer`].
    pub timer: u8,
    /// How often in a row it was due before.
    pub timer_repeats: u8,
    /// As option `CONGESTION` has it; zero if it is no connection.
    pub controller: u8,
    /// The process, as it said in PROCESS; zero if nobody owns it, or said it.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its name.
    pub name: [u8; PROCESS_NAME_BYTES_MAX],
    /// How much of that is in use.
    pub name_bytes: u8,
}

impl SocketEntry {
    /// The name of its process.
    pub fn name(&self) -> &[u8] {
        &self.name[..usize::from(self.name_bytes).min(PROCESS_NAME_BYTES_MAX)]
    }

    /// How many bytes an entry has whose process has that name.
    pub fn bytes(name: &[u8]) -> usize {
        (<SocketEntryFixed as Layout>::BYTES + name.len()).next_multiple_of(8)
    }
}

/// One counter, as it stands in the tail of STAT_RESULT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatEntry<'a> {
    /// The counter's name.
    pub name: &'a str,
    /// Its value.
    pub value: u64,
}

layout! {
    /// Fixed part of a [`LimitEntry`]; the names follow.
    LimitEntryFixed {
        /// See [`LimitEntry`].
        capacity: u64,
        /// See [`LimitEntry`].
        in_use: u64,
        /// See [`LimitEntry`].
        high_water: u64,
        /// Count for the first reason.
        refusals_0: u64,
        /// Count for the second reason.
        refusals_1: u64,
        /// Count for the third reason.
        refusals_2: u64,
        /// Count for the fourth reason.
        refusals_3: u64,
        /// The first reason.
        reason_0: u32,
        /// The second reason.
        reason_1: u32,
        /// The third reason.
        reason_2: u32,
        /// The fourth reason.
        reason_3: u32,
        /// Bytes of the pool's name, which follows.
        name_bytes: u8,
        /// Bytes of the policy's name, which follows the pool's.
        policy_bytes: u8,
        /// Zero.
        reserved: u16,
        /// See [`LimitEntry`].
        each: u32,
    }
}

layout! {
    /// Fixed part of a [`SocketEntry`]; the name of the process follows.
    SocketEntryFixed {
        /// See [`SocketEntry`].
        info: InfoResult,
        /// See [`SocketEntry`].
        receive_queue: u64,
        /// See [`SocketEntry`].
        send_queue: u64,
        /// See [`SocketEntry`].
        timer_ms: u32,
        /// See [`SocketEntry`].
        timer: u8,
        /// See [`SocketEntry`].
        timer_repeats: u8,
        /// See [`SocketEntry`].
        controller: u8,
        /// Bytes of the name, which follows.
        name_bytes: u8,
        /// See [`SocketEntry`].
        pid: u32,
        /// See [`SocketEntry`].
        uid: u32,
    }
}

impl Field for InfoResult {
    const BYTES: usize = <Self as Layout>::BYTES;

    fn get(b: &[u8]) -> Self {
        Layout::get(b)
    }

    fn put(&self, b: &mut [u8]) {
        Layout::put(self, b);
    }
}

impl Default for InfoResult {
    fn default() -> Self {
        Layout::get(&[0; <Self as Layout>::BYTES])
    }
}

/// Writes entries into a tail until one does not fit.
#[derive(Debug)]
pub struct EntryWriter<'a> {
    buffer: &'a mut [u8],
    used: usize,
}

impl<'a> EntryWriter<'a> {
    /// A writer of entries into `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, used: 0 }
    }

    fn room(&mut self, bytes: usize) -> Option<&mut [u8]> {
        let room = self.buffer.get_mut(self.used..self.used + bytes)?;
        room.fill(0);
        self.used += bytes;
        Some(room)
    }

    /// Appends a pool; `false` if it does not fit. Names are cut after 255 bytes.
    #[must_use]
    pub fn limit(&mut self, entry: &LimitEntry<'_>) -> bool {
        let (name, policy) = (cut(entry.name), cut(entry.policy));
        let fixed_bytes = <LimitEntryFixed as Layout>::BYTES;
        let Some(room) = self.room((fixed_bytes + name.len() + policy.len()).next_multiple_of(8)) else {
            return false;
        };
        let [(reason_0, refusals_0), (reason_1, refusals_1), (reason_2, refusals_2), (reason_3, refusals_3)] =
            entry.refusals;
        LimitEntryFixed {
            capacity: entry.capacity,
            in_use: entry.in_use,
            high_water: entry.high_water,
            refusals_0,
            refusals_1,
            refusals_2,
            refusals_3,
            reason_0,
            reason_1,
            reason_2,
            reason_3,
            name_bytes: name.len() as u8,
            policy_bytes: policy.len() as u8,
            reserved: 0,
            each: entry.each,
        }
        .put(room);
        room[fixed_bytes..fixed_bytes + name.len()].copy_from_slice(name);
        room[fixed_bytes + name.len()..fixed_bytes + name.len() + policy.len()].copy_from_slice(policy);
        true
    }

    /// Appends a counter (value `u64`, length of the name `u64`, name); `false` if it does not fit.
    #[must_use]
    pub fn stat(&mut self, entry: &StatEntry<'_>) -> bool {
        let name = cut(entry.name);
        let Some(room) = self.room((16 + name.len()).next_multiple_of(8)) else {
            return false;
        };
        entry.value.put(&mut room[..8]);
        (name.len() as u64).put(&mut room[8..16]);
        room[16..16 + name.len()].copy_from_slice(name);
        true
    }

    /// Appends a socket; `false` if it does not fit.
    #[must_use]
    pub fn socket(&mut self, entry: &SocketEntry) -> bool {
        let name = entry.name();
        let Some(room) = self.room(SocketEntry::bytes(name)) else {
            return false;
        };
        let &SocketEntry {
            info, receive_queue, send_queue, timer_ms, timer, timer_repeats, controller, pid, uid, ..
        } = entry;
        let name_bytes = name.len() as u8;
        let fixed = SocketEntryFixed {
            info,
            receive_queue,
            send_queue,
            timer_ms,
            timer,
            timer_repeats,
            controller,
            name_bytes,
            pid,
            uid,
        };
        fixed.put(room);
        let at = <SocketEntryFixed as Layout>::BYTES;
        room[at..at + name.len()].copy_from_slice(name);
        true
    }

    /// Bytes written.
    pub fn finish(self) -> usize {
        self.used
    }
}

fn cut(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(255)]
}

/// Reads the entries of a LIMITS_RESULT's tail; ends at the first that makes no sense.
pub fn limit_entries(mut tail: &[u8]) -> impl Iterator<Item = LimitEntry<'_>> {
    std::iter::from_fn(move || {
        let fixed_bytes = <LimitEntryFixed as Layout>::BYTES;
        if tail.len() < fixed_bytes {
            return None;
        }
        let f = LimitEntryFixed::get(tail);
        let name_end = fixed_bytes + usize::from(f.name_bytes);
        let policy_end = name_end + usize::from(f.policy_bytes);
        let name = std::str::from_utf8(tail.get(fixed_bytes..name_end)?).ok()?;
        let policy = std::str::from_utf8(tail.get(name_end..policy_end)?).ok()?;
        tail = &tail[policy_end.next_multiple_of(8).min(tail.len())..];
        Some(LimitEntry {
            name,
            policy,
            capacity: f.capacity,
            in_use: f.in_use,
            high_water: f.high_water,
            refusals: [
                (f.reason_0, f.refusals_0),
                (f.reason_1, f.refusals_1),
                (f.reason_2, f.refusals_2),
                (f.reason_3, f.refusals_3),
            ],
            each: f.each,
        })
    })
}

/// Reads the entries of a SOCKETS_RESULT's tail; ends at the first that makes no sense.
pub fn socket_entries(mut tail: &[u8]) -> impl Iterator<Item = SocketEntry> {
    std::iter::from_fn(move || {
        let fixed_bytes = <SocketEntryFixed as Layout>::BYTES;
        if tail.len() < fixed_bytes {
            return None;
        }
        let SocketEntryFixed {
            info,
            receive_queue,
            send_queue,
            timer_ms,
            timer,
            timer_repeats,
            controller,
            name_bytes,
            pid,
            uid,
        } = SocketEntryFixed::get(tail);
        let end = fixed_bytes + usize::from(name_bytes);
        let mut name = [0; PROCESS_NAME_BYTES_MAX];
        name.get_mut(..usize::from(name_bytes))?.copy_from_slice(tail.get(fixed_bytes..end)?);
        tail = &tail[end.next_multiple_of(8).min(tail.len())..];
        Some(SocketEntry {
            info,
            receive_queue,
            send_queue,
            timer_ms,
            timer,
            timer_repeats,
            controller,
            pid,
            uid,
            name,
            name_bytes,
        })
    })
}

/// Reads the entries of a STAT_RESULT's tail; ends at the first that makes no sense.
pub fn stat_entries(mut tail: &[u8]) -> impl Iterator<Item = StatEntry<'_>> {
    std::iter::from_fn(move || {
        if tail.len() < 16 {
            return None;
        }
        let value = u64::get(&tail[..8]);
        let end = 16usize.checked_add(usize::try_from(u64::get(&tail[8..16])).ok()?)?;
        let name = std::str::from_utf8(tail.get(16..end)?).ok()?;
        tail = &tail[end.next_multiple_of(8).min(tail.len())..];
        Some(StatEntry { name, value })
    })
}

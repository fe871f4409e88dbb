//! What is in flight: one record per segment sent and not yet acknowledged.
//!
//! The records of a connection form a list in sequence order, without gaps, from `snd_una` to `snd_nxt`. Each knows
//! when it was last sent and what is known of its fate, which is all that loss detection (RFC 6675, 8985) asks.
//! Records come from one pool; each connection can always have [`RECORDS_RESERVED`].

use crate::profile::RECORDS_RESERVED;
use crate::seq::Position;
use crate::store::gauge::Gauge;
use crate::tcp::delivery::Stamp;
use crate::time::Instant;
use crate::work::Steps;

/// A record's place in the pool.
pub type RecordSlot = u32;

const NONE: RecordSlot = RecordSlot::MAX;

/// One segment in flight.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its first octet.
    pub start: Position,
    /// The octet behind its last; a FIN counts.
    pub end: Position,
    /// When it was last sent.
    pub sent_at: Instant,
    /// How often it was sent.
    pub transmissions: u8,
    /// Selectively acknowledged.
    pub sacked: bool,
    /// Deemed lost, and not sent again since.
    pub lost: bool,
    /// What was delivered when it was last sent.
    pub stamp: Stamp,
    next: RecordSlot,
    previous: RecordSlot,
}

impl Record {
    /// Octets of sequence space.
    pub fn len(&self) -> u64 {
        self.end.since(self.start)
    }
}

/// The pool.
#[derive(Debug)]
pub struct Records {
    places: Box<[Record]>,
    free: RecordSlot,
    shared_free: u32,
    /// Records promised, reserved ones included; what is published.
    pub gauge: Gauge,
    /// Two steps for every record that is taken, one of them for its release, and one for every record walked over.
    pub steps: Steps,
}

/// One connection's list.
#[derive(Clone, Copy, Debug)]
pub struct RecordList {
    head: RecordSlot,
    tail: RecordSlot,
    count: u32,
    open: bool,
}

impl Records {
    /// `count` records for `lists` lists.
    pub fn new(gauge: Gauge, count: u32, lists: u32) -> Self {
        let record = |slot: u32| Record {
            start: Position::default(),
            end: Position::default(),
            sent_at: Instant::default(),
            transmissions: 0,
            sacked: false,
            lost: false,
            stamp: Stamp::default(),
            next: if slot + 1 < count { slot + 1 } else { NONE },
            previous: NONE,
        };
        Self {
            places: (0..count).map(record).collect(),
            free: 0,
            shared_free: count - lists * RECORDS_RESERVED,
            gauge,
            steps: Steps::default(),
        }
    }

    fn take(&mut self, count: u32) -> Option<RecordSlot> {
        if count >= RECORDS_RESERVED {
            if self.shared_free == 0 {
                return None;
            }
            self.shared_free -= 1;
            let taken = self.gauge.take(1);
            debug_assert!(taken);
        }
        self.steps.add(2);
        let slot = self.free;
        self.free = self.places[slot as usize].next;
        Some(slot)
    }

    fn give(&mut self, slot: RecordSlot, count: u32) {
        self.places[slot as usize].next = self.free;
        self.free = slot;
        if count > RECORDS_RESERVED {
            self.shared_free += 1;
            self.gauge.give(1);
        }
    }
}

impl RecordList {
    /// A list that is not in use.
    pub const CLOSED: Self = Self { head: NONE, tail: NONE, count: 0, open: false };

    /// Begins an empty list.
    pub fn open(&mut self, records: &mut Records) {
        debug_assert!(!self.open);
        let taken = records.gauge.take(RECORDS_RESERVED.into());
        debug_assert!(taken, "every list's reserve is part of the pool");
        *self = Self { open: true, ..Self::CLOSED };
    }

    /// Gives everything back.
    pub fn close(&mut self, records: &mut Records) {
        if self.open {
            while self.pop_front(records).is_some() {}
            records.gauge.give(RECORDS_RESERVED.into());
            self.open = false;
        }
    }

    /// How many records it has.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Appends a segment sent at `now`; `false` if no record is left.
    #[must_use]
    pub fn push(&mut self, records: &mut Records, start: Position, end: Position, stamp: Stamp, now: Instant) -> bool {
        let Some(slot) = records.take(self.count) else {
            return false;
        };
        records.places[slot as usize] = Record {
            start,
            end,
            sent_at: now,
            transmissions: 1,
            sacked: false,
            lost: false,
            stamp,
            next: NONE,
            previous: self.tail,
        };
        if self.tail == NONE {
            self.head = slot;
        } else {
            records.places[self.tail as usize].next = slot;
        }
        self.tail = slot;
        self.count += 1;
        true
    }

    /// The first record's place.
    pub fn first(&self) -> Option<RecordSlot> {
        (self.head != NONE).then_some(self.head)
    }

    /// The last record's place.
    pub fn last(&self) -> Option<RecordSlot> {
        (self.tail != NONE).then_some(self.tail)
    }

    /// Removes the first record and gives it.
    pub fn pop_front(&mut self, records: &mut Records) -> Option<Record> {
        let slot = self.first()?;
        let record = records.places[slot as usize];
        self.head = record.next;
        if record.next == NONE {
            self.tail = NONE;
        } else {
            records.places[record.next as usize].previous = NONE;
        }
        records.give(slot, self.count);
        self.count -= 1;
        Some(record)
    }

    /// Splits a record at a position inside it, so that one ends and the next begins there; `false` if no record is
    /// left for that.
    #[must_use]
    pub fn split(&mut self, records: &mut Records, slot: RecordSlot, at: Position) -> bool {
        let Some(new) = records.take(self.count) else {
            return false;
        };
        let record = records.places[slot as usize];
        debug_assert!(record.start < at && at < record.end);
        records.places[new as usize] = Record { start: at, previous: slot, ..record };
        records.places[slot as usize].end = at;
        records.places[slot as usize].next = new;
        if record.next == NONE {
            self.tail = new;
        } else {
            records.places[record.next as usize].previous = new;
        }
        self.count += 1;
        true
    }
}

impl Records {
    /// The record at a place of a list.
    pub fn get(&self, slot: RecordSlot) -> &Record {
        &self.places[slot as usize]
    }

    /// The same, to change its fate.
    pub fn get_mut(&mut self, slot: RecordSlot) -> &mut Record {
        &mut self.places[slot as usize]
    }

    /// The next place in the list.
    pub fn next(&self, slot: RecordSlot) -> Option<RecordSlot> {
        self.steps.one();
        let next = self.places[slot as usize].next;
        (next != NONE).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::Seq;

    #[test]
    fn a_list_keeps_its_order_through_splits_and_gives_everything_back() {
        let mut records = Records::new(Gauge::new("r", "deny", 12), 12, 2);
        let mut a = RecordList::CLOSED;
        let mut b = RecordList::CLOSED;
        a.open(&mut records);
        b.open(&mut records);
        let at = |n: u64| Position::initial(Seq(0)) + n;
        for n in 0..8 {
            assert!(a.push(&mut records, at(n * 10), at(n * 10 + 10), Stamp::default(), Instant::default()));
        }
        assert!(
            !a.push(&mut records, at(80), at(90), Stamp::default(), Instant::default()),
            "four of its own, four shared"
        );
        assert!((0..4).all(|n| b.push(&mut records, at(n), at(n + 1), Stamp::default(), Instant::default())));
        assert!(!b.push(&mut records, at(4), at(5), Stamp::default(), Instant::default()));
        assert_eq!(a.pop_front(&mut records).unwrap().start, at(0));
        let first = a.first().unwrap();
        assert!(a.split(&mut records, first, at(13)));
        let mut ends = Vec::new();
        let mut slot = a.first();
        while let Some(s) = slot {
            ends.push(records.get(s).end.since(at(0)));
            slot = records.next(s);
        }
        assert_eq!(ends, [13, 20, 30, 40, 50, 60, 70, 80]);
        assert_eq!(records.gauge.free(), 0);
        a.close(&mut records);
        b.close(&mut records);
        assert_eq!((records.gauge.in_use(), records.shared_free), (0, 4));
    }
}

//! What is in flight: one record per segment sent and not yet acknowledged.
//!
//! The records of a connection form a list in sequence order, without gaps, from `snd_una` to `snd_nxt`. Each knows
//! when it was last sent and what is known of its fate, which is all that loss detection (RFC 6675, 8985) asks.
//! Records come from one pool; each connection can always have [`RECORDS_RESERVED`].
//!
//! A peer that acknowledges selectively can point anywhere, so nothing here is found by walking from one end:
//!
//! * A record whose fate is open hangs in a second list, by the time at which it was last sent; one that is deemed lost in
//!   another, by sequence number as nearly as [`WALK_MAX`] steps allow. The oldest and the first lost are at their heads.
//! * Neighbours that are both selectively acknowledged become one record.
//! * Positions are looked for from the nearest of both ends and of the place where the last search ended, and for no more
//!   than a given number of steps. A search that gives up goes on there the next time.
//!
//! With every transmission a record pays for what becomes of it once: that it is judged, that the judgement is taken back,
//! and that it is released. So an acknowledgement of a thousand records costs no more steps than one of one.

use crate::fault::Action;
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
    /// The connection wants to know when it is lost: it probes the path's MTU.
    watched: bool,
    standing: Standing,
    next: RecordSlot,
    previous: RecordSlot,
    /// In the list of its fate.
    fate_next: RecordSlot,
    fate_previous: RecordSlot,
}

impl Record {
    /// Octets of sequence space.
    pub fn len(&self) -> u64 {
        self.end.since(self.start)
    }
}

/// Where a record stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Free,
    /// Neither free nor in a list: within one operation only.
    Between,
    Listed,
}

/// The pool.
#[derive(Debug)]
pub struct Records {
    places: Box<[Record]>,
    free: RecordSlot,
    shared_free: u32,
    /// All that are not reserved, and of them those in lists; and how many lists are open.
    shared: u32,
    shared_listed: u32,
    lists_open: u64,
    /// Records promised, reserved ones included; what is published.
    pub gauge: Gauge,
    /// [`PREPAID`] for every transmission, and one for every record walked over.
    pub steps: Steps,
}

/// The ends of a list of fates.
#[derive(Clone, Copy, Debug)]
struct Fates {
    head: RecordSlot,
    tail: RecordSlot,
}

/// One connection's lists.
#[derive(Clone, Copy, Debug)]
pub struct RecordList {
    head: RecordSlot,
    tail: RecordSlot,
    count: u32,
    open: bool,
    /// Those whose fate is open, by the time at which they were last sent.
    sent: Fates,
    /// Those that are deemed lost.
    lost: Fates,
    /// Where the last search ended.
    cursor: RecordSlot,
    /// A watched record that was lost.
    watched_lost: RecordSlot,
}

/// The most steps for finding a lost record's place among the others.
pub const WALK_MAX: u32 = 8;

/// Steps that a transmission pays for: itself, a judgement, its taking back, and the release.
const PREPAID: u64 = 4;

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
            watched: false,
            standing: Standing::Free,
            next: if slot + 1 < count { slot + 1 } else { NONE },
            previous: NONE,
            fate_next: NONE,
            fate_previous: NONE,
        };
        Self {
            places: (0..count).map(record).collect(),
            free: 0,
            shared_free: count - lists * RECORDS_RESERVED,
            shared: count - lists * RECORDS_RESERVED,
            shared_listed: 0,
            lists_open: 0,
            gauge,
            steps: Steps::default(),
        }
    }

    fn take(&mut self, count: u32) -> Option<RecordSlot> {
        match self.gauge.fault_of_taking() {
            Some(Action::Error) => return None,
            Some(_) if self.shared_free > 0 => {
                self.shared_free -= 1;
                let lost = &mut self.places[self.free as usize];
                lost.standing = Standing::Between;
                self.free = lost.next;
                self.gauge.lose();
            }
            _ => {}
        }
        if count >= RECORDS_RESERVED {
            if self.shared_free == 0 {
                return None;
            }
            self.shared_free -= 1;
            let taken = self.gauge.take(1);
            debug_assert!(taken);
        }
        self.steps.add(PREPAID);
        let slot = self.free;
        self.free = self.places[slot as usize].next;
        self.places[slot as usize].standing = Standing::Between;
        Some(slot)
    }

    fn put_back(&mut self, slot: RecordSlot) {
        self.places[slot as usize].standing = Standing::Free;
        self.places[slot as usize].next = self.free;
        self.free = slot;
    }

    /// A list that had `count` has one more.
    fn list_grows(&mut self, count: u32) {
        self.shared_listed += u32::from(count >= RECORDS_RESERVED);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.places.len() as u64
    }

    /// A record is nobody's any more.
    #[cfg(test)]
    pub fn lose(&mut self) {
        let _ = self.take(0);
    }

    /// Gives back a record that is neither free nor in a list; whether it was one.
    pub fn recover(&mut self, slot: RecordSlot) -> bool {
        let is_lost = self.places[slot as usize].standing == Standing::Between;
        if is_lost {
            self.put_back(slot);
        }
        is_lost
    }

    /// Records promised, by what stands in lists and not by the gauge.
    pub fn promised(&self) -> u64 {
        self.lists_open * u64::from(RECORDS_RESERVED) + u64::from(self.shared_listed)
    }

    /// What may be taken is again what stands in no list.
    pub fn recount(&mut self) {
        self.shared_free = self.shared - self.shared_listed;
    }

    fn give(&mut self, slot: RecordSlot, count: u32) {
        if self.gauge.loses() && (count > RECORDS_RESERVED || self.shared_free > 0) {
            self.places[slot as usize].standing = Standing::Between;
            // Of what is reserved none can be lost: one that is shared takes its place.
            if count <= RECORDS_RESERVED {
                self.shared_free -= 1;
                self.gauge.lose();
            } else {
                self.gauge.abandon();
            }
            return;
        }
        self.put_back(slot);
        if count > RECORDS_RESERVED {
            self.shared_free += 1;
            self.gauge.give(1);
        }
    }
}

impl RecordList {
    /// A list that is not in use.
    pub const CLOSED: Self = Self {
        head: NONE,
        tail: NONE,
        count: 0,
        open: false,
        sent: Fates::EMPTY,
        lost: Fates::EMPTY,
        cursor: NONE,
        watched_lost: NONE,
    };

    /// Begins an empty list.
    pub fn open(&mut self, records: &mut Records) {
        debug_assert!(!self.open);
        let taken = records.gauge.take(RECORDS_RESERVED.into());
        debug_assert!(taken, "every list's reserve is part of the pool");
        records.lists_open += 1;
        *self = Self { open: true, ..Self::CLOSED };
    }

    /// Gives everything back.
    pub fn close(&mut self, records: &mut Records) {
        if self.open {
            while self.pop_front(records).is_some() {}
            records.gauge.give(RECORDS_RESERVED.into());
            records.lists_open -= 1;
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
            watched: false,
            standing: Standing::Listed,
            next: NONE,
            previous: self.tail,
            fate_next: NONE,
            fate_previous: NONE,
        };
        if self.tail == NONE {
            self.head = slot;
        } else {
            records.places[self.tail as usize].next = slot;
        }
        self.tail = slot;
        records.list_grows(self.count);
        self.count += 1;
        self.sent.append(records, slot);
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
        let record = *records.get(slot);
        self.leave_fate(records, slot);
        self.remove(records, slot);
        Some(record)
    }

    /// Takes a record that is in no list of fates out of the list.
    fn remove(&mut self, records: &mut Records, slot: RecordSlot) {
        let Record { next, previous, .. } = *records.get(slot);
        if previous == NONE {
            self.head = next;
        } else {
            records.places[previous as usize].next = next;
        }
        if next == NONE {
            self.tail = previous;
        } else {
            records.places[next as usize].previous = previous;
        }
        if self.cursor == slot {
            self.cursor = if next == NONE { previous } else { next };
        }
        if self.watched_lost == slot {
            self.watched_lost = NONE;
        }
        records.places[slot as usize].standing = Standing::Between;
        records.shared_listed -= u32::from(self.count > RECORDS_RESERVED);
        records.give(slot, self.count);
        self.count -= 1;
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
        records.list_grows(self.count);
        self.count += 1;
        if record.lost {
            self.lost.insert_after(records, slot, new);
        } else if !record.sacked {
            self.sent.insert_after(records, slot, new);
        }
        true
    }

    fn leave_fate(&mut self, records: &mut Records, slot: RecordSlot) {
        let record = records.get(slot);
        if record.lost {
            self.lost.remove(records, slot);
        } else if !record.sacked {
            self.sent.remove(records, slot);
        }
    }

    /// The record with an open fate that was sent first.
    pub fn oldest_sent(&self) -> Option<RecordSlot> {
        (self.sent.head != NONE).then_some(self.sent.head)
    }

    /// The first lost record.
    pub fn first_lost(&self) -> Option<RecordSlot> {
        (self.lost.head != NONE).then_some(self.lost.head)
    }

    /// A record is selectively acknowledged; its neighbours may become one with it. Gives the place that has it now.
    pub fn mark_sacked(&mut self, records: &mut Records, slot: RecordSlot) -> RecordSlot {
        self.leave_fate(records, slot);
        let record = records.get_mut(slot);
        (record.sacked, record.lost) = (true, false);
        let (previous, next) = (record.previous, record.next);
        if next != NONE && records.get(next).sacked {
            records.get_mut(slot).end = records.get(next).end;
            self.remove(records, next);
        }
        if previous != NONE && records.get(previous).sacked {
            records.get_mut(previous).end = records.get(slot).end;
            self.remove(records, slot);
            return previous;
        }
        slot
    }

    /// A record is deemed lost. Its place among the others that are is looked for within `walk` steps.
    pub fn mark_lost(&mut self, records: &mut Records, slot: RecordSlot, walk: &mut u32) {
        self.leave_fate(records, slot);
        let record = records.get_mut(slot);
        record.lost = true;
        record.sacked = false;
        if record.watched {
            self.watched_lost = slot;
        }
        let start = record.start;
        let mut before = self.lost.tail;
        while before != NONE && records.get(before).start > start {
            let Some(left) = walk.checked_sub(1) else {
                before = NONE;
                break;
            };
            *walk = left;
            records.steps.one();
            before = records.get(before).fate_previous;
        }
        self.lost.insert_after(records, before, slot);
    }

    /// A record was sent again.
    pub fn mark_sent_again(&mut self, records: &mut Records, slot: RecordSlot) {
        if records.get(slot).sacked {
            return;
        }
        records.steps.add(PREPAID);
        self.leave_fate(records, slot);
        records.get_mut(slot).lost = false;
        self.sent.append(records, slot);
    }

    /// Nothing was lost after all: all of it was sent before what has an open fate.
    pub fn none_lost(&mut self, records: &mut Records) {
        let mut slot = self.lost.tail;
        while slot != NONE {
            records.get_mut(slot).lost = false;
            let previous = records.get(slot).fate_previous;
            self.sent.insert_after(records, NONE, slot);
            slot = previous;
        }
        self.lost = Fates::EMPTY;
    }

    /// Everything is lost that is not selectively acknowledged; with `reneged`, that too. Gives the octets that stay
    /// selectively acknowledged, and those that are lost. A walk over all records.
    pub fn all_lost(&mut self, records: &mut Records, reneged: bool) -> (u64, u64) {
        (self.sent, self.lost) = (Fates::EMPTY, Fates::EMPTY);
        let (mut sacked, mut lost) = (0, 0);
        let mut next = self.first();
        while let Some(slot) = next {
            next = records.next(slot);
            let record = records.get_mut(slot);
            record.sacked &= !reneged;
            record.lost = !record.sacked;
            if record.sacked {
                sacked += record.len();
            } else {
                lost += record.len();
                let tail = self.lost.tail;
                self.lost.insert_after(records, tail, slot);
            }
        }
        (sacked, lost)
    }

    /// The last record is to be watched: [`Self::take_watched_lost`] says when it is lost.
    pub fn watch_last(&mut self, records: &mut Records) {
        if let Some(last) = self.last() {
            records.get_mut(last).watched = true;
        }
    }

    /// A watched record that was lost, once.
    pub fn take_watched_lost(&mut self) -> Option<RecordSlot> {
        let slot = std::mem::replace(&mut self.watched_lost, NONE);
        (slot != NONE).then_some(slot)
    }

    /// The record that has the octet at `position`, which lies in flight; looked for within `walk` steps. `None` if that is
    /// not enough: the next search goes on from there.
    pub fn find(&mut self, records: &Records, position: Position, walk: &mut u32) -> Option<RecordSlot> {
        let distance = |slot: RecordSlot| {
            let start = records.places.get(slot as usize).map(|r| r.start)?;
            Some((start.since(position).max(position.since(start)), slot))
        };
        let (_, mut at) = [self.head, self.tail, self.cursor].into_iter().filter_map(distance).min()?;
        loop {
            let record = records.get(at);
            self.cursor = at;
            if record.start <= position && position < record.end {
                return Some(at);
            }
            *walk = walk.checked_sub(1)?;
            records.steps.one();
            at = if record.start > position { record.previous } else { record.next };
            if at == NONE {
                return None;
            }
        }
    }
}

impl Fates {
    const EMPTY: Self = Self { head: NONE, tail: NONE };

    fn append(&mut self, records: &mut Records, slot: RecordSlot) {
        self.insert_after(records, self.tail, slot);
    }

    /// Behind `before`; at the front if there is none.
    fn insert_after(&mut self, records: &mut Records, before: RecordSlot, slot: RecordSlot) {
        let after = if before == NONE { self.head } else { records.get(before).fate_next };
        let record = records.get_mut(slot);
        (record.fate_previous, record.fate_next) = (before, after);
        if before == NONE {
            self.head = slot;
        } else {
            records.get_mut(before).fate_next = slot;
        }
        if after == NONE {
            self.tail = slot;
        } else {
            records.get_mut(after).fate_previous = slot;
        }
    }

    fn remove(&mut self, records: &mut Records, slot: RecordSlot) {
        let Record { fate_next, fate_previous, .. } = *records.get(slot);
        if fate_previous == NONE {
            self.head = fate_next;
        } else {
            records.get_mut(fate_previous).fate_next = fate_next;
        }
        if fate_next == NONE {
            self.tail = fate_previous;
        } else {
            records.get_mut(fate_next).fate_previous = fate_previous;
        }
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

    /// Behind a record in its list; counts no step.
    pub fn behind(&self, slot: RecordSlot) -> Option<RecordSlot> {
        let next = self.places[slot as usize].next;
        (next != NONE).then_some(next)
    }

    /// Behind a record in the list of its fate; counts no step.
    pub fn next_by_fate(&self, slot: RecordSlot) -> Option<RecordSlot> {
        let next = self.places[slot as usize].fate_next;
        (next != NONE).then_some(next)
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
        let mut slot = a.tail;
        for end in ends.iter().rev() {
            assert_eq!(records.get(slot).end.since(at(0)), *end, "the same, from its end");
            slot = records.places[slot as usize].previous;
        }
        assert_eq!(slot, NONE);
        assert_eq!(records.gauge.free(), 0);
        a.close(&mut records);
        b.close(&mut records);
        assert_eq!((records.gauge.in_use(), records.shared_free), (0, 4));
    }

    use crate::fault::{Action, Rule, Rules, Site};
    use crate::testing::Bench;

    /// Records that anybody may have, with `sent` segments in flight and one rule armed before them.
    fn shared(lists_alone: bool, site: Site, sent: u32) -> (Bench, u32) {
        let mut b = Bench::with(|p| {
            // Every connection's own, and none beyond, or some.
            p.limits.transmit_records = 16 * RECORDS_RESERVED + if lists_alone { 0 } else { 10 };
            p.recovery.scrub_steps = 0;
        });
        b.connect(toe_abi::flags::NODELAY);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        b.expect("A 1:1 ack 1");
        let rule = Rule::new(site, Action::Leak).nth(1);
        b.firmware.arm(Rules::new(vec![rule]), 1, b.now);
        for _ in 0..sent {
            b.send(1000);
            b.drain();
        }
        let free = b.firmware.block(b.connection).1.records.shared_free;
        (b, free)
    }

    #[test]
    fn a_record_that_is_lost_is_one_that_anybody_might_have_had() {
        for (sent, free) in [(1, 9), (4, 9), (5, 8), (6, 7)] {
            assert_eq!(shared(false, Site::AllocTransmitRecords, sent).1, free, "{sent}");
        }
        // Of those that are reserved none is lost, and there are no others.
        let (b, free) = shared(true, Site::AllocTransmitRecords, 4);
        assert_eq!((free, b.in_use("transmit-records")), (0, 4));
        let (mut b, free) = shared(true, Site::FreeTransmitRecords, 3);
        b.peer("A 1 ack 1001");
        let records = &b.firmware.block(b.connection).1.records;
        assert_eq!((free, records.shared_free, records.places[0].standing), (0, 0, Standing::Free));
    }
}

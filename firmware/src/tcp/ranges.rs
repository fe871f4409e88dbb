//! What was received beyond a gap: a bounded set of ranges, none of which touches another.
//!
//! They are found by position and reported by age (RFC 2018, section 4), and both must stay cheap whoever chooses them: a
//! search is binary, and the ranges hang in a list from the youngest to the oldest. A range is noted once and joined once,
//! and pays for the second when it is noted.

use crate::seq::Position;
use crate::work::Steps;

/// A stretch of data beyond a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// Its first octet.
    pub start: Position,
    /// Behind its last.
    pub end: Position,
}

type Place = u16;
const NONE: Place = Place::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    range: Range,
    younger: Place,
    older: Place,
}

/// The set.
#[derive(Debug)]
pub struct Ranges {
    entries: Box<[Entry]>,
    /// The places of the ranges by position, then the free ones.
    order: Box<[Place]>,
    count: usize,
    youngest: Place,
}

/// What became of a range that was to be noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noted {
    /// It brings something new.
    New,
    /// All of it was there.
    Known,
    /// There is no place for it.
    NoPlace,
}

impl Ranges {
    /// Room for `capacity` ranges, at most 256.
    pub fn new(capacity: u32) -> Self {
        let entry = Entry { range: Range::default(), younger: NONE, older: NONE };
        Self {
            entries: vec![entry; capacity as usize].into(),
            order: (0..capacity as Place).collect(),
            count: 0,
            youngest: NONE,
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        (self.count, self.youngest) = (0, NONE);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.count as u64
    }

    fn at(&self, index: usize) -> Range {
        self.entries[usize::from(self.order[index])].range
    }

    /// How many of them, from the first on, fulfil `is`; a step for each that is looked at.
    fn first_not(&self, steps: &Steps, is: impl Fn(&Range) -> bool) -> usize {
        self.order[..self.count].partition_point(|place| {
            steps.one();
            is(&self.entries[usize::from(*place)].range)
        })
    }

    /// Behind the last octet of the last range.
    pub fn end(&self) -> Option<Position> {
        self.count.checked_sub(1).map(|last| self.at(last).end)
    }

    /// The first stretch between `start` and `end` that is there.
    pub fn overlap(&self, start: Position, end: Position, steps: &Steps) -> Option<(Position, Position)> {
        let index = self.first_not(steps, |r| r.end <= start);
        if index == self.count {
            return None;
        }
        let range = self.at(index);
        (range.start < end).then_some((range.start.max(start), range.end.min(end)))
    }

    /// Notes a stretch; with those that it touches it becomes one range, the youngest.
    //= docs/specs/rfc9293.txt#section-3.10.7.4
    //# Segments with higher beginning sequence numbers SHOULD be held for later processing (SHLD-31).
    pub fn note(&mut self, start: Position, end: Position, steps: &Steps) -> Noted {
        // Those from `first` to before `last` touch the new one.
        let first = self.first_not(steps, |r| r.end < start);
        let last = self.first_not(steps, |r| r.start <= end);
        if first < last {
            let (lowest, highest) = (self.at(first), self.at(last - 1));
            let known = lowest.start <= start && lowest.end >= end;
            for index in first + 1..last {
                self.unlink(self.order[index]);
            }
            self.order[first + 1..self.count].rotate_left(last - first - 1);
            self.count -= last - first - 1;
            let place = self.order[first];
            self.entries[usize::from(place)].range =
                Range { start: lowest.start.min(start), end: highest.end.max(end) };
            self.unlink(place);
            self.link(place);
            return if known { Noted::Known } else { Noted::New };
        }
        if self.count == self.entries.len() {
            return Noted::NoPlace;
        }
        steps.add(2);
        let place = self.order[self.count];
        self.order[first..=self.count].rotate_right(1);
        self.count += 1;
        self.entries[usize::from(place)].range = Range { start, end };
        self.link(place);
        Noted::New
    }

    /// Takes those out that `nxt` has reached; where it stands then.
    pub fn join(&mut self, mut nxt: Position) -> Position {
        let mut joined = 0;
        while joined < self.count && self.at(joined).start <= nxt {
            nxt = nxt.max(self.at(joined).end);
            self.unlink(self.order[joined]);
            joined += 1;
        }
        self.order[..self.count].rotate_left(joined);
        self.count -= joined;
        nxt
    }

    /// All of them, the youngest first.
    pub fn by_age(&self) -> impl Iterator<Item = Range> + '_ {
        let entry = |place: Place| self.entries.get(usize::from(place));
        std::iter::successors(entry(self.youngest), move |e| entry(e.older)).map(|e| e.range)
    }

    fn link(&mut self, place: Place) {
        let older = self.youngest;
        self.entries[usize::from(place)].younger = NONE;
        self.entries[usize::from(place)].older = older;
        if let Some(entry) = self.entries.get_mut(usize::from(older)) {
            entry.younger = place;
        }
        self.youngest = place;
    }

    fn unlink(&mut self, place: Place) {
        let Entry { younger, older, .. } = self.entries[usize::from(place)];
        match self.entries.get_mut(usize::from(younger)) {
            Some(entry) => entry.older = older,
            None => self.youngest = older,
        }
        if let Some(entry) = self.entries.get_mut(usize::from(older)) {
            entry.younger = younger;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::Seq;
    use proptest::prelude::*;

    fn at(n: u64) -> Position {
        Position::initial(Seq(u32::MAX - 50)) + n
    }

    #[test]
    fn searches_are_short_and_the_youngest_come_first() {
        let mut ranges = Ranges::new(256);
        let steps = Steps::default();
        for n in 0..256 {
            assert_eq!(ranges.note(at(1000 - n * 3), at(1001 - n * 3), &steps), Noted::New);
        }
        assert_eq!(ranges.note(at(5000), at(5001), &steps), Noted::NoPlace);
        let before = steps.count();
        assert_eq!(ranges.note(at(500), at(502), &Steps::default()), Noted::New, "it closes a gap");
        assert_eq!(ranges.note(at(501), at(502), &steps), Noted::Known);
        assert!(ranges.overlap(at(700), at(702), &steps).is_some());
        assert!(steps.count() - before <= 3 * 9, "{}", steps.count() - before);
        assert_eq!(ranges.by_age().next().map(|r| (r.start, r.end)), Some((at(499), at(503))));
        assert_eq!(ranges.by_age().count(), 255);
    }

    proptest! {
        /// Beside a set that is searched from end to end.
        #[test]
        fn it_is_the_set_that_it_says(steps in proptest::collection::vec((1u64..200, 1u64..20, any::<bool>()), 1..80)) {
            let counted = Steps::default();
            let mut ranges = Ranges::new(6);
            let mut naive: Vec<(u64, u64)> = Vec::new();
            let mut nxt = 0;
            for (start, length, advance) in steps {
                let (start, end) = (start + nxt, start + nxt + length);
                let mut overlaps: Vec<_> = naive.iter().filter(|(s, e)| *s < end && *e > start).collect();
                overlaps.sort_unstable();
                let expected = overlaps.first().map(|(s, e)| (at((*s).max(start)), at((*e).min(end))));
                prop_assert_eq!(ranges.overlap(at(start), at(end), &counted), expected);
                let touching: Vec<_> = naive.iter().copied().filter(|(s, e)| *s <= end && *e >= start).collect();
                let noted = ranges.note(at(start), at(end), &counted);
                if touching.is_empty() && naive.len() == 6 {
                    prop_assert_eq!(noted, Noted::NoPlace);
                } else {
                    let known = touching.iter().any(|(s, e)| *s <= start && *e >= end);
                    prop_assert_eq!(noted, if known { Noted::Known } else { Noted::New });
                    naive.retain(|r| !touching.contains(r));
                    let merged = touching.iter().fold((start, end), |(s, e), t| (s.min(t.0), e.max(t.1)));
                    naive.push(merged);
                }
                if advance {
                    nxt += length / 2;
                    let mut expected = nxt;
                    let mut sorted = naive.clone();
                    sorted.sort_unstable();
                    for (s, e) in sorted {
                        if s <= expected {
                            expected = expected.max(e);
                            naive.retain(|r| r.0 != s);
                        }
                    }
                    nxt = ranges.join(at(nxt)).since(at(0));
                    prop_assert_eq!(nxt, expected);
                }
                let by_age: Vec<_> = ranges.by_age().map(|r| (r.start.since(at(0)), r.end.since(at(0)))).collect();
                let youngest_first: Vec<_> = naive.iter().rev().copied().collect();
                prop_assert_eq!(by_age, youngest_first);
                prop_assert_eq!(ranges.end(), naive.iter().map(|r| at(r.1)).max());
            }
        }
    }
}

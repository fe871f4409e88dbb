//! Payload memory: pages, and the streams that are made of them.
//!
//! A pool has a fixed number of pages. A [`Stream`] is a window over one direction of a connection: byte positions
//! map to pages through a table of its own (allocated at boot, one per connection), so that any position is reached
//! in one step and data may arrive with holes.
//!
//! A stream never promises more than it can hold: before room is announced (credit to the guest, window to the
//! peer), the pages behind it are *granted*. Each stream has [`PAGES_RESERVED`] pages for itself, the rest is first
//! come, first served. So storing within the grant cannot fail, and what fails is visible as a smaller window.
//!
//! TCP sees only [`Stream`]; where the bytes lie is known to this module alone.

use super::gauge::Gauge;
use crate::profile::PAGES_RESERVED;
use crate::seq::Position;
use crate::work::Steps;

type Page = u32;
const NONE: Page = Page::MAX;

/// The pages of all streams of one direction.
#[derive(Debug)]
pub struct Pages {
    bytes: Box<[u8]>,
    free: Box<[Page]>,
    free_count: usize,
    /// `tables[stream * table_len + (page number & (table_len - 1))]`.
    tables: Box<[Page]>,
    table_len: usize,
    page_bits: u32,
    /// Pages granted, reserved ones included; what is published.
    pub gauge: Gauge,
    /// Pages that may be granted beyond the reserved ones.
    shared_free: u64,
    /// Two steps for every page that is taken, one of them for when it is given back, and one whenever it is touched.
    pub steps: Steps,
}

/// One direction's window over the pool. Which one of the pool's tables is its own is fixed at boot.
#[derive(Debug)]
pub struct Stream {
    table: u32,
    /// First position that is kept.
    start: Position,
    /// First position behind what is granted.
    limit: Position,
    open: bool,
}

impl Pages {
    /// `count` pages of `page_bytes` (a power of two) for `streams` streams of at most `stream_pages` each (a power
    /// of two).
    pub fn new(gauge: Gauge, count: u32, page_bytes: u32, streams: u32, stream_pages: u32) -> Self {
        // A window of n pages that begins within a page touches n + 1 of them.
        let table_len = stream_pages as usize * 2;
        Self {
            bytes: vec![0; count as usize * page_bytes as usize].into(),
            free: (0..count).rev().collect(),
            free_count: count as usize,
            tables: vec![NONE; streams as usize * table_len].into(),
            table_len,
            page_bits: page_bytes.trailing_zeros(),
            gauge,
            shared_free: u64::from(count) - u64::from(streams) * u64::from(PAGES_RESERVED),
            steps: Steps::default(),
        }
    }

    /// What a new stream could be granted now, in bytes, wherever in a page it begins.
    pub fn available(&self) -> u64 {
        ((u64::from(PAGES_RESERVED) + self.shared_free - 1) << self.page_bits) + 1
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> u64 {
        1 << self.page_bits
    }

    fn number(&self, position: Position) -> u64 {
        position.raw() >> self.page_bits
    }

    fn entry(&mut self, stream: &Stream, number: u64) -> &mut Page {
        &mut self.tables[stream.table as usize * self.table_len + (number as usize & (self.table_len - 1))]
    }

    fn span(&self, start: Position, limit: Position) -> u64 {
        if limit <= start { 0 } else { self.number(limit.back(1)) - self.number(start) + 1 }
    }

    fn take_shared(&mut self, before: u64, after: u64) -> u64 {
        let reserved = u64::from(PAGES_RESERVED);
        let wanted = after.max(reserved) - before.max(reserved);
        let got = wanted.min(self.shared_free);
        self.shared_free -= got;
        before.max(reserved) + got
    }
}

impl Stream {
    /// The stream of that number.
    pub fn new(table: u32) -> Self {
        Self { table, start: Position::default(), limit: Position::default(), open: false }
    }

    /// Begins a new life at `start`, with nothing granted. The pool's gauge counts the reserved pages from here on.
    pub fn open(&mut self, pages: &mut Pages, start: Position) {
        debug_assert!(!self.open);
        let taken = pages.gauge.take(u64::from(PAGES_RESERVED));
        debug_assert!(taken, "every stream's reserve is part of the pool");
        *self = Self { table: self.table, start, limit: start, open: true };
    }

    /// Gives everything back.
    pub fn close(&mut self, pages: &mut Pages) {
        if self.open {
            let limit = self.limit;
            self.release_before(pages, limit);
            pages.gauge.give(u64::from(PAGES_RESERVED));
            self.open = false;
        }
    }

    /// Whether it is in use.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// First position that is kept.
    pub fn start(&self) -> Position {
        self.start
    }

    /// First position behind what is granted.
    pub fn limit(&self) -> Position {
        self.limit
    }

    /// Grants more, as far as `wanted` and what the pool has; gives the new limit, which never goes back.
    pub fn grant(&mut self, pages: &mut Pages, wanted: Position) -> Position {
        let before = pages.span(self.start, self.limit);
        let most = (pages.table_len / 2) as u64;
        // A first page that is nearly used up must not cost a whole one of what is reserved.
        let wanted = wanted.min(self.start + (most << pages.page_bits));
        if wanted <= self.limit {
            return self.limit;
        }
        let after = pages.span(self.start, wanted);
        let reserved = u64::from(PAGES_RESERVED);
        let got = pages.take_shared(before, after);
        let taken = pages.gauge.take(got - before.max(reserved));
        debug_assert!(taken);
        let reach = Position::default() + ((pages.number(self.start) + got) << pages.page_bits);
        self.limit = self.limit.max(wanted.min(reach));
        self.limit
    }

    /// Stores bytes at a position; all of it must lie between start and limit.
    pub fn write(&mut self, pages: &mut Pages, mut position: Position, mut bytes: &[u8]) {
        debug_assert!(position >= self.start && position + bytes.len() as u64 <= self.limit);
        let page_bytes = pages.page_bytes() as usize;
        while !bytes.is_empty() {
            let number = pages.number(position);
            let mut page = *pages.entry(self, number);
            pages.steps.one();
            if page == NONE {
                pages.steps.one();
                // Cannot fail: what is granted is never more than there is.
                let Some(last) = pages.free_count.checked_sub(1) else {
                    debug_assert!(false, "granted more than there is");
                    return;
                };
                page = pages.free[last];
                pages.free_count = last;
                *pages.entry(self, number) = page;
            }
            let offset = position.raw() as usize & (page_bytes - 1);
            let (now, later) = bytes.split_at(bytes.len().min(page_bytes - offset));
            let at = page as usize * page_bytes + offset;
            pages.bytes[at..at + now.len()].copy_from_slice(now);
            position = position + now.len() as u64;
            bytes = later;
        }
    }

    /// Copies bytes out; all of it must have been written.
    pub fn read(&self, pages: &Pages, mut position: Position, mut into: &mut [u8]) {
        let page_bytes = pages.page_bytes() as usize;
        while !into.is_empty() {
            let index =
                self.table as usize * pages.table_len + (pages.number(position) as usize & (pages.table_len - 1));
            pages.steps.one();
            let page = pages.tables[index];
            let offset = position.raw() as usize & (page_bytes - 1);
            let length = into.len().min(page_bytes - offset);
            let (now, later) = into.split_at_mut(length);
            debug_assert!(page != NONE, "read what was not written");
            if page != NONE {
                let at = page as usize * page_bytes + offset;
                now.copy_from_slice(&pages.bytes[at..at + length]);
            }
            position = position + length as u64;
            into = later;
        }
    }

    /// Forgets everything before `position`; the pages and their grant go back to the pool.
    pub fn release_before(&mut self, pages: &mut Pages, position: Position) {
        let position = position.min(self.limit);
        if position <= self.start {
            return;
        }
        let before = pages.span(self.start, self.limit);
        let keep_from =
            if position == self.limit { pages.number(self.limit.back(1)) + 1 } else { pages.number(position) };
        for number in pages.number(self.start)..keep_from {
            let page = std::mem::replace(pages.entry(self, number), NONE);
            if page != NONE {
                pages.free[pages.free_count] = page;
                pages.free_count += 1;
            }
        }
        self.start = position;
        let after = pages.span(self.start, self.limit);
        let reserved = u64::from(PAGES_RESERVED);
        let back = before.max(reserved) - after.max(reserved);
        pages.shared_free += back;
        pages.gauge.give(back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::Seq;
    use proptest::prelude::*;

    fn pool(count: u32, streams: u32) -> Pages {
        Pages::new(Gauge::new("pages", "deny", count.into()), count, 512, streams, 8)
    }

    #[test]
    fn what_is_promised_is_there() {
        // Three streams with two pages each, and two to share.
        let mut pages = pool(8, 3);
        let mut streams: Vec<_> = (0..3).map(Stream::new).collect();
        let start = Position::initial(Seq(0));
        for s in &mut streams {
            s.open(&mut pages, start);
        }
        assert_eq!(streams[0].grant(&mut pages, start + 5000).since(start), 4 * 512, "its own and all the shared");
        assert_eq!(streams[1].grant(&mut pages, start + 5000).since(start), 2 * 512, "its own");
        assert_eq!(streams[2].grant(&mut pages, start + 700).since(start), 700);
        for s in &mut streams {
            let limit = s.limit();
            s.write(&mut pages, start, &vec![7; limit.since(start) as usize]);
        }
        assert_eq!(pages.gauge.free(), 0);
        streams[0].release_before(&mut pages, start + 1024);
        assert_eq!(streams[1].grant(&mut pages, start + 5000).since(start), 4 * 512);
        for s in &mut streams {
            s.close(&mut pages);
        }
        assert_eq!((pages.gauge.in_use(), pages.free_count, pages.shared_free), (0, 8, 2));
    }

    proptest! {
        /// Two streams against plain vectors; grants always add up.
        #[test]
        fn bytes_come_back(
            initial: u32,
            steps in proptest::collection::vec((0usize..2, 0u64..3000, 0usize..900, 0u64..900), 1..80),
        ) {
            let mut pages = pool(12, 2);
            let start = Position::initial(Seq(initial));
            let mut streams = [Stream::new(0), Stream::new(1)];
            let mut written = [Vec::<u8>::new(), Vec::new()];
            streams.iter_mut().for_each(|s| s.open(&mut pages, start));
            for (i, wanted, write, release) in steps {
                let s = &mut streams[i];
                let before = s.limit();
                let end = start + written[i].len() as u64;
                let limit = s.grant(&mut pages, end + wanted);
                prop_assert!(limit >= before);
                let n = write.min(limit.since(end) as usize);
                let bytes: Vec<u8> = (0..n).map(|k| (written[i].len() + k) as u8 ^ i as u8).collect();
                s.write(&mut pages, end, &bytes);
                written[i].extend(&bytes);
                let mut out = vec![0; written[i].len() - s.start().since(start) as usize];
                s.read(&pages, s.start(), &mut out);
                prop_assert_eq!(&out[..], &written[i][s.start().since(start) as usize..]);
                let to = (s.start() + release).min(start + written[i].len() as u64);
                s.release_before(&mut pages, to);
                prop_assert!(pages.gauge.in_use() <= 12);
                // A stream that holds nothing can always go on.
                if s.start() == start + written[i].len() as u64 {
                    let at = s.start();
                    prop_assert!(s.grant(&mut pages, at + 512).since(at) >= 1);
                }
            }
            streams.iter_mut().for_each(|s| s.close(&mut pages));
            prop_assert_eq!((pages.gauge.in_use(), pages.free_count, pages.shared_free), (0, 12, 8));
        }
    }
}

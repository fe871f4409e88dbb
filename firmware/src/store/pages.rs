//! Payload memory: pages, and the streams that are made of them.
//!
//! A pool has a fixed number of pages. A [`Stream`] is a window over one direction of a connection: byte positions
//! map to pages through a table of its own (allocated at boot, one per connection), so that any position is reached
//! in one step and data may arrive with holes.
//!
//! A stream never promises more than it can hold: before room is announced (credit to the guest, window to the
//! peer), the pages behind it are *granted*. Each stream has [`PAGES_RESERVED`] pages for itself, and the rest is shared. So
//! storing within the grant cannot fail, and what fails is visible as a smaller window.
//!
//! What is shared goes to those who use it. A stream that has just begun gets no more than a part of what is free (a 64th on
//! a card of 1,024 connections or more), and one page more for each that it has moved; and nobody has more than fifteen times
//! of what is left (the dynamic thresholds of Choudhury and Hahne, 1998). So those who are silent hold little, those who move
//! come to equal shares within a window's worth of data, and who comes late finds something. On a card with few connections,
//! where each may be alone, none of this bounds anybody. A stream that is bounded by it asks again when it moves.
//!
//! A stream at rest with its own pages alone is laid so that it begins with a page's first byte ([`Stream::align`]): what it can
//! hold is two pages then, and not one and a piece.
//!
//! Each stream is on an *account*: its context's, or the one of nobody. An account has its own most of the shared pages,
//! and while one that has less than its fair share (all shared pages, divided by the accounts that hold any) waits,
//! those that have theirs get no more. A stream that was not granted all that it wanted waits in a queue, and is
//! named by [`Pages::next_hungry`] when there are pages again: those of accounts below their share first, then the others,
//! in the order in which they came; one that waits for its own account, when that gives some back.
//!
//! TCP sees only [`Stream`]; where the bytes lie is known to this module alone.

#[cfg(test)]
mod tests;

use toe_abi::{LimitEntry, Reason};

use super::gauge::Gauge;
use super::queue::{Links, Queue};
use super::tags::Tags;
use crate::fault::Action;
use crate::profile::PAGES_RESERVED;
use crate::seq::Position;
use crate::work::Steps;

/// A page's number, from one on: a table at rest is all zeros, which costs no memory before it is used.
type Page = u32;
const NONE: Page = 0;

/// Into so many parts what is free is divided for those who have just begun: one for so many streams of the card, and not more
/// than the most.
const STREAMS_PER_PART: u64 = 16;
const PARTS_MAX: u64 = 64;

/// Of what is free and what it has, a stream leaves this part to others.
const LEFT_TO_OTHERS: u64 = 16;

/// Of a page's home: it is free.
const FREE: u64 = 1 << 63;

/// The pages of all streams of one direction.
#[derive(Debug)]
pub struct Pages {
    bytes: Box<[u8]>,
    tags: Tags,
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
    /// All of those.
    shared: u64,
    /// Of what is free, a stream that has just begun gets the part that this divides it into; one if there is no such bound.
    parts: u64,
    /// The reason of a refusal when they are used up.
    full: Reason,
    accounts: Box<[Account]>,
    /// Accounts that hold some.
    active: u64,
    /// The most shared pages of one account.
    account_max: u64,
    /// Streams that want more, of accounts that have less than their share; and the others.
    poor: Queue,
    rich: Queue,
    links: Links,
    /// Which queue a stream is in.
    waits: Box<[Waits]>,
    /// What each stream holds, beside what it says itself.
    held: Box<[Held]>,
    /// Where each page stands: its place among the free ones (with [`FREE`]) or in the tables.
    home: Box<[u64]>,
    /// The sum of what all hold, and how many streams are open: what the gauge should say.
    shared_held: u64,
    streams_open: u64,
    /// Two steps for every page that is taken, one of them for when it is given back, and one whenever it is touched.
    pub steps: Steps,
}

/// What one context holds of a pool; its pages and, of them, the shared ones.
#[derive(Debug)]
struct Account {
    gauge: Gauge,
    shared: u64,
    /// Streams that wait for it to have less.
    waiting: Queue,
}

/// What a stream holds.
#[derive(Clone, Copy, Default, Debug)]
struct Held {
    account: AccountNumber,
    shared: u64,
    open: bool,
}

/// Whose pages a stream's are: a context's place, or [`Pages::nobody`].
pub type AccountNumber = u32;

/// Where a stream stands that wants more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    Not,
    Poor,
    Rich,
    Account,
}

/// What one account can have of a pool, and how it is published.
#[derive(Clone, Copy, Debug)]
pub struct AccountPlan {
    /// So many accounts, beside the one of nobody.
    pub count: u32,
    /// Its name.
    pub name: &'static str,
    /// The most pages of one, reserved ones included; zero for the whole pool.
    pub pages: u32,
    /// So many connections of one have their reserve.
    pub connections: u32,
    /// What lies in the pages has tags.
    pub tags: bool,
}

/// One direction's window over the pool. Which one of the pool's tables is its own is fixed at boot.
#[derive(Debug)]
pub struct Stream {
    table: u32,
    /// Where its life began.
    begin: Position,
    /// First position that is kept.
    start: Position,
    /// First position behind what is granted.
    limit: Position,
    /// Behind the furthest octet ever stored: no page beyond it is in the table.
    written: Position,
    /// What is added to a position for its place in a page.
    skew: u64,
    account: AccountNumber,
    open: bool,
}

impl Pages {
    /// `count` pages of `page_bytes` (a power of two) for `streams` streams of at most `stream_pages` each (a power
    /// of two).
    pub fn new(
        (gauge, full): (Gauge, Reason),
        count: u32,
        page_bytes: u32,
        streams: u32,
        stream_pages: u32,
        plan: AccountPlan,
    ) -> Self {
        let shared = u64::from(count) - u64::from(streams) * u64::from(PAGES_RESERVED);
        let quota = if plan.pages == 0 { count } else { plan.pages };
        let account = |capacity: u32| Account {
            gauge: Gauge::new(plan.name, "deny", capacity.into()),
            shared: 0,
            waiting: Queue::EMPTY,
        };
        let reserve = u64::from(plan.connections) * u64::from(PAGES_RESERVED);
        let account_max = if plan.pages == 0 { shared } else { shared.min(u64::from(quota) - reserve) };
        // A window of n pages that begins within a page touches n + 1 of them.
        let table_len = stream_pages as usize * 2;
        Self {
            bytes: vec![0; count as usize * page_bytes as usize].into(),
            tags: Tags::new(count as usize * page_bytes as usize, plan.tags),
            free: (1..=count).rev().collect(),
            free_count: count as usize,
            tables: vec![NONE; streams as usize * table_len].into(),
            table_len,
            page_bits: page_bytes.trailing_zeros(),
            gauge,
            shared_free: shared,
            shared,
            parts: (u64::from(streams) / STREAMS_PER_PART).clamp(1, PARTS_MAX),
            full,
            accounts: (0..plan.count).map(|_| account(quota)).chain([account(count)]).collect(),
            active: 0,
            account_max,
            poor: Queue::EMPTY,
            rich: Queue::EMPTY,
            links: Links::new(streams),
            waits: vec![Waits::Not; streams as usize].into(),
            held: vec![Held::default(); streams as usize].into(),
            home: (0..u64::from(count)).map(|page| FREE | (u64::from(count) - 1 - page)).collect(),
            shared_held: 0,
            streams_open: 0,
            steps: Steps::default(),
        }
    }

    /// What a new stream could be granted now, in bytes, wherever in a page it begins.
    pub fn available(&self) -> u64 {
        let reserved = u64::from(PAGES_RESERVED);
        let part = if self.parts == 1 { self.shared_free } else { (self.shared_free / self.parts).max(reserved) };
        ((reserved + part.min(self.shared_free) - 1) << self.page_bits) + 1
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> u64 {
        1 << self.page_bits
    }

    fn index(&self, stream: &Stream, number: u64) -> usize {
        stream.table as usize * self.table_len + (number as usize & (self.table_len - 1))
    }

    fn entry(&mut self, stream: &Stream, number: u64) -> &mut Page {
        &mut self.tables[self.index(stream, number)]
    }

    fn forget(&mut self, stream: &Stream, number: u64) {
        let page = std::mem::replace(self.entry(stream, number), NONE);
        if page != NONE {
            self.put_back(page);
        }
    }

    /// The most shared pages that a stream may have now: see the module's text.
    fn most_of(&self, stream: &Stream, shared: u64) -> u64 {
        if self.parts == 1 {
            return u64::MAX;
        }
        let total = self.shared_free + shared;
        let moved = stream.start.since(stream.begin) >> self.page_bits;
        (total / self.parts + moved).min(total - total / LEFT_TO_OTHERS).max(PAGES_RESERVED.into())
    }

    fn put_back(&mut self, page: Page) {
        self.free[self.free_count] = page;
        self.home[page as usize - 1] = FREE | self.free_count as u64;
        self.free_count += 1;
    }

    /// How many pages there are.
    pub fn count(&self) -> u64 {
        self.home.len() as u64
    }

    /// How many pages are free.
    #[cfg(test)]
    pub fn free_pages(&self) -> usize {
        self.free_count
    }

    /// A bit of what is stored at a position flips.
    #[cfg(test)]
    pub fn flip(&mut self, stream: &Stream, position: Position) {
        let page = self.tables[self.index(stream, stream.number(self, position))];
        assert_ne!(page, NONE, "nothing is stored there");
        let offset = stream.offset(self, position);
        self.bytes[(page as usize - 1) * self.page_bytes() as usize + offset] ^= 4;
    }

    /// A page is nobody's any more.
    #[cfg(test)]
    pub fn lose_page(&mut self) {
        self.free_count -= 1;
    }

    /// Gives back a page that stands neither among the free ones nor in a table; whether it did.
    pub fn recover(&mut self, place: u32) -> bool {
        let page = place + 1;
        let home = self.home[place as usize];
        let is_there = if home & FREE != 0 {
            let at = (home & !FREE) as usize;
            at < self.free_count && self.free[at] == page
        } else {
            self.tables[home as usize] == page
        };
        if !is_there {
            self.put_back(page);
        }
        !is_there
    }

    /// Pages promised, by what streams hold and not by the gauge.
    pub fn promised(&self) -> u64 {
        self.shared_held + self.streams_open * u64::from(PAGES_RESERVED)
    }

    /// What may be granted is again what nobody holds.
    pub fn recount(&mut self) {
        self.shared_free = self.shared - self.shared_held;
    }

    /// Takes what can be had for a stream that has `before` pages and wants `after`; how many it has then.
    fn take_shared(&mut self, stream: &Stream, before: u64, after: u64) -> u64 {
        let reserved = u64::from(PAGES_RESERVED);
        let wanted = after.max(reserved) - before.max(reserved);
        if wanted == 0 {
            return before.max(reserved);
        }
        let share = self.fair_share();
        let nobody = self.nobody();
        let most_of_use = self.most_of(stream, before.max(reserved) - reserved);
        let account = &mut self.accounts[stream.account as usize];
        let poor = account.shared < share;
        // The tightest of the three bounds, and its name.
        let most = if stream.account == nobody { self.shared } else { self.account_max };
        let own = most - account.shared;
        let fair = if self.poor.is_empty() { u64::MAX } else { share.saturating_sub(account.shared) };
        let left = match self.gauge.fault_of_taking() {
            None => self.shared_free,
            Some(Action::Error) => 0,
            Some(_) => {
                // One of those that are left is lost.
                let lost = self.shared_free.min(1);
                self.shared_free -= lost;
                (0..lost).for_each(|_| self.gauge.lose());
                self.shared_free
            }
        };
        let use_bound = most_of_use.saturating_sub(before.max(reserved) - reserved);
        let (bound, reason, waits) = [
            (left, self.full, if poor { Waits::Poor } else { Waits::Rich }),
            (own, Reason::Quota, Waits::Account),
            (fair, Reason::FairShare, Waits::Rich),
        ]
        .into_iter()
        .min_by_key(|(bound, ..)| *bound)
        .unwrap_or((0, self.full, Waits::Rich));
        // Who is bounded by its own use is not refused anything.
        let wanted = wanted.min(use_bound);
        let got = wanted.min(bound);
        if got > 0 {
            self.shared_free -= got;
            account.shared += got;
            self.held[stream.table as usize].shared += got;
            self.shared_held += got;
            let taken = self.gauge.take(got) && account.gauge.take(got);
            debug_assert!(taken);
        }
        if got < wanted {
            self.gauge.refuse(reason);
            account.gauge.refuse(reason);
            self.wait(stream, waits);
        } else {
            self.wait(stream, Waits::Not);
        }
        before.max(reserved) + got
    }

    /// Gives shared pages back.
    fn give_shared(&mut self, table: u32, account: AccountNumber, pages: u64) {
        if pages == 0 {
            return;
        }
        self.held[table as usize].shared -= pages;
        self.shared_held -= pages;
        let lost = u64::from(self.gauge.loses());
        (0..lost).for_each(|_| self.gauge.abandon());
        self.shared_free += pages - lost;
        self.gauge.give(pages - lost);
        let account = &mut self.accounts[account as usize];
        account.shared -= pages;
        account.gauge.give(pages);
        // Who waited for the account waits for the pool from here on: one for each time that it gives something back.
        if let Some(table) = account.waiting.pop(&mut self.links) {
            self.waits[table as usize] = Waits::Rich;
            self.rich.push(&mut self.links, table);
        }
    }

    /// Puts a stream into the queue where it belongs; one that stands in it keeps its place.
    fn wait(&mut self, stream: &Stream, waits: Waits) {
        let table = stream.table;
        let before = std::mem::replace(&mut self.waits[table as usize], waits);
        if before == waits {
            return;
        }
        if let Some((queue, links)) = self.queue(before, stream.account) {
            queue.remove(links, table);
        }
        if let Some((queue, links)) = self.queue(waits, stream.account) {
            queue.push(links, table);
        }
    }

    fn queue(&mut self, waits: Waits, account: AccountNumber) -> Option<(&mut Queue, &mut Links)> {
        let queue = match waits {
            Waits::Not => return None,
            Waits::Poor => &mut self.poor,
            Waits::Rich => &mut self.rich,
            Waits::Account => &mut self.accounts[account as usize].waiting,
        };
        Some((queue, &mut self.links))
    }

    /// Shared pages for each account if all that hold some had as many.
    fn fair_share(&self) -> u64 {
        self.shared / self.active.max(1)
    }

    /// The account of streams whose context is gone.
    pub fn nobody(&self) -> AccountNumber {
        self.accounts.len() as u32 - 1
    }

    /// Gives back what the stream of a table holds, whatever the stream itself says. What the table has from here on.
    pub fn scrap(&mut self, table: u32) -> Stream {
        let Held { account, shared, open } = self.held[table as usize];
        let stream = Stream { account, ..Stream::new(table) };
        if open {
            self.wait(&stream, Waits::Not);
            for place in 0..self.table_len as u64 {
                self.steps.one();
                self.forget(&stream, place);
            }
            self.give_shared(table, account, shared);
            self.gauge.give(PAGES_RESERVED.into());
            self.discharge(account, PAGES_RESERVED.into());
            self.held[table as usize].open = false;
            self.streams_open -= 1;
        }
        stream
    }

    /// Whether somebody waits for pages and there are none.
    pub fn is_starved(&self) -> bool {
        self.shared_free == 0 && !(self.poor.is_empty() && self.rich.is_empty())
    }

    /// The first stream that waits, other than this one; of no more than two that are looked at.
    pub fn first_waiting(&self, other_than: u32) -> Option<u32> {
        let queue = if self.poor.is_empty() { &self.rich } else { &self.poor };
        let first = queue.first()?;
        if first == other_than { queue.behind(&self.links, first) } else { Some(first) }
    }

    /// The next stream that wants more pages than it was granted, if there are some; it leaves the queue.
    pub fn next_hungry(&mut self) -> Option<u32> {
        if self.shared_free == 0 {
            return None;
        }
        let table = self.poor.pop(&mut self.links).or_else(|| self.rich.pop(&mut self.links))?;
        self.waits[table as usize] = Waits::Not;
        Some(table)
    }

    /// An account begins anew, for another context, with nothing on it.
    pub fn begin_account(&mut self, account: AccountNumber) {
        self.accounts[account as usize].gauge.begin();
    }

    /// What an account holds, as it is published.
    pub fn account(&self, account: AccountNumber) -> LimitEntry<'static> {
        self.accounts[account as usize].gauge.entry()
    }

    fn charge(&mut self, account: AccountNumber, pages: u64) {
        let gauge = &mut self.accounts[account as usize].gauge;
        self.active += u64::from(gauge.in_use() == 0);
        let taken = gauge.take(pages);
        debug_assert!(taken, "an account has room for the reserve of all of its connections");
    }

    fn discharge(&mut self, account: AccountNumber, pages: u64) {
        let gauge = &mut self.accounts[account as usize].gauge;
        gauge.give(pages);
        self.active -= u64::from(gauge.in_use() == 0);
    }
}

impl Stream {
    /// The stream of that number.
    pub fn new(table: u32) -> Self {
        let zero = Position::default();
        Self { table, begin: zero, start: zero, limit: zero, written: zero, skew: 0, account: 0, open: false }
    }

    /// Begins a new life at `start`, with nothing granted. The pool's gauge counts the reserved pages from here on, and
    /// that of the account.
    pub fn open(&mut self, pages: &mut Pages, start: Position) {
        debug_assert!(!self.open);
        let taken = pages.gauge.take(u64::from(PAGES_RESERVED));
        debug_assert!(taken, "every stream's reserve is part of the pool");
        pages.charge(self.account, u64::from(PAGES_RESERVED));
        pages.held[self.table as usize] = Held { account: self.account, shared: 0, open: true };
        pages.streams_open += 1;
        *self = Self { begin: start, start, limit: start, account: self.account, open: true, ..Self::new(self.table) };
    }

    /// Its pages are on another account from here on.
    pub fn recharge(&mut self, pages: &mut Pages, account: AccountNumber) {
        if !self.open || self.account == account {
            self.account = account;
            return;
        }
        pages.wait(self, Waits::Not);
        let shared = self.shared(pages);
        let all = shared + u64::from(PAGES_RESERVED);
        pages.accounts[self.account as usize].shared -= shared;
        pages.discharge(self.account, all);
        self.account = account;
        pages.accounts[account as usize].shared += shared;
        pages.charge(account, all);
        pages.held[self.table as usize].account = account;
    }

    fn number(&self, pages: &Pages, position: Position) -> u64 {
        position.raw().wrapping_add(self.skew) >> pages.page_bits
    }

    /// Where in its page a position lies.
    fn offset(&self, pages: &Pages, position: Position) -> usize {
        (position.raw().wrapping_add(self.skew) & (pages.page_bytes() - 1)) as usize
    }

    /// The first position of a page.
    fn beginning_of(&self, pages: &Pages, number: u64) -> Position {
        Position::default() + (number << pages.page_bits).wrapping_sub(self.skew)
    }

    /// The pages from its start to a limit.
    fn span(&self, pages: &Pages, limit: Position) -> u64 {
        let start = self.start;
        if limit <= start { 0 } else { self.number(pages, limit.back(1)) - self.number(pages, start) + 1 }
    }

    /// Nothing is kept: if it has no more than its own pages, it begins with a page's first byte from here on, so that
    /// they hold as much as they can.
    pub fn align(&mut self, pages: &mut Pages) {
        let offset = self.offset(pages, self.start) as u64;
        if offset == 0 || self.shared(pages) > 0 {
            return;
        }
        let first = self.number(pages, self.start);
        for number in first..first + self.span(pages, self.limit) {
            pages.forget(self, number);
        }
        self.skew = (self.skew + pages.page_bytes() - offset) & (pages.page_bytes() - 1);
    }

    /// Shared pages that it was granted.
    pub fn shared(&self, pages: &Pages) -> u64 {
        if self.open { self.span(pages, self.limit).saturating_sub(PAGES_RESERVED.into()) } else { 0 }
    }

    /// Takes back what was granted beyond the reserve, as far as it lies behind `position`: what was written there is
    /// forgotten.
    pub fn withdraw(&mut self, pages: &mut Pages, position: Position) {
        let before = self.span(pages, self.limit);
        let keep = self.span(pages, position.max(self.start)).max(PAGES_RESERVED.into());
        if before <= keep {
            return;
        }
        let first = self.number(pages, self.start);
        for number in first + keep..first + before {
            pages.forget(self, number);
        }
        self.limit = self.beginning_of(pages, first + keep);
        // Who waits goes before whom it was taken from.
        pages.wait(self, Waits::Not);
        pages.give_shared(self.table, self.account, before - keep);
    }

    /// Gives everything back.
    pub fn close(&mut self, pages: &mut Pages) {
        if self.open {
            let limit = self.limit;
            self.release_before(pages, limit);
            pages.wait(self, Waits::Not);
            pages.gauge.give(u64::from(PAGES_RESERVED));
            pages.discharge(self.account, PAGES_RESERVED.into());
            pages.held[self.table as usize].open = false;
            pages.streams_open -= 1;
            self.open = false;
        }
    }

    /// Whether it is in use.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Where its pages are cut: a position's place in its page is the position's and this.
    pub fn skew(&self) -> u64 {
        self.skew
    }

    /// Which of the pool's tables is its own.
    pub fn table(&self) -> u32 {
        self.table
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
        let before = self.span(pages, self.limit);
        let most = (pages.table_len / 2) as u64;
        // A first page that is nearly used up must not cost a whole one of what is reserved.
        let wanted = wanted.min(self.start + (most << pages.page_bits));
        if wanted <= self.limit {
            return self.limit;
        }
        let after = self.span(pages, wanted);
        let got = pages.take_shared(self, before, after);
        let reach = self.beginning_of(pages, self.number(pages, self.start) + got);
        self.limit = self.limit.max(wanted.min(reach));
        self.limit
    }

    /// Turns one bit over of what is stored at `position` and the `bytes` behind it; which, `drawn` says. What is not there
    /// stays as it is.
    pub fn flip_bit(&self, pages: &mut Pages, position: Position, bytes: u64, drawn: u64) {
        let Some(bit) = drawn.checked_rem(bytes.saturating_mul(8)) else { return };
        let position = position + bit / 8;
        if position < self.start || position >= self.limit {
            return;
        }
        let number = self.number(pages, position);
        let page = *pages.entry(self, number);
        if page != NONE {
            let at = ((page as usize - 1) << pages.page_bits) + self.offset(pages, position);
            pages.bytes[at] ^= 1 << (bit % 8);
        }
    }

    /// Whether something was stored in the page of the octet before `position`.
    pub fn reaches(&self, pages: &Pages, position: Position) -> bool {
        position <= self.start || pages.tables[pages.index(self, self.number(pages, position.back(1)))] != NONE
    }

    /// Stores bytes at a position; all of it must lie between start and limit.
    pub fn write(&mut self, pages: &mut Pages, mut position: Position, mut bytes: &[u8]) {
        debug_assert!(position >= self.start && position + bytes.len() as u64 <= self.limit);
        let page_bytes = pages.page_bytes() as usize;
        self.written = self.written.max(position + bytes.len() as u64);
        while !bytes.is_empty() {
            let number = self.number(pages, position);
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
                let index = pages.index(self, number);
                pages.tables[index] = page;
                pages.home[page as usize - 1] = index as u64;
                let Pages { tags, bytes, .. } = pages;
                let at = (page as usize - 1) * page_bytes;
                tags.clear(bytes, at..at + page_bytes);
            }
            let offset = self.offset(pages, position);
            let (now, later) = bytes.split_at(bytes.len().min(page_bytes - offset));
            let at = (page as usize - 1) * page_bytes + offset;
            let Pages { tags, bytes: stored, .. } = pages;
            tags.store(stored, at, now);
            position = position + now.len() as u64;
            bytes = later;
        }
    }

    /// Whether these bytes are as they were written, as far as tags tell; all of it must have been written.
    pub fn is_whole(&self, pages: &Pages, mut position: Position, bytes: u64) -> bool {
        if !pages.tags.are_kept() {
            return true;
        }
        let end = position + bytes;
        while position < end {
            let page = pages.tables[pages.index(self, self.number(pages, position))];
            if page == NONE {
                return false;
            }
            pages.steps.one();
            let page_bytes = pages.page_bytes() as usize;
            let offset = self.offset(pages, position);
            let length = end.since(position).min((page_bytes - offset) as u64);
            let at = (page as usize - 1) * page_bytes + offset;
            if !pages.tags.are_right(&pages.bytes, at..at + length as usize) {
                return false;
            }
            position = position + length;
        }
        true
    }

    /// Copies bytes out; all of it must have been written.
    pub fn read(&self, pages: &Pages, mut position: Position, mut into: &mut [u8]) {
        let page_bytes = pages.page_bytes() as usize;
        while !into.is_empty() {
            let index =
                self.table as usize * pages.table_len + (self.number(pages, position) as usize & (pages.table_len - 1));
            pages.steps.one();
            let page = pages.tables[index];
            let offset = self.offset(pages, position);
            let length = into.len().min(page_bytes - offset);
            let (now, later) = into.split_at_mut(length);
            debug_assert!(page != NONE, "read what was not written");
            if page != NONE {
                let at = (page as usize - 1) * page_bytes + offset;
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
        let before = self.span(pages, self.limit);
        let keep_from = if position == self.limit {
            self.number(pages, self.limit.back(1)) + 1
        } else {
            self.number(pages, position)
        };
        // Behind what was ever stored there is nothing to forget, however far the grant goes.
        let stored = self.number(pages, self.written.back(1)) + 1;
        for number in self.number(pages, self.start)..keep_from.min(stored) {
            pages.forget(self, number);
        }
        self.start = position;
        let after = self.span(pages, self.limit);
        let reserved = u64::from(PAGES_RESERVED);
        let back = before.max(reserved) - after.max(reserved);
        pages.give_shared(self.table, self.account, back);
    }
}

//! One rule: where, when, to whom and what.

use std::net::IpAddr;

use toe_abi::Endpoint;

use super::action::Action;
use super::inject::Look;
use super::site::Site;

/// A million: the share of all.
pub const WHOLE_PPM: u32 = 1_000_000;

/// The state that rules begin in.
pub const FIRST_STATE: u32 = 0;

/// An end of a connection, as far as it is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct End {
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
}

impl End {
    fn has(&self, end: &Endpoint) -> bool {
        self.ip.is_none_or(|ip| ip == end.ip) && self.port.is_none_or(|port| port == end.port)
    }
}

/// To whom: all of it that is said must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// The card's end.
    pub local: Option<End>,
    /// The peer's end.
    pub remote: Option<End>,
    /// Flags that the segment has, as its header has them; others may be there, too.
    pub flags: u8,
    /// States of the connection, by Linux's numbers, a bit for each; none for all.
    pub states: u16,
    /// The place of the guest's context.
    pub context: Option<u32>,
    /// The name of the card; see [`Rules::of_card`].
    pub card: Option<String>,
}

impl Filter {
    /// Whether it asks for what only a connection has.
    pub fn asks_for_connection(&self) -> bool {
        self.local.is_some() || self.remote.is_some() || self.states != 0 || self.context.is_some()
    }

    fn matches(&self, look: &Look) -> bool {
        let Self { local, remote, flags, states, context, card: _ } = self;
        let end = |said: &Option<End>, is: Option<Endpoint>| said.is_none_or(|said| is.is_some_and(|is| said.has(&is)));
        end(local, look.ends.map(|e| e.0))
            && end(remote, look.ends.map(|e| e.1))
            && look.flags & flags == *flags
            && (*states == 0 || look.state.is_some_and(|s| s < 16 && states & 1 << s != 0))
            && (context.is_none() || *context == look.context)
    }
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Where.
    pub site: Site,
    /// The first passage of the site that is struck, counted from 1.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// Of these the first, and then every so many.
    pub every: u64,
    /// And of those a share, in millionths.
    pub share_ppm: u32,
    /// Not before that time, in microseconds since the faults were armed.
    pub after_us: u64,
    /// Before that time.
    pub before_us: u64,
    /// Once so many bytes have passed the site.
    pub after_bytes: u64,
    /// In that state only, by its number.
    pub state: Option<u32>,
    /// To whom.
    pub filter: Filter,
    /// What.
    pub action: Action,
    /// So often at most.
    pub times: u64,
    /// The state that it leads to.
    pub next: Option<u32>,
    /// Where it stands in its file, from 1.
    pub line: u32,
}

impl Rule {
    /// Always, for everybody.
    pub fn new(site: Site, action: Action) -> Self {
        Self {
            site,
            from: 1,
            to: u64::MAX,
            every: 1,
            share_ppm: WHOLE_PPM,
            after_us: 0,
            before_us: u64::MAX,
            after_bytes: 0,
            state: None,
            filter: Filter::default(),
            action,
            times: u64::MAX,
            next: None,
            line: 1,
        }
    }

    /// At that passage only.
    pub fn nth(self, n: u64) -> Self {
        Self { from: n, to: n, ..self }
    }

    /// Whether it is due, but for its share.
    pub(super) fn is_due(&self, passage: u64, passed_bytes: u64, us: u64, state: u32, look: &Look) -> bool {
        (self.from..=self.to).contains(&passage)
            && (passage - self.from).is_multiple_of(self.every)
            && (self.after_us..self.before_us).contains(&us)
            && passed_bytes >= self.after_bytes
            && self.state.is_none_or(|s| s == state)
            && self.filter.matches(look)
    }
}

/// Rules in their order: of those of a site the first that matches strikes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    counts_all: bool,
}

impl Rules {
    /// These, in this order.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, counts_all: false }
    }

    /// No rule at all: what passes is counted, at every site, and nothing else.
    pub fn none() -> Self {
        Self { rules: Vec::new(), counts_all: true }
    }

    /// One rule: the `nth` passage of a site on a card gets that action.
    pub fn single(site: Site, nth: u64, card: &str, action: Action) -> Self {
        let filter = Filter { card: Some(card.to_owned()), ..Filter::default() };
        Self::new(vec![Rule { filter, ..Rule::new(site, action).nth(nth) }])
    }

    /// Those that are for the card of that name.
    pub fn of_card(mut self, name: &str) -> Self {
        self.rules.retain(|rule| rule.filter.card.as_deref().is_none_or(|card| card == name));
        self
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Rule] {
        &self.rules
    }

    /// The sites at which something is asked, a bit for each.
    pub(super) fn sites(&self) -> u128 {
        if self.counts_all {
            return u128::MAX;
        }
        self.rules.iter().fold(0, |sites, rule| sites | rule.site.bit())
    }

    pub(super) fn into_vec(self) -> Vec<Rule> {
        self.rules
    }
}

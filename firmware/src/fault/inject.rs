//! The rules at work.

use toe_abi::Endpoint;

use super::action::Action;
use super::rule::{FIRST_STATE, Rule, Rules, WHOLE_PPM};
use super::site::{SITES, Site};

/// So many strikes are remembered, the last ones.
pub const RECORDS: usize = 1024;

/// What passes a site, as far as it is known there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// Bytes that pass.
    pub bytes: u64,
    /// The ends of the connection, the card's first.
    pub ends: Option<(Endpoint, Endpoint)>,
    /// The segment's flags, as its header has them.
    pub flags: u8,
    /// The state of the connection, by Linux's number.
    pub state: Option<u8>,
    /// The place of its guest's context.
    pub context: Option<u32>,
}

/// A strike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When, in microseconds since the faults were armed.
    pub at_us: u64,
    /// Where.
    pub site: Site,
    /// At which passage of the site.
    pub passage: u64,
    /// The line of the rule.
    pub line: u32,
    /// What was done.
    pub action: Action,
    /// The ends of the connection, if it was one.
    pub ends: Option<(Endpoint, Endpoint)>,
}

/// Chance of one site: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Copy, Debug)]
struct Chance(u64);

impl Chance {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }
}

/// What is counted of one site.
#[derive(Clone, Copy, Debug)]
struct Counted {
    passages: u64,
    bytes: u64,
    strikes: u64,
    chance: Chance,
}

/// Armed rules and all that they count, for one card.
#[derive(Clone, Debug)]
pub struct Injector {
    rules: Box<[(Rule, u64)]>,
    asked: u128,
    sites: [Counted; SITES],
    state: u32,
    /// When they were armed, in microseconds of the card's host.
    armed_us: u64,
    /// The last of what struck, in a ring: where the next one goes is its number by the ring's length.
    records: Vec<Record>,
    strikes: u64,
}

/// What is counted of a site before anything has passed it. Its chance is keyed by its name.
fn begin(seed: u64, site: Site) -> Counted {
    let name = site.name().bytes();
    let name = name.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let chance = Chance(Chance(Chance(seed).bits() ^ name).bits());
    Counted { passages: 0, bytes: 0, strikes: 0, chance }
}

impl Injector {
    /// Arms rules at `now_us`; all chance is from `seed`.
    pub fn new(rules: Rules, seed: u64, now_us: u64) -> Self {
        let asked = rules.sites();
        let rules = rules.into_vec().into_iter().map(|rule| (rule, 0)).collect();
        let sites = Site::ALL.map(|site| begin(seed, site));
        let records = Vec::with_capacity(RECORDS);
        Self { rules, asked, sites, state: FIRST_STATE, armed_us: now_us, records, strikes: 0 }
    }

    /// Whether a rule asks for what only the firmware knows of a frame's connection.
    pub(crate) fn asks_for_state(&self) -> bool {
        self.rules.iter().any(|(rule, _)| rule.filter.states != 0 || rule.filter.context.is_some())
    }

    /// The sites at which something is asked, a bit for each.
    pub(crate) fn asked(&self) -> u128 {
        self.asked
    }

    /// Something passes a site at `now_us`; what is to be done to it, if anything.
    pub fn at(&mut self, site: Site, now_us: u64, look: &Look) -> Option<Action> {
        let us = now_us.saturating_sub(self.armed_us);
        let counted = &mut self.sites[site.index()];
        counted.passages += 1;
        let (passage, passed_bytes) = (counted.passages, counted.bytes);
        counted.bytes = counted.bytes.saturating_add(look.bytes);
        let state = self.state;
        let (rule, struck) = self.rules.iter_mut().find(|(rule, struck)| {
            rule.site == site
                && *struck < rule.times
                && rule.is_due(passage, passed_bytes, us, state, look)
                && (rule.share_ppm == WHOLE_PPM || counted.chance.below(WHOLE_PPM.into()) < rule.share_ppm.into())
        })?;
        *struck += 1;
        let action = match rule.action {
            Action::FlipBit(_) => Action::FlipBit(counted.chance.bits()),
            Action::Corrupt(None) => Action::Corrupt(Some(counted.chance.bits())),
            other => other,
        };
        counted.strikes += 1;
        self.state = rule.next.unwrap_or(state);
        let record = Record { at_us: us, site, passage, line: rule.line, action, ends: look.ends };
        self.remember(record);
        Some(action)
    }

    fn remember(&mut self, record: Record) {
        match self.records.get_mut((self.strikes % RECORDS as u64) as usize) {
            Some(oldest) => *oldest = record,
            None => self.records.push(record),
        }
        self.strikes += 1;
    }

    /// How often something has passed a site at which something is asked.
    pub fn passages(&self, site: Site) -> u64 {
        self.sites[site.index()].passages
    }

    /// How often a site was struck.
    pub fn strikes(&self, site: Site) -> u64 {
        self.sites[site.index()].strikes
    }

    /// How often any was.
    pub fn all_strikes(&self) -> u64 {
        self.strikes
    }

    /// The rules, and how often each has struck.
    pub fn rules(&self) -> impl Iterator<Item = (&Rule, u64)> {
        self.rules.iter().map(|(rule, struck)| (rule, *struck))
    }

    /// The number of the state that the rules are in.
    pub fn state(&self) -> u32 {
        self.state
    }

    /// The last strikes, in order; see [`Self::overwritten`].
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        let oldest = if self.overwritten() > 0 { (self.strikes % RECORDS as u64) as usize } else { 0 };
        let (newer, older) = self.records.split_at(oldest.min(self.records.len()));
        older.iter().chain(newer)
    }

    /// How many strikes are not remembered any more.
    pub fn overwritten(&self) -> u64 {
        self.strikes - self.records.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(site: Site) -> Rule {
        Rule::new(site, Action::Drop)
    }

    /// Which of the first twenty passages are struck, one each millisecond, of 100 bytes each.
    fn struck(rule: Rule) -> Vec<u64> {
        let mut injector = Injector::new(Rules::new(vec![rule]), 1, 0);
        let look = Look { bytes: 100, ..Look::default() };
        (1..=20).filter(|n| injector.at(Site::WireRx, n * 1_000, &look).is_some()).collect()
    }

    #[test]
    fn when_says_when() {
        let rule = || drops(Site::WireRx);
        assert_eq!(struck(rule().nth(3)), [3]);
        assert_eq!(struck(Rule { from: 3, to: 9, every: 3, ..rule() }), [3, 6, 9]);
        assert_eq!(struck(Rule { after_us: 4_000, before_us: 6_000, ..rule() }), [4, 5]);
        assert_eq!(struck(Rule { after_bytes: 1_800, ..rule() }), [19, 20]);
        assert_eq!(struck(Rule { times: 2, ..rule() }), [1, 2]);
        assert_eq!(struck(rule()), (1..=20).collect::<Vec<_>>());
        assert!((3..17).contains(&struck(Rule { share_ppm: 500_000, ..rule() }).len()));
    }

    #[test]
    fn the_first_match_wins_and_states_lead_on() {
        let first = Rule { state: Some(0), next: Some(1), ..Rule::new(Site::WireRx, Action::Duplicate).nth(5) };
        let second = Rule { state: Some(1), times: 2, line: 8, ..drops(Site::WireRx) };
        let mut injector = Injector::new(Rules::new(vec![first, second]), 1, 0);
        let look = Look::default();
        let actions: Vec<_> = (1..=9).filter_map(|n| injector.at(Site::WireRx, n, &look)).collect();
        assert_eq!(actions, [Action::Duplicate, Action::Drop, Action::Drop]);
        let record = Record { at_us: 6, site: Site::WireRx, passage: 6, line: 8, action: Action::Drop, ends: None };
        assert_eq!((injector.records().nth(1), injector.passages(Site::WireRx)), (Some(&record), 9));
        assert_eq!((injector.strikes(Site::WireRx), injector.all_strikes(), injector.state()), (3, 3, 1));
    }

    #[test]
    fn a_rule_of_another_site_shifts_nobodys_draws() {
        let half = |site| Rule { share_ppm: 500_000, ..Rule::new(site, Action::FlipBit(0)) };
        let run = |rules: Vec<Rule>| {
            let mut injector = Injector::new(Rules::new(rules), 1, 0);
            let mut at = |site, n| injector.at(site, n, &Look::default());
            let struck: Vec<_> = (0..50).map(|n| (at(Site::WireTx, n), at(Site::WireRx, n)).1).collect();
            struck
        };
        let alone = run(vec![half(Site::WireRx)]);
        assert!(alone.iter().flatten().count() > 10);
        assert_eq!(alone, run(vec![half(Site::WireTx), half(Site::WireRx)]));
    }

    #[test]
    fn the_ring_holds_the_last_and_counts_the_others() {
        let mut injector = Injector::new(Rules::new(vec![drops(Site::WireRx)]), 1, 0);
        let capacity = injector.records.capacity();
        for n in 0..RECORDS as u64 + 10 {
            let _ = injector.at(Site::WireRx, n, &Look::default());
        }
        let times: Vec<_> = injector.records().map(|r| r.at_us).collect();
        assert_eq!(times, (10..RECORDS as u64 + 10).collect::<Vec<_>>());
        assert_eq!((injector.overwritten(), injector.records.capacity()), (10, capacity));
    }
}

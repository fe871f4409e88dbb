//! The rules at work.

use std::net::SocketAddr;

use toe_impair::{Random, Share};

use crate::rule::{Ends, Rule, Rules};
use crate::site::{Action, Site};

const SITES: usize = Site::ALL.len();

/// What passes a site.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The card's name.
    pub card: &'a str,
    /// Bytes that pass.
    pub bytes: u64,
    /// The ends of the connection, the card's first, and the segment's flags, if it is a segment.
    pub segment: Option<(SocketAddr, SocketAddr, u8)>,
}

/// A strike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When, in microseconds.
    pub at_us: u64,
    /// Where.
    pub site: Site,
    /// At which passage of the site.
    pub passage: u64,
    /// The line of the rule.
    pub line: usize,
    /// What was done.
    pub action: Action,
}

/// Armed rules and all that they count, for one card.
#[derive(Clone, Debug)]
pub struct Injector {
    rules: Vec<(Rule, u64)>,
    passages: [u64; SITES],
    bytes: [u64; SITES],
    streams: [Random; SITES],
    state: usize,
    records: Vec<Record>,
}

/// A stream of chance for each site, keyed by its name.
fn streams(seed: u64) -> [Random; SITES] {
    Site::ALL.map(|site| {
        let name =
            site.name().bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Random::new(Random::new(Random::new(seed).bits() ^ name).bits())
    })
}

impl Injector {
    /// Arms rules; all chance is from `seed`.
    pub fn new(rules: Rules, seed: u64) -> Self {
        let rules = rules.rules.into_iter().map(|rule| (rule, 0)).collect();
        let (passages, bytes) = ([0; SITES], [0; SITES]);
        Self { rules, passages, bytes, streams: streams(seed), state: 0, records: Vec::new() }
    }

    /// Something passes a site at `now_us`; what is to be done to it, if anything.
    pub fn at(&mut self, site: Site, now_us: u64, look: Look<'_>) -> Option<Action> {
        let i = site.index();
        self.passages[i] += 1;
        let (passage, passed_bytes) = (self.passages[i], self.bytes[i]);
        self.bytes[i] += look.bytes;
        let (state, stream) = (self.state, &mut self.streams[i]);
        let (rule, struck) = self.rules.iter_mut().find(|(rule, struck)| {
            let is_due = rule.site == site
                && *struck < rule.times
                && (rule.from..=rule.to).contains(&passage)
                && (passage - rule.from).is_multiple_of(rule.every)
                && (rule.after_us..rule.before_us).contains(&now_us)
                && passed_bytes >= rule.after_bytes
                && rule.state.is_none_or(|s| s == state)
                && rule.matches(&look);
            is_due && (rule.share == Share::ALL || stream.below(1_000_000) < rule.share.as_ppm().into())
        })?;
        *struck += 1;
        self.state = rule.next.unwrap_or(state);
        self.records.push(Record { at_us: now_us, site, passage, line: rule.line, action: rule.action });
        Some(rule.action)
    }

    /// How often something has passed a site.
    pub fn passages(&self, site: Site) -> u64 {
        self.passages[site.index()]
    }

    /// Chance for what an action leaves open, of the site's own stream.
    pub fn random(&mut self, site: Site) -> &mut Random {
        &mut self.streams[site.index()]
    }

    /// Every strike, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

impl Rule {
    fn matches(&self, look: &Look<'_>) -> bool {
        let is_card = self.card.as_deref().is_none_or(|name| name == look.card);
        let asks = self.local.is_some() || self.remote.is_some() || self.flags != 0;
        is_card
            && (!asks
                || look.segment.is_some_and(|(local, remote, flags)| {
                    self.local.is_none_or(|e| e.has(local))
                        && self.remote.is_none_or(|e| e.has(remote))
                        && flags & self.flags == self.flags
                }))
    }
}

impl Ends {
    fn has(&self, end: SocketAddr) -> bool {
        self.ip.is_none_or(|ip| ip == end.ip()) && self.port.is_none_or(|port| port == end.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleError;

    fn injector(text: &str) -> Injector {
        Injector::new(Rules::read(text).unwrap(), 1)
    }

    fn look() -> Look<'static> {
        let end = |text: &str| text.parse().unwrap();
        Look { card: "a", bytes: 100, segment: Some((end("192.0.2.1:80"), end("192.0.2.2:81"), 0x12)) }
    }

    /// Which of the first twenty passages of the wire are struck, one each millisecond.
    fn struck(text: &str) -> Vec<u64> {
        let mut injector = injector(text);
        (1..=20).filter(|n| injector.at(Site::WireRx, n * 1_000, look()).is_some()).collect()
    }

    #[test]
    fn when_says_when() {
        let rule =
            |when: &str| struck(&format!("[[rule]]\nsite = \"wire.rx.frame\"\nwhen = {{ {when} }}\naction = \"drop\""));
        assert_eq!(rule("nth = 3"), [3]);
        assert_eq!(rule("from = 3, to = 9, every = 3"), [3, 6, 9]);
        assert_eq!(rule("after = \"4ms\", before = \"6ms\""), [4, 5]);
        assert_eq!(rule("after_bytes = 1800"), [19, 20]);
        assert_eq!(rule(""), (1..=20).collect::<Vec<_>>());
        assert!((3..17).contains(&rule("share = \"50%\"").len()));
    }

    #[test]
    fn the_first_match_wins_and_states_lead_on() {
        let text = r#"
            [[rule]]
            site = "wire.rx.frame"
            when = { nth = 5, state = "start" }
            action = "duplicate"
            next = "bad"

            [[rule]]
            site = "wire.rx.frame"
            when = { state = "bad" }
            action = "drop"
            times = 2
        "#;
        assert_eq!(struck(text), [5, 6, 7]);
        let mut injector = injector(text);
        let actions: Vec<_> = (1..=7).filter_map(|n| injector.at(Site::WireRx, n, look())).collect();
        assert_eq!(actions, [Action::Duplicate, Action::Drop, Action::Drop]);
        let record = Record { at_us: 6, site: Site::WireRx, passage: 6, line: 8, action: Action::Drop };
        assert_eq!((injector.records()[1], injector.passages(Site::WireRx)), (record, 7));
    }

    #[test]
    fn filters_choose_whom() {
        let rule = |filter: &str| {
            struck(&format!("[[rule]]\nsite = \"wire.rx.frame\"\nfilter = {{ {filter} }}\naction = \"drop\"")).len()
        };
        for all in ["local = \"192.0.2.1:80\"", "remote = \":81\"", "flags = \"SYN,ACK\"", "card = \"a\""] {
            assert_eq!(rule(all), 20, "{all}");
        }
        for none in ["local = \"192.0.2.2\"", "remote = \":80\"", "flags = \"SYN FIN\"", "card = \"b\""] {
            assert_eq!(rule(none), 0, "{none}");
        }
    }

    #[test]
    fn a_rule_of_another_site_shifts_nobodys_draws() {
        let half = "[[rule]]\nsite = \"wire.rx.frame\"\nwhen = { share = \"50%\" }\naction = \"drop\"\n";
        let more =
            format!("{half}[[rule]]\nsite = \"wire.tx.frame\"\nwhen = {{ share = \"50%\" }}\naction = \"drop\"\n");
        let run = |text: &str| {
            let mut injector = injector(text);
            let struck: Vec<_> = (0..50)
                .map(|n| {
                    let _ = injector.at(Site::WireTx, n, look());
                    injector.at(Site::WireRx, n, look())
                })
                .collect();
            struck
        };
        assert_eq!(run(half), run(&more));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        let rule = |rest: &str| format!("# two\n\n[[rule]]\nsite = \"wire.rx.frame\"\naction = \"drop\"\n{rest}\n");
        for (text, error) in [
            (
                "[[rule]]\naction = \"drop\"\nsite = \"wire.rx\"".to_owned(),
                "line 3: no site `wire.rx`; the nearest are wire.rx.frame, wire.tx.frame, timer.wake",
            ),
            (
                rule("when = { nth = 3, every = 2 }"),
                "line 6: `nth` is one passage: `from`, `to` and `every` contradict it",
            ),
            (rule("when = { from = 9, to = 3 }"), "line 6: from 9 to 3 is never"),
            (
                rule("when = { after = \"2s\", before = \"1s\" }"),
                "line 6: after 2000000 us and before 1000000 us is never",
            ),
            (rule("when = { after = \"soon\" }"), "line 6: `soon` is no time: a whole number of us, ms or s"),
            (rule("when = { share = \"0%\" }"), "line 6: a share of 0% is never"),
            (
                rule("when = { state = \"bed\" }\nnext = \"bad\""),
                "line 6: no rule leads to state `bed`; there are bad, start",
            ),
            (rule("when = { nth = 1 }\ntimes = 2"), "line 7: `nth` strikes once: `times` contradicts it"),
            (rule("times = 0"), "line 6: `times` of 0 is never"),
            (rule("filter = { flags = \"SIN\" }"), "line 6: no flag `SIN`; the nearest are FIN, SYN, RST"),
            (
                rule("filter = { local = \"192.0.2.1\", remote = \"2001:db8::1\" }"),
                "line 6: no connection has ends 192.0.2.1 and 2001:db8::1: the filter never matches",
            ),
            (
                "[[rule]]\nsite = \"timer.wake\"\naction = \"drop\"\nfilter = { flags = \"SYN\" }".to_owned(),
                "line 4: nothing at `timer.wake` has ends or flags: the filter never matches",
            ),
            (
                "[[rule]]\nsite = \"channel.rx.frame\"\naction = \"flip-bit\"".to_owned(),
                "line 3: `channel.rx.frame` cannot flip-bit; it can drop, duplicate, delay",
            ),
            (
                "[[rule]]\nsite = \"timer.wake\"\naction = \"drip\"".to_owned(),
                "line 3: no action `drip`; the nearest are drop, delay, flip-bit",
            ),
        ] {
            assert_eq!(Rules::read(&text).unwrap_err().to_string(), error, "{text}");
        }
        let unknown = Rules::read(&rule("whem = {}")).unwrap_err();
        assert!(matches!(&unknown, RuleError::Toml(text) if text.contains("line 6")), "{unknown}");
    }
}

//! Rules as a file has them, and what is refused.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use serde::Deserialize;
use toe_impair::{Share, Spec};
use toml::Spanned;

use crate::near::nearest;
use crate::site::{Action, ActionKind, Site};

/// The state before any rule has struck.
pub(crate) const START: &str = "start";

/// TCP's flags by name, in the order of their bits.
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// A file that is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RuleError {
    /// Not TOML, or a key that does not exist; the text has line and column.
    #[error("{0}")]
    Toml(String),
    /// A rule that makes no sense.
    #[error("line {line}: {text}")]
    Rule {
        /// Where it stands, from 1.
        line: usize,
        /// What is wrong.
        text: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Spanned<RawRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    site: Spanned<String>,
    #[serde(default)]
    when: Option<Spanned<RawWhen>>,
    #[serde(default)]
    filter: Option<Spanned<RawFilter>>,
    action: Spanned<RawAction>,
    #[serde(default)]
    times: Option<Spanned<u64>>,
    #[serde(default)]
    next: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawWhen {
    nth: Option<u64>,
    from: Option<u64>,
    to: Option<u64>,
    every: Option<u64>,
    share: Option<String>,
    after: Option<String>,
    before: Option<String>,
    after_bytes: Option<u64>,
    state: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawFilter {
    local: Option<String>,
    remote: Option<String>,
    flags: Option<String>,
    card: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawAction {
    Name(String),
    Delay { delay: String },
    Truncate { truncate: u32 },
}

/// An end of a connection, as far as it is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ends {
    pub ip: Option<IpAddr>,
    pub port: Option<u16>,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    pub site: Site,
    pub from: u64,
    pub to: u64,
    pub every: u64,
    pub share: Share,
    pub after_us: u64,
    pub before_us: u64,
    pub after_bytes: u64,
    /// Number of a state; `None`: any.
    pub state: Option<usize>,
    pub local: Option<Ends>,
    pub remote: Option<Ends>,
    pub flags: u8,
    pub card: Option<String>,
    pub action: Action,
    pub times: u64,
    pub next: Option<usize>,
    pub line: usize,
}

/// The rules of a file, in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    pub(crate) rules: Vec<Rule>,
}

impl Rules {
    /// Reads a file.
    ///
    /// # Errors
    /// The first rule that makes no sense; see [`RuleError`].
    pub fn read(text: &str) -> Result<Self, RuleError> {
        let file: File = toml::from_str(text).map_err(|e| RuleError::Toml(e.to_string()))?;
        let line_of = |span: Range<usize>| 1 + text[..span.start.min(text.len())].matches('\n').count();
        // A state exists if it is the first, or if some rule leads to it.
        let mut states = vec![START.to_owned()];
        for rule in &file.rule {
            let next = rule.get_ref().next.as_ref().map(Spanned::get_ref);
            states.extend(next.filter(|n| !states.contains(n)).cloned());
        }
        let mut rules = Vec::new();
        for raw in &file.rule {
            let line = line_of(raw.span());
            rules.push(read_rule(raw.get_ref(), line, &states, &line_of)?);
        }
        Ok(Self { rules })
    }

    /// No rule at all: what passes is counted, and nothing else.
    pub fn none() -> Self {
        Self { rules: Vec::new() }
    }

    /// One rule: the `nth` passage of a site on a card gets that action.
    pub fn single(site: Site, nth: u64, card: &str, action: Action) -> Self {
        let rule = Rule {
            site,
            from: nth,
            to: nth,
            every: 1,
            share: Share::ALL,
            after_us: 0,
            before_us: u64::MAX,
            after_bytes: 0,
            state: None,
            local: None,
            remote: None,
            flags: 0,
            card: Some(card.to_owned()),
            action,
            times: 1,
            next: None,
            line: 1,
        };
        Self { rules: vec![rule] }
    }

    /// These, and behind them others that ask for no state.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.rules.extend(others.rules);
        self
    }
}

fn read_rule(
    raw: &RawRule,
    line: usize,
    states: &[String],
    line_of: &impl Fn(Range<usize>) -> usize,
) -> Result<Rule, RuleError> {
    let refuse = |span: Range<usize>, text: String| Err(RuleError::Rule { line: line_of(span), text });
    let RawRule { site: site_name, when, filter, action, times, next } = raw;
    let Some(site) = Site::named(site_name.get_ref()) else {
        let near = nearest(site_name.get_ref(), Site::ALL.map(Site::name));
        return refuse(site_name.span(), format!("no site `{}`; the nearest are {near}", site_name.get_ref()));
    };

    let chosen = match read_action(action.get_ref()) {
        Ok(action) => action,
        Err(text) => return refuse(action.span(), text),
    };
    if !site.actions().contains(&chosen.kind()) {
        let all: Vec<_> = site.actions().iter().map(|a| a.name()).collect();
        let text = format!("`{}` cannot {}; it can {}", site.name(), chosen.kind().name(), all.join(", "));
        return refuse(action.span(), text);
    }

    let nothing = RawWhen::default();
    let w = when.as_ref().map_or(&nothing, Spanned::get_ref);
    let when_span = when.as_ref().map_or(0..0, Spanned::span);
    if w.nth.is_some() && (w.from.is_some() || w.to.is_some() || w.every.is_some()) {
        return refuse(when_span, "`nth` is one passage: `from`, `to` and `every` contradict it".into());
    }
    let (from, to) = w.nth.map_or((w.from.unwrap_or(1), w.to.unwrap_or(u64::MAX)), |n| (n, n));
    if from == 0 || w.every == Some(0) {
        return refuse(when_span, "passages are counted from 1, and `every` is 1 at least".into());
    }
    if to < from {
        return refuse(when_span, format!("from {from} to {to} is never"));
    }
    let time = |text: &Option<String>, otherwise: u64| text.as_deref().map_or(Ok(otherwise), time_us);
    let (after_us, before_us) = match (time(&w.after, 0), time(&w.before, u64::MAX)) {
        (Ok(after_us), Ok(before_us)) => (after_us, before_us),
        (Err(text), _) | (_, Err(text)) => return refuse(when_span, text),
    };
    if before_us <= after_us {
        return refuse(when_span, format!("after {after_us} us and before {before_us} us is never"));
    }
    let share = match w.share.as_deref().map(|s| format!("loss={s}").parse::<Spec>().map(|spec| (s, spec.loss))) {
        None => Share::ALL,
        Some(Ok((_, share))) if share != Share::NONE => share,
        Some(Ok((text, _))) => return refuse(when_span, format!("a share of {text} is never")),
        Some(Err(_)) => return refuse(when_span, "`share` is a text as \"0.5%\"".into()),
    };
    let number_of = |name: &String| states.iter().position(|s| s == name);
    let state = match &w.state {
        None => None,
        Some(name) => match number_of(name) {
            Some(number) => Some(number),
            None => {
                let near = nearest(name, states.iter().map(String::as_str));
                return refuse(when_span, format!("no rule leads to state `{name}`; there are {near}"));
            }
        },
    };
    let limit = times.as_ref().map_or(u64::MAX, |t| *t.get_ref());
    if limit == 0 || (w.nth.is_some() && times.is_some() && limit > 1) {
        let span = times.as_ref().map_or(0..0, Spanned::span);
        let text = if limit == 0 { "`times` of 0 is never" } else { "`nth` strikes once: `times` contradicts it" };
        return refuse(span, text.into());
    }

    let nobody = RawFilter::default();
    let f = filter.as_ref().map_or(&nobody, Spanned::get_ref);
    let filter_span = filter.as_ref().map_or(0..0, Spanned::span);
    let asks = f.local.is_some() || f.remote.is_some() || f.flags.is_some();
    if asks && !site.has_connection() {
        let text = format!("nothing at `{}` has ends or flags: the filter never matches", site.name());
        return refuse(filter_span, text);
    }
    let end = |text: &Option<String>| text.as_deref().map(ends).transpose();
    let (local, remote) = match (end(&f.local), end(&f.remote)) {
        (Ok(local), Ok(remote)) => (local, remote),
        (Err(text), _) | (_, Err(text)) => return refuse(filter_span, text),
    };
    if let (Some(Ends { ip: Some(a), .. }), Some(Ends { ip: Some(b), .. })) = (local, remote)
        && a.is_ipv4() != b.is_ipv4()
    {
        return refuse(filter_span, format!("no connection has ends {a} and {b}: the filter never matches"));
    }
    let mut flags = 0;
    for name in f.flags.iter().flat_map(|f| f.split([',', ' ', '|'])).filter(|n| !n.is_empty()) {
        let Some(bit) = FLAGS.iter().position(|f| *f == name) else {
            return refuse(filter_span, format!("no flag `{name}`; the nearest are {}", nearest(name, FLAGS)));
        };
        flags |= 1 << bit;
    }

    Ok(Rule {
        site,
        from,
        to,
        every: w.every.unwrap_or(1),
        share,
        after_us,
        before_us,
        after_bytes: w.after_bytes.unwrap_or(0),
        state,
        local,
        remote,
        flags,
        card: f.card.clone(),
        action: chosen,
        times: limit,
        next: next.as_ref().and_then(|n| number_of(n.get_ref())),
        line,
    })
}

fn read_action(raw: &RawAction) -> Result<Action, String> {
    match raw {
        RawAction::Delay { delay } => Ok(Action::Delay(time_us(delay)?)),
        RawAction::Truncate { truncate } => Ok(Action::Truncate(*truncate)),
        RawAction::Name(name) => match name.as_str() {
            "drop" => Ok(Action::Drop),
            "duplicate" => Ok(Action::Duplicate),
            "flip-bit" => Ok(Action::FlipBit),
            "delay" => Err("`delay` needs a time: { delay = \"5ms\" }".into()),
            "truncate" => Err("`truncate` needs a length: { truncate = 60 }".into()),
            other => {
                let near = nearest(other, ActionKind::ALL.map(ActionKind::name));
                Err(format!("no action `{other}`; the nearest are {near}"))
            }
        },
    }
}

/// `20ms` in microseconds.
fn time_us(text: &str) -> Result<u64, String> {
    let units = [("us", 1u64), ("ms", 1_000), ("s", 1_000_000)];
    let found = units.iter().find_map(|&(unit, scale)| Some((text.strip_suffix(unit)?, scale)));
    let us = found.and_then(|(number, scale)| number.trim().parse::<u64>().ok()?.checked_mul(scale));
    us.ok_or_else(|| format!("`{text}` is no time: a whole number of us, ms or s"))
}

/// `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`, `2001:db8::1` or `:80`.
fn ends(text: &str) -> Result<Ends, String> {
    if let Some(port) = text.strip_prefix(':').and_then(|p| p.parse().ok()) {
        return Ok(Ends { ip: None, port: Some(port) });
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Ends { ip: Some(ip), port: None });
    }
    let both =
        text.parse::<SocketAddr>().map_err(|_| format!("`{text}` is no end: an address, a port as :80, or both"))?;
    Ok(Ends { ip: Some(both.ip()), port: Some(both.port()) })
}

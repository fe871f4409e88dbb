//! Rules as a file has them, and what is refused.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use serde::Deserialize;
use toe_firmware::fault::{
    About, Action, ActionKind, End, FIRST_STATE, FOR_EVER, Filter, Rule, Rules, Site, WHOLE_PPM,
};
use toe_impair::{Share, Spec};
use toml::Spanned;

use crate::near::nearest;

/// The state before any rule has struck.
const START: &str = "start";

/// TCP's flags by name, in the order of their bits.
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// States of a connection that a filter can ask for, by Linux's numbers.
const STATES: [(&str, u8); 10] = [
    ("established", 1),
    ("syn-sent", 2),
    ("syn-received", 3),
    ("fin-wait-1", 4),
    ("fin-wait-2", 5),
    ("time-wait", 6),
    ("closed", 7),
    ("close-wait", 8),
    ("last-ack", 9),
    ("closing", 11),
];

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
    state: Option<String>,
    context: Option<u32>,
    card: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawAction {
    Name(String),
    Figures(RawFigures),
}

/// An action with a figure: exactly one of them, and `lasting` beside `slow`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawFigures {
    delay: Option<String>,
    truncate: Option<u32>,
    reorder: Option<u32>,
    corrupt: Option<u64>,
    hang: Option<String>,
    slow: Option<u32>,
    lasting: Option<String>,
    jump: Option<String>,
}

/// Reads a file of rules.
///
/// # Errors
/// The first rule that makes no sense; see [`RuleError`].
pub fn read(text: &str) -> Result<Rules, RuleError> {
    let file: File = toml::from_str(text).map_err(|e| RuleError::Toml(e.to_string()))?;
    let line_of = |span: Range<usize>| 1 + text[..span.start.min(text.len())].matches('\n').count();
    // A state exists if it is the first, or if some rule leads to it.
    let mut states = vec![START.to_owned()];
    for rule in &file.rule {
        let next = rule.get_ref().next.as_ref().map(Spanned::get_ref);
        states.extend(next.filter(|n| !states.contains(n)).cloned());
    }
    const { assert!(FIRST_STATE == 0) };
    let mut rules = Vec::new();
    for raw in &file.rule {
        let line = line_of(raw.span());
        rules.push(read_rule(raw.get_ref(), line, &states, &line_of)?);
    }
    Ok(Rules::new(rules))
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
        None => WHOLE_PPM,
        Some(Ok((_, share))) if share != Share::NONE => share.as_ppm(),
        Some(Ok((text, _))) => return refuse(when_span, format!("a share of {text} is never")),
        Some(Err(_)) => return refuse(when_span, "`share` is a text as \"0.5%\"".into()),
    };
    let number_of = |name: &String| states.iter().position(|s| s == name).map(|n| n as u32);
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
    let asks = f.local.is_some() || f.remote.is_some() || f.state.is_some() || f.context.is_some();
    if (asks || f.flags.is_some()) && site.about() == About::Nothing {
        let text = format!("nothing at `{}` has ends, state or flags: the filter never matches", site.name());
        return refuse(filter_span, text);
    }
    if f.flags.is_some() && site.about() < About::Segment {
        let text = format!("what passes `{}` is no segment and has no flags: the filter never matches", site.name());
        return refuse(filter_span, text);
    }
    let end = |text: &Option<String>| text.as_deref().map(ends).transpose();
    let (local, remote) = match (end(&f.local), end(&f.remote)) {
        (Ok(local), Ok(remote)) => (local, remote),
        (Err(text), _) | (_, Err(text)) => return refuse(filter_span, text),
    };
    if let (Some(End { ip: Some(a), .. }), Some(End { ip: Some(b), .. })) = (local, remote)
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
    let mut tcp_states = 0;
    for name in f.state.iter().flat_map(|f| f.split([',', ' ', '|'])).filter(|n| !n.is_empty()) {
        let Some((_, number)) = STATES.iter().find(|(state, _)| *state == name) else {
            let near = nearest(name, STATES.map(|(state, _)| state));
            return refuse(filter_span, format!("no state `{name}`; the nearest are {near}"));
        };
        tcp_states |= 1 << number;
    }

    let filter = Filter { local, remote, flags, states: tcp_states, context: f.context, card: f.card.clone() };
    Ok(Rule {
        site,
        from,
        to,
        every: w.every.unwrap_or(1),
        share_ppm: share,
        after_us,
        before_us,
        after_bytes: w.after_bytes.unwrap_or(0),
        state,
        filter,
        action: chosen,
        times: limit,
        next: next.as_ref().and_then(|n| number_of(n.get_ref())),
        line: line as u32,
    })
}

fn read_action(raw: &RawAction) -> Result<Action, String> {
    match raw {
        RawAction::Name(name) => named_action(name),
        RawAction::Figures(figures) => action_with_figures(figures),
    }
}

fn named_action(name: &str) -> Result<Action, String> {
    Ok(match name {
        "drop" => Action::Drop,
        "duplicate" => Action::Duplicate,
        "flip-bit" => Action::FlipBit(0),
        "corrupt" => Action::Corrupt(None),
        "error" => Action::Error,
        "hang" => Action::Hang(FOR_EVER),
        "crash" => Action::Crash,
        "crash-kept" => Action::CrashKept,
        "leak" => Action::Leak,
        "early" => Action::Early,
        "delay" => return Err("`delay` needs a time: { delay = \"5ms\" }".into()),
        "jump" => return Err("`jump` needs a time: { jump = \"5s\" }".into()),
        "truncate" => return Err("`truncate` needs a length: { truncate = 60 }".into()),
        "reorder" => return Err("`reorder` needs how many overtake it: { reorder = 3 }".into()),
        "slow" => return Err("`slow` needs how many times: { slow = 8 } or { slow = 8, lasting = \"50ms\" }".into()),
        other => {
            let near = nearest(other, ActionKind::ALL.map(ActionKind::name));
            return Err(format!("no action `{other}`; the nearest are {near}"));
        }
    })
}

fn action_with_figures(raw: &RawFigures) -> Result<Action, String> {
    let RawFigures { delay, truncate, reorder, corrupt, hang, slow, lasting, jump } = raw;
    if lasting.is_some() && slow.is_none() {
        return Err("`lasting` belongs to `slow`: { slow = 8, lasting = \"50ms\" }".into());
    }
    let positive = |text: &str| match time_us(text) {
        Ok(0) => Err(format!("`{text}` is no time at all")),
        other => other,
    };
    let mut actions = Vec::new();
    if let Some(text) = delay {
        actions.push(Action::Delay(time_us(text)?));
    }
    actions.extend(truncate.map(Action::Truncate));
    actions.extend(reorder.map(Action::Reorder));
    actions.extend(corrupt.map(|value| Action::Corrupt(Some(value))));
    if let Some(text) = hang {
        actions.push(Action::Hang(positive(text)?));
    }
    if let Some(times) = slow {
        if *times < 2 {
            return Err(format!("{times} times slower is not slower"));
        }
        let lasting_us = lasting.as_deref().map_or(Ok(FOR_EVER), positive)?;
        actions.push(Action::Slow { times: *times, lasting_us });
    }
    if let Some(text) = jump {
        actions.push(Action::Jump(positive(text)?));
    }
    match actions[..] {
        [action] => Ok(action),
        [] => Err("an action without a name".into()),
        _ => Err("more than one action: the first rule that matches does one thing".into()),
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
fn ends(text: &str) -> Result<End, String> {
    if let Some(port) = text.strip_prefix(':').and_then(|p| p.parse().ok()) {
        return Ok(End { ip: None, port: Some(port) });
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(End { ip: Some(ip), port: None });
    }
    let both =
        text.parse::<SocketAddr>().map_err(|_| format!("`{text}` is no end: an address, a port as :80, or both"))?;
    Ok(End { ip: Some(both.ip()), port: Some(both.port()) })
}

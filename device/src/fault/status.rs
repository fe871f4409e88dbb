//! What is armed and what it has done, for the operator.

use serde::{Deserialize, Serialize};
use toe_firmware::fault::{Action, By, FOR_EVER, Injector, Record, Rule, Site};

/// What is armed, and what it has done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Whether rules are armed.
    pub armed: bool,
    /// The seed of all their chance.
    pub seed: Option<u64>,
    /// The number of the state that the rules are in; they begin in 0.
    pub state: u32,
    /// How often any rule struck.
    pub strikes: u64,
    /// Frames that are held back.
    pub held: usize,
    /// The rules, in their order.
    pub rules: Vec<RuleStatus>,
    /// The sites that a rule names.
    pub sites: Vec<SiteStatus>,
    /// The last strikes, in order.
    pub records: Vec<RecordStatus>,
    /// Strikes before these.
    pub overwritten: u64,
}

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Its line in the file.
    pub line: u32,
    /// Where.
    pub site: String,
    /// What.
    pub action: String,
    /// How often it struck.
    pub strikes: u64,
}

/// A site that a rule names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SiteStatus {
    /// Its name.
    pub site: String,
    /// How often something has passed it since the rules were armed.
    pub passages: u64,
    /// How often it was struck.
    pub strikes: u64,
}

/// A strike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecordStatus {
    /// When, in microseconds since the rules were armed.
    pub at_us: u64,
    /// Where.
    pub site: String,
    /// At which passage of the site.
    pub passage: u64,
    /// The line of the rule.
    pub line: u32,
    /// What was done.
    pub action: String,
    /// The card's end of the connection, if it was one.
    pub local: Option<String>,
    /// The peer's.
    pub remote: Option<String>,
}

/// A site as it can be named in a rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SiteInfo {
    /// Its name.
    pub site: String,
    /// What can be done there.
    pub actions: Vec<String>,
    /// `firmware` or `device`: who does it.
    pub by: String,
    /// What passes there.
    pub text: String,
}

impl Status {
    /// Of the firmware's injector, if there is one.
    pub fn new(injector: Option<&Injector>, seed: Option<u64>, held: usize) -> Self {
        let Some(injector) = injector else {
            return Self {
                armed: false,
                seed: None,
                state: 0,
                strikes: 0,
                held,
                rules: Vec::new(),
                sites: Vec::new(),
                records: Vec::new(),
                overwritten: 0,
            };
        };
        let named = |site: &Site| injector.rules().any(|(rule, _)| rule.site == *site);
        Self {
            armed: true,
            seed,
            state: injector.state(),
            strikes: injector.all_strikes(),
            held,
            rules: injector.rules().map(|(rule, strikes)| RuleStatus::new(rule, strikes)).collect(),
            sites: Site::ALL
                .into_iter()
                .filter(named)
                .map(|site| SiteStatus {
                    site: site.name().to_owned(),
                    passages: injector.passages(site),
                    strikes: injector.strikes(site),
                })
                .collect(),
            records: injector.records().map(RecordStatus::new).collect(),
            overwritten: injector.overwritten(),
        }
    }
}

impl RuleStatus {
    fn new(rule: &Rule, strikes: u64) -> Self {
        Self { line: rule.line, site: rule.site.name().to_owned(), action: text(rule.action), strikes }
    }
}

impl RecordStatus {
    /// How the operator sees a strike.
    pub fn new(record: &Record) -> Self {
        let Record { at_us, site, passage, line, action, ends } = *record;
        let (local, remote) = ends.map(|(local, remote)| (local.to_string(), remote.to_string())).unzip();
        Self { at_us, site: site.name().to_owned(), passage, line, action: text(action), local, remote }
    }
}

/// Every site there is.
pub fn sites() -> Vec<SiteInfo> {
    let info = |site: Site| SiteInfo {
        site: site.name().to_owned(),
        actions: site.actions().iter().map(|kind| kind.name().to_owned()).collect(),
        by: match site.by() {
            By::Firmware => "firmware",
            By::Device => "device",
        }
        .to_owned(),
        text: site.text().trim().to_owned(),
    };
    Site::ALL.into_iter().map(info).collect()
}

/// An action with its figures.
fn text(action: Action) -> String {
    let name = action.kind().name();
    let lasting = |us: u64| if us == FOR_EVER { String::new() } else { format!(" for {us} us") };
    match action {
        Action::Drop
        | Action::Duplicate
        | Action::Error
        | Action::Crash
        | Action::CrashKept
        | Action::Leak
        | Action::Early
        | Action::FlipBit(_)
        | Action::Corrupt(None) => name.to_owned(),
        Action::Delay(us) | Action::Jump(us) => format!("{name} {us} us"),
        Action::Truncate(bytes) => format!("{name} to {bytes}"),
        Action::Reorder(behind) => format!("{name} behind {behind}"),
        Action::Corrupt(Some(value)) => format!("{name} to {value}"),
        Action::Hang(us) => format!("{name}{}", lasting(us)),
        Action::Slow { times, lasting_us } => format!("{name} {times} times{}", lasting(lasting_us)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_told_with_their_figures() {
        for (action, expected) in [
            (Action::Drop, "drop"),
            (Action::Delay(1500), "delay 1500 us"),
            (Action::Reorder(2), "reorder behind 2"),
            (Action::Hang(FOR_EVER), "hang"),
            (Action::Hang(20), "hang for 20 us"),
            (Action::Slow { times: 8, lasting_us: FOR_EVER }, "slow 8 times"),
            (Action::Corrupt(Some(7)), "corrupt to 7"),
        ] {
            assert_eq!(text(action), expected);
        }
    }

    #[test]
    fn every_site_has_actions_and_a_text() {
        for SiteInfo { site, actions, by, text } in sites() {
            assert!(!actions.is_empty() && !text.is_empty() && ["device", "firmware"].contains(&by.as_str()), "{site}");
        }
    }
}

//! `toectl faults`: the sites where faults can strike, arming and disarming, and what struck.

use std::path::{Path, PathBuf};

use hyper::Request;
use hyper::body::Bytes;
use toe_command_line::table;
use toe_device::fault::status::{self, RecordStatus, RuleStatus, SiteInfo, SiteStatus, Status};

/// What is wanted.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum What {
    /// Every site: what passes there, and what can be done to it; needs no card
    List,
    /// Arm the rules of a file, instead of those that were
    Arm {
        /// The rule file (TOML)
        #[arg(value_name = "FILE")]
        file: PathBuf,

        /// Seed of all chance: the same rules, seed and passages, the same faults
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
    },
    /// Disarm all; what the rules have done until now
    Disarm,
    /// The armed rules, passages and strikes of their sites, and the last strikes
    Status {
        /// So many of the last strikes
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: usize,
    },
}

/// Every site.
pub fn list(json: bool) -> Result<String, String> {
    let sites = status::sites();
    if json {
        return serde_json::to_string(&sites).map(|text| text + "\n").map_err(|error| error.to_string());
    }
    let mut rows = vec![["SITE", "ACTIONS", "BY", "WHAT"].map(str::to_owned).to_vec()];
    rows.extend(sites.into_iter().map(|SiteInfo { site, actions, by, text }| vec![site, actions.join(","), by, text]));
    Ok(table(&rows, &[]))
}

/// Does it; the card's answer.
pub async fn ask(socket: &Path, what: &What) -> Result<String, String> {
    let (request, body) = match what {
        What::Arm { file, seed } => {
            let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            (Request::post(format!("/faults?seed={seed}")), Bytes::from(text))
        }
        What::Disarm => (Request::delete("/faults"), Bytes::new()),
        What::List | What::Status { .. } => (Request::get("/faults"), Bytes::new()),
    };
    let answer = crate::ask::request(socket, request, body).await;
    match what {
        What::Arm { file, .. } => answer.map_err(|error| format!("{}: {error}", file.display())),
        _ => answer,
    }
}

/// What is armed, for people.
pub fn text(what: &What, status: &Status) -> String {
    let Status { armed, seed, state, strikes, held, rules, sites, records, overwritten } = status;
    if !armed {
        return "no faults are armed\n".to_owned();
    }
    let is_over = matches!(what, What::Disarm);
    let mut text = format!(
        "{}: {} rules, seed {}, state {state}, {strikes} strikes, {held} frames held\n",
        if is_over { "disarmed" } else { "armed" },
        rules.len(),
        seed.unwrap_or_default()
    );
    let mut rows = vec![["LINE", "SITE", "ACTION", "STRIKES"].map(str::to_owned).to_vec()];
    rows.extend(rules.iter().map(|RuleStatus { line, site, action, strikes }| {
        vec![line.to_string(), site.clone(), action.clone(), strikes.to_string()]
    }));
    text += &format!("\n{}", table(&rows, &[0, 3]));
    let mut rows = vec![["SITE", "PASSAGES", "STRIKES"].map(str::to_owned).to_vec()];
    rows.extend(
        sites.iter().map(|SiteStatus { site, passages, strikes }| {
            vec![site.clone(), passages.to_string(), strikes.to_string()]
        }),
    );
    text += &format!("\n{}", table(&rows, &[1, 2]));
    let last = match what {
        What::Status { last } => *last,
        _ => 0,
    };
    let told = &records[records.len().saturating_sub(last)..];
    if !told.is_empty() {
        let head = ["TIME", "SITE", "PASSAGE", "LINE", "ACTION", "LOCAL", "REMOTE"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(told.iter().map(|RecordStatus { at_us, site, passage, line, action, local, remote }| {
            let end = |end: &Option<String>| end.clone().unwrap_or_else(|| "-".to_owned());
            let time = format!("{}.{:06}", at_us / 1_000_000, at_us % 1_000_000);
            let (passage, line) = (passage.to_string(), line.to_string());
            vec![time, site.clone(), passage, line, action.clone(), end(local), end(remote)]
        }));
        text += &format!("\n{}", table(&rows, &[0, 2, 3]));
        let before = overwritten + (records.len() - told.len()) as u64;
        if before > 0 {
            text += &format!("and {before} before these\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_armed_and_what_struck_are_tables() {
        let site = "wire.rx.frame".to_owned();
        let record = |passage| RecordStatus {
            at_us: 1_500_000,
            site: site.clone(),
            passage,
            line: 3,
            action: "drop".to_owned(),
            local: None,
            remote: Some("192.0.2.1:80".to_owned()),
        };
        let status = Status {
            armed: true,
            seed: Some(7),
            state: 0,
            strikes: 2,
            held: 0,
            rules: vec![RuleStatus { line: 3, site: site.clone(), action: "drop".to_owned(), strikes: 2 }],
            sites: vec![SiteStatus { site: site.clone(), passages: 9, strikes: 2 }],
            records: vec![record(4), record(8)],
            overwritten: 0,
        };
        assert_eq!(
            text(&What::Status { last: 1 }, &status),
            "armed: 1 rules, seed 7, state 0, 2 strikes, 0 frames held\n\n\
             LINE  SITE           ACTION  STRIKES\n   3  wire.rx.frame  drop          2\n\n\
             SITE           PASSAGES  STRIKES\nwire.rx.frame         9        2\n\n\
             \u{20}   TIME  SITE           PASSAGE  LINE  ACTION  LOCAL  REMOTE\n\
             1.500000  wire.rx.frame        8     3  drop    -      192.0.2.1:80\n\
             and 1 before these\n"
        );
        assert_eq!(text(&What::Disarm, &Status { armed: false, ..status }), "no faults are armed\n");
    }
}

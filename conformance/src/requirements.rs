//! The requirements of RFC 9293, and those that are not obeyed.
//!
//! `conformance/requirements.tsv` has the rows of the RFC's appendix B with the words of its body, `conformance/deviations.toml`
//! a verdict and a reason for each row that has no code and no test to show. Everything else has to be shown.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::source::Citation;
use crate::spec::folded;

/// A row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requirement {
    /// The RFC's identifier: `MUST-20`.
    pub id: String,
    /// Which of the rows with that identifier; empty if there is but one.
    pub part: String,
    /// `MUST`, `MUST NOT`, `SHOULD`, `SHOULD NOT` or `MAY`.
    pub level: String,
    /// The heading that it stands under in the RFC's table.
    pub group: String,
    /// What it is about, in the table's words.
    pub feature: String,
    /// Where the body states it.
    pub section: String,
    /// The body's words.
    pub quote: String,
}

impl Requirement {
    /// Identifier and part: `MUST-20 R2`.
    pub fn name(&self) -> String {
        if self.part.is_empty() { self.id.clone() } else { format!("{} {}", self.id, self.part) }
    }

    /// Whether a citation of RFC 9293 is of this row.
    pub fn is_cited_by(&self, citation: &Citation) -> bool {
        let labels = labels(&citation.quote);
        let same = if labels.is_empty() {
            // The one that the RFC's body has no identifier for.
            self.section == citation.section
                && !labels_of(&self.quote, &self.id)
                && folded(&self.quote).contains(&folded(&citation.quote))
        } else {
            labels.contains(&self.id)
        };
        same && citation.feature.as_ref().is_none_or(|part| *part == self.part)
    }
}

fn labels_of(quote: &str, id: &str) -> bool {
    labels(quote).iter().any(|label| label == id)
}

/// The identifiers in a text of the RFC, wherever its lines break.
pub fn labels(text: &str) -> Vec<String> {
    let text = folded(text);
    let mut found = Vec::new();
    for kind in ["MUST-", "SHLD-", "MAY-", "REC-"] {
        for (at, _) in text.match_indices(kind) {
            let digits: String = text[at + kind.len()..].chars().take_while(char::is_ascii_digit).collect();
            if !digits.is_empty() {
                found.push(format!("{kind}{digits}"));
            }
        }
    }
    found
}

/// Reads the table.
///
/// # Errors
/// A line that has not seven columns.
pub fn table(text: &str) -> Result<Vec<Requirement>> {
    let rows = text.lines().filter(|l| !l.starts_with('#'));
    rows.map(|line| {
        let columns: Vec<_> = line.split('\t').map(str::to_owned).collect();
        let [id, part, level, group, feature, section, quote] =
            <[String; 7]>::try_from(columns).ok().with_context(|| format!("not a row: {line}"))?;
        Ok(Requirement { id, part, level, group, feature, section, quote })
    })
    .collect()
}

/// What is said of a requirement beside what is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is not obeyed.
    Deviation,
    /// There is nothing in a card that it could be about.
    NotApplicable,
    /// A permission that is not made use of.
    NotUsed,
    /// It is obeyed, and has to be shown, but how is worth a word.
    Remark,
}

/// A verdict and its reason.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    /// The verdict.
    pub verdict: Verdict,
    /// The reason.
    pub reason: String,
}

/// Reads the verdicts, by [`Requirement::name`].
///
/// # Errors
/// One without a reason, of an unknown requirement, or a permission's verdict on what is none.
pub fn deviations(text: &str, table: &[Requirement]) -> Result<BTreeMap<String, Deviation>> {
    let deviations: BTreeMap<String, Deviation> = toml::from_str(text)?;
    for (name, deviation) in &deviations {
        let row = table.iter().find(|r| r.name() == *name);
        let row = row.with_context(|| format!("{name} is no requirement"))?;
        ensure!(!deviation.reason.trim().is_empty(), "{name}: no reason");
        ensure!(deviation.verdict != Verdict::NotUsed || row.level == "MAY", "{name} is not a permission");
    }
    Ok(deviations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_found_over_line_breaks() {
        assert_eq!(labels("a (MUST-\n 10) and b (SHLD-3), MUST- do"), ["MUST-10", "SHLD-3"]);
    }

    #[test]
    fn a_verdict_is_of_a_requirement_and_has_a_reason() {
        let rows = table("# head\nMUST-1\t\tMUST\tg\tf\t3.1\tw (MUST-1)\nMAY-1\tx\tMAY\tg\tf\t3.2\tw (MAY-1)").unwrap();
        assert!(deviations("[MUST-1]\nverdict = \"deviation\"\nreason = \"r\"", &rows).is_ok());
        assert!(deviations("[\"MAY-1 x\"]\nverdict = \"not-used\"\nreason = \"r\"", &rows).is_ok());
        for bad in [
            "[MUST-2]\nverdict = \"deviation\"\nreason = \"r\"",
            "[MUST-1]\nverdict = \"deviation\"\nreason = \" \"",
            "[MUST-1]\nverdict = \"not-used\"\nreason = \"r\"",
            "[MUST-1]\nverdict = \"done\"\nreason = \"r\"",
        ] {
            assert!(deviations(bad, &rows).is_err(), "{bad}");
        }
        assert!(table("MUST-1\tMUST").is_err());
    }
}

//! What the sources show, and `docs/conformance.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::requirements::{self, Deviation, Requirement, Verdict};
use crate::source::{self, Citation};
use crate::spec::Spec;

/// The text that the table is of.
const RFC_9293: &str = "docs/specs/rfc9293.txt";

/// Where citations may stand.
const CRATES: [&str; 6] = ["abi", "firmware", "device", "guest", "guest-tests", "packetdrill"];

/// Everything that the tree says.
#[derive(Debug)]
pub struct Report {
    table: Vec<Requirement>,
    deviations: BTreeMap<String, Deviation>,
    citations: Vec<Citation>,
}

impl Report {
    /// Reads a tree and checks every citation in it.
    ///
    /// # Errors
    /// All that is wrong with citations, one to a line.
    pub fn of(root: &Path) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| format!("{path} cannot be read"));
        let table = requirements::table(&read("conformance/requirements.tsv")?)?;
        let deviations = requirements::deviations(&read("conformance/deviations.toml")?, &table)?;
        let mut citations = Vec::new();
        let mut wrong = Vec::new();
        for file in sources(root)? {
            let name = file.strip_prefix(root)?.to_str().context("a path that is no text")?.replace('\\', "/");
            match source::citations(&name, &read(&name)?) {
                Ok(found) => {
                    if !found.is_empty() && !is_compiled(&file) {
                        wrong.push(format!("{name} is no module of anything"));
                    }
                    citations.extend(found);
                }
                Err(e) => wrong.push(format!("{e:#}")),
            }
        }
        let mut specs = BTreeMap::new();
        for citation in &citations {
            if !specs.contains_key(&citation.text) {
                specs.insert(citation.text.clone(), Spec::parse(&read(&citation.text)?));
            }
            if let Err(e) = check(citation, &specs[&citation.text], &table) {
                wrong.push(format!("{}:{}: {e:#}", citation.file, citation.line));
            }
        }
        let spec = Spec::parse(&read(RFC_9293)?);
        for row in &table {
            if spec.has(&row.section, &row.quote) != Some(true) {
                wrong.push(format!("requirements.tsv: {} is not said so in {}", row.name(), row.section));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(Self { table, deviations, citations })
    }

    fn cited(&self, row: &Requirement, test: bool) -> Vec<&Citation> {
        let of_table = self.citations.iter().filter(|c| c.text == RFC_9293 && c.test == test);
        of_table.filter(|c| row.is_cited_by(c)).collect()
    }

    /// What is said of a row: `done`, `deviation`, `not applicable`, `not used` or `missing`.
    fn verdict(&self, row: &Requirement) -> &'static str {
        match self.deviations.get(&row.name()).map(|d| d.verdict) {
            Some(Verdict::Deviation) => "deviation",
            Some(Verdict::NotApplicable) => "not applicable",
            Some(Verdict::NotUsed) => "not used",
            Some(Verdict::Remark) | None if self.cited(row, true).is_empty() || self.cited(row, false).is_empty() => {
                "missing"
            }
            Some(Verdict::Remark) | None => "done",
        }
    }

    /// The names of the rows that nothing is shown for.
    pub fn missing(&self) -> Vec<String> {
        self.table.iter().filter(|row| self.verdict(row) == "missing").map(Requirement::name).collect()
    }

    /// `docs/conformance.md`.
    pub fn markdown(&self) -> String {
        let mut out = String::from(HEAD);
        self.summary(&mut out);
        let mut group = "";
        for row in &self.table {
            if row.group != group {
                group = &row.group;
                let _ =
                    write!(out, "\n### {group}\n\n| requirement | | verdict | code | tests |\n|---|---|---|---|---|\n");
            }
            let places = |test| places(&self.cited(row, test)).join("<br>");
            let what = format!("{} ({}, {})", row.feature, row.level, row.section);
            let _ = writeln!(
                out,
                "| {} | {what} | {} | {} | {} |",
                row.name(),
                self.verdict(row),
                places(false),
                places(true)
            );
        }
        out.push_str("\n## Reasons and remarks\n\n");
        for row in &self.table {
            if let Some(deviation) = self.deviations.get(&row.name()) {
                let _ = writeln!(
                    out,
                    "* **{}** ({}; {}): {}",
                    row.name(),
                    row.feature,
                    self.verdict(row),
                    deviation.reason
                );
            }
        }
        self.others(&mut out);
        out
    }

    /// By level: an identifier is done if all of its rows are.
    fn summary(&self, out: &mut String) {
        const VERDICTS: [&str; 5] = ["done", "deviation", "not applicable", "not used", "missing"];
        let _ = write!(out, "\n| level | identifiers | {} |\n|---|---|---|---|---|---|---|\n", VERDICTS.join(" | "));
        for (kind, level) in [("MUST", "MUST"), ("SHLD", "SHOULD"), ("REC", "RECOMMENDED"), ("MAY", "MAY")] {
            let rows = || self.table.iter().filter(|r| r.id.split('-').next() == Some(kind));
            let ids: BTreeSet<_> = rows().map(|r| &r.id).collect();
            let mut counts = [0; VERDICTS.len()];
            for id in &ids {
                let worst =
                    rows().filter(|r| r.id == **id).map(|r| VERDICTS.iter().position(|v| *v == self.verdict(r)));
                counts[worst.flatten().max().unwrap_or(0)] += 1;
            }
            let counts: Vec<_> = counts.iter().map(ToString::to_string).collect();
            let _ = writeln!(out, "| {level} | {} | {} |", ids.len(), counts.join(" | "));
        }
    }

    /// The citations that are of no row: other RFCs, and the procedures of RFC 9293.
    fn others(&self, out: &mut String) {
        let mut rules: BTreeMap<(&str, Vec<u32>, &str, &str), Vec<&Citation>> = BTreeMap::new();
        for c in &self.citations {
            if c.text != RFC_9293 || !self.table.iter().any(|row| row.is_cited_by(c)) {
                let order = c.section.split('.').map(|n| n.parse().unwrap_or(0)).collect();
                rules.entry((&c.text, order, &c.section, &c.quote)).or_default().push(c);
            }
        }
        if rules.is_empty() {
            return;
        }
        out.push_str("\n## Other rules\n\nWhat is cited besides the rows of the table.\n\n");
        out.push_str("| text | rule | code | tests |\n|---|---|---|---|\n");
        for ((text, _, section, quote), cited) in rules {
            let name = text.rsplit('/').next().unwrap_or(text).trim_end_matches(".txt");
            let of = |test| places(&cited.iter().copied().filter(|c| c.test == test).collect::<Vec<_>>()).join("<br>");
            let _ =
                writeln!(out, "| {name} {section} | {} | {} | {} |", quote.replace('|', "\\|"), of(false), of(true));
        }
    }
}

const HEAD: &str = "\
# Conformance to RFC 9293

Made by `cargo run -p conformance` from the citations in the sources; `cargo test -p conformance` fails when this page is
stale, a quote is not in its RFC, or a test that is named here is none. Rows and groups are those of the RFC's appendix B;
where its table marks a level too high (MAY-5, MAY-10, MAY-11, SHLD-25), the level is that of its body. A row is done when code
and a test cite it; one without a test is missing, whatever the code does.
";

/// Where citations stand, each place once.
fn places(citations: &[&Citation]) -> Vec<String> {
    let mut places = Vec::new();
    for c in citations {
        let place = format!("`{}` {}", c.item, c.file);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Whether a citation says what its text says.
fn check(citation: &Citation, spec: &Spec, table: &[Requirement]) -> Result<()> {
    let Citation { text, section, quote, .. } = citation;
    match spec.has(section, quote) {
        None => bail!("{text} has no section {section}"),
        Some(false) => bail!("section {section} does not say {quote:?}"),
        Some(true) => {}
    }
    if text != RFC_9293 {
        return Ok(());
    }
    for label in requirements::labels(quote) {
        let rows: Vec<_> = table.iter().filter(|r| r.id == label).collect();
        ensure!(!rows.is_empty(), "{label} is not in the table");
        match &citation.feature {
            Some(part) => ensure!(rows.iter().any(|r| r.part == *part), "{label} has no part {part}"),
            None => ensure!(rows.len() == 1 || !citation.test, "a test of {label} has to name the part"),
        }
    }
    Ok(())
}

/// Every Rust source of the crates, in order.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders: Vec<_> =
        CRATES.iter().flat_map(|c| [root.join(c).join("src"), root.join(c).join("tests")]).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a source is the root of a crate or a module of the source above it, and so on up.
fn is_compiled(file: &Path) -> bool {
    let (Some(folder), Some(stem)) = (file.parent(), file.file_stem().and_then(|s| s.to_str())) else { return false };
    let folder_name = folder.file_name().and_then(|n| n.to_str()).unwrap_or("");
    let is_test = folder_name == "tests" && folder.join("../Cargo.toml").exists();
    if matches!(stem, "lib" | "main") || folder_name == "bin" || is_test {
        return true;
    }
    let (module, above) = if stem == "mod" { (folder_name, folder.parent().unwrap_or(folder)) } else { (stem, folder) };
    let candidates = [above.join("mod.rs"), above.with_extension("rs"), above.join("lib.rs"), above.join("main.rs")];
    let named = format!("#[path = \"{stem}.rs\"]");
    let siblings = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let by_path = siblings.filter(|p| fs::read_to_string(p).is_ok_and(|text| text.lines().any(|l| l.trim() == named)));
    if by_path.into_iter().any(|parent| parent != file && is_compiled(&parent)) {
        return true;
    }
    candidates.iter().any(|parent| {
        parent != file
            && fs::read_to_string(parent).is_ok_and(|text| text.lines().any(|l| declares(l, module)))
            && is_compiled(parent)
    })
}

fn declares(line: &str, module: &str) -> bool {
    let line = line.trim().strip_suffix(';').unwrap_or("");
    line.strip_suffix(module)
        .is_some_and(|before| before == "mod " || before.starts_with("pub") && before.ends_with(" mod "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn citation(section: &str, quote: &str, feature: Option<&str>, test: bool) -> Citation {
        Citation {
            text: RFC_9293.into(),
            section: section.into(),
            quote: quote.into(),
            feature: feature.map(str::to_owned),
            file: "firmware/src/x.rs".into(),
            line: 1,
            item: if test { "shows" } else { "does" }.into(),
            test,
        }
    }

    const TABLE: &str = "\
MUST-1\t\tMUST\tWindow\tUnsigned\t3.1\tOne. (MUST-1)
MUST-2\ta\tMUST\tWindow\tTwo\t3.1\tTwo. (MUST-2)
MUST-2\tb\tMUST\tWindow\tTwo\t3.1\tTwo. (MUST-2)
MUST-3\t\tMUST\tOther\tThree\t3.1\tThree has no label.
MAY-1\t\tMAY\tOther\tFour\t3.1\tFour. (MAY-1)";

    fn report(citations: Vec<Citation>) -> Report {
        let table = requirements::table(TABLE).unwrap();
        let deviations = "[MAY-1]\nverdict = \"not-used\"\nreason = \"Why.\"";
        let deviations = requirements::deviations(deviations, &table).unwrap();
        Report { table, deviations, citations }
    }

    #[test]
    fn a_row_is_done_with_code_and_test_and_missing_with_one_of_them() {
        let both = |q, f| [citation("3.1", q, f, false), citation("3.1", q, f, true)];
        let mut citations = Vec::from(both("One. (MUST-1)", None));
        citations.extend(both("Three has no label.", None));
        citations.push(citation("3.1", "Two. (MUST-2)", None, false));
        citations.push(citation("3.1", "Two. (MUST-2)", Some("a"), true));
        let report = report(citations);
        assert_eq!(report.missing(), ["MUST-2 b"]);
        let page = report.markdown();
        assert!(page.contains("| MUST | 3 | 2 | 0 | 0 | 0 | 1 |"), "{page}");
        assert!(page.contains(
            "| MUST-1 | Unsigned (MUST, 3.1) | done | `does` firmware/src/x.rs | `shows` firmware/src/x.rs |"
        ));
        assert!(page.contains("* **MAY-1** (Four; not used): Why."));
    }

    #[test]
    fn a_citation_is_checked_against_text_and_table() {
        let spec = Spec::parse("3.1.  Head\n\n   One. (MUST-1) Two. (MUST-2) Nine. (MUST-9)\n");
        let table = requirements::table(TABLE).unwrap();
        for (quote, section, feature, test, right) in [
            ("One. (MUST-1)", "3.1", None, true, true),
            ("One. (MUST-1)", "3.2", None, true, false),
            ("Uno. (MUST-1)", "3.1", None, true, false),
            ("Two. (MUST-2)", "3.1", None, true, false),
            ("Two. (MUST-2)", "3.1", None, false, true),
            ("Two. (MUST-2)", "3.1", Some("b"), true, true),
            ("Two. (MUST-2)", "3.1", Some("c"), true, false),
            ("Nine. (MUST-9)", "3.1", None, false, false),
        ] {
            let c = citation(section, quote, feature, test);
            assert_eq!(check(&c, &spec, &table).is_ok(), right, "{c:?}");
        }
    }
}

//! `docs/differences.md`, made from the scripts' heads and from the table of known splits.

use std::fmt::Write;
use std::path::Path;

use crate::suite::{self, Trouble};
use crate::vote::KNOWN;

const HEAD: &str = "\
# Where the card and others differ

The same scripts run against the card's firmware in virtual time and against the Linux kernel over a TUN interface
(`drill/README.md`), and random cases are put to the firmware, Linux and smoltcp, which vote. This page lists every
difference that is known, and the RFC that decides it. It is made by `toe-drill differences` from the heads of `drill/scripts/*.pkt` and from
`drill/src/vote/known.rs`; tests check that it is up to date, that exactly the scripts listed here differ, and that a vote finds nothing
that is not listed.

";

/// The page.
///
/// # Errors
/// A script cannot be read.
pub fn page(scripts: &Path) -> Result<String, Trouble> {
    let mut page = HEAD.to_owned();
    let mut rows = [Vec::new(), Vec::new()];
    let mut count = 0;
    for path in suite::scripts(scripts)? {
        count += 1;
        let script = suite::load(&path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for difference in &script.head.differs {
            let rows = &mut rows[usize::from(difference.stage == "linux")];
            rows.push(format!("| `{name}` | {} |\n", difference.reason));
        }
    }
    let table = |page: &mut String, title: &str, rows: &[String]| {
        // Writing into a string cannot fail.
        let _ = writeln!(page, "## {title}\n\n| script | what it does instead, and the rule |\n|---|---|");
        page.extend(rows.iter().map(String::as_str));
        page.push('\n');
    };
    let _ = writeln!(page, "Scripts: {count}.\n");
    table(&mut page, "Scripts that Linux does not keep to", &rows[1]);
    table(&mut page, "Scripts that the card does not keep to", &rows[0]);
    page.push_str("## What the votes have found\n\n| when | who does what | what decides |\n|---|---|---|\n");
    for known in KNOWN {
        let _ = writeln!(page, "| {} | {} | {} |", known.when, known.who, known.rule);
    }
    Ok(page)
}

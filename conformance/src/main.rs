//! Writes `docs/conformance.md`, or says what is wrong with the citations.

use std::path::Path;

use anyhow::Result;
use conformance::report::Report;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let report = Report::of(&root)?;
    std::fs::write(root.join("docs/conformance.md"), report.markdown())?;
    println!("missing: {}", report.missing().join(", "));
    Ok(())
}

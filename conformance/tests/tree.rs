//! This tree's citations are right, and `docs/conformance.md` says what they say.

use std::path::Path;

use conformance::report::Report;

#[test]
fn every_citation_is_right_and_the_page_is_not_stale() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let report = Report::of(&root).unwrap_or_else(|e| panic!("{e:#}"));
    let page = std::fs::read_to_string(root.join("docs/conformance.md")).unwrap();
    assert!(page == report.markdown(), "docs/conformance.md is stale: cargo run -p conformance");
}

//! A seed means the same in a debug and in a release build.

use std::process::Command;

/// The last line's trace of 300 seeds, by a build of that profile.
fn trace(profile: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let run = Command::new(cargo)
        .args(["run", "--quiet", "-p", "toe-sim"])
        .args(profile)
        .args(["--", "--seeds", "300"])
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    said.rsplit("trace ").next().unwrap_or_default().trim().to_owned()
}

/// It builds the workspace's release profile, so it is not for every run: `cargo test -p toe-sim --test builds -- --ignored`.
#[test]
#[ignore = "builds the release profile"]
fn debug_and_release_builds_leave_the_same_trace() {
    let traces = [trace(&[]), trace(&["--release"])];
    assert_eq!(traces[0].len(), 16, "{traces:?}");
    assert_eq!(traces[0], traces[1]);
}

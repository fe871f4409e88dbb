//! A stranger on the wire finds nothing wrong with the card; nor with the Linux kernel, which judges the checks.

use anyhow::{Result, ensure};
use toe_guest_tests::scan::{CHECKS, Target, scan};

fn nothing_is_wrong_with(target: &Target) -> Result<()> {
    let verdicts = scan(target)?;
    let faults: Vec<_> = verdicts
        .iter()
        .filter_map(|v| v.fault.as_ref().map(|fault| format!("{} at {}: {fault}", v.check.name, v.ip)))
        .collect();
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(verdicts.len() == 2 * CHECKS.len(), "{} verdicts", verdicts.len());
    Ok(())
}

#[test]
fn the_card_passes() -> Result<()> {
    nothing_is_wrong_with(&Target::card()?)
}

#[test]
fn linux_passes() -> Result<()> {
    nothing_is_wrong_with(&Target::linux()?)
}

//! `toe run` in a guest. `scripts/programs` runs real programs, and kills a thousand.

use anyhow::{Result, ensure};
use toe_guest_tests::{Kind, Lab, LabOptions, run};

#[test]
fn socket_calls_are_the_kernels() -> Result<()> {
    Lab::run(LabOptions::new("run-calls", Kind::UserMode), |lab| {
        let rows = run::calls(lab)?;
        let different: Vec<_> = rows.iter().filter(|row| !row.is_equal()).collect();
        lab.step(&format!("{} of {} rows are equal", rows.len() - different.len(), rows.len()));
        ensure!(rows.len() >= 60, "only {} rows", rows.len());
        ensure!(different.len() * 20 <= rows.len(), "more than one in twenty differs: {different:#?}");
        Ok(())
    })
}

#[test]
fn statuses_errors_and_the_policy() -> Result<()> {
    Lab::run(LabOptions::new("run-commands", Kind::UserMode), |lab| run::commands(lab))
}

#[test]
fn what_does_not_fit_on_the_card_goes_through_the_kernel() -> Result<()> {
    Lab::run(LabOptions::new("run-full", Kind::UserMode).profile("tiny"), |lab| run::full_card(lab))
}

#[test]
fn the_same_in_qemu() -> Result<()> {
    Lab::run(LabOptions::new("run-qemu", Kind::Qemu), |lab| {
        run::commands(lab)?;
        run::tables(lab)
    })
}

#[test]
fn killed_programs_and_supervisors_leave_nothing_on_the_card() -> Result<()> {
    Lab::run(LabOptions::new("run-kills", Kind::UserMode), |lab| run::kills(lab, 10, 1))
}

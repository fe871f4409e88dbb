//! User-Mode Linux: a second guest kernel, at native speed. Where it does not run, each test says so and why, and passes.

use std::io::Write;
use std::sync::OnceLock;

use anyhow::Result;
use toe_guest_tests::net::{GUEST_V4, GUEST_V6, PEER_V4, PEER_V6};
use toe_guest_tests::{Kind, Lab, LabOptions, Nic, scenarios};

const BYTES: u64 = 16 << 20;

/// A lab, unless User-Mode Linux cannot even boot here without a NIC.
fn run(name: &str, profile: &str, work: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    run_with(LabOptions::new(&format!("uml-{name}"), Kind::UserMode).profile(profile), work)
}

/// The same with other options.
fn run_with(options: LabOptions, work: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let boots = || Lab::boot(LabOptions { nic: Nic::None, ..LabOptions::new("uml-boots", Kind::UserMode) })?.finish();
    if let Some(reason) = WHY_NOT.get_or_init(|| boots().err().map(|e| format!("{e:#}"))) {
        // Not `eprintln`, which the test runner keeps to itself when a test passes.
        let name = &options.name;
        writeln!(std::io::stderr(), "skipped {name}: User-Mode Linux does not run here: {reason}")?;
        return Ok(());
    }
    Lab::run(options, work)
}

#[test]
fn boots_and_pings() -> Result<()> {
    run("ping", "default", |lab| scenarios::ping(lab))
}

#[test]
fn kernel_tcp_with_offloads() -> Result<()> {
    run("kernel", "default", |lab| {
        scenarios::kernel_tcp(lab, PEER_V4)?;
        scenarios::kernel_tcp(lab, PEER_V6)
    })
}

#[test]
fn card_connections_send_and_fetch() -> Result<()> {
    run("card", "default", |lab| {
        for peer in [PEER_V4, PEER_V6] {
            scenarios::card_send(lab, peer, BYTES)?;
            scenarios::card_fetch(lab, peer, BYTES)?;
            scenarios::half_close(lab, peer)?;
            scenarios::refused(lab, peer)?;
        }
        Ok(())
    })
}

#[test]
fn long_frames_to_the_card_and_short_ones_to_the_wire() -> Result<()> {
    run_with(LabOptions::new("uml-long-frames", Kind::UserMode).long_frames(), |lab| {
        scenarios::long_frames(lab)?;
        scenarios::card_accept(lab, GUEST_V4, BYTES)?;
        scenarios::card_accept(lab, GUEST_V6, BYTES)
    })
}

#[test]
fn card_listener_accepts() -> Result<()> {
    run("accept", "default", |lab| {
        scenarios::card_accept(lab, GUEST_V4, BYTES)?;
        scenarios::card_accept(lab, GUEST_V6, BYTES)
    })
}

#[test]
fn card_kernel_and_ping_at_once() -> Result<()> {
    run("at-once", "default", |lab| scenarios::all_at_once(lab))
}

#[test]
fn tiny_card_falls_back() -> Result<()> {
    run("tiny", "tiny", |lab| scenarios::fall_back(lab).map(drop))
}

#[test]
fn full_card_that_denies_tells_at_once() -> Result<()> {
    run("deny", "w5500", scenarios::deny)
}

#[test]
fn hostile_guest_harms_nobody_else() -> Result<()> {
    run("hostile", "default", |lab| scenarios::hostile(lab, 20_000, 2))
}

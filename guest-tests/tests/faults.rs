//! A card with faults under a real guest: Debian's kernel in QEMU, Debian's sshd, nginx and curl on the card. A guest goes
//! through all of it without a reboot. `scripts/faults --guest` runs it: it takes minutes, and unpacks what the guest runs.

use std::time::Duration;

use anyhow::Result;
use toe_guest_tests::faults::{self, Services};
use toe_guest_tests::{Kind, Lab, LabOptions, exhaustion};

fn run(name: &str, kind: Kind, work: impl FnOnce(&mut Lab, &Services) -> Result<()>) -> Result<()> {
    let limit = Duration::from_secs(1200);
    let options = LabOptions { services: true, limit, ..LabOptions::new(&format!("faults-{name}"), kind) };
    Lab::run(exhaustion::with_profile(options)?, |lab| {
        let services = Services::start(lab)?;
        work(lab, &services)
    })
}

/// Faults of the device.
fn device(lab: &mut Lab, services: &Services) -> Result<()> {
    faults::lost_doorbells(lab, services)?;
    faults::lost_interrupts(lab, services)?;
    faults::bad_copies(lab, services)?;
    if lab.guest()?.kind() == Kind::Qemu {
        faults::flapping_link(lab, services)?;
    }
    Ok(())
}

/// Faults of the firmware and the process that it runs in.
fn firmware(lab: &mut Lab, services: &Services) -> Result<()> {
    faults::slow_processor(lab, services)?;
    faults::stopped_processor(lab, services, "hang", false)?;
    faults::stopped_processor(lab, services, "crash", false)?;
    faults::stopped_processor(lab, services, "crash-kept", true)?;
    if lab.guest()?.kind() == Kind::Qemu {
        // User-Mode Linux does not connect to a second backend: its device is gone with the first.
        faults::killed_backend(lab, services)?;
    }
    Ok(())
}

#[test]
#[ignore = "minutes: scripts/faults --guest"]
fn a_guest_survives_the_devices_faults_without_a_reboot() -> Result<()> {
    run("device", Kind::Qemu, |lab, services| {
        device(lab, services)?;
        // The last: its driver is bound anew.
        faults::corrupted_ring(lab, services)
    })
}

#[test]
#[ignore = "minutes: scripts/faults --guest"]
fn a_guest_survives_the_firmwares_faults_without_a_reboot() -> Result<()> {
    run("firmware", Kind::Qemu, firmware)
}

#[test]
#[ignore = "minutes: scripts/faults --guest"]
fn a_guest_survives_every_pool_exhausted_without_a_reboot() -> Result<()> {
    run("pools", Kind::Qemu, exhaustion::exhausted_pools)
}

#[test]
#[ignore = "needs what scripts/faults --guest unpacks"]
fn user_mode_linux_survives_the_firmwares_faults() -> Result<()> {
    run("uml-firmware", Kind::UserMode, firmware)
}

#[test]
#[ignore = "needs what scripts/faults --guest unpacks"]
fn user_mode_linux_survives_the_devices_faults() -> Result<()> {
    run("uml", Kind::UserMode, device)
}

#[test]
#[ignore = "needs what scripts/faults --guest unpacks"]
fn user_mode_linux_survives_every_pool_exhausted() -> Result<()> {
    run("uml-pools", Kind::UserMode, exhaustion::exhausted_pools)
}

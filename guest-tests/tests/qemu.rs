//! QEMU.
use toe_guest_tests::*;

#[test]
fn harness_without_the_card() -> anyhow::Result<()> {
    let mut o = LabOptions::new("plain", Kind::Qemu);
    o.nic = Nic::QemuOwn;
    let lab = Lab::boot(o)?;
    scenarios::ping(&lab)?;
    scenarios::kernel_tcp(&lab, net::PEER_V4)?;
    scenarios::kernel_tcp(&lab, net::PEER_V6)?;
    lab.finish()
}

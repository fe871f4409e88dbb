//! QEMU.
use toe_guest_tests::*;

#[test]
fn harness_without_the_card() -> anyhow::Result<()> {
    let mut o = LabOptions::new("plain", Kind::Qemu);
    o.nic = Nic::QemuOwn;
    let lab = Lab::boot(o)?;
    let g = lab.guest()?;
    lab.step(&g.check("uname -a; ip addr; ping -c 3 192.0.2.1; ping6 -c 2 2001:db8:1::1")?);
    lab.finish()
}

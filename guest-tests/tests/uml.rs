//! UML.
use toe_guest_tests::*;

#[test]
fn uml_boots() -> anyhow::Result<()> {
    let mut o = LabOptions::new("plain-uml", Kind::UserMode);
    o.nic = Nic::QemuOwn;
    let lab = Lab::boot(o)?;
    let g = lab.guest()?;
    lab.step(&g.check("uname -a; ip addr; cat /proc/modules;dmesg|tail -20; exit 0")?);
    lab.finish()
}

//! KVM if it works, TCG otherwise.
//!
//! `/dev/kvm` may exist and still run no ordinary kernel (a nested hypervisor), so the guest's own kernel is booted on
//! it once per boot of the host, with a short time limit. `TOE_ACCEL=kvm` or `tcg` decides without trying.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use crate::host::target;
use crate::machine::Machine;
use crate::{Initramfs, Kernel, Namespace};

/// How QEMU runs the guest's instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accelerator {
    /// On the processor.
    Kvm,
    /// By translation: ten times and more slower, works everywhere.
    Tcg,
}

impl Accelerator {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "kvm" => Some(Self::Kvm),
            "tcg" => Some(Self::Tcg),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What works here. The answer is kept for as long as the host runs.
pub fn get() -> Result<Accelerator> {
    static ANSWER: OnceLock<std::result::Result<Accelerator, String>> = OnceLock::new();
    ANSWER.get_or_init(|| find().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!("{e}"))
}

fn find() -> Result<Accelerator> {
    if let Ok(name) = std::env::var("TOE_ACCEL") {
        let Some(accelerator) = Accelerator::parse(&name) else { bail!("TOE_ACCEL is {name}; allowed: kvm, tcg") };
        return Ok(accelerator);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let kept = target().join("guest-images").join(format!("accelerator-{}", boot.trim()));
    let known = std::fs::read_to_string(&kept).ok().and_then(|name| Accelerator::parse(name.trim()));
    if let Some(accelerator) = known {
        return Ok(accelerator);
    }
    let accelerator = if Path::new("/dev/kvm").exists() && kvm_boots() { Accelerator::Kvm } else { Accelerator::Tcg };
    std::fs::create_dir_all(target().join("guest-images"))?;
    std::fs::write(kept, accelerator.as_str())?;
    Ok(accelerator)
}

fn kvm_boots() -> bool {
    let boot = || -> Result<()> {
        let namespace = Namespace::new()?;
        let initramfs = Initramfs::new(&Kernel::debian_cloud()?, None)?.write()?;
        let directory = tempfile::tempdir()?;
        let (_machine, mut console) = Machine::probe(Accelerator::Kvm, &namespace, initramfs, directory.path())?;
        console.wait_ready(Duration::from_secs(8))
    };
    match boot() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("/dev/kvm does not run the guest's kernel here ({error:#}); QEMU translates instead");
            false
        }
    }
}

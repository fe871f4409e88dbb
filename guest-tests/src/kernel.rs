//! The guests' kernels: Debian's cloud kernel as `scripts/fetch-kernel` unpacked it, and the package
//! `user-mode-linux`. Neither is changed, neither is installed by this crate.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::host;

/// A kernel and the modules that an initramfs must load, in this order.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What the machine starts.
    pub image: PathBuf,
    /// Files of the modules, in the order of their dependencies.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    /// Debian's cloud kernel: virtio over PCI. AF_PACKET and IPv6 are built in.
    ///
    /// # Errors
    /// If it was not fetched.
    pub fn debian_cloud() -> Result<Self> {
        let directory = host::cache().join("kernel");
        let image = newest(&directory.join("boot"), "vmlinuz-")
            .ok_or_else(|| anyhow!("no guest kernel in {}: run scripts/fetch-kernel", directory.display()))?;
        Self::with_modules(
            image,
            &directory.join("lib/modules"),
            &[
                "drivers/virtio/virtio_ring",
                "drivers/virtio/virtio",
                "drivers/virtio/virtio_pci_legacy_dev",
                "drivers/virtio/virtio_pci_modern_dev",
                "drivers/virtio/virtio_pci",
                "net/core/failover",
                "drivers/net/net_failover",
                "drivers/net/virtio_net",
                // What `toe ss` asks about the kernel's own connections.
                "net/ipv4/inet_diag",
                "net/ipv4/tcp_diag",
            ],
        )
    }

    /// User-Mode Linux: virtio, the vhost-user frontend and tcp_diag are built in.
    ///
    /// # Errors
    /// If the package is not installed.
    pub fn user_mode() -> Result<Self> {
        let image = host::tool("linux.uml", "user-mode-linux")?;
        Self::with_modules(
            image,
            Path::new("/usr/lib/uml/modules"),
            &[
                "net/core/failover",
                "drivers/net/net_failover",
                "drivers/net/virtio_net",
                "lib/crc-ccitt",
                "net/ipv6/ipv6",
            ],
        )
    }

    fn with_modules(image: PathBuf, directory: &Path, names: &[&str]) -> Result<Self> {
        let release = newest(directory, "").ok_or_else(|| anyhow!("no kernel modules in {}", directory.display()))?;
        let find = |name: &&str| {
            ["ko", "ko.xz"]
                .map(|extension| release.join("kernel").join(format!("{name}.{extension}")))
                .into_iter()
                .find(|path| path.is_file())
                .with_context(|| format!("no module {name} in {}", release.display()))
        };
        Ok(Self { image, modules: names.iter().map(find).collect::<Result<_>>()? })
    }
}

/// The entry of a directory whose name begins with `prefix` and comes last.
fn newest(directory: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path()).max()
}

//! The guest's root file system: a cpio archive with busybox, the kernel's modules, the workspace's programs and
//! the shared libraries that they need.
//!
//! Built in about 100 ms and kept under the name of its content's hash, so that a changed program or kernel is
//! never missed. Those that were last used a day ago are deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cpio::newc::ModeFileType;

use crate::bytes::Sum;
use crate::host::{self, run, target, tool};
use crate::{Kernel, Programs};

/// What the guest runs first.
const INIT: &str = include_str!("../guest/init.sh");

/// How long an archive that is not used stays.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Files by their path in the guest, without the leading slash.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    files: BTreeMap<String, File>,
}

#[derive(Clone, Debug)]
struct File {
    data: Vec<u8>,
    executable: bool,
}

impl Initramfs {
    /// What every guest has. `programs` may be `None` for a guest that only has to boot.
    ///
    /// # Errors
    /// If a file is missing, or a tool that reads it.
    pub fn new(kernel: &Kernel, programs: Option<&Programs>) -> Result<Self> {
        let mut new = Self::default();
        new.add("init", INIT.as_bytes().to_vec(), true);
        let busybox = tool("busybox", "busybox-static")?;
        ensure!(libraries(&busybox)?.is_empty(), "busybox is not the static one: apt-get install busybox-static");
        new.add_file("bin/busybox", &busybox)?;
        let mut order = String::new();
        for module in &kernel.modules {
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (name, data) = match name.strip_suffix(".xz") {
                Some(name) => (name.to_owned(), decompress(module)?),
                None => (name, std::fs::read(module)?),
            };
            order.push_str(&format!("{name}\n"));
            new.add(&format!("modules/{name}"), data, false);
        }
        new.add("modules/order", order.into_bytes(), false);
        if let Some(Programs { toe, toe_peer, toe_calls, .. }) = programs {
            new.add_program(toe)?;
            new.add_program(toe_peer)?;
            new.add_program(toe_calls)?;
        }
        Ok(new)
    }

    /// Adds a file.
    pub fn add(&mut self, path: &str, data: Vec<u8>, executable: bool) {
        self.files.insert(path.to_owned(), File { data, executable });
    }

    fn add_file(&mut self, path: &str, from: &Path) -> Result<()> {
        let data = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(path, data, true);
        Ok(())
    }

    /// Adds a program of the host to `/bin`, without its debugging symbols and with the libraries that it needs.
    ///
    /// # Errors
    /// If it is missing, or not for this machine.
    pub fn add_program(&mut self, program: &Path) -> Result<()> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let stripped = tempfile::NamedTempFile::new()?;
        let [from, to] = [program, stripped.path()].map(|path| path.as_os_str());
        run(tool("strip", "binutils")?, ["-o".as_ref(), to, from])?;
        self.add_file(&format!("bin/{name}"), stripped.path())?;
        for library in libraries(program)? {
            let path = library.to_string_lossy();
            self.add_file(path.trim_start_matches('/'), &library)?;
        }
        Ok(())
    }

    /// Adds Debian's nginx, sshd and curl as `scripts/faults` has unpacked them, the accounts that they want, and keys.
    ///
    /// # Errors
    /// If they were not unpacked.
    pub fn add_services(&mut self) -> Result<()> {
        let root = host::cache().join("services");
        ensure!(root.join("usr/sbin/nginx").exists(), "no nginx in {}: run scripts/faults --guest", root.display());
        for program in ["usr/sbin/nginx", "usr/sbin/sshd", "usr/bin/curl"] {
            self.add_of(&root, program)?;
        }
        for key in ["host", "user.pub"] {
            let from = root.join("keys").join(key);
            self.add(&format!("keys/{key}"), std::fs::read(&from).with_context(|| from.display().to_string())?, false);
        }
        let accounts = "root:x:0:0:root:/tmp:/bin/sh\nsshd:x:100:65534::/run/sshd:/sbin/nologin\n\
                        nobody:x:65534:65534:nobody:/:/sbin/nologin\n";
        self.add("etc/passwd", accounts.as_bytes().to_vec(), false);
        self.add("etc/shadow", b"root:*:1::::::\n".to_vec(), false);
        self.add("etc/group", b"root:x:0:\nnogroup:x:65534:\n".to_vec(), false);
        Ok(())
    }

    /// Adds a program of an unpacked Debian, with the libraries that it has there.
    fn add_of(&mut self, root: &Path, program: &str) -> Result<()> {
        let directories = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|path| root.join(path));
        let loader = directories[0].join("ld-linux-x86-64.so.2");
        let path = directories.map(|path| path.display().to_string()).join(":");
        let from = root.join(program);
        let arguments = ["--library-path".as_ref(), path.as_ref(), "--list".as_ref(), from.as_os_str()];
        let listed = run(&loader, arguments)?;
        let prefix = format!("{}/", root.display());
        let found = listed.split_whitespace().filter_map(|word| word.strip_prefix(&prefix));
        for path in found.chain([program]) {
            // The host's own, which its programs need, stay: both are Debian's.
            if !self.files.contains_key(path) {
                self.add_file(path, &root.join(path))?;
            }
        }
        Ok(())
    }

    /// The archive's file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self) -> Result<PathBuf> {
        let archive = self.archive()?;
        let directory = target().join("guest-images");
        std::fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{}.cpio", &Sum::of(&mut &archive[..])?.sha256[..16]));
        // Written aside and moved, so that nobody ever sees half of it.
        let mut whole = tempfile::NamedTempFile::new_in(&directory)?;
        std::io::Write::write_all(&mut whole, &archive)?;
        whole.persist(&path)?;
        for entry in std::fs::read_dir(&directory)?.flatten() {
            let is_archive = entry.path().extension() == Some("cpio".as_ref());
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if is_archive && age > KEPT {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(path)
    }

    fn archive(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut inode = 0;
        let mut entry = |path: &str, kind: ModeFileType, mode: u32, data: &[u8], out: &mut Vec<u8>| -> Result<()> {
            inode += 1;
            let mut header = cpio::NewcBuilder::new(path).ino(inode).nlink(1).mode(mode);
            if matches!(kind, ModeFileType::Char) {
                header = header.rdev_major(5).rdev_minor(1);
            }
            let header = header.set_mode_file_type(kind);
            let mut writer = header.write(&mut *out, data.len().try_into()?);
            std::io::Write::write_all(&mut writer, data)?;
            writer.finish()?;
            Ok(())
        };
        let mut directories: BTreeSet<&str> = ["dev", "proc", "sys", "tmp", "etc", "sbin"].into();
        for path in self.files.keys() {
            directories.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
        }
        for directory in directories {
            entry(directory, ModeFileType::Directory, 0o755, &[], &mut out)?;
        }
        // The kernel opens it for init's standard streams before anything could be mounted.
        entry("dev/console", ModeFileType::Char, 0o600, &[], &mut out)?;
        for (path, File { data, executable }) in &self.files {
            let mode = if *executable { 0o755 } else { 0o644 };
            entry(path, ModeFileType::Regular, mode, data, &mut out)?;
        }
        cpio::newc::trailer(&mut out)?;
        Ok(out)
    }
}

/// The files that the dynamic loader would load for `program`; none if it is static.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // `ldd` fails for a static program, and says so in words only.
    let output = std::process::Command::new(tool("ldd", "libc-bin")?).arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn decompress(module: &Path) -> Result<Vec<u8>> {
    let output = std::process::Command::new(tool("busybox", "busybox-static")?).arg("xzcat").arg(module).output()?;
    ensure!(output.status.success(), "cannot decompress {}", module.display());
    Ok(output.stdout)
}

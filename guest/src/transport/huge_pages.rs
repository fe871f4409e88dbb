//! Memory that the card reaches by its physical address: huge pages of the guest's kernel.
//!
//! A huge page is one piece of physical memory that the kernel neither swaps out nor moves about by itself, and its physical address
//! is what the virtio device's buffers are addressed by. Each page is a file of its own in hugetlbfs, so that it outlives its
//! program: of one that was killed the card does not know for a lease, and may write into its rings all that time. A file
//! is locked as long as somebody has its page, and its mode says whether a card may know any ring in it ([`Use`]). The next program that looks
//! for a page removes files without a lock: at once, or, where a card may know them, when none can have anything to do with
//! them any more. That is [`ORPHAN_S`] after they were first found, which their new names say.
//!
//! What it takes: a kernel with huge pages (`vm.nr_hugepages`), hugetlbfs mounted anywhere, and CAP_SYS_ADMIN, without which the
//! kernel tells nobody a physical address. Whoever has that can read all of the guest's memory anyway.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, fstatvfs};
use rustix::time::{ClockId, clock_gettime};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MmapRegion, VolatileMemory,
};

/// A file without an owner is kept so many seconds: several times the lease that a context asks for.
const ORPHAN_S: u64 = 60;
/// So many names are tried for a file.
const NAMES_MAX: u32 = 1000;
const OWNED: &str = "toe-ring-";
const ORPHANED: &str = "toe-ring-until-";

/// One huge page, and the file that holds it.
#[derive(Debug)]
pub(super) struct HugePage {
    pub(super) memory: GuestMemoryMmap,
    /// Its physical address.
    pub(super) address: u64,
    pub(super) bytes: u64,
    path: PathBuf,
    /// Its lock says that the page is somebody's.
    file: File,
}

/// Who may look into a page, as its file's mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Its program alone.
    Own = 0o600,
    /// A card as well.
    Lent = 0o700,
}

impl HugePage {
    /// One that is free.
    ///
    /// # Errors
    /// No hugetlbfs, no page free, no permission to know its address.
    pub(super) fn take() -> io::Result<Self> {
        let directory = mounted(&fs::read_to_string("/proc/self/mounts")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no hugetlbfs is mounted"))?;
        remove_orphans(&directory, seconds())?;
        Self::in_directory(&directory, physical_address)
    }

    /// A page of a file system, whose block is a page, and which `locate` finds.
    fn in_directory(directory: &Path, locate: impl FnOnce(u64) -> io::Result<u64>) -> io::Result<Self> {
        let (path, file) = new_file(directory)?;
        let page = Self::map(path.clone(), file, locate);
        if page.is_err() {
            // What was never named to a card.
            let _ = fs::remove_file(&path);
        }
        page
    }

    fn map(path: PathBuf, file: File, locate: impl FnOnce(u64) -> io::Result<u64>) -> io::Result<Self> {
        let bytes = fstatvfs(&file)?.f_bsize;
        // Taken now: a page that is not there would be a SIGBUS when it is first touched.
        fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        let size = usize::try_from(bytes).map_err(io::Error::other)?;
        let region = MmapRegion::from_file(FileOffset::new(file.try_clone()?, 0), size).map_err(io::Error::other)?;
        // It is mapped when it is touched, and has an address from then on.
        region.get_ref::<u8>(0).map_err(io::Error::other)?.store(0);
        let address = locate(region.as_ptr() as u64)?;
        let region = vm_memory::GuestRegionMmap::new(region, GuestAddress(address))
            .ok_or_else(|| io::Error::other("a physical address beyond the end of memory"))?;
        debug_assert_eq!(region.len(), bytes);
        let memory = GuestMemoryMmap::from_regions(vec![region]).map_err(io::Error::other)?;
        debug_assert_eq!(memory.num_regions(), 1);
        Ok(Self { memory, address, bytes, path, file })
    }

    /// Notes it for whoever finds the file. It cannot fail for a file of our own.
    pub(super) fn mark(&self, by: Use) {
        if let Err(e) = self.file.set_permissions(fs::Permissions::from_mode(by as u32)) {
            log::debug!("{}: {e}", self.path.display());
        }
    }
}

/// Where a hugetlbfs is mounted, by the lines of /proc/self/mounts.
fn mounted(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        (kind == "hugetlbfs").then(|| PathBuf::from(at))
    })
}

/// A file that nobody else has, locked.
fn new_file(directory: &Path) -> io::Result<(PathBuf, File)> {
    for n in 0..NAMES_MAX {
        let path = directory.join(format!("{OWNED}{}-{n}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).mode(Use::Own as u32).open(&path) {
            Ok(file) => {
                flock(&file, FlockOperation::LockExclusive)?;
                // Somebody may have seen it before it was locked, and taken it for an orphan.
                if fs::metadata(&path).is_ok_and(|m| file.metadata().is_ok_and(|f| f.ino() == m.ino())) {
                    return Ok((path, file));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{NAMES_MAX} files in {}", directory.display())))
}

/// Files that nobody has any more are removed, or get a time for it.
fn remove_orphans(directory: &Path, now_s: u64) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with(OWNED)) else {
            continue;
        };
        // Another program may be about the same.
        let Ok(file) = File::open(&path) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let is_lent = file.metadata().map_or(true, |m| m.mode() & 0o777 != Use::Own as u32);
        let until = name.strip_prefix(ORPHANED).map(|until| until.split('-').next().and_then(|s| s.parse().ok()));
        let done = match until {
            _ if !is_lent => fs::remove_file(&path),
            // A name that is none of ours says nothing.
            Some(until) if until.is_none_or(|until: u64| until > now_s) => Ok(()),
            Some(_) => fs::remove_file(&path),
            None => {
                let until = now_s + ORPHAN_S;
                fs::rename(&path, directory.join(format!("{ORPHANED}{until}-{}", &name[OWNED.len()..])))
            }
        };
        if let Err(e) = done {
            log::debug!("{}: {e}", path.display());
        }
    }
    Ok(())
}

/// Seconds since the machine was started, for which hugetlbfs remembers anything.
fn seconds() -> u64 {
    clock_gettime(ClockId::Boottime).tv_sec.cast_unsigned()
}

/// The physical address of a mapped address of this process.
fn physical_address(address: u64) -> io::Result<u64> {
    const PAGE_BYTES: u64 = 4096;
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let mut entry = [0; 8];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, address / PAGE_BYTES * 8)?;
    let entry = u64::from_ne_bytes(entry);
    match entry & FRAME {
        _ if entry & PRESENT == 0 => Err(io::Error::other("the page is not in memory")),
        0 => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "physical addresses are told with CAP_SYS_ADMIN alone"))
        }
        frame => Ok(frame * PAGE_BYTES),
    }
}

/// How long the next try waits after one that found no page.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own, removed when dropped.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("toe-huge-pages-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn hugetlbfs_is_found_among_the_mounts() {
        let mounts = "tmpfs /tmp tmpfs rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n";
        assert_eq!(mounted(mounts), Some("/dev/hugepages".into()));
        assert_eq!(mounted("hugetlbfs /tmp tmpfs rw 0 0\nx"), None);
    }

    #[test]
    fn a_page_is_where_it_was_found_and_its_file_is_locked() {
        let directory = Directory::new("place");
        let page = HugePage::in_directory(&directory.0, |_| Ok(0x4000_0000)).unwrap();
        assert_eq!(page.memory.find_region(GuestAddress(0x4000_0000)).unwrap().len(), page.bytes);
        remove_orphans(&directory.0, 5).unwrap();
        assert_eq!(directory.names(), [format!("{OWNED}{}-0", std::process::id())], "it is nobody's");
        drop(page);
        remove_orphans(&directory.0, 5).unwrap();
        assert_eq!(directory.names(), [""; 0]);
    }

    #[test]
    fn a_page_whose_address_is_not_told_is_given_back() {
        let directory = Directory::new("refused");
        let refused = HugePage::in_directory(&directory.0, |_| Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(directory.names(), [""; 0]);
    }

    #[test]
    fn what_a_killed_program_leaves_stays_until_no_card_can_use_it() {
        let directory = Directory::new("orphans");
        let page = HugePage::in_directory(&directory.0, |_| Ok(0x4000_0000)).unwrap();
        page.mark(Use::Lent);
        drop(page);
        let strange = directory.0.join("toe-ring-until-never");
        fs::write(&strange, "").unwrap();
        fs::set_permissions(&strange, fs::Permissions::from_mode(Use::Lent as u32)).unwrap();
        fs::write(directory.0.join("somebody-else's"), "").unwrap();
        let orphan = format!("{ORPHANED}{}-{}-0", 100 + ORPHAN_S, std::process::id());
        for now in [100, 101, 99 + ORPHAN_S] {
            remove_orphans(&directory.0, now).unwrap();
            assert!(directory.names().contains(&orphan), "{:?} at {now}", directory.names());
        }
        // Not while somebody has it, whatever its name says.
        let file = File::open(directory.0.join(&orphan)).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        remove_orphans(&directory.0, 100 + ORPHAN_S).unwrap();
        assert!(directory.names().contains(&orphan));
        drop(file);
        remove_orphans(&directory.0, 100 + ORPHAN_S).unwrap();
        assert_eq!(directory.names(), ["somebody-else's", "toe-ring-until-never"]);
    }

    #[test]
    fn an_address_is_told_or_refused() {
        let byte = Box::new(7u8);
        match physical_address(std::ptr::from_ref(&*byte) as u64) {
            Ok(address) => assert!(address > 0),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::PermissionDenied, "{e}"),
        }
        // Nothing is mapped there.
        assert!(physical_address(0x1000).is_err());
    }
}

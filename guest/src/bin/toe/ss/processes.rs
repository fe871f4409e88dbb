//! Which process has which of the kernel's sockets, from `/proc`.

use std::collections::HashMap;
use std::fs;

use super::Owner;

/// By inode, who has it. Processes that may not be looked into, or end meanwhile, are left out.
pub fn owners() -> HashMap<u32, Vec<Owner>> {
    let mut owners: HashMap<_, Vec<_>> = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let number = descriptor.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(inode), Some(number)) = (inode, number) {
                let owner = Owner { name: name.trim_end().to_owned(), pid, descriptor: Some(number) };
                owners.entry(inode).or_default().push(owner);
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn our_own_socket_is_ours() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let here = socket.local_addr().unwrap();
        let inode = toe_guest::kernel_sockets().unwrap().into_iter().find(|s| s.local == here).unwrap().inode;
        let all = owners();
        let ours = all[&inode].iter().find(|owner| owner.pid == std::process::id()).unwrap();
        assert_eq!(ours.descriptor, Some(socket.as_raw_fd() as u32));
        assert!(!ours.name.is_empty());
    }
}

//! Which system calls of a program are told to the supervisor: those that open, accept and describe TCP connections.
//!
//! A classic BPF program over `struct seccomp_data`. Calls that carry data, wait or duplicate are not in it and run at the
//! kernel's own speed; so do options that the card does not know. A call for another architecture (a 32-bit program) is
//! let through: what it opens is the kernel's.

use libc::{c_long, sock_filter};

/// What the filter returns for a call that is told, and for one that is not.
const NOTIFY: u32 = 0x7fc0_0000;
const ALLOW: u32 = 0x7fff_0000;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Told whatever their arguments are.
const CALLS: &[c_long] = &[
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
];

/// Level and names of the options that are told when they are set: those that the card is told of, and those that it cannot
/// do. Of a socket whose options were never set nobody has to ask for them.
const SET: &[(i32, &[i32])] = &[
    (libc::SOL_SOCKET, &[libc::SO_KEEPALIVE, libc::SO_MARK, libc::SO_BINDTODEVICE, libc::SO_BINDTOIFINDEX]),
    (
        libc::IPPROTO_TCP,
        &[
            libc::TCP_FASTOPEN_CONNECT,
            libc::TCP_NODELAY,
            libc::TCP_KEEPIDLE,
            libc::TCP_KEEPINTVL,
            libc::TCP_KEEPCNT,
            libc::TCP_USER_TIMEOUT,
            libc::TCP_CONGESTION,
            libc::TCP_MD5SIG,
            libc::TCP_MAXSEG,
            libc::TCP_REPAIR,
        ],
    ),
    (libc::IPPROTO_IP, &[libc::IP_TOS, libc::IP_TTL, libc::IP_TRANSPARENT]),
    (libc::IPPROTO_IPV6, &[libc::IPV6_TCLASS, libc::IPV6_UNICAST_HOPS, libc::IPV6_TRANSPARENT]),
];

/// Level and names of the options that are told when they are asked for.
const GET: &[(i32, &[i32])] = &[
    (libc::SOL_SOCKET, &[libc::SO_ERROR]),
    (libc::IPPROTO_TCP, &[libc::TCP_INFO, libc::TCP_MAXSEG, libc::TCP_CONGESTION]),
];

/// Calls that open a connection if a flag of theirs says so, and which argument holds the flags.
const WITH_FLAGS: &[(c_long, u32)] = &[(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2)];

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// The offset of an argument's low word in `struct seccomp_data` (little-endian).
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

fn step(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// If the word at hand is `k`: returns NOTIFY.
fn notify_if(out: &mut Vec<sock_filter>, jump: u16, k: u32) {
    out.push(step(jump, k, 0, 1));
    out.push(step(RETURN, NOTIFY, 0, 0));
}

/// `block` runs only if the word at hand is `k`; it never runs past its end.
fn only_if(out: &mut Vec<sock_filter>, k: u32, block: Vec<sock_filter>) {
    let skip = u8::try_from(block.len()).unwrap_or_else(|_| panic!("a block of {} steps", block.len()));
    out.push(step(JUMP_EQUAL, k, 0, skip));
    out.extend(block);
}

fn options(table: &[(i32, &[i32])]) -> Vec<sock_filter> {
    let mut block = vec![step(LOAD, argument(1), 0, 0)];
    for (level, names) in table {
        let mut of_level = vec![step(LOAD, argument(2), 0, 0)];
        for name in *names {
            notify_if(&mut of_level, JUMP_EQUAL, name.cast_unsigned());
        }
        of_level.push(step(RETURN, ALLOW, 0, 0));
        only_if(&mut block, level.cast_unsigned(), of_level);
    }
    block.push(step(RETURN, ALLOW, 0, 0));
    block
}

/// The filter.
pub(super) fn program() -> Vec<sock_filter> {
    let mut out =
        vec![step(LOAD, 4, 0, 0), step(JUMP_EQUAL, ARCHITECTURE, 1, 0), step(RETURN, ALLOW, 0, 0), step(LOAD, 0, 0, 0)];
    for call in CALLS {
        notify_if(&mut out, JUMP_EQUAL, *call as u32);
    }
    for (call, table) in [(libc::SYS_setsockopt, SET), (libc::SYS_getsockopt, GET)] {
        only_if(&mut out, call as u32, options(table));
    }
    for (call, flags) in WITH_FLAGS {
        let mut block = vec![step(LOAD, argument(*flags), 0, 0)];
        notify_if(&mut block, JUMP_ANY_BIT, libc::MSG_FASTOPEN.cast_unsigned());
        block.push(step(RETURN, ALLOW, 0, 0));
        only_if(&mut out, *call as u32, block);
    }
    out.push(step(RETURN, ALLOW, 0, 0));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's interpreter would say.
    fn run(program: &[sock_filter], arch: u32, call: c_long, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend((call as u32).to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|a| a.to_le_bytes()));
        let (mut at, mut word) = (0, 0);
        loop {
            let s = program[at];
            at += 1;
            let jump = |yes: bool| usize::from(if yes { s.jt } else { s.jf });
            match s.code {
                LOAD => word = u32::from_le_bytes(data[s.k as usize..][..4].try_into().unwrap()),
                JUMP_EQUAL => at += jump(word == s.k),
                JUMP_ANY_BIT => at += jump(word & s.k != 0),
                RETURN => return s.k,
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn calls_of_connections_are_told_and_no_call_of_data_is() {
        let p = program();
        let told = |call, arguments| run(&p, ARCHITECTURE, call, arguments) == NOTIFY;
        for call in CALLS {
            assert!(told(*call, [0; 6]));
        }
        for call in [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_sendto,
            libc::SYS_recvfrom,
            libc::SYS_sendmsg,
            libc::SYS_epoll_wait,
            libc::SYS_sendfile,
            libc::SYS_splice,
            libc::SYS_close,
            libc::SYS_socket,
            libc::SYS_dup2,
        ] {
            assert!(!told(call, [0; 6]), "{call}");
        }
        let fast_open = libc::MSG_FASTOPEN as u64;
        assert!(told(libc::SYS_sendto, [0, 0, 0, fast_open | 0x4000, 0, 0]));
        assert!(!told(libc::SYS_sendto, [0, 0, 0, 0x4000, 0, 0]));
        assert!(told(libc::SYS_sendmsg, [0, 0, fast_open, 0, 0, 0]));
    }

    #[test]
    fn only_options_that_the_card_must_know_are_told() {
        let p = program();
        for (call, table) in [(libc::SYS_setsockopt, SET), (libc::SYS_getsockopt, GET)] {
            for level in [libc::SOL_SOCKET, libc::IPPROTO_IP, libc::IPPROTO_TCP, libc::IPPROTO_IPV6, 999] {
                for name in 0..100 {
                    let listed = table.iter().any(|(l, names)| *l == level && names.contains(&name));
                    let arguments = [3, level as u64, name as u64, 0, 0, 0];
                    let told = run(&p, ARCHITECTURE, call, arguments) == NOTIFY;
                    assert_eq!(told, listed, "call {call}, level {level}, option {name}");
                }
            }
        }
    }

    #[test]
    fn programs_of_another_architecture_are_left_alone() {
        assert_eq!(run(&program(), 0x4000_0003, libc::SYS_connect, [0; 6]), ALLOW);
    }
}

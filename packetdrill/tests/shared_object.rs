//! The shared object as it is built, loaded as packetdrill loads it.

mod script;

use std::ffi::{CString, c_void};

use script::{Peer, Stack, limited};
use toe_packetdrill::TcpInfo;

type GetSockOpt = unsafe extern "C" fn(i32, i32, i32, *mut c_void, *mut libc::socklen_t) -> i32;

fn symbol(handle: *mut c_void, name: &std::ffi::CStr) -> *mut c_void {
    // SAFETY: an open handle and a C string.
    let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
    assert!(!symbol.is_null(), "{name:?} is not exported");
    symbol
}

/// TCP_INFO by the C library's way of asking.
fn tcp_info(getsockopt: GetSockOpt, fd: i32) -> TcpInfo {
    let mut info = TcpInfo::default();
    let mut length = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: room for as many bytes as `length` says.
    let result = unsafe { getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length) };
    assert_eq!((result, length as usize), (0, size_of::<TcpInfo>()));
    info
}

/// The shared object, and two of its symbols.
fn load() -> (CString, script::Init, GetSockOpt) {
    let path = std::env::current_exe().unwrap().with_file_name("libtoe_packetdrill.so");
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a C string; what the object does when it is loaded is Rust's own.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_DEEPBIND) };
    assert!(!handle.is_null(), "{path:?} does not load");
    // SAFETY: the function of that name has this type.
    let init: script::Init = unsafe { std::mem::transmute(symbol(handle, c"packetdrill_interface_init")) };
    // SAFETY: the same.
    let getsockopt: GetSockOpt = unsafe { std::mem::transmute(symbol(handle, c"getsockopt")) };
    (path, init, getsockopt)
}

#[test]
fn it_loads_and_answers_tcp_info() {
    limited(|| {
        let (_, init, getsockopt) = load();
        let stack = Stack::with(init, "iw=7");
        let fd = stack.socket(false, libc::SOCK_NONBLOCK);
        assert_eq!(tcp_info(getsockopt, fd).state, 7, "CLOSE");
        let mut peer = Peer::new(stack, "192.0.2.1:80", "192.168.0.1:0");
        stack.connect(fd, peer.here).unwrap_err();
        assert_eq!(tcp_info(getsockopt, fd).state, 2, "SYN-SENT");
        peer.expect("S 0:0");
        stack.sleep_ms(50);
        peer.send("SA 0:0 ack 1 mss 1000");
        // Two segments; what is left waits for company (Nagle).
        stack.write(fd, &script::octets(1, 2501)).unwrap();
        let info = tcp_info(getsockopt, fd);
        assert_eq!((info.state, info.snd_mss, info.unacked, info.snd_cwnd), (1, 1000, 2, 7), "{info:?}");
        assert!((50_000..50_100).contains(&info.rtt), "{}", info.rtt);
        assert_eq!((info.bytes_acked, info.notsent_bytes, info.snd_ssthresh), (0, 500, 0x7fff_ffff));
        // The table's own gives the same.
        let mut again = TcpInfo::default();
        let mut length = size_of::<TcpInfo>() as libc::socklen_t;
        let target = (&raw mut again).cast();
        // SAFETY: room for as many bytes as `length` says.
        let result = unsafe {
            (stack.table.getsockopt)(
                stack.table.userdata,
                fd,
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                target,
                &raw mut length,
            )
        };
        assert_eq!((result, again), (0, info));
        // A short buffer gets the beginning.
        let mut state = 0u8;
        length = 1;
        // SAFETY: room for one byte, as `length` says.
        let result =
            unsafe { getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut state).cast(), &raw mut length) };
        assert_eq!((result, length, state), (0, 1, 1));

        // What is not ours is the kernel's.
        let native = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut kind = 0i32;
        length = 4;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&native);
        // SAFETY: room for four bytes, as `length` says.
        let result =
            unsafe { getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut length) };
        assert_eq!((result, kind), (0, libc::SOCK_DGRAM));
        stack.free();
    });
}

/// Says to the second run of this test that it is the second.
const PRELOADED: &str = "TOE_PACKETDRILL_PRELOADED";

#[test]
fn preloaded_it_answers_for_the_c_library() {
    limited(|| {
        let (path, init, _) = load();
        if std::env::var_os(PRELOADED).is_none() {
            let status = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "preloaded_it_answers_for_the_c_library"])
                .env("LD_PRELOAD", path.to_str().unwrap())
                .env(PRELOADED, "1")
                .status();
            assert!(status.unwrap().success());
            return;
        }
        // What the loader gives a program that has none of its own, as this one does (it is linked with the crate): the
        // first behind the program's.
        // SAFETY: the function of that name has this type.
        let getsockopt: GetSockOpt = unsafe { std::mem::transmute(symbol(libc::RTLD_NEXT, c"getsockopt")) };
        let stack = Stack::with(init, "");
        let fd = stack.socket(false, 0);
        stack.listen(fd, 1).unwrap();
        assert_eq!(tcp_info(getsockopt, fd).state, 10, "LISTEN");
    });
}

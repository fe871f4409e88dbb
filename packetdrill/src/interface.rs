//! The table of functions through which packetdrill speaks: 33 fields of a pointer's size, in packetdrill's order.
//!
//! Every function takes `userdata` first. Where the C prototype ends in `...` (`fcntl`, `ioctl`) one more argument of a
//! register's size is declared: in the calling conventions of Linux on x86-64, aarch64 and riscv64 an integer or pointer
//! is passed in the same register whether it is named or not. Without the argument its value is arbitrary, and is
//! looked at only for commands that have one.

use std::ffi::{c_int, c_longlong, c_uint, c_ulong, c_void};

use libc::{
    epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t, timeval, timezone,
    useconds_t,
};

/// `struct packetdrill_interface`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // Each is the system call of its name, but for those that are explained.
pub struct Interface {
    /// Handed to every function.
    pub userdata: *mut c_void,
    /// Ends the adapter's life; `userdata` must not be used afterwards.
    pub free: unsafe extern "C" fn(*mut c_void),
    pub socket: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int) -> c_int,
    pub bind: unsafe extern "C" fn(*mut c_void, c_int, *const sockaddr, socklen_t) -> c_int,
    pub listen: unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    pub accept: unsafe extern "C" fn(*mut c_void, c_int, *mut sockaddr, *mut socklen_t) -> c_int,
    pub connect: unsafe extern "C" fn(*mut c_void, c_int, *const sockaddr, socklen_t) -> c_int,
    pub read: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, size_t) -> ssize_t,
    pub readv: unsafe extern "C" fn(*mut c_void, c_int, *const iovec, c_int) -> ssize_t,
    pub recv: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, size_t, c_int) -> ssize_t,
    pub recvfrom:
        unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t,
    pub recvmsg: unsafe extern "C" fn(*mut c_void, c_int, *mut msghdr, c_int) -> ssize_t,
    pub write: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, size_t) -> ssize_t,
    pub writev: unsafe extern "C" fn(*mut c_void, c_int, *const iovec, c_int) -> ssize_t,
    pub send: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, size_t, c_int) -> ssize_t,
    pub sendto:
        unsafe extern "C" fn(*mut c_void, c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t,
    pub sendmsg: unsafe extern "C" fn(*mut c_void, c_int, *const msghdr, c_int) -> ssize_t,
    pub fcntl: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_ulong) -> c_int,
    pub ioctl: unsafe extern "C" fn(*mut c_void, c_int, c_ulong, *mut c_void) -> c_int,
    pub close: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    pub shutdown: unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    pub getsockopt: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int,
    pub setsockopt: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *const c_void, socklen_t) -> c_int,
    pub poll: unsafe extern "C" fn(*mut c_void, *mut pollfd, nfds_t, c_int) -> c_int,
    /// A packet for the stack, IP header first. 0, or −1 with errno.
    pub netdev_send: unsafe extern "C" fn(*mut c_void, *const c_void, size_t) -> c_int,
    /// The next packet of the stack, IP header first, into a buffer of `*count` bytes; then `*count` is the packet's length
    /// (0: there is none, nor will there be) and `*time_usecs` when it was sent. 0, or −1 with errno.
    pub netdev_receive: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut size_t, *mut c_longlong) -> c_int,
    pub usleep: unsafe extern "C" fn(*mut c_void, useconds_t) -> c_int,
    pub gettimeofday: unsafe extern "C" fn(*mut c_void, *mut timeval, *mut timezone) -> c_int,
    pub epoll_create: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    pub epoll_ctl: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *mut epoll_event) -> c_int,
    pub epoll_wait: unsafe extern "C" fn(*mut c_void, c_int, *mut epoll_event, c_int, c_int) -> c_int,
    pub pipe: unsafe extern "C" fn(*mut c_void, *mut c_int) -> c_int,
    pub splice: unsafe extern "C" fn(*mut c_void, c_int, *mut loff_t, c_int, *mut loff_t, size_t, c_uint) -> c_int,
}

/// How many fields the table has.
pub const FIELDS: usize = 33;

// The table's shape is fixed by packetdrill: a field too many, too few or in another's place would call another function.
macro_rules! in_this_order {
    ($($field:ident)*) => {
        const _: () = {
            let mut at = 0;
            $(
                assert!(std::mem::offset_of!(Interface, $field) == at);
                at += size_of::<usize>();
            )*
            assert!(at == FIELDS * size_of::<usize>() && at == size_of::<Interface>());
        };
    };
}
in_this_order! {
    userdata free
    socket bind listen accept connect
    read readv recv recvfrom recvmsg
    write writev send sendto sendmsg
    fcntl ioctl close shutdown
    getsockopt setsockopt
    poll
    netdev_send netdev_receive
    usleep gettimeofday
    epoll_create epoll_ctl epoll_wait
    pipe splice
}

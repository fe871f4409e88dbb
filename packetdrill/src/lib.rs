//! An adapter between packetdrill and the card's firmware.
//!
//! packetdrill plays scripts of system calls and packets against a network stack. With `--so_filename` it plays them
//! against a shared object instead of the kernel: every system call, every packet and every question for the time goes
//! through a table of functions. This crate is such a shared object around one `toe_firmware::Firmware`: no guest, no
//! device, no wire, and no time but the one that the adapter makes up.
//!
//! | module | what it knows |
//! |---|---|
//! | `interface` | the table of functions, as C sees it |
//! | `shims` | the functions behind the table: pointers in, errno out |
//! | `preload` | `getsockopt` for a program that asks the C library for TCP_INFO |
//! | `adapter` | virtual time, and calls that block in it |
//! | `sockets`, `options`, `events`, `pipes` | sockets as POSIX and Linux have them |
//! | `guest` | the guest's side of the channel, without latency or loss |
//! | `dialect` | the order of a SYN's options |
//! | `observed` | what TCP_INFO has beside the card's figures |
//! | `flags` | `--so_flags` |
//! | `address`, `errno` | socket addresses and error numbers |
//!
//! **Time** stands still unless packetdrill asks for it to pass: `usleep` moves it, `netdev_receive` moves it to whatever
//! happens next, and `gettimeofday` lets it creep so that a loop that waits for a moment ends. On its way it stops at every
//! timer of the firmware and at every deadline of a blocked call.
//!
//! **Calls that block** do so on a thread of packetdrill's own. They sleep until something has happened, try again, and
//! the clock does not move before they have either gone back to sleep or told packetdrill the time at which they
//! returned. So a script's timing does not depend on the machine.

mod adapter;
mod address;
mod dialect;
mod errno;
mod events;
mod flags;
mod guest;
pub mod interface;
mod observed;
mod options;
mod pipes;
mod preload;
mod shims;
mod sockets;
mod tcp_info;

pub use preload::getsockopt;
pub use shims::packetdrill_interface_init;
pub use tcp_info::TcpInfo;

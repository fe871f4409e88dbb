//! Scripts of system calls and packets, against two TCPs: the card's firmware and the Linux kernel.

pub mod differences;
pub mod flow;
mod info;
pub mod language;
pub mod request;
pub mod runner;
pub mod sockets;
pub mod stage;
pub mod suite;
mod symbols;
pub mod vote;
pub mod wire;

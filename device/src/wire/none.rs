//! No wire: nothing comes in, and what goes out is gone. For cards that are only measured or asked.

use std::os::fd::BorrowedFd;

use toe_firmware::{Instant, Offload};

use super::{Sent, Wire};
use crate::net::Offloads;
use crate::packet::Packet;

/// Nothing is plugged in.
#[derive(Debug)]
pub struct NoWire;

impl Wire for NoWire {
    fn send(&mut self, _now: Instant, _packet: &mut Packet) -> Sent {
        Sent::Done
    }

    fn receive(&mut self, _now: Instant, _packet: &mut Packet) -> bool {
        false
    }

    fn set_offloads(&mut self, _offloads: Offloads) {}

    fn carries_offloads(&self) -> bool {
        true
    }

    fn offload(&self) -> Offload {
        Offload::ALL
    }

    fn events(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

//! No wire: nothing comes in, and what goes out is gone. For cards that are only measured or asked.

use toe_firmware::{Instant, Offload};

use super::{Sent, Wire};
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

    fn offload(&self) -> Offload {
        Offload::ALL
    }
}

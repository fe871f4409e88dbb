//! A plug that leads what is sent back in: for tests and for measuring the way through the card.
//!
//! It holds [`FRAMES`] frames at most and is full then. Frames are swapped, not copied.

use std::collections::VecDeque;

use toe_firmware::Instant;

use super::{Sent, Wire};
use crate::packet::Packet;

/// The most frames in the plug.
const FRAMES: usize = 256;

/// What is sent comes back.
#[derive(Default, Debug)]
pub struct Loopback {
    queue: VecDeque<Packet>,
    spare: Vec<Packet>,
}

impl Wire for Loopback {
    fn send(&mut self, _now: Instant, packet: &mut Packet) -> Sent {
        if self.queue.len() == FRAMES {
            return Sent::Full;
        }
        let empty = self.spare.pop().unwrap_or_default();
        self.queue.push_back(std::mem::replace(packet, empty));
        Sent::Done
    }

    fn receive(&mut self, _now: Instant, packet: &mut Packet) -> bool {
        let Some(mut first) = self.queue.pop_front() else {
            return false;
        };
        std::mem::swap(packet, &mut first);
        self.spare.push(first);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_back_in_order_and_a_full_plug_says_so() {
        let now = Instant::from_us(0);
        let mut wire = Loopback::default();
        for i in 0..FRAMES {
            assert_eq!(wire.send(now, &mut Packet::from_frame(&[i as u8; 60])), Sent::Done);
        }
        let mut packet = Packet::from_frame(&[7; 61]);
        assert_eq!(wire.send(now, &mut packet), Sent::Full);
        assert_eq!(packet.frame(), [7; 61]);
        for i in 0..FRAMES {
            assert!(wire.receive(now, &mut packet));
            assert_eq!(packet.frame(), [i as u8; 60]);
        }
        assert!(!wire.receive(now, &mut packet));
    }
}

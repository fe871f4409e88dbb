//! Word of a boot, to guests that may have had something on the card before it.
//!
//! A firmware that has just booted knows no context, so it cannot tell one that it is gone. It tells all of them: a
//! FIRMWARE_EVENT with the new epoch, to all stations of the guest, in a frame of no context and no key. A library that knows
//! another epoch says HELLO, and learns the rest from the answer ([`crate::engine::requests`]). Without that word it would find out
//! with its next sign of life, which may be seconds away.
//!
//! Channel frames can be lost, and at a boot there may be no driver on the other side yet. So the word is given
//! [`TIMES`] times, the first as soon as somebody fetches it, the others in growing intervals that begin there.

use toe_abi::{CARD_MAC, FirmwareEvent, Mac, Message, Reason, Writer};

use crate::engine::Firmware;
use crate::time::{Duration, Instant};

/// How often it is said.
const TIMES: u32 = 5;

/// Between the first and the second time; each interval after that is twice as long. The last word is given 1.5 seconds after
/// the first.
const INTERVAL: Duration = Duration::from_ms(100);

/// All stations.
const EVERYBODY: Mac = Mac([0xff; 6]);

/// What is still to be said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Announcement {
    left: u32,
    due: Instant,
}

impl Announcement {
    /// When it is to be said the next time.
    pub fn due(&self) -> Option<Instant> {
        (self.left > 0).then_some(self.due)
    }

    fn begin(now: Instant) -> Self {
        Self { left: TIMES, due: now }
    }

    fn said(&mut self, now: Instant) {
        self.due = now + INTERVAL.backed_off(TIMES - self.left, Duration::from_s(1));
        self.left -= 1;
    }
}

impl Firmware {
    /// Tells every guest of this boot from now on. For a card on which another boot may have had connections: after
    /// [`Firmware::reset`] it is done already, after [`Firmware::new`] it is for the host to say.
    pub fn announce(&mut self, now: Instant) {
        self.announcement = Announcement::begin(now);
    }

    /// Writes the word, if it is due.
    pub(super) fn say_announcement(&mut self, now: Instant, buffer: &mut [u8]) -> Option<usize> {
        if self.announcement.due().is_none_or(|due| due > now) {
            return None;
        }
        let mut w = Writer::new(buffer, CARD_MAC, EVERYBODY, 0, self.epoch, 0)?;
        let event = FirmwareEvent { epoch: self.epoch, reason: Reason::Booted as u32 };
        if !w.push(&Message::FirmwareEvent(event)) {
            return None;
        }
        self.announcement.said(now);
        Some(w.finish())
    }
}

#[cfg(test)]
mod tests {
    use toe_abi::{FRAME_BYTES_MAX, Parsed};

    use super::*;
    use crate::testing::Bench;

    #[test]
    fn a_boot_is_told_of_five_times_from_when_somebody_listens() {
        let mut b = Bench::new();
        let booted = b.now;
        b.firmware.announce(booted);
        // Nobody fetches it for a while.
        b.now = b.now + Duration::from_s(3);
        let first = b.now;
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let mut times = Vec::new();
        for ms in 0..4000 {
            let now = first + Duration::from_ms(ms);
            while let Some(bytes) = b.firmware.poll_guest(now, &mut buffer) {
                let parsed = Parsed::new(&buffer[..bytes]).unwrap();
                assert_eq!((parsed.header.key, parsed.header.context, parsed.header.epoch), (0, 0, 1));
                let said: Vec<_> = parsed.messages.map(Result::unwrap).collect();
                let event = FirmwareEvent { epoch: 1, reason: Reason::Booted as u32 };
                assert_eq!(said, [Message::FirmwareEvent(event)]);
                times.push(ms);
            }
            // Whoever waits for the firmware is called in time.
            assert!(times.len() == 5 || b.firmware.poll_timeout().is_some_and(|due| due <= now + Duration::from_s(1)));
        }
        assert_eq!(times, [0, 100, 300, 700, 1500]);
    }
}

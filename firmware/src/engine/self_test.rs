//! What a firmware must be able to do before it is let near a connection.
//!
//! Three things that everything else rests on are tried once after each boot, with values whose results are known from
//! elsewhere: the checksum engine (RFC 1071's example, a segment that is right and the same one with each of its bits
//! changed), the function under the keys (SipHash's reference vector; keys that are not zero) and the generator of initial sequence numbers (those
//! of different ends do not follow from each other, and a clock moves them as RFC 9293 says). A firmware
//! that fails is not to be used: `toe-nic` refuses to start, and after a reset the watchdog tries another boot. A firmware that runs is
//! tried once a second ([`crate::watchdog`]).

use toe_abi::Endpoint;

use crate::chance::Key;
use crate::engine::Firmware;
use crate::tcp::half_open::clock;
use crate::tcp::tcb::Tuple;
use crate::time::{Duration, Instant};
use crate::wire::checksum::Sum;
use crate::wire::segment;

/// What does not work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The checksum engine finds a right segment wrong, or a wrong one right.
    #[error("the firmware's self-test failed: its checksum engine is wrong")]
    Checksum,
    /// Keys are zero, or the function under them is not SipHash.
    #[error("the firmware's self-test failed: its keys or the function under them are wrong")]
    Keys,
    /// Initial sequence numbers can be told from others, or stand still.
    #[error("the firmware's self-test failed: its initial sequence numbers are predictable")]
    SequenceNumbers,
}

/// Tuples whose sequence numbers are compared.
const DRAWS: u16 = 16;

impl Firmware {
    /// Tries what everything else rests on. To be called after each boot, and now and then while it runs.
    ///
    /// # Errors
    /// The first that does not work.
    pub fn self_test(&self) -> Result<(), SelfTestError> {
        checksum_engine()?;
        self.key_function()?;
        self.sequence_numbers()
    }

    fn key_function(&self) -> Result<(), SelfTestError> {
        let bytes = std::array::from_fn(|i| i as u8);
        // Of the reference vectors of SipHash-2-4 the one of eight bytes.
        let is_siphash = Key::new(bytes).hash(&[0x0706_0504_0302_0100]) == 0x93f5_f579_9a93_2462;
        let zero = Key::new([0; 16]).hash(&[1]);
        let is_keyed = self.keys.each().iter().all(|key| key.hash(&[1]) != zero);
        if is_siphash && is_keyed { Ok(()) } else { Err(SelfTestError::Keys) }
    }

    fn sequence_numbers(&self) -> Result<(), SelfTestError> {
        let tuple = |n: u16| Tuple {
            local: Endpoint::new([192, 0, 2, 1].into(), 49_152 + n),
            remote: Endpoint::new([192, 0, 2, 2].into(), 80),
        };
        let now = Instant::from_us(0);
        // Past the sites of faults: what is tried is what it has, and how often they are passed must not depend on this.
        let number_at = |n, at| self.keys.sequence_number(&tuple(n).words(), clock(at)).0;
        let number = |n| number_at(n, now);
        let mut distances: [u32; DRAWS as usize] =
            std::array::from_fn(|n| number(n as u16 + 1).wrapping_sub(number(n as u16)));
        distances.sort_unstable();
        // That two of them are equal by chance happens once in 2^25 boots.
        let is_random = distances.windows(2).all(|pair| pair[0] != pair[1]);
        let later = now + Duration::from_s(1);
        let moved = number_at(0, later).wrapping_sub(number(0));
        // RFC 9293, 3.4.1: about every four microseconds.
        if is_random && moved == 250_000 { Ok(()) } else { Err(SelfTestError::SequenceNumbers) }
    }
}

fn checksum_engine() -> Result<(), SelfTestError> {
    let failed = Err(SelfTestError::Checksum);
    // RFC 1071, section 3: the sum of these is ddf2, so the checksum is its complement.
    if Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).finish() != !0xddf2 {
        return failed;
    }
    // A SYN from 192.0.2.1:4660 to 192.0.2.2:80; its checksum was worked out by hand.
    let mut tcp = [
        0x12, 0x34, 0x00, 0x50, 0x01, 0x02, 0x03, 0x04, 0x00, 0x00, 0x00, 0x00, 0x50, 0x02, 0xff, 0xff, 0x15, 0x55,
        0x00, 0x00,
    ];
    let is_right = |tcp: &[u8]| segment::checksum_is_right([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), tcp);
    if !is_right(&tcp) {
        return failed;
    }
    for bit in 0..8 * tcp.len() {
        tcp[bit / 8] ^= 1 << (bit % 8);
        if is_right(&tcp) {
            return failed;
        }
        tcp[bit / 8] ^= 1 << (bit % 8);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Halt;
    use crate::testing::Bench;
    use crate::watchdog::{Cure, LOOK, Watchdog};

    #[test]
    fn a_firmware_that_works_passes() {
        for seed in 0..64 {
            assert_eq!(Bench::with_seed([seed; 32], |_| ()).firmware.self_test(), Ok(()), "{seed}");
        }
    }

    #[test]
    fn zero_keys_are_found() {
        for key in 0..5 {
            let mut b = Bench::new();
            b.firmware.keys.zero(key);
            assert_eq!(b.firmware.self_test(), Err(SelfTestError::Keys), "{key}");
        }
    }

    #[test]
    fn a_key_that_became_zero_is_found_within_a_second_and_another_is_there_at_once() {
        for key in 0..5 {
            let mut b = Bench::new();
            let mut dog = Watchdog::new(b.now, LOOK);
            b.wait_ms(300);
            assert_eq!(dog.look(b.now, &mut b.firmware), None);
            b.firmware.keys.zero(key);
            let since = b.now;
            let cure = loop {
                b.wait_ms(5);
                assert!(b.now.since(since) <= Duration::from_ms(1050), "{key}: nobody has noticed");
                if let Some(cure) = dog.look(b.now, &mut b.firmware) {
                    break cure;
                }
            };
            assert_eq!((cure, b.firmware.halted()), (Cure::Reset, Some(Halt::SelfTest)), "{key}");
            b.firmware.reset([9; 32], 2, b.now).unwrap();
            assert_eq!((b.firmware.self_test(), b.firmware.halted()), (Ok(()), None), "{key}");
            assert_eq!(dog.look(b.now + LOOK, &mut b.firmware), None, "{key}");
        }
    }
}

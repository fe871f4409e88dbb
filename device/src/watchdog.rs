//! The card's watchdog at work: it looks at the firmware's heart, and starts a firmware that has stopped.
//!
//! When it looks and what it decides stands in [`toe_firmware::Watchdog`]; here is what it takes for that: new keys and a new
//! epoch, from the system or from the card's seed, and word of it for the operator (counters, events, the log). The data path
//! asks it at the beginning of each round, and has a round at least as often as it wants to look.

use std::io;

use toe_firmware::{Cure, Duration, Firmware, Halt, Instant, Watchdog};

/// Where the chance of each boot comes from.
#[derive(Debug)]
pub enum Boots {
    /// The operating system.
    System,
    /// A seed: the boots of a card are the same each time that it is started with it. Their epochs are the system's.
    Seed {
        /// Of the first boot.
        seed: [u8; 32],
        /// Boots so far.
        boots: u64,
    },
}

impl Boots {
    /// Those of a card that was started with this seed, or none.
    pub fn new(seed: Option<[u8; 32]>) -> Self {
        seed.map_or(Self::System, |seed| Self::Seed { seed, boots: 0 })
    }

    /// The chance of the next boot: a seed, and an epoch other than `before` and zero, which means "not known" on the channel.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn next(&mut self, before: u32) -> io::Result<([u8; 32], u32)> {
        let mut bytes = [0; 36];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
        }
        let mut epoch = u32::from_ne_bytes([bytes[32], bytes[33], bytes[34], bytes[35]]);
        while epoch == 0 || epoch == before {
            epoch = epoch.wrapping_add(1);
        }
        let mut seed = [0; 32];
        seed.copy_from_slice(&bytes[..32]);
        if let Self::Seed { seed: first, boots } = self {
            seed = *first;
            for (byte, number) in seed.iter_mut().zip(boots.to_le_bytes()) {
                *byte ^= number;
            }
            *boots += 1;
        }
        Ok((seed, epoch))
    }
}

/// What was done to a firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cured {
    /// How it had stopped; `None`: it did not answer, and nobody knows why.
    pub halt: Option<Halt>,
    /// What was done.
    pub cure: Cure,
}

/// A watchdog with the means to start a firmware.
#[derive(Debug)]
pub struct Guard {
    watchdog: Watchdog,
    boots: Boots,
}

impl Guard {
    /// One that looks as often as that.
    pub fn new(every: Duration, boots: Boots) -> Self {
        Self { watchdog: Watchdog::new(Instant::from_us(0), every), boots }
    }

    /// When it wants to look next.
    pub fn due(&self) -> Instant {
        self.watchdog.due()
    }

    /// Looks, if it is time, and starts a firmware that has stopped. One that cannot be started stays as it is, and is tried
    /// again.
    pub fn look(&mut self, now: Instant, firmware: &mut Firmware) -> Option<Cured> {
        let cure = self.watchdog.look(now, firmware)?;
        let halt = firmware.halted();
        match cure {
            Cure::Restart => firmware.restart(now),
            Cure::Reset => {
                if let Err(error) = self.reset(now, firmware) {
                    log::error!("the firmware cannot be started: {error}");
                    firmware.halt(Halt::Crash);
                    return None;
                }
            }
        }
        Some(Cured { halt, cure })
    }

    fn reset(&mut self, now: Instant, firmware: &mut Firmware) -> Result<(), Box<dyn std::error::Error>> {
        let (seed, epoch) = self.boots.next(firmware.epoch())?;
        firmware.reset(seed, epoch, now)?;
        firmware.self_test()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_firmware::{LOOK, Profile};

    fn firmware(boots: &mut Boots) -> Firmware {
        let (seed, epoch) = boots.next(0).unwrap();
        Firmware::new(&Profile::built_in("tiny").unwrap(), seed, epoch, Instant::from_us(0)).unwrap()
    }

    #[test]
    fn every_boot_has_keys_and_an_epoch_of_its_own() {
        let ends = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let end = |a: std::net::SocketAddr| toe_abi::Endpoint::new(a.ip(), a.port());
        let hashes = |boots: Boots| {
            let mut boots = boots;
            let mut firmware = firmware(&mut boots);
            let mut guard = Guard::new(LOOK, boots);
            let mut seen = Vec::new();
            for boot in 0..4u64 {
                seen.push((firmware.tuple_hash(end(ends.0), end(ends.1)), firmware.epoch()));
                firmware.halt(Halt::Hang);
                let cured =
                    (0..10).find_map(|n| guard.look(Instant::from_us(boot * 10_000_000 + n * 25_000), &mut firmware));
                assert_eq!(cured, Some(Cured { halt: Some(Halt::Hang), cure: Cure::Reset }));
            }
            seen
        };
        for boots in [Boots::new(None), Boots::new(Some([7; 32]))] {
            let seen = hashes(boots);
            for (i, (hash, epoch)) in seen.iter().enumerate() {
                assert!(*epoch != 0 && seen[..i].iter().all(|(h, e)| h != hash && e != epoch), "{seen:?}");
            }
        }
        let keys = |boots| hashes(boots).into_iter().map(|(hash, _)| hash).collect::<Vec<_>>();
        assert_eq!(keys(Boots::new(Some([7; 32]))), keys(Boots::new(Some([7; 32]))), "from a seed they are the same");
    }
}

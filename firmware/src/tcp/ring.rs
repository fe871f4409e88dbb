//! Where a connection's bytes lie in the driver's own memory: two rings, as the driver named them.
//!
//! A ring has 2^n bytes, and the byte at offset `o` of a stream lies in it at `o` modulo that. Nothing else is in it: no index, no
//! flag, nothing that one side could read while the other writes it. Which bytes are there is said by messages.

use toe_abi::Reason;

/// The shortest ring, and the longest, as logarithms.
const LOGARITHMS: std::ops::RangeInclusive<u32> = 12..=30;
/// What an address is a multiple of; below it stands the logarithm.
const ALIGNMENT: u64 = 1 << *LOGARITHMS.start();

/// One ring, as the option's value says it; zero for none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SharedRing(pub(super) u64);

/// The rings of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SharedRings {
    /// The bytes to send.
    pub send: SharedRing,
    /// The received bytes.
    pub receive: SharedRing,
    /// Of which memory they are parts: what [`crate::HostMemory::generation`] said when they were named.
    pub generation: u32,
}

impl SharedRing {
    /// What the value of an option names.
    ///
    /// # Errors
    /// [`Reason::OptionValue`] if it is no ring.
    pub fn named(value: u64) -> Result<Self, Reason> {
        let ring = Self(value);
        let sound = value == 0
            || (LOGARITHMS.contains(&((value % ALIGNMENT) as u32))
                && ring.address().checked_add(ring.bytes()).is_some());
        if sound { Ok(ring) } else { Err(Reason::OptionValue) }
    }

    /// The option's value.
    pub fn value(self) -> u64 {
        self.0
    }

    /// Whether there is one.
    pub fn is_there(self) -> bool {
        self.0 != 0
    }

    /// Its first byte's address.
    pub fn address(self) -> u64 {
        self.0 - self.0 % ALIGNMENT
    }

    /// Its length, in bytes; one if there is none.
    pub fn bytes(self) -> u64 {
        // Not more than the longest, whatever a damaged value says.
        1 << ((self.0 % ALIGNMENT) as u32).min(*LOGARITHMS.end())
    }

    /// Where the byte at `offset` of the stream lies, and how many from there on lie behind one another.
    pub fn place(self, offset: u64) -> (u64, u64) {
        let within = offset & (self.bytes() - 1);
        (self.address().saturating_add(within), self.bytes() - within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_an_aligned_address_and_a_logarithm() {
        let ring = SharedRing::named(0x12_3000 | 14).unwrap();
        assert_eq!((ring.address(), ring.bytes()), (0x12_3000, 16_384));
        assert_eq!(ring.place(0), (0x12_3000, 16_384));
        assert_eq!(ring.place(3 * 16_384 + 5), (0x12_3005, 16_379));
        assert!(!SharedRing::named(0).unwrap().is_there());
    }

    #[test]
    fn what_is_no_ring_is_refused() {
        // Too short, too long, an odd address, one that ends beyond the last address.
        for value in [0x12_3000, 0x12_3000 | 11, 0x12_3000 | 31, 0x12_3100, u64::MAX, (u64::MAX - 4095) | 12, 1] {
            assert_eq!(SharedRing::named(value), Err(Reason::OptionValue), "{value:#x}");
        }
    }
}

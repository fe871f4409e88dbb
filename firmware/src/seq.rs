//! Sequence numbers: the wrapping ones of the wire, and the positions that they stand for.
//!
//! A [`Seq`] is 32 bits and compares only modulo 2^32 (RFC 9293, 3.4). The card keeps every pointer into a stream
//! as a [`Position`] instead: 64 bits, never wrapping, its low half the sequence number. A number from the wire
//! becomes the position nearest to a known one, and from there on ordinary comparison is right. So there is one
//! place where wrapping can be got wrong, and it is here.

use std::ops::Add;

/// A sequence number as it stands in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// How far `self` lies behind (negative: before) `other`, by the shorter way round.
    pub fn distance(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// The position with this number that is nearest to `reference`.
    pub fn near(self, reference: Position) -> Position {
        Position(reference.0.wrapping_add_signed(self.distance(reference.seq()).into()))
    }
}

impl Add<u32> for Seq {
    type Output = Seq;
    fn add(self, n: u32) -> Seq {
        Seq(self.0.wrapping_add(n))
    }
}

/// A place in one direction's sequence space, SYN and FIN counted; never wraps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Position(u64);

impl Position {
    /// Where a stream begins whose SYN has the number `initial`. High enough that nothing near it is negative.
    pub const fn initial(initial: Seq) -> Self {
        Self((1 << 32) + initial.0 as u64)
    }

    /// The number on the wire.
    pub const fn seq(self) -> Seq {
        Seq(self.0 as u32)
    }

    /// Octets from `earlier` to `self`; zero if `earlier` lies behind.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `n` octets before; not before zero.
    pub const fn back(self, n: u64) -> Self {
        Self(self.0.saturating_sub(n))
    }

    /// The number itself, for arithmetic on pages.
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }
}

impl Add<u64> for Position {
    type Output = Position;
    fn add(self, n: u64) -> Position {
        Position(self.0.saturating_add(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_compare_the_short_way_round() {
        assert_eq!(Seq(5).distance(Seq(u32::MAX)), 6);
        assert_eq!(Seq(u32::MAX).distance(Seq(5)), -6);
        assert_eq!(Seq(u32::MAX) + 2, Seq(1));
    }

    #[test]
    fn a_position_goes_on_where_its_number_wraps() {
        let p = Position::initial(Seq(u32::MAX));
        assert_eq!((p + 1).seq(), Seq(0));
        assert_eq!(Seq(9).near(p).since(p), 10);
        assert_eq!(Seq(9).near(p + 10), p + 10);
        assert_eq!(Seq(u32::MAX - 1).near(p), p.back(1));
    }

    proptest! {
        #[test]
        fn near_is_the_inverse_of_seq(initial: u32, offset in 0u64..1 << 40, delta in i32::MIN..i32::MAX) {
            let reference = Position::initial(Seq(initial)) + offset;
            let there = Position(reference.0.wrapping_add_signed(delta.into()));
            prop_assert_eq!(there.seq().near(reference), there);
        }
    }
}

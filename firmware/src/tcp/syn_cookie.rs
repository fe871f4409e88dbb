//! SYN cookies (RFC 4987, 3.6): when there is no place for a half-open entry, the SYN-ACK itself is the memory, and the ACK
//! brings it back.
//!
//! *The number.* Our ISS is `F + (epoch << 24) + ((MAC + index) mod 2^24)`. `F` is RFC 6528's function of the 4-tuple, as
//! in every other ISS of the card. The epoch is RFC 6528's clock without its low 24 bits: it changes every [`EPOCH_US`]
//! microseconds. `MAC` is a keyed hash of the 4-tuple, the peer's ISS and the epoch, and `index` says which of
//! [`MSS`] the peer can take. So numbers of one 4-tuple are monotonic from epoch to epoch as RFC 6528 wants them, be they
//! cookies or not; what is given up is their order within one epoch.
//!
//! *Its strength.* Of the 2^32 numbers that an ACK can have, those of [`EPOCHS`] epochs and eight sizes are taken: 16.
//! A guess is right with a probability of 2^-28, for each listener, 4-tuple and peer's ISS anew. A cookie is good for
//! between one and two epochs.
//!
//! *The timestamp.* With timestamps the low [`STAMP_BITS`] bits of our TSval say the peer's window shift and whether there
//! is SACK and ECN; it is then up to 127 ms behind the clock, never before it. Given up: the round trip of the handshake is
//! not measured, and a 4-tuple that is used again within 127 ms could be seen to go back. Without timestamps there is no
//! place for any of this, and the connection goes without.
//!
//! *When.* As `tcp.syn_cookies` says. An ACK for a listener is looked at only for as long after its last cookie as that
//! is good: otherwise it is not the card's, and nobody can make the card try.

use crate::chance::Keys;
use crate::seq::Seq;
use crate::tcp::tcb::{Agreed, Tuple};
use crate::time::{Duration, Instant};

/// The sizes that a cookie can say, in bytes. A peer's MSS is rounded down; nothing smaller is ever sent.
pub const MSS: [u16; 8] = [64, 536, 1024, 1220, 1380, 1440, 1460, 8960];

/// Bits of the number below the epoch.
const LOW_BITS: u32 = 24;
const LOW: u32 = (1 << LOW_BITS) - 1;

/// Microseconds of an epoch: of the low bits of a clock of 4 microseconds.
pub const EPOCH_US: u64 = 4 << LOW_BITS;

/// Epochs in which a cookie is good: its own and the next.
pub const EPOCHS: u64 = 2;

/// The longest time for which a cookie is good.
pub const LIFE: Duration = Duration::from_us(EPOCHS * EPOCH_US);

/// Bits of the timestamp that are not the clock's.
pub const STAMP_BITS: u32 = 6;
const STAMP: u32 = (1 << STAMP_BITS) - 1;
const SACK: u32 = 1 << 4;
const ECN: u32 = 1 << 5;
const NO_SHIFT: u32 = 15;

fn epoch(now: Instant) -> u64 {
    now.as_us() / EPOCH_US
}

fn mac(keys: &Keys, tuple: &Tuple, irs: Seq, epoch: u64) -> u32 {
    let [a, b, c, d, ports] = tuple.words();
    keys.syn_cookie.hash(&[a, b, c, d, u64::from(irs.0) << 32 | ports, epoch]) as u32
}

fn base(keys: &Keys, tuple: &Tuple, epoch: u64) -> u32 {
    (keys.sequence.hash(&tuple.words()) as u32).wrapping_add((epoch as u32) << LOW_BITS)
}

/// The ISS for a peer with that MSS.
pub fn iss(keys: &Keys, tuple: &Tuple, irs: Seq, mss: u16, now: Instant) -> Seq {
    let index = MSS.iter().rposition(|size| *size <= mss).unwrap_or(0) as u32;
    let epoch = epoch(now);
    let low = mac(keys, tuple, irs, epoch).wrapping_add(index) & LOW;
    Seq(base(keys, tuple, epoch).wrapping_add(low))
}

/// The peer's MSS, if the number is a cookie of ours for this peer and not too old.
pub fn read(keys: &Keys, tuple: &Tuple, irs: Seq, iss: Seq, now: Instant) -> Option<u16> {
    (0..EPOCHS).find_map(|age| {
        let epoch = epoch(now).checked_sub(age)?;
        let low = iss.0.wrapping_sub(base(keys, tuple, epoch));
        let index = low.wrapping_sub(mac(keys, tuple, irs, epoch)) & LOW;
        MSS.get(index as usize).copied().filter(|_| low <= LOW)
    })
}

/// Our TSval that says this: at or before `clock`.
pub fn stamp(clock: u32, agreed: &Agreed, shift: u8) -> u32 {
    let shift = if agreed.window_scale { u32::from(shift.min(14)) } else { NO_SHIFT };
    let said = shift | if agreed.sack { SACK } else { 0 } | if agreed.ecn { ECN } else { 0 };
    let value = clock & !STAMP | said;
    if value.wrapping_sub(clock) as i32 > 0 { value.wrapping_sub(STAMP + 1) } else { value }
}

/// What an echo of our TSval says: what was agreed on, and the peer's window shift. `None` if it cannot be ours, at `clock`.
pub fn read_stamp(echo: u32, clock: u32) -> Option<(Agreed, u8)> {
    let age = clock.wrapping_sub(echo);
    if u64::from(age) > LIFE.as_ms() + 2 * u64::from(STAMP + 1) {
        return None;
    }
    let shift = echo & 15;
    let agreed =
        Agreed { timestamps: true, sack: echo & SACK != 0, window_scale: shift != NO_SHIFT, ecn: echo & ECN != 0 };
    Some((agreed, if shift == NO_SHIFT { 0 } else { shift as u8 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_abi::Endpoint;

    fn tuple(port: u16) -> Tuple {
        Tuple {
            local: Endpoint::new("192.0.2.2".parse().unwrap(), 80),
            remote: Endpoint::new("192.0.2.1".parse().unwrap(), port),
        }
    }

    fn at(us: u64) -> Instant {
        Instant::from_us(us)
    }

    #[test]
    fn a_cookie_says_the_largest_size_that_the_peer_takes() {
        let keys = Keys::new([5; 32]);
        let now = at(7 * EPOCH_US + 5);
        for (mss, said) in
            [(0, 64), (63, 64), (64, 64), (535, 64), (536, 536), (1459, 1440), (1460, 1460), (65_535, 8960)]
        {
            let iss = iss(&keys, &tuple(9), Seq(u32::MAX), mss, now);
            assert_eq!(read(&keys, &tuple(9), Seq(u32::MAX), iss, now), Some(said), "{mss}");
        }
    }

    #[test]
    fn a_cookie_is_of_its_ends_and_numbers_and_lives_for_two_epochs() {
        let keys = Keys::new([5; 32]);
        for n in 0..1000u32 {
            let made = at((1000 + u64::from(n)) * EPOCH_US / 3);
            let irs = Seq(n.wrapping_mul(0x9e37_79b9));
            let iss = iss(&keys, &tuple(9), irs, 1460, made);
            let end_of_own = (made.as_us() / EPOCH_US + 1) * EPOCH_US;
            assert_eq!(read(&keys, &tuple(9), irs, iss, at(end_of_own + EPOCH_US - 1)), Some(1460));
            assert_eq!(read(&keys, &tuple(9), irs, iss, at(end_of_own + EPOCH_US)), None);
            assert_eq!(read(&keys, &tuple(9), irs, iss, at(made.as_us() - EPOCH_US)), None, "not before it was made");
            assert_eq!(read(&keys, &tuple(10), irs, iss, made), None);
            assert_eq!(read(&keys, &tuple(9), irs + 1, iss, made), None);
            assert_eq!(read(&Keys::new([6; 32]), &tuple(9), irs, iss, made), None);
            assert_eq!(read(&keys, &tuple(9), irs, iss + 2, made), None, "there is no such size");
        }
    }

    #[test]
    fn of_all_numbers_sixteen_are_taken() {
        // A number is an epoch of eight bits and low ones of 24. Of two epochs the eight low numbers that begin at the MAC are
        // taken, and their neighbours are not; of the other 254 none is.
        let keys = Keys::new([5; 32]);
        let now = at(300 * EPOCH_US + 1);
        let taken = |epoch: u64, low: u32| {
            let number = base(&keys, &tuple(9), epoch).wrapping_add(low & LOW);
            read(&keys, &tuple(9), Seq(77), Seq(number), now).is_some()
        };
        for epoch in [299, 300] {
            let first = mac(&keys, &tuple(9), Seq(77), epoch);
            assert!((0..8).all(|n| taken(epoch, first.wrapping_add(n))));
            assert!((8..5000).chain((1 << 24) - 5000..1 << 24).all(|n| !taken(epoch, first.wrapping_add(n))));
            assert!((8..1u32 << 24).step_by(997).all(|n| !taken(epoch, first.wrapping_add(n))));
        }
        for epoch in (45..299).filter(|e| e % 256 != 300 % 256) {
            let first = mac(&keys, &tuple(9), Seq(77), epoch);
            assert!((0..64).all(|n| !taken(epoch, first.wrapping_add(n)) && !taken(epoch, n << 18)));
        }
    }

    #[test]
    fn numbers_of_a_tuple_go_up_from_epoch_to_epoch() {
        let keys = Keys::new([5; 32]);
        for n in 0..1000u64 {
            let (a, b) = (at(n * EPOCH_US), at((n + 1) * EPOCH_US));
            let ordinary = |now: Instant| {
                Seq(crate::tcp::half_open::clock(now).wrapping_add(keys.sequence.hash(&tuple(9).words()) as u32))
            };
            for earlier in [iss(&keys, &tuple(9), Seq(1), 1460, a), ordinary(a)] {
                for later in [iss(&keys, &tuple(9), Seq(2), 536, b), ordinary(b)] {
                    assert!(later.distance(earlier) > 0, "{n}");
                }
            }
        }
    }

    #[test]
    fn a_stamp_says_what_was_agreed_and_is_never_ahead() {
        for clock in [0u32, 1, 63, 64, 1000, u32::MAX, u32::MAX - 40, 1 << 31] {
            for shift in 0..=15u8 {
                for bits in 0..8 {
                    let agreed = Agreed {
                        timestamps: true,
                        sack: bits & 1 != 0,
                        window_scale: bits & 2 != 0,
                        ecn: bits & 4 != 0,
                    };
                    let value = stamp(clock, &agreed, shift);
                    assert!(clock.wrapping_sub(value) < 128, "{clock} {value}");
                    let read = read_stamp(value, clock.wrapping_add(100)).unwrap();
                    assert_eq!(read, (agreed, if agreed.window_scale { shift.min(14) } else { 0 }));
                    // Two epochs of 2^24 times four microseconds, and twice what a stamp may be behind.
                    let oldest = 134_217 + 128;
                    assert_eq!(read_stamp(value, value.wrapping_add(oldest)), Some(read));
                    assert_eq!(read_stamp(value, value.wrapping_add(oldest + 1)), None);
                    assert_eq!(read_stamp(value, clock.wrapping_sub(1000)), None);
                }
            }
        }
    }
}

//! One split stream of chance for each purpose: what is drawn for one purpose never shifts what is drawn for another.
//!
//! A run has one seed. Whoever needs chance names its purpose, and where there are several of a kind its number; the
//! name is hashed into the seed. So a new draw, or one that is not needed any more, changes nothing but its own purpose.

use toe_impair::Random;

/// The seed of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream of a purpose.
    pub fn stream(self, purpose: &str) -> Random {
        self.stream_of(purpose, 0)
    }

    /// The stream of one of several with the same purpose.
    pub fn stream_of(self, purpose: &str, number: u64) -> Random {
        // FNV-1a over the name, then three rounds of the generator's own mixing, which has no collisions for one name.
        let name =
            purpose.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut state = Random::new(self.0).bits();
        state = Random::new(state ^ name).bits();
        Random::new(Random::new(state.wrapping_add(number)).bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_purpose_and_number_and_by_nothing_else() {
        let first = |seed, purpose, number| Seed(seed).stream_of(purpose, number).bits();
        let all = [first(1, "a", 0), first(2, "a", 0), first(1, "b", 0), first(1, "a", 1)];
        for (i, x) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|y| x != y));
        }
        let (mut a, mut b) = (Seed(1).stream("a"), Seed(1).stream("b"));
        a.bits();
        assert_eq!((a.bits(), b.bits()), (Seed(1).stream("a").bits_after(1), first(1, "b", 0)));
    }

    trait After {
        fn bits_after(self, draws: u32) -> u64;
    }

    impl After for Random {
        fn bits_after(mut self, draws: u32) -> u64 {
            for _ in 0..draws {
                self.bits();
            }
            self.bits()
        }
    }
}

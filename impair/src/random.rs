//! Chance from a seed: SplitMix64 (Steele, Lea, Flood 2014), a counter through a mixing function. Good enough to
//! spread faults, and its stream will never change.

/// A generator of chance. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator whose stream is a function of `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number from 0 to `bound - 1`; 0 if `bound` is 0. The bias is below `bound` in 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included; `low` if `high` is less.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// Yes, once in `n` times on average.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number from the exponential distribution with that mean, rounded down; never more than 45 times the mean.
    /// By integers alone: the logarithm comes from squaring, a bit each time, to sixteen places.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        const LN_2: u128 = 45_426; // in 65,536ths
        let uniform = self.bits() | 1;
        let zeros = uniform.leading_zeros();
        let mut mantissa = (uniform << zeros) >> 32;
        let mut log2 = 0u64;
        for bit in (0..16).rev() {
            mantissa = (mantissa * mantissa) >> 31;
            if mantissa >> 32 != 0 {
                mantissa >>= 1;
                log2 |= 1 << bit;
            }
        }
        let minus_log2 = (u64::from(zeros + 1) << 16) - log2;
        ((u128::from(mean) * u128::from(minus_log2) * LN_2) >> 32) as u64
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // The reference implementation's first outputs for seed 1234567.
        let mut random = Random::new(1_234_567);
        let first = [random.bits(), random.bits(), random.bits()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn the_exponential_distribution_has_its_mean_and_tail() {
        let mut random = Random::new(1);
        let draws: Vec<u64> = (0..20_000).map(|_| random.exponential(10_000)).collect();
        let mean = draws.iter().sum::<u64>() / 20_000;
        assert!((9_800..10_200).contains(&mean), "{mean}");
        // One in e lies above the mean, one in e^3 above three times the mean.
        let above = |x| draws.iter().filter(|&&d| d > x).count();
        assert!((7_150..7_570).contains(&above(10_000)), "{}", above(10_000));
        assert!((900..1_100).contains(&above(30_000)), "{}", above(30_000));
        assert_eq!(random.exponential(0), 0);
    }

    #[test]
    fn bounds_are_kept_and_met() {
        let mut random = Random::new(1);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            seen[random.between(3, 7) as usize - 3] += 1;
        }
        assert!(seen.iter().all(|&n| n > 150), "{seen:?}");
        assert_eq!((random.below(0), random.between(9, 2), random.between(0, u64::MAX) > 0), (0, 9, true));
        let mut bytes = [0; 13];
        random.fill(&mut bytes);
        assert_ne!(bytes[12], 0);
    }
}

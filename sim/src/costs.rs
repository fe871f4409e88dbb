//! What calls on a firmware have cost, in steps (`docs/work.md`).

/// How often a call cost how many steps.
#[derive(Clone)]
pub struct Costs([u64; 1024]);

impl Default for Costs {
    fn default() -> Self {
        Self([0; 1024])
    }
}

impl Costs {
    pub fn add(&mut self, steps: u64) {
        self.0[steps.min(1023) as usize] += 1;
    }

    #[cfg(test)]
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, n)| *sum += n);
    }

    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The least number of steps that so many percent of the calls did not exceed.
    #[cfg(test)]
    pub fn percentile(&self, percent: u64) -> u64 {
        let mut left = (self.count() * percent).div_ceil(100);
        self.0
            .iter()
            .position(|n| {
                left = left.saturating_sub(*n);
                left == 0
            })
            .unwrap_or(0) as u64
    }
}

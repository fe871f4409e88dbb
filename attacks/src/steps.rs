//! How many steps of the firmware things took: a histogram that is exact up to [`EXACT`] steps.

/// Steps up to which each number has a count of its own.
const EXACT: usize = 4096;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Steps {
    counts: Vec<u64>,
    count: u64,
    sum: u64,
    max: u64,
}

impl Default for Steps {
    fn default() -> Self {
        Self { counts: vec![0; EXACT + 1], count: 0, sum: 0, max: 0 }
    }
}

impl Steps {
    /// Something took so many.
    pub fn note(&mut self, steps: u64) {
        self.counts[(steps as usize).min(EXACT)] += 1;
        self.count += 1;
        self.sum += steps;
        self.max = self.max.max(steps);
    }

    /// How many things there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.count.max(1) as f64
    }

    /// The most.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The smallest number that 99 of 100 did not exceed.
    pub fn p99(&self) -> u64 {
        let mut left = self.count - self.count / 100;
        for (steps, n) in self.counts.iter().enumerate() {
            if *n >= left {
                return steps as u64;
            }
            left -= n;
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_does_not_move_the_percentile() {
        let mut steps = Steps::default();
        (0..99).for_each(|_| steps.note(3));
        steps.note(10_000);
        assert_eq!((steps.p99(), steps.max(), steps.count()), (3, 10_000, 100));
        steps.note(7);
        steps.note(7);
        assert_eq!(steps.p99(), 7);
    }
}

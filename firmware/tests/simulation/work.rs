//! What segments cost on cards that serve each other and smoltcp over bad links, in steps (`docs/work.md`).

use std::cell::RefCell;

use crate::scenario::{Kind, run_and_check};
use crate::seeds::for_seeds;
use crate::two_stacks::{card_world, mixed_world};

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

    fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, n)| *sum += n);
    }

    fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The least number of steps that so many percent of the calls did not exceed.
    fn percentile(&self, percent: u64) -> u64 {
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

#[test]
fn a_segment_costs_at_most_64_steps_and_four_times_the_99th_percentile() {
    let sums = RefCell::new([Costs::default(), Costs::default()]);
    let take = |costs: &[Costs; 2]| {
        let mut sums = sums.borrow_mut();
        sums.iter_mut().zip(costs).for_each(|(sum, one)| sum.merge(one));
    };
    for_seeds("work::a_segment_costs_at_most_64_steps_and_four_times_the_99th_percentile", 20, |seed| {
        let kind = Kind { active: (seed % 2) as usize, ..Kind::ORDINARY };
        let mut world = card_world(seed, &kind);
        run_and_check(&mut world, &kind);
        take(world.a.card().costs());
        take(world.b.card().costs());
        let mut world = mixed_world(seed, &kind);
        run_and_check(&mut world, &kind);
        take(world.a.card().costs());
    });
    for (what, costs) in ["from the wire", "to the wire"].iter().zip(sums.borrow().iter()) {
        let [p50, p99, most] = [50, 99, 100].map(|p| costs.percentile(p));
        println!("{what}: {} calls, median {p50}, 99th percentile {p99}, most {most} steps", costs.count());
        assert!(most <= 64 && most <= 4 * p99, "{what}: {most} steps, 99th percentile {p99}");
    }
}

//! What segments cost on cards that serve each other and smoltcp over bad links, in steps (`docs/work.md`).

use std::cell::RefCell;

use crate::costs::Costs;
use crate::tests::scenario::{Kind, run_and_check};
use crate::tests::seeds::for_seeds;
use crate::tests::two_stacks::{card_world, mixed_world};

#[test]
fn a_segment_costs_at_most_64_steps_and_four_times_the_99th_percentile() {
    let sums = RefCell::new([Costs::default(), Costs::default()]);
    let take = |costs: &[Costs; 2]| {
        let mut sums = sums.borrow_mut();
        sums.iter_mut().zip(costs).for_each(|(sum, one)| sum.merge(one));
    };
    for_seeds("tests::work::a_segment_costs_at_most_64_steps_and_four_times_the_99th_percentile", 20, |seed| {
        let kind = Kind { active: (seed % 2) as usize, ..Kind::ORDINARY };
        let mut world = card_world(seed, &kind);
        run_and_check(&mut world, &kind);
        take(world.card(0).card().costs());
        take(world.card(1).card().costs());
        let mut world = mixed_world(seed, &kind);
        run_and_check(&mut world, &kind);
        take(world.card(0).card().costs());
    });
    for (what, costs) in ["from the wire", "to the wire"].iter().zip(sums.borrow().iter()) {
        let [p50, p99, most] = [50, 99, 100].map(|p| costs.percentile(p));
        println!("{what}: {} calls, median {p50}, 99th percentile {p99}, most {most} steps", costs.count());
        assert!(most <= 64 && most <= 4 * p99, "{what}: {most} steps, 99th percentile {p99}");
    }
}

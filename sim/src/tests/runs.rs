//! Whole runs: every scenario, and that a seed replays.

use crate::chance::Seed;
use crate::run::{Order, judged};
use crate::scenes::{ALL, Ends, drawn};

const DRAWN: Order = Order { scenario: None, ends: Ends::Drawn };

#[test]
fn every_scenario_holds_under_a_few_seeds() {
    for scenario in ALL {
        let order = Order { scenario: Some(scenario), ends: Ends::Drawn };
        for seed in 0..12 {
            let counts = judged(seed, order).unwrap_or_else(|v| panic!("{v:?}"));
            assert!(counts.segments > 0 && counts.lifecycles > 0, "{}: seed {seed} does nothing", scenario.name);
        }
    }
}

#[test]
fn a_seed_draws_one_scenario_and_all_are_drawn() {
    let mut names: Vec<_> = (0..500).map(|seed| drawn(Seed(seed)).name).collect();
    assert_eq!(drawn(Seed(3)).name, names[3]);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ALL.len());
}

#[test]
fn a_seed_replays_and_others_differ() {
    for seed in 0..60 {
        let [first, again, other] = [seed, seed, seed + 1_000].map(|s| judged(s, DRAWN).expect("it holds"));
        assert_eq!(first, again, "seed {seed}");
        assert_ne!(first.trace, other.trace);
    }
}

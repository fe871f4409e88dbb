//! The harness itself, shown on a stack that is known to work: smoltcp against smoltcp.

use std::panic::{AssertUnwindSafe, catch_unwind};

use toe_impair::{Random, Share, Spec};

use crate::card::{CardEnd, Channel};
use crate::end::{Pair, Streams};
use crate::parts::Family;
use crate::pattern::Pattern;
use crate::tests::scenario::{Kind, flows, plain_profile, plain_settings, run_and_check, smol_end, world};
use crate::tests::seeds::for_seeds;
use crate::world::{Node, World};

/// smoltcp's known faults do not let it take every scenario: with data both ways under loss two of it reject each
/// other's repetitions for ever (it sends ACKs with a sequence number that went back), and a lost window probe of it
/// leaves a gap that it never fills. So here one end sends, to another that has room for all.
const KIND: Kind = Kind { bytes_max: 100_000, one_way: true, ..Kind::ORDINARY };

fn smol_world(seed: u64, kind: &Kind) -> World {
    let mut random = Random::new(seed);
    let (a, b) = (smol_end(&mut random, kind, 0, 110_000), smol_end(&mut random, kind, 1, 110_000));
    world(&mut random, kind, a, b, true)
}

#[test]
fn smoltcp_to_smoltcp() {
    for_seeds("harness_tests::smoltcp_to_smoltcp", 20, |seed| {
        let family = if seed % 2 == 0 { Family::V4 } else { Family::V6 };
        let kind = Kind { family, active: (seed / 2 % 2) as usize, aborts: seed % 5 == 4, ..KIND };
        run_and_check(&mut smol_world(seed, &kind), &kind);
    });
}

#[test]
fn a_seed_replays_and_another_differs() {
    let hash = |seed| {
        let mut world = smol_world(seed, &KIND);
        run_and_check(&mut world, &KIND);
        world.transcript()
    };
    let hashes = [1, 1, 2].map(hash);
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
}

/// The checks can fail: an end that expects another stream notices at the first byte.
#[test]
fn a_wrong_byte_is_noticed() {
    for card in [false, true] {
        let mut random = Random::new(1);
        let plain = |end: usize| {
            let channel = Channel { to_guest: Spec::default(), to_card: Spec::default(), guest_buffers: 64 };
            Node::Card(Box::new(CardEnd::new("x", &plain_profile(), plain_settings(Family::V4, end), &channel, 1)))
        };
        let other = if card { plain(1) } else { smol_end(&mut random, &KIND, 1, 110_000) };
        let mut world = World::new(plain(0), other, [Spec { delay_us: 10, ..Spec::default() }; 2], [1, 2]);
        let pair = Pair { local: "192.0.2.1:50000".parse().unwrap(), remote: "192.0.2.2:8000".parse().unwrap() };
        let streams = Streams { out: Pattern::new(1), inward: Pattern::new(2) };
        world.end(1).accept(0, 0, pair.reversed(), None, streams);
        world.end(0).connect(0, 0, pair, streams);
        world.wait(1_000_000);
        world.end(0).write(0, 1);
        let text = failure(|| {
            for _ in 0..100 {
                world.wait(10_000);
                world.end(1).read(0, 1);
            }
        });
        assert_eq!(text, "flow 0: byte 0 is not the one that was sent");
    }
}

/// What a panic says.
fn failure(call: impl FnOnce()) -> String {
    let error = catch_unwind(AssertUnwindSafe(call)).expect_err("it does not fail");
    error.downcast_ref::<String>().cloned().unwrap_or_default()
}

/// On a wire that lets nothing through, a scenario does not end, and that is noticed.
#[test]
fn a_stall_is_noticed() {
    let mut random = Random::new(1);
    let (a, b) = (smol_end(&mut random, &KIND, 0, 110_000), smol_end(&mut random, &KIND, 1, 110_000));
    let dead = Spec { loss: Share::ALL, ..Spec::default() };
    let mut world = flows(&mut random, &KIND, World::new(a, b, [dead, dead], [1, 2]), true);
    assert!(!world.run(10_000_000));
}

#[test]
fn a_pattern_differs_at_every_place_and_is_found_out() {
    let (pattern, other) = (Pattern::new(1), Pattern::new(2));
    let mut bytes = [0; 1000];
    pattern.fill(13, &mut bytes);
    assert_eq!(pattern.first_difference(13, &bytes), None);
    assert!(pattern.first_difference(14, &bytes).is_some_and(|at| at < 20));
    assert!(other.first_difference(13, &bytes).is_some());
    bytes[500] ^= 1;
    assert_eq!(pattern.first_difference(13, &bytes), Some(513));
}

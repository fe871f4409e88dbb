//! The firmware against itself and against smoltcp, under everything that a wire can do.

use std::net::SocketAddr;

use toe_impair::{Random, Spec};

use crate::app::{App, Close, Outcome, Plan};
use crate::card::{CardEnd, Channel};
use crate::end::{Pair, Status, Streams};
use crate::frames::{ACK, FIN, RST, SYN, segment};
use crate::guest::Settings;
use crate::parts::Family;
use crate::pattern::Pattern;
use crate::tests::scenario::{self, DEADLINE_US, FLOWS_MAX, Kind, card_end, plain_settings, run_and_check, smol_end};
use crate::tests::seeds::for_seeds;
use crate::world::{Node, Opening, World};

/// Seeds in the ordinary run of each test.
const SEEDS: u64 = 50;

/// The shortest time after which nothing of a connection may be left: TIME-WAIT, a retransmission given up by a
/// forgotten peer, and then some.
const REST_US: u64 = 200_000_000;

pub fn card_world(seed: u64, kind: &Kind) -> World {
    let mut random = Random::new(seed);
    // Two connections can have all pages; three contend for them.
    let (a, b) = (card_end(&mut random, kind, 0, 2), card_end(&mut random, kind, 1, 2));
    scenario::world(&mut random, kind, a, b, kind.is_simultaneous)
}

pub fn mixed_world(seed: u64, kind: &Kind) -> World {
    let mut random = Random::new(seed);
    // Pages for all: smoltcp does not probe a window that was drawn back to nothing while it had data in flight.
    let a = card_end(&mut random, kind, 0, FLOWS_MAX + 1);
    let b = smol_end(&mut random, kind, 1, 1_000);
    scenario::world(&mut random, kind, a, b, true)
}

fn cards(seed: u64, kind: &Kind) {
    let mut world = card_world(seed, kind);
    run_and_check(&mut world, kind);
    world.wait(REST_US);
    world.card(0).check_rest(kind.bad_channel);
    world.card(1).check_rest(kind.bad_channel);
}

fn card_and_smoltcp(seed: u64, kind: &Kind) {
    let mut world = mixed_world(seed, kind);
    run_and_check(&mut world, kind);
    world.wait(REST_US);
    world.card(0).check_rest(kind.bad_channel);
}

/// Both roles in turn.
fn active(seed: u64) -> usize {
    (seed % 2) as usize
}

#[test]
fn cards_v4() {
    for_seeds("two_stacks::cards_v4", SEEDS, |seed| {
        cards(seed, &Kind { active: active(seed), ..Kind::ORDINARY });
    });
}

#[test]
fn cards_v6() {
    for_seeds("two_stacks::cards_v6", SEEDS, |seed| {
        cards(seed, &Kind { family: Family::V6, active: active(seed), ..Kind::ORDINARY });
    });
}

#[test]
fn cards_over_a_bad_channel() {
    for_seeds("two_stacks::cards_over_a_bad_channel", SEEDS, |seed| {
        cards(seed, &Kind { active: active(seed), bad_channel: true, bytes_max: 100_000, ..Kind::ORDINARY });
    });
}

#[test]
fn cards_that_abort() {
    for_seeds("two_stacks::cards_that_abort", SEEDS, |seed| {
        let bad_channel = seed % 4 == 0;
        cards(seed, &Kind { active: active(seed), aborts: true, bad_channel, ..Kind::ORDINARY });
    });
}

#[test]
fn cards_that_open_simultaneously() {
    for_seeds("two_stacks::cards_that_open_simultaneously", SEEDS, |seed| {
        cards(seed, &Kind { is_simultaneous: true, ..Kind::ORDINARY });
    });
}

#[test]
fn card_to_smoltcp_v4() {
    for_seeds("two_stacks::card_to_smoltcp_v4", SEEDS, |seed| card_and_smoltcp(seed, &Kind::ORDINARY));
}

#[test]
fn card_to_smoltcp_v6() {
    for_seeds("two_stacks::card_to_smoltcp_v6", SEEDS, |seed| {
        card_and_smoltcp(seed, &Kind { family: Family::V6, ..Kind::ORDINARY });
    });
}

#[test]
fn smoltcp_to_card_v4() {
    for_seeds("two_stacks::smoltcp_to_card_v4", SEEDS, |seed| {
        card_and_smoltcp(seed, &Kind { active: 1, ..Kind::ORDINARY });
    });
}

#[test]
fn smoltcp_to_card_v6() {
    for_seeds("two_stacks::smoltcp_to_card_v6", SEEDS, |seed| {
        card_and_smoltcp(seed, &Kind { family: Family::V6, active: 1, ..Kind::ORDINARY });
    });
}

#[test]
fn card_and_smoltcp_that_abort() {
    for_seeds("two_stacks::card_and_smoltcp_that_abort", SEEDS, |seed| {
        card_and_smoltcp(seed, &Kind { active: active(seed), aborts: true, ..Kind::ORDINARY });
    });
}

#[test]
fn a_seed_replays_identically() {
    for seed in 0..10 {
        let kind = Kind { bad_channel: seed % 2 == 0, aborts: seed % 3 == 0, bytes_max: 50_000, ..Kind::ORDINARY };
        let hash = || {
            let mut world = card_world(seed, &kind);
            run_and_check(&mut world, &kind);
            world.transcript()
        };
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}

// Named cases, on wires that do nothing but delay.

const LINE_US: u64 = 1_000;

fn plain_card(name: &'static str, end: usize, change: impl FnOnce(&mut Settings)) -> Node {
    let mut settings = plain_settings(Family::V4, end);
    change(&mut settings);
    let channel = Channel { to_guest: Spec::default(), to_card: Spec::default(), guest_buffers: 64 };
    Node::Card(Box::new(CardEnd::new(name, &scenario::plain_profile(), settings, &channel, end as u64)))
}

fn plain_world() -> World {
    let line = Spec { delay_us: LINE_US, ..Spec::default() };
    World::new(plain_card("a", 0, |_| ()), plain_card("b", 1, |_| ()), [line; 2], [1, 2])
}

fn pair() -> Pair {
    let end = |end, port| SocketAddr::new(Family::V4.address(end), port);
    Pair { local: end(0, 40_000), remote: end(1, 7_000) }
}

fn opening(is_simultaneous: bool) -> Opening {
    Opening { accept_us: 0, at_us: 1_000_000, active: 0, is_simultaneous, pair: pair(), any: None }
}

fn programs(bytes: [u64; 2], closes: [Close; 2]) -> [App; 2] {
    [0, 1].map(|i| {
        let plan = Plan {
            out_bytes: bytes[i],
            close: closes[i],
            write_bytes: 10_000,
            read_bytes: 10_000,
            read_pause_us: 0,
            idle_us: 0,
            lingers: true,
            patience_us: None,
        };
        App::new(0, plan)
    })
}

/// The flags of every segment, `a` or `b` in front, in the order in which they were sent.
fn flags(world: &World) -> Vec<String> {
    let sightings = world.sightings.as_ref().expect("sightings were asked for");
    let flags = sightings.iter().map(|s| {
        let t = segment(&s.frame).expect("a TCP segment");
        let flags = [(t.has(SYN), 'S'), (t.has(FIN), 'F'), (t.has(RST), 'R'), (t.has(ACK), 'A')];
        let mut text = String::from(["a", "b"][s.from]);
        text.extend(flags.iter().filter(|(set, _)| *set).map(|(_, c)| *c));
        text
    });
    flags.collect()
}

#[test]
fn simultaneous_open_takes_two_syns_and_two_syn_acks() {
    let mut world = plain_world();
    world.sightings = Some(Vec::new());
    world.add(opening(true), programs([1_000, 2_000], [Close::WhenWritten; 2]));
    assert!(world.run(DEADLINE_US));
    crate::world::check_flow(&world, 0, true);
    assert_eq!(flags(&world)[..4], ["aS", "bS", "aSA", "bSA"], "RFC 9293, figure 7");
}

#[test]
fn simultaneous_close_is_two_fins_that_cross() {
    let mut world = plain_world();
    world.sightings = Some(Vec::new());
    // Opened from both ends at once, so that both close at once, too.
    world.add(opening(true), programs([0, 0], [Close::WhenWritten; 2]));
    assert!(world.run(DEADLINE_US));
    crate::world::check_flow(&world, 0, true);
    let flags = flags(&world);
    let fins: Vec<_> = flags.iter().enumerate().filter(|(_, f)| f.contains('F')).collect();
    assert_eq!(fins.iter().map(|(_, f)| f.as_str()).collect::<Vec<_>>(), ["aFA", "bFA"]);
    assert_eq!(fins[1].0, fins[0].0 + 1, "no ACK of the one before the other: {flags:?}");
    let is_time_wait = |end: &mut CardEnd| end.card().in_use()["time-wait"] == 1;
    assert!(is_time_wait(world.card(0)) && is_time_wait(world.card(1)), "both ends wait (RFC 9293, figure 13)");
    world.wait(REST_US);
    world.card(0).check_rest(false);
    world.card(1).check_rest(false);
}

#[test]
fn a_half_closed_connection_carries_data_the_other_way_in_both_orders() {
    for closes in [[Close::WhenWritten, Close::AfterPeer], [Close::AfterPeer, Close::WhenWritten]] {
        for bytes in [[0, 200_000], [200_000, 0], [150_000, 100_000]] {
            let mut world = plain_world();
            world.add(opening(false), programs(bytes, closes));
            assert!(world.run(DEADLINE_US), "{closes:?} {bytes:?}");
            crate::world::check_flow(&world, 0, true);
        }
    }
}

#[test]
fn a_connection_to_a_port_without_a_listener_is_refused() {
    let mut world = plain_world();
    // The other end's kernel answers with a RST.
    let streams = Streams { out: Pattern::new(0), inward: Pattern::new(1) };
    world.end(0).connect(0, 0, pair(), streams);
    world.wait(2_000_000);
    assert_eq!(world.end(0).status(0), Status::Broken("refused"));
    assert_eq!(world.card(1).passed_to_guest, 1);
    world.end(0).release(0);
    world.wait(1_000_000);
    assert!(world.end(0).all_released());
    world.card(0).check_rest(false);
}

#[test]
fn an_abort_resets_the_peer() {
    let mut world = plain_world();
    world.add(opening(false), programs([0, 150_000], [Close::Abort(20_000), Close::AfterPeer]));
    assert!(world.run(DEADLINE_US));
    let broken = |reason| Some(Outcome::Broken(reason));
    assert_eq!(world.outcomes(0).map(|o| o.cloned()), [broken("aborted by this program"), broken("reset")]);
}

#[test]
fn a_guest_that_stops_reading_closes_the_window_and_opens_it_again() {
    let line = Spec { delay_us: LINE_US, ..Spec::default() };
    let a = plain_card("a", 0, |_| ());
    let b = plain_card("b", 1, |s| s.window_bytes = 5_000);
    let mut world = World::new(a, b, [line; 2], [1, 2]);
    world.sightings = Some(Vec::new());
    let mut programs = programs([400_000, 0], [Close::WhenWritten; 2]);
    let plan = Plan { read_pause_us: 3_000_000, read_bytes: 50_000, ..programs[1].plan().clone() };
    programs[1] = App::new(0, plan);
    world.add(opening(false), programs);
    assert!(world.run(DEADLINE_US));
    crate::world::check_flow(&world, 0, true);
    let sightings = world.sightings.as_ref().unwrap();
    let mut windows = sightings.iter().filter(|s| s.from == 1).map(|s| segment(&s.frame).unwrap().window);
    assert!(windows.any(|w| w == 0), "the window was closed");
}

/// A guest that is slow to answer, as under emulation, is told everything again; its late answers count all the same.
#[test]
fn a_guest_that_answers_late_is_not_told_off() {
    let line = Spec { delay_us: LINE_US, ..Spec::default() };
    let slow = Spec { delay_us: 70_000, ..Spec::default() };
    let card = |end: usize| {
        let mut settings = plain_settings(Family::V4, end);
        settings.receive_bytes_max = 20_000;
        let channel = Channel { to_guest: slow, to_card: slow, guest_buffers: 64 };
        let card = CardEnd::new(["a", "b"][end], &scenario::plain_profile(), settings, &channel, end as u64);
        Node::Card(Box::new(card))
    };
    let mut world = World::new(card(0), card(1), [line; 2], [1, 2]);
    world.add(opening(false), programs([300_000, 200_000], [Close::WhenWritten; 2]));
    assert!(world.run(DEADLINE_US));
    crate::world::check_flow(&world, 0, true);
    // 15 rounds of 20,000 bytes in 140 ms each, and not many more.
    assert!(world.now_us() < 7_000_000, "it took {} us", world.now_us());
    world.wait(REST_US);
    // What is said twice may come after RELEASE, as on a bad channel.
    world.card(0).check_rest(true);
    world.card(1).check_rest(true);
}

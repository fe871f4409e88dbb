//! Hostile input: the card lives, every frame is accounted for, and an honest stream beside it stays byte-exact.

use toe_firmware::{EcnPolicy, Profile, Tcp, Verdict};
use toe_impair::{Random, Spec};

use crate::app::{App, Close, Plan};
use crate::card::{Boxed, CardEnd, Channel};
use crate::end::Pair;
use crate::frames::{Segment, segment};
use crate::intruder::{Intruder, PEACE_US, strange};
use crate::parts::Family;
use crate::tests::scenario::{DEADLINE_US, plain_profile, plain_settings};
use crate::tests::seeds::for_one_seed_in;
use crate::world::{Node, Opening, World, check_flow};

const SEEDS: u64 = 4;

/// The most strange frames in a run.
const STRANGERS_MAX: u64 = 30_000;

/// The ports of the honest connection.
const PORTS: [u16; 2] = [40_000, 7_000];

/// Everything is allowed, so that everything can be attacked.
fn open_profile() -> Profile {
    let plain = plain_profile();
    Profile { tcp: Tcp { fast_open: true, ecn: EcnPolicy::On, ..plain.tcp.clone() }, ..plain }
}

/// An honest stream of 200,000 bytes each way between two cards.
fn honest_world(family: Family, seed: u64) -> World {
    let channel = Channel { to_guest: Spec::default(), to_card: Spec::default(), guest_buffers: 64 };
    let card = |end: usize| {
        let name = ["a", "b"][end];
        let mut settings = plain_settings(family, end);
        // A small window, so that the stream is on the wire for as long as it is read.
        settings.window_bytes = 5_000;
        Node::Card(Box::new(CardEnd::new(name, &open_profile(), settings, &channel, seed + end as u64)))
    };
    let line = Spec { delay_us: 1_000, ..Spec::default() };
    let mut world = World::new(card(0), card(1), [line; 2], [1, 2]);
    let programs = [0, 1].map(|_| {
        let plan = Plan {
            out_bytes: 200_000,
            close: Close::WhenWritten,
            write_bytes: 1_000,
            read_bytes: 1_000,
            // So that the stream lasts from before the strangers come until long after.
            read_pause_us: 20_000,
            idle_us: 0,
            lingers: true,
            patience_us: None,
        };
        App::new(0, plan)
    });
    let end = |end, port| std::net::SocketAddr::new(family.address(end), port);
    let pair = Pair { local: end(0, PORTS[0]), remote: end(1, PORTS[1]) };
    world.add(Opening { accept_us: 0, at_us: 1_000_000, active: 0, is_simultaneous: false, pair, any: None }, programs);
    world
}

fn family(seed: u64) -> Family {
    if seed.is_multiple_of(2) { Family::V4 } else { Family::V6 }
}

#[test]
fn an_intruder_on_the_channel_harms_nobody_else() {
    for_one_seed_in(10, "hostile::an_intruder_on_the_channel_harms_nobody_else", SEEDS, |seed| {
        let mut world = honest_world(family(seed), seed);
        for i in [0, 1] {
            world.oracle(i).unwrap().guest_is_honest = false;
            let end = world.card(i);
            let mac = end.guest().settings().mac;
            end.intruder = Some(Intruder::new(seed * 2 + i as u64, mac, 100));
        }
        assert!(world.run(DEADLINE_US), "the honest stream stopped");
        check_flow(&world, 0, true);
        for i in [0, 1] {
            let end = world.card(i);
            end.card().check_accounts();
            let intruder = end.intruder.as_ref().expect("it was put there");
            assert!(intruder.made > 5_000, "only {} hostile frames", intruder.made);
            assert!(intruder.heard > 100, "the card answered only {} times", intruder.heard);
            assert_eq!(end.guest().errors, [], "the honest process was told off");
            assert_eq!(end.guest().firmware_events, 0, "the honest context was lost");
        }
    });
}

#[test]
fn strangers_on_the_wire_harm_nobody() {
    for_one_seed_in(10, "hostile::strangers_on_the_wire_harm_nobody", SEEDS, |seed| {
        let mut world = honest_world(family(seed), seed);
        let mut random = Random::new(seed);
        let mut count = 0;
        let counted = std::rc::Rc::new(std::cell::Cell::new(0u64));
        let counter = counted.clone();
        world.let_in(Box::new(move |now_us, _, honest| {
            // Answers to strangers are not honest frames to imitate.
            let is_honest = |s: Segment<'_>| [s.source_port, s.destination_port].iter().all(|p| PORTS.contains(p));
            // Answers on the honest connection call for more; there is an end to it.
            if now_us < PEACE_US || count >= STRANGERS_MAX || !segment(honest).is_some_and(is_honest) {
                return Vec::new();
            }
            count += 100;
            counter.set(count);
            (0..100).map(|_| strange(&mut random, honest)).collect()
        }));
        assert!(world.run(DEADLINE_US), "the honest stream stopped");
        check_flow(&world, 0, true);
        world.card(0).card().check_accounts();
        world.card(1).card().check_accounts();
        assert!(counted.get() > 5_000, "only {} strange frames", counted.get());
    });
}

/// Noise of every length on both sides of a card that does nothing else.
#[test]
fn noise_is_survived() {
    for_one_seed_in(10, "hostile::noise_is_survived", SEEDS, |seed| {
        let mut random = Random::new(seed);
        let mut card = Boxed::new(&open_profile(), seed, 1, 0);
        let mut now_us = 0;
        for _ in 0..20_000 {
            now_us += random.below(10_000);
            let most = if random.one_in(50) { 65_600 } else { 120 };
            let mut frame = vec![0; random.below(most) as usize];
            random.fill(&mut frame);
            if frame.len() >= 15 && !random.one_in(4) {
                let ethertypes: [u16; 3] = [0x0800, 0x86dd, toe_abi::ETHERTYPE];
                frame[12..14].copy_from_slice(&ethertypes[random.below(3) as usize].to_be_bytes());
                frame[14] = [0x45, 0x60, 0x46, 0x01][random.below(4) as usize];
            }
            let is_channel = frame.len() >= 14 && frame[12..14] == toe_abi::ETHERTYPE.to_be_bytes();
            let verdict =
                if random.one_in(2) { card.handle_wire(now_us, &frame) } else { card.handle_guest(now_us, &frame) };
            if is_channel {
                assert_eq!(verdict, Verdict::Taken, "a channel frame passes neither way");
            }
            while card.poll_wire(now_us).is_some() {}
            while card.poll_guest(now_us).is_some() {}
            if card.next_us().is_some_and(|due_us| due_us <= now_us) {
                card.handle_timeout(now_us);
            }
        }
        card.check_accounts();
    });
}

//! Worlds for the tests: two ends of a kind, joined by bad links.

use std::net::SocketAddr;

use toe_firmware::{Limits, Profile};
use toe_impair::{Random, Spec};

use crate::app::{App, Close, Plan};
use crate::card::{CardEnd, Channel};
use crate::end::Pair;
use crate::guest;
use crate::host::Host;
use crate::parts::{Family, MACS, bad_channel, bad_link, drawn_profile};
use crate::smol::{self, SmolEnd};
use crate::world::{Node, Opening, World, check_flow};

/// How long a scenario may last, in virtual time.
pub const DEADLINE_US: u64 = 3_600_000_000;

/// How long a program waits where its peer may break the connection.
const PATIENCE_US: u64 = 120_000_000;

/// The most flows of a scenario.
pub const FLOWS_MAX: u32 = 3;

const PORT_PASSIVE: u16 = 7000;
const PORT_ACTIVE: u16 = 40_000;

/// What kind of scenario is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub family: Family,
    /// The end that connects.
    pub active: usize,
    /// Whether one of the programs breaks the connection at some time.
    pub aborts: bool,
    /// Whether both ends connect, to each other.
    pub is_simultaneous: bool,
    /// Whether the channel between guest and card is bad, too.
    pub bad_channel: bool,
    /// Most bytes of a stream.
    pub bytes_max: u64,
    /// Whether only one of the programs of a flow sends.
    pub one_way: bool,
}

impl Kind {
    pub const ORDINARY: Self = Self {
        family: Family::V4,
        active: 0,
        aborts: false,
        is_simultaneous: false,
        bad_channel: false,
        bytes_max: 300_000,
        one_way: false,
    };
}

/// A card that is small, so that its limits are met, and quick to boot. `flows_max`: so many connections can have all
/// the pages that they ever want at the same time.
pub fn profile(random: &mut Random, flows_max: u32) -> Profile {
    let connection_pages = 4u32 << random.below(6);
    let pages = 64.max(flows_max * connection_pages);
    let limits = Limits {
        contexts: 2,
        context_addresses: 4,
        connections: 16,
        listeners: 8,
        backlog: 64,
        half_open: 16,
        time_wait: 32,
        send_pages: pages,
        receive_pages: pages,
        connection_send_pages: connection_pages,
        connection_receive_pages: connection_pages,
        segments: 256,
        events: 16,
        ..Limits::default()
    };
    drawn_profile(random, limits, 6..=10)
}

fn guest_settings(random: &mut Random, family: Family, end: usize) -> guest::Settings {
    let mtu = match family {
        Family::V4 => [576, 1280, 1500, 9000][random.below(4) as usize],
        Family::V6 => [1280, 1500, 9000][random.below(3) as usize],
    };
    let frame_bytes_max = [1514, 9014, 65_549][random.below(3) as usize];
    guest::Settings {
        mac: MACS[end],
        next_hop: MACS[1 - end],
        key: u128::from(random.bits()) << 64 | u128::from(random.bits()),
        addresses: vec![family.address(end)],
        mtu,
        lease_ms: 10_000,
        frame_bytes_max,
        receive_bytes_max: random.between(2_000, 500_000),
        window_bytes: if random.one_in(4) { random.between(1, 3_000) } else { random.between(3_000, 300_000) },
        write_buffer_bytes: random.between(1, 200_000),
        resend_us: 50_000,
        nodelay: random.one_in(2),
        one_message_per_frame: random.one_in(4),
        short_sends: random.one_in(2),
        options: Vec::new(),
    }
}

/// A profile without surprises, for named cases.
pub fn plain_profile() -> Profile {
    let limits = Limits {
        contexts: 2,
        connections: 64,
        listeners: 8,
        half_open: 64,
        time_wait: 128,
        send_pages: 1024,
        receive_pages: 1024,
        connection_send_pages: 32,
        connection_receive_pages: 32,
        transmit_records: 4096,
        ..Limits::default()
    };
    Profile { limits, ..Profile::default() }
}

/// A guest without surprises.
pub fn plain_settings(family: Family, end: usize) -> guest::Settings {
    guest::Settings {
        mac: MACS[end],
        next_hop: MACS[1 - end],
        key: 0xfeed_0000 + end as u128,
        addresses: vec![family.address(end)],
        mtu: 1500,
        lease_ms: 10_000,
        frame_bytes_max: 65_549,
        receive_bytes_max: 1_000_000,
        window_bytes: 100_000,
        write_buffer_bytes: 100_000,
        resend_us: 50_000,
        nodelay: false,
        one_message_per_frame: false,
        short_sends: false,
        options: Vec::new(),
    }
}

/// A card with its guest as end `end`; see [`profile`] for `flows_max`.
pub fn card_end(random: &mut Random, kind: &Kind, end: usize, flows_max: u32) -> Node {
    let mut profile = profile(random, flows_max);
    if kind.is_simultaneous {
        // What the oracle knows of a crossing SYN it knows from its arrival, not from when the processor takes it.
        profile.limits.work_units_per_us = 0;
    }
    let settings = guest_settings(random, kind.family, end);
    let channel = if kind.bad_channel {
        bad_channel(random)
    } else {
        let perfect = Spec::default();
        Channel { to_guest: perfect, to_card: perfect, guest_buffers: random.between(1, 64) }
    };
    let host = Host::drawn(random);
    let card = CardEnd::new(["a", "b"][end], &profile, settings, &channel, random.bits());
    Node::Card(Box::new(card.with_host(host)))
}

/// smoltcp as end `end`, with receive buffers of at least `buffer_bytes_min`.
pub fn smol_end(random: &mut Random, kind: &Kind, end: usize, buffer_bytes_min: u64) -> Node {
    let mut buffer = || random.between(buffer_bytes_min, 150_000) as usize;
    let (receive_buffer_bytes, send_buffer_bytes) = (buffer(), buffer());
    let settings = smol::Settings {
        mac: MACS[end],
        next_hop: MACS[1 - end],
        addresses: vec![kind.family.address(end)],
        mtu: [1280, 1500, 9000][random.below(3) as usize],
        receive_buffer_bytes,
        send_buffer_bytes,
        nagle: random.one_in(2),
        timestamps: random.one_in(2),
        ack_delay_ms: [None, Some(10), Some(100)][random.below(3) as usize],
        cubic: random.one_in(2),
    };
    Node::Smol(Box::new(SmolEnd::new(["a", "b"][end], settings, random.bits())))
}

fn size(random: &mut Random, most: u64) -> u64 {
    match random.below(5) {
        0 => 0,
        1 => random.between(1, 3),
        2 => random.between(1, 5_000.min(most)),
        _ => random.between(1, most),
    }
}

fn plans(random: &mut Random, kind: &Kind) -> [Plan; 2] {
    let mut sizes = [size(random, kind.bytes_max), size(random, kind.bytes_max)];
    if kind.one_way {
        sizes[random.below(2) as usize] = 0;
    }
    // Not both may wait for the other to close first.
    let closes = match random.below(4) {
        0 => [Close::WhenWritten, Close::AfterPeer],
        1 => [Close::AfterPeer, Close::WhenWritten],
        _ => [Close::WhenWritten, Close::WhenWritten],
    };
    let mut plans = [0, 1].map(|i| Plan {
        out_bytes: sizes[i],
        close: closes[i],
        write_bytes: random.between(1, 20_000),
        read_bytes: random.between(1, 50_000),
        read_pause_us: if random.one_in(3) { random.between(1, 20_000) } else { 0 },
        idle_us: 0,
        lingers: random.one_in(2),
        patience_us: kind.aborts.then_some(PATIENCE_US),
    });
    for plan in &mut plans {
        // Small steps through a long stream would take hours.
        plan.write_bytes = plan.write_bytes.max(kind.bytes_max / 500);
        plan.read_bytes = plan.read_bytes.max(kind.bytes_max / 500);
    }
    if kind.aborts {
        let who = random.below(2) as usize;
        plans[who].close = Close::Abort(random.between(0, sizes[0] + sizes[1]));
    }
    plans
}

/// Joins two ends by bad links and gives them one to [`FLOWS_MAX`] flows. `port_each`: every flow goes to a port of its own.
pub fn world(random: &mut Random, kind: &Kind, a: Node, b: Node, port_each: bool) -> World {
    let specs = [bad_link(random), bad_link(random)];
    let world = World::new(a, b, specs, [random.bits(), random.bits()]);
    flows(random, kind, world, port_each)
}

/// Gives a world one to [`FLOWS_MAX`] flows.
pub fn flows(random: &mut Random, kind: &Kind, mut world: World, port_each: bool) -> World {
    for flow in 0..random.between(1, FLOWS_MAX.into()) as u16 {
        let (active, passive) = (kind.active, 1 - kind.active);
        let local = SocketAddr::new(kind.family.address(active), PORT_ACTIVE + flow);
        let port = if port_each { PORT_PASSIVE + flow } else { PORT_PASSIVE };
        let remote = SocketAddr::new(kind.family.address(passive), port);
        let plans = plans(random, kind);
        let [a, b] = plans.map(|plan| App::new(flow.into(), plan));
        let opening = Opening {
            // Later flows meet a channel and connections that are in use. A listener gets the time it needs.
            accept_us: 0,
            at_us: 1_000_000 + random.below(2) * random.below(2_000_000),
            active,
            is_simultaneous: kind.is_simultaneous,
            pair: Pair { local, remote },
            any: random.one_in(2).then(|| kind.family.unspecified()),
        };
        world.add(opening, [a, b]);
    }
    world
}

/// Runs a world to its end and checks the property for every flow.
pub fn run_and_check(world: &mut World, kind: &Kind) {
    let in_time = world.run(DEADLINE_US);
    if !in_time {
        for flow in 0..world.flows() {
            let [a, b] = world.apps(flow);
            println!("flow {flow}: a wrote {} read {}, b wrote {} read {}", a.written, a.read, b.written, b.read);
            println!("flow {flow}: outcomes {:?}, plans {:?} {:?}", world.outcomes(flow), a.plan(), b.plan());
        }
        panic!("the scenario did not end: at {} us of virtual time", world.now_us());
    }
    for flow in 0..world.flows() {
        check_flow(world, flow, !kind.aborts);
    }
}

//! The named scenarios: what a seed is made into.
//!
//! Each is a first, bad time, in which links, channels, guests and peers do what the name says, and a second, in which
//! links delay and do nothing else. In the first whatever holds always must hold; in the second everything must also come to
//! its end: every program, every connection, every buffer.
//!
//! Everything is drawn from streams of chance with names of their own ([`Seed`]), so that a scenario can draw more
//! without changing what it drew before.

use std::net::{IpAddr, SocketAddr};

use toe_abi::option;
use toe_firmware::{EcnPolicy, Limits, Profile};
use toe_impair::{Burst, Random, Rate, Share, Spec};

use crate::adversary::Adversary;
use crate::app::{App, Close, Plan};
use crate::card::{CardEnd, Channel};
use crate::chance::Seed;
use crate::end::Pair;
use crate::frames::{ACK, Make, SYN};
use crate::guest;
use crate::host::Host;
use crate::intruder::{Intruder, strange};
use crate::parts::{Family, MACS, bad_channel, bad_link, drawn_profile};
use crate::smol::{self, SmolEnd};
use crate::world::{Action, Node, Opening, World};

/// Listeners get so long before anybody connects.
const START_US: u64 = 300_000;
/// How long a program waits for anything where its peer may be gone without a word.
const PATIENCE_US: u64 = 120_000_000;
/// After the last connection: TIME-WAIT, and what a forgotten peer makes the card repeat.
const REST_US: u64 = 200_000_000;
/// The longest lease that a card grants, and then some: what a hostile process has begun is over.
const LONG_REST_US: u64 = 900_000_000;

/// More segments than smoltcp's largest window has.
const WINDOW_FRAMES: u32 = 256;

const PORT_PASSIVE: u16 = 7_000;
const PORT_ACTIVE: u16 = 40_000;

/// What stands at the two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Ends {
    /// Two cards, or a card and smoltcp, by the seed.
    Drawn,
    /// Two cards.
    Cards,
    /// Smoltcp twice: for comparing rates.
    Smoltcp,
}

/// A scenario, ready to run.
pub struct Scene {
    pub world: World,
    /// When the bad time is over.
    pub mended_us: u64,
    /// Whether every connection must end in order at both ends.
    pub is_clean: bool,
    /// Whether connections are opened from both ends: a fault can keep one of them back, and the other is refused.
    pub is_crossing: bool,
    /// Whether programs of a flow may be those of different connections, as 4-tuples are used again.
    pub is_paired: bool,
    /// Whether the channel delays and repeats words.
    pub may_be_late: bool,
    /// How long nothing may be left after.
    pub rest_us: u64,
}

/// A named scenario.
pub struct Named {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) build: fn(&Draw) -> Scene,
}

/// How many of them are the base.
pub const BASE: usize = 12;

/// Every scenario; the first twelve are the base.
pub const ALL: &[Named] = &[
    Named { name: "open", about: "many short connections, a few at a time", build: open },
    Named { name: "bulk", about: "one or two long streams over a link with a rate", build: bulk },
    Named { name: "loss", about: "loss alone and in stretches, reordering, duplicates, damage", build: loss },
    Named { name: "close", about: "half-closes in every order, lost FINs", build: close },
    Named { name: "simultaneous-close", about: "opened and closed by both ends at once", build: simultaneous_close },
    Named { name: "rst", about: "programs that break their connections at any time", build: rst },
    Named { name: "zero-window", about: "readers that rest for seconds, windows that close", build: zero_window },
    Named { name: "sack-recovery", about: "stretches of loss in large windows", build: sack_recovery },
    Named { name: "keep-alive", about: "idle connections, some cut off for a while or for ever", build: keep_alive },
    Named { name: "time-wait-reuse", about: "the same 4-tuple again and again", build: time_wait_reuse },
    Named { name: "flood", about: "SYNs and segments from strangers beside honest streams", build: flood },
    Named { name: "driver-reset", about: "drivers that leave or vanish, and come again", build: driver_reset },
    Named { name: "channel", about: "a channel that loses, repeats and reorders frames", build: channel },
    Named { name: "ecn", about: "routers that mark instead of dropping", build: ecn },
    Named { name: "mtu", about: "a path whose MTU changes, with and without a word", build: mtu },
    Named { name: "partition", about: "links cut for up to five minutes", build: partition },
    Named { name: "liar", about: "a hostile process in the same guest", build: liar },
    Named { name: "adversary", about: "a peer that says what no honest TCP says", build: adversary },
];

/// The scenario of that name.
pub fn named(name: &str) -> Option<&'static Named> {
    ALL.iter().find(|s| s.name == name)
}

/// The scenario that a seed is if none is asked for.
pub fn drawn(seed: Seed) -> &'static Named {
    &ALL[seed.stream("scenario").below(ALL.len() as u64) as usize]
}

/// What scenarios draw from.
pub struct Draw {
    pub seed: Seed,
    pub ends: Ends,
}

/// A card before it boots.
struct Card {
    profile: Profile,
    settings: guest::Settings,
    channel: Channel,
    host: Host,
}

impl Draw {
    fn stream(&self, purpose: &str) -> Random {
        self.seed.stream(purpose)
    }

    fn family(&self) -> Family {
        if self.stream("family").one_in(2) { Family::V6 } else { Family::V4 }
    }

    fn active(&self) -> usize {
        self.stream("active").below(2) as usize
    }

    /// A small card with every limit drawn; `flows` connections can have all the pages that they want.
    fn card(&self, end: usize, flows: u64) -> Card {
        let mut random = self.seed.stream_of("profile", end as u64);
        let pages_each = 4u32 << random.below(4);
        let connections = if flows > 4 { 64 } else { 16 };
        let pages = (flows as u32 * pages_each).max(2 * connections);
        let limits = Limits {
            contexts: 3,
            context_addresses: 4,
            connections,
            listeners: 64,
            half_open: 32,
            time_wait: 128,
            send_pages: pages,
            receive_pages: pages,
            connection_send_pages: pages_each,
            connection_receive_pages: pages_each,
            ..Limits::default()
        };
        let profile = drawn_profile(&mut random, limits, 8..=10);
        let mut random = self.seed.stream_of("guest", end as u64);
        let mtus: &[u32] =
            if self.family() == Family::V4 { &[576, 1500, 1500, 9000] } else { &[1280, 1500, 1500, 9000] };
        let settings = guest::Settings {
            mac: MACS[end],
            next_hop: MACS[1 - end],
            key: u128::from(random.bits() >> 1) << 32 | u128::from(random.bits() >> 32),
            addresses: vec![self.family().address(end)],
            mtu: mtus[random.below(mtus.len() as u64) as usize],
            lease_ms: 60_000,
            frame_bytes_max: [1514, 9014, 65_549][random.below(3) as usize],
            receive_bytes_max: random.between(2_000, 500_000),
            window_bytes: if random.one_in(6) { random.between(1, 3_000) } else { random.between(3_000, 300_000) },
            write_buffer_bytes: if random.one_in(6) {
                random.between(1, 3_000)
            } else {
                random.between(3_000, 200_000)
            },
            resend_us: 50_000,
            nodelay: random.one_in(2),
            one_message_per_frame: random.one_in(4),
            short_sends: random.one_in(4),
            options: Vec::new(),
        };
        let host = Host::drawn(&mut self.seed.stream_of("host", end as u64));
        let channel = Channel { to_guest: Spec::default(), to_card: Spec::default(), guest_buffers: 64 };
        Card { profile, settings, channel, host }
    }

    fn boot(&self, end: usize, card: Card) -> CardEnd {
        let seed = self.seed.stream_of("card", end as u64).bits();
        CardEnd::new(["a", "b"][end], &card.profile, card.settings, &card.channel, seed).with_host(card.host)
    }

    fn smoltcp(&self, end: usize, buffer_bytes_max: u64) -> Node {
        let mut random = self.seed.stream_of("smoltcp", end as u64);
        let mut buffer = || random.between(1_000, buffer_bytes_max) as usize;
        let (receive_buffer_bytes, send_buffer_bytes) = (buffer(), buffer());
        let settings = smol::Settings {
            mac: MACS[end],
            next_hop: MACS[1 - end],
            addresses: vec![self.family().address(end)],
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

    /// Two ends: cards, changed by `change`, of which one may be smoltcp instead if `buffer_bytes_max` says how large its
    /// sockets may be.
    fn two(&self, flows: u64, buffer_bytes_max: Option<u64>, change: impl Fn(usize, &mut Card)) -> [Node; 2] {
        let mut random = self.stream("ends");
        let other = random.below(8) as usize;
        [0, 1].map(|end| match (buffer_bytes_max, self.ends) {
            (Some(most), Ends::Drawn) if other == end => self.smoltcp(end, most),
            (Some(most), Ends::Smoltcp) => self.smoltcp(end, most),
            _ => {
                let mut card = self.card(end, flows);
                change(end, &mut card);
                if buffer_bytes_max.is_some() && other == 1 - end {
                    // Smoltcp may have no congestion control: after a timeout, which nothing that was repeated ever
                    // shortens, it sends its whole window at once. A card that cannot hold that until its processor
                    // comes to it loses the same part again, once a minute.
                    card.profile.limits.wire_fifo_frames = WINDOW_FRAMES.max(card.profile.limits.wire_fifo_frames);
                }
                Node::Card(Box::new(self.boot(end, card)))
            }
        })
    }

    /// A world of two ends with such links, until the bad time is over.
    fn world(&self, [a, b]: [Node; 2], links: [Spec; 2]) -> Scene {
        let seeds = [0, 1].map(|i| self.seed.stream_of("link", i).bits());
        let mut world = World::new(a, b, links, seeds);
        let mended_us = START_US + self.stream("mended").between(200_000, 20_000_000);
        world.at(mended_us, Action::Mend);
        Scene::new(world, mended_us, REST_US)
    }

    /// Both directions of a line that does nothing worse than delay.
    fn line(&self) -> [Spec; 2] {
        let mut random = self.stream("line");
        let delay_us = [5, 50, 500, 5_000, 40_000][random.below(5) as usize];
        let jitter_us = if random.one_in(2) { random.below(delay_us) } else { 0 };
        [Spec { delay_us, jitter_us, ..Spec::default() }; 2]
    }

    fn bad_links(&self) -> [Spec; 2] {
        let mut random = self.stream("bad links");
        [bad_link(&mut random), bad_link(&mut random)]
    }

    fn pair(&self, flow: u64, is_listener_shared: bool) -> Pair {
        let active = self.active();
        let family = self.family();
        let local = SocketAddr::new(family.address(active), PORT_ACTIVE + flow as u16);
        let port = if is_listener_shared { PORT_PASSIVE } else { PORT_PASSIVE + flow as u16 };
        Pair { local, remote: SocketAddr::new(family.address(1 - active), port) }
    }

    fn opening(&self, flow: u64, at_us: u64, is_listener_shared: bool) -> Opening {
        let any = self.seed.stream_of("listener", flow).one_in(2).then(|| self.family().unspecified());
        Opening {
            accept_us: 0,
            at_us,
            active: self.active(),
            is_simultaneous: false,
            pair: self.pair(flow, is_listener_shared),
            any,
        }
    }

    /// Two programs with up to `bytes_max` each way.
    fn plans(&self, flow: u64, bytes_max: u64) -> [Plan; 2] {
        let mut random = self.seed.stream_of("program", flow);
        let mut size = || match random.below(5) {
            0 => 0,
            1 => random.between(1, 3.min(bytes_max)),
            2 => random.between(1, 5_000.min(bytes_max)),
            _ => random.between(1, bytes_max),
        };
        let sizes = [size(), size()];
        // Not both may wait for the other to close first.
        let closes = match random.below(4) {
            0 => [Close::WhenWritten, Close::AfterPeer],
            1 => [Close::AfterPeer, Close::WhenWritten],
            _ => [Close::WhenWritten, Close::WhenWritten],
        };
        [0, 1].map(|i| Plan {
            out_bytes: sizes[i],
            close: closes[i],
            // Small steps through a long stream would take hours.
            write_bytes: random.between(1, 20_000).max(bytes_max / 200),
            read_bytes: random.between(1, 50_000).max(bytes_max / 200),
            read_pause_us: if random.one_in(6) { random.between(1, 20_000) } else { 0 },
            idle_us: 0,
            lingers: random.one_in(2),
            patience_us: None,
        })
    }
}

impl Scene {
    /// One of which nothing special is known.
    pub fn new(world: World, mended_us: u64, rest_us: u64) -> Self {
        let (is_clean, is_crossing, is_paired, may_be_late) = (true, false, true, false);
        Self { world, mended_us, is_clean, is_crossing, is_paired, may_be_late, rest_us }
    }

    pub fn add(&mut self, opening: Opening, plans: [Plan; 2]) {
        let flow = self.world.flows();
        let [a, b] = plans.map(|plan| App::new(flow, plan));
        self.world.add(opening, [a, b]);
    }

    /// Adds `flows` flows that begin within `spread_us`.
    fn flows(&mut self, draw: &Draw, flows: u64, spread_us: u64, plans: impl Fn(u64) -> [Plan; 2]) {
        // Smoltcp's sockets take whoever comes first; beside it, each flow has a port of its own.
        let is_listener_shared = [0, 1].iter().all(|&i| self.world.try_card(i).is_some());
        for flow in 0..flows {
            let at_us = START_US + draw.seed.stream_of("opening", flow).below(spread_us + 1);
            self.add(draw.opening(flow, at_us, is_listener_shared), plans(flow));
        }
    }
}

fn patient(mut plans: [Plan; 2]) -> [Plan; 2] {
    for plan in &mut plans {
        plan.patience_us = Some(PATIENCE_US);
    }
    plans
}

fn few(draw: &Draw) -> u64 {
    draw.stream("flows").between(1, 3)
}

fn open(draw: &Draw) -> Scene {
    let flows = draw.stream("flows").between(8, 32);
    let ends = draw.two(8, Some(5_000), |_, card| {
        card.settings.write_buffer_bytes = card.settings.write_buffer_bytes.max(2_000);
        card.settings.window_bytes = card.settings.window_bytes.max(2_000);
    });
    let mut links = draw.line();
    for link in &mut links {
        link.loss = Share::from_ppm(if draw.stream("lossy").one_in(3) { 20_000 } else { 0 });
    }
    let mut scene = draw.world(ends, links);
    // About four at a time.
    let spread_us = flows * (2 * links[0].delay_us + 300);
    scene.flows(draw, flows, spread_us, |flow| {
        let mut plans = draw.plans(flow, 2_000);
        for plan in &mut plans {
            (plan.write_bytes, plan.read_bytes, plan.read_pause_us) = (2_000, 2_000, 0);
        }
        plans
    });
    scene
}

fn bulk(draw: &Draw) -> Scene {
    let mut random = draw.stream("bulk");
    // Long streams in large steps: what is small is looked at elsewhere.
    let ends = draw.two(3, Some(150_000), |_, card| {
        let settings = &mut card.settings;
        settings.mtu = settings.mtu.max(1_280);
        settings.window_bytes = settings.window_bytes.max(30_000);
        settings.receive_bytes_max = settings.receive_bytes_max.max(30_000);
        settings.write_buffer_bytes = settings.write_buffer_bytes.max(30_000);
        (settings.one_message_per_frame, settings.short_sends) = (false, false);
        card.host.late_us = card.host.late_us.min(200);
    });
    let mut links = draw.line();
    for link in &mut links {
        link.loss = Share::from_ppm([0, 0, 100, 2_000][random.below(4) as usize]);
        if random.one_in(2) {
            let bits_per_s = random.between(10_000_000, 1_000_000_000);
            link.rate = Some(Rate { bits_per_s, queue_bytes: random.between(50_000, 500_000) });
        }
    }
    let mut scene = draw.world(ends, links);
    scene.flows(draw, random.between(1, 2), 100_000, |flow| {
        let mut plans = draw.plans(flow, 600_000);
        let sender = draw.seed.stream_of("sender", flow).below(2) as usize;
        plans[sender].out_bytes = 200_000 + 2 * plans[sender].out_bytes;
        plans[1 - sender].out_bytes = 0;
        for plan in &mut plans {
            plan.write_bytes = plan.write_bytes.max(20_000);
            plan.read_bytes = plan.read_bytes.max(50_000);
        }
        plans
    });
    scene
}

fn loss(draw: &Draw) -> Scene {
    let mut links = draw.bad_links();
    let mut random = draw.stream("burst");
    for link in &mut links {
        if random.one_in(2) {
            let ppm = |random: &mut Random, low, high| Share::from_ppm(random.between(low, high) as u32);
            link.burst = Some(Burst {
                begin: ppm(&mut random, 1_000, 20_000),
                end: ppm(&mut random, 100_000, 600_000),
                loss: ppm(&mut random, 500_000, 1_000_000),
            });
        }
        if random.one_in(3) {
            link.exponential_us = random.between(1, link.delay_us.max(2));
        }
    }
    let mut scene = draw.world(draw.two(4, Some(150_000), |_, _| ()), links);
    scene.flows(draw, few(draw), 2_000_000, |flow| draw.plans(flow, 150_000));
    scene
}

fn close(draw: &Draw) -> Scene {
    let mut links = draw.line();
    let mut random = draw.stream("close");
    for link in &mut links {
        link.loss = Share::from_ppm([0, 50_000, 200_000][random.below(3) as usize]);
        link.reorder = Share::from_ppm([0, 100_000][random.below(2) as usize]);
        link.duplicate = Share::from_ppm([0, 100_000][random.below(2) as usize]);
    }
    let mut scene = draw.world(draw.two(4, Some(20_000), |_, _| ()), links);
    scene.flows(draw, draw.stream("flows").between(1, 6), 200_000, |flow| draw.plans(flow, 3_000));
    scene
}

fn simultaneous_close(draw: &Draw) -> Scene {
    let mut links = draw.line();
    let mut random = draw.stream("simultaneous");
    for link in &mut links {
        link.loss = Share::from_ppm([0, 0, 50_000][random.below(3) as usize]);
    }
    let ends = draw.two(4, None, |_, _| ());
    let mut scene = draw.world(ends, links);
    scene.is_crossing = true;
    for flow in 0..random.between(1, 4) {
        let bytes = random.below(2) * random.below(20_000);
        let plans = [0, 1].map(|_| Plan {
            out_bytes: bytes,
            close: Close::WhenWritten,
            write_bytes: 20_000,
            read_bytes: 20_000,
            read_pause_us: 0,
            idle_us: [0, 300_000][random.below(2) as usize],
            lingers: true,
            patience_us: None,
        });
        let opening = draw.opening(flow, START_US + random.below(10_000), true);
        scene.add(Opening { is_simultaneous: true, ..opening }, plans);
    }
    scene
}

fn rst(draw: &Draw) -> Scene {
    let links = if draw.stream("lossy").one_in(2) { draw.bad_links() } else { draw.line() };
    let mut scene = draw.world(draw.two(4, Some(50_000), |_, _| ()), links);
    scene.is_clean = false;
    scene.flows(draw, draw.stream("flows").between(1, 6), 500_000, |flow| {
        let mut plans = patient(draw.plans(flow, 30_000));
        let mut random = draw.seed.stream_of("abort", flow);
        let bytes = plans[0].out_bytes + plans[1].out_bytes;
        plans[random.below(2) as usize].close = Close::Abort(random.between(0, bytes));
        plans
    });
    scene
}

fn zero_window(draw: &Draw) -> Scene {
    let mut links = draw.line();
    let mut random = draw.stream("zero window");
    for link in &mut links {
        link.loss = Share::from_ppm([0, 10_000, 100_000][random.below(3) as usize]);
    }
    let ends = draw.two(4, None, |_, card| {
        card.settings.window_bytes = card.settings.window_bytes.clamp(1_000, 10_000);
        card.settings.receive_bytes_max = card.settings.receive_bytes_max.min(10_000);
    });
    let mut scene = draw.world(ends, links);
    scene.flows(draw, few(draw), 500_000, |flow| {
        let mut plans = draw.plans(flow, 60_000);
        let mut random = draw.seed.stream_of("rests", flow);
        for plan in &mut plans {
            plan.read_pause_us = random.between(100_000, 8_000_000);
            // What its program has left, the card gives up after eight probes of a closed window.
            plan.lingers = true;
            plan.read_bytes = plan.read_bytes.max(6_000);
        }
        plans
    });
    scene
}

fn sack_recovery(draw: &Draw) -> Scene {
    let mut links = draw.line();
    let mut random = draw.stream("stretches");
    for link in &mut links {
        link.burst = Some(Burst {
            begin: Share::from_ppm(random.between(2_000, 30_000) as u32),
            end: Share::from_ppm(random.between(50_000, 500_000) as u32),
            loss: Share::from_ppm(random.between(300_000, 1_000_000) as u32),
        });
        link.reorder = Share::from_ppm([0, 20_000][random.below(2) as usize]);
    }
    let ends = draw.two(3, None, |_, card| {
        card.settings.window_bytes = card.settings.window_bytes.max(60_000);
        card.settings.write_buffer_bytes = card.settings.write_buffer_bytes.max(60_000);
        card.profile.limits.connection_send_pages = 32;
        card.profile.limits.connection_receive_pages = 32;
    });
    let mut scene = draw.world(ends, links);
    scene.flows(draw, random.between(1, 2), 100_000, |flow| draw.plans(flow, 300_000));
    scene
}

fn cut(spec: Spec) -> Spec {
    Spec { loss: Share::ALL, ..spec }
}

fn keep_alive(draw: &Draw) -> Scene {
    let links = draw.line();
    let mut random = draw.stream("keep-alive");
    let (idle_ms, interval_ms, probes) = (random.between(300, 4_000), random.between(300, 2_000), random.between(2, 9));
    let ends = draw.two(8, None, |_, card| {
        card.settings.options = vec![
            (option::KEEP_ALIVE_IDLE_MS, idle_ms),
            (option::KEEP_ALIVE_INTERVAL_MS, interval_ms),
            (option::KEEP_ALIVE_PROBES, probes),
        ];
    });
    let mut scene = draw.world(ends, links);
    if random.one_in(2) {
        let at_us = START_US + random.between(500_000, 10_000_000);
        let until_us = at_us + random.between(100_000, 60_000_000);
        for (i, &link) in links.iter().enumerate().take(1 + random.below(2) as usize) {
            scene.world.at(at_us, Action::Link(i, cut(link)));
            scene.world.at(until_us, Action::Link(i, link));
        }
        scene.mended_us = scene.mended_us.max(until_us);
        scene.is_clean = false;
    }
    scene.flows(draw, draw.stream("flows").between(1, 8), 500_000, |flow| {
        let mut plans = patient(draw.plans(flow, 3_000));
        let mut random = draw.seed.stream_of("idle", flow);
        for plan in &mut plans {
            plan.idle_us = random.between(100_000, 50_000_000);
        }
        plans
    });
    scene
}

fn time_wait_reuse(draw: &Draw) -> Scene {
    let mut links = draw.line();
    let mut random = draw.stream("reuse");
    for link in &mut links {
        link.duplicate = Share::from_ppm([0, 50_000, 300_000][random.below(3) as usize]);
        link.reorder = Share::from_ppm([0, 50_000, 300_000][random.below(3) as usize]);
        link.loss = Share::from_ppm([0, 20_000][random.below(2) as usize]);
    }
    let ends = draw.two(8, None, |_, card| card.profile.tcp.msl_ms = 2_000);
    let mut scene = draw.world(ends, links);
    (scene.is_clean, scene.is_paired) = (false, false);
    let mut at_us = START_US;
    let bytes = random.below(5_000);
    for _ in 0..random.between(3, 12) {
        let mut opening = draw.opening(0, at_us, true);
        opening.accept_us = at_us;
        let mut plans = draw.plans(0, 1);
        for (i, plan) in plans.iter_mut().enumerate() {
            plan.out_bytes = bytes;
            (plan.write_bytes, plan.read_bytes, plan.read_pause_us) = (5_000, 5_000, 0);
            plan.patience_us = Some(5_000_000);
            // The listener's end closes first, so that it is the one that waits.
            plan.close = if i == opening.active { Close::AfterPeer } else { Close::WhenWritten };
        }
        scene.add(opening, plans);
        at_us += random.between(1_000, 3_000_000);
    }
    scene
}

fn flood(draw: &Draw) -> Scene {
    let links = draw.line();
    let ends = draw.two(4, None, |_, _| ());
    let mut scene = draw.world(ends, links);
    scene.is_clean = false;
    scene.flows(draw, few(draw), 1_000_000, |flow| patient(draw.plans(flow, 20_000)));
    let mut random = draw.stream("strangers");
    let ports = [PORT_ACTIVE, PORT_ACTIVE + 2];
    let mut left = random.between(100, 2_000);
    let most = random.between(1, 20);
    scene.world.let_in(Box::new(move |_, _, honest| {
        // Answers to strangers are no frames to imitate.
        let is_honest = crate::frames::segment(honest)
            .is_some_and(|s| [s.source_port, s.destination_port].iter().any(|p| (ports[0]..=ports[1]).contains(p)));
        let count = if is_honest { most.min(left) } else { 0 };
        left -= count;
        (0..count)
            .map(
                |_| {
                    if random.one_in(2) { syn_of_a_stranger(&mut random, honest) } else { strange(&mut random, honest) }
                },
            )
            .collect()
    }));
    scene
}

/// A SYN from anywhere to where an honest segment goes.
fn syn_of_a_stranger(random: &mut Random, honest: &[u8]) -> Vec<u8> {
    let Some(s) = crate::frames::segment(honest) else { return Vec::new() };
    let source = match s.source {
        IpAddr::V4(_) => IpAddr::from([198, 51, 100, random.bits() as u8]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, random.bits() as u16]),
    };
    let options = [2, 4, 5, 180, 4, 2, 1, 1, 1, 3, 3, 7];
    let make = Make {
        source,
        destination: s.destination,
        source_port: random.between(1, 39_999) as u16,
        destination_port: s.destination_port,
        seq: random.bits() as u32,
        ack: random.bits() as u32,
        flags: if random.one_in(8) { ACK } else { SYN },
        window: random.bits() as u16,
        urgent: 0,
        options: &options[..4 * random.below(4) as usize],
        payload: &[],
    };
    make.frame(&honest[..12])
}

fn driver_reset(draw: &Draw) -> Scene {
    let mut random = draw.stream("driver");
    let ends = draw.two(8, None, |_, card| card.settings.lease_ms = 2_000);
    let mut scene = draw.world(ends, draw.line());
    scene.is_clean = false;
    let (end, says_bye) = (random.below(2) as usize, random.one_in(2));
    let (at_us, pause_us) = (START_US + random.below(2_000_000), random.below(3_000_000));
    scene.world.at(at_us, Action::ResetDriver(end, pause_us, says_bye));
    scene.flows(draw, few(draw), 1_000_000, |flow| patient(draw.plans(flow, 100_000)));
    // And afterwards, when the old lease is over and the listeners are there again, everything is as it was.
    let again_us = at_us + pause_us + 8_000_000;
    for flow in 10..12 {
        let opening = draw.opening(flow, again_us + 1_000_000, true);
        scene.add(Opening { accept_us: again_us, ..opening }, patient(draw.plans(flow, 20_000)));
    }
    scene
}

fn channel(draw: &Draw) -> Scene {
    let ends = draw.two(4, None, |end, card| {
        card.channel = bad_channel(&mut draw.seed.stream_of("channel", end as u64));
    });
    let links = if draw.stream("lossy").one_in(2) { draw.bad_links() } else { draw.line() };
    let mut scene = draw.world(ends, links);
    scene.may_be_late = true;
    scene.flows(draw, few(draw), 1_000_000, |flow| draw.plans(flow, 60_000));
    scene
}

fn ecn(draw: &Draw) -> Scene {
    let mut links = draw.line();
    let mut random = draw.stream("marks");
    for link in &mut links {
        link.mark = Share::from_ppm(random.between(1_000, 500_000) as u32);
        link.loss = Share::from_ppm([0, 10_000][random.below(2) as usize]);
    }
    let ends = draw.two(3, None, |_, card| card.profile.tcp.ecn = EcnPolicy::On);
    let mut scene = draw.world(ends, links);
    scene.flows(draw, few(draw), 500_000, |flow| draw.plans(flow, 150_000));
    scene
}

fn mtu(draw: &Draw) -> Scene {
    let links = draw.line();
    let mut random = draw.stream("mtu");
    let ends = draw.two(3, None, |_, card| card.settings.mtu = card.settings.mtu.max(1_500));
    let mut scene = draw.world(ends, links);
    for _ in 0..random.between(1, 3) {
        let at_us = START_US + random.below(3_000_000);
        let i = random.below(2) as usize;
        let mtu = Some(random.between(1_280, 1_500) as u32);
        let loss = Share::from_ppm([0, 20_000][random.below(2) as usize]);
        scene.world.at(at_us, Action::Link(i, Spec { mtu, loss, ..links[i] }));
    }
    scene.flows(draw, few(draw), 500_000, |flow| draw.plans(flow, 200_000));
    scene
}

fn partition(draw: &Draw) -> Scene {
    let links = draw.line();
    let mut random = draw.stream("partition");
    let ends = draw.two(4, None, |_, _| ());
    let mut scene = draw.world(ends, links);
    let at_us = START_US + random.below(1_000_000);
    let until_us = at_us + [10_000, 1_000_000, 20_000_000, 300_000_000][random.below(4) as usize];
    for (i, &link) in links.iter().enumerate().take(1 + random.below(2) as usize) {
        scene.world.at(at_us, Action::Link(i, cut(link)));
        scene.world.at(until_us, Action::Link(i, link));
    }
    scene.mended_us = scene.mended_us.max(until_us);
    // A SYN is given up after three minutes.
    scene.is_clean = false;
    scene.flows(draw, few(draw), 500_000, |flow| {
        let mut plans = draw.plans(flow, 100_000);
        for plan in &mut plans {
            plan.patience_us = Some(2_000_000_000);
        }
        plans
    });
    scene
}

fn liar(draw: &Draw) -> Scene {
    let ends = [0, 1].map(|end| {
        let mut card = self::Draw::card(draw, end, 8);
        card.settings.window_bytes = card.settings.window_bytes.min(20_000);
        let mac = card.settings.mac;
        let mut booted = draw.boot(end, card);
        let mut random = draw.seed.stream_of("intruder", end as u64);
        let each = random.between(1, 20);
        booted.intruder = Some(Intruder::new(random.bits(), mac, each));
        Node::Card(Box::new(booted))
    });
    let mut scene = draw.world(ends, draw.line());
    for i in [0, 1] {
        if let Some(oracle) = scene.world.oracle(i) {
            (oracle.guest_is_honest, oracle.peer_is_honest) = (false, false);
        }
    }
    // It may take what pools there are, and connect to the honest listener.
    scene.is_clean = false;
    scene.rest_us = LONG_REST_US;
    scene.flows(draw, few(draw), 500_000, |flow| patient(draw.plans(flow, 20_000)));
    scene
}

fn adversary(draw: &Draw) -> Scene {
    let end = draw.stream("adversary's end").below(2) as usize;
    let ends = [0, 1].map(|i| {
        if i == end {
            let random = draw.stream("adversary");
            return Node::Adversary(Box::new(Adversary::new(["a", "b"][i], MACS[i], MACS[1 - i], random)));
        }
        Node::Card(Box::new(draw.boot(i, draw.card(i, 8))))
    });
    let mut scene = draw.world(ends, draw.line());
    scene.is_clean = false;
    let is_simultaneous = draw.stream("simultaneous").one_in(6);
    for flow in 0..draw.stream("flows").between(1, 4) {
        let at_us = START_US + draw.seed.stream_of("opening", flow).below(500_000);
        let plans = patient(draw.plans(flow, 20_000));
        let mut opening = draw.opening(flow, at_us, true);
        opening.is_simultaneous = is_simultaneous;
        let number = scene.world.flows();
        let mut apps = plans.map(|plan| App::new(number, plan));
        apps[end] = App::absent();
        scene.world.add(opening, apps);
    }
    scene
}

//! Worlds that follow from a string of bytes, for a fuzzer that watches which code of the firmware a string reaches.
//!
//! A string is a few bytes that set up two cards and their line, and then records of four bytes, each a thing that
//! happens: a connection, a fault at a passage of a site, a link that changes or is cut, a driver that goes, a stranger's frame.
//! Bytes that are missing are zero, and every string makes sense, so whatever a fuzzer does to one, most of what happened
//! in it happens still. It runs as any scenario does: the bad time, the good time, the end, and everything that must hold.
//!
//! What bounds a string: [`RECORDS_MAX`] records and [`FLOWS_MAX`] connections of at most 20,000 bytes each way, [`DRIVERS_MAX`] new drivers.

use std::net::SocketAddr;

use toe_abi::option;
use toe_faults::{Action as Fault, Rules};
use toe_firmware::{EcnPolicy, Limits, Profile, Tcp};
use toe_impair::{Burst, Random, Rate, Share, Spec};

use crate::app::{Close, Plan};
use crate::card::{CardEnd, Channel};
use crate::end::Pair;
use crate::frames::segment;
use crate::guest;
use crate::host::Host;
use crate::intruder::strange;
use crate::parts::{CONTROLS, Family, MACS};
use crate::run::{Counts, Faults, hold};
use crate::scenes::Scene;
use crate::singles::{AROUND, Strike, actions, rules};
use crate::world::{Action, Node, Opening, World};

/// Records behind these are not read.
const RECORDS_MAX: usize = 48;
/// Connections behind these are not opened.
const FLOWS_MAX: usize = 4;
/// Nor do more drivers begin at a card, each before the card knows that the one before it is gone.
const DRIVERS_MAX: u32 = 3;

const START_US: u64 = 300_000;
const MENDED_US: u64 = 6_000_000;
const REST_US: u64 = 200_000_000;
/// How long a program waits where its peer may be gone without a word.
const PATIENCE_US: u64 = 120_000_000;

/// A string, with zeros behind it.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.next()) % of.len()]
    }

    fn bit(&mut self) -> bool {
        self.next() & 1 != 0
    }
}

/// A time in the bad time: fine steps at first.
fn time_us(byte: u8) -> u64 {
    START_US + u64::from(byte).pow(2) * 60
}

fn card(bytes: &mut Bytes<'_>, family: Family, end: usize) -> CardEnd {
    let pages_each = bytes.pick(&[4, 2, 8, 16]);
    let limits = Limits {
        contexts: 1 + DRIVERS_MAX,
        context_addresses: 2,
        connections: 8,
        listeners: 8,
        half_open: 4,
        time_wait: 4,
        page_bytes: bytes.pick(&[1024, 2048]),
        send_pages: 8 * pages_each,
        receive_pages: 8 * pages_each,
        connection_send_pages: pages_each,
        connection_receive_pages: pages_each,
        transmit_records: 256,
        out_of_order_ranges: bytes.pick(&[32, 1, 4]),
        replies: 64,
        receive_fifo_frames: 64,
        work_units_per_us: bytes.pick(&[0, 20, 1]),
        wire_fifo_frames: bytes.pick(&[64, 4]),
        ..Limits::default()
    };
    let tcp = Tcp {
        congestion: bytes.pick(&CONTROLS),
        ecn: bytes.pick(&[EcnPolicy::On, EcnPolicy::WhenAsked]),
        delayed_ack_ms: bytes.pick(&[40, 0, 400]),
        fast_open: bytes.bit(),
        msl_ms: bytes.pick(&[1_000, 60_000]),
        ..Tcp::default()
    };
    let keeps_alive = bytes.pick(&[0, 0, 500, 3_000]);
    let settings = guest::Settings {
        mac: MACS[end],
        next_hop: MACS[1 - end],
        key: 0xfeed_0000 + end as u128,
        addresses: vec![family.address(end)],
        mtu: bytes.pick(&[1500, 1280, 9000]),
        lease_ms: bytes.pick(&[60_000, 2_000]),
        frame_bytes_max: bytes.pick(&[65_549, 1514]),
        receive_bytes_max: bytes.pick(&[500_000, 4_000]),
        window_bytes: bytes.pick(&[60_000, 100, 1_000, 5_000, 300_000]),
        write_buffer_bytes: bytes.pick(&[60_000, 100, 2_000]),
        resend_us: 50_000,
        nodelay: bytes.bit(),
        one_message_per_frame: bytes.bit(),
        short_sends: bytes.bit(),
        options: if keeps_alive == 0 {
            Vec::new()
        } else {
            vec![(option::KEEP_ALIVE_IDLE_MS, keeps_alive), (option::KEEP_ALIVE_INTERVAL_MS, 1_000)]
        },
    };
    let host = Host {
        late_us: bytes.pick(&[0, 200, 5_000]),
        frames_per_slot: bytes.pick(&[u64::MAX, 10, 1]),
        merges: bytes.bit(),
    };
    let channel = Channel { to_guest: Spec::default(), to_card: Spec::default(), guest_buffers: 64 };
    let profile = Profile { limits, tcp, ..Profile::default() };
    CardEnd::new(["a", "b"][end], &profile, settings, &channel, 1 + end as u64).with_host(host)
}

fn line(bytes: &mut Bytes<'_>) -> Spec {
    let delay_us = bytes.pick(&[500, 5, 5_000, 40_000]);
    let rate = bytes.pick(&[None, None, Some(1_000_000), Some(100_000_000)]);
    Spec { delay_us, rate: rate.map(|bits_per_s| Rate { bits_per_s, queue_bytes: 30_000 }), ..Spec::default() }
}

/// What a link does from some time on.
fn changed(spec: Spec, how: u8, much: u8) -> Spec {
    let share = Share::from_ppm(u32::from(much) * 1_500);
    match how % 8 {
        0 => Spec { loss: share, ..spec },
        1 => Spec { duplicate: share, ..spec },
        2 => Spec { reorder: share, ..spec },
        3 => Spec { corrupt: share, ..spec },
        4 => Spec { mark: share, ..spec },
        5 => Spec { mtu: Some(1_280 + u32::from(much)), ..spec },
        6 => Spec { exponential_us: u64::from(much) * 100, ..spec },
        _ => {
            let (end, loss) = (Share::from_ppm(200_000), Share::from_ppm(900_000));
            Spec { burst: Some(Burst { begin: share, end, loss }), ..spec }
        }
    }
}

/// A size: zero, a few, many.
fn size(byte: u8) -> u64 {
    match byte >> 6 {
        0 => 0,
        1 => u64::from(byte & 63),
        2 => u64::from(byte & 63) * 40,
        _ => u64::from(byte & 63) * 310,
    }
}

/// The two programs of a connection.
fn plans(a: u8, b: u8, how: u8) -> [Plan; 2] {
    let sizes = [size(a), size(b)];
    let closes = match how % 5 {
        0 | 1 => [Close::WhenWritten, Close::WhenWritten],
        2 => [Close::WhenWritten, Close::AfterPeer],
        3 => [Close::AfterPeer, Close::WhenWritten],
        _ => [Close::Abort(sizes[0] + sizes[1] / 2), Close::WhenWritten],
    };
    [0, 1].map(|i| Plan {
        out_bytes: sizes[i],
        close: closes[i],
        write_bytes: 4_000,
        read_bytes: 3_000,
        read_pause_us: if how & 64 != 0 { 700_000 } else { 0 },
        idle_us: if how & 32 != 0 { 4_000_000 } else { 0 },
        // What its program has left, a card gives up after eight probes of a closed window.
        lingers: how & (128 | 64) != 0,
        patience_us: Some(PATIENCE_US),
    })
}

fn strike(card: usize, a: u8, b: u8, c: u8) -> Strike {
    let site = AROUND[usize::from(a >> 1) % AROUND.len()];
    let actions: Vec<_> = actions(site).collect();
    let action = match actions[usize::from(c & 15) % actions.len()] {
        Fault::Delay(_) => Fault::Delay(1 + u64::from(c >> 4).pow(3) * 500),
        Fault::Truncate(_) => Fault::Truncate(20 + u32::from(c >> 4) * 5),
        other => other,
    };
    Strike { card, site, nth: 1 + u64::from(b), action }
}

/// A stranger's frame before the n-th that arrives anywhere, from that seed.
type Stranger = (u64, u64);

struct Reading {
    scene: Scene,
    links: [Spec; 2],
    family: Family,
    strikes: Vec<Strike>,
    strangers: Vec<Stranger>,
    /// Drivers that have begun, beside the first.
    drivers: [u32; 2],
}

impl Reading {
    fn record(&mut self, [kind, a, b, c]: [u8; 4]) {
        let end = usize::from(a & 1);
        let world = &mut self.scene.world;
        match kind % 16 {
            0..=2 => self.open(kind, a, b, c),
            3..=9 => self.strikes.push(strike(end, a, b, c)),
            10..=12 => world.at(time_us(b), Action::Link(end, changed(self.links[end], a >> 1, c))),
            13 => {
                let cut = Spec { loss: Share::ALL, ..self.links[end] };
                world.at(time_us(b), Action::Link(end, cut));
                world.at(time_us(b) + u64::from(c) * 10_000, Action::Link(end, self.links[end]));
            }
            14 if self.drivers[end] < DRIVERS_MAX => {
                self.drivers[end] += 1;
                world.at(time_us(b), Action::ResetDriver(end, u64::from(c) * 5_000, a & 2 != 0));
                self.scene.is_clean = false;
            }
            14 => (),
            _ => self.strangers.push((1 + u64::from(b), u64::from(a) << 8 | u64::from(c))),
        }
    }

    /// A connection; its ports say nothing, so that a 4-tuple is never used again while it may be in use.
    fn open(&mut self, kind: u8, a: u8, b: u8, c: u8) {
        let flow = self.scene.world.flows();
        if flow == FLOWS_MAX {
            return;
        }
        let active = usize::from(kind >> 7);
        let is_simultaneous = kind % 16 == 2;
        let address = |end| self.family.address(end);
        let pair = Pair {
            local: SocketAddr::new(address(active), 40_000 + flow as u16),
            remote: SocketAddr::new(address(1 - active), 7_000),
        };
        let opening = Opening {
            accept_us: 0,
            at_us: START_US + u64::from(kind >> 4 & 7) * 40_000,
            active,
            is_simultaneous,
            pair,
            any: None,
        };
        self.scene.is_clean &= !is_simultaneous && c % 5 != 4;
        self.scene.add(opening, plans(a, b, c));
    }
}

/// The world of a string, and its faults.
fn read(bytes: &[u8]) -> (Scene, Rules) {
    let mut bytes = Bytes(bytes);
    let family = bytes.pick(&[Family::V4, Family::V6]);
    let [a, b] = [0, 1].map(|end| Node::Card(Box::new(card(&mut bytes, family, end))));
    let links = [line(&mut bytes), line(&mut bytes)];
    let mut world = World::new(a, b, links, [1, 2]);
    world.at(MENDED_US, Action::Mend);
    let scene = Scene::new(world, MENDED_US, REST_US);
    let mut reading = Reading { scene, links, family, strikes: Vec::new(), strangers: Vec::new(), drivers: [0; 2] };
    for _ in 0..RECORDS_MAX {
        if bytes.0.is_empty() {
            break;
        }
        reading.record([(); 4].map(|()| bytes.next()));
    }
    if reading.scene.world.flows() == 0 {
        reading.open(0, 0xc3, 0x41, 0);
    }
    let Reading { mut scene, strikes, strangers, .. } = reading;
    if !strangers.is_empty() {
        // Half-open places are few: strangers can have them all.
        scene.is_clean = false;
        let mut frames = 0;
        scene.world.let_in(Box::new(move |_, _, honest| {
            frames += 1;
            let now = strangers.iter().filter(|s| s.0 == frames && segment(honest).is_some());
            now.map(|s| strange(&mut Random::new(s.1), honest)).collect()
        }));
    }
    (scene, rules(&strikes))
}

/// Runs the world of a string to its end. Panics where something does not hold.
pub fn run(bytes: &[u8]) -> Counts {
    let (scene, rules) = read(bytes);
    hold(scene, Some(&Faults { rules, seed: 1, last: false })).0
}

/// What the firmwares counted in the world of a string.
#[cfg(test)]
pub fn counters(bytes: &[u8]) -> Vec<&'static str> {
    let (scene, rules) = read(bytes);
    let mut world = hold(scene, Some(&Faults { rules, seed: 1, last: false })).1;
    [0, 1].into_iter().flat_map(|end| world.card(end).card().counted()).collect()
}

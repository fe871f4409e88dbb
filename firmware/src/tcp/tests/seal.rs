//! The seal of a block: each field that it guards moves it, in a place of its own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::seq::Position;
use crate::tcp::tcb::{State, Tcb};
use crate::testing::Bench;
use crate::time::{Duration, Instant};

fn moved(p: &mut Position, bit: u32) {
    *p = Position::default() + (p.raw() ^ 1 << bit);
}

/// A block whose positions, ports and figures are all of different numbers, and nothing of which is zero.
fn block(b: &mut Bench) -> &mut Tcb {
    b.send(500);
    b.peer("PA 1:101 ack 201");
    b.drain();
    let t = b.firmware.block(b.connection).0;
    t.guest.context = Some(0);
    t
}

type Change = fn(&mut Tcb);

/// Each the lowest bit of a field that has a word of the seal, or half of one, to itself.
const WORDS: [Change; 29] = [
    |t| moved(&mut t.send.iss, 0),
    |t| moved(&mut t.send.una, 0),
    |t| moved(&mut t.send.nxt, 0),
    |t| moved(&mut t.send.max, 0),
    |t| moved(&mut t.send.end, 0),
    |t| t.send.window ^= 1,
    |t| t.send.mss ^= 1,
    |t| moved(&mut t.send.wl1, 0),
    |t| moved(&mut t.send.wl2, 0),
    |t| moved(&mut t.receive.irs, 0),
    |t| moved(&mut t.receive.nxt, 0),
    |t| moved(&mut t.receive.edge, 0),
    |t| moved(&mut t.receive.last_ack_sent, 0),
    |t| moved(&mut t.guest.delivered, 0),
    |t| moved(&mut t.guest.furthest, 0),
    |t| moved(&mut t.guest.limit, 0),
    |t| t.guest.rings.send.0 ^= 1,
    |t| t.guest.rings.receive.0 ^= 1,
    |t| t.guest.rings.generation ^= 1,
    |t| t.recovery.window.congestion ^= 1,
    |t| t.recovery.window.threshold ^= 1,
    |t| t.receive.timestamp ^= 1,
    |t| t.timestamp_offset ^= 1,
    |t| t.mtu ^= 1,
    |t| t.guest.context = t.guest.context.map(|slot| slot ^ 1),
    |t| t.tuple.local.port ^= 1,
    |t| t.tuple.remote.port ^= 1,
    |t| other_address(&mut t.tuple.local.ip, 0),
    |t| other_address(&mut t.tuple.remote.ip, 0),
];

/// Each a bit of the word that several share.
const SHARED: [Change; 11] = [
    |t| t.send.fin ^= true,
    |t| t.agreed.timestamps ^= true,
    |t| t.agreed.sack ^= true,
    |t| t.agreed.window_scale ^= true,
    |t| t.agreed.ecn ^= true,
    |t| t.in_table ^= true,
    |t| t.send.shift ^= 1,
    |t| t.send.shift ^= 128,
    |t| t.receive.shift ^= 1,
    |t| t.receive.shift ^= 128,
    |t| t.mtu ^= 1,
];

fn other_address(ip: &mut IpAddr, bit: u32) {
    *ip = match *ip {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() ^ 1 << bit).into()),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() ^ 1 << bit).into()),
    };
}

/// What a change does to the seal.
fn difference(make: fn() -> Bench, change: impl Fn(&mut Tcb)) -> u64 {
    let mut b = make();
    let t = block(&mut b);
    let before = t.seal_now();
    change(t);
    before ^ t.seal_now()
}

/// A bit of a field is one bit of the seal, and no two of these the same one: so two fields do not hide each other's change.
#[test]
fn every_field_moves_a_bit_of_its_own() {
    for changes in [&WORDS[..], &SHARED[..]] {
        let bits: Vec<_> = changes.iter().map(|change| difference(Bench::established, change)).collect();
        for (n, bit) in bits.iter().enumerate() {
            assert_eq!(bit.count_ones(), 1, "{n}");
        }
        assert_eq!(bits.iter().collect::<BTreeSet<_>>().len(), changes.len());
    }
}

/// Two halves of one word, and all bits of a position.
#[test]
fn every_bit_of_a_field_counts() {
    let mut bits = BTreeSet::new();
    for bit in 0..63 {
        bits.insert(difference(Bench::established, |t| moved(&mut t.receive.nxt, bit)));
    }
    assert_eq!((bits.len(), bits.iter().all(|bit| bit.count_ones() == 1)), (63, true));
    bits.clear();
    for bit in 0..32 {
        bits.insert(difference(Bench::established, |t| t.recovery.window.congestion ^= 1 << bit));
        bits.insert(difference(Bench::established, |t| t.recovery.window.threshold ^= 1 << bit));
    }
    assert_eq!((bits.len(), bits.iter().all(|bit| bit.count_ones() == 1)), (64, true));
}

#[test]
fn timeouts_the_round_trip_the_owner_and_the_state_are_guarded() {
    let plain = difference(Bench::established, |t| t.rtt.back_off());
    assert_ne!(plain, 0);
    // The two counts that a timeout raises are told apart.
    let forgiven = difference(Bench::established, |t| {
        t.rtt.back_off();
        t.rtt.progress();
    });
    assert!(forgiven != 0 && forgiven != plain && plain ^ forgiven != forgiven);
    assert_eq!((plain.count_ones(), forgiven.count_ones(), plain & forgiven), (2, 1, forgiven));
    assert_ne!(difference(Bench::established, |t| t.rtt.measured(Instant::default(), Duration::from_ms(77))), 0);
    assert_ne!(difference(Bench::established, |t| t.guest.context = None), 0);
    let states: BTreeSet<_> =
        State::ALL.map(|state| difference(Bench::established, |t| t.state = state)).into_iter().collect();
    assert_eq!(states.len(), State::ALL.len(), "each state has a seal of its own");
}

fn v6() -> Bench {
    let mut b = Bench::over_ipv6();
    b.connect(toe_abi::flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000>");
    b.expect("A 1:1 ack 1");
    b
}

/// Of an address of 128 bits the halves lie over each other, one turned: each bit still moves one of the seal, and those of the
/// same place in both halves not the same one.
#[test]
fn every_bit_of_a_long_address_counts() {
    let ends: [fn(&mut Tcb, u32); 2] =
        [|t, bit| other_address(&mut t.tuple.local.ip, bit), |t, bit| other_address(&mut t.tuple.remote.ip, bit)];
    for end in ends {
        let bits: Vec<_> = (0..128).map(|bit| difference(v6, |t| end(t, bit))).collect();
        assert!(bits.iter().all(|bit| bit.count_ones() == 1));
        assert_eq!(bits[..64].iter().collect::<BTreeSet<_>>().len(), 64);
        for n in 0..64 {
            assert_ne!(bits[n], bits[64 + n]);
            assert_eq!(bits[(n + 1) % 64], bits[64 + n]);
        }
    }
}

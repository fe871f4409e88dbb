//! The scrubber against one of each of what it looks for.

use toe_abi::flags;

use super::*;
use crate::tcp::tcb::Tuple;
use crate::testing::Bench;
use crate::watchdog::LOOK;

/// A connection with data in flight, a listener with a half-open entry, a TIME-WAIT entry; all at rest.
fn bench() -> Bench {
    let mut b = Bench::established();
    b.shutdown();
    b.expect("FA 1:1");
    b.peer("FA 1 ack 2");
    b.release();
    b.drain();
    b.another_port(true);
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000>");
    b.send(500);
    b.drain();
    b
}

/// How many of each kind were found.
fn found(b: &Bench) -> Vec<(&'static str, u64)> {
    let all = b.firmware.counters().filter(|c| c.name.starts_with("found-") && c.value > 0);
    all.map(|c| (c.name, c.value)).collect()
}

/// Lets the scrubber go through everything twice, without any timer coming first; says how long the first pass took.
fn pass(b: &mut Bench) -> Duration {
    let from = b.now;
    let passes = b.firmware.scrubbed();
    let mut took = None;
    while b.firmware.scrubbed() < passes + 2 {
        b.now = b.now + LOOK;
        b.firmware.scrub(b.now);
        if b.firmware.scrubbed() == passes + 1 {
            took.get_or_insert(b.now.since(from));
        }
    }
    took.unwrap()
}

#[test]
fn a_card_that_is_well_is_left_alone_and_a_pass_ends_in_time() {
    let mut b = bench();
    let before: Vec<_> = b.firmware.limits().map(|l| (l.name, l.in_use)).collect();
    let took = pass(&mut b);
    assert_eq!(found(&b), []);
    assert_eq!(b.firmware.limits().map(|l| (l.name, l.in_use)).collect::<Vec<_>>(), before);
    let bound = b.firmware.scrub_pass(LOOK).unwrap();
    assert!(took <= bound, "{took:?} {bound:?}");
    let profile = crate::Profile::default();
    let card = Firmware::new(&profile, [1; 32], 1, b.now).unwrap();
    // What `docs/faults.md` says of the default profile.
    assert_eq!(card.scrub_pass(LOOK).unwrap().as_ms() / 1000, 15);
}

#[test]
fn a_look_is_a_step_and_a_call_makes_so_many() {
    let mut b = bench();
    let steps = b.firmware.steps();
    b.firmware.scrub(b.now + REST);
    let looked = b.firmware.steps() - steps;
    assert!((128..=200).contains(&looked), "{looked}");
    b.firmware.scrub(b.now + REST);
    assert_eq!(b.firmware.steps() - steps, looked, "not again at once");
}

#[test]
fn a_timer_that_was_lost_is_set_again() {
    let mut b = bench();
    let slot = b.connection as u32;
    b.firmware.wheel.disarm(b.firmware.timers.connection(slot, Kind::Retransmit));
    pass(&mut b);
    assert_eq!(found(&b), [("found-timer-lost", 1)]);
    assert_eq!(b.firmware.audit(), Ok(()));
    b.wait_ms(3000);
    b.expect("PA 1:501");
}

#[test]
fn a_timer_that_is_stuck_is_set_again() {
    let mut b = bench();
    let slot = b.connection as u32;
    let never = b.now + Duration::from_s(1_000_000);
    b.firmware.wheel.arm(b.firmware.timers.connection(slot, Kind::Retransmit), never);
    pass(&mut b);
    assert_eq!(found(&b), [("found-timer-lost", 1)]);
    b.wait_ms(3000);
    b.expect("PA 1:501");
}

#[test]
fn a_timer_that_is_left_is_stopped() {
    let mut b = bench();
    b.firmware.wheel.arm(b.firmware.timers.connection(b.connection as u32 + 1, Kind::Linger), b.now);
    pass(&mut b);
    assert_eq!(found(&b), [("found-timer-left", 1)]);
    assert_eq!(b.firmware.audit(), Ok(()));
}

#[test]
fn timers_of_entries_and_leases_are_set_again() {
    let mut b = bench();
    b.firmware.wheel.disarm(b.firmware.timers.time_wait(0));
    b.firmware.wheel.disarm(b.firmware.timers.context(0));
    b.another();
    b.local.port = 80;
    b.listen();
    b.peer("S 0 win 1000 <mss 1000>");
    b.firmware.wheel.disarm(b.firmware.timers.half_open(0));
    pass(&mut b);
    assert_eq!(found(&b), [("found-timer-lost", 3)]);
    assert!(
        [b.firmware.timers.time_wait(0), b.firmware.timers.context(0), b.firmware.timers.half_open(0)]
            .iter()
            .all(|timer| b.firmware.wheel.is_armed(*timer))
    );
}

#[test]
fn places_that_nobody_has_come_back() {
    let mut b = bench();
    let before: Vec<_> = b.firmware.limits().map(|l| (l.name, l.in_use)).collect();
    b.firmware.connections.take().unwrap();
    b.firmware.half_open.take().unwrap();
    b.firmware.time_wait.take().unwrap();
    b.firmware.contexts.take().unwrap();
    b.firmware.listeners.take().unwrap();
    pass(&mut b);
    assert_eq!(found(&b), [("found-place-lost", 5)]);
    assert_eq!(
        b.firmware.limits().map(|l| (l.name, l.in_use)).filter(|(n, _)| *n != "events").collect::<Vec<_>>(),
        before.into_iter().filter(|(n, _)| *n != "events").collect::<Vec<_>>()
    );
}

#[test]
fn pages_and_records_that_stand_nowhere_come_back() {
    let mut b = bench();
    let (sends, receives) = (b.firmware.store.send.free_pages(), b.firmware.store.receive.free_pages());
    b.firmware.store.send.lose_page();
    b.firmware.store.receive.lose_page();
    b.firmware.store.records.lose();
    pass(&mut b);
    assert_eq!(found(&b), [("found-page-lost", 2), ("found-record-lost", 1)]);
    assert_eq!((b.firmware.store.send.free_pages(), b.firmware.store.receive.free_pages()), (sends, receives));
}

#[test]
fn gauges_say_again_what_their_pools_are_made_of() {
    for &pool in Pool::ALL {
        let mut b = bench();
        let counted = b.firmware.made_of(pool).is_some();
        let before = b.firmware.gauge(pool).in_use();
        if !b.firmware.gauge_and_faults(pool).0.take(1) {
            // Of these nobody has any in this profile.
            assert_eq!(b.firmware.gauge(pool).capacity(), before, "{pool:?}");
            continue;
        }
        pass(&mut b);
        if counted {
            assert_eq!(found(&b), [("found-pool-miscounted", 1)], "{pool:?}");
            let told = u64::from(pool == Pool::Events);
            assert_eq!(b.firmware.gauge(pool).in_use(), before + told, "{pool:?}");
        } else {
            assert_eq!(found(&b), [], "{pool:?}");
        }
    }
}

#[test]
fn what_leads_to_nobody_leaves_the_table() {
    let mut b = bench();
    let before = b.in_use("tuples");
    let tuple = Tuple { local: b.local, remote: toe_abi::Endpoint::new(b.remote.ip, 9) };
    b.firmware.own(&tuple, Owner::Connection(7));
    b.firmware.own(&tuple, Owner::TimeWait(7));
    pass(&mut b);
    assert_eq!((found(&b), b.in_use("tuples")), (vec![("found-tuple-left", 2)], before));
    // A damaged 4-tuple leaves the old one behind.
    let slot = b.connection as u32;
    b.firmware.connections[slot].tuple.local.port ^= 0x80;
    pass(&mut b);
    assert_eq!(found(&b), [("found-tuple-left", 3), ("found-state-damaged", 1)]);
    assert_eq!(b.in_use("tuples"), before - 1);
}

#[test]
fn counters_balance_again() {
    let mut b = bench();
    let before = b.count("wire-in");
    b.firmware.store.counters.set(Counter::WireIn, 1 << 40);
    b.firmware.store.counters.set(Counter::GuestTaken, 0);
    pass(&mut b);
    assert_eq!(found(&b), [("found-counters-damaged", 2)]);
    assert_eq!((b.count("wire-in"), b.accounted()), (before, before));
}

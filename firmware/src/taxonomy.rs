//! Faults by their kinds: one test for each row of `docs/faults.md` that is about the firmware, armed as a rule file arms
//! them. Each shows that the fault is noticed and over in the times that the row says, in virtual time, and that whoever has
//! nothing to do with it is not harmed.

use toe_abi::{Reason, flags, option, state};

use crate::engine::Halt;
use crate::fault::{Action, FOR_EVER, Rule, Rules, Site};
use crate::pool::Pool;
use crate::testing::{Bench, octet};
use crate::time::Duration;
use crate::watchdog::{Cure, LOOK, Watchdog};

fn first(site: Site, action: Action) -> Rule {
    Rule::new(site, action).nth(1)
}

fn arm(b: &mut Bench, rule: Rule) {
    b.firmware.arm(Rules::new(vec![rule]), 1, b.now);
}

/// Time goes on with a watchdog beside the firmware, as on a card, until `is_over`; how many milliseconds that took.
#[track_caller]
fn watched(b: &mut Bench, dog: &mut Watchdog, limit_ms: u64, mut is_over: impl FnMut(&mut Bench) -> bool) -> u64 {
    let began = b.now;
    while !is_over(b) {
        assert!(b.now.since(began) < Duration::from_ms(limit_ms), "not over after {limit_ms} ms");
        b.wait_ms(5);
        match dog.look(b.now, &mut b.firmware) {
            Some(Cure::Reset) => b.firmware.reset([9; 32], 2, b.now).unwrap(),
            Some(Cure::Restart) => b.firmware.restart(b.now),
            None => {}
        }
    }
    b.now.since(began).as_ms()
}

/// A connection over which both sides have sent, and its watchdog.
fn card() -> (Bench, Watchdog) {
    let mut b = Bench::new();
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000>");
    b.expect("A 1:1 ack 1");
    let mut dog = Watchdog::new(b.now, LOOK);
    assert_eq!(dog.look(b.now, &mut b.firmware), None);
    (b, dog)
}

/// Another connection opens and carries data both ways.
#[track_caller]
fn works(b: &mut Bench) {
    b.drain();
    b.another_port(true);
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000>");
    b.drain();
    b.send(100);
    b.expect("PA 1:101 ack 1");
    b.peer("PA 1:101 ack 101");
    b.received(100);
    b.drain();
}

fn stops_without_state(action: Action, halt: Halt) {
    let (mut b, mut dog) = card();
    let iss = b.first();
    arm(&mut b, first(Site::Processor, action));
    let frame = b.frame("PA 1:101 ack 1");
    let _ = b.deliver(&frame);
    assert_eq!(b.firmware.halted(), Some(halt));
    // Noticed, booted anew, and every guest told.
    let ms = watched(&mut b, &mut dog, 100, |b| b.firmware.halted().is_none());
    assert!(ms <= 100, "{ms} ms");
    b.drain();
    assert!(b.messages.iter().any(|m| m.starts_with("FirmwareEvent")), "{:?}", b.messages);
    assert_eq!((b.count("firmware-resets"), b.firmware.epoch()), (1, 2));
    // Nothing is left of what was: the peer's next segment is the kernel's to answer.
    assert!(b.firmware.limits().all(|limit| limit.in_use == 0));
    b.peer_passes("PA 1:101 ack 1");
    // The same ends again at once: another number.
    b.reborn(2);
    b.connect(flags::NODELAY);
    b.expect("S 0");
    assert_ne!(b.first(), iss + 0);
    works(&mut b);
}

#[test]
fn a_hang_is_over_within_100_ms() {
    stops_without_state(Action::Hang(FOR_EVER), Halt::Hang);
}

#[test]
fn a_crash_without_state_is_over_within_100_ms() {
    stops_without_state(Action::Crash, Halt::Crash);
}

#[test]
fn a_crash_with_state_kept_costs_no_byte_and_at_most_100_ms() {
    let (mut b, mut dog) = card();
    b.send(1000);
    b.expect("PA 1:1001");
    arm(&mut b, first(Site::Processor, Action::CrashKept));
    let frame = b.frame("PA 1:101 ack 1001");
    let _ = b.deliver(&frame);
    assert_eq!(b.firmware.halted(), Some(Halt::CrashKept));
    let ms = watched(&mut b, &mut dog, 100, |b| b.firmware.halted().is_none());
    assert!(ms <= 100, "{ms} ms");
    assert_eq!((b.count("firmware-restarts"), b.firmware.epoch(), b.count("found-state-damaged")), (1, 1, 0));
    // The peer repeats what was lost meanwhile, and the card what was not acknowledged.
    b.wait_ms(1000);
    b.expect("PA 1:1001");
    b.drain();
    b.peer("PA 1:101 ack 1001");
    b.received(100);
    b.drain();
    b.send(10);
    b.expect("PA 1001:1011 ack 101");
    assert_eq!(b.bits & state::ABORTED, 0);
    works(&mut b);
}

#[test]
fn a_damaged_block_is_broken_off_at_its_next_use() {
    for site in Site::ALL.into_iter().filter(|site| site.name().starts_with("tcb.")) {
        let (mut b, _) = card();
        b.peer("PA 1:101 ack 1");
        b.received(100);
        b.drain();
        // A number that is none of the block's, a state that is one, and a timeout that was doubled five times.
        let value = match site {
            Site::TcbState => 8,
            Site::TcbRto => 5,
            _ => 0x1_2345,
        };
        arm(&mut b, first(site, Action::Corrupt(Some(value))));
        let frame = b.frame("PA 101:201 ack 1");
        let _ = b.deliver(&frame);
        let name = site.name();
        assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::StateDamaged as u32), "{name}");
        assert_eq!((b.count("found-state-damaged"), b.received.len()), (1, 100), "{name}");
        b.firmware.disarm();
        b.release();
        b.drain();
        works(&mut b);
    }
}

#[test]
fn damaged_payload_is_broken_off_before_it_is_handed_on() {
    for site in [Site::PayloadRx, Site::PayloadTx] {
        let mut b = Bench::with(|p| p.recovery.payload_tags = true);
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        b.expect("A 1:1 ack 1");
        arm(&mut b, first(site, Action::FlipBit(0)));
        if site == Site::PayloadRx {
            let frame = b.frame("PA 1:1001 ack 1");
            let _ = b.deliver(&frame);
        } else {
            b.send(1000);
        }
        let name = site.name();
        assert_eq!((b.bits & state::ABORTED, b.reason), (state::ABORTED, Reason::DataDamaged as u32), "{name}");
        assert_eq!((b.count("found-data-damaged"), b.received.len()), (1, 0), "{name}");
        assert!(b.next().is_none_or(|segment| !segment.starts_with('P')), "{name}");
        b.firmware.disarm();
        b.release();
        works(&mut b);
    }
}

/// Lets the scrubber go through everything once from now, and a little more; how many milliseconds that took.
fn scrubbed(b: &mut Bench, dog: &mut Watchdog) -> u64 {
    let passes = b.firmware.scrubbed();
    let bound = b.firmware.scrub_pass(LOOK).unwrap().as_ms();
    watched(b, dog, 2 * bound + 100, |b| b.firmware.scrubbed() >= passes + 2)
}

#[test]
fn what_leaks_comes_back_within_two_passes() {
    for &pool in Pool::ALL {
        if !matches!(pool, Pool::Connections | Pool::SendPages | Pool::ReceivePages) {
            continue;
        }
        let (mut b, mut dog) = card();
        let before = b.in_use(pool.name());
        arm(&mut b, Rule { times: 1, ..Rule::new(Site::alloc(pool), Action::Leak) });
        b.drain();
        b.another_port(true);
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        b.abort();
        b.release();
        assert!(b.in_use(pool.name()) > before, "{pool:?}: nothing leaked");
        scrubbed(&mut b, &mut dog);
        b.drain();
        assert_eq!(b.in_use(pool.name()), before, "{pool:?}");
        works(&mut b);
    }
}

#[test]
fn a_timer_that_is_lost_or_stuck_runs_again_within_two_passes() {
    for action in [Action::Drop, Action::Hang(FOR_EVER)] {
        let (mut b, mut dog) = card();
        arm(&mut b, Rule { times: 1, ..Rule::new(Site::TimerRetransmit, action) });
        b.send(1000);
        b.expect("PA 1:1001");
        scrubbed(&mut b, &mut dog);
        assert!(b.count("found-timer-lost") >= 1, "{action:?}");
        b.wait_ms(5_000);
        b.expect("PA 1:1001");
        b.peer("A 1 ack 1001");
        b.send(10);
        b.drain();
        works(&mut b);
    }
}

#[test]
fn a_timer_that_is_early_or_comes_twice_costs_a_segment_at_most() {
    for action in [Action::Early, Action::Duplicate] {
        let (mut b, _) = card();
        arm(&mut b, first(Site::TimerRetransmit, action));
        b.send(1000);
        b.wait_ms(1_500);
        let sent = std::iter::from_fn(|| b.next()).count();
        assert!((1..=4).contains(&sent), "{action:?}: {sent} segments");
        b.peer("A 1 ack 1001");
        b.send(10);
        b.expect("PA 1001:1011");
        works(&mut b);
    }
}

#[test]
fn a_clock_that_jumps_stops_or_slows_breaks_nothing_and_goes_on_when_it_is_over() {
    for action in [Action::Jump(5_000_000), Action::Hang(2_000_000), Action::Slow { times: 10, lasting_us: 2_000_000 }]
    {
        let (mut b, _) = card();
        arm(&mut b, first(Site::Clock, action));
        b.send(1000);
        b.expect("PA 1:1001");
        // Two seconds and a timeout later at the latest it is sent again.
        b.wait_ms(5_000);
        b.expect("PA 1:1001");
        b.drain();
        b.peer("PA 1:101 ack 1001");
        b.received(100);
        assert_eq!(b.bits & state::ABORTED, 0, "{action:?}");
        works(&mut b);
    }
}

#[test]
fn a_checksum_engine_that_drops_what_is_right_costs_a_repetition() {
    let (mut b, _) = card();
    arm(&mut b, first(Site::RxChecksum, Action::Error));
    b.peer("PA 1:101 ack 1");
    assert_eq!((b.count("wire-drop-checksum"), b.received.len()), (1, 0));
    b.peer("PA 1:101 ack 1");
    b.received(100);
    works(&mut b);
}

#[test]
fn a_checksum_engine_that_takes_wrong_for_right_does_so_until_it_is_over() {
    let (mut b, _) = card();
    let wrong = |b: &Bench, text: &str| {
        let mut frame = b.frame(text);
        *frame.last_mut().unwrap() ^= 1;
        frame
    };
    arm(&mut b, Rule::new(Site::RxChecksum, Action::Corrupt(None)));
    let frame = wrong(&b, "PA 1:101 ack 1");
    let _ = b.deliver(&frame);
    assert_eq!((b.received.len(), b.received[99], b.count("wire-drop-checksum")), (100, octet(99) ^ 1, 0));
    b.firmware.disarm();
    let frame = wrong(&b, "PA 101:201 ack 1");
    let _ = b.deliver(&frame);
    assert_eq!((b.received.len(), b.count("wire-drop-checksum")), (100, 1), "the very next is looked at");
    b.peer("PA 101:201 ack 1");
    assert_eq!((b.received.len(), b.received[199]), (200, octet(199)));
    works(&mut b);
}

#[test]
fn a_checksum_that_is_computed_wrong_costs_a_timeout() {
    let is_right = |frame: &[u8]| {
        let ip = |at: usize| std::net::IpAddr::from([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        crate::wire::segment::checksum_is_right(ip(26), ip(30), &frame[34..])
    };
    for action in [Action::FlipBit(0), Action::Corrupt(Some(0x5a5a))] {
        let (mut b, _) = card();
        arm(&mut b, first(Site::TxChecksum, action));
        b.send(1000);
        assert!(!is_right(&b.next_frame().unwrap()), "the peer drops it");
        let since = b.now;
        let again = loop {
            b.wait_ms(5);
            if let Some(frame) = b.next_frame() {
                break frame;
            }
        };
        assert!(is_right(&again) && b.now.since(since) <= Duration::from_s(1), "{:?}", b.now.since(since));
        b.peer("A 1 ack 1001");
        works(&mut b);
    }
}

#[test]
fn a_number_that_can_be_predicted_is_one_connections_and_the_next_has_another() {
    for site in [Site::Isn, Site::Key] {
        let numbers = |seed: u8| {
            let mut b = Bench::with_seed([seed; 32], |_| ());
            arm(&mut b, Rule::new(site, Action::Error));
            b.connect(0);
            let first = b.first();
            assert!(b.firmware.faults().is_some_and(|f| f.strikes(site) > 0), "{site:?}: the operator sees it");
            b.firmware.disarm();
            b.drain();
            b.another_port(true);
            b.connect(0);
            b.drain();
            (first, b.first())
        };
        let (one, other) = (numbers(1), numbers(2));
        assert_eq!(one.0, other.0, "{site:?}: whoever knows the card knows it");
        assert_ne!(one.1, other.1, "{site:?}");
    }
}

#[test]
fn a_bug_that_is_switched_off_again_is_over_at_once() {
    for site in Site::ALL.into_iter().filter(|site| site.name().starts_with("bug.")) {
        let (mut b, _) = card();
        arm(&mut b, Rule::new(site, Action::Error));
        b.peer("PA 1:101 ack 1");
        b.send(100);
        b.drain();
        b.firmware.disarm();
        works(&mut b);
    }
}

#[test]
fn a_pool_that_refuses_is_told_of_and_gives_again_at_once() {
    let (mut b, _) = card();
    arm(&mut b, Rule { times: 1, ..Rule::new(Site::AllocConnections, Action::Error) });
    b.drain();
    b.another_port(true);
    b.connect(flags::NODELAY);
    assert_eq!((b.next(), b.in_use("connections")), (None, 1));
    let refused = b.firmware.limits().find(|l| l.name == "connections").unwrap().refusals;
    assert!(refused.iter().any(|(reason, n)| *reason == Reason::Connections as u32 && *n == 1), "{refused:?}");
    works(&mut b);
}

#[test]
fn a_stale_neighbour_is_told_of_at_r1_and_a_new_one_is_taken_at_once() {
    let (mut b, _) = card();
    arm(&mut b, first(Site::Neighbour, Action::Corrupt(Some(0x99))));
    let began = b.now;
    b.send(1000);
    while b.notice.path_advice == 0 {
        b.wait_ms(100);
        assert!(b.now.since(began) < Duration::from_s(15), "nobody was told");
    }
    b.drain();
    b.set(option::NEXT_HOP, u64::from_le_bytes([2, 0, 0, 0, 0, 1, 0, 0]));
    b.wait_ms(20_000);
    let frame = b.next_frame().expect("it is sent again");
    assert_eq!(frame[..6], [2, 0, 0, 0, 0, 1]);
}

#[test]
fn an_overflow_of_events_is_counted_and_over_when_they_are_read() {
    let mut b = Bench::with(|p| (p.limits.listeners, p.limits.events) = (1, 16));
    arm(&mut b, first(Site::Events, Action::Duplicate));
    b.listen();
    let refused = |b: &Bench| b.firmware.limits().find(|l| l.name == "events").unwrap().refusals;
    let _ = std::iter::from_fn(|| b.firmware.poll_event()).count();
    assert_eq!(b.in_use("events"), 0);
    let before = refused(&b);
    assert!(before.iter().any(|(_, count)| *count > 0), "{before:?}: it is counted at once");
    b.firmware.disarm();
    b.firmware.beat(b.now);
    assert_eq!(refused(&b), before);
}

#[test]
fn damaged_counters_balance_again_within_two_passes() {
    let (mut b, mut dog) = card();
    for seed in 0..200u64 {
        // Each seed draws another counter.
        let rule = first(Site::Counters, Action::Corrupt(Some(1000 + seed)));
        b.firmware.arm(Rules::new(vec![rule]), seed, b.now);
        b.firmware.handle_timeout(b.now);
    }
    b.firmware.disarm();
    assert_ne!(b.accounted(), b.count("wire-in"), "none of these was touched");
    scrubbed(&mut b, &mut dog);
    assert_eq!(b.accounted(), b.count("wire-in"));
    assert!(b.count("found-counters-damaged") > 0);
    works(&mut b);
}

#[test]
fn a_slow_processor_lets_frames_wait_for_a_millisecond_at_most() {
    let (mut b, _) = card();
    arm(&mut b, first(Site::Processor, Action::Slow { times: 50, lasting_us: 1_000_000 }));
    let [one, two] = ["PA 1:101 ack 1", "PA 101:201 ack 1"].map(|text| b.frame(text));
    let _ = b.deliver(&one);
    assert_eq!(b.deliver(&two), crate::engine::Verdict::Wait(crate::engine::Lane::Connections));
    let at = b.firmware.poll_timeout().unwrap();
    assert!(at.since(b.now) <= Duration::from_ms(1));
    b.now = at;
    assert_eq!(
        b.firmware.handle_waiting(at, crate::engine::Lane::Connections, &two, crate::engine::Checksum::Unverified),
        crate::engine::Verdict::Taken
    );
    b.now = b.now + Duration::from_s(2);
    b.drain();
    b.received(200);
    assert!(b.received.iter().zip(0..).all(|(byte, at)| *byte == octet(at)));
    works(&mut b);
}

/// `docs/faults.md`: whatever test a row names is there.
#[test]
fn every_row_of_the_taxonomy_names_a_test_that_exists() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let text = std::fs::read_to_string(format!("{root}/docs/faults.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ")).filter(|line| line.contains(".rs |"));
    let mut count = 0;
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
        let (name, file) = cell.trim().split_once(' ').unwrap_or_else(|| panic!("{cell}"));
        let name = name.trim_matches('`');
        let source = std::fs::read_to_string(format!("{root}/{file}")).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(source.contains(&format!("fn {name}(")), "{file} has no {name}");
        count += 1;
    }
    assert!(count >= 30, "{count} rows");
}

//! Every site of the firmware: that it fires, and what it does.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use toe_abi::{FRAME_BYTES_MAX, Reason, flags, state};

use super::truth::{Got, case, of};
use crate::engine::{Checksum, Event, Firmware, Halt, Verdict, Way};
use crate::fault::{Action, By, FOR_EVER, Filter, Injector, Look, Rule, Rules, Site};
use crate::pool::Pool;
use crate::testing::{Bench, octet};
use crate::time::{Duration, Instant};

impl Bench {
    /// Arms one rule, on a card that does not scrub: what a fault does is to be seen.
    fn arm(&mut self, rule: Rule) {
        self.firmware.profile.recovery.scrub_steps = 0;
        self.firmware.arm(Rules::new(vec![rule]), 1, self.now);
    }

    /// How often the rules of a site have struck.
    fn strikes(&self, site: Site) -> u64 {
        self.firmware.faults().map_or(0, |injector| injector.strikes(site))
    }
}

fn always(site: Site, action: Action) -> Rule {
    Rule::new(site, action)
}

fn first(site: Site, action: Action) -> Rule {
    Rule::new(site, action).nth(1)
}

// Pools. The cases of `truth` say how one of a pool is taken and given back; here a fault strikes one of these.

/// What is to strike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strike {
    Refused,
    LostWhenTaken,
    LostWhenGiven,
}

thread_local! {
    pub static STRIKE: Cell<Option<Strike>> = const { Cell::new(None) };
}

/// How [`struck`] leaves the case that it was called from.
struct Shown;

/// A taking or a giving that is struck.
pub fn struck(
    b: &mut Bench,
    pool: Pool,
    strike: Strike,
    mut take: impl FnMut(&mut Bench) -> Got,
    mut give: impl FnMut(&mut Bench),
) -> ! {
    let in_use = |b: &Bench| b.in_use(pool.name());
    match strike {
        Strike::Refused => {
            let before = in_use(b);
            b.arm(first(Site::alloc(pool), Action::Error));
            let got = take(b);
            assert_eq!(in_use(b), before, "{pool:?}: refused, and {got:?}");
            assert!(got != Got::It || matches!(pool, Pool::TimeWait | Pool::FastOpenServers), "{pool:?}");
            assert_eq!(b.strikes(Site::alloc(pool)), 1, "{pool:?}");
            assert_eq!((take(b), in_use(b)), (Got::It, before + 1), "{pool:?}: as ever after that");
        }
        Strike::LostWhenTaken => {
            let before = in_use(b);
            b.arm(first(Site::alloc(pool), Action::Leak));
            assert_eq!((take(b), in_use(b)), (Got::It, before + 2), "{pool:?}: one is lost");
            // The case of pages asks for as many as the gauge says and one more.
            let by_gauge = matches!(pool, Pool::SendPages | Pool::ReceivePages);
            if of(b, pool).0 >= before + 3 && !by_gauge {
                assert_eq!((take(b), in_use(b)), (Got::It, before + 3), "{pool:?}");
                give(b);
                assert_eq!((in_use(b), b.strikes(Site::alloc(pool))), (before + 2, 1), "{pool:?}: for ever");
            }
        }
        Strike::LostWhenGiven => {
            assert_eq!(take(b), Got::It);
            assert_eq!(take(b), Got::It);
            let before = in_use(b);
            b.arm(first(Site::free(pool), Action::Leak));
            give(b);
            assert_eq!((in_use(b), b.strikes(Site::free(pool))), (before, 1), "{pool:?}: it does not come back");
            assert_eq!(of(b, pool).1, before);
        }
    }
    resume_unwind(Box::new(Shown));
}

fn with(strike: Strike, pool: Pool) {
    STRIKE.set(Some(strike));
    let result = catch_unwind(AssertUnwindSafe(|| case(pool, pool.policies()[0])));
    STRIKE.set(None);
    match result {
        Err(payload) if payload.is::<Shown>() => {}
        Err(payload) => resume_unwind(payload),
        Ok(()) => panic!("{pool:?}: its case does not show how one is taken"),
    }
}

/// Pools whose cases are of another kind, each with a test of its own here.
const OTHERWISE: [Pool; 4] = [Pool::TransmitRecords, Pool::Tuples, Pool::Timers, Pool::FastOpenServers];

#[test]
fn every_pool_can_refuse_though_it_is_not_full() {
    for &pool in Pool::ALL.iter().filter(|pool| !OTHERWISE.contains(pool)) {
        with(Strike::Refused, pool);
    }
}

#[test]
fn every_pool_can_lose_one_when_another_is_taken() {
    for &pool in Pool::ALL.iter().filter(|pool| !OTHERWISE.contains(pool)) {
        with(Strike::LostWhenTaken, pool);
    }
}

#[test]
fn every_pool_can_lose_what_is_given_back() {
    for &pool in Pool::ALL.iter().filter(|pool| !OTHERWISE.contains(pool)) {
        with(Strike::LostWhenGiven, pool);
    }
}

#[test]
fn records_of_segments_are_refused_and_lost() {
    let flight = |action: Option<Rule>| {
        let mut b = Bench::established();
        if let Some(rule) = action {
            b.arm(rule);
        }
        (0..6).for_each(|_| b.send(1000));
        let sent = std::iter::from_fn(|| b.next()).count();
        b.peer("A 1 ack 1001");
        (b, sent)
    };
    let in_use = |b: &Bench| b.in_use("transmit-records");
    let (plain, sent) = flight(None);
    assert_eq!((sent, in_use(&plain)), (6, 5));
    let (refused, sent) = flight(Some(Rule { times: 1, ..always(Site::AllocTransmitRecords, Action::Error) }));
    assert!(
        sent >= 5 && refused.count("tcp-no-transmit-record") == 1 && refused.strikes(Site::AllocTransmitRecords) == 1
    );
    let (lost, _) = flight(Some(first(Site::AllocTransmitRecords, Action::Leak)));
    assert_eq!(in_use(&lost), 6);
    let (lost, _) = flight(Some(first(Site::FreeTransmitRecords, Action::Leak)));
    assert_eq!(in_use(&lost), 6);
}

#[test]
fn places_for_4_tuples_are_refused_and_lost() {
    let open = |rule: Option<Rule>| {
        let mut b = Bench::new();
        if let Some(rule) = rule {
            b.arm(rule);
        }
        b.connect(0);
        let opened = b.next().is_some();
        let in_use = b.in_use("tuples");
        if opened {
            b.peer("RA 0 ack 1");
            b.release();
        }
        (opened, in_use, b.in_use("tuples"))
    };
    assert_eq!(open(None), (true, 1, 0));
    assert_eq!(open(Some(always(Site::AllocTuples, Action::Error))), (false, 0, 0));
    assert_eq!(open(Some(first(Site::AllocTuples, Action::Leak))), (true, 2, 1));
    assert_eq!(open(Some(first(Site::FreeTuples, Action::Leak))), (true, 1, 1));
}

#[test]
fn timers_are_refused_and_lost() {
    let run = |rule: Option<Rule>| {
        let mut b = Bench::established();
        let before = b.in_use("timers");
        if let Some(rule) = rule {
            b.arm(rule);
        }
        b.send(100);
        b.expect("PA 1:101");
        let running = b.in_use("timers") - before;
        b.peer("A 1 ack 101");
        (running, b.in_use("timers") - before)
    };
    assert_eq!(run(None), (1, 0));
    assert_eq!(run(Some(always(Site::AllocTimers, Action::Error))), (0, 0));
    assert_eq!(run(Some(first(Site::AllocTimers, Action::Leak))), (2, 1));
    assert_eq!(run(Some(first(Site::FreeTimers, Action::Leak))), (1, 1));
}

#[test]
fn a_servers_cookie_is_lost() {
    use crate::tcp::fast_open::{Cookies, Learned};
    use crate::tcp::tcb::Tuple;
    use crate::wire::options::Cookie;
    let run = |rule: Rule| {
        let mut b = Bench::with(|p| {
            p.tcp.fast_open = true;
            p.tcp.fast_open_servers = 2;
        });
        b.arm(rule);
        for port in 1..=3 {
            let tuple = Tuple { local: b.local, remote: toe_abi::Endpoint::new(b.remote.ip, port) };
            let cookies: &mut Cookies = &mut b.firmware.cookies;
            cookies.learn(&tuple, Learned::Cookie(Cookie::new(&[1; 8]).unwrap(), 1000), b.now);
        }
        (b.in_use("fast-open-servers"), b.strikes(Site::AllocFastOpenServers) + b.strikes(Site::FreeFastOpenServers))
    };
    assert_eq!(run(Rule { times: 2, ..always(Site::AllocFastOpenServers, Action::Error) }), (1, 2));
    assert_eq!(run(first(Site::AllocFastOpenServers, Action::Leak)), (2, 1));
    assert_eq!(run(first(Site::FreeFastOpenServers, Action::Leak)), (2, 1));
}

// Blocks.

/// With data in flight, data in order that the guest has not taken, and data beyond a gap.
fn busy(seals: bool) -> Bench {
    let mut b = Bench::with(|p| p.recovery.seals = seals);
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.now = b.now + Duration::from_ms(10);
    b.peer("SA 0 ack 1 win 60000 <mss 1000, ws 2, sackOK>");
    b.expect("A 1:1 ack 1");
    b.send(1500);
    while b.next().is_some() {}
    b.reading = false;
    b.peer("PA 1:101 ack 1001");
    b.peer("PA 201:301 ack 1001");
    while b.next().is_some() {}
    b
}

fn fields() -> impl Iterator<Item = Site> {
    Site::ALL.into_iter().filter(|site| Site::BLOCK & site.bit() != 0)
}

#[test]
fn a_sealed_block_that_is_damaged_is_broken_off_whatever_the_field() {
    // How often the timeout was doubled costs time alone, and is not sealed.
    for site in fields().filter(|site| *site != Site::TcbRto) {
        let mut b = busy(true);
        b.arm(first(site, Action::Corrupt(Some(if site == Site::TcbState { 8 } else { 0x1234_5679 }))));
        let frame = b.frame("A 301 ack 1001");
        assert_eq!(b.deliver(&frame), Verdict::PassOn, "{}", site.name());
        assert_eq!((b.strikes(site), b.count("found-state-damaged")), (1, 1), "{}", site.name());
        assert_eq!(
            (b.bits & state::ABORTED, b.reason),
            (state::ABORTED, Reason::StateDamaged as u32),
            "{}",
            site.name()
        );
    }
}

/// Random bits in each field, at each of some segments, in a block without a seal: whatever it does then, it is not out of
/// bounds, and everything comes back when the guest lets go.
#[test]
fn a_damaged_block_without_a_seal_does_no_harm_to_others() {
    for site in fields() {
        for nth in 1..=4 {
            for seed in 0..24 {
                let mut b = busy(false);
                // Small changes are the ones that no check sees.
                let action = if seed % 2 == 0 { Action::Corrupt(None) } else { Action::Corrupt(Some(seed * 97)) };
                b.firmware.arm(Rules::new(vec![Rule::new(site, action).nth(nth)]), seed, b.now);
                for text in ["A 301 ack 1501", "PA 101:151 ack 1501", "PA 151:201 ack 1501", "A 301 ack 1501 win 0"] {
                    let frame = b.frame(text);
                    let _ = b.deliver(&frame);
                    b.wait_ms(300);
                }
                assert_eq!(b.strikes(site), 1, "{}", site.name());
                b.wait_ms(4_000);
                b.abort();
                b.release();
                b.wait_ms(1_000);
                assert_eq!(b.in_use("connections"), 0, "{} {nth} {seed}", site.name());
                for pool in ["send-pages", "receive-pages", "transmit-records", "out-of-order-ranges"] {
                    assert_eq!(b.in_use(pool), 0, "{} {nth} {seed}: {pool}", site.name());
                }
            }
        }
    }
}

#[test]
fn only_the_connection_that_the_filter_names_is_damaged() {
    let mut b = busy(true);
    let port = b.remote.port;
    let other = Filter { remote: Some(crate::fault::End { ip: None, port: Some(port + 1) }), ..Filter::default() };
    b.arm(Rule { filter: other, ..always(Site::TcbSndUna, Action::Corrupt(None)) });
    b.peer("A 301 ack 1501");
    assert_eq!((b.strikes(Site::TcbSndUna), b.count("found-state-damaged")), (0, 0));
    let this = Filter { states: 1 << 1, context: Some(0), flags: 0x10, ..Filter::default() };
    b.arm(Rule { filter: this, ..always(Site::TcbSndUna, Action::Corrupt(None)) });
    let frame = b.frame("A 301 ack 1501");
    let _ = b.deliver(&frame);
    assert_eq!((b.strikes(Site::TcbSndUna), b.count("found-state-damaged")), (1, 1));
}

// Payload and checksums.

#[test]
fn one_bit_of_received_text_is_turned_over_after_its_checksum_was_right() {
    let mut b = Bench::established();
    b.arm(Rule::new(Site::PayloadRx, Action::FlipBit(0)).nth(2));
    b.peer("PA 1:101 ack 1");
    b.peer("PA 101:201 ack 1");
    let wrong: u32 = b.received.iter().zip(0..).map(|(byte, at)| (byte ^ octet(at)).count_ones()).sum();
    assert_eq!((b.received.len(), wrong, b.count("wire-drop-checksum")), (200, 1, 0));
    assert!(b.received[..100].iter().zip(0..).all(|(byte, at)| *byte == octet(at)), "the first segment was spared");
}

#[test]
fn one_bit_of_sent_text_is_turned_over_before_its_checksum_is_computed() {
    let mut b = Bench::established();
    b.arm(first(Site::PayloadTx, Action::FlipBit(0)));
    b.send(100);
    let frame = b.next_frame().unwrap();
    let text = &frame[14 + 20 + 20..];
    let wrong: u32 = text.iter().zip(0..).map(|(byte, at)| (byte ^ octet(at)).count_ones()).sum();
    assert_eq!((text.len(), wrong), (100, 1));
    let ip = |at: usize| std::net::IpAddr::from([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    assert!(crate::wire::segment::checksum_is_right(ip(26), ip(30), &frame[34..]));
}

#[test]
fn a_checksum_that_is_computed_is_wrong() {
    for action in [Action::FlipBit(0), Action::Corrupt(Some(0x5a5a))] {
        let mut b = Bench::established();
        b.arm(first(Site::TxChecksum, action));
        b.send(100);
        let frame = b.next_frame().unwrap();
        let ip = |at: usize| std::net::IpAddr::from([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        assert!(!crate::wire::segment::checksum_is_right(ip(26), ip(30), &frame[34..]), "{action:?}");
    }
}

#[test]
fn a_right_checksum_is_taken_for_wrong_and_a_wrong_one_for_right() {
    let mut b = Bench::established();
    b.arm(first(Site::RxChecksum, Action::Error));
    b.peer("PA 1:101 ack 1");
    assert_eq!((b.received.len(), b.count("wire-drop-checksum")), (0, 1));
    b.peer("PA 1:101 ack 1");
    assert_eq!(b.received.len(), 100);
    b.arm(first(Site::RxChecksum, Action::Corrupt(None)));
    let mut frame = b.frame("PA 101:201 ack 1");
    let last = frame.len() - 1;
    frame[last] ^= 1;
    assert_eq!(b.deliver(&frame), Verdict::Taken);
    assert_eq!((b.received.len(), b.count("wire-drop-checksum")), (200, 1));
    assert_eq!(b.received[199], octet(199) ^ 1);
}

// Timers.

/// When a segment that is never acknowledged is sent again, in milliseconds, for four seconds.
fn retransmissions(rule: Option<Rule>) -> Vec<u64> {
    let mut b = Bench::established();
    if let Some(rule) = rule {
        b.arm(rule);
    }
    b.send(100);
    b.expect("PA 1:101");
    let began = b.now;
    let mut times = Vec::new();
    while b.now.since(began) < Duration::from_s(4) {
        b.wait_ms(10);
        let at = b.now.since(began).as_ms();
        times.extend(std::iter::from_fn(|| b.next()).map(|_| at));
    }
    times
}

#[test]
fn a_timer_is_lost_late_early_twice_or_stuck() {
    let rule = |action| Some(first(Site::TimerRetransmit, action));
    let plain = retransmissions(None);
    assert!(plain.len() >= 3, "{plain:?}");
    assert!(retransmissions(rule(Action::Drop)).is_empty());
    assert!(retransmissions(rule(Action::Hang(FOR_EVER))).is_empty());
    let late = retransmissions(rule(Action::Delay(1_000_000)));
    assert_eq!(late[0], plain[0] + 1_000);
    let early = retransmissions(rule(Action::Early));
    assert!(early[0] <= 10, "{early:?}");
    // Twice is as good as once: what a timer does follows from the block, where it is not due any more.
    assert_eq!(retransmissions(rule(Action::Duplicate)), plain);
}

#[test]
fn a_timer_that_is_stuck_is_let_go_with_the_faults() {
    let mut b = Bench::established();
    b.arm(always(Site::TimerRetransmit, Action::Drop));
    b.send(100);
    b.expect("PA 1:101");
    b.wait_ms(10_000);
    b.nothing();
    assert_eq!(b.firmware.audit().unwrap_err().what, "a timer that does not follow from the block");
    b.firmware.disarm();
    b.wait_ms(10);
    b.expect("PA 1:101");
}

#[test]
fn every_timer_has_its_site() {
    let drop = |site| Rule { times: 1, ..always(site, Action::Drop) };
    // A delayed acknowledgement.
    let mut b = Bench::established();
    b.arm(drop(Site::TimerDelayedAck));
    b.peer("PA 1:101 ack 1");
    b.wait_ms(1_000);
    b.nothing();
    assert_eq!(b.strikes(Site::TimerDelayedAck), 1);
    // Telling the guest again.
    let mut b = Bench::established();
    b.reading = false;
    b.arm(drop(Site::TimerGuest));
    b.peer("PA 1:101 ack 1");
    b.wait_ms(10_000);
    assert_eq!((b.strikes(Site::TimerGuest), b.count("channel-resent")), (1, 0));
    // A keep-alive.
    let mut b = Bench::established();
    b.arm(drop(Site::TimerKeepAlive));
    b.set(toe_abi::option::KEEP_ALIVE_IDLE_MS, 10_000);
    b.wait_ms(30_000);
    assert_eq!((b.strikes(Site::TimerKeepAlive), b.count("tcp-keep-alives")), (1, 0));
    // An abandoned FIN-WAIT-2, and TIME-WAIT.
    let mut b = Bench::established();
    b.arm(drop(Site::TimerLinger));
    b.shutdown();
    b.peer("A 1 ack 2");
    b.release();
    b.wait_ms(600_000);
    assert_eq!((b.strikes(Site::TimerLinger), b.in_use("connections")), (1, 1));
    b.arm(drop(Site::TimerTimeWait));
    b.peer("FA 1 ack 2");
    b.wait_ms(600_000);
    assert_eq!((b.strikes(Site::TimerTimeWait), b.in_use("time-wait")), (1, 1));
    // A SYN-ACK.
    let mut b = Bench::new();
    b.listen();
    b.arm(drop(Site::TimerHalfOpen));
    b.peer("S 0 win 1000");
    b.expect("SA 0");
    b.wait_ms(60_000);
    b.nothing();
    assert_eq!(b.strikes(Site::TimerHalfOpen), 1);
    // A lease.
    let mut b = Bench::new();
    let context = b.firmware.contexts.gauge.in_use();
    b.firmware.disarm_timer(b.firmware.timers.context(0));
    b.arm(drop(Site::TimerLease));
    b.firmware.arm_lease(0);
    b.firmware.handle_timeout(b.now + Duration::from_s(10_000));
    assert_eq!((b.strikes(Site::TimerLease), b.firmware.contexts.gauge.in_use()), (1, context));
}

#[test]
fn a_paced_segment_waits_for_a_timer_that_never_comes() {
    let run = |rule: Option<Rule>| {
        let mut b = Bench::with(|p| p.tcp.congestion = crate::profile::CongestionControl::Bbr);
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.wait_ms(10);
        b.peer("SA 0 ack 1 win 60000 <mss 1000, sackOK>");
        b.expect("A 1:1");
        b.send(40_000);
        let first = std::iter::from_fn(|| b.next()).count();
        b.wait_ms(10);
        if let Some(rule) = rule {
            b.arm(rule);
        }
        b.peer("A 1 ack 10001");
        b.wait_ms(9);
        (first, std::iter::from_fn(|| b.next()).count(), b.strikes(Site::TimerPace))
    };
    let (first, all, _) = run(None);
    assert!(first == 10 && all >= 18, "{first}, {all}");
    let (_, some, strikes) = run(Some(always(Site::TimerPace, Action::Drop)));
    assert!((3..=5).contains(&some) && strikes == 1, "{some} of {all}, {strikes} strikes");
}

// Time and the processor.

#[test]
fn a_clock_that_jumps_makes_timers_due_and_one_that_stops_keeps_them() {
    let run = |action: Option<Action>| {
        let mut b = Bench::established();
        b.send(100);
        b.expect("PA 1:101");
        if let Some(action) = action {
            b.arm(first(Site::Clock, action));
        }
        let (began, mut sent) = (b.now, None);
        while b.now.since(began) < Duration::from_s(4) && sent.is_none() {
            b.wait_ms(10);
            sent = b.next().map(|_| b.now.since(began).as_ms());
        }
        sent
    };
    let plain = run(None).unwrap();
    assert_eq!(run(Some(Action::Jump(60_000_000))), Some(10));
    assert_eq!(run(Some(Action::Hang(1_000_000))), Some(plain + 1_000));
    assert_eq!(run(Some(Action::Hang(FOR_EVER))), None);
    let slow = run(Some(Action::Slow { times: 3, lasting_us: FOR_EVER })).unwrap();
    assert!((plain * 3 - 60..=plain * 3).contains(&slow), "{slow} and {plain}");
}

#[test]
fn a_processor_that_hangs_or_crashes_does_nothing_until_it_is_reset() {
    for (action, halt) in
        [(Action::Hang(FOR_EVER), Halt::Hang), (Action::Crash, Halt::Crash), (Action::CrashKept, Halt::CrashKept)]
    {
        let mut b = Bench::established();
        b.send(100);
        b.arm(first(Site::Processor, action));
        let frame = b.frame("A 1 ack 101");
        let (beats, dropped) = (b.firmware.heartbeat(), b.count("wire-drop-halted"));
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        assert_eq!(b.firmware.handle_wire(b.now, &frame, Checksum::Unverified), Verdict::Taken);
        b.firmware.handle_timeout(b.now + Duration::from_s(60));
        assert_eq!(b.firmware.poll_wire(b.now, &mut buffer), None);
        assert_eq!((b.firmware.halted(), b.firmware.heartbeat(), b.firmware.poll_timeout()), (Some(halt), beats, None));
        assert_eq!(b.count("wire-drop-halted"), dropped + 1);
        // What was armed and counted is known after a reset, too.
        b.firmware.reset([9; 32], 2, b.now).unwrap();
        assert_eq!((b.firmware.halted(), b.strikes(Site::Processor)), (None, 1));
    }
}

#[test]
fn a_processor_that_hangs_for_a_time_goes_on() {
    let mut b = Bench::established();
    b.arm(first(Site::Processor, Action::Hang(50_000)));
    let frame = b.frame("PA 1:101 ack 1");
    assert_eq!(b.firmware.handle_wire(b.now, &frame, Checksum::Unverified), Verdict::Taken);
    b.now = b.now + Duration::from_ms(49);
    assert_eq!(b.firmware.handle_wire(b.now, &frame, Checksum::Unverified), Verdict::Taken);
    assert_eq!(b.count("wire-drop-halted"), 2);
    b.now = b.now + Duration::from_ms(1);
    b.peer("PA 1:101 ack 1");
    b.received(100);
    assert_eq!(b.accounted(), b.count("wire-in"));
}

#[test]
fn a_slow_processor_lets_frames_wait() {
    let mut b = Bench::established();
    b.arm(first(Site::Processor, Action::Slow { times: 50, lasting_us: 10_000_000 }));
    let [one, two] = ["PA 1:101 ack 1", "PA 101:201 ack 1"].map(|text| b.frame(text));
    assert_eq!(b.firmware.handle_wire(b.now, &one, Checksum::Unverified), Verdict::Taken);
    assert_eq!(
        b.firmware.handle_wire(b.now, &two, Checksum::Unverified),
        Verdict::Wait(crate::engine::Lane::Connections)
    );
    let at = b.firmware.poll_timeout().unwrap();
    assert!(at > b.now && at.since(b.now) <= Duration::from_ms(1), "{at:?}");
    assert_eq!(
        b.firmware.handle_waiting(at, crate::engine::Lane::Connections, &two, Checksum::Unverified),
        Verdict::Taken
    );
    // When it is over, nothing waits.
    b.now = b.now + Duration::from_s(11);
    for text in ["PA 201:301 ack 1", "PA 301:401 ack 1"] {
        b.peer(text);
    }
}

/// When the processor has time is a matter of the firmware's clock, not of the host's: what waits is due, and it is asked for.
#[test]
fn what_waits_for_a_processor_is_asked_for_though_the_clock_has_jumped() {
    let mut b = Bench::established();
    let slow = first(Site::Processor, Action::Slow { times: 50, lasting_us: 10_000_000 });
    let jump = first(Site::Clock, Action::Jump(5_000_000));
    b.firmware.arm(Rules::new(vec![slow, jump]), 1, b.now);
    let [one, two] = ["PA 1:101 ack 1", "PA 101:201 ack 1"].map(|text| b.frame(text));
    assert_eq!(b.firmware.handle_wire(b.now, &one, Checksum::Unverified), Verdict::Taken);
    let lane = crate::engine::Lane::Connections;
    assert_eq!(b.firmware.handle_wire(b.now, &two, Checksum::Unverified), Verdict::Wait(lane));
    assert_eq!(b.firmware.next_waiting(b.now), None);
    // It is never behind by more than that (`DEBT_US_MAX`).
    let at = b.now + Duration::from_ms(1);
    assert_eq!(b.firmware.next_waiting(at), Some(lane));
    assert_eq!(b.firmware.handle_waiting(at, lane, &two, Checksum::Unverified), Verdict::Taken);
}

// Chance, next hops, events, counters.

#[test]
fn a_predictable_number_is_the_clock_alone_and_a_zero_key_is_known_to_all() {
    let syn = |rule: Option<Rule>, seed: u8| {
        let mut b = Bench::with_seed([seed; 32], |_| ());
        if let Some(rule) = rule {
            b.arm(rule);
        }
        b.connect(0);
        b.first().0
    };
    assert_ne!(syn(None, 1), syn(None, 2));
    for rule in [always(Site::Isn, Action::Error), always(Site::Key, Action::Error)] {
        assert_eq!(syn(Some(rule.clone()), 1), syn(Some(rule), 2));
    }
    let clock = (Bench::new().now.as_us() / 4) as u32;
    assert_eq!(syn(Some(always(Site::Isn, Action::Error)), 1), clock);
    assert_eq!(syn(Some(always(Site::Isn, Action::Corrupt(Some(7)))), 1), 7);
}

#[test]
fn a_stale_next_hop_stays() {
    let mut b = Bench::established();
    b.arm(first(Site::Neighbour, Action::Corrupt(Some(0x99))));
    b.send(10);
    b.send(10);
    for _ in 0..2 {
        assert_eq!(b.next_frame().unwrap()[..6], [2, 0x99, 0, 0, 0, 0]);
    }
}

#[test]
fn events_are_lost_or_fill_their_queue() {
    let run = |rule: Option<Rule>| {
        let mut b = Bench::with(|p| {
            p.limits.listeners = 1;
            p.limits.events = 16;
        });
        if let Some(rule) = rule {
            b.arm(rule);
        }
        b.listen();
        let events = std::iter::from_fn(|| b.firmware.poll_event());
        let listeners = |event: &Event| matches!(event, Event::Pool { pool: Pool::Listeners, .. });
        events.filter(listeners).count()
    };
    assert_eq!(run(None), 1);
    assert_eq!(run(Some(always(Site::Events, Action::Drop))), 0);
    assert!(run(Some(first(Site::Events, Action::Duplicate))) >= 15);
}

#[test]
fn a_counter_has_another_value() {
    let mut b = Bench::established();
    b.arm(first(Site::Counters, Action::Corrupt(None)));
    b.peer("A 1 ack 1");
    let wild = b.firmware.counters().filter(|c| c.value > 1 << 32).count();
    assert_eq!(wild, 1);
    // It goes on counting from there, even over the edge.
    b.arm(always(Site::Counters, Action::Corrupt(Some(u64::MAX))));
    (0..3).for_each(|_| b.peer("A 1 ack 1"));
}

// The whole.

#[test]
fn devices_ask_by_the_frame_and_the_firmware_knows_whose_it_is() {
    let mut b = Bench::established();
    let established = Filter { states: 1 << 1, ..Filter::default() };
    b.arm(Rule { filter: established.clone(), ..always(Site::WireRx, Action::Drop) });
    let frame = b.frame("PA 1:101 ack 1");
    assert_eq!(b.firmware.fault_at_frame(Site::WireRx, b.now, &frame, Way::In), Some(Action::Drop));
    assert_eq!(b.firmware.fault_at_frame(Site::WireTx, b.now, &frame, Way::Out), None);
    b.another_port(true);
    let other = b.frame("S 0");
    assert_eq!(b.firmware.fault_at_frame(Site::WireRx, b.now, &other, Way::In), None);
    let record = *b.firmware.faults().unwrap().records().next().unwrap();
    assert_eq!((record.passage, record.ends.map(|e| e.1)), (1, Some(b.remote)));
    assert_eq!(b.firmware.disarm().map(|injector| injector.all_strikes()), Some(1));
    assert!(b.firmware.faults().is_none());
}

#[test]
fn the_same_rules_and_seed_strike_the_same() {
    let run = |seed| {
        let mut b = Bench::established();
        let half = |site| Rule { share_ppm: 300_000, ..always(site, Action::FlipBit(0)) };
        b.firmware.arm(Rules::new(vec![half(Site::PayloadRx), half(Site::PayloadTx)]), seed, b.now);
        for n in 0..20u32 {
            let frame = b.frame(&format!("PA {}:{} ack {}", 1 + 10 * n, 11 + 10 * n, 1 + 10 * n));
            let _ = b.deliver(&frame);
            b.send(10);
        }
        let injector: Box<Injector> = b.firmware.disarm().unwrap();
        injector.records().copied().collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert!(run(1).len() > 5 && run(1) != run(2));
}

#[test]
fn the_device_asks_at_its_own_sites_with_what_it_knows() {
    let b = Bench::new();
    let mut firmware: Firmware = b.firmware;
    firmware.arm(Rules::new(vec![Rule { times: 1, ..always(Site::KickTx, Action::Drop) }]), 1, Instant::default());
    assert_eq!(firmware.fault(Site::KickTx, b.now, Look::default()), Some(Action::Drop));
    assert_eq!(firmware.fault(Site::KickTx, b.now, Look::default()), None);
    assert_eq!(firmware.faults().unwrap().passages(Site::KickTx), 2);
}

/// What is not tested above is not the firmware's.
#[test]
fn every_site_of_the_firmware_has_a_test() {
    let here = include_str!("fault_tests.rs");
    for site in Site::ALL.into_iter().filter(|site| site.by() == By::Firmware) {
        let by_list = ["pool.", "tcb.", "bug."].iter().any(|group| site.name().starts_with(group));
        assert!(by_list || here.contains(&format!("Site::{site:?}")), "{}", site.name());
    }
}

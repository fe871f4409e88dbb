//! The truth of the limits: for every pool and every policy that makes sense for it, the Nth succeeds, the N+1st gets exactly
//! the policy and is counted by its reason, and after a release the Nth succeeds again.
//!
//! The pools are those of [`Pool::ALL`] and the policies those of [`Pool::policies`]; which case shows a pool's truth is one
//! `match`, so that a new pool without a case does not compile.

use toe_abi::{
    CARD_MAC, Endpoint, FRAME_BYTES_MAX, Hello, Listen, Mac, Message, Reason, Taken, Unlisten, Writer, flags,
};

use crate::engine::events::{Body, Reply};
use crate::engine::fault_tests::{STRIKE, struck};
use crate::engine::{Checksum, Event, Lane, Verdict};
use crate::pool::{Kind, Pool};
use crate::profile::{Profile, Refusal, SynCookies};
use crate::seq::Position;
use crate::store::gauge::Level;
use crate::store::pages::Stream;
use crate::tcp::fast_open::{self, Learned};
use crate::tcp::tcb::Tuple;
use crate::testing::Bench;
use crate::wire::options::Cookie;

/// A card whose pools have room for three, but for those that a test makes smaller or that cannot be so small.
fn small(pool: Pool, policy: Refusal, change: impl FnOnce(&mut Profile)) -> Bench {
    Bench::with(|p| {
        let l = &mut p.limits;
        (l.contexts, l.context_addresses, l.connections, l.listeners) = (3, 3, 3, 3);
        (l.backlog, l.half_open, l.time_wait) = (64, 64, 3);
        (l.page_bytes, l.send_pages, l.receive_pages) = (512, 256, 256);
        (l.transmit_records, l.out_of_order_ranges) = (64, 3);
        (l.segments, l.replies, l.events) = (16, 16, 16);
        p.tcp.syn_cookies = SynCookies::Off;
        if STRIKE.get().is_some() {
            // It would find what is lost.
            p.recovery.scrub_steps = 0;
        }
        *p.policy.of_mut(pool) = policy;
        change(p);
    })
}

/// How many of a pool there are, are in use, and were refused for its own reason.
pub(super) fn of(b: &Bench, pool: Pool) -> (u64, u64, u64) {
    let entry = b.firmware.limits().nth(pool as usize).unwrap();
    assert_eq!(entry.name, pool.name());
    let own = entry.refusals.iter().filter(|(reason, _)| *reason == pool.reason() as u32);
    let all: u64 = entry.refusals.iter().map(|(_, n)| n).sum();
    let own = own.map(|(_, n)| n).sum();
    assert_eq!(own, all, "{} refuses for no other reason", pool.name());
    (entry.capacity, entry.in_use, own)
}

/// What came of asking for one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Got {
    It,
    Denied,
    PassedOn,
}

fn refusal(policy: Refusal) -> Got {
    match policy {
        Refusal::Deny => Got::Denied,
        Refusal::Fallback => Got::PassedOn,
        Refusal::Evict => Got::It,
    }
}

/// The Nth, the N+1st, and the Nth again.
fn shown(
    b: &mut Bench,
    pool: Pool,
    policy: Refusal,
    mut take: impl FnMut(&mut Bench) -> Got,
    mut give: impl FnMut(&mut Bench),
) {
    if let Some(strike) = STRIKE.get() {
        struck(b, pool, strike, take, give);
    }
    let (capacity, before, refused) = of(b, pool);
    assert!(before < capacity && refused == 0);
    for n in before..capacity {
        assert_eq!(take(b), Got::It, "{pool:?}: number {n} of {capacity}");
        assert_eq!(of(b, pool), (capacity, n + 1, 0), "{pool:?}");
    }
    assert_eq!(take(b), refusal(policy), "{pool:?} with {policy:?}: one more than {capacity}");
    assert_eq!(of(b, pool), (capacity, capacity, 1), "{pool:?} with {policy:?}");
    give(b);
    assert_eq!(of(b, pool).1, capacity - 1, "{pool:?}: after a release");
    assert_eq!(take(b), Got::It, "{pool:?}: the last again");
    assert_eq!(of(b, pool), (capacity, capacity, 1), "{pool:?}");
}

#[test]
fn every_pool_and_every_policy_is_as_it_says() {
    for pool in Pool::ALL {
        for policy in pool.policies() {
            assert!(pool.kind() != Kind::Owned || *policy == Refusal::Deny);
            case(*pool, *policy);
        }
    }
}

pub(super) fn case(pool: Pool, policy: Refusal) {
    match pool {
        Pool::Contexts => contexts(policy),
        Pool::ContextAddresses => addresses(policy),
        Pool::Connections => connections(policy),
        Pool::Listeners => listeners(policy),
        Pool::Backlog => backlog(policy),
        Pool::HalfOpen => half_open(policy),
        Pool::TimeWait => time_wait(policy),
        Pool::SendPages | Pool::ReceivePages if policy == Refusal::Evict => pages_evict(pool),
        Pool::SendPages | Pool::ReceivePages => pages(pool, policy),
        Pool::TransmitRecords => records(policy),
        Pool::OutOfOrderRanges => ranges(policy),
        Pool::Tuples => tuples(),
        Pool::Timers => timers(),
        Pool::Segments => segments(policy),
        Pool::Replies => replies(policy),
        Pool::Events => events(policy),
        Pool::FastOpenServers => fast_open_servers(policy),
        Pool::FastOpenPending => fast_open_pending(policy),
        Pool::WireFifo => wire_fifo(policy, Lane::Others),
        Pool::ConnectionFifo => wire_fifo(policy, Lane::Connections),
    }
}

/// Another process of the guest says HELLO.
fn hello(b: &mut Bench, key: u128) {
    let mut frame = vec![0; FRAME_BYTES_MAX];
    let mut w = Writer::new(&mut frame, Mac([2, 0, 0, 0, 0, 2]), CARD_MAC, 0, 0, key).unwrap();
    assert!(w.push(&Message::Hello(Hello {
        version_min: 1,
        version_max: 1,
        lease_ms: 600_000,
        frame_bytes_max: FRAME_BYTES_MAX as u32,
        reserved: 0,
        receive_bytes_max: 1 << 20,
    })));
    let length = w.finish();
    assert_eq!(b.firmware.handle_guest(b.now, &frame[..length]), Verdict::Taken);
}

fn contexts(policy: Refusal) {
    let mut b = small(Pool::Contexts, policy, |_| ());
    let mut key = 100;
    let take = |b: &mut Bench| {
        key += 1;
        hello(b, key);
        match b.firmware.replies.first().map(|r| r.body) {
            Some(Body::Message(Message::Caps(_))) => {
                drain(b);
                Got::It
            }
            Some(Body::Message(Message::Error(e))) if e.reason == Reason::Contexts as u32 => {
                drain(b);
                if e.denied == 1 { Got::Denied } else { Got::PassedOn }
            }
            other => panic!("{other:?}"),
        }
    };
    shown(&mut b, Pool::Contexts, policy, take, |b| {
        let slot = b.firmware.context_of(102).unwrap();
        b.firmware.close_context(slot, Reason::AbortedByGuest, b.now);
    });
}

/// The answers go to whoever asked.
fn drain(b: &mut Bench) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    while b.firmware.poll_guest(b.now, &mut buffer).is_some() {}
}

fn addresses(policy: Refusal) {
    let mut b = small(Pool::ContextAddresses, policy, |p| p.limits.contexts = 1);
    let named = std::cell::Cell::new(0u8);
    let say = |b: &mut Bench, n: u8| {
        let refused = b.messages.len();
        b.addresses(&(0..n).map(|i| [192, 0, 2, 10 + i].into()).collect::<Vec<_>>());
        b.messages.len() == refused
    };
    let take = |b: &mut Bench| {
        if say(b, named.get() + 1) {
            named.set(named.get() + 1);
            Got::It
        } else {
            Got::Denied
        }
    };
    shown(&mut b, Pool::ContextAddresses, policy, take, |b| {
        named.set(named.get() - 1);
        assert!(say(b, named.get()));
    });
}

/// What the last answer with an action was.
fn answered(b: &mut Bench, before: usize) -> Got {
    match b.messages.get(before) {
        None => Got::It,
        Some(m) if m.contains("Result") && m.contains("action: 0") => Got::Denied,
        Some(m) if m.contains("Result") && m.contains("action: 1") => Got::PassedOn,
        Some(m) => panic!("{m}"),
    }
}

fn connections(policy: Refusal) {
    let mut b = small(Pool::Connections, policy, |_| ());
    let take = |b: &mut Bench| {
        // Long enough that those from before have made no progress.
        b.wait_ms(32_000);
        let (before, told) = (b.messages.len(), b.count("evicted-stalled"));
        b.another_port(true);
        b.connect(0);
        if b.count("evicted-stalled") > told {
            // The victim's guest was told, and said that it knows; of what the card knows no more.
            assert_eq!(b.reason, Reason::Evicted as u32);
            assert!(b.messages.drain(before..).all(|m| m.contains("Error")));
        }
        answered(b, before)
    };
    shown(&mut b, Pool::Connections, policy, take, |b| {
        b.abort();
        b.release();
    });
    assert_eq!(b.count("evicted-stalled"), u64::from(policy == Refusal::Evict));
}

fn listeners(policy: Refusal) {
    let mut b = small(Pool::Listeners, policy, |_| ());
    let take = |b: &mut Bench| {
        let before = b.messages.len();
        b.local.port += 1;
        b.listen();
        answered(b, before)
    };
    shown(&mut b, Pool::Listeners, policy, take, |b| {
        let last = Endpoint::new(b.local.ip, b.local.port - 1);
        let slot = b.firmware.listener_at(&last).unwrap();
        b.tell(&Message::Unlisten(Unlisten { listener: b.firmware.listeners.id(slot) }));
        b.messages.clear();
    });
}

/// LISTEN with a backlog that is not the bound, and with the listener's own policy.
fn listen(b: &mut Bench, flags: u32, policy: u32) {
    b.tell(&Message::Listen(Listen {
        cookie: 2,
        local: b.local,
        backlog: 1000,
        flags,
        receive_limit: 1 << 40,
        mtu: 1500,
        policy,
    }));
}

/// A SYN from another port: what became of it.
fn syn(b: &mut Bench, rest: &str) -> Got {
    b.another_port(false);
    let (dropped, frame) = (b.count("wire-drop-refused"), b.frame(&format!("S 0 win 1000 {rest}")));
    match b.deliver(&frame) {
        Verdict::PassOn => Got::PassedOn,
        Verdict::Taken if b.count("wire-drop-refused") > dropped => Got::Denied,
        Verdict::Taken => Got::It,
        Verdict::Wait(_) => panic!("the processor has no limit"),
    }
}

/// A card with this policy and a listener that says nothing of its own, and one with another policy whose listener says this.
fn listening(pool: Pool, policy: Refusal, change: fn(&mut Profile)) -> [Bench; 2] {
    let said = match policy {
        Refusal::Deny => 1,
        Refusal::Fallback => 2,
        Refusal::Evict => 3,
    };
    let other = pool.policies().iter().find(|p| **p != policy).unwrap();
    [(policy, 0), (*other, said)].map(|(card, own)| {
        let mut b = small(pool, card, |p| {
            p.limits.listeners = 1;
            change(p);
        });
        listen(&mut b, 0, own);
        b
    })
}

fn half_open(policy: Refusal) {
    for mut b in listening(Pool::HalfOpen, policy, |p| p.limits.half_open = 3) {
        shown(
            &mut b,
            Pool::HalfOpen,
            policy,
            |b| syn(b, ""),
            |b| {
                // The last that was let in: with deny and fallback the one before the last.
                b.remote.port -= u16::from(policy != Refusal::Evict);
                b.peer("R 1");
                b.remote.port += u16::from(policy != Refusal::Evict);
            },
        );
        assert_eq!(b.count("evicted-half-open"), u64::from(policy == Refusal::Evict));
    }
}

/// Connections that no program takes.
fn backlog(policy: Refusal) {
    for mut b in listening(Pool::Backlog, policy, |p| (p.limits.backlog, p.limits.connections) = (3, 8)) {
        let take = |b: &mut Bench| {
            let got = syn(b, "");
            if got == Got::It {
                b.peer("A 1 ack 1");
            }
            got
        };
        shown(&mut b, Pool::Backlog, policy, take, |b| {
            let slot = b.firmware.listener_at(&b.local).unwrap();
            b.tell(&Message::Taken(Taken { listener: b.firmware.listeners.id(slot), taken: 1 }));
        });
    }
}

fn time_wait(policy: Refusal) {
    let mut b = small(Pool::TimeWait, policy, |_| ());
    let take = |b: &mut Bench| {
        b.another_port(true);
        b.connect(0);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 1000");
        b.expect("A 1:1 ack 1");
        b.shutdown();
        b.expect("FA 1 ack 1");
        b.peer("FA 1 ack 2");
        b.expect("A 2:2 ack 2");
        b.release();
        Got::It
    };
    shown(&mut b, Pool::TimeWait, policy, take, |b| b.peer("R 2"));
    assert_eq!(b.count("tcp-time-wait-evicted"), 1);
}

/// One page after the other is granted to one stream.
fn pages(pool: Pool, policy: Refusal) {
    let mut b = small(pool, policy, |p| {
        p.limits.connections = 1;
        (p.limits.send_pages, p.limits.receive_pages) = (8, 8);
    });
    let mut stream = Stream::new(0);
    let start = Position::initial(crate::seq::Seq(0));
    let from = std::cell::Cell::new(0);
    let pages = |b: &mut Bench, f: &mut dyn FnMut(&mut crate::store::pages::Pages)| {
        let store = &mut b.firmware.store;
        f(if pool == Pool::SendPages { &mut store.send } else { &mut store.receive });
    };
    pages(&mut b, &mut |p| stream.open(p, start));
    let stream = std::cell::RefCell::new(stream);
    let take = |b: &mut Bench| {
        let mut got = Got::Denied;
        pages(b, &mut |p| {
            let mut stream = stream.borrow_mut();
            let in_use = p.gauge.in_use();
            let wanted = start + (from.get() + in_use + 1) * 512;
            if stream.grant(p, wanted) == wanted {
                got = Got::It;
            }
        });
        got
    };
    shown(&mut b, pool, policy, take, |b| {
        from.set(from.get() + 1);
        pages(b, &mut |p| stream.borrow_mut().release_before(p, start + from.get() * 512));
    });
}

/// Two connections, of which one has taken what there is to share and makes no progress: it gives way to the other, which
/// can hold more then. Of received data, what lies beyond a gap goes before that.
fn pages_evict(pool: Pool) {
    let mut b = small(pool, Refusal::Evict, |p| {
        p.limits.connections = 2;
        (p.limits.send_pages, p.limits.receive_pages) = if pool == Pool::SendPages { (40, 512) } else { (512, 40) };
        p.limits.connection_send_pages = 256;
        p.limits.connection_receive_pages = 256;
    });
    let open = |b: &mut Bench| {
        b.another_port(true);
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.peer("SA 0 ack 1 win 1000 <mss 1000>");
        b.expect("A 1:1 ack 1");
    };
    open(&mut b);
    let greedy = b.which();
    let granted = |b: &Bench, id: u64| {
        let t = &b.firmware.connections[b.firmware.connections.find(id).unwrap()];
        if pool == Pool::SendPages {
            t.send.stream.shared(&b.firmware.store.send)
        } else {
            t.receive.stream.shared(&b.firmware.store.receive)
        }
    };
    assert_eq!(granted(&b, greedy.connection), 36, "all but the reserves");
    if pool == Pool::ReceivePages {
        b.peer("PA 9001:10001 ack 1");
        assert_eq!(b.in_use("out-of-order-ranges"), 1);
        b.next();
    }
    open(&mut b);
    let poor = b.which();
    // What the first has for data beyond its gap goes first.
    let pruned = u64::from(pool == Pool::ReceivePages);
    assert_eq!(b.count("evicted-out-of-order"), pruned);
    if pruned == 1 {
        assert_eq!((granted(&b, greedy.connection), granted(&b, poor.connection)), (0, 36));
        assert_eq!(b.in_use("out-of-order-ranges"), 0);
        // It is not lost: the peer sends it again, from the gap on, and as much is taken as there is room for.
        b.resume(greedy);
        b.peer("PA 1:501 ack 1");
        b.received(500);
    } else {
        assert_eq!((granted(&b, greedy.connection), granted(&b, poor.connection)), (36, 0));
    }
    assert_eq!(b.count("evicted-stalled"), 0, "nobody has stood still for long");
    let (capacity, in_use, refused) = of_with_others(&b, pool);
    assert!(in_use == capacity && refused > 0);
    if pruned == 0 {
        // The poor one progresses, the greedy one does not, for longer than the profile says.
        for i in 0..40u32 {
            b.wait_ms(1000);
            b.send(10);
            b.peer(&format!("A 1 ack {}", 1 + 10 * (i + 1)));
        }
        while b.next().is_some() {}
        assert_eq!(b.count("evicted-stalled"), 1);
        assert_eq!(granted(&b, poor.connection), 36);
        assert!(b.firmware.connections.find(greedy.connection).is_none());
    }
}

/// The same as [`of`], where an account may be the reason.
fn of_with_others(b: &Bench, pool: Pool) -> (u64, u64, u64) {
    let entry = b.firmware.limits().nth(pool as usize).unwrap();
    (entry.capacity, entry.in_use, entry.refusals.iter().map(|(_, n)| n).sum())
}

fn records(policy: Refusal) {
    let mut b = small(Pool::TransmitRecords, policy, |p| {
        p.limits.connections = 1;
        p.limits.transmit_records = 8;
    });
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000>");
    b.expect("A 1:1 ack 1");
    // Four are its own.
    let segment = |b: &mut Bench| {
        b.send(1000);
        if b.next().is_some() { Got::It } else { Got::Denied }
    };
    (0..4).for_each(|_| assert_eq!(segment(&mut b), Got::It));
    assert_eq!(of(&b, Pool::TransmitRecords), (8, 4, 0));
    (0..4).for_each(|_| assert_eq!(segment(&mut b), Got::It));
    assert_eq!(of(&b, Pool::TransmitRecords), (8, 8, 0));
    assert_eq!((segment(&mut b), policy), (Got::Denied, Refusal::Deny));
    let (_, in_use, refused) = of(&b, Pool::TransmitRecords);
    assert!(in_use == 8 && refused > 0 && b.count("tcp-no-transmit-record") == refused);
    // What waited goes with the record that comes free.
    b.peer("A 1 ack 1001 win 60000");
    b.expect("PA 8001:9001");
    assert_eq!(of(&b, Pool::TransmitRecords).1, 8);
}

fn ranges(policy: Refusal) {
    let mut b = small(Pool::OutOfOrderRanges, policy, |p| {
        p.limits.connections = 1;
        (p.limits.send_pages, p.limits.receive_pages) = (256, 256);
    });
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000>");
    let mut at = 1;
    let take = |b: &mut Bench| {
        at += 10;
        let dropped = b.count("tcp-out-of-order-dropped");
        b.peer(&format!("PA {at}:{} ack 1", at + 1));
        if b.count("tcp-out-of-order-dropped") > dropped { Got::Denied } else { Got::It }
    };
    // The first gap is filled.
    shown(&mut b, Pool::OutOfOrderRanges, policy, take, |b| b.peer("PA 1:11 ack 1"));
}

/// Connections, half-open and TIME-WAIT entries all have a place in the table.
fn tuples() {
    let mut b = small(Pool::Tuples, Refusal::Deny, |p| p.limits.half_open = 3);
    for _ in 0..4 {
        b.another_port(true);
        b.connect(0);
        b.peer("SA 0 ack 1 win 1000");
        b.shutdown();
        b.peer("FA 1 ack 2");
        b.release();
    }
    b.local.port = 80;
    listen(&mut b, 0, 1);
    for _ in 0..4 {
        syn(&mut b, "");
    }
    for _ in 0..4 {
        b.another_port(true);
        b.connect(0);
    }
    assert_eq!(of(&b, Pool::Tuples), (9, 9, 0));
    assert_eq!([Pool::Connections, Pool::HalfOpen, Pool::TimeWait].map(|pool| b.in_use(pool.name())), [3; 3]);
}

/// Every timer can run at the same time as all the others.
fn timers() {
    let mut b = small(Pool::Timers, Refusal::Deny, |_| ());
    let (capacity, ..) = of(&b, Pool::Timers);
    assert_eq!(capacity, 3 * 6 + 64 + 3 + 3);
    let at = b.now + crate::time::Duration::from_s(1);
    for timer in 0..capacity as u32 {
        b.firmware.wheel.arm(timer, at);
    }
    assert_eq!(of(&b, Pool::Timers), (capacity, capacity, 0));
    b.firmware.wheel.disarm(5);
    assert_eq!(of(&b, Pool::Timers).1, capacity - 1);
    b.firmware.wheel.arm(5, at);
    assert_eq!(of(&b, Pool::Timers), (capacity, capacity, 0));
}

/// SYN-ACKs that the wire does not take.
fn segments(policy: Refusal) {
    // A connection for each handshake.
    let mut b = small(Pool::Segments, policy, |p| (p.limits.connections, p.limits.transmit_records) = (32, 128));
    listen(&mut b, 0, 0);
    let take = |b: &mut Bench| {
        b.another_port(false);
        let before = b.firmware.segments_gauge.in_use();
        let frame = b.frame("S 0 win 1000");
        assert_eq!(b.firmware.handle_wire(b.now, &frame, Checksum::Unverified), Verdict::Taken);
        if b.firmware.segments_gauge.in_use() > before { Got::It } else { Got::Denied }
    };
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    shown(&mut b, Pool::Segments, policy, take, |b| {
        b.firmware.poll_wire(b.now, &mut buffer).unwrap();
    });
}

/// Answers that the guest does not fetch.
fn replies(policy: Refusal) {
    let mut b = small(Pool::Replies, policy, |_| ());
    let take = |b: &mut Bench| {
        let before = b.firmware.replies_gauge.in_use();
        // Each from another station: none shares a frame.
        let mac = Mac([2, 0, 0, 0, 1, before as u8]);
        let body = Body::Limits { cookie: 1, first: 0 };
        b.firmware.queue_reply(Reply { mac, key: 5, context: 9, body });
        if b.firmware.replies_gauge.in_use() > before { Got::It } else { Got::Denied }
    };
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    shown(&mut b, Pool::Replies, policy, take, |b| {
        b.firmware.poll_guest(b.now, &mut buffer).unwrap();
    });
    assert_eq!(b.count("channel-replies-full"), 1);
}

/// Events that the host does not ask for.
fn events(policy: Refusal) {
    let mut b = small(Pool::Events, policy, |_| ());
    let event = Event::Pool { pool: Pool::Contexts, level: Level::Full, in_use: 3, capacity: 3 };
    let take = |b: &mut Bench| {
        let before = b.firmware.pressure.gauge.in_use();
        b.firmware.pressure.push(event);
        if b.firmware.pressure.gauge.in_use() > before { Got::It } else { Got::Denied }
    };
    shown(&mut b, Pool::Events, policy, take, |b| assert_eq!(b.firmware.pressure.pop(), Some(event)));
}

/// A pool that fills up is told of at three quarters, when it is full and when it is well below again: once each, to the
/// host and to the guest.
#[test]
fn levels_are_told() {
    let mut b = small(Pool::Connections, Refusal::Deny, |p| p.limits.connections = 16);
    let told = |b: &mut Bench| {
        let events = std::iter::from_fn(|| b.firmware.poll_event());
        let of_connections = |event| match event {
            Event::Pool { pool: Pool::Connections, level, in_use, .. } => Some((level, in_use)),
            Event::Pool { .. } | Event::Finding { .. } => None,
        };
        events.filter_map(of_connections).collect::<Vec<_>>()
    };
    let open = |b: &mut Bench| {
        b.another_port(true);
        b.connect(0);
    };
    (0..11).for_each(|_| open(&mut b));
    assert_eq!(told(&mut b), []);
    open(&mut b);
    assert_eq!(told(&mut b), [(Level::High, 12)]);
    for _ in 0..4 {
        open(&mut b);
        b.abort();
        b.release();
    }
    assert_eq!(told(&mut b), [], "what goes up and down at the edge is told of once");
    (0..5).for_each(|_| open(&mut b));
    assert_eq!(told(&mut b), [(Level::Full, 16)]);
    let of_guest = |b: &Bench| {
        let own = b.resource_events.iter().filter(|e| e.pool == Pool::Connections as u32);
        own.map(|e| (e.level, e.in_use)).collect::<Vec<_>>()
    };
    assert_eq!(of_guest(&b), [(1, 12), (2, 16)]);
    let context = b.firmware.context_of(0x5eed).unwrap();
    b.firmware.close_context(context, Reason::AbortedByGuest, b.now);
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    while b.firmware.poll_wire(b.now, &mut buffer).is_some() {}
    assert_eq!(told(&mut b).last(), Some(&(Level::Normal, 0)));
}

fn fast_open_servers(policy: Refusal) {
    let mut b = small(Pool::FastOpenServers, policy, |p| (p.tcp.fast_open, p.tcp.fast_open_servers) = (true, 3));
    let learned = Learned::Cookie(Cookie::new(&[1; 8]).unwrap(), 1000);
    let server = |b: &Bench, n: u16| Tuple { local: b.local, remote: Endpoint::new(b.remote.ip, n) };
    for n in 1..=4 {
        assert_eq!(of(&b, Pool::FastOpenServers), (3, u64::from(n - 1), 0));
        let tuple = server(&b, n);
        b.firmware.cookies.learn(&tuple, learned, b.now);
    }
    assert_eq!((of(&b, Pool::FastOpenServers), policy), ((3, 3, 1), Refusal::Evict));
    let known = [1, 2, 3, 4].map(|n| {
        let tuple = server(&b, n);
        matches!(b.firmware.cookies.client(&tuple, b.now), fast_open::Client::Offer { .. })
    });
    assert_eq!(known, [false, true, true, true], "the oldest");
}

fn fast_open_pending(policy: Refusal) {
    let mut b = small(Pool::FastOpenPending, policy, |p| {
        (p.tcp.fast_open, p.tcp.fast_open_pending) = (true, 2);
        (p.limits.listeners, p.limits.connections) = (1, 8);
    });
    listen(&mut b, flags::FAST_OPEN, 0);
    let last = std::cell::Cell::new(None);
    let take = |b: &mut Bench| {
        b.another_port(false);
        let before = b.in_use("fast-open-pending");
        let tuple = Tuple { local: b.local, remote: b.remote };
        let cookie = fast_open::cookie(&b.firmware.keys.cookie, &tuple, b.now).unwrap();
        let digits: String = cookie.as_slice().iter().map(|b| format!("{b:02x}")).collect();
        let frame = b.frame(&format!("S 0:10 win 1000 <mss 1000, fo {digits}>"));
        assert_eq!(b.deliver(&frame), Verdict::Taken, "it is a SYN like any other if not more");
        if b.in_use("fast-open-pending") == before {
            return Got::Denied;
        }
        last.set(Some(b.which()));
        Got::It
    };
    shown(&mut b, Pool::FastOpenPending, policy, take, |b| {
        // The handshake of the last that was let in is completed.
        let newest = b.which();
        b.resume(last.get().unwrap());
        b.peer("A 11 ack 1 win 1000");
        b.resume(newest);
    });
}

/// Frames that wait for a slow processor.
fn wire_fifo(policy: Refusal, lane: Lane) {
    let pool = if lane == Lane::Connections { Pool::ConnectionFifo } else { Pool::WireFifo };
    let mut b = small(pool, policy, |p| {
        (p.limits.work_units_per_us, p.limits.wire_fifo_frames) = (1, 3);
    });
    // A connection's own segment, or a SYN.
    b.connect(0);
    b.wait_ms(10);
    let segment = b.frame("A 7 ack 1");
    b.local.port = 80;
    b.listen();
    let frame = if lane == Lane::Connections { segment } else { b.frame("S 0") };
    let take = |b: &mut Bench| match b.firmware.handle_wire(b.now, &frame, Checksum::Unverified) {
        Verdict::Wait(found) => {
            assert_eq!(found, lane);
            Got::It
        }
        Verdict::Taken => Got::Denied,
        Verdict::PassOn => Got::PassedOn,
    };
    // The guest's LISTEN keeps the processor busy for microseconds; the bench's time stands.
    shown(&mut b, pool, policy, take, |b| {
        b.now = b.firmware.poll_timeout().unwrap();
        assert_eq!(b.firmware.next_waiting(b.now), Some(lane));
        assert_ne!(b.firmware.handle_waiting(b.now, lane, &frame, Checksum::Unverified), Verdict::Wait(lane));
    });
    assert_eq!(b.count("wire-drop-fifo-full"), 1);
}

//! What an admitted connection always has, what contexts may have of what they share, and what a full table does.

use toe_abi::{
    CARD_MAC, Connect, Endpoint, FRAME_BYTES_MAX, Hello, LimitEntry, Listen, Mac, Message, Parsed, Reason, Release,
    Writer, flags, state,
};

use crate::engine::{Call, Verdict};
use crate::pool::Pool;
use crate::profile::{Profile, Refusal, SynCookies};
use crate::testing::{Bench, octet};
use crate::time::Duration;

const GUEST_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// Opens a connection of the bench's guest from its next port; the peer's segments may have 500 octets.
fn open(b: &mut Bench) {
    b.another_port(true);
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 500>");
    b.expect("A 1:1 ack 1");
}

/// 4,000 octets each way, in pieces of 500, and both ends see all of them.
fn moves_data(b: &mut Bench) {
    b.received.clear();
    let before = b.sent() as u32;
    for i in 0..8u32 {
        let (at, out) = (1 + i * 500, 1 + before + i * 500);
        b.send(500);
        b.expect(&format!("PA {out}:{}", out + 500));
        b.peer(&format!("PA {at}:{} ack {}", at + 500, out + 500));
        b.received(at as usize + 499);
        // The acknowledgement may wait.
        b.wait_ms(500);
        while b.next().is_some() {}
    }
}

/// No page, no record, no place of any kind is left to share: every connection that was admitted still moves data in both
/// directions, closes in order, and aborts.
#[test]
fn with_every_shared_pool_at_zero_all_that_was_admitted_goes_on() {
    let mut b = Bench::with(|p| {
        let l = &mut p.limits;
        (l.contexts, l.connections, l.listeners, l.half_open, l.time_wait) = (1, 4, 0, 0, 0);
        l.page_bytes = 512;
        // The reserves, and nothing else.
        (l.send_pages, l.receive_pages, l.transmit_records) = (8, 8, 16);
        (l.segments, l.replies, l.events) = (16, 16, 16);
    });
    let mut all: Vec<_> = (0..4)
        .map(|_| {
            open(&mut b);
            b.which()
        })
        .collect();
    for pool in [Pool::Contexts, Pool::Connections, Pool::SendPages, Pool::ReceivePages, Pool::TransmitRecords] {
        let entry = b.firmware.limits().nth(pool as usize).unwrap();
        assert_eq!(entry.in_use, entry.capacity, "{}", entry.name);
    }
    for which in &mut all {
        b.resume(*which);
        moves_data(&mut b);
        *which = b.which();
    }
    // Two close in order, one from each side; nothing is kept of them, because TIME-WAIT has no place.
    b.resume(all[0]);
    b.shutdown();
    let end = 4001;
    b.expect(&format!("FA {end}"));
    b.peer(&format!("FA {end} ack {}", end + 1));
    b.expect(&format!("A {}:{} ack {}", end + 1, end + 1, end + 1));
    b.release();
    b.resume(all[1]);
    b.peer(&format!("FA {end} ack {end}"));
    b.expect(&format!("A {end}:{end} ack {}", end + 1));
    b.release();
    b.expect(&format!("FA {end}"));
    b.peer(&format!("A {} ack {}", end + 1, end + 1));
    // Two are reset, one from each side.
    b.resume(all[2]);
    b.abort();
    b.expect(&format!("RA {end}:{end}"));
    b.release();
    b.resume(all[3]);
    b.peer(&format!("R {end}"));
    assert_eq!(b.reason, Reason::Reset as u32);
    b.release();
    for pool in [Pool::Connections, Pool::SendPages, Pool::ReceivePages, Pool::TransmitRecords, Pool::Tuples] {
        assert_eq!(b.in_use(pool.name()), 0, "{}", pool.name());
    }
}

/// A receiver whose window closed because there were no pages is told of those that come back, though its program does
/// nothing, and its peer by it.
#[test]
fn who_waits_for_pages_is_woken_when_some_come_back() {
    let mut b = Bench::with(|p| {
        p.limits.connections = 2;
        p.limits.page_bytes = 512;
        p.limits.receive_pages = 4 + 32;
    });
    open(&mut b);
    let greedy = b.which();
    open(&mut b);
    b.reading = false;
    // Its two pages are filled (the first octet stands within one), and its program reads nothing.
    b.peer("PA 1:501 ack 1");
    b.peer("PA 501:533 ack 1");
    b.wait_ms(500);
    let mut last = String::new();
    while let Some(segment) = b.next() {
        last = segment;
    }
    assert_eq!(last, "A 1:1 ack 533 win 0");
    let which = b.which();
    b.resume(greedy);
    b.abort();
    b.expect("RA 1:1");
    b.release();
    b.resume(which);
    b.expect("A 1:1 ack 533 win 16384");
    b.nothing();
}

/// The same of a sender's: its guest is told of the credit.
#[test]
fn a_guest_that_waits_for_credit_gets_it_when_pages_come_back() {
    let mut b = Bench::with(|p| {
        p.limits.connections = 2;
        p.limits.page_bytes = 512;
        p.limits.send_pages = 4 + 32;
    });
    open(&mut b);
    let greedy = b.which();
    open(&mut b);
    let which = b.which();
    let limit = |b: &Bench| {
        let t = &b.firmware.connections[b.firmware.connections.find(which.connection).unwrap()];
        (t.send_offset(t.send.stream.limit()), t.send_offset(t.guest.limit_told))
    };
    assert!(limit(&b).0 <= 1024);
    b.resume(greedy);
    b.abort();
    b.release();
    let (limit, told) = limit(&b);
    assert!(limit > 16_000 && told == limit, "{limit} {told}");
}

/// A process of the guest.
struct Tenant {
    key: u128,
    id: u64,
    port: u16,
}

impl Tenant {
    fn new(b: &mut Bench, key: u128) -> Self {
        let mut tenant = Self { key, id: 0, port: 1000 * key as u16 };
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            lease_ms: 600_000,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            reserved: 0,
            receive_bytes_max: 1 << 20,
        };
        tenant.tell(b, &Message::Hello(hello), |t, m| {
            if let Message::Caps(caps) = m {
                t.id = caps.context;
            }
        });
        assert_ne!(tenant.id, 0);
        tenant
    }

    fn tell(&mut self, b: &mut Bench, message: &Message<'_>, mut hear: impl FnMut(&mut Self, &Message<'_>)) {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        let epoch = u32::from(self.id != 0);
        let mut w = Writer::new(&mut frame, GUEST_MAC, CARD_MAC, self.id, epoch, self.key).unwrap();
        assert!(w.push(message));
        let length = w.finish();
        assert_eq!(b.firmware.handle_guest(b.now, &frame[..length]), Verdict::Taken);
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        while let Some(length) = b.firmware.poll_guest(b.now, &mut buffer) {
            for message in Parsed::new(&buffer[..length]).unwrap().messages {
                hear(self, &message.unwrap());
            }
        }
        while b.firmware.poll_wire(b.now, &mut buffer).is_some() {}
    }

    /// One more connection: its id, or why not.
    fn connect(&mut self, b: &mut Bench) -> Result<u64, Reason> {
        self.port += 1;
        let connect = Connect {
            cookie: self.port.into(),
            local: Endpoint::new(b.local.ip, self.port),
            remote: b.remote,
            next_hop: Mac([2, 0, 0, 0, 0, 1]),
            flags: 0,
            mtu: 1500,
            receive_limit: 1 << 40,
        };
        let mut result = None;
        self.tell(b, &Message::Connect(connect), |_, m| {
            if let Message::ConnectResult(m) = m {
                result = Some(if m.reason == 0 { Ok(m.connection) } else { Err(Reason::from_u32(m.reason).unwrap()) });
            }
        });
        result.expect("an answer")
    }

    fn release(&mut self, b: &mut Bench, connection: u64) {
        self.tell(b, &Message::Release(Release { connection }), |_, _| ());
    }

    fn own(&self, b: &Bench, name: &str) -> LimitEntry<'static> {
        b.firmware.context_limits().find(|(id, e)| *id == self.id && e.name == name).unwrap().1
    }
}

fn refusals(entry: &LimitEntry<'_>) -> Vec<(u32, u64)> {
    entry.refusals.iter().copied().filter(|(_, n)| *n > 0).collect()
}

/// A context's quota is its own limit: the next is refused and counted by the context and by the pool, and another
/// context does not notice.
#[test]
fn a_quota_bounds_its_context_and_no_other() {
    let mut b = Bench::with(|p| p.quota.connections = 2);
    let (mut one, mut other) = (Tenant::new(&mut b, 1), Tenant::new(&mut b, 2));
    let first = one.connect(&mut b).unwrap();
    one.connect(&mut b).unwrap();
    assert_eq!(one.connect(&mut b), Err(Reason::Quota));
    assert!(other.connect(&mut b).is_ok() && other.connect(&mut b).is_ok());
    let own = one.own(&b, "own-connections");
    assert_eq!((own.capacity, own.in_use, refusals(&own)), (2, 2, vec![(Reason::Quota as u32, 1)]));
    let all = b.firmware.limits().nth(Pool::Connections as usize).unwrap();
    assert_eq!(refusals(&all), [(Reason::Quota as u32, 1)]);
    assert_eq!(refusals(&other.own(&b, "own-connections")), []);
    one.release(&mut b, first);
    assert!(one.connect(&mut b).is_ok());
}

/// Without a quota one context may have everything, until another wants its share: then what comes free is for that one.
#[test]
fn contexts_that_compete_come_to_their_fair_share() {
    let mut b = Bench::with(|p| p.limits.connections = 8);
    let (mut one, mut other) = (Tenant::new(&mut b, 1), Tenant::new(&mut b, 2));
    let mut held: Vec<_> = (0..8).map(|_| one.connect(&mut b).unwrap()).collect();
    let mut got = 0;
    for _ in 0..6 {
        // Both want one, the greedy one first and more often; one place comes free.
        b.now = b.now + Duration::from_ms(100);
        if other.connect(&mut b).is_ok() {
            got += 1;
        }
        let connection = held.pop().unwrap();
        one.release(&mut b, connection);
        for _ in 0..3 {
            held.extend(one.connect(&mut b));
        }
        got += u64::from(other.connect(&mut b).is_ok());
    }
    assert_eq!((held.len(), got), (4, 4), "half each");
    assert_eq!(one.own(&b, "own-connections").in_use, 4);
    let refused = one.own(&b, "own-connections");
    assert!(refusals(&refused).iter().any(|(reason, _)| *reason == Reason::FairShare as u32));
    // When nobody claims anything any more, what is free is free for all.
    b.now = b.now + Duration::from_s(3);
    let connection = held.pop().unwrap();
    one.release(&mut b, connection);
    assert!(one.connect(&mut b).is_ok());
}

/// What a program has left counts for its context until it is over; with the context's end it counts for nobody.
#[test]
fn a_context_that_ends_leaves_nothing_to_its_successor() {
    let mut b = Bench::with(|p| p.limits.contexts = 2);
    let mut one = Tenant::new(&mut b, 1);
    for _ in 0..3 {
        one.connect(&mut b).unwrap();
    }
    let slot = b.firmware.context_of(1).unwrap();
    assert_eq!((one.own(&b, "own-connections").in_use, one.own(&b, "own-send-pages").in_use > 0), (3, true));
    b.firmware.close_context(slot, Reason::LeaseExpired, b.now);
    let next = Tenant::new(&mut b, 2);
    assert_eq!(b.firmware.context_of(2), Some(slot), "the same place");
    for name in ["own-connections", "own-send-pages", "own-receive-pages"] {
        let entry = next.own(&b, name);
        assert_eq!((entry.in_use, entry.high_water), (0, 0), "{name}");
    }
}

/// A full table: no connection that is established is lost, and a new one is carried by the kernel or told at once.
#[test]
fn a_full_table_loses_nothing_and_leaves_nobody_in_the_dark() {
    for policy in [Refusal::Fallback, Refusal::Deny, Refusal::Evict] {
        let mut b = Bench::with(|p| {
            p.limits.connections = 3;
            p.policy.connections = policy;
        });
        let all: Vec<_> = (0..3)
            .map(|_| {
                open(&mut b);
                b.which()
            })
            .collect();
        // From the wire.
        let local = b.local;
        b.local.port = 80;
        b.listen();
        b.remote.port += 1;
        let frame = b.frame("S 0 win 1000");
        let dropped = b.count("wire-drop-refused");
        match policy {
            Refusal::Fallback => assert_eq!(b.deliver(&frame), Verdict::PassOn),
            Refusal::Deny | Refusal::Evict => {
                assert_eq!(b.deliver(&frame), Verdict::Taken);
                assert_eq!(b.count("wire-drop-refused"), dropped + 1, "nobody may be evicted: all have just begun");
            }
        }
        b.remote.port -= 1;
        // From the guest.
        b.local = local;
        b.another_port(true);
        b.connect(0);
        let result = b.messages.pop().unwrap();
        let action = if policy == Refusal::Fallback { 1 } else { 0 };
        let told = format!("reason: {}, action: {action}", Reason::Connections as u32);
        assert!(result.starts_with("ConnectResult") && result.contains(&told), "{result}");
        // Nobody noticed.
        for which in all {
            b.resume(which);
            moves_data(&mut b);
            assert_eq!(b.bits & state::ABORTED, 0);
        }
    }
}

/// Every built-in profile boots and carries a connection.
#[test]
fn every_built_in_profile_carries_a_connection() {
    for name in Profile::BUILT_IN {
        let mut b = Bench::with(|p| *p = Profile::built_in(name).unwrap());
        open(&mut b);
        moves_data(&mut b);
        let sent = b.sent();
        assert_eq!((sent, b.received.len(), b.received[3999]), (4000, 4000, octet(3999)), "{name}");
        b.shutdown();
        b.expect("FA 4001");
        b.peer("FA 4001 ack 4002");
        b.expect("A 4002:4002 ack 4002");
        b.release();
        assert_eq!((b.in_use("connections"), b.in_use("time-wait")), (0, 1), "{name}");
    }
}

/// What a call that finds a pool full costs, in steps, whatever the pool's size. Printed with `--nocapture`; the table is in
/// `docs/limits.md`.
#[test]
fn the_cost_of_a_policy_does_not_depend_on_the_size_of_the_pool() {
    for policy in [Refusal::Deny, Refusal::Fallback, Refusal::Evict] {
        let name = policy.as_str();
        told(&format!("CONNECT, `connections` full, `{name}`"), [16, 4096].map(|n| cost_of_connect(policy, n)));
        told(&format!("SYN, `half-open` full, `{name}`"), [16, 4096].map(|n| cost_of_syn(policy, n)));
    }
    for pool in [Pool::SendPages, Pool::ReceivePages] {
        let what = format!("a turn to send, `{}` used up by those that make no progress, `evict`", pool.name());
        told(&what, [16, 1024].map(|n| cost_of_page(pool, n)));
    }
}

fn told(what: &str, [small, large]: [u64; 2]) {
    println!("| {what} | {small} | {large} |");
    // The buckets that a 4-tuple may lie in are nearly empty on the small card, and of those who wait for pages a bounded
    // number is looked at in one call.
    assert!(large <= small + 32 && large <= 64, "{what}: {small}, {large}");
}

/// A card with room for so many connections, and what they have for themselves, and no more.
fn full_of_connections(connections: u32, change: impl FnOnce(&mut Profile)) -> Bench {
    Bench::with(|p| {
        p.limits.connections = connections;
        p.limits.page_bytes = 512;
        (p.limits.send_pages, p.limits.receive_pages) = (2 * connections, 2 * connections);
        p.limits.transmit_records = 4 * connections;
        (p.limits.connection_send_pages, p.limits.connection_receive_pages) = (64, 64);
        change(p);
    })
}

fn cost_of_connect(policy: Refusal, connections: u32) -> u64 {
    let mut b = full_of_connections(connections, |p| p.policy.connections = policy);
    let mut one = Tenant::new(&mut b, 1);
    for _ in 0..connections {
        one.connect(&mut b).unwrap();
    }
    b.now = b.now + Duration::from_s(32);
    b.firmware.forget_most_work();
    let result = one.connect(&mut b);
    assert_eq!(result.is_ok(), policy == Refusal::Evict);
    b.firmware.work().most(Call::HandleGuest)
}

fn cost_of_syn(policy: Refusal, entries: u32) -> u64 {
    let mut b = Bench::with(|p| {
        (p.limits.half_open, p.limits.backlog) = (entries, 8192);
        // A connection for each handshake, and one more.
        p.limits.connections = entries + 1;
        (p.limits.send_pages, p.limits.receive_pages) = (2 * entries + 2, 2 * entries + 2);
        p.limits.transmit_records = 4 * entries + 4;
        p.policy.half_open = policy;
        p.tcp.syn_cookies = SynCookies::Off;
    });
    b.tell(&Message::Listen(Listen {
        cookie: 2,
        local: b.local,
        backlog: 8192,
        flags: 0,
        receive_limit: 1 << 40,
        mtu: 1500,
        policy: 0,
    }));
    let syn = |b: &mut Bench| {
        b.another_port(false);
        let frame = b.frame("S 0 win 1000 <mss 1460, sackOK, ws 7>");
        let _ = b.deliver(&frame);
    };
    (0..entries).for_each(|_| syn(&mut b));
    assert_eq!(b.in_use("half-open"), u64::from(entries));
    b.firmware.forget_most_work();
    syn(&mut b);
    assert_eq!(b.count("evicted-half-open"), u64::from(policy == Refusal::Evict));
    b.firmware.work().most(Call::HandleWire)
}

/// All connections but the last have stood still for long, the first of them with all pages that can be shared, and the
/// last wants some.
fn cost_of_page(pool: Pool, connections: u32) -> u64 {
    let mut b = full_of_connections(connections, |p| {
        *p.policy.of_mut(pool) = Refusal::Evict;
        *(if pool == Pool::SendPages { &mut p.limits.send_pages } else { &mut p.limits.receive_pages }) += 60;
    });
    for _ in 1..connections {
        open(&mut b);
    }
    b.now = b.now + Duration::from_s(32);
    b.firmware.forget_most_work();
    b.another_port(true);
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 500>");
    while b.next().is_some() {}
    // On the large card nobody has more than a part, and those that had none wait for some, too.
    assert!(matches!(b.count("evicted-stalled"), 1 | 2));
    b.firmware.work().most(Call::PollWire)
}

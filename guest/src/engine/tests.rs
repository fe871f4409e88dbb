//! The engine against the model of the card, in virtual time, over a link that loses, repeats and reorders.

use std::net::Ipv4Addr;

use super::mock_card::{ECHO_PORT, MockCard, SILENT_PORT};
use super::*;

/// A small generator (xorshift), so that a failing seed replays.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// An engine, the model of the card, and the link between them.
pub(super) struct Bench {
    pub(super) now: Instant,
    start: Instant,
    pub(super) engine: Engine,
    pub(super) card: MockCard,
    chance: Chance,
    /// Of a hundred frames, so many are lost, so many repeated, so many delayed.
    trouble: u64,
    flying: Vec<(Instant, bool, Vec<u8>)>,
    changes: Vec<Change>,
    cut: bool,
    /// All that went to the card.
    log: Vec<Vec<u8>>,
    /// The next frame to the guest with such a message is lost.
    losing: Option<Kind>,
}

type Kind = fn(&Message<'_>) -> bool;

fn has(frame: &[u8], kind: Kind) -> bool {
    let parsed = Parsed::new(frame).unwrap();
    parsed.messages.filter_map(Result::ok).any(|message| kind(&message))
}

impl Bench {
    pub(super) fn new(seed: u64, trouble: u64) -> Self {
        let now = Instant::now();
        let config = Config {
            key: 0x1122,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            frame_bytes_max: 1_514,
            receive_bytes_max: 1 << 20,
            lease: Duration::from_secs(3),
            buffers: Buffers { send_bytes: 10_000, receive_bytes: 5_000 },
            process: None,
        };
        Self {
            now,
            start: now,
            engine: Engine::new(now, config),
            card: MockCard::new(),
            chance: Chance::new(seed),
            trouble,
            flying: Vec::new(),
            changes: Vec::new(),
            cut: false,
            log: Vec::new(),
            losing: None,
        }
    }

    /// The first frame with such a message that went to the card.
    pub(super) fn sent(&self, kind: Kind) -> Vec<u8> {
        self.log.iter().find(|frame| has(frame, kind)).unwrap().clone()
    }

    /// Loses the next frame with such a message on its way to the guest.
    pub(super) fn lose_next(&mut self, kind: Kind) {
        self.losing = Some(kind);
    }

    fn launch(&mut self, to_card: bool, frame: Vec<u8>) {
        if to_card {
            self.log.push(frame.clone());
        } else if self.losing.is_some_and(|kind| has(&frame, kind)) {
            self.losing = None;
            return;
        }
        if self.cut || self.chance.below(100) < self.trouble {
            return;
        }
        let copies = 1 + u64::from(self.chance.below(100) < self.trouble);
        for _ in 0..copies {
            let extra = if self.chance.below(100) < self.trouble { self.chance.below(120_000) } else { 0 };
            self.flying.push((self.now + Duration::from_micros(20 + extra), to_card, frame.clone()));
        }
    }

    /// One step of a millisecond.
    fn step(&mut self) {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        self.engine.handle_timeout(self.now);
        while let Some(n) = self.engine.poll_transmit(&mut buffer) {
            self.launch(true, buffer[..n].to_vec());
        }
        self.card.handle_timeout(self.now);
        while let Some(frame) = self.card.poll_transmit() {
            self.launch(false, frame);
        }
        self.now += Duration::from_millis(1);
        let now = self.now;
        let (mut landed, flying): (Vec<_>, Vec<_>) = self.flying.drain(..).partition(|(at, ..)| *at <= now);
        self.flying = flying;
        landed.sort_by_key(|(at, ..)| *at);
        for (_, to_card, frame) in landed {
            if to_card {
                self.card.handle_frame(now, &frame);
            } else {
                self.engine.handle_frame(now, &frame);
            }
        }
        self.changes.extend(self.engine.take_changes());
        assert!(self.card.complaints.is_empty(), "{:?}", self.card.complaints);
    }

    pub(super) fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        while !condition(self) {
            assert!(self.now < self.start + Duration::from_secs(300), "never: {what}");
            self.step();
        }
    }

    pub(super) fn connect(&mut self, port: u16) -> ConnectionKey {
        let local = Endpoint::new(Ipv4Addr::new(192, 0, 2, 1).into(), 40_000);
        let remote = Endpoint::new(Ipv4Addr::new(192, 0, 2, 2).into(), port);
        self.engine.connect(self.now, (local, remote), Mac([2, 0, 0, 0, 0, 2]), 1_500, 0)
    }

    pub(super) fn established(&mut self, port: u16) -> ConnectionKey {
        let key = self.connect(port);
        self.until("established", |b| b.engine.connection(key).unwrap().has(toe_abi::state::ESTABLISHED));
        key
    }

    pub(super) fn listen(&mut self, port: u16, backlog: u32) -> ListenerKey {
        let local = Endpoint::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let wish = ListenWish { backlog, flags: 0, policy: toe_abi::listen_policy::OF_CARD };
        self.engine.listen(self.now, local, wish, 1_500, vec![Ipv4Addr::new(192, 0, 2, 1).into()])
    }
}

use toe_abi::FRAME_BYTES_MAX;

fn pattern(n: usize, seed: u64) -> Vec<u8> {
    let mut chance = Chance::new(seed ^ 0x5555);
    (0..n).map(|_| chance.below(256) as u8).collect()
}

/// Moves `data` from one connection to the other and compares.
struct Transfer {
    from: ConnectionKey,
    to: ConnectionKey,
    data: Vec<u8>,
    written: usize,
    read: usize,
    ended: bool,
}

impl Transfer {
    fn new(from: ConnectionKey, to: ConnectionKey, data: Vec<u8>) -> Self {
        Self { from, to, data, written: 0, read: 0, ended: false }
    }

    fn go_on(&mut self, b: &mut Bench) -> bool {
        if self.written < self.data.len() {
            let n = (1 + b.chance.below(3_000) as usize).min(self.data.len() - self.written);
            match b.engine.write(b.now, self.from, &self.data[self.written..self.written + n]) {
                Write::Bytes(n) => self.written += n,
                Write::Full => {}
                other => panic!("{other:?}"),
            }
            if self.written == self.data.len() {
                b.engine.shutdown_write(b.now, self.from);
            }
        }
        // Slow at times, so that windows close.
        if b.chance.below(3) == 0 {
            let mut buffer = [0; 4_000];
            match b.engine.read(b.now, self.to, &mut buffer, false) {
                Read::Bytes(n) => {
                    assert_eq!(buffer[..n], self.data[self.read..self.read + n], "at {}", self.read);
                    self.read += n;
                }
                Read::End => {
                    assert_eq!(self.read, self.data.len());
                    self.ended = true;
                }
                Read::Nothing => {}
                other => panic!("{other:?}"),
            }
        }
        self.ended
    }
}

#[test]
fn streams_survive_loss_repetition_and_reordering() {
    for seed in 0..60 {
        let mut b = Bench::new(seed, seed % 16);
        let listener = b.listen(80, 4);
        b.until("listening", |b| b.engine.listener(listener).unwrap().state == ListenerState::Open);
        let client = b.established(80);
        let mut server = None;
        b.until("accepted", |b| {
            server = b.engine.accept(listener);
            server.is_some()
        });
        let server = server.unwrap();
        let mut there = Transfer::new(client, server, pattern(60_000, seed));
        let mut back = Transfer::new(server, client, pattern(40_000, seed + 1_000));
        b.until("both streams whole", |b| {
            let done = there.go_on(b);
            back.go_on(b) && done
        });
        b.engine.close(b.now, client);
        b.engine.close(b.now, server);
        b.engine.unlisten(b.now, listener);
        b.until("forgotten", |b| {
            b.engine.connection(client).is_none()
                && b.engine.connection(server).is_none()
                && b.engine.listener(listener).is_none()
        });
        assert!(b.changes.contains(&Change::Forgotten(client)), "seed {seed}");
        b.until("the card has nothing left", |b| b.card.connections() == 0 && b.card.listeners() == 0);
    }
}

#[test]
fn what_was_written_before_the_close_still_arrives() {
    for seed in 0..20 {
        let mut b = Bench::new(seed, 10);
        let listener = b.listen(80, 4);
        let _ = b.established(ECHO_PORT);
        b.until("listening", |b| b.engine.listener(listener).unwrap().state == ListenerState::Open);
        let client = b.established(80);
        let mut server = None;
        b.until("accepted", |b| {
            server = b.engine.accept(listener);
            server.is_some()
        });
        let data = pattern(9_000, seed);
        assert_eq!(b.engine.write(b.now, client, &data), Write::Bytes(9_000));
        b.engine.close(b.now, client);
        let mut all = Vec::new();
        b.until("read to the end", |b| {
            let mut buffer = [0; 3_000];
            match b.engine.read(b.now, server.unwrap(), &mut buffer, false) {
                Read::Bytes(n) => all.extend_from_slice(&buffer[..n]),
                Read::End => return true,
                Read::Nothing => {}
                other => panic!("{other:?}"),
            }
            false
        });
        assert_eq!(all, data, "seed {seed}");
    }
}

#[test]
fn a_refusal_and_a_reset_are_told() {
    let mut b = Bench::new(1, 0);
    let key = b.connect(81);
    b.until("refused", |b| b.engine.connection(key).unwrap().broken().is_some());
    assert_eq!(b.engine.connection(key).unwrap().broken(), Some(Broken::Aborted(Reason::Refused as u32)));
    let echo = b.established(ECHO_PORT);
    b.card.abort_all(Reason::Reset);
    b.until("reset", |b| b.engine.connection(echo).unwrap().broken().is_some());
    let reset = Broken::Aborted(Reason::Reset as u32);
    assert_eq!(b.engine.write(b.now, echo, b"x"), Write::Broken(reset));
    assert_eq!(b.engine.read(b.now, echo, &mut [0; 4], false), Read::Broken(reset));

    b.card.capacity = 0;
    let full = b.connect(ECHO_PORT);
    b.until("answered", |b| b.engine.connection(full).unwrap().opening != Opening::Asked);
    let refused = Opening::Refused { reason: Reason::Connections as u32, action: toe_abi::Action::Fallback };
    assert_eq!(b.engine.connection(full).unwrap().opening, refused);
    b.engine.close(b.now, full);
    assert!(b.engine.connection(full).is_none(), "nothing is left to say of it");
}

#[test]
fn a_restart_breaks_connections_and_listeners_come_back() {
    let mut b = Bench::new(2, 5);
    let listener = b.listen(80, 4);
    let echo = b.established(ECHO_PORT);
    b.until("listening", |b| b.card.listeners() == 1);
    b.card.restart();
    b.until("told", |b| b.engine.connection(echo).unwrap().broken() == Some(Broken::CardRestarted));
    b.until("listening again", |b| b.card.listeners() == 1);
    b.engine.close(b.now, echo);
    assert!(b.engine.connection(echo).is_none(), "the new card knows nothing of it");
    b.until("listening", |b| b.engine.listener(listener).unwrap().state == ListenerState::Open);
    let client = b.established(80);
    b.until("accepted", |b| b.engine.accept(listener).is_some());
    assert_eq!(b.engine.counters().contexts_lost, 1);
    assert_eq!(b.engine.connection(client).unwrap().broken(), None);
}

#[test]
fn a_card_that_has_booted_gives_the_ids_of_before_to_others() {
    let mut b = Bench::new(22, 0);
    let listener = b.listen(80, 4);
    let one_after_the_other = |b: &mut Bench| {
        b.until("listening", |b| b.engine.listener(listener).unwrap().state == ListenerState::Open);
        for _ in 0..3 {
            let client = b.established(80);
            let since = b.now;
            let mut server = None;
            b.until("accepted", |b| {
                server = b.engine.accept(listener);
                server.is_some()
            });
            assert!(b.now <= since + Duration::from_millis(100), "{:?}", b.now - since);
            for key in [client, server.unwrap()] {
                b.engine.close(b.now, key);
            }
            b.until("released", |b| b.engine.connections.is_empty());
        }
    };
    one_after_the_other(&mut b);
    b.card.restart();
    b.card.announce();
    b.until("lost", |b| b.engine.counters().contexts_lost == 1);
    one_after_the_other(&mut b);
}

/// A program that only waits says nothing for seconds: it learns of a boot because the card tells everybody.
#[test]
fn the_word_of_a_boot_breaks_idle_connections_at_once() {
    let mut b = Bench::new(21, 0);
    let idle = b.established(ECHO_PORT);
    let since = b.now;
    b.until("idle for a while", |b| b.now > since + Duration::from_millis(1500));
    // Of a boot that is known there is nothing to learn.
    b.card.announce();
    for _ in 0..100 {
        b.step();
    }
    assert_eq!(b.engine.counters().contexts_lost, 0);
    b.card.restart();
    b.card.announce();
    let since = b.now;
    b.until("told", |b| b.engine.connection(idle).unwrap().broken() == Some(Broken::CardRestarted));
    b.established(ECHO_PORT);
    assert!(b.now <= since + Duration::from_secs(1), "{:?}", b.now - since);
}

#[test]
fn a_stale_firmware_event_breaks_nothing() {
    let mut b = Bench::new(3, 0);
    let echo = b.established(ECHO_PORT);
    let mut frame = vec![0; 200];
    let mut w = Writer::new(&mut frame, CARD_MAC, Mac([2, 0, 0, 0, 0, 1]), 5, 77, 0x1122).unwrap();
    let event = toe_abi::FirmwareEvent { epoch: 77, reason: Reason::StaleEpoch as u32 };
    assert!(w.push(&Message::FirmwareEvent(event)));
    let n = w.finish();
    b.engine.handle_frame(b.now, &frame[..n]);
    for _ in 0..100 {
        b.step();
    }
    assert_eq!(b.engine.connection(echo).unwrap().broken(), None);
    assert_eq!(b.engine.write(b.now, echo, b"x"), Write::Bytes(1));
}

#[test]
fn a_card_that_falls_silent_is_noticed_within_a_lease_or_so() {
    let mut b = Bench::new(4, 0);
    let echo = b.established(ECHO_PORT);
    // Idle far beyond the lease: the card is asked now and then, and answers.
    let since = b.now;
    b.until("idle for a while", |b| b.now > since + Duration::from_secs(20));
    assert_eq!(b.engine.connection(echo).unwrap().broken(), None);
    b.cut = true;
    let since = b.now;
    b.until("noticed", |b| b.engine.connection(echo).unwrap().broken() == Some(Broken::CardSilent));
    assert!(b.now <= since + Duration::from_secs(5));
    assert!(!b.engine.is_open());
    // And it comes back.
    b.cut = false;
    b.until("open again", |b| b.engine.is_open());
    b.established(ECHO_PORT);
}

#[test]
fn a_connection_that_is_given_up_while_opening_is_released() {
    let mut b = Bench::new(5, 0);
    let key = b.connect(SILENT_PORT);
    b.engine.close(b.now, key);
    b.until("released", |b| b.engine.connection(key).is_none());
    assert_eq!(b.card.connections(), 0);
}

#[test]
fn the_card_announces_no_more_than_the_backlog_and_taken_opens_it() {
    let mut b = Bench::new(6, 8);
    let listener = b.listen(80, 2);
    b.until("listening", |b| b.engine.listener(listener).unwrap().state == ListenerState::Open);
    let _clients = [b.established(80), b.established(80)];
    let third = b.connect(80);
    b.until("the third is refused", |b| b.engine.connection(third).unwrap().broken().is_some());
    b.until("taken", |b| b.engine.accept(listener).is_some());
    // A lost TAKEN is made good by a later one.
    b.until("room again", |b| {
        let again = b.connect(80);
        b.until("answered", |b| {
            let c = b.engine.connection(again).unwrap();
            c.has(toe_abi::state::ESTABLISHED) || c.broken().is_some()
        });
        b.engine.connection(again).unwrap().broken().is_none()
    });
}

#[test]
fn what_was_announced_to_a_listener_that_is_gone_is_reset() {
    for seed in 0..10 {
        let mut b = Bench::new(seed, 10);
        let listener = b.listen(80, 4);
        b.until("listening", |b| b.engine.listener(listener).unwrap().state == ListenerState::Open);
        let client = b.connect(80);
        b.until("the card has both ends", |b| b.card.connections() == 2);
        b.engine.unlisten(b.now, listener);
        b.until("the card has let go of the child", |b| b.card.connections() == 1 && b.card.listeners() == 0);
        b.engine.close(b.now, client);
        b.until("and of all", |b| b.card.connections() == 0);
    }
}

#[test]
fn questions_are_repeated_until_answered_or_given_up() {
    let mut b = Bench::new(7, 20);
    let echo = b.established(ECHO_PORT);
    let patience = Duration::from_secs(30);
    let set =
        b.engine.ask(b.now, Question::Option { connection: echo, option: option::NODELAY, set: Some(1) }, patience);
    let mut reply = None;
    b.until("set", |b| {
        reply = b.engine.take_reply(set);
        reply.is_some()
    });
    assert_eq!(reply, Some(Reply::Option { reason: 0, value: 1 }));
    let get = b.engine.ask(b.now, Question::Option { connection: echo, option: option::NODELAY, set: None }, patience);
    b.until("got", |b| {
        reply = b.engine.take_reply(get);
        reply.is_some()
    });
    assert_eq!(reply, Some(Reply::Option { reason: 0, value: 1 }));
    b.cut = true;
    let lost = b.engine.ask(b.now, Question::Limits { first: 0 }, Duration::from_secs(1));
    b.until("given up", |b| {
        reply = b.engine.take_reply(lost);
        reply.is_some()
    });
    assert_eq!(reply, Some(Reply::Unanswered));
}

#[test]
fn a_bye_leaves_nothing_on_the_card() {
    let mut b = Bench::new(8, 0);
    let _echo = b.established(ECHO_PORT);
    b.engine.bye();
    for _ in 0..5 {
        b.step();
    }
    assert_eq!(b.card.connections(), 0);
    assert_eq!(b.engine.poll_timeout().filter(|t| *t < b.now), None);
}

#[test]
fn half_a_close_leaves_the_other_half_open() {
    let mut b = Bench::new(9, 0);
    let echo = b.established(ECHO_PORT);
    b.engine.write(b.now, echo, b"last words");
    b.engine.shutdown_write(b.now, echo);
    assert_eq!(b.engine.write(b.now, echo, b"x"), Write::ShutDown);
    let mut got = Vec::new();
    b.until("end", |b| {
        let mut buffer = [0; 3];
        match b.engine.read(b.now, echo, &mut buffer, false) {
            Read::Bytes(n) => got.extend_from_slice(&buffer[..n]),
            Read::End => return true,
            Read::Nothing => {}
            other => panic!("{other:?}"),
        }
        false
    });
    assert_eq!(got, b"last words");
}

#[test]
fn the_end_of_a_stream_follows_its_last_byte_at_once() {
    let mut b = Bench::new(11, 0);
    let echo = b.established(ECHO_PORT);
    let data = pattern(9_000, 11);
    // More than the card's credit, so that the end cannot go out with the first data.
    assert_eq!(b.engine.write(b.now, echo, &data), Write::Bytes(9_000));
    b.engine.shutdown_write(b.now, echo);
    let since = b.now;
    let mut got = Vec::new();
    b.until("end", |b| {
        let mut buffer = [0; 5_000];
        match b.engine.read(b.now, echo, &mut buffer, false) {
            Read::Bytes(n) => got.extend_from_slice(&buffer[..n]),
            Read::End => return true,
            Read::Nothing => {}
            other => panic!("{other:?}"),
        }
        false
    });
    assert_eq!(got, data);
    assert!(b.now < since + Duration::from_millis(40), "no repetition was needed: {:?}", b.now - since);
}

#[test]
fn what_the_card_says_to_have_stored_beyond_the_offer_is_counted_and_not_summed() {
    let mut b = Bench::new(12, 0);
    let echo = b.established(ECHO_PORT);
    let connection = b.engine.connection(echo).unwrap().id.unwrap();
    let before = b.engine.counters();
    for (offset, end) in [(0, u64::MAX), (u64::MAX - 1, u64::MAX), (1, 5_001)] {
        let message = Message::Stored(toe_abi::Stored { connection, offset, end });
        b.engine.handle_message(b.now, &message);
    }
    // Of a connection that nobody has, no sum is made either.
    for _ in 0..2 {
        let message = Message::Stored(toe_abi::Stored { connection: u64::MAX, offset: 0, end: u64::MAX });
        b.engine.handle_message(b.now, &message);
    }
    let after = b.engine.counters();
    assert_eq!(after.messages_impossible, before.messages_impossible + 3);
    assert_eq!(after.messages_unknown_object, before.messages_unknown_object + 2);
    assert_eq!(after.bytes_out_of_order, before.bytes_out_of_order);
    assert_eq!(b.engine.read(b.now, echo, &mut [0; 10], false), Read::Nothing);
}

/// What the card says to a guest, and now and then what nobody does.
fn types() -> impl proptest::strategy::Strategy<Value = u16> {
    use proptest::prelude::*;
    prop_oneof![
        4 => 0x0210u16..0x0215,
        10 => 0x0220u16..0x0226,
        4 => 0x0230u16..0x0235,
        3 => 0x0240u16..0x0243,
        1 => 0x0200u16..0x0250,
    ]
}

/// Words of a message: what means something to the engine, what lies beside it, and anything.
fn words() -> impl proptest::strategy::Strategy<Value = Vec<Word>> {
    use proptest::prelude::*;
    let word = prop_oneof![
        2 => Just(Word::Connection),
        1 => Just(Word::Listener),
        2 => (0u64..16).prop_map(Word::Number),
        2 => (0u64..12_000).prop_map(Word::Number),
        2 => (0u64..16).prop_map(|n| Word::Number(u64::MAX - n)),
        1 => (0u64..16).prop_map(|n| Word::Number((1 << 63) - 8 + n)),
        1 => any::<u32>().prop_map(|n| Word::Number(n.into())),
        1 => any::<u64>().prop_map(Word::Number),
    ];
    proptest::collection::vec(word, 0..24)
}

#[derive(Clone, Copy, Debug)]
enum Word {
    Connection,
    Listener,
    Number(u64),
}

proptest::proptest! {
    /// Whatever the card says, the engine lives and its frames stay within bounds.
    #[test]
    fn no_frame_from_the_card_can_hurt(
        messages in proptest::collection::vec((types(), words(), 0usize..8), 1..40),
    ) {
        let mut b = Bench::new(10, 0);
        let echo = b.established(ECHO_PORT);
        let listener = b.listen(80, 2);
        for _ in 0..5 {
            b.step();
        }
        b.engine.write(b.now, echo, &[1; 3_000]);
        let open = b.engine.open.unwrap();
        let connection = b.engine.connection(echo).and_then(|c| c.id).unwrap_or(0);
        let listening = b.engine.listeners.values().next().and_then(|l| l.id).unwrap_or(0);
        for (kind, words, tail) in messages {
            let mut body = Vec::new();
            for word in words {
                let word = match word {
                    Word::Connection => connection,
                    Word::Listener => listening,
                    Word::Number(n) => n,
                };
                body.extend(word.to_le_bytes());
            }
            body.truncate(body.len().saturating_sub(tail));
            let mut frame = vec![0; 54];
            let n = Writer::new(&mut frame, CARD_MAC, CARD_MAC, open.context, open.epoch, 0x1122).unwrap().finish();
            frame.truncate(n);
            let bytes = (8 + body.len()) as u32;
            frame.extend(kind.to_le_bytes());
            frame.extend([0, 0]);
            frame.extend(bytes.to_le_bytes());
            frame.extend(&body);
            frame[18..22].copy_from_slice(&bytes.to_le_bytes());
            b.engine.handle_frame(b.now, &frame);
            let mut buffer = vec![0; FRAME_BYTES_MAX];
            let mut frames = 0;
            while let Some(n) = b.engine.poll_transmit(&mut buffer) {
                frames += 1;
                proptest::prop_assert!(n <= 1_514 && frames < 1_000);
            }
            b.engine.handle_timeout(b.now + Duration::from_millis(500));
            let _ = b.engine.read(b.now, echo, &mut [0; 500], false);
            let _ = b.engine.accept(listener);
        }
    }
}

#[test]
fn an_urgent_mark_survives_loss_and_stands_where_it_was_set() {
    for seed in 0..40 {
        let mut b = Bench::new(seed, seed % 16);
        let echo = b.established(ECHO_PORT);
        assert_eq!(b.engine.write(b.now, echo, &pattern(1_000, 1)), Write::Bytes(1_000));
        assert_eq!(b.engine.write_urgent(b.now, echo, &pattern(7, 2)), Write::Bytes(7));
        assert_eq!(b.engine.write(b.now, echo, &pattern(500, 3)), Write::Bytes(500));
        b.until("told", |b| b.engine.connection(echo).unwrap().urgent_left() == 1_007);
        let mut read = 0;
        b.until("read", |b| {
            let mut buffer = [0; 100];
            if let Read::Bytes(n) = b.engine.read(b.now, echo, &mut buffer, false) {
                read += n as u64;
                assert_eq!(b.engine.connection(echo).unwrap().urgent_left(), 1_007u64.saturating_sub(read));
            }
            read == 1_507
        });
        b.until("answered", |b| b.card.has_been_noticed());
        b.engine.close(b.now, echo);
        b.until("gone", |b| b.engine.connection(echo).is_none());
    }
}

#[test]
fn path_advice_is_told_once_for_each_silence() {
    let mut b = Bench::new(3, 0);
    let echo = b.established(ECHO_PORT);
    b.card.advise_all();
    b.until("advised", |b| b.changes.contains(&Change::PathAdvice(echo)));
    b.engine.set_next_hop(b.now, echo, Mac([2, 0, 0, 0, 0, 9]));
    b.until("set", |b| b.card.option_of(0, option::NEXT_HOP) == Some(0x0900_0000_0002));
    for _ in 0..200 {
        b.step();
    }
    assert_eq!(b.changes.iter().filter(|c| **c == Change::PathAdvice(echo)).count(), 1);
    assert!(b.engine.questions.is_empty(), "nobody will ask for the answer");
}

#[test]
fn an_option_that_is_set_again_is_not_repeated_with_its_old_value() {
    let mut b = Bench::new(1, 0);
    let key = b.connect(ECHO_PORT);
    b.until("established", |b| b.engine.connection(key).is_some_and(|c| c.has(toe_abi::state::ESTABLISHED)));
    // What is said first is lost, and would be repeated behind what is said next.
    b.cut = true;
    b.engine.set_option(b.now, key, option::NODELAY, 1);
    b.engine.set_option(b.now, key, option::KEEP_ALIVE_PROBES, 3);
    b.step();
    b.engine.set_option(b.now, key, option::NODELAY, 0);
    let mut values = Vec::new();
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    for _ in 0..200 {
        b.now += Duration::from_millis(1);
        b.engine.handle_timeout(b.now);
        while let Some(n) = b.engine.poll_transmit(&mut buffer) {
            for message in Parsed::new(&buffer[..n]).unwrap().messages {
                if let Ok(Message::SetOption(m)) = message {
                    values.push((m.option, m.value));
                }
            }
        }
    }
    assert!(values.iter().filter(|v| **v == (option::NODELAY, 0)).count() >= 2, "{values:?}");
    assert!(values.contains(&(option::KEEP_ALIVE_PROBES, 3)), "another option is repeated: {values:?}");
    assert!(!values.contains(&(option::NODELAY, 1)), "{values:?}");
}

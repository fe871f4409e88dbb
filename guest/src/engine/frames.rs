//! How many channel frames a question and a connection take: this engine on the real firmware, in virtual time, with a peer that
//! is another of both. Each frame is a system call, a walk through the guest's kernel and a wake-up, so that their number is
//! bounded here and cannot creep back.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use toe_abi::{Endpoint, FRAME_BYTES_MAX, Mac, Message, Parsed, listen_policy, option, state};
use toe_firmware::{Checksum, Firmware, Profile, Verdict};

use super::{Buffers, Config, ConnectionKey, Engine, ListenWish, ListenerKey, ListenerState, Read, Write};

/// From one card to the other.
const WIRE: Duration = Duration::from_micros(30);
const TICK: Duration = Duration::from_micros(10);
const PORT: u16 = 80;
const TEXT_BYTES: usize = 64;

/// Frames between a program and its card.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Frames {
    to_card: u32,
    to_guest: u32,
}

/// A program's end: its library and its card.
struct Side {
    engine: Engine,
    firmware: Firmware,
    mac: Mac,
    frame_bytes_max: usize,
    frames: Frames,
    /// Messages of RECEIVED to the guest.
    received: u32,
}

impl Side {
    fn new(n: u8, now: Instant, frame_bytes_max: usize) -> Self {
        let mac = Mac([2, 0, 0, 0, 0, n]);
        let config = Config {
            key: u128::from(n),
            mac,
            frame_bytes_max,
            receive_bytes_max: 1 << 20,
            lease: Duration::from_secs(10),
            buffers: Buffers::default(),
            process: None,
        };
        let firmware = Firmware::new(&Profile::default(), [n; 32], n.into(), toe_firmware::Instant::from_us(0));
        Self {
            engine: Engine::new(now, config),
            firmware: firmware.unwrap(),
            mac,
            frame_bytes_max,
            frames: Frames::default(),
            received: 0,
        }
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, self.mac.0[5])
    }
}

/// What the peer's program does with what it reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Echoes,
    EchoesAndCloses,
    /// Nothing.
    Reads,
    /// Sends it back when it may speak.
    Answers,
}

struct World {
    start: Instant,
    now: Instant,
    near: Side,
    far: Side,
    wire: Vec<(Instant, bool, Vec<u8>)>,
    peer: Peer,
    listener: Option<ListenerKey>,
    accepted: Vec<ConnectionKey>,
    /// Connections that the peer closes, and when.
    closing: Vec<(Instant, ConnectionKey)>,
    /// What it has read and not sent back, and whether it may send.
    kept: VecDeque<u8>,
    far_speaks: bool,
}

impl World {
    fn new(peer: Peer) -> Self {
        Self::with_frames(peer, 1_514)
    }

    /// With channel frames of so many bytes.
    fn with_frames(peer: Peer, bytes: usize) -> Self {
        let start = Instant::now();
        let (near, far) = (Side::new(1, start, bytes), Side::new(2, start, bytes));
        let (wire, accepted, closing) = Default::default();
        let (kept, far_speaks) = Default::default();
        let mut w =
            Self { start, now: start, near, far, wire, peer, listener: None, accepted, closing, kept, far_speaks };
        let local = Endpoint::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
        let wish = ListenWish { backlog: 16, flags: 0, policy: listen_policy::OF_CARD };
        let listener = w.far.engine.listen(start, local, wish, 1_500, vec![w.far.address().into()]);
        w.listener = Some(listener);
        w.until("the peer listens", |w| w.far.engine.listener(listener).unwrap().state == ListenerState::Open);
        w.until("the card answers", |w| w.near.engine.is_open());
        w
    }

    /// Everything that can happen at this moment, and a moment later.
    fn step(&mut self) {
        let us = toe_firmware::Instant::from_us(self.now.duration_since(self.start).as_micros() as u64);
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let (now, arrives) = (self.now, self.now + WIRE);
        let (landed, flying) = std::mem::take(&mut self.wire).into_iter().partition(|(at, ..)| *at <= now);
        self.wire = flying;
        let landed: Vec<(Instant, bool, Vec<u8>)> = landed;
        for (to_far, side) in [(false, &mut self.near), (true, &mut self.far)] {
            for (_, _, frame) in landed.iter().filter(|(_, far, _)| *far == to_far) {
                assert_eq!(side.firmware.handle_wire(us, frame, Checksum::Unverified), Verdict::Taken);
            }
            side.engine.handle_timeout(now);
            if side.firmware.poll_timeout().is_some_and(|due| due <= us) {
                side.firmware.handle_timeout(us);
            }
            while let Some(n) = side.engine.poll_transmit(&mut buffer) {
                side.frames.to_card += 1;
                assert!(n <= side.frame_bytes_max);
                assert_eq!(side.firmware.handle_guest(us, &buffer[..n]), Verdict::Taken);
            }
            while let Some(n) = side.firmware.poll_wire(us, &mut buffer) {
                self.wire.push((arrives, !to_far, buffer[..n].to_vec()));
            }
            while let Some(n) = side.firmware.poll_guest(us, &mut buffer) {
                side.frames.to_guest += 1;
                assert!(n <= side.frame_bytes_max);
                let messages = Parsed::new(&buffer[..n]).unwrap().messages.filter_map(Result::ok);
                side.received += messages.filter(|m| matches!(m, Message::Received(..))).count() as u32;
                assert!(side.engine.handle_frame(now, &buffer[..n]));
            }
            side.engine.take_changes();
        }
        self.answer();
        self.now += TICK;
    }

    /// The peer's program.
    fn answer(&mut self) {
        let far = &mut self.far.engine;
        if let Some(listener) = self.listener {
            self.accepted.extend(far.accept(listener));
        }
        for key in self.accepted.clone() {
            let mut text = [0; 65_536];
            if self.far_speaks
                && let Write::Bytes(n) = far.write(self.now, key, self.kept.make_contiguous())
            {
                self.kept.drain(..n);
            }
            match far.read(self.now, key, &mut text, false) {
                Read::Bytes(n) if self.peer == Peer::Answers => self.kept.extend(&text[..n]),
                Read::Bytes(n) if self.peer != Peer::Reads => {
                    assert_eq!(far.write(self.now, key, &text[..n]), Write::Bytes(n));
                    if self.peer == Peer::EchoesAndCloses {
                        // As a program on a kernel: the end leaves by itself.
                        self.closing.push((self.now + WIRE * 3 / 2, key));
                    }
                }
                Read::End | Read::Broken(_) => self.closing.push((self.now, key)),
                _ => {}
            }
        }
        let now = self.now;
        for (_, key) in self.closing.extract_if(.., |(at, _)| *at <= now) {
            if let Some(at) = self.accepted.iter().position(|accepted| *accepted == key) {
                self.accepted.swap_remove(at);
                far.close(now, key);
            }
        }
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = self.now + Duration::from_secs(10);
        while !condition(self) {
            assert!(self.now < deadline, "never: {what}");
            self.step();
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.until("later", |w| w.now >= end);
    }

    fn open(&mut self, port: u16) -> ConnectionKey {
        let ends = (Endpoint::new(self.near.address().into(), port), Endpoint::new(self.far.address().into(), PORT));
        let key = self.near.engine.connect(self.now, ends, self.far.mac, 1_500, 0);
        self.until("established", |w| w.near.engine.connection(key).unwrap().has(state::ESTABLISHED));
        key
    }

    fn say(&mut self, key: ConnectionKey) {
        assert_eq!(self.near.engine.write(self.now, key, &[7; TEXT_BYTES]), Write::Bytes(TEXT_BYTES));
    }

    fn hear(&mut self, key: ConnectionKey) {
        let mut have = 0;
        self.until("an answer", |w| {
            if let Read::Bytes(n) = w.near.engine.read(w.now, key, &mut [0; TEXT_BYTES], false) {
                have += n;
            }
            have == TEXT_BYTES
        });
    }

    fn count(&mut self, work: impl FnOnce(&mut Self)) -> Frames {
        let before = self.near.frames;
        work(self);
        let after = self.near.frames;
        Frames { to_card: after.to_card - before.to_card, to_guest: after.to_guest - before.to_guest }
    }
}

#[test]
fn a_question_is_a_frame_each_way() {
    let mut w = World::new(Peer::Echoes);
    let key = w.open(40_000);
    w.say(key);
    w.hear(key);
    let frames = w.count(|w| {
        for _ in 0..100 {
            w.say(key);
            w.hear(key);
        }
    });
    // They take 14 ms: at most one of each side runs out of patience meanwhile.
    assert!(frames.to_card <= 101 && frames.to_guest <= 101, "{frames:?}");
}

#[test]
fn a_connection_is_three_frames_each_way() {
    let mut w = World::new(Peer::EchoesAndCloses);
    let connection = |w: &mut World, port: u16| {
        let key = w.open(port);
        // Of a connection that is new the library is mostly told this.
        w.near.engine.set_option(w.now, key, option::NODELAY, 1);
        w.say(key);
        w.hear(key);
        w.until("the end", |w| w.near.engine.read(w.now, key, &mut [0; 1], false) == Read::End);
        w.near.engine.close(w.now, key);
    };
    connection(&mut w, 40_000);
    let frames = w.count(|w| (1..=50).for_each(|n| connection(w, 40_000 + n)));
    // CONNECT; the question; RELEASE with what the answer was answered with. The way back: CONNECT_RESULT with RELEASED of the one
    // before and the end of the handshake; the answer; its end.
    assert!(frames.to_card <= 155 && frames.to_guest <= 155, "{frames:?}");
    w.until("all is released", |w| !w.near.engine.is_closing_any());
    assert_eq!(w.near.engine.counters().errors, 0);
}

#[test]
fn what_can_wait_does_not_wait_for_ever_and_nothing_is_said_again() {
    let mut w = World::new(Peer::Echoes);
    let key = w.open(40_000);
    // Long enough for every repetition.
    w.pass(Duration::from_millis(200));
    let frames = w.count(|w| {
        w.say(key);
        w.hear(key);
        w.pass(Duration::from_millis(200));
    });
    // The question, the answer to its answer; the answer with the credit for its question.
    assert_eq!(frames, Frames { to_card: 2, to_guest: 1 });
    assert_eq!(w.near.received, 1, "the card was answered in time");
    let rows = w.near.firmware.counters();
    let repeated: u64 = rows.filter(|row| row.name.starts_with("channel-repeated")).map(|row| row.value).sum();
    assert_eq!(repeated, 0);
}

#[test]
fn one_way_traffic_is_answered_every_now_and_then() {
    let mut w = World::new(Peer::Reads);
    let key = w.open(40_000);
    w.pass(Duration::from_millis(50));
    let far = w.far.frames;
    let near = w.count(|w| {
        for _ in 0..100 {
            w.say(key);
            w.pass(Duration::from_millis(1));
        }
        w.pass(Duration::from_millis(100));
    });
    assert!(near.to_card <= 102, "{near:?}");
    // 6,400 bytes in 100 ms: by time or by bytes, whichever comes first.
    assert!((4..=12).contains(&near.to_guest), "{near:?}");
    let answers = w.far.frames.to_card - far.to_card;
    assert!((4..=16).contains(&answers), "{answers}");
    assert!(
        w.near.engine.connection(key).unwrap().send_room() == Buffers::default().send_bytes,
        "the card holds all of it"
    );
}

#[test]
fn what_was_written_before_the_close_goes_with_it() {
    let mut w = World::new(Peer::Reads);
    let key = w.open(40_000);
    w.pass(Duration::from_millis(50));
    let begun = w.now;
    let frames = w.count(|w| {
        w.say(key);
        w.step();
        w.near.engine.close(w.now, key);
        w.until("released", |w| w.near.engine.connection(key).is_none());
    });
    assert!(frames.to_card == 2 && frames.to_guest == 1, "{frames:?}");
    // More than goes with the RELEASE: the card is asked, and nobody waits until its patience is at an end.
    let key = w.open(40_001);
    let begun_with_more = w.now;
    assert_eq!(w.near.engine.write(w.now, key, &[7; 3_000]), Write::Bytes(3_000));
    w.near.engine.close(w.now, key);
    w.until("said", |w| w.near.engine.connection(key).is_none_or(|c| c.has_left()));
    assert!(w.now - begun_with_more < Duration::from_millis(1), "{:?}", w.now - begun_with_more);
    w.until("the peer has all", |w| w.accepted.is_empty());
    assert!(w.now - begun < Duration::from_millis(100));
}

#[test]
fn a_writer_that_fills_its_buffer_is_not_kept_waiting() {
    let mut w = World::new(Peer::Reads);
    let key = w.open(40_000);
    let begun = w.now;
    let mut left = 4 << 20;
    w.until("all is written", |w| {
        if let Write::Bytes(n) = w.near.engine.write(w.now, key, &vec![7; left.min(100_000)]) {
            left -= n;
        }
        left == 0
    });
    // 4 MiB are 3,000 segments; a wait for patience each 128 KiB would be 640 ms.
    assert!(w.now - begun < Duration::from_millis(300), "{:?}", w.now - begun);
}

/// Bytes of a transfer, none like its neighbours.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n ^ (n >> 7) ^ (n >> 15)) as u8).collect()
}

#[test]
fn a_mebibyte_is_few_frames_when_they_may_be_long() {
    const BYTES: usize = 1 << 20;
    let mut w = World::with_frames(Peer::Answers, FRAME_BYTES_MAX);
    let key = w.open(40_000);
    let (text, mut written, mut heard) = (pattern(BYTES), 0, Vec::new());
    w.pass(Duration::from_millis(50));
    let out = w.count(|w| {
        w.until("all is written", |w| {
            if let Write::Bytes(n) = w.near.engine.write(w.now, key, &text[written..(written + 65_536).min(BYTES)]) {
                written += n;
            }
            written == BYTES
        });
        w.pass(Duration::from_millis(100));
    });
    // In frames of 1,514 bytes it is 720. A write of 64 KiB is a frame and the little that had no room in it; what comes from the
    // card is credit.
    assert!(out.to_card <= 30 && out.to_guest <= 30, "{out:?}");
    w.far_speaks = true;
    let back = w.count(|w| {
        w.until("all came back", |w| {
            let mut piece = [0; 65_536];
            if let Read::Bytes(n) = w.near.engine.read(w.now, key, &mut piece, false) {
                heard.extend_from_slice(&piece[..n]);
            }
            heard.len() == BYTES
        });
    });
    assert!(back.to_guest <= 35 && back.to_card <= 15, "{back:?}");
    assert!(heard == text, "the bytes are others");
}

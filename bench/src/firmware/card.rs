//! The firmware with a guest of one process, whose side of the channel is not measured.

use toe_abi::{
    ETHERNET_HEADER_BYTES, Endpoint, Hello, Listen, Mac, Message, Parsed, ReceiveCredit, Release, Send, Shutdown,
    Taken, Writer, flags, state,
};
use toe_firmware::{Checksum, Firmware, Instant, Profile};

use super::frames::{FRAME_BYTES_MAX, Flow, Frames, LOCAL, LOCAL_MAC, LOCAL_PORT};
use super::stack::{Ask, Stack};
use crate::measure::Stopwatch;

const KEY: u128 = 0x5eed;
const EPOCH: u32 = 1;
/// Memory for channel frames of one turn.
const CHANNEL_BYTES: usize = 64 * FRAME_BYTES_MAX;

/// What the guest knows of a connection.
#[derive(Clone, Copy, Default)]
struct Known {
    id: u64,
    received: u64,
    /// What the program has written, what the card was given of it, and what it takes.
    written: u64,
    sent: u64,
    limit: u64,
    bits: u32,
}

/// The most data in one message.
const SEND_BYTES_MAX: u64 = 60_000;

impl Known {
    /// What it holds.
    fn credit(&self) -> (Saying, usize) {
        let Self { id, received, bits, .. } = *self;
        (Message::ReceiveCredit(ReceiveCredit { connection: id, held: received, limit: 1 << 40, seen: bits }), 0)
    }

    /// What the card takes of what the program has written.
    fn give(&mut self, sayings: &mut Vec<(Saying, usize)>) {
        while self.sent < self.written.min(self.limit) {
            let bytes = (self.written.min(self.limit) - self.sent).min(SEND_BYTES_MAX);
            sayings.push((Message::Send(Send { connection: self.id, offset: self.sent }, &[]), bytes as usize));
            self.sent += bytes;
        }
    }
}

/// The card.
pub struct Card {
    firmware: Firmware,
    checksum: Checksum,
    context: u64,
    listener: u64,
    accepted: u64,
    /// By the place in their ids.
    known: Vec<Known>,
    /// By the peer's number: a place.
    places: Vec<u32>,
    inward: Frames,
    outward: Frames,
}

/// A message that the guest will send.
type Saying = Message<'static>;

impl Card {
    /// With a listener, whose connections have an MTU of `mtu` bytes; for flows below `flows`.
    pub fn new(profile: &Profile, mtu: u32, checksum: Checksum, flows: usize) -> Self {
        let now = Instant::from_us(0);
        let firmware = Firmware::new(profile, [7; 32], EPOCH, now).expect("a valid profile");
        let mut card = Self {
            firmware,
            checksum,
            context: 0,
            listener: 0,
            accepted: 0,
            known: vec![Known::default(); profile.limits.connections as usize],
            places: vec![u32::MAX; flows],
            inward: Frames::new(CHANNEL_BYTES),
            outward: Frames::new(CHANNEL_BYTES),
        };
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            lease_ms: 600_000,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            reserved: 0,
            receive_bytes_max: 1 << 30,
        };
        let listen = Listen {
            cookie: 1,
            local: Endpoint::new(LOCAL.into(), LOCAL_PORT),
            backlog: 4096,
            flags: flags::NODELAY,
            receive_limit: 1 << 40,
            mtu,
            policy: 0,
        };
        let (mut out, mut watch) = (Frames::new(FRAME_BYTES_MAX), Stopwatch::default());
        card.say(0, &[(Message::Hello(hello), 0)], &mut out, &mut watch);
        card.read(0, &mut out, &mut watch);
        card.say(0, &[(Message::Listen(listen), 0)], &mut out, &mut watch);
        card.read(0, &mut out, &mut watch);
        assert!(card.context != 0 && card.listener != 0, "the card has a listener");
        card
    }

    /// Writes the messages, each with so many bytes of data, into as few frames as they need, and hands them in.
    fn say(&mut self, now_us: u64, sayings: &[(Saying, usize)], out: &mut Frames, watch: &mut Stopwatch) {
        self.inward.clear();
        let (context, epoch) = (self.context, if self.context == 0 { 0 } else { EPOCH });
        let mut sayings = sayings.iter().peekable();
        while sayings.peek().is_some() {
            let room = &mut self.inward.room()[..FRAME_BYTES_MAX];
            let mut w = Writer::new(room, Mac(LOCAL_MAC), toe_abi::CARD_MAC, context, epoch, KEY).expect("room");
            while let Some((saying, bytes)) = sayings.peek() {
                if !w.push_with(saying, *bytes, |room| room.fill(b'x')) {
                    assert!(!w.is_empty(), "a message longer than a frame");
                    break;
                }
                sayings.next();
            }
            let length = w.finish();
            self.inward.push(length);
        }
        let now = Instant::from_us(now_us);
        let (firmware, inward) = (&mut self.firmware, &self.inward);
        watch.time(|| {
            for frame in inward.iter() {
                let _ = firmware.handle_guest(now, frame);
            }
            send(firmware, now, out);
        });
    }

    /// What the guest answers to a frame.
    fn hear(&mut self, frame: &[u8], answers: &mut Vec<(Saying, usize)>) -> usize {
        let mut bytes = 0;
        for message in Parsed::new(frame).expect("the card's frames").messages {
            match message.expect("the card's messages") {
                Message::Caps(caps) => self.context = caps.context,
                Message::ListenResult(result) => self.listener = result.listener,
                Message::Accepted(m) => {
                    let std::net::IpAddr::V4(address) = m.remote.ip else { panic!("an IPv4 address") };
                    let place = m.connection as u32;
                    self.places[Flow::number(address, m.remote.port)] = place;
                    let (id, limit, bits) = (m.connection, m.send_limit, state::ACCEPTED);
                    let known = Known { id, limit, bits, ..Known::default() };
                    self.known[place as usize] = known;
                    self.accepted += 1;
                    answers.push(known.credit());
                    let taken = Taken { listener: self.listener, taken: self.accepted };
                    answers.push((Message::Taken(taken), 0));
                }
                Message::Received(m, data) => {
                    let known = &mut self.known[m.connection as u32 as usize];
                    assert_eq!((known.id, known.received), (m.connection, m.offset), "in order");
                    known.received += data.len() as u64;
                    bytes += data.len();
                    answers.push(known.credit());
                }
                Message::State(m) => {
                    assert_eq!(m.bits & state::ABORTED, 0, "a connection broke: {}", m.reason);
                    let known = &mut self.known[m.connection as u32 as usize];
                    if known.id == m.connection {
                        known.bits |= m.bits;
                        answers.push(known.credit());
                    }
                }
                Message::SendCredit(m) => {
                    let known = &mut self.known[m.connection as u32 as usize];
                    if known.id == m.connection {
                        known.limit = known.limit.max(m.limit);
                        known.give(answers);
                    }
                }
                Message::Released(_) | Message::ResourceEvent(_) => {}
                other => panic!("{other:?}"),
            }
        }
        bytes
    }

    fn of_flow(&mut self, flow: usize) -> &mut Known {
        &mut self.known[self.places[flow] as usize]
    }
}

/// Fetches what the card has for the wire.
fn send(firmware: &mut Firmware, now: Instant, out: &mut Frames) {
    while out.has_room() {
        let Some(length) = firmware.poll_wire(now, out.room()) else { break };
        out.push(length);
    }
}

impl Stack for Card {
    fn name(&self) -> &'static str {
        "card"
    }

    fn header_bytes(&self) -> usize {
        ETHERNET_HEADER_BYTES
    }

    fn exchange(&mut self, now_us: u64, frames: &Frames, out: &mut Frames, watch: &mut Stopwatch) {
        let now = Instant::from_us(now_us);
        let (firmware, checksum) = (&mut self.firmware, self.checksum);
        watch.time(|| {
            if firmware.poll_timeout().is_some_and(|at| at <= now) {
                firmware.handle_timeout(now);
            }
            for frame in frames.iter() {
                let _ = firmware.handle_wire(now, frame, checksum);
            }
            send(firmware, now, out);
        });
    }

    fn read(&mut self, now_us: u64, out: &mut Frames, watch: &mut Stopwatch) -> usize {
        let now = Instant::from_us(now_us);
        let mut bytes = 0;
        loop {
            let mut outward = std::mem::replace(&mut self.outward, Frames::new(0));
            outward.clear();
            let firmware = &mut self.firmware;
            watch.time(|| {
                while outward.has_room() {
                    let Some(length) = firmware.poll_guest(now, &mut outward.room()[..FRAME_BYTES_MAX]) else { break };
                    outward.push(length);
                }
            });
            let mut answers = Vec::new();
            for frame in outward.iter() {
                bytes += self.hear(frame, &mut answers);
            }
            let quiet = outward.len() == 0;
            self.outward = outward;
            if !answers.is_empty() {
                self.say(now_us, &answers, out, watch);
            }
            if quiet {
                return bytes;
            }
        }
    }

    fn ask(&mut self, now_us: u64, asks: &[Ask], out: &mut Frames, watch: &mut Stopwatch) {
        let mut sayings = Vec::with_capacity(2 * asks.len());
        for ask in asks {
            match *ask {
                Ask::Write(flow, bytes) => {
                    let known = self.of_flow(flow);
                    known.written += bytes as u64;
                    known.give(&mut sayings);
                }
                Ask::Close(flow) => {
                    let Known { id, sent, .. } = *self.of_flow(flow);
                    sayings.push((Message::Shutdown(Shutdown { connection: id, offset: sent }), 0));
                    sayings.push((Message::Release(Release { connection: id }), 0));
                }
            }
        }
        self.say(now_us, &sayings, out, watch);
    }

    fn connections(&self) -> usize {
        let connections = self.firmware.limits().find(|entry| entry.name == "connections");
        connections.map_or(0, |entry| entry.in_use as usize)
    }
}

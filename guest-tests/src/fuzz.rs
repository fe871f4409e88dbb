//! Channel frames that no honest guest would send.
//!
//! A frame is of one of six kinds, all of them decided by the seed: noise behind the right EtherType; noise behind a right frame
//! header; messages of every type with fields that are random, extreme or nearly right; the same with bytes
//! changed, cut off or put on; frames in the name of other contexts, keys and epochs; and calls for new contexts.
//! "Nearly right" needs ids that exist: the fuzzer is told what the card answers and speaks of those as well.
//!
//! No side effect is left out but one: a context is asked for with a lease of at most two seconds, so that those
//! who come after the fuzzer find free ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toe_abi::{
    Abort, Addresses, Bye, CARD_MAC, Connect, ETHERNET_HEADER_BYTES, ETHERTYPE, Endpoint, FRAME_HEADER_BYTES, Filled,
    GetOption, Hello, Info, Limits, Listen, Mac, Message, Noticed, Parsed, ReceiveCredit, Received, Release, Send,
    SetOption, Shutdown, Stat, State, Taken, Unlisten, Urgent, Writer, option,
};

use crate::bytes::Pattern;
use crate::net::{GUEST_V4, GUEST_V6, PEER_V4, PEER_V6};

/// All options of a connection, with 0 and one that is none.
const OPTIONS: usize = option::RECEIVE_RING as usize + 2;

/// The longest lease, in milliseconds, that a fuzzer's context asks for.
const LEASE_MS_MAX: u32 = 2000;

/// Ids of objects that the card told of; the oldest are forgotten first.
const IDS_MAX: usize = 64;

/// See the module's text.
pub struct Fuzzer {
    random: Pattern,
    source: Mac,
    frame_bytes_max: usize,
    /// A context that the card knows: its id, epoch and key.
    context: (u64, u32, u128),
    ids: Vec<u64>,
    tail: Vec<u8>,
}

impl Fuzzer {
    /// A fuzzer that sends from `source` frames of at most `frame_bytes_max` bytes, Ethernet header included.
    pub fn new(seed: u64, source: Mac, frame_bytes_max: usize) -> Self {
        let mut random = Pattern::new(seed);
        let key = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
        let least = ETHERNET_HEADER_BYTES + FRAME_HEADER_BYTES + 256;
        Self {
            random,
            source,
            frame_bytes_max: frame_bytes_max.max(least),
            context: (0, 0, key),
            ids: vec![0],
            tail: Vec::new(),
        }
    }

    /// The call for a context of its own; to be sent until [`Self::learn`] has seen the answer.
    pub fn hello(&mut self, buffer: &mut [u8]) -> usize {
        let hello = Hello {
            version_min: toe_abi::VERSION,
            version_max: toe_abi::VERSION,
            lease_ms: LEASE_MS_MAX,
            frame_bytes_max: self.frame_bytes_max as u32,
            reserved: 0,
            receive_bytes_max: 1 << 20,
        };
        write(buffer, self.source, (0, 0, self.context.2), &[Message::Hello(hello)])
    }

    /// The farewell: everything that the fuzzer's context holds is free again.
    pub fn bye(&mut self, buffer: &mut [u8]) -> usize {
        write(buffer, self.source, self.context, &[Message::Bye(Bye { reserved: 0 })])
    }

    /// The key of its context.
    pub fn key(&self) -> u128 {
        self.context.2
    }

    /// Whether the card has given it a context.
    pub fn has_context(&self) -> bool {
        self.context.0 != 0
    }

    /// Takes what the card sent: its context, and ids of objects.
    pub fn learn(&mut self, frame: &[u8]) {
        let Ok(parsed) = Parsed::new(frame) else { return };
        if parsed.header.key != self.context.2 {
            return;
        }
        for message in parsed.messages.flatten() {
            match message {
                Message::Caps(caps) => self.context = (caps.context, caps.epoch, self.context.2),
                Message::ConnectResult(result) if result.connection != 0 => self.learn_id(result.connection),
                Message::ListenResult(result) if result.listener != 0 => self.learn_id(result.listener),
                Message::Accepted(accepted) => self.learn_id(accepted.connection),
                // Its context is gone (a lease, a farewell of its own making): it asks for another.
                Message::FirmwareEvent(_) if parsed.header.context == self.context.0 => self.context.0 = 0,
                _ => {}
            }
        }
    }

    fn learn_id(&mut self, id: u64) {
        if self.ids.len() == IDS_MAX {
            self.ids.remove(0);
        }
        self.ids.push(id);
    }

    /// Writes the next frame into `buffer` (as long as the longest frame); its length.
    pub fn next_frame(&mut self, buffer: &mut [u8]) -> usize {
        let buffer_bytes = buffer.len().min(self.frame_bytes_max);
        let buffer = &mut buffer[..buffer_bytes];
        match self.random.below(16) {
            0 => {
                let length = self.length(buffer.len());
                self.noise(&mut buffer[..length]);
                buffer[..6].copy_from_slice(&CARD_MAC.0);
                buffer[6..12].copy_from_slice(&self.source.0);
                buffer[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
                length
            }
            1 | 2 => {
                let headers = write(buffer, self.source, self.context, &[]);
                let length = self.length(buffer.len()).max(headers);
                self.noise(&mut buffer[headers..length]);
                let bytes = (length - headers) as u32;
                buffer[ETHERNET_HEADER_BYTES + 4..][..4].copy_from_slice(&bytes.to_le_bytes());
                length
            }
            3..8 => self.messages(buffer, self.context),
            8..14 => {
                let length = self.messages(buffer, self.context);
                self.mutate(buffer, length)
            }
            14 => {
                let (context, epoch, key) = self.context;
                let other = match self.random.below(4) {
                    0 => (self.number(), epoch, key),
                    1 => (context, self.number() as u32, key),
                    2 => (context, epoch, key ^ 1 << self.random.below(128)),
                    // A neighbour's context, its key guessed.
                    _ => (self.random.below(64) as u64, epoch, u128::from(self.number())),
                };
                self.messages(buffer, other)
            }
            _ => {
                let key = u128::from(self.number());
                let hello = Message::Hello(self.any_hello());
                write(buffer, self.source, (0, 0, key), &[hello])
            }
        }
    }

    fn messages(&mut self, buffer: &mut [u8], context: (u64, u32, u128)) -> usize {
        let count = 1 + self.random.below(6);
        let (id, epoch, key) = context;
        let Some(mut writer) = Writer::new(buffer, self.source, CARD_MAC, id, epoch, key) else { return 0 };
        for _ in 0..count {
            let message = self.any_message();
            let tail_bytes = match &message {
                Message::Send(..) | Message::Addresses(..) | Message::Received(..) => {
                    let room = writer.room(&message);
                    self.random.below(room.min(3000) + 1)
                }
                _ => 0,
            };
            let mut tail = std::mem::take(&mut self.tail);
            tail.resize(tail_bytes, 0);
            self.noise(&mut tail);
            let fits = writer.push_with(&message, tail_bytes, |room| room.copy_from_slice(&tail));
            self.tail = tail;
            if !fits {
                break;
            }
        }
        writer.finish()
    }

    fn mutate(&mut self, buffer: &mut [u8], mut length: usize) -> usize {
        for _ in 0..=self.random.below(6) {
            let at = ETHERNET_HEADER_BYTES + self.random.below(length - ETHERNET_HEADER_BYTES);
            match self.random.below(5) {
                0 => buffer[at] ^= 1 << self.random.below(8),
                1 => buffer[at] = self.random.next_u64() as u8,
                2 => buffer[at] = [0, 1, 0x7f, 0x80, 0xff][self.random.below(5)],
                3 => length = at + 1,
                _ => {
                    let end = (length + self.random.below(64)).min(buffer.len());
                    self.noise(&mut buffer[length..end]);
                    length = end;
                }
            }
        }
        length
    }

    fn any_message(&mut self) -> Message<'static> {
        match self.random.below(25) {
            0 => Message::Hello(self.any_hello()),
            1 => Message::Addresses(Addresses { cookie: self.number() }, &[]),
            2 | 3 => Message::Connect(Connect {
                cookie: self.number(),
                local: self.endpoint(),
                remote: self.endpoint(),
                next_hop: self.mac(),
                flags: self.number() as u32,
                mtu: self.number() as u32,
                receive_limit: self.number(),
            }),
            4 => Message::Listen(Listen {
                cookie: self.number(),
                local: self.endpoint(),
                backlog: self.number() as u32,
                flags: self.number() as u32,
                receive_limit: self.number(),
                mtu: self.number() as u32,
                policy: self.number() as u32 % 5,
            }),
            5 => Message::Unlisten(Unlisten { listener: self.id() }),
            6 => Message::Taken(Taken { listener: self.id(), taken: self.number() }),
            7..10 => Message::Send(Send { connection: self.id(), offset: self.number() }, &[]),
            10 | 11 => Message::ReceiveCredit(ReceiveCredit {
                connection: self.id(),
                held: self.number(),
                limit: self.number(),
                seen: self.number() as u32,
            }),
            12 => Message::Shutdown(Shutdown { connection: self.id(), offset: self.number() }),
            13 => Message::Abort(Abort { connection: self.id() }),
            14 => Message::Release(Release { connection: self.id() }),
            15 => Message::SetOption(SetOption {
                cookie: self.number(),
                object: self.id(),
                value: if self.random.below(2) == 0 { self.ring() } else { self.number() },
                option: self.random.below(OPTIONS) as u32,
            }),
            16 => Message::GetOption(GetOption {
                cookie: self.number(),
                object: self.id(),
                option: self.random.below(OPTIONS) as u32,
            }),
            17 => Message::Info(Info { cookie: self.number(), connection: self.id() }),
            18 => Message::Limits(Limits { cookie: self.number(), first: self.number() as u32 }),
            19 => Message::Stat(Stat { cookie: self.number(), first: self.number() as u32 }),
            20 => Message::Urgent(Urgent { connection: self.id(), offset: self.number() }),
            21 => Message::Noticed(Noticed { connection: self.id(), serial: self.number() }),
            23 => Message::Filled(Filled { connection: self.id(), end: self.number() }),
            // What only a card may say.
            22 => Message::Received(Received { connection: self.id(), offset: self.number() }, &[]),
            _ => Message::State(State {
                connection: self.id(),
                bits: self.number() as u32,
                reason: self.number() as u32,
                fin_offset: self.number(),
            }),
        }
    }

    fn any_hello(&mut self) -> Hello {
        Hello {
            version_min: self.random.below(3) as u16,
            version_max: self.random.below(3) as u16,
            lease_ms: self.random.below(LEASE_MS_MAX as usize + 1) as u32,
            frame_bytes_max: self.number() as u32,
            reserved: self.number() as u32,
            receive_bytes_max: self.number(),
        }
    }

    /// What could name a ring, in a small memory.
    fn ring(&mut self) -> u64 {
        (self.random.below(80) as u64) << 12 | self.random.below(32) as u64
    }

    /// A number: extreme, small, or any.
    fn number(&mut self) -> u64 {
        match self.random.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::from(u32::MAX),
            3 => 1 << self.random.below(64),
            4 => u64::MAX - self.random.below(65_536) as u64,
            5 => self.random.next_u64(),
            _ => self.random.below(4096) as u64,
        }
    }

    /// An id: one that the card gave, one next to it, or any.
    fn id(&mut self) -> u64 {
        let known = self.ids[self.random.below(self.ids.len())];
        match self.random.below(8) {
            0..5 => known,
            5 => known ^ 1 << self.random.below(64),
            6 => known.wrapping_add(self.random.below(16) as u64),
            _ => self.number(),
        }
    }

    fn endpoint(&mut self) -> Endpoint {
        let port = match self.random.below(3) {
            0 => self.random.below(8) as u16,
            _ => self.random.next_u64() as u16,
        };
        let ip = match self.random.below(10) {
            0..3 => GUEST_V4,
            3 => GUEST_V6,
            4 => PEER_V4,
            5 => PEER_V6,
            6 => IpAddr::V4(Ipv4Addr::from_bits([0, u32::MAX, 0x7f00_0001, 0xe000_0001][self.random.below(4)])),
            7 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            // Another station of the same network (192.0.2.0/24), that no one has.
            8 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3 + self.random.below(252) as u8)),
            _ => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, self.random.next_u64() as u16)),
        };
        Endpoint::new(ip, port)
    }

    fn mac(&mut self) -> Mac {
        match self.random.below(4) {
            0 => Mac([0xff; 6]),
            1 => Mac::default(),
            2 => CARD_MAC,
            // The peer's (see `net::PEER_MAC`).
            _ => Mac([0x52, 0x54, 0, 0, 0, 1]),
        }
    }

    /// A length of at least an Ethernet header; mostly short.
    fn length(&mut self, most: usize) -> usize {
        let most = if self.random.below(4) == 0 { most } else { most.min(200) };
        ETHERNET_HEADER_BYTES + self.random.below(most - ETHERNET_HEADER_BYTES + 1)
    }

    fn noise(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let word = self.random.next_u64().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }
}

fn write(buffer: &mut [u8], source: Mac, (context, epoch, key): (u64, u32, u128), messages: &[Message<'_>]) -> usize {
    let Some(mut writer) = Writer::new(buffer, source, CARD_MAC, context, epoch, key) else { return 0 };
    // A frame has room for far more than the one message that any caller has.
    let fits = messages.iter().all(|message| writer.push(message));
    debug_assert!(fits);
    writer.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use toe_abi::{Caps, FrameError};

    use super::*;

    const GUEST: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn with_context(seed: u64) -> Fuzzer {
        let mut fuzzer = Fuzzer::new(seed, GUEST, 1514);
        let mut frame = [0; 200];
        let mut writer = Writer::new(&mut frame, CARD_MAC, GUEST, 7, 9, fuzzer.context.2).unwrap();
        assert!(writer.push(&Message::Caps(Caps {
            version: 1,
            reserved: 0,
            epoch: 9,
            context: 7,
            lease_ms: 1,
            frame_bytes_max: 1514,
            features: 0,
            send_bytes_max: 0,
            receive_bytes_max: 0,
        })));
        let length = writer.finish();
        fuzzer.learn(&frame[..length]);
        assert!(fuzzer.has_context());
        fuzzer
    }

    #[test]
    fn frames_are_of_every_kind_and_never_too_long() {
        let mut fuzzer = with_context(1);
        let mut buffer = vec![0; 2000];
        let mut outcomes = BTreeSet::new();
        for _ in 0..20_000 {
            let length = fuzzer.next_frame(&mut buffer);
            assert!((ETHERNET_HEADER_BYTES..=1514).contains(&length));
            assert_eq!(buffer[12..14], ETHERTYPE.to_be_bytes(), "everything is for the card");
            match Parsed::new(&buffer[..length]) {
                Err(FrameError::Version(_)) => drop(outcomes.insert("version".to_owned())),
                Err(error) => drop(outcomes.insert(error.to_string())),
                Ok(parsed) => {
                    for message in parsed.messages {
                        outcomes.insert(match message {
                            Ok(message) => format!("{:#06x}", message.kind()),
                            Err(error) => format!("{error:?}").split(' ').next().unwrap_or_default().to_owned(),
                        });
                    }
                }
            }
        }
        for expected in
            ["0x0101", "0x0103", "0x0110", "0x0120", "0x0134", "0x0220", "Length", "Short", "Unknown", "version"]
        {
            assert!(outcomes.contains(expected), "no frame with {expected} among {outcomes:?}");
        }
    }

    #[test]
    fn a_seed_replays() {
        let frames = |seed| {
            let mut fuzzer = with_context(seed);
            let mut buffer = vec![0; 2000];
            (0..100)
                .map(|_| {
                    let n = fuzzer.next_frame(&mut buffer);
                    buffer[..n].to_vec()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(frames(5), frames(5));
        assert_ne!(frames(5), frames(6));
    }
}

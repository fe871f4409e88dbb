//! Hostile input: another process in the guest that says anything at all on the channel, and strangers on the wire
//! that send anything at all.

use std::net::IpAddr;

use toe_abi::{
    Abort, Addresses, Bye, CARD_MAC, Connect, Endpoint, FRAME_BYTES_MAX, GetOption, Hello, Info, Limits, Listen, Mac,
    Message, Noticed, Parsed, Process, ReceiveCredit, Release, Send, SetOption, Shutdown, Sockets, Stat, Taken,
    Unlisten, Urgent, Writer, option,
};
use toe_impair::Random;

use crate::frames::{ACK, FIN, Make, PSH, RST, SYN, segment};

/// All options of a connection, with 0 and one that is none.
const OPTIONS: u64 = option::PEER_USER_TIMEOUT_MS as u64 + 2;

/// From then on the intruder is about: the honest connection is open, and no pool that it fills can keep it from opening.
pub const PEACE_US: u64 = 1_500_000;

/// Turns over one to eight bits of `frame` behind its first `from` bytes.
fn turn_bits(random: &mut Random, frame: &mut [u8], from: usize) {
    for _ in 0..random.between(1, 8) {
        let at = from + random.below((frame.len().saturating_sub(from)) as u64) as usize;
        if let Some(byte) = frame.get_mut(at) {
            *byte ^= 1 << random.below(8);
        }
    }
}

/// A process in the guest that wants to do harm. It has a context of its own and has seen the frames of the honest
/// one, ids included, but not its key.
pub struct Intruder {
    random: Random,
    mac: Mac,
    key: u128,
    context: (u64, u32),
    /// Ids that it heard of: its own and the honest process's.
    ids: Vec<u64>,
    /// How often it speaks when the honest process does.
    pub frames_each: u64,
    pub made: u64,
    /// Frames that the card sent to it.
    pub heard: u64,
}

impl Intruder {
    pub fn new(seed: u64, mac: Mac, frames_each: u64) -> Self {
        let mut random = Random::new(seed);
        let key = u128::from(random.bits()) | 1 << 127;
        Self { random, mac, key, context: (0, 0), ids: vec![0], frames_each, made: 0, heard: 0 }
    }

    /// Whether a frame of the card is for it.
    pub fn hears(&mut self, frame: &[u8]) -> bool {
        let parsed = Parsed::new(frame).expect("the card's frames are well-formed");
        if parsed.header.key >> 127 == 0 {
            return false;
        }
        self.heard += 1;
        for message in parsed.messages {
            match message.expect("the card's messages are well-formed") {
                Message::Caps(m) => self.context = (m.context, m.epoch),
                Message::ConnectResult(m) => self.ids.push(m.connection),
                Message::ListenResult(m) => self.ids.push(m.listener),
                Message::Accepted(m) => self.ids.push(m.connection),
                _ => (),
            }
        }
        if self.ids.len() > 64 {
            self.ids.drain(..32);
        }
        true
    }

    /// What it sends after it saw `honest`, a frame of the honest process.
    pub fn frames(&mut self, now_us: u64, honest: &[u8]) -> Vec<Vec<u8>> {
        let parsed = Parsed::new(honest).expect("the guest's model is honest");
        for message in parsed.messages.flatten() {
            match message {
                Message::ReceiveCredit(m) => self.ids.push(m.connection),
                Message::Taken(m) => self.ids.push(m.listener),
                _ => (),
            }
        }
        let count = if now_us < PEACE_US { 0 } else { self.frames_each };
        self.made += count;
        (0..count).map(|_| self.frame(honest)).collect()
    }

    fn frame(&mut self, honest: &[u8]) -> Vec<u8> {
        let mut frame = match self.random.below(8) {
            0 => {
                let mut noise = vec![0; self.random.between(14, 200) as usize];
                self.random.fill(&mut noise);
                noise[12..14].copy_from_slice(&toe_abi::ETHERTYPE.to_be_bytes());
                // Not even by chance an honest key.
                noise.iter_mut().skip(53).take(1).for_each(|b| *b |= 0x80);
                return noise;
            }
            1 => {
                // The honest process's own words, its context, another key.
                let mut frame = honest.to_vec();
                frame[38..54].copy_from_slice(&self.key.to_le_bytes());
                frame
            }
            2 => {
                // A frame of its own with noise for messages, of which the first has a plausible header.
                let mut frame = self.written(|_, _| ());
                let mut noise = vec![0; self.random.below(300) as usize];
                self.random.fill(&mut noise);
                if noise.len() >= 8 {
                    let kind = [0x0100u16, 0x0110, 0x0120, 0x0130][self.random.below(4) as usize];
                    noise[..2].copy_from_slice(&(kind + self.random.below(8) as u16).to_le_bytes());
                    let length = self.random.below(noise.len() as u64 + 2) as u32;
                    noise[4..8].copy_from_slice(&length.to_le_bytes());
                }
                frame[18..22].copy_from_slice(&(noise.len() as u32).to_le_bytes());
                frame.extend(noise);
                frame
            }
            _ => self.written(|me, writer| {
                for _ in 0..me.random.between(1, 4) {
                    me.say_anything(writer);
                }
            }),
        };
        if self.random.one_in(4) {
            // Behind the key and the EtherType, so that it stays a channel frame with a key of the intruder's.
            turn_bits(&mut self.random, &mut frame, 54);
        }
        if self.random.one_in(8) {
            turn_bits(&mut self.random, &mut frame[14..38], 0);
        }
        if self.random.one_in(8) {
            frame.truncate(self.random.between(14, frame.len() as u64) as usize);
        }
        frame
    }

    fn written(&mut self, fill: impl FnOnce(&mut Self, &mut Writer<'_>)) -> Vec<u8> {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        let (context, epoch) = self.context;
        let mut writer =
            Writer::new(&mut buffer, self.mac, CARD_MAC, context, epoch, self.key).expect("room for the headers");
        fill(self, &mut writer);
        let length = writer.finish();
        buffer.truncate(length);
        buffer
    }

    /// A number that is likely to hurt.
    fn number(&mut self) -> u64 {
        match self.random.below(6) {
            0 => 0,
            1 => u64::MAX - self.random.below(3),
            2 => 1 << self.random.below(64),
            3 => self.random.below(100_000),
            4 => self.ids[self.random.below(self.ids.len() as u64) as usize],
            _ => self.random.bits(),
        }
    }

    fn id(&mut self) -> u64 {
        let id = self.ids[self.random.below(self.ids.len() as u64) as usize];
        if self.random.one_in(4) { id ^ 1 << self.random.below(64) } else { id }
    }

    fn endpoint(&mut self) -> Endpoint {
        let ip: IpAddr = match self.random.below(8) {
            0 => "0.0.0.0".parse().expect("an address"),
            1 => "255.255.255.255".parse().expect("an address"),
            2 => "ff02::1".parse().expect("an address"),
            3 => "2001:db8::1".parse().expect("an address"),
            4 => "192.0.2.2".parse().expect("an address"),
            _ => "192.0.2.1".parse().expect("an address"),
        };
        let port = [0, 7_000, 40_000, self.random.bits() as u16][self.random.below(4) as usize];
        Endpoint::new(ip, port)
    }

    fn say_anything(&mut self, writer: &mut Writer<'_>) {
        let mut noise = vec![0; self.random.below(2_000) as usize];
        self.random.fill(&mut noise);
        let mut mac = [0; 6];
        self.random.fill(&mut mac);
        let message = match self.random.below(20) {
            0 => Message::Hello(Hello {
                version_min: self.random.below(3) as u16,
                version_max: self.random.below(3) as u16,
                lease_ms: self.number() as u32,
                frame_bytes_max: self.number() as u32,
                reserved: 0,
                receive_bytes_max: self.number(),
            }),
            1 if self.random.one_in(50) => Message::Bye(Bye { reserved: 0 }),
            1 | 2 => Message::Addresses(Addresses { cookie: self.number() }, &noise),
            3 | 4 => Message::Connect(Connect {
                cookie: self.number(),
                local: self.endpoint(),
                remote: self.endpoint(),
                next_hop: Mac(mac),
                flags: self.number() as u32,
                mtu: self.number() as u32,
                receive_limit: self.number(),
            }),
            5 => Message::Listen(Listen {
                cookie: self.number(),
                local: self.endpoint(),
                backlog: self.number() as u32,
                flags: self.number() as u32,
                receive_limit: self.number(),
                mtu: self.number() as u32,
                policy: self.number() as u32 % 5,
            }),
            6 => Message::Unlisten(Unlisten { listener: self.id() }),
            7 => Message::Taken(Taken { listener: self.id(), taken: self.number() }),
            8 | 9 => Message::Send(Send { connection: self.id(), offset: self.number() }, &noise),
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
                value: self.number(),
                option: self.random.below(OPTIONS) as u32,
            }),
            16 => {
                let option = self.random.below(OPTIONS) as u32;
                Message::GetOption(GetOption { cookie: self.number(), object: self.id(), option })
            }
            17 => Message::Urgent(Urgent { connection: self.id(), offset: self.number() }),
            18 => Message::Noticed(Noticed { connection: self.id(), serial: self.number() }),
            _ => match self.random.below(5) {
                3 => Message::Sockets(Sockets { cookie: self.number(), after: self.number() }),
                4 => Message::Process(Process { pid: self.number() as u32, uid: 0 }, &noise),
                0 => Message::Info(Info { cookie: self.number(), connection: self.id() }),
                1 => Message::Limits(Limits { cookie: self.number(), first: self.number() as u32 }),
                _ => Message::Stat(Stat { cookie: self.number(), first: self.number() as u32 }),
            },
        };
        // One that does not fit is not said.
        let _ = writer.push(&message);
    }
}

/// A frame of a stranger who has seen `honest` on the wire but cannot forge its connection: whatever keeps the
/// honest 4-tuple has a wrong checksum, or a sequence number half the space away.
pub fn strange(random: &mut Random, honest: &[u8]) -> Vec<u8> {
    let s = segment(honest).expect("honest frames are TCP segments");
    match random.below(6) {
        0 => {
            let mut noise = vec![0; random.below(200) as usize];
            random.fill(&mut noise);
            if noise.len() >= 14 && random.one_in(2) {
                let ethertypes: [u16; 6] = [0x0800, 0x86dd, 0x0806, 0x8100, toe_abi::ETHERTYPE, 0x05dc];
                noise[12..14].copy_from_slice(&ethertypes[random.below(6) as usize].to_be_bytes());
            }
            noise
        }
        1 | 2 => {
            let mut frame = honest.to_vec();
            turn_bits(random, &mut frame, 12);
            if random.one_in(3) {
                frame.truncate(random.below(frame.len() as u64) as usize);
            }
            let now = segment(&frame);
            let is_forged = now.is_some_and(|n| n.checksums_right());
            if is_forged { Vec::new() } else { frame }
        }
        kind => {
            let mut payload = vec![0; random.below(100) as usize];
            random.fill(&mut payload);
            let flags = [0, PSH, FIN, SYN, RST, SYN][random.below(6) as usize];
            let far = s.seq.wrapping_add(1 << 31).wrapping_add(random.below(1_000_000) as u32);
            let (ack, flags) = if random.one_in(2) { (random.bits() as u32, flags | ACK) } else { (0, flags) };
            let mss = (random.bits() as u16).to_be_bytes();
            let options = [2, 4, mss[0], mss[1], 1, 3, 3, random.below(15) as u8, 1, 1, 4, 2];
            let mut stranger = Make {
                source: s.source,
                destination: s.destination,
                source_port: s.source_port,
                destination_port: s.destination_port,
                seq: far,
                ack,
                flags,
                window: random.bits() as u16,
                urgent: 0,
                options: &options[..4 * random.below(4) as usize],
                payload: &payload,
            };
            if kind > 3 {
                // Another 4-tuple: a port of its own, or all of the address.
                stranger.source_port = random.between(1, 39_999) as u16;
                stranger.source = match stranger.source {
                    IpAddr::V4(_) => IpAddr::from([198, 51, 100, random.bits() as u8]),
                    IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, random.bits() as u16]),
                };
            }
            stranger.frame(&honest[..12])
        }
    }
}

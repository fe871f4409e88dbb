//! A bench for one connection in virtual time: a peer that is a script, and a guest that does as it is told.
//!
//! Segments are written as text, numbers relative to each side's SYN: `"PA 1:11 ack 1 win 500 <ts 7 3>"` is a segment with
//! PSH and ACK, the octets 1 to 10, and so on. What the card sends is compared with such a text, and only in what
//! the text mentions (no octets, `ack`, `win` or option: anything goes).

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::IpAddr;

use toe_abi::{
    Abort, Addresses, CARD_MAC, Connect, Endpoint, FRAME_BYTES_MAX, GetOption, Hello, Info, InfoResult, Listen, Mac,
    Message, Notice, Noticed, Parsed, ReceiveCredit, Release, ResourceEvent, Send, SetOption, Shutdown, Writer, flags,
    state,
};

use crate::engine::{Checksum, Firmware, Verdict};
use crate::fault::{Action, Rule, Rules, Site};
use crate::profile::Profile;
use crate::seq::Seq;
use crate::time::{Duration, Instant};
use crate::wire::checksum::Sum;
use crate::wire::frame::{Ethernet, Headers};
use crate::wire::offload::{self, Offload};
use crate::wire::options::{Cookie, Options, SackBlocks, Timestamps};
use crate::wire::segment::{self, Flags, Segment};
use crate::wire::{icmp, ip};

const GUEST_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const KEY: u128 = 0x5eed;
/// The peer's ISS: close to wrapping, so that every test crosses it.
const PEER_ISS: u32 = u32::MAX - 20;

/// The bench.
pub struct Bench {
    /// The card.
    pub firmware: Firmware,
    /// The time.
    pub now: Instant,
    /// The guest's end.
    pub local: Endpoint,
    /// The peer's end.
    pub remote: Endpoint,
    /// Of the guest's interface.
    pub mtu: u32,
    iss: Option<Seq>,
    /// The peer's.
    pub peer_iss: u32,
    context: u64,
    epoch: u32,
    /// The connection's id, once there is one.
    pub connection: u64,
    sent: u64,
    /// What the guest has received.
    pub received: Vec<u8>,
    /// The last STATE's bits and reason.
    pub bits: u32,
    /// The last STATE's reason.
    pub reason: u32,
    /// Whether the guest takes what it is sent.
    pub reading: bool,
    out: VecDeque<Vec<u8>>,
    /// The peer uses timestamps: its TSval is the time in milliseconds.
    pub timestamps: Option<u32>,
    /// The peer's packets are marked on their way: congestion experienced.
    pub marks: bool,
    option: (u32, u64),
    info: Option<InfoResult>,
    sockets: (u64, Vec<toe_abi::SocketEntry>),
    /// The last NOTICE.
    pub notice: Notice,
    /// How many NOTICEs there were.
    pub notices: u32,
    /// The guest does not answer a NOTICE.
    pub deaf: bool,
    /// What the card said of its pools.
    pub resource_events: Vec<ResourceEvent>,
    /// Every STORED: offset and end.
    pub stored: Vec<(u64, u64)>,
    /// Channel messages other than those that the bench deals with.
    pub messages: Vec<String>,
    /// What the wire does itself; segments are compared as they leave it.
    pub wire: Offload,
    /// Frames that the card gave it.
    pub frames: usize,
}

/// One of several connections of a bench.
#[derive(Clone, Copy, Debug)]
pub struct Which {
    local: Endpoint,
    remote: Endpoint,
    iss: Option<Seq>,
    /// Its id.
    pub connection: u64,
    sent: u64,
}

/// A segment as its text says it.
#[derive(Default, Debug)]
struct Said {
    flags: u8,
    seq: Option<u32>,
    end: Option<u32>,
    ack: Option<u32>,
    window: Option<u16>,
    urgent: Option<u16>,
    mss: Option<u16>,
    scale: Option<u8>,
    sack_permitted: bool,
    ecn_capable: bool,
    timestamps: Option<(u32, u32)>,
    user_timeout: Option<u16>,
    fast_open: Option<Cookie>,
    sack: Vec<(u32, u32)>,
}

fn said(text: &str) -> Said {
    let mut said = Said::default();
    let spaced = text.replace(['<', '>', ','], " ");
    let mut words = spaced.split_whitespace();
    let number = |w: Option<&str>| w.unwrap().parse::<u32>().unwrap();
    for letter in words.next().unwrap().chars() {
        said.flags |= match letter {
            'F' => Flags::FIN.0,
            'S' => Flags::SYN.0,
            'R' => Flags::RST.0,
            'P' => Flags::PSH.0,
            'A' => Flags::ACK.0,
            'U' => Flags::URG.0,
            'E' => Flags::ECE.0,
            'W' => Flags::CWR.0,
            '.' => 0,
            other => panic!("no such flag: {other}"),
        };
    }
    let range = |w: &str| {
        let (a, b) = w.split_once(':').unwrap();
        (a.parse().unwrap(), b.parse().unwrap())
    };
    let mut in_sack = false;
    while let Some(word) = words.next() {
        match word {
            "ack" => said.ack = Some(number(words.next())),
            "urg" => said.urgent = Some(number(words.next()) as u16),
            "win" => said.window = Some(number(words.next()) as u16),
            "mss" => said.mss = Some(number(words.next()) as u16),
            "ws" => said.scale = Some(number(words.next()) as u8),
            "uto" => said.user_timeout = Some(number(words.next()) as u16),
            "fo" => {
                // Hexadecimal digits, or a dash.
                let digits = words.next().unwrap().trim_matches('-');
                let bytes = (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap());
                said.fast_open = Cookie::new(&bytes.collect::<Vec<_>>());
            }
            "sackOK" => said.sack_permitted = true,
            "ect" => said.ecn_capable = true,
            "ts" => said.timestamps = Some((number(words.next()), number(words.next()))),
            "sack" => in_sack = true,
            w if in_sack => said.sack.push(range(w)),
            w if w.contains(':') => {
                let (a, b) = range(w);
                (said.seq, said.end) = (Some(a), Some(b));
            }
            w => said.seq = Some(w.parse().unwrap()),
        }
    }
    said
}

/// What the octet at an offset of any stream is.
pub fn octet(offset: u64) -> u8 {
    (offset.wrapping_mul(31) % 251) as u8
}

/// The bug that every card of this process has: `tcp/tests/bugs.rs` runs tests with one.
fn switched_on() -> Option<Site> {
    Site::named(&std::env::var("TOE_BUG").ok()?)
}

impl Bench {
    /// A card with the default profile, as `change` has it, and a guest that has said HELLO.
    pub fn with(change: impl FnOnce(&mut Profile)) -> Self {
        Self::with_seed([7; 32], change)
    }

    /// The same with another seed of everything that is random.
    pub fn with_seed(seed: [u8; 32], change: impl FnOnce(&mut Profile)) -> Self {
        let mut profile = Profile::default();
        // Small, so that it boots quickly; with as much payload memory as any.
        profile.limits.connections = 16;
        profile.limits.half_open = 256;
        profile.limits.time_wait = 256;
        profile.limits.transmit_records = 16_384;
        // A script says what it wants to know of the beginning.
        profile.tcp.quick_acks = 0;
        change(&mut profile);
        let now = Instant::from_us(1_000_000_000);
        let mut bench = Self {
            firmware: Firmware::new(&profile, seed, 1, now).unwrap(),
            now,
            local: Endpoint::new("192.0.2.2".parse().unwrap(), 40_000),
            remote: Endpoint::new("192.0.2.1".parse().unwrap(), 80),
            mtu: 1500,
            iss: None,
            peer_iss: PEER_ISS,
            context: 0,
            epoch: 1,
            connection: 0,
            sent: 0,
            received: Vec::new(),
            bits: 0,
            reason: 0,
            reading: true,
            out: VecDeque::new(),
            timestamps: None,
            marks: false,
            option: (0, 0),
            info: None,
            sockets: (0, Vec::new()),
            notice: Notice {
                connection: 0,
                serial: 0,
                urgent_received: 0,
                urgent_sent: 0,
                network_errors: 0,
                network_error: 0,
                path_advice: 0,
                path_mtu: 0,
            },
            notices: 0,
            deaf: false,
            resource_events: Vec::new(),
            stored: Vec::new(),
            messages: Vec::new(),
            wire: Offload::default(),
            frames: 0,
        };
        if let Some(bug) = switched_on() {
            bench.firmware.arm(Rules::new(vec![Rule::new(bug, Action::Error)]), 1, now);
        }
        bench.hello();
        bench
    }

    fn hello(&mut self) {
        self.tell(&Message::Hello(Hello {
            version_min: 1,
            version_max: 1,
            lease_ms: 600_000,
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            reserved: 0,
            receive_bytes_max: 1 << 30,
        }));
    }

    /// The card was reset, and has that epoch now: the guest says HELLO again, and begins with nothing.
    pub fn reborn(&mut self, epoch: u32) {
        self.another();
        self.out.clear();
        (self.context, self.epoch, self.connection) = (0, epoch, 0);
        self.hello();
    }

    /// Fetches what the card has to say, and lets the segments go.
    pub fn drain(&mut self) {
        self.pump();
        self.out.clear();
    }

    /// A card with the default profile.
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    /// The same between two IPv6 addresses.
    pub fn over_ipv6() -> Self {
        let mut bench = Self::new();
        bench.local.ip = "2001:db8::2".parse().unwrap();
        bench.remote.ip = "2001:db8::1".parse().unwrap();
        bench
    }

    /// Another connection begins: numbers are relative to its own SYN.
    pub fn another(&mut self) {
        self.iss = None;
        self.sent = 0;
        self.received.clear();
        (self.bits, self.reason) = (0, 0);
    }

    /// What tells one connection from another, to go back to it with [`Self::resume`].
    pub fn which(&self) -> Which {
        Which { local: self.local, remote: self.remote, iss: self.iss, connection: self.connection, sent: self.sent }
    }

    /// Goes on with a connection from before, that has received nothing yet.
    pub fn resume(&mut self, which: Which) {
        (self.local, self.remote, self.iss) = (which.local, which.remote, which.iss);
        (self.connection, self.sent) = (which.connection, which.sent);
        self.received.clear();
    }

    /// The same, from another port of the side that opens it.
    pub fn another_port(&mut self, active: bool) {
        self.another();
        if active {
            self.local.port += 1;
        } else {
            self.remote.port += 1;
        }
    }

    /// Sends a message of the guest.
    pub fn tell(&mut self, message: &Message<'_>) {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        let epoch = if self.context == 0 { 0 } else { self.epoch };
        let mut w = Writer::new(&mut frame, GUEST_MAC, CARD_MAC, self.context, epoch, KEY).unwrap();
        assert!(w.push(message));
        let length = w.finish();
        assert_eq!(self.firmware.handle_guest(self.now, &frame[..length]), Verdict::Taken);
        self.pump();
    }

    /// Fetches what the card has for the guest and for the wire.
    fn pump(&mut self) {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        loop {
            let mut quiet = true;
            while let Some(length) = self.firmware.poll_guest(self.now, &mut buffer) {
                quiet = false;
                let frame = buffer[..length].to_vec();
                for message in Parsed::new(&frame).unwrap().messages {
                    self.hear(&message.unwrap());
                }
            }
            while let Some(made) = self.firmware.poll_wire_for(self.now, &mut buffer, self.wire) {
                quiet = false;
                self.frames += 1;
                let frames = offload::finish(&buffer[..made.bytes], made.rest);
                if self.iss.is_none() {
                    self.iss = Some(parse(&frames[0]).seq);
                }
                self.out.extend(frames);
            }
            if quiet {
                return;
            }
        }
    }

    fn hear(&mut self, message: &Message<'_>) {
        match *message {
            Message::Caps(m) => self.context = m.context,
            Message::ConnectResult(m) if m.reason == 0 => self.connection = m.connection,
            Message::Accepted(m) => {
                self.connection = m.connection;
                self.credit(state::ACCEPTED);
            }
            Message::State(m) => {
                (self.bits, self.reason) = (m.bits, m.reason);
                self.credit(m.bits);
            }
            Message::Received(m, data) => {
                if self.reading {
                    let have = self.received.len() as u64;
                    assert!(m.offset <= have);
                    if m.offset + data.len() as u64 > have {
                        self.received.extend(&data[(have - m.offset) as usize..]);
                    }
                    self.credit(0);
                }
            }
            Message::Stored(m) => self.stored.push((m.offset, m.end)),
            Message::Notice(m) => {
                self.notice = m;
                self.notices += 1;
                if !self.deaf {
                    self.tell(&Message::Noticed(Noticed { connection: m.connection, serial: m.serial }));
                }
            }
            Message::InfoResult(m) => self.info = Some(m),
            Message::SocketsResult(m, tail) => self.sockets = (m.next, toe_abi::socket_entries(tail).collect()),
            Message::OptionResult(m) => self.option = (m.reason, m.value),
            Message::ListenResult(m) if m.reason == 0 => {}
            Message::SendCredit(_) | Message::Released(_) => {}
            Message::ResourceEvent(m) => self.resource_events.push(m),
            ref other => self.messages.push(format!("{other:?}")),
        }
    }

    /// Says what the guest has.
    pub fn credit(&mut self, seen: u32) {
        let held = self.received.len() as u64;
        let message = ReceiveCredit { connection: self.connection, held, limit: 1 << 40, seen };
        self.tell(&Message::ReceiveCredit(message));
    }

    /// CONNECT, and the SYN is on its way.
    pub fn connect(&mut self, flags: u32) {
        self.tell(&Message::Connect(Connect {
            cookie: self.cookie(),
            local: self.local,
            remote: self.remote,
            next_hop: PEER_MAC,
            flags,
            mtu: self.mtu,
            receive_limit: 1 << 40,
        }));
    }

    /// Of a CONNECT: another for another 4-tuple.
    fn cookie(&self) -> u64 {
        u64::from(self.remote.port) << 16 | u64::from(self.local.port)
    }

    /// LISTEN on the bench's local end.
    pub fn listen(&mut self) {
        self.listen_with(0);
    }

    /// The same, with flags.
    pub fn listen_with(&mut self, flags: u32) {
        self.tell(&Message::Listen(Listen {
            cookie: 2,
            local: self.local,
            backlog: 4,
            flags,
            receive_limit: 1 << 40,
            mtu: self.mtu,
            policy: 0,
        }));
    }

    /// A connection that the card opened over a path of 10 ms, with these options in the peer's SYN-ACK.
    pub fn established_with(flags: u32, options: &str) -> Self {
        let mut bench = Self::new();
        bench.connect(flags);
        bench.expect("S 0");
        bench.now = bench.now + Duration::from_ms(10);
        bench.peer(&format!("SA 0 ack 1 win 60000 <{options}>"));
        bench.expect("A 1:1 ack 1");
        assert_eq!(bench.bits, state::ESTABLISHED);
        bench
    }

    /// A connection that the card opened, without window scaling, timestamps or SACK; MSS 1000, no Nagle.
    pub fn established() -> Self {
        Self::established_with(flags::NODELAY, "mss 1000")
    }

    /// The same with SACK.
    pub fn established_sack() -> Self {
        Self::established_with(flags::NODELAY, "mss 1000, sackOK")
    }

    /// The peer sends a segment; its octets are [`octet`]s.
    pub fn peer(&mut self, text: &str) {
        let frame = self.frame(text);
        let verdict = self.firmware.handle_wire(self.now, &frame, Checksum::Unverified);
        assert_eq!(verdict, Verdict::Taken, "{text}");
        self.pump();
    }

    /// The card is handed a frame from the wire.
    pub fn deliver(&mut self, frame: &[u8]) -> Verdict {
        let verdict = self.firmware.handle_wire(self.now, frame, Checksum::Unverified);
        self.pump();
        verdict
    }

    /// The peer sends a segment that is not the card's.
    pub fn peer_passes(&mut self, text: &str) {
        let frame = self.frame(text);
        assert_eq!(self.firmware.handle_wire(self.now, &frame, Checksum::Unverified), Verdict::PassOn, "{text}");
        self.pump();
        self.nothing();
    }

    /// A router sends the ICMP error with this header about one of the card's frames.
    pub fn icmp(&mut self, header: [u8; 8], about: &[u8]) {
        assert_eq!(self.icmp_verdict(header, about), Verdict::Taken);
        self.pump();
    }

    /// The same, and whose it is.
    pub fn icmp_verdict(&mut self, header: [u8; 8], about: &[u8]) -> Verdict {
        let router = if self.local.ip.is_ipv4() { "192.0.2.77" } else { "2001:db8::77" };
        let packet = icmp::about(&about[14..], router.parse().unwrap(), self.local.ip, header);
        let frame = [&GUEST_MAC.0[..], &PEER_MAC.0, &about[12..14], &packet].concat();
        self.firmware.handle_wire(self.now, &frame, Checksum::Unverified)
    }

    /// A router says that one of the card's frames is larger than this MTU.
    pub fn too_big(&mut self, mtu: u16, about: &[u8]) {
        let [a, b] = mtu.to_be_bytes();
        self.icmp(if self.local.ip.is_ipv4() { [3, 4, 0, 0, 0, 0, a, b] } else { [2, 0, 0, 0, 0, 0, a, b] }, about);
    }

    /// The frame of a segment of the peer.
    pub fn frame(&self, text: &str) -> Vec<u8> {
        let s = said(text);
        let mut sack = SackBlocks::default();
        let iss = self.iss.unwrap_or(Seq(0));
        for (left, right) in s.sack {
            sack.push(iss + left, iss + right);
        }
        let timestamps = s.timestamps.map(|(value, echo)| Timestamps { value, echo });
        let timestamps =
            timestamps.or(self.timestamps.map(|echo| Timestamps { value: (self.now.as_us() / 1000) as u32, echo }));
        let seq = s.seq.unwrap_or(0);
        let text_bytes = s.end.map_or(0, |end| end - seq) as usize;
        let headers = Headers {
            source: PEER_MAC,
            destination: GUEST_MAC,
            ip: ip::Header {
                source: self.remote.ip,
                destination: self.local.ip,
                hop_limit: 64,
                traffic_class: if self.marks { 3 } else { 0 },
            },
            tcp: segment::Header {
                source_port: self.remote.port,
                destination_port: self.local.port,
                seq: Seq(self.peer_iss) + seq,
                ack: s.ack.map_or(Seq(0), |ack| iss + ack),
                flags: Flags(s.flags),
                window: s.window.unwrap_or(60_000),
                urgent: s.urgent,
                options: Options {
                    mss: s.mss,
                    window_scale: s.scale,
                    sack_permitted: s.sack_permitted,
                    timestamps,
                    user_timeout: s.user_timeout,
                    fast_open: s.fast_open,
                    sack,
                },
            },
        };
        let mut frame = vec![0; FRAME_BYTES_MAX];
        let length = headers.write(&mut frame, text_bytes, |b| {
            // Text in a SYN stands behind it.
            let first = u64::from(seq) + u64::from(s.flags & Flags::SYN.0 != 0);
            b.iter_mut().enumerate().for_each(|(i, b)| *b = octet((first + i as u64).wrapping_sub(1)));
        });
        frame.truncate(length);
        frame
    }

    /// From where to where the text of the next segment goes that has some.
    pub fn next_text(&mut self) -> Option<(u32, u32)> {
        loop {
            let frame = self.out.pop_front()?;
            let (from, to) = text_of(&frame, self.first());
            if to > from {
                return Some((from, to));
            }
        }
    }

    /// The next segment of the card, which is a SYN-ACK: its number and what it acknowledges.
    #[track_caller]
    pub fn next_syn_ack(&mut self) -> (u32, u32) {
        let frame = self.out.pop_front().expect("a SYN-ACK");
        let s = parse(&frame);
        assert_eq!(s.flags, Flags::SYN | Flags::ACK);
        (s.seq.distance(self.iss.unwrap()) as u32, s.ack.distance(Seq(self.peer_iss)) as u32)
    }

    /// The number of the card's SYN.
    pub fn first(&self) -> Seq {
        self.iss.unwrap()
    }

    /// Octets that the guest has sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The connection's state as INFO has it.
    pub fn info(&mut self) -> InfoResult {
        self.tell(&Message::Info(Info { cookie: 7, connection: self.connection }));
        self.info.take().unwrap()
    }

    /// What SOCKETS is answered with: where to go on, and the entries.
    pub fn sockets(&mut self, after: u64) -> (u64, Vec<toe_abi::SocketEntry>) {
        self.tell(&Message::Sockets(toe_abi::Sockets { cookie: 9, after }));
        std::mem::take(&mut self.sockets)
    }

    /// The next segment of the card as text.
    pub fn next(&mut self) -> Option<String> {
        let frame = self.out.pop_front()?;
        Some(self.describe(&frame))
    }

    fn describe(&self, frame: &[u8]) -> String {
        let s = parse(frame);
        let iss = self.iss.unwrap();
        let mut text = String::new();
        for (flag, letter) in [
            (Flags::URG, 'U'),
            (Flags::FIN, 'F'),
            (Flags::SYN, 'S'),
            (Flags::RST, 'R'),
            (Flags::PSH, 'P'),
            (Flags::ACK, 'A'),
            (Flags::ECE, 'E'),
            (Flags::CWR, 'W'),
        ] {
            if s.flags.has(flag) {
                text.push(letter);
            }
        }
        if congestion_bits(frame) != 0 {
            text.push_str(" ect");
        }
        let seq = s.seq.distance(iss) as u32;
        write!(text, " {seq}:{}", seq + s.text.len() as u32).unwrap();
        if s.flags.has(Flags::ACK) {
            write!(text, " ack {}", s.ack.distance(Seq(self.peer_iss)) as u32).unwrap();
        }
        if s.flags.has(Flags::URG) {
            write!(text, " urg {}", s.urgent).unwrap();
        }
        write!(text, " win {}", s.window).unwrap();
        let mut options = Vec::new();
        options.extend(s.options.mss.map(|m| format!("mss {m}")));
        options.extend(s.options.window_scale.map(|w| format!("ws {w}")));
        options.extend(s.options.sack_permitted.then(|| "sackOK".to_owned()));
        options.extend(s.options.timestamps.map(|t| format!("ts {} {}", t.value, t.echo)));
        options.extend(s.options.user_timeout.map(|u| format!("uto {u}")));
        options.extend(s.options.fast_open.map(|c| {
            let digits: String = c.as_slice().iter().map(|b| format!("{b:02x}")).collect();
            format!("fo {}", if digits.is_empty() { "-" } else { &digits })
        }));
        let blocks = s.options.sack.as_slice().iter();
        let blocks: Vec<_> = blocks
            .map(|(a, b)| format!("{}:{}", a.distance(Seq(self.peer_iss)), b.distance(Seq(self.peer_iss))))
            .collect();
        if !blocks.is_empty() {
            options.push(format!("sack {}", blocks.join(" ")));
        }
        if !options.is_empty() {
            write!(text, " <{}>", options.join(", ")).unwrap();
        }
        // Text in a SYN stands behind it.
        let offset = (u64::from(seq) + u64::from(s.flags.has(Flags::SYN))).wrapping_sub(1);
        let right = s.text.iter().enumerate().all(|(i, b)| *b == octet(offset + i as u64));
        assert!(right, "{text}: not the octets that the guest sent");
        text
    }

    /// The next segment of the card is this one, in all that is said.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let Some(frame) = self.out.pop_front() else { panic!("expected {text}, and nothing was sent") };
        let found = self.describe(&frame);
        let (s, f) = (said(text), said(&found));
        let same = s.flags == f.flags
            && s.ecn_capable == f.ecn_capable
            && s.seq.is_none_or(|x| f.seq == Some(x))
            && s.end.is_none_or(|x| f.end == Some(x))
            && s.ack.is_none_or(|x| f.ack == Some(x))
            && s.window.is_none_or(|x| f.window == Some(x))
            && s.urgent.is_none_or(|x| f.urgent == Some(x))
            && s.mss.is_none_or(|x| f.mss == Some(x))
            && s.scale.is_none_or(|x| f.scale == Some(x))
            && (!s.sack_permitted || f.sack_permitted)
            && s.timestamps.is_none_or(|x| f.timestamps == Some(x))
            && s.user_timeout.is_none_or(|x| f.user_timeout == Some(x))
            && s.fast_open.is_none_or(|x| f.fast_open == Some(x))
            && (s.sack.is_empty() || s.sack == f.sack);
        assert!(same, "expected {text}, and {found} was sent");
    }

    /// The card has said ERROR for this reason, and nothing else.
    #[track_caller]
    pub fn refused(&mut self, reason: toe_abi::Reason) {
        let said = std::mem::take(&mut self.messages);
        let code = format!("reason: {}", reason as u32);
        assert!(said.len() == 1 && said[0].contains("Error") && said[0].contains(&code), "{said:?}");
    }

    /// The card has nothing to send.
    #[track_caller]
    pub fn nothing(&mut self) {
        if let Some(found) = self.next() {
            panic!("expected nothing, and {found} was sent");
        }
    }

    /// A frame that keeps the context's lease.
    fn sign_of_life(&mut self) {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        let length = Writer::new(&mut frame, GUEST_MAC, CARD_MAC, self.context, 1, KEY).unwrap().finish();
        assert_eq!(self.firmware.handle_guest(self.now, &frame[..length]), Verdict::Taken);
    }

    /// Time passes; timers fire when they are due.
    pub fn wait_ms(&mut self, ms: u64) {
        let until = self.now + Duration::from_ms(ms);
        while let Some(at) = self.firmware.poll_timeout()
            && at <= until
        {
            self.now = self.now.max(at);
            self.sign_of_life();
            self.firmware.handle_timeout(self.now);
            self.pump();
        }
        self.now = until;
        self.sign_of_life();
        self.firmware.handle_timeout(self.now);
        self.pump();
    }

    /// Time passes until the card sends something; in milliseconds, rounded.
    #[track_caller]
    pub fn wait_for_segment(&mut self) -> u64 {
        let from = self.now;
        while self.out.is_empty() {
            let at = self.firmware.poll_timeout().expect("nothing is ever sent");
            assert!(at.since(from) < Duration::from_s(4000), "nothing is sent for an hour");
            self.now = self.now.max(at);
            self.sign_of_life();
            self.firmware.handle_timeout(self.now);
            self.pump();
        }
        (self.now.since(from).as_us() + 500) / 1000
    }

    /// The guest sends the next `n` octets.
    pub fn send(&mut self, n: u64) {
        let data: Vec<_> = (self.sent..self.sent + n).map(octet).collect();
        let message = Send { connection: self.connection, offset: self.sent };
        self.sent += n;
        self.tell(&Message::Send(message, &data));
    }

    /// The guest sets an option; the reason and the value that holds then.
    pub fn set(&mut self, option: u32, value: u64) -> (u32, u64) {
        self.tell(&Message::SetOption(SetOption { cookie: 1, object: self.connection, value, option }));
        self.option
    }

    /// The guest says which addresses it has.
    pub fn addresses(&mut self, addresses: &[IpAddr]) {
        let v6 = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let tail: Vec<u8> = addresses.iter().flat_map(v6).collect();
        self.tell(&Message::Addresses(Addresses { cookie: 1 }, &tail));
    }

    /// The guest asks for an option; the reason and the value.
    pub fn get(&mut self, option: u32) -> (u32, u64) {
        self.tell(&Message::GetOption(GetOption { cookie: 1, object: self.connection, option }));
        self.option
    }

    /// The next frame of the card as it is.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// The guest shuts its sending side.
    pub fn shutdown(&mut self) {
        self.tell(&Message::Shutdown(Shutdown { connection: self.connection, offset: self.sent }));
    }

    /// The guest aborts.
    pub fn abort(&mut self) {
        self.tell(&Message::Abort(Abort { connection: self.connection }));
    }

    /// The guest releases the connection.
    pub fn release(&mut self) {
        self.tell(&Message::Release(Release { connection: self.connection }));
    }

    /// A counter's value.
    pub fn count(&self, name: &str) -> u64 {
        self.firmware.counters().find(|c| c.name == name).unwrap_or_else(|| panic!("no counter {name}")).value
    }

    /// The frames from the wire of which it is known what became of them: all of them, always.
    pub fn accounted(&self) -> u64 {
        let counted = |name: &str| matches!(name, "wire-taken" | "wire-passed") || name.starts_with("wire-drop-");
        self.firmware.counters().filter(|c| counted(c.name)).map(|c| c.value).sum()
    }

    /// How many of a pool are in use.
    pub fn in_use(&self, pool: &str) -> u64 {
        self.firmware.limits().find(|l| l.name == pool).unwrap_or_else(|| panic!("no pool {pool}")).in_use
    }

    /// What the guest has received is what the peer sent, and this much.
    #[track_caller]
    pub fn received(&self, n: usize) {
        assert_eq!(self.received.len(), n);
        assert!(self.received.iter().enumerate().all(|(i, b)| *b == octet(i as u64)));
    }
}

/// Makes the header checksum of an IPv4 frame without IP options right.
pub fn repair_header(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = Sum::default().bytes(&frame[14..34]).finish();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// Makes the TCP checksum of an IPv4 frame without IP options right.
pub fn repair(frame: &mut [u8]) {
    let (source, destination) = (ipv4_at(frame, 26), ipv4_at(frame, 30));
    frame[50..52].fill(0);
    let tcp = &frame[34..];
    let sum = Sum::default().pseudo_header(source, destination, tcp.len()).bytes(tcp).finish();
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
}

fn ipv4_at(frame: &[u8], at: usize) -> IpAddr {
    IpAddr::from([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}

/// From where to where the text of a segment of the card goes, whose SYN had this number.
pub fn text_of(frame: &[u8], iss: Seq) -> (u32, u32) {
    let s = parse(frame);
    let from = s.seq.distance(iss) as u32;
    (from, from + s.text.len() as u32)
}

/// The congestion bits of the card's frame.
fn congestion_bits(frame: &[u8]) -> u8 {
    let (ethernet, packet) = Ethernet::split(frame).unwrap();
    ip::find_tcp(ethernet.ethertype, packet).unwrap().ecn.0
}

fn parse(frame: &[u8]) -> Segment<'_> {
    let (ethernet, packet) = Ethernet::split(frame).unwrap();
    assert_eq!((ethernet.source, ethernet.destination), (GUEST_MAC, PEER_MAC));
    let located = ip::find_tcp(ethernet.ethertype, packet).unwrap();
    assert!(segment::checksum_is_right(located.source, located.destination, located.tcp));
    Segment::parse(located.tcp, &crate::work::Steps::default()).unwrap()
}

//! SYN-RECEIVED of a listener: a small entry in the SYN cache (RFC 4987, 3.2) instead of a whole block.
//!
//! It holds what the SYN said and no payload memory. When the handshake completes it becomes a block in ESTABLISHED,
//! and the segment that completed it is processed as any other.
//!
//! An entry ([`HalfOpen`]) is [`ENTRY_BYTES`] long, because a flood of SYNs fills whatever there is. What follows from
//! something else is not in it: our ISS and the offset of our timestamps are keyed hashes of the 4-tuple (and of the clock
//! when the SYN came), our port and the MTU are the listener's, our station is its context's. Unpacked, with all that, it is
//! an [`Opening`]; a SYN cookie ([`crate::tcp::syn_cookie`]) is read into the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toe_abi::{Endpoint, Mac};

use crate::seq::{Position, Seq};
use crate::store::slab::Slot;
use crate::tcp::bugs;
use crate::tcp::receive::Receiver;
use crate::tcp::tcb::{Agreed, CHALLENGES, Config, Link, State, Store, Tcb, Tuple, mss_of};
use crate::time::{Duration, Instant};
use crate::wire::frame::Headers;
use crate::wire::options::{Cookie, Options, Timestamps};
use crate::wire::segment::{self, Flags, Segment};

/// An entry, packed.
#[derive(Clone, Copy, Debug)]
pub struct HalfOpen {
    /// This end's address; IPv4 as its IPv4-mapped IPv6 address.
    local: [u8; 16],
    remote: [u8; 16],
    remote_port: u16,
    /// The listener's place.
    listener: u16,
    /// The clock of RFC 6528 when the SYN came, in units of 4 microseconds.
    clock: u32,
    /// The peer's SYN's number.
    irs: u32,
    /// TS.Recent.
    timestamp: u32,
    /// The place of the TIME-WAIT entry that this SYN would take over.
    time_wait: u32,
    remote_mac: Mac,
    /// The peer's MSS; zero if it said none.
    mss: u16,
    /// The window that the SYN-ACK offers: what pages could be had for when the SYN came.
    window: u16,
    /// The low four: timestamps, SACK, ECN, and a Fast Open cookie is to be told; then challenges left, the peer's window
    /// shift ([`NO_SHIFT`]: no scaling), and how often the SYN-ACK was sent again.
    bits: u16,
}

/// Bytes of an entry. Its place in the slab has eight more, its place in the table and its timer are counted there.
pub const ENTRY_BYTES: usize = 64;
const _: () = assert!(size_of::<HalfOpen>() == ENTRY_BYTES);

const TIMESTAMPS: u16 = 1;
const SACK: u16 = 2;
const ECN: u16 = 4;
const FAST_OPEN: u16 = 8;
const CHALLENGES_AT: u32 = 4;
const SHIFT_AT: u32 = 8;
const RETRIES_AT: u32 = 12;
const NO_SHIFT: u16 = 15;
const NOBODY: u32 = u32::MAX;
const _: () = assert!(CHALLENGES <= 15);

/// Microseconds of a tick of RFC 6528's clock.
const CLOCK_US: u64 = 4;

/// RFC 6528's M: a clock of 4 microseconds.
pub fn clock(now: Instant) -> u32 {
    (now.as_us() / CLOCK_US) as u32
}

/// Whether an address can be told from its IPv4-mapped form: no packet has such an address (RFC 5156, 2.2).
pub fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(a) if a.to_ipv4_mapped().is_some())
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

fn address(octets: [u8; 16]) -> IpAddr {
    let bits = u128::from_be_bytes(octets);
    // RFC 4291, 2.5.5.2.
    if bits >> 32 == 0xffff { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
}

/// What an entry does not hold, because it follows from other things.
#[derive(Clone, Copy, Debug)]
pub struct Derived {
    /// Our SYN's number.
    pub iss: Seq,
    /// What is added to our timestamp clock.
    pub timestamp_offset: u32,
    /// Our station.
    pub local_mac: Mac,
    /// The MTU of the guest's interface.
    pub mtu: u32,
    /// A Fast Open cookie for the client.
    pub cookie: Option<Cookie>,
}

impl HalfOpen {
    /// An entry at rest.
    pub fn vacant() -> Self {
        Self {
            local: [0; 16],
            remote: [0; 16],
            remote_port: 0,
            listener: 0,
            clock: 0,
            irs: 0,
            timestamp: 0,
            time_wait: NOBODY,
            remote_mac: Mac::default(),
            mss: 0,
            window: 0,
            bits: 0,
        }
    }

    /// Of a SYN that came now, for a listener; it would take over a TIME-WAIT entry.
    pub fn new(opening: &Opening, listener: Slot, time_wait: Option<Slot>, now: Instant) -> Self {
        let Opening { tuple, link, irs, agreed, peer_mss, peer_shift, timestamp, window, cookie, .. } = *opening;
        debug_assert!(listener <= u16::MAX.into());
        let flag = |is: bool, bit: u16| if is { bit } else { 0 };
        let shift = if agreed.window_scale { u16::from(peer_shift.min(14)) } else { NO_SHIFT };
        Self {
            local: octets(tuple.local.ip),
            remote: octets(tuple.remote.ip),
            remote_port: tuple.remote.port,
            listener: listener as u16,
            clock: clock(now),
            irs: irs.0,
            timestamp,
            time_wait: time_wait.unwrap_or(NOBODY),
            remote_mac: link.remote,
            mss: peer_mss.unwrap_or(0),
            window,
            bits: flag(agreed.timestamps, TIMESTAMPS)
                | flag(agreed.sack, SACK)
                | flag(agreed.ecn, ECN)
                | flag(cookie.is_some(), FAST_OPEN)
                | (CHALLENGES as u16) << CHALLENGES_AT
                | shift << SHIFT_AT,
        }
    }

    /// The listener's place.
    pub fn listener(&self) -> Slot {
        self.listener.into()
    }

    /// The place of the TIME-WAIT entry that it would take over.
    pub fn time_wait(&self) -> Option<Slot> {
        (self.time_wait != NOBODY).then_some(self.time_wait)
    }

    /// RFC 6528's clock when the SYN came.
    pub fn clock(&self) -> u32 {
        self.clock
    }

    /// Whether the client is to be told a Fast Open cookie.
    pub fn tells_cookie(&self) -> bool {
        self.bits & FAST_OPEN != 0
    }

    /// Its ends; the port is the listener's.
    pub fn tuple(&self, port: u16) -> Tuple {
        Tuple {
            local: Endpoint::new(address(self.local), port),
            remote: Endpoint::new(address(self.remote), self.remote_port),
        }
    }

    /// How often the SYN-ACK was sent again.
    pub fn retries(&self) -> u32 {
        (self.bits >> RETRIES_AT).into()
    }

    /// The SYN-ACK is sent again.
    pub fn send_again(&mut self) {
        debug_assert!(self.retries() < 15);
        self.bits = self.bits.saturating_add(1 << RETRIES_AT);
    }

    /// ECN is not asked for any more.
    pub fn without_ecn(&mut self) {
        self.bits &= !ECN;
    }

    /// Whether a challenge ACK may be sent; it is one less then.
    pub fn may_challenge(&mut self) -> bool {
        let left = self.bits >> CHALLENGES_AT & 15 > 0;
        if left {
            self.bits -= 1 << CHALLENGES_AT;
        }
        left
    }

    /// How long ago its SYN came, in steps of 4 microseconds.
    pub fn age(&self, now: Instant) -> Duration {
        Duration::from_us(u64::from(clock(now).wrapping_sub(self.clock)) * CLOCK_US)
    }

    /// Unpacked.
    pub fn opening(&self, tuple: Tuple, derived: Derived) -> Opening {
        let Derived { iss, timestamp_offset, local_mac, mtu, cookie } = derived;
        let shift = self.bits >> SHIFT_AT & 15;
        Opening {
            tuple,
            link: Link { local: local_mac, remote: self.remote_mac },
            iss,
            irs: Seq(self.irs),
            agreed: Agreed {
                timestamps: self.bits & TIMESTAMPS != 0,
                sack: self.bits & SACK != 0,
                window_scale: shift != NO_SHIFT,
                ecn: self.bits & ECN != 0,
            },
            peer_mss: (self.mss != 0).then_some(self.mss),
            peer_shift: if shift == NO_SHIFT { 0 } else { shift as u8 },
            timestamp: self.timestamp,
            timestamp_offset,
            window: self.window,
            mtu,
            cookie: cookie.filter(|_| self.retries() == 0),
            transmissions: self.retries() + 1,
        }
    }
}

/// All that is known of a connection whose SYN has come and whose handshake is not complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening {
    /// Its ends.
    pub tuple: Tuple,
    /// Its stations: the peer's is where the SYN came from.
    pub link: Link,
    /// Our SYN's number.
    pub iss: Seq,
    /// The peer's SYN's number.
    pub irs: Seq,
    /// What the peer's SYN offered and we take.
    pub agreed: Agreed,
    /// The peer's MSS.
    pub peer_mss: Option<u16>,
    /// The peer's window shift.
    pub peer_shift: u8,
    /// TS.Recent.
    pub timestamp: u32,
    /// What is added to our timestamp clock.
    pub timestamp_offset: u32,
    /// The window that the SYN-ACK offers.
    pub window: u16,
    /// The MTU of the guest's interface.
    pub mtu: u32,
    /// A Fast Open cookie for the client; the first SYN-ACK has it.
    pub cookie: Option<Cookie>,
    /// How often the SYN-ACK was sent.
    pub transmissions: u32,
}

/// What a segment does to an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing.
    Ignore,
    /// The SYN came again: so does the SYN-ACK.
    SynAck,
    /// `<SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>`.
    Challenge,
    /// `<SEQ=SEG.ACK><CTL=RST>`.
    Reset,
    /// The entry is over.
    Forget,
    /// The handshake is complete.
    Establish,
}

/// RFC 6298's first timeout; doubled for each SYN-ACK.
pub const SYN_ACK_TIMEOUT: Duration = Duration::from_s(1);

impl Opening {
    /// RFC 9293, 3.10.7.4, for SYN-RECEIVED that came from LISTEN (MUST-11).
    //= docs/specs/rfc9293.txt#section-3.5
    //# Note that a TCP implementation MUST keep track of whether a connection has reached SYN-RECEIVED state as the
    //# result of a passive OPEN or an active OPEN (MUST-11).
    pub fn arrives(&self, segment: &Segment<'_>) -> Outcome {
        let flags = segment.flags;
        let nxt = Position::initial(self.irs) + 1;
        let seq = segment.seq.near(nxt);
        // First, the sequence number: against the window that the SYN-ACK offered.
        let window = u64::from(self.window);
        let length = u64::from(segment.sequence_length());
        let inside = |p: Position| nxt <= p && p < nxt + window;
        if segment.seq == self.irs && flags.has(Flags::SYN) && !flags.has(Flags::RST) && !flags.has(Flags::ACK) {
            return Outcome::SynAck;
        }
        let old = self.agreed.timestamps
            && segment.options.timestamps.is_some_and(|t| (t.value.wrapping_sub(self.timestamp) as i32) < 0);
        if !(inside(seq) || (length > 0 && inside(seq + (length - 1)))) || (old && !flags.has(Flags::RST)) {
            return if flags.has(Flags::RST) { Outcome::Ignore } else { Outcome::Challenge };
        }
        // Second, the RST bit (with RFC 5961, section 3).
        if flags.has(Flags::RST) {
            return if seq == nxt { Outcome::Forget } else { Outcome::Challenge };
        }
        // Fourth, the SYN bit: back to LISTEN.
        //= docs/specs/rfc9293.txt#section-3.10.7.4
        //# If the connection was initiated with a passive OPEN, then return this connection to the LISTEN state and
        //# return.
        if flags.has(Flags::SYN) {
            return Outcome::Forget;
        }
        // Fifth, the ACK field.
        if !flags.has(Flags::ACK) {
            return Outcome::Ignore;
        }
        if segment.ack != self.iss + 1 { Outcome::Reset } else { Outcome::Establish }
    }

    fn shift(&self, config: &Config) -> Option<u8> {
        self.agreed.window_scale.then(|| Receiver::shift_for(config.receive_bytes_max))
    }

    /// TSval of a segment sent now.
    pub fn timestamp_value(&self, now: Instant) -> u32 {
        ((now.as_us() / 1000) as u32).wrapping_add(self.timestamp_offset)
    }

    /// The SYN-ACK.
    pub fn syn_ack(&self, config: &Config, now: Instant) -> Headers {
        self.syn_ack_at(config, self.timestamp_value(now))
    }

    /// The SYN-ACK, with that TSval.
    pub fn syn_ack_at(&self, config: &Config, value: u32) -> Headers {
        let options = Options {
            fast_open: self.cookie,
            //= docs/specs/rfc9293.txt#section-3.7.1
            //# TCP endpoints MUST implement both sending and receiving the MSS Option (MUST-14).
            //= docs/specs/rfc9293.txt#section-3.7.1
            //# TCP implementations SHOULD send an MSS Option in every SYN segment when its receive MSS differs from
            //# the default 536 for IPv4 or 1220 for IPv6 (SHLD-5)
            mss: Some(mss_of(self.mtu, self.tuple.local.ip) as u16),
            window_scale: self.shift(config),
            sack_permitted: self.agreed.sack,
            timestamps: self.agreed.timestamps.then_some(Timestamps { value, echo: self.timestamp }),
            ..Options::default()
        };
        let echo = if self.agreed.ecn { Flags::ECE } else { Flags(0) };
        self.headers(self.iss, Flags::SYN | Flags::ACK | echo, config, options)
    }

    /// The answer to what is not acceptable.
    pub fn challenge(&self, config: &Config, now: Instant) -> Headers {
        let value = self.timestamp_value(now);
        let timestamps = self.agreed.timestamps.then_some(Timestamps { value, echo: self.timestamp });
        self.headers(self.iss + 1, Flags::ACK, config, Options { timestamps, ..Options::default() })
    }

    fn headers(&self, seq: Seq, flags: Flags, config: &Config, options: Options) -> Headers {
        let shift = if flags.has(Flags::SYN) { 0 } else { self.shift(config).unwrap_or(0) };
        let tcp = segment::Header {
            source_port: self.tuple.local.port,
            destination_port: self.tuple.remote.port,
            seq,
            ack: self.irs + 1,
            flags,
            window: self.window >> shift,
            urgent: None,
            options,
        };
        self.tuple.headers(self.link, &config.settings, tcp)
    }

    /// Makes `t` the connection that this was the beginning of, in ESTABLISHED. `took`: from SYN-ACK to ACK, if that is
    /// known.
    pub fn establish(&self, t: &mut Tcb, store: &mut Store, nodelay: bool, took: Option<Duration>, now: Instant) {
        self.open(t, store, nodelay, now);
        t.established(store, now);
        if let Some(took) = took {
            t.rtt.measured(now, took);
        }
        debug_assert!(t.state == State::Established);
    }

    /// Makes `t` the connection that this is the beginning of, up to its state.
    pub fn open(&self, t: &mut Tcb, store: &mut Store, nodelay: bool, now: Instant) {
        t.begin(self.tuple, self.link, self.mtu, store, now);
        t.agreed = self.agreed;
        t.timestamp_offset = self.timestamp_offset;
        let iss = Position::initial(self.iss);
        t.agree_mss(bugs::mss(&store.faults, self.peer_mss));
        let mss = t.send.mss;
        t.send.open(&mut store.send, iss, mss, store.config.send_bytes_max, nodelay);
        t.send.records.open(&mut store.records);
        (t.send.una, t.send.nxt, t.send.max) = (iss + 1, iss + 1, iss + 1);
        t.send.shift = if self.agreed.window_scale { self.peer_shift.min(14) } else { 0 };
        bugs::window_scale(&store.faults, t);
        let shift = self.shift(&store.config).unwrap_or(0);
        let irs = Position::initial(self.irs);
        t.receive.open(&mut store.receive, irs, shift, mss, store.config.receive_bytes_max, now);
        t.receive.timestamp = self.timestamp;
        t.receive.timestamp_at = now;
        // The SYN-ACK has offered this much; all of it that pages can be had for is granted now.
        t.receive.advertise(&mut store.receive);
        t.syn_transmissions = self.transmissions;
    }
}

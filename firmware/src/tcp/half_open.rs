//! SYN-RECEIVED of a listener: a small entry in the SYN cache (RFC 4987, 3.2) instead of a whole block.
//!
//! It holds what the SYN said and no payload memory. When the handshake completes it becomes a block in ESTABLISHED,
//! and the segment that completed it is processed as any other.

use toe_abi::Mac;

use crate::seq::{Position, Seq};
use crate::store::slab::Slot;
use crate::tcp::receive::Receiver;
use crate::tcp::tcb::{Agreed, Config, Link, State, Store, Tcb, Tuple, mss_of};
use crate::time::{Duration, Instant};
use crate::wire::frame::Headers;
use crate::wire::options::{Cookie, Options, Timestamps};
use crate::wire::segment::{self, Flags, Segment};

/// An entry.
#[derive(Clone, Copy, Debug)]
pub struct HalfOpen {
    /// Its ends.
    pub tuple: Tuple,
    /// Its stations: the peer's is where the SYN came from.
    pub link: Link,
    /// The listener's place.
    pub listener: Slot,
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
    /// The window that the SYN-ACK offers: what pages could be had for when the SYN came.
    pub window: u16,
    /// The MTU of the guest's interface.
    pub mtu: u32,
    /// The id of the TIME-WAIT entry that this SYN would take over; zero if there is none.
    pub time_wait: u64,
    /// A Fast Open cookie for the client; the first SYN-ACK has it.
    pub cookie: Option<Cookie>,
    /// How often the SYN-ACK was sent.
    pub transmissions: u32,
    /// Challenge ACKs that may still be sent.
    pub challenges_left: u32,
    /// When it was first sent.
    pub sent_at: Instant,
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

impl HalfOpen {
    /// An entry at rest.
    pub fn vacant(tuple: Tuple) -> Self {
        Self {
            tuple,
            link: Link { local: Mac::default(), remote: Mac::default() },
            listener: 0,
            iss: Seq(0),
            irs: Seq(0),
            agreed: Agreed::default(),
            peer_mss: None,
            peer_shift: 0,
            timestamp: 0,
            timestamp_offset: 0,
            window: 0,
            mtu: 0,
            time_wait: 0,
            cookie: None,
            transmissions: 0,
            challenges_left: 0,
            sent_at: Instant::default(),
        }
    }

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

    /// The SYN-ACK.
    pub fn syn_ack(&self, config: &Config, now: Instant) -> Headers {
        let value = ((now.as_us() / 1000) as u32).wrapping_add(self.timestamp_offset);
        let options = Options {
            fast_open: self.cookie.filter(|_| self.transmissions <= 1),
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
        let value = ((now.as_us() / 1000) as u32).wrapping_add(self.timestamp_offset);
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

    /// Makes `t` the connection that this entry was the beginning of, in ESTABLISHED.
    pub fn establish(&self, t: &mut Tcb, store: &mut Store, nodelay: bool, now: Instant) {
        self.open(t, store, nodelay, now);
        t.established(store, now);
        if self.transmissions == 1 {
            t.rtt.measured(now, now.since(self.sent_at));
        }
        debug_assert!(t.state == State::Established);
    }

    /// Makes `t` the connection that this entry is the beginning of, up to its state.
    pub fn open(&self, t: &mut Tcb, store: &mut Store, nodelay: bool, now: Instant) {
        t.begin(self.tuple, self.link, self.mtu, store, now);
        t.agreed = self.agreed;
        t.timestamp_offset = self.timestamp_offset;
        let iss = Position::initial(self.iss);
        t.agree_mss(self.peer_mss);
        let mss = t.send.mss;
        t.send.open(&mut store.send, iss, mss, store.config.send_bytes_max, nodelay);
        t.send.records.open(&mut store.records);
        (t.send.una, t.send.nxt, t.send.max) = (iss + 1, iss + 1, iss + 1);
        t.send.shift = if self.agreed.window_scale { self.peer_shift.min(14) } else { 0 };
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

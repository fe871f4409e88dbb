//! The transmission control block: everything about one connection.
//!
//! A connection has two lives. On the wire it goes through TCP's states; towards the guest it is an id that exists
//! until RELEASE. Either may end first, so a block in [`State::Closed`] may still hold data that the guest has not
//! fetched, and one that the guest has released may still be sending. It is free when both are over.

use std::net::IpAddr;

use toe_abi::{Endpoint, Mac, Reason, state};

use crate::counters::{Counter, Counters};
use crate::fault::Faults;
use crate::profile::{CongestionControl, SynCookies, Tcp};
use crate::seq::Position;
use crate::store::gauge::Gauge;
use crate::store::pages::Pages;
use crate::store::slab::Slot;
use crate::tcp::ecn::EcnPolicy;
use crate::tcp::fast_open::FastOpen;
use crate::tcp::notice::Notice;
use crate::tcp::path_mtu::PathMtu;
use crate::tcp::receive::{AckNeed, Receiver};
use crate::tcp::records::Records;
use crate::tcp::recovery::{Around, Recovery};
use crate::tcp::ring::SharedRings;
use crate::tcp::rtt::RttEstimator;
use crate::tcp::send::Sender;
use crate::tcp::settings::Settings;
use crate::tcp::user_timeout::UserTimeout;
use crate::time::{Duration, Instant};
use crate::wire::frame::Headers;
use crate::wire::{ip, segment};
use crate::work::Steps;

/// The two ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuple {
    /// This end.
    pub local: Endpoint,
    /// The other.
    pub remote: Endpoint,
}

impl Tuple {
    /// The headers of a segment between these ends.
    //= docs/specs/rfc9293.txt#section-3.9.1.1
    //# At all other times, a previous segment has either been sent or received on this connection, and TCP
    //# implementations MUST use the same local address that was used in those previous segments (MUST-45).
    //= docs/specs/rfc9293.txt#section-3.9.1.9
    //# TCP implementations SHOULD pass the current Differentiated Services field value without change to the IP
    //# layer, when it sends segments on the connection (SHLD-22).
    pub fn headers(&self, link: Link, settings: &Settings, tcp: segment::Header) -> Headers {
        let ip = ip::Header {
            source: self.local.ip,
            destination: self.remote.ip,
            hop_limit: settings.hop_limit,
            traffic_class: settings.traffic_class,
        };
        Headers { source: link.local, destination: link.remote, ip, tcp }
    }

    /// What it is hashed by.
    pub fn words(&self) -> [u64; 5] {
        let [l0, l1] = address_words(self.local.ip);
        let [r0, r1] = address_words(self.remote.ip);
        [l0, l1, r0, r1, u64::from(self.local.port) << 16 | u64::from(self.remote.port)]
    }
}

/// An address as words to be hashed: IPv4 as its IPv4-mapped IPv6 address.
pub fn address_words(ip: IpAddr) -> [u64; 2] {
    match ip {
        IpAddr::V4(a) => [0, 0xffff << 32 | u64::from(a.to_bits())],
        IpAddr::V6(a) => [(a.to_bits() >> 64) as u64, a.to_bits() as u64],
    }
}

/// The stations between which frames go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The guest's.
    pub local: Mac,
    /// The next hop's.
    pub remote: Mac,
}

/// The states of RFC 9293, 3.3.2, that a block can be in: LISTEN, a listener's SYN-RECEIVED and TIME-WAIT have
/// smaller places of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// A SYN is on its way.
    SynSent,
    /// SYNs have crossed (simultaneous open).
    SynReceived,
    /// Open.
    Established,
    /// Our FIN is sent or due.
    FinWait1,
    /// Our FIN is acknowledged.
    FinWait2,
    /// The peer's FIN was received.
    CloseWait,
    /// Both FINs crossed; ours is not acknowledged.
    Closing,
    /// The peer's FIN came first; ours is not acknowledged.
    LastAck,
    /// The peer may not have our last acknowledgement: to be moved to a TIME-WAIT entry.
    TimeWait,
    /// Over, on the wire.
    Closed,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
        Self::Closed,
    ];

    /// Linux's number of the state, as `tcp_info` has it.
    pub fn linux(self) -> u8 {
        match self {
            Self::Established => 1,
            Self::SynSent => 2,
            Self::SynReceived => 3,
            Self::FinWait1 => 4,
            Self::FinWait2 => 5,
            Self::TimeWait => 6,
            Self::Closed => 7,
            Self::CloseWait => 8,
            Self::LastAck => 9,
            Self::Closing => 11,
        }
    }

    /// Whether both SYNs were exchanged and the connection is not over.
    pub fn is_synchronized(self) -> bool {
        !matches!(self, Self::SynSent | Self::SynReceived | Self::Closed)
    }
}

/// What the two SYNs agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Agreed {
    /// RFC 7323 timestamps.
    pub timestamps: bool,
    /// RFC 2018.
    pub sack: bool,
    /// RFC 7323 window scaling.
    pub window_scale: bool,
    /// RFC 3168.
    pub ecn: bool,
}

/// The connection as its program sees it.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// The context that owns it; `None` after RELEASE.
    pub context: Option<Slot>,
    /// The cookie of its CONNECT; zero for a listener's.
    pub cookie: u64,
    /// The id of its listener; zero for a CONNECT's.
    pub listener: u64,
    /// See `toe_abi::state`.
    pub bits: u32,
    /// Those of which the guest knows.
    pub seen: u32,
    /// Those that were told and perhaps lost on the way.
    pub told: u32,
    /// With ABORTED: why.
    pub reason: Reason,
    /// The guest can wait for what no program sleeps for (`flags::PATIENT`).
    pub patient: bool,
    /// A SEND_CREDIT is due.
    pub credit_due: bool,
    /// The same, and it can wait for other news.
    pub credit_later: bool,
    /// How much of the sent stream the guest knows that the card holds.
    pub held_told: Position,
    /// The limit that was last told.
    pub limit_told: Position,
    /// Received data up to here was sent to the guest, and is not to be sent again yet.
    pub delivered: Position,
    /// The same, and never going back: up to here it may be on its way, even if it was told to begin again.
    pub furthest: Position,
    /// The first position that the guest cannot take.
    pub limit: Position,
    /// What of `outstanding` the context's count has.
    pub outstanding: u64,
    /// Times in a row that it was told again without an answer.
    pub repeats: u32,
    /// When to tell again.
    pub repeat_at: Option<Instant>,
    /// What it should know beside the bits.
    pub notice: Notice,
    /// Where its bytes lie in the guest's own memory.
    pub rings: SharedRings,
}

/// What is fixed for all connections of a card.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The profile's parameters.
    pub delayed_ack: Duration,
    /// Segments that are acknowledged at once at the beginning.
    pub quick_acks: u32,
    /// R2: give up after this time without progress.
    pub give_up: Duration,
    /// The same for a SYN.
    pub give_up_syn: Duration,
    /// Limit of an abandoned FIN-WAIT-2.
    pub fin_wait_2: Duration,
    /// No progress for so long, and it may be evicted.
    pub stalled: Duration,
    /// Twice the maximum segment lifetime.
    pub time_wait: Duration,
    /// Least part of the retransmission timeout.
    pub rto_floor: Duration,
    /// Largest retransmission timeout.
    pub rto_max: Duration,
    /// Initial window in segments.
    pub initial_window: u32,
    /// When FINs cross, the acknowledgement of the peer's repeats ours.
    pub repeat_fin: bool,
    /// When a SYN is answered with a cookie.
    pub syn_cookies: SynCookies,
    /// Retransmissions of a SYN-ACK.
    pub syn_ack_retries: u32,
    /// Fast Open is allowed, and of a listener so many may be pending.
    pub fast_open: Option<u32>,
    /// What new connections are set to.
    pub settings: Settings,
    /// The most send buffer of a connection, in bytes.
    pub send_bytes_max: u64,
    /// The most receive buffer of a connection, in bytes.
    pub receive_bytes_max: u64,
}

impl Config {
    /// From a profile.
    pub fn new(tcp: &Tcp, send_bytes_max: u64, receive_bytes_max: u64) -> Self {
        let ms = |ms: u32| Duration::from_ms(ms.into());
        Self {
            delayed_ack: ms(tcp.delayed_ack_ms),
            quick_acks: tcp.quick_acks,
            give_up: ms(tcp.give_up_ms),
            give_up_syn: ms(tcp.give_up_syn_ms),
            fin_wait_2: ms(tcp.fin_wait_2_ms),
            stalled: ms(tcp.stalled_ms),
            time_wait: ms(2 * tcp.msl_ms),
            rto_floor: ms(tcp.rto_min_ms),
            rto_max: ms(tcp.rto_max_ms),
            initial_window: tcp.initial_window_segments,
            repeat_fin: tcp.repeat_fin,
            syn_cookies: tcp.syn_cookies,
            syn_ack_retries: tcp.syn_ack_retries,
            fast_open: tcp.fast_open.then_some(tcp.fast_open_pending),
            settings: Settings::new(tcp.congestion, tcp.ecn),
            send_bytes_max,
            receive_bytes_max,
        }
    }
}

/// The memory that connections share.
#[derive(Debug)]
pub struct Store {
    /// Data to send.
    pub send: Pages,
    /// Data received.
    pub receive: Pages,
    /// Segments in flight.
    pub records: Records,
    /// How many stretches of data lie beyond gaps.
    pub ranges: Gauge,
    /// Counters.
    pub counters: Counters,
    /// What is fixed.
    pub config: Config,
    /// What is counted of the work that none of the pools counts.
    pub steps: Steps,
    /// Segments may go the short way ([`crate::tcp::prediction`]).
    pub predicts: bool,
    /// Faults on demand.
    pub faults: Faults,
}

/// Something to be sent out of turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Nothing.
    None,
    /// The SYN or the SYN-ACK, depending on the state.
    Syn,
    /// One octet beyond the window (RFC 9293, 3.8.6.1).
    WindowProbe,
    /// Something at the tail (RFC 8985, 7).
    TailProbe,
    /// A keep-alive (RFC 9293, 3.8.4).
    KeepAlive,
    /// Our FIN once more, because it carries the acknowledgement of the peer's that crossed it.
    FinAgain,
}

/// Figures for INFO.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Segments received.
    pub segments_in: u64,
    /// Segments sent.
    pub segments_out: u64,
    /// Of these, sent again.
    pub retransmits: u64,
    /// Bytes of text sent, again or not.
    pub bytes_sent: u64,
}

/// The block.
#[derive(Debug)]
pub struct Tcb {
    /// Its state.
    pub state: State,
    /// Its ends.
    pub tuple: Tuple,
    /// Its stations.
    pub link: Link,
    /// The sending half.
    pub send: Sender,
    /// The receiving half.
    pub receive: Receiver,
    /// Round trips.
    pub rtt: RttEstimator,
    /// Loss and congestion.
    pub recovery: Recovery,
    /// What the SYNs agreed on.
    pub agreed: Agreed,
    /// What is added to the clock in our timestamps.
    pub timestamp_offset: u32,
    /// The MTU of the guest's interface.
    pub mtu: u32,
    /// The MTU of the path.
    pub path: PathMtu,
    /// SND.UNA when ICMP last said that the peer cannot be reached.
    pub unreachable_at: Option<Position>,
    /// Something to be sent out of turn.
    pub due: Due,
    /// When the retransmission timer was last started.
    pub timer_from: Instant,
    /// When the peer last acknowledged something new, or something was first sent into silence: R2 counts from here.
    pub progress_at: Instant,
    /// What the program has set.
    pub settings: Settings,
    /// RFC 5482's option.
    pub user_timeout: UserTimeout,
    /// Fast Open.
    pub fast_open: FastOpen,
    /// When the peer was last heard of.
    pub heard_at: Instant,
    /// Keep-alives sent since.
    pub keep_alives: u32,
    /// When FIN-WAIT-2 is given up.
    pub linger_until: Option<Instant>,
    /// Tokens left for challenge ACKs, and when they were last filled up.
    pub challenges: u32,
    /// When `challenges` was last filled up.
    pub challenges_at: Instant,
    /// Towards the guest.
    pub guest: Guest,
    /// Figures.
    pub figures: Figures,
    /// Whether the table has it.
    pub in_table: bool,
    /// SYN (or SYN-ACK) sent how often.
    pub syn_transmissions: u32,
    /// A RST with this number is to be sent; the connection is over.
    pub reset_due: bool,
    /// The context for which its place and its memory count: its owner, and after RELEASE the one that it had.
    pub charged: Option<Slot>,
    /// Its place among those that may have to give way.
    pub order: Order,
    /// See [`crate::tcp::seal`].
    pub seal: u64,
}

/// A connection's place in the orders of `engine::evict`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    /// Its [`Tcb::progress_mark`] when it last moved on.
    pub mark: u64,
    /// When it was last put at the end.
    pub moved_at: Instant,
    /// The class of what it holds beyond a gap.
    pub class: u8,
}

/// Challenge ACKs that a connection may send in [`CHALLENGE_PERIOD`] (RFC 5961, section 7; of each connection's own, so
/// that no other can see how many are left).
//= docs/specs/rfc5961.txt#section-7
//# in any 5 second window, no more than 10 challenge ACKs should be sent.
pub const CHALLENGES: u32 = 10;

/// See [`CHALLENGES`].
pub const CHALLENGE_PERIOD: Duration = Duration::from_s(5);

/// Bytes of the timestamps option, padded.
pub const TIMESTAMP_BYTES: u32 = 12;

/// The first congestion window (RFC 6928): by the profile's segments, and no more than the RFC's bytes.
pub fn initial_window(segments: u32, mss: u32) -> u32 {
    segments * mss.min(65_535)
}

/// The largest segment (text) of an interface: its MTU less the fixed headers.
//= docs/specs/rfc9293.txt#section-3.7.1
//# The MSS value to be sent in an MSS Option must be less than or equal to: MMS_R - 20 where MMS_R is the maximum
//# size for a transport-layer message that can be received (and reassembled at the IP layer) (MUST-67).
pub fn mss_of(mtu: u32, local: IpAddr) -> u32 {
    let headers = match local {
        IpAddr::V4(_) => ip::V4_HEADER_BYTES,
        IpAddr::V6(_) => ip::V6_HEADER_BYTES,
    } + segment::TCP_HEADER_BYTES;
    mtu.clamp(MTU_MIN, MTU_MAX) - headers as u32
}

/// The smallest MTU that the card believes (RFC 791: every module must forward 68, but no room for text is left).
const MTU_MIN: u32 = 256;
const MTU_MAX: u32 = 65_535;

/// RFC 9293, 3.7.1: the peer's MSS if it said none.
//= docs/specs/rfc9293.txt#section-3.7.1
//# If an MSS Option is not received at connection setup, TCP implementations MUST assume a default send MSS of 536
//# (576 - 40) for IPv4 or 1220 (1280 - 60) for IPv6 (MUST-15).
pub fn default_mss(local: IpAddr) -> u16 {
    match local {
        IpAddr::V4(_) => 536,
        IpAddr::V6(_) => 1220,
    }
}

/// The least text per segment: an absurd MSS must not make the card send a frame per octet.
pub const SEND_MSS_MIN: u32 = 64;

impl Tcb {
    /// A block at rest.
    pub fn vacant(send: Sender, receive: Receiver, config: &Config) -> Self {
        let zero = Endpoint::new(IpAddr::from([0, 0, 0, 0]), 0);
        Self {
            state: State::Closed,
            tuple: Tuple { local: zero, remote: zero },
            link: Link { local: Mac::default(), remote: Mac::default() },
            send,
            receive,
            rtt: RttEstimator::new(config.rto_floor, config.rto_max),
            recovery: Recovery::new(config.settings.congestion, Position::default(), 0),
            agreed: Agreed::default(),
            timestamp_offset: 0,
            mtu: 0,
            path: PathMtu::new(zero.ip, 0),
            unreachable_at: None,
            due: Due::None,
            timer_from: Instant::default(),
            progress_at: Instant::default(),
            settings: config.settings,
            user_timeout: UserTimeout::default(),
            fast_open: FastOpen::default(),
            heard_at: Instant::default(),
            keep_alives: 0,
            linger_until: None,
            challenges: 0,
            challenges_at: Instant::default(),
            guest: Guest::new(None, 0, 0),
            figures: Figures::default(),
            in_table: false,
            syn_transmissions: 0,
            reset_due: false,
            charged: None,
            order: Order::default(),
            seal: 0,
        }
    }

    /// Begins a life; the halves are opened by the caller.
    pub fn begin(&mut self, tuple: Tuple, link: Link, mtu: u32, store: &Store, now: Instant) {
        let Self {
            state,
            tuple: my_tuple,
            link: my_link,
            send: _,
            receive,
            rtt,
            recovery,
            agreed,
            timestamp_offset,
            mtu: my_mtu,
            path,
            unreachable_at,
            due,
            timer_from,
            progress_at,
            settings,
            user_timeout,
            fast_open,
            heard_at,
            keep_alives,
            linger_until,
            challenges,
            challenges_at,
            guest: _,
            figures,
            in_table: _,
            syn_transmissions,
            reset_due,
            charged: _,
            order: _,
            seal: _,
        } = self;
        (*my_tuple, *my_link, *my_mtu) = (tuple, link, mtu);
        *state = State::SynSent;
        *path = PathMtu::new(tuple.local.ip, mtu);
        *unreachable_at = None;
        *rtt = RttEstimator::new(store.config.rto_floor, store.config.rto_max);
        // Until the handshake ends; only what a SYN may carry is sent by this.
        *recovery = Recovery::new(store.config.settings.congestion, Position::default(), 0);
        *agreed = Agreed::default();
        *timestamp_offset = 0;
        *due = Due::None;
        (*timer_from, *progress_at, *challenges_at) = (now, now, now);
        *settings = store.config.settings;
        *user_timeout = UserTimeout::default();
        *fast_open = FastOpen::default();
        (*heard_at, *keep_alives) = (now, 0);
        *linger_until = None;
        *challenges = CHALLENGES;
        *figures = Figures::default();
        *syn_transmissions = 0;
        *reset_due = false;
        receive.ack = AckNeed::None;
        receive.quick_acks = store.config.quick_acks;
        receive.fin = None;
    }

    /// What loss recovery works on, beside itself.
    pub fn around<'a>(&'a mut self, store: &'a mut Store) -> (&'a mut Recovery, Around<'a>) {
        (
            &mut self.recovery,
            Around {
                sender: &mut self.send,
                records: &mut store.records,
                rtt: &mut self.rtt,
                counters: &mut store.counters,
            },
        )
    }

    /// Whether our SYN asks for ECN.
    pub fn asks_for_ecn(&self) -> bool {
        match self.settings.ecn {
            EcnPolicy::Off => false,
            EcnPolicy::On => true,
            // It is of no use without.
            EcnPolicy::WhenAsked => self.settings.congestion == CongestionControl::Dctcp,
        }
    }

    /// Our timestamp clock: milliseconds and this connection's offset.
    pub fn timestamp(&self, now: Instant) -> u32 {
        (now.as_us() / 1000) as u32
    }

    /// TSval of a segment sent now.
    pub fn timestamp_value(&self, now: Instant) -> u32 {
        self.timestamp(now).wrapping_add(self.timestamp_offset)
    }

    /// Our MSS, as our SYN says it.
    //= docs/specs/rfc9293.txt#section-3.7.3
    //# As a result, when the effective MTU of an interface varies packet-to-packet, TCP implementations SHOULD use
    //# the smallest effective MTU of the interface to calculate the value to advertise in the MSS Option (SHLD-6).
    pub fn receive_mss(&self) -> u32 {
        mss_of(self.mtu, self.tuple.local.ip)
    }

    /// Takes the peer's MSS: what both allow, less the options of every segment (RFC 9293, 3.7.1, MUST-16).
    pub fn agree_mss(&mut self, peer: Option<u16>) {
        let peer = u32::from(peer.unwrap_or(default_mss(self.tuple.local.ip)));
        let options = if self.agreed.timestamps { TIMESTAMP_BYTES } else { 0 };
        //= docs/specs/rfc9293.txt#section-3.7.1
        //# The maximum size of a segment that a TCP endpoint really sends, the "effective send MSS", MUST be the
        //# smaller (MUST-16) of the send MSS (that reflects the available reassembly buffer size at the remote
        //# host, the EMTU_R [19]) and the largest transmission size permitted by the IP layer (EMTU_S [19])
        self.send.mss = peer.min(self.receive_mss()).max(SEND_MSS_MIN + options) - options;
        self.open_path();
    }

    /// Both SYNs are acknowledged. The window of the segment that did it is taken by the caller.
    pub fn established(&mut self, store: &mut Store, now: Instant) {
        store.counters.add(Counter::TcpEstablished);
        // A FIN that waited for the handshake may go now (RFC 9293, 3.10.4).
        self.state = if self.send.fin { State::FinWait1 } else { State::Established };
        self.due = Due::None;
        self.guest.bits |= state::ESTABLISHED;
        self.progress_at = now;
        self.timer_from = now;
        let window = if self.syn_transmissions > 1 {
            // RFC 6928, section 2: a lost SYN means one segment.
            self.rtt.syn_was_lost();
            self.send.mss
        } else {
            initial_window(store.config.initial_window, self.send.mss)
        };
        self.recovery = Recovery::new(self.settings.congestion, self.send.iss, window);
        (self.guest.delivered, self.guest.furthest) = (self.receive.nxt, self.receive.nxt);
    }

    /// The program (or its absence) lets the connection be reset: it is over at once, and a RST says so.
    pub fn abort(&mut self, store: &mut Store, reason: Reason) {
        self.reset_due |= self.state.is_synchronized() || self.state == State::SynReceived;
        store.counters.add(Counter::TcpAborted);
        self.end(reason);
    }

    /// The connection is broken: the guest is told why. What was received and not fetched is lost.
    //= docs/specs/rfc9293.txt#section-3.6
    //# If the local TCP connection is closed by the remote side due to a FIN or RST received from the remote side,
    //# then the local application MUST be informed whether it closed normally or was aborted (MUST-12).
    pub fn end(&mut self, reason: Reason) {
        self.state = State::Closed;
        if self.guest.bits & state::ABORTED == 0 {
            self.guest.bits |= state::ABORTED;
            self.guest.reason = reason;
        }
        self.quiet();
    }

    /// Over on the wire, in order or not: nothing is due any more.
    pub fn quiet(&mut self) {
        self.due = Due::None;
        self.receive.ack = AckNeed::None;
        self.linger_until = None;
        self.recovery.reorder_at = None;
        self.recovery.pacing.wake_at = None;
    }

    /// Gives its memory back.
    pub fn free(&mut self, store: &mut Store) {
        self.send.stream.close(&mut store.send);
        self.send.records.close(&mut store.records);
        self.receive.close(&mut store.receive, &mut store.ranges);
    }

    /// Gives its memory back by what the pools know of it; of its own numbers none is believed, and none is left. `slot` is its
    /// place.
    pub fn scrap(&mut self, slot: Slot, store: &mut Store) {
        self.send.scrap(slot, &mut store.send);
        self.send.records.close(&mut store.records);
        self.receive.scrap(slot, &mut store.receive, &mut store.ranges);
        let Guest { delivered, furthest, limit, limit_told, held_told, credit_due, credit_later, .. } = &mut self.guest;
        let zero = Position::default();
        (*delivered, *furthest, *limit, *limit_told, *held_told) = (zero, zero, zero, zero, zero);
        (*credit_due, *credit_later) = (false, false);
    }

    /// Whether the guest may not know yet that this is its connection: it broke before the guest has said anything of
    /// it. The answer to CONNECT may be lost, and the CONNECT that comes again must find this one and not open another.
    pub fn may_be_asked_for(&self) -> bool {
        let Guest { context, listener, bits, seen, .. } = self.guest;
        context.is_some() && listener == 0 && bits & state::ABORTED != 0 && seen & state::ABORTED == 0
    }

    /// Whether nothing keeps it any more.
    pub fn is_over(&self) -> bool {
        self.state == State::Closed && !self.in_table && !self.reset_due && self.guest.context.is_none()
    }

    /// Octets on their way to the guest: sent and not confirmed, be it once or again. A guest that has seen that the
    /// connection is broken holds none of them any more.
    pub fn outstanding(&self) -> u64 {
        if !self.receive.stream.is_open() || self.guest.seen & state::ABORTED != 0 {
            return 0;
        }
        self.guest.furthest.since(self.receive.stream.start())
    }

    /// A number that changes with every progress: something was acknowledged by the peer, received in order, or taken by
    /// the guest.
    pub fn progress_mark(&self) -> u64 {
        let received = if self.receive.stream.is_open() {
            self.receive.nxt.raw().wrapping_add(self.receive.stream.start().raw())
        } else {
            0
        };
        self.send.una.raw().wrapping_add(received)
    }

    /// Octets of data that the guest does not have yet.
    pub fn unread(&self) -> u64 {
        self.receive.data_end().since(self.receive.stream.start())
    }
}

impl Guest {
    /// Of a new connection.
    pub fn new(context: Option<Slot>, cookie: u64, listener: u64) -> Self {
        Self {
            context,
            cookie,
            listener,
            bits: 0,
            seen: 0,
            told: 0,
            reason: Reason::None,
            patient: false,
            credit_due: false,
            credit_later: false,
            held_told: Position::default(),
            limit_told: Position::default(),
            delivered: Position::default(),
            furthest: Position::default(),
            limit: Position::default(),
            outstanding: 0,
            repeats: 0,
            repeat_at: None,
            notice: Notice::NONE,
            rings: SharedRings::default(),
        }
    }
}

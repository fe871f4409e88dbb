//! The messages. Types `0x01xx` go from guest to card, `0x02xx` from card to guest.
//!
//! Each has a header of eight bytes (type `u16`, reserved `u16`, length `u32` with the header and without the
//! padding) and a fixed part; some a tail of bytes. A reader ignores what a fixed part has beyond what it knows,
//! so that later versions can append fields.

use crate::codec::{Layout, layout};
use crate::{Endpoint, Mac, ParseError};

/// Bytes of the header of each message.
pub const MESSAGE_HEADER_BYTES: usize = 8;

/// The bits of [`State`] and [`ReceiveCredit::seen`]. They are only ever set, never cleared, in a connection's life.
pub mod state {
    /// The three-way handshake is complete.
    pub const ESTABLISHED: u32 = 1 << 0;
    /// The connection is the child of a listener and was announced by ACCEPTED.
    pub const ACCEPTED: u32 = 1 << 1;
    /// The peer's FIN arrived; the stream ends at `fin_offset`.
    pub const PEER_CLOSED: u32 = 1 << 2;
    /// The card knows of the guest's SHUTDOWN.
    pub const SHUTDOWN: u32 = 1 << 3;
    /// The peer has acknowledged everything, our FIN included.
    pub const ALL_ACKNOWLEDGED: u32 = 1 << 4;
    /// The connection broke; `reason` says why. Data that was not yet handed over is lost.
    pub const ABORTED: u32 = 1 << 5;
}

/// The bits of [`Connect::flags`] and [`Listen::flags`].
pub mod flags {
    /// Nagle's algorithm is off from the start.
    pub const NODELAY: u32 = 1 << 0;
    /// Fast Open (RFC 7413) may be used, if the card's profile allows it.
    pub const FAST_OPEN: u32 = 1 << 1;
    /// Of CONNECT: the SYN asks for explicit congestion notification (RFC 3168), whatever the card's default.
    pub const ECN: u32 = 1 << 2;
    /// The driver can wait a little for what no program sleeps for: see docs/interface.md, section 7.
    pub const PATIENT: u32 = 1 << 3;
}

/// The bits of [`Caps::features`].
pub mod feature {
    /// The card reaches the driver's memory: the options SEND_RING and RECEIVE_RING, FILLED and STORED.
    pub const SHARED_RINGS: u64 = 1 << 0;
}

/// Options of [`SetOption`] and [`GetOption`]. An unknown one is refused.
pub mod option {
    /// 1: Nagle's algorithm is off (RFC 9293, 3.7.4). 0: it is on.
    pub const NODELAY: u32 = 1;
    /// Where the connection's frames go: a MAC in the low six bytes, first byte lowest.
    pub const NEXT_HOP: u32 = 2;
    /// Keep-alives (RFC 9293, 3.8.4) after this many milliseconds of silence; 0, as at first, for none.
    pub const KEEP_ALIVE_IDLE_MS: u32 = 3;
    /// Milliseconds between one keep-alive and the next while none is answered; at first 75 seconds.
    pub const KEEP_ALIVE_INTERVAL_MS: u32 = 4;
    /// How many keep-alives go unanswered before the connection is given up; at first 9.
    pub const KEEP_ALIVE_PROBES: u32 = 5;
    /// How many milliseconds data may go unacknowledged (R2 of RFC 9293, 3.8.3; the user timeout of 5482); 0, as at
    /// first, for the card's default.
    pub const USER_TIMEOUT_MS: u32 = 6;
    /// The hop limit or time to live of segments, 1 to 255.
    pub const HOP_LIMIT: u32 = 7;
    /// The type of service or traffic class of segments; its two lowest bits, those of ECN, are zero.
    pub const TRAFFIC_CLASS: u32 = 8;
    /// The congestion controller: 1 for NewReno, 2 for CUBIC, 3 for DCTCP, 4 for BBR. Another is refused.
    pub const CONGESTION: u32 = 9;
    /// RFC 5482's user timeout option: the milliseconds to advertise to the peer, whose own are then heard, too; 0, as
    /// at first, for neither.
    pub const ADVERTISE_USER_TIMEOUT_MS: u32 = 11;
    /// The user timeout that the peer advertised last, in milliseconds; 0 for none. Cannot be set.
    pub const PEER_USER_TIMEOUT_MS: u32 = 12;
    /// Where the bytes to send lie in the driver's own memory, for FILLED ([`Filled`]): the address, a multiple of 4,096, plus the
    /// binary logarithm of the ring's length, 12 to 30. Zero, as at first: in SEND alone.
    pub const SEND_RING: u32 = 13;
    /// Where received bytes go in the driver's own memory, told by STORED ([`Stored`]); as [`SEND_RING`]. Zero, as at first: in
    /// RECEIVED alone.
    pub const RECEIVE_RING: u32 = 14;
    /// The controllers by value and name.
    pub const CONTROLLERS: &[(u64, &str)] = &[(1, "new-reno"), (2, "cubic"), (3, "dctcp"), (4, "bbr")];
    /// 1, as at first: ICMP errors are told by NOTICE. 0: they are not (RFC 9293, 3.9.1.8).
    pub const REPORT_ERRORS: u32 = 10;
}

layout! {
    /// Opens a context, or asks again for the answer to that. The frame's key names it.
    Hello {
        /// The lowest channel version that the guest speaks.
        version_min: u16,
        /// The highest.
        version_max: u16,
        /// How long the card is to keep the context without a sign of life, in milliseconds.
        lease_ms: u32,
        /// The longest channel frame that the guest can receive, Ethernet header included.
        frame_bytes_max: u32,
        /// Zero.
        reserved: u32,
        /// The most bytes of RECEIVED data that may be on their way to the guest at once.
        receive_bytes_max: u64,
    }
}

layout! {
    /// Closes the context: its connections are aborted, its listeners closed.
    Bye {
        /// Zero; ignored by the reader.
        reserved: u64,
    }
}

layout! {
    /// The guest's own addresses: the only ones that a listener on an unspecified address answers for. The tail
    /// holds them, 16 bytes each (IPv4 as IPv4-mapped). Replaces what was said before.
    Addresses {
        /// Echoed if the card refuses.
        cookie: u64,
    }
}

layout! {
    /// The process behind the context, for who asks with [`Sockets`]; the tail is its name, of which the card keeps
    /// [`PROCESS_NAME_BYTES_MAX`] bytes. Replaces what was said before.
    Process {
        /// Its number, as it sees it itself.
        pid: u32,
        /// Its user.
        uid: u32,
    }
}

/// The most bytes of a process's name that the card keeps: as many as Linux does.
pub const PROCESS_NAME_BYTES_MAX: usize = 16;

layout! {
    /// Opens a connection. Repeating it with the same 4-tuple and cookie repeats the answer.
    Connect {
        /// Chosen by the guest, unique among its requests.
        cookie: u64,
        /// This end; the guest's library holds a bound kernel socket for its port.
        local: Endpoint,
        /// The other end.
        remote: Endpoint,
        /// Where frames to the other end go.
        next_hop: Mac,
        /// See [`flags`].
        flags: u32,
        /// The MTU of the guest's interface, in bytes; bounds the MSS.
        mtu: u32,
        /// The first offset of the received stream that the guest cannot take yet.
        receive_limit: u64,
    }
}

layout! {
    /// Opens a listener. Repeating it with the same address and cookie repeats the answer.
    Listen {
        /// Chosen by the guest, unique among its requests.
        cookie: u64,
        /// Address and port; the address may be unspecified (see [`Addresses`]).
        local: Endpoint,
        /// The most connections announced and not yet taken.
        backlog: u32,
        /// See [`flags`]; what connections start with.
        flags: u32,
        /// What every new connection's `receive_limit` is.
        receive_limit: u64,
        /// The MTU of the guest's interface, in bytes; bounds the MSS.
        mtu: u32,
        /// What becomes of a SYN for which a pool has no room: see [`listen_policy`].
        policy: u32,
    }
}

layout! {
    /// Closes a listener. Connections announced before live on.
    Unlisten {
        /// Its id.
        listener: u64,
    }
}

layout! {
    /// How many of a listener's connections the program has taken since it was opened.
    Taken {
        /// Its id.
        listener: u64,
        /// Count since the listener was opened.
        taken: u64,
    }
}

layout! {
    /// Data to send; it is the tail. An empty one asks for a SEND_CREDIT.
    Send {
        /// The connection's id.
        connection: u64,
        /// The position of the first byte in the stream.
        offset: u64,
    }
}

layout! {
    /// The connection's SEND_RING holds its bytes up to `end`, from the first on that the card does not hold. Does what a SEND of
    /// these bytes does.
    Filled {
        /// The connection's id.
        connection: u64,
        /// The position behind the last byte.
        end: u64,
    }
}

layout! {
    /// What the guest has of a connection, and what it can take.
    ReceiveCredit {
        /// The connection's id.
        connection: u64,
        /// The guest has every byte before this offset; the card may forget them.
        held: u64,
        /// The first offset that the guest cannot take yet. Never goes back.
        limit: u64,
        /// The bits of [`state`] that the guest has seen.
        seen: u32,
    }
}

layout! {
    /// No more data after `offset`; a FIN goes out when all before it is sent.
    Shutdown {
        /// The connection's id.
        connection: u64,
        /// Where the stream ends.
        offset: u64,
    }
}

layout! {
    /// Ends a connection with a RST.
    Abort {
        /// Its id.
        connection: u64,
    }
}

layout! {
    /// The guest will not speak of this id again. What is queued is still sent and the connection closed in
    /// order, unless received data is left that the guest does not have: then it is reset (RFC 9293, 3.6.1).
    Release {
        /// The connection's id.
        connection: u64,
    }
}

layout! {
    /// The guest's stream is urgent before `offset` (RFC 9293, 3.8.5): SND.UP, the position of the octet following the
    /// urgent data. Repeated until NOTICE has it.
    Urgent {
        /// The connection's id.
        connection: u64,
        /// Where the urgent data ends. Never goes back; data up to there may be yet to come.
        offset: u64,
    }
}

layout! {
    /// The guest has seen a NOTICE.
    Noticed {
        /// The connection's id.
        connection: u64,
        /// Of the NOTICE.
        serial: u64,
    }
}

layout! {
    /// Sets an option.
    SetOption {
        /// Echoed.
        cookie: u64,
        /// The id of a connection.
        object: u64,
        /// See [`option`].
        value: u64,
        /// See [`option`].
        option: u32,
    }
}

layout! {
    /// Asks for an option.
    GetOption {
        /// Echoed.
        cookie: u64,
        /// The id of a connection.
        object: u64,
        /// See [`option`].
        option: u32,
    }
}

layout! {
    /// Asks for a connection's state.
    Info {
        /// Echoed.
        cookie: u64,
        /// The connection's id.
        connection: u64,
    }
}

layout! {
    /// Asks for the pools from the `first` on.
    Limits {
        /// Echoed.
        cookie: u64,
        /// Index of the first pool wanted.
        first: u32,
    }
}

layout! {
    /// Asks for the counters from the `first` on.
    Stat {
        /// Echoed.
        cookie: u64,
        /// Index of the first counter wanted.
        first: u32,
    }
}

layout! {
    /// The answer to HELLO.
    Caps {
        /// The version that both will speak.
        version: u16,
        /// Zero.
        reserved: u16,
        /// The firmware's epoch: another value means that another boot answers, and nothing from before is left.
        epoch: u32,
        /// The context's id, for the frame header.
        context: u64,
        /// The lease that was granted, in milliseconds.
        lease_ms: u32,
        /// The longest channel frame that the card takes and sends in this context.
        frame_bytes_max: u32,
        /// See [`feature`].
        features: u64,
        /// The most bytes that one connection can hold for sending.
        send_bytes_max: u64,
        /// The most bytes that one connection can hold of what it received.
        receive_bytes_max: u64,
    }
}

layout! {
    /// The answer to CONNECT. With `reason` none, the connection exists; STATE will say what becomes of it.
    ConnectResult {
        /// Of the CONNECT.
        cookie: u64,
        /// The connection's id; zero if refused.
        connection: u64,
        /// The first offset that the card cannot take yet.
        send_limit: u64,
        /// A [`Reason`](crate::Reason).
        reason: u32,
        /// What to do if refused: an [`Action`](crate::Action).
        action: u32,
    }
}

layout! {
    /// The answer to LISTEN.
    ListenResult {
        /// Of the LISTEN.
        cookie: u64,
        /// The listener's id; zero if refused.
        listener: u64,
        /// A [`Reason`](crate::Reason).
        reason: u32,
        /// What to do if refused: an [`Action`](crate::Action).
        action: u32,
    }
}

layout! {
    /// The answer to UNLISTEN, also if the id is not known any more.
    Unlistened {
        /// Of the UNLISTEN.
        listener: u64,
    }
}

layout! {
    /// A listener has a new connection. Repeated until RECEIVE_CREDIT has [`state::ACCEPTED`] in `seen`.
    Accepted {
        /// The listener's id.
        listener: u64,
        /// The connection's id.
        connection: u64,
        /// This end.
        local: Endpoint,
        /// The other end.
        remote: Endpoint,
        /// The first offset that the card cannot take yet.
        send_limit: u64,
    }
}

layout! {
    /// Received data; it is the tail. The card keeps it until RECEIVE_CREDIT says `held`.
    Received {
        /// The connection's id.
        connection: u64,
        /// The position of the first byte in the stream.
        offset: u64,
    }
}

layout! {
    /// Received data that the card has written into the connection's RECEIVE_RING. The card keeps it as after RECEIVED.
    Stored {
        /// The connection's id.
        connection: u64,
        /// The position of the first byte in the stream.
        offset: u64,
        /// The position behind the last.
        end: u64,
    }
}

layout! {
    /// What the card has of a connection's data to send.
    SendCredit {
        /// The connection's id.
        connection: u64,
        /// The card has every byte before this offset; the guest may forget them.
        held: u64,
        /// The first offset that the card cannot take yet. Never goes back.
        limit: u64,
        /// The peer has acknowledged every byte before this offset.
        acknowledged: u64,
    }
}

layout! {
    /// What has become of a connection. Repeated until RECEIVE_CREDIT has all its bits in `seen`.
    State {
        /// The connection's id.
        connection: u64,
        /// See [`state`].
        bits: u32,
        /// With [`state::ABORTED`]: a [`Reason`](crate::Reason).
        reason: u32,
        /// With [`state::PEER_CLOSED`]: where the received stream ends.
        fin_offset: u64,
    }
}

layout! {
    /// What the program should know of a connection and need not act upon, all of it as it is now. Repeated for a while
    /// until NOTICED has its `serial`.
    Notice {
        /// The connection's id.
        connection: u64,
        /// Larger with every change.
        serial: u64,
        /// The received stream is urgent before this offset (RCV.UP of RFC 9293); zero if it never was.
        urgent_received: u64,
        /// What URGENT said last, as far as the card knows.
        urgent_sent: u64,
        /// How many ICMP errors were believed.
        network_errors: u32,
        /// The last of them: a [`Reason`](crate::Reason).
        network_error: u32,
        /// How many timeouts there were at or beyond R1 (RFC 9293, 3.8.3): the next hop may be gone.
        path_advice: u32,
        /// The largest packet of the path as it is believed to be, in bytes, IP header included.
        path_mtu: u32,
    }
}

layout! {
    /// The answer to RELEASE, also if the id is not known any more.
    Released {
        /// Of the RELEASE.
        connection: u64,
    }
}

layout! {
    /// The answer to SET_OPTION and GET_OPTION.
    OptionResult {
        /// Of the request.
        cookie: u64,
        /// The value that holds now.
        value: u64,
        /// The option.
        option: u32,
        /// A [`Reason`](crate::Reason).
        reason: u32,
    }
}

layout! {
    /// The answer to INFO: what Linux calls `tcp_info`. Times in microseconds, amounts in bytes unless said otherwise.
    InfoResult {
        /// Of the INFO.
        cookie: u64,
        /// The connection's id.
        connection: u64,
        /// This end.
        local: Endpoint,
        /// The other end.
        remote: Endpoint,
        /// Linux's numbers of the TCP states (1 ESTABLISHED, 2 SYN-SENT, …).
        tcp_state: u8,
        /// Linux's numbers of the congestion states (0 open, 1 disorder, 2 CWR, 3 recovery, 4 loss).
        congestion_state: u8,
        /// `TCPI_OPT_*`: 1 timestamps, 2 SACK, 4 window scale, 8 ECN.
        options: u8,
        /// Shift of our window, high nibble; of the peer's, low nibble.
        window_scales: u8,
        /// Largest segment that we send.
        send_mss: u32,
        /// Retransmission timeout.
        rto_us: u32,
        /// Smoothed round trip.
        rtt_us: u32,
        /// Its variation.
        rtt_variation_us: u32,
        /// Lowest round trip seen.
        rtt_min_us: u32,
        /// Congestion window.
        congestion_window: u32,
        /// Slow start threshold.
        slow_start_threshold: u32,
        /// Peer's window.
        send_window: u32,
        /// Our window.
        receive_window: u32,
        /// Sent and not acknowledged.
        in_flight: u32,
        /// Selectively acknowledged.
        sacked: u32,
        /// Deemed lost and not yet retransmitted.
        lost: u32,
        /// Timeouts in a row.
        backoff: u32,
        /// Segments sent again, ever.
        retransmits: u64,
        /// Stream bytes acknowledged by the peer.
        bytes_acknowledged: u64,
        /// Stream bytes received in order.
        bytes_received: u64,
        /// Bytes sent in segments, retransmissions included.
        bytes_sent: u64,
        /// Bytes queued and not sent.
        not_sent: u64,
        /// Segments received.
        segments_in: u64,
        /// Segments sent.
        segments_out: u64,
    }
}

layout! {
    /// The answer to LIMITS; the tail holds [`LimitEntry`]s, as many as fit in a frame.
    LimitsResult {
        /// Of the LIMITS.
        cookie: u64,
        /// Index of the first pool here.
        first: u32,
        /// How many pools there are.
        total: u32,
    }
}

layout! {
    /// Asks for everything on the card that has an address, of all contexts.
    Sockets {
        /// Echoed.
        cookie: u64,
        /// Zero at first, then what the answer before calls `next`.
        after: u64,
    }
}

layout! {
    /// The answer to SOCKETS; the tail holds [`SocketEntry`]s, as many as fit in a frame, perhaps none.
    SocketsResult {
        /// Of the SOCKETS.
        cookie: u64,
        /// What to ask for next; zero after the last.
        next: u64,
    }
}

layout! {
    /// The answer to STAT; the tail holds [`StatEntry`]s, as many as fit in a frame.
    StatResult {
        /// Of the STAT.
        cookie: u64,
        /// Index of the first counter here.
        first: u32,
        /// How many counters there are.
        total: u32,
    }
}

layout! {
    /// A message was refused that has no answer of its own to say so.
    Error {
        /// The cookie of the message, if it has one.
        cookie: u64,
        /// The id in the message, if it has one.
        object: u64,
        /// A [`Reason`](crate::Reason).
        reason: u32,
        /// The message's type; zero if the frame as a whole was refused.
        kind: u16,
        /// Of a HELLO that a full pool refused: 1 if the program is to be told ([`Action::Deny`](crate::Action)), 0 if the
        /// guest's own stack is to be used.
        denied: u16,
    }
}

layout! {
    /// The frame's context is not known here: another boot of the firmware answers, or the lease ran out.
    /// Everything from before is gone. The frame's header carries the key of the frame it answers.
    FirmwareEvent {
        /// The epoch of the firmware that answers.
        epoch: u32,
        /// A [`Reason`](crate::Reason).
        reason: u32,
    }
}

macro_rules! messages {
    (fixed { $($fixed:ident = $fixed_kind:literal,)* } tailed { $($tailed:ident = $tailed_kind:literal,)* }) => {
        /// One message. Those with two fields have a tail.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs)]
        pub enum Message<'a> {
            $($fixed($fixed),)*
            $($tailed($tailed, &'a [u8]),)*
        }

        impl<'a> Message<'a> {
            /// The message's type on the channel.
            pub fn kind(&self) -> u16 {
                match self {
                    $(Self::$fixed(_) => $fixed_kind,)*
                    $(Self::$tailed(..) => $tailed_kind,)*
                }
            }

            /// Header, fixed part and tail, without padding.
            pub(crate) fn bytes(&self) -> usize {
                MESSAGE_HEADER_BYTES + match self {
                    $(Self::$fixed(_) => <$fixed as Layout>::BYTES,)*
                    $(Self::$tailed(_, tail) => <$tailed as Layout>::BYTES + tail.len(),)*
                }
            }

            /// Reads what stands behind the header of a message of type `kind`.
            ///
            /// # Errors
            /// [`ParseError::Unknown`] and [`ParseError::Short`].
            pub fn parse(kind: u16, body: &'a [u8]) -> Result<Self, ParseError> {
                match kind {
                    $($fixed_kind if body.len() < <$fixed as Layout>::BYTES => Err(ParseError::Short { kind }),)*
                    $($tailed_kind if body.len() < <$tailed as Layout>::BYTES => Err(ParseError::Short { kind }),)*
                    $($fixed_kind => Ok(Self::$fixed(<$fixed as Layout>::get(body))),)*
                    $($tailed_kind => {
                        let (fixed, tail) = body.split_at(<$tailed as Layout>::BYTES);
                        Ok(Self::$tailed(<$tailed as Layout>::get(fixed), tail))
                    })*
                    _ => Err(ParseError::Unknown { kind }),
                }
            }

            /// Writes it; `b` has `self.bytes()` bytes, all zero; `length` goes into the header.
            pub(crate) fn put(&self, b: &mut [u8], length: usize) {
                b[..2].copy_from_slice(&self.kind().to_le_bytes());
                b[4..8].copy_from_slice(&(length as u32).to_le_bytes());
                let b = &mut b[MESSAGE_HEADER_BYTES..];
                match self {
                    $(Self::$fixed(m) => Layout::put(m, b),)*
                    $(Self::$tailed(m, tail) => {
                        let (fixed, room) = b.split_at_mut(<$tailed as Layout>::BYTES);
                        m.put(fixed);
                        room.copy_from_slice(tail);
                    })*
                }
            }
        }
    };
}

layout! {
    /// A pool's use has passed three quarters, or all, of its capacity, or is well below again. A hint, sent once: LIMITS
    /// has what is true.
    ResourceEvent {
        /// The pool's index in LIMITS_RESULT.
        pool: u32,
        /// See [`level`].
        level: u32,
        /// How many were in use when the event was written.
        in_use: u64,
        /// How many there are.
        capacity: u64,
    }
}

/// How full a pool is, in RESOURCE_EVENT. It rises at once and falls, to [`NORMAL`](level::NORMAL), only when less than five
/// eighths are in use.
pub mod level {
    /// Nothing to warn of.
    pub const NORMAL: u32 = 0;
    /// Three quarters or more were in use.
    pub const HIGH: u32 = 1;
    /// All of it was.
    pub const FULL: u32 = 2;
}

/// What becomes of a SYN for which a pool has no room, by the wish of the listener's program. A value that the card does not
/// know means [`OF_CARD`](listen_policy::OF_CARD).
pub mod listen_policy {
    /// What the card's profile says of the pool.
    pub const OF_CARD: u32 = 0;
    /// The SYN is dropped.
    pub const DENY: u32 = 1;
    /// The SYN is passed on to the guest's own stack.
    pub const FALLBACK: u32 = 2;
    /// Another gives way, where the pool allows that.
    pub const EVICT: u32 = 3;
}

messages! {
    fixed {
        Hello = 0x0101,
        Bye = 0x0102,
        Connect = 0x0110,
        Listen = 0x0111,
        Unlisten = 0x0112,
        Taken = 0x0113,
        ReceiveCredit = 0x0121,
        Shutdown = 0x0122,
        Abort = 0x0123,
        Release = 0x0124,
        Urgent = 0x0125,
        Noticed = 0x0126,
        Filled = 0x0127,
        SetOption = 0x0130,
        GetOption = 0x0131,
        Info = 0x0132,
        Limits = 0x0133,
        Stat = 0x0134,
        Sockets = 0x0135,
        Caps = 0x0201,
        ConnectResult = 0x0210,
        ListenResult = 0x0211,
        Unlistened = 0x0212,
        Accepted = 0x0213,
        SendCredit = 0x0221,
        State = 0x0222,
        Released = 0x0223,
        Notice = 0x0224,
        Stored = 0x0225,
        OptionResult = 0x0230,
        InfoResult = 0x0231,
        Error = 0x0240,
        FirmwareEvent = 0x0241,
        ResourceEvent = 0x0242,
    }
    tailed {
        Addresses = 0x0103,
        Process = 0x0104,
        Send = 0x0120,
        Received = 0x0220,
        LimitsResult = 0x0232,
        StatResult = 0x0233,
        SocketsResult = 0x0234,
    }
}

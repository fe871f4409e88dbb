//! Why something was refused, ended or could not be understood: one list for card and guest.

macro_rules! reasons {
    ($( $(#[$meta:meta])* $name:ident = $value:literal, $text:literal; )*) => {
        /// A named reason. On the channel a `u32`; its name (`as_str`) is what counters and tools print.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason { $( $(#[$meta])* $name = $value, )* }

        impl Reason {
            /// Every reason, in the order of its value.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// The name, in kebab case; stable.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// The reason of that value; `None` if a newer card knows one that this crate does not.
            pub fn from_u32(value: u32) -> Option<Self> {
                match value { $($value => Some(Reason::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// All is well.
    None = 0, "none";

    // Refusals: a pool is full.
    /// The pool of contexts is full.
    Contexts = 1, "contexts-full";
    /// The pool of connections is full.
    Connections = 2, "connections-full";
    /// The pool of listeners is full.
    Listeners = 3, "listeners-full";
    /// The pool of half-open entries (SYN cache) is full.
    HalfOpen = 4, "half-open-full";
    /// The pool of time-wait entries is full.
    TimeWait = 5, "time-wait-full";
    /// No page of send memory is left.
    SendMemory = 6, "send-memory-full";
    /// No record for a segment in flight is left.
    TransmitRecords = 10, "transmit-records-full";
    /// No page of receive memory is left.
    ReceiveMemory = 7, "receive-memory-full";
    /// The listener's backlog is full.
    Backlog = 8, "backlog-full";
    /// More local addresses than a context can have.
    Addresses = 9, "addresses-full";

    /// Too many answers wait to be sent.
    Replies = 11, "replies-full";
    /// A connection has as many ranges of out-of-order data as it can have.
    OutOfOrder = 12, "out-of-order-full";
    /// Too many events wait for the card's host.
    Events = 13, "events-full";
    /// More Fast Open servers than the card remembers.
    FastOpenServers = 14, "fast-open-servers-full";
    /// Of a listener, too many connections are open by Fast Open alone.
    FastOpenPending = 15, "fast-open-pending-full";
    /// Frames from the wire wait for the guest, as many as may.
    ReceiveFifo = 16, "receive-fifo-full";
    /// The context has as many as one context may have.
    Quota = 17, "quota";
    /// The context has its fair share, and another, that has less, wants some.
    FairShare = 18, "fair-share";
    /// Too many segments that belong to no connection wait to be sent.
    Segments = 19, "segments-full";
    /// The card's processor is busy, and no more frames may wait for it.
    ProcessorBusy = 30, "processor-busy";

    // Refusals: the request makes no sense here.
    /// The 4-tuple or the listener's address is in use by another.
    AddressInUse = 20, "address-in-use";
    /// A broadcast, multicast, unspecified or mixed-family address, or port zero.
    AddressInvalid = 21, "address-invalid";
    /// The next hop is not a unicast Ethernet address.
    NextHopInvalid = 22, "next-hop-invalid";
    /// An option that this card does not have.
    OptionUnknown = 23, "option-unknown";
    /// An option's value is out of its range.
    OptionValue = 24, "option-value";
    /// The card does not reach that memory, or not any more.
    MemoryUnreachable = 25, "memory-unreachable";

    // Endings of a connection.
    /// The peer answered the SYN with a RST.
    Refused = 40, "refused";
    /// The peer reset the connection.
    Reset = 41, "reset";
    /// Retransmissions were given up.
    TimedOut = 42, "timed-out";
    /// The guest asked for it.
    AbortedByGuest = 43, "aborted-by-guest";
    /// The guest was not heard of for its lease.
    LeaseExpired = 44, "lease-expired";
    /// ICMP said that the peer cannot be reached.
    Unreachable = 45, "unreachable";

    // What ICMP said of the way to the peer; the connection goes on (see NOTICE).
    /// No way to the peer's network.
    NetworkUnreachable = 46, "network-unreachable";
    /// No way to the peer.
    HostUnreachable = 47, "host-unreachable";
    /// The peer has no TCP.
    ProtocolUnreachable = 48, "protocol-unreachable";
    /// Nobody is at the peer's port.
    PortUnreachable = 49, "port-unreachable";
    /// A source route failed.
    SourceRoute = 50, "source-route-failed";
    /// A filter on the way forbids it.
    Prohibited = 51, "prohibited";
    /// The hop limit was used up on the way.
    TimeExceeded = 52, "time-exceeded";
    /// Somebody on the way could not read the packet.
    ParameterProblem = 53, "parameter-problem";

    // More endings of a connection.
    /// It made no progress, and its place or its memory was wanted by others.
    Evicted = 54, "evicted";
    /// What the card knew of it was damaged: it was broken off before a wrong byte could follow from that.
    StateDamaged = 55, "state-damaged";
    /// A byte of it was damaged on the card, and was not handed on.
    DataDamaged = 56, "data-damaged";

    // Channel errors.
    /// A message that could not be read.
    Malformed = 60, "malformed";
    /// A message of a type that this card does not know.
    UnknownMessage = 61, "unknown-message";
    /// The frame's context does not exist here, or its key is another.
    UnknownContext = 62, "unknown-context";
    /// The frame is of another boot of the firmware.
    StaleEpoch = 63, "stale-epoch";
    /// The id names no object of this context, or one whose life is over.
    UnknownObject = 64, "unknown-object";
    /// A channel version that this card does not speak.
    Version = 65, "version-unsupported";
    /// Data beyond the card's credit.
    BeyondCredit = 66, "beyond-credit";
    /// An offset that contradicts what was said before.
    Offset = 67, "offset-invalid";
    /// The request does not fit the object's state.
    WrongState = 68, "wrong-state";
    /// The firmware has booted: nothing from before is left.
    Booted = 69, "booted";
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the guest is to do after a refusal: the policy that the operator gave the pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u32)]
pub enum Action {
    /// Give up: report the error to the program.
    Deny = 0,
    /// Use the guest's own stack.
    Fallback = 1,
}

impl Action {
    /// The action of that value; unknown ones mean [`Action::Deny`].
    pub fn from_u32(value: u32) -> Self {
        if value == Self::Fallback as u32 { Self::Fallback } else { Self::Deny }
    }

    /// `deny` or `fallback`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Fallback => "fallback",
        }
    }
}

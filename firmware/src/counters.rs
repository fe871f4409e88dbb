//! The counters: one for every drop, refusal and event, by name.
//!
//! What always holds: `wire-in` = `wire-taken` + `wire-passed` + the sum of all `wire-drop-…`, and the same for
//! `guest-in`. A frame that is taken may still cause a refusal, which has a counter of its own.

use toe_abi::StatEntry;

macro_rules! counters {
    ($( $(#[doc = $doc:literal])+ $name:ident = $text:literal, )*) => {
        /// What is counted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Counter { $( $(#[doc = $doc])+ $name, )* }

        const NAMES: &[&str] = &[$($text),*];
    };
}

counters! {
    /// Frames from the wire.
    WireIn = "wire-in",
    /// Of these, segments that the card processed.
    WireTaken = "wire-taken",
    /// Of these, passed on to the guest.
    WirePassed = "wire-passed",
    /// Shorter than an Ethernet header.
    WireDropRunt = "wire-drop-runt",
    /// A channel frame: those come from the guest only.
    WireDropChannel = "wire-drop-channel",
    /// A segment of a card connection whose header makes no sense.
    WireDropMalformed = "wire-drop-malformed",
    /// A segment of a card connection with a wrong checksum.
    WireDropChecksum = "wire-drop-checksum",
    /// A fragment with a card connection's ports.
    WireDropFragment = "wire-drop-fragment",
    /// A SYN that a full pool refused under the policy `deny`.
    WireDropRefused = "wire-drop-refused",
    /// Frames sent to the wire.
    WireOut = "wire-out",

    /// Frames from the guest.
    GuestIn = "guest-in",
    /// Of these, channel frames that were read.
    GuestTaken = "guest-taken",
    /// Of these, passed on to the wire.
    GuestPassed = "guest-passed",
    /// Shorter than an Ethernet header.
    GuestDropRunt = "guest-drop-runt",
    /// A channel frame shorter than its headers.
    GuestDropTruncated = "guest-drop-truncated",
    /// A channel frame of another version.
    GuestDropVersion = "guest-drop-version",
    /// A channel frame with a wrong length field.
    GuestDropLength = "guest-drop-length",
    /// A channel frame of a context that does not exist, or with another key.
    GuestDropContext = "guest-drop-context",
    /// A channel frame of another epoch.
    GuestDropEpoch = "guest-drop-epoch",
    /// Channel frames sent to the guest.
    GuestOut = "guest-out",

    /// Channel messages that were read.
    ChannelMessages = "channel-messages",
    /// Messages that could not be read.
    ChannelMalformed = "channel-malformed",
    /// Messages of a type that only the card sends, or of no known type.
    ChannelUnknownMessage = "channel-unknown-message",
    /// Messages for an id that is not the context's, or not any more.
    ChannelUnknownObject = "channel-unknown-object",
    /// Messages that do not fit the object's state.
    ChannelWrongState = "channel-wrong-state",
    /// Data beyond the card's credit.
    ChannelBeyondCredit = "channel-beyond-credit",
    /// Data that lies behind a gap: an earlier frame was lost.
    ChannelGap = "channel-gap",
    /// Data that the card already had.
    ChannelRepeated = "channel-repeated",
    /// Offsets that contradict earlier ones.
    ChannelOffset = "channel-offset",
    /// Answers dropped because too many waited; the guest asks again.
    ChannelRepliesFull = "channel-replies-full",
    /// Announcements and data sent to a guest again because it did not acknowledge them in time.
    ChannelResent = "channel-resent",
    /// Contexts whose lease ran out.
    ChannelLeaseExpired = "channel-lease-expired",

    /// Connections that a program opened.
    TcpActiveOpens = "tcp-active-opens",
    /// Connections that a listener took.
    TcpPassiveOpens = "tcp-passive-opens",
    /// Connections that reached ESTABLISHED.
    TcpEstablished = "tcp-established",
    /// Connections that ended in order.
    TcpClosed = "tcp-closed",
    /// Connections that the peer reset or refused.
    TcpResets = "tcp-resets",
    /// Connections given up after retransmissions.
    TcpTimedOut = "tcp-timed-out",
    /// Connections that were aborted by this side.
    TcpAborted = "tcp-aborted",
    /// Half-open entries given up.
    TcpHalfOpenTimedOut = "tcp-half-open-timed-out",
    /// Half-open entries that a RST ended.
    TcpHalfOpenReset = "tcp-half-open-reset",
    /// Completed handshakes refused because no connection was free.
    TcpHandshakeRefused = "tcp-handshake-refused",
    /// TIME-WAIT entries that gave way to newer ones.
    TcpTimeWaitEvicted = "tcp-time-wait-evicted",
    /// TIME-WAIT entries that a new SYN took over.
    TcpTimeWaitReused = "tcp-time-wait-reused",
    /// Segments received for card connections.
    TcpSegmentsIn = "tcp-segments-in",
    /// Segments sent.
    TcpSegmentsOut = "tcp-segments-out",
    /// Of these, resets.
    TcpResetsOut = "tcp-resets-out",
    /// Segments outside the receive window.
    TcpOutOfWindow = "tcp-out-of-window",
    /// Segments with an old timestamp (PAWS).
    TcpPaws = "tcp-paws",
    /// Acknowledgements of bytes never sent.
    TcpAckUnsent = "tcp-ack-unsent",
    /// Acknowledgements too old to be the peer's.
    TcpAckOld = "tcp-ack-old",
    /// Segments without ACK where one must be.
    TcpNoAck = "tcp-no-ack",
    /// Resets whose number is in the window but not the next.
    TcpResetChallenged = "tcp-reset-challenged",
    /// SYNs with a FIN, while a connection is being opened.
    TcpSynFin = "tcp-syn-fin",
    /// SYNs within a connection.
    TcpSynChallenged = "tcp-syn-challenged",
    /// Challenge ACKs sent.
    TcpChallengeAcks = "tcp-challenge-acks",
    /// Challenge ACKs not sent because the connection's budget was spent.
    TcpChallengeLimited = "tcp-challenge-limited",
    /// Data that arrived out of order and was kept.
    TcpOutOfOrder = "tcp-out-of-order",
    /// Data that arrived out of order and found no range to be kept in.
    TcpOutOfOrderDropped = "tcp-out-of-order-dropped",
    /// Data that had arrived before.
    TcpDuplicate = "tcp-duplicate",
    /// Data after the program had left or closed its reading side.
    TcpDataAfterClose = "tcp-data-after-close",
    /// Segments sent again.
    TcpRetransmits = "tcp-retransmits",
    /// Times that a fast recovery began.
    TcpFastRecoveries = "tcp-fast-recoveries",
    /// Retransmission timeouts.
    TcpTimeouts = "tcp-timeouts",
    /// Tail loss probes sent.
    TcpTailProbes = "tcp-tail-probes",
    /// Keep-alives sent.
    TcpKeepAlives = "tcp-keep-alives",
    /// Zero-window probes sent.
    TcpWindowProbes = "tcp-window-probes",
    /// Times that data had to wait for a transmit record.
    TcpNoTransmitRecord = "tcp-no-transmit-record",
}

/// All counters of one card.
#[derive(Debug)]
pub struct Counters {
    values: [u64; NAMES.len()],
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self { values: [0; NAMES.len()] }
    }

    /// Counts one.
    pub fn add(&mut self, counter: Counter) {
        self.values[counter as usize] += 1;
    }

    /// How many counters there are.
    pub fn count() -> usize {
        NAMES.len()
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = StatEntry<'static>> + '_ {
        NAMES.iter().zip(&self.values).map(|(&name, &value)| StatEntry { name, value })
    }
}

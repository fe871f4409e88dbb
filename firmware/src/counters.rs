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

        const TEXTS: &[&str] = &[$(concat!($($doc),+)),*];
    };
}

counters! {
    /// Frames from the wire.
    WireIn = "wire-in",
    /// Of these, segments that the card processed.
    WireTaken = "wire-taken",
    /// Of these, passed on to the guest.
    WirePassed = "wire-passed",
    /// Of those passed on: to a group of stations.
    WirePassedGroup = "wire-passed-group",
    /// Of those passed on: IP whose lengths, version or header checksum make no sense.
    WirePassedMalformed = "wire-passed-malformed",
    /// Of those passed on: a fragment that shows no ports.
    WirePassedFragment = "wire-passed-fragment",
    /// Of those passed on: behind IPv6 extension headers that the card does not pass over.
    WirePassedExtension = "wire-passed-extension",
    /// Of those passed on: a SYN for a listener from or to an address that cannot be an end of a connection.
    WirePassedAddress = "wire-passed-address",
    /// Of those passed on: a SYN for a listener that says to come from the address that it goes to.
    WirePassedLand = "wire-passed-land",
    /// Shorter than an Ethernet header.
    WireDropRunt = "wire-drop-runt",
    /// A channel frame: those come from the guest only.
    WireDropChannel = "wire-drop-channel",
    /// A segment of a card connection that is shorter than a header.
    WireDropMalformed = "wire-drop-malformed",
    /// A segment of a card connection whose data offset is below five or beyond its end.
    WireDropDataOffset = "wire-drop-data-offset",
    /// A segment of a card connection with a wrong checksum.
    WireDropChecksum = "wire-drop-checksum",
    /// A fragment with a card connection's ports.
    WireDropFragment = "wire-drop-fragment",
    /// Frames beyond those that may wait for the card's processor.
    WireDropFifoFull = "wire-drop-fifo-full",
    /// Frames that came while the firmware had stopped.
    WireDropHalted = "wire-drop-halted",
    /// A SYN that a full pool refused under the policy `deny`.
    WireDropRefused = "wire-drop-refused",
    /// Frames sent to the wire.
    WireOut = "wire-out",

    /// ICMP errors that quote a 4-tuple of the card.
    IcmpIn = "icmp-in",
    /// Of these, about half-open or TIME-WAIT entries: nothing is done.
    IcmpNoConnection = "icmp-no-connection",
    /// Of these, source quenches: nothing is done.
    IcmpSourceQuench = "icmp-source-quench",
    /// Of these, quoting a segment that is not in flight: not believed.
    IcmpNotInFlight = "icmp-not-in-flight",
    /// Soft errors: the guest was told.
    IcmpSoft = "icmp-soft",
    /// Hard errors.
    IcmpHard = "icmp-hard",
    /// Connections ended by a hard error, at once or when nothing spoke against it until R1.
    IcmpAborted = "icmp-aborted",
    /// Reports of packets too big that were believed.
    IcmpTooBig = "icmp-too-big",
    /// The same, that wait for a timeout as their witness.
    IcmpTooBigWaits = "icmp-too-big-waits",
    /// Of those that waited, refuted by an acknowledgement.
    IcmpTooBigRefuted = "icmp-too-big-refuted",
    /// Reports of an MTU that is not smaller than the quoted packet.
    IcmpTooBigNonsense = "icmp-too-big-nonsense",
    /// Reports of an MTU that is not smaller than what is sent by now.
    IcmpTooBigKnown = "icmp-too-big-known",
    /// Reports of an MTU below IPv6's minimum.
    IcmpTooBigBelowMinimum = "icmp-too-big-below-minimum",

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
    /// Frames that came while the firmware had stopped.
    GuestDropHalted = "guest-drop-halted",
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
    /// Rings that programs named for a connection's bytes.
    RingsNamed = "rings-named",
    /// Rings that were refused because the card does not reach that memory.
    RingsRefused = "rings-refused",
    /// Connections whose rings were forgotten: the memory was replaced or went, or more credit was given than the ring has room.
    RingsLost = "rings-lost",
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
    /// SYNs answered with a cookie.
    TcpSynCookiesSent = "tcp-syn-cookies-sent",
    /// Connections that began with the echo of a cookie.
    TcpSynCookiesTaken = "tcp-syn-cookies-taken",
    /// Segments for a listener that could have been the echo of a cookie and were not: passed on to the guest.
    TcpSynCookiesWrong = "tcp-syn-cookies-wrong",
    /// Right cookies that found no connection free or the backlog full.
    TcpSynCookiesRefused = "tcp-syn-cookies-refused",
    /// Completed handshakes refused because no connection was free.
    TcpHandshakeRefused = "tcp-handshake-refused",
    /// TIME-WAIT entries that gave way to newer ones.
    TcpTimeWaitEvicted = "tcp-time-wait-evicted",
    /// TIME-WAIT entries that a new connection took over.
    TcpTimeWaitReused = "tcp-time-wait-reused",
    /// Half-open entries that gave way to newer ones.
    EvictedHalfOpen = "evicted-half-open",
    /// Connections that lost their data beyond a gap to those who wanted pages.
    EvictedOutOfOrder = "evicted-out-of-order",
    /// Connections that were reset because they made no progress and others wanted what they held.
    EvictedStalled = "evicted-stalled",
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
    /// Segments with an option whose length is 0, 1 or beyond the header; what stood before it counts.
    TcpOptionLength = "tcp-option-length",
    /// Segments with SYN and FIN or RST.
    TcpFlagsContradict = "tcp-flags-contradict",
    /// Segments with none of SYN, FIN, RST and ACK.
    TcpFlagsNone = "tcp-flags-none",
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
    /// Connections whose SYN had text that the server took (RFC 7413).
    TcpFastOpenTaken = "tcp-fast-open-taken",
    /// The same, that it did not take.
    TcpFastOpenRefused = "tcp-fast-open-refused",
    /// A listener's connections that began with the text of a SYN.
    TcpFastOpenPassive = "tcp-fast-open-passive",
    /// SYNs with a cookie that was wrong or too old.
    TcpFastOpenCookieWrong = "tcp-fast-open-cookie-wrong",
    /// SYNs with a right cookie whose text was not taken because too many of the listener's were pending.
    TcpFastOpenPendingFull = "tcp-fast-open-pending-full",
    /// Times that a path's MTU was lowered.
    TcpPathMtuLowered = "tcp-path-mtu-lowered",
    /// Times that it was raised.
    TcpPathMtuRaised = "tcp-path-mtu-raised",
    /// Times that large segments vanished without a word.
    TcpBlackHoles = "tcp-black-holes",
    /// Probes of the path's MTU sent.
    TcpMtuProbes = "tcp-mtu-probes",
    /// Of these, lost.
    TcpMtuProbesLost = "tcp-mtu-probes-lost",
    /// Timeouts at or beyond R1, of which the guest was told.
    TcpPathAdvice = "tcp-path-advice",
    /// Segments with URG received.
    TcpUrgentIn = "tcp-urgent-in",
    /// Reductions of the window that were undone because nothing was lost, by whatever sign.
    TcpUndos = "tcp-undos",
    /// Of these, for timeouts.
    TcpSpuriousTimeouts = "tcp-spurious-timeouts",
    /// Reports of octets that came twice, sent (RFC 2883).
    TcpDsacksOut = "tcp-dsacks-out",
    /// The same, received.
    TcpDsacksIn = "tcp-dsacks-in",
    /// Windows that were not used for longer than a timeout, and begun again (RFC 5681, 4.1).
    TcpIdleRestarts = "tcp-idle-restarts",
    /// Segments with data that arrived with a mark of congestion (RFC 3168).
    TcpMarksIn = "tcp-marks-in",
    /// Windows reduced because the peer echoed a mark.
    TcpMarksAnswered = "tcp-marks-answered",
    /// Keep-alives sent.
    TcpKeepAlives = "tcp-keep-alives",
    /// Zero-window probes sent.
    TcpWindowProbes = "tcp-window-probes",
    /// Segments that were what was expected, and went the short way.
    TcpPredicted = "tcp-predicted",
    /// Pages that stood nowhere, given back.
    FoundPageLost = "found-page-lost",
    /// Records of segments in flight that stood in no list, given back.
    FoundRecordLost = "found-record-lost",
    /// Connections, entries, contexts and listeners that nobody had, given back.
    FoundPlaceLost = "found-place-lost",
    /// Places of the table of 4-tuples that led to nobody, given back.
    FoundTupleLeft = "found-tuple-left",
    /// Connections, entries and contexts with a timer missing or stuck, set anew.
    FoundTimerLost = "found-timer-lost",
    /// Connections that are no more with a timer, which was stopped.
    FoundTimerLeft = "found-timer-left",
    /// Pools whose gauge did not say what they are made of, corrected.
    FoundPoolMiscounted = "found-pool-miscounted",
    /// Times that the counters of frames did not balance; the sum was corrected.
    FoundCountersDamaged = "found-counters-damaged",
    /// Connections broken off because their payload was not as it had been stored.
    FoundDataDamaged = "found-data-damaged",
    /// Connections broken off because their block did not pass its check.
    FoundStateDamaged = "found-state-damaged",
    /// Boots anew without state, of a firmware that had stopped.
    FirmwareResets = "firmware-resets",
    /// Starts over the tables, of a firmware that had stopped.
    FirmwareRestarts = "firmware-restarts",
    /// Times that data had to wait for a transmit record.
    TcpNoTransmitRecord = "tcp-no-transmit-record",
}

impl Counter {
    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }
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
        let value = &mut self.values[counter as usize];
        *value = value.wrapping_add(1);
    }

    /// One of them, by chance, has that value.
    pub fn corrupt(&mut self, value: u64) {
        self.values[(value % NAMES.len() as u64) as usize] = value;
    }

    /// What one says.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize]
    }

    /// Says something else from now on.
    pub fn set(&mut self, counter: Counter, value: u64) {
        self.values[counter as usize] = value;
    }

    /// Of the frames of a side (`wire` or `guest`), those that were taken, passed on, or dropped for a reason.
    pub fn accounted(&self, side: &str) -> u64 {
        let is_one = |name: &str| {
            let rest = name.strip_prefix(side).and_then(|rest| rest.strip_prefix('-'));
            rest.is_some_and(|rest| rest == "taken" || rest == "passed" || rest.starts_with("drop-"))
        };
        NAMES.iter().zip(&self.values).filter(|(name, _)| is_one(name)).map(|(_, value)| value).sum()
    }

    /// How many counters there are.
    pub fn count() -> usize {
        NAMES.len()
    }

    /// Their names and what each counts, in the same order.
    pub fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
        NAMES.iter().zip(TEXTS).map(|(name, text)| (*name, text.trim()))
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = StatEntry<'static>> + '_ {
        NAMES.iter().zip(&self.values).map(|(&name, &value)| StatEntry { name, value })
    }
}

//! Where faults can strike: the list of all sites.
//!
//! The list makes the names, what each can do, the table in `docs/fault-sites.md`, and a test that none is without an
//! effect. A site is a place that something passes, and each time is a passage.

use super::action::ActionKind;
use crate::pool::Pool;
use crate::tcp::timeout;

/// Who asks at a site and does what its rules say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// The firmware.
    Firmware,
    /// What stands around it: the device, or the simulator in its place.
    Device,
}

/// What is known of whatever passes a site, so that a filter can ask for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum About {
    /// Nothing.
    Nothing,
    /// A connection: its ends, its state, its context.
    Connection,
    /// A segment: the flags, too.
    Segment,
}

macro_rules! sites {
    ($( $(#[doc = $doc:literal])+ $name:ident = $text:literal, $by:ident, $about:ident, [$($kind:ident),+]; )*) => {
        /// A place that something passes.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(usize)]
        pub enum Site { $( $(#[doc = $doc])+ $name, )* }

        impl Site {
            /// All of them.
            pub const ALL: [Self; [$(Self::$name),*].len()] = [$(Self::$name),*];

            /// Its stable name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Who asks there.
            pub fn by(self) -> By {
                match self { $(Self::$name => By::$by,)* }
            }

            /// What is known of what passes there.
            pub fn about(self) -> About {
                match self { $(Self::$name => About::$about,)* }
            }

            /// What can happen there.
            pub fn actions(self) -> &'static [ActionKind] {
                match self { $(Self::$name => &[$(ActionKind::$kind),+],)* }
            }

            /// What passes there, in a sentence or two.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)* }
            }
        }
    };
}

sites! {
    /// A frame from the wire, before the card has it.
    WireRx = "wire.rx.frame", Device, Segment, [Drop, Duplicate, Delay, FlipBit, Truncate, Reorder];
    /// A frame of the card for the wire.
    WireTx = "wire.tx.frame", Device, Segment, [Drop, Duplicate, Delay, FlipBit, Truncate, Reorder];
    /// A channel frame of the guest, before the card has it. The channel is memory: it loses and repeats, but has no
    /// checksum by which damage would show.
    ChannelRx = "channel.rx.frame", Device, Nothing, [Drop, Duplicate, Delay];
    /// A channel frame of the card for the guest.
    ChannelTx = "channel.tx.frame", Device, Nothing, [Drop, Duplicate, Delay];
    /// The host is about to call the card because a timer is due. Lost, it looks again a second later.
    TimerWake = "timer.wake", Device, Nothing, [Drop, Duplicate, Delay];
    /// The link, whenever a frame would pass it either way: `drop` takes it down at that moment, `hang` for so long.
    WireLink = "wire.link", Device, Nothing, [Drop, Hang];
    /// The guest's doorbell of a transmit queue. One that is not heard is found within 50 ms.
    KickTx = "virtio.kick.tx", Device, Nothing, [Drop, Duplicate, Delay];
    /// The guest's doorbell of a receive queue. One that is not heard is found within 50 ms.
    KickRx = "virtio.kick.rx", Device, Nothing, [Drop, Duplicate, Delay];
    /// The card's interrupt of a transmit queue. `corrupt`: there are so many of them, a storm.
    CallTx = "virtio.call.tx", Device, Nothing, [Drop, Duplicate, Delay, Corrupt];
    /// The card's interrupt of a receive queue. `corrupt`: there are so many of them, a storm.
    CallRx = "virtio.call.rx", Device, Nothing, [Drop, Duplicate, Delay, Corrupt];
    /// The index of a receive queue's used ring, when it is written. `drop`: it is not, and the driver goes on with the next one; `error`: what was used last has an id of no buffer, and the driver must be reset.
    UsedIndex = "virtio.used.index", Device, Nothing, [Drop, Error];
    /// A frame that is read from guest memory. `truncate`: what is behind is zeros; `error`: it is torn, every other 64 bytes are zeros; `corrupt`: another buffer of the same ring is read.
    DmaTxRead = "dma.tx.read", Device, Segment, [Drop, Duplicate, Delay, FlipBit, Truncate, Error, Corrupt];
    /// A frame that is written to guest memory. `truncate`: what is behind is zeros; `error`: it is torn, every other 64 bytes are zeros; `corrupt`: another buffer of the same ring is written.
    DmaRxWrite = "dma.rx.write", Device, Segment, [Drop, Duplicate, Delay, FlipBit, Truncate, Error, Corrupt];
    /// The checksum of a segment, when it is looked at: `error` takes a right one for wrong, `corrupt` a wrong one
    /// for right.
    RxChecksum = "wire.rx.checksum", Firmware, Segment, [Error, Corrupt];
    /// The checksum of a connection's segment, when it has been computed.
    TxChecksum = "wire.tx.checksum", Firmware, Segment, [FlipBit, Corrupt];
    /// The text of a segment whose checksum was right, when it lies in the card's memory.
    PayloadRx = "payload.rx", Firmware, Segment, [FlipBit];
    /// The text of a segment to be sent, in the card's memory, before the checksum is computed.
    PayloadTx = "payload.tx", Firmware, Connection, [FlipBit];
    /// The processor, at each call on the firmware. It hangs for so long or until it is reset, crashes (which until
    /// the reset is the same, and says what the reset will find), or is slower by a factor.
    Processor = "processor", Firmware, Nothing, [Hang, Crash, CrashKept, Slow];
    /// The clock as the firmware sees it, at each call: it jumps ahead, stands still, or is slower by a factor.
    Clock = "clock", Firmware, Nothing, [Jump, Hang, Slow];
    /// An initial sequence number. `error`: it is the clock alone, which anybody can predict.
    Isn = "isn", Firmware, Connection, [Error, Corrupt];
    /// A key of initial sequence numbers or cookies, when it is used. `error`: it is all zeros.
    Key = "key", Firmware, Nothing, [Error];
    /// The next hop of a connection, when it sends: from now on it is a station that is not there.
    Neighbour = "neighbour", Firmware, Connection, [Corrupt];
    /// An event for the host: it is lost without a trace, or repeated until the queue is full.
    Events = "events", Firmware, Nothing, [Drop, Duplicate];
    /// The counters, at each call: one of them, by chance, has another value.
    Counters = "counters", Firmware, Nothing, [Corrupt];
    /// A context is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocContexts = "pool.contexts.alloc", Firmware, Nothing, [Error, Leak];
    /// A guest's address is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocContextAddresses = "pool.context_addresses.alloc", Firmware, Nothing, [Error, Leak];
    /// A connection is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocConnections = "pool.connections.alloc", Firmware, Connection, [Error, Leak];
    /// A listener is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocListeners = "pool.listeners.alloc", Firmware, Nothing, [Error, Leak];
    /// A place in a backlog is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocBacklog = "pool.backlog.alloc", Firmware, Connection, [Error, Leak];
    /// A half-open entry is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocHalfOpen = "pool.half_open.alloc", Firmware, Connection, [Error, Leak];
    /// A TIME-WAIT entry is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocTimeWait = "pool.time_wait.alloc", Firmware, Connection, [Error, Leak];
    /// A page of data to send is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocSendPages = "pool.send_pages.alloc", Firmware, Connection, [Error, Leak];
    /// A page of received data is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocReceivePages = "pool.receive_pages.alloc", Firmware, Connection, [Error, Leak];
    /// A record of a segment in flight is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocTransmitRecords = "pool.transmit_records.alloc", Firmware, Connection, [Error, Leak];
    /// A stretch of data beyond a gap is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocOutOfOrderRanges = "pool.out_of_order_ranges.alloc", Firmware, Connection, [Error, Leak];
    /// A place for a 4-tuple is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocTuples = "pool.tuples.alloc", Firmware, Connection, [Error, Leak];
    /// A timer that begins to run is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocTimers = "pool.timers.alloc", Firmware, Connection, [Error, Leak];
    /// A segment that no connection sends is taken. `error`: as if there was none; `leak`: one more is taken and
    /// lost.
    AllocSegments = "pool.segments.alloc", Firmware, Connection, [Error, Leak];
    /// An answer to a guest is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocReplies = "pool.replies.alloc", Firmware, Nothing, [Error, Leak];
    /// An event for the host is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocEvents = "pool.events.alloc", Firmware, Nothing, [Error, Leak];
    /// A server's Fast Open cookie is taken. `error`: as if there was none; `leak`: one more is taken and lost.
    AllocFastOpenServers = "pool.fast_open_servers.alloc", Firmware, Connection, [Error, Leak];
    /// A connection that is open by Fast Open alone is taken. `error`: as if there was none; `leak`: one more is
    /// taken and lost.
    AllocFastOpenPending = "pool.fast_open_pending.alloc", Firmware, Connection, [Error, Leak];
    /// A frame that waits for the processor is taken. `error`: as if there was none; `leak`: one more is taken and
    /// lost.
    AllocWireFifo = "pool.wire_fifo.alloc", Firmware, Nothing, [Error, Leak];
    /// A segment of a connection that waits for the processor is taken. `error`: as if there was none; `leak`: one more
    /// is taken and lost.
    AllocConnectionFifo = "pool.connection_fifo.alloc", Firmware, Nothing, [Error, Leak];
    /// A context is given back: it never comes back.
    FreeContexts = "pool.contexts.free", Firmware, Nothing, [Leak];
    /// A guest's address is given back: it never comes back.
    FreeContextAddresses = "pool.context_addresses.free", Firmware, Nothing, [Leak];
    /// A connection is given back: it never comes back.
    FreeConnections = "pool.connections.free", Firmware, Connection, [Leak];
    /// A listener is given back: it never comes back.
    FreeListeners = "pool.listeners.free", Firmware, Nothing, [Leak];
    /// A place in a backlog is given back: it never comes back.
    FreeBacklog = "pool.backlog.free", Firmware, Connection, [Leak];
    /// A half-open entry is given back: it never comes back.
    FreeHalfOpen = "pool.half_open.free", Firmware, Connection, [Leak];
    /// A TIME-WAIT entry is given back: it never comes back.
    FreeTimeWait = "pool.time_wait.free", Firmware, Connection, [Leak];
    /// A page of data to send is given back: it never comes back.
    FreeSendPages = "pool.send_pages.free", Firmware, Connection, [Leak];
    /// A page of received data is given back: it never comes back.
    FreeReceivePages = "pool.receive_pages.free", Firmware, Connection, [Leak];
    /// A record of a segment in flight is given back: it never comes back.
    FreeTransmitRecords = "pool.transmit_records.free", Firmware, Connection, [Leak];
    /// A stretch of data beyond a gap is given back: it never comes back.
    FreeOutOfOrderRanges = "pool.out_of_order_ranges.free", Firmware, Connection, [Leak];
    /// A place for a 4-tuple is given back: it never comes back.
    FreeTuples = "pool.tuples.free", Firmware, Connection, [Leak];
    /// A timer that begins to run is given back: it never comes back.
    FreeTimers = "pool.timers.free", Firmware, Connection, [Leak];
    /// A segment that no connection sends is given back: it never comes back.
    FreeSegments = "pool.segments.free", Firmware, Connection, [Leak];
    /// An answer to a guest is given back: it never comes back.
    FreeReplies = "pool.replies.free", Firmware, Nothing, [Leak];
    /// An event for the host is given back: it never comes back.
    FreeEvents = "pool.events.free", Firmware, Nothing, [Leak];
    /// A server's Fast Open cookie is given back: it never comes back.
    FreeFastOpenServers = "pool.fast_open_servers.free", Firmware, Connection, [Leak];
    /// A connection that is open by Fast Open alone is given back: it never comes back.
    FreeFastOpenPending = "pool.fast_open_pending.free", Firmware, Connection, [Leak];
    /// A frame that waits for the processor is given back: it never comes back.
    FreeWireFifo = "pool.wire_fifo.free", Firmware, Nothing, [Leak];
    /// A segment of a connection that waits for the processor is given back: it never comes back.
    FreeConnectionFifo = "pool.connection_fifo.free", Firmware, Nothing, [Leak];
    /// Of a connection's block, when a segment arrives: the state, by Linux's number (1 is ESTABLISHED); a number of
    /// none leaves it.
    TcbState = "tcb.state", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: ISS.
    TcbIss = "tcb.iss", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: SND.UNA.
    TcbSndUna = "tcb.snd_una", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: SND.NXT.
    TcbSndNxt = "tcb.snd_nxt", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: the end of what was ever sent.
    TcbSndMax = "tcb.snd_max", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: the end of what the program gave.
    TcbSndEnd = "tcb.snd_end", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: SND.WND, in bytes.
    TcbSndWnd = "tcb.snd_wnd", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: SND.WL1.
    TcbSndWl1 = "tcb.snd_wl1", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: SND.WL2.
    TcbSndWl2 = "tcb.snd_wl2", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: the shift of the peer's windows.
    TcbSndScale = "tcb.snd_scale", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: the largest segment that is sent, in bytes.
    TcbMss = "tcb.mss", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: the congestion window, in bytes.
    TcbCwnd = "tcb.cwnd", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: the slow start threshold, in bytes.
    TcbSsthresh = "tcb.ssthresh", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: the smoothed round trip, in microseconds.
    TcbSrtt = "tcb.srtt", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: the retransmission timeout: how often it has been doubled.
    TcbRto = "tcb.rto", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: IRS.
    TcbIrs = "tcb.irs", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: RCV.NXT.
    TcbRcvNxt = "tcb.rcv_nxt", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: RCV.WND, in bytes.
    TcbRcvWnd = "tcb.rcv_wnd", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: the shift of our windows.
    TcbRcvScale = "tcb.rcv_scale", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: TS.Recent.
    TcbTsRecent = "tcb.ts_recent", Firmware, Segment, [Corrupt];
    /// Of a connection's block, when a segment arrives: Last.ACK.sent.
    TcbLastAckSent = "tcb.last_ack_sent", Firmware, Segment, [Corrupt];
    /// A timer that begins to run: retransmission, reordering, tail probe and window probe.
    TimerRetransmit = "timer.retransmit", Firmware, Connection, [Drop, Duplicate, Delay, Early, Hang];
    /// A timer that begins to run: a delayed acknowledgement.
    TimerDelayedAck = "timer.delayed_ack", Firmware, Connection, [Drop, Duplicate, Delay, Early, Hang];
    /// A timer that begins to run: an abandoned FIN-WAIT-2.
    TimerLinger = "timer.linger", Firmware, Connection, [Drop, Duplicate, Delay, Early, Hang];
    /// A timer that begins to run: telling the guest again.
    TimerGuest = "timer.guest", Firmware, Connection, [Drop, Duplicate, Delay, Early, Hang];
    /// A timer that begins to run: a keep-alive.
    TimerKeepAlive = "timer.keep_alive", Firmware, Connection, [Drop, Duplicate, Delay, Early, Hang];
    /// A timer that begins to run: a paced segment.
    TimerPace = "timer.pace", Firmware, Connection, [Drop, Duplicate, Delay, Early, Hang];
    /// A timer that begins to run: sending a SYN-ACK again.
    TimerHalfOpen = "timer.half_open", Firmware, Connection, [Drop, Duplicate, Delay, Early, Hang];
    /// A timer that begins to run: the end of TIME-WAIT.
    TimerTimeWait = "timer.time_wait", Firmware, Connection, [Drop, Duplicate, Delay, Early, Hang];
    /// A timer that begins to run: the lease of a context.
    TimerLease = "timer.lease", Firmware, Nothing, [Drop, Duplicate, Delay, Early, Hang];
    /// A bug: the window field is written in the wrong byte order.
    BugByteOrder = "bug.byte_order", Firmware, Connection, [Error];
    /// A bug: segments are cut without regard to the peer's MSS.
    BugMss = "bug.mss", Firmware, Connection, [Error];
    /// A bug: the peer's window is taken without its shift.
    BugWindowScale = "bug.window_scale", Firmware, Connection, [Error];
    /// A bug: the urgent pointer points to one octet too far.
    BugUrgent = "bug.urgent", Firmware, Connection, [Error];
    /// A bug: data is acknowledged up to one octet short.
    BugAckOffByOne = "bug.ack_off_by_one", Firmware, Connection, [Error];
    /// A bug: a window is believed from old segments, too.
    BugWindowUpdate = "bug.window_update", Firmware, Connection, [Error];
    /// A bug: the echo of a timestamp is one tick ahead.
    BugTimestampEcho = "bug.timestamp_echo", Firmware, Connection, [Error];
    /// A bug: a reset anywhere in the window is believed.
    BugResetInWindow = "bug.reset_in_window", Firmware, Connection, [Error];
    /// A bug: a closed window is never probed.
    BugZeroWindow = "bug.zero_window", Firmware, Connection, [Error];
    /// A bug: the last segment of what is queued goes without PSH.
    BugLostPush = "bug.lost_push", Firmware, Connection, [Error];
}

/// How many there are.
pub const SITES: usize = Site::ALL.len();

// A bit for each in the word that says which are armed.
const _: () = assert!(SITES <= u128::BITS as usize);

impl Site {
    /// The site of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Its number in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its bit in a word of sites.
    pub const fn bit(self) -> u128 {
        1 << self as usize
    }

    /// Where one of a pool is taken.
    pub(crate) const fn alloc(pool: Pool) -> Self {
        Self::ALL[Self::AllocContexts as usize + pool as usize]
    }

    /// Where one of a pool is given back.
    pub(crate) const fn free(pool: Pool) -> Self {
        Self::ALL[Self::FreeContexts as usize + pool as usize]
    }

    /// Where a timer of a connection runs out.
    pub(crate) const fn timer(kind: timeout::Kind) -> Self {
        Self::ALL[Self::TimerRetransmit as usize + kind as usize]
    }

    /// The sites of timers.
    pub(crate) const TIMERS: u128 = (Self::TimerLease.bit() << 1) - Self::TimerRetransmit.bit();

    /// The sites of bugs in what is said of a segment, when everything else of it is known.
    pub(crate) const SAYING: u128 = Self::BugByteOrder.bit()
        | Self::BugUrgent.bit()
        | Self::BugAckOffByOne.bit()
        | Self::BugTimestampEcho.bit()
        | Self::BugLostPush.bit();

    /// The sites of a connection's block, a bit for each.
    pub(crate) const BLOCK: u128 = (Self::TcbLastAckSent.bit() << 1) - Self::TcbState.bit();

    /// The table of all sites in `docs/fault-sites.md`.
    pub fn table() -> String {
        let head = "| site | what passes there | actions | of | filters |\n|---|---|---|---|---|\n";
        Self::ALL.iter().fold(head.to_owned(), |table, site| {
            let actions: Vec<_> = site.actions().iter().map(|a| format!("`{}`", a.name())).collect();
            let by = match site.by() {
                By::Firmware => "firmware",
                By::Device => "device",
            };
            let filters = match site.about() {
                About::Nothing => "–",
                About::Connection => "ends, state, context",
                About::Segment => "ends, state, context, flags",
            };
            let text = site.text().trim().trim_end_matches('.');
            table + &format!("| `{}` | {text} | {} | {by} | {filters} |\n", site.name(), actions.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_those_of_pools_and_timers_follow_their_lists() {
        for (i, site) in Site::ALL.into_iter().enumerate() {
            assert_eq!(site.index(), i);
            assert_eq!(Site::named(site.name()), Some(site));
        }
        for &pool in Pool::ALL {
            let field = pool.policy_field().trim_start_matches("policy.");
            assert_eq!(Site::alloc(pool).name(), format!("pool.{field}.alloc"));
            assert_eq!(Site::free(pool).name(), format!("pool.{field}.free"));
        }
        let timers = timeout::Kind::ALL.map(|kind| Site::timer(kind).name());
        let names = ["retransmit", "delayed_ack", "linger", "guest", "keep_alive", "pace"];
        assert_eq!(timers, names.map(|name| format!("timer.{name}")));
        for site in Site::ALL {
            assert_eq!(Site::BLOCK & site.bit() != 0, site.name().starts_with("tcb."), "{}", site.name());
            let is_timer = site.name().starts_with("timer.") && site != Site::TimerWake;
            assert_eq!(Site::TIMERS & site.bit() != 0, is_timer, "{}", site.name());
        }
    }

    /// `docs/fault-sites.md` has the table as it is here.
    #[test]
    fn the_documented_table_is_this_list() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fault-sites.md");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let table = Site::table();
        assert!(text.contains(&table), "docs/fault-sites.md must have this table:\n\n{table}");
    }
}

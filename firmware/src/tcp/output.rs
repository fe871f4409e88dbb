//! What to send next.
//!
//! The engine calls [`next_segment`] when it is the connection's turn, and again until it gives `None`. In the order
//! of urgency: a reset, the handshake, what was lost, probes, new data, a bare acknowledgement. Every segment of a
//! synchronized connection acknowledges what there is to acknowledge.

use crate::counters::Counter;
use crate::fault::Site;
use crate::seq::{Position, Seq};
use crate::tcp::bugs;
use crate::tcp::receive::{AckNeed, Receiver};
use crate::tcp::records::RecordSlot;
use crate::tcp::tcb::{Due, State, Store, Tcb, initial_window};
use crate::time::Instant;
use crate::wire::options::{Options, SackBlocks, Timestamps};
use crate::wire::segment::Flags;
use crate::work::Steps;

/// A segment to be sent; the text lies in the sender's stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK.
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// The window field.
    pub window: u16,
    /// Options.
    pub options: Options,
    /// Where its text begins.
    pub text_at: Position,
    /// How long it is, in bytes.
    pub text_bytes: usize,
    /// The urgent pointer.
    pub urgent: Option<u16>,
    /// Its packet may be marked instead of dropped (RFC 3168).
    pub ecn_capable: bool,
}

/// The next segment, as if it were sent now.
pub fn next_segment(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    let mut segment = choose(t, store, now)?;
    if segment.flags.0 & (Flags::SYN | Flags::RST).0 == 0 {
        segment.urgent = t.send.urgent.say(segment.text_at);
        // RFC 3168, 6.1.3: "in the TCP header of all ACK packets", bare ones and data.
        if t.agreed.ecn && t.receive.echo.is_on {
            segment.flags = segment.flags | Flags::ECE;
        }
    }
    if store.faults.has_any(Site::SAYING) {
        bugs::say_wrongly(&mut segment, &store.faults);
    }
    t.figures.segments_out += 1;
    t.figures.bytes_sent += segment.text_bytes as u64;
    store.counters.add(Counter::TcpSegmentsOut);
    Some(segment)
}

/// Whether [`next_segment`] might find something. After most of what happens it would not, and a turn costs more than this. What a
/// turn notes when there is nothing to send is noted here.
pub fn wants_a_turn(t: &mut Tcb) -> bool {
    match t.state {
        _ if t.reset_due => true,
        State::Closed | State::TimeWait => false,
        State::SynSent | State::SynReceived => true,
        _ => {
            let has_data = t.send.last() > t.send.nxt;
            if !has_data {
                t.recovery.limited_by_program(&t.send);
            }
            has_data
                || t.receive.ack == AckNeed::Now
                || t.due != Due::None
                || t.send.records.first_lost().is_some()
                || t.user_timeout.is_due()
                || t.send.urgent.is_due(t.send.nxt)
        }
    }
}

fn choose(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    if std::mem::take(&mut t.reset_due) {
        store.counters.add(Counter::TcpResetsOut);
        return Some(bare(t, store, now, t.send.nxt, Flags::RST | Flags::ACK));
    }
    match t.state {
        State::Closed | State::TimeWait => None,
        State::SynReceived if t.fast_open.is_pending() && t.due != Due::Syn => {
            // The answer to what the SYN brought need not wait for the end of the handshake (RFC 7413, 4.2.2).
            new_data(t, store, now, false).or_else(|| acknowledgement(t, store, now))
        }
        State::SynSent | State::SynReceived => handshake(t, store, now),
        _ => user_timeout(t, store, now)
            .or_else(|| lost(t, store, now))
            .or_else(|| tail_probe(t, store, now))
            .or_else(|| new_data(t, store, now, false))
            .or_else(|| window_probe(t, store, now))
            .or_else(|| urgent_mark(t, store, now))
            .or_else(|| keep_alive(t, store, now))
            .or_else(|| fin_again(t, store, now))
            .or_else(|| acknowledgement(t, store, now)),
    }
}

/// The SYN or the SYN-ACK.
fn handshake(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    if t.due != Due::Syn {
        return acknowledgement(t, store, now);
    }
    if t.fast_open.waits_until().is_some_and(|at| at > now) && t.send.end == t.send.iss + 1 && !t.send.fin {
        return None;
    }
    t.fast_open.stop_waiting();
    t.due = Due::None;
    let fast_open = t.fast_open.option(t.syn_transmissions, now);
    let mut text_bytes = 0;
    if t.syn_transmissions == 0 {
        t.progress_at = now;
        t.send.nxt = t.send.iss + 1;
        text_bytes = t.syn_text_bytes();
        let (stamp, text_end) = (t.recovery.stamp(&t.send, now), t.send.nxt + text_bytes);
        if text_bytes > 0 && t.send.records.push(&mut store.records, t.send.nxt, text_end, stamp, now) {
            t.send.nxt = text_end;
        } else {
            text_bytes = 0;
        }
        t.send.max = t.send.nxt;
    } else {
        t.figures.retransmits += 1;
        store.counters.add(Counter::TcpRetransmits);
    }
    t.syn_transmissions += 1;
    t.timer_from = now;
    let first = t.state == State::SynSent;
    // A SYN offers everything; a SYN-ACK only what the SYN offered.
    let timestamps = first || t.agreed.timestamps;
    let window_scale = if first {
        Some(Receiver::shift_for(store.config.receive_bytes_max))
    } else {
        t.agreed.window_scale.then_some(t.receive.shift)
    };
    t.receive.shift = window_scale.unwrap_or(0);
    let options = Options {
        //= docs/specs/rfc9293.txt#section-3.7.1
        //# TCP endpoints MUST implement both sending and receiving the MSS Option (MUST-14).
        //= docs/specs/rfc9293.txt#section-3.7.1
        //# MAY send it always (MAY-3).
        mss: Some(t.receive_mss() as u16),
        window_scale,
        sack_permitted: first || t.agreed.sack,
        timestamps: timestamps
            .then(|| Timestamps { value: t.timestamp_value(now), echo: if first { 0 } else { t.receive.timestamp } }),
        fast_open,
        ..Options::default()
    };
    // A SYN that is not answered asks for no ECN when it is sent again: something on the way may drop it for that.
    let setup = if t.asks_for_ecn() && t.syn_transmissions == 1 { Flags::ECE | Flags::CWR } else { Flags(0) };
    let (ack, flags) = if first {
        (Seq(0), Flags::SYN | setup)
    } else {
        t.receive.last_ack_sent = t.receive.nxt;
        t.receive.ack = AckNeed::None;
        let echo = if t.agreed.ecn { Flags::ECE } else { Flags(0) };
        (t.receive.nxt.seq(), Flags::SYN | Flags::ACK | echo)
    };
    let window = syn_window(t, store, first);
    Some(Outgoing {
        seq: t.send.iss.seq(),
        ack,
        flags,
        window,
        options,
        text_at: t.send.iss + 1,
        text_bytes: text_bytes as usize,
        urgent: None,
        ecn_capable: false,
    })
}

/// The window of a SYN is never scaled (RFC 7323, 2.2). Before the peer's SYN there is no stream behind it; but until
/// it has our next segment, with a window that is backed by pages, the peer has no leave to send.
fn syn_window(t: &mut Tcb, store: &mut Store, first: bool) -> u16 {
    if first {
        return store.config.receive_bytes_max.min(65_535) as u16;
    }
    t.receive.advertise(&mut store.receive);
    t.receive.window().min(65_535) as u16
}

/// A segment without text.
fn bare(t: &mut Tcb, store: &mut Store, now: Instant, seq: Position, flags: Flags) -> Outgoing {
    let options = data_options(t, &store.steps, now);
    acknowledging(
        t,
        store,
        Outgoing {
            seq: seq.seq(),
            ack: Seq(0),
            flags,
            window: 0,
            options,
            text_at: seq,
            text_bytes: 0,
            urgent: None,
            ecn_capable: false,
        },
    )
}

/// Fills in acknowledgement and window; what was owed is paid.
fn acknowledging(t: &mut Tcb, store: &mut Store, segment: Outgoing) -> Outgoing {
    t.receive.ack = AckNeed::None;
    if t.receive.twice.take().is_some() && t.agreed.sack {
        store.counters.add(Counter::TcpDsacksOut);
    }
    t.receive.last_ack_sent = t.receive.nxt;
    let window = t.receive.advertise(&mut store.receive);
    Outgoing { ack: t.receive.nxt.seq(), window, ..segment }
}

/// The options of a segment that is no SYN.
//= docs/specs/rfc9293.txt#section-3.2
//# This field may be sent in the initial connection request (i.e., in segments with the SYN control bit set) and
//# MUST NOT be sent in other segments (MUST-65).
fn data_options(t: &Tcb, steps: &Steps, now: Instant) -> Options {
    let timestamps =
        t.agreed.timestamps.then(|| Timestamps { value: t.timestamp_value(now), echo: t.receive.timestamp });
    let sack = if t.agreed.sack { t.receive.sack_blocks(steps) } else { SackBlocks::default() };
    Options { timestamps, sack, ..Options::default() }
}

/// The most text beside these options: MUST-16 counts them. And no more than half of what the peer can take or we can
/// hold: with segments as long as the buffer only one could be under way, and none that fills what is left.
fn text_max(t: &Tcb, options: &Options) -> u64 {
    let blocks = options.sack.as_slice().len().min(if t.agreed.timestamps { 3 } else { 4 }) as u64;
    let sack_bytes = if blocks == 0 { 0 } else { 4 + 8 * blocks };
    let held = t.send.cramped().unwrap_or(t.send.buffer_max);
    let half = u64::from(t.send.window_max).min(held) / 2;
    let half = if half < HALF_MIN { u64::MAX } else { half };
    u64::from(t.send.mss).saturating_sub(sack_bytes).min(half).max(1)
}

/// The least half of a window that bounds a segment, in bytes: a peer with a smaller window gets what fits.
const HALF_MIN: u64 = 536;

/// How many SACK blocks there is room for beside so much text.
fn blocks_max(t: &Tcb, text_bytes: u64) -> usize {
    (u64::from(t.send.mss).saturating_sub(text_bytes + 4) / 8) as usize
}

/// A segment with the octets from `start` to `end`, of which the last may be our FIN.
fn data(t: &mut Tcb, store: &mut Store, now: Instant, start: Position, end: Position) -> Outgoing {
    let mut options = data_options(t, &store.steps, now);
    let fin = t.send.fin && end > t.send.end;
    let text_end = end.min(t.send.end);
    t.path_sent(start, text_end);
    let (ack, twice) = (t.receive.ack, t.receive.twice);
    t.receive.dialogue |= matches!(ack, AckNeed::Delayed(_));
    let room = blocks_max(t, text_end.since(start));
    let is_silent = options.sack.as_slice().len() > room;
    options.sack.truncate(room);
    if room == 0 {
        // What came twice is said by the next segment that has room for it.
        t.receive.twice = None;
    }
    let mut flags = Flags::ACK;
    if fin {
        flags = flags | Flags::FIN;
    }
    //= docs/specs/rfc9293.txt#section-3.9.1.2
    //# MUST set the PSH bit in the last buffered segment (i.e., when there is no more queued data to be sent)
    //# (MUST-61).
    //= docs/specs/rfc9293.txt#section-3.9.1.2
    //# The transmitter SHOULD collapse successive bits when it packetizes data, to send the largest possible
    //# segment (SHLD-27).
    if text_end == t.send.end && text_end > start {
        // RFC 9293, 3.9.1.2, MUST-61: the last of what is queued is pushed.
        flags = flags | Flags::PSH;
    }
    let segment = acknowledging(
        t,
        store,
        Outgoing {
            seq: start.seq(),
            ack: Seq(0),
            flags,
            window: 0,
            options,
            text_at: start,
            text_bytes: text_end.since(start) as usize,
            urgent: None,
            ecn_capable: false,
        },
    );
    if is_silent {
        // Not all was said that an acknowledgement should say (RFC 2018, section 4): one of its own follows, if owed.
        t.receive.ack = ack;
        if room == 0 {
            t.receive.twice = twice;
        }
    }
    segment
}

impl Tcb {
    /// Whether the pace lets a segment go now; if not, a timer will say when.
    fn may_go(&self, now: Instant) -> bool {
        self.recovery.pacing.allows(self.recovery.pace(), now)
    }
}

/// A lost segment, if the window allows one.
fn lost(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    if t.recovery.holds_retransmissions() {
        return None;
    }
    let slot = t.send.records.first_lost()?;
    if !t.may_go(now) {
        return None;
    }
    let record = *store.records.get(slot);
    let nothing_in_network = t.recovery.in_network(&t.send) == 0;
    // Of a record that the path does not take any more, only the first part goes.
    if !nothing_in_network && t.recovery.allowance(&t.send) < record.len().min(t.send.mss.into()) {
        return None;
    }
    // The peer may have drawn its window back (SHLD-16): only the first octets may then go, as a probe.
    //= docs/specs/rfc9293.txt#section-3.8.6
    //# SHOULD retransmit normally the old unacknowledged data between SND.UNA and SND.UNA+SND.WND (SHLD-16).
    //= docs/specs/rfc9293.txt#section-3.8.6
    //# However, a sending TCP peer MUST be robust against window shrinking, which may cause the "usable window"
    //# (see Section 3.8.6.2.1) to become negative (MUST-34).
    //= docs/specs/rfc9293.txt#section-3.8.6
    //# If the window shrinks to zero, the TCP implementation MUST probe it in the standard way (described below)
    //# (MUST-35).
    if record.start >= t.send.edge() && record.start > t.send.una {
        return None;
    }
    Some(again(t, store, now, slot))
}

/// Sends a record again.
fn again(t: &mut Tcb, store: &mut Store, now: Instant, slot: RecordSlot) -> Outgoing {
    // SACK blocks may have come since: what does not fit beside them becomes a record of its own. Without a record
    // for that, the text goes as it is and the blocks are left out.
    let most = text_max(t, &data_options(t, &store.steps, now));
    let record = *store.records.get(slot);
    let text_bytes = record.end.min(t.send.end).since(record.start);
    let end = if text_bytes > most && t.send.records.split(&mut store.records, slot, record.start + most) {
        record.start + most
    } else if text_bytes > u64::from(t.send.mss) {
        // The path does not take more: what is left of the record waits until this is acknowledged.
        record.start + u64::from(t.send.mss)
    } else {
        record.end
    };
    if record.start == t.send.una {
        t.timer_from = now;
    }
    store.counters.add(Counter::TcpRetransmits);
    t.figures.retransmits += 1;
    let timestamp = t.timestamp_value(now);
    t.recovery.retransmitted(&mut t.send, &mut store.records, slot, now, timestamp);
    t.recovery.pacing.sent(t.recovery.pace(), end.since(record.start), now);
    data(t, store, now, record.start, end)
}

/// RFC 8985, 7.3: new data if there is some and the peer lets it in, else the last segment again.
fn tail_probe(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    if t.due != Due::TailProbe {
        return None;
    }
    t.due = Due::None;
    let last = t.send.records.last()?;
    store.counters.add(Counter::TcpTailProbes);
    t.timer_from = now;
    if let Some(segment) = new_data(t, store, now, true) {
        t.recovery.probe_sent(t.send.nxt, false);
        return Some(segment);
    }
    let end = store.records.get(last).end;
    let segment = again(t, store, now, last);
    t.recovery.probe_sent(end, true);
    Some(segment)
}

/// New data, and the FIN behind it.
///
/// Sender's side of silly window avoidance (RFC 9293, 3.8.6.2.1, MUST-38) and Nagle's algorithm (3.7.4, SHLD-7). A
/// probe does not ask the congestion window.
fn new_data(t: &mut Tcb, store: &mut Store, now: Instant, probe: bool) -> Option<Outgoing> {
    let start = t.send.nxt;
    let queued = t.send.last().since(start);
    let allowed = t.send.edge().since(start);
    if queued == 0 {
        t.recovery.limited_by_program(&t.send);
    }
    if let Some(probe) = t.probe_bytes(queued, allowed, now) {
        let segment = send_new(t, store, now, start + probe)?;
        t.probe_was_sent(store, start, start + probe);
        return Some(segment);
    }
    if queued > 0 && allowed > 0 && t.recovery.has_been_idle(&t.send, &t.rtt, now) {
        let initial = initial_window(store.config.initial_window, t.send.mss);
        if t.recovery.restart_after_idle(initial) {
            store.counters.add(Counter::TcpIdleRestarts);
        }
    }
    let length = new_octets(t, store, now, probe)?;
    let mut segment = send_new(t, store, now, start + length)?;
    t.send.burst += 1;
    // The receiver may wait for more to merge with this; where several went at once and no more may go, it shall not.
    if t.send.burst > 1 && segment.text_bytes > 0 && new_octets(t, store, now, false).is_none() {
        segment.flags = segment.flags | Flags::PSH;
    }
    Some(segment)
}

/// How many octets of new data, the FIN among them, the next segment may have.
pub(super) fn new_octets(t: &Tcb, store: &Store, now: Instant, probe: bool) -> Option<u64> {
    let start = t.send.nxt;
    let queued = t.send.last().since(start);
    if queued == 0 {
        return None;
    }
    let mss = text_max(t, &data_options(t, &store.steps, now));
    let allowed = t.send.edge().since(start);
    //= docs/specs/rfc9293.txt#section-3.9.1.2
    //# However, a TCP implementation SHOULD send a maximum-sized segment whenever possible (SHLD-28) to improve
    //# performance (see Section 3.8.6.2.1).
    //= docs/specs/rfc9293.txt#section-3.8.6
    //# If this happens, the sender SHOULD NOT send new data (SHLD-15)
    let mut length = queued.min(mss).min(allowed);
    // The FIN takes a number but no room.
    if length + 1 == queued && t.send.fin && length == mss && allowed > length {
        length += 1;
    }
    if length == 0 {
        return None;
    }
    // Our SYN, if it is not acknowledged yet, is nothing that an acknowledgement could be waited for.
    let alone = t.send.records.first().is_none();
    // A FIN by itself takes no room in the network: it does not wait for the congestion window.
    let only_fin = queued == 1 && t.send.fin;
    if !probe && !alone && !only_fin && t.recovery.allowance(&t.send) < length {
        return None;
    }
    if !probe && !only_fin && !t.may_go(now) {
        return None;
    }
    let full = length >= mss;
    // Behind the last octet for which there is room no other comes before an acknowledgement does: there is nothing to wait for.
    let is_full = t.send.cramped().is_some() && t.send.end == t.send.stream.limit();
    let at_once = alone || t.send.nodelay || t.send.fin || is_full || t.send.urgent.is_ahead_of(start);
    let everything = length == queued && at_once;
    let half_the_window = length >= u64::from(t.send.window_max / 2) && length == allowed;
    //= docs/specs/rfc9293.txt#section-3.9.1.2
    //# When an application issues a series of SEND calls without setting the PUSH flag, the TCP implementation MAY
    //# aggregate the data internally without sending it (MAY-16).
    //= docs/specs/rfc9293.txt#section-3.8.6.2.1
    //# A TCP implementation MUST include a SWS avoidance algorithm in the sender (MUST-38).
    //= docs/specs/rfc9293.txt#section-3.7.4
    //# A TCP implementation SHOULD implement the Nagle algorithm to coalesce short segments (SHLD-7).
    (full || everything || half_the_window || probe).then_some(length)
}

/// Counts the octets up to `end` as sent; `false` if no record is left for them.
pub(super) fn put_under_way(t: &mut Tcb, store: &mut Store, now: Instant, end: Position) -> bool {
    let start = t.send.nxt;
    let stamp = t.recovery.stamp(&t.send, now);
    if !t.send.records.push(&mut store.records, start, end, stamp, now) {
        return false;
    }
    if t.send.in_flight() == 0 {
        t.timer_from = now;
        t.progress_at = now;
    }
    t.send.nxt = end;
    t.send.max = t.send.max.max(end);
    t.recovery.sent(end.since(start), now);
    true
}

fn send_new(t: &mut Tcb, store: &mut Store, now: Instant, end: Position) -> Option<Outgoing> {
    let start = t.send.nxt;
    let sent_before = t.send.max;
    if !put_under_way(t, store, now, end) {
        store.counters.add(Counter::TcpNoTransmitRecord);
        store.records.gauge.refuse(toe_abi::Reason::TransmitRecords);
        return None;
    }
    let mut segment = data(t, store, now, start, end);
    t.recovery.pacing.sent(t.recovery.pace(), segment.text_bytes as u64, now);
    // 6.1.5: no text that was sent before. An octet that probed a closed window was, though it counts as sent only now.
    if t.agreed.ecn && start + segment.text_bytes as u64 > sent_before {
        //= docs/specs/rfc9293.txt#section-3.8.2
        //# A TCP endpoint SHOULD implement ECN as described in RFC 3168 (SHLD-8).
        segment.ecn_capable = true;
        // 6.1.2: "the first new data packet sent after the window reduction".
        if t.recovery.take_reduced() {
            segment.flags = segment.flags | Flags::CWR;
        }
    }
    Some(segment)
}

/// RFC 9293, 3.8.6.1: what a window too small for anything else must let in, or one octet beyond a closed one.
//= docs/specs/rfc9293.txt#section-3.8.6.1
//# Probing of zero (offered) windows MUST be supported (MUST-36).
//= docs/specs/rfc9293.txt#section-3.9.1.2
//# If PUSH flags are not implemented, then the sending TCP peer: (1) MUST NOT buffer data indefinitely (MUST-60)
fn window_probe(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    if t.due != Due::WindowProbe {
        return None;
    }
    t.due = Due::None;
    let queued = t.send.last().since(t.send.nxt);
    if store.faults.strike(Site::BugZeroWindow).is_some() {
        return None;
    }
    if queued == 0 || t.send.in_flight() > 0 {
        return None;
    }
    store.counters.add(Counter::TcpWindowProbes);
    let allowed = t.send.edge().since(t.send.nxt);
    if allowed > 0 {
        let end = t.send.nxt + queued.min(allowed).min(text_max(t, &data_options(t, &store.steps, now)));
        return send_new(t, store, now, end);
    }
    // Without a record: if the peer does not take it, it was never sent.
    let (start, end) = (t.send.nxt, t.send.nxt + 1);
    t.send.max = t.send.max.max(end);
    Some(data(t, store, now, start, end))
}

/// RFC 5482's option, on an acknowledgement of its own.
fn user_timeout(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    if !t.user_timeout.is_due() {
        return None;
    }
    let user_timeout = t.user_timeout.say();
    let segment = bare(t, store, now, t.send.nxt, Flags::ACK);
    Some(Outgoing { options: Options { user_timeout, ..segment.options }, ..segment })
}

/// The urgent mark alone, when nothing that could carry it may go.
fn urgent_mark(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    t.send.urgent.is_due(t.send.nxt).then(|| bare(t, store, now, t.send.nxt, Flags::ACK))
}

/// A segment without data whose number the peer has acknowledged already, so that it must answer (SHLD-12).
//= docs/specs/rfc9293.txt#section-3.8.4
//# Implementers MAY include "keep-alives" in their TCP implementations (MAY-5), although this practice is not
//# universally accepted.
//= docs/specs/rfc9293.txt#section-3.8.4
//# An implementation SHOULD send a keep-alive segment with no data (SHLD-12)
fn keep_alive(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    if t.due != Due::KeepAlive {
        return None;
    }
    t.due = Due::None;
    store.counters.add(Counter::TcpKeepAlives);
    Some(bare(t, store, now, t.send.una.back(1), Flags::ACK))
}

/// Our FIN, sent and not acknowledged, once more: it acknowledges the peer's, and saves the timeout if it was lost.
fn fin_again(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    if t.due != Due::FinAgain {
        return None;
    }
    t.due = Due::None;
    let last = t.send.records.last()?;
    (store.records.get(last).start == t.send.end).then(|| again(t, store, now, last))
}

/// A bare acknowledgement, if one is owed and cannot wait.
fn acknowledgement(t: &mut Tcb, store: &mut Store, now: Instant) -> Option<Outgoing> {
    match t.receive.ack {
        AckNeed::Now => Some(bare(t, store, now, t.send.nxt, Flags::ACK)),
        AckNeed::None | AckNeed::Delayed(_) => None,
    }
}

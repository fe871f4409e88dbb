//! SEGMENT ARRIVES (RFC 9293, 3.10.7), for a connection that has a block: 3.10.7.3 for SYN-SENT and 3.10.7.4 for all
//! other states, one function for each numbered check, in the RFC's order.

use toe_abi::{Reason, state};

use crate::counters::Counter;
use crate::fault::{Action, Site};
use crate::profile::CongestionControl;
use crate::seq::Position;
use crate::tcp::bugs;
use crate::tcp::ecn;
use crate::tcp::prediction;
use crate::tcp::receive::{AckNeed, Arrival};
use crate::tcp::recovery::Ack;
use crate::tcp::spurious;
use crate::tcp::tcb::{Agreed, CHALLENGE_PERIOD, CHALLENGES, Due, State, Store, Tcb};
use crate::time::{Duration, Instant};
use crate::wire::options::Timestamps;
use crate::wire::segment::{Flags, Segment};

/// An answer that the block itself will not send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// None.
    Nothing,
    /// `<SEQ=SEG.ACK><CTL=RST>`.
    Reset,
    /// None, and nothing changed but what comes of text in order ([`prediction`]).
    Predicted,
}

/// RFC 7323, 5.5: after this long without one, a timestamp says nothing about age.
const TIMESTAMP_LIFE: Duration = Duration::from_s(24 * 24 * 3600);

/// Whether the segment still stands after a check.
enum Check {
    Go,
    Drop,
}

/// Processes a segment of this connection.
pub fn segment_arrives(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, now: Instant) -> Reply {
    t.figures.segments_in += 1;
    t.send.burst = 0;
    if prediction::holds(t, store, segment) {
        return prediction::arrives(t, store, segment, now);
    }
    match t.state {
        State::SynSent => syn_sent(t, store, segment, now),
        State::Closed => Reply::Reset,
        _ => otherwise(t, store, segment, now),
    }
}

/// 3.10.7.3.
fn syn_sent(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, now: Instant) -> Reply {
    let flags = segment.flags;
    let ack = segment.ack.near(t.send.una);
    // First, the ACK bit.
    let acknowledged = flags.has(Flags::ACK);
    //= docs/specs/rfc9293.txt#section-3.10.7.3
    //# If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless the RST bit is set, if so drop the segment and
    //# return)
    if acknowledged && (ack <= t.send.iss || ack > t.send.nxt) {
        store.counters.add(Counter::TcpAckUnsent);
        return if flags.has(Flags::RST) { Reply::Nothing } else { Reply::Reset };
    }
    // Second, the RST bit: believed only with an acceptable ACK.
    if flags.has(Flags::RST) {
        if acknowledged {
            store.counters.add(Counter::TcpResets);
            t.end(Reason::Refused);
        }
        return Reply::Nothing;
    }
    // Third, security: not used. Fourth, the SYN bit.
    if !flags.has(Flags::SYN) {
        return Reply::Nothing;
    }
    if flags.has(Flags::FIN) && !acknowledged {
        // Nobody opens a connection by closing it: this is a probe of a scanner, not a simultaneous open.
        store.counters.add(Counter::TcpSynFin);
        return Reply::Nothing;
    }
    take_syn(t, store, segment, now);
    if acknowledged {
        let syn_sent_at = t.timer_from;
        t.send.una = t.send.iss + 1;
        t.established(store, now);
        t.fast_open_answered(store, segment, ack > t.send.una);
        if t.syn_transmissions == 1 {
            t.rtt.measured(now, now.since(syn_sent_at));
        }
        if ack > t.send.una {
            // The window of a SYN-ACK is not scaled; `take_syn` has it.
            let window = t.send.window;
            acknowledge(t, store, segment, t.receive.irs, ack, now);
            (t.send.window, t.send.window_max) = (window, window);
        }
        t.send.wl2 = ack;
        t.receive.ack = AckNeed::Now;
        // "If there are other controls or text in the segment, then continue processing at the sixth step": within what
        // our SYN offered, as far as there is room for it.
        t.receive.advertise(&mut store.receive);
        return sixth_to_eighth(t, store, segment, t.receive.nxt, now);
    } else {
        // Simultaneous open: the state that it came from is known by its having no listener (MUST-11).
        //= docs/specs/rfc9293.txt#section-3.5
        //# A TCP implementation MUST support simultaneous open attempts (MUST-10).
        t.state = State::SynReceived;
        // "If there are other controls or text in the segment, queue them for processing after the ESTABLISHED state has
        // been reached": the SYN-ACK acknowledges the SYN alone.
        t.receive.hold(&mut store.receive, segment.text);
        t.due = Due::Syn;
    }
    Reply::Nothing
}

/// What the peer's SYN says: sequence number, MSS, and which options both want.
fn take_syn(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, now: Instant) {
    let options = &segment.options;
    t.agreed = Agreed {
        timestamps: options.timestamps.is_some(),
        sack: options.sack_permitted,
        window_scale: options.window_scale.is_some(),
        ecn: agrees_on_ecn(t, segment.flags),
    };
    let shift = if t.agreed.window_scale { t.receive.shift } else { 0 };
    // RFC 7323, 2.3: a shift above 14 counts as 14. The window of the SYN itself is not scaled.
    t.send.window = u32::from(segment.window);
    t.send.window_max = t.send.window;
    t.agree_mss(bugs::mss(&store.faults, options.mss));
    let (irs, mss) = (Position::initial(segment.seq), t.send.mss);
    t.receive.open(&mut store.receive, irs, shift, mss, store.config.receive_bytes_max, now);
    t.receive.segment_bytes = 0;
    if let Some(Timestamps { value, .. }) = options.timestamps {
        t.receive.timestamp = value;
        t.receive.timestamp_at = now;
    }
    (t.guest.delivered, t.guest.furthest) = (t.receive.nxt, t.receive.nxt);
    t.guest.limit = t.receive.nxt + t.guest.limit.since(Position::default());
    t.send.wl1 = t.receive.irs;
    t.send.shift = if t.agreed.window_scale { options.window_scale.unwrap_or(0).min(14) } else { 0 };
    bugs::window_scale(&store.faults, t);
    t.send.wl2 = t.send.una;
}

/// RFC 3168, 6.1.1: a SYN-ACK agrees to what our first SYN asked for (a SYN that was sent again asks for nothing). SYNs that
/// cross agree if both ask: whether the peer ever sees our SYN-ACK, which would answer its own, depends on which of the two
/// SYN-ACKs is first.
fn agrees_on_ecn(t: &Tcb, flags: Flags) -> bool {
    t.asks_for_ecn() && t.syn_transmissions == 1 && wants_ecn(flags)
}

/// Whether a SYN asks for ECN, or a SYN-ACK agrees to it.
fn wants_ecn(flags: Flags) -> bool {
    if flags.has(Flags::ACK) { ecn::is_setup_syn_ack(flags) } else { ecn::is_setup_syn(flags) }
}

/// 3.10.7.4.
fn otherwise(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, now: Instant) -> Reply {
    let mut segment = *segment;
    // RFC 3168, 6.1.1: nobody who was sent one SYN or SYN-ACK that does not ask for ECN, or agree, may set ECT. Of SYNs that
    // cross, the one that was taken may have asked, and its repetition, or the SYN-ACK, may ask no more.
    if t.state == State::SynReceived && segment.flags.has(Flags::SYN) && segment.seq == t.receive.irs.seq() {
        t.agreed.ecn &= wants_ecn(segment.flags);
    }
    // In a simultaneous open the peer's SYN-ACK repeats a SYN that was taken already: what is new is its ACK.
    if t.state == State::SynReceived
        && segment.flags.has(Flags::SYN | Flags::ACK)
        && segment.seq == t.receive.irs.seq()
        && !segment.flags.has(Flags::RST)
    {
        segment.seq = segment.seq + 1;
        segment.urgent = segment.urgent.saturating_sub(1);
        // ECE in a SYN-ACK agrees, and echoes no mark.
        segment.flags.0 &= !(Flags::SYN | Flags::ECE | Flags::CWR).0;
        // It is still the window of a SYN, which is not scaled (RFC 7323, 2.2).
        segment.window >>= t.send.shift;
    }
    if t.state == State::SynReceived && t.fast_open_syn_again(&segment) {
        return Reply::Nothing;
    }
    let seq = segment.seq.near(t.receive.nxt);
    if let Check::Drop = first_sequence(t, store, &segment, seq, now) {
        return Reply::Nothing;
    }
    if let Check::Drop = second_reset(t, store, &segment, seq, now) {
        return Reply::Nothing;
    }
    // Third, security: not used.
    if let Check::Drop = fourth_syn(t, store, &segment, now) {
        return Reply::Nothing;
    }
    match fifth_ack(t, store, &segment, seq, now) {
        Ok(()) => sixth_to_eighth(t, store, &segment, seq, now),
        Err(reply) => reply,
    }
}

/// First, the sequence number, and with it RFC 7323's protection against wrapped ones (5.3).
fn first_sequence(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, seq: Position, now: Instant) -> Check {
    let length = u64::from(segment.sequence_length());
    let reset = segment.flags.has(Flags::RST);
    //= docs/specs/rfc7323.txt#section-5.3
    //# If there is a Timestamps option in the arriving segment, SEG.TSval < TS.Recent, TS.Recent is valid (see
    //# later discussion), and if the RST bit is not set, then treat the arriving segment as not acceptable:
    if t.agreed.timestamps
        && !reset
        && let Some(Timestamps { value, .. }) = segment.options.timestamps
        && (value.wrapping_sub(t.receive.timestamp) as i32) < 0
        && now.since(t.receive.timestamp_at) < TIMESTAMP_LIFE
    {
        store.counters.add(Counter::TcpPaws);
        answer_unacceptable(t, store, segment, seq, now);
        return Check::Drop;
    }
    // What `is_acceptable` allows at the edge is for bare ACKs: a reset there is outside (RFC 5961, 3.2).
    let beyond = reset && seq == t.receive.edge;
    if beyond || !t.receive.is_acceptable(seq, length) {
        // MUST-66: with a zero window, ACKs and RSTs at the edge are still valid; `is_acceptable` has that. A segment
        // with text at a closed window carries a valid ACK all the same: it must not go unheard while both ends' windows
        // are closed, so its text alone is refused.
        if t.receive.window() == 0 && seq == t.receive.nxt && !segment.flags.has(Flags::SYN) {
            t.receive.ack = AckNeed::Now;
            return Check::Go;
        }
        store.counters.add(Counter::TcpOutOfWindow);
        if !reset {
            if seq > t.receive.irs {
                t.receive.note_twice(seq, seq + segment.text.len() as u64, &store.steps);
            }
            if !is_answered_as_a_keep_alive(t, segment, seq, now) {
                answer_unacceptable(t, store, segment, seq, now);
            }
        }
        return Check::Drop;
    }
    //= docs/specs/rfc7323.txt#section-5.3
    //# If an arriving segment satisfies SEG.TSval >= TS.Recent and SEG.SEQ <= Last.ACK.sent (see Section 4.3), then
    //# record its timestamp in TS.Recent.
    if t.agreed.timestamps
        && let Some(Timestamps { value, .. }) = segment.options.timestamps
        && seq <= t.receive.last_ack_sent
        && !reset
    {
        t.receive.timestamp = value;
        t.receive.timestamp_at = now;
    }
    Check::Go
}

/// An unacceptable segment gets an ACK. One that takes no sequence space may itself be the answer to one of ours, and a SYN,
/// or text farther from the window than any window was wide, is not the peer's but of somebody who guesses: those get no
/// more than the budget of challenges allows, or whoever knows the ends of a connection could fill its path with our answers.
//= docs/specs/rfc9293.txt#section-3.10.7.4
//# If an incoming segment is not acceptable, an acknowledgment should be sent in reply (unless the RST bit is set,
//# if so drop the segment and return):
fn answer_unacceptable(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, seq: Position, now: Instant) {
    let length = u64::from(segment.sequence_length());
    if length > 0 && !segment.flags.has(Flags::SYN) && t.receive.may_be_late_or_early(seq, length) {
        t.receive.ack = AckNeed::Now;
    } else {
        challenge(t, store, now);
    }
}

/// Answers more often than that are challenges: as often as [`crate::tcp::settings`] lets a connection ask.
const KEEP_ALIVE_GAP: Duration = Duration::from_ms(1);

/// Answers a keep-alive (RFC 9293, 3.8.4): the number before the next one, with no text or one octet of garbage, and an
/// acknowledgement of what is in flight. Who sends that knows where both streams stand, so RFC 5961's budget against
/// those who guess is not for it: a peer that asks more often than that budget allows would take us for dead. It was
/// heard of, too, so we need not ask for our part. Two ends that disagree about where the streams stand could answer each other
/// without end; the acknowledgement keeps them from it, and what comes again within [`KEEP_ALIVE_GAP`] is a challenge.
//= docs/specs/rfc9293.txt#section-3.8.4
//# Keep-alive packets MUST only be sent when no sent data is outstanding, and no data or acknowledgment packets
//# have been received for the connection within an interval (MUST-26).
fn is_answered_as_a_keep_alive(t: &mut Tcb, segment: &Segment<'_>, seq: Position, now: Instant) -> bool {
    let is_bare = segment.flags.0 & (Flags::SYN.0 | Flags::FIN.0 | Flags::ACK.0) == Flags::ACK.0;
    let ack = segment.ack.near(t.send.una);
    let is_one = is_bare && segment.text.len() <= 1 && seq + 1 == t.receive.nxt;
    if !is_one || t.state == State::SynReceived || ack < t.send.una || ack > t.send.max {
        return false;
    }
    let is_soon = now.since(t.heard_at) < KEEP_ALIVE_GAP;
    (t.heard_at, t.keep_alives) = (now, 0);
    if !is_soon {
        t.receive.ack = AckNeed::Now;
    }
    !is_soon
}

/// Second, the RST bit (with RFC 5961, section 3): only the very next number resets.
//= docs/specs/rfc9293.txt#section-3.5.3
//# TCP implementations SHOULD allow a received RST segment to include data (SHLD-2).
fn second_reset(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, seq: Position, now: Instant) -> Check {
    if !segment.flags.has(Flags::RST) {
        return Check::Go;
    }
    //= docs/specs/rfc5961.txt#section-3.2
    //# If the RST bit is set and the sequence number does not exactly match the next expected sequence value, yet is
    //# within the current receive window (RCV.NXT < SEG.SEQ < RCV.NXT+RCV.WND), TCP MUST send an acknowledgment
    //# (challenge ACK):
    if seq != t.receive.nxt && store.faults.strike(Site::BugResetInWindow).is_none() {
        store.counters.add(Counter::TcpResetChallenged);
        challenge(t, store, now);
        return Check::Drop;
    }
    //= docs/specs/rfc5961.txt#section-3.2
    //# If the RST bit is set and the sequence number exactly matches the next expected sequence number (RCV.NXT),
    //# then TCP MUST reset the connection.
    store.counters.add(Counter::TcpResets);
    //= docs/specs/rfc9293.txt#section-3.5
    //# Note that a TCP implementation MUST keep track of whether a connection has reached SYN-RECEIVED state as the
    //# result of a passive OPEN or an active OPEN (MUST-11).
    t.end(if t.state == State::SynReceived { Reason::Refused } else { Reason::Reset });
    Check::Drop
}

/// Fourth, the SYN bit (with RFC 5961, section 4): never believed, always challenged.
//= docs/specs/rfc5961.txt#section-4.2
//# If the SYN bit is set, irrespective of the sequence number, TCP MUST send an ACK (also referred to as challenge
//# ACK) to the remote peer:
fn fourth_syn(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, now: Instant) -> Check {
    if !segment.flags.has(Flags::SYN) {
        return Check::Go;
    }
    store.counters.add(Counter::TcpSynChallenged);
    challenge(t, store, now);
    Check::Drop
}

/// Sends a challenge ACK, if the connection's budget allows (RFC 5961, section 7).
//= docs/specs/rfc5961.txt#section-7
//# An implementation SHOULD include an ACK throttling mechanism to be conservative.
fn challenge(t: &mut Tcb, store: &mut Store, now: Instant) {
    if now.since(t.challenges_at) >= CHALLENGE_PERIOD {
        t.challenges_at = now;
        t.challenges = CHALLENGES;
    }
    if t.challenges == 0 {
        store.counters.add(Counter::TcpChallengeLimited);
        return;
    }
    t.challenges -= 1;
    store.counters.add(Counter::TcpChallengeAcks);
    t.receive.ack = AckNeed::Now;
}

/// Fifth, the ACK field.
fn fifth_ack(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, seq: Position, now: Instant) -> Result<(), Reply> {
    //= docs/specs/rfc9293.txt#section-3.10.7.4
    //# if the ACK bit is off, drop the segment and return
    if !segment.flags.has(Flags::ACK) {
        store.counters.add(Counter::TcpNoAck);
        return Err(Reply::Nothing);
    }
    let ack = segment.ack.near(t.send.una);
    if t.state == State::SynReceived {
        if ack <= t.send.una || ack > t.send.nxt {
            store.counters.add(Counter::TcpAckUnsent);
            return Err(Reply::Reset);
        }
        if t.fast_open.is_pending() {
            t.fast_open_established(store, now);
        } else {
            t.send.una = t.send.iss + 1;
            t.established(store, now);
        }
        if t.receive.take_held() {
            // There is no hurry: what is said of the handshake is said, and the program has yet to speak.
            t.receive.ack = AckNeed::Delayed(now + store.config.delayed_ack);
        }
        t.send.wl1 = Position::default();
    }
    // RFC 5961, 5.2: neither of what was never sent, nor older than the peer's largest window.
    //= docs/specs/rfc9293.txt#section-3.10.7.4
    //# the ACK acks something not yet sent (SEG.ACK > SND.NXT), then send an ACK, drop the segment, and return.
    //= docs/specs/rfc5961.txt#section-5.2
    //# The ACK value is considered acceptable only if it is in the range of ((SND.UNA - MAX.SND.WND) <= SEG.ACK <=
    //# SND.NXT).
    // What stood before the SYN was never sent either, however near to it: without this a young connection would take a
    // guessed number from the whole of the largest window.
    if ack > t.send.max || ack <= t.send.iss {
        store.counters.add(Counter::TcpAckUnsent);
        challenge(t, store, now);
        return Err(Reply::Nothing);
    }
    //= docs/specs/rfc9293.txt#section-3.10.7.4
    //# RFC 5961 [9], Section 5 describes a potential blind data injection attack, and mitigation that
    //# implementations MAY choose to include (MAY-12).
    if ack + u64::from(t.send.window_max) < t.send.una {
        store.counters.add(Counter::TcpAckOld);
        challenge(t, store, now);
        return Err(Reply::Nothing);
    }
    // Only now it is the peer who was heard of, and not somebody who guesses.
    (t.heard_at, t.keep_alives) = (now, 0);
    if let Some(field) = segment.options.user_timeout {
        t.user_timeout.heard(field);
    }
    acknowledge(t, store, segment, seq, ack, now);
    after_our_fin(t, store, now);
    Ok(())
}

/// The ACK of a synchronized state: what it acknowledges, and the window it offers.
fn acknowledge(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, seq: Position, ack: Position, now: Instant) {
    let window_before = t.send.window;
    if store.faults.strike(Site::BugWindowUpdate).is_some() {
        bugs::believe_any_window(t, segment.window);
    } else if ack >= t.send.una {
        t.send.update_window(seq, ack, segment.window);
    }
    // RFC 5681, section 2.
    let duplicate =
        ack == t.send.una && t.send.in_flight() > 0 && segment.sequence_length() == 0 && t.send.window == window_before;
    let progress = ack > t.send.una;
    let blocks = segment.options.sack;
    let sack = t.agreed.sack.then_some(blocks.as_slice());
    let dsack = sack.and_then(|blocks| spurious::dsack(blocks, ack));
    let echo = segment.options.timestamps.filter(|_| t.agreed.timestamps).map(|t| t.echo);
    //= docs/specs/rfc9293.txt#section-3.8.2
    //# A TCP endpoint SHOULD implement ECN as described in RFC 3168 (SHLD-8).
    let echoes = t.agreed.ecn && segment.flags.has(Flags::ECE);
    let event = Ack { ack: ack.max(t.send.una), sack, dsack, echoes, echo, duplicate };
    let before = t.before_probe_fate();
    let (recovery, mut around) = t.around(store);
    recovery.acknowledged(&mut around, &event, now);
    t.after_probe_fate(store, before, now);
    // A peer that answers is there, even if its window is closed (MUST-37).
    //= docs/specs/rfc9293.txt#section-3.8.6
    //# SHOULD NOT time out the connection if data beyond the right window edge is not acknowledged (SHLD-17).
    //= docs/specs/rfc9293.txt#section-3.8.6.1
    //# As long as the receiving TCP peer continues to send acknowledgments in response to the probe segments, the
    //# sending TCP peer MUST allow the connection to stay open (MUST-37).
    if progress || t.send.window == 0 {
        t.progress_at = now;
    }
    if progress {
        t.path_progress(store);
        t.timer_from = now;
        t.send.stream.release_before(&mut store.send, ack.min(t.send.end));
        if ack >= t.send.end {
            t.send.stream.align(&mut store.send);
        }
        t.send.extend(&mut store.send, t.recovery.window.congestion);
    }
}

/// What follows when our FIN is acknowledged.
fn after_our_fin(t: &mut Tcb, store: &mut Store, now: Instant) {
    let finished = t.send.fin && t.send.una > t.send.end;
    if !finished {
        return;
    }
    t.guest.bits |= state::ALL_ACKNOWLEDGED;
    match t.state {
        State::FinWait1 => {
            t.state = State::FinWait2;
            linger(t, store, now);
        }
        State::Closing => t.state = State::TimeWait,
        State::LastAck => {
            store.counters.add(Counter::TcpClosed);
            t.state = State::Closed;
            t.quiet();
        }
        _ => {}
    }
}

/// A connection that its program has left does not wait for ever for the peer's FIN.
pub fn linger(t: &mut Tcb, store: &Store, now: Instant) {
    if t.state == State::FinWait2 && t.guest.context.is_none() {
        t.linger_until = Some(now + store.config.fin_wait_2);
    }
}

/// Sixth, the URG bit; seventh, the text; eighth, the FIN.
fn sixth_to_eighth(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, seq: Position, now: Instant) -> Reply {
    if !matches!(t.state, State::Established | State::FinWait1 | State::FinWait2) {
        // What comes after the peer's FIN is ignored, a repeated FIN is acknowledged again.
        return Reply::Nothing;
    }
    sixth_urgent(t, store, segment, seq);
    let reply = seventh_text(t, store, segment, seq, now);
    if t.state != State::Closed {
        eighth_fin(t, store, segment, seq);
    }
    reply
}

/// Sixth, the URG bit: "RCV.UP <- max(RCV.UP,SEG.UP), and signal the user".
//= docs/specs/rfc9293.txt#section-3.8.5
//# A TCP implementation MUST (MUST-32) inform the application layer asynchronously whenever it receives an urgent
//# pointer and there was previously no pending urgent data, or whenever the urgent pointer advances in the data
//# stream.
//= docs/specs/rfc9293.txt#section-3.4
//# A TCP receiver MUST process the RST and URG fields of all incoming segments, even when the receive window is
//# zero (MUST-66).
fn sixth_urgent(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, seq: Position) {
    if !segment.flags.has(Flags::URG) {
        return;
    }
    store.counters.add(Counter::TcpUrgentIn);
    // "A positive offset from the sequence number in this segment": of a SYN, not of the text behind it.
    let from = if segment.flags.has(Flags::SYN) { seq.back(1) } else { seq };
    if t.receive.urgent.take(from + u64::from(segment.urgent), t.receive.stream.start()) {
        t.guest.notice.changed();
    }
}

/// What a segment's mark and CWR mean; whether it is to be acknowledged at once.
fn ecn_arrived(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>) -> bool {
    if segment.marked {
        store.counters.add(Counter::TcpMarksIn);
    }
    let exact = t.settings.congestion == CongestionControl::Dctcp;
    t.receive.echo.arrived(segment.flags, segment.marked, exact)
}

fn seventh_text(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, seq: Position, now: Instant) -> Reply {
    if segment.text.is_empty() {
        return Reply::Nothing;
    }
    //= docs/specs/rfc9293.txt#section-3.6.1
    //# If such a host issues a CLOSE call while received data is still pending in the TCP connection, or if new
    //# data is received after CLOSE is called, its TCP implementation SHOULD send a RST to show that data was lost
    //# (SHLD-3).
    if t.guest.context.is_none() {
        // Nobody will ever read this; the peer is to know. Its own SEG.ACK is the number that it must believe (RFC 5961,
        // 3.2), whether it has our FIN or not.
        store.counters.add(Counter::TcpDataAfterClose);
        store.counters.add(Counter::TcpAborted);
        t.end(Reason::AbortedByGuest);
        return Reply::Reset;
    }
    let full = (segment.text.len() as u32).min(t.receive_mss());
    t.receive.segment_bytes = t.receive.segment_bytes.max(full);
    let marked_now = t.agreed.ecn && ecn_arrived(t, store, segment);
    let had_gap = t.receive.has_gap();
    // Beyond a gap a range is taken, if there is one.
    let arrival = if seq > t.receive.nxt && !store.ranges.admits() {
        Arrival::NoRange
    } else {
        t.receive.text(&mut store.receive, seq, segment.text)
    };
    if let Some(Action::FlipBit(drawn)) = store.faults.strike(Site::PayloadRx) {
        t.receive.stream.flip_bit(&mut store.receive, seq, segment.text.len() as u64, drawn);
    }
    match arrival {
        Arrival::InOrder => {
            // RFC 5681, 4.2: at once when a gap is filled, in whole or in part.
            let at_once = had_gap || marked_now;
            took_in_order(t, store, segment.flags.has(Flags::PSH), full, at_once, now);
        }
        Arrival::OutOfOrder => {
            //= docs/specs/rfc9293.txt#section-3.10.7.4
            //# A TCP implementation MAY send an ACK segment acknowledging RCV.NXT when a valid segment arrives that
            //# is in the window but not at the left window edge (MAY-13).
            store.counters.add(Counter::TcpOutOfOrder);
            t.receive.ack = AckNeed::Now;
        }
        Arrival::Duplicate => {
            store.counters.add(Counter::TcpDuplicate);
            t.receive.ack = AckNeed::Now;
        }
        Arrival::NoRange => {
            store.counters.add(Counter::TcpOutOfOrderDropped);
            store.ranges.refuse(Reason::OutOfOrder);
            t.receive.ack = AckNeed::Now;
        }
    }
    Reply::Nothing
}

/// Text in order is kept: when it is acknowledged, and whether the buffer grows. `full`: its octets, as far as they count for a
/// full segment.
pub(super) fn took_in_order(t: &mut Tcb, store: &Store, pushed: bool, full: u32, at_once: bool, now: Instant) {
    // RFC 2883, section 4: what came twice is reported with the segment that brought it.
    // And at once where the peer has said all that it can for now, and nothing of ours is likely to carry it.
    let waits_for_us = pushed && full < t.receive.segment_bytes && !t.receive.dialogue;
    if at_once || t.receive.twice.is_some() || waits_for_us {
        t.receive.ack = AckNeed::Now;
    } else {
        t.receive.owe_ack(now, store.config.delayed_ack);
    }
    t.receive.grow(now, t.rtt.smoothed());
}

//= docs/specs/rfc9293.txt#section-3.10.7.4
//# If the FIN bit is set, signal the user "connection closing" and return any pending RECEIVEs with same message,
//# advance RCV.NXT over the FIN, and send an acknowledgment for the FIN.
fn eighth_fin(t: &mut Tcb, store: &Store, segment: &Segment<'_>, seq: Position) {
    if segment.flags.has(Flags::FIN) {
        let position = seq + segment.text.len() as u64;
        // A FIN beyond what was let in by the window stands behind text that was cut off: it will come again.
        if position <= t.receive.edge {
            t.receive.finish(position);
        }
        t.receive.ack = AckNeed::Now;
    } else if let Some(fin) = t.receive.fin {
        // The text before an earlier FIN is complete now.
        t.receive.finish(fin);
    }
    if !t.receive.is_finished() {
        return;
    }
    //= docs/specs/rfc9293.txt#section-3.6
    //# If the local TCP connection is closed by the remote side due to a FIN or RST received from the remote side,
    //# then the local application MUST be informed whether it closed normally or was aborted (MUST-12).
    t.guest.bits |= state::PEER_CLOSED;
    t.receive.ack = AckNeed::Now;
    match t.state {
        State::Established => t.state = State::CloseWait,
        State::FinWait1 => {
            t.state = State::Closing;
            if store.config.repeat_fin && t.due == Due::None {
                t.due = Due::FinAgain;
            }
        }
        State::FinWait2 => t.state = State::TimeWait,
        _ => {}
    }
}

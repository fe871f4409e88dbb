//! The timers of a connection, and what happens when they fire.
//!
//! Six, each with one entry in the wheel. The first serves whatever is waited for most urgently: an acknowledgement,
//! RACK's reordering window, the end of a silent tail, or a window. When each is due follows from the block's state,
//! so nothing has to be cancelled: the engine asks [`deadline`] after every change.

use toe_abi::Reason;

use crate::counters::Counter;
use crate::tcp::icmp;
use crate::tcp::receive::AckNeed;
use crate::tcp::recovery::Phase;
use crate::tcp::tcb::{Due, State, Store, Tcb};
use crate::time::{Duration, Instant};

/// Which timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Retransmission, reordering, tail probe, window probe.
    Retransmit,
    /// A delayed acknowledgement.
    DelayedAck,
    /// An abandoned FIN-WAIT-2.
    Linger,
    /// Telling the guest again.
    Guest,
    /// A keep-alive.
    KeepAlive,
    /// The time of a paced segment.
    Pace,
}

impl Kind {
    /// All of them, in the order of their timers.
    pub const ALL: [Self; 6] =
        [Self::Retransmit, Self::DelayedAck, Self::Linger, Self::Guest, Self::KeepAlive, Self::Pace];
}

/// What the first timer is waiting for.
enum Waiting {
    Words,
    Handshake,
    Acknowledgement,
    Reordering,
    Tail,
    Window,
}

/// When a timer is due; `None` if it is not running.
#[inline(always)]
pub fn deadline(t: &Tcb, kind: Kind) -> Option<Instant> {
    match kind {
        Kind::Retransmit => waiting(t).map(|(at, _)| at),
        Kind::DelayedAck => match t.receive.ack {
            AckNeed::Delayed(at) => Some(at),
            AckNeed::None | AckNeed::Now => None,
        },
        Kind::Linger => t.linger_until,
        Kind::Guest => t.guest.repeat_at,
        Kind::KeepAlive => keep_alive_at(t),
        Kind::Pace => t.recovery.pacing.wake_at,
    }
}

/// When each timer is due, in the order of [`Kind::ALL`].
#[inline]
pub fn deadlines(t: &Tcb) -> [Option<Instant>; Kind::ALL.len()] {
    Kind::ALL.map(|kind| deadline(t, kind))
}

fn waiting(t: &Tcb) -> Option<(Instant, Waiting)> {
    let rto_at = || t.timer_from + t.rtt.rto();
    match t.state {
        State::Closed | State::TimeWait => return None,
        State::SynSent | State::SynReceived => {
            if let Some(at) = t.fast_open.waits_until() {
                return Some((at, Waiting::Words));
            }
            return (t.due != Due::Syn).then(|| (rto_at(), Waiting::Handshake));
        }
        _ => {}
    }
    if t.send.in_flight() == 0 {
        let blocked = t.send.last() > t.send.nxt && t.due == Due::None;
        //= docs/specs/rfc9293.txt#section-3.8.6.1
        //# The transmitting host SHOULD send the first zero-window probe when a zero window has existed for the
        //# retransmission timeout period (SHLD-29)
        return blocked.then(|| (rto_at(), Waiting::Window));
    }
    let rto_at = rto_at();
    if let Some(at) = t.recovery.reorder_at
        && at < rto_at
    {
        return Some((at, Waiting::Reordering));
    }
    if t.due == Due::None
        && t.agreed.sack
        && let Some(after) = t.recovery.probe_timeout(&t.send, &t.rtt)
        && let from = t.recovery.probe_from(t.timer_from, t.heard_at)
        // RFC 8985, 7.2: a probe that would be due after the timeout takes its place, and the timeout follows it.
        && (from + after < rto_at || t.recovery.phase == Phase::Open)
    {
        return Some(((from + after).min(rto_at), Waiting::Tail));
    }
    Some((rto_at, Waiting::Acknowledgement))
}

/// Whether the first timer waits for the peer's window to open.
pub fn is_probing_window(t: &Tcb) -> bool {
    matches!(waiting(t), Some((_, Waiting::Window)))
}

/// A timer fired.
pub fn fired(t: &mut Tcb, store: &mut Store, kind: Kind, now: Instant) {
    t.send.burst = 0;
    match kind {
        Kind::Retransmit => {
            if let Some((at, waiting)) = waiting(t)
                && at <= now
            {
                retransmit(t, store, waiting, now);
            }
        }
        Kind::DelayedAck => {
            if let AckNeed::Delayed(at) = t.receive.ack
                && at <= now
            {
                t.receive.ack = AckNeed::Now;
                t.receive.dialogue = false;
            }
        }
        Kind::Linger => {
            if t.linger_until.is_some_and(|at| at <= now) {
                store.counters.add(Counter::TcpClosed);
                t.state = State::Closed;
                t.quiet();
            }
        }
        Kind::Guest => {
            if t.guest.repeat_at.is_some_and(|at| at <= now) {
                store.counters.add(Counter::ChannelResent);
                t.tell_again();
            }
        }
        Kind::KeepAlive => keep_alive(t, store, now),
        // What waits for it goes on the connection's next turn, which comes with this.
        Kind::Pace => t.recovery.pacing.wake_at = None,
    }
}

fn retransmit(t: &mut Tcb, store: &mut Store, waiting: Waiting, now: Instant) {
    // A peer that has answered since something was last sent is not silent, however long the timer had backed off.
    //= docs/specs/rfc9293.txt#section-3.8.6.1
    //# As long as the receiving TCP peer continues to send acknowledgments in response to the probe segments, the
    //# sending TCP peer MUST allow the connection to stay open (MUST-37).
    let silent = if t.progress_at > t.timer_from { Duration::ZERO } else { now.since(t.progress_at) };
    match waiting {
        // The SYN goes without text.
        Waiting::Words => t.fast_open.stop_waiting(),
        Waiting::Handshake => {
            // MUST-22 and MUST-23: SYNs are given up like data, and not before R2 of their own.
            //= docs/specs/rfc9293.txt#section-3.8.3
            //# SYN retransmissions MUST be handled in the general way just described for data retransmissions,
            //# including notification of the application layer.
            if silent >= store.config.give_up_syn {
                t.fast_open_failed();
                give_up(t, store);
                return;
            }
            t.rtt.back_off();
            advise(t, store);
            t.due = Due::Syn;
        }
        Waiting::Acknowledgement => {
            // R2 (RFC 9293, 3.8.3).
            //= docs/specs/rfc9293.txt#section-3.8.3
            //# The following procedure MUST be used to handle excessive retransmissions of data segments (MUST-20)
            if silent >= r2(t, store) {
                give_up(t, store);
                return;
            }
            t.rtt.back_off();
            if advise(t, store) {
                return;
            }
            t.timer_from = now;
            t.path_timeout(store, now);
            let (recovery, mut around) = t.around(store);
            recovery.timed_out(&mut around);
        }
        Waiting::Reordering => {
            let before = t.before_probe_fate();
            let (recovery, mut around) = t.around(store);
            recovery.reorder_timeout(&mut around, now);
            t.after_probe_fate(store, before, now);
        }
        Waiting::Tail => {
            // RFC 8985, 7.3: the timeout begins anew with the probe.
            t.timer_from = now;
            t.due = Due::TailProbe;
        }
        Waiting::Window => {
            // A peer that answers keeps its connection for ever (MUST-37), unless the program has left it.
            let left = t.guest.context.is_none();
            if silent >= r2(t, store) || (left && t.rtt.backoff() >= ORPHAN_PROBES) {
                give_up(t, store);
                return;
            }
            t.rtt.back_off();
            t.timer_from = now;
            //= docs/specs/rfc9293.txt#section-3.8.6.1
            //# SHOULD increase exponentially the interval between successive probes (SHLD-30).
            t.due = Due::WindowProbe;
        }
    }
}

/// R1 (RFC 9293, 3.8.3; SHLD-10: at least three retransmissions), counted in timeouts without progress.
//= docs/specs/rfc9293.txt#section-3.8.3
//# The value of R1 SHOULD correspond to at least 3 retransmissions, at the current RTO (SHLD-10).
pub const R1_TIMEOUTS: u32 = 3;

/// From R1 on, every timeout is a hint that the next hop may be gone: the guest, who owns routes and neighbours, is
/// told (MUST-20, SHLD-9). Whether the connection is over, because ICMP had said that the peer cannot be reached.
//= docs/specs/rfc9293.txt#section-3.8.3
//= feature=R1
//# The following procedure MUST be used to handle excessive retransmissions of data segments (MUST-20)
//= docs/specs/rfc9293.txt#section-3.8.3
//# (e) TCP implementations SHOULD inform the application of the delivery problem (unless such information has been
//# disabled by the application; see the "Asynchronous Reports" section (Section 3.9.1.8)), when R1 is reached and
//# before R2 (SHLD-9).
fn advise(t: &mut Tcb, store: &mut Store) -> bool {
    if t.rtt.backoff() < R1_TIMEOUTS {
        return false;
    }
    store.counters.add(Counter::TcpPathAdvice);
    t.guest.notice.advise();
    let over = icmp::is_confirmed(t.unreachable_at, t.send.una);
    if over {
        store.counters.add(Counter::IcmpAborted);
        t.end(Reason::Unreachable);
    }
    over
}

/// R2 of this connection (MUST-21: the program can set it, and so can RFC 5482's option).
//= docs/specs/rfc9293.txt#section-3.8.3
//# (d) An application MUST (MUST-21) be able to set the value for R2 for a particular connection.
fn r2(t: &Tcb, store: &Store) -> Duration {
    t.settings.user_timeout.or_else(|| t.user_timeout.adopted(t.rtt.rto())).unwrap_or(store.config.give_up)
}

/// When a keep-alive is due: only on a connection that is open, with nothing outstanding, and silent for as long as
/// the program asked for (RFC 9293, 3.8.4, MUST-24 to MUST-27).
fn keep_alive_at(t: &Tcb) -> Option<Instant> {
    let idle = t.settings.keep_alive_idle?;
    let open = matches!(t.state, State::Established | State::FinWait2 | State::CloseWait);
    //= docs/specs/rfc9293.txt#section-3.8.4
    //# Keep-alive packets MUST only be sent when no sent data is outstanding, and no data or acknowledgment packets
    //# have been received for the connection within an interval (MUST-26).
    if !open || t.send.last() > t.send.una || t.due == Due::KeepAlive {
        return None;
    }
    let after = (0..t.keep_alives).fold(idle, |sum, _| sum + t.settings.keep_alive_interval);
    Some(t.heard_at + after)
}

fn keep_alive(t: &mut Tcb, store: &mut Store, now: Instant) {
    if keep_alive_at(t).is_none_or(|at| at > now) {
        return;
    }
    //= docs/specs/rfc9293.txt#section-3.8.4
    //# Consequently, if a keep-alive mechanism is implemented it MUST NOT interpret failure to respond to any
    //# specific probe as a dead connection (MUST-29).
    if t.keep_alives >= t.settings.keep_alive_probes {
        give_up(t, store);
        return;
    }
    t.keep_alives += 1;
    t.due = Due::KeepAlive;
}

/// Window probes for a connection whose program has left, before its memory is wanted back.
const ORPHAN_PROBES: u32 = 8;

fn give_up(t: &mut Tcb, store: &mut Store) {
    store.counters.add(Counter::TcpTimedOut);
    // The peer may be there and only our way to it broken.
    t.reset_due = t.state.is_synchronized();
    t.end(Reason::TimedOut);
}

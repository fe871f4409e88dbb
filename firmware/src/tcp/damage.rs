//! A connection's block that a fault has damaged: what is written into it, and what can be told of a block without knowing
//! what it should be.
//!
//! Numbers of sequence space are of 32 bits, as on the wire: a damaged one lies within two gigabytes of the right one.
//! Damage strikes between two events. So [`contradiction`] is asked before the next is processed: everything that
//! the code relies on for its bounds is looked at there, and a block that does not fit together is not worked with any
//! more. A value that is wrong and fits (a smaller window, say) is not seen by it.

use crate::fault::Site;
use crate::seq::{Position, Seq};
use crate::tcp::tcb::{SEND_MSS_MIN, State, Store, Tcb};
use crate::time::Duration;

/// The largest window that there can be (RFC 7323, 2.3): a gigabyte.
const WINDOW_MAX: u64 = 65_535 << 14;

/// The longest smoothed round trip that makes sense.
const ROUND_TRIP_MAX: Duration = Duration::from_s(3_600);

/// What can be corrupted, in the words of [`Site`]; `value` replaces it.
pub fn damage(t: &mut Tcb, site: Site, value: u64) {
    let near = |old: Position| Seq(value as u32).near(old);
    match site {
        Site::TcbState => {
            if let Some(state) = State::ALL.into_iter().find(|s| u64::from(s.linux()) == value % 12) {
                t.state = state;
            }
        }
        Site::TcbIss => t.send.iss = near(t.send.iss),
        Site::TcbSndUna => t.send.una = near(t.send.una),
        Site::TcbSndNxt => t.send.nxt = near(t.send.nxt),
        Site::TcbSndMax => t.send.max = near(t.send.max),
        Site::TcbSndEnd => t.send.end = near(t.send.end),
        Site::TcbSndWnd => t.send.window = value as u32,
        Site::TcbSndWl1 => t.send.wl1 = near(t.send.wl1),
        Site::TcbSndWl2 => t.send.wl2 = near(t.send.wl2),
        Site::TcbSndScale => t.send.shift = value as u8,
        Site::TcbMss => t.send.mss = value as u32,
        Site::TcbCwnd => t.recovery.window.congestion = value as u32,
        Site::TcbSsthresh => t.recovery.window.threshold = value as u32,
        Site::TcbSrtt => t.rtt.corrupt_smoothed(Duration::from_us(value)),
        Site::TcbRto => t.rtt.corrupt_doubled(value as u32),
        Site::TcbIrs => t.receive.irs = near(t.receive.irs),
        Site::TcbRcvNxt => t.receive.nxt = near(t.receive.nxt),
        Site::TcbRcvWnd => t.receive.edge = t.receive.nxt + u64::from(value as u32),
        Site::TcbRcvScale => t.receive.shift = value as u8,
        Site::TcbTsRecent => t.receive.timestamp = value as u32,
        Site::TcbLastAckSent => t.receive.last_ack_sent = near(t.receive.last_ack_sent),
        _ => {}
    }
}

/// What cannot be of a connection's block, if there is anything.
pub fn contradiction(t: &Tcb, store: &Store) -> Option<&'static str> {
    if t.state == State::Closed {
        // On the wire it is over; a connection in the table whose end nobody knows of was not closed.
        let is_told = t.guest.bits & toe_abi::state::ABORTED != 0 || (t.send.fin && t.receive.is_finished());
        return (t.in_table && !is_told).then_some("closed, and nobody was told");
    }
    let has_stream = t.receive.stream.is_open();
    if has_stream == (t.state == State::SynSent) {
        return Some("a state that its receive stream denies");
    }
    sending(t, store).or_else(|| if has_stream { receiving(t, store) } else { None }).or_else(|| figures(t))
}

fn sending(t: &Tcb, store: &Store) -> Option<&'static str> {
    let s = &t.send;
    let finishing =
        matches!(t.state, State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck | State::TimeWait);
    let is_open = matches!(t.state, State::Established | State::CloseWait);
    let records = [s.records.first(), s.records.last()].map(|slot| slot.map(|slot| *store.records.get(slot)));
    let [first, last] = records;
    if s.iss.raw() >> 32 != 1 {
        Some("a stream that begins where none does")
    } else if !(s.iss <= s.una && s.una <= s.nxt && s.nxt <= s.max && s.nxt <= s.last()) {
        Some("sent octets in disorder")
    } else if s.max > s.nxt + 1 {
        Some("octets sent that there are not")
    } else if t.state.is_synchronized() && s.una <= s.iss {
        Some("synchronized, and the SYN is not acknowledged")
    } else if !t.state.is_synchronized() && s.una != s.iss && !t.fast_open.is_pending() {
        Some("not synchronized, and the SYN is acknowledged")
    } else if s.end > s.stream.limit() || !s.stream.reaches(&store.send, s.end) {
        Some("octets to send that nobody gave")
    } else if t.state.is_synchronized() && s.stream.start() != s.una.min(s.end) {
        Some("octets acknowledged that are kept, or kept that are not")
    } else if first.map_or(s.nxt, |r| r.start).max(s.iss + 1) != s.una.max(s.iss + 1)
        || last.is_some_and(|r| r.end != s.nxt)
    {
        Some("segments in flight that were not sent")
    } else if finishing != s.fin && (finishing || is_open) {
        Some("a state that our FIN denies")
    } else if t.state == State::FinWait2 && s.una <= s.end {
        Some("a state that the acknowledgement of our FIN denies")
    } else {
        None
    }
}

fn receiving(t: &Tcb, store: &Store) -> Option<&'static str> {
    let r = &t.receive;
    let closed = matches!(t.state, State::CloseWait | State::Closing | State::LastAck | State::TimeWait);
    let start = r.stream.start();
    if r.irs.raw() >> 32 != 1 || r.nxt <= r.irs {
        Some("a stream received before it began")
    } else if r.nxt > r.edge || r.window() > WINDOW_MAX || r.last_ack_sent > r.nxt {
        Some("octets received in disorder")
    } else if start > r.data_end() || r.data_end() > r.stream.limit() || !r.stream.reaches(&store.receive, r.data_end())
    {
        Some("octets received that are not there")
    } else if t.guest.delivered > r.nxt || t.guest.furthest > r.nxt {
        Some("octets told to the guest that were not received")
    } else if r.has_gap() && r.reach_beyond_gap() == 0 {
        Some("a gap before octets that were received")
    } else if t.state.is_synchronized() && closed != r.is_finished() {
        Some("a state that the peer's FIN denies")
    } else {
        None
    }
}

fn figures(t: &Tcb) -> Option<&'static str> {
    if t.state.is_synchronized() && !(SEND_MSS_MIN..=t.receive_mss()).contains(&t.send.mss) {
        Some("segments of no size")
    } else if t.send.shift > 14 || t.receive.shift > 14 {
        Some("a shift that RFC 7323 does not have")
    } else if u64::from(t.send.window) > WINDOW_MAX || u64::from(t.recovery.window.congestion) > WINDOW_MAX {
        Some("a window beyond the largest")
    } else if t.recovery.window.congestion == 0 && t.state.is_synchronized() {
        Some("a congestion window of nothing")
    } else if t.rtt.smoothed().is_some_and(|smoothed| smoothed > ROUND_TRIP_MAX) {
        Some("a round trip of hours")
    } else {
        None
    }
}

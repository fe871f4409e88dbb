//! Trains: segments of new data that leave as one frame.
//!
//! A wire that cuts frames itself (segmentation offload: a TAP, whose kernel does it or never has to) is handed the headers
//! once, with the text of many segments behind them. To TCP each of them is a segment like any other: it has a record of its
//! own, asks the peer's window, the congestion window, the pace and Nagle's algorithm for itself, and is found lost by
//! itself. What is saved is the rest: a turn in the queue, the headers, a frame, and at the other end most of an
//! acknowledgement.
//!
//! Only what would have been sent next, with the same headers but for the number, is coupled: new data of full size, the
//! last one perhaps shorter. A probe of the path's MTU, a segment with SACK blocks or an urgent mark, one that says that the
//! window was reduced (CWR), and whatever is sent again goes alone. PSH and FIN stand on the last one.
//!
//! *Bound.* The text that the caller allows, which is at most [`TEXT_BYTES_MAX`].

use crate::counters::Counter;
use crate::tcp::output::{self, Outgoing};
use crate::tcp::tcb::{Store, Tcb};
use crate::time::Instant;
use crate::wire::ip::V6_HEADER_BYTES;
use crate::wire::options::OPTION_BYTES_MAX;
use crate::wire::segment::{Flags, TCP_HEADER_BYTES};

/// The most text of a train, in bytes: with the longest headers a packet of 65,535 bytes.
pub const TEXT_BYTES_MAX: usize = 65_535 - V6_HEADER_BYTES - TCP_HEADER_BYTES - OPTION_BYTES_MAX;

/// Couples to `first`, which [`output::next_segment`] has just given, what may follow it at once, up to `text_bytes_max` bytes
/// of text in all. If something was coupled: the text of each segment but the last, in bytes.
pub fn couple(
    t: &mut Tcb,
    store: &mut Store,
    now: Instant,
    first: &mut Outgoing,
    text_bytes_max: usize,
) -> Option<usize> {
    let unit = first.text_bytes;
    if !may_lead(t, store, first) {
        return None;
    }
    let mut segments = 1;
    while let Some(length) = next_octets(t, store, now) {
        let end = t.send.nxt + length;
        let text = end.min(t.send.end).since(t.send.nxt) as usize;
        if text == 0 || text > unit || first.text_bytes + text > text_bytes_max.min(TEXT_BYTES_MAX) {
            break;
        }
        store.steps.one();
        if !output::put_under_way(t, store, now, end) {
            break;
        }
        t.recovery.pacing.sent(t.recovery.pace(), text as u64, now);
        first.text_bytes += text;
        t.send.burst += 1;
        segments += 1;
        if end > t.send.end {
            first.flags = first.flags | Flags::FIN;
        }
        if text < unit {
            break;
        }
    }
    if segments == 1 {
        return None;
    }
    // The last of what is queued, and of what may go for now, is pushed, as it is of segments that go alone.
    if t.send.nxt >= t.send.end || output::new_octets(t, store, now, false).is_none() {
        first.flags = first.flags | Flags::PSH;
    }
    t.figures.segments_out += segments - 1;
    t.figures.bytes_sent += (first.text_bytes - unit) as u64;
    (1..segments).for_each(|_| store.counters.add(Counter::TcpSegmentsOut));
    Some(unit)
}

/// Whether others may follow it: new data, sent for the first time, and nothing in its headers that is meant for it alone.
fn may_lead(t: &Tcb, store: &Store, first: &Outgoing) -> bool {
    let alone = Flags::SYN | Flags::RST | Flags::FIN | Flags::PSH | Flags::CWR;
    let Some(last) = t.send.records.last() else { return false };
    let record = store.records.get(last);
    t.state.is_synchronized()
        && first.text_bytes <= t.send.mss as usize
        && !first.flags.has_any(alone)
        && first.urgent.is_none()
        && first.options.sack.as_slice().is_empty()
        && record.transmissions == 1
        && record.start == first.text_at
        && record.end == t.send.nxt
}

/// The octets of the next segment of new data, if one may go and is no probe of the path's MTU.
fn next_octets(t: &mut Tcb, store: &Store, now: Instant) -> Option<u64> {
    let queued = t.send.last().since(t.send.nxt);
    let allowed = t.send.edge().since(t.send.nxt);
    if t.probe_bytes(queued, allowed, now).is_some() {
        return None;
    }
    output::new_octets(t, store, now, false)
}

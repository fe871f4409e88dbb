//! Header prediction (Jacobson, 1990): the next segment of a stream that flows one way.
//!
//! RFC 9293 orders eight checks, and for most segments the first five change next to nothing. [`holds`] is true only of a segment of
//! which that is known: open, the very next text, nothing in flight or waiting on our side, an acknowledgement of what is
//! acknowledged, no option but the timestamps that were agreed on, no flag but ACK and PSH, text that fits into the window and
//! fills no gap. Then what the eight checks would do is the few lines of [`arrives`]. Whatever is not known goes the long
//! way; so nothing that can be seen depends on it, which a test shows that sends the same segments to two cards, one of
//! which predicts nothing.
//!
//! The conditions, by the check that each of them stands for:
//!
//! | check | does nothing because |
//! |---|---|
//! | first, the sequence number | SEG.SEQ is RCV.NXT, and the window is open |
//! | and its timestamp | there is one if and only if that was agreed on, and not an older one; TS.Recent is kept here |
//! | second, fourth: RST, SYN | no such flag |
//! | fifth, the ACK | it is SND.UNA, and that is behind our SYN; recovery is at rest; no probe of the path's MTU is under way; its window is taken here |
//! | ECN | not agreed on |
//! | sixth, URG | no such flag |
//! | seventh, the text: what of it is new, and where it goes | all of it, and to RCV.NXT: it ends within the window and the pages behind that, and nothing lies beyond a gap; somebody will read it |
//! | eighth, the FIN | no such flag, and none seen before |
//!
//! A fault that is armed wants to see every segment on the long way.

use crate::counters::Counter;
use crate::tcp::arrives::{Reply, took_in_order};
use crate::tcp::tcb::{State, Store, Tcb};
use crate::time::Instant;
use crate::wire::segment::{Flags, Segment};

/// Whether it is all that can be expected of this segment.
pub fn holds(t: &Tcb, store: &Store, segment: &Segment<'_>) -> bool {
    let (s, r) = (&t.send, &t.receive);
    segment.flags.0 & !Flags::PSH.0 == Flags::ACK.0
        && t.state == State::Established
        && segment.seq == r.nxt.seq()
        && segment.ack == s.una.seq()
        && !segment.text.is_empty()
        && r.nxt + segment.text.len() as u64 <= r.edge.min(r.stream.limit())
        && !r.has_gap()
        && r.fin.is_none()
        && t.guest.context.is_some()
        && s.una > s.iss
        && s.last() == s.nxt
        && s.una == s.max
        && !t.agreed.ecn
        && timestamp_is_plain(t, segment)
        && segment.options.sack.as_slice().is_empty()
        && segment.options.user_timeout.is_none()
        && t.recovery.is_at_rest(s)
        && t.before_probe_fate().is_none()
        && !store.faults.is_armed()
        && store.predicts
}

fn timestamp_is_plain(t: &Tcb, segment: &Segment<'_>) -> bool {
    match segment.options.timestamps {
        Some(timestamps) => t.agreed.timestamps && timestamps.value.wrapping_sub(t.receive.timestamp) as i32 >= 0,
        None => !t.agreed.timestamps,
    }
}

/// Takes a segment of which [`holds`] is true. Nothing comes of it but an acknowledgement that is owed, and news for the guest.
pub fn arrives(t: &mut Tcb, store: &mut Store, segment: &Segment<'_>, now: Instant) -> Reply {
    store.counters.add(Counter::TcpPredicted);
    let before = t.moving();
    let seq = t.receive.nxt;
    if let Some(timestamps) = segment.options.timestamps
        && seq <= t.receive.last_ack_sent
    {
        t.receive.timestamp = timestamps.value;
        t.receive.timestamp_at = now;
    }
    t.send.update_window(seq, t.send.una, segment.window);
    (t.heard_at, t.keep_alives) = (now, 0);
    if t.send.window == 0 {
        t.progress_at = now;
    }
    let full = (segment.text.len() as u32).min(t.receive_mss());
    t.receive.segment_bytes = t.receive.segment_bytes.max(full);
    t.receive.next_text(&mut store.receive, segment.text);
    took_in_order(t, store, segment.flags.has(Flags::PSH), full, false, now);
    t.seal_again(&before);
    Reply::Predicted
}

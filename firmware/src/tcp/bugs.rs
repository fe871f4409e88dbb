//! Known bugs of offload engines, to be switched on: each is one that real cards have had.
//!
//! Without its site armed a bug is a branch that is not taken. They are here so that tests, drivers and peers can be tried
//! against a card that has one of them; that each is caught by a test of the RFC's rule, `tests/bugs.rs` shows.

use crate::fault::{Faults, Site};
use crate::tcp::output::Outgoing;
use crate::tcp::tcb::Tcb;
use crate::wire::segment::Flags;

/// `bug.mss`: the peer's MSS is not heeded.
pub fn mss(faults: &Faults, peer: Option<u16>) -> Option<u16> {
    if faults.strike(Site::BugMss).is_some() { Some(u16::MAX) } else { peer }
}

/// `bug.window_scale`: the peer's shift is not heeded.
pub fn window_scale(faults: &Faults, t: &mut Tcb) {
    if t.send.shift > 0 && faults.strike(Site::BugWindowScale).is_some() {
        t.send.shift = 0;
    }
}

/// `bug.window_update`: the window of every segment is taken, however old it is.
pub fn believe_any_window(t: &mut Tcb, field: u16) {
    t.send.window = u32::from(field) << t.send.shift;
    t.send.window_max = t.send.window_max.max(t.send.window);
}

/// What is said wrongly of a segment, when everything else of it is known.
#[cold]
#[inline(never)]
pub fn say_wrongly(segment: &mut Outgoing, faults: &Faults) {
    let has = |site: Site| faults.strike(site).is_some();
    let is_data = segment.flags.0 & (Flags::SYN | Flags::RST).0 == 0;
    if has(Site::BugByteOrder) {
        segment.window = segment.window.swap_bytes();
    }
    if let Some(urgent) = &mut segment.urgent
        && has(Site::BugUrgent)
    {
        *urgent = urgent.wrapping_add(1);
    }
    if is_data && has(Site::BugAckOffByOne) {
        segment.ack.0 = segment.ack.0.wrapping_sub(1);
    }
    if let Some(timestamps) = &mut segment.options.timestamps
        && is_data
        && has(Site::BugTimestampEcho)
    {
        timestamps.echo = timestamps.echo.wrapping_add(1);
    }
    if segment.flags.has(Flags::PSH) && has(Site::BugLostPush) {
        segment.flags.0 &= !Flags::PSH.0;
    }
}

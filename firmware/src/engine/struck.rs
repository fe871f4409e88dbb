//! What faults do at the firmware's own sites, where it is not a pool, a timer or a block that is struck.
//!
//! Whatever is here is behind a branch that is not taken while nothing is armed, and out of line.

use toe_abi::{Mac, Reason};

use crate::chance::Keys;
use crate::engine::{Event, Finding, Firmware};
use crate::fault::{Action, Look, Site};
use crate::seq::Seq;
use crate::store::slab::{Id, Slot};
use crate::tcp::damage;
use crate::tcp::output::Outgoing;
use crate::tcp::tcb::Tuple;
use crate::time::Instant;
use crate::wire::frame::Headers;

impl Firmware {
    /// From here on the call is about the segment in a frame.
    #[cold]
    pub(super) fn about_segment(&self, tuple: &Tuple, tcp: &[u8]) {
        let flags = tcp.get(13).copied().unwrap_or(0);
        let (state, context) = if self.store.faults.asks_for_state() { self.state_of(tuple) } else { (None, None) };
        let ends = Some((tuple.local, tuple.remote));
        self.store.faults.about(Look { bytes: tcp.len() as u64, ends, flags, state, context });
    }

    /// From here on the call is about a connection.
    #[cold]
    pub(super) fn about_connection(&self, slot: Slot) {
        let t = &self.connections[slot];
        let ends = Some((t.tuple.local, t.tuple.remote));
        let (state, context) = (Some(t.state.linux()), t.guest.context);
        self.store.faults.about(Look { bytes: 0, ends, flags: 0, state, context });
    }

    /// Whether a segment's checksum is right, as the card sees it.
    #[cold]
    pub(super) fn checksum_seems_right(&self, is_right: bool) -> bool {
        match self.store.faults.strike(Site::RxChecksum) {
            None => is_right,
            Some(Action::Error) => false,
            Some(_) => true,
        }
    }

    /// The keys that are used.
    #[inline]
    pub(super) fn keys(&self) -> &Keys {
        if self.store.faults.strike(Site::Key).is_none() { &self.keys } else { &Keys::ZERO }
    }

    /// An initial sequence number that is not what it should be, if a fault strikes.
    #[cold]
    pub(super) fn struck_sequence_number(&self, clock: u32) -> Option<Seq> {
        match self.store.faults.strike(Site::Isn)? {
            Action::Corrupt(Some(value)) => Some(Seq(value as u32)),
            _ => Some(Seq(clock)),
        }
    }

    /// A place for a context, if there is one and no fault refuses it.
    pub(super) fn take_context(&mut self) -> Option<Id> {
        if self.contexts.admits() { self.contexts.take() } else { None }
    }

    /// Queues an event for the host, unless a fault has it lost, or repeated until the queue is full.
    pub(super) fn tell_host(&mut self, event: Event) {
        match self.store.faults.strike(Site::Events) {
            None => self.pressure.push(event),
            Some(Action::Drop) => {}
            Some(_) => (0..=self.pressure.gauge.free()).for_each(|_| self.pressure.push(event)),
        }
    }

    /// Before a connection's segment is written: its next hop, and its text where it lies.
    #[cold]
    pub(super) fn struck_before_writing(&mut self, slot: Slot, segment: &Outgoing) {
        let t = &mut self.connections[slot];
        if let Some(Action::Corrupt(Some(value))) = self.store.faults.strike(Site::Neighbour) {
            let [a, b, c, d, e, ..] = value.to_le_bytes();
            // Of one station, and of nobody's making.
            t.link.remote = Mac([2, a, b, c, d, e]);
        }
        if segment.text_bytes > 0
            && let Some(Action::FlipBit(drawn)) = self.store.faults.strike(Site::PayloadTx)
        {
            t.send.stream.flip_bit(&mut self.store.send, segment.text_at, segment.text_bytes as u64, drawn);
        }
    }

    /// Damages a connection's block where faults say so. Its seal shows that; without seals, what of it contradicts itself is
    /// looked at here, because nothing may follow from it that is out of bounds. Whether the connection is still there.
    #[cold]
    pub(super) fn survives_damage(&mut self, slot: Slot, now: Instant) -> bool {
        let t = &mut self.connections[slot];
        for site in Site::ALL {
            if Site::BLOCK & site.bit() != 0
                && let Some(Action::Corrupt(Some(value))) = self.store.faults.strike(site)
            {
                damage::damage(t, site, value);
            }
        }
        let is_contradictory = !self.seals && damage::contradiction(t, &self.store).is_some();
        if is_contradictory {
            self.condemn(slot, Finding::StateDamaged, Reason::StateDamaged, now);
        }
        !is_contradictory
    }

    /// After it was written: its checksum.
    #[cold]
    pub(super) fn struck_after_writing(&self, headers: &Headers, frame: &mut [u8]) {
        let at = toe_abi::ETHERNET_HEADER_BYTES + headers.ip.bytes() + CHECKSUM_AT;
        let Some(field) = frame.get_mut(at..).and_then(|f| f.first_chunk_mut::<2>()) else { return };
        match self.store.faults.strike(Site::TxChecksum) {
            Some(Action::FlipBit(drawn)) => field[(drawn / 8 % 2) as usize] ^= 1 << (drawn % 8),
            Some(Action::Corrupt(Some(value))) => *field = (value as u16).to_be_bytes(),
            _ => {}
        }
    }
}

/// Where the checksum stands in a TCP header.
const CHECKSUM_AT: usize = 16;

/// What may strike before a connection's segment is written.
pub(super) const BEFORE_WRITING: u128 = Site::Neighbour.bit() | Site::PayloadTx.bit();

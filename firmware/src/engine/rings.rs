//! Shared rings: payload that passes between the card's pages and the driver's own memory without a frame around it.
//!
//! A driver names a ring for a direction of a connection by an option ([`crate::tcp::ring`]). From then on FILLED does for bytes to
//! send what SEND does, and received bytes are written into the ring and told by STORED in the place of RECEIVED. Nothing else is
//! different: the card keeps received bytes until they are acknowledged and holds those to send before it says so, positions are absolute, and
//! a message that is lost is repeated and finds the same bytes.
//!
//! The firmware has no pointer. It says addresses to the [`HostMemory`] that the device gave it, which checks each of them, when
//! the ring is named and whenever it is used. When the memory is another than it was ([`HostMemory::generation`]) or an access fails, the rings of that
//! connection are forgotten: received bytes go in frames again, and FILLED is refused, upon which the driver sends them in frames.
//!
//! *Bounds.* A FILLED moves no more than the card's credit, and no more than the ring has. One turn of a connection moves
//! [`TURN_BYTES`] of received data. Bytes go through [`PIECE_BYTES`] on the stack.

use toe_abi::{Filled, Message, Reason, Stored, Writer, option};

use super::requests::From;
use super::{Finding, Firmware};
use crate::counters::Counter;
use crate::store::slab::Slot;
use crate::tcp::calls::Sent;
use crate::tcp::ring::{SharedRing, SharedRings};
use crate::time::Instant;

/// The memory of whoever is on the other side of the channel, by the addresses that the other side uses. What is read may change at any
/// time, and is read once.
pub trait HostMemory: std::fmt::Debug + Send {
    /// Which memory it is: with another number nothing that was said of the former holds.
    fn generation(&self) -> u32;

    /// Whether all of it is there.
    fn holds(&self, address: u64, bytes: u64) -> bool;

    /// Copies bytes out; `false` if not all of them are there, and what is in `into` is nothing then.
    #[must_use]
    fn read(&self, address: u64, into: &mut [u8]) -> bool;

    /// Copies bytes in; `false` if there is no such memory for all of them.
    #[must_use]
    fn write(&self, address: u64, bytes: &[u8]) -> bool;
}

/// Bytes that are copied at once: what a processor's nearest cache holds beside the rest.
const PIECE_BYTES: usize = 8192;
/// The most that one turn of a connection writes into its ring.
const TURN_BYTES: u64 = 64 * 1024;

impl Firmware {
    /// The card reaches the driver's memory from here on, and says so in CAPS. Whoever can send channel frames can then have all of that
    /// memory read and written.
    pub fn share(&mut self, memory: Box<dyn HostMemory>) {
        self.host = Some(memory);
    }

    /// SET_OPTION of one of the two rings.
    pub(super) fn name_ring(&mut self, slot: Slot, which: u32, value: u64) -> Result<(), Reason> {
        let ring = SharedRing::named(value)?;
        let Some(host) = &self.host else { return Err(Reason::OptionUnknown) };
        if ring.is_there() && !host.holds(ring.address(), ring.bytes()) {
            self.store.counters.add(Counter::RingsRefused);
            return Err(Reason::MemoryUnreachable);
        }
        let generation = host.generation();
        let rings = &mut self.connections[slot].guest.rings;
        if rings.generation != generation {
            *rings = SharedRings { generation, ..SharedRings::default() };
        }
        let place = if which == option::SEND_RING { &mut rings.send } else { &mut rings.receive };
        // A driver that has not heard the answer says it again.
        let is_new = ring.is_there() && *place != ring;
        *place = ring;
        if is_new {
            self.store.counters.add(Counter::RingsNamed);
        }
        Ok(())
    }

    /// The rings of a connection, as long as they are parts of the memory that is there.
    fn rings(&mut self, slot: Slot) -> SharedRings {
        let rings = self.connections[slot].guest.rings;
        if rings == SharedRings::default() || self.host.as_ref().is_some_and(|h| h.generation() == rings.generation) {
            return rings;
        }
        self.forget_rings(slot)
    }

    #[cold]
    fn forget_rings(&mut self, slot: Slot) -> SharedRings {
        self.store.counters.add(Counter::RingsLost);
        self.connections[slot].guest.rings = SharedRings::default();
        SharedRings::default()
    }

    /// FILLED.
    pub(super) fn filled(&mut self, slot: Slot, from: From, kind: u16, m: &Filled, now: Instant) {
        let result = self.take_from_ring(slot, m.end, now);
        self.settle(slot, now);
        if let Err((counter, reason)) = result {
            self.store.counters.add(counter);
            self.error(from, kind, 0, m.connection, reason);
        }
    }

    fn take_from_ring(&mut self, slot: Slot, end: u64, now: Instant) -> Result<(), (Counter, Reason)> {
        let ring = self.rings(slot).send;
        if !ring.is_there() {
            return Err((Counter::ChannelWrongState, Reason::MemoryUnreachable));
        }
        let t = &mut self.connections[slot];
        let mut held = t.send_offset(t.send.end);
        let limit = t.send_offset(t.send.stream.limit());
        // Whatever is not taken shows that the guest does not know something.
        t.guest.credit_due |= end <= held || end > limit;
        if end <= held {
            self.store.counters.add(Counter::ChannelRepeated);
            return Ok(());
        }
        if end - held > ring.bytes() {
            return Err((Counter::ChannelOffset, Reason::Offset));
        }
        if end > limit {
            return Err((Counter::ChannelBeyondCredit, Reason::BeyondCredit));
        }
        let mut piece = [0; PIECE_BYTES];
        while held < end {
            let (address, run) = ring.place(held);
            let bytes = (end - held).min(run).min(PIECE_BYTES as u64);
            let piece = &mut piece[..bytes as usize];
            if !self.host.as_ref().is_some_and(|host| host.read(address, piece)) {
                self.forget_rings(slot);
                return Err((Counter::ChannelWrongState, Reason::MemoryUnreachable));
            }
            match self.connections[slot].call_send(&mut self.store, held, piece, now) {
                Sent::Taken => held += bytes,
                Sent::AfterShutdown => return Err((Counter::ChannelWrongState, Reason::WrongState)),
                Sent::BeyondCredit => return Err((Counter::ChannelBeyondCredit, Reason::BeyondCredit)),
                Sent::Over | Sent::Gap | Sent::Repeated => {
                    self.store.counters.add(Counter::ChannelWrongState);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Writes up to `credit` bytes of a connection's received data into its ring, and tells it; `None` if it has no ring, `false` if
    /// something is left.
    pub(super) fn store_in_ring(&mut self, w: &mut Writer<'_>, slot: Slot, credit: u64, now: Instant) -> Option<bool> {
        if !self.connections[slot].guest.rings.receive.is_there() {
            return None;
        }
        let ring = self.rings(slot).receive;
        if !ring.is_there() {
            return None;
        }
        let connection = self.connections.id(slot);
        let t = &self.connections[slot];
        let (start, kept) = (t.guest.delivered, t.receive.stream.start());
        let wanted = t.deliverable().min(credit);
        // What the guest does not hold yet must not be written over, whatever limit it gave.
        let room = ring.bytes().saturating_sub(start.since(kept));
        if room == 0 && wanted > 0 {
            // It gave more credit than its ring has room for.
            self.forget_rings(slot);
            return None;
        }
        let bytes = wanted.min(room).min(TURN_BYTES);
        let offset = t.receive_offset(start);
        let message = Message::Stored(Stored { connection, offset, end: offset + bytes });
        if bytes == 0 {
            self.connections[slot].await_guest(now);
            return Some(true);
        }
        if w.room(&message) == 0 {
            self.connections[slot].await_guest(now);
            return Some(false);
        }
        if !t.receive.stream.is_whole(&self.store.receive, start, bytes) {
            self.condemn(slot, Finding::DataDamaged, Reason::DataDamaged, now);
            return Some(true);
        }
        let mut piece = [0; PIECE_BYTES];
        let mut done = 0;
        while done < bytes {
            let (address, run) = ring.place(offset + done);
            let length = (bytes - done).min(run).min(PIECE_BYTES as u64);
            let piece = &mut piece[..length as usize];
            self.connections[slot].receive.stream.read(&self.store.receive, start + done, piece);
            if !self.host.as_ref().is_some_and(|host| host.write(address, piece)) {
                self.forget_rings(slot);
                return None;
            }
            done += length;
        }
        let written = w.push(&message);
        debug_assert!(written);
        let t = &mut self.connections[slot];
        t.guest.delivered = start + bytes;
        t.guest.furthest = t.guest.furthest.max(t.guest.delivered);
        t.await_guest(now);
        Some(bytes == wanted)
    }
}

//! Where faults may strike on the way of a frame: the data path asks here, and what is passed on goes on its way.
//!
//! Each `passes_…` is a place. It says whether the frame goes on at once; if not, it is lost, or held and let go later
//! ([`DataPath::let_go`]) behind that place, so that it is asked about once. With nothing armed each is one branch.

use toe_firmware::fault::{Action, Look, Rules, Site};
use toe_firmware::{Instant, Offload, Way};
use vhost_user_backend::{VringState, VringT};
use vm_memory::GuestAddressSpace;

use super::{Bits, DataPath, LOOK_AGAIN, Origin, interrupt};
use crate::capture::Point;
use crate::fault::held::Gate;
use crate::fault::status::Status;
use crate::fault::{LOST_WAKE, STORM_GAP, damage, later};
use crate::net::Offloads;
use crate::packet::Packet;
use crate::ring::{Mishap, Ring};

impl Origin {
    fn gate(self) -> Gate {
        Gate::ToWire { is_firmwares: self == Self::Firmware }
    }
}

/// The sites of a ring.
fn sites(ring: usize) -> (Site, Site) {
    if ring.is_multiple_of(2) { (Site::KickRx, Site::CallRx) } else { (Site::KickTx, Site::CallTx) }
}

impl DataPath {
    /// Arms faults at `now`, instead of those that were.
    pub fn arm(&mut self, rules: Rules, seed: u64, now: Instant) {
        self.disarm();
        self.firmware.arm(rules, seed, now);
        self.faults.armed = Some(seed);
        self.set_wire_offloads();
    }

    /// Disarms what is armed. What faults hold goes on its way.
    pub fn disarm(&mut self) {
        self.firmware.disarm();
        self.faults.disarm();
        self.set_wire_offloads();
    }

    /// What is armed, and what it has done.
    pub fn fault_status(&self) -> Status {
        Status::new(self.firmware.faults().as_deref(), self.faults.armed, self.faults.held.len())
    }

    /// With faults armed, frames from the wire and to it have complete checksums and are not merged, so that damage shows.
    pub(super) fn set_wire_offloads(&mut self) {
        let is_armed = self.faults.armed.is_some();
        self.wire.set_offloads(if is_armed { Offloads::default() } else { self.offloads });
        self.wire_offload = if is_armed { Offload::default() } else { self.wire.offload() };
    }

    /// What is to be done at a site that knows of no frame.
    fn strike(&self, site: Site, now: Instant) -> Option<Action> {
        self.faults.armed?;
        self.firmware.fault(site, now, Look::default())
    }

    /// The firmware's timers are due.
    pub(super) fn wake_firmware(&mut self, now: Instant) {
        match self.strike(Site::TimerWake, now) {
            Some(Action::Drop) => self.faults.sleep(now + LOST_WAKE),
            Some(Action::Delay(us)) => self.faults.sleep(later(now, us)),
            strike => {
                self.firmware.handle_timeout(now);
                if strike == Some(Action::Duplicate) {
                    self.firmware.handle_timeout(now);
                }
            }
        }
    }

    /// A ring's doorbell rang. Whether it was heard.
    #[must_use]
    pub fn kick(&mut self, ring: usize, now: Instant) -> bool {
        match self.strike(sites(ring).0, now) {
            Some(Action::Drop) => return false,
            Some(Action::Delay(us)) => {
                self.faults.kick_at(later(now, us));
                return false;
            }
            Some(Action::Duplicate) => self.faults.kick_at(later(now, 1)),
            _ => {}
        }
        self.vigil.kicked(ring, now);
        true
    }

    /// A ring's driver wants an interrupt.
    pub(super) fn interrupt(&mut self, ring: usize, vring: &VringState, now: Instant) {
        self.vigil.called(ring);
        match self.strike(sites(ring).1, now) {
            Some(Action::Drop) => return,
            Some(Action::Delay(us)) if self.faults.call_at(later(now, us), ring, 1) => return,
            // No other place: nothing is repeated.
            Some(Action::Duplicate) => _ = self.faults.call_at(now + STORM_GAP, ring, 1),
            Some(Action::Corrupt(Some(0))) => return,
            Some(Action::Corrupt(Some(times))) => _ = self.faults.call_at(now + STORM_GAP, ring, times - 1),
            _ => {}
        }
        interrupt(&mut self.counters, vring);
    }

    /// A frame from the wire.
    pub(super) fn passes_from_wire(&mut self, now: Instant, packet: &mut Packet) -> bool {
        if self.faults.armed.is_none() {
            return true;
        }
        self.passes_link(now) && {
            let strike = self.firmware.fault_at_frame(Site::WireRx, now, packet.frame(), Way::In);
            passes(
                &mut Struck { faults: &mut self.faults, counters: &mut self.counters },
                Gate::FromWire,
                now,
                strike,
                packet,
            )
        }
    }

    /// The frame in `outgoing`, for the wire.
    pub(super) fn passes_to_wire(&mut self, now: Instant, origin: Origin) -> bool {
        if self.faults.armed.is_none() {
            return true;
        }
        let strike = self.firmware.fault_at_frame(Site::WireTx, now, self.outgoing.frame(), Way::Out);
        let mut struck = Struck { faults: &mut self.faults, counters: &mut self.counters };
        passes(&mut struck, origin.gate(), now, strike, &mut self.outgoing) && self.passes_link(now)
    }

    /// A frame on the link, either way.
    fn passes_link(&mut self, now: Instant) -> bool {
        match self.strike(Site::WireLink, now) {
            Some(Action::Drop) => self.faults.link_down(later(now, 1)),
            Some(Action::Hang(us)) => self.faults.link_down(later(now, us)),
            _ => {}
        }
        let is_down = self.faults.is_link_down(now);
        self.counters.fault_frames_lost += u64::from(is_down);
        !is_down
    }

    /// The frame in `outgoing` was read from a transmit ring.
    pub(super) fn passes_from_guest(&mut self, now: Instant, ring: &Ring<'_>) -> bool {
        if self.faults.armed.is_none() {
            return true;
        }
        let strike = self.firmware.fault_at_frame(Site::DmaTxRead, now, self.outgoing.frame(), Way::Out);
        if let Some(Action::Corrupt(_)) = strike {
            ring.transmit_astray(&mut self.outgoing);
        }
        let mut struck = Struck { faults: &mut self.faults, counters: &mut self.counters };
        if !passes_copy(&mut struck, Gate::FromGuest, now, strike, &mut self.outgoing) {
            return false;
        }
        if Point::of_guest(self.outgoing.frame()) != Point::Channel {
            return true;
        }
        let strike = self.firmware.fault_at_frame(Site::ChannelRx, now, self.outgoing.frame(), Way::Out);
        passes(&mut struck, Gate::FromGuest, now, strike, &mut self.outgoing)
    }

    /// The first frame of a pair's queue is about to be written to a receive ring. If it does not pass, it has left the queue.
    pub(super) fn passes_to_guest(&mut self, now: Instant, pair: usize, ring: &mut Ring<'_>) -> bool {
        if self.faults.armed.is_none() || self.faults.asked & 1 << pair != 0 {
            return true;
        }
        let Some(packet) = self.fifo.front_mut(pair) else { return true };
        let strike = self.firmware.fault_at_frame(Site::DmaRxWrite, now, packet.frame(), Way::In);
        if let Some(Action::Corrupt(_)) = strike {
            ring.befall(Mishap::Astray);
        }
        let mut struck = Struck { faults: &mut self.faults, counters: &mut self.counters };
        let passes = passes_copy(&mut struck, Gate::ToGuest(pair), now, strike, packet);
        if passes {
            self.faults.asked |= 1 << pair;
        } else {
            self.forget_front(pair);
        }
        passes
    }

    /// The firmware's frame in `channel`.
    pub(super) fn passes_channel(&mut self, now: Instant) -> bool {
        if self.faults.armed.is_none() {
            return true;
        }
        let mut struck = Struck { faults: &mut self.faults, counters: &mut self.counters };
        let strike = self.firmware.fault_at_frame(Site::ChannelTx, now, self.channel.frame(), Way::In);
        if !passes(&mut struck, Gate::Channel, now, strike, &mut self.channel) {
            return false;
        }
        let strike = self.firmware.fault_at_frame(Site::DmaRxWrite, now, self.channel.frame(), Way::In);
        let passes = passes_copy(&mut struck, Gate::Channel, now, strike, &mut self.channel);
        self.faults.channel_astray = passes && matches!(strike, Some(Action::Corrupt(_)));
        passes
    }

    /// The firmware's frame in `channel` is about to be written to a receive ring.
    pub(super) fn before_channel(&mut self, ring: &mut Ring<'_>) {
        if std::mem::take(&mut self.faults.channel_astray) {
            ring.befall(Mishap::Astray);
        }
    }

    /// A receive ring's used index is about to be written, if anything was used.
    ///
    /// No transmit ring's: Linux (6.1) turns for ever in its driver when it has given such a ring up, and its processor with it.
    pub(super) fn before_close(&mut self, number: usize, ring: &mut Ring<'_>, now: Instant) {
        if self.faults.armed.is_none() || !ring.has_used() {
            return;
        }
        match self.strike(Site::UsedIndex, now) {
            Some(Action::Drop) => {
                // Nor is it interrupted for it, which it may have asked for.
                self.vigil.called(number);
                ring.befall(Mishap::IndexLate);
            }
            Some(Action::Error) => ring.befall(Mishap::WrongId),
            _ => {}
        }
    }

    /// Looks at all rings, if it is time, for kicks and interrupts that were lost.
    pub(super) fn look_at_rings(&mut self, now: Instant) {
        if self.running == 0 || !self.vigil.is_time(now) {
            return;
        }
        let Some(guest) = self.guest.take() else { return };
        let memory = guest.memory.memory();
        for number in Bits(self.running) {
            let vring = guest.vrings[number].get_ref();
            let Ok(ring) = Ring::open(&memory, vring.get_queue(), guest.features) else { continue };
            ring.republish();
            let seen = self.vigil.look(number, now, ring.seen(), ring.wish_passed());
            self.counters.kicks_missed += u64::from(seen.kick_missed);
            if seen.call_again {
                self.counters.interrupts_repeated += 1;
                self.interrupt(number, &vring, now);
            }
        }
        drop(memory);
        self.guest = Some(guest);
    }

    /// Does what faults have put off until `now`.
    pub(super) fn let_go(&mut self, now: Instant) {
        if self.faults.next().is_none_or(|due| due > now) {
            return;
        }
        while let Some(ring) = self.faults.next_call(now) {
            if let Some(vring) = self.guest.as_ref().and_then(|guest| guest.vrings.get(ring)) {
                interrupt(&mut self.counters, &vring.get_ref());
            }
        }
        loop {
            let is_open = |gate| match gate {
                Gate::ToWire { .. } | Gate::FromGuest => self.waiting.is_none(),
                Gate::FromWire | Gate::ToGuest(_) => !self.fifo.is_full(),
                Gate::Channel => !self.channel_waiting,
            };
            let Some((gate, mut packet)) = self.faults.held.pop(now, is_open) else { break };
            match gate {
                Gate::ToWire { is_firmwares } => {
                    std::mem::swap(&mut self.outgoing, &mut packet);
                    let origin = if is_firmwares { Origin::Firmware } else { Origin::Guest };
                    if self.passes_link(now) {
                        self.send_outgoing(now, origin);
                    }
                }
                Gate::FromGuest => {
                    std::mem::swap(&mut self.outgoing, &mut packet);
                    self.take_from_guest(now);
                }
                Gate::FromWire => {
                    if let Some(mut room) = self.fifo.take() {
                        std::mem::swap(&mut room, &mut packet);
                        self.sort(now, room);
                    }
                }
                Gate::ToGuest(pair) => {
                    if let Some(mut room) = self.fifo.take() {
                        std::mem::swap(&mut room, &mut packet);
                        if self.active & 1 << pair == 0 {
                            self.queue(room);
                        } else {
                            self.fifo.push_front(pair, room);
                            self.faults.asked |= 1 << pair;
                        }
                    }
                }
                Gate::Channel => {
                    std::mem::swap(&mut self.channel, &mut packet);
                    self.channel_waiting = true;
                }
            }
            self.faults.held.give_back(packet);
        }
        if self.faults.held.next().is_some_and(|due| due <= now) {
            self.faults.wait(now + LOOK_AGAIN);
        }
    }
}

/// What changes when a fault strikes a frame.
struct Struck<'a> {
    faults: &'a mut crate::fault::Faults,
    counters: &'a mut crate::counters::Counters,
}

impl Struck<'_> {
    fn lost(&mut self) -> bool {
        self.counters.fault_frames_lost += 1;
        false
    }

    /// A frame was to be held back.
    fn held(&mut self, has_place: bool) -> bool {
        self.counters.fault_frames_no_place += u64::from(!has_place);
        self.counters.fault_frames_lost += u64::from(!has_place);
        false
    }
}

/// What becomes of a frame on a cable or in the channel; whether it goes on at once.
fn passes(struck: &mut Struck<'_>, gate: Gate, now: Instant, strike: Option<Action>, packet: &mut Packet) -> bool {
    let goes_on = match strike {
        Some(Action::Drop) => struck.lost(),
        Some(Action::Delay(us)) => {
            let has_place = struck.faults.held.push(gate, later(now, us), packet);
            struck.held(has_place)
        }
        Some(Action::Reorder(behind)) => {
            let has_place = struck.faults.held.push_behind(gate, now, behind.max(1), packet);
            struck.held(has_place)
        }
        Some(Action::Duplicate) => {
            let has_place = struck.faults.held.push(gate, now, packet);
            struck.counters.fault_frames_no_place += u64::from(!has_place);
            true
        }
        Some(Action::FlipBit(which)) => damage::flip(packet, which) || struck.lost(),
        Some(Action::Truncate(bytes)) => damage::cut(packet, bytes) || struck.lost(),
        _ => true,
    };
    if goes_on {
        struck.faults.held.passed(gate, now);
    }
    goes_on
}

/// The same for a copy from or to guest memory: what is damaged is as long as it was, and no checksum knows of it.
fn passes_copy(struck: &mut Struck<'_>, gate: Gate, now: Instant, strike: Option<Action>, packet: &mut Packet) -> bool {
    match strike {
        Some(Action::FlipBit(which)) => damage::flip_any(packet, which),
        Some(Action::Truncate(bytes)) => damage::short(packet, bytes),
        Some(Action::Error) => damage::torn(packet),
        other => return passes(struck, gate, now, other, packet),
    }
    true
}

//! The way of a frame through the card.
//!
//! ```text
//!  transmit rings ── handle_guest ──────────────────────────▶ wire
//!                         │ taken            poll_wire ──────▶ wire
//!                      firmware
//!                         │ taken            poll_guest ─────▶ receive ring
//!            wire ── handle_wire ── receive FIFO ────────────▶ receive rings
//! ```
//!
//! All of it happens in [`DataPath::round`]: a bounded batch of work in each direction. It never waits. Who is full
//! pushes back: with the wire full, one frame waits in `outgoing` and the transmit rings are left alone; without
//! receive buffers, frames wait in the FIFO, and with that full the wire is left alone; the firmware keeps what it
//! has until it is asked. A round says whether there is more to do at once; if not, the one that is waited for (the
//! driver, the wire, a timer) has been asked to say when.
//!
//! Without a guest (no receive ring runs) wire, timers and firmware go on, and what is not the firmware's is dropped.
//!
//! Where faults may strike stands in `faulty.rs`; that every ring is looked at now and then, too ([`crate::vigil`]).

mod faulty;

use std::collections::VecDeque;

use toe_abi::{ETHERNET_HEADER_BYTES, StatEntry};
use toe_firmware::{Cure, Duration, Firmware, Instant, Lane, Offload, Verdict};
use vhost_user_backend::{VringMutex, VringT};
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use crate::capture::{CaptureError, Direction, Point, Request, Taps, Watch};
use crate::counters::Counters;
use crate::events::{Events, Notice, Watermark};
use crate::fault::Faults;
use crate::fifo::Fifo;
use crate::flow::FlowHash;
use crate::net::{Features, Header, Offloads};
use crate::packet::Packet;
use crate::ring::{Delivery, Ring, RingError, Scratch, SharedMemory, Transmitted};
use crate::vigil::Vigil;
use crate::watchdog::Guard;
use crate::wire::{Sent, Wire};

/// The most frames that one step of a round handles before the others have their turn.
const BATCH: usize = 64;

/// The same in bytes, for the firmware's frames to the wire: they may be long.
const BATCH_BYTES: usize = 256 * 1024;

/// How long frames that wait for the firmware's processor are left alone when the receive FIFO is full.
const LOOK_AGAIN: Duration = Duration::from_ms(1);

/// How many frames may wait.
#[derive(Clone, Copy, Debug)]
pub struct FifoFrames {
    /// For the guest's receive buffers.
    pub receive: usize,
    /// For the firmware's processor.
    pub wire: usize,
}

/// The guest's side: what a frontend has told of it.
pub struct Guest {
    /// The guest's memory; its regions may be replaced at any time.
    pub memory: GuestMemoryAtomic<GuestMemoryMmap>,
    /// Receive and transmit ring of each pair in turn; none until a ring runs for the first time.
    pub vrings: Vec<VringMutex>,
    /// What its driver agreed to.
    pub features: Features,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").field("features", &self.features).finish_non_exhaustive()
    }
}

/// Whose frame waits for the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    Guest,
    Firmware,
}

/// Everything that a frame meets.
pub struct DataPath {
    firmware: Firmware,
    wire: Box<dyn Wire>,
    /// What the wire does to the firmware's frames.
    wire_offload: Offload,
    guest: Option<Guest>,
    fifo: Fifo,
    /// Frames from the wire that wait for the firmware's processor; it says how many may.
    busy: [VecDeque<Packet>; Lane::COUNT],
    /// The firmware's processor has time, but the frame that it would look at may need a place in the receive FIFO.
    look_again: Instant,
    flow: FlowHash,
    /// Bit by bit, the pairs whose receive ring runs.
    active: u64,
    /// Which rings run, in the order of `Guest::vrings`.
    running: u64,
    /// The pair that transmits first in the next round.
    turn: usize,
    /// The frame on its way to the wire; it waits there while `waiting` says whose it is.
    outgoing: Packet,
    waiting: Option<Origin>,
    /// A frame of the firmware for the guest; it waits there if it found too few receive buffers.
    channel: Packet,
    channel_waiting: bool,
    fifo_was_full: bool,
    offloads: Offloads,
    scratch: Scratch,
    counters: Counters,
    taps: Taps,
    events: Events,
    /// Somebody looks again soon whatever happens: nobody need say that there is something.
    polled: bool,
    fifo_level: Watermark,
    guard: Option<Guard>,
    faults: Faults,
    vigil: Vigil,
    /// The guest's memory, if the firmware may reach it.
    shared: SharedMemory,
}

impl std::fmt::Debug for DataPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataPath").field("guest", &self.guest).field("active", &self.active).finish_non_exhaustive()
    }
}

impl DataPath {
    /// A card of that firmware on that wire, with its FIFOs and up to `pairs` queue pairs.
    pub fn new(firmware: Firmware, wire: Box<dyn Wire>, fifo: FifoFrames, pairs: usize) -> Self {
        assert!((1..=64).contains(&pairs), "{pairs} queue pairs");
        Self {
            firmware,
            wire_offload: wire.offload(),
            wire,
            guest: None,
            fifo: Fifo::new(fifo.receive, fifo.wire, pairs),
            busy: Default::default(),
            look_again: Instant::from_us(0),
            flow: FlowHash::default(),
            active: 0,
            running: 0,
            turn: 0,
            outgoing: Packet::default(),
            waiting: None,
            channel: Packet::default(),
            channel_waiting: false,
            fifo_was_full: false,
            offloads: Offloads::default(),
            scratch: Scratch::default(),
            counters: Counters::default(),
            taps: Taps::default(),
            events: Events::default(),
            polled: false,
            fifo_level: Watermark::default(),
            guard: None,
            faults: Faults::default(),
            vigil: Vigil::new(2 * pairs),
            shared: SharedMemory::default(),
        }
    }

    /// The firmware is watched from now on.
    pub fn guard(&mut self, guard: Guard) {
        self.guard = Some(guard);
    }

    /// The firmware may read and write the guest's memory from now on, where a program asks for that: see
    /// [`Firmware::share`].
    pub fn share_memory(&mut self) {
        self.firmware.share(Box::new(self.shared.clone()));
    }

    /// The guest's memory map was replaced.
    pub fn memory_replaced(&mut self) {
        self.shared.remap();
    }

    /// Somebody wants to see what passes.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub fn capture(&mut self, request: Request) -> Result<Watch, CaptureError> {
        let watch = self.taps.add(request)?;
        self.counters.captures += 1;
        Ok(watch)
    }

    /// Ends all captures.
    pub fn end_captures(&mut self) {
        self.taps.end_all();
    }

    /// Somebody wants to hear of pools that fill; `None` if too many do.
    pub fn follow(&mut self) -> Option<tokio::sync::mpsc::Receiver<Notice>> {
        self.events.follow()
    }

    /// Replaces the guest, or takes it away. What waited for the old one is dropped.
    pub fn set_guest(&mut self, guest: Option<Guest>) {
        self.guest = None;
        self.refresh_active();
        self.counters.frontends += u64::from(guest.is_some());
        self.shared.replace(guest.as_ref().map(|guest| guest.memory.clone()));
        self.guest = guest;
        self.faults.forget_guest();
        self.set_offloads(Offloads::default());
    }

    /// The guest, to tell of it what the frontend says.
    pub fn guest_mut(&mut self) -> Option<&mut Guest> {
        self.guest.as_mut()
    }

    /// What the guest takes besides plain frames.
    pub fn set_offloads(&mut self, offloads: Offloads) {
        self.offloads = offloads;
        self.set_wire_offloads();
    }

    /// The wire.
    pub fn wire(&self) -> &dyn Wire {
        &*self.wire
    }

    /// The firmware.
    pub fn firmware(&self) -> &Firmware {
        &self.firmware
    }

    /// The receive FIFO.
    pub fn fifo(&self) -> &Fifo {
        &self.fifo
    }

    /// The device's counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Every counter of device, wire and firmware.
    pub fn all_counters(&self) -> impl Iterator<Item = StatEntry<'static>> + '_ {
        let device = self.counters.iter().chain(self.wire.counters());
        device.map(|(name, value)| StatEntry { name, value }).chain(self.firmware.counters())
    }

    /// When a round is due though nothing happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let firmware = self.firmware.poll_timeout().map(|due| self.faults.awake(due).max(self.look_again));
        let vigil = (self.running != 0).then(|| self.vigil.next());
        let guard = self.guard.as_ref().map(Guard::due);
        [firmware, self.wire.poll_timeout(), self.faults.next(), vigil, guard].into_iter().flatten().min()
    }

    /// Whether somebody looks again soon whatever happens. While it is so, drivers are not asked to say when they have something.
    pub fn set_polled(&mut self, polled: bool) {
        self.polled = polled;
    }

    /// Frames that have come so far, from anywhere.
    pub fn activity(&self) -> u64 {
        let Counters { frames_from_guest, frames_from_wire, firmware_frames_to_wire, firmware_frames_to_guest, .. } =
            &self.counters;
        frames_from_guest + frames_from_wire + firmware_frames_to_wire + firmware_frames_to_guest
    }

    /// Does a bounded amount of everything that can be done at `now`. Whether there is more to do at once.
    #[must_use]
    pub fn round(&mut self, now: Instant) -> bool {
        self.faults.begin(now);
        self.look_after_firmware(now);
        if self.firmware.poll_timeout().is_some_and(|due| self.faults.awake(due) <= now) {
            self.wake_firmware(now);
        }
        self.waiting_to_firmware(now);
        self.wire.advance(now);
        self.refresh_active();
        self.look_at_rings(now);
        self.let_go(now);
        let mut more = false;
        if self.flush_outgoing(now) {
            more |= self.guest_to_wire(now);
        }
        more |= self.wire_to_fifo(now);
        more |= self.firmware_to_wire(now);
        self.wire.flush(now);
        more |= self.fifo_to_guest(now);
        // The wire was left alone for want of room; now there is some, and the wire will not say again what it has.
        more |= self.fifo_was_full && self.fifo.queued() < self.fifo.capacity();
        while let Some(event) = self.firmware.poll_event() {
            self.events.firmware(event);
        }
        // A wire that this very round made room in (a loop) tells nobody of it.
        if self.waiting.is_some() && self.flush_outgoing(now) {
            self.wire.flush(now);
            more = true;
        }
        more
    }

    /// Starts a firmware that has stopped.
    fn look_after_firmware(&mut self, now: Instant) {
        let Some(guard) = &mut self.guard else { return };
        if let Some(cured) = guard.look(now, &mut self.firmware) {
            match cured.cure {
                Cure::Reset => self.counters.watchdog_resets += 1,
                Cure::Restart => self.counters.watchdog_restarts += 1,
            }
            self.events.cured(cured, self.firmware.epoch());
        }
    }

    /// Sees which pairs run. Frames that wait for one that does not any more go to the others.
    fn refresh_active(&mut self) {
        let vrings = self.guest.as_ref().map_or(&[][..], |guest| &guest.vrings);
        let running = vrings.iter().enumerate().filter(|(_, vring)| runs(vring));
        let running = running.fold(0, |mask, (ring, _)| mask | 1 << ring);
        for ring in Bits(running & !std::mem::replace(&mut self.running, running)) {
            self.vigil.forget(ring);
            // A card that was killed may have published what it used without having said so: the driver then waits for an
            // interrupt that no later one stands for, since it asks by position.
            interrupt(&mut self.counters, &vrings[ring].get_ref());
        }
        let active = vrings.iter().step_by(2).enumerate().filter(|(_, vring)| runs(vring));
        let active = active.fold(0, |mask, (pair, _)| mask | 1 << pair);
        if active == self.active {
            return;
        }
        log::debug!("receive rings that run: {:#b}, before {:#b}", active, self.active);
        let gone = self.active & !active;
        self.active = active;
        self.faults.asked &= !u128::from(gone);
        for pair in Bits(gone) {
            while let Some(packet) = self.fifo.pop(pair) {
                self.queue(packet);
            }
        }
        if active == 0 && std::mem::take(&mut self.channel_waiting) {
            self.counters.firmware_frame_undeliverable += 1;
        }
    }

    /// Sends the packet in `outgoing`. Whether the wire may take another.
    fn send_outgoing(&mut self, now: Instant, origin: Origin) -> bool {
        self.waiting = None;
        self.taps.begin(Point::Wire, Direction::Out, self.outgoing.frame());
        match self.wire.send(now, &mut self.outgoing) {
            Sent::Done => {
                match origin {
                    Origin::Guest => self.counters.frames_to_wire += 1,
                    Origin::Firmware => self.counters.firmware_frames_to_wire += 1,
                }
                self.taps.end(&mut self.counters, None);
            }
            Sent::Full => {
                self.waiting = Some(origin);
                self.taps.forget();
            }
            Sent::Down => {
                self.counters.wire_down += 1;
                self.taps.end(&mut self.counters, Some("wire-down"));
            }
            Sent::Refused => {
                self.counters.wire_refused += 1;
                self.taps.end(&mut self.counters, Some("wire-refused"));
            }
        }
        self.waiting.is_none()
    }

    /// Between what fills it and what empties it.
    fn watch_fifo(&mut self) {
        let (queued, capacity) = (self.fifo.queued() as u64, self.fifo.capacity() as u64);
        if let Some(level) = self.fifo_level.look(queued, capacity) {
            self.events.pool("receive-fifo", level, queued, capacity);
        }
    }

    fn flush_outgoing(&mut self, now: Instant) -> bool {
        self.waiting.is_none_or(|origin| self.send_outgoing(now, origin))
    }

    /// Transmit rings to firmware or wire.
    fn guest_to_wire(&mut self, now: Instant) -> bool {
        let Some(guest) = self.guest.take() else { return false };
        let pairs = guest.vrings.len() / 2;
        let mut more = false;
        let turn = self.turn;
        for pair in (0..pairs).map(|i| (turn + i) % pairs) {
            more |= self.transmit(&guest, pair, now);
            if self.waiting.is_some() {
                // The next round begins with the one behind.
                self.turn = pair + 1;
                break;
            }
        }
        self.guest = Some(guest);
        more
    }

    fn transmit(&mut self, guest: &Guest, pair: usize, now: Instant) -> bool {
        let mut vring = guest.vrings[2 * pair + 1].get_mut();
        if !vring.is_enabled() || !vring.get_queue().ready() {
            return false;
        }
        let memory = guest.memory.memory();
        let mut ring = match Ring::open(&memory, vring.get_queue(), guest.features) {
            Ok(ring) => ring,
            Err(error) => {
                self.count_ring_error(error);
                return false;
            }
        };
        self.vigil.found(2 * pair + 1, now, ring.seen());
        if ring.available() > 0 {
            ring.disarm();
        }
        let (mut more, mut armed_at) = (true, None);
        for _ in 0..BATCH {
            match ring.transmit(&mut self.outgoing) {
                Transmitted::Nothing => {
                    more = rest(&mut ring, self.polled);
                    armed_at = (!more && !self.polled).then(|| ring.seen());
                    break;
                }
                Transmitted::Malformed(malformed) => {
                    self.counters.frames_from_guest += 1;
                    malformed.count_guest_frame(&mut self.counters);
                }
                Transmitted::Packet => {
                    if self.passes_from_guest(now, &ring) && !self.take_from_guest(now) {
                        more = false;
                        break;
                    }
                }
            }
        }
        self.vigil.armed(2 * pair + 1, armed_at);
        if ring.close(vring.get_queue_mut()) {
            self.interrupt(2 * pair + 1, &vring, now);
        }
        more
    }

    /// The guest's frame in `outgoing` goes to the firmware or on to the wire. Whether the wire may take another.
    fn take_from_guest(&mut self, now: Instant) -> bool {
        let frame = self.outgoing.frame();
        self.counters.frames_from_guest += 1;
        self.counters.bytes_from_guest += frame.len() as u64;
        self.taps.begin(Point::of_guest(frame), Direction::In, frame);
        self.taps.before(&self.firmware);
        let verdict = self.firmware.handle_guest(now, frame);
        self.taps.end_with(&self.firmware, &mut self.counters, None);
        match verdict {
            Verdict::Taken | Verdict::Wait(_) => {
                self.counters.frames_from_guest_taken += 1;
                true
            }
            Verdict::PassOn => !self.passes_to_wire(now, Origin::Guest) || self.send_outgoing(now, Origin::Guest),
        }
    }

    /// Wire to firmware or FIFO.
    fn wire_to_fifo(&mut self, now: Instant) -> bool {
        for _ in 0..BATCH {
            self.watch_fifo();
            let Some(mut packet) = self.fifo.take() else {
                // Counted once for each time it fills, not for each look at it.
                self.counters.receive_fifo_full += u64::from(!std::mem::replace(&mut self.fifo_was_full, true));
                return false;
            };
            self.fifo_was_full = false;
            if !self.wire.receive(now, &mut packet) {
                self.fifo.release(packet);
                return false;
            }
            if self.passes_from_wire(now, &mut packet) {
                self.sort(now, packet);
            } else {
                self.fifo.release(packet);
            }
        }
        true
    }

    /// Hands in again what waits for the firmware's processor.
    fn waiting_to_firmware(&mut self, now: Instant) {
        self.look_again = Instant::from_us(0);
        while let Some(lane) = self.firmware.next_waiting(now) {
            if self.fifo.is_full() {
                self.look_again = now + LOOK_AGAIN;
                return;
            }
            let Some((lane, packet)) = lane.oldest(&mut self.busy) else { return };
            self.taps.begin(Point::Wire, Direction::In, packet.frame());
            self.taps.before(&self.firmware);
            match self.firmware.handle_waiting(now, lane, packet.frame(), packet.header().checksum()) {
                Verdict::Wait(lane) => {
                    self.taps.forget();
                    return self.busy[lane as usize].push_front(packet);
                }
                verdict => self.sorted(verdict, packet),
            }
        }
    }

    /// Decides where a packet from the wire goes.
    fn sort(&mut self, now: Instant, packet: Packet) {
        let frame = packet.frame();
        self.counters.frames_from_wire += 1;
        self.counters.bytes_from_wire += frame.len() as u64;
        self.taps.begin(Point::Wire, Direction::In, frame);
        self.taps.before(&self.firmware);
        let dropped;
        if packet.is_too_long() {
            self.counters.wire_frame_too_long += 1;
            dropped = "wire-frame-too-long";
        } else if frame.len() < ETHERNET_HEADER_BYTES {
            self.counters.wire_frame_too_short += 1;
            dropped = "wire-frame-too-short";
        } else {
            let verdict = self.firmware.handle_wire(now, frame, packet.header().checksum());
            return self.sorted(verdict, packet);
        }
        self.taps.end_with(&self.firmware, &mut self.counters, Some(dropped));
        self.fifo.release(packet);
    }

    /// What the firmware says of a packet is done.
    fn sorted(&mut self, verdict: Verdict, mut packet: Packet) {
        if let Verdict::Wait(lane) = verdict {
            self.taps.forget();
            return self.busy[lane as usize].push_back(packet);
        }
        let mut dropped = None;
        if verdict == Verdict::Taken {
            self.counters.frames_from_wire_taken += 1;
        } else if self.active == 0 {
            self.counters.no_guest += 1;
            dropped = Some("no-guest");
        } else if let Some(header) = packet.header().for_receiver(self.offloads) {
            packet.set_header(header);
            self.taps.end_with(&self.firmware, &mut self.counters, None);
            return self.queue(packet);
        } else {
            self.counters.wire_frame_offload += 1;
            dropped = Some("wire-frame-offload-not-negotiated");
        }
        self.taps.end_with(&self.firmware, &mut self.counters, dropped);
        self.fifo.release(packet);
    }

    /// Queues a packet for the guest at the pair of its flow.
    fn queue(&mut self, packet: Packet) {
        let pairs = u64::from(self.active.count_ones());
        let nth = match pairs {
            0 => {
                self.counters.no_guest += 1;
                return self.fifo.release(packet);
            }
            1 => 0,
            _ => self.flow.of(packet.frame()) % pairs,
        };
        if let Some(pair) = Bits(self.active).nth(nth as usize) {
            self.fifo.push(pair, packet);
        }
    }

    fn firmware_to_wire(&mut self, now: Instant) -> bool {
        let mut bytes = 0;
        for _ in 0..BATCH {
            if self.waiting.is_some() {
                return false;
            }
            if bytes > BATCH_BYTES {
                return true;
            }
            let room = self.outgoing.frame_room();
            let Some(made) = self.firmware.poll_wire_for(now, room, self.wire_offload) else { return false };
            self.outgoing.set_frame_bytes(made.bytes);
            if let Some(rest) = made.rest {
                self.outgoing.set_header(Header::for_wire(rest));
            }
            bytes += made.bytes;
            if self.passes_to_wire(now, Origin::Firmware) {
                self.send_outgoing(now, Origin::Firmware);
            }
        }
        true
    }

    /// FIFO and firmware to receive rings. The firmware's frames go to the first pair that runs.
    fn fifo_to_guest(&mut self, now: Instant) -> bool {
        let Some(guest) = self.guest.take() else { return false };
        let mut more = false;
        let mut channel = true;
        for pair in Bits(self.active) {
            if channel || self.fifo.front(pair).is_some() {
                more |= self.deliver(&guest, pair, channel, now);
            }
            channel = false;
        }
        self.guest = Some(guest);
        more
    }

    fn deliver(&mut self, guest: &Guest, pair: usize, channel: bool, now: Instant) -> bool {
        let mut vring = guest.vrings[2 * pair].get_mut();
        if !vring.is_enabled() || !vring.get_queue().ready() {
            return false;
        }
        let memory = guest.memory.memory();
        let mut ring = match Ring::open(&memory, vring.get_queue(), guest.features) {
            Ok(ring) => ring,
            Err(error) => {
                self.count_ring_error(error);
                return false;
            }
        };
        self.vigil.found(2 * pair, now, ring.seen());
        let mut batch = BATCH;
        let mut starved = false;
        while batch > 0 && !starved {
            if !self.passes_to_guest(now, pair, &mut ring) {
                batch -= 1;
                continue;
            }
            let Some(packet) = self.fifo.front(pair) else { break };
            self.taps.begin(Point::Guest, Direction::Out, packet.frame());
            let dropped = match ring.receive(packet, &mut self.scratch, &mut self.counters) {
                Delivery::Done => {
                    self.counters.frames_to_guest += 1;
                    None
                }
                Delivery::BufferTooSmall => {
                    self.counters.wire_frame_buffer_too_small += 1;
                    Some("wire-frame-buffer-too-small")
                }
                Delivery::RingTooSmall => {
                    self.counters.wire_frame_ring_too_small += 1;
                    Some("wire-frame-ring-too-small")
                }
                Delivery::NoBuffers => {
                    self.taps.forget();
                    starved = true;
                    break;
                }
            };
            self.taps.end(&mut self.counters, dropped);
            self.forget_front(pair);
            batch -= 1;
        }
        let mut more = batch == 0;
        if channel {
            batch = BATCH;
            while batch > 0 && !starved {
                if !self.channel_waiting {
                    if ring.available() == 0 {
                        break;
                    }
                    let Some(bytes) = self.firmware.poll_guest(now, self.channel.frame_room()) else { break };
                    self.channel.set_frame_bytes(bytes);
                    if !self.passes_channel(now) {
                        batch -= 1;
                        continue;
                    }
                    self.channel_waiting = true;
                }
                self.before_channel(&mut ring);
                self.taps.begin(Point::of_guest(self.channel.frame()), Direction::Out, self.channel.frame());
                let dropped = match ring.receive(&self.channel, &mut self.scratch, &mut self.counters) {
                    Delivery::Done => {
                        self.counters.firmware_frames_to_guest += 1;
                        None
                    }
                    Delivery::NoBuffers => {
                        self.taps.forget();
                        starved = true;
                        break;
                    }
                    Delivery::BufferTooSmall | Delivery::RingTooSmall => {
                        self.counters.firmware_frame_undeliverable += 1;
                        Some("firmware-frame-undeliverable")
                    }
                };
                self.taps.end(&mut self.counters, dropped);
                self.channel_waiting = false;
                batch -= 1;
            }
            more |= batch == 0;
        }
        let mut armed_at = None;
        if starved || ring.available() == 0 {
            more = rest(&mut ring, self.polled);
            armed_at = (!more && !self.polled).then(|| ring.seen());
        } else {
            ring.disarm();
        }
        self.vigil.armed(2 * pair, armed_at);
        self.before_close(2 * pair, &mut ring, now);
        if ring.close(vring.get_queue_mut()) {
            self.interrupt(2 * pair, &vring, now);
        }
        more
    }

    /// The first frame of a pair's queue is done.
    fn forget_front(&mut self, pair: usize) {
        self.faults.asked &= !(1 << pair);
        if let Some(packet) = self.fifo.pop(pair) {
            self.fifo.release(packet);
        }
    }

    fn count_ring_error(&mut self, error: RingError) {
        match error {
            RingError::Address => self.counters.ring_bad_address += 1,
            RingError::Index => self.counters.ring_bad_index += 1,
        }
    }
}

/// A ring has nothing more. Whether it has after all, when its driver was asked to say so from now on.
fn rest(ring: &mut Ring<'_>, polled: bool) -> bool {
    if polled {
        ring.disarm();
        return false;
    }
    ring.arm()
}

fn interrupt(counters: &mut Counters, vring: &vhost_user_backend::VringState) {
    counters.interrupts += 1;
    if let Err(error) = vring.signal_used_queue() {
        log::warn!("an interrupt could not be sent: {error}");
    }
}

fn runs(vring: &VringMutex) -> bool {
    let vring = vring.get_ref();
    vring.is_enabled() && vring.get_queue().ready()
}

/// The positions of the bits that are set, lowest first.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let lowest = (self.0 != 0).then(|| self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(lowest)
    }
}

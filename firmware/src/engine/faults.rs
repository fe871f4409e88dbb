//! Arming faults, and asking for them from outside.

use crate::engine::{Firmware, Owner};
use crate::fault::Action;
use crate::fault::{About, Armed, Injector, Look, Rules, Site};
use crate::pool::Pool;
use crate::tcp::tcb::Tuple;
use crate::time::Instant;
use crate::wire::frame::Ethernet;
use crate::wire::{ip, segment};
use toe_abi::Endpoint;

/// Which way a frame goes that passes a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To the card: its source is the peer.
    In,
    /// From the card.
    Out,
}

impl Firmware {
    /// Arms rules at `now`, instead of those that were; all chance of theirs is from `seed`. Their times begin here.
    pub fn arm(&mut self, rules: Rules, seed: u64, now: Instant) {
        self.arm_with(Some(Box::new(Injector::new(rules, seed, now.as_us()))));
    }

    /// Timers that are held run until they are due, as all others. Those of connections follow from their blocks.
    fn let_timers_go(&mut self) {
        for timer in self.held.timers() {
            // Whoever it belongs to looks what is due.
            self.wheel.arm(timer, Instant::default());
        }
        self.held.clear();
        for slot in 0..self.connections.capacity() {
            if self.connections.in_use(slot) {
                self.arm_oddly(slot);
            }
        }
    }

    /// Disarms what is armed; what was counted.
    pub fn disarm(&mut self) -> Option<Box<Injector>> {
        self.arm_with(None)
    }

    /// Arms what another firmware of this card had armed until it was reset, with all that it has counted.
    pub fn arm_again(&mut self, injector: Box<Injector>) {
        self.arm_with(Some(injector));
    }

    fn arm_with(&mut self, injector: Option<Box<Injector>>) -> Option<Box<Injector>> {
        if injector.is_some() {
            self.perception.armed();
        } else {
            self.perception.disarmed();
            self.processor.slow_down(1);
            self.let_timers_go();
        }
        // The short way has no sites.
        self.store.predicts = injector.is_none();
        let before = self.store.faults.arm(injector);
        for &pool in Pool::ALL {
            let (gauge, faults) = self.gauge_and_faults(pool);
            gauge.arm(faults);
        }
        before
    }

    /// The armed faults and what was counted of them; `None` if none are. To be let go before the next call.
    pub fn faults(&self) -> Option<Armed<'_>> {
        self.store.faults.injector()
    }

    /// Something passes a site of the device; what is to be done to it, if anything. What is armed for the firmware's
    /// own sites is asked within. `now` is the host's time.
    pub fn fault(&self, site: Site, now: Instant, look: Look) -> Option<Action> {
        self.store.faults.strike_at(site, now.as_us(), &look)
    }

    /// The same for a whole frame, of which the firmware knows whose it is.
    #[inline]
    pub fn fault_at_frame(&self, site: Site, now: Instant, frame: &[u8], way: Way) -> Option<Action> {
        if !self.store.faults.has_any(site.bit()) {
            return None;
        }
        self.fault(site, now, self.look_at(site, frame, way))
    }

    #[cold]
    fn look_at(&self, site: Site, frame: &[u8], way: Way) -> Look {
        let plain = Look { bytes: frame.len() as u64, ..Look::default() };
        if site.about() == About::Nothing {
            return plain;
        }
        let Some((ethernet, packet)) = Ethernet::split(frame) else { return plain };
        let Ok(located) = ip::find_tcp(ethernet.ethertype, packet) else { return plain };
        let Some((source, destination)) = segment::ports(located.tcp) else { return plain };
        let flags = located.tcp.get(13).copied().unwrap_or(0);
        let (source, destination) =
            (Endpoint::new(located.source, source), Endpoint::new(located.destination, destination));
        let (local, remote) = match way {
            Way::In => (destination, source),
            Way::Out => (source, destination),
        };
        let asks = self.store.faults.asks_for_state();
        let (state, context) = if asks { self.state_of(&Tuple { local, remote }) } else { (None, None) };
        Look { ends: Some((local, remote)), flags, state, context, ..plain }
    }

    pub(super) fn state_of(&self, tuple: &Tuple) -> (Option<u8>, Option<u32>) {
        match self.owner(tuple) {
            Some(Owner::Connection(slot)) => {
                let t = &self.connections[slot];
                (Some(t.state.linux()), t.guest.context)
            }
            Some(Owner::HalfOpen(slot)) => {
                let listener = self.half_open[slot].listener();
                (Some(crate::tcp::tcb::State::SynReceived.linux()), Some(self.listeners[listener].context))
            }
            Some(Owner::TimeWait(_)) => (Some(crate::tcp::tcb::State::TimeWait.linux()), None),
            None => (None, None),
        }
    }
}

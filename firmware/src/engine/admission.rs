//! Who is let in: quotas, fair shares, and what is done when a pool is full.
//!
//! A context has its own most of connections, listeners and half-open entries ([`Holdings`]; the profile's `[quota]`, or
//! the whole pool). Beside that it is guaranteed a *fair share*: the pool divided by the contexts that hold some of it. A
//! context that has less and finds the pool full makes a claim; for [`CLAIM`] from then on, those that have their share
//! get no more, so that what comes free goes to those that have less. Nothing is taken from anybody for that, and
//! while nobody claims anything everybody may have all of it. (Pages of memory are shared in the same manner, but by a
//! queue of those who wait: `store/pages.rs`.)
//!
//! A SYN for a listener takes a half-open entry, and it is let in only while more connections are free than handshakes are
//! under way, and the listener's backlog has a place for it and for those before it, because a handshake that could not be
//! completed would leave the peer with half a connection. What is done when one of them is missing, the pool's policy says,
//! or the listener's own.

use toe_abi::{LimitEntry, Reason};

use crate::engine::Firmware;
use crate::engine::listener::Listener;
use crate::pool::Pool;
use crate::profile::{Limits, Quota, Refusal};
use crate::store::gauge::Gauge;
use crate::store::slab::{Id, Slot};
use crate::time::{Duration, Instant};

/// How long a context's claim on its fair share holds: twice what a program waits that is refused and tries again.
pub const CLAIM: Duration = Duration::from_s(2);

/// A pool of which each context has a part of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metered {
    /// Connections.
    Connections,
    /// Listeners.
    Listeners,
    /// Half-open entries.
    HalfOpen,
}

impl Metered {
    fn pool(self) -> Pool {
        match self {
            Self::Connections => Pool::Connections,
            Self::Listeners => Pool::Listeners,
            Self::HalfOpen => Pool::HalfOpen,
        }
    }
}

/// What one context holds.
#[derive(Debug)]
pub struct Holdings {
    connections: Gauge,
    listeners: Gauge,
    half_open: Gauge,
}

impl Holdings {
    /// Nothing, and at most what the profile says.
    pub fn new(limits: &Limits, quota: &Quota) -> Self {
        let gauge = |name, quota: u32, all: u32| Gauge::new(name, "deny", if quota == 0 { all } else { quota }.into());
        Self {
            connections: gauge("own-connections", quota.connections, limits.connections),
            listeners: gauge("own-listeners", quota.listeners, limits.listeners),
            half_open: gauge("own-half-open", quota.half_open, limits.half_open),
        }
    }

    /// Nothing, under the same quotas: a new tenant.
    pub fn begin(&mut self) {
        for gauge in [&mut self.connections, &mut self.listeners, &mut self.half_open] {
            debug_assert!(gauge.in_use() == 0);
            gauge.begin();
        }
    }

    fn of(&mut self, what: Metered) -> &mut Gauge {
        match what {
            Metered::Connections => &mut self.connections,
            Metered::Listeners => &mut self.listeners,
            Metered::HalfOpen => &mut self.half_open,
        }
    }

    fn entries(&self) -> [LimitEntry<'static>; 3] {
        [self.connections.entry(), self.listeners.entry(), self.half_open.entry()]
    }
}

/// Who competes for a pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Competition {
    /// Contexts that hold some.
    holders: u64,
    /// The last claim: until when it holds, and what each may have meanwhile, the one who claims counted.
    claim: Option<(Instant, u64)>,
}

impl Firmware {
    fn gauge_of(&mut self, what: Metered) -> &mut Gauge {
        match what {
            Metered::Connections => &mut self.connections.gauge,
            Metered::Listeners => &mut self.listeners.gauge,
            Metered::HalfOpen => &mut self.half_open.gauge,
        }
    }

    /// Whether faults let one be taken.
    fn admits(&mut self, what: Metered) -> bool {
        match what {
            Metered::Connections => self.connections.admits(),
            Metered::Listeners => self.listeners.admits(),
            Metered::HalfOpen => self.half_open.admits(),
        }
    }

    /// Why a context may not have one more, if it may not. It is not counted yet; but a claim is made.
    fn bar(&mut self, context: Slot, what: Metered, now: Instant) -> Option<Reason> {
        let free = if self.admits(what) { self.gauge_of(what).free() } else { 0 };
        let capacity = self.gauge_of(what).capacity();
        let competition = &mut self.competition[what as usize];
        let own = self.contexts[context].holds.of(what);
        let share = capacity / (competition.holders + u64::from(own.in_use() == 0)).max(1);
        let poor = own.in_use() < share;
        if free == 0 {
            if poor {
                competition.claim = Some((now + CLAIM, share));
            }
            Some(what.pool().reason())
        } else if own.free() == 0 {
            Some(Reason::Quota)
        } else if competition.claim.is_some_and(|(until, share)| now < until && own.in_use() >= share) {
            Some(Reason::FairShare)
        } else {
            None
        }
    }

    /// Counts that a context did not get one more.
    fn count_refusal(&mut self, context: Slot, what: Metered, reason: Reason) {
        self.contexts[context].holds.of(what).refuse(reason);
        self.gauge_of(what).refuse(reason);
    }

    /// Whether a context may have one more; if not, that is counted.
    fn admit_one(&mut self, context: Slot, what: Metered, now: Instant) -> Result<(), Reason> {
        let Some(reason) = self.bar(context, what, now) else { return Ok(()) };
        self.count_refusal(context, what, reason);
        Err(reason)
    }

    /// The same, where another may have to give way.
    fn admit_or_evict(&mut self, context: Slot, what: Metered, policy: Refusal, now: Instant) -> Result<(), Reason> {
        let result = self.admit_one(context, what, now);
        if result != Err(what.pool().reason()) || policy != Refusal::Evict {
            return result;
        }
        if self.evict_for(what, now) { Ok(()) } else { result }
    }

    /// Another gives way; `false` if none may.
    fn evict_for(&mut self, what: Metered, now: Instant) -> bool {
        match what {
            Metered::Connections => self.evict_stalled(now),
            Metered::HalfOpen => self.evict_half_open(now),
            Metered::Listeners => false,
        }
    }

    /// A context has one more.
    pub(super) fn charge(&mut self, context: Slot, what: Metered) {
        let own = self.contexts[context].holds.of(what);
        self.competition[what as usize].holders += u64::from(own.in_use() == 0);
        let taken = own.take(1);
        debug_assert!(taken, "it was admitted");
    }

    /// A context has one less.
    pub(super) fn discharge(&mut self, context: Slot, what: Metered) {
        let own = self.contexts[context].holds.of(what);
        own.give(1);
        self.competition[what as usize].holders -= u64::from(own.in_use() == 0);
    }

    /// A connection for a context. `own` is the policy of its listener, if it has one.
    pub(super) fn take_connection(&mut self, context: Slot, own: Option<Refusal>, now: Instant) -> Result<Id, Reason> {
        let policy = own.unwrap_or(self.policy.connections);
        self.admit_or_evict(context, Metered::Connections, policy, now)?;
        let id = self.connections.take().ok_or(Reason::Connections)?;
        self.charge(context, Metered::Connections);
        self.contexts[context].members.push(&mut self.member_links, id.slot);
        let t = &mut self.connections[id.slot];
        t.charged = Some(context);
        t.send.stream.recharge(&mut self.store.send, context);
        t.receive.stream.recharge(&mut self.store.receive, context);
        Ok(id)
    }

    /// A connection's place and memory count for its context no more: it is over, or the context is.
    pub(super) fn discharge_connection(&mut self, slot: Slot) {
        let t = &mut self.connections[slot];
        if let Some(context) = t.charged.take() {
            let nobody = self.store.send.nobody();
            t.send.stream.recharge(&mut self.store.send, nobody);
            t.receive.stream.recharge(&mut self.store.receive, nobody);
            self.contexts[context].members.remove(&mut self.member_links, slot);
            self.discharge(context, Metered::Connections);
        }
    }

    /// A listener for a context.
    pub(super) fn take_listener(&mut self, context: Slot, now: Instant) -> Result<Id, Reason> {
        self.admit_one(context, Metered::Listeners, now)?;
        let id = self.listeners.take().ok_or(Reason::Listeners)?;
        self.charge(context, Metered::Listeners);
        Ok(id)
    }

    /// The pool that has no place for what a SYN for this listener begins, if there is one, and why.
    pub(super) fn full_for_syn(&mut self, listener: &Listener, now: Instant) -> Option<(Pool, Reason)> {
        if listener.waiting() + u64::from(listener.half_open) >= listener.backlog.into() || !self.backlog_gauge.admits()
        {
            return Some((Pool::Backlog, Reason::Backlog));
        }
        let barred = |firmware: &mut Self, what: Metered| {
            firmware.bar(listener.context, what, now).map(|reason| (what.pool(), reason))
        };
        if let Some(full) = barred(self, Metered::Connections) {
            return Some(full);
        }
        if self.others_want_the_last() {
            return Some((Pool::Connections, Reason::Connections));
        }
        barred(self, Metered::HalfOpen)
    }

    /// Whether the handshakes under way will take all connections that are left. With more handshakes than half of the
    /// connections (or of the entries) this is a flood, most of whose handshakes never end: then what is left is for whoever
    /// ends his first.
    fn others_want_the_last(&self) -> bool {
        let (half_open, connections) = (&self.half_open.gauge, &self.connections.gauge);
        let flood = half_open.capacity().min(connections.capacity()) / 2;
        connections.free() <= half_open.in_use() && half_open.in_use() < flood
    }

    /// Counts a SYN that found `pool` full; what is to be done with it, or `None` if another has given way.
    pub(super) fn refuse_syn(
        &mut self,
        listener: &Listener,
        pool: Pool,
        reason: Reason,
        now: Instant,
    ) -> Option<Refusal> {
        let policy = listener.policy.unwrap_or(self.policy.of(pool));
        let what = match pool {
            Pool::Connections => Metered::Connections,
            Pool::HalfOpen => Metered::HalfOpen,
            Pool::Tuples => {
                self.tuples.gauge.refuse(reason);
                return Some(policy);
            }
            _ => {
                self.backlog_gauge.refuse(reason);
                return Some(policy);
            }
        };
        self.count_refusal(listener.context, what, reason);
        let evicted = policy == Refusal::Evict && reason == pool.reason() && self.evict_for(what, now);
        (!evicted).then_some(policy)
    }

    /// What a context holds and may hold, as it is published behind the pools.
    pub(super) fn limits_of(&self, context: Slot) -> impl Iterator<Item = LimitEntry<'static>> + '_ {
        let memory = [self.store.send.account(context), self.store.receive.account(context)];
        self.contexts[context].holds.entries().into_iter().chain(memory)
    }

    /// Every open context by its id, and what it holds and may hold: what LIMITS adds to the pools for it.
    pub fn context_limits(&self) -> impl Iterator<Item = (u64, LimitEntry<'static>)> + '_ {
        let open = (0..self.contexts.capacity()).filter(|slot| self.contexts.in_use(*slot));
        open.flat_map(move |slot| self.limits_of(slot).map(move |entry| (self.contexts.id(slot), entry)))
    }
}

/// How many entries [`Firmware::limits_of`] has.
pub const OWN_ENTRIES: usize = 5;

//! Faults on demand: rules that say at which site, when, to whom and what, and what is counted of them.
//!
//! A [`Site`] is a place that something passes, with a stable dotted name. A [`Rule`] names one, says when it strikes and
//! to whom, what it does ([`Action`]), how often at most, and the state that it leads to. Of the rules of a site the
//! first that matches strikes. Each strike is counted and leaves a [`Record`] in a ring of fixed size. Chance comes from
//! one stream for each site, keyed by its name, so that a new site never shifts what another draws.
//!
//! One [`Injector`] counts for the whole card. The firmware asks it at its own sites; the device (or the simulator in
//! its place) asks at the others by [`Firmware::fault`](crate::Firmware::fault). Reading rules from a file is not the
//! firmware's business: that is crate `toe-faults`.
//!
//! **What it costs when nothing is armed.** Which sites are armed stands in one word, a bit for each, beside what the
//! engine works on anyway ([`Faults`]); a pool has a flag of its own in its gauge ([`Tap`]). A site is a test of that and
//! one branch, and the sites of a connection's block are one branch together. Whatever is behind the branch is out of
//! line. Nothing is allocated but when rules are armed.
//!
//! (The lock is there because the gauges share the injector, not because anything here runs at the same time.)

pub(crate) mod action;
pub(crate) mod inject;
pub(crate) mod rule;
pub(crate) mod site;

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use action::{Action, ActionKind, FOR_EVER};
pub use inject::{Injector, Look, RECORDS, Record};
pub use rule::{End, FIRST_STATE, Filter, Rule, Rules, WHOLE_PPM};
pub use site::{About, By, SITES, Site};

/// The injector, and what is known of the call under way.
#[derive(Debug, Default)]
struct Core {
    injector: Option<Box<Injector>>,
    /// When the call began, by the clock of the card's host.
    now_us: u64,
    /// Whom it is about.
    about: Look,
}

type Shared = Arc<Mutex<Core>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Core> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cold]
#[inline(never)]
fn ask(shared: &Shared, site: Site) -> Option<Action> {
    let Core { injector, now_us, about } = &mut *lock(shared);
    injector.as_mut()?.at(site, *now_us, about)
}

/// Which sites are armed, and the way to the injector.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    armed: u128,
    asks_for_state: bool,
    shared: Shared,
}

impl Faults {
    /// Whether anything is armed.
    #[inline]
    pub fn is_armed(&self) -> bool {
        self.armed != 0
    }

    /// Whether any of these sites is.
    #[inline]
    pub fn has_any(&self, sites: u128) -> bool {
        self.armed & sites != 0
    }

    /// Whether a rule asks for what only the firmware knows of a connection.
    pub fn asks_for_state(&self) -> bool {
        self.asks_for_state
    }

    /// Something passes a site; what is to be done to it, if anything.
    #[inline]
    pub fn strike(&self, site: Site) -> Option<Action> {
        if self.armed & site.bit() == 0 { None } else { ask(&self.shared, site) }
    }

    /// The same for something of which more is known than whom the call is about.
    #[inline]
    pub fn strike_at(&self, site: Site, now_us: u64, look: &Look) -> Option<Action> {
        if self.armed & site.bit() == 0 {
            return None;
        }
        lock(&self.shared).injector.as_mut()?.at(site, now_us, look)
    }

    /// A call begins, about nobody yet.
    pub fn begin(&self, now_us: u64) {
        let mut core = lock(&self.shared);
        (core.now_us, core.about) = (now_us, Look::default());
    }

    /// Whom the call is about from here on.
    pub fn about(&self, look: Look) {
        lock(&self.shared).about = look;
    }

    /// Arms what the injector asks for; `None` disarms.
    pub fn arm(&mut self, injector: Option<Box<Injector>>) -> Option<Box<Injector>> {
        self.armed = injector.as_ref().map_or(0, |i| i.asked());
        self.asks_for_state = injector.as_ref().is_some_and(|i| i.asks_for_state());
        std::mem::replace(&mut lock(&self.shared).injector, injector)
    }

    /// The injector, while it is looked at.
    pub fn injector(&self) -> Option<Armed<'_>> {
        let core = lock(&self.shared);
        core.injector.is_some().then_some(Armed(core))
    }

    /// What a pool's gauge asks by.
    pub fn tap(&self, alloc: Site, free: Site) -> Tap {
        Tap { shared: self.shared.clone(), alloc, free, has_alloc: false, has_free: false }
    }
}

/// The armed faults, while they are looked at.
#[derive(Debug)]
pub struct Armed<'a>(MutexGuard<'a, Core>);

impl Deref for Armed<'_> {
    type Target = Injector;
    fn deref(&self) -> &Injector {
        match &self.0.injector {
            Some(injector) => injector,
            None => unreachable!("it is there while it is looked at"),
        }
    }
}

/// Where a pool's objects are taken and given back.
#[derive(Debug)]
pub struct Tap {
    shared: Shared,
    alloc: Site,
    free: Site,
    has_alloc: bool,
    has_free: bool,
}

impl Tap {
    /// Arms what is armed of these; whether either is.
    pub fn arm(&mut self, faults: &Faults) -> bool {
        self.has_alloc = faults.has_any(self.alloc.bit());
        self.has_free = faults.has_any(self.free.bit());
        self.has_alloc || self.has_free
    }

    /// One is about to be taken; what is to be done to that.
    pub fn taken(&self) -> Option<Action> {
        if self.has_alloc { ask(&self.shared, self.alloc) } else { None }
    }

    /// One is about to be given back; what is to be done to that.
    pub fn given(&self) -> Option<Action> {
        if self.has_free { ask(&self.shared, self.free) } else { None }
    }
}

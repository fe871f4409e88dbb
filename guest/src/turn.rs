//! Whose turn it is to look at the transport.
//!
//! One thread at a time receives frames and sleeps until there are more. That is the background thread's work for a
//! program that polls descriptors or listens, or of a [`crate::context::Driver`]. A program whose threads wait for answers does better to look itself: an answer then
//! wakes the thread that waits for it, and not another that has to wake it in turn.
//!
//! So a thread that waits takes the turn if nobody has it, and has it until what it waits for has come. Then another that
//! waits is called, or, if nobody waits, nobody has the turn for a moment: the background thread comes by after [`TICK`],
//! does what is due, and takes the turn when no program's thread has since it came by last. If one has, it comes by half as often, down to
//! [`TICK_MAX`]: each time is a switch of threads. What arrives in between waits in the transport, for at most two ticks (the card says nothing
//! again before 50 ms), and nobody waits for it. While a thread of the program waits for long the background thread sleeps until it is called.
//!
//! *Bounds*: every wait that ends, for whatever reason, calls somebody if nobody has the turn ([`Waiting`]'s drop), so that
//! nobody waits for a frame that nobody looks for.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::{Duration, Instant};

use crate::context::{Core, Inner, Waker};
use crate::engine::{Change, ConnectionKey};

/// How soon the background thread comes by when the program's threads look.
const TICK: Duration = Duration::from_millis(2);
/// And how seldom, if they go on looking.
const TICK_MAX: Duration = Duration::from_millis(16);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Whose {
    /// Nobody's for a moment.
    #[default]
    Nobodys,
    /// The background thread's.
    Background,
    /// One of the program's threads'.
    Programs,
    /// A [`crate::context::Driver`]'s.
    Driver,
}

/// Whose turn it is, and who waits; see the module.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) whose: Whose,
    /// Somebody polls descriptors, or listens: always the background thread's.
    kept: bool,
    /// How often a thread of the program took it.
    pub(crate) taken: u64,
    /// How often one had to sleep because somebody else had it.
    missed: u64,
    /// Who sleeps meanwhile: connections, one for each thread, and threads that wait for something else.
    sleepers: Vec<ConnectionKey>,
    pub(crate) others: usize,
    /// The background thread sleeps until it is called.
    away: bool,
    /// A driver waits for it.
    wanted: bool,
    /// What the thread of the program that has it waits for; nothing: anything but a connection.
    looks_for: Option<ConnectionKey>,
}

impl Turn {
    /// From now on it is always the background thread's.
    pub(crate) fn keep(&mut self, background: &Condvar) {
        if !std::mem::replace(&mut self.kept, true) {
            background.notify_one();
        }
    }

    /// Whether the thread of the program that looks is to hear of what another thread has changed: it sleeps where no
    /// condition variable wakes it.
    pub(crate) fn concerns_looker(&self, change: &Change) -> bool {
        self.whose == Whose::Programs
            && match (change, self.looks_for) {
                (Change::Connection(key) | Change::Forgotten(key), Some(looks_for)) => *key == looks_for,
                (_, looks_for) => looks_for.is_none(),
            }
    }
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sleeper<'a> {
    /// A change of a connection.
    Connection(ConnectionKey, &'a Waker),
    /// Anything else.
    General,
}

/// A thread of the program that has the lock, and waits.
pub(crate) struct Waiting<'a> {
    inner: &'a Arc<Inner>,
    sleeper: Sleeper<'a>,
    /// Nothing only while it sleeps.
    core: Option<MutexGuard<'a, Core>>,
    has_turn: bool,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(inner: &'a Arc<Inner>, sleeper: Sleeper<'a>) -> Self {
        Self { inner, sleeper, core: None, has_turn: false }
    }

    /// What the lock is for.
    pub(crate) fn core(&mut self) -> &mut Core {
        self.core.get_or_insert_with(|| self.inner.lock())
    }

    /// See [`Inner::settle`].
    pub(crate) fn settle(&mut self) {
        let inner = self.inner;
        inner.settle(self.core());
    }

    /// Until something may have changed; `false` if it is past the deadline.
    pub(crate) fn pause(&mut self, deadline: Option<Instant>) -> bool {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return false;
        }
        let inner = self.inner;
        let mut core = self.core.take().unwrap_or_else(|| inner.lock());
        if self.has_turn && core.turn.wanted {
            self.has_turn = false;
            core.turn.whose = Whose::Nobodys;
            inner.aside.notify_all();
        }
        if !self.has_turn && core.turn.whose == Whose::Nobodys && !core.turn.kept {
            core.turn.whose = Whose::Programs;
            core.turn.taken += 1;
            core.turn.looks_for = match self.sleeper {
                Sleeper::Connection(key, _) => Some(key),
                Sleeper::General => None,
            };
            self.has_turn = true;
        }
        if self.has_turn {
            drop(core);
            inner.look(deadline);
            return true;
        }
        core.turn.missed += 1;
        let condvar = match self.sleeper {
            Sleeper::Connection(key, waker) => {
                core.turn.sleepers.push(key);
                waker.asleep.fetch_add(1, Ordering::Relaxed);
                &waker.condvar
            }
            Sleeper::General => {
                core.turn.others += 1;
                &inner.general
            }
        };
        core = match left {
            None => condvar.wait(core).unwrap_or_else(|e| e.into_inner()),
            Some(left) => condvar.wait_timeout(core, left).unwrap_or_else(|e| e.into_inner()).0,
        };
        match self.sleeper {
            Sleeper::Connection(key, waker) => {
                waker.asleep.fetch_sub(1, Ordering::Relaxed);
                if let Some(at) = core.turn.sleepers.iter().position(|sleeper| *sleeper == key) {
                    core.turn.sleepers.swap_remove(at);
                }
            }
            Sleeper::General => core.turn.others -= 1,
        }
        self.core = Some(core);
        true
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let (inner, has_turn) = (self.inner, self.has_turn);
        let core = self.core();
        if has_turn {
            core.turn.whose = Whose::Nobodys;
            // What was received for others is theirs.
            inner.settle(core);
        }
        inner.call_next(core);
    }
}

impl Inner {
    /// Sees that somebody looks, if anybody waits.
    fn call_next(&self, core: &Core) {
        let turn = &core.turn;
        if turn.whose != Whose::Nobodys {
            return;
        }
        if turn.wanted {
            self.aside.notify_all();
            return;
        }
        if turn.kept {
            self.background.notify_one();
        } else if turn.others > 0 {
            self.general.notify_all();
        } else if let Some(sleeper) = turn.sleepers.first() {
            self.call(core, *sleeper);
        } else if turn.away {
            self.background.notify_one();
        }
    }

    /// From here on the turn is a driver's, as soon as nobody looks any more.
    pub(crate) fn drive(&self) {
        let mut core = self.lock();
        core.turn.kept = true;
        core.turn.wanted = true;
        self.ring(&mut core);
        while core.turn.whose != Whose::Nobodys {
            core = self.aside.wait(core).unwrap_or_else(|e| e.into_inner());
        }
        core.turn.wanted = false;
        core.turn.whose = Whose::Driver;
    }

    /// The driver has gone: the background thread looks again.
    pub(crate) fn stop_driving(&self) {
        self.lock().turn.whose = Whose::Nobodys;
        self.background.notify_one();
    }

    /// Until it is the background thread's turn; `false` if there is none any more. It has it until it comes here again.
    pub(crate) fn take_turn(&self) -> bool {
        let mut core = self.lock();
        self.settle(&mut core);
        if core.stop {
            return false;
        }
        if core.turn.whose == Whose::Background {
            if !core.turn.wanted && (core.turn.kept || core.turn.missed == 0) {
                return true;
            }
            core.turn.whose = Whose::Nobodys;
            core.turn.missed = 0;
            // A tick at least is the program's.
            core.turn.taken += 1;
            self.call_next(&core);
        }
        let (mut seen, mut tick) = (None, TICK);
        loop {
            let now = Instant::now();
            if core.turn.whose == Whose::Nobodys {
                core.engine.handle_timeout(now);
                core.engine.about_to_sleep();
                self.settle(&mut core);
            }
            if core.stop {
                return false;
            }
            let driven = core.turn.wanted || core.turn.whose == Whose::Driver;
            let idle = driven || seen == Some(core.turn.taken);
            if !driven && core.turn.whose == Whose::Nobodys && (core.turn.kept || idle) {
                core.turn.whose = Whose::Background;
                core.turn.missed = 0;
                return true;
            }
            seen = Some(core.turn.taken);
            core.turn.away = idle;
            core = if idle {
                self.background.wait(core).unwrap_or_else(|e| e.into_inner())
            } else {
                self.background.wait_timeout(core, tick).unwrap_or_else(|e| e.into_inner()).0
            };
            tick = (2 * tick).min(TICK_MAX);
            if std::mem::take(&mut core.turn.away) {
                // Who has just left will wait again soon.
                (seen, tick) = (None, TICK);
            }
        }
    }
}

//! How whoever waits for a connection or a listener is told of its changes: by a condition variable, by a descriptor of its
//! own, or by one [`Watch`] for many.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};

use crate::readiness::Readiness;

/// Whoever waits for a connection or a listener.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    pub(crate) condvar: Condvar,
    /// Threads that sleep on it; changes under the lock of the context alone. To wake nobody would be a system call, too.
    pub(crate) asleep: AtomicUsize,
    pub(super) readiness: OnceLock<Readiness>,
    watched: OnceLock<Watched>,
}

/// Tells one thread that serves many connections and listeners which of them have changed.
///
/// It is woken by a descriptor, but only while it rests: what it causes itself it finds without a system call.
#[derive(Debug)]
pub(crate) struct Watch {
    told: Mutex<Told>,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Told {
    changed: Vec<u64>,
    /// Nobody looks before the descriptor is readable.
    rests: bool,
    /// It is readable.
    rung: bool,
}

#[derive(Debug)]
struct Watched {
    watch: Arc<Watch>,
    token: u64,
    told: AtomicBool,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        Ok(Self { told: Mutex::default(), wake: rustix::event::eventfd(0, flags)? })
    }

    /// Readable when there is something for who rests.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whoever takes is about to wait for the descriptor; `false` if there is something to take already.
    pub(crate) fn rest(&self) -> bool {
        let mut told = self.lock();
        told.rests = told.changed.is_empty();
        told.rests
    }

    /// What has changed since the last time. From here on nothing is rung, until the next rest.
    pub(crate) fn take(&self) -> Vec<u64> {
        let mut told = self.lock();
        told.rests = false;
        if std::mem::take(&mut told.rung) {
            // Empty is as good as emptied.
            let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        }
        std::mem::take(&mut told.changed)
    }

    /// It has changed.
    pub(crate) fn tell(&self, token: u64) {
        let mut told = self.lock();
        told.changed.push(token);
        if told.rests && !std::mem::replace(&mut told.rung, true) {
            // A full counter wakes just as well.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

impl Waker {
    /// From now on its changes are told there, beginning with one.
    pub(crate) fn watch(&self, watch: &Arc<Watch>, token: u64) {
        let watched = Watched { watch: watch.clone(), token, told: AtomicBool::new(false) };
        if self.watched.set(watched).is_ok() {
            self.tell();
        }
    }

    /// What was told will be dealt with now; what changes from here on is to be told again.
    pub(crate) fn heard(&self) {
        if let Some(watched) = self.watched.get() {
            watched.told.store(false, Ordering::SeqCst);
        }
    }

    /// Something has changed.
    pub(super) fn wake(&self) {
        if self.asleep.load(Ordering::Relaxed) > 0 {
            self.condvar.notify_all();
        }
        self.tell();
    }

    /// Tells whoever watches it, once until it is heard.
    pub(super) fn tell(&self) {
        if let Some(watched) = self.watched.get()
            && !watched.told.swap(true, Ordering::SeqCst)
        {
            watched.watch.tell(watched.token);
        }
    }

    /// The descriptor to poll, if somebody asked for it before.
    pub(crate) fn readiness(&self) -> Option<&Readiness> {
        self.readiness.get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags};

    use super::*;

    fn rings(watch: &Watch) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)];
        crate::transport::poll(&mut fds, Some(Duration::ZERO)).unwrap();
        !fds[0].revents().is_empty()
    }

    #[test]
    fn a_watch_rings_only_for_who_rests_and_loses_nothing() {
        let watch = Arc::new(Watch::new().unwrap());
        watch.tell(1);
        assert!(!rings(&watch), "nobody waits");
        assert!(!watch.rest(), "there is something to take");
        assert_eq!(watch.take(), [1]);
        assert!(watch.rest());
        assert!(!rings(&watch));
        let waker = Waker::default();
        waker.watch(&watch, 2);
        assert!(rings(&watch));
        waker.tell();
        watch.tell(3);
        assert_eq!(watch.take(), [2, 3], "once until it is heard");
        assert!(!rings(&watch));
        waker.heard();
        waker.tell();
        assert!(!rings(&watch), "it is awake");
        assert_eq!(watch.take(), [2]);
    }
}

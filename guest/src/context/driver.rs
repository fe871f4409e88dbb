//! A thread that does a context's work beside its own.
//!
//! What arrives for a context is otherwise taken by the context's own thread and told to whoever waits: for a thread that
//! serves many connections and waits for other things as well (the supervisor of `toe run`) that is two more switches and
//! four more system calls for each batch of frames. Such a thread takes the work over: the context's own stands aside
//! as long as the [`Driver`] lives. Others may still act, ask and wait: nobody but the driver receives.
//!
//! *Its duty.* Between two waits: [`Driver::turn`]; immediately before a wait, [`Driver::rest`], which says how long it may last,
//! and afterwards [`Driver::woken`]. A driver that does not come back is a context that ends with its lease.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll;

use super::{BATCH, Context, Round};

/// Batches that are received in one turn.
const TURN_BATCHES: usize = 4;

/// What a driver is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// There are frames, or there is room for frames.
    Frames,
    /// Another thread has something for it.
    Word,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Driver {
    context: Context,
    round: Round,
    /// Its frames are told as the first, the word of another thread as the second.
    tokens: (u64, u64),
    /// Whether it is waited for room, too.
    waits_for_room: bool,
}

impl Driver {
    /// Takes a context's work over. Its frames are told at `epoll` as the first of `tokens`, and the word of other threads that
    /// something is due as the second. Gives nothing if the context's transport cannot be waited for like that.
    ///
    /// # Errors
    /// If `epoll` takes no more.
    pub(crate) fn new(context: &Context, epoll: BorrowedFd<'_>, tokens: (u64, u64)) -> io::Result<Option<Self>> {
        let inner = &context.handle.inner;
        let Some(frames) = inner.transport.descriptor() else { return Ok(None) };
        let add = |fd, token| epoll::add(epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN);
        add(frames, tokens.0)?;
        if let Err(e) = add(inner.wake.as_fd(), tokens.1) {
            // It is there: it was added just now.
            let _ = epoll::delete(epoll, frames);
            return Err(e.into());
        }
        inner.drive();
        Ok(Some(Self { context: context.clone(), round: Round::new(), tokens, waits_for_room: false }))
    }

    /// Whether it drives this context.
    pub(crate) fn drives(&self, context: &Context) -> bool {
        Arc::ptr_eq(&self.context.handle, &context.handle)
    }

    /// What `epoll` tells of that as.
    pub(crate) fn token(&self, of: Told) -> u64 {
        match of {
            Told::Frames => self.tokens.0,
            Told::Word => self.tokens.1,
        }
    }

    /// Receives what is there, if there may be something, and does what is due.
    pub(crate) fn turn(&mut self, may_be_frames: bool, now: Instant) {
        let inner = &self.context.handle.inner;
        if may_be_frames {
            for _ in 0..TURN_BATCHES {
                if inner.receive() < BATCH {
                    break;
                }
            }
        }
        inner.catch_up(&mut self.round, now);
    }

    /// To be called immediately before waiting at `epoll`: when it is to be waited no longer.
    ///
    /// # Errors
    /// If `epoll` does not take what is waited for.
    pub(crate) fn rest(&mut self, epoll: BorrowedFd<'_>, now: Instant) -> io::Result<Instant> {
        let inner = &self.context.handle.inner;
        let (due, wants_room) = inner.sleep_until(&self.round, now);
        if wants_room != self.waits_for_room
            && let Some(frames) = inner.transport.descriptor()
        {
            let flags = if wants_room { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            epoll::modify(epoll, frames, epoll::EventData::new_u64(self.tokens.0), flags)?;
            self.waits_for_room = wants_room;
        }
        Ok(due)
    }

    /// To be called after the wait; `by_word` if another thread's word ended it.
    pub(crate) fn woken(&mut self, by_word: bool) {
        self.context.handle.inner.awake(by_word);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let inner = &self.context.handle.inner;
        inner.lock().sleeps_until = None;
        inner.stop_driving();
    }
}

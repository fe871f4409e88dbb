//! A few threads for what may have to wait: a neighbour's address, the card's answer to a question.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::supervisor::FINDINGS;
use crate::context::{Context, Waker, Watch};
use crate::engine::ListenerKey;
use crate::fallback::FallbackReason;
use crate::surroundings::{Reservation, Route};

/// So many programs can wait for a neighbour at once before the next waits for them.
const THREADS: usize = 8;

/// What there is to do.
type Job = Box<dyn FnOnce() -> Finding + Send>;

/// The way to a peer, and a port.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) context: Context,
    pub(super) route: Route,
    pub(super) reservation: Reservation,
}

/// The card's listeners for one of the program's.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) context: Context,
    pub(super) keys: Vec<(ListenerKey, Arc<Waker>)>,
}

/// What a worker has found out.
#[derive(Debug)]
pub(super) enum Finding {
    /// The way, or why there is none for the card.
    Route(Result<Way, FallbackReason>),
    /// The listeners, or why there are none; `Err(reason, denied)`.
    Listening(Result<Listening, (FallbackReason, bool)>),
    /// The bytes of an option, or an errno.
    Answer(Result<Vec<u8>, i32>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Workers {
    jobs: Sender<(u64, Job)>,
    found: Arc<Mutex<Vec<(u64, Finding)>>>,
}

impl Workers {
    /// Findings are told to `watch`.
    pub(super) fn new(watch: Arc<Watch>) -> io::Result<Self> {
        let (jobs, queue) = channel::<(u64, Job)>();
        let queue = Arc::new(Mutex::new(queue));
        let found = Arc::new(Mutex::new(Vec::new()));
        for _ in 0..THREADS {
            let (queue, found, watch) = (queue.clone(), found.clone(), watch.clone());
            std::thread::Builder::new().name("toe-worker".into()).spawn(move || work(&queue, &found, &watch))?;
        }
        Ok(Self { jobs, found })
    }

    /// Has it done.
    pub(super) fn ask(&self, token: u64, job: impl FnOnce() -> Finding + Send + 'static) {
        // The threads end only with the process.
        let _ = self.jobs.send((token, Box::new(job)));
    }

    /// What was found out since the last time.
    pub(super) fn take(&self) -> Vec<(u64, Finding)> {
        std::mem::take(&mut *self.found.lock().unwrap_or_else(|e| e.into_inner()))
    }
}

fn work(queue: &Mutex<Receiver<(u64, Job)>>, found: &Mutex<Vec<(u64, Finding)>>, watch: &Watch) {
    loop {
        let next = queue.lock().unwrap_or_else(|e| e.into_inner()).recv();
        let Ok((token, job)) = next else { return };
        let finding = job();
        found.lock().unwrap_or_else(|e| e.into_inner()).push((token, finding));
        watch.tell(FINDINGS);
    }
}

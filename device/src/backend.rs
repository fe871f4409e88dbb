//! What the vhost-user daemon asks of a device, answered for one connection.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use vhost::vhost_user::{Backend as RequestChannel, VhostUserProtocolFeatures};
use vhost_user_backend::{VhostUserBackend, VringMutex};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use crate::card::{Card, Connection};
use crate::net::{self, Features};

/// The largest ring, in descriptors: virtio's own limit.
const QUEUE_SIZE_MAX: usize = 32_768;

/// The card as one connection's daemon sees it.
pub struct Backend {
    card: Arc<Card>,
    connection: Connection,
    offered: Features,
    queue_pairs: u16,
    /// Reading end of the event that ends the worker, and the writing end until the worker asks for it.
    exit: (OwnedFd, Mutex<Option<EventNotifier>>),
    /// The channel for requests to the frontend. Nothing is asked on it, but some frontends fail if it is closed.
    requests: Mutex<Option<RequestChannel>>,
}

impl Backend {
    /// A device that offers `offered` and answers for `connection`.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new(card: Arc<Card>, connection: Connection, offered: Features, queue_pairs: u16) -> io::Result<Self> {
        let (consumer, notifier) = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
        // SAFETY: `into_raw_fd` hands over an open descriptor that nobody else owns.
        let consumer = unsafe { OwnedFd::from_raw_fd(consumer.into_raw_fd()) };
        let exit = (consumer, Mutex::new(Some(notifier)));
        Ok(Self { card, connection, offered, queue_pairs, exit, requests: Mutex::new(None) })
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        2 * usize::from(self.queue_pairs)
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE_MAX
    }

    fn features(&self) -> u64 {
        self.offered.0
    }

    fn acked_features(&self, features: u64) {
        log::info!("the driver agreed to features {features:#x}");
        self.card.negotiated(self.connection, Features(features));
    }

    /// Not on offer, because the daemon fails on them or frontends trip over them: CONFIGURE_MEM_SLOTS (with several
    /// pairs QEMU adds each region once per pair), MTU, RARP, STATUS, INBAND_NOTIFICATIONS, INFLIGHT_SHMFD (messages
    /// that the daemon does not know), LOG_SHMFD (no live migration).
    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&self, _enabled: bool) {
        // Each ring knows it.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        net::config(self.queue_pairs, offset, size)
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        // The card holds the same handle and looks through it in each batch. What programs named in the old map is over.
        self.card.memory_replaced(self.connection);
        Ok(())
    }

    fn set_backend_req_fd(&self, channel: RequestChannel) {
        *self.requests.lock().unwrap_or_else(|e| e.into_inner()) = Some(channel);
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        // One worker for all rings: they meet at one lock anyway.
        vec![u64::MAX]
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        let notifier = self.exit.1.lock().unwrap_or_else(|e| e.into_inner()).take()?;
        // SAFETY: the worker adds the descriptor to its epoll set and forgets it without closing it (the crate calls
        // `into_raw_fd` and nothing else on it), so that `self.exit` remains its only owner. `self` outlives the
        // worker, which holds a clone of the `Arc` around it.
        let consumer = unsafe { EventConsumer::from_raw_fd(self.exit.0.as_raw_fd()) };
        Some((consumer, notifier))
    }

    fn handle_event(&self, ring: u16, _: EventSet, vrings: &[VringMutex], _thread: usize) -> io::Result<()> {
        // Never an error: it would end the worker without a word.
        self.card.kicked(self.connection, ring.into(), vrings);
        Ok(())
    }
}

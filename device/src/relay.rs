//! The control plane's relay: it stands between a frontend's socket and the vhost-user daemon and passes messages on,
//! file descriptors included. Frames never come through here.
//!
//! It is there because frontends do what the `vhost` crate does not forgive, which ends the connection and leaves the
//! guest without carrier:
//!
//! * QEMU's virtio-net enables rings before it sets features. Such enables are held and sent on after SET_FEATURES.
//! * User-Mode Linux sends a memory table with room for two regions whatever its count says. It is cut.
//! * net frontends read GET_QUEUE_NUM as a number of *pairs*. The answer, a number of rings, is halved.
//! * Messages that the crate does not know, for protocol features that nobody offered, are answered here: those that
//!   tell something which the card need not know are taken note of, the others are refused.
//!
//! What the relay knows of the protocol is [`Control`], which sees messages and gives messages. [`run`] moves the
//! bytes; it reads exactly one message at a time, so that descriptors stay with the message they came with.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use vhost::vhost_user::VhostUserVirtioFeatures;
use vhost::vhost_user::message::{FrontendReq, MAX_MSG_SIZE, VhostUserProtocolFeatures};

use crate::card::Stop;

const HEADER_BYTES: usize = 12;
const REGION_BYTES: usize = 32;
const REGIONS_AT: usize = 8;

/// The most descriptors that come with one message.
const FDS_MAX: usize = 32;

/// How long either end may leave a message unread before the connection is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

const FLAG_VERSION: u32 = 1;
const FLAG_REPLY: u32 = 1 << 2;
const FLAG_NEED_REPLY: u32 = 1 << 3;

/// A message of the vhost-user protocol.
#[derive(Debug)]
pub struct Message {
    request: u32,
    flags: u32,
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Message {
    fn request(&self) -> Option<FrontendReq> {
        self.request.try_into().ok()
    }

    /// The first eight bytes as a number: what most messages are.
    fn value(&self) -> u64 {
        let mut bytes = [0; 8];
        let n = self.payload.len().min(8);
        bytes[..n].copy_from_slice(&self.payload[..n]);
        u64::from_ne_bytes(bytes)
    }

    fn needs_reply(&self) -> bool {
        self.flags & FLAG_NEED_REPLY != 0
    }

    fn reply(&self, value: u64) -> Self {
        Self {
            request: self.request,
            flags: FLAG_VERSION | FLAG_REPLY,
            payload: value.to_ne_bytes().to_vec(),
            fds: Vec::new(),
        }
    }
}

/// What follows from a message of the frontend.
#[derive(Default, Debug)]
pub struct Outcome {
    /// For the daemon, in this order.
    pub to_daemon: Vec<Message>,
    /// For the frontend.
    pub to_frontend: Option<Message>,
}

impl Outcome {
    fn pass_on(message: Message) -> Self {
        Self { to_daemon: vec![message], to_frontend: None }
    }

    fn answer(message: Option<Message>) -> Self {
        Self { to_daemon: Vec::new(), to_frontend: message }
    }
}

/// What the relay has to remember of a connection.
#[derive(Default, Debug)]
pub struct Control {
    /// What SET_FEATURES said; none before it.
    features: Option<u64>,
    protocol_features: u64,
    /// Enables that came too early: ring and value.
    held: BTreeMap<u32, u32>,
    /// What SET_STATUS said.
    status: u64,
}

impl Control {
    /// Handles a message from the frontend.
    pub fn from_frontend(&mut self, mut message: Message) -> Outcome {
        match message.request() {
            Some(FrontendReq::SET_FEATURES) => {
                self.features = Some(message.value());
                let held = std::mem::take(&mut self.held);
                let mut outcome = Outcome::pass_on(message);
                if self.rings_need_enable() {
                    outcome.to_daemon.extend(held.into_iter().map(|(ring, value)| enable(ring, value)));
                }
                outcome
            }
            Some(FrontendReq::SET_PROTOCOL_FEATURES) => {
                self.protocol_features = message.value();
                Outcome::pass_on(message)
            }
            Some(FrontendReq::RESET_OWNER) => {
                *self = Self::default();
                Outcome::pass_on(message)
            }
            Some(FrontendReq::SET_VRING_ENABLE) if !self.rings_need_enable() => {
                // Without F_PROTOCOL_FEATURES every ring is enabled from the start: nothing to hold then.
                if self.features.is_none() {
                    let value = message.value().to_ne_bytes();
                    let [ring, value] = [&value[..4], &value[4..]]
                        .map(|half| u32::from_ne_bytes(half.try_into().expect("half of eight bytes")));
                    self.held.insert(ring, value);
                }
                self.acknowledge(&message, 0)
            }
            Some(FrontendReq::SET_MEM_TABLE) => {
                let regions = message.value() as u32 as usize;
                message.payload.truncate(REGIONS_AT + regions.saturating_mul(REGION_BYTES));
                Outcome::pass_on(message)
            }
            Some(FrontendReq::SET_STATUS) => {
                self.status = message.value();
                self.acknowledge(&message, 0)
            }
            Some(FrontendReq::GET_STATUS) => Outcome::answer(Some(message.reply(self.status))),
            Some(FrontendReq::NET_SET_MTU | FrontendReq::SEND_RARP) => self.acknowledge(&message, 0),
            Some(request) if daemon_knows(request) => Outcome::pass_on(message),
            _ => {
                log::warn!("the frontend sent message {}, which belongs to no feature on offer", message.request);
                self.acknowledge(&message, 1)
            }
        }
    }

    /// The answer that a message gets only on request, if such requests were agreed upon. Zero is success.
    fn acknowledge(&self, message: &Message, error: u64) -> Outcome {
        let agreed = self.protocol_features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0;
        Outcome::answer((agreed && message.needs_reply()).then(|| message.reply(error)))
    }

    /// Handles a message from the daemon: what the frontend is to see.
    pub fn from_daemon(&mut self, mut message: Message) -> Message {
        if message.request() == Some(FrontendReq::GET_QUEUE_NUM) {
            message.payload = (message.value() / 2).to_ne_bytes().to_vec();
        }
        message
    }

    /// Whether the daemon takes SET_VRING_ENABLE.
    fn rings_need_enable(&self) -> bool {
        self.features.is_some_and(|f| f & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0)
    }
}

fn enable(ring: u32, value: u32) -> Message {
    let payload = [ring.to_ne_bytes(), value.to_ne_bytes()].concat();
    Message { request: FrontendReq::SET_VRING_ENABLE.into(), flags: FLAG_VERSION, payload, fds: Vec::new() }
}

/// Whether the daemon has an answer to that message other than hanging up.
fn daemon_knows(request: FrontendReq) -> bool {
    use FrontendReq as R;
    matches!(
        request,
        R::GET_FEATURES
            | R::SET_FEATURES
            | R::SET_OWNER
            | R::RESET_OWNER
            | R::SET_MEM_TABLE
            | R::SET_VRING_NUM
            | R::SET_VRING_ADDR
            | R::SET_VRING_BASE
            | R::GET_VRING_BASE
            | R::SET_VRING_KICK
            | R::SET_VRING_CALL
            | R::SET_VRING_ERR
            | R::GET_PROTOCOL_FEATURES
            | R::SET_PROTOCOL_FEATURES
            | R::GET_QUEUE_NUM
            | R::SET_VRING_ENABLE
            | R::SET_BACKEND_REQ_FD
            | R::GET_CONFIG
            | R::SET_CONFIG
    )
}

/// Relays between `frontend` and `daemon` until either hangs up or `stop`.
///
/// # Errors
/// An end that speaks no vhost-user or does not read.
pub fn run(frontend: &UnixStream, daemon: &UnixStream, stop: &Stop) -> io::Result<()> {
    for end in [frontend, daemon] {
        end.set_write_timeout(Some(SEND_TIMEOUT))?;
    }
    let mut control = Control::default();
    let (mut from_frontend, mut from_daemon) = (Assembler::default(), Assembler::default());
    loop {
        let mut fds = [
            PollFd::new(frontend, PollFlags::IN),
            PollFd::new(daemon, PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let [frontend_ready, daemon_ready, stop_ready] = fds.map(|fd| !fd.revents().is_empty());
        if stop_ready {
            return Ok(());
        }
        // The daemon first: what it answered precedes what the frontend says next.
        if daemon_ready {
            match from_daemon.receive(daemon)? {
                Received::Message(message) => send(frontend, &control.from_daemon(message))?,
                Received::Part => {}
                Received::End => return Ok(()),
            }
        } else if frontend_ready {
            match from_frontend.receive(frontend)? {
                Received::Message(message) => {
                    let outcome = control.from_frontend(message);
                    outcome.to_daemon.iter().try_for_each(|message| send(daemon, message))?;
                    outcome.to_frontend.iter().try_for_each(|message| send(frontend, message))?;
                }
                Received::Part => {}
                Received::End => return Ok(()),
            }
        }
    }
}

/// What a look at a socket gave.
enum Received {
    Message(Message),
    Part,
    End,
}

/// Puts messages together from what a stream socket gives.
#[derive(Default)]
struct Assembler {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Assembler {
    /// Reads once, never beyond the end of a message.
    fn receive(&mut self, socket: &UnixStream) -> io::Result<Received> {
        let have = self.bytes.len();
        let whole = HEADER_BYTES + self.payload_bytes().unwrap_or(0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        self.bytes.resize(whole, 0);
        let got = {
            let mut iov = [IoSliceMut::new(&mut self.bytes[have..])];
            recvmsg(socket, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
        };
        self.bytes.truncate(have + got.as_ref().map_or(0, |got| got.bytes));
        match got {
            Ok(got) if got.bytes == 0 => return Ok(Received::End),
            Ok(_) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(Received::End),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Received::Part),
            Err(error) => return Err(error.into()),
        }
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        match self.payload_bytes() {
            Some(bytes) if bytes > MAX_MSG_SIZE => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {bytes} bytes")))
            }
            Some(bytes) if self.bytes.len() == HEADER_BYTES + bytes => {
                let [request, flags] = [0, 4].map(|at| self.word(at));
                let payload = self.bytes.split_off(HEADER_BYTES);
                self.bytes.clear();
                Ok(Received::Message(Message { request, flags, payload, fds: std::mem::take(&mut self.fds) }))
            }
            _ => Ok(Received::Part),
        }
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    /// What the header says, once it is there.
    fn payload_bytes(&self) -> Option<usize> {
        (self.bytes.len() >= HEADER_BYTES).then(|| self.word(8) as usize)
    }
}

fn send(socket: &UnixStream, message: &Message) -> io::Result<()> {
    let size = message.payload.len() as u32;
    let mut bytes = [message.request, message.flags, size].map(u32::to_ne_bytes).concat();
    bytes.extend_from_slice(&message.payload);
    let fds: Vec<_> = message.fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message with {} descriptors", fds.len())));
    }
    let mut sent = 0;
    while sent < bytes.len() {
        match sendmsg(socket, &[IoSlice::new(&bytes[sent..])], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(n) => {
                sent += n;
                // They went with the first byte.
                ancillary.clear();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! One card connection and its program: bytes between the card and the leg (see [`super::leg`]), and the two ends'
//! ends.
//!
//! *Bounds.* At most [`CHUNK_BYTES`] lie in the supervisor; the rest waits where it is, so that either end slows the other
//! down. [`TURN_CHUNKS`] chunks are moved in one turn, then others have theirs.
//!
//! *Ends.* The program's FIN is a half close as long as the program holds its socket, and the end of the connection when
//! nobody does: then what is queued goes out and the card closes in order, and resets the connection if the peer sends
//! more, as the kernel does it. A RST from the program aborts. A FIN from the card is passed on; a connection that broke
//! gives the program what had arrived, and then a RST.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use socket2::Socket;
use toe_abi::Endpoint;

use super::counters::Counters;
use super::diag::{Diag, Held};
use crate::context::{Context, Waker};
use crate::engine::{ConnectionKey, Read, Write};

/// Bytes that are moved at once.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
const TURN_CHUNKS: usize = 8;

/// A card connection; closed when dropped.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) context: Context,
    pub(super) key: ConnectionKey,
    pub(super) waker: Arc<Waker>,
    pub(super) local: Endpoint,
    pub(super) remote: Endpoint,
    ended: bool,
}

/// The supervisor's end of the way to the program.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) socket: Socket,
    /// Where the program's end is.
    pub(super) program: SocketAddr,
    own: SocketAddr,
    readable: bool,
    writable: bool,
    /// There may be an urgent byte: the kernel ends a read before one.
    urgent: bool,
    /// The program's end was told, so that a read that takes less than it could have is not the last.
    end_told: bool,
    /// The program sends no more.
    program_ended: bool,
    /// The card sends no more, and the program knows.
    card_ended: bool,
    /// Bytes of the card that the program's socket had no room for.
    spill: Vec<u8>,
}

/// How a turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Nothing more can be done until something changes.
    Idle,
    /// There is more to do.
    More,
    /// The connection broke; what has arrived is on its way to the program.
    Breaking,
    /// Both ends are done with it.
    Over,
}

impl Line {
    pub(super) fn new(
        context: Context,
        (key, waker): (ConnectionKey, Arc<Waker>),
        (local, remote): (Endpoint, Endpoint),
    ) -> Self {
        Self { context, key, waker, local, remote, ended: false }
    }

    /// Ends it with a RST for the peer.
    pub(super) fn abort(&mut self, now: Instant) {
        self.ended = true;
        self.context.act(|core| core.engine.abort(now, self.key));
    }

    fn close(&mut self, now: Instant) {
        self.ended = true;
        self.context.act(|core| core.engine.close(now, self.key));
    }

    /// Sets an option of `toe_abi::option`; nobody waits for the answer.
    pub(super) fn set(&self, option: u32, value: u64) {
        self.context.act(|core| core.engine.set_option(Instant::now(), self.key, option, value));
    }

    /// Moves what can be moved.
    pub(super) fn turn(
        &mut self,
        leg: &mut Leg,
        scratch: &mut [u8],
        diag: &Diag,
        counters: &mut Counters,
        now: Instant,
    ) -> Turn {
        self.waker.heard();
        for _ in 0..TURN_CHUNKS {
            let moved = self
                .take_from_program(leg, scratch, diag, counters, now)
                .and_then(|from| Ok((from, self.give_to_program(leg, scratch, counters, now)?)));
            let Ok((from, to)) = moved else {
                // What is closed in order stays so.
                if !self.ended {
                    self.abort(now);
                }
                return Turn::Over;
            };
            match to {
                _ if self.ended => return Turn::Over,
                Some(to) if !to && !from => return Turn::Idle,
                Some(_) => {}
                None if leg.is_drained() => {
                    self.close(now);
                    return Turn::Over;
                }
                None => return Turn::Breaking,
            }
        }
        Turn::More
    }

    /// Whether anything was moved.
    ///
    /// # Errors
    /// The program has reset its connection.
    fn take_from_program(
        &mut self,
        leg: &mut Leg,
        scratch: &mut [u8],
        diag: &Diag,
        counters: &mut Counters,
        now: Instant,
    ) -> io::Result<bool> {
        if !leg.readable || leg.program_ended {
            return Ok(false);
        }
        let look = self.context.look(self.key, |c| (c.send_room(), c.broken().is_some()));
        let Some((room @ 1.., false)) = look else {
            return Ok(false);
        };
        let is_urgent = leg.urgent && leg.at_mark();
        let room = if is_urgent { 1 } else { room.min(scratch.len()) };
        match (&leg.socket).read(&mut scratch[..room]) {
            Ok(0) => {
                leg.program_ended = true;
                self.program_ended(leg, diag, now);
                Ok(false)
            }
            Ok(n) => {
                leg.urgent &= !is_urgent;
                // Else the next would find nothing: what comes from here on is told (epoll(7)).
                leg.readable = n == room || leg.urgent || leg.end_told;
                let written = self.context.act(|core| {
                    if is_urgent {
                        core.engine.write_urgent(now, self.key, &scratch[..n])
                    } else {
                        core.engine.write(now, self.key, &scratch[..n])
                    }
                });
                if let Write::Bytes(written) = written {
                    debug_assert_eq!(written, n, "nobody else takes its room");
                    counters.bytes_sent += written as u64;
                }
                Ok(true)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                leg.readable = false;
                Ok(false)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// The program sends no more. Has it closed its socket, or one half of it?
    pub(super) fn program_ended(&mut self, leg: &Leg, diag: &Diag, now: Instant) {
        if !leg.program_ended || self.ended {
            return;
        }
        if leg.card_ended {
            leg.let_kernel_finish();
            self.close(now);
        } else if diag.connection(leg.program, leg.own) == Held::No {
            self.close(now);
        } else {
            self.context.act(|core| core.engine.shutdown_write(now, self.key));
        }
    }

    /// Whether anything was moved; `None` if the connection is broken.
    ///
    /// # Errors
    /// The program's socket is gone.
    fn give_to_program(
        &mut self,
        leg: &mut Leg,
        scratch: &mut [u8],
        counters: &mut Counters,
        now: Instant,
    ) -> io::Result<Option<bool>> {
        if !leg.spill.is_empty() {
            let spill = std::mem::take(&mut leg.spill);
            leg.give(&spill, false)?;
            return Ok(Some(leg.spill.len() < spill.len()));
        }
        if !leg.writable || leg.card_ended {
            return Ok(Some(false));
        }
        let (urgent, read) = self.context.act(|core| {
            let urgent = core.engine.connection(self.key).map_or(0, |c| c.urgent_left());
            (urgent, core.engine.read(now, self.key, scratch, false))
        });
        match read {
            Read::Bytes(n) => {
                counters.bytes_received += n as u64;
                let urgent = usize::try_from(urgent).unwrap_or(usize::MAX);
                if (1..=n).contains(&urgent) {
                    leg.give(&scratch[..urgent - 1], false)?;
                    leg.give(&scratch[urgent - 1..urgent], true)?;
                    leg.give(&scratch[urgent..n], false)?;
                } else {
                    leg.give(&scratch[..n], false)?;
                }
                Ok(Some(true))
            }
            Read::End => {
                leg.card_ended = true;
                leg.socket.shutdown(Shutdown::Write)?;
                if leg.program_ended {
                    leg.let_kernel_finish();
                    self.close(now);
                }
                Ok(Some(true))
            }
            Read::Nothing => Ok(Some(false)),
            Read::Broken(_) => Ok(None),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.ended {
            self.abort(Instant::now());
        }
    }
}

impl Leg {
    /// Of a socket, whose address is `own`, on its way to the program's.
    pub(super) fn new(socket: Socket, program: SocketAddr, own: SocketAddr) -> Self {
        Self {
            socket,
            program,
            own,
            readable: false,
            writable: true,
            urgent: false,
            end_told: false,
            program_ended: false,
            card_ended: false,
            spill: Vec::new(),
        }
    }

    /// What its descriptor polled.
    pub(super) fn polled(&mut self, flags: EventFlags) {
        let gone = EventFlags::ERR | EventFlags::HUP;
        let end = EventFlags::RDHUP | gone;
        self.readable |= flags.intersects(EventFlags::IN | EventFlags::PRI | end);
        self.writable |= flags.intersects(EventFlags::OUT | gone);
        self.urgent |= flags.contains(EventFlags::PRI);
        self.end_told |= flags.intersects(end);
    }

    /// Whether the program has closed one half: the other may follow without a word.
    pub(super) fn is_half_closed(&self) -> bool {
        self.program_ended
    }

    /// Whether the next byte to read is urgent.
    fn at_mark(&self) -> bool {
        let mut at: libc::c_int = 0;
        // SAFETY: SIOCATMARK writes an int.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), 0x8905, &mut at) };
        result == 0 && at != 0
    }

    /// Whether the program's socket has all that was sent.
    fn is_drained(&self) -> bool {
        let mut left: libc::c_int = 0;
        // SAFETY: TIOCOUTQ writes an int.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &mut left) };
        self.spill.is_empty() && (result != 0 || left == 0)
    }

    /// All is said; what is on its way still arrives, though nobody waits for it.
    fn let_kernel_finish(&self) {
        // If that fails the program may miss the end of its data, and sees a RST.
        let _ = self.socket.set_linger(None);
    }

    /// Sends to the program, or keeps what it has no room for.
    fn give(&mut self, mut bytes: &[u8], urgent: bool) -> io::Result<()> {
        while self.spill.is_empty() && !bytes.is_empty() {
            let sent = if urgent { self.socket.send_out_of_band(bytes) } else { (&self.socket).write(bytes) };
            match sent {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        self.spill.extend_from_slice(bytes);
        Ok(())
    }
}

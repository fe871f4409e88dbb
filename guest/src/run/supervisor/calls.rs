//! Which call is dealt with where, names, and options.

use std::os::fd::{AsFd, BorrowedFd};

use socket2::SockRef;
use toe_abi::{Endpoint, InfoResult, option};

use super::super::address;
use super::super::descriptor::{self, cookie};
use super::super::notify::Call;
use super::super::workers::Finding;
use super::{Known, Phase, Supervisor};

/// No option that is told is longer.
const OPTION_BYTES_MAX: i32 = 256;

/// A call of `getsockopt` that waits for the card's answer.
#[derive(Debug)]
pub(super) struct Asking {
    call: Call,
}

impl Supervisor {
    pub(super) fn handle_call(&mut self, call: &Call) {
        self.counters.notifications += 1;
        match i64::from(call.number) {
            libc::SYS_connect => self.connect(call),
            libc::SYS_listen => self.listen(call),
            libc::SYS_accept | libc::SYS_accept4 => self.accept(call),
            libc::SYS_getsockname => self.name(call, false),
            libc::SYS_getpeername => self.name(call, true),
            libc::SYS_setsockopt => self.set_option(call),
            libc::SYS_getsockopt => self.get_option(call),
            // Only with MSG_FASTOPEN.
            libc::SYS_sendto | libc::SYS_sendmsg => {
                self.counters.kernel("option-fast-open");
                self.proceed(call);
            }
            number => {
                log::error!("system call {number} was told, which the filter does not name");
                self.proceed(call);
            }
        }
    }

    /// What is known of the call's socket; if nothing is, the kernel answers.
    fn known(&mut self, call: &Call) -> Option<(std::os::fd::OwnedFd, u64, Known)> {
        let (_, socket) = self.caller(call)?;
        let known = cookie(socket.as_fd()).ok().and_then(|c| Some((c, self.sockets.get(&c)?.clone())));
        let Some((cookie, known)) = known else {
            self.proceed(call);
            return None;
        };
        Some((socket, cookie, known))
    }

    /// `getsockname` and `getpeername`.
    fn name(&mut self, call: &Call, of_peer: bool) {
        let Some((socket, _, known)) = self.known(call) else { return };
        let fd = socket.as_fd();
        let endpoint = match known {
            // Until it is connected the peer's name is an error, which the kernel knows. A program can see that it is
            // before its supervisor does.
            Known::Connection(token) => self.connections.get(&token).and_then(|c| match (&c.phase, of_peer) {
                (Phase::Asked { .. }, _)
                | (Phase::Handshake { .. } | Phase::Joining { failure: Some(_), .. }, true) => None,
                (_, true) => is_connected(fd).then_some(c.line.remote),
                (_, false) => Some(c.line.local),
            }),
            Known::Ended { local, .. } if !of_peer => Some(local),
            _ => None,
        };
        let Some(endpoint) = endpoint else {
            if of_peer && matches!(known, Known::Ended { .. } | Known::Connection(_)) && !is_fd_listening(fd) {
                self.fail(call, libc::ENOTCONN);
            } else {
                self.proceed(call);
            }
            return;
        };
        self.write_name(call, fd, endpoint);
    }

    fn write_name(&mut self, call: &Call, fd: BorrowedFd<'_>, endpoint: Endpoint) {
        let bytes = address::bytes(endpoint, descriptor::tcp_family(fd) == Some(true));
        match self.write_sized(call, call.arguments[1], call.arguments[2], &bytes) {
            Ok(()) => self.give(call, 0),
            Err(errno) => self.fail(call, errno),
        };
    }

    fn set_option(&mut self, call: &Call) {
        let Some((_, socket)) = self.caller(call) else { return };
        let fd = socket.as_fd();
        let at = (call.int(1), call.int(2));
        let beyond = match at {
            (libc::IPPROTO_TCP, libc::TCP_MD5SIG) => Some("option-md5-signature"),
            (libc::IPPROTO_TCP, libc::TCP_REPAIR) => Some("option-repair"),
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => Some("option-maxseg"),
            _ => None,
        };
        let Ok(cookie) = cookie(fd) else {
            self.proceed(call);
            return;
        };
        self.options.set_by(cookie);
        let token = match self.sockets.get(&cookie) {
            Some(Known::Connection(token)) => *token,
            None => {
                if let Some(reason) = beyond.filter(|_| descriptor::tcp_family(fd).is_some()) {
                    self.sockets.insert(cookie, Known::Unsuitable(reason));
                }
                self.proceed(call);
                return;
            }
            _ => {
                self.proceed(call);
                return;
            }
        };
        if beyond.is_some() {
            self.fail(call, libc::EOPNOTSUPP);
            return;
        }
        let length = call.int(4);
        if !(0..=OPTION_BYTES_MAX).contains(&length) {
            self.proceed(call);
            return;
        }
        let is_int = at.0 != libc::IPPROTO_IP && at != (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
        if is_int && length < size_of::<libc::c_int>() as i32 {
            // Which the kernel says before it looks at the pointer.
            self.fail(call, libc::EINVAL);
            return;
        }
        let Some(bytes) = self.read(call, call.arguments[3], length as usize) else { return };
        let Some(connection) = self.connections.get(&token) else {
            self.proceed(call);
            return;
        };
        if at == (libc::IPPROTO_TCP, libc::TCP_CONGESTION) {
            let name = bytes.split(|b| *b == 0).next().unwrap_or_default();
            match descriptor::controller(&String::from_utf8_lossy(name)) {
                Some(value) => {
                    connection.line.set(option::CONGESTION, value);
                    self.give(call, 0);
                }
                None => {
                    self.fail(call, libc::ENOENT);
                }
            }
            return;
        }
        // The kernel's socket has it, too: it finds the errors, and answers when it is asked.
        match descriptor::set(fd, at.0, at.1, &bytes) {
            Ok(()) => {
                let keep_alive = [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT].contains(&at.1);
                let of =
                    if at.0 == libc::IPPROTO_TCP && keep_alive { (libc::SOL_SOCKET, libc::SO_KEEPALIVE) } else { at };
                descriptor::forward(fd, &connection.line, of, false);
                self.give(call, 0);
            }
            Err(e) => {
                self.fail(call, e.raw_os_error().unwrap_or(libc::EINVAL));
            }
        }
    }

    fn get_option(&mut self, call: &Call) {
        let Some((socket, cookie, known)) = self.known(call) else { return };
        let at = (call.int(1), call.int(2));
        match (known, at) {
            (Known::Ended { local, error: Some(errno) }, (libc::SOL_SOCKET, libc::SO_ERROR)) => {
                // The kernel's own, which would say that the leg was reset.
                let _ = descriptor::int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR);
                self.sockets.insert(cookie, Known::Ended { local, error: None });
                self.write_option(call, &errno.to_ne_bytes());
            }
            (Known::Connection(token), (libc::IPPROTO_TCP, name)) => {
                let Some(connection) = self.connections.get(&token) else {
                    self.proceed(call);
                    return;
                };
                let (context, key) = (connection.line.context.clone(), connection.line.key);
                let token = self.new_token();
                self.asking.insert(token, Asking { call: *call });
                self.workers.ask(token, move || {
                    let refused = |_| libc::EINVAL;
                    Finding::Answer(match name {
                        libc::TCP_CONGESTION => {
                            context.option(key, option::CONGESTION, None).map_err(refused).map(|v| {
                                let known = option::CONTROLLERS.iter().find(|(value, _)| *value == v);
                                let name = known.map_or("", |(_, name)| *name);
                                let mut bytes = [0; 16];
                                let name = if name == "new-reno" { "reno" } else { name };
                                bytes[..name.len()].copy_from_slice(name.as_bytes());
                                bytes.to_vec()
                            })
                        }
                        libc::TCP_MAXSEG => {
                            context.info(key).map_err(refused).map(|i| i.send_mss.to_ne_bytes().to_vec())
                        }
                        _ => context.info(key).map_err(refused).map(|i| tcp_info(&i)),
                    })
                });
            }
            _ => {
                self.proceed(call);
            }
        }
    }

    /// The card has answered what a `getsockopt` asks.
    pub(super) fn answered(&mut self, token: u64, answer: Result<Vec<u8>, i32>) {
        let Some(Asking { call }) = self.asking.remove(&token) else { return };
        match answer {
            Ok(bytes) => self.write_option(&call, &bytes),
            // The connection is over: what the kernel says of its socket is true then.
            Err(_) => {
                self.proceed(&call);
            }
        }
    }

    fn write_option(&mut self, call: &Call, bytes: &[u8]) {
        // The kernel tells how much it wrote, not how much there is.
        let mut length = [0; 4];
        let result = super::target::read(call.thread, call.arguments[4], &mut length).and_then(|()| {
            let room = usize::try_from(i32::from_ne_bytes(length)).map_err(|_| libc::EINVAL)?;
            if !self.notify.is_valid(call.id) {
                return Err(libc::EINTR);
            }
            let n = room.min(bytes.len());
            super::target::write(call.thread, call.arguments[4], &(n as u32).to_ne_bytes())?;
            super::target::write(call.thread, call.arguments[3], &bytes[..n])
        });
        match result {
            Ok(()) => self.give(call, 0),
            Err(errno) => self.fail(call, errno),
        };
    }
}

fn is_connected(fd: BorrowedFd<'_>) -> bool {
    SockRef::from(&fd).peer_addr().is_ok()
}

fn is_fd_listening(fd: BorrowedFd<'_>) -> bool {
    descriptor::int(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).is_ok_and(|v| v != 0)
}

/// `struct tcp_info`, as far as the card knows it; the rest is zero.
fn tcp_info(i: &InfoResult) -> Vec<u8> {
    /// Bytes of the struct in Linux 6.1.
    const BYTES: usize = 240;
    let mut out = vec![0; BYTES];
    let mut byte = |at: usize, value: u8| out[at] = value;
    byte(0, i.tcp_state);
    byte(1, i.congestion_state);
    byte(2, i.backoff.min(255) as u8);
    byte(4, i.backoff.min(255) as u8);
    byte(5, i.options);
    // The kernel has the peer's scale in the low nibble.
    byte(6, i.window_scales.rotate_left(4));
    let mut word = |at: usize, value: u32| out[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    word(8, i.rto_us);
    word(16, i.send_mss);
    word(20, i.send_mss);
    let mss = i.send_mss.max(1);
    word(24, i.in_flight.div_ceil(mss));
    word(28, i.sacked.div_ceil(mss));
    word(32, i.lost.div_ceil(mss));
    word(60, i.send_mss + 40);
    word(68, i.rtt_us);
    word(72, i.rtt_variation_us);
    word(76, i.slow_start_threshold / mss);
    word(80, i.congestion_window / mss);
    word(84, i.send_mss);
    word(96, i.receive_window);
    word(100, i.retransmits.min(u64::from(u32::MAX)) as u32);
    let mut long = |at: usize, value: u64| out[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    long(120, i.bytes_acknowledged);
    long(128, i.bytes_received);
    let mut word = |at: usize, value: u32| out[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    word(136, i.segments_out as u32);
    word(140, i.segments_in as u32);
    word(144, i.not_sent.min(u64::from(u32::MAX)) as u32);
    word(148, i.rtt_min_us);
    let mut long = |at: usize, value: u64| out[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    long(200, i.bytes_sent);
    let mut word = |at: usize, value: u32| out[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    word(228, i.send_window);
    out
}

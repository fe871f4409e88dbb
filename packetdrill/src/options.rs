//! `getsockopt`, `setsockopt`, and the questions of `ioctl`.
//!
//! What is not here gives `ENOPROTOOPT`: a script that depends on an option shall fail where it sets it and not somewhere
//! later. `SO_RCVBUF` is taken and read back, doubled as in Linux, and changes nothing: a connection's receive memory is
//! fixed by the card's profile (`limits.connection_receive_pages`).

use std::os::fd::RawFd;

use toe_abi::option;
use toe_firmware::Duration;

use crate::address::Family;
use crate::errno::Errno;
use crate::sockets::{Controller, Role, Sockets};
use crate::tcp_info::TcpInfo;

/// Linux's least buffer sizes, doubled.
const SEND_BUFFER_MIN: u32 = 4608;
const RECEIVE_BUFFER_MIN: u32 = 2304;
/// What is read back if nothing was set: Linux's default to send, and the buffer that the card begins with.
const SEND_BUFFER: u32 = 16_384;
const RECEIVE_BUFFER: u32 = 65_536;
/// The segment size of a connection that has heard nothing of it (RFC 9293, 3.7.1).
const MSS_DEFAULT: u32 = 536;
/// `TCP_MAXSEG` takes these.
const MSS_RANGE: std::ops::RangeInclusive<i32> = 88..=32_767;
/// Linux's silence before keep-alives, in seconds.
pub const KEEP_IDLE_S: u32 = 7200;
const KEEP_INTERVAL_S: u32 = 75;
const KEEP_PROBES: u32 = 9;
/// Linux's time to live.
const HOP_LIMIT: u32 = 64;
/// `TCP_NOTSENT_LOWAT` and `TCP_INQ`, which the `libc` crate does not have for every target.
const TCP_NOTSENT_LOWAT: i32 = 25;
/// See `TCP_NOTSENT_LOWAT`.
pub const TCP_INQ: i32 = 36;

/// Options that are taken and read back, and mean nothing in front of packetdrill: where frames go, how a local queue
/// treats them, and hints on which no script's packets depend.
pub const ECHOED: [(i32, i32); 12] = [
    (libc::SOL_SOCKET, libc::SO_ZEROCOPY),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_MARK),
    (libc::SOL_SOCKET, libc::SO_BUSY_POLL),
    (libc::IPPROTO_IP, libc::IP_FREEBIND),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
    (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
];

fn echoed(level: i32, name: i32) -> Option<usize> {
    ECHOED.iter().position(|known| *known == (level, name))
}

/// `SIOCOUTQNSD`: bytes that were never sent.
const SIOCOUTQNSD: u64 = 0x894b;

fn int(value: impl TryInto<i32>) -> Vec<u8> {
    value.try_into().unwrap_or(i32::MAX).to_ne_bytes().to_vec()
}

fn read_int(value: &[u8]) -> Result<i32, Errno> {
    let bytes = value.get(..4).and_then(|b| b.try_into().ok()).ok_or(Errno(libc::EINVAL))?;
    Ok(i32::from_ne_bytes(bytes))
}

/// An `int`, or one byte of it, as `IP_TOS` and its like take.
fn read_byte(value: &[u8]) -> Result<i32, Errno> {
    match value {
        [byte] => Ok(i32::from(*byte)),
        _ => read_int(value),
    }
}

fn positive(value: &[u8], max: i32) -> Result<u32, Errno> {
    let number = read_int(value)?;
    if (1..=max).contains(&number) { Ok(number as u32) } else { Err(Errno(libc::EINVAL)) }
}

/// -1 is the system's own.
fn hop_limit(value: &[u8]) -> Result<Option<u32>, Errno> {
    match read_byte(value)? {
        -1 => Ok(None),
        hops @ 1..=255 => Ok(Some(hops as u32)),
        _ => Err(Errno(libc::EINVAL)),
    }
}

/// A `struct timeval`: nothing is no time limit.
fn read_timeout(value: &[u8]) -> Result<Option<Duration>, Errno> {
    let word = |at: usize| {
        let bytes = value.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or(Errno(libc::EINVAL))?;
        Ok(i64::from_ne_bytes(bytes))
    };
    let (seconds, micros) = (word(0)?, word(8)?);
    if !(0..1_000_000).contains(&micros) {
        return Err(Errno(libc::EDOM));
    }
    let us = u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000).saturating_add(micros as u64);
    Ok((us > 0).then_some(Duration::from_us(us)))
}

fn timeout(value: Option<Duration>) -> Vec<u8> {
    let us = value.map_or(0, Duration::as_us);
    [(us / 1_000_000).to_ne_bytes(), (us % 1_000_000).to_ne_bytes()].concat()
}

impl Sockets {
    /// The value of an option.
    ///
    /// # Errors
    /// `EBADF`, `ENOTSOCK`, `ENOPROTOOPT`.
    pub fn get_option(&mut self, fd: RawFd, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
        let socket = self.socket(fd)?.clone();
        let set = socket.set;
        let v6 = socket.family == Family::V6;
        Ok(match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) => int(self.take_error(fd)?),
            (libc::SOL_SOCKET, libc::SO_TYPE) => int(libc::SOCK_STREAM),
            (libc::SOL_SOCKET, libc::SO_PROTOCOL) => int(libc::IPPROTO_TCP),
            (libc::SOL_SOCKET, libc::SO_DOMAIN) => int(if v6 { libc::AF_INET6 } else { libc::AF_INET }),
            (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => int(matches!(socket.role, Role::Listener(_))),
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => int(set.reuse_address),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => int(set.reuse_port),
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => int(match set.receive_buffer {
                Some(bytes) => bytes,
                None => self.receive_buffer(&socket.role),
            }),
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => int(set.send_buffer.unwrap_or(SEND_BUFFER)),
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                [int(set.linger_s.is_some()), int(set.linger_s.unwrap_or(0))].concat()
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => timeout(set.receive_timeout),
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => timeout(set.send_timeout),
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) if v6 => int(set.v6_only),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => int(set.no_delay),
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => {
                let info = self.stream_id(&socket.role).and_then(|id| self.guest.info(id));
                int(info.map(|info| info.send_mss).or(set.max_segment).unwrap_or(MSS_DEFAULT))
            }
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
                let mut name = set.congestion.unwrap_or(self.congestion).name().as_bytes().to_vec();
                // TCP_CA_NAME_MAX.
                name.resize(16, 0);
                name
            }
            (libc::IPPROTO_TCP, libc::TCP_INFO) => self.tcp_info(fd)?.to_bytes(),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => int(set.keep_alive),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => int(set.keep_idle_s.unwrap_or(KEEP_IDLE_S)),
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => int(set.keep_interval_s.unwrap_or(KEEP_INTERVAL_S)),
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => int(set.keep_probes.unwrap_or(KEEP_PROBES)),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => int(set.user_timeout_ms.unwrap_or(0)),
            (libc::IPPROTO_IP, libc::IP_TTL) => int(set.hop_limit.unwrap_or(HOP_LIMIT)),
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) if v6 => int(set.hop_limit.unwrap_or(HOP_LIMIT)),
            (libc::IPPROTO_IP, libc::IP_TOS) => int(set.traffic_class.unwrap_or(0)),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if v6 => int(set.traffic_class.unwrap_or(0)),
            (libc::IPPROTO_TCP, libc::TCP_CORK) => int(set.cork),
            (libc::IPPROTO_TCP, TCP_NOTSENT_LOWAT) => set.not_sent_low.to_ne_bytes().to_vec(),
            (libc::IPPROTO_TCP, TCP_INQ) => int(set.tell_queued),
            _ => int(set.echoed.get(echoed(level, name).ok_or(Errno(libc::ENOPROTOOPT))?)),
        })
    }

    fn stream_id(&self, role: &Role) -> Option<u64> {
        match role {
            Role::Stream(id) => Some(*id),
            _ => None,
        }
    }

    /// The segment size that the SYN announced, less timestamps.
    fn advertised_mss(&self, fd: RawFd) -> u32 {
        let Ok(socket) = self.socket(fd) else { return 0 };
        let Some(local) = socket.local else { return 0 };
        self.mtu_for(local.ip(), &socket.set).saturating_sub(if local.is_ipv4() { 40 } else { 60 })
    }

    /// What the card offers a connection at first: once both SYNs are known, whole segments.
    fn receive_buffer(&mut self, role: &Role) -> u32 {
        let info = self.stream_id(role).and_then(|id| self.guest.info(id));
        let segment = info.filter(|info| info.tcp_state != TcpInfo::SYN_SENT).map_or(1, |info| info.send_mss.max(1));
        RECEIVE_BUFFER.next_multiple_of(segment)
    }

    /// `TCP_INFO`.
    ///
    /// # Errors
    /// `EBADF`, `ENOTSOCK`.
    pub fn tcp_info(&mut self, fd: RawFd) -> Result<TcpInfo, Errno> {
        Ok(match self.socket(fd)?.role {
            Role::Idle => TcpInfo::closed(),
            Role::Listener(_) => TcpInfo::listening(),
            Role::Stream(id) => {
                let Some(info) = self.guest.observe_one(id) else { return Ok(TcpInfo::closed()) };
                let now = self.guest.now();
                let observed = self.guest.connection(id).map(|c| c.observed);
                let own = TcpInfo { advmss: self.advertised_mss(fd), ..TcpInfo::of(&info) };
                observed.map_or(own, |observed| observed.complete(own, now))
            }
        })
    }

    /// With `TCP_INQ`: how many bytes are left to read; one, if nothing but the end is.
    ///
    /// # Errors
    /// `EBADF`, `ENOTSOCK`.
    pub fn told_queued(&mut self, fd: RawFd) -> Result<Option<i32>, Errno> {
        let socket = self.socket(fd)?;
        let (wanted, role) = (socket.set.tell_queued, socket.role.clone());
        let Some(id) = self.stream_id(&role).filter(|_| wanted) else { return Ok(None) };
        let bytes = self.guest.readable(id);
        let at_end = bytes == 0 && self.guest.connection(id).is_some_and(|c| c.is_peer_closed());
        Ok(Some(if at_end { 1 } else { i32::try_from(bytes).unwrap_or(i32::MAX) }))
    }

    /// Sets an option.
    ///
    /// # Errors
    /// `EBADF`, `ENOTSOCK`, `ENOPROTOOPT`, `EINVAL` for a value that it cannot have.
    pub fn set_option(&mut self, fd: RawFd, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let role = self.socket(fd)?.role.clone();
        let v6 = self.socket(fd)?.family == Family::V6;
        match (level, name) {
            (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => {
                let name = value.split(|b| *b == 0).next().unwrap_or_default();
                // Another than the one that was asked for is never put in its place.
                let controller = Controller::of(name).ok_or(Errno(libc::ENOENT))?;
                self.socket_mut(fd)?.set.congestion = Some(controller);
                return self.tell_card(fd);
            }
            (libc::IPPROTO_TCP, libc::TCP_NODELAY) => {
                let on = read_int(value)? != 0;
                if let Some(id) = self.stream_id(&role).filter(|_| self.error(fd) == Ok(0)) {
                    self.guest.set_option(id, option::NODELAY, on.into())?;
                }
                self.socket_mut(fd)?.set.no_delay = on;
                if on {
                    self.release_held(fd);
                }
                return Ok(());
            }
            _ => {}
        }
        let was_kept = self.socket(fd)?.set.keep_alive;
        let set = &mut self.socket_mut(fd)?.set;
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => {
                set.keep_alive = read_int(value)? != 0;
                let ended = was_kept && !set.keep_alive;
                if let Some(id) = self.stream_id(&role).filter(|_| ended && self.error(fd) == Ok(0)) {
                    self.guest.set_option(id, option::KEEP_ALIVE_IDLE_MS, 0)?;
                }
                return self.tell_card(fd);
            }
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => set.keep_idle_s = Some(positive(value, 32_767)?),
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => set.keep_interval_s = Some(positive(value, 32_767)?),
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => set.keep_probes = Some(positive(value, 127)?),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => {
                set.user_timeout_ms = Some(u32::try_from(read_int(value)?).map_err(|_| Errno(libc::EINVAL))?);
            }
            (libc::IPPROTO_IP, libc::IP_TTL) => set.hop_limit = hop_limit(value)?,
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) if v6 => set.hop_limit = hop_limit(value)?,
            // ECN's bits are the card's.
            (libc::IPPROTO_IP, libc::IP_TOS) => set.traffic_class = Some(read_byte(value)? as u32 & 0xfc),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if v6 => set.traffic_class = Some(read_int(value)? as u32 & 0xfc),
            _ => return self.set_option_of_socket(fd, level, name, value),
        }
        self.tell_card(fd)
    }

    /// The options that the card does not have to know.
    fn set_option_of_socket(&mut self, fd: RawFd, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let role = self.socket(fd)?.role.clone();
        let v6 = self.socket(fd)?.family == Family::V6;
        let set = &mut self.socket_mut(fd)?.set;
        match (level, name) {
            (libc::IPPROTO_TCP, TCP_NOTSENT_LOWAT) => set.not_sent_low = read_int(value)? as u32,
            (libc::IPPROTO_TCP, TCP_INQ) => set.tell_queued = read_int(value)? != 0,
            (libc::IPPROTO_TCP, libc::TCP_CORK) => {
                set.cork = read_int(value)? != 0;
                if !set.cork {
                    self.release_held(fd);
                }
            }
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => set.reuse_address = read_int(value)? != 0,
            (libc::SOL_SOCKET, libc::SO_REUSEPORT) => set.reuse_port = read_int(value)? != 0,
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => {
                set.receive_buffer = Some(doubled(read_int(value)?, RECEIVE_BUFFER_MIN));
            }
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => {
                set.send_buffer = Some(doubled(read_int(value)?, SEND_BUFFER_MIN));
            }
            (libc::SOL_SOCKET, libc::SO_LINGER) => {
                let seconds = read_int(value.get(4..).unwrap_or_default())?;
                set.linger_s = (read_int(value)? != 0).then_some(seconds);
            }
            (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => set.receive_timeout = read_timeout(value)?,
            (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => set.send_timeout = read_timeout(value)?,
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) if v6 => {
                if role != Role::Idle {
                    return Err(Errno(libc::EINVAL));
                }
                set.v6_only = read_int(value)? != 0;
            }
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => {
                let mss = read_int(value)?;
                if mss != 0 && !MSS_RANGE.contains(&mss) {
                    return Err(Errno(libc::EINVAL));
                }
                // The card learns it when it connects or listens.
                if matches!(role, Role::Stream(_)) {
                    return Err(Errno(libc::ENOPROTOOPT));
                }
                set.max_segment = (mss != 0).then_some(mss as u32);
                if let Role::Listener(_) = role {
                    return self.listen_anew(fd);
                }
            }
            _ => {
                let index = echoed(level, name).ok_or(Errno(libc::ENOPROTOOPT))?;
                set.echoed.set(index, read_byte(value)?);
            }
        }
        Ok(())
    }

    /// Tells the card what was set, if there is a connection.
    fn tell_card(&mut self, fd: RawFd) -> Result<(), Errno> {
        let (role, set) = (self.socket(fd)?.role.clone(), self.socket(fd)?.set);
        let Some(id) = self.stream_id(&role).filter(|_| self.error(fd) == Ok(0)) else { return Ok(()) };
        for (option, value) in set.for_card() {
            self.guest.set_option(id, option, value)?;
        }
        Ok(())
    }

    /// `FIONREAD`, `SIOCOUTQ` and `SIOCOUTQNSD`.
    ///
    /// # Errors
    /// `EBADF`, `ENOTSOCK`, `EINVAL` for a listener, `ENOTTY` for another question.
    pub fn question(&mut self, fd: RawFd, request: u64) -> Result<i32, Errno> {
        let role = self.socket(fd)?.role.clone();
        // TIOCINQ is FIONREAD, SIOCINQ too; TIOCOUTQ is SIOCOUTQ.
        if !matches!(request, libc::FIONREAD | libc::TIOCOUTQ | SIOCOUTQNSD) {
            return Err(Errno(libc::ENOTTY));
        }
        let id = match role {
            Role::Idle => return Ok(0),
            Role::Listener(_) => return Err(Errno(libc::EINVAL)),
            Role::Stream(id) => id,
        };
        let bytes = match request {
            libc::FIONREAD => self.guest.readable(id),
            SIOCOUTQNSD => self.guest.info(id).map_or(0, |info| info.not_sent),
            _ => self.guest.unacknowledged(id),
        };
        Ok(i32::try_from(bytes).unwrap_or(i32::MAX))
    }
}

/// Linux doubles what it is given, for its own bookkeeping.
fn doubled(bytes: i32, min: u32) -> u32 {
    (bytes.clamp(0, i32::MAX / 2) as u32 * 2).max(min)
}

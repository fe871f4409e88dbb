//! Sockets as POSIX and Linux have them, over the channel.
//!
//! Nothing here waits. A call that would have to gives `None` (see [`Attempt`]) and is tried again when something has
//! happened. Where POSIX leaves a choice (which error, once or for ever, who is woken by what) it is Linux's, because
//! packetdrill's scripts were written on it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

use toe_abi::{Endpoint, flags as channel, option};
use toe_firmware::{Duration, Instant};

use crate::address::{Family, Given};
use crate::errno::{Attempt, Errno};
use crate::events::Epoll;
use crate::flags::Flags;
use crate::guest::{Connection, Guest};
use crate::options;

/// What a socket is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// Nothing yet.
    Idle,
    /// A listener: one of the card's, or two if it answers for both families.
    Listener(Vec<u64>),
    /// One end of a connection, from SYN-SENT on, also after it broke.
    Stream(u64),
}

/// A socket.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Its family.
    pub family: Family,
    /// What it is.
    pub role: Role,
    /// `O_NONBLOCK`.
    pub nonblocking: bool,
    /// Where it is bound.
    pub local: Option<SocketAddr>,
    /// How many connections of a listener may wait.
    pub backlog: u32,
    /// What was set with `setsockopt`, and holds for the connections that a listener accepts.
    pub set: Settings,
    /// An error that SO_ERROR or a call has told.
    pub error_told: bool,
    /// `connect` has said that there is a connection.
    pub connect_told: bool,
    /// `shutdown(SHUT_RD)`.
    pub read_shut: bool,
    /// `shutdown(SHUT_WR)`.
    pub write_shut: bool,
    /// What `TCP_CORK` or `MSG_MORE` holds back, less than a segment, and until when at most.
    pub held: Vec<u8>,
    /// See `held`.
    pub held_until: Option<Instant>,
}

/// Options that are the socket's and not the card's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// `SO_REUSEADDR`.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// `IPV6_V6ONLY`.
    pub v6_only: bool,
    /// `TCP_NODELAY`; the card has it too, once there is a connection.
    pub no_delay: bool,
    /// `TCP_MAXSEG`.
    pub max_segment: Option<u32>,
    /// `SO_LINGER`, in seconds.
    pub linger_s: Option<i32>,
    /// `SO_RCVBUF`, as it is read back.
    pub receive_buffer: Option<u32>,
    /// `SO_SNDBUF`, as it is read back: bounds what is not acknowledged.
    pub send_buffer: Option<u32>,
    /// `SO_RCVTIMEO`.
    pub receive_timeout: Option<Duration>,
    /// `SO_SNDTIMEO`.
    pub send_timeout: Option<Duration>,
    /// `SO_KEEPALIVE`.
    pub keep_alive: bool,
    /// `TCP_KEEPIDLE`, in seconds.
    pub keep_idle_s: Option<u32>,
    /// `TCP_KEEPINTVL`, in seconds.
    pub keep_interval_s: Option<u32>,
    /// `TCP_KEEPCNT`.
    pub keep_probes: Option<u32>,
    /// `TCP_USER_TIMEOUT`, in milliseconds.
    pub user_timeout_ms: Option<u32>,
    /// `IP_TTL` or `IPV6_UNICAST_HOPS`.
    pub hop_limit: Option<u32>,
    /// `IP_TOS` or `IPV6_TCLASS`, without ECN's bits.
    pub traffic_class: Option<u32>,
    /// `TCP_CONGESTION`; `None`: the card's.
    pub congestion: Option<Controller>,
    /// `TCP_CORK`.
    pub cork: bool,
    /// `TCP_NOTSENT_LOWAT`, in bytes; zero for no bound.
    pub not_sent_low: u32,
    /// `TCP_INQ`.
    pub tell_queued: bool,
    /// Options that are read back as they were set, and mean nothing here: see `options`.
    pub echoed: Echoed,
}

/// A congestion controller, as Linux and as the card name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Controller {
    /// `reno`.
    NewReno,
    /// `cubic`.
    Cubic,
    /// `dctcp`.
    Dctcp,
    /// `bbr`.
    Bbr,
}

impl Controller {
    /// The one of that name.
    pub fn of(name: &[u8]) -> Option<Self> {
        [Self::NewReno, Self::Cubic, Self::Dctcp, Self::Bbr].into_iter().find(|c| c.name().as_bytes() == name)
    }

    /// The one that new connections have: its name in a profile is Linux's, but for `new-reno`.
    fn of_profile(profile: &toe_firmware::Profile) -> Self {
        let name = toml::Value::try_from(profile.tcp.congestion).ok();
        let name = name.as_ref().and_then(toml::Value::as_str).unwrap_or_default();
        Self::of(name.trim_start_matches("new-").as_bytes()).unwrap_or(Self::Cubic)
    }

    /// Linux's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NewReno => "reno",
            Self::Cubic => "cubic",
            Self::Dctcp => "dctcp",
            Self::Bbr => "bbr",
        }
    }
}

/// Values of options that are only read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Echoed {
    values: [i32; options::ECHOED.len()],
}

impl Echoed {
    /// The value of one.
    pub fn get(&self, index: usize) -> i32 {
        self.values[index]
    }

    /// Sets one.
    pub fn set(&mut self, index: usize, value: i32) {
        self.values[index] = value;
    }
}

impl Settings {
    /// What the card has to be told of a new connection, as of `toe_abi::option`.
    pub fn for_card(&self) -> Vec<(u32, u64)> {
        let mut told = Vec::new();
        if let Some(controller) = self.congestion {
            let number = match controller {
                Controller::NewReno => 1,
                Controller::Cubic => 2,
                Controller::Dctcp => 3,
                Controller::Bbr => 4,
            };
            told.push((option::CONGESTION, number));
        }
        if let Some(hops) = self.hop_limit {
            told.push((option::HOP_LIMIT, hops.into()));
        }
        if let Some(class) = self.traffic_class {
            told.push((option::TRAFFIC_CLASS, class.into()));
        }
        if let Some(ms) = self.user_timeout_ms {
            told.push((option::USER_TIMEOUT_MS, ms.into()));
        }
        if let Some(seconds) = self.keep_interval_s {
            told.push((option::KEEP_ALIVE_INTERVAL_MS, u64::from(seconds) * 1000));
        }
        if let Some(probes) = self.keep_probes {
            told.push((option::KEEP_ALIVE_PROBES, probes.into()));
        }
        if self.keep_alive {
            told.push((option::KEEP_ALIVE_IDLE_MS, u64::from(self.keep_idle_s.unwrap_or(options::KEEP_IDLE_S)) * 1000));
        }
        told
    }
}

impl Socket {
    fn new(family: Family, nonblocking: bool) -> Self {
        Self {
            family,
            role: Role::Idle,
            nonblocking,
            local: None,
            backlog: 0,
            set: Settings::default(),
            error_told: false,
            connect_told: false,
            read_shut: false,
            write_shut: false,
            held: Vec::new(),
            held_until: None,
        }
    }
}

/// All sockets of one adapter, and its guest.
#[derive(Debug)]
pub struct Sockets {
    /// The channel and the clock.
    pub guest: Guest,
    /// The epoll instances.
    pub epolls: HashMap<RawFd, Epoll>,
    /// The controller of connections that do not choose one.
    pub congestion: Controller,
    sockets: HashMap<RawFd, Socket>,
    local_v4: Ipv4Addr,
    local_v6: Ipv6Addr,
    mtu: u32,
    next_port: u16,
}

/// Where ports begin that nobody chose; Linux's range.
const EPHEMERAL: u16 = 32_768;

/// The longest chain of connections that `listen` can ask for (SOMAXCONN).
const BACKLOG_MAX: i32 = 4096;

impl Sockets {
    /// None yet.
    pub fn new(guest: Guest, flags: &Flags) -> Self {
        Self {
            guest,
            epolls: HashMap::new(),
            congestion: Controller::of_profile(&flags.profile),
            sockets: HashMap::new(),
            local_v4: flags.local_v4,
            local_v6: flags.local_v6,
            mtu: flags.mtu,
            next_port: EPHEMERAL,
        }
    }

    /// Whether a descriptor is a socket or an epoll instance of ours.
    pub fn owns(&self, fd: RawFd) -> bool {
        self.sockets.contains_key(&fd) || self.epolls.contains_key(&fd)
    }

    /// The socket of that descriptor.
    pub fn get(&self, fd: RawFd) -> Option<&Socket> {
        self.sockets.get(&fd)
    }

    /// The socket of that descriptor.
    ///
    /// # Errors
    /// `EBADF`, or `ENOTSOCK` for an epoll instance.
    pub fn socket(&self, fd: RawFd) -> Result<&Socket, Errno> {
        self.sockets.get(&fd).ok_or_else(|| self.no_socket(fd))
    }

    /// The same, to be changed.
    ///
    /// # Errors
    /// As [`Sockets::socket`].
    pub fn socket_mut(&mut self, fd: RawFd) -> Result<&mut Socket, Errno> {
        let missing = self.no_socket(fd);
        self.sockets.get_mut(&fd).ok_or(missing)
    }

    fn no_socket(&self, fd: RawFd) -> Errno {
        Errno(if self.epolls.contains_key(&fd) { libc::ENOTSOCK } else { libc::EBADF })
    }

    /// A stream's id and connection.
    pub fn stream(&self, fd: RawFd) -> Result<Option<(u64, &Connection)>, Errno> {
        match self.socket(fd)?.role {
            Role::Stream(id) => Ok(self.guest.connection(id).map(|c| (id, c))),
            _ => Ok(None),
        }
    }

    /// `socket`, on a descriptor that the caller has made.
    pub fn open(&mut self, fd: RawFd, family: Family, nonblocking: bool) {
        self.insert(fd, Socket::new(family, nonblocking));
    }

    fn insert(&mut self, fd: RawFd, socket: Socket) {
        // A descriptor that the kernel gives anew was closed behind our back.
        self.close(fd);
        self.sockets.insert(fd, socket);
    }

    /// `bind`.
    ///
    /// # Errors
    /// `EINVAL` if it is bound or an address is missing, `EADDRINUSE`.
    pub fn bind(&mut self, fd: RawFd, given: Given) -> Result<(), Errno> {
        let socket = self.socket(fd)?;
        let Given::Socket(mut address) = given else { return Err(Errno(libc::EAFNOSUPPORT)) };
        if socket.local.is_some() || socket.role != Role::Idle {
            return Err(Errno(libc::EINVAL));
        }
        if address.ip().is_multicast() {
            return Err(Errno(libc::EADDRNOTAVAIL));
        }
        if address.port() == 0 {
            address.set_port(self.free_port());
        } else if self.is_taken(fd, address) {
            return Err(Errno(libc::EADDRINUSE));
        }
        self.socket_mut(fd)?.local = Some(address);
        Ok(())
    }

    /// Whether another socket keeps `fd` from being bound to `address`.
    fn is_taken(&self, fd: RawFd, address: SocketAddr) -> bool {
        let Some(asking) = self.sockets.get(&fd) else { return false };
        let set = asking.set;
        self.sockets.iter().any(|(other, socket)| {
            let Some(local) = socket.local.filter(|_| *other != fd) else { return false };
            let overlap = local.ip() == address.ip() || local.ip().is_unspecified() || address.ip().is_unspecified();
            let shared = set.reuse_address && socket.set.reuse_address && !matches!(socket.role, Role::Listener(_))
                || set.reuse_port && socket.set.reuse_port;
            local.port() == address.port() && overlap && !shared
        })
    }

    fn free_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(EPHEMERAL);
            if self.sockets.values().all(|s| s.local.is_none_or(|local| local.port() != port)) {
                return port;
            }
        }
    }

    /// `listen`.
    ///
    /// # Errors
    /// `EINVAL` on a connected socket, or why the card refuses.
    pub fn listen(&mut self, fd: RawFd, backlog: i32) -> Result<(), Errno> {
        let socket = self.socket(fd)?;
        match socket.role {
            Role::Idle => {}
            // Another backlog is all that could change, and the card's cannot.
            Role::Listener(_) => return Ok(()),
            Role::Stream(_) => return Err(Errno(libc::EINVAL)),
        }
        let family = socket.family;
        let local = match socket.local {
            Some(local) => local,
            None => SocketAddr::new(any(family), self.free_port()),
        };
        // Linux lets one connection more wait than it was told to.
        let backlog = backlog.clamp(0, BACKLOG_MAX) as u32 + 1;
        self.socket_mut(fd)?.backlog = backlog;
        self.listen_at(fd, local, backlog)
    }

    /// Closes the card's listeners and opens them again with what is set now; connections that wait are lost.
    ///
    /// # Errors
    /// Why the card refuses.
    pub fn listen_anew(&mut self, fd: RawFd) -> Result<(), Errno> {
        let socket = self.socket(fd)?;
        let (Some(local), backlog) = (socket.local, socket.backlog) else { return Err(Errno(libc::EINVAL)) };
        let role = std::mem::replace(&mut self.socket_mut(fd)?.role, Role::Idle);
        self.give_up(role, false);
        self.listen_at(fd, local, backlog)
    }

    fn listen_at(&mut self, fd: RawFd, local: SocketAddr, backlog: u32) -> Result<(), Errno> {
        let socket = self.socket(fd)?;
        let (v6_only, set) = (socket.set.v6_only, socket.set);
        let mut ends = vec![local];
        if local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !v6_only {
            ends.push(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), local.port()));
        }
        let mut listeners = Vec::new();
        for end in ends {
            let mtu = self.mtu_for(end.ip(), &set);
            match self.guest.listen(Endpoint::from(end), backlog, mtu, channel_flags(&set)) {
                Ok(listener) => listeners.push(listener),
                Err(e) => {
                    listeners.into_iter().for_each(|listener| self.guest.unlisten(listener));
                    return Err(e);
                }
            }
        }
        let socket = self.socket_mut(fd)?;
        socket.local = Some(local);
        socket.role = Role::Listener(listeners);
        Ok(())
    }

    /// The MTU that makes the card announce the segment size that the socket asked for.
    pub(crate) fn mtu_for(&self, local: IpAddr, set: &Settings) -> u32 {
        let headers = if local.is_ipv4() { 40 } else { 60 };
        set.max_segment.map_or(self.mtu, |mss| (mss + headers).min(self.mtu))
    }

    /// `accept`, onto a descriptor that `make` makes; it, and the peer's address.
    ///
    /// # Errors
    /// `EINVAL` if the socket does not listen, or what `make` fails with.
    pub fn accept(
        &mut self,
        fd: RawFd,
        make: impl FnOnce() -> Result<RawFd, Errno>,
    ) -> Attempt<(RawFd, SocketAddr, Family)> {
        let listener = self.socket(fd)?;
        let Role::Listener(ids) = listener.role.clone() else { return Err(Errno(libc::EINVAL)) };
        let (family, set) = (listener.family, listener.set);
        if ids.iter().all(|id| self.guest.waiting(*id).1 == 0) {
            return Ok(None);
        }
        let child = make()?;
        let Some(id) = ids.iter().find_map(|id| self.guest.accept(*id)) else { return Ok(None) };
        let Some(connection) = self.guest.connection(id) else { return Err(Errno(libc::ECONNABORTED)) };
        let (local, remote) = (SocketAddr::from(connection.local), SocketAddr::from(connection.remote));
        for (option, value) in set.for_card() {
            self.guest.set_option(id, option, value)?;
        }
        let socket = Socket {
            role: Role::Stream(id),
            local: Some(local),
            set,
            connect_told: true,
            ..Socket::new(family, false)
        };
        self.insert(child, socket);
        Ok(Some((child, remote, family)))
    }

    /// The first half of `connect`: whether there is something to wait for.
    ///
    /// # Errors
    /// `EISCONN`, `EALREADY` if the socket is non-blocking, what is wrong with the address, or why the card refuses.
    pub fn connect(&mut self, fd: RawFd, given: Given) -> Result<(), Errno> {
        let socket = self.socket(fd)?.clone();
        let Given::Socket(remote) = given else { return self.disconnect(fd) };
        match socket.role {
            Role::Listener(_) => return Err(Errno(libc::EISCONN)),
            Role::Stream(id) => match self.guest.connection(id) {
                Some(c) if c.is_aborted() && !socket.error_told => return Ok(()),
                // The attempt failed, and the program knows: it may try again.
                Some(c) if c.is_aborted() && !socket.connect_told => self.disconnect(fd)?,
                Some(c) if c.is_established() && !socket.connect_told => return Ok(()),
                Some(c) if !c.is_established() && !c.is_aborted() => {
                    return if socket.nonblocking { Err(Errno(libc::EALREADY)) } else { Ok(()) };
                }
                _ => return Err(Errno(libc::EISCONN)),
            },
            Role::Idle => {}
        }
        if remote.port() == 0 || remote.ip().is_multicast() || remote.ip().is_unspecified() {
            return Err(Errno(libc::ECONNREFUSED));
        }
        let local = match self.socket(fd)?.local {
            Some(local) if local.ip().is_unspecified() => SocketAddr::new(self.own(remote.ip()), local.port()),
            Some(local) if local.is_ipv4() != remote.is_ipv4() => return Err(Errno(libc::ENETUNREACH)),
            Some(local) => local,
            None => SocketAddr::new(self.own(remote.ip()), self.free_port()),
        };
        let mtu = self.mtu_for(local.ip(), &socket.set);
        let set = socket.set;
        let id = self.guest.connect(local.into(), remote.into(), mtu, channel_flags(&set), &set.for_card())?;
        let socket = self.socket_mut(fd)?;
        socket.local = Some(local);
        socket.role = Role::Stream(id);
        Ok(())
    }

    /// The second half of `connect`.
    ///
    /// # Errors
    /// Why the attempt failed.
    pub fn connected(&mut self, fd: RawFd) -> Attempt<()> {
        let Some((_, c)) = self.stream(fd)? else { return Ok(Some(())) };
        if c.is_aborted() {
            let error = self.take_error(fd)?;
            return Err(Errno(if error == 0 { libc::ECONNABORTED } else { error }));
        }
        if !c.is_established() {
            return Ok(None);
        }
        self.socket_mut(fd)?.connect_told = true;
        Ok(Some(()))
    }

    /// `connect` to no address: the socket is as new, but for its options.
    fn disconnect(&mut self, fd: RawFd) -> Result<(), Errno> {
        let role = std::mem::replace(&mut self.socket_mut(fd)?.role, Role::Idle);
        self.give_up(role, true);
        let socket = self.socket_mut(fd)?;
        *socket = Socket { set: socket.set, local: socket.local, ..Socket::new(socket.family, socket.nonblocking) };
        Ok(())
    }

    fn give_up(&mut self, role: Role, abort: bool) {
        match role {
            Role::Idle => {}
            Role::Listener(ids) => ids.into_iter().for_each(|id| self.guest.unlisten(id)),
            Role::Stream(id) => {
                if abort {
                    self.guest.abort(id);
                }
                self.guest.release(id);
            }
        }
    }

    fn own(&self, peer: IpAddr) -> IpAddr {
        match peer {
            IpAddr::V4(_) => self.local_v4.into(),
            IpAddr::V6(_) => self.local_v6.into(),
        }
    }

    /// `close`, but for the descriptor; whether it was ours.
    pub fn close(&mut self, fd: RawFd) -> bool {
        for epoll in self.epolls.values_mut() {
            epoll.forget(fd);
        }
        if self.epolls.remove(&fd).is_some() {
            return true;
        }
        self.release_held(fd);
        let Some(socket) = self.sockets.remove(&fd) else { return false };
        self.give_up(socket.role, socket.set.linger_s == Some(0));
        true
    }

    /// `shutdown`.
    ///
    /// # Errors
    /// `ENOTCONN`, `EINVAL` for an unknown `how`.
    pub fn shutdown(&mut self, fd: RawFd, how: i32) -> Result<(), Errno> {
        let (read, write) = match how {
            libc::SHUT_RD => (true, false),
            libc::SHUT_WR => (false, true),
            libc::SHUT_RDWR => (true, true),
            _ => return Err(Errno(libc::EINVAL)),
        };
        let id = match self.socket(fd)?.role.clone() {
            Role::Idle => return Err(Errno(libc::ENOTCONN)),
            Role::Listener(_) => {
                // Linux: a listener that reads no more is none.
                if read {
                    let role = std::mem::replace(&mut self.socket_mut(fd)?.role, Role::Idle);
                    self.give_up(role, false);
                }
                return Ok(());
            }
            Role::Stream(id) => id,
        };
        if self.guest.connection(id).is_none_or(Connection::is_aborted) {
            return Err(Errno(libc::ENOTCONN));
        }
        if write {
            self.release_held(fd);
        }
        let socket = self.socket_mut(fd)?;
        socket.read_shut |= read;
        if write && !socket.write_shut {
            socket.write_shut = true;
            self.guest.shutdown(id);
        }
        Ok(())
    }

    /// The error that nobody was told; then it is told. Zero if there is none.
    pub fn take_error(&mut self, fd: RawFd) -> Result<i32, Errno> {
        let error = self.error(fd)?;
        if error != 0 {
            self.socket_mut(fd)?.error_told = true;
        }
        Ok(error)
    }

    /// The error that nobody was told, or zero.
    pub fn error(&self, fd: RawFd) -> Result<i32, Errno> {
        let told = self.socket(fd)?.error_told;
        Ok(self.stream(fd)?.filter(|_| !told).map_or(0, |(_, c)| c.ending()))
    }

    /// Reads up to `max` bytes; none is the end of the stream.
    ///
    /// # Errors
    /// `ENOTCONN`, or the connection's error, once.
    pub fn receive(&mut self, fd: RawFd, max: usize, peek: bool) -> Attempt<Vec<u8>> {
        let Some((id, _)) = self.stream(fd)? else { return Err(Errno(libc::ENOTCONN)) };
        if max == 0 {
            return Ok(Some(Vec::new()));
        }
        if self.guest.readable(id) > 0 {
            return Ok(Some(self.guest.receive(id, max, peek)));
        }
        match self.take_error(fd)? {
            0 => {}
            error => return Err(Errno(error)),
        }
        let read_shut = self.socket(fd)?.read_shut;
        let ended = self.guest.connection(id).is_none_or(|c| c.is_aborted() || c.is_at_end());
        Ok((read_shut || ended).then(Vec::new))
    }

    /// Sends as much of `data` as there is room for; how much that was.
    ///
    /// # Errors
    /// The connection's error, once; `EPIPE` when nothing can be sent any more.
    ///
    /// With `more`, or corked, what does not fill a segment is held back until more comes, at most for a retransmission
    /// timeout, as Linux has it.
    pub fn send(&mut self, fd: RawFd, data: &[u8], more: bool) -> Attempt<usize> {
        if self.stream(fd)?.is_none() {
            return Err(Errno(libc::EPIPE));
        }
        match self.take_error(fd)? {
            0 => {}
            error => return Err(Errno(error)),
        }
        let socket = self.socket(fd)?;
        let (write_shut, queue_max) = (socket.write_shut, queue_max(&socket.set));
        let Some((id, c)) = self.stream(fd)? else { return Err(Errno(libc::EPIPE)) };
        if write_shut || c.is_aborted() {
            return Err(Errno(libc::EPIPE));
        }
        if !c.is_established() {
            return Ok(None);
        }
        if data.is_empty() {
            return Ok(Some(0));
        }
        let cork = self.socket(fd)?.set.cork || more;
        let held = self.socket(fd)?.held.len();
        if !cork && held == 0 {
            let sent = self.guest.send(id, data, queue_max);
            return Ok((sent > 0).then_some(sent));
        }
        let mut all = std::mem::take(&mut self.socket_mut(fd)?.held);
        all.extend_from_slice(data);
        let info = self.guest.info(id);
        let segment = info.as_ref().map_or(1, |info| info.send_mss.max(1)) as usize;
        let held_max = Duration::from_us(info.map_or(0, |info| info.rto_us.into()));
        let ripe = if cork { all.len() - all.len() % segment } else { all.len() };
        let sent = self.guest.send(id, &all[..ripe], queue_max);
        let rest = all.split_off(sent);
        if sent < ripe {
            // No room: what was held stays so, and of the new nothing is taken that did not go.
            let taken = sent.saturating_sub(held);
            self.socket_mut(fd)?.held = rest[..held.saturating_sub(sent)].to_vec();
            return Ok((taken > 0).then_some(taken));
        }
        let until = (!rest.is_empty()).then(|| self.guest.now() + held_max);
        let socket = self.socket_mut(fd)?;
        socket.held_until = if held > 0 && sent == 0 { socket.held_until.or(until) } else { until };
        socket.held = rest;
        Ok(Some(data.len()))
    }

    /// Sends what was held back.
    pub fn release_held(&mut self, fd: RawFd) {
        let Some(socket) = self.sockets.get_mut(&fd) else { return };
        socket.held_until = None;
        let held = std::mem::take(&mut socket.held);
        if let (false, Role::Stream(id)) = (held.is_empty(), socket.role.clone()) {
            self.guest.send(id, &held, u64::MAX);
        }
    }

    /// When something that is held back is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.sockets.values().filter_map(|socket| socket.held_until).min()
    }

    /// Sends what has been held back for long enough; whether there was something.
    pub fn release_due(&mut self) -> bool {
        let now = self.guest.now();
        let due: Vec<RawFd> =
            self.sockets.iter().filter(|(_, s)| s.held_until.is_some_and(|at| at <= now)).map(|(fd, _)| *fd).collect();
        due.iter().for_each(|fd| self.release_held(*fd));
        !due.is_empty()
    }

    /// How many bytes could be sent now.
    pub fn send_room(&mut self, fd: RawFd) -> u64 {
        let Some(queue_max) = self.get(fd).map(|socket| queue_max(&socket.set)) else { return 0 };
        match self.stream(fd) {
            Ok(Some((id, _))) => self.guest.send_room(id, queue_max),
            _ => 0,
        }
    }
}

fn queue_max(set: &Settings) -> u64 {
    set.send_buffer.map_or(u64::MAX, u64::from)
}

fn channel_flags(set: &Settings) -> u32 {
    if set.no_delay { channel::NODELAY } else { 0 }
}

fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

//! What a program may set on its connection. Each works on the card and in the kernel, and means the same in both.

use std::io::{self, ErrorKind};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use toe_abi::{Reason, option};

use super::{Carrier, TcpStream};

/// What the network said about the way to the peer, and what the card believes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathState {
    /// How many ICMP errors about this connection were believed. None of them ended it.
    pub errors: u32,
    /// The last of them.
    pub last_error: Option<Reason>,
    /// How many retransmission timeouts there were when the peer was silent for long (RFC 9293, 3.8.3: from R1 on).
    pub silent_timeouts: u32,
    /// The largest packet, in bytes, IP header included; zero while the card has not said it.
    pub mtu: u32,
}

/// The controller that Linux calls otherwise.
const RENO: (&str, &str) = ("new-reno", "reno");

impl TcpStream {
    /// Keep-alives after this much silence; `None`, as at first: none.
    ///
    /// # Errors
    /// As [`TcpStream::set_nodelay`], and `InvalidInput` for less than a millisecond or more than a day.
    pub fn set_keepalive(&self, idle: Option<Duration>) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(_) => self.set_option(option::KEEP_ALIVE_IDLE_MS, optional_ms(idle)?),
            Carrier::Kernel(s, _) => {
                let s = SockRef::from(s);
                match idle {
                    Some(idle) => s.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle)),
                    None => s.set_keepalive(false),
                }
            }
        }
    }

    /// After how much silence there are keep-alives.
    ///
    /// # Errors
    /// As [`TcpStream::nodelay`].
    pub fn keepalive(&self) -> io::Result<Option<Duration>> {
        match &self.carrier {
            Carrier::Card(_) => self.option(option::KEEP_ALIVE_IDLE_MS).map(duration_of),
            Carrier::Kernel(s, _) => {
                let s = SockRef::from(s);
                if s.keepalive()? { s.tcp_keepalive_time().map(Some) } else { Ok(None) }
            }
        }
    }

    /// The time from one keep-alive to the next while none is answered.
    ///
    /// # Errors
    /// As [`TcpStream::set_keepalive`].
    pub fn set_keepalive_interval(&self, interval: Duration) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(_) => self.set_option(option::KEEP_ALIVE_INTERVAL_MS, ms(interval)?),
            Carrier::Kernel(s, _) => {
                // Setting it must not switch them on.
                let s = SockRef::from(s);
                let on = s.keepalive()?;
                s.set_tcp_keepalive(&TcpKeepalive::new().with_interval(interval))?;
                s.set_keepalive(on)
            }
        }
    }

    /// How many keep-alives go unanswered before the connection is given up; two at least on the card.
    ///
    /// # Errors
    /// As [`TcpStream::set_keepalive`].
    pub fn set_keepalive_retries(&self, retries: u32) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(_) => self.set_option(option::KEEP_ALIVE_PROBES, retries.into()),
            Carrier::Kernel(s, _) => {
                let s = SockRef::from(s);
                let on = s.keepalive()?;
                s.set_tcp_keepalive(&TcpKeepalive::new().with_retries(retries))?;
                s.set_keepalive(on)
            }
        }
    }

    /// How long data may go unacknowledged before the connection is given up; `None`: the default of whoever carries it.
    ///
    /// # Errors
    /// As [`TcpStream::set_keepalive`].
    pub fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(_) => self.set_option(option::USER_TIMEOUT_MS, optional_ms(timeout)?),
            Carrier::Kernel(s, _) => SockRef::from(s).set_tcp_user_timeout(timeout),
        }
    }

    /// How long data may go unacknowledged; `None`: the default of whoever carries it.
    ///
    /// # Errors
    /// As [`TcpStream::nodelay`].
    pub fn user_timeout(&self) -> io::Result<Option<Duration>> {
        match &self.carrier {
            Carrier::Card(_) => self.option(option::USER_TIMEOUT_MS).map(duration_of),
            Carrier::Kernel(s, _) => SockRef::from(s).tcp_user_timeout(),
        }
    }

    /// The time to live (IPv4) or hop limit (IPv6) of what is sent, 1 to 255.
    ///
    /// # Errors
    /// As [`TcpStream::set_nodelay`], and `InvalidInput` out of that range.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(_) => self.set_option(option::HOP_LIMIT, ttl.into()),
            Carrier::Kernel(s, _) if s.local_addr()?.is_ipv4() => s.set_ttl(ttl),
            Carrier::Kernel(s, _) => SockRef::from(s).set_unicast_hops_v6(ttl),
        }
    }

    /// The time to live or hop limit of what is sent.
    ///
    /// # Errors
    /// As [`TcpStream::nodelay`].
    pub fn ttl(&self) -> io::Result<u32> {
        match &self.carrier {
            Carrier::Card(_) => self.option(option::HOP_LIMIT).map(|v| u32::try_from(v).unwrap_or(u32::MAX)),
            Carrier::Kernel(s, _) if s.local_addr()?.is_ipv4() => s.ttl(),
            Carrier::Kernel(s, _) => SockRef::from(s).unicast_hops_v6(),
        }
    }

    /// The type of service (IPv4) or traffic class (IPv6) of what is sent; its two lowest bits, those of ECN, are zero.
    /// It may change at any time.
    ///
    /// # Errors
    /// As [`TcpStream::set_nodelay`], and `InvalidInput` if a bit of ECN is set.
    pub fn set_traffic_class(&self, class: u8) -> io::Result<()> {
        if class & 3 != 0 {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the bits of ECN belong to TCP"));
        }
        match &self.carrier {
            Carrier::Card(_) => self.set_option(option::TRAFFIC_CLASS, class.into()),
            Carrier::Kernel(s, _) if s.local_addr()?.is_ipv4() => SockRef::from(s).set_tos_v4(class.into()),
            Carrier::Kernel(s, _) => SockRef::from(s).set_tclass_v6(class.into()),
        }
    }

    /// The type of service or traffic class of what is sent.
    ///
    /// # Errors
    /// As [`TcpStream::nodelay`].
    pub fn traffic_class(&self) -> io::Result<u8> {
        let class = match &self.carrier {
            Carrier::Card(_) => self.option(option::TRAFFIC_CLASS)?,
            Carrier::Kernel(s, _) if s.local_addr()?.is_ipv4() => SockRef::from(s).tos_v4()?.into(),
            Carrier::Kernel(s, _) => SockRef::from(s).tclass_v6()?.into(),
        };
        Ok(class as u8 & !3)
    }

    /// The congestion controller by name: `cubic`, `new-reno`, or what else there is. An unknown one is refused, never
    /// replaced by another.
    ///
    /// # Errors
    /// As [`TcpStream::set_nodelay`]; `NotFound` or `InvalidInput` for a name that is not known.
    pub fn set_congestion(&self, name: &str) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(_) => {
                let known = option::CONTROLLERS.iter().find(|(_, n)| *n == name);
                let unknown = || io::Error::new(ErrorKind::NotFound, format!("no congestion controller `{name}`"));
                self.set_option(option::CONGESTION, known.ok_or_else(unknown)?.0)
            }
            Carrier::Kernel(s, _) => {
                let name = if name == RENO.0 { RENO.1 } else { name };
                SockRef::from(s).set_tcp_congestion(name.as_bytes())
            }
        }
    }

    /// The congestion controller's name.
    ///
    /// # Errors
    /// As [`TcpStream::nodelay`].
    pub fn congestion(&self) -> io::Result<String> {
        match &self.carrier {
            Carrier::Card(_) => {
                let value = self.option(option::CONGESTION)?;
                let known = option::CONTROLLERS.iter().find(|(v, _)| *v == value);
                Ok(known.map_or_else(|| format!("controller-{value}"), |(_, name)| (*name).to_owned()))
            }
            Carrier::Kernel(s, _) => {
                let name = SockRef::from(s).tcp_congestion()?;
                let name = name.split(|b| *b == 0).next().unwrap_or_default();
                let name = String::from_utf8_lossy(name).into_owned();
                Ok(if name == RENO.1 { RENO.0.to_owned() } else { name })
            }
        }
    }

    /// What the network said about the way to the peer.
    ///
    /// # Errors
    /// `Unsupported` for a connection of the kernel.
    pub fn path_state(&self) -> io::Result<PathState> {
        let Carrier::Card(c) = &self.carrier else {
            return Err(io::Error::new(ErrorKind::Unsupported, "a connection of the kernel"));
        };
        let notice = c.context.act(|core| core.engine.connection(c.key).and_then(|c| c.last_notice().copied()));
        Ok(notice.map_or_else(PathState::default, |n| PathState {
            errors: n.network_errors,
            last_error: (n.network_errors > 0).then(|| Reason::from_u32(n.network_error)).flatten(),
            silent_timeouts: n.path_advice,
            mtu: n.path_mtu,
        }))
    }

    fn set_option(&self, option: u32, value: u64) -> io::Result<()> {
        match &self.carrier {
            Carrier::Card(c) => c.context.option(c.key, option, Some(value)).map(drop),
            Carrier::Kernel(..) => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn option(&self, option: u32) -> io::Result<u64> {
        match &self.carrier {
            Carrier::Card(c) => c.context.option(c.key, option, None),
            Carrier::Kernel(..) => Err(ErrorKind::Unsupported.into()),
        }
    }
}

fn ms(duration: Duration) -> io::Result<u64> {
    match u64::try_from(duration.as_millis()) {
        Ok(0) | Err(_) => Err(io::Error::new(ErrorKind::InvalidInput, "a time between a millisecond and a day")),
        Ok(ms) => Ok(ms),
    }
}

fn optional_ms(duration: Option<Duration>) -> io::Result<u64> {
    duration.map_or(Ok(0), ms)
}

fn duration_of(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

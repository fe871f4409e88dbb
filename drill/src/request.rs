//! A system call of a script: its arguments in C's terms, and whether what it gave is what was expected.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use libc::c_int;

use crate::flow::octet;
use crate::language::{Call, Expected, Expression, Family, Outcome};
use crate::sockets::{Event, Sockets};
use crate::stage::{local, remote};
use crate::symbols;

/// The port of a listener, and of a peer that is connected to, if a script leaves them open.
pub const PORT: u16 = 8080;
/// The most bytes that one call may carry.
const BYTES_MAX: i64 = 1 << 28;

/// A descriptor of the script's.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// The stage's.
    pub live: c_int,
    /// Bytes written.
    pub written: u64,
    /// Bytes read.
    pub read: u64,
}

/// The program that a script plays: its descriptors by the script's numbers.
#[derive(Clone, Debug)]
pub struct Program {
    /// The family that `...` stands for.
    pub family: Family,
    /// Its descriptors.
    pub descriptors: BTreeMap<i64, Descriptor>,
    /// Whether what is read can be told from what was sent: not where an urgent byte may be taken out of line.
    pub plain_text: bool,
}

/// A call, ready to be made on any thread.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // The arguments of the system call of the same name.
pub enum Request {
    Socket { domain: c_int, kind: c_int, protocol: c_int },
    Bind { fd: c_int, address: SocketAddr },
    Listen { fd: c_int, backlog: c_int },
    Accept { fd: c_int, flags: c_int },
    Connect { fd: c_int, address: SocketAddr },
    Receive { fd: c_int, max: usize, flags: Option<c_int> },
    Send { fd: c_int, data: Vec<u8>, flags: Option<c_int> },
    Close { fd: c_int },
    Shutdown { fd: c_int, how: c_int },
    Fcntl { fd: c_int, command: c_int, argument: c_int },
    Ioctl { fd: c_int, request: libc::c_ulong, value: c_int },
    SetOption { fd: c_int, level: c_int, name: c_int, value: Vec<u8> },
    GetOption { fd: c_int, level: c_int, name: c_int, room: usize },
    Poll { fds: Vec<(c_int, i16)>, timeout_ms: c_int },
    EpollCreate { size: c_int },
    EpollControl { epfd: c_int, op: c_int, fd: c_int, event: Event },
    EpollWait { epfd: c_int, max: c_int, timeout_ms: c_int },
}

/// What a call gives beside its result.
#[derive(Clone, PartialEq, Debug)]
pub enum Output {
    /// Nothing.
    None,
    /// Data, or an option's value.
    Bytes(Vec<u8>),
    /// An int.
    Int(c_int),
    /// An address.
    Address(Option<SocketAddr>),
    /// What `poll` found on each descriptor.
    Ready(Vec<i16>),
    /// What `epoll_wait` found.
    Events(Vec<Event>),
}

/// A call's result and output.
pub type Reply = (Outcome, Output);

impl Request {
    /// Makes the call.
    pub fn perform(self, sockets: &Sockets) -> Reply {
        let plain = |outcome| (outcome, Output::None);
        match self {
            Self::Socket { domain, kind, protocol } => plain(sockets.socket(domain, kind, protocol)),
            Self::Bind { fd, address } => plain(sockets.bind(fd, address)),
            Self::Listen { fd, backlog } => plain(sockets.listen(fd, backlog)),
            Self::Accept { fd, flags } => {
                let (outcome, address) = sockets.accept(fd);
                if let (Ok(child), true) = (outcome, flags & libc::SOCK_NONBLOCK != 0) {
                    // `accept4` is not in the table: the flag is set right after.
                    let _ = sockets.fcntl(child as c_int, libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK);
                }
                (outcome, Output::Address(address))
            }
            Self::Connect { fd, address } => plain(sockets.connect(fd, address)),
            Self::Receive { fd, max, flags } => {
                let (outcome, data) = sockets.receive(fd, max, flags);
                (outcome, Output::Bytes(data))
            }
            Self::Send { fd, data, flags } => plain(sockets.send(fd, &data, flags)),
            Self::Close { fd } => plain(sockets.close(fd)),
            Self::Shutdown { fd, how } => plain(sockets.shutdown(fd, how)),
            Self::Fcntl { fd, command, argument } => plain(sockets.fcntl(fd, command, argument)),
            Self::Ioctl { fd, request, value } => {
                let (outcome, value) = sockets.ioctl(fd, request, value);
                (outcome, Output::Int(value))
            }
            Self::SetOption { fd, level, name, value } => plain(sockets.set_option(fd, level, name, &value)),
            Self::GetOption { fd, level, name, room } => {
                let (outcome, value) = sockets.get_option(fd, level, name, room);
                (outcome, Output::Bytes(value))
            }
            Self::Poll { fds, timeout_ms } => {
                let mut entries: Vec<libc::pollfd> =
                    fds.iter().map(|(fd, events)| libc::pollfd { fd: *fd, events: *events, revents: 0 }).collect();
                let outcome = sockets.poll(&mut entries, timeout_ms);
                (outcome, Output::Ready(entries.iter().map(|entry| entry.revents).collect()))
            }
            Self::EpollCreate { size } => plain(sockets.epoll_create(size)),
            Self::EpollControl { epfd, op, fd, event } => plain(sockets.epoll_control(epfd, op, fd, event)),
            Self::EpollWait { epfd, max, timeout_ms } => {
                let (outcome, events) = sockets.epoll_wait(epfd, max, timeout_ms);
                (outcome, Output::Events(events))
            }
        }
    }
}

type Said<T> = Result<T, String>;

/// A number in an expression.
fn number(e: &Expression) -> Said<i64> {
    match e {
        Expression::Number(n) => Ok(*n),
        Expression::Name(name) => symbols::number(name).ok_or_else(|| format!("there is no number named {name} here")),
        Expression::Or(all) => all.iter().try_fold(0, |bits, e| Ok(bits | number(e)?)),
        Expression::List(list) if list.len() == 1 => number(&list[0]),
        Expression::Function(name, arguments) if name == "htons" && arguments.len() == 1 => number(&arguments[0]),
        other => Err(format!("a number is needed, not {other:?}")),
    }
}

fn int(e: &Expression) -> Said<c_int> {
    let n = number(e)?;
    c_int::try_from(n).or_else(|_| u32::try_from(n).map(|n| n as c_int)).map_err(|_| format!("{n} is no int"))
}

fn named<'a>(fields: &'a [(Option<String>, Expression)], names: &[&str]) -> Option<&'a Expression> {
    fields.iter().find(|(name, _)| name.as_deref().is_some_and(|n| names.contains(&n))).map(|(_, value)| value)
}

/// All the text that a call carries, in bytes, from `{..., 1000}` records in a list.
fn parts(e: &Expression) -> Said<i64> {
    let Expression::List(list) = e else { return Err("a list of `{..., bytes}` is needed".to_owned()) };
    let part = |e: &Expression| match e {
        Expression::Record(fields) if fields.len() == 2 => number(&fields[1].1),
        _ => Err("`{..., bytes}` is needed".to_owned()),
    };
    list.iter().try_fold(0, |sum, e| Ok(sum + part(e)?))
}

fn message(e: &Expression) -> Said<i64> {
    let Expression::Record(fields) = e else { return Err("a message (`{msg_iov(…)=…}`) is needed".to_owned()) };
    parts(named(fields, &["msg_iov"]).ok_or("a message needs msg_iov")?)
}

/// The value of an option as the bytes that C would have for it.
fn option_value(e: &Expression) -> Said<Vec<u8>> {
    match e {
        Expression::Text(text) => Ok(text.as_bytes().to_vec()),
        Expression::List(list) if list.len() == 1 && matches!(list[0], Expression::Text(_)) => option_value(&list[0]),
        Expression::Record(fields) => {
            let pair = |names: [&str; 2]| Some((named(fields, &names[..1])?, named(fields, &names[1..])?));
            if let Some((on, seconds)) = pair(["onoff", "linger"]).or_else(|| pair(["l_onoff", "l_linger"])) {
                return Ok([int(on)?.to_ne_bytes(), int(seconds)?.to_ne_bytes()].concat());
            }
            let (s, us) = pair(["tv_sec", "tv_usec"]).ok_or("an option's value is needed")?;
            Ok([number(s)?.to_ne_bytes(), number(us)?.to_ne_bytes()].concat())
        }
        other => Ok(int(other)?.to_ne_bytes().to_vec()),
    }
}

impl Program {
    /// A program that has opened nothing.
    pub fn new(family: Family) -> Self {
        Self { family, descriptors: BTreeMap::new(), plain_text: true }
    }

    fn live(&self, e: &Expression) -> Said<c_int> {
        let n = number(e)?;
        // A number that the script never had is handed on, for the sake of EBADF.
        Ok(self.descriptors.get(&n).map_or_else(|| if n < 0 { n as c_int } else { c_int::MAX }, |d| d.live))
    }

    fn address(&self, e: &Expression, open: SocketAddr) -> Said<SocketAddr> {
        let Expression::Record(fields) = e else {
            return if *e == Expression::Ellipsis { Ok(open) } else { Err("an address or `...` is needed".to_owned()) };
        };
        let port = named(fields, &["sin_port", "sin6_port"]).map_or(Ok(open.port().into()), number)?;
        let ip = match named(fields, &["sin_addr", "sin6_addr"]) {
            Some(Expression::Function(_, arguments)) => match arguments.last() {
                Some(Expression::Text(ip)) => ip.parse::<IpAddr>().map_err(|_| format!("{ip} is no address"))?,
                Some(Expression::Name(name)) if name == "INADDR_ANY" => IpAddr::from([0, 0, 0, 0]),
                _ => return Err("an address in quotes is needed".to_owned()),
            },
            _ => open.ip(),
        };
        // A script of one family's addresses is played in the other with the stage's own.
        let ip = match (ip, self.family) {
            (IpAddr::V4(_), Family::V6) | (IpAddr::V6(_), Family::V4) => open.ip(),
            _ => ip,
        };
        let port = u16::try_from(port).map_err(|_| format!("{port} is no port"))?;
        Ok(SocketAddr::new(ip, port))
    }

    /// The call in C's terms.
    ///
    /// # Errors
    /// What is wrong with the arguments, or that there is no such call.
    pub fn request(&self, call: &Call) -> Said<Request> {
        let a = &call.arguments;
        let argument = |i: usize| a.get(i).ok_or_else(|| format!("{} needs an argument number {}", call.name, i + 1));
        let fd = || self.live(argument(0)?);
        let bytes = |e: &Expression| {
            let n = number(e)?;
            if (0..=BYTES_MAX).contains(&n) { Ok(n as usize) } else { Err(format!("{n} bytes are too many")) }
        };
        let data = |n: i64| {
            let written = a.first().and_then(|e| number(e).ok()).and_then(|n| self.descriptors.get(&n));
            let position = written.map_or(0, |d| d.written);
            if !(0..=BYTES_MAX).contains(&n) {
                return Err(format!("{n} bytes are too many"));
            }
            Ok((0..n as u64).map(|i| octet(position + i)).collect::<Vec<u8>>())
        };
        let flags = |i: usize| argument(i).and_then(int).map(Some);
        Ok(match call.name.as_str() {
            "socket" => {
                let family = match self.family {
                    Family::V4 => libc::AF_INET,
                    Family::V6 => libc::AF_INET6,
                };
                let domain = match argument(0)? {
                    Expression::Ellipsis => family,
                    // As with addresses: the family is the run's.
                    e => match int(e)? {
                        libc::AF_INET | libc::AF_INET6 => family,
                        other => other,
                    },
                };
                Request::Socket { domain, kind: int(argument(1)?)?, protocol: int(argument(2)?)? }
            }
            "bind" => {
                let open = SocketAddr::new(local(self.family), PORT);
                Request::Bind { fd: fd()?, address: self.address(argument(1)?, open)? }
            }
            "connect" => {
                let open = SocketAddr::new(remote(self.family), PORT);
                Request::Connect { fd: fd()?, address: self.address(argument(1)?, open)? }
            }
            "listen" => Request::Listen { fd: fd()?, backlog: int(argument(1)?)? },
            "accept" => Request::Accept { fd: fd()?, flags: 0 },
            "accept4" => Request::Accept { fd: fd()?, flags: int(argument(3)?)? },
            "read" => Request::Receive { fd: fd()?, max: bytes(argument(2)?)?, flags: None },
            "readv" => Request::Receive { fd: fd()?, max: parts(argument(1)?)? as usize, flags: None },
            "recv" | "recvfrom" => Request::Receive { fd: fd()?, max: bytes(argument(2)?)?, flags: flags(3)? },
            "recvmsg" => Request::Receive { fd: fd()?, max: message(argument(1)?)? as usize, flags: flags(2)? },
            "write" => Request::Send { fd: fd()?, data: data(number(argument(2)?)?)?, flags: None },
            "writev" => Request::Send { fd: fd()?, data: data(parts(argument(1)?)?)?, flags: None },
            "send" | "sendto" => Request::Send { fd: fd()?, data: data(number(argument(2)?)?)?, flags: flags(3)? },
            "sendmsg" => Request::Send { fd: fd()?, data: data(message(argument(1)?)?)?, flags: flags(2)? },
            "close" => Request::Close { fd: fd()? },
            "shutdown" => Request::Shutdown { fd: fd()?, how: int(argument(1)?)? },
            "fcntl" => {
                let argument_given = a.get(2).map_or(Ok(0), int)?;
                Request::Fcntl { fd: fd()?, command: int(argument(1)?)?, argument: argument_given }
            }
            "ioctl" => {
                let value = match a.get(2) {
                    None | Some(Expression::Ellipsis) => 0,
                    Some(e) => int(e)?,
                };
                Request::Ioctl { fd: fd()?, request: number(argument(1)?)? as libc::c_ulong, value }
            }
            "setsockopt" => {
                let mut value = option_value(argument(3)?)?;
                let length = bytes(argument(4)?)?;
                value.resize(length, 0);
                Request::SetOption { fd: fd()?, level: int(argument(1)?)?, name: int(argument(2)?)?, value }
            }
            "getsockopt" => {
                let room = bytes(argument(4)?)?;
                Request::GetOption { fd: fd()?, level: int(argument(1)?)?, name: int(argument(2)?)?, room }
            }
            "poll" => {
                let Expression::List(list) = argument(0)? else { return Err("poll needs a list".to_owned()) };
                let entry = |e: &Expression| match e {
                    Expression::Record(fields) => {
                        let fd = self.live(named(fields, &["fd"]).ok_or("poll needs fd")?)?;
                        let events = int(named(fields, &["events"]).ok_or("poll needs events")?)?;
                        Ok((fd, events as i16))
                    }
                    _ => Err("poll needs `{fd=…, events=…, revents=…}`".to_owned()),
                };
                let fds = list.iter().map(entry).collect::<Said<_>>()?;
                Request::Poll { fds, timeout_ms: int(argument(2)?)? }
            }
            "epoll_create" => Request::EpollCreate { size: int(argument(0)?)? },
            "epoll_ctl" => {
                let (events, data) = match a.get(3) {
                    Some(Expression::Record(fields)) => epoll_event(fields)?,
                    _ => (0, 0),
                };
                let (op, of) = (int(argument(1)?)?, self.live(argument(2)?)?);
                Request::EpollControl { epfd: fd()?, op, fd: of, event: (events, data) }
            }
            "epoll_wait" => Request::EpollWait { epfd: fd()?, max: int(argument(2)?)?, timeout_ms: int(argument(3)?)? },
            other => return Err(format!("there is no call named {other} here")),
        })
    }

    /// Notes what a call has done, and judges whether that is what the script says.
    ///
    /// # Errors
    /// What differs.
    pub fn conclude(&mut self, call: &Call, (outcome, output): &Reply) -> Said<()> {
        let expected = match &call.gives {
            Expected::Anything => None,
            Expected::Error(name) => {
                let error = symbols::number(name).ok_or_else(|| format!("there is no error named {name} here"))?;
                Some(Err(error as c_int))
            }
            Expected::Value(e) => Some(Ok(number(e)?)),
        };
        let is_new = matches!(call.name.as_str(), "socket" | "accept" | "accept4" | "epoll_create");
        match (expected, outcome) {
            (Some(Ok(own)), Ok(live)) if is_new => {
                let descriptor = Descriptor { live: *live as c_int, written: 0, read: 0 };
                self.descriptors.insert(own, descriptor);
            }
            (None, _) => {}
            (Some(expected), outcome) if expected == *outcome => {}
            // Any error will do where a script says only −1.
            (Some(Ok(-1)), Err(_)) => {}
            (Some(expected), outcome) => {
                return Err(format!("expected: {}\ncame:     {}", result_text(expected), result_text(*outcome)));
            }
        }
        let own = call.arguments.first().and_then(|e| number(e).ok());
        if let (Some(own), Ok(n)) = (own, *outcome) {
            match call.name.as_str() {
                "close" => drop(self.descriptors.remove(&own)),
                "write" | "writev" | "send" | "sendto" | "sendmsg" => {
                    if let Some(d) = self.descriptors.get_mut(&own) {
                        d.written += n as u64;
                    }
                }
                _ => {}
            }
        }
        self.conclude_output(call, outcome, output, own)
    }

    fn conclude_output(&mut self, call: &Call, outcome: &Outcome, output: &Output, own: Option<i64>) -> Said<()> {
        if outcome.is_err() {
            return Ok(());
        }
        match (call.name.as_str(), output) {
            ("read" | "readv" | "recv" | "recvfrom" | "recvmsg", Output::Bytes(data)) => {
                self.judge_text(call, data, own)
            }
            ("getsockopt", Output::Bytes(value)) => match call.arguments.get(3) {
                None | Some(Expression::Ellipsis) => Ok(()),
                Some(e) => {
                    let mut expected = option_value(e)?;
                    // A name is as long as it is; what follows are zeros.
                    if expected.len() < value.len() {
                        expected.resize(value.len(), 0);
                    }
                    if expected[..value.len().min(expected.len())] == value[..] {
                        Ok(())
                    } else {
                        Err(format!("expected: {}\ncame:     {}", value_text(&expected), value_text(value)))
                    }
                }
            },
            ("ioctl", Output::Int(value)) => match call.arguments.get(2) {
                Some(e @ Expression::List(_)) => compare("the value", int(e)?, *value),
                _ => Ok(()),
            },
            ("poll", Output::Ready(ready)) => {
                let Some(Expression::List(list)) = call.arguments.first() else { return Ok(()) };
                for (e, found) in list.iter().zip(ready) {
                    let Expression::Record(fields) = e else { continue };
                    if let Some(revents) = named(fields, &["revents"]) {
                        let expected = int(revents)? as i16;
                        if expected != *found {
                            return Err(format!(
                                "expected: revents {}\ncame:     revents {}",
                                ready_text(expected.into()),
                                ready_text((*found).into())
                            ));
                        }
                    }
                }
                Ok(())
            }
            ("epoll_wait", Output::Events(found)) => {
                let mut expected = Vec::new();
                match call.arguments.get(1) {
                    Some(Expression::Record(fields)) => expected.push(epoll_event(fields)?),
                    Some(Expression::List(list)) => {
                        for e in list {
                            if let Expression::Record(fields) = e {
                                expected.push(epoll_event(fields)?);
                            }
                        }
                    }
                    _ => return Ok(()),
                }
                for ((events, _), (came, _)) in expected.iter().zip(found) {
                    if events != came {
                        return Err(format!(
                            "expected: events {}\ncame:     events {}",
                            ready_text((*events).into()),
                            ready_text((*came).into())
                        ));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What is read must be what was sent, byte for byte; an urgent byte that was taken out of line makes that unknown.
    fn judge_text(&mut self, call: &Call, data: &[u8], own: Option<i64>) -> Said<()> {
        let flags = call.arguments.get(3).and_then(|e| int(e).ok()).unwrap_or(0);
        let Some(d) = own.and_then(|own| self.descriptors.get_mut(&own)) else { return Ok(()) };
        if flags & (libc::MSG_OOB | libc::MSG_TRUNC | libc::MSG_ERRQUEUE) != 0 {
            return Ok(());
        }
        let plain = self.plain_text;
        let wrong = data.iter().zip(d.read..).find(|(byte, position)| plain && **byte != octet(*position));
        let wrong = wrong.map(|(_, position)| position);
        if flags & libc::MSG_PEEK == 0 {
            d.read += data.len() as u64;
        }
        match wrong {
            Some(position) => Err(format!("byte {position} of what was read is not the one that was sent")),
            None => Ok(()),
        }
    }
}

fn epoll_event(fields: &[(Option<String>, Expression)]) -> Said<Event> {
    let events = named(fields, &["events"]).map_or(Ok(0), int)? as u32;
    let data = named(fields, &["fd", "ptr", "u32", "u64"]).map_or(Ok(0), number)? as u64;
    Ok((events, data))
}

fn compare(what: &str, expected: c_int, came: c_int) -> Said<()> {
    if expected == came { Ok(()) } else { Err(format!("{what}\nexpected: {expected}\ncame:     {came}")) }
}

/// A result as a script has it.
pub fn result_text(outcome: Outcome) -> String {
    match outcome {
        Ok(n) => format!("= {n}"),
        Err(error) => format!("= -1 {}", symbols::error(error)),
    }
}

fn value_text(bytes: &[u8]) -> String {
    match bytes.try_into() {
        Ok(int) => format!("[{}]", c_int::from_ne_bytes(int)),
        Err(_) => format!("the bytes {bytes:?}"),
    }
}

fn ready_text(bits: i64) -> String {
    const NAMES: [&str; 8] =
        ["POLLIN", "POLLPRI", "POLLOUT", "POLLERR", "POLLHUP", "POLLNVAL", "POLLRDHUP", "POLLRDNORM"];
    let set: Vec<&str> =
        NAMES.into_iter().filter(|name| symbols::number(name).is_some_and(|bit| bits & bit != 0)).collect();
    if set.is_empty() { bits.to_string() } else { set.join("|") }
}

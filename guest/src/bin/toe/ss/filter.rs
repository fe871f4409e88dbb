//! Which lines are wanted: ss's filters (ss(8), STATE-FILTER and EXPRESSION).
//!
//! `state` and `exclude` come first, any number of them; then conditions about ports and addresses, joined by `and` (or by
//! nothing), `or`, `not` and parentheses.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::Row;
use super::print::service_port;

/// Linux's states by their numbers, as ss names them in filters; zero is none.
const STATES: [&str; 12] = [
    "",
    "established",
    "syn-sent",
    "syn-recv",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "closed",
    "close-wait",
    "last-ack",
    "listening",
    "closing",
];

const LISTEN: u16 = 1 << 10;
const TIME_WAIT: u16 = 1 << 6;
const CLOSED: u16 = 1 << 7;
const SYN_RECEIVED: u16 = 1 << 3;
const SYN_SENT: u16 = 1 << 2;
const ALL: u16 = 0x0ffe;
/// What ss shows if nothing is said.
const CONNECTED: u16 = ALL & !(LISTEN | CLOSED | TIME_WAIT | SYN_RECEIVED);

/// Which lines are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    states: u16,
    condition: Option<Condition>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Condition {
    Address(End, Prefix, Option<u16>),
    Port(End, Comparison, u16),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Source,
    Destination,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// An address and how many of its bits count; none is any address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Prefix(Option<(IpAddr, u32)>);

impl Prefix {
    fn has(self, ip: IpAddr) -> bool {
        let Some((of, bits)) = self.0 else { return true };
        match (of, ip.to_canonical()) {
            (IpAddr::V4(of), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                u32::from(of) & mask == u32::from(ip) & mask
            }
            (IpAddr::V6(of), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                u128::from(of) & mask == u128::from(ip) & mask
            }
            _ => false,
        }
    }
}

impl Filter {
    /// Reads a filter; without one, `all` and `listening` say which states are wanted.
    ///
    /// # Errors
    /// One line: what is wrong, and what may stand there.
    pub fn parse(text: &str, all: bool, listening: bool) -> Result<Self, String> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('!', " ! ").replace(" ! =", " != ");
        let mut words = Words { words: spaced.split_whitespace().collect(), at: 0 };
        let default = match (all, listening) {
            (true, _) => ALL,
            (_, true) => LISTEN,
            _ => CONNECTED,
        };
        let mut states = None;
        loop {
            match words.peek() {
                Some("state") => {
                    words.next();
                    *states.get_or_insert(0) |= state(words.next())?;
                }
                Some("exclude") => {
                    words.next();
                    *states.get_or_insert(ALL) &= !state(words.next())?;
                }
                _ => break,
            }
        }
        let condition = words.peek().is_some().then(|| words.any()).transpose()?;
        match words.next() {
            Some(word) => Err(format!("filter: `{word}` is not expected there")),
            None => Ok(Self { states: states.unwrap_or(default), condition }),
        }
    }

    /// Whether a line is wanted.
    pub(super) fn wants(&self, row: &Row) -> bool {
        let state = 1u16.checked_shl(row.state.into()).unwrap_or(0);
        self.states & state != 0 && self.condition.as_ref().is_none_or(|c| c.holds(row.local, row.remote))
    }
}

impl Condition {
    fn holds(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let of = |end| match end {
            End::Source => local,
            End::Destination => remote,
        };
        match self {
            Self::Address(end, prefix, port) => {
                prefix.has(of(*end).ip()) && port.is_none_or(|port| of(*end).port() == port)
            }
            Self::Port(end, comparison, port) => {
                let ours = of(*end).port();
                match comparison {
                    Comparison::Equal => ours == *port,
                    Comparison::NotEqual => ours != *port,
                    Comparison::Less => ours < *port,
                    Comparison::LessOrEqual => ours <= *port,
                    Comparison::Greater => ours > *port,
                    Comparison::GreaterOrEqual => ours >= *port,
                }
            }
            Self::Not(a) => !a.holds(local, remote),
            Self::And(a, b) => a.holds(local, remote) && b.holds(local, remote),
            Self::Or(a, b) => a.holds(local, remote) || b.holds(local, remote),
        }
    }
}

fn state(word: Option<&str>) -> Result<u16, String> {
    Ok(match word {
        Some("all") => ALL,
        Some("connected") => ALL & !(LISTEN | CLOSED),
        Some("synchronized") => ALL & !(LISTEN | CLOSED | SYN_SENT),
        Some("bucket") => TIME_WAIT | SYN_RECEIVED,
        Some("big") => ALL & !(TIME_WAIT | SYN_RECEIVED),
        Some("listen") => LISTEN,
        Some("close" | "unconnected") => CLOSED,
        other => match STATES.iter().position(|name| other == Some(name) && !name.is_empty()) {
            Some(number) => 1 << number,
            None => {
                let names = STATES[1..].join("`, `");
                return Err(format!(
                    "filter: `state` and `exclude` want one of `{names}`, `all`, `connected`, `synchronized`"
                ));
            }
        },
    })
}

struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

/// How deep parentheses and `not` may stand in one another.
const DEPTH_MAX: usize = 64;

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }

    fn any(&mut self) -> Result<Condition, String> {
        self.or(0)
    }

    fn or(&mut self, depth: usize) -> Result<Condition, String> {
        let mut condition = self.and(depth)?;
        while matches!(self.peek(), Some("or" | "|" | "||")) {
            self.next();
            condition = Condition::Or(Box::new(condition), Box::new(self.and(depth)?));
        }
        Ok(condition)
    }

    fn and(&mut self, depth: usize) -> Result<Condition, String> {
        let mut condition = self.one(depth)?;
        loop {
            match self.peek() {
                Some("and" | "&" | "&&") => {
                    self.next();
                }
                None | Some("or" | "|" | "||" | ")") => return Ok(condition),
                Some(_) => {}
            }
            condition = Condition::And(Box::new(condition), Box::new(self.one(depth)?));
        }
    }

    fn one(&mut self, depth: usize) -> Result<Condition, String> {
        if depth > DEPTH_MAX {
            return Err("filter: too many parentheses in one another".to_owned());
        }
        match self.next() {
            Some("(") => {
                let condition = self.or(depth + 1)?;
                match self.next() {
                    Some(")") => Ok(condition),
                    _ => Err("filter: a `)` is missing".to_owned()),
                }
            }
            Some("not" | "!") => Ok(Condition::Not(Box::new(self.one(depth + 1)?))),
            Some("sport") => self.port(End::Source),
            Some("dport") => self.port(End::Destination),
            Some("src") => self.address(End::Source),
            Some("dst") => self.address(End::Destination),
            Some(other) => Err(format!(
                "filter: `{other}` is no condition; there are `sport`, `dport`, `src`, `dst`, `not`, `(`, and `state` at the beginning"
            )),
            None => Err("filter: a condition is missing at the end".to_owned()),
        }
    }

    fn port(&mut self, end: End) -> Result<Condition, String> {
        let comparison = match self.next() {
            Some("=" | "==" | "eq") => Comparison::Equal,
            Some("!=" | "ne" | "neq") => Comparison::NotEqual,
            Some("<" | "lt") => Comparison::Less,
            Some("<=" | "le" | "leq") => Comparison::LessOrEqual,
            Some(">" | "gt") => Comparison::Greater,
            Some(">=" | "ge" | "geq") => Comparison::GreaterOrEqual,
            _ => {
                return Err("filter: `sport` and `dport` want `=`, `!=`, `<`, `<=`, `>` or `>=`, as in `sport = :80`"
                    .to_owned());
            }
        };
        let word = self.next().unwrap_or_default();
        Ok(Condition::Port(end, comparison, port(word.strip_prefix(':').unwrap_or(word))?))
    }

    fn address(&mut self, end: End) -> Result<Condition, String> {
        let mut word = self.next();
        if matches!(word, Some("=" | "==" | "eq")) {
            word = self.next();
        }
        let text = word.unwrap_or_default();
        let (host, port_text) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (
                host.to_owned() + rest.split(':').next().unwrap_or_default(),
                rest.split_once(':').map(|(_, port)| port),
            ),
            None if text.matches(':').count() == 1 => {
                let (host, port) = text.split_once(':').unwrap_or_default();
                (host.to_owned(), Some(port))
            }
            None => (text.to_owned(), None),
        };
        let port = port_text.filter(|port| *port != "*").map(port).transpose()?;
        Ok(Condition::Address(end, host.parse()?, port))
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text == "*" {
            return Ok(Self(None));
        }
        let wrong =
            || format!("filter: `{text}` is no address; one is as `192.0.2.1`, `192.0.2.0/24` or `[2001:db8::1]:80`");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let ip: IpAddr = address.parse().map_err(|_| wrong())?;
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(all), |bits| bits.parse().ok().filter(|bits| *bits <= all)).ok_or_else(wrong)?;
        Ok(Self(Some((ip, bits))))
    }
}

fn port(text: &str) -> Result<u16, String> {
    let named = || {
        service_port(text).ok_or_else(|| format!("filter: `{text}` is no port: a number to 65535, or a service's name"))
    };
    text.parse().or_else(|_| named())
}

#[cfg(test)]
mod tests {
    use super::super::Carrier;
    use super::*;

    fn row(state: u8, local: &str, remote: &str) -> Row {
        Row {
            carrier: Carrier::Kernel,
            state,
            receive_queue: 0,
            send_queue: 0,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            owners: Vec::new(),
            timer: (0, 0, 0),
            info: None,
        }
    }

    #[test]
    fn conditions_select() {
        let v4 = row(1, "192.0.2.1:40000", "198.51.100.7:80");
        let v6 = row(1, "[2001:db8::1]:22", "[2001:db8::2]:50000");
        let mapped = row(1, "[::ffff:192.0.2.1]:22", "[::ffff:192.0.2.9]:50000");
        for (text, expected) in [
            ("", [true, true, true]),
            ("sport = :22", [false, true, true]),
            ("sport = 22", [false, true, true]),
            ("dport eq :80", [true, false, false]),
            ("dport != 80", [false, true, true]),
            ("sport >= :1024", [true, false, false]),
            ("sport < 1024 and dport > 1024", [false, true, true]),
            ("dst 198.51.100.7", [true, false, false]),
            ("dst = 198.51.100.0/24", [true, false, false]),
            ("dst 198.51.100.7:443", [false, false, false]),
            ("src 192.0.2.1:22", [false, false, true]),
            ("src [2001:db8::1]:22", [false, true, false]),
            ("src [2001:db8::]/32:22", [false, true, false]),
            ("src 2001:db8::/32", [false, true, false]),
            ("src :22", [false, true, true]),
            ("dst 0.0.0.0/0", [true, false, true]),
            ("not sport = :22", [true, false, false]),
            ("!(sport = :22)", [true, false, false]),
            ("( sport = :22 or dport = :80 ) and src 192.0.2.1", [true, false, true]),
            ("sport = :22 src 192.0.2.1", [false, false, true]),
        ] {
            let filter = Filter::parse(text, false, false).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!([&v4, &v6, &mapped].map(|row| filter.wants(row)), expected, "{text}");
        }
    }

    #[test]
    fn states_select() {
        let shown = |text: &str, all, listening| {
            let filter = Filter::parse(text, all, listening).unwrap();
            (1..12u8).filter(|state| filter.wants(&row(*state, "192.0.2.1:1", "192.0.2.2:2"))).collect::<Vec<_>>()
        };
        assert_eq!(shown("", false, false), [1, 2, 4, 5, 8, 9, 11]);
        assert_eq!(shown("", false, true), [10]);
        assert_eq!(shown("", true, false), (1..12).collect::<Vec<_>>());
        assert_eq!(shown("state established", false, false), [1]);
        assert_eq!(shown("state time-wait state syn-recv sport = :1", false, false), [3, 6]);
        assert_eq!(shown("exclude listening exclude established", false, false), [2, 3, 4, 5, 6, 7, 8, 9, 11]);
        assert_eq!(shown("state listening", true, false), [10]);
    }

    #[test]
    fn what_makes_no_sense_is_told_in_one_line() {
        for (text, expected) in [
            ("state open", "`established`"),
            ("state", "`established`"),
            ("sport :80", "as in `sport = :80`"),
            ("sport = :http-over-pigeons", "is no port"),
            ("sport = :70000", "is no port"),
            ("dst 192.0.2.256", "is no address"),
            ("dst 192.0.2.0/33", "is no address"),
            ("( sport = :80", "`)` is missing"),
            ("sport = :80 )", "`)` is not expected"),
            ("sport = :80 or", "missing at the end"),
            ("dev eth0", "is no condition"),
        ] {
            let said = Filter::parse(text, false, false).unwrap_err();
            assert!(said.contains(expected) && said.lines().count() == 1, "{text}: {said}");
        }
        let deep = "( ".repeat(100_000);
        assert!(Filter::parse(&deep, false, false).unwrap_err().contains("too many"));
    }
}

//! Which connections go to the card: `toe.toml`.
//!
//! ```toml
//! default = "card"            # what no rule speaks of
//!
//! [[rule]]                    # the first that fits decides
//! carry = "kernel"            # or "card"
//! program = "ssh*"            # the executable's name; `*` stands for anything
//! user = 1000                 # a number
//! direction = "connect"       # or "listen"; both if it is not said
//! port = "5000-5999"          # the peer's for connect, one's own for listen; a number or a range
//! destination = "192.0.2.0/24"  # the peer's for connect, one's own for listen
//! ```
//!
//! What a rule does not say fits everything. Without a file everything goes to the card that can.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Deserialize;

use super::target;

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) process: u32,
    pub(super) direction: Direction,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// Who opens the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Direction {
    /// The program.
    Connect,
    /// Its peers.
    Listen,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Carry {
    #[default]
    Card,
    Kernel,
}

/// See the module.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    default: Carry,
    #[serde(default, rename = "rule")]
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    carry: Carry,
    program: Option<String>,
    user: Option<u32>,
    direction: Option<Direction>,
    port: Option<Ports>,
    destination: Option<Network>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "PortsText")]
struct Ports(RangeInclusive<u16>);

#[derive(Deserialize)]
#[serde(untagged)]
enum PortsText {
    One(u16),
    Range(String),
}

impl TryFrom<PortsText> for Ports {
    type Error = String;

    fn try_from(text: PortsText) -> Result<Self, String> {
        let text = match text {
            PortsText::One(port) => return Ok(Self(port..=port)),
            PortsText::Range(text) => text,
        };
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let port = |t: &str| t.trim().parse::<u16>().map_err(|_| format!("{text:?} is no port and no range of ports"));
        let (first, last) = (port(first)?, port(last)?);
        if first > last { Err(format!("{text:?} ends before it begins")) } else { Ok(Self(first..=last)) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Network {
    ip: IpAddr,
    bits: u8,
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address and no network such as 192.0.2.0/24");
        let (ip, bits) = text.split_once('/').map_or((&*text, None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > most { Err(wrong()) } else { Ok(Self { ip, bits }) }
    }
}

impl Network {
    fn has(self, ip: IpAddr) -> bool {
        let differ = match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
            (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
            _ => return false,
        };
        self.bits == 0 || differ >> (128 - u32::from(self.bits)) == 0
    }
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| fits(rest, &name[at..]))
        }),
    }
}

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    /// One line that names the file, the line and what is wrong there.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Self::parse(&text).map_err(|(line, what)| format!("{}:{line}: {what}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start).min(text.len());
            let line = 1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
            (line, e.message().lines().collect::<Vec<_>>().join(" "))
        })
    }

    /// Why the kernel carries it, if the policy says so.
    pub(super) fn refuses(&self, subject: &Subject) -> Option<String> {
        let said = self.rules.iter().position(|rule| rule.is_about(subject));
        let carry = said.map_or(self.default, |at| self.rules[at].carry);
        let reason = || said.map_or_else(|| "policy-default".to_owned(), |at| format!("policy-rule-{}", at + 1));
        (carry == Carry::Kernel).then(reason)
    }
}

impl Rule {
    fn is_about(&self, s: &Subject) -> bool {
        self.direction.is_none_or(|d| d == s.direction)
            && self.port.as_ref().is_none_or(|p| p.0.contains(&s.port))
            && self.destination.is_none_or(|n| n.has(s.address))
            && self.user.is_none_or(|u| target::user(s.process) == Some(u))
            && self.program.as_ref().is_none_or(|p| fits(p, &target::name(s.process)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(direction: Direction, address: &str, port: u16) -> Subject {
        Subject { process: std::process::id(), direction, address: address.parse().unwrap(), port }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let text = r#"
            [[rule]]
            carry = "kernel"
            port = 22
            [[rule]]
            carry = "card"
            destination = "192.0.2.0/25"
            [[rule]]
            carry = "kernel"
            direction = "listen"
            port = "5000-5999"
            [[rule]]
            carry = "kernel"
            destination = "192.0.2.0/24"
        "#;
        let p = Policy::parse(text).unwrap();
        let refuses = |d, a, port| p.refuses(&subject(d, a, port));
        assert_eq!(refuses(Direction::Connect, "192.0.2.1", 22).as_deref(), Some("policy-rule-1"));
        assert_eq!(refuses(Direction::Connect, "192.0.2.1", 80), None);
        assert_eq!(refuses(Direction::Connect, "192.0.2.200", 80).as_deref(), Some("policy-rule-4"));
        assert_eq!(refuses(Direction::Connect, "198.51.100.1", 5000), None);
        assert_eq!(refuses(Direction::Listen, "::", 5999).as_deref(), Some("policy-rule-3"));
        assert_eq!(refuses(Direction::Listen, "::", 6000), None);
        assert_eq!(Policy::default().refuses(&subject(Direction::Connect, "192.0.2.1", 22)), None);
    }

    #[test]
    fn users_and_programs_are_those_of_the_process() {
        let refuses = |text: &str| Policy::parse(text).unwrap().refuses(&subject(Direction::Connect, "192.0.2.1", 1));
        let user = target::user(std::process::id()).unwrap();
        let rule = |what: &str| format!("default = \"card\"\n[[rule]]\ncarry = \"kernel\"\n{what}\n");
        assert!(refuses(&rule(&format!("user = {user}"))).is_some());
        assert!(refuses(&rule(&format!("user = {}", user + 1))).is_none());
        let name = target::name(std::process::id());
        assert!(refuses(&rule(&format!("program = \"{name}\""))).is_some());
        assert!(refuses(&rule(&format!("program = \"{}*\"", &name[..3]))).is_some());
        assert!(refuses(&rule("program = \"no such\"")).is_none());
        assert_eq!(refuses("default = \"kernel\"").as_deref(), Some("policy-default"));
    }

    #[test]
    fn patterns() {
        assert!(fits("nginx", "nginx") && !fits("nginx", "nginx2") && fits("*", "") && fits("a*c*", "abcd"));
        assert!(!fits("a*c", "abcd") && fits("*d", "abcd") && fits("a**d", "abcd") && !fits("", "a"));
    }

    #[test]
    fn networks() {
        let has = |n: &str, ip: &str| Network::try_from(n.to_owned()).unwrap().has(ip.parse().unwrap());
        assert!(has("192.0.2.0/24", "192.0.2.255") && !has("192.0.2.0/24", "192.0.3.0"));
        assert!(has("0.0.0.0/0", "203.0.113.1") && !has("0.0.0.0/0", "::1"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::1") && !has("2001:db8::/32", "2001:db9::"));
        assert!(has("192.0.2.7", "192.0.2.7") && !has("192.0.2.7", "192.0.2.6"));
    }

    #[test]
    fn a_bad_file_is_said_with_its_line() {
        let line = |text: &str| Policy::parse(text).unwrap_err();
        let (at, what) = line("default = \"card\"\n\n[[rule]]\ncarry = \"kernel\"\nport = \"9-1\"\n");
        assert_eq!((at, what.as_str()), (5, "\"9-1\" ends before it begins"));
        assert_eq!(line("[[rule]]\ncarry = \"cart\"\n").0, 2);
        assert_eq!(line("default = \"card\"\nno sense\n").0, 2);
        assert_eq!(line("[[rule]]\ncarry = \"card\"\ncolour = 1\n").0, 3);
        assert_eq!(line("[[rule]]\ncarry = \"card\"\ndestination = \"192.0.2.0/33\"\n").0, 3);
        for text in ["port = 70000", "port = -1", "user = \"me\"", "direction = \"up\""] {
            assert_eq!(line(&format!("[[rule]]\ncarry = \"card\"\n{text}\n")).0, 3, "{text}");
        }
    }
}

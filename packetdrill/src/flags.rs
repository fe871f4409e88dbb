//! `--so_flags`: `key=value` pairs, separated by commas or white space.
//!
//! | key | value | default |
//! |---|---|---|
//! | `local` | the stack's IPv4 or IPv6 address (may be given once for each) | `192.168.0.1`, `fd3d:fa7b:d17d::1` |
//! | `mtu` | the interface's MTU, in bytes, 68 to 65535 | 1500 |
//! | `mss` | the MTU said otherwise: the largest segment of an IPv4 connection without options; of IPv6 it is 20 less | |
//! | `cc` | the congestion controller: the profile's `tcp.congestion` | the profile's |
//! | `iw` | the first congestion window in segments: the profile's `tcp.initial_window_segments` | the profile's |
//! | `profile` | a built-in profile from which the others start | a small card |
//! | `tcp.NAME`, `limits.NAME`, `policy.NAME` | any field of the card's profile | the profile's |
//! | `seed` | a number: initial sequence numbers and timestamp offsets follow from it | 1 |
//! | `closed` | what the guest's own stack does with segments that the card passes on: `reset` or `drop` | `reset` |
//! | `dialect` | the order of a SYN's options and the shift of its window: `linux` or `freebsd` | `linux` |
//! | `horizon_s` | how far ahead of the last packet `netdev_receive` looks for the next, in seconds | 10800 |
//! | `idle_s` | after how much real time without any call a call that blocks without a time limit fails with `EDEADLK` | 30 |
//!
//! A key that is not in the table, a value out of its range: one line that says so, and every call fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toe_firmware::{Duration, Limits, Profile, Refusal, Tcp};

use crate::dialect::Dialect;

/// What becomes of segments that the card passes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// They are answered with a reset.
    Reset,
    /// They vanish.
    Drop,
}

/// The flags, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flags {
    /// The stack's IPv4 address.
    pub local_v4: Ipv4Addr,
    /// The stack's IPv6 address.
    pub local_v6: Ipv6Addr,
    /// The interface's MTU, in bytes.
    pub mtu: u32,
    /// The source of all chance.
    pub seed: [u8; 32],
    /// What becomes of segments that the card passes on.
    pub closed: Closed,
    /// The order of a SYN's options.
    pub dialect: Dialect,
    /// How far ahead `netdev_receive` looks.
    pub horizon: Duration,
    /// How long a call sleeps, in real time, when nobody else calls.
    pub idle: std::time::Duration,
    /// The card.
    pub profile: Profile,
}

/// A flag that makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FlagError {
    /// Not `key=value`.
    #[error("--so_flags: `{0}` is not of the form key=value")]
    Form(String),
    /// An unknown key.
    #[error(
        "--so_flags: there is no `{0}`; known: local, mtu, mss, cc, iw, profile, tcp.*, limits.*, policy.*, seed, closed, dialect, horizon_s, idle_s"
    )]
    Key(String),
    /// A value that the key cannot have.
    #[error("--so_flags: `{key}` is `{value}`; allowed: {allowed}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// A profile that the card refuses.
    #[error("--so_flags: {0}")]
    Profile(String),
}

/// A card that costs little memory (packetdrill locks all of its pages), has no stack to fall back to, and else the
/// parameters of the default profile, but for two habits that public scripts expect: the shift of the window of a buffer of
/// 16 MiB, and FINs that cross are acknowledged with ours.
fn small(base: Profile) -> Profile {
    let limits = Limits {
        contexts: 1,
        connections: 64,
        listeners: 64,
        backlog: 1024,
        half_open: 256,
        time_wait: 256,
        send_pages: 2048,
        receive_pages: 2048,
        connection_receive_pages: CONNECTION_RECEIVE_PAGES_LINUX,
        transmit_records: 16_384,
        segments: 256,
        replies: 256,
        ..base.limits.clone()
    };
    let tcp = Tcp { repeat_fin: true, ..base.tcp.clone() };
    Profile { limits, tcp, ..base }
}

/// Makes a shift of 8, as of a Linux server with 15 MiB for a connection.
const CONNECTION_RECEIVE_PAGES_LINUX: u32 = 4096;

/// Makes a shift of 6, FreeBSD's by default.
const CONNECTION_RECEIVE_PAGES_FREE_BSD: u32 = 1024;

fn denying(mut profile: Profile) -> Profile {
    let policy = &mut profile.policy;
    policy.contexts = Refusal::Deny;
    policy.connections = Refusal::Deny;
    policy.listeners = Refusal::Deny;
    policy.backlog = Refusal::Deny;
    policy.half_open = Refusal::Deny;
    profile
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            local_v4: Ipv4Addr::new(192, 168, 0, 1),
            local_v6: Ipv6Addr::new(0xfd3d, 0xfa7b, 0xd17d, 0, 0, 0, 0, 1),
            mtu: 1500,
            seed: seed(1),
            closed: Closed::Reset,
            dialect: Dialect::Linux,
            horizon: Duration::from_s(10_800),
            idle: std::time::Duration::from_secs(30),
            profile: denying(small(Profile::default())),
        }
    }
}

fn seed(number: u64) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    seed
}

impl Flags {
    /// Reads the flags.
    ///
    /// # Errors
    /// The first that makes no sense.
    pub fn parse(text: &str) -> Result<Self, FlagError> {
        let mut flags = Self::default();
        let pairs: Vec<(&str, &str)> = text
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').ok_or_else(|| FlagError::Form(pair.to_owned())))
            .collect::<Result<_, _>>()?;
        // What the fields of the profile start from comes first, wherever it stands.
        for (key, value) in pairs.iter().filter(|(key, _)| *key == "profile") {
            let profile = Profile::built_in(value);
            let profile = profile.ok_or_else(|| wrong(key, value, &Profile::BUILT_IN.join(", ")))?;
            flags.profile = denying(profile);
        }
        let mut fields = toml::Table::try_from(&flags.profile).map_err(|e| FlagError::Profile(e.to_string()))?;
        for (key, value) in pairs {
            match key {
                "profile" => {}
                "local" => match value.parse() {
                    Ok(IpAddr::V4(ip)) => flags.local_v4 = ip,
                    Ok(IpAddr::V6(ip)) => flags.local_v6 = ip,
                    Err(_) => return Err(wrong(key, value, "an IPv4 or IPv6 address")),
                },
                "mtu" => flags.mtu = number(key, value, 68, 65_535)? as u32,
                "mss" => flags.mtu = number(key, value, 28, 65_495)? as u32 + 40,
                "seed" => flags.seed = seed(number(key, value, 0, u64::MAX)?),
                "horizon_s" => flags.horizon = Duration::from_s(number(key, value, 1, 1_000_000_000)?),
                "idle_s" => flags.idle = std::time::Duration::from_secs(number(key, value, 1, 86_400)?),
                "closed" => {
                    flags.closed = match value {
                        "reset" => Closed::Reset,
                        "drop" => Closed::Drop,
                        _ => return Err(wrong(key, value, "reset, drop")),
                    }
                }
                "dialect" => {
                    let (dialect, pages) = match value {
                        "linux" => (Dialect::Linux, CONNECTION_RECEIVE_PAGES_LINUX),
                        "freebsd" => (Dialect::FreeBsd, CONNECTION_RECEIVE_PAGES_FREE_BSD),
                        _ => return Err(wrong(key, value, "linux, freebsd")),
                    };
                    flags.dialect = dialect;
                    set(&mut fields, "limits.connection_receive_pages", key, &pages.to_string())?;
                }
                "cc" => set(&mut fields, "tcp.congestion", key, value)?,
                "iw" => set(&mut fields, "tcp.initial_window_segments", key, value)?,
                field => set(&mut fields, field, key, value)?,
            }
        }
        flags.profile = fields.try_into().map_err(|e: toml::de::Error| FlagError::Profile(e.message().to_owned()))?;
        flags.profile.validate().map_err(|e| FlagError::Profile(e.to_string()))?;
        Ok(flags)
    }
}

fn wrong(key: &str, value: &str, allowed: &str) -> FlagError {
    FlagError::Value { key: key.to_owned(), value: value.to_owned(), allowed: allowed.to_owned() }
}

fn number(key: &str, value: &str, min: u64, max: u64) -> Result<u64, FlagError> {
    let parsed = value.parse().ok().filter(|n| (min..=max).contains(n));
    parsed.ok_or_else(|| wrong(key, value, &format!("{min} to {max}")))
}

/// Puts a value into a field of the profile that exists; whether it is one that the field can have, the profile says.
fn set(profile: &mut toml::Table, path: &str, key: &str, value: &str) -> Result<(), FlagError> {
    let unknown = || FlagError::Key(key.to_owned());
    let (section, field) = path.split_once('.').ok_or_else(unknown)?;
    let section = profile.get_mut(section).and_then(toml::Value::as_table_mut).ok_or_else(unknown)?;
    let place = section.get_mut(field).ok_or_else(unknown)?;
    let new = match place {
        toml::Value::Integer(_) => {
            value.parse().map(toml::Value::Integer).map_err(|_| wrong(key, value, "a whole number"))?
        }
        toml::Value::Boolean(_) => {
            value.parse().map(toml::Value::Boolean).map_err(|_| wrong(key, value, "true, false"))?
        }
        _ => toml::Value::String(value.to_owned()),
    };
    *place = new;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flags_are_the_defaults() {
        assert_eq!(Flags::parse(""), Ok(Flags::default()));
    }

    #[test]
    fn every_documented_flag_takes_effect() {
        let f = Flags::parse(
            "local=192.0.2.9,local=2001:db8::9 mtu=9000 cc=new-reno,iw=4,seed=7,closed=drop,horizon_s=5,idle_s=6,\
             tcp.delayed_ack_ms=100,limits.connections=8,policy.half_open=fallback",
        )
        .unwrap();
        assert_eq!(f.local_v4, Ipv4Addr::new(192, 0, 2, 9));
        assert_eq!(f.local_v6, "2001:db8::9".parse::<Ipv6Addr>().unwrap());
        assert_eq!((f.mtu, f.seed[0], f.closed, f.horizon), (9000, 7, Closed::Drop, Duration::from_s(5)));
        assert_eq!(f.idle.as_secs(), 6);
        let Profile { limits, policy, tcp, .. } = f.profile;
        assert_eq!((tcp.initial_window_segments, tcp.delayed_ack_ms, limits.connections), (4, 100, 8));
        assert_eq!(tcp.congestion, toe_firmware::CongestionControl::NewReno);
        assert_eq!((policy.half_open, policy.connections), (Refusal::Fallback, Refusal::Deny));
        assert_eq!(Flags::parse("mss=1000").unwrap().mtu, 1040);
        assert_eq!(Flags::parse("limits.listeners=1,profile=tiny").unwrap().profile.limits.connections, 8);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let message = |text: &str| Flags::parse(text).unwrap_err().to_string();
        assert_eq!(message("mtu"), "--so_flags: `mtu` is not of the form key=value");
        assert_eq!(message("mtu=67"), "--so_flags: `mtu` is `67`; allowed: 68 to 65535");
        assert!(message("colour=red").starts_with("--so_flags: there is no `colour`; known: "));
        assert!(message("tcp.colour=1").contains("no `tcp.colour`"));
        assert_eq!(message("iw=many"), "--so_flags: `iw` is `many`; allowed: a whole number");
        assert!(message("iw=0").contains("tcp.initial_window_segments"), "{}", message("iw=0"));
        assert!(message("cc=vegas").contains("vegas"), "{}", message("cc=vegas"));
        assert_eq!(message("profile=huge"), "--so_flags: `profile` is `huge`; allowed: default, tiny, t6, w5500");
    }
}

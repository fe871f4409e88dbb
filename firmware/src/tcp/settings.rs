//! What a program may set on its connection, by the numbers of `toe_abi::option`.
//!
//! A value out of its range is refused and changes nothing; an option that the card does not have is refused and never
//! replaced by another.

use toe_abi::{Mac, Reason, option};

use crate::profile::CongestionControl;
use crate::tcp::ecn::EcnPolicy;
use crate::tcp::tcb::Tcb;
use crate::time::{Duration, Instant};

/// The settings of a connection that TCP's halves do not keep themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Silence after which keep-alives begin; `None`: never (MUST-25).
    pub keep_alive_idle: Option<Duration>,
    /// Time between keep-alives.
    pub keep_alive_interval: Duration,
    /// Unanswered keep-alives after which the connection is given up (MUST-29: never one).
    pub keep_alive_probes: u32,
    /// R2 of this connection; `None`: the profile's.
    pub user_timeout: Option<Duration>,
    /// Hop limit or time to live (MUST-49).
    pub hop_limit: u8,
    /// Type of service or traffic class, without ECN's bits (MUST-48).
    pub traffic_class: u8,
    /// The controller's kind.
    pub congestion: CongestionControl,
    /// ICMP errors are reported (SHLD-20).
    pub report_errors: bool,
    /// Whether ECN is used.
    pub ecn: EcnPolicy,
}

/// What Linux sends by default, and RFC 1700 recommends.
const HOP_LIMIT: u8 = 64;

/// A day: no time that can be set is longer.
const MS_MAX: u64 = 86_400_000;

impl Settings {
    /// Of a new connection.
    pub fn new(congestion: CongestionControl, ecn: EcnPolicy) -> Self {
        Self {
            //= docs/specs/rfc9293.txt#section-3.8.4
            //# they MUST default to off (MUST-25).
            //= docs/specs/rfc9293.txt#section-3.8.4
            //# MUST default to no less than two hours (MUST-28).
            keep_alive_idle: None,
            keep_alive_interval: Duration::from_s(75),
            keep_alive_probes: 9,
            user_timeout: None,
            hop_limit: HOP_LIMIT,
            traffic_class: 0,
            congestion,
            report_errors: true,
            ecn,
        }
    }
}

impl Tcb {
    /// SET_OPTION.
    ///
    /// # Errors
    /// [`Reason::OptionUnknown`] and [`Reason::OptionValue`].
    pub fn set_option(&mut self, option: u32, value: u64, now: Instant) -> Result<(), Reason> {
        let in_range =
            |min: u64, max: u64| if (min..=max).contains(&value) { Ok(value) } else { Err(Reason::OptionValue) };
        let optional_ms = || in_range(0, MS_MAX).map(|ms| (ms > 0).then_some(Duration::from_ms(ms)));
        match option {
            //= docs/specs/rfc9293.txt#section-3.7.4
            //# However, there MUST be a way for an application to disable the Nagle algorithm on an individual
            //# connection (MUST-17).
            option::NODELAY => self.send.nodelay = in_range(0, 1)? == 1,
            option::NEXT_HOP => self.link.remote = station(value)?,
            //= docs/specs/rfc9293.txt#section-3.8.4
            //# If keep-alives are included, the application MUST be able to turn them on or off for each TCP
            //# connection (MUST-24)
            //= docs/specs/rfc9293.txt#section-3.8.4
            //# This interval MUST be configurable (MUST-27)
            option::KEEP_ALIVE_IDLE_MS => {
                self.settings.keep_alive_idle = optional_ms()?;
                self.heard_at = now;
                self.keep_alives = 0;
            }
            option::KEEP_ALIVE_INTERVAL_MS => {
                self.settings.keep_alive_interval = Duration::from_ms(in_range(1, MS_MAX)?);
            }
            option::KEEP_ALIVE_PROBES => self.settings.keep_alive_probes = in_range(2, 255)? as u32,
            option::USER_TIMEOUT_MS => self.settings.user_timeout = optional_ms()?,
            //= docs/specs/rfc9293.txt#section-3.9.2
            //# The TTL value used to send TCP segments MUST be configurable (MUST-49).
            option::HOP_LIMIT => self.settings.hop_limit = in_range(1, 255)? as u8,
            //= docs/specs/rfc9293.txt#section-3.9.1.9
            //# The application layer MUST be able to specify the Differentiated Services field for segments that
            //# are sent on a connection (MUST-48).
            //= docs/specs/rfc9293.txt#section-3.9.1.9
            //# It is not required, but the application SHOULD be able to change the Differentiated Services field
            //# during the connection lifetime (SHLD-21).
            option::TRAFFIC_CLASS if value & 3 == 0 => self.settings.traffic_class = in_range(0, 255)? as u8,
            option::TRAFFIC_CLASS => return Err(Reason::OptionValue),
            option::CONGESTION => {
                self.settings.congestion = match value {
                    1 => CongestionControl::NewReno,
                    2 => CongestionControl::Cubic,
                    3 => CongestionControl::Dctcp,
                    _ => return Err(Reason::OptionValue),
                };
                self.recovery.set_controller(self.settings.congestion);
            }
            option::REPORT_ERRORS => self.settings.report_errors = in_range(0, 1)? == 1,
            option::ADVERTISE_USER_TIMEOUT_MS => self.user_timeout.advertise(optional_ms()?),
            option::PEER_USER_TIMEOUT_MS => return Err(Reason::OptionValue),
            _ => return Err(Reason::OptionUnknown),
        }
        Ok(())
    }

    /// GET_OPTION; `None` if the card does not have it.
    pub fn option(&self, option: u32) -> Option<u64> {
        let ms = |d: Duration| d.as_ms();
        let s = &self.settings;
        Some(match option {
            option::NODELAY => self.send.nodelay.into(),
            option::NEXT_HOP => {
                let [a, b, c, d, e, f] = self.link.remote.0;
                u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
            }
            option::KEEP_ALIVE_IDLE_MS => s.keep_alive_idle.map_or(0, ms),
            option::KEEP_ALIVE_INTERVAL_MS => ms(s.keep_alive_interval),
            option::KEEP_ALIVE_PROBES => s.keep_alive_probes.into(),
            option::USER_TIMEOUT_MS => s.user_timeout.map_or(0, ms),
            option::HOP_LIMIT => s.hop_limit.into(),
            option::TRAFFIC_CLASS => s.traffic_class.into(),
            option::CONGESTION => match s.congestion {
                CongestionControl::NewReno => 1,
                CongestionControl::Cubic => 2,
                CongestionControl::Dctcp => 3,
            },
            option::REPORT_ERRORS => s.report_errors.into(),
            option::ADVERTISE_USER_TIMEOUT_MS => self.user_timeout.advertised().map_or(0, ms),
            option::PEER_USER_TIMEOUT_MS => self.user_timeout.remote().map_or(0, ms),
            _ => return None,
        })
    }
}

/// A unicast station as an option's value has it.
fn station(value: u64) -> Result<Mac, Reason> {
    let [a, b, c, d, e, f, 0, 0] = value.to_le_bytes() else {
        return Err(Reason::OptionValue);
    };
    let mac = Mac([a, b, c, d, e, f]);
    if mac.is_group() || mac == Mac::default() { Err(Reason::OptionValue) } else { Ok(mac) }
}

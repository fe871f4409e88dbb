//! The card's profile: every capacity and every default, fixed at boot.
//!
//! A profile is data (a TOML file on the host); this module knows its fields, their ranges and the built-in ones.
//! What a profile says is what is enforced: no pool grows, and none refuses before it is full.

use serde::{Deserialize, Serialize};

pub use crate::pool::Policy;
use crate::pool::Pool;
use crate::tcp::ecn::EcnPolicy;

/// Everything about the card that its operator decides.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// How many of everything there are.
    pub limits: Limits,
    /// What happens when a pool is full.
    pub policy: Policy,
    /// How much of it one context can have.
    pub quota: Quota,
    /// TCP's parameters.
    pub tcp: Tcp,
    /// What the card does about faults of its own.
    pub recovery: Recovery,
}

/// The capacities. All of it is allocated at boot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Contexts: guest processes that use the card at the same time.
    pub contexts: u32,
    /// Local addresses that a context can name.
    pub context_addresses: u32,
    /// Connections, from SYN-SENT or ESTABLISHED to the last close state before TIME-WAIT.
    pub connections: u32,
    /// Listeners.
    pub listeners: u32,
    /// The most connections of one listener that no program has taken yet, whatever the program asks for.
    pub backlog: u32,
    /// Half-open entries: connections in SYN-RECEIVED that a listener began (the SYN cache).
    pub half_open: u32,
    /// Connections in TIME-WAIT.
    pub time_wait: u32,
    /// Bytes of a page of send or receive memory: a power of two.
    pub page_bytes: u32,
    /// Pages for data to send, all connections together.
    pub send_pages: u32,
    /// Pages for received data, all connections together.
    pub receive_pages: u32,
    /// The most send pages of one connection: a power of two.
    pub connection_send_pages: u32,
    /// The most receive pages of one connection: a power of two.
    pub connection_receive_pages: u32,
    /// Records of segments in flight (one per segment sent and not yet acknowledged), all connections together.
    pub transmit_records: u32,
    /// Ranges of out-of-order data that one connection can hold.
    pub out_of_order_ranges: u32,
    /// Segments that belong to no connection and wait to be sent.
    pub segments: u32,
    /// Answers to guests that wait to be fetched.
    pub replies: u32,
    /// Events that wait for the card's host to read them.
    pub events: u32,
    /// Frames that wait for the guest's receive buffers before the card stops reading the wire.
    pub receive_fifo_frames: u32,
    /// What the card's processor can do: steps of work in a microsecond (see `docs/work.md`). Zero: as much as the machine.
    pub work_units_per_us: u32,
    /// Frames from the wire that wait while the processor is busy; those beyond are dropped.
    pub wire_fifo_frames: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            contexts: 64,
            context_addresses: 16,
            connections: 16_384,
            listeners: 512,
            backlog: 4096,
            half_open: 4096,
            time_wait: 16_384,
            page_bytes: 4096,
            send_pages: 40_960,
            receive_pages: 40_960,
            connection_send_pages: 1024,
            connection_receive_pages: 1024,
            transmit_records: 131_072,
            out_of_order_ranges: 32,
            segments: 1024,
            replies: 1024,
            events: 64,
            receive_fifo_frames: 1024,
            work_units_per_us: 0,
            wire_fifo_frames: 1024,
        }
    }
}

/// What is done with a request that a full pool refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The request fails; a SYN is dropped.
    Deny,
    /// The guest's own stack takes over; a SYN is passed on to it.
    Fallback,
    /// Another that holds some gives way, in the order of `engine::evict`; if none may, the request fails as with `Deny`.
    Evict,
}

impl Refusal {
    /// `deny`, `fallback` or `evict`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Fallback => "fallback",
            Self::Evict => "evict",
        }
    }
}

/// How much of a pool one context can have; zero, the default, for all of it. (However that is set: while a context
/// that has less than its share of a full pool asks for more, those that have theirs get no more of it.)
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Connections, those included that its programs have left and that are being closed.
    pub connections: u32,
    /// Listeners.
    pub listeners: u32,
    /// Half-open entries of its listeners.
    pub half_open: u32,
    /// Pages of data to send.
    pub send_pages: u32,
    /// Pages of received data.
    pub receive_pages: u32,
}

/// A congestion controller by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CongestionControl {
    /// RFC 5681 and 6582.
    NewReno,
    /// RFC 8312 and its successor.
    Cubic,
    /// RFC 8257; connections that the card opens ask for ECN, whatever `ecn` says but `off`.
    Dctcp,
    /// BBR, version 1, with pacing.
    Bbr,
}

/// When a SYN is answered with a cookie (RFC 4987, 3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SynCookies {
    /// Never: when there is no place for a half-open entry, the pool's policy decides.
    Off,
    /// When there is no place for a half-open entry, before the pool's policy is asked.
    WhenFull,
    /// Always: no half-open entry is ever made.
    Always,
}

/// TCP's parameters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Tcp {
    /// The controller of new connections.
    pub congestion: CongestionControl,
    /// Explicit congestion notification (RFC 3168).
    pub ecn: EcnPolicy,
    /// Maximum segment lifetime; TIME-WAIT lasts twice as long (RFC 9293, 3.4.2). In milliseconds.
    pub msl_ms: u32,
    /// The first congestion window, in segments (RFC 6928).
    pub initial_window_segments: u32,
    /// Lowest retransmission timeout, in milliseconds.
    pub rto_min_ms: u32,
    /// Highest retransmission timeout, in milliseconds.
    pub rto_max_ms: u32,
    /// How long an acknowledgement may wait for another to join, in milliseconds (RFC 9293, 3.8.6.3: below 500).
    pub delayed_ack_ms: u32,
    /// How many segments are acknowledged at once at the beginning of a connection, when every acknowledgement opens the
    /// peer's window; those after them may wait.
    pub quick_acks: u32,
    /// How long data may go unacknowledged before the connection is given up (R2 of RFC 9293, 3.8.3), in milliseconds.
    pub give_up_ms: u32,
    /// The same for a SYN, in milliseconds: three minutes at least, says the RFC.
    pub give_up_syn_ms: u32,
    /// When FINs cross, the acknowledgement of the peer's FIN repeats ours, as BSD's does. RFC 9293, figure 13, has a bare
    /// one; a peer that discards what it has seen before, as the RFC says, then takes a round trip longer.
    pub repeat_fin: bool,
    /// How often a SYN-ACK is sent again.
    pub syn_ack_retries: u32,
    /// When a SYN is answered with a cookie instead of a half-open entry (RFC 4987, 3.6).
    pub syn_cookies: SynCookies,
    /// Fast Open (RFC 7413) is there for programs that ask for it.
    pub fast_open: bool,
    /// Connections of one listener that may be open by Fast Open alone, their handshakes not complete.
    pub fast_open_pending: u32,
    /// Servers whose Fast Open cookies the card remembers.
    pub fast_open_servers: u32,
    /// How long a connection that its program has left may stay in FIN-WAIT-2, in milliseconds.
    pub fin_wait_2_ms: u32,
    /// How long a connection must have made no progress before it can be evicted, in milliseconds.
    pub stalled_ms: u32,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            congestion: CongestionControl::Cubic,
            ecn: EcnPolicy::WhenAsked,
            msl_ms: 30_000,
            initial_window_segments: 10,
            rto_min_ms: 200,
            rto_max_ms: 60_000,
            delayed_ack_ms: 40,
            quick_acks: 16,
            //= docs/specs/rfc9293.txt#section-3.8.3
            //# The value of R2 SHOULD correspond to at least 100 seconds (SHLD-11).
            give_up_ms: 900_000,
            //= docs/specs/rfc9293.txt#section-3.8.3
            //# In particular, R2 for a SYN segment MUST be set large enough to provide retransmission of the
            //# segment for at least 3 minutes (MUST-23).
            give_up_syn_ms: 180_000,
            repeat_fin: false,
            syn_ack_retries: 5,
            syn_cookies: SynCookies::WhenFull,
            fast_open: false,
            fast_open_pending: 16,
            fast_open_servers: 256,
            fin_wait_2_ms: 60_000,
            stalled_ms: 30_000,
        }
    }
}

/// What the card does about faults of its own (`docs/faults.md`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Recovery {
    /// Between two looks of the watchdog at the firmware's heart, in milliseconds. After three without an answer the firmware
    /// is started anew. Zero: nobody looks.
    pub watchdog_ms: u32,
    /// Steps of each of the host's calls for timers in which the firmware goes over its tables, for what is lost, left or
    /// damaged there. Zero: it does not.
    pub scrub_steps: u32,
    /// What is known of a connection is sealed after each change of it and looked at before the next.
    pub seals: bool,
    /// Payload that lies on the card is guarded by a CRC32C from when it comes to when it goes.
    pub payload_tags: bool,
}

impl Default for Recovery {
    fn default() -> Self {
        Self { watchdog_ms: 25, scrub_steps: 128, seals: true, payload_tags: false }
    }
}

/// A field of a profile that makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("profile field `{field}` is {value}; allowed: {allowed}")]
pub struct ProfileError {
    /// Its path, as `limits.connections`.
    pub field: &'static str,
    /// What it is.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

impl Profile {
    /// The names of the built-in profiles.
    pub const BUILT_IN: &'static [&'static str] = &["default", "tiny", "t6", "w5500"];

    /// The built-in profile of that name.
    ///
    /// * `default`: a card of the middle of the market.
    /// * `tiny`: so small that every limit is met within a minute.
    /// * `t6`: after the shape of a large offload engine, Chelsio's T6: as many connections, much memory, a long queue.
    /// * `w5500`: after WIZnet's chip: eight sockets, 16 KiB of memory for each direction, no stack to fall back to.
    pub fn built_in(name: &str) -> Option<Self> {
        match name {
            "default" => Some(Self::default()),
            "tiny" => Some(Self {
                limits: Limits {
                    contexts: 4,
                    context_addresses: 8,
                    connections: 8,
                    listeners: 2,
                    backlog: 8,
                    half_open: 8,
                    time_wait: 8,
                    page_bytes: 2048,
                    send_pages: 256,
                    receive_pages: 256,
                    connection_send_pages: 32,
                    connection_receive_pages: 32,
                    transmit_records: 512,
                    out_of_order_ranges: 8,
                    segments: 64,
                    replies: 64,
                    events: 16,
                    receive_fifo_frames: 64,
                    work_units_per_us: 0,
                    wire_fifo_frames: 64,
                },
                ..Self::default()
            }),
            "t6" => Some(Self {
                limits: Limits {
                    contexts: 256,
                    connections: 16_384,
                    half_open: 16_384,
                    time_wait: 16_384,
                    send_pages: 65_536,
                    receive_pages: 65_536,
                    transmit_records: 262_144,
                    receive_fifo_frames: 4096,
                    work_units_per_us: 0,
                    wire_fifo_frames: 4096,
                    ..Limits::default()
                },
                ..Self::default()
            }),
            "w5500" => Some(Self {
                limits: Limits {
                    contexts: 1,
                    context_addresses: 1,
                    connections: 8,
                    listeners: 8,
                    backlog: 1,
                    half_open: 8,
                    time_wait: 8,
                    page_bytes: 512,
                    send_pages: 32,
                    receive_pages: 32,
                    connection_send_pages: 32,
                    connection_receive_pages: 32,
                    transmit_records: 32,
                    out_of_order_ranges: 1,
                    segments: 16,
                    replies: 16,
                    events: 16,
                    receive_fifo_frames: 8,
                    work_units_per_us: 0,
                    wire_fifo_frames: 8,
                },
                policy: Policy {
                    contexts: Refusal::Deny,
                    connections: Refusal::Deny,
                    listeners: Refusal::Deny,
                    backlog: Refusal::Deny,
                    half_open: Refusal::Deny,
                    ..Policy::default()
                },
                ..Self::default()
            }),
            _ => None,
        }
    }

    /// Checks every field, and that they agree with each other: what is promised to each fits into what there is for all.
    ///
    /// # Errors
    /// The first field that is out of its range, in the order of their definition.
    pub fn validate(&self) -> Result<(), ProfileError> {
        self.validate_limits()?;
        for pool in Pool::ALL {
            let policy = self.policy.of(*pool);
            if !pool.policies().contains(&policy) {
                let allowed: Vec<_> = pool.policies().iter().map(|p| format!("`{}`", p.as_str())).collect();
                let (field, value) = (pool.policy_field(), format!("`{}`", policy.as_str()));
                return Err(ProfileError { field, value, allowed: allowed.join(" or ") });
            }
        }
        self.validate_quota()?;
        self.validate_tcp()?;
        let Recovery { watchdog_ms, scrub_steps, seals: _, payload_tags: _ } = self.recovery;
        range("recovery.watchdog_ms", watchdog_ms, 0, 1000)?;
        range("recovery.scrub_steps", scrub_steps, 0, 1024)
    }

    fn validate_limits(&self) -> Result<(), ProfileError> {
        let Limits {
            contexts,
            context_addresses,
            connections,
            listeners,
            backlog,
            half_open,
            time_wait,
            page_bytes,
            send_pages,
            receive_pages,
            connection_send_pages,
            connection_receive_pages,
            transmit_records,
            out_of_order_ranges,
            segments,
            replies,
            events,
            receive_fifo_frames,
            work_units_per_us,
            wire_fifo_frames,
        } = self.limits;
        range("limits.contexts", contexts, 1, 65_536)?;
        range("limits.context_addresses", context_addresses, 1, 256)?;
        range("limits.connections", connections, 1, 1 << 22)?;
        range("limits.listeners", listeners, 0, 65_536)?;
        range("limits.backlog", backlog, 1, 65_536)?;
        range("limits.half_open", half_open, 0, 1 << 22)?;
        range("limits.time_wait", time_wait, 0, 1 << 22)?;
        power_of_two("limits.page_bytes", page_bytes, 512, 65_536)?;
        // Two pages for each connection are what it is promised when it opens.
        let pages_min = connections.saturating_mul(PAGES_RESERVED);
        let pages_max = (MEMORY_BYTES_MAX / u64::from(page_bytes)).min(1 << 26) as u32;
        range("limits.send_pages", send_pages, pages_min, pages_max)?;
        range("limits.receive_pages", receive_pages, pages_min, pages_max)?;
        power_of_two("limits.connection_send_pages", connection_send_pages, 2, 1 << 16)?;
        power_of_two("limits.connection_receive_pages", connection_receive_pages, 2, 1 << 16)?;
        let records_min = connections.saturating_mul(RECORDS_RESERVED);
        range("limits.transmit_records", transmit_records, records_min, 1 << 26)?;
        range("limits.out_of_order_ranges", out_of_order_ranges, 1, 256)?;
        range("limits.segments", segments, 16, 1 << 20)?;
        range("limits.replies", replies, 16, 1 << 20)?;
        range("limits.events", events, 16, 65_536)?;
        range("limits.receive_fifo_frames", receive_fifo_frames, 1, 65_536)?;
        range("limits.work_units_per_us", work_units_per_us, 0, 1_000_000)?;
        range("limits.wire_fifo_frames", wire_fifo_frames, 1, 65_536)
    }

    /// A quota is no larger than its pool, and pages enough for the connections that it allows.
    fn validate_quota(&self) -> Result<(), ProfileError> {
        let Quota { connections, listeners, half_open, send_pages, receive_pages } = self.quota;
        range("quota.connections", connections, 0, self.limits.connections)?;
        range("quota.listeners", listeners, 0, self.limits.listeners)?;
        range("quota.half_open", half_open, 0, self.limits.half_open)?;
        let most = if connections == 0 { self.limits.connections } else { connections };
        let pages_min = most * PAGES_RESERVED;
        for (field, pages, limit) in [
            ("quota.send_pages", send_pages, self.limits.send_pages),
            ("quota.receive_pages", receive_pages, self.limits.receive_pages),
        ] {
            if pages != 0 && !(pages_min..=limit).contains(&pages) {
                let allowed = format!("0, or {pages_min} (two for each of its connections) to {limit}");
                return Err(ProfileError { field, value: pages.to_string(), allowed });
            }
        }
        Ok(())
    }

    fn validate_tcp(&self) -> Result<(), ProfileError> {
        let Tcp {
            congestion: _,
            ecn: _,
            msl_ms,
            initial_window_segments,
            rto_min_ms,
            rto_max_ms,
            delayed_ack_ms,
            quick_acks,
            give_up_ms,
            give_up_syn_ms,
            repeat_fin: _,
            syn_ack_retries,
            syn_cookies: _,
            fast_open: _,
            fast_open_pending,
            fast_open_servers,
            fin_wait_2_ms,
            stalled_ms,
        } = self.tcp;
        range("tcp.msl_ms", msl_ms, 1, 120_000)?;
        range("tcp.initial_window_segments", initial_window_segments, 1, 64)?;
        range("tcp.rto_min_ms", rto_min_ms, 1, 60_000)?;
        range("tcp.rto_max_ms", rto_max_ms, rto_min_ms.max(1000), 3_600_000)?;
        //= docs/specs/rfc9293.txt#section-3.8.6.3
        //# in particular, the delay MUST be less than 0.5 seconds (MUST-40).
        range("tcp.delayed_ack_ms", delayed_ack_ms, 0, 499)?;
        range("tcp.quick_acks", quick_acks, 0, 1024)?;
        range("tcp.give_up_ms", give_up_ms, 1000, 86_400_000)?;
        range("tcp.give_up_syn_ms", give_up_syn_ms, 1000, 86_400_000)?;
        range("tcp.syn_ack_retries", syn_ack_retries, 0, 15)?;
        range("tcp.fast_open_pending", fast_open_pending, 0, 65_536)?;
        range("tcp.fast_open_servers", fast_open_servers, 0, 65_536)?;
        range("tcp.fin_wait_2_ms", fin_wait_2_ms, 1, 86_400_000)?;
        range("tcp.stalled_ms", stalled_ms, 1000, 86_400_000)
    }
}

/// The most payload memory of one direction, in bytes.
const MEMORY_BYTES_MAX: u64 = 1 << 36;

/// Pages of each kind that a connection can always have.
pub(crate) const PAGES_RESERVED: u32 = 2;

/// Transmit records that a connection can always have.
pub(crate) const RECORDS_RESERVED: u32 = 4;

fn range(field: &'static str, value: u32, min: u32, max: u32) -> Result<(), ProfileError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ProfileError { field, value: value.to_string(), allowed: format!("{min} to {max}") })
}

fn power_of_two(field: &'static str, value: u32, min: u32, max: u32) -> Result<(), ProfileError> {
    if value.is_power_of_two() && (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ProfileError { field, value: value.to_string(), allowed: format!("a power of two from {min} to {max}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_profiles_are_valid() {
        for name in Profile::BUILT_IN {
            Profile::built_in(name).unwrap().validate().unwrap();
        }
        assert_eq!(Profile::built_in("huge"), None);
    }

    //= docs/specs/rfc9293.txt#section-3.8.6.3
    //= type=test
    //# in particular, the delay MUST be less than 0.5 seconds (MUST-40).
    #[test]
    fn a_field_out_of_range_is_named_with_its_range() {
        let mut p = Profile::default();
        p.limits.page_bytes = 3000;
        let text = p.validate().unwrap_err().to_string();
        assert_eq!(text, "profile field `limits.page_bytes` is 3000; allowed: a power of two from 512 to 65536");
        p = Profile::default();
        p.limits.send_pages = 32_767;
        assert_eq!(p.validate().unwrap_err().field, "limits.send_pages");
        p = Profile::default();
        p.tcp.delayed_ack_ms = 500;
        assert_eq!(p.validate().unwrap_err().allowed, "0 to 499");
    }

    /// What is promised to each must fit into what there is for all.
    #[test]
    fn a_profile_is_checked_as_a_whole() {
        let refused = |change: fn(&mut Profile)| {
            let mut p = Profile::default();
            change(&mut p);
            p.validate().unwrap_err().to_string()
        };
        assert_eq!(
            refused(|p| p.limits.connections = 30_000),
            "profile field `limits.send_pages` is 40960; allowed: 60000 to 16777216",
        );
        assert_eq!(
            refused(|p| p.quota.connections = 16_385),
            "profile field `quota.connections` is 16385; allowed: 0 to 16384",
        );
        assert_eq!(
            refused(|p| (p.quota.connections, p.quota.receive_pages) = (100, 199)),
            "profile field `quota.receive_pages` is 199; allowed: 0, or 200 (two for each of its connections) to 40960",
        );
        assert_eq!(
            refused(|p| p.policy.time_wait = Refusal::Fallback),
            "profile field `policy.time_wait` is `fallback`; allowed: `evict`",
        );
        assert_eq!(
            refused(|p| p.policy.send_pages = Refusal::Fallback),
            "profile field `policy.send_pages` is `fallback`; allowed: `deny` or `evict`",
        );
    }

    /// Every policy of every pool is taken if it is one of the pool's own, and else refused by its name.
    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        for pool in Pool::ALL {
            for policy in [Refusal::Deny, Refusal::Fallback, Refusal::Evict] {
                let mut p = Profile::default();
                *p.policy.of_mut(*pool) = policy;
                let result = p.validate();
                assert_eq!(result.is_ok(), pool.policies().contains(&policy), "{pool:?} {policy:?}");
                assert!(result.err().is_none_or(|e| e.field == pool.policy_field()));
            }
        }
    }
}

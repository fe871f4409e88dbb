//! The card's profile: every capacity and every default, fixed at boot.
//!
//! A profile is data (a TOML file on the host); this module knows its fields, their ranges and the built-in ones.
//! What a profile says is what is enforced: no pool grows, and none refuses before it is full.

use serde::{Deserialize, Serialize};

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
    /// TCP's parameters.
    pub tcp: Tcp,
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
    /// Answers to the guest and segments without a connection that wait to be fetched.
    pub replies: u32,
    /// Frames that wait for the guest's receive buffers before the card stops reading the wire.
    pub receive_fifo_frames: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            contexts: 64,
            context_addresses: 16,
            connections: 4096,
            listeners: 256,
            half_open: 2048,
            time_wait: 8192,
            page_bytes: 4096,
            send_pages: 16_384,
            receive_pages: 16_384,
            connection_send_pages: 1024,
            connection_receive_pages: 1024,
            transmit_records: 65_536,
            out_of_order_ranges: 32,
            replies: 1024,
            receive_fifo_frames: 1024,
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
}

impl Refusal {
    /// `deny` or `fallback`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Fallback => "fallback",
        }
    }
}

/// What happens when a pool is full.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// For contexts.
    pub contexts: Refusal,
    /// For connections and the memory that each needs from the start.
    pub connections: Refusal,
    /// For listeners.
    pub listeners: Refusal,
    /// For half-open entries.
    pub half_open: Refusal,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            contexts: Refusal::Fallback,
            connections: Refusal::Fallback,
            listeners: Refusal::Fallback,
            half_open: Refusal::Fallback,
        }
    }
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
    /// Fast Open (RFC 7413) is there for programs that ask for it.
    pub fast_open: bool,
    /// Connections of one listener that may be open by Fast Open alone, their handshakes not complete.
    pub fast_open_pending: u32,
    /// Servers whose Fast Open cookies the card remembers.
    pub fast_open_servers: u32,
    /// How long a connection that its program has left may stay in FIN-WAIT-2, in milliseconds.
    pub fin_wait_2_ms: u32,
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
            fast_open: false,
            fast_open_pending: 16,
            fast_open_servers: 256,
            fin_wait_2_ms: 60_000,
        }
    }
}

/// A field of a profile that makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("profile field `{field}` is {value}; allowed: {allowed}")]
pub struct ProfileError {
    /// Its path, as `limits.connections`.
    pub field: &'static str,
    /// What it is.
    pub value: u64,
    /// What it may be.
    pub allowed: String,
}

impl Profile {
    /// The names of the built-in profiles.
    pub const BUILT_IN: &'static [&'static str] = &["default", "tiny"];

    /// The built-in profile of that name.
    ///
    /// * `default`: a card of the middle of the market.
    /// * `tiny`: so small that every limit is met within a minute.
    pub fn built_in(name: &str) -> Option<Self> {
        match name {
            "default" => Some(Self::default()),
            "tiny" => Some(Self {
                limits: Limits {
                    contexts: 4,
                    context_addresses: 8,
                    connections: 8,
                    listeners: 2,
                    half_open: 8,
                    time_wait: 8,
                    page_bytes: 2048,
                    send_pages: 256,
                    receive_pages: 256,
                    connection_send_pages: 32,
                    connection_receive_pages: 32,
                    transmit_records: 512,
                    out_of_order_ranges: 8,
                    replies: 64,
                    receive_fifo_frames: 64,
                },
                ..Self::default()
            }),
            _ => None,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range, in the order of their definition.
    pub fn validate(&self) -> Result<(), ProfileError> {
        let Limits {
            contexts,
            context_addresses,
            connections,
            listeners,
            half_open,
            time_wait,
            page_bytes,
            send_pages,
            receive_pages,
            connection_send_pages,
            connection_receive_pages,
            transmit_records,
            out_of_order_ranges,
            replies,
            receive_fifo_frames,
        } = self.limits;
        range("limits.contexts", contexts, 1, 65_536)?;
        range("limits.context_addresses", context_addresses, 1, 256)?;
        range("limits.connections", connections, 1, 1 << 22)?;
        range("limits.listeners", listeners, 0, 65_536)?;
        range("limits.half_open", half_open, 0, 1 << 22)?;
        range("limits.time_wait", time_wait, 0, 1 << 22)?;
        power_of_two("limits.page_bytes", page_bytes, 512, 65_536)?;
        power_of_two("limits.connection_send_pages", connection_send_pages, 2, 1 << 16)?;
        power_of_two("limits.connection_receive_pages", connection_receive_pages, 2, 1 << 16)?;
        // Two pages for each connection are what it is promised when it opens.
        let pages_min = connections.saturating_mul(PAGES_RESERVED);
        range("limits.send_pages", send_pages, pages_min, 1 << 26)?;
        range("limits.receive_pages", receive_pages, pages_min, 1 << 26)?;
        let records_min = connections.saturating_mul(RECORDS_RESERVED);
        range("limits.transmit_records", transmit_records, records_min, 1 << 26)?;
        range("limits.out_of_order_ranges", out_of_order_ranges, 1, 256)?;
        range("limits.replies", replies, 16, 1 << 20)?;
        range("limits.receive_fifo_frames", receive_fifo_frames, 1, 65_536)?;
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
            fast_open: _,
            fast_open_pending,
            fast_open_servers,
            fin_wait_2_ms,
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
        range("tcp.fin_wait_2_ms", fin_wait_2_ms, 1, 86_400_000)
    }
}

/// Pages of each kind that a connection can always have.
pub(crate) const PAGES_RESERVED: u32 = 2;

/// Transmit records that a connection can always have.
pub(crate) const RECORDS_RESERVED: u32 = 4;

fn range(field: &'static str, value: u32, min: u32, max: u32) -> Result<(), ProfileError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ProfileError { field, value: value.into(), allowed: format!("{min} to {max}") })
}

fn power_of_two(field: &'static str, value: u32, min: u32, max: u32) -> Result<(), ProfileError> {
    if value.is_power_of_two() && (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ProfileError { field, value: value.into(), allowed: format!("a power of two from {min} to {max}") })
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
        p.limits.send_pages = 8191;
        assert_eq!(p.validate().unwrap_err().field, "limits.send_pages");
        p = Profile::default();
        p.tcp.delayed_ack_ms = 500;
        assert_eq!(p.validate().unwrap_err().allowed, "0 to 499");
    }
}

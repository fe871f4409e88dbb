//! The pools: everything of which the card has a limited number, in one list.
//!
//! The list makes the names, the policies of the profile, what is published, what is tested and the table in
//! `docs/limits.md`. Who adds a pool is led through all of these by the compiler and by tests that go over
//! [`Pool::ALL`].
//!
//! There are three kinds ([`Kind`]). Of a *shared* pool anybody may take what is free. A *divided* one is cut into equal
//! parts, one for each who may hold some, and each fills its own part; its capacity is their sum. Of an *owned* one
//! everybody who can need one has one from the beginning, so that it never refuses: its capacity is the number of all of
//! them, which is why it cannot run out.

use serde::{Deserialize, Serialize};
use toe_abi::Reason;

use crate::profile::{Profile, Refusal};
use crate::tcp::timeout;
use Refusal::{Deny, Evict, Fallback};

/// How a pool is shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// What is free is free for all.
    Shared,
    /// Equal parts, one for each holder.
    Divided,
    /// One for each who can need one.
    Owned,
}

impl Kind {
    /// In one word, as documentation has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Divided => "divided",
            Self::Owned => "owned",
        }
    }
}

macro_rules! pools {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident = $text:literal, $field:ident, $kind:ident, [$first:ident $(, $other:ident)*], $reason:ident, $sum:literal;
    )*) => {
        /// A pool.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Pool { $( $(#[doc = $doc])+ $name, )* }

        impl Pool {
            /// All of them, in the order in which they are published.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name, as it is published.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// How it is shared.
            pub fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }

            /// The policies that make sense for it, the default first.
            pub fn policies(self) -> &'static [Refusal] {
                match self { $(Self::$name => &[$first $(, $other)*],)* }
            }

            /// The reason of a refusal because it is full.
            pub fn reason(self) -> Reason {
                match self { $(Self::$name => Reason::$reason,)* }
            }

            /// Its capacity as the sum of those who may hold some, in terms of the profile.
            pub fn sum(self) -> &'static str {
                match self { $(Self::$name => $sum,)* }
            }

            /// The policy's field in a profile.
            pub(crate) fn policy_field(self) -> &'static str {
                match self { $(Self::$name => concat!("policy.", stringify!($field)),)* }
            }

            /// What it holds, in a sentence.
            pub fn about(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)* }
            }
        }

        /// What happens when a pool is full, of each pool.
        #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields, default)]
        pub struct Policy {
            $( $(#[doc = $doc])+ pub $field: Refusal, )*
        }

        impl Default for Policy {
            fn default() -> Self {
                Self { $($field: $first,)* }
            }
        }

        impl Policy {
            /// Of this pool.
            pub fn of(&self, pool: Pool) -> Refusal {
                match pool { $(Pool::$name => self.$field,)* }
            }

            /// Of this pool, to be changed.
            pub fn of_mut(&mut self, pool: Pool) -> &mut Refusal {
                match pool { $(Pool::$name => &mut self.$field,)* }
            }
        }
    };
}

pools! {
    /// Contexts: guest processes that use the card at the same time.
    Contexts = "contexts", contexts, Shared, [Fallback, Deny], Contexts, "contexts";
    /// Addresses that contexts have named as their guest's.
    ContextAddresses = "context-addresses", context_addresses, Divided, [Deny], Addresses,
        "contexts × context_addresses";
    /// Connections, from SYN-SENT or ESTABLISHED to the last close state before TIME-WAIT, and until the guest releases them.
    Connections = "connections", connections, Shared, [Fallback, Deny, Evict], Connections, "connections";
    /// Listeners.
    Listeners = "listeners", listeners, Shared, [Fallback, Deny], Listeners, "listeners";
    /// Connections of listeners that no program has taken yet.
    Backlog = "backlog", backlog, Divided, [Fallback, Deny], Backlog, "listeners × backlog";
    /// Half-open entries: connections in SYN-RECEIVED that a listener began (the SYN cache).
    HalfOpen = "half-open", half_open, Shared, [Fallback, Deny, Evict], HalfOpen, "half_open";
    /// Connections in TIME-WAIT; the oldest gives way.
    TimeWait = "time-wait", time_wait, Shared, [Evict], TimeWait, "time_wait";
    /// Pages of data to send.
    SendPages = "send-pages", send_pages, Shared, [Deny, Evict], SendMemory, "send_pages, of them 2 × connections reserved";
    /// Pages of received data.
    ReceivePages = "receive-pages", receive_pages, Shared, [Deny, Evict], ReceiveMemory,
        "receive_pages, of them 2 × connections reserved";
    /// Records of segments in flight.
    TransmitRecords = "transmit-records", transmit_records, Shared, [Deny], TransmitRecords,
        "transmit_records, of them 4 × connections reserved";
    /// Stretches of data beyond a gap.
    OutOfOrderRanges = "out-of-order-ranges", out_of_order_ranges, Divided, [Deny], OutOfOrder,
        "connections × out_of_order_ranges";
    /// 4-tuples that are the card's: the places of its hash table.
    Tuples = "tuples", tuples, Owned, [Deny], Connections, "connections + half_open + time_wait";
    /// Timers that are running.
    Timers = "timers", timers, Owned, [Deny], None, "connections × 6 + half_open + time_wait + contexts";
    /// Segments that belong to no connection and wait to be sent: of half-open and TIME-WAIT entries, and resets.
    Segments = "segments", segments, Shared, [Deny], Segments, "segments";
    /// Answers to guests that wait to be fetched.
    Replies = "replies", replies, Shared, [Deny], Replies, "replies";
    /// Events that wait for the card's host.
    Events = "events", events, Shared, [Deny], Events, "events";
    /// Servers whose Fast Open cookies the card remembers; the oldest gives way.
    FastOpenServers = "fast-open-servers", fast_open_servers, Shared, [Evict], FastOpenServers,
        "tcp.fast_open_servers, if tcp.fast_open";
    /// Connections of listeners that are open by Fast Open alone.
    FastOpenPending = "fast-open-pending", fast_open_pending, Divided, [Deny], FastOpenPending,
        "listeners × tcp.fast_open_pending, if tcp.fast_open";
    /// Frames from the wire that wait while the card's processor is busy, those of connections apart.
    WireFifo = "wire-fifo", wire_fifo, Shared, [Deny], ProcessorBusy, "wire_fifo_frames";
    /// Segments of the card's connections that wait while its processor is busy.
    ConnectionFifo = "connection-fifo", connection_fifo, Shared, [Deny], ProcessorBusy, "wire_fifo_frames";
}

impl Pool {
    /// Its capacity: the sum of all who may hold some.
    pub fn capacity(self, profile: &Profile) -> u64 {
        let l = &profile.limits;
        let n = |n: u32| u64::from(n);
        let objects = n(l.connections) + n(l.half_open) + n(l.time_wait);
        match self {
            Self::Contexts => n(l.contexts),
            Self::ContextAddresses => n(l.contexts) * n(l.context_addresses),
            Self::Connections => n(l.connections),
            Self::Listeners => n(l.listeners),
            Self::Backlog => n(l.listeners) * n(l.backlog),
            Self::HalfOpen => n(l.half_open),
            Self::TimeWait => n(l.time_wait),
            Self::SendPages => n(l.send_pages),
            Self::ReceivePages => n(l.receive_pages),
            Self::TransmitRecords => n(l.transmit_records),
            Self::OutOfOrderRanges => n(l.connections) * n(l.out_of_order_ranges),
            Self::Tuples => objects,
            Self::Timers => objects + n(l.connections) * (timeout::Kind::ALL.len() as u64 - 1) + n(l.contexts),
            Self::Segments => n(l.segments),
            Self::Replies => n(l.replies),
            Self::Events => n(l.events),
            Self::FastOpenServers if profile.tcp.fast_open => n(profile.tcp.fast_open_servers),
            Self::FastOpenPending if profile.tcp.fast_open => n(l.listeners) * n(profile.tcp.fast_open_pending),
            Self::FastOpenServers | Self::FastOpenPending => 0,
            Self::WireFifo | Self::ConnectionFifo => n(l.wire_fifo_frames),
        }
    }

    /// The most that one holder can have; zero if the capacity alone bounds it.
    pub fn each(self, profile: &Profile) -> u32 {
        let l = &profile.limits;
        match self {
            Self::ContextAddresses => l.context_addresses,
            Self::Backlog => l.backlog,
            Self::SendPages => l.connection_send_pages,
            Self::ReceivePages => l.connection_receive_pages,
            Self::OutOfOrderRanges => l.out_of_order_ranges,
            Self::Timers => timeout::Kind::ALL.len() as u32,
            Self::Tuples => 1,
            Self::FastOpenPending if profile.tcp.fast_open => profile.tcp.fast_open_pending,
            Self::Contexts
            | Self::Connections
            | Self::Listeners
            | Self::HalfOpen
            | Self::TimeWait
            | Self::TransmitRecords
            | Self::Segments
            | Self::Replies
            | Self::Events
            | Self::FastOpenServers
            | Self::FastOpenPending
            | Self::WireFifo
            | Self::ConnectionFifo => 0,
        }
    }

    /// The table of all pools in `docs/limits.md`, with their capacities in a profile.
    pub fn table(profile: &Profile) -> String {
        let head = "| pool | what it holds | kind | capacity | in `default` | policies, the default first |\n\
                    |---|---|---|---|---:|---|\n";
        let row = |pool: &Self| {
            let policies: Vec<_> = pool.policies().iter().map(|p| format!("`{}`", p.as_str())).collect();
            let about = pool.about().trim().trim_end_matches('.');
            format!(
                "| `{}` | {about} | {} | {} | {} | {} |\n",
                pool.name(),
                pool.kind().as_str(),
                pool.sum(),
                pool.capacity(profile),
                policies.join(", "),
            )
        };
        Self::ALL.iter().map(row).fold(head.to_owned(), |table, row| table + &row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_indices_are_those_of_the_list() {
        for (i, pool) in Pool::ALL.iter().enumerate() {
            assert_eq!(*pool as usize, i);
            assert!(Pool::ALL.iter().all(|other| other == pool || other.name() != pool.name()));
        }
        assert!(Pool::ALL.len() <= u64::BITS as usize, "a bit for each in a word of news");
    }

    /// `docs/limits.md` has the table as it is here.
    #[test]
    fn the_documented_table_is_this_list() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limits.md");
        let text = std::fs::read_to_string(path).unwrap();
        let table = Pool::table(&Profile::default());
        assert!(text.contains(&table), "docs/limits.md must have this table:\n\n{table}");
    }
}

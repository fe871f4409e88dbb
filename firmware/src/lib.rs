//! The card's firmware: an offloaded TCP stack with finite state.
//!
//! A [`Firmware`] is handed frames from the wire and from the guest, and the time; it hands back frames for both and the
//! time at which it wants to be called again. It reads no clock, does no I/O, starts no thread, and after
//! [`Firmware::new`] it allocates nothing. The same inputs give the same outputs, bit for bit.
//!
//! | module | what it knows |
//! |---|---|
//! | `engine` | whose a frame is, whose turn it is, the channel's requests and news |
//! | `tcp` | one connection: RFC 9293 and what was added to it |
//! | `wire` | Ethernet, IP and TCP as bytes |
//! | `store` | the card's memory: slabs, pages, queues, the table, the timer wheel |
//! | `pool`, `profile` | the list of all pools; every limit and default |
//! | `chance`, `seq`, `time`, `counters` | keys, sequence numbers, moments, what is counted |
//! | `fault` | faults on demand: sites, rules, what they do and what is counted of them |
//! | `work` | the steps that all of it takes |
//! | `watchdog` | what watches a firmware from outside, and when it is booted anew |

#![forbid(unsafe_code)]

mod chance;
mod counters;
mod engine;
pub mod fault;
mod pool;
mod profile;
mod seq;
mod store;
#[cfg(test)]
mod taxonomy;
mod tcp;
#[cfg(test)]
mod testing;
mod time;
mod watchdog;
mod wire;
mod work;

pub use engine::{
    Call, Checksum, ConnectionBytes, Contradiction, Event, Finding, Firmware, Halt, HostMemory, Lane, SelfTestError,
    Verdict, Way, Work,
};
pub use pool::{Kind, Pool};
pub use profile::{
    CongestionControl, Limits, Policy, Profile, ProfileError, Quota, Recovery, Refusal, SynCookies, Tcp,
};
pub use store::gauge::Level;
pub use tcp::ecn::EcnPolicy;
pub use time::{Duration, Instant};
pub use watchdog::{Cure, LOOK, MISSES, TRUST, Watchdog};
pub use wire::offload::{Made, Offload, Rest};

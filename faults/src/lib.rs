//! Fault rules from a file, in the manner of QEMU's blkdebug: it says at which site, when, to whom and what.
//!
//! What a rule is and how it strikes, [`toe_firmware::fault`] knows; here a file becomes [`Rules`], or is refused.
//!
//! ```toml
//! [[rule]]
//! site = "wire.rx.frame"
//! when = { from = 3, to = 9, every = 2 }
//! filter = { remote = "192.0.2.2:7000", flags = "FIN" }
//! action = "drop"
//! times = 2
//! next = "lossy"
//! ```
//!
//! | key of `when` | strikes |
//! |---|---|
//! | `nth` | at that passage of the site, counted from 1 |
//! | `from`, `to`, `every` | from one to another, both included, and of these at the first and then every so many |
//! | `share` | at a share of them, `"0.5%"` |
//! | `after`, `before` | within a time since the faults were armed: `"1500us"`, `"20ms"`, `"3s"` |
//! | `after_bytes` | once so many bytes have passed the site |
//! | `state` | in that state of the rules only; the first is `start` |
//!
//! All of them that are given must hold; none means always.
//!
//! | key of `filter` | to whom |
//! |---|---|
//! | `local`, `remote` | connections with that end, the card's and the peer's: `"192.0.2.2:7000"`, `"192.0.2.2"`, `":7000"` |
//! | `flags` | segments with these flags (and perhaps others): `"SYN ACK"` |
//! | `state` | connections in one of these states: `"established close-wait"` |
//! | `context` | connections of that context of the guest, by its place |
//! | `card` | that card, where there are several |
//!
//! | action | what it does |
//! |---|---|
//! | `"drop"`, `"duplicate"`, `{ delay = "5ms" }`, `{ reorder = 3 }` | it never comes, comes twice, later, behind three others |
//! | `"flip-bit"`, `{ truncate = 60 }` | one bit of it is turned over; it ends after so many bytes |
//! | `"corrupt"`, `{ corrupt = 7 }` | it has a value by chance, or this one |
//! | `"error"`, `"leak"` | it fails; it is never given back |
//! | `"early"` | it comes before its time |
//! | `"hang"`, `{ hang = "50ms" }` | it stands still until the card is reset, or for so long |
//! | `"crash"`, `"crash-kept"` | the firmware stops, and what it held is lost or not |
//! | `{ slow = 8 }`, `{ slow = 8, lasting = "50ms" }` | it is so many times slower |
//! | `{ jump = "5s" }` | time goes on by so much at once |
//!
//! A rule that makes no sense is refused with its line: a site, flag or state that does not exist (and the nearest that
//! do), an action that the site cannot do, a filter that can never match, times that contradict each other. The sites,
//! and what each can do, are in `docs/fault-sites.md`.

#![forbid(unsafe_code)]

mod near;
mod rule;

pub use rule::{RuleError, read};
pub use toe_firmware::fault::{Action, ActionKind, Injector, Look, Record, Rule, Rules, Site};

#[cfg(test)]
mod tests;

//! Faults by rules, in the manner of QEMU's blkdebug: a file says at which site, when, to whom and what.
//!
//! A [`Site`] is a place that something passes, with a stable dotted name. A rule names one, says when it strikes (the
//! n-th passage, a range, every so many, a share, a time, an amount of bytes, a state) and to whom (ends of a connection, flags, a
//! card), what it does ([`Action`]), how often at most, and the state that it leads to. Of the rules of a site the first
//! that matches strikes. Each strike leaves a [`Record`].
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
//! | `after`, `before` | within a time since the start: `"1500us"`, `"20ms"`, `"3s"` |
//! | `after_bytes` | once so many bytes have passed the site |
//! | `state` | in that state only; the first is `start` |
//!
//! All of them that are given must hold; none means always. Chance comes from one stream for each site, keyed by its name, so
//! that a new site never shifts what another draws. Nothing here has a clock or does I/O, and once the rules are
//! read, nothing but the records is allocated.
//!
//! A rule that makes no sense is refused with its line: a site, flag or state that does not exist (and the nearest that
//! do), an action that the site cannot do, a filter that can never match, times that contradict each other.

#![forbid(unsafe_code)]

mod inject;
mod near;
mod rule;
mod site;

pub use inject::{Injector, Look, Record};
pub use rule::{RuleError, Rules};
pub use site::{Action, ActionKind, Site};

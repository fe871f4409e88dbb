//! A black-box scan of a TCP endpoint over a real wire: what RFC 9293 demands and a stranger can see.
//!
//! The scanner is a host of its own on the wire: it makes its segments by hand ([`probe`]), so that they can be wrong, and
//! knows of the other end only an address, a port with an echo service behind it, and a port with nothing. Each
//! [`Check`] opens its own connections from ports of their own and says in one line what came instead of what
//! must come. The same checks run against the card and against the Linux kernel ([`Target`]).
//!
//! What bounds it: a check waits [`PATIENCE`] for what must come and [`SILENCE`] for what must not; there are
//! [`CHECKS`], each with fewer than twenty segments.

mod checks;
mod probe;
mod target;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

pub use checks::CHECKS;
pub use probe::Probe;
pub use target::Target;

/// How long is waited for an answer that must come.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long is waited to see that none comes.
pub const SILENCE: Duration = Duration::from_millis(300);

/// Something that every TCP must do.
pub struct Check {
    /// In a word or two.
    pub name: &'static str,
    /// Where it is demanded.
    pub source: &'static str,
    /// Does it; the error says what was wrong.
    pub run: fn(&mut Probe) -> Result<()>,
}

/// What became of a check.
pub struct Verdict {
    /// Which.
    pub check: &'static Check,
    /// Over which protocol.
    pub ip: IpAddr,
    /// What was wrong, if something was.
    pub fault: Option<String>,
}

/// Runs all checks against a target, over both protocols.
///
/// # Errors
/// If the target cannot be scanned at all; what a check finds is in its verdict.
pub fn scan(target: &Target) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for ip in target.addresses() {
        let mut probe = target.probe(ip)?;
        for check in CHECKS {
            let fault = (check.run)(&mut probe).err().map(|e| format!("{e:#}"));
            verdicts.push(Verdict { check, ip, fault });
        }
    }
    Ok(verdicts)
}

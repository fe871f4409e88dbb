//! The card's firmware in a world made from a seed.
//!
//! Two *ends* are joined by two bad links ([`toe_impair::Link`]) and stepped from event to event; no clock, socket or
//! thread takes part, so an hour on the wire is a moment here, and everything follows from one seed. An end is the
//! firmware with a model of the guest that drives it over the channel, smoltcp, which is written by others and so errs
//! elsewhere, or an adversary. Programs send, read, close and abort by a random plan and check every byte; an onlooker at each
//! card checks every segment that it sends.
//!
//! The property: what one end sent is what the other read, byte for byte, in order, or both were told that it broke.

mod adversary;
mod app;
mod card;
mod chance;
mod costs;
mod end;
mod excuse;
mod frames;
mod fuzz;
mod guest;
mod host;
mod intruder;
mod kernel;
mod nightly;
mod oracle;
mod parts;
mod passed;
mod pattern;
mod run;
mod scenes;
mod singles;
mod smol;
#[cfg(test)]
mod tests;
mod transcript;
mod world;

pub use fuzz::run as run_string;
pub use nightly::nightly;
pub use passed::{Passed, passed};
pub use run::{Counts, Order, Violation, judged, range, replay, replay_string};
pub use scenes::{Ends, Named, named};
pub use singles::single_faults;

/// The scenarios: their names, and what each is about.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    scenes::ALL.iter().map(|s| (s.name, s.about))
}

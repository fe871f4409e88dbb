//! A bad link, made in-process: one direction of a wire that loses, repeats, reorders, damages and delays frames.
//!
//! A [`Link`] is handed Ethernet frames and the time; it hands them back when they are due, or never. It has no
//! clock and no source of chance but its seed: the same calls give the same frames at the same times on every
//! machine, because all of it is integer arithmetic over one generator ([`Random`]). So a test that fails under
//! some seed fails under it for ever.
//!
//! What a link does is said by a [`Spec`], in text `loss=1%,delay=10ms`. For each frame, in this order: it is too long or
//! not; it is lost or not, alone or in a stretch; it is sent once or twice; each copy is marked or not, damaged or not; it
//! waits for the link's rate, or is dropped if more
//! waits than the queue holds; it travels for the delay and the jitter; it is held back or not, so that later ones
//! overtake it.
//!
//! A link is a wire, so it must be handed frames as they would be on one: with complete checksums (damage to a frame
//! whose checksum is filled in afterwards would go unnoticed) and not longer than the MTU (a merged segment would be
//! lost as a whole).

#![forbid(unsafe_code)]

mod link;
mod random;
mod spec;

pub use link::{Link, Statistics, turn_a_bit};
pub use random::Random;
pub use spec::{Burst, Rate, Share, Spec, SpecError};

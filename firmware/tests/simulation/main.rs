//! Two stacks in virtual time.
//!
//! Two *ends* are joined by two bad links ([`toe_impair::Link`]) and stepped from event to event; no clock, socket or
//! thread takes part, so an hour on the wire is a moment here, and everything follows from one seed. An end is the
//! firmware with a model of the guest that drives it over the channel ([`card::CardEnd`]), or smoltcp
//! ([`smol::SmolEnd`]), which is written by others and so errs elsewhere. On both run programs ([`app::App`]) that send,
//! read, close and abort by a random plan and check every byte.
//!
//! The property: what one end sent is what the other read, byte for byte, in order, or both were told that it broke.
//!
//! * `TOE_SEEDS=1000` runs the first thousand seeds of every seeded test instead of its ordinary number (a tenth of them
//!   of those with hostile input).
//! * `TOE_SEED=17` runs this seed alone and prints every frame with its time (of named cases, too).

mod app;
mod card;
mod end;
mod frames;
mod guest;
mod host;
mod kernel;
mod pattern;
mod scenario;
mod seeds;
mod smol;
mod transcript;
mod world;

mod allocations;
mod harness_tests;
mod hostile;
mod two_stacks;
mod work;

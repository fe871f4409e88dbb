//! Two stacks in virtual time, named cases and seeded ones.
//!
//! * `TOE_SEEDS=1000` runs the first thousand seeds of every seeded test instead of its ordinary number (a tenth of them
//!   of those with hostile input).
//! * `TOE_SEED=17` runs this seed alone and prints every frame with its time.

mod allocations;
mod corpus;
mod harness_tests;
mod hostile;
mod oracle_tests;
mod runs;
mod scenario;
mod seeds;
mod two_stacks;
mod work;

//! The card's memory: everything that is allocated at boot, and nothing after.

pub mod gauge;
pub mod pages;
pub mod queue;
pub mod slab;
pub mod table;
pub mod tags;
pub mod wheel;

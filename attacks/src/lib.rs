//! The known attacks on a TCP offload engine, each against a standard card.

pub mod attacks;
pub mod device;
pub mod frames;
pub mod fuzz;
pub mod lab;
pub mod program;
pub mod puppets;
pub mod report;
pub mod run;
pub mod steps;

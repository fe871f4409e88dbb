//! x
mod engine;
mod error;

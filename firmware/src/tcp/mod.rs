//! TCP (RFC 9293 and what has been added to it), one connection at a time.
//!
//! A connection is a [`tcb::Tcb`]. Nothing in here knows of frames, tables or the channel: a segment comes in
//! ([`arrives`]), time passes ([`timeout`]), the program asks for something ([`calls`]), and [`output`] says what to
//! send next. What the connection then wants of its surroundings (timers, its turn to send, something to tell the
//! guest) stands in its fields, where the engine looks after each of these calls.

pub mod arrives;
pub mod bbr;
pub mod bugs;
pub mod calls;
pub mod congestion;
pub mod cubic;
pub mod damage;
pub mod dctcp;
pub mod delivery;
pub mod ecn;
pub mod fast_open;
pub mod half_open;
pub mod hystart;
pub mod icmp;
pub mod notice;
pub mod output;
pub mod pacing;
pub mod path_mtu;
pub mod prediction;
pub mod ranges;
pub mod receive;
pub mod records;
pub mod recovery;
pub mod ring;
pub mod rtt;
pub mod seal;
pub mod send;
pub mod settings;
pub mod spurious;
pub mod syn_cookie;
pub mod tcb;
#[cfg(test)]
mod tests;
pub mod time_wait;
pub mod timeout;
pub mod train;
pub mod urgent;
pub mod user_timeout;

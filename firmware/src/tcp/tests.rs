//! One connection against a scripted peer: what RFC 9293 and its companions ask, in the RFCs' order.

mod acknowledging;
mod addresses;
mod arrives;
mod bad_input;
mod blind;
mod channel;
mod closing;
mod crossing;
mod data;
mod duplicates;
mod ecn;
mod ends;
mod failures;
mod figures;
mod handshake;
mod loss;
mod opening;
mod options;
mod pacing;
mod segments;
mod settings;
mod spurious;
mod syn_cache;
mod syn_cookies;
mod time_wait;
mod window;

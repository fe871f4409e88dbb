//! Floods at a listener, in process and in virtual time: what honest clients and established connections get meanwhile.
//!
//! The ordinary run is short. The long one, ten million SYNs in ten seconds of virtual time and ten million ACKs:
//!
//! ```text
//! TOE_FLOOD=long cargo test --release -p toe-firmware --test flood -- --nocapture --test-threads=1
//! ```

mod guest;
mod peer;
mod syns;
mod tallies;

mod acks;
mod chance;

use toe_firmware::{Limits, Profile};

/// Whether the long forms are asked for.
pub fn is_long() -> bool {
    std::env::var("TOE_FLOOD").is_ok_and(|v| v == "long")
}

/// The card that attacks are shown on: 1,024 connections, half-open and TIME-WAIT entries, 8 MiB of payload memory.
pub fn standard_card() -> Profile {
    let limits = Limits {
        connections: 1024,
        half_open: 1024,
        time_wait: 1024,
        page_bytes: 1024,
        send_pages: 4096,
        receive_pages: 4096,
        connection_send_pages: 64,
        connection_receive_pages: 64,
        transmit_records: 8192,
        ..Limits::default()
    };
    Profile { limits, ..Profile::default() }
}

//! What a supervisor has done: how many connections went where and why, and the bytes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    /// Active opens that the card carried to their handshake's end.
    pub(super) connected: u64,
    /// Passive opens that the card carried.
    pub(super) accepted: u64,
    /// Listeners that the card has, or had.
    pub(super) listeners: u64,
    /// What went through the kernel instead, by reason.
    pub(super) kernel: BTreeMap<String, u64>,
    /// Active opens of the card that failed, by reason.
    pub(super) failed: BTreeMap<String, u64>,
    /// Bytes of programs that the card took.
    pub(super) bytes_sent: u64,
    /// Bytes of the card that programs took.
    pub(super) bytes_received: u64,
    /// System calls that were told.
    pub(super) notifications: u64,
    /// Calls that were interrupted or whose program died before they were answered.
    pub(super) calls_gone: u64,
    /// Card connections that were reset because nobody was left to have them.
    pub(super) orphans: u64,
}

impl Counters {
    /// One more for the kernel.
    pub(super) fn kernel(&mut self, reason: &str) {
        log::debug!("through the kernel: {reason}");
        *self.kernel.entry(reason.to_owned()).or_default() += 1;
    }

    /// One more that failed.
    pub(super) fn failed(&mut self, reason: &str) {
        *self.failed.entry(reason.to_owned()).or_default() += 1;
    }

    /// As JSON; `open` is how many connections of the card there are now.
    pub(super) fn json(&self, open: usize) -> Value {
        json!({
            "card_connected": self.connected, "card_accepted": self.accepted, "card_listeners": self.listeners,
            "card_open": open, "kernel": self.kernel, "failed": self.failed, "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received, "notifications": self.notifications,
            "calls_gone": self.calls_gone, "orphans": self.orphans,
        })
    }
}

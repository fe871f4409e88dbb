//! What the device counts. Nothing is dropped, refused or skipped without one of these.
//!
//! The accounts that always balance:
//!
//! * `frames-from-guest` = `frames-from-guest-taken` + `frames-to-wire` + every `guest-frame-…` and `wire-…` drop
//!   + the one frame that may wait for the wire;
//! * `frames-from-wire` = `frames-from-wire-taken` + `frames-to-guest` + `no-guest` + every `wire-frame-…` drop
//!   + the frames in the receive FIFO.
//!
//! Where faults strike, frames are lost (`fault-frames-lost`), held and repeated between these.

macro_rules! counters {
    ($( $(#[doc = $doc:literal])+ $field:ident = $name:literal, )*) => {
        /// The device's counters since it started.
        #[derive(Clone, Default, Debug, PartialEq, Eq)]
        pub struct Counters { $( $(#[doc = $doc])+ pub $field: u64, )* }

        impl Counters {
            /// Every counter with its name, always in the same order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                let Self { $($field,)* } = self;
                [$(($name, *$field),)*].into_iter()
            }

            /// The name of every counter, and what it counts.
            pub fn texts() -> impl Iterator<Item = (&'static str, &'static str)> {
                [$(($name, concat!($($doc),+).trim_ascii()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Frames that the guest put into its transmit rings.
    frames_from_guest = "frames-from-guest",
    /// Their bytes, Ethernet headers included.
    bytes_from_guest = "bytes-from-guest",
    /// Of these, taken by the firmware.
    frames_from_guest_taken = "frames-from-guest-taken",
    /// Of these, sent on to the wire.
    frames_to_wire = "frames-to-wire",
    /// Frames that came from the wire.
    frames_from_wire = "frames-from-wire",
    /// Their bytes, Ethernet headers included.
    bytes_from_wire = "bytes-from-wire",
    /// Of these, taken by the firmware.
    frames_from_wire_taken = "frames-from-wire-taken",
    /// Of these, put into the guest's receive rings.
    frames_to_guest = "frames-to-guest",
    /// Frames of the firmware that went to the wire.
    firmware_frames_to_wire = "firmware-frames-to-wire",
    /// Frames of the firmware that were put into the guest's receive rings.
    firmware_frames_to_guest = "firmware-frames-to-guest",

    /// Dropped, from the wire: no guest has a receive ring running.
    no_guest = "no-guest",
    /// Dropped, from the wire: longer than any frame can be.
    wire_frame_too_long = "wire-frame-too-long",
    /// Dropped, from the wire: shorter than an Ethernet header.
    wire_frame_too_short = "wire-frame-too-short",
    /// Dropped, from the wire: unfinished checksum or merged segments, for a guest that did not agree to them.
    wire_frame_offload = "wire-frame-offload-not-negotiated",
    /// Dropped, from the wire: longer than the guest's receive buffer, and buffers may not be merged.
    wire_frame_buffer_too_small = "wire-frame-buffer-too-small",
    /// Dropped, from the wire: longer than all buffers of a full receive ring together.
    wire_frame_ring_too_small = "wire-frame-ring-too-small",
    /// Dropped, of the firmware: the guest's buffers are too small, or the guest went away with it waiting.
    firmware_frame_undeliverable = "firmware-frame-undeliverable",

    /// Dropped, from the guest: head beyond the descriptor table.
    guest_frame_bad_head = "guest-frame-bad-head",
    /// Dropped, from the guest: chain leads beyond its descriptor table.
    guest_frame_bad_next = "guest-frame-bad-next",
    /// Dropped, from the guest: chain longer than its ring (a loop).
    guest_frame_loop = "guest-frame-loop",
    /// Dropped, from the guest: a buffer outside the guest's memory.
    guest_frame_bad_address = "guest-frame-bad-address",
    /// Dropped, from the guest: a buffer of no bytes.
    guest_frame_empty_buffer = "guest-frame-empty-buffer",
    /// Dropped, from the guest: a buffer for the device to write in a chain to send.
    guest_frame_wrong_direction = "guest-frame-wrong-direction",
    /// Dropped, from the guest: indirect descriptors nested, chained, of a broken table, or not agreed upon.
    guest_frame_bad_indirect = "guest-frame-bad-indirect",
    /// Dropped, from the guest: longer than any frame can be.
    guest_frame_too_long = "guest-frame-too-long",
    /// Dropped, from the guest: shorter than its headers.
    guest_frame_too_short = "guest-frame-too-short",

    /// Dropped, on their way out: the wire is down.
    wire_down = "wire-down",
    /// Dropped, on their way out: the wire did not take the frame (as a TAP when the offload header makes no sense).
    wire_refused = "wire-refused",

    /// Receive buffers handed back unused: head beyond the descriptor table (these cannot even be handed back).
    receive_buffer_bad_head = "receive-buffer-bad-head",
    /// Receive buffers handed back unused: chain leads beyond its descriptor table.
    receive_buffer_bad_next = "receive-buffer-bad-next",
    /// Receive buffers handed back unused: chain longer than its ring (a loop).
    receive_buffer_loop = "receive-buffer-loop",
    /// Receive buffers handed back unused: outside the guest's memory.
    receive_buffer_bad_address = "receive-buffer-bad-address",
    /// Receive buffers handed back unused: of no bytes.
    receive_buffer_empty = "receive-buffer-empty",
    /// Receive buffers handed back unused: not for the device to write.
    receive_buffer_wrong_direction = "receive-buffer-wrong-direction",
    /// Receive buffers handed back unused: indirect descriptors nested, chained, of a broken table, or not agreed upon.
    receive_buffer_bad_indirect = "receive-buffer-bad-indirect",
    /// Receive buffers handed back unused: too small for a header.
    receive_buffer_too_short = "receive-buffer-too-short",

    /// Looks at a ring that lies outside the guest's memory or is misaligned.
    ring_bad_address = "ring-bad-address",
    /// Looks at a ring whose available index is more than its size ahead.
    ring_bad_index = "ring-bad-index",
    /// Interrupts sent to the guest.
    interrupts = "interrupts",
    /// Times that the firmware did not answer any more and was booted anew, without its state.
    watchdog_resets = "watchdog-resets",
    /// Times that the firmware did not answer any more and was started over its tables.
    watchdog_restarts = "watchdog-restarts",
    /// Kicks of the guest that never came, and what they would have announced was found by a look at the rings.
    kicks_missed = "kicks-missed",
    /// Interrupts that were sent again, because the driver seems not to have had them.
    interrupts_repeated = "interrupts-repeated",
    /// Frames that were lost where a fault struck.
    fault_frames_lost = "fault-frames-lost",
    /// Frames that a fault was to hold back (these are lost) or repeat, and that found no place.
    fault_frames_no_place = "fault-frames-no-place",
    /// Frontends that connected.
    frontends = "frontends-connected",
    /// Captures that began.
    captures = "captures",
    /// Frames that captures wanted and got.
    capture_frames = "capture-frames",
    /// Frames that captures wanted and did not get, because who reads them is too slow.
    capture_lost = "capture-lost",
    /// How often the wire was not read for lack of room in the receive FIFO.
    receive_fifo_full = "receive-fifo-full",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_kebab_case() {
        let names: Vec<_> = Counters::default().iter().map(|(name, _)| name).collect();
        // Nor does the firmware have one of them.
        let profile = toe_firmware::Profile::default();
        let now = toe_firmware::Instant::from_us(0);
        let firmware = toe_firmware::Firmware::new(&profile, [0; 32], 1, now).unwrap();
        for entry in firmware.counters() {
            assert!(!names.contains(&entry.name), "{} of device and firmware", entry.name);
        }
        for (i, name) in names.iter().enumerate() {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
            assert!(!names[..i].contains(name), "{name} twice");
        }
    }
}

//! Numbers of a run.

use toe_firmware::Firmware;

/// A counter by name.
pub fn count(firmware: &Firmware, name: &str) -> u64 {
    firmware.counters().find(|c| c.name == name).map(|c| c.value).expect("a counter of that name")
}

/// How many of each pool are in use.
pub fn in_use(firmware: &Firmware) -> Vec<(&'static str, u64)> {
    firmware.limits().map(|l| (l.name, l.in_use)).collect()
}

/// Frames from the wire are taken, passed on, or dropped by a reason.
pub fn is_balanced(firmware: &Firmware) -> bool {
    let out: u64 = firmware
        .counters()
        .filter(|c| c.name == "wire-taken" || c.name == "wire-passed" || c.name.starts_with("wire-drop-"))
        .map(|c| c.value)
        .sum();
    out == count(firmware, "wire-in")
}

/// The least value that so many percent of the others do not exceed.
pub fn percentile(values: &mut [u64], percent: usize) -> u64 {
    values.sort_unstable();
    values[(values.len() * percent).div_ceil(100).max(1) - 1]
}

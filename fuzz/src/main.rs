//! `toe-fuzz`: libFuzzer makes strings, the simulator runs the world of each (`sim/src/fuzz.rs`), and a string under which
//! something does not hold is a crash.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = toe_sim::run_string(bytes);
});

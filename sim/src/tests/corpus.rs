//! The fuzzer's strings (`scripts/fuzz`), each run as an ordinary test.

use std::collections::BTreeSet;
use std::fs;

use crate::fuzz::{counters, run};

/// Where they are.
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

fn strings() -> Vec<Vec<u8>> {
    let files = fs::read_dir(CORPUS).expect("the corpus");
    files.map(|file| fs::read(file.expect("a file").path()).expect("a string")).collect()
}

#[test]
fn every_string_of_the_corpus_holds() {
    let strings = strings();
    assert!(strings.len() > 50, "only {} strings in {CORPUS}", strings.len());
    for string in &strings {
        run(string);
    }
}

#[test]
fn any_string_makes_a_world() {
    for string in [&[][..], &[0; 300], &[0xff; 300], &[0x5a; 61]] {
        assert!(run(string).segments > 0, "{string:?} does nothing");
    }
}

/// The strings reach what is rare: among what the two firmwares counted is all of this.
#[test]
fn the_corpus_reaches_what_is_rare() {
    let reached: BTreeSet<&str> = strings().iter().flat_map(|string| counters(string)).collect();
    let rare = [
        "channel-lease-expired",
        "tcp-black-holes",
        "tcp-challenge-acks",
        "tcp-half-open-timed-out",
        "tcp-keep-alives",
        "tcp-path-mtu-lowered",
        "tcp-spurious-timeouts",
        "tcp-syn-cookies-taken",
        "tcp-undos",
        "tcp-window-probes",
        "wire-drop-fifo-full",
    ];
    let missing: Vec<_> = rare.into_iter().filter(|counter| !reached.contains(counter)).collect();
    assert!(missing.is_empty(), "{missing:?} are counted under no string, only {reached:?}");
}

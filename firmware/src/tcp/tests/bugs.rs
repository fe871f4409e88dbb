//! Each known bug, switched on, is caught by a test of the rule that it breaks, by its name.
//!
//! The test named here is run in a process of its own whose cards all have the bug (`TOE_BUG`): there it must fail. That
//! it passes without, this run shows.

use std::process::{Command, Stdio};

use crate::fault::{Action, Rule, Rules, Site};
use crate::tcp::bugs;
use crate::testing::Bench;

/// The bug, and who catches it.
const CAUGHT: [(Site, &str); 10] = [
    (Site::BugByteOrder, "tcp::tests::window::the_window_is_said_as_it_is"),
    (Site::BugMss, "tcp::tests::options::the_smaller_of_both_mss_is_sent_and_options_count"),
    (
        Site::BugWindowScale,
        "tcp::tests::syn_cache::the_peers_window_is_scaled_as_its_syn_said_and_by_no_more_than_fourteen",
    ),
    (Site::BugUrgent, "tcp::urgent::tests::the_pointer_points_to_the_octet_behind_the_urgent_data"),
    (Site::BugAckOffByOne, "tcp::tests::data::an_acknowledgement_rides_on_data"),
    (Site::BugWindowUpdate, "tcp::tests::window::a_window_of_an_older_segment_is_not_believed"),
    (Site::BugTimestampEcho, "tcp::tests::arrives::the_timestamp_echoed_is_of_the_earliest_segment_not_acknowledged"),
    (Site::BugResetInWindow, "tcp::tests::arrives::a_reset_counts_only_at_the_very_next_number"),
    (Site::BugZeroWindow, "tcp::tests::data::a_closed_window_is_probed_with_one_octet_at_doubling_intervals"),
    (Site::BugLostPush, "tcp::tests::acknowledging::small_data_leaves_without_a_push_of_the_program_and_is_pushed"),
];

/// What a run of one test printed, with a bug or without.
fn run(test: &str, bug: Option<Site>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env_remove("TOE_BUG").stderr(Stdio::null());
    if let Some(bug) = bug {
        command.env("TOE_BUG", bug.name());
    }
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn every_bug_is_caught_by_name() {
    if std::env::var("TOE_BUG").is_ok() {
        // It is switched on for everybody: then this is not who is asked.
        return;
    }
    for bug in Site::ALL.into_iter().filter(|site| site.name().starts_with("bug.")) {
        assert!(CAUGHT.iter().any(|(site, _)| *site == bug), "nobody catches {}", bug.name());
    }
    for (bug, test) in CAUGHT {
        let with = run(test, Some(bug));
        assert!(with.contains(&format!("test {test} ... FAILED")), "{} is not caught by {test}: {with}", bug.name());
        let without = run(test, None);
        assert!(without.contains(&format!("test {test} ... ok")), "{test} without a bug: {without}");
    }
}

/// A card with one bug, before its first connection.
fn with(bug: Site) -> Bench {
    let mut b = Bench::new();
    b.firmware.arm(Rules::new(vec![Rule::new(bug, Action::Error)]), 1, b.now);
    b.connect(toe_abi::flags::NODELAY);
    b
}

/// A window that is believed is scaled all the same, and counts as the largest if it is.
#[test]
fn a_window_that_is_wrongly_believed_is_scaled() {
    let mut b = Bench::established();
    let (t, _) = b.firmware.block(b.connection);
    t.send.shift = 3;
    bugs::believe_any_window(t, 60_000);
    assert_eq!((t.send.window, t.send.window_max), (480_000, 480_000));
    bugs::believe_any_window(t, 5);
    assert_eq!((t.send.window, t.send.window_max), (40, 480_000));
}

/// What is said wrongly is the one thing, in the segments that the bug is about.
#[test]
fn a_bug_spoils_one_thing() {
    let mut b = with(Site::BugAckOffByOne);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000, ts 500 1>");
    b.expect("A 1:1 ack 0");
    b.send(10);
    b.expect("PA 1:11 ack 0");
    b.abort();
    b.expect("RA 11:11 ack 1");

    let mut b = with(Site::BugTimestampEcho);
    let syn = b.next().unwrap();
    assert!(syn.contains("ts ") && syn.contains(" 0"), "{syn}");
    let echo = |segment: String| segment.split_once("ts ").unwrap().1.split([' ', ',', '>']).nth(1).unwrap().to_owned();
    assert_eq!(echo(syn), "0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000, ts 500 1>");
    assert_eq!(echo(b.next().unwrap()), "501");

    let mut b = with(Site::BugLostPush);
    b.expect("S 0");
    b.peer("SA 0 ack 1 win 60000 <mss 1000>");
    b.expect("A 1:1 ack 1");
    b.send(10);
    b.expect("A 1:11 ack 1");
}

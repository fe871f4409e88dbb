//! Each known bug, switched on, is caught by a test of the rule that it breaks, by its name.
//!
//! The test named here is run in a process of its own whose cards all have the bug (`TOE_BUG`): there it must fail. That
//! it passes without, this run shows.

use std::process::{Command, Stdio};

use crate::fault::Site;

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

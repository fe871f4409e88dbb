//! What is said when a script does not come true, and what a script can ask for, on the firmware.

use toe_drill::language::{Family, parse};
use toe_drill::runner::Settings;
use toe_drill::suite::{On, run};

const OPEN: &str = "0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 8000 <mss 1000>
+0 > S. 0:0(0) ack 1 <mss *>
+.01 < . 1:1(0) ack 1 win 8000
+0 accept(3, ..., ...) = 4
";

fn played(script: &str, settings: Settings) -> (Result<(), String>, Vec<String>) {
    let script = parse("x.pkt", script).unwrap_or_else(|fault| panic!("{fault}"));
    let (result, notes) = run(&script, On::Firmware, settings, &[]).unwrap();
    (result.map_err(|failure| failure.to_string()), notes)
}

/// The message that comes of lines 8 and on after a connection was opened.
#[track_caller]
fn message(rest: &str) -> String {
    played(&format!("{OPEN}{rest}"), Settings::new(Family::V4)).0.unwrap_err()
}

#[track_caller]
fn passes(rest: &str) {
    assert_eq!(played(&format!("{OPEN}{rest}"), Settings::new(Family::V4)).0, Ok(()));
}

#[test]
fn a_packet_that_differs_is_shown_beside_the_one_that_was_expected() {
    let said = message("+0 < P. 1:11(10) ack 1 win 8000\n+0~+.3 > . 1:1(0) ack 12 win 65000");
    let mut lines = said.lines();
    let first = "x.pkt:9: on firmware: another packet was sent (not the same: ack, window)";
    assert_eq!(lines.next(), Some(first));
    assert_eq!(lines.next().unwrap().split_once("  at").unwrap().0, "    expected: > . 1:1(0) ack 12 win 65000");
    assert!(lines.next().unwrap().starts_with("    came:     > . 1:1(0) ack 11 win "));
}

#[test]
fn flags_numbers_and_lengths_are_compared() {
    for (expected, what) in [
        ("F. 1:101(100) ack 1", "flags"),
        ("P. 2:102(100) ack 1", "sequence number"),
        ("P. 1:51(50) ack 1", "length"),
        ("P. 1:101(100) ack 1 <nop,nop,sackOK>", "options"),
        ("[ce] P. 1:101(100) ack 1", "ECN bits"),
        ("PU. 1:101(100) ack 1 urg 3", "flags, urgent pointer"),
    ] {
        let said = message(&format!("+0 write(4, ..., 100) = 100\n+0 > {expected}"));
        assert!(said.contains(&format!("(not the same: {what})")), "{said}");
    }
    passes("+0 write(4, ..., 100) = 100\n+0 > . 1:101(100) ack 1");
}

#[test]
fn exactly_means_padding_and_push_too() {
    let exact = Settings { exact: true, ..Settings::new(Family::V4) };
    let push = format!("{OPEN}+0 write(4, ..., 100) = 100\n+0 > . 1:101(100) ack 1");
    assert!(played(&push, exact).0.unwrap_err().contains("(not the same: flags)"));
    let order = OPEN.replace("<mss *>", "<nop,mss *>");
    assert_eq!(played(&order, Settings::new(Family::V4)).0, Ok(()));
    assert!(played(&order, exact).0.unwrap_err().contains("(not the same: options)"));
}

#[test]
fn early_late_and_not_at_all() {
    let write = "+0 write(4, ..., 100) = 100\n";
    assert!(message(&format!("{write}+.1 > P. 1:101(100) ack 1")).contains("too early (within 1 ms)"));
    // What was sent before its cause is told apart from what is only early.
    let before = message(&format!("{write}+.1 < . 1:1(0) ack 1 win 8000\n+0 > P. 1:101(100) ack 1"));
    assert!(before.contains("before the event that should cause it"), "{before}");
    let late = message(&format!("{write}+0 > P. 1:101(100) ack 1\n+.1 > P. 1:101(100) ack 1"));
    assert!(late.contains("too late"), "{late}");
    let never = message("+0 < . 1:1(0) ack 1 win 8000\n+0 > . 1:1(0) ack 1");
    assert!(never.starts_with("x.pkt:9: on firmware: nothing was sent"), "{never}");
}

#[test]
fn calls_are_told_by_what_they_gave() {
    assert_eq!(
        message("+0 recv(4, ..., 9, MSG_DONTWAIT) = 9"),
        "x.pkt:8: on firmware: recv: expected: = 9\n    came:     = -1 EAGAIN"
    );
    assert!(message("+0 fly(4) = 0").ends_with("there is no call named fly here"));
    assert!(message("+0 listen(4, SO_WHAT) = 0").ends_with("there is no number named SO_WHAT here"));
    assert!(message("+0 read(4, ..., 9) = 9").contains("the call blocks, and the script gives it no end"));
    let still = message("+0...+.1 read(4, ..., 9) = 9\n+.2 close(3) = 0");
    assert!(still.starts_with("x.pkt:8: on firmware: read: it should have returned at 0.11"), "{still}");
    let early = message("+0...+.2 read(4, ..., 9) = 9\n+.1 < P. 1:10(9) ack 1 win 8000\n+.3 close(3) = 0");
    assert!(early.contains("read: it returned at 0.110"), "{early}");
    let option = message("+0 getsockopt(4, IPPROTO_TCP, TCP_NODELAY, [1], [4]) = 0");
    assert!(option.ends_with("getsockopt: expected: [1]\n    came:     [0]"), "{option}");
    let poll = message("+0 poll([{fd=4, events=POLLIN|POLLOUT, revents=POLLIN}], 1, 0) = 1");
    assert!(poll.ends_with("expected: revents POLLIN\n    came:     revents POLLOUT"), "{poll}");
}

#[test]
fn statements_about_the_connection() {
    passes("+0 %{ assert tcpi_unacked == 0 and tcpi_state == TCP_ESTABLISHED }%");
    assert_eq!(message("+0 %{ assert tcpi_unacked >= 1 }%"), "x.pkt:8: on firmware: tcpi_unacked is 0, not >= 1");
    assert!(message("+0 %{ assert tcpi_colour == 1 }%").ends_with("TCP_INFO has no tcpi_colour here"));
}

#[test]
fn what_is_skipped_is_said() {
    let script = format!("--mss=1000\n{OPEN}`true`\n+0 %{{ print(tcpi_rtt) }}%");
    let (result, notes) = played(&script, Settings::new(Family::V4));
    assert_eq!(result, Ok(()));
    assert!(notes.iter().any(|note| note.contains("skipped: --mss=1000")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("skipped: `true`")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("skipped: a block that is not only assertions")), "{notes:?}");
}

#[test]
fn the_peers_numbers_can_begin_anywhere() {
    let rest = "+0 < . 1001:2001(1000) ack 1 win 8000\n+0 > . 1:1(0) ack 1\n+.01 < P. 1:1001(1000) ack 1 win 8000
+0 > . 1:1(0) ack 2001\n+0 read(4, ..., 5000) = 2000";
    for remote_shift in [0, 1, 1 << 31, u32::MAX - 500] {
        let settings = Settings { remote_shift, ..Settings::new(Family::V6) };
        assert_eq!(played(&format!("{OPEN}{rest}"), settings).0, Ok(()), "{remote_shift}");
    }
}

#[test]
fn a_second_connection_after_the_first() {
    passes(
        "+0 close(4) = 0\n+0 > F. 1:1(0) ack 1\n+.01 < F. 1:1(0) ack 2 win 8000\n+0 > . 2:2(0) ack 2
+0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 5\n+0 fcntl(5, F_SETFL, O_RDWR|O_NONBLOCK) = 0
+0 connect(5, ..., ...) = -1 EINPROGRESS (Operation now in progress)
+0 > S 100:100(0) <...>\n+.01 < S. 500:500(0) ack 101 win 8000 <mss 1000>\n+0 > . 101:101(0) ack 501",
    );
}

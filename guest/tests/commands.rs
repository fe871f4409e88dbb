//! `toe` as a command, where there is no card: what it says, and with which status it ends.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};

fn toe(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toe"))
        .args(args)
        .env_remove("TOE_LOG")
        .env_remove("TOE_INTERFACE")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The loopback interface is asked: nothing of this leaves the machine, and it never has a card.
const NO_CARD: [&str; 2] = ["--interface", "lo"];

#[test]
fn ss_shows_the_kernels_connections_without_a_card() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let own = client.local_addr().unwrap();
    let ss = |args: &[&str]| {
        let output = toe(&[&["ss"], &NO_CARD[..], args].concat());
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.lines().count() == 1 && said.contains("the kernel's connections alone"), "{said}");
        text(&output.stdout)
    };
    let sport = format!(":{port}");
    let listening = ss(&["-Hltnp", "sport", "=", &sport]);
    assert!(listening.starts_with("LISTEN") && listening.lines().count() == 1, "{listening}");
    assert!(listening.contains(&format!("127.0.0.1:{port}")) && listening.contains("0.0.0.0:*"), "{listening}");
    assert!(listening.contains(&format!("pid={}", std::process::id())), "{listening}");
    let both = ss(&["-tin", &format!("( sport = {sport} or dport = {sport} )")]);
    let lines: Vec<_> = both.lines().collect();
    assert!(lines[0].starts_with("State") && lines.len() == 5, "{both}");
    assert!(lines[2].starts_with("\t ") && lines[2].contains("cwnd:"), "{both}");
    assert_eq!(ss(&["-H", "-6", "dport", "=", &sport]), "");
    let json: serde_json::Value = serde_json::from_str(&ss(&["--json", "dport", "=", &sport])).unwrap();
    let connections = json["connections"].as_array().unwrap();
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0]["local"], own.to_string());
    assert_eq!((&connections[0]["carrier"], &connections[0]["state"]), (&"kernel".into(), &"ESTAB".into()));
}

#[test]
fn what_makes_no_sense_is_told_in_one_line_with_status_two() {
    for (args, expected) in [
        (&["ss", "state", "open"][..], "`established`"),
        (&["ss", "sport", "80"], "as in `sport = :80`"),
        (&["ss", "-4", "-6"], "--ipv6"),
        (&["ss", "--colour"], "--colour"),
        (&["lim"], "limits"),
        (&["hold", "host", "port"], "invalid value"),
        (&[], "toe --help"),
    ] {
        let output = toe(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
        assert!(args.is_empty() || said.lines().count() == 1, "{args:?}: {said}");
    }
    // Not the command line is wrong, but what it meets.
    let output = toe(&[&["limits"], &NO_CARD[..]].concat());
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.lines().count() == 1 && said.contains("no card"), "{said}");
}

#[test]
fn completions_and_man_pages_are_printed() {
    for (args, expected) in
        [(&["completions", "bash"][..], "limits"), (&["man"], ".TH toe 1"), (&["man", "ss"], "state established")]
    {
        let output = toe(args);
        assert!(output.status.success() && text(&output.stdout).contains(expected), "{args:?}");
    }
}

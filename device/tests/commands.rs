//! `toe-nic` and `toectl` as commands: what they say, and with which status they end.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};

use toe_abi::{Bye, CARD_MAC, Hello, Mac, Message, Parsed, Writer};
use toe_device::events::{Notice, What};

use common::{Nic, Shape, eventually, fresh_path};

fn nic(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toe-nic"));
    command.args(args).env_remove("RUST_LOG");
    command
}

fn toectl(socket: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toectl")).arg("--socket").arg(socket).args(args).output().unwrap()
}

/// A process that is ended with its owner, by its number.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child was not waited for yet, so that the number is still its own.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }

    fn wait(&mut self) -> ExitStatus {
        eventually("the process's end", || self.0.try_wait().unwrap())
    }
}

/// The command's status and the one line that it says.
fn refused(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn capabilities_are_json() {
    let output = nic(&["--print-capabilities"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["type"], "net");
}

#[test]
fn arguments_that_make_no_sense_end_with_two_before_anything_starts() {
    let socket = fresh_path("a.sock");
    let profile = fresh_path("profile.toml");
    let run = |extra: &[&str]| {
        let output = nic(&["--socket-path", socket.to_str().unwrap(), "--wire", "none"]).args(extra).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(!socket.exists());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.lines().count() == 1 && said.starts_with("toe-nic: "), "{said}");
        said
    };
    let path = profile.to_str().unwrap();
    for (contents, expected) in [
        ("[limits]\nconections = 3", "unknown field `conections`"),
        ("[limits]\npage_bytes = 3000", "`limits.page_bytes` is 3000; allowed: a power of two from 512 to 65536"),
        ("[tcp]\ndelayed_ack_ms = 500", "`tcp.delayed_ack_ms` is 500; allowed: 0 to 499"),
    ] {
        std::fs::write(&profile, contents).unwrap();
        let text = run(&["--profile", path]);
        assert!(text.lines().next().unwrap().contains(expected), "{text}");
    }
    std::fs::remove_file(&profile).unwrap();
    assert!(run(&["--profile", "huge"]).contains("`default`, `tiny`"));
    assert!(run(&["--queue-pairs", "0"]).contains("1..=32"));
    assert!(run(&["--seed", "abc"]).contains("64 hexadecimal digits"));
    assert!(run(&["--fd", "5"]).contains("--fd"));
    assert!(run(&["--metrics", "192.0.2.1:9464"]).contains("loopback"));
    assert!(run(&["--print-profile", "huge"]).contains("`default`, `tiny`"));
}

#[test]
fn a_socket_that_cannot_be_had_is_told_in_one_line() {
    let path = fresh_path("b.sock");
    let text = path.to_str().unwrap();
    let args = ["--socket-path", text, "--wire", "none"];
    let refused = |expected: &str| {
        let (code, said) = refused(&mut nic(&args));
        assert_eq!((code, said.lines().count()), (1, 1), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    std::fs::write(&path, "a file").unwrap();
    refused("is no socket");
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    refused("another process listens");
    drop(listener);
    // A process that another test has just forked holds it for a moment more.
    eventually("nobody listens any more", || UnixStream::connect(&path).is_err().then_some(()));
    // Replaced.
    assert!(path.exists());
    let mut running = Running::start(&mut nic(&args));
    eventually("the socket", || UnixStream::connect(&path).ok());
    running.signal(libc::SIGTERM);
    let status = running.wait();
    assert!(status.success(), "{status}");
    assert!(!path.exists(), "removed at the end");
    let (code, said) = self::refused(&mut nic(&["--socket-path", "/nowhere/a.sock", "--wire", "none"]));
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
}

#[test]
fn a_tap_that_cannot_be_had_is_told_in_one_line() {
    let path = fresh_path("c.sock");
    // `lo` is there in every network namespace and is no TAP.
    let (code, said) = refused(&mut nic(&["--socket-path", path.to_str().unwrap(), "--wire", "tap:lo"]));
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("TAP") || said.contains("/dev/net/tun"), "{said}");
    assert!(!path.exists());
}

#[test]
fn signals_end_it_with_success() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let path = fresh_path("d.sock");
        let mut running = Running::start(&mut nic(&["--socket-path", path.to_str().unwrap(), "--wire", "loop"]));
        let nic = Nic::connect(&path, Shape::default());
        running.signal(signal);
        assert!(running.wait().success());
        assert!(!path.exists());
        drop(nic);
    }
}

/// Hands `fd` to the command as descriptor 200: beyond those that the runner itself has open.
fn with_descriptor(command: &mut Command, fd: OwnedFd) {
    // SAFETY: dup2 is async-signal-safe and all that is called between fork and exec; the command owns `fd`.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(fd.as_raw_fd(), 200) == 200 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
}

#[test]
fn an_inherited_descriptor_may_listen_or_be_connected() {
    let path = fresh_path("e.sock");
    let listener: OwnedFd = UnixListener::bind(&path).unwrap().into();
    let mut command = nic(&["--fd", "200", "--wire", "loop"]);
    with_descriptor(&mut command, listener);
    let mut running = Running::start(&mut command);
    for _ in 0..2 {
        let mut nic = Nic::connect(&path, Shape::default());
        nic.send(0, [0; 12], &[1; 60], false);
        assert_eq!(nic.expect(0), [1; 60]);
    }
    running.signal(libc::SIGTERM);
    assert!(running.wait().success());
    std::fs::remove_file(&path).unwrap();

    // Connected: served, and ended with the frontend.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = nic(&["--fd", "200", "--wire", "loop"]);
    with_descriptor(&mut command, theirs.into());
    let mut running = Running::start(&mut command);
    let mut nic = Nic::over(vhost::vhost_user::Frontend::from_stream(ours, 64), Shape::default());
    nic.send(0, [0; 12], &[1; 60], false);
    assert_eq!(nic.expect(0), [1; 60]);
    drop(nic);
    assert!(running.wait().success());
}

#[test]
fn a_descriptor_that_is_no_socket_is_refused() {
    let (code, said) = refused(&mut nic(&["--fd", "200", "--wire", "loop"]));
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let mut command = nic(&["--fd", "200", "--wire", "loop"]);
    with_descriptor(&mut command, file);
    let (code, said) = refused(&mut command);
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("--fd 200"), "{said}");
}

#[test]
fn a_card_that_was_killed_is_replaced_on_the_same_path() {
    let path = fresh_path("f.sock");
    for i in 0..3u8 {
        let mut running = Running::start(&mut nic(&["--socket-path", path.to_str().unwrap(), "--wire", "loop"]));
        let mut nic = Nic::connect(&path, Shape::default());
        nic.send(0, [0; 12], &[i; 60], false);
        assert_eq!(nic.expect(0), [i; 60]);
        running.signal(libc::SIGKILL);
        assert_eq!(running.wait().signal(), Some(libc::SIGKILL));
        assert!(path.exists(), "left behind");
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn toectl_asks_and_prints() {
    let (path, management) = (fresh_path("g.sock"), fresh_path("g.api"));
    let args = ["--socket-path", path.to_str().unwrap(), "--wire", "loop", "--profile", "tiny"];
    let running = Running::start(nic(&args).arg("--management-socket").arg(&management));
    let mut driver = Nic::connect(&path, Shape::default());
    driver.send(0, [0; 12], &[1; 60], false);
    driver.expect(0);
    let say = |args: &[&str]| {
        let output = toectl(&management, args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let stat: serde_json::Value = serde_json::from_str(&say(&["stat", "--json"])).unwrap();
    assert_eq!((&stat["frames-from-guest"], &stat["frames-to-guest"]), (&1.into(), &1.into()));
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line(&say(&["stat"]), "frames-to-guest"), ["frames-to-guest", "1"]);
    let limits: serde_json::Value = serde_json::from_str(&say(&["limits", "--json"])).unwrap();
    let fifo = limits.as_array().unwrap().iter().find(|limit| limit["name"] == "receive-fifo").unwrap();
    assert_eq!((&fifo["capacity"], &fifo["refusals"]["receive-fifo-full"]), (&64.into(), &0.into()));
    assert_eq!(line(&say(&["limits"]), "receive-fifo"), ["receive-fifo", "64", "0", "1", "wait", "-"]);
    assert!(say(&["version"]).starts_with("toe-nic "));
    drop(running);
    let output = toectl(&management, &["stat"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().count() == 1 && said.contains("--management-socket"), "{said}");
    for path in [path, management] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_profile_printed_is_a_profile_read() {
    let print = |name: &str| {
        let output = nic(&["--print-profile", name]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = print("tiny");
    assert!(text.starts_with("# The profile `tiny` of toe-nic "), "{text}");
    let path = fresh_path("tiny.toml");
    std::fs::write(&path, &text).unwrap();
    let again = print(path.to_str().unwrap());
    std::fs::remove_file(&path).unwrap();
    let without_title =
        |text: &str| text.lines().skip_while(|line| line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_title(&text), without_title(&again));
}

#[test]
fn the_management_socket_is_its_owners_alone() {
    let (path, management) = (fresh_path("i.sock"), fresh_path("i.api"));
    let args = ["--socket-path", path.to_str().unwrap(), "--wire", "none"];
    let mut running = Running::start(nic(&args).arg("--management-socket").arg(&management));
    let metadata = eventually("the socket", || std::fs::metadata(&management).ok());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    eventually("an answer", || toectl(&management, &["version"]).status.success().then_some(()));
    // Killed, it leaves the file behind; the next card's is private as well.
    running.signal(libc::SIGKILL);
    running.wait();
    let inode = metadata.ino();
    let mut running = Running::start(nic(&args).arg("--management-socket").arg(&management));
    let metadata = eventually("another socket", || {
        std::fs::metadata(&management).ok().filter(|m| m.ino() != inode || m.created().ok() != metadata.created().ok())
    });
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    eventually("an answer", || toectl(&management, &["version"]).status.success().then_some(()));
    running.signal(libc::SIGTERM);
    assert!(running.wait().success());
}

/// What a server on `stream` answers to a GET, head and body.
fn http(mut stream: impl Read + Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn prometheus_is_answered_on_the_socket_and_on_loopback() {
    let (path, management) = (fresh_path("j.sock"), fresh_path("j.api"));
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let args = ["--socket-path", path.to_str().unwrap(), "--wire", "none", "--metrics", &address];
    let mut running = Running::start(nic(&args).arg("--management-socket").arg(&management));
    let over_tcp = http(eventually("the port", || TcpStream::connect(&address).ok()), "/metrics");
    let over_unix = http(UnixStream::connect(&management).unwrap(), "/metrics");
    for answer in [&over_tcp, &over_unix] {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
        assert!(body.contains("\n# TYPE toe_TcpActiveOpens counter\ntoe_TcpActiveOpens_total 0\n"), "{body}");
        assert!(body.ends_with("# EOF\n"), "{body}");
    }
    let output = toectl(&management, &["metrics"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), over_unix.split_once("\r\n\r\n").unwrap().1);
    assert_eq!(toectl(&management, &["metrics", "--json"]).status.code(), Some(2));
    // Whoever may connect gets numbers and nothing else.
    assert!(http(TcpStream::connect(&address).unwrap(), "/limits").starts_with("HTTP/1.1 404 "));
    // A port that is taken is told in one line.
    let other = fresh_path("k.sock");
    let (code, said) =
        refused(&mut nic(&["--socket-path", other.to_str().unwrap(), "--wire", "none", "--metrics", &address]));
    assert!(code == 1 && said.lines().count() == 1 && said.contains(&address), "{said}");
    assert!(!other.exists());
    running.signal(libc::SIGTERM);
    assert!(running.wait().success());
}

#[test]
fn completions_and_man_pages_are_printed_without_a_card() {
    let toectl = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_toectl")).args(args).output().unwrap();
    for (output, expected) in [
        (nic(&["--print-completions", "bash"]).output().unwrap(), "--print-profile"),
        (nic(&["--print-man-page"]).output().unwrap(), ".TH toe-nic 1"),
        (toectl(&["completions", "fish"]), "limits"),
        (toectl(&["man"]), ".TH toectl 1"),
        (toectl(&["man", "stat"]), "Every counter"),
    ] {
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(expected), "{text}");
    }
    for (args, expected) in
        [(&["limits"][..], "--socket"), (&["limmits"], "limits"), (&["man", "x"], "no subcommand `x`")]
    {
        let output = toectl(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(if args[0] == "man" { 1 } else { 2 }));
        assert!(said.lines().count() == 1 && said.contains(expected), "{said}");
    }
}

/// Interface, direction (1 in, 2 out), comment and data of each frame of a capture.
fn frames_of(capture: &[u8]) -> Vec<(String, u32, Option<String>, Vec<u8>)> {
    let mut reader = PcapNgReader::new(capture).unwrap();
    let (mut names, mut frames) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap().into_owned() {
            Block::InterfaceDescription(interface) => {
                names.extend(interface.options.into_iter().filter_map(|o| match o {
                    InterfaceDescriptionOption::IfName(name) => Some(name.into_owned()),
                    _ => None,
                }))
            }
            Block::EnhancedPacket(packet) => {
                let direction = packet.options.iter().find_map(|o| match o {
                    EnhancedPacketOption::Flags(flags) => Some(flags & 3),
                    _ => None,
                });
                let comment = packet.options.iter().find_map(|o| match o {
                    EnhancedPacketOption::Comment(text) => Some(text.clone().into_owned()),
                    _ => None,
                });
                let name = names[packet.interface_id as usize].clone();
                frames.push((name, direction.unwrap(), comment, packet.data.into_owned()));
            }
            other => panic!("{other:?}"),
        }
    }
    frames
}

#[test]
fn a_capture_shows_the_way_of_a_frame_and_why_it_ended() {
    let (path, management, file) = (fresh_path("l.sock"), fresh_path("l.api"), fresh_path("l.pcapng"));
    let args = ["--socket-path", path.to_str().unwrap(), "--wire", "loop"];
    let mut running = Running::start(nic(&args).arg("--management-socket").arg(&management));
    let mut driver = Nic::connect(&path, Shape::default());
    let capture = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toectl"));
        command.arg("--socket").arg(&management).arg("capture").args(args).stderr(Stdio::piped());
        Running::start(&mut command)
    };
    let captures = |n: u64| {
        eventually("the capture to run", || {
            let stat = toectl(&management, &["stat", "--json"]).stdout;
            let stat = serde_json::from_slice::<serde_json::Value>(&stat).unwrap();
            (stat["captures"].as_u64() == Some(n)).then_some(())
        });
    };
    eventually("the last word of the card's boot", || {
        let stat = toectl(&management, &["stat", "--json"]).stdout;
        let stat = serde_json::from_slice::<serde_json::Value>(&stat).ok()?;
        (stat["firmware-frames-to-guest"].as_u64() == Some(5)).then_some(())
    });
    // Everything, into a file, for five frames.
    let mut all = capture(&["--count", "5", "--write", file.to_str().unwrap()]);
    captures(1);
    let mut plain = [2; 60];
    plain[12..14].copy_from_slice(&[0x08, 0x06]);
    driver.send(0, [0; 12], &plain, false);
    assert_eq!(driver.expect(0), plain);
    // A channel frame that is none.
    let mut channel = [3; 60];
    channel[12..14].copy_from_slice(&[0x88, 0xb5]);
    driver.send(0, [0; 12], &channel, false);
    assert!(all.wait().success());
    let seen = frames_of(&std::fs::read(&file).unwrap());
    let ways: Vec<_> =
        seen.iter().map(|(name, direction, comment, _)| (name.as_str(), *direction, comment.as_deref())).collect();
    assert_eq!(
        ways,
        [
            ("guest", 1, None),
            ("wire", 2, None),
            ("wire", 1, None),
            ("guest", 2, None),
            ("channel", 1, Some("dropped: guest-drop-version")),
        ]
    );
    assert!(seen[..4].iter().all(|(.., data)| data == &plain) && seen[4].3 == channel);
    // A filter, a point and a length; interrupted, it is whole.
    let mut some =
        capture(&["-s", "20", "-i", "guest", "-w", file.to_str().unwrap(), "arp", "and", "ether[20]", "=", "9"]);
    captures(2);
    for byte in [8, 9, 10] {
        plain[20] = byte;
        driver.send(0, [0; 12], &plain, false);
        driver.expect(0);
    }
    eventually("both frames", || {
        let capture = std::fs::read(&file).unwrap();
        (!capture.is_empty() && frames_of(&capture).len() == 2).then_some(())
    });
    some.signal(libc::SIGINT);
    assert!(some.wait().success());
    let seen = frames_of(&std::fs::read(&file).unwrap());
    assert!(seen.iter().all(|(name, _, _, data)| name == "guest" && data.len() == 20), "{seen:?}");
    // Other programs read it, too.
    let read = Command::new("tcpdump").args(["-n", "-r"]).arg(&file).output().unwrap();
    assert!(read.status.success() && String::from_utf8_lossy(&read.stdout).lines().count() == 2, "{read:?}");
    std::fs::remove_file(&file).unwrap();
    running.signal(libc::SIGTERM);
    assert!(running.wait().success());
}

#[test]
fn a_card_can_capture_from_its_beginning_to_its_end() {
    let (path, file) = (fresh_path("o.sock"), fresh_path("o.pcapng"));
    let args = ["--socket-path", path.to_str().unwrap(), "--wire", "loop", "--capture", file.to_str().unwrap()];
    let mut running = Running::start(nic(&args).args(["--capture-filter", "arp", "--capture-snaplen", "30"]));
    let mut driver = Nic::connect(&path, Shape::default());
    let mut frame = [4; 60];
    for kind in [[0x08, 0x00], [0x08, 0x06]] {
        frame[12..14].copy_from_slice(&kind);
        driver.send(0, [0; 12], &frame, false);
        driver.expect(0);
    }
    running.signal(libc::SIGTERM);
    assert!(running.wait().success());
    let seen = frames_of(&std::fs::read(&file).unwrap());
    std::fs::remove_file(&file).unwrap();
    let ways: Vec<_> = seen.iter().map(|(name, direction, ..)| (name.as_str(), *direction)).collect();
    assert_eq!(ways, [("guest", 1), ("wire", 2), ("wire", 1), ("guest", 2)]);
    assert!(seen.iter().all(|(.., data)| data == &frame[..30]), "{seen:?}");
    let nowhere = ["--socket-path", path.to_str().unwrap(), "--wire", "loop", "--capture", "/nowhere/x.pcapng"];
    let (code, said) = refused(&mut nic(&nowhere));
    assert!(code == 1 && said.lines().count() == 1 && said.contains("--capture /nowhere/x.pcapng"), "{said}");
    let (code, said) = refused(nic(&args).args(["--capture-filter", "tcp prt"]));
    assert!(code == 2 && said.lines().count() == 1 && said.contains("filter `tcp prt`"), "{said}");
}

#[test]
fn a_capture_that_cannot_be_is_told_in_one_line() {
    let management = fresh_path("m.api");
    for (args, code, expected) in [
        (&["--snaplen", "0"][..], 2, "1..=65549"),
        (&["--count", "0"], 2, "--count"),
        (&["--interface", "eth0"], 2, "`wire`, `guest` and `channel`"),
        (&["tcp", "prt", "80"], 2, "filter `tcp prt 80`"),
        (&["-w", "x"], 1, "--management-socket"),
    ] {
        let output = toectl(&management, &[&["capture"], args].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.lines().count() == 1 && said.contains(expected), "{said}");
    }
    assert_eq!(toectl(&management, &["--json", "capture"]).status.code(), Some(2));
}

/// A channel frame with one message.
fn channel_frame(context: u64, epoch: u32, key: u128, message: &Message<'_>) -> Vec<u8> {
    let mut buffer = [0; 512];
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let mut writer = Writer::new(&mut buffer, mac, CARD_MAC, context, epoch, key).unwrap();
    assert!(writer.push(message));
    let bytes = writer.finish();
    buffer[..bytes].to_vec()
}

#[test]
fn pools_that_fill_are_told_to_who_follows_and_logged() {
    let (path, management) = (fresh_path("n.sock"), fresh_path("n.api"));
    let mut command = nic(&["--socket-path", path.to_str().unwrap(), "--wire", "none", "--profile", "tiny"]);
    let mut running = Running::start(command.arg("--management-socket").arg(&management).stderr(Stdio::piped()));
    let mut driver = Nic::connect(&path, Shape::default());
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        lease_ms: 60_000,
        frame_bytes_max: 1514,
        reserved: 0,
        receive_bytes_max: 1 << 20,
    };
    // Four contexts are all that there are.
    let open = |driver: &mut Nic| {
        let open = |key| {
            driver.send(0, [0; 12], &channel_frame(0, 0, key, &Message::Hello(hello)), false);
            eventually("CAPS", || {
                let frame = driver.receive(0)?.1;
                let parsed = Parsed::new(&frame).unwrap();
                parsed.messages.filter_map(Result::ok).find_map(|message| match message {
                    Message::Caps(caps) => Some((key, caps)),
                    _ => None,
                })
            })
        };
        (1..=4).map(open).collect::<Vec<_>>()
    };
    let mut followed = UnixStream::connect(&management).unwrap();
    followed.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut lines = BufReader::new(followed).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("HTTP/1.1 200 "));
    // The end of the head: from now on it follows.
    assert!(lines.any(|line| line.is_empty()));
    let contexts = open(&mut driver);
    let mut notices = lines.filter_map(|line| serde_json::from_str::<Notice>(&line).ok());
    for (level, in_use) in [("high", 3), ("full", 4)] {
        let notice = notices.next().unwrap();
        let what = What::Pool { pool: "contexts".to_owned(), level: level.to_owned(), in_use, capacity: 4 };
        assert_eq!(notice.what, what);
    }
    let mut toectl = Command::new(env!("CARGO_BIN_EXE_toectl"));
    toectl.arg("--socket").arg(&management).arg("events").stdout(Stdio::piped());
    let mut toectl = Running::start(&mut toectl);
    let out = toectl.0.stdout.take().unwrap();
    let first = std::thread::spawn(move || BufReader::new(out).lines().next());
    let mut contexts = Some(contexts);
    eventually("a line of toectl", || {
        for (key, caps) in contexts.take().unwrap_or_else(|| open(&mut driver)) {
            let bye = Message::Bye(Bye { reserved: 0 });
            driver.send(0, [0; 12], &channel_frame(caps.context, caps.epoch, key, &bye), false);
        }
        first.is_finished().then_some(())
    });
    let line = first.join().unwrap().unwrap().unwrap();
    let what = serde_json::from_str::<Notice>(&line).unwrap().what;
    assert!(matches!(&what, What::Pool { pool, .. } if pool == "contexts"), "{what:?}");
    let mut log = BufReader::new(running.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("pool contexts is high: 3 of 4 in use")));
    assert!(log.any(|line| line.contains("pool contexts is full: 4 of 4 in use")));
    running.signal(libc::SIGTERM);
    assert!(running.wait().success());
    // Well, if its reader was the first to go; not, if it was the card.
    toectl.wait();
}

#[test]
fn what_frontends_do_is_logged_on_request() {
    let path = fresh_path("h.sock");
    let mut command = nic(&["-v", "--socket-path", path.to_str().unwrap(), "--wire", "loop"]);
    let mut running = Running::start(command.stderr(Stdio::piped()));
    drop(Nic::connect(&path, Shape::default()));
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("a frontend has come")));
    assert!(lines.any(|line| line.unwrap().contains("the frontend has gone")));
    running.signal(libc::SIGTERM);
    assert!(running.wait().success());
}

//! Faults armed on a live card: what a driver sees of each, that lost doorbells and interrupts are found again, and how an
//! operator arms and disarms.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use common::{Nic, Shape, card, eventually, fresh_path};
use toe_abi::{CARD_MAC, Hello, Mac, Message, Parsed, Writer};
use toe_device::Device;
use toe_device::fault::status::{RecordStatus, SiteInfo, Status};
use toe_device::wire::WireSpec;
use toe_firmware::Profile;

/// A UDP frame of that length that `tag` tells from others.
fn frame(bytes: usize, tag: u8) -> Vec<u8> {
    let mut frame = vec![tag; bytes];
    let head = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    frame[..26].copy_from_slice(&head);
    frame
}

/// How often a card gives word of its boot.
const WORDS: u64 = 5;

/// A card whose wire leads back, and its driver. What they have to say to each other at the start is over.
fn quiet_card() -> (Device, Nic) {
    let (device, path) = card(WireSpec::Loop, 1, Profile::default());
    let mut nic = Nic::connect(&path, Shape::default());
    eventually("the last word of its boot", || (stat(&device, "firmware-frames-to-guest") >= WORDS).then_some(()));
    pass(&mut nic, 99);
    (device, nic)
}

/// The same with one rule.
fn with_rule(site: &str, rest: &str) -> (Device, Nic) {
    let (device, nic) = quiet_card();
    arm(&device, site, rest);
    (device, nic)
}

fn arm(device: &Device, site: &str, rest: &str) {
    let text = format!("[[rule]]\nsite = \"{site}\"\n{rest}\n");
    device.card().arm(toe_faults::read(&text).unwrap(), 7);
}

fn stat(device: &Device, name: &str) -> u64 {
    device.card().stat()[name]
}

fn send(nic: &mut Nic, frame: &[u8]) {
    nic.send(0, [0; 12], frame, false);
}

/// A frame goes out and comes back.
fn pass(nic: &mut Nic, tag: u8) {
    send(nic, &frame(100, tag));
    assert_eq!(nic.expect(0), frame(100, tag));
}

/// What comes back of frames with these tags, up to a last one that nothing befalls.
fn returned(device: &Device, nic: &mut Nic, tags: &[u8]) -> Vec<Vec<u8>> {
    for tag in tags {
        send(nic, &frame(100, *tag));
    }
    eventually("all strikes", || (device.card().faults().sites[0].passages >= tags.len() as u64).then_some(()));
    eventually("what is held to go", || (device.card().faults().held == 0).then_some(()));
    device.card().disarm();
    send(nic, &frame(100, 255));
    let mut all = Vec::new();
    loop {
        let next = nic.expect(0);
        if next == frame(100, 255) {
            return all;
        }
        all.push(next);
    }
}

fn tags(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().map(|frame| frame.get(99).copied().unwrap_or(0)).collect()
}

/// How long something usually takes: the median of nine, which a machine that does other things, too, does not move much.
fn usually(mut f: impl FnMut()) -> Duration {
    let mut times = [(); 9].map(|()| {
        let start = Instant::now();
        f();
        start.elapsed()
    });
    times.sort_unstable();
    times[4]
}

#[test]
fn a_doorbell_that_is_lost_is_found_within_50_ms() {
    let (device, mut nic) = quiet_card();
    let without = usually(|| pass(&mut nic, 1));
    arm(&device, "virtio.kick.tx", "action = \"drop\"");
    let with = usually(|| pass(&mut nic, 2));
    assert!(with <= Duration::from_millis(50) + 10 * without, "{with:?}, and {without:?} with doorbells");
    // And the next one that is heard is answered as ever.
    device.card().disarm();
    let after = usually(|| pass(&mut nic, 3));
    assert!(after <= Duration::from_millis(10) + 10 * without, "{after:?}, and {without:?} before");
}

#[test]
fn a_doorbell_that_is_lost_is_found_and_counted() {
    let (device, mut nic) = with_rule("virtio.kick.tx", "action = \"drop\"");
    for tag in 0..5 {
        pass(&mut nic, tag);
    }
    let missed = eventually("a count of missed kicks", || Some(stat(&device, "kicks-missed")).filter(|n| *n > 0));
    let status = device.card().faults();
    assert!(missed <= status.strikes, "{missed} missed: {status:?}");
}

#[test]
fn a_doorbell_may_come_late_or_twice() {
    // How late depends on whether the card looks at the ring for another reason: that it comes is what counts.
    for action in ["{ delay = \"20ms\" }", "\"duplicate\""] {
        let (device, mut nic) = with_rule("virtio.kick.tx", &format!("action = {action}"));
        for tag in 0..5 {
            pass(&mut nic, tag);
        }
        assert!(device.card().faults().strikes > 0, "{action}");
    }
}

/// Waits until the driver is interrupted for its receive ring, having asked for that at the next frame.
fn asks(nic: &mut Nic) {
    while nic.rings[0].call.read().is_ok() {}
    let queue = &nic.rings[0].queue;
    queue.set_used_event(queue.next_used);
}

#[test]
fn an_interrupt_that_is_lost_is_sent_again() {
    let (device, mut nic) = with_rule("virtio.call.rx", "action = \"drop\"\ntimes = 1");
    asks(&mut nic);
    send(&mut nic, &frame(100, 1));
    eventually("the interrupt", || nic.rings[0].call.read().ok());
    assert_eq!(nic.expect(0), frame(100, 1));
    assert_eq!(device.card().faults().strikes, 1);
    assert!(stat(&device, "interrupts-repeated") >= 1);
}

#[test]
fn an_interrupt_that_is_lost_is_sent_again_within_100_ms() {
    let (device, mut nic) = quiet_card();
    let mut times = Vec::new();
    for tag in 0..9 {
        arm(&device, "virtio.call.rx", "action = \"drop\"\ntimes = 1");
        asks(&mut nic);
        let start = Instant::now();
        send(&mut nic, &frame(100, tag));
        eventually("the interrupt", || nic.rings[0].call.read().ok());
        times.push(start.elapsed());
        assert_eq!(nic.expect(0), frame(100, tag));
        assert_eq!(device.card().faults().strikes, 1);
    }
    times.sort_unstable();
    assert!(times[4] <= Duration::from_millis(100), "{times:?}");
}

#[test]
fn a_storm_is_as_many_interrupts_as_its_rule_says() {
    let (device, mut nic) = with_rule("virtio.call.rx", "action = { corrupt = 40 }\ntimes = 1");
    asks(&mut nic);
    let before = stat(&device, "interrupts");
    send(&mut nic, &frame(100, 1));
    eventually("the storm", || (stat(&device, "interrupts") >= before + 40).then_some(()));
    assert_eq!(nic.expect(0), frame(100, 1));
    pass(&mut nic, 2);
}

#[test]
fn a_used_index_that_is_not_written_is_written_later() {
    let (device, mut nic) = with_rule("virtio.used.index", "action = \"drop\"\ntimes = 2");
    asks(&mut nic);
    pass(&mut nic, 1);
    pass(&mut nic, 2);
    assert_eq!(device.card().faults().strikes, 2);
    eventually("an interrupt for it", || nic.rings[0].call.read().ok());
}

#[test]
fn a_used_id_of_no_buffer_is_seen_by_the_driver() {
    let (_device, mut nic) = with_rule("virtio.used.index", "action = \"error\"");
    send(&mut nic, &frame(100, 1));
    let size = u32::from(nic.rings[0].queue.size);
    let (id, _) = eventually("a used chain", || nic.rings[0].queue.take_used());
    assert_eq!(id, size, "no descriptor has it");
}

#[test]
fn a_bad_cable_loses_repeats_reorders_damages_and_cuts() {
    let (device, mut nic) = quiet_card();
    for site in ["wire.rx.frame", "wire.tx.frame"] {
        let mut run = |rest: &str, sent: &[u8]| {
            arm(&device, site, rest);
            returned(&device, &mut nic, sent)
        };
        assert_eq!(tags(&run("when = { every = 2 }\naction = \"drop\"", &[1, 2, 3, 4])), [2, 4], "{site}");
        let mut twice = tags(&run("when = { nth = 1 }\naction = \"duplicate\"", &[1, 2]));
        twice.sort_unstable();
        assert_eq!(twice, [1, 1, 2], "{site}");
        assert_eq!(tags(&run("when = { nth = 1 }\naction = { reorder = 2 }", &[1, 2, 3])), [2, 3, 1], "{site}");
        assert_eq!(tags(&run("when = { nth = 1 }\naction = { delay = \"30ms\" }", &[1, 2])), [2, 1], "{site}");
        let flipped = run("action = \"flip-bit\"\ntimes = 1", &[1]);
        let differ: u32 = flipped[0].iter().zip(frame(100, 1)).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(differ, 1, "{site}");
        assert_eq!(run("action = { truncate = 60 }\ntimes = 1", &[1]), [&frame(100, 1)[..60]], "{site}");
    }
}

#[test]
fn a_bad_copy_is_as_long_as_it_was_and_stays_in_its_ring() {
    let (device, mut nic) = quiet_card();
    for site in ["dma.rx.write", "dma.tx.read"] {
        let mut run = |rest: &str, sent: &[u8]| {
            arm(&device, site, rest);
            returned(&device, &mut nic, sent)
        };
        assert_eq!(tags(&run("when = { every = 2 }\naction = \"drop\"", &[1, 2, 3])), [2], "{site}");
        let mut twice = tags(&run("when = { nth = 2 }\naction = \"duplicate\"", &[1, 2]));
        twice.sort_unstable();
        assert_eq!(twice, [1, 2, 2], "{site}");
        assert_eq!(tags(&run("when = { nth = 1 }\naction = { delay = \"30ms\" }", &[1, 2])), [2, 1], "{site}");
        let short = run("action = { truncate = 60 }\ntimes = 1", &[1]);
        assert_eq!(short, [[&frame(100, 1)[..60], &[0; 40]].concat()], "{site}");
        let torn = run("action = \"error\"\ntimes = 1", &[1]);
        assert_eq!(torn, [[&frame(100, 1)[..64], &[0; 36]].concat()], "{site}");
    }
    // Written into the buffer of the next chain: what the driver finds in its own is not the frame.
    arm(&device, "dma.rx.write", "when = { nth = 1 }\naction = \"corrupt\"");
    let back = returned(&device, &mut nic, &[1, 2]);
    assert!(!back.contains(&frame(100, 1)) && back.contains(&frame(100, 2)), "{back:?}");
}

#[test]
fn a_link_goes_down_for_its_time_and_up_again() {
    let (device, mut nic) = with_rule("wire.link", "when = { nth = 1 }\naction = { hang = \"100ms\" }");
    let lost = stat(&device, "fault-frames-lost");
    let start = Instant::now();
    let mut sent = 0;
    eventually("a frame that passes", || {
        send(&mut nic, &frame(100, 1));
        sent += 1;
        std::thread::sleep(Duration::from_millis(2));
        nic.receive(0)
    });
    assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
    assert!((1..sent).contains(&(stat(&device, "fault-frames-lost") - lost)));
}

#[test]
fn the_firmware_hears_of_nothing_while_its_wakes_and_channel_are_bad_and_then_goes_on() {
    let hello = Message::Hello(Hello {
        version_min: 1,
        version_max: 1,
        lease_ms: 60_000,
        frame_bytes_max: 1514,
        reserved: 0,
        receive_bytes_max: 1 << 20,
    });
    let said = |key: u128| {
        let mut buffer = [0; 512];
        let mut writer = Writer::new(&mut buffer, Mac([2, 0, 0, 0, 0, 9]), CARD_MAC, 0, 0, key).unwrap();
        assert!(writer.push(&hello));
        let bytes = writer.finish();
        buffer[..bytes].to_vec()
    };
    let (device, mut nic) = quiet_card();
    for (key, (site, action)) in [
        ("channel.rx.frame", "\"drop\""),
        ("channel.tx.frame", "\"drop\""),
        ("channel.tx.frame", "{ delay = \"20ms\" }"),
        ("channel.rx.frame", "{ delay = \"20ms\" }"),
        ("dma.rx.write", "\"duplicate\""),
        ("timer.wake", "{ delay = \"20ms\" }"),
    ]
    .into_iter()
    .enumerate()
    {
        arm(&device, site, &format!("action = {action}\ntimes = 1"));
        let mut asked = 0;
        eventually("CAPS", || {
            // As a driver does that has no answer.
            send(&mut nic, &said(key as u128 + 1));
            asked += 1;
            std::thread::sleep(Duration::from_millis(1));
            let frame = nic.receive(0)?.1;
            let parsed = Parsed::new(&frame).unwrap();
            // Not a late answer to the one before.
            let is_ours = parsed.header.key == key as u128 + 1;
            let mut messages = parsed.messages.filter_map(Result::ok).filter(|_| is_ours);
            messages.any(|message| matches!(message, Message::Caps(_))).then_some(())
        });
        assert!(device.card().faults().strikes == 1 || site == "timer.wake", "{site} {action}");
        assert!(asked > 1 || !action.contains("drop"), "{site}: the first was lost");
    }
}

#[test]
fn more_than_can_be_held_are_lost_and_counted() {
    let (device, mut nic) = with_rule("wire.rx.frame", "action = { delay = \"60s\" }");
    let places = toe_device::fault::held::HELD_FRAMES_MAX as u64;
    for tag in 0..places + 10 {
        send(&mut nic, &frame(100, tag as u8));
    }
    eventually("ten without a place", || (stat(&device, "fault-frames-no-place") == 10).then_some(()));
    assert_eq!((device.card().faults().held as u64, stat(&device, "fault-frames-lost")), (places, 10));
    device.card().disarm();
    for _ in 0..places {
        nic.expect(0);
    }
    pass(&mut nic, 1);
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn toectl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_toectl")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const RULES: &str = "[[rule]]\nsite = \"wire.rx.frame\"\nwhen = { every = 3 }\naction = \"drop\"\n";
const WRONG: &str = "\n[[rule]]\nsite = \"wire.rx.frames\"\naction = \"drop\"\n";

#[test]
fn an_operator_arms_at_the_start_asks_disarms_and_arms_again() {
    let (path, api, file) = (fresh_path("f.sock"), fresh_path("f.api"), fresh_path("rules.toml"));
    let (api, file) = (api.to_str().unwrap(), file.to_str().unwrap());
    std::fs::write(file, RULES).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_toe-nic"));
    command.arg("--socket-path").arg(&path).args(["--wire", "loop", "--management-socket", api]);
    let _running = Running(command.args(["--faults", file, "--faults-seed", "9"]).spawn().unwrap());
    let mut nic = Nic::connect(&path, Shape::default());
    for tag in 1..=4 {
        send(&mut nic, &frame(100, tag));
    }
    assert_eq!([nic.expect(0), nic.expect(0)], [frame(100, 2), frame(100, 3)]);
    let ask = |args: &[&str]| {
        let output = toectl(&[&["--socket", api, "faults"], args].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    let status = |args: &[&str]| serde_json::from_str::<Status>(&ask(args)).unwrap();
    let now = status(&["status", "--json"]);
    let passages: Vec<_> = now.records.iter().map(|record| (record.site.as_str(), record.passage)).collect();
    assert_eq!((now.armed, now.seed, passages), (true, Some(9), vec![("wire.rx.frame", 1), ("wire.rx.frame", 4)]));
    assert_eq!((now.sites[0].passages, now.sites[0].strikes, now.rules[0].line), (4, 2, 1));
    assert!(ask(&["status"]).contains("wire.rx.frame         4        2"), "{}", ask(&["status"]));
    assert!(ask(&["status", "--last", "1"]).contains("and 1 before these"));
    // What is wrong is said with its line and the nearest names, and what was armed stays so.
    std::fs::write(file, WRONG).unwrap();
    let refused = toectl(&["--socket", api, "faults", "arm", file]);
    let said = text(&refused.stderr);
    assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains(file) && said.contains("line 3") && said.contains("wire.rx.frame,"), "{said}");
    assert!(status(&["status", "--json"]).armed);
    assert_eq!(status(&["disarm", "--json"]).strikes, 2);
    assert_eq!(ask(&["status"]), "no faults are armed\n");
    for tag in 1..=3 {
        pass(&mut nic, tag);
    }
    std::fs::write(file, RULES).unwrap();
    assert!(ask(&["arm", file, "--seed", "4"]).starts_with("armed: 1 rules, seed 4, "));
    send(&mut nic, &frame(100, 1));
    pass(&mut nic, 2);
    assert_eq!(status(&["status", "--json"]).strikes, 1);
    std::fs::remove_file(file).unwrap();
}

/// What is armed, without a process for each question.
fn asked(api: &str) -> Status {
    let mut stream = UnixStream::connect(api).unwrap();
    stream.write_all(b"GET /faults HTTP/1.1\r\nHost: card\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn the_same_rules_and_seed_strike_alike_in_the_simulator_and_on_a_live_card() {
    let rules = r#"
        [[rule]]
        site = "wire.rx.frame"
        filter = { flags = "SYN" }
        action = { delay = "1ms" }
        times = 2

        [[rule]]
        site = "wire.rx.frame"
        when = { every = 9, after_bytes = 3000 }
        action = "drop"

        [[rule]]
        site = "wire.rx.frame"
        when = { share = "7%" }
        action = "flip-bit"

        [[rule]]
        site = "channel.rx.frame"
        when = { every = 13 }
        action = "drop"

        [[rule]]
        site = "channel.rx.frame"
        when = { share = "10%" }
        action = "duplicate"
    "#;
    let scenario = toe_sim::named("open").unwrap();
    let passed = toe_sim::passed(3, scenario, &toe_faults::read(rules).unwrap());
    // The last that the card remembers are all.
    let simulated: Vec<_> = passed.records.iter().map(RecordStatus::new).collect();
    assert!((20..1024).contains(&simulated.len()), "{} strikes", simulated.len());

    let (path, api, file) = (fresh_path("g.sock"), fresh_path("g.api"), fresh_path("rules.toml"));
    let api = api.to_str().unwrap();
    std::fs::write(&file, rules).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_toe-nic"));
    command
        .arg("--socket-path")
        .arg(&path)
        .args(["--wire", "loop", "--management-socket", api])
        .arg("--faults")
        .arg(&file);
    let _running = Running(command.args(["--faults-seed", &passed.faults_seed.to_string()]).spawn().unwrap());
    let mut nic = Nic::connect(&path, Shape::default());
    let mut passages = [0; 2];
    let sites = ["wire.rx.frame", "channel.rx.frame"];
    for (site, frame) in &passed.frames {
        // What leaves the card by its wire comes back to it.
        let Some(which) = sites.iter().position(|name| *name == site.name()) else { continue };
        passages[which] += 1;
        send(&mut nic, frame);
        let has_passed = || asked(api).sites.iter().any(|s| s.site == sites[which] && s.passages == passages[which]);
        eventually("the frame's passage", || has_passed().then_some(()));
        while nic.receive(0).is_some() {}
    }
    assert!(passages[0] > 50 && passages[1] > 100, "{passages:?}");
    let key =
        |r: &RecordStatus| (r.site.clone(), r.passage, r.action.clone(), r.line, r.local.clone(), r.remote.clone());
    let [simulated, live] = [simulated, asked(api).records].map(|all| all.iter().map(key).collect::<Vec<_>>());
    assert_eq!(simulated, live);
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_rule_file_that_makes_no_sense_is_refused_before_anything_starts() {
    let file = fresh_path("wrong.toml");
    std::fs::write(&file, WRONG).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_toe-nic"));
    command.args(["--socket-path", "/nowhere/x", "--wire", "loop", "--faults"]).arg(&file);
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("line 3") && said.contains("the nearest are wire.rx.frame"), "{said}");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn the_sites_are_listed_without_a_card() {
    let table = toectl(&["faults", "list"]);
    let json = toectl(&["faults", "list", "--json"]);
    let sites: Vec<SiteInfo> = serde_json::from_slice(&json.stdout).unwrap();
    for SiteInfo { site, .. } in &sites {
        assert!(text(&table.stdout).contains(&format!("\n{site} ")), "{site}");
    }
    for site in ["virtio.kick.tx", "dma.rx.write", "wire.link", "timer.retransmit", "processor"] {
        assert!(sites.iter().any(|info| info.site == site), "{site}");
    }
}

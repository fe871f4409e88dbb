//! A driver on one side of the card, a loop on the other: what goes out comes back, whatever was agreed upon.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{
    EVENT_IDX, INDIRECT, MERGEABLE, Nic, OFFLOADS, PROTOCOL, Shape, VERSION_1, card, eventually, polling_card,
};
use toe_abi::FRAME_BYTES_MAX;
use toe_device::Device;
use toe_device::wire::WireSpec;
use toe_firmware::Profile;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;

/// A UDP frame of that length whose every byte tells its place and `tag`.
fn frame(bytes: usize, tag: u16) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..bytes).map(|i| (i * 7 + usize::from(tag)) as u8).collect();
    let head = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    frame[..26].copy_from_slice(&head);
    frame[34..36].copy_from_slice(&tag.to_be_bytes());
    frame
}

fn stat(device: &Device) -> BTreeMap<&'static str, u64> {
    device.card().stat()
}

/// The accounts of `counters.rs` balance, once nothing is on its way any more.
fn balanced(device: &Device) {
    eventually("balanced accounts", || {
        let stat = stat(device);
        let sum = |prefix: &str| stat.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, n)| n).sum::<u64>();
        let held = device.card().limits().iter().find(|l| l.name == "receive-fifo").unwrap().in_use;
        let wire_drops = stat["wire-down"] + stat["wire-refused"];
        let to_wire = stat["frames-from-guest-taken"] + stat["frames-to-wire"] + sum("guest-frame-") + wire_drops;
        let to_guest = stat["frames-from-wire-taken"] + stat["frames-to-guest"] + held;
        let from_wire = to_guest + stat["no-guest"] + sum("wire-frame-");
        (stat["frames-from-guest"] == to_wire && stat["frames-from-wire"] == from_wire).then_some(())
    });
}

#[test]
fn frames_pass_whatever_was_agreed_upon() {
    let all = !OFFLOADS;
    let sets = [
        ("everything", u64::MAX, 1536),
        ("no offloads", all, 1536),
        ("no EVENT_IDX", all & !EVENT_IDX, 1536),
        ("no INDIRECT", all & !INDIRECT, 1536),
        ("no MRG_RXBUF", all & !MERGEABLE, 70_000),
        ("VERSION_1 alone", VERSION_1 | PROTOCOL, 70_000),
        ("legacy with merging", MERGEABLE | PROTOCOL | EVENT_IDX, 1536),
        ("legacy", PROTOCOL, 70_000),
        ("without protocol features", all & !PROTOCOL, 1536),
    ];
    let (device, path) = card(WireSpec::Loop, 1, Profile::default());
    for (name, features, receive_bytes) in sets {
        let mut nic = Nic::connect(&path, Shape { features, receive_bytes, ..Shape::default() });
        assert_eq!(nic.features & !features, 0, "{name}");
        let indirect = nic.features & INDIRECT != 0;
        for (i, bytes) in [60, 61, 1514, 9014, 65_000, FRAME_BYTES_MAX].into_iter().cycle().take(200).enumerate() {
            let sent = frame(bytes, i as u16);
            nic.send(0, [0; 12], &sent, indirect && i % 3 == 0);
            assert!(nic.expect(0) == sent, "{name}: frame {i} of {bytes} bytes");
        }
        drop(nic);
    }
    balanced(&device);
    assert_eq!(stat(&device)["frames-to-guest"], 200 * sets.len() as u64);
}

#[test]
fn offload_headers_pass_to_a_guest_that_agreed_and_to_no_other() {
    // NEEDS_CSUM and TCPv4 segments of 1,448 bytes.
    let header = [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
    let (device, path) = card(WireSpec::Loop, 1, Profile::default());
    let mut nic = Nic::connect(&path, Shape::default());
    nic.send(0, header, &frame(5000, 1), false);
    let (received, _) = eventually("a frame", || nic.receive(0));
    assert_eq!(received[..10], header[..10]);
    drop(nic);
    let mut nic = Nic::connect(&path, Shape { features: !OFFLOADS, ..Shape::default() });
    nic.send(0, header, &frame(5000, 2), false);
    nic.send(0, [0; 12], &frame(60, 3), false);
    assert_eq!(nic.expect(0), frame(60, 3));
    assert_eq!(stat(&device)["wire-frame-offload-not-negotiated"], 1);
    balanced(&device);
}

#[test]
fn a_card_that_polls_wants_no_kicks_and_gives_way_in_the_end() {
    let wants_kicks = |nic: &Nic, event_idx: bool| {
        let queue = &nic.rings[1].queue;
        if event_idx { queue.avail_event() == queue.next_avail } else { queue.used_flags() == 0 }
    };
    for event_idx in [true, false] {
        let features = if event_idx { u64::MAX } else { !EVENT_IDX };
        let shape = Shape { features, ..Shape::default() };
        let (device, path) = polling_card(WireSpec::Loop, 1, Profile::default(), Duration::from_millis(1));
        let mut nic = Nic::connect(&path, shape);
        for i in 0..500 {
            nic.send(0, [0; 12], &frame(100, i), false);
            assert_eq!(nic.expect(0), frame(100, i));
            if i % 100 == 99 {
                eventually("a card that sleeps", || wants_kicks(&nic, event_idx).then_some(()));
            }
        }
        drop(nic);
        balanced(&device);
    }
    // One that hardly ever gives way: all goes on, and it ends when it is told to.
    let (device, path) = polling_card(WireSpec::Loop, 1, Profile::default(), Duration::from_secs(3600));
    let mut nic = Nic::connect(&path, Shape { features: !EVENT_IDX, ..Shape::default() });
    for i in 0..100 {
        nic.send(0, [0; 12], &frame(100, i), false);
        assert_eq!(nic.expect(0), frame(100, i));
        eventually("a card that polls", || (!wants_kicks(&nic, false)).then_some(()));
    }
    drop(nic);
    balanced(&device);
}

#[test]
fn a_flow_keeps_to_its_pair_and_many_flows_use_them_all() {
    let pairs = 4;
    let (device, path) = card(WireSpec::Loop, pairs, Profile::default());
    let mut nic = Nic::connect(&path, Shape { pairs: pairs.into(), ..Shape::default() });
    assert_eq!(nic.frontend.get_queue_num().unwrap(), u64::from(pairs), "pairs, not rings");
    let mut pass = |i: u16| {
        let flow = i % 40;
        let sent = frame(100, flow);
        nic.send(usize::from(i % pairs), [0; 12], &sent, false);
        let (pair, got) = eventually("a frame on any pair", || {
            (0..usize::from(pairs)).find_map(|pair| Some((pair, nic.receive(pair)?.1)))
        });
        assert_eq!(got, sent);
        (flow, pair)
    };
    // Pairs start one after the other: what comes before all have goes to those that there are.
    let mut started = BTreeSet::new();
    (0..).find(|i| started.insert(pass(*i).1) && started.len() == usize::from(pairs));
    let mut pair_of = BTreeMap::new();
    for i in 0..400u16 {
        let (flow, pair) = pass(i);
        assert_eq!(*pair_of.entry(flow).or_insert(pair), pair, "flow {flow}");
    }
    let mut used: Vec<_> = pair_of.into_values().collect();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used, [0, 1, 2, 3]);
    // With a pair stopped, its flows go to the others.
    nic.stop(2);
    nic.stop(0);
    for flow in 0..40 {
        nic.send(1, [0; 12], &frame(100, flow), false);
        eventually("a frame on pair 2 or 3", || nic.receive(2).or_else(|| nic.receive(3)));
    }
    balanced(&device);
}

#[test]
fn frontends_come_and_go_and_nothing_is_left_of_them() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let (device, path) = card(WireSpec::Loop, 2, Profile::default());
    let mut before = None;
    for i in 0..20 {
        let mut nic = Nic::connect(&path, Shape { pairs: 2, ..Shape::default() });
        for tag in 0..8 {
            nic.send(0, [0; 12], &frame(200, tag), false);
        }
        let mut got = 0;
        eventually("eight frames", || {
            got += (0..2).filter_map(|pair| nic.receive(pair)).count();
            (got == 8).then_some(())
        });
        drop(nic);
        eventually("the frontend's end", || (stat(&device)["frontends-connected"] == i + 1).then_some(()));
        if i == 4 {
            before = Some((descriptors(), threads()));
        }
    }
    // Other tests of this process open and close theirs meanwhile: not more than a few.
    let (fds, tasks) = before.unwrap();
    eventually("descriptors to be closed", || (descriptors() < fds + 12).then_some(()));
    eventually("threads to end", || (threads() < tasks + 12).then_some(()));
    balanced(&device);
}

#[test]
fn a_frontend_that_dies_in_the_middle_of_a_message_is_survived() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    let (_device, path) = card(WireSpec::Loop, 1, Profile::default());
    for cut in [0, 1, 11, 12, 15] {
        let mut stream = UnixStream::connect(&path).unwrap();
        let message = [2u32, 1, 8, 0, 0].map(u32::to_ne_bytes).concat();
        stream.write_all(&message[..cut]).unwrap();
    }
    // Nonsense: a message too long, one that nobody knows, a ring that is not there.
    for words in [[1u32, 1, 1 << 20, 0, 0], [99, 9, 8, 0, 0], [8, 1, 8, 99, 4]] {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(&words.map(u32::to_ne_bytes).concat()).unwrap();
    }
    let mut nic = Nic::connect(&path, Shape::default());
    nic.send(0, [0; 12], &frame(60, 1), false);
    assert_eq!(nic.expect(0), frame(60, 1));
}

#[test]
fn a_ring_that_is_stopped_goes_on_where_it_stood() {
    let (_device, path) = card(WireSpec::Loop, 1, Profile::default());
    let mut nic = Nic::connect(&path, Shape::default());
    for tag in 0..100 {
        nic.send(0, [0; 12], &frame(300, tag), false);
        assert_eq!(nic.expect(0), frame(300, tag));
        if tag % 10 == 9 {
            for index in [0, 1] {
                let base = nic.stop(index);
                let offered = nic.rings[index].queue.next_avail;
                // What the card took it has used; receive buffers that wait are still the driver's.
                assert_eq!(base, if index == 1 { offered } else { nic.rings[0].queue.next_used });
                nic.start(index, base);
            }
        }
    }
}

#[test]
fn without_buffers_frames_wait_and_nothing_is_dropped() {
    let mut profile = Profile::default();
    profile.limits.receive_fifo_frames = 16;
    let (device, path) = card(WireSpec::Loop, 1, profile);
    // 8 receive buffers, and a transmit ring that sends 500 frames before any of them is emptied.
    let mut nic = Nic::connect(&path, Shape { size: 8, features: !MERGEABLE, receive_bytes: 2048, pairs: 1 });
    let total = 500u16;
    let (mut sent, mut got) = (0, 0);
    // Until nothing moves any more: 8 in the ring, 16 in the FIFO, 256 in the loop, 1 waiting, 8 in the transmit ring. But a
    // firmware that has booted says so up to five times, each time in a buffer of the ring.
    let held = 8 + 16 + 256 + 1 + 8 - 5;
    while sent < held {
        nic.send(0, [0; 12], &frame(600, sent), false);
        sent += 1;
    }
    let fifo = || device.card().limits().into_iter().find(|l| l.name == "receive-fifo").unwrap();
    eventually("a full FIFO", || (fifo().in_use == 16).then_some(()));
    assert_eq!((fifo().high_water, fifo().refusals["receive-fifo-full"] > 0), (16, true));
    while got < total {
        assert!(nic.expect(0) == frame(600, got), "frame {got}");
        got += 1;
        if sent < total {
            nic.send(0, [0; 12], &frame(600, sent), false);
            sent += 1;
        }
    }
    balanced(&device);
    assert_eq!(stat(&device)["frames-to-guest"], u64::from(total));
}

#[test]
fn a_polling_driver_gets_no_interrupts_and_others_one_for_a_frame_that_waits() {
    let (device, path) = card(WireSpec::Loop, 1, Profile::default());
    for features in [!EVENT_IDX, u64::MAX] {
        let mut nic = Nic::connect(&path, Shape { features, ..Shape::default() });
        nic.rings[0].queue.set_no_interrupt(true);
        nic.rings[1].queue.set_no_interrupt(true);
        nic.rings[0].queue.set_used_event(u16::MAX);
        nic.rings[1].queue.set_used_event(u16::MAX);
        // Each ring says once that it has started, whatever the driver asks for: what a card that was killed did may
        // never have been said.
        nic.send(0, [0; 12], &frame(60, 51), false);
        nic.expect(0);
        for ring in 0..2 {
            eventually("the interrupt of a ring that starts", || nic.rings[ring].call.read().ok());
        }
        let before = stat(&device)["interrupts"];
        for tag in 0..50 {
            nic.send(0, [0; 12], &frame(60, tag), false);
            nic.expect(0);
        }
        assert_eq!(stat(&device)["interrupts"], before);
        nic.rings[0].queue.set_no_interrupt(false);
        nic.rings[0].queue.set_used_event(nic.rings[0].queue.next_used);
        nic.send(0, [0; 12], &frame(60, 50), false);
        eventually("an interrupt", || nic.rings[0].call.read().ok());
        nic.expect(0);
    }
}

#[test]
fn malformed_chains_are_counted_and_the_rest_goes_on() {
    let (device, path) = card(WireSpec::Loop, 1, Profile::default());
    let mut nic = Nic::connect(&path, Shape::default());
    for round in 0..50u16 {
        let ring = &mut nic.rings[1];
        let head = ring.queue.next_avail % ring.queue.size;
        let descriptor = match round % 3 {
            0 => (1 << 40, 60, 0, 0),
            1 => (ring.buffers, 60, 1, head),
            _ => (ring.buffers, 60, 2, 0),
        };
        ring.queue.write_descriptor(ring.queue.descriptors, head, descriptor);
        if ring.queue.offer(head) {
            ring.kick.write(1).unwrap();
        }
        nic.send(0, [0; 12], &frame(60, round), false);
        assert_eq!(nic.expect(0), frame(60, round));
    }
    let stat = stat(&device);
    let names = ["guest-frame-bad-address", "guest-frame-loop", "guest-frame-wrong-direction"];
    assert_eq!(names.map(|name| stat[name]), [17, 17, 16]);
    balanced(&device);
}

#[test]
fn the_configuration_can_be_read_and_what_the_daemon_fails_on_is_not_offered() {
    let (_device, path) = card(WireSpec::Loop, 3, Profile::default());
    let mut frontend = vhost::vhost_user::Frontend::connect(&path, 64).unwrap();
    frontend.set_owner().unwrap();
    frontend.get_features().unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    let absent = VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
        | VhostUserProtocolFeatures::MTU
        | VhostUserProtocolFeatures::RARP
        | VhostUserProtocolFeatures::STATUS
        | VhostUserProtocolFeatures::INBAND_NOTIFICATIONS
        | VhostUserProtocolFeatures::INFLIGHT_SHMFD;
    assert!((protocol & absent).is_empty(), "{protocol:?}");
    frontend.set_protocol_features(protocol).unwrap();
    let flags = vhost::vhost_user::message::VhostUserConfigFlags::empty();
    let (_, config) = frontend.get_config(8, 4, flags, &[0; 4]).unwrap();
    assert_eq!(config, [3, 0, 0xff, 0xff]);
}

#[test]
fn no_guest_no_frame() {
    // Frames that a guest left in the loop come back when it is gone.
    let (device, path) = card(WireSpec::Loop, 1, Profile::default());
    let mut nic = Nic::connect(&path, Shape { size: 8, features: !MERGEABLE, ..Shape::default() });
    for tag in 0..100 {
        nic.send(0, [0; 12], &frame(60, tag), false);
    }
    drop(nic);
    eventually("the rest to be dropped", || {
        let stat = stat(&device);
        (stat["no-guest"] > 0 && stat["frames-from-wire"] == stat["frames-to-wire"]).then_some(())
    });
    balanced(&device);
}

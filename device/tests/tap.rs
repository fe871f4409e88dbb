//! A TAP in a network namespace of its own as the wire. Needs root (or CAP_SYS_ADMIN and CAP_NET_ADMIN).

mod common;

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use common::{GUEST_MAC, HOST_MAC, Nic, Shape, card, datagram, eventually};
use toe_device::wire::{TapError, WireError, WireSpec};
use toe_firmware::Profile;

/// Runs `work` in a thread with a network namespace of its own, in which nothing but `lo` is.
fn in_namespace(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: it changes the namespace of this thread alone, which began a moment ago and has no socket.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "a network namespace: {}; this test needs root", std::io::Error::last_os_error());
        work();
    });
    thread.join().unwrap();
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split_whitespace()).output().expect("`ip` of the package iproute2");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn frames_pass_between_a_driver_and_the_hosts_kernel() {
    in_namespace(|| {
        let (device, path) = card(WireSpec::Tap("toe0".to_owned()), 1, Profile::default());
        // A frame into a TAP that is down is dropped and counted.
        let mut nic = Nic::connect(&path, Shape::default());
        nic.send(0, [0; 12], &datagram(b"too early"), false);
        eventually("the drop", || (device.card().stat()["wire-down"] == 1).then_some(()));
        ip("link set toe0 address 02:00:00:00:00:01 mtu 9000 up");
        ip("addr add 192.0.2.1/24 dev toe0");
        ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev toe0");
        let socket = UdpSocket::bind("192.0.2.1:7").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for bytes in [1, 1000, 8000] {
            nic.send(0, [0; 12], &datagram(&vec![bytes as u8; bytes]), false);
            let mut buffer = [0; 9000];
            let (got, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((got, from.to_string()), (bytes, "192.0.2.2:9".to_owned()));
            socket.send_to(&buffer[..got], from).unwrap();
            // The kernel says other things, too (router solicitations, reports of groups).
            eventually("the echo", || {
                nic.receive(0).filter(|(_, f)| f[..14] == [&GUEST_MAC[..], &HOST_MAC, &[8, 0]].concat() && f[23] == 17)
            });
        }
        // A header that makes no sense: refused by the kernel, counted, and the card goes on.
        let mut header = [0; 12];
        header[1] = 99;
        nic.send(0, header, &datagram(b"nonsense"), false);
        nic.send(0, [0; 12], &datagram(b"sense"), false);
        let mut data = [0; 100];
        assert_eq!(socket.recv(&mut data).unwrap(), 5);
        assert_eq!(device.card().stat()["wire-refused"], 1);
    });
}

#[test]
fn an_existing_tap_is_attached_to_and_one_in_use_is_told() {
    in_namespace(|| {
        ip("tuntap add toe1 mode tap");
        let (device, _) = card(WireSpec::Tap("toe1".to_owned()), 1, Profile::default());
        let error = WireSpec::Tap("toe1".to_owned()).open().err().unwrap();
        assert!(matches!(error, WireError::Tap(TapError::Busy(_))), "{error}");
        drop(device);
        ip("link show toe1");
        // One that the card makes is gone with it.
        drop(card(WireSpec::Tap("toe2".to_owned()), 1, Profile::default()));
        let output = Command::new("ip").args(["link", "show", "toe2"]).output().unwrap();
        assert!(!output.status.success());
        ip("tuntap add toe3 mode tun");
        let error = WireSpec::Tap("toe3".to_owned()).open().err().unwrap();
        assert!(matches!(error, WireError::Tap(TapError::Unsuitable(_))), "{error}");
        ip("tuntap add toe4 mode tap multi_queue");
        let error = WireSpec::Tap("toe4".to_owned()).open().err().unwrap();
        assert!(matches!(error, WireError::Tap(TapError::Unsuitable(_))), "{error}");
    });
}

#[test]
fn what_a_guest_has_no_buffers_for_waits_in_the_taps_queue() {
    in_namespace(|| {
        let mut profile = Profile::default();
        profile.limits.receive_fifo_frames = 4;
        let (device, path) = card(WireSpec::Tap("toe5".to_owned()), 1, profile);
        ip("link set toe5 address 02:00:00:00:00:01 up txqueuelen 200");
        ip("addr add 192.0.2.1/24 dev toe5");
        ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev toe5");
        let mut nic = Nic::connect(&path, Shape { size: 16, ..Shape::default() });
        let socket = UdpSocket::bind("192.0.2.1:7").unwrap();
        // The transmit ring was started after the receive ring: once it works, both do.
        nic.send(0, [0; 12], &datagram(b""), false);
        eventually("the rings to run", || (device.card().stat()["frames-to-wire"] == 1).then_some(()));
        for i in 0..100u8 {
            socket.send_to(&[i; 100], "192.0.2.2:9").unwrap();
        }
        let fifo = || device.card().limits().into_iter().find(|l| l.name == "receive-fifo").unwrap().in_use;
        eventually("a full FIFO", || (fifo() == 4).then_some(()));
        let mut next = 0;
        while next < 100 {
            let (_, frame) = eventually("the next datagram", || nic.receive(0));
            if frame[12..14] == [8, 0] && frame[23] == 17 && frame.len() == 142 {
                assert_eq!(frame[42..], [next; 100]);
                next += 1;
            }
        }
    });
}

//! An interface of the host as the wire: one end of a pair of virtual Ethernet devices in a network namespace of its own. Needs root
//! (or CAP_SYS_ADMIN, CAP_NET_ADMIN and CAP_NET_RAW).

mod common;

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use common::{GUEST_MAC, HOST_MAC, Nic, Shape, card, datagram, eventually};
use toe_device::packet::Packet;
use toe_device::wire::{InterfaceError, Wire, WireError, WireSpec};
use toe_firmware::{Instant, Profile};
use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_GUEST_CSUM;

/// Runs `work` in a thread with a network namespace of its own, with a pair whose near end has the host's addresses.
fn with_a_pair(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: it changes the namespace of this thread alone, which began a moment ago and has no socket.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "a network namespace: {}; this test needs root", std::io::Error::last_os_error());
        ip("link add near type veth peer name far");
        ip("link set far arp off addrgenmode none up");
        ip("link set near address 02:00:00:00:00:01 up");
        ip("addr add 192.0.2.1/24 dev near");
        ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev near");
        both_up();
        work();
    });
    thread.join().unwrap();
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split_whitespace()).output().expect("`ip` of the package iproute2");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The kernel sends over an interface only a moment after it is up.
fn both_up() {
    for name in ["near", "far"] {
        eventually("the pair", || {
            let output = Command::new("ip").args(["-o", "link", "show", name]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("state UP").then_some(())
        });
    }
}

fn far() -> WireSpec {
    WireSpec::Interface("far".to_owned())
}

/// RFC 1071's sum of 16-bit words; 0xffff over a datagram with its pseudo header if the checksum is right.
fn sum_of(parts: &[&[u8]]) -> u16 {
    let words =
        parts.iter().flat_map(|p| p.chunks(2)).map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |b| (*b).into()));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

/// Sends a frame out of the near end as it is.
fn send_near(frame: &[u8]) {
    // SAFETY: creates a socket, and touches no memory of ours.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros is a value of this plain structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    // SAFETY: the name ends with a zero and lives as long as the call.
    address.sll_ifindex = unsafe { libc::if_nametoindex(c"near".as_ptr()) } as i32;
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: reads frame and structure within the lengths given.
    let sent = unsafe {
        let to = (&raw const address).cast();
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, to, size)
    };
    assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
}

#[test]
fn frames_pass_between_a_driver_and_whoever_is_at_the_interfaces_other_end() {
    passes(u64::MAX, false);
}

#[test]
fn a_driver_that_takes_no_unfinished_checksum_gets_none() {
    passes(!(1 << VIRTIO_NET_F_GUEST_CSUM), true);
}

/// Between a driver with those features and the other end. The kernel leaves checksums unfinished between the ends of a pair.
fn passes(features: u64, finished: bool) {
    with_a_pair(move || {
        let (device, path) = card(far(), 1, Profile::default());
        let mut nic = Nic::connect(&path, Shape { features, ..Shape::default() });
        let socket = UdpSocket::bind("192.0.2.1:7").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // More than go with one call, too.
        for bytes in [1, 999, 1400].into_iter().cycle().take(150) {
            nic.send(0, [0; 12], &datagram(&vec![bytes as u8; bytes]), false);
            let mut buffer = [0; 9000];
            let (got, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((got, from.to_string()), (bytes, "192.0.2.2:9".to_owned()));
            socket.send_to(&buffer[..got], from).unwrap();
            let (_, frame) = eventually("the echo", || {
                nic.receive(0).filter(|(_, f)| f[..14] == [&GUEST_MAC[..], &HOST_MAC, &[8, 0]].concat() && f[23] == 17)
            });
            let length = (frame.len() - 34) as u16;
            let sum = sum_of(&[&frame[26..34], &[0, 17], &length.to_be_bytes(), &frame[34..]]);
            assert_eq!(sum == 0xffff, finished);
        }
        // Longer than the interface takes: refused by the kernel, counted, and the card goes on.
        nic.send(0, [0; 12], &datagram(&[7; 2000]), false);
        nic.send(0, [0; 12], &datagram(b"short"), false);
        let mut data = [0; 100];
        assert_eq!(socket.recv(&mut data).unwrap(), 5);
        eventually("the count", || (device.card().stat()["interface-refused"] == 1).then_some(()));
        assert_eq!(device.card().stat()["interface-dropped"], 0);
    });
}

#[test]
fn what_the_host_sends_there_itself_is_not_shown_and_a_tagged_frame_is_dropped_and_counted() {
    with_a_pair(|| {
        let (device, path) = card(far(), 1, Profile::default());
        let mut nic = Nic::connect(&path, Shape::default());
        ip("addr add 198.51.100.129/25 dev far");
        ip("neigh add 198.51.100.130 lladdr 02:00:00:00:00:03 dev far");
        let socket = UdpSocket::bind("0.0.0.0:7").unwrap();
        send_near(&[&GUEST_MAC[..], &HOST_MAC, &[0x81, 0, 0, 7], &datagram(b"tagged")[12..]].concat());
        eventually("the count", || (device.card().stat()["interface-tagged"] == 1).then_some(()));
        let text = |frame: &[u8]| frame.get(42..).map(<[u8]>::to_vec).unwrap_or_default();
        eventually("the ordinary one", || {
            // Again each time: before the driver's ring is taken up the card drops what comes.
            socket.send_to(b"outgoing", "198.51.100.130:9").unwrap();
            socket.send_to(b"ordinary", "192.0.2.2:9").unwrap();
            let (_, frame) = nic.receive(0)?;
            let text = text(&frame);
            assert!(text != b"tagged" && text != b"outgoing", "{}", String::from_utf8_lossy(&text));
            (text == b"ordinary").then_some(())
        });
    });
}

#[test]
fn an_interface_that_is_down_drops_and_one_that_goes_up_again_is_read() {
    with_a_pair(|| {
        let (device, path) = card(far(), 1, Profile::default());
        let mut nic = Nic::connect(&path, Shape::default());
        ip("link set far down");
        nic.send(0, [0; 12], &datagram(b"too early"), false);
        eventually("the drop", || (device.card().stat()["interface-down"] == 1).then_some(()));
        ip("link set far up");
        both_up();
        let socket = UdpSocket::bind("192.0.2.1:7").unwrap();
        socket.send_to(b"again", "192.0.2.2:9").unwrap();
        eventually("the datagram", || nic.receive(0).filter(|(_, f)| f.ends_with(b"again")));
    });
}

/// Everything that a wire has, as the texts of the datagrams.
fn texts(wire: &mut dyn Wire) -> Vec<Vec<u8>> {
    let mut packet = Packet::default();
    let mut texts = Vec::new();
    while wire.receive(Instant::default(), &mut packet) {
        let frame = packet.frame();
        if frame.get(23) == Some(&17) {
            texts.push(frame[42..].to_vec());
        }
    }
    texts
}

#[test]
fn frames_longer_than_a_slot_come_whole_and_in_their_turn() {
    with_a_pair(|| {
        for name in ["near", "far"] {
            ip(&format!("link set {name} mtu 9000"));
        }
        let mut wire = far().open().unwrap();
        let socket = UdpSocket::bind("192.0.2.1:7").unwrap();
        // About the length at which a slot is full, and more than twice around the ring.
        for round in 0..180u32 {
            let sent: Vec<Vec<u8>> = (0..100)
                .map(|i| {
                    let bytes = [1, 1_400, 1_900 + (i + round) % 60, 8_900][(i + round) as usize % 4];
                    (0..bytes).map(|at| (at ^ i ^ round) as u8).collect()
                })
                .collect();
            for text in &sent {
                assert_eq!(socket.send_to(text, "192.0.2.2:9").unwrap(), text.len());
            }
            let mut got = Vec::new();
            eventually("all of them", || {
                got.extend(texts(&mut *wire));
                (got.len() == sent.len()).then_some(())
            });
            assert!(got == sent, "another text, or another order");
        }
        assert!(wire.counters().iter().all(|(_, n)| *n == 0), "{:?}", wire.counters());
    });
}

#[test]
fn what_a_full_ring_has_no_room_for_is_dropped_and_counted_and_the_ring_goes_on() {
    with_a_pair(|| {
        let mut wire = far().open().unwrap();
        let socket = UdpSocket::bind("192.0.2.1:7").unwrap();
        let dropped =
            |wire: &dyn Wire| wire.counters().iter().find(|(name, _)| *name == "interface-dropped").unwrap().1;
        const SENT: u32 = 20_000;
        for round in 0..2 {
            let before = dropped(&*wire);
            for n in 0..SENT {
                socket.send_to(&n.to_be_bytes(), "192.0.2.2:9").unwrap();
            }
            let mut got: Vec<Vec<u8>> = Vec::new();
            eventually("each of them", || {
                got.extend(texts(&mut *wire));
                (got.len() as u64 + dropped(&*wire) - before >= SENT.into()).then_some(())
            });
            // The first stayed, and not one of them twice.
            let first: Vec<Vec<u8>> = (0..got.len() as u32).map(|n| n.to_be_bytes().to_vec()).collect();
            assert!(got == first, "round {round}: {} came", got.len());
            assert!((8_000..=8_192).contains(&got.len()), "round {round}: {} came", got.len());
        }
    });
}

#[test]
fn an_interface_that_cannot_be_a_wire_is_told() {
    with_a_pair(|| {
        let error = WireSpec::Interface("nobody".to_owned()).open().err().unwrap();
        assert!(matches!(error, WireError::Interface(InterfaceError::Missing(_))), "{error}");
        let error = WireSpec::Interface("lo".to_owned()).open().err().unwrap();
        assert!(matches!(error, WireError::Interface(InterfaceError::NoEthernet(_))), "{error}");
    });
}

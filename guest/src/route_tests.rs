//! The guest's side with a real kernel: AF_PACKET, netlink and fallback on a veth pair in a network namespace of its
//! own, with the model of the card at the pair's other end. Needs root; says so and passes without.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::engine::mock_card::{ECHO_PORT, MockCard};
use crate::transport::{Transport, link_address};
use crate::{Offload, Options};

const PEER_MAC: &str = "02:00:00:00:00:02";

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("install iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn index_of(name: &str) -> u32 {
    netlink::links().unwrap().into_iter().find(|l| l.name == name).unwrap().index
}

/// Runs `f` in a thread whose network namespace has `toe0` (ours) and `toe1` (the card's).
fn in_namespace(f: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: unshare with CLONE_NEWNET takes no pointers and changes this thread's namespace alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!("skipped: needs root for a network namespace");
            return;
        }
        ip("link set lo up");
        ip(&format!("link add toe0 mtu 1500 type veth peer name toe1 address {PEER_MAC}"));
        ip("link set toe0 up");
        ip("link set toe1 up");
        ip("address add 192.0.2.1/24 dev toe0");
        f();
    });
    thread.join().unwrap();
}

/// The model of the card behind `toe1`, until `stop`.
fn run_card(card: &Mutex<MockCard>, stop: &AtomicBool) {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
    socket.bind(&link_address(index_of("toe1")).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    let mut frame = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let received = (&socket).read(&mut frame);
        let mut card = card.lock().unwrap();
        match received {
            // Our own come back to this socket; those are not for the card.
            Ok(n) if frame[..6] == toe_abi::CARD_MAC.0 => card.handle_frame(Instant::now(), &frame[..n]),
            _ => {}
        }
        card.handle_timeout(Instant::now());
        while let Some(frame) = card.poll_transmit() {
            (&socket).write_all(&frame).unwrap();
        }
    }
}

//= docs/specs/rfc9293.txt#section-3.9.1.1
//= type=test
//# If an application on a multihomed host does not specify the local IP address when actively opening a TCP
//# connection, then the TCP implementation MUST ask the IP layer to select a local IP address before sending the
//# (first) SYN (MUST-44).
#[test]
fn a_guest_reaches_its_card_and_falls_back_with_reasons() {
    in_namespace(|| {
        let card = Mutex::new(MockCard::new());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| run_card(&card, &stop));
            with_card(&card);
            stop.store(true, Ordering::Relaxed);
        });
        assert!(card.lock().unwrap().complaints.is_empty());
    });
}

fn with_card(card: &Mutex<MockCard>) {
    ip(&format!("neighbour add 192.0.2.2 lladdr {PEER_MAC} dev toe0"));
    ip("route add 198.51.100.0/24 via 192.0.2.2");
    let kernel = Arc::new(Kernel::on_interface("toe0"));
    let options = Options::with(kernel.clone());

    // By a gateway, with the kernel's neighbour entry.
    let remote: SocketAddr = ([198, 51, 100, 1], ECHO_PORT).into();
    let route = kernel.route(remote.ip()).unwrap();
    assert_eq!((route.local, route.mtu), (IpAddr::from([192, 0, 2, 1]), 1_500));
    assert_eq!(route.next_hop.to_string(), PEER_MAC);
    let mut stream = options.connect(remote).unwrap();
    assert_eq!(stream.offload(), Offload::Card);
    let held = std::net::TcpListener::bind(stream.local_addr().unwrap());
    assert_eq!(held.unwrap_err().kind(), ErrorKind::AddrInUse, "the kernel holds the port, too");
    let data: Vec<u8> = (0..300_000u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let mut got = vec![0; data.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&data).unwrap());
        stream.read_exact(&mut got).unwrap();
    });
    assert!(got == data);
    drop((stream, writer));
    // All is held by the card, and the last word is on its way.
    let deadline = Instant::now() + Duration::from_secs(20);
    while card.lock().unwrap().connections() > 0 {
        assert!(Instant::now() < deadline, "the card never lets go of a connection that was dropped");
        std::thread::sleep(Duration::from_millis(1));
    }

    // A listener of the card's on every address, reached by a second process's context.
    let listener = options.bind("0.0.0.0:8080").unwrap();
    assert_eq!(listener.offload(), Offload::Card);
    let other = Options::interface("toe0");
    let client = other.connect("198.51.100.1:8080").unwrap();
    assert!(client.offload().is_card());
    assert!(listener.accept().unwrap().0.offload().is_card());

    // What is not for the card.
    let reason = |ip: [u8; 4]| kernel.route(IpAddr::from(ip)).unwrap_err();
    assert_eq!(reason([192, 0, 2, 1]), FallbackReason::Local);
    assert_eq!(reason([127, 0, 0, 1]), FallbackReason::Local);
    assert_eq!(reason([224, 0, 0, 1]), FallbackReason::AddressKind);
    assert_eq!(reason([192, 0, 2, 255]), FallbackReason::AddressKind);
    assert_eq!(reason([203, 0, 113, 1]), FallbackReason::NoRoute);
    assert_eq!(reason([192, 0, 2, 77]), FallbackReason::NoNeighbour);
    assert_eq!(Kernel::on_interface("toe1").route(remote.ip()), Err(FallbackReason::OtherInterface));
}

fn with_changes() {
    ip(&format!("neighbour add 192.0.2.2 lladdr {PEER_MAC} dev toe0"));
    ip("route add 198.51.100.0/24 via 192.0.2.2");
    let kernel = Kernel::on_interface("toe0");
    let remote = IpAddr::from([198, 51, 100, 1]);
    let is_known = || kernel.known_way(remote).is_some();
    assert!(!is_known());
    let route = kernel.route(remote).unwrap();
    assert_eq!(kernel.known_way(remote).unwrap().0, route);

    // Others' affairs.
    ip("neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev toe0");
    assert!(is_known());
    // The next hop has another address, and then none.
    ip("neighbour replace 192.0.2.2 lladdr 02:00:00:00:00:03 dev toe0");
    assert!(!is_known());
    assert_eq!(kernel.route(remote).unwrap().next_hop.to_string(), "02:00:00:00:00:03");
    ip("neighbour delete 192.0.2.2 dev toe0");
    assert!(!is_known());
    ip(&format!("neighbour add 192.0.2.2 lladdr {PEER_MAC} dev toe0"));
    // The route, the interface, and our own address.
    for (change, back) in [
        ("route change 198.51.100.0/24 via 192.0.2.2 mtu 1400", "route change 198.51.100.0/24 via 192.0.2.2"),
        ("link set toe0 mtu 1300", "link set toe0 mtu 1500"),
        ("address add 192.0.2.8/24 dev toe0", "address delete 192.0.2.8/24 dev toe0"),
        ("rule add to 198.51.100.1 lookup main", "rule delete to 198.51.100.1 lookup main"),
    ] {
        assert_eq!(kernel.route(remote).unwrap(), route);
        assert!(is_known());
        ip(change);
        assert!(!is_known(), "{change}");
        let mtu = if change.contains("1400") {
            1400
        } else if change.contains("1300") {
            1300
        } else {
            1500
        };
        assert_eq!(kernel.route(remote).unwrap().mtu, mtu);
        ip(back);
        assert!(!is_known(), "{back}");
    }
    assert_eq!(kernel.route(remote).unwrap(), route);
    ip("route delete 198.51.100.0/24");
    assert_eq!(kernel.route(remote), Err(FallbackReason::NoRoute));
}

#[test]
fn a_listener_goes_by_the_least_mtu_of_the_routes_there() {
    in_namespace(|| {
        let here = Interface { index: index_of("toe0") };
        let of = |ip: &str| here.route_mtu(ip.parse().unwrap());
        ip("address add 2001:db8:1::1/64 dev toe0");
        assert_eq!((of("192.0.2.1"), of("::"), of("2001:db8:1::1")), (None, None, None));
        ip("route change 192.0.2.0/24 dev toe0 proto kernel scope link src 192.0.2.1 mtu 1450");
        ip("route add 198.51.100.0/24 via 192.0.2.2 mtu 1400");
        assert_eq!(
            (of("192.0.2.1"), of("0.0.0.0"), of("::"), of("2001:db8:1::1")),
            (Some(1400), Some(1400), Some(1400), None)
        );
        ip("-6 route add 2001:db8:2::/64 dev toe0 mtu 1300");
        assert_eq!((of("192.0.2.1"), of("::"), of("2001:db8:1::1")), (Some(1400), Some(1300), Some(1300)));
        let other = Interface { index: index_of("toe1") };
        assert_eq!(other.route_mtu("192.0.2.1".parse().unwrap()), None);
    });
}

#[test]
fn a_way_is_kept_until_the_kernel_announces_a_change() {
    in_namespace(|| {
        let card = Mutex::new(MockCard::new());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| run_card(&card, &stop));
            with_changes();
            stop.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_filter_lets_through_only_its_key() {
    in_namespace(|| {
        let index = index_of("toe0");
        let keys = [0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 0x0011_2233_4455_6677_8899_aabb_ccdd_eefe];
        let open = |key| PacketTransport::open(index, Mac([2, 0, 0, 0, 0, 1]), 1_500, key).unwrap();
        let receivers = keys.map(open);
        let sender = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
        sender.bind(&link_address(index_of("toe1")).unwrap()).unwrap();
        for key in [keys[1], !0, keys[0]] {
            let mut frame = vec![0; 100];
            let writer = toe_abi::Writer::new(&mut frame, Mac([2; 6]), Mac([0xff; 6]), 1, 1, key).unwrap();
            writer.finish();
            sender.send(&frame).unwrap();
            // Ours, which no receiver may see.
            receivers[0].send(&frame).unwrap();
        }
        for (receiver, key) in receivers.iter().zip(keys) {
            let mut frame = vec![0; 200];
            let deadline = Instant::now() + Duration::from_secs(10);
            let bytes = loop {
                match receiver.receive(&mut frame) {
                    Ok(bytes) => break bytes,
                    Err(e) => assert!(e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline, "{e}"),
                }
            };
            assert_eq!(toe_abi::Parsed::new(&frame[..bytes]).unwrap().header.key, key);
            assert_eq!(receiver.receive(&mut frame).unwrap_err().kind(), ErrorKind::WouldBlock, "nothing else");
        }
    });
}

#[test]
fn an_interface_without_a_card_is_asked_once() {
    in_namespace(|| {
        let kernel = Kernel::on_interface("toe0");
        let index = index_of("toe0");
        let start = Instant::now();
        assert_eq!(kernel.context(index).unwrap_err(), FallbackReason::NoCard);
        assert!(start.elapsed() >= HELLO_PATIENCE);
        let start = Instant::now();
        assert_eq!(kernel.context(index).unwrap_err(), FallbackReason::NoCard);
        assert!(start.elapsed() < HELLO_PATIENCE);
    });
}

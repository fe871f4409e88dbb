//! Programs under supervision with a real kernel and the model of a card: what becomes of a connection that the card does
//! not take, and of arguments that are meant to do harm.
//!
//! Two network namespaces. In one are the program, its supervisor and the interface `toe0`; in the other `toe1` with the model
//! of the card, and the peer's kernel behind the same address. The program is a fork of the test, whose system calls go through the
//! real filter. Needs root and a kernel with the notification; says so and passes without.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::supervisor::Supervisor;
use super::{Policy, filter, notify, receive_descriptor, send_descriptor, stand_in};
use crate::engine::mock_card::{ECHO_PORT, MockCard, SILENT_PORT};
use crate::route::Kernel;
use crate::transport::link_address;

const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PEER_MAC: &str = "02:00:00:00:00:02";

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("install iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network namespace for this thread and those that it starts; whether that could be.
fn own_namespace() -> bool {
    // SAFETY: unshare with CLONE_NEWNET takes no pointers and changes this thread's namespace alone.
    unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
}

/// What the card's side does.
#[derive(Default)]
struct Far {
    card: Mutex<Option<MockCard>>,
    stop: AtomicBool,
}

impl Far {
    fn card<R>(&self, f: impl FnOnce(&mut MockCard) -> R) -> R {
        f(self.card.lock().unwrap().get_or_insert_with(MockCard::new))
    }

    /// From now on the card says nothing.
    fn remove(&self) {
        *self.card.lock().unwrap() = None;
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Lives behind `toe1`, in its namespace; `ports` are listened at by the kernel there.
    fn run(&self, ports: &[u16]) {
        let listeners: Vec<_> = ports.iter().map(|port| TcpListener::bind((PEER, *port)).unwrap()).collect();
        for listener in &listeners {
            listener.set_nonblocking(true).unwrap();
        }
        let index = crate::netlink::links().unwrap().into_iter().find(|l| l.name == "toe1").unwrap().index;
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
        socket.bind(&link_address(index).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let (mut frame, mut accepted) = (vec![0; 65_536], Vec::new());
        while !self.is_stopped() {
            let received = (&socket).read(&mut frame);
            accepted.extend(listeners.iter().filter_map(|l| l.accept().ok()));
            let mut card = self.card.lock().unwrap();
            let Some(card) = card.as_mut() else { continue };
            match received {
                Ok(n) if frame[..6] == toe_abi::CARD_MAC.0 => card.handle_frame(Instant::now(), &frame[..n]),
                _ => {}
            }
            card.handle_timeout(Instant::now());
            while let Some(frame) = card.poll_transmit() {
                (&socket).write_all(&frame).unwrap();
            }
        }
    }
}

/// Runs `f` where programs can be supervised, with a card behind `toe0` and a kernel that listens at `ports`.
fn with_far(ports: &'static [u16], f: impl FnOnce(&Arc<Far>, Arc<Kernel>) + Send + 'static) {
    let near = std::thread::spawn(move || {
        if !own_namespace() {
            eprintln!("skipped: needs root for a network namespace");
            return;
        }
        ip("link set lo up");
        ip(&format!("link add toe0 mtu 1500 type veth peer name toe1 address {PEER_MAC}"));
        let far = Arc::new(Far::default());
        far.card(|_| ());
        let (say, hear) = channel();
        let (moved, is_moved) = channel::<()>();
        let other = std::thread::spawn({
            let far = far.clone();
            move || {
                assert!(own_namespace());
                // SAFETY: it takes nothing.
                say.send(unsafe { libc::gettid() }).unwrap();
                is_moved.recv().unwrap();
                ip(&format!("address add {PEER}/24 dev toe1"));
                ip("link set toe1 up");
                say.send(0).unwrap();
                far.run(ports);
            }
        });
        ip(&format!("link set toe1 netns {}", hear.recv().unwrap()));
        moved.send(()).unwrap();
        hear.recv().unwrap();
        ip("address add 192.0.2.1/24 dev toe0");
        ip("link set toe0 up");
        ip(&format!("neighbour add {PEER} lladdr {PEER_MAC} dev toe0"));
        f(&far, Arc::new(Kernel::on_interface("toe0")));
        far.stop.store(true, Ordering::Relaxed);
        other.join().unwrap();
        if let Some(card) = &*far.card.lock().unwrap() {
            assert!(card.complaints.is_empty(), "{:?}", card.complaints);
        }
    });
    near.join().unwrap();
}

/// Does a few system calls in a process of its own, under supervision unless `kernel` is none: what it says by words, and what the supervisor
/// reports. `None` if this kernel cannot do that.
fn supervised(kernel: Option<&Arc<Kernel>>, program: impl FnOnce(&mut Vec<i64>)) -> Option<(Vec<i64>, Value)> {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let filter = filter::program();
    let unanswered = notify::Unanswered::new().unwrap();
    // SAFETY: the child makes system calls, asks for memory, and ends without coming back.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let run = || -> std::io::Result<()> {
            if kernel.is_some() {
                // SAFETY: it is new, and this process's alone.
                let listener = unsafe { notify::own(notify::install(&filter)?) };
                send_descriptor(&theirs, b"L", &listener)?;
            }
            let mut words = Vec::new();
            program(&mut words);
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
            theirs.write_all(&bytes)
        };
        let failed = run().is_err();
        // SAFETY: it ends this process.
        unsafe { libc::_exit(failed.into()) };
    }
    drop(theirs);
    let mut report = Value::Null;
    if let Some(kernel) = kernel {
        let Some(listener) = receive_descriptor(&ours, &mut [0]) else {
            eprintln!("skipped: this kernel tells nobody of calls");
            return None;
        };
        let listener = notify::Listener::new(listener, unanswered);
        let mut supervisor = Supervisor::new(listener, kernel.clone(), Policy::default(), false).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        supervisor.run(|s| s.is_over() || Instant::now() > deadline).unwrap();
        assert!(supervisor.is_over(), "the program hangs: {}", supervisor.report());
        report = supervisor.report();
    }
    let mut bytes = Vec::new();
    ours.read_to_end(&mut bytes).unwrap();
    let mut status = 0;
    // SAFETY: `status` is an int.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the program failed; it said {bytes:?}");
    let words = bytes.chunks_exact(8).map(|b| i64::from_ne_bytes(b.try_into().unwrap())).collect();
    Some((words, report))
}

// ---- what a program does ----

fn sockaddr(ip: Ipv4Addr, port: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[4..8].copy_from_slice(&ip.octets());
    bytes
}

/// A call's result; minus the errno if it failed.
fn result(of: i64) -> i64 {
    if of < 0 { -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { of }
}

fn tcp(nonblocking: bool) -> i32 {
    // SAFETY: it takes no pointers.
    unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | if nonblocking { libc::SOCK_NONBLOCK } else { 0 }, 0) }
}

fn connect(fd: i32, ip: Ipv4Addr, port: u16) -> i64 {
    let address = sockaddr(ip, port);
    // SAFETY: `address` is one of that size.
    result(unsafe { libc::connect(fd, address.as_ptr().cast(), 16) }.into())
}

/// Whether it becomes writable within 15 seconds, and without an error.
fn is_connected_soon(fd: i32) -> i64 {
    let mut p = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&mut p, 1, 15_000) };
    i64::from(p.revents == libc::POLLOUT)
}

fn peer_port(fd: i32) -> i64 {
    let (mut bytes, mut length) = ([0u8; 16], 16);
    // SAFETY: `bytes` has `length` bytes.
    let named = unsafe { libc::getpeername(fd, bytes.as_mut_ptr().cast(), &mut length) };
    if named == 0 { u16::from_be_bytes([bytes[2], bytes[3]]).into() } else { result(named.into()) }
}

fn set_option(fd: i32, level: i32, name: i32, value: &[u8]) -> i64 {
    // SAFETY: `value` has that length.
    result(unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as u32) }.into())
}

/// A blocking and a non-blocking connect to that port, with the names that come of it.
fn connect_both(port: u16, words: &mut Vec<i64>) {
    let fd = tcp(false);
    words.extend([connect(fd, PEER, port), peer_port(fd)]);
    let fd = tcp(true);
    words.extend([connect(fd, PEER, port), is_connected_soon(fd), peer_port(fd)]);
}

fn both_connected(port: u16) -> Vec<i64> {
    vec![0, port.into(), -i64::from(libc::EINPROGRESS), 1, port.into()]
}

// ---- fallback that nobody notices ----

#[test]
fn what_the_card_refuses_the_kernel_connects() {
    with_far(&[ECHO_PORT], |far, kernel| {
        far.card(|card| card.capacity = 0);
        let Some((words, report)) = supervised(Some(&kernel), |words| connect_both(ECHO_PORT, words)) else { return };
        // What has not begun on the card needs no EINPROGRESS of the supervisor's: the kernel says it.
        assert_eq!(words, both_connected(ECHO_PORT));
        assert_eq!((&report["card_connected"], &report["kernel"]), (&json!(0), &json!({ "connections-full": 2 })));
    });
}

#[test]
fn without_a_card_the_kernel_connects() {
    with_far(&[ECHO_PORT], |far, kernel| {
        far.remove();
        let Some((words, report)) = supervised(Some(&kernel), |words| connect_both(ECHO_PORT, words)) else { return };
        assert_eq!(words, both_connected(ECHO_PORT));
        assert_eq!(report["kernel"], json!({ "no-card": 2 }));
    });
}

#[test]
fn a_card_that_went_away_between_two_connects_is_not_missed() {
    with_far(&[ECHO_PORT], |far, kernel| {
        let Some((words, report)) = supervised(Some(&kernel), |words| connect_both(ECHO_PORT, words)) else { return };
        assert_eq!(words, both_connected(ECHO_PORT));
        assert_eq!((&report["card_connected"], &report["kernel"]), (&json!(2), &json!({})));
        far.remove();
        let (words, report) = supervised(Some(&kernel), |words| connect_both(ECHO_PORT, words)).unwrap();
        assert_eq!(words, both_connected(ECHO_PORT));
        let reasons = report["kernel"].as_object().unwrap();
        let count: u64 = reasons.values().filter_map(Value::as_u64).sum();
        assert!(count == 2 && reasons.keys().all(|r| r == "card-silent" || r == "no-card"), "{report}");
    });
}

/// Connects while the card's handshake never ends; `then` befalls the card.
fn in_the_handshake(reason: &'static str, then: fn(&Far)) {
    with_far(&[SILENT_PORT], move |far, kernel| {
        let waits = far.clone();
        let watcher = std::thread::spawn(move || {
            while !waits.is_stopped() {
                if waits.card(|card| card.connections()) == 2 {
                    return then(&waits);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let run = supervised(Some(&kernel), |words| {
            let later = tcp(true);
            words.push(connect(later, PEER, SILENT_PORT));
            let fd = tcp(false);
            words.extend([connect(fd, PEER, SILENT_PORT), peer_port(fd)]);
            words.extend([is_connected_soon(later), peer_port(later)]);
        });
        far.stop.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
        let Some((words, report)) = run else { return };
        assert_eq!(words, [-i64::from(libc::EINPROGRESS), 0, SILENT_PORT.into(), 1, SILENT_PORT.into()]);
        assert_eq!(report["kernel"], json!({ reason: 2 }), "{report}");
    });
}

#[test]
fn a_firmware_that_restarts_in_a_handshake_leaves_the_same_socket_to_the_kernel() {
    in_the_handshake("card-restarted", |far| far.card(MockCard::restart));
}

#[test]
fn a_card_that_falls_silent_in_a_handshake_leaves_the_same_socket_to_the_kernel() {
    in_the_handshake("card-silent", Far::remove);
}

#[test]
fn sockets_with_options_that_the_card_has_not_are_the_kernels_from_the_start() {
    const MARK: [u8; 4] = 7u32.to_ne_bytes();
    const MAXSEG: [u8; 4] = 1000u32.to_ne_bytes();
    const ON: [u8; 4] = 1u32.to_ne_bytes();
    const OPTIONS: [(i32, i32, &[u8], &str); 5] = [
        (libc::SOL_SOCKET, libc::SO_MARK, &MARK, "option-mark"),
        (libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"toe0", "option-bind-to-device"),
        (libc::IPPROTO_TCP, libc::TCP_MAXSEG, &MAXSEG, "option-maxseg"),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &ON, "option-fast-open"),
        (libc::IPPROTO_IP, libc::IP_TRANSPARENT, &ON, "option-transparent"),
    ];
    with_far(&[ECHO_PORT], |_far, kernel| {
        let run = supervised(Some(&kernel), |words| {
            for (level, name, value, _) in OPTIONS {
                let fd = tcp(false);
                words.extend([set_option(fd, level, name, value), connect(fd, PEER, ECHO_PORT)]);
            }
        });
        let Some((words, report)) = run else { return };
        assert_eq!(words, [0; 2 * OPTIONS.len()]);
        let expected: serde_json::Map<_, _> = OPTIONS.iter().map(|o| (o.3.to_owned(), json!(1))).collect();
        assert_eq!(report["kernel"], Value::Object(expected));
        assert_eq!(report["card_connected"], 0);
    });
}

#[test]
fn sockets_of_another_network_namespace_are_the_kernels() {
    with_far(&[ECHO_PORT], |_far, kernel| {
        let run = supervised(Some(&kernel), |words| {
            let before = tcp(false);
            // SAFETY: it takes no pointers.
            words.push(result(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into()));
            words.push(connect(tcp(false), PEER, ECHO_PORT));
            // SAFETY: it takes no pointers.
            words.push(result(unsafe { libc::listen(tcp(false), 1) }.into()));
            // What counts is the socket, not who uses it.
            words.extend([connect(before, PEER, ECHO_PORT), peer_port(before)]);
        });
        let Some((words, report)) = run else { return };
        assert_eq!(words, [0, -i64::from(libc::ENETUNREACH), 0, 0, ECHO_PORT.into()]);
        assert_eq!((&report["card_connected"], &report["card_listeners"]), (&json!(1), &json!(0)));
        assert_eq!(report["kernel"], json!({ "other-namespace": 2 }));
    });
}

// ---- arguments ----

/// A page that the test and the program share.
fn shared_page() -> *mut u8 {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping touches no other.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.cast()
}

#[test]
fn an_address_that_changes_under_the_call_never_makes_a_wrong_connection() {
    const ROUNDS: i64 = 300;
    with_far(&[], |_far, kernel| {
        // At the card's port is an echo. At the loopback's is somebody who says "k".
        let near = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near_port = near.local_addr().unwrap().port();
        let says = std::thread::spawn(move || {
            for mut stream in near.incoming().flatten() {
                let mut byte = [0];
                // The program may be gone already.
                let _ = stream.write_all(b"k").and_then(|()| stream.read_exact(&mut byte));
                if byte == *b"q" {
                    return;
                }
            }
        });
        let page = shared_page() as usize;
        let stop = AtomicBool::new(false);
        let addresses = [sockaddr(PEER, ECHO_PORT), sockaddr(Ipv4Addr::LOCALHOST, near_port)];
        // Before the other thread runs there is an address, too: zeros would be AF_UNSPEC, with which connect succeeds.
        // SAFETY: the page is there, and nobody else's yet.
        unsafe { std::ptr::copy_nonoverlapping(addresses[0].as_ptr(), page as *mut u8, 16) };
        let run = std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: the page is there for good; bytes are written one by one, so that halves of both can be seen.
                let bytes = unsafe { std::slice::from_raw_parts(page as *const AtomicU8, 16) };
                for address in addresses.iter().cycle() {
                    for (place, byte) in bytes.iter().zip(address) {
                        place.store(*byte, Ordering::Relaxed);
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            let run = supervised(Some(&kernel), |words| {
                let [mut card, mut near, mut neither, mut wrong] = [0; 4];
                // On a busy machine the other thread has to get its turn.
                while card + near + neither + wrong < ROUNDS
                    || (card.min(near) == 0 && card + near + neither + wrong < 100 * ROUNDS)
                {
                    let fd = tcp(false);
                    // SAFETY: the page is there for good.
                    let connected = unsafe { libc::connect(fd, page as *const libc::sockaddr, 16) };
                    let port = peer_port(fd);
                    let mut byte = [b'e'];
                    // SAFETY: one byte.
                    let got = unsafe {
                        if port == i64::from(ECHO_PORT) {
                            libc::send(fd, byte.as_ptr().cast(), 1, 0);
                        }
                        if connected == 0 { libc::recv(fd, byte.as_mut_ptr().cast(), 1, 0) } else { 0 }
                    };
                    match (connected, port, got, byte[0]) {
                        (0, port, 1, b'e') if port == i64::from(ECHO_PORT) => card += 1,
                        (0, port, 1, b'k') if port == i64::from(near_port) => near += 1,
                        (0, ..) => wrong += 1,
                        _ => neither += 1,
                    }
                    // SAFETY: it is ours.
                    unsafe { libc::close(fd) };
                }
                words.extend([card, near, neither, wrong]);
            });
            stop.store(true, Ordering::Relaxed);
            run
        });
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, near_port)).unwrap().write_all(b"q").unwrap();
        says.join().unwrap();
        let Some((words, report)) = run else { return };
        assert!(words.iter().sum::<i64>() >= ROUNDS, "{words:?}");
        assert_eq!(words[3], 0, "card, near, neither, wrong: {words:?}; {report}");
        assert!(words[0] > 0 && words[1] > 0, "both were reached: {words:?}; {report}");
    });
}

/// Addresses that are not there, or only in part, or may not be written.
fn bad_pointers() -> Vec<u64> {
    let (readable, none) = (libc::PROT_READ, libc::PROT_NONE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping touches no other. It is of three pages: one to write, one without any access, and one that
    // is not to be written any more, and whose bytes are no family of addresses.
    let (edge, constant) = unsafe {
        let pages = libc::mmap(std::ptr::null_mut(), 3 * 4096, readable | libc::PROT_WRITE, flags, -1, 0);
        libc::memset(pages.byte_add(2 * 4096), 0xee, 4096);
        libc::mprotect(pages.byte_add(4096), 4096, none);
        libc::mprotect(pages.byte_add(2 * 4096), 4096, readable);
        (pages as u64 + 4096 - 3, pages as u64 + 2 * 4096)
    };
    vec![0, 16, 0xffff_8000_0000_0000, u64::MAX - 3, edge, constant]
}

/// The calls that are told, with pointers and lengths that make no sense, at these sockets.
fn do_harm(fds: &[i32], words: &mut Vec<i64>) {
    const LENGTHS: [u64; 7] = [0, 1, 4, 16, 28, 129, u32::MAX as u64];
    let pointers = bad_pointers();
    let call = |number: libc::c_long, arguments: [u64; 5]| {
        let [a, b, c, d, e] = arguments;
        // SAFETY: the kernel, or the supervisor, checks what it is given; nothing that lives here is named.
        result(unsafe { libc::syscall(number, a, b, c, d, e) })
    };
    let length = Cell::new(0u32);
    let at = length.as_ptr() as u64;
    for fd in fds.iter().map(|fd| *fd as u64) {
        for pointer in &pointers {
            for n in LENGTHS {
                words.push(call(libc::SYS_connect, [fd, *pointer, n, 0, 0]));
                let options = [(libc::SOL_SOCKET, libc::SO_KEEPALIVE), (libc::IPPROTO_TCP, libc::TCP_NODELAY)];
                for (level, name) in options.map(|(level, name)| (level as u64, name as u64)) {
                    words.push(call(libc::SYS_setsockopt, [fd, level, name, *pointer, n]));
                }
                length.set(n as u32);
                words.push(call(libc::SYS_getsockname, [fd, *pointer, at, 0, 0]));
                length.set(n as u32);
                words.push(call(libc::SYS_getpeername, [fd, *pointer, at, 0, 0]));
                length.set(n as u32);
                words.push(call(
                    libc::SYS_getsockopt,
                    [fd, libc::SOL_SOCKET as u64, libc::SO_ERROR as u64, *pointer, at],
                ));
            }
            let place = Cell::new([0u64; 16]);
            let at = place.as_ptr() as u64;
            words.push(call(libc::SYS_getsockname, [fd, at, *pointer, 0, 0]));
            words.push(call(libc::SYS_getpeername, [fd, at, *pointer, 0, 0]));
            words.push(call(libc::SYS_getsockopt, [fd, libc::SOL_SOCKET as u64, libc::SO_ERROR as u64, at, *pointer]));
            words.push(call(libc::SYS_accept4, [fd, *pointer, *pointer, u32::MAX.into(), 0]));
            words.push(call(libc::SYS_accept, [fd, *pointer, at, 0, 0]));
        }
    }
}

#[test]
fn arguments_that_make_no_sense_have_the_kernels_errors() {
    fn program(words: &mut Vec<i64>) {
        let connected = tcp(false);
        words.push(connect(connected, PEER, ECHO_PORT));
        let listening = tcp(true);
        // SAFETY: it takes no pointers.
        words.push(result(unsafe { libc::listen(listening, 5) }.into()));
        // SAFETY: it takes no pointers.
        let unix = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
        do_harm(&[connected, listening, unix, tcp(true), -1, 9999], words);
        // And it is of use after all that.
        words.push(peer_port(connected));
    }
    with_far(&[ECHO_PORT], |_far, kernel| {
        let Some((card, report)) = supervised(Some(&kernel), program) else { return };
        let (alone, _) = supervised(None, program).unwrap();
        assert_eq!((&report["card_connected"], &report["card_listeners"]), (&json!(1), &json!(1)), "{report}");
        assert!(card.len() > 1000 && card.len() == alone.len());
        let different: Vec<_> = (0..card.len()).filter(|at| card[*at] != alone[*at]).collect();
        let shown: Vec<_> = different.iter().take(10).map(|at| (at, card[*at], alone[*at])).collect();
        assert!(different.is_empty(), "{} of {} differ: call, card, kernel: {shown:?}", different.len(), card.len());
        assert!(card.iter().filter(|w| **w == -i64::from(libc::EFAULT)).count() > 100);
        assert_eq!(card.last(), Some(&i64::from(ECHO_PORT)));
    });
}

/// Calls that a supervisor had received when it died, and had noted nowhere yet.
#[test]
fn calls_that_were_received_in_the_moment_of_death_are_the_kernels() {
    for before in [0, 1, 5] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let filter = filter::program();
        // SAFETY: the child makes system calls and ends without coming back.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let run = || -> std::io::Result<bool> {
                // SAFETY: it is new, and this process's alone.
                let listener = unsafe { notify::own(notify::install(&filter)?) };
                send_descriptor(&theirs, b"L", &listener)?;
                Ok((0..=before).all(|_| connect(-1, PEER, 80) == -i64::from(libc::EBADF)))
            };
            // SAFETY: it ends this process.
            unsafe { libc::_exit(if matches!(run(), Ok(true)) { 7 } else { 8 }) };
        }
        drop(theirs);
        let Some(listener) = receive_descriptor(&ours, &mut [0]) else {
            eprintln!("skipped: this kernel tells nobody of calls");
            return;
        };
        let kept = notify::Unanswered::new().unwrap();
        let copy = listener.try_clone().unwrap();
        let supervisor = notify::Listener::new(copy, kept);
        for _ in 0..before {
            let call = supervisor.receive().unwrap().unwrap();
            assert_eq!(supervisor.proceed(call.id), notify::Answered::Yes);
        }
        // The last one it notes where nobody will look.
        let lost = notify::Listener::new(listener.try_clone().unwrap(), notify::Unanswered::new().unwrap());
        lost.receive().unwrap().unwrap();
        let (done, code) = channel();
        std::thread::spawn(move || done.send(stand_in(&notify::Listener::new(listener, kept), child)));
        let code = code.recv_timeout(Duration::from_secs(20));
        if code.is_err() {
            // SAFETY: it takes no pointers; the child is this test's.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        assert_eq!(code, Ok(7), "after {before} calls");
    }
}

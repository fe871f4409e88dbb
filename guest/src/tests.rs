//! The library as a program sees it: real threads, real time, a model of the card behind a transport in memory.

#[cfg(feature = "tokio")]
mod asynchronous;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use socket2::Socket;
use toe_abi::{Action, Mac, Reason, option};

use crate::engine::mock_card::{ECHO_PORT, MockCard, SILENT_PORT};
use crate::transport::{Transport, poll};
use crate::turn::Whose;
use crate::{
    Broken, Buffers, CardError, Context, FallbackReason, Neighbourhood, Offload, Options, Reservation, Route,
    Surroundings, TcpListener, TcpStream,
};

const KEY: u128 = 7;
/// What the next hop is after it was renewed.
const NEW_HOP: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
const PATIENCE: Duration = Duration::from_secs(20);

/// A transport in memory with the model of the card at its other end.
#[derive(Debug)]
struct Memory {
    card: Mutex<MockCard>,
    to_guest: Mutex<VecDeque<Vec<u8>>>,
    event: OwnedFd,
    /// One frame in so many is lost, each way; zero for none.
    lose: u64,
    count: Mutex<u64>,
}

impl Memory {
    fn new(lose: u64) -> Arc<Self> {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        let memory = Arc::new(Self {
            card: Mutex::new(MockCard::new()),
            to_guest: Mutex::default(),
            event,
            lose,
            count: Mutex::new(0),
        });
        let card: Weak<Self> = Arc::downgrade(&memory);
        std::thread::spawn(move || {
            while let Some(memory) = card.upgrade() {
                memory.card().handle_timeout(Instant::now());
                memory.deliver();
                drop(memory);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        memory
    }

    fn card(&self) -> MutexGuard<'_, MockCard> {
        self.card.lock().unwrap()
    }

    fn is_lost(&self) -> bool {
        let mut count = self.count.lock().unwrap();
        *count += 1;
        self.lose != 0 && (*count).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0xffff < 0x10000 / self.lose
    }

    fn deliver(&self) {
        let mut card = self.card();
        let mut to_guest = self.to_guest.lock().unwrap();
        while let Some(frame) = card.poll_transmit() {
            if !self.is_lost() {
                to_guest.push_back(frame);
            }
        }
        drop(to_guest);
        drop(card);
        rustix::io::write(&self.event, &1u64.to_ne_bytes()).unwrap();
    }
}

impl Transport for Memory {
    fn mac(&self) -> Mac {
        Mac([2, 0, 0, 0, 0, 1])
    }
    fn mtu(&self) -> u32 {
        1_500
    }
    fn frame_bytes_max(&self) -> usize {
        1_514
    }
    fn receive_bytes_max(&self) -> u64 {
        1 << 20
    }
    fn send(&self, frame: &[u8]) -> io::Result<()> {
        if !self.is_lost() {
            self.card().handle_frame(Instant::now(), frame);
        }
        self.deliver();
        Ok(())
    }
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let frame = self.to_guest.lock().unwrap().pop_front().ok_or(ErrorKind::WouldBlock)?;
        buffer[..frame.len()].copy_from_slice(&frame);
        Ok(frame.len())
    }
    fn wait(&self, _room: bool, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
        if self.to_guest.lock().unwrap().is_empty() {
            let mut fds = [PollFd::new(&self.event, PollFlags::IN), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
            poll(&mut fds, timeout)?;
        }
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        Ok(())
    }
}

#[derive(Debug)]
struct Nowhere;

impl Neighbourhood for Nowhere {
    fn renew_next_hop(&self, _remote: IpAddr) -> Option<Mac> {
        Some(NEW_HOP)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        vec![Ipv4Addr::LOCALHOST.into()]
    }
    fn foreign_frame(&self, _frame: &[u8]) {}
}

/// The kernel's loopback as surroundings, as if a card were behind it.
#[derive(Debug)]
struct Loopback {
    context: Context,
    /// What `route` answers instead.
    no_way: Option<FallbackReason>,
}

impl Surroundings for Loopback {
    fn route(&self, _remote: IpAddr) -> Result<Route, FallbackReason> {
        let local = Ipv4Addr::LOCALHOST.into();
        let route = Route { interface: 1, local, next_hop: Mac([2, 0, 0, 0, 0, 2]), mtu: 1_500 };
        self.no_way.map_or(Ok(route), Err)
    }
    fn interface_of(&self, _local: IpAddr) -> Result<u32, FallbackReason> {
        self.no_way.map_or(Ok(1), Err)
    }
    fn context(&self, _interface: u32) -> Result<Context, FallbackReason> {
        Ok(self.context.clone())
    }
    fn reserve(&self, local: SocketAddr) -> io::Result<Reservation> {
        crate::Kernel::shared().reserve(local)
    }
    fn reserve_listener(&self, local: SocketAddr) -> io::Result<Reservation> {
        crate::Kernel::shared().reserve_listener(local)
    }
    fn fallback_socket(&self, remote: SocketAddr) -> io::Result<Option<Socket>> {
        crate::Kernel::shared().fallback_socket(remote)
    }
}

fn machine(lose: u64) -> (Arc<Memory>, Options) {
    let memory = Memory::new(lose);
    let buffers = Buffers { send_bytes: 30_000, receive_bytes: 20_000 };
    let context = Context::open(memory.clone(), KEY, buffers, Arc::new(Nowhere)).unwrap();
    (memory, Options::with(Arc::new(Loopback { context, no_way: None })))
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pattern(n: usize, seed: usize) -> Vec<u8> {
    (0..n).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ seed) as u8).collect()
}

fn card_error(e: &io::Error) -> CardError {
    *e.get_ref().and_then(|e| e.downcast_ref()).unwrap_or_else(|| panic!("not the card's: {e}"))
}

#[test]
fn streams_are_whole_in_both_directions_with_threads_and_loss() {
    for lose in [0, 20] {
        let (memory, options) = machine(lose);
        let listener = options.bind(at(0)).unwrap();
        assert_eq!(listener.offload(), Offload::Card);
        let port = listener.local_addr().unwrap().port();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for stream in listener.incoming().take(3) {
                    let stream = stream.unwrap();
                    assert_eq!(stream.offload(), Offload::Card);
                    // Two threads on one stream: whoever sends does not wait for whoever reads.
                    let (mut reader, mut writer) = (&stream, &stream);
                    std::thread::scope(|scope| {
                        scope.spawn(move || {
                            writer.write_all(&pattern(150_000, 1)).unwrap();
                            writer.flush().unwrap();
                            stream_shutdown(writer);
                        });
                        let mut got = Vec::new();
                        reader.read_to_end(&mut got).unwrap();
                        assert!(got == pattern(150_000, 2));
                    });
                }
            });
            for _ in 0..3 {
                scope.spawn(|| {
                    let stream = options.connect(at(port)).unwrap();
                    assert_eq!(stream.peer_addr().unwrap(), at(port));
                    let mut writer = stream.try_clone().unwrap();
                    let writing = std::thread::spawn(move || {
                        writer.write_all(&pattern(150_000, 2)).unwrap();
                        stream_shutdown(&writer);
                    });
                    let mut got = Vec::new();
                    (&stream).read_to_end(&mut got).unwrap();
                    assert!(got == pattern(150_000, 1));
                    writing.join().unwrap();
                });
            }
        });
        until("the card let go of all", || memory.card().connections() == 0);
        assert!(memory.card().complaints.is_empty(), "{:?}", memory.card().complaints);
    }
}

fn stream_shutdown(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
    let e = { stream }.write(b"x").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn errors_have_the_kinds_of_std() {
    let (memory, options) = machine(0);
    let e = options.connect(at(1)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(card_error(&e), CardError::Broken(Broken::Aborted(Reason::Refused as u32)));
    let e = options.connect_timeout(&at(SILENT_PORT), Duration::from_millis(100)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut);
    let e = options.connect_timeout(&at(ECHO_PORT), Duration::ZERO).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidInput);

    let mut stream = options.connect(at(ECHO_PORT)).unwrap();
    assert!(stream.take_error().unwrap().is_none());
    memory.card().abort_all(Reason::Reset);
    for _ in 0..2 {
        // Every time, so that no second reader takes it for an orderly end.
        assert_eq!(stream.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(stream.shutdown(Shutdown::Both).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(stream.take_error().unwrap().unwrap().kind(), ErrorKind::ConnectionReset);
    assert!(stream.take_error().unwrap().is_none(), "once");
}

#[test]
fn a_restarted_card_breaks_streams_and_keeps_listeners() {
    let (memory, options) = machine(0);
    let listener = options.bind(at(0)).unwrap();
    let mut old = options.connect(at(ECHO_PORT)).unwrap();
    memory.card().restart();
    old.write_all(b"anybody there?").unwrap();
    let e = old.read(&mut [0; 20]).unwrap_err();
    assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::ConnectionReset, "the card was restarted"));
    until("listening again", || memory.card().listeners() == 1);
    let client = options.connect(listener.local_addr().unwrap()).unwrap();
    let (server, remote) = listener.accept().unwrap();
    assert_eq!(remote, client.local_addr().unwrap());
    assert_eq!((server.offload(), client.offload()), (Offload::Card, Offload::Card));
}

#[test]
fn what_the_card_refuses_goes_through_the_kernel_on_the_port_that_was_held() {
    let (memory, options) = machine(0);
    let kernel = std::net::TcpListener::bind(at(0)).unwrap();
    let address = kernel.local_addr().unwrap();
    memory.card().capacity = 1;
    let first = options.connect(at(ECHO_PORT)).unwrap();
    assert_eq!(first.offload(), Offload::Card);
    let mut second = options.nodelay_connect(address);
    assert_eq!(second.offload(), Offload::Kernel(FallbackReason::Card(Reason::Connections as u32)));
    assert_eq!(second.offload().to_string(), "kernel: connections-full");
    let (mut peer, _) = kernel.accept().unwrap();
    second.write_all(b"by the kernel").unwrap();
    let mut got = [0; 13];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"by the kernel");
    assert!(second.nodelay().unwrap());
    assert_eq!(second.info().unwrap_err().kind(), ErrorKind::Unsupported);

    memory.card().action = Action::Deny;
    let e = options.connect(address).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::QuotaExceeded);
    assert_eq!(card_error(&e).reason(), Some(Reason::Connections));
}

impl Options {
    fn nodelay_connect(&self, address: SocketAddr) -> TcpStream {
        self.clone().nodelay(true).connect(address).unwrap()
    }
}

#[test]
fn a_listener_accepts_from_card_and_kernel() {
    let (_memory, options) = machine(0);
    let listener = options.bind(at(0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    listener.set_nonblocking(false).unwrap();
    assert!(!readable(&listener, Duration::ZERO));

    let _client = options.connect(address).unwrap();
    assert!(readable(&listener, PATIENCE));
    assert_eq!(listener.accept().unwrap().0.offload(), Offload::Card);
    let _client = std::net::TcpStream::connect(address).unwrap();
    assert!(readable(&listener, PATIENCE));
    let passed_on = listener.accept().unwrap().0;
    assert_eq!(passed_on.offload(), Offload::Kernel(FallbackReason::PassedOn));

    let e = options.bind(address).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AddrInUse);
    drop(listener);
    options.bind(address).unwrap();
}

fn readable(fd: &impl AsFd, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(timeout)).unwrap();
    fds[0].revents().contains(PollFlags::IN)
}

fn writable(fd: &impl AsFd, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::OUT)];
    poll(&mut fds, Some(timeout)).unwrap();
    fds[0].revents().contains(PollFlags::OUT)
}

#[test]
fn a_stream_can_be_polled() {
    let (_memory, options) = machine(0);
    let listener: TcpListener = options.bind(at(0)).unwrap();
    let client = options.connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    client.set_nonblocking(true).unwrap();
    assert!(!readable(&server, Duration::ZERO) && writable(&server, Duration::ZERO));
    assert_eq!((&server).read(&mut [0; 5]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // Until nothing goes in any more; whoever reads makes room again.
    let mut sent = 0;
    loop {
        match (&client).write(&[7; 10_000]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                if !writable(&client, Duration::from_millis(300)) {
                    break;
                }
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert!(sent > 30_000);
    let mut got = 0;
    while got < sent {
        assert!(readable(&server, PATIENCE));
        got += (&server).read(&mut [0; 7_000]).unwrap();
    }
    assert!(writable(&client, PATIENCE));
    assert!(!readable(&server, Duration::ZERO));
    client.shutdown(Shutdown::Write).unwrap();
    assert!(readable(&server, PATIENCE));
    assert_eq!((&server).read(&mut [0; 5]).unwrap(), 0);
}

#[test]
fn timeouts_peeks_and_options_are_as_in_std() {
    let (_memory, options) = machine(0);
    let mut stream = options.connect(at(ECHO_PORT)).unwrap();
    assert_eq!(stream.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    assert_eq!(stream.read_timeout().unwrap(), Some(Duration::from_millis(30)));
    assert_eq!(stream.read(&mut [0; 5]).unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(None).unwrap();
    stream.write_all(b"abc").unwrap();
    let mut buffer = [0; 2];
    assert_eq!(stream.peek(&mut buffer).unwrap(), 2);
    assert_eq!(stream.read(&mut buffer).unwrap(), 2);
    assert_eq!(&buffer, b"ab");
    assert_eq!(stream.read(&mut buffer).unwrap(), 1);
    assert!(!stream.nodelay().unwrap());
    stream.set_nodelay(true).unwrap();
    assert!(stream.nodelay().unwrap());
    stream.shutdown(Shutdown::Read).unwrap();
    assert_eq!(stream.read(&mut buffer).unwrap(), 0);
}

fn echoes(mut stream: &TcpStream, times: usize) {
    for n in 0..times {
        let said = [n as u8; 100];
        stream.write_all(&said).unwrap();
        let mut heard = [0; 100];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, said);
    }
}

#[test]
fn threads_that_wait_look_themselves_and_nobody_is_left_waiting() {
    let (_memory, options) = machine(0);
    let context = options.surroundings().context(1).unwrap();
    let whose = || context.act(|core| core.turn.whose);
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let options = &options;
                scope.spawn(move || {
                    let stream = options.connect(at(ECHO_PORT)).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    echoes(&stream, 100 + 20 * n);
                    // Reads that give up leave the turn to others, too.
                    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                    assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    echoes(&stream, 10);
                    stream
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(context.act(|core| core.turn.taken) > 8, "the program's threads looked");
    // Nobody waits: before long it is the background thread's, which hears the card while the program is busy otherwise.
    let deadline = Instant::now() + PATIENCE;
    while whose() != Whose::Background {
        assert!(Instant::now() < deadline, "the background thread never looked");
        std::thread::sleep(Duration::from_millis(1));
    }
    // And the program's again when it waits: once for a frame that the other receives, and then itself. An answer that is there
    // before it waits is no such time.
    let taken = context.act(|core| core.turn.taken);
    while context.act(|core| core.turn.taken) == taken {
        assert!(Instant::now() < deadline, "the program never looked again");
        echoes(&all[0], 1);
    }
    // Who polls needs the background thread, for good.
    assert!(writable(&all[1], PATIENCE));
    echoes(&all[0], 5);
    let taken = context.act(|core| core.turn.taken);
    echoes(&all[0], 20);
    (&all[1]).write_all(b"x").unwrap();
    assert!(readable(&all[1], PATIENCE));
    assert_eq!((whose(), context.act(|core| core.turn.taken)), (Whose::Background, taken));
}

#[test]
fn a_thread_that_looks_hears_what_another_does_to_its_stream() {
    let (_memory, options) = machine(0);
    let stream = options.connect(at(ECHO_PORT)).unwrap();
    let context = options.surroundings().context(1).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| (&stream).read(&mut [0; 5]).unwrap());
        let deadline = Instant::now() + PATIENCE;
        while context.act(|core| core.turn.whose) != Whose::Programs {
            assert!(Instant::now() < deadline, "the reader never looked");
            // If the background thread has the turn, this makes it leave it to who waits.
            let _ = stream.nodelay();
            std::thread::sleep(Duration::from_millis(1));
        }
        // The reader sleeps in the transport, or is about to.
        std::thread::sleep(Duration::from_millis(20));
        stream.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn counters_are_gathered_over_several_pages() {
    let (_memory, options) = machine(0);
    let context = options.surroundings().context(1).unwrap();
    let counters = context.stat().unwrap();
    assert_eq!(counters.iter().map(|c| c.value).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn without_a_card_the_reason_is_told() {
    #[derive(Debug)]
    struct Void;
    impl Transport for Void {
        fn mac(&self) -> Mac {
            Mac::default()
        }
        fn mtu(&self) -> u32 {
            1_500
        }
        fn frame_bytes_max(&self) -> usize {
            1_514
        }
        fn receive_bytes_max(&self) -> u64 {
            0
        }
        fn send(&self, _frame: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn receive(&self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(ErrorKind::WouldBlock.into())
        }
        fn wait(&self, _room: bool, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
            poll(&mut [PollFd::from_borrowed_fd(wake, PollFlags::IN)], timeout)
        }
    }
    let reason = Context::open(Arc::new(Void), 1, Buffers::default(), Arc::new(Nowhere)).unwrap_err();
    assert_eq!(reason, FallbackReason::NoCard);

    let (_memory, options) = machine(0);
    let context = options.surroundings().context(1).unwrap();
    let options = Options::with(Arc::new(Loopback { context, no_way: Some(FallbackReason::NoNeighbour) }));
    let listener = options.bind(at(0)).unwrap();
    assert_eq!(listener.offload(), Offload::Kernel(FallbackReason::NoNeighbour));
    let client = options.connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(client.offload(), Offload::Kernel(FallbackReason::NoNeighbour));
    let (server, _) = listener.accept().unwrap();
    assert_eq!(server.offload(), Offload::Kernel(FallbackReason::NoNeighbour));
}

#[test]
fn a_dropped_context_says_bye() {
    let (memory, options) = machine(0);
    let stream = options.connect(at(ECHO_PORT)).unwrap();
    stream.set_nonblocking(true).unwrap();
    assert_eq!(memory.card().addresses_of(0).unwrap().0.port, stream.local_addr().unwrap().port());
    drop(stream);
    drop(options);
    assert_eq!(memory.card().connections(), 0);
}

#[test]
fn urgent_data_is_marked_and_stays_in_its_place() {
    let (_memory, options) = machine(20);
    let mut stream = options.connect(at(ECHO_PORT)).unwrap();
    assert_eq!(stream.urgent().unwrap(), 0);
    let nothing = stream.wait_urgent(Some(Duration::from_millis(20)));
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::WouldBlock);
    stream.write_all(b"hello").unwrap();
    assert_eq!(stream.send_urgent(b"!").unwrap(), 1);
    stream.write_all(b"later").unwrap();
    assert_eq!(stream.wait_urgent(Some(PATIENCE)).unwrap(), 6);
    let mut text = [0; 11];
    stream.read_exact(&mut text[..6]).unwrap();
    assert_eq!(stream.urgent().unwrap(), 0);
    stream.read_exact(&mut text[6..]).unwrap();
    assert_eq!(&text, b"hello!later");
}

#[test]
fn a_silent_path_gets_a_new_next_hop() {
    let (memory, options) = machine(0);
    let stream = options.connect(at(ECHO_PORT)).unwrap();
    assert_eq!(stream.path_state().unwrap().silent_timeouts, 0);
    memory.card().advise_all();
    let [a, b, c, d, e, f] = NEW_HOP.0;
    let new = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    until("another next hop", || memory.card().option_of(0, option::NEXT_HOP) == Some(new));
    assert_eq!(stream.path_state().unwrap().silent_timeouts, 1);
}

/// Sets everything and reads it again.
fn settings(stream: &TcpStream) {
    let s = Duration::from_secs;
    assert_eq!(stream.keepalive().unwrap(), None);
    stream.set_keepalive_interval(s(3)).unwrap();
    stream.set_keepalive_retries(4).unwrap();
    assert_eq!(stream.keepalive().unwrap(), None, "they are not switched on by that");
    stream.set_keepalive(Some(s(50))).unwrap();
    assert_eq!(stream.keepalive().unwrap(), Some(s(50)));
    stream.set_keepalive(None).unwrap();
    assert_eq!(stream.keepalive().unwrap(), None);
    stream.set_user_timeout(Some(s(9))).unwrap();
    assert_eq!(stream.user_timeout().unwrap(), Some(s(9)));
    stream.set_ttl(7).unwrap();
    assert_eq!(stream.ttl().unwrap(), 7);
    stream.set_traffic_class(0xb8).unwrap();
    assert_eq!(stream.traffic_class().unwrap(), 0xb8);
    assert_eq!(stream.set_traffic_class(1).unwrap_err().kind(), ErrorKind::InvalidInput);
    stream.set_congestion("new-reno").unwrap();
    assert_eq!(stream.congestion().unwrap(), "new-reno");
    assert_eq!(stream.set_congestion("no-such").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(stream.congestion().unwrap(), "new-reno");
}

#[test]
fn what_can_be_set_is_the_same_on_the_card_and_in_the_kernel() {
    let (_memory, options) = machine(0);
    let stream = options.connect(at(ECHO_PORT)).unwrap();
    settings(&stream);
    assert_eq!(stream.set_keepalive(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);

    let listener = std::net::TcpListener::bind(at(0)).unwrap();
    let kernel = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut peer = TcpStream::of_kernel(listener.accept().unwrap().0, FallbackReason::NoRoute);
    let kernel = TcpStream::of_kernel(kernel, FallbackReason::NoRoute);
    settings(&kernel);
    // Urgent data is in its place there, too.
    assert_eq!(kernel.send_urgent(b"ab").unwrap(), 2);
    let mut text = [0; 2];
    peer.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"ab");
}

#[test]
fn first_words_go_with_the_connect() {
    let (memory, options) = machine(20);
    let options = options.fast_open(true);
    let mut stream = options.connect_with(at(ECHO_PORT), &pattern(5_000, 4)).unwrap();
    assert_eq!(memory.card().flags_of(0).map(|f| f & toe_abi::flags::FAST_OPEN), Some(toe_abi::flags::FAST_OPEN));
    let mut back = vec![0; 5_000];
    stream.read_exact(&mut back).unwrap();
    assert!(back == pattern(5_000, 4));
    // Where there is no card, too.
    let context = options.surroundings().context(1).unwrap();
    let kernel = Options::with(Arc::new(Loopback { context, no_way: Some(FallbackReason::NoRoute) }));
    let listener = std::net::TcpListener::bind(at(0)).unwrap();
    let stream = kernel.connect_with(listener.local_addr().unwrap(), b"hello").unwrap();
    assert_eq!(stream.offload(), Offload::Kernel(FallbackReason::NoRoute));
    let mut text = [0; 5];
    listener.accept().unwrap().0.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
}

#[test]
fn the_program_may_choose_its_own_address() {
    let ours: IpAddr = Ipv4Addr::new(127, 0, 0, 2).into();
    let (memory, options) = machine(0);
    let options = options.local_address(ours);
    let stream = options.connect(at(ECHO_PORT)).unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), ours);
    assert_eq!(memory.card().addresses_of(0).unwrap().0.ip, ours);
    let context = options.surroundings().context(1).unwrap();
    let kernel = Options::with(Arc::new(Loopback { context, no_way: Some(FallbackReason::NoRoute) }));
    let listener = std::net::TcpListener::bind(at(0)).unwrap();
    let stream = kernel.local_address(ours).connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), ours);
    let nobody: IpAddr = Ipv4Addr::new(192, 0, 2, 77).into();
    let error = options.local_address(nobody).connect(at(ECHO_PORT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

//! The card against the Linux kernel, without a guest: this process is the frontend.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use toe_abi::Reason;
use toe_guest::{Broken, CardError, TcpStream};
use toe_guest_tests::bench::{Pool, exchange, send};
use toe_guest_tests::bytes::Sum;
use toe_guest_tests::net::{GUEST_V4, GUEST_V6, PEER_V4, PEER_V6};
use toe_guest_tests::{Bench, BenchOptions, CardOptions, peers};

const MIB: u64 = 1 << 20;

/// What a lossy wire makes the card count, besides what is sent again. The rest must stay zero even there.
const LOSSY: &[&str] = &["tcp-fast-recoveries", "tcp-out-of-order"];

fn clean() -> Result<Bench> {
    Bench::start(&BenchOptions::default())
}

fn impaired(impair: &str, impair_seed: u64) -> Result<Bench> {
    let card = CardOptions { impair: Some(impair.into()), impair_seed, ..CardOptions::default() };
    Bench::start(&BenchOptions { card, ..BenchOptions::default() })
}

/// A card that reaches this process's memory.
fn sharing(impair: Option<&str>) -> Result<Bench> {
    let card = CardOptions { impair: impair.map(str::to_owned), shared_rings: true, ..CardOptions::default() };
    Bench::start(&BenchOptions { card, ..BenchOptions::default() })
}

/// The card knows of as many rings as the library named, and lost and refused none.
fn rings_were_used(bench: &Bench, used: u64, wanting: bool) -> Result<()> {
    let counters = bench.station().card().counters();
    ensure!(counters.rings_used == used && (counters.rings_wanting > 0) == wanting, "{counters:?}");
    ensure!(counters.messages_impossible == 0 && counters.errors == 0, "{counters:?}");
    let [named, refused, lost] = ["rings-named", "rings-refused", "rings-lost"].map(|name| bench.counter(name));
    let all = (named?, refused?, lost?);
    ensure!(all == (used, 0, 0), "named, refused, lost: {all:?}");
    Ok(())
}

fn tiny() -> Result<Bench> {
    let card = CardOptions { profile: "tiny".into(), ..CardOptions::default() };
    Bench::start(&BenchOptions { card, ..BenchOptions::default() })
}

/// The card's own error inside one of the library.
fn card_error(error: &std::io::Error) -> Result<CardError> {
    error.get_ref().and_then(|e| e.downcast_ref()).copied().with_context(|| format!("not the card's error: {error}"))
}

/// The peer echoes what each of these connections says, all at once; each has a pattern of its own.
fn exchange_all(streams: &[TcpStream], bytes: u64) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (streams.iter().enumerate())
            .map(|(i, stream)| (i as u64, scope.spawn(move || exchange(stream, i as u64, bytes))))
            .collect();
        threads.into_iter().try_for_each(|(seed, thread)| {
            let sum = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            ensure!(sum == Sum::of_pattern(seed, bytes), "connection {seed} echoed something else");
            Ok(())
        })
    })
}

/// Both directions of an active open at once.
fn exchanges(bench: &Bench, ip: IpAddr, bytes: u64) -> Result<()> {
    let peer = peers::exchange(&bench.namespace, ip, 1, 2, bytes)?;
    let received = exchange(&bench.connect(peer.address)?, 1, bytes)?;
    ensure!(received == Sum::of_pattern(2, bytes), "the card delivered {received}");
    let at_peer = peer.join()?.remove(0);
    ensure!(at_peer == Sum::of_pattern(1, bytes), "the kernel received {at_peer}");
    Ok(())
}

/// Both directions of a passive open at once.
fn accepts(bench: &Bench, ip: IpAddr, bytes: u64) -> Result<()> {
    let listener = bench.listen(ip)?;
    ensure!(listener.offload().is_card(), "the listener is not on the card");
    let to = SocketAddr::new(ip, listener.local_addr()?.port());
    let peer = peers::client(&bench.namespace, to, 4, bytes)?;
    let stream = bench.accept(&listener)?;
    ensure!(stream.peer_addr()? == peer.address, "accepted from {}", stream.peer_addr()?);
    let received = exchange(&stream, 3, bytes)?;
    ensure!(received == Sum::of_pattern(4, bytes), "the card delivered {received}");
    let at_peer = peer.join()?;
    ensure!(at_peer == Sum::of_pattern(3, bytes), "the kernel received {at_peer}");
    Ok(())
}

#[test]
fn streams_are_byte_exact() -> Result<()> {
    let bench = clean()?;
    exchanges(&bench, PEER_V4, 32 * MIB)?;
    exchanges(&bench, PEER_V6, 32 * MIB)?;
    bench.finish(&[])
}

#[test]
fn streams_are_byte_exact_with_one_percent_lost() -> Result<()> {
    let bench = impaired("loss=1%", 1)?;
    exchanges(&bench, PEER_V4, 16 * MIB)?;
    exchanges(&bench, PEER_V6, 16 * MIB)?;
    ensure!(bench.counter("tcp-fast-recoveries")? > 0, "nothing was lost");
    bench.finish(LOSSY)
}

#[test]
fn streams_are_byte_exact_on_a_wire_that_does_everything_wrong() -> Result<()> {
    let bench = impaired("loss=1%,duplicate=1%,reorder=2%,corrupt=0.5%,delay=1ms,jitter=500us", 2)?;
    exchanges(&bench, PEER_V4, MIB)?;
    exchanges(&bench, PEER_V6, MIB)?;
    let of_damage = ["wire-drop-checksum", "wire-drop-malformed", "tcp-paws"];
    ensure!(bench.counter("wire-drop-checksum")? > 0, "nothing was damaged");
    let expected: Vec<_> = LOSSY.iter().chain(&of_damage).copied().collect();
    bench.finish(&expected)
}

#[test]
fn listeners_accept_byte_for_byte() -> Result<()> {
    let bench = clean()?;
    accepts(&bench, GUEST_V4, 16 * MIB)?;
    accepts(&bench, GUEST_V6, 16 * MIB)?;
    bench.finish(&[])
}

#[test]
fn listeners_accept_byte_for_byte_with_one_percent_lost() -> Result<()> {
    let bench = impaired("loss=1%", 3)?;
    accepts(&bench, GUEST_V4, 8 * MIB)?;
    accepts(&bench, GUEST_V6, 8 * MIB)?;
    bench.finish(LOSSY)
}

#[test]
fn shared_rings_carry_streams_byte_for_byte() -> Result<()> {
    let bench = sharing(None)?;
    exchanges(&bench, PEER_V4, 32 * MIB)?;
    accepts(&bench, GUEST_V6, 32 * MIB)?;
    // What is not worth a ring has none.
    exchanges(&bench, PEER_V4, 20_000)?;
    rings_were_used(&bench, 4, false)?;
    bench.finish(&["rings-named"])
}

#[test]
fn shared_rings_carry_streams_byte_for_byte_on_a_bad_wire() -> Result<()> {
    let bench = sharing(Some("loss=1%,reorder=2%"))?;
    exchanges(&bench, PEER_V4, 16 * MIB)?;
    accepts(&bench, GUEST_V4, 16 * MIB)?;
    rings_were_used(&bench, 4, false)
}

#[test]
fn connections_beyond_the_shared_rings_go_on_in_frames() -> Result<()> {
    // Two rings for each connection, and 128 of them.
    const CONNECTIONS: usize = 80;
    const BYTES: u64 = 300_000;
    let bench = sharing(None)?;
    for round in 0..2 {
        let peer = peers::echo(&bench.namespace, PEER_V4, CONNECTIONS)?;
        let streams: Vec<TcpStream> =
            (0..CONNECTIONS).map(|_| Ok(bench.connect(peer.address)?)).collect::<Result<Vec<_>>>()?;
        exchange_all(&streams, BYTES)?;
        ensure!(peer.join()?.len() == CONNECTIONS, "some connections were not the peer's");
        drop(streams);
        for pool in ["connections", "half-open"] {
            toe_guest_tests::host::wait_for(pool, Duration::from_secs(10), || {
                Ok((bench.pool(pool)?.in_use == 0).then_some(()))
            })?;
        }
        // They came back: the second round has as many.
        rings_were_used(&bench, 128 * (round + 1), true)?;
    }
    Ok(())
}

#[test]
fn the_card_closes_its_half_first() -> Result<()> {
    let bench = clean()?;
    let peer = peers::answer_at_end(&bench.namespace, PEER_V4, 1)?;
    let mut stream = bench.connect(peer.address)?;
    send(&stream, 5, MIB)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let expected = Sum::of_pattern(5, MIB);
    ensure!(Sum::parse(&answer) == Some(expected.clone()), "the answer was {answer}");
    ensure!(peer.join()? == [expected], "the peer received something else");
    let late = stream.write(b"more").map_err(|e| e.kind());
    ensure!(late == Err(ErrorKind::BrokenPipe), "after the end of the stream: {late:?}");
    drop(stream);
    bench.finish(&[])
}

#[test]
fn the_kernel_closes_its_half_first() -> Result<()> {
    let bench = clean()?;
    let peer = peers::source(&bench.namespace, PEER_V4, 1, 6, MIB)?;
    let mut stream = bench.connect(peer.address)?;
    ensure!(Sum::of(&mut stream)? == Sum::of_pattern(6, MIB), "received something else");
    // The peer has closed, and still receives.
    send(&stream, 7, MIB)?;
    stream.shutdown(Shutdown::Write)?;
    ensure!(peer.join()? == [Sum::of_pattern(7, MIB)], "the peer received something else");
    drop(stream);
    bench.finish(&[])
}

#[test]
fn a_closed_port_refuses() -> Result<()> {
    let bench = clean()?;
    for ip in [PEER_V4, PEER_V6] {
        let started = Instant::now();
        let error = bench.connect((ip, 9).into()).err().context("a closed port accepted")?;
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "{ip}: {error}");
        ensure!(card_error(&error)?.reason() == Some(Reason::Refused), "{ip}: {error}");
        ensure!(started.elapsed() < Duration::from_secs(1), "{ip}: known only after {:?}", started.elapsed());
    }
    ensure!(bench.counter("tcp-resets")? == 2, "the card counted other resets");
    bench.finish(&["tcp-resets"])
}

#[test]
fn a_reset_by_the_kernel_reaches_every_thread() -> Result<()> {
    let bench = clean()?;
    let peer = peers::reset_after(&bench.namespace, PEER_V4, 1000)?;
    let stream = bench.connect(peer.address)?;
    let (mut reader, writer) = (stream.try_clone()?, &stream);
    let (read, written) = std::thread::scope(|scope| {
        let reading = scope.spawn(move || reader.read(&mut [0; 16]).map_err(|e| (e.kind(), card_error(&e).ok())));
        // More than any buffer on the way holds.
        let written = send(writer, 8, 64 * MIB);
        reading.join().map(|read| (read, written))
    })
    .map_err(|_| anyhow!("the reader panicked"))?;
    let reset = CardError::Broken(Broken::Aborted(Reason::Reset as u32));
    ensure!(read == Err((ErrorKind::ConnectionReset, Some(reset))), "reading: {read:?}");
    let error = written.err().context("64 MiB went to a peer that had closed")?;
    let error: &std::io::Error = error.downcast_ref().context("not the stream's error")?;
    ensure!(error.kind() == ErrorKind::ConnectionReset && card_error(error)? == reset, "writing: {error}");
    peer.join()?;
    drop(stream);
    bench.finish(&["tcp-resets"])
}

#[test]
fn unread_data_resets_the_kernels_end() -> Result<()> {
    let bench = clean()?;
    let peer = peers::source(&bench.namespace, PEER_V4, 1, 9, 16 * MIB)?;
    let mut stream = bench.connect(peer.address)?;
    stream.read_exact(&mut [0; 10])?;
    drop(stream);
    let error = peer.join().err().context("the peer could send 16 MiB that nobody read")?;
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    ensure!(matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "the peer saw {error:#}");
    bench.finish(&["tcp-aborted", "tcp-resets-out", "tcp-data-after-close", "channel-unknown-object"])
}

#[test]
fn two_hundred_connections_echo_at_once() -> Result<()> {
    const CONNECTIONS: usize = 200;
    const BYTES: u64 = 20_000;
    let bench = clean()?;
    let peer = peers::echo(&bench.namespace, PEER_V4, CONNECTIONS)?;
    let streams: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| Ok(bench.connect(peer.address)?)).collect::<Result<Vec<_>>>()?;
    let pool = bench.pool("connections")?;
    ensure!(pool.in_use == CONNECTIONS as u64 && pool.high_water == pool.in_use, "{pool:?}");
    exchange_all(&streams, BYTES)?;
    ensure!(peer.join()?.len() == CONNECTIONS, "some connections were not the peer's");
    drop(streams);
    bench.finish(&[])
}

#[test]
fn several_threads_share_one_stream() -> Result<()> {
    const WRITERS: u8 = 4;
    const READERS: usize = 3;
    const BYTES: u64 = 2 * MIB;
    let bench = clean()?;
    let peer = peers::echo(&bench.namespace, PEER_V4, 1)?;
    let stream = bench.connect(peer.address)?;
    let shared = &stream;
    let counts = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(move || count_bytes(shared))).collect();
        let write = |value| move || std::io::copy(&mut std::io::repeat(value).take(BYTES), &mut &*shared);
        let writers: Vec<_> = (0..WRITERS).map(|value| scope.spawn(write(value))).collect();
        for writer in writers {
            writer.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        shared.shutdown(Shutdown::Write)?;
        readers.into_iter().try_fold([0; 256], |mut all: [u64; 256], reader| {
            let counts = reader.join().map_err(|_| anyhow!("a reader panicked"))??;
            all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            Ok::<_, anyhow::Error>(all)
        })
    })?;
    for (value, count) in counts.into_iter().enumerate() {
        let expected = if value < usize::from(WRITERS) { BYTES } else { 0 };
        ensure!(count == expected, "{count} bytes of {value} came back, {expected} were sent");
    }
    peer.join()?;
    drop(stream);
    bench.finish(&[])
}

/// How often each value occurs until the end of the stream.
fn count_bytes(mut stream: &TcpStream) -> Result<[u64; 256]> {
    let mut counts = [0; 256];
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(counts);
        }
        buffer[..n].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    }
}

#[test]
fn tiny_carries_as_many_connections_as_it_says() -> Result<()> {
    let bench = tiny()?;
    let Pool { capacity, in_use, .. } = bench.pool("connections")?;
    ensure!(capacity == 8 && in_use == 0, "{capacity} connections, {in_use} in use");
    let peer = peers::echo(&bench.namespace, PEER_V4, capacity as usize + 1)?;
    let mut streams: Vec<_> = (0..capacity).map(|_| bench.connect(peer.address)).collect::<Result<_, _>>()?;

    let error = bench.connect(peer.address).err().context("one connection more than the capacity")?;
    ensure!(error.kind() == ErrorKind::QuotaExceeded, "{error}");
    ensure!(error.to_string().contains("connections-full"), "{error}");
    let full = Pool { capacity, in_use: 8, high_water: 8, refusals: vec![("connections-full".into(), 1)] };
    let pool = bench.pool("connections")?;
    ensure!(pool == full, "{pool:?}");

    // All of them work, and one that ends makes room for another.
    for (seed, stream) in streams.iter().enumerate() {
        let seed = seed as u64;
        ensure!(exchange(stream, seed, 100_000)? == Sum::of_pattern(seed, 100_000), "connection {seed}");
    }
    drop(streams.pop());
    toe_guest_tests::host::wait_for("a connection to end", Duration::from_secs(5), || {
        Ok((bench.pool("connections")?.in_use == 7).then_some(()))
    })?;
    let stream = bench.connect(peer.address)?;
    ensure!(exchange(&stream, 8, 1000)? == Sum::of_pattern(8, 1000), "the ninth connection");
    drop((streams, stream));
    peer.join()?;
    // Nine closed in order, and only eight can wait: the oldest gave way.
    let pool = bench.pool("time-wait")?;
    ensure!(pool.capacity == 8 && pool.high_water == 8, "{pool:?}");
    bench.finish(&["tcp-time-wait-evicted"])
}

#[test]
fn tiny_listens_on_as_many_ports_as_it_says() -> Result<()> {
    let bench = tiny()?;
    let Pool { capacity, .. } = bench.pool("listeners")?;
    let listeners: Vec<_> = (0..capacity).map(|_| bench.listen(GUEST_V4)).collect::<Result<_, _>>()?;
    let error = bench.listen(GUEST_V4).err().context("one listener more than the capacity")?;
    ensure!(error.to_string().contains("listeners-full"), "{error}");
    let full = Pool { capacity, in_use: 2, high_water: 2, refusals: vec![("listeners-full".into(), 1)] };
    let pool = bench.pool("listeners")?;
    ensure!(pool == full, "{pool:?}");
    drop(listeners);
    toe_guest_tests::host::wait_for("the listeners to end", Duration::from_secs(5), || {
        Ok((bench.pool("listeners")?.in_use == 0).then_some(()))
    })?;
    bench.listen(GUEST_V4)?;
    bench.finish(&[])
}

#[test]
fn a_killed_card_ends_its_streams() -> Result<()> {
    let mut bench = clean()?;
    let peer = peers::echo(&bench.namespace, PEER_V4, 1)?;
    let stream = bench.connect(peer.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    (&stream).write_all(b"hello")?;
    (&stream).read_exact(&mut [0; 5])?;
    let mut reader = stream.try_clone()?;
    let reading = std::thread::spawn(move || reader.read(&mut [0; 16]).map_err(|e| (e.kind(), e.to_string())));
    let killed = Instant::now();
    bench.card().kill()?;
    let read = reading.join().map_err(|_| anyhow!("the reader panicked"))?;
    let expected = (ErrorKind::ConnectionReset, "the card does not answer any more".to_owned());
    ensure!(read == Err(expected), "reading: {read:?}");
    ensure!(killed.elapsed() < Duration::from_secs(15), "told only after {:?}", killed.elapsed());
    let error = (&stream).write(b"more").err().context("a dead card took data")?;
    ensure!(card_error(&error)? == CardError::Broken(Broken::CardSilent), "writing: {error}");
    Ok(())
}

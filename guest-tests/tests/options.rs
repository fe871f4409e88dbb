//! What TCP has beside its streams, between the card and the Linux kernel, without a guest: this process is the frontend.
//!
//! The peer's sockets are made in the bench's namespace. Where the kernel must be asked to do something that it does not
//! do by itself (Fast Open, forwarding), that is set in the namespace alone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::RecvFlags;
use socket2::{Domain, SockRef, Socket, Type};
use toe_guest_tests::bench::send;
use toe_guest_tests::bytes::Sum;
use toe_guest_tests::host::wait_for;
use toe_guest_tests::net::{GUEST_V4, GUEST_V6, PEER_V4, PEER_V6, TAP};
use toe_guest_tests::{Bench, BenchOptions, CardOptions, Namespace};

const PATIENCE: Duration = Duration::from_secs(20);

/// Linux's flag of `sendto` for text in a SYN.
const MSG_FASTOPEN: i32 = 0x2000_0000;

/// A kernel parameter of the namespace's network.
fn set(namespace: &Namespace, name: &str, value: &str) -> Result<()> {
    namespace.enter(|| {
        let path = format!("/proc/sys/net/{name}");
        std::fs::write(&path, value).with_context(|| format!("{name} = {value}"))
    })
}

fn kernel_listener(bench: &Bench, ip: std::net::IpAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = bench.namespace.enter(|| Ok(TcpListener::bind((ip, 0))?))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn accepted(listener: &TcpListener) -> Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

#[test]
fn urgent_data_means_the_same_to_linux() -> Result<()> {
    let bench = Bench::start(&BenchOptions::default())?;
    let (listener, address) = kernel_listener(&bench, PEER_V4)?;
    let mut ours = bench.connect(address)?;
    let mut theirs = accepted(&listener)?;

    // To Linux, which by default takes the octet before the pointer out of the stream.
    ours.write_all(b"before")?;
    ensure!(ours.send_urgent(b"!")? == 1, "the urgent octet was not taken");
    ours.write_all(b"after")?;
    let octet = wait_for("the urgent octet", PATIENCE, || {
        let mut octet = [0; 4];
        match rustix::net::recv(&theirs, &mut octet, RecvFlags::OOB) {
            Ok((1, _)) => Ok(Some(octet[0])),
            Ok((n, _)) => bail!("{n} urgent octets"),
            Err(_) => Ok(None),
        }
    })?;
    ensure!(octet == b'!', "the urgent octet was {octet}");
    let mut rest = [0; 11];
    theirs.read_exact(&mut rest)?;
    ensure!(&rest == b"beforeafter", "the rest was {rest:?}");

    // And from it.
    theirs.write_all(b"more")?;
    ensure!(SockRef::from(&theirs).send_out_of_band(b"xyz")? == 3, "Linux did not take it");
    theirs.write_all(b"end")?;
    // All three are before the pointer.
    let left = wait_for("the mark", PATIENCE, || Ok(Some(ours.wait_urgent(Some(PATIENCE))?).filter(|left| *left > 0)))?;
    ensure!(left == 7, "the mark is {left} octets ahead");
    let mut text = [0; 10];
    ours.read_exact(&mut text)?;
    ensure!(&text == b"morexyzend", "the card gave {text:?}");
    ensure!(ours.urgent()? == 0, "the mark was passed");
    drop((ours, theirs));
    bench.finish(&["tcp-urgent-in"])
}

/// A bench whose card has that profile.
fn with_profile(text: &str) -> Result<(Bench, tempfile::TempDir)> {
    let directory = tempfile::tempdir()?;
    let profile = directory.path().join("profile.toml");
    std::fs::write(&profile, text)?;
    let profile = profile.to_str().context("a path that is no text")?.to_owned();
    let bench = Bench::start(&BenchOptions {
        card: CardOptions { profile, ..CardOptions::default() },
        ..BenchOptions::default()
    })?;
    Ok((bench, directory))
}

/// TCPI_OPT_ECN.
const ECN: u8 = 8;

#[test]
fn ecn_is_agreed_on_with_linux_and_not_without_it() -> Result<()> {
    let (bench, _profile) = with_profile("[tcp]\necn = \"on\"\n")?;
    for wanted in [true, false] {
        set(&bench.namespace, "ipv4/tcp_ecn", if wanted { "1" } else { "0" })?;
        for (theirs, ours) in [(PEER_V4, GUEST_V4), (PEER_V6, GUEST_V6)] {
            let (listener, address) = kernel_listener(&bench, theirs)?;
            let active = (bench.connect(address)?, accepted(&listener)?);
            let listener = bench.listen(ours)?;
            let to = SocketAddr::new(ours, listener.local_addr()?.port());
            let stream = bench.namespace.enter(|| Ok(TcpStream::connect(to)?))?;
            let passive = (bench.accept(&listener)?, stream);
            for (mut card, mut kernel) in [active, passive] {
                kernel.set_read_timeout(Some(PATIENCE))?;
                card.write_all(b"question")?;
                let mut text = [0; 8];
                kernel.read_exact(&mut text)?;
                kernel.write_all(b"answer!!")?;
                card.read_exact(&mut text)?;
                ensure!(&text == b"answer!!", "the card gave {text:?}");
                let agreed = card.info()?.options & ECN != 0;
                ensure!(agreed == wanted, "Linux's tcp_ecn {wanted}, agreed {agreed}");
            }
        }
    }
    bench.finish(&[])
}

/// A bench whose card, library and kernel all use Fast Open.
fn fast() -> Result<(Bench, tempfile::TempDir)> {
    let (bench, directory) = with_profile("[tcp]\nfast_open = true\n")?;
    // Client, server, and every listener without being asked.
    set(&bench.namespace, "ipv4/tcp_fastopen", "1027")?;
    Ok((bench, directory))
}

#[test]
fn fast_open_with_linux_as_server() -> Result<()> {
    let (bench, _profile) = fast()?;
    let options = bench.options().clone().fast_open(true);
    for ip in [PEER_V4, PEER_V6] {
        let before = bench.counter("tcp-fast-open-taken")?;
        let (listener, address) = kernel_listener(&bench, ip)?;
        for round in 0..3 {
            let mut ours = options.connect_with(address, b"question")?;
            let mut theirs = accepted(&listener)?;
            let mut text = [0; 8];
            theirs.read_exact(&mut text)?;
            ensure!(&text == b"question", "Linux read {text:?}");
            theirs.write_all(b"answer")?;
            drop(theirs);
            let mut answer = String::new();
            ours.read_to_string(&mut answer)?;
            ensure!(answer == "answer", "the card gave {answer}");
            // The first asks for the cookie.
            let taken = bench.counter("tcp-fast-open-taken")? - before;
            ensure!(taken == round, "{taken} taken in round {round} with {ip}");
        }
    }
    bench.finish(&["tcp-fast-open-taken"])
}

#[test]
fn fast_open_with_linux_as_client() -> Result<()> {
    let (bench, _profile) = fast()?;
    for ip in [GUEST_V4, GUEST_V6] {
        let before = bench.counter("tcp-fast-open-passive")?;
        let listener = bench.options().clone().fast_open(true).bind((ip, 0))?;
        let to = SocketAddr::new(ip, listener.local_addr()?.port());
        for round in 0..3 {
            let socket = bench.namespace.enter(|| {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.send_to_with_flags(b"question", &to.into(), MSG_FASTOPEN)?;
                Ok(socket)
            })?;
            let mut theirs = TcpStream::from(socket);
            let mut ours = bench.accept(&listener)?;
            let mut text = [0; 8];
            ours.read_exact(&mut text)?;
            ensure!(&text == b"question", "the card gave {text:?}");
            ours.write_all(b"answer")?;
            drop(ours);
            let mut answer = String::new();
            theirs.read_to_string(&mut answer)?;
            ensure!(answer == "answer", "Linux read {answer}");
            let passive = bench.counter("tcp-fast-open-passive")? - before;
            ensure!(passive == round, "{passive} by Fast Open in round {round} with {ip}");
        }
    }
    bench.finish(&["tcp-fast-open-passive"])
}

#[test]
fn a_router_with_a_smaller_link_is_heard() -> Result<()> {
    const BEHIND: &str = "192.0.2.200";
    const BYTES: u64 = 4 << 20;
    let bench = Bench::start(&BenchOptions::default())?;
    // The namespace is the router: it answers for an address that lies behind a link of 1300 bytes.
    let far = Namespace::new()?;
    let near = &bench.namespace;
    near.ip(&["link", "add", "near0", "mtu", "1300", "type", "veth", "peer", "name", "far0", "netns", far.name()])?;
    near.ip(&["link", "set", "near0", "up"])?;
    near.ip(&["route", "add", &format!("{BEHIND}/32"), "dev", "near0"])?;
    set(near, "ipv4/ip_forward", "1")?;
    set(near, &format!("ipv4/conf/{TAP}/proxy_arp"), "1")?;
    set(near, "ipv4/conf/near0/proxy_arp", "1")?;
    // The far end does not know how small its link is, and announces an MSS that does not fit.
    far.ip(&["link", "set", "far0", "mtu", "1500", "up"])?;
    far.ip(&["address", "add", &format!("{BEHIND}/24"), "dev", "far0"])?;

    let listener = far.enter(|| Ok(TcpListener::bind((BEHIND, 0))?))?;
    let stream = bench.connect(listener.local_addr()?)?;
    let received = std::thread::scope(|scope| {
        let sum = scope.spawn(|| -> Result<Sum> { Ok(Sum::of(&mut accepted(&listener)?)?) });
        send(&stream, 9, BYTES)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        sum.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
    })?;
    ensure!(received == Sum::of_pattern(9, BYTES), "the far end received {received}");
    let path = stream.path_state()?;
    ensure!(path.mtu == 1300, "the path takes {} bytes", path.mtu);
    ensure!(bench.counter("icmp-too-big")? == 1, "believed once");
    drop(stream);
    bench.finish(&["icmp-in", "icmp-too-big", "icmp-too-big-known", "icmp-not-in-flight", "tcp-path-mtu-lowered"])
}

#[test]
fn a_host_that_is_not_there_is_reported_and_not_given_up() -> Result<()> {
    const NOBODY: &str = "192.0.2.201";
    let bench = Bench::start(&BenchOptions::default())?;
    let far = Namespace::new()?;
    let near = &bench.namespace;
    near.ip(&["link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", far.name()])?;
    near.ip(&["link", "set", "near0", "up"])?;
    far.ip(&["link", "set", "far0", "up"])?;
    near.ip(&["route", "add", &format!("{NOBODY}/32"), "dev", "near0"])?;
    set(near, "ipv4/ip_forward", "1")?;
    set(near, &format!("ipv4/conf/{TAP}/proxy_arp"), "1")?;
    let to: SocketAddr = format!("{NOBODY}:9").parse()?;
    let result = std::thread::scope(|scope| {
        let opening = scope.spawn(|| bench.options().connect_timeout(&to, Duration::from_secs(12)));
        // The router asks for it three times, a second apart, and then says so.
        wait_for("an ICMP error", PATIENCE, || Ok((bench.counter("icmp-soft")? > 0).then_some(())))?;
        ensure!(!opening.is_finished(), "a soft error has ended it");
        opening.join().map_err(|_| anyhow::anyhow!("the opener panicked"))
    })?;
    let kind = result.err().map(|e| e.kind());
    ensure!(kind == Some(std::io::ErrorKind::TimedOut), "the end was {kind:?}");
    ensure!(bench.counter("icmp-aborted")? == 0, "aborted");
    Ok(())
}

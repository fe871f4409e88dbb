//! What must hold when a real guest uses the card, independent of what the guest runs on.
//!
//! Each is a function over a booted [`Lab`] that checks its own results and notes them as a step; the tests and the
//! demo only choose which to run on what.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bytes::Sum;
use crate::faults::counter;
use crate::net::{PEER_V4, PEER_V6};
use crate::{Guest, Lab, host, peers};

/// How long a transfer of some MiB may take; a guest is emulated, on a machine that others use as well.
const TRANSFER: Duration = Duration::from_secs(120);

const MIB: u64 = 1 << 20;

/// The guest answers to and is answered by the other end of the wire.
///
/// # Errors
/// What does not hold; so for all of them.
pub fn ping(lab: &Lab) -> Result<()> {
    let guest = lab.guest()?;
    for ip in [PEER_V4, PEER_V6] {
        let text = guest.check(&format!("ping -c 5 -i 0.2 -W 5 {ip}"))?;
        ensure!(text.contains(" 0% packet loss"), "{text}");
    }
    lab.step("ping: IPv4 and IPv6, nothing lost");
    Ok(())
}

/// The guest kernel's TCP, 16 MiB each way, byte for byte, over one family of addresses. With segmentation and
/// checksums left to the NIC, few and large frames pass the wire: that they do is checked, too.
///
/// # Errors
/// As above.
pub fn kernel_tcp(lab: &Lab, peer: IpAddr) -> Result<()> {
    let guest = lab.guest()?;
    let bytes = 16 * MIB;
    let before = lab.namespace.traffic()?;

    let sink = peers::sink(&lab.namespace, peer, 1)?;
    let (ip, port) = (peer, sink.address.port());
    guest.check_for(&format!("toe-peer send {ip} {port} 1 {bytes}"), TRANSFER)?;
    ensure!(sink.join()? == [Sum::of_pattern(1, bytes)], "what arrived is not what the guest sent");
    let sent = lab.namespace.traffic()? - before;

    let server = peers::http(&lab.namespace, peer, 1)?;
    let url = format!("http://{}/2/{bytes}", server.address);
    let text = guest.check_for(&format!("wget -q -O - {url} | toe-peer sum"), TRANSFER)?;
    ensure!(
        Sum::parse(&text) == Some(Sum::of_pattern(2, bytes)),
        "what the guest fetched is not what was served: {text}"
    );
    server.join()?;
    let both = lab.namespace.traffic()? - before;

    let out = sent.from_card_bytes / sent.from_card_frames.max(1);
    let fetched = both - sent;
    let into = fetched.to_card_bytes / fetched.to_card_frames.max(1);
    lab.step(&format!("kernel TCP to {peer}: 16 MiB each way; frames of {out} bytes out and {into} in, on average"));
    // Without offloads none is longer than 1514 bytes, so that their mean cannot be.
    ensure!(out > 1514, "the guest segments by itself: frames of {out} bytes from it");
    ensure!(into > 1514, "the peer segments by itself: frames of {into} bytes to the guest");
    Ok(())
}

/// Bytes sent over a card connection arrive, and the program's end is the stream's.
///
/// # Errors
/// As above.
pub fn card_send(lab: &Lab, peer: IpAddr, bytes: u64) -> Result<()> {
    let sink = peers::sink(&lab.namespace, peer, 1)?;
    let (ip, port) = (peer, sink.address.port());
    let text = lab.guest()?.check_for(&format!("toe-peer gen 3 {bytes} | toe nc -v {ip} {port}"), TRANSFER)?;
    ensure!(on_card(&text), "the connection was not the card's: {text}");
    ensure!(sink.join()? == [Sum::of_pattern(3, bytes)], "what arrived is not what the guest sent");
    lab.step(&format!("card connection to {peer}: {bytes} bytes sent"));
    Ok(())
}

/// Bytes fetched over a card connection from an HTTP server are the ones that it has.
///
/// # Errors
/// As above.
pub fn card_fetch(lab: &Lab, peer: IpAddr, bytes: u64) -> Result<()> {
    let server = peers::http(&lab.namespace, peer, 1)?;
    card_fetch_from(lab, server.address, &format!("/4/{bytes}"), &Sum::of_pattern(4, bytes))?;
    server.join().map(drop)
}

/// The same with a server that is there already, a path on it, and what it has there.
///
/// # Errors
/// As above.
pub fn card_fetch_from(lab: &Lab, server: SocketAddr, path: &str, expected: &Sum) -> Result<()> {
    let guest = lab.guest()?;
    let (ip, port) = (server.ip(), server.port());
    let request = format!("printf 'GET {path} HTTP/1.0\\r\\nHost: {ip}\\r\\n\\r\\n'");
    let command = format!("{request} | toe nc -v {ip} {port} 2>/tmp/fetch.err | toe-peer sum --http");
    let text = guest.check_for(&command, TRANSFER)?;
    let said = guest.check("cat /tmp/fetch.err")?;
    ensure!(on_card(&said), "the connection was not the card's: {said}");
    let fetched = Sum::parse(&text);
    ensure!(fetched.as_ref() == Some(expected), "what the guest fetched is not what was served: {text} {said}");
    lab.step(&format!("card connection to {ip}: {} bytes fetched by HTTP", expected.bytes));
    Ok(())
}

/// Payload passes through huge pages of the guest, both ways and byte for byte; what a killed program leaves there is used by nobody
/// for as long as the card could, and that of others at once.
///
/// # Errors
/// As above.
pub fn shared_rings(lab: &mut Lab, peer: IpAddr, bytes: u64) -> Result<()> {
    let files = |lab: &Lab| lab.guest()?.check("cd /dev/hugepages; ls");
    card_send(lab, peer, bytes)?;
    card_fetch(lab, peer, bytes)?;
    // The second program removes what the first has left, and leaves its own.
    let left = files(lab)?;
    ensure!(left.lines().count() == 1 && !left.contains("until"), "files of huge pages after two programs: {left}");
    let named = counter(lab, "rings-named")?;
    ensure!(named == 2, "{named} rings were named, one for each transfer");

    let sink = peers::sink(&lab.namespace, peer, 1)?;
    let job = lab.guest()?.start(&format!(
        "toe-peer gen 3 1000000000000 | toe nc -v {peer} {} 2>/tmp/killed.err & echo $! > /tmp/killed.pid; wait",
        sink.address.port()
    ))?;
    host::wait_for("the third program's ring", TRANSFER, || Ok((counter(lab, "rings-named")? > named).then_some(())))?;
    lab.guest()?.check("kill -9 $(cat /tmp/killed.pid)")?;
    lab.guest()?.wait(job, TRANSFER)?;
    card_fetch(lab, peer, bytes)?;
    let left = files(lab)?;
    ensure!(left.lines().filter(|name| name.contains("until")).count() == 1, "after a kill: {left}");
    drop(sink);
    lab.step(&format!("{bytes} bytes each way through rings in huge pages; one of a killed program is kept"));
    Ok(())
}

/// A listener on the card accepts; bytes pass both ways at once, each end closing when it has said all.
///
/// # Errors
/// As above.
pub fn card_accept(lab: &Lab, guest_ip: IpAddr, bytes: u64) -> Result<()> {
    let guest = lab.guest()?;
    // A second run in the same guest must not take the first one's words for its own.
    guest.check("rm -f /tmp/accept.err")?;
    let job = guest.start(&format!("toe-peer gen 5 {bytes} | toe nc -v -l 7005 2>/tmp/accept.err | toe-peer sum"))?;
    wait_for_listener(guest, "/tmp/accept.err")?;
    let client = peers::client(&lab.namespace, SocketAddr::new(guest_ip, 7005), 6, bytes)?;
    let output = guest.wait(job, TRANSFER)?;
    let said = guest.check("cat /tmp/accept.err")?;
    ensure!(output.status == 0, "toe nc -l failed: {} {said}", output.text);
    ensure!(on_card(&said), "the connection was not the card's: {said}");
    ensure!(
        Sum::parse(&output.text) == Some(Sum::of_pattern(6, bytes)),
        "what the guest received is not what was sent: {} {said}",
        output.text
    );
    ensure!(client.join()? == Sum::of_pattern(5, bytes), "what the client received is not what the guest sent");
    lab.step(&format!("card listener on {guest_ip}: {bytes} bytes each way at once"));
    Ok(())
}

/// A stream that the guest has closed still brings what the peer says after that.
///
/// # Errors
/// As above.
pub fn half_close(lab: &Lab, peer: IpAddr) -> Result<()> {
    let bytes = MIB;
    let server = peers::answer_at_end(&lab.namespace, peer, 1)?;
    let (ip, port) = (peer, server.address.port());
    let text = lab.guest()?.check_for(&format!("toe-peer gen 7 {bytes} | toe nc {ip} {port}"), TRANSFER)?;
    let expected = Sum::of_pattern(7, bytes);
    ensure!(Sum::parse(&text).as_ref() == Some(&expected), "after the half-close came: {text}");
    ensure!(server.join()? == [expected], "what arrived is not what the guest sent");
    lab.step("half-close: the peer's answer came after the guest's end");
    Ok(())
}

/// A port that nobody listens on is refused, in the words that a program would expect.
///
/// # Errors
/// As above.
pub fn refused(lab: &Lab, peer: IpAddr) -> Result<()> {
    let output = lab.guest()?.run(&format!("toe nc -v {peer} 9"))?;
    ensure!(output.status != 0, "a closed port was connected to: {}", output.text);
    ensure!(output.text.to_lowercase().contains("refused"), "a closed port gave: {}", output.text);
    lab.step("a closed port: connection refused");
    Ok(())
}

/// A card connection, the kernel's TCP and ping at once, on one NIC and one address.
///
/// # Errors
/// As above.
pub fn all_at_once(lab: &Lab) -> Result<()> {
    let guest = lab.guest()?;
    let bytes = 16 * MIB;
    let (card, kernel) = (peers::sink(&lab.namespace, PEER_V4, 1)?, peers::http(&lab.namespace, PEER_V4, 1)?);
    let (port, url) = (card.address.port(), format!("http://{}/8/{bytes}", kernel.address));
    let jobs = [
        guest.start(&format!("toe-peer gen 9 {bytes} | toe nc {PEER_V4} {port}"))?,
        guest.start(&format!("wget -q -O - {url} | toe-peer sum"))?,
        guest.start(&format!("ping -c 10 -i 0.2 -W 5 {PEER_V4}"))?,
    ];
    let [sent, fetched, pinged] = jobs.map(|job| guest.wait(job, TRANSFER));
    let (sent, fetched, pinged) = (sent?, fetched?, pinged?);
    ensure!(sent.status == 0, "toe nc failed: {}", sent.text);
    ensure!(card.join()? == [Sum::of_pattern(9, bytes)], "what arrived over the card is not what the guest sent");
    ensure!(Sum::parse(&fetched.text) == Some(Sum::of_pattern(8, bytes)), "the kernel fetched: {}", fetched.text);
    ensure!(pinged.text.contains(" 0% packet loss"), "{}", pinged.text);
    kernel.join()?;
    lab.step("card, kernel and ping at once: every byte and every answer there");
    Ok(())
}

/// Frames of the largest MTU pass in both directions.
///
/// # Errors
/// As above.
pub fn largest_mtu(lab: &Lab) -> Result<()> {
    let guest = lab.guest()?;
    ensure!(guest.check("cat /sys/class/net/eth0/mtu")?.trim() == "65535", "the guest's MTU is not 65535");
    let before = lab.namespace.traffic()?;
    // With the headers of ICMP and IP exactly 65,535 bytes.
    let text = guest.check(&format!("ping -c 4 -i 0.2 -W 5 -s 65507 {PEER_V4}"))?;
    ensure!(text.contains(" 0% packet loss"), "{text}");
    let passed = lab.namespace.traffic()? - before;
    ensure!(
        passed.from_card_bytes >= 4 * 65_549 && passed.from_card_frames < 12,
        "the echo requests did not go out in one frame each: {passed:?}"
    );
    kernel_tcp(lab, PEER_V4)?;
    card_send(lab, PEER_V4, 16 * MIB)?;
    card_fetch(lab, PEER_V4, 16 * MIB)?;
    lab.step("MTU 65535: ping of 65,535 bytes, kernel and card");
    Ok(())
}

/// With a long MTU for the interface and the wire's for its routes, frames between guest and card are long, and to the wire goes
/// nothing that it could not carry: neither of the kernel, nor of the card.
///
/// # Errors
/// As above.
pub fn long_frames(lab: &mut Lab) -> Result<()> {
    let guest = lab.guest()?;
    ensure!(guest.check("cat /sys/class/net/eth0/mtu")?.trim() == "65535", "the guest's MTU is not 65535");
    for (command, ip) in [("ping", PEER_V4), ("ping -6", PEER_V6)] {
        let before = lab.namespace.traffic()?;
        let text = guest.check(&format!("{command} -c 4 -i 0.2 -W 5 -s 3000 {ip}"))?;
        ensure!(text.contains(" 0% packet loss"), "{text}");
        let passed = lab.namespace.traffic()? - before;
        ensure!(passed.from_card_frames >= 4 * 3, "the kernel did not cut what is longer than its routes: {passed:?}");
    }
    kernel_tcp(lab, PEER_V4)?;
    for ip in [PEER_V4, PEER_V6] {
        let frames = |lab: &mut Lab, name: &str| {
            lab.card()?.stat()?[name].as_u64().with_context(|| format!("no counter {name}"))
        };
        let before = frames(lab, "frames-from-guest-taken")?;
        card_send(lab, ip, MIB)?;
        let out = frames(lab, "frames-from-guest-taken")? - before;
        let before = frames(lab, "firmware-frames-to-guest")?;
        card_fetch(lab, ip, MIB)?;
        let into = frames(lab, "firmware-frames-to-guest")? - before;
        // In frames of 1,514 bytes they would be 720.
        ensure!(out < 200 && into < 360, "1 MiB took {out} frames to the card, and {into} from it");
        lab.step(&format!("long frames to {ip}: 1 MiB took {out} to the card and {into} from it"));
    }
    Ok(())
}

/// Both processors of the guest use a queue pair of their own at the same time.
///
/// # Errors
/// As above.
pub fn queue_pairs(lab: &Lab) -> Result<()> {
    let guest = lab.guest()?;
    let queues = guest.check("ls -d /sys/class/net/eth0/queues/tx-* | wc -l")?;
    ensure!(queues.trim() == "2", "the guest has {} transmit queues, not 2", queues.trim());
    let bytes = 16 * MIB;
    let mut flows = Vec::new();
    for processor in [1, 2] {
        let (sink, server) = (peers::sink(&lab.namespace, PEER_V4, 1)?, peers::http(&lab.namespace, PEER_V6, 1)?);
        let (port, url) = (sink.address.port(), format!("http://{}/{processor}/{bytes}", server.address));
        let send = format!("taskset {processor} toe-peer send {PEER_V4} {port} {processor} {bytes}");
        let fetch = format!("taskset {processor} wget -q -O - {url} | toe-peer sum");
        flows.push((processor, guest.start(&send)?, sink, guest.start(&fetch)?, server));
    }
    for (processor, send, sink, fetch, server) in flows {
        let (sent, fetched) = (guest.wait(send, TRANSFER)?, guest.wait(fetch, TRANSFER)?);
        ensure!(sent.status == 0, "sending failed: {}", sent.text);
        let sum = Sum::of_pattern(processor, bytes);
        ensure!(sink.join()? == std::slice::from_ref(&sum), "what arrived is not what processor {processor} sent");
        ensure!(Sum::parse(&fetched.text) == Some(sum), "processor {processor} fetched: {}", fetched.text);
        server.join()?;
    }
    lab.step("two queue pairs: two flows each way at once");
    Ok(())
}

/// More connections than the `tiny` card has: the rest are the guest kernel's, say why, and carry their bytes.
///
/// # Errors
/// As above.
pub fn fall_back(lab: &mut Lab) -> Result<Held> {
    let (connections, bytes) = (20, 65_536);
    let server = peers::echo(&lab.namespace, PEER_V4, connections)?;
    let (ip, port) = (PEER_V4, server.address.port());
    let text =
        lab.guest()?.check_for(&format!("toe hold {ip} {port} -n {connections} --bytes {bytes} --json"), TRANSFER)?;
    let held = Held::parse(&text)?;
    let sums = server.join()?;
    ensure!(
        sums.len() == connections && sums.iter().all(|sum| sum.bytes == bytes),
        "not every connection carried {bytes} bytes: {sums:?}"
    );
    ensure!(held.on_card == 8, "the tiny card has 8 connections, {} were on it: {text}", held.on_card);
    ensure!(held.on_kernel == connections as u64 - 8, "{} connections fell back: {text}", held.on_kernel);
    ensure!(held.reasons.contains("connections-full"), "no reason why: {text}");
    lab.step(&format!(
        "tiny card: {} connections on it, {} fell back ({})",
        held.on_card, held.on_kernel, held.reasons
    ));
    Ok(held)
}

/// More connections than a card has that gives none to the kernel (`w5500`): the rest are told why at once, and those that are
/// there carry their bytes all the same.
///
/// # Errors
/// As above.
pub fn deny(lab: &mut Lab) -> Result<()> {
    let (connections, there, bytes) = (20, 8, 65_536);
    let server = peers::echo(&lab.namespace, PEER_V4, there)?;
    let (ip, port) = (PEER_V4, server.address.port());
    let command = format!("toe hold {ip} {port} -n {connections} --bytes {bytes} --json");
    let output = lab.guest()?.run_for(&command, TRANSFER)?;
    let text = &output.text;
    ensure!(output.status != 0, "nobody was denied: {text}");
    let json = text.lines().find(|line| line.starts_with('{')).with_context(|| format!("no JSON in {text}"))?;
    let held: serde_json::Value = serde_json::from_str(json)?;
    let number = |name: &str| held[name].as_u64().unwrap_or(u64::MAX);
    let found = (number("held_at_once"), number("card"), number("kernel"), number("failed"));
    ensure!(found == (8, 8, 0, 12), "at once, on the card, by the kernel, failed: {found:?}: {text}");
    // Whoever was left in the dark would have waited until its time was up.
    let failures = held["failures"].to_string();
    ensure!(failures.contains("connections-full"), "no reason why: {text}");
    let sums = server.join()?;
    let all = sums.len() == there && sums.iter().all(|sum| sum.bytes == bytes);
    ensure!(all, "not every connection carried {bytes} bytes: {sums:?}");
    lab.step(&format!("a full card that denies: {} connections on it, {} told why ({failures})", found.1, found.3));
    Ok(())
}

/// The card's management socket and the channel answer the same questions alike.
///
/// # Errors
/// As above.
pub fn management(lab: &mut Lab) -> Result<()> {
    card_send(lab, PEER_V4, MIB)?;
    let (from_host, counters) = (lab.card()?.limits()?, lab.card()?.stat()?);
    let from_guest: serde_json::Value = serde_json::from_str(&lab.guest()?.check("toe limits --json")?)?;
    let (host_pools, guest_pools) = (pools(&from_host), pools(&from_guest));
    // The host knows the device's pools, too; the guest is told what its own context may have.
    let all_there = guest_pools.iter().all(|pool| host_pools.contains(pool) || pool.0.starts_with("own-"));
    ensure!(all_there, "toectl limits has not all that toe limits has: {host_pools:?} and {guest_pools:?}");
    ensure!(
        guest_pools.contains(&("connections".to_owned(), 16_384)),
        "the default card's connections: {guest_pools:?}"
    );
    ensure!(counters.to_string().len() > 100, "toectl stat has no counters: {counters}");
    lab.guest()?.check("toe stat --json")?;
    lab.step(&format!("management: {} pools, the same from host and guest", host_pools.len()));
    Ok(())
}

/// The guest is reset under the card, and then killed and booted again: each time the NIC works.
///
/// # Errors
/// As above.
pub fn frontend_returns(lab: &mut Lab) -> Result<()> {
    card_send(lab, PEER_V4, MIB)?;
    lab.guest()?.reset()?;
    lab.step("the guest was reset");
    works(lab)?;
    lab.kill_guest();
    lab.start_guest()?;
    works(lab)
}

/// The card is killed with SIGKILL under traffic and started again: the guest lives, its kernel's TCP connection goes on
/// where it was, the card's connection is told to be broken, and new ones work.
///
/// # Errors
/// As above.
pub fn card_returns(lab: &mut Lab) -> Result<()> {
    let bytes = 128 * MIB;
    let stop = Arc::new(AtomicBool::new(false));
    let kernel = peers::http(&lab.namespace, PEER_V4, 1)?;
    let card = peers::paced_source(&lab.namespace, PEER_V4, 9, Arc::clone(&stop))?;
    let (url, port) = (format!("http://{}/8/{bytes}", kernel.address), card.address.port());
    let before = lab.namespace.traffic()?;
    let fetch = lab.guest()?.start(&format!("wget -q -O - {url} | toe-peer sum"))?;
    lab.guest()?.check("rm -f /tmp/stream.err")?;
    let stream = lab.guest()?.start(&format!("toe nc -v {PEER_V4} {port} 2>/tmp/stream.err >/dev/null"))?;
    wait_until_on_card(lab.guest()?, "/tmp/stream.err")?;
    crate::host::wait_for("traffic", TRANSFER, || {
        let passed = lab.namespace.traffic()? - before;
        Ok((passed.to_card_bytes > 4 * MIB).then_some(()))
    })?;

    lab.card()?.kill()?;
    lab.step("the card was killed under traffic");
    lab.start_card()?;
    let guest = lab.guest()?;
    crate::host::wait_for("the guest's NIC to come back", Duration::from_secs(60), || {
        Ok((guest.run(&format!("ping -c 1 -W 1 {PEER_V4}"))?.status == 0).then_some(()))
    })?;
    lab.step("the guest's NIC is back");

    let broken = guest.wait(stream, TRANSFER)?;
    ensure!(broken.status != 0, "a connection on a card that was killed ended as if nothing had happened");
    lab.step("the card's connection was told to be broken");
    stop.store(true, Ordering::Relaxed);
    // The peer may have been reset, or may still have waited.
    let _ = card.join();
    let fetched = guest.wait(fetch, TRANSFER)?;
    ensure!(
        Sum::parse(&fetched.text) == Some(Sum::of_pattern(8, bytes)),
        "the kernel's connection did not survive: {}",
        fetched.text
    );
    kernel.join()?;
    lab.step("the kernel's connection went on, byte for byte");
    works(lab)
}

/// A hostile guest: `frames` random and mutated channel frames, while other contexts' streams go on, one each way. The card
/// lives, the streams are whole, and the next connections work.
///
/// # Errors
/// As above.
pub fn hostile(lab: &mut Lab, frames: u64, seed: u64) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let source = peers::paced_source(&lab.namespace, PEER_V4, 10, Arc::clone(&stop))?;
    let sink = peers::sink(&lab.namespace, PEER_V6, 1)?;
    let (from, to) = (source.address.port(), sink.address.port());
    let guest = lab.guest()?;
    guest.check("rm -f /tmp/in.err /tmp/out.err")?;
    let into = guest.start(&format!("toe nc -v {PEER_V4} {from} 2>/tmp/in.err | toe-peer sum"))?;
    let out = guest.start(&format!(
        "toe-peer gen --until /tmp/enough 11 {} | toe nc -v {PEER_V6} {to} 2>/tmp/out.err",
        1u64 << 40
    ))?;
    for file in ["/tmp/in.err", "/tmp/out.err"] {
        wait_until_on_card(guest, file)?;
    }
    let limit = TRANSFER + Duration::from_millis(frames);
    let text = guest.check_for(&format!("toe-peer fuzz --frames {frames} --seed {seed} eth0"), limit)?;
    lab.step(&format!("fuzzer: {}", text.trim()));

    stop.store(true, Ordering::Relaxed);
    let guest = lab.guest()?;
    guest.check("touch /tmp/enough")?;
    let received = guest.wait(into, TRANSFER)?;
    let sent = guest.wait(out, TRANSFER)?;
    ensure!(sent.status == 0, "the stream from the guest broke: {}", sent.text);
    let (served, taken) = (source.join()?, sink.join()?);
    ensure!(
        Sum::parse(&received.text).as_ref() == served.first(),
        "the stream to the guest: {} of {served:?}",
        received.text
    );
    for (what, seed, sum) in [("to", 10, &served[0]), ("from", 11, &taken[0])] {
        ensure!(sum.bytes >= MIB, "only {} bytes passed {what} the guest meanwhile", sum.bytes);
        ensure!(*sum == Sum::of_pattern(seed, sum.bytes), "the stream {what} the guest is not what was sent");
    }
    lab.step(&format!(
        "other contexts: {} bytes in and {} bytes out meanwhile, exact",
        served[0].bytes, taken[0].bytes
    ));

    // Contexts that the fuzzer asked for are free again when their leases are over.
    crate::host::wait_for("a new context on the card", Duration::from_secs(60), || {
        Ok(card_send(lab, PEER_V4, MIB).ok())
    })?;
    works(lab)
}

/// A NIC that works: ping, a kernel connection and a card connection.
fn works(lab: &Lab) -> Result<()> {
    let guest = lab.guest()?;
    guest.check(&format!("ping -c 2 -W 5 {PEER_V4}"))?;
    let server = peers::http(&lab.namespace, PEER_V4, 1)?;
    let text = guest.check(&format!("wget -q -O - http://{}/3/{MIB} | toe-peer sum", server.address))?;
    ensure!(Sum::parse(&text) == Some(Sum::of_pattern(3, MIB)), "the kernel fetched: {text}");
    server.join()?;
    card_send(lab, PEER_V4, MIB)?;
    card_fetch(lab, PEER_V6, MIB)
}

/// What `toe hold --json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Connections on the card.
    pub on_card: u64,
    /// Connections of the guest's kernel.
    pub on_kernel: u64,
    /// Why, as the program named it.
    pub reasons: String,
}

impl Held {
    fn parse(text: &str) -> Result<Self> {
        let json: serde_json::Value = serde_json::from_str(text).with_context(|| format!("toe hold said: {text}"))?;
        Ok(Self {
            on_card: json["card"].as_u64().with_context(|| format!("no `card` in {text}"))?,
            on_kernel: json["kernel"].as_u64().with_context(|| format!("no `kernel` in {text}"))?,
            reasons: json["kernel_by_reason"].to_string(),
        })
    }
}

/// Names and capacities of pools.
fn pools(limits: &serde_json::Value) -> Vec<(String, u64)> {
    let rows = limits.as_array().or_else(|| limits["pools"].as_array());
    let row = |row: &serde_json::Value| Some((row["name"].as_str()?.to_owned(), row["capacity"].as_u64()?));
    rows.into_iter().flatten().filter_map(row).collect()
}

/// Whether `toe nc -v` says that its connection is the card's.
fn on_card(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("connected ") && line.ends_with("(card)"))
}

/// Waits until `toe nc -v`, whose standard error goes to that file, is connected on the card.
fn wait_until_on_card(guest: &Guest, file: &str) -> Result<()> {
    crate::host::wait_for("a connection on the card", TRANSFER, || {
        Ok(on_card(&guest.run(&format!("cat {file}"))?.text).then_some(()))
    })
}

/// Waits until `toe nc -v -l`, whose standard error goes to that file, says that it listens.
fn wait_for_listener(guest: &Guest, file: &str) -> Result<()> {
    crate::host::wait_for("the listener in the guest", Duration::from_secs(30), || {
        let text = guest.run(&format!("cat {file} 2>/dev/null"))?.text;
        Ok(text.to_lowercase().contains("listen").then_some(()))
    })
    .context("toe nc -l")
}

//! What must hold, independent of what the guest runs on.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bytes::Sum;
use crate::net::{GUEST_V4, GUEST_V6, PEER_V4, PEER_V6};
use crate::{Guest, Lab, peers};

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
    guest.check_for(&format!("toe-peer gen 1 {bytes} | nc {ip} {port}"), TRANSFER)?;
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
    let (ip, port) = (peer, server.address.port());
    let request = format!("printf 'GET /4/{bytes} HTTP/1.0\\r\\n\\r\\n'");
    let text = lab
        .guest()?
        .check_for(&format!("{request} | toe nc -v {ip} {port} 2>/tmp/fetch.err | toe-peer sum --http"), TRANSFER)?;
    let said = lab.guest()?.check("cat /tmp/fetch.err")?;
    ensure!(on_card(&said), "the connection was not the card's: {said}");
    ensure!(
        Sum::parse(&text) == Some(Sum::of_pattern(4, bytes)),
        "what the guest fetched is not what was served: {text} {said}"
    );
    server.join()?;
    lab.step(&format!("card connection to {peer}: {bytes} bytes fetched by HTTP"));
    Ok(())
}

/// A listener on the card accepts; bytes pass both ways at once, each end closing when it has said all.
///
/// # Errors
/// As above.
pub fn card_accept(lab: &Lab, guest_ip: IpAddr, bytes: u64) -> Result<()> {
    let guest = lab.guest()?;
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

/// Whether `toe nc -v` says that its connection is the card's.
fn on_card(text: &str) -> bool {
    text.lines().any(|line| line.to_lowercase().contains("card"))
}

/// Waits until `toe nc -v -l`, whose standard error goes to that file, says that it listens.
fn wait_for_listener(guest: &Guest, file: &str) -> Result<()> {
    crate::host::wait_for("the listener in the guest", Duration::from_secs(30), || {
        let text = guest.run(&format!("cat {file}"))?.text;
        Ok(text.to_lowercase().contains("listen").then_some(()))
    })
    .context("toe nc -l")
}

/// All of these that need nothing but a guest on the default card.
///
/// # Errors
/// The first that does not hold.
pub fn core(lab: &Lab) -> Result<()> {
    ping(lab)?;
    for (peer, guest) in [(PEER_V4, GUEST_V4), (PEER_V6, GUEST_V6)] {
        kernel_tcp(lab, peer)?;
        card_send(lab, peer, 16 * MIB)?;
        card_fetch(lab, peer, 16 * MIB)?;
        card_accept(lab, guest, 4 * MIB)?;
        half_close(lab, peer)?;
        refused(lab, peer)?;
    }
    Ok(())
}

//! Debian's unmodified kernel in stock QEMU.

use std::time::Duration;

use anyhow::Result;
use toe_guest_tests::net::{GUEST_V4, GUEST_V6, PEER_V4, PEER_V6};
use toe_guest_tests::{CardOptions, Kind, Lab, LabOptions, Nic, scenarios};

const BYTES: u64 = 16 << 20;

fn guest(name: &str) -> LabOptions {
    LabOptions::new(&format!("qemu-{name}"), Kind::Qemu)
}

/// When this fails, look here first: it is not the card.
#[test]
fn the_harness_works_without_the_card() -> Result<()> {
    let options = LabOptions { nic: Nic::QemuOwn, ..guest("harness") };
    Lab::run(options, |lab| {
        scenarios::ping(lab)?;
        scenarios::kernel_tcp(lab, PEER_V4)
    })
}

#[test]
fn boots_and_pings() -> Result<()> {
    Lab::run(guest("ping"), |lab| scenarios::ping(lab))
}

#[test]
fn kernel_tcp_with_offloads_over_ipv4() -> Result<()> {
    Lab::run(guest("kernel-ipv4"), |lab| scenarios::kernel_tcp(lab, PEER_V4))
}

#[test]
fn kernel_tcp_with_offloads_over_ipv6() -> Result<()> {
    Lab::run(guest("kernel-ipv6"), |lab| scenarios::kernel_tcp(lab, PEER_V6))
}

#[test]
fn mtu_65535() -> Result<()> {
    // 65,521 is the most that a TAP takes.
    let options = LabOptions { guest_mtu: 65_535, wire_mtu: 65_521, ..guest("mtu") };
    Lab::run(options, |lab| scenarios::largest_mtu(lab))
}

#[test]
fn several_queue_pairs() -> Result<()> {
    Lab::run(guest("queues"), |lab| scenarios::queue_pairs(lab))
}

#[test]
fn one_queue_pair() -> Result<()> {
    let nic = Nic::Card(CardOptions { queue_pairs: 1, ..CardOptions::default() });
    Lab::run(LabOptions { nic, ..guest("one-queue") }, |lab| scenarios::all_at_once(lab))
}

#[test]
fn card_connection_sends_byte_for_byte() -> Result<()> {
    Lab::run(guest("send"), |lab| {
        scenarios::card_send(lab, PEER_V4, BYTES)?;
        scenarios::card_send(lab, PEER_V6, BYTES)
    })
}

#[test]
fn card_connection_fetches_byte_for_byte() -> Result<()> {
    Lab::run(guest("fetch"), |lab| {
        scenarios::card_fetch(lab, PEER_V4, BYTES)?;
        scenarios::card_fetch(lab, PEER_V6, BYTES)
    })
}

#[test]
fn card_listener_accepts() -> Result<()> {
    Lab::run(guest("accept"), |lab| {
        scenarios::card_accept(lab, GUEST_V4, BYTES)?;
        scenarios::card_accept(lab, GUEST_V6, BYTES)
    })
}

#[test]
fn payload_passes_through_huge_pages() -> Result<()> {
    Lab::run(guest("shared-rings").long_frames().shared_rings(), |lab| scenarios::shared_rings(lab, PEER_V4, BYTES))
}

#[test]
fn half_close_keeps_the_other_half() -> Result<()> {
    Lab::run(guest("half-close"), |lab| scenarios::half_close(lab, PEER_V4))
}

#[test]
fn closed_port_is_refused() -> Result<()> {
    Lab::run(guest("refused"), |lab| {
        scenarios::refused(lab, PEER_V4)?;
        scenarios::refused(lab, PEER_V6)
    })
}

#[test]
fn card_kernel_and_ping_at_once() -> Result<()> {
    Lab::run(guest("at-once"), |lab| scenarios::all_at_once(lab))
}

#[test]
fn tiny_card_falls_back() -> Result<()> {
    Lab::run(guest("tiny").profile("tiny"), |lab| scenarios::fall_back(lab).map(drop))
}

#[test]
fn full_card_that_denies_tells_at_once() -> Result<()> {
    Lab::run(guest("deny").profile("w5500"), scenarios::deny)
}

#[test]
fn management_answers_like_the_channel() -> Result<()> {
    Lab::run(guest("management"), scenarios::management)
}

#[test]
fn frontend_goes_away_and_comes_back() -> Result<()> {
    Lab::run(guest("frontend"), scenarios::frontend_returns)
}

#[test]
fn card_is_killed_under_traffic_and_started_again() -> Result<()> {
    Lab::run(guest("killed"), scenarios::card_returns)
}

/// `scripts/fuzz-guest` runs it with a million frames.
#[test]
fn hostile_guest_harms_nobody_else() -> Result<()> {
    let number = |name: &str, otherwise| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text}; allowed: a number")),
        Err(_) => otherwise,
    };
    let (frames, seed) = (number("TOE_FUZZ_FRAMES", 100_000), number("TOE_FUZZ_SEED", 1));
    // A millisecond for each frame is what an emulated processor takes; the machine may have other work.
    let limit = Duration::from_secs(300) + Duration::from_millis(4 * frames);
    Lab::run(LabOptions { limit, ..guest("hostile") }, |lab| scenarios::hostile(lab, frames, seed))
}

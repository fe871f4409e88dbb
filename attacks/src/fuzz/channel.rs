//! Channel frames that no honest guest would say, beside an honest context whose connections move data.
//!
//! It is the attack `hostile-guest` at any length: what is counted is messages, not frames, and what must hold is that every byte
//! of the honest connections is right, that none of them breaks, and that their context hears no error.

use std::fmt;

use anyhow::{Result, ensure};
use toe_abi::{FRAME_BYTES_MAX, Mac};
use toe_guest_tests::fuzz::Fuzzer;

use super::memory::Fickle;
use crate::frames::GUEST_MAC;
use crate::lab::{Lab, standard_card};

/// Honest connections, half of them in each direction.
const HONEST: usize = 4;
/// Frames between two looks at the rest of the world, and how long it has meanwhile, in microseconds.
const BURST: u64 = 256;
const BURST_US: u64 = 250;

/// What came of the frames.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Found {
    /// Frames said.
    pub frames: u64,
    /// Messages in them, as the card counted them: read, or refused.
    pub messages: u64,
    /// Of these, refused.
    pub refused: u64,
    /// Frames dropped as a whole.
    pub dropped: u64,
    /// Rings that the card agreed to, and those that it forgot again.
    pub rings: [u64; 2],
    /// Bytes of the honest connections, all of them right.
    pub honest_bytes: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, messages, refused, dropped, rings: [named, lost], honest_bytes } = self;
        write!(f, "{messages} messages ({refused} refused) in {frames} frames ({dropped} dropped), ")?;
        write!(f, "{named} rings agreed to and {lost} forgotten, beside ")?;
        write!(f, "{honest_bytes} honest bytes")
    }
}

/// Says frames until the card has counted `count` messages.
///
/// # Errors
/// An honest connection broke, got a wrong byte or an error, or stood still.
pub fn run(seed: u64, count: u64) -> Result<Found> {
    let mut lab = Lab::new(&standard_card(), seed);
    // What the hostile one names as its rings is there, elsewhere, or gone meanwhile.
    lab.card.firmware.share(Box::<Fickle>::default());
    let honest: Vec<usize> = (0..HONEST).map(|i| lab.bulk(i % 2 == 0)).collect();
    let until_us = lab.now_us + 1_000_000;
    lab.run(until_us, None);
    let mut fuzzer = Fuzzer::new(seed, Mac(GUEST_MAC), 9000);
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut found = Found::default();
    let refusals = [
        "channel-malformed",
        "channel-unknown-message",
        "channel-unknown-object",
        "channel-wrong-state",
        "channel-offset",
    ];
    let mut own = lab.card.counter("channel-messages");
    while found.messages < count {
        for frame in std::mem::take(&mut lab.to_other_guests) {
            fuzzer.learn(&frame);
        }
        for _ in 0..BURST {
            let length = if fuzzer.has_context() { fuzzer.next_frame(&mut buffer) } else { fuzzer.hello(&mut buffer) };
            lab.say(&buffer[..length]);
        }
        found.frames += BURST;
        let before = lab.card.counter("channel-messages");
        let until_us = lab.now_us + BURST_US;
        lab.run(until_us, None);
        // Those of the honest context do not count.
        own += lab.card.counter("channel-messages") - before;
        found.messages = lab.card.counter("channel-messages") + lab.card.counter("channel-malformed") - own;
        if found.frames.is_multiple_of(BURST * 4096) {
            check(&lab, &honest)?;
        }
    }
    check(&lab, &honest)?;
    found.refused = refusals.iter().map(|name| lab.card.counter(name)).sum();
    found.dropped = lab.card.firmware.counters().filter(|c| c.name.starts_with("guest-drop-")).map(|c| c.value).sum();
    found.rings = ["rings-named", "rings-lost"].map(|name| lab.card.counter(name));
    found.honest_bytes = lab.world.program.conns.iter().map(|c| c.received + c.sent).sum();
    Ok(found)
}

fn check(lab: &Lab, honest: &[usize]) -> Result<()> {
    let world = &lab.world.program;
    let wrong = world.wrong_bytes + lab.card.program.wrong_bytes;
    ensure!(wrong == 0, "{wrong} wrong bytes");
    ensure!(lab.card.program.errors == 0, "the honest context got {} errors", lab.card.program.errors);
    for at in honest {
        let conn = &world.conns[*at];
        ensure!(conn.broken.is_none(), "an honest connection broke: {:?}", conn.broken);
        let moved = conn.sent + conn.received;
        let seconds = (lab.now_us - conn.began_us) / 1_000_000;
        ensure!(moved >= seconds * 1000, "an honest connection moved {moved} bytes in {seconds} s");
    }
    Ok(())
}

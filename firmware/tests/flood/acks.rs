//! Random ACKs at a listener that answers with cookies: how many are taken for echoes.

use toe_abi::Endpoint;
use toe_firmware::{Checksum, Firmware, Instant, SynCookies, Verdict};
use toe_impair::Random;

use crate::guest::Guest;
use crate::peer::{ACK, LOCAL, SYN, Said, frame};
use crate::tallies::{count, is_balanced};
use crate::{is_long, standard_card};

/// Of 2^32 numbers those of two epochs and eight sizes are taken: a guess is right once in 2^28.
const STRENGTH_BITS: u32 = 28;

#[test]
fn guesses_are_taken_no_more_often_than_the_cookies_strength_says() {
    let guesses = if is_long() { 10_000_000u64 } else { 100_000 };
    let mut profile = standard_card();
    profile.tcp.syn_cookies = SynCookies::Always;
    let mut firmware = Firmware::new(&profile, [11; 32], 1, Instant::from_us(0)).unwrap();
    // Into the third epoch, so that two are good.
    let mut now_us = 200_000_000;
    let local = Endpoint::new(LOCAL.0.into(), LOCAL.1);
    let mut guest = Guest::new(&mut firmware, Instant::from_us(now_us), local, 1024);
    let mut random = Random::new(17);
    let (mut buffer, mut out) = (Vec::new(), vec![0; 65_549]);
    let mut taken = 0;
    for n in 0..guesses {
        now_us += 1;
        let now = Instant::from_us(now_us);
        if n % 1_000_000 == 0 {
            // The listener is kept looking.
            frame(&Said { remote: 0x0101_0101, port: 9, flags: SYN, ..Said::default() }, &mut buffer);
            assert_eq!(firmware.handle_wire(now, &buffer, Checksum::Trusted), Verdict::Taken);
            assert!(firmware.poll_wire(now, &mut out).is_some());
        }
        let (a, b) = (random.bits(), random.bits());
        // Half of them from one peer, half from all over.
        let remote = if n % 2 == 0 { 0x0102_0304 } else { 0x0100_0000 + (a as u32 % 0x6000_0000) };
        let said = Said {
            remote,
            port: (a >> 32) as u16 | 1,
            seq: b as u32,
            ack: (b >> 32) as u32,
            flags: ACK,
            ..Said::default()
        };
        frame(&said, &mut buffer);
        match firmware.handle_wire(now, &buffer, Checksum::Trusted) {
            Verdict::PassOn => {}
            Verdict::Taken => taken += 1,
            Verdict::Wait(_) => unreachable!("the processor is unlimited"),
        }
        if n % 1024 == 0 {
            guest.serve(&mut firmware, now);
        }
    }
    let expected_per_mille = (guesses * 1000) >> STRENGTH_BITS;
    println!(
        "{guesses} random ACKs: {taken} taken; expected {}.{:03} at {STRENGTH_BITS} bits",
        expected_per_mille / 1000,
        expected_per_mille % 1000
    );
    assert_eq!(count(&firmware, "tcp-syn-cookies-wrong") + taken, guesses);
    // More than one has a probability of less than a thousandth even in the long run.
    assert!(taken <= 1, "{taken}");
    assert!(is_balanced(&firmware));
}

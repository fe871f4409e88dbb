//! Input that no TCP should send, kind by kind: each is counted by its own name, and afterwards the connection is what
//! it was: it takes the next segment, answers it, and holds the same memory.

use crate::engine::Verdict;
use crate::testing::{Bench, repair, repair_header};

/// How a good frame is made bad.
type Damage = fn(&mut Vec<u8>);

/// One kind of bad input: its name, what is done to `"PA 1:11 ack 1"` over IPv4, its counter, and whether the guest's
/// kernel gets it.
const KINDS: [(&str, Damage, &str, Verdict); 26] = [
    ("no Ethernet header", |f| f.truncate(13), "wire-drop-runt", Verdict::Taken),
    ("no IP header", |f| f.truncate(14 + 19), "wire-passed-malformed", Verdict::PassOn),
    ("IP version 5", |f| patch_ip(f, 0, 0x55), "wire-passed-malformed", Verdict::PassOn),
    ("IP header of 16 octets", |f| patch_ip(f, 0, 0x44), "wire-passed-malformed", Verdict::PassOn),
    ("IP length below its header", |f| patch_ip(f, 3, 19), "wire-passed-malformed", Verdict::PassOn),
    ("IP length beyond the frame", |f| patch_ip(f, 3, 200), "wire-passed-malformed", Verdict::PassOn),
    ("IP header checksum", |f| f[24] ^= 1, "wire-passed-malformed", Verdict::PassOn),
    ("first fragment", |f| patch_ip(f, 6, 0x20), "wire-drop-fragment", Verdict::Taken),
    ("later fragment", |f| patch_ip(f, 7, 3), "wire-passed-fragment", Verdict::PassOn),
    ("last fragment", |f| patch_ip(f, 6, 1), "wire-passed-fragment", Verdict::PassOn),
    ("TCP header cut", |f| patch_ip(f, 3, 39), "wire-drop-malformed", Verdict::Taken),
    ("data offset 0", |f| patch_tcp(f, 12, 0x00), "wire-drop-data-offset", Verdict::Taken),
    ("data offset 4", |f| patch_tcp(f, 12, 0x40), "wire-drop-data-offset", Verdict::Taken),
    ("data offset beyond the end", |f| patch_tcp(f, 12, 0xf0), "wire-drop-data-offset", Verdict::Taken),
    ("checksum", |f| f[50] ^= 1, "wire-drop-checksum", Verdict::Taken),
    ("checksum of zero", |f| f[50..52].fill(0), "wire-drop-checksum", Verdict::Taken),
    ("SYN and FIN", |f| patch_tcp(f, 13, 0x03), "tcp-flags-contradict", Verdict::Taken),
    ("SYN, FIN and ACK", |f| patch_tcp(f, 13, 0x13), "tcp-flags-contradict", Verdict::Taken),
    (
        "SYN and RST beside the next number",
        |f| {
            f[41] ^= 0x40;
            patch_tcp(f, 13, 0x06);
        },
        "tcp-flags-contradict",
        Verdict::Taken,
    ),
    (
        "all flags beside the next number",
        |f| {
            f[41] ^= 0x40;
            patch_tcp(f, 13, 0xff);
        },
        "tcp-flags-contradict",
        Verdict::Taken,
    ),
    ("no flags", |f| patch_tcp(f, 13, 0), "tcp-flags-none", Verdict::Taken),
    ("only PSH and URG", |f| patch_tcp(f, 13, 0x28), "tcp-flags-none", Verdict::Taken),
    ("to a group of stations", |f| f[0] |= 1, "wire-passed-group", Verdict::PassOn),
    ("to every station", |f| f[..6].fill(0xff), "wire-passed-group", Verdict::PassOn),
    ("a channel frame", |f| f[12..14].copy_from_slice(&[0x88, 0xb5]), "wire-drop-channel", Verdict::Taken),
    ("no ACK", |f| patch_tcp(f, 13, 0x08), "tcp-no-ack", Verdict::Taken),
];

/// Sets an octet of the IPv4 header, its checksum right.
fn patch_ip(frame: &mut [u8], at: usize, octet: u8) {
    frame[14 + at] = octet;
    repair_header(frame);
    if at == 3 {
        // The segment ends where IP says.
        let end = 14 + usize::from(octet).clamp(38, frame.len() - 14);
        repair(&mut frame[..end.max(54)]);
    }
}

/// Sets an octet of the TCP header, its checksum right.
fn patch_tcp(frame: &mut [u8], at: usize, octet: u8) {
    frame[34 + at] = octet;
    repair(frame);
}

#[test]
fn each_kind_is_counted_by_name_and_changes_nothing() {
    for (name, damage, counter, verdict) in KINDS {
        let mut b = Bench::established();
        let held = |b: &Bench| ["connections", "receive-pages", "send-pages", "transmit-records"].map(|p| b.in_use(p));
        let before = (b.bits, held(&b), b.count(counter));
        let mut frame = b.frame("PA 1:11 ack 1");
        damage(&mut frame);
        assert_eq!(b.deliver(&frame), verdict, "{name}");
        assert_eq!((b.bits, held(&b), b.count(counter)), (before.0, before.1, before.2 + 1), "{name}");
        b.received(0);
        // At most a challenge.
        while let Some(answer) = b.next() {
            assert!(answer.starts_with("A 1:1 ack 1 "), "{name}: {answer}");
        }
        b.peer("PA 1:11 ack 1");
        b.received(10);
        b.send(10);
        b.expect("PA 1:11 ack 11");
        assert_eq!(b.count("wire-in"), b.accounted(), "{name}");
    }
}

#[test]
fn every_set_of_flags_is_harmless_beside_the_window() {
    let mut b = Bench::established();
    for flags in 0..=255 {
        for offset in [0u8, 0x80] {
            let mut frame = b.frame("A 1 ack 1");
            // Far ahead of the window, or far behind it.
            frame[38] = frame[38].wrapping_add(0x30 + offset);
            patch_tcp(&mut frame, 13, flags);
            let _ = b.deliver(&frame);
            while let Some(answer) = b.next() {
                assert!(answer.starts_with("A 1:1 ack 1 "), "{flags:#x}: {answer}");
            }
        }
    }
    assert_eq!(b.bits, toe_abi::state::ESTABLISHED);
    b.peer("PA 1:11 ack 1");
    b.received(10);
}

#[test]
fn every_set_of_flags_is_harmless_to_a_listener() {
    for flags in 0..=255u8 {
        let mut b = Bench::new();
        b.listen();
        let mut frame = b.frame("S 0");
        patch_tcp(&mut frame, 13, flags);
        let verdict = b.deliver(&frame);
        // Only a SYN without FIN, RST and ACK begins something.
        let begins = flags & 0x17 == 2;
        assert_eq!((verdict == Verdict::Taken, b.in_use("half-open") == 1), (begins, begins), "{flags:#x}");
        if !begins {
            b.nothing();
        }
    }
}

#[test]
fn behind_extension_headers_a_segment_is_found_or_left_to_the_kernel() {
    // Destination options are passed over; what changes a packet's meaning is not.
    for (next, counter) in
        [(60, None), (0, None), (51, Some("wire-passed-extension")), (135, Some("wire-passed-extension"))]
    {
        let mut b = Bench::over_ipv6();
        b.listen();
        let syn = b.frame("S 0");
        let mut frame = syn[..54].to_vec();
        frame[20] = next;
        let bytes = (syn.len() - 54 + 8) as u16;
        frame[18..20].copy_from_slice(&bytes.to_be_bytes());
        frame.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        frame.extend(&syn[54..]);
        let verdict = b.deliver(&frame);
        match counter {
            None => {
                assert_eq!(verdict, Verdict::Taken);
                b.expect("SA 0 ack 1");
            }
            Some(counter) => {
                assert_eq!((verdict, b.count(counter)), (Verdict::PassOn, 1));
                b.nothing();
            }
        }
    }
}

#[test]
fn a_connection_survives_any_frame() {
    // From a fixed seed, so that a failure is one that can be looked at.
    let mut random = 0x1234_5678_9abc_def1u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut b = Bench::established_sack();
    let texts = ["A 1 ack 1", "PA 1:11 ack 1", "A 1001:2001 ack 1 <sack 2:3>", "FA 1 ack 1", "S 0 <mss 1000, ws 3>"];
    for round in 0..20_000u64 {
        let mut frame = b.frame(texts[(next() % 5) as usize]);
        // Keep the numbers out of the window, so that all that may change is what must not.
        frame[38] = frame[38].wrapping_add(0x40);
        for _ in 0..1 + next() % 4 {
            let at = 26 + (next() as usize) % (frame.len() - 26);
            if !(26..42).contains(&at) {
                frame[at] = next() as u8;
            }
        }
        if next() % 8 == 0 {
            frame.truncate((next() as usize) % frame.len());
        }
        if frame.len() > 54 && next() % 4 != 0 {
            repair(&mut frame);
        }
        let _ = b.deliver(&frame);
        while b.next().is_some() {}
        assert_eq!(b.count("wire-in"), b.accounted(), "round {round}");
        assert_eq!(b.bits, toe_abi::state::ESTABLISHED, "round {round}");
        b.received(0);
    }
    b.peer("PA 1:11 ack 1");
    b.received(10);
}

//! Options of segments, and the size of segments.

use toe_abi::{flags, state};

use crate::testing::Bench;
use crate::wire::frame::Ethernet;
use crate::wire::ip;
use crate::wire::segment::{Flags, Segment};

//= docs/specs/rfc9293.txt#section-3.1
//= type=test
//# A TCP implementation MUST be able to receive a TCP Option in any segment (MUST-5).
#[test]
fn options_are_taken_in_any_segment() {
    let mut b = Bench::established_with(flags::NODELAY, "mss 1000, ts 10 1, sackOK");
    // Those of a SYN mean nothing elsewhere, and harm nobody.
    b.peer("PA 1:11 ack 1 <mss 100, ws 14, sackOK, ts 11 1>");
    b.received(10);
    b.wait_ms(100);
    let ack = b.next().unwrap();
    assert!(ack.contains("ack 11") && ack.contains(" 11>"), "{ack}");
    b.send(1000);
    // The MSS is still the SYN's, less the timestamps.
    b.expect("A 1:989");
    b.expect("PA 989:1001");
    b.peer("FA 11 ack 1001 <ts 12 1, sack 1:2>");
    assert_ne!(b.bits & state::PEER_CLOSED, 0);
}

//= docs/specs/rfc9293.txt#section-3.1
//= type=test
//# TCP implementations MUST be prepared to handle an illegal option length (e.g., zero); a suggested procedure is
//# to reset the connection and log the error cause (MUST-7).
//= docs/specs/rfc9293.txt#section-3.2
//= type=test
//# There is no guarantee that senders will use this option, so receivers MUST be prepared to process options even
//# if they do not begin on a word boundary (MUST-64).
#[test]
fn options_at_odd_places_and_of_illegal_length_are_survived_by_a_connection() {
    let mut b = Bench::established_with(flags::NODELAY, "mss 1000, ts 10 1");
    let frame = b.frame("PA 1:11 ack 1 <ts 11 1>");
    let with = |options: [u8; 12]| {
        let mut frame = frame.clone();
        frame[54..66].copy_from_slice(&options);
        crate::testing::repair(&mut frame);
        frame
    };
    // A timestamp at an odd offset.
    let [t0, t1, t2, t3] = 11u32.to_be_bytes();
    assert_eq!(b.deliver(&with([1, 8, 10, t0, t1, t2, t3, 0, 0, 0, 1, 1])), crate::Verdict::Taken);
    b.received(10);
    b.wait_ms(100);
    let ack = b.next().unwrap();
    assert!(ack.contains(" 11>"), "{ack}");
    // Lengths of 0, 1 and past the end, of known and unknown kinds: ignored from there on, and counted.
    let bad = [[8, 0], [8, 1], [8, 40], [253, 0], [253, 1], [253, 13], [2, 255]];
    for (i, [kind, length]) in bad.into_iter().enumerate() {
        assert_eq!(b.deliver(&with([kind, length, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])), crate::Verdict::Taken);
        assert_eq!(b.count("tcp-option-length"), i as u64 + 1);
    }
    assert_eq!(b.bits, state::ESTABLISHED);
    b.peer("PA 11:21 ack 1 <ts 12 1>");
    b.received(20);
}

//= docs/specs/rfc9293.txt#section-3.7.1
//= type=test
//= feature=IPv6
//# TCP implementations SHOULD send an MSS Option in every SYN segment when its receive MSS differs from the default
//# 536 for IPv4 or 1220 for IPv6 (SHLD-5)
//= docs/specs/rfc9293.txt#section-3.7.1
//= type=test
//= feature=IPv6
//# If an MSS Option is not received at connection setup, TCP implementations MUST assume a default send MSS of 536
//# (576 - 40) for IPv4 or 1220 (1280 - 60) for IPv6 (MUST-15).
#[test]
fn over_ipv6_the_mss_is_sent_and_1220_is_assumed() {
    let mut b = Bench::over_ipv6();
    b.connect(flags::NODELAY);
    b.expect("S 0 <mss 1440, sackOK>");
    b.peer("SA 0 ack 1");
    b.expect("A 1:1");
    b.send(3000);
    b.expect("A 1:1221");
    b.expect("A 1221:2441");
    let mut b = Bench::over_ipv6();
    b.listen();
    b.peer("S 0");
    b.expect("SA 0 <mss 1440>");
}

//= docs/specs/rfc9293.txt#section-3.7.1
//= type=test
//# MAY send it always (MAY-3).
#[test]
fn the_mss_is_sent_even_if_it_is_the_default() {
    for (mut b, mtu, mss) in [(Bench::new(), 576, 536), (Bench::over_ipv6(), 1280, 1220)] {
        b.mtu = mtu;
        b.connect(0);
        b.expect(&format!("S 0 <mss {mss}>"));
        b.remote.port += 1;
        b.another();
        b.listen();
        b.peer("S 0");
        b.expect(&format!("SA 0 <mss {mss}>"));
    }
}

//= docs/specs/rfc9293.txt#section-3.7.3
//= type=test
//# As a result, when the effective MTU of an interface varies packet-to-packet, TCP implementations SHOULD use the
//# smallest effective MTU of the interface to calculate the value to advertise in the MSS Option (SHLD-6).
//= docs/specs/rfc9293.txt#section-3.7.1
//= type=test
//# The MSS value to be sent in an MSS Option must be less than or equal to: MMS_R - 20 where MMS_R is the maximum
//# size for a transport-layer message that can be received (and reassembled at the IP layer) (MUST-67).
#[test]
fn the_mss_offered_follows_the_interface_and_never_exceeds_what_fits() {
    for (mtu, mss) in [(1500, 1460), (1400, 1360), (9000, 8960), (65_535, 65_495), (4_000_000, 65_495)] {
        let mut b = Bench::new();
        b.mtu = mtu;
        b.connect(0);
        b.expect(&format!("S 0 <mss {mss}>"));
    }
}

//= docs/specs/rfc9293.txt#section-3.7.1
//= type=test
//# The maximum size of a segment that a TCP endpoint really sends, the "effective send MSS", MUST be the smaller
//# (MUST-16) of the send MSS (that reflects the available reassembly buffer size at the remote host, the EMTU_R
//# [19]) and the largest transmission size permitted by the IP layer (EMTU_S [19])
#[test]
fn the_smaller_of_both_mss_is_sent_and_options_count() {
    for (mtu, options, text) in [
        (1500, "mss 1000", 1000),
        (900, "mss 1000", 860),
        (1500, "mss 1000, ts 1 0", 988),
        (1500, "mss 9000, ts 1 0", 1448),
    ] {
        let mut b = Bench::new();
        b.mtu = mtu;
        b.connect(flags::NODELAY);
        b.expect("S 0");
        b.peer(&format!("SA 0 ack 1 <{options}>"));
        b.expect("A 1:1");
        b.send(4000);
        b.expect(&format!("A 1:{}", text + 1));
    }
}

//= docs/specs/rfc9293.txt#section-3.2
//= type=test
//# This field may be sent in the initial connection request (i.e., in segments with the SYN control bit set) and
//# MUST NOT be sent in other segments (MUST-65).
#[test]
fn only_syns_carry_an_mss() {
    let mut b = Bench::established_with(flags::NODELAY, "mss 1000, ts 10 1, sackOK, ws 4");
    b.send(1500);
    b.peer("PA 1:11 ack 1 <ts 11 1>");
    b.peer("PA 21:31 ack 1 <ts 11 1>");
    b.wait_ms(1000);
    b.peer("A 11 ack 1501 <ts 12 1>");
    b.peer("S 11 <mss 1000>");
    b.shutdown();
    b.peer("FA 31 ack 1502 <ts 13 1>");
    b.abort();
    let frames: Vec<_> = std::iter::from_fn(|| b.next_frame()).collect();
    assert!(frames.len() >= 7);
    for frame in &frames {
        let (ethernet, packet) = Ethernet::split(frame).unwrap();
        let segment =
            Segment::parse(ip::find_tcp(ethernet.ethertype, packet).unwrap().tcp, &crate::work::Steps::default())
                .unwrap();
        assert!(!segment.flags.has(Flags::SYN));
        assert_eq!(
            (segment.options.mss, segment.options.window_scale, segment.options.sack_permitted),
            (None, None, false)
        );
    }
}

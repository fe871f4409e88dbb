//! Addresses that cannot be an end of a connection.

use std::net::IpAddr;

use toe_abi::Reason;

use crate::engine::Verdict;
use crate::testing::Bench;

const INVALID: [&str; 5] = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "239.255.255.250", "127.0.0.1"];
const INVALID_V6: [&str; 4] = ["ff02::1", "ff0e::1234", "::", "::1"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn refused(mut b: Bench, remote: &str) {
    b.remote.ip = ip(remote);
    b.connect(0);
    let said = b.messages.pop().unwrap_or_else(|| panic!("{remote} was not refused"));
    assert!(said.contains(&format!("reason: {}", Reason::AddressInvalid as u32)), "{remote}: {said}");
    b.nothing();
    assert_eq!(b.in_use("connections"), 0);
}

//= docs/specs/rfc9293.txt#section-3.9.1.1
//= type=test
//= feature=broadcast
//# A TCP implementation MUST reject as an error a local OPEN call for an invalid remote IP address (e.g., a
//# broadcast or multicast address) (MUST-46).
#[test]
fn an_open_to_a_broadcast_or_multicast_address_is_an_error() {
    for remote in ["255.255.255.255", "224.0.0.1", "239.255.255.250"] {
        refused(Bench::new(), remote);
    }
    for remote in ["ff02::1", "ff0e::1234"] {
        refused(Bench::over_ipv6(), remote);
    }
}

//= docs/specs/rfc9293.txt#section-3.9.1.1
//= type=test
//= feature=invalid
//# A TCP implementation MUST reject as an error a local OPEN call for an invalid remote IP address (e.g., a
//# broadcast or multicast address) (MUST-46).
#[test]
fn an_open_to_an_address_that_is_nobodys_is_an_error() {
    for remote in INVALID {
        refused(Bench::new(), remote);
    }
    for remote in INVALID_V6 {
        refused(Bench::over_ipv6(), remote);
    }
    // Of the other family, and to ourselves.
    refused(Bench::new(), "2001:db8::1");
    let mut b = Bench::new();
    b.remote = b.local;
    refused(b, "192.0.2.2");
}

//= docs/specs/rfc9293.txt#section-3.9.2.3
//= type=test
//# An incoming SYN with an invalid source address MUST be ignored either by TCP or by the IP layer [(MUST-63)]
#[test]
fn a_syn_from_an_address_that_is_nobodys_is_ignored() {
    for (make, sources) in [(Bench::new as fn() -> Bench, &INVALID[..]), (Bench::over_ipv6, &INVALID_V6[..])] {
        for source in sources {
            let mut b = make();
            b.listen();
            b.remote.ip = ip(source);
            b.peer_passes("S 0");
            assert_eq!((b.in_use("half-open"), b.count("wire-passed-address")), (0, 1), "{source}");
        }
    }
}

//= docs/specs/rfc9293.txt#section-3.9.2.3
//= type=test
//= feature=SYN
//# A TCP implementation MUST silently discard an incoming SYN segment that is addressed to a broadcast or multicast
//# address [(MUST-57)].
#[test]
fn a_syn_to_a_broadcast_or_multicast_address_is_ignored_in_silence() {
    for (make, addresses) in [(Bench::new as fn() -> Bench, &INVALID[1..4]), (Bench::over_ipv6, &INVALID_V6[..2])] {
        for address in addresses {
            let mut b = make();
            b.local.ip = if b.local.ip.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
            b.addresses(&[ip(address)]);
            b.listen();
            b.local.ip = ip(address);
            b.peer_passes("S 0");
            assert_eq!((b.in_use("half-open"), b.count("wire-passed-address")), (0, 1), "{address}");
        }
    }
    // An address of ours in a frame to everyone on the link.
    let mut b = Bench::new();
    b.listen();
    let mut frame = b.frame("S 0");
    frame[..6].fill(0xff);
    assert_eq!(b.deliver(&frame), Verdict::PassOn);
    b.nothing();
    assert_eq!((b.in_use("half-open"), b.count("wire-passed-group")), (0, 1));
}

//= docs/specs/rfc9293.txt#section-3.9.2.3
//= type=test
//= feature=segment
//# A TCP implementation MUST silently discard an incoming SYN segment that is addressed to a broadcast or multicast
//# address [(MUST-57)].
#[test]
fn a_segment_to_everyone_on_the_link_is_ignored_in_silence_by_a_connection() {
    let mut b = Bench::established();
    for text in ["R 1", "PA 1:11 ack 1", "S 1", "A 1 ack 5000"] {
        let mut frame = b.frame(text);
        frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
        assert_eq!(b.deliver(&frame), Verdict::PassOn);
        b.nothing();
    }
    b.received(0);
    assert_eq!((b.bits, b.count("wire-passed-group")), (toe_abi::state::ESTABLISHED, 4));
}

#[test]
fn land_is_for_nobody() {
    // A SYN from the address and port that it goes to, at a listener of them: it would answer itself for ever.
    let mut b = Bench::new();
    b.listen();
    b.remote = b.local;
    b.peer_passes("S 0");
    assert_eq!((b.in_use("half-open"), b.count("wire-passed-land")), (0, 1));
}

//! The parsers are total: every short input is tried, and what they say of it compared with a slower description of the
//! same rules; what is longer is tried at random.

use std::net::IpAddr;

use proptest::prelude::*;

use super::checksum::Sum;
use super::frame::Ethernet;
use super::ip::{ETHERTYPE_V4, ETHERTYPE_V6, Foreign, Header, find_tcp};
use super::options::{Cookie, OPTION_BYTES_MAX, Options, SackBlocks, Timestamps};
use super::segment::{Malformed, Segment, TCP_HEADER_BYTES, ports};
use crate::seq::Seq;

/// The options of a list as (kind, body), up to its end or the first illegal length; and whether there was one.
fn listed(b: &[u8]) -> (Vec<(u8, &[u8])>, bool) {
    match b {
        [] | [0, ..] => (Vec::new(), true),
        [1, rest @ ..] => listed(rest),
        [_] | [_, 0 | 1, ..] => (Vec::new(), false),
        [_, length, ..] if usize::from(*length) > b.len() => (Vec::new(), false),
        [kind, length, ..] => {
            let (option, rest) = b.split_at(usize::from(*length));
            let (mut all, legal) = listed(rest);
            all.insert(0, (*kind, &option[2..]));
            (all, legal)
        }
    }
}

fn compare(b: &[u8]) {
    let (options, legal) = Options::parse(b, &crate::work::Steps::default());
    let (list, list_legal) = listed(b);
    assert_eq!(legal, list_legal, "{b:?}");
    let last = |kind, lengths: &[usize]| {
        list.iter().rev().find(|(k, body)| *k == kind && lengths.contains(&body.len())).map(|(_, body)| *body)
    };
    assert_eq!(options.mss, last(2, &[2]).map(|b| u16::from_be_bytes([b[0], b[1]])), "{b:?}");
    assert_eq!(options.window_scale, last(3, &[1]).map(|b| b[0]), "{b:?}");
    assert_eq!(options.sack_permitted, last(4, &[0]).is_some(), "{b:?}");
    let word = |b: &[u8], at: usize| u32::from_be_bytes(b[at..at + 4].try_into().unwrap());
    assert_eq!(options.timestamps, last(8, &[8]).map(|b| Timestamps { value: word(b, 0), echo: word(b, 4) }), "{b:?}");
    let blocks: Vec<_> = last(5, &[8, 16, 24, 32])
        .map(|b| b.chunks(8).map(|c| (Seq(word(c, 0)), Seq(word(c, 4)))).collect())
        .unwrap_or_default();
    assert_eq!(options.sack.as_slice(), blocks, "{b:?}");
}

/// Every string of `length` symbols.
fn strings(symbols: &[u8], length: usize, mut f: impl FnMut(&[u8])) {
    let mut places = vec![0; length];
    let mut string = vec![symbols[0]; length];
    loop {
        f(&string);
        let Some(at) = (0..length).rev().find(|i| places[*i] + 1 < symbols.len()) else { return };
        places[at] += 1;
        string[at] = symbols[places[at]];
        for i in at + 1..length {
            (places[i], string[i]) = (0, symbols[0]);
        }
    }
}

//= docs/specs/rfc9293.txt#section-3.1
//= type=test
//# TCP implementations MUST be prepared to handle an illegal option length (e.g., zero); a suggested procedure is
//# to reset the connection and log the error cause (MUST-7).
#[test]
fn every_list_of_options_up_to_three_octets_is_read() {
    let all: Vec<u8> = (0..=255).collect();
    for length in 0..=2 {
        strings(&all, length, compare);
    }
    // Of three octets without the comparison's memory: the first two decide, the third is a body or begins anew.
    strings(&all, 3, |b| {
        let (options, legal) = Options::parse(b, &crate::work::Steps::default());
        let first = match b {
            [0, ..] => true,
            [1, rest @ ..] => Options::parse(rest, &crate::work::Steps::default()).1,
            [_, 2, last] => matches!(last, 0 | 1),
            [_, 3, _] => true,
            _ => false,
        };
        assert_eq!(legal, first, "{b:?}");
        assert_eq!(options.window_scale, matches!(b, [3, 3, _]).then_some(b[2]), "{b:?}");
    });
}

#[test]
fn every_list_of_telling_octets_up_to_seven_is_read() {
    // Every kind that is known, one that is not, and the lengths at every edge.
    let telling = [0, 1, 2, 3, 4, 5, 8, 10, 253];
    for length in 4..=6 {
        strings(&telling, length, compare);
    }
    strings(&[0, 1, 2, 4, 5, 8, 255], 7, compare);
}

#[test]
fn every_known_option_is_read_at_every_place_and_with_every_length() {
    for place in 0..=OPTION_BYTES_MAX {
        for kind in 0..=255 {
            for length in 0..=255 {
                let mut b = [1; OPTION_BYTES_MAX];
                if let Some(slot) = b.get_mut(place) {
                    *slot = kind;
                }
                if let Some(slot) = b.get_mut(place + 1) {
                    *slot = length;
                }
                if matches!(kind, 2..=5 | 8) || length < 3 {
                    compare(&b);
                } else {
                    let _ = Options::parse(&b, &crate::work::Steps::default());
                }
            }
        }
    }
}

//= docs/specs/rfc9293.txt#section-3.1
//= type=test
//# All TCP Options except End of Option List Option (EOL) and No-Operation (NOP) MUST have length fields, including
//# all future options (MUST-68).
//= docs/specs/rfc9293.txt#section-3.1
//= type=test
//# The content of the header beyond the End of Option List Option MUST be header padding of zeros (MUST-69).
#[test]
fn every_combination_that_is_written_has_lengths_fills_words_and_needs_no_padding() {
    for choice in 0..64u8 {
        for blocks in 0..=4 {
            let mut sack = SackBlocks::default();
            (0..blocks).for_each(|i| sack.push(Seq(i), Seq(i + 1)));
            let options = Options {
                mss: (choice & 1 != 0).then_some(1460),
                window_scale: (choice & 2 != 0).then_some(7),
                sack_permitted: choice & 4 != 0,
                timestamps: (choice & 8 != 0).then_some(Timestamps { value: 1, echo: 2 }),
                user_timeout: (choice & 16 != 0).then_some(300),
                fast_open: Cookie::new(&[9; 8]).filter(|_| choice & 32 != 0),
                sack,
            };
            let mut b = [0xee; OPTION_BYTES_MAX];
            let length = options.write(&mut b);
            let (list, legal) = listed(&b[..length]);
            assert!(legal && length.is_multiple_of(4), "{options:?}");
            // NOP, and what has a length: nothing ends the list before its last word is full.
            let said: usize = list.iter().map(|(_, body)| body.len() + 2).sum();
            let mut rest = &b[..length];
            let mut nops = 0;
            while let Some(kind) = rest.first() {
                assert_ne!(*kind, 0, "{options:?}");
                let skip = if *kind == 1 { 1 } else { usize::from(rest[1]) };
                nops += usize::from(*kind == 1);
                rest = &rest[skip..];
            }
            assert_eq!(said + nops, length);
            let (again, _) = Options::parse(&b[..length], &crate::work::Steps::default());
            assert_eq!((again.mss, again.window_scale), (options.mss, options.window_scale));
            assert_eq!((again.sack_permitted, again.timestamps), (options.sack_permitted, options.timestamps));
        }
    }
}

#[test]
fn every_data_offset_is_judged_at_every_length() {
    for length in 0..=64 {
        for octet in 0..=255u8 {
            let mut b = [0; 64];
            b[12] = octet;
            let header = usize::from(octet >> 4) * 4;
            let found = Segment::parse(&b[..length], &crate::work::Steps::default());
            if length < TCP_HEADER_BYTES {
                assert_eq!(found, Err(Malformed::Truncated));
            } else if header < TCP_HEADER_BYTES || header > length {
                assert_eq!(found, Err(Malformed::DataOffset), "{octet:#x} of {length}");
            } else {
                assert_eq!(found.unwrap().text.len(), length - header);
            }
            assert_eq!(ports(&b[..length]).is_some(), length >= 4);
        }
    }
}

#[test]
fn every_frame_shorter_than_its_header_is_none() {
    for length in 0..=20 {
        assert_eq!(Ethernet::split(&[0; 20][..length]).map(|(_, rest)| rest.len()), length.checked_sub(14));
    }
}

fn packet(source: &str, destination: &str) -> Vec<u8> {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let header = Header { source: ip(source), destination: ip(destination), hop_limit: 64, traffic_class: 0 };
    let mut b = vec![0; header.bytes() + 24];
    header.write(&mut b, 24);
    b
}

#[test]
fn every_first_octet_and_total_length_of_ipv4_is_judged_at_every_length() {
    let good = packet("192.0.2.1", "192.0.2.2");
    for first in 0..=255u8 {
        for total in (0..=48u16).chain([0x0100, 0xffff]) {
            let mut p = good.clone();
            p[0] = first;
            p[2..4].copy_from_slice(&total.to_be_bytes());
            let header = usize::from(first & 15) * 4;
            p[10..12].fill(0);
            let sum = Sum::default().bytes(&p[..header.clamp(20, p.len())]).finish();
            p[10..12].copy_from_slice(&sum.to_be_bytes());
            for length in 0..=p.len() {
                let total = usize::from(total);
                let makes_sense = first >> 4 == 4 && header >= 20 && total >= header && total <= length;
                match find_tcp(ETHERTYPE_V4, &p[..length]) {
                    Ok(found) => assert!(makes_sense && length >= 20 && found.tcp.len() == total - header),
                    Err(e) => assert!(!makes_sense && e == Foreign::Malformed, "{first:#x} {total} {length}: {e:?}"),
                }
            }
        }
    }
}

#[test]
fn every_fragment_field_is_judged() {
    let good = packet("192.0.2.1", "192.0.2.2");
    for field in 0..=0xffffu16 {
        let mut p = good.clone();
        p[6..8].copy_from_slice(&field.to_be_bytes());
        p[10..12].fill(0);
        let sum = Sum::default().bytes(&p[..20]).finish();
        p[10..12].copy_from_slice(&sum.to_be_bytes());
        match find_tcp(ETHERTYPE_V4, &p) {
            Ok(found) => assert_eq!((found.fragment, field & 0x1fff), (field & 0x2000 != 0, 0)),
            Err(e) => assert!(e == Foreign::Fragment && field & 0x1fff != 0),
        }
    }
}

#[test]
fn every_chain_of_three_extension_headers_is_judged_at_every_length() {
    // Known ones, those that are not passed over, TCP, UDP and no next header.
    let nexts = [0, 6, 43, 44, 50, 51, 60, 135, 17, 59];
    let good = packet("2001:db8::1", "2001:db8::2");
    strings(&nexts, 3, |chain| {
        strings(&[0, 1, 2, 255], 2, |lengths| {
            let mut p = good.clone();
            p.resize(40 + 24, 0);
            p[6] = chain[0];
            p[40] = chain[1];
            p[41] = lengths[0];
            let second = 40 + if chain[0] == 44 { 8 } else { (usize::from(lengths[0]) + 1) * 8 };
            if second + 2 <= p.len() {
                p[second] = chain[2];
                p[second + 1] = lengths[1];
            }
            for payload in 0..=24 {
                p[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
                match find_tcp(ETHERTYPE_V6, &p[..40 + payload]) {
                    Ok(found) => {
                        assert!(chain.contains(&6), "{chain:?} {lengths:?}");
                        assert!(found.tcp.len() <= payload);
                    }
                    Err(Foreign::Extension) => assert!(chain.iter().any(|n| !matches!(n, 6 | 17 | 59))),
                    Err(_) => {}
                }
            }
            p[4..6].copy_from_slice(&25u16.to_be_bytes());
            assert_eq!(find_tcp(ETHERTYPE_V6, &p), Err(Foreign::Malformed));
        });
    });
}

#[test]
fn a_chain_without_end_is_not_followed() {
    let mut p = packet("2001:db8::1", "2001:db8::2");
    p.resize(40 + 8 * 300, 0);
    p[4..6].copy_from_slice(&(8 * 300u16).to_be_bytes());
    p[6] = 0;
    assert_eq!(find_tcp(ETHERTYPE_V6, &p), Err(Foreign::Extension));
}

proptest! {
    #[test]
    fn any_list_of_options_is_read(b in proptest::collection::vec(any::<u8>(), 0..=40), telling: bool) {
        // Half of them of octets that mean something, so that the lists are long.
        let b: Vec<u8> = b.into_iter().map(|o| if telling { [1, 2, 3, 4, 5, 8, 10, 18][usize::from(o) % 8] } else { o }).collect();
        compare(&b);
    }

    #[test]
    fn any_packet_is_judged(mut p in proptest::collection::vec(any::<u8>(), 0..200), v6: bool, whole: bool) {
        // Half of them with lengths and checksums that are right, so that more is read of them.
        let ethertype = if v6 { ETHERTYPE_V6 } else { ETHERTYPE_V4 };
        let header = if v6 { 40 } else { 20 };
        if whole && p.len() >= header {
            let length = p.len() as u16;
            p[0] = if v6 { 0x60 } else { 0x45 };
            if v6 {
                p[4..6].copy_from_slice(&(length - 40).to_be_bytes());
                p[6] = [0, 6, 43, 44, 60][usize::from(p[6]) % 5];
            } else {
                p[2..4].copy_from_slice(&length.to_be_bytes());
                p[9] = 6;
                p[10..12].fill(0);
                let sum = Sum::default().bytes(&p[..20]).finish();
                p[10..12].copy_from_slice(&sum.to_be_bytes());
            }
        }
        if let Ok(found) = find_tcp(ethertype, &p) {
            let inside = p.as_ptr_range();
            let tcp = found.tcp.as_ptr_range();
            prop_assert!(inside.start <= tcp.start && tcp.end <= inside.end);
            let _ = Segment::parse(found.tcp, &crate::work::Steps::default());
        }
    }
}

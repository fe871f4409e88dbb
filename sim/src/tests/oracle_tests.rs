//! The onlooker can say no: a card's own segments, each changed in one way, and what it must say of that.

use std::panic::{AssertUnwindSafe, catch_unwind};

use toe_firmware::EcnPolicy;
use toe_impair::{Share, Spec};

use crate::app::{App, Close, Plan};
use crate::card::{CardEnd, Channel};
use crate::end::Pair;
use crate::frames::{ACK, FIN, PSH, RST, SYN, seal, segment};
use crate::guest::Settings;
use crate::oracle::Oracle;
use crate::parts::Family;
use crate::pattern::Pattern;
use crate::tests::scenario::{DEADLINE_US, plain_profile, plain_settings};
use crate::world::{Node, Opening, Sighting, World};

fn pair() -> Pair {
    Pair { local: "192.0.2.1:40000".parse().unwrap(), remote: "192.0.2.2:7000".parse().unwrap() }
}

/// Everything that two cards sent, over a line that reorders and loses from the first to the second.
fn recorded() -> Vec<Sighting> {
    let node = |end: usize| {
        let channel = Channel { to_guest: Spec::default(), to_card: Spec::default(), guest_buffers: 64 };
        let mut profile = plain_profile();
        profile.tcp.ecn = EcnPolicy::Off;
        Node::Card(Box::new(CardEnd::new(["a", "b"][end], &profile, plain_settings(Family::V4, end), &channel, 1)))
    };
    let line = Spec { delay_us: 2_000, ..Spec::default() };
    let bad = Spec { loss: Share::from_ppm(30_000), ..line };
    let mut world = World::new(node(0), node(1), [bad, line], [1, 2]);
    world.sightings = Some(Vec::new());
    let plan = Plan {
        out_bytes: 60_000,
        close: Close::WhenWritten,
        write_bytes: 10_000,
        read_bytes: 10_000,
        read_pause_us: 0,
        idle_us: 0,
        lingers: true,
        patience_us: None,
    };
    let programs = [App::new(0, plan.clone()), App::new(0, plan)];
    let opening =
        Opening { accept_us: 0, at_us: 1_000_000, active: 0, is_simultaneous: false, pair: pair(), any: None };
    world.add(opening, programs);
    assert!(world.run(DEADLINE_US));
    world.sightings.take().unwrap()
}

/// Shows the record to an onlooker at the first card, with `change` made to its first segment for which it says yes; what
/// the onlooker says.
fn shown(record: &[Sighting], change: impl Fn(&mut Vec<u8>) -> bool) -> String {
    let settings: Settings = plain_settings(Family::V4, 0);
    let mut oracle = Oracle::new(true, true);
    let ports = u64::from(pair().local.port()) << 17 | u64::from(pair().remote.port()) << 1;
    oracle.expect(&pair(), Pattern::new(ports));
    let mut is_changed = false;
    for Sighting { from, frame } in record {
        if *from == 1 {
            oracle.arrives(frame);
            continue;
        }
        let mut frame = frame.clone();
        is_changed = is_changed || change(&mut frame);
        if let Err(error) = catch_unwind(AssertUnwindSafe(|| oracle.sent(&frame, &settings))) {
            assert!(is_changed, "an honest segment is found wrong");
            let text = error.downcast_ref::<String>().unwrap();
            return text.split(": 40000").next().unwrap_or_default().to_owned();
        }
    }
    assert!(is_changed, "the change was never made");
    "nothing".to_owned()
}

const TCP_AT: usize = 34;

/// Changes a field of the header by `change` and makes the checksum right again.
fn field(frame: &mut [u8], at: usize, change: impl Fn(u32) -> u32) {
    let place = &mut frame[TCP_AT + at..TCP_AT + at + 4];
    let number = change(u32::from_be_bytes(place.try_into().unwrap()));
    place.copy_from_slice(&number.to_be_bytes());
    let flags = frame[TCP_AT + 13];
    seal(frame, flags);
}

/// A full segment in the middle of the stream.
fn is_text(frame: &[u8]) -> bool {
    segment(frame).is_some_and(|s| s.payload.len() > 1_000 && !s.has(SYN | FIN) && s.ack != 0)
}

fn is_fin(frame: &[u8]) -> bool {
    segment(frame).is_some_and(|s| s.has(FIN))
}

#[test]
fn an_honest_record_is_found_right() {
    let record = recorded();
    let settings = plain_settings(Family::V4, 0);
    let mut oracle = Oracle::new(true, true);
    for Sighting { from, frame } in &record {
        if *from == 0 { oracle.sent(frame, &settings) } else { oracle.arrives(frame) }
    }
    assert!(oracle.checked > 30, "{} segments", oracle.checked);
}

#[test]
fn every_change_is_found_out() {
    let record = recorded();
    let seen = |change: &dyn Fn(&mut Vec<u8>) -> bool| shown(&record, change);
    let text = |change: &dyn Fn(&mut Vec<u8>)| {
        seen(&|frame| {
            let fits = is_text(frame);
            if fits {
                change(frame);
            }
            fits
        })
    };
    assert_eq!(text(&|f| f[40] ^= 1), "a wrong checksum");
    assert_eq!(text(&|f| f[0] ^= 2), "the wrong destination station");
    assert_eq!(text(&|f| seal(f, ACK | SYN | FIN)), "flags that contradict each other");
    assert_eq!(text(&|f| seal(f, PSH)), "none of SYN, RST and ACK");
    assert_eq!(text(&|f| seal(f, ACK | RST)), "a RST with text");
    let far = text(&|f| field(f, 4, |seq| seq.wrapping_add(1_448)));
    assert!(far.starts_with("it leaves a gap"), "{far}");
    let unsent = text(&|f| field(f, 8, |ack| ack.wrapping_add(200_000)));
    assert!(unsent.starts_with("it acknowledges 200"), "{unsent}");
    let byte = text(&|f| {
        *f.last_mut().unwrap() ^= 1;
        seal(f, ACK);
    });
    assert!(byte.ends_with("is not the stream's"), "{byte}");
    let longer = text(&|f| {
        f.extend_from_slice(&[7; 100]);
        seal(f, ACK);
    });
    assert_eq!(longer, "longer than the MTU");
    assert_eq!(text(&|f| field(f, 16, |sum_and_urgent| sum_and_urgent | 7)), "an urgent pointer without URG");
    assert_eq!(text(&|f| seal(f, ACK | 64)), "ECE or CWR not agreed on");
    let marked = text(&|f| {
        f[15] |= 1;
        seal(f, ACK);
    });
    assert_eq!(marked, "ECN not agreed on");

    // The timestamp, in its place behind two bytes of padding.
    let stamped = |at: usize, change: fn(u32) -> u32| text(&move |f| field(f, 20 + at, change));
    assert_eq!(stamped(4, |value| value.wrapping_sub(1_000)), "its timestamp goes back");
    assert_eq!(stamped(8, |echo| echo.wrapping_add(1_000_000)), "it echoes a timestamp that never arrived");

    // What was offered once is not taken back.
    let offers = std::cell::Cell::new(0);
    let shrinks = seen(&|f| {
        let is_offer = segment(f).is_some_and(|s| s.has(ACK) && !s.has(SYN | RST));
        offers.set(offers.get() + u32::from(is_offer));
        if offers.get() == 3 {
            f[TCP_AT + 14..TCP_AT + 16].fill(0);
            let flags = f[TCP_AT + 13];
            seal(f, flags);
        }
        offers.get() == 3
    });
    assert!(shrinks.starts_with("its window shrinks"), "{shrinks}");

    // Behind its FIN there is nothing.
    let fin = seen(&|f| {
        let fits = is_fin(f);
        if fits {
            field(f, 4, |seq| seq.wrapping_sub(1));
        }
        fits
    });
    assert!(fin.ends_with("is not the stream's") || fin.starts_with("a FIN before text"), "{fin}");
}

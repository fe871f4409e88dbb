//! What is predicted and what goes the long way end the same: the same segments to two cards, one of which predicts nothing.

use std::ops::Range;

use proptest::prelude::*;
use toe_abi::flags;

use crate::profile::CongestionControl;
use crate::tcp::arrives::{Reply, segment_arrives};
use crate::testing::Bench;
use crate::wire::segment::Segment;
use crate::work::Steps;

/// What happens: the peer sends, the program writes or rests, or time passes.
#[derive(Clone, Debug)]
enum Event {
    /// Text from here to there, relative to what comes next; with flags, an acknowledgement that far behind what was sent, and
    /// a window.
    Segment {
        flags: &'static str,
        text: Range<i32>,
        behind: u32,
        window: u16,
        timestamp: i32,
        sack: bool,
    },
    Write(u64),
    /// The program reads no more.
    Rest,
    Pass(u64),
    Marked,
}

fn segment() -> impl Strategy<Value = Event> {
    let flags =
        prop_oneof![6 => Just("A"), 6 => Just("PA"), 1 => Just("UA"), 1 => Just("FA"), 1 => Just("."), 1 => Just("EA")];
    let gap = prop_oneof![12 => Just(0), 1 => -900..900i32];
    let length = prop_oneof![1 => Just(0), 6 => Just(1000), 3 => 1..1000i32];
    let behind = prop_oneof![8 => Just(0u32), 2 => 0..3000u32];
    let window = prop_oneof![8 => Just(60_000u16), 1 => Just(0), 2 => any::<u16>()];
    let timestamp = prop_oneof![9 => Just(0), 1 => -50..50i32];
    (flags, gap, length, behind, window, timestamp, prop::bool::weighted(0.05)).prop_map(
        |(flags, gap, length, behind, window, timestamp, sack)| Event::Segment {
            flags,
            text: gap..gap + length,
            behind,
            window,
            timestamp,
            sack,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => segment(),
        2 => (1..3000u64).prop_map(Event::Write),
        1 => Just(Event::Rest),
        4 => (0..60u64).prop_map(Event::Pass),
        1 => Just(Event::Marked),
    ]
}

/// One card, and where its peer stands.
struct Card {
    bench: Bench,
    next: i32,
    written: u32,
}

impl Card {
    fn new(options: &str, predicts: bool) -> Self {
        let mut bench = Bench::established_with(flags::NODELAY, options);
        bench.firmware.set_predicts(predicts);
        Self { bench, next: 1, written: 0 }
    }

    fn happens(&mut self, event: &Event, has_timestamps: bool) {
        match event {
            Event::Segment { flags, text, behind, window, timestamp, sack } => {
                let (start, end) = (self.next + text.start, self.next + text.end);
                if start < 1 {
                    return;
                }
                let ack = 1 + self.written.saturating_sub(*behind);
                let mut options = Vec::new();
                if has_timestamps {
                    let now = (self.bench.now.as_us() / 1000) as i64 + i64::from(*timestamp);
                    options.push(format!("ts {} 0", now.max(0)));
                }
                if *sack {
                    options.push(format!("sack {}:{}", ack + 100, ack + 200));
                }
                let urgent = if flags.contains('U') { " urg 3" } else { "" };
                let text = format!("{flags} {start}:{end} ack {ack} win {window}{urgent} <{}>", options.join(", "));
                self.bench.peer(&text);
                self.next = 1 + self.bench.info().bytes_received as i32;
            }
            Event::Write(bytes) => {
                self.bench.send(*bytes);
                self.written += *bytes as u32;
            }
            Event::Rest => self.bench.reading = false,
            Event::Pass(ms) => self.bench.wait_ms(*ms),
            Event::Marked => self.bench.marks = !self.bench.marks,
        }
    }

    /// All that can be seen of it.
    fn seen(&mut self) -> String {
        let segments: Vec<_> = std::iter::from_fn(|| self.bench.next()).collect();
        format!("{segments:?} {}", self.bench.firmware.all_of(self.bench.connection))
    }
}

fn same(options: &str, events: &[Event]) -> Result<u64, TestCaseError> {
    let has_timestamps = options.contains("ts ");
    let mut cards = [true, false].map(|predicts| Card::new(options, predicts));
    for (i, event) in events.iter().enumerate() {
        let [short, long] = cards.each_mut().map(|card| {
            card.happens(event, has_timestamps);
            card.seen()
        });
        prop_assert_eq!(short, long, "after event {}, {:?}", i, event);
    }
    let [short, long] = cards.map(|card| card.bench.firmware.predicted());
    prop_assert_eq!(long, 0);
    Ok(short)
}

proptest! {
    #[test]
    fn the_short_way_and_the_long_one_end_at_the_same_place(
        options in prop_oneof![
            Just("mss 1000"), Just("mss 1000, sackOK"), Just("mss 1000, sackOK, ts 1000000 0"), Just("mss 1000, sackOK, ws 7"),
        ],
        events in prop::collection::vec(event(), 1..60),
    ) {
        same(options, &events)?;
    }
}

/// A window that nobody empties: what does not fit any more, in whole or in part, is for the long way.
#[test]
fn nothing_is_predicted_beyond_the_window() {
    let event = || Event::Segment { flags: "A", text: 0..999, behind: 0, window: 60_000, timestamp: 0, sack: false };
    for options in ["mss 1000", "mss 1000, sackOK, ts 1000000 0"] {
        let events: Vec<_> = std::iter::once(Event::Rest).chain((0..90).map(|_| event())).collect();
        let predicted = same(options, &events).unwrap();
        assert!((20..70).contains(&predicted), "{options}: {predicted}");
    }
}

/// The test above tests something: text in order is predicted, from the second segment on.
#[test]
fn text_in_order_goes_the_short_way() {
    let event = || Event::Segment { flags: "PA", text: 0..1000, behind: 0, window: 60_000, timestamp: 0, sack: false };
    for options in ["mss 1000", "mss 1000, sackOK", "mss 1000, sackOK, ts 1000000 0"] {
        let events: Vec<_> = (0..20).map(|_| event()).collect();
        assert_eq!(same(options, &events).unwrap(), 19, "{options}");
    }
}

/// Up to the last octet of the window, and not an octet further: who reads nothing closes it.
#[test]
fn text_for_which_there_is_no_window_goes_the_long_way() {
    let text =
        |length| Event::Segment { flags: "A", text: 0..length, behind: 0, window: 60_000, timestamp: 0, sack: false };
    let mut cards = [true, false].map(|predicts| Card::new("mss 1000", predicts));
    for card in &mut cards {
        card.happens(&Event::Rest, false);
    }
    let window = |card: &mut Card| card.bench.firmware.block(card.bench.connection).0.receive.window();
    let mut left = window(&mut cards[0]);
    for n in 0..20_000 {
        let event = text(left.clamp(1, 1000) as i32);
        let [short, long] = cards.each_mut().map(|card| {
            card.happens(&event, false);
            card.seen()
        });
        assert_eq!(short, long, "{n}, window {left}");
        if left == 0 {
            assert!(cards[0].bench.firmware.predicted() > 60);
            return;
        }
        left = window(&mut cards[0]);
    }
    panic!("a window that does not close");
}

/// What is made of a segment by its connection's block alone.
fn reply(b: &mut Bench, text: &str) -> Reply {
    let frame = b.frame(text);
    let segment = Segment::parse(&frame[34..], &Steps::default()).unwrap();
    let now = b.now;
    let (t, store) = b.firmware.block(b.connection);
    segment_arrives(t, store, &segment, now)
}

/// Who hears that it was predicted does less after it: that is not said of a segment after which another state holds.
#[test]
fn what_ends_the_stream_is_not_said_to_be_plain() {
    let mut b = Bench::established();
    b.peer("A 1:1001 ack 1");
    assert_eq!(reply(&mut b, "A 1001:2001 ack 1"), Reply::Predicted);
    assert_eq!(reply(&mut b, "PA 2001:3001 ack 1"), Reply::Predicted);
    // Here the second fills the gap before the end.
    let mut b = Bench::established();
    b.peer("A 1:1001 ack 1");
    assert_eq!(reply(&mut b, "FA 2001:3001 ack 1"), Reply::Nothing);
    assert_eq!(reply(&mut b, "A 1001:2001 ack 1"), Reply::Nothing);
}

/// A controller that learns from every acknowledgement is asked every time.
#[test]
fn only_where_progress_alone_counts_a_segment_goes_the_short_way() {
    let predicts = [
        (CongestionControl::Cubic, Reply::Predicted),
        (CongestionControl::NewReno, Reply::Predicted),
        (CongestionControl::Bbr, Reply::Nothing),
        (CongestionControl::Dctcp, Reply::Nothing),
    ];
    for (congestion, expected) in predicts {
        let mut b = Bench::with(|p| p.tcp.congestion = congestion);
        b.connect(flags::NODELAY);
        assert!(b.next().is_some());
        b.peer("SA 0 ack 1 win 60000 <mss 1000>");
        b.expect("A 1:1 ack 1");
        b.peer("A 1:1001 ack 1");
        assert_eq!(reply(&mut b, "A 1001:2001 ack 1"), expected, "{congestion:?}");
    }
}

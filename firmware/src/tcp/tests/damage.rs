//! What a fault writes into a connection's block, and what is seen of it without a seal: one thing wrong at a time, at the
//! edge of what is right.

use toe_abi::{flags, state};

use crate::fault::Site;
use crate::seq::{Position, Seq};
use crate::tcp::damage::{contradiction, damage};
use crate::tcp::tcb::{State, Tcb};
use crate::testing::Bench;
use crate::time::Duration;

const WINDOW_MAX: u64 = 65_535 << 14;

/// A block, a change, and what is said of it then.
type Case = (fn() -> Bench, fn(&mut Tcb), Option<&'static str>);

/// With data in flight, data in order that the guest has not taken, and data beyond a gap.
fn busy() -> Bench {
    let mut b = Bench::established();
    b.send(500);
    b.expect("PA 1:501");
    b.reading = false;
    b.peer("PA 1:101 ack 1");
    b.peer("PA 201:301 ack 1");
    b.drain();
    b
}

/// Nothing in flight, and all that came was taken.
fn idle() -> Bench {
    let mut b = Bench::established();
    b.send(500);
    b.expect("PA 1:501");
    b.peer("PA 1:101 ack 501");
    b.wait_ms(100);
    b.drain();
    b
}

/// Its window is full, and more is queued.
fn blocked() -> Bench {
    let mut b = Bench::established();
    b.peer("A 1 ack 1 win 1000");
    b.send(1500);
    b.drain();
    b
}

fn syn_sent() -> Bench {
    let mut b = Bench::new();
    b.connect(flags::NODELAY);
    b.expect("S 0");
    b
}

/// Both ends say FIN, the peer first or last; up to where a block exists.
fn ends(b: &mut Bench, what: &str) {
    match what {
        "fin" => b.shutdown(),
        "acked" => b.peer("A 1 ack 2"),
        "peer" => b.peer("FA 1 ack 1"),
        other => unreachable!("{other}"),
    }
    b.drain();
}

fn ended(how: &[&str]) -> Bench {
    let mut b = Bench::established();
    how.iter().for_each(|what| ends(&mut b, what));
    b
}

fn fin_wait_1() -> Bench {
    ended(&["fin"])
}

fn fin_wait_2() -> Bench {
    ended(&["fin", "acked"])
}

fn close_wait() -> Bench {
    ended(&["peer"])
}

/// A listener's connection by Fast Open, whose handshake is not complete.
fn fast_open() -> Bench {
    let mut b = Bench::with(|p| p.tcp.fast_open = true);
    b.listen_with(flags::FAST_OPEN);
    b.peer("S 0 <mss 1000, fo ->");
    let answer = b.next().unwrap();
    let cookie = answer.split_once("fo ").unwrap().1.split([',', '>']).next().unwrap().to_owned();
    b.peer("A 1 ack 1");
    b.peer("R 1");
    b.release();
    b.another_port(false);
    b.peer(&format!("S 0:100 win 2000 <mss 1000, fo {cookie}>"));
    b.drain();
    b
}

fn block(b: &mut Bench) -> &mut Tcb {
    b.firmware.block(b.connection).0
}

/// What is said of a block after a change.
fn said(mut b: Bench, change: impl Fn(&mut Tcb)) -> Option<&'static str> {
    let (t, store) = b.firmware.block(b.connection);
    change(t);
    contradiction(t, store)
}

#[test]
fn a_block_that_nothing_happened_to_contradicts_nothing() {
    let states = [
        (busy as fn() -> Bench, State::Established),
        (idle, State::Established),
        (blocked, State::Established),
        (syn_sent, State::SynSent),
        (fin_wait_1, State::FinWait1),
        (fin_wait_2, State::FinWait2),
        (close_wait, State::CloseWait),
        (|| ended(&["peer", "fin"]), State::LastAck),
        (|| ended(&["fin", "peer"]), State::Closing),
        (fast_open, State::SynReceived),
    ];
    for (make, state) in states {
        let mut b = make();
        assert_eq!(block(&mut b).state, state);
        assert_eq!(said(b, |_| ()), None, "{state:?}");
    }
}

#[test]
fn what_cannot_be_of_the_octets_sent_is_seen() {
    let cases: [Case; 29] = [
        (busy, |t| t.send.iss = t.send.iss + (1 << 32), Some("a stream that begins where none does")),
        (busy, |t| t.send.una = t.send.iss.back(1), Some("sent octets in disorder")),
        (busy, |t| t.send.una = t.send.nxt + 1, Some("sent octets in disorder")),
        (busy, |t| t.send.max = t.send.nxt.back(1), Some("sent octets in disorder")),
        (busy, |t| t.send.end = t.send.nxt.back(1), Some("sent octets in disorder")),
        (busy, |t| t.send.max = t.send.nxt + 1, None),
        (busy, |t| t.send.max = t.send.nxt + 2, Some("octets sent that there are not")),
        (blocked, |t| t.send.max = t.send.nxt + 1, None),
        (blocked, |t| t.send.max = t.send.nxt + 2, Some("octets sent that there are not")),
        (busy, |t| t.send.una = t.send.iss, Some("synchronized, and the SYN is not acknowledged")),
        (syn_sent, |t| t.send.una = t.send.iss + 1, Some("not synchronized, and the SYN is acknowledged")),
        (fast_open, |t| t.send.una = t.send.iss + 1, None),
        (busy, |t| t.send.end = t.send.end + 1, None),
        (busy, |t| t.send.end = t.send.stream.limit() + 1, Some("octets to send that nobody gave")),
        (busy, |t| t.send.una = t.send.una + 1, Some("octets acknowledged that are kept, or kept that are not")),
        (fin_wait_1, |t| t.send.una = t.send.nxt, Some("segments in flight that were not sent")),
        (busy, |t| t.send.nxt = t.send.nxt.back(1), Some("segments in flight that were not sent")),
        (busy, |t| t.send.fin = true, Some("a state that our FIN denies")),
        (close_wait, |t| t.send.fin = true, Some("a state that our FIN denies")),
        (busy, |t| t.state = State::FinWait1, Some("a state that our FIN denies")),
        (busy, |t| t.state = State::FinWait2, Some("a state that our FIN denies")),
        (close_wait, |t| t.state = State::LastAck, Some("a state that our FIN denies")),
        (close_wait, |t| t.state = State::Closing, Some("a state that our FIN denies")),
        (close_wait, |t| t.state = State::TimeWait, Some("a state that our FIN denies")),
        (syn_sent, |t| t.send.fin = true, None),
        (fin_wait_1, |t| t.state = State::FinWait2, Some("a state that the acknowledgement of our FIN denies")),
        (fin_wait_2, |t| t.state = State::FinWait1, None),
        (fin_wait_1, |t| t.state = State::Established, Some("a state that our FIN denies")),
        (fin_wait_2, |t| t.state = State::CloseWait, Some("a state that our FIN denies")),
    ];
    for (n, (make, change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(said(make(), change), expected, "{n}");
    }
}

#[test]
fn octets_to_send_of_which_nothing_was_stored_are_seen() {
    // Granted, and further than the page that what was given ends in.
    let beyond = said(busy(), |t| {
        assert!(t.send.end + 20_000 <= t.send.stream.limit());
        t.send.end = t.send.end + 20_000;
    });
    assert_eq!(beyond, Some("octets to send that nobody gave"));
}

#[test]
fn what_cannot_be_of_the_octets_received_is_seen() {
    let cases: [Case; 20] = [
        (busy, |t| t.receive.irs = t.receive.irs.back(1 << 32), Some("a stream received before it began")),
        (busy, |t| t.receive.irs = t.receive.nxt, Some("a stream received before it began")),
        (busy, |t| t.receive.edge = t.receive.nxt.back(1), Some("octets received in disorder")),
        (busy, |t| t.receive.edge = t.receive.nxt, None),
        (busy, |t| t.receive.edge = t.receive.nxt + WINDOW_MAX, None),
        (busy, |t| t.receive.edge = t.receive.nxt + WINDOW_MAX + 1, Some("octets received in disorder")),
        (busy, |t| t.receive.last_ack_sent = t.receive.nxt, None),
        (busy, |t| t.receive.last_ack_sent = t.receive.nxt + 1, Some("octets received in disorder")),
        (busy, |t| t.guest.delivered = t.receive.nxt, None),
        (busy, |t| t.guest.delivered = t.receive.nxt + 1, Some("octets told to the guest that were not received")),
        (busy, |t| t.guest.furthest = t.receive.nxt, None),
        (busy, |t| t.guest.furthest = t.receive.nxt + 1, Some("octets told to the guest that were not received")),
        (busy, |t| t.receive.nxt = t.receive.nxt + 199, None),
        (busy, |t| t.receive.nxt = t.receive.nxt + 200, Some("a gap before octets that were received")),
        (busy, |t| t.state = State::CloseWait, Some("a state that the peer's FIN denies")),
        (close_wait, |t| t.state = State::Established, Some("a state that the peer's FIN denies")),
        (fin_wait_1, |t| t.state = State::Closing, Some("a state that the peer's FIN denies")),
        (fin_wait_1, |t| t.state = State::LastAck, Some("a state that the peer's FIN denies")),
        (fin_wait_2, |t| t.state = State::TimeWait, Some("a state that the peer's FIN denies")),
        (|| ended(&["peer", "fin"]), |t| t.state = State::FinWait1, Some("a state that the peer's FIN denies")),
    ];
    for (n, (make, change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(said(make(), change), expected, "{n}");
    }
}

#[test]
fn octets_received_that_are_not_there_are_seen() {
    // Fewer than the guest has taken.
    let taken = |change: fn(&mut Tcb)| said(idle(), change);
    assert_eq!(taken(|t| assert!(t.receive.stream.start() == t.receive.nxt)), None);
    let fewer = |t: &mut Tcb| {
        t.receive.nxt = t.receive.nxt.back(1);
        t.receive.last_ack_sent = t.receive.nxt;
    };
    assert_eq!(taken(fewer), Some("octets received that are not there"));
    // More than is granted, or than anything was stored of.
    let more = |nxt: fn(&Tcb) -> Position| {
        said(idle(), move |t| {
            t.receive.nxt = nxt(t);
            t.receive.edge = t.receive.edge.max(t.receive.nxt);
        })
    };
    assert_eq!(more(|t| t.receive.stream.limit() + 1), Some("octets received that are not there"));
    assert_eq!(more(|t| t.receive.nxt + 20_000), Some("octets received that are not there"));
}

/// Before the handshake is complete the state says nothing of the peer's FIN.
#[test]
fn a_fin_that_came_early_denies_nothing() {
    assert_eq!(said(fast_open(), |t| t.receive.fin = Some(t.receive.nxt)), None);
    assert_eq!(said(fast_open(), |t| t.send.fin = true), None);
}

#[test]
fn figures_that_cannot_be_are_seen() {
    let cases: [Case; 19] = [
        (busy, |t| t.send.mss = 64, None),
        (busy, |t| t.send.mss = 63, Some("segments of no size")),
        (busy, |t| t.send.mss = 1460, None),
        (busy, |t| t.send.mss = 1461, Some("segments of no size")),
        (syn_sent, |t| t.send.mss = 0, None),
        (busy, |t| t.send.shift = 14, None),
        (busy, |t| t.send.shift = 15, Some("a shift that RFC 7323 does not have")),
        (busy, |t| t.receive.shift = 14, None),
        (busy, |t| t.receive.shift = 15, Some("a shift that RFC 7323 does not have")),
        (busy, |t| t.send.window = WINDOW_MAX as u32, None),
        (busy, |t| t.send.window = WINDOW_MAX as u32 + 1, Some("a window beyond the largest")),
        (busy, |t| t.recovery.window.congestion = WINDOW_MAX as u32, None),
        (busy, |t| t.recovery.window.congestion = WINDOW_MAX as u32 + 1, Some("a window beyond the largest")),
        (busy, |t| t.recovery.window.congestion = 0, Some("a congestion window of nothing")),
        (syn_sent, |t| t.recovery.window.congestion = 0, None),
        (busy, |t| t.rtt.corrupt_smoothed(Duration::from_s(3_600)), None),
        (busy, |t| t.rtt.corrupt_smoothed(Duration::from_us(3_600_000_001)), Some("a round trip of hours")),
        (busy, |t| t.state = State::SynSent, Some("a state that its receive stream denies")),
        (syn_sent, |t| t.state = State::Established, Some("a state that its receive stream denies")),
    ];
    for (n, (make, change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(said(make(), change), expected, "{n}");
    }
}

#[test]
fn a_connection_that_is_over_was_told_to_somebody() {
    let untold = Some("closed, and nobody was told");
    let closed = |change: fn(&mut Tcb)| {
        said(busy(), move |t| {
            t.state = State::Closed;
            change(t);
        })
    };
    assert_eq!(closed(|_| ()), untold);
    assert_eq!(closed(|t| t.in_table = false), None);
    assert_eq!(closed(|t| t.guest.bits |= state::ABORTED), None);
    assert_eq!(closed(|t| t.guest.bits = state::ESTABLISHED), untold);
    assert_eq!(closed(|t| t.send.fin = true), untold);
    let finished = |t: &mut Tcb| t.receive.fin = Some(t.receive.nxt.back(1));
    assert_eq!(closed(finished), untold);
    let both = said(busy(), |t| {
        t.state = State::Closed;
        t.send.fin = true;
        finished(t);
    });
    assert_eq!(both, None);
}

#[test]
fn a_fault_writes_the_field_that_it_names() {
    const VALUE: u64 = 0x7_1234_5678;
    type Field = fn(&Tcb) -> u64;
    let near = |old: u64| Seq(VALUE as u32).near(Position::initial(Seq(0)) + (old - (1 << 32))).raw();
    // A field, and whether its number is of sequence space.
    let fields: [(Site, Field, bool); 18] = [
        (Site::TcbIss, |t| t.send.iss.raw(), true),
        (Site::TcbSndUna, |t| t.send.una.raw(), true),
        (Site::TcbSndNxt, |t| t.send.nxt.raw(), true),
        (Site::TcbSndMax, |t| t.send.max.raw(), true),
        (Site::TcbSndEnd, |t| t.send.end.raw(), true),
        (Site::TcbSndWl1, |t| t.send.wl1.raw(), true),
        (Site::TcbSndWl2, |t| t.send.wl2.raw(), true),
        (Site::TcbIrs, |t| t.receive.irs.raw(), true),
        (Site::TcbRcvNxt, |t| t.receive.nxt.raw(), true),
        (Site::TcbLastAckSent, |t| t.receive.last_ack_sent.raw(), true),
        (Site::TcbSndWnd, |t| t.send.window.into(), false),
        (Site::TcbMss, |t| t.send.mss.into(), false),
        (Site::TcbCwnd, |t| t.recovery.window.congestion.into(), false),
        (Site::TcbSsthresh, |t| t.recovery.window.threshold.into(), false),
        (Site::TcbTsRecent, |t| t.receive.timestamp.into(), false),
        (Site::TcbRcvWnd, |t| t.receive.window(), false),
        (Site::TcbSndScale, |t| t.send.shift.into(), false),
        (Site::TcbRcvScale, |t| t.receive.shift.into(), false),
    ];
    for (site, _, _) in fields {
        let mut b = busy();
        let t = block(&mut b);
        let before = fields.map(|(_, get, _)| get(t));
        damage(t, site, VALUE);
        for ((other, get, is_number), before) in fields.into_iter().zip(before) {
            let wrong = match other {
                Site::TcbSndScale | Site::TcbRcvScale => VALUE & 0xff,
                _ if is_number => near(before),
                _ => VALUE & 0xffff_ffff,
            };
            // The window reaches from RCV.NXT on.
            let moves = other == Site::TcbRcvWnd && site == Site::TcbRcvNxt;
            assert!(
                moves || get(t) == if other == site { wrong } else { before },
                "{} and {}",
                site.name(),
                other.name()
            );
        }
    }
}

#[test]
fn a_fault_can_set_the_state_and_the_round_trip() {
    for value in 0..40 {
        let mut b = busy();
        let t = block(&mut b);
        damage(t, Site::TcbState, value);
        let named = State::ALL.iter().find(|s| u64::from(s.linux()) == value % 12);
        assert_eq!(t.state, *named.unwrap_or(&State::Established), "{value}");
        damage(t, Site::TcbSrtt, 1000 + value);
        assert_eq!(t.rtt.smoothed(), Some(Duration::from_us(1000 + value)));
        damage(t, Site::TcbRto, value);
        assert_eq!(u64::from(t.rtt.doubled()), value % 32);
    }
    let mut b = syn_sent();
    let t = block(&mut b);
    damage(t, Site::TcbSrtt, 7);
    assert_eq!(t.rtt.smoothed(), None, "what was not measured is not there to be damaged");
}

/// All credit is used, or all of the window: the last octet is there, and far behind it nothing is, however pages are counted.
#[test]
fn streams_that_are_full_are_sound_and_not_an_octet_more() {
    let full = || {
        let mut b = Bench::established();
        b.reading = false;
        loop {
            let t = block(&mut b);
            let left = t.send.stream.limit().since(t.send.end);
            if left == 0 {
                break;
            }
            b.send(left.min(1000));
            b.drain();
        }
        let mut at = 1;
        loop {
            let left = block(&mut b).receive.window().min(1000) as u32;
            if left == 0 {
                return b;
            }
            b.peer(&format!("A {at}:{} ack 1", at + left));
            b.drain();
            at += left;
        }
    };
    assert_eq!(said(full(), |t| assert!(t.receive.data_end() == t.receive.stream.limit())), None);
    for bit in 0..36 {
        let sent = said(full(), |t| t.send.end = t.send.end + (1 << bit));
        assert_eq!(sent, Some("octets to send that nobody gave"), "{bit}");
        let received = said(full(), |t| {
            // No further than a window reaches: that is looked at first.
            t.receive.nxt = t.receive.nxt + (1 << bit);
            t.receive.edge = t.receive.nxt;
        });
        assert_eq!(received, Some("octets received that are not there"), "{bit}");
    }
}

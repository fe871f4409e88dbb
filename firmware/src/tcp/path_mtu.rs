//! The path's MTU: what ICMP says of it (RFC 1191, 8201), as far as it can be believed (RFC 5927, 7.2), and what is found
//! out without ICMP (RFC 4821).
//!
//! A connection begins with the largest packet that its interface and its peer's MSS allow (`limit`). From there
//! `current` goes down in two ways:
//!
//! * *Packet too big.* The report must quote a packet in flight that was larger than the MTU that it claims, and claim
//!   less than `current`. If packets larger than the claim were acknowledged before, the claim waits: it counts if
//!   the quoted segment runs into a timeout, and is forgotten if that is acknowledged. So a forged report can do
//!   nothing to a connection that makes progress.
//! * *Silence.* After [`BLACK_HOLE_TIMEOUTS`] timeouts in a row of the same large segment, packets of [`BASE_V4`]
//!   or [`BASE_V6`] bytes are tried, and after [`VERY_BLACK_HOLE_TIMEOUTS`] the named minimum.
//!
//! It goes up by probes alone: a segment of new data that is larger than others, with enough behind it that its loss is
//! seen without a timeout. If it is acknowledged, its size is `current`; if it is lost, `failed`. The
//! first probe of a search tries all there is between the two, those after it half of that, until less than
//! [`PRECISION`] bytes are left. The loss of a probe alone says nothing about congestion and does not lower the
//! window (RFC 4821, 7.5). A search begins [`BLACK_HOLE_REST`] after a black hole, and [`RAISE_AFTER`] after any other end.
//!
//! *Bounds*: one pending claim, one probe; no MTU below the named minimum, and no packet above `limit`.

use std::net::IpAddr;

use crate::counters::Counter;
use crate::seq::Position;
use crate::tcp::recovery::{Phase, Recovery};
use crate::tcp::tcb::{Store, TIMESTAMP_BYTES, Tcb};
use crate::time::{Duration, Instant};
use crate::wire::icmp::IcmpError;
use crate::wire::ip::{V4_HEADER_BYTES, V6_HEADER_BYTES};
use crate::wire::segment::TCP_HEADER_BYTES;

/// No report makes the MTU of an IPv4 path smaller, in bytes (Linux's choice, too): links below this are gone, and the
/// smaller the segments that a forger could enforce, the dearer it would be.
pub const PATH_MTU_MIN_V4: u32 = 552;

/// RFC 8200, section 5: every IPv6 link carries this many bytes. A report of less is discarded (RFC 8201, section 4).
pub const PATH_MTU_MIN_V6: u32 = 1280;

/// What is tried after a black hole, in bytes (RFC 4821, 7.2: 1024 bytes of text).
pub const BASE_V4: u32 = 1064;

/// The same for IPv6.
pub const BASE_V6: u32 = PATH_MTU_MIN_V6;

/// Timeouts in a row of one large segment after which the path is taken for a black hole for its size.
pub const BLACK_HOLE_TIMEOUTS: u32 = 3;

/// The same for the smallest size.
pub const VERY_BLACK_HOLE_TIMEOUTS: u32 = 2 * BLACK_HOLE_TIMEOUTS;

/// RFC 1191, 6.3, and RFC 8201, 5.3: a larger MTU is tried after this time.
pub const RAISE_AFTER: Duration = Duration::from_s(600);

/// The same after a black hole: all that is known is that something is wrong.
pub const BLACK_HOLE_REST: Duration = Duration::from_s(10);

/// The least time from a lost probe to the next one.
pub const PROBE_SPACING: Duration = Duration::from_s(1);

/// A search ends when less than this is left of it, in bytes.
pub const PRECISION: u32 = 16;

/// So many full segments must wait to be sent behind a probe.
pub const BEHIND_PROBE: u64 = 3;

/// RFC 1191, 7.1, for routers that do not say their MTU.
const PLATEAUS: [u32; 9] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296];

#[derive(Clone, Copy, Debug)]
struct Claim {
    mtu: u32,
    seq: Position,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    bytes: u32,
    start: Position,
    end: Position,
}

/// A packet on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    bytes: u32,
    end: Position,
}

/// See the module. All sizes are of packets, IP header included, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct PathMtu {
    limit: u32,
    minimum: u32,
    base: u32,
    /// What is sent.
    current: u32,
    /// The smallest size that is known not to pass, or one beyond `limit`.
    failed: u32,
    /// The largest packet acknowledged since `current` last went down.
    acknowledged: u32,
    sent: Option<Sent>,
    claim: Option<Claim>,
    timeouts: u32,
    probe: Option<Probe>,
    /// When a probe may go; `None` while there is nothing to find.
    probe_at: Option<Instant>,
    /// The next probe tries all there is.
    whole: bool,
}

/// What a report came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Nonsense,
    Known,
    BelowMinimum,
    Wait,
    Believe(u32),
    ProbeFailed(u32),
}

impl PathMtu {
    /// Of a new connection that could send packets of `limit` bytes; the guest may say anything, IP ends at 65,535.
    pub fn new(local: IpAddr, limit: u32) -> Self {
        let limit = limit.min(u16::MAX.into());
        let (minimum, base) = match local {
            IpAddr::V4(_) => (PATH_MTU_MIN_V4, BASE_V4),
            IpAddr::V6(_) => (PATH_MTU_MIN_V6, BASE_V6),
        };
        Self {
            limit,
            minimum: minimum.min(limit),
            base: base.min(limit),
            current: limit,
            failed: limit + 1,
            acknowledged: 0,
            sent: None,
            claim: None,
            timeouts: 0,
            probe: None,
            probe_at: None,
            whole: false,
        }
    }

    /// The largest packet that is sent.
    pub fn current(&self) -> u32 {
        self.current
    }

    fn reported(&mut self, error: &IcmpError, mtu: u32, seq: Position) -> Verdict {
        let mtu = if mtu == 0 {
            let plateau = PLATEAUS.into_iter().find(|p| *p < error.packet_bytes);
            plateau.unwrap_or(self.minimum)
        } else {
            mtu
        };
        if mtu >= error.packet_bytes {
            return Verdict::Nonsense;
        }
        if mtu < self.minimum && self.minimum >= PATH_MTU_MIN_V6 {
            return Verdict::BelowMinimum;
        }
        let mtu = mtu.max(self.minimum);
        if mtu >= self.current {
            let probed = self.probe.is_some_and(|p| p.start == seq && mtu < p.bytes);
            return if probed { Verdict::ProbeFailed(mtu) } else { Verdict::Known };
        }
        if mtu < self.acknowledged {
            self.claim = Some(Claim { mtu, seq });
            return Verdict::Wait;
        }
        Verdict::Believe(mtu)
    }

    fn lower(&mut self, mtu: u32, failed: u32, probe_at: Instant) {
        *self = Self {
            current: mtu,
            failed,
            acknowledged: self.acknowledged.min(mtu),
            sent: None,
            claim: None,
            timeouts: 0,
            probe: None,
            probe_at: Some(probe_at),
            whole: true,
            ..*self
        };
    }

    /// The size of the next probe, if one may go now.
    fn probe_size(&mut self, now: Instant) -> Option<u32> {
        let at = self.probe_at?;
        if now < at || self.probe.is_some() || self.timeouts > 0 {
            return None;
        }
        if self.whole && self.failed <= self.current + 1 {
            // A search that ended before begins anew.
            self.failed = self.limit + 1;
        }
        if self.current >= self.limit {
            self.probe_at = None;
            return None;
        }
        Some(if self.whole { self.failed - 1 } else { self.current + (self.failed - self.current) / 2 })
    }

    fn probe_passed(&mut self, bytes: u32, now: Instant) {
        self.current = bytes;
        self.acknowledged = bytes;
        self.probe = None;
        self.go_on(now, now);
    }

    fn probe_failed(&mut self, bytes: u32, now: Instant) {
        self.failed = self.failed.min(bytes);
        self.probe = None;
        self.whole = false;
        self.go_on(now, now + PROBE_SPACING);
    }

    fn go_on(&mut self, now: Instant, next: Instant) {
        if self.current >= self.limit {
            self.probe_at = None;
        } else if self.failed.saturating_sub(self.current) <= PRECISION {
            self.failed = self.limit + 1;
            self.whole = true;
            self.probe_at = Some(now + RAISE_AFTER);
        } else {
            self.probe_at = Some(next);
        }
    }
}

impl Tcb {
    /// Octets of a packet that are not text: headers, and the options of every segment.
    fn overhead(&self) -> u32 {
        let ip = if self.tuple.local.ip.is_ipv4() { V4_HEADER_BYTES } else { V6_HEADER_BYTES };
        (ip + TCP_HEADER_BYTES) as u32 + if self.agreed.timestamps { TIMESTAMP_BYTES } else { 0 }
    }

    /// The two ends have agreed on a largest text (RFC 9293, 3.7.1).
    pub fn open_path(&mut self) {
        self.path = PathMtu::new(self.tuple.local.ip, self.send.mss + self.overhead());
    }

    fn follow_path(&mut self) {
        self.send.mss = self.path.current - self.overhead();
        self.guest.notice.changed();
    }

    /// An ICMP error says that a packet in flight, of which `seq` was the first octet, was too big.
    pub fn packet_too_big(&mut self, store: &mut Store, error: &IcmpError, mtu: u32, seq: Position, now: Instant) {
        match self.path.reported(error, mtu, seq) {
            Verdict::Nonsense => store.counters.add(Counter::IcmpTooBigNonsense),
            Verdict::Known => store.counters.add(Counter::IcmpTooBigKnown),
            Verdict::BelowMinimum => store.counters.add(Counter::IcmpTooBigBelowMinimum),
            Verdict::Wait => store.counters.add(Counter::IcmpTooBigWaits),
            Verdict::ProbeFailed(mtu) => {
                store.counters.add(Counter::IcmpTooBig);
                let bytes = mtu + 1;
                self.give_up_probe(store, bytes, now);
            }
            Verdict::Believe(mtu) => {
                store.counters.add(Counter::IcmpTooBig);
                self.lower_path(store, mtu, mtu + 1, now + RAISE_AFTER);
                // RFC 1191, 6.4: sent again at once, and without a word to the congestion window.
                let (recovery, mut around) = self.around(store);
                recovery.too_big(&mut around);
                self.timer_from = now;
            }
        }
    }

    fn lower_path(&mut self, store: &mut Store, mtu: u32, failed: u32, probe_at: Instant) {
        store.counters.add(Counter::TcpPathMtuLowered);
        self.path.lower(mtu, failed, probe_at);
        self.follow_path();
    }

    /// A segment with the text from `start` to `end` is sent, for the first time or again.
    pub fn path_sent(&mut self, start: Position, end: Position) {
        let bytes = end.since(start) as u32 + self.overhead();
        // The largest of those on their way stands for all of them.
        if bytes > self.path.acknowledged && self.path.sent.is_none_or(|sent| bytes > sent.bytes) {
            self.path.sent = Some(Sent { bytes, end });
        }
    }

    /// Something new was acknowledged.
    pub fn path_progress(&mut self, store: &mut Store) {
        let una = self.send.una;
        let path = &mut self.path;
        path.timeouts = 0;
        if let Some(sent) = path.sent
            && una >= sent.end
        {
            path.acknowledged = path.acknowledged.max(sent.bytes);
            path.sent = None;
        }
        if path.claim.is_some_and(|claim| una > claim.seq) {
            path.claim = None;
            store.counters.add(Counter::IcmpTooBigRefuted);
        }
    }

    /// The retransmission timer ran out, before everything is sent again.
    pub fn path_timeout(&mut self, store: &mut Store, now: Instant) {
        if let Some(probe) = self.path.probe {
            store.counters.add(Counter::TcpMtuProbesLost);
            self.path.probe_failed(probe.bytes, now);
        }
        // What was cut or sent again says nothing about the size of what arrives.
        self.path.sent = None;
        if let Some(claim) = self.path.claim {
            store.counters.add(Counter::IcmpTooBig);
            return self.lower_path(store, claim.mtu, claim.mtu + 1, now + RAISE_AFTER);
        }
        let Some(first) = self.send.records.first() else { return };
        let bytes = store.records.get(first).len() as u32 + self.overhead();
        self.path.timeouts += 1;
        let timeouts = self.path.timeouts;
        let next = match timeouts {
            0..BLACK_HOLE_TIMEOUTS => return,
            BLACK_HOLE_TIMEOUTS..VERY_BLACK_HOLE_TIMEOUTS => self.path.base,
            _ => self.path.minimum,
        };
        if bytes > next && self.path.current > next {
            store.counters.add(Counter::TcpBlackHoles);
            let failed = self.path.current + 1;
            self.lower_path(store, next, failed, now + BLACK_HOLE_REST);
            self.path.timeouts = timeouts;
        }
    }

    /// The text of a probe that may go now, in octets: nothing is missing, and enough waits behind it to show its fate.
    pub fn probe_bytes(&mut self, queued: u64, allowed: u64, now: Instant) -> Option<u64> {
        self.path.probe_at?;
        if self.recovery.phase != Phase::Open || self.recovery.lost() > 0 || self.recovery.sacked() > 0 {
            return None;
        }
        let needed = BEHIND_PROBE * u64::from(self.send.mss);
        let bytes = self.path.probe_size(now)?;
        let text = u64::from(bytes - self.overhead());
        (queued.min(allowed) >= text + needed && self.recovery.allowance(&self.send) >= text + needed).then_some(text)
    }

    /// The probe was sent.
    pub fn probe_was_sent(&mut self, store: &mut Store, start: Position, end: Position) {
        store.counters.add(Counter::TcpMtuProbes);
        self.send.records.watch_last(&mut store.records);
        self.path.probe = Some(Probe { bytes: end.since(start) as u32 + self.overhead(), start, end });
    }

    /// What `recovery` was before an acknowledgement or a timer of its own that may show the fate of a probe.
    pub fn before_probe_fate(&self) -> Option<Recovery> {
        self.path.probe.map(|_| self.recovery)
    }

    /// Looks whether the fate of the probe is known now.
    pub fn after_probe_fate(&mut self, store: &mut Store, before: Option<Recovery>, now: Instant) {
        let (Some(before), Some(probe)) = (before, self.path.probe) else { return };
        if self.send.una >= probe.end {
            store.counters.add(Counter::TcpPathMtuRaised);
            self.path.probe_passed(probe.bytes, now);
            self.follow_path();
            return;
        }
        let Some(slot) = self.send.records.take_watched_lost() else { return };
        let record = store.records.get(slot);
        if record.start == probe.start && record.lost {
            let alone = self.recovery.lost() == record.len();
            store.counters.add(Counter::TcpMtuProbesLost);
            self.path.probe_failed(probe.bytes, now);
            if alone {
                self.recovery.forgive(&before);
            }
        }
    }

    /// The probe did not pass, as a router says: it is sent again in pieces.
    fn give_up_probe(&mut self, store: &mut Store, failed: u32, now: Instant) {
        store.counters.add(Counter::TcpMtuProbesLost);
        self.path.probe_failed(failed, now);
        // There is nothing to guess: the next one has the size that the router takes.
        self.path.whole = true;
        let (recovery, mut around) = self.around(store);
        recovery.too_big(&mut around);
    }
}

#[cfg(test)]
mod bounds;

#[cfg(test)]
mod tests {
    use toe_abi::flags;

    use super::*;
    use crate::testing::Bench;

    /// Over an interface of 1500 bytes, to a peer that takes as much.
    fn full_size() -> Bench {
        Bench::established_with(flags::NODELAY, "mss 1460, sackOK")
    }

    #[test]
    fn an_interface_has_no_larger_packets_than_ip() {
        for mtu in [65_536, u32::MAX] {
            let mut b = Bench::new();
            b.mtu = mtu;
            b.connect(flags::NODELAY);
            b.expect("S 0:0 mss 65495");
            let path = PathMtu::new("192.0.2.2".parse().unwrap(), mtu);
            assert_eq!((path.current, path.failed), (65_535, 65_536));
        }
    }

    /// All that the card sends now, acknowledged; the largest text among it.
    fn flow(b: &mut Bench, bytes: u64) -> u32 {
        let end = b.sent() + bytes;
        b.send(bytes);
        let mut largest = 0;
        let mut acked = 0;
        while u64::from(acked) < end + 1 {
            b.now = b.now + Duration::from_ms(10);
            while let Some((from, to)) = b.next_text() {
                largest = largest.max(to - from);
                acked = acked.max(to);
            }
            b.peer(&format!("A 1 ack {acked}"));
        }
        largest
    }

    #[test]
    fn a_packet_too_big_at_the_beginning_is_believed_at_once() {
        // RFC 1191, 6.4; RFC 5927, 7.3.1.
        let mut b = full_size();
        b.send(2920);
        let first = b.next_frame().unwrap();
        assert_eq!(first[14 + 6] & 0x40, 0x40, "DF");
        b.expect("PA 1461:2921");
        b.too_big(1400, &first);
        b.expect("A 1:1361");
        b.expect("A 1361:1461");
        b.expect("A 1461:2821");
        b.expect("PA 2821:2921");
        b.nothing();
        assert_eq!((b.notice.path_mtu, b.count("icmp-too-big"), b.count("tcp-timeouts")), (1400, 1, 0));
        b.peer("A 1 ack 2921");
        b.send(2000);
        b.expect("A 2921:4281");
    }

    #[test]
    fn a_claim_against_what_was_seen_to_pass_waits_for_a_timeout() {
        // RFC 5927, 7.3.2.
        let mut b = full_size();
        assert_eq!(flow(&mut b, 1460), 1460);
        b.send(1460);
        let sent = b.next_frame().unwrap();
        b.too_big(1400, &sent);
        b.nothing();
        assert_eq!((b.count("icmp-too-big-waits"), b.count("icmp-too-big")), (1, 0));
        b.wait_ms(1000);
        let again: Vec<_> = std::iter::from_fn(|| b.next()).collect();
        assert!(again.iter().any(|s| s.contains(" 1461:2821 ")), "{again:?}");
        assert_eq!((b.notice.path_mtu, b.count("icmp-too-big")), (1400, 1));
    }

    #[test]
    fn a_forged_claim_does_nothing_to_a_connection_that_makes_progress() {
        // RFC 5927, 7.3.4.
        let mut b = full_size();
        flow(&mut b, 1460);
        for _ in 0..50 {
            b.send(1460);
            let sent = b.next_frame().unwrap();
            b.too_big(600, &sent);
            b.peer(&format!("A 1 ack {}", b.sent() + 1));
        }
        assert_eq!((b.count("icmp-too-big-refuted"), b.count("tcp-path-mtu-lowered")), (50, 0));
        assert_eq!(flow(&mut b, 1460), 1460);
    }

    #[test]
    fn claims_that_cannot_be_are_ignored() {
        let mut b = full_size();
        b.send(1000);
        let small = b.next_frame().unwrap();
        b.too_big(1400, &small);
        assert_eq!(b.count("icmp-too-big-nonsense"), 1, "the packet was not larger than that");
        b.send(1460);
        let large = b.next_frame().unwrap();
        b.too_big(1499, &large);
        b.too_big(1499, &large);
        assert_eq!((b.count("icmp-too-big"), b.count("icmp-too-big-known"), b.notice.path_mtu), (1, 1, 1499));
    }

    #[test]
    fn no_claim_goes_below_the_minimum() {
        let mut b = full_size();
        b.send(1460);
        let sent = b.next_frame().unwrap();
        b.too_big(68, &sent);
        b.expect("A 1:513");
        assert_eq!(b.notice.path_mtu, PATH_MTU_MIN_V4);

        let mut b = Bench::over_ipv6();
        b.connect(flags::NODELAY);
        b.expect("S 0 <mss 1440>");
        b.peer("SA 0 ack 1 <mss 1440>");
        b.expect("A 1:1");
        b.send(1440);
        let sent = b.next_frame().unwrap();
        b.too_big(1279, &sent);
        b.nothing();
        assert_eq!(b.count("icmp-too-big-below-minimum"), 1);
        b.too_big(1280, &sent);
        b.expect("A 1:1221");
    }

    #[test]
    fn a_router_that_does_not_say_its_mtu_means_the_next_plateau() {
        let mut b = full_size();
        b.send(1460);
        let sent = b.next_frame().unwrap();
        b.too_big(0, &sent);
        b.expect("A 1:1453");
        assert_eq!(b.notice.path_mtu, 1492);
    }

    #[test]
    fn ten_minutes_later_a_larger_packet_is_tried_and_kept() {
        // RFC 1191, 6.3.
        let mut b = full_size();
        b.send(1460);
        let sent = b.next_frame().unwrap();
        b.too_big(1000, &sent);
        while b.next().is_some() {}
        b.peer("A 1 ack 1461");
        assert_eq!(flow(&mut b, 20_000), 960);
        b.wait_ms(599_000);
        while b.next().is_some() {}
        assert_eq!(flow(&mut b, 20_000), 960);
        b.wait_ms(2_000);
        assert_eq!(flow(&mut b, 20_000), 1460);
        assert_eq!((b.count("tcp-mtu-probes"), b.count("tcp-path-mtu-raised"), b.notice.path_mtu), (1, 1, 1500));
        assert_eq!(flow(&mut b, 20_000), 1460);
        assert_eq!(b.count("tcp-mtu-probes"), 1);
    }

    /// Sends so many octets over a path that lets only packets up to `mtu` pass and says nothing; the peer reports
    /// what it has. Gives the number of segments that were lost on the path.
    fn black_hole(b: &mut Bench, bytes: u64, mtu: u32) -> u32 {
        b.send(bytes);
        let end = b.sent() as u32 + 1;
        let mut have = vec![false; end as usize];
        let acked = |have: &[bool]| 1 + have.iter().skip(1).take_while(|h| **h).count() as u32;
        (1..end - bytes as u32).for_each(|i| have[i as usize] = true);
        let mut swallowed = 0;
        for _ in 0..10_000 {
            let mut news = Vec::new();
            while let Some((from, to)) = b.next_text() {
                if to - from + 40 > mtu {
                    swallowed += 1;
                } else {
                    news.push((from, to));
                }
            }
            if news.is_empty() {
                if acked(&have) == end {
                    return swallowed;
                }
                b.wait_for_segment();
                continue;
            }
            b.now = b.now + Duration::from_ms(10);
            for (from, to) in news {
                b.now = b.now + Duration::from_us(10);
                have[from as usize..to as usize].fill(true);
                let ack = acked(&have);
                if from > ack {
                    b.peer(&format!("A 1 ack {ack} <sack {from}:{to}>"));
                } else {
                    b.peer(&format!("A 1 ack {ack}"));
                }
            }
        }
        panic!("no end");
    }

    #[test]
    fn a_black_hole_is_left_and_its_edge_is_found() {
        // RFC 4821.
        let mut b = full_size();
        black_hole(&mut b, 50_000, 1300);
        assert_eq!((b.count("tcp-black-holes"), b.notice.path_mtu), (1, BASE_V4));
        b.wait_ms(10_000);
        for _ in 0..10 {
            black_hole(&mut b, 50_000, 1300);
            b.wait_ms(1_000);
        }
        assert!((1300 - PRECISION..=1300).contains(&b.notice.path_mtu), "{}", b.notice.path_mtu);
        let timeouts = b.count("tcp-timeouts");
        let probes = b.count("tcp-mtu-probes");
        assert!(b.count("tcp-mtu-probes-lost") > 0 && probes < 12, "{probes}");
        // It stays there, without a further loss, until it is time to look again.
        for _ in 0..10 {
            assert_eq!(black_hole(&mut b, 50_000, 1300), 0);
            b.wait_ms(1_000);
        }
        assert_eq!((b.count("tcp-mtu-probes"), b.count("tcp-timeouts")), (probes, timeouts));
        b.wait_ms(600_000);
        assert_eq!(flow(&mut b, 50_000), 1460);
        assert_eq!(b.notice.path_mtu, 1500);
    }

    #[test]
    fn a_very_small_hole_is_left_in_two_steps() {
        let mut b = full_size();
        black_hole(&mut b, 20_000, 800);
        assert_eq!((b.count("tcp-black-holes"), b.notice.path_mtu), (2, PATH_MTU_MIN_V4));
    }

    #[test]
    fn the_loss_of_a_probe_does_not_lower_the_window() {
        // RFC 4821, 7.5.
        let mut b = full_size();
        black_hole(&mut b, 50_000, 1300);
        b.wait_ms(10_000);
        let before = b.info().congestion_window;
        assert_eq!(black_hole(&mut b, 40_000, 1300), 1);
        let info = b.info();
        assert_eq!(b.count("tcp-mtu-probes-lost"), 1);
        assert!(info.congestion_window >= before, "{before} {}", info.congestion_window);
        assert_eq!(info.congestion_state, 0);
    }

    #[test]
    fn a_dead_peer_is_no_black_hole_for_small_segments() {
        let mut b = full_size();
        b.send(500);
        b.wait_ms(20_000);
        assert_eq!((b.count("tcp-black-holes"), b.count("tcp-path-mtu-lowered")), (0, 0));
    }

    #[test]
    fn a_router_may_answer_a_probe() {
        let mut b = full_size();
        b.send(1460);
        let sent = b.next_frame().unwrap();
        b.too_big(1000, &sent);
        while b.next().is_some() {}
        b.peer("A 1 ack 1461");
        flow(&mut b, 20_000);
        b.wait_ms(600_000);
        b.send(8_000);
        let probe = b.next_frame().unwrap();
        assert_eq!(probe.len(), 1514);
        while b.next().is_some() {}
        b.too_big(1200, &probe);
        let again: Vec<_> = std::iter::from_fn(|| b.next_text()).collect();
        assert_eq!(again.iter().map(|(a, z)| z - a).collect::<Vec<_>>(), [960, 500]);
        b.peer(&format!("A 1 ack {}", b.sent() + 1));
        b.wait_ms(1_000);
        assert_eq!(flow(&mut b, 20_000), 1160);
        assert_eq!(b.notice.path_mtu, 1200);
    }
}

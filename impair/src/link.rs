//! The link itself: a heap of frames by the time at which they arrive.
//!
//! **Damage is always one bit**, behind the Ethernet header. A one's complement sum that covers the bit then changes,
//! so a receiver that checks the IPv4, TCP, UDP and ICMP checksums always finds out; several bits could cancel each
//! other out. For the same reason the two fields that say how far a checksum reaches without an exact sum over themselves
//! (IPv4's header length, IPv6's payload length) are spared: moving the end of a sum escapes it once in 65,536 times.
//!
//! **Order.** Delay and jitter alone keep the order: no frame arrives before one that was sent earlier. A frame that is
//! chosen for reordering is held back for up to its delay and jitter again, two milliseconds at least, and the frames
//! after it do not wait for it.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::{Random, Rate, Share, Spec};

const ETHERNET_HEADER_BYTES: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const HELD_BACK_US_MIN: u64 = 2_000;
const NS_PER_S: u128 = 1_000_000_000;

/// What became of the frames of a link, counted since it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Frames pushed.
    pub offered: u64,
    /// Of these, longer than the link's MTU.
    pub too_long: u64,
    /// Of these, lost by chance.
    pub lost: u64,
    /// Extra copies made.
    pub duplicated: u64,
    /// Frames and copies marked with congestion experienced.
    pub marked: u64,
    /// Frames and copies in which a bit was turned over.
    pub corrupted: u64,
    /// Frames and copies dropped because too much was waiting for the link's rate.
    pub queue_dropped: u64,
    /// Frames and copies handed out.
    pub delivered: u64,
    /// Of these, handed out after one that was sent later.
    pub reordered: u64,
}

/// One direction of a bad wire.
#[derive(Debug)]
pub struct Link {
    spec: Spec,
    random: Random,
    statistics: Statistics,
    travelling: BinaryHeap<Travelling>,
    /// When the last accepted frame has left the queue, in nanoseconds.
    idle_from_ns: u64,
    /// The latest arrival of a frame that was not held back.
    last_arrival_us: u64,
    /// Number of the next frame or copy.
    next_number: u64,
    /// One more than the highest number handed out.
    delivered_below: u64,
    /// Whether a stretch of loss is on.
    in_burst: bool,
    /// The last frame that was too long.
    too_long: Option<Vec<u8>>,
    /// Buffers of frames that are no more.
    spare: Vec<Vec<u8>>,
}

/// The most buffers that a link keeps for later frames.
const SPARE_MAX: usize = 64;

/// A frame under way. Greater means due earlier, as `BinaryHeap` hands out the greatest.
#[derive(Debug)]
struct Travelling {
    due_us: u64,
    number: u64,
    frame: Vec<u8>,
}

impl Ord for Travelling {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due_us, other.number).cmp(&(self.due_us, self.number))
    }
}

impl PartialOrd for Travelling {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Travelling {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Travelling {}

impl Link {
    /// A link that does what `spec` says, with all chance from `seed`.
    pub fn new(spec: Spec, seed: u64) -> Self {
        Self {
            spec,
            random: Random::new(seed),
            statistics: Statistics::default(),
            travelling: BinaryHeap::new(),
            idle_from_ns: 0,
            last_arrival_us: 0,
            next_number: 0,
            delivered_below: 0,
            in_burst: false,
            too_long: None,
            spare: Vec::new(),
        }
    }

    /// From now on it does what `spec` says; what travels already arrives as it would have.
    pub fn set_spec(&mut self, spec: Spec) {
        self.spec = spec;
    }

    /// An empty buffer for the next frame: that of one that is no more, if there is one, so that frames need no
    /// allocation.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes the buffer of a frame that was handed out and is not needed any more.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// The last frame that was longer than the link's MTU, once: a router would now tell its sender.
    pub fn take_too_long(&mut self) -> Option<Vec<u8>> {
        self.too_long.take()
    }

    /// What it does.
    pub fn spec(&self) -> Spec {
        self.spec
    }

    /// What it did so far.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Sends `frame`, Ethernet header first, at `now_us`, microseconds since any zero. Time does not go back.
    pub fn push(&mut self, now_us: u64, frame: Vec<u8>) {
        self.statistics.offered += 1;
        if self.spec.mtu.is_some_and(|mtu| frame.len() > mtu as usize + ETHERNET_HEADER_BYTES) {
            self.statistics.too_long += 1;
            self.too_long = Some(frame);
            return;
        }
        if self.is_lost_in_burst() | self.happens(self.spec.loss) {
            self.statistics.lost += 1;
            self.give_back(frame);
            return;
        }
        if self.happens(self.spec.duplicate) {
            self.statistics.duplicated += 1;
            let mut copy = self.buffer();
            copy.extend_from_slice(&frame);
            self.send(now_us, copy);
        }
        self.send(now_us, frame);
    }

    /// A frame that has arrived at `now_us`; to be called until `None`.
    pub fn pop(&mut self, now_us: u64) -> Option<Vec<u8>> {
        self.next_us().filter(|&due_us| due_us <= now_us)?;
        let Travelling { number, frame, due_us: _ } = self.travelling.pop()?;
        self.statistics.delivered += 1;
        if number < self.delivered_below {
            self.statistics.reordered += 1;
        }
        self.delivered_below = self.delivered_below.max(number + 1);
        Some(frame)
    }

    /// When the next frame arrives, in microseconds; `None` while nothing is under way.
    pub fn next_us(&self) -> Option<u64> {
        self.travelling.peek().map(|t| t.due_us)
    }

    /// A step of the model of [`crate::Burst`]; whether this frame is lost by it.
    fn is_lost_in_burst(&mut self) -> bool {
        let Some(burst) = self.spec.burst else {
            self.in_burst = false;
            return false;
        };
        let lost = self.in_burst && self.happens(burst.loss);
        let turns = self.happens(if self.in_burst { burst.end } else { burst.begin });
        self.in_burst ^= turns;
        lost
    }

    /// Sends one frame or copy.
    fn send(&mut self, now_us: u64, mut frame: Vec<u8>) {
        if self.happens(self.spec.mark) && mark(&mut frame) {
            self.statistics.marked += 1;
        }
        if self.happens(self.spec.corrupt) && turn_a_bit(&mut frame, &mut self.random) {
            self.statistics.corrupted += 1;
        }
        let Some(sent_us) = self.sent_us(now_us, frame.len()) else {
            self.statistics.queue_dropped += 1;
            self.give_back(frame);
            return;
        };
        let mut arrival_us = sent_us + self.spec.delay_us + self.random.between(0, self.spec.jitter_us);
        if self.spec.exponential_us != 0 {
            arrival_us += self.random.exponential(self.spec.exponential_us);
        }
        let in_order_us = arrival_us.max(self.last_arrival_us);
        let due_us = if self.happens(self.spec.reorder) {
            let most_us = (self.spec.delay_us + self.spec.jitter_us).max(HELD_BACK_US_MIN);
            in_order_us + self.random.between(1, most_us)
        } else {
            self.last_arrival_us = in_order_us;
            in_order_us
        };
        self.travelling.push(Travelling { due_us, number: self.next_number, frame });
        self.next_number += 1;
    }

    /// When the last bit of a frame has left, rounded up; `None` if the queue has no room for it.
    fn sent_us(&mut self, now_us: u64, bytes: usize) -> Option<u64> {
        let Some(Rate { bits_per_s, queue_bytes }) = self.spec.rate else {
            return Some(now_us);
        };
        let rate = u128::from(bits_per_s.max(1));
        let now_ns = now_us.saturating_mul(1000);
        let waiting_ns = self.idle_from_ns.saturating_sub(now_ns);
        let waiting_bytes = u128::from(waiting_ns) * rate / (8 * NS_PER_S);
        // A frame longer than the whole queue still passes when nothing waits: it is being sent, not waiting.
        if waiting_ns > 0 && waiting_bytes + bytes as u128 > u128::from(queue_bytes) {
            return None;
        }
        let sending_ns = (bytes as u128 * 8 * NS_PER_S).div_ceil(rate) as u64;
        self.idle_from_ns = now_ns.saturating_add(waiting_ns).saturating_add(sending_ns);
        Some(self.idle_from_ns.div_ceil(1000))
    }

    /// Whether what happens to a `share` of all frames happens to this one. Draws nothing for a fault that never
    /// happens.
    fn happens(&mut self, share: Share) -> bool {
        share != Share::NONE && self.random.below(Share::ALL.as_ppm().into()) < share.as_ppm().into()
    }
}

/// Sets congestion experienced in a packet whose sender allows it (RFC 3168, section 5); `false` if it does not, or if it
/// is set already.
fn mark(frame: &mut [u8]) -> bool {
    if frame.len() < ETHERNET_HEADER_BYTES + 20 {
        return false;
    }
    let shift = match [frame[12], frame[13]] {
        ETHERTYPE_IPV4 => 0,
        ETHERTYPE_IPV6 => 4,
        _ => return false,
    };
    let field = frame[15] >> shift & 3;
    if field == 0 || field == 3 {
        return false;
    }
    let before = u16::from_be_bytes([frame[14], frame[15]]);
    frame[15] |= 3 << shift;
    if shift == 0 {
        // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
        let after = u16::from_be_bytes([frame[14], frame[15]]);
        let sum = u32::from(!u16::from_be_bytes([frame[24], frame[25]])) + u32::from(!before) + u32::from(after);
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        frame[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    true
}

/// Turns one bit over behind the Ethernet header; `false` if there is nothing behind it. See the module's head for
/// the fields that are spared.
pub fn turn_a_bit(frame: &mut [u8], random: &mut Random) -> bool {
    if frame.len() <= ETHERNET_HEADER_BYTES {
        return false;
    }
    let ethertype = [frame[12], frame[13]];
    let payload = &mut frame[ETHERNET_HEADER_BYTES..];
    loop {
        let bit = random.below(payload.len() as u64 * 8) as usize;
        let (byte, mask) = (bit / 8, 1u8 << (bit % 8));
        let spared = match ethertype {
            ETHERTYPE_IPV4 => byte == 0 && mask <= 8,
            ETHERTYPE_IPV6 => byte == 4 || byte == 5,
            _ => false,
        };
        // The version's bits at least are never spared, so this ends.
        if !spared {
            payload[byte] ^= mask;
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(spec: &str, seed: u64) -> Link {
        Link::new(spec.parse().unwrap(), seed)
    }

    /// Sends `count` numbered frames of 100 bytes, one every `gap_us`, and returns arrivals as (time, frame).
    fn run(link: &mut Link, count: u32, gap_us: u64) -> Vec<(u64, Vec<u8>)> {
        let mut arrivals = Vec::new();
        for i in 0..count {
            let now_us = u64::from(i) * gap_us;
            while let Some(due_us) = link.next_us().filter(|&due_us| due_us < now_us) {
                arrivals.extend(link.pop(due_us).map(|f| (due_us, f)));
            }
            let mut frame = vec![0; 100];
            frame[96..].copy_from_slice(&i.to_be_bytes());
            link.push(now_us, frame);
        }
        while let Some(due_us) = link.next_us() {
            assert_eq!(link.pop(due_us - 1), None, "never early");
            arrivals.extend(link.pop(due_us).map(|f| (due_us, f)));
        }
        arrivals
    }

    fn number(frame: &[u8]) -> u32 {
        u32::from_be_bytes(frame[96..].try_into().unwrap())
    }

    #[test]
    fn a_perfect_link_does_nothing_at_once() {
        let mut link = link("none", 1);
        link.push(5, vec![1; 60]);
        link.push(5, vec![2; 60]);
        assert_eq!(link.next_us(), Some(5));
        assert_eq!(link.pop(5), Some(vec![1; 60]));
        assert_eq!(link.pop(5), Some(vec![2; 60]));
        assert_eq!((link.pop(5), link.next_us()), (None, None));
        assert_eq!(link.statistics(), Statistics { offered: 2, delivered: 2, ..Statistics::default() });
    }

    #[test]
    fn the_same_seed_does_the_same_and_another_does_not() {
        let spec = "loss=5%,duplicate=5%,reorder=5%,corrupt=5%,delay=3ms,jitter=2ms,rate=10mbit,queue=4kB";
        let (a, b, c) = (link(spec, 7), link(spec, 7), link(spec, 8));
        let [a, b, c] = [a, b, c].map(|mut l| (run(&mut l, 500, 50), l.statistics()));
        assert_eq!(a, b);
        assert_ne!(a, c);
    }

    #[test]
    fn each_fault_happens_as_often_as_said() {
        for (spec, count) in [
            ("loss=5%", (|s| s.lost) as fn(Statistics) -> u64),
            ("duplicate=5%", |s| s.duplicated),
            ("corrupt=5%", |s| s.corrupted),
            ("reorder=5%", |s| s.reordered),
        ] {
            let mut link = link(spec, 1);
            run(&mut link, 10_000, 1);
            let n = count(link.statistics());
            assert!((400..600).contains(&n), "{spec}: {n} of 10000");
        }
        let mut all = link("loss=100%", 1);
        assert!(run(&mut all, 100, 1).is_empty());
    }

    #[test]
    fn frames_are_accounted_for() {
        let mut link = link("loss=5%,duplicate=5%,corrupt=1%,rate=1mbit,queue=1kB", 3);
        let arrivals = run(&mut link, 5_000, 700);
        let s = link.statistics();
        assert!(s.queue_dropped > 0);
        assert_eq!(s.delivered, arrivals.len() as u64);
        assert_eq!(s.offered + s.duplicated, s.too_long + s.lost + s.queue_dropped + s.delivered);
    }

    #[test]
    fn jitter_alone_keeps_the_order_and_its_bounds() {
        let mut link = link("delay=5ms,jitter=20ms", 1);
        let arrivals = run(&mut link, 1_000, 100);
        assert!(arrivals.iter().enumerate().all(|(i, (_, f))| number(f) == i as u32));
        for (t, f) in &arrivals {
            let travelled_us = t - u64::from(number(f)) * 100;
            assert!((5_000..=25_000).contains(&travelled_us), "{travelled_us}");
        }
        assert_eq!(link.statistics().reordered, 0);
    }

    #[test]
    fn reordering_lets_later_frames_overtake_and_counts_it() {
        let mut link = link("reorder=10%,delay=5ms", 1);
        let arrivals = run(&mut link, 1_000, 100);
        let mut highest = 0;
        let overtaken = arrivals.iter().filter(|(_, f)| {
            let late = number(f) < highest;
            highest = highest.max(number(f));
            late
        });
        assert_eq!(overtaken.count() as u64, link.statistics().reordered);
        assert!((60..140).contains(&link.statistics().reordered));
    }

    #[test]
    fn damage_is_one_bit_behind_the_ethernet_header() {
        for ethertype in [ETHERTYPE_IPV4, ETHERTYPE_IPV6, [0x08, 0x06]] {
            let mut link = link("corrupt=100%", 1);
            let mut hit = [0u8; 54];
            for _ in 0..20_000 {
                let mut sent = vec![0u8; 54];
                sent[12..14].copy_from_slice(&ethertype);
                link.push(0, sent.clone());
                let got = link.pop(0).unwrap();
                let flips: u32 = got.iter().zip(&sent).map(|(a, b)| (a ^ b).count_ones()).sum();
                assert_eq!(flips, 1);
                hit.iter_mut().zip(got.iter().zip(&sent)).for_each(|(h, (a, b))| *h |= a ^ b);
            }
            assert_eq!(hit[..14], [0; 14]);
            let mut expected = [0xff; 40];
            match ethertype {
                ETHERTYPE_IPV4 => expected[0] = 0xf0,
                ETHERTYPE_IPV6 => expected[4..6].fill(0),
                _ => (),
            }
            assert_eq!(hit[14..], expected);
        }
        let mut link = link("corrupt=100%", 1);
        link.push(0, vec![0; 14]);
        assert_eq!(link.pop(0), Some(vec![0; 14]));
        assert_eq!(link.statistics().corrupted, 0, "there was nothing to damage");
    }

    #[test]
    fn loss_in_stretches_has_their_length_and_share() {
        let mut link = link("burst=1%,burst-end=20%", 1);
        let arrivals = run(&mut link, 50_000, 1);
        let lost = link.statistics().lost;
        // A stretch every hundred frames, five long: one frame in 21.
        assert!((2_000..2_800).contains(&lost), "{lost}");
        let gaps = arrivals.windows(2).filter(|w| number(&w[1].1) > number(&w[0].1) + 1).count() as u64;
        assert!((4..=6).contains(&(lost / gaps)), "{lost} lost in {gaps} gaps");
    }

    #[test]
    fn exponential_delay_keeps_the_order_and_has_its_mean() {
        let mut link = link("exponential=5ms", 1);
        let arrivals = run(&mut link, 2_000, 1_000_000);
        assert!(arrivals.iter().enumerate().all(|(i, (_, f))| number(f) == i as u32));
        let travelled: u64 = arrivals.iter().map(|(t, f)| t - u64::from(number(f)) * 1_000_000).sum();
        assert!((4_500..5_500).contains(&(travelled / 2_000)), "{travelled}");
    }

    #[test]
    fn marks_are_made_only_where_they_are_allowed_and_the_checksum_stays_right() {
        let sum = |b: &[u8]| {
            let words = b.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
            let sum = words.sum::<u32>();
            (sum & 0xffff) + (sum >> 16)
        };
        let mut link = link("mark=100%", 1);
        for (ecn, expected) in [(0u8, 0u8), (1, 3), (2, 3), (3, 3)] {
            let mut v4 = vec![0x11; 54];
            v4[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0xb8 | ecn]);
            v4[24..26].fill(0);
            let checksum = !(sum(&v4[14..34]) as u16);
            v4[24..26].copy_from_slice(&checksum.to_be_bytes());
            link.push(0, v4);
            let got = link.pop(0).unwrap();
            assert_eq!((got[15], sum(&got[14..34])), (0xb8 | expected, 0xffff));
            let mut v6 = vec![0x22; 54];
            v6[12..16].copy_from_slice(&[0x86, 0xdd, 0x6b, 0x80 | ecn << 4]);
            link.push(0, v6);
            assert_eq!(link.pop(0).unwrap()[14..16], [0x6b, 0x80 | expected << 4]);
        }
        assert_eq!(link.statistics().marked, 4);
    }

    #[test]
    fn what_is_too_long_is_kept_for_whoever_tells_its_sender() {
        let mut link = link("mtu=100B", 1);
        link.push(0, vec![1; 114]);
        link.push(0, vec![2; 115]);
        assert_eq!((link.pop(0), link.pop(0)), (Some(vec![1; 114]), None));
        assert_eq!((link.take_too_long(), link.take_too_long()), (Some(vec![2; 115]), None));
        assert_eq!(link.statistics().too_long, 1);
    }

    #[test]
    fn buffers_come_back() {
        let mut link = link("loss=100%", 1);
        let buffer = Vec::with_capacity(77);
        link.push(0, buffer);
        assert_eq!(link.buffer().capacity(), 77);
        link.give_back(vec![1; 10]);
        assert!(link.buffer().is_empty());
    }

    #[test]
    fn the_rate_spaces_frames_and_the_queue_bounds_them() {
        let mut link = link("rate=8mbit,queue=300B", 1);
        for i in 0..5 {
            link.push(1_000, vec![i; 100]);
        }
        // 100 bytes take 100 us. Three fill the queue, the one being sent included.
        let arrivals: Vec<_> = std::iter::from_fn(|| {
            let due_us = link.next_us()?;
            Some((due_us, link.pop(due_us)?[0]))
        })
        .collect();
        assert_eq!(arrivals, [(1_100, 0), (1_200, 1), (1_300, 2)]);
        assert_eq!(link.statistics().queue_dropped, 2);
        link.push(2_000, vec![9; 1000]);
        assert_eq!(link.next_us(), Some(3_000), "longer than the queue, but nothing waits");
    }
}

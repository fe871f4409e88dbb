//! How fast data is delivered: a sample for every acknowledgement (the method of draft-cheng-iccrg-delivery-rate-estimation).
//!
//! Every segment takes along how much had been delivered when it was sent, and when. When it is delivered itself, what
//! was delivered meanwhile over the time that took is a rate: the longer of the time in which it was sent and the
//! time in which it was acknowledged, so that neither bunched segments nor bunched acknowledgements look fast.

use crate::time::{Duration, Instant};

/// What a segment takes along.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// Bytes delivered when it was sent.
    delivered: u64,
    /// When the last of them were.
    delivered_at: Instant,
    /// When the segment was sent whose delivery that was.
    first_sent_at: Instant,
    /// The program had given less than could be sent.
    is_limited: bool,
}

/// A measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateSample {
    /// Bytes per second.
    pub bytes_per_s: u64,
    /// Bytes that were delivered when the segment was sent that it is of.
    pub delivered_before: u64,
    /// The program, not the path, was the limit.
    pub is_limited: bool,
}

/// The count of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delivery {
    /// Bytes delivered since the connection began.
    pub delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// Samples of what was sent before so much was delivered are limited by the program.
    limited_until: u64,
    /// Of the segments that an acknowledgement has delivered, the one sent last.
    best: Option<(Stamp, Instant)>,
}

impl Delivery {
    /// A segment is sent; `is_first`: nothing else is in flight.
    pub fn sent(&mut self, is_first: bool, now: Instant) -> Stamp {
        if is_first {
            (self.delivered_at, self.first_sent_at) = (now, now);
        }
        Stamp {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            is_limited: self.limited_until > self.delivered,
        }
    }

    /// There is nothing to send, and the window has room beside what is in flight.
    pub fn limited(&mut self, in_flight: u64) {
        self.limited_until = (self.delivered + in_flight).max(1);
    }

    /// A segment was delivered.
    pub fn segment(&mut self, stamp: Stamp, sent_at: Instant) {
        if self.best.is_none_or(|(best, at)| (best.delivered, at) <= (stamp.delivered, sent_at)) {
            self.best = Some((stamp, sent_at));
        }
    }

    /// The acknowledgement is read: it delivered so much. `shortest`: no path is faster than this round trip, and a time
    /// below it measures nothing.
    pub fn acknowledged(&mut self, bytes: u64, shortest: Duration, now: Instant) -> Option<RateSample> {
        self.delivered += bytes;
        if bytes > 0 {
            self.delivered_at = now;
        }
        let (stamp, sent_at) = self.best.take()?;
        self.first_sent_at = sent_at;
        let took = sent_at.since(stamp.first_sent_at).max(now.since(stamp.delivered_at));
        if took < shortest || took == Duration::ZERO {
            return None;
        }
        let delivered = self.delivered.saturating_sub(stamp.delivered);
        Some(RateSample {
            bytes_per_s: delivered.saturating_mul(1_000_000) / took.as_us(),
            delivered_before: stamp.delivered,
            is_limited: stamp.is_limited,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_us(ms * 1000)
    }

    #[test]
    fn a_steady_flow_measures_its_rate() {
        let mut d = Delivery::default();
        // A segment of 1000 bytes every millisecond, over a round trip of 10 ms.
        let stamps: Vec<_> = (0..10).map(|i| d.sent(i == 0, ms(i))).collect();
        let mut last = None;
        for (i, stamp) in stamps.into_iter().enumerate() {
            let i = i as u64;
            d.segment(stamp, ms(i));
            last = d.acknowledged(1000, Duration::from_ms(10), ms(i + 10));
        }
        // The tenth: ten segments in the 19 ms since the first was sent.
        assert_eq!(last.unwrap().bytes_per_s, 10_000 * 1000 / 19);
        let stamp = d.sent(false, ms(20));
        d.segment(stamp, ms(20));
        assert_eq!(d.acknowledged(10_000, Duration::from_ms(10), ms(30)).unwrap().bytes_per_s, 909_090);
    }

    #[test]
    fn bunched_acknowledgements_are_not_faster_than_what_was_sent() {
        let mut d = Delivery::default();
        let stamps: Vec<_> = (0..10).map(|i| d.sent(i == 0, ms(10 * i))).collect();
        for (i, stamp) in stamps.into_iter().enumerate() {
            d.segment(stamp, ms(10 * i as u64));
        }
        // All at once: 10,000 bytes, sent in 90 ms and acknowledged 100 ms after the first.
        let sample = d.acknowledged(10_000, Duration::from_ms(10), ms(100)).unwrap();
        assert_eq!(sample.bytes_per_s, 100_000);
    }

    #[test]
    fn what_the_program_limits_is_marked_until_that_is_delivered() {
        let mut d = Delivery::default();
        d.limited(1000);
        let stamp = d.sent(true, ms(0));
        d.segment(stamp, ms(0));
        assert!(d.acknowledged(1000, Duration::from_ms(1), ms(10)).unwrap().is_limited);
        let stamp = d.sent(true, ms(20));
        d.segment(stamp, ms(20));
        assert!(!d.acknowledged(1000, Duration::from_ms(1), ms(30)).unwrap().is_limited);
    }

    #[test]
    fn of_several_segments_the_one_sent_last_measures() {
        let later = Stamp { delivered: 500, ..Stamp::default() };
        let sample = |order: [(Stamp, Instant); 2]| {
            let mut d = Delivery { delivered: 500, ..Delivery::default() };
            order.into_iter().for_each(|(stamp, at)| d.segment(stamp, at));
            let sample = d.acknowledged(1000, Duration::ZERO, ms(10)).unwrap();
            (sample.delivered_before, d.first_sent_at)
        };
        let (a, b) = ((Stamp::default(), ms(3)), (later, ms(2)));
        assert_eq!((sample([a, b]), sample([b, a])), ((500, ms(2)), (500, ms(2))));
        let (a, b) = ((later, ms(2)), (later, ms(3)));
        assert_eq!((sample([a, b]), sample([b, a])), ((500, ms(3)), (500, ms(3))));
    }

    #[test]
    fn what_took_less_than_the_shortest_round_trip_measures_nothing() {
        for (shortest, rate) in [(10, Some(100_000)), (11, None), (0, Some(100_000))] {
            let mut d = Delivery::default();
            let stamp = d.sent(true, ms(5));
            d.segment(stamp, ms(5));
            assert_eq!(d.acknowledged(1000, Duration::from_ms(shortest), ms(15)).map(|s| s.bytes_per_s), rate);
        }
        let mut d = Delivery::default();
        let stamp = d.sent(true, ms(5));
        d.segment(stamp, ms(5));
        assert_eq!(d.acknowledged(1000, Duration::ZERO, ms(5)), None, "no time at all");
        assert_eq!(d.acknowledged(1000, Duration::ZERO, ms(9)), None, "each segment once");
        assert_eq!(d.delivered, 2000);
    }

    #[test]
    fn the_time_of_delivery_moves_with_what_is_delivered_and_begins_anew_with_a_flight() {
        let mut d = Delivery::default();
        d.acknowledged(0, Duration::ZERO, ms(7));
        assert_eq!(d.sent(false, ms(8)).delivered_at, ms(0));
        d.acknowledged(1, Duration::ZERO, ms(9));
        let stamp = d.sent(false, ms(10));
        assert_eq!((stamp.delivered, stamp.delivered_at, stamp.first_sent_at), (1, ms(9), ms(0)));
        let stamp = d.sent(true, ms(11));
        assert_eq!((stamp.delivered_at, stamp.first_sent_at), (ms(11), ms(11)));
    }

    #[test]
    fn the_programs_limit_lasts_until_what_was_in_flight_is_delivered() {
        let mut d = Delivery { delivered: 1000, ..Delivery::default() };
        assert!(!d.sent(false, ms(0)).is_limited);
        d.limited(500);
        d.acknowledged(499, Duration::ZERO, ms(1));
        assert!(d.sent(false, ms(1)).is_limited);
        d.acknowledged(1, Duration::ZERO, ms(1));
        assert!(!d.sent(false, ms(1)).is_limited);
        let mut d = Delivery::default();
        d.limited(0);
        assert!(d.sent(true, ms(0)).is_limited, "from the first octet on");
    }
}

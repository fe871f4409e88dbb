//! RACK (RFC 8985, section 6): a segment is lost when one sent later was delivered, and a reordering window has passed
//! since. The window is a quarter of the lowest round trip, and wider when the peer reports duplicates.

use super::{Around, DUPLICATES, Phase, Recovery};
use crate::seq::Position;
use crate::tcp::records::{Record, WALK_MAX};
use crate::tcp::rtt::RttEstimator;
use crate::tcp::send::Sender;
use crate::time::{Duration, Instant};

/// RFC 8985's state of the delivered segment that was sent last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rack {
    pub(super) sent_at: Instant,
    pub(super) end: Position,
    pub(super) rtt: Duration,
    /// The highest octet delivered.
    pub(super) fack: Position,
    pub(super) reordering: bool,
}

/// RFC 8985, 6.2, step 4: the reordering window in quarters of the lowest round trip, wider for every round trip in which
/// the peer reports duplicates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widened {
    quarters: u32,
    /// Recoveries for which it stays so.
    recoveries: u32,
    /// SND.NXT when it was last widened.
    at: Option<Position>,
}

/// RFC 8985, 6.2: "RACK.reo_wnd_persist <- 16".
const WIDENED_RECOVERIES: u32 = 16;

impl Widened {
    pub(super) const NOT: Self = Self { quarters: 1, recoveries: 0, at: None };

    pub(super) fn duplicates(&mut self, sender: &Sender) {
        if self.at.is_none_or(|at| sender.una >= at) {
            *self =
                Self { quarters: (self.quarters + 1).min(255), recoveries: WIDENED_RECOVERIES, at: Some(sender.nxt) };
        }
    }

    pub(super) fn recovered(&mut self) {
        self.recoveries = self.recoveries.saturating_sub(1);
        if self.recoveries == 0 {
            self.quarters = 1;
        }
    }
}

impl Recovery {
    /// RFC 8985, 6.2, steps 1 to 3, for one record.
    pub(super) fn newly_delivered(
        &mut self,
        rtt: &RttEstimator,
        record: &Record,
        now: Instant,
        rtt_sample: &mut Option<Duration>,
    ) {
        self.delivery.segment(record.stamp, record.sent_at);
        let took = now.since(record.sent_at);
        let once = record.transmissions == 1;
        //= docs/specs/rfc9293.txt#section-3.8.1
        //# The RTO MUST be computed according to the algorithm in [10], including Karn's algorithm for taking RTT
        //# samples (MUST-18).
        if once {
            // Karn's algorithm: only of what was sent once; of several, the one sent last.
            *rtt_sample = Some(rtt_sample.map_or(took, |s| s.min(took)));
        } else if rtt.min().is_some_and(|min| took < min) {
            // The acknowledgement is of an earlier transmission.
            return;
        }
        let rack = self.rack.get_or_insert(Rack {
            sent_at: record.sent_at,
            end: record.end,
            rtt: took,
            fack: record.end,
            reordering: false,
        });
        if (record.sent_at, record.end) >= (rack.sent_at, rack.end) {
            (rack.sent_at, rack.end, rack.rtt) = (record.sent_at, record.end, took);
        }
        if record.end >= rack.fack {
            rack.fack = record.end;
        } else if once {
            rack.reordering = true;
        }
    }

    /// RFC 8985, 6.2, steps 4 and 5. Marks what is lost and says when to look again: when the first of the others is due,
    /// where the RFC waits for the last.
    pub(super) fn detect(&mut self, a: &mut Around<'_>, now: Instant) {
        self.reorder_at = None;
        let Some(rack) = self.rack else { return };
        let window = self.reordering_window(a, &rack);
        let (mut walk, mut passed) = (WALK_MAX, 0);
        let mut next = a.sender.records.oldest_sent();
        while let Some(slot) = next {
            next = a.records.next_by_fate(slot);
            let record = *a.records.get(slot);
            if (record.sent_at, record.end) >= (rack.sent_at, rack.end) {
                // What was sent later than the youngest delivered. In the same moment the order may be another.
                if record.sent_at > rack.sent_at || passed == WALK_MAX {
                    break;
                }
                passed += 1;
                a.records.steps.one();
                continue;
            }
            let deadline = record.sent_at + rack.rtt + window;
            if deadline > now {
                self.reorder_at = Some(deadline);
                break;
            }
            a.sender.records.mark_lost(a.records, slot, &mut walk);
            self.lost += record.len();
            self.lost_total += record.len();
        }
    }

    fn reordering_window(&self, a: &Around<'_>, rack: &Rack) -> Duration {
        let sacked_segments = self.sacked / u64::from(a.sender.mss.max(1));
        if !rack.reordering && (self.phase != Phase::Open || sacked_segments >= DUPLICATES.into()) {
            return Duration::ZERO;
        }
        let quarter = a.rtt.min().unwrap_or_default().as_us() / 4;
        Duration::from_us(quarter * u64::from(self.widened.quarters)).min(a.rtt.smoothed().unwrap_or_default())
    }
}

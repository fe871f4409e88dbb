//! Loss: how it is found, and what is sent after it.
//!
//! * With SACK, RACK (RFC 8985): a segment is lost when one sent later was delivered and a reordering window has
//!   passed since. A tail that nothing comes after is probed (TLP).
//! * Without SACK, three duplicate acknowledgements, and NewReno's partial ones (RFC 5681, 6582).
//! * When all else fails, the retransmission timeout (RFC 6298): everything not selectively acknowledged is lost.
//!
//! Whether a loss was one at all is judged in `spurious`.
//!
//! While recovering, the window follows proportional rate reduction (RFC 6937); the controller only names the
//! threshold at which recovery ends. What is in flight is `SND.NXT - SND.UNA` less what was delivered and what is
//! lost; a lost segment sent again is in flight again.

mod rack;
#[cfg(test)]
mod tests;
mod undoing;

use rack::{Rack, Widened};

use crate::counters::{Counter, Counters};
use crate::profile::CongestionControl;
use crate::seq::{Position, Seq};
use crate::tcp::congestion::{Acked, AnyController, Controller, Seen, Window};
use crate::tcp::delivery::{Delivery, Stamp};
use crate::tcp::pacing::Pacing;
use crate::tcp::records::{Record, RecordSlot, Records, WALK_MAX};
use crate::tcp::rtt::RttEstimator;
use crate::tcp::send::Sender;
use crate::tcp::spurious::{Frto, Undo};
use crate::time::{Duration, Instant};

/// RFC 5681: duplicate acknowledgements that mean loss; RFC 8985: selectively acknowledged segments after which the
/// reordering window closes.
const DUPLICATES: u32 = 3;

/// RFC 8985, 7.2: how long a peer may delay the acknowledgement of a single segment.
const DELAYED_ACK_WORST: Duration = Duration::from_ms(200);

/// The most records that the SACK blocks of one segment may lead over without anything new.
const SACK_WALK: u32 = 16;

/// What is going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing is known to be lost.
    Open,
    /// Fast recovery, until this is acknowledged.
    Fast,
    /// After a timeout, until this is acknowledged.
    Loss,
}

/// RFC 6937's counts since recovery began, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Prr {
    delivered: u64,
    out: u64,
    flight: u64,
}

/// A tail loss probe under way (RFC 8985, 7).
#[derive(Clone, Copy, Debug)]
struct Probe {
    end: Position,
    retransmission: bool,
}

/// Loss detection and recovery of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    /// What is going on.
    pub phase: Phase,
    /// The window that is allowed.
    pub window: Window,
    /// How fast data is delivered.
    delivery: Delivery,
    /// When segments may go.
    pub pacing: Pacing,
    /// Bytes ever deemed lost.
    lost_total: u64,
    controller: AnyController,
    /// RFC 6582's `recover`: where the present or last recovery ends.
    until: Position,
    /// Bytes in flight that were delivered out of order.
    sacked: u64,
    /// Bytes deemed lost and not sent again.
    lost: u64,
    duplicates: u32,
    rack: Option<Rack>,
    widened: Widened,
    prr: Prr,
    probe: Option<Probe>,
    /// What was before the last reduction of the window.
    undo: Option<Undo>,
    frto: Frto,
    /// The acknowledgement under way delivered something that was sent but once, before the recovery's end.
    original: bool,
    /// Marks of what was sent before this are answered already (RFC 3168, 6.1.2).
    answered: Position,
    /// The window was reduced, and the peer is to know (CWR).
    reduced: bool,
    /// When something was last sent.
    sent_at: Instant,
    /// The most that was in flight in this round trip, in bytes, and where the round trip ends.
    most: u64,
    most_until: Position,
    /// When RACK may find more lost.
    pub reorder_at: Option<Instant>,
}

/// An acceptable acknowledgement.
#[derive(Clone, Copy, Debug)]
pub struct Ack<'a> {
    /// SEG.ACK, at most SND.MAX.
    pub ack: Position,
    /// Its SACK blocks, if SACK is in use.
    pub sack: Option<&'a [(Seq, Seq)]>,
    /// Octets that it reports as received twice.
    pub dsack: Option<(Position, Position)>,
    /// It echoes a mark, and ECN is in use.
    pub echoes: bool,
    /// Its TSecr, if timestamps are in use.
    pub echo: Option<u32>,
    /// Whether it is a duplicate in the sense of RFC 5681, section 2.
    pub duplicate: bool,
}

/// What an acknowledgement or a timer brought.
#[derive(Clone, Copy, Debug)]
struct News {
    /// Bytes newly delivered, selectively acknowledged ones included.
    delivered: u64,
    /// Bytes newly acknowledged.
    acknowledged: u64,
    /// Bytes in flight before.
    flight_before: u64,
    /// The round trip that it measured.
    sample: Option<Duration>,
    /// More was found lost.
    losing: bool,
}

/// What a connection has beside its recovery that an acknowledgement touches.
#[derive(Debug)]
pub struct Around<'a> {
    /// The sending half.
    pub sender: &'a mut Sender,
    /// The pool of records.
    pub records: &'a mut Records,
    /// Round trips.
    pub rtt: &'a mut RttEstimator,
    /// Counters.
    pub counters: &'a mut Counters,
}

impl Recovery {
    /// At the start of a connection: `iss` is its SYN, `window` the initial window in bytes.
    pub fn new(controller: CongestionControl, iss: Position, window: u32) -> Self {
        Self {
            phase: Phase::Open,
            window: Window { congestion: window, threshold: u32::MAX },
            delivery: Delivery::default(),
            pacing: Pacing::default(),
            lost_total: 0,
            controller: AnyController::new(controller),
            until: iss,
            sacked: 0,
            lost: 0,
            duplicates: 0,
            rack: None,
            widened: Widened::NOT,
            prr: Prr::default(),
            probe: None,
            undo: None,
            frto: Frto::Off,
            original: false,
            answered: iss,
            reduced: false,
            sent_at: Instant::default(),
            most: 0,
            most_until: Position::default(),
            reorder_at: None,
        }
    }

    /// Another controller takes over; the window stays.
    pub fn set_controller(&mut self, controller: CongestionControl) {
        self.controller = AnyController::new(controller);
    }

    /// What is in the network, in bytes (RFC 6675's pipe).
    pub fn in_network(&self, sender: &Sender) -> u64 {
        sender.in_flight().saturating_sub(self.sacked + self.lost)
    }

    /// Whether an acknowledgement that says nothing new, with nothing in flight, would find nothing to change.
    pub fn is_at_rest(&self, sender: &Sender) -> bool {
        sender.in_flight() == 0
            && self.phase == Phase::Open
            && self.probe.is_none()
            && self.reorder_at.is_none()
            && !self.original
            && sender.una <= self.most_until
            && self.controller.heeds_progress_alone()
    }

    /// What may be sent now, in bytes.
    pub fn allowance(&self, sender: &Sender) -> u64 {
        u64::from(self.window.congestion).saturating_sub(self.in_network(sender))
    }

    /// Bytes deemed lost and not sent again.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes selectively acknowledged.
    pub fn sacked(&self) -> u64 {
        self.sacked
    }

    /// Takes an acknowledgement. The sender's stream is not touched.
    pub fn acknowledged(&mut self, a: &mut Around<'_>, ack: &Ack<'_>, now: Instant) {
        let flight_before = a.sender.in_flight();
        let lost_total_before = self.lost_total;
        let mut delivered = 0;
        let mut rtt_sample = None;
        let progress = ack.ack > a.sender.una;
        let acknowledged = ack.ack.since(a.sender.una);
        self.original = false;

        if progress {
            delivered += self.cumulative(a, ack.ack, now, &mut rtt_sample);
        }
        match ack.sack {
            Some(blocks) => {
                let mut walk = SACK_WALK;
                for &(left, right) in blocks {
                    a.records.steps.one();
                    let (left, right) = (left.near(a.sender.una), right.near(a.sender.una));
                    if a.sender.una <= left && right <= a.sender.nxt {
                        delivered += self.selective(a, left, right, &mut walk, now, &mut rtt_sample);
                    }
                }
            }
            None => delivered = self.without_sack(a, delivered, progress, ack.duplicate),
        }
        if let Some(rtt) = rtt_sample {
            a.rtt.measured(now, rtt);
        }
        if progress {
            a.rtt.progress();
        }
        if let Some(twice) = ack.dsack {
            self.came_twice(a, twice);
        }
        self.end_probe(a, ack);
        if self.phase == Phase::Fast && delivered > 0 {
            self.probe = None;
        }
        self.judge(a, ack, progress);

        let lost_before = self.lost;
        if ack.sack.is_some() {
            self.detect(a, now);
        } else {
            self.detect_without_sack(a, progress);
        }
        self.change_phase(a, lost_before);
        self.controller.echoed(acknowledged, ack.echoes, a.sender.una, a.sender.nxt);
        let answers = ack.echoes && self.answer_mark(a);
        let acknowledged = if answers { 0 } else { acknowledged };
        let losing = self.lost > lost_before;
        let news = News { delivered, acknowledged, flight_before, sample: rtt_sample, losing };
        let rate = self.delivery.acknowledged(delivered, a.rtt.min().unwrap_or_default(), now);
        if self.controller.rules() {
            let seen = Seen {
                now,
                mss: a.sender.mss,
                delivered,
                delivered_total: self.delivery.delivered,
                lost: self.lost_total - lost_total_before,
                in_network: self.in_network(a.sender),
                is_recovering: self.phase != Phase::Open,
                rate,
                sample: rtt_sample,
            };
            self.controller.seen(&mut self.window, &seen);
        } else {
            self.set_window(a, &news, now);
        }
    }

    /// Removes what is acknowledged; gives the bytes newly delivered.
    fn cumulative(
        &mut self,
        a: &mut Around<'_>,
        ack: Position,
        now: Instant,
        rtt_sample: &mut Option<Duration>,
    ) -> u64 {
        let mut delivered = 0;
        while let Some(slot) = a.sender.records.first() {
            let record = *a.records.get(slot);
            if record.start >= ack {
                break;
            }
            let end = record.end.min(ack);
            let bytes = end.since(record.start);
            if record.sacked {
                self.sacked -= bytes;
            } else {
                delivered += bytes;
            }
            if record.lost {
                self.lost -= bytes;
            }
            self.note_original(&record);
            if record.end > ack {
                a.records.get_mut(slot).start = ack;
                break;
            }
            if !record.sacked {
                self.newly_delivered(a.rtt, &record, now, rtt_sample);
            }
            a.sender.records.pop_front(a.records);
        }
        // A window probe that was taken is beyond `nxt` and has no record.
        a.sender.una = ack;
        a.sender.nxt = a.sender.nxt.max(ack);
        delivered
    }

    /// Marks what a SACK block covers, as far as it can be reached in `walk` steps; gives the bytes newly delivered. What is
    /// not reached comes again: a peer reports a block at least three times (RFC 2018, section 4).
    fn selective(
        &mut self,
        a: &mut Around<'_>,
        left: Position,
        right: Position,
        walk: &mut u32,
        now: Instant,
        rtt_sample: &mut Option<Duration>,
    ) -> u64 {
        let mut delivered = 0;
        let mut next = a.sender.records.find(a.records, left, walk);
        while let Some(slot) = next {
            let record = *a.records.get(slot);
            // Only what is covered whole is marked (RFC 2018, section 8): blocks of single octets shall not cut the flight
            // into as many records.
            if record.start >= right || record.end > right {
                break;
            }
            if record.sacked || record.start < left {
                let Some(less) = walk.checked_sub(1) else { break };
                *walk = less;
                next = a.records.next(slot);
                continue;
            }
            self.note_original(&record);
            let bytes = record.len();
            if record.lost {
                self.lost -= bytes;
            }
            self.sacked += bytes;
            delivered += bytes;
            let at = a.sender.records.mark_sacked(a.records, slot);
            next = a.records.behind(at);
            self.newly_delivered(a.rtt, &record, now, rtt_sample);
        }
        delivered
    }

    /// F-RTO waits for what was in flight at the timeout and sent but once.
    fn note_original(&mut self, record: &Record) {
        self.original |= record.transmissions == 1 && !record.sacked && record.start < self.until;
    }

    /// Without SACK a duplicate acknowledgement stands for one segment delivered somewhere.
    fn without_sack(&mut self, a: &Around<'_>, delivered: u64, progress: bool, duplicate: bool) -> u64 {
        let mss = u64::from(a.sender.mss);
        let before = self.sacked;
        if progress {
            // What was acknowledged stands for the segments that the duplicates stood for.
            self.sacked = self.sacked.saturating_sub(delivered.saturating_sub(mss));
            if self.phase == Phase::Open {
                self.duplicates = 0;
                self.sacked = 0;
            }
            return delivered.saturating_sub(before - self.sacked);
        }
        if duplicate {
            self.duplicates += 1;
            self.sacked = (before + mss).min(a.sender.in_flight().saturating_sub(self.lost + mss)).max(before);
        }
        self.sacked - before
    }

    /// RFC 5681, 3.2, and RFC 6582, 3.2.
    fn detect_without_sack(&mut self, a: &mut Around<'_>, progress: bool) {
        let third = self.phase == Phase::Open && self.duplicates == DUPLICATES && a.sender.una > self.until;
        let partial = self.phase == Phase::Fast && progress && a.sender.una < self.until;
        if !(third || partial) {
            return;
        }
        if let Some(slot) = a.sender.records.first() {
            let record = *a.records.get(slot);
            if !record.lost && (third || record.transmissions == 1) {
                a.sender.records.mark_lost(a.records, slot, &mut { WALK_MAX });
                self.lost += record.len();
            }
        }
    }

    /// RFC 8985, 7.4.2: what the end of a probe tells.
    fn end_probe(&mut self, a: &mut Around<'_>, ack: &Ack<'_>) {
        let Some(probe) = self.probe else { return };
        if ack.ack < probe.end {
            return;
        }
        if !probe.retransmission || ack.dsack.is_some() {
            self.probe = None;
        } else if ack.ack > probe.end {
            // The probe repaired a loss that nothing else will show.
            self.probe = None;
            if self.phase == Phase::Open {
                self.reduce(a.sender.mss);
            }
        } else if ack.duplicate && ack.sack.is_none_or(<[_]>::is_empty) {
            self.probe = None;
        }
    }

    /// The window is reduced at once.
    fn reduce(&mut self, mss: u32) {
        let threshold = self.controller.lost(&self.window, mss);
        if !self.controller.rules() {
            (self.window.threshold, self.window.congestion) = (threshold, threshold);
        }
    }

    fn change_phase(&mut self, a: &mut Around<'_>, lost_before: u64) {
        if self.phase != Phase::Open && a.sender.una >= self.until {
            if self.phase == Phase::Fast && !self.controller.rules() {
                self.window.congestion = self.window.threshold;
            }
            self.widened.recovered();
            self.frto = Frto::Off;
            self.phase = Phase::Open;
            self.duplicates = 0;
        }
        if self.phase == Phase::Open && self.lost > lost_before {
            a.counters.add(Counter::TcpFastRecoveries);
            self.phase = Phase::Fast;
            self.until = a.sender.nxt;
            (self.answered, self.reduced) = (a.sender.nxt, true);
            self.undo = Some(Undo::new(self.window, self.controller, a.sender.una));
            self.window.threshold = self.controller.lost(&self.window, a.sender.mss);
            self.prr = Prr { delivered: 0, out: 0, flight: a.sender.in_flight() };
            self.probe = None;
        }
    }

    /// RFC 3168, 6.1.2: "TCP should not react to congestion indications more than once every window of data (or more
    /// loosely, more than once every round-trip time)". Whether this one was reacted to.
    fn answer_mark(&mut self, a: &mut Around<'_>) -> bool {
        if self.phase != Phase::Open || a.sender.una <= self.answered {
            return false;
        }
        a.counters.add(Counter::TcpMarksAnswered);
        let threshold = self.controller.marked(&self.window, a.sender.mss);
        if !self.controller.rules() {
            (self.window.threshold, self.window.congestion) = (threshold, threshold);
        }
        (self.answered, self.reduced) = (a.sender.nxt, true);
        true
    }

    /// Whether the window was reduced since this was last asked: then the next new data says so.
    pub fn take_reduced(&mut self) -> bool {
        std::mem::take(&mut self.reduced)
    }

    fn set_window(&mut self, a: &Around<'_>, news: &News, now: Instant) {
        let News { delivered, acknowledged, flight_before, sample, losing } = *news;
        let mss = a.sender.mss;
        match self.phase {
            Phase::Fast => {
                // RFC 6937, 3.1, with the slow start reduction bound.
                self.prr.delivered += delivered;
                let pipe = self.in_network(a.sender);
                let threshold = u64::from(self.window.threshold);
                let count = if pipe > threshold {
                    (self.prr.delivered * threshold).div_ceil(self.prr.flight.max(1)).saturating_sub(self.prr.out)
                } else {
                    // One segment more than was delivered only while the cumulative acknowledgement goes on and no more is
                    // found lost: what RFC 6937 calls the slow start bound, where it is safe, and conservation where not.
                    let more = if acknowledged > 0 && !losing { mss } else { 0 };
                    let limit = self.prr.delivered.saturating_sub(self.prr.out).max(delivered) + u64::from(more);
                    (threshold - pipe).min(limit)
                };
                // The first retransmission is not to wait.
                let count = if self.prr.out == 0 { count.max(mss.into()) } else { count };
                self.window.congestion = u32::try_from(pipe + count).unwrap_or(u32::MAX);
            }
            Phase::Open | Phase::Loss => {
                // A window that did not limit what was sent says nothing about the path (RFC 7661's concern). What counts
                // is the most that was in flight in a round trip: the acknowledgements of one flight all stand for it.
                if a.sender.una > self.most_until {
                    (self.most, self.most_until) = (flight_before, a.sender.nxt);
                }
                self.most = self.most.max(flight_before);
                let used = if self.window.in_slow_start() { 2 * self.most } else { self.most + u64::from(mss) };
                // RFC 5681, 3.2, step 1: duplicates do not change the window.
                if acknowledged > 0 && used > u64::from(self.window.congestion) {
                    let ack = Acked {
                        now,
                        // What was selectively acknowledged before has had its say.
                        bytes: u32::try_from(acknowledged.min(delivered)).unwrap_or(u32::MAX),
                        mss,
                        rtt: a.rtt.smoothed().unwrap_or_default(),
                        sample,
                        una: a.sender.una,
                        nxt: a.sender.nxt,
                    };
                    self.controller.acked(&mut self.window, &ack);
                }
            }
        }
    }

    /// The reordering timer fired: RACK looks again.
    pub fn reorder_timeout(&mut self, a: &mut Around<'_>, now: Instant) {
        let lost_before = self.lost;
        self.detect(a, now);
        self.change_phase(a, lost_before);
        if !self.controller.rules() {
            let news =
                News { delivered: 0, acknowledged: 0, flight_before: a.sender.in_flight(), sample: None, losing: true };
            self.set_window(a, &news, now);
        }
    }

    /// The retransmission timer fired (RFC 6298, 5.4 to 5.6; RFC 5681, 3.1; RFC 2018, section 5).
    pub fn timed_out(&mut self, a: &mut Around<'_>) {
        a.counters.add(Counter::TcpTimeouts);
        if self.phase == Phase::Open || self.undo.is_none() {
            self.undo = Some(Undo::new(self.window, self.controller, a.sender.una));
        }
        // RFC 5682, 3.1, step 1: not for a timeout after a timeout.
        self.frto = if self.phase == Phase::Loss { Frto::Off } else { Frto::Retransmitted };
        if self.phase != Phase::Loss {
            // A second timeout for the same data does not lower the threshold again.
            self.window.threshold = self.controller.lost(&self.window, a.sender.mss);
        }
        self.phase = Phase::Loss;
        self.until = a.sender.nxt;
        (self.answered, self.reduced) = (a.sender.nxt, true);
        self.window.congestion = a.sender.mss;
        self.duplicates = 0;
        self.probe = None;
        self.reorder_at = None;
        // A peer that selectively acknowledged the first octet and still waits for it has dropped what it held.
        let reneged = a.sender.records.first().is_some_and(|slot| a.records.get(slot).sacked);
        (self.sacked, self.lost) = a.sender.records.all_lost(a.records, reneged);
    }

    /// Segments larger than the path now takes are lost (RFC 1191, 6.4), which says nothing about congestion.
    pub fn too_big(&mut self, a: &mut Around<'_>) {
        let mss = u64::from(a.sender.mss);
        self.lose(a, |record| record.len() > mss);
    }

    /// The peer has not taken what the SYN carried (RFC 7413, 4.2.2): sent again at once, and no sign of congestion.
    pub fn refused(&mut self, a: &mut Around<'_>) {
        self.lose(a, |_| true);
    }

    /// Those are lost whose fate is open and of which that is true: a walk over what was sent.
    fn lose(&mut self, a: &mut Around<'_>, is: impl Fn(&Record) -> bool) {
        let mut walk = WALK_MAX;
        let mut next = a.sender.records.oldest_sent();
        while let Some(slot) = next {
            a.records.steps.one();
            next = a.records.next_by_fate(slot);
            let record = *a.records.get(slot);
            if is(&record) {
                a.sender.records.mark_lost(a.records, slot, &mut walk);
                self.lost += record.len();
            }
        }
    }

    /// The loss that began a recovery was that of a probe of the path's MTU alone (RFC 4821, 7.5): the window stays.
    pub fn forgive(&mut self, before: &Self) {
        self.phase = before.phase;
        self.window = before.window;
        self.controller = before.controller;
        self.until = before.until;
        self.prr = before.prr;
        self.undo = before.undo;
    }

    /// A record was sent again.
    pub fn retransmitted(
        &mut self,
        sender: &mut Sender,
        records: &mut Records,
        slot: RecordSlot,
        now: Instant,
        timestamp: u32,
    ) {
        self.sent_at = now;
        let stamp = self.delivery.sent(false, now);
        let record = records.get_mut(slot);
        record.stamp = stamp;
        record.sent_at = now;
        record.transmissions = record.transmissions.saturating_add(1);
        let bytes = record.len();
        if record.lost {
            self.lost -= bytes;
        }
        sender.records.mark_sent_again(records, slot);
        self.prr.out += bytes;
        if self.phase != Phase::Open
            && let Some(undo) = &mut self.undo
        {
            undo.retransmitted(bytes, timestamp);
        }
    }

    /// RFC 5682, step 2b: new data goes first, until the next acknowledgement.
    pub fn holds_retransmissions(&self) -> bool {
        self.frto == Frto::NewData
    }

    /// Whether nothing was sent for longer than a timeout, with nothing in flight.
    pub fn has_been_idle(&self, sender: &Sender, rtt: &RttEstimator, now: Instant) -> bool {
        sender.in_flight() == 0 && now.since(self.sent_at) > rtt.rto()
    }

    /// RFC 5681, 4.1: "a TCP SHOULD set cwnd to no more than RW before transmission begins if the TCP has not sent data in
    /// an interval exceeding the retransmission timeout". Whether that made a difference. What is known of the path stays
    /// in the threshold, as three quarters of what the window was (RFC 2861, 2).
    pub fn restart_after_idle(&mut self, initial_window: u32) -> bool {
        // A controller with a pace does not burst after a silence.
        if self.window.congestion <= initial_window || self.controller.rules() {
            return false;
        }
        self.window.threshold = self.window.threshold.max(self.window.congestion / 4 * 3);
        self.window.congestion = initial_window;
        self.controller.restarted();
        self.undo = None;
        true
    }

    /// How fast segments may go out, in bytes per second.
    pub fn pace(&self) -> Option<u64> {
        self.controller.pace()
    }

    /// What a new segment takes along.
    pub fn stamp(&mut self, sender: &Sender, now: Instant) -> Stamp {
        self.delivery.sent(sender.in_flight() == 0, now)
    }

    /// There is nothing to send, though the window has room.
    pub fn limited_by_program(&mut self, sender: &Sender) {
        if self.allowance(sender) > 0 && self.lost == 0 {
            self.delivery.limited(self.in_network(sender));
        }
    }

    /// New data was sent.
    pub fn sent(&mut self, bytes: u64, now: Instant) {
        self.sent_at = now;
        self.prr.out += bytes;
    }

    /// When the silence begins after which a tail is probed: with the timer or what was last sent (RFC 8985, 7.2: every
    /// transmission of new data arms it anew), and in recovery, where the timer does not follow every acknowledgement, with
    /// what was last heard.
    pub fn probe_from(&self, timer_from: Instant, heard_at: Instant) -> Instant {
        let sent = timer_from.max(self.sent_at);
        if self.phase == Phase::Open { sent } else { sent.max(heard_at) }
    }

    /// How long after the last transmission a tail is probed (RFC 8985, 7.2); `None` while it is not.
    ///
    /// The RFC does not probe in recovery. Here it is done, too: a peer that holds its acknowledgements back behind a gap
    /// may have sent the one that would let the window move on, and if that one is lost, nothing under way causes
    /// another.
    pub fn probe_timeout(&self, sender: &Sender, rtt: &RttEstimator) -> Option<Duration> {
        if self.phase == Phase::Loss || self.probe.is_some() || sender.in_flight() == 0 {
            return None;
        }
        let smoothed = rtt.smoothed()?;
        let ack_delay = if sender.records.count() == 1 { DELAYED_ACK_WORST } else { Duration::from_ms(2) };
        Some(smoothed + smoothed + ack_delay)
    }

    /// A probe goes out: new data up to `end`, or again what ends there.
    pub fn probe_sent(&mut self, end: Position, retransmission: bool) {
        self.probe = Some(Probe { end, retransmission });
    }
}

//! Congestion control: how much may be in flight.
//!
//! A controller moves the [`Window`] of its connection on acknowledgements and on loss; when loss *is* is decided
//! in `recovery`. All controllers are integer arithmetic in bytes.

use crate::profile::CongestionControl;
use crate::seq::Position;
use crate::tcp::bbr::Bbr;
use crate::tcp::cubic::Cubic;
use crate::tcp::dctcp::Dctcp;
use crate::tcp::delivery::RateSample;
use crate::tcp::hystart::SlowStart;
use crate::time::{Duration, Instant};

/// What a controller moves, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// The congestion window.
    pub congestion: u32,
    /// The slow start threshold.
    pub threshold: u32,
}

impl Window {
    /// Whether the window grows by slow start.
    pub fn in_slow_start(&self) -> bool {
        self.congestion < self.threshold
    }
}

/// An acknowledgement outside of recovery.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// When.
    pub now: Instant,
    /// Bytes newly delivered.
    pub bytes: u32,
    /// Sender maximum segment size.
    pub mss: u32,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// The round trip that this acknowledgement measured.
    pub sample: Option<Duration>,
    /// SND.UNA after it.
    pub una: Position,
    /// SND.NXT.
    pub nxt: Position,
}

/// Any acknowledgement, in recovery or not.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When.
    pub now: Instant,
    /// Sender maximum segment size.
    pub mss: u32,
    /// Bytes newly delivered.
    pub delivered: u64,
    /// Bytes delivered since the connection began.
    pub delivered_total: u64,
    /// Bytes newly deemed lost.
    pub lost: u64,
    /// Bytes in the network after it.
    pub in_network: u64,
    /// Fast recovery is under way, or a timeout's.
    pub is_recovering: bool,
    /// The rate that it measured.
    pub rate: Option<RateSample>,
    /// The round trip that it measured.
    pub sample: Option<Duration>,
}

/// A congestion controller.
pub trait Controller {
    /// Data was acknowledged while the window limited what was sent.
    fn acked(&mut self, window: &mut Window, ack: &Acked);
    /// Loss was found: the new threshold (and with it the window after recovery).
    fn lost(&mut self, window: &Window, mss: u32) -> u32;
    /// The connection was idle and begins anew.
    fn restarted(&mut self);
    /// Congestion was marked (RFC 3168): the new threshold and window. As for loss, says 6.1.2.
    fn marked(&mut self, window: &Window, mss: u32) -> u32 {
        self.lost(window, mss)
    }
    /// `bytes` were acknowledged, with an echo of a mark or without, in and out of recovery.
    fn echoed(&mut self, _bytes: u64, _is_marked: bool, _una: Position, _nxt: Position) {}
    /// Whether it sets the window itself at every acknowledgement ([`Controller::seen`]), in recovery, too.
    fn rules(&self) -> bool {
        false
    }
    /// For a controller that rules.
    fn seen(&mut self, _window: &mut Window, _seen: &Seen) {}
    /// How fast segments may go out, in bytes per second; `None`: as fast as the window allows.
    fn pace(&self) -> Option<u64> {
        None
    }
}

/// The controller of one connection. An enum, so that it needs no memory of its own.
#[derive(Clone, Copy, Debug)]
pub enum AnyController {
    /// See [`NewReno`].
    NewReno(NewReno),
    /// See [`Cubic`].
    Cubic(Cubic),
    /// See [`Dctcp`].
    Dctcp(Dctcp),
    /// See [`Bbr`].
    Bbr(Bbr),
}

impl AnyController {
    /// A controller of that kind, as a new connection has it.
    pub fn new(kind: CongestionControl) -> Self {
        match kind {
            CongestionControl::NewReno => Self::NewReno(NewReno::default()),
            CongestionControl::Cubic => Self::Cubic(Cubic::default()),
            CongestionControl::Dctcp => Self::Dctcp(Dctcp::default()),
            CongestionControl::Bbr => Self::Bbr(Bbr::default()),
        }
    }
}

impl AnyController {
    /// Whether an acknowledgement without progress is nothing to it.
    pub fn heeds_progress_alone(&self) -> bool {
        match self {
            Self::NewReno(_) | Self::Cubic(_) => true,
            Self::Dctcp(_) | Self::Bbr(_) => false,
        }
    }
}

impl Controller for AnyController {
    fn acked(&mut self, window: &mut Window, ack: &Acked) {
        match self {
            Self::NewReno(c) => c.acked(window, ack),
            Self::Cubic(c) => c.acked(window, ack),
            Self::Dctcp(c) => c.acked(window, ack),
            Self::Bbr(c) => c.acked(window, ack),
        }
    }

    fn lost(&mut self, window: &Window, mss: u32) -> u32 {
        match self {
            Self::NewReno(c) => c.lost(window, mss),
            Self::Cubic(c) => c.lost(window, mss),
            Self::Dctcp(c) => c.lost(window, mss),
            Self::Bbr(c) => c.lost(window, mss),
        }
    }

    fn restarted(&mut self) {
        match self {
            Self::NewReno(c) => c.restarted(),
            Self::Cubic(c) => c.restarted(),
            Self::Dctcp(c) => c.restarted(),
            Self::Bbr(c) => c.restarted(),
        }
    }

    fn marked(&mut self, window: &Window, mss: u32) -> u32 {
        match self {
            Self::NewReno(c) => c.marked(window, mss),
            Self::Cubic(c) => c.marked(window, mss),
            Self::Dctcp(c) => c.marked(window, mss),
            Self::Bbr(c) => c.marked(window, mss),
        }
    }

    fn echoed(&mut self, bytes: u64, is_marked: bool, una: Position, nxt: Position) {
        match self {
            Self::NewReno(c) => c.echoed(bytes, is_marked, una, nxt),
            Self::Cubic(c) => c.echoed(bytes, is_marked, una, nxt),
            Self::Dctcp(c) => c.echoed(bytes, is_marked, una, nxt),
            Self::Bbr(c) => c.echoed(bytes, is_marked, una, nxt),
        }
    }

    fn rules(&self) -> bool {
        match self {
            Self::NewReno(c) => c.rules(),
            Self::Cubic(c) => c.rules(),
            Self::Dctcp(c) => c.rules(),
            Self::Bbr(c) => c.rules(),
        }
    }

    fn seen(&mut self, window: &mut Window, seen: &Seen) {
        match self {
            Self::NewReno(c) => c.seen(window, seen),
            Self::Cubic(c) => c.seen(window, seen),
            Self::Dctcp(c) => c.seen(window, seen),
            Self::Bbr(c) => c.seen(window, seen),
        }
    }

    fn pace(&self) -> Option<u64> {
        match self {
            Self::NewReno(c) => c.pace(),
            Self::Cubic(c) => c.pace(),
            Self::Dctcp(c) => c.pace(),
            Self::Bbr(c) => c.pace(),
        }
    }
}

/// RFC 5681's congestion avoidance.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewReno {
    slow_start: SlowStart,
    /// Bytes acknowledged since the window last grew.
    counted: u32,
}

impl Controller for NewReno {
    fn acked(&mut self, window: &mut Window, ack: &Acked) {
        //= docs/specs/rfc9293.txt#section-3.8.2
        //# A TCP endpoint MUST implement the basic congestion control algorithms slow start, congestion avoidance,
        //# and exponential backoff of RTO to avoid creating congestion collapse conditions (MUST-19).
        if window.in_slow_start() {
            self.slow_start.acked(window, ack);
            return;
        }
        // One MSS per window's worth of acknowledgements (RFC 5681, 3.1, by RFC 3465's count).
        self.counted = self.counted.saturating_add(ack.bytes);
        if self.counted >= window.congestion {
            self.counted -= window.congestion;
            window.congestion = window.congestion.saturating_add(ack.mss);
        }
    }

    fn lost(&mut self, window: &Window, mss: u32) -> u32 {
        self.counted = 0;
        // RFC 5681, equation 4. The window stands for the flight size: it does not grow while it is not used.
        (window.congestion / 2).max(2 * mss)
    }

    fn restarted(&mut self) {
        self.counted = 0;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MSS: u32 = 1000;

    fn ack(ms: u64, bytes: u32) -> Acked {
        Acked {
            now: Instant::from_us(ms * 1000),
            bytes,
            mss: MSS,
            rtt: Duration::from_ms(100),
            sample: None,
            una: Position::default(),
            nxt: Position::default(),
        }
    }

    /// Acknowledges a window per round trip of 100 ms; gives the windows after each.
    pub(crate) fn rounds(c: &mut impl Controller, w: &mut Window, from_ms: u64, count: u64) -> Vec<u32> {
        let mut seen = Vec::new();
        for round in 0..count {
            let mut left = w.congestion;
            while left > 0 {
                let bytes = left.min(2 * MSS);
                c.acked(w, &ack(from_ms + round * 100, bytes));
                left -= bytes;
            }
            seen.push(w.congestion);
        }
        seen
    }

    //= docs/specs/rfc9293.txt#section-3.8.2
    //= type=test
    //# A TCP endpoint MUST implement the basic congestion control algorithms slow start, congestion avoidance, and
    //# exponential backoff of RTO to avoid creating congestion collapse conditions (MUST-19).
    #[test]
    fn slow_start_doubles_and_ends_at_the_threshold() {
        let mut w = Window { congestion: 10 * MSS, threshold: 70 * MSS };
        assert_eq!(rounds(&mut NewReno::default(), &mut w, 0, 3), [20_000, 40_000, 70_000]);
    }

    //= docs/specs/rfc9293.txt#section-3.8.2
    //= type=test
    //# A TCP endpoint MUST implement the basic congestion control algorithms slow start, congestion avoidance, and
    //# exponential backoff of RTO to avoid creating congestion collapse conditions (MUST-19).
    #[test]
    fn reno_adds_a_segment_per_round_and_halves() {
        let mut w = Window { congestion: 20 * MSS, threshold: 20 * MSS };
        let mut c = NewReno::default();
        assert_eq!(rounds(&mut c, &mut w, 0, 3), [21_000, 22_000, 23_000]);
        assert_eq!(c.lost(&w, MSS), 11_500);
        w.congestion = 3 * MSS;
        assert_eq!(c.lost(&w, MSS), 2 * MSS, "never below two segments");
    }

    #[test]
    fn after_a_restart_the_count_begins_anew() {
        let mut c = AnyController::new(CongestionControl::NewReno);
        let mut w = Window { congestion: 10 * MSS, threshold: 5 * MSS };
        c.acked(&mut w, &ack(0, 9 * MSS));
        c.restarted();
        c.acked(&mut w, &ack(1, 2 * MSS));
        assert_eq!(w.congestion, 10 * MSS);
        c.acked(&mut w, &ack(2, 8 * MSS));
        assert_eq!(w.congestion, 11 * MSS);
    }
}

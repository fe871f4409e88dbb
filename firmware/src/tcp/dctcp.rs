//! DCTCP (RFC 8257): the window shrinks by how much of a window was marked, not by half. For data centres, where every
//! queue marks at a low threshold; loss is still answered as Reno does (3.4).

use crate::seq::Position;
use crate::tcp::congestion::{Acked, Controller, NewReno, Window};

/// alpha of one, and what it is counted in.
const ONE: u32 = 1024;
/// g = 1/16, as a shift (RFC 8257, 4.2).
const GAIN_SHIFT: u32 = 4;

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Dctcp {
    reno: NewReno,
    /// DCTCP.Alpha in 1024ths: "initialized to 1".
    alpha: u32,
    /// DCTCP.WindowEnd.
    window_end: Option<Position>,
    /// DCTCP.BytesAcked.
    acked: u64,
    /// DCTCP.BytesMarked.
    marked: u64,
}

impl Default for Dctcp {
    fn default() -> Self {
        Self { reno: NewReno::default(), alpha: ONE, window_end: None, acked: 0, marked: 0 }
    }
}

impl Controller for Dctcp {
    fn acked(&mut self, window: &mut Window, ack: &Acked) {
        self.reno.acked(window, ack);
    }

    fn lost(&mut self, window: &Window, mss: u32) -> u32 {
        self.reno.lost(window, mss)
    }

    fn restarted(&mut self) {
        self.reno.restarted();
    }

    /// 3.3, step 9: cwnd = cwnd * (1 - DCTCP.Alpha / 2).
    fn marked(&mut self, window: &Window, mss: u32) -> u32 {
        let cut = u64::from(window.congestion) * u64::from(self.alpha) / u64::from(2 * ONE);
        (window.congestion - cut as u32).max(2 * mss)
    }

    /// 3.3, steps 1 to 8.
    fn echoed(&mut self, bytes: u64, is_marked: bool, una: Position, nxt: Position) {
        self.acked += bytes;
        if is_marked {
            self.marked += bytes;
        }
        if self.acked == 0 || self.window_end.is_some_and(|end| una <= end) {
            return;
        }
        let share = (self.marked * u64::from(ONE) / self.acked) as u32;
        self.alpha = self.alpha - (self.alpha >> GAIN_SHIFT) + (share >> GAIN_SHIFT);
        if self.marked == 0 && self.alpha < 1 << GAIN_SHIFT {
            // The shift would never get below this.
            self.alpha = 0;
        }
        (self.window_end, self.acked, self.marked) = (Some(nxt), 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seq::Seq;

    /// `windows` of ten segments of which `marked` are marked.
    fn windows(c: &mut Dctcp, una: &mut Position, windows: u32, marked: u32) {
        for _ in 0..windows {
            for segment in 0..10 {
                *una = *una + 1000;
                c.echoed(1000, segment < marked, *una, *una + 10_000);
            }
        }
    }

    #[test]
    fn the_window_shrinks_by_half_of_what_was_marked() {
        let mut c = Dctcp::default();
        let mut una = Position::initial(Seq(0));
        let window = Window { congestion: 100_000, threshold: 100_000 };
        assert_eq!(c.marked(&window, 1000), 50_000, "alpha begins at one");
        windows(&mut c, &mut una, 200, 0);
        assert_eq!(c.marked(&window, 1000), 100_000);
        windows(&mut c, &mut una, 200, 5);
        let cut = c.marked(&window, 1000);
        assert!((74_000..78_000).contains(&cut), "{cut}");
        windows(&mut c, &mut una, 200, 10);
        let cut = c.marked(&window, 1000);
        assert!((50_000..52_000).contains(&cut), "{cut}");
        assert_eq!(c.lost(&window, 1000), 50_000);
    }

    #[test]
    fn one_marked_window_moves_alpha_by_a_sixteenth() {
        let mut c = Dctcp::default();
        let mut una = Position::initial(Seq(0));
        windows(&mut c, &mut una, 200, 0);
        assert_eq!(c.alpha, 0);
        windows(&mut c, &mut una, 2, 10);
        assert!((60..=130).contains(&c.alpha), "{}", c.alpha);
    }

    fn at(n: u64) -> Position {
        Position::initial(Seq(0)) + n
    }

    #[test]
    fn alpha_is_updated_once_per_window_by_the_octets_marked_in_it() {
        // RFC 8257, 3.3, steps 1 to 8: DCTCP.Alpha = DCTCP.Alpha * (1 - g) + g * M.
        let mut c = Dctcp::default();
        c.echoed(0, true, at(0), at(5000));
        assert_eq!((c.alpha, c.window_end), (1024, None), "nothing was acknowledged");
        c.echoed(1000, false, at(1000), at(11_000));
        assert_eq!((c.alpha, c.window_end, c.acked), (960, Some(at(11_000)), 0));
        c.echoed(4000, true, at(5000), at(15_000));
        c.echoed(3000, false, at(11_000), at(21_000));
        assert_eq!((c.alpha, c.acked, c.marked), (960, 7000, 4000));
        c.echoed(1000, false, at(11_001), at(21_001));
        // Half of the octets: 960 - 60 + 32.
        assert_eq!((c.alpha, c.window_end, c.acked, c.marked), (932, Some(at(21_001)), 0, 0));
    }

    #[test]
    fn an_alpha_that_the_shift_would_not_move_ends_at_nothing_unless_something_is_marked() {
        let after = |alpha, marked| {
            let mut c = Dctcp { alpha, ..Dctcp::default() };
            c.marked = marked;
            c.echoed(6400 - marked, false, at(6400), at(9000));
            c.alpha
        };
        assert_eq!((after(17, 0), after(16, 0), after(15, 0)), (16, 0, 0));
        // One in 64 is 16 of 1024ths, and a sixteenth of that is one.
        assert_eq!((after(15, 100), after(16, 100)), (16, 16));
    }

    #[test]
    fn the_cut_is_half_of_alpha_and_leaves_two_segments() {
        let cut = |alpha, congestion| {
            Dctcp { alpha, ..Dctcp::default() }.marked(&Window { congestion, threshold: congestion }, 1000)
        };
        assert_eq!(
            (cut(512, 100_000), cut(1024, 100_000), cut(1024, 3000), cut(0, 2500)),
            (75_000, 50_000, 2000, 2500)
        );
    }

    #[test]
    fn in_everything_else_it_is_reno() {
        let mut c = Dctcp::default();
        let mut w = Window { congestion: 10_000, threshold: 10_000 };
        let mut acked = |c: &mut Dctcp, bytes| {
            let (una, nxt, rtt) = (at(0), at(0), crate::time::Duration::from_ms(1));
            c.acked(&mut w, &Acked { now: Default::default(), bytes, mss: 1000, rtt, sample: None, una, nxt });
            w.congestion
        };
        assert_eq!((acked(&mut c, 9999), acked(&mut c, 1)), (10_000, 11_000));
        assert_eq!(acked(&mut c, 10_999), 11_000);
        c.restarted();
        assert_eq!((acked(&mut c, 10_999), acked(&mut c, 1)), (11_000, 12_000));
        assert!(!c.rules() && c.pace().is_none());
    }
}

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
}

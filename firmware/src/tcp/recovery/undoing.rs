//! What recovery does about losses that were none; how they are told is in `spurious`.

use super::{Ack, Around, Phase, Recovery};
use crate::counters::Counter;
use crate::seq::Position;
use crate::tcp::spurious::{Frto, FrtoAck};

impl Recovery {
    /// The peer reports octets that it received twice.
    pub(super) fn came_twice(&mut self, a: &mut Around<'_>, (left, right): (Position, Position)) {
        a.counters.add(Counter::TcpDsacksIn);
        // The duplicate that a probe made says nothing about reordering.
        if self.probe.is_some_and(|probe| probe.end == right) || right > a.sender.nxt {
            return;
        }
        self.widened.duplicates(a.sender);
        if self.undo.as_mut().is_some_and(|undo| undo.reported(left, right)) {
            self.undo(a);
        }
    }

    /// Whether an acknowledgement shows that what was done about a loss was for nothing.
    pub(super) fn judge(&mut self, a: &mut Around<'_>, ack: &Ack<'_>, progress: bool) {
        if self.phase == Phase::Open {
            return;
        }
        let is_earlier =
            |echo: u32| progress && self.undo.as_ref().is_some_and(|undo| undo.is_before_retransmission(echo));
        let eifel = ack.echo.is_some_and(is_earlier);
        let mss = u64::from(a.sender.mss);
        let has_blocks = ack.sack.is_some_and(|blocks| !blocks.is_empty());
        let event = FrtoAck {
            progress,
            is_complete: a.sender.una >= self.until,
            original: self.original,
            duplicate: ack.duplicate || has_blocks,
            can_send_new: a.sender.last().since(a.sender.nxt) >= mss && a.sender.edge().since(a.sender.nxt) >= mss,
        };
        let frto = self.frto.acknowledged(&event);
        if eifel || frto {
            self.undo(a);
        }
    }

    /// The window as it was before the last reduction (RFC 4015, step 5); what was deemed lost is in flight again.
    fn undo(&mut self, a: &mut Around<'_>) {
        let Some(undo) = self.undo.take() else { return };
        a.counters.add(Counter::TcpUndos);
        if self.phase == Phase::Loss {
            a.counters.add(Counter::TcpSpuriousTimeouts);
            a.sender.records.none_lost(a.records);
            self.lost = 0;
        }
        self.window.congestion = self.window.congestion.max(undo.window.congestion);
        self.window.threshold = self.window.threshold.max(undo.window.threshold);
        self.controller = undo.controller;
        self.phase = Phase::Open;
        self.frto = Frto::Off;
        self.duplicates = 0;
    }
}

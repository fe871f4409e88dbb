//! The card's pools that are nearly full, as RESOURCE_EVENT tells of them.
//!
//! The last [`KEPT`] events are kept until somebody takes them; an older one makes room. All are counted
//! ([`ChannelCounters::resource_events`](super::ChannelCounters)).

use std::collections::VecDeque;

use toe_abi::ResourceEvent;

/// So many events are kept.
const KEPT: usize = 64;

/// The events that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    events: VecDeque<ResourceEvent>,
}

impl Pressure {
    pub(super) fn note(&mut self, event: ResourceEvent) {
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(super) fn take(&mut self) -> Vec<ResourceEvent> {
        self.events.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toe_abi::level;

    #[test]
    fn the_youngest_are_kept() {
        let mut pressure = Pressure::default();
        let event = |pool| ResourceEvent { pool, level: level::FULL, in_use: 1, capacity: 1 };
        (0..70).for_each(|pool| pressure.note(event(pool)));
        let taken = pressure.take();
        assert_eq!((taken.len(), taken[0].pool, taken[63].pool), (KEPT, 6, 69));
        assert!(pressure.take().is_empty());
    }
}

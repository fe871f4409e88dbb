//! A hostile guest: another process on the guest's side that says anything at all on the channel.

use toe_abi::{CARD_MAC, FRAME_BYTES_MAX, Mac};
use toe_guest_tests::fuzz::Fuzzer;

use super::{REST_S, Ticker, standard};
use crate::frames::{GUEST_MAC, Tcp};
use crate::lab::{Attacker, Lab};
use crate::run::{Attack, Hostile, Run, Verdict};

pub const ATTACKS: &[Attack] = &[Attack {
    name: "hostile-guest",
    sends: "channel frames that no honest guest would send, from a context of its own and from others that it guesses",
    rule: "bad frames and messages are refused with a reason, and no other context notices",
    rest_s: REST_S,
    profile: standard,
    make: |plan, _| {
        Box::new(Guest {
            ticker: Ticker::new(plan, plan.scale.pick(20_000, 100_000)),
            fuzzer: Fuzzer::new(plan.scale.seed, Mac(GUEST_MAC), 9000),
            buffer: vec![0; FRAME_BYTES_MAX],
            said: 0,
        })
    },
}];

struct Guest {
    ticker: Ticker,
    fuzzer: Fuzzer,
    buffer: Vec<u8>,
    said: u64,
}

impl Attacker for Guest {
    fn next_us(&self) -> u64 {
        self.ticker.next_us
    }

    fn act(&mut self, lab: &mut Lab) {
        for frame in std::mem::take(&mut lab.to_other_guests) {
            self.fuzzer.learn(&frame);
        }
        for _ in 0..self.ticker.due(lab.now_us) {
            let length = if self.fuzzer.has_context() {
                self.fuzzer.next_frame(&mut self.buffer)
            } else {
                self.fuzzer.hello(&mut self.buffer)
            };
            // Its own BYE takes its context away; it asks for another.
            self.said += 1;
            lab.say(&self.buffer[..length]);
        }
    }

    fn hear(&mut self, _: &mut Lab, _: &Tcp<'_>) {}
}

impl Hostile for Guest {
    fn leave(&mut self, lab: &mut Lab) {
        let length = self.fuzzer.bye(&mut self.buffer);
        debug_assert!(self.buffer[..6] == CARD_MAC.0);
        lab.say(&self.buffer[..length]);
    }

    fn judge(&self, lab: &Lab, _: &Run, verdict: &mut Verdict) {
        let refused: u64 =
            ["channel-malformed", "channel-unknown-message", "channel-unknown-object", "guest-drop-context"]
                .iter()
                .map(|name| lab.card.counter(name))
                .sum();
        let errors = lab.card.program.errors;
        verdict.rule(refused > 0, format!("{} frames said, {refused} refused with a reason", self.said));
        verdict.rule(errors == 0, format!("the honest context got {errors} errors"));
    }
}

//! The kinds of splits that are known, and what the RFCs say of them.
//!
//! An entry is found by a split's state and step in words and by what the card and the kernel have said to it. `docs/differences.md` is made
//! from this table.

use super::{Alone, Split};

/// A kind of split.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Whether a split is of this kind.
    pub fits: fn(&Split) -> bool,
    /// When it happens.
    pub when: &'static str,
    /// Who does what.
    pub who: &'static str,
    /// What decides.
    pub rule: &'static str,
}

impl Split {
    fn step(&self) -> &str {
        self.kind.split_once(": ").map_or("", |(_, step)| step)
    }

    fn state(&self) -> &str {
        self.kind.split_once(": ").map_or("", |(state, _)| state)
    }

    fn card(&self) -> &str {
        &self.words[0]
    }

    fn kernel(&self) -> &str {
        &self.words[1]
    }

    fn smol_alone(&self) -> bool {
        self.alone == Alone::Smoltcp
    }

    fn peer_has_closed(&self) -> bool {
        matches!(self.state(), "CLOSE-WAIT" | "LAST-ACK" | "CLOSING" | "TIME-WAIT")
    }
}

fn acks(said: &str) -> bool {
    said.starts_with("> . ")
}

fn resets(said: &str) -> bool {
    said.starts_with("> R ")
}

fn silent(said: &str) -> bool {
    said == "nothing"
}

/// All of them; the first that fits is meant.
pub const KNOWN: &[Known] = &[
    Known {
        fits: |s| !s.smol_alone() && s.step().contains("just beyond the window"),
        when: "a segment just beyond the window",
        who: "The card takes up to one segment more than the 65535 that it can say without a scale, since its buffer holds whole segments: there a reset is \
              challenged and text is kept. Linux and smoltcp mean the number that was said.",
        rule: "RFC 9293, 3.10.7.4, first: RCV.NXT =< SEG.SEQ < RCV.NXT+RCV.WND; against the card",
    },
    Known {
        fits: |s| !s.smol_alone() && s.peer_has_closed() && s.step().contains("text") && silent(s.card()),
        when: "text after the peer's FIN",
        who: "The card ignores it; Linux and smoltcp acknowledge or reset, each by its own rules.",
        rule: "RFC 9293, 3.10.7.4, seventh: \"This should not occur … Ignore the segment text.\"; for the card",
    },
    Known {
        fits: |s| !s.smol_alone() && s.step().contains("without ACK") && acks(s.card()) && silent(s.kernel()),
        when: "a segment without ACK and outside of the window",
        who: "The card looks at the number first and acknowledges; Linux and smoltcp drop it for want of an ACK.",
        rule: "RFC 9293, 3.10.7.4: first the sequence number, fifth the ACK field; for the card",
    },
    Known {
        fits: |s| {
            !s.smol_alone()
                && matches!(s.state(), "none" | "SYN-RECEIVED")
                && s.step().contains("beyond the window")
                && acks(s.card())
                && resets(s.kernel())
        },
        when: "in SYN-RECEIVED, a wrong ACK outside of the window",
        who: "The card looks at the number first and acknowledges; Linux and smoltcp reset for the ACK.",
        rule: "RFC 9293, 3.10.7.4: first the sequence number, fifth the ACK field; for the card",
    },
    Known {
        fits: |s| !s.smol_alone() && s.state() == "CLOSED" && s.step() == "read",
        when: "reading what came before a reset",
        who: "The card has flushed it and gives the error at once; Linux and smoltcp let the program read first.",
        rule: "RFC 9293, 3.10.7.4, second: \"All segment queues should be flushed.\"; for the card",
    },
    Known {
        fits: |s| {
            !s.smol_alone()
                && (s.step().starts_with("FIN") || s.step() == "text next")
                && acks(s.card())
                && acks(s.kernel())
        },
        when: "a FIN before text that has come already, or a second FIN elsewhere",
        who: "The peer contradicts itself. The card does not believe such a FIN; Linux and smoltcp do and forget the text beyond, and Linux takes the \
              last of two.",
        rule: "None: RFC 9293, 3.10.7.4, eighth does not say which of the two is right",
    },
    Known {
        fits: |s| {
            !s.smol_alone()
                && s.step() == "close"
                && s.card().contains("> R ")
                && s.words[2].starts_with("done")
                && !s.peer_has_closed()
        },
        when: "close while only text after a gap is there",
        who: "The card resets, for that text is lost; Linux and smoltcp count only what could have been read, and send a FIN.",
        rule: "RFC 9293, 3.6.1 (SHLD-3): \"while received data is still pending in the TCP connection\"; for the card",
    },
    Known {
        fits: |s| {
            !s.smol_alone()
                && s.state() == "none"
                && s.step().starts_with("SYN")
                && silent(s.card())
                && resets(s.kernel())
        },
        when: "a SYN in the window of a half-open connection",
        who: "The card forgets the half-open connection and says nothing; Linux resets.",
        rule: "RFC 9293, 3.10.7.4, fourth: \"If the connection was initiated with a passive OPEN, then return this connection to the \
               LISTEN state and return.\"; for the card",
    },
    Known {
        fits: |s| !s.smol_alone() && s.state() == "SYN-RECEIVED" && s.step().contains("old ACK") && resets(s.card()),
        when: "in SYN-RECEIVED, an old ACK",
        who: "The card and smoltcp reset; Linux takes the text or says nothing.",
        rule: "RFC 9293, 3.10.7.4, fifth: \"If the segment acknowledgment is not acceptable, form a reset segment\"; for the card",
    },
    Known {
        fits: |s| {
            let is_over = s.kernel() == "CLOSED" || s.kernel() == "done" || resets(s.kernel());
            !s.smol_alone() && s.peer_has_closed() && is_over
        },
        when: "a reset one before the next number after a FIN",
        who: "Linux believes it (there are peers that count so); the card and smoltcp do not.",
        rule: "RFC 5961, 3.2: only exactly the next number; for the card",
    },
    Known {
        fits: |s| !s.smol_alone() && s.step().starts_with("final state") && s.kernel() == "FIN-WAIT-1",
        when: "the ACK of a segment whose text goes beyond the window",
        who: "The card and smoltcp cut the text off and take the ACK; Linux drops all of it.",
        rule: "RFC 9293, 3.10.7.4, first: \"trimming off any portions that lie outside the window\"; for the card",
    },
    Known {
        fits: |s| !s.smol_alone() && s.state() == "none" && s.step().starts_with("RST") && acks(s.kernel()),
        when: "a reset outside of the window after close, in FIN-WAIT-2",
        who: "Linux acknowledges it; the card and smoltcp drop it.",
        rule: "RFC 5961, 3.2: \"silently drop\"; for the card",
    },
    Known {
        fits: |s| {
            !s.smol_alone() && s.state() == "none" && acks(s.card()) && (silent(s.kernel()) || resets(s.kernel()))
        },
        when: "after close, in FIN-WAIT-2, an ACK of nothing sent or a SYN",
        who: "The card acknowledges it as ever; Linux, which keeps only a shadow of the connection then, drops it or resets.",
        rule: "RFC 9293, 3.10.7.4, fifth: \"send an ACK, drop the segment\", and RFC 5961, 4.2; for the card",
    },
    Known {
        fits: |s| !s.smol_alone() && s.step() == "read" && s.alone == Alone::Linux,
        when: "reading after an urgent pointer",
        who: "Linux takes the urgent byte out of the stream; the card and smoltcp leave it where it is.",
        rule: "RFC 6093, 2: urgent data is to be delivered in-line; for the card",
    },
    Known {
        fits: |s| !s.smol_alone() && s.step() == "next old ACK" && acks(s.card()) && silent(s.kernel()),
        when: "an ACK of the SYN's own number on a connection that the stack began",
        who: "The card takes it for one of what was never sent, and acknowledges; Linux does so where it was the listener, and ignores it here, as smoltcp does.",
        rule: "RFC 5961, 5.2 draws the line lower; nothing before the SYN was ever sent",
    },
    Known {
        fits: |s| s.smol_alone() && s.step().starts_with("RST") && acks(s.card()) && silent(&s.words[2]),
        when: "a reset in the window that is not exactly the next number",
        who: "smoltcp says nothing; the card and Linux send a challenge ACK.",
        rule: "RFC 5961, 3.2: \"MUST send an acknowledgment (challenge ACK)\"",
    },
    Known {
        fits: |s| s.smol_alone() && s.step().starts_with("SYN") && acks(s.card()) && silent(&s.words[2]),
        when: "a SYN in a synchronized state",
        who: "smoltcp says nothing; the card and Linux send a challenge ACK.",
        rule: "RFC 5961, 4.2: \"MUST send an ACK (also referred to as challenge ACK)\"",
    },
    Known {
        fits: |s| s.smol_alone() && s.step() == "close" && s.card().contains("> R "),
        when: "close with text unread",
        who: "smoltcp sends a FIN, and the text is lost without a word; the card and Linux reset.",
        rule: "RFC 9293, 3.6.1 (SHLD-3)",
    },
    Known {
        fits: |s| s.smol_alone() && s.step().contains("ancient ACK") && acks(s.card()),
        when: "an ACK older than any window",
        who: "smoltcp drops it; the card and Linux acknowledge.",
        rule: "RFC 5961, 5.2",
    },
    Known {
        fits: |s| s.smol_alone() && s.step().contains("ACK of nothing sent") && acks(s.card()),
        when: "an ACK of nothing sent",
        who: "smoltcp drops it; the card and Linux acknowledge.",
        rule: "RFC 9293, 3.10.7.4, fifth",
    },
    Known {
        fits: |s| s.smol_alone() && s.state() == "none" && s.step().contains("text") && resets(s.card()),
        when: "text after close",
        who: "smoltcp acknowledges and drops it; the card and Linux reset.",
        rule: "RFC 9293, 3.6.1 (SHLD-3)",
    },
    Known {
        fits: |s| s.smol_alone(),
        when: "all else in which smoltcp stands alone",
        who: "The card and Linux agree.",
        rule: "–",
    },
];

/// The place in [`KNOWN`] of a split.
pub fn find(split: &Split) -> Option<usize> {
    KNOWN.iter().position(|known| (known.fits)(split))
}

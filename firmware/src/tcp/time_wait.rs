//! TIME-WAIT (RFC 9293, 3.6.1 and 3.10.7.4): a small entry that answers for a connection that is over.

use toe_abi::Mac;

use crate::seq::{Position, Seq};
use crate::tcp::settings::Settings;
use crate::tcp::tcb::{Link, Tcb, Tuple};
use crate::time::Instant;
use crate::wire::frame::Headers;
use crate::wire::options::{Options, Timestamps};
use crate::wire::segment::{self, Flags, Segment};

/// An entry.
#[derive(Clone, Copy, Debug)]
pub struct TimeWait {
    /// Its ends.
    pub tuple: Tuple,
    /// Its stations.
    pub link: Link,
    /// What the program had set.
    pub settings: Settings,
    /// SND.NXT.
    pub snd_nxt: Seq,
    /// RCV.NXT.
    pub rcv_nxt: Position,
    /// TS.Recent and our offset, if timestamps are in use.
    pub timestamps: Option<(u32, u32)>,
    /// The window field that the connection ended with.
    pub window: u16,
    /// A half-open entry has its 4-tuple; it is given back if that comes to nothing.
    pub parked: bool,
    /// Acknowledgements that may still be sent: a peer that is as lost as we are must not be answered for ever.
    pub answers_left: u8,
}

/// What a segment does to an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing.
    Ignore,
    /// An acknowledgement.
    Acknowledge,
    /// The FIN came again: an acknowledgement, and the time begins anew.
    Restart,
    /// The entry is over.
    Forget,
    /// A SYN that may begin a new connection (MAY-2), if a listener wants it.
    NewSyn,
}

/// How far a new incarnation begins beyond the old one, if the clock is not so far yet: more than any window.
const ISS_STEP: u32 = 65_537;

/// See [`TimeWait::answers_left`].
const ANSWERS: u8 = 16;

impl TimeWait {
    /// An entry at rest.
    pub fn vacant(tuple: Tuple, settings: &Settings) -> Self {
        Self {
            tuple,
            link: Link { local: Mac::default(), remote: Mac::default() },
            settings: *settings,
            snd_nxt: Seq(0),
            rcv_nxt: Position::default(),
            timestamps: None,
            window: 0,
            parked: false,
            answers_left: 0,
        }
    }

    /// What a connection leaves behind.
    pub fn of(t: &Tcb) -> Self {
        Self {
            tuple: t.tuple,
            link: t.link,
            settings: t.settings,
            snd_nxt: t.send.nxt.seq(),
            rcv_nxt: t.receive.nxt,
            timestamps: t.agreed.timestamps.then_some((t.receive.timestamp, t.timestamp_offset)),
            window: (t.receive.window() >> t.receive.shift).min(65_535) as u16,
            parked: false,
            answers_left: ANSWERS,
        }
    }

    /// The number of a new incarnation's SYN: the one of the clock if that lies beyond all that was sent (RFC 9293,
    /// 3.6.1, MAY-2, condition 1).
    pub fn next_iss(&self, clock: Seq) -> Seq {
        if clock.distance(self.snd_nxt) > 0 { clock } else { self.snd_nxt + ISS_STEP }
    }

    /// RFC 9293, 3.10.7.4, for TIME-WAIT.
    pub fn arrives(&mut self, segment: &Segment<'_>) -> Outcome {
        let flags = segment.flags;
        let seq = segment.seq.near(self.rcv_nxt);
        if flags.has(Flags::RST) {
            return if seq == self.rcv_nxt { Outcome::Forget } else { Outcome::Ignore };
        }
        if flags.has(Flags::SYN) && !flags.has(Flags::ACK) {
            // RFC 6191, section 2: a larger timestamp; timestamps where there were none; else a sequence number beyond
            // the old ones (RFC 1122, 4.2.2.13).
            //= docs/specs/rfc9293.txt#section-3.6.1
            //# This algorithm for reducing TIME-WAIT is a Best Current Practice that SHOULD be implemented since
            //# Timestamp Options are commonly used, and using them to reduce TIME-WAIT provides benefits for busy
            //# Internet servers (SHLD-4).
            //= docs/specs/rfc9293.txt#section-3.6.1
            //# However, it MAY accept a new SYN from the remote TCP endpoint to reopen the connection directly from
            //# TIME-WAIT state (MAY-2), if it: (1) assigns its initial sequence number for the new connection to be
            //# larger than the largest sequence number it used on the previous connection incarnation, and (2)
            //# returns to TIME-WAIT state if the SYN turns out to be an old duplicate.
            let newer = match (self.timestamps, segment.options.timestamps) {
                (Some((recent, _)), Some(new)) if new.value != recent => new.value.wrapping_sub(recent) as i32 > 0,
                (None, Some(_)) => true,
                _ => seq > self.rcv_nxt,
            };
            if newer {
                return Outcome::NewSyn;
            }
        }
        let fin_again = flags.has(Flags::FIN) && seq + u64::from(segment.sequence_length()) == self.rcv_nxt;
        //= docs/specs/rfc9293.txt#section-3.10.7.4
        //# The only thing that can arrive in this state is a retransmission of the remote FIN. Acknowledge it, and
        //# restart the 2 MSL timeout.
        if fin_again {
            // The peer may lack our last acknowledgement, whatever others have used the budget up.
            return Outcome::Restart;
        }
        if segment.sequence_length() == 0 && seq == self.rcv_nxt {
            return Outcome::Ignore;
        }
        if self.answers_left == 0 {
            return Outcome::Ignore;
        }
        self.answers_left -= 1;
        Outcome::Acknowledge
    }

    /// The acknowledgement.
    pub fn acknowledgement(&self, now: Instant) -> Headers {
        let timestamps = self
            .timestamps
            .map(|(echo, offset)| Timestamps { value: ((now.as_us() / 1000) as u32).wrapping_add(offset), echo });
        let tcp = segment::Header {
            source_port: self.tuple.local.port,
            destination_port: self.tuple.remote.port,
            seq: self.snd_nxt,
            ack: self.rcv_nxt.seq(),
            flags: Flags::ACK,
            window: self.window,
            urgent: None,
            options: Options { timestamps, ..Options::default() },
        };
        self.tuple.headers(self.link, &self.settings, tcp)
    }
}

//! A program at one end of a connection: sends a stream, reads and checks the other, closes or aborts by plan.

use crate::end::{End, Flow, Read, Status};

/// When a program closes its direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// As soon as everything is written.
    WhenWritten,
    /// After the peer has closed its direction, too.
    AfterPeer,
    /// Never: it breaks the connection when it has written and read so many bytes altogether.
    Abort(u64),
}

/// What a program does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How much it sends.
    pub out_bytes: u64,
    /// When it closes.
    pub close: Close,
    /// The most bytes it writes at once.
    pub write_bytes: u64,
    /// The most bytes it reads at once.
    pub read_bytes: u64,
    /// How long it rests between two reads.
    pub read_pause_us: u64,
    /// How long it is idle between its last byte and its close.
    pub idle_us: u64,
    /// Whether it waits until everything is acknowledged before it lets go of the connection.
    pub lingers: bool,
    /// How long it waits for anything to happen before it closes, and then breaks, the connection by itself; `None`:
    /// for ever. Needed only where the peer may break the connection, because a lost RST is not repeated.
    pub patience_us: Option<u64>,
}

/// How it ended for a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Everything was written, everything read, both directions closed.
    Clean,
    /// It was told, or decided itself, that the connection broke.
    Broken(&'static str),
}

const ABSENT: &str = "no program here";

const LOST_PATIENCE: &str = "this program lost patience";

/// A running program.
#[derive(Debug)]
pub struct App {
    flow: Flow,
    plan: Plan,
    pub written: u64,
    pub read: u64,
    peer_closed: bool,
    has_shut: bool,
    /// It has closed before it had written all, because nothing went on.
    pub gave_up: bool,
    /// When it may close, if it is idle before.
    idle_until_us: Option<u64>,
    /// When it reads again, if it rests.
    next_read_us: Option<u64>,
    progress_us: u64,
    given_up_us: Option<u64>,
    pub outcome: Option<Outcome>,
}

impl App {
    pub fn new(flow: Flow, plan: Plan) -> Self {
        Self {
            flow,
            plan,
            written: 0,
            read: 0,
            peer_closed: false,
            has_shut: false,
            gave_up: false,
            idle_until_us: None,
            next_read_us: None,
            progress_us: 0,
            given_up_us: None,
            outcome: None,
        }
    }

    /// The place of a program at an end that runs none.
    pub fn absent() -> Self {
        let plan = Plan {
            out_bytes: 0,
            close: Close::WhenWritten,
            write_bytes: 0,
            read_bytes: 0,
            read_pause_us: 0,
            idle_us: 0,
            lingers: false,
            patience_us: None,
        };
        Self { outcome: Some(Outcome::Broken(ABSENT)), ..Self::new(0, plan) }
    }

    /// Whether there is none.
    pub fn is_absent(&self) -> bool {
        self.outcome == Some(Outcome::Broken(ABSENT))
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// From now on it waits no longer than that, if it would have waited for ever.
    pub fn be_patient(&mut self, us: u64) {
        self.plan.patience_us.get_or_insert(us);
    }

    /// From `now_us` on it waits so long and no longer for a connection that its peer has given up.
    pub fn wait_for_nobody(&mut self, now_us: u64, us: u64) {
        self.be_patient(us);
        self.progress_us = self.progress_us.max(now_us);
        self.given_up_us = Some(now_us);
    }

    /// When its peer gave up a connection that never came here, if it did.
    pub fn given_up_us(&self) -> Option<u64> {
        self.given_up_us
            .filter(|_| self.written + self.read == 0 && self.outcome == Some(Outcome::Broken(LOST_PATIENCE)))
    }

    /// Whether it has sent and read everything and closed, so that only the closing itself is left.
    pub fn has_all(&self, peer: &Self) -> bool {
        self.has_shut && self.peer_closed && self.read == peer.plan.out_bytes
    }

    /// When, after `now_us`, it wants to run even if nothing else happens.
    pub fn next_us(&self, now_us: u64) -> Option<u64> {
        let impatient_us = self.plan.patience_us.map(|p| self.progress_us + p);
        let next_us = [self.next_read_us, self.idle_until_us, impatient_us].into_iter().flatten();
        next_us.filter(|&next_us| self.outcome.is_none() && next_us > now_us).min()
    }

    /// Does what can be done at `now_us`; whether it did anything.
    pub fn step(&mut self, now_us: u64, end: &mut dyn End) -> bool {
        if self.outcome.is_some() {
            return false;
        }
        let moved = match end.status(self.flow) {
            Status::Opening => false,
            Status::Broken(reason) => {
                self.finish(end, Outcome::Broken(reason));
                return true;
            }
            Status::Open => self.exchange(now_us, end),
        };
        if moved {
            self.progress_us = now_us;
        }
        moved || self.lose_patience(now_us, end)
    }

    fn exchange(&mut self, now_us: u64, end: &mut dyn End) -> bool {
        let mut moved = self.write(end) | self.read(now_us, end);
        if let Close::Abort(at) = self.plan.close
            && self.written + self.read >= at
        {
            end.abort(self.flow);
            self.finish(end, Outcome::Broken("aborted by this program"));
            return true;
        }
        let may_shut = match self.plan.close {
            Close::WhenWritten => true,
            Close::AfterPeer => self.peer_closed,
            Close::Abort(_) => false,
        };
        if may_shut && !self.has_shut && self.written == self.plan.out_bytes && self.has_idled(now_us) {
            end.shutdown(self.flow);
            self.has_shut = true;
            moved = true;
        }
        if self.has_shut && self.peer_closed && (!self.plan.lingers || end.all_acknowledged(self.flow)) {
            self.finish(end, if self.gave_up { Outcome::Broken(LOST_PATIENCE) } else { Outcome::Clean });
            moved = true;
        }
        moved
    }

    /// Whether the time between its last byte and its close is over; it begins with the first question.
    fn has_idled(&mut self, now_us: u64) -> bool {
        self.plan.idle_us == 0 || now_us >= *self.idle_until_us.get_or_insert(now_us + self.plan.idle_us)
    }

    fn write(&mut self, end: &mut dyn End) -> bool {
        let before = self.written;
        while !self.has_shut && self.written < self.plan.out_bytes {
            match end.write(self.flow, (self.plan.out_bytes - self.written).min(self.plan.write_bytes)) {
                0 => break,
                n => self.written += n,
            }
        }
        self.written > before
    }

    fn read(&mut self, now_us: u64, end: &mut dyn End) -> bool {
        if self.next_read_us.is_some_and(|next_us| now_us < next_us) || self.peer_closed {
            return false;
        }
        self.next_read_us = None;
        match end.read(self.flow, self.plan.read_bytes) {
            Read::Bytes(n) => {
                self.read += n;
                if self.plan.read_pause_us > 0 {
                    self.next_read_us = Some(now_us + self.plan.read_pause_us);
                }
                true
            }
            Read::End => {
                self.peer_closed = true;
                true
            }
            Read::Wait => false,
        }
    }

    fn lose_patience(&mut self, now_us: u64, end: &mut dyn End) -> bool {
        if self.plan.patience_us.is_none_or(|p| now_us < self.progress_us + p) {
            return false;
        }
        self.progress_us = now_us;
        if end.status(self.flow) == Status::Open && !self.has_shut {
            // Speaking makes a peer that has forgotten the connection answer with a RST.
            end.shutdown(self.flow);
            (self.has_shut, self.gave_up) = (true, true);
        } else {
            end.abort(self.flow);
            self.finish(end, Outcome::Broken(LOST_PATIENCE));
        }
        true
    }

    fn finish(&mut self, end: &mut dyn End, outcome: Outcome) {
        end.release(self.flow);
        self.outcome = Some(outcome);
    }
}

//! What the world and the programs need of an end, be it the card with its guest or another stack.
//!
//! Programs move no bytes: a stream is a [`Pattern`], so the end itself makes the bytes that a program "writes" where its
//! stack wants them, and compares those that it "reads" where its stack has them.

use std::net::{IpAddr, SocketAddr};

use crate::pattern::Pattern;

/// Number of a connection in a scenario; the same at both ends.
pub type Flow = usize;

/// Which programs a flow joins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

impl Pair {
    pub fn reversed(self) -> Self {
        Self { local: self.remote, remote: self.local }
    }
}

/// What a program sends and expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Streams {
    pub out: Pattern,
    pub inward: Pattern,
}

impl Streams {
    pub fn reversed(self) -> Self {
        Self { out: self.inward, inward: self.out }
    }
}

/// How an end's program sees its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Not yet established.
    Opening,
    /// Established, or closed in order.
    Open,
    /// It broke, and this is the program's news of it.
    Broken(&'static str),
}

/// What reading gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// So many bytes.
    Bytes(u64),
    /// Nothing now.
    Wait,
    /// Everything was read and the peer will send no more.
    End,
}

/// One end of the wire, with its programs' sockets.
pub trait End {
    /// Takes a frame from the wire; it may take its buffer, too, and leave another.
    fn handle_frame(&mut self, now_us: u64, frame: &mut Vec<u8>);
    /// Brings what has arrived to where programs find it, so that they can answer before the stack does. It may do
    /// nothing: `handle_timeout` does all.
    fn hear(&mut self, _now_us: u64) {}
    /// Does what is due at `now_us`; whether anything moved. May be called at any time.
    fn handle_timeout(&mut self, now_us: u64) -> bool;
    /// When `handle_timeout` is wanted next.
    fn next_us(&mut self) -> Option<u64>;
    /// Writes the next frame for the wire into an empty buffer; `false` if there is none.
    fn poll_frame(&mut self, now_us: u64, frame: &mut Vec<u8>) -> bool;
    /// The hash of all that happened here.
    fn transcript(&self) -> u64;

    /// Opens a connection.
    fn connect(&mut self, now_us: u64, flow: Flow, pair: Pair, streams: Streams);
    /// Waits for the connection that `pair.remote` will open. The address of `any` instead of its own, if given.
    fn accept(&mut self, now_us: u64, flow: Flow, pair: Pair, any: Option<IpAddr>, streams: Streams);
    /// What is known of a connection.
    fn status(&mut self, flow: Flow) -> Status;
    /// Queues up to `most` bytes to send; how many were taken.
    fn write(&mut self, flow: Flow, most: u64) -> u64;
    /// Takes up to `most` received bytes, each compared with what was sent.
    fn read(&mut self, flow: Flow, most: u64) -> Read;
    /// Nothing more will be written.
    fn shutdown(&mut self, flow: Flow);
    /// Whether, after `shutdown`, the peer has acknowledged everything.
    fn all_acknowledged(&mut self, flow: Flow) -> bool;
    /// Breaks the connection.
    fn abort(&mut self, flow: Flow);
    /// The program does not need the connection any more.
    fn release(&mut self, flow: Flow);
    /// Whether the program is done with all of them and the stack knows.
    fn all_released(&self) -> bool;
}

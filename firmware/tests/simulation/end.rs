//! What the world and the programs need of an end, be it the card with its guest or another stack.

use std::net::{IpAddr, SocketAddr};

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

/// How an end's program sees its connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// Not yet established.
    Opening,
    /// Established, or closed in order.
    Open,
    /// It broke, and this is the program's news of it.
    Broken(String),
}

/// What reading gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Wait,
    /// Everything was read and the peer will send no more.
    End,
}

/// One end of the wire, with its programs' sockets.
pub trait End {
    /// Takes a frame from the wire.
    fn handle_frame(&mut self, now_us: u64, frame: Vec<u8>);
    /// Does what is due at `now_us`. May be called at any time.
    fn handle_timeout(&mut self, now_us: u64);
    /// When `handle_timeout` is wanted next.
    fn next_us(&mut self) -> Option<u64>;
    /// The next frame for the wire.
    fn poll_frame(&mut self, now_us: u64) -> Option<Vec<u8>>;
    /// The hash of all that happened here.
    fn transcript(&self) -> u64;

    /// Opens a connection.
    fn connect(&mut self, now_us: u64, flow: Flow, pair: Pair);
    /// Waits for the connection that `pair.remote` will open. The address of `any` instead of its own, if given.
    fn accept(&mut self, now_us: u64, flow: Flow, pair: Pair, any: Option<IpAddr>);
    /// What is known of a connection.
    fn status(&mut self, flow: Flow) -> Status;
    /// Queues bytes to send; how many were taken.
    fn write(&mut self, flow: Flow, bytes: &[u8]) -> usize;
    /// Takes received bytes.
    fn read(&mut self, flow: Flow, bytes: &mut [u8]) -> Read;
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

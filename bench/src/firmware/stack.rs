//! What a stack must be able to do to be measured, whichever it is.

use super::frames::Frames;
use crate::measure::Stopwatch;

/// What the program asks of one of its connections.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// To send so many bytes.
    Write(usize, usize),
    /// To end it.
    Close(usize),
}

/// A stack with a listener, and a program behind it.
pub trait Stack {
    /// How it is called in tables.
    fn name(&self) -> &'static str;

    /// Takes `frames` from the wire; what it sends goes into `out`, Ethernet header or not by [`Self::header_bytes`].
    fn exchange(&mut self, now_us: u64, frames: &Frames, out: &mut Frames, watch: &mut Stopwatch);

    /// Bytes before the IP header of what it sends.
    fn header_bytes(&self) -> usize;

    /// Its program takes all that has come, new connections, ends and data; how many bytes of data. What the stack sends
    /// because of it goes into `out`.
    fn read(&mut self, now_us: u64, out: &mut Frames, watch: &mut Stopwatch) -> usize;

    /// Its program asks for something. What the stack sends because of it goes into `out`.
    fn ask(&mut self, now_us: u64, asks: &[Ask], out: &mut Frames, watch: &mut Stopwatch);

    /// Connections that there are now, whatever their state.
    fn connections(&self) -> usize;
}

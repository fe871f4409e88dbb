//! What Linux's TCP_INFO says of a connection and the card does not count: seen from the packets, and from how the card's
//! figures change between them.

use toe_abi::InfoResult;
use toe_firmware::{Duration, Instant};

use crate::tcp_info::TcpInfo;

/// Linux's guess of the peer's segments before there was one (TCP_MSS_DEFAULT).
const RECEIVE_MSS_FIRST: u32 = 536;

/// The figures of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    heard: bool,
    data_received_at: Instant,
    data_sent_at: Instant,
    acknowledged_at: Instant,
    data_segments_in: u32,
    data_segments_out: u32,
    receive_mss: u32,
    /// What bounded the sender since `since`.
    phase: Phase,
    since: Instant,
    busy: Duration,
    window_limited: Duration,
    buffer_limited: Duration,
}

/// What keeps a sender from sending more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// There is nothing to send and nothing in flight.
    Idle,
    /// Congestion control, or nothing.
    Busy,
    /// The peer's window.
    Window,
    /// The program has more than the send buffer takes.
    Buffer,
}

impl Observed {
    /// Of a connection that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            heard: false,
            data_received_at: now,
            data_sent_at: now,
            acknowledged_at: now,
            data_segments_in: 0,
            data_segments_out: 0,
            receive_mss: RECEIVE_MSS_FIRST,
            phase: Phase::Idle,
            since: now,
            busy: Duration::ZERO,
            window_limited: Duration::ZERO,
            buffer_limited: Duration::ZERO,
        }
    }

    /// A segment with so much text has arrived.
    pub fn arrived(&mut self, text_bytes: u32, now: Instant) {
        self.acknowledged_at = now;
        // The peer's SYN counts as data, as the program sees it.
        if text_bytes > 0 || !std::mem::replace(&mut self.heard, true) {
            self.data_received_at = now;
        }
        if text_bytes > 0 {
            self.data_segments_in += 1;
            self.receive_mss = self.receive_mss.max(text_bytes);
        }
    }

    /// A segment with so much text was sent.
    pub fn sent(&mut self, text_bytes: u32, now: Instant) {
        if text_bytes > 0 {
            self.data_sent_at = now;
            self.data_segments_out += 1;
        }
    }

    /// The card's figures are these now. `waiting`: the program wants to send more than there is room for.
    pub fn look(&mut self, info: &InfoResult, waiting: bool, now: Instant) {
        let passed = now.since(self.since);
        match self.phase {
            Phase::Idle => {}
            Phase::Busy => self.busy = self.busy + passed,
            Phase::Window => {
                self.busy = self.busy + passed;
                self.window_limited = self.window_limited + passed;
            }
            Phase::Buffer => {
                self.busy = self.busy + passed;
                self.buffer_limited = self.buffer_limited + passed;
            }
        }
        self.since = now;
        let next = info.not_sent.min(info.send_mss.into());
        self.phase = if info.in_flight == 0 && info.not_sent == 0 {
            Phase::Idle
        } else if info.not_sent > 0 && u64::from(info.in_flight) + next > info.send_window.into() {
            Phase::Window
        } else if info.not_sent == 0 && waiting {
            Phase::Buffer
        } else {
            Phase::Busy
        };
    }

    /// Fills in what is known here.
    pub fn complete(&self, info: TcpInfo, now: Instant) -> TcpInfo {
        let ms = |at: Instant| u32::try_from(now.since(at).as_ms()).unwrap_or(u32::MAX);
        TcpInfo {
            rcv_mss: self.receive_mss.min(info.advmss.max(RECEIVE_MSS_FIRST)),
            last_data_sent: ms(self.data_sent_at),
            last_data_recv: ms(self.data_received_at),
            last_ack_recv: ms(self.acknowledged_at),
            data_segs_in: self.data_segments_in,
            data_segs_out: self.data_segments_out,
            busy_time: self.busy.as_us(),
            rwnd_limited: self.window_limited.as_us(),
            sndbuf_limited: self.buffer_limited.as_us(),
            ..info
        }
    }
}

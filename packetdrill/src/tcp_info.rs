//! `struct tcp_info` of Linux, filled from the card's INFO_RESULT.

use toe_abi::InfoResult;

/// Linux's `struct tcp_info`, in the order of `<linux/tcp.h>`. What the card does not count is zero.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // Each is the `tcpi_` field of its name, in Linux's units.
pub struct TcpInfo {
    pub state: u8,
    pub ca_state: u8,
    pub retransmits: u8,
    pub probes: u8,
    pub backoff: u8,
    pub options: u8,
    /// Low nibble: shift of the peer's window; high nibble: of ours.
    pub wscale: u8,
    pub flags: u8,
    pub rto: u32,
    pub ato: u32,
    pub snd_mss: u32,
    pub rcv_mss: u32,
    pub unacked: u32,
    pub sacked: u32,
    pub lost: u32,
    pub retrans: u32,
    pub fackets: u32,
    pub last_data_sent: u32,
    pub last_ack_sent: u32,
    pub last_data_recv: u32,
    pub last_ack_recv: u32,
    pub pmtu: u32,
    pub rcv_ssthresh: u32,
    pub rtt: u32,
    pub rttvar: u32,
    pub snd_ssthresh: u32,
    pub snd_cwnd: u32,
    pub advmss: u32,
    pub reordering: u32,
    pub rcv_rtt: u32,
    pub rcv_space: u32,
    pub total_retrans: u32,
    pub pacing_rate: u64,
    pub max_pacing_rate: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub segs_out: u32,
    pub segs_in: u32,
    pub notsent_bytes: u32,
    pub min_rtt: u32,
    pub data_segs_in: u32,
    pub data_segs_out: u32,
    pub delivery_rate: u64,
    pub busy_time: u64,
    pub rwnd_limited: u64,
    pub sndbuf_limited: u64,
    pub delivered: u32,
    pub delivered_ce: u32,
    pub bytes_sent: u64,
    pub bytes_retrans: u64,
    pub dsack_dups: u32,
    pub reord_seen: u32,
    pub rcv_ooopack: u32,
    pub snd_wnd: u32,
    pub rcv_wnd: u32,
    pub rehash: u32,
}

/// `TCP_INFINITE_SSTHRESH`.
const NO_THRESHOLD: u32 = 0x7fff_ffff;
const CLOSED: u8 = 7;
const LISTEN: u8 = 10;

impl TcpInfo {
    /// The number of SYN-SENT.
    pub const SYN_SENT: u8 = 2;

    /// Of a socket without a connection.
    pub fn closed() -> Self {
        Self { state: CLOSED, ..Self::default() }
    }

    /// Of a listener.
    pub fn listening() -> Self {
        Self { state: LISTEN, ..Self::default() }
    }

    /// Of a connection. Linux counts in segments what the card counts in bytes.
    pub fn of(info: &InfoResult) -> Self {
        let mss = info.send_mss.max(1);
        let segments = |bytes: u32| bytes.div_ceil(mss);
        let low = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let threshold = info.slow_start_threshold;
        Self {
            state: info.tcp_state,
            ca_state: info.congestion_state,
            retransmits: info.backoff.min(255) as u8,
            backoff: info.backoff.min(255) as u8,
            options: info.options,
            wscale: info.window_scales >> 4 << 4 | info.window_scales & 15,
            rto: info.rto_us,
            snd_mss: info.send_mss,
            unacked: segments(info.in_flight),
            sacked: segments(info.sacked),
            lost: segments(info.lost),
            rtt: info.rtt_us,
            rttvar: info.rtt_variation_us,
            snd_ssthresh: if threshold >= NO_THRESHOLD { NO_THRESHOLD } else { threshold / mss },
            snd_cwnd: info.congestion_window / mss,
            reordering: 3,
            total_retrans: low(info.retransmits),
            bytes_acked: info.bytes_acknowledged,
            bytes_received: info.bytes_received,
            segs_out: low(info.segments_out),
            segs_in: low(info.segments_in),
            notsent_bytes: low(info.not_sent),
            min_rtt: info.rtt_min_us,
            bytes_sent: info.bytes_sent,
            snd_wnd: info.send_window,
            rcv_wnd: info.receive_window,
            ..Self::default()
        }
    }

    /// Its bytes, as a program reads them.
    pub fn to_bytes(self) -> Vec<u8> {
        let pointer = (&raw const self).cast::<u8>();
        // SAFETY: `self` lives for the whole call, and the struct has no padding (see the assertion below), so that all of
        // its bytes are initialised.
        unsafe { std::slice::from_raw_parts(pointer, size_of::<Self>()) }.to_vec()
    }
}

// 8 bytes, 24 words, 4 long ones, 6 words, 4 long, 2 words, 2 long, 6 words: as Linux 6.1 has it, without padding.
const _: () = assert!(size_of::<TcpInfo>() == 8 + 24 * 4 + 4 * 8 + 6 * 4 + 4 * 8 + 2 * 4 + 2 * 8 + 6 * 4);
const _: () = assert!(std::mem::offset_of!(TcpInfo, bytes_acked) == 120);
const _: () = assert!(std::mem::offset_of!(TcpInfo, rehash) == 236);

//! `TCP_INFO`: where its fields lie (linux/tcp.h), and statements about them.

use crate::language::{Check, Comparison};

/// Name, offset and size in bytes.
const FIELDS: &[(&str, usize, usize)] = &[
    ("tcpi_state", 0, 1),
    ("tcpi_ca_state", 1, 1),
    ("tcpi_retransmits", 2, 1),
    ("tcpi_probes", 3, 1),
    ("tcpi_backoff", 4, 1),
    ("tcpi_options", 5, 1),
    ("tcpi_rto", 8, 4),
    ("tcpi_ato", 12, 4),
    ("tcpi_snd_mss", 16, 4),
    ("tcpi_rcv_mss", 20, 4),
    ("tcpi_unacked", 24, 4),
    ("tcpi_sacked", 28, 4),
    ("tcpi_lost", 32, 4),
    ("tcpi_retrans", 36, 4),
    ("tcpi_fackets", 40, 4),
    ("tcpi_pmtu", 60, 4),
    ("tcpi_rcv_ssthresh", 64, 4),
    ("tcpi_rtt", 68, 4),
    ("tcpi_rttvar", 72, 4),
    ("tcpi_snd_ssthresh", 76, 4),
    ("tcpi_snd_cwnd", 80, 4),
    ("tcpi_advmss", 84, 4),
    ("tcpi_reordering", 88, 4),
    ("tcpi_total_retrans", 100, 4),
    ("tcpi_bytes_acked", 120, 8),
    ("tcpi_bytes_received", 128, 8),
    ("tcpi_segs_out", 136, 4),
    ("tcpi_segs_in", 140, 4),
    ("tcpi_notsent_bytes", 144, 4),
    ("tcpi_min_rtt", 148, 4),
];

/// As many bytes as a program asks for.
pub const BYTES: usize = 240;

/// A field of the structure; nothing if there is none of the name.
pub fn field(info: &[u8], name: &str) -> Option<i64> {
    let (_, offset, size) = FIELDS.iter().find(|(known, _, _)| *known == name)?;
    let bytes = info.get(*offset..offset + size)?;
    Some(match size {
        1 => bytes[0].into(),
        4 => u32::from_ne_bytes(bytes.try_into().ok()?).into(),
        _ => i64::try_from(u64::from_ne_bytes(bytes.try_into().ok()?)).unwrap_or(i64::MAX),
    })
}

/// Why a statement is not true, if it is not.
pub fn judge(info: &[u8], check: &Check) -> Result<(), String> {
    let Some(found) = field(info, &check.field) else {
        return Err(format!("TCP_INFO has no {} here", check.field));
    };
    let (holds, sign) = match check.comparison {
        Comparison::Equal => (found == check.value, "=="),
        Comparison::Unequal => (found != check.value, "!="),
        Comparison::Less => (found < check.value, "<"),
        Comparison::AtMost => (found <= check.value, "<="),
        Comparison::Greater => (found > check.value, ">"),
        Comparison::AtLeast => (found >= check.value, ">="),
    };
    if holds { Ok(()) } else { Err(format!("{} is {found}, not {sign} {}", check.field, check.value)) }
}

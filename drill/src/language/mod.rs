//! The language of scripts: packetdrill's, by a grammar of our own.
//!
//! A script is a list of timed events: packets that reach the stack (`<`), packets that it sends (`>`), and system
//! calls with what they give. The grammar knows nothing of line ends, so that an event may go over several lines.
//!
//! | part | example |
//! |---|---|
//! | time | `0.100`, `+.01`, `0.1~0.3`, `+0.1~+0.3`, `0.1...0.3` (a call that blocks), `*` |
//! | segment | `< S. 0:0(0) ack 1 win 1000 urg 5 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>` |
//! | ICMP | `< icmp unreachable frag_needed mtu 1400 [1:1461(1460)]` |
//! | call | `+0 read(4, ..., 1000) = -1 EAGAIN (Resource temporarily unavailable)` |
//! | TCP_INFO | `%{ assert tcpi_snd_cwnd == 10 }%` |
//! | shell | `` `sysctl -q net.ipv4.tcp_sack=0` `` |
//! | comment | `// …`, `/* … */`, `# …` |
//! | option | `--ip_version=ipv6`, at the head |
//!
//! Three things are ours: `ipv4:` or `ipv6:` before an event is for that family alone; a number in an outbound packet's
//! options may be `*`; and a flag list may be `-`, for no flag at all.

mod cursor;
mod head;
mod parser;
mod print;
mod syntax;

pub use head::{Difference, Head};
pub use parser::parse;
pub use print::{options_text, packet_text};
pub use syntax::{
    Call, Check, Comparison, Ecn, Event, Expected, Expression, Family, Flags, Icmp, IcmpKind, Moment, Outcome, Packet,
    Script, Segment, Span, TcpOption, What, When,
};

/// What is wrong with a script.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}:{line}: expected {expected}, found {found}")]
pub struct Fault {
    /// The script's name.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What could have stood there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

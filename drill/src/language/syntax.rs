//! What a script consists of. Packets that were really sent are put into the same types, so that they can be compared
//! and printed.

/// The family of a connection's packets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// As `--ip_version` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// A script.
#[derive(Clone, PartialEq, Debug)]
pub struct Script {
    /// Its name, for messages.
    pub file: String,
    /// What its first lines say of it.
    pub head: super::Head,
    /// `--name=value` options, without the dashes.
    pub options: Vec<(String, String)>,
    /// Its events, in order.
    pub events: Vec<Event>,
}

/// One event.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Where it begins, from 1.
    pub line: usize,
    /// For this family alone.
    pub only: Option<Family>,
    /// When it happens.
    pub when: When,
    /// What happens.
    pub what: What,
}

/// A moment in a script's time, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Counted from the event before, and not from the script's begin.
    pub relative: bool,
    /// The number.
    pub us: u64,
}

/// When an event happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Whenever it does: `*`.
    Any,
    /// Then.
    At(Moment),
    /// Then at the earliest and then at the latest.
    Between(Moment, Moment),
    /// A call that begins then and returns then.
    Blocking(Moment, Moment),
}

/// What happens.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// The stack is handed a packet.
    In(Packet),
    /// The stack sends a packet.
    Out(Packet),
    /// The program calls.
    Call(Call),
    /// Statements about TCP_INFO; the text of a block that says anything else is kept as it is.
    Info(Result<Vec<Check>, String>),
    /// A command for the shell.
    Shell(String),
}

/// A packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet {
    /// A TCP segment.
    Tcp(Segment),
    /// An ICMP message.
    Icmp(Icmp),
}

/// The two ECN bits of the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ecn {
    /// 0.
    NotEct,
    /// 1.
    Ect1,
    /// 2.
    Ect0,
    /// 3.
    Ce,
}

/// The flags of a TCP header, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u16);

impl Flags {
    /// FIN.
    pub const FIN: u16 = 1;
    /// SYN.
    pub const SYN: u16 = 2;
    /// RST.
    pub const RST: u16 = 4;
    /// PSH.
    pub const PSH: u16 = 8;
    /// ACK.
    pub const ACK: u16 = 16;
    /// URG.
    pub const URG: u16 = 32;
    /// ECE.
    pub const ECE: u16 = 64;
    /// CWR.
    pub const CWR: u16 = 128;
    /// Their letters, from the lowest bit.
    pub const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];

    /// Whether any of these is set.
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }
}

/// `from:to`, two sequence numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first.
    pub from: u32,
    /// The one after the last.
    pub to: u32,
}

/// A TCP segment, in a script's numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// ECN bits: `[ce]` before the flags. Nothing said is nothing compared, and zero when sent.
    pub ecn: Option<Ecn>,
    /// The flags.
    pub flags: Flags,
    /// Sequence number.
    pub sequence: u32,
    /// Bytes of text.
    pub length: u32,
    /// Acknowledgement number; nothing if it was not said.
    pub acknowledgement: Option<u32>,
    /// Window as in the header; nothing if it was not said.
    pub window: Option<u16>,
    /// Urgent pointer; nothing if it was not said.
    pub urgent: Option<u16>,
    /// Options; nothing for any (`<...>`).
    pub options: Option<Vec<TcpOption>>,
}

/// A TCP option. A value that is `None` is any value (`*`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TcpOption {
    /// Kind 0.
    End,
    /// Kind 1.
    Nop,
    /// Kind 2.
    Mss(Option<u16>),
    /// Kind 3.
    WindowScale(Option<u8>),
    /// Kind 4.
    SackPermitted,
    /// Kind 5.
    Sack(Vec<Span>),
    /// Kind 8.
    Timestamps {
        /// TSval.
        value: Option<u32>,
        /// TSecr.
        echo: Option<u32>,
    },
    /// Kind 34; the cookie, in hexadecimal digits, or any.
    FastOpen(Option<Vec<u8>>),
    /// Any other kind: `kind 254 0102`.
    Other(u8, Vec<u8>),
}

/// An ICMP message about a packet that the stack has sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Icmp {
    /// What it says.
    pub kind: IcmpKind,
    /// The next hop's MTU, in bytes.
    pub mtu: Option<u32>,
    /// The sequence numbers of the packet that it is about, as the stack sent it.
    pub about: Span,
}

/// What an ICMP message says: type and code for each family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpKind {
    /// Its words in the language.
    pub words: &'static str,
    /// In ICMP (RFC 792).
    pub v4: Option<(u8, u8)>,
    /// In ICMPv6 (RFC 4443).
    pub v6: Option<(u8, u8)>,
}

impl IcmpKind {
    /// All that the language knows.
    pub const ALL: [Self; 11] = [
        Self { words: "unreachable net_unreachable", v4: Some((3, 0)), v6: None },
        Self { words: "unreachable host_unreachable", v4: Some((3, 1)), v6: None },
        Self { words: "unreachable protocol_unreachable", v4: Some((3, 2)), v6: None },
        Self { words: "unreachable frag_needed", v4: Some((3, 4)), v6: None },
        Self { words: "unreachable source_route_failed", v4: Some((3, 5)), v6: None },
        Self { words: "unreachable port_unreachable", v4: Some((3, 3)), v6: Some((1, 4)) },
        Self { words: "unreachable no_route", v4: None, v6: Some((1, 0)) },
        Self { words: "unreachable address_unreachable", v4: None, v6: Some((1, 3)) },
        Self { words: "packet_too_big", v4: None, v6: Some((2, 0)) },
        Self { words: "time_exceeded ttl_exceeded", v4: Some((11, 0)), v6: Some((3, 0)) },
        Self { words: "source_quench", v4: Some((4, 0)), v6: None },
    ];
}

/// A system call and what it gives.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<Expression>,
    /// What it gives.
    pub gives: Expected,
}

/// What a call is expected to give.
#[derive(Clone, PartialEq, Debug)]
pub enum Expected {
    /// Anything: `?`.
    Anything,
    /// A number.
    Value(Expression),
    /// −1 and this error.
    Error(String),
}

/// What a call really gave: a number, or an error's.
pub type Outcome = Result<i64, i32>;

/// An argument.
#[derive(Clone, PartialEq, Debug)]
pub enum Expression {
    /// `...`.
    Ellipsis,
    /// A number.
    Number(i64),
    /// A name of C's, or of a script's.
    Name(String),
    /// `"…"`.
    Text(String),
    /// `a | b`.
    Or(Vec<Expression>),
    /// `[a, b]`.
    List(Vec<Expression>),
    /// `{a, b}` and `{name=a, name=b}`; also `msg_iov(1)=[…]`.
    Record(Vec<(Option<String>, Expression)>),
    /// `htons(8080)`, `inet_addr("…")`.
    Function(String, Vec<Expression>),
}

/// A comparison with a field of TCP_INFO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// The field, `tcpi_…`.
    pub field: String,
    /// How.
    pub comparison: Comparison,
    /// A number or one of Python's names for them (`TCP_CA_Open`).
    pub value: i64,
}

/// How a field is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

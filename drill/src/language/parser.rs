//! The grammar: one function for each of its parts.

use super::cursor::{Cursor, is_word};
use super::{
    Call, Check, Comparison, Ecn, Event, Expected, Expression, Family, Fault, Flags, Head, Icmp, IcmpKind, Moment,
    Packet, Script, Segment, Span, TcpOption, What, When,
};

/// Digits behind the point of a time: microseconds.
const TIME_DIGITS: usize = 6;
/// Names of numbers that a `%{ … }%` block may use.
const INFO_NAMES: [(&str, i64); 7] = [
    ("TCP_CA_Open", 0),
    ("TCP_CA_Disorder", 1),
    ("TCP_CA_CWR", 2),
    ("TCP_CA_Recovery", 3),
    ("TCP_CA_Loss", 4),
    ("TCP_INFINITE_SSTHRESH", 0x7fff_ffff),
    ("TCP_ESTABLISHED", 1),
];

/// Reads a script.
///
/// # Errors
/// The first place where it is none.
pub fn parse(file: &str, text: &str) -> Result<Script, Fault> {
    let head = Head::read(text).map_err(|(line, expected)| Fault {
        file: file.to_owned(),
        line,
        expected,
        found: format!("`{}`", text.lines().nth(line - 1).unwrap_or_default()),
    })?;
    let mut c = Cursor::new(file, text);
    let mut script = Script { file: file.to_owned(), head, options: Vec::new(), events: Vec::new() };
    c.skip()?;
    while c.take("--")? {
        let name = c.run(|c| is_word(c) || c == '-').to_owned();
        let value = if c.take("=")? { c.run(|c| !c.is_whitespace()).to_owned() } else { String::new() };
        script.options.push((name, value));
        c.skip()?;
    }
    while c.peek().is_some() {
        script.events.push(event(&mut c)?);
    }
    Ok(script)
}

fn event(c: &mut Cursor) -> Result<Event, Fault> {
    let line = c.line();
    let only = if c.take("ipv4:")? {
        Some(Family::V4)
    } else if c.take("ipv6:")? {
        Some(Family::V6)
    } else {
        None
    };
    // A command or a block may stand without a time: it is done at once.
    let when = match c.peek() {
        Some('`' | '%') => When::At(Moment { relative: true, us: 0 }),
        _ => when(c)?,
    };
    let what = match c.peek() {
        Some('<') => {
            c.take("<")?;
            What::In(packet(c)?)
        }
        Some('>') => {
            c.take(">")?;
            What::Out(packet(c)?)
        }
        Some('`') => What::Shell(between(c, "`", "`")?.trim().to_owned()),
        Some('%') => {
            let block = between(c, "%{", "}%")?;
            What::Info(checks(block).ok_or_else(|| block.trim().to_owned()))
        }
        _ => What::Call(call(c)?),
    };
    if matches!(when, When::Blocking(..)) && !matches!(what, What::Call(_)) {
        return Err(c.fault("a call after a time of the form `begin...end`"));
    }
    Ok(Event { line, only, when, what })
}

fn between<'a>(c: &mut Cursor<'a>, open: &str, close: &str) -> Result<&'a str, Fault> {
    let before = c.clone();
    let inner = c.rest().strip_prefix(open).ok_or_else(|| c.fault(format!("`{open}`")))?;
    let end = inner.find(close).ok_or_else(|| before.fault(format!("`{open}` … `{close}`")))?;
    c.at += open.len() + end + close.len();
    c.skip()?;
    Ok(&inner[..end])
}

fn when(c: &mut Cursor) -> Result<When, Fault> {
    if c.take("*")? {
        return Ok(When::Any);
    }
    let from = moment(c)?;
    if c.take("~")? {
        let mut to = moment(c)?;
        to.relative |= from.relative;
        return Ok(When::Between(from, to));
    }
    if c.take("...")? {
        let mut to = moment(c)?;
        to.relative |= from.relative;
        return Ok(When::Blocking(from, to));
    }
    Ok(When::At(from))
}

fn moment(c: &mut Cursor) -> Result<Moment, Fault> {
    let before = c.clone();
    let relative = c.take("+")?;
    let whole = c.run(|c| c.is_ascii_digit());
    let fraction = match c.rest().strip_prefix('.') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
            c.at += 1;
            c.run(|c| c.is_ascii_digit())
        }
        _ => "",
    };
    if whole.is_empty() && fraction.is_empty() || c.peek().is_some_and(is_word) {
        return Err(before.fault("a time (`0.1`, `+0.1`, `*`)"));
    }
    let seconds: u64 = if whole.is_empty() { Ok(0) } else { whole.parse() }.map_err(|_| before.fault("a time"))?;
    let mut micros = 0;
    for i in 0..TIME_DIGITS {
        let digit = fraction.as_bytes().get(i).map_or(0, |d| u64::from(d - b'0'));
        micros = micros * 10 + digit;
    }
    c.skip()?;
    let us = seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(micros));
    Ok(Moment { relative, us: us.ok_or_else(|| before.fault("a time"))? })
}

fn packet(c: &mut Cursor) -> Result<Packet, Fault> {
    if c.take_word("icmp")? || c.take_word("icmpv4")? || c.take_word("icmpv6")? {
        return icmp(c).map(Packet::Icmp);
    }
    segment(c).map(Packet::Tcp)
}

fn ecn(c: &mut Cursor) -> Result<Option<Ecn>, Fault> {
    if !c.take("[")? {
        return Ok(None);
    }
    let before = c.clone();
    let ecn = match c.word("`noecn`, `ect0`, `ect1` or `ce`")? {
        "noecn" => Ecn::NotEct,
        "ect0" => Ecn::Ect0,
        "ect1" => Ecn::Ect1,
        "ce" => Ecn::Ce,
        _ => return Err(before.fault("`noecn`, `ect0`, `ect1` or `ce`")),
    };
    c.need("]")?;
    Ok(Some(ecn))
}

fn segment(c: &mut Cursor) -> Result<Segment, Fault> {
    let ecn = ecn(c)?;
    let before = c.clone();
    let letters = c.run(|c| Flags::LETTERS.contains(&c) || c == '-');
    let mut flags = Flags(0);
    for letter in letters.chars() {
        flags.0 |= Flags::LETTERS.iter().position(|l| *l == letter).map_or(0, |bit| 1 << bit);
    }
    if letters.is_empty() || letters.contains('-') && letters != "-" || c.peek().is_some_and(is_word) {
        return Err(before.fault("flags (of FSRP.UEW, or `-` for none)"));
    }
    c.skip()?;
    let sequence = c.small("a sequence number")?;
    c.need(":")?;
    let to: u32 = c.small("a sequence number")?;
    c.need("(")?;
    let before = c.clone();
    let length: u32 = c.small("the bytes of text")?;
    if to.wrapping_sub(sequence) != length {
        return Err(before.fault(format!("{}, as the sequence numbers say", to.wrapping_sub(sequence))));
    }
    c.need(")")?;
    let acknowledgement = if c.take_word("ack")? { Some(c.small("an acknowledgement number")?) } else { None };
    let window = if c.take_word("win")? { Some(c.small("a window")?) } else { None };
    let urgent = if c.take_word("urg")? { Some(c.small("an urgent pointer")?) } else { None };
    let options = if c.take("<")? { options(c)? } else { Some(Vec::new()) };
    Ok(Segment { ecn, flags, sequence, length, acknowledgement, window, urgent, options })
}

fn options(c: &mut Cursor) -> Result<Option<Vec<TcpOption>>, Fault> {
    if c.take("...")? {
        c.need(">")?;
        return Ok(None);
    }
    let mut list = Vec::new();
    while !c.take(">")? {
        list.push(option(c)?);
        if !c.take(",")? {
            c.need(">")?;
            break;
        }
    }
    Ok(Some(list))
}

/// A number, or `*` for any.
fn any_or<T: TryFrom<i64>>(c: &mut Cursor, what: &str) -> Result<Option<T>, Fault> {
    if c.take("*")? { Ok(None) } else { c.small(what).map(Some) }
}

fn hex(c: &mut Cursor) -> Result<Vec<u8>, Fault> {
    let before = c.clone();
    let digits = c.run(|c| c.is_ascii_hexdigit());
    if !digits.len().is_multiple_of(2) {
        return Err(before.fault("hexadecimal digits, two for each byte"));
    }
    c.skip()?;
    let byte = |i: usize| u8::from_str_radix(&digits[i..i + 2], 16).map_err(|_| before.fault("hexadecimal digits"));
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn option(c: &mut Cursor) -> Result<TcpOption, Fault> {
    const KNOWN: &str = "an option (mss, wscale, sackOK, sack, TS, nop, eol, FO, kind)";
    let before = c.clone();
    Ok(match c.word(KNOWN)? {
        "eol" => TcpOption::End,
        "nop" => TcpOption::Nop,
        "mss" => TcpOption::Mss(any_or(c, "a segment size")?),
        "wscale" => TcpOption::WindowScale(any_or(c, "a shift")?),
        "sackOK" => TcpOption::SackPermitted,
        "sack" => {
            let mut spans = Vec::new();
            while c.peek().is_some_and(|c| c.is_ascii_digit()) {
                let from = c.small("a sequence number")?;
                c.need(":")?;
                spans.push(Span { from, to: c.small("a sequence number")? });
            }
            TcpOption::Sack(spans)
        }
        "TS" => {
            c.need("val")?;
            let value = any_or(c, "a timestamp")?;
            c.need("ecr")?;
            TcpOption::Timestamps { value, echo: any_or(c, "a timestamp")? }
        }
        "FO" => {
            if c.take("*")? {
                TcpOption::FastOpen(None)
            } else {
                TcpOption::FastOpen(Some(hex(c)?))
            }
        }
        "kind" => {
            let kind = c.small("an option's kind")?;
            TcpOption::Other(kind, hex(c)?)
        }
        _ => return Err(before.fault(KNOWN)),
    })
}

fn icmp(c: &mut Cursor) -> Result<Icmp, Fault> {
    let before = c.clone();
    let mut words = c.word("what the message says")?.to_owned();
    while !IcmpKind::ALL.iter().any(|kind| kind.words == words) {
        if !c.peek().is_some_and(is_word) {
            return Err(before.fault("what an ICMP message can say"));
        }
        words.push(' ');
        words.push_str(c.word("what the message says")?);
    }
    let kind = IcmpKind::ALL.into_iter().find(|kind| kind.words == words);
    let kind = kind.ok_or_else(|| before.fault("what an ICMP message can say"))?;
    let mtu = if c.take_word("mtu")? { Some(c.small("an MTU")?) } else { None };
    c.need("[")?;
    let from = c.small("a sequence number")?;
    c.need(":")?;
    let to = c.small("a sequence number")?;
    c.need("(")?;
    c.small::<u32>("the bytes of text")?;
    c.need(")")?;
    c.need("]")?;
    Ok(Icmp { kind, mtu, about: Span { from, to } })
}

fn call(c: &mut Cursor) -> Result<Call, Fault> {
    let name = c.word("a packet (`<`, `>`) or a call")?.to_owned();
    c.need("(")?;
    let mut arguments = Vec::new();
    while !c.take(")")? {
        arguments.push(expression(c)?);
        if !c.take(",")? {
            c.need(")")?;
            break;
        }
    }
    c.need("=")?;
    let gives = if c.take("?")? {
        Expected::Anything
    } else if c.rest().starts_with("-1") && !c.rest()[2..].starts_with(is_word) {
        c.number("−1")?;
        if c.peek().is_some_and(|c| c.is_ascii_uppercase()) {
            let error = c.word("an error's name")?.to_owned();
            note(c)?;
            Expected::Error(error)
        } else {
            Expected::Value(Expression::Number(-1))
        }
    } else {
        let value = expression(c)?;
        note(c)?;
        Expected::Value(value)
    };
    Ok(Call { name, arguments, gives })
}

/// What stands in parentheses after a result is for the reader.
fn note(c: &mut Cursor) -> Result<(), Fault> {
    if c.peek() == Some('(') {
        between(c, "(", ")")?;
    }
    Ok(())
}

fn expression(c: &mut Cursor) -> Result<Expression, Fault> {
    let first = term(c)?;
    if !c.take("|")? {
        return Ok(first);
    }
    let mut all = vec![first, term(c)?];
    while c.take("|")? {
        all.push(term(c)?);
    }
    Ok(Expression::Or(all))
}

fn term(c: &mut Cursor) -> Result<Expression, Fault> {
    if c.take("...")? {
        return Ok(Expression::Ellipsis);
    }
    match c.peek() {
        Some('"') => between(c, "\"", "\"").map(|text| Expression::Text(text.to_owned())),
        Some('[') => {
            c.take("[")?;
            let mut list = Vec::new();
            while !c.take("]")? {
                list.push(expression(c)?);
                if !c.take(",")? {
                    c.need("]")?;
                    break;
                }
            }
            Ok(Expression::List(list))
        }
        Some('{') => {
            c.take("{")?;
            let mut fields = Vec::new();
            while !c.take("}")? {
                fields.push(field(c)?);
                if !c.take(",")? {
                    c.need("}")?;
                    break;
                }
            }
            Ok(Expression::Record(fields))
        }
        Some(first) if first == '-' || first.is_ascii_digit() => c.number("a number").map(Expression::Number),
        _ => {
            let name = c.word("an argument")?.to_owned();
            if !c.take("(")? {
                return Ok(Expression::Name(name));
            }
            let mut arguments = Vec::new();
            while !c.take(")")? {
                arguments.push(expression(c)?);
                if !c.take(",")? {
                    c.need(")")?;
                    break;
                }
            }
            Ok(Expression::Function(name, arguments))
        }
    }
}

/// `value`, `name=value`, or `name(count)=value`.
fn field(c: &mut Cursor) -> Result<(Option<String>, Expression), Fault> {
    let value = expression(c)?;
    let name = match &value {
        Expression::Name(name) | Expression::Function(name, _) if c.peek() == Some('=') => name.clone(),
        _ => return Ok((None, value)),
    };
    c.need("=")?;
    Ok((Some(name), expression(c)?))
}

/// A block that consists of `assert tcpi_name == number` lines (joined with `and`, if need be); nothing for any other.
fn checks(block: &str) -> Option<Vec<Check>> {
    const SIGNS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::Unequal),
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let mut checks = Vec::new();
    for line in block.split(['\n', ';']) {
        let line = line.split('#').next()?.trim();
        if line.is_empty() {
            continue;
        }
        let said = line.strip_prefix("assert")?;
        // What follows a comma is the message.
        let said = said.split(',').next()?;
        for part in said.split(" and ") {
            let (sign, comparison) = *SIGNS.iter().find(|(sign, _)| part.contains(sign))?;
            let (field, value) = part.split_once(sign)?;
            let field = field.trim_matches([' ', '(', '\t']).to_owned();
            let value = value.trim_matches([' ', ')', '\t']);
            let named = INFO_NAMES.iter().find(|(name, _)| *name == value).map(|(_, number)| *number);
            let value = named.or_else(|| value.parse().ok())?;
            if !field.starts_with("tcpi_") || !field.chars().all(is_word) {
                return None;
            }
            checks.push(Check { field, comparison, value });
        }
    }
    (!checks.is_empty()).then_some(checks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Event {
        let mut script = parse("t.pkt", text).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(script.events.len(), 1, "{text}");
        script.events.remove(0)
    }

    fn message(text: &str) -> String {
        parse("t.pkt", text).unwrap_err().to_string()
    }

    #[test]
    fn times() {
        let at = |relative, us| Moment { relative, us };
        for (text, when) in [
            ("0", When::At(at(false, 0))),
            ("0.100", When::At(at(false, 100_000))),
            ("+.01", When::At(at(true, 10_000))),
            ("+1.0000019", When::At(at(true, 1_000_001))),
            ("*", When::Any),
            ("0.1~0.3", When::Between(at(false, 100_000), at(false, 300_000))),
            ("+0.1~+0.3", When::Between(at(true, 100_000), at(true, 300_000))),
            ("0...0.2", When::Blocking(at(false, 0), at(false, 200_000))),
            ("+0...0.2", When::Blocking(at(true, 0), at(true, 200_000))),
            ("0.1...0.25", When::Blocking(at(false, 100_000), at(false, 250_000))),
        ] {
            assert_eq!(one(&format!("{text} close(3) = 0")).when, when, "{text}");
        }
        assert!(message("soon close(3) = 0").starts_with("t.pkt:1: expected a time"));
    }

    #[test]
    fn segments() {
        let What::In(Packet::Tcp(s)) =
            one("+0 < [ect0] SEW 0:0(0) win 1000 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>").what
        else {
            panic!()
        };
        assert_eq!(s.flags.0, Flags::SYN | Flags::ECE | Flags::CWR);
        assert_eq!((s.ecn, s.window, s.acknowledgement), (Some(Ecn::Ect0), Some(1000), None));
        assert_eq!(
            s.options.unwrap(),
            [
                TcpOption::Mss(Some(1460)),
                TcpOption::SackPermitted,
                TcpOption::Timestamps { value: Some(1), echo: Some(0) },
                TcpOption::Nop,
                TcpOption::WindowScale(Some(7)),
            ]
        );
        let What::Out(Packet::Tcp(s)) = one("* > P. 1:1001(1000) ack 1 <nop,nop,sack 5:6 8:9>").what else { panic!() };
        let sack = TcpOption::Sack(vec![Span { from: 5, to: 6 }, Span { from: 8, to: 9 }]);
        assert_eq!(s.options.unwrap(), [TcpOption::Nop, TcpOption::Nop, sack]);
        assert_eq!((s.length, s.acknowledgement, s.window), (1000, Some(1), None));
        let What::Out(Packet::Tcp(s)) = one("* > S 0:0(0) <...>").what else { panic!() };
        assert_eq!(s.options, None);
        let What::In(Packet::Tcp(s)) = one("0 < - 7:7(0)").what else { panic!() };
        assert_eq!((s.flags, s.urgent), (Flags(0), None));
        let expected = "t.pkt:1: expected 10, as the sequence numbers say, found `9)`";
        assert_eq!(message("0 < . 1:11(9)"), expected);
        assert!(message("0 < X 1:1(0)").contains("expected flags"));
        assert!(message("0 < . 1:1(0) win 65536").contains("a window that fits its field"));
    }

    #[test]
    fn calls() {
        let What::Call(call) = one("+0 connect(3, ..., ...) = -1 EINPROGRESS (Operation now in progress)").what else {
            panic!()
        };
        assert_eq!(call.arguments, [Expression::Number(3), Expression::Ellipsis, Expression::Ellipsis]);
        assert_eq!(call.gives, Expected::Error("EINPROGRESS".to_owned()));
        let What::Call(call) = one("0 poll([{fd=3, events=POLLIN|POLLOUT, revents=POLLOUT}], 1, 0) = 1").what else {
            panic!()
        };
        let Expression::List(list) = &call.arguments[0] else { panic!() };
        let Expression::Record(fields) = &list[0] else { panic!() };
        assert_eq!(fields[0], (Some("fd".to_owned()), Expression::Number(3)));
        assert!(matches!(&fields[1].1, Expression::Or(all) if all.len() == 2));
        let What::Call(call) = one("0 fcntl(3, F_GETFL) = 0x2 (flags O_RDWR)").what else { panic!() };
        assert_eq!(call.gives, Expected::Value(Expression::Number(2)));
        let text =
            "0 bind(3, {sa_family = AF_INET, sin_port = htons(80), sin_addr = inet_addr(\"192.0.2.1\")}, ...) = 0";
        let What::Call(call) = one(text).what else { panic!() };
        let Expression::Record(fields) = &call.arguments[1] else { panic!() };
        let port = Expression::Function("htons".to_owned(), vec![Expression::Number(80)]);
        assert_eq!(fields[1], (Some("sin_port".to_owned()), port));
        assert!(message("\n\n0 close(3").starts_with("t.pkt:3: expected `)`, found the end"));
    }

    #[test]
    fn icmp() {
        let What::In(Packet::Icmp(m)) = one("0 < icmp unreachable frag_needed mtu 1400 [1:1461(1460)]").what else {
            panic!()
        };
        assert_eq!((m.kind.v4, m.mtu, m.about), (Some((3, 4)), Some(1400), Span { from: 1, to: 1461 }));
        assert!(message("0 < icmp telephone [1:2(1)]").contains("what an ICMP message can say"));
    }

    #[test]
    fn blocks_and_commands() {
        let check = |field: &str, comparison, value| Check { field: field.to_owned(), comparison, value };
        let What::Info(Ok(checks)) =
            one("%{\nassert tcpi_snd_cwnd == 10, tcpi_snd_cwnd\nassert tcpi_ca_state == TCP_CA_Open\n}%").what
        else {
            panic!()
        };
        let all = [check("tcpi_snd_cwnd", Comparison::Equal, 10), check("tcpi_ca_state", Comparison::Equal, 0)];
        assert_eq!(checks, all);
        assert_eq!(one("%{ print(1) }%").what, What::Info(Err("print(1)".to_owned())));
        assert_eq!(one("`sysctl -q a=1`").what, What::Shell("sysctl -q a=1".to_owned()));
    }

    #[test]
    fn heads_options_comments_families() {
        let text = "// A title.\n# differs: linux: it does so, RFC 1\n# flags: iw=4\n--ip_version=ipv6\n\
                    /* one\n two */ ipv6: 0 close(3) = 0 // end\n";
        let script = parse("t.pkt", text).unwrap();
        assert_eq!(script.options, [("ip_version".to_owned(), "ipv6".to_owned())]);
        assert_eq!(script.head.prose, ["A title."]);
        assert_eq!(script.head.differs_on("linux"), Some("it does so, RFC 1"));
        assert_eq!(script.head.differs_on("firmware"), None);
        assert_eq!(script.head.flags, ["iw=4"]);
        assert_eq!((script.events[0].only, script.events[0].line), (Some(Family::V6), 6));
        assert!(message("# differs: else: x\n").starts_with("t.pkt:1: expected `# differs: firmware"));
    }

    #[test]
    fn any_text_is_read_or_refused() {
        let good =
            "+0 < S 0:0(0) ack 1 win 5 <mss 1,TS val 1 ecr 2,sack 1:2>\n0...1 f({a=1|B, ...}, [\"x\"]) = -1 E (x)";
        for end in 0..good.len() {
            let _ = parse("t", &good[..end]);
            for other in ["<", ">", "(", "9", " ", ".", "*", "`", "%{", "é", "-"] {
                let _ = parse("t", &format!("{}{other}{}", &good[..end], &good[end..]));
            }
        }
    }
}

//! Packets as a script has them.

use std::fmt::Write;

use super::{Ecn, Flags, Packet, Segment, TcpOption};

/// A packet, without its direction.
pub fn packet_text(packet: &Packet) -> String {
    match packet {
        Packet::Tcp(segment) => segment_text(segment),
        Packet::Icmp(icmp) => {
            let mtu = icmp.mtu.map_or(String::new(), |mtu| format!(" mtu {mtu}"));
            let (from, to) = (icmp.about.from, icmp.about.to);
            format!("icmp {}{mtu} [{from}:{to}({})]", icmp.kind.words, to.wrapping_sub(from))
        }
    }
}

fn segment_text(s: &Segment) -> String {
    let mut text = String::new();
    if let Some(ecn) = s.ecn {
        text.push_str(match ecn {
            Ecn::NotEct => "[noecn] ",
            Ecn::Ect0 => "[ect0] ",
            Ecn::Ect1 => "[ect1] ",
            Ecn::Ce => "[ce] ",
        });
    }
    for (bit, letter) in Flags::LETTERS.iter().enumerate() {
        if s.flags.has(1 << bit) {
            text.push(*letter);
        }
    }
    if s.flags == Flags(0) {
        text.push('-');
    }
    // Writing into a string cannot fail.
    let _ = write!(text, " {}:{}({})", s.sequence, s.sequence.wrapping_add(s.length), s.length);
    let named = [("ack", s.acknowledgement), ("win", s.window.map(u32::from)), ("urg", s.urgent.map(u32::from))];
    for (name, value) in named {
        if let Some(value) = value {
            let _ = write!(text, " {name} {value}");
        }
    }
    match &s.options {
        None => text.push_str(" <...>"),
        Some(list) if list.is_empty() => {}
        Some(list) => {
            let _ = write!(text, " <{}>", options_text(list));
        }
    }
    text
}

/// Options, separated by commas.
pub fn options_text(list: &[TcpOption]) -> String {
    list.iter().map(option_text).collect::<Vec<_>>().join(",")
}

fn option_text(option: &TcpOption) -> String {
    fn any<T: ToString>(value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| "*".to_owned(), T::to_string)
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match option {
        TcpOption::End => "eol".to_owned(),
        TcpOption::Nop => "nop".to_owned(),
        TcpOption::Mss(mss) => format!("mss {}", any(mss)),
        TcpOption::WindowScale(shift) => format!("wscale {}", any(shift)),
        TcpOption::SackPermitted => "sackOK".to_owned(),
        TcpOption::Sack(spans) => {
            let spans: Vec<String> = spans.iter().map(|s| format!("{}:{}", s.from, s.to)).collect();
            format!("sack {}", spans.join(" "))
        }
        TcpOption::Timestamps { value, echo } => format!("TS val {} ecr {}", any(value), any(echo)),
        TcpOption::FastOpen(None) => "FO *".to_owned(),
        TcpOption::FastOpen(Some(cookie)) if cookie.is_empty() => "FO".to_owned(),
        TcpOption::FastOpen(Some(cookie)) => format!("FO {}", hex(cookie)),
        TcpOption::Other(kind, data) => format!("kind {kind} {}", hex(data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::{What, parse};

    #[test]
    fn what_is_printed_is_read_back() {
        for text in [
            "S 0:0(0) win 1000 <mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7>",
            "[ce] FSRP.UEW 1:11(10) ack 4294967295 win 0 urg 3",
            "- 4294967295:0(1) <sack 1:2 3:4,eol,FO 0102,kind 254 ff,FO>",
            ". 1:1(0) ack 1 <...>",
            "S. 0:0(0) ack 1 <mss *,wscale *,TS val * ecr *,FO *>",
            "icmp unreachable frag_needed mtu 1400 [1:1461(1460)]",
        ] {
            let script = parse("t", &format!("0 < {text}")).unwrap();
            let What::In(packet) = &script.events[0].what else { panic!() };
            assert_eq!(packet_text(packet), text);
        }
    }
}

//! The checks.

use anyhow::{Context, Result, ensure};

use super::probe::{Checksum, Probe, Segment, flag};
use super::{Check, PATIENCE, SILENCE};

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
/// For experiments (RFC 6994): no TCP knows it unless it takes part in one.
const UNKNOWN: u8 = 253;

/// All checks, in the order of RFC 9293.
pub const CHECKS: &[Check] = &[
    Check { name: "reserved flags", source: "RFC 9293, 3.1 (control bits)", run: reserved },
    Check { name: "checksum wrong", source: "RFC 9293, 3.1, MUST-3", run: |p| checksum(p, Checksum::Wrong) },
    Check { name: "checksum zero", source: "RFC 9293, 3.1, MUST-3", run: |p| checksum(p, Checksum::Zero) },
    Check { name: "end and no-operation", source: "RFC 9293, 3.1, MUST-4, MUST-64", run: padding },
    Check { name: "option anywhere", source: "RFC 9293, 3.1, MUST-5", run: option_in_data },
    Check { name: "option unknown", source: "RFC 9293, 3.1, MUST-6", run: unknown_option },
    Check { name: "option length", source: "RFC 9293, 3.1, MUST-7", run: option_length },
    Check { name: "MSS sent and used", source: "RFC 9293, 3.7.1, MUST-14, MUST-16", run: mss },
    Check { name: "MSS missing", source: "RFC 9293, 3.7.1, MUST-15", run: mss_missing },
    Check { name: "urgent pointer", source: "RFC 9293, 3.8.5, MUST-30, MUST-31", run: urgent },
    Check { name: "closed port", source: "RFC 9293, 3.10.7.1", run: closed_port },
    Check { name: "reset", source: "RFC 9293, 3.5.3; RFC 5961, 3.2", run: reset },
    Check { name: "SYN when open", source: "RFC 9293, 3.10.7.4; RFC 5961, 4.2", run: syn_when_open },
    Check { name: "ACK of the unsent", source: "RFC 9293, 3.10.7.4; RFC 5961, 5.2", run: unsent },
    Check { name: "malformed", source: "RFC 9293, 3.1 (data offset, control bits)", run: malformed },
];

fn mss_option(mss: u16) -> Vec<u8> {
    let [high, low] = mss.to_be_bytes();
    vec![MSS, 4, high, low]
}

fn reserved(probe: &mut Probe) -> Result<()> {
    let port = probe.fresh_port();
    let syn = Segment { reserved: 0b1110, ..probe.syn(port, &mss_option(1_000)) };
    probe.send(&syn, Checksum::Right)?;
    let answer = probe.receive(port, PATIENCE)?.context("a SYN with reserved bits was not answered")?;
    ensure!(answer.flags & 0x3f == flag::SYN | flag::ACK, "a SYN with reserved bits was answered by {answer:?}");
    let reset = Segment { sequence: answer.acknowledgement, flags: flag::RST, ..syn };
    probe.send(&reset, Checksum::Right)?;

    let mut dialogue = probe.open(&mss_option(1_000))?;
    let data = Segment { reserved: 0b1110, ..dialogue.segment(flag::ACK | flag::PSH, b"reserved") };
    dialogue.say(&data, 8).context("data with reserved bits")?;
    dialogue.expect_alive("reserved bits")
}

fn checksum(probe: &mut Probe, how: Checksum) -> Result<()> {
    let port = probe.fresh_port();
    let syn = probe.syn(port, &[]);
    probe.send(&syn, how)?;
    let answer = probe.receive(port, SILENCE)?;
    ensure!(answer.is_none(), "a SYN with that checksum was answered by {answer:?}");

    let mut dialogue = probe.open(&mss_option(1_000))?;
    let data = dialogue.segment(flag::ACK | flag::PSH, b"checked");
    dialogue.send_with(&data, how)?;
    dialogue.expect_silence("data with that checksum")?;
    dialogue.say(&data, 7).context("the same data with the right one")?;
    Ok(())
}

fn padding(probe: &mut Probe) -> Result<()> {
    // What is behind the end of the list does not count.
    let mut dialogue = probe.open(&[NOP, NOP, NOP, MSS, 4, 0, 200, END, MSS, 4, 0, 100])?;
    let data = Segment { options: vec![NOP, NOP, END, 77], ..dialogue.segment(flag::ACK | flag::PSH, &[b'x'; 500]) };
    let heard = dialogue.say(&data, 500).context("data with padding for options")?;
    let longest = heard.iter().map(|s| s.text.len()).max().unwrap_or(0);
    ensure!(longest == 200, "an MSS of 200 behind padding made segments of {longest} bytes");
    Ok(())
}

fn option_in_data(probe: &mut Probe) -> Result<()> {
    let mut dialogue = probe.open(&mss_option(1_000))?;
    // An MSS belongs into a SYN; elsewhere it is to be ignored.
    let data = Segment { options: mss_option(100), ..dialogue.segment(flag::ACK | flag::PSH, &[b'y'; 600]) };
    let heard = dialogue.say(&data, 600).context("data with an option")?;
    ensure!(heard.iter().any(|s| s.text.len() > 100), "an MSS in a data segment was obeyed");
    Ok(())
}

fn unknown_option(probe: &mut Probe) -> Result<()> {
    let options = [&[UNKNOWN, 6, 0xca, 0xfe, 1, 2, NOP, NOP][..], &mss_option(1_000)].concat();
    let mut dialogue = probe.open(&options)?;
    ensure!(dialogue.syn_ack.option(UNKNOWN).is_none(), "an unknown option was sent back");
    let data = Segment {
        options: vec![UNKNOWN, 3, 9, 252, 4, 1, 1, NOP],
        ..dialogue.segment(flag::ACK | flag::PSH, b"unknown")
    };
    dialogue.say(&data, 7).context("data with an unknown option")?;
    Ok(())
}

fn option_length(probe: &mut Probe) -> Result<()> {
    for options in [[UNKNOWN, 0, 0, 0], [UNKNOWN, 1, 0, 0], [UNKNOWN, 40, 0, 0], [MSS, 0, 5, 5], [NOP, NOP, NOP, MSS]] {
        // Whether the SYN is answered is the target's choice; that it still lives is not.
        let port = probe.fresh_port();
        let syn = probe.syn(port, &options);
        probe.send(&syn, Checksum::Right)?;
        probe.receive(port, SILENCE)?;
        let reset = Segment { sequence: syn.sequence.wrapping_add(1), flags: flag::RST, options: Vec::new(), ..syn };
        probe.send(&reset, Checksum::Right)?;

        let mut dialogue = probe.open(&mss_option(1_000))?;
        let odd = Segment { options: options.to_vec(), ..dialogue.segment(flag::ACK, &[]) };
        dialogue.send(&odd)?;
        dialogue.expect_alive(&format!("options {options:?}"))?;
    }
    Ok(())
}

fn mss(probe: &mut Probe) -> Result<()> {
    let headers = probe.header_bytes();
    let mut dialogue = probe.open(&mss_option(300))?;
    let sent = dialogue.syn_ack.option(MSS).context("the SYN-ACK has no MSS option")?;
    let sent = u16::from_be_bytes(sent.try_into().context("an MSS option of another length")?);
    ensure!(sent == 1_500 - headers, "an MSS of {sent} on a wire with an MTU of 1500");
    let data = dialogue.segment(flag::ACK | flag::PSH, &[b'z'; 1_200]);
    let heard = dialogue.say(&data, 1_200)?;
    let longest = heard.iter().map(|s| s.text.len() + s.options.len()).max().unwrap_or(0);
    ensure!(longest == 300, "an MSS of 300 made segments of {longest} bytes");
    Ok(())
}

fn mss_missing(probe: &mut Probe) -> Result<()> {
    let default = probe.default_mss();
    let mut dialogue = probe.open(&[])?;
    let data = dialogue.segment(flag::ACK | flag::PSH, &[b'd'; 1_400]);
    let heard = dialogue.say(&data, 1_400)?;
    let longest = heard.iter().map(|s| s.text.len()).max().unwrap_or(0);
    ensure!(longest == default, "without an MSS option, segments of {longest} bytes instead of {default}");
    Ok(())
}

fn urgent(probe: &mut Probe) -> Result<()> {
    let mut dialogue = probe.open(&mss_option(1_000))?;
    // The urgent data is longer than one segment: the pointer lies in the one after. What a program takes out of band
    // is missing in its echo, so that only the acknowledgements are looked at, and that something comes back.
    let flags = flag::ACK | flag::PSH | flag::URG;
    let first = Segment { urgent: 1_200, ..dialogue.segment(flags, &[b'u'; 1_000]) };
    dialogue.say(&first, 900).context("urgent data")?;
    let second = Segment { urgent: 200, ..dialogue.segment(flags, &[b'v'; 1_000]) };
    dialogue.say(&second, 900).context("urgent data that ends in the second segment")?;
    let third = dialogue.segment(flag::ACK | flag::PSH, &[b'w'; 500]);
    dialogue.say(&third, 400).context("data after urgent data")?;
    Ok(())
}

fn closed_port(probe: &mut Probe) -> Result<()> {
    let source = probe.fresh_port();
    let to = |flags| Segment {
        source,
        destination: probe.closed_port,
        sequence: 7_000,
        acknowledgement: if flags & flag::ACK != 0 { 9_000 } else { 0 },
        flags,
        window: 1_000,
        ..Segment::default()
    };
    let (syn, ack, data, rst) = (to(flag::SYN), to(flag::ACK), to(flag::PSH), to(flag::RST));
    probe.send(&syn, Checksum::Right)?;
    let answer = probe.receive(source, PATIENCE)?.context("a SYN to a closed port was not answered")?;
    let numbers = (answer.flags, answer.sequence, answer.acknowledgement);
    ensure!(numbers == (flag::RST | flag::ACK, 0, 7_001), "a SYN to a closed port was answered by {answer:?}");
    probe.send(&ack, Checksum::Right)?;
    let answer = probe.receive(source, PATIENCE)?.context("an ACK to a closed port was not answered")?;
    ensure!((answer.flags, answer.sequence) == (flag::RST, 9_000), "an ACK to a closed port: {answer:?}");
    let data = Segment { text: b"data".to_vec(), ..data };
    probe.send(&data, Checksum::Right)?;
    // Some drop what has neither ACK nor SYN; whoever answers must answer so.
    if let Some(answer) = probe.receive(source, SILENCE)? {
        let numbers = (answer.flags, answer.sequence, answer.acknowledgement);
        ensure!(numbers == (flag::RST | flag::ACK, 0, 7_004), "data to a closed port: {answer:?}");
    }
    probe.send(&rst, Checksum::Right)?;
    let answer = probe.receive(source, SILENCE)?;
    ensure!(answer.is_none(), "a reset to a closed port was answered by {answer:?}");
    Ok(())
}

fn reset(probe: &mut Probe) -> Result<()> {
    let mut dialogue = probe.open(&mss_option(1_000))?;
    dialogue.expect_alive("nothing")?;
    let exact = dialogue.segment(flag::RST, &[]);
    let outside = Segment { sequence: exact.sequence.wrapping_sub(1), ..exact.clone() };
    dialogue.send(&outside)?;
    dialogue.expect_silence("a reset before the window")?;
    let outside = Segment { sequence: exact.sequence.wrapping_add(0x4000_0000), ..exact.clone() };
    dialogue.send(&outside)?;
    dialogue.expect_silence("a reset behind the window")?;
    dialogue.expect_alive("resets outside of the window")?;
    let exact = dialogue.segment(flag::RST, &[]);
    let inside = Segment { sequence: exact.sequence.wrapping_add(10), ..exact.clone() };
    dialogue.send(&inside)?;
    dialogue.expect_ack("a reset in the window, but not at its edge,")?;
    dialogue.expect_alive("a reset in the window")?;
    let exact = dialogue.segment(flag::RST, &[]);
    dialogue.send(&exact)?;
    dialogue.expect_silence("a reset")?;
    let data = dialogue.segment(flag::ACK | flag::PSH, b"gone?");
    dialogue.send(&data)?;
    let answer = dialogue.receive(PATIENCE)?.context("data after a reset was not answered")?;
    ensure!(answer.flags & flag::RST != 0, "after a reset the connection lives: {answer:?}");
    Ok(())
}

fn syn_when_open(probe: &mut Probe) -> Result<()> {
    let mut dialogue = probe.open(&mss_option(1_000))?;
    let syn = dialogue.segment(flag::SYN, &[]);
    dialogue.send(&syn)?;
    dialogue.expect_ack("a SYN at the window's edge")?;
    dialogue.expect_alive("a SYN")
}

fn unsent(probe: &mut Probe) -> Result<()> {
    let mut dialogue = probe.open(&mss_option(1_000))?;
    let ack = dialogue.segment(flag::ACK | flag::PSH, b"unsent");
    let ack = Segment { acknowledgement: ack.acknowledgement.wrapping_add(1_000), ..ack };
    dialogue.send(&ack)?;
    dialogue.expect_ack("an acknowledgement of what was never sent")?;
    dialogue.expect_alive("it")
}

fn malformed(probe: &mut Probe) -> Result<()> {
    let mut dialogue = probe.open(&mss_option(1_000))?;
    for offset in [0, 4, 15] {
        let segment = Segment { offset: Some(offset), ..dialogue.segment(flag::ACK | flag::PSH, b"offset") };
        dialogue.send(&segment)?;
        dialogue.expect_silence(&format!("a data offset of {offset}"))?;
    }
    let nothing = dialogue.segment(0, b"no flags");
    dialogue.send(&nothing)?;
    dialogue.expect_silence("data without ACK")?;
    dialogue.expect_alive("malformed segments")?;
    drop(dialogue);
    // Land cannot be shown from another host; a SYN that also ends is no way to open a connection, nor to break one.
    for flags in [flag::SYN | flag::FIN, flag::SYN | flag::RST, 0x3f] {
        let source = probe.fresh_port();
        let segment = Segment { flags, ..probe.syn(source, &[]) };
        probe.send(&segment, Checksum::Right)?;
        if let Some(answer) = probe.receive(source, SILENCE)? {
            ensure!(answer.flags & flag::SYN == 0 || flags & flag::RST == 0, "{flags:#x} opened: {answer:?}");
            let reset = Segment { sequence: segment.sequence.wrapping_add(1), flags: flag::RST, ..segment };
            probe.send(&reset, Checksum::Right)?;
        }
    }
    probe.open(&[])?.expect_alive("malformed SYNs")
}

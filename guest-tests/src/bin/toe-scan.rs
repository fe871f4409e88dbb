//! Scans a listener on the card, and beside it one of the Linux kernel, over a real wire, for what RFC 9293 demands.
//! `scripts/scan` builds and starts it.
//!
//! The exit status is 0 only if the card passes every check.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use toe_guest_tests::scan::{Target, Verdict, scan};

fn main() -> ExitCode {
    toe_guest_tests::program::run("toe-scan", run)
}

fn run() -> Result<()> {
    let card = scan(&Target::card()?)?;
    let linux = scan(&Target::linux()?)?;
    println!("{:<22} {:<6} {:<6} {:<6} demanded by", "check", "over", "card", "Linux");
    for (ours, theirs) in card.iter().zip(&linux) {
        let family = if ours.ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let word = |v: &Verdict| if v.fault.is_none() { "pass" } else { "FAIL" };
        println!("{:<22} {family:<6} {:<6} {:<6} {}", ours.check.name, word(ours), word(theirs), ours.check.source);
    }
    for (who, verdicts) in [("card", &card), ("Linux", &linux)] {
        for verdict in verdicts {
            if let Some(fault) = &verdict.fault {
                println!("{who}, {} at {}: {fault}", verdict.check.name, verdict.ip);
            }
        }
    }
    let passed = |verdicts: &[Verdict]| verdicts.iter().filter(|v| v.fault.is_none()).count();
    println!("card {} of {}, Linux {} of {}", passed(&card), card.len(), passed(&linux), linux.len());
    ensure!(passed(&card) == card.len(), "the card fails {} checks", card.len() - passed(&card));
    Ok(())
}

//! Socket calls and options, one row each: what they return, with which errno, and to what effect.
//!
//! Runs in a guest, once by itself and once under `toe run`, against a peer (`toe-calls peer`) on the
//! other end of the wire. Each row is
//! a line: name, tab, result. A result holds nothing that may differ from run to run (ports, times), so that two runs
//! are the same if the calls are.

mod kills;
mod peer;
mod rows;
mod sys;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

/// Where the peer is.
pub struct Env {
    /// Over IPv4.
    pub v4: SocketAddr,
    /// Over IPv6.
    pub v6: SocketAddr,
    /// This guest's own IPv4 address.
    pub own_v4: IpAddr,
}

const USAGE: &str = "usage: toe-calls PEER-V4:PORT [PEER-V6]:PORT OWN-V4 [ROW]   every row, or one
       toe-calls peer                                     the other end
       toe-calls load PEER                                connections until one breaks
       toe-calls kills TOE PEER ROUNDS SEED               programs and supervisors that die
       toe-calls many PEER COUNT                          so many at once
       toe-calls rate PEER SECONDS                        connections per second
       toe-calls send PEER SECONDS                        bytes per second";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(&arguments).unwrap_or_else(|| {
        eprintln!("{USAGE}");
        ExitCode::from(2)
    })
}

fn run(arguments: &[&str]) -> Option<ExitCode> {
    match arguments {
        ["peer"] => Some(match peer::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("toe-calls peer: {e}");
                ExitCode::FAILURE
            }
        }),
        ["load", peer] => Some(kills::load(peer.parse().ok()?)),
        ["kills", toe, peer, rounds, seed] => Some(kills::kills(toe, peer, rounds.parse().ok()?, seed.parse().ok()?)),
        ["many", peer, count] => {
            println!("{}", kills::many(peer.parse().ok()?, count.parse().ok()?));
            Some(ExitCode::SUCCESS)
        }
        ["rate", peer, seconds] => {
            let seconds = seconds.parse().ok()?;
            println!("{}", kills::rate(peer.parse().ok()?, seconds) / seconds);
            Some(ExitCode::SUCCESS)
        }
        ["send", peer, seconds] => {
            println!("{}", kills::send_rate(peer.parse().ok()?, seconds.parse().ok()?));
            Some(ExitCode::SUCCESS)
        }
        [v4, v6, own, wanted @ ..] => {
            let env = Env { v4: v4.parse().ok()?, v6: v6.parse().ok()?, own_v4: own.parse().ok()? };
            for (name, row) in rows::ROWS {
                if wanted.is_empty() || wanted.contains(name) {
                    println!("{name}\t{}", row(&env));
                }
            }
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
}

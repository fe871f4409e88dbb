//! Socket calls and options, one row each: what they return, with which errno, and to what effect.
//!
//! Runs in a guest, once by itself and once under `toe run`, against a peer (`toe-calls peer`) on the
//! other end of the wire. Each row is
//! a line: name, tab, result. A result holds nothing that may differ from run to run (ports, times), so that two runs
//! are the same if the calls are.

mod kills;
mod loads;
mod mechanisms;
mod peer;
mod rates;
mod rows;
mod sys;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

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
       toe-calls connections|sent|received|exchanges PEER SECONDS
                                                          so many a second
       toe-calls library connections|... PEER SECONDS     the same by the library, on the card
       toe-calls [library] load-of LOAD PEER SECONDS      one load of scripts/bench guest
       toe-calls frames INTERFACE SECONDS                 the longest frames past TCP
       toe-calls mechanisms CALLS                         what it costs to know of a call";

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
            println!("{}", rates::many(peer.parse().ok()?, count.parse().ok()?));
            Some(ExitCode::SUCCESS)
        }
        ["mechanisms", calls] => Some(mechanisms::measure(calls.parse().ok()?)),
        ["load-of", load, peer, seconds] => load_of::<std::net::TcpStream>(load, peer, seconds),
        ["library", "load-of", load, peer, seconds] => {
            let status = load_of::<toe_guest::TcpStream>(load, peer, seconds);
            toe_guest::close_all(Duration::from_secs(2));
            status
        }
        ["frames", interface, seconds] => Some(say(loads::frames(interface, seconds_of(seconds)?))),
        ["library", what, peer, seconds] => {
            let status = rate::<toe_guest::TcpStream>(what, peer, seconds);
            toe_guest::close_all(Duration::from_secs(2));
            status
        }
        [what @ ("connections" | "sent" | "received" | "exchanges"), peer, seconds] => {
            rate::<std::net::TcpStream>(what, peer, seconds)
        }
        [v4, v6, own, wanted @ ..] => {
            let env = Env { v4: v4.parse().ok()?, v6: v6.parse().ok()?, own_v4: own.parse().ok()? };
            for (name, row) in rows::all() {
                if wanted.is_empty() || wanted.contains(name) {
                    println!("{name}\t{}", row(&env));
                }
            }
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
}

/// Measures a rate, and prints it.
fn rate<S: rates::Stream>(what: &str, peer: &str, seconds: &str) -> Option<ExitCode> {
    let (peer, time) = (peer.parse().ok()?, Duration::from_secs(seconds.parse().ok()?));
    let measure = match what {
        "connections" => rates::connections::<S>,
        "sent" => rates::sent::<S>,
        "received" => rates::received::<S>,
        "exchanges" => rates::exchanges::<S>,
        _ => return None,
    };
    Some(say(measure(peer, time)))
}

/// Measures one load, and prints what came of it.
fn load_of<S: rates::Stream>(load: &str, peer: &str, seconds: &str) -> Option<ExitCode> {
    Some(say(loads::measure::<S>(loads::Load::parse(load)?, peer.parse().ok()?, seconds_of(seconds)?)))
}

fn seconds_of(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

fn say(result: std::io::Result<impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("toe-calls: {e}");
            ExitCode::FAILURE
        }
    }
}

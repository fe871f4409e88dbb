//! Socket calls and options, one row each: what they return, with which errno, and to what effect.
//!
//! Runs in a guest, once by itself and once under `toe run`, against a peer (`toe-calls peer`) on the
//! other end of the wire. Each row is
//! a line: name, tab, result. A result holds nothing that may differ from run to run (ports, times), so that two runs
//! are the same if the calls are.

mod peer;
mod rows;
mod sys;

use std::net::{IpAddr, SocketAddr};

/// Where the peer is.
pub struct Env {
    /// Over IPv4.
    pub v4: SocketAddr,
    /// Over IPv6.
    pub v6: SocketAddr,
    /// This guest's own IPv4 address.
    pub own_v4: IpAddr,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "peer") {
        if let Err(e) = peer::serve() {
            eprintln!("toe-calls peer: {e}");
            std::process::exit(1);
        }
        return;
    }
    let address = |at: usize| arguments.get(at).and_then(|a| a.parse().ok());
    let (Some(v4), Some(v6), Some(own)) = (address(0), address(1), arguments.get(2).and_then(|a| a.parse().ok()))
    else {
        eprintln!("usage: toe-calls peer | PEER-V4:PORT [PEER-V6]:PORT OWN-V4 [ROW]");
        std::process::exit(2);
    };
    let env = Env { v4, v6, own_v4: own };
    for (name, row) in rows::ROWS {
        if arguments.get(3).is_some_and(|wanted| wanted != name) {
            continue;
        }
        println!("{name}\t{}", row(&env));
    }
}

//! The tests' helper inside the guest.

use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use toe_guest_tests::bytes::{Pattern, Sum};

/// The tests' helper inside the guest.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes that many bytes of that pattern to standard output.
    Gen {
        /// The pattern.
        seed: u64,
        /// How many bytes.
        bytes: u64,
        /// 16 KiB every 5 ms, and only until that file exists.
        #[arg(long)]
        until: Option<PathBuf>,
    },
    /// Sends that many bytes of that pattern over a connection of the kernel's, in pieces of 64 KiB.
    Send {
        /// The server's address.
        ip: IpAddr,
        /// The server's port.
        port: u16,
        /// The pattern.
        seed: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// Reads standard input to its end; prints its length and SHA-256.
    Sum {
        /// Leaves out an HTTP answer's head, which must say that all is well.
        #[arg(long)]
        http: bool,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Gen { seed, bytes, until } => {
            let mut output = std::io::stdout().lock();
            let mut pattern = Pattern::new(seed).take(bytes);
            if let Some(until) = until {
                while pattern.limit() > 0 && !until.exists() {
                    std::io::copy(&mut (&mut pattern).take(16_384), &mut output)?;
                    std::thread::sleep(Duration::from_millis(5));
                }
            } else {
                std::io::copy(&mut pattern, &mut output)?;
            }
            output.flush()?;
        }
        Command::Send { ip, port, seed, bytes } => {
            let mut stream =
                TcpStream::connect((ip, port)).with_context(|| format!("connecting to {ip} port {port}"))?;
            let mut pattern = Pattern::new(seed).take(bytes);
            let mut piece = vec![0; 65_536];
            loop {
                let n = pattern.read(&mut piece)?;
                if n == 0 {
                    break;
                }
                stream.write_all(&piece[..n])?;
            }
        }
        Command::Sum { http } => {
            let mut input = std::io::stdin().lock();
            if http {
                skip_head(&mut input)?;
            }
            println!("{}", Sum::of(&mut input)?);
        }
    }
    Ok(())
}

/// Reads an HTTP answer up to its body.
fn skip_head(input: &mut impl BufRead) -> Result<()> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    anyhow::ensure!(line.split(' ').nth(1) == Some("200"), "the server said: {}", line.trim());
    while !line.trim().is_empty() {
        line.clear();
        let n = input.read_line(&mut line).context("the head of the answer")?;
        anyhow::ensure!(n > 0, "the answer ended within its head");
    }
    Ok(())
}

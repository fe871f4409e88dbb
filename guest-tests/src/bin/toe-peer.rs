//! The tests' helper inside the guest.

use std::io::{BufRead, Read, Write};

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
        Command::Gen { seed, bytes } => {
            let mut output = std::io::stdout().lock();
            std::io::copy(&mut Pattern::new(seed).take(bytes), &mut output)?;
            output.flush()?;
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

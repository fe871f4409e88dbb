//! `toectl`: asks a running card for its limits and counters.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use toe_device::management::{Limit, Version};

/// Ask a running toe-nic
#[derive(Parser)]
#[command(name = "toectl", version)]
struct Options {
    /// The socket that toe-nic was given as --management-socket
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand, Clone, Copy)]
enum Question {
    /// Every pool: capacity, in use, high water, policy, refusals by reason
    Limits {
        /// As the card says it
        #[arg(long)]
        json: bool,
    },
    /// Every counter
    Stat {
        /// As the card says it
        #[arg(long)]
        json: bool,
    },
    /// What answers
    Version {
        /// As the card says it
        #[arg(long)]
        json: bool,
    },
}

/// How long a card may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("toectl: {}: {error}", options.socket.display());
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<String, Box<dyn std::error::Error>> {
    let (path, json) = match options.question {
        Question::Limits { json } => ("/limits", json),
        Question::Stat { json } => ("/stat", json),
        Question::Version { json } => ("/version", json),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, ask(options, path)).await.map_err(|_| "no answer; is that a toe-nic?")?
    })?;
    if json {
        return Ok(String::from_utf8(body)? + "\n");
    }
    Ok(match options.question {
        Question::Limits { .. } => limits_table(&serde_json::from_slice::<Vec<Limit>>(&body)?),
        Question::Stat { .. } => stat_table(&serde_json::from_slice(&body)?),
        Question::Version { .. } => {
            let Version { name, version, channel, epoch } = serde_json::from_slice(&body)?;
            format!("{name} {version}, channel version {channel}, epoch {epoch:#010x}\n")
        }
    })
}

async fn ask(options: &Options, path: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let stream = tokio::net::UnixStream::connect(&options.socket).await.map_err(|error| {
        format!("{error}; is toe-nic running with `--management-socket {}`?", options.socket.display())
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header("host", "toe-nic").body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("{path} was answered with {status}").into());
        }
        Ok(body.to_vec())
    };
    // The connection ends when the sender is dropped, or fails; either way the exchange tells how it went.
    tokio::select! {
        result = exchange => result,
        Err(error) = connection => Err(error.into()),
    }
}

fn limits_table(limits: &[Limit]) -> String {
    let mut rows = vec![["POOL", "CAPACITY", "IN USE", "HIGH WATER", "POLICY", "REFUSALS"].map(str::to_owned).to_vec()];
    for Limit { name, capacity, in_use, high_water, policy, refusals } in limits {
        let refusals: Vec<_> = refusals.iter().filter(|(_, n)| **n > 0).map(|(why, n)| format!("{why}={n}")).collect();
        let refusals = if refusals.is_empty() { "-".to_owned() } else { refusals.join(" ") };
        let numbers = [capacity, in_use, high_water].map(u64::to_string);
        let [capacity, in_use, high_water] = numbers;
        rows.push(vec![name.clone(), capacity, in_use, high_water, policy.clone(), refusals]);
    }
    table(&rows, &[1, 2, 3])
}

fn stat_table(stat: &BTreeMap<String, u64>) -> String {
    let mut rows = vec![vec!["COUNTER".to_owned(), "VALUE".to_owned()]];
    rows.extend(stat.iter().map(|(name, value)| vec![name.clone(), value.to_string()]));
    table(&rows, &[1])
}

/// Columns two spaces apart, those in `right` flush right.
fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let limit = Limit {
            name: "connections".to_owned(),
            capacity: 4096,
            in_use: 3,
            high_water: 5,
            policy: "fallback".to_owned(),
            refusals: BTreeMap::from([("connections-full".to_owned(), 2), ("send-memory-full".to_owned(), 0)]),
        };
        assert_eq!(
            limits_table(&[limit]),
            "POOL         CAPACITY  IN USE  HIGH WATER  POLICY    REFUSALS\n\
             connections      4096       3           5  fallback  connections-full=2\n"
        );
        let stat = BTreeMap::from([("a".to_owned(), 1), ("long-name".to_owned(), 234)]);
        assert_eq!(stat_table(&stat), "COUNTER    VALUE\na              1\nlong-name    234\n");
    }
}

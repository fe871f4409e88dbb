//! `toectl capture`: what passes through the card, into a file or a pipe.
//!
//! The card selects and cuts; this only writes, whole blocks at a time, so that what is there when it is interrupted is a
//! capture. How many frames there are is told at the end.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

use hyper::Request;
use toe_device::capture::filter::Instruction;
use toe_device::capture::pcapng::Blocks;
use toe_device::capture::{self, Point, filter};
use tokio::signal::unix::{SignalKind, signal};

use crate::ask::Answer;

/// What it is told.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// Write to this file; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    write: PathBuf,

    /// Only what is seen at `wire`, `guest` or `channel`; may be given several times [default: all three]
    #[arg(short, long, value_name = "POINT")]
    interface: Vec<Point>,

    /// Cut frames after so many bytes
    #[arg(short, long, value_name = "BYTES", default_value_t = 65_549, value_parser = clap::value_parser!(u32).range(1..=65_549))]
    snaplen: u32,

    /// End after so many frames
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Which frames, as tcpdump has it (pcap-filter(7)): `tcp port 80 and host 192.0.2.1`; tcpdump compiles it
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    filter: Vec<String>,
}

/// The filter, compiled; none if there is none.
///
/// # Errors
/// One line about what makes no sense.
pub fn compiled(arguments: &Arguments) -> Result<Option<Vec<Instruction>>, String> {
    match arguments.filter.join(" ") {
        all if all.trim().is_empty() => Ok(None),
        expression => filter::compile(&expression).map(Some),
    }
}

/// Runs until the count is reached, who reads has gone, or it is interrupted.
///
/// # Errors
/// One line.
pub async fn run(socket: &Path, arguments: &Arguments, filter: Option<Vec<Instruction>>) -> Result<(), String> {
    let to_stdout = arguments.write == Path::new("-");
    if to_stdout && std::io::stdout().is_terminal() {
        return Err("a capture is no text: name a file with --write, or pipe it to `wireshark -k -i -`".to_owned());
    }
    let wanted = capture::Request {
        points: arguments.interface.iter().copied().collect(),
        snaplen: arguments.snaplen as usize,
        count: arguments.count,
        filter,
    };
    let body = serde_json::to_vec(&wanted).map_err(|error| error.to_string())?;
    // Before the first frame is asked for: an interruption ends it in order.
    let handle = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut interrupt, mut terminate) = (handle(SignalKind::interrupt())?, handle(SignalKind::terminate())?);
    let mut answer = Answer::to(socket, Request::post("/capture"), body.into()).await?;
    let mut out: Box<dyn Write> = if to_stdout {
        Box::new(std::io::stdout())
    } else {
        let name = arguments.write.display();
        Box::new(std::fs::File::create(&arguments.write).map_err(|error| format!("--write {name}: {error}"))?)
    };
    let mut blocks = Blocks::default();
    loop {
        let part = tokio::select! {
            part = answer.next() => part?,
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        };
        let Some(part) = part else { break };
        let whole = blocks.whole(&part).map_err(|error| format!("what came is no capture: {error}"))?;
        match out.write_all(&whole).and_then(|()| out.flush()) {
            Ok(()) => {}
            // Who reads has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(error) => return Err(format!("--write {}: {error}", arguments.write.display())),
        }
    }
    eprintln!("{} frames captured", blocks.packets());
    Ok(())
}

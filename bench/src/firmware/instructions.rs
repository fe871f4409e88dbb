//! Instructions per segment and per connection, counted by callgrind: a figure that does not depend on the machine or on what
//! else it does.
//!
//! Callgrind counts while [`crate::measure::measured_section`] runs. Each case runs twice, with more to do the second time,
//! and the difference is divided by the difference: what boot and opening cost falls out.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::connections::{self, AT_ONCE};
use super::segments::{self, Doing, SIZES};
use crate::report::{row, table, write};

/// How much is done in the two runs.
const TIMES: [usize; 2] = [2_000, 12_000];

/// Does a case, by its name: `STACK DOING SIZE`, or `STACK connections AT_ONCE`.
pub fn case(name: &str, times: usize) -> Result<()> {
    let [stack, doing, what] = name.split('/').collect::<Vec<_>>()[..] else { bail!("no such case: {name}") };
    if doing == "connections" {
        let at_once: usize = what.parse()?;
        match stack {
            "card" => connections::card(0).rate(times, at_once),
            _ => connections::smol(0, at_once).rate(times, at_once),
        };
        return Ok(());
    }
    let size = *SIZES.iter().find(|size| size.name == what).context("no such size")?;
    let doing = *Doing::ALL.iter().find(|d| d.name() == doing).context("nothing of that name is done")?;
    match stack {
        "card" => segments::card(size, false).round(doing, times),
        _ => segments::smol(size, false).round(doing, times),
    };
    Ok(())
}

/// All cases under callgrind; the table.
pub fn run() -> Result<String> {
    let mut rows = vec![row(["instructions", "card", "smoltcp", "ratio"])];
    let mut values = Vec::new();
    let segments = SIZES.iter().flat_map(|size| Doing::ALL.map(|doing| format!("{}/{}", doing.name(), size.name)));
    let connections = [format!("connections/{AT_ONCE}"), "connections/1".into()];
    for case in segments.chain(connections) {
        let [card, smol] = [count("card", &case)?, count("smoltcp", &case)?];
        rows.push(row([
            case.replace('/', " "),
            format!("{card:.0}"),
            format!("{smol:.0}"),
            format!("{:.2}", card / smol),
        ]));
        values.push(json!({ "name": case, "card": card, "smoltcp": smol }));
    }
    let path = write("firmware-instructions", &json!({ "instructions": values }))?;
    Ok(table("Instructions per segment, and per connection", &rows) + &format!("{}\n", path.display()))
}

/// Instructions for one of what the case does.
fn count(stack: &str, case: &str) -> Result<f64> {
    // Long segments are dear to simulate.
    let scale = if case.ends_with("KiB") { 10 } else { 1 };
    let [few, many] = TIMES.map(|times| times / scale);
    let name = format!("{stack}/{case}");
    Ok((total(&name, many)? - total(&name, few)?) / (many - few) as f64)
}

fn total(case: &str, times: usize) -> Result<f64> {
    let me = std::env::current_exe().context("where is this program?")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*measured_section*")
        .arg(me)
        .args(["firmware", "--case", case, "--times", &times.to_string()])
        .output()
        .context("cannot start valgrind; apt-get install valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{case} under callgrind: {said}");
    }
    let line =
        said.lines().find_map(|line| line.split_once("Collected :")).context("callgrind does not say how many")?;
    line.1.trim().parse().with_context(|| format!("callgrind says {:?}", line.1))
}

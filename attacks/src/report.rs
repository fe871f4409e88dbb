//! What is printed of an attack, and the table of the documentation.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::run::{Attack, Report, Table, ms};

/// A report for people.
pub fn text(attack: &Attack, report: &Report) -> String {
    let mut s = String::new();
    let w = &mut s;
    let table = match report.table {
        Table::Room => "room on the card",
        Table::Full => "the table full",
    };
    let [frames, bytes, per_s, passed] = report.sent;
    let (asked, completed, by_kernel) = report.clients;
    let (out, out_completed) = report.outbound;
    let [p99, p99_benign] = report.handshake_p99_us.map(ms);
    let [all, slowest] = report.throughput_percent;
    let (mean, steps_p99, most, benign) = report.steps;
    // Writing to a string does not fail.
    let _ = writeln!(w, "\n{}, {table}: {}", attack.name, attack.sends);
    let _ =
        writeln!(w, "  sent         {frames} frames, {bytes} bytes, {per_s} a second; {passed} went on to the kernel");
    let _ = writeln!(w, "  answered     {} frames, {} bytes", report.answered.0, report.answered.1);
    let _ = writeln!(
        w,
        "  honest       {completed} of {asked} connections ({by_kernel} by the kernel), {out_completed} of {out} of the guest's"
    );
    let _ = writeln!(w, "  handshakes   {p99:.1} ms (99 of 100), {p99_benign:.1} without the attack");
    let _ = writeln!(w, "  established  {all:.1} % of their throughput, the slowest {slowest:.1} %");
    let _ = writeln!(
        w,
        "  steps        {mean:.1} on average, {steps_p99} (99 of 100), {most} at most; {benign} (99 of 100) without"
    );
    for (name, [before, after, high]) in &report.pools {
        let _ = writeln!(w, "  pool         {name}: {before} before, {high} at most, {after} after");
    }
    for (rule, holds) in &report.verdict.rules {
        let _ = writeln!(w, "  {}  {rule}", if *holds { "holds      " } else { "FAILS      " });
    }
    let _ = writeln!(w, "  verdict      {}: {}", if report.verdict.holds() { "held" } else { "FAILED" }, attack.rule);
    s
}

const LIST_BEGIN: &str = "<!-- the attacks: begin -->";
const LIST_END: &str = "<!-- the attacks: end -->";
const BEGIN: &str = "<!-- the last run: begin -->";
const END: &str = "<!-- the last run: end -->";

/// Replaces what stands between the two marks of `path` by the table of these reports.
///
/// # Errors
/// The file cannot be read or written, or has not both marks.
pub fn write_table(path: &Path, command: &str, attacks: &[Attack], reports: &[Report]) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut list = String::from("\n| attack | what is sent | and what must hold |\n|---|---|---|\n");
    attacks.iter().for_each(|a| _ = writeln!(list, "| {} | {} | {} |", a.name, a.sends, a.rule));
    list.push('\n');
    let text = replaced(&text, [LIST_BEGIN, LIST_END], &list)?;
    let mut w = String::new();
    let _ = writeln!(w, "\n    {command}\n");
    w.push_str("| attack | table | frames a second | honest connections (by the kernel) | handshake, ms | throughput | steps: mean, 99 %, most | verdict |\n");
    w.push_str("|---|---|---:|---:|---:|---:|---:|---|\n");
    for attack in attacks {
        for r in reports.iter().filter(|r| r.attack == attack.name) {
            let table = if r.table == Table::Room { "room" } else { "full" };
            let (asked, completed, by_kernel) = r.clients;
            let (mean, p99, most, _) = r.steps;
            let failed: Vec<&str> =
                r.verdict.rules.iter().filter(|(_, holds)| !holds).map(|(t, _)| t.as_str()).collect();
            let verdict =
                if failed.is_empty() { "held".to_owned() } else { format!("**failed**: {}", failed.join("; ")) };
            let _ = writeln!(
                w,
                "| {} | {table} | {} | {completed} of {asked} ({by_kernel}) | {:.1} | {:.1} % | {mean:.1}, {p99}, {most} | {verdict} |",
                r.attack,
                r.sent[2],
                ms(r.handshake_p99_us[0]),
                r.throughput_percent[0],
            );
        }
    }
    let held = reports.iter().filter(|r| r.verdict.holds()).count();
    let _ = writeln!(w, "\n{held} held, {} failed.", reports.len() - held);
    let text = replaced(&text, [BEGIN, END], &w)?;
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// The text with `new` between the two marks.
fn replaced(text: &str, [begin, end]: [&str; 2], new: &str) -> Result<String> {
    let (head, rest) = text.split_once(begin).with_context(|| format!("there is no `{begin}`"))?;
    let (_, tail) = rest.split_once(end).with_context(|| format!("there is no `{end}`"))?;
    Ok(format!("{head}{begin}\n{new}{end}{tail}"))
}

//! The guest's instructions, under QEMU.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use toe_guest_tests::loads::{self, Instructions, Measured, Way};
use toe_guest_tests::run::Peer;
use toe_guest_tests::{Kind, Lab, LabOptions, Nic, host};

use super::{Channel, Load, Unit};
use crate::measure::Figure;
use crate::report;

/// Beside the card: the same guest and kernel on QEMU's own network. Both end the guest's TCP on the host.
const BESIDE: [(&str, Nic); 2] = [("QEMU -netdev user", Nic::QemuUser), ("passt", Nic::Passt)];

fn plugin() -> Result<PathBuf> {
    // A release is what `scripts/bench` makes of everything.
    let path = std::path::absolute(host::target())?.join("release/libtoe_guest_instructions.so");
    ensure!(path.is_file(), "no plugin at {}: run scripts/bench guest", path.display());
    Ok(path)
}

fn counted(measured: &Measured) -> Result<Instructions> {
    measured.instructions.context("nothing counted")
}

/// Instructions for one of what is counted: all, the programs', the kernel's.
fn each(measured: &Measured) -> Result<[f64; 3]> {
    let Instructions { user, kernel } = counted(measured)?;
    Ok([user + kernel, user, kernel].map(|n| n as f64 / measured.count as f64))
}

fn cell(unit: Unit, figure: &Figure) -> String {
    figure.cell(if unit == Unit::Byte { 3 } else { 0 })
}

/// The tables, and the figures for the file.
pub fn measure(wanted: &[&Load], rounds: usize, time: Duration, channel: Channel) -> Result<(String, Value)> {
    let plugin = plugin()?;
    let options = |name: &str, nic: Option<Nic>| {
        let new = LabOptions::new(name, Kind::Qemu);
        let new = LabOptions { limit: Duration::from_secs(3600), plugin: Some(plugin.clone()), ..new };
        match nic {
            None => channel.apply(new),
            Some(nic) => LabOptions { nic, ..new },
        }
    };
    let head = ["instructions for each", "", "kernel", "toe run", "library", "toe run / kernel", "library / kernel"];
    let mut rows = vec![report::row(head)];
    let mut parts = vec![report::row(["of them in programs", "", "kernel", "toe run", "library"])];
    let mut figures = Vec::new();
    let mut idle_per_s = 0.0;
    Lab::run(options("bench-instructions", None), |lab| {
        let _peer = Peer::start(lab)?;
        let idle = loads::measure(lab, Way::Kernel, "idle", time)?;
        idle_per_s = each(&idle)?[0] * idle.count as f64 / idle.time.as_secs_f64();
        for load in wanted {
            let mut all: [Vec<[f64; 3]>; 3] = Default::default();
            for _ in 0..rounds {
                for (way, counts) in Way::ALL.into_iter().zip(&mut all) {
                    let measured = loads::measure(lab, way, load.argument, time);
                    counts.push(each(&measured.with_context(|| format!("{}, {}", load.name, way.name()))?)?);
                }
            }
            let [kernel, run, library] = &all;
            let figure = |of: &[[f64; 3]], part: usize| Figure::of(of.iter().map(|counts| counts[part]).collect());
            let ratio = |of: &[[f64; 3]]| Figure::of(of.iter().zip(kernel).map(|(a, b)| a[0] / b[0]).collect());
            let ratios = [ratio(run), ratio(library)];
            let name = [load.name.to_owned(), load.unit.name().to_owned()];
            let cells = |part: usize| [kernel, run, library].map(|of| cell(load.unit, &figure(of, part)));
            rows.push(report::row(
                name.clone().into_iter().chain(cells(0)).chain(ratios.each_ref().map(|r| r.cell(2))),
            ));
            parts.push(report::row(name.into_iter().chain(cells(1))));
            let mut json = json!({ "load": load.name, "unit": load.unit.name(), "toe run / kernel": ratios[0].json(), "library / kernel": ratios[1].json() });
            for (way, of) in Way::ALL.into_iter().zip(&all) {
                json[way.name()] = json!({ "all": fine(&figure(of, 0)), "programs": fine(&figure(of, 1)), "kernel": fine(&figure(of, 2)) });
            }
            lab.step(&format!(
                "{}: {:.2} of the kernel's instructions by toe run, {:.2} by the library",
                load.name, ratios[0].median, ratios[1].median
            ));
            figures.push(json);
        }
        Ok(())
    })?;
    let (table, beside) = beside(wanted, rounds, time, options)?;
    let title = format!(
        "A guest's instructions under QEMU, {}: median (lowest to highest) of {rounds} rounds of {time:?}; an idle guest executes {idle_per_s:.0} a second",
        channel.name()
    );
    let tables = format!(
        "{}\n{}\n{table}\n",
        report::table(&title, &rows),
        report::table("Programs, with the library and toe run", &parts)
    );
    Ok((tables, json!({ "loads": figures, "idle_per_s": idle_per_s.round(), "beside": beside })))
}

/// Per byte a hundredth of an instruction is worth something.
fn fine(figure: &Figure) -> Value {
    let rounded = |x: f64| (x * 10_000.0).round() / 10_000.0;
    json!({ "median": rounded(figure.median), "low": rounded(figure.low), "high": rounded(figure.high) })
}

/// The kernel's sockets on other networks: instructions, and for their shape rates.
fn beside(
    wanted: &[&Load],
    rounds: usize,
    time: Duration,
    options: impl Fn(&str, Option<Nic>) -> LabOptions,
) -> Result<(String, Value)> {
    let mut rows = vec![report::row(["kernel's sockets, instructions for each", ""])];
    rows[0].extend(BESIDE.map(|(name, _)| name.to_owned()));
    rows.extend(wanted.iter().map(|load| report::row([load.name, load.unit.name()])));
    let mut value = json!({});
    for (n, (name, nic)) in BESIDE.into_iter().enumerate() {
        let measured = Lab::run(options(&format!("bench-beside-{n}"), Some(nic)), |lab| {
            let _peer = Peer::start(lab)?;
            for (load, row) in wanted.iter().zip(&mut rows[1..]) {
                let round = |_| Ok(each(&loads::measure(lab, Way::Kernel, load.argument, time)?)?[0]);
                let figure = Figure::of((0..rounds).map(round).collect::<Result<_>>()?);
                row.push(cell(load.unit, &figure));
                value[name][load.name] = fine(&figure);
            }
            Ok(())
        });
        if let Err(error) = measured {
            // The card's own figures are not lost with it.
            eprintln!("{name}: not measured: {error:#}");
            value[name]["error"] = format!("{error:#}").into();
            rows[1..].iter_mut().for_each(|row| row.resize(3 + n, "-".to_owned()));
        }
    }
    Ok((report::table("Beside: the same guest on QEMU's own network", &rows), value))
}

//! Time, under User-Mode Linux.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use toe_guest_tests::loads::{self, Measured, Way};
use toe_guest_tests::run::Peer;
use toe_guest_tests::{Kind, Lab, LabOptions};

use super::{Channel, Load, Unit};
use crate::measure::Figure;
use crate::report;
use crate::turns::Turns;

/// Of a guest's interface and of the wire, for frames of 64 KiB: 65,521 is the most that a TAP takes.
const LONGEST_MTU: u32 = 65_521;
/// As the table has it.
const FRAMES: &str = "frames of 64 KiB";

fn per_second(measured: &Measured) -> f64 {
    measured.count as f64 / measured.time.as_secs_f64()
}

/// A rate as the table has it.
fn rate(unit: Unit, per_s: &Figure) -> String {
    match unit {
        Unit::Byte => {
            let gbit = |x: f64| x * 8.0 / 1e9;
            Figure { median: gbit(per_s.median), low: gbit(per_s.low), high: gbit(per_s.high) }.cell(2) + " Gbit/s"
        }
        Unit::Answer | Unit::Connection => per_s.cell(0) + " /s",
    }
}

/// The tables, and the figures for the file.
pub fn measure(
    turns: &Turns,
    wanted: &[&Load],
    rounds: usize,
    time: Duration,
    channel: Channel,
) -> Result<(String, Value)> {
    let mut rates = vec![report::row(["load", "kernel", "toe run", "library", "toe run / kernel", "library / kernel"])];
    let mut waits = vec![report::row(["each takes", "", "50 %", "99 %"])];
    let mut figures = Vec::new();
    let limit = Duration::from_secs(3600);
    if !wanted.is_empty() {
        let options = channel.apply(LabOptions { limit, ..LabOptions::new("bench-speed", Kind::UserMode) });
        Lab::run(options, |lab| {
            let _peer = Peer::start(lab)?;
            for load in wanted {
                figures.push(one(lab, load, rounds, time, &mut rates, &mut waits)?);
            }
            Ok(())
        })?;
    }
    if turns.wants(FRAMES) {
        let new = LabOptions::new("bench-frames", Kind::UserMode);
        Lab::run(LabOptions { limit, guest_mtu: LONGEST_MTU, wire_mtu: LONGEST_MTU, ..new }, |lab| {
            let all = (0..rounds).map(|_| Ok(per_second(&loads::frames(lab, time)?))).collect::<Result<_>>()?;
            let figure = Figure::of(all);
            rates.push(report::row([FRAMES, &rate(Unit::Byte, &figure), "", "", "", ""]));
            figures.push(json!({ "load": FRAMES, "unit": "byte", "per_s": figure.json() }));
            Ok(())
        })?;
    }
    let title = format!(
        "A guest under User-Mode Linux, {}: median (lowest to highest) of {rounds} rounds of {time:?}",
        channel.name()
    );
    Ok((format!("{}\n{}\n", report::table(&title, &rates), report::table("Time", &waits)), Value::Array(figures)))
}

fn one(
    lab: &Lab,
    load: &Load,
    rounds: usize,
    time: Duration,
    rates: &mut Vec<Vec<String>>,
    waits: &mut Vec<Vec<String>>,
) -> Result<Value> {
    let mut all: [Vec<Measured>; 3] = Default::default();
    for _ in 0..rounds {
        for (way, measured) in Way::ALL.into_iter().zip(&mut all) {
            let new = loads::measure(lab, way, load.argument, time);
            measured.push(new.with_context(|| format!("{}, {}", load.name, way.name()))?);
        }
    }
    let [kernel, run, library] = &all;
    let rate_of = |of: &[Measured]| Figure::of(of.iter().map(per_second).collect());
    let ratio =
        |of: &[Measured]| Figure::of(of.iter().zip(kernel).map(|(a, b)| per_second(a) / per_second(b)).collect());
    let (ratio_run, ratio_library) = (ratio(run), ratio(library));
    let cells = [kernel, run, library].map(|of| rate(load.unit, &rate_of(of)));
    let ratios = [&ratio_run, &ratio_library].map(|figure| figure.cell(2));
    rates.push(report::row([load.name.to_owned()].into_iter().chain(cells).chain(ratios)));
    let mut json = json!({ "load": load.name, "unit": load.unit.name(), "toe run / kernel": ratio_run.json(), "library / kernel": ratio_library.json() });
    for (way, measured) in Way::ALL.into_iter().zip(&all) {
        let mut of_way = json!({ "per_s": rate_of(measured).json() });
        if load.unit != Unit::Byte {
            let us = |n: usize| Figure::of(measured.iter().map(|m| m.each[n].as_secs_f64() * 1e6).collect());
            let [middle, most] = [us(0), us(1)];
            waits.push(report::row([
                load.name.to_owned(),
                way.name().to_owned(),
                format!("{} us", middle.cell(0)),
                format!("{} us", most.cell(0)),
            ]));
            of_way["p50_us"] = middle.json();
            of_way["p99_us"] = most.json();
        }
        json[way.name()] = of_way;
    }
    lab.step(&format!(
        "{}: {:.2} of the kernel's rate by toe run, {:.2} by the library",
        load.name, ratio_run.median, ratio_library.median
    ));
    Ok(json)
}

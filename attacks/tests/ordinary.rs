//! Every attack at its ordinary length, with room on the card and with the table full, and a little of each fuzzer.

use toe_attacks::attacks;
use toe_attacks::run::{Scale, Table, judge, run};

fn all_hold(table: Table) {
    let scale = Scale { seed: 1, full: false };
    let (benign, ..) = run(scale, table, None);
    assert_eq!(benign.clients.1, benign.clients.0, "honest connections without an attack");
    let mut failures = Vec::new();
    for attack in attacks::all() {
        let report = judge(scale, table, &attack, &benign);
        for (rule, _) in report.verdict.rules.iter().filter(|(_, holds)| !holds) {
            failures.push(format!("{}, {table:?}: {rule}", attack.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn all_attacks_are_held_with_room_on_the_card() {
    all_hold(Table::Room);
}

#[test]
fn all_attacks_are_held_with_the_table_full() {
    all_hold(Table::Full);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let scale = Scale { seed: 5, full: false };
    let all = attacks::all();
    let attack = all.iter().find(|a| a.name == "segment-smack").expect("an attack of that name");
    let figures = || {
        let (run, lab, _) = run(scale, Table::Room, Some(attack));
        (run.moved, run.handshakes_us, run.counters, lab.sent_bytes, lab.answered)
    };
    assert_eq!(figures(), figures());
}

#[test]
fn rings_and_channel_stand_a_little_of_everything() {
    let rings = toe_attacks::fuzz::rings::run(1, 50_000).expect("no access outside");
    // The fuzzer gets through to every kind of end.
    assert!(rings.packets > 1000 && rings.delivered > 1000 && rings.malformed > 10_000, "{rings}");
    let channel = toe_attacks::fuzz::channel::run(1, 50_000).expect("nobody else is harmed");
    assert!(channel.refused > 100 && channel.dropped > 100 && channel.honest_bytes > 100_000, "{channel}");
}

use toe_attacks::attacks;
use toe_attacks::run::{Scale, Table, judge, run};
fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let scale = Scale { seed: 1, full: false };
    for table in [Table::Room, Table::Full] {
        let t = std::time::Instant::now();
        let (benign, ..) = run(scale, table, None);
        println!(
            "benign {:?}: {:?} clients {:?} out {:?} p99 {} moved {} min {:?} steps p99 {} max {} broken {} pools {:?}",
            table,
            t.elapsed(),
            benign.clients,
            benign.outbound,
            benign.handshake_p99_us(),
            benign.moved.iter().sum::<u64>(),
            benign.moved.iter().min(),
            benign.steps.p99(),
            benign.steps.max(),
            benign.broken,
            benign.pools[1].iter().map(|(n, p)| (n.clone(), p.in_use, p.high_water)).collect::<Vec<_>>()
        );
        for attack in attacks::all() {
            if !names.is_empty() && !names.iter().any(|n| n == attack.name) {
                continue;
            }
            let t = std::time::Instant::now();
            let report = judge(scale, table, &attack, &benign);
            println!(
                "== {} {:?} {:?} sent {:?} answered {:?} steps {:.1?} thr {:.1?} p99 {:?}",
                report.attack,
                table,
                t.elapsed(),
                report.sent,
                report.answered,
                report.steps,
                report.throughput_percent,
                report.handshake_p99_us
            );
            if std::env::var("M").is_ok() {
                let (r, _, _) = run(scale, table, Some(&attack));
                println!("moved {:?}\n  vs {:?}", r.moved, benign.moved);
                for (n, v) in &r.counters {
                    let b = benign.counters.get(n).copied().unwrap_or(0);
                    if *v != b {
                        println!("    {n} {v} (benign {b})");
                    }
                }
            }
            for (rule, held) in &report.verdict.rules {
                if !held {
                    println!("   FAILED {rule}");
                } else if std::env::var("V").is_ok() {
                    println!("   {rule}");
                }
            }
        }
    }
}

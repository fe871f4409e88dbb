//! `toe limits` and `toe stat`: the card's pools and counters, as a table for people or JSON for programs.

use serde_json::json;
use toe_command_line::table;
use toe_guest::{Context, FallbackReason, INTERFACE_VARIABLE, Kernel, LimitRow};

/// What both are told.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The interface whose card is asked; the first that has one by default.
    #[arg(short, long)]
    interface: Option<String>,
}

/// Runs `toe limits`.
///
/// # Errors
/// What a person should be told.
pub fn limits(a: &Arguments) -> Result<String, String> {
    let context = context(a)?;
    let pools = context.limits().map_err(|e| format!("cannot ask for the limits: {e}"))?;
    if a.json {
        let pools: Vec<_> = pools
            .iter()
            .map(|p| {
                let refusals: serde_json::Map<_, _> =
                    p.refusals.iter().map(|(reason, count)| (reason.clone(), json!(count))).collect();
                json!({
                    "name": p.name, "capacity": p.capacity, "in_use": p.in_use, "high_water": p.high_water,
                    "policy": p.policy, "refusals": refusals,
                })
            })
            .collect();
        return Ok(format!("{}\n", json!({ "pools": pools })));
    }
    let mut rows = vec![["pool", "capacity", "in use", "high water", "policy", "refused"].map(str::to_owned).to_vec()];
    for p in &pools {
        let amount = |n: u64| amount(&p.name, n);
        rows.push(vec![
            p.name.clone(),
            amount(p.capacity),
            amount(p.in_use),
            amount(p.high_water),
            p.policy.clone(),
            refused(p),
        ]);
    }
    Ok(table(&rows, &[1, 2, 3]))
}

fn refused(p: &LimitRow) -> String {
    let occurred: Vec<_> =
        p.refusals.iter().filter(|(_, count)| *count > 0).map(|(reason, count)| format!("{count} {reason}")).collect();
    if occurred.is_empty() { "-".to_owned() } else { occurred.join(", ") }
}

/// Runs `toe stat`.
///
/// # Errors
/// What a person should be told.
pub fn stat(a: &Arguments) -> Result<String, String> {
    let context = context(a)?;
    let counters = context.stat().map_err(|e| format!("cannot ask for the counters: {e}"))?;
    let running = toe_guest::run::running();
    if a.json {
        let counters: serde_json::Map<_, _> = counters.into_iter().map(|c| (c.name, json!(c.value))).collect();
        let running: serde_json::Map<_, _> = running.into_iter().map(|(id, of)| (id.to_string(), of)).collect();
        return Ok(format!("{}\n", json!({ "counters": counters, "run": running })));
    }
    let mut rows = vec![["counter", "value"].map(str::to_owned).to_vec()];
    rows.extend(counters.into_iter().map(|c| vec![c.name, c.value.to_string()]));
    for (id, of) in running {
        rows.extend(flat(&format!("run-{id}"), &of));
    }
    Ok(table(&rows, &[1]))
}

/// The numbers in an object, each with its way through it as its name.
fn flat(name: &str, value: &serde_json::Value) -> Vec<Vec<String>> {
    match value {
        serde_json::Value::Object(of) => {
            of.iter().flat_map(|(key, value)| flat(&format!("{name}-{}", key.replace('_', "-")), value)).collect()
        }
        value => vec![vec![name.to_owned(), value.to_string()]],
    }
}

fn context(a: &Arguments) -> Result<Context, String> {
    context_on(a.interface.as_deref())
}

/// A context on the card behind that interface, or behind the first that has one.
pub fn context_on(interface: Option<&str>) -> Result<Context, String> {
    let context = match interface {
        Some(name) => Kernel::on_interface(name).any_context(),
        None => Kernel::shared().any_context(),
    };
    context.map_err(|reason| {
        let advice = match reason {
            FallbackReason::NotPermitted => "run this as root or with CAP_NET_RAW".to_owned(),
            FallbackReason::NoCard => "the interface is an ordinary NIC, or the card is down".to_owned(),
            FallbackReason::OtherInterface => match interface {
                Some(name) => format!("there is no interface {name:?}; `ip link` lists them"),
                None => format!("no interface is a virtio NIC; choose one with --interface or {INTERFACE_VARIABLE}"),
            },
            FallbackReason::Card(_) => "the card refuses a context; free one or ask its operator".to_owned(),
            _ => "TOE_LOG=debug tells more".to_owned(),
        };
        format!("no card to ask ({reason}): {advice}")
    })
}

/// An amount for people: bytes with their unit if the pool's name says that it counts bytes.
fn amount(pool: &str, n: u64) -> String {
    if !pool.contains("bytes") {
        return n.to_string();
    }
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut tenths = u128::from(n) * 10;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths = (tenths + 512) / 1024;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{}.{} {}", tenths / 10, tenths % 10, units[unit]) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn nested_counters_are_named_by_their_way() {
        let value = serde_json::json!({ "card_open": 3, "kernel": { "no-route": 1 } });
        let rows = super::flat("run-7", &value);
        assert_eq!(rows, [["run-7-card-open", "3"], ["run-7-kernel-no-route", "1"]]);
    }

    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(amount("connections", 4096), "4096");
        assert_eq!(amount("send-memory-bytes", 1023), "1023 B");
        assert_eq!(amount("send-memory-bytes", 1536), "1.5 KiB");
        assert_eq!(amount("send-memory-bytes", 64 << 20), "64.0 MiB");
    }
}

//! What a card says of itself, as tables for people.

use std::collections::BTreeMap;

use toe_command_line::table;
use toe_device::management::Limit;

/// Every pool.
pub fn limits(limits: &[Limit]) -> String {
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

/// Every counter.
pub fn stat(stat: &BTreeMap<String, u64>) -> String {
    let mut rows = vec![vec!["COUNTER".to_owned(), "VALUE".to_owned()]];
    rows.extend(stat.iter().map(|(name, value)| vec![name.clone(), value.to_string()]));
    table(&rows, &[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_and_counters_are_aligned() {
        let limit = Limit {
            name: "connections".to_owned(),
            capacity: 4096,
            in_use: 3,
            high_water: 5,
            policy: "fallback".to_owned(),
            refusals: BTreeMap::from([("connections-full".to_owned(), 2), ("send-memory-full".to_owned(), 0)]),
        };
        assert_eq!(
            limits(&[limit]),
            "POOL         CAPACITY  IN USE  HIGH WATER  POLICY    REFUSALS\n\
             connections      4096       3           5  fallback  connections-full=2\n"
        );
        let counters = BTreeMap::from([("a".to_owned(), 1), ("long-name".to_owned(), 234)]);
        assert_eq!(stat(&counters), "COUNTER    VALUE\na              1\nlong-name    234\n");
    }
}

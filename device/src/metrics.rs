//! The card's pools and counters for Prometheus, in its text format (OpenMetrics 1.0).
//!
//! Everything is read from the card when it is asked for; nothing is kept here. A counter that means what one of the
//! Linux kernel's means has its name ([`LINUX`]), so that a graph of `TcpActiveOpens` or `TcpExtListenDrops` can hold a
//! card's curve beside a kernel's; the others have the names that `toectl stat` prints. All begin with `toe_`. What the
//! help says of a counter is what stands beside it in the source.
//!
//! | metric | type, labels |
//! |---|---|
//! | `toe_card_info` | info: `version`, `channel`, `epoch` |
//! | `toe_pool_capacity`, `toe_pool_in_use`, `toe_pool_high_water` | gauge: `pool`, `policy` |
//! | `toe_pool_refusals_total` | counter: `pool`, `reason` |
//! | `toe_TcpActiveOpens_total` and so on | counter |
//! | `toe_wire_in_total` and so on | counter |
//! | `toe_impaired_frames_total` | counter: `direction`, `event`; only with `--impair` |

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use toe_firmware::Firmware;

use crate::card::Card;
use crate::counters::Counters;
use crate::management::{Limit, Version};

/// What the text is, for HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Linux's names (`/proc/net/snmp`, `/proc/net/netstat`) of what the card counts: the sum of these.
pub const LINUX: &[(&str, &[&str])] = &[
    ("TcpActiveOpens", &["tcp-active-opens"]),
    ("TcpPassiveOpens", &["tcp-passive-opens"]),
    ("TcpRetransSegs", &["tcp-retransmits"]),
    ("TcpOutRsts", &["tcp-resets-out"]),
    ("TcpInCsumErrors", &["wire-drop-checksum"]),
    ("TcpExtListenDrops", &["wire-drop-refused", "tcp-handshake-refused", "tcp-syn-cookies-refused"]),
    ("TcpExtSyncookiesSent", &["tcp-syn-cookies-sent"]),
    ("TcpExtSyncookiesRecv", &["tcp-syn-cookies-taken"]),
    ("TcpExtSyncookiesFailed", &["tcp-syn-cookies-wrong"]),
    ("TcpExtEmbryonicRsts", &["tcp-half-open-reset"]),
    ("TcpExtOutOfWindowIcmps", &["icmp-not-in-flight"]),
    ("TcpExtPAWSEstab", &["tcp-paws"]),
    ("TcpExtTCPTimeouts", &["tcp-timeouts"]),
    ("TcpExtTCPLossProbes", &["tcp-tail-probes"]),
    ("TcpExtTCPAbortOnTimeout", &["tcp-timed-out"]),
    ("TcpExtTCPOFOQueue", &["tcp-out-of-order"]),
    ("TcpExtTCPOFODrop", &["tcp-out-of-order-dropped"]),
    ("TcpExtTCPChallengeACK", &["tcp-challenge-acks"]),
    ("TcpExtTCPSYNChallenge", &["tcp-syn-challenged"]),
    ("TcpExtTCPACKSkippedChallenge", &["tcp-challenge-limited"]),
    ("TcpExtTCPKeepAlive", &["tcp-keep-alives"]),
    ("TcpExtTCPWinProbe", &["tcp-window-probes"]),
    ("TcpExtTCPMTUPFail", &["tcp-mtu-probes-lost"]),
    ("TcpExtTCPFastOpenActive", &["tcp-fast-open-taken"]),
    ("TcpExtTCPFastOpenActiveFail", &["tcp-fast-open-refused"]),
    ("TcpExtTCPFastOpenPassive", &["tcp-fast-open-passive"]),
    ("TcpExtTCPFastOpenListenOverflow", &["tcp-fast-open-pending-full"]),
];

/// The text.
pub fn text(card: &Card, version: &Version) -> String {
    let (limits, stat) = card.snapshot();
    let mut registry = Registry::with_prefix("toe");
    registry.register_collector(Box::new(Snapshot { version: version.clone(), limits, stat }));
    let mut text = String::new();
    // Infallible: a String takes everything.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

/// The card at one moment.
#[derive(Debug)]
struct Snapshot {
    version: Version,
    limits: Vec<Limit>,
    stat: BTreeMap<&'static str, u64>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Version { name: _, version, channel, epoch } = &self.version;
        let labels = [("version", version.clone()), ("channel", channel.to_string()), ("epoch", format!("{epoch:#x}"))];
        encoder.encode_descriptor("card", "What answers.", None, MetricType::Info)?.encode_info(&labels)?;
        self.pools(&mut encoder)?;
        self.counters(&mut encoder)
    }
}

impl Snapshot {
    fn pools(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Value = fn(&Limit) -> u64;
        let gauges: [(&str, &str, Value); 3] = [
            ("pool_capacity", "How many there are.", |limit| limit.capacity),
            ("pool_in_use", "How many are in use.", |limit| limit.in_use),
            ("pool_high_water", "The most that were ever in use at once.", |limit| limit.high_water),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for limit in &self.limits {
                let labels = [("pool", limit.name.as_str()), ("policy", limit.policy.as_str())];
                // What Prometheus counts with are doubles; the crate has i64 for whole ones.
                let value = i64::try_from(value(limit)).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "How often a pool refused, by reason.";
        let mut family = encoder.encode_descriptor("pool_refusals", help, None, MetricType::Counter)?;
        for limit in &self.limits {
            for (reason, count) in &limit.refusals {
                let labels = [("pool", limit.name.as_str()), ("reason", reason.as_str())];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let value = |name: &str| self.stat.get(name).copied().unwrap_or_default();
        for (linux, names) in LINUX {
            let texts: Vec<_> = names.iter().map(|name| format!("{} ({name})", help(name))).collect();
            let sum = names.iter().map(|name| value(name)).sum::<u64>();
            counter(encoder, linux, &texts.join(" And: "), sum)?;
        }
        for (name, value) in &self.stat {
            let is_linux = LINUX.iter().any(|(_, names)| names.contains(name));
            if !is_linux && !name.starts_with("impair-") {
                counter(encoder, &name.replace('-', "_"), help(name), *value)?;
            }
        }
        let impaired: Vec<_> = self.stat.iter().filter_map(|(name, value)| Some((impairment(name)?, *value))).collect();
        if impaired.is_empty() {
            return Ok(());
        }
        let help = "Frames on the bad link of --impair, by what became of them.";
        let mut family = encoder.encode_descriptor("impaired_frames", help, None, MetricType::Counter)?;
        for ((direction, event), value) in impaired {
            let labels = [("direction", direction), ("event", event)];
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}

/// What stands beside a counter in the source.
fn help(name: &str) -> &'static str {
    let mut all = Firmware::counter_texts().chain(Counters::texts());
    all.find(|(of, _)| *of == name).map_or("", |(_, text)| text)
}

/// Direction and event of a counter of the impaired wire.
fn impairment(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix("impair-")?;
    let to = rest.strip_prefix("to-wire-").map(|event| ("to-wire", event));
    to.or_else(|| rest.strip_prefix("from-wire-").map(|event| ("from-wire", event)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::{DataPath, FifoFrames};
    use crate::wire::{Impaired, WireSpec};
    use toe_firmware::{Instant, Profile};

    fn card() -> Card {
        let profile = Profile::built_in("tiny").unwrap();
        let firmware = Firmware::new(&profile, [0; 32], 1, Instant::from_us(0)).unwrap();
        let wire = Impaired::new(WireSpec::None.open().unwrap(), "loss=1%".parse().unwrap(), 1);
        Card::new(
            DataPath::new(firmware, Box::new(wire), FifoFrames { receive: 4, wire: 4 }, 1),
            std::time::Instant::now(),
        )
        .unwrap()
    }

    fn version() -> Version {
        Version { name: "toe-nic".to_owned(), version: "1.2.3".to_owned(), channel: 1, epoch: 0x7f }
    }

    /// Name, labels and value of each sample. What the format asks for is checked on the way: every sample belongs to
    /// the family that was described last, with the suffix of its type; no family and no sample comes twice; help is there.
    fn parse(text: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
        let lines = text.strip_suffix("# EOF\n").expect("ends with EOF").lines();
        let mut families = Vec::<(String, Option<String>)>::new();
        let mut samples = Vec::new();
        for line in lines {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.trim().is_empty() && !help.contains('\\') && !help.contains('"'), "{line}");
                assert!(families.iter().all(|(other, _)| other != name), "{name} twice");
                families.push((name.to_owned(), None));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let family = families.last_mut().unwrap();
                assert_eq!((family.0.as_str(), &family.1), (name, &None));
                assert!(["counter", "gauge", "info"].contains(&kind));
                family.1 = Some(kind.to_owned());
            } else {
                let (family, kind) = families.last().unwrap();
                let suffix = match kind.as_deref().unwrap() {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                assert_eq!(name, format!("{family}{suffix}"), "{line}");
                assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
                let mut set = BTreeMap::new();
                for label in labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty()) {
                    let (key, value) = label.split_once('=').unwrap();
                    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
                    assert!(set.insert(key.to_owned(), value.to_owned()).is_none(), "{line}");
                }
                assert!(samples.iter().all(|(n, l, _)| n != name || *l != set), "{series} twice");
                samples.push((name.to_owned(), set, value.parse::<f64>().unwrap()));
            }
        }
        assert!(families.iter().all(|(_, kind)| kind.is_some()));
        samples
    }

    #[test]
    fn every_pool_and_every_counter_is_there() {
        let card = card();
        let samples = parse(&text(&card, &version()));
        let (limits, stat) = card.snapshot();
        let value = |name: &str, label: &str| {
            let found =
                samples.iter().find(|(n, l, _)| n == name && (label.is_empty() || l.values().any(|v| v == label)));
            found.unwrap_or_else(|| panic!("no {name} of {label}")).2
        };
        for limit in limits {
            assert_eq!(value("toe_pool_capacity", &limit.name), limit.capacity as f64);
            assert_eq!(value("toe_pool_in_use", &limit.name), limit.in_use as f64);
            assert_eq!(value("toe_pool_high_water", &limit.name), limit.high_water as f64);
        }
        for name in stat.keys() {
            let linux =
                LINUX.iter().find(|(_, names)| names.contains(name)).map(|(linux, _)| format!("toe_{linux}_total"));
            match (impairment(name), linux) {
                (Some((_, event)), _) => value("toe_impaired_frames_total", event),
                (None, Some(linux)) => value(&linux, ""),
                (None, None) => value(&format!("toe_{}_total", name.replace('-', "_")), ""),
            };
        }
        let (_, labels, _) = samples.iter().find(|(name, ..)| name == "toe_card_info").unwrap();
        assert_eq!(labels["epoch"], "0x7f");
    }

    #[test]
    fn linux_names_stand_for_counters_that_there_are() {
        let (_, stat) = card().snapshot();
        let mut seen = Vec::new();
        for (linux, names) in LINUX {
            assert!(["Tcp", "TcpExt"].iter().any(|group| linux.starts_with(group)), "{linux}");
            for name in *names {
                assert!(stat.contains_key(name), "{linux}: no counter {name}");
                assert!(!seen.contains(name), "{name} twice");
                seen.push(name);
            }
        }
    }
}

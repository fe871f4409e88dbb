//! Lines as `ss` prints them, and JSON.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use serde_json::json;
use toe_command_line::table as aligned;
use toe_guest::{KernelInfo, socket_timer};

use super::{Arguments, Carrier, Owner, Row};

/// Linux's states by their numbers, as ss prints them.
const STATES: [&str; 12] = [
    "UNKNOWN",
    "ESTAB",
    "SYN-SENT",
    "SYN-RECV",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "UNCONN",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
];

/// From here on a threshold, in segments, stands for none, as in ss.
const NO_THRESHOLD: u32 = 0xffff;

fn state(row: &Row) -> &'static str {
    STATES.get(usize::from(row.state)).unwrap_or(&STATES[0])
}

/// The table.
pub fn table(rows: &[Row], a: &Arguments) -> String {
    let titles = ["State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port", "Process"];
    let mut cells = vec![titles.map(str::to_owned).to_vec()];
    for row in rows {
        let mut rest = Vec::new();
        if a.processes && !row.owners.is_empty() {
            rest.push(format!("users:({})", row.owners.iter().map(owner).collect::<Vec<_>>().join(",")));
        }
        if a.options
            && let Some(text) = timer(row.timer)
        {
            rest.push(text);
        }
        if row.carrier == Carrier::Card {
            rest.push("toe:card".to_owned());
        }
        cells.push(vec![
            state(row).to_owned(),
            row.receive_queue.to_string(),
            row.send_queue.to_string(),
            address(row.local, a.numeric),
            address(row.remote, a.numeric),
            rest.join(" "),
        ]);
    }
    let text = aligned(&cells, &[]);
    let mut out = String::new();
    for (line, row) in text.lines().zip(std::iter::once(None).chain(rows.iter().map(Some))) {
        match row {
            None if a.no_header => continue,
            None => {}
            Some(row) => {
                out.push_str(line);
                out.push('\n');
                if a.info
                    && let Some(info) = &row.info
                {
                    let _ = writeln!(out, "\t {}", details(info));
                }
                continue;
            }
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

fn owner(owner: &Owner) -> String {
    let descriptor = owner.descriptor.map_or(String::new(), |fd| format!(",fd={fd}"));
    format!("(\"{}\",pid={}{descriptor})", owner.name, owner.pid)
}

fn timer_name(kind: u8) -> Option<&'static str> {
    match kind {
        socket_timer::NONE => None,
        socket_timer::RETRANSMIT => Some("on"),
        socket_timer::KEEP_ALIVE => Some("keepalive"),
        socket_timer::TIME_WAIT => Some("timewait"),
        socket_timer::PROBE => Some("persist"),
        _ => Some("unknown"),
    }
}

fn timer((kind, ms, repeats): (u8, u32, u8)) -> Option<String> {
    let time = match (kind, ms) {
        // The card does not tell it.
        (socket_timer::TIME_WAIT, 0) => String::new(),
        (_, 60_000..) => format!("{}min{}sec", ms / 60_000, ms / 1000 % 60),
        (_, 10_000..) => format!("{}sec", ms / 1000),
        (_, 1000..) => format!("{}.{:03}ms", ms / 1000, ms % 1000),
        _ => format!("{ms}ms"),
    };
    timer_name(kind).map(|name| format!("timer:({name},{time},{repeats})"))
}

fn address(address: SocketAddr, numeric: bool) -> String {
    let port = match address.port() {
        0 => "*".to_owned(),
        port => service_name(port).filter(|_| !numeric).map_or_else(|| port.to_string(), str::to_owned),
    };
    match address.ip() {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

/// Microseconds in milliseconds, as ss has them: no more digits than are there.
fn ms(us: u32) -> String {
    format!("{}", f64::from(us) / 1000.0)
}

/// What `-i` adds: names and order are those of ss.
fn details(i: &KernelInfo) -> String {
    let mut words = Vec::new();
    for (bit, name) in [(1, "ts"), (2, "sack"), (8, "ecn")] {
        if i.options & bit != 0 {
            words.push(name.to_owned());
        }
    }
    words.push(i.controller.clone());
    if i.options & 4 != 0 {
        words.push(format!("wscale:{},{}", i.window_scales.0, i.window_scales.1));
    }
    words.push(format!("rto:{}", ms(i.rto_us)));
    if i.backoff > 0 {
        words.push(format!("backoff:{}", i.backoff));
    }
    if i.rtt_us > 0 {
        words.push(format!("rtt:{}/{}", ms(i.rtt_us), ms(i.rtt_variation_us)));
    }
    if i.ato_us > 0 {
        words.push(format!("ato:{}", ms(i.ato_us)));
    }
    let mut some = |name: &str, value: u64| {
        if value > 0 {
            words.push(format!("{name}:{value}"));
        }
    };
    some("mss", i.send_mss.into());
    some("pmtu", i.path_mtu.into());
    some("rcvmss", i.receive_mss.into());
    some("advmss", i.advertised_mss.into());
    some("cwnd", i.congestion_window.into());
    if i.slow_start_threshold < NO_THRESHOLD {
        some("ssthresh", i.slow_start_threshold.into());
    }
    some("bytes_sent", i.bytes_sent);
    some("bytes_acked", i.bytes_acked);
    some("bytes_received", i.bytes_received);
    some("segs_out", i.segments_out.into());
    some("segs_in", i.segments_in.into());
    some("unacked", i.unacked.into());
    if i.retrans > 0 || i.total_retrans > 0 {
        words.push(format!("retrans:{}/{}", i.retrans, i.total_retrans));
    }
    let mut some = |name: &str, value: u64| {
        if value > 0 {
            words.push(format!("{name}:{value}"));
        }
    };
    some("lost", i.lost.into());
    some("sacked", i.sacked.into());
    some("notsent", i.not_sent.into());
    if i.min_rtt_us > 0 && i.min_rtt_us != u32::MAX {
        words.push(format!("minrtt:{}", ms(i.min_rtt_us)));
    }
    words.join(" ")
}

/// The same for programs: one object for each line.
pub fn json(rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let owners: Vec<_> =
                row.owners.iter().map(|o| json!({ "name": o.name, "pid": o.pid, "fd": o.descriptor })).collect();
            let timer =
                timer_name(row.timer.0).map(|name| json!({ "name": name, "ms": row.timer.1, "repeats": row.timer.2 }));
            let info = row.info.as_ref().map(|i| {
                json!({
                    "controller": i.controller, "backoff": i.backoff,
                    "timestamps": i.options & 1 != 0, "sack": i.options & 2 != 0, "ecn": i.options & 8 != 0,
                    "window_scale_send": i.window_scales.0, "window_scale_receive": i.window_scales.1,
                    "rto_us": i.rto_us, "rtt_us": i.rtt_us, "rtt_variation_us": i.rtt_variation_us,
                    "min_rtt_us": i.min_rtt_us, "mss": i.send_mss, "cwnd": i.congestion_window,
                    "ssthresh": i.slow_start_threshold, "bytes_sent": i.bytes_sent, "bytes_acked": i.bytes_acked,
                    "bytes_received": i.bytes_received, "segs_out": i.segments_out, "segs_in": i.segments_in,
                    "unacked": i.unacked, "retrans": i.total_retrans, "lost": i.lost, "sacked": i.sacked,
                    "notsent": i.not_sent,
                })
            });
            json!({
                "carrier": match row.carrier { Carrier::Card => "card", Carrier::Kernel => "kernel" },
                "state": state(row), "recv_q": row.receive_queue, "send_q": row.send_queue,
                "local": row.local.to_string(), "peer": row.remote.to_string(),
                "processes": owners, "timer": timer, "info": info,
            })
        })
        .collect();
    format!("{}\n", json!({ "connections": rows }))
}

/// Names of TCP services and their ports, from the system's list.
fn services() -> &'static HashMap<u16, String> {
    static SERVICES: OnceLock<HashMap<u16, String>> = OnceLock::new();
    SERVICES.get_or_init(|| services_of(&std::fs::read_to_string("/etc/services").unwrap_or_default()))
}

fn services_of(text: &str) -> HashMap<u16, String> {
    let mut services = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
        if let Some(port) = port.strip_suffix("/tcp").and_then(|port| port.parse().ok()) {
            // The first name of a port counts.
            services.entry(port).or_insert_with(|| name.to_owned());
        }
    }
    services
}

fn service_name(port: u16) -> Option<&'static str> {
    services().get(&port).map(String::as_str)
}

/// The port of a service.
pub fn service_port(name: &str) -> Option<u16> {
    services().iter().find(|(_, service)| *service == name).map(|(port, _)| *port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ss::Arguments;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(words: &[&str]) -> Arguments {
        Only::parse_from(["ss"].iter().chain(words)).arguments
    }

    fn rows() -> Vec<Row> {
        let established = Row {
            carrier: Carrier::Card,
            state: 1,
            receive_queue: 0,
            send_queue: 1448,
            local: "192.0.2.1:40000".parse().unwrap(),
            remote: "192.0.2.2:80".parse().unwrap(),
            owners: vec![Owner { name: "curl".to_owned(), pid: 42, descriptor: None }],
            timer: (socket_timer::RETRANSMIT, 204, 1),
            info: Some(KernelInfo {
                controller: "cubic".to_owned(),
                options: 7,
                window_scales: (7, 8),
                rto_us: 204_000,
                rtt_us: 1_500,
                rtt_variation_us: 250,
                send_mss: 1448,
                congestion_window: 10,
                slow_start_threshold: u32::MAX / 1448,
                bytes_acked: 5,
                unacked: 1,
                total_retrans: 2,
                ..KernelInfo::default()
            }),
        };
        let listener = Row {
            carrier: Carrier::Kernel,
            state: 10,
            receive_queue: 0,
            send_queue: 128,
            local: "[::]:2222".parse().unwrap(),
            remote: "[::]:0".parse().unwrap(),
            owners: vec![Owner { name: "sshd".to_owned(), pid: 7, descriptor: Some(3) }],
            timer: (0, 0, 0),
            info: None,
        };
        vec![established, listener]
    }

    #[test]
    fn lines_are_those_of_ss() {
        let text = table(&rows(), &arguments(&["-tinpo"]));
        assert_eq!(
            text,
            "State   Recv-Q  Send-Q  Local Address:Port  Peer Address:Port  Process\n\
             ESTAB   0       1448    192.0.2.1:40000     192.0.2.2:80       users:((\"curl\",pid=42)) timer:(on,204ms,1) toe:card\n\
             \t ts sack cubic wscale:7,8 rto:204 rtt:1.5/0.25 mss:1448 cwnd:10 bytes_acked:5 unacked:1 retrans:0/2\n\
             LISTEN  0       128     [::]:2222           [::]:*             users:((\"sshd\",pid=7,fd=3))\n"
        );
        let plain = table(&rows(), &arguments(&["-Hn"]));
        assert!(plain.starts_with("ESTAB") && plain.lines().count() == 2 && !plain.contains("users"), "{plain}");
    }

    #[test]
    fn json_holds_everything() {
        let value: serde_json::Value = serde_json::from_str(&json(&rows())).unwrap();
        let first = &value["connections"][0];
        assert_eq!(
            (&first["carrier"], &first["state"], &first["send_q"]),
            (&"card".into(), &"ESTAB".into(), &1448.into())
        );
        assert_eq!((&first["timer"]["ms"], &first["info"]["cwnd"]), (&204.into(), &10.into()));
        assert_eq!(value["connections"][1]["processes"][0]["fd"], 3);
    }

    #[test]
    fn services_have_names() {
        let services = services_of("ssh 22/tcp # SSH\nntp 123/udp\nhttp 80/tcp www\nwww2 80/tcp\nx\n");
        assert_eq!((services.len(), services[&22].as_str(), services[&80].as_str()), (2, "ssh", "http"));
    }

    #[test]
    fn times_are_written_as_ss_does() {
        for (ms, expected) in [(4, "4ms"), (1200, "1.200ms"), (15_000, "15sec"), (119_000, "1min59sec")] {
            assert_eq!(timer((1, ms, 0)).unwrap(), format!("timer:(on,{expected},0)"));
        }
        assert_eq!(timer((0, 5, 0)), None);
        assert_eq!(timer((3, 0, 0)).unwrap(), "timer:(timewait,,0)");
    }
}

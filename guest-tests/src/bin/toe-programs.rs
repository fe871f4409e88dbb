//! Real programs under `toe run`, on the card and on the kernel in the same guest, their outputs compared.
//! `scripts/programs` builds the guest's userland from Debian's packages and starts this.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use toe_guest_tests::{Kind, Lab, LabOptions, host, run};

/// How long a case may take on one of both.
const CASE: Duration = Duration::from_secs(180);

/// Runs programs under `toe run` in User-Mode Linux and writes what came of it.
#[derive(Parser)]
struct Arguments {
    /// The guest's userland: a directory with Debian's packages unpacked in it.
    root: PathBuf,
    /// Only the cases whose names contain this.
    #[arg(long)]
    only: Option<String>,
    /// Write docs/programs.md and docs/socket-calls.md.
    #[arg(long)]
    write: bool,
    /// Kill so many programs and supervisors at the end.
    #[arg(long, default_value_t = 0)]
    kills: u32,
}

/// A program and what it does. All of it is executed in the
/// unpacked userland, the guest's part in the guest and the peer's on the other end of the wire.
struct Case {
    name: &'static str,
    what: &'static str,
    /// Before the program starts, in the guest.
    prepare: &'static str,
    /// On the other end, in the background, before the guest's part.
    peer_server: &'static str,
    /// In the guest. If `port` is zero its output is compared; otherwise it is a server.
    guest: &'static str,
    /// Where the server listens.
    port: u16,
    /// On the other end, when the server listens: its output is compared.
    peer: &'static str,
    /// In the guest: ends the server.
    stop: &'static str,
    /// `sed` commands that take out what differs from run to run.
    same: &'static str,
}

const NOTHING: Case =
    Case { name: "", what: "", prepare: "true", peer_server: "", guest: "", port: 0, peer: "", stop: "true", same: "" };

const HTTP: &str = "mkdir -p /tmp/www && cd /tmp/www && { [ -e f ] || head -c 8388608 /dev/urandom > f; } && \
     exec python3 -m http.server --bind 192.0.2.1 8000";

const CASES: &[Case] = &[
    Case {
        name: "curl",
        what: "fetches 8 MiB; a closed port; two transfers at once",
        peer_server: HTTP,
        guest: "sh -c 'curl -s http://192.0.2.1:8000/f | md5sum; \
                curl -s -o /dev/null -w \"%{http_code} %{size_download} %{remote_ip} %{local_ip}\\n\" http://192.0.2.1:8000/f; \
                curl -s http://192.0.2.1:9/; echo $?; curl -sZ http://192.0.2.1:8000/f http://192.0.2.1:8000/f 2>/dev/null | wc -c'",
        ..NOTHING
    },
    Case {
        name: "nginx",
        what: "two workers; the peer fetches 2 MiB by IPv4 and IPv6, addresses as nginx sees them, keep-alive",
        prepare: "mkdir -p /tmp/ng /var/lib/nginx /var/log/nginx; head -c 2097152 /usr/bin/python3 > /tmp/ng/f; \
                  printf 'daemon off; error_log stderr; pid /tmp/ng.pid; user root; worker_processes 2; events {} http { access_log off; \
                  server { listen 80; listen [::]:80; root /tmp/ng; location /who { return 200 \"$remote_addr $server_addr:$server_port\\n\"; } } }' > /tmp/ng.conf",
        guest: "nginx -c /tmp/ng.conf",
        port: 80,
        peer: "curl -s http://192.0.2.2/who; curl -s 'http://[2001:db8:1::2]/who'; curl -s http://192.0.2.2/f | md5sum; \
               curl -s 'http://[2001:db8:1::2]/f' | md5sum; \
               curl -s http://192.0.2.2/who http://192.0.2.2/who -w '%{num_connects}\\n'; curl -s http://192.0.2.2/none | head -2",
        stop: "kill $(cat /tmp/ng.pid)",
        ..NOTHING
    },
    Case {
        name: "redis, redis-benchmark",
        what: "server; the peer's redis-benchmark with 10 clients, and redis-cli",
        guest: "redis-server --port 6379 --bind 0.0.0.0 --protected-mode no --save '' --dir /tmp",
        port: 6379,
        peer: "redis-cli -h 192.0.2.2 set a 5; redis-cli -h 192.0.2.2 incr a; \
               redis-benchmark -h 192.0.2.2 -n 1000 -c 10 -t set,get,lpush -q 2>&1 | tr '\\r' '\\n' | grep 'requests per second'",
        stop: "redis-cli shutdown nosave",
        same: "s/[0-9.]* requests.*/requests/",
        ..NOTHING
    },
    Case {
        name: "redis-benchmark (client)",
        what: "10 clients in the guest against the peer's server",
        peer_server: "exec redis-server --port 6379 --bind 192.0.2.1 --protected-mode no --save '' --dir /tmp",
        guest: "redis-benchmark -h 192.0.2.1 -n 1000 -c 10 -t set,get -q 2>&1 | tr '\\r' '\\n' | grep 'requests per second'",
        same: "s/[0-9.]* requests.*/requests/",
        ..NOTHING
    },
    Case {
        name: "memcached",
        what: "server; set, get and counters by its protocol",
        guest: "memcached -u nobody -l 0.0.0.0 -p 11211 -P /tmp/mc.pid",
        port: 11211,
        peer: "printf 'set a 0 0 5\\r\\nhello\\r\\nget a\\r\\nset n 0 0 1\\r\\n7\\r\\nincr n 3\\r\\ndelete a\\r\\nget a\\r\\nquit\\r\\n' | nc -w 10 192.0.2.2 11211",
        stop: "kill $(cat /tmp/mc.pid)",
        ..NOTHING
    },
    Case {
        name: "iperf3 (server)",
        what: "two streams for two seconds from the peer, then to the peer",
        guest: "iperf3 -s -I /tmp/iperf.pid",
        port: 5201,
        // Between two tests the server closes its listener and opens it again: who comes meanwhile is reset, by the kernel, too.
        peer: "for way in '' -R; do sleep 1; iperf3 -c 192.0.2.2 -t 2 -P 2 $way >/tmp/iperf.out; echo $?; grep -c SUM.*receiver /tmp/iperf.out; done",
        stop: "kill $(tr -d '\\0' </tmp/iperf.pid)",
        ..NOTHING
    },
    Case {
        name: "iperf3 (client)",
        what: "two streams for two seconds, each way",
        peer_server: "exec iperf3 -s -B 192.0.2.1",
        guest: "sh -c 'for way in \"\" -R; do iperf3 -c 192.0.2.1 -t 2 -P 2 $way >/tmp/iperf.out; echo $?; grep -c SUM.*receiver /tmp/iperf.out; done'",
        ..NOTHING
    },
    Case {
        name: "python (socket, asyncio, urllib)",
        what: "fetches 8 MiB by each of them; refused; five threads at once",
        prepare: concat!("cat > /tmp/a.py <<'X'\n", include_str!("../../guest/programs.py"), "\nX"),
        peer_server: HTTP,
        guest: "python3 /tmp/a.py",
        ..NOTHING
    },
    Case {
        name: "python http.server",
        what: "the peer fetches 2 MiB, a missing file, and half of one",
        prepare: "mkdir -p /tmp/py; head -c 2097152 /usr/bin/python3 > /tmp/py/f",
        guest: "sh -c 'echo $$ > /tmp/py.pid; exec python3 -m http.server -d /tmp/py 8080'",
        port: 8080,
        peer: "curl -s http://192.0.2.2:8080/f | md5sum; curl -s -o /dev/null -w '%{http_code}\\n' http://192.0.2.2:8080/none; \
               curl -s -m 10 http://192.0.2.2:8080/f | head -c 1000 | md5sum; curl -s http://192.0.2.2:8080/f | md5sum",
        stop: "kill $(cat /tmp/py.pid)",
        ..NOTHING
    },
    Case {
        name: "node",
        what: "an HTTP server and a client in one process; the peer fetches, node fetches from the peer",
        prepare: "cat > /tmp/s.js <<'X'\n\
const http = require('http');\n\
http.createServer((q, r) => { if (q.url == '/quit') { r.end('bye'); setTimeout(() => process.exit(0), 200); return; }\n\
  if (q.url == '/via') { http.get('http://192.0.2.1:8000/f', a => { let n = 0; a.on('data', d => n += d.length); a.on('end', () => r.end('via ' + n + '\\n')); }); return; }\n\
  r.end(q.socket.remoteAddress + ' ' + 'x'.repeat(100000)); }).listen(3000);\n\
X",
        peer_server: HTTP,
        guest: "node /tmp/s.js",
        port: 3000,
        peer: "curl -s http://192.0.2.2:3000/ | md5sum; curl -s http://192.0.2.2:3000/via; curl -s http://192.0.2.2:3000/quit",
        ..NOTHING
    },
    Case {
        name: "Go (static, client)",
        what: "net/http fetches 8 MiB",
        peer_server: HTTP,
        guest: "toe-go get http://192.0.2.1:8000/f",
        ..NOTHING
    },
    Case {
        name: "Go (static, server)",
        what: "net/http serves 4 MiB, three times; ends when told",
        guest: "toe-go serve :9000",
        port: 9000,
        peer: "curl -s http://192.0.2.2:9000/who; for i in 1 2 3; do curl -s http://192.0.2.2:9000/f | md5sum; done; \
               curl -s 'http://[2001:db8:1::2]:9000/who'; curl -s http://192.0.2.2:9000/quit",
        ..NOTHING
    },
    Case {
        name: "openssh (server)",
        what: "sshd with a key; the peer runs a command, and copies 1 MiB each way",
        prepare: "mkdir -p /run/sshd /tmp/ssh; chmod 700 /tmp/ssh; cp -n /root/ssh/* /tmp/ssh/; chmod 600 /tmp/ssh/*",
        guest: "/usr/sbin/sshd -D -e -p 2222 -f /dev/null -h /tmp/ssh/host -o PidFile=/tmp/sshd.pid \
                -o AuthorizedKeysFile=/tmp/ssh/user.pub -o StrictModes=no -o UsePAM=no",
        port: 2222,
        peer: "cp -r /root/ssh /tmp/key; chmod 600 /tmp/key/*; S='ssh -q -p 2222 -i /tmp/key/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@192.0.2.2'; \
               $S 'echo $SSH_CONNECTION' | cut -d' ' -f1,3,4; head -c 1048576 /usr/bin/python3 | $S md5sum; $S head -c 1048576 /usr/bin/python3 | md5sum; rm -r /tmp/key",
        stop: "kill $(cat /tmp/sshd.pid)",
        ..NOTHING
    },
    Case {
        name: "postgres, pgbench",
        what: "server; the peer's pgbench: 4 clients, 20 transactions each, and psql",
        prepare: "mkdir -p /tmp/pg; chown postgres /tmp/pg; \
                  [ -e /tmp/pg/PG_VERSION ] || setpriv --reuid=110 --regid=110 --clear-groups /usr/lib/postgresql/15/bin/initdb -D /tmp/pg -A trust -N >/tmp/initdb.log 2>&1; \
                  printf 'host all all 0.0.0.0/0 trust\\n' >> /tmp/pg/pg_hba.conf",
        guest: "setpriv --reuid=110 --regid=110 --clear-groups /usr/lib/postgresql/15/bin/postgres -D /tmp/pg -k /tmp -c listen_addresses='*' -c fsync=off -c shared_buffers=16MB",
        port: 5432,
        peer: "P='-h 192.0.2.2 -U postgres'; for i in $(seq 200); do /usr/lib/postgresql/15/bin/pg_isready -q $P && break; sleep 0.2; done; \
               psql $P -Atc 'select inet_client_addr(), inet_server_addr()' postgres; \
               /usr/lib/postgresql/15/bin/pgbench $P -q -i -s 1 postgres 2>&1 | tail -1; \
               /usr/lib/postgresql/15/bin/pgbench $P -c 4 -t 20 postgres 2>&1 | grep -E 'actually|failed'; psql $P -Atc 'select count(*) from pgbench_accounts' postgres",
        stop: "kill -INT $(head -1 /tmp/pg/postmaster.pid)",
        same: "s/in [0-9.]* s.*//",
        ..NOTHING
    },
];

/// What came of a case.
struct Outcome {
    name: &'static str,
    what: &'static str,
    kernel: String,
    card: String,
    report: serde_json::Value,
}

impl Outcome {
    fn is_good(&self) -> bool {
        let on_card = |what: &str| self.report[what].as_u64().unwrap_or(0);
        self.kernel == self.card
            && !self.kernel.trim().is_empty()
            && on_card("card_connected") + on_card("card_accepted") > 0
            && self.reasons().keys().all(|r| r == "local-address")
    }

    fn reasons(&self) -> serde_json::Map<String, serde_json::Value> {
        self.report["kernel"].as_object().cloned().unwrap_or_default()
    }
}

fn main() -> ExitCode {
    toe_guest_tests::program::run("toe-programs", || work(&Arguments::parse()))
}

fn work(arguments: &Arguments) -> Result<()> {
    let root = std::fs::canonicalize(&arguments.root).context("the userland")?;
    ensure!(root.join("usr/bin/curl").exists(), "no userland in {}: run scripts/programs", root.display());
    let mut outcomes = Vec::new();
    let mut rows = Vec::new();
    let options =
        LabOptions { limit: Duration::from_secs(7200), verbose: true, ..LabOptions::new("programs", Kind::UserMode) };
    Lab::run(options, |lab| {
        mount(lab, &root)?;
        for case in CASES {
            if arguments.only.as_ref().is_some_and(|only| !case.name.contains(only)) {
                continue;
            }
            let start = Instant::now();
            let one = |under: bool| execute(lab, &root, case, under);
            let both = one(false).and_then(|kernel| Ok((kernel, one(true)?)));
            match both {
                Ok(((kernel, _), (card, report))) => {
                    let outcome = Outcome { name: case.name, what: case.what, kernel, card, report };
                    let verdict = if outcome.is_good() { "passed" } else { "FAILED" };
                    lab.step(&format!(
                        "{}: {verdict} in {:.0} s: {}",
                        case.name,
                        start.elapsed().as_secs_f64(),
                        outcome.report
                    ));
                    if outcome.kernel != outcome.card || outcome.kernel.trim().is_empty() {
                        lab.step(&format!("kernel: {}\ncard: {}", outcome.kernel, outcome.card));
                    }
                    outcomes.push(outcome);
                }
                Err(e) => {
                    lab.step(&format!("{}: FAILED: {e:#}", case.name));
                    let (kernel, card) = (String::new(), format!("{e:#}"));
                    outcomes.push(Outcome {
                        name: case.name,
                        what: case.what,
                        kernel,
                        card,
                        report: serde_json::Value::Null,
                    });
                }
            }
        }
        if arguments.only.is_none() {
            rows = run::calls(lab)?;
        }
        if arguments.kills > 0 {
            run::kills(lab, arguments.kills, 1)?;
        }
        Ok(())
    })?;
    if arguments.write {
        std::fs::write(host::root().join("docs/programs.md"), programs_page(&outcomes))?;
        std::fs::write(host::root().join("docs/socket-calls.md"), calls_page(&rows))?;
    }
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.is_good()).map(|o| o.name).collect();
    println!("{} of {} passed", outcomes.len() - failed.len(), outcomes.len());
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Makes the userland the guest's `/r`: it lies on the host, what is written goes to memory.
fn mount(lab: &Lab, root: &Path) -> Result<()> {
    let mut command = format!("mkdir -p /r && mount -t hostfs none /r -o {}", root.display());
    for (what, at) in [
        ("proc", "proc"),
        ("sysfs", "sys"),
        ("tmpfs", "tmp"),
        ("tmpfs", "run"),
        ("tmpfs", "var/log"),
        ("tmpfs", "var/lib"),
    ] {
        write!(command, " && mkdir -p /r/{at} && mount -t {what} none /r/{at}")?;
    }
    // A bind mount has not what is mounted below.
    command.push_str(" && mkdir -p /r/dev && mount --bind /dev /r/dev && mkdir -p /r/dev/shm /r/dev/pts");
    command.push_str(" && mount -t tmpfs none /r/dev/shm && mount -t devpts none /r/dev/pts");
    command.push_str(" && chmod 1777 /r/tmp /r/dev/shm");
    lab.guest()?.check(&command).map(drop)
}

/// Runs a case once; its output and, under `toe run`, the report.
fn execute(lab: &Lab, root: &Path, case: &Case, under: bool) -> Result<(String, serde_json::Value)> {
    let guest = lab.guest()?;
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let inside = |text: &str| format!("chroot /r bash -c {}", quote(text));
    // From a file: a console takes no long lines.
    let script = |name: &str, text: &str| -> Result<()> {
        guest.check("rm -f /tmp/script")?;
        for piece in text.as_bytes().chunks(1500) {
            let piece: String = piece.iter().map(|b| format!("\\{b:03o}")).collect();
            for piece in piece.as_bytes().chunks(2400) {
                guest.check(&format!("printf '{}' >> /tmp/script", std::str::from_utf8(piece)?))?;
            }
        }
        guest.check(&format!("cp /tmp/script /r/tmp/{name}")).map(drop)
    };
    script("prepare.sh", case.prepare)?;
    guest.check_for(&inside("sh -e /tmp/prepare.sh"), CASE).context("preparing")?;

    let on_peer = |text: &str| {
        let mut command = lab.namespace.command("chroot");
        command.arg(root).args(["bash", "-c", text]).stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    };
    let mut server = None;
    if !case.peer_server.is_empty() {
        server = Some(Ended(on_peer(case.peer_server).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?));
        std::thread::sleep(Duration::from_millis(1500));
    }
    // `toe run` runs outside, and what it runs inside.
    let toe = if under { "/bin/toe run --report /r/tmp/report.json -- chroot /r" } else { "chroot /r" };
    guest.check("rm -f /r/tmp/report.json")?;
    script("guest.sh", case.guest)?;
    let command = format!("{toe} bash /tmp/guest.sh");
    let output = if case.port == 0 {
        guest.check_for(&command, CASE)?
    } else {
        let job = guest.start(&command)?;
        let port = format!(":{:04X} ", case.port);
        let listens = host::wait_for("the server to listen", CASE, || {
            let listening = guest.run(&format!("cat /proc/net/tcp /proc/net/tcp6 | grep ' 0A ' | grep -c '{port}'"))?;
            Ok((listening.text.trim() != "0").then_some(()))
        });
        if let Err(e) = listens {
            let on = if under { "the card" } else { "the kernel" };
            // What it said, or how it ended.
            let said = guest.wait(job, Duration::from_secs(1)).map_or_else(|e| format!("{e:#}"), |o| o.text);
            return Err(e.context(format!("on {on}: {said}")));
        }
        let output = ended_in_time(on_peer(case.peer))?;
        script("stop.sh", case.stop)?;
        guest.check(&inside("sh /tmp/stop.sh"))?;
        guest.wait(job, CASE)?;
        output
    };
    drop(server);
    let report = if under {
        let text = host::wait_for("the report", CASE, || {
            let text = guest.run("cat /r/tmp/report.json 2>/dev/null")?.text;
            Ok((!text.trim().is_empty()).then_some(text))
        })?;
        serde_json::from_str(&text)?
    } else {
        serde_json::Value::Null
    };
    Ok((filtered(&output, case.same)?, report))
}

/// A process on the peer's side; ended when dropped.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ended_in_time(mut command: Command) -> Result<String> {
    let mut child = Ended(command.stdout(Stdio::piped()).spawn()?);
    let mut out = child.0.stdout.take().context("no output")?;
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut out));
    host::wait_for("the peer's part", CASE, || Ok(child.0.try_wait()?))?;
    Ok(reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??)
}

fn filtered(text: &str, same: &str) -> Result<String> {
    if same.is_empty() {
        return Ok(text.to_owned());
    }
    let mut file = tempfile::NamedTempFile::new()?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    host::run("sed", ["-E".as_ref(), same.as_ref(), file.path().as_os_str()])
}

fn programs_page(outcomes: &[Outcome]) -> String {
    let mut page = String::from(
        "# Programs under `toe run`\n\nMade by `scripts/programs`: Debian's packages in User-Mode Linux, each once on the kernel and once on the card in the \
         same guest; what the two said was compared.\n\n\
         | program | what was done | same output | card: opened, accepted | bytes out, in | kernel, by reason |\n|---|---|---|---:|---:|---|\n",
    );
    for o in outcomes {
        let n = |what: &str| o.report[what].as_u64().unwrap_or(0);
        let same = if o.kernel == o.card && !o.kernel.trim().is_empty() { "yes" } else { "**no**" };
        let reasons: Vec<_> = o.reasons().iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        let reasons = if reasons.is_empty() { "–".to_owned() } else { reasons.join(", ") };
        let (opened, accepted) = (n("card_connected"), n("card_accepted"));
        let (out, back) = (n("bytes_sent"), n("bytes_received"));
        // Writing to a String does not fail.
        let _ =
            writeln!(page, "| {} | {} | {same} | {opened}, {accepted} | {out}, {back} | {reasons} |", o.name, o.what);
    }
    page.push_str("\n`local-address`: connections over the loopback interface, which stay with the kernel.\n");
    page
}

fn calls_page(rows: &[run::Row]) -> String {
    let equal = rows.iter().filter(|r| r.is_equal()).count();
    let mut page = format!(
        "# Socket calls under `toe run`\n\nMade by `scripts/programs` from `toe-calls`: each row is one test that ran on the kernel and on the card in the same guest \
         (User-Mode Linux). **{equal} of {} are equal.** The result is what the calls of the row returned, in order.\n\n| row | result | on the card |\n|---|---|---|\n",
        rows.len()
    );
    let cell = |text: &str| format!("`{}`", text.replace('|', "¦"));
    for row in rows {
        let card = if row.is_equal() { "the same".to_owned() } else { cell(&row.card) };
        // Writing to a String does not fail.
        let _ = writeln!(page, "| {} | {} | {card} |", row.name, cell(&row.kernel));
    }
    page
}

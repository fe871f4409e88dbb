//! Real programs under `toe run`, on the card and on the kernel in the same guest, their outputs compared.
//! `scripts/programs` builds the guest's userland from Debian's packages and starts this.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Deserialize;
use toe_guest_tests::{Kind, Lab, LabOptions, host, run};

/// How long a case may take on one of both.
const CASE: Duration = Duration::from_secs(180);

/// Runs programs under `toe run` in User-Mode Linux and writes what came of it.
#[derive(Parser)]
struct Arguments {
    /// The guest's userland: a directory with Debian's packages unpacked in it.
    root: PathBuf,
    /// The programs and what they do; guest-tests/guest/programs.toml if none is given.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Print the Debian packages that the cases want, and do nothing.
    #[arg(long)]
    packages: bool,
    /// Only the cases whose names contain this, or one of these.
    #[arg(long)]
    only: Vec<String>,
    /// Write docs/programs.md and docs/socket-calls.md.
    #[arg(long, conflicts_with_all = ["cases", "only"])]
    write: bool,
    /// Kill so many programs and supervisors at the end.
    #[arg(long, default_value_t = 0)]
    kills: u32,
}

/// A program and what it does, as a file of cases has it. All of it is executed in the unpacked userland, the guest's part in the guest
/// and the peer's on the other end of the wire.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    what: String,
    /// A file beside the file of cases; it is `/tmp/` and its name in the guest.
    file: Option<String>,
    /// Before the program starts, in the guest.
    #[serde(default)]
    prepare: String,
    /// On the other end, in the background, before the guest's part.
    #[serde(default)]
    peer_server: String,
    /// In the guest. Without a `port` its output is compared; otherwise it is a server.
    guest: String,
    /// Where the server listens.
    port: Option<NonZeroU16>,
    /// On the other end, when the server listens: its output is compared.
    #[serde(default)]
    peer: String,
    /// In the guest: ends the server.
    #[serde(default)]
    stop: String,
    /// `sed` commands that take out what differs from run to run.
    #[serde(default)]
    same: String,
    /// For which reasons connections may be the kernel's, and why that is right; `local-address` always is.
    #[serde(default)]
    kernel: BTreeMap<String, String>,
}

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    /// Debian's packages that the programs are in.
    #[serde(default)]
    packages: Vec<String>,
    #[serde(rename = "program")]
    programs: Vec<Case>,
}

impl Cases {
    fn read(path: &Path) -> Result<Self> {
        let named = || format!("{}", path.display());
        let mut cases: Self =
            toml::from_str(&std::fs::read_to_string(path).with_context(named)?).with_context(named)?;
        for case in &mut cases.programs {
            let Some(file) = &case.file else { continue };
            let text = std::fs::read_to_string(path.with_file_name(file)).with_context(|| file.clone())?;
            case.prepare = format!("cat > /tmp/{file} <<'END OF FILE'\n{text}\nEND OF FILE\n{}", case.prepare);
        }
        Ok(cases)
    }
}

/// What came of a case.
struct Outcome {
    case: Case,
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
            && self.reasons().keys().all(|r| r == "local-address" || self.case.kernel.contains_key(r))
    }

    fn reasons(&self) -> serde_json::Map<String, serde_json::Value> {
        self.report["kernel"].as_object().cloned().unwrap_or_default()
    }
}

fn main() -> ExitCode {
    toe_guest_tests::program::run("toe-programs", || work(&Arguments::parse()))
}

fn work(arguments: &Arguments) -> Result<()> {
    let file = arguments.cases.clone().unwrap_or_else(|| host::root().join("guest-tests/guest/programs.toml"));
    let Cases { packages, programs } = Cases::read(&file)?;
    if arguments.packages {
        packages.iter().for_each(|package| println!("{package}"));
        return Ok(());
    }
    let root = std::fs::canonicalize(&arguments.root).context("the userland")?;
    ensure!(root.join("usr/bin/curl").exists(), "no userland in {}: run scripts/programs", root.display());
    let mut outcomes = Vec::new();
    let mut rows = Vec::new();
    let options =
        LabOptions { limit: Duration::from_secs(7200), verbose: true, ..LabOptions::new("programs", Kind::UserMode) };
    Lab::run(options, |lab| {
        mount(lab, &root)?;
        for case in &programs {
            if !arguments.only.is_empty() && !arguments.only.iter().any(|only| case.name.contains(only)) {
                continue;
            }
            let start = Instant::now();
            let one = |under: bool| execute(lab, &root, case, under);
            let both = one(false).and_then(|kernel| Ok((kernel, one(true)?)));
            match both {
                Ok(((kernel, _), (card, report))) => {
                    let outcome = Outcome { case: case.clone(), kernel, card, report };
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
                    outcomes.push(Outcome { case: case.clone(), kernel, card, report: serde_json::Value::Null });
                }
            }
        }
        if arguments.only.is_empty() && arguments.cases.is_none() {
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
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.is_good()).map(|o| o.case.name.as_str()).collect();
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
        guest.check(": > /tmp/script")?;
        for piece in text.as_bytes().chunks(1500) {
            let piece: String = piece.iter().map(|b| format!("\\{b:03o}")).collect();
            for piece in piece.as_bytes().chunks(2400) {
                guest.check(&format!("printf '{}' >> /tmp/script", std::str::from_utf8(piece)?))?;
            }
        }
        guest.check(&format!("cp /tmp/script /r/tmp/{name}")).map(drop)
    };
    script("prepare.sh", &case.prepare)?;
    guest.check_for(&inside("sh -e /tmp/prepare.sh"), CASE).context("preparing")?;

    let on_peer = |text: &str| {
        let mut command = lab.namespace.command("chroot");
        command.arg(root).args(["bash", "-c", text]).stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    };
    let mut server = None;
    if !case.peer_server.is_empty() {
        server = Some(Ended(on_peer(&case.peer_server).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?));
        std::thread::sleep(Duration::from_millis(1500));
    }
    // `toe run` runs outside, and what it runs inside.
    let toe = if under { "/bin/toe run --report /r/tmp/report.json -- chroot /r" } else { "chroot /r" };
    guest.check("rm -f /r/tmp/report.json")?;
    script("guest.sh", &case.guest)?;
    let command = format!("{toe} bash /tmp/guest.sh");
    let output = if let Some(port) = case.port {
        let job = guest.start(&command)?;
        let port = format!(":{port:04X} ");
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
        let output = ended_in_time(on_peer(&case.peer))?;
        script("stop.sh", &case.stop)?;
        guest.check(&inside("sh /tmp/stop.sh"))?;
        guest.wait(job, CASE)?;
        output
    } else {
        guest.check_for(&command, CASE)?
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
    Ok((filtered(&output, &case.same)?, report))
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

/// How to try others.
const OWN: &str = r#"
## Programs of one's own

    scripts/programs --cases FILE

FILE is as `guest-tests/guest/programs.toml`, whose head says what a case has. Its `packages` are unpacked beside those that are there
already (`.cache/programs/root`); nothing is installed, and the packages' own scripts do not run. `--only NAME` takes the cases whose names contain that.

```toml
packages = ['curl', 'lighttpd']

[[program]]
name = 'my server'
what = 'the peer fetches a file'
prepare = """
mkdir -p /tmp/li
echo hello > /tmp/li/f
echo 'server.document-root = "/tmp/li"' > /tmp/li.conf
echo 'server.port = 8084' >> /tmp/li.conf
"""
guest = 'echo $$ > /tmp/li.pid; exec lighttpd -D -f /tmp/li.conf'
port = 8084
peer = 'curl -s http://192.0.2.2:8084/f'
stop = 'kill $(cat /tmp/li.pid)'
```

A case fails if the two say different things, if the card carried nothing, and if the kernel carried a connection for a reason that the case does not name.
"#;

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
        let _ = writeln!(
            page,
            "| {} | {} | {same} | {opened}, {accepted} | {out}, {back} | {reasons} |",
            o.case.name, o.case.what
        );
    }
    page.push_str("\n`local-address`: connections over the loopback interface, which stay with the kernel.\n");
    for (reason, why) in outcomes.iter().flat_map(|o| &o.case.kernel) {
        // As above.
        let _ = writeln!(page, "`{reason}`: {why}.");
    }
    page.push_str(OWN);
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

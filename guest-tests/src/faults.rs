//! What must hold when a card is broken on purpose under a real guest: Debian's sshd, nginx and curl, all on the card by
//! `toe run`, recover without a reboot.
//!
//! Each scenario arms rules on the live card ([`crate::Card::arm`]), looks at what a user would notice meanwhile, disarms,
//! and waits until everything works again; how long that took is a step of the log. What `docs/faults.md` promises of a firmware
//! that stopped is measured here, too ([`crate::outage`]).

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bytes::Sum;
use crate::host::{self, wait_for};
use crate::net::{GUEST_V4, PEER_V4};
use crate::outage::{Clients, Held, Outage};
use crate::peers::{self, Httpd};
use crate::{Guest, Lab};

/// How long services may take to work again.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long one attempt of a client may take, in seconds.
const PATIENCE_S: u32 = 10;
/// Until a firmware that stopped has been noticed and booted anew.
const RESET: Duration = Duration::from_millis(100);
/// After a reset without state every socket has been told within this time.
const TOLD: Duration = Duration::from_secs(2);
/// And new connections work within this.
const NEW_CONNECTIONS: Duration = Duration::from_secs(1);
const SSH_PORT: u16 = 2222;
/// A small file of the guest's nginx.
const SMALL: &str = "/s";
/// What nginx in the guest serves, and the server at the other end.
const FILE_BYTES: u64 = 256 << 10;
const GUEST_SEED: u64 = 21;
const PEER_SEED: u64 = 22;

/// sshd and nginx in the guest, and an HTTP server at the other end of the wire.
pub struct Services {
    _peer: Httpd,
}

impl Services {
    /// Starts them, and waits until they work.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn start(lab: &Lab) -> Result<Self> {
        // The peer's kernel gives Fast Open's cookies to whoever asks, for all its listeners.
        lab.namespace.enter(|| Ok(std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1027")?))?;
        let peer = Httpd::start(&lab.namespace, PEER_V4, PEER_SEED, FILE_BYTES)?;
        let guest = lab.guest()?;
        guest.check(
            "mkdir -p /tmp/ng /run/sshd /var/lib/nginx /var/log/nginx && cp -r /keys /tmp/keys && chmod 600 /tmp/keys/*",
        )?;
        guest.check(&format!("toe-peer gen {GUEST_SEED} {FILE_BYTES} > /tmp/ng/f; echo small > /tmp/ng/s"))?;
        let settings = "daemon off; error_log stderr; pid /tmp/ng.pid; user root root; worker_processes 1; events {} \
                        http { access_log off; server { listen 80; root /tmp/ng; } }";
        guest.check(&format!("echo '{settings}' > /tmp/ng.conf"))?;
        guest.start("toe run -- nginx -c /tmp/ng.conf")?;
        guest.start(&format!(
            "toe run -- /usr/sbin/sshd -D -e -p {SSH_PORT} -f /dev/null -h /tmp/keys/host -o PidFile=/tmp/sshd.pid \
             -o AuthorizedKeysFile=/tmp/keys/user.pub -o StrictModes=no -o UsePAM=no"
        ))?;
        let services = Self { _peer: peer };
        services.recover(lab, "sshd, nginx and curl")?;
        Ok(services)
    }

    /// Waits until all work; says how long that took.
    ///
    /// # Errors
    /// If they do not within a minute; with what the last attempt said.
    pub fn recover(&self, lab: &Lab, after: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.work(lab) {
                Ok(()) => break,
                Err(error) if start.elapsed() > RECOVERY => {
                    return Err(error.context(format!("{after}: a minute later it does not work")));
                }
                Err(error) => {
                    lab.step(&format!("{after}: not yet: {error:#}"));
                    if start.elapsed() > RECOVERY / 12 {
                        lab.step(&what_is_left(lab.guest()?));
                    }
                }
            }
        }
        lab.step(&format!("{after}: ssh, nginx and curl work, after {:.1} s", start.elapsed().as_secs_f64()));
        Ok(())
    }

    /// A command by ssh in the guest, a file from its nginx, and one to its curl: each once.
    ///
    /// # Errors
    /// What does not work.
    pub fn work(&self, lab: &Lab) -> Result<()> {
        fetch_from_guest(lab).context("nginx")?;
        let key = host::cache().join("services/keys/user");
        let mut ssh = lab.namespace.command("ssh");
        ssh.args([
            "-q",
            "-p",
            &SSH_PORT.to_string(),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        ssh.args(["-o", &format!("ConnectTimeout={PATIENCE_S}"), "-o", "ServerAliveInterval=2", "-i"]).arg(key);
        let said = output(ssh.arg(format!("root@{GUEST_V4}")).arg("echo it works"))?;
        ensure!(said == b"it works\n", "ssh said {:?}", String::from_utf8_lossy(&said));
        fetch_in_guest(lab.guest()?).context("curl in the guest")
    }
}

fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{:?} failed: {}", command.get_args().nth(3).unwrap_or_default(), output.status);
    Ok(output.stdout)
}

/// The peer's curl fetches from the guest's nginx.
pub(crate) fn fetch_from_guest(lab: &Lab) -> Result<()> {
    let mut curl = lab.namespace.command("curl");
    curl.args(["-s", "-m", &PATIENCE_S.to_string(), "--stderr", "-", "-o"]).arg(lab.logs().join("fetched"));
    // Where it stood, if it gives up.
    curl.args([
        "-w",
        "connected after %{time_connect} s, first byte after %{time_starttransfer} s, %{size_download} bytes",
    ]);
    let said = curl.arg(format!("http://{GUEST_V4}/f")).stdin(Stdio::null()).output().context("cannot start curl")?;
    ensure!(said.status.success(), "curl: {}: {}", said.status, String::from_utf8_lossy(&said.stdout));
    let body = std::fs::read(lab.logs().join("fetched"))?;
    let expected = Sum::of_pattern(GUEST_SEED, FILE_BYTES);
    ensure!(Sum::of(&mut &body[..])? == expected, "nginx served {} bytes that are not its file", body.len());
    Ok(())
}

/// Which connections and processes are left in a guest, and where these wait: of what does not work it says most.
pub(crate) fn what_is_left(guest: &Guest) -> String {
    let left = "toe ss -tanpi; cat /proc/net/tcp; for p in $(pidof nginx toe toe-peer); do cat /proc/$p/comm; \
                cat /proc/$p/task/*/syscall; done";
    guest.run(left).map_or_else(|e| e.to_string(), |output| output.text)
}

/// The guest's curl fetches from the peer.
pub(crate) fn fetch_in_guest(guest: &Guest) -> Result<()> {
    let text = guest.check(&format!("toe run -- curl -s -m {PATIENCE_S} http://{PEER_V4}/file | toe-peer sum"))?;
    ensure!(Sum::parse(&text) == Some(Sum::of_pattern(PEER_SEED, FILE_BYTES)), "curl fetched {text}");
    Ok(())
}

/// A rule as a file has it.
pub(crate) fn rule(site: &str, when: &str, action: &str) -> String {
    let when = if when.is_empty() { String::new() } else { format!("when = {{ {when} }}\n") };
    format!("[[rule]]\nsite = \"{site}\"\n{when}action = {action}\n")
}

/// Arms rules while `work` is done; then every site in `struck` must have been.
fn armed<T>(lab: &mut Lab, rules: &str, struck: &[&str], work: impl FnOnce(&mut Lab) -> Result<T>) -> Result<T> {
    lab.card()?.arm(rules, 1)?;
    let result = work(lab);
    let done = lab.card()?.disarm()?;
    let result = result.with_context(|| format!("with {}", short(&done)))?;
    for site in struck {
        ensure!(strikes(&done, site) > 0, "{site} was not struck: {}", short(&done));
    }
    lab.step(&format!("struck: {}", short(&done)));
    Ok(result)
}

pub(crate) fn strikes(status: &Value, site: &str) -> u64 {
    let of = |s: &Value| if s["site"] == site { s["strikes"].as_u64() } else { None };
    status["sites"].as_array().into_iter().flatten().find_map(of).unwrap_or(0)
}

/// Sites with their strikes and passages, in a line.
pub(crate) fn short(status: &Value) -> String {
    let one = |s: &Value| format!("{} {} of {}", s["site"].as_str().unwrap_or_default(), s["strikes"], s["passages"]);
    status["sites"].as_array().into_iter().flatten().map(one).collect::<Vec<_>>().join(", ")
}

/// One of the card's counters.
pub(crate) fn counter(lab: &mut Lab, name: &str) -> Result<u64> {
    lab.card()?.stat()?[name].as_u64().with_context(|| format!("no counter {name}"))
}

/// A third of all doorbells is not heard. Nobody notices but the clock.
///
/// # Errors
/// What does not hold; so for all of them.
pub fn lost_doorbells(lab: &mut Lab, services: &Services) -> Result<()> {
    let rules =
        rule("virtio.kick.tx", "share = \"33%\"", "\"drop\"") + &rule("virtio.kick.rx", "share = \"33%\"", "\"drop\"");
    armed(lab, &rules, &["virtio.kick.tx"], |lab| {
        services.work(lab)?;
        ping(lab)
    })?;
    // Now all of them, and nothing but one program that says something now and then.
    armed(lab, &rule("virtio.kick.tx", "", "\"drop\""), &["virtio.kick.tx"], |lab| {
        let before = counter(lab, "kicks-missed")?;
        ping(lab)?;
        ensure!(counter(lab, "kicks-missed")? > before, "no kick was found to be missing");
        Ok(())
    })?;
    services.recover(lab, "lost doorbells")
}

fn ping(lab: &Lab) -> Result<()> {
    let text = lab.guest()?.check(&format!("ping -c 5 -i 0.3 -W 5 {PEER_V4}"))?;
    ensure!(text.contains(" 0% packet loss"), "{text}");
    Ok(())
}

/// A third of all interrupts is lost; then there are hundreds too many.
///
/// # Errors
/// As above.
pub fn lost_interrupts(lab: &mut Lab, services: &Services) -> Result<()> {
    let both = |when: &str, action: &str| rule("virtio.call.rx", when, action) + &rule("virtio.call.tx", when, action);
    let before = counter(lab, "interrupts-repeated")?;
    armed(lab, &both("share = \"33%\"", "\"drop\""), &["virtio.call.rx"], |lab| {
        services.work(lab)?;
        ping(lab)
    })?;
    ensure!(counter(lab, "interrupts-repeated")? > before, "no interrupt was sent again");
    let storm = "{ corrupt = 500 }";
    armed(lab, &both("every = 20", storm), &["virtio.call.rx"], |lab| services.work(lab))?;
    services.recover(lab, "lost interrupts and storms")
}

/// The link goes down for 300 ms again and again; then the cable is out for as long as it takes the guest to see that.
///
/// # Errors
/// As above.
pub fn flapping_link(lab: &mut Lab, services: &Services) -> Result<()> {
    let rules = rule("wire.link", "every = 400", "{ hang = \"300ms\" }");
    armed(lab, &rules, &["wire.link"], |lab| services.work(lab))?;
    for is_up in [false, true] {
        lab.guest()?.set_link(is_up)?;
        let expected = if is_up { "1" } else { "0" };
        wait_for("the guest to see the carrier", Duration::from_secs(20), || {
            let carrier = lab.guest()?.run("cat /sys/class/net/eth0/carrier")?.text;
            Ok((carrier.trim() == expected).then_some(()))
        })?;
    }
    services.recover(lab, "a flapping link")
}

/// Copies from and to the guest's memory go wrong now and then, and a used index is written late.
///
/// # Errors
/// As above.
pub fn bad_copies(lab: &mut Lab, services: &Services) -> Result<()> {
    let rules = rule("virtio.used.index", "every = 7", "\"drop\"")
        + &rule("dma.rx.write", "every = 31", "\"duplicate\"")
        + &rule("dma.rx.write", "every = 37", "\"drop\"")
        + &rule("dma.tx.read", "every = 41", "{ delay = \"3ms\" }");
    let sites = ["virtio.used.index", "dma.rx.write", "dma.tx.read"];
    armed(lab, &rules, &sites, |lab| services.work(lab))?;
    // Frames for the guest's kernel with every checksum in it damaged: what arrives is right or does not arrive.
    let rules =
        rule("wire.rx.frame", "every = 17", "\"flip-bit\"") + &rule("wire.tx.frame", "every = 19", "{ truncate = 50 }");
    armed(lab, &rules, &["wire.rx.frame", "wire.tx.frame"], |lab| services.work(lab))?;
    services.recover(lab, "bad copies and a bad cable")
}

/// A corrupted ring: the guest's driver gives it up, and works again once it is bound anew.
///
/// # Errors
/// As above.
pub fn corrupted_ring(lab: &mut Lab, services: &Services) -> Result<()> {
    armed(lab, &rule("virtio.used.index", "nth = 3", "\"error\""), &["virtio.used.index"], |lab| {
        lab.guest()?.run(&format!("ping -c 3 -i 0.3 -W 1 {PEER_V4}")).map(drop)
    })?;
    let driver = "/sys/bus/virtio/drivers/virtio_net";
    let guest = lab.guest()?;
    guest.check(&format!("cd {driver} && d=$(ls -d virtio*) && echo $d > unbind && echo $d > bind"))?;
    guest.check(
        "sysctl -qw net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.accept_ra=0; ip link set eth0 up; \
         ip address add 192.0.2.2/24 dev eth0; ip -6 address add 2001:db8:1::2/64 dev eth0",
    )?;
    ping(lab)?;
    lab.step("a corrupted ring: the driver was bound anew, and the kernel's network works");
    // What is on the card was opened over an interface that is gone.
    guest.run("kill $(cat /tmp/ng.pid /tmp/sshd.pid)")?;
    let _ = services;
    Ok(())
}

/// A processor that is fifty times slower for a while.
///
/// # Errors
/// As above.
pub fn slow_processor(lab: &mut Lab, services: &Services) -> Result<()> {
    let rules = rule("processor", "", "{ slow = 50, lasting = \"5s\" }");
    armed(lab, &rules, &["processor"], |lab| services.work(lab))?;
    services.recover(lab, "a slow processor")
}

/// A stream from the peer to a program on the card, that goes on until it is told to end.
struct Stream {
    stop: Arc<AtomicBool>,
    source: peers::Peer<Vec<Sum>>,
    job: crate::Job,
}

impl Stream {
    fn start(lab: &Lab) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let source = peers::paced_source(&lab.namespace, PEER_V4, 9, Arc::clone(&stop))?;
        let guest = lab.guest()?;
        guest.check("rm -f /tmp/stream.err /tmp/stream")?;
        let port = source.address.port();
        let job = guest.start(&format!(
            "toe nc -v {PEER_V4} {port} 2>/tmp/stream.err >/tmp/stream && toe-peer sum </tmp/stream"
        ))?;
        wait_for("bytes on the stream", RECOVERY, || {
            let bytes = guest.run("stat -c %s /tmp/stream")?.text;
            Ok((bytes.trim().parse::<u64>().unwrap_or(0) > 100_000).then_some(()))
        })?;
        Ok(Self { stop, source, job })
    }

    /// It must break, and soon after `fault`; when it did.
    fn breaks(self, lab: &Lab, fault: Instant, limit: Duration) -> Result<Duration> {
        let output = lab.guest()?.wait(self.job, limit);
        let after = fault.elapsed();
        self.stop.store(true, Ordering::Relaxed);
        // Reset, or still waiting.
        let _ = self.source.join();
        ensure!(output?.status != 0, "a connection of a card that forgot it ended as if nothing had happened");
        Ok(after)
    }

    /// It must go on and be whole.
    fn goes_on(self, lab: &Lab) -> Result<u64> {
        let guest = lab.guest()?;
        let bytes = || -> Result<u64> { Ok(guest.check("stat -c %s /tmp/stream")?.trim().parse()?) };
        let before = bytes()?;
        wait_for("more bytes on the stream", RECOVERY, || Ok((bytes()? > before + 200_000).then_some(())))?;
        self.stop.store(true, Ordering::Relaxed);
        let output = guest.wait(self.job, RECOVERY)?;
        let sent = self.source.join()?.remove(0);
        ensure!(Sum::parse(&output.text).as_ref() == Some(&sent), "of {sent} arrived {}", output.text.trim());
        Ok(sent.bytes)
    }
}

/// The firmware's processor stops: it hangs for ever, or crashes. `keeps`: what it held is still there afterwards.
///
/// # Errors
/// As above; and if the card does not keep what `docs/faults.md` promises: without state every socket is told within 2 s and
/// new connections work within 1 s of the reset, which is over 100 ms after the fault.
pub fn stopped_processor(lab: &mut Lab, services: &Services, action: &str, keeps: bool) -> Result<()> {
    let stream = Stream::start(lab)?;
    let held = if keeps { None } else { Some(Held::start(lab)?) };
    let clients = Clients::start(lab, SMALL)?;
    let fault = Instant::now();
    lab.card()?.arm(&(rule("processor", "", &format!("\"{action}\"")) + "times = 1\n"), 1)?;
    let outage = clients.outage(fault)?;
    let Outage { over_after, usual } = outage;
    lab.step(&format!("{action}: new connections worked after {over_after:.2?} (a request takes at most {usual:.2?})"));
    let what = match held {
        None => format!("a stream went on, {} bytes exact", stream.goes_on(lab)?),
        Some(held) => {
            let told = held.told(lab, fault, RESET + TOLD, usual)?;
            let stream = stream.breaks(lab, fault, Duration::from_secs(20))?;
            format!("held connections were told after {told:.2?}, a stream by then ({stream:.2?})")
        }
    };
    let done = lab.card()?.disarm()?;
    ensure!(strikes(&done, "processor") == 1, "{}", short(&done));
    lab.step(&format!("{}; {what}", short(&done)));
    outage.is_within(RESET + NEW_CONNECTIONS)?;
    services.recover(lab, &format!("processor: {action}"))
}

/// The backend is killed under load and started again.
///
/// # Errors
/// As above; the times count from when the frontend has come back.
pub fn killed_backend(lab: &mut Lab, services: &Services) -> Result<()> {
    let stream = Stream::start(lab)?;
    let held = Held::start(lab)?;
    let clients = Clients::start(lab, SMALL)?;
    let killed = Instant::now();
    lab.card()?.kill()?;
    lab.start_card()?;
    wait_for("the frontend", RECOVERY, || Ok((counter(lab, "frontends-connected")? > 0).then_some(())))?;
    let back = Instant::now();
    let outage = clients.outage(back)?;
    let Outage { over_after, usual } = outage;
    let told = held.told(lab, back, TOLD, usual)?;
    stream.breaks(lab, back, RECOVERY)?;
    lab.step(&format!(
        "the card was killed, and its frontend was back {:.2?} later; from then on new connections worked after \
         {over_after:.2?} (a request takes at most {usual:.2?}), held connections were told after {told:.2?}",
        back - killed
    ));
    outage.is_within(NEW_CONNECTIONS)?;
    services.recover(lab, "a killed backend")
}

//! Plays a script on a stage.
//!
//! Events happen in their order. Before a packet is handed in and before a call is made, time passes until it is due; for
//! a packet that the stack is to send, until it is sent. A relative time counts from the event before: from when that was
//! due, or, if it was a packet of the stack's, from when it was sent, so that the slack of one timer is not the next one's.
//!
//! A call of the form `begin...end` is made on a second thread. The script goes on once that sleeps; the call's end is
//! looked at before the next call, or at the script's end.
//!
//! Compared is all that a packet says: flags, numbers, length, text (a byte's value follows from its place in the
//! stream, both ways), and what the script names of window, urgent pointer and ECN bits. Options are compared as a set, since the
//! RFCs leave their order and padding open, and a segment may push where the script does not say so;
//! [`Settings::exact`] compares both as they lie.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::flow::Flow;
use crate::info;
use crate::language::{
    Call, Check, Event, Expected, Expression, Family, Flags, Icmp, Moment, Outcome, Packet, Script, Segment, TcpOption,
    What, When, packet_text,
};
use crate::request::{PORT, Program, Reply, Request};
use crate::sockets::Sockets;
use crate::stage::{Stage, local, remote};
use crate::wire;

/// The peer's port of a script's first connection; further ones count up.
const REMOTE_PORT: u16 = 40_000;
/// What a script may say of its runs; any other option is packetdrill's alone.
const OPTIONS: [&str; 2] = ["ip_version", "tolerance_usecs"];
/// How long, in real time, a call may take to fall asleep or to return.
const CALL_MAX: Duration = Duration::from_secs(5);
/// How long it is looked at without a pause whether a call is over or asleep, and the pause between looks after that.
const LOOK_MAX: Duration = Duration::from_micros(200);
/// How long, in real time, it is waited for the thread of a call that should have returned.
const RETURN_MAX: Duration = Duration::from_millis(20);
/// After how much of the stage's time it is looked for again, in microseconds.
const RETURN_STEP_US: u64 = 5_000;
/// As many bytes are taken at once by a socket that takes any, on both stages.
const WRITE_MAX: usize = 16_384;
/// How long an event of any time (`*`) is waited for, in microseconds.
const ANY_TIME_US: u64 = 60_000_000;

/// How a script is played.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The packets' family.
    pub family: Family,
    /// How far off a time may be, in microseconds; nothing: as the stage says.
    pub tolerance_us: Option<u64>,
    /// Options must lie as the script says, padding included, and nothing is pushed that the script does not push.
    pub exact: bool,
    /// Commands go to the stage's shell.
    pub shell: bool,
    /// What is added to the peer's sequence numbers on the wire.
    pub remote_shift: u32,
}

impl Settings {
    /// The usual ones.
    pub fn new(family: Family) -> Self {
        Self { family, tolerance_us: None, exact: false, shell: false, remote_shift: 0 }
    }
}

/// A script that did not come true.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The script.
    pub file: String,
    /// The line of the event that did not happen.
    pub line: usize,
    /// The stage.
    pub stage: &'static str,
    /// What was expected and what came.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: on {}: {}", self.file, self.line, self.stage, self.message.replace('\n', "\n    "))
    }
}

impl std::error::Error for Failure {}

/// What happened, for the reader: one line for each packet and call, and what was skipped.
pub type Notes = Vec<String>;

/// Whom the packets are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Opening {
    /// The next inbound packet begins a connection to this port.
    Passive(u16),
    /// The connection is there.
    Open,
}

struct Blocked<'a> {
    call: &'a Call,
    line: usize,
    end_us: u64,
    thread: JoinHandle<(Reply, u64)>,
}

struct Player<'a> {
    script: &'a Script,
    stage: &'a Arc<dyn Stage>,
    settings: Settings,
    tolerance_us: u64,
    start_us: u64,
    base_us: u64,
    program: Program,
    flow: Flow,
    opening: Opening,
    next_port: u16,
    /// The ports that descriptors are bound to.
    bound: BTreeMap<i64, u16>,
    /// The last packet handed in or call made: when it was due, and when it was really begun.
    last_act: Option<(u64, u64)>,
    /// The connection's packets as the stack sent them, for ICMP to quote.
    sent: Vec<(Segment, Vec<u8>)>,
    /// The descriptor whose TCP_INFO is meant.
    current: Option<i64>,
    blocked: Option<Blocked<'a>>,
    notes: Notes,
}

/// Plays `script` on `stage`, which is used up by it.
///
/// # Errors
/// The first event that did not happen as the script says.
pub fn play(script: &Script, stage: &Arc<dyn Stage>, settings: Settings) -> (Result<(), Failure>, Notes) {
    let now = stage.now_us();
    let (here, there) = (local(settings.family), remote(settings.family));
    let said = script.options.iter().find(|(name, _)| name == "tolerance_usecs").and_then(|(_, v)| v.parse().ok());
    let mut player = Player {
        script,
        stage,
        settings,
        tolerance_us: settings.tolerance_us.or(said).unwrap_or(stage.tolerance_us()).max(stage.tolerance_us()),
        start_us: now,
        base_us: now,
        program: Program::new(settings.family),
        flow: Flow::new(SocketAddr::new(here, PORT), SocketAddr::new(there, REMOTE_PORT), settings.remote_shift),
        opening: Opening::Passive(PORT),
        next_port: REMOTE_PORT,
        bound: BTreeMap::new(),
        last_act: None,
        sent: Vec::new(),
        current: None,
        blocked: None,
        notes: Vec::new(),
    };
    player.program.plain_text = !script
        .events
        .iter()
        .any(|event| matches!(&event.what, What::In(Packet::Tcp(segment)) if segment.flags.has(Flags::URG)));
    for (name, value) in script.options.iter().filter(|(name, _)| !OPTIONS.contains(&name.as_str())) {
        player.note(format!("skipped: --{name}={value}, which means nothing here"));
    }
    let result = player.play();
    player.clear();
    (result, player.notes)
}

impl<'a> Player<'a> {
    fn play(&mut self) -> Result<(), Failure> {
        let script = self.script;
        for event in &script.events {
            if event.only.is_some_and(|family| family != self.settings.family) {
                continue;
            }
            if matches!(event.what, What::Call(_)) {
                self.end_blocked()?;
            }
            self.event(event).map_err(|message| self.failure(event.line, message))?;
        }
        self.end_blocked()
    }

    fn failure(&self, line: usize, message: String) -> Failure {
        Failure { file: self.script.file.clone(), line, stage: self.stage.name(), message }
    }

    /// Closes what is open, without a word on the wire being looked at.
    fn clear(&mut self) {
        let sockets = self.stage.sockets();
        for descriptor in self.program.descriptors.values() {
            // Whoever still sleeps in a call is woken.
            let _ = sockets.shutdown(descriptor.live, libc::SHUT_RDWR);
        }
        if let Some(blocked) = self.blocked.take() {
            let began = Instant::now();
            while !blocked.thread.is_finished() && began.elapsed() < CALL_MAX {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !blocked.thread.is_finished() {
                self.notes.push(format!("{} never returned", blocked.call.name));
            }
        }
        for descriptor in std::mem::take(&mut self.program.descriptors).into_values() {
            let _ = sockets.close(descriptor.live);
        }
    }

    fn moment(&self, moment: Moment) -> u64 {
        moment.us + if moment.relative { self.base_us } else { self.start_us }
    }

    fn event(&mut self, event: &'a Event) -> Result<(), String> {
        let (from, to, end) = match event.when {
            When::Any => (None, None, None),
            When::At(at) => (Some(self.moment(at)), Some(self.moment(at)), None),
            When::Between(from, to) => (Some(self.moment(from)), Some(self.moment(to)), None),
            When::Blocking(from, end) => (Some(self.moment(from)), None, Some(self.moment(end))),
        };
        if let What::Out(Packet::Tcp(expected)) = &event.what {
            return self.expect(expected, from, to);
        }
        let due = from.unwrap_or_else(|| self.stage.now_us());
        self.base_us = due;
        self.stage.sleep_until(due);
        self.last_act = Some((due, self.stage.now_us()));
        match &event.what {
            What::In(Packet::Tcp(segment)) => self.inject(segment),
            What::In(Packet::Icmp(icmp)) => self.inject_icmp(icmp),
            What::Out(Packet::Icmp(_)) => Err("ICMP messages of the stack's cannot be expected here".to_owned()),
            What::Out(Packet::Tcp(_)) => Ok(()),
            What::Call(call) => self.call(call, event.line, end),
            What::Info(Ok(checks)) => self.info(checks),
            What::Info(Err(_)) => {
                self.note("skipped: a block that is not only assertions of TCP_INFO");
                Ok(())
            }
            What::Shell(command) => self.shell(command),
        }
    }

    fn note(&mut self, text: impl AsRef<str>) {
        let at = self.stage.now_us().saturating_sub(self.start_us);
        self.notes.push(format!("{} {}", seconds(at), text.as_ref()));
    }

    fn shell(&mut self, command: &str) -> Result<(), String> {
        if !self.settings.shell {
            self.note(format!("skipped: `{command}` (--shell runs commands on linux)"));
            return Ok(());
        }
        match self.stage.shell(command) {
            None => {
                self.note(format!("skipped: `{command}` (the firmware has no shell)"));
                Ok(())
            }
            Some(done) => done.map_err(|e| format!("`{command}`: {e}")),
        }
    }

    fn inject(&mut self, said: &Segment) -> Result<(), String> {
        if let Opening::Passive(port) = self.opening {
            let (here, there) = (self.flow.local.ip(), self.flow.remote.ip());
            let (here, there) = (SocketAddr::new(here, port), SocketAddr::new(there, self.next_port));
            self.next_port = self.next_port.wrapping_add(1);
            self.flow = Flow::new(here, there, self.settings.remote_shift);
            self.opening = Opening::Open;
            self.sent.clear();
        }
        let (segment, text) = self.flow.inbound(said);
        self.note(format!("< {}", packet_text(&Packet::Tcp(said.clone()))));
        let packet = wire::build(self.flow.remote, self.flow.local, &segment, &text)
            .ok_or_else(|| format!("the options are longer than {} bytes", wire::OPTIONS_BYTES_MAX))?;
        self.stage.inject(&packet).map_err(|e| format!("the packet could not be handed in: {e}"))
    }

    fn inject_icmp(&mut self, icmp: &Icmp) -> Result<(), String> {
        let from = self.flow.own_number(icmp.about.from);
        let length = icmp.about.to.wrapping_sub(icmp.about.from);
        let known = self.sent.iter().rev().find(|(s, _)| s.sequence == from && s.length == length);
        let quoted = match known {
            Some((_, packet)) => packet.clone(),
            // One that was never sent, as a forger would quote it.
            None => {
                let segment = Segment {
                    ecn: None,
                    flags: Flags(Flags::ACK),
                    sequence: from,
                    length,
                    acknowledgement: Some(0),
                    window: None,
                    urgent: None,
                    options: Some(Vec::new()),
                };
                let text = vec![0; length as usize];
                wire::build(self.flow.local, self.flow.remote, &segment, &text).unwrap_or_default()
            }
        };
        self.note(format!("< {}", packet_text(&Packet::Icmp(icmp.clone()))));
        let family = self.settings.family.name();
        let message = wire::icmp(self.flow.remote.ip(), icmp.kind, icmp.mtu.unwrap_or(0), &quoted)
            .ok_or_else(|| format!("{family} has no message `{}`", icmp.kind.words))?;
        self.stage.inject(&message).map_err(|e| format!("the message could not be handed in: {e}"))
    }

    /// The next packet of the connection is this one, and it is sent in time.
    fn expect(&mut self, expected: &Segment, from: Option<u64>, to: Option<u64>) -> Result<(), String> {
        let text = packet_text(&Packet::Tcp(expected.clone()));
        let due = match (from, to) {
            (Some(from), Some(to)) if from < to => format!("at {} to {}", self.clock(from), self.clock(to)),
            (Some(from), _) => format!("at {}", self.clock(from)),
            _ => "at any time".to_owned(),
        };
        let expected_text = format!("expected: > {text}  {due}");
        let latest = to.map_or_else(|| self.stage.now_us() + ANY_TIME_US, |to| to + self.tolerance_us);
        let (sent, read) = loop {
            let Some(sent) = self.stage.sniff(latest) else {
                return Err(format!("nothing was sent\n{expected_text}"));
            };
            let Some(read) = wire::read(&sent.bytes) else { continue };
            if self.is_ours(&read) {
                break (sent, read);
            }
            self.note(format!("another connection's: > {}", packet_text(&Packet::Tcp(read.segment))));
        };
        let named = self.flow.outbound(&read.segment, expected);
        self.sent.push((read.segment.clone(), sent.bytes));
        let wrong = differences(expected, &named, self.settings.exact);
        let shown = packet_text(&Packet::Tcp(as_said(&named, expected)));
        let at = sent.at_us;
        self.notes.push(format!("{} > {shown}", self.clock(at)));
        let came = format!("came:     > {shown}  at {}", self.clock(at));
        if !wrong.is_empty() {
            return Err(format!(
                "another packet was sent (not the same: {})\n{expected_text}\n{came}",
                wrong.join(", ")
            ));
        }
        if let Some(position) = self.flow.strange_byte(&named, &read.text) {
            return Err(format!(
                "byte {position} of the stack's text is not the one that was written\n{expected_text}"
            ));
        }
        // However wide the tolerance, what answers an event comes after it.
        let answers = self.last_act.filter(|(due, _)| from.is_some_and(|from| from >= *due));
        if answers.is_some_and(|(_, begun)| at < begun) {
            return Err(format!("the packet was sent before the event that should cause it\n{expected_text}\n{came}"));
        }
        let early = from.is_some_and(|from| at + self.tolerance_us < from);
        if early || to.is_some_and(|to| at > to + self.tolerance_us) {
            let word = if early { "early" } else { "late" };
            let tolerance = self.tolerance_us as f64 / 1000.0;
            return Err(format!("the packet was sent too {word} (within {tolerance} ms)\n{expected_text}\n{came}"));
        }
        self.base_us = at;
        Ok(())
    }

    fn is_ours(&mut self, read: &wire::Read) -> bool {
        if read.destination != self.flow.remote {
            return false;
        }
        if self.flow.local.port() == 0 && read.segment.flags.has(Flags::SYN) {
            self.flow.local.set_port(read.source.port());
        }
        read.source.port() == self.flow.local.port()
    }

    fn clock(&self, us: u64) -> String {
        seconds(us.saturating_sub(self.start_us))
    }

    fn call(&mut self, call: &'a Call, line: usize, end_us: Option<u64>) -> Result<(), String> {
        let request = self.program.request(call)?;
        let own = call.arguments.first().and_then(|e| match e {
            Expression::Number(n) => Some(*n),
            _ => None,
        });
        let sockets = self.stage.sockets();
        if let (Request::Connect { address, .. }, Some(_)) = (&request, end_us) {
            self.open_actively(*address, own);
        }
        let Some(end_us) = end_us else {
            let reply = self.without_hanging(request.clone(), &sockets)?;
            self.after(call, &request, own, &reply);
            return self.program.conclude(call, &reply).map_err(|message| said(call, &message));
        };
        let thread = self.start(request, sockets)?;
        self.blocked = Some(Blocked { call, line, end_us, thread });
        Ok(())
    }

    /// A call that should return at once. One that may wait all the same, and that the descriptor is not ready for, is made on a
    /// thread, lest the script hang with it.
    fn without_hanging(&mut self, request: Request, sockets: &Sockets) -> Result<Reply, String> {
        let wanted = match &request {
            Request::Accept { fd, .. } | Request::Receive { fd, .. } => Some((*fd, libc::POLLIN)),
            Request::Send { fd, data, .. } if data.len() <= WRITE_MAX => Some((*fd, libc::POLLOUT)),
            Request::Send { .. } | Request::Connect { .. } => None,
            _ => return Ok(request.perform(sockets)),
        };
        let is_ready = wanted.is_some_and(|(fd, events)| {
            let mut entry = [libc::pollfd { fd, events, revents: 0 }];
            sockets.poll(&mut entry, 0).is_ok() && entry[0].revents & events != 0
        });
        // MSG_WAITALL waits for more than there is.
        let waits = matches!(&request, Request::Receive { flags: Some(flags), .. } if flags & libc::MSG_WAITALL != 0);
        if is_ready && !waits {
            return Ok(request.perform(sockets));
        }
        let thread = self.start(request, *sockets)?;
        if !thread.is_finished() {
            // It sleeps, or was about to return when it was looked at.
            let began = Instant::now();
            while !thread.is_finished() && began.elapsed() < Duration::from_millis(50) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if !thread.is_finished() {
            self.blocked = None;
            return Err("the call blocks, and the script gives it no end (`begin...end`)".to_owned());
        }
        thread.join().map(|(reply, _)| reply).map_err(|_| "the call's thread panicked".to_owned())
    }

    /// Makes a call on a second thread, and goes on when that sleeps or is done.
    fn start(&self, request: Request, sockets: Sockets) -> Result<JoinHandle<(Reply, u64)>, String> {
        let (tell, told) = mpsc::channel();
        let stage = Arc::clone(self.stage);
        let thread = std::thread::spawn(move || {
            // SAFETY: takes nothing.
            let _ = tell.send(unsafe { libc::gettid() });
            let reply = request.perform(&sockets);
            (reply, stage.now_us())
        });
        let tid = told.recv().map_err(|_| "the call's thread did not start".to_owned())?;
        let began = Instant::now();
        while !thread.is_finished() {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
            if stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S")) {
                break;
            }
            if began.elapsed() > CALL_MAX {
                return Err("the call neither sleeps nor returns".to_owned());
            }
            // Most calls are over, or asleep, at the first looks.
            if began.elapsed() < LOOK_MAX { std::thread::yield_now() } else { std::thread::sleep(LOOK_MAX) }
        }
        Ok(thread)
    }

    fn open_actively(&mut self, to: SocketAddr, own: Option<i64>) {
        let local =
            SocketAddr::new(self.flow.local.ip(), own.and_then(|own| self.bound.get(&own)).copied().unwrap_or(0));
        self.flow = Flow::new(
            local,
            SocketAddr::new(remote_ip(to, self.settings.family), to.port()),
            self.settings.remote_shift,
        );
        self.opening = Opening::Open;
        self.current = own;
        self.sent.clear();
    }

    /// What a call means for the connection that packets are for.
    fn after(&mut self, call: &Call, request: &Request, own: Option<i64>, (outcome, _): &Reply) {
        self.note(format!("{}(…) {}", call.name, crate::request::result_text(*outcome)));
        match (request, outcome) {
            (Request::Bind { address, .. }, Ok(_)) => self.bound.extend(own.map(|own| (own, address.port()))),
            (Request::Listen { .. }, Ok(_)) => {
                let port = own.and_then(|own| self.bound.get(&own)).copied().unwrap_or(PORT);
                if self.opening != Opening::Passive(port) {
                    self.opening = Opening::Passive(port);
                }
            }
            (Request::Connect { address, .. }, Err(libc::EINPROGRESS)) => self.open_actively(*address, own),
            (Request::Accept { .. }, Ok(_)) => {
                if let Expected::Value(Expression::Number(n)) = call.gives {
                    self.current = Some(n);
                }
            }
            _ => {}
        }
    }

    fn end_blocked(&mut self) -> Result<(), Failure> {
        let Some(Blocked { call, line, end_us, thread }) = self.blocked.take() else { return Ok(()) };
        let mut until = end_us;
        loop {
            self.stage.sleep_until(until);
            // The call may be over, and its thread not quite.
            let began = Instant::now();
            while !thread.is_finished() && began.elapsed() < RETURN_MAX {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() || until >= end_us + self.tolerance_us {
                break;
            }
            until = (until + RETURN_STEP_US).min(end_us + self.tolerance_us);
        }
        if !thread.is_finished() {
            self.blocked = Some(Blocked { call, line, end_us, thread });
            let message = said(call, &format!("it should have returned at {}, and still blocks", self.clock(end_us)));
            return Err(self.failure(line, message));
        }
        let Ok((reply, at)) = thread.join() else {
            return Err(self.failure(line, said(call, "its thread panicked")));
        };
        if let (Ok(_), "accept", Expected::Value(Expression::Number(n))) = (&reply.0, call.name.as_str(), &call.gives) {
            self.current = Some(*n);
        }
        self.notes.push(format!("{} {}(…) {}", self.clock(at), call.name, crate::request::result_text(reply.0)));
        self.program.conclude(call, &reply).map_err(|message| self.failure(line, said(call, &message)))?;
        if at.abs_diff(end_us) > self.tolerance_us {
            let message = format!("it returned at {}, not at {}", self.clock(at), self.clock(end_us));
            return Err(self.failure(line, said(call, &message)));
        }
        Ok(())
    }

    fn info(&mut self, checks: &[Check]) -> Result<(), String> {
        let descriptor = self.current.and_then(|own| self.program.descriptors.get(&own));
        let Some(live) = descriptor.map(|d| d.live) else {
            return Err("there is no connection whose TCP_INFO could be meant".to_owned());
        };
        let sockets = self.stage.sockets();
        let (outcome, info): (Outcome, _) = sockets.get_option(live, libc::IPPROTO_TCP, libc::TCP_INFO, info::BYTES);
        outcome.map_err(|e| format!("TCP_INFO: {}", crate::symbols::error(e)))?;
        checks.iter().try_for_each(|check| info::judge(&info, check))
    }
}

fn remote_ip(to: SocketAddr, family: Family) -> IpAddr {
    if to.is_ipv4() == (family == Family::V4) { to.ip() } else { remote(family) }
}

fn said(call: &Call, message: &str) -> String {
    format!("{}: {message}", call.name)
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// The packet that came, without what the script did not name.
fn as_said(came: &Segment, expected: &Segment) -> Segment {
    Segment { ecn: came.ecn.filter(|_| expected.ecn.is_some()), ..came.clone() }
}

/// In what a packet is not the one that was expected.
fn differences(expected: &Segment, came: &Segment, exact: bool) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    let mut compare = |what, same: bool| {
        if !same {
            wrong.push(what);
        }
    };
    let may = if exact { 0 } else { Flags::PSH & !expected.flags.0 };
    compare("flags", expected.flags.0 == came.flags.0 & !may);
    compare("sequence number", expected.sequence == came.sequence);
    compare("length", expected.length == came.length);
    compare("ack", expected.acknowledgement.is_none() || expected.acknowledgement == came.acknowledgement);
    compare("window", expected.window.is_none() || expected.window == came.window);
    compare("urgent pointer", expected.urgent.is_none() || expected.urgent == came.urgent);
    compare("ECN bits", expected.ecn.is_none() || expected.ecn == came.ecn);
    let options = match (&expected.options, &came.options) {
        (Some(expected), Some(came)) => same_options(expected, came, exact),
        _ => true,
    };
    compare("options", options);
    wrong
}

fn same_options(expected: &[TcpOption], came: &[TcpOption], exact: bool) -> bool {
    if exact {
        return expected.len() == came.len() && expected.iter().zip(came).all(|(e, c)| fits(e, c));
    }
    let real = |list: &[TcpOption]| -> Vec<TcpOption> {
        list.iter().filter(|o| !matches!(o, TcpOption::Nop | TcpOption::End)).cloned().collect()
    };
    let (expected, mut came) = (real(expected), real(came));
    expected.len() == came.len()
        && expected.iter().all(|e| {
            let found = came.iter().position(|c| fits(e, c));
            found.map(|at| came.remove(at)).is_some()
        })
}

fn fits(expected: &TcpOption, came: &TcpOption) -> bool {
    fn any<T: PartialEq>(expected: &Option<T>, came: &Option<T>) -> bool {
        expected.is_none() || expected == came
    }
    match (expected, came) {
        (TcpOption::Mss(e), TcpOption::Mss(c)) => any(e, c),
        (TcpOption::WindowScale(e), TcpOption::WindowScale(c)) => any(e, c),
        (TcpOption::FastOpen(e), TcpOption::FastOpen(c)) => any(e, c),
        (TcpOption::Timestamps { value, echo }, TcpOption::Timestamps { value: v, echo: e }) => {
            any(value, v) && any(echo, e)
        }
        (expected, came) => expected == came,
    }
}

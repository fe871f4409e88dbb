//! `toe run`: an unmodified program's TCP connections on the card.
//!
//! Three processes. The one that was typed waits and has the program's exit status ([`run`]); the *supervisor* is its child and
//! the program is the supervisor's. The program runs under a seccomp filter ([`filter`]) that tells the supervisor of the calls that
//! open, accept and describe connections. It keeps its own sockets: a connection of the card comes to them over the loopback
//! interface ([`leg`]), and the supervisor moves the bytes ([`line`]). `docs/toe-run.md` says why it is so, what it
//! costs, and what is not the same.
//!
//! *If the supervisor dies* its ends of the ways to the programs are reset by the kernel, so programs see ECONNRESET; the
//! card gives their connections up when the lease runs out; and the first process answers every later call by having the
//! kernel do it.
//!
//! *When the program ends* and has left others behind (a daemon), the supervisor stays as long as they do.

mod address;
mod counters;
mod descriptor;
mod diag;
mod filter;
mod leg;
mod line;
mod notify;
mod policy;
mod stat;
mod supervisor;
mod target;
#[cfg(test)]
mod tests;
mod workers;

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, PidfdFlags};

pub use policy::Policy;
pub use stat::running;

use crate::route::Kernel;
use supervisor::Supervisor;

/// What a shell's exit status is if the program is not there, or cannot be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
/// And if `toe run` itself cannot.
const OUR_FAULT: u8 = 125;

/// How long the program's end may take to be that of all its children.
const AFTERMATH: Duration = Duration::from_millis(50);
/// How long a card's first word is waited for. Half a second, as in the library, is too short where guest and card share a busy
/// machine: then a whole program went through the kernel because the card was a little late.
const CARD_PATIENCE: Duration = Duration::from_secs(3);
/// How long the card has to take what is left.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What is to be run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Which connections go to the card.
    pub policy: Policy,
    /// Where the counters are written at the end, as JSON.
    pub report: Option<PathBuf>,
}

/// Runs a program to its end; its exit status as a shell has it. Must be called while the process has one thread.
///
/// # Errors
/// One line for a person.
pub fn run(options: &Options) -> Result<u8, String> {
    if let Some(missing) = missing_capability() {
        eprintln!("toe run: {missing}; the kernel carries everything");
        let Some((program, arguments)) = options.command.split_first() else { return Err("no program".into()) };
        let e = Command::new(program).args(arguments).exec();
        return Ok(not_executed(program, &e));
    }
    let (ours, theirs) = UnixStream::pair().map_err(|e| format!("no socket pair: {e}"))?;
    let unanswered = notify::Unanswered::new().map_err(|e| format!("no memory: {e}"))?;
    // The supervisor's children are ours if it dies. Where that cannot be, their status is lost with it.
    let _ = rustix::process::set_child_subreaper(Pid::from_raw(1));
    // SAFETY: there is one thread.
    match unsafe { libc::fork() } {
        -1 => Err(format!("cannot fork: {}", io::Error::last_os_error())),
        0 => {
            drop(ours);
            let code = match supervise(options, theirs, unanswered) {
                Ok(()) => 0,
                Err(e) => {
                    eprintln!("toe run: {e}");
                    1
                }
            };
            crate::close_all(CLOSE_PATIENCE);
            std::process::exit(code)
        }
        _ => {
            drop(theirs);
            attend(ours, unanswered)
        }
    }
}

/// What this process may not do and must, if anything.
fn missing_capability() -> Option<&'static str> {
    use rustix::net::{AddressFamily, SocketType, socket};
    match socket(AddressFamily::PACKET, SocketType::DGRAM, None) {
        Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => Some("CAP_NET_RAW is missing"),
        _ => None,
    }
}

fn not_executed(program: &OsString, e: &io::Error) -> u8 {
    eprintln!("toe run: cannot run {}: {e}", program.display());
    if e.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    (code & 0xff) as u8
}

// ---- the first process ----

/// The program, for the handler of signals.
static PROGRAM: AtomicI32 = AtomicI32::new(0);

extern "C" fn forward(signal: libc::c_int) {
    let program = PROGRAM.load(Ordering::SeqCst);
    if program > 0 {
        // SAFETY: it takes no pointers, and may be called by a handler.
        unsafe { libc::kill(program, signal) };
    }
}

/// Signals that somebody sends to the one that was typed and means the program.
const FORWARDED: &[libc::c_int] = &[libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];
/// Signals of a terminal: the program has them anyway.
const OF_TERMINAL: &[libc::c_int] = &[libc::SIGINT, libc::SIGQUIT];

/// What the supervisor says: a kind and a number.
const STARTED: u8 = b'P';
const ENDED: u8 = b'X';
const MESSAGE_BYTES: usize = 5;

/// Waits for the program's end.
fn attend(mut supervisor: UnixStream, unanswered: notify::Unanswered) -> Result<u8, String> {
    for signal in FORWARDED {
        // SAFETY: the handler calls kill and nothing else.
        unsafe { libc::signal(*signal, forward as *const () as libc::sighandler_t) };
    }
    for signal in OF_TERMINAL {
        // SAFETY: ignoring a signal touches no memory.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
    let mut message = [0; MESSAGE_BYTES];
    let Some(listener) = receive_descriptor(&supervisor, &mut message) else {
        // It has said why.
        return Ok(OUR_FAULT);
    };
    let number = |m: &[u8; MESSAGE_BYTES]| i32::from_le_bytes([m[1], m[2], m[3], m[4]]);
    if message[0] == ENDED {
        return Ok(number(&message) as u8);
    }
    let program = number(&message);
    PROGRAM.store(program, Ordering::SeqCst);
    match supervisor.read_exact(&mut message) {
        Ok(()) => Ok(number(&message) as u8),
        Err(_) => Ok(stand_in(&notify::Listener::new(listener, unanswered), program)),
    }
}

/// The supervisor has died: the kernel does from here on what programs ask for.
fn stand_in(listener: &notify::Listener, program: i32) -> u8 {
    eprintln!("toe run: the supervisor has died: the card's connections are reset, new ones are the kernel's");
    if !listener.proceed_all() {
        call_again(program);
    }
    let pid = Pid::from_raw(program);
    let pidfd = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        fds.extend(pidfd.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        if crate::transport::poll(&mut fds, None).is_err() {
            return OUR_FAULT;
        }
        let events: Vec<_> = fds.iter().map(PollFd::revents).collect();
        if events[0].contains(PollFlags::IN)
            && let Ok(Some(call)) = listener.receive()
        {
            listener.proceed(call.id);
        }
        if events[0].contains(PollFlags::HUP) || events.get(1).is_none_or(|e| !e.is_empty()) {
            let mut status = 0;
            // SAFETY: `status` is an int.
            let reaped = unsafe { libc::waitpid(program, &mut status, 0) };
            return if reaped == program { code(ExitStatus::from_raw(status)) } else { OUR_FAULT };
        }
    }
}

/// Interrupts the calls of the program: the kernel makes them anew once it goes on, and tells of them again.
fn call_again(program: i32) {
    // SAFETY: it takes no pointers; the program is this process's to wait for, so that its id is nobody else's.
    let send = |signal| unsafe { libc::kill(program, signal) };
    send(libc::SIGSTOP);
    // Going on takes a stop back that has not come about yet.
    // SAFETY: all zeros is a value of this plain structure.
    let mut what: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let (wanted, id) = (libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT, program.cast_unsigned());
    // SAFETY: `what` is such a structure. What has ended stays to be waited for.
    while unsafe { libc::waitid(libc::P_PID, id, &mut what, wanted) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    send(libc::SIGCONT);
}

// ---- the supervisor ----

fn send_descriptor(to: &UnixStream, message: &[u8], fd: &OwnedFd) -> io::Result<()> {
    let fds = [fd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(to, &[io::IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_descriptor(from: &UnixStream, message: &mut [u8]) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [io::IoSliceMut::new(message)];
    loop {
        match rustix::net::recvmsg(from, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
            Ok(received) if received.bytes == 0 => return None,
            Ok(_) => break,
        }
    }
    ancillary.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

fn supervise(options: &Options, mut first: UnixStream, unanswered: notify::Unanswered) -> Result<(), String> {
    let said = |e: io::Error| e.to_string();
    let Some((program, arguments)) = options.command.split_first() else { return Err("no program".into()) };
    // The program's terminal may end the program; the supervisor ends after it.
    let signals = [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGTERM, libc::SIGTSTP];
    // SAFETY: ignoring a signal touches no memory.
    let before = signals.map(|signal| unsafe { libc::signal(signal, libc::SIG_IGN) });

    let inherits = descriptor::inherits_tcp();
    let (ours, theirs) = UnixStream::pair().map_err(said)?;
    let filter = filter::program();
    let mut command = Command::new(program);
    command.args(arguments);
    let prepare = move || {
        for (signal, action) in signals.iter().zip(before) {
            // SAFETY: the action is the one that this process had.
            unsafe { libc::signal(*signal, action) };
        }
        // SAFETY: it is new, and this process's alone.
        let listener = unsafe { notify::own(notify::install(&filter)?) };
        send_descriptor(&theirs, b"L", &listener)
    };
    // SAFETY: it makes system calls and touches nothing that another thread could hold: there is none.
    unsafe { command.pre_exec(prepare) };
    let spawned = command.spawn();
    // Its copy of `theirs` with it, so that a missing descriptor is an end and not a wait.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => {
            let code = if e.raw_os_error() == Some(libc::EBUSY) {
                eprintln!("toe run: this runs under another `toe run` (or another listener of seccomp) already");
                OUR_FAULT
            } else {
                not_executed(program, &e)
            };
            // The first process takes it as the status, with any descriptor beside it.
            let null = std::fs::File::open("/dev/null").map_err(said)?;
            return send_descriptor(&first, &message(ENDED, code.into()), &null.into()).map_err(said);
        }
    };
    let mut byte = [0];
    let listener = receive_descriptor(&ours, &mut byte).ok_or("the filter's descriptor did not come")?;
    send_descriptor(&first, &message(STARTED, child.id().cast_signed()), &listener).map_err(said)?;

    let listener = notify::Listener::new(listener, unanswered);
    let kernel = Kernel::shared();
    kernel.be_patient(CARD_PATIENCE);
    let mut supervisor = Supervisor::new(listener, kernel, options.policy.clone(), inherits).map_err(said)?;
    let status = Arc::new(Mutex::new(None));
    let (ended, wake) = (status.clone(), supervisor.waker());
    std::thread::Builder::new()
        .name("toe-wait".into())
        .spawn(move || {
            let waited = child.wait();
            *ended.lock().unwrap_or_else(|e| e.into_inner()) = Some((waited.ok(), Instant::now()));
            wake();
        })
        .map_err(said)?;
    let published = stat::publish();
    let ended = || *status.lock().unwrap_or_else(|e| e.into_inner());
    let publish = |s: &Supervisor| {
        if let Some(published) = &published {
            published.set(s.now(), || s.report());
        }
    };
    let end = |s: &Supervisor| ended().is_some_and(|(_, at)| s.is_over() || at.elapsed() > AFTERMATH);
    supervisor
        .run(|s| {
            publish(s);
            end(s)
        })
        .map_err(said)?;
    let code = ended().and_then(|(status, _)| status).map_or(OUR_FAULT, code);
    if !supervisor.is_over() {
        // Nobody waits any more if this fails.
        let _ = first.write_all(&message(ENDED, code.into()));
        supervisor
            .run(|s| {
                publish(s);
                s.is_over()
            })
            .map_err(said)?;
    }
    supervisor.farewell().map_err(said)?;
    if let Some(path) = &options.report {
        let report = format!("{:#}\n", supervisor.report());
        std::fs::write(path, report).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    drop(supervisor);
    crate::close_all(CLOSE_PATIENCE);
    // As above.
    let _ = first.write_all(&message(ENDED, code.into()));
    Ok(())
}

fn message(kind: u8, number: i32) -> [u8; MESSAGE_BYTES] {
    let [a, b, c, d] = number.to_le_bytes();
    [kind, a, b, c, d]
}

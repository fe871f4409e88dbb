//! Programs and supervisors of `toe run` that die at any moment, under load.
//!
//! Each round starts a program with connections that open, talk and close all the time (`toe-calls load`) under
//! `toe run`, and kills it, or its supervisor, after a random while: mostly from the moment on when its first bytes have come
//! back, else from its start. Then the other must end by itself: a supervisor because
//! its program is gone, a program because its connections are reset, and the kernel carries those that it opens then.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

const LIMIT: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 3;
/// Programs that run at a time.
const LANES: u64 = 4;
/// What the load's end is called when a connection broke.
const BROKEN: u8 = 3;
/// How long the load goes on from its first exchange if nothing breaks, which is how long a killer has time.
const LOAD: Duration = Duration::from_millis(400);

/// What the load says when its first bytes have come back.
const TALKS: &str = "talks";

/// Opens, talks and closes for a while, or until something breaks; then says so by its status. It waits for ever for what
/// does not come.
pub fn load(peer: SocketAddr) -> ExitCode {
    static BROKE: AtomicBool = AtomicBool::new(false);
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let Ok(listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)) else { return ExitCode::FAILURE };
    let port = listener.local_addr().map_or(0, |a| a.port());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The peer sees what becomes of it.
            let _ = stream.write_all(b"pong").and_then(|()| stream.shutdown(Shutdown::Write));
        }
    });
    let talk = move |number: usize| -> std::io::Result<()> {
        let bytes = vec![number as u8; 20_000];
        let mut s = TcpStream::connect(peer)?;
        if number == 0 {
            let [high, low] = port.to_be_bytes();
            s.write_all(&[b'L', high, low])?;
            s.read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        s.write_all(b"E")?;
        for _ in 0..8 {
            s.write_all(&bytes)?;
            let mut back = vec![0; bytes.len()];
            s.read_exact(&mut back)?;
            assert_eq!(bytes, back, "another's bytes");
            FIRST.get_or_init(|| {
                println!("{TALKS}");
                Instant::now()
            });
        }
        Ok(())
    };
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            std::thread::spawn(move || {
                while !BROKE.load(Ordering::Relaxed) && FIRST.get().is_none_or(|first| first.elapsed() < LOAD) {
                    if let Err(e) = talk(number) {
                        eprintln!("broke: {e}");
                        BROKE.store(true, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        if thread.join().is_err() {
            return ExitCode::FAILURE;
        }
    }
    if BROKE.load(Ordering::Relaxed) { ExitCode::from(BROKEN) } else { ExitCode::SUCCESS }
}

/// The children of a process.
fn children(of: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1).and_then(|p| p.parse().ok()) == Some(of)
    })
    .collect()
}

fn is_there(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}

fn until(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + LIMIT;
    loop {
        if done() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(id: u32) {
    // SAFETY: it takes no pointers; the process is one that this one started.
    unsafe { libc::kill(id.cast_signed(), libc::SIGKILL) };
}

/// What became of the rounds.
#[derive(Default)]
struct Tally {
    programs: AtomicU32,
    supervisors: AtomicU32,
    hangs: AtomicU32,
    missed: AtomicU32,
}

fn one_more(of: &AtomicU32) -> u32 {
    of.fetch_add(1, Ordering::Relaxed) + 1
}

/// Kills so many, by this seed; [`LANES`] of them at a time, because most of a round is waiting.
pub fn kills(toe: &str, peer: &str, rounds: u32, seed: u64) -> ExitCode {
    let (tally, next) = (Tally::default(), AtomicU32::new(0));
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let (tally, next, failed) = (&tally, &next, &failed);
            scope.spawn(move || {
                let mut state = (seed * LANES + lane).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                let mut random = move |below: u64| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state % below
                };
                while next.fetch_add(1, Ordering::Relaxed) < rounds && !failed.load(Ordering::Relaxed) {
                    if let Err(why) = round(toe, peer, tally, rounds, &mut random) {
                        println!("{why}");
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let [programs, supervisors, hangs, missed] =
        [tally.programs, tally.supervisors, tally.hangs, tally.missed].map(AtomicU32::into_inner);
    println!("killed {programs} programs and {supervisors} supervisors; {hangs} hung; {missed} ended before");
    if hangs == 0 && !failed.into_inner() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Starts, kills and sees that all are gone. An error ends everything.
fn round(toe: &str, peer: &str, tally: &Tally, rounds: u32, random: &mut impl FnMut(u64) -> u64) -> Result<(), String> {
    let own = std::env::current_exe().unwrap_or_default();
    let mut command = Command::new(toe);
    command.args(["run", "--"]).arg(&own).args(["load", peer]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut first = command.spawn().map_err(|e| format!("cannot start {toe}: {e}"))?;
    let mut found = None;
    until(|| {
        let supervisor = children(first.id()).first().copied();
        found = supervisor.and_then(|s| Some((s, *children(s).first()?)));
        found.is_some() || matches!(first.try_wait(), Ok(Some(_)))
    });
    let Some((supervisor, program)) = found else {
        // On a slow machine it may be over before it is found.
        let missed = one_more(&tally.missed);
        let is_over = matches!(first.try_wait(), Ok(Some(_)));
        return if is_over && missed <= rounds / 2 { Ok(()) } else { Err("nothing was started".into()) };
    };
    if random(4) != 0
        && let Some(out) = &first.stdout
    {
        // Whether it talks or has ended: what comes of it is seen below.
        let mut fds = [PollFd::new(out, PollFlags::IN)];
        let patience = Timespec::try_from(LIMIT).map_err(|e| e.to_string())?;
        rustix::event::poll(&mut fds, Some(&patience)).map_err(|e| e.to_string())?;
    }
    std::thread::sleep(Duration::from_millis(random(LOAD.as_millis() as u64)));
    let victim = if random(2) == 0 {
        one_more(&tally.programs);
        program
    } else {
        one_more(&tally.supervisors);
        supervisor
    };
    kill(victim);
    let ended = |first: &mut Child| matches!(first.try_wait(), Ok(Some(_)));
    if !until(|| ended(&mut first) && !is_there(supervisor) && !is_there(program)) {
        one_more(&tally.hangs);
        let left = [first.id(), supervisor, program].map(is_there);
        println!("{victim} of {supervisor} {program} was killed; still there: {left:?}");
        [first.id(), supervisor, program].into_iter().for_each(kill);
        // It was killed.
        let _ = first.wait();
    }
    Ok(())
}
